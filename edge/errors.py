"""What can go wrong at the edge, one class per decision its caller has to take.

    EdgeError
    ├── PlanError                 a register map that no sequence of reads can serve: refused at start
    └── FieldLinkError            no usable answer: the poller marks the tags BAD and goes on
        ├── BusDownError          no connection now; nobody was asked
        ├── ConnectionDroppedError  the connection ended before the answer
        ├── ReadTimeoutError      connected, but no answer in time
        └── ExceptionReplyError   the device answered, and refused
"""

from __future__ import annotations


class EdgeError(Exception):
    """Anything this package raises on purpose."""


class PlanError(EdgeError):
    """A point cannot be read under the device's limits. A configuration fault: the edge does not start."""

    def __init__(self, tag: str, width: int, registers_max: int) -> None:
        self.tag, self.width, self.registers_max = tag, width, registers_max
        super().__init__(
            f"{tag}: takes {width} registers, but its device allows {registers_max} in one request; "
            f"raise registers_max, a value is never read in two halves"
        )


class FieldLinkError(EdgeError):
    """The instrument gave no usable answer. Expected: the poller marks its tags BAD and retries."""


class BusDownError(FieldLinkError):
    """There is no connection, and the next attempt is not due or has just failed."""

    def __init__(self, bus: str, host: str, port: int, cause: str, retry_s: float) -> None:
        self.bus, self.host, self.port, self.cause, self.retry_s = bus, host, port, cause, retry_s
        super().__init__(
            f"{bus}: no connection to {host}:{port} ({cause}); next attempt in {retry_s:.1f} s; "
            f"check power, cable and port, and whether the device accepts one more connection"
        )


class ConnectionDroppedError(FieldLinkError):
    """The connection was closed or reset while an answer was awaited."""

    def __init__(self, bus: str, cause: str) -> None:
        self.bus, self.cause = bus, cause
        super().__init__(f"{bus}: connection lost before the answer ({cause}); reconnecting")


class ReadTimeoutError(FieldLinkError):
    """The request went out, and nothing that matches it came back in time."""

    def __init__(self, bus: str, unit: int, address: int, timeout_s: float) -> None:
        self.bus, self.unit, self.address, self.timeout_s = bus, unit, address, timeout_s
        super().__init__(
            f"{bus}: unit {unit} gave no reply for address {address} in {timeout_s:g} s; "
            f"check wiring and unit id, or raise the device's timeout_s"
        )


class ExceptionReplyError(FieldLinkError):
    """The device answered with a Modbus exception (`exception_code` 0…255)."""

    def __init__(
        self, bus: str, unit: int, address: int, count: int, exception_code: int, meaning: str
    ) -> None:
        self.bus, self.unit, self.address, self.count = bus, unit, address, count
        self.exception_code, self.meaning = exception_code, meaning
        super().__init__(
            f"{bus}: unit {unit} refused addresses {address} to {address + count - 1} "
            f"with Modbus exception {exception_code} ({meaning})"
        )
