"""What nobody can vouch for and nobody may delete: it goes to `lost/`, and the status names it.

Below `lost/samples` and `lost/rollups` are data files whose manifest is not there any more. Below `lost/evidence` are
samples that were damaged when their day went, of a day that had alarms, and evidence that was damaged itself.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Final

from gateway.historian.samples import DAY_MS
from gateway.historian.segments.durable import make_folder, publish
from gateway.historian.segments.folder import LiveFile, Problem, Snapshot
from gateway.historian.segments.names import EVIDENCE, SAMPLES, Stem, day_ms, is_day, parse_data_name

log = logging.getLogger(__name__)

LOST: Final = "lost"
TOLD_MAX: Final = 100
ENDING: Final = ".parquet"

_AGAIN: Final = re.compile(r"\.[0-9]+\.parquet$")  # ends the name of what was put away under a name that was taken


def put_away(folder: Path, strays: Iterable[tuple[Path, Stem]]) -> None:
    """Move files out of the way of what is sealed next, under the same names below `lost/`, or `….2.parquet` and so on.

    Raises:
        OSError: the disk would not; do it again.
    """
    for path, stem in strays:
        target = _free(folder / LOST / path.relative_to(folder))
        log.error("historian: no manifest names %s any more (%s); it is put under %s/", path.name, _what(stem), LOST)
        publish(path, target)


def put_damaged_away(folder: Path, lives: Iterable[LiveFile]) -> None:
    """Move damaged samples that were to give evidence out of the way of retention.

    Raises:
        OSError: the disk would not; do it again.
    """
    for live in lives:
        path = live.samples(folder)
        if path.exists():
            target = _free(folder / LOST / EVIDENCE / live.file.day / path.name)
            log.error("historian: %s is damaged and of a day with alarms that goes now; it is put under %s/", path.name, LOST)
            publish(path, target)


def put_evidence_away(folder: Path, path: Path) -> None:
    """Move evidence that cannot be read any more out of the way of what is put aside of its day next.

    Raises:
        OSError: the disk would not; do it again.
    """
    target = _free(folder / LOST / EVIDENCE / path.stem / path.name)
    log.error("historian: evidence %s cannot be read any more; it is put under %s/", path.name, LOST)
    publish(path, target)


def lost_problems(folder: Path, taken: Snapshot) -> Iterator[Problem]:
    """Yield what lies there, until somebody has taken it away, or what it holds counts again."""
    found = []
    for top in (EVIDENCE, SAMPLES):
        paths = sorted((folder / LOST / top).glob("????-??-??/*.parquet"))
        counting = _Counting(taken) if paths and top == SAMPLES else ()
        for path in paths:
            name, day = _AGAIN.sub(ENDING, path.name), path.parent.name
            stem = parse_data_name(name)
            if not is_day(day):
                continue
            if top == EVIDENCE and name == day + ENDING:
                why = "it was evidence of a day and cannot be read any more; restore it from a backup, or keep the file elsewhere"
            elif stem is None or stem in counting:
                continue
            elif top == EVIDENCE:
                why = "it was damaged when its day went: what it has around alarms is not among the evidence; keep the file elsewhere"
            else:
                why = f"no manifest names it any more ({_what(stem)}); restore the historian from a backup, or keep the file elsewhere"
            found.append(Problem(str(path.relative_to(folder)), day, day_ms(day), day_ms(day) + DAY_MS - 1, why))
    yield from found[:TOLD_MAX]


def _free(path: Path) -> Path:
    """Return the path, or if it is taken one beside it, in a folder that is there: nothing that lies there is written over."""
    make_folder(path.parent)
    names = chain([path], (path.with_suffix(f".{number}{ENDING}") for number in count(2)))
    return next(each for each in names if not each.exists())


class _Counting:
    """Which ranges manifests that count hold, as seals or among what they packed; made in one look at all of them."""

    def __init__(self, taken: Snapshot) -> None:
        self._stems: set[Stem] = set()
        self._begins: dict[tuple[str, int], set[Stem]] = defaultdict(set)  # packs, by where one of their links begins
        self._ends: dict[tuple[str, int], set[Stem]] = defaultdict(set)
        for manifest in taken.manifests:
            self._stems.add(manifest.stem)
            for link in manifest.links:
                self._begins[manifest.stem.owner, link.first].add(manifest.stem)
                self._ends[manifest.stem.owner, link.last].add(manifest.stem)

    def __contains__(self, stem: Stem) -> bool:
        packs = self._begins.get((stem.owner, stem.first), set()) & self._ends.get((stem.owner, stem.last), set())
        return stem in self._stems or any(stem.inside(pack) for pack in packs)


def _what(stem: Stem) -> str:
    return f"part {stem.first} of load {stem.owner}" if stem.kind == "load" else f"log positions {stem.first} to {stem.last}"
