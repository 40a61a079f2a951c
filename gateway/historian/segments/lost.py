"""Data files whose manifest is not there any more: nothing is deleted for that. They go to `lost/`, and the status names them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from gateway.historian.samples import DAY_MS
from gateway.historian.segments.durable import make_folder, publish
from gateway.historian.segments.folder import Problem
from gateway.historian.segments.names import SAMPLES, Stem, day_ms, is_day, parse_data_name

log = logging.getLogger(__name__)

LOST: Final = "lost"
TOLD_MAX: Final = 100


def put_away(folder: Path, strays: Iterable[tuple[Path, Stem]]) -> None:
    """Move files out of the way of what is sealed next, under the same names below `lost/`.

    Raises:
        OSError: the disk would not; do it again.
    """
    for path, stem in strays:
        target = folder / LOST / path.relative_to(folder)
        make_folder(target.parent)
        log.error("historian: no manifest names %s any more (%s); it is put under %s/", path.name, _what(stem), LOST)
        publish(path, target)


def lost_problems(folder: Path) -> Iterator[Problem]:
    """Yield what lies there, until somebody has taken it away."""
    found = sorted((folder / LOST / SAMPLES).glob("????-??-??/*.parquet"))
    for path in found[:TOLD_MAX]:
        stem, day = parse_data_name(path.name), path.parent.name
        if stem is not None and is_day(day):
            why = f"no manifest names it any more ({_what(stem)}); restore the historian from a backup, or keep the file elsewhere"
            yield Problem(str(path.relative_to(folder)), day, day_ms(day), day_ms(day) + DAY_MS - 1, why)


def _what(stem: Stem) -> str:
    return f"part {stem.first} of load {stem.owner}" if stem.kind == "load" else f"log positions {stem.first} to {stem.last}"
