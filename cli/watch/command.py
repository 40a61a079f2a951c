"""`hazardgate watch`: what was typed, judged before the screen opens."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cli.language import say
from cli.running import EXIT_REFUSED, refuse, unusable
from cli.watch.app import WatchApp
from cli.watch.client import Client

TOKEN_ENV: Final = "HAZARDGATE_TOKEN"  # noqa: S105 - the variable's name
TOKEN_CHARS_MAX: Final = 512


def watch_command(url: str, token_file: Path | None, ca: Path | None) -> int:
    """Show the screen until the person leaves; returns the exit code."""
    checked, trust = checked_url(url), trusted(ca)
    token = read_token(token_file)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):  # textual draws on stderr
        raise refuse(say("此画面需要终端；请在终端里运行", "this screen needs a terminal; run it in one"))
    app = WatchApp(Client(checked, token, trust), checked)
    app.run(mouse=False)
    if app.return_code == EXIT_REFUSED:
        raise refuse(app.model.failure)
    return app.return_code or 0


def checked_url(url: str) -> str:
    """Return the gateway's address; refuse one that would send the token in the clear over a network."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if parts.scheme not in ("http", "https") or not host or parts.path.strip("/") or parts.query or parts.username:
        raise refuse(say(
            f"--url {url}：应为 http://主机:端口 或 https://主机:端口",
            f"--url {url}: should be http://host:port or https://host:port",
        ))  # fmt: skip
    if parts.scheme == "http" and not _is_loopback(host):
        raise refuse(say(
            f"--url {url}：http 会把令牌明文送过网络；请用 https，或经 ssh -L 转发后连 127.0.0.1",
            f"--url {url}: http would send the token in the clear; use https, or forward a port with ssh -L to 127.0.0.1",
        ))  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(path: Path | None) -> str:
    """Return the token from a file or the environment; never from an argument, which others on the machine can read."""
    if path is None:
        token = os.environ.get(TOKEN_ENV, "").strip()
        where = TOKEN_ENV
        if not token:
            raise refuse(say(
                f"没有令牌：请用 --token-file 指定文件，或设环境变量 {TOKEN_ENV}（由 hazardgate token new 签发）",
                f"no token: name a file with --token-file, or set {TOKEN_ENV} (hazardgate token new makes one)",
            ))  # fmt: skip
    else:
        where = str(path)
        try:
            with path.open(encoding="ascii", errors="replace") as file:
                token = file.readline(TOKEN_CHARS_MAX + 2).strip()
        except OSError as error:
            raise refuse(unusable(path, error)) from None
    if not re.fullmatch(r"[\x21-\x7e]{1,512}", token):
        raise refuse(say(f"{where}：内容不是令牌", f"{where}: does not hold a token"))
    return token


def trusted(ca: Path | None) -> ssl.SSLContext | None:
    """Return what to trust for https; None is what the system trusts."""
    if ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise refuse(
            say(f"{ca}：不是 CA 证书（{error.reason}）", f"{ca}: is no CA certificate ({error.reason})")
        ) from None
    except OSError as error:
        raise refuse(unusable(ca, error)) from None
