"""memory.py: what a pair in one process has of its own; its promises stand in test_conformance."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.protocol.wire import BOTH
from trio_streamrpc.errors import ConnectionLost
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.transports.memory import MemoryTransport, open_memory_transports


@BOTH
def test_a_pair(encoding: Encoding) -> None:
    for end in open_memory_transports(encoding=encoding):
        assert isinstance(end, MemoryTransport)
        assert end.encoding == encoding
        assert end.remote == "memory"
        assert end.headers == {}
        assert end.last_heard == float("-inf")
        assert (end.close_code, end.close_reason) == (1000, "")


@pytest.mark.parametrize("capacity", [0, 1, 5])
async def test_its_capacity_is_what_may_be_on_its_way(
    capacity: int, autojump_clock: MockClock
) -> None:
    here, there = open_memory_transports(capacity=capacity)
    sent = 0

    async def send() -> None:
        nonlocal sent
        while True:
            await here.send(b"x")
            sent += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        assert sent == capacity
        await there.receive()
        await wait_all_tasks_blocked()
        assert sent == capacity + 1
        nursery.cancel_scope.cancel()


async def test_a_send_that_is_cancelled_has_sent_nothing(autojump_clock: MockClock) -> None:
    here, there = open_memory_transports(capacity=0)
    with trio.move_on_after(1) as scope:
        await here.send(b"x")
    assert scope.cancelled_caught
    await here.aclose()
    with pytest.raises(ConnectionLost):
        await there.receive()
