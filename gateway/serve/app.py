"""Joins serve's parts and runs them: the only place where they know each other."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import json
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Final

import uvicorn
from starlette.types import ASGIApp

from config import SiteConfig
from gateway.core import ACTS_NAME, send_act
from gateway.serve.acts import Acts
from gateway.serve.application import create_app
from gateway.serve.asking import Parts
from gateway.serve.audit import Audit
from gateway.serve.connection import TimedProtocol
from gateway.serve.errors import InsecureHostError, ListenError, ServeFolderBusyError, TlsFilesError
from gateway.serve.gate import Gate
from gateway.serve.history import HistoryReader
from gateway.serve.ports import Historian, SendAct, View
from gateway.serve.refresher import Refresher
from gateway.serve.stream import STREAMS_MAX, Hub
from gateway.serve.throttle import Throttle
from gateway.serve.tokens import TokenStore
from gateway.serve.view import LedgerView
from gateway.serve.workers import Workers
from wire import notify_systemd

log = logging.getLogger(__name__)

SERVE_FOLDER: Final = "serve"
WHERE_NAME: Final = "serve.json"
READ_THREADS: Final = 2
READS_WAITING_MAX: Final = 64
HISTORY_THREADS: Final = 2
HISTORIES_WAITING_MAX: Final = 16
CONNECTIONS_MAX: Final = STREAMS_MAX + 96
HEAD_BYTES_MAX: Final = 16_384
KEEP_ALIVE_S: Final = 5
TOKENS_S: Final = 0.4
PULSE_S: Final = 0.2
STOP_S_MAX: Final = 1
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


def wall_clock_ms() -> int:
    """UTC epoch ms."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Where to listen.

    Attributes:
        host: an address of this machine; one that is not loopback needs both TLS files.
        port: 0 takes a free one, told in `serve.json` in the folder.
        names: further host names clients may use for this server.
    """

    host: str = "127.0.0.1"
    port: int = 8580
    tls_cert: Path | None = None
    tls_key: Path | None = None
    names: tuple[str, ...] = ()

    def hosts(self) -> frozenset[str]:
        """Return the names this server answers under."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        return frozenset(name.lower() for name in (own, *LOOPBACK_NAMES, *self.names))


def create_parts(
    site: SiteConfig, view: View, historian: Historian, send: SendAct, audit: Audit, hub: Hub,
    *, wall_ms: Callable[[], int] = wall_clock_ms, loop_turns: Callable[[], int] = lambda: 0,
) -> Parts:  # fmt: skip
    """Join what the routes work with; nothing runs yet."""
    reads = Workers("read", READ_THREADS, READS_WAITING_MAX)
    histories = Workers("history", HISTORY_THREADS, HISTORIES_WAITING_MAX)
    refresher = Refresher(view, hub, lambda: parts.serve_health(), loop_turns)
    parts = Parts(site, view, historian, Acts(send), audit, hub, refresher, reads, histories, wall_ms)
    return parts


def gated(app: ASGIApp, tokens: TokenStore, audit: Audit, hosts: Iterable[str]) -> Gate:
    """Return the application behind its gate, as clients meet it."""
    return Gate(app, tokens=tokens, throttle=Throttle(time.monotonic), audit=audit, hosts=hosts)


# -- running --


class _Server(uvicorn.Server):
    """uvicorn's server in a loop of ours: the caller hears the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them alone."""
        yield


async def run_serve(
    site: SiteConfig, data_dir: Path, stop: asyncio.Event, settings: ServeSettings, *, wall_ms: Callable[[], int] = wall_clock_ms
) -> None:
    """Serve `data_dir`/core until `stop` is set.

    Raises:
        ServeError: it cannot start; the message says why and what to do.
    """
    folder = data_dir / SERVE_FOLDER
    tls = _tls(settings)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.closing(_lock_folder(folder)), contextlib.closing(_listen(settings)) as listening:
        turns = 0
        tokens, audit = TokenStore(folder, wall_ms), Audit(folder, wall_ms)
        hub = Hub(time.monotonic, wall_ms())
        core_folder = data_dir / "core"
        view = LedgerView(site, core_folder, wall_ms)
        parts = create_parts(
            site, view, HistoryReader(site, core_folder, view.recent),
            partial(send_act, core_folder / ACTS_NAME), audit, hub, wall_ms=wall_ms, loop_turns=lambda: turns,
        )  # fmt: skip
        app = gated(create_app(parts), tokens, audit, settings.hosts())
        server = _Server(_uvicorn_config(app, settings, tls))
        if not tokens.kept():
            log.warning("no token yet: nobody can look; make one with `hazardgate token new NAME --role viewer`")
        tokens.reload()
        audit.start()
        parts.reads.start()
        parts.histories.start()
        audit.write("started", detail=f"process {os.getpid()}")

        async def pulse() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(PULSE_S)
                turns += 1

        async def watch_tokens() -> None:
            while True:
                await asyncio.sleep(TOKENS_S)
                await asyncio.to_thread(tokens.reload)
                hub.end_unless(tokens.valid)

        refreshing = parts.refresher.start(asyncio.get_running_loop())
        try:
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(server.serve(sockets=[listening]), name="http")
                helpers = [
                    tasks.create_task(pulse(), name="pulse"),
                    tasks.create_task(watch_tokens(), name="tokens"),
                    tasks.create_task(_until(refreshing), name="refresher"),
                ]
                _say_where(folder, settings, listening)
                notify_systemd("READY=1")
                stopping = tasks.create_task(stop.wait(), name="stop")
                await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                notify_systemd("STOPPING=1")
                server.should_exit = True  # 1. take on no more
                hub.close()  # 2. end what would go on for ever
                await serving  # 3. answer what was asked
                for helper in helpers:
                    helper.cancel()
        finally:
            parts.refresher.close()
            parts.reads.close()
            parts.histories.close()
            audit.write("stopped")
            await asyncio.to_thread(audit.close)
            (folder / WHERE_NAME).unlink(missing_ok=True)


async def _until(ended: asyncio.Future[None]) -> None:
    await ended


def _uvicorn_config(app: ASGIApp, settings: ServeSettings, tls: bool) -> uvicorn.Config:
    return uvicorn.Config(
        app, http=TimedProtocol, ws="none", lifespan="off", log_config=None, access_log=False, log_level="error",
        proxy_headers=False, server_header=False, limit_concurrency=CONNECTIONS_MAX, backlog=128,
        timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=STOP_S_MAX, h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        ssl_certfile=settings.tls_cert if tls else None, ssl_keyfile=settings.tls_key if tls else None,
    )  # fmt: skip


def _tls(settings: ServeSettings) -> bool:
    """Whether to speak TLS; raises where tokens would cross a network without."""
    if settings.tls_cert is None or settings.tls_key is None:
        if settings.tls_cert is not None or settings.tls_key is not None:
            raise TlsFilesError(settings.tls_cert or settings.tls_key or Path(), "certificate and key belong together")
        if not _loopback(settings.host):
            raise InsecureHostError(settings.host)
        return False
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise TlsFilesError(settings.tls_cert, getattr(error, "strerror", None) or str(error)) from None
    return True


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(settings: ServeSettings) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(128)
        except OSError:
            listening.close()
            raise
    except (OSError, OverflowError) as error:
        raise ListenError(settings.host, settings.port, getattr(error, "strerror", None) or str(error)) from None
    return listening


def _lock_folder(folder: Path) -> IO[str]:
    lock = (folder / "serve.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ServeFolderBusyError(folder) from None
    return lock


def _say_where(folder: Path, settings: ServeSettings, listening: socket.socket) -> None:
    """Write where we listen, for whoever started us with port 0."""
    scheme = "https" if settings.tls_cert else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"{scheme}://{host}:{listening.getsockname()[1]}"
    aside = folder / "serve.tmp"
    aside.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
    aside.replace(folder / WHERE_NAME)
    log.info("serve: %s", url)
