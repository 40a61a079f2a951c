"""`hazardgate serve` and `hazardgate token`: the API beside core, and who may use it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

from cli.alarms import local_time
from cli.language import say
from cli.running import escaped, refuse, run_until_stopped, unusable
from config import SiteConfig
from gateway.serve import SERVE_FOLDER, Role, ServeError, ServeSettings, Token, TokenStore, run_serve

NICENESS: Final = 10
"""Core must win: no query may delay an alarm."""


def serve_command(site: SiteConfig, data: Path, settings: ServeSettings) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    os.nice(NICENESS)
    with contextlib.suppress(OSError):  # a container may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # to wake up takes the processor from nobody
    try:
        run_until_stopped(lambda stop: run_serve(site, data, stop, settings))
    except ServeError as error:
        raise refuse(error) from None
    except OSError as error:
        raise refuse(unusable(data, error)) from None


def new_token(data: Path, name: str, role: Role, days: int, *, as_json: bool) -> None:
    """Make a token and print it, once: alone on stdout, so that it can go into a file."""
    try:
        token, sent = _store(data).new(name, role, days)
    except ServeError as error:
        raise refuse(error) from None
    if as_json:
        print(json.dumps({**_told(token), "token": sent}, ensure_ascii=False))
        return
    print(sent)
    until = local_time(token.expires_ms)
    print(say(
        f"{escaped(token.name)}（{role_in_words(token.role)}），编号 {token.id}，有效至 {until}。令牌只显示这一次，请妥善保存",
        f"{escaped(token.name)} ({role_in_words(token.role)}), id {token.id}, until {until}. "
        f"The token is shown only now; keep it safe",
    ), file=sys.stderr)  # fmt: skip


def list_tokens(data: Path, *, as_json: bool) -> None:
    """Print every token without its secret."""
    try:
        tokens = _store(data).kept()
    except ServeError as error:
        raise refuse(error) from None
    if as_json:
        print(json.dumps([_told(token) for token in tokens], ensure_ascii=False))
        return
    for token in tokens:
        print(f"{token.id}  {token.role:8}  {_standing(token)}  {local_time(token.expires_ms)}  {escaped(token.name)}")
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
