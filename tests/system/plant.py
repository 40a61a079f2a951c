"""`python -m tests.system.plant SITE FOLDER SEED`: real Modbus TCP instruments of the restless site, as a process.

Waves, sawteeth, walks and flipping contacts, so that limits are crossed and left many times a minute.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import sys
from pathlib import Path

import numpy as np

from config import load_site
from simulators import InstrumentBank, field_of

STEP_S = 0.1
NOT_A_NUMBER_CHANCE = 0.004  # a step in which a gas detector begins to send NaN
NOT_A_NUMBER_STEPS = 6


class Signal:
    """One tag's value from step to step; the kind is the last part of its id."""

    def __init__(self, tag: str, source: random.Random) -> None:
        self._kind, self._random = tag.rpartition(".")[2], source
        self._phase, self._period_s = source.random(), source.uniform(12.0, 25.0)
        self._value = source.uniform(20.0, 80.0)
        self._broken_steps = 0

    def at(self, time_s: float) -> float:
        """Return the value at a time since the plant's start."""
        turn = time_s / self._period_s + self._phase
        if self._kind == "WAVE":
            return 50.0 + 45.0 * math.sin(2 * math.pi * turn)
        if self._kind in ("COUNTER", "SLOW"):
            return 100.0 * (turn % 1.0)
        if self._kind == "GAS":
            return self._gas(max(0.0, 50.0 + 55.0 * math.sin(2 * math.pi * turn)))
        if self._kind == "DOOR":
            if self._random.random() < STEP_S / self._period_s * 2:
                self._value = 0.0 if self._value == 1.0 else 1.0
            return 1.0 if self._value == 1.0 else 0.0
        self._value = min(100.0, max(0.0, self._value + self._random.gauss(0.0, 3.0)))
        return self._value

    def _gas(self, value: float) -> float:
        if self._broken_steps == 0 and self._random.random() < NOT_A_NUMBER_CHANCE:
            self._broken_steps = NOT_A_NUMBER_STEPS
        if self._broken_steps:
            self._broken_steps -= 1
            return math.nan
        return value


async def run(site_file: Path, folder: Path, seed: int) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    field, source = field_of(load_site(site_file)), random.Random(seed)
    signals = [Signal(tag.id, random.Random(source.random())) for tag in field.tags]
    bank = InstrumentBank(field, folder, seed)
    bank.write(np.array([one.at(0.0) for one in signals]))
    await bank.start()
    (folder / "plant.pid").write_text(str(os.getpid()))
    loop = asyncio.get_running_loop()
    began = due = loop.time()
    try:
        while not stop.is_set():
            bank.write(np.array([one.at(loop.time() - began) for one in signals]))
            bank.flush()
            due = max(due + STEP_S, loop.time())
            try:
                async with asyncio.timeout_at(due):
                    await stop.wait()
            except TimeoutError:
                continue
    finally:
        await bank.stop()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
