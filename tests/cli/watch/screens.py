"""A screen in front of a fake gateway, with a clock and a bell that the test holds, and what the screen shows as text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from textual.pilot import Pilot

from cli.watch.app import WatchApp
from cli.watch.client import Client
from tests.cli.watch.fake_server import TOKEN, FakeGateway, serving
from tests.patience import GUARD_S

SETTLE_S_MAX = GUARD_S


@dataclass
class Watched:
    """A running screen."""

    gateway: FakeGateway
    app: WatchApp
    pilot: Pilot[None]
    now: list[float]
    rings: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Every line in sight."""
        width, height = self.app.size
        strips = self.app.screen._compositor.render_strips()
        lines = ["".join(segment.text for segment in strip) for strip in strips[:height]]
        assert len(lines) == height, (width, height)
        return "\n".join(lines)

    async def until(self, seen: Callable[[], bool]) -> None:
        """Let the program run until the condition holds; the limit is for what never comes."""
        async with asyncio.timeout(SETTLE_S_MAX):
            while not seen():
                self.app.tick()
                await asyncio.sleep(0.01)

    async def shows(self, *texts: str) -> None:
        """Wait until all of these are in sight."""
        try:
            await self.until(lambda: all(text in self.text for text in texts))
        except TimeoutError:
            raise AssertionError(f"{texts} not in sight:\n{self.text}") from None

    async def press(self, *keys: str) -> None:
        """Press keys."""
        await self.pilot.press(*keys)

    async def pass_s(self, seconds: float) -> None:
        """Let time go by for the screen, a quarter of a second a step, with nothing heard."""
        for _ in range(int(seconds * 4)):
            self.now[0] += 0.25
            self.app.tick()
        await self.pilot.pause()


@asynccontextmanager
async def watching(
    gateway: FakeGateway, size: tuple[int, int] = (80, 24), token: str = TOKEN, *, wait: bool = True
) -> AsyncIterator[Watched]:
    """Run a screen; with `wait`, until it shows the picture."""
    now, rings = [1_000.0], []
    async with serving(gateway) as url:
        app = WatchApp(
            Client(url, token, silence_s=SETTLE_S_MAX), url, clock=lambda: now[0], ring=lambda: rings.append(now[0])
        )
        app.animation_level = "none"
        async with app.run_test(size=size) as pilot:
            watched = Watched(gateway, app, pilot, now, rings)
            if wait:
                await watched.until(lambda: app.model.complete and app.screen is app._main)
                await watched.until(lambda: gateway.opened.is_set())
            yield watched
