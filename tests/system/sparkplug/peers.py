"""Somebody else's Sparkplug as child processes: an edge node by sparkplug-client, a decoder by sparkplug-payload.

Their packages are installed once into `.venv/`, as the lock file beside says, and not in the tree under version control.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.system.chain import ROOT, START_S_MAX, wait_until

HERE = Path(__file__).parent
INSTALL_S_MAX = 120
INSTALL_TRIES = 3  # a registry that is busy for a moment says nothing of ours
END_S_MAX = 10.0


class PeersMissingError(Exception):
    """The packages could not be had: no network, or a registry that refuses."""


def install() -> Path:
    """Return the folder that holds `node_modules` for the lock file of now; it is filled the first time.

    Raises:
        PeersMissingError: npm could not do it.
    """
    lock = (HERE / "package-lock.json").read_bytes()
    folder = ROOT / ".venv" / "sparkplug-peers" / hashlib.sha256(lock).hexdigest()[:16]
    if (folder / "node_modules").is_dir():
        return folder
    making = folder.with_name(f"{folder.name}.{os.getpid()}")
    making.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, making)
    for _ in range(INSTALL_TRIES):
        said = _npm_ci(making)
        if not said:
            break
    else:
        shutil.rmtree(making)
        raise PeersMissingError(f"npm could not install what {HERE.name}/package-lock.json lists: {said[-500:]}")
    try:
        making.rename(folder)
    except OSError:  # another test process was first
        shutil.rmtree(making)
    return folder


def _npm_ci(folder: Path) -> str:
    """Try once; return what went wrong, or nothing."""
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S_MAX)
    except subprocess.TimeoutExpired:
        return f"nothing came within {INSTALL_S_MAX} s"
    return (done.stderr or f"npm ended with code {done.returncode}") if done.returncode else ""


class Peer:
    """A node.js program of ours that takes orders and tells what happens, a line of JSON each."""

    def __init__(self, program: str, arguments: Sequence[str], log_path: Path) -> None:
        environment = {**os.environ, "NODE_PATH": str(install() / "node_modules")}
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                ["node", str(HERE / program), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=environment, text=True, bufsize=1,
            )  # fmt: skip
        self.lines: list[dict[str, Any]] = []
        self._log_path = log_path
        self._reader = threading.Thread(target=self._read, name=f"read-{program}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(json.loads(line))

    def order(self, what: str, **facts: Any) -> None:
        """Have it do something; return when it has handed it to its client."""
        assert self._process.stdin is not None
        done = self.count(lambda line: line.get("event") == "did")
        self._process.stdin.write(json.dumps({"do": what, **facts}) + "\n")
        self._process.stdin.flush()
        self.wait(lambda: self.count(lambda line: line.get("event") == "did") > done, f"the peer did {what}")

    def count(self, wanted: Callable[[Mapping[str, Any]], bool]) -> int:
        """How many of its lines are such."""
        return sum(wanted(line) for line in list(self.lines))

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = START_S_MAX) -> Any:
        """Wait for a condition, but not for a peer that has died."""

        def still() -> Any:
            answer = condition()
            assert answer or self._process.poll() is None, f"{what}: the peer ended:\n{self._log_path.read_text('utf-8')[-2000:]}"
            return answer

        return wait_until(still, what, timeout_s)

    def kill(self) -> None:
        """SIGKILL: its will is the broker's to publish."""
        self._process.kill()
        self._process.wait(END_S_MAX)

    def end(self) -> None:
        """Whatever state it is in, it is gone afterwards."""
        if self._process.poll() is None:
            self.kill()
        self._reader.join(END_S_MAX)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
