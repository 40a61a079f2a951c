"""`hazardgate serve` and `hazardgate token`: the API beside core, and who may use it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from cli.alarms import local_time, site_zone
from cli.language import say
from cli.running import escaped, refuse, run_until_stopped, unusable
from config import SiteConfig
from gateway.serve import SERVE_FOLDER, Role, ServeError, ServeSettings, Token, TokenStore, give_large_back, run_serve

NICENESS: Final = 10
"""Core must win: no query may delay an alarm."""
CORE_FOLDER: Final = "core"


def serve_command(site: SiteConfig, data: Path, settings: ServeSettings, base_dir: Path, *, wait: bool) -> None:
    """Serve until SIGTERM or Ctrl-C. Relative files that the site names start from `base_dir`; `wait` for core's first start."""
    give_large_back()
    os.nice(NICENESS)
    with contextlib.suppress(OSError):  # a container may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # to wake up takes the processor from nobody
    try:
        run_until_stopped(lambda stop: run_serve(site, data, stop, settings, base_dir=base_dir, wait_for_core=wait))
    except ServeError as error:
        raise refuse(error) from None
    except OSError as error:
        raise refuse(unusable(data, error)) from None


def new_token(data: Path, name: str, role: Role, days: int, output: Path | None, *, as_json: bool) -> None:
    """Make a token and give it out once: into a new file of the user's alone, else alone on stdout."""
    store = _store(data)
    with _kept_secret(output) as keep:
        try:
            token, sent = store.new(name, role, days)
        except ServeError as error:
            raise refuse(error) from None
        if keep is not None:
            keep(sent + "\n")
    if as_json:
        shown = {"token": sent} if output is None else {"output": str(output)}
        print(json.dumps({**_told(token), **shown}, ensure_ascii=False))
        return
    if output is None:
        print(sent)
    until = local_time(token.expires_ms, site_zone(data))
    where = say("令牌只显示这一次，请妥善保存", "The token is shown only now; keep it safe") if output is None else say(
        f"令牌已写入 {output}，只有您能读取", f"The token is in {output}, which only you can read"
    )
    print(say(
        f"{escaped(token.name)}（{role_in_words(token.role)}），编号 {token.id}，有效至 {until}。{where}",
        f"{escaped(token.name)} ({role_in_words(token.role)}), id {token.id}, until {until}. {where}",
    ), file=sys.stderr)  # fmt: skip


@contextlib.contextmanager
def _kept_secret(output: Path | None) -> Iterator[Callable[[str], object] | None]:
    """Open a new file that only its owner may read, before the secret is made; it goes again if none is."""
    if output is None:
        yield None
        return
    try:
        descriptor = os.open(output, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise refuse(say(f"{output}：文件已存在，不会覆盖；请换一个 --output", f"{output}: exists and is not overwritten; "
                         f"give another --output")) from None  # fmt: skip
    except OSError as error:
        raise refuse(unusable(output, error)) from None
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            yield file.write
    except BaseException:  # Ctrl-C too must not leave a secret that nobody was told of
        output.unlink(missing_ok=True)
        raise


def list_tokens(data: Path, *, as_json: bool) -> None:
    """Print every token without its secret."""
    try:
        tokens = _store(data).kept()
    except ServeError as error:
        raise refuse(error) from None
    if as_json:
        print(json.dumps([_told(token) for token in tokens], ensure_ascii=False))
        return
    zone = site_zone(data)
    for token in tokens:
        until = local_time(token.expires_ms, zone)
        print(f"{token.id}  {token.role:8}  {_standing(token)}  {until}  {escaped(token.name)}")
    if not tokens:
        print(say("还没有令牌；用 hazardgate token new 创建", "no token yet; hazardgate token new makes one"))


def revoke_token(data: Path, name_or_id: str) -> None:
    """Revoke the token of this id, or all of this name."""
    try:
        revoked = _store(data).revoke(name_or_id)
    except ServeError as error:
        raise refuse(error) from None
    for token in revoked:
        name = escaped(token.name)
        print(say(f"已吊销：{token.id} {name}", f"revoked: {token.id} {name}"))


def role_in_words(role: Role) -> str:
    """Return what a role may do."""
    return say(*{Role.VIEWER: ("只读", "viewer"), Role.OPERATOR: ("操作员", "operator")}[role])


def _store(data: Path) -> TokenStore:
    """Return the tokens of a data folder that core or serve has used: a wrong one would get tokens that nobody knows."""
    if not any((data / name).is_dir() for name in (CORE_FOLDER, SERVE_FOLDER)):
        raise refuse(say(
            f"{data}：里面既没有 core/ 也没有 serve/；请用 --data 指定核心的数据目录（新站点请先启动核心或查询服务）",
            f"{data}: holds neither core/ nor serve/; name core's data folder with --data (on a new site, start core or "
            f"serve first)",
        ))  # fmt: skip
    return TokenStore(data / SERVE_FOLDER, _now_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _standing(token: Token) -> str:
    if token.revoked_ms is not None:
        return say("已吊销", "revoked")
    return say("有效  ", "valid  ") if token.valid(_now_ms()) else say("已过期", "expired")


def _told(token: Token) -> dict[str, Any]:
    return {
        "id": token.id, "name": token.name, "role": str(token.role), "created_ms": token.created_ms,
        "expires_ms": token.expires_ms, "revoked_ms": token.revoked_ms,
    }  # fmt: skip
