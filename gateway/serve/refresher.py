"""The one thread that reads what is new, five times a second, and makes events of it.

It also feeds systemd's watchdog, and only while both it and the event loop turn. A bug in it ends the process.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.serve.answers import ServeHealth, alarm_answer, health_answer, json_of, receiver_list
from gateway.serve.models import AlarmView, Changes, EdgeNow, Health, Position, TagNow
from gateway.serve.ports import View
from gateway.serve.stream import Event, Hub
from gateway.serve.turnstile import REST_S
from gateway.serve.view_errors import ViewError
from wire import notify_systemd

log = logging.getLogger(__name__)

PERIOD_S: Final = 0.2
HEALTH_S: Final = 1.0
DELIVERIES_S: Final = 1.0
DELIVERIES_REST: Final = 10
"""Counting what is due may take a tenth of the time."""
ASKING_S_MAX: Final = REST_S + 0.5
"""What one kind of change may wait for the ledger, all its questions together: a rest of all reads must fit in it. The
others wait behind it; what is not read in time is told in a later round."""
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
        self._deliveries_due_s = -math.inf
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
        events = self._told(changes)
        if health is not None:
            events.append(Event("health", json_of(health_answer(health, self._serve_health())), changes.position))
        return events, changes.position, changes.behind

    def _health(self, now_s: float) -> Health:
        health = self._view.health()
        self.latest = (time.monotonic(), health)
        self._health_due_s = now_s + HEALTH_S
        return health

    def _told(self, changes: Changes) -> list[Event]:
        """Make events; what the ledger does not give just now waits, and holds up nothing else."""
        if changes.reset or len(changes.alarms) > ALARMS_TOLD_MAX:
            return [Event("reset", b'{"cause":"ledger"}' if changes.reset else b'{"cause":"flood"}', changes.position)]
        makers: dict[str, Callable[[Changes], tuple[list[Event], Any]]] = {
            "alarms": self._alarms, "tags": self._values, "edges": self._edges, "deliveries": self._deliveries,
        }  # fmt: skip
        events: list[Event] = []
        waiting: dict[str, Any] = {}
        failure: ViewError | None = None
        for what, make in makers.items():
            changed = getattr(changes, what)
            if not changed:
                continue
            if what == "deliveries" and self._told_s < self._deliveries_due_s:
                waiting[what] = changed
                continue
            try:
                made, rest = make(changes)
                events += made
                if rest:
                    waiting[what] = rest
            except ViewError as error:
                waiting[what], failure = changed, error
        if failure is not None and not self._delayed:
            log.warning("what changed is not told yet: %s", failure)
        self._delayed = failure is not None
        self._waiting = Changes(changes.position, **waiting) if waiting else None
        return events

    # -- makers: each returns its events, and what of the changes waits for a later round --

    def _alarms(self, changes: Changes) -> tuple[list[Event], Sequence[str]]:
        """As many as can be read in time."""
        give_up_s = time.monotonic() + ASKING_S_MAX
        views: list[AlarmView | None] = []
        try:
            for alarm_id in changes.alarms:
                views.append(self._view.alarm(alarm_id, give_up_s - time.monotonic()))
                if time.monotonic() >= give_up_s:
                    break
        except ViewError:
            if not views:
                raise
        items = [alarm_answer(view) for view in views if view is not None]
        return _events("alarms", items, list, changes.position), changes.alarms[len(views) :]

    def _values(self, changes: Changes) -> tuple[list[Event], None]:
        return _events("values", self._view.tags(changes.tags), list[TagNow], changes.position), None

    def _edges(self, changes: Changes) -> tuple[list[Event], None]:
        found = self._view.edges(changes.edges, ASKING_S_MAX)
        return _events("edges", found, list[EdgeNow], changes.position), None

    def _deliveries(self, changes: Changes) -> tuple[list[Event], None]:
        """Every receiver. All that is due is counted for it: long backlogs are counted less often."""
        began = time.monotonic()
        try:
            found = self._view.deliveries(ASKING_S_MAX)
            return [Event("deliveries", json_of(receiver_list(found)), changes.position)], None
        finally:
            took = time.monotonic() - began
            self._deliveries_due_s = self._told_s + max(DELIVERIES_S, DELIVERIES_REST * took)


def _together(before: Changes | None, after: Changes) -> Changes:
    """What two looks found, as if one had."""
    if before is None:
        return after
    return Changes(
        after.position, before.reset or after.reset, before.tags | after.tags,
        tuple(dict.fromkeys((*before.alarms, *after.alarms))), before.edges | after.edges,
        before.deliveries or after.deliveries, before.health or after.health, after.behind,
    )  # fmt: skip


def _events(kind: str, items: Sequence[Any], of: Any, position: Position) -> list[Event]:
    parts = (items[at : at + ITEMS_MAX] for at in range(0, len(items), ITEMS_MAX))
    return [Event(kind, b'{"items":' + json_of(part, of) + b"}", position) for part in parts]
