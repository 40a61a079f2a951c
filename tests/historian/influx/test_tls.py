"""A store over TLS: whom we talk to is judged before anything is sent, and the deadline holds there, too."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress

import pytest

from gateway.historian.influx.answers import Away, Decision, Refused, Stored
from tests.alerting.delivery.test_tls import HERE
from tests.historian.influx.test_http import Serve, link, peer
from tests.patience import GUARD_S

BODY = b"m v=1 1"


def over_tls(certificate: str, serve: Serve) -> Serve:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / f"{certificate}.pem", HERE / "server.key")

    def serve_tls(line: socket.socket, _: bytes) -> None:
        with suppress(ssl.SSLError), context.wrap_socket(line, server_side=True) as wrapped:
            serve(wrapped, b"")

    return serve_tls


def written(certificate: str, ca_file: str | None, serve: Serve, body: bytes = BODY, timeout_s: float = GUARD_S / 3) -> Decision:
    with peer(over_tls(certificate, serve), reads=False) as (url, _):
        more = {} if ca_file is None else {"ca_file": str(HERE / ca_file)}
        return link(url.replace("http://", "https://"), timeout_s=timeout_s, **more).write(body, "ms")


def answers(line: socket.socket, _: bytes) -> None:
    got = b""
    while not got.endswith(BODY):  # what is left unread resets the connection, and with it the answer
        got += line.recv(65_536)
    line.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")


@pytest.mark.fault("F39")
@pytest.mark.parametrize(
    ("certificate", "ca_file", "cause"),
    [
        pytest.param("right", "authority.pem", "", id="signed by its own authority"),
        pytest.param("self_signed", "self_signed.pem", "", id="self-signed and named as its authority"),
        pytest.param("right", None, "unable to get local issuer", id="unknown authority"),
        pytest.param("self_signed", "authority.pem", "self-signed", id="self-signed"),
        pytest.param("other_host", "authority.pem", "IP address mismatch", id="of another host"),
        pytest.param("expired", "authority.pem", "has expired", id="expired"),
    ],
)
def test_a_certificate_is_judged_before_anything_is_sent(certificate: str, ca_file: str | None, cause: str) -> None:
    heard = []

    def listens(line: socket.socket, request: bytes) -> None:
        heard.append(line)
        answers(line, request)

    decision = written(certificate, ca_file, listens)
    if cause:
        assert isinstance(decision, Refused)
        assert cause in decision.reason
        assert cause in decision.reason_zh
        assert "ca_file" in decision.reason_zh
    else:
        assert isinstance(decision, Stored)
        assert heard


def test_over_tls_an_answer_that_dribbles_meets_the_deadline() -> None:
    def dribble(line: socket.socket, _: bytes) -> None:
        line.recv(65_536)
        for byte in b"HTTP/1.1 204 No Content\r\n" + b"X-Told: slowly, byte by byte\r\n" * 40:
            line.sendall(bytes([byte]))
            time.sleep(0.05)

    began = time.monotonic()
    assert isinstance(written("right", "authority.pem", dribble, timeout_s=1.0), Away)
    assert time.monotonic() - began < 10, "it would take a minute"


def test_over_tls_who_reads_slowly_meets_the_deadline() -> None:
    """Each record goes through well within the time; all of them together never do."""

    def reads_slowly(line: socket.socket, _: bytes) -> None:
        for _ in range(100):
            if not line.recv(16_384):
                return
            time.sleep(0.1)

    began = time.monotonic()
    decision = written("right", "authority.pem", reads_slowly, b"x" * 16_000_000, timeout_s=1.0)
    assert isinstance(decision, Away)
    assert "timeout_s" in decision.reason
    assert time.monotonic() - began < 10, "it would take a minute and a half"
