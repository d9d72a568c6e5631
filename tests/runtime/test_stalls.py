"""stalls.py: what the other side has begun and does not go on with (R14, R21)."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import pytest
import trio

from tests.protocol.wire import BOTH
from tests.runtime.ends import open_ends
from tests.runtime.peer import open_against
from trio_streamrpc import Limits, Window, rpc

#: Nobody is asked whether he is there.
LIMITS = Limits(stall_timeout=100, part_timeout=30, max_calls=1, ping_interval=1e6)
#: Long after the last of these.
LONG = 500


class Service:
    def __init__(self) -> None:
        self.ended: list[str] = []

    @rpc
    async def numbers(self, count: int = 1000) -> AsyncIterator[int]:
        try:
            for number in range(count):
                yield number
        finally:
            await trio.sleep(1)
            self.ended.append(f"numbers at {trio.current_time() - self.start:g}")

    @rpc
    async def silent(self) -> AsyncIterator[int]:
        for number in range(3):
            yield number
        await trio.sleep(LONG)
        yield 3

    @rpc
    async def total(self, numbers: AsyncIterable[int]) -> int:
        return sum([number async for number in numbers])

    @rpc
    async def length(self, text: str) -> int:
        return len(text)

    start = 0.0


@BOTH
async def test_a_consumer_that_takes_nothing(encoding: Any, autojump_clock: Any) -> None:
    """R14: to the second: its handler is stopped, its place is free, and it is told why."""
    service = Service()
    async with open_against("accepting", encoding=encoding, serving=service, limits=LIMITS) as (
        connection,
        peer,
    ):
        service.start = trio.current_time()
        window = {"items": 3, "bytes": 1000}
        await peer.says({"type": "call", "id": 1, "method": "numbers", "window": window})
        await peer.hears("chunk")
        await trio.sleep(99)
        await peer.says({"type": "grant", "id": 1, "items": 1})
        assert (await peer.hears("chunk"))["items"] == [3]
        error = await peer.hears("error")
        assert error["error"]["code"] == "DEADLINE_EXCEEDED"
        assert error["error"]["message"] == "nothing was taken of this stream for 100 s"
        assert service.ended == ["numbers at 200"]
        await peer.says({"type": "call", "id": 3, "method": "length", "args": ["abc"]})
        assert (await peer.hears("result"))["value"] == 3
        assert connection.alive


async def test_honest_silence(autojump_clock: Any) -> None:
    """A producer that has nothing to say, on either side, and a consumer that is slow."""
    async with open_ends(Service(), limits=LIMITS) as ends:
        # It has waited for credit before, and has some now.
        async with ends.client.stream("silent", window=Window(1, 1000)) as stream:
            assert [number async for number in stream] == [0, 1, 2, 3]

        async def now_and_then() -> AsyncIterator[int]:
            for _ in range(3):
                await trio.sleep(LONG)
                yield 1

        async def take_slowly() -> list[int]:
            taken = []
            async with ends.client.stream("numbers", 10, window=Window(2, 1000)) as stream:
                async for number in stream:
                    taken.append(number)
                    await trio.sleep(90)
            return taken

        assert await take_slowly() == list(range(10))
        assert await ends.client.call("total", now_and_then()) == 3


@BOTH
async def test_a_call_of_which_no_more_comes(encoding: Any, autojump_clock: Any) -> None:
    """R21: it is dropped, with all that has come; what comes of it later is ignored (R9)."""
    data: Any = ["[[", '"a', "b"] if encoding == "json" else [b"\x92", b"\x91", b"\xa2"]
    async with open_against("accepting", encoding=encoding, serving=Service(), limits=LIMITS) as (
        connection,
        peer,
    ):
        await peer.says({"type": "call", "id": 1, "method": "length", "parts": 100})
        for each in data:
            await trio.sleep(29)
            await peer.says({"type": "part", "id": 1, "data": each})
        start = trio.current_time()
        await trio.testing.wait_all_tasks_blocked()
        assert connection.endpoint.partial_bytes > 0
        frame = await peer.hears("error")
        assert trio.current_time() - start == 30
        assert frame["error"]["code"] == "DEADLINE_EXCEEDED"
        assert frame["error"]["message"] == "no part of the arguments has come for 30 s"
        assert connection.endpoint.partial_bytes == 0
        await peer.says({"type": "part", "id": 1, "data": data[0]})
        await peer.says({"type": "call", "id": 3, "method": "length", "args": ["abc"]})
        assert (await peer.hears("result"))["value"] == 3


async def test_an_item_in_parts_is_its_consumers_affair(autojump_clock: Any) -> None:
    """Whoever has called waits for as long as he likes."""
    async with open_against(limits=LIMITS) as (connection, peer):
        with trio.move_on_after(LONG) as waited:
            async with connection.stream("numbers") as stream, trio.open_nursery() as nursery:
                head = {"type": "chunk", "id": 1, "items": [None], "size": 9, "parts": 9}
                nursery.start_soon(peer.says, head)
                await stream.receive()
        assert waited.cancelled_caught
        assert connection.alive
        await peer.says({"type": "end", "id": 1})


async def test_a_drain_does_not_wait_for_what_does_not_come(autojump_clock: Any) -> None:
    """R27: a call that has begun to arrive is waited for, but not for ever."""
    async with open_against("accepting", serving=Service(), limits=LIMITS) as (connection, peer):
        await peer.says({"type": "call", "id": 1, "method": "length", "parts": 100})
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        await connection.drain()
        assert trio.current_time() - start == pytest.approx(30)
