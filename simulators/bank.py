"""The instruments of a site as one thing: registers, listeners, faults, and logs that prove what happened.

Values come from outside, one array per step; each step is visible to readers as a whole or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.changes import Change, ChangeWatch, UnreadChanges
from simulators.errors import ControlRefusedError
from simulators.field import Field
from simulators.instrument_faults import FaultKind, InstrumentFault
from simulators.jsonlines import JsonLines
from simulators.registers import RegisterImage
from simulators.requests import RequestLog
from simulators.servers import Instruments, InstrumentServer

REQUESTS_FILE = "requests.jsonl"
CHANGES_FILE = "register-changes.jsonl"
READS_FILE = "register-reads.jsonl"

OnRead = Callable[[Change, float], None]


class InstrumentBank:
    """All instruments of a site's edges behind real Modbus TCP listeners.

    `directory` (None: no files) gets three JSON-lines files:
    `requests.jsonl`, every request's function code;
    `register-changes.jsonl`, every change across a limit: the fields of `Change`;
    `register-reads.jsonl`, when such a change first left in an answer: number, tag, limit, over, read_ms; null
    for one that went back before anybody read it.
    """

    def __init__(self, field: Field, directory: Path | None, seed: int, on_read: OnRead | None = None) -> None:
        self.field = field
        self._files: list[JsonLines] = []
        self._changes_file = self._open(directory, CHANGES_FILE)
        self._reads_file = self._open(directory, READS_FILE)
        self.requests = RequestLog(self._open(directory, REQUESTS_FILE))
        self.image = RegisterImage(field.points)
        self._instruments = Instruments(self.image, self.requests, seed, self._served)
        self._servers: list[InstrumentServer] = []
        self._on_read = on_read
        self._tag_of_point = np.array(field.point_tags(), np.int64)
        self._frozen = np.zeros(len(field.points), bool)
        self._watch = _watch_of(field)
        self._unread = UnreadChanges()
        self.changes = 0

    async def start(self) -> None:
        """Open all listeners.

        Raises:
            NotLoopbackError, PortTakenError: nothing stays open.
        """
        try:
            for listener in self.field.listeners:
                server = InstrumentServer(listener.name, self._instruments, listener.host, listener.port)
                self._servers.append(server)
                await server.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close listeners, connections and files."""
        for server in self._servers:
            await server.stop()
        self._servers.clear()
        self.requests.add_to_tally()
        for file in self._files:
            file.close()

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Listener name ("EDGE/BUS") to the host and port in use."""
        return {server.name: (server.host, server.port) for server in self._servers}

    def write(self, value: NDArray[np.float64]) -> list[Change]:
        """Show one value per tag (float64[n_tags], in `field.tags` order) to all readers at once."""
        shown = np.where(self._frozen, self.image.value, value[self._tag_of_point])
        decoded = self.image.write(shown)
        at_ms = time.time() * 1000
        changes = self._watch.take(decoded, at_ms)
        for change, point in changes:
            missed = self._unread.add(self.image.places[point], point, change)
            if missed is not None:
                self._log_read(missed, None)
            if self._changes_file is not None:
                self._changes_file.write(change.to_json(), flush=True)
        self.changes += len(changes)
        return [change for change, _ in changes]

    def set_fault(self, device: str, fault: InstrumentFault | None) -> None:
        """Break a device's line, or mend it with None. Devices that share a unit share the fault.

        Raises:
            ControlRefusedError: no such device.
        """
        place = self.field.devices.get(device)
        if place is None:
            raise ControlRefusedError(f"no device {device!r}; there are: {', '.join(sorted(self.field.devices))}")
        if fault is None:
            self._instruments.faults.pop(place, None)
        else:
            self._instruments.faults[place] = fault
        frozen = fault is not None and fault.kind is FaultKind.FREEZE
        for i, point in enumerate(self.field.points):
            if (point.server, point.unit) == place:
                self._frozen[i] = frozen

    def drop_connections(self) -> None:
        """Cut every open connection of every listener."""
        for server in self._servers:
            server.drop_connections()

    def flush(self) -> None:
        """Write out what the logs hold back."""
        for file in self._files:
            file.flush()

    def summary(self) -> dict[str, Any]:
        """Counts for status files: requests by kind and function, changes across limits."""
        return {"requests": self.requests.summary(), "changes": self.changes}

    def _served(self, server: str, unit: int, table: str, address: int, count: int) -> None:
        for change in self._unread.served(server, unit, table, address, count, self.image.value):
            read_ms = time.time() * 1000
            self._log_read(change, read_ms)
            if self._on_read is not None:
                self._on_read(change, read_ms)

    def _log_read(self, change: Change, read_ms: float | None) -> None:
        if self._reads_file is not None:
            record = {"number": change.number, "tag": change.tag, "limit": change.limit, "over": change.over}
            self._reads_file.write({**record, "read_ms": read_ms}, flush=True)

    def _open(self, directory: Path | None, name: str) -> JsonLines | None:
        if directory is None:
            return None
        file = JsonLines(directory / name)
        self._files.append(file)
        return file


def _watch_of(field: Field) -> ChangeWatch:
    tag_point: dict[str, int] = {}
    for i, point in enumerate(field.points):
        tag_point.setdefault(point.tag, i)
    limits = [limit for tag in field.tags for limit in tag.limits]
    points: Sequence[int] = [tag_point[limit.tag] for limit in limits]
    return ChangeWatch(limits, points)
