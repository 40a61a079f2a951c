"""Builds one batch: facts become log entries, entries are applied to the machine, effects are gathered.

The order of entries is the order in which the machine saw them; that is what makes replay exact. Frames are
gathered and applied together, and anything else that comes between them applies them first.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from alerting import Act, ActRefusedError, Transition
from alerting.delivery import Attempt, Notice, NoticePlanner
from config import Grade
from gateway.core.arrivals import Arrived, Gathered, Unconditioned
from gateway.core.books import Loss, Verdict
from gateway.core.entries import Columns, Entry, EntryKind, pack_columns, pack_frames, pack_json
from gateway.core.facts import (
    BlockArrived,
    DeviceDied,
    Fact,
    FrameArrived,
    NodeBorn,
    NodeDied,
    NodeFact,
    RebirthWanted,
    Refused,
    Suspicion,
)
from gateway.core.history_runs import LateWant, Stretch
from gateway.core.host import TRESPASS_NAMED_MAX
from gateway.core.ledger import Batch, StreamRow
from gateway.core.machine import Machine
from gateway.core.own_trouble import EXPLAINS_MS, OwnTrouble
from gateway.core.retention import Removable
from gateway.core.revision import revision_hash
from gateway.core.sessions import OurLinkLost
from gateway.core.snapshots import pack_sections
from wire import CLOCK_SYNCED, SPOOL_FAULT, TRANSPORT_BLOCKED, BlockError, decode_block, frames_of, new_stream_id

QUARANTINE_EVERY_MS: Final = 60_000  # a node that sends rubbish fills neither the ledger nor the alarm list
QUARANTINE_BYTES_MAX: Final = 262_144
SUSPICION_EVERY_MS: Final = 60_000
NODE_GRACE_MS: Final = 30_000  # after our own start, stall or link loss a node may take so long to be heard again


class BatchBuilder:
    """Applies facts to the machine and collects what one transaction must hold."""

    def __init__(
        self, machine: Machine, next_pos: int, random_source: random.Random | None = None, own: OwnTrouble | None = None
    ) -> None:
        self._machine = machine
        self._own = own or OwnTrouble(-EXPLAINS_MS)
        self._next_pos = next_pos
        self._random = random.SystemRandom() if random_source is None else random_source
        self._tag_numbers = np.arange(len(machine.site.tags), dtype=np.int32)
        self._config_hashes: dict[str, str] = {}
        self._quarantined_ms: dict[str, int] = {}
        self._suspected_ms: dict[str, int] = {}
        self._batch = Batch()
        self._frames: list[Unconditioned] = []
        self._unmarked: dict[str, int] = {}  # node -> the last number given to such a frame that waits
        self._touched: dict[tuple[str, int], None] = {}  # in order, so that one log makes one outcome
        self._planned = 0  # how many of the batch's transitions have their notices
        self._engine_ms = 0
        self._wall_ms = 0
        self.unlogged = False
        self.duplicates = 0

    def use_tag_numbers(self, numbers: Sequence[int]) -> None:
        """Give the ledger's number of every tag, in the site's tag order."""
        self._tag_numbers = np.array(numbers, np.int32)

    def use_config_hashes(self, hashes: dict[str, str]) -> None:
        """Give the hash that each edge's own file must have."""
        self._config_hashes = hashes

    @property
    def last_pos(self) -> int:
        """The newest log position given out."""
        return self._next_pos - 1

    def begin(self, engine_ms: int, wall_ms: int, *, go_on: bool = False) -> None:
        """Start a batch, or go on with the one that was not finished; entries from now on carry this engine time."""
        if go_on:
            self._batch.engine_ms, self._batch.wall_ms = engine_ms, wall_ms
        else:
            self._batch = Batch(engine_ms=engine_ms, wall_ms=wall_ms)
            self._touched = {}
            self._planned = 0
        self._engine_ms, self._wall_ms = engine_ms, wall_ms

    @property
    def pending(self) -> bool:
        """The batch holds something that has to be written."""
        return not self._batch.empty

    # -- facts about nodes --

    def fact(self, node: str, fact: Fact) -> bytes | RebirthWanted | None:
        """Apply one fact; a block to be taken later, or a wish for a rebirth, is handed back."""
        match fact:
            case FrameArrived():
                self._frame(node, fact)
            case BlockArrived(body):
                return body
            case RebirthWanted():
                return fact
            case NodeBorn():
                self._born(node, fact)
            case OurLinkLost():
                self.died(node, "", quiet=True)
            case NodeDied():
                self.died(node, "", quiet=False)
            case DeviceDied(device):
                self.died(node, device, quiet=False)
            case NodeFact(name, value):
                self._node_fact(node, name, value)
            case Refused():
                self._refused(node, fact)
            case Suspicion():
                self._suspect(node, fact)
        return None

    def _frame(self, node: str, fact: FrameArrived) -> None:
        state = self._machine.node(node)
        if fact.historical:
            arrived = self._machine.conditioned(node, fact.device, 0, 0, fact.batch)
            self._add(EntryKind.HISTORICAL, self._pack(arrived), node, fact.device, samples=len(arrived.tag))
            return
        if fact.stream:
            self._frames.append(Unconditioned(node, fact.device, fact.stream, fact.sequence, fact.batch))
            return
        number = self._unmarked[node] = self._unmarked.get(node, state.unmarked_count) + 1
        self._frames.append(Unconditioned(node, fact.device, state.unmarked_stream, number, fact.batch, unmarked=True))

    def _pack(self, frame: Arrived) -> bytes:
        return pack_columns(
            Columns(self._tag_numbers[frame.tag], frame.value, frame.code, frame.source_ms, frame.raw)
        )

    def _pack_all(self, frames: Gathered) -> list[bytes]:
        return pack_frames(
            Columns(self._tag_numbers[frames.tag], frames.value, frames.code, frames.source_ms, frames.raw), frames.ends
        )

    def _flush(self) -> None:
        """Apply the frames gathered so far."""
        if not self._frames:
            return
        gathered = self._machine.gathered(self._frames)
        frames = gathered.frames
        self._frames = []
        self._unmarked.clear()
        if self.unlogged:
            self._transitions(self._machine.evaluate_only(self._engine_ms, frames))
            return
        verdicts, transitions = self._machine.frames(self._engine_ms, frames)
        for frame, verdict, body in zip(frames, verdicts, self._pack_all(gathered), strict=True):
            if not frame.unmarked:
                self._touched[frame.node, frame.stream] = None
            if verdict is Verdict.DUPLICATE:
                self.duplicates += 1
                continue
            samples = len(frame.tag)
            self._add_entry(
                EntryKind.FRAME, body, frame.node, frame.device,
                frame.stream, frame.sequence, frame.sequence, samples,
                frame.sequence if verdict is Verdict.LATE else 0,
            )  # fmt: skip
            self._batch.frames += 1
            self._batch.samples += samples
        self._transitions(transitions)

    def block(self, node: str, body: bytes) -> bool:
        """Apply one spool block; a corrupt one is quarantined and comes again from the edge.

        Returns:
            Whether the node must be asked for a birth: without one nothing of this stream may be acknowledged.
        """
        try:
            block = decode_block(body)
        except BlockError as error:
            self._refused(node, Refused(f"block of {node}", str(error), body))
            return False
        if block.node != node:
            self._refused(node, Refused(f"block of {node}", "made by another node", body))
            self._suspect(node, Suspicion("TRESPASS", {"block_of": block.node[:200]}))
            return False
        owned, everything = self._machine.tag_index(node), self._machine.site.tag_index
        claimed = [column.tag for column in block.columns if column.tag not in owned and column.tag in everything]
        if claimed:
            self._suspect(node, Suspicion("TRESPASS", {"tags": ", ".join(claimed[:TRESPASS_NAMED_MAX]), "count": len(claimed)}))
        self._flush()
        frames = self.block_frames(node, body)
        if self.unlogged:
            self._transitions(self._machine.evaluate_only(self._engine_ms, frames))
            return False
        taken = self._machine.block(
            self._engine_ms, node, block.stream, block.first, block.last, frames,
            [(item.first, item.last, item.reason) for item in block.dropped],
        )  # fmt: skip
        self._touched[node, block.stream] = None
        self._batch.backlog_nodes.add(node)
        withheld = self._machine.node(node).book.streams[block.stream].withholds(block.last)
        if not taken.kept:
            self.duplicates += block.last - block.first + 1
            return withheld
        self._add_entry(
            EntryKind.BLOCK, body, node, "", block.stream, block.first, block.last, block.samples, taken.late_upto, taken.fresh,
            tuple(claimed) or None,
        )  # fmt: skip
        self._batch.frames += len(frames)
        self._batch.samples += block.samples
        self._losses(node, taken.losses)
        self._transitions(taken.transitions)
        if taken.losses:
            named = "; ".join(f"{loss.first}-{loss.last} {loss.cause}" for loss in taken.losses[:8])
            self.condition({"key": f"EDGE.{node}.LOSS", "standing": None, "facts": {"what": named}})
        return withheld

    def block_frames(self, node: str, body: bytes) -> list[Arrived]:
        """Return a block's frames, conditioned."""
        frames, _unknown = frames_of(decode_block(body), self._machine.tag_index(node))
        return [
            self._machine.conditioned(node, frame.device, frame.stream, frame.sequence, frame.batch) for frame in frames
        ]

    def _born(self, node: str, born: NodeBorn) -> None:
        expected = self._config_hashes.get(node)
        facts: dict[str, Any] = {
            "live": born.live,
            "spans": [[s.stream, s.first, s.last, s.predecessor, s.predecessor_last] for s in born.spans],
            "config_hash": born.config_hash,
            "config_wrong": bool(born.live and expected and born.config_hash != expected),
            "spool_fault": born.spool_fault,
            "clock_offset_ms": born.clock_offset_ms,
            "clock_synced": born.clock_synced,
            "transport_blocked": born.transport_blocked,
            "transport_explained": self._explained(node, blocked=born.transport_blocked),
            "commands_refused": born.commands_refused,
            # Below zero, where no edge counts: what nobody numbered has no place in the order of a node's streams.
            "unmarked_stream": -new_stream_id(self._random),
        }
        self._add(EntryKind.BORN, pack_json(facts), node)
        findings, transitions = self._machine.born(self._engine_ms, self._wall_ms, node, facts)
        self._losses(node, list(findings.losses))
        if born.live:
            self._touched |= {(node, stream): None for stream in (*(span.stream for span in born.spans), born.live)}
            self._touched |= {(node, loss.stream): None for loss in findings.losses if loss.stream}
            self._touched |= {(node, stream): None for stream in findings.ended}
        self._transitions(transitions)

    def died(self, node: str, device: str, *, quiet: bool) -> None:
        """A node's or device's session ended."""
        if not device:
            self._own.free(node)
        grace_ms = NODE_GRACE_MS if quiet else 0
        self._add(EntryKind.DIED, pack_json({"quiet": quiet, "grace_ms": grace_ms}), node, device)
        found = self._machine.died(self._engine_ms, self._wall_ms, node, device, quiet=quiet, grace_ms=grace_ms)
        self._transitions(found)

    def _node_fact(self, node: str, name: str, value: bool | int | str) -> None:
        if name == SPOOL_FAULT:
            self.condition({"key": f"EDGE.{node}.SPOOL", "standing": bool(value), "facts": {}})
        elif name == CLOCK_SYNCED:
            self.condition({"key": f"EDGE.{node}.CLOCK", "standing": not value, "facts": {}})
        elif name == TRANSPORT_BLOCKED and not self._explained(node, blocked=bool(value)):
            self.condition({"key": f"EDGE.{node}.TRANSPORT", "standing": bool(value), "facts": {}})

    def _explained(self, node: str, *, blocked: bool) -> bool:
        """Tell whether a node's transport is blocked only as far as our own trouble explains."""
        if blocked:
            return self._own.blocked(node, self._engine_ms)
        self._own.free(node)
        return False

    def unexplained(self) -> None:
        """Tell of transports that are blocked still, although no trouble of ours explains it any more."""
        for node in self._own.unexplained(self._engine_ms):
            self.condition({"key": f"EDGE.{node}.TRANSPORT", "standing": True, "facts": {}})

    def _suspect(self, node: str, suspicion: Suspicion) -> None:
        """Raise a security alarm, at most once a minute of each kind and node: who attacks must not fill the list."""
        key = f"SECURITY.{node}.{suspicion.word}"
        last_ms = self._suspected_ms.get(key)
        if last_ms is not None and self._engine_ms - last_ms < SUSPICION_EVERY_MS:
            return
        body: dict[str, Any] = {"key": key, "standing": None, "facts": dict(suspicion.facts)}
        since_start = suspicion.facts.get("since_start")
        if isinstance(since_start, int):
            told = self._machine.node(node).commands_told
            if since_start == told:  # by a core before this one
                return
            body["facts"]["refused"] = since_start - told if since_start > told else since_start
            body["commands_told"] = [node, since_start]
        self._suspected_ms[key] = self._engine_ms
        self.condition(body)

    def _refused(self, node: str, refused: Refused) -> None:
        """Keep the bytes of what could not be used, and say so, at most once a minute a node."""
        last_ms = self._quarantined_ms.get(node)
        if last_ms is not None and self._engine_ms - last_ms < QUARANTINE_EVERY_MS:
            return
        self._quarantined_ms[node] = self._engine_ms
        self._add(EntryKind.QUARANTINE, refused.payload[:QUARANTINE_BYTES_MAX], node)
        facts = {"topic": refused.topic[:200], "reason": refused.reason[:200]}
        self.condition({"key": f"EDGE.{node}.QUARANTINE", "standing": None, "facts": facts})

    # -- the rest --

    def condition(self, facts: dict[str, Any]) -> None:
        """Apply a system condition; one that changes nothing leaves no entry."""
        self._flush()
        transitions = self._machine.condition(self._engine_ms, self._wall_ms, facts)
        if transitions:
            self._add_entry(EntryKind.CONDITION, pack_json(facts), "", "")
            self._transitions(transitions)

    def tick(self) -> None:
        """Let time pass; a tick that changed nothing leaves no entry."""
        self._flush()
        before = self._machine.engine.changes
        transitions = self._machine.tick(self._engine_ms, self._wall_ms)
        if self._machine.engine.changes != before:
            self._add_entry(EntryKind.TICK, b"", "", "")
            self._transitions(transitions)

    def act(self, act: Act, adopted: dict[str, Any] | None) -> Transition:
        """Apply an operator act; return the transition it asked for.

        Raises:
            ActRefusedError: nothing changed.
        """
        self._flush()
        body = pack_json({"act": asdict(act), "adopted": adopted})
        try:
            transitions = self._machine.act(self._engine_ms, act, adopted)
        except ActRefusedError:
            if adopted is not None:  # it is in memory now, and replay has to find it there
                self._add_entry(EntryKind.ACT, body, "", "")
            raise
        self._add_entry(EntryKind.ACT, body, "", "")
        self._transitions(transitions)
        return transitions[-1]

    def start(self, downtime_ms: int, *, believed: bool, restored: bool) -> None:
        """Core started."""
        facts = {"downtime_ms": downtime_ms, "believed": believed, "restored": restored, "grace_ms": NODE_GRACE_MS}
        self._add(EntryKind.START, pack_json(facts), "")
        self._machine.start(self._engine_ms, downtime_ms, NODE_GRACE_MS, restored=restored)

    def was_away(self, away_ms: int) -> None:
        """Core's own loop stood still for so long."""
        self._add(EntryKind.TICK, pack_json({"away_ms": away_ms, "grace_ms": NODE_GRACE_MS}), "")
        self._machine.was_away(self._engine_ms, NODE_GRACE_MS)

    def configured(self, revision: bytes) -> None:
        """Another configuration holds from here (`recover` has carried the state over): the present meets its limits."""
        self._add(EntryKind.CONFIG, revision, "")
        self._transitions(self._machine.engine.review(self._engine_ms, revision_hash(revision)))

    def state_record(self) -> None:
        """Put all state into the log: replay starts here, because what lies before it does not lead to this state."""
        self._add(EntryKind.STATE, pack_sections(self._machine.dump()), "")

    def attempts(self, attempts: Sequence[Attempt]) -> None:
        """Record delivery attempts."""
        self._batch.attempts += attempts

    # -- history --

    def late_step(self, node: str) -> LateWant | None:
        """Return the frame a node's fork needs; a fork that moved or ended without one leaves an entry."""
        self._flush()
        before = self._machine.history_position(node)
        want = self._machine.late_want(node)
        if self._machine.history_position(node) != before:
            self._add_entry(EntryKind.LATE, pack_json({"pos_max": 0, "upto": 0}), node, "")
        return want

    def late(self, want: LateWant, pos_max: int, stretch: Stretch) -> None:
        """Run fetched frames through a node's fork, if they still are what it needs."""
        if self.late_step(want.node) != want:
            return
        transitions = self._machine.late(want.node, stretch.frames, stretch.upto)
        self._add_entry(EntryKind.LATE, pack_json({"pos_max": pos_max, "upto": stretch.upto}), want.node, "")
        self._transitions(transitions)

    # -- effects --

    def plan(self, planner: NoticePlanner) -> list[Notice]:
        """Apply what is left, and plan and return the notices of what happened since the last call."""
        self._flush()
        fresh = [transition for _, transition in self._batch.transitions[self._planned :]]
        self._planned = len(self._batch.transitions)
        notices = planner.plan(fresh, self._wall_ms)
        self._batch.notices += notices
        return notices

    def remove(self, removable: Removable) -> None:
        """Let the commit remove rows of frames."""
        self._batch.removable = removable

    def finish(self, planner: NoticePlanner) -> Batch:
        """Apply what is left, plan notices, and return the batch."""
        self.plan(planner)
        batch = self._batch
        for node, stream in self._touched:
            self._stream_row(batch, node, stream)
        return batch

    def _stream_row(self, batch: Batch, node: str, stream: int) -> None:
        state = self._machine.node(node).book.streams.get(stream)
        if state is None:
            return
        received = state.received
        batch.streams[node, stream] = StreamRow(
            node, stream, received.upto, received.to_json(), state.last, state.predecessor,
            state.predecessor_last, state.last_source_ms,
        )  # fmt: skip
        batch.acks[node, stream] = state.acknowledged

    def alarm_counts(self) -> dict[str, int]:
        """Return how many alarms stand, by grade word."""
        counts = {grade.word: 0 for grade in Grade}
        for alarm in self._machine.engine.alarms():
            if alarm.state.active:
                counts[Grade(alarm.grade).word] += 1
        return counts

    def _add(self, kind: EntryKind, body: bytes, node: str, device: str = "", samples: int = 0) -> None:
        self._flush()
        self._add_entry(kind, body, node, device, samples=samples)

    def _add_entry(
        self, kind: EntryKind, body: bytes, node: str, device: str, stream: int = 0, first: int = 0, last: int = 0,
        samples: int = 0, late_upto: int = 0, fresh: tuple[tuple[int, int], ...] | None = None,
        refused: tuple[str, ...] | None = None,
    ) -> None:  # fmt: skip
        self._batch.entries.append(
            Entry(
                self._next_pos, kind, self._engine_ms, self._wall_ms, body, node, device, stream, first, last, samples,
                late_upto, fresh, refused,
            )
        )
        self._next_pos += 1

    def _transitions(self, transitions: Sequence[Transition]) -> None:
        self._batch.transitions += [(self.last_pos, transition) for transition in transitions]

    def _losses(self, node: str, losses: Sequence[Loss]) -> None:
        self._batch.losses += [(self.last_pos, node, loss) for loss in losses]
