"""Takes notices to their receivers: lanes and schedule decide, `post` sends, results go to the next commit.

One task per (receiver, lane) and one for each receiver's heartbeat, all owned by `Courier.run`. The
courier keeps nothing on disk: the outbox does, and offers again after a restart what was not committed
as accepted. Everything but `run` is called from the event loop's thread and never waits.
"""

from __future__ import annotations

import asyncio
import random as random_module
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from alerting.alarm import Fact
from alerting.delivery.errors import NoAnswerError
from alerting.delivery.lanes import DOWN_AFTER_MS, Entry, ReceiverLanes
from alerting.delivery.outbox import LANES, Attempt, Notice, OutboxRow
from alerting.delivery.post import HttpPost, Post
from alerting.delivery.render import render, render_heartbeat
from alerting.delivery.schedule import (
    URGENT_LANES,
    AnswerRule,
    BodyRule,
    Outcome,
    Verdict,
    judge,
    longest_delay_ms,
)
from alerting.delivery.signing import Signer, parse_secrets
from alerting.delivery.words import SiteWords
from config import ReceiverConfig

HEARTBEAT_S: Final = 30.0
HEARTBEAT_FAILING_S: Final = 10.0
"""Period while heartbeats fail, so that a dead path is told 30 s after the first failure."""
STOP_S_MAX: Final = 2.0
RESULTS_MAX: Final = 50_000
"""Above it (or twice the notices there are, if more) only the newest result of each notice is kept."""
REFUSED_LISTED_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class ReceiverCondition:
    """A fact for the alarm engine: RECEIVER.<id>.DOWN or RECEIVER.<id>.PARKED stands or does not."""

    key: str
    receiver: str
    standing: bool
    at_ms: int
    facts: dict[str, Fact]


@dataclass(frozen=True, slots=True)
class ReceiverStatus:
    """Delivery to one receiver in numbers, since this start. `due` counts what waits or is on the wire."""

    due: int
    refused: int
    accepted: int
    down: bool
    detail: str


@dataclass(slots=True, eq=False)
class _Path:
    """All the courier holds about one receiver."""

    receiver: ReceiverConfig
    lanes: ReceiverLanes
    post: Post
    signer: Signer
    rule: AnswerRule
    wakes: dict[str, asyncio.Event]
    accepted: int = 0
    detail: str = ""
    told: dict[str, bool] = field(default_factory=dict)
    attempts: dict[str, asyncio.TaskGroup] = field(default_factory=dict)
    """Lane to the owner of its attempts, while its task runs."""
    timer: asyncio.TimerHandle | None = None


class Courier:
    """Delivers notices to all receivers of a site.

    `results_ready` is set whenever `take_results` or `take_conditions` has something; `on_result` is
    called at the same moments, in the loop.
    """

    def __init__(
        self,
        receivers: Sequence[ReceiverConfig],
        secrets: Mapping[str, str],
        *,
        words: SiteWords,
        ledger_id: str,
        base_dir: Path,
        heartbeat_fields: Callable[[str], Mapping[str, object]] = lambda _: {},
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random: Callable[[], float] = random_module.random,
        post_of: Callable[[ReceiverConfig], Post] | None = None,
        on_result: Callable[[], None] | None = None,
    ) -> None:
        """Prepare; nothing is sent before `run`.

        Args:
            secrets: receiver id to the text of its secret file.
            ledger_id: marks heartbeats and unjournaled notices; rows carry their own.
            base_dir: the site's folder, for ca_file.
            heartbeat_fields: called with a receiver id before each heartbeat; JSON-able.
            wall_ms: UTC epoch ms.
            random: in [0, 1), for jitter.
            post_of: how a receiver is reached; default over HTTP.

        Raises:
            SecretRefusedError: a receiver has no usable secret.
        """
        self._words, self._ledger_id, self._fields = words, ledger_id, heartbeat_fields
        self._wall_ms, self._random, self._on_result = wall_ms, random, on_result
        self._results: list[Attempt] = []
        self._results_max = RESULTS_MAX
        self._conditions: list[ReceiverCondition] = []
        self.results_ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._paths = {
            receiver.id: _Path(
                receiver,
                ReceiverLanes(regulator=receiver.regulator),
                HttpPost.of(receiver, base_dir) if post_of is None else post_of(receiver),
                Signer(parse_secrets(receiver.id, secrets.get(receiver.id, ""))),
                _rule(receiver),
                {lane: asyncio.Event() for lane in LANES},
            )
            for receiver in receivers
        }

    # what comes in

    def offer(self, rows: Iterable[OutboxRow]) -> list[OutboxRow]:
        """Take on committed rows, in the order of their sequences; a row already here is passed over.

        After a restart, offer every row not committed as accepted; what its `next_ms` still asks for is
        waited, at most the schedule's longest delay for it.

        Returns:
            Rows not taken: their receiver is unknown, or the lane is full. A full lane takes nothing
            until the rows named by `shortfalls` are offered again.
        """
        refused, now_ms, wall_ms = [], self._mono_ms(), self._wall_ms()
        offered: dict[tuple[str, str], _Path] = {}
        for row in rows:
            path = self._paths.get(row.receiver)
            due_ms = now_ms
            if row.next_ms is not None:
                urgent = row.lane in URGENT_LANES
                longest_ms = longest_delay_ms(urgent=urgent, attempts=row.attempts, parked=row.parked)
                due_ms += min(max(0, row.next_ms - wall_ms), longest_ms)
            if path is None or not path.lanes.offer(row, now_ms, due_ms):
                refused.append(row)
                continue
            offered[row.receiver, row.lane] = path
            if row.parked:
                self._tell(path, "PARKED", True, {"lane": row.lane, "sequence": row.sequence, "notice": row.id})
        for (_, lane), path in offered.items():
            self._start_due(path, lane)  # at once: an alarm need not wait for its lane's task to wake
            path.wakes[lane].set()
        return refused

    def offer_unjournaled(self, notices: Iterable[Notice]) -> list[Notice]:
        """Send notices whose commit hangs at once, without a sequence; their rows come later by `offer`.

        Returns: notices not taken (unknown receiver or full lane); their rows will do.
        """
        refused, now_ms = [], self._mono_ms()
        for notice in notices:
            path = self._paths.get(notice.receiver)
            if path is None or not path.lanes.offer_unjournaled(notice, now_ms):
                refused.append(notice)
            else:
                path.wakes[notice.lane].set()
        return refused

    # what goes back to the core

    def take_results(self) -> list[Attempt]:
        """Return the attempts since the last call, oldest first, for the next commit."""
        taken, self._results, self._results_max = self._results, [], RESULTS_MAX
        if not self._conditions:
            self.results_ready.clear()
        return taken

    def take_conditions(self) -> list[ReceiverCondition]:
        """Return the conditions that changed since the last call, for the alarm engine.

        The first accepted message after a start tells both as not standing, so that an alarm left over
        from before the start can return.
        """
        taken, self._conditions = self._conditions, []
        if not self._results:
            self.results_ready.clear()
        return taken

    def shortfalls(self) -> dict[tuple[str, str], tuple[str, int]]:
        """Return the lanes that had to leave rows in the ledger and have room for them now.

        Returns: (receiver, lane) -> (ledger id, sequence) from which on to offer unaccepted rows again.
        """
        missing = {
            (receiver, lane): path.lanes.shortfall(lane) for receiver, path in self._paths.items() for lane in LANES
        }
        return {key: (row.ledger_id, row.sequence) for key, row in missing.items() if row is not None}

    def status(self) -> dict[str, ReceiverStatus]:
        """Return each receiver's numbers."""
        return {
            receiver: ReceiverStatus(
                path.lanes.due_count, path.lanes.refused_count, path.accepted, path.lanes.down, path.detail
            )
            for receiver, path in self._paths.items()
        }

    # the tasks

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set, then give what is on the wire 2 s to finish.

        An attempt broken off at the stop leaves no result: its row is offered again at the next start.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                workers = [
                    tasks.create_task(self._run_lane(path, lane), name=f"courier:{receiver}:{lane}")
                    for receiver, path in self._paths.items()
                    for lane in LANES
                ]
                beats = [
                    tasks.create_task(self._run_heartbeat(path), name=f"courier:{receiver}:heartbeat")
                    for receiver, path in self._paths.items()
                ]
                await stop.wait()
                self._stopping.set()
                for path in self._paths.values():
                    self._wake_all(path)
                for beat in beats:
                    beat.cancel()
                if workers:
                    _, hanging = await asyncio.wait(workers, timeout=STOP_S_MAX)
                    for worker in hanging:
                        worker.cancel()
        finally:
            for path in self._paths.values():
                if path.timer is not None:
                    path.timer.cancel()
                await path.post.close()

    async def _run_lane(self, path: _Path, lane: str) -> None:
        wake = path.wakes[lane]
        async with asyncio.TaskGroup() as attempts:
            path.attempts[lane] = attempts
            while not self._stopping.is_set():
                wake.clear()
                self._start_due(path, lane)
                wake_ms = path.lanes.wake_ms(lane, self._mono_ms())
                timer = None
                if wake_ms is not None:
                    timer = asyncio.get_running_loop().call_at(wake_ms / 1000, wake.set)
                try:
                    await wake.wait()
                finally:
                    if timer is not None:
                        timer.cancel()

    def _start_due(self, path: _Path, lane: str) -> None:
        """Start the attempts that are due, unless the lane's task is not there to own them."""
        attempts = path.attempts.get(lane)
        if attempts is None or self._stopping.is_set():
            return
        for entry in path.lanes.take(lane, self._mono_ms()):
            attempts.create_task(
                self._attempt(path, entry),
                name=f"courier:{path.receiver.id}:{lane}:{entry.notice.id}",
            )

    async def _attempt(self, path: _Path, entry: Entry) -> None:
        at_ms, began_ms, notice = self._wall_ms(), self._mono_ms(), entry.notice
        body = render(notice, self._ledger_id)
        verdict = await self._send(path, notice.id, body, at_ms)
        now_ms, wall_ms, was_down = self._mono_ms(), self._wall_ms(), path.lanes.down
        settled = path.lanes.settle(entry, verdict, now_ms, 2 * self._random() - 1)
        path.accepted += settled.accepted
        path.detail = verdict.detail
        delay_ms = settled.next_delay_ms
        self._results.append(
            Attempt(
                notice.id, notice.receiver, notice.lane,
                notice.sequence if isinstance(notice, OutboxRow) else None,
                settled.attempt, at_ms, now_ms - began_ms,
                verdict.outcome.value, verdict.status, verdict.detail,
                None if delay_ms is None else wall_ms + delay_ms,
                settled.accepted, settled.parked, entry.unjournaled,
            )
        )  # fmt: skip
        if len(self._results) > self._results_max:
            self._results = _newest_only(self._results)
            self._results_max = max(RESULTS_MAX, 2 * len(self._results))
        if verdict.outcome is Outcome.REFUSED and path.lanes.refused_count:
            self._tell(path, "PARKED", True, {
                "lane": notice.lane, "notice": notice.id, "status": verdict.status, "detail": verdict.detail,
                "sequence": notice.sequence if isinstance(notice, OutboxRow) else None,
            })  # fmt: skip
        self._after_message(path, accepted=settled.accepted)
        path.wakes[notice.lane].set()
        if was_down:
            self._wake_all(path)
        self._ring()

    async def _run_heartbeat(self, path: _Path) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            alive = await self._beat(path)
            period_s = HEARTBEAT_S if alive else HEARTBEAT_FAILING_S
            await asyncio.sleep(max(0.0, began_s + period_s - loop.time()))

    async def _beat(self, path: _Path) -> bool:
        """Send one heartbeat; the first also opens the connection that a red notice will find warm."""
        at_ms, receiver = self._wall_ms(), path.receiver.id
        fields = {**self._fields(receiver), "delivery": _delivery_fields(path.lanes)}
        beat_id, body = render_heartbeat(self._words, self._ledger_id, receiver, at_ms, fields)
        verdict = await self._send(path, beat_id, body, at_ms)
        # A definite refusal shows a living platform that has no use for heartbeats.
        alive = verdict.outcome is not Outcome.RETRY
        if not alive:
            path.detail = verdict.detail
        if path.lanes.down:
            self._wake_all(path)
        path.lanes.beat(alive, self._mono_ms())
        self._after_message(path, accepted=alive)
        return alive

    async def _send(self, path: _Path, message_id: str, body: bytes, at_ms: int) -> Verdict:
        headers = path.signer.headers(message_id, at_ms // 1000, body)
        try:
            answer = await path.post.post(headers, body, path.receiver.timeout_s)
        except NoAnswerError as error:
            return Verdict(Outcome.RETRY, str(error), error.status)
        return judge(answer, path.rule, self._wall_ms())

    # health

    def _after_message(self, path: _Path, *, accepted: bool) -> None:
        """Tell what a message's fate changed, and keep the timer that finds a receiver down."""
        lanes = path.lanes
        if not lanes.down and (accepted or path.told.get("DOWN")):
            self._tell(path, "DOWN", False, {})
        if accepted and not lanes.refused_count:
            self._tell(path, "PARKED", False, {})
        since_ms = lanes.failing_since_ms()
        if since_ms is None or lanes.down:
            if path.timer is not None:
                path.timer.cancel()
                path.timer = None
        elif path.timer is None:
            at_s = (since_ms + DOWN_AFTER_MS) / 1000
            path.timer = asyncio.get_running_loop().call_at(at_s, self._find_down, path)

    def _find_down(self, path: _Path) -> None:
        path.timer = None
        now_ms, since_ms = self._mono_ms(), path.lanes.failing_since_ms()
        if since_ms is None:
            return
        if not path.lanes.check_down(now_ms):  # it recovered and failed anew meanwhile
            at_s = (since_ms + DOWN_AFTER_MS) / 1000
            path.timer = asyncio.get_running_loop().call_at(at_s, self._find_down, path)
            return
        path.post.forget_address()  # perhaps it has moved; the rules judge the new address too
        self._tell(path, "DOWN", True, {
            "name_zh": path.receiver.name.zh, "name_en": path.receiver.name.en, "detail": path.detail,
            "since_ms": self._wall_ms() - (now_ms - since_ms), "due": path.lanes.due_count,
        })  # fmt: skip
        self._wake_all(path)

    def _tell(self, path: _Path, word: str, standing: bool, facts: dict[str, Fact]) -> None:
        if path.told.get(word) is standing:
            return
        path.told[word] = standing
        receiver = path.receiver.id
        self._conditions.append(
            ReceiverCondition(f"RECEIVER.{receiver}.{word}", receiver, standing, self._wall_ms(), facts)
        )
        self._ring()

    def _ring(self) -> None:
        self.results_ready.set()
        if self._on_result is not None:
            self._on_result()

    def _wake_all(self, path: _Path) -> None:
        for wake in path.wakes.values():
            wake.set()

    def _mono_ms(self) -> int:
        # Rounded up, so that a timer set for a due time never finds it a fraction short.
        return int(asyncio.get_running_loop().time() * 1000) + 1


def _rule(receiver: ReceiverConfig) -> AnswerRule:
    body = None
    if receiver.body_rule is not None:
        found = receiver.body_rule
        body = BodyRule(
            found.field,
            frozenset(map(_code_text, found.accepted)),
            frozenset(map(_code_text, found.permanent)),
        )
    return AnswerRule(frozenset(receiver.ok_statuses) or None, body)


def _code_text(code: str | int | bool) -> str:
    return str(code).lower() if isinstance(code, bool) else str(code)


def _delivery_fields(lanes: ReceiverLanes) -> dict[str, object]:
    refused = [
        {"lane": row.lane, "ledger": row.ledger_id, "sequence": row.sequence}
        for row in lanes.refused_rows(REFUSED_LISTED_MAX)
    ]
    return {
        "down": lanes.down,
        "due": lanes.due_count,
        "refused": lanes.refused_count,
        "refused_rows": refused,
    }


def _newest_only(results: list[Attempt]) -> list[Attempt]:
    newest = {(attempt.notice_id, attempt.unjournaled): attempt for attempt in results}
    return list(newest.values())
