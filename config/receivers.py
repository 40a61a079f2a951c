"""Who gets notices: the address, the secret's whereabouts (never the secret), and what is wanted."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from config.model import GRADES, Closed, Flag, Grade, GradeWord, Id, Names, Number, Whole

AlarmCategory = Literal["process", "fault", "system"]
CATEGORIES: tuple[AlarmCategory, ...] = ("process", "fault", "system")
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class BodyRule(Closed):
    """For platforms that answer 200 with an error code in a JSON body."""

    field: str = Field(min_length=1, description="dotted path of the code in the JSON answer: code, or result.status")
    accepted: tuple[str | int | bool, ...] = Field(min_length=1, description="values that mean accepted")
    permanent: tuple[str | int | bool, ...] = Field(default=(), description="values that mean refused for good")


class ReceiverConfig(Closed):
    """One receiver of notices."""

    id: Id
    name: Names
    url: str = Field(description="https://...; http only with plain_http_ranges")
    secret_file: str | None = Field(default=None, min_length=1, description="file that holds the whsec_ secret")
    secret_env: EnvName | None = Field(default=None, description="environment variable that holds it")
    grades: tuple[GradeWord, ...] = Field(default=GRADES, min_length=1, description="which it wants; default all")
    kinds: tuple[AlarmCategory, ...] = Field(
        default=CATEGORIES, min_length=1, description="which it wants; default all"
    )
    region: str | None = Field(
        default=None, description="prefix city/county/park/enterprise of codes; default everywhere"
    )
    regulator: Flag = Field(default=False, description="its notices are never given up")
    plain_http_ranges: tuple[str, ...] = Field(
        default=(), max_length=16, description="private networks (CIDR) in which http without TLS is allowed"
    )
    ca_file: str | None = Field(default=None, min_length=1, description="own certificate authority")
    timeout_s: Number = Field(default=15.0, ge=1, le=60, description="for one whole attempt")
    ok_statuses: tuple[Annotated[Whole, Field(ge=200, le=299)], ...] = Field(
        default=(), description="statuses that mean accepted; default any 2xx"
    )
    body_rule: BodyRule | None = None

    @field_validator("plain_http_ranges")
    @classmethod
    def _private_networks(cls, ranges: tuple[str, ...]) -> tuple[str, ...]:
        for text in ranges:
            try:
                network = ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(f"{text!r} is not a network such as 10.20.0.0/16: {error}") from error
            if not network.is_private or network.is_unspecified or network.is_link_local or network.prefixlen == 0:
                raise ValueError(f"{text!r} is not a private network; http without TLS is for those alone")
        return ranges

    @model_validator(mode="after")
    def _address_and_secret(self) -> ReceiverConfig:
        _check_url(self.url, self.http_networks())
        if (self.secret_file is None) == (self.secret_env is None):
            raise ValueError("give either secret_file or secret_env: where the signing secret stands")
        return self

    def http_networks(self) -> tuple[Network, ...]:
        """Return plain_http_ranges as networks."""
        return tuple(ipaddress.ip_network(text) for text in self.plain_http_ranges)

    def accepts_status(self, status: int) -> bool:
        """Whether an HTTP status means accepted (before any body rule)."""
        return status in self.ok_statuses if self.ok_statuses else 200 <= status <= 299

    def wants(self, grade: Grade, category: str, region: str = "") -> bool:
        """Whether it gets notices of this grade and category from this region (codes joined by '/')."""
        covered = self.region is None or region == self.region or region.startswith(self.region + "/")
        return grade in self.grades and category in self.kinds and covered


_NUMBER_LIKE = re.compile(r"(?:0x[0-9a-f]+|[0-9]+)(?:\.(?:0x[0-9a-f]+|[0-9]+)){0,3}", re.IGNORECASE)


def _check_url(url: str, http_networks: tuple[Network, ...]) -> None:
    """Raise ValueError unless `url` is one we may post to. Names are checked again when they are resolved."""
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in url) or "\\" in url:
        raise ValueError("the url holds a space, a control character or a backslash")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("the url must begin with https:// (or http:// inside plain_http_ranges)")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the url holds a user name or password; the signature identifies us, remove it")
    if parts.fragment or not parts.hostname:
        raise ValueError("the url needs a host and no fragment (#...)")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError("the url's port is not a number from 1 to 65535") from error
    if port == 0:
        raise ValueError("the url's port is not a number from 1 to 65535")
    if parts.scheme == "http" and not http_networks:
        raise ValueError(
            "http without TLS needs plain_http_ranges with this receiver's private network; else use https"
        )
    try:
        address = ipaddress.ip_address(parts.hostname)
    except ValueError:
        if _NUMBER_LIKE.fullmatch(parts.hostname):
            raise ValueError("write the address as four plain decimal numbers, or use a name") from None
        return
    _check_address(address, parts.scheme, http_networks)


def _check_address(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, scheme: str, http_networks: tuple[Network, ...]
) -> None:
    plain = getattr(address, "ipv4_mapped", None) or address
    if plain.is_unspecified or plain.is_multicast or plain.is_link_local:
        raise ValueError(f"{address} is not an address a receiver can have")
    if scheme == "http" and not any(plain in network for network in http_networks):
        raise ValueError(f"{address} is outside plain_http_ranges; use https, or name its private network there")
