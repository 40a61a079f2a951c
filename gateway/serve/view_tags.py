"""Judges every tag: what its newest sample says, whether anything still vouches for it, what alarms stand on it.

The rule is "no false calm": GOOD needs a GOOD sample, a living node and device, a core that turns, a ledger that can be
read, and a sample within the tag's silence limit. Silence is counted in core's engine time, as the engine counts it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from alerting import Category
from config import SiteConfig
from gateway.serve.models import QualityWord, TagNow
from gateway.serve.tail import NEVER, TagColumns, Tail
from gateway.serve.view_alarms import Standing
from gateway.serve.view_heartbeat import Heartbeat
from wire import Quality, Reason, quality_code, quality_of, reason_of

StaleCause = Literal["", "silent", "unwatched", "device_dead", "node_dead", "core", "ledger"]
CAUSES: Final[tuple[StaleCause, ...]] = get_args(StaleCause)
_SILENT, _UNWATCHED, _DEVICE_DEAD, _NODE_DEAD, _CORE, _LEDGER = range(1, 7)
STALE_CODE: Final = quality_code(Quality.BAD, Reason.STALE)
DOUBTED_CODE: Final = quality_code(Quality.UNCERTAIN, Reason.CONFIG)
_WORDS: Final[dict[int, QualityWord]] = {Quality.GOOD: "GOOD", Quality.UNCERTAIN: "UNCERTAIN", Quality.BAD: "BAD"}
_NO_ALARMS: Final[tuple[tuple[str, ...], int, bool]] = ((), 0, False)
_REASONS: Final = {int(reason): reason.name for reason in Reason}


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Every tag at one moment, in the site's order.

    Attributes:
        pos: int64[n], log position of the newest current sample. code: uint8[n], what its quality comes to.
        cause: uint8[n], index into CAUSES. known: bool[n], a GOOD sample was seen. alarms: int64[n], changes with the alarms.
    """

    names: tuple[str, ...]
    pos: NDArray[np.int64]
    code: NDArray[np.uint8]
    cause: NDArray[np.uint8]
    known: NDArray[np.bool_]
    alarms: NDArray[np.int64]

    def tag_ids(self) -> frozenset[str]:
        """Return every tag."""
        return frozenset(self.names)

    def changed_since(self, before: Judged) -> frozenset[str]:
        """Return the tags that are otherwise than before."""
        changed = (
            (self.pos != before.pos) | (self.code != before.code) | (self.cause != before.cause)
            | (self.known != before.known) | (self.alarms != before.alarms)
        )  # fmt: skip
        return frozenset(self.names[at] for at in np.flatnonzero(changed).tolist())

    def counts(self) -> tuple[int, int, int, int]:
        """Return how many tags are GOOD, UNCERTAIN, BAD, UNKNOWN."""
        quality = quality_of(self.code[self.known])
        good, uncertain = int((quality == Quality.GOOD).sum()), int((quality == Quality.UNCERTAIN).sum())
        return good, uncertain, len(quality) - good - uncertain, len(self.known) - len(quality)


class TagRows:
    """What does not change of every tag, and the alarms that stand on it."""

    def __init__(self, site: SiteConfig) -> None:
        count = len(site.tags)
        self._tags = site.tags
        self._names = tuple(tag.id for tag in site.tags)
        self._index = site.tag_index
        self._stale_ms = np.array([tag.stale_after_s * 1000 for tag in site.tags], np.float64)
        self._silence_ms = self._stale_ms.astype(np.int64).tolist()
        self._sources = [site.hazard_source_of.get(tag.equipment, "") for tag in site.tags]
        self._edges = [site.edge_of.get(tag.id, "") for tag in site.tags]
        self._ranges = [tag.span() for tag in site.tags]
        self._of_node = {
            edge.id: np.array([at for at, name in enumerate(self._edges) if name == edge.id], np.int64) for edge in site.edges
        }
        self._of_device = {
            (edge.id, device.id): np.array([self._index[point.tag] for point in device.points], np.int64)
            for edge in site.edges for device in edge.devices
        }  # fmt: skip
        self._alarms: dict[int, tuple[tuple[str, ...], int, bool]] = {}
        self._doubted: list[str] = []
        self._alarm_mark = np.zeros(count, np.int64)

    def count_of(self, edge: str) -> int:
        """Return how many tags an edge reads."""
        return len(self._of_node[edge])

    def know_alarms(self, standing: Standing) -> None:
        """Take the standing alarms over: ids, gravest grade, and whether one is of the value (not of a fault)."""
        found = {}
        for tag in standing.subjects():
            at = self._index.get(tag)
            alarms = standing.of(tag)
            if at is not None and alarms:
                ids = tuple(alarm.id for alarm in alarms)
                found[at] = (ids, int(alarms[0].grade), any(alarm.category is Category.PROCESS for alarm in alarms))
        for at in found.keys() | self._alarms.keys():
            if found.get(at) != self._alarms.get(at):
                self._alarm_mark[at] += 1
        self._alarms = found
        self._doubted = [edge for edge in self._of_node if "IDENTITY" in standing.conditions_of(edge)]

    def judge(self, tail: Tail, heartbeat: Heartbeat, *, core_ok: bool, ledger_ok: bool) -> Judged:
        """Return what every tag comes to now."""
        tags = tail.tags
        cause = np.zeros(len(self._names), np.uint8)
        cause[heartbeat.engine_ms() - tags.engine_ms > self._stale_ms] = _SILENT
        cause[tags.pos <= tail.watched_from] = _UNWATCHED
        for name, node in tail.nodes.items():
            for device, dead_pos in node.device_dead_pos.items():
                own = self._of_device.get((name, device))
                if own is not None:
                    cause[own[tags.pos[own] <= dead_pos]] = _DEVICE_DEAD
            if node.dead_pos != NEVER:
                own = self._of_node[name]
                cause[own[tags.pos[own] <= node.dead_pos]] = _NODE_DEAD
        if not core_ok:
            cause[:] = _CORE
        if not ledger_ok:
            cause[:] = _LEDGER
        heard = tags.pos != NEVER
        cause[~heard] = 0
        code = tags.code.copy()
        for edge in self._doubted:  # two boxes report under its id: a value may be the other plant's
            own = self._of_node[edge]
            code[own[quality_of(code[own]) == Quality.GOOD]] = DOUBTED_CODE
        code[(cause > 0) & (quality_of(code) != Quality.BAD)] = STALE_CODE
        return Judged(
            self._names, tags.pos.copy(), code, cause, tags.good_pos != NEVER, self._alarm_mark.copy()
        )

    def now(self, places: Sequence[int], tags: TagColumns, judged: Judged, now_ms: int) -> list[TagNow]:
        """Return the tags at these places, each with everything that belongs to it."""
        at = np.array(places, np.int64)
        columns = (  # taken out of numpy a column at a time: this is most of what serve has to do
            judged.pos, judged.known, judged.code, judged.cause, tags.value, tags.raw, tags.source_ms, tags.received_ms,
            tags.good_value, tags.good_ms,
        )  # fmt: skip
        rows = zip(places, *(column[at].tolist() for column in columns), strict=True)
        return [self._now(now_ms, *row) for row in rows]

    def _now(
        self, now_ms: int, at: int, pos: int, known: bool, code: int, cause: int, value: float, raw: float, source_ms: int,
        received_ms: int, good_value: float, good_ms: int,
    ) -> TagNow:  # fmt: skip
        tag, span = self._tags[at], self._ranges[at]
        heard = pos != NEVER
        quality: QualityWord = _WORDS.get(quality_of(code), "BAD") if heard and known else "UNKNOWN"
        ids, worst, of_value = self._alarms.get(at, _NO_ALARMS)
        return TagNow(
            tag.id, tag.name.zh, tag.name.en, tag.label, tag.unit or "",
            value=_finite(value) if heard else None,
            raw=_finite(raw) if heard else None,
            quality=quality,
            reason=_reason(code) if heard else "",
            stale_cause=CAUSES[cause],
            code=code,
            source_ms=source_ms if heard else None,
            received_ms=received_ms if heard else None,
            age_ms=max(0, now_ms - received_ms) if heard else None,
            last_good_value=_finite(good_value) if known else None,
            last_good_ms=good_ms if known else None,
            held=of_value and quality != "GOOD",
            alarms=ids, worst_grade=worst,
            equipment=tag.equipment, hazard_source=self._sources[at], edge=self._edges[at],
            range_low=span.low, range_high=span.high,
            stale_after_ms=self._silence_ms[at], planned=tag.planned,
        )  # fmt: skip


def _finite(value: float) -> float | None:
    """Return a number as JSON can say it: None for NaN."""
    return value if math.isfinite(value) else None


@cache
def _reason(code: int) -> str:
    reason = reason_of(code)
    return "" if reason == Reason.NONE else _REASONS.get(reason, Reason.UNKNOWN.name)
