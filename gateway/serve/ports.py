"""What the API needs of others, as it sees them: the read model, the history, and core's operator socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Protocol

from gateway.historian.samples import Samples
from gateway.historian.store import AlarmEvent
from gateway.serve.models import (
    AlarmListing,
    AlarmPage,
    AlarmView,
    Changes,
    EdgeNow,
    Health,
    History,
    NoticePage,
    NoticeState,
    ReceiverNow,
    TagNow,
    WindowList,
)


class View(Protocol):
    """`view.LedgerView`. Every method may block on the disk, some for at most `within_s`: only threads call them."""

    def refresh(self) -> Changes:
        """Read what is new."""
        ...

    def health(self) -> Health:
        """How the chain stands."""
        ...

    def tags(self, only: Collection[str] | None = None) -> Sequence[TagNow]:
        """Every tag, or these, in the site's order."""
        ...

    def tag(self, tag_id: str) -> TagNow | None:
        """One tag."""
        ...

    def alarms(
        self, *, state: AlarmListing = "open", grade_min: int = 1, tag: str | None = None, before: str | None = None,
        limit: int = 200,
    ) -> AlarmPage:
        """A page of alarms."""
        ...  # fmt: skip

    def alarm(self, alarm_id: str, within_s: float = ...) -> AlarmView | None:
        """One alarm with its transitions."""
        ...

    def deliveries(self, within_s: float = ...) -> Sequence[ReceiverNow]:
        """Every receiver."""
        ...

    def notices(
        self, *, receiver: str | None = None, state: NoticeState | None = None, before: str | None = None, limit: int = 100
    ) -> NoticePage:
        """A page of notices."""
        ...

    def edges(self, only: Collection[str] | None = None, within_s: float = ...) -> Sequence[EdgeNow]:
        """Every edge, or these."""
        ...


class Historian(Protocol):
    """`history.HistoryReader`."""

    def knows(self, tag_id: str, deadline_s: float = ...) -> bool:
        """Whether the site has a tag, or the ledger has had it."""
        ...

    def history(self, tag_id: str, from_ms: int, to_ms: int, points_max: int, deadline_s: float) -> History:
        """One tag's samples in a range of source time."""
        ...

    def range(self, tag: str, from_ms: int, to_ms: int, rows_max: int = ..., deadline_s: float = ...) -> Samples:
        """Every sample of a tag in a range of source time."""
        ...

    def windows(
        self, tag_ids: Sequence[str], from_ms: int, to_ms: int, width_ms: int, columns: Sequence[str], deadline_s: float
    ) -> WindowList:
        """Aggregates by window of several tags."""
        ...

    def events(self, from_ms: int, to_ms: int, tag: str | None, rows_max: int, deadline_s: float) -> list[AlarmEvent]:
        """Transitions of alarms in a range of time, oldest first."""
        ...

    def status(self) -> dict[str, Any] | None:
        """What the keeper of the segments wrote last."""
        ...


SendAct = Callable[[dict[str, str]], Awaitable[dict[str, Any]]]
"""Sends one act to core and returns its answer; raises ActsSocketError where core is not there."""
