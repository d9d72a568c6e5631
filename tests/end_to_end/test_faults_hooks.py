"""What users write fails: each failure is one call's, and nobody else's."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import cattrs
import pytest
import trio

from tests.end_to_end.innocent import EACH_TRANSPORT, PATIENCE, Beside, Scene, Target
from trio_streamrpc import (
    Call,
    CleanupTimeout,
    Connection,
    InvalidArgument,
    Limits,
    Proceed,
    RemoteError,
    ResourceExhausted,
    RpcError,
    connect,
    rpc,
)

pytestmark = EACH_TRANSPORT


class Oops(Exception):  # it is no error of anybody's, but a fault that is made
    """What the hooks raise."""


class Careless(Exception):
    """One that cannot even be shown."""

    def __str__(self) -> str:
        raise Oops("no text")

    __repr__ = __str__


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


class Faulty(Target):
    """Fails wherever it is told to."""

    @rpc
    async def fail_with(self, kind: str) -> None:
        self._note("fail_with")
        try:
            raise {
                "an exception": Oops("x"),
                "a base exception": GeneratorExit(),
                "a stop": StopAsyncIteration(),
                "what cannot be shown": Careless(),
                "a group": ExceptionGroup("two", [Oops("a"), ExceptionGroup("b", [Oops("c")])]),
                "a system exit in text": Oops("SystemExit" * 10_000),
            }[kind]
        finally:
            self._end("fail_with")

    @rpc
    async def fail_in_a_nursery(self) -> None:
        async def child(text: str) -> None:
            raise Oops(text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, "a")
            nursery.start_soon(child, "b")

    @rpc
    async def fail_after(self, items: int) -> AsyncIterator[int]:
        for item in range(items):
            yield item
        raise Oops("after them")

    @rpc
    async def fail_in_cleanup(self) -> AsyncIterator[int]:
        self._note("fail_in_cleanup")
        try:
            while True:
                yield 1
        finally:
            self._end("fail_in_cleanup")
            raise Oops("in cleanup")

    @rpc
    async def yield_in_cleanup(self) -> AsyncIterator[int]:
        self._note("yield_in_cleanup")
        try:
            while True:
                yield 1
        finally:
            self._end("yield_in_cleanup")
            yield 2

    @rpc(cleanup=0.1)
    async def hang_in_cleanup(self) -> AsyncIterator[int]:
        self._note("hang_in_cleanup")
        try:
            while True:
                yield 1
        finally:
            try:
                await trio.sleep_forever()
            finally:
                self._end("hang_in_cleanup")

    @rpc(cleanup=0.1)
    async def hang(self) -> None:
        """It cannot be stopped at all, until it is released."""
        self._note("hang")
        try:
            with trio.CancelScope(shield=True):
                await self.released.wait()
        finally:
            self._end("hang")

    @rpc
    async def call_back(self, back: Callable[[int], Awaitable[int]]) -> int:
        return await back(1)

    @rpc
    async def give_wrongly(self) -> int:
        return object()  # type: ignore[return-value]  # that is the fault

    @rpc
    async def yield_wrongly(self) -> AsyncIterator[int]:
        yield 1
        yield object()  # type: ignore[misc]  # that is the fault

    @rpc
    async def point(self, point: Point) -> Point:
        return point

    @rpc
    @asynccontextmanager
    async def hold(self, when: str) -> AsyncIterator[int]:
        if when == "entering":
            raise Oops(when)
        yield 1
        if when == "leaving":
            raise Oops(when)

    def __init__(self) -> None:
        super().__init__()
        self.released = trio.Event()


def of_a_hook(record: logging.LogRecord) -> bool:
    """A handler's unexpected exception is logged, where it happened, with its traceback."""
    return record.levelno <= logging.ERROR and record.name == "trio_streamrpc"


@asynccontextmanager
async def faulty(beside: Beside, **options: Any) -> AsyncIterator[tuple[Scene, Connection]]:
    """A connection to a faulty service: whatever fails, it lives on, and the others with it."""
    async with beside(Faulty(), logged=of_a_hook, **options) as scene:
        async with connect(scene.server.url, encoding=scene.encoding) as connection:
            with trio.fail_after(2 * PATIENCE):
                yield scene, connection
                assert await connection.call("add", 1, 2) == 3
                assert connection.statistics().calls_open == 0


@pytest.mark.parametrize(
    "kind",
    [
        "an exception",
        "a base exception",
        "a stop",
        "what cannot be shown",
        "a system exit in text",
    ],
)
async def test_a_handler_that_raises(kind: str, beside: Beside) -> None:
    async with faulty(beside) as (_, connection):
        with pytest.raises(RpcError):
            await connection.call("fail_with", kind)


async def test_a_handler_that_raises_a_group(beside: Beside) -> None:
    """R22: one error, its parts in causes."""
    async with faulty(beside) as (_, connection):
        with pytest.raises(RemoteError) as caught:
            await connection.call("fail_with", "a group")
        first, second = caught.value.causes
        assert (first.name, first.message) == ("Oops", "a")
        assert [each.message for each in second.causes] == ["c"]
        with pytest.raises(RemoteError) as caught:
            await connection.call("fail_in_a_nursery")
        assert sorted(each.message for each in caught.value.causes) == ["a", "b"]


async def test_a_generator_that_raises(beside: Beside) -> None:
    """The items before it come before it."""
    async with faulty(beside) as (_, connection):
        items = []
        with pytest.raises(RemoteError, match="after them"):
            async with connection.stream("fail_after", 3) as stream:
                async for item in stream:
                    items.append(item)  # noqa: PERF401  # it raises
        assert items == [0, 1, 2]


async def test_results_and_items_that_cannot_be(beside: Beside) -> None:
    async with faulty(beside) as (_, connection):
        with pytest.raises(RpcError):
            await connection.call("give_wrongly")
        with pytest.raises(RpcError):
            async with connection.stream("yield_wrongly") as stream:
                assert await stream.receive() == 1
                await stream.receive()


@pytest.mark.parametrize("when", ["entering", "leaving"])
async def test_a_context_that_raises(when: str, beside: Beside) -> None:
    async with faulty(beside) as (_, connection):
        with pytest.raises(RemoteError, match=when):
            async with connection.context("hold", when) as one:
                assert one == 1


async def test_a_cleanup_that_raises(beside: Beside) -> None:
    """R22: it comes out of the block."""
    async with faulty(beside) as (scene, connection):
        with pytest.raises(RemoteError, match="in cleanup"):
            async with connection.stream("fail_in_cleanup") as stream:
                await stream.receive()
        assert scene.service.ended == ["fail_in_cleanup"]


async def test_a_cleanup_that_yields(beside: Beside) -> None:
    """It is closed for all that."""
    async with faulty(beside) as (scene, connection):
        async with connection.stream("yield_in_cleanup") as stream:
            await stream.receive()
        assert scene.service.ended == ["yield_in_cleanup"]


async def test_a_cleanup_that_hangs(beside: Beside) -> None:
    """Its budget, then it is cancelled, and reported."""
    async with faulty(beside) as (scene, connection):
        with pytest.raises(CleanupTimeout):
            async with connection.stream("hang_in_cleanup") as stream:
                await stream.receive()
        assert scene.service.ended == ["hang_in_cleanup"]


async def test_a_handler_that_cannot_be_stopped(beside: Beside) -> None:
    """R7a: it is dropped, and keeps its place until it ends; who wants that place may try again."""
    async with faulty(beside, limits=Limits(max_calls=2)) as (scene, connection):
        with trio.move_on_after(0.05):
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(connection.call, "hang")
        # The final frame that proves nothing comes cleanup and a second later.
        with pytest.raises(ResourceExhausted) as caught:
            await connection.call("add", 1, 2)
        assert caught.value.retry
        assert scene.running == ["hang"] * 2
        scene.service.released.set()
        await scene.service.wait_ended(2)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_interceptor_that_raises(when: str, beside: Beside) -> None:
    """On the side that serves."""

    async def interceptor(call: Call, proceed: Proceed) -> Any:
        if call.method == "echo" and when == "before":
            raise Oops(when)
        result = await proceed()
        if call.method == "echo":
            raise Oops(when)
        return result

    async with faulty(beside, interceptors=[interceptor]) as (_, connection):
        with pytest.raises(RemoteError, match=when):
            await connection.call("echo", b"x")


async def test_an_interceptor_of_the_client_that_raises(beside: Beside) -> None:
    """It is raised where the call was made, as itself."""

    async def interceptor(call: Call, proceed: Proceed) -> Any:
        if call.method == "echo":
            raise Oops("mine")
        return await proceed()

    async with beside() as scene:
        async with connect(scene.server.url, interceptors=[interceptor]) as connection:
            with pytest.raises(Oops, match="mine"):
                await connection.call("echo", b"x")
            assert await connection.call("add", 1, 2) == 3


@pytest.mark.parametrize("way", ["structure", "unstructure"])
async def test_a_converter_that_raises(way: str, beside: Beside) -> None:
    """Of the server, on the way in and on the way out."""
    converter = cattrs.Converter()

    def structure(value: Any, _: Any) -> Point:
        if way == "structure":
            raise Oops("no point")
        return Point(value)

    def unstructure(point: Point) -> int:
        raise Oops("no number")

    converter.register_structure_hook(Point, structure)
    converter.register_unstructure_hook(Point, unstructure)
    async with faulty(beside, converter=converter) as (_, connection):
        kind = InvalidArgument if way == "structure" else RpcError
        with pytest.raises(kind):
            await connection.call("point", 1)


@pytest.mark.parametrize("kind", ["an exception", "what cannot be shown"])
async def test_a_callback_that_raises(kind: str, beside: Beside) -> None:
    """The handler that has called it gets an error, and so does the call."""

    async def back(number: int) -> int:
        raise Oops("back") if kind == "an exception" else Careless()

    async with faulty(beside) as (_, connection):
        with pytest.raises(RemoteError):
            await connection.call("call_back", back)


@pytest.mark.parametrize("when", ["at once", "after an item", "when it is closed"])
async def test_an_uploaded_iterator_that_raises(when: str, beside: Beside) -> None:
    """Its caller gets what it has raised, as itself; the handler is aborted."""

    async def numbers() -> AsyncIterator[int]:
        try:
            if when == "at once":
                raise Oops(when)
            yield 1
            if when == "after an item":
                raise Oops(when)
            yield 2
        finally:
            if when == "when it is closed":
                raise Oops(when)

    async with faulty(beside) as (scene, connection):
        with pytest.raises(Oops, match=when):
            await connection.call("total", numbers())
        # It may have been aborted before it could start.
        assert scene.service.ended in ([], ["total"])


async def test_an_iterable_that_is_none(beside: Beside) -> None:
    """Its ``__aiter__`` raises: the same."""

    class Broken(AsyncIterable[int]):
        def __aiter__(self) -> AsyncIterator[int]:
            raise Oops("no iterator")

    async with faulty(beside) as (_, connection):
        with pytest.raises(Oops, match="no iterator"):
            await connection.call("total", Broken())
