"""Prints a failing seed so that a person can read it: what happened around each violation, and how to see it again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from simulators.world import (
    Acted,
    Committed,
    Event,
    FaultBegan,
    FaultEnded,
    Forgot,
    Healed,
    Heartbeat,
    Noticed,
    PartEnded,
    PartStarted,
    Read,
    Record,
    Refused,
    Sample,
    Settled,
    Taken,
)
from tests.simulation.facts import Violation

SEEDS_VARIABLE = "HAZARDGATE_SEEDS"
AROUND = 12
"""Lines shown before and behind a marked one."""
LINES_MAX = 160
VIOLATIONS_MAX = 12
SAMPLES_MAX = 6
PART_WIDTH = 10

# What tells the story of a run; shown wherever it happened.
STORY = (FaultBegan, FaultEnded, PartStarted, PartEnded, Healed, Settled)


def replay_command(seed: int) -> str:
    """Return what a person types to see a seed again."""
    return f"{SEEDS_VARIABLE}={seed} make test ARGS=tests/simulation"


def timeline(record: Record, violations: Sequence[Violation]) -> str:
    """Return a readable account of a run: the violations, the lines around what they mark, the command to replay it."""
    shown = violations[:VIOLATIONS_MAX]
    head = [f"seed {record.seed}: {len(violations)} violations"]
    head += [f"  {violation.rule} at {violation.at_s:.3f} s: {violation.what}" for violation in shown]
    if len(violations) > len(shown):
        head.append(f"  … and {len(violations) - len(shown)} more")
    marks = {mark: violation.rule for violation in reversed(shown) for mark in violation.marks}
    lines = _lines(record, marks)
    return "\n".join([*head, "", *lines, "", f"again: {replay_command(record.seed)}"])


def _lines(record: Record, marks: dict[int, str]) -> list[str]:
    """Return the marked events, what stands around them, and the whole story; gaps are told, never silent."""
    events = record.events
    wanted = set(marks)
    story = [index for index, event in enumerate(events) if isinstance(event, STORY)]
    for index in _by_turns(sorted(marks)):
        if len(wanted) >= LINES_MAX - len(story):
            break
        wanted |= set(range(max(0, index - AROUND), min(len(events), index + AROUND + 1)))
    chosen = sorted(sorted(wanted, key=lambda index: (index not in marks, index))[:LINES_MAX] + story)
    told, last = [], -1
    for index in dict.fromkeys(chosen):
        if index > last + 1:
            told.append(f"{'':>11}   … {index - last - 1} more")
        told.append(_line(events[index], marks.get(index, "")))
        last = index
    if last + 1 < len(events):
        told.append(f"{'':>11}   … {len(events) - last - 1} more")
    return told


def _by_turns(marks: Sequence[int]) -> Iterable[int]:
    """The last first: what a violation shows is mostly its newest mark."""
    return reversed(marks)


def _line(event: Event, rule: str) -> str:
    part, what = _words(event)
    return f"{rule:>3}{'>' if rule else ' '} {event.at_s:>9.3f}  {part:<{PART_WIDTH}}  {what}"


def _words(event: Event) -> tuple[str, str]:
    """Return the part an event happened at, and what happened."""
    match event:
        case Read():
            return _box(event.node, event.box), f"read {event.device}: {_samples(event.samples)}"
        case Taken():
            mark = f"{event.stream}/{event.sequence}"
            return _box(event.node, event.box), f"took {mark}: {_samples(event.samples)}"
        case Committed():
            return "ledger", f"{event.kind} at {event.pos}: {event.node} {event.stream}/{event.first}…{event.last}"
        case Forgot():
            return _box(event.node, event.box), f"forgot {event.stream} up to {event.upto}"
        case Noticed():
            return event.receiver, _notice(event)
        case Refused():
            return event.receiver, f"refused with {event.status}: {event.reason}"
        case Heartbeat():
            return event.receiver, "heartbeat"
        case FaultBegan():
            return "FAULT", f"#{event.fault.number} begins: {event.fault}"
        case FaultEnded():
            return "FAULT", f"#{event.fault.number} ends: {event.fault}"
        case PartStarted():
            return _box(event.part, event.box), f"starts, run {event.run}"
        case PartEnded():
            return _box(event.part, event.box), f"ends, run {event.run}: {event.cause}"
        case Acted():
            return "operator", f"{event.actor} {event.kind} {event.alarm[:8]}: {event.refused or 'done'}"
        case Healed():
            return "FAULT", "all over: everything must arrive"
        case Settled():
            return "", f"settled: {'in time' if event.in_time else 'NOT in time'} {event.waiting}"


def _notice(event: Noticed) -> str:
    alarm = event.alarm
    late = " late" if event.late else ""
    number = "from memory" if event.sequence is None else f"{event.lane} {event.sequence}"
    value = "no value" if alarm["value"] is None else f"{alarm['value']:g}"
    return (
        f"{alarm['tag']} {alarm['limit']} {event.kind}{late} at {event.at_ms} ({value}), revision {event.revision},"
        f" {number}, notice {event.notice[:8]} of alarm {str(alarm['id'])[:8]}: {event.status or 'no answer'}"
        f"{'' if event.kept else ', not kept'}"
    )


def _samples(samples: Sequence[Sample]) -> str:
    told = [
        f"{sample.tag}={'BAD' if math.isnan(sample.value) else f'{sample.value:g}'}"
        f"{'' if sample.code == 192 else f'/{sample.code}'}@{sample.source_ms}"
        for sample in samples[:SAMPLES_MAX]
    ]
    return " ".join(told) + (f" +{len(samples) - SAMPLES_MAX}" if len(samples) > SAMPLES_MAX else "")


def _box(node: str, box: int) -> str:
    return node if box == 0 else f"{node}'{box}"
