"""The event stream's text form: bytes in as they come, whole events out. It knows no event by name.

Source: WHATWG HTML, "Server-sent events", 9.2.6. Only LF and CR LF end a line: our server writes LF.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EVENT_BYTES_MAX: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event: its name (`message` where the stream gives none), its data and the id to resume after it."""

    name: str
    text: str
    id: str


class EventTooLargeError(Exception):
    """The stream sent more than one event may have."""


class SseParser:
    """Cuts a stream into events."""

    def __init__(self, bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._rest = bytearray()
        self._name, self._id = "", ""
        self._lines: list[str] = []
        self._held = 0

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Take the next bytes; returns the events they complete.

        Raises:
            EventTooLargeError: an event grew beyond the bound.
        """
        begin = len(self._rest)
        self._rest += chunk
        end = self._rest.rfind(b"\n", begin) + 1
        events: list[SseEvent] = []
        if end:
            whole, self._rest = bytes(self._rest[:end]), self._rest[end:]
            for raw in whole[:-1].split(b"\n"):
                self._line(raw.removesuffix(b"\r").decode("utf-8", "replace"), events)
        if len(self._rest) + self._held > self._bytes_max:
            raise EventTooLargeError
        return events

    def _line(self, line: str, events: list[SseEvent]) -> None:
        if not line:
            if self._lines:
                events.append(SseEvent(self._name or "message", "\n".join(self._lines), self._id))
            self._name, self._lines, self._held = "", [], 0
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._lines.append(value)
            self._held += len(value)
        elif field == "id" and "\0" not in value:
            self._id = value
