"""Nobody waits for stderr: not a loop that logs, not the end of the process; what is dropped is counted in its place."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest

from cli.log_queue import FLUSH_S_MAX, FileDescriptorHandler, LogQueue
from cli.running import LOG_FORMAT, OneLineFormatter
from tests.patience import GUARD_S
from tests.system.chain import ROOT

PIPE_BYTES = 4_096
LINES_MAX = 50
WAIT_S = GUARD_S


def unwritten(log: LogQueue) -> int:
    assert isinstance(log.queue, Queue)
    return log.queue.unfinished_tasks


class Pipe:
    """A small pipe with a log at its writing end; nobody reads until told."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.queue = LogQueue(OneLineFormatter(LOG_FORMAT), FileDescriptorHandler(self.writing), LINES_MAX)
        self.log = logging.Logger("piped")
        self.log.addHandler(self.queue)
        self.text = b""

    @property
    def unwritten(self) -> int:
        return unwritten(self.queue)

    def fill(self) -> None:
        os.write(self.writing, b"x" * (PIPE_BYTES - 1) + b"\n")

    def read_all(self) -> list[str]:
        """Read until the writing end is closed; return the lines but those that `fill` made."""
        while piece := os.read(self.reading, 65_536):
            self.text += piece
        return [line for line in self.text.decode().splitlines() if not line.startswith("xx")]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reading)


def close(pipe: Pipe) -> list[str]:
    """Close the log while somebody reads; return all lines."""
    lines: list[list[str]] = []
    reader = threading.Thread(target=lambda: lines.append(pipe.read_all()))
    reader.start()
    pipe.queue.close()
    os.close(pipe.writing)
    reader.join(WAIT_S)
    return lines[0]


def test_every_line_arrives_in_order(pipe: Pipe) -> None:
    for number in range(LINES_MAX):
        pipe.log.warning("line %d", number)
    lines = close(pipe)
    assert [line.rsplit(" ", 1)[1] for line in lines] == [str(number) for number in range(LINES_MAX)]


def test_a_stderr_that_nobody_reads_holds_nobody_and_what_is_dropped_is_counted_in_its_place(pipe: Pipe) -> None:
    pipe.fill()
    began_s = time.monotonic()
    for number in range(20 * LINES_MAX):
        pipe.log.warning("line %d", number)
    assert time.monotonic() - began_s < WAIT_S
    while len(pipe.text) < PIPE_BYTES:
        pipe.text += os.read(pipe.reading, PIPE_BYTES)
    until_s = time.monotonic() + WAIT_S
    while pipe.unwritten and time.monotonic() < until_s:
        pipe.text += os.read(pipe.reading, PIPE_BYTES)
    pipe.log.warning("afterwards")
    lines = close(pipe)
    kept = [int(line.rsplit(" ", 1)[1]) for line in lines if " line " in line]
    assert kept == sorted(kept)
    assert LINES_MAX <= len(kept) <= 2 * LINES_MAX
    gaps = [int(line.split(" cli.log_queue ")[1].split()[0]) for line in lines if "dropped here" in line]
    assert sum(gaps) + len(kept) == 20 * LINES_MAX
    assert "dropped here" in lines[-2]
    assert lines[-1].endswith("afterwards")


def test_the_last_gap_is_told_at_the_end(pipe: Pipe) -> None:
    pipe.fill()
    for number in range(3 * LINES_MAX):
        pipe.log.warning("line %d", number)
    lines = close(pipe)
    assert "dropped here" in lines[-1]


def test_flushing_into_a_full_pipe_ends(pipe: Pipe) -> None:
    pipe.fill()
    pipe.log.warning("one")
    began_s = time.monotonic()
    pipe.queue.flush()
    assert FLUSH_S_MAX <= time.monotonic() - began_s < FLUSH_S_MAX + WAIT_S
    close(pipe)


def test_a_reader_that_is_gone_and_a_non_blocking_stderr_lose_no_thread() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    queue = LogQueue(OneLineFormatter(LOG_FORMAT), FileDescriptorHandler(writing))
    log = logging.Logger("gone")
    log.addHandler(queue)
    for number in range(1_000):
        log.warning("line %d %s", number, "x" * 100)
    got = b""
    while got.count(b"\n") < 1_000:
        got += os.read(reading, 65_536)
    os.close(reading)
    log.warning("to nobody")
    until_s = time.monotonic() + WAIT_S
    while unwritten(queue) and time.monotonic() < until_s:
        queue.flush()
    assert unwritten(queue) == 0
    queue.close()
    os.close(writing)


def test_values_are_put_into_the_line_when_it_is_logged_not_later(pipe: Pipe) -> None:
    pipe.fill()
    changing: list[Any] = ["first"]
    pipe.log.warning("%s", changing)
    changing[0] = "second"
    assert close(pipe)[0].endswith("['first']")


PROGRAM = """
import logging, sys
from cli.running import set_up_logging
set_up_logging()
for number in range(int(sys.argv[1])):
    logging.getLogger("main").warning("line %d", number)
raise SystemExit(3)
"""


def test_a_process_writes_its_last_line_before_it_ends() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, "500"], cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 500
    assert done.stderr.splitlines()[-1].endswith("line 499")


def test_a_process_whose_stderr_is_full_ends_all_the_same_and_with_its_own_code() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, "50000"], cwd=ROOT, stderr=writing)
    os.close(writing)
    try:
        assert process.wait(WAIT_S) == 3
    finally:
        process.kill()
        os.close(reading)


def test_without_a_descriptor_the_log_goes_to_whatever_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from cli.running import set_up_logging

    stands_in, root = io.StringIO(), logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "stderr", stands_in)
    root.handlers = []
    try:
        set_up_logging()
        logging.getLogger("x").warning("hello")
        root.handlers[0].flush()
        root.handlers[0].close()
    finally:
        root.handlers = before
        root.setLevel(level)
    assert stands_in.getvalue().endswith("WARNING x hello\n")
