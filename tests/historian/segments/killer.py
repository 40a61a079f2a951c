"""Kills a process at every step of its work on the disk, one after the other, and looks at what the next start makes of it.

A program of its own: `python -m tests.historian.segments.killer SCENARIO FOLDER`. Children are forked before any thread or
database is there, so that hundreds of deaths take seconds. Prints one JSON line: how many steps were died at, and what was wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from gateway.historian.samples import Samples, concatenated
from gateway.historian.segments import folder as folder_module
from gateway.historian.segments.durable import hook_steps
from gateway.historian.segments.evidence import evidence_days, evidence_path
from gateway.historian.segments.files import connect
from gateway.historian.segments.leftover import orphans
from gateway.historian.segments.load import part_of, write_part
from tests.historian.reference import Row as RowOf
from tests.historian.reference import samples_of
from tests.historian.segments.journal import DAY_MS, T0_MS, TAGS, Journal, Row, everything, owner_of, rows_in, settle

STEPS_MAX = 2_000
HOUR_MS = 3_600_000


class Scenario:
    """What is there before, what is done, and what must be there in the end whatever happened in between."""

    now_ms = T0_MS
    samples_max = 40
    keep_days = 400.0

    def __init__(self, base: Path) -> None:
        self.base = base
        base.mkdir(parents=True)
        self.folder = base / "historian"
        self.ledger = base / "ledger.sqlite3"
        self.journal = Journal(self.ledger)
        self.prepare()
        self.journal.close()

    def prepare(self) -> None:
        """Fill the ledger."""
        raise NotImplementedError

    def before(self, folder: Path) -> None:
        """Do what nobody dies in."""

    def work(self, folder: Path) -> None:
        """Do what may die at any step."""
        owner = owner_of(folder, self.ledger, self.now_ms, keep_days=self.keep_days, samples_max=self.samples_max)
        owner.begin()
        settle(owner)
        assert not owner.trouble, owner.trouble
        owner.close()

    def check_after_death(self, folder: Path) -> None:
        """What manifests name is whole, and nothing is named twice; the cursor is not ahead of it."""
        taken = folder_module.SegmentFolder(folder).snapshot()
        assert not taken.unreadable, taken.unreadable
        named = rows_in(live.samples(folder) for live in taken.files())
        assert not named - self.journal.rows, "more than was measured"
        found = folder_module.SegmentFolder(folder).verified("ledger-one")
        assert not found.problems, found.problems
        assert found.cursor == taken.cursor("ledger-one")
        first = taken.chain("ledger-one")
        assert sum(manifest.rows + manifest.removed_rows for manifest in first) <= sum(self.journal.rows.values())

    def check_in_the_end(self, folder: Path) -> None:
        """Everything once."""
        assert everything(folder) == self.journal.rows
        taken = folder_module.SegmentFolder(folder).snapshot()
        assert rows_in(live.samples(folder) for live in taken.files()) == self.journal.rows
        assert taken.cursor("ledger-one") == self.journal.pos
        assert not [*orphans(folder, taken, self.now_ms)], "left over"
        assert not [*folder.glob("**/*.tmp")], "left over"
        assert len(taken.manifests) == len([*(folder / "manifests").iterdir()]), "left over"
        assert json.loads((folder / "status.json").read_text())["damaged"] == []


class Seal(Scenario):
    """Three seals over two days, one of them with a stamp of long ago."""

    now_ms = T0_MS + 2 * DAY_MS

    def prepare(self) -> None:
        for at in range(50):
            when = T0_MS + DAY_MS - 20_000 + at * 1000
            self.journal.frame(when, [(TAGS[0], when, at * 1.0, 192), (TAGS[2], when, float("nan"), 1)])
        self.journal.frame(T0_MS + DAY_MS + 60_000, [(TAGS[1], 5, 3.0, 192)])
        self.journal.tick(T0_MS + DAY_MS + 61_000)


class Pack(Scenario):
    """Six seals of one hour, and one more of their day, with late pieces of the day before."""

    now_ms = T0_MS + 2 * DAY_MS + 5 * HOUR_MS
    samples_max = 20

    def prepare(self) -> None:
        for hour, frames in ((0, 56), (1, 8)):
            for at in range(frames):
                when = T0_MS + DAY_MS + hour * HOUR_MS + at * 1000
                late_ms = DAY_MS if at in (3, 50) else 0
                self.journal.frame(when, [(TAGS[at % 3], when - late_ms, at * 1.0, 192), (TAGS[3], when, 1.0, 192)])

    def before(self, folder: Path) -> None:
        # A clock at which everything is sealed and nothing is packed yet.
        owner = owner_of(folder, self.ledger, T0_MS + DAY_MS + HOUR_MS + 80_000, seal_s=1.0, samples_max=self.samples_max)
        owner.begin()
        settle(owner)
        owner.close()
        kinds = Counter(m.stem.kind for m in folder_module.SegmentFolder(folder).snapshot().manifests)
        assert kinds == {"seal": 7}, kinds
        (folder / "status.json").unlink()

    def check_in_the_end(self, folder: Path) -> None:
        super().check_in_the_end(folder)
        manifests = folder_module.SegmentFolder(folder).snapshot().manifests
        assert [m.stem.kind for m in manifests] == ["pack"], manifests


class Retention(Scenario):
    """Six days of which three go, one after the other, with evidence around an alarm."""

    now_ms = T0_MS + 5 * DAY_MS + HOUR_MS
    samples_max = 1000
    keep_days = 2.0

    def prepare(self) -> None:
        for day in range(6):
            for at in range(30):
                when = T0_MS + day * DAY_MS + at * 60_000
                self.journal.frame(when, [(TAGS[0], when, float(at), 192), (TAGS[1], when, float(at), 192)])
        self.journal.alarm(TAGS[1], T0_MS + DAY_MS + 10 * 60_000, T0_MS + DAY_MS + 12 * 60_000)

    def check_after_death(self, folder: Path) -> None:
        super().check_after_death(folder)
        taken = folder_module.SegmentFolder(folder).snapshot()
        left = [row for row in self.journal.rows if row[1] >= (T0_MS + 3 * DAY_MS)]
        if taken.cursor("ledger-one") == self.journal.pos:
            named = rows_in(live.samples(folder) for live in taken.files())
            assert not Counter(left) - named, "a day went that was to stay"
            if taken.kept_from > "2025-06-17":
                self.check_evidence(folder)

    def check_evidence(self, folder: Path) -> None:
        around = [row for row in self.journal.rows if row[0] == TAGS[1] and 9 <= (row[1] - T0_MS - DAY_MS) / 60_000 <= 13]
        assert rows_in(evidence_path(folder, day) for day in evidence_days(folder)) == Counter(around)
        assert len(around) == 5

    def check_in_the_end(self, folder: Path) -> None:
        left: Counter[Row] = Counter({row: count for row, count in self.journal.rows.items() if row[1] >= T0_MS + 3 * DAY_MS})
        assert everything(folder) == left
        taken = folder_module.SegmentFolder(folder).snapshot()
        assert taken.cursor("ledger-one") == self.journal.pos
        assert not [*orphans(folder, taken, self.now_ms)], "left over"
        self.check_evidence(folder)


class Load(Scenario):
    """Two parts of imported history, beside an owner that cleans up."""

    def prepare(self) -> None:
        self.journal.tick(T0_MS)

    def parts(self) -> list[Samples]:
        return [samples_of([RowOf(TAGS[0], T0_MS + at * 1000 + part, 1.5 * at) for at in range(20)]) for part in (0, 1)]

    def work(self, folder: Path) -> None:
        db = connect(folder)
        for part, samples in enumerate(self.parts()):
            write_part(db, folder, "old1", part, samples, T0_MS)
        db.close()

    def check_after_death(self, folder: Path) -> None:
        taken = folder_module.SegmentFolder(folder).snapshot()
        assert not taken.unreadable
        owner = owner_of(folder, self.ledger, T0_MS)
        owner.begin()
        owner.close()

    def check_in_the_end(self, folder: Path) -> None:
        whole = concatenated(self.parts())
        found = [part_of(folder, "old1", part) for part in (0, 1)]
        assert [manifest.rows for manifest in found if manifest] == [20, 20]
        assert found[0] is not None
        assert found[1] is not None
        assert found[1].prev == found[0].hash
        assert sum(everything(folder).values()) == len(whole)
        assert len(everything(folder)) == len(whole)


SCENARIOS: dict[str, type[Scenario]] = {"seal": Seal, "pack": Pack, "retention": Retention, "load": Load}


def forked(work: Callable[[], None], told: Path) -> int:
    """Run in a child; returns how it ended: 0, 1 with the trace in `told`, or minus the signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            told.write_text(traceback.format_exc())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def dying(work: Callable[[], None], at: int) -> Callable[[], None]:
    """Return work that ends at its step number `at`, by a signal that nobody can catch."""

    def run() -> None:
        seen = 0

        def hook(_name: str) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)

        hook_steps(hook)
        work()

    return run


def main(name: str, base: Path) -> dict[str, object]:
    """Die at every step of a scenario, and once not at all."""
    told = base / "told.txt"
    base.mkdir(parents=True, exist_ok=True)
    scenario = SCENARIOS[name](base / "made")
    scenario.folder.mkdir()
    if forked(lambda: scenario.before(scenario.folder), told):
        return {"steps": 0, "wrong": [told.read_text()]}
    wrong: list[str] = []
    for at in range(1, STEPS_MAX):
        folder = base / f"run{at}"
        shutil.copytree(scenario.folder, folder)
        ended = forked(dying(lambda folder=folder: scenario.work(folder), at), told)  # type: ignore[misc]
        if ended > 0:
            return {"steps": at, "wrong": [told.read_text()]}

        def look(folder: Path = folder) -> None:
            scenario.check_after_death(folder)
            scenario.work(folder)
            scenario.check_in_the_end(folder)

        if forked(look, told):
            wrong.append(f"step {at}: {told.read_text()}")
            if len(wrong) > 3:
                break
        shutil.rmtree(folder)
        if ended == 0:
            return {"steps": at - 1, "wrong": wrong}
    return {"steps": STEPS_MAX, "wrong": wrong or ["it never came to an end"]}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
