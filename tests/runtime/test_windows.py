"""R15: windows that grow as far as their link needs it, over a simulated link."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_streamrpc import (
    Connection,
    ConnectionLost,
    Limits,
    Stream,
    Transport,
    Window,
    open_connection,
    rpc,
)
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.transports.memory import open_memory_transports

DELAY = 0.05
UNLIMITED = Window(1_000_000, 1 << 40)


class Link(Transport):
    """Each message arrives some time after it was sent, however many are on their way."""

    def __init__(self, inner: Transport, nursery: trio.Nursery) -> None:
        self._inner = inner
        self.encoding = inner.encoding
        self._sender, self._waiting = trio.open_memory_channel[tuple[float, bytes | str]](10_000)
        nursery.start_soon(self._deliver)

    async def _deliver(self) -> None:
        try:
            async for due, message in self._waiting:
                await trio.sleep_until(due)
                await self._inner.send(message)
        except ConnectionLost:
            pass

    async def send(self, message: bytes | str) -> None:
        await self._sender.send((trio.current_time() + DELAY, message))

    async def receive(self) -> bytes | str:
        return await self._inner.receive()

    async def aclose(self) -> None:
        self._sender.close()
        await self._inner.aclose()


class Source:
    @rpc
    async def numbers(self, count: int, pause: float, size: int = 0) -> AsyncIterator[bytes]:
        for _ in range(count):
            if pause:
                await trio.sleep(pause)
            yield bytes(size)

    @rpc
    async def bursts(self, count: int) -> AsyncIterator[int]:
        """So many items in each millisecond."""
        while True:
            await trio.sleep(0.001)
            for number in range(count):
                yield number

    @rpc(window=Window(8))
    async def fixed(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number


@asynccontextmanager
async def over_a_link(
    limits: Limits | None = None, *, service: object = None, serving: Limits | None = None
) -> AsyncIterator[Connection]:
    async with open_background_nursery() as nursery:
        near, far = open_memory_transports(capacity=1000)

        async def serve() -> None:
            async with open_connection(
                Link(far, nursery),
                "accepting",
                serving=Source() if service is None else service,
                limits=serving,
            ) as connection:
                await connection.wait_closed()

        nursery.start_soon(serve)
        async with open_connection(Link(near, nursery), limits=limits) as connection:
            yield connection


def window_of(stream: Stream[Any]) -> Window | None:
    return stream.statistics().window


async def rate(
    connection: Connection, count: int, pause: float, size: int, window: Window | None
) -> tuple[float, Window | None]:
    """Items per second of a stream, after it has had time to find its window."""
    async with connection.stream("numbers", count, pause, size, window=window) as stream:
        for _ in range(count // 2):
            await stream.receive()
        begin = trio.current_time()
        async for _ in stream:
            pass
        return (count - count // 2) / (trio.current_time() - begin), window_of(stream)


@pytest.mark.parametrize(("pause", "size"), [(0.001, 0), (0.0002, 0), (0.001, 8_000)])
async def test_a_stream_fills_its_link(pause: float, size: int, autojump_clock: object) -> None:
    """By items and by bytes: most of what an unlimited window would reach."""
    count = 2000 if pause < 0.001 else 1000
    async with over_a_link() as connection:
        unlimited, _ = await rate(connection, count, pause, size, UNLIMITED)
        grown, window = await rate(connection, count, pause, size, None)
        fixed, kept = await rate(connection, count, pause, size, Window())
    assert grown >= 0.8 * unlimited
    assert fixed < 0.7 * unlimited
    assert kept == Window()
    limit = Limits().max_window
    assert window is not None
    assert window.items <= limit.items
    assert window.bytes <= limit.bytes


async def test_a_stream_of_many_small_items_fills_its_link(autojump_clock: object) -> None:
    """With the limits that a connection has by default: 100,000 in a second, 0.1 s to and fro."""
    async with over_a_link() as connection, connection.stream("bursts", 100) as stream:
        batches = aiter(stream.batches())
        settled = trio.current_time() + 2
        while trio.current_time() < settled:
            await anext(batches)
        begin = trio.current_time()
        count = 0
        while trio.current_time() < begin + 0.3:
            count += len(await anext(batches))
    assert count > 24_000


async def test_a_window_never_exceeds_its_limit(autojump_clock: object) -> None:
    limits = Limits(max_window=Window(100, 300_000))
    async with over_a_link(limits) as connection:
        _, window = await rate(connection, 1500, 0.0002, 0, None)
    assert window == Window(100, 300_000)


async def test_a_slow_producer_needs_no_larger_window(autojump_clock: object) -> None:
    async with over_a_link() as connection:
        _, window = await rate(connection, 500, 0.01, 0, None)
    assert window == Limits().window


async def test_a_slow_consumer_gets_no_larger_window(autojump_clock: object) -> None:
    """R14: it would only have more lying about."""
    async with over_a_link() as connection:
        async with connection.stream("numbers", 10_000, 0) as stream:
            for _ in range(300):
                await stream.receive()
                await trio.sleep(0.02)
            assert window_of(stream) == Limits().window
            assert stream.statistics().peak_items_buffered <= 64


async def test_a_window_of_the_contract_stays(autojump_clock: object) -> None:
    async with over_a_link() as connection:
        async with connection.proxy(Source).fixed(1000) as stream:
            assert len([item async for item in stream]) == 1000
            assert window_of(stream) == Window(8)


async def test_growing_windows_of_many_streams(autojump_clock: object) -> None:
    """Each finds its own, and nothing is lost on the way."""
    taken: list[int] = []

    async def take(connection: Connection) -> None:
        async with connection.stream("numbers", 1000, 0.001) as stream:
            taken.append(len([item async for item in stream]))

    async with over_a_link() as connection:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(take, connection)
        await wait_all_tasks_blocked()
    assert taken == [1000] * 5


# --- uploads


class Drain:
    """It takes an upload, and tells how fast its second half came and what its window was."""

    @rpc
    async def take(self, count: int, items: AsyncIterable[bytes]) -> tuple[float, Window | None]:
        assert isinstance(items, Stream)
        for _ in range(count // 2):
            await items.receive()
        begin = trio.current_time()
        async for _ in items:
            pass
        return (count - count // 2) / (trio.current_time() - begin), window_of(items)


async def upload_rate(
    count: int, pause: float, size: int, limits: Limits
) -> tuple[float, Window | None]:
    """Items per second of an upload to a side with these limits, and the window that it had."""

    async def items() -> AsyncIterator[bytes]:
        for _ in range(count):
            if pause:
                await trio.sleep(pause)
            yield bytes(size)

    async with over_a_link(service=Drain(), serving=limits) as connection:
        return await connection.proxy(Drain).take(count, items())


@pytest.mark.parametrize(("pause", "size"), [(0.001, 0), (0.0002, 0), (0.001, 8_000)])
async def test_an_upload_fills_its_link(pause: float, size: int, autojump_clock: object) -> None:
    """R15: its window is for the side that takes it to open, and grows as a stream's does."""
    first = Limits().window
    count = 2000 if pause < 0.001 else 1000
    unlimited, _ = await upload_rate(
        count, pause, size, Limits(window=UNLIMITED, max_window=UNLIMITED)
    )
    grown, window = await upload_rate(count, pause, size, Limits())
    fixed, kept = await upload_rate(count, pause, size, Limits(max_window=first))
    assert grown >= 0.8 * unlimited
    assert fixed < 0.7 * unlimited
    assert kept == first
    limit = Limits().max_window
    assert window is not None
    assert window.items <= limit.items
    assert window.bytes <= limit.bytes


async def test_an_uploads_window_never_exceeds_its_limit(autojump_clock: object) -> None:
    limits = Limits(max_window=Window(100, 300_000))
    _, window = await upload_rate(1000, 0.0002, 0, limits)
    assert window == Window(100, 300_000)


async def test_large_items_fill_their_link(autojump_clock: object) -> None:
    """R15, R21: items that travel in parts, each longer than the first window."""
    async with over_a_link() as connection:
        unlimited, _ = await rate(connection, 60, 0.01, 500_000, UNLIMITED)
        grown, window = await rate(connection, 60, 0.01, 500_000, None)
    assert grown >= 0.8 * unlimited
    assert window is not None
    assert window.bytes <= Limits().max_window.bytes
