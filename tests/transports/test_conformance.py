"""What base.py promises for every transport, over every one there is."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints

from tests.addresses import KINDS, address
from trio_streamrpc.errors import ConnectionLost
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.endpoint import Side
from trio_streamrpc.transports import memory
from trio_streamrpc.transports.base import Transport
from trio_streamrpc.transports.bytestream import open_stream
from trio_streamrpc.transports.urls import scheme_of

Opener = Callable[[Encoding], AbstractAsyncContextManager[tuple[Transport, Transport]]]


@asynccontextmanager
async def open_memory(encoding: Encoding) -> AsyncIterator[tuple[Transport, Transport]]:
    yield memory.open_memory_transports(encoding=encoding)


@asynccontextmanager
async def open_pipes(encoding: Encoding) -> AsyncIterator[tuple[Transport, Transport]]:
    """Over a stream of bytes that has no URL: two pipes, as between a process and its child."""
    (reads_here, writes_there), (reads_there, writes_here) = os.pipe(), os.pipe()
    make = trio.lowlevel.FdStream
    ends = (
        trio.StapledStream(make(writes_here), make(reads_here)),
        trio.StapledStream(make(writes_there), make(reads_there)),
    )
    limits = Limits(close_timeout=1)

    async def open_end(
        side: Side, stream: trio.abc.Stream, task_status: trio.TaskStatus[Transport]
    ) -> None:
        async with open_stream(stream, side, encoding=encoding, limits=limits) as transport:
            task_status.started(transport)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        opened: list[Transport] = []

        async def start() -> None:
            opened.append(await nursery.start(open_end, "accepting", ends[1]))
            there.set()

        there = trio.Event()
        nursery.start_soon(start)
        here = await nursery.start(open_end, "connecting", ends[0])
        await there.wait()
        yield here, opened[0]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_socket(kind: str, encoding: Encoding) -> AsyncIterator[tuple[Transport, Transport]]:
    """Over a real socket."""
    with address(kind) as (url, server_options, options):
        async with open_at(url, server_options, options, encoding) as ends:
            yield ends


@asynccontextmanager
async def open_at(
    url: str, server_options: Any, options: Any, encoding: Encoding
) -> AsyncIterator[tuple[Transport, Transport]]:
    scheme = scheme_of(url)
    [listener], url = await scheme.listen(url, **server_options)
    limits = Limits(close_timeout=1)

    async def accept(task_status: trio.TaskStatus[Transport]) -> None:
        stream = await listener.accept()
        async with scheme.accept(stream, path="/", limits=limits) as transport:
            assert transport is not None
            task_status.started(transport)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        accepted: list[Transport] = []

        async def start() -> None:
            accepted.append(await nursery.start(accept))
            there.set()

        there = trio.Event()
        nursery.start_soon(start)
        async with scheme.connect(url, encoding=encoding, limits=limits, **options) as here:
            await there.wait()
            yield here, accepted[0]
        nursery.cancel_scope.cancel()
        await listener.aclose()


@pytest.fixture(params=["msgpack", "json"])
def encoding(request: pytest.FixtureRequest) -> Encoding:
    chosen: Encoding = request.param
    return chosen


OPENERS: dict[str, Opener] = {
    "memory": open_memory,
    "pipes": open_pipes,
    **{kind: functools.partial(open_socket, kind) for kind in KINDS},
}


@pytest.fixture(params=[*OPENERS.values()], ids=[*OPENERS])
async def pair(
    request: pytest.FixtureRequest, encoding: Encoding
) -> AsyncIterator[tuple[Transport, Transport]]:
    """The two ends; each test is done in ten seconds, or something waits that should not."""
    opener: Opener = request.param
    with trio.fail_after(10):
        async with opener(encoding) as ends:
            yield ends


Pair = tuple[Transport, Transport]


def made(encoding: Encoding, text: str) -> bytes | str:
    return text if encoding == "json" else text.encode()


async def test_what_it_says_of_itself(pair: Pair, encoding: Encoding) -> None:
    """R2."""
    for end in pair:
        assert end.encoding == encoding
        assert isinstance(end.remote, str)
        assert end.remote
        assert all(name == name.lower() for name in end.headers)
        assert isinstance(end.last_heard, float)
        assert (end.close_code, end.close_reason) == (1000, "")


async def test_messages_arrive_whole_and_in_order(pair: Pair, encoding: Encoding) -> None:
    """R1: both ways at once, short ones and long ones."""
    lengths = [1, 2, 125, 126, 127, 65_535, 65_536, 65_537, 1, 300_000, *range(1, 50), 1_048_576]
    messages = [made(encoding, chr(97 + n % 26) * length) for n, length in enumerate(lengths)]

    async def send(end: Transport) -> None:
        for each in messages:
            await end.send(each)

    async def receive(end: Transport) -> None:
        for each in messages:
            assert await end.receive() == each

    async with trio.open_nursery() as nursery:
        for end in pair:
            nursery.start_soon(send, end)
            nursery.start_soon(receive, end)


async def test_text_that_is_not_ascii(pair: Pair, encoding: Encoding) -> None:
    here, there = pair
    message = made(encoding, "é€😀\x00\r\n" * 100)
    await here.send(message)
    assert await there.receive() == message


async def test_send_and_receive_are_checkpoints(pair: Pair, encoding: Encoding) -> None:
    here, there = pair
    message = made(encoding, "x")
    with assert_checkpoints():
        await here.send(message)
    with assert_checkpoints():
        await there.receive()
    with assert_checkpoints():
        await here.aclose()
    with assert_checkpoints():
        await here.aclose()


async def test_a_receive_that_is_cancelled_has_taken_nothing(
    pair: Pair, encoding: Encoding
) -> None:
    here, there = pair
    taken: list[bytes | str] = []
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for number in range(300):
                await here.send(made(encoding, str(number)))

        nursery.start_soon(send)
        attempts = 0
        while len(taken) < 300:
            attempts += 1
            # The scope is cancelled at every point at which a message may come in.
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_soon, scope, attempts % 7)
                while True:
                    taken.append(await there.receive())
    assert taken == [made(encoding, str(number)) for number in range(300)]


async def cancel_soon(scope: trio.CancelScope, ticks: int) -> None:
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def test_what_was_sent_before_the_end_is_received(pair: Pair, encoding: Encoding) -> None:
    here, there = pair
    message = made(encoding, "x")

    async def send() -> None:
        for _ in range(20):
            await here.send(message)
        await here.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for _ in range(20):
            assert await there.receive() == message
        for _ in range(3):
            with pytest.raises(ConnectionLost) as caught:
                await there.receive()
            assert caught.value.__cause__ is None


async def test_sending_to_an_end_that_was_closed(pair: Pair, encoding: Encoding) -> None:
    """Sooner or later, by how much fits on the way."""
    here, there = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(there.aclose)
        with pytest.raises(ConnectionLost):
            while True:
                await here.send(made(encoding, "x" * 100_000))
        with pytest.raises(ConnectionLost):
            await here.send(made(encoding, "x"))


async def test_a_receive_that_waits_for_the_other_end(pair: Pair, encoding: Encoding) -> None:
    here, there = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, there.receive)
        await trio.testing.wait_all_tasks_blocked()
        await here.aclose()


async def refused(operation: Callable[..., Any], *args: Any) -> None:
    with pytest.raises(ConnectionLost):
        await operation(*args)


async def test_whatever_waits_while_it_is_closed_here(pair: Pair, encoding: Encoding) -> None:
    """By force, as the connection does when it is given up."""
    here, _ = pair

    async def send() -> None:
        while True:
            await here.send(made(encoding, "x" * 1_000_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, here.receive)
        nursery.start_soon(refused, send)
        for _ in range(10):
            await trio.testing.wait_all_tasks_blocked()
        await trio.aclose_forcefully(here)
    await refused(here.receive)
    await refused(here.send, made(encoding, "x"))


async def test_both_ends_close_at_once(pair: Pair, encoding: Encoding) -> None:
    async with trio.open_nursery() as nursery:
        for end in pair:
            nursery.start_soon(end.aclose)
            nursery.start_soon(refused, end.receive)
    for end in pair:
        await refused(end.receive)
        await end.aclose()


async def test_closing_that_is_cancelled_has_closed(pair: Pair, encoding: Encoding) -> None:
    here, there = pair
    with trio.CancelScope() as scope:
        scope.cancel()
        await here.aclose()
    assert scope.cancelled_caught
    await refused(here.receive)
    await refused(there.receive)


async def test_closing_beside_a_message_that_nobody_reads(pair: Pair, encoding: Encoding) -> None:
    """It ends all the same, in its own time or when that is up."""
    here, _ = pair

    async def send() -> None:
        while True:
            await here.send(made(encoding, "x" * 1_000_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, send)
        for _ in range(10):
            await trio.testing.wait_all_tasks_blocked()
        await here.aclose()
