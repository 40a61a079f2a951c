"""Core's box: the real core on a real ledger file, with a disk that refuses and a kill at any moment.

The ledger is SQLite on a file, with `synchronous` off: a kill ends a process between two calls, and what the file holds
then is what the next process finds, synced or not. What a lost sync means is played in front of the commit.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import apsw

from config import SiteConfig
from gateway.core import (
    LEDGER_NAME,
    Ballast,
    Batch,
    Committed,
    Core,
    Ledger,
    LedgerReader,
    OnCommitted,
    OnTrouble,
    Ports,
    Snapshot,
    TaskWriter,
    write_snapshot,
)
from simulators.world import record as seen
from simulators.world.faults import CORE, FaultKind
from simulators.world.network import Network
from simulators.world.process import Process
from simulators.world.receivers import Receiver, ReceiverPost
from simulators.world.site import SECRETS

BALLAST_BYTES: Final = 64 * 1024
COMMITS_IN_BALLAST: Final = 4
DISK_BYTES: Final = 1 << 40
COMMIT_S_MAX: Final = 0.012
BLOCKING_S_MAX: Final = 0.01
SLOW_COMMITS_SHARE: Final = 0.002
SLOW_COMMIT_S: Final = 1.2  # longer than a commit may hold notices back


class CoreDisk:
    """What is wrong with the disk under core, and when it kills.

    Attributes:
        full, sync_fails: every commit and snapshot is refused.
        kill_behind_sync: the process dies once a transaction with a transition is durable.
    """

    def __init__(self, applied: Counter[FaultKind]) -> None:
        self._applied = applied
        self.full = False
        self.sync_fails = False
        self.kill_behind_sync = False
        self._room = 0
        self.unsure: tuple[WorldLedger, list[Batch]] | None = None
        """The transaction whose sync failed last: its bytes may be on the disk or not."""

    def begin(self, ledger: WorldLedger, batches: Sequence[Batch]) -> None:
        """Let a transaction through or raise apsw.FullError, apsw.IOError."""
        if self.full and not self._spare(ledger.path.parent / "ballast"):
            self._applied[FaultKind.DISK_FULL] += 1
            raise apsw.FullError("database or disk is full")
        if self.sync_fails:
            self._applied[FaultKind.SYNC_FAILS] += 1
            self.unsure = ledger, list(batches)
            raise apsw.IOError("disk I/O error")

    def _spare(self, ballast: Path) -> bool:
        """Ballast that was freed gives room for a few commits."""
        if ballast.exists():
            self._room = COMMITS_IN_BALLAST
        elif self._room:
            self._room -= 1
            return True
        return False

    def files(self) -> None:
        """Let a file be written or raise OSError."""
        if self.full:
            self._applied[FaultKind.DISK_FULL] += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.sync_fails:
            self._applied[FaultKind.SYNC_FAILS] += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class WorldLedger(Ledger):
    """The ledger of one process of core. Once that is dead no transaction goes through."""

    def __init__(self, path: Path, site: str, process: Process, disk: CoreDisk, die: Callable[[], None]) -> None:
        super().__init__(path, site)
        self._process, self._disk, self._die = process, disk, die
        self._step_written = self._last_words = False
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.set_update_hook(self._row_written)
        self._db.set_commit_hook(self._refused)
        self._db.set_wal_hook(self._durable)

    def commit(self, batches: Sequence[Batch]) -> Committed:
        """See `Ledger.commit`."""
        self._process.check()
        self._disk.begin(self, batches)
        committed = super().commit(batches)
        self._disk.unsure = None
        self._process.check()
        return committed

    def sync_after_all(self, batches: Sequence[Batch]) -> None:
        """The bytes of a failed sync were on the disk all the same, as the next process finds out."""
        self._last_words = True
        super().commit(batches)

    # -- hooks of SQLite: a kill comes between two transactions, wherever they are made --

    def _row_written(self, kind: int, database: str, table: str, row: int) -> None:
        self._step_written |= table == "transition"

    def _refused(self) -> bool:
        return self._process.dead and not self._last_words

    def _durable(self, connection: apsw.Connection, database: str, pages: int) -> int:
        written, self._step_written = self._step_written, False
        if written and self._disk.kill_behind_sync:
            self._disk.kill_behind_sync = False
            self._die()
        return apsw.SQLITE_OK


class CorePart:
    """Starts, kills and watches core."""

    def __init__(
        self, site: SiteConfig, folder: Path, seed: int, network: Network, receivers: dict[str, Receiver],
        wall_ms: Callable[[], int], note: Callable[[seen.Event], None], applied: Counter[FaultKind],
        die: Callable[[], None],
    ) -> None:  # fmt: skip
        self._site, self._folder, self._seed = site, folder, seed
        self._network, self._receivers, self._wall_ms = network, receivers, wall_ms
        self._note, self._die = note, die
        self.disk = CoreDisk(applied)
        self._random = Random(f"core's power {seed}")
        self._core: Core | None = None
        self._process: Process | None = None
        self._looked_pos = 0
        self._reader: LedgerReader | None = None

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self._folder / LEDGER_NAME

    async def run(self, process: Process, stop: asyncio.Event) -> None:
        """Be core until `stop`; what ends it otherwise is raised."""
        self._process = process
        core = Core(
            self._site, self._folder, self._network.connector(process), SECRETS, self._folder, ports=self._ports(process)
        )
        self._core = core
        await core.run(stop)

    def buried(self) -> None:
        """The process is gone: its files are closed, and a transaction of unknown outcome is decided."""
        core, self._core = self._core, None
        if self.disk.unsure is not None:
            ledger, batches = self.disk.unsure
            self.disk.unsure = None
            if core is not None and self._random.random() < 0.5:
                ledger.sync_after_all(batches)
        if core is not None:
            core.release()
        self.look()

    def _ports(self, process: Process) -> Ports:
        random = Random(f"core {self._seed} {process.run}")
        loop = asyncio.get_running_loop()

        async def run_blocking(work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            process.check()
            await asyncio.sleep(random.uniform(0, BLOCKING_S_MAX))
            process.check()
            answer = work(*args, **kwargs)
            await asyncio.sleep(random.uniform(0, BLOCKING_S_MAX))
            return answer

        def commit_s() -> float:
            return SLOW_COMMIT_S if random.random() < SLOW_COMMITS_SHARE else random.uniform(0.001, COMMIT_S_MAX)

        def writer(
            ledger: Ledger, on_committed: OnCommitted, on_trouble: OnTrouble, ballast: Ballast | None
        ) -> TaskWriter:
            return TaskWriter(ledger, on_committed, on_trouble, ballast, monotonic=loop.time, commit_s=commit_s)

        def save_snapshot(folder: Path, snapshot: Snapshot) -> Path:
            process.check()
            self.disk.files()
            return write_snapshot(folder, snapshot)

        return Ports(
            wall_ms=self._wall_ms,
            monotonic=loop.time,
            random=random,
            new_id=lambda: f"{random.getrandbits(128):032x}",
            run_blocking=run_blocking,
            open_ledger=lambda path, site: WorldLedger(path, site, process, self.disk, self._die),
            writer=writer,
            write_snapshot=save_snapshot,
            disk_bytes=lambda _: DISK_BYTES,
            ballast_bytes=BALLAST_BYTES,
            post_of=lambda receiver: ReceiverPost(self._receivers[receiver.id], process),
            beside=False,
        )

    # -- looking on --

    def look(self) -> None:
        """Note which frames a reading connection finds in the ledger that were not there before."""
        if self._reader is None:
            if not self.ledger.exists():
                return
            self._reader = LedgerReader.open(self.ledger)
        rows = self._reader.rows(
            "SELECT pos, kind, node, stream, first, last FROM log WHERE pos > ? ORDER BY pos", (self._looked_pos,)
        )
        at_s = asyncio.get_running_loop().time()
        for pos, kind, node, stream, first, last in rows:
            self._looked_pos = pos
            if kind in "FBQ" and stream:
                self._note(seen.Committed(at_s, pos, kind, node, stream, first, last))

    def due(self) -> int:
        """Return how many notices the ledger holds that no receiver has accepted."""
        if self._reader is None:
            return 0
        return int(self._reader.rows("SELECT count(*) FROM outbox WHERE state <> 'accepted'")[0][0])

    def busy(self) -> str:
        """Return why core is not at rest; empty when it is."""
        core = self._core
        if core is None or not core.connected:
            return f"{CORE} is not connected"
        return "" if core.loop.idle else f"{CORE} works"

    def close(self) -> None:
        """Stop looking on."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # -- the operator --

    def ask(self, request: dict[str, str], answered: Callable[[dict[str, Any] | None], None]) -> None:
        """Do an operator's act; `answered` is told what core said, None when it died over it."""
        core, process = self._core, self._process
        if core is None or process is None or process.dead:
            return

        async def act() -> None:
            answer: dict[str, Any] | None = None
            try:
                answer = await core.acts.answer(json.dumps(request).encode())
            finally:
                answered(answer)

        process.spawn(act(), name="operator")
