"""What a handler knows of the call it runs for."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from tests.runtime.ends import open_ends, quiet
from tests.runtime.peer import open_against
from trio_streamrpc import Call, current_call, rpc
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.runtime.calls import SERVING, may_wait, serves
from trio_streamrpc.testing import open_pair


class Service:
    def __init__(self) -> None:
        self.seen: list[Call] = []

    @rpc
    async def look(self) -> str:
        self.seen.append(current_call())
        return current_call().method

    @rpc
    async def ticks(self) -> AsyncIterator[str]:
        self.seen.append(current_call())
        try:
            while True:
                yield current_call().method
        finally:
            self.seen.append(current_call())


async def test_outside_of_a_handler():
    with pytest.raises(RuntimeError, match="is for handlers of calls"):
        current_call()


async def test_inside_of_a_handler(autojump_clock):
    service = Service()
    async with open_ends({"deep": {"er": service}}) as ends:
        assert await ends.client.call("deep.er.look") == "deep.er.look"
        (call,) = service.seen
        assert call.connection is ends.server
        assert call.deadline == math.inf
        assert call.metadata == {}
        assert call.headers == {}
        with pytest.raises(RuntimeError):
            current_call()
        service.seen.clear()
        async with ends.client.stream("deep.er.ticks") as stream:
            assert await stream.receive() == "deep.er.ticks"
        first, last = service.seen
        assert first is last


async def test_each_handler_has_its_own(autojump_clock):
    """Tasks that a handler starts are part of its call; others are not."""
    seen: dict[int, list[Any]] = {}

    class Many:
        @rpc
        async def run(self, number: int) -> None:
            seen[number] = [current_call()]
            await trio.sleep(1)
            seen[number].append(current_call())

            async def child() -> None:
                await trio.sleep(1)
                seen[number].append(current_call())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)

    async with open_ends(Many()) as ends:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(ends.client.call, "run", number)
    assert len({calls[0] for calls in seen.values()}) == 5
    assert all(len(calls) == 3 and len(set(calls)) == 1 for calls in seen.values())


async def test_a_handler_that_opens_a_connection_of_its_own(autojump_clock):
    """The handlers of that connection are not part of its call."""

    class Inner:
        @rpc
        async def look(self) -> bool:
            return current_call().method == "look"

    class Outer:
        @rpc
        async def outer(self) -> bool:
            async with open_pair(Inner()) as connection:
                inside: bool = await connection.call("look")
            return inside and current_call().method == "outer"

    async with open_ends(Outer()) as ends:
        assert await ends.client.call("outer") is True


async def test_calling_back(autojump_clock):
    class Here:
        @rpc
        async def double(self, value: int) -> int:
            return 2 * value

        @rpc
        async def count(self, stop: int) -> AsyncIterator[int]:
            for number in range(stop):
                yield number

    class There:
        @rpc
        async def quadruple(self, value: int) -> int:
            here = current_call().connection.proxy(Here)
            return await here.double(await here.double(value))

        @rpc
        async def squares(self, stop: int) -> AsyncIterator[int]:
            async with current_call().connection.proxy(Here).count(stop) as numbers:
                async for number in numbers:
                    yield number * number

    async with open_ends(There(), serving=Here()) as ends:
        there = ends.client.proxy(There)
        assert await there.quadruple(3) == 12
        async with there.squares(200) as squares:
            assert [item async for item in squares] == [number * number for number in range(200)]
        async with there.squares(1000) as squares:
            assert await squares.receive() == 0
        # Leaving has closed both streams, one through the other (R7).
        await quiet()
        ends.assert_clean()


async def test_metadata_of_the_connection_and_of_the_call(autojump_clock):
    """What a call was sent with lies over what its connection was opened with."""
    service = Service()
    async with open_pair(service, metadata={"who": "me", "raw": b"\x00\xff"}) as connection:
        await connection.call("look")
        assert service.seen[0].metadata == {"who": "me", "raw": b"\x00\xff"}
        with pytest.raises(TypeError):
            service.seen[0].metadata["who"] = "you"  # type: ignore[index]
    service.seen.clear()
    async with open_against("accepting", serving=service) as (_, peer):
        metadata = {"trace": "1"}
        await peer.says({"type": "call", "id": 1, "method": "look", "metadata": metadata})
        await peer.hears("result")
        assert service.seen[0].metadata == {"trace": "1"}


async def test_the_deadline_of_a_call(autojump_clock):
    """R23: on this side's clock."""
    service = Service()
    async with open_ends(service) as ends:
        with trio.fail_after(7):
            await ends.client.call("look")
        assert service.seen[0].deadline == pytest.approx(trio.current_time() + 7)


async def test_calls_are_compared_by_identity():
    call = Call(None, "m", {}, math.inf)  # type: ignore[arg-type]
    assert call != Call(None, "m", {}, math.inf)  # type: ignore[arg-type]
    assert len({call, Call(None, "m", {}, math.inf)}) == 2  # type: ignore[arg-type]


async def test_replacing_what_an_interceptor_may() -> None:
    call = Call(None, "m", {"a": 1}, math.inf, (1,), {"b": 2})  # type: ignore[arg-type]
    changed = call.replace(args=[3], kwargs={"c": 4}, metadata={})
    assert (changed.args, changed.kwargs, changed.metadata) == ((3,), {"c": 4}, {})
    assert (call.args, call.kwargs, call.metadata) == ((1,), {"b": 2}, {"a": 1})
    assert call.replace(metadata={"a": 2}).args == (1,)
    for name in ("connection", "method", "deadline", "unknown"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            call.replace(**{name: None})


# --- whom a task serves (R26)


async def test_a_task_that_serves_nobody(autojump_clock):
    async with open_ends(Service()) as ends:
        assert not serves(ends.client)
        assert not serves(ends.server)


async def test_whom_a_handler_and_a_callback_serve(autojump_clock):
    """R26: a handler serves its peer; a callback serves its own, within whatever it was passed in.

    Through a gateway that is the chain of both.
    """
    seen: dict[str, list[bool]] = {}

    def look(name: str, *connections: Any) -> None:
        seen[name] = [serves(each) for each in connections]

    class Behind:
        @rpc
        async def call(self, callback) -> None:
            look("behind", behind.server, behind.client)
            await callback()

    class Gateway:
        @rpc
        async def call(self, callback) -> None:
            async def between() -> None:
                look("between", front.server, behind.client)
                await callback()

            look("gateway", front.server, behind.client)
            await behind.client.call("call", between)
            look("gateway again", front.server, behind.client)

    async def last() -> None:
        look("last", front.client, front.server)

    async with open_ends(Behind()) as behind, open_ends(Gateway()) as front:
        await front.client.call("call", last)
        assert SERVING.get() is None
    assert seen == {
        "gateway": [True, False],
        "behind": [True, False],
        "between": [True, True],
        "gateway again": [True, False],
        "last": [True, False],
    }


async def test_for_whose_objects_a_handler_waits(autojump_clock):
    """R26: for those of its own call, and for no other's; a callback waits for nobody's."""
    seen: list[bool] = []

    class There:
        @rpc
        async def call(self, callback) -> None:
            [own] = there.server.endpoint.exchanges.values()
            other = Exchange(99, own.state)
            seen.extend(may_wait(there.server, root) for root in (own, other, None))
            await callback()

    async def callback() -> None:
        [*_, own] = there.client.endpoint.exchanges.values()
        roots = (own, *there.client.endpoint.exchanges.values(), None)
        seen.extend(may_wait(there.client, root) for root in roots)
        seen.append(may_wait(there.server, None))

    async with open_ends(There()) as there:
        assert may_wait(there.client, None)
        await there.client.call("call", callback)
    assert seen == [True, False, False, False, False, False, False, True]
