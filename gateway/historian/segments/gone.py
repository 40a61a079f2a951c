"""What has left the ledger and is in no manifest: gone, unless a backup of the historian brings it back.

The ledger remembers the highest position whose rows it let go, in the transaction that removed them (`pruned_pos`). Where
the chain of manifests does not reach from its beginning to there, somebody has taken them away: never calm, never no data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.historian.segments.folder import Ancestor, Problem, Snapshot
from gateway.historian.segments.names import MANIFESTS, day_ms

PRUNED_POS: Final = "pruned_pos"
PRUNED_FROM_MS: Final = "pruned_from_ms"
PRUNED_TO_MS: Final = "pruned_to_ms"
HOLES_MAX: Final = 50

Rows = Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]]
"""Asks the ledger: SQL and its parameters in, rows out."""


def pruned_pos(rows: Rows) -> int:
    """Return the highest log position whose rows the ledger let go, 0 if none yet."""
    return _number(rows, PRUNED_POS)


def ancestry_of(rows: Rows) -> tuple[Ancestor, ...]:
    """Return which ledgers this one was restored from, nearest first, as core noted it."""
    found = rows("SELECT value FROM meta WHERE key = 'ancestry'", ())
    return tuple(Ancestor(str(owner), int(pos)) for owner, pos in json.loads(found[0][0])) if found else ()


def gone(taken: Snapshot, ledger_id: str, ancestry: Sequence[Ancestor], rows: Rows, pruned: int) -> list[Problem]:
    """Return every stretch of positions up to `pruned` that no manifest holds, with when its rows were received.

    Those times are of the rows that the ledger still has around it, so both ends may lie a little too far out. What came
    late has older times of its own, which nobody knows any more. A stretch that retention would have removed is left out.
    """
    found = []
    holes = taken.missing_upto(ledger_id, ancestry, pruned)
    if len(holes) > HOLES_MAX:  # the last of those told reaches over the rest
        holes = [*holes[: HOLES_MAX - 1], (holes[HOLES_MAX - 1][0], holes[-1][1])]
    for first, last in holes:
        from_ms, to_ms = _received(rows, first, last)
        if to_ms and taken.kept_from and to_ms < day_ms(taken.kept_from):
            continue
        why = f"log positions {first} to {last} have left the ledger and no manifest holds them; restore the historian from a backup"
        found.append(Problem(f"{MANIFESTS} of {first} to {last}", "", from_ms, to_ms, why))
    return found


def _received(rows: Rows, first: int, last: int) -> tuple[int, int]:
    """Return when [first, last] was received; 0, 0: unknown."""
    before = rows("SELECT received_ms FROM log WHERE pos < ? AND received_ms > 0 ORDER BY pos DESC LIMIT 1", (first,))
    after = rows("SELECT received_ms FROM log WHERE pos > ? AND received_ms > 0 ORDER BY pos LIMIT 1", (last,))
    from_ms, to_ms = _number(rows, PRUNED_FROM_MS), _number(rows, PRUNED_TO_MS)
    lo_ms = max(from_ms, int(before[0][0])) if before else from_ms
    hi_ms = min(to_ms, int(after[0][0])) if after and to_ms else to_ms
    return (lo_ms, hi_ms) if lo_ms <= hi_ms else (hi_ms, lo_ms)  # a clock that was set back


def _number(rows: Rows, key: str) -> int:
    found = rows("SELECT value FROM meta WHERE key = ?", (key,))
    return int(found[0][0]) if found and str(found[0][0]).isdecimal() else 0
