"""Hand-made records: short histories of one tank in which every promise is kept, to be bent by tests."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from config import SiteConfig
from simulators.world import (
    Committed,
    Event,
    Forgot,
    Healed,
    Noticed,
    Read,
    Record,
    Sample,
    Settled,
    Taken,
)
from tests.simulation.all_arrive import Step
from tests.simulation.facts import Violation
from tests.simulation.oracle import Books, check
from tests.simulation.rules import GOOD

LEVEL, SLOW = "T1.LEVEL", "T1.SLOW"
COMM, RANGE = 1, 69
START_MS = 1_700_000_000_000
STREAM = 77
NAME = {"zh": "甲", "en": "A"}


def tank_site() -> SiteConfig:
    """One edge, one tank: LEVEL with L 10, H 50 (deadband 5) and HH 80 in red; SLOW with delays of 2 s."""

    def limit(setpoint: float, grade: str, **more: Any) -> dict[str, Any]:
        return {"setpoint": setpoint, "deadband": 5, "grade": grade, "guidance": "Look at the tank first.", **more}

    def tag(name: str, limits: dict[str, Any]) -> dict[str, Any]:
        return {"id": name, "name": NAME, "equipment": "V1", "quantity": "level", "unit": "%",
                "range": {"low": 0, "high": 100}, "limits": limits}  # fmt: skip

    def receiver(name: str, grades: list[str]) -> dict[str, Any]:
        return {"id": name, "name": NAME, "url": f"http://127.0.0.1:1/hooks/{name}", "secret_env": name,
                "plain_http_ranges": ["127.0.0.0/8"], "grades": grades}  # fmt: skip

    points = [{"tag": name, "table": "holding", "address": 2 * at, "type": "f32"} for at, name in enumerate((LEVEL, SLOW))]
    return SiteConfig.model_validate({
        "version": 1, "site": "TANK", "name": NAME,
        "region": {level: {"code": "1", "name": NAME} for level in ("city", "county", "park", "enterprise")},
        "hazard_sources": [{"id": "H1", "name": NAME, "kind": "storage",
                            "equipment": [{"id": "V1", "name": NAME, "kind": "tank"}]}],
        "tags": [
            tag(LEVEL, {"L": limit(10, "blue"), "H": limit(50, "yellow"), "HH": limit(80, "red")}),
            tag(SLOW, {"H": limit(50, "orange", on_delay_s=2, off_delay_s=2)}),
        ],
        "receivers": [receiver("CITY", ["red", "orange", "yellow", "blue"]), receiver("PARK", ["red"])],
        "edges": [{"id": "E1", "buses": [{"id": "B1", "host": "127.0.0.1", "port": 502}],
                   "devices": [{"id": "D1", "bus": "B1", "unit": 1, "period_s": 1, "timeout_s": 0.5, "points": points}]}],
    })  # fmt: skip


class History:
    """A record in the making. Each reading is one frame, one second later, committed and forgotten in turn."""

    def __init__(self) -> None:
        self.record = Record(1, tank_site(), START_MS, Path("none"))
        self.at_s = 0.0
        self.sequence = 0
        self.frames: dict[tuple[str, int, int], dict[str, tuple[float, int, int]]] = {}
        self.live: set[tuple[str, int, int]] = set()
        self.books = Books(self.frames, self.live, [], [], [])
        self.journal: list[Step] = []
        self.losses: list[Any] = []
        self.numbers: dict[tuple[str, str], int] = {}

    def add(self, event: Event) -> Event:
        """Note an event."""
        self.record.add(event)
        return event

    @property
    def now_ms(self) -> int:
        """The instruments' stamp of this moment."""
        return START_MS + round(self.at_s * 1000)

    def read(self, value: float, code: int = GOOD, tag: str = LEVEL) -> Sample:
        """Let a second pass; the instrument shows a value."""
        self.at_s += 1.0
        sample = Sample(tag, math.nan if code < 64 else value, code, self.now_ms)
        self.add(Read(self.at_s, "E1", 0, "D1", (sample,)))
        return sample

    def take(self, sample: Sample, *, box: int = 0, stream: int = STREAM) -> Taken:
        """Its frame is synced."""
        self.sequence += 1
        taken = Taken(self.at_s, "E1", box, stream, self.sequence, 0, 0, (sample,))
        self.add(taken)
        return taken

    def commit(self, taken: Taken, *, live: bool = True) -> None:
        """The ledger holds it."""
        key = (taken.node, taken.stream, taken.sequence)
        self.frames[key] = {one.tag: (one.value, one.code, one.source_ms) for one in taken.samples}
        if live:
            self.live.add(key)
        self.add(Committed(self.at_s, self.sequence, "F" if live else "B", "E1", taken.stream, taken.sequence, taken.sequence))

    def forget(self, taken: Taken) -> None:
        """The edge forgets it."""
        self.add(Forgot(self.at_s, taken.node, taken.box, taken.stream, taken.sequence))

    def shows(self, value: float, code: int = GOOD, tag: str = LEVEL, *, live: bool = True) -> Sample:
        """Do all of it, as it should be."""
        sample = self.read(value, code, tag)
        taken = self.take(sample)
        self.commit(taken, live=live)
        self.forget(taken)
        return sample

    def alarm(self, name: str, start: Sample, limit: str = "H", grade: int = 2, **more: Any) -> dict[str, Any]:
        """Return an alarm's state as a notice tells it."""
        return {"id": name, "tag": start.tag, "limit": limit, "grade": grade, "category": "process",
                "state": "ACTIVE_UNACKED", "value": start.value, "start_ms": start.source_ms, "returned_ms": None,
                "late": False, **more}  # fmt: skip

    def tell(self, kind: str, alarm: dict[str, Any], at_ms: int, receiver: str = "CITY", **more: Any) -> Noticed:
        """A receiver gets a notice of a step, which the journal knows."""
        revision = more.pop("revision", 1 if kind == "raised" else 2)
        lane = "red" if alarm["grade"] == 4 else "yellow"
        self.numbers[receiver, lane] = number = self.numbers.get((receiver, lane), 0) + 1
        step = f"{alarm['id']}-{revision}"
        facts: dict[str, Any] = {
            "notice": f"{step}-{receiver}", "ledger": "L", "lane": lane, "sequence": number, "transition": step,
            "revision": revision, "late": alarm["late"], "actor": None, "status": 200, "kept": True, "body": b"", **more,
        }  # fmt: skip
        noticed = Noticed(at_s=self.at_s, receiver=receiver, kind=kind, at_ms=at_ms, alarm=alarm, **facts)
        self.add(noticed)
        if facts["sequence"] is not None and all(known.id != step for known in self.journal):
            self.journal.append(
                Step(step, alarm["id"], revision, kind, alarm["tag"], alarm["limit"], alarm["category"], alarm["grade"])
            )
        return noticed

    def raised(self, name: str, start: Sample, **more: Any) -> dict[str, Any]:
        """An alarm is told as raised by a sample."""
        alarm = self.alarm(name, start, **more)
        self.tell("raised", alarm, start.source_ms)
        return alarm

    def returned(self, alarm: dict[str, Any], end: Sample) -> dict[str, Any]:
        """An alarm is told as returned by a sample."""
        value = None if math.isnan(end.value) else end.value
        after = {**alarm, "state": "RETURNED_UNACKED", "returned_ms": end.source_ms, "value": value}
        self.tell("returned", after, end.source_ms)
        return after

    def excursion(self, *values: float, name: str = "a") -> None:
        """The level goes to each value in turn: up at the first, down at the last; all of it is told."""
        alarm = self.raised(name, self.shows(values[0]))
        for value in values[1:-1]:
            self.shows(value)
        self.returned(alarm, self.shows(values[-1]))

    def settle(self, *, in_time: bool = True) -> None:
        """Heal and end."""
        self.add(Healed(self.at_s))
        self.add(Settled(self.at_s, in_time, "" if in_time else "2 notices are due"))

    def violations(self) -> list[Violation]:
        """Ask the oracle."""
        self.settle()
        return check(self.record, Books(self.frames, self.live, self.losses, self.journal, []))

    def broken(self) -> list[str]:
        """Return the rules that are broken, each once, in order."""
        return list(dict.fromkeys(violation.rule for violation in self.violations()))
