"""Counts failed authentications per address. A valid token is never held up: its secret cannot be guessed."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

FAILURES_MAX: Final = 20
WINDOW_S: Final = 60.0
ADDRESSES_MAX: Final = 1_024


@dataclass(slots=True)
class _Failures:
    times: deque[float] = field(default_factory=deque)
    told_s: float | None = None


class Throttle:
    """Failures of the last minute, by address; the minute slides."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._of: OrderedDict[str, _Failures] = OrderedDict()

    def failed(self, address: str) -> tuple[float, bool]:
        """Count a failure.

        Returns:
            For how many seconds more the address has had too many (0: it has not), and whether the audit has been
            told of that within the minute: a flood of failures must not push everything else out of it.
        """
        now, key = self._monotonic(), network_of(address)
        found = self._of.setdefault(key, _Failures())
        self._of.move_to_end(key)
        while found.times and now - found.times[0] >= WINDOW_S:
            found.times.popleft()
        if len(found.times) < FAILURES_MAX:
            found.times.append(now)
            if len(self._of) > ADDRESSES_MAX:
                self._of.popitem(last=False)
            return 0.0, False
        told = found.told_s is not None and now - found.told_s < WINDOW_S
        if not told:
            found.told_s = now
        return WINDOW_S - (now - found.times[0]), told


def network_of(address: str) -> str:
    """Return what one client can have of addresses: an IPv4 address, a /64 of IPv6."""
    try:
        ip = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address[:64]
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)
