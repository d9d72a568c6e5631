"""Callbacks, oneway calls and options over WebSocket, as their users write them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.end_to_end.network import SHORT, serving, until
from trio_streamrpc import (
    ConnectionLost,
    Limits,
    NotFound,
    RemoteError,
    ResourceExhausted,
    connect,
    current_call,
    rpc,
    with_options,
)

ENCODINGS = pytest.mark.parametrize("encoding", ["msgpack", "json"])
Progress = Callable[[float], Awaitable[None]]
Double = Callable[[int], Awaitable[int]]


class Service:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.ended: list[str] = []
        self.kept: list[Progress] = []

    @rpc
    async def build(self, target: str, progress: Progress) -> str:
        for step in range(5):
            await progress(step / 4)
        return f"{target} is built"

    @rpc
    async def keep(self, progress: Progress) -> None:
        self.kept.append(progress)

    @rpc
    async def apply(self, double: Double, value: int) -> int:
        return await double(value)

    @rpc
    async def transform(self, double: Double, values: AsyncIterable[int]) -> AsyncIterator[int]:
        try:
            async for value in values:
                yield await double(value)
        finally:
            self.ended.append("transform")

    @rpc
    async def hold(self, progress: Progress) -> None:
        try:
            await progress(0)
        finally:
            self.ended.append("hold")

    @rpc(oneway=True)
    async def note(self, text: str) -> None:
        await trio.sleep(0.05)
        self.notes.append(text)

    @rpc
    async def metadata(self) -> dict[str, Any]:
        return dict(current_call().metadata)


async def double(value: int) -> int:
    return 2 * value


@ENCODINGS
async def test_progress(encoding: Any) -> None:
    """R20."""
    seen: list[float] = []

    async def progress(done: float) -> None:
        seen.append(done)

    async def fail(done: float) -> None:
        raise ValueError(f"at {done}")

    service = Service()
    async with serving(service) as server, connect(server.url, encoding=encoding) as connection:
        api = connection.proxy(Service)
        assert await api.build("all", progress) == "all is built"
        assert seen == [0, 0.25, 0.5, 0.75, 1]
        with pytest.raises(RemoteError, match=r"at 0\.0"):
            await api.build("all", fail)
        await api.keep(progress)
        with pytest.raises(NotFound):
            await service.kept[0](0.5)


@ENCODINGS
async def test_all_shapes_together(encoding: Any) -> None:
    """R19, R20: an upload, a callback and a stream in one call."""
    service = Service()

    async def values() -> AsyncIterator[int]:
        try:
            for value in range(500):
                yield value
        finally:
            service.ended.append("values")

    async with serving(service) as server, connect(server.url, encoding=encoding) as connection:
        api = connection.proxy(Service)
        async with api.transform(double, values()) as stream:
            assert [each async for each in stream] == [2 * value for value in range(500)]
        assert sorted(service.ended) == ["transform", "values"]
        service.ended.clear()
        async with api.transform(double, values()) as stream:
            assert await stream.receive() == 0
        assert sorted(service.ended) == ["transform", "values"]


@pytest.mark.parametrize("max_calls", [1, 2, 100])
@ENCODINGS
async def test_many_that_call_back_and_in_again(encoding: Any, max_calls: int) -> None:
    """R26: over real sockets too, all of them end."""
    ended: list[object] = []
    limits = Limits(max_calls=max_calls, max_object_calls=2)
    async with (
        serving(Service(), limits=limits) as server,
        connect(server.url, encoding=encoding, limits=limits) as connection,
    ):
        api = connection.proxy(Service)

        async def again(value: int) -> int:
            return await api.apply(double, value)

        async def call(value: int) -> None:
            try:
                ended.append(await api.apply(again, value))
            except ResourceExhausted:
                ended.append("no room")

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for value in range(50):
                    nursery.start_soon(call, value)
        assert len(ended) == 50
        assert max_calls < 100 or "no room" not in ended


@ENCODINGS
async def test_the_caller_is_cancelled(encoding: Any) -> None:
    """R8, R20: the callback ends with it, and the handler hears of it."""
    service = Service()
    ended: list[str] = []
    began = trio.Event()

    async def slow(done: float) -> None:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.append("callback")

    async with serving(service) as server, connect(server.url, encoding=encoding) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.proxy(Service).hold, slow)
            await began.wait()
            nursery.cancel_scope.cancel()
        assert ended == ["callback"]
        await until(lambda: service.ended == ["hold"])
        assert await connection.proxy(Service).apply(double, 2) == 4


@ENCODINGS
async def test_the_network_fails_in_a_callback(encoding: Any) -> None:
    """The callback is cancelled, and the call raises ConnectionLost."""
    service = Service()
    ended: list[str] = []

    async with serving(service, limits=SHORT) as server:

        async def slow(done: float) -> None:
            try:
                for each in server.connections:
                    await trio.aclose_forcefully(each.transport)
                await trio.sleep_forever()
            finally:
                ended.append("callback")

        with trio.fail_after(5), pytest.raises(ConnectionLost):
            async with connect(server.url, encoding=encoding, limits=SHORT) as connection:
                await connection.proxy(Service).hold(slow)
        assert ended == ["callback"]
        await until(lambda: service.ended == ["hold"])


@ENCODINGS
async def test_oneway_calls_are_not_lost(encoding: Any) -> None:
    """R11: leaving the connection right after them waits for them."""
    service = Service()
    async with serving(service) as server:
        async with connect(server.url, encoding=encoding) as connection:
            for number in range(20):
                await connection.proxy(Service).note(str(number))
        assert sorted(service.notes, key=int) == [str(number) for number in range(20)]


@ENCODINGS
async def test_options(encoding: Any) -> None:
    """What a call is sent with lies over what its connection was opened with."""
    async with (
        serving(Service()) as server,
        connect(server.url, encoding=encoding, metadata={"who": "me"}) as connection,
    ):
        api = with_options(connection.proxy(Service), metadata={"trace": "1"})
        assert await api.metadata() == {"who": "me", "trace": "1"}
