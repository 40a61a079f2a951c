"""A loop that stands still is seen, ended, started anew and told of; a stderr that nobody reads stalls nobody."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.children import Child, keep_running
from gateway.core.app import STALL_NAME
from gateway.core.watchdog import STALL_EXIT_CODE
from tests.system.books import nothing_missing, settle, stop_edges
from tests.system.chain import Chain, wait_until
from tests.system.stalling_core import STALL_VARIABLE

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

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
    assert started.wait(10)
    try:
        yield
    finally:
        loop_stop[0]()  # type: ignore[operator]
        thread.join(10)
        loop.close()


class FullPipe:
    """A stderr that took its last byte before its process was started."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        size = fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4_096)
        os.write(self.writing, b"." * size)

    def text(self) -> str:
        """Let the process write now, and return what it has to say within a moment."""
        os.set_blocking(self.reading, False)
        text, until_s = b"", time.monotonic() + 2.0
        while time.monotonic() < until_s and b"connected" not in text:
            try:
                text += os.read(self.reading, 65_536)
            except BlockingIOError:
                time.sleep(0.02)
        return text.decode()

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
    with supervised(child):
        try:
            wait_until(lambda: len(chain.heartbeat().get("nodes", ())) == 2
                       and all(node["online"] for node in chain.heartbeat()["nodes"]), "both edges are live")  # fmt: skip
            wait_until(lambda: chain.heartbeat()["samples_committed"] > 100, "samples are committed")
            assert child.process is not None
            first_pid = child.process.pid
            mark.touch()
            wait_until(lambda: not mark.exists(), "the loop stands still", 5)
            stalled_s = time.monotonic()

            def said() -> bool:
                return "has not turned" in child.log_path.read_text("utf-8")

            wait_until(said, "the watchdog says so", SAID_S_MAX)
            said_s = time.monotonic() - stalled_s
            before = chain.heartbeat()
            wait_until(lambda: chain.heartbeat()["at_ms"] > before["at_ms"], "the heartbeat is still written", 3)
            beat = chain.heartbeat()
            assert (beat["pid"], beat["cycles"]) == (first_pid, before["cycles"]), "and shows that no cycle is done"
            wait_until(lambda: child.process is not None and child.process.pid != first_pid, "core is started anew", ANEW_S_MAX)
            anew_s = time.monotonic() - stalled_s
            assert said_s < SAID_S_MAX
            assert anew_s < ANEW_S_MAX
            assert f"core ended with code {STALL_EXIT_CODE}" in caplog.text
            wait_until(lambda: chain.heartbeat()["pid"] == child.process.pid and chain.heartbeat()["cycles"] > 20,  # type: ignore[union-attr]
                       "the heartbeat counts again")  # fmt: skip
            turning_s = time.monotonic() - stalled_s
            (alarm,) = wait_until(lambda: chain.alarms_about(KEY), "the alarm is journalled")
            wait_until(lambda: alarm in {line["alarm"] for line in chain.received() if "alarm" in line}, "and delivered")
            wait_until(lambda: not (chain.core_folder / STALL_NAME).exists(), "and told once", 5)
            print(f"said after {said_s:.1f} s, started anew after {anew_s:.1f} s, turning after {turning_s:.1f} s")
        finally:
            child.stopping = True
            if child.process is not None:
                child.process.terminate()
                child.process.wait(20)


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
        for name, pipe in pipes.items():
            assert "connected to the broker" in pipe.text(), f"{name} kept its first lines"
        stop_edges(chain)
        books = settle(chain)
        chain.core.stop()
        chain.plant.stop()
        nothing_missing(chain, books, {}, {KEY})
    finally:
        for pipe in pipes.values():
            pipe.close()
