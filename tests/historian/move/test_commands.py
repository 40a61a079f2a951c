"""`export`, `import` and `store copy` as people meet them: one sentence, in their language, an exit code that says how it went."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import apsw
import pytest
import typer

from cli.when import typed_time
from config import DEMO_SITE, load_site
from gateway.historian import EmbeddedHistorian
from gateway.historian.samples import DAY_MS, Samples
from gateway.serve import HistoryReader
from tests.cli.invoking import run
from tests.gateway.field import LEVEL
from tests.gateway.field import T0_MS as CHAIN_MS
from tests.historian.move.samples import T0_MS, many, rows_of
from tests.historian.move.test_load import A, B, inside
from tests.serve.chain import Chain
from tests.stores import INFLUXD, ask, needs_influxd, running_store

SITE = str(DEMO_SITE)
SHANGHAI = ZoneInfo("Asia/Shanghai")


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with three days of two tags, and no ledger."""
    folder = tmp_path / "data"
    with closing(EmbeddedHistorian(folder / "historian")) as store:
        store.write(inside(many([A, B], 500, step_ms=480_000)))
    return folder


def everything(folder: Path) -> list[tuple[object, ...]]:
    with closing(EmbeddedHistorian(folder / "historian")) as store:
        return [row[:5] for day in store.days() for piece in store.day(day) for row in rows_of(piece)]


# ------------------------------------------------------------------ times


@pytest.mark.parametrize(
    ("text", "end", "expected"),
    [
        ("2025-10-09", False, "2025-10-09T00:00:00+08:00"),
        ("2025-10-09", True, "2025-10-10T00:00:00+08:00"),
        ("2025-10-09T08:30", True, "2025-10-09T08:30:00+08:00"),
        ("2025-10-09T08:30:00Z", False, "2025-10-09T08:30:00+00:00"),
    ],
)
def test_times_are_the_sites_and_a_date_as_an_end_includes_its_day(text: str, end: bool, expected: str) -> None:
    assert typed_time(text, SHANGHAI, end=end) == round(datetime.fromisoformat(expected).timestamp() * 1000)


@pytest.mark.parametrize("text", ["", "today", "2025-13-01", "2025-10-09T25:00", "9999-12-31", "../../x"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        typed_time(text, SHANGHAI, end=True)


def test_an_hour_that_clocks_skipped_is_refused() -> None:
    with pytest.raises(typer.BadParameter):
        typed_time("2025-03-09T02:30", ZoneInfo("America/New_York"))


# ------------------------------------------------------------------ export and import


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_what_is_exported_is_imported_into_another_gateway_as_it_was(data: Path, tmp_path: Path, ending: str) -> None:
    out, other = tmp_path / f"out.{ending}", tmp_path / "other"
    (other / "core").mkdir(parents=True)
    done = run("export", SITE, "--data", data, "--all", "--from", "2025-10-09", "--to", "2025-10-12", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output.splitlines()[-1])["rows"] == 1_000
    dry = run("import", SITE, out, "--data", other, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "dry run: nothing was written" in dry.output
    assert not (other / "historian").exists()
    done = run("import", SITE, out, "--data", other)
    assert done.exit_code == 0, done.output
    assert "1000 samples" in done.output
    assert everything(other) == everything(data)
    again = run("import", SITE, out, "--data", other)
    assert "all of it was there already" in again.output
    assert everything(other) == everything(data)


@pytest.mark.fault("F73")
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_export_of_what_is_partly_damaged_ends_with_1_names_it_and_its_import_invents_nothing(
    data: Path, tmp_path: Path, ending: str
) -> None:
    whole = everything(data)
    path = sorted((data / "historian/samples").glob("2025-10-10/*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:100])
    out, other = tmp_path / f"out.{ending}", tmp_path / "other"
    (other / "core").mkdir(parents=True)
    asked = ("export", SITE, "--data", data, "--tag", f"{A},{B}", "--from", "2025-10-09", "--to", "2025-10-12", "--out", out)
    done = run(*asked)
    assert done.exit_code == 1, done.output
    assert f"samples/2025-10-10/{path.name}: it is cut short, or changed" in done.output
    assert "not whole: 1 stretches are stored and cannot be read, of 2 tags" in done.output
    told = json.loads(run(*asked, "--force", "--json").output.splitlines()[-1])
    left = [row for row in whole if not T0_MS + DAY_MS <= int(str(row[1])) < T0_MS + 2 * DAY_MS]
    assert (told["rows"], told["tags_damaged"], [each["file"] for each in told["damaged"]]) == (
        len(left), 2, [f"samples/2025-10-10/{path.name}"]
    )  # fmt: skip
    done = run("import", SITE, out, "--data", other)
    assert done.exit_code == 0, done.output
    assert "this export was not whole: 2 stretches were damaged then" in done.output
    assert everything(other) == left


def test_an_export_says_what_it_did_and_refuses_in_one_sentence(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.csv"
    asked = ("export", SITE, "--data", data, "--tag", f"{A}, {B}", "--from", "2025-10-09T08:00", "--to", "2025-10-09")
    done = run(*asked, "--out", out)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"{out}: 240 rows, ")
    text = out.read_bytes()
    assert text.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(text.decode("utf-8-sig"), newline="")))
    assert rows[0]["time"] == "2025-10-09T08:00:00.000+08:00"
    assert rows[0]["name_zh"] == next(tag.name.zh for tag in load_site(DEMO_SITE).tags if tag.id == A)
    done = run(*asked, "--out", out)
    assert (done.exit_code, "not overwritten" in done.output) == (2, True)
    assert run(*asked, "--out", out, "--force", "--no-bom").exit_code == 0
    assert not out.read_bytes().startswith(b"\xef\xbb\xbf")
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    for wrong, told in (
        (("--out", tmp_path / "x.doc"), "文件名须以"),
        (("--out", data / "historian" / "x.csv"), "存放网关自己的文件"),
        (("--out", data / "x.csv"), "存放网关自己的文件"),
        (("--out", tmp_path / "y.csv", "--all"), "不能同时"),
        (("--out", tmp_path / "y.csv", "--tag", A.lower()), f"是否为 {A}？"),
        (("--out", tmp_path / "none" / "x.csv"), "没有此文件夹"),
        (("--out", tmp_path / "y.csv", "--tag", "NO.SUCH"), "没有测点"),
        (("--out", tmp_path / "y.csv", "--data", tmp_path / "nowhere"), "数据目录"),
    ):
        done = run(*asked, *wrong)
        assert done.exit_code == 2, done.output
        assert told in done.output
        assert "Traceback" not in done.output
    assert run("export", SITE, "--data", data, "--from", "2025-10-09", "--out", tmp_path / "z.csv").exit_code == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data", "out.csv"]


def test_an_export_has_what_is_not_sealed_yet(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    try:
        chain.view.refresh()
        chain.born()
        for value in (3.0, 4.0, 45.0):
            chain.scan({LEVEL: value})
        with closing(HistoryReader(chain.bench.site, chain.bench.folder)) as reader:
            found = reader.range(LEVEL, CHAIN_MS, CHAIN_MS + 10_000)
        assert [row[1:5] for row in rows_of(found)] == [
            (CHAIN_MS, 0.0, 192, None), (CHAIN_MS + 100, 3.0, 192, None), (CHAIN_MS + 200, 4.0, 192, None),
            (CHAIN_MS + 300, 30.0, 69, 45.0),
        ]  # fmt: skip
    finally:
        chain.close()


def test_a_tag_that_the_site_has_no_more_can_be_exported_and_one_it_never_had_cannot(data: Path, tmp_path: Path) -> None:
    chain = Chain(data, config=load_site(DEMO_SITE))
    chain.close()
    with closing(apsw.Connection(str(data / "core" / "ledger.sqlite3"))) as db:
        db.execute("INSERT INTO tag (id, name) VALUES (99999, 'OLD.LEVEL')")
    with closing(EmbeddedHistorian(data / "historian")) as store:
        store.write(many(["OLD.LEVEL"], 10))
    asked = ("export", SITE, "--data", data, "--from", "2025-10-09", "--to", "2025-10-12")
    done = run(*asked, "--tag", f"OLD.LEVEL,{A}", "--out", tmp_path / "out.csv", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output.splitlines()[-1])["rows"] == 510
    done = run(*asked, "--tag", "OLD.LEVEN", "--out", tmp_path / "none.csv")
    assert (done.exit_code, "no tag 'OLD.LEVEN'" in done.output) == (2, True)


def test_everything_wrong_in_a_foreign_file_is_listed_with_its_line(data: Path, tmp_path: Path) -> None:
    foreign, mapping = tmp_path / "foreign.csv", tmp_path / "mapping.yaml"
    foreign.write_text("when,tag,value\n2025-10-09 08:00:00,x,1\nnever,x,\x1b[2J\n", "utf-8")
    mapping.write_text(
        "version: 1\nlayout: long\ntime: {column: when}\ntag_column: tag\nvalue_column: value\n"
        f"series: [{{source: x, tag: {A}X}}]\n", "utf-8",
    )  # fmt: skip
    before = everything(data)
    done = run("import", SITE, foreign, "--mapping", mapping, "--data", data)
    assert done.exit_code == 2
    assert f"the site has no tag {A}X; did you mean {A}?" in done.output
    assert f"{foreign}:3: [when] 'never' is no time of the format iso" in done.output
    assert "\x1b" not in done.output
    assert everything(data) == before
    mapping.write_text("version: 1\nlayout: both\n", "utf-8")
    done = run("import", SITE, foreign, "--mapping", mapping, "--data", data)
    assert done.exit_code == 2
    assert f"{mapping}:2:9" in done.output


# ------------------------------------------------------------------ store copy


def site_with(folder: Path, url: str) -> Path:
    text = DEMO_SITE.read_text("utf-8")
    path = folder / "site.yaml"
    stores = f"\nstorage:\n  stores:\n    - {{id: influx, kind: influxdb1, url: '{url}'}}\n"
    path.write_text(text.replace("\nstorage:\n", stores), "utf-8")
    return path


@needs_influxd
def test_a_copy_there_and_back_is_verified_day_by_day(data: Path, tmp_path: Path) -> None:
    with running_store(INFLUXD, tmp_path / "server") as server:
        ask(server, 'CREATE DATABASE "hazardgate"')
        site = site_with(tmp_path, server.url)
        done = run("store", "copy", site, "--from", "embedded", "--to", "influx", "--data", data)
        assert done.exit_code == 0, done.output
        assert "3 of 3 days verified; 1000 rows and 0 alarm events written" in done.output
        assert "rows and digest agree" in done.output
        again = json.loads(run("store", "copy", site, "--from", "embedded", "--to", "influx", "--data", data, "--json").output)
        assert (again["verified"], sum(day["written"] for day in again["days"])) == (True, 0)
        other = tmp_path / "other"
        (other / "historian").mkdir(parents=True)
        back = run("store", "copy", site, "--from", "influx", "--to", "embedded", "--data", other, "--since", "2025-10-10")
        assert back.exit_code == 0, back.output
        assert everything(other) == [row for row in everything(data) if int(str(row[1])) >= T0_MS + DAY_MS]


def test_a_copy_refuses_in_one_sentence(data: Path, tmp_path: Path) -> None:
    site = site_with(tmp_path, "http://127.0.0.1:9")
    for wrong, told in (
        (("--from", "embedded", "--to", "nowhere"), "there are embedded, influx"),
        (("--from", "embedded", "--to", "embedded"), "onto itself"),
        (("--from", "influx", "--to", "embedded"), "run it again to go on"),
        (("--from", "embedded", "--to", "influx", "--since", "2026-03-02", "--until", "2026-03-01"), "later than"),
        (("--from", "embedded", "--to", "influx", "--since", "2026-13-01"), "UTC"),
    ):
        done = run("store", "copy", site, *wrong, "--data", data)
        assert done.exit_code == 2, done.output
        assert told in done.output
        assert ("run it again" in done.output) == (told == "run it again to go on")


def test_a_day_that_cannot_be_proved_ends_with_1(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.historian.memory import MemoryHistorian
    from gateway.historian.store import Written

    class Deaf(MemoryHistorian):
        def write(self, samples: Samples, deadline_s: float = 30.0) -> Written:
            return Written(len(samples))

    monkeypatch.setattr("gateway.historian.influx.open_store", lambda *_: Deaf("influx"))
    done = run("store", "copy", site_with(tmp_path, "http://127.0.0.1:9"), "--from", "embedded", "--to", "influx", "--data", data)
    assert done.exit_code == 1
    assert "0 of 3 days verified" in done.output
    assert f"{datetime.fromtimestamp(T0_MS / 1000, UTC):%Y-%m-%d}  360 rows, 360 written: 360 missing, 0 different" in done.output
