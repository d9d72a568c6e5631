"""Wires without credit: a stream that is not taken holds the reader, or fails by itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.service import Service
from trio_streamrpc import Connection, Limits, ResourceExhausted, Window, open_connection
from trio_streamrpc.dialects import Dialect, kkrpc_classic, signal
from trio_streamrpc.testing import open_pair
from trio_streamrpc.transports.memory import MemoryTransport, open_memory_transports


@asynccontextmanager
async def against(dialect: Dialect) -> AsyncIterator[tuple[Connection, MemoryTransport]]:
    here, there = open_memory_transports(encoding="json", capacity=1)
    with trio.fail_after(100):
        async with open_connection(here, dialect=dialect) as connection:
            yield connection, there


def chunk(id: str, value: Any) -> str:
    record = {"id": id, "method": "", "args": {"value": value}, "type": "stream-chunk"}
    return json.dumps(record)


async def answered(there: MemoryTransport) -> str:
    """The id of the stream that was asked for, which is answered."""
    id: str = json.loads(await there.receive())["id"]
    args = {"result": {"__stream": True}}
    await there.send(json.dumps({"id": id, "method": "", "args": args, "type": "response"}))
    return id


@pytest.mark.parametrize("dialect", [kkrpc_classic, signal], ids=repr)
async def test_the_producer_is_held(dialect: Dialect, autojump_clock: MockClock) -> None:
    """What is here is a window of items; the rest waits at the other side, which then stops."""
    service = Service()
    with trio.fail_after(100):
        async with open_pair(service, dialect=dialect) as connection:
            async with connection.stream("forever", 1000) as stream:
                await stream.receive()
                await trio.testing.wait_all_tasks_blocked()
                produced = service.produced
                assert stream.statistics().items_buffered <= 64
                # What waits to be written there, and on its way, is bounded in bytes.
                assert produced < 64 + 300
                for _ in range(100):
                    await stream.receive()
                await trio.testing.wait_all_tasks_blocked()
                assert produced + 50 < service.produced < produced + 150


async def test_it_holds_the_whole_connection(autojump_clock: MockClock) -> None:
    async with against(kkrpc_classic) as (connection, there):
        async with connection.stream("forever") as stream:
            id = await answered(there)
            sent = 0
            with trio.move_on_after(1):
                while True:
                    await there.send(chunk(id, sent))
                    sent += 1
            # A window, one that is on its way, and one that has not been taken by the reader.
            assert sent == 64 + 1
            for each in range(sent):
                assert await stream.receive() == each
            with trio.fail_after(1):
                await there.send(chunk(id, "more"))
            assert await stream.receive() == "more"


@pytest.mark.parametrize("how", ["leave", "cancel", "drop"])
async def test_leaving_lets_the_reader_go_on(how: str, autojump_clock: MockClock) -> None:
    async with against(kkrpc_classic) as (connection, there):
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await connection.call("add", 1, 2))

        async def consume(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
            with trio.CancelScope() as scope:
                task_status.started(scope)
                if how == "drop":
                    async for _ in connection.stream("forever"):
                        await trio.sleep(10)
                        break
                    return
                async with connection.stream("forever") as stream:
                    await stream.receive()
                    await trio.sleep(10 if how == "leave" else 1000)

        async with trio.open_nursery() as nursery:
            scope = await nursery.start(consume)
            id = await answered(there)
            for each in range(65):
                await there.send(chunk(id, each))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask)
            asked = json.loads(await there.receive())
            nursery.start_soon(
                there.send,
                json.dumps({**asked, "type": "response", "args": {"result": 3}}),
            )
            await trio.sleep(5)
            assert answers == []
            if how == "cancel":
                scope.cancel()
            assert json.loads(await there.receive())["type"] == "stream-cancel"
        assert answers == [3]


async def test_a_slow_stream_fails(autojump_clock: MockClock) -> None:
    """By option: what fitted comes, then RESOURCE_EXHAUSTED, and the rest goes on."""
    async with against(kkrpc_classic(slow="fail")) as (connection, there):
        async with connection.stream("forever") as stream:
            id = await answered(there)
            for each in range(500):
                await there.send(chunk(id, each))
            assert json.loads(await there.receive())["type"] == "stream-cancel"
            assert [await stream.receive() for _ in range(64)] == list(range(64))
            with pytest.raises(ResourceExhausted, match="not taken as fast as it comes"):
                await stream.receive()
        budget = connection.endpoint.budget.left
        assert budget == connection.limits.violation_budget
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.call, "add", 1, 2)
            asked = json.loads(await there.receive())
            await there.send(json.dumps({**asked, "type": "response", "args": {"result": 3}}))


def test_what_comes_before_the_cancel_is_written_costs_nothing() -> None:
    """A peer that knows of no credit cannot know that its stream has failed."""
    dialect = kkrpc_classic(slow="fail")
    talk = dialect.speak("connecting", limits=dialect.limits(Limits()))
    talk.begin()
    talk.call("forever", b"[]", window=Window(2, 1000))
    asked = json.loads(talk.next_message() or "")
    args = {"result": {"__stream": True}}
    talk.receive(json.dumps({"id": asked["id"], "args": args, "type": "response"}))
    events = [event for each in range(100) for event in talk.receive(chunk(asked["id"], each))]
    assert [type(event).__name__ for event in events] == ["JsonChunk", "JsonChunk", "Overflow"]
    assert talk.budget.left == Limits().violation_budget
    assert json.loads(talk.next_message() or "")["type"] == "stream-cancel"
    assert [type(event).__name__ for event in talk.answered] == ["JsonEnd"]


async def test_closing_does_not_wait_for_the_consumer(autojump_clock: MockClock) -> None:
    """The reader stands still: the end of the connection is the end of that, too."""
    service = Service()
    with trio.fail_after(100):
        async with open_pair(service, dialect=kkrpc_classic) as connection:
            stream = connection.stream("forever", 1000)
            await stream.receive()
            await trio.testing.wait_all_tasks_blocked()
        assert service.ended == ["forever"]


@pytest.mark.parametrize("options", [{"slow": "never"}, {"version": "xml"}])
def test_options_that_cannot_be(options: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        kkrpc_classic(**options)
