"""A peer of a wire without pings is asked by the transport, where that can."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.service import Service
from trio_streamrpc import ConnectionLost, Limits, connect, serve
from trio_streamrpc.dialects import kkrpc, kkrpc_classic

LIMITS = Limits(ping_interval=0.1, ping_timeout=0.3)

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@asynccontextmanager
async def serving(service: object) -> AsyncIterator[str]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                lambda task_status: serve(
                    service,
                    "ws://127.0.0.1:0",
                    dialects=(kkrpc,),
                    limits=LIMITS,
                    task_status=task_status,
                )
            )
            yield server.url
            nursery.cancel_scope.cancel()


async def test_one_that_is_gone_is_given_up() -> None:
    """Its connection is there, and nobody at its other end."""
    async with serving(Service()) as url:
        port = int(url.rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(HANDSHAKE)
            with trio.fail_after(10):
                while await stream.receive_some():
                    pass


async def test_one_that_is_silent_stays() -> None:
    """A WebSocket answers by itself."""
    service = Service()
    async with serving(service) as url:
        async with connect(url, dialect=kkrpc, limits=LIMITS) as connection:
            await trio.sleep(1)
            assert await connection.call("add", 1, 2) == 3


async def test_a_server_that_is_gone_is_given_up() -> None:
    async with trio.open_nursery() as nursery:
        gone = trio.Event()

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]

        async def accept(stream: trio.SocketStream) -> None:
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                data += await stream.receive_some()
            await stream.send_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accepted(data) + b"\r\n\r\n"
            )
            await gone.wait()
            await trio.aclose_forcefully(stream)

        nursery.start_soon(trio.serve_listeners, accept, listeners)
        with trio.fail_after(10):
            async with connect(
                f"ws://127.0.0.1:{port}", dialect=kkrpc_classic, limits=LIMITS
            ) as connection:
                with pytest.raises(ConnectionLost, match="nothing was heard"):
                    await connection.call("add", 1, 2)
        gone.set()
        nursery.cancel_scope.cancel()


def accepted(request: bytes) -> bytes:
    """What a handshake is answered with."""
    found = re.search(rb"(?i)sec-websocket-key: *([^\r]+)", request)
    assert found is not None
    key = found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(key).digest())
