"""What retention has removed on purpose: days before one, of what was sealed when they went. Never of what came later.

A day alone would not do: what a clock that is wrong stamps with an old day, and what comes late, would count as removed
before anybody had it. See docs/decisions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.historian.segments.names import KEPT_FROM_NAME, Stem, is_day

OWNERS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class KeptFrom:
    """Files that leave before `day` were removed, if they were sealed at or before the place that `upto` has of their owner.

    Attributes:
        day: empty: nothing was ever removed.
        upto: by ledger id, and by `load:` and load id, the last position or part that was there then.
    """

    day: str = ""
    upto: Mapping[str, int] = field(default_factory=dict)

    def covers(self, stem: Stem, leaves: str) -> bool:
        """Whether a file of a stem was removed on purpose."""
        return leaves < self.day and stem.last <= self.upto.get(_owner(stem), -1)

    def moved(self, day: str, stems: Iterable[Stem]) -> KeptFrom:
        """Return what holds once days before `day` have gone, too, of these stems: all there are."""
        upto = dict(self.upto)
        for stem in stems:
            upto[_owner(stem)] = max(stem.last, upto.get(_owner(stem), -1))
        return KeptFrom(max(day, self.day), upto)

    def text(self, why: str, at_ms: int) -> str:
        """Return what the file says."""
        return json.dumps({"day": self.day, "upto": dict(self.upto), "why": why, "at_ms": at_ms}, sort_keys=True) + "\n"

    @classmethod
    def read(cls, folder: Path) -> KeptFrom:
        """Return what the folder's file says; one that is missing or damaged covers nothing: what is gone shows as missing."""
        try:
            loaded = json.loads((folder / KEPT_FROM_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return cls()
        day, upto = (loaded.get("day"), loaded.get("upto")) if isinstance(loaded, dict) else (None, None)
        if not isinstance(day, str) or not is_day(day):
            return cls()
        places = upto if isinstance(upto, dict) and len(upto) <= OWNERS_MAX else {}
        return cls(day, {owner: last for owner, last in places.items() if type(last) is int and last >= 0})


NOTHING_GONE: Final = KeptFrom()


def _owner(stem: Stem) -> str:
    return f"load:{stem.owner}" if stem.kind == "load" else stem.owner
