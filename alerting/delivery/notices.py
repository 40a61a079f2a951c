"""Which receiver is told what: subscriptions by grade, category and region. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from alerting.alarm import Transition
from alerting.delivery.outbox import Notice, notice_id
from alerting.delivery.render import message
from alerting.delivery.words import SiteWords
from config import Grade, ReceiverConfig, SiteConfig


class NoticePlanner:
    """Turns transitions into notices for one site's receivers."""

    def __init__(self, receivers: Sequence[ReceiverConfig], region: str, words: SiteWords) -> None:
        """Args: region: the site's codes joined by '/', city first."""
        self._receivers, self._region, self._words = tuple(receivers), region, words
        self._wanting: dict[tuple[int, str], tuple[str, ...]] = {}

    @classmethod
    def compile(cls, site: SiteConfig) -> NoticePlanner:
        """Build the planner of a checked site."""
        return cls(site.receivers, site.region.path, SiteWords.compile(site))

    def plan(self, transitions: Iterable[Transition], created_ms: int) -> list[Notice]:
        """Return the notices of transitions, in their order, one per receiver that wants it.

        Every step of an alarm goes to the receivers that want its grade and category. The same
        transition gives the same notice ids, however often it is planned.

        Args:
            created_ms: UTC epoch ms.
        """
        notices = []
        for step in transitions:
            wanting = self._receivers_of(step.alarm.grade, str(step.alarm.category))
            if not wanting:
                continue
            body, lane = message(step, self._words), Grade(step.alarm.grade).word
            notices += [
                Notice(
                    notice_id(step.id, step.revision, receiver),
                    step.id,
                    step.alarm_id,
                    step.revision,
                    receiver,
                    lane,
                    created_ms,
                    body,
                )
                for receiver in wanting
            ]
        return notices

    def _receivers_of(self, grade: int, category: str) -> tuple[str, ...]:
        known = self._wanting.get((grade, category))
        if known is None:
            known = tuple(r.id for r in self._receivers if r.wants(Grade(grade), category, self._region))
            self._wanting[grade, category] = known
        return known


def plan(transitions: Iterable[Transition], site: SiteConfig, created_ms: int) -> list[Notice]:
    """Plan notices once, without keeping the planner."""
    return NoticePlanner.compile(site).plan(transitions, created_ms)
