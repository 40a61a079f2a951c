"""The audit: one line for every act, refused act, failed authentication and attempted write (F57, F61).

What a token may not do gets so many lines a minute and then one that counts the rest; an act always gets its line.
Lines go to a thread of their own, so that a slow disk delays no answer. The record of what was done to alarms is
core's journal; this one says who tried what, from where, and how it ended.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from gateway.serve.audit_rate import AuditRate, Tried

log = logging.getLogger(__name__)

AUDIT_NAME: Final = "audit.jsonl"
FILE_BYTES_MAX: Final = 16_777_216
FILES_MAX: Final = 10
LINES_WAITING_MAX: Final = 1_000
TEXT_CHARS_MAX: Final = 300
SYNC_S: Final = 1.0
CLOSE_S_MAX: Final = 1.0

Fact = str | int | None


def one_line(facts: Mapping[str, Fact]) -> str:
    """Return the facts as one JSON line in which nothing ends a line or steers a terminal; long texts are cut."""
    cut = {name: fact[:TEXT_CHARS_MAX] if isinstance(fact, str) else fact for name, fact in facts.items()}
    line = json.dumps(cut, ensure_ascii=False)
    if not line.isprintable():
        line = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in line)
    return line + "\n"


class Audit:
    """Owns the thread `serve-audit` and the files `audit.jsonl`, `audit.1.jsonl` (newer) … `audit.9.jsonl` (oldest)."""

    def __init__(
        self, folder: Path, wall_ms: Callable[[], int], *, file_bytes_max: int = FILE_BYTES_MAX,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._rate = AuditRate(monotonic)
        self._folder, self._wall_ms, self._file_bytes_max = folder, wall_ms, file_bytes_max
        self._path = folder / AUDIT_NAME
        self._waiting: queue.Queue[str | None] = queue.Queue(LINES_WAITING_MAX)
        self._thread = threading.Thread(target=self._run, name="serve-audit", daemon=True)
        self.lost = 0
        """Lines that could not be written; serve's health tells of them."""

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what waits and end the thread."""
        if self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=CLOSE_S_MAX)
            except queue.Full:
                return
            self._thread.join(CLOSE_S_MAX)

    def write(self, event: str, **facts: Fact) -> None:
        """Note an event; never blocks and never raises."""
        try:
            self._waiting.put_nowait(self._line(event, facts))
        except queue.Full:
            self._lose(1, "more lines wait than the disk takes")

    def write_at_rate(self, event: str, **facts: Fact) -> None:
        """Note what the token of this `id` and `name` may not do; beyond a minute's lines it is only counted."""
        if self._rate.take(Tried(event, str(facts["id"]), str(facts["name"]))):
            self.write(event, **facts)

    def _line(self, event: str, facts: Mapping[str, Fact]) -> str:
        return one_line({"at_ms": self._wall_ms(), "event": event, **facts})

    def _run(self) -> None:
        synced_s, unsynced = time.monotonic(), False
        while True:
            try:
                line = self._waiting.get(timeout=SYNC_S)
            except queue.Empty:
                line = ""
            if line:
                unsynced = self._append(line) or unsynced
            for tried, count in self._rate.held_back(ending=line is None).items():
                facts: dict[str, Fact] = {"of": tried.event, "name": tried.name, "id": tried.token_id, "count": count}
                unsynced = self._append(self._line("held_back", facts)) or unsynced
            if unsynced and (line is None or time.monotonic() - synced_s >= SYNC_S):
                self._sync()
                synced_s, unsynced = time.monotonic(), False
            if line is None:
                return

    def _append(self, line: str) -> bool:
        try:
            self._turn_over(len(line))
            with os.fdopen(os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600), "ab") as file:
                file.write(line.encode())
        except OSError as error:
            self._lose(1, str(error))
            return False
        return True

    def _sync(self) -> None:
        try:
            with self._path.open("ab") as file:
                os.fdatasync(file.fileno())
        except OSError as error:
            log.error("audit: %s", error)

    def _turn_over(self, more: int) -> None:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        if size + more <= self._file_bytes_max:
            return
        for number in range(FILES_MAX - 2, -1, -1):
            older, newer = self._numbered(number + 1), self._numbered(number)
            if newer.exists():
                newer.replace(older)

    def _numbered(self, number: int) -> Path:
        return self._path if number == 0 else self._folder / f"audit.{number}.jsonl"

    def _lose(self, count: int, cause: str) -> None:
        self.lost += count
        if self.lost == count or self.lost % LINES_WAITING_MAX == 0:
            log.error("audit: %d lines are lost (%s)", self.lost, cause)
