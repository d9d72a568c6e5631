"""signal_rpc.py: what a peer says and hears, and streams by ids on which both sides agree."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.dialects.recorded import Recorded
from trio_streamrpc import (
    Connection,
    InvalidArgument,
    RemoteError,
    ResourceExhausted,
    Transport,
    Unimplemented,
    current_call,
    open_connection,
)
from trio_streamrpc.dialects import kkrpc, signal
from trio_streamrpc.testing import open_pair
from trio_streamrpc.transports.memory import open_memory_transports


class Peer:
    """A peer written by hand."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def says(self, *messages: dict[str, Any]) -> None:
        for each in messages:
            await self._transport.send(json.dumps(each))

    async def asks(self, number: int, data: Any) -> None:
        await self.says({"category": "request", "requestId": number, "data": data})

    async def hears(self) -> Any:
        return json.loads(await self._transport.receive())


@asynccontextmanager
async def against(side: Any, service: object = None) -> AsyncIterator[tuple[Connection, Peer]]:
    here, there = open_memory_transports(encoding="json", capacity=100)
    with trio.fail_after(20):
        async with open_connection(here, side, dialect=signal, serving=service) as connection:
            yield connection, Peer(there)


async def test_a_request_and_its_answer(autojump_clock: MockClock) -> None:
    async with against("accepting", Recorded()) as (_, peer):
        await peer.asks(7, {"method": "add", "args": [1, 2]})
        answer = {"category": "response", "requestId": 7, "responseId": 1, "data": 3.0}
        assert await peer.hears() == answer
        # The plainest peers.
        await peer.asks(8, {"type": "add", "a": 1, "b": 2})
        assert await peer.hears() == {**answer, "requestId": 8, "responseId": 2}
        await peer.asks(9, {"method": "add", "args": [1], "kwargs": {"b": 2}})
        assert (await peer.hears())["data"] == 3.0


async def test_errors(autojump_clock: MockClock) -> None:
    async with against("accepting", Recorded()) as (_, peer):
        await peer.asks(1, {"method": "fail"})
        error = {"name": "TypeError", "message": "bad thing", "code": 42}
        assert (await peer.hears())["data"] == {"error": error}
        await peer.asks(2, {"method": "nothing"})
        error = {"name": "Error", "message": "nothing is not a function", "code": "UNIMPLEMENTED"}
        assert (await peer.hears())["data"] == {"error": error}


async def test_a_method_that_streams(autojump_clock: MockClock) -> None:
    async with against("accepting", Recorded()) as (_, peer):
        await peer.asks(1, {"method": "countdown", "args": [2]})
        stream_id = (await peer.hears())["data"]["streamId"]
        for each in (2, 1, 0):
            data = {"type": "StreamData", "streamId": stream_id, "payload": each}
            assert await peer.hears() == data
        assert await peer.hears() == {"type": "StreamEnd", "streamId": stream_id}
        await peer.asks(1, {"method": "failing"})
        stream_id = (await peer.hears())["data"]["streamId"]
        assert [(await peer.hears())["payload"] for _ in range(2)] == [1, 2]
        error = "Error: something went wrong"
        assert await peer.hears() == {
            "type": "StreamError", "streamId": stream_id, "error": error,
        }  # fmt: skip


async def test_this_side_calls(autojump_clock: MockClock) -> None:
    async with against("connecting") as (connection, peer):
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await connection.call("add", 1, b=2))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            asked = await peer.hears()
            assert asked["data"] == {"method": "add", "args": [1], "kwargs": {"b": 2}}
            await peer.says({**asked, "category": "response", "responseId": 1, "data": 3})
        assert answers == [3]


async def test_this_side_calls_for_a_stream(autojump_clock: MockClock) -> None:
    async with against("connecting") as (connection, peer):
        async with connection.stream("countdown", 1) as stream:
            asked = await peer.hears()
            # Some of it has come before the answer that tells its id.
            await peer.says({"type": "StreamData", "streamId": 5, "payload": 1})
            await peer.says({**asked, "category": "response", "data": {"streamId": 5}})
            await peer.says({"type": "StreamData", "streamId": 5, "payload": 0})
            await peer.says({"type": "StreamEnd", "streamId": 5})
            assert [each async for each in stream] == [1, 0]


@pytest.mark.parametrize("again", [{"streamId": 6}, {"error": {"message": "no"}}, 5], ids=repr)
async def test_a_second_answer(again: Any, autojump_clock: MockClock) -> None:
    """Who has been answered hears no more; of the stream that answered it nothing changes."""
    async with against("connecting") as (connection, peer):
        async with connection.stream("countdown", 1) as stream:
            asked = await peer.hears()
            for data in ({"streamId": 5}, again):
                await peer.says({**asked, "category": "response", "data": data})
            await peer.says({"type": "StreamData", "streamId": 5, "payload": 1})
            await peer.says({"type": "StreamEnd", "streamId": 5})
            assert [each async for each in stream] == [1]
        assert connection.alive


async def test_a_stream_that_fails(autojump_clock: MockClock) -> None:
    async with against("connecting") as (connection, peer):
        async with connection.stream("failing") as stream:
            asked = await peer.hears()
            await peer.says({**asked, "category": "response", "data": {"streamId": "x"}})
            await peer.says({"type": "StreamError", "streamId": "x", "error": "too bad"})
            with pytest.raises(RemoteError) as caught:
                await stream.receive()
    assert caught.value.message == "too bad"


async def test_what_is_left_is_ignored(autojump_clock: MockClock) -> None:
    """There is no word for it: leaving waits for nothing, and nothing of it is kept."""
    async with against("connecting") as (connection, peer):
        async with connection.stream("ticks") as stream:
            asked = await peer.hears()
            await peer.says({**asked, "category": "response", "data": {"streamId": "x"}})
            await peer.says({"type": "StreamData", "streamId": "x", "payload": 0})
            assert await stream.receive() == 0
        for number in range(300):
            await peer.says({"type": "StreamData", "streamId": "x", "payload": number})
            await trio.testing.wait_all_tasks_blocked()
        assert connection.alive
        assert connection.statistics().calls_open == 0
        assert not connection.endpoint.exchanges


async def test_a_stream_that_is_left_before_its_answer(autojump_clock: MockClock) -> None:
    async with against("connecting") as (connection, peer):
        async with trio.open_nursery() as nursery:

            async def leave_at_once() -> None:
                async with connection.stream("ticks"):
                    await trio.sleep(1)

            nursery.start_soon(leave_at_once)
            asked = await peer.hears()
            await trio.testing.wait_all_tasks_blocked()
            await peer.says({**asked, "category": "response", "data": {"streamId": "x"}})
        assert not connection.endpoint.exchanges


async def test_a_stream_that_was_left_is_not_kept(autojump_clock: MockClock) -> None:
    """Its id comes late: what it says is ignored from then on, and its end is the end of that."""
    async with against("connecting") as (connection, peer):
        async with connection.stream("ticks"):
            asked = await peer.hears()
        await peer.says({**asked, "category": "response", "data": {"streamId": "x"}})
        for number in range(100):
            await peer.says({"type": "StreamData", "streamId": "x", "payload": number})
        await peer.says({"type": "StreamEnd", "streamId": "x"})
        await trio.testing.wait_all_tasks_blocked()
        await peer.says({"type": "StreamData", "streamId": "x", "payload": "another of that id"})
        await peer.says({"type": "StreamEnd", "streamId": "x"})
        async with signal.streams(connection).receive_stream("x") as stream:
            assert [each async for each in stream] == ["another of that id"]


async def test_what_a_cancelled_call_tells_is_no_stream(autojump_clock: MockClock) -> None:
    """An id in the answer of a call is the application's own: that stream may be asked for."""
    async with against("connecting") as (connection, peer):
        with trio.move_on_after(1):
            await connection.call("start")
        asked = await peer.hears()
        await peer.says({**asked, "category": "response", "data": {"streamId": "x"}})
        await peer.says({"type": "StreamData", "streamId": "x", "payload": 1})
        await peer.says({"type": "StreamEnd", "streamId": "x"})
        async with signal.streams(connection).receive_stream("x") as stream:
            assert [each async for each in stream] == [1]


async def test_a_call_that_is_none_of_a_stream(autojump_clock: MockClock) -> None:
    async with open_pair(Recorded(), dialect=signal) as connection:
        with pytest.raises(InvalidArgument, match="one result"):
            async with connection.stream("add", 1, 2) as stream:
                await stream.receive()
        assert set(await connection.call("countdown", 3)) == {"streamId"}


async def test_what_the_wire_does_not_carry(autojump_clock: MockClock) -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    async def callback(value: float) -> None:
        raise AssertionError

    async with open_pair(Recorded(), dialect=signal) as connection:
        with pytest.raises(InvalidArgument, match="no streams as arguments"):
            await connection.call("sum", items())
        with pytest.raises(InvalidArgument, match="no callbacks"):
            await connection.call("progress", callback)
        with pytest.raises(Unimplemented, match="nothing is not a function"):
            await connection.call("nothing")


# --- ids on which both sides agree


async def numbers(count: int) -> AsyncIterator[int]:
    for each in range(count):
        yield each


async def test_a_stream_that_is_sent(autojump_clock: MockClock) -> None:
    async with against("connecting") as (connection, peer):
        streams = signal.streams(connection)
        async with trio.open_nursery() as nursery:
            stream_id = await nursery.start(streams.send_stream, numbers(3))
            heard = [await peer.hears() for _ in range(4)]
        assert [each.get("payload") for each in heard] == [0, 1, 2, None]
        assert heard[-1] == {"type": "StreamEnd", "streamId": stream_id}
        await streams.send_stream(numbers(0), "mine")
        assert await peer.hears() == {"type": "StreamEnd", "streamId": "mine"}
        assert not connection.endpoint.exchanges


async def test_one_that_fails_to_give(autojump_clock: MockClock) -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ValueError("it broke")

    async with against("connecting") as (connection, peer):
        with pytest.raises(ValueError, match="it broke"):
            await signal.streams(connection).send_stream(broken(), 7)
        assert (await peer.hears())["payload"] == 1
        said = {"type": "StreamError", "streamId": 7, "error": "ValueError: it broke"}
        assert await peer.hears() == said


async def test_one_that_is_aborted(autojump_clock: MockClock) -> None:
    ended = trio.Event()

    async def endless() -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            ended.set()

    async with against("connecting") as (connection, peer):
        streams = signal.streams(connection)
        async with trio.open_nursery() as nursery:
            await nursery.start(streams.send_stream, endless(), "x")
            assert (await peer.hears())["payload"] == 1
            with pytest.raises(ValueError, match="already"):
                await streams.send_stream(numbers(1), "x")
            streams.abort_stream("x")
            streams.abort_stream("y")
            assert (await peer.hears())["type"] == "StreamError"
        assert ended.is_set()


async def test_asked_for_before_it_comes(autojump_clock: MockClock) -> None:
    async with against("connecting") as (connection, peer):
        streams = signal.streams(connection)
        async with streams.receive_stream() as stream:
            with pytest.raises(ValueError, match="already"):
                streams.receive_stream(stream.stream_id)
            for each in (1, 2):
                said = {"type": "StreamData", "streamId": stream.stream_id, "payload": each}
                await peer.says(said)
            await peer.says({"type": "StreamEnd", "streamId": stream.stream_id})
            assert [each async for each in stream] == [1, 2]
        assert not connection.endpoint.exchanges


async def test_asked_for_after_it_has_come(autojump_clock: MockClock) -> None:
    async with against("connecting") as (connection, peer):
        await peer.says({"type": "StreamData", "streamId": "x", "payload": 1})
        await peer.says({"type": "StreamEnd", "streamId": "x"})
        await peer.says({"type": "StreamData", "streamId": "x", "payload": "behind its end"})
        await trio.testing.wait_all_tasks_blocked()
        async with signal.streams(connection).receive_stream("x") as stream:
            assert [each async for each in stream] == [1]


async def test_too_much_that_nobody_has_asked_for(autojump_clock: MockClock) -> None:
    """It is bounded, in items and in bytes; what was kept comes, and then an error."""
    async with against("connecting") as (connection, peer):
        streams = signal.streams(connection)
        for number in range(100):
            await peer.says({"type": "StreamData", "streamId": "x", "payload": number})
            await trio.testing.wait_all_tasks_blocked()
        async with streams.receive_stream("x") as stream:
            assert [await stream.receive() for _ in range(64)] == list(range(64))
            with pytest.raises(ResourceExhausted):
                await stream.receive()
        for _ in range(4):
            await peer.says({"type": "StreamData", "streamId": "y", "payload": "x" * 100_000})
        await trio.testing.wait_all_tasks_blocked()
        async with streams.receive_stream("y") as stream:
            assert [len(await stream.receive()) for _ in range(2)] == [100_000] * 2
            with pytest.raises(ResourceExhausted):
                await stream.receive()


async def test_too_many_that_nobody_has_asked_for(autojump_clock: MockClock) -> None:
    """One that was dropped, or of which some was, is never taken for one that is complete."""
    async with against("connecting") as (connection, peer):
        streams = signal.streams(connection)
        for number in range(200):
            await peer.says({"type": "StreamData", "streamId": number, "payload": number})
        await trio.testing.wait_all_tasks_blocked()
        for number in range(64):
            async with streams.receive_stream(number) as stream:
                assert await stream.receive() == number
        # There is room again, and what it has lacked is not forgotten.
        await peer.says({"type": "StreamData", "streamId": 64, "payload": "the rest of it"})
        for number in range(64, 200):
            await peer.says({"type": "StreamEnd", "streamId": number})
        await trio.testing.wait_all_tasks_blocked()
        for number in range(64, 200):
            async with streams.receive_stream(number) as stream:
                with pytest.raises(ResourceExhausted):
                    await stream.receive()
        assert not connection.endpoint.exchanges


@pytest.mark.parametrize("kind", ["StreamData", "StreamError"])
async def test_what_nobody_has_asked_for_is_bounded(kind: str, autojump_clock: MockClock) -> None:
    async with against("connecting") as (connection, peer):
        tracemalloc.start()
        try:
            for number in range(100):
                long = "x" * 100_000
                await peer.says({"type": kind, "streamId": number, "payload": long, "error": long})
            await trio.testing.wait_all_tasks_blocked()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 1_000_000
        assert connection.alive


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("too bad", "too bad"),
        ({"name": "TypeError", "message": "too bad"}, "too bad"),
        (None, ""),
        (5, ""),
    ],
    ids=repr,
)
async def test_errors_of_any_form(error: Any, message: str, autojump_clock: MockClock) -> None:
    """The end of a stream is its end, whatever is said about it."""
    async with against("connecting") as (connection, peer):
        async with signal.streams(connection).receive_stream("x") as stream:
            await peer.says({"type": "StreamError", "streamId": "x", "error": error})
            with pytest.raises(RemoteError) as caught:
                await stream.receive()
    assert caught.value.message == message


async def test_one_that_nobody_wants(autojump_clock: MockClock) -> None:
    async with against("connecting") as (connection, peer):
        streams = signal.streams(connection)
        await peer.says({"type": "StreamData", "streamId": "x", "payload": 1})
        await trio.testing.wait_all_tasks_blocked()
        streams.close_receiving_stream("x")
        stream = streams.receive_stream("y")
        streams.close_receiving_stream("y")
        with pytest.raises(trio.EndOfChannel):
            await stream.receive()
        for name in ("x", "y"):
            await peer.says({"type": "StreamData", "streamId": name, "payload": 2})
            await peer.says({"type": "StreamEnd", "streamId": name})
        await trio.testing.wait_all_tasks_blocked()
        # Their ids are free again.
        await peer.says({"type": "StreamEnd", "streamId": "x"})
        async with streams.receive_stream("x") as stream:
            assert [each async for each in stream] == []


async def test_from_a_handler(autojump_clock: MockClock) -> None:
    """The usual way: the answer to a request tells the id of a stream."""

    async def start(count: int) -> str:
        connection = current_call().connection
        streams = signal.streams(connection)
        stream_id = streams.new_stream_id()
        connection.nursery.start_soon(streams.send_stream, numbers(count), stream_id)
        return stream_id

    async with open_pair({"start": start}, dialect=signal) as connection:
        stream_id = await connection.call("start", 500)
        async with signal.streams(connection).receive_stream(stream_id) as stream:
            assert [each async for each in stream] == list(range(500))


async def test_another_wire_has_none(autojump_clock: MockClock) -> None:
    async with open_pair(Recorded(), dialect=kkrpc) as connection:
        with pytest.raises(InvalidArgument, match="does not speak signal-rpc"):
            signal.streams(connection)
