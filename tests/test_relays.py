"""relays.py: messages pass, in order, held back by whoever does not read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from tests.service import Service
from trio_streamrpc import (
    ConnectionLost,
    RemoteProtocolError,
    Transport,
    open_connection,
    relay,
)
from trio_streamrpc.protocol import reactions
from trio_streamrpc.transports.memory import MemoryTransport, open_memory_transports


@asynccontextmanager
async def relayed(capacity: int = 1) -> AsyncIterator[tuple[Transport, Transport, trio.Event]]:
    left, a = open_memory_transports(capacity=capacity)
    right, b = open_memory_transports(capacity=capacity)
    ended = trio.Event()

    async def run() -> None:
        await relay(a, b)
        ended.set()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield left, right, ended
            await left.aclose()
            await right.aclose()


async def test_a_whole_connection(autojump_clock: MockClock) -> None:
    """Neither side knows that there is something between them."""
    service = Service()
    async with relayed() as (left, right, _):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                async with open_connection(right, "accepting", serving=service) as connection:
                    await connection.wait_closed()

            nursery.start_soon(serve)
            async with open_connection(left) as connection:
                assert await connection.call("add", 1, 2) == 3
                async with connection.stream("forever") as stream:
                    await stream.receive()
                assert service.ended == ["forever"]


async def test_backpressure(autojump_clock: MockClock) -> None:
    """One message is held, and what the transports hold by themselves."""
    async with relayed() as (left, _, _):
        sent = 0
        with trio.move_on_after(1):
            while True:
                await left.send(b"x")
                sent += 1
    assert sent == 3


async def test_what_was_received_is_sent_before_the_end(autojump_clock: MockClock) -> None:
    async with relayed(capacity=10) as (left, right, ended):
        for each in (b"1", b"2", b"3"):
            await left.send(each)
        await left.aclose()
        await ended.wait()
        assert [await right.receive() for _ in range(3)] == [b"1", b"2", b"3"]
        with pytest.raises(ConnectionLost):
            await right.receive()


async def test_the_last_words_of_one_that_has_ended(autojump_clock: MockClock) -> None:
    """That nothing can be sent to it any more does not mean that it has nothing to say."""
    left, a = open_memory_transports(capacity=10)
    right, b = open_memory_transports(capacity=10)
    for each in (b"1", b"2", b"3"):
        await right.send(each)
    await right.aclose()
    await left.send(b"too late")
    await relay(a, b)
    assert [await left.receive() for _ in range(3)] == [b"1", b"2", b"3"]
    with pytest.raises(ConnectionLost):
        await left.receive()


async def test_one_that_takes_nothing_more_and_says_nothing(autojump_clock: MockClock) -> None:
    """Its last words are waited for, but not for ever."""
    left, a = open_memory_transports()
    _, b = open_memory_transports()
    b.__class__ = Deaf
    await left.send(b"x")
    with trio.fail_after(10):
        await relay(a, b)
    with pytest.raises(ConnectionLost):
        await left.receive()


async def test_last_words_to_one_that_does_not_read(autojump_clock: MockClock) -> None:
    """The relay ends all the same: neither end can hold it up."""
    left, a = open_memory_transports()
    right, b = open_memory_transports()
    b.__class__ = Deaf
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay, a, b)
            with pytest.raises(ConnectionLost):
                while True:  # nobody takes them at the left
                    with trio.move_on_after(0.1) as stuck:
                        await right.send(b"y")
                    if stuck.cancelled_caught:
                        await left.send(b"x")
                        await trio.sleep(5)


class Deaf(MemoryTransport):
    async def send(self, message: bytes | str) -> None:
        await trio.lowlevel.checkpoint()
        raise ConnectionLost("the connection broke")


async def test_the_other_end(autojump_clock: MockClock) -> None:
    async with relayed() as (left, right, ended):
        await right.aclose()
        await ended.wait()
        with pytest.raises(ConnectionLost):
            await left.receive()


async def test_cancelled(autojump_clock: MockClock) -> None:
    left, a = open_memory_transports()
    right, b = open_memory_transports()
    with trio.move_on_after(1) as scope:
        await relay(a, b)
    assert scope.cancelled_caught
    for each in (left, right):
        with pytest.raises(ConnectionLost):
            await each.receive()


async def test_other_encodings(autojump_clock: MockClock) -> None:
    _, a = open_memory_transports(encoding="json")
    _, b = open_memory_transports(encoding="msgpack")
    with pytest.raises(ValueError, match="cannot be relayed"):
        await relay(a, b)


class Broken(MemoryTransport):
    async def receive(self) -> bytes | str:
        await trio.sleep(1)
        raise reactions.MESSAGE_TOO_LONG.error(2, 1)


async def test_a_message_that_is_not_taken(autojump_clock: MockClock) -> None:
    """It comes out as itself, in no group."""
    left, a = open_memory_transports()
    a.__class__ = Broken
    right, b = open_memory_transports()
    with pytest.raises(RemoteProtocolError):
        await relay(a, b)
    for each in (left, right):
        with pytest.raises(ConnectionLost):
            await each.receive()
