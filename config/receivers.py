"""Who gets notices: the address, the secret's whereabouts (never the secret), and what is wanted."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import Field, model_validator

from config.endpoints import AddressRefusedError, AddressRules, Network
from config.model import GRADES, Closed, ExplainedError, Flag, Grade, GradeWord, Id, Names, Number, Whole

AlarmCategory = Literal["process", "fault", "system"]
CATEGORIES: tuple[AlarmCategory, ...] = ("process", "fault", "system")
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
# Carrier-grade NAT: private in use, though the registry does not call it so.
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")


class BodyRule(Closed):
    """For platforms that answer 200 with an error code in a JSON body."""

    field: str = Field(min_length=1, description="dotted path of the code in the JSON answer: code, or result.status")
    accepted: tuple[str | int | bool, ...] = Field(min_length=1, description="values that mean accepted")
    permanent: tuple[str | int | bool, ...] = Field(default=(), description="values that mean refused for good")


class ReceiverConfig(Closed):
    """One receiver of notices."""

    id: Id
    name: Names
    url: str = Field(
        description="https://... at a public address; in a private network only with private_ranges or plain_http_ranges"
    )
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
    private_ranges: tuple[str, ...] = Field(
        default=(),
        max_length=16,
        description="private networks (CIDR) this receiver may stand in, reached by https; an intranet, a loopback",
    )
    plain_http_ranges: tuple[str, ...] = Field(
        default=(),
        max_length=16,
        description="private networks (CIDR) it may stand in and be reached by http without TLS as well",
    )
    ca_file: str | None = Field(default=None, min_length=1, description="own certificate authority")
    timeout_s: Number = Field(default=15.0, ge=1, le=60, description="for one whole attempt")
    ok_statuses: tuple[Annotated[Whole, Field(ge=200, le=299)], ...] = Field(
        default=(), description="statuses that mean accepted; default any 2xx"
    )
    body_rule: BodyRule | None = None

    @model_validator(mode="after")
    def _address_and_secret(self) -> ReceiverConfig:
        rules = self.address_rules()
        try:
            rules.check_url(self.url)
        except AddressRefusedError as error:
            raise ExplainedError(str(error), error.message_zh, at=("url",)) from None
        if (self.secret_file is None) == (self.secret_env is None):
            raise ExplainedError(
                "give either secret_file or secret_env: where the signing secret stands",
                "请写明签名密钥所在：secret_file 与 secret_env 二者取一",
            )
        return self

    def address_rules(self) -> AddressRules:
        """Return what judges this receiver's url and every address it resolves to."""
        return AddressRules(
            _private_networks("plain_http_ranges", self.plain_http_ranges),
            _private_networks("private_ranges", self.private_ranges),
        )

    def wants(self, grade: Grade, category: str, region: str = "") -> bool:
        """Whether it gets notices of this grade and category from this region (codes joined by '/')."""
        covered = self.region is None or region == self.region or region.startswith(self.region + "/")
        return grade in self.grades and category in self.kinds and covered


def _private_networks(key: str, ranges: tuple[str, ...]) -> tuple[Network, ...]:
    networks = []
    for index, text in enumerate(ranges):
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise ExplainedError(
                f"{text!r} is not a network such as 10.20.0.0/16: {error}",
                f"{text!r} 不是 10.20.0.0/16 这样的网段: {error}",
                at=(key, index),
            ) from None
        if not _is_private(network):
            raise ExplainedError(f"{text!r} is not a private network", f"{text!r} 不是专用网段", at=(key, index))
        networks.append(network)
    return tuple(networks)


def _is_private(network: Network) -> bool:
    if isinstance(network, ipaddress.IPv4Network) and network.subnet_of(_SHARED):
        return True
    return network.is_private and not network.is_unspecified and not network.is_link_local and network.prefixlen > 0
