"""What real servers say and keep: InfluxDB 1.6 and VictoriaMetrics, set up, refused, given wrong lines, killed."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import TimeSeriesStoreConfig
from gateway.historian.influx import health, open_store, set_up
from gateway.historian.influx.answers import Partial, Stored
from gateway.historian.influx.line import name_of, sample_lines
from gateway.historian.influx.victoria import VictoriaHistorian
from gateway.historian.influx.writing import store_lines
from gateway.historian.samples import DAY_MS, concatenated
from gateway.historian.store import StoreAwayError, StoreRefusedError
from tests.historian.influx.running import flush
from tests.historian.influx.test_http import peer, says
from tests.historian.reference import Row, samples_of
from tests.stores import (
    INFLUXD,
    VICTORIA,
    StoreServer,
    ask,
    needs_influxd,
    needs_victoria,
    running_store,
    store_config,
    with_users,
)

T0 = 1_767_225_600_000
NAMES = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=24), st.text(", =\\\"'\n\r\t%中/*$;-", max_size=8))


@pytest.fixture(scope="module")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with running_store(INFLUXD, tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.fixture(scope="module")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with running_store(VICTORIA, tmp_path_factory.mktemp("victoria")) as server:
        yield server


@needs_influxd
@pytest.mark.fault("F49")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.sets(NAMES, min_size=1, max_size=12))
def test_names_go_through_a_real_server_byte_by_byte(influxd: StoreServer, names: set[str]) -> None:
    """What it lists, by means of the standard library alone, is what was sent; and each is found by its name."""
    ask(influxd, 'CREATE DATABASE "names"')
    store = open_store(store_config(influxd, database="names"), "demo")
    try:
        rows = [Row(name, T0 + at, float(at)) for at, name in enumerate(sorted(names))]
        assert store.write(samples_of(rows)).rejected == ()
        listed = json.loads(ask(influxd, 'SHOW TAG VALUES FROM hazard_sample WITH KEY = "point"', db="names"))
        stored = [name_of(value) for _, value in listed["results"][0]["series"][0]["values"]]
        assert {name.encode() for name in names} == {name.encode() for name in stored}
        for row in rows:
            assert store.range(row.tag, T0, T0 + 100).value.tolist() == [row.value]
    finally:
        ask(influxd, 'DROP DATABASE "names"')
        store.close()


@needs_influxd
def test_setting_up_twice_changes_nothing_and_a_new_period_is_set(influxd: StoreServer) -> None:
    def told(**more: object) -> list[bool]:
        store = open_store(store_config(influxd, database="set_up", **more), "demo")
        try:
            done = set_up(store)
            assert all(any("\u4e00" <= char <= "\u9fff" for char in each.text_zh) for each in done)
            assert health(store).database
            return [each.changed for each in done]
        finally:
            store.close()

    unmade = open_store(store_config(influxd, database="set_up"), "demo")
    assert health(unmade).database is False
    assert health(unmade).version.startswith("1.")
    unmade.close()
    assert told(retention_days=400.0) == [True, True]
    assert told(retention_days=400.0) == [False, False]
    assert told(retention_days=30.0) == [False, True]
    assert told(retention_days=1.0) == [False, True], "shorter than the shards of the policy that was there"
    assert told(retention_days=0.0) == [False, True]
    assert told(retention_days=7.0, retention_policy="week") == [False, True]
    assert told(retention_days=7.0, retention_policy="week") == [False, False]
    policies = json.loads(ask(influxd, 'SHOW RETENTION POLICIES ON "set_up"'))["results"][0]["series"][0]["values"]
    assert [row[:2] for row in policies] == [["autogen", "0s"], ["week", "168h0m0s"]]


@needs_influxd
def test_a_database_that_is_not_there_says_how_to_make_it(influxd: StoreServer) -> None:
    for more in ({"database": "nowhere"}, {"database": "hazardgate", "retention_policy": "nowhere"}):
        ask(influxd, 'CREATE DATABASE "hazardgate"')
        store = open_store(store_config(influxd, **more), "demo")
        with pytest.raises(StoreRefusedError, match="hazardgate store setup") as refused:
            store.write(samples_of([Row("T", T0, 1.0)]))
        assert "hazardgate store setup" in refused.value.message_zh
        store.close()
    store = open_store(store_config(influxd, database="nowhere"), "demo")
    with pytest.raises(StoreRefusedError, match="hazardgate store setup"):
        store.range("T", T0, T0 + 1)
    store.close()


@needs_influxd
def test_the_wrong_kind_says_so(influxd: StoreServer, victoria: StoreServer) -> None:
    """1.6 has no /api/v2/write."""
    store = open_store(store_config(influxd, kind="influxdb2"), "demo")
    with pytest.raises(StoreRefusedError, match="check kind"):
        store.write(samples_of([Row("T", T0, 1.0)]))
    store.close()


@needs_influxd
def test_a_server_with_users_says_who_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_SECRET", "pass word")
    with with_users(tmp_path, {"admin": "pass word", "joe": "pass word"}) as server:
        def opened(**more: object) -> object:
            return open_store(store_config(server, secret_env="STORE_SECRET", **more), "demo")

        sample = samples_of([Row("T", T0, 1.0)])
        set_up(opened(username="admin"))
        assert opened(username="admin").write(sample).rows == 1
        for who, advice in ((None, "secret_file"), ("nobody", "username"), ("joe", "username")):
            store = opened(**({"username": who} if who else {}))
            with pytest.raises(StoreRefusedError, match=advice) as refused:
                store.write(sample)
            assert "storage.stores.store" in refused.value.message_zh
            with pytest.raises(StoreRefusedError):
                store.range("T", T0, T0 + 1)
            store.close()


@needs_influxd
def test_a_forged_line_is_found_and_all_others_are_stored(influxd: StoreServer) -> None:
    """A NaN among lines: 1.6 stores the others, says 400, and quotes the line."""
    ask(influxd, 'CREATE DATABASE "forged"')
    store = open_store(store_config(influxd, database="forged"), "demo")
    lines = sample_lines(samples_of([Row("T", T0 + at, float(at)) for at in range(500)]), "demo").text
    lines[123] = lines[123].replace("value=123.0", "value=NaN")
    lines[400] = "hazard_sample,point=T"
    said = store.link.write("\n".join(lines).encode(), "ms")
    assert isinstance(said, Partial)
    assert set(store_lines(lambda body: store.link.write(body, "ms"), lines)) == {123, 400}
    assert len(store.range("T", T0, T0 + 500)) == 498
    store.close()


@needs_influxd
def test_a_field_of_another_type_costs_only_its_own_rows(influxd: StoreServer) -> None:
    """Somebody wrote `raw` as an integer: rows with a raw value are named, the others stored; a wrong `value` is refused whole."""
    ask(influxd, 'CREATE DATABASE "conflict"')
    store = open_store(store_config(influxd, database="conflict"), "demo")
    assert store.link.write(f"hazard_sample,point=X,site=demo raw=1i {T0}".encode(), "ms") == Stored()
    rows = [Row("T", T0 + at, float(at), *((69, 7.5) if at in (3, 250, 499) else ())) for at in range(500)]
    written = store.write(samples_of(rows))
    assert [each.source_ms - T0 for each in written.rejected] == [3, 250, 499]
    assert all("conflict" in each.reason for each in written.rejected)
    assert written.rows == len(store.range("T", T0, T0 + 500)) == 497
    ask(influxd, 'CREATE DATABASE "conflict2"')
    other = open_store(store_config(influxd, database="conflict2"), "demo")
    assert other.link.write(f"hazard_sample,point=X,site=demo value=1i {T0}".encode(), "ms") == Stored()
    with pytest.raises(StoreRefusedError, match="database") as refused:
        other.write(samples_of(rows))
    assert "database" in refused.value.message_zh
    store.close()
    other.close()


@needs_influxd
def test_what_was_answered_for_survives_a_kill(tmp_path: Path) -> None:
    with running_store(INFLUXD, tmp_path) as server:
        store = open_store(store_config(server), "demo")
        set_up(store)
        rng = np.random.default_rng(5)
        parts = [
            samples_of([Row(f"T{tag}", T0 + 1_000 * (100 * part + at), float(rng.normal())) for tag in range(20) for at in range(100)])
            for part in range(3)
        ]  # fmt: skip
        for part in parts:
            assert store.write(part).rows == len(part)
            server.kill()
            with pytest.raises(StoreAwayError):
                store.write(part)
            server.start()
        held = concatenated(list(store.day(T0)))
        wanted = concatenated(parts)
        assert (len(held), held.digest()) == (len(wanted), wanted.digest())
        store.close()


@needs_victoria
def test_victoria_needs_no_set_up_and_tells_its_processes_apart(tmp_path: Path) -> None:
    with running_store(VICTORIA, tmp_path) as server:
        store = open_store(store_config(server), "demo")
        assert isinstance(store, VictoriaHistorian)
        (done,) = set_up(store)
        assert "-retentionPeriod=400d" in done.text
        assert "-retentionPeriod=400d" in done.text_zh
        assert not done.changed
        assert health(store).database is None
        assert not store.restarted()
        for _ in range(2):
            store.write(samples_of([Row("T", T0, 1.0)]))
            assert not store.restarted()
            store.link.clock = lambda: time.monotonic() + 10.0
            server.kill()
            with pytest.raises(StoreAwayError):
                store.restarted()
            server.start()  # often within the second, which is what it tells of its start
            assert store.restarted()
            assert store.restarted()
            store.close()
            store = open_store(store_config(server), "demo")
            assert isinstance(store, VictoriaHistorian)
            assert not store.restarted()
        store.close()


def _told_to_check_kind(server: StoreServer, kind: str) -> None:
    store = open_store(store_config(server, kind=kind, org="works"), "demo")
    for question in (set_up, health):
        with pytest.raises(StoreRefusedError) as refused:
            question(store)
        for text in (str(refused.value), refused.value.message_zh):
            assert "kind" in text
            assert "storage.stores.store" in text
    store.close()


@needs_influxd
@pytest.mark.parametrize("kind", ["influxdb2", "influxdb3", "victoriametrics"])
def test_an_influxdb_1_under_another_kind_is_told_by_setup_and_status(influxd: StoreServer, kind: str) -> None:
    _told_to_check_kind(influxd, kind)


@needs_victoria
@pytest.mark.parametrize("kind", ["influxdb1", "influxdb2", "influxdb3"])
def test_a_victoria_under_another_kind_is_told_by_setup_and_status(victoria: StoreServer, kind: str) -> None:
    _told_to_check_kind(victoria, kind)


@needs_influxd
@pytest.mark.parametrize(("days", "kept"), [(0.0, "0s"), (0.01, "1h0m0s"), (1.5, "36h0m0s")])
def test_a_period_of_less_than_an_hour_is_one_and_not_for_ever(influxd: StoreServer, days: float, kept: str) -> None:
    store = open_store(store_config(influxd, database=f"d{round(days * 100)}", retention_days=days), "demo")
    for _ in range(2):
        set_up(store)
        assert [row[1] for row in store.ask(f'SHOW RETENTION POLICIES ON "{store.config.database}"', 5.0)] == [kept]
    store.close()


@needs_influxd
def test_who_may_not_make_databases_is_told_who_may(tmp_path: Path) -> None:
    (tmp_path / "joe").write_text("pass word")
    with with_users(tmp_path / "server", {"admin": "pass word", "joe": "pass word"}) as server:
        store = open_store(store_config(server, username="joe", secret_file="joe"), "demo", tmp_path)
        with pytest.raises(StoreRefusedError, match="administrator") as refused:
            set_up(store)
        assert "管理员" in refused.value.message_zh
        assert "hazardgate store setup" in refused.value.message_zh
        store.close()


@needs_victoria
def test_victoria_that_does_not_tell_of_its_starts_is_refused(tmp_path: Path) -> None:
    """What a kill of it loses could not be seen."""
    server = StoreServer(VICTORIA, tmp_path, {"metricsAuthKey": "somebody else's"})
    server.start()
    store = open_store(store_config(server), "demo")
    try:
        assert isinstance(store, VictoriaHistorian)
        for ask in (store.restarted, lambda: set_up(store), lambda: health(store)):
            with pytest.raises(StoreRefusedError, match="metricsAuthKey") as refused:
                ask()
            assert "401" in refused.value.message_zh
    finally:
        store.close()
        server.stop()


METRICS = """vm_app_start_timestamp {}
vm_http_requests_total{{path="/influx/query", protocol="influx"}} 9
vm_http_requests_total{{path="/influx/write", protocol="influx"}} {}
"""


@pytest.mark.parametrize(
    ("before", "after", "restarted"),
    [
        pytest.param((1_700_000_000, 0), (1_700_000_000, 2), False, id="the same, and counted what we wrote"),
        pytest.param((1_700_000_000, 5), (1_700_000_000, 40), False, id="others write, too"),
        pytest.param((1_700_000_000, 0), (1_700_000_001, 2), True, id="another second"),
        pytest.param((1_700_000_000, 0), (1_700_000_000, 1), True, id="in the same second, with one of our two writes"),
        pytest.param((1_700_000_000, 5), (1_700_000_000, 2), True, id="in the same second, with both, but none of what was before"),
    ],
)
def test_a_victoria_started_anew_within_the_second_is_told_by_what_it_counted(
    before: tuple[int, int], after: tuple[int, int], restarted: bool
) -> None:
    told = [before]

    def serve(line: socket.socket, request: bytes) -> None:
        is_write = b"/api/v2/write" in request
        says("204 No Content" if is_write else "200 OK", b"" if is_write else METRICS.format(*told[0]).encode())(line, request)

    with peer(serve) as (url, _):
        store = VictoriaHistorian(TimeSeriesStoreConfig(id="plant", kind="victoriametrics", url=url), "demo")
        assert not store.restarted()
        for _ in range(2):
            store.write(samples_of([Row("T", T0, 1.0)]))
        assert not store.restarted(), "what it counted just now it may tell later"
        now_s = time.monotonic()
        store.link.clock = lambda: now_s + 10.0
        told[0] = after
        assert store.restarted() is restarted


def test_a_write_that_a_proxy_answered_is_none_that_victoria_has_to_count() -> None:
    """A proxy's limit of a request's size: it says 413 to the whole, and the halves go through."""
    told = [0]

    def serve(line: socket.socket, request: bytes) -> None:
        if b"/api/v2/write" not in request:
            says("200 OK", METRICS.format(1_700_000_000, told[0]).encode())(line, request)
        elif len(request) > 600:
            says("413 Request Entity Too Large")(line, request)
        else:
            told[0] += 1
            says("204 No Content")(line, request)

    with peer(serve) as (url, _):
        store = VictoriaHistorian(TimeSeriesStoreConfig(id="plant", kind="victoriametrics", url=url), "demo")
        assert not store.restarted()
        assert store.write(samples_of([Row("T", T0 + at, 1.0) for at in range(16)])).rejected == ()
        assert told[0] > 1
        now_s = time.monotonic()
        store.link.clock = lambda: now_s + 10.0
        assert not store.restarted(), "it would be fed the same for ever"


@needs_influxd
def test_what_is_older_than_the_store_keeps_is_no_fault_of_anybody(influxd: StoreServer) -> None:
    """Its own retention drops it, and the rest is stored; the year is that of the server's clock."""
    store = open_store(store_config(influxd, database="short", retention_days=1.0), "demo")
    set_up(store)
    now_ms = time.time_ns() // 1_000_000
    rows = [Row("T", now_ms - 30 * DAY_MS, 1.0), Row("T", now_ms, 2.0)]
    written = store.write(samples_of(rows))
    assert written.rejected == ()
    assert store.range("T", now_ms - 100 * DAY_MS, now_ms + 1).value.tolist() == [2.0]
    store.close()


def _taken_packed(server: StoreServer) -> None:
    store = open_store(store_config(server, database="packed"), "demo")
    set_up(store)
    store.link._zip = True
    rows = [Row("T", T0 + at * 1000, float(at)) for at in range(200)]
    assert store.write(samples_of(rows)).rejected == ()
    if server.kind == VICTORIA:
        flush(server.url)
    assert store.range("T", T0, T0 + DAY_MS).value.tolist() == [float(at) for at in range(200)]
    store.close()


@needs_influxd
def test_influxdb_takes_what_is_packed_for_the_network(influxd: StoreServer) -> None:
    """On loopback, where all of these servers are, nothing is."""
    _taken_packed(influxd)


@needs_victoria
def test_victoria_takes_what_is_packed_for_the_network(victoria: StoreServer) -> None:
    _taken_packed(victoria)


@needs_influxd
def test_a_store_whose_clock_runs_ahead_is_told_and_not_fed_into_the_void(
    influxd: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours is set back here: what is of now for us is older than it keeps for the server."""
    store = open_store(store_config(influxd, database="ahead", retention_days=1.0), "demo")
    set_up(store)
    now_ms = time.time_ns() // 1_000_000 - 30 * DAY_MS
    monkeypatch.setattr("gateway.historian.influx.store.time.time", lambda: now_ms / 1000)
    with pytest.raises(StoreRefusedError, match="clock"):
        store.write(samples_of([Row("T", now_ms - 2_000, 1.0), Row("T", now_ms - 1_000, 2.0)]))
    assert store.write(samples_of([Row("T", now_ms - 2 * DAY_MS, 1.0)])).rejected == (), "what is old may be dropped"
    store.close()


@needs_victoria
def test_victoria_shows_the_newest_sample_whatever_its_query_page_hides(tmp_path: Path) -> None:
    """With its own setting for what is hidden, thirty seconds."""
    server = StoreServer(VICTORIA, tmp_path, {"search.latencyOffset": "30s"})
    server.start()
    store = open_store(store_config(server), "demo")
    try:
        now_ms = time.time_ns() // 1_000_000
        store.write(samples_of([Row("T", now_ms - 100_000, 1.0), Row("T", now_ms - 1_000, 2.0)]))
        flush(server.url)
        assert store.latest(["T"]).value.tolist() == [2.0]
        assert store.range("T", now_ms - DAY_MS, now_ms + 1).value.tolist() == [1.0, 2.0]
    finally:
        store.close()
        server.stop()
