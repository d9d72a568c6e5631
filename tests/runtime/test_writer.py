"""What writes to the transport: a task, and on the spot whoever has said all that there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.protocol.wire import read
from tests.runtime.ends import quiet
from trio_streamrpc import (
    Connection,
    ConnectionLost,
    InternalError,
    Limits,
    Transport,
    open_connection,
    rpc,
)
from trio_streamrpc.transports.memory import open_memory_transports


class Service:
    @rpc
    async def echo(self, number: int) -> int:
        return number


class Reluctant(Transport):
    """A transport that says of each message whether it takes it on the spot, and what it was."""

    def __init__(self, inner: Transport, *, takes: bool = True) -> None:
        self.inner = inner
        self.sends_nowait = True
        self.takes = takes
        #: The frames of each message, and the way it went.
        self.log: list[tuple[str, list[str]]] = []
        self.refused: list[bytes | str] = []
        self.free = trio.Event()
        self.free.set()

    def send_nowait(self, message: bytes | str) -> bool:
        if not self.takes:
            self.refused.append(message)
            return False
        assert self.inner.send_nowait(message)
        self._note("now", message)
        return True

    def _note(self, way: str, message: bytes | str) -> None:
        self.log.append((way, [frame["type"] for frame in read(message)]))

    async def send(self, message: bytes | str) -> None:
        if self.refused:
            # What was refused comes again, before anything else.
            assert message == self.refused.pop()
        await self.free.wait()
        self._note("task", message)
        await self.inner.send(message)

    async def receive(self) -> bytes | str:
        return await self.inner.receive()

    async def aclose(self) -> None:
        await self.inner.aclose()


@asynccontextmanager
async def opened(
    *, takes: bool = True, limits: Limits | None = None
) -> AsyncIterator[tuple[Connection, Reluctant]]:
    here, there = open_memory_transports(capacity=100)
    transport = Reluctant(here, takes=takes)

    async def serve() -> None:
        async with open_connection(there, "accepting", serving=Service()) as connection:
            await connection.wait_closed()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_connection(transport, limits=limits) as connection:
            await quiet()
            transport.log.clear()
            yield connection, transport


async def test_one_call_after_the_other_is_written_on_the_spot(autojump_clock):
    async with opened() as (connection, transport):
        for number in range(3):
            assert await connection.call("echo", number) == number
        assert transport.log == [("now", ["call"])] * 3


async def test_calls_at_once_travel_together(autojump_clock):
    """The first goes alone; who comes while it is under way is not alone."""
    async with opened() as (connection, transport):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(connection.call, "echo", number)
        assert transport.log == [("now", ["call"]), ("task", ["call"] * 4)]


async def test_what_is_not_taken_is_sent_by_the_task(autojump_clock):
    async with opened(takes=False) as (connection, transport):
        for number in range(3):
            assert await connection.call("echo", number) == number
        assert transport.log == [("task", ["call"])] * 3
        assert transport.refused == []


async def test_what_comes_after_what_was_not_taken_waits_for_it(autojump_clock):
    async with opened(takes=False) as (connection, transport):
        async with trio.open_nursery() as nursery:
            transport.free = trio.Event()
            nursery.start_soon(connection.call, "echo", 1)
            await quiet()
            transport.takes = True
            for number in range(2, 5):
                nursery.start_soon(connection.call, "echo", number)
            await quiet()
            assert transport.log == []
            transport.free.set()
        assert transport.log == [("task", ["call"]), ("task", ["call"] * 3)]


async def test_a_flush_waits_for_what_was_not_taken(autojump_clock):
    async with opened(takes=False) as (connection, transport):
        async with trio.open_nursery() as nursery:
            transport.free = trio.Event()
            nursery.start_soon(connection.call, "echo", 1)
            await quiet()
            with trio.move_on_after(5) as waiting:
                await connection.flush()
            assert waiting.cancelled_caught
            transport.free.set()
            await connection.flush()
        assert transport.log == [("task", ["call"])]


async def test_a_message_that_stays_unwritten_loses_the_connection(autojump_clock):
    """R24: from the moment at which it was to be written on the spot."""
    limits = Limits(ping_timeout=3, close_timeout=1)
    async with opened(takes=False, limits=limits) as (connection, transport):
        transport.free = trio.Event()
        before = trio.current_time()
        with pytest.raises(ConnectionLost, match="could not be written in 3"):
            await connection.call("echo", 1)
        assert trio.current_time() == before + 3


async def test_a_call_that_is_cancelled_is_said_whole_all_the_same(autojump_clock):
    async with opened() as (connection, transport):
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.call("echo", 1)
        assert transport.log == []
        with trio.move_on_after(0) as scope:
            await connection.call("echo", 1)
        assert scope.cancelled_caught
        assert await connection.call("echo", 2) == 2


async def test_a_fault_of_the_transport_is_the_end_of_the_connection(autojump_clock, caplog):
    """And not the caller's, who happened to be the one that wrote."""
    async with opened() as (connection, transport):

        def fail(message: bytes | str) -> bool:
            raise LookupError("no such socket")

        transport.send_nowait = fail  # type: ignore[method-assign]
        with pytest.raises(InternalError, match="the connection failed: LookupError"):
            await connection.call("echo", 1)
        await connection.wait_closed()
    assert "no such socket" in caplog.text
