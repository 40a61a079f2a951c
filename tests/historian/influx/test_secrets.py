"""What a store is told of who we are: any password goes, what cannot be a token is said, and no message repeats it."""

from __future__ import annotations

import base64
import socket
from pathlib import Path

import pytest

from config import TimeSeriesStoreConfig
from gateway.historian.influx import open_store
from gateway.historian.influx.answers import Stored
from gateway.historian.influx.http import Link
from gateway.historian.store import HistorianError, StoreRefusedError
from tests.historian.influx.test_http import KINDS, peer, says


def config(url: str, kind: str, **more: object) -> TimeSeriesStoreConfig:
    return TimeSeriesStoreConfig.model_validate({"id": "plant", "kind": kind, "url": url, "org": "works", **more})


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_and_a_password_in_any_script_are_sent_as_utf8(kind: str) -> None:
    with peer(says("204 No Content")) as (url, requests):
        store = Link(config(url, kind, username="张三"), "口令 pass", Path())
        assert isinstance(store.write(b"m v=1 1", "ms"), Stored)
    assert b"Basic " + base64.b64encode("张三:口令 pass".encode()) in requests[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("secret", ["token-of-line-one\nline two", "令牌abcdefgh", "token with\x00null"])
def test_what_cannot_be_a_token_is_refused_with_its_place_and_is_not_repeated(kind: str, secret: str, tmp_path: Path) -> None:
    (tmp_path / "influx.secret").write_text(secret, encoding="utf-8")
    with pytest.raises(StoreRefusedError) as refused:
        open_store(config("http://127.0.0.1:1", kind, secret_file="influx.secret"), "demo", tmp_path)
    for told in (str(refused.value), refused.value.message_zh):
        assert "storage.stores.plant" in told
        assert "influx.secret" in told
        assert not any(part in told for part in ("abcdefgh", "line-one", "line two", "token with"))


BASIC = base64.b64encode(b"joe:tok3n-of-the-plant").decode()


@pytest.mark.parametrize(("username", "sent"), [(None, "tok3n-of-the-plant"), ("joe", BASIC)])
def test_a_peer_that_repeats_our_request_gets_no_secret_into_a_message(username: str | None, sent: str) -> None:
    def echo(line: socket.socket, request: bytes) -> None:
        says("400 Bad Request", b"I cannot read this: " + request)(line, request)

    with peer(echo) as (url, requests):
        store = open_store(config(url, "influxdb1", **({"username": username} if username else {})), "demo")
        store.close()
        store.link = Link(store.config, "tok3n-of-the-plant", Path())
        told = repr(store.link.write(b"m v=1 1", "ms"))
        assert "I cannot read this" in told
        for ask in (lambda: store.ask("SHOW DATABASES", 5.0), lambda: store.range("T", 0, 10)):
            with pytest.raises(HistorianError) as error:
                ask()
            told += str(error.value) + error.value.message_zh
        assert sent.encode() in requests[0]
    assert sent not in told
    assert "tok3n" not in told
