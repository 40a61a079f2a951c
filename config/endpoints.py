"""Which addresses a notice may be sent to. Pure: names are resolved elsewhere, the answers judged here.

https to public addresses is the default. Anything private, loopback or link-local is refused unless the
receiver lists its network: in `private_ranges` for https, in `plain_http_ranges` for http too. Cloud metadata
services, multicast and unspecified addresses are refused always. One judge for both: what a site file says is
refused when it is checked, and every connection is judged again, so a name that moves to another address gains
nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from config.problems import ConfigError, Words

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

URL_CHARS_MAX: Final = 2048
LIST_FOR_HTTPS: Final[Words] = (
    "if the receiver stands in a private network, list that network in private_ranges",
    "若接收方在专用网络内，请把该网络写入 private_ranges",
)
LIST_FOR_HTTP: Final[Words] = (
    "use https, or list the receiver's private network in plain_http_ranges",
    "请改用 https，或把接收方所在专用网络写入 plain_http_ranges",
)
NEVER: Final[Words] = ("no setting allows it; enter the receiver's own address", "任何设置都不允许；请填写接收方自己的地址")
CORRECT: Final[Words] = ("correct the address", "请改正地址")
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


class AddressRefusedError(ConfigError):
    """A receiver must not be reached at this address. Found when a site is checked and again at connect."""

    def __init__(self, address: str, reason: Words, remedy: Words) -> None:
        self.address, self.remedy = address, remedy[0]
        self.reason, self.reason_zh = reason
        super().__init__(f"{address}: {reason[0]}; {remedy[0]}", f"{address}：{reason[1]}；{remedy[1]}")


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
        raise _refused(
            url, (f"longer than {URL_CHARS_MAX} characters", f"超过 {URL_CHARS_MAX} 个字符"), ("shorten the url", "请缩短")
        )
    match = _URL.fullmatch(url)
    if match is None:
        raise _refused(
            url, ("not a plain http(s) url", "不是普通的 http(s) 网址"),
            ("write https://host[:port]/path in ASCII, without user name, password or fragment (#...)",
             "请用 ASCII 写成 https://主机[:端口]/路径，不带用户名、口令和 #"),
        )  # fmt: skip
    scheme, host = match["scheme"], match["host"]
    port = int(match["port"]) if match["port"] else (443 if scheme == "https" else 80)
    if not 1 <= port <= 65535:
        raise _refused(
            url, (f"port {port} does not exist", f"没有端口 {port}"), ("use a port from 1 to 65535", "端口应在 1 到 65535 之间")
        )
    return Endpoint(url, scheme, host.strip("[]").lower(), port, _literal(url, host))


def _literal(url: str, host: str) -> Address | None:
    """Return the address a host literally is; None for a name."""
    if host.startswith("["):
        try:
            return ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise _refused(url, (f"{host} is not an IPv6 address", f"{host} 不是 IPv6 地址"), CORRECT) from None
    labels = host.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # WHATWG: a host whose last label is a number is an IPv4 address, whatever its form.
        if not _CANONICAL_IPV4.fullmatch(host):
            raise _refused(
                url, (f"{host} is an address in disguise", f"{host} 是变形写法的地址"),
                ("write it as four decimal numbers", "请写成四个十进制数"),
            )  # fmt: skip
        try:
            return ipaddress.IPv4Address(host)
        except ValueError:
            raise _refused(url, (f"{host} is not an IPv4 address", f"{host} 不是 IPv4 地址"), CORRECT) from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _refused(
            url, (f"{host} is not a host name", f"{host} 不是主机名"),
            ("correct the name (punycode for Chinese names)", "请改正主机名 (中文域名用 punycode)"),
        )  # fmt: skip
    return None


class AddressRules:
    """What one receiver's configuration permits.

    Args:
        plain_http: private networks in which http without TLS is permitted, and https as well.
        private: private networks in which https is permitted.
    """

    __slots__ = ("_plain_http", "_private")

    def __init__(self, plain_http: Iterable[Network] = (), private: Iterable[Network] = ()) -> None:
        self._plain_http = tuple(plain_http)
        self._private = (*self._plain_http, *private)

    def check_url(self, url: str) -> Endpoint:
        """Return the endpoint of a URL that may be tried at all; a name is judged once it is resolved.

        Raises:
            AddressRefusedError
        """
        endpoint = parse_endpoint(url)
        if endpoint.plain and not self._plain_http:
            raise _refused(url, ("http without TLS is not permitted", "不允许使用不加密的 http"), LIST_FOR_HTTP)
        if endpoint.address is not None:
            self.check_address(endpoint.address, plain=endpoint.plain)
        elif endpoint.host.removesuffix(".").split(".")[-1] in ("localhost", "localdomain"):
            self.check_address(ipaddress.IPv4Address("127.0.0.1"), plain=endpoint.plain)
        return endpoint

    def check_address(self, address: Address, *, plain: bool) -> None:
        """Raise AddressRefusedError unless this address may be connected to."""
        for inner in _meanings(address):
            forbidden = self._forbidden(inner, plain=plain)
            if forbidden is not None:
                shown = str(address) if inner == address else f"{address} (= {inner})"
                raise _refused(shown, *forbidden)

    def permitted(self, addresses: Sequence[str], *, host: str, plain: bool) -> list[str]:
        """Return those of a name's addresses that may be connected to, in their order.

        Raises:
            AddressRefusedError: none may.
        """
        kept: list[str] = []
        reason = ("the name has no address", "该主机名没有地址")
        for text in addresses:
            try:
                self.check_address(ipaddress.ip_address(text), plain=plain)
            except AddressRefusedError as error:
                reason = (f"resolves to {error.address}: {error.reason}", f"解析为 {error.address}：{error.reason_zh}")
            except ValueError:  # a scoped link-local address, fe80::1%eth0
                reason = (f"resolves to {text}: link-local", f"解析为 {text}：链路本地地址")
            else:
                kept.append(text)
        if not kept:
            raise _refused(host, reason, LIST_FOR_HTTP if plain else LIST_FOR_HTTPS)
        return kept

    def _forbidden(self, address: Address, *, plain: bool) -> tuple[Words, Words] | None:
        """Why not, and what to do; None when permitted."""
        if address in METADATA:
            return ("a cloud's metadata service", "云平台元数据服务地址"), NEVER
        if address.is_unspecified or address.is_multicast or address == BROADCAST:
            return ("no address of a single machine", "不是单台机器的地址"), NEVER
        if any(address in network for network in (self._plain_http if plain else self._private)):
            return None
        if plain:
            return ("http without TLS outside plain_http_ranges", "不加密的 http 超出 plain_http_ranges"), LIST_FOR_HTTP
        if address.is_loopback:
            return ("a loopback address", "本机回环地址"), LIST_FOR_HTTPS
        if address.is_link_local:
            return ("a link-local address", "链路本地地址"), LIST_FOR_HTTPS
        if not address.is_global or address.is_reserved:
            return ("a private or reserved address", "专用或保留地址"), LIST_FOR_HTTPS
        return None


def is_loopback(host: str) -> bool:
    """Whether a host as typed, a name or an address, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


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


def _refused(address: str, reason: Words, remedy: Words) -> AddressRefusedError:
    shown = "".join(c if c.isprintable() else "?" for c in address[:120])
    if "@" in shown:  # what stands before it may be a password
        shown = "…@" + shown.rsplit("@", 1)[1]
    return AddressRefusedError(shown, reason, remedy)
