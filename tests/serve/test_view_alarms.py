"""Alarms, deliveries and edges out of the ledger: pages, order, words."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import apsw
import pytest

from alerting import Act, ActKind, AlarmState, Category, State
from alerting.delivery import Attempt
from cli.watch.answers import read_alarm
from cli.watch.model import Model
from gateway.serve.answers import alarm_answer, json_of
from gateway.serve.models import AlarmListing, AlarmView, NoticeView, Position
from gateway.serve.view_alarms import AlarmWords, read_page
from gateway.serve.view_errors import BadCursorError
from gateway.serve.view_ledger import LedgerFile
from tests.gateway.field import GAS, LEVEL, PRESSURE, TEMP
from tests.serve.chain import Chain
from tests.serve.fakes import SITE, alarm_state


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """LEVEL went over H three times and stands over HH now, GAS stands over H; one old alarm is closed."""
    chain = Chain(tmp_path)
    chain.view.refresh()
    chain.born()
    for level in (12.0, 3.0, 12.0, 3.0, 25.0):
        chain.scan({LEVEL: level})
    chain.scan({GAS: 2.0})
    oldest = min(chain.view.alarms(state="all").items, key=lambda view: view.alarm.start_ms)
    act(chain, oldest.alarm.id, ActKind.ACKNOWLEDGE)
    act(chain, oldest.alarm.id, ActKind.CLOSE)
    yield chain
    chain.close()


def act(chain: Chain, alarm_id: str, kind: ActKind) -> None:
    import asyncio

    async def turn() -> None:
        done = asyncio.ensure_future(
            chain.bench.loop.act(Act(kind, alarm_id, "li", chain.bench.wall_ms(), "seen", "valve shut"), None)
        )
        await asyncio.sleep(0)
        await chain.bench.cycle()
        await done

    asyncio.run(turn())
    chain.beat()
    chain.view.refresh()


def listed(chain: Chain, **what: object) -> list[tuple[str, str, str]]:
    page = chain.view.alarms(**what)  # type: ignore[arg-type]
    return [(view.alarm.tag, view.alarm.limit, view.alarm.state.split("_")[0]) for view in page.items]


def test_open_alarms_stand_gravest_and_newest_first(chain: Chain) -> None:
    assert listed(chain) == [
        (GAS, "H", "ACTIVE"), (LEVEL, "HH", "ACTIVE"), (LEVEL, "H", "ACTIVE"), (LEVEL, "H", "RETURNED"),
    ]  # fmt: skip


class Table:
    """The ledger's table of alarms, as `read_page` asks for it."""

    def __init__(self, alarms: Iterable[AlarmState]) -> None:
        self.db = apsw.Connection(":memory:")
        self.db.execute("CREATE TABLE alarm (id TEXT, state TEXT, grade INTEGER, subject TEXT, start_ms INTEGER, body TEXT)")
        for alarm in alarms:
            row = (alarm.id, str(alarm.state), alarm.grade, alarm.tag, alarm.start_ms, json.dumps(alarm.to_json()))
            self.db.execute("INSERT INTO alarm VALUES (?, ?, ?, ?, ?, ?)", row)

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return list(self.db.execute(sql, parameters))


@pytest.mark.parametrize("limit", [1, 3, 500])
def test_open_alarms_come_in_the_order_of_the_screen(limit: int) -> None:
    """The screen keeps only so many from the top: what nobody has acknowledged must not fall out, returned or not."""
    kinds = itertools.product((state for state in State if state is not State.CLOSED), (1, 2, 3, 4), (5_000, 7_000))
    alarms = [
        alarm_state(id=f"{number:032x}", state=state, grade=grade, start_ms=start_ms)
        for number, (state, grade, start_ms) in enumerate(kinds)
    ]
    table, words = cast(LedgerFile, Table(alarms)), AlarmWords(SITE)
    found: list[AlarmView] = []
    before = None
    for _ in range(len(alarms)):
        page = read_page(
            table, words, state="open", grade_min=1, tag=None, before=before, limit=limit, position=Position("l", 1)
        )
        found += page.items
        before = page.next
        if before is None:
            break
    screen = Model()
    screen.alarms = {view.alarm.id: read_alarm(json.loads(json_of(alarm_answer(view)))) for view in found}
    assert len(screen.alarms) == len(alarms)
    assert [view.alarm.id for view in found] == [alarm.id for alarm in screen.in_order()]


def test_a_listing_may_be_narrowed(chain: Chain) -> None:
    assert listed(chain, state="closed") == [(LEVEL, "H", "CLOSED")]
    assert [tag for tag, _, _ in listed(chain, grade_min=4)] == [GAS, LEVEL]
    assert [limit for _, limit, _ in listed(chain, tag=LEVEL)] == ["HH", "H", "H"]
    starts = [view.alarm.start_ms for view in chain.view.alarms(state="all").items]
    assert len(starts) == 5
    assert starts == sorted(starts, reverse=True)


@pytest.mark.parametrize("state", ["open", "closed", "all"])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_join_to_the_whole(chain: Chain, state: AlarmListing, limit: int) -> None:
    whole = [view.alarm.id for view in chain.view.alarms(state=state).items]
    joined: list[str] = []
    before = None
    for _ in range(9):
        page = chain.view.alarms(state=state, before=before, limit=limit)
        assert len(page.items) <= limit
        joined += [view.alarm.id for view in page.items]
        before = page.next
        if before is None:
            break
    assert joined == whole


@pytest.mark.parametrize("before", ["", "x", "1.2", "1.4.1.5.'; DROP TABLE alarm", "9" * 300, "1.x.1.3.abc", "1..1.2.abc", "1.4.5.abc"])
def test_a_cursor_that_is_none_of_ours_is_refused(chain: Chain, before: str) -> None:
    if before == "1.4.1.5.'; DROP TABLE alarm":  # of the right shape: it is bound as text, and harmless
        chain.view.alarms(before=before)
        return
    with pytest.raises(BadCursorError):
        chain.view.alarms(before=before)


def test_one_alarm_with_its_steps_and_words(chain: Chain) -> None:
    closed = chain.view.alarms(state="closed").items[0].alarm.id
    view = chain.view.alarm(closed)
    assert view is not None
    assert [str(step.kind) for step in view.transitions] == ["raised", "returned", "acknowledged", "closed"]
    assert (view.value_at_start, view.alarm.value) == (12.0, 3.0)
    assert (view.kind, view.equipment, view.hazard_source, view.tag_name_en) == ("HIGH", "V1", "H1", LEVEL)
    assert "up wind" in view.guidance_en
    assert (view.alarm.closed_by, view.alarm.reason, view.alarm.measure) == ("li", "seen", "valve shut")
    assert chain.view.alarm("0" * 32) is None


def test_a_system_alarm_is_told_in_words(chain: Chain) -> None:
    chain.run(chain.edge.death())
    (view,) = (each for each in chain.view.alarms().items if each.alarm.category == "system")
    assert (view.kind, view.alarm.tag) == ("SYSTEM", "EDGE.E1.OFFLINE")
    assert "offline" in view.tag_name_en
    (edge,) = (each for each in chain.view.edges() if each.edge == "E1")
    assert (edge.online, edge.conditions) == (False, ("OFFLINE",))
    assert "edge.offline" in chain.view.health().reasons


@pytest.mark.parametrize(
    ("key", "word"),
    [("CORE.HISTORIAN.SPACE", "30 days"), ("CORE.STORE-influx.BEHIND", "time-series store"), ("CORE.LEDGER.SPACE", "its cap")],
)
def test_an_alarm_of_a_part_of_core_has_that_parts_words(key: str, word: str) -> None:
    view = AlarmWords(SITE).view(alarm_state(tag=key, limit="SYSTEM", category=Category.SYSTEM), None)
    assert word in view.tag_name_en
    assert view.tag_name_zh != key


def test_two_boxes_under_one_id_degrade_the_chain_until_a_person_closes_that(chain: Chain) -> None:
    chain.bench.loop.fact("EDGE.E1.IDENTITY", True)
    chain.run()
    health = chain.view.health()
    assert "edge.doubted" in health.reasons
    assert health.degraded
    chain.bench.loop.fact("EDGE.E1.IDENTITY", False)
    chain.run()
    assert "edge.doubted" not in chain.view.health().reasons


def test_changes_name_the_alarms(chain: Chain) -> None:
    changes = chain.scan({PRESSURE: 1.5}, 100)
    assert changes.alarms == ()
    changes = chain.scan({PRESSURE: 1.5}, 2_500)
    assert list(changes.alarms) == [view.alarm.id for view in chain.view.alarms(tag=PRESSURE).items]
    assert changes.deliveries
    assert chain.tag(PRESSURE).worst_grade == 3
    assert chain.view.health().standing == {1: 0, 2: 1, 3: 1, 4: 2}


# -- deliveries --


def attempt(notice: NoticeView, number: int, at_ms: int, outcome: str, status: int | None) -> Attempt:
    return Attempt(
        notice.notice_id, notice.receiver, notice.lane, notice.sequence, number, at_ms, 12, outcome, status, f"said {outcome}",
        None if outcome == "accepted" else at_ms + 1_000, outcome == "accepted", outcome == "refused", False,
    )  # fmt: skip


def test_receivers_and_their_notices(chain: Chain) -> None:
    notices = {notice.lane: notice for notice in reversed(chain.view.notices().items)}
    chain.bench.loop.attempts([
        attempt(notices["red"], 1, 1_000, "retry", 503), attempt(notices["red"], 2, 2_000, "accepted", 200),
        attempt(notices["yellow"], 1, 3_000, "refused", 400),
    ])  # fmt: skip
    assert chain.run().deliveries
    chain.beat(deliveries={"CITY0": {"due": 3, "accepted": 1, "down": False, "detail": "well"}})
    chain.view.refresh()
    (city,) = chain.view.deliveries()
    assert (city.down, city.detail, city.accepted) == (False, "well", 1)
    assert (city.last_accepted_ms, city.last_attempt_ms, city.last_outcome, city.last_status) == (2_000, 3_000, "refused", 400)
    lanes = {lane.lane: lane for lane in city.lanes}
    rows = chain.bench.ledger.reader.rows("SELECT lane, count(*), sum(state = 'due') FROM outbox GROUP BY lane")
    assert {lane: (lanes[lane].last_sequence, lanes[lane].due) for lane, _, _ in rows} == {
        lane: (count, due) for lane, count, due in rows
    }
    assert (city.parked, lanes["yellow"].parked) == (1, 1)
    (parked,) = chain.view.notices(state="parked").items
    assert (parked.notice_id, parked.attempts) == (notices["yellow"].notice_id, 1)
    (accepted,) = chain.view.notices(receiver="CITY0", state="accepted").items
    assert [(each.attempt, each.outcome, each.status) for each in accepted.attempt_list] == [(1, "retry", 503), (2, "accepted", 200)]
    assert chain.view.notices(receiver="CITY9").items == ()
    fresh = chain.new_view()
    fresh.refresh()
    assert fresh.deliveries()[0].last_accepted_ms == 2_000
    fresh.close()


def test_pages_of_notices_join_to_the_whole(chain: Chain) -> None:
    whole = [notice.notice_id for notice in chain.view.notices().items]
    first = chain.view.notices(limit=2)
    rest = chain.view.notices(before=first.next)
    assert [notice.notice_id for notice in (*first.items, *rest.items)] == whole
    assert len(first.items) == 2
    assert rest.next is None
    with pytest.raises(BadCursorError):
        chain.view.notices(before="1 OR 1")


def test_nobody_knows_of_receivers_and_edges_while_core_is_gone(chain: Chain) -> None:
    chain.bench.now_s += 6
    chain.view.refresh()
    assert [receiver.down for receiver in chain.view.deliveries()] == [None]
    assert [edge.online for edge in chain.view.edges()] == [None, None]


def test_what_core_says_of_a_receiver_is_told_though_no_row_is_new(chain: Chain) -> None:
    receiver = chain.bench.site.receivers[0].id
    chain.beat(deliveries={receiver: {"down": False, "detail": "", "accepted": 3}})
    assert chain.view.refresh().deliveries
    chain.beat(deliveries={receiver: {"down": False, "detail": "", "accepted": 4}})
    assert not chain.view.refresh().deliveries
    chain.beat(deliveries={receiver: {"down": True, "detail": "no answer", "accepted": 4}})
    assert chain.view.refresh().deliveries
    assert [each.down for each in chain.view.deliveries()] == [True]
    chain.bench.now_s += 6  # core is gone: nobody knows any more
    assert chain.view.refresh().deliveries
    assert [each.down for each in chain.view.deliveries()] == [None]


# -- edges --


def test_an_edge_that_only_sends_is_told_of_now_and_then(chain: Chain) -> None:
    chain.born()
    chain.view.refresh()
    told = sum("E1" in chain.scan({LEVEL: 3.0 + number / 100}, after_ms=1_000).edges for number in range(20))
    assert 3 <= told <= 6
    assert [edge.edge for edge in chain.view.edges({"E1"})] == ["E1"]
    assert [now.tag for now in chain.view.tags({LEVEL, "NO.SUCH"})] == [LEVEL]


def test_a_backlog_that_cannot_be_read_is_not_none(chain: Chain) -> None:
    chain.born()
    assert {edge.backlog_frames for edge in chain.view.edges()} == {0}
    for file in chain.folder.glob("ledger.sqlite3*"):
        file.rename(file.with_suffix(".away"))
    chain.view.refresh()
    assert {(edge.upto, edge.backlog_streams, edge.backlog_frames) for edge in chain.view.edges()} == {(None, None, None)}



@pytest.mark.fault("F26")
def test_what_is_missing_and_what_is_lost_is_told(chain: Chain) -> None:
    chain.edge.session_lost()
    chain.edge._open()
    for level in (3.0, 4.0, 5.0):
        chain.edge.offline_scan({LEVEL: level})
    chain.edge.session_lost()
    changes = chain.born()
    assert "E1" in changes.edges
    (edge,) = (each for each in chain.view.edges() if each.edge == "E1")
    assert (edge.backlog_streams, edge.backlog_frames, edge.losses) == (1, 3, 0)
    assert (edge.ours, edge.clock_synced, edge.config_matches, edge.tags) == (True, True, True, 3)
    for held in chain.edge.streams.values():  # the edge's disk died: it can no longer list them
        held.acked = held.last
    chain.edge.session_lost()
    chain.born()
    (edge,) = (each for each in chain.view.edges() if each.edge == "E1")
    assert (edge.backlog_streams, edge.losses) == (0, 1)
    assert (edge.last_losses[0].first, edge.last_losses[0].last) == (1, 3)


def test_an_edge_never_heard_is_not_said_to_be_well(chain: Chain) -> None:
    (edge,) = (each for each in chain.view.edges() if each.edge == "E2")
    assert (edge.online, edge.config_matches, edge.clock_synced, edge.last_frame_ms) == (None, None, None, None)
    assert "edge.unknown" in chain.view.health().reasons
    assert chain.tag(TEMP).quality == "UNKNOWN"
