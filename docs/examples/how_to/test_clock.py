from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
from clock import Clock
from trio.testing import MockClock

from trio_streamrpc import Connection, ConnectionLost, InvalidArgument
from trio_streamrpc.testing import Network, open_pair, simulate

Pair = Callable[[object], AbstractAsyncContextManager[Connection]]


async def test_it_ticks(autojump_clock: MockClock) -> None:
    async with open_pair(Clock()) as connection:
        async with connection.proxy(Clock).ticks(seconds=600) as ticks:
            start = trio.current_time()
            assert [await ticks.receive() for _ in range(3)] == [0, 1, 2]
            assert trio.current_time() - start == pytest.approx(1200)


async def test_a_listener_that_leaves_is_forgotten() -> None:
    clock = Clock()
    async with open_pair(clock) as connection:
        async with connection.proxy(Clock).ticks(seconds=60) as ticks:
            await ticks.receive()
            assert clock.listeners == 1
        assert clock.listeners == 0


async def test_a_clock_that_cannot_be() -> None:
    async with open_pair(Clock()) as connection:
        with pytest.raises(InvalidArgument, match="between"):
            async with connection.proxy(Clock).ticks(seconds=0) as ticks:
                await ticks.receive()


async def test_a_network_that_breaks(autojump_clock: MockClock) -> None:
    clock = Clock()
    async with simulate(clock, network=Network(latency=0.1, cut=10)) as connection:
        with pytest.raises(ConnectionLost):
            async for _ in connection.proxy(Clock).ticks(seconds=1):
                assert clock.listeners == 1
    assert clock.listeners == 0


async def test_two_listeners(streamrpc_pair: Pair, autojump_clock: MockClock) -> None:
    async with streamrpc_pair(Clock()) as connection, trio.open_nursery() as nursery:

        async def listen(seconds: float) -> None:
            async with connection.proxy(Clock).ticks(seconds) as ticks:
                assert [await ticks.receive() for _ in range(3)] == [0, 1, 2]

        nursery.start_soon(listen, 1)
        nursery.start_soon(listen, 2)
