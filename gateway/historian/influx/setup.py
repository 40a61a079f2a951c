"""Makes what a store needs before the first write (database or bucket, how long it keeps), and asks how it is.

Whatever is there already stays: only how long it keeps is changed. Safe to run again.
Sources: InfluxQL 1.8 database management; influxdb (2.x), tenant/service_bucket.go and tenant/service_org.go (what a name finds
that is not there), http/health.go; 3 Core API reference (docs-v2, api-docs/influxdb3/core/influxdb3-core-openapi.yaml:
`/api/v3/configure/database`; `/ping` tells the version, `/health` only OK). 2.x and 3 have not
been run against a server here: tests hold them to these documents.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from gateway.historian.influx.answers import away, is_away, refusal, short, told
from gateway.historian.influx.http import Reply
from gateway.historian.influx.store import InfluxHistorian, identifier
from gateway.historian.store import StoreAwayError, StoreRefusedError

ANSWER_BYTES_MAX: Final = 1024 * 1024
DAY_S: Final = 86_400
HEALTH: Final = {"influxdb1": "/ping", "influxdb2": "/health", "influxdb3": "/ping", "victoriametrics": "/health"}


@dataclass(frozen=True, slots=True)
class Done:
    """One thing that was done, or was not needed."""

    text: str
    text_zh: str
    changed: bool = True


@dataclass(frozen=True, slots=True)
class Health:
    """How a store is. `database`: whether ours is there; None where it needs none or cannot be asked."""

    version: str
    database: bool | None


def set_up(store: InfluxHistorian) -> list[Done]:
    """Make what is missing; return what was done.

    Raises:
        StoreAwayError, StoreRefusedError: it could not be made; run it again.
    """
    return {
        "influxdb1": _set_up_1, "influxdb2": _set_up_2, "influxdb3": _set_up_3, "victoriametrics": _set_up_victoria,
    }[store.config.kind](store)  # fmt: skip


def health(store: InfluxHistorian) -> Health:
    """Ask a store how it is.

    Raises:
        StoreAwayError, StoreRefusedError: it does not answer, or not to us.
    """
    config = store.config
    version = _version(store)
    if config.kind == "influxdb1":
        return Health(version, config.database in _databases(store))
    if config.kind == "influxdb2":
        return Health(version, bool(_buckets(store)))
    if config.kind == "influxdb3":
        return Health(version, config.database in _databases_3(store))
    _look_at_victoria(store)
    return Health(version, None)


def _version(store: InfluxHistorian) -> str:
    """Return what a store says of its version, empty where it says nothing. Raises HistorianError, for another kind, too."""
    kind = store.config.kind
    reply = store.link.send("GET", HEALTH[kind], bytes_max=ANSWER_BYTES_MAX)
    _check(store, reply)
    version = reply.headers.get("x-influxdb-version", "")
    if kind == "influxdb1" and not version:
        raise _another_kind(store)
    if kind == "influxdb2" or (kind == "influxdb3" and not version):
        version = version or str(_object(store, reply).get("version", ""))
    return version


# -- 1.x --


def _databases(store: InfluxHistorian) -> list[str]:
    return [str(row[0]) for row in store.ask("SHOW DATABASES", store.config.timeout_s)]


def _set_up_1(store: InfluxHistorian) -> list[Done]:
    config, within = store.config, store.config.timeout_s
    _version(store)
    database = identifier(config.database)
    done = []
    if config.database in _databases(store):
        done.append(Done(f"database {config.database} is there", f"数据库 {config.database} 已存在", changed=False))
    else:
        _make_database(store, database)
        done.append(Done(f"made database {config.database}", f"已创建数据库 {config.database}"))
    policies = {str(row[0]): row for row in store.ask(f"SHOW RETENTION POLICIES ON {database}", within)}
    standard = next((name for name, row in policies.items() if row[-1]), "autogen")
    name = config.retention_policy or standard
    wanted_h = _whole_hours(config.retention_days)
    kept, kept_zh = _for_days(config.retention_days)
    if name not in policies:
        store.ask(f"CREATE RETENTION POLICY {identifier(name)} ON {database} DURATION {_duration(wanted_h)} REPLICATION 1", within)
        done.append(Done(f"made retention policy {name}: keeps {kept}", f"已创建保留策略 {name}：保留{kept_zh}"))
    elif _hours(str(policies[name][1])) != wanted_h:
        length = f"DURATION {_duration(wanted_h)} SHARD DURATION {_shard_h(wanted_h)}h"
        store.ask(f"ALTER RETENTION POLICY {identifier(name)} ON {database} {length}", within)
        done.append(Done(f"retention policy {name} now keeps {kept}", f"保留策略 {name} 改为保留{kept_zh}"))
    else:
        done.append(Done(f"retention policy {name} keeps {kept}", f"保留策略 {name} 保留{kept_zh}", changed=False))
    return done


def _make_database(store: InfluxHistorian, database: str) -> None:
    try:
        store.ask(f"CREATE DATABASE {database}", store.config.timeout_s)
    except StoreRefusedError as error:
        if "requires admin privilege" not in str(error):
            raise
        config = store.config
        raise StoreRefusedError(
            f"storage.stores.{store.name}: {config.username} may not make database {config.database}; run `hazardgate store setup` once"
            " with an administrator as username, or have one make it and let this user read and write it",
            f"storage.stores.{store.name}：{config.username} 无权创建数据库 {config.database}；请用管理员账号作为 username 运行一次"
            " `hazardgate store setup`，或由管理员创建并授予该用户读写权限",
        ) from None


def _duration(hours: int) -> str:
    return f"{hours}h" if hours else "INF"


def _shard_h(hours: int) -> int:
    """Return what 1.x itself chooses for a new policy: it takes no period shorter than its shards."""
    if 0 < hours < 48:
        return 1
    return 24 if 0 < hours <= 180 * 24 else 168


def _hours(text: str) -> float:
    """Return a duration such as 9600h0m0s in hours; -1 for what is not one."""
    digits, hours = "", 0.0
    for char in text:
        if char.isdigit():
            digits += char
        elif char in "hms" and digits:
            hours += int(digits) / {"h": 1, "m": 60, "s": 3600}[char]
            digits = ""
        else:
            return -1.0
    return hours


# -- 2.x --


def _buckets(store: InfluxHistorian) -> list[dict[str, Any]]:
    fields = {"name": store.config.database, **({"org": store.config.org} if store.config.org else {})}
    reply = store.link.send("GET", f"/api/v2/buckets?{urlencode(fields)}", bytes_max=ANSWER_BYTES_MAX)
    found = _found(store, reply).get("buckets", [])
    return [each for each in found if isinstance(each, dict) and each.get("name") == store.config.database]


def _set_up_2(store: InfluxHistorian) -> list[Done]:
    config = store.config
    if not config.org:
        raise _names_no_org(store)
    rules = [{"type": "expire", "everySeconds": _seconds(config.retention_days)}]
    kept, kept_zh = _for_days(config.retention_days)
    buckets = _buckets(store)
    if buckets:
        bucket = buckets[0]
        if [rule.get("everySeconds", 0) for rule in bucket.get("retentionRules", [])] in ([rules[0]["everySeconds"]],):
            return [Done(f"bucket {config.database} keeps {kept}", f"存储桶 {config.database} 保留{kept_zh}", changed=False)]
        _json(store, "PATCH", f"/api/v2/buckets/{bucket.get('id', '')}", {"retentionRules": rules})
        return [Done(f"bucket {config.database} now keeps {kept}", f"存储桶 {config.database} 改为保留{kept_zh}")]
    orgs = _orgs(store, f"?{urlencode({'org': config.org})}")
    if len(orgs) != 1:
        raise StoreRefusedError(
            f"storage.stores.{store.name}: {len(orgs)} organisations fit org {config.org!r}; name one",
            f"storage.stores.{store.name}：org {config.org!r} 对应 {len(orgs)} 个组织；请写明其中一个",
        )
    _json(store, "POST", "/api/v2/buckets", {"orgID": orgs[0].get("id"), "name": config.database, "retentionRules": rules})
    return [Done(f"made bucket {config.database}: keeps {kept}", f"已创建存储桶 {config.database}：保留{kept_zh}")]


def _orgs(store: InfluxHistorian, fields: str = "") -> list[dict[str, Any]]:
    reply = store.link.send("GET", f"/api/v2/orgs{fields}", bytes_max=ANSWER_BYTES_MAX)
    found = _found(store, reply).get("orgs", [])
    return [each for each in found if isinstance(each, dict)]


def _names_no_org(store: InfluxHistorian) -> StoreRefusedError:
    """Return what to write: 2.x refuses a write without, and a bucket alone would stay empty."""
    names = short(", ".join(str(each.get("name")) for each in _orgs(store)))
    return StoreRefusedError(
        f"storage.stores.{store.name}: org is empty, and 2.x refuses writes without one; write one that this token sees ({names}) into"
        " org",
        f"storage.stores.{store.name}：未写 org，2.x 会拒绝写入；请在 org 中写入该令牌可见的组织（{names}）",
    )


# -- 3 Core --


def _databases_3(store: InfluxHistorian) -> set[str]:
    reply = store.link.send("GET", "/api/v3/configure/database?format=json", bytes_max=ANSWER_BYTES_MAX)
    _check(store, reply)
    return {str(each.get(key)) for each in _list(store, reply) for key in ("iox::database", "name")}


def _set_up_3(store: InfluxHistorian) -> list[Done]:
    config = store.config
    if config.database in _databases_3(store):
        return [Done(
            f"database {config.database} is there; it keeps its own period, retention_days is not set there",
            f"数据库 {config.database} 已存在；沿用其自身保留时间，未设置 retention_days", changed=False,
        )]  # fmt: skip
    kept, kept_zh = _for_days(config.retention_days)
    body: dict[str, Any] = {"db": config.database}
    if config.retention_days:
        body["retention_period"] = f"{_whole_hours(config.retention_days)}h"
    _json(store, "POST", "/api/v3/configure/database", body)
    return [Done(f"made database {config.database}: keeps {kept}", f"已创建数据库 {config.database}：保留{kept_zh}")]


# -- VictoriaMetrics --


def _look_at_victoria(store: InfluxHistorian) -> None:
    """See whether it can be fed. Raises StoreRefusedError: it does not tell of its starts, or it is another kind."""
    from gateway.historian.influx.victoria import VictoriaHistorian

    assert isinstance(store, VictoriaHistorian)
    store.restarted()


def _set_up_victoria(store: InfluxHistorian) -> list[Done]:
    _look_at_victoria(store)
    days = max(1, round(store.config.retention_days)) if store.config.retention_days else 36500
    return [Done(
        f"VictoriaMetrics needs nothing made; how long it keeps is its own flag: start it with -retentionPeriod={days}d",
        f"VictoriaMetrics 无需创建任何内容；保留时间由其启动参数决定：-retentionPeriod={days}d", changed=False,
    )]  # fmt: skip


# -- shared --


def _whole_hours(days: float) -> int:
    """Return a period in hours, 0 for ever: no store keeps less than one, and a shorter one must not become that."""
    return max(1, round(days * 24)) if days else 0


def _seconds(days: float) -> int:
    return max(3_600, round(days * DAY_S)) if days else 0


def _for_days(days: float) -> tuple[str, str]:
    if not days:
        return "for ever", "永久"
    return (f"{days:g} days", f" {days:g} 天") if days * 24 >= 1 else ("1 hour", " 1 小时")


def _json(store: InfluxHistorian, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    return _checked(store, store.link.send(method, path, json.dumps(body).encode(), {"Content-Type": "application/json"}))


def _checked(store: InfluxHistorian, reply: Reply) -> dict[str, Any]:
    _check(store, reply)
    return _object(store, reply)


def _found(store: InfluxHistorian, reply: Reply) -> dict[str, Any]:
    """Return what 2.x found, nothing where it says so; a 404 that is not its own is refused."""
    if reply.status == 404 and "page not found" not in told(reply.body):
        return {}
    return _checked(store, reply)


def _check(store: InfluxHistorian, reply: Reply) -> None:
    said = told(reply.body)
    if is_away(reply.status, said):
        later = away(store.name, reply.status, said)
        raise StoreAwayError(later.reason, later.reason_zh)
    if reply.status >= 300:
        refused = refusal(store.name, reply.status, said)
        raise StoreRefusedError(refused.reason, refused.reason_zh)


def _object(store: InfluxHistorian, reply: Reply) -> dict[str, Any]:
    if not reply.body.strip():
        return {}
    try:
        loaded = json.loads(reply.body)
    except (ValueError, RecursionError):
        loaded = None
    if not isinstance(loaded, dict):
        raise _another_kind(store)
    return loaded


def _list(store: InfluxHistorian, reply: Reply) -> list[dict[str, Any]]:
    try:
        loaded = json.loads(reply.body)
    except (ValueError, RecursionError):
        loaded = None
    if not isinstance(loaded, list):
        raise _another_kind(store)
    return [each for each in loaded if isinstance(each, dict)]


def _another_kind(store: InfluxHistorian) -> StoreRefusedError:
    kind, url = store.config.kind, store.config.url
    return StoreRefusedError(
        f"storage.stores.{store.name}: what answers at {url} is no {kind}; check kind and url",
        f"storage.stores.{store.name}：{url} 处应答的不是 {kind}；请检查 kind 与 url",
    )
