"""Installs, runs, replaces and rolls back a bundle below a folder, in a network namespace that holds only loopback.

What runs is what the systemd units say: their ExecStart lines, with the folder put before each path, their notification
socket served here. So a bundle that lacks a wheel, a unit that names a wrong path, and a process that never says READY=1
are found before a box is driven out to.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

READY_S_MAX: Final = 60.0
COMMAND_S_MAX: Final = 240.0
STOP_S_MAX: Final = 20.0
WATCHED_S: Final = 6.0
GATEWAY_UNITS: Final = ("hazardgate-broker", "hazardgate-core", "hazardgate-serve")
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_PATH: Final = re.compile(r"(?<![\w.])/(?:opt|etc|var)/[\w./-]*")


class RehearsalError(Exception):
    """A step did not go as it must."""


def rehearse(archive: Path) -> int:
    """Rehearse both roles; 0 when every step held. Re-runs itself without a network when that is possible."""
    inside = [sys.executable, "-m", "deploy.rehearsal", str(archive)]
    unshare = shutil.which("unshare")
    alone = [unshare, "--net", "--map-root-user", "--user"] if unshare else []
    if unshare and os.geteuid() == 0:
        alone = [unshare, "--net"]
    if unshare and subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0:
        return subprocess.run([*alone, *inside, "--alone"], check=False).returncode
    print("no network namespace to be had here: rehearsing beside the network", file=sys.stderr)
    return subprocess.run(inside, check=False).returncode


def _rehearse(archive: Path, *, alone: bool) -> int:
    if alone:
        _loopback_up()
    _say(f"network: {', '.join(name for _, name in socket.if_nameindex())}")
    with tempfile.TemporaryDirectory(prefix="hazardgate-rehearsal-") as kept:
        folder = Path(kept)
        subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
        bundle = next(folder.glob("hazardgate-*"))
        later = _as_later_release(bundle, folder / "later")
        try:
            _damage_is_found(bundle, folder)
            _edge(bundle, folder / "edge-box")
            _gateway(bundle, later, folder / "gateway-box")
        except (RehearsalError, subprocess.TimeoutExpired) as error:
            print(f"rehearsal failed: {error}", file=sys.stderr)
            return 1
    _say("rehearsal: every step held")
    return 0


def _loopback_up() -> None:
    """Bring up the one interface that a new network namespace has (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", 0).ljust(40, b"\0")
        flags = struct.unpack_from("16sh", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _IFF_UP).ljust(40, b"\0"))


# ---- the steps ------------------------------------------------------------------------------------------------


def _damage_is_found(bundle: Path, folder: Path) -> None:
    spoiled = folder / "spoiled"
    shutil.copytree(bundle, spoiled)
    wheel = next((spoiled / "wheels").glob("hazardgate-*.whl"))
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 1
    wheel.write_bytes(content)
    _install(spoiled, folder / "never", "install", "--role", "edge", code=2)
    _hold(not (folder / "never" / "opt").exists(), "a damaged bundle must change nothing")
    _say("one flipped bit in a wheel: refused, nothing changed")


def _units_hold(root: Path) -> None:
    """Let systemd itself judge the installed units, where it is to be had."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        _say("systemd-analyze is not here: the units were not judged by systemd itself")
        return
    folder = root / "judged"
    folder.mkdir()
    for unit in (root / "etc/systemd/system").glob("*.service"):
        text = re.sub(r"^ExecStart=.*$", f"ExecStart={shlex.join(_command(unit.read_text('utf-8'), root))}",
                      unit.read_text("utf-8"), flags=re.M)  # fmt: skip
        (folder / unit.name).write_text(text, encoding="utf-8")
    judged = subprocess.run(
        [analyze, "verify", "--man=no", *sorted(folder.glob("*.service"))], capture_output=True, text=True, check=False,
        timeout=COMMAND_S_MAX,
    )  # fmt: skip
    ours = [line for line in judged.stderr.splitlines() if "hazardgate" in line]
    _hold(judged.returncode == 0 and not ours, f"systemd accepts the units: {judged.stderr}")
    _say(f"systemd-analyze: {', '.join(sorted(path.stem for path in folder.iterdir()))} accepted")


def _edge(bundle: Path, root: Path) -> None:
    _install(bundle, root, "install", "--role", "edge")
    _units_hold(root)
    _hold(_hazardgate(root, "--help").returncode == 0, "hazardgate --help")
    installed = subprocess.run(
        [root / "opt/hazardgate/current/venv/bin/python", "-c", "import fastapi"], capture_output=True, check=False
    )
    _hold(installed.returncode != 0, "no gateway package reaches an edge box")
    site = _hazardgate(root, "schema")
    _hold(site.returncode == 0, "hazardgate schema")
    before = _release(root)
    _install(bundle, root, "install", "--role", "gateway", code=2)
    _install(bundle, root, "rollback", code=2)
    _hold(_release(root) == before, "a box keeps its role, and has no release to go back to")
    _say("edge: installed without network, no gateway package on it; another role is refused")


def _gateway(bundle: Path, later: Path, root: Path) -> None:
    _install(bundle, root, "install", "--role", "gateway")
    _units_hold(root)
    _configure(root)
    first = _release(root)
    with _running(root, GATEWAY_UNITS) as supervisors:
        _watch(root, supervisors)
    _say(f"gateway: {first} installed and run: broker, core, serve said READY=1, core and serve fed the watchdog")
    site = root / "etc/hazardgate/site.yaml"
    sound = site.read_text("utf-8")
    site.write_text(sound + "\nnonsense: 1\n", encoding="utf-8")
    _install(later, root, "install", "--role", "gateway", code=2)
    _hold(_release(root) == first, "a refused configuration must leave the old release in place")
    site.write_text(sound, encoding="utf-8")
    _install(later, root, "install", "--role", "gateway")
    second = _release(root)
    _hold(second != first, "the new release is current")
    with _running(root, GATEWAY_UNITS) as supervisors:
        _watch(root, supervisors)
    _install(later, root, "rollback")
    _hold(_release(root) == first, "the first release is current again")
    with _running(root, GATEWAY_UNITS) as supervisors:
        _watch(root, supervisors)
    _say(f"gateway: replaced by {second}, which goes on with the ledger; rolled back to {first}, which runs")


def _watch(root: Path, supervisors: Mapping[str, _Supervisor]) -> None:
    heartbeat = root / "var/lib/hazardgate/core/heartbeat.json"
    deadline = time.monotonic() + READY_S_MAX
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            if json.loads(heartbeat.read_text("utf-8"))["connected"]:
                break
        time.sleep(0.1)
    else:
        raise RehearsalError("core did not reach the broker")
    watched = ("hazardgate-core", "hazardgate-serve")
    for unit in watched:
        supervisors[unit].heard()
    time.sleep(WATCHED_S)
    for unit in watched:
        _hold(b"WATCHDOG=1" in supervisors[unit].heard(), f"{unit} feeds the watchdog")


# ---- the box --------------------------------------------------------------------------------------------------


def _configure(root: Path) -> None:
    """Give the box the demo site, its secrets, and free ports."""
    etc = root / "etc/hazardgate"
    demo = subprocess.run(
        [root / "opt/hazardgate/current/venv/bin/python", "-c", "import config; print(config.DEMO_SITE)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    source = Path(demo.stdout.strip())
    shutil.copytree(source if source.is_dir() else source.parent, etc, dirs_exist_ok=True)
    broker = (etc / "broker.conf").read_text("utf-8").replace("/var/lib", str(root / "var/lib"))
    (etc / "broker.conf").write_text(broker, encoding="utf-8")
    _hold(_hazardgate(root, "check", str(etc / "site.yaml")).returncode == 0, "the demo site passes its check")


@contextlib.contextmanager
def _running(root: Path, units: Sequence[str]) -> Iterator[dict[str, _Supervisor]]:
    """Run units' commands; yields the supervisor of each. All must end by SIGTERM."""
    supervisors: dict[str, _Supervisor] = {}
    processes: list[tuple[str, subprocess.Popen[bytes]]] = []
    with contextlib.ExitStack() as stack:
        try:
            for unit in units:
                text = (root / f"etc/systemd/system/{unit}.service").read_text("utf-8")
                listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                name = f"hazardgate-rehearsal-{os.getpid()}-{unit}"
                listener.bind(f"\0{name}")
                listener.setblocking(False)
                supervisors[unit] = _Supervisor(listener)
                log = stack.enter_context((root / f"{unit}.log").open("ab"))
                process = subprocess.Popen(
                    _command(text, root), stdout=log, stderr=log, cwd=root,
                    env={**os.environ, "NOTIFY_SOCKET": f"@{name}", **_secrets()},
                )  # fmt: skip
                processes.append((unit, process))
                if "Type=notify" in text:
                    _await_ready(unit, process, supervisors[unit], root)
            yield supervisors
        finally:
            for unit, process in reversed(processes):
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_S_MAX)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    raise RehearsalError(f"{unit} did not end within {STOP_S_MAX:g} s of SIGTERM") from None


class _Supervisor:
    """The socket on which a process tells its supervisor how it is."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    def heard(self) -> list[bytes]:
        """Return what was told since this was last asked."""
        said = []
        with contextlib.suppress(BlockingIOError):
            while True:
                said.append(self._listener.recv(256))
        return said


def _await_ready(unit: str, process: subprocess.Popen[bytes], supervisor: _Supervisor, root: Path) -> None:
    deadline = time.monotonic() + READY_S_MAX
    while b"READY=1" not in supervisor.heard():
        if process.poll() is not None or time.monotonic() > deadline:
            end = (root / f"{unit}.log").read_text("utf-8", "replace")[-800:]
            raise RehearsalError(f"{unit} did not say READY=1; its log ends with:\n{end}")
        time.sleep(0.05)


def _command(unit: str, root: Path) -> list[str]:
    line = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    return [_PATH.sub(lambda found: f"{root}{found[0]}", word) for word in shlex.split(line.removeprefix("ExecStart="))]


def _secrets() -> dict[str, str]:
    return dict.fromkeys(("HAZARDGATE_SECRET_CITY", "HAZARDGATE_SECRET_PARK"), "whsec_" + "A" * 40)


def _as_later_release(bundle: Path, folder: Path) -> Path:
    """Return a copy of the bundle that calls itself another release."""
    shutil.copytree(bundle, folder)
    release = folder / "RELEASE"
    release.write_text(re.sub(r"^release=(.*)$", r"release=\1.later", release.read_text("ascii"), flags=re.M), encoding="ascii")
    sums = folder / "SHA256SUMS"
    digest = subprocess.run(["sha256sum", "RELEASE"], cwd=folder, capture_output=True, text=True, check=True).stdout
    sums.write_text(re.sub(r"^[0-9a-f]{64}  RELEASE$", digest.strip(), sums.read_text("utf-8"), flags=re.M), encoding="utf-8")
    return folder


def _release(root: Path) -> str:
    return (root / "opt/hazardgate/current").readlink().name


def _install(bundle: Path, root: Path, *arguments: str, code: int = 0) -> None:
    done = subprocess.run(
        [bundle / "install.sh", *arguments, "--root", root], capture_output=True, text=True, check=False,
        timeout=COMMAND_S_MAX,
    )  # fmt: skip
    if done.returncode != code:
        raise RehearsalError(
            f"install.sh {shlex.join(arguments)} ended with {done.returncode}, not {code}:\n{done.stdout}{done.stderr}"
        )


def _hazardgate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "opt/hazardgate/current/venv/bin/hazardgate", *arguments], capture_output=True, text=True, check=False,
        timeout=COMMAND_S_MAX,
    )  # fmt: skip


def _hold(holds: bool, what: str) -> None:
    if not holds:
        raise RehearsalError(f"does not hold: {what}")


def _say(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    sys.exit(_rehearse(Path(sys.argv[1]).resolve(), alone="--alone" in sys.argv))
