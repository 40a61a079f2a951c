"""B2: from the answer that carries a register over its limit to the first byte of the webhook at the receiver.

2 000 tags at 1 Hz on 50 Modbus TCP devices (40 samples a frame, one read a poll: the hops of the bare chain, and
no more), all of them changing every second, through edge, broker and core as they ship, every part durable. One
tag at a time is stepped over its limit at random moments. The poll phase, the
wait until the instrument is asked, is left out: the clock starts when the changed register leaves in an answer.
Both ends are stamped by the machine's one clock; the plant stamps right after the answer is written, for both chains.
Beside it, at the same rate and in the same minutes: the bare chain (`bare_chain`) and one raw fdatasync.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop

from benchmarks.bare_chain import REGISTERS
from benchmarks.chain import Chain, Helper, Receiver, running_chain
from benchmarks.harness import BenchmarkError, Outcome, RawDisk, Spread, data_folder, spread, spread_cells
from benchmarks.receiver import missing_sequences
from config import SiteConfig
from gateway.core import LEDGER_NAME, LedgerReader
from simulators import SyntheticPlant, synthetic_site, synthetic_tag
from wire import encode_data

TAGS: Final = 2_000
DEVICES: Final = 50
STEPS: Final = 1_000
STEPS_PER_S: Final = 5.0
SETTLE_S: Final = 3.0
ALONE_STEPS: Final = 200
ALARM_S_MAX: Final = 15.0
STAND_S: Final = 1.2
"""How long a stepped tag stays over at least: longer than a poll period, so that it is read again."""
P50_MS, P99_MS, BARE_RATIO = 10.0, 60.0, 3.0
BARE_TAGS: Final = REGISTERS // 2  # as many as one of our devices has
BODY_BYTES: Final = 1_255  # of the bare chain's webhook; ours is printed as webhook_bytes
ALONE_STEPS_PER_S: Final = 20.0
PEERS: Final = {
    "Prometheus + Alertmanager": "prometheus",
    "VictoriaMetrics vmalert": "vmalert",
    "Grafana alerting": "grafana-server",
}
DURABILITY: Final = (
    "ours: ledger SQLite WAL synchronous=FULL before the webhook leaves, edge spool fdatasync beside the publish "
    "(<= 100 ms); bare chain: fdatasync at the edge, then one at the gateway, both on the way"
)


@dataclass(slots=True)
class Measured:
    """Latencies in ms, in the order they were taken."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    bare_alone: list[float] = field(default_factory=list)
    fsync: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    webhook_bytes: int = 0
    gaps: int = 0
    load: tuple[float, float] = (0.0, 0.0)


def run(options: argparse.Namespace) -> Outcome:
    """Measure and judge. The data folder stays only when it was named."""
    steps = options.steps or STEPS
    with (
        data_folder(options.data, "hazardgate-b2-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        measured = runner.run(_measure(folder, steps, random.Random(options.seed)))
    return judge(measured, steps)


def judge(measured: Measured, steps: int) -> Outcome:
    """Turn what was measured into table, figures and verdict."""
    if not measured.ours or not measured.bare:
        raise BenchmarkError(f"no webhook arrived at all; first loss: {(measured.lost or ['none'])[0]}")
    ours, bare, fsync = spread(measured.ours), spread(measured.bare), spread(measured.fsync)
    alone = spread(measured.bare_alone) if measured.bare_alone else None
    outcome = Outcome("B2", f"alarm latency, {TAGS} tags at 1 Hz, {steps} steps over a limit (ms)", DURABILITY)
    outcome.figures = {
        "ours_ms": ours.to_json(), "bare_ms": bare.to_json(), "fsync_ms": fsync.to_json(),
        "bare_alone_ms": alone.to_json() if alone else None,
        "stages_ms": {name: spread(found).to_json() for name, found in measured.stages.items() if found},
        "steps": steps, "steps_without_webhook": len(measured.lost), "sequence_gaps": measured.gaps,
        "webhook_bytes": measured.webhook_bytes, "seconds": round(measured.seconds, 1),
        "cpu_percent": {name: round(100 * used / measured.seconds, 1) for name, used in measured.cpu.items()},
        "load_average": [round(value, 2) for value in measured.load],
    }  # fmt: skip
    outcome.ratios = {
        "ours_to_bare_p50": round(ours.p50 / bare.p50, 2), "ours_to_bare_p99": round(ours.p99 / bare.p99, 2),
        "ours_to_fsync_p50": round(ours.p50 / fsync.p50, 1),
    }  # fmt: skip
    outcome.goal = {"p50_ms": P50_MS, "p99_ms": P99_MS, "p50_to_bare": BARE_RATIO, "steps_without_webhook": 0}
    outcome.held = {
        "p50_ms": ours.p50 <= P50_MS, "p99_ms": ours.p99 <= P99_MS,
        "p50_to_bare": ours.p50 <= BARE_RATIO * bare.p50,
        "steps_without_webhook": not measured.lost and not measured.gaps and len(measured.ours) == steps,
    }  # fmt: skip
    outcome.rows = _rows(measured, ours, bare, fsync, alone)
    outcome.missing = [_peer(name, program) for name, program in PEERS.items()]
    shares = ", ".join(f"{name} {100 * used / measured.seconds:.0f} %" for name, used in measured.cpu.items())
    outcome.notes = [
        f"CPU of {os.cpu_count()} cores over {measured.seconds:.0f} s: {shares}; load average "
        f"{measured.load[0]:.1f} before, {measured.load[1]:.1f} after",
        *(f"lost: {what}" for what in measured.lost[:10]),
    ]
    return outcome


def _rows(
    measured: Measured, ours: Spread, bare: Spread, fsync: Spread, alone: Spread | None
) -> list[Sequence[str]]:
    def row(name: str, found: Spread | None, note: str) -> list[str]:
        ratio = f"{found.p50 / bare.p50:.2f}" if found else "-"
        return [name, *spread_cells(found), ratio, note]

    rows: list[Sequence[str]] = [["", "count", "p50", "p99", "max", "p50 / bare", "durable"]]
    rows.append(row("ours: answer -> webhook byte", ours, "yes"))
    rows += [row(f"    {name}", spread(found) if found else None, "") for name, found in measured.stages.items()]
    rows.append(row("bare chain, same minutes (the limit)", bare, "yes"))
    rows.append(row("bare chain alone, before ours ran", alone, "yes"))
    rows.append(row("raw append + fdatasync, 4 KiB", fsync, "yes"))
    return rows


def _peer(name: str, program: str) -> str:
    if shutil.which(program):
        return f"{name}: installed, but this benchmark has no set-up for it; not measured"
    return f"{name}: not installed here; not measured"


async def set_up(folder: Path, chance: random.Random, ends: AsyncExitStack) -> tuple[Chain, BareChain, RawDisk]:
    """Start B2's chain without ours, its wandering plant, the bare chain and the raw disk; all end with `ends`."""
    chain = await ends.enter_async_context(
        running_chain(folder, tags=TAGS, devices=DEVICES, seed=chance.randrange(2**32))
    )
    stop = asyncio.Event()
    ends.callback(stop.set)
    wandering = asyncio.create_task(chain.plant.run(stop), name="wander")
    ends.callback(wandering.cancel)
    bare = await BareChain.start(folder, chain, ends)
    disk = RawDisk(folder)
    ends.callback(disk.close)
    return chain, bare, disk


async def _measure(folder: Path, steps: int, chance: random.Random) -> Measured:
    measured = Measured()
    async with AsyncExitStack() as ends:
        chain, bare, disk = await set_up(folder, chance, ends)

        async def alone(_: int) -> None:
            measured.bare_alone.append(await bare.once())

        await _at_random(min(steps, ALONE_STEPS), chance, alone, per_s=ALONE_STEPS_PER_S, serial=True)
        await chain.start_ours()
        measured.webhook_bytes = await first_webhook(chain)
        await asyncio.sleep(SETTLE_S)
        await side_by_side(chain, bare, disk, steps, chance, measured)
        failed = chain.dead()
        if failed is not None:
            raise BenchmarkError(failed)
        measured.gaps = missing_sequences(chain.receiver.lines)
    measured.stages = stages(folder, chain.receiver.lines, measured)
    return measured


async def first_webhook(chain: Chain) -> int:
    """Warm the chain up by one alarm that is not counted; returns how long its webhook is."""
    tag = synthetic_tag(TAGS - 1)
    raised, returned = chain.receiver.expect("alarm.raised", tag), chain.receiver.expect("alarm.returned", tag)
    try:
        async with asyncio.timeout(2 * ALARM_S_MAX):
            chain.plant.step_over(tag)
            line = await raised
            chain.plant.step_back(tag)
            await returned
    except TimeoutError:
        why = chain.dead() or f"all parts run; their logs are in {chain.folder / 'logs'}"
        raise BenchmarkError(f"the chain brought no first webhook in {2 * ALARM_S_MAX:g} s; {why}") from None
    return int(line["bytes"])


async def side_by_side(
    chain: Chain, bare: BareChain, disk: RawDisk, steps: int, chance: random.Random, measured: Measured
) -> None:
    """Our steps, the bare chain's and the raw syncs, each at random moments of the same minutes."""
    load_before, cpu_before, began = os.getloadavg()[0], chain.cpu_s(), time.monotonic()
    order = chance.sample(range(TAGS - 1), min(steps, TAGS - 1))
    tags = [synthetic_tag(order[i % len(order)]) for i in range(steps)]

    async def ours(number: int) -> None:
        await _step(chain, tags[number], measured)

    async def beside(number: int) -> None:
        measured.bare.append(await bare.once())
        measured.fsync.append(await asyncio.to_thread(disk.once_ms))

    await asyncio.gather(
        _at_random(steps, chance, ours), _at_random(steps, random.Random(chance.random()), beside, serial=True)
    )
    measured.seconds = time.monotonic() - began
    measured.cpu = {name: used - cpu_before.get(name, 0.0) for name, used in chain.cpu_s().items()}
    measured.load = (load_before, os.getloadavg()[0])


async def _at_random(
    count: int, chance: random.Random, event: Callable[[int], Awaitable[None]], *, per_s: float = STEPS_PER_S, serial: bool = False
) -> None:
    """Start `count` events at the moments of a Poisson process, so that none keeps step with the polls."""
    due = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            due += chance.expovariate(per_s)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if serial:
                await event(number)
            else:
                tasks.create_task(_run(event, number), name=f"step-{number}")


async def _run(event: Callable[[int], Awaitable[None]], number: int) -> None:
    await event(number)


async def _step(chain: Chain, tag: str, measured: Measured) -> None:
    """Step one tag over, wait for its webhook, and bring it back."""
    plant, receiver = chain.plant, chain.receiver
    raised, returned = receiver.expect("alarm.raised", tag), receiver.expect("alarm.returned", tag)
    what = "was not read"
    try:
        async with asyncio.timeout(ALARM_S_MAX):
            read_ms = await plant.read_ms(plant.step_over(tag))
            what = "raised no webhook"
            line = await raised
            measured.ours.append(line["at_ms"] - read_ms)
            line["read_ms"] = read_ms
            await asyncio.sleep(STAND_S)
            what = "returned without a webhook"
            await plant.read_ms(plant.step_back(tag))
            await returned
    except TimeoutError:
        measured.lost.append(f"{tag} {what} within {ALARM_S_MAX:g} s")


class BareChain:
    """The bare chain's two processes and its own instrument."""

    def __init__(self, plant: SyntheticPlant, receiver: Receiver, edge: Helper) -> None:
        self._plant, self._receiver, self._edge = plant, receiver, edge
        self._number = 0

    @classmethod
    async def start(cls, folder: Path, chain: Chain, ends: AsyncExitStack) -> BareChain:
        """Start them on the chain's broker and receiver, with messages as long as ours."""
        site = SiteConfig.model_validate(synthetic_site(BARE_TAGS, 1))
        plant = await ends.enter_async_context(SyntheticPlant(site, ports={("EDGE1", "BUS0"): 0}))
        port = plant.bank.addresses["EDGE1/BUS0"][1]
        gateway = await Helper.start(
            "benchmarks.bare_chain", "gateway", chain.broker_port, chain.receiver.port, folder / "bare-gateway.bin", BODY_BYTES
        )
        ends.push_async_callback(gateway.stop)
        await gateway.read()
        edge = await Helper.start(
            "benchmarks.bare_chain", "edge", port, chain.broker_port, folder / "bare-edge.bin", payload_bytes()
        )
        ends.push_async_callback(edge.stop)
        await edge.read()
        return cls(plant, chain.receiver, edge)

    async def once(self) -> float:
        """Step a register, have it read, and return the ms from the answer to the webhook's first byte."""
        self._number += 1
        tag = synthetic_tag(self._number % BARE_TAGS)
        arrived = self._receiver.expect("bare", self._number)
        change = self._plant.step_over(tag)
        self._edge.write(b"%d\n" % self._number)
        try:
            async with asyncio.timeout(ALARM_S_MAX):
                read_ms = await self._plant.read_ms(change)
                line = await arrived
        except TimeoutError:
            raise BenchmarkError("the bare chain lost a step") from None
        self._plant.step_back(tag)
        return float(line["at_ms"]) - read_ms


def payload_bytes() -> int:
    """Return how long a DATA message of ours is: one device, every tag changed."""
    rows = TAGS // DEVICES
    now = np.full(rows, time.time_ns() // 1_000_000, np.int64)
    good = np.full(rows, 192, np.uint8)
    return len(encode_data(int(now[0]), 1, 2**62, 1_000, np.arange(1, rows + 1, dtype=np.int64), np.full(rows, 50.1), good, now))


def stages(folder: Path, lines: list[dict[str, Any]], measured: Measured) -> dict[str, list[float]]:
    """Split our latencies by the stamps that edge and core keep (whole ms; the first stage is half a ms short)."""
    reader = LedgerReader.open(folder / "core" / LEDGER_NAME)
    try:
        stamps = {
            notice: (start_ms, created_ms, sent_ms)
            for notice, start_ms, created_ms, sent_ms in reader.rows(
                "SELECT o.notice_id, a.start_ms, o.created_ms, t.at_ms FROM outbox o JOIN alarm a ON a.id = o.alarm_id"
                " JOIN attempt t ON t.notice_id = o.notice_id AND t.attempt = 1"
            )
        }
    finally:
        reader.close()
    found: dict[str, list[float]] = {
        "answer sent -> edge has it": [], "edge -> core's cycle": [],
        "core: evaluate, commit, hand over": [], "courier -> first byte": [],
    }  # fmt: skip
    for line in lines:
        with suppress(KeyError):  # a line that is no measured step, or whose attempt was not committed at the stop
            start_ms, created_ms, sent_ms = stamps[line["id"]]
            moments = (line["read_ms"], start_ms, created_ms, sent_ms, line["at_ms"])
            for name, began, ended in zip(found, moments, moments[1:], strict=False):
                found[name].append(ended - began)
    return found
