"""The operator socket, over a real Unix socket."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.core import ActsSocketError, send_act
from gateway.core.acts import REQUEST_BYTES_MAX, TEXT_CHARS_MAX, ActsSocket
from tests.gateway.bench import Bench
from tests.gateway.field import LEVEL, Edge, address, node_death
from tests.patience import GUARD_S
from wire import MessageKind

Story = Callable[[Path, Bench], Coroutine[Any, Any, None]]


def serve(tmp_path: Path, story: Story, *, commit: bool = True) -> Bench:
    """Run a story beside a core that cycles and commits, with one alarm standing."""
    bench = Bench(tmp_path / "core")
    path = tmp_path / "acts.sock"

    async def main() -> None:
        edge = Edge()
        bench.deliver(edge.born())
        bench.deliver(edge.scan({LEVEL: 12.0}))
        await bench.settle(3)
        socket = ActsSocket(path, bench.loop, bench.wall_ms, bench.ledger.reader.alarm)
        await socket.start()
        turning = asyncio.ensure_future(turn())
        try:
            async with asyncio.timeout(GUARD_S):
                await story(path, bench)
        finally:
            turning.cancel()
            await socket.close()

    async def turn() -> None:
        while True:
            await bench.cycle(1, commit=commit)
            await asyncio.sleep(0.001)

    asyncio.run(main())
    return bench


def alarm_id(bench: Bench) -> str:
    return next(alarm.id for alarm in bench.alarms() if alarm.limit == "H")


async def raw(path: Path, line: bytes) -> bytes:
    """Send bytes as they are and return all that comes back."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(line)
        await writer.drain()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_only_the_services_user_can_open_it(tmp_path: Path) -> None:
    async def story(path: Path, _: Bench) -> None:
        mode = (await asyncio.to_thread(path.stat)).st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600

    before = os.umask(0o022)
    os.umask(before)
    serve(tmp_path, story)
    after = os.umask(before)
    assert after == before, "the process's own mask is put back"
    assert not (tmp_path / "acts.sock").exists(), "removed when closed"


def test_acknowledge_then_close(tmp_path: Path) -> None:
    async def story(path: Path, bench: Bench) -> None:
        alarm = alarm_id(bench)
        answer = await send_act(path, {"act": "acknowledge", "alarm": alarm, "actor": "李工"})
        assert answer["ok"] is True
        assert answer["transition"]["alarm"]["acked_by"] == "李工"
        answer = await send_act(path, {"act": "close", "alarm": alarm, "actor": "li", "reason": "r", "measure": "m"})
        assert "still stands" in answer["error"]
        edge = Edge(first_stream=5_000)
        edge.present[LEVEL] = 3.0
        bench.deliver([(address(MessageKind.NDEATH, "E1"), node_death(0)), *edge.born()])
        while bench.machine.engine.book.alarms[alarm].state.active:
            await asyncio.sleep(0.01)
        closing = {"act": "close", "alarm": alarm, "actor": "li", "reason": "leaking valve", "measure": "valve replaced"}
        answer = await send_act(path, closing)
        assert answer["transition"]["alarm"]["state"] == "CLOSED"
        answer = await send_act(path, closing)
        assert answer["ok"] is False

    bench = serve(tmp_path, story)
    kinds = [step.kind for step in bench.journal() if step.alarm.limit == "H" and not step.late]
    assert kinds == ["raised", "acknowledged", "returned", "closed"]


def test_an_act_is_not_answered_before_it_is_committed(tmp_path: Path) -> None:
    async def story(path: Path, bench: Bench) -> None:
        task = asyncio.ensure_future(send_act(path, {"act": "acknowledge", "alarm": alarm_id(bench), "actor": "li"}))
        while not bench.writer.waiting:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert not task.done()
        bench.writer.commit(bench.loop)
        assert (await task)["ok"] is True

    serve(tmp_path, story, commit=False)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param(b"hello\n", "not one line of JSON", id="no JSON"),
        pytest.param(b"\xff\xfe\n", "not one line of JSON", id="no text"),
        pytest.param(b"[1]\n", "not a JSON object", id="no object"),
        pytest.param(b"[" * 9_000 + b"\n", "not one line of JSON", id="nested too deep"),
        pytest.param(b'{"act":"silence","alarm":"x","actor":"li"}\n', "act must be", id="no such act"),
        pytest.param(b'{"act":"acknowledge","alarm":"x"}\n', "actor is missing", id="nobody"),
        pytest.param(b'{"act":"acknowledge","alarm":"x","actor":"   "}\n', "actor is missing", id="a blank person"),
        pytest.param(b'{"act":"acknowledge","alarm":7,"actor":"li"}\n', "alarm must be text", id="a number for an id"),
        pytest.param(json.dumps({"act": "close", "alarm": "x", "actor": "l", "reason": "r" * (TEXT_CHARS_MAX + 1)}).encode() + b"\n",
                     "reason must be text", id="too long a reason"),
        pytest.param(b'{"act":"acknowledge","alarm":"x","actor":"li"}\n', "no open alarm has this id", id="unknown alarm"),
        pytest.param(b'{"act":"acknowledge","alarm":"x\\u0000\\r\\n","actor":"li"}\n',
                     "alarm holds a control", id="control characters"),
        *(pytest.param(b'{"act":"acknowledge","alarm":"x","actor":"l\\u' + code + b'i"}\n',
                       "actor holds a control", id=f"U+{code.decode()}")
          for code in (b"000a", b"001b", b"0085", b"2028", b"202e", b"200b")),
        pytest.param(b"\n", "not one line of JSON", id="an empty line"),
    ],
)  # fmt: skip
def test_bad_requests_are_answered_with_what_is_wrong(tmp_path: Path, line: bytes, says: str) -> None:
    async def story(path: Path, _: Bench) -> None:
        answer = await raw(path, line)
        assert answer.endswith(b"\n")
        assert answer.count(b"\n") == 1
        said = json.loads(answer)
        assert said["ok"] is False
        assert says in said["error"]

    serve(tmp_path, story)


@pytest.mark.fault("F54")
@pytest.mark.parametrize("line", [
    pytest.param(b"[" * 16_000, id="deep"),
    pytest.param(b'{"act":' * 2_000 + b"1" + b"}" * 2_000, id="deep objects"),
    pytest.param(b'{"act":"acknowledge","act":"close","alarm":"x","actor":"li"}', id="a key twice"),
    pytest.param(b'{"act":"acknowledge","alarm":"x","actor":"li","n":NaN}', id="NaN"),
    pytest.param(b'{"act":"acknowledge","alarm":"x","actor":"\\ud800"}', id="half a surrogate pair"),
    pytest.param(b'{"act":"acknowledge","alarm":"x","actor":"li","n":1e400}', id="1e400"),
    pytest.param(b'{"act":"acknowledge","alarm":"x","actor":"li","n":' + b"9" * 200 + b"}", id="200 digits"),
])  # fmt: skip
def test_hostile_json_is_refused_at_once_and_core_goes_on(tmp_path: Path, line: bytes) -> None:
    async def story(path: Path, bench: Bench) -> None:
        answer = json.loads(await raw(path, line + b"\n"))
        assert answer["ok"] is False
        assert "not one line of JSON" in answer["error"]
        assert (await send_act(path, {"act": "acknowledge", "alarm": alarm_id(bench), "actor": "li"}))["ok"] is True

    serve(tmp_path, story)


@pytest.mark.fault("F54")
def test_a_name_that_is_no_text_is_refused_and_not_half_journalled(tmp_path: Path) -> None:
    """Half of a surrogate pair once passed the JSON reader, and the journal's own writing of it ended core."""

    async def story(path: Path, bench: Bench) -> None:
        answer = await send_act(path, {"act": "acknowledge", "alarm": alarm_id(bench), "actor": "li\udcff"})
        assert answer["ok"] is False
        await bench.cycle(1)
        assert bench.machine.engine.book.alarms[alarm_id(bench)].acked_by is None

    serve(tmp_path, story)


@pytest.mark.fault("F54")
@pytest.mark.parametrize("said", [b"[" * 100_000, b'{"ok":true,"ok":false}', b'{"ok":NaN}', b"[]", b"x" * 600_000])
def test_who_poses_as_core_is_not_believed(tmp_path: Path, said: bytes) -> None:
    async def pose(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said + b"\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_unix_server(pose, tmp_path / "acts.sock")
        async with server:
            with pytest.raises(ActsSocketError, match="answer"):
                await send_act(tmp_path / "acts.sock", {"act": "acknowledge"})

    asyncio.run(main())


def test_an_oversize_line_is_cut_off_and_the_next_one_is_served(tmp_path: Path) -> None:
    async def story(path: Path, bench: Bench) -> None:
        assert await raw(path, b"x" * (4 * REQUEST_BYTES_MAX) + b"\n") == b""
        assert (await send_act(path, {"act": "acknowledge", "alarm": alarm_id(bench), "actor": "li"}))["ok"] is True

    serve(tmp_path, story)


def test_one_who_asks_and_leaves_harms_nobody(tmp_path: Path) -> None:
    async def story(path: Path, bench: Bench) -> None:
        for _ in range(5):
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(b'{"act":"acknowledge"')
            writer.close()
        assert (await send_act(path, {"act": "acknowledge", "alarm": alarm_id(bench), "actor": "li"}))["ok"] is True

    serve(tmp_path, story)


def test_an_alarm_too_old_for_memory_is_found_in_the_ledger(tmp_path: Path) -> None:
    async def story(path: Path, bench: Bench) -> None:
        alarm = alarm_id(bench)
        book = bench.machine.engine.book
        book.row_alarm.clear()
        del book.alarms[alarm]
        assert (await send_act(path, {"act": "acknowledge", "alarm": alarm, "actor": "li"}))["ok"] is True

    serve(tmp_path, story)


def test_nobody_there_says_so() -> None:
    with pytest.raises(ActsSocketError, match="is core running"):
        asyncio.run(send_act(Path("/nonexistent/acts.sock"), {}))


def test_a_path_the_system_cannot_bind_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "core")
    path = tmp_path / ("d" * 120) / "acts.sock"
    with pytest.raises(ActsSocketError, match="cannot be opened"):
        asyncio.run(ActsSocket(path, bench.loop, bench.wall_ms, bench.ledger.reader.alarm).start())
