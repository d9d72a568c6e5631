"""watched.py: when a call has ended, and how; and that nothing else is to be noticed of it."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.runtime.ends import open_ends, quiet
from tests.runtime.onions import ONE, Service, plain, wrapping
from trio_streamrpc import Call, RpcError, Stream
from trio_streamrpc.runtime.watched import watch


class Ends(list[tuple[str, int | None]]):
    """How calls have ended: the class of what was raised, and the number of items."""

    def note(self, error: BaseException | None, items: int | None) -> None:
        self.append((type(error).__name__, items))

    async def watching(self, call: Call, proceed: Any) -> Any:
        return await watch(proceed, self.note)


def giving(value: Any) -> Any:
    async def proceed(call: Call | None = None, /) -> Any:
        if isinstance(value, BaseException):
            raise value
        return value

    return proceed


async def numbers(stop: int = 3) -> AsyncIterator[int]:
    for number in range(stop):
        yield number


async def test_a_value_and_an_error():
    ends = Ends()
    assert await watch(giving(5), ends.note) == 5
    assert ends == [("NoneType", None)]
    with pytest.raises(KeyError):
        await watch(giving(KeyError()), ends.note)
    assert ends[1:] == [("KeyError", None)]


async def test_an_iterator_is_told_once():
    ends = Ends()
    stream: Stream[int] = await watch(giving(numbers()), ends.note)
    assert [item async for item in stream] == [0, 1, 2]
    assert ends == [("NoneType", 3)]
    with pytest.raises(trio.EndOfChannel):
        await stream.receive()
    await stream.aclose()
    assert stream.statistics().items_received == 3
    del stream
    await quiet()
    assert ends == [("NoneType", 3)]


async def test_an_iterator_that_is_entered_and_left():
    ends = Ends()
    async with await watch(giving(numbers()), ends.note) as stream:
        batches = stream.batches()
        assert [await anext(batches) for _ in range(2)] == [[0], [1]]
        assert await stream.receive() == 2
        assert repr(stream).startswith("<async_generator")
    assert ends == [("NoneType", 3)]
    with pytest.raises(ZeroDivisionError):
        async with await watch(giving(numbers()), ends.note):
            raise ZeroDivisionError
    assert ends[1:] == [("NoneType", 0)]


async def test_what_closing_raises():
    async def failing() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise KeyError("mine")

    @asynccontextmanager
    async def context() -> AsyncIterator[int]:
        yield 1
        raise KeyError("mine")

    ends = Ends()
    with pytest.raises(KeyError):
        async with await watch(giving(failing()), ends.note) as stream:
            await stream.receive()
    with pytest.raises(KeyError):
        async with await watch(giving(context()), ends.note):
            pass
    assert ends == [("KeyError", 1), ("KeyError", None)]


async def test_what_is_dropped_has_ended():
    ends = Ends()
    for value in (numbers(), asynccontextmanager(numbers)()):
        given = await watch(giving(value), ends.note)
        del given
        gc.collect()
        await quiet()
    assert ends == [("GeneratorExit", 0), ("GeneratorExit", None)]


def test_what_is_dropped_after_the_run_tells_nobody():
    ends = Ends()

    async def main() -> Any:
        return await watch(giving(asynccontextmanager(numbers)()), ends.note)

    given = trio.run(main)
    del given
    gc.collect()
    assert ends == []


@pytest.mark.parametrize("others", [[], [wrapping]])
async def test_a_scope_of_the_method_ends_its_stream(others, autojump_clock):
    """What the runtime raises at the yield of a generator goes through."""
    ends = Ends()
    service = Service()
    async with open_ends(
        service, interceptors=[*others, ends.watching, ends.watching, *others]
    ) as both:
        async with both.client.stream("limited", 3, window=ONE) as stream:
            await trio.sleep(5)
            assert [item async for item in stream] == [1]
        assert service.log == ["limited"]
        assert len(ends) == 2
        assert all(items == 1 for _, items in ends)


async def test_a_scope_of_the_method_that_goes_on(autojump_clock):
    """Nothing has ended that stands around it, so that its items go on, too."""
    ends = Ends()
    async with open_ends(Service(), interceptors=[ends.watching, ends.watching]) as both:
        async with both.client.stream("limited", 3, then=2, window=ONE) as stream:
            await trio.sleep(5)
            assert [item async for item in stream] == [1, 2, 2]
    assert ends == [("NoneType", 3)] * 2


async def test_an_iterator_at_which_nothing_can_be_raised(autojump_clock):
    class Items:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __aiter__(self) -> Items:
            return self

        async def __anext__(self) -> Any:
            return await anext(self.stream)

    async def between(call: Call, proceed: Any) -> Any:
        return Items(await proceed())

    ends = Ends()
    service = Service()
    async with open_ends(service, interceptors=[ends.watching, between]) as both:
        async with both.client.stream("limited", 3, window=ONE) as stream:
            await trio.sleep(5)
            assert [item async for item in stream] == [1]
        assert service.log == ["limited"]
    assert ends == [("GeneratorExit", 1)]


@pytest.mark.parametrize("others", [[], [wrapping]])
async def test_a_stream_that_is_called(others, autojump_clock):
    ends = Ends()
    async with open_ends(Service(), client_interceptors=[ends.watching, *others]) as both:
        async with both.client.stream("count", 3, 0) as stream:
            batches = [batch async for batch in stream.batches()]
            assert [item for batch in batches for item in batch] == [0, 1, 2]
        assert ends == [("NoneType", 3)]
        with trio.move_on_after(1):
            async with both.client.stream("slow") as stream:
                async for _ in stream.batches():
                    pass
        await quiet()
        assert ends[1:] == [("Cancelled", 1)] or ends[1:] == [("GeneratorExit", 1)]
        with pytest.raises(RpcError):
            async with both.client.stream("absent") as stream:
                await stream.receive()
        assert ends[2:] == [("Unimplemented", 0)]


async def test_a_wrapper_may_close_what_is_watched(autojump_clock):
    """Asked for more after that, it says so; how the call has ended was told before."""
    ends = Ends()

    async def outer(call: Call, proceed: Any) -> Any:
        stream = await proceed()
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive()
        return plain(numbers())

    async with open_ends(Service(), client_interceptors=[outer, ends.watching]) as both:
        async with both.client.stream("count", 3, 0) as stream:
            assert [item async for item in stream] == [0, 1, 2]
    assert ends == [("NoneType", 0)]
