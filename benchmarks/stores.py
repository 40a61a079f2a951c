"""Starts and ends real time-series servers on loopback: Debian's InfluxDB 1.6 and VictoriaMetrics, for tests and benchmarks.

A server keeps its port and its folder over `kill` and `start`, so it can be away and come back. Every process is
ended by the id it was started with. It is up when it has answered its own health address.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.chain import cpu_s
from benchmarks.harness import BenchmarkError
from benchmarks.ports import free_port

INFLUXD: Final = "influxd"
VICTORIA: Final = "victoria-metrics"
KINDS: Final = (INFLUXD, VICTORIA)
START_S_MAX: Final = 30.0
STOP_S_MAX: Final = 30.0
_HEALTH: Final = {INFLUXD: "/ping", VICTORIA: "/health"}
_POLL_S: Final = 0.05


def installed(kind: str) -> bool:
    """Whether the program is on this machine."""
    return shutil.which(kind) is not None


class StoreServer:
    """One server process at a time, on a port and in a folder of its own.

    Attributes:
        url: its base address.
        folder: where its data, its configuration and its log are.
        extra: more environment (influxd) or flags without dashes (victoria-metrics) for the next start.
    """

    def __init__(self, kind: str, folder: Path, extra: Mapping[str, str] | None = None) -> None:
        """Name the server; nothing runs yet. Raises BenchmarkError when it is not installed."""
        program = shutil.which(kind)
        if kind not in KINDS or program is None:
            raise BenchmarkError(f"{kind} is not installed; install Debian's influxdb and victoria-metrics")
        self.kind, self.folder, self.port = kind, folder.resolve(), free_port()
        self.url, self.extra = f"http://127.0.0.1:{self.port}", dict(extra or {})
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The running process, or None."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def data(self) -> Path:
        """Where the stored data are, without log and configuration."""
        return self.folder / "data"

    def cpu_s(self) -> float:
        """CPU seconds that the running process has used."""
        return cpu_s(self.pid) if self.pid is not None else 0.0

    def start(self) -> None:
        """Start it and wait until it answers. Raises BenchmarkError when it does not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command, environment = self._command()
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.folder
            )
        deadline = time.monotonic() + START_S_MAX
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise BenchmarkError(f"{self.kind} did not come up; see {self.folder / 'server.log'}")
            time.sleep(_POLL_S)  # between two looks, up to START_S_MAX

    def stop(self) -> None:
        """End it in order, by force after a while."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + _HEALTH[self.kind], timeout=1.0) as answer:
                return bool(answer.status < 300)
        except (urllib.error.URLError, OSError):
            return False

    def _command(self) -> tuple[list[str], dict[str, str]]:
        home = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder)}
        if self.kind == VICTORIA:
            flags = {
                "storageDataPath": str(self.data), "httpListenAddr": f"127.0.0.1:{self.port}", "retentionPeriod": "100y",
                "search.latencyOffset": "0s", "loggerLevel": "WARN", **self.extra,
            }  # fmt: skip
            return [self._program, *(f"-{name}={value}" for name, value in flags.items())], home
        settings = {
            "META_DIR": str(self.folder / "meta"), "DATA_DIR": str(self.data), "DATA_WAL_DIR": str(self.folder / "wal"),
            "HTTP_BIND_ADDRESS": f"127.0.0.1:{self.port}", "BIND_ADDRESS": f"127.0.0.1:{free_port()}",
            "REPORTING_DISABLED": "true", "MONITOR_STORE_ENABLED": "false", "HTTP_LOG_ENABLED": "false",
            "DATA_QUERY_LOG_ENABLED": "false", "LOGGING_LEVEL": "warn", **self.extra,
        }  # fmt: skip
        empty = self.folder / "influxdb.conf"
        empty.touch()
        environment = {f"INFLUXDB_{name}": value for name, value in settings.items()}
        return [self._program, "-config", str(empty)], {**home, **environment}


@contextmanager
def running_store(kind: str, folder: Path, extra: Mapping[str, str] | None = None) -> Iterator[StoreServer]:
    """Start a server on `folder` and end it with the block."""
    server = StoreServer(kind, folder, extra)
    server.start()
    try:
        yield server
    finally:
        server.stop()
