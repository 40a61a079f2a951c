"""What the books must say after everything was killed: four checks that share no code with what they check.

The ledger's own frames are the truth about samples; a plain evaluator over them is the truth about alarms.

Two runs of it. In **log order** it gets every frame that was current when it came (the node's live stream, above
the highest number so far), with ticks, deaths and downtimes from the same log: what it finds must be the journal's
present transitions, no more and no less, each at its own time. In **stream order** it gets all frames of a node,
whenever they came: what it finds are the true excursions. Legitimate late records follow from the two:

* every true raise is journalled exactly once: as a present one, or as a late one where its frame came late or the
  present run stood elsewhere because of a hole. One exception: its frame was current, and a present alarm of that
  limit stood. After a hole that hid a return the present stands until a current sample lowers it, and another
  crossing meanwhile is that alarm's;
* every late raise is a true raise, and every late return a true return (or the return of the present alarm that
  the late one was linked to);
* a present transition that is no true one stands inside a stretch that the present run saw only in part: it is
  covered by the first run, and the true raise before it is journalled late.

Limits with delays are held against the log-order run only: across two streams a delay counts engine time, which
history has not.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from config import EdgeFile, SiteConfig, export_edge
from edge import SpooledSample
from gateway.core import LedgerReader
from gateway.core.machine import BORN_SETTLED_MS
from tests.alerting.plant import Limit, Sent, Tag
from tests.alerting.reference import ReferenceEngine, Seen
from wire import Native, decode_block, frames_of, native_value

GOOD, UNCERTAIN_RANGE, UNCERTAIN = 192, 64 | 5, 64
UNREAD_LIMIT = 1_000_000


FrameKey = tuple[str, int, int]  # node, stream, sequence


class Frame(NamedTuple):
    """One committed frame as plain values: samples are (tag index, value, code, source_ms)."""

    node: str
    stream: int
    sequence: int
    samples: tuple[tuple[int, float, int, int], ...]


class Entry(NamedTuple):
    """One row of the input log; `frames` for frame and block rows, `facts` for rows that hold JSON."""

    pos: int
    kind: str
    engine_ms: int
    at_ms: int
    node: str
    device: str
    frames: tuple[Frame, ...]
    facts: Mapping[str, object]


class Step(NamedTuple):
    """A transition by what it is, not by its id."""

    tag: str
    limit: str
    kind: str
    at_ms: int


class Journalled(NamedTuple):
    """One journal row."""

    id: str
    step: Step
    late: bool
    category: str
    alarm_id: str
    revision: int
    grade: int
    linked: str | None


# -- reading the ledger ------------------------------------------------------------------------------------


def read_log(reader: LedgerReader, site: SiteConfig) -> list[Entry]:
    """Return the whole log; frames in the site's tag order, blocks taken apart and conditioned."""
    names = reader.tag_names()
    index = site.tag_index
    entries = []
    for row in reader.rows(
        "SELECT pos, kind, engine_ms, received_ms, node, device, stream, first, body FROM log ORDER BY pos LIMIT ?",
        (UNREAD_LIMIT,),
    ):
        pos, kind, engine_ms, at_ms, node, device, stream, first, body = row
        frames: tuple[Frame, ...] = ()
        facts: Mapping[str, object] = {}
        if kind == "F":
            frames = (Frame(node, stream, first, _columns(body, names, index)),)
        elif kind == "B":
            frames = _block(node, body, site)
        elif body and kind not in "XQHC":
            facts = json.loads(body)
        entries.append(Entry(pos, kind, engine_ms, at_ms, node, device, frames, facts))
    return entries


def _columns(body: bytes, names: Mapping[int, str], index: Mapping[str, int]) -> tuple[tuple[int, float, int, int], ...]:
    """Read a frame's row by the layout its comment gives: counts, then tag, value, code, time columns."""
    n = int.from_bytes(body[0:2], "little")
    one_time, common_ms = bool(body[2] & 1), int.from_bytes(body[5:13], "little", signed=True)
    at = 13
    tag = np.frombuffer(body, "<i4", n, at)
    value = np.frombuffer(body, "<f8", n, at + 4 * n)
    code = np.frombuffer(body, "u1", n, at + 12 * n)
    source = [common_ms] * n if one_time else np.frombuffer(body, "<i8", n, at + 13 * n).tolist()
    return tuple(zip((index[names[number]] for number in tag.tolist()), value.tolist(), code.tolist(), source, strict=True))


def _block(node: str, body: bytes, site: SiteConfig) -> tuple[Frame, ...]:
    found, unknown = frames_of(decode_block(body), site.tag_index)
    assert not unknown, f"a block of {node} names tags the site has not: {unknown}"
    return tuple(
        Frame(
            node, frame.stream, frame.sequence,
            tuple(
                (tag, *conditioned(site, tag, value, code), at_ms)
                for tag, value, code, at_ms in zip(
                    frame.batch.tag.tolist(), frame.batch.value.tolist(), frame.batch.code.tolist(),
                    frame.batch.source_ms.tolist(), strict=True,
                )
            ),
        )
        for frame in found
    )  # fmt: skip


def conditioned(site: SiteConfig, tag: int, value: float, code: int) -> tuple[float, int]:
    """What the gateway must make of a value: BAD is NaN, beyond the range is UNCERTAIN and clamped."""
    if code < UNCERTAIN:
        return math.nan, code
    span = site.tags[tag].span()
    if not span.low <= value <= span.high:
        return min(max(value, span.low), span.high), UNCERTAIN_RANGE
    return value, code


def read_journal(reader: LedgerReader) -> list[Journalled]:
    """Return the journal in its order, after checking its hash chain."""
    found = []
    chain = "0" * 64
    for row in reader.rows("SELECT id, body, prev_hash, hash FROM transition ORDER BY row LIMIT ?", (UNREAD_LIMIT,)):
        identity, body, before, digest = row
        assert before == chain, f"the journal's chain is broken before {identity}"
        chain = hashlib.sha256(f"{chain}\n{identity}\n{body}".encode()).hexdigest()
        assert chain == digest, f"the journal's chain is broken at {identity}"
        facts = json.loads(body)
        alarm = facts["alarm"]
        step = Step(alarm["tag"], alarm["limit"], facts["kind"], facts["at_ms"])
        found.append(
            Journalled(identity, step, facts["late"], alarm["category"], facts["alarm_id"], facts["revision"],
                       alarm["grade"], alarm["linked"])
        )  # fmt: skip
    return found


# -- samples -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Committed:
    """All samples in the ledger by (node, stream, sequence, tag), and the frames of every stream."""

    samples: dict[tuple[str, int, int, str], tuple[float, int, int]] = field(default_factory=dict)
    numbers: dict[tuple[str, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    frames: dict[FrameKey, Frame] = field(default_factory=dict)
    stored_twice: int = 0


def committed(log: Iterable[Entry], site: SiteConfig) -> Committed:
    """Gather what is committed; a frame that is stored twice must say the same twice."""
    found = Committed()
    live_rows: set[tuple[str, int, int]] = set()
    for entry in log:
        for frame in entry.frames:
            key = (frame.node, frame.stream, frame.sequence)
            if entry.kind == "F":
                assert key not in live_rows, f"frame {key} has two rows of its own"
                live_rows.add(key)
            if key in found.frames:
                found.stored_twice += 1
                assert _same(found.frames[key], frame), f"frame {key} differs: {found.frames[key]} and {frame}"
                continue
            found.frames[key] = frame
            found.numbers[key[:2]].add(frame.sequence)
            for tag, value, code, at_ms in frame.samples:
                found.samples[(*key, site.tags[tag].id)] = (value, code, at_ms)
    return found


def _same(one: Frame, other: Frame) -> bool:
    # Live frames hold a device's samples in point order, blocks by column.
    return repr(sorted(one.samples)) == repr(sorted(other.samples))


def missing_samples(
    site: SiteConfig, node: str, spooled: Iterable[SpooledSample], found: Committed
) -> list[SpooledSample]:
    """Return what lay on an edge's disk and is not in the ledger with the value its registers stood for."""
    points = {point.tag: point for device in _edge(site, node).edge.devices for point in device.points}
    missing = []
    for sample in spooled:
        point = points[sample.tag]
        bits = np.array([sample.bits], np.uint64)
        measured = float(native_value(Native[point.type.upper()], bits, point.scale, point.offset)[0])
        value, code = conditioned(site, site.tag_index[sample.tag], measured, sample.code)
        there = found.samples.get((node, sample.stream, sample.sequence, sample.tag))
        if there is None or repr(there) != repr((value, code, sample.source_ms)):
            missing.append(sample)
    return missing


def _edge(site: SiteConfig, node: str) -> EdgeFile:
    return export_edge(site, node)


def holes(reader: LedgerReader, found: Committed) -> list[str]:
    """Return every stream that is not committed from 1 to its end, in words."""
    told = []
    for node, stream, upto, intervals, last in reader.rows(
        "SELECT node, stream, upto, intervals, last FROM stream LIMIT ?", (UNREAD_LIMIT,)
    ):
        numbers = found.numbers.get((node, stream), set())
        highest = max(numbers, default=0)
        absent = set(range(1, max(highest, last or 0, upto) + 1)) - numbers
        if absent or upto != highest:
            told.append(f"{node} {stream}: upto {upto}, last {last}, {intervals}, absent {sorted(absent)[:20]}")
    return told


class BrokenChainError(AssertionError):
    """A node's streams do not lead from one to the next; while core runs, a birth may still be on its way."""


def chains(reader: LedgerReader, found: Committed) -> dict[str, list[int]]:
    """Return every node's streams, each after its predecessor.

    Raises:
        BrokenChainError: not all of a node's streams are on one chain.
    """
    successor: dict[tuple[str, int], int] = {}
    for node, stream, predecessor in reader.rows(
        "SELECT node, stream, predecessor FROM stream LIMIT ?", (UNREAD_LIMIT,)
    ):
        if (node, stream) in found.numbers:
            if (node, predecessor) in successor:
                raise BrokenChainError(f"two streams of {node} follow {predecessor}")
            successor[node, predecessor] = stream
    order: dict[str, list[int]] = {}
    for node in {node for node, _ in found.numbers}:
        at, walked = successor.get((node, 0), 0), []
        while at:
            walked.append(at)
            at = successor.get((node, at), 0)
        streams = {stream for owner, stream in found.numbers if owner == node}
        if set(walked) != streams:
            raise BrokenChainError(f"{node}: streams outside the chain: {streams - set(walked)}")
        order[node] = walked
    return order


# -- transitions -------------------------------------------------------------------------------------------


def reference_tags(site: SiteConfig) -> list[Tag]:
    """The site's tags as the plain rules read them."""
    return [
        Tag(
            tag.id,
            tuple(
                Limit(str(row.kind), row.setpoint, row.deadband, int(row.on_delay_s * 1000), int(row.off_delay_s * 1000))
                for row in tag.limit_rows()
            ),
            int(tag.fault_delay_s * 1000), int(tag.stale_after_s * 1000),
        )
        for tag in site.tags
    ]  # fmt: skip


def present_steps(log: Iterable[Entry], site: SiteConfig) -> tuple[list[Step], set[FrameKey]]:
    """Run the plain rules in log order over what was current.

    Returns:
        The transitions that the present must show, and the frames that were current when they came.
    """
    engine = ReferenceEngine(reference_tags(site), 0)
    tags_of = {
        edge.id: sorted(site.tag_index[point.tag] for device in edge.devices for point in device.points)
        for edge in site.edges
    }
    live: dict[str, int] = {}
    unmarked: dict[str, int] = {}  # frames an edge could not number: of a stream that the gateway drew
    highest: Counter[tuple[str, int]] = Counter()
    seen: list[Seen] = []
    current: set[FrameKey] = set()

    silent_since: dict[str, int] = {}  # of tags never heard when their node died: wall less engine clock then

    def dated(entry: Entry, found: Iterable[Seen]) -> Iterator[Seen]:
        """What a tag did that was never heard is dated by the gateway's clock: there is no other."""
        unheard = {tag.id for tag, one in zip(site.tags, engine.instruments, strict=True) if one.source_ms is None}
        for one in found:
            if one.tag in unheard:
                one = one._replace(at_ms=one.at_ms + silent_since.get(one.tag, entry.at_ms - entry.engine_ms))
                engine.instruments[site.tag_index[one.tag]].fault_since_ms = one.at_ms
            yield one

    for entry in log:
        for frame in entry.frames:
            key = (frame.node, frame.stream)
            mine = frame.stream in (live.get(frame.node), unmarked.get(frame.node))
            if not mine or frame.sequence <= highest[key]:
                continue
            highest[key] = frame.sequence
            current.add((*key, frame.sequence))
            for tag, value, code, at_ms in frame.samples:
                seen += engine.sample(entry.engine_ms, Sent(tag, value, code, at_ms, frame.stream, frame.sequence))
        if entry.kind == "T" and entry.facts:
            engine.excuse(entry.engine_ms, int(str(entry.facts["grace_ms"])))
        elif entry.kind == "T":
            seen += dated(entry, engine.tick(entry.engine_ms))
        elif entry.kind == "N":
            engine.excuse_ends(tags_of[entry.node], entry.engine_ms + BORN_SETTLED_MS)
            live[entry.node] = int(str(entry.facts["live"]))
            unmarked[entry.node] = int(str(entry.facts["unmarked_stream"]))
        elif entry.kind == "D":
            assert not entry.device, "no device of this site dies alone"
            if not entry.facts["quiet"]:
                for tag in tags_of[entry.node]:
                    if not engine.instruments[tag].stale:
                        silent_since[site.tags[tag].id] = entry.at_ms - entry.engine_ms
                seen += dated(entry, engine.death(entry.engine_ms, tags_of[entry.node]))
            else:
                engine.excuse(entry.engine_ms, int(str(entry.facts["grace_ms"])), tags_of[entry.node])
        elif entry.kind == "W":
            engine.downtime(int(str(entry.facts["downtime_ms"])))
            engine.excuse(entry.engine_ms, int(str(entry.facts["grace_ms"])))
    return list(_after_their_beginning(seen)), current


def _after_their_beginning(seen: Iterable[Seen]) -> Iterator[Step]:
    """What ends has not ended before it began, whichever clock dated that."""
    begun_ms: dict[tuple[str, str], int] = {}
    for one in seen:
        at_ms = max(one.at_ms, begun_ms.get((one.tag, one.limit), one.at_ms))
        if one.kind == "raised":
            at_ms = begun_ms[one.tag, one.limit] = one.at_ms
        yield Step(one.tag, one.limit, one.kind, at_ms)


def true_steps(found: Committed, order: Mapping[str, list[int]], site: SiteConfig) -> dict[Step, FrameKey]:
    """Cross every limit without delays with every tag's samples in stream order: the true excursions.

    Returns:
        Each step with the frame that made it.
    """
    steps: dict[Step, FrameKey] = {}
    standing: dict[tuple[int, str], bool] = {}
    limits = {
        index: [row for row in tag.limit_rows() if not row.on_delay_s and not row.off_delay_s]
        for index, tag in enumerate(site.tags)
    }
    for node, streams in order.items():
        for stream in streams:
            for number in sorted(found.numbers[node, stream]):
                frame_key = (node, stream, number)
                for tag, value, code, at_ms in found.frames[frame_key].samples:
                    if math.isnan(value):
                        continue
                    for row in limits[tag]:
                        sign = 1.0 if row.kind.high_side else -1.0
                        key = (tag, str(row.kind))
                        if not standing.get(key) and sign * value >= sign * row.setpoint:
                            standing[key] = True
                            steps[Step(site.tags[tag].id, key[1], "raised", at_ms)] = frame_key
                        elif standing.get(key) and code == GOOD and sign * value < sign * row.setpoint - row.deadband:
                            standing[key] = False
                            steps[Step(site.tags[tag].id, key[1], "returned", at_ms)] = frame_key
    return steps


@dataclass(slots=True)
class Verdict:
    """What is wrong with a journal; everything empty when nothing is."""

    lost: list[str] = field(default_factory=list)
    phantom: list[str] = field(default_factory=list)
    present: int = 0
    late: int = 0
    true: int = 0

    @property
    def complete(self) -> bool:
        return not self.lost and not self.phantom


def judge(
    journal: Iterable[Journalled], log: list[Entry], found: Committed, order: Mapping[str, list[int]], site: SiteConfig
) -> Verdict:
    """Hold the journal against both runs; see the module for the rules."""
    rows = [row for row in journal if row.category in ("process", "fault") and row.step.kind in ("raised", "returned")]
    present = [row.step for row in rows if not row.late]
    late = [row for row in rows if row.late]
    expected, current = present_steps(log, site)
    true = true_steps(found, order, site)
    verdict = Verdict(present=len(present), late=len(late), true=len(true))
    _compare(Counter(expected), Counter(present), verdict)
    for key, steps in _by_limit(expected).items():
        if _by_limit(present).get(key) != steps and verdict.complete:
            verdict.phantom.append(f"{key}: the present transitions stand in another order")
    undelayed = {(step.tag, step.limit) for step in true}
    raised_at = Counter(
        row.step for row in rows if row.step.kind == "raised" and (row.step.tag, row.step.limit) in undelayed
    )
    standing = _standing(present)
    verdict.lost += [
        f"true {step} is nowhere" for step, frame in true.items()
        if step.kind == "raised" and not raised_at[step] and not (frame in current and standing(step))
    ]  # fmt: skip
    verdict.phantom += [f"{step} stands {count} times" for step, count in raised_at.items() if count > 1]
    returns_of_present = {step for step in present if step.kind == "returned"}
    verdict.phantom += [
        f"late {row.step} is not true" for row in late
        if (row.step.tag, row.step.limit) in undelayed and row.step not in true and row.step not in returns_of_present
    ]  # fmt: skip
    return verdict


def _standing(present: Iterable[Step]) -> Callable[[Step], bool]:
    """Return whether a present alarm of a step's limit stood at its time."""
    stretches: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for step in present:
        if step.kind == "raised":
            stretches[step.tag, step.limit].append([step.at_ms, math.inf])
        else:
            stretches[step.tag, step.limit][-1][1] = step.at_ms
    return lambda step: any(start <= step.at_ms < end for start, end in stretches[step.tag, step.limit])


def _compare(expected: Counter[Step], present: Counter[Step], verdict: Verdict) -> None:
    verdict.lost += [f"present {step} is missing" for step in (expected - present)]
    verdict.phantom += [f"present {step} was never due" for step in (present - expected)]


def _by_limit(steps: Iterable[Step]) -> dict[tuple[str, str], list[Step]]:
    found: dict[tuple[str, str], list[Step]] = defaultdict(list)
    for step in steps:
        found[step.tag, step.limit].append(step)
    return found


# -- deliveries --------------------------------------------------------------------------------------------


def undelivered(journal: Iterable[Journalled], received: Iterable[Mapping[str, object]], site: SiteConfig) -> list[str]:
    """Return every journalled transition that a receiver wants and the platform never verified."""
    got = {
        (line["receiver"], line["alarm"], line["revision"], line["transition"])
        for line in received
        if line["type"] != "heartbeat" and line["sequence"] is not None
    }
    by_transition = {(receiver, transition) for receiver, _, _, transition in got}
    missing = []
    for row in journal:
        for receiver in site.receivers:
            if row.category in receiver.kinds and row.grade in [int(grade) for grade in receiver.grades] and (
                (receiver.id, row.alarm_id, row.revision, row.step.kind) not in got
                and (receiver.id, row.id) not in by_transition
            ):
                missing.append(f"{row.step} revision {row.revision} never reached {receiver.id}")
    return missing


def unknown_notices(reader: LedgerReader, received: Iterable[Mapping[str, object]]) -> list[str]:
    """Return every notice the platform has that the outbox has not: a phantom."""
    known = {(row[0], row[1]) for row in reader.rows("SELECT receiver, notice_id FROM outbox LIMIT ?", (UNREAD_LIMIT,))}
    return [
        f"{line['receiver']} got {line['id']}, which the outbox has not"
        for line in received
        if line["type"] != "heartbeat" and (line["receiver"], line["id"]) not in known
    ]


def sequence_faults(received: Iterable[Mapping[str, object]]) -> list[str]:
    """Return every gap in a lane, and every number that ever named two notices."""
    lanes: dict[tuple[object, ...], dict[int, set[object]]] = defaultdict(lambda: defaultdict(set))
    for line in received:
        if line["type"] != "heartbeat" and isinstance(line["sequence"], int):
            lanes[line["receiver"], line["ledger"], line["lane"]][line["sequence"]].add(line["id"])
    told = []
    for lane, numbers in lanes.items():
        absent = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
        if absent:
            told.append(f"{lane}: gaps at {absent[:20]}")
        told += [f"{lane}: {number} named {ids}" for number, ids in numbers.items() if len(ids) > 1]
    return told
