"""What is told of the historian and the stores beside it, and that no rubbish in its status file can hurt core."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerting import Fact
from gateway.core.conditions import system_condition
from gateway.core.historian_status import DAMAGED_MAX, STORES_MAX, Seen, Status, StoreStatus, conditions, parse_status
from gateway.historian.segments.folder import Problem
from tests.gateway.field import T0_MS

START_MS = T0_MS
MINUTE_MS = 60_000
QUIET = Seen(
    now_ms=START_MS + 100 * MINUTE_MS, started_ms=START_MS, seal_s=600, sealed_pos=40, waiting_ms=None, problems=(), status=None
)
HOUR = Problem("samples/2023-11-14/seal-a.parquet", "2023-11-14", T0_MS, T0_MS + 3_600_000, "its checksum differs", ("A.1", "B.2"))
STORE = StoreStatus("influx", "live", 0, 0, 0, "", "")


def standing(seen: Seen, *keys: str) -> dict[str, bool]:
    return {told.key: told.standing for told in conditions(seen, keys)}


def facts(seen: Seen, key: str) -> dict[str, Fact]:
    return next(told.facts for told in conditions(seen, ()) if told.key == key)


def minutes_ago(minutes: float) -> int:
    return QUIET.now_ms - int(minutes * MINUTE_MS)


FRESH = Status(QUIET.now_ms - 1_000)


@pytest.mark.parametrize(("seen", "behind"), [
    pytest.param(QUIET, False, id="all is sealed"),
    pytest.param(replace(QUIET, waiting_ms=minutes_ago(30.9)), False, id="three seals and not yet a minute"),
    pytest.param(replace(QUIET, waiting_ms=minutes_ago(31.1)), True, id="three seals and a minute"),
    pytest.param(replace(QUIET, waiting_ms=minutes_ago(500), started_ms=minutes_ago(30)), False, id="core was not there either"),
    pytest.param(replace(QUIET, waiting_ms=minutes_ago(1), status=FRESH), False, id="serve is at work"),
    pytest.param(replace(QUIET, waiting_ms=minutes_ago(1), status=Status(minutes_ago(3.1))), True, id="serve is silent"),
    pytest.param(replace(QUIET, waiting_ms=None, status=Status(minutes_ago(99))), False, id="serve is silent, and nothing waits"),
    pytest.param(
        replace(QUIET, waiting_ms=minutes_ago(1), status=Status(minutes_ago(99)), started_ms=minutes_ago(2)), False,
        id="core has just started: serve may come",
    ),
    pytest.param(replace(QUIET, waiting_ms=minutes_ago(1), status_wrong="status.json: not JSON"), True, id="serve's word is rubbish"),
    pytest.param(
        replace(QUIET, waiting_ms=minutes_ago(1), status=Status(QUIET.now_ms + 9_999_999)), False, id="a clock was set back"
    ),
])  # fmt: skip
def test_frames_that_wait_too_long_to_be_sealed_are_an_alarm(seen: Seen, behind: bool) -> None:
    assert standing(seen)["CORE.HISTORIAN.BEHIND"] is behind


def test_why_frames_wait_is_told_where_serve_knows_it() -> None:
    seen = replace(QUIET, waiting_ms=minutes_ago(40), status=replace(FRESH, trouble="sealing: OSError: disk full"))
    assert facts(seen, "CORE.HISTORIAN.BEHIND")["reason"] == "frames wait to be sealed: sealing: OSError: disk full"


def test_a_file_that_stops_cores_own_check_is_the_reason() -> None:
    lost = replace(HOUR, file="rollups/2023-11-14/seal-a.parquet", why="a manifest names it, and it is not there")
    seen = replace(QUIET, waiting_ms=minutes_ago(40), problems=(HOUR, lost), status=FRESH)
    reason = facts(seen, "CORE.HISTORIAN.BEHIND")["reason"]
    assert reason == (
        "core's check of what is sealed stops at rollups/2023-11-14/seal-a.parquet: a manifest names it, and it is not there"
    )


def test_damage_is_told_with_exact_ranges_each_once() -> None:
    seen = replace(QUIET, problems=(HOUR,), status=replace(FRESH, damaged=(HOUR, replace(HOUR, file="other", tags=None))))
    assert facts(seen, "CORE.HISTORIAN.DAMAGED") == {
        "count": 2,
        "what": "samples/2023-11-14/seal-a.parquet, 2023-11-14T22:13:20.000+00:00 to 2023-11-14T23:13:20.000+00:00,"
        " tags A.1 to B.2: its checksum differs; other, 2023-11-14T22:13:20.000+00:00 to 2023-11-14T23:13:20.000+00:00:"
        " its checksum differs",
    }
    assert standing(replace(QUIET, status=FRESH))["CORE.HISTORIAN.DAMAGED"] is False
    assert "CORE.HISTORIAN.DAMAGED" not in standing(QUIET), "serve's part of it nobody knows"


@pytest.mark.parametrize(("days", "short"), [(None, False), (30.0, False), (29.9, True)])
def test_less_than_thirty_days_of_room_is_an_alarm(days: float | None, short: bool) -> None:
    assert standing(replace(QUIET, status=replace(FRESH, projected_days=days)))["CORE.HISTORIAN.SPACE"] is short


@pytest.mark.fault("F28")
@pytest.mark.parametrize(("days", "why", "stands"), [(0, "", False), (6, "clock", False), (7, "clock", True), (300, "pace", True)])
def test_days_that_only_the_clock_calls_old_are_an_alarm_once_they_are_many(days: int, why: str, stands: bool) -> None:
    seen = replace(QUIET, status=replace(FRESH, withheld_days=days, withheld_why=why))
    assert standing(seen)["CORE.HISTORIAN.WITHHELD"] is stands
    if stands:
        assert facts(seen, "CORE.HISTORIAN.WITHHELD") == {"days": days, "why": why}


@pytest.mark.parametrize(("store", "words"), [
    pytest.param(STORE, set(), id="live"),
    pytest.param(replace(STORE, state="away", lag_ms=299_000), set(), id="away for a moment"),
    pytest.param(replace(STORE, state="away", lag_ms=301_000), {"BEHIND"}, id="away"),
    pytest.param(replace(STORE, state="catching up", lag_ms=301_000), {"BEHIND"}, id="catching up"),
    pytest.param(replace(STORE, state="refused"), {"REFUSED"}, id="refused"),
    pytest.param(replace(STORE, quarantined=1), {"QUARANTINE"}, id="some rows refused"),
])  # fmt: skip
def test_what_a_store_beside_ours_suffers_from(store: StoreStatus, words: set[str]) -> None:
    told = standing(replace(QUIET, status=replace(FRESH, stores=(store,))))
    assert {key.rpartition(".")[2] for key, stood in told.items() if stood} == words
    assert {key for key in told if key.startswith("CORE.STORE-")} == {
        f"CORE.STORE-influx.{word}" for word in ("BEHIND", "REFUSED", "QUARANTINE")
    }


def test_a_store_that_is_configured_no_more_has_no_alarm_and_one_nobody_speaks_of_keeps_it() -> None:
    key = "CORE.STORE-old.REFUSED"
    assert standing(replace(QUIET, status=replace(FRESH, stores=(STORE,))), key)[key] is False
    assert key not in standing(QUIET, key)


# -- the file -----------------------------------------------------------------------------------------------------------

SAID: dict[str, Any] = {
    "at_ms": 5, "cursor": 70, "new": ["unknown"], "trouble": "t",
    "damaged": [{"file": "f", "day": "2023-11-14", "tags": ["A", "B"], "from_ms": 1, "to_ms": 2, "why": "w"}],
    "space": {"bytes": 10, "days_held": 3.5, "projected_days": 400, "limit_bytes": 20},
    "withheld": {"days": 8, "why": "clock"},
    "stores": [{
        "id": "influx", "kind": "influxdb1", "state": "catching up", "lag_rows": 1, "lag_ms": 2, "cursor": 3, "quarantined": 4,
        "detail": "d", "detail_zh": "详",
    }],
}  # fmt: skip


def test_the_file_is_read_as_serve_writes_it() -> None:
    assert parse_status(json.dumps(SAID)) == Status(
        5, (Problem("f", "2023-11-14", 1, 2, "w", ("A", "B")),), 10, 20, 3.5, 400.0,
        (StoreStatus("influx", "catching up", 1, 2, 4, "d", "详"),), "t", 8, "clock",
    )  # fmt: skip


def changed(path: str, value: Any) -> str:
    said = json.loads(json.dumps(SAID))
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    at = said
    for part in parents:
        at = at[part]
    at[last] = value
    return json.dumps(said)


@pytest.mark.fault("F54")
@pytest.mark.parametrize("text", [
    pytest.param("", id="empty"),
    pytest.param("{", id="torn"),
    pytest.param("[]", id="no object"),
    pytest.param("[" * 100_000, id="deep"),
    pytest.param('{"at_ms": Infinity}', id="no number"),
    pytest.param(changed("at_ms", True), id="bool as int"),
    pytest.param(changed("at_ms", 10**30), id="beyond 63 bits"),
    pytest.param(changed("at_ms", 1.5), id="a fraction of a millisecond"),
    pytest.param(changed("damaged", [SAID["damaged"][0]] * (DAMAGED_MAX + 1)), id="too much damage"),
    pytest.param(changed("damaged.0.tags", ["A"]), id="one tag"),
    pytest.param(changed("damaged.0.why", 3), id="a number for a text"),
    pytest.param(changed("space", "much"), id="a text for an object"),
    pytest.param(changed("space.projected_days", "NaN"), id="a text for days"),
    pytest.param(changed("withheld.days", 1.5), id="part of a day withheld"),
    pytest.param(changed("stores", [SAID["stores"][0]] * (STORES_MAX + 1)), id="too many stores"),
    pytest.param(changed("stores.0.id", "a.b\nc"), id="an id that is none"),
    pytest.param(changed("stores.0.state", "well"), id="an unknown state"),
])  # fmt: skip
def test_rubbish_is_refused_in_one_way(text: str) -> None:
    with pytest.raises(ValueError):
        parse_status(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*SAID, *SAID["stores"][0]]), inner, max_size=5),
    max_leaves=12,
)


@given(JSON, st.sampled_from([
    "at_ms", "damaged", "damaged.0", "damaged.0.tags", "space", "space.bytes", "withheld", "stores", "stores.0",
]))  # fmt: skip
def test_whatever_stands_there_it_is_read_or_refused(value: Any, path: str) -> None:
    try:
        status = parse_status(changed(path, value))
    except ValueError:
        return
    conditions(replace(QUIET, waiting_ms=1, status=status), ())


# -- words ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [
    "CORE.HISTORIAN.BEHIND", "CORE.HISTORIAN.DAMAGED", "CORE.HISTORIAN.SPACE", "CORE.HISTORIAN.WITHHELD", "CORE.STORE-influx.BEHIND",
    "CORE.STORE-a-b.REFUSED", "CORE.STORE-influx.QUARANTINE", "CORE.LEDGER.SPACE", "EDGE.E1.QUARANTINE",
])  # fmt: skip
def test_every_condition_has_words_of_its_own(key: str) -> None:
    told = system_condition(key, True, {})
    assert told.cause_zh
    assert told.cause_en


def test_words_are_those_of_the_part_that_is_meant() -> None:
    def cause(key: str) -> str:
        return system_condition(key, True, {}).cause_en

    assert cause("CORE.LEDGER.SPACE") != cause("CORE.HISTORIAN.SPACE")
    assert cause("CORE.STORE-influx.BEHIND") != cause("CORE.HISTORIAN.BEHIND")
    assert cause("EDGE.STORE-1.QUARANTINE") == cause("EDGE.E1.QUARANTINE") != cause("CORE.STORE-1.QUARANTINE")
    assert cause("CORE.NOBODY.KNOWS") == cause("ODD") == ""
