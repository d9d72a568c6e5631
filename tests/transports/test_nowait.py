"""Sending on the spot, where a transport can: all of a message, or what send() goes on with."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import memory_stream_pair

from trio_streamrpc.errors import ConnectionLost
from trio_streamrpc.limits import Limits
from trio_streamrpc.transports.bytestream import ByteStreamTransport, open_stream
from trio_streamrpc.transports.memory import open_memory_transports

LIMITS = Limits(handshake_timeout=5, close_timeout=2)


@asynccontextmanager
async def socket_transports() -> AsyncIterator[tuple[ByteStreamTransport, ByteStreamTransport]]:
    """Two ends of a Unix socket that holds little."""
    ends = socket.socketpair()
    for each in ends:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    here, there = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in ends)
    async with trio.open_nursery() as nursery:
        opened: list[ByteStreamTransport] = []
        done = trio.Event()

        async def accept(task_status: trio.TaskStatus[None]) -> None:
            context = open_stream(there, "accepting", encoding=None, limits=LIMITS)
            task_status.started()
            async with context as transport:
                opened.append(transport)
                await done.wait()

        await nursery.start(accept)
        async with open_stream(here, "connecting", encoding="msgpack", limits=LIMITS) as client:
            while not opened:
                await trio.lowlevel.checkpoint()
            yield client, opened[0]
            done.set()


async def test_as_much_as_fits_and_the_rest_later() -> None:
    """Until the socket is full in the middle of a message; all of them arrive, whole."""
    sent: list[bytes] = []
    async with socket_transports() as (client, server):
        for number in range(10_000):
            message = bytes([number % 256]) * 777
            sent.append(message)
            if not client.send_nowait(message):
                break
        assert 1 < len(sent) < 10_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, sent[-1])
            assert [await server.receive() for _ in sent] == sent
        assert client.send_nowait(b"one more")
        assert await server.receive() == b"one more"


async def test_a_long_message_in_part() -> None:
    """More than the socket holds: its beginning goes at once."""
    message = bytes(range(256)) * 2000
    async with socket_transports() as (client, server):
        assert not client.send_nowait(message)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, message)
            assert await server.receive() == message


async def test_a_message_that_is_begun_and_never_ended_is_no_message() -> None:
    async with socket_transports() as (client, server):
        assert not client.send_nowait(bytes(500_000))
        await client.aclose()
        with pytest.raises(ConnectionLost):
            await server.receive()


async def test_none_on_a_transport_that_is_closed_or_broken() -> None:
    async with socket_transports() as (client, server):
        await trio.aclose_forcefully(server)
        assert not client.send_nowait(b"nobody is there")
        with pytest.raises(ConnectionLost):
            await client.send(b"nobody is there")
        await client.aclose()
        assert not client.send_nowait(b"closed")
        with pytest.raises(ConnectionLost):
            await client.send(b"closed")


async def test_a_stream_that_is_no_socket_takes_none() -> None:
    here, there = memory_stream_pair()
    await there.send_all(b"TSR1m")
    async with open_stream(here, "connecting", encoding="msgpack", limits=LIMITS) as transport:
        assert not transport.sends_nowait
        assert not transport.send_nowait(b"x")
        await there.aclose()


async def test_memory() -> None:
    here, there = open_memory_transports(capacity=1)
    assert here.sends_nowait
    assert here.send_nowait(b"a")
    assert not here.send_nowait(b"b")
    assert await there.receive() == b"a"
    await there.aclose()
    assert not here.send_nowait(b"c")
    await here.aclose()
    assert not here.send_nowait(b"d")
