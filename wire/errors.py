"""Everything `wire` can raise, as one tree.

    WireError
    ├── MalformedPayloadError       a Sparkplug payload that breaks the format (quarantine it)
    ├── OversizePayloadError        over one of the caps, whatever it holds (drop it)
    ├── MalformedTopicError         a topic or an id that is not Sparkplug's (ignore or refuse)
    ├── MalformedStateError         a STATE payload that is not the two-member JSON object
    ├── MalformedReceivedError      a stored record of received numbers that contradicts itself
    ├── IntervalsFullError          a 65th interval would be needed (evaluate, but do not count)
    ├── ShapeMismatchError          columns of one batch differ in length or type: a bug on our side
    ├── BlockError, MqttError …     defined beside the spool blocks and the MQTT shell

All but `ShapeMismatchError` are expected in the field: the caller turns them into a quality, a quarantined
frame or a retry, and the rest carries on.
"""

from __future__ import annotations


class WireError(Exception):
    """Base of every error this package raises."""


class MalformedPayloadError(WireError):
    """The bytes are not a Sparkplug B payload we can trust. `reason` is short, ASCII and safe to log."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"malformed Sparkplug payload: {reason}")


class OversizePayloadError(WireError):
    """The payload is over a cap: `quantity` (bytes, metrics, depth …) is `found`, `limit` is allowed."""

    def __init__(self, quantity: str, found: int, limit: int) -> None:
        self.quantity, self.found, self.limit = quantity, found, limit
        super().__init__(f"payload over its cap: {found} {quantity}, at most {limit} are taken")


class MalformedTopicError(WireError):
    """A topic outside the Sparkplug namespace's grammar, or an id that cannot stand in one."""

    def __init__(self, topic: str, reason: str) -> None:
        # A hostile topic must not write log lines of its own, so what is shown is escaped and short.
        self.topic, self.reason = topic, reason
        super().__init__(f"{topic[:80]!a}: {reason}")


class MalformedStateError(WireError):
    """A STATE payload that is not `{"online": bool, "timestamp": milliseconds}`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"malformed STATE payload: {reason}")


class MalformedReceivedError(WireError):
    """A stored `Received` record that is not JSON of the right shape, or contradicts itself."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"stored record of received numbers: {reason}; restore it from the last snapshot")


class IntervalsFullError(WireError):
    """A stream has so many holes that one more interval would pass the limit; nothing was recorded."""

    def __init__(self, lo: int, hi: int, limit: int) -> None:
        self.lo, self.hi, self.limit = lo, hi, limit
        super().__init__(f"numbers {lo}..{hi} would need more than {limit} intervals; "
                         "they are not counted and will be sent again")


class ShapeMismatchError(WireError):
    """The columns of one batch do not belong together."""

    def __init__(self, column: str, expected: str, found: str) -> None:
        self.column, self.expected, self.found = column, expected, found
        super().__init__(f"column {column}: expected {expected}, found {found}")
