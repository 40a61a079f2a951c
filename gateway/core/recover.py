"""Recovery: newest snapshot, then the log after it through the same machine. The journal wins.

Replay emits nothing: it rebuilds what is transient (levels, delays, forks), each entry under the configuration it was
written under. If another one holds now, the state is carried over to it at the end; the loop logs that as a revision.
What the journal says of alarms stands even where replay would say otherwise, and the difference itself is reported as
a system condition.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alerting import Act, ActKind, ActRefusedError, AlarmState, Transition
from config import SiteConfig
from gateway.core.arrivals import Arrived
from gateway.core.entries import Entry, EntryKind, unpack_columns, unpack_json
from gateway.core.errors import LedgerOlderError
from gateway.core.history_runs import LATE_FRAMES_MAX, LateWant, Stretch
from gateway.core.machine import Machine
from gateway.core.reader import LedgerReader
from gateway.core.revision import (
    UnreadableRevisionError,
    carried_over,
    revision_at,
    revision_hash,
    revision_of,
    site_of,
)
from gateway.core.snapshots import newest_position, read_snapshots, set_aside_after, unpack_sections
from wire import decode_block, frames_of

log = logging.getLogger(__name__)

GROUP_FRAMES_MAX = 512
STATE_SECTIONS = 2  # what `Machine.dump` returns
STANDING_READ_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Recovered:
    """The state to go on from.

    Attributes:
        differences: where replay and journal disagreed; empty when they agree.
        revision: body of the CONFIG entry that the next start has to log: the configuration is another one than
            the log's last, or differences have set rows back. None when nothing of it is new.
        detached: `TAG LIMIT` of alarms that stand and, by that configuration, wait for a person now.
    """

    machine: Machine
    last_pos: int
    engine_ms: int
    replayed: int
    differences: tuple[str, ...]
    revision: bytes | None = None
    detached: tuple[str, ...] = ()


class FrameReader:
    """Reads stored frames back in the site's tag order."""

    def __init__(self, machine: Machine, tag_names: dict[int, str]) -> None:
        self._machine = machine
        index = machine.site.tag_index
        size = max(tag_names, default=0) + 1
        self._site_tag = np.full(size, -1, np.int32)
        for number, name in tag_names.items():
            self._site_tag[number] = index.get(name, -1)

    def frames(self, entry: Entry) -> list[Arrived]:
        """Return the frames of a FRAME or BLOCK entry; samples of tags that have left the site are skipped."""
        if entry.kind is EntryKind.BLOCK:
            found, _unknown = frames_of(decode_block(entry.body), self._machine.tag_index(entry.node))
            return [
                self._machine.conditioned(entry.node, frame.device, frame.stream, frame.sequence, frame.batch)
                for frame in found
            ]
        columns = unpack_columns(entry.body)
        tag = self._site_tag[columns.tag]
        kept = tag >= 0
        unmarked = entry.stream == self._machine.node(entry.node).unmarked_stream
        return [
            Arrived(
                entry.node, entry.device, entry.stream, entry.first, tag[kept], columns.value[kept],
                columns.code[kept], columns.source_ms[kept], columns.raw[kept], unmarked,
            )
        ]  # fmt: skip


def fetch_late(reader: LedgerReader, frames: FrameReader, want: LateWant, pos_max: int) -> Stretch:
    """Return frames `want.number`… of a stream as far as they stand in the ledger without a hole.

    Only rows up to `pos_max` are read, so that replay finds what the first run found. Frames that retention has
    removed are passed over as far as the next one kept.
    """
    rows = reader.live_frames_from(want.node, want.stream, want.number, pos_max, LATE_FRAMES_MAX)
    found = {entry.first: frame for entry in rows for frame in frames.frames(entry)}
    stretch: list[Arrived] = []
    number = want.number
    while len(stretch) < LATE_FRAMES_MAX:
        if number not in found:
            block = reader.block_with(want.node, want.stream, number, pos_max)
            held = [] if block is None else frames.frames(block)
            for frame in held:
                found.setdefault(frame.sequence, frame)
            if number not in found:
                break
        stretch.append(found.pop(number))
        number += 1
    if stretch:
        return Stretch(stretch, number - 1)
    following = [held for held in found if held > number]
    after_block = reader.next_block(want.node, want.stream, number, pos_max)
    if after_block is not None:
        following.append(after_block)
    return Stretch([], min(want.last, min(following, default=want.last + 1) - 1))


def recover(site: SiteConfig, folder: Path, reader: LedgerReader, *, restored: bool, sealed_pos: int = 0) -> Recovered:
    """Rebuild core's state from what lies in `folder`.

    Args:
        sealed_pos: the highest log position of this ledger that the historian claims to hold.

    Raises:
        LedgerOlderError: a snapshot or a segment is newer than the ledger and `restored` was not said.
    """
    last_pos = reader.last_pos()
    if sealed_pos > last_pos and not restored:
        raise LedgerOlderError(folder / "ledger.sqlite3", last_pos, sealed_pos, sealed=True)
    if newest_position(folder) > last_pos:
        if not restored:
            raise LedgerOlderError(folder / "ledger.sqlite3", last_pos, newest_position(folder))
        set_aside_after(folder, last_pos)
    machine, pos = _base(site, folder, reader)
    base = pos
    engine_ms, transitions, replayed = 0, [], 0
    replay = Replay(machine, reader, site)
    for group in _groups(reader.entries_after(pos)):
        transitions += replay.apply(group)
        pos, engine_ms, replayed = group[-1].pos, group[-1].engine_ms, replayed + len(group)
    engine_ms = max(engine_ms, int(reader.meta("engine_ms") or 0))
    machine = replay.machine
    missing, extra = _differences(reader, transitions, base)
    differences = [f"journal has {item}, replay has not" for item in sorted(missing)]
    differences += [f"replay has {item}, journal has not" for item in sorted(extra)]
    otherwise = machine.engine.reconcile(_ledgers_word(machine, reader, missing))
    if not differences:
        differences = [f"alarm {alarm_id} is not as the ledger has it" for alarm_id in otherwise]
    if differences:
        log.error("replay and journal differ: %s", "; ".join(differences[:5]))
    present = revision_of(site)
    detached: tuple[str, ...] = ()
    changed = revision_at(reader, last_pos) != present
    if changed:
        machine, detached = carried_over(machine, site)
    revision = present if changed or differences else None
    return Recovered(machine, last_pos, engine_ms, replayed, tuple(differences), revision, detached)


def _base(site: SiteConfig, folder: Path, reader: LedgerReader) -> tuple[Machine, int]:
    """Return the newest state on record, and its log position: a snapshot, a state record, or nothing."""
    snapshots = read_snapshots(folder)
    record = reader.last_state_record()
    pos, sections = (snapshots[0].pos, snapshots[0].sections) if snapshots else (0, None)
    if record is not None and record.pos > pos:
        pos, sections = record.pos, unpack_sections(record.body, STATE_SECTIONS)
    held = revision_at(reader, pos)
    then = site if held is None else _site_then(held, site)
    return Machine(then) if sections is None else Machine.restore(then, sections), pos


def _site_then(revision: bytes, site: SiteConfig) -> SiteConfig:
    """Return the site of a revision; the present one if this version cannot read it any more."""
    try:
        return site if revision == revision_of(site) else site_of(revision)
    except UnreadableRevisionError as error:
        log.error("a former configuration cannot be read (%s): replay uses the present one, the journal stands", error)
        return site


class Replay:
    """Applies log entries to a machine as the loop once did. A revision puts another one in its place."""

    def __init__(self, machine: Machine, reader: LedgerReader, site: SiteConfig) -> None:
        self.machine, self._reader, self._site = machine, reader, site
        self._frames = FrameReader(machine, reader.tag_names())

    def apply(self, group: list[Entry]) -> list[Transition]:
        """Apply entries that were applied together: frames of one engine time, or one entry of another kind."""
        first = group[0]
        if first.kind is EntryKind.FRAME:
            frames = [frame for entry in group for frame in self._frames.frames(entry)]
            return self.machine.frames(first.engine_ms, frames)[1]
        return self._single(first)

    def _single(self, entry: Entry) -> list[Transition]:
        machine, engine_ms, at_ms = self.machine, entry.engine_ms, entry.received_ms
        match entry.kind:
            case EntryKind.BLOCK:
                block = decode_block(entry.body)
                dropped = [(item.first, item.last, item.reason) for item in block.dropped]
                frames = self._frames.frames(entry)
                return machine.block(engine_ms, entry.node, block.stream, block.first, block.last, frames, dropped).transitions
            case EntryKind.TICK if entry.body:
                machine.was_away(engine_ms, unpack_json(entry.body)["grace_ms"])
                return []
            case EntryKind.TICK:
                return machine.tick(engine_ms, at_ms)
            case EntryKind.BORN:
                return machine.born(engine_ms, at_ms, entry.node, unpack_json(entry.body))[1]
            case EntryKind.DIED:
                facts = unpack_json(entry.body)
                quiet, grace_ms = bool(facts["quiet"]), facts.get("grace_ms", 0)
                return machine.died(engine_ms, at_ms, entry.node, entry.device, quiet=quiet, grace_ms=grace_ms)
            case EntryKind.CONDITION:
                return machine.condition(engine_ms, at_ms, unpack_json(entry.body))
            case EntryKind.ACT:
                facts = unpack_json(entry.body)
                act = Act(**{**facts["act"], "kind": ActKind(facts["act"]["kind"])})
                try:
                    return machine.act(engine_ms, act, facts["adopted"])
                except ActRefusedError:  # as it was the first time; had it been done then, the journal says so
                    return []
            case EntryKind.LATE:
                return self._late(entry)
            case EntryKind.START:
                facts = unpack_json(entry.body)
                machine.start(engine_ms, facts["downtime_ms"], facts.get("grace_ms", 0), restored=facts["restored"])
                return []
            case EntryKind.CONFIG:
                self.machine, _ = carried_over(machine, _site_then(entry.body, self._site))
                self._frames = FrameReader(self.machine, self._reader.tag_names())
                return self.machine.engine.review(engine_ms, revision_hash(entry.body))
            case _:
                return []

    def _late(self, entry: Entry) -> list[Transition]:
        facts = unpack_json(entry.body)
        want = self.machine.late_want(entry.node)
        if want is None or not facts["upto"]:
            return []
        stretch = fetch_late(self._reader, self._frames, want, facts["pos_max"])
        frames = [frame for frame in stretch.frames if frame.sequence <= facts["upto"]]
        return self.machine.late(entry.node, frames, facts["upto"])


def _groups(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Gather frames of one engine time; how they are cut does not matter to the engine."""
    group: list[Entry] = []
    for entry in entries:
        joins = (
            group and entry.kind is EntryKind.FRAME and group[-1].kind is EntryKind.FRAME
            and entry.engine_ms == group[-1].engine_ms and len(group) < GROUP_FRAMES_MAX
        )  # fmt: skip
        if group and not joins:
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


def _differences(reader: LedgerReader, replayed: list[Transition], base: int) -> tuple[set[str], set[str]]:
    """Compare what replay found with the journal of the same stretch of log: ids missing, ids too many."""
    journalled = reader.transition_ids_after(base)
    found = {transition.id for transition in replayed if not transition.late}
    late = {transition.id for transition in replayed if transition.late}
    return journalled - found - late, found - journalled


def _ledgers_word(machine: Machine, reader: LedgerReader, missing: set[str]) -> dict[str, AlarmState]:
    """Return what the ledger says of every alarm in memory, of all that stand, and of what replay did not find."""
    word = {alarm.id: alarm for alarm in reader.alarms_of(missing)}
    for (body,) in reader.rows(
        "SELECT body FROM alarm WHERE state IN ('ACTIVE_UNACKED', 'ACTIVE_ACKED') LIMIT ?", (STANDING_READ_MAX,)
    ):
        alarm = AlarmState.from_json(json.loads(body))
        word[alarm.id] = alarm
    for known in machine.engine.alarms():
        stored = word.get(known.id) or reader.alarm(known.id)
        if stored is not None:
            word[known.id] = stored
    return word
