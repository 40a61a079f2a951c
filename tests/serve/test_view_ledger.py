"""The ledger as a bystander meets it: not there yet, another one, restored, removed, busy. States, never exceptions."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from gateway.core.ledger import Ledger
from gateway.serve import view_start
from gateway.serve.view import LedgerView
from gateway.serve.view_errors import LedgerAwayError
from tests.gateway.bench import LEDGER_NAME, copy_ledger
from tests.gateway.field import GAS, LEVEL
from tests.serve.chain import Chain


@pytest.fixture
def chain(tmp_path: Path):  # type: ignore[no-untyped-def]
    chain = Chain(tmp_path)
    chain.view.refresh()
    yield chain
    chain.close()


def removed(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.unlink()
    apsw.Connection(str(path)).close()


def no_database(path: Path) -> None:
    path.unlink()
    path.write_text("this is no database, but it is long enough to be looked at" * 20, "utf-8")


def of_another_program(path: Path) -> None:
    path.unlink()
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE songs (name TEXT)")
    db.close()


def of_another_version(path: Path) -> None:
    path.unlink()
    Ledger(path, "PARK1").close()
    db = apsw.Connection(str(path))
    db.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    db.close()


def of_another_site(path: Path) -> None:
    path.unlink()
    Ledger(path, "PARK2").close()


def not_named_yet(path: Path) -> None:
    path.unlink()
    Ledger(path, "PARK1").close()


@pytest.mark.parametrize(
    ("happens", "state"),
    [
        pytest.param(removed, "missing", id="removed"),
        pytest.param(emptied, "missing", id="no tables yet"),
        pytest.param(not_named_yet, "missing", id="no id yet"),
        pytest.param(no_database, "foreign", id="no database"),
        pytest.param(of_another_program, "foreign", id="another program's"),
        pytest.param(of_another_version, "other_schema", id="another version's"),
        pytest.param(of_another_site, "other_site", id="another site's"),
    ],
)
def test_what_is_wrong_with_the_ledger_has_a_name(chain: Chain, happens: Callable[[Path], None], state: str) -> None:
    chain.born()
    for name in ("-wal", "-shm"):
        (chain.folder / (LEDGER_NAME + name)).unlink(missing_ok=True)
    happens(chain.folder / LEDGER_NAME)
    changes = chain.view.refresh()
    health = chain.view.health()
    assert (changes.reset, changes.health) == (True, True)
    assert (health.ledger, health.degraded) == (state, True)
    assert f"ledger.{state}" in health.reasons
    assert health.ledger_detail
    assert {now.quality for now in chain.view.tags()} <= {"BAD", "UNKNOWN"}
    assert not chain.view.refresh().any
    if state != "missing" or happens is removed:
        with pytest.raises(LedgerAwayError, match=rf"; .*\({state}: "):
            chain.view.alarms()


def test_a_view_may_start_before_core(tmp_path: Path) -> None:
    chain = Chain(tmp_path, started=False)
    shutil.move(chain.folder / LEDGER_NAME, tmp_path / "later")
    health = chain.view.health()
    assert (health.core, health.ledger, health.degraded) == ("never_started", "starting", True)
    assert chain.view.refresh().position.pos == 0
    health = chain.view.health()
    assert (health.core, health.ledger, health.heartbeat_age_ms) == ("never_started", "missing", None)
    assert {now.quality for now in chain.view.tags()} == {"UNKNOWN"}
    assert [edge.online for edge in chain.view.edges()] == [None, None]
    shutil.move(tmp_path / "later", chain.folder / LEDGER_NAME)
    assert chain.born().reset
    assert (chain.tag().quality, chain.view.health().ledger) == ("GOOD", "ok")
    chain.close()


def test_a_ledger_of_another_site_is_told_once_and_so_is_its_end(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gateway.serve.view")
    ledger = chain.folder / LEDGER_NAME
    theirs = chain.bench.site.model_copy(update={"site": "OTHER"})
    view = LedgerView(theirs, chain.folder, chain.bench.wall_ms, lambda: chain.bench.now_s)
    for _ in range(3):
        view.refresh()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("the ledger belongs to site PARK1, not OTHER; start serve with the site file")
    with pytest.raises(LedgerAwayError, match="belongs to site PARK1, not OTHER"):
        view.alarms()
    caplog.clear()
    aside = ledger.rename(ledger.with_name("aside"))
    for _ in range(3):
        view.refresh()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("core has made no ledger in serve's data folder; start core")
    assert line.endswith(f"(missing: {ledger}: No such file or directory)")
    aside.rename(ledger)
    caplog.clear()
    view.close()
    for _ in range(2):
        chain.view.refresh()
    assert caplog.records == []  # a ledger that is read says nothing


def test_a_ledger_that_comes_back_is_told(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gateway.serve.view")
    ledger = chain.folder / LEDGER_NAME
    aside = ledger.rename(ledger.with_name("aside"))
    chain.view.refresh()
    aside.rename(ledger)
    for _ in range(2):
        chain.view.refresh()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_restored_ledger_is_begun_anew(chain: Chain, tmp_path: Path) -> None:
    """The file is replaced by an older one, and core goes on with it under a new id."""
    chain.born()
    chain.scan({LEVEL: 3.0})
    backup = copy_ledger(chain.folder, tmp_path / "backup")
    for at in range(5):
        chain.scan({LEVEL: 11.0 + at})
    before = chain.view.refresh().position
    chain.bench.close()
    for path in chain.folder.glob(f"{LEDGER_NAME}*"):
        path.unlink()
    for path in backup.iterdir():
        shutil.copy(path, chain.folder / path.name)
    ledger = Ledger(chain.folder / LEDGER_NAME, "PARK1")
    ledger.renew_id("ledger-two")
    ledger.close()
    chain.beat(ledger="ledger-two")
    changes = chain.view.refresh()
    assert changes.reset
    assert changes.position.ledger_id == "ledger-two" != before.ledger_id
    assert changes.position.pos < before.pos
    assert (chain.tag().value, chain.tag().alarms) == (3.0, ())
    assert chain.view.alarms().items == ()
    chain.bench.ledger = Ledger(chain.folder / LEDGER_NAME, "PARK1")


def test_positions_that_go_back_begin_anew_whatever_the_id_says(chain: Chain) -> None:
    """A backup was copied over the file in place, and nobody renamed the ledger."""
    chain.born()
    position = chain.scan({LEVEL: 3.0}).position
    chain.scan({LEVEL: 4.0})
    db = apsw.Connection(str(chain.folder / LEDGER_NAME))
    db.execute("DELETE FROM log WHERE pos > ?", (position.pos,))
    db.close()
    changes = chain.view.refresh()
    assert (changes.reset, changes.position) == (True, position)
    assert chain.tag().value == 3.0


def test_a_busy_ledger_is_tried_again_before_anything_is_called_stale(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    chain.born()
    file = chain.view._file
    honest = file.rows

    def busy(*_: object) -> list[tuple[object, ...]]:
        raise LedgerAwayError("unreadable", "database is locked")

    monkeypatch.setattr(file, "rows", busy)
    chain.view.refresh()
    assert (chain.view.health().ledger, chain.tag().quality) == ("unreadable", "GOOD")
    for _ in range(11):
        chain.bench.now_s += 0.5
        chain.bench.loop.counters.cycles += 1
        chain.beat()
        chain.view.refresh()
    assert (chain.view.health().core, chain.tag().stale_cause) == ("running", "ledger")
    monkeypatch.setattr(file, "rows", honest)
    changes = chain.scan({LEVEL: 3.0})
    assert not changes.reset
    assert (chain.view.health().ledger, chain.tag().quality) == ("ok", "GOOD")


def test_core_may_crash_and_start_anew_beside_the_view(chain: Chain) -> None:
    chain.born()
    chain.scan({LEVEL: 3.0})
    chain.bench = chain.bench.crash()
    chain.edge.session_lost()
    assert not chain.born().reset
    assert chain.scan({LEVEL: 4.0}).tags == {LEVEL}
    assert chain.tag().value == 4.0


def test_a_log_far_behind_is_not_read_row_by_row(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.serve.view.BEHIND_ROWS_MAX", 20)
    chain.born()

    async def much() -> None:
        for at in range(30):
            chain.bench.deliver(chain.edge.scan({LEVEL: float(at % 5)}))
            await chain.bench.cycle(10)

    asyncio.run(much())
    assert chain.scan({LEVEL: 4.0}).reset
    assert chain.tag().value == 4.0


def test_a_start_reads_backwards_only_so_far(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """GAS spoke long ago only: within the bound it is unknown, and nothing looks normal."""
    chain.born()
    for at in range(30):
        chain.scan({LEVEL: float(at % 5)})
    monkeypatch.setattr(view_start, "NODE_ROWS_MAX", 10)
    fresh = chain.new_view()
    fresh.refresh()
    now = {each.tag: each for each in fresh.tags()}
    assert (now[LEVEL].value, now[LEVEL].quality) == (4.0, "GOOD")
    assert now[GAS].quality == "UNKNOWN"
    assert fresh.health().tags_unknown == 3
    fresh.close()


def test_what_was_heard_before_the_births_and_deaths_looked_at_is_not_vouched_for(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GAS may be allowed a day of silence; its device may have died since, out of sight."""
    chain.born()
    for at in range(12):
        chain.scan({LEVEL: float(at % 5)})
    monkeypatch.setattr(view_start, "SESSION_ROWS_MAX", 5)
    fresh = chain.new_view()
    fresh.refresh()
    now = {each.tag: each for each in fresh.tags()}
    assert (now[LEVEL].quality, now[GAS].quality, now[GAS].stale_cause) == ("GOOD", "BAD", "unwatched")
    assert chain.tag(GAS).quality == "GOOD"
    fresh.close()


def test_nothing_stays_open_between_calls(chain: Chain) -> None:
    """A transaction held open would keep the write-ahead log from being folded in."""
    chain.born()
    chain.view.alarms()
    chain.history(memory=False)
    db = chain.bench.ledger._db
    busy, _, _ = next(iter(db.execute("PRAGMA wal_checkpoint(TRUNCATE)")))
    assert busy == 0


def test_of_a_newer_ledger_nobody_says_that_an_upgrade_would_help() -> None:
    newer, older = (LedgerAwayError("other_schema", "d", found=found, wanted="2") for found in ("3", "1"))
    assert "newer program" in newer.told
    assert "由更新的程序写入" in newer.told_zh
    assert "hazardgate upgrade" not in newer.told + newer.told_zh
    assert "hazardgate upgrade" in older.told
