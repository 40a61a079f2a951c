"""The watchdog thread: a loop that stands still cannot hide it."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway.core import watchdog as watchdog_file
from gateway.core.stall import StallNote
from gateway.core.watchdog import Watchdog
from tests.patience import GUARD_S
from wire import notify_systemd

WAIT_S = GUARD_S


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog_file, "PERIOD_S", 0.005)
    monkeypatch.setattr(watchdog_file, "STALL_SAID_S", 0.05)
    monkeypatch.setattr(watchdog_file, "STALL_FATAL_S", 0.2)


class Loop:
    """A loop that turns, or not."""

    def __init__(self) -> None:
        self.turning = True
        self._cycles = 0
        self.said: list[float] = []
        self.fatal = threading.Event()

    def cycles(self) -> int:
        self._cycles += self.turning
        return self._cycles


def watch(loop: Loop, path: Path, heartbeat: dict[str, Any] | None = None) -> Watchdog:
    watchdog = Watchdog(
        loop.cycles, lambda: heartbeat or {"cycles": loop._cycles}, path, loop.said.append, fatal=loop.fatal.set
    )
    watchdog.start()
    return watchdog


class FrozenWait:
    """The watchdog's own rest: one of them lasts as long as the whole process was stopped."""

    def __init__(self, rests_s: list[float]) -> None:
        self.now_s, self._rests = 1_000.0, iter(rests_s)

    def wait(self, _: float) -> bool:
        rest_s = next(self._rests, None)
        self.now_s += rest_s or 0.0
        return rest_s is None


@pytest.mark.fault("F69")
def test_a_loop_that_stands_still_is_said_once_and_then_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, wait = Loop(), FrozenWait([1 / 32] * 7)
    loop.turning = False
    told_at_the_end: list[int] = []
    watchdog = Watchdog(
        loop.cycles, dict, tmp_path / "heartbeat.json", loop.said.append, fatal=lambda: told_at_the_end.append(len(loop.said))
    )
    monkeypatch.setattr(watchdog, "_stop", wait)
    monkeypatch.setattr("gateway.core.watchdog.time.monotonic", lambda: wait.now_s)
    watchdog._run()
    assert loop.said == [2 / 32, 7 / 32], "when it is found, and with its whole length before the end"
    assert told_at_the_end == [2]


@pytest.mark.fault("F69")
def test_the_thread_ends_a_loop_that_stands_still(tmp_path: Path) -> None:
    loop = Loop()
    loop.turning = False
    watchdog = watch(loop, tmp_path / "heartbeat.json")
    assert loop.fatal.wait(WAIT_S)
    watchdog.close()


@pytest.mark.fault("F69")
@pytest.mark.parametrize(
    ("rests_s", "ended"),
    [
        pytest.param([0.005, 28.0, 0.005, 0.005], False, id="a process that was stopped as a whole has not stalled"),
        pytest.param([0.005, 28.0, *[0.05] * 6], True, id="but a loop that still does not turn afterwards has"),
        pytest.param([0.05] * 6, True, id="a loop that stands still in a running process"),
    ],
)
def test_a_stopped_process_is_not_taken_for_a_stalled_loop(
    rests_s: list[float], ended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, wait = Loop(), FrozenWait(rests_s)
    loop.turning = False
    watchdog = Watchdog(loop.cycles, dict, tmp_path / "heartbeat.json", loop.said.append, fatal=loop.fatal.set)
    monkeypatch.setattr(watchdog, "_stop", wait)
    monkeypatch.setattr("gateway.core.watchdog.time.monotonic", lambda: wait.now_s)
    watchdog._run()
    assert loop.fatal.is_set() is ended


@pytest.mark.fault("F69")
def test_a_loop_that_turns_again_takes_back_what_was_left_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog_file, "STALL_FATAL_S", 10 * WAIT_S)
    loop, turned = Loop(), threading.Event()
    note = StallNote(tmp_path / "stall.json")

    def left(length_s: float) -> None:
        note.leave(length_s, 7)
        loop.turning = True

    loop.turning = False
    watchdog = Watchdog(
        loop.cycles, lambda: {}, tmp_path / "heartbeat.json", left, loop.fatal.set,
        on_turn=lambda: (note.drop(), turned.set())[1],
    )  # fmt: skip
    watchdog.start()
    assert turned.wait(WAIT_S)
    watchdog.close()
    assert note.found() is None
    assert not loop.fatal.is_set()


@pytest.mark.fault("F69")
@pytest.mark.parametrize(("left", "facts"), [
    pytest.param(None, None, id="nothing"),
    pytest.param(b'{"seconds":7.5,"at_ms":12}', {"seconds": 7.5, "at_ms": 12}, id="a stall"),
    pytest.param(b"", {}, id="an empty file: the stall began, and the disk was full"),
    pytest.param(b"[" * 100_000, {}, id="rubbish"),
    pytest.param(b'{"seconds":"x","at_ms":true,"more":1}', {}, id="other facts"),
])  # fmt: skip
def test_what_an_ended_core_left_is_told_even_if_it_cannot_be_read(
    tmp_path: Path, left: bytes | None, facts: dict[str, float] | None
) -> None:
    path = tmp_path / "stall.json"
    if left is not None:
        path.write_bytes(left)
    assert StallNote(path).found() == facts
    StallNote(path).drop()
    assert StallNote(path).found() is None


def test_a_loop_that_turns_is_left_alone(tmp_path: Path) -> None:
    loop = Loop()
    watchdog = watch(loop, tmp_path / "heartbeat.json")
    assert not loop.fatal.wait(0.4)
    watchdog.close()
    assert loop.said == []


@pytest.mark.fault("F69")
def test_systemd_is_fed_only_while_the_loop_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify.sock")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(WAIT_S)
        loop = Loop()
        watchdog = watch(loop, tmp_path / "heartbeat.json")
        heard: set[bytes] = set()
        while not heard >= {b"READY=1", b"WATCHDOG=1"}:
            heard.add(systemd.recv(64))
        loop.turning = False
        assert loop.fatal.wait(WAIT_S)
        watchdog.close()
        systemd.setblocking(False)
        while True:
            try:
                systemd.recv(64)
            except BlockingIOError:
                break
        silent = Loop()
        silent.turning = False
        monkeypatch.setattr(silent, "_cycles", 7)
        second = watch(silent, tmp_path / "heartbeat.json")
        assert silent.fatal.wait(WAIT_S)
        second.close()
        late = []
        while True:
            try:
                late.append(systemd.recv(64))
            except BlockingIOError:
                break
        assert b"WATCHDOG=1" not in late


def test_the_abstract_address_of_systemd_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"hazardgate-test-{id(object())}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        systemd.settimeout(WAIT_S)
        notify_systemd("STOPPING=1")
        assert systemd.recv(64) == b"STOPPING=1"


def test_without_systemd_nothing_is_said_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_systemd("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent/socket")
    notify_systemd("READY=1")


def test_the_heartbeat_file_is_always_whole(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.json"
    loop = Loop()
    watchdog = watch(loop, path, {"text": "氯" * 2_000})
    while not path.exists():
        threading.Event().wait(0.002)
    for _ in range(200):
        assert json.loads(path.read_text(encoding="utf-8")) == {"text": "氯" * 2_000}
    watchdog.close()


def test_a_disk_that_refuses_the_heartbeat_does_not_end_the_watch(tmp_path: Path) -> None:
    loop = Loop()
    watchdog = watch(loop, tmp_path / "no-such-folder" / "heartbeat.json")
    loop.turning = False
    assert loop.fatal.wait(WAIT_S)
    watchdog.close()


@pytest.mark.fault("F69")
def test_a_heartbeat_that_cannot_be_made_does_not_end_the_watch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The numbers are read beside the thread that writes them."""
    loop = Loop()

    def torn() -> dict[str, Any]:
        raise RuntimeError("dictionary changed size during iteration")

    watchdog = Watchdog(loop.cycles, torn, tmp_path / "heartbeat.json", loop.said.append, fatal=loop.fatal.set)
    watchdog.start()
    loop.turning = False
    assert loop.fatal.wait(WAIT_S)
    watchdog.close()
    assert "heartbeat" in caplog.text


@pytest.mark.fault("F58")
def test_a_full_disk_does_not_silence_a_core_that_has_beaten_before(tmp_path: Path) -> None:
    """What is on the disk is written over; nothing new is asked of it, and its reader never sees half of one."""
    path, turn = tmp_path / "heartbeat.json", 0
    for at in range(2):
        turn = watchdog_file.write_beat(path, turn, json.dumps({"cycles": at, "long": "x" * 9000}).encode())
    blocks = {each: (each.stat().st_ino, each.stat().st_size) for each in (path.with_suffix(".0"), path.with_suffix(".1"))}
    for at in range(2, 9):
        before = path.read_text()
        with path.open() as reader:  # opened now, read after the next beat
            turn = watchdog_file.write_beat(path, turn, json.dumps({"cycles": at}).encode())
            assert reader.read() == before
        assert json.loads(path.read_text()) == {"cycles": at}
    assert {each: (each.stat().st_ino, each.stat().st_size) for each in blocks} == blocks
    turn = watchdog_file.write_beat(path, 1 - turn, b'{"cycles": 99}')  # a core started anew does not know whose turn it is
    assert json.loads(path.read_text()) == {"cycles": 99}


def test_a_heartbeat_that_cannot_be_written_is_said_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = threading.Semaphore(0)

    def full(*_: object) -> int:
        tried.release()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watchdog_file, "write_beat", full)
    watchdog = watch(Loop(), tmp_path / "heartbeat.json")
    for _ in range(5):
        assert tried.acquire(timeout=WAIT_S)
    watchdog.close()
    assert [record.message for record in caplog.records].count(
        "heartbeat file: [Errno 28] No space left on device; said again in 60 s while it lasts"
    ) == 1
