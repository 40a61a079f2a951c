"""The tests' own clocks and ports."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.ports import free_port
from tests import patience
from tests.patience import FairClock, cpu_s, fair_clock


def test_the_fair_clock_leaves_out_what_the_machine_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    moments, rests = iter([100.0, 100.02, 105.02, 105.04]), iter([False, False, False, True])
    clock = FairClock()
    monkeypatch.setattr(clock, "_ended", SimpleNamespace(wait=lambda _: next(rests)))
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    clock._run()
    assert clock() == pytest.approx(0.02 + 0.03 + 0.02), "five seconds of standing still count as one rest"


def test_the_fair_clock_runs_until_the_end_of_its_block() -> None:
    with fair_clock() as now_s:
        while now_s() < 0.1:
            pass
    stopped_s = now_s()
    assert now_s() == stopped_s


def test_processor_time_is_that_of_the_work() -> None:
    assert cpu_s(lambda: patience.time.sleep(0.01)) < 0.01
    assert cpu_s(lambda: sum(range(100_000))) > 0


def test_ports_lie_below_the_kernels_own_and_are_given_once() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert all(port < lowest for port in ports)


def test_a_port_somebody_listens_on_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    free = free_port()
    monkeypatch.setattr("benchmarks.ports._chosen", set())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        drawn = iter([taken.getsockname()[1], free])
        monkeypatch.setattr("benchmarks.ports._random", SimpleNamespace(randint=lambda *_: next(drawn)))
        assert free_port() == free
