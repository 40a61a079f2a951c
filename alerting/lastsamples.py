"""What every tag showed last, in which frame, and when.

Hearing a batch costs next to nothing: it waits as it came until somebody asks or enough wait. Then they are laid into
the columns newest first, so that of many samples of a tag the last alone is ever written.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alerting.lastframes import LastFrames
from alerting.observed import FrameKey, Observed
from alerting.phases import CODE_STALE, CODE_UNHEARD, UNCERTAIN_FROM

WAITING_SAMPLES_MIN = 65_536  # how many may wait, at least
WAITING_PER_TAG = 8  # and how many for each tag: the more, the less often anything is written
WAITING_BATCHES_MAX = 2_048
PIECE_SAMPLES = 8_192  # laid at once, so that a column of them stays in quick memory

Columns = dict[str, NDArray[Any]]


class _Told(NamedTuple):
    """n samples that wait, as `Observed` has them, and the engine time at which they came."""

    engine_ms: int
    tag: NDArray[np.int32]
    value: NDArray[np.float64]
    code: NDArray[np.uint8]
    source_ms: NDArray[np.int64]
    frame: NDArray[np.int32]
    frames: tuple[FrameKey, ...]

    def parted(self, at: int) -> tuple[_Told, _Told]:
        """Return the samples before place `at` and those from there on."""
        return (_Told(self.engine_ms, self.tag[:at], self.value[:at], self.code[:at], self.source_ms[:at],
                      self.frame[:at], self.frames),
                _Told(self.engine_ms, self.tag[at:], self.value[at:], self.code[at:], self.source_ms[at:],
                      self.frame[at:], self.frames))


class LastSamples:
    """The last sample of each of `tags` tags; before the first one BAD/UNKNOWN, in frame (0, 0) seen at `engine_ms`."""

    def __init__(self, tags: int, engine_ms: int) -> None:
        self._value = np.full(tags, np.nan)
        self._code = np.full(tags, CODE_UNHEARD, np.uint8)
        self._source_ms = np.zeros(tags, np.int64)
        self._frames = LastFrames(tags, engine_ms)
        self._waiting: list[_Told] = []
        self._waiting_samples = 0
        self._waiting_samples_max = max(WAITING_SAMPLES_MIN, WAITING_PER_TAG * tags)

    @property
    def value(self) -> NDArray[np.float64]:
        """float64[tags], in the tag's unit; NaN where BAD. Read it, and copy what is to be kept."""
        self._lay()
        return self._value

    @property
    def code(self) -> NDArray[np.uint8]:
        """uint8[tags], quality codes. Read it, and copy what is to be kept."""
        self._lay()
        return self._code

    @property
    def source_ms(self) -> NDArray[np.int64]:
        """int64[tags], UTC epoch milliseconds at the instrument; 0 before the first sample. To be read only."""
        self._lay()
        return self._source_ms

    def note(self, engine_ms: int, observed: Observed, value: NDArray[np.float64], code: NDArray[np.uint8]) -> None:
        """Note a batch: of several samples of one tag the last stays.

        The columns are kept for a while: nobody may write to them any more. Tags have been checked.

        Args:
            value, code: of the samples, where they are to be others than those of `observed`; a value that is BAD
                becomes NaN, whatever it is.
        """
        waiting = self._waiting
        waiting.append(_Told(engine_ms, observed.tag, value, code, observed.source_ms, observed.frame, observed.frames))
        self._waiting_samples += len(value)
        if self._waiting_samples >= self._waiting_samples_max or len(waiting) >= WAITING_BATCHES_MAX:
            newer = sum(len(told.tag) for told in waiting[len(waiting) // 2 :])
            self._lay(min(newer, self._waiting_samples_max // 2))

    def silence(self, tag: int) -> None:
        """A tag has fallen silent: BAD/STALE, without a value; time and frame stay those of its last sample."""
        self._lay()
        self._value[tag], self._code[tag] = np.nan, CODE_STALE

    def key(self, tag: int) -> FrameKey:
        """Return the key of the frame a tag was last in; (0, 0) when it was never heard."""
        self._lay()
        return self._frames.key(tag)

    def seen_ms(self, tag: int) -> int:
        """Return the engine time at which a tag was last heard."""
        self._lay()
        return self._frames.seen_ms(tag)

    def seen_engine_ms(self) -> NDArray[np.int64]:
        """Return int64[tags]: engine time at which each tag was last heard."""
        self._lay()
        return self._frames.seen_engine_ms()

    def columns(self) -> Columns:
        """Return copies of all columns, by the names they have in a dump."""
        self._lay()
        stream, sequence, seen_engine_ms = self._frames.columns()
        return {"value": self._value.copy(), "code": self._code.copy(), "source_ms": self._source_ms.copy(),
                "last_stream": stream, "last_sequence": sequence, "seen_engine_ms": seen_engine_ms}

    def load(self, columns: Columns) -> None:
        """Replace everything by what `columns` returned."""
        self._waiting, self._waiting_samples = [], 0
        self._value[:], self._code[:], self._source_ms[:] = columns["value"], columns["code"], columns["source_ms"]
        self._frames.load(columns["last_stream"], columns["last_sequence"], columns["seen_engine_ms"])

    # -- from what waits into the columns ------------------------------------------------------------------------

    def _lay(self, keep: int = 0) -> None:
        """Lay what waits into the columns, but for the newest, at most `keep` samples: those wait on.

        They tell which tags need not be written with what is older, which most often is all of them.
        """
        if not self._waiting:
            return
        waiting, self._waiting, self._waiting_samples = self._waiting, [], 0
        newest: list[list[_Told]] = []
        unwritten: NDArray[np.bool_] | None = None  # tags of which nothing newer is known; None is all of them
        while waiting:
            wanted = keep - self._waiting_samples
            piece = _newest(waiting, min(PIECE_SAMPLES, wanted) if wanted > 0 else PIECE_SAMPLES)
            tag = np.concatenate([told.tag for told in piece], dtype=np.intp)
            if wanted > 0:
                newest.append(piece)
                self._waiting_samples += len(tag)
            else:
                places = None if unwritten is None else unwritten.take(tag).nonzero()[0]
                if places is None or len(places):
                    self._write(piece, tag, None if places is None or len(places) == len(tag) else places)
            if not waiting:
                break
            if unwritten is None:
                unwritten = np.ones(len(self._code), np.bool_)
            unwritten[tag] = False
            if not np.count_nonzero(unwritten):
                break  # whatever is older has been replaced
        self._waiting = [told for piece in reversed(newest) for told in piece]

    def _write(self, piece: list[_Told], tag: NDArray[np.intp], places: NDArray[np.intp] | None) -> None:
        """Write the samples at these places of a piece, or all, in their order; the last of a tag stays."""
        value, code, source_ms, slot = self._laid(piece)
        if places is not None:
            tag, value, code, source_ms, slot = tag[places], value[places], code[places], source_ms[places], slot[places]
        bad = (code < UNCERTAIN_FROM).nonzero()[0]
        if np.count_nonzero(np.isnan(value[bad])) < len(bad):
            value = np.where(code < UNCERTAIN_FROM, np.nan, value)
        self._value[tag], self._code[tag], self._source_ms[tag] = value, code, source_ms
        self._frames.slot[tag] = slot

    def _laid(self, piece: list[_Told]) -> tuple[NDArray[Any], ...]:
        """Return value, code, source time and slot of the frame of a piece's samples."""
        frames = self._frames
        frames.reserve(sum(len(told.frames) for told in piece))
        slots = []
        for told in piece:
            first, last = int(told.frame[0]), int(told.frame[-1])
            base = frames.add(told.engine_ms, told.frames[first : last + 1])
            slots.append(told.frame + np.int32(base - first))
        return (_joined([told.value for told in piece]), _joined([told.code for told in piece]),
                _joined([told.source_ms for told in piece]), _joined(slots))


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Return the columns end to end; a single one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _newest(waiting: list[_Told], samples_max: int) -> list[_Told]:
    """Take the newest samples off the end of what waits, 1 to `samples_max`, oldest first."""
    piece: list[_Told] = []
    samples = 0
    while waiting and (not samples or samples + len(waiting[-1].tag) <= samples_max):
        told = waiting.pop()
        if len(told.tag) > samples_max:
            older, told = told.parted(len(told.tag) - samples_max)
            waiting.append(older)
        piece.append(told)
        samples += len(told.tag)
    piece.reverse()
    return piece
