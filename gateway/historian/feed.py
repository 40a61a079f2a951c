"""How far a time-series store has been fed, and what it is sent next. Pure: facts go in stamped with time.

Log positions up to `live` are in the store, but for the holes. What is new goes first: when the oldest row not sent is older
than `LIVE_BEHIND_MS`, all older than `LIVE_FRESH_MS` becomes a hole, and dashboards show the present while holes fill, paced.
A cursor moves only behind an answer that promises to keep what was sent; sending again does no harm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import pairwise
from typing import Any, Final

FORMAT: Final = 1
LIVE_BEHIND_MS: Final = 30_000
LIVE_FRESH_MS: Final = 5_000
HOLES_MAX: Final = 64
FAR: Final = 1 << 62
"""Beyond every log position."""
BACKOFF_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Hole:
    """Log positions first..last of a ledger that the store has not got. `since_ms`: when the oldest came, as far as known.

    `stem`, `row`: the segment that holds `first` was sent up to this row of its files, empty and 0 at its beginning.
    """

    ledger: str
    first: int
    last: int
    since_ms: int
    stem: str = ""
    row: int = 0

    def __len__(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Cursors:
    """How far one store is. `live`: highest log position of `ledger` that was reached; `transition`: row of the journal.

    `parked`: what our own segments hold and could not be read; holes again once it is time to try.
    `witnesses`: tag and source time of samples that the store has shown; see `feed_witness`.
    `anew_ms`: when it was last fed from the beginning because it showed none of them; 0: never.
    """

    ledger: str
    live: int
    holes: tuple[Hole, ...] = ()
    transition: int = 0
    parked: tuple[Hole, ...] = ()
    witnesses: tuple[tuple[str, int], ...] = ()
    anew_ms: int = 0

    @property
    def missing(self) -> int:
        """Log positions in the holes, the parked ones too."""
        return sum(map(len, (*self.holes, *self.parked)))

    def to_text(self) -> str:
        """Return JSON."""
        return json.dumps({
            "format": FORMAT, "ledger": self.ledger, "live": self.live, "holes": [astuple(hole) for hole in self.holes],
            "transition": self.transition, "parked": [astuple(hole) for hole in self.parked],
            "witnesses": self.witnesses, "anew_ms": self.anew_ms,
        }, sort_keys=True) + "\n"  # fmt: skip

    @classmethod
    def of_text(cls, text: str) -> Cursors:
        """Return what `to_text` wrote.

        Raises:
            ValueError: it did not.
        """
        try:
            loaded: Any = json.loads(text)
            if loaded["format"] != FORMAT:
                raise ValueError(f"format {loaded['format']}, this version reads {FORMAT}")
            found = cls(
                str(loaded["ledger"]), int(loaded["live"]), _holes(loaded["holes"]), int(loaded["transition"]),
                _holes(loaded.get("parked", ())),
                tuple((str(tag), int(at_ms)) for tag, at_ms in loaded.get("witnesses", ())), int(loaded.get("anew_ms", 0)),
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a cursor file ({type(error).__name__})") from None
        odd = any(not 1 <= hole.first <= hole.last for hole in (*found.holes, *found.parked))
        if found.live < 0 or found.transition < 0 or odd:
            raise ValueError("positions that cannot be")
        return found


def _holes(loaded: Any) -> tuple[Hole, ...]:
    return tuple(
        Hole(str(ledger), int(first), int(last), int(since), str(stem), int(row))
        for ledger, first, last, since, stem, row in loaded
    )


def limits(ledger: str, ancestry: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Return up to which position a ledger's rows are those of another: FAR of itself, then of each it was restored from."""
    limit, found = FAR, {ledger: FAR}
    for name, pos in ancestry:
        limit = min(limit, pos)
        found.setdefault(name, limit)
    return found


def begun(
    ledger: str, ancestry: Sequence[tuple[str, int]], head: int, sealed: Mapping[str, int], now_ms: int
) -> Cursors:
    """Return where a store begins that was never fed: everything the gateway holds is missing, the present comes first.

    Args:
        sealed: up to where segments hold each ledger; beyond a restore they hold what it lost, and of strange ones all there is.
    """
    shared = limits(ledger, ancestry)
    tails = _tails(sealed, {name: shared.get(name, 0) for name in sealed}, now_ms)
    ends = [(name, min(limit, head)) for name, limit in shared.items()]
    # Each ledger speaks for what lies above its ancestor's end.
    own = [
        Hole(name, below + 1, upto, now_ms) for (name, upto), (_, below) in pairwise([*ends, ("", 0)]) if below < upto
    ]
    return Cursors(ledger, head, (*tails, *reversed(own)))


def renewed(
    cursors: Cursors, ledger: str, ancestry: Sequence[tuple[str, int]], head: int, sealed: Mapping[str, int], now_ms: int
) -> Cursors:
    """Return the cursors for a ledger that was restored from the one they stand on, or else for a strange one; see `begun`."""
    if ledger == cursors.ledger:
        return cursors
    shared = limits(ledger, ancestry)
    if cursors.ledger not in shared:
        return begun(ledger, ancestry, head, sealed, now_ms)
    upto = shared[cursors.ledger]
    # Between the one that was fed and this one others may have come and gone.
    names = list(shared)
    between = {name: shared[name] for name in names[1 : names.index(cursors.ledger)]}
    tails = _tails(sealed, {**between, cursors.ledger: max(cursors.live, upto)}, now_ms)
    live = min(cursors.live, upto, head)
    return replace(cursors, ledger=ledger, live=live, holes=(*cursors.holes, *tails), transition=0)


def _tails(sealed: Mapping[str, int], known: Mapping[str, int], now_ms: int) -> tuple[Hole, ...]:
    """Return what segments hold of ledgers behind what is known of each."""
    return tuple(Hole(name, pos + 1, sealed[name], now_ms) for name, pos in sorted(known.items()) if pos < sealed.get(name, 0))


def is_behind(oldest_ms: int | None, now_ms: int) -> bool:
    """Whether the oldest row not sent is too old to be the present."""
    return oldest_ms is not None and now_ms - oldest_ms > LIVE_BEHIND_MS


def left_behind(cursors: Cursors, upto: int, since_ms: int) -> Cursors:
    """Return the cursors with what waits up to a position as a hole, so that what is newer goes first."""
    if upto <= cursors.live:
        return cursors
    hole = Hole(cursors.ledger, cursors.live + 1, upto, since_ms)
    return replace(cursors, live=upto, holes=_bounded((*cursors.holes, hole)))


def sent(cursors: Cursors, upto: int) -> Cursors:
    """Return the cursors after the present was sent up to a position."""
    return replace(cursors, live=max(cursors.live, upto))


def filled(cursors: Cursors, upto: int, stem: str = "", row: int = 0) -> Cursors:
    """Return the cursors after the first hole was sent up to a position, and of the next segment up to a row."""
    hole, *rest = cursors.holes
    if upto >= hole.last:
        return replace(cursors, holes=tuple(rest))
    return replace(cursors, holes=(replace(hole, first=max(hole.first, upto + 1), stem=stem, row=row), *rest))


def put_off(cursors: Cursors, hole: Hole) -> Cursors:
    """Return the cursors with a part of a hole kept for later; of one segment the lowest row, all behind it is sent again."""
    for at, other in enumerate(cursors.parked):
        if (other.ledger, other.first, other.last, other.stem) == (hole.ledger, hole.first, hole.last, hole.stem):
            lowest = replace(other, since_ms=min(other.since_ms, hole.since_ms), row=min(other.row, hole.row))
            return replace(cursors, parked=(*cursors.parked[:at], lowest, *cursors.parked[at + 1 :]))
    parked = sorted((*cursors.parked, hole), key=_place)
    while len(parked) > HOLES_MAX:
        near = [
            (after.first - before.last, at) for at, (before, after) in enumerate(pairwise(parked)) if before.ledger == after.ledger
        ]  # fmt: skip
        if not near:
            break
        at = min(near)[1]
        before, after = parked[at : at + 2]
        since_ms = min(before.since_ms, after.since_ms)
        parked[at : at + 2] = [Hole(before.ledger, before.first, max(before.last, after.last), since_ms)]
    return replace(cursors, parked=tuple(parked))


def tried_again(cursors: Cursors) -> Cursors:
    """Return the cursors with all that was put off as holes again."""
    return replace(cursors, holes=(*cursors.holes, *cursors.parked), parked=())


def _place(hole: Hole) -> tuple[str, int, int]:
    return hole.ledger, hole.first, hole.last


def wait_after(failures: int, retry_after_s: float | None) -> float:
    """Return how long to leave a store alone after so many failures in a row; at least as long as it asked for."""
    own = BACKOFF_S[min(failures, len(BACKOFF_S)) - 1]
    return own if retry_after_s is None else max(own, retry_after_s)


class Pace:
    """When the next rows of a hole may go, so that no more than so many go in a second; idle time is not saved up."""

    def __init__(self, rows_per_s: float) -> None:
        self._rows_per_s, self._next_s = rows_per_s, 0.0

    def wait_s(self, now_s: float) -> float:
        """Return how long to wait."""
        return max(0.0, self._next_s - now_s)

    def took(self, rows: int, now_s: float) -> None:
        """Count rows that were sent."""
        self._next_s = max(self._next_s, now_s) + rows / self._rows_per_s


def _bounded(holes: tuple[Hole, ...]) -> tuple[Hole, ...]:
    """Join holes that touch; of too many the two nearest: what lies between them is sent again, which does no harm."""
    joined: list[Hole] = []
    for hole in holes:
        if joined and joined[-1].ledger == hole.ledger and joined[-1].last + 1 == hole.first and not hole.stem:
            joined[-1] = replace(joined[-1], last=hole.last)
        else:
            joined.append(hole)
    while len(joined) > HOLES_MAX:
        gaps = [
            (after.first - before.last, at) for at, (before, after) in enumerate(pairwise(joined))
            if before.ledger == after.ledger and before.last < after.first
        ]  # fmt: skip
        if not gaps:
            break
        at = min(gaps)[1]
        joined[at : at + 2] = [replace(joined[at], last=joined[at + 1].last)]
    return tuple(joined)
