"""The event loop of a world: time stands still while anything can run, and then jumps to the next timer."""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVarTuple

DIGITS: Final = 6
TICK_S: Final = 10**-DIGITS

Ts = TypeVarTuple("Ts")


class SleepForeverError(RuntimeError):
    """Nothing can run, and no timer is set: the world would stand still for ever."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in virtual time, in whole microseconds from 0, without sockets and threads.

    Timers never ring early: one between two ticks would ring at the earlier one, and whoever then waits for the rest
    would wait for less than a tick, for ever.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_Jumps(self._jump))

    def time(self) -> float:
        """See `asyncio.loop.time`."""
        return self._now_s

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """See `asyncio.loop.call_at`."""
        ring = round(when, DIGITS)
        if ring < when:
            ring = round(ring + TICK_S, DIGITS)
        return super().call_at(ring, callback, *args, context=context)

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """See `asyncio.loop.call_soon_threadsafe`; there is one thread."""
        return self.call_soon(callback, *args, context=context)

    def _jump(self, timeout_s: float | None) -> None:
        if timeout_s is None:
            raise SleepForeverError("nothing can run and no timer is set")
        if timeout_s > 0:
            self._now_s = round(self._now_s + timeout_s, DIGITS)


class _Jumps(selectors.BaseSelector):
    """A selector that never finds anything; waiting is a jump in time."""

    def __init__(self, jump: Callable[[float | None], None]) -> None:
        self._jump = jump
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._jump(timeout)
        return []

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[fileobj]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys
