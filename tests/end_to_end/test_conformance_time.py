"""What deadlines and drains are to do: docs/conformance.md."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest
import trio

from tests.end_to_end.network import until
from tests.end_to_end.openers import Opener
from trio_streamrpc import Connection, Unavailable, current_call, rpc


class Service:
    def __init__(self) -> None:
        self.started = 0
        self.ended: list[float] = []
        self.connection: Connection | None = None
        self.onwards: Connection | None = None
        #: What was left of the deadline when this was called.
        self.left = math.inf

    @rpc
    async def sleep(self, seconds: float) -> str:
        self.started += 1
        try:
            await trio.sleep(seconds)
        finally:
            self.ended.append(trio.current_time())
        return "slept"

    @rpc
    async def hop(self, late: bool) -> None:
        self.started += 1
        self.left = current_call().deadline - trio.current_time()
        if self.onwards is None:
            return
        if late:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.left + 0.01)
        await self.onwards.call("hop", late)

    @rpc
    async def hold(self) -> None:
        """It tells the test which connection it is."""
        self.connection = current_call().connection

    @rpc
    async def numbers(self, stop: int) -> AsyncIterator[int]:
        for number in range(stop):
            yield number


async def test_a_short_deadline(opened: Opener) -> None:
    """C15: the handler does not sleep on, wherever the deadline finds the call."""
    service = Service()
    async with opened(service) as connection:
        while service.started < 5:
            with trio.move_on_after(0.001) as scope:
                await connection.call("sleep", 100)
            assert scope.cancelled_caught
            await until(lambda: len(service.ended) == service.started)
        assert await connection.call("sleep", 0) == "slept"


async def test_a_deadline_over_three_hops(opened: Opener) -> None:
    """C16: it shrinks at each."""
    last, middle, first = Service(), Service(), Service()
    async with opened(last) as third, opened(middle) as second, opened(first) as connection:
        first.onwards, middle.onwards = second, third
        with trio.fail_after(15):
            await connection.call("hop", False)
        assert 15 > first.left > middle.left > last.left > 0
        assert last.started == 1


async def test_a_deadline_that_is_used_up(opened: Opener) -> None:
    """C16: it is never dispatched, not by who has it nor by who was called within it."""
    last, first = Service(), Service()
    async with opened(last) as second, opened(first) as connection:
        first.onwards = second
        with trio.move_on_after(0) as scope:
            await connection.call("hop", True)
        assert scope.cancelled_caught
        assert first.started == 0
        with trio.move_on_after(0.1) as scope:
            await connection.call("hop", True)
        assert scope.cancelled_caught
        await until(lambda: not connection.statistics().calls_open)
        assert (first.started, last.started) == (1, 0)
        assert await connection.call("sleep", 0) == "slept"


async def test_a_result_and_a_deadline(opened: Opener) -> None:
    """C17: exactly one of the two."""
    service = Service()
    outcomes = []
    async with opened(service) as connection:
        for number in range(40):
            # Before, at and after the moment.
            result = None
            with trio.move_on_after(0.01) as scope:
                result = await connection.call("sleep", 0.008 + number * 0.0001)
            assert (result == "slept") != scope.cancelled_caught
            outcomes.append(result)
        assert await connection.call("sleep", 0) == "slept"
        await until(lambda: len(service.ended) == service.started)
        await until(lambda: not connection.statistics().calls_open)
    assert len(outcomes) == 40


async def test_a_drain_between_calls(opened: Opener) -> None:
    """C20: nothing runs, so it is over at once; the connection is there, and takes nothing new."""
    service = Service()
    async with opened(service) as connection:
        await connection.call("hold")
        assert service.connection is not None
        await service.connection.drain()
        with pytest.raises(Unavailable) as refused:
            await connection.call("sleep", 0)
        assert refused.value.retry
        assert service.started == 0


async def test_a_drain_in_the_middle_of_a_stream(opened: Opener) -> None:
    """C20: the stream goes on to its end, and the drain waits for it."""
    service = Service()
    async with opened(service) as connection, trio.open_nursery() as nursery:
        await connection.call("hold")
        assert service.connection is not None
        drained = trio.Event()

        async def drain() -> None:
            assert service.connection is not None
            await service.connection.drain()
            drained.set()

        async with connection.stream("numbers", 1000) as stream:
            assert await stream.receive() == 0
            nursery.start_soon(drain)
            await until(lambda: connection.endpoint.peer_drains)
            with pytest.raises(Unavailable) as refused:
                await connection.call("sleep", 0)
            assert refused.value.retry
            assert not drained.is_set()
            assert [number async for number in stream] == list(range(1, 1000))
        await drained.wait()
