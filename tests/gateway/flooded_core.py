"""A core whose disk takes nothing is flooded until it keeps no more, tells what that cost, and is killed. For tests.

    python -m tests.gateway.flooded_core FOLDER KIND MIB

MIB is the bound of what may wait for the disk; 64 is core's own (and takes a minute).
The loop, the machine and the ledger are core's own; the writer commits nothing from the first flooded frame on.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from pathlib import Path

from gateway.core import loop as loop_file
from gateway.core.loop import INBOX_MESSAGES_MAX
from tests.gateway.bench import Bench
from tests.gateway.field import LEVEL, T0_MS, Edge, address, device_frame
from wire import MessageKind

MIB = 1024 * 1024
ADDRESS_SPACE_MORE = 512 * MIB  # a limit as of a container: beyond it Python gets no memory
CYCLES_MAX = 60_000
TOPIC = address(MessageKind.DDATA, "E1", "TANK")


def _status(name: str) -> int:
    """Return a memory figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


class Flood:
    """Messages of edge E1 without end."""

    def __init__(self, edge: Edge) -> None:
        self._edge, self._number = edge, edge.streams[edge.live].last

    def quiet(self) -> tuple[str, bytes]:
        return self._frame(3.0)

    def alarming(self) -> tuple[str, bytes]:
        return self._frame(12.0 if self._number % 2 else 3.0)

    def _frame(self, value: float) -> tuple[str, bytes]:
        self._number += 1
        edge = self._edge
        return TOPIC, device_frame(edge._seq(), [(1, value)], edge.live, self._number, T0_MS + self._number)


async def flood(folder: Path, kind: str, bound: int) -> dict[str, int | bool]:
    """Flood a core until it holds nothing more, then half as much again; return what it cost."""
    loop_file.UNCOMMITTED_BYTES_MAX = loop_file.INBOX_BYTES_MAX = bound  # type: ignore[misc]
    bench = Bench(folder)
    edge = Edge()
    bench.deliver(edge.born())
    bench.deliver(edge.scan({LEVEL: 12.0}))
    await bench.cycle()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + ADDRESS_SPACE_MORE, hard))
    messages, before, full_at, cycles = Flood(edge), _status("VmRSS"), 0, 0
    if kind == "inbox":
        topic, payload = messages.quiet()
        for _ in range(2 * INBOX_MESSAGES_MAX):
            bench.loop.message(topic, bytes(bytearray(payload) * 40))  # each a copy of its own
        full_at = bench.loop.counters.messages_dropped
    else:
        make = getattr(messages, kind)
        while cycles < CYCLES_MAX and not (full_at and cycles >= full_at * 3 // 2):
            bench.loop.message(*make())
            bench.now_s += 0.001
            bench.loop.cycle()
            cycles += 1
            if bench.loop.counters.overflow and not full_at:
                full_at = cycles
    return {
        "grown": _status("VmRSS") - before, "full_at": full_at, "cycles": cycles, "overflow": bench.loop.counters.overflow,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(asyncio.run(flood(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) * MIB))), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
