"""The heartbeat as serve reads it, beside a core that writes over its older file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.core.watchdog import write_beat
from gateway.serve.view_heartbeat import Heartbeat


class Reader:
    """A path whose reader may be held up while core goes on beating."""

    def __init__(self, path: Path, meanwhile: Callable[[], None]) -> None:
        self._path, self._meanwhile = path, meanwhile

    def stat(self) -> Any:
        return self._path.stat()

    def read_text(self, encoding: str) -> str:
        with self._path.open(encoding=encoding) as file:
            half = file.read(1)
            self._meanwhile()
            file.seek(1)  # past what Python read ahead
            return half + file.read()


def test_a_beat_that_was_written_over_while_it_was_read_is_not_believed(tmp_path: Path) -> None:
    path, turn = tmp_path / "heartbeat.json", 0

    def beat(number: int) -> None:
        nonlocal turn
        turn = write_beat(path, turn, json.dumps({"at_ms": number, "cycles": number}).encode())

    numbers = iter(range(2, 10))
    beats_while_read = 2  # the second goes into the file that is being read

    def meanwhile() -> None:
        for _ in range(beats_while_read):
            beat(next(numbers))

    beat(1)
    heartbeat = Heartbeat(Reader(path, meanwhile), lambda: 10, lambda: 0.0)  # type: ignore[arg-type]
    heartbeat.look()
    assert heartbeat.said == {}
    assert heartbeat.state == "never_started"
    beats_while_read = 0
    heartbeat.look()
    assert heartbeat.said == {"at_ms": 3, "cycles": 3}
