"""The live view on terminals of three sizes, in both languages: what counts is never cut, what is left out is told."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.cells import cell_len
from rich.console import Console

from cli.alarms import Listing
from cli.children import PartNow
from cli.demo_view import Seen, screen
from config import DEMO_SITE, SiteConfig, load_site

ALARMS = 30
SIZES = [(150, 42), (100, 30), (80, 24)]
STATES = {
    "zh": ("报警中未确认", "报警中已确认", "已恢复未确认"),
    "en": ("standing, unacked", "standing, acked", "returned, unacked"),
}
GRADES = {"zh": {4: "红", 3: "橙", 2: "黄", 1: "蓝"}, "en": {4: "red", 3: "orange", 2: "yellow", 1: "blue"}}
MORE = {"zh": r"另有 (\d+) 条", "en": r"(\d+) more"}
ROW = r"(\w+)\s+\d\d:\d\d:\d\d\s+(\S.*?)\s+(HH|H)\s+([\d.]+ mg/m3(?:\s+[\d.]+ mg/m3)*)\s+({states})(?:\s|│)"


@pytest.fixture(scope="module")
def site() -> SiteConfig:
    return load_site(DEMO_SITE)


def seen(site: SiteConfig, alarms: int = ALARMS) -> Seen:
    longest = max(site.tags, key=lambda tag: len(tag.id)).id
    bodies = [
        {"grade": 4 - at % 4, "start_ms": 1_700_000_000_000 + at * 1000, "tag": longest, "limit": ("HH", "H")[at % 2],
         "value": 1000.0 + at, "unit": "mg/m3",
         "state": ("ACTIVE_UNACKED", "ACTIVE_ACKED", "RETURNED_UNACKED")[at % 3]}
        for at in range(alarms)
    ]  # fmt: skip
    for at, body in enumerate(bodies):
        body["id"] = f"{at:032x}"
    listing = Listing(bodies, alarms, start_values={str(body["id"]): 900.0 for body in bodies})
    listing.standing.update({3: 11, 2: 7, 1: 2})
    city = {"down": True, "accepted": 120, "due": 3}
    beat = {"at_ms": time.time() * 1000, "samples_committed": 987_654, "deliveries": {"CITY": city}}
    edges = [{"edge": edge.id, "samples_taken": 987_654, "samples_acked": 987_654} for edge in site.edges]
    values = {tag.id: (tag.limit_rows()[0].setpoint, 192, 0) for tag in site.tags if tag.limit_rows()}
    values[longest] = (777.0, 192, 0)
    return Seen(beat, edges, listing, values)


def rendered(look: Seen, site: SiteConfig, size: tuple[int, int]) -> list[str]:
    console = Console(width=size[0], height=size[1], record=True, file=io.StringIO())
    console.print(screen(look, site, "chlorine-leak", 12.0, size))
    return console.export_text().rstrip("\n").split("\n")


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("size", SIZES)
def test_what_counts_is_whole_and_the_rest_is_counted(site, size, lang, monkeypatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", lang)
    lines = rendered(seen(site), site, size)
    text = "\n".join(lines)
    assert len(lines) == size[1]
    assert all(cell_len(line) == size[0] for line in lines[:-1])
    found = re.findall(ROW.format(states="|".join(STATES[lang])), text)
    for at, (grade, _, limit, value, state) in enumerate(found):
        assert grade == GRADES[lang][4 - at % 4]
        then = ["900 mg/m3", f"{1000 + at} mg/m3"] if at % 3 == 2 else [f"{1000 + at} mg/m3"]
        assert limit == ("HH", "H")[at % 2]
        assert re.split(r"(?<=m3)\s+", value) == [*(then if size == (100, 30) else ()), "777 mg/m3"]
        assert state == STATES[lang][at % 3]
    told = [int(number) for number in re.findall(MORE[lang], text)]
    assert ALARMS - len(found) in told or len(found) == ALARMS
    heading = {"zh": "报警中：红 0  橙 11  黄 7  蓝 2", "en": "standing: red 0  orange 11  yellow 7  blue 2"}[lang]
    assert heading in text
    assert {"zh": "Ctrl-C 结束", "en": "Ctrl-C ends"}[lang] in lines[-1]


@pytest.mark.parametrize(("size", "rows_min"), [((150, 42), 30), ((100, 30), 8), ((80, 24), 4)])
def test_the_height_is_used(site, size, rows_min, monkeypatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    text = "\n".join(rendered(seen(site), site, size))
    assert len(re.findall(ROW.format(states="|".join(STATES["en"])), text)) >= rows_min


@pytest.mark.parametrize("size", SIZES)
def test_no_line_of_the_alarms_stays_empty_while_some_are_left_out(site, size, monkeypatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    lines = rendered(seen(site, alarms=60), site, size)
    shown = [at for at, line in enumerate(lines) if re.search(ROW.format(states="|".join(STATES["en"])), line)]
    assert re.search(rf"^│ {60 - len(shown)} more", lines[shown[-1] + 1])
    assert lines[shown[-1] + 2].startswith("└")


def test_few_alarms_have_no_last_line(site, monkeypatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    look = seen(site, alarms=3)
    look.values = {}
    assert not re.search(MORE["en"], "\n".join(rendered(look, site, (80, 24))))


@pytest.mark.parametrize("size", SIZES)
def test_a_receiver_that_is_down_shows_at_every_size(site, size, monkeypatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    text = "\n".join(rendered(seen(site), site, size))
    assert re.search(r"(CITY|deliveries) +down +(accepted )?120 +(due )?3", text)


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("size", SIZES)
def test_a_ledger_that_stalls_takes_nothing_from_the_chain(site, size, lang, monkeypatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", lang)
    look = seen(site)
    look.heartbeat["unjournaled"] = True
    text = "\n".join(rendered(look, site, size))
    assert {"zh": "账本写不进：报警标记为未入账", "en": "ledger stalls: alarms go out unjournaled"}[lang] in text
    assert re.search({"zh": "采集终端 E1 .*已确认 987654", "en": "edge E1 .*acked 987654"}[lang], text)


def all_parts(site: SiteConfig, **changes: PartNow) -> dict[str, PartNow]:
    names = ["broker", "platform", "plant", "core", "serve", *(f"edge-{edge.id}" for edge in site.edges)]
    return {name: PartNow(100 + at, 0) for at, name in enumerate(names)} | changes


def chain_rows(look: Seen, site: SiteConfig, size: tuple[int, int]) -> dict[str, str]:
    """The lines of the chain's panel, by the name of the part."""
    rows = (re.match(r"│ +((?:edge )?\w+) +(.*?) *│", line) for line in rendered(look, site, size))
    found: dict[str, str] = {}
    for row in rows:
        if row is not None:
            found.setdefault(row[1], re.sub(" +", " ", row[2]))
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("core", "said_pid", "shown"),
    [
        pytest.param(PartNow(103, 0), 103, "up committed 987654 commit 0.0 ms restarts 0", id="up"),
        pytest.param(PartNow(None, 0), 103, "restarting committed 987654 commit 0.0 ms restarts 0", id="killed a moment ago"),
        pytest.param(PartNow(999, 1), 103, "starting committed 987654 commit 0.0 ms restarts 1", id="its heartbeat is the dead one's"),
        pytest.param(PartNow(999, 1), 999, "up committed 987654 commit 0.0 ms restarts 1", id="up again"),
    ],
)
def test_a_part_that_died_is_shown_at_once_and_its_restarts_are_counted(site, size, core, said_pid, shown, monkeypatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    look = seen(site)
    look.heartbeat |= {"pid": said_pid, "connected": True}
    look.parts = all_parts(site, core=core, serve=PartNow(104, 2))
    first = site.edges[0].id
    look.edges[0] |= {"at_ms": time.time() * 1000, "pid": look.parts[f"edge-{first}"].pid, "connected": False}
    rows = chain_rows(look, site, size)
    assert rows["core"] == shown
    assert rows["serve"] == "up restarts 2"
    assert rows["broker"] == "up restarts 0"
    assert rows[f"edge {first}"].startswith("down " if shown.startswith("up") else "waits for core ")
    assert ("777 mg/m3" in "\n".join(rendered(look, site, size))) is shown.startswith("up")  # no value that nobody follows


def test_a_part_of_the_field_shows_when_it_fails(site, monkeypatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    look = seen(site)
    look.parts = all_parts(site)
    assert "plant" not in chain_rows(look, site, (150, 42))
    look.parts = all_parts(site, plant=PartNow(None, 3))
    assert chain_rows(look, site, (150, 42))["plant"] == "restarting restarts 3"


def test_columns_and_zone_are_named(site, monkeypatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    look = seen(site)
    look.values[look.alarms.alarms[0]["tag"]] = (777.0, 0x40, 0)  # uncertain
    text = "\n".join(rendered(look, site, (180, 42)))
    assert re.search(r"grade +start +subject +limit +at start +at return +now +state", text)
    assert "Alarms (times CST)" in text
    assert "06:13:20" in text  # 22:13:20 UTC
    assert "777 mg/m3 ?" in text


@pytest.mark.parametrize("size", [(20, 5), (40, 10), (111, 24), (300, 80)])
def test_it_draws_at_any_size(site, size) -> None:
    assert len(rendered(seen(site), site, size)) == size[1]


@pytest.mark.parametrize("size", SIZES)
def test_how_to_look_stands_whole_however_narrow(site, size, monkeypatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    command = "sh /tmp/hazardgate-demo-abcdefgh/watch.sh"
    how = f"look and acknowledge in another terminal:\n{command}"
    console = Console(width=size[0], height=size[1], record=True, file=io.StringIO())
    console.print(screen(seen(site), site, "chlorine-leak", 12.0, size, how))
    lines = console.export_text().rstrip("\n").split("\n")
    assert len(lines) == size[1]
    assert command in (line.rstrip() for line in lines)  # on a line of its own
    assert "Ctrl-C ends" in lines[-1]
