"""What core's own trouble explains: an edge that gets no acknowledgement because of it has no blocked transport.

Each edge would say so by itself, one alarm a node for one fault of the gateway, which its own alarm tells. Its word is
kept back while the trouble lasts and a minute longer; if it has not taken it back by then, it is told after all. Times
are engine milliseconds, passed in.
"""

from __future__ import annotations

from typing import Final

EXPLAINS_MS: Final = 60_000  # acknowledgements go out once a second, and an edge misses them after 5 s
OWN_KEYS: Final = frozenset({"CORE.LEDGER.WRITE", "CORE.EVALUATOR.STALLED"})


class OwnTrouble:
    """When core was last in trouble, and which nodes' blocked transport it has explained since."""

    def __init__(self, start_ms: int) -> None:
        """A core that starts has been in trouble: it was not there."""
        self._seen_ms = start_ms
        self._blocked: dict[str, None] = {}  # in order

    def seen(self, now_ms: int) -> None:
        """Core acknowledges nothing, or did not until now."""
        self._seen_ms = now_ms

    def explains(self, now_ms: int) -> bool:
        """Tell whether a node that misses acknowledgements now may miss them because of it."""
        return now_ms - self._seen_ms < EXPLAINS_MS

    def blocked(self, node: str, now_ms: int) -> bool:
        """A node says that its transport is blocked: tell whether that is explained, and need not be told yet."""
        if not self.explains(now_ms):
            return False
        self._blocked[node] = None
        return True

    def free(self, node: str) -> None:
        """A node's transport is not blocked, or its session is over: another birth says how it is then."""
        self._blocked.pop(node, None)

    def unexplained(self, now_ms: int) -> list[str]:
        """Return the nodes whose transport is blocked still, although the trouble is over; once each."""
        if self.explains(now_ms):
            return []
        nodes, self._blocked = list(self._blocked), {}
        return nodes
