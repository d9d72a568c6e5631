"""wss://, with an authority made on the spot: who is not proven to be there is not spoken to."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import ssl
from typing import Any

import pytest
import trio

from tests.addresses import client_context, server_context
from tests.end_to_end.network import raw_client, relaying, reset, serving
from tests.service import Service
from trio_streamrpc import ConnectionLost, Limits, Unavailable, connect

WSS = "wss://127.0.0.1:0"


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


async def test_an_authority_that_is_not_trusted() -> None:
    """Verification is on by default."""
    async with serving(Service(), WSS, ssl_context=server_context()) as server:
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(server.url, None)


async def test_a_certificate_for_another_host() -> None:
    context = server_context("elsewhere.example")
    async with serving(Service(), WSS, ssl_context=context) as server:
        assert "127.0.0.1" in await refused(server.url, client_context())


async def test_a_certificate_that_has_expired() -> None:
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    context = server_context("127.0.0.1", not_after=yesterday)
    async with serving(Service(), WSS, ssl_context=context) as server:
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
