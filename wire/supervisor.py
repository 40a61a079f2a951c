"""The one datagram a process sends to whoever supervises it: systemd's notification protocol (sd_notify(3)).

The edge's tick, core's watchdog and serve's refresher send it, so that a process whose loop hangs is started anew.
"""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify_systemd(state: str) -> None:
    """Tell systemd, if it started us (NOTIFY_SOCKET); `state` is READY=1, WATCHDOG=1 or STOPPING=1."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)
    except OSError as error:
        log.warning("systemd notification: %s", error)
