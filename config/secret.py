"""Reads secrets from where the configuration says they stand.

The secret itself never enters a model or a message.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path

from config.problems import ConfigError, Words
from config.receivers import ReceiverConfig
from config.site import BrokerConfig
from config.storage import TimeSeriesStoreConfig

SECRET_BYTES_MAX = 4096
SIGNING_KEY_BYTES_MIN = 24  # Standard Webhooks: 24 to 64 bytes
SIGNING_KEY_BYTES_MAX = 64
SECRET_PREFIX = "whsec_"  # noqa: S105  the mark of a secret, not one


class SecretError(ConfigError):
    """A secret is missing or unusable. Names the place and the next step, never the secret."""

    def __init__(self, owner: str, place: Words, why: Words, remedy: Words) -> None:
        self.owner, self.place = owner, place[0]
        super().__init__(f"{owner}: {place[0]} {why[0]}; {remedy[0]}", f"{owner}：{place[1]}{why[1]}；{remedy[1]}")


def read_secret(receiver: ReceiverConfig, base_dir: Path, environment: Mapping[str, str] | None = None) -> str:
    """Return the signing secret of a receiver, `whsec_` and base64.

    Args:
        receiver: whose secret.
        base_dir: folder that a relative `secret_file` starts from.
        environment: instead of the process environment.

    Raises:
        SecretError: not there, unreadable, or not a Standard Webhooks secret.
    """
    owner = f"receivers.{receiver.id}"
    remedy = (
        "put a secret there: whsec_ followed by 24 to 64 random bytes in base64",
        "请在该处放置密钥：whsec_ 后接 24 至 64 个随机字节的 base64",
    )
    place, text = _read(owner, receiver.secret_file, receiver.secret_env, base_dir, environment, remedy)
    if not text.startswith(SECRET_PREFIX):
        raise SecretError(owner, place, (f"does not begin with {SECRET_PREFIX}", f"不以 {SECRET_PREFIX} 开头"), remedy)
    try:
        key = base64.b64decode(text[len(SECRET_PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise SecretError(owner, place, ("is not base64 after whsec_", "在 whsec_ 之后不是 base64"), remedy) from None
    if not SIGNING_KEY_BYTES_MIN <= len(key) <= SIGNING_KEY_BYTES_MAX:
        raise SecretError(owner, place, (f"holds {len(key)} bytes", f"有 {len(key)} 字节"), remedy)
    return text


def read_broker_password(
    broker: BrokerConfig, base_dir: Path, environment: Mapping[str, str] | None = None
) -> str | None:
    """Return the broker password, None when the configuration names none. Raises SecretError."""
    if broker.password_file is None and broker.password_env is None:
        return None
    remedy = ("put the broker password there", "请在该处放置消息代理的口令")
    return _read("broker", broker.password_file, broker.password_env, base_dir, environment, remedy)[1]


def read_store_secret(
    store: TimeSeriesStoreConfig, base_dir: Path, environment: Mapping[str, str] | None = None
) -> str | None:
    """Return the token or password of a time-series store, None when the configuration names none. Raises SecretError."""
    if store.secret_file is None and store.secret_env is None:
        return None
    remedy = ("put the store's token or password there", "请在该处放置时序库的令牌或口令")
    return _read(f"storage.stores.{store.id}", store.secret_file, store.secret_env, base_dir, environment, remedy)[1]


def _read(
    owner: str, file: str | None, variable: str | None, base_dir: Path,
    environment: Mapping[str, str] | None, remedy: Words,
) -> tuple[Words, str]:  # fmt: skip
    """Return where the secret stands, in words, and the secret."""
    if file is not None:
        path = base_dir / file
        place = (f"secret file {path}", f"密钥文件 {path} ")
        try:
            with path.open("rb") as stream:
                raw = stream.read(SECRET_BYTES_MAX + 1)
        except OSError as error:
            raise SecretError(owner, place, (f"cannot be read ({error.strerror})", f"无法读取（{error.strerror}）"), remedy) from None
        if len(raw) > SECRET_BYTES_MAX:
            raise SecretError(owner, place, (f"is larger than {SECRET_BYTES_MAX} bytes", f"超过 {SECRET_BYTES_MAX} 字节"), remedy)
        try:
            text = raw.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise SecretError(owner, place, ("is not text", "不是文本"), remedy) from None
    else:
        place = (f"environment variable {variable}", f"环境变量 {variable} ")
        text = (os.environ if environment is None else environment).get(variable or "", "").strip()
    if not text:
        raise SecretError(owner, place, ("is empty or not there", "为空或不存在"), remedy)
    return place, text
