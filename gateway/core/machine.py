"""Core's deterministic heart: log entries in, transitions out, nothing else.

Everything that can change a level comes in as an entry of the input log, live and in replay through the same
methods, so the state after a log position is a function of the log up to it. No clock, socket, file or log line;
what must be written, sent or said comes back as values.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from alerting import (
    ACT_TEXT_MAX,
    Act,
    ActKind,
    ActRefusedError,
    AlarmEngine,
    AlarmState,
    CorruptDumpError,
    Fact,
    HistoryFork,
    Transition,
    condition,
)
from config import SiteConfig
from gateway.core.arrivals import Arrived, Gathered, Unconditioned, observed
from gateway.core.books import UNFINISHED_LISTED_MAX, BirthFindings, Loss, NodeBook, Verdict
from gateway.core.conditions import system_condition
from gateway.core.history_runs import HistoryRuns
from gateway.core.nodes import HistoryRun, NodeState
from wire import SampleBatch, StreamSpan

BORN_SETTLED_MS: Final = 5_000  # by then what a birth tells has been evaluated


@dataclass(frozen=True, slots=True)
class BlockTaken:
    """What became of a spool block.

    Attributes:
        kept: it belongs in the log.
        late_upto: its frames numbered up to here are late; 0: none.
        fresh: ranges of its frames that no row of the log holds yet; None: all of it.
    """

    kept: bool
    late_upto: int = 0
    fresh: tuple[tuple[int, int], ...] | None = None
    losses: list[Loss] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)


class Machine(HistoryRuns):
    """Engine, stream books and history forks of one site."""

    def __init__(self, site: SiteConfig, engine: AlarmEngine | None = None) -> None:
        self.site = site
        self.engine = AlarmEngine(site) if engine is None else engine
        self.low = np.array([tag.span().low for tag in site.tags], np.float64)
        self.high = np.array([tag.span().high for tag in site.tags], np.float64)
        self._counting = {edge.id for edge in site.edges if edge.receipt == "required"}
        self._owned: dict[str, dict[str, int]] = {edge.id: {} for edge in site.edges}
        for tag, edge in site.edge_of.items():
            self._owned[edge][tag] = site.tag_index[tag]
        self.nodes: dict[str, NodeState] = {
            edge: NodeState(np.array(sorted(owned.values()), np.int32)) for edge, owned in self._owned.items()
        }

    def tag_index(self, node: str) -> Mapping[str, int]:
        """Return the site's index of every tag that this node may speak for."""
        return self._owned.get(node, {})

    def conditioned(self, node: str, device: str, stream: int, sequence: int, batch: SampleBatch, *,
                    unmarked: bool = False) -> Arrived:  # fmt: skip
        """Condition one frame's samples: not finite is BAD, beyond range is UNCERTAIN and clamped."""
        value, code, raw = condition(batch, self.low, self.high)
        return Arrived(node, device, stream, sequence, batch.tag, value, code, batch.source_ms, raw, unmarked)

    def gathered(self, frames: Sequence[Unconditioned]) -> Gathered:
        """Condition frames as `conditioned` does, all at once."""
        batch = SampleBatch.concat([frame.batch for frame in frames])
        value, code, raw = condition(batch, self.low, self.high)
        tag, source_ms = batch.tag, batch.source_ms
        arrived: list[Arrived] = []
        ends: list[int] = []
        start = 0
        for node, device, stream, sequence, own, unmarked in frames:
            end = start + len(own.tag)
            arrived.append(
                Arrived(
                    node, device, stream, sequence, tag[start:end], value[start:end], code[start:end], source_ms[start:end],
                    raw[start:end], unmarked,
                )
            )
            ends.append(end)
            start = end
        return Gathered(arrived, ends, tag, value, code, source_ms, raw)

    # -- frames --

    def frames(self, engine_ms: int, frames: Sequence[Arrived]) -> tuple[list[Verdict], list[Transition]]:
        """Book the frames and evaluate those that are current, in one call as long as nothing forks.

        Returns:
            A verdict for every frame, and the transitions.
        """
        verdicts: list[Verdict] = []
        transitions: list[Transition] = []
        current: list[Arrived] = []
        for frame in frames:
            node = self.node(frame.node)
            if frame.unmarked:
                node.unmarked_count = frame.sequence
                verdict = Verdict.CURRENT
            else:
                before = self._evaluated(node, frame.stream)
                verdict = node.book.arrive(frame.stream, frame.sequence)
                if verdict in (Verdict.CURRENT, Verdict.UNCOUNTED) and frame.sequence > before + 1:
                    transitions += self._evaluate(engine_ms, current)
                    current = []
                    self._fork(node, frame.stream, before)
                if verdict is not Verdict.DUPLICATE and len(frame.source_ms):
                    node.book.time(frame.stream, frame.sequence, int(np.maximum.reduce(frame.source_ms)))
            if verdict in (Verdict.CURRENT, Verdict.UNCOUNTED):
                current.append(frame)
            verdicts.append(verdict)
        transitions += self._evaluate(engine_ms, current)
        return verdicts, transitions

    def _evaluate(self, engine_ms: int, frames: Sequence[Arrived]) -> list[Transition]:
        return self.engine.samples(engine_ms, observed(frames)) if frames else []

    def block(
        self, engine_ms: int, node_name: str, stream: int, first: int, last: int, frames: Sequence[Arrived],
        dropped: Sequence[tuple[int, int, str]] = (),
    ) -> BlockTaken:  # fmt: skip
        """Book a spool block; the frames of it that are current (a block-encoded live stream) are evaluated."""
        node = self.node(node_name)
        booked = node.book.arrive_block(stream, first, last, dropped)
        state = node.book.streams[stream]
        ahead = stream == node.book.live and last > state.evaluated
        if booked is None and not ahead:
            return BlockTaken(False)  # no room to count it: it comes again
        fresh, losses = booked or ([], [])
        if booked is not None and not fresh:
            return BlockTaken(False)
        late_upto = last if stream != node.book.live else min(state.evaluated, last)
        unheld = tuple(state.not_uncounted(fresh))  # none of one that was not counted: it comes again, and is kept then
        transitions: list[Transition] = []
        if ahead:
            if first > state.evaluated + 1:
                self._fork(node, stream, state.evaluated)
            transitions = self._evaluate(engine_ms, [frame for frame in frames if frame.sequence > state.evaluated])
            state.evaluated = last
        if frames:
            node.book.time(stream, last, max(int(frame.source_ms.max(initial=0)) for frame in frames))
        whole = unheld == ((first, last),)
        return BlockTaken(True, late_upto if late_upto >= first else 0, None if whole else unheld, losses, transitions)

    # -- sessions --

    def born(self, engine_ms: int, at_ms: int, node_name: str, facts: dict[str, Any]) -> tuple[BirthFindings, list[Transition]]:
        """Take in a birth. `facts` is the body of its log entry (see `birth_facts`)."""
        node = self.node(node_name)
        self.engine.excuse_ends(engine_ms, node.tags, engine_ms + BORN_SETTLED_MS)
        unended, node.online = node.online, True
        node.unmarked_stream, node.unmarked_count = facts["unmarked_stream"], 0
        spans = [StreamSpan(*row) for row in facts["spans"]]
        findings = BirthFindings((), new_stream=False, restored_disk=False, two_boxes=False)
        if facts.get("commands_refused", 0) < node.commands_told:  # the node has started anew
            node.commands_told = 0
        if facts["live"]:
            stranger, previous = node.book.live == 0, node.book.live
            if previous and facts["live"] != previous:  # its death may have gone unheard
                self._fork(node, previous, self._evaluated(node, previous))
            findings = node.book.born(facts["live"], spans, restored=node.restored, unended=unended)
            node.restored = node.restored and node.book.unproven != 0
            if stranger:
                self._fork_at_first(node, spans)
            if len(spans) < UNFINISHED_LISTED_MAX:  # a full list may hide the link
                self._follow_chain(node)
        # A node that counts its frames does not stop counting: this is somebody who knows only its name.
        posing = not facts["live"] and node.book.live != 0 and node_name in self._counting
        transitions = self._condition(engine_ms, at_ms, f"EDGE.{node_name}.OFFLINE", standing=False)
        transitions += self._condition(engine_ms, at_ms, f"EDGE.{node_name}.CONFIG", standing=bool(facts["config_wrong"]))
        transitions += self._condition(engine_ms, at_ms, f"EDGE.{node_name}.SPOOL", standing=bool(facts["spool_fault"]))
        transitions += self._condition(engine_ms, at_ms, f"EDGE.{node_name}.CLOCK", standing=not facts["clock_synced"])
        blocked = bool(facts.get("transport_blocked"))
        if not facts.get("transport_explained"):  # by trouble of our own: neither raised nor lowered
            transitions += self._condition(engine_ms, at_ms, f"EDGE.{node_name}.TRANSPORT", standing=blocked)
        if findings.losses:
            named = [str(loss) for loss in findings.losses[:8]]
            what: dict[str, Fact] = {"ranges": len(findings.losses), "what": "; ".join(named)}
            told = system_condition(f"EDGE.{node_name}.LOSS", None, what)
            transitions += self.engine.condition(engine_ms, at_ms, told)
        if findings.two_boxes or posing:
            transitions += self._condition(engine_ms, at_ms, f"EDGE.{node_name}.IDENTITY", standing=True)
            self.engine.raise_only(node.tags, True)
        return findings, transitions

    def died(
        self, engine_ms: int, at_ms: int, node_name: str, device: str, *, quiet: bool, grace_ms: int = 0
    ) -> list[Transition]:  # fmt: skip
        """A node's or a device's session ended: values go STALE, levels stand, history begins here.

        Args:
            quiet: it was our own link or process that ended; the node is only unknown, and silence will tell.
            grace_ms: how long after a quiet end its silence is no fault of its tags.
        """
        node = self.node(node_name)
        if device:
            tags = np.array(self._device_tags(node_name, device), np.int32)
            return self.engine.stale(engine_ms, tags, at_ms)
        if node.book.live:
            self._fork(node, node.book.live, self._evaluated(node, node.book.live))
        node.online = False
        if quiet:
            self.engine.excuse(engine_ms, node.tags, engine_ms + grace_ms)
            return []
        transitions = self.engine.stale(engine_ms, node.tags, at_ms)
        return transitions + self._condition(engine_ms, at_ms, f"EDGE.{node_name}.OFFLINE", standing=True)

    def _device_tags(self, node_name: str, device: str) -> list[int]:
        for edge in self.site.edges:
            if edge.id == node_name:
                for item in edge.devices:
                    if item.id == device:
                        return sorted(self.site.tag_index[point.tag] for point in item.points)
        return []

    def _condition(self, engine_ms: int, at_ms: int, key: str, *, standing: bool) -> list[Transition]:
        return self.engine.condition(engine_ms, at_ms, system_condition(key, standing, {}))

    def evaluate_only(self, engine_ms: int, frames: Sequence[Arrived]) -> list[Transition]:
        """Evaluate what is current without booking it: there is no room left to keep the frames."""
        current: list[Arrived] = []
        transitions: list[Transition] = []
        for frame in frames:
            node = self.node(frame.node)
            if frame.unmarked:
                node.unmarked_count = frame.sequence
            else:
                state = node.book.streams.get(frame.stream)
                if frame.stream != node.book.live or state is None or frame.sequence <= state.evaluated:
                    continue
                if frame.sequence > state.evaluated + 1:
                    transitions += self._evaluate(engine_ms, current)
                    current = []
                    self._fork(node, frame.stream, state.evaluated)
                state.evaluated = frame.sequence
            current.append(frame)
        return transitions + self._evaluate(engine_ms, current)

    # -- the rest of the log --

    def tick(self, engine_ms: int, at_ms: int) -> list[Transition]:
        """Let time pass: may raise, never lowers."""
        return self.engine.tick(engine_ms, at_ms)

    def condition(self, engine_ms: int, at_ms: int, facts: dict[str, Any]) -> list[Transition]:
        """A fact about the system: body of a CONDITION entry."""
        if "commands_told" in facts:
            name, count = facts["commands_told"]
            self.node(name).commands_told = count
        told = system_condition(facts["key"], facts["standing"], facts.get("facts", {}))
        return self.engine.condition(engine_ms, at_ms, told)

    def act(self, engine_ms: int, act: Act, adopted: dict[str, Any] | None) -> list[Transition]:
        """An operator act.

        Args:
            adopted: the state of an old alarm that is in the ledger but no longer in the engine's memory.

        Raises:
            ActRefusedError: the life cycle does not allow it; nothing changed but that `adopted` is in memory.
        """
        if adopted is not None:
            self.engine.adopt(AlarmState.from_json(adopted))
        transitions: list[Transition] = []
        for name, node in self.nodes.items():
            # Closing the identity alarm is how a person says that the box now live is the right one.
            key = f"EDGE.{name}.IDENTITY"
            if self.engine.book.system_alarm.get(key) == act.alarm_id and act.kind is ActKind.CLOSE:
                _check_said(act)
                transitions += self._condition(engine_ms, act.at_ms, key, standing=False)
                self.engine.raise_only(node.tags, False)
        return transitions + self.engine.act(engine_ms, act)

    def start(self, engine_ms: int, downtime_ms: int, grace_ms: int, *, restored: bool) -> None:
        """Core started: the time it was down ages staleness only.

        Args:
            grace_ms: how long from now silence is no fault of any tag.
            restored: on a ledger from a backup, which may know less than the nodes.
        """
        self.engine.downtime(downtime_ms)
        self.was_away(engine_ms, grace_ms)
        if restored:
            for node in self.nodes.values():
                node.restored = True

    def was_away(self, engine_ms: int, grace_ms: int) -> None:
        """Core itself did not listen for a while: what it could not hear is no fault of the tags for this long."""
        self.engine.excuse(engine_ms, range(len(self.site.tags)), engine_ms + grace_ms)

    # -- persistence --

    def dump(self) -> dict[str, bytes]:
        """Return all state as named sections for a snapshot."""
        nodes = {
            name: {
                "book": node.book.to_facts(), "online": node.online, "unmarked_stream": node.unmarked_stream,
                "unmarked_count": node.unmarked_count, "restored": node.restored,
                "commands_told": node.commands_told,
                "history": None if node.history is None else [
                    node.history.stream, node.history.number, base64.b64encode(node.history.fork.dump()).decode(),
                    node.history.seen,
                ],
            }
            for name, node in self.nodes.items()
        }  # fmt: skip
        return {"engine": self.engine.dump(), "nodes": json.dumps(nodes, separators=(",", ":")).encode()}

    @classmethod
    def restore(cls, site: SiteConfig, sections: dict[str, bytes]) -> Machine:
        """Inverse of `dump`."""
        machine = cls(site, AlarmEngine.restore(site, sections["engine"]))
        for name, facts in json.loads(sections["nodes"]).items():
            node = machine.node(name)
            node.book = NodeBook.from_facts(facts["book"])
            node.online = facts["online"]
            node.unmarked_stream, node.unmarked_count = facts["unmarked_stream"], facts["unmarked_count"]
            node.restored = facts["restored"]
            node.commands_told = facts.get("commands_told", 0)
            if facts["history"] is not None:
                stream, number, dump, *seen = facts["history"]
                try:
                    fork = HistoryFork.restore(machine.engine, base64.b64decode(dump))
                except CorruptDumpError:  # the site's tags are others now: history of the old ones ends here
                    continue
                node.history = HistoryRun(fork, stream, number, *seen)
        return machine


def _check_said(act: Act) -> None:
    """Refuse a closing without a person, a reason and a measure, before anything is changed for it."""
    for name, text in (("actor", act.actor), ("reason", act.reason), ("measure", act.measure)):
        if not (text or "").strip() or len(text or "") > ACT_TEXT_MAX:
            raise ActRefusedError(act.alarm_id, f"close needs {name}, at most {ACT_TEXT_MAX} characters")
