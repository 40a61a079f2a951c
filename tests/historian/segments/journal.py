"""Ledgers with frames, blocks and stored history in them, and what a historian must hold of them, row by row."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from alerting import AlarmState, Category, State, Transition, TransitionKind
from config import HistorianConfig
from gateway.core.entries import Columns, Entry, EntryKind, pack_columns
from gateway.core.ledger import Batch, Ledger
from gateway.historian.segments import owner as owner_module
from gateway.historian.segments.log import LedgerLog
from gateway.historian.segments.seal import Places
from wire import BlockColumn, Native, SpoolBlock, encode_block

SITE = "PARK1"
DAY_MS = 86_400_000
T0_MS = 1_750_032_000_000  # 2025-06-16 00:00 UTC
TAGS = ("T1.LEVEL", "T1.PRESSURE", "罐2.LEVEL", "a'b;--", 'q"/../x')
SPAN = (0.0, 100.0)

Row = tuple[str, int, float | None, int, float | None, bool, int, int]
"""Tag, source_ms, value, code, raw, late, stream, sequence: as plain Parquet readers see them."""


class TestPlaces(Places):
    """Every tag runs from 0 to 100."""

    __test__ = False

    def __init__(self) -> None:
        self.spans = dict.fromkeys(TAGS, SPAN) | {"T9.OTHER": SPAN}


@dataclass
class Journal:
    """A ledger that grows, and the rows its historian must come to."""

    path: Path
    ledger_id: str = "ledger-one"
    rows: Counter[Row] = field(default_factory=Counter)
    pos: int = 0

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.path, SITE)
        self.ledger.set_id(self.ledger_id)
        self.numbers = dict(zip(TAGS, self.ledger.tag_numbers(TAGS), strict=True))

    def close(self) -> None:
        self.ledger.close()

    def frame(
        self, received_ms: int, samples: Sequence[tuple[str, int, float, int]], *, stream: int = 7, number: int = 0, late: bool = False,
        historical: bool = False, raw: float = math.nan,
    ) -> None:  # fmt: skip
        """Log one frame: samples of (tag, source_ms, value, code); `raw` is that of the first."""
        self.pos += 1
        tag, source_ms, value, code = zip(*samples, strict=True)
        raws = np.full(len(samples), np.nan)
        raws[0] = raw
        body = pack_columns(Columns(
            np.array([self.numbers[each] for each in tag], np.int32), np.array(value, float), np.array(code, np.uint8),
            np.array(source_ms, np.int64), raws,
        ))  # fmt: skip
        number = number or self.pos
        if historical:
            entry = Entry(self.pos, EntryKind.HISTORICAL, 1, received_ms, body, "F1", "D", 0, 0, 0, len(samples))
            place = (True, 0, self.pos)
        else:
            upto = number if late else 0
            entry = Entry(self.pos, EntryKind.FRAME, 1, received_ms, body, "E1", "D", stream, number, number, len(samples), upto)
            place = (late, stream, number)
        self._commit(entry)
        for at, (name, when, what, quality) in enumerate(samples):
            self.rows[name, when, plain(what), quality, plain(raws[at].item()), *place] += 1

    def block(
        self, received_ms: int, times: Sequence[int], counts: Sequence[int], *, first: int, late_upto: int = 0,
        fresh: Sequence[tuple[int, int]] | None = None, tag: str = TAGS[0], stream: int = 7, node: str = "E1",
        refused: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        """Log one block of one tag; frames are numbered from `first`, values are counts of the register."""
        self.pos += 1
        number = np.arange(first, first + len(times), dtype=np.int64)
        column = BlockColumn(
            tag, "D", Native.U16, 0.5, 0.0, number, np.array(times, np.int64), np.array(counts, np.uint64),
            np.full(len(times), 192, np.uint8),
        )  # fmt: skip
        body = encode_block(SpoolBlock(node, stream, first, int(number[-1]), 0, 0, (column,)))
        entry = Entry(
            self.pos, EntryKind.BLOCK, 1, received_ms, body, "E1", "", stream, first, int(number[-1]), len(times), late_upto,
            None if fresh is None else tuple(fresh), None if refused is None else tuple(refused),
        )  # fmt: skip
        self._commit(entry)
        if tag not in TAGS:
            return
        for each, when, count in zip(number.tolist(), times, counts, strict=True):
            if fresh is None or any(lo <= each <= hi for lo, hi in fresh):
                over = count * 0.5 > SPAN[1]
                value, code, raw = (SPAN[1], 69, count * 0.5) if over else (count * 0.5, 192, None)
                self.rows[tag, when, value, code, raw, each <= late_upto, stream, each] += 1

    def torn(self, received_ms: int, kind: EntryKind, body: bytes, samples: int = 1) -> None:
        """Log a row whose body is what is left of one."""
        self.pos += 1
        self._commit(Entry(self.pos, kind, 1, received_ms, body, "E1", "D", 7, self.pos, self.pos, samples))

    def tick(self, received_ms: int) -> None:
        """Log a row that holds no samples."""
        self.pos += 1
        self._commit(Entry(self.pos, EntryKind.TICK, 1, received_ms, b""))

    def alarm(self, tag: str, from_ms: int, to_ms: int | None) -> None:
        """Journal an alarm that stood so long."""
        name = f"{tag}-{from_ms}"
        state = AlarmState(
            id=name, site=SITE, category=Category.PROCESS, tag=tag, limit="H", grade=2, state=State.ACTIVE_UNACKED, value=12.0,
            code=192, setpoint=10.0, unit="m", start_ms=from_ms, returned_ms=to_ms, revision=1,
        )  # fmt: skip
        transition = Transition(
            id=name, alarm_id=name, revision=1, kind=TransitionKind.RAISED, alarm=state, engine_ms=5, at_ms=from_ms
        )
        self.ledger.commit([Batch(transitions=[(self.pos, transition)], engine_ms=1, wall_ms=from_ms)])

    def _commit(self, entry: Entry) -> None:
        self.ledger.commit([Batch(entries=[entry], engine_ms=1, wall_ms=entry.received_ms)])


def plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def owner_of(
    folder: Path, ledger: Path, now_ms: int, *, seal_s: float = 600.0, keep_days: float = 400.0, samples_max: int = 1_000_000,
    clock: list[int] | None = None, margin_s: float = 60.0, monotonic: Callable[[], float] = time.monotonic,
) -> owner_module.Owner:  # fmt: skip
    """Return an owner whose clock stands, or shows what `clock` holds."""
    config = HistorianConfig(seal_s=seal_s, keep_days=keep_days, evidence_margin_s=margin_s)
    clock = clock or [now_ms]
    return owner_module.Owner(
        folder, LedgerLog(ledger, SITE), TestPlaces(), config, lambda: clock[0], samples_max=samples_max, monotonic=monotonic
    )


def settle(owner: owner_module.Owner, rounds_max: int = 200) -> None:
    """Let it do all that is due."""
    for _ in range(rounds_max):
        if owner.round() > 0:
            return
    raise AssertionError("it never comes to rest")


def run(folder: Path, journal: Journal, now_ms: int, *, seal_s: float = 1.0, keep_days: float = 400.0, samples_max: int = 1000) -> None:
    """Start an owner, let it do all that is due, end it."""
    owner = owner_of(folder, journal.path, now_ms, seal_s=seal_s, keep_days=keep_days, samples_max=samples_max)
    owner.begin()
    try:
        settle(owner)
        assert owner.trouble == ""
    finally:
        owner.close()


def rows_in(paths: Iterable[Path]) -> Counter[Row]:
    """Read Parquet files as any tool would."""
    listed = [str(path) for path in paths]
    if not listed:
        return Counter()
    db = duckdb.connect(":memory:", config={"threads": 1})
    try:
        return Counter(db.execute(
            "SELECT tag, source_ms, value, code, raw, late, stream, sequence FROM read_parquet($1)", [listed]
        ).fetchall())  # fmt: skip
    finally:
        db.close()


def everything(folder: Path) -> Counter[Row]:
    """Read every sample file that lies in the folder, whoever names it."""
    return rows_in(sorted((folder / "samples").glob("*/*.parquet")))


def status_of(folder: Path) -> dict[str, Any]:
    """Return what status.json says."""
    loaded: dict[str, Any] = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    return loaded
