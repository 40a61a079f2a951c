"""Core joined: one folder, one core; an orderly stop leaves nothing to replay; a restart goes on where it was."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import async_solipsism
import pytest

from alerting import State
from gateway.core import ACTS_NAME, HEARTBEAT_NAME, LEDGER_NAME, Core, DataFolderBusyError, LedgerOlderError, send_act
from gateway.core.app import STALL_NAME
from gateway.core.ledger import Batch, Ledger
from gateway.core.ports import Ports
from gateway.core.reader import LedgerReader
from gateway.core.snapshots import Snapshot, newest_position, write_snapshot
from gateway.core.stall import StallNote
from gateway.core.writer import Ballast, GroupCommit, OnCommitted, OnTrouble
from tests.gateway.field import LEVEL, Edge, site
from tests.patience import GUARD_S
from wire import MemoryBroker, MemoryConnector, decode_command

Story = Callable[["World"], Coroutine[Any, Any, None]]
START_S_MAX = GUARD_S


class World:
    """A core on a folder, a broker in memory, an edge that forgets what is acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.broker = folder, MemoryBroker()
        self.edge = Edge()
        self.core: Core | None = None
        self._stop = asyncio.Event()

    async def __aenter__(self) -> World:
        self.core = Core(site(receivers=0), self.folder, MemoryConnector(self.broker), {}, self.folder)
        self._task = asyncio.ensure_future(self.core.run(self._stop))
        self._link_stop = asyncio.Event()
        self._linked = asyncio.Event()
        self._edge_task = asyncio.ensure_future(self._edge_link())
        await self._linked.wait()
        await self.until(lambda: self.core is not None and self.core._source.connected)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await self._task
        self._link_stop.set()
        await self._edge_task

    async def _edge_link(self) -> None:
        async with MemoryConnector(self.broker).connect("E1", None) as link:
            self.link = link
            await link.subscribe([("spBv1.0/PARK1/NCMD/E1", 1)])
            self._linked.set()
            reading = asyncio.ensure_future(self._commands())
            await self._link_stop.wait()
            reading.cancel()

    async def _commands(self) -> None:
        async for message in self.link.messages():
            for stream, upto in decode_command(message.payload).acknowledged:
                self.edge.acked(stream, upto)

    async def send(self, sent: list[tuple[str, bytes]]) -> None:
        for topic, payload in sent:
            await self.link.publish(topic, payload)

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(START_S_MAX):
            while not met():
                await asyncio.sleep(0.01)


def play(folder: Path, story: Story) -> None:
    async def main() -> None:
        async with World(folder) as world:
            await story(world)

    asyncio.run(main())


async def an_alarm(world: World) -> None:
    await world.send(world.edge.born())
    await world.send(world.edge.scan({LEVEL: 12.0}))
    await world.until(lambda: world.edge.settled)


def test_a_frame_is_acknowledged_and_an_orderly_stop_leaves_nothing_to_replay(tmp_path: Path) -> None:
    play(tmp_path / "core", an_alarm)
    ledger = Ledger(tmp_path / "core" / LEDGER_NAME, "PARK1")
    assert ledger.reader.rows("SELECT count(*) FROM log WHERE kind = 'F'") == [(3,)]
    assert newest_position(tmp_path / "core") == ledger.reader.last_pos()
    assert [alarm.limit for alarm in ledger.reader.open_alarms() if alarm.category == "process"] == ["H"]
    ledger.close()


def test_a_restart_has_the_alarm_it_had(tmp_path: Path) -> None:
    async def again(world: World) -> None:
        assert world.core is not None
        assert world.core.recovered.differences == ()
        assert world.core.recovered.replayed == 0
        (alarm,) = [alarm for alarm in world.core.loop.machine.engine.alarms() if alarm.category == "process"]
        assert (alarm.limit, alarm.state) == ("H", State.ACTIVE_UNACKED)
        answer = await send_act(
            tmp_path / "core" / ACTS_NAME, {"act": "acknowledge", "alarm": alarm.id, "actor": "li"}
        )
        assert answer["ok"] is True

    play(tmp_path / "core", an_alarm)
    play(tmp_path / "core", again)


def test_what_lies_in_the_folder_is_the_services_own(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await an_alarm(world)
        await world.until((tmp_path / "core" / HEARTBEAT_NAME).exists)
        mode = await asyncio.to_thread(lambda: (tmp_path / "core").stat().st_mode)
        assert stat.S_IMODE(mode) == 0o700

    play(tmp_path / "core", story)
    beat = json.loads((tmp_path / "core" / HEARTBEAT_NAME).read_text(encoding="utf-8"))
    assert beat["samples_committed"] == 4
    assert beat["acks_sent"] > 0
    assert not (tmp_path / "core" / ACTS_NAME).exists()


@pytest.mark.fault("F68")
def test_a_second_core_on_one_folder_refuses_to_start_and_names_the_first(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        with pytest.raises(DataFolderBusyError, match="core with process id"):
            Core(site(receivers=0), world.folder, MemoryConnector(world.broker), {}, world.folder)
        await an_alarm(world)

    play(tmp_path / "core", story)
    play(tmp_path / "core", an_alarm_free)


async def an_alarm_free(_: World) -> None:
    """The folder is free again after a stop."""


@pytest.mark.parametrize("ending", [".json", ".json.gz"], ids=["ours", "a stranger's name"])
def test_a_ledger_that_lost_what_segments_hold_of_it_does_not_start_unsaid(tmp_path: Path, ending: str) -> None:
    """Log positions would be used twice: segments keep what the lost rows held, and the new ones were never sealed."""
    folder = tmp_path / "core"
    play(folder, an_alarm)
    ledger = Ledger(folder / LEDGER_NAME, "PARK1")
    before, pos = ledger.ledger_id, ledger.reader.last_pos()
    ledger.close()
    manifests = tmp_path / "historian" / "manifests"
    manifests.mkdir(parents=True)

    async def begin(*, restored: bool = False) -> str:
        core = Core(
            site(receivers=0), folder, MemoryConnector(MemoryBroker()), {}, folder, restored=restored, historian=tmp_path / "historian"
        )
        stop = asyncio.Event()
        stop.set()
        await core.run(stop)
        return core._ledger.ledger_id

    (manifests / f"seal-{before}-{1:016d}-{pos:016d}.json").touch()  # the name is the claim, readable or not
    assert asyncio.run(begin()) == before
    ledger = Ledger(folder / LEDGER_NAME, "PARK1")
    pos = ledger.reader.last_pos()
    ledger.close()
    (manifests / f"seal-another-{1:016d}-{pos + 10:016d}.json").touch()
    (manifests / f"seal-{before}-{1:016d}-{pos + 9:016d}{ending}").touch()

    async def refused() -> None:
        with pytest.raises(LedgerOlderError, match=rf"up to position {pos + 9}: .*--restored"):
            Core(site(receivers=0), folder, MemoryConnector(MemoryBroker()), {}, folder, historian=tmp_path / "historian")

    if ending == ".json":
        asyncio.run(refused())
        assert asyncio.run(begin(restored=True)) != before
    else:
        assert asyncio.run(begin()) == before


def test_a_ledger_older_than_its_snapshots_does_not_start_unsaid_and_renews_its_id_when_said(tmp_path: Path) -> None:
    folder = tmp_path / "core"
    play(folder, an_alarm)
    ledger = Ledger(folder / LEDGER_NAME, "PARK1")
    before, pos = ledger.ledger_id, ledger.reader.last_pos()
    ledger.close()
    sections = {"engine": b"", "nodes": b"{}"}
    write_snapshot(folder, Snapshot(pos + 10, sections))

    async def refused() -> None:
        with pytest.raises(LedgerOlderError, match="--restored"):
            Core(site(receivers=0), folder, MemoryConnector(MemoryBroker()), {}, folder)

    async def restored() -> str:
        core = Core(site(receivers=0), folder, MemoryConnector(MemoryBroker()), {}, folder, restored=True)
        stop = asyncio.Event()
        task = asyncio.ensure_future(core.run(stop))
        await asyncio.sleep(0.2)
        stop.set()
        await task
        return core._ledger.ledger_id

    asyncio.run(refused())
    after = asyncio.run(restored())
    assert after != before
    assert len(after) == 32


def test_trouble_with_the_disk_is_an_alarm_that_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        core = world.core
        assert core is not None

        core._trouble("FullError: disk full")
        await an_alarm(world)
        await world.until(lambda: "CORE.LEDGER.WRITE" not in core.loop.machine.engine.book.system_alarm)

    caplog.set_level(logging.ERROR)
    play(tmp_path / "core", story)
    assert "disk full" in caplog.text


    ledger = Ledger(tmp_path / "core" / LEDGER_NAME, "PARK1")
    rows = ledger.reader.rows(
        "SELECT kind FROM transition WHERE alarm_id IN (SELECT id FROM alarm WHERE subject = 'CORE.LEDGER.WRITE') ORDER BY row"
    )
    ledger.close()
    assert [kind for (kind,) in rows] == ["raised", "returned"]


class HeldWriter:
    """Takes batches as the writer thread does, and commits what waits when told."""

    failure, alive = None, True

    def __init__(self, ledger: Ledger, on_committed: OnCommitted, on_trouble: OnTrouble, _: Ballast | None = None) -> None:
        self._commits = GroupCommit(ledger, on_committed, on_trouble)
        self._waiting: list[Batch] = []

    def start(self) -> None:
        """There is no thread."""

    def submit(self, batch: Batch) -> None:
        self._waiting.append(batch)

    def commit(self) -> None:
        part, self._waiting = self._waiting, []
        if part:
            assert self._commits.attempt(part) is None

    def close(self, timeout_s: float) -> bool:
        self.commit()
        return True


@pytest.mark.fault("F69")
def test_a_stall_that_ended_the_core_before_is_told_at_the_next_start_and_forgotten_once_that_is_committed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "core"
    folder.mkdir()
    left = folder / STALL_NAME
    StallNote(left).leave(7.5, 1_700_000_000_000)
    writers: list[HeldWriter] = []

    async def inline(work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return work(*args, **kwargs)

    def writer(
        ledger: Ledger, on_committed: OnCommitted, on_trouble: OnTrouble, ballast: Ballast | None
    ) -> HeldWriter:
        writers.append(HeldWriter(ledger, on_committed, on_trouble, ballast))
        return writers[-1]

    def on_record() -> list[tuple[str]]:
        reader = LedgerReader.open(folder / LEDGER_NAME)
        try:
            return reader.rows("SELECT body FROM alarm WHERE subject = 'CORE.EVALUATOR.STALLED'")
        finally:
            reader.close()

    async def story() -> None:
        ports = Ports(monotonic=asyncio.get_running_loop().time, run_blocking=inline, writer=writer, beside=False)
        core = Core(site(receivers=0), folder, MemoryConnector(MemoryBroker()), {}, folder, ports=ports)
        stop = asyncio.Event()
        task = asyncio.create_task(core.run(stop))
        await asyncio.sleep(2)
        told = [alarm for alarm in core.loop.machine.engine.alarms() if alarm.tag == "CORE.EVALUATOR.STALLED"]
        assert [alarm.facts for alarm in told] == [{"seconds": 7.5, "at_ms": 1_700_000_000_000, "restarted": True}]
        assert (left.exists(), on_record()) == (True, []), "a core that is killed now leaves it to the next one"
        writers[0].commit()
        await asyncio.sleep(1)
        assert (left.exists(), len(on_record())) == (False, 1)
        writers[0].commit()
        stop.set()
        while not task.done():
            writers[0].commit()
            await asyncio.sleep(0.01)
        await task

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(story())
