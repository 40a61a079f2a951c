"""What all benchmarks share: order statistics, the printed table, the closing JSON line, the raw disk.

An outcome says what was measured, beside what, under which durability, and whether the goal holds. Nothing here
remembers a figure: what was not measured in this run is named as missing.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FSYNC_BYTES: Final = 4096

Figure = float | int | str | bool | None


class BenchmarkError(Exception):
    """Nothing could be measured; the message says why."""


@contextmanager
def data_folder(named: Path | None, prefix: str) -> Iterator[Path]:
    """Give an empty folder to measure on: the one that was named, which stays, or one of our own, which goes afterwards.

    Raises:
        BenchmarkError: the one named is not empty.
    """
    folder = named or Path(tempfile.mkdtemp(prefix=prefix))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BenchmarkError(f"{folder} is not empty; give another --data")
    try:
        yield folder
    finally:
        if named is None:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Spread:
    """Order statistics of one measured quantity, by nearest rank: each is a value that was really measured."""

    count: int
    p50: float
    p99: float
    max: float

    def to_json(self) -> dict[str, float | int]:
        """Rounded for the closing line."""
        return {"count": self.count, **{name: round(getattr(self, name), 3) for name in ("p50", "p99", "max")}}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of values in ascending order; `share` in (0, 1].

    Raises:
        ValueError: no values: what was not measured has no percentile.
    """
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> Spread:
    """Return the order statistics of `values`. Raises ValueError when there are none."""
    ordered = sorted(values)
    return Spread(len(ordered), percentile(ordered, 0.5), percentile(ordered, 0.99), percentile(ordered, 1.0))


@dataclass(slots=True)
class Outcome:
    """What a benchmark found.

    Attributes:
        goal: what must hold, in numbers; `held` has the same keys and says which did.
        rows: the table, first row its heading.
        durability: what of ours was on the disk when a figure was taken.
        missing: peers that are not here, and what else could not be measured.
    """

    id: str
    title: str
    durability: str
    figures: dict[str, Any] = field(default_factory=dict)
    ratios: dict[str, Figure] = field(default_factory=dict)
    goal: dict[str, Figure] = field(default_factory=dict)
    held: dict[str, bool] = field(default_factory=dict)
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Every part of the goal was judged, and held."""
        return bool(self.goal) and self.goal.keys() == self.held.keys() and all(self.held.values())

    def to_json(self) -> dict[str, Any]:
        """The closing object of a run."""
        return {"id": self.id, "figures": self.figures, "ratios": self.ratios, "goal": self.goal, "holds": self.holds}

    def text(self) -> str:
        """What people read, without the closing line."""
        lines = [f"{self.id}  {self.title}", f"durability: {self.durability}", "", *table(self.rows), ""]
        lines += [f"{'holds' if ok else 'MISSED'}  {name} (goal {self.goal.get(name)})" for name, ok in self.held.items()]
        lines += [f"missing: {what}" for what in self.missing]
        lines += self.notes
        return "\n".join(lines)


def closing_line(outcomes: Sequence[Outcome]) -> str:
    """Return the last line of a run: the object of the one benchmark, or of all under id "all"."""
    if len(outcomes) == 1:
        found: Mapping[str, Any] = outcomes[0].to_json()
    else:
        found = {
            "id": "all",
            **{
                part: {outcome.id: outcome.to_json()[part] for outcome in outcomes}
                for part in ("figures", "ratios", "goal")
            },
            "holds": bool(outcomes) and all(outcome.holds for outcome in outcomes),
        }
    return json.dumps(found, ensure_ascii=False, allow_nan=False)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines of aligned columns; the first row is the heading, numbers stand right."""
    if not rows:
        return []
    columns = max(len(row) for row in rows)
    full = [[*row, *[""] * (columns - len(row))] for row in rows]
    widths = [max(_width(row[i]) for row in full) for i in range(columns)]
    lines = ["  ".join(_pad(cell, widths[i], right=i > 0) for i, cell in enumerate(row)).rstrip() for row in full]
    return [lines[0], "-" * max(map(_width, lines)), *lines[1:]]


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _pad(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def spread_cells(found: Spread | None, unit_digits: int = 2) -> list[str]:
    """Return count, p50, p99 and max as table cells."""
    if found is None:
        return ["0", "-", "-", "-"]
    return [str(found.count), *(f"{value:.{unit_digits}f}" for value in (found.p50, found.p99, found.max))]


class RawDisk:
    """The disk below the ledger: one small append and one fdatasync, on a file in the same folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "raw-fsync.bin"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._record = os.urandom(FSYNC_BYTES)

    def once_ms(self) -> float:
        """Append 4 KiB, sync, and return how long that took."""
        began_ns = time.perf_counter_ns()
        os.write(self._file, self._record)
        os.fdatasync(self._file)
        return (time.perf_counter_ns() - began_ns) / 1e6

    def close(self) -> None:
        """Close and remove the file."""
        os.close(self._file)
        self._path.unlink(missing_ok=True)
