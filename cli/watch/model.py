"""What the screen knows: REST answers and stream events folded into one picture. Pure: times are passed in.

Two rules keep it honest. The picture counts as current only while events arrive (`lost`), and once it was lost, only a
whole reload makes it current again. An alarm's highest revision is the truth, so nothing that comes late or twice can
bring back what was left behind.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from cli.watch import answers
from cli.watch.answers import Alarm, Edge, Health, Me, Receiver, Site, Tag
from cli.watch.fields import AnswerError, entries
from cli.watch.sse import SseEvent

ALARMS_MAX: Final = 5_000
ALARMS_REFILL: Final = 4_000
TAGS_MAX: Final = 100_000
ENDED_MAX: Final = 10_000
LOST_S: Final = 3.0
DIFFERS_MAX: Final = 3
"""So many healths in a row with another count of standing alarms than ours are no race any more."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything one reload brings."""

    me: Me
    site: Site
    health: Health
    alarms: tuple[Alarm, ...]
    alarms_cut: bool
    tags: tuple[Tag, ...]
    receivers: tuple[Receiver, ...]
    edges: tuple[Edge, ...]


class Model:
    """The picture, and how far it can be trusted.

    Attributes:
        complete: a reload has been folded and nothing happened since that asks for another.
        failure: why there is no contact, in words; empty while there is.
        refused: there is contact, but the gateway does not give what is needed.
        token_refused: … because it does not accept the token.
        position: id of the last event, from which the stream can resume.
        alarms_cut: the gateway has more open alarms than are held here.
        differs: for some seconds now the gateway has counted other standing alarms than are held here.
        invalid: number of tags without a value that somebody may rely on.
        loads: number of reloads so far.
    """

    def __init__(self) -> None:
        self.me: Me | None = None
        self.site: Site | None = None
        self.health: Health | None = None
        self.alarms: dict[str, Alarm] = {}
        self.tags: dict[str, Tag] = {}
        self.receivers: tuple[Receiver, ...] = ()
        self.edges: tuple[Edge, ...] = ()
        self.complete = False
        self.alarms_cut = False
        self.failure = ""
        self.refused = False
        self.token_refused = False
        self.position: str | None = None
        self.invalid = 0
        self.loads = 0
        self._health_s = 0.0
        self._different = 0
        self._current_s: float | None = None
        self._ended: OrderedDict[str, int] = OrderedDict()
        self._ordered: list[Alarm] | None = None

    # ------------------------------------------------------------------ contact

    def lost(self, now_s: float) -> bool:
        """Whether what is held is not the present; once it is so, only a reload ends it."""
        if self._current_s is None:
            return True
        if now_s - self._current_s > LOST_S:
            self.complete = False
            return True
        return False

    def silence_s(self, now_s: float) -> float | None:
        """Seconds since the picture was last current; None if it never was."""
        return None if self._current_s is None else max(0.0, now_s - self._current_s)

    def ask_for_reload(self) -> None:
        """Have everything read anew; the picture ages from here on."""
        self.complete = False

    # ------------------------------------------------------------------ folding

    def load(self, picture: Picture, now_s: float) -> None:
        """Take a reload in place of all that was known."""
        self.me, self.site = picture.me, picture.site
        self._health_came(picture.health, now_s)
        self.alarms = {alarm.id: alarm for alarm in picture.alarms if not alarm.closed}
        self.tags = {tag.id: tag for tag in picture.tags}
        self.receivers, self.edges = picture.receivers, picture.edges
        self.alarms_cut = picture.alarms_cut
        self.invalid = sum(tag.missing for tag in self.tags.values())
        self._ended.clear()
        self._ordered = None
        self.loads += 1
        self.complete, self.failure, self._current_s = True, "", now_s
        self.refused = self.token_refused = False

    def fold(self, event: SseEvent, now_s: float) -> None:
        """Take one event. An event of an unknown name is a sign of life and nothing else.

        Raises:
            AnswerError: the event is not what the API promises.
        """
        body = _parse(event)
        if event.name == "reset":
            self.position = None
            self.ask_for_reload()
        elif event.name == "alarms":
            for item in entries(body):
                self.alarm_changed(answers.read_alarm(item))
            self._cut()
        elif event.name == "values":
            for item in entries(body):
                self._tag_changed(answers.read_tag(item))
        elif event.name == "edges":
            self._edges_changed([answers.read_edge(item) for item in entries(body)])
        elif event.name == "deliveries":
            self.receivers = tuple(answers.read_receiver(item) for item in entries(body))
        elif event.name == "health":
            self._health_came(answers.read_health(body), now_s)
            self._compare()
        if event.id and event.name != "reset":
            self.position = event.id
        if self.complete and not self.lost(now_s):
            self._current_s = now_s

    def alarm_changed(self, alarm: Alarm) -> None:
        """Take an alarm's new state, unless a later one is known."""
        known = self.alarms.get(alarm.id)
        if alarm.revision < max(known.revision if known else 0, self._ended.get(alarm.id, 0)):
            return
        self._ordered = None
        if not alarm.closed:
            if alarm.id not in self._ended:
                self.alarms[alarm.id] = alarm
            return
        self.alarms.pop(alarm.id, None)
        self._ended[alarm.id] = alarm.revision
        if len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)
        if self.alarms_cut and len(self.alarms) < ALARMS_REFILL:
            self.ask_for_reload()

    def _cut(self) -> None:
        """Let go of what stands last, once for a whole event: a flood brings thousands."""
        if len(self.alarms) > ALARMS_MAX:
            self.alarms = {alarm.id: alarm for alarm in self.in_order()[:ALARMS_MAX]}
            self._ordered, self.alarms_cut = None, True

    def _tag_changed(self, tag: Tag) -> None:
        known = self.tags.get(tag.id)
        if known is None and len(self.tags) >= TAGS_MAX:
            return
        self.invalid += tag.missing - (known is not None and known.missing)
        self.tags[tag.id] = tag

    def _edges_changed(self, changed: list[Edge]) -> None:
        edges = {edge.id: edge for edge in self.edges} | {edge.id: edge for edge in changed}
        self.edges = tuple(edges.values())

    def _health_came(self, health: Health, now_s: float) -> None:
        self.health, self._health_s = health, now_s

    def _compare(self) -> None:
        """Hold the list against the gateway's own count; where it stays different, read everything again, once."""
        assert self.health is not None
        ours = Counter(alarm.grade for alarm in self.alarms.values() if alarm.active and not alarm.late)
        whole = self.complete and not self.alarms_cut and "alarms.too_many" not in self.health.reasons
        self._different = self._different + 1 if whole and ours != Counter(self.health.standing) else 0
        if self._different == DIFFERS_MAX:
            self.ask_for_reload()

    # ------------------------------------------------------------------ questions

    @property
    def differs(self) -> bool:
        """See the class."""
        return self._different > DIFFERS_MAX

    def now_ms(self, now_s: float) -> int:
        """Return the gateway's time, UTC epoch ms: this machine's own clock may be wrong. 0 before the first contact."""
        if self.health is None:
            return 0
        return self.health.at_ms + int((now_s - self._health_s) * 1000)

    def in_order(self) -> list[Alarm]:
        """The open alarms in the API's order: unacknowledged first, then the gravest, then what stands, the newest."""
        if self._ordered is None:
            self._ordered = sorted(self.alarms.values(), key=_need, reverse=True)
        return self._ordered

    def unacked(self) -> int:
        """How many open alarms nobody has acknowledged."""
        return sum(not alarm.acked for alarm in self.alarms.values())

    def by_grade(self) -> tuple[Counter[int], Counter[int]]:
        """Count by grade the open alarms that stand, and those that nobody has acknowledged."""
        alarms = self.alarms.values()
        return (
            Counter(alarm.grade for alarm in alarms if alarm.active),
            Counter(alarm.grade for alarm in alarms if not alarm.acked),
        )

    def shows_done(self, id_: str, act: str) -> bool:
        """Whether the list shows what an act, `acknowledge` or `close`, would have done to this alarm."""
        alarm = self.alarms.get(id_)
        if alarm is None:  # where the list was cut, it may only have lost its place
            return id_ in self._ended or not self.alarms_cut
        return act == "acknowledge" and alarm.acked

    def down(self) -> list[str]:
        """Receivers that are down, or of which nobody knows."""
        return [receiver.id for receiver in self.receivers if receiver.down is not False]

    def offline(self) -> list[str]:
        """Edges whose session does not stand, or of which nobody knows."""
        return [edge.id for edge in self.edges if not edge.online]

    @property
    def values_hold(self) -> bool:
        """Core turns, so a value is as new as it says."""
        return self.health is not None and self.health.core == "running"

    @property
    def calm_is_known(self) -> bool:
        """An empty list means that there is nothing: nothing of the chain is degraded, and every tag has a value."""
        if self.health is None or not self.values_hold or self.health.degraded:
            return False
        return self.invalid == 0 and self._different == 0


def _need(alarm: Alarm) -> tuple[bool, int, bool, int, str]:
    return not alarm.acked, alarm.grade, alarm.active, alarm.start_ms, alarm.id


def _parse(event: SseEvent) -> Any:
    try:
        return json.loads(event.text)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"event {event.name[:50]!r} is no JSON") from error


def matching(texts: Iterable[tuple[str, str]], wanted: str) -> list[str]:
    """Return the ids whose text holds `wanted`, in whatever case."""
    wanted = wanted.casefold()
    return [id_ for id_, text in texts if wanted in text.casefold()]
