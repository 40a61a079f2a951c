"""The second half of `make soak`: 1 000 tags at 1 Hz through the processes that ship, and their memory over time.

All tags change every second, one is stepped over its limit each second, an operator acknowledges and closes what has
returned, and three consoles read serve's stream. It is watched once serve's bounded stores are full. Flat means: each
process's anonymous memory in the last fifth of the run is no higher than in the fifth that ends at its middle, but for
2 % or 2 MB, whichever is more. What was taken must be acknowledged at the end, and no alarm may be missing.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.b2_with_serve import make_token, start_serve
from benchmarks.chain import Chain, Helper, read_json, running_chain
from benchmarks.harness import BenchmarkError
from benchmarks.ports import free_port
from benchmarks.receiver import missing_sequences
from gateway.core import ACTS_NAME, LEDGER_NAME, LedgerReader, send_act
from simulators import synthetic_tag

TAGS: Final = 1_000
DEVICES: Final = 25
STREAMS: Final = 3
QUERIES_PER_S: Final = 1.0
SAMPLE_S: Final = 2.0
WARM_S: Final = 240.0  # serve's stores fill up to their bounds, and the heap settles round what they let go
STAND_S: Final = 2.5
OPERATE_S: Final = 3.0
DRAIN_S_MAX: Final = 20.0
RECENT_MB: Final = 1
"""Serve keeps the newest frames up to a bound that an operator sets; this one is reached in about a minute."""
GROWTH_SHARE, GROWTH_MB = 0.02, 2.0
PARTS: Final = ("edge", "core", "serve")


def grown_mb(samples: Sequence[float]) -> float:
    """Return by how many MB the last fifth of the samples lies above the fifth that ends at the middle (medians)."""
    fifth = max(1, len(samples) // 5)
    middle = len(samples) // 2
    return statistics.median(samples[-fifth:]) - statistics.median(samples[middle - fifth : middle] or samples[:1])


def flat(samples: Sequence[float]) -> bool:
    """Whether memory, in MB, has stayed where it was."""
    return grown_mb(samples) <= max(GROWTH_MB, GROWTH_SHARE * statistics.median(samples))


def run(minutes: float) -> bool:
    """Run the chain for `minutes`, print a line a minute and the verdict; True when all of it holds."""
    with tempfile.TemporaryDirectory(prefix="hazardgate-soak-") as folder:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_run(Path(folder), 60.0 * minutes))
        except BenchmarkError as error:
            print(f"memory: {error}", file=sys.stderr)
            return False


async def _run(folder: Path, seconds: float) -> bool:
    async with AsyncExitStack() as ends:
        chain = await ends.enter_async_context(running_chain(folder, tags=TAGS, devices=DEVICES, seed=1))
        stop = asyncio.Event()
        ends.callback(stop.set)
        wandering = asyncio.create_task(chain.plant.run(stop), name="wander")
        ends.callback(wandering.cancel)
        await chain.start_ours()
        token, port = await make_token(folder), free_port()
        serve = await start_serve(chain, port, ends, "--recent-mb", str(RECENT_MB))
        chain.children["serve"] = serve
        load = await Helper.start(
            "benchmarks.serve_load", f"http://127.0.0.1:{port}", TAGS, STREAMS, QUERIES_PER_S,
            environment={"HAZARDGATE_TOKEN": token},
        )  # fmt: skip
        ends.push_async_callback(load.stop)
        await load.read()
        print(f"warming up for {WARM_S:.0f} s", flush=True)
        await asyncio.sleep(WARM_S)
        loads = [
            asyncio.create_task(_steps(chain), name="steps"), asyncio.create_task(_operate(chain.folder), name="operator"),
        ]  # fmt: skip
        memory = await _watch(chain, seconds)
        for task in loads:
            task.cancel()
        for ended in await asyncio.gather(*loads, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
        await asyncio.sleep(2 * STAND_S)
        return await _verdict(chain, memory)


async def _steps(chain: Chain) -> None:
    """Step one tag after another over its limit and back, one a second."""
    async with asyncio.TaskGroup() as tasks:
        for number in itertools.count():
            tasks.create_task(_step(chain, synthetic_tag(number % TAGS)), name="step")
            await asyncio.sleep(1.0)


async def _step(chain: Chain, tag: str) -> None:
    chain.plant.step_over(tag)
    try:
        await asyncio.sleep(STAND_S)
    finally:
        chain.plant.step_back(tag)


async def _operate(folder: Path) -> None:
    """Acknowledge and close what has returned: alarms left open are state that core must keep, and no leak."""
    acts = folder / "core" / ACTS_NAME
    while True:
        reader = LedgerReader.open(folder / "core" / LEDGER_NAME)
        try:
            returned = [alarm for alarm in reader.open_alarms() if not alarm.state.active]
        finally:
            reader.close()
        for alarm in returned:
            for act in ("acknowledge", "close"):
                told = {"act": act, "alarm": alarm.id, "actor": "Soak", "reason": "Stepped by the soak", "measure": "None"}
                answer = await send_act(acts, told)
                if not answer["ok"]:
                    raise BenchmarkError(f"{act} of {alarm.id} was refused: {answer['error']}")
        await asyncio.sleep(OPERATE_S)


async def _watch(chain: Chain, seconds: float) -> dict[str, list[float]]:
    memory: dict[str, list[float]] = {part: [] for part in PARTS}
    began, said = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        failed = chain.dead()
        if failed is not None:
            raise BenchmarkError(failed)
        for part in PARTS:
            process = chain.children[part].process
            assert process is not None
            memory[part].append(anonymous_mb(process.pid))
        minute = int((time.monotonic() - began) // 60)
        if minute > said:
            said = minute
            print(f"minute {minute}: " + ", ".join(f"{part} {values[-1]:.1f} MB" for part, values in memory.items()), flush=True)
        await asyncio.sleep(SAMPLE_S)
    return memory


async def _verdict(chain: Chain, memory: Mapping[str, Sequence[float]]) -> bool:
    holds = True
    for part, values in memory.items():
        fine = flat(values)
        holds &= fine
        print(
            f"{'flat ' if fine else 'GROWS'} {part}: median {statistics.median(values):.1f} MB, last {values[-1]:.1f} MB, "
            f"{grown_mb(values):+.2f} MB in the second half"
        )
    unacked = await _unacked(chain)
    missing = missing_sequences(chain.receiver.lines)
    raised = sum(line.get("type") == "alarm.raised" for line in chain.receiver.lines)
    committed = chain.heartbeat().get("samples_committed", 0)
    print(f"{committed} samples committed, {unacked} streams with frames unacknowledged, {raised} alarms delivered, {missing} missing")
    return holds and not unacked and not missing and raised > 0


async def _unacked(chain: Chain) -> int:
    """End the edge in order, which waits for its receipts, and return how many streams it still holds."""
    deadline = time.monotonic() + DRAIN_S_MAX
    await chain.children["edge"].stop(lambda: deadline)
    status = read_json(chain.folder / "edge" / "status.json") or {}
    return len(status.get("unfinished", ["no status"]))


def anonymous_mb(pid: int) -> float:
    """Return a process's anonymous resident memory in MB: what its own objects take, without files it has mapped."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise BenchmarkError(f"process {pid} has ended")
