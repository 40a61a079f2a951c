"""Connections of urllib3 whose every wait, from the first byte sent to the last one read, ends by one moment.

A socket's own timeout begins anew with every byte: a peer that dribbles its headers would hold a thread for hours. What is not
bounded here is the look-up of a name, which is the system's, and that each of a name's addresses is given the time that is left.
"""

from __future__ import annotations

import io
import socket
import time
from functools import partial
from http.client import HTTPResponse
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection


class DeadlineError(Exception):
    """The time given to a request is over."""


class Until:
    """The moment (monotonic seconds) by which the request of now has to be over; set before every read."""

    def __init__(self) -> None:
        self.by = 0.0

    def left(self) -> float:
        """Return the seconds left. Raises DeadlineError."""
        left = self.by - time.monotonic()
        if left <= 0:
            raise DeadlineError
        return left


class Timed(HTTPConnection):
    """A connection that gives up when its time is over. For one thread at a time."""

    def __init__(self, *args: Any, until: Until, **more: Any) -> None:
        super().__init__(*args, **more)
        self._until = until
        self.response_class = partial(_Response, until)  # type: ignore[assignment]

    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        made.settimeout(self._until.left())  # of the handshake of TLS, which is one wait
        return made

    def send(self, data: Any) -> None:
        """Send bytes; a socket's timeout is that of the whole, over TLS too. Raises DeadlineError."""
        if self.sock is None:
            self.connect()
        self.sock.settimeout(self._until.left())
        try:
            super().send(data)
        except TimeoutError:
            raise DeadlineError from None


class TimedTls(Timed, HTTPSConnection):
    """The same over TLS."""


class _Response(HTTPResponse):
    def __init__(self, until: Until, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp = io.BufferedReader(_Reader(self.fp.detach(), sock, until))


class _Reader(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, sock: socket.socket, until: Until) -> None:
        self._raw, self._sock, self._until = raw, sock, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._until.left())
        try:
            found: int | None = self._raw.readinto(buffer)
        except TimeoutError:
            raise DeadlineError from None
        return found

    def close(self) -> None:
        self._raw.close()
        super().close()
