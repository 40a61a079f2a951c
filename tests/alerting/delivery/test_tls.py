"""TLS: what a receiver's certificate must be, over real connections on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from alerting.delivery import HttpPost, NoAnswerError
from tests.alerting.delivery.senders import receiver
from tests.patience import GUARD_S

HERE = Path(__file__).parent / "certificates"  # made by make.sh there
RULES = receiver().address_rules()


@contextlib.asynccontextmanager
async def tls_server(name: str, newest: ssl.TLSVersion | None = None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve 200 under a certificate; yield its URL and what it was sent in clear."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(HERE / f"{name}.pem", HERE / "server.key")
    if newest is not None:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSVersion"):
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", heard


async def attempt(url: str, ca_file: Path | None) -> int | str:
    """Return the status, or the reason and detail of the failure."""
    post = HttpPost(url, RULES, ca_file=ca_file)
    try:
        return (await post.post({}, b"{}", GUARD_S)).status
    except NoAnswerError as error:
        return str(error)
    finally:
        await post.close()


@pytest.mark.fault("F39")
@pytest.mark.parametrize(
    ("certificate", "ca_file", "shown"),
    [
        pytest.param("right", "authority.pem", 200, id="signed by the receiver's own authority"),
        pytest.param("self_signed", "self_signed.pem", 200, id="self-signed and named as its authority"),
        pytest.param("right", None, "certificate: unable to get local issuer", id="unknown authority"),
        pytest.param("self_signed", "authority.pem", "certificate: self", id="self-signed"),
        pytest.param("other_host", "authority.pem", "certificate: IP address mismatch", id="of another host"),
        pytest.param("expired", "authority.pem", "certificate: certificate has expired", id="expired"),
        pytest.param("right", "missing.pem", "certificate: ca_file", id="authority file missing"),
        pytest.param("right", "make.sh", "certificate: ca_file", id="authority file is none"),
    ],
)
def test_certificates(certificate: str, ca_file: str | None, shown: int | str) -> None:
    async def scenario() -> None:
        async with tls_server(certificate) as (url, heard):
            found = await attempt(url, None if ca_file is None else HERE / ca_file)
            if isinstance(shown, int):
                assert found == shown
                assert len(heard) == 1
            else:
                assert str(found).startswith(shown)
                assert heard == [], "nothing was sent before the certificate was judged"

    asyncio.run(scenario())


@pytest.mark.fault("F39")
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_an_outdated_protocol_is_refused(newest: ssl.TLSVersion) -> None:
    async def scenario() -> None:
        async with tls_server("right", newest) as (url, heard):
            assert str(await attempt(url, HERE / "authority.pem")).startswith(("tls: ", "connect: "))
            assert heard == []
            # The server is sound: a client content with the old protocol is served.
            lax = ssl.create_default_context(cafile=str(HERE / "authority.pem"))
            lax.set_ciphers("DEFAULT:@SECLEVEL=0")
            with pytest.warns(DeprecationWarning, match="TLSVersion"):
                lax.minimum_version = ssl.TLSVersion.TLSv1
            port = int(url.rsplit(":", 1)[1].strip("/"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=lax)
            writer.write(b"POST / HTTP/1.1\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()

    asyncio.run(scenario())


@pytest.mark.fault("F39")
def test_a_server_that_speaks_no_tls_gets_nothing_in_clear() -> None:
    async def scenario() -> None:
        heard: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(4096))
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            assert str(await attempt(url, None)).startswith("tls: ")
        assert heard
        assert not any(b"POST" in part for part in heard)

    asyncio.run(scenario())
