"""The same site at other addresses: for a demo, a test or a replay that finds its ports at start."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from config.endpoints import is_loopback
from config.receivers import ReceiverConfig
from config.site import BrokerConfig, SiteConfig

Address = tuple[str, int]


def rebind(
    site: SiteConfig,
    bus_addresses: Mapping[tuple[str, str], Address] | None = None,
    broker: BrokerConfig | Address | None = None,
    receiver_urls: Mapping[str, str] | None = None,
) -> SiteConfig:
    """Return the site with other addresses; everything that is not named stays.

    Args:
        site: unchanged.
        bus_addresses: (edge id, bus id) to (host, port).
        broker: a whole broker, or only its (host, port).
        receiver_urls: receiver id to url. A url on loopback is allowed whatever the receiver's ranges say.

    Raises:
        KeyError: an edge, bus or receiver of that id does not exist.
        pydantic.ValidationError: an address or url is not valid.
    """
    buses, urls = dict(bus_addresses or {}), dict(receiver_urls or {})
    edges = []
    for edge in site.edges:
        moved = []
        for bus in edge.buses:
            host, port = buses.pop((edge.id, bus.id), (bus.host, bus.port))
            moved.append(type(bus).model_validate({**bus.model_dump(), "host": host, "port": port}))
        edges.append(edge.model_copy(update={"buses": tuple(moved)}))
    receivers = [
        _at_url(receiver, urls.pop(receiver.id)) if receiver.id in urls else receiver for receiver in site.receivers
    ]
    unknown = [*(f"bus {edge}/{bus}" for edge, bus in buses), *(f"receiver {name}" for name in urls)]
    if unknown:
        raise KeyError(f"site {site.site} has no {', '.join(unknown)}")
    if broker is None:
        broker = site.broker
    elif not isinstance(broker, BrokerConfig):
        broker = BrokerConfig.model_validate({**site.broker.model_dump(), "host": broker[0], "port": broker[1]})
    return _fresh(site, edges=tuple(edges), receivers=tuple(receivers), broker=broker)


def _at_url(receiver: ReceiverConfig, url: str) -> ReceiverConfig:
    changed = {**receiver.model_dump(), "url": url}
    host = urlsplit(url).hostname or ""
    if is_loopback(host):
        ranges = "plain_http_ranges" if urlsplit(url).scheme == "http" else "private_ranges"
        loopback = "127.0.0.0/8" if ":" not in host else "::1/128"
        changed[ranges] = tuple(dict.fromkeys((*changed[ranges], loopback)))
    return ReceiverConfig.model_validate(changed)


def _fresh(site: SiteConfig, **changed: object) -> SiteConfig:
    """A copy without the looked-up tables that a plain copy would carry along from the old site."""
    return SiteConfig.model_construct(**{**{name: getattr(site, name) for name in SiteConfig.model_fields}, **changed})
