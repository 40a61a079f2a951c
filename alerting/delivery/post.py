"""HTTP to one receiver: one warm session, one deadline, nothing followed, little read.

The only module of delivery that opens sockets. It knows nothing of lanes or retries: a complete answer
comes back as an `Answer`, everything else as a `NoAnswerError` with a reason.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from alerting.delivery.errors import NoAnswerError
from alerting.delivery.schedule import ANSWER_BYTES_MAX, Answer
from config import AddressRefusedError, AddressRules, Endpoint, ReceiverConfig

HEADER_BYTES_MAX: Final = 8 * 1024
CONNECTIONS_MAX: Final = 40
"""More than all lanes and the heartbeat have in flight together: no lane waits for another's socket."""
KEEPALIVE_S: Final = 75.0
"""Longer than the heartbeat's period, which keeps a connection warm."""
ADDRESSES_MAX: Final = 16
KEPT_HEADERS: Final = ("retry-after", "date", "location", "content-encoding")
FIXED_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "hazardgate",
}

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) -> addresses as text; raises OSError."""


class Post(Protocol):
    """One receiver's way out. The courier's tests put a twin without sockets in its place."""

    async def post(self, headers: Mapping[str, str], body: bytes, deadline_s: float) -> Answer:
        """Send one notice and return the complete answer; raises NoAnswerError."""

    def forget_address(self) -> None:
        """Resolve the name anew at the next connection."""

    async def close(self) -> None:
        """Close all connections."""


async def resolve_in_thread(host: str, port: int) -> Sequence[str]:
    """Resolve by the system's resolver in a daemon thread of its own.

    Not in the loop's executor: a dead name server would occupy the threads others need, and hold up exit.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def tell(addresses: list[str], error: OSError | None) -> None:
        if found.done():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(addresses)

    def look_up() -> None:
        addresses: list[str] = []
        error: OSError | None = None
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = [str(info[4][0]) for info in infos]
        except (OSError, UnicodeError) as caught:
            error = caught if isinstance(caught, OSError) else OSError(str(caught))
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, addresses, error)

    threading.Thread(target=look_up, name=f"resolve:{host}", daemon=True).start()
    return await found


class _PinnedResolver(AbstractResolver):
    """Resolves once, keeps what the rules permit, and answers with that until told to forget."""

    def __init__(self, rules: AddressRules, plain: bool, resolve: Resolve) -> None:
        self._rules, self._plain, self._resolve = rules, plain, resolve
        self._pinned: list[str] | None = None
        self._asking: asyncio.Task[Sequence[str]] | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the pinned addresses; raises OSError or AddressRefusedError."""
        if self._pinned is None:
            if self._asking is None or self._asking.done():
                # One question at a time, shared: a silent name server must not gather threads.
                question = self._resolve(host, port)
                self._asking = asyncio.create_task(_await(question), name=f"courier:resolve:{host}")
                self._asking.add_done_callback(_retrieve)
            addresses = await asyncio.shield(self._asking)
            self._pinned = self._rules.permitted(
                list(dict.fromkeys(addresses))[:ADDRESSES_MAX], host=host, plain=self._plain
            )
        return [
            ResolveResult(
                hostname=host, host=text, port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ":" in text else socket.AF_INET,
            )
            for text in self._pinned
        ]  # fmt: skip

    def forget(self) -> None:
        self._pinned = None

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()


async def _await(question: Awaitable[Sequence[str]]) -> Sequence[str]:
    return await question


def _retrieve(task: asyncio.Task[Sequence[str]]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waited has it; nobody may have waited


class HttpPost:
    """Posts to one receiver over aiohttp.

    A URL or a certificate file that cannot be used is not raised here: it fails every attempt with its
    reason, so that one wrong receiver is shown and retried while the others go on.
    """

    def __init__(
        self,
        url: str,
        rules: AddressRules,
        *,
        ca_file: Path | None = None,
        resolve: Resolve = resolve_in_thread,
    ) -> None:
        self._rules = rules
        self._endpoint: Endpoint | None = None
        self._unusable: NoAnswerError | None = None
        self._warm = False
        try:
            self._endpoint = rules.check_url(url)
            self._resolver = _PinnedResolver(rules, self._endpoint.plain, resolve)
            self._tls = None if self._endpoint.plain else _tls(ca_file)
        except AddressRefusedError as error:
            self._unusable = NoAnswerError("address", str(error))
        except (OSError, ssl.SSLError) as error:
            self._unusable = NoAnswerError("certificate", f"ca_file {ca_file}: {error}; name a readable PEM file")
        self._session: aiohttp.ClientSession | None = None
        self._url = URL(url, encoded=True) if self._unusable is None else URL()

    @classmethod
    def of(cls, receiver: ReceiverConfig, base_dir: Path, resolve: Resolve = resolve_in_thread) -> HttpPost:
        """Build it from a receiver's configuration; `ca_file` is relative to the site's folder."""
        ca_file = None if receiver.ca_file is None else base_dir / receiver.ca_file
        return cls(receiver.url, receiver.address_rules(), ca_file=ca_file, resolve=resolve)

    async def post(self, headers: Mapping[str, str], body: bytes, deadline_s: float) -> Answer:
        """Send one notice. The deadline covers everything: resolving, connecting, sending, the answer.

        Raises:
            NoAnswerError
        """
        if self._unusable is not None:
            raise NoAnswerError(self._unusable.reason, self._unusable.detail)
        progress = _Progress()
        try:
            async with asyncio.timeout(deadline_s):
                try:
                    answer = await self._exchange(headers, body, progress)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                    # A kept connection that the other side was just closing: the notice was not judged.
                    if not self._warm or progress.status is not None or isinstance(error, aiohttp.ClientConnectorError):
                        raise
                    self._warm = False
                    answer = await self._exchange(headers, body, progress)
        except TimeoutError:
            self._warm = False
            raise NoAnswerError("timeout", f"no complete answer within {deadline_s:g} s", progress.status) from None
        except (aiohttp.ClientError, AddressRefusedError, OSError) as error:
            self._warm = False
            raise _no_answer(error, progress.status) from error
        self._warm = True
        return answer

    async def _exchange(self, headers: Mapping[str, str], body: bytes, progress: _Progress) -> Answer:
        if self._session is None:
            self._session = self._open()
        async with self._session.post(
            self._url, data=body, headers=headers, allow_redirects=False, ssl=self._tls or True
        ) as response:
            progress.status = response.status
            read, truncated = bytearray(), False
            while chunk := await response.content.readany():
                read += chunk
                if len(read) > ANSWER_BYTES_MAX:
                    truncated = True
                    response.close()
                    break
            kept = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
            return Answer(response.status, bytes(read[:ANSWER_BYTES_MAX]), truncated, kept)

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver, use_dns_cache=False, limit=CONNECTIONS_MAX,
            keepalive_timeout=KEEPALIVE_S, socket_factory=self._socket,
        )  # fmt: skip
        return aiohttp.ClientSession(
            connector=connector, headers=FIXED_HEADERS, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False,
            auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            max_line_size=HEADER_BYTES_MAX, max_field_size=HEADER_BYTES_MAX,
        )  # fmt: skip

    def _socket(self, info: Any) -> socket.socket:
        """Open the socket of a connection, after judging the very address it is going to."""
        family, kind, protocol, _, address = info
        assert self._endpoint is not None
        self._rules.check_address(ipaddress.ip_address(address[0]), plain=self._endpoint.plain)
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        return opened

    def forget_address(self) -> None:
        """Resolve the name anew at the next connection."""
        if self._unusable is None:
            self._resolver.forget()

    async def close(self) -> None:
        """Close all connections."""
        if self._unusable is None:
            await self._resolver.close()
        if self._session is not None:
            await self._session.close()
            self._session = None


class _Progress:
    """How far an exchange had come when it broke."""

    __slots__ = ("status",)

    def __init__(self) -> None:
        self.status: int | None = None


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    """Return a verifying context: the system's authorities, or only the receiver's own."""
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _no_answer(error: Exception, status: int | None) -> NoAnswerError:
    """Put an expected failure of the network into one of our reasons."""
    cause = getattr(error, "os_error", None) or error
    text = " ".join(str(cause).split())[:300] or type(cause).__name__
    match error:
        case AddressRefusedError():
            return NoAnswerError("address", text)
        case aiohttp.ClientConnectorCertificateError():
            return NoAnswerError("certificate", f"{_certificate_text(error)}; check its certificate and ca_file")
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return NoAnswerError("tls", text)
        case aiohttp.ClientConnectorDNSError() | socket.gaierror():
            return NoAnswerError("dns", text)
        case aiohttp.ClientConnectorError():
            return NoAnswerError("connect", f"{error.host}:{error.port}: {text}")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | aiohttp.ClientOSError():
            return NoAnswerError("cut", "the connection was cut before the end of the answer", status)
        case aiohttp.ClientError():
            return NoAnswerError("protocol", text, status)
        case _:
            return NoAnswerError("connect", text, status)


def _certificate_text(error: aiohttp.ClientConnectorCertificateError) -> str:
    found = error.certificate_error
    return str(getattr(found, "verify_message", "") or found)[:200]
