"""An edge's box: the real edge on a disk in memory, with instruments of the plant."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from config import EdgeFile
from edge import DiskThread, JournalReader, Ports, replace_json, run_edge
from simulators.world.disk import MemoryDisk
from simulators.world.faults import FaultKind
from simulators.world.network import Network
from simulators.world.plant import Plant, WorldField
from simulators.world.process import Process
from simulators.world.record import Event, Forgot, Sample, Taken
from wire import Message, decode_command

DISK_S_MAX: Final = 0.02
BUSY_SHARE: Final = 0.2
JOURNAL_SUFFIX: Final = ".journal"

T = TypeVar("T")


class EdgePart:
    """Starts and watches one box of an edge.

    Attributes:
        disk: outlives the processes.
        kill_behind_sync: the process dies once a frame is durable.
    """

    def __init__(
        self, edge_file: EdgeFile, folder: Path, seed: int, network: Network, plant: Plant, wall_ms: Callable[[], int],
        note: Callable[[Event], None], look: Callable[[], None], applied: Counter[FaultKind],
        die: Callable[[], None], box: int = 0,
    ) -> None:  # fmt: skip
        self.name, self.box = edge_file.edge.id, box
        self._edge_file, self._folder, self._seed = edge_file, folder, seed
        self._network, self._plant, self._wall_ms = network, plant, wall_ms
        self._note, self._look, self._die, self._applied = note, look, die, applied
        self.kill_behind_sync = False
        self._journals: dict[str, JournalReader] = {}
        self._taken: dict[tuple[int, int], float] = {}
        """Frame -> when it was synced, as long as it is not forgotten."""
        self._known: set[tuple[int, int]] = set()
        self._forgotten: dict[int, int] = {}
        self._random = Random(f"power {seed} {self.name} {box}")
        self.disk = MemoryDisk()
        self._watch_disk()

    async def run(self, process: Process, stop: asyncio.Event) -> None:
        """Be the edge until `stop`; what ends it otherwise is raised."""
        loop = asyncio.get_running_loop()
        name = f"{self._seed} {self.name} {self.box} {process.run}"
        connector = self._network.connector(process, self._hear)

        def save_json(path: Path, members: Mapping[str, Any], *, durable: bool) -> None:
            process.check()
            self.disk.room()
            if durable:  # a status is for people, of whom this world has none
                # Not synced: what a dead process has written is what the next one finds.
                replace_json(path, members, durable=False)

        ports = Ports(
            wall_ms=self._wall_ms,
            monotonic=loop.time,
            random=Random(f"streams {name}"),
            jitter=Random(f"jitter {name}"),
            disk_thread=lambda: _VirtualDiskThread(process, Random(f"disk {name}")),
            open_disk=lambda _: self.disk.opened_by(process),
            save_json=save_json,
            field_of=lambda now_ms: WorldField(
                self._edge_file, self._plant, now_ms, Random(f"polls {name}"), self._note, self.box
            ),
        )
        await run_edge(self._edge_file, self._folder, stop, connector, ports=ports)

    def lose_power(self) -> None:
        """The box stands without power for a while: what was not synced may be gone."""
        self.disk.lose_power(self._random)
        self._journals.clear()

    def twin(self, folder: Path, die: Callable[[], None]) -> EdgePart:
        """Return a second box with a copy of this one's disk."""
        other = EdgePart(
            self._edge_file, folder, self._seed, self._network, self._plant, self._wall_ms, self._note, self._look,
            self._applied, die, self.box + 1,
        )  # fmt: skip
        other.disk = self.disk.copy()
        other._watch_disk()
        other._known = set(self._known)
        other._forgotten = dict(self._forgotten)
        if self._folder.exists():
            shutil.copytree(self._folder, folder)
        return other

    def waiting(self, now_s: float, for_s: float) -> int:
        """Return how many frames were taken `for_s` ago and are not forgotten yet."""
        return sum(at_s <= now_s - for_s for at_s in self._taken.values())

    # -- looking on --

    def _watch_disk(self) -> None:
        self.disk.on_synced, self.disk.applied = self._synced, self._applied

    def _synced(self, name: str, content: bytes) -> None:
        if not name.endswith(JOURNAL_SUFFIX):
            return
        reader = self._journals.setdefault(name, JournalReader())
        at_s = asyncio.get_running_loop().time()
        fresh = False
        for frame in reader.frames(content):
            key = frame.stream, frame.sequence
            if key in self._known:
                continue
            fresh = True
            self._known.add(key)
            if frame.sequence > self._forgotten.get(frame.stream, 0):
                self._taken[key] = at_s
            samples = tuple(Sample(one.tag, reader.value(one), one.code, one.source_ms) for one in frame.samples)
            self._note(
                Taken(
                    at_s, self.name, self.box, frame.stream, frame.sequence, frame.predecessor, frame.predecessor_last,
                    samples,
                )
            )  # fmt: skip
        if fresh and self.kill_behind_sync:
            self.kill_behind_sync = False
            self._die()

    def _hear(self, message: Message) -> None:
        if "/NCMD/" not in message.topic:
            return
        for stream, upto in decode_command(message.payload).acknowledged:
            if upto <= self._forgotten.get(stream, 0):
                continue
            self._look()
            self._forgotten[stream] = upto
            for key in [key for key in self._taken if key[0] == stream and key[1] <= upto]:
                del self._taken[key]
            self._note(Forgot(asyncio.get_running_loop().time(), self.name, self.box, stream, upto))


class _VirtualDiskThread(DiskThread):
    """Blocking work in virtual time, one after the other, as in the edge's one thread."""

    def __init__(self, process: Process, random: Random) -> None:
        self._process, self._random = process, random
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """Do the work when its turn comes and the disk has answered."""
        async with self._turn:
            self._process.check()
            busy = self._random.random() < BUSY_SHARE
            await asyncio.sleep(self._random.uniform(0, DISK_S_MAX) if busy else 0)
            self._process.check()
            return work()

    def close(self) -> None:
        """Nothing to give up."""
