"""The event loop of a world: time stands still while anything can run, and then jumps to the next timer."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, Final

import async_solipsism

DIGITS: Final = 6


class VirtualLoop(async_solipsism.EventLoop):  # type: ignore[misc]
    """A loop in virtual time, in whole microseconds, whose timers never ring early.

    A timer between two ticks would ring at the earlier one, and whoever then waits for the rest would wait for less
    than a tick, for ever.
    """

    def time(self) -> float:
        """See `asyncio.loop.time`."""
        return float(round(super().time(), DIGITS))

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """See `asyncio.loop.call_at`."""
        ring = round(when, DIGITS)
        if ring < when:
            ring = round(ring + 10**-DIGITS, DIGITS)
        timer: asyncio.TimerHandle = super().call_at(ring, callback, *args, context=context)
        return timer
