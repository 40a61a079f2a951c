"""The one thread that reads what is new, five times a second, and makes events of it.

It also feeds systemd's watchdog, and only while both it and the event loop turn. A bug in it ends the process.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from gateway.serve.answers import ServeHealth, alarm_answer, health_answer, json_of, receiver_list
from gateway.serve.models import Changes, EdgeNow, Health, Position, TagNow
from gateway.serve.ports import View
from gateway.serve.stream import Event, Hub
from gateway.serve.view_errors import ViewError
from wire import notify_systemd

log = logging.getLogger(__name__)

PERIOD_S: Final = 0.2
HEALTH_S: Final = 1.0
ITEMS_MAX: Final = 1_000
"""Items in one event; more go in several."""
ALARMS_TOLD_MAX: Final = 2_000
"""Changed alarms read one by one in one round; beyond it clients load their list anew."""
CLOSE_S_MAX: Final = 0.5


class Refresher:
    """Owns the thread `serve-refresher`.

    `latest` is the last health it made, for `/healthz`, which must cost nothing.
    """

    def __init__(self, view: View, hub: Hub, serve_health: Callable[[], ServeHealth], loop_turns: Callable[[], int]) -> None:
        self._view, self._hub, self._serve_health, self._loop_turns = view, hub, serve_health, loop_turns
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serve-refresher", daemon=True)
        self._health_due_s = 0.0
        self._seen_turns = -1
        self._waiting: Changes | None = None
        self._told_s = -PERIOD_S
        self._delayed = False
        self.latest: tuple[float, Health] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Begin; the future raises what ends the thread before `close`."""
        self._loop, self._ended = loop, loop.create_future()
        self._thread.start()
        return self._ended

    def close(self) -> bool:
        """Let the thread end; returns whether it did. One that hangs in the disk is left to the process's end."""
        self._stop.set()
        self._thread.join(CLOSE_S_MAX)
        return not self._thread.is_alive()

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                events, position, behind = self.round(began)
                if events is None:
                    self._loop.call_soon_threadsafe(self._hub.skipped, position)
                else:
                    self._loop.call_soon_threadsafe(self._hub.publish, events, position)
                self._feed_watchdog()
                self._stop.wait(0.01 if behind else max(0.01, PERIOD_S - (time.monotonic() - began)))
        except RuntimeError as error:
            failure = None if self._stop.is_set() else error  # the loop is closed already
        except BaseException as error:  # carried to the event loop, which raises it
            failure = error
        if failure is not None:
            self._loop.call_soon_threadsafe(self._fail, failure)

    def _fail(self, failure: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(failure)

    def _feed_watchdog(self) -> None:
        turns = self._loop_turns()
        if turns != self._seen_turns:
            self._seen_turns = turns
            notify_systemd("WATCHDOG=1")

    def round(self, now_s: float) -> tuple[list[Event] | None, Position, bool]:
        """Read once; return the events (None: nobody wants them), where the view stands, and whether more waits."""
        changes = _together(self._waiting, self._view.refresh())
        if changes.behind and now_s - self._told_s < PERIOD_S:  # catching up: tell in steps of the same length
            self._waiting = changes
            return [], self._hub.position, True
        self._waiting, self._told_s = None, now_s
        health_due = changes.health or changes.reset or now_s >= self._health_due_s
        health = self._health(now_s) if health_due else None
        if not self._hub.wanted:
            return None, changes.position, changes.behind
        try:
            events = list(self._events(changes))
            self._delayed = False
        except ViewError as error:  # the ledger is away or busy just now: told as soon as it can be read again
            if not self._delayed:
                log.warning("what changed is not told yet: %s", error)
            self._waiting, self._delayed, events = changes, True, []
        if health is not None:
            events.append(Event("health", json_of(health_answer(health, self._serve_health())), changes.position))
        return events, changes.position, changes.behind

    def _health(self, now_s: float) -> Health:
        health = self._view.health()
        self.latest = (time.monotonic(), health)
        self._health_due_s = now_s + HEALTH_S
        return health

    def _events(self, changes: Changes) -> Iterable[Event]:
        position = changes.position
        if changes.reset or len(changes.alarms) > ALARMS_TOLD_MAX:
            yield Event("reset", b'{"cause":"ledger"}' if changes.reset else b'{"cause":"flood"}', position)
            return
        for part in _parts(changes.alarms):
            found = [view for alarm_id in part if (view := self._view.alarm(alarm_id)) is not None]
            yield _event("alarms", [alarm_answer(view) for view in found], list, position)
        if changes.tags:
            tags = [tag for tag in self._view.tags() if tag.tag in changes.tags]
            for some in _parts(tags):
                yield _event("values", some, list[TagNow], position)
        if changes.edges:
            edges = [edge for edge in self._view.edges() if edge.edge in changes.edges]
            for few in _parts(edges):
                yield _event("edges", few, list[EdgeNow], position)
        if changes.deliveries:
            yield Event("deliveries", json_of(receiver_list(self._view.deliveries())), position)


def _together(before: Changes | None, after: Changes) -> Changes:
    """What two looks found, as if one had."""
    if before is None:
        return after
    return Changes(
        after.position, before.reset or after.reset, before.tags | after.tags,
        tuple(dict.fromkeys((*before.alarms, *after.alarms))), before.edges | after.edges,
        before.deliveries or after.deliveries, before.health or after.health, after.behind,
    )  # fmt: skip


def _event(kind: str, items: Sequence[Any], of: Any, position: Position) -> Event:
    return Event(kind, b'{"items":' + json_of(items, of) + b"}", position)


def _parts(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for at in range(0, len(items), ITEMS_MAX):
        yield items[at : at + ITEMS_MAX]
