"""Peers and applications that do what they should not: each is told, or borne, and nobody hangs."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.runtime.ends import open_ends, quiet
from tests.runtime.peer import Peer, open_against
from trio_streamrpc import (
    Call,
    ConnectionLost,
    InvalidArgument,
    Limits,
    NotFound,
    Proceed,
    ResourceExhausted,
    RpcError,
    current_call,
    rpc,
)
from trio_streamrpc.testing import open_pair


class Back:
    @rpc
    async def call_back(self, back: Callable[[], Awaitable[int]]) -> int:
        return await back()

    @rpc
    async def one(self) -> int:
        return 1


class Object:
    @rpc
    async def work(self, seconds: float) -> None:
        await trio.sleep(seconds)


class Lingering:
    @rpc
    async def linger(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)


class Adding(Back):
    @rpc
    async def total(self, numbers: AsyncIterable[int]) -> int:
        return sum([number async for number in numbers])


async def call_back_and_cancel(peer: Peer, number: int) -> int:
    """A call of ``call_back``, which is cancelled when it has called back; the callback's id."""
    id = 1 + 4 * number
    ref = [[0, "object", id + 2]]
    call = {"type": "call", "id": id, "method": "call_back", "args": [None], "refs": ref}
    await peer.says(call)
    back: int = (await peer.hears("call"))["id"]
    await peer.says({"type": "cancel", "id": id})
    return back


@pytest.mark.parametrize("slowly", [True, False])
async def test_callbacks_that_are_never_answered(slowly: bool, autojump_clock: Any) -> None:
    """R26: each call has places of its own for them, but they are not borne for ever."""
    limits = Limits(max_calls=2, max_object_calls=3, cancel_timeout=10)
    most = 6 if slowly else 66
    async with open_against("accepting", serving=Back(), limits=limits) as (connection, peer):
        for number in range(most):
            await call_back_and_cancel(peer, number)
            await peer.hears("error")
        await trio.sleep(11 if slowly else 5)
        assert connection.alive
        await call_back_and_cancel(peer, most)
        goaway = await peer.hears("goaway")
        told = f"{most + 1} calls to callbacks were cancelled and never ended"
        assert goaway["message"] == told
        assert not connection.alive


async def test_calls_to_objects_of_this_sides_own_calls_are_not_counted(
    autojump_clock: Any,
) -> None:
    """They hang from a call that has a place at the other side."""

    class Service:
        @rpc
        @asynccontextmanager
        async def hold(self) -> AsyncIterator[Lingering]:
            yield Lingering()

    small = Limits(max_calls=1, max_object_calls=2)
    async with open_ends(Service(), client_limits=small) as ends:
        async with ends.client.proxy(Service).hold() as held:
            with trio.move_on_after(1):
                async with trio.open_nursery() as nursery:
                    for _ in range(10):
                        nursery.start_soon(held.linger)
            await trio.sleep(1)
            assert ends.client.alive


async def test_an_upload_of_an_object_call_does_not_wait_for_it(autojump_clock: Any) -> None:
    """R26: the places of objects are those of its own call, which waits for it."""

    class Service:
        @rpc
        @asynccontextmanager
        async def hold(self) -> AsyncIterator[Adding]:
            yield Adding()

    for places in (1, 2):
        async with open_ends(Service(), limits=Limits(max_object_calls=places)) as ends:
            async with ends.client.proxy(Service).hold() as held:

                async def numbers() -> AsyncIterator[int]:
                    yield await held.one()

                if places == 1:
                    with pytest.raises(ResourceExhausted):
                        await held.total(numbers())
                else:
                    assert await held.total(numbers()) == 1


async def test_two_items_of_a_context_that_is_called_as_a_stream(autojump_clock: Any) -> None:
    """The stream fails, and nothing else does."""
    async with open_against() as (connection, peer), trio.open_nursery() as nursery:

        async def take() -> None:
            async with connection.stream("x") as stream:
                with pytest.raises(InvalidArgument):
                    await stream.receive()

        nursery.start_soon(take)
        await peer.hears("call")
        item = {"type": "chunk", "id": 1, "items": [None], "size": 1}
        await peer.says({**item, "refs": [[0, "object", 2]]}, item)
        await peer.hears("cancel")
        await peer.says({"type": "end", "id": 1}, {"type": "ping"})
        await peer.hears("pong")
        assert connection.alive


async def test_a_callback_whose_block_another_task_still_closes(autojump_clock: Any) -> None:
    """It cannot be called any more once the block is left that it would run in."""
    log: list[str] = []

    class Service(Back):
        @rpc
        async def ticks(self, back: Callable[[], Awaitable[int]]) -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                await trio.sleep(2)
                try:
                    await back()
                except NotFound:
                    log.append("not found")

    async def passing(call: Call, proceed: Proceed) -> Any:
        return await proceed()

    async def back() -> int:
        raise AssertionError

    options: dict[str, Any] = {"client_interceptors": [passing]}
    async with open_ends(Service(), **options) as ends, trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with ends.client.proxy(Service).ticks(back) as stream:
                await stream.receive()
                nursery.start_soon(stream.aclose)
                await trio.sleep(1)
                scope.cancel()
                await trio.sleep(1)
        await trio.sleep(3)
        assert log == ["not found"]
        assert await ends.client.call("one") == 1


async def test_callbacks_that_are_answered_late_are_borne(autojump_clock: Any) -> None:
    limits = Limits(max_calls=1, max_object_calls=1, cancel_timeout=10)
    async with open_against("accepting", serving=Back(), limits=limits) as (connection, peer):
        backs = []
        for number in range(8):
            backs.append(await call_back_and_cancel(peer, number))
            await peer.hears("error")
            await trio.sleep(1)
        gone = [{"type": "error", "id": id, "error": {"code": "CANCELLED"}} for id in backs]
        await peer.says(*gone)
        await trio.sleep(20)
        await call_back_and_cancel(peer, 8)
        await quiet()
        assert connection.alive


async def test_a_contexts_callback_and_its_object_share_their_places(autojump_clock: Any) -> None:
    """R26: the callee counts them together, so the caller does as well."""

    class Service:
        @rpc
        @asynccontextmanager
        async def hold(
            self, back: Callable[[Callable[[], Awaitable[int]]], Awaitable[int]]
        ) -> AsyncIterator[Object]:
            async with trio.open_nursery() as nursery:

                async def deep() -> int:
                    return 5

                async def call_back() -> None:
                    await trio.sleep(1)
                    log.append(await back(deep))

                nursery.start_soon(call_back)
                yield Object()

    log: list[int] = []
    refused: list[str] = []

    async def back(deep: Callable[[], Awaitable[int]]) -> int:
        try:
            return await deep()
        except ResourceExhausted as error:
            refused.append(error.message)
            return -1

    async with open_ends(Service(), limits=Limits(max_object_calls=2)) as ends:
        async with ends.client.proxy(Service).hold(back) as held, trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(held.work, 2)
            await trio.sleep(1.5)
        # It is not said that both are refused, but nothing was sent that the other side refuses.
        assert [*log, len(refused)] in ([5, 0], [-1, 1])
        assert ends.down.sent("error") == []


async def test_a_context_that_is_called_as_a_stream(autojump_clock: Any) -> None:
    class Service(Back):
        @rpc
        @asynccontextmanager
        async def hold(self) -> AsyncIterator[Object]:
            yield Object()

    async with open_ends(Service()) as ends:
        async with ends.client.stream("hold") as stream:
            with pytest.raises(InvalidArgument, match=r"use async with connection\.context"):
                await stream.receive()
        assert await ends.client.call("one") == 1


async def test_closing_from_a_task_that_a_handler_has_left_behind(autojump_clock: Any) -> None:
    """It serves no call any more: it closes like anybody else, before the end and after it."""
    left = trio.Event()
    closed: list[str] = []

    class Service:
        @rpc
        async def leave(self) -> None:
            connection = current_call().connection

            async def later() -> None:
                await left.wait()
                await connection.aclose()
                closed.append("closed")

            nursery.start_soon(later)

    async with trio.open_nursery() as nursery:
        # The task outlives the connection, which does not wait for it.
        async with open_pair(Service()) as connection:
            await connection.call("leave")
        left.set()
        await quiet()
        assert closed == ["closed"]


async def test_closing_from_an_upload(autojump_clock: Any) -> None:
    """The handler that takes it has finished when the connection is closed, as from anywhere."""
    log: list[str] = []

    class Service:
        @rpc
        async def total(self, numbers: AsyncIterable[int]) -> int:
            try:
                return sum([number async for number in numbers])
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(2)
                log.append("finally")

    async with open_ends(Service(), clean=False) as ends:

        async def numbers() -> AsyncIterator[int]:
            yield 1
            await ends.client.aclose()
            yield 2

        with pytest.raises(ConnectionLost):
            await ends.client.call("total", numbers())
        await trio.sleep(2.5)
        assert log == ["finally"]
        assert [each["type"] for each in ends.down.sent("error", "result")] == ["error"]


async def test_an_upload_that_calls_does_not_wait_for_its_own_call(autojump_clock: Any) -> None:
    """R26: with one place there is none for it; with two it is answered."""

    class Service(Back):
        @rpc
        async def total(self, numbers: AsyncIterable[int]) -> int:
            return sum([number async for number in numbers])

    for max_calls in (1, 2):
        async with open_ends(Service(), limits=Limits(max_calls=max_calls)) as ends:
            api = ends.client.proxy(Service)

            async def numbers() -> AsyncIterator[int]:
                yield await api.one()  # noqa: B023
                yield await api.one()  # noqa: B023

            if max_calls == 1:
                with pytest.raises(ResourceExhausted):
                    await api.total(numbers())
            else:
                assert await api.total(numbers()) == 2
            assert await api.one() == 1


async def test_what_a_call_took_along_is_not_kept(autojump_clock: Any) -> None:
    class Numbers:
        async def __aiter__(self) -> AsyncIterator[int]:
            yield 1

    async def total(numbers: AsyncIterable[int]) -> int:
        return sum([number async for number in numbers])

    async with open_ends({"total": total}) as ends:
        numbers = Numbers()
        kept = weakref.ref(numbers)
        gc.disable()
        try:
            assert await ends.client.call("total", numbers) == 1
            del numbers
            await quiet()
            assert kept() is None
        finally:
            gc.enable()


async def test_a_oneway_call_that_is_answered_before_it_is_written(autojump_clock: Any) -> None:
    """Nothing more of it is written, and nothing of it is kept."""

    class Contract:
        @rpc(oneway=True)
        async def tell(self, data: bytes) -> None: ...

    async with open_against(capacity=1) as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(connection.proxy(Contract).tell, bytes(2_000_000))
        assert (await peer.hears("call"))["parts"] > 2_000_000
        gone = {"type": "error", "id": 1, "error": {"code": "UNAVAILABLE"}}
        await peer.says(gone)
        await quiet()
        assert connection.caller._unwritten == set()
        assert connection.endpoint.exchanges == {}
        await peer.says({"type": "ping"})
        await peer.hears("pong")
        assert connection.endpoint.outbox.values == {}


async def test_a_call_on_a_connection_that_is_gone_is_safe_to_send_elsewhere(
    autojump_clock: Any,
) -> None:
    """R27: a client that was idle during the drain learns no less than one that was not."""
    async with open_ends(Back(), clean=False) as ends:
        await ends.server.drain()
        await ends.server.aclose()
        await quiet()
        with pytest.raises(RpcError) as caught:
            await ends.client.call("one")
        assert caught.value.retry
        with pytest.raises(RpcError) as caught:
            async with ends.client.stream("one"):
                pass
        assert caught.value.retry


async def test_what_was_under_way_when_the_connection_broke_may_have_run(
    autojump_clock: Any,
) -> None:
    class Service:
        @rpc
        async def wait(self) -> None:
            await trio.sleep_forever()

    async with open_ends(Service(), clean=False) as ends:

        async def break_it() -> None:
            await quiet()
            await ends.up.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_it)
            with pytest.raises(ConnectionLost) as caught:
                await ends.client.call("wait")
        assert not caught.value.retry


async def test_a_handler_with_a_nursery_whose_client_is_gone(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """That its uploads have ended with the connection is nothing to log."""

    class Service:
        @rpc
        async def chat(self, inbox: AsyncIterable[int]) -> AsyncIterator[int]:
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    async for _ in inbox:
                        pass

                nursery.start_soon(read)
                yield 1
                await trio.sleep_forever()

    async def inbox() -> AsyncIterator[int]:
        yield 1
        await trio.sleep_forever()

    async with open_ends(Service(), clean=False) as ends:
        with pytest.raises(ConnectionLost):
            async with ends.client.stream("chat", inbox()) as stream:
                assert await stream.receive() == 1
                await ends.up.aclose()
                await stream.receive()
        await quiet()
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []
