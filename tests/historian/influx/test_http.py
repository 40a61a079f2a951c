"""A store's address that misbehaves: slow, endless, redirecting, of another certificate. Nothing hangs and nothing grows."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config import TimeSeriesStoreConfig
from gateway.historian.influx.answers import Away, Refused, Stored
from gateway.historian.influx.bounded import DeadlineError
from gateway.historian.influx.http import ERROR_BYTES_MAX, Link
from gateway.historian.store import StoreAwayError, StoreRefusedError
from tests.patience import GUARD_S

Serve = Callable[[socket.socket, bytes], None]
KINDS = ("influxdb1", "influxdb2", "influxdb3", "victoriametrics")


@contextmanager
def peer(serve: Serve, *, reads: bool = True) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads one request a connection (or leaves that to `serve`), and answers as it is told."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = threading.Event()

        def run() -> None:
            while not ended.is_set():
                try:
                    line, _ = listening.accept()
                except OSError:
                    return
                with line:
                    line.settimeout(GUARD_S)
                    try:
                        requests.append(_request(line) if reads else b"")
                        serve(line, requests[-1])
                    except OSError:
                        pass

        thread = threading.Thread(target=run, name="peer", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", requests
        finally:
            ended.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(GUARD_S)


def _request(line: socket.socket) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got:
        piece = line.recv(65_536)
        got += piece
        if not piece or got.startswith(b"\x16"):  # TLS: there is no request to be read
            return got
    head, _, body = got.partition(b"\r\n\r\n")
    length = next((int(each.split(b":")[1]) for each in head.split(b"\r\n") if each.lower().startswith(b"content-length")), 0)
    while len(body) < length:
        body += line.recv(65_536)
    return head + b"\r\n\r\n" + body


def says(status: str, body: bytes = b"", *headers: str) -> Serve:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "Connection: close", "", ""])
    return lambda line, _: line.sendall(head.encode() + body)


def link(url: str, kind: str = "influxdb1", timeout_s: float = GUARD_S / 3, **more: object) -> Link:
    config = {"id": "plant", "kind": kind, "url": url, "timeout_s": timeout_s, "org": "works", "database": "points"}
    return Link(TimeSeriesStoreConfig.model_validate({**config, **more}), "s3cret", Path())


@pytest.mark.parametrize("kind", KINDS)
def test_an_endless_error_is_read_up_to_its_bound(kind: str) -> None:
    def endless(line: socket.socket, _: bytes) -> None:
        line.sendall(b"HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\n\r\n")
        while True:
            line.sendall(b"x" * 65_536)

    with peer(endless) as (url, _):
        store = link(url, kind)
        assert isinstance(store.write(b"m v=1 1", "ms"), Away)
        if kind == "influxdb1":
            assert len(store.send("POST", "/write", b"").body) == ERROR_BYTES_MAX


@pytest.mark.parametrize("kind", KINDS)
def test_a_compressed_bomb_is_not_unpacked(kind: str) -> None:
    bomb = gzip.compress(b"x" * 50_000_000)
    with peer(says("400 Bad Request", bomb, "Content-Encoding: gzip")) as (url, _):
        store = link(url, kind)
        decision = store.write(b"m v=1 1", "ms")
        assert isinstance(decision, Refused)
        assert len(decision.reason) < 5_000


@pytest.mark.parametrize("kind", KINDS)
def test_one_byte_a_moment_meets_the_deadline(kind: str) -> None:
    def dribble(line: socket.socket, _: bytes) -> None:
        line.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 100000\r\n\r\n")
        while True:
            line.sendall(b"x")
            time.sleep(0.02)

    with peer(dribble) as (url, _):
        began = time.monotonic()
        decision = link(url, kind, timeout_s=1.0).write(b"m v=1 1", "ms")
        assert isinstance(decision, Away)
        assert "timeout_s" in decision.reason
        assert time.monotonic() - began < 10, "it would take half an hour"


DRIBBLED = {
    "status": b"HTTP/1.1 204 No Content" + b" and so on" * 100,
    "headers": b"HTTP/1.1 204 No Content\r\n" + b"X-Told: slowly, byte by byte\r\n" * 40,
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 40,
    "chunks": b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100,
}


@pytest.mark.parametrize("what", DRIBBLED)
@pytest.mark.parametrize("kind", ["influxdb1", "influxdb2"])
def test_an_answer_that_dribbles_anywhere_meets_the_one_deadline_of_its_request(kind: str, what: str) -> None:
    """Each byte comes well within the time; all of them together never do."""

    def dribble(line: socket.socket, _: bytes) -> None:
        for byte in DRIBBLED[what]:
            line.sendall(bytes([byte]))
            time.sleep(0.05)
        line.recv(1)

    with peer(dribble) as (url, _):
        began = time.monotonic()
        decision = link(url, kind, timeout_s=1.0).write(b"m v=1 1", "ms")
        assert isinstance(decision, Away)
        assert "timeout_s" in decision.reason
        assert time.monotonic() - began < 10, "it would take half a minute"


def test_a_question_whose_answer_dribbles_meets_its_deadline() -> None:
    def dribble(line: socket.socket, _: bytes) -> None:
        for byte in DRIBBLED["headers"]:
            line.sendall(bytes([byte]))
            time.sleep(0.05)
        line.recv(1)

    with peer(dribble) as (url, _):
        began = time.monotonic()
        with pytest.raises(DeadlineError):
            list(link(url).lines("/query", {"q": "x"}, 0.5))
        assert time.monotonic() - began < 10


def test_who_does_not_answer_at_all_meets_it_too() -> None:
    with peer(lambda line, _: line.recv(1) and None) as (url, _):
        assert isinstance(link(url, timeout_s=1.0).write(b"m v=1 1", "ms"), Away)
        with pytest.raises(DeadlineError):
            list(link(url).lines("/query", {"q": "x"}, 0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_a_redirect_is_a_refusal_and_is_not_followed(kind: str) -> None:
    with peer(says("204 No Content")) as (elsewhere, wrongly), peer(says("307 Temporary Redirect", b"", f"Location: {elsewhere}/")) as (
        url, _,
    ):  # fmt: skip
        assert isinstance(link(url, kind).write(b"m v=1 1", "ms"), Refused)
        assert wrongly == []


@pytest.mark.parametrize(("status", "wait_s"), [("429 Too Many Requests", 7.0), ("503 Service Unavailable", 7.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_retry_after_reaches_who_has_to_wait(kind: str, status: str, wait_s: float) -> None:
    with peer(says(status, b'{"error":"slow down"}', "Retry-After: 7")) as (url, _):
        decision = link(url, kind).write(b"m v=1 1", "ms")
        assert isinstance(decision, Away)
        assert decision.retry_after_s == wait_s


def test_nobody_there_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    store = link(f"http://127.0.0.1:{port}")
    decision = store.write(b"m v=1 1", "ms")
    assert isinstance(decision, Away)
    assert "cannot be reached" in decision.reason
    assert "0x" not in decision.reason, "no object addresses"
    with pytest.raises(StoreAwayError):
        store.send("GET", "/ping")


def test_a_server_that_ends_in_mid_answer_is_away() -> None:
    with peer(lambda line, _: line.sendall(b"HTTP/1.1 20")) as (url, _):
        assert isinstance(link(url).write(b"m v=1 1", "ms"), Away)
    with peer(lambda line, _: line.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nx")) as (url, _):
        assert isinstance(link(url).write(b"m v=1 1", "ms"), Away)


def test_plain_http_where_tls_is_configured_names_the_ca_file() -> None:
    with peer(says("204 No Content")) as (url, _):
        decision = link(url.replace("http://", "https://")).write(b"m v=1 1", "ms")
    assert isinstance(decision, Refused)
    assert "ca_file" in decision.reason
    with pytest.raises(StoreRefusedError, match="ca_file"):
        link("https://127.0.0.1:1", ca_file="no-such.pem")


RECORDED = {
    # The requests that each version documents for a write of line protocol with millisecond times:
    # 1.8: POST /write?db=&precision=ms&rp= (Basic); 2.7: POST /api/v2/write?org=&bucket=&precision=ms (Token);
    # 3 Core: POST /api/v3/write_lp?db=&precision=millisecond&accept_partial=true (Bearer).
    # Sources: docs-v2, api-docs/influxdb/v2/v2/ref.yml and api-docs/influxdb3/core/influxdb3-core-openapi.yaml.
    "influxdb1": (b"POST /write?db=points&precision=ms&rp=year HTTP/1.1", b"authorization: Basic am9lOnMzY3JldA=="),
    "influxdb2": (b"POST /api/v2/write?org=works&bucket=points&precision=ms HTTP/1.1", b"authorization: Token s3cret"),
    "influxdb3": (
        b"POST /api/v3/write_lp?db=points&precision=millisecond&accept_partial=true HTTP/1.1", b"authorization: Bearer s3cret",
    ),
    "victoriametrics": (b"POST /api/v2/write?org=works&bucket=points&precision=ms HTTP/1.1", b"authorization: Bearer s3cret"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_write_is_the_request_that_the_documentation_asks_for(kind: str) -> None:
    """2.x and 3 Core have not been run: this, and the answers in `test_answers`, is what stands for them."""
    more = {"username": "joe", "retention_policy": "year"} if kind == "influxdb1" else {}
    with peer(says("204 No Content")) as (url, requests):
        assert isinstance(link(url, kind, **more).write(b"m,a=b v=1 1\nm v=2 2", "ms"), Stored)
    (request,) = requests
    head, _, body = request.partition(b"\r\n\r\n")
    line, authorization = RECORDED[kind]
    assert head.split(b"\r\n")[0] == line
    assert authorization in head
    assert b"text/plain" in head
    assert body == b"m,a=b v=1 1\nm v=2 2"
