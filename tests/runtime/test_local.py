"""A stream method called in place: the code that uses it is the code that uses it remotely."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from trio_streamrpc import LocalStream, Stream, StreamStatistics, rpc
from trio_streamrpc.testing import open_pair


class Market:
    def __init__(self) -> None:
        self.log: list[str] = []

    @rpc
    async def ticks(self, symbol: str, count: int = 1000) -> AsyncIterator[str]:
        try:
            for number in range(count):
                yield f"{symbol}{number}"
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()
            self.log.append("finally")

    @rpc
    async def fail(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError("broken")

    @rpc
    async def slow(self) -> AsyncIterator[int]:
        number = 0
        while True:
            await trio.sleep(1)
            yield number
            number += 1

    @rpc
    async def nested(self) -> AsyncIterator[int]:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                yield 1
                yield 2
        finally:
            self.log.append("finally")

    @rpc
    async def contract(self) -> AsyncIterator[int]: ...  # type: ignore[empty-body]


@pytest.fixture(params=["local", "remote"])
async def market(request, autojump_clock):
    """The service, and what calls it: itself, or a proxy."""
    service = Market()
    if request.param == "local":
        yield service, service
    else:
        async with open_pair(service) as connection:
            yield service, connection.proxy(Market)


async def test_the_same_code_uses_either(market):
    service, api = market
    async with api.ticks("X") as stream:
        assert isinstance(stream, Stream)
        async for item in stream:
            if item == "X3":
                break
        assert await stream.receive() == "X4"
    assert service.log == ["finally"]
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive()
    await stream.aclose()


async def test_the_end_and_what_comes_after(market):
    _, api = market
    async with api.ticks("X", 2) as stream:
        assert [item async for item in stream] == ["X0", "X1"]
        for _ in range(2):
            with pytest.raises(trio.EndOfChannel):
                await stream.receive()
        assert [batch async for batch in stream.batches()] == []
    async with api.ticks("X", count=3) as stream:
        assert [item async for batch in stream.batches() for item in batch] == ["X0", "X1", "X2"]


async def test_an_error_again_and_again(market):
    _, api = market
    async with api.fail() as stream:
        assert await stream.receive() == 1
        for _ in range(3):
            with pytest.raises(Exception, match="broken"):
                await stream.receive()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive()


async def test_entering_at_the_wrong_time(market):
    _, api = market
    stream = api.ticks("X")
    async with stream:
        with pytest.raises(RuntimeError, match="was started already"):
            await stream.__aenter__()
    with pytest.raises(trio.ClosedResourceError):
        await stream.__aenter__()
    stream = api.ticks("X")
    assert await stream.receive() == "X0"
    with pytest.raises(RuntimeError, match="enter it before its first item"):
        await stream.__aenter__()
    await stream.aclose()


async def test_several_tasks_take_from_it(market):
    _, api = market
    taken: list[list[str]] = [[], []]

    async def take(into: list[str], stream: Any) -> None:
        async for item in stream:
            into.append(item)
            await trio.lowlevel.checkpoint()

    async with api.ticks("X", 10) as stream:
        async with trio.open_nursery() as nursery:
            for each in taken:
                nursery.start_soon(take, each, stream)
    assert sorted(taken[0] + taken[1]) == [f"X{number}" for number in range(10)]
    assert taken[0]
    assert taken[1]


async def test_leaving_with_a_nursery_open_across_the_yield(market):
    service, api = market
    async with api.nested() as stream:
        assert await stream.receive() == 1
    assert service.log == ["finally"]


async def test_every_operation_is_a_checkpoint(market):
    _, api = market
    stream = api.ticks("X")
    with trio.testing.assert_checkpoints():
        await stream.__aenter__()
    with trio.testing.assert_checkpoints():
        await stream.receive()
    with trio.testing.assert_checkpoints():
        await anext(stream)
    with trio.testing.assert_checkpoints():
        await stream.__aexit__(None, None, None)
    with trio.testing.assert_checkpoints():
        await stream.aclose()


async def test_cancelled_before_it_starts(market):
    service, api = market
    stream = api.ticks("X")
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.receive()
    assert scope.cancelled_caught
    assert await stream.receive() == "X0"
    await stream.aclose()
    assert service.log == ["finally"]


async def test_the_statistics_of_a_local_stream():
    async with Market().ticks("X") as stream:
        assert isinstance(stream, LocalStream)
        await stream.receive()
        assert stream.statistics() == StreamStatistics(items_received=1)


async def test_a_cancelled_receive_cancels_the_iterator(autojump_clock):
    """It runs in the consumer's own task; what is left of it is no complete stream."""
    stream = Market().slow()
    assert await stream.receive() == 0
    with trio.move_on_after(0.5) as scope:
        await stream.receive()
    assert scope.cancelled_caught
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError, match="its iterator was cancelled"):
            await stream.receive()
    await stream.aclose()


async def test_an_iterator_that_survives_a_cancellation(autojump_clock):
    send, receive = trio.open_memory_channel[int](1)
    stream = LocalStream(receive)
    with trio.move_on_after(1):
        await stream.receive()
    await send.send(1)
    assert await stream.receive() == 1
    await stream.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await send.send(2)


async def test_closing_what_runs_in_another_task(autojump_clock):
    """Nobody but that task can stop it."""
    stream = Market().slow()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="another task waits"):
            await stream.aclose()
    await stream.aclose()


async def test_closing_from_two_tasks(autojump_clock):
    """The second returns when the first has done it."""
    log = []

    class Service:
        @rpc
        async def ticks(self) -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                await trio.sleep(1)
                log.append("cleaned")

    async def close(stream: Stream[int]) -> None:
        await stream.aclose()
        assert log == ["cleaned"]

    stream = Service().ticks()
    assert await stream.receive() == 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(close, stream)
        nursery.start_soon(close, stream)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.1) as scope:
            await stream.receive()
        assert scope.cancelled_caught


async def test_a_cancelled_block_closes_its_iterator(autojump_clock):
    service = Market()
    with trio.CancelScope() as scope:
        async with service.ticks("X") as stream:
            await stream.receive()
            scope.cancel()
            await trio.sleep_forever()
    assert service.log == ["finally"]


async def test_closing_raises_what_the_cleanup_raised():
    class Service:
        @rpc
        async def ticks(self) -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                raise ValueError("in cleanup")

    with pytest.raises(ValueError, match="in cleanup"):
        async with Service().ticks() as stream:
            await stream.receive()


async def test_a_contract_has_nothing_to_iterate():
    with pytest.raises(NotImplementedError, match=r"Market.contract\(\) is declared as a stream"):
        Market().contract()
