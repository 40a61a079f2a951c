"""The route of exports: samples as CSV, written as they are read. No part of a request becomes a name of a file (F51).

A reader must be able to tell a whole file from a cut one. So the answer is chunked, and one that fails half-way ends
without its last chunk: to HTTP that is an error, never a short file. HTTP/1.0 knows no chunks and is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from config import SiteConfig
from gateway.historian.export import ExportOrder, ExportTag, Piece, pieces
from gateway.historian.export_csv import csv_stream
from gateway.historian.store import HistorianError
from gateway.serve.asking import KNOWN_PARAMETERS, Parts, PartsOf, TimeMs, Viewer, problems
from gateway.serve.gate import LIMIT, NOTE
from gateway.serve.problems import Kind, RefusedError, not_found
from gateway.serve.view_errors import ViewError, in_days

log = logging.getLogger(__name__)

TAGS_MAX: Final = 100
RANGE_MS_MAX: Final = 400 * 86_400_000
ROWS_MAX: Final = 5_000_000
PIECE_ROWS: Final = 20_000
EXPORT_S_MAX: Final = 1_800.0
BUSY_TRIES: Final = 50
BUSY_S: Final = 0.2

api_export = APIRouter(prefix="/api/v1", tags=["history"], dependencies=KNOWN_PARAMETERS)

Tags = Annotated[
    list[Annotated[str, Query(pattern=r"^[A-Z0-9]+(\.[A-Z0-9_]+)+$", max_length=64)]],
    Query(min_length=1, max_length=TAGS_MAX, description="as T101.LEVEL; once for each tag"),
]


@api_export.get(
    "/export", response_class=Response,
    responses={200: {"description": "CSV as of RFC 4180, with a header", "content": {"text/csv": {}}}, **problems(404)},
)
async def export(
    request: Request, token: Viewer, parts: PartsOf, tag: Tags, from_ms: TimeMs, to_ms: TimeMs,
    format: Literal["csv"] = "csv",
    bom: Annotated[bool, Query(description="begin with a byte order mark, for Excel")] = False,
) -> Response:  # fmt: skip
    """Every sample of some tags, as CSV: tag by tag, in order of time. An answer that breaks off is not the whole file.

    What is stored and cannot be read is gone past: where it begins stands a row without a value, of quality
    `BAD/DAMAGED until …`.
    """
    if request.scope["http_version"] == "1.0":
        raise RefusedError(
            Kind.MALFORMED, "an export needs HTTP/1.1: in 1.0 nobody could tell a cut file from a whole one",
            "导出需要 HTTP/1.1：HTTP/1.0 无法区分中断的文件与完整的文件",
        )  # fmt: skip
    if from_ms >= to_ms:
        raise RefusedError(Kind.INVALID, "from_ms must be before to_ms", "from_ms 必须早于 to_ms")
    if to_ms - from_ms > RANGE_MS_MAX:
        raise RefusedError(Kind.INVALID, f"at most {in_days(RANGE_MS_MAX)} days at once", f"一次最多 {in_days(RANGE_MS_MAX)} 天")
    strange = [name for name in dict.fromkeys(tag) if name not in parts.site.tag_index]
    if strange:
        unknown = await parts.histories.run(lambda: next((name for name in strange if not parts.historian.knows(name)), None))
        if unknown is not None:
            raise not_found(unknown)
    order = _order(parts.site, tag, from_ms, to_ms)
    note: dict[str, Any] = {"event": "export", "tags": len(order.tags), "from_ms": from_ms, "to_ms": to_ms, "ended": "refused"}
    request.scope[NOTE] = note
    limit = request.scope[LIMIT]
    assert isinstance(limit, asyncio.Timeout)
    limit.reschedule(asyncio.get_running_loop().time() + EXPORT_S_MAX)
    found = _noted(pieces(parts.historian, order, PIECE_ROWS), note)
    work = _Export(parts, csv_stream(found, order.zone, bom=bom), note)
    return _ExportResponse(work, f"hazardgate-{parts.site.site}-{from_ms}-{to_ms}.{format}", token.id)


def _order(site: SiteConfig, tags: list[str], from_ms: int, to_ms: int) -> ExportOrder:
    chosen = []
    for name in dict.fromkeys(tags):
        at = site.tag_index.get(name)  # None: a tag that the site has no more
        chosen.append(ExportTag(name) if at is None else ExportTag(name, site.tags[at].name.zh, site.tags[at].unit or ""))
    return ExportOrder(tuple(chosen), from_ms, to_ms, ZoneInfo(site.timezone), ROWS_MAX)


def _noted(found: Iterator[Piece], note: dict[str, Any]) -> Iterator[Piece]:
    """Count in the audit's note the rows that tell of damage."""
    for piece in found:
        if piece.damaged:
            if "damaged" not in note:
                log.error("export: goes past what cannot be read: %s: %s", piece.damaged[0].file, piece.damaged[0].why)
            note["damaged"] = note.get("damaged", 0) + len(piece.damaged)
        yield piece


@dataclass(slots=True)
class _Export:
    """Makes the file piece by piece in the threads of histories, one piece at a time over all exports."""

    parts: Parts
    stream: Iterator[bytes]
    note: dict[str, Any]

    async def next(self) -> bytes | None:
        """Return the next bytes, None at the end.

        Raises:
            HistorianError, ViewError, RefusedError: there will be no more.
        """
        for tries_left in range(BUSY_TRIES - 1, -1, -1):
            async with self.parts.exports.reading:
                try:
                    return await self.parts.histories.run(lambda: next(self.stream, None))
                except RefusedError:  # no thread is free: nothing was begun
                    if not tries_left:
                        raise
            await asyncio.sleep(BUSY_S)
        raise AssertionError("the last try returns or raises")

    async def rest(self) -> AsyncIterator[bytes]:
        """Yield what follows."""
        while (piece := await self.next()) is not None:
            if piece:
                yield piece


class _ExportResponse(Response):
    """Sends an export; a client that does not read is waited for by the connection's own limits."""

    def __init__(self, work: _Export, name: str, caller: str) -> None:
        super().__init__(None, 200)
        self._work, self._caller = work, caller
        self.raw_headers = [
            (b"content-type", b"text/csv; charset=utf-8; header=present"),
            (b"content-disposition", f'attachment; filename="{name}"'.encode()), (b"x-accel-buffering", b"no"),
        ]  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until all is sent, or something ends it: then the answer has no end.

        What cannot be read at all is refused before anything is sent.
        """
        note, sent = self._work.note, 0
        with self._work.parts.exports.one(self._caller):
            first = (await self._work.next() or b"") + (await self._work.next() or b"")
            gone = asyncio.create_task(_gone(receive), name="export-client")
            note["ended"] = "cut"
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": first, "more_body": True})
                sent += len(first)
                async for piece in self._work.rest():
                    if gone.done():
                        note["ended"] = "client gone"
                        return
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    sent += len(piece)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                note["ended"] = "whole"
            except (HistorianError, ViewError, RefusedError) as error:
                log.error("export: cut after %d bytes: %s", sent, error)
            finally:
                note["bytes"] = sent
                gone.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
