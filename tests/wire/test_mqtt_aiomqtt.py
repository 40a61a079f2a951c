"""The shell over aiomqtt against brokers that misbehave: silent, refusing, closing, frozen, hostile.

Most of them are scripts on a loopback port, since a healthy broker does not do these things on demand.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

import wire.mqtt_aiomqtt as shell
from benchmarks.ports import free_port
from tests import brokers
from tests.patience import GUARD_S
from wire import (
    AioMqttConnector,
    BrokerAddress,
    BrokerRefusedError,
    BrokerUnavailableError,
    LinkLostError,
    MqttLink,
    SubscribeRefusedError,
)

CONNECT, PUBLISH, SUBSCRIBE, DISCONNECT = 1, 3, 8, 14
CONNACK_YES = b"\x20\x02\x00\x00"

Answer = Callable[[int, bytes], bytes | None]  # packet type and body in, bytes out; None closes the connection


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is late because this machine is; a test of a limit sets its own."""
    for limit in ("CONNECT_S_MAX", "ANSWER_S_MAX"):
        monkeypatch.setattr(shell, limit, GUARD_S)


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], None]:
    """Runs a dialogue on one kind of loop; fails if it leaves a task or an open socket of ours behind."""
    def runner(dialogue: Callable[[], Awaitable[Any]]) -> None:
        async def watched() -> None:
            await asyncio.wait_for(dialogue(), GUARD_S)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks left behind: {left}"
        with asyncio.Runner(loop_factory=request.param) as loop:
            loop.run(watched())
    return runner


class Script:
    """A broker that does what a function says, and keeps what it was sent."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.packets: list[tuple[int, bytes]] = []
        self.connections = 0
        self.open = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                kind, length, shift = (await reader.readexactly(1))[0] >> 4, 0, 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                body = await reader.readexactly(length)
                self.packets.append((kind, body))
                answer = self.answer(kind, body)
                if answer is None:
                    break
                writer.write(answer)
        self.open -= 1
        writer.close()


@contextlib.asynccontextmanager
async def scripted(answer: Answer, keepalive_s: int = 60) -> AsyncIterator[tuple[Script, AioMqttConnector]]:
    script = Script(answer)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield script, AioMqttConnector(BrokerAddress("127.0.0.1", port, keepalive_s=keepalive_s))
    finally:
        server.close()
        for writer in script.writers:
            writer.close()
        while script.open:
            await asyncio.sleep(0.01)


def polite(kind: int, body: bytes) -> bytes | None:
    """Answer as a broker should; at SUBSCRIBE grant one filter."""
    if kind == SUBSCRIBE:
        return b"\x90\x03" + body[:2] + b"\x00"
    return {CONNECT: CONNACK_YES, DISCONNECT: None}.get(kind, b"")


async def refused_entry(connector: AioMqttConnector) -> BrokerUnavailableError:
    with pytest.raises(BrokerUnavailableError) as caught:
        async with connector.connect("edge"):
            pytest.fail("connected")
    return caught.value


def test_nobody_listening_is_told_at_once_with_the_address(run: Any) -> None:
    async def dialogue() -> None:
        port = free_port()
        error = await refused_entry(AioMqttConnector(BrokerAddress("127.0.0.1", port)))
        assert f"127.0.0.1:{port}" in str(error)
        assert "broker.port" in str(error)
    run(dialogue)


def test_a_name_without_address_is_unavailable(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dialogue() -> None:
        await refused_entry(AioMqttConnector(BrokerAddress("no-such-host.invalid")))
    asked = socket.getaddrinfo

    def unknown(host: Any, *more: Any, **named: Any) -> Any:
        if host == "no-such-host.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return asked(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # a machine without network may ask for its name server for minutes
    run(dialogue)


def test_a_listener_that_says_nothing_is_given_up_after_the_limit(run: Any,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "CONNECT_S_MAX", 0.3)

    async def dialogue() -> None:
        async with scripted(lambda kind, body: b"") as (script, connector):
            began = time.monotonic()
            error = await refused_entry(connector)
            assert time.monotonic() - began > 0.25
            assert "no answer within 0.3 s" in error.reason
            while script.open:  # nothing of the attempt stays connected
                await asyncio.sleep(0.01)
    run(dialogue)


def test_a_listener_that_closes_is_given_up_at_once(run: Any) -> None:
    async def dialogue() -> None:
        async with scripted(lambda kind, body: None) as (_, connector):
            assert "no answer within" not in (await refused_entry(connector)).reason
    run(dialogue)


@pytest.mark.parametrize(("code", "words"), [(2, "identifier"), (3, "unavailable"), (4, "password"),
                                             (5, "authorized")])
def test_a_refusal_is_an_error_of_its_own_with_the_reason(run: Any, code: int, words: str) -> None:
    async def dialogue() -> None:
        async with scripted(lambda kind, body: b"\x20\x02\x00" + bytes([code])) as (_, connector):
            error = await refused_entry(connector)
            assert isinstance(error, BrokerRefusedError)
            assert words in error.reason.lower()
    run(dialogue)


@pytest.mark.parametrize("run", [None], indirect=True, ids=["asyncio"])
def test_garbage_instead_of_mqtt_is_unavailable(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "CONNECT_S_MAX", 1.0)

    async def dialogue() -> None:
        async with scripted(lambda kind, body: b"HTTP/1.1 400 Bad Request\r\n\r\n") as (_, connector):
            await refused_entry(connector)
    run(dialogue)


def test_an_attempt_that_is_cancelled_leaves_no_client_behind(run: Any) -> None:
    """Paho's thread would connect later and take the session from the next attempt with the same id."""
    async def dialogue() -> None:
        async with scripted(lambda kind, body: b"") as (script, connector):
            for pause in (0.0, 0.0, 0.001, 0.003, 0.01, 0.1):
                attempt = asyncio.create_task(refused_entry(connector))
                await asyncio.sleep(pause)
                attempt.cancel()
                await asyncio.wait({attempt})
                assert attempt.cancelled()
            while script.open:
                await asyncio.sleep(0.01)
    run(dialogue)


@pytest.mark.spec("tck-id-principles-persistence-clean-session-311")
@pytest.mark.spec("tck-id-message-flow-phid-sparkplug-clean-session-311")
def test_one_attempt_opens_one_connection(run: Any) -> None:
    """The shell dials itself and hands paho the socket; paho must not dial again."""
    async def dialogue() -> None:
        async with scripted(polite) as (script, connector):
            async with connector.connect("edge"):
                assert script.connections == 1
            while script.open:  # it may still have to read the goodbye
                await asyncio.sleep(0.01)
            assert [kind for kind, _ in script.packets] == [CONNECT, DISCONNECT]
            connect = script.packets[0][1]
            assert connect[:7] == b"\x00\x04MQTT\x04", "MQTT 3.1.1"
            assert connect[7] == 0x02, "clean session, no will, no user"
    run(dialogue)


def test_small_packets_are_not_held_back(run: Any) -> None:
    async def dialogue() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            dialled = await shell._dial("127.0.0.1", server.getsockname()[1])
            assert dialled.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            dialled.close()
    run(dialogue)


def test_a_broker_of_another_protocol_version_is_unavailable_and_not_dialled_again(run: Any) -> None:
    async def dialogue() -> None:
        async with scripted(lambda kind, body: b"\x20\x02\x00\x01") as (script, connector):
            await refused_entry(connector)
            assert script.connections == 1
    run(dialogue)


def test_filters_that_are_not_granted_are_named(run: Any) -> None:
    async def dialogue() -> None:
        def grant_the_first(kind: int, body: bytes) -> bytes | None:
            return b"\x90\x04" + body[:2] + b"\x01\x80" if kind == SUBSCRIBE else polite(kind, body)

        async with scripted(grant_the_first) as (_, connector), connector.connect("edge") as link:
            with pytest.raises(SubscribeRefusedError) as caught:
                await link.subscribe([("granted", 1), ("refused/#", 1)])
            assert caught.value.filters == ("refused/#",)
    run(dialogue)


def test_an_answer_that_does_not_come_ends_the_link_for_everybody(run: Any,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "ANSWER_S_MAX", 0.2)

    async def dialogue() -> None:
        async with scripted(polite) as (_, connector), connector.connect("edge") as link:
            with pytest.raises(LinkLostError, match="no PUBACK"):
                await link.publish("t", b"x", qos=1)
            with pytest.raises(LinkLostError):
                await anext(link.messages())
    run(dialogue)


def test_a_topic_that_is_not_text_costs_one_message_and_not_the_link(run: Any) -> None:
    async def dialogue() -> None:
        hostile, honest = b"\x30\x05\x00\x02\xff\xfex", b"\x30\x04\x00\x01ty"

        def send_both(kind: int, body: bytes) -> bytes | None:
            answer = polite(kind, body)
            return (answer or b"") + hostile + honest if kind == SUBSCRIBE else answer

        async with scripted(send_both) as (_, connector), connector.connect("edge") as link:
            await link.subscribe([("#", 0)])
            message = await anext(link.messages())
            assert (message.topic, message.payload) == ("t", b"y")
            assert link.dropped == 1
    run(dialogue)


@pytest.mark.parametrize("run", [uvloop.new_event_loop], indirect=True, ids=["uvloop"])
def test_a_broker_that_falls_silent_is_noticed_by_keepalive(run: Any) -> None:
    async def dialogue() -> None:
        async with scripted(polite, keepalive_s=1) as (_, connector), connector.connect("edge") as link:
            with pytest.raises(LinkLostError):
                await asyncio.wait_for(anext(link.messages()), GUARD_S / 2)
    run(dialogue)


def test_a_message_leaves_in_the_turn_of_the_loop_that_publishes_it(run: Any) -> None:
    async def dialogue() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            attempt = AioMqttConnector(BrokerAddress("127.0.0.1", server.getsockname()[1])).connect("edge")
            entering = asyncio.create_task(attempt.__aenter__())
            peer, _ = await asyncio.to_thread(server.accept)
            with peer:
                peer.settimeout(GUARD_S / 4)
                peer.sendall(CONNACK_YES)
                link = await entering
                await asyncio.to_thread(peer.recv, 1000)  # CONNECT
                for message in (b"first", b"second"):
                    publishing = asyncio.create_task(link.publish("t", message))
                    await asyncio.sleep(0)  # one turn, in which nothing but the publisher has run
                    assert message in peer.recv(1000)  # the loop stands still: only the kernel may take its time
                    await publishing
            await attempt.__aexit__(None, None, None)
    run(dialogue)


def test_who_publishes_without_end_lets_others_run(run: Any) -> None:
    async def dialogue() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            attempt = AioMqttConnector(BrokerAddress("127.0.0.1", server.getsockname()[1])).connect("edge")
            entering = asyncio.create_task(attempt.__aenter__())
            peer, _ = await asyncio.to_thread(server.accept)
            with peer:
                peer.sendall(CONNACK_YES)
                link = await entering
                turns = 0

                async def other() -> None:
                    nonlocal turns
                    while True:
                        turns += 1
                        await asyncio.sleep(0)

                beside = asyncio.create_task(other())
                for _ in range(20):
                    await link.publish("t", b"x")
                beside.cancel()
                assert turns >= 20
            await attempt.__aexit__(None, None, None)
    run(dialogue)


def test_a_full_socket_ends_the_link_instead_of_growing_a_queue(run: Any,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "ANSWER_S_MAX", 0.3)

    async def dialogue() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            connector = AioMqttConnector(BrokerAddress("127.0.0.1", server.getsockname()[1]))

            async def fill(link: MqttLink) -> None:
                while True:
                    await link.publish("t", bytes(1_000_000))

            attempt = connector.connect("edge")
            entering = asyncio.create_task(attempt.__aenter__())
            peer, _ = await asyncio.to_thread(server.accept)
            with peer:
                peer.sendall(CONNACK_YES)  # and never reads again
                link = await entering
                with pytest.raises(LinkLostError):
                    await asyncio.wait_for(fill(link), GUARD_S / 2)
                await attempt.__aexit__(None, None, None)
    run(dialogue)


def test_no_socket_stays_open_after_a_link(run: Any) -> None:
    async def dialogue() -> None:
        async with scripted(polite) as (_, connector):
            for _round in range(3):
                async with connector.connect("edge") as link:
                    await link.publish("t", b"x")
                with contextlib.suppress(ZeroDivisionError):
                    async with connector.connect("edge"):
                        raise ZeroDivisionError
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    run(dialogue)
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_nats_server_refuses_a_wrong_password(run: Any, tmp_path: Path) -> None:
    async def dialogue() -> None:
        with brokers.running("nats-server", tmp_path / "nats", password="right") as broker:
            def address(password: str) -> BrokerAddress:
                return BrokerAddress(broker.host, broker.port, "edge", password)

            error = await refused_entry(AioMqttConnector(address("wrong")))
            assert isinstance(error, BrokerRefusedError)
            assert "wrong" not in str(error) + repr(address("wrong"))
            async with AioMqttConnector(address("right")).connect("edge") as link:
                await link.publish("t", b"x", qos=1)
    run(dialogue)


@pytest.mark.parametrize("run", [None], indirect=True, ids=["asyncio"])
def test_a_frozen_broker_is_lost_and_its_return_does_not_confuse_a_new_link(run: Any, tmp_path: Path) -> None:
    async def dialogue() -> None:
        with brokers.running("nats-server", tmp_path / "nats") as broker:
            def connector(keepalive_s: int) -> AioMqttConnector:
                return AioMqttConnector(BrokerAddress(broker.host, broker.port, keepalive_s=keepalive_s))

            async with connector(1).connect("edge") as link:
                broker.freeze()
                with pytest.raises(LinkLostError):
                    await asyncio.wait_for(anext(link.messages()), GUARD_S / 2)
            broker.thaw()
            async with connector(60).connect("edge") as link:
                await link.subscribe([("t", 0)])
                await link.publish("t", b"x")
                assert (await anext(link.messages())).payload == b"x"
    run(dialogue)


def test_a_link_over_tls_is_checked_and_carries_messages(run: Any, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    try:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                        "-nodes", "-keyout", key, "-out", certificate, "-days", "1", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl")

    async def dialogue() -> None:
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(certificate, key)
        script = Script(lambda kind, body: polite(kind, body) if kind != PUBLISH else b"\x30\x04\x00\x01ty" * 50)
        server = await asyncio.start_server(script.serve, "127.0.0.1", 0, ssl=serving)
        port = server.sockets[0].getsockname()[1]
        stranger = ssl.create_default_context()
        await refused_entry(AioMqttConnector(BrokerAddress("127.0.0.1", port, tls=stranger)))
        known = ssl.create_default_context(cafile=str(certificate))
        async with AioMqttConnector(BrokerAddress("127.0.0.1", port, tls=known)).connect("edge") as link:
            await link.publish("t", bytes(200_000))
            reader = link.messages()
            for _ in range(50):
                assert (await anext(reader)).payload == b"y"
        with contextlib.suppress(ZeroDivisionError):
            async with AioMqttConnector(BrokerAddress("127.0.0.1", port, tls=known)).connect("edge"):
                raise ZeroDivisionError
        server.close()
        while script.open:
            await asyncio.sleep(0.01)
    run(dialogue)
