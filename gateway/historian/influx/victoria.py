"""The part of the port that VictoriaMetrics supports: writing, and reading samples back through its own export.

Each field is a series of its own: `hazard_sample_value{point="…",site="…"}`. What it cannot do is said here once: it keeps
numbers with about 15 digits, keeps every write at a moment beside the others, drops a line it cannot read without a word, and
shows a sample about a second after it has taken it; its own query page hides the newest 30 s.
Source: VictoriaMetrics documentation (export, MetricsQL, InfluxDB line protocol); observed on 1.79.5.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from config import TimeSeriesStoreConfig
from gateway.historian.influx.answers import away, is_away, refusal, short, told
from gateway.historian.influx.bounded import DeadlineError
from gateway.historian.influx.http import AnswerError, Reply
from gateway.historian.influx.line import (
    ALARMS,
    EVENT,
    LATE,
    LEVEL,
    LIMIT,
    POINT,
    QUALITY,
    RAW,
    SAMPLES,
    SITE,
    VALUE,
    name_of,
    named,
)
from gateway.historian.influx.store import InfluxHistorian, merged
from gateway.historian.limits import check_latest, check_range, out_of_time, too_many
from gateway.historian.samples import DAY_MS, Samples, concatenated
from gateway.historian.store import (
    DEADLINE_S_MAX,
    RANGE_MS_MAX,
    ROWS_MAX,
    AlarmEvent,
    HistorianError,
    StoreAwayError,
    StoreRefusedError,
)

LATEST_AT_ONCE: Final = 100
DAY_AT_ONCE: Final = 32
LINE_ROWS: Final = 100_000
ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
_STARTED: Final = b"vm_app_start_timestamp"
_WRITES: Final = b'vm_http_requests_total{path="/influx/write", protocol="influx"}'
_FIELDS: Final = (VALUE, QUALITY, RAW, LATE)
_Series = tuple[NDArray[np.int64], NDArray[np.float64]]


class VictoriaHistorian(InfluxHistorian):
    """One VictoriaMetrics, for one site's tags. For one thread at a time."""

    def __init__(self, config: TimeSeriesStoreConfig, site: str, secret: str | None = None, base_dir: Path = Path()) -> None:
        """Nothing is connected yet. Raises StoreRefusedError."""
        super().__init__(config, site, secret, base_dir)
        self._first: tuple[bytes, int] | None = None  # its start, and how much more than our writes it had counted

    def latest(self, tags: Sequence[str], deadline_s: float = DEADLINE_S_MAX) -> Samples:
        """Return the newest sample of each tag, none older than 400 days."""
        check_latest(tags)
        by = time.monotonic() + deadline_s
        wanted = list(dict.fromkeys(tags))
        found: dict[str, Samples] = {}
        for at in range(0, len(wanted), LATEST_AT_ONCE):
            named_so = self._selector(wanted[at : at + LATEST_AT_ONCE])
            days = RANGE_MS_MAX // DAY_MS
            times = self._instant(f"tlast_over_time({named_so}[{days}d]) keep_metric_names", by, deadline_s)
            values = self._instant(f"last_over_time({named_so}[{days}d])", by, deadline_s)
            for tag, fields in times.items():
                moment = round(fields.get(QUALITY, 0.0) * 1000)
                own = {
                    name: (np.array([moment]), np.array([values.get(tag, {}).get(name, np.nan)]))
                    for name in fields if round(fields[name] * 1000) == moment
                }  # fmt: skip
                if QUALITY in own:
                    found[tag] = _joined(tag, own)
        return concatenated([found[tag] for tag in wanted if tag in found])

    def range(
        self, tag: str, from_ms: int, to_ms: int, rows_max: int = ROWS_MAX, deadline_s: float = DEADLINE_S_MAX
    ) -> Samples:
        """Return one tag's samples."""
        check_range(from_ms, to_ms)
        by = time.monotonic() + deadline_s
        found = self._exported([tag], from_ms, to_ms, by, deadline_s, rows_max)
        return found.get(tag, Samples.empty((tag,)))

    def events(self, from_ms: int, to_ms: int, tag: str | None = None, rows_max: int = 10_000) -> Sequence[AlarmEvent]:
        """Return alarm transitions, oldest first. Each is a series of its own here, its ids are labels."""
        by = time.monotonic() + DEADLINE_S_MAX
        point = "" if tag is None else f",{POINT}={_text(named(tag))}"
        name = f'__name__=~"{ALARMS}_({LEVEL}|{LATE})"'
        found: dict[str, dict[str, tuple[Mapping[str, str], int, float]]] = {}
        fields = self._between(f"{{{name},{SITE}={_text(named(self.site))}{point}}}", from_ms, to_ms)
        for loaded in self._loaded("/api/v1/export", fields, by, DEADLINE_S_MAX):
            labels = loaded["metric"]
            at = [each for each in loaded["timestamps"] if from_ms <= each < to_ms]
            if at:
                field = str(labels["__name__"]).removeprefix(f"{ALARMS}_")
                found.setdefault(str(labels.get("step_id")), {})[field] = (labels, int(at[0]), float(loaded["values"][0]))
            if len(found) > rows_max:
                raise too_many(rows_max)
        events = [_event(each[LEVEL], each.get(LATE)) for each in found.values() if LEVEL in each]
        return sorted(events, key=lambda event: (event.at_ms, event.id))

    def days(self, deadline_s: float = 60.0) -> Sequence[int]:
        """Return the days held, by counting each day's series."""
        by = time.monotonic() + deadline_s
        # 50 years: a range that begins before 1970 has no answer.
        first = self._instant_one(f"min(tfirst_over_time({self._selector(None, (QUALITY,))}[50y]))", by, deadline_s)
        last = self._instant_one(f"max(tlast_over_time({self._selector(None, (QUALITY,))}[50y]))", by, deadline_s)
        if first is None or last is None:
            return []
        found = []
        for day_ms in range(int(first * 1000) // DAY_MS * DAY_MS, round(last * 1000) + 1, DAY_MS):
            query = f"count(count_over_time({self._selector(None, (QUALITY,))}[1d]))"
            # Its windows are open at the beginning and closed at the end.
            if self._instant_one(query, by, deadline_s, (day_ms + DAY_MS - 1) / 1000):
                found.append(day_ms)
        return found

    def day(self, day_ms: int, deadline_s: float = 600.0) -> Iterator[Samples]:
        """Yield a day, some tags in a piece."""
        by = time.monotonic() + deadline_s
        tags = sorted(self._points(day_ms, by, deadline_s))
        for at in range(0, len(tags), DAY_AT_ONCE):
            group = tags[at : at + DAY_AT_ONCE]
            piece = concatenated(list(self._exported(group, day_ms, day_ms + DAY_MS, by, deadline_s, None).values()))
            if len(piece):
                yield piece.in_order()

    # -- asking --

    def _selector(self, tags: Sequence[str] | None, fields: Sequence[str] = _FIELDS) -> str:
        """Return what selects the fields of some tags, or of all."""
        name = f'__name__=~"{SAMPLES}_({"|".join(fields)})"'
        site = f"{SITE}={_text(named(self.site))}"
        if tags is None:
            return f"{{{name},{site}}}"
        points = "|".join(_pattern(named(tag)) for tag in tags)
        return f"{{{name},{site},{POINT}=~{_text(points)}}}"

    def _exported(
        self, tags: Sequence[str], from_ms: int, to_ms: int, by: float, deadline_s: float, rows_max: int | None
    ) -> dict[str, Samples]:
        if from_ms >= to_ms:
            return {}
        fields = self._between(self._selector(tags), from_ms, to_ms)
        parts: dict[str, dict[str, list[_Series]]] = {}
        rows = 0
        for loaded in self._loaded("/api/v1/export", fields, by, deadline_s):
            labels = loaded["metric"]
            name = str(labels["__name__"]).removeprefix(f"{SAMPLES}_")
            at = np.array(loaded["timestamps"], np.int64)
            own = (at >= from_ms) & (at < to_ms)
            series = parts.setdefault(name_of(labels.get(POINT, "")), {}).setdefault(name, [])
            series.append((at[own], np.array(loaded["values"], np.float64)[own]))
            rows += int(own.sum()) if name == QUALITY else 0
            if rows_max is not None and rows > 2 * rows_max:
                raise too_many(rows_max)
        found = {tag: _joined(tag, {name: _one_each(each) for name, each in fields.items()}) for tag, fields in parts.items()}
        if rows_max is not None and sum(map(len, found.values())) > rows_max:
            raise too_many(rows_max)
        return {tag: part for tag, part in found.items() if len(part)}

    def _between(self, selector: str, from_ms: int, to_ms: int) -> dict[str, str]:
        """Return what asks for an export of a range and a little more: its times go through floats."""
        return {
            "match[]": selector, "start": f"{(from_ms - 1) / 1000:.3f}", "end": f"{(to_ms + 1) / 1000:.3f}",
            "max_rows_per_line": str(LINE_ROWS),
        }  # fmt: skip

    def _points(self, day_ms: int, by: float, deadline_s: float) -> list[str]:
        fields = {
            "match[]": self._selector(None, (QUALITY,)), "start": f"{day_ms / 1000:.3f}", "end": f"{(day_ms + DAY_MS) / 1000:.3f}",
        }  # fmt: skip
        for loaded in self._loaded(f"/api/v1/label/{POINT}/values", fields, by, deadline_s):
            return [name_of(str(value)) for value in loaded["data"]]
        return []

    def _instant(self, query: str, by: float, deadline_s: float, at_s: float | None = None) -> dict[str, dict[str, float]]:
        """Return the value of each field of each tag now."""
        found: dict[str, dict[str, float]] = {}
        for labels, value in self._vector(query, by, deadline_s, at_s):
            name = labels.get("__name__", "").removeprefix(f"{SAMPLES}_")
            found.setdefault(name_of(labels.get(POINT, "")), {})[name] = value
        return found

    def _instant_one(self, query: str, by: float, deadline_s: float, at_s: float | None = None) -> float | None:
        return next((value for _, value in self._vector(query, by, deadline_s, at_s)), None)

    def _vector(
        self, query: str, by: float, deadline_s: float, at_s: float | None
    ) -> Iterator[tuple[Mapping[str, str], float]]:
        fields = {"query": query, "nocache": "1", "time": f"{time.time() + 1 if at_s is None else at_s:.3f}", "step": "1s"}
        for loaded in self._loaded("/api/v1/query", fields, by, deadline_s):
            for each in loaded["data"]["result"]:
                yield each["metric"], float(each["value"][1])

    def _loaded(self, path: str, fields: Mapping[str, str], by: float, deadline_s: float) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects of an answer, one a line."""
        left = by - time.monotonic()
        if left <= 0:
            raise out_of_time(self.name, deadline_s)
        try:
            for line in self.link.lines(path, fields, left):
                if line.strip():
                    loaded = json.loads(line)
                    if not isinstance(loaded, dict):
                        raise ValueError("no object")
                    yield loaded
        except DeadlineError:
            raise out_of_time(self.name, deadline_s) from None
        except (ValueError, RecursionError):
            refused = refusal(self.name, 400, "an answer that is not VictoriaMetrics'")
            raise StoreRefusedError(refused.reason, refused.reason_zh) from None
        except AnswerError as error:
            said = told(error.reply.body)
            if is_away(error.reply.status, said):
                later = away(self.name, error.reply.status, said)
                raise StoreAwayError(later.reason, later.reason_zh) from None
            refused = refusal(self.name, error.reply.status, said)
            raise StoreRefusedError(refused.reason, refused.reason_zh) from None

    def restarted(self, deadline_s: float = 5.0) -> bool:
        """Return whether another process answers than at the first call: it has lost what was not on its disk.

        It tells its start in whole seconds. One that was started anew within the second has counted fewer writes than it stored for us.

        Raises:
            StoreAwayError: no answer. StoreRefusedError: it does not tell, so that a loss could not be seen.
        """
        stored = self.link.stored()
        reply = self.link.send("GET", "/metrics", deadline_s=deadline_s, bytes_max=ANSWER_BYTES_MAX)
        found = dict(line.rsplit(None, 1) for line in reply.body.splitlines() if line.startswith((_STARTED, _WRITES)))
        if reply.status != 200 or _STARTED not in found:
            raise self._does_not_tell(reply)
        started, writes = found[_STARTED], int(float(found.get(_WRITES, b"0")))
        if self._first is None:
            self._first = started, writes - stored
        counted = _WRITES not in found or writes - stored >= self._first[1]
        return started != self._first[0] or not counted

    def _does_not_tell(self, reply: Reply) -> HistorianError:
        said = told(reply.body)
        if is_away(reply.status, said):
            later = away(self.name, reply.status, said)
            return StoreAwayError(later.reason, later.reason_zh)
        why = f"{reply.status}: {short(said)}" if reply.status != 200 else f"no {_STARTED.decode()}"
        return StoreRefusedError(
            f"storage.stores.{self.name}: /metrics does not tell when VictoriaMetrics was started ({why}), so that what a kill of it"
            " loses could not be seen; check kind and url, and let us read /metrics there (without -metricsAuthKey)",
            f"storage.stores.{self.name}：/metrics 未给出 VictoriaMetrics 的启动时间（{why}），无法发现其异常重启丢失的数据；"
            "请检查 kind 与 url，并允许读取 /metrics（不设 -metricsAuthKey）",
        )


def _event(level: tuple[Mapping[str, str], int, float], late: tuple[Mapping[str, str], int, float] | None) -> AlarmEvent:
    labels, at_ms, grade = level
    step, alarm, point, kind, limit = (name_of(labels.get(key, "")) for key in ("step_id", "alarm_id", POINT, EVENT, LIMIT))
    return AlarmEvent(step, alarm, point, kind, limit, int(grade), at_ms, bool(late and late[2]))


def _text(text: str) -> str:
    """Return a text as a string of MetricsQL."""
    return json.dumps(text, ensure_ascii=False)


def _pattern(text: str) -> str:
    """Return a text as a regular expression (RE2) that matches nothing else."""
    return "".join(char if char.isalnum() or ord(char) > 127 or char in " _%," else f"\\{char}" for char in text)


def _one_each(parts: Sequence[_Series]) -> _Series:
    """Return a series in order of time, one row a moment: of several writes the one that came last in the answer."""
    at, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(at, kind="stable")
    at, value = at[order], value[order]
    last = np.append(np.diff(at) != 0, True) if len(at) else np.empty(0, np.bool_)
    return at[last], value[last]


def _joined(tag: str, fields: Mapping[str, _Series]) -> Samples:
    """Return samples where there is a quality, with what the other fields have at the same moment."""
    none: _Series = (np.empty(0, np.int64), np.empty(0))
    at, quality = fields.get(QUALITY, none)
    columns = []
    for name in (VALUE, RAW, LATE):
        when, what = fields.get(name, none)
        column = np.full(len(at), np.nan)
        place = np.searchsorted(when, at)
        there = place < len(when)
        there[there] = when[place[there]] == at[there]
        column[there] = what[place[there]]
        columns.append(column)
    return merged(tag, at, columns[0], quality, columns[1], columns[2])
