"""The stores that the contract runs on. One entry a store: how to run it, and which parts of the contract it can keep.

A store that cannot keep a part leaves it out of `parts`, with the reason beside it; its tests are then not made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from gateway.historian.memory import MemoryHistorian
from gateway.historian.segments.store import EmbeddedHistorian
from gateway.historian.store import Historian
from tests.historian.influx.running import VICTORIA_CANNOT, influxdb, victoria
from tests.stores import INFLUXD, VICTORIA

ALL: Final = frozenset({
    "exact",  # float64 values come back bit by bit
    "raw",  # the value before clamping comes back
    "bad",  # a sample without a value comes back as one
    "late",  # the mark of late samples comes back
    "latest",
    "windows",
    "silence",  # windows tell the longest silence
    "replace",  # of two writes at one moment the later counts
    "events",
    "digest",  # the rows of a day have the digest of what was written
    "names",  # any tag name comes back byte by byte
    "limits",
    "deadline",  # a question without time is a QueryTimeError
})  # fmt: skip

Make = Callable[[], AbstractContextManager[Historian]]
"""Opens a store that is empty; called once a test."""


@dataclass(frozen=True, slots=True)
class Store:
    """One store.

    Attributes:
        run: starts what it needs (a server, nothing) in a folder of its own, once a module, and gives `Make`.
        needs: the name of a server that must be installed, for `pytest.mark.needs`.
    """

    name: str
    run: Callable[[Path], AbstractContextManager[Make]]
    parts: frozenset[str] = ALL
    needs: str = ""


@contextmanager
def _memory(_: Path) -> Iterator[Make]:
    @contextmanager
    def make() -> Iterator[Historian]:
        yield MemoryHistorian()

    yield make


@contextmanager
def _embedded(folder: Path) -> Iterator[Make]:
    numbers = count()

    @contextmanager
    def make() -> Iterator[Historian]:
        with closing(EmbeddedHistorian(folder / str(next(numbers)) / "historian")) as store:
            yield store

    yield make


STORES: Final[list[Store]] = [
    Store("memory", _memory, ALL - {"deadline"}),
    Store("embedded", _embedded),
    Store("influxdb", influxdb, ALL, INFLUXD),
    Store("victoria-metrics", victoria, ALL - VICTORIA_CANNOT, VICTORIA),
]
