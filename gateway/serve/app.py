"""Joins serve's parts and runs them: the only place where they know each other."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shlex
import socket
import time
from collections.abc import Callable, Generator, Iterable
from functools import cache, partial
from pathlib import Path
from typing import IO, Final
from zoneinfo import ZoneInfo

import uvicorn
from starlette.types import ASGIApp

from config import SiteConfig
from gateway.care import NewerDataError, refuse_unreadable
from gateway.core import ACTS_NAME, LEDGER_NAME, send_act
from gateway.historian.segments.board import Board
from gateway.historian.segments.names import FOLDER_NAME
from gateway.serve.acts import Acts
from gateway.serve.answers import json_of, site_answer
from gateway.serve.application import create_app
from gateway.serve.asking import Parts
from gateway.serve.audit import Audit
from gateway.serve.connection import TimedProtocol
from gateway.serve.errors import (
    NewerFolderError,
    NoCoreFolderError,
    NoDataFolderError,
    ServeFolderBusyError,
    UnfinishedFolderError,
)
from gateway.serve.feeding import Feeding
from gateway.serve.gate import Gate
from gateway.serve.heap import give_holes_back
from gateway.serve.history import HistoryReader
from gateway.serve.listening import BACKLOG, ServeSettings, check_secure, listen
from gateway.serve.ports import Historian, SendAct, View
from gateway.serve.recent import RecentFrames
from gateway.serve.refresher import Refresher
from gateway.serve.sealing import Sealing
from gateway.serve.stream import STREAMS_MAX, Hub
from gateway.serve.throttle import Throttle
from gateway.serve.tokens import TokenStore
from gateway.serve.view import LedgerView
from gateway.serve.workers import Workers
from gateway.unfinished import unfinished
from wire import notify_systemd

log = logging.getLogger(__name__)

CORE_FOLDER: Final = "core"
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
TRIM_S: Final = 60.0
PULSE_S: Final = 0.2
STOP_S_MAX: Final = 1


def wall_clock_ms() -> int:
    """UTC epoch ms."""
    return time.time_ns() // 1_000_000


def create_parts(
    site: SiteConfig, view: View, historian: Historian, send: SendAct, audit: Audit, hub: Hub,
    *, wall_ms: Callable[[], int] = wall_clock_ms, loop_turns: Callable[[], int] = lambda: 0,
) -> Parts:  # fmt: skip
    """Join what the routes work with; nothing runs yet."""
    reads = Workers("read", READ_THREADS, READS_WAITING_MAX)
    histories = Workers("history", HISTORY_THREADS, HISTORIES_WAITING_MAX)
    refresher = Refresher(view, hub, lambda: parts.serve_health(), loop_turns)
    site_json = cache(lambda: json_of(site_answer(site)))
    parts = Parts(
        site, view, historian, Acts(send, ZoneInfo(site.timezone)), audit, hub, refresher, reads, histories, wall_ms, site_json
    )  # fmt: skip
    return parts


def gated(app: ASGIApp, tokens: TokenStore, audit: Audit, hosts: Iterable[str]) -> Gate:
    """Return the application behind its gate, as clients meet it."""
    return Gate(app, tokens=tokens, throttle=Throttle(time.monotonic), audit=audit, hosts=hosts)


class _Server(uvicorn.Server):
    """uvicorn's server in a loop of ours: the caller hears the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them alone."""
        yield


class Serve:
    """One serve on one data folder, with a socket that listens already."""

    def __init__(
        self, site: SiteConfig, data_dir: Path, settings: ServeSettings, listening: socket.socket, wall_ms: Callable[[], int],
        base_dir: Path,
    ) -> None:  # fmt: skip
        """Join the parts; nothing runs before `run`.

        Raises:
            TokenStoreError: the tokens cannot be read.
        """
        self._folder, self._settings, self._listening = data_dir / SERVE_FOLDER, settings, listening
        self._turns = 0
        self._tokens, self._audit = TokenStore(self._folder, wall_ms), Audit(self._folder, wall_ms)
        self._hub = Hub(time.monotonic, wall_ms())
        core_folder = data_dir / CORE_FOLDER
        self._view = LedgerView(site, core_folder, wall_ms, recent=RecentFrames(settings.recent_bytes))
        board = Board()
        self._historian = HistoryReader(site, core_folder, self._view.recent, turnstile=self._view.turnstile, board=board)
        self._feeding = Feeding(
            site, core_folder / LEDGER_NAME, data_dir / FOLDER_NAME, base_dir, wall_ms, self._view.turnstile.reading
        )
        self._sealing = Sealing(
            site, core_folder / LEDGER_NAME, data_dir / FOLDER_NAME, wall_ms, self._view.turnstile.reading, self._feeding.status,
            board,
        )
        self._parts = create_parts(
            site, self._view, self._historian, partial(send_act, core_folder / ACTS_NAME), self._audit, self._hub,
            wall_ms=wall_ms, loop_turns=lambda: self._turns,
        )  # fmt: skip
        app = gated(create_app(self._parts), self._tokens, self._audit, settings.hosts())
        self._server = _Server(_uvicorn_config(app, settings))
        if not self._tokens.kept():
            command = f"hazardgate token new NAME --role viewer --data {shlex.quote(str(data_dir))}"
            log.warning("no token yet: nobody can look; make one with `%s`", command)
        self._tokens.reload()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set or a task fails, which ends the rest and raises."""
        parts = self._parts
        self._audit.start()
        parts.reads.start()
        parts.histories.start()
        self._feeding.start()
        self._sealing.start()
        self._audit.write("started", detail=f"process {os.getpid()}")
        refreshing = parts.refresher.start(asyncio.get_running_loop())
        try:
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(self._server.serve(sockets=[self._listening]), name="http")
                helpers = [
                    tasks.create_task(self._pulse(), name="pulse"),
                    tasks.create_task(self._watch_tokens(), name="tokens"),
                    tasks.create_task(_until(refreshing), name="refresher"),
                    tasks.create_task(_trim(), name="memory"),
                ]
                self._say_where()
                notify_systemd("READY=1")
                stopping = tasks.create_task(stop.wait(), name="stop")
                await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                notify_systemd("STOPPING=1")
                self._server.should_exit = True  # 1. take on no more
                self._hub.close()  # 2. end what would go on for ever
                await serving  # 3. answer what was asked
                for helper in helpers:
                    helper.cancel()
        finally:
            parts.reads.close()
            parts.histories.close()
            await asyncio.to_thread(self._sealing.close)
            await asyncio.to_thread(self._feeding.close)
            if await asyncio.to_thread(parts.refresher.close):
                self._view.close()
            self._historian.close()
            self._audit.write("stopped")
            await asyncio.to_thread(self._audit.close)
            (self._folder / WHERE_NAME).unlink(missing_ok=True)

    async def _pulse(self) -> None:
        """Show the refresher, which feeds systemd's watchdog, that this loop turns."""
        while True:
            await asyncio.sleep(PULSE_S)
            self._turns += 1

    async def _watch_tokens(self) -> None:
        """Let a revoked or expired token end its streams within a second."""
        while True:
            await asyncio.sleep(TOKENS_S)
            await asyncio.to_thread(self._tokens.reload)
            self._hub.end_unless(self._tokens.valid)

    def _say_where(self) -> None:
        """Write where we listen, for whoever started us with port 0."""
        url = self._settings.url(self._listening.getsockname()[1])
        log.info("serve: %s", url)
        aside = self._folder / "serve.tmp"
        try:
            aside.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
            aside.replace(self._folder / WHERE_NAME)
        except OSError as error:  # a full disk must not keep anybody from looking
            log.warning("%s cannot be written (%s); serve runs on, but free some space", self._folder / WHERE_NAME, error.strerror)
            with contextlib.suppress(OSError):  # one of an earlier serve would lead elsewhere
                (self._folder / WHERE_NAME).unlink(missing_ok=True)


async def run_serve(
    site: SiteConfig, data_dir: Path, stop: asyncio.Event, settings: ServeSettings, *,
    wall_ms: Callable[[], int] = wall_clock_ms, base_dir: Path = Path(), wait_for_core: bool = False,
) -> None:  # fmt: skip
    """Serve `data_dir`/core until `stop` is set. Relative secret files of stores start from `base_dir`.

    Args:
        wait_for_core: start on a folder on which no core has run yet, too.

    Raises:
        ServeError: it cannot start; the message says why and what to do.
    """
    check_secure(settings)
    begun = unfinished(data_dir)
    if begun is not None:
        raise UnfinishedFolderError(*begun)
    _check_folder(data_dir, wait_for_core=wait_for_core)
    folder = data_dir / SERVE_FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.closing(_lock_folder(folder)), contextlib.closing(listen(settings)) as listening:
        await Serve(site, data_dir, settings, listening, wall_ms, base_dir).run(stop)


def _check_folder(data_dir: Path, *, wait_for_core: bool) -> None:
    """Refuse a folder that is not there or nobody's, and one in which a newer program has gone on."""
    if not data_dir.exists():
        raise NoDataFolderError(data_dir)
    if data_dir.is_dir() and not (data_dir / CORE_FOLDER).is_dir() and not wait_for_core:
        raise NoCoreFolderError(data_dir)
    try:
        refuse_unreadable(data_dir)
    except NewerDataError as error:
        raise NewerFolderError(str(error), error.message_zh) from None


async def _trim() -> None:
    """Keep the process as small as what it holds."""
    while True:
        await asyncio.sleep(TRIM_S)
        await asyncio.to_thread(give_holes_back)


async def _until(ended: asyncio.Future[None]) -> None:
    await ended


def _uvicorn_config(app: ASGIApp, settings: ServeSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app, http=TimedProtocol, ws="none", lifespan="off", log_config=None, access_log=False, log_level="error",
        proxy_headers=False, server_header=False, limit_concurrency=CONNECTIONS_MAX, backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=STOP_S_MAX, h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        ssl_certfile=settings.tls_cert, ssl_keyfile=settings.tls_key,
    )  # fmt: skip


def _lock_folder(folder: Path) -> IO[str]:
    """Lock the folder for as long as the file stays open; the kernel lets go when the process dies."""
    lock = (folder / "serve.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ServeFolderBusyError(folder) from None
    return lock
