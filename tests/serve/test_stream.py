"""The live stream: nothing is missed between two events, a client that was away resumes, a slow one is told to reload."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.sse import format_sse_event
from hypothesis import given
from hypothesis import strategies as st

from gateway.serve.models import Changes, Position
from gateway.serve.problems import RefusedError
from gateway.serve.refresher import ASKING_S_MAX
from gateway.serve.stream import (
    BATCH_BYTES_MAX,
    BEHIND_S_MAX,
    RING_EVENTS_MAX,
    RING_S,
    STREAMS_MAX,
    Event,
    Hub,
    LiveResponse,
    Subscription,
)
from gateway.serve.view_errors import OutOfTimeError
from tests.patience import GUARD_S, fair_clock
from tests.serve.fakes import ALARM_ID, TAG, Clock, FakeView, alarm_state, build, serving, tag_now

AT = Position("ledger-one", 5)


def event(number: int, kind: str = "values") -> Event:
    return Event(kind, json.dumps({"n": number}).encode(), AT)


def parsed(chunk: bytes) -> list[dict[str, str]]:
    """Server-sent events as a client reads them."""
    found = []
    for block in chunk.decode().split("\n\n"):
        if block:
            found.append(dict(line.split(": ", 1) for line in block.split("\n")))
    return found


class Reader:
    """One client that reads what is there."""

    def __init__(self, hub: Hub, after: str | None = None) -> None:
        self.client: Subscription = hub.subscribe("t1", after)
        self._events: AsyncIterator[bytes] = hub.events(self.client, lambda: b'{"hello":1}')
        self.last_id = ""

    async def read(self) -> list[dict[str, str]]:
        """Everything up to where the stream waits."""
        found: list[dict[str, str]] = []
        while True:
            task = asyncio.ensure_future(anext(self._events))
            for _ in range(3):  # it has something at once, or it waits
                await asyncio.sleep(0)
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self._events = self.client.hub.events(self.client, lambda: b'{"hello":1}')
                await anext(self._events)  # its hello again: the generator was cut while it waited
                break
            try:
                found += parsed(task.result())
            except StopAsyncIteration:
                break
        if found:
            self.last_id = found[-1]["id"]
        return found


def numbers(events: list[dict[str, str]]) -> list[int]:
    return [json.loads(one["data"])["n"] for one in events if one["event"] == "values"]


def kinds(events: list[dict[str, str]]) -> list[str]:
    return [one["event"] for one in events]


def test_a_client_gets_hello_and_then_what_happens() -> None:
    async def story() -> None:
        hub = Hub(Clock(), 100)
        reader = Reader(hub)
        hub.publish([event(1)], AT)
        found = await reader.read()
        assert kinds(found) == ["hello", "values"]
        assert found[0]["retry"] == "1000"
        assert found[1]["id"] == "ledger-one:5:100"
        hub.publish([event(2), event(3)], AT)
        assert numbers(await reader.read()) == [2, 3]

    asyncio.run(story())


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.data())
def test_whoever_comes_back_misses_nothing_and_hears_nothing_twice(rounds: list[int], data: st.DataObject) -> None:
    async def story() -> None:
        hub, told, heard = Hub(Clock(), 7), 0, []
        hub.publish([], AT)
        reader = Reader(hub)
        for count in rounds:
            hub.publish([event(told + number) for number in range(count)], AT)
            told += count
            if data.draw(st.booleans()):
                heard += numbers(await reader.read())
            if data.draw(st.booleans()) and reader.last_id and reader.last_id.count(":") == 2 and heard:
                hub.leave(reader.client)
                reader = Reader(hub, reader.last_id)
        heard += numbers(await reader.read())
        assert heard == list(range(told))

    asyncio.run(story())


@pytest.mark.parametrize(
    "after",
    ["ledger-one:5:6", "ledger-one:5:13", "ledger-two:5:9", "ledger-one:4:9", "x", "::", "ledger-one:5:", ":5:9", "9" * 400,
     "ledger-one:5:９"],
)  # fmt: skip
def test_a_place_that_is_not_ours_means_reload(after: str) -> None:
    async def story() -> None:
        hub = Hub(Clock(), 7)
        hub.publish([event(number) for number in range(5)], AT)  # numbers 7 to 11
        found = await Reader(hub, after).read()
        assert kinds(found) == ["hello", "reset"]
        hub.publish([event(9)], AT)
        assert numbers(await Reader(hub, "ledger-one:5:11").read()) == [9]

    asyncio.run(story())


def test_another_ledger_resets_everybody_and_cannot_be_resumed_across() -> None:
    async def story() -> None:
        hub = Hub(Clock(), 7)
        reader = Reader(hub)
        hub.publish([event(1)], AT)
        await reader.read()
        hub.publish([event(2)], AT)
        restored = Position("ledger-two", 1)
        hub.publish([Event("reset", b'{"cause":"ledger"}', restored)], restored)
        hub.publish([Event("values", b'{"n":3}', restored)], restored)
        found = await reader.read()
        assert kinds(found) == ["reset", "values"]
        assert found[-1]["id"].startswith("ledger-two:1:")
        assert kinds(await Reader(hub, "ledger-one:5:7").read()) == ["hello", "reset"]

    asyncio.run(story())


def test_a_client_that_does_not_read_is_left_behind_and_others_are_not() -> None:
    async def story() -> None:
        clock = Clock()
        hub = Hub(clock, 7)
        slow, quick = Reader(hub), Reader(hub)
        await slow.read()
        for second in range(int(BEHIND_S_MAX) + 5):
            hub.publish([event(second)], AT)
            assert numbers(await quick.read()) == [second]
            clock.now_s += 1
        assert kinds(await slow.read()) == ["reset"]
        hub.publish([event(99)], AT)
        assert numbers(await slow.read()) == [99]

    asyncio.run(story())


def test_one_that_resumes_has_time_to_catch_up() -> None:
    async def story() -> None:
        clock = Clock()
        hub = Hub(clock, 7)
        for second in range(30):
            hub.publish([event(second)], AT)
            clock.now_s += 1
        assert numbers(await Reader(hub, "ledger-one:5:7").read()) == list(range(1, 30))

    asyncio.run(story())


def test_the_ring_is_bounded_in_events_bytes_and_time() -> None:
    clock = Clock()
    hub = Hub(clock, 1)
    hub.publish([event(number) for number in range(RING_EVENTS_MAX + 10)], AT)
    assert len(hub._ring) == RING_EVENTS_MAX
    hub.publish([Event("values", b"x" * 20_000_000, AT), Event("values", b"y" * 20_000_000, AT)], AT)
    assert len(hub._ring) == 1
    clock.now_s += RING_S + 1
    hub.publish([event(1)], AT)
    assert len(hub._ring) == 1
    assert hub._bytes < 200


def test_nothing_is_made_when_nobody_listens_and_that_cannot_be_resumed() -> None:
    async def story() -> None:
        clock = Clock()
        hub = Hub(clock, 7)
        assert not hub.wanted
        reader = Reader(hub)
        assert hub.wanted
        hub.publish([event(1)], AT)
        await reader.read()
        hub.leave(reader.client)
        assert hub.wanted, "it may come back"
        clock.now_s += RING_S + 1
        assert not hub.wanted
        hub.skipped(AT)
        assert kinds(await Reader(hub, reader.last_id).read()) == ["hello", "reset"]

    asyncio.run(story())


def test_a_client_far_behind_is_handed_a_bounded_piece() -> None:
    async def story() -> None:
        hub = Hub(Clock(), 7)
        reader = hub.subscribe("t1", None)
        hub.publish([Event("values", b"x" * 400_000, AT) for _ in range(20)], AT)
        stream = hub.events(reader, lambda: b"{}")
        pieces = [await anext(stream) for _ in range(11)]
        assert sum(piece.count(b"event: values") for piece in pieces) == 20
        assert max(map(len, pieces)) <= BATCH_BYTES_MAX

    asyncio.run(story())


def test_an_event_is_the_lines_that_a_client_reads() -> None:
    told = Event("alarms", '{"items":["氯"]}'.encode(), AT, 9).to_bytes()
    assert told == format_sse_event(data_str='{"items":["氯"]}', event="alarms", id="ledger-one:5:9")


def test_there_are_not_more_than_so_many_streams() -> None:
    async def story() -> None:
        hub = Hub(Clock(), 7)
        readers = [Reader(hub) for _ in range(STREAMS_MAX)]
        with pytest.raises(RefusedError):
            Reader(hub)
        hub.leave(readers[0].client)
        Reader(hub)
        hub.close()
        with pytest.raises(RefusedError):
            Reader(hub)
        assert kinds(await readers[1].read()) == ["hello"], "and then it ends"

    asyncio.run(story())


def test_a_stream_ends_after_its_time_and_is_resumed() -> None:
    async def story() -> None:
        hub = Hub(Clock(), 7, stream_s_max=0.0)
        hub.publish([event(1)], AT)
        assert [one async for one in hub.events(hub.subscribe("t1", None), lambda: b"{}")]

    asyncio.run(story())


# ------------------------------------------------------------------ over the response


async def answered(response: LiveResponse, *, stuck: bool = False) -> list[bytes]:
    """Serve a response to a client that reads, or to one that stops reading after the head."""
    sent: list[bytes] = []

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        if stuck and message["type"] == "http.response.body":
            await asyncio.sleep(60)
        sent.append(message.get("body", b""))

    await response({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
    return sent


@pytest.mark.fault("F63")
@pytest.mark.parametrize("stuck", [False, True], ids=["one that reads", "one that does not"])
def test_a_revoked_token_ends_its_streams_within_a_second_and_no_others(stuck: bool) -> None:
    async def story() -> None:
        hub = Hub(Clock(), 7)
        mine, other = hub.subscribe("t1", None), hub.subscribe("t2", None)
        serving_mine = asyncio.create_task(answered(LiveResponse(mine, lambda: b"{}"), stuck=stuck))
        serving_other = asyncio.create_task(answered(LiveResponse(other, lambda: b"{}")))
        await asyncio.sleep(0.01)
        began_s, began_cpu_s = now_s(), time.process_time()
        hub.end_unless(lambda token_id: token_id == "t2")
        await serving_mine
        assert now_s() - began_s < 1
        assert time.process_time() - began_cpu_s < 1
        assert hub.streams == 1
        assert not serving_other.done()
        hub.close()
        await serving_other
        assert hub.streams == 0

    with fair_clock() as now_s:
        asyncio.run(story())


def test_a_client_that_goes_leaves_the_hub() -> None:
    async def story() -> None:
        hub = Hub(Clock(), 7)
        task = asyncio.create_task(answered(LiveResponse(hub.subscribe("t1", None), lambda: b"{}")))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert hub.streams == 0

    asyncio.run(story())


# ------------------------------------------------------------------ from changes to events


def test_what_changed_becomes_events_with_whole_items(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path) as served:
            hub, refresher = served.parts.hub, served.parts.refresher
            reader = Reader(hub)
            served.view.now[0] = tag_now(TAG, value=9.0)
            served.view.changes = [
                Changes(Position("ledger-one", 42), tags=frozenset({TAG}), alarms=(ALARM_ID, "f" * 32),
                        edges=frozenset({"E1"}), deliveries=True),
            ]  # fmt: skip
            events, position, behind = refresher.round(0.0)
            assert events is not None
            assert (position.pos, behind) == (42, False)
            hub.publish(events, position)
            found = await reader.read()
            assert kinds(found) == ["hello", "alarms", "values", "edges", "deliveries", "health"]
            told = {one["event"]: json.loads(one["data"]) for one in found}
            assert [alarm["id"] for alarm in told["alarms"]["items"]] == [ALARM_ID]
            assert [(tag["tag"], tag["value"]) for tag in told["values"]["items"]] == [(TAG, 9.0)]
            assert told["edges"]["items"][0]["edge"] == "E1"
            assert told["deliveries"]["items"][0]["due"] == 2
            assert told["health"]["serve"]["streams"] == 1
            events, position, _ = refresher.round(0.5)
            assert events == []
            events, position, _ = refresher.round(1.0)
            assert [one.kind for one in events or ()] == ["health"]

    asyncio.run(story())


def test_catching_up_is_told_in_steps_and_loses_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path) as served:
            Reader(served.parts.hub)
            first, second = served.view.now[0].tag, served.view.now[1].tag
            served.view.changes = [
                Changes(AT, tags=frozenset({first}), alarms=(ALARM_ID,), behind=True),
                Changes(AT, tags=frozenset({second}), behind=True),
                Changes(AT, tags=frozenset({first}), edges=frozenset({"E1"})),
            ]
            told = [served.parts.refresher.round(now_s) for now_s in (0.0, 0.05, 0.1)]
            assert [[one.kind for one in events or ()] for events, _, _ in told] == [
                ["alarms", "values", "health"], [], ["values", "edges"]
            ]  # fmt: skip
            assert [behind for _, _, behind in told] == [True, True, False]
            values = json.loads((told[2][0] or [])[0].data)
            assert [tag["tag"] for tag in values["items"]] == [first, second]

    asyncio.run(story())


def test_a_ledger_that_is_busy_delays_what_changed_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving(tmp_path) as served:
            Reader(served.parts.hub)
            served.view.changes = [Changes(AT, alarms=(ALARM_ID,))]
            alarm = served.view.alarm

            def busy(*_: object) -> None:
                raise OutOfTimeError

            monkeypatch.setattr(served.view, "alarm", busy)
            events, _, _ = served.parts.refresher.round(0.0)
            assert [one.kind for one in events or ()] == ["health"]
            monkeypatch.setattr(served.view, "alarm", alarm)
            events, _, _ = served.parts.refresher.round(0.5)
            assert [one.kind for one in events or ()] == ["alarms"]
            events, _, _ = served.parts.refresher.round(0.7)
            assert events == []

    asyncio.run(story())


def test_what_the_ledger_does_not_give_holds_up_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving(tmp_path) as served:
            Reader(served.parts.hub)
            served.view.changes = [
                Changes(AT, tags=frozenset({TAG}), alarms=(ALARM_ID,), edges=frozenset({"E1"}), deliveries=True)
            ]

            def busy(*_: object) -> None:
                raise OutOfTimeError

            with monkeypatch.context() as patched:
                for question in ("alarm", "deliveries"):
                    patched.setattr(served.view, question, busy)
                events, _, _ = served.parts.refresher.round(0.0)
                assert [one.kind for one in events or ()] == ["values", "edges", "health"]
            events, _, _ = served.parts.refresher.round(1.2)
            assert [one.kind for one in events or ()] == ["alarms", "deliveries", "health"]

    asyncio.run(story())


def test_a_slow_ledger_holds_up_a_round_for_a_second_or_two_and_what_it_gave_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"{number:032x}" for number in range(9)]
    given = list[float]()
    clock, known = Clock(), FakeView().known[ALARM_ID]

    def slow(what: str) -> Any:
        def ask(*arguments: Any) -> Any:
            """A question that takes 0.6 s, or all the time it was given."""
            within_s = arguments[-1]
            given.append(within_s)
            clock.now_s += min(0.6, within_s)
            if within_s < 0.6:
                raise OutOfTimeError
            if what == "alarm":
                return replace(known, alarm=alarm_state(id=arguments[0]))
            return []

        return ask

    async def story() -> None:
        async with serving(tmp_path) as served:
            Reader(served.parts.hub)
            served.view.changes = [Changes(AT, alarms=tuple(ids), edges=frozenset({"E1"}), deliveries=True)]
            for question in ("alarm", "deliveries", "edges"):
                monkeypatch.setattr(served.view, question, slow(question))
            monkeypatch.setattr("gateway.serve.refresher.time", SimpleNamespace(monotonic=clock))
            told = list[str]()
            for number in range(20):
                began_s = clock.now_s
                events, _, _ = served.parts.refresher.round(float(number))
                assert clock.now_s - began_s <= 3 * ASKING_S_MAX
                told += [item["id"] for one in events or () if one.kind == "alarms" for item in json.loads(one.data)["items"]]
            assert told == ids, "each once, in its order"
            assert max(given) == ASKING_S_MAX <= 2, "no question has the time that people's questions have"

    asyncio.run(story())


def test_deliveries_are_told_once_a_second_and_the_last_of_them_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path) as served:
            Reader(served.parts.hub)
            served.view.changes = [Changes(AT, deliveries=True) for _ in range(4)]
            told = [served.parts.refresher.round(0.2 * number)[0] or [] for number in range(12)]
            assert [at for at, events in enumerate(told) if "deliveries" in {one.kind for one in events}] == [0, 5]

    asyncio.run(story())


def test_a_flood_of_alarms_is_not_told_one_by_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path) as served:
            Reader(served.parts.hub)
            served.view.changes = [Changes(AT, alarms=tuple(f"{number:032x}" for number in range(3_000)))]
            events, _, _ = served.parts.refresher.round(0.0)
            assert [one.kind for one in events or ()] == ["reset", "health"]

    asyncio.run(story())


def test_a_bug_in_the_refresher_ends_the_process_loudly(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path) as served:
            served.view.fail = RuntimeError("a bug")
            ended = served.parts.refresher.start(asyncio.get_running_loop())
            with pytest.raises(RuntimeError, match="a bug"):
                await asyncio.wait_for(ended, GUARD_S)
            served.parts.refresher.close()

    asyncio.run(story())


def test_systemd_is_told_only_while_both_loops_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("gateway.serve.refresher.notify_systemd", said.append)
    served = build(tmp_path, started=False)
    turns = 0
    served.parts.refresher._loop_turns = lambda: turns
    served.parts.refresher._feed_watchdog()
    served.parts.refresher._feed_watchdog()
    assert said == ["WATCHDOG=1"], "the loop did not turn between"
    turns = 1
    served.parts.refresher._feed_watchdog()
    assert said == ["WATCHDOG=1"] * 2
