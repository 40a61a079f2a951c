"""The alarm engine: facts stamped with time go in, transitions come out.

Its state is a function of its inputs alone, in their order. Every input carries `engine_ms`, the gateway's
own persisted time, which never decreases. An input that changed nothing (see `changes`) need not be kept:
leaving it out of a replay gives the same state.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alerting.acts import Act, SystemCondition
from alerting.alarm import AlarmState, Transition
from alerting.book import RECORDS_MAX, AlarmBook
from alerting.carry import read_into, written
from alerting.dump import pack, unpack
from alerting.errors import CorruptDumpError
from alerting.evaluator import Evaluator
from alerting.lastsamples import Columns
from alerting.limits import LimitTable
from alerting.observed import FrameKey, Observed
from alerting.reconcile import reconcile
from alerting.step import Step

if TYPE_CHECKING:
    from alerting.history import HistoryFork
    from config import SiteConfig

_DUMP_KIND = "engine"


@dataclass(frozen=True, slots=True, eq=False)
class TagStates:
    """What is known of every tag now; copies, one row per tag.

    Attributes:
        value: float64[tags], in the tag's unit; NaN where BAD.
        code: uint8[tags], quality codes; BAD/STALE once silent, BAD/UNKNOWN before the first sample.
        source_ms: int64[tags], UTC epoch milliseconds of the last sample; 0 before the first.
        seen_engine_ms: int64[tags], engine time of the last sample.
        known: bool[tags], a GOOD sample has been seen; without one a tag is never shown as normal.
    """

    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    source_ms: NDArray[np.int64]
    seen_engine_ms: NDArray[np.int64]
    known: NDArray[np.bool_]


class AlarmEngine:
    """The alarms of one site.

    Args:
        site: the checked configuration, or the table compiled from it.
        engine_ms: engine time now; from it the silence of tags never heard is counted.
        records_max: alarms that only wait for a person kept in memory (see `adopt`).
    """

    def __init__(self, site: SiteConfig | LimitTable, engine_ms: int = 0, *,
                 records_max: int = RECORDS_MAX) -> None:
        self.limits = site if isinstance(site, LimitTable) else LimitTable.compile(site)
        self.book = AlarmBook(self.limits, records_max)
        self._evaluator = Evaluator(self.limits, engine_ms)
        self._tag_index = {tag: index for index, tag in enumerate(self.limits.tag_id)}
        self._forks: weakref.WeakSet[HistoryFork] = weakref.WeakSet()
        self._clock_ms = self._changed_ms = engine_ms
        self.changes = 0

    # -- facts in ----------------------------------------------------------------------------------------

    def samples(self, engine_ms: int, observed: Observed) -> list[Transition]:
        """Evaluate current, conditioned samples in order."""
        self._advance(engine_ms)
        if len(observed.tag):
            self._changed(engine_ms)
        steps = self._evaluator.samples(engine_ms, observed)
        return self._apply(steps, engine_ms) if steps else []

    def tick(self, engine_ms: int, at_ms: int | None = None) -> list[Transition]:
        """Let time pass: silent tags become stale, on-delays without new samples ripen. Raises only.

        Args:
            at_ms: UTC now, for alarms of tags that were never heard; engine time stands in for it.
        """
        self._advance(engine_ms)
        changed, steps = self._evaluator.tick(engine_ms, at_ms)
        if changed:
            self._changed(engine_ms)
        return self._apply(steps, engine_ms)

    def stale(self, engine_ms: int, tags: Iterable[int], at_ms: int | None = None) -> list[Transition]:
        """A node or device has died: its tags are BAD/STALE at once, levels held, faults raised."""
        self._advance(engine_ms)
        changed, steps = self._evaluator.stale(engine_ms, _numbers(tags), at_ms)
        if changed:
            self._changed(engine_ms)
        return self._apply(steps, engine_ms)

    def condition(self, engine_ms: int, at_ms: int, told: SystemCondition) -> list[Transition]:
        """Take note of a condition of the chain itself; one that stands already changes nothing."""
        self._advance(engine_ms)
        transitions = self.book.condition(engine_ms, at_ms, told)
        if transitions:
            self._changed(engine_ms)
        return transitions

    def act(self, engine_ms: int, act: Act) -> list[Transition]:
        """Do what a person asked for.

        Raises:
            UnknownAlarmError: no alarm in memory has the id; an old record may be `adopt`ed first.
            ActRefusedError: not possible now. Nothing has changed.
        """
        self._advance(engine_ms)
        alarm = self.book.alarms.get(act.alarm_id)
        index = None if alarm is None else self._tag_index.get(alarm.tag)
        last = FrameKey(0, 0) if index is None else self._evaluator.last_frame(index)
        transition = self.book.act(engine_ms, act, last)
        self._changed(engine_ms)
        return [transition]

    def adopt(self, alarm: AlarmState) -> None:
        """Take back a record that has left memory, as the ledger has it.

        Raises:
            ActRefusedError: it is closed.
        """
        self.book.adopt(alarm)
        self.changes += 1

    def downtime(self, ms: int) -> None:
        """Engine time jumps by `ms` in which nobody watched: it ages silence, never a delay.

        The next input's `engine_ms` holds the jump.
        """
        assert ms >= 0, "downtime cannot be negative"
        self._evaluator.downtime(ms)
        self.changes += 1

    def excuse(self, engine_ms: int, tags: Iterable[int], until_ms: int) -> None:
        """The gateway itself did not listen: until engine time `until_ms` silence raises no fault of these tags.

        They are BAD/STALE as ever; whoever is still silent then raises the fault.
        """
        self._advance(engine_ms)
        self.changes += self._evaluator.excuse(engine_ms, _numbers(tags), until_ms)

    def excuse_ends(self, engine_ms: int, tags: Iterable[int], until_ms: int) -> None:
        """These tags have been asked again: no excuse of theirs lasts beyond `until_ms`."""
        self._advance(engine_ms)
        self.changes += self._evaluator.excuse_ends(_numbers(tags), until_ms)

    def review(self, engine_ms: int, cause: str) -> list[Transition]:
        """Hold what is known now against the limits, as after a change of them. Raises only.

        Args:
            cause: names the change; it enters the ids of what is raised.
        """
        self._advance(engine_ms)
        changed, steps = self._evaluator.review(engine_ms, cause)
        if changed:
            self._changed(engine_ms)
        return self._apply(steps, engine_ms)

    def reconcile(self, stored: Mapping[str, AlarmState]) -> list[str]:
        """Make the alarms in memory those of the ledger; see `alerting.reconcile`. Returns the ids that differed."""
        differing = reconcile(self.book, self._evaluator, stored)
        for fork in self._forks:
            fork.forget(alarm_id for alarm_id in differing if alarm_id not in self.book.alarms)
        self.changes += len(differing)
        return differing

    def let_go_condition(self, key: str) -> None:
        """Nobody reports on this condition any more (its edge has left the site): a person ends what stands."""
        self.book.let_go_condition(key)
        self.changes += 1

    def raise_only(self, tags: Iterable[int], on: bool) -> None:
        """While on, samples of these tags may raise and never lower (it is unclear whose they are)."""
        self._evaluator.only_raise[_numbers(tags)] = on
        self.changes += 1

    def fork(self, tags: Iterable[int]) -> HistoryFork:
        """Return a copy of the rows of some tags, for running frames that came late."""
        from alerting.history import HistoryFork  # history imports this module

        return HistoryFork.start(self, _numbers(tags))

    # -- facts out ---------------------------------------------------------------------------------------

    def alarms(self) -> list[AlarmState]:
        """Return the open alarms in memory, in the order they were raised or adopted."""
        return list(self.book.alarms.values())

    def tag_states(self) -> TagStates:
        """Return what is known of every tag now."""
        last = self._evaluator.last
        return TagStates(last.value.copy(), last.code.copy(), last.source_ms.copy(), last.seen_engine_ms(),
                         self._evaluator.known.copy())

    # -- writing down and reading back -------------------------------------------------------------------

    def dump(self) -> bytes:
        """Return the whole state (without forks, which have their own) as bytes, without a checksum.

        Equal states give equal bytes, however they were reached.
        """
        book, (header, columns) = self.book, written(self._evaluator)
        header |= {
            "changed_ms": self._changed_ms, "alarms": [alarm.to_json() for alarm in book.alarms.values()],
            "row_alarm": sorted(book.row_alarm.items()),
            "system_alarm": sorted(book.system_alarm.items()),
            "linked": sorted(book.linked.items()), "records": book.waiting(),
            "system_steps": book.system_steps,
        }
        return pack(_DUMP_KIND, header, columns)

    @staticmethod
    def restore(site: SiteConfig | LimitTable, dump: bytes, *, records_max: int = RECORDS_MAX) -> AlarmEngine:
        """Return the engine a dump describes; the configuration may have changed since.

        Tags and limits are recognised by name. An alarm whose limit is gone, or has another setpoint, deadband,
        side or unit now, is kept as it stands: no sample will return it, so a person has to close it with a
        reason. The row of a changed limit starts anew; `review` holds present values against it.

        Raises:
            CorruptDumpError: damaged, or of another site.
        """
        header, columns = unpack(_DUMP_KIND, dump)
        try:
            if header["site"] != site.site:
                raise CorruptDumpError(f"a dump of site {header['site']!a}, expected {site.site!a}")
            engine = AlarmEngine(site, header["changed_ms"], records_max=records_max)
            engine._load(header, columns)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CorruptDumpError(f"damaged state dump: {type(error).__name__} {error}") from error
        return engine

    def _load(self, header: dict[str, Any], columns: Columns) -> None:
        book, carried = self.book, read_into(self._evaluator, header, columns)
        book.alarms = {body["id"]: AlarmState.from_json(body) for body in header["alarms"]}
        book.system_alarm, book.system_steps = dict(header["system_alarm"]), header["system_steps"]
        book.linked = {current: list(late) for current, late in header["linked"]}
        for alarm_id in header["records"]:
            (book.detached if book.alarms[alarm_id].state.active else book.records)[alarm_id] = None
        for row, alarm_id in header["row_alarm"]:
            if carried.same[row]:
                book.row_alarm[int(carried.row[row])] = alarm_id
            else:
                book.let_go(alarm_id)

    # -- inside ------------------------------------------------------------------------------------------

    def _advance(self, engine_ms: int) -> None:
        assert engine_ms >= self._clock_ms, f"engine time ran backwards: {engine_ms} after {self._clock_ms}"
        self._clock_ms = engine_ms

    def _changed(self, engine_ms: int) -> None:
        # Not the clock itself, which ticks that changed nothing move too.
        self._changed_ms = engine_ms
        self.changes += 1

    def _apply(self, steps: list[Step], engine_ms: int) -> list[Transition]:
        book, transitions, forks = self.book, [], list(self._forks)
        for step in steps:
            if step.raised:
                alarm = book.raised_alarm(step.row, step, engine_ms)
                while alarm.id in book.alarms and step.ordinal is not None:
                    # A frame that came twice is a fault further up; it must not take an open alarm's place.
                    step = step._replace(ordinal=step.ordinal + 1)
                    alarm = book.raised_alarm(step.row, step, engine_ms)
                book.row_alarm[step.row] = alarm.id
                made = book.enter(alarm, engine_ms)
            else:
                made = book.returned(book.row_alarm.pop(step.row), step, engine_ms)
            transitions.append(made)
            for fork in forks:
                fork.note(step, made)
            if not step.raised:
                transitions += book.returned_with(made)
        return transitions


def _numbers(tags: Iterable[int]) -> list[int]:
    return [int(tag) for tag in tags]
