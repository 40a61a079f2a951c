"""The port `Historian` over InfluxDB: lines in, InfluxQL out of `/query`. Run on 1.6; 2.x and 3 Core by their documentation.

InfluxDB keeps one point a tag and millisecond and merges fields: what a later point does not have stays from the earlier
one. So a row is read by its quality: BAD has no value, and only UNCERTAIN has a raw value. A mark `late` stays once set.
"""

# ruff: noqa: S608 - every text in a query goes through `quoted` or `identifier`, and is tested against a real server

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from config import TimeSeriesStoreConfig
from gateway.historian.influx.answers import Refused, away, is_away, refusal, told
from gateway.historian.influx.bounded import DeadlineError
from gateway.historian.influx.http import AnswerError, Link
from gateway.historian.influx.line import (
    ALARMS,
    ID_FIELDS,
    POINT,
    SAMPLES,
    TIME_MS_MAX,
    event_lines,
    id_of,
    name_of,
    named,
    sample_lines,
)  # fmt: skip
from gateway.historian.influx.writing import store_lines
from gateway.historian.limits import check_latest, check_range, check_width, out_of_time, too_many
from gateway.historian.samples import DAY_MS, Samples, concatenated
from gateway.historian.store import (
    DEADLINE_S_MAX,
    ROWS_MAX,
    AlarmEvent,
    HistorianError,
    Rejected,
    StoreAwayError,
    StoreRefusedError,
    Windows,
    Written,
    rejected_of,
)  # fmt: skip
from gateway.historian.windows import no_windows, windows_of
from wire import Quality, Reason, quality_code, quality_of

CHUNK_ROWS: Final = 10_000
LINES_AT_ONCE: Final = 20_000  # what is in memory as text
LATEST_AT_ONCE: Final = 200
DAY_AT_ONCE: Final = 32
YOUNG_MS: Final = 3_600_000
"""No store keeps less: what is of now and is dropped as too old tells of a clock that is wrong."""
EVENTS_AT_ONCE: Final = 5_000
_FIELDS: Final = '"value","quality","raw","late"'
_NO_QUALITY: Final = quality_code(Quality.UNCERTAIN, Reason.UNKNOWN)


class InfluxHistorian:
    """One database of one InfluxDB, for one site's tags. For one thread at a time."""

    def __init__(self, config: TimeSeriesStoreConfig, site: str, secret: str | None = None, base_dir: Path = Path()) -> None:
        """Nothing is connected yet.

        Raises:
            StoreRefusedError: `ca_file` cannot be used.
        """
        self.config, self.site = config, site
        self.link = Link(config, secret, base_dir)

    @property
    def name(self) -> str:
        """Its id in the configuration."""
        return self.config.id

    def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
        """Store samples, `batch_rows` in a request."""
        by = time.monotonic() + deadline_s
        rejected: list[Rejected] = []
        step = max(self.config.batch_rows, LINES_AT_ONCE)
        for at in range(0, len(samples), step):
            rejected += self._write(samples.take(slice(at, at + step)), by)
        return Written(len(samples) - len(rejected), tuple(rejected), durable=self.config.settle_s == 0)

    def _write(self, samples: Samples, by: float) -> list[Rejected]:
        made = sample_lines(samples, self.site)
        rejected = list(made.rejected)
        young = (samples.source_ms[made.row] > time.time() * 1000 - YOUNG_MS).tolist()
        for at in range(0, len(made.text), self.config.batch_rows):
            refused = store_lines(
                lambda body: self.link.write(body, "ms", by - time.monotonic()),
                made.text[at : at + self.config.batch_rows], self.name, young[at : at + self.config.batch_rows],
            )  # fmt: skip
            for line, reason in sorted(refused.items()):
                row = int(made.row[at + line])
                rejected.append(rejected_of(samples, row, reason))
        return rejected

    def write_events(self, events: Sequence[AlarmEvent], deadline_s: float = 30.0) -> None:
        """Store alarm transitions; one that the store will not take is left out: it is an annotation."""
        by = time.monotonic() + deadline_s
        lines = event_lines(events, self.site, id_tags=self.config.kind == "victoriametrics")
        for at in range(0, len(lines), EVENTS_AT_ONCE):
            store_lines(
                lambda body: self.link.write(body, "ns", by - time.monotonic()), lines[at : at + EVENTS_AT_ONCE], self.name
            )

    def latest(self, tags: Sequence[str], deadline_s: float = DEADLINE_S_MAX) -> Samples:
        """Return the newest sample of each tag."""
        check_latest(tags)
        by = time.monotonic() + deadline_s
        wanted = list(dict.fromkeys(tags))
        found: dict[str, Samples] = {}
        for at in range(0, len(wanted), LATEST_AT_ONCE):
            points = _any_of(wanted[at : at + LATEST_AT_ONCE])
            query = (
                f'SELECT last("quality"),"value","raw","late" FROM {self._from(SAMPLES)} WHERE {self._own()} AND ({points})'
                f' GROUP BY "{POINT}"'
            )
            for labels, rows in self._series(query, by, deadline_s):
                tag = name_of(labels.get(POINT, ""))
                found[tag] = _sample_rows(tag, [[at, value, quality, *rest] for at, quality, value, *rest in rows])
        return concatenated([found[tag] for tag in wanted if tag in found])

    def range(
        self, tag: str, from_ms: int, to_ms: int, rows_max: int = ROWS_MAX, deadline_s: float = DEADLINE_S_MAX
    ) -> Samples:
        """Return one tag's samples."""
        check_range(from_ms, to_ms)
        by = time.monotonic() + deadline_s
        if from_ms >= to_ms:
            return Samples.empty((tag,))
        query = (
            f"SELECT {_FIELDS} FROM {self._from(SAMPLES)} WHERE {self._own()} AND {_any_of([tag])} AND {_within(from_ms, to_ms)}"
            f' GROUP BY "{POINT}" LIMIT {rows_max + 1}'
        )
        parts = [part for _, part in self._samples(query, by, deadline_s)]
        if sum(map(len, parts)) > rows_max:
            raise too_many(rows_max)
        return concatenated(parts) if parts else Samples.empty((tag,))

    def windows(self, tag: str, from_ms: int, to_ms: int, width_ms: int, deadline_s: float = DEADLINE_S_MAX) -> Windows:
        """Return one tag's windows, made here of its samples: InfluxQL tells no times of extremes and no silences."""
        check_width(from_ms, to_ms, width_ms)
        own = self.range(tag, from_ms, to_ms, deadline_s=deadline_s)
        return windows_of(own, width_ms, from_ms).get(tag) or no_windows(width_ms)

    def events(self, from_ms: int, to_ms: int, tag: str | None = None, rows_max: int = 10_000) -> Sequence[AlarmEvent]:
        """Return alarm transitions, oldest first."""
        if from_ms >= to_ms:
            return []
        by = time.monotonic() + DEADLINE_S_MAX
        ids = ",".join(f'"{name}"' for name in (*ID_FIELDS, "alarm_id", "step_id"))
        point = "" if tag is None else f" AND {_any_of([tag])}"
        query = (
            f'SELECT "level","late","event","limit","{POINT}",{ids} FROM {self._from(ALARMS)} WHERE {self._own()}{point}'
            f" AND {_within(from_ms, to_ms)} LIMIT {rows_max + 1}"
        )
        found = [_event(row) for _, rows in self._series(query, by, DEADLINE_S_MAX) for row in rows]
        if len(found) > rows_max:
            raise too_many(rows_max)
        return sorted(found, key=lambda event: (event.at_ms, event.id))

    def days(self, deadline_s: float = 60.0) -> Sequence[int]:
        """Return the days held."""
        by = time.monotonic() + deadline_s
        ends: list[int] = []
        for which in ("first", "last"):
            query = f'SELECT {which}("quality") FROM {self._from(SAMPLES)} WHERE {self._own()}'
            ends += [int(row[0]) for _, rows in self._series(query, by, deadline_s) for row in rows]
        if not ends:
            return []
        query = (
            f'SELECT count("quality") FROM {self._from(SAMPLES)} WHERE {self._own()} AND {_within(min(ends), max(ends) + 1)}'
            " GROUP BY time(1d) fill(none)"
        )
        found = {int(row[0]) for _, rows in self._series(query, by, deadline_s) for row in rows if row[1]}
        return sorted(found)

    def day(self, day_ms: int, deadline_s: float = 600.0) -> Iterator[Samples]:
        """Yield a day, some tags in a piece."""
        by = time.monotonic() + deadline_s
        query = f'SHOW TAG VALUES FROM {self._from(SAMPLES)} WITH KEY = "{POINT}" WHERE {self._own()}'
        tags = sorted(name_of(row[1]) for _, rows in self._series(query, by, deadline_s) for row in rows)
        for at in range(0, len(tags), DAY_AT_ONCE):
            query = (
                f"SELECT {_FIELDS} FROM {self._from(SAMPLES)} WHERE {self._own()} AND ({_any_of(tags[at : at + DAY_AT_ONCE])})"
                f' AND {_within(day_ms, day_ms + DAY_MS)} GROUP BY "{POINT}"'
            )
            piece = concatenated([part for _, part in self._samples(query, by, deadline_s)])
            if len(piece):
                yield piece.in_order()

    def close(self) -> None:
        """Close the connections."""
        self.link.close()

    def ask(self, query: str, deadline_s: float) -> list[list[Any]]:
        """Run InfluxQL that makes or lists things; return the rows of its answer. Raises HistorianError."""
        by = time.monotonic() + deadline_s
        return [row for _, rows in self._series(query, by, deadline_s) for row in rows]

    # -- asking --

    def _own(self) -> str:
        return f'"site" = {quoted(named(self.site))}'

    def _from(self, measurement: str) -> str:
        policy = self.config.retention_policy
        return f"{identifier(policy)}.{identifier(measurement)}" if policy else identifier(measurement)

    def _samples(self, query: str, by: float, deadline_s: float) -> Iterator[tuple[str, Samples]]:
        """Yield series of samples as (tag, rows), a part at a time."""
        for tags, rows in self._series(query, by, deadline_s):
            tag = name_of(tags.get(POINT, ""))
            yield tag, _sample_rows(tag, rows)

    def _series(self, query: str, by: float, deadline_s: float) -> Iterator[tuple[dict[str, str], list[list[Any]]]]:
        """Yield (tags, rows) of an answer, a chunk at a time. In rows, columns stand in the order of the query."""
        left = by - time.monotonic()
        if left <= 0:
            raise out_of_time(self.name, deadline_s)
        fields = {"q": query, "db": self.config.database, "epoch": "ms", "chunked": "true", "chunk_size": str(CHUNK_ROWS)}
        try:
            for line in self.link.lines("/query", fields, left):
                if line.strip():
                    yield from self._results(line)
        except DeadlineError:
            raise out_of_time(self.name, deadline_s) from None
        except AnswerError as error:
            raise self._refused(error.reply.status, told(error.reply.body)) from None

    def _results(self, line: bytes) -> Iterator[tuple[dict[str, str], list[list[Any]]]]:
        try:
            loaded = json.loads(line)
            results = loaded.get("results", [])
            wrong = loaded.get("error") or next((each["error"] for each in results if "error" in each), None)
            series = [each for result in results for each in result.get("series", [])]
            found = [(each.get("tags") or {}, each["values"]) for each in series if each.get("values")]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self._refused(200, "an answer that is not InfluxQL's") from None
        if wrong:
            raise self._refused(200, told(json.dumps({"error": wrong}).encode()))
        yield from found

    def _refused(self, status: int, said: str) -> HistorianError:
        if is_away(status, said) or "timeout" in said or "interrupted" in said:
            later = away(self.name, status, said)
            return StoreAwayError(later.reason, later.reason_zh)
        if status == 200 and "not found" not in said and "not authorized" not in said:
            refused = Refused(
                f"storage.stores.{self.name}: cannot answer ({said}); check kind and url",
                f"storage.stores.{self.name}：无法查询（{said}）；请检查 kind 与 url",
            )
        else:
            refused = refusal(self.name, 403 if "not authorized" in said else status, said)
        return StoreRefusedError(refused.reason, refused.reason_zh, missing="database not found" in said)


def quoted(text: str) -> str:
    """Return a text as a string of InfluxQL. Source: InfluxQL reference, string literals: backslash escapes quote and itself."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def identifier(text: str) -> str:
    """Return a name as a quoted identifier of InfluxQL."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _any_of(tags: Sequence[str]) -> str:
    return " OR ".join(f'"{POINT}" = {quoted(named(tag))}' for tag in tags)


def _within(from_ms: int, to_ms: int) -> str:
    low, high = max(from_ms, -TIME_MS_MAX), min(to_ms, TIME_MS_MAX)
    return f"time >= {low}ms AND time < {high}ms"


def _sample_rows(tag: str, rows: Sequence[Sequence[Any]]) -> Samples:
    """Return rows of (time, value, quality, raw, late) as samples."""
    at, *columns = zip(*rows, strict=True)
    value, quality, raw, late = (np.array(column, np.float64) for column in columns)
    return merged(tag, np.array(at, np.int64), value, quality, raw, late)


def merged(
    tag: str, source_ms: NDArray[np.int64], value: NDArray[np.float64], quality: NDArray[np.float64],
    raw: NDArray[np.float64], late: NDArray[np.float64],
) -> Samples:  # fmt: skip
    """Return samples of fields as a store holds them, NaN where it has none: what a later write left standing is read away."""
    known = (quality >= 0) & (quality <= 255)
    code = np.where(known, np.where(known, quality, 0), _NO_QUALITY).astype(np.uint8)
    kind = quality_of(code)
    lost = np.isnan(value) & (kind != Quality.BAD)  # a value that somebody else deleted, or another program's point
    code = np.where(lost, np.uint8(quality_code(Quality.BAD, Reason.UNKNOWN)), code)
    kind = quality_of(code)
    rows = len(source_ms)
    zero = np.zeros(rows, np.int64)
    return Samples(
        (tag,), np.zeros(rows, np.int32), source_ms, np.where(kind == Quality.BAD, np.nan, value), code,
        np.where(kind == Quality.UNCERTAIN, raw, np.nan), late > 0, zero, zero,
    )  # fmt: skip


def _event(row: Sequence[Any]) -> AlarmEvent:
    at, level, late, kind, limit, point, alarm_high, alarm_low, step_high, step_low, alarm_id, step_id = row
    return AlarmEvent(
        id_of(step_high, step_low, step_id), id_of(alarm_high, alarm_low, alarm_id), name_of(point or ""), name_of(kind or ""),
        name_of(limit or ""), int(level or 0), int(at), bool(late),
    )  # fmt: skip
