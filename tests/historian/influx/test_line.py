"""Lines say exactly what the samples say, whatever a tag is called; checked by a reader of the protocol of the tests' own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.historian.influx.line import NAME_BYTES_MAX, TIME_MS_MAX, event_lines, id_of, name_of, sample_lines
from gateway.historian.store import AlarmEvent
from tests.historian.influx.line_parser import parse
from tests.historian.reference import Row, samples_of
from wire import Quality, Reason, quality_code

G, U, B = 192, quality_code(Quality.UNCERTAIN, Reason.RANGE), quality_code(Quality.BAD, Reason.COMM)
NAMES = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=24), st.text(", =\\\"'\n\r\t%中", max_size=8))
VALUES = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def samples(draw: st.DrawFn) -> Row:
    code = draw(st.sampled_from((G, U, B)))
    value = math.nan if code == B else draw(VALUES)
    raw = draw(VALUES) if code == U else math.nan
    return Row(draw(NAMES), draw(st.integers(-TIME_MS_MAX, TIME_MS_MAX)), value, code, raw, late=draw(st.booleans()))


@pytest.mark.fault("F49")
@given(st.lists(samples(), max_size=30), NAMES)
@example([Row("a\\", 0, 1.0), Row("", 1, 1.0), Row("a\\,b", 2, 1.0), Row("%5C", 3, 1.0), Row("\n", 4, 1.0)], "s\\")
def test_a_reader_of_the_protocol_reads_back_every_name_time_and_number(rows: list[Row], site: str) -> None:
    made = sample_lines(samples_of(rows), site)
    assert made.rejected == ()
    assert made.row.tolist() == list(range(len(rows)))
    for row, line in zip(rows, made.text, strict=True):
        point = parse(line)
        assert point.measurement == "hazard_sample"
        assert name_of(point.tags["point"]).encode() == row.tag.encode()
        assert name_of(point.tags["site"]).encode() == site.encode()
        assert point.at == row.source_ms
        wanted: dict[str, float | int] = {"quality": row.code}
        if row.code != B:
            wanted["value"] = row.value
        if not math.isnan(row.raw):
            wanted["raw"] = row.raw
        if row.late:
            wanted["late"] = 1
        assert point.fields == wanted
        assert [type(value) for _, value in sorted(point.fields.items())] == [type(value) for _, value in sorted(wanted.items())]


@given(st.lists(samples(), max_size=20), st.data())
def test_no_sample_makes_a_line_with_a_number_that_is_none(rows: list[Row], data: st.DataObject) -> None:
    broken = samples_of(rows)
    for at in range(len(rows)):
        broken.value[at] = data.draw(st.sampled_from((math.nan, math.inf, -math.inf, 1.5)))
        broken.raw[at] = data.draw(st.sampled_from((math.nan, math.inf, -math.inf, 1.5)))
    made = sample_lines(broken, "demo")
    assert len(made.text) + len(made.rejected) == len(rows)
    assert all(math.isfinite(value) for line in made.text for value in parse(line).fields.values())
    odd = ~np.isfinite(broken.value) & (broken.code != B)
    assert len(made.rejected) == int(odd.sum())
    assert set(made.row.tolist()) == set(np.flatnonzero(~odd).tolist())


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param(Row("T", TIME_MS_MAX + 1, 1.0), "1677 to 2262", id="a time that int64 nanoseconds cannot say"),
        pytest.param(Row("T", -TIME_MS_MAX - 1, 1.0), "1677 to 2262", id="one long ago"),
        pytest.param(Row("T" * (NAME_BYTES_MAX + 1), 0, 1.0), "bytes", id="a name without end"),
        pytest.param(Row("\ud800", 0, 1.0), "UTF-8", id="half a character"),
    ],
)
def test_what_no_store_could_take_is_named_and_the_rest_goes(row: Row, reason: str) -> None:
    made = sample_lines(samples_of([Row("OK.1", 1, 2.0), row, Row("OK.2", 2, 3.0)]), "demo")
    assert [parse(line).tags["point"] for line in made.text] == ["OK.1", "OK.2"]
    assert made.row.tolist() == [0, 2]
    (rejected,) = made.rejected
    assert (rejected.tag, rejected.source_ms) == (row.tag, row.source_ms)
    assert reason in rejected.reason


@pytest.mark.fault("F49")
@given(NAMES, NAMES, NAMES, st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1), st.integers(0, 9), st.booleans())
def test_alarm_transitions_are_numbers_and_short_tags(
    tag: str, kind: str, limit: str, step: int, alarm: int, grade: int, id_tags: bool
) -> None:
    event = AlarmEvent(f"{step:032x}", f"{alarm:032x}", tag, kind, limit, grade, 1_700_000_000_123, late=True)
    (line,) = event_lines([event], "demo", id_tags=id_tags)
    point = parse(line)
    assert point.at // 1_000_000 == event.at_ms
    assert [name_of(point.tags[key]) for key in ("point", "event", "limit")] == [tag, kind, limit]
    assert all(isinstance(value, int) for value in point.fields.values())
    assert (point.fields["level"], point.fields["late"]) == (grade, 1)
    assert not set(point.fields) & set(point.tags), "3 Core takes no field and tag of one name"
    for name, wanted in (("step", event.id), ("alarm", event.alarm_id)):
        high, low = (point.fields.get(f"{name}_{half}") for half in ("high", "low"))
        assert id_of(high, low, point.tags.get(f"{name}_id")) == wanted  # type: ignore[arg-type]
        assert (high is None) == id_tags


def test_two_transitions_in_one_millisecond_are_two_points_and_one_twice_is_one() -> None:
    events = [AlarmEvent(f"{number:032x}", f"{1:032x}", "T", "raised", "HH", 4, 1_700_000_000_000) for number in range(50)]
    lines = event_lines(events, "demo")
    assert len({(line.split(" ")[0], line.rsplit(" ", 1)[1]) for line in lines}) == 50
    assert event_lines(events, "demo") == lines


def test_no_name_of_a_key_has_a_hyphen_and_none_is_both_tag_and_field() -> None:
    lines = sample_lines(samples_of([Row("T", 0, 1.0, U, 2.0, late=True)]), "demo").text
    lines += event_lines([AlarmEvent("id", "alarm", "T", "raised", "HH", 4, 0)], "demo")
    for line in lines:
        point = parse(line)
        names = [point.measurement, *point.tags, *point.fields]
        assert not [name for name in names if "-" in name]
        assert len(set(names)) == len(names)
        assert "tag" not in names, "reserved in InfluxQL"
