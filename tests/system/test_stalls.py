"""A loop that stands still is seen, ended, started anew and told of; a stderr that nobody reads stalls nobody."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.children import Child, keep_running
from gateway.core.app import STALL_NAME
from gateway.core.watchdog import STALL_EXIT_CODE
from tests.patience import GUARD_S, fair_clock
from tests.system.books import nothing_missing, settle, stop_edges
from tests.system.chain import Chain, wait_until
from tests.system.stalling_core import STALL_VARIABLE

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SAID_S_MAX = 5.0
ANEW_S_MAX = 10.0
KEY = "CORE.EVALUATOR.STALLED"


@contextmanager
def supervised(child: Child) -> Iterator[None]:
    """Run the child under the demo's supervisor, in a thread of its own."""
    loop, started = asyncio.new_event_loop(), threading.Event()

    async def supervise() -> None:
        task = asyncio.ensure_future(keep_running([child]))
        loop_stop.append(lambda: loop.call_soon_threadsafe(task.cancel))
        started.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop_stop: list[object] = []
    child.start()
    thread = threading.Thread(target=lambda: loop.run_until_complete(supervise()), name="supervisor")
    thread.start()
    assert started.wait(GUARD_S)
    try:
        yield
    finally:
        loop_stop[0]()  # type: ignore[operator]
        thread.join(GUARD_S)
        loop.close()


class FullPipe:
    """A stderr that took its last byte before its process was started."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        size = fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4_096)
        os.write(self.writing, b"." * size)

    def wait(self, for_what: str) -> None:
        """Let the process write now, and wait for a text in what it has to say."""
        os.set_blocking(self.reading, False)
        text = b""

        def said() -> bool:
            nonlocal text
            with contextlib.suppress(BlockingIOError):
                text += os.read(self.reading, 65_536)
            return for_what.encode() in text

        wait_until(said, f"{for_what!r} among its first lines")

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    made = Chain(tmp_path_factory.mktemp("stalls") / "chain")
    try:
        made.start_world()
        yield made
    finally:
        made.end()


@pytest.mark.fault("F69")
def test_a_loop_that_stands_still_is_said_within_5_s_started_anew_within_10_and_told_of_afterwards(
    chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    mark = chain.folder / "stand-still"
    command = [sys.executable, "-m", "tests.system.stalling_core", "core", str(chain.site_file), "--data", str(chain.folder)]
    environment = {**chain.environment, STALL_VARIABLE: str(mark), "PYTHONPATH": str(Path(__file__).parents[2])}
    child = Child("core", command, chain.folder / "logs" / "stalling.log", environment)
    for edge in chain.edges.values():
        edge.start()
    with fair_clock() as now_s, supervised(child):
        try:
            wait_until(lambda: len(chain.heartbeat().get("nodes", ())) == 2
                       and all(node["online"] for node in chain.heartbeat()["nodes"]), "both edges are live")  # fmt: skip
            wait_until(lambda: chain.heartbeat()["samples_committed"] > 100, "samples are committed")
            assert child.process is not None
            first_pid = child.process.pid
            mark.touch()
            wait_until(lambda: not mark.exists(), "the loop stands still")
            stalled_s = now_s()

            def said() -> bool:
                return "has not turned" in child.log_path.read_text("utf-8")

            wait_until(said, "the watchdog says so")
            said_s = now_s() - stalled_s
            before = chain.heartbeat()
            wait_until(lambda: chain.heartbeat()["at_ms"] > before["at_ms"], "the heartbeat is still written")
            beat = chain.heartbeat()
            assert (beat["pid"], beat["cycles"]) == (first_pid, before["cycles"]), "and shows that no cycle is done"
            wait_until(lambda: child.process is not None and child.process.pid != first_pid, "core is started anew")
            anew_s = now_s() - stalled_s
            assert said_s < SAID_S_MAX
            assert anew_s < ANEW_S_MAX
            assert f"core ended with code {STALL_EXIT_CODE}" in caplog.text
            wait_until(lambda: chain.heartbeat()["pid"] == child.process.pid and chain.heartbeat()["cycles"] > 20,  # type: ignore[union-attr]
                       "the heartbeat counts again")  # fmt: skip
            turning_s = now_s() - stalled_s
            alarm, *_ = wait_until(lambda: chain.alarms_about(KEY), "the alarm is journalled")
            wait_until(lambda: alarm in {line["alarm"] for line in chain.received() if "alarm" in line}, "and delivered")
            wait_until(lambda: not (chain.core_folder / STALL_NAME).exists(), "and told once")
            print(f"said after {said_s:.1f} s, started anew after {anew_s:.1f} s, turning after {turning_s:.1f} s")
        finally:
            child.stopping = True
            if child.process is not None:
                child.process.terminate()
                child.process.wait(GUARD_S)


def test_a_stderr_that_nobody_reads_holds_up_neither_core_nor_edge(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    pipes: dict[str, FullPipe] = {}
    for part in (chain.core, *chain.edges.values()):
        part.kill()
        pipes[part.name] = FullPipe()
        part.stderr = pipes[part.name].writing
        part.start("--verbose")
    try:
        chain.wait_healed()
        before = chain.heartbeat()
        taken = {name: chain.edge_status(name)["samples_acked"] for name in chain.edges}
        wait_until(lambda: chain.heartbeat()["samples_committed"] > before["samples_committed"] + 200, "samples are committed")
        wait_until(lambda: all(chain.edge_status(name)["samples_acked"] > taken[name] + 50 for name in chain.edges),
                   "and acknowledged")  # fmt: skip
        assert chain.heartbeat()["cycles"] > before["cycles"] + 20
        for pipe in pipes.values():
            pipe.wait("connected to the broker")
        stop_edges(chain)
        books = settle(chain)
        chain.core.stop()
        chain.plant.stop()
        nothing_missing(chain, books, {})
    finally:
        for pipe in pipes.values():
            pipe.close()
