"""Sparkplug's own counters and the host's way with messages that come out of order.

Pure: time comes in as milliseconds of a clock that never goes back. `ReorderBuffer` is for nodes that are not
ours; a frame that carries our stream marks is never held back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

SEQ_END: Final = 256
BDSEQ_END: Final = 256


def next_seq(seq: int) -> int:
    """Return the sequence number of the message after this one: 255 is followed by 0."""
    return (seq + 1) % SEQ_END


def next_bdseq(bdseq: int) -> int:
    """Return the birth-death number of the next MQTT session: 255 is followed by 0."""
    return (bdseq + 1) % BDSEQ_END


@dataclass(frozen=True, slots=True)
class Expired(Generic[T]):
    """A reorder timeout that ran out: what was held, in sequence order, and that a rebirth is due."""

    held: tuple[T, ...]


class ReorderBuffer(Generic[T]):
    """Puts the messages of a foreign node back in order, waiting at most `timeout_ms` for a missing one."""

    __slots__ = ("_deadline_ms", "_expected", "_given_up", "_held", "_timeout_ms", "late")

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._expected: int | None = None
        self._held: dict[int, T] = {}
        self._deadline_ms: int | None = None
        self._given_up: set[int] = set()
        self.late = 0  # messages dropped because they came after their place was given up, over all sessions

    @property
    def deadline_ms(self) -> int | None:
        """When the missing message is given up; None while none is missing."""
        return self._deadline_ms

    def __len__(self) -> int:
        return len(self._held)

    def birth(self, seq: int = 0) -> None:
        """Begin a session with an NBIRTH; what was held is dropped, for the birth states it anew."""
        self._reset(next_seq(seq))

    def death(self) -> None:
        """End the session."""
        self._reset(None)

    def offer(self, seq: int, message: T, now_ms: int) -> list[T]:
        """Take a message in; return those that are now in order, oldest first.

        Outside a session nothing is kept or returned (the host asks for a birth). A number that is held
        already is a repetition and is dropped; so at most 255 messages are ever held. One that was given up
        is dropped too, and counted in `late`: an old value must not stand as the present one.
        """
        if self._expected is None:
            return []
        if seq != self._expected:
            if seq in self._given_up and (self._expected - seq) % SEQ_END <= SEQ_END // 2:
                self._given_up.discard(seq)
                self.late += 1
                return []
            self._held.setdefault(seq, message)
            if self._deadline_ms is None:
                self._deadline_ms = now_ms + self._timeout_ms
            return []
        ready = [message]
        self._expected = next_seq(seq)
        self._given_up.discard(seq)
        while self._expected in self._held:
            ready.append(self._held.pop(self._expected))
            self._expected = next_seq(self._expected)
        # A further hole behind the one that just closed gets a full timeout of its own.
        self._deadline_ms = now_ms + self._timeout_ms if self._held else None
        return ready

    def expire(self, now_ms: int) -> Expired[T] | None:
        """Give up on the missing message once its time is over.

        Returns:
            None while there is still time; else what was held, which is passed on (a hole must not swallow
            what came after it) while the host asks for a rebirth. The session then goes on after the last
            one held.
        """
        if self._deadline_ms is None or now_ms < self._deadline_ms or self._expected is None:
            return None
        expected = self._expected
        order = sorted(self._held, key=lambda seq: (seq - expected) % SEQ_END)
        held = tuple([self._held[seq] for seq in order])
        last = order[-1]
        span = (last - expected) % SEQ_END
        missing = {(expected + step) % SEQ_END for step in range(span)}.difference(order)
        self._reset(next_seq(last))
        self._given_up = missing
        return Expired(held)

    def _reset(self, expected: int | None) -> None:
        self._expected = expected
        self._held.clear()
        self._given_up.clear()
        self._deadline_ms = None
