"""Keeps a model fed from one gateway: stream first, then a whole reload, then event by event; again after every break.

A short break resumes where the stream ended. Whatever leaves the model incomplete (a reset, silence, the first start)
makes it read everything again before the picture counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from cli.language import say
from cli.watch import answers
from cli.watch.client import Client, ClientError, RefusedError, UnreachableError
from cli.watch.fields import AnswerError, entries, take, whole
from cli.watch.model import ALARMS_MAX, TAGS_MAX, Model, Picture
from cli.watch.sse import SseEvent

EVENTS_QUEUED_MAX: Final = 10_000
RELOAD_S_MAX: Final = 30.0
PAGE: Final = 1_000
ALARM_PAGE: Final = 500
RETRY_S: Final = (0.2, 0.5, 1.0, 2.0)
REFUSED_RETRY_S: Final = 5.0


class Link:
    """One gateway's answers and events, into one model."""

    def __init__(
        self, client: Client, model: Model, clock: Callable[[], float], changed: Callable[[], None],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._client, self._model, self._clock, self._changed, self._pause = client, model, clock, changed, pause

    async def run(self) -> None:
        """Feed the model until cancelled."""
        attempts = 0
        while True:
            delay_s = RETRY_S[min(attempts, len(RETRY_S) - 1)]
            try:
                attempts += 1
                await self._follow()
                attempts = 0  # a reload was asked for: the gateway answers
            except* (ClientError, AnswerError) as group:
                error = _first(group)
                if self._model.complete and not self._model.lost(self._clock()):
                    attempts = min(attempts, 1)
                if isinstance(error, RefusedError):
                    self._model.position = None
                    delay_s = REFUSED_RETRY_S if error.token_refused else delay_s
                self._model.failure, self._model.refused = _told(error), isinstance(error, RefusedError)
                self._model.token_refused = isinstance(error, RefusedError) and error.token_refused
                self._changed()
            await self._pause(delay_s)

    async def _follow(self) -> None:
        """Follow one connection; returns when everything must be read anew."""
        model = self._model
        model.lost(self._clock())
        events: asyncio.Queue[SseEvent] = asyncio.Queue(EVENTS_QUEUED_MAX)
        after = model.position if model.complete else None
        async with self._client.stream(after) as stream, asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(_read_into(stream, events), name="stream-reader")
            if after is None:
                await self._reload()
            while model.complete:
                model.fold(await events.get(), self._clock())
                model.failure = ""
                self._changed()
            reader.cancel()

    async def _reload(self) -> None:
        try:
            async with asyncio.timeout(RELOAD_S_MAX):
                picture = await self._picture()
        except TimeoutError as error:
            raise UnreachableError(say("读取全部数据超时", "reading everything took too long")) from error
        self._model.load(picture, self._clock())
        self._changed()

    async def _picture(self) -> Picture:
        get = self._client.get
        me = answers.read_me(await get("/me"))
        site = answers.read_site(await get("/site"))
        tags = await self._tags()
        receivers = tuple(answers.read_receiver(item) for item in entries(await get("/deliveries")))
        edges = tuple(answers.read_edge(item) for item in entries(await get("/edges")))
        alarms, cut = await self._alarms()
        health = answers.read_health(await get("/health"))
        return Picture(me, site, health, alarms, cut, tags, receivers, edges)

    async def _alarms(self) -> tuple[tuple[answers.Alarm, ...], bool]:
        found: list[answers.Alarm] = []
        query: dict[str, str | int] = {"state": "open", "limit": ALARM_PAGE}
        while True:
            page: Any = await self._client.get("/alarms", **query)
            items = entries(page)
            found += map(answers.read_alarm, items)
            after = take(page, "next", None)
            if after is None or len(found) >= ALARMS_MAX:
                return tuple(found[:ALARMS_MAX]), after is not None
            if not items:
                raise AnswerError("a page of alarms without alarms names a next one")
            query["before"] = str(after)

    async def _tags(self) -> tuple[answers.Tag, ...]:
        found: list[answers.Tag] = []
        while True:
            page = await self._client.get("/tags", offset=len(found), limit=PAGE)
            items = entries(page)
            found += map(answers.read_tag, items)
            if not items or len(found) >= min(whole(page, "total"), TAGS_MAX):
                return tuple(found[:TAGS_MAX])


async def _read_into(stream: AsyncIterator[SseEvent], events: asyncio.Queue[SseEvent]) -> None:
    async for event in stream:
        await events.put(event)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _told(error: BaseException) -> str:
    if isinstance(error, AnswerError):
        return say(f"看不懂网关的回答（{error}）；两边版本是否一致？",
                   f"the gateway's answer is not understood ({error}); are both of one version?")  # fmt: skip
    if isinstance(error, RefusedError) and not error.token_refused:
        return say(f"网关拒绝：{error}", f"the gateway refuses: {error}")
    return str(error)
