"""All nodes' sessions together: which node a message is for, who is overdue, what the heartbeat shows.

Pure but for its counters. A node that is no edge of this site gets no session: its values could only be somebody
else's tags.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import Any, Final

from config import SiteConfig
from gateway.core.facts import Fact, FrameArrived, NodeDied, Refused, Suspicion
from gateway.core.host import NodeSession
from gateway.core.machine import Machine
from wire import DataColumns, MalformedTopicError, PayloadLimits, parse_topic

STRANGER: Final = "NODE"
STRANGER_EVERY_MS: Final = 60_000
UNBORN_ASKED_MS: Final = 3_000  # nodes of ours are back within 2 s
DEATHS_MAX: Final = 4  # so many of one node's sessions ended
DEATHS_WITHIN_MS: Final = 60_000
TOPICS_KEPT: Final = 4_096

_topic_of = lru_cache(TOPICS_KEPT)(parse_topic)  # the same few hundred topics come every second


class Sessions:
    """One `NodeSession` per edge of the site. Times are monotonic milliseconds, passed in."""

    def __init__(self, site: SiteConfig, limits: PayloadLimits, now_ms: int) -> None:
        owned: dict[str, dict[str, int]] = {edge.id: {} for edge in site.edges}
        for tag, edge in site.edge_of.items():
            owned[edge][tag] = site.tag_index[tag]
        self._site = site
        reorder_ms = round(1000 * site.reorder_timeout_s)
        self.nodes = {edge: NodeSession(tags, limits, reorder_ms, site.tag_index) for edge, tags in owned.items()}
        self._deaths_ms: dict[str, deque[int]] = {edge: deque(maxlen=DEATHS_MAX) for edge in owned}
        self._awaited_since_ms = dict.fromkeys(self.nodes, now_ms)
        self._unborn_asked_ms: int | None = None
        self._stranger_said_ms: int | None = None
        self._left: list[tuple[str, Fact]] = []
        self.refused = 0

    def message(
        self, topic_text: str, payload: bytes, now_ms: int, usual: DataColumns | None = None
    ) -> list[tuple[str, Fact]]:
        """Return what one message tells, with the node it is about. `usual`: what `decode_usual` read of the payload."""
        try:
            topic = _topic_of(topic_text)
        except MalformedTopicError:
            self.refused += 1
            return []
        if topic.group != self._site.site:
            return []
        session = self.nodes.get(topic.node)
        if session is None:
            return self._stranger(topic.node, topic_text, now_ms)
        facts = session.message(topic, payload, now_ms, usual)
        if session.online:
            self._awaited_since_ms.pop(topic.node, None)
        if len(facts) == 1 and isinstance(facts[0], FrameArrived):
            return [(topic.node, facts[0])]
        self.refused += sum(isinstance(fact, Refused) for fact in facts)
        if any(isinstance(fact, NodeDied) for fact in facts):
            facts = [*facts, *self._breaking_off(topic.node, now_ms)]
        return [(topic.node, fact) for fact in facts]

    def _breaking_off(self, node: str, now_ms: int) -> list[Fact]:
        """Tell when sessions of one node end again and again: two clients with one id throw each other out so."""
        deaths = self._deaths_ms[node]
        deaths.append(now_ms)
        if len(deaths) < DEATHS_MAX or now_ms - deaths[0] > DEATHS_WITHIN_MS:
            return []
        return [Suspicion("TAKEOVER", {"sessions": DEATHS_MAX, "within_s": DEATHS_WITHIN_MS // 1000})]

    def _stranger(self, node: str, topic: str, now_ms: int) -> list[tuple[str, Fact]]:
        """Tell of a node that the site does not know: once a minute, however many names it goes by."""
        self.refused += 1
        if self._stranger_said_ms is not None and now_ms - self._stranger_said_ms < STRANGER_EVERY_MS:
            return []
        self._stranger_said_ms = now_ms
        return [(STRANGER, Suspicion("UNKNOWN", {"node": node, "topic": topic[:200]}))]

    def ended(self) -> list[tuple[str, Fact]]:
        """Return what the loss of our own link ended, once: to be applied before any later message."""
        left, self._left = self._left, []
        return left

    def poll(self, now_ms: int) -> list[tuple[str, Fact]]:
        """Return what time alone brings."""
        facts = [(name, fact) for name, session in self.nodes.items() for fact in session.poll(now_ms)]
        if self._unborn_asked_ms is not None and now_ms >= self._unborn_asked_ms:
            self._unborn_asked_ms = None
            facts += [(name, fact) for name, session in self.nodes.items() for fact in session.unborn(now_ms)]
        return facts

    def unlisted(self, node: str, now_ms: int) -> list[tuple[str, Fact]]:
        """A node sends blocks of a stream that no birth of it listed: ask for one, it may have room for more by now."""
        return [(node, fact) for fact in self.nodes[node].unlisted(now_ms)]

    def link_up(self, now_ms: int) -> None:
        """We are connected: nodes of ours come by themselves, others may have been born before we listened."""
        self._unborn_asked_ms = now_ms + UNBORN_ASKED_MS

    def link_lost(self, now_ms: int) -> None:
        """Our link to the broker is gone: every session is over for us, though the node may be well."""
        self._unborn_asked_ms = None
        for name, session in self.nodes.items():
            if session.lost():
                self._left.append((name, OUR_LINK_LOST))
                self._awaited_since_ms.setdefault(name, now_ms)

    def overdue(self, now_ms: int, grace_ms: int) -> list[str]:
        """Return nodes that were not born within the grace after our start or link loss, once each."""
        late = [name for name, since_ms in self._awaited_since_ms.items() if now_ms - since_ms >= grace_ms]
        for name in late:
            del self._awaited_since_ms[name]
        return late

    def view(self, machine: Machine) -> list[dict[str, Any]]:
        """Return a line per node for the heartbeat."""
        lines = []
        for name, session in self.nodes.items():
            book = machine.node(name).book
            live = book.streams.get(book.live)
            lines.append(
                {
                    "node": name, "online": session.online, "stream": book.live,
                    "upto": live.received.upto if live else 0, "unsettled": len(book.unsettled()),
                }
            )
        return lines


class OurLinkLost(NodeDied):
    """The node's session ended on our side only."""


OUR_LINK_LOST: Final = OurLinkLost()
