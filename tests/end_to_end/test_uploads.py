"""Uploads over real sockets: many items, both ways at once, and a connection that breaks."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import pytest
import trio

from tests.end_to_end.network import SHORT, relaying, serving, until
from trio_streamrpc import ConnectionLost, Stream, connect, rpc

ENCODINGS = pytest.mark.parametrize("encoding", ["msgpack", "json"])


class Service:
    def __init__(self) -> None:
        self.taken = 0
        self.running = 0
        self.ended: list[str] = []

    @rpc
    async def total(self, numbers: AsyncIterable[int]) -> int:
        return sum([number async for number in numbers])

    @rpc
    async def batches(self, numbers: Stream[int]) -> int:
        return sum([sum(batch) async for batch in numbers.batches()])

    @rpc
    async def take(self, numbers: AsyncIterable[int]) -> None:
        self.running += 1
        try:
            async for _ in numbers:
                self.taken += 1
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        finally:
            self.running -= 1

    @rpc
    async def chat(self, inbox: AsyncIterable[str]) -> AsyncIterator[str]:
        async for message in inbox:
            yield f"you said {message}"

    @rpc
    async def add(self, a: int, b: int) -> int:
        return a + b


async def count(log: list[str], stop: int = 1_000_000_000) -> AsyncIterator[int]:
    try:
        for number in range(stop):
            yield number
    finally:
        log.append("ended")


@ENCODINGS
async def test_ten_thousand_items(encoding: Any) -> None:
    """Two calls at once take them all, and others are answered meanwhile."""
    log: list[str] = []
    results: list[int] = []
    async with serving(Service()) as server:
        async with connect(server.url, encoding=encoding) as connection:

            async def send(method: str) -> None:
                results.append(await connection.call(method, count(log, 10_000)))

            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send, "total")
                    nursery.start_soon(send, "batches")
                    for number in range(50):
                        assert await connection.call("add", number, 1) == number + 1
    assert results == [sum(range(10_000))] * 2
    assert log == ["ended"] * 2


@ENCODINGS
async def test_a_conversation(encoding: Any) -> None:
    async with serving(Service()) as server:
        async with connect(server.url, encoding=encoding) as connection:
            sender, receiver = trio.open_memory_channel[str](0)
            with trio.fail_after(10):
                async with connection.proxy(Service).chat(receiver) as answers:
                    for message in ("hello", "again", "so long"):
                        await sender.send(message)
                        assert await answers.receive() == f"you said {message}"
                    await sender.aclose()
                    assert [answer async for answer in answers] == []


@ENCODINGS
@pytest.mark.parametrize("cut", [1_000, 20_000, 100_000])
async def test_the_connection_is_cut_in_the_middle(encoding: Any, cut: int) -> None:
    """The caller's iterator is closed and ConnectionLost raised; the handler is stopped."""
    service = Service()
    log: list[str] = []
    with trio.fail_after(20):
        async with (
            serving(service, limits=SHORT) as server,
            relaying(server.url, cut_up=cut) as relay,
        ):
            with pytest.raises(ConnectionLost):
                async with connect(relay.url, encoding=encoding, limits=SHORT) as connection:
                    await connection.call("take", count(log))
            assert log == ["ended"]
            await until(lambda: service.running == 0 and not server.connections)
    assert len(service.ended) <= 1


@ENCODINGS
async def test_the_caller_is_cancelled_in_the_middle(encoding: Any) -> None:
    """The connection lives on, and has room for the next one."""
    service = Service()
    log: list[str] = []
    async with serving(service) as server:
        async with connect(server.url, encoding=encoding) as connection:
            with trio.fail_after(20):
                for number in range(3):
                    with trio.CancelScope() as scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(connection.call, "take", count(log))
                            wanted = service.taken + 1000
                            await until(lambda: service.taken > wanted)  # noqa: B023
                            scope.cancel()
                    assert scope.cancelled_caught
                    assert log == ["ended"] * (number + 1)
                    assert await connection.call("total", count(log, 100)) == 4950
                    log.pop()
                await until(lambda: service.running == 0)
    assert service.ended == ["Cancelled"] * 3
