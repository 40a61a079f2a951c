"""Samples and alarm transitions as line protocol, built column-wise: bytes of one line each, in the order of the rows.

    hazard_sample,point=T101.PRESSURE,site=demo value=1.25,quality=192i 1700000000000
    hazard_sample,point=T101.PRESSURE,site=demo value=2.5,quality=69i,raw=3.75,late=1i 1700000001000
    hazard_sample,point=T101.PRESSURE,site=demo quality=1i 1700000002000
    hazard_alarm,event=raised,grade=red,limit=HH,point=T101.PRESSURE,site=demo level=4i,late=0i,… 1700000000000123456

Fields are numbers only: VictoriaMetrics makes 0 of a text. NaN is never sent: a BAD row has its quality and no value.
Line protocol cannot say every text: a backslash before a comma, or at the end, a line break, nothing at all. Such bytes
are percent-encoded before the protocol's own escapes (`named`), and decoded on the way back (`name_of`).

Source: InfluxDB OSS 1.8 line protocol reference; backslashes cannot be escaped in tag values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from config import Grade
from gateway.historian.samples import Samples
from gateway.historian.store import AlarmEvent, Rejected, rejected_of
from wire import Quality

SAMPLES: Final = "hazard_sample"
ALARMS: Final = "hazard_alarm"
SITE, POINT, EVENT, LIMIT, GRADE = "site", "point", "event", "limit", "grade"
VALUE, QUALITY, RAW, LATE, LEVEL = "value", "quality", "raw", "late", "level"
ID_FIELDS: Final = ("alarm_high", "alarm_low", "step_high", "step_low")
NAME_BYTES_MAX: Final = 1_024
TIME_MS_MAX: Final = 9_223_372_036_000
"""InfluxDB keeps int64 nanoseconds: what lies beyond has no place in it."""

_UNSAYABLE: Final = re.compile(r"[\x00-\x1f\x7f%\\]")
_SPECIAL: Final = re.compile(r"[, =]")
_EMPTY: Final = "%"
_HEX_ID: Final = re.compile(r"[0-9a-f]{32}")
_NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """n lines without their line ends. `row`: int64[n], the sample each one is of. `rejected`: what has no line."""

    text: list[str]
    row: NDArray[np.int64]
    rejected: tuple[Rejected, ...]


def named(text: str) -> str:
    """Return a text as a tag's value, without what line protocol cannot say. Raises UnicodeEncodeError."""
    text.encode()
    return _UNSAYABLE.sub(lambda found: f"%{ord(found[0]):02X}", text) or _EMPTY


def name_of(stored: str) -> str:
    """Inverse of `named`."""
    return "" if stored == _EMPTY else unquote(stored) if "%" in stored else stored


def escaped(text: str) -> str:
    """Return a text as it stands in a line in the place of a tag's value."""
    return _SPECIAL.sub(r"\\\g<0>", named(text))


def sample_lines(samples: Samples, site: str) -> Lines:
    """Return the lines of samples, times in ms. A sample that no store could take is named with its reason."""
    rows = np.arange(len(samples), dtype=np.int64)
    bad = samples.code < Quality.UNCERTAIN
    unfit = np.abs(samples.source_ms) > TIME_MS_MAX
    odd = ~np.isfinite(samples.value) & ~bad
    used = np.unique(samples.tag)
    heads, nameless = _heads(samples.names, used, site)
    rejected: tuple[Rejected, ...] = ()
    if nameless or unfit.any() or odd.any():
        without_name = np.isin(samples.tag, np.array(nameless, np.int32))
        refused = unfit | odd | without_name
        rejected = tuple(
            rejected_of(samples, int(row), _why(bool(unfit[row]), bool(odd[row]))) for row in np.flatnonzero(refused)
        )
        rows = rows[~refused]
        samples, bad = samples.take(rows), bad[rows]
    tails = [f",quality={code}i " for code in range(256)]
    text = [
        f"{heads[tag]}value={value!r}{tails[code]}{ms}"
        for tag, value, code, ms in zip(
            samples.tag.tolist(), samples.value.tolist(), samples.code.tolist(), samples.source_ms.tolist(), strict=True
        )
    ]
    for at in np.flatnonzero(bad | np.isfinite(samples.raw) | samples.late).tolist():
        text[at] = _rare(samples, heads, at, bad=bool(bad[at]))
    return Lines(text, rows, rejected)


def _heads(names: Sequence[str], used: NDArray[np.int32], site: str) -> tuple[dict[int, str], list[int]]:
    """Return what the lines of every tag begin with, and the tags that cannot be named."""
    heads: dict[int, str] = {}
    nameless: list[int] = []
    end = f",{SITE}={escaped(site)} "
    for tag in used.tolist():
        try:
            point = escaped(names[tag])
        except UnicodeEncodeError:
            point = ""
        if not point or len(point.encode()) > NAME_BYTES_MAX:
            nameless.append(tag)
        else:
            heads[tag] = f"{SAMPLES},{POINT}={point}{end}"
    return heads, nameless


def _why(unfit: bool, odd: bool) -> str:
    if unfit:
        return "time outside the years 1677 to 2262"
    return "value is not finite though its quality is not BAD" if odd else f"name is no UTF-8, or over {NAME_BYTES_MAX} bytes"


def _rare(samples: Samples, heads: dict[int, str], at: int, *, bad: bool) -> str:
    """Return the line of a sample that is BAD, clamped or late."""
    fields = [] if bad else [f"value={float(samples.value[at])!r}"]
    fields.append(f"quality={int(samples.code[at])}i")
    if np.isfinite(samples.raw[at]) and not bad:
        fields.append(f"raw={float(samples.raw[at])!r}")
    if samples.late[at]:
        fields.append("late=1i")
    return f"{heads[int(samples.tag[at])]}{','.join(fields)} {int(samples.source_ms[at])}"


def event_lines(events: Sequence[AlarmEvent], site: str, *, id_tags: bool = False) -> list[str]:
    """Return the lines of alarm transitions, times in ns; `id_tags` where a store cannot keep numbers of 64 bits.

    What two transitions of one point in one millisecond are told apart by is a hash of the id in the nanoseconds. An id
    of 32 hex digits, as all of ours are, stands in two numbers, so that no transition makes a series of its own; any other
    text is a tag.
    """
    return [_event_line(event, site, id_tags=id_tags) for event in events if abs(event.at_ms) <= TIME_MS_MAX]


def _event_line(event: AlarmEvent, site: str, *, id_tags: bool) -> str:
    tags = {EVENT: event.kind, GRADE: grade_word(event.grade), LIMIT: event.limit, POINT: event.tag, SITE: site}
    fields = {LEVEL: event.grade, LATE: int(event.late)}
    for name, text in (("alarm", event.alarm_id), ("step", event.id)):
        if _HEX_ID.fullmatch(text) and not id_tags:
            fields[f"{name}_high"], fields[f"{name}_low"] = _signed(text[:16]), _signed(text[16:])
        else:
            tags[f"{name}_id"] = text
    tagged = "".join(f",{key}={escaped(value)}" for key, value in sorted(tags.items()))
    numbers = ",".join(f"{key}={value}i" for key, value in fields.items())
    within = int.from_bytes(blake2b(event.id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") % _NS_PER_MS
    return f"{ALARMS}{tagged} {numbers} {event.at_ms * _NS_PER_MS + within}"


def id_of(high: int | None, low: int | None, text: str | None) -> str:
    """Return the id that two numbers or a tag hold."""
    if high is None or low is None:
        return name_of(text or "")
    return f"{high % 2**64:016x}{low % 2**64:016x}"


def _signed(digits: str) -> int:
    number = int(digits, 16)
    return number - 2**64 if number >= 2**63 else number


def grade_word(grade: int) -> str:
    """Return the grade in a word; of a number that is no grade, the number."""
    return Grade(grade).word if grade in Grade.__members__.values() else str(grade)
