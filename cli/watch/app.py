"""The terminal program: one model, one link that feeds it, one bell, two screens, joined here."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from rich.text import Text as Drawn
from textual.app import App
from textual.binding import Binding, BindingType

from cli.language import say
from cli.running import EXIT_REFUSED
from cli.watch import answers, words
from cli.watch.bell import Bell
from cli.watch.client import Client, ClientError, RefusedError
from cli.watch.dialogs import Question
from cli.watch.fields import AnswerError, take
from cli.watch.link import Link
from cli.watch.model import LOST_S, Model
from cli.watch.screens import LostScreen, MainScreen
from cli.watch.tables import BAD, GOOD, WARN, Look
from cli.watch.words import Times

TICK_S: Final = 0.25
DRAW_S: Final = 0.05
ACTS_MAX: Final = 8
ACT_WORDS: Final = {"acknowledge": ("确认", "acknowledge"), "close": ("销警", "close")}


def clock_s() -> float:
    """Return seconds that go on while the machine sleeps, so a laptop that wakes knows that its picture is old."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class WatchApp(App[None]):
    """Shows one gateway until the person leaves."""

    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c,ctrl+q", "leave", show=False, priority=True)]

    def __init__(
        self, client: Client, url: str, *, clock: Callable[[], float] = clock_s, ring: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self.model, self.bell_rule = Model(), Bell()
        self._client, self._url, self._clock = client, url, clock
        self._ring = ring or self.bell
        self._link = Link(client, self.model, clock, self.draw_soon)
        self._began_s = clock()
        self._was_lost = False
        self._drawing = False
        self._times = Times()
        self._acting: set[str] = set()
        self._sent: dict[str, str] = {}

    def get_default_screen(self) -> MainScreen:
        """Return the screen with the lists."""
        self._main = MainScreen()
        return self._main

    def on_mount(self) -> None:
        """Start."""
        self._lost = LostScreen()
        if not self.is_headless:  # leave the terminal as it was found
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit)
        self.set_interval(TICK_S, self.tick)
        self.run_worker(self._feed(), name="watch-link", exit_on_error=True)
        self.tick()

    async def _feed(self) -> None:
        async with self._client:
            await self._link.run()

    # ------------------------------------------------------------------ time passes

    def tick(self) -> None:
        """Judge the contact, ring where it is due, draw."""
        if not self.is_running:  # a timer may fire while the program ends
            return
        if self.model.token_refused and not self.model.loads:  # nothing was ever shown, and waiting brings nothing
            self.exit(return_code=EXIT_REFUSED)
            return
        now_s = self._clock()
        lost = self.model.lost(now_s)
        if lost:
            waited = self.model.silence_s(now_s) is not None or now_s - self._began_s > LOST_S
            first = waited and not self._was_lost
            self._was_lost = self._was_lost or waited
            if waited and self.bell_rule.due_lost(now_s, first=first):
                self._ring()
        else:
            self._was_lost = False
            if self.bell_rule.due(self.model.alarms.values(), now_s):
                self._ring()
        self._cover(lost)
        self.draw()

    def _cover(self, lost: bool) -> None:
        covered = self.screen is self._lost
        if lost and not covered:
            self._lost = LostScreen()
            self.push_screen(self._lost)
        elif covered and not lost:
            self.pop_screen()

    def draw_soon(self) -> None:
        """Something changed: draw, but not for each of many changes."""
        if not self._drawing:
            self._drawing = True
            self.set_timer(DRAW_S, self._draw_now)

    def _draw_now(self) -> None:
        self._drawing = False
        self.tick()

    def draw(self) -> None:
        """Draw what is known, or that nothing is."""
        if not self.is_running:
            return
        now_s = self._clock()
        silence_s, silent_s = self.model.silence_s(now_s), self.bell_rule.silent_s(now_s)
        if self.model.lost(now_s):
            if self.screen is self._lost:
                self._lost.draw(self.model, silence_s, self._url, silent_s)
        elif self._main.is_mounted:
            self._main.draw(self.look(), silence_s, silent_s)

    def look(self) -> Look:
        """Return what drawing needs."""
        if self.model.site is not None and self._times.name != self.model.site.timezone:
            self._times = Times(self.model.site.timezone)
        return Look(self.model, self._times, self.model.now_ms(self._clock()))

    def now_s(self) -> float:
        """Return the screen's own seconds."""
        return self._clock()

    # ------------------------------------------------------------------ what a person does

    def silence(self) -> None:
        """Silence the bell for a while."""
        self.bell_rule.silence(self._clock())
        self.draw()

    def action_leave(self) -> None:
        """Ask, then quit; without contact the second time quits."""
        if self.screen is self._lost:
            self._lost.action_leave()
        elif not isinstance(self.screen, Question):
            asked = Drawn(say("退出监视画面？", "Leave the screen?"), style="bold")
            unacked = self.model.unacked()
            if unacked:
                asked.append(say(f"\n还有 {unacked} 条报警未确认。", f"\n{unacked} alarms are not acknowledged."), WARN)
            after = say("退出后本机不再响铃，网关照常运行。", "This terminal will ring no more; the gateway runs on.")
            asked.append(f"\n{after}", "not bold")
            keys = say("y/Enter 退出   n/Esc 留下", "y/Enter: leave   n/Esc: stay")
            self.push_screen(Question(asked, keys), lambda yes: self.exit() if yes else None)

    def send_act(self, alarm_id: str, act: str, body: Mapping[str, str]) -> None:
        """Ask the gateway for an act; what comes of it shows when it answers."""
        if alarm_id in self._acting or len(self._acting) >= ACTS_MAX:
            self._main.say(say("上一个操作还在等待网关回答", "an earlier act still waits for its answer"), WARN)
            return
        self._acting.add(alarm_id)
        self._sent[alarm_id] = act
        self.run_worker(self._act(alarm_id, act, body), name=f"watch-act-{act}", exit_on_error=True)

    def acts_done(self) -> dict[str, str]:
        """Return, once, which acts sent from here the list now shows done: the act by the alarm's id."""
        done = {id_: act for id_, act in self._sent.items() if self.model.shows_done(id_, act)}
        for id_ in done:
            del self._sent[id_]
        return done

    async def _act(self, alarm_id: str, act: str, body: Mapping[str, str]) -> None:
        alarm = self.model.alarms.get(alarm_id)
        subject = f"{alarm.tag} {words.limit(alarm)}" if alarm else alarm_id
        what = f"{say(*ACT_WORDS[act])} {subject}"

        def seen() -> str | None:
            told = say(f"{what}：列表显示已执行", f"{what}: the list shows it done")
            return told if self.model.shows_done(alarm_id, act) else None

        self._main.say(say(f"{what}：等待网关……", f"{what}: waiting for the gateway …"))
        known = True
        try:
            answer = await self._client.act(alarm_id, act, body)
            done = answers.read_alarm(take(answer, "alarm"))
        except RefusedError as error:
            known, style = not error.perhaps_done, BAD
            if known:
                told = say(f"{what}：没有执行。{error}", f"{what}: not done. {error}")
                self._sent.pop(alarm_id, None)
            else:
                told = say(f"{what}：结果未知。{error}", f"{what}: not known whether done. {error}")
        except (ClientError, AnswerError) as error:
            known, style = False, BAD
            told = say(f"{what}：结果未知（{error}），以列表为准",
                       f"{what}: not known whether done ({error}); the list tells")  # fmt: skip
        else:
            self.model.alarm_changed(done)
            told, style = say(f"{what}：网关已执行", f"{what}: the gateway has done it"), GOOD
        finally:
            self._acting.discard(alarm_id)
        look = self.look()
        self._main.say(f"{look.times.of_day(look.now_ms)} {told}", style, (lambda: None) if known else seen)
        self.draw_soon()
