"""The side that serves: which calls become handlers, and which are refused, and how."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.protocol.wire import payload
from tests.runtime.ends import Steps, open_ends, quiet
from tests.runtime.peer import open_against
from trio_streamrpc import (
    InternalError,
    InvalidArgument,
    Limits,
    ResourceExhausted,
    RpcError,
    Unimplemented,
    Window,
    rpc,
)
from trio_streamrpc.contract.methods import MethodTable


class Service:
    def __init__(self) -> None:
        self.log: list[str] = []

    @rpc
    async def add(self, left: int, right: int = 1) -> int:
        self.log.append("add")
        return left + right

    @rpc
    async def ticks(self) -> AsyncIterator[int]:
        for number in range(3):
            yield number

    @rpc
    async def stuck(self) -> None:
        await trio.sleep_forever()

    async def unmarked(self) -> int:
        return 1

    secret = "not a method"


class Opaque:
    """What nothing can encode."""

    __slots__ = ("hidden",)


class Odd:
    @rpc
    async def odd(self, value: Opaque) -> int:
        raise AssertionError

    @rpc
    async def odd_stream(self, value: Opaque) -> AsyncIterator[int]:
        raise AssertionError
        yield 1

    @rpc
    async def even(self) -> int:
        return 2


async def test_the_wrong_kind_of_call_says_how_it_is_called(autojump_clock):
    """R18."""
    async with open_ends(Service()) as ends:
        with pytest.raises(InvalidArgument, match="ticks gives a stream: use "):
            await ends.client.call("ticks")
        async with ends.client.stream("add", 1) as stream:
            with pytest.raises(InvalidArgument, match="add gives one result: use await"):
                await stream.receive()
        # R22: an error that was not read is dropped.
        async with ends.client.stream("add", 1):
            await quiet()


async def test_a_context_and_a_task_say_how_they_are_called(autojump_clock):
    class Contexts:
        @rpc
        async def add(self, left: int) -> int:
            return left

        @rpc
        async def start(self, task_status: trio.TaskStatus[int]) -> None: ...

        @rpc
        @asynccontextmanager
        async def hold(self) -> AsyncIterator[int]:
            yield 1

    async with open_ends(Contexts()) as ends:
        with pytest.raises(InvalidArgument, match=r"start is a task: use await nursery.start\("):
            await ends.client.call("start")
        with pytest.raises(InvalidArgument, match=r"hold is a context: use async with connection"):
            await ends.client.call("hold")
        assert await ends.client.call("add", 1) == 1


@pytest.mark.parametrize(
    "name",
    [
        "nothing", "unmarked", "secret", "log", "__class__", "__init__", "_private", "", ".",
        "add.", ".add", "add.__call__", "a.__globals__", "ADD", "\u0430dd", "x" * 257,
        "x" * 100_000, "a." * 5000,
    ],
)  # fmt: skip
async def test_what_is_not_exposed_is_not_there(name, autojump_clock):
    """R28: the same answer for every name."""
    async with open_ends(Service()) as ends:
        with pytest.raises(Unimplemented):
            await ends.client.call(name)
        with pytest.raises(Unimplemented):
            await ends.client.stream(name).receive()
        assert {str(frame["error"]) for frame in ends.down.sent("error")} == {
            str({"code": "UNIMPLEMENTED", "message": "no such method"})
        }
        assert ends.server.endpoint.budget is not None
        assert await ends.client.call("add", 1) == 2


async def test_a_side_that_serves_nothing(autojump_clock):
    async with open_ends(Service()) as ends:
        with pytest.raises(Unimplemented):
            await ends.server.call("add", 1)


async def test_a_method_whose_types_cannot_be_served_is_that_methods_problem(
    autojump_clock, caplog
):
    """The connection lives, and so do all other calls."""
    async with open_ends(Odd()) as ends:
        with pytest.raises(InternalError, match="odd cannot be called"):
            await ends.client.call("odd", 1)
        with pytest.raises(InternalError, match="odd_stream cannot be called"):
            await ends.client.stream("odd_stream", 1).receive()
        assert await ends.client.call("even") == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


async def test_no_task_is_made_for_a_call_that_is_refused(autojump_clock):
    """R26: beyond max_calls nothing is started."""
    limits = Limits(max_calls=2)
    async with open_against("accepting", serving=Service(), limits=limits) as (connection, peer):
        for id in (1, 3):
            await peer.says({"type": "call", "id": id, "method": "stuck"})
        await quiet()
        before = trio.lowlevel.current_statistics().tasks_living
        for id in range(5, 105, 2):
            await peer.says({"type": "call", "id": id, "method": "stuck"})
            error = await peer.hears("error")
            assert error["id"] == id
            assert error["error"]["code"] == "RESOURCE_EXHAUSTED"
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert connection.statistics().handlers_running == 2
        await peer.says({"type": "cancel", "id": 1})
        assert (await peer.hears("error"))["error"]["code"] == "CANCELLED"
        await peer.says({"type": "call", "id": 201, "method": "add", "args": [1]})
        assert (await peer.hears("result"))["value"] == 2


async def test_call_and_cancel_as_fast_as_the_wire_allows(autojump_clock):
    """R26: running and still cleaning-up handlers never exceed max_calls."""
    running = [0, 0]

    async def slow() -> None:
        running[0] += 1
        running[1] = max(running)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.1)
            running[0] -= 1

    limits = Limits(max_calls=5, violation_budget=10_000)
    async with open_against("accepting", serving={"slow": slow}, limits=limits) as (_, peer):
        for id in range(1, 2001, 2):
            await peer.says(
                {"type": "call", "id": id, "method": "slow"}, {"type": "cancel", "id": id}
            )
            if id % 64 == 1:
                await quiet()
                await trio.sleep(0.01)
        await trio.sleep(1)
        assert running[0] == 0
        assert running[1] <= 5


async def test_arguments_by_name_and_by_default(autojump_clock):
    class Names:
        @rpc
        async def call(
            self, first: int, /, second: int = 2, *rest: int, third: int = 3
        ) -> list[Any]:
            return [first, second, rest, third]

        @rpc
        async def named(self, **names: int) -> dict[str, int]:
            return names

        @rpc
        async def ticks(self, start: int, *, step: int = 1) -> AsyncIterator[int]:
            yield start
            yield start + step

    async with open_ends(Names()) as ends:
        api = ends.client.proxy(Names)
        assert await api.call(1) == [1, 2, [], 3]
        assert await api.call(1, third=5) == [1, 2, [], 5]
        assert await api.call(1, 3, 4, 5) == [1, 3, [4, 5], 3]
        assert await api.named(a=1, b=2) == {"a": 1, "b": 2}
        assert await ends.client.call("call", 1, second=7) == [1, 7, [], 3]
        assert [item async for item in api.ticks(5, step=2)] == [5, 7]
        with pytest.raises(InvalidArgument, match="missing 1 required argument: 'first'"):
            await ends.client.call("call")
        with pytest.raises(TypeError, match="missing 1 required argument: 'first'"):
            await api.call()  # type: ignore[call-arg]


async def test_a_mapping_of_functions_and_services(autojump_clock):
    def add(left: int, right: int) -> int:
        return left + right

    async def count(stop: int) -> AsyncIterator[int]:
        for number in range(stop):
            yield number

    service = {"math": {"add": add, "count": count, "deep": {"er": add}}, "data": Service()}
    async with open_ends(service) as ends:
        assert await ends.client.call("math.add", 1, 2) == 3
        assert await ends.client.call("math.deep.er", 1, 2) == 3
        assert await ends.client.call("data.add", 1) == 2
        assert [item async for item in ends.client.stream("math.count", 3)] == [0, 1, 2]
        with pytest.raises(Unimplemented):
            await ends.client.call("math")
        assert await ends.client.api.math.add(1, 2) == 3


async def test_cancels_and_grants_for_what_has_ended(autojump_clock):
    """R9: they crossed the final frame."""
    async with open_against("accepting", serving=Service()) as (connection, peer):
        await peer.says({"type": "call", "id": 1, "method": "add", "args": [1]})
        await peer.hears("result")
        await peer.says({"type": "cancel", "id": 1})
        window = {"items": 9, "bytes": 100}
        await peer.says({"type": "call", "id": 3, "method": "ticks", "window": window})
        await peer.hears("end")
        await peer.says({"type": "grant", "id": 3, "items": 1}, {"type": "cancel", "id": 3})
        await peer.says({"type": "call", "id": 5, "method": "add", "args": [1]})
        assert (await peer.hears("result"))["id"] == 5
        connection.callee.on_cancel(connection.endpoint.family.cancel(1, "abort", None))
        connection.callee.on_grant(connection.endpoint.family.grant(3, 1, 1))
        connection.callee.on_credit(3)


async def test_items_of_an_upload_that_nobody_takes(autojump_clock):
    """They came with a call that is refused, and before its producer could know."""
    async with open_against("accepting", serving=Service()) as (_, peer):
        call = {"type": "call", "id": 1, "method": "add", "refs": [[0, "stream", 3]]}
        chunk = {"type": "chunk", "id": 3, "items": [1], "size": 1}
        await peer.says(call, chunk, {**chunk, "size": 7})
        assert (await peer.hears("error"))["error"]["code"] == "INVALID_ARGUMENT"
        await peer.says({"type": "end", "id": 3})
        await peer.says({"type": "call", "id": 5, "method": "add", "args": [1]})
        assert (await peer.hears("result"))["value"] == 2


async def test_a_stream_without_any_credit(autojump_clock):
    """R14: nothing is asked of the generator, not even that it starts; it can be closed."""
    service = Service()
    started = []

    async def ticks() -> AsyncIterator[int]:
        started.append(1)
        yield 1

    async with open_against("accepting", serving={"ticks": ticks}) as (_, peer):
        for id, window in [(1, {"items": 0, "bytes": 100}), (3, {"items": 5, "bytes": 0})]:
            await peer.says({"type": "call", "id": id, "method": "ticks", "window": window})
            await quiet()
            assert started == []
            await peer.says({"type": "cancel", "id": id, "mode": "close"})
            assert (await peer.hears())["type"] == "end"
        assert started == []
        assert service.log == []
        await peer.says(
            {"type": "call", "id": 5, "method": "ticks", "window": {"items": 0, "bytes": 9}}
        )
        await peer.says({"type": "grant", "id": 5, "items": 9})
        assert (await peer.hears())["type"] == "chunk"


async def test_many_small_grants_wake_nobody_in_vain(autojump_clock):
    """A producer that has no byte credit is not woken by item credit."""
    async with open_against("accepting", serving=Service()) as (_, peer):
        window = {"items": 1, "bytes": 0}
        await peer.says({"type": "call", "id": 1, "method": "ticks", "window": window})
        await quiet()
        with Steps() as steps:
            await peer.says(*[{"type": "grant", "id": 1, "items": 1} for _ in range(1000)])
            await quiet()
        assert steps.count < 30


async def test_metadata_that_is_no_mapping(autojump_clock):
    """It is that call's problem (INVALID_ARGUMENT)."""
    async with open_against("accepting", serving=Service()) as (_, peer):
        await peer.says({"type": "call", "id": 1, "method": "add", "args": [1], "metadata": [1]})
        error = await peer.hears("error")
        assert error["error"]["code"] == "INVALID_ARGUMENT"
        await peer.says({"type": "call", "id": 3, "method": "add", "args": [1]})
        assert (await peer.hears("result"))["value"] == 2


async def test_a_side_that_closes_waits_for_its_handlers(autojump_clock):
    log = []

    async def slow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            log.append("cleaned")

    async with open_ends({"slow": slow}, clean=False) as ends:
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(RpcError):
                    await ends.client.call("slow")

            nursery.start_soon(call)
            await quiet()
            with trio.testing.assert_checkpoints():
                await ends.server.aclose()
            assert log == ["cleaned"]


async def test_handlers_that_outlive_their_connection_are_reported(autojump_clock, caplog):
    """R7a."""
    release = trio.Event()

    async def stuck() -> None:
        with trio.CancelScope(shield=True):
            await release.wait()

    with trio.move_on_after(100):
        async with open_ends({"stuck": stuck}, clean=False) as ends:
            async with trio.open_nursery() as nursery:

                async def call() -> None:
                    with pytest.raises(RpcError):
                        await ends.client.call("stuck")

                nursery.start_soon(call)
                await quiet()
                await ends.server.aclose()
            await trio.sleep(10)
            release.set()
    messages = [record.getMessage() for record in caplog.records]
    assert any("stuck has not stopped 6.0 s after" in message for message in messages)


async def test_windows_of_calls_may_be_larger_than_any_memory(autojump_clock):
    """R14: credit alone is no bound on this side's memory."""
    sent = [0]

    async def flood() -> AsyncIterator[bytes]:
        while True:
            sent[0] += 1
            yield bytes(1000)

    async with open_ends({"flood": flood}) as ends:
        ends.down.hold()
        async with ends.client.stream("flood", window=Window(2**50, 2**50)):
            await quiet()
            assert sent[0] < 1000
            ends.down.let_go()


async def test_max_calls_and_one_more(autojump_clock):
    """R26: equal passes, one more waits; told by the wire it is refused."""
    async with open_ends(Service(), limits=Limits(max_calls=2)) as ends:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(ends.client.call, "stuck")
            await quiet()
            ends.client.caller.places.calls.release()
            with pytest.raises(ResourceExhausted, match="too many calls at once"):
                await ends.client.call("add", 1)
            ends.client.caller.places.calls.acquire_nowait()
            nursery.cancel_scope.cancel()


async def test_a_call_that_arrives_as_the_connection_ends(autojump_clock):
    """R27: nobody would ask its handler to stop, so none is started."""
    async with open_against(serving=Service()) as (connection, peer):
        connection.callee.ask_all()
        await peer.says({"type": "call", "id": 2, "method": "even"})
        refused = await peer.hears("error")
        assert refused["error"]["code"] == "UNAVAILABLE"
        assert refused["retry"] is True


async def test_a_drain_waits_for_a_call_that_has_begun_to_arrive(autojump_clock):
    """R21, R27: its first frame came before the drain, so it is run."""
    async with open_against("accepting", serving=Service()) as (connection, peer):
        data = payload("msgpack", [[1], None])
        call = {"type": "call", "id": 1, "method": "add", "parts": len(data)}
        await peer.says(call, {"type": "part", "id": 1, "data": data[:1]})
        await quiet()
        drained = trio.Event()

        async def drain() -> None:
            await connection.drain()
            drained.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await quiet()
            assert not drained.is_set()
            await peer.says({"type": "part", "id": 1, "data": data[1:]})
            assert (await peer.hears("result", "error"))["id"] == 1
            await drained.wait()


async def test_a_drain_does_not_wait_for_a_peer_that_is_gone(autojump_clock):
    async with open_against("accepting", serving=Service()) as (connection, peer):
        await peer.says({"type": "call", "id": 1, "method": "add", "parts": 100})
        await quiet()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.drain)
            await quiet()
            await peer.transport.aclose()


async def test_the_longest_name(autojump_clock):
    """R28: 256 characters, namespaces included; nobody can serve one more."""

    async def function() -> int:
        return 1

    longest = "n" * 200 + "." + "m" * 55
    async with open_ends({"n" * 200: {"m" * 55: function}}) as ends:
        assert await ends.client.call(longest) == 1
        with pytest.raises(Unimplemented):
            await ends.client.call(longest + "m")
    with pytest.raises(TypeError, match="257 characters, more than 256"):
        MethodTable.of({"n" * 200: {"m" * 56: function}})
