"""A hand-made read model, history and core for the API: they say what a test put in, and count what was asked."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from alerting import AlarmState, Category, State, Transition, TransitionKind
from config import DEMO_SITE, SiteConfig, load_site
from gateway.core import ActsSocketError
from gateway.historian.memory import MemoryHistorian
from gateway.historian.samples import Samples
from gateway.historian.store import AlarmEvent, QueryTooLargeError
from gateway.serve.app import create_parts, gated
from gateway.serve.application import create_app
from gateway.serve.asking import Parts
from gateway.serve.audit import Audit
from gateway.serve.gate import Gate
from gateway.serve.models import (
    AlarmPage,
    AlarmView,
    AttemptView,
    Changes,
    EdgeNow,
    Health,
    History,
    HistoryBucket,
    HistoryPoint,
    HistoryStretch,
    LaneNow,
    LossView,
    NoticePage,
    NoticeView,
    Position,
    ReceiverNow,
    TagNow,
    TagWindows,
    WindowList,
)
from gateway.serve.stream import Hub
from gateway.serve.tokens import Role, TokenStore
from gateway.serve.view_errors import BadCursorError, HistoryTooLargeError, UnknownTagError
from tests.patience import GUARD_S

NOW_MS = 1_760_000_000_000
ALARM_ID = "0123456789abcdef0123456789abcdef"
SITE: SiteConfig = load_site(DEMO_SITE)
TAG = SITE.tags[0].id


def tag_now(tag_id: str, **changes: Any) -> TagNow:
    told = TagNow(
        tag=tag_id, name_zh="液氯浓度", name_en="chlorine", label="AT-101", unit="ppm", value=0.5, raw=None, quality="GOOD",
        reason="", stale_cause="", code=192, source_ms=NOW_MS - 900, received_ms=NOW_MS - 800, age_ms=800,
        last_good_value=0.5, last_good_ms=NOW_MS - 900, held=False, alarms=(), worst_grade=0, equipment="V1",
        hazard_source="HS1", edge="E1", range_low=0.0, range_high=10.0, stale_after_ms=30_000, planned=False,
    )  # fmt: skip
    return replace(told, **changes)


def alarm_state(**changes: Any) -> AlarmState:
    told = AlarmState(
        id=ALARM_ID, site="DEMO", category=Category.PROCESS, tag=TAG, limit="HH", grade=4, state=State.ACTIVE_UNACKED,
        value=3.2, code=192, setpoint=3.0, unit="ppm", start_ms=NOW_MS - 5_000,
    )  # fmt: skip
    return replace(told, **changes)


def step(alarm: AlarmState, kind: TransitionKind, actor: str | None = None) -> Transition:
    return Transition(
        id=f"{alarm.revision:032x}", alarm_id=alarm.id, revision=alarm.revision, kind=kind, alarm=alarm, engine_ms=7,
        at_ms=NOW_MS, actor=actor,
    )  # fmt: skip


class FakeView:
    """What a test says."""

    def __init__(self) -> None:
        self.position = Position("ledger-one", 41)
        self.changes: list[Changes] = []
        self.core, self.ledger = "running", "ok"
        self.now = [tag_now(tag.id) for tag in SITE.tags]
        state = alarm_state()
        self.known = {
            state.id: AlarmView(state, "液氯浓度", "chlorine", "HIGH_HIGH", "撤离", "leave the area", "V1", "HS1", 3.1,
                                (step(state, TransitionKind.RAISED),)),
        }  # fmt: skip
        self.fail: BaseException | None = None
        self.hold: threading.Event | None = None

    def _asked(self) -> None:
        if self.hold is not None:
            self.hold.wait(GUARD_S)
        if self.fail is not None:
            raise self.fail

    def refresh(self) -> Changes:
        self._asked()
        if not self.changes:
            return Changes(self.position)
        found = self.changes.pop(0)
        self.position = found.position
        return found

    def health(self) -> Health:
        return Health(
            at_ms=NOW_MS, core=self.core, ledger=self.ledger, ledger_detail="", degraded=self.core != "running", reasons=(),  # type: ignore[arg-type]
            heartbeat_age_ms=200, cycles=9, engine_ms=900, connected=True, samples_committed=100, unjournaled=False,
            overflow=False, commit_ms_p50=1.5, commit_ms_p99=3.5, position=self.position, committed_pos=41,
            ledger_bytes=65_536, config_current=True, tags_good=1, tags_uncertain=0, tags_bad=0, tags_unknown=0,
            standing={1: 0, 2: 0, 3: 0, 4: 1},
        )  # fmt: skip

    def tags(self, only: Collection[str] | None = None) -> Sequence[TagNow]:
        self._asked()
        return [tag for tag in self.now if only is None or tag.tag in only]

    def tag(self, tag_id: str) -> TagNow | None:
        self._asked()
        return next((tag for tag in self.now if tag.tag == tag_id), None)

    def alarms(
        self, *, state: str = "open", grade_min: int = 1, tag: str | None = None, before: str | None = None, limit: int = 200
    ) -> AlarmPage:
        self._asked()
        if before is not None:
            raise BadCursorError(before)
        found = [view for view in self.known.values() if view.alarm.grade >= grade_min and tag in (None, view.alarm.tag)]
        return AlarmPage(tuple(found[:limit]), None, self.position)

    def alarm(self, alarm_id: str, within_s: float = 4.0) -> AlarmView | None:
        return self.known.get(alarm_id)

    def deliveries(self, within_s: float = 4.0) -> Sequence[ReceiverNow]:
        lane = LaneNow("red", due=2, parked=1, last_sequence=7, oldest_due_ms=NOW_MS)
        return [ReceiverNow("CITY", "市平台", "city", True, False, "", 5, (lane,), NOW_MS, NOW_MS, "accepted", 200, "")]

    def notices(
        self, *, receiver: str | None = None, state: str | None = None, before: str | None = None, limit: int = 100
    ) -> NoticePage:
        if before is not None:
            raise BadCursorError(before)
        attempt = AttemptView(1, NOW_MS, "accepted", 200, "")
        notice = NoticeView("n1", ALARM_ID, "t1", "CITY", "red", "ledger-one", 7, 1, NOW_MS, "accepted", 1, None, (attempt,))
        return NoticePage((notice,), None)

    def edges(self, only: Collection[str] | None = None, within_s: float = 4.0) -> Sequence[EdgeNow]:
        loss = LossView(5, 1, 9, "hole", NOW_MS)
        return [
            EdgeNow("E1", "一号", "one", True, NOW_MS, True, 2**62, 9, 0, 0, NOW_MS, True, True, 3, (), 1, (loss,), 4),
        ]


class FakeHistorian:
    """One bucket, one gap; refuses what the real one refuses."""

    def __init__(self) -> None:
        self.hold: threading.Event | None = None
        self.asked = 0
        self.said: dict[str, Any] | None = None
        self.kept = MemoryHistorian()

    def history(self, tag_id: str, from_ms: int, to_ms: int, points_max: int, deadline_s: float) -> History:
        self.asked += 1
        if self.hold is not None:
            self.hold.wait(GUARD_S)
        if tag_id not in SITE.tag_index:
            raise UnknownTagError(tag_id)
        if to_ms - from_ms > 10**11:
            raise HistoryTooLargeError(to_ms - from_ms, 10**11)
        bucket = HistoryBucket(from_ms, to_ms, 1.0, from_ms, 2.0, to_ms, 0.5, from_ms, 3.0, to_ms, 5, 0, 1, 0)
        return History(
            tag_id, "ppm", from_ms, to_ms, from_ms, False, "", from_ms, (HistoryPoint(from_ms, None, "BAD", 5),), (bucket,),
            1_000, (HistoryStretch("no_data", from_ms, to_ms),), 0, 6, 0, 0,
        )  # fmt: skip


    def windows(
        self, tag_ids: Sequence[str], from_ms: int, to_ms: int, width_ms: int, columns: Sequence[str], deadline_s: float
    ) -> WindowList:
        self.asked += 1
        if any(tag not in SITE.tag_index for tag in tag_ids):
            raise UnknownTagError(tag_ids[0])
        if to_ms - from_ms > 10**11:
            raise QueryTooLargeError("too much", "过多")
        told: dict[str, Any] = {"samples": [7], "mean": [math.nan], "good_share": [0.5]}
        items = [
            TagWindows(tag, "ppm", [from_ms], **{name: told[name] for name in columns if name in told}, damaged=[(1, 2)])
            for tag in tag_ids
        ]
        return WindowList(from_ms, to_ms, width_ms, False, tuple(items))

    def events(self, from_ms: int, to_ms: int, tag: str | None, rows_max: int, deadline_s: float) -> list[AlarmEvent]:
        event = AlarmEvent("f" * 32, ALARM_ID, TAG, "raised", "HH", 4, from_ms)
        return [event] if tag in (None, TAG) else []

    def status(self) -> dict[str, Any] | None:
        return self.said

    def knows(self, tag_id: str, deadline_s: float = 0.0) -> bool:
        return tag_id in SITE.tag_index

    def range(self, tag: str, from_ms: int, to_ms: int, rows_max: int = 0, deadline_s: float = 0.0) -> Samples:
        self.asked += 1
        if self.hold is not None:
            self.hold.wait(GUARD_S)
        return self.kept.range(tag, from_ms, to_ms, rows_max, deadline_s)


@dataclass
class FakeCore:
    """Core's socket: remembers what it was sent; answers as told."""

    view: FakeView
    sent: list[dict[str, str]] = field(default_factory=list)
    gone: bool = False
    refuses: str | None = None

    async def send(self, request: dict[str, str]) -> dict[str, Any]:
        self.sent.append(request)
        if self.gone:
            raise ActsSocketError(Path("acts.sock"), "no answer (FileNotFoundError)")
        known = self.view.known.get(request["alarm"])
        if self.refuses is not None:
            return {"ok": False, "error": f"alarm {request['alarm']!a}: {self.refuses}"}
        if known is None:
            said = "no open alarm has this id (it may be closed already); see the list of open alarms"
            return {"ok": False, "error": f"alarm {request['alarm']!a}: {said}"}
        acked = replace(known.alarm, state=State.ACTIVE_ACKED, acked_by=request["actor"], acked_ms=NOW_MS, revision=2)
        return {"ok": True, "transition": step(acked, TransitionKind.ACKNOWLEDGED, request["actor"]).to_json()}


class Clock:
    """A monotonic clock the test turns."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Served:
    """An application on fakes, and a client for each role."""

    gate: Gate
    parts: Parts
    view: FakeView
    historian: FakeHistorian
    core: FakeCore
    tokens: TokenStore
    audit_path: Path
    sent: dict[str, str]

    def client(self, role: str | None = "viewer", address: tuple[str, int] = ("127.0.0.1", 5)) -> httpx.AsyncClient:
        headers = {} if role is None else {"Authorization": f"Bearer {self.sent[role]}"}
        transport = httpx.ASGITransport(self.gate, raise_app_exceptions=False, client=address)
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8580", headers=headers)

    async def audit(self) -> str:
        """Everything the audit has, once its thread has written it."""
        self.parts.audit.close()
        return await asyncio.to_thread(lambda: self.audit_path.read_text("utf-8") if self.audit_path.exists() else "")


@cache
def shared_app() -> FastAPI:
    """One application for all tests: making its routes ready takes longer than most tests."""
    return create_app(None)


def build(
    folder: Path, *, hub: Hub | None = None, wall_ms: Callable[[], int] = lambda: NOW_MS, started: bool = True,
    own_app: bool = False,
) -> Served:  # fmt: skip
    """Join an application on fakes. With `started` its threads run; `finish` ends them.

    With `own_app` another one may be built while this one is in use.
    """
    view, historian = FakeView(), FakeHistorian()
    core = FakeCore(view)
    tokens, audit = TokenStore(folder / "serve", wall_ms), Audit(folder / "serve", wall_ms)
    sent = {str(role): tokens.new(f"{role}甲", role, 90)[1] for role in Role}
    tokens.reload()
    hub = hub or Hub(time.monotonic, NOW_MS)
    parts = create_parts(SITE, view, historian, core.send, audit, hub, wall_ms=wall_ms)
    app = create_app(parts) if own_app else shared_app()
    app.state.parts = parts
    gate = gated(app, tokens, audit, ["127.0.0.1", "localhost"])
    if started:
        audit.start()
        parts.reads.start()
        parts.histories.start()
    return Served(gate, parts, view, historian, core, tokens, folder / "serve" / "audit.jsonl", sent)


def finish(served: Served) -> None:
    """End the threads."""
    served.parts.hub.close()
    served.parts.reads.close()
    served.parts.histories.close()
    served.parts.audit.close()


@asynccontextmanager
async def serving(folder: Path, **more: Any) -> AsyncIterator[Served]:
    """An application on fakes, for as long as the block."""
    served = build(folder, **more)
    try:
        yield served
    finally:
        finish(served)
