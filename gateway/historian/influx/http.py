"""One store's address over HTTP: pooled connections, a deadline on everything, bounded answers, no redirects, own CA.

Writes to `/api/v2/write` are formed by influxdb-client's `WriteService`, one call each, never by its batching mode, which
drops a batch after its retries; its requests go out through the same bounded transport as all others. 3 Core gets its own
`/api/v3/write_lp`: its `/api/v2/write` takes a batch whole or not at all, and tells of one wrong line at most.
Sources: 3 Core API reference (docs-v2, api-docs/influxdb3/core/influxdb3-core-openapi.yaml: `precision`, `accept_partial`, Bearer
for all endpoints); influxdb, influxdb3_types/src/http.rs (the compatible endpoints set accept_partial to false).
"""

from __future__ import annotations

import base64
import gzip
import ssl
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, SSLError, TimeoutError

from config import TimeSeriesStoreConfig
from gateway.historian.influx.answers import Away, Decision, Refused, Stored, judged, short
from gateway.historian.influx.bounded import DeadlineError, Timed, TimedTls, Until
from gateway.historian.store import StoreAwayError, StoreRefusedError

ERROR_BYTES_MAX: Final = 64 * 1024
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
LISTED_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of 3 Core's answer to a write: it repeats every line that it did not take."""
HIDDEN_CHARS_MIN: Final = 8
"""A credential shorter than that stands in any answer by chance, and says nothing there."""
CONNECTIONS: Final = 2
CHUNK_BYTES: Final = 64 * 1024
STORED_S: Final = 5.0
"""VictoriaMetrics tells what it has counted up to a second late."""
_PRECISION_3: Final = {"ms": "millisecond", "ns": "nanosecond"}
_LOCAL: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, its body cut at the bound that was asked for; header names in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class Link:
    """Requests to one store. For one thread at a time; `close` from any."""

    def __init__(self, config: TimeSeriesStoreConfig, secret: str | None, base_dir: Path) -> None:
        """Nothing is connected yet.

        Raises:
            StoreRefusedError: `ca_file` cannot be used, or the secret cannot be a token.
        """
        self.config = config
        parts = urlsplit(config.url)
        context: ssl.SSLContext | None = None
        if parts.scheme == "https":
            context = _context(config, base_dir)
        self._until = Until()
        self._pool = urllib3.connection_from_url(
            config.url, maxsize=CONNECTIONS, retries=False, until=self._until, **({"ssl_context": context} if context else {})
        )
        self._pool.ConnectionCls = TimedTls if context else Timed
        scheme, self._credential = _credential(config, secret)
        own = {"authorization": f"{scheme} {self._credential}"} if scheme else {}
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "hazardgate", **own}
        self._zip = parts.hostname not in _LOCAL
        self._v2: Any = None
        self._stored, self._answers = 0, deque[float]()
        self.clock = time.monotonic

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None,
        deadline_s: float | None = None, bytes_max: int = ERROR_BYTES_MAX,
    ) -> Reply:  # fmt: skip
        """Send one request and read the answer up to `bytes_max`.

        Raises:
            StoreAwayError: no whole answer came, or not in time.
            StoreRefusedError: its certificate is not one that we trust.
        """
        by = time.monotonic() + self._within(deadline_s)
        try:
            response = self._open(method, path, body, headers, by)
            with response:
                pieces, size = [], 0
                for piece in self._pieces(response, by):
                    pieces.append(piece[: bytes_max - size])
                    size += len(pieces[-1])
                    if size >= bytes_max:
                        break
                else:
                    return self._reply(response, b"".join(pieces))
                response.close()  # what follows is not wanted: this connection is not used again
                return self._reply(response, b"".join(pieces))
        except (HTTPError, OSError, DeadlineError) as error:
            raise self._failed(error) from error

    def lines(self, path: str, fields: Mapping[str, str], deadline_s: float) -> Iterator[bytes]:
        """Ask with a form, and yield the answer line by line. A status other than 200 comes as a `Reply` in an AnswerError.

        Raises:
            StoreAwayError, StoreRefusedError, DeadlineError: as they say. AnswerError: the store answered no.
        """
        by = time.monotonic() + deadline_s
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            with self._open("POST", path, urlencode(fields).encode(), headers, by) as response:
                if response.status != 200:
                    body = b"".join(self._pieces(response, by, ERROR_BYTES_MAX))
                    response.close()
                    raise AnswerError(self._reply(response, body))
                rest = b""
                for piece in self._pieces(response, by):
                    *whole, rest = (rest + piece).split(b"\n")
                    yield from whole
                    if len(rest) > LINE_BYTES_MAX:
                        raise StoreRefusedError(
                            f"storage.stores.{self.config.id}: an answer of over {LINE_BYTES_MAX} bytes in one line; check url",
                            f"storage.stores.{self.config.id}：答复单行超过 {LINE_BYTES_MAX} 字节；请检查 url",
                        )
                if rest:
                    yield rest
        except (HTTPError, OSError) as error:
            # A connection that was refused is a timeout, too, for urllib3.
            if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError):
                raise DeadlineError from error
            raise self._failed(error) from error

    def write(self, body: bytes, precision: str, deadline_s: float | None = None) -> Decision:
        """Send lines, and return what the answer means. Nothing is raised: not reachable is a decision, too."""
        encoding = "gzip" if self._zip else "identity"
        packed = gzip.compress(body, 1) if self._zip else body
        try:
            reply = self._write(packed, encoding, precision, deadline_s)
        except StoreAwayError as error:
            return Away(str(error), error.message_zh)
        except StoreRefusedError as error:
            return Refused(str(error), error.message_zh)
        decision = judged(self.config.id, reply.status, reply.headers, reply.body, time.time())
        if isinstance(decision, Stored):
            self._answers.append(self.clock())
            self.stored()
        return decision

    def stored(self) -> int:
        """Return how many writes it answered with stored up to some seconds ago (`STORED_S`); a refusal may be a proxy's."""
        before = self.clock() - STORED_S
        while self._answers and self._answers[0] <= before:
            self._answers.popleft()
            self._stored += 1
        return self._stored

    def _write(self, body: bytes, encoding: str, precision: str, deadline_s: float | None) -> Reply:
        config = self.config
        if config.kind == "influxdb1":
            fields = {"db": config.database, "precision": precision}
            if config.retention_policy:
                fields["rp"] = config.retention_policy
            headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": encoding}
            return self.send("POST", f"/write?{urlencode(fields)}", body, headers, deadline_s)
        if config.kind == "influxdb3":
            fields = {"db": config.database, "precision": _PRECISION_3[precision], "accept_partial": "true"}
            headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": encoding}
            return self.send("POST", f"/api/v3/write_lp?{urlencode(fields)}", body, headers, deadline_s, LISTED_BYTES_MAX)
        if self._v2 is None:
            from gateway.historian.influx.v2 import V2Writer

            self._v2 = V2Writer(self)
        reply: Reply = self._v2.write(body, encoding, precision, deadline_s)
        return reply

    def _open(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None, by: float
    ) -> urllib3.BaseHTTPResponse:
        self._until.by = by
        return self._pool.urlopen(
            method, path, body, {**self._headers, **(headers or {})}, retries=False, redirect=False,
            timeout=urllib3.Timeout(total=self._until.left()), preload_content=False, decode_content=False,
        )  # fmt: skip

    def _pieces(self, response: urllib3.BaseHTTPResponse, by: float, bytes_max: int | None = None) -> Iterator[bytes]:
        """Yield a body as it comes. Raises DeadlineError."""
        size = 0
        while bytes_max is None or size < bytes_max:
            self._until.by = by  # another request may have been asked while this answer was read
            self._until.left()
            piece = response.read1(CHUNK_BYTES)
            if not piece:
                return
            size += len(piece)
            yield piece

    def _reply(self, response: urllib3.BaseHTTPResponse, body: bytes) -> Reply:
        """Return an answer. Who answers with what it was asked must not get our secret into a message."""
        if len(self._credential) >= HIDDEN_CHARS_MIN:
            body = body.replace(self._credential.encode(), b"***")
        return Reply(
            response.status, response.reason or "", {name.lower(): value for name, value in response.headers.items()}, body
        )

    def _within(self, deadline_s: float | None) -> float:
        return min(deadline_s, self.config.timeout_s) if deadline_s is not None else self.config.timeout_s

    def _failed(self, error: Exception) -> StoreAwayError | StoreRefusedError:
        """Return what a failed request means."""
        store, url = self.config.id, self.config.url
        if isinstance(error, SSLError) or isinstance(error.__cause__, ssl.SSLError):
            why = short(str(error.args[0] if error.args else error))
            return StoreRefusedError(
                f"storage.stores.{store}: TLS with {url} failed ({why}); check url (http or https?), or name its authority in ca_file",
                f"storage.stores.{store}：与 {url} 的 TLS 连接失败（{why}）；请检查 url（http 或 https），或在 ca_file 中写入其 CA",
            )
        if isinstance(error, NewConnectionError):
            return StoreAwayError(
                f"storage.stores.{store}: {url} cannot be reached ({short(_cause(error))}); does it run, and is url right?",
                f"storage.stores.{store}：连不上 {url}（{short(_cause(error))}）；它在运行吗，url 是否正确？",
            )
        if isinstance(error, (DeadlineError, TimeoutError)):
            within = f"{self.config.timeout_s:g}"
            return StoreAwayError(
                f"storage.stores.{store}: {url} gave no whole answer within {within} s; see what keeps it, or raise timeout_s",
                f"storage.stores.{store}：{url} 在 {within} 秒内没有完整答复；请查看其负载，或调大 timeout_s",
            )
        return StoreAwayError(
            f"storage.stores.{store}: the connection to {url} broke ({short(_cause(error))}); is what listens there of kind "
            f"{self.config.kind}?",
            f"storage.stores.{store}：与 {url} 的连接中断（{short(_cause(error))}）；在该处监听的确实是 {self.config.kind} 吗？",
        )


class AnswerError(Exception):
    """The store answered a question with no."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(f"status {reply.status}")


def _credential(config: TimeSeriesStoreConfig, secret: str | None) -> tuple[str, str]:
    """Return scheme and credential of the header that says who we are, both empty without a secret."""
    if config.username is not None:
        return "Basic", base64.b64encode(f"{config.username}:{secret or ''}".encode()).decode()
    if secret is None:
        return "", ""
    if not (secret.isascii() and secret.isprintable()):
        place = config.secret_file or config.secret_env
        raise StoreRefusedError(
            f"storage.stores.{config.id}: what {place} holds cannot be a token: it has more than one line, or characters beyond ASCII;"
            " put the token alone there",
            f"storage.stores.{config.id}：{place} 的内容不可能是令牌：多于一行，或含非 ASCII 字符；请只写入令牌",
        )
    return "Token" if config.kind == "influxdb2" else "Bearer", secret


def _context(config: TimeSeriesStoreConfig, base_dir: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(base_dir / config.ca_file) if config.ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise StoreRefusedError(
            f"storage.stores.{config.id}: ca_file {config.ca_file} cannot be used ({error}); give a file of PEM certificates",
            f"storage.stores.{config.id}：ca_file {config.ca_file} 无法使用（{error}）；请给出 PEM 证书文件",
        ) from None


def _cause(error: BaseException) -> str:
    """Return the system's own words for what went wrong, without object addresses."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return type(error).__name__
