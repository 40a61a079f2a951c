"""Ports for servers that start a while after their port was chosen, or again and again on the same one.

A port that the kernel gives is free at that moment alone: it gives the next one, for a listener of another process or for
the near end of any connection, out of the same range. These here lie below that range, and two processes that choose at
the same time hardly ever choose the same.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST, _HIGHEST = 20_000, 32_767  # below Linux's own range, if nothing says where that begins
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_chosen: set[int] = set()
_random = random.SystemRandom()  # tests that seed the common one would all choose alike


def free_port() -> int:
    """Return a loopback port that nobody listens on, and that this process was not given before.

    Raises:
        OSError: there is none.
    """
    try:
        highest = min(_HIGHEST, int(_RANGE.read_text("ascii").split()[0]) - 1)
    except (OSError, ValueError, IndexError):
        highest = _HIGHEST
    for _ in range(1_000):
        port = _random.randint(_LOWEST, highest) if highest > _LOWEST else 0
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
        if found not in _chosen:
            _chosen.add(found)
            return found
    raise OSError(f"no free port of loopback from {_LOWEST} to {highest}")
