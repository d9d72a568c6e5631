"""wss:// and tls://, with an authority made on the spot: who is not proven to be there is not
spoken to, on either side."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import ssl
from typing import Any

import pytest
import trio
import trustme

from tests.addresses import AUTHORITY, client_context, server_context
from tests.end_to_end.network import raw_client, relaying, reset, serving
from tests.service import Service
from trio_streamrpc import (
    ConnectionLost,
    Handshake,
    Limits,
    Unauthenticated,
    Unavailable,
    connect,
    current_call,
    rpc,
)

WSS = "wss://127.0.0.1:0"
ENCRYPTED = pytest.mark.parametrize("url", [WSS, "tls://127.0.0.1:0"])


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_calls_and_streams(encoding: Any) -> None:
    service = Service()
    async with serving(service, WSS, ssl_context=server_context()) as server:
        assert server.url.startswith("wss://127.0.0.1:")
        async with connect(
            server.url, encoding=encoding, ssl_context=client_context(), serving=Service()
        ) as connection:
            assert await connection.call("add_there", 1, 2) == 3
            echo = connection.proxy(Service).echo
            assert await echo(bytes(500_000)) == bytes(500_000)
            async with connection.stream("forever", 20_000) as stream:
                for _ in range(100):
                    await stream.receive()
            assert service.ended == ["forever"]
            [there] = server.connections
            assert there.remote.startswith("127.0.0.1:")


async def test_leaving_while_much_runs() -> None:
    service = Service()
    async with serving(service, WSS, ssl_context=server_context()) as server:
        async with connect(server.url, ssl_context=client_context()) as connection:
            stream = connection.stream("forever", 1000)
            await stream.receive()
        assert service.ended == ["forever"]


async def refused(url: str, context: ssl.SSLContext | None, **options: Any) -> str:
    with trio.fail_after(10):
        with pytest.raises(Unavailable, match="cannot connect to") as caught:
            async with connect(url, ssl_context=context, **options):
                pytest.fail("the block must not begin")
    assert caught.value.__suppress_context__
    return str(caught.value)


@ENCRYPTED
async def test_an_authority_that_is_not_trusted(url: str) -> None:
    """Verification is on by default."""
    async with serving(Service(), url, ssl_context=server_context()) as server:
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(server.url, None)


@ENCRYPTED
async def test_a_certificate_for_another_host(url: str) -> None:
    context = server_context("elsewhere.example")
    async with serving(Service(), url, ssl_context=context) as server:
        assert "127.0.0.1" in await refused(server.url, client_context())


@ENCRYPTED
async def test_a_certificate_that_has_expired(url: str) -> None:
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    context = server_context("127.0.0.1", not_after=yesterday)
    async with serving(Service(), url, ssl_context=context) as server:
        assert "expired" in await refused(server.url, client_context())


async def test_plaintext_on_the_tls_port() -> None:
    async with serving(Service(), WSS, ssl_context=server_context()) as server:
        with trio.fail_after(10):
            with pytest.raises(Unavailable):
                async with connect("ws" + server.url.removeprefix("wss")):
                    pytest.fail("the block must not begin")
        async with connect(server.url, ssl_context=client_context()) as connection:
            assert await connection.call("add", 1, 2) == 3


async def test_tls_on_the_plaintext_port() -> None:
    async with serving(Service()) as server:
        await refused("wss" + server.url.removeprefix("ws"), client_context())


async def test_handshakes_that_stall_break_off_or_are_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On the side of the server: in time, and with nothing in the log above a note."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)
    limits = Limits(handshake_timeout=1)
    async with serving(Service(), WSS, ssl_context=server_context(), limits=limits) as server:

        async def bother(data: bytes, end: str) -> None:
            async with raw_client(server.url) as raw:
                if data:
                    await raw.send(data)
                if end == "reset":
                    assert isinstance(raw.stream, trio.SocketStream)
                    reset(raw.stream)
                    return
                with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
                    while await raw.stream.receive_some():
                        pass

        async with trio.open_nursery() as nursery:
            for data in (b"", b"\x16", hello, bytes(1000), b"GET / HTTP/1.1\r\n\r\n"):
                for end in ("wait", "reset"):
                    nursery.start_soon(bother, data, end)
        async with connect(server.url, ssl_context=client_context()) as connection:
            assert await connection.call("add", 1, 2) == 3
    assert caplog.records == []


async def test_a_server_that_stalls_in_the_handshake() -> None:
    async def stall(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(
            functools.partial(trio.serve_tcp, stall, 0, host="127.0.0.1")
        )
        url = f"wss://127.0.0.1:{listener.socket.getsockname()[1]}"
        with pytest.raises(Unavailable, match=r"did not answer within 0.2 s"):
            async with connect(
                url, ssl_context=client_context(), limits=Limits(handshake_timeout=0.2)
            ):
                pytest.fail("the block must not begin")
        nursery.cancel_scope.cancel()


async def test_a_server_that_goes_without_a_word() -> None:
    """Cut off in the middle of TLS: that is no OSError, and no ssl.SSLError."""
    async with serving(Service(), WSS, ssl_context=server_context()) as server:
        async with relaying(server.url, cut_down=20_000) as relay:
            with pytest.raises(ConnectionLost):
                async with connect(relay.url, ssl_context=client_context()) as connection:
                    async with connection.stream("forever", 1000) as stream:
                        async for _ in stream:
                            pass


# --- certificates of clients


class Who:
    @rpc
    async def am_i(self) -> str:
        return str(current_call().identity)


class Certificates:
    """An ``authenticate`` that goes by the client's certificate."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, handshake: Handshake) -> str:
        certificate = handshake.certificate
        self.seen.append(certificate)
        if certificate is None:
            raise Unauthenticated("a certificate, please")
        [(_, name)] = certificate["subjectAltName"]
        return str(name)


def asking(mode: ssl.VerifyMode) -> ssl.SSLContext:
    """The context of a server that asks its clients for a certificate."""
    context = server_context()
    AUTHORITY.configure_trust(context)
    context.verify_mode = mode
    return context


def showing(authority: trustme.CA = AUTHORITY, **options: Any) -> ssl.SSLContext:
    """The context of a client that shows one."""
    context = client_context()
    authority.issue_cert("alice@example.com", **options).configure_cert(context)
    return context


@ENCRYPTED
@pytest.mark.parametrize("mode", [ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL])
async def test_a_client_with_a_certificate(url: str, mode: ssl.VerifyMode) -> None:
    certificates = Certificates()
    async with serving(Who(), url, ssl_context=asking(mode), authenticate=certificates) as server:
        async with connect(server.url, ssl_context=showing()) as connection:
            assert await connection.call("am_i") == "alice@example.com"
    [seen] = certificates.seen
    assert set(seen) >= {"subject", "issuer", "serialNumber", "notAfter", "subjectAltName"}


@ENCRYPTED
async def test_a_client_without_one_where_it_is_required(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody decides about it; and others are served before and after."""
    certificates = Certificates()
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    nobody = trustme.CA()
    context = asking(ssl.CERT_REQUIRED)
    async with serving(Who(), url, ssl_context=context, authenticate=certificates) as server:
        async with connect(server.url, ssl_context=showing()) as connection:
            for bad in (client_context(), showing(nobody), showing(not_after=yesterday)):
                with trio.fail_after(10):
                    with pytest.raises(Unavailable, match="certificate"):
                        async with connect(server.url, ssl_context=bad):
                            pytest.fail("the block must not begin")
            assert await connection.call("am_i") == "alice@example.com"
            assert len(server.connections) == 1
        async with connect(server.url, ssl_context=showing()) as connection:
            assert await connection.call("am_i") == "alice@example.com"
    assert len(certificates.seen) == 2
    assert caplog.records == []


@ENCRYPTED
async def test_a_client_without_one_where_it_is_optional(url: str) -> None:
    """Then it is authenticate that refuses, in its own words."""
    certificates = Certificates()
    context = asking(ssl.CERT_OPTIONAL)
    async with serving(Who(), url, ssl_context=context, authenticate=certificates) as server:
        with pytest.raises(Unauthenticated, match=r"^a certificate, please$"):
            async with connect(server.url, ssl_context=client_context()):
                pytest.fail("the block must not begin")
        # One that cannot be verified is no better than none: TLS itself refuses it.
        with pytest.raises(Unavailable):
            async with connect(server.url, ssl_context=showing(trustme.CA())):
                pytest.fail("the block must not begin")
    assert certificates.seen == [None]


@ENCRYPTED
async def test_a_client_that_is_asked_for_none(url: str) -> None:
    """What it would have shown does not count."""
    certificates = Certificates()
    async with serving(
        Who(), url, ssl_context=server_context(), authenticate=certificates
    ) as server:
        with pytest.raises(Unauthenticated):
            async with connect(server.url, ssl_context=showing()):
                pytest.fail("the block must not begin")
    assert certificates.seen == [None]
