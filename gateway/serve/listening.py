"""Where serve listens: the address, TLS, and the names it answers under."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.serve.errors import InsecureHostError, ListenError, TlsFilesError
from gateway.serve.recent import BYTES_MAX

BACKLOG: Final = 128
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Where to listen.

    Attributes:
        host: an address of this machine; one that is not loopback needs both TLS files.
        port: 0 takes a free one, told in `serve.json` in the folder.
        names: further host names clients may use for this server.
        recent_bytes: what the newest frames may take in memory; history older than they costs reads of the ledger.
    """

    host: str = "127.0.0.1"
    port: int = 8580
    tls_cert: Path | None = None
    tls_key: Path | None = None
    names: tuple[str, ...] = ()
    recent_bytes: int = BYTES_MAX

    @property
    def bracketed(self) -> str:
        """The host as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def hosts(self) -> frozenset[str]:
        """Return the names this server answers under."""
        return frozenset(name.lower() for name in (self.bracketed, *LOOPBACK_NAMES, *self.names))

    def url(self, port: int) -> str:
        """Return the address of this server."""
        return f"{'https' if self.tls_cert else 'http'}://{self.bracketed}:{port}"


def check_secure(settings: ServeSettings) -> None:
    """Refuse what would let tokens cross a network in clear.

    Raises:
        InsecureHostError, TlsFilesError: it would, or the files that should prevent it cannot be used.
    """
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None or key is None:
        if cert is not None or key is not None:
            raise TlsFilesError(cert or key or Path(), "certificate and key belong together")
        if not _loopback(settings.host):
            raise InsecureHostError(settings.host)
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise TlsFilesError(cert, getattr(error, "strerror", None) or str(error)) from None


def listen(settings: ServeSettings) -> socket.socket:
    """Return a listening socket.

    Raises:
        ListenError: the address is taken, or not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ListenError(settings.host, settings.port, error.strerror or str(error)) from None
    return listening


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
