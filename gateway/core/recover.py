"""Recovery: newest snapshot, then the log after it through the same machine. The journal wins.

Replay emits nothing: it rebuilds what is transient (levels, delays, forks). What the journal says of alarms stands
even where replay would say otherwise, and the difference itself is reported as a system condition.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alerting import Act, ActKind, ActRefusedError, State, Transition
from config import SiteConfig
from gateway.core.entries import Entry, EntryKind, unpack_columns, unpack_json
from gateway.core.errors import LedgerOlderError
from gateway.core.machine import LATE_FRAMES_MAX, Arrived, LateWant, Machine, Stretch
from gateway.core.reader import LedgerReader
from gateway.core.snapshots import newest_position, read_snapshots, set_aside_after, unpack_sections
from wire import decode_block, frames_of

log = logging.getLogger(__name__)

GROUP_FRAMES_MAX = 512
STATE_SECTIONS = 2  # what `Machine.dump` returns


@dataclass(frozen=True, slots=True)
class Recovered:
    """The state to go on from. `differences` says where replay and journal disagreed; empty when they agree."""

    machine: Machine
    last_pos: int
    engine_ms: int
    replayed: int
    differences: tuple[str, ...]


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


def recover(site: SiteConfig, folder: Path, reader: LedgerReader, *, restored: bool) -> Recovered:
    """Rebuild core's state from what lies in `folder`.

    Raises:
        LedgerOlderError: a snapshot is newer than the ledger and `restored` was not said.
    """
    last_pos = reader.last_pos()
    if newest_position(folder) > last_pos:
        if not restored:
            raise LedgerOlderError(folder / "ledger.sqlite3", last_pos, newest_position(folder))
        set_aside_after(folder, last_pos)
    machine, pos = _base(site, folder, reader)
    base = pos
    engine_ms, transitions, replayed = 0, [], 0
    replay = Replay(machine, reader)
    for group in _groups(reader.entries_after(pos)):
        transitions += replay.apply(group)
        pos, engine_ms, replayed = group[-1].pos, group[-1].engine_ms, replayed + len(group)
    engine_ms = max(engine_ms, int(reader.meta("engine_ms") or 0))
    missing, extra = _differences(reader, transitions, base)
    differences = [f"journal has {item}, replay has not" for item in sorted(missing)]
    differences += [f"replay has {item}, journal has not" for item in sorted(extra)]
    if differences:
        log.error("replay and journal differ: %s", "; ".join(differences[:5]))
        _let_the_journal_win(machine, reader, missing)
    return Recovered(machine, last_pos, engine_ms, replayed, tuple(differences))


def _base(site: SiteConfig, folder: Path, reader: LedgerReader) -> tuple[Machine, int]:
    """Return the newest state on record, and its log position: a snapshot, a state record, or nothing."""
    snapshots = read_snapshots(folder)
    record = reader.last_state_record()
    if record is not None and (not snapshots or record.pos > snapshots[0].pos):
        return Machine.restore(site, unpack_sections(record.body, STATE_SECTIONS)), record.pos
    if snapshots:
        return Machine.restore(site, snapshots[0].sections), snapshots[0].pos
    return Machine(site), 0


class Replay:
    """Applies log entries to a machine as the loop once did."""

    def __init__(self, machine: Machine, reader: LedgerReader) -> None:
        self._machine, self._reader = machine, reader
        self._frames = FrameReader(machine, reader.tag_names())

    def apply(self, group: list[Entry]) -> list[Transition]:
        """Apply entries that were applied together: frames of one engine time, or one entry of another kind."""
        first = group[0]
        if first.kind is EntryKind.FRAME:
            frames = [frame for entry in group for frame in self._frames.frames(entry)]
            return self._machine.frames(first.engine_ms, frames)[1]
        return self._single(first)

    def _single(self, entry: Entry) -> list[Transition]:
        machine, engine_ms, at_ms = self._machine, entry.engine_ms, entry.received_ms
        match entry.kind:
            case EntryKind.BLOCK:
                block = decode_block(entry.body)
                dropped = [(item.first, item.last, item.reason) for item in block.dropped]
                frames = self._frames.frames(entry)
                return machine.block(engine_ms, entry.node, block.stream, block.first, block.last, frames, dropped)[2]
            case EntryKind.TICK:
                return machine.tick(engine_ms, at_ms)
            case EntryKind.BORN:
                return machine.born(engine_ms, at_ms, entry.node, unpack_json(entry.body))[1]
            case EntryKind.DIED:
                quiet = bool(unpack_json(entry.body)["quiet"])
                return machine.died(engine_ms, at_ms, entry.node, entry.device, quiet=quiet)
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
                machine.start(facts["downtime_ms"], restored=facts["restored"])
                return []
            case _:
                return []

    def _late(self, entry: Entry) -> list[Transition]:
        facts = unpack_json(entry.body)
        want = self._machine.late_want(entry.node)
        if want is None or not facts["upto"]:
            return []
        stretch = fetch_late(self._reader, self._frames, want, facts["pos_max"])
        frames = [frame for frame in stretch.frames if frame.sequence <= facts["upto"]]
        return self._machine.late(entry.node, frames, facts["upto"])


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


def _let_the_journal_win(machine: Machine, reader: LedgerReader, missing: set[str]) -> None:
    """Give the engine the ledger's word on the alarms whose journalled steps replay did not find.

    What binds an alarm to the present stays the engine's: a step that replay missed lowers nothing.
    """
    book = machine.engine.book
    for stored in reader.alarms_of(missing):
        known = book.alarms.get(stored.id)
        if known is not None and known.state.active == stored.state.active and known.revision < stored.revision:
            book.alarms[stored.id] = stored
        elif known is None and stored.state is not State.CLOSED:
            machine.engine.adopt(stored)
