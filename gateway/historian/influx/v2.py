"""Writes to `/api/v2/write` as influxdb-client forms them, one call each, through our own bounded transport."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import influxdb_client

if TYPE_CHECKING:
    from gateway.historian.influx.http import Link, Reply


class _Transport:
    """Stands where influxdb-client has its urllib3 pool: sends its requests, keeps the answer in bounds."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.deadline_s: float | None = None
        self.reply: Reply | None = None

    def request(self, method: str, url: str, *, body: bytes, headers: Mapping[str, str], **_: Any) -> Any:
        """Send; the answer has what `RESTResponse` reads of one."""
        parts = urlsplit(url)
        self.reply = self._link.send(method, f"{parts.path}?{parts.query}", body, headers, self.deadline_s)
        return _Answer(self.reply)

    def clear(self) -> None:
        """Called when the client is closed: the pool is the link's."""


class _Answer:
    """An answer in the words of urllib3."""

    def __init__(self, reply: Reply) -> None:
        self.status, self.reason, self.data, self.headers = reply.status, reply.reason, reply.body, dict(reply.headers)


class V2Writer:
    """`WriteService.post_write` of one store."""

    def __init__(self, link: Link) -> None:
        library: Any = influxdb_client  # its types are not told
        self._config = link.config
        self._transport = _Transport(link)
        client = library.InfluxDBClient(url=link.config.url, token=None, org=link.config.org).api_client
        client.rest_client.pool_manager = self._transport
        self._service: Any = library.WriteService(client)

    def write(self, body: bytes, encoding: str, precision: str, deadline_s: float | None) -> Reply:
        """Send lines. Raises StoreAwayError, StoreRefusedError."""
        self._transport.deadline_s, self._transport.reply = deadline_s, None
        try:
            self._service.post_write(
                self._config.org, self._config.database, body, precision=precision, content_encoding=encoding,
                content_type="text/plain; charset=utf-8",
            )  # fmt: skip
        except Exception:
            # It raises for every status but 2xx, and fails on error bodies that are no UTF-8: the answer says it better.
            if self._transport.reply is None:
                raise
        reply: Reply | None = self._transport.reply
        assert reply is not None, "what failed before an answer was raised by the transport"
        return reply
