"""Acts of people, handed to core over its socket; and core's refusals in both languages.

Core alone decides. An act is answered once core has committed it, so what the client is told is in the journal.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final
from zoneinfo import ZoneInfo

from alerting import Transition, in_zone
from gateway.core import ActsSocketError
from gateway.serve.ports import SendAct
from gateway.serve.problems import Kind, RefusedError, not_found

ACT_S_MAX: Final = 8.0
ACTS_AT_ONCE_MAX: Final = 8
"""Below what core's socket takes at once: the command line keeps its place."""

_UNKNOWN: Final = "no open alarm has this id"
_BUSY: Final = ("too many acts wait", "too many connections")
_WORDS: Final = (
    (r"no open alarm has this id.*", "没有此编号的未结束报警（可能已经销警）；请查看报警列表"),
    (r"already acknowledged by (?P<who>.*) \(at (?P<at>[^()]*)\)", "已由 {who} 确认（{at}）"),
    (r"closed by (?P<who>.*) \(at (?P<at>[^()]*)\)", "已由 {who} 销警（{at}）"),
    (r"(?P<what>.*) still stands; close it after it has returned to normal", "{what} 仍在报警；恢复正常后才能销警"),
    (r"(?:close|acknowledge) needs (?P<name>\w+).*", "缺少或过长：{name}"),
    (r"(?P<name>\w+) is longer than (?P<most>\d+) characters.*", "{name} 超过 {most} 个字符；请缩短"),
    (r"(?P<name>\w+) must be text of at most (?P<most>\d+) characters", "{name} 应为不超过 {most} 个字符的文字"),
    (r"(?P<name>\w+) holds a control character.*", "{name} 含有控制字符；请删去"),
    (r"too many (?:acts wait|connections).*", "操作排队过多；请稍后再试"),
)
_PATTERNS: Final = tuple((re.compile(pattern, re.DOTALL), words) for pattern, words in _WORDS)


class Acts:
    """Sends acts to core, a few at once. Times in its refusals are told in `zone`, the site's."""

    def __init__(self, send: SendAct, zone: ZoneInfo) -> None:
        self._send, self._zone = send, zone
        self._places = asyncio.Semaphore(ACTS_AT_ONCE_MAX)

    async def do(self, request: dict[str, str]) -> Transition:
        """Do an act; returns the step it was, committed.

        Raises:
            RefusedError: core refused it, or is not there.
        """
        try:
            async with asyncio.timeout(ACT_S_MAX), self._places:
                answer = await self._send(request)
        except TimeoutError:
            raise _core_gone(
                "core did not answer in time; the act may still be done: look at the alarm before sending it again",
                "核心未及时应答；该操作可能仍会执行：重发前请先查看报警状态",
            ) from None
        except (ActsSocketError, ValueError, AssertionError):
            raise _core_gone(
                "core is not there; start it, or look at /api/v1/health", "核心未运行；请启动核心，或查看 /api/v1/health"
            ) from None
        if not answer.get("ok"):
            raise refusal(str(answer.get("error")), self._zone)
        return Transition.from_json(answer["transition"])


def refusal(said: str, zone: ZoneInfo) -> RefusedError:
    """Return core's refusal as a problem. `said` is its sentence, which names the alarm first."""
    reason = in_zone(re.sub(r"\Aalarm '[^']*': ", "", said), zone)
    zh = in_chinese(reason)
    if reason.startswith(_UNKNOWN):
        missing = not_found()
        return RefusedError(missing.kind, reason, zh)
    if reason.startswith(_BUSY):
        return RefusedError(Kind.BUSY, reason, zh, retry_after_s=1)
    return RefusedError(Kind.REFUSED, reason, zh)


def in_chinese(reason: str) -> str:
    """Return one of core's reasons in Chinese; one this table does not know stays English."""
    for pattern, words in _PATTERNS:
        match = pattern.fullmatch(reason)
        if match:
            return words.format_map(match.groupdict())
    return f"核心没有执行：{reason}"


def _core_gone(detail: str, detail_zh: str) -> RefusedError:
    return RefusedError(Kind.CORE_GONE, detail, detail_zh, retry_after_s=2)


def note_of(request: dict[str, str], event: str, detail: str | None = None) -> dict[str, str | None]:
    """Return what the audit says of an act beside who and where."""
    return {"event": event, "act": request["act"], "alarm": request["alarm"], "detail": detail}
