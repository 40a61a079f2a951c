"""Which addresses a notice may be sent to. Pure: names are resolved elsewhere, the answers judged here.

https to public addresses is the default. Anything private, loopback or link-local is refused unless the
receiver lists its network; plain http is allowed in those networks only. Cloud metadata services,
multicast and unspecified addresses are refused always. The rules hold when a site is checked and again
for every connection, so a name that moves to another address gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from alerting.delivery.errors import AddressRefusedError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

URL_CHARS_MAX: Final = 2048
REMEDY: Final = "name a public https address, or list its private network in plain_http_ranges"
BROADCAST: Final = ipaddress.IPv4Address("255.255.255.255")
# Only characters of RFC 3986, a host without userinfo, no fragment: what every parser reads the same way.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?)",
    re.ASCII,
)
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_CANONICAL_IPV4 = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*", re.ASCII)
METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.0.23",
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
    )
)
"""Where AWS, Azure, GCP, Tencent and Alibaba serve credentials to the machines they host."""
_NAT64: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A receiver's URL taken apart. `address` is set when the host is a literal address."""

    url: str
    scheme: str
    host: str
    port: int
    address: Address | None

    @property
    def plain(self) -> bool:
        """Sent without TLS."""
        return self.scheme == "http"


def parse_endpoint(url: str) -> Endpoint:
    """Take a URL apart, refusing everything two parsers could read differently.

    Raises:
        AddressRefusedError: another scheme, userinfo, fragment, odd characters, a host that is a number
            in disguise (decimal, octal, hex, short), a bad port.
    """
    if len(url) > URL_CHARS_MAX:
        raise _refused(url, f"longer than {URL_CHARS_MAX} characters", "shorten the url")
    match = _URL.fullmatch(url)
    if match is None:
        raise _refused(
            url, "not a plain http(s) url",
            "write https://host[:port]/path in ASCII, without user name, password or fragment",
        )  # fmt: skip
    scheme, host = match["scheme"], match["host"]
    port = int(match["port"]) if match["port"] else (443 if scheme == "https" else 80)
    if not 1 <= port <= 65535:
        raise _refused(url, f"port {port} does not exist", "use a port from 1 to 65535")
    return Endpoint(url, scheme, host.strip("[]").lower(), port, _literal(url, host))


def _literal(url: str, host: str) -> Address | None:
    """Return the address a host literally is; None for a name."""
    if host.startswith("["):
        try:
            return ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise _refused(url, f"{host} is not an IPv6 address", "correct the address") from None
    labels = host.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # WHATWG: a host whose last label is a number is an IPv4 address, whatever its form.
        if not _CANONICAL_IPV4.fullmatch(host):
            raise _refused(url, f"{host} is an address in disguise", "write it as four decimal numbers")
        try:
            return ipaddress.IPv4Address(host)
        except ValueError:
            raise _refused(url, f"{host} is not an IPv4 address", "correct the address") from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _refused(url, f"{host} is not a host name", "correct the name (punycode for Chinese names)")
    return None


class AddressRules:
    """What one receiver's configuration permits.

    Args:
        listed: networks named by the receiver's configuration; private addresses and plain http
            are permitted inside them and nowhere else.
    """

    __slots__ = ("_listed",)

    def __init__(self, listed: Iterable[Network] = ()) -> None:
        self._listed = tuple(listed)

    def check_url(self, url: str) -> Endpoint:
        """Return the endpoint of a URL that may be tried at all; a name is judged once it is resolved.

        Raises:
            AddressRefusedError
        """
        endpoint = parse_endpoint(url)
        if endpoint.plain and not self._listed:
            raise _refused(url, "plain http is not permitted", "use https, or list the private network")
        if endpoint.address is not None:
            self.check_address(endpoint.address, plain=endpoint.plain)
        elif endpoint.host.removesuffix(".").split(".")[-1] in ("localhost", "localdomain"):
            self.check_address(ipaddress.IPv4Address("127.0.0.1"), plain=endpoint.plain)
        return endpoint

    def check_address(self, address: Address, *, plain: bool) -> None:
        """Raise AddressRefusedError unless this address may be connected to."""
        for inner in _meanings(address):
            reason = self._forbidden(inner, plain=plain)
            if reason is not None:
                shown = str(address) if inner == address else f"{address} (that is {inner})"
                raise _refused(shown, reason, REMEDY)

    def permitted(self, addresses: Sequence[str], *, host: str, plain: bool) -> list[str]:
        """Return those of a name's addresses that may be connected to, in their order.

        Raises:
            AddressRefusedError: none may.
        """
        kept, refused = [], "the name has no address"
        for text in addresses:
            try:
                self.check_address(ipaddress.ip_address(text), plain=plain)
            except AddressRefusedError as error:
                refused = f"resolves to {error.address}: {error.reason}"
            except ValueError:  # a scoped link-local address, fe80::1%eth0
                refused = f"resolves to {text}: link-local"
            else:
                kept.append(text)
        if not kept:
            raise _refused(host, refused, REMEDY)
        return kept

    def _forbidden(self, address: Address, *, plain: bool) -> str | None:
        if address in METADATA:
            return "a metadata service"
        if address.is_unspecified or address.is_multicast or address == BROADCAST:
            return "no address of a single machine"
        if any(address in network for network in self._listed):
            return None
        if plain:
            return "plain http outside the listed private networks"
        if address.is_loopback:
            return "loopback"
        if address.is_link_local:
            return "link-local"
        if not address.is_global or address.is_reserved:
            return "private or reserved"
        return None


def _meanings(address: Address) -> list[Address]:
    """Return the address and the IPv4 address it carries (mapped, compatible, NAT64, 6to4, Teredo).

    A plainly mapped address means only what is inside: the stack connects to that over IPv4.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    inner: list[Address] = [address]
    low = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if any(address in network for network in _NAT64) or (address in _COMPATIBLE and int(address) > 0xFFFF):
        inner.append(low)
    if address.sixtofour is not None:
        inner.append(address.sixtofour)
    if address.teredo is not None:
        inner += address.teredo
    return inner


def _refused(address: str, reason: str, remedy: str) -> AddressRefusedError:
    shown = "".join(c if c.isprintable() else "?" for c in address[:120])
    if "@" in shown:  # what stands before it may be a password
        shown = "…@" + shown.rsplit("@", 1)[1]
    return AddressRefusedError(shown, reason, remedy)
