"""Frames that came late, run by the same rules as live ones through a copy of their tags' rows.

A fork is taken just before the first frame past a hole and then fed every later frame of the node in stream
order, the ones already evaluated too. What it finds that the present did not becomes a dated record marked
late. It never changes a current level, never rewrites the record of a current alarm, and gives the id of a
step that is known already to nothing new.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alerting.alarm import LATE_REVISION_FIRST, Transition, TransitionKind
from alerting.carry import read_into, written
from alerting.dump import pack, unpack
from alerting.engine import AlarmEngine
from alerting.errors import CorruptDumpError
from alerting.evaluator import Evaluator
from alerting.observed import FrameKey, Observed
from alerting.phases import ACTIVE, ENTERING, LEAVING
from alerting.step import Step

_DUMP_KIND = "fork"
BEFORE = FrameKey(0, 0)
UNPLACED = FrameKey(-1, 0)  # what no frame of an edge did: it has no place in their order
APART_MS_MAX = 600_000  # a value may stay inside its deadband for days, and every frame is run twice meanwhile


@dataclass(slots=True)
class Occurrence:
    """A current alarm that stood or began while this fork lived.

    Attributes:
        begun, ended: the frames after which it stood and stood no more; (0, 0) is before the fork, None not yet. Streams
            below zero are of timers, and of frames that no edge has numbered.
        left: the fork has seen it end.
    """

    alarm_id: str
    start_ms: int
    begun: FrameKey = BEFORE
    ended: FrameKey | None = None
    left: bool = False


class HistoryFork:
    """A run over history. Make one with `AlarmEngine.fork`, end it with `finish`."""

    def __init__(self, engine: AlarmEngine, tags: list[int]) -> None:
        self._engine = engine
        self._tags = sorted(set(tags))
        table, rows = engine.limits.subset(np.array(self._tags, np.int32))
        faults = engine.limits.rows + np.array(self._tags, np.int64)
        self._site_row: NDArray[np.int64] = np.concatenate([rows, faults])
        self._own_row = {int(row): own for own, row in enumerate(self._site_row)}
        self._own_tag = np.full(engine.limits.tags, -1, np.int32)
        self._own_tag[self._tags] = np.arange(len(self._tags), dtype=np.int32)
        self._evaluator = Evaluator(table, 0, history=True)
        self._standing: dict[int, str] = {}  # own row -> late alarm this run has raised
        self._inside: dict[int, str] = {}  # own row -> alarm of somebody else this run is inside of
        self._current: dict[int, list[Occurrence]] = {}  # own row -> current alarms since the fork
        self._apart_ms: int | None = None  # since when, by the run's stamps, it stands otherwise than the present
        self._newest: tuple[int, int] | None = None  # the run's stream, and the newest stamp in it
        self._place: dict[int, int] = {BEFORE.stream: 0}  # stream -> its place in the order they were run
        engine._forks.add(self)

    @staticmethod
    def start(engine: AlarmEngine, tags: list[int]) -> HistoryFork:
        """Return a fork that begins with the engine's present state of these tags."""
        fork = HistoryFork(engine, tags)
        tag_columns, row_columns = engine._evaluator.columns()
        fork._evaluator.load({name: column[fork._tags] for name, column in tag_columns.items()},
                             {name: column[fork._site_row] for name, column in row_columns.items()})
        for site_row, alarm_id in engine.book.row_alarm.items():
            own = fork._own_row.get(site_row)
            if own is not None:
                start_ms = engine.book.alarms[alarm_id].start_ms
                fork._inside[own] = alarm_id
                fork._current[own] = [Occurrence(alarm_id, start_ms)]
        return fork

    def samples(self, observed: Observed, *, caught_up: bool = True) -> list[Transition]:
        """Evaluate late, conditioned samples in stream order; samples of other tags are passed over.

        Args:
            caught_up: what comes now the present has just seen; only then does it count for how long they stand apart.

        Returns:
            The transitions that are new, all marked late, with engine_ms 0.
        """
        for frame in observed.frames:
            self._place.setdefault(frame.stream, len(self._place))
        own_tag = self._own_tag[observed.tag]
        mine = own_tag >= 0
        if not mine.all():
            observed = Observed(observed.tag[mine], observed.value[mine], observed.code[mine],
                                observed.source_ms[mine], observed.frame[mine], observed.frames)
            own_tag = own_tag[mine]
        renumbered = Observed(own_tag, observed.value, observed.code, observed.source_ms, observed.frame,
                              observed.frames)
        steps = self._evaluator.samples(0, renumbered)
        found = [self._raised(step) if step.raised else self._returned(step) for step in steps]
        transitions = [transition for transition in found if transition is not None]
        self._engine.changes += len(transitions)
        self._note_time(observed, caught_up=caught_up)
        return transitions

    def _note_time(self, observed: Observed, *, caught_up: bool) -> None:
        if len(observed):
            stream, newest_ms = observed.frames[-1].stream, int(observed.source_ms.max())
            if self._newest is None or self._newest[0] != stream:  # another stream may have another clock
                self._newest, self._apart_ms = (stream, newest_ms), None
            else:
                self._newest = stream, max(newest_ms, self._newest[1])
        if not caught_up or not self._apart():
            self._apart_ms = None
        elif self._apart_ms is None and self._newest is not None:
            self._apart_ms = self._newest[1]

    def waits(self, stream: int) -> bool:
        """Tell whether something is still to be seen: the end of a delay, or that the present sees what this run sees.

        Where a hole hid a step and the value has stayed inside the deadband since, the two stand apart. A run that
        ended then would leave its alarm to a person, and the next one would not know what it had seen.

        A tag that turned BAD or is heard no more would keep the run waiting for ever. One that is well is heard again
        before it is stale: past its delay and that time by the newest stamp of `stream`, the run's own, nothing comes.
        """
        evaluator, limits = self._evaluator, self._evaluator.limits
        phase = evaluator.phase
        running = (phase == ENTERING) | (phase == LEAVING)
        apart = self._apart()
        if not apart and not running.any():
            return False
        if self._newest is None or self._newest[0] != stream:
            return True
        now_ms = self._newest[1]
        if apart and (self._apart_ms is None or abs(now_ms - self._apart_ms) <= APART_MS_MAX):
            return True
        if not running.any():
            return False
        bound_ms = evaluator.rules.on_ms.copy()
        bound_ms[: limits.rows] = np.maximum(bound_ms[: limits.rows], evaluator.rules.off_ms)
        bound_ms += limits.stale_after_ms[np.concatenate([limits.row_tag, np.arange(limits.tags)])]
        # Both ways: behind a clock that was set back, too, no end would ever be seen.
        return bool((np.abs(now_ms - evaluator.since_source_ms[running]) <= bound_ms[running]).any())

    def _apart(self) -> bool:
        """Tell whether a limit stands here and not in the present, or there and not here; of faults, our own late ones."""
        rows = self._evaluator.limits.rows
        here = self._evaluator.phase >= ACTIVE
        present = self._engine._evaluator.phase[self._site_row] >= ACTIVE
        late_faults = [row for row in self._standing if row >= rows]
        return bool((here[:rows] != present[:rows]).any() or not present[late_faults].all())

    def finish(self) -> None:
        """The run has caught up or is given up. What it left standing returns with the current alarm of its limit.

        Where there is none, it now waits for a person.
        """
        book = self._engine.book
        for own_row, alarm_id in self._standing.items():
            alarm = book.alarms.get(alarm_id)
            if alarm is not None and alarm.state.active and alarm.linked is None:
                current = book.row_alarm.get(int(self._site_row[own_row]))
                if current is None:
                    book.loosen(alarm_id)
                else:
                    book.link(alarm, current)
                self._engine.changes += 1
        self._standing.clear()
        self._engine._forks.discard(self)

    def note(self, step: Step, current: Transition) -> None:
        """The engine tells what happens on current rows while this fork lives."""
        own = self._own_row.get(step.row)
        if own is None:
            return
        # A timer's step names the tag's last frame, which may be of a stream from before this run, or after its delay began.
        frame = UNPLACED if step.ordinal is None else FrameKey(step.stream, step.sequence)
        occurrences = self._current.setdefault(own, [])
        if current.kind is TransitionKind.RAISED:
            occurrences.append(Occurrence(current.alarm_id, current.at_ms, frame))
            return
        for occurrence in occurrences:
            if occurrence.alarm_id == current.alarm_id:
                occurrence.ended = frame

    def forget(self, alarm_ids: Iterable[str]) -> None:
        """These alarms were never true: no excursion is recorded by them."""
        gone = set(alarm_ids)
        for occurrences in self._current.values():
            occurrences[:] = [each for each in occurrences if each.alarm_id not in gone]

    # -- steps of the run --------------------------------------------------------------------------------

    def _raised(self, step: Step) -> Transition | None:
        book, site_row = self._engine.book, int(self._site_row[step.row])
        alarm = replace(book.raised_alarm(site_row, step, 0), late=True, revision=LATE_REVISION_FIRST)
        known = self._known(step, alarm.id)
        if known is not None:
            self._inside[step.row] = known
            return None
        current = book.row_alarm.get(site_row)
        if current is not None:
            alarm = replace(alarm, linked=current)
            book.link(alarm, current)
        self._standing[step.row] = alarm.id
        return book.enter(alarm, 0)

    def _known(self, step: Step, alarm_id: str) -> str | None:
        """Return the alarm this raise is recorded as already, by id or because a current one stood then."""
        if alarm_id in self._engine.book.alarms:
            return alarm_id
        for occurrence in self._current.get(step.row, ()):
            if occurrence.alarm_id == alarm_id or (not occurrence.left and self._stood(occurrence, step)):
                return occurrence.alarm_id
            later = self._order(occurrence.begun) > self._order(FrameKey(step.stream, step.sequence))
            if later and occurrence.start_ms == step.at_ms:  # one sample: the birth of the next stream told it again
                return occurrence.alarm_id
        return None

    def _stood(self, occurrence: Occurrence, step: Step) -> bool:
        """Tell whether a current alarm stood when this step was made, in the order of the node's frames.

        Stamps would not tell: a clock that was set back has the later before the earlier. They stand in for a beginning
        that has no place in that order; what ended without one is over.
        """
        now = self._order(FrameKey(step.stream, step.sequence))
        unplaced = occurrence.begun.stream < 0
        begun = occurrence.start_ms <= step.at_ms if unplaced else self._order(occurrence.begun) <= now
        ended = occurrence.ended
        return begun and (ended is None or (ended.stream >= 0 and now < self._order(ended)))

    def _order(self, frame: FrameKey) -> tuple[float, int]:
        return self._place.get(frame.stream, math.inf), frame.sequence

    def _returned(self, step: Step) -> Transition | None:
        inside = self._inside.pop(step.row, None)
        for occurrence in self._current.get(step.row, ()):
            # A current alarm that a late one was linked to ends here, too, whatever the present saw of it.
            occurrence.left |= occurrence.alarm_id == inside or self._stood(occurrence, step)
        if inside is not None:
            return None
        book = self._engine.book
        late = book.alarms.get(self._standing.pop(step.row))
        if late is None or not late.state.active:
            return None
        book.unlink(late)
        return book.returned(late.id, step, 0)

    # -- writing down and reading back -------------------------------------------------------------------

    def dump(self) -> bytes:
        """Return the whole state of the run as bytes, without a checksum."""
        header, columns = written(self._evaluator)
        header |= {
            "standing": sorted(self._standing.items()), "inside": sorted(self._inside.items()),
            "current": [[row, [_written(item) for item in items]] for row, items in sorted(self._current.items())],
            "apart_ms": self._apart_ms, "newest": self._newest, "streams": sorted(self._place, key=self._place.__getitem__),
        }
        return pack(_DUMP_KIND, header, columns)

    @staticmethod
    def restore(engine: AlarmEngine, dump: bytes) -> HistoryFork:
        """Return the run a dump describes, tied to an engine restored from the same moment.

        The configuration may have changed since, as for `AlarmEngine.restore`: on a changed limit the run is
        outside of every alarm, and what it had raised there waits for a person.

        Raises:
            CorruptDumpError: damaged, or none of its tags is left.
        """
        header, columns = unpack(_DUMP_KIND, dump)
        try:
            places = {tag: place for place, tag in enumerate(engine.limits.tag_id)}
            tags = [places[tag] for tag in header["tags"] if tag in places]
            if header["site"] != engine.limits.site or (header["tags"] and not tags):
                raise CorruptDumpError("no tag of this fork is left in the site")
            fork = HistoryFork(engine, tags)
            carried = read_into(fork._evaluator, header, columns)
            row, same = carried.row.tolist(), carried.same.tolist()
            fork._standing = {row[old]: alarm_id for old, alarm_id in header["standing"] if same[old]}
            fork._inside = {row[old]: alarm_id for old, alarm_id in header["inside"] if same[old]}
            fork._current = {row[old]: [_read(item) for item in items]
                             for old, items in header["current"] if row[old] >= 0}
            # Not in dumps from before runs knew the order of frames.
            fork._place = {stream: place for place, stream in enumerate(header.get("streams", [BEFORE.stream]))}
            fork._apart_ms, newest = header.get("apart_ms"), header.get("newest")
            fork._newest = newest and tuple(newest)
            for old, _ in header["current"]:
                # The frame that raised it gives the same id under any limit, and may come by again.
                for occurrence in fork._current.get(row[old], ()) if not same[old] else ():
                    occurrence.left = True
            for alarm_id in fork._standing.values():
                late = engine.book.alarms.get(alarm_id)
                if late is not None and late.state.active:
                    engine.book.detached.pop(alarm_id, None)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CorruptDumpError(f"damaged fork: {type(error).__name__} {error}") from error
        return fork


def _written(item: Occurrence) -> list[Any]:
    return [item.alarm_id, item.start_ms, item.begun, item.ended, item.left]


def _read(item: list[Any]) -> Occurrence:
    if len(item) == 4:  # from before runs knew the order of frames: by stamps, as then
        alarm_id, start_ms, returned_ms, left = item
        return Occurrence(alarm_id, start_ms, UNPLACED, None if returned_ms is None else UNPLACED, left)
    alarm_id, start_ms, begun, ended, left = item
    return Occurrence(alarm_id, start_ms, FrameKey(*begun), ended and FrameKey(*ended), left)
