"""The operator socket: one JSON line in, one JSON line out, on a Unix socket only the service's user can open.

Operator acts reach core this way and no other, so core itself listens on no network port.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from alerting import Act, ActKind, ActRefusedError, AlarmState
from gateway.core.errors import ActsSocketError
from gateway.core.loop import CoreLoop
from gateway.core.ports import RunBlocking
from wire import JsonRefusedError, parse_json_object

log = logging.getLogger(__name__)

REQUEST_BYTES_MAX: Final = 16_384
ANSWER_S_MAX: Final = 10.0
CONNECTIONS_MAX: Final = 16
TEXT_CHARS_MAX: Final = 500
ANSWER_BYTES_MAX: Final = 262_144
CONTROL_CATEGORIES: Final = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))  # what could steer a terminal or split a line


def has_control_characters(text: str) -> bool:
    """The text could steer a terminal or split a line: no act may carry it into the journal and on to receivers."""
    return any(unicodedata.category(char) in CONTROL_CATEGORIES for char in text)


class ActsSocket:
    """Serves the socket until closed."""

    def __init__(
        self, path: Path, loop: CoreLoop, wall_ms: Callable[[], int], stored: Callable[[str], AlarmState | None],
        run_blocking: RunBlocking = asyncio.to_thread,
    ) -> None:  # fmt: skip
        """`stored` reads an alarm from the ledger: one too old for the engine's memory can still be closed."""
        self._path, self._loop, self._wall_ms, self._stored = path, loop, wall_ms, stored
        self._run_blocking = run_blocking
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self) -> None:
        """Open the socket with mode 0600.

        Raises:
            ActsSocketError: the path cannot be bound (it may be too long for the system).
        """
        self._path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path, limit=REQUEST_BYTES_MAX)
        except OSError as error:
            raise ActsSocketError(self._path, f"cannot be opened ({error})") from error
        finally:
            os.umask(mask)

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                if self._open > CONNECTIONS_MAX:
                    answer = _refused("too many connections")
                else:
                    answer = await self.answer(await reader.readline())
                writer.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, ValueError, ConnectionError) as error:
            log.warning("operator socket: %s", type(error).__name__)
        finally:
            self._open -= 1
            writer.close()

    async def answer(self, line: bytes) -> dict[str, Any]:
        """Do what one line of JSON asks for and return what to answer."""
        try:
            act = self._parse(line)
        except ValueError as error:
            return _refused(str(error))
        try:
            transition = await self._loop.act(act, await self._adopted(act.alarm_id))
        except ActRefusedError as error:
            return _refused(str(error))
        return {"ok": True, "transition": transition.to_json()}

    async def _adopted(self, alarm_id: str) -> dict[str, Any] | None:
        if alarm_id in self._loop.machine.engine.book.alarms:
            return None
        stored = await self._run_blocking(self._stored, alarm_id)
        return None if stored is None else stored.to_json()

    def _parse(self, line: bytes) -> Act:
        try:
            request = parse_json_object(line, REQUEST_BYTES_MAX)
        except JsonRefusedError as error:
            raise ValueError(f"the request is not one line of JSON ({error})") from None
        texts = {}
        for key in ("act", "alarm", "actor", "reason", "measure"):
            text = request.get(key, "")
            if not isinstance(text, str) or len(text) > TEXT_CHARS_MAX:
                raise ValueError(f"{key} must be text of at most {TEXT_CHARS_MAX} characters")
            if has_control_characters(text):
                raise ValueError(f"{key} holds a control character: write it as one line of plain text")
            texts[key] = text.strip()
        if texts["act"] not in ("acknowledge", "close"):
            raise ValueError("act must be acknowledge or close")
        if not texts["actor"]:
            raise ValueError("actor is missing: an act has a person")
        return Act(
            kind=ActKind(texts["act"]), alarm_id=texts["alarm"], actor=texts["actor"], at_ms=self._wall_ms(),
            reason=texts["reason"], measure=texts["measure"],
        )  # fmt: skip


def _refused(error: str) -> dict[str, Any]:
    return {"ok": False, "error": error}


async def send_act(path: Path, request: dict[str, str]) -> dict[str, Any]:
    """Send one act to a running core and return its answer.

    Raises:
        ActsSocketError: nobody answers there.
    """
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_BYTES_MAX)
            try:
                writer.write(json.dumps(request).encode() + b"\n")
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise ActsSocketError(path, f"no answer ({type(error).__name__})") from error
    except ValueError as error:
        raise ActsSocketError(path, f"an answer longer than {ANSWER_BYTES_MAX} bytes") from error
    if not line:
        raise ActsSocketError(path, "core closed the connection without an answer")
    try:
        return parse_json_object(line, ANSWER_BYTES_MAX)
    except JsonRefusedError as error:
        raise ActsSocketError(path, f"an answer that cannot be read ({error})") from None
