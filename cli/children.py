"""Child processes of the demo: started, watched, started again when they die, ended in order.

The children die with their parent: Linux ends them when it goes, however it goes.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cli.language import say

log = logging.getLogger(__name__)

RESTART_WAIT_S: Final = 0.5
RESTARTS_MAX: Final = 10
WATCH_PERIOD_S: Final = 0.2
KILLED_WAIT_S_MAX: Final = 0.5
STOP_POLL_S: Final = 0.02
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    """Runs in the child, before exec."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(slots=True)
class Child:
    """One part of the chain as a process.

    `environment` is added to this process's own; `without` names what of that it does not get.
    """

    name: str
    command: Sequence[str]
    log_path: Path
    environment: Mapping[str, str]
    without: frozenset[str] = frozenset()
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    stopping: bool = False
    started_s: float = field(default=0.0)

    def start(self) -> None:
        """Start it in a session of its own, so that the terminal's Ctrl-C reaches only the demo."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=self._whole_environment(), start_new_session=True,
                preexec_fn=_die_with_parent,
            )  # fmt: skip
        self.started_s = time.monotonic()

    def _whole_environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in self.without}
        return {**kept, **self.environment}

    @property
    def alive(self) -> bool:
        """It runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self.process is None else self.process.poll()

    def last_lines(self, count: int = 3) -> str:
        """The end of its log, for an error message."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text("utf-8", "replace").splitlines()[-count:])

    async def stop(self, deadline_s: Callable[[], float]) -> None:
        """SIGTERM; SIGKILL at the deadline, on the monotonic clock, which may move closer meanwhile."""
        self.stopping = True
        if self.process is None:
            return
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
        while self.alive and time.monotonic() < deadline_s():
            await asyncio.sleep(STOP_POLL_S)
        if not self.alive:
            return
        log.warning("%s did not stop in time and was killed", self.name)
        self.process.kill()
        gone_s = time.monotonic() + KILLED_WAIT_S_MAX
        while self.alive and time.monotonic() < gone_s:  # one that hangs in the kernel is left to it
            await asyncio.sleep(STOP_POLL_S)


@dataclass(frozen=True, slots=True)
class PartNow:
    """How one part stands as a process: `pid` is None while it does not run."""

    pid: int | None
    restarts: int


def parts_now(children: Sequence[Child]) -> dict[str, PartNow]:
    """Return how every child stands, by name."""
    return {
        child.name: PartNow(child.process.pid if child.process is not None and child.alive else None, child.restarts)
        for child in children
    }  # fmt: skip


class ChildGaveUpError(Exception):
    """A part of the chain does not stay up."""

    def __init__(self, child: Child) -> None:
        self.child = child
        super().__init__(say(
            f"{child.name} 已退出，代码 {child.exit_code}；日志 {child.log_path} 的末尾：\n{child.last_lines()}",
            f"{child.name} ended with code {child.exit_code}; its log {child.log_path} ends with:\n{child.last_lines()}",
        ))  # fmt: skip


async def keep_running(children: Sequence[Child]) -> None:
    """Start again what dies, until cancelled.

    Raises:
        ChildGaveUpError: a child was started again too often, or refused its input.
    """
    while True:
        for child in children:
            if child.stopping or child.alive or child.process is None:
                continue
            if child.exit_code == 2 or child.restarts >= RESTARTS_MAX:
                raise ChildGaveUpError(child)
            child.restarts += 1
            log.warning("%s ended with code %s; starting it again", child.name, child.exit_code)
            await asyncio.sleep(RESTART_WAIT_S)
            child.start()
        await asyncio.sleep(WATCH_PERIOD_S)
