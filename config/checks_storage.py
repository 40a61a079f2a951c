"""Cross checks of the time-series stores: ids that are ours, and what without which a store lets nobody in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from config.draft import Draft, Finding, Placed
from config.problems import Severity
from config.storage import TimeSeriesStoreConfig

EMBEDDED: Final = "embedded"
"""What `hazardgate store copy` calls the gateway's own store."""


def check_stores(draft: Draft) -> Iterator[Finding]:
    """What would be refused, or meant otherwise, at the first write.

    Only an id that is ours refuses the file: core waits for no store, and what one refuses its feed tells.
    """
    for store in draft.stores:
        for finding in _check_store(store):
            yield finding if store.part.enabled else finding.as_warning()


def _check_store(store: Placed[TimeSeriesStoreConfig]) -> Iterator[Finding]:
    part = store.part
    if part.id.casefold() == EMBEDDED:
        yield Finding(
            (*store.path, "id"),
            f"{part.id!r} is the name of the gateway's own store",
            f"{part.id!r} 是网关自带历史库的名称",
            f"write another id, such as {part.kind}",
        )
    if part.kind == "influxdb2" and not part.org:
        yield Finding(
            (*store.path, "org"),
            "an influxdb2 refuses every write that names no organisation",
            "influxdb2 拒绝每次未写明组织的写入",
            "name the organisation in org",
            Severity.WARNING,
        )
    if part.username is not None and part.kind in ("influxdb2", "influxdb3"):
        yield Finding(
            (*store.path, "username"),
            f"a username is of 1.x: {part.kind} takes a token alone, and may let nobody in by a password",
            f"username 仅用于 1.x：{part.kind} 只用令牌，可能拒绝口令登录",
            "leave username out",
            Severity.WARNING,
        )
    if part.secret_file is not None or part.secret_env is not None:
        return
    if part.username is not None:
        yield Finding(
            (*store.path, "username"),
            "a username without its password: the store would refuse every write",
            "有用户名却没有口令，时序库会拒绝每次写入",
            "give secret_file or secret_env",
            Severity.WARNING,
        )
    elif part.kind == "influxdb2":
        yield Finding(
            store.path,
            "an influxdb2 needs a token: without one it refuses every write",
            "influxdb2 需要令牌，没有则拒绝每次写入",
            "give secret_file or secret_env",
            Severity.WARNING,
        )
    elif part.kind == "influxdb3":  # it can be run without authentication, which nobody should outside a test
        yield Finding(
            store.path,
            "an influxdb3 without a token works only where it was started without authentication",
            "influxdb3 没有令牌，只有以免认证方式启动时才能写入",
            "give secret_file or secret_env",
            Severity.WARNING,
        )
