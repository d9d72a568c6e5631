"""The places that calls take on the other side, and what waits for them (R26)."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.runtime.ends import Cut, Ends, open_ends, quiet, sweep
from tests.runtime.peer import open_against
from trio_streamrpc import (
    Connection,
    ConnectionLost,
    Limits,
    RemoteProtocolError,
    ResourceExhausted,
    current_call,
    rpc,
)

Double = Callable[[int], Awaitable[int]]
Nothing = Callable[[], Awaitable[None]]


async def double(value: int) -> int:
    return 2 * value


class Service:
    @rpc
    async def wait(self, seconds: float = 1) -> None:
        await trio.sleep(seconds)

    @rpc
    async def apply(self, double: Double, value: int) -> int:
        return await double(value)

    @rpc
    async def at_once(self, double: Double, number: int) -> list[int]:
        found: list[int] = []

        async def one(value: int) -> None:
            found.append(await double(value))

        async with trio.open_nursery() as nursery:
            for value in range(number):
                nursery.start_soon(one, value)
        return sorted(found)

    @rpc
    async def nested(self, outer: Callable[[Double], Awaitable[int]]) -> int:
        return await outer(double)


# --- never stuck


@pytest.mark.parametrize("max_object_calls", [1, 2, 64])
@pytest.mark.parametrize("max_calls", [1, 2, 50, 100])
async def test_fifty_handlers_that_call_back(
    max_calls: int, max_object_calls: int, autojump_clock: Any
) -> None:
    """R26: each callback calls in again; all end with a result, or are told that there is no room.

    A test that were stuck would fail after an hour of its own clock.
    """
    results: list[int] = []
    refused: list[ResourceExhausted] = []
    limits = Limits(max_calls=max_calls, max_object_calls=max_object_calls)
    async with open_ends(Service(), limits=limits) as ends:
        api = ends.client.proxy(Service)

        async def again(value: int) -> int:
            await trio.sleep(0.01)
            return await api.apply(double, value)

        async def call(value: int) -> None:
            try:
                results.append(await api.apply(again, value))
            except ResourceExhausted as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for value in range(50):
                nursery.start_soon(call, value)
        assert len(results) + len(refused) == 50
        assert set(results) <= {2 * value for value in range(50)}
        if max_calls == 100:
            assert refused == []
        if max_calls == 1:
            assert results == []
        assert all("does not wait" in error.message for error in refused)
        await quiet()
        ends.assert_clean()
        # Nobody was told by the other side: it was known here that there is no room.
        assert ends.server.endpoint.budget.spend(0.0)


@pytest.mark.parametrize("max_object_calls", [1, 2, 64])
@pytest.mark.parametrize("max_calls", [1, 2, 50])
async def test_callbacks_within_callbacks(
    max_calls: int, max_object_calls: int, autojump_clock: Any
) -> None:
    """R26: many at once, three calls of objects deep, in both directions, at every limit."""
    ended: list[object] = []
    limits = Limits(max_calls=max_calls, max_object_calls=max_object_calls)

    class Deep:
        @rpc
        async def start(self, outer: Callable[[Double], Awaitable[int]], number: int) -> int:
            total = 0

            async def inner(value: int) -> int:
                await trio.sleep(0.01)
                return value + 1

            async def one() -> None:
                nonlocal total
                found = await outer(inner)
                total += found

            async with trio.open_nursery() as nursery:
                for _ in range(number):
                    nursery.start_soon(one)
            return total

    async def outer(inner: Double) -> int:
        return await inner(await inner(1))

    async with open_ends(Deep(), serving=Deep(), limits=limits) as ends:

        async def call(connection: Connection) -> None:
            try:
                ended.append(await connection.proxy(Deep).start(outer, 5))
            except Exception as error:
                ended.append(error)

        async with trio.open_nursery() as nursery:
            for connection in (ends.client, ends.server) * 10:
                nursery.start_soon(call, connection)
        assert len(ended) == 20
        failures = [str(each) for each in ended if each != 15]
        assert [each for each in failures if "sub-exception" not in each] == []
        if max_object_calls == 64:
            assert ended == [15] * 20


@pytest.mark.parametrize("max_calls", [1, 2, 10])
async def test_at_one_call_callbacks_work(max_calls: int, autojump_clock: Any) -> None:
    """R26: their calls do not count with those of the service."""
    async with open_ends(Service(), limits=Limits(max_calls=max_calls)) as ends:
        api = ends.client.proxy(Service)
        assert await api.apply(double, 4) == 8
        assert await api.at_once(double, 50) == [2 * value for value in range(50)]
        assert await api.nested(lambda inner: inner(21)) == 42


async def test_a_callback_may_wait_for_other_calls_of_its_caller(autojump_clock: Any) -> None:
    """R26: it fails where the other side has no room, and waits for no place."""
    async with open_ends(Service(), limits=Limits(max_calls=2)) as ends:
        api = ends.client.proxy(Service)
        started = trio.Event()

        async def again(value: int) -> int:
            started.set()
            await trio.sleep(0.5)
            start = trio.current_time()
            with pytest.raises(ResourceExhausted, match="a handler of its calls does not wait"):
                await api.wait()
            assert trio.current_time() == start
            await trio.sleep(1)
            # The other call has ended, so there is room.
            await api.wait()
            return value

        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.wait)
            assert await api.apply(again, 3) == 3


async def test_what_a_callback_starts_does_not_wait_either(autojump_clock: Any) -> None:
    """R26: its tasks are part of the chain as well."""
    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:
        api = ends.client.proxy(Service)

        async def again(value: int) -> int:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(api.wait)
            return value

        async def tell(value: int) -> int:
            with pytest.raises(ExceptionGroup) as caught:
                await again(value)
            assert caught.group_contains(ResourceExhausted)
            return value

        assert await api.apply(tell, 3) == 3


async def test_calls_beside_a_callback_wait(autojump_clock: Any) -> None:
    """R26: what does not serve that peer may wait, whatever else runs."""
    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:
        api = ends.client.proxy(Service)

        async def slow(value: int) -> int:
            await trio.sleep(5)
            return value

        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.apply, slow, 3)
            await quiet()
            start = trio.current_time()
            await api.wait()
            assert trio.current_time() - start == 6


async def test_the_callback_of_another_call_is_not_waited_for(autojump_clock: Any) -> None:
    """R26: a handler waits for the places of its own call alone: another's may wait for it."""
    told: list[str] = []

    class Subscriptions:
        def __init__(self) -> None:
            self.subscribers: list[Double] = []

        @rpc
        async def subscribe(self, subscriber: Double) -> int:
            self.subscribers.append(subscriber)
            return await subscriber(0)

        @rpc
        async def publish(self) -> None:
            for subscriber in self.subscribers:
                try:
                    await subscriber(1)
                except ResourceExhausted as error:
                    told.append(error.message)

    async with open_ends(Subscriptions(), limits=Limits(max_object_calls=1)) as ends:
        api = ends.client.proxy(Subscriptions)

        async def subscriber(value: int) -> int:
            await api.publish()
            return value

        assert await api.subscribe(subscriber) == 0
    assert len(told) == 1
    assert "does not wait for it" in told[0]


async def test_uploads_are_not_waited_for_by_who_serves(autojump_clock: Any) -> None:
    """R19: as for max_calls: their places are those of all calls of a connection."""

    released = trio.Event()

    async def numbers() -> AsyncIterator[int]:
        yield 1
        await released.wait()

    class Uploads:
        @rpc
        async def send(self, sink: Callable[[AsyncIterable[int]], Awaitable[int]]) -> int:
            return await sink(numbers())

    async with open_ends(Uploads(), limits=Limits(max_uploads=1)) as ends:
        api = ends.client.proxy(Uploads)

        async def inner(stream: AsyncIterable[int]) -> int:
            return sum([each async for each in stream])

        async def outer(stream: AsyncIterable[int]) -> int:
            with pytest.raises(ResourceExhausted, match="as many uploads as it takes"):
                await api.send(inner)
            released.set()
            return await inner(stream)

        assert await api.send(outer) == 1
        assert await api.send(inner) == 1


# --- through others


class Gateway:
    """It serves one connection and calls another, with a callback that calls the first again."""

    def __init__(self, behind: Connection) -> None:
        self.behind = behind

    @rpc
    async def through(self, callback: Nothing | None = None) -> str:
        front = current_call().connection

        async def again(value: int) -> int:
            await front.call("wait")
            return value

        try:
            await self.behind.proxy(Service).apply(again, 1)
        except ResourceExhausted as error:
            return error.message
        return "done"


async def test_through_a_gateway(autojump_clock: Any) -> None:
    """R26: a handler for one peer, a callback of another, a call to the first: it may not wait."""
    limits = Limits(max_calls=1)
    async with (
        open_ends(Service()) as behind,
        open_ends(
            Gateway(behind.client), serving=Service(), client_limits=limits, limits=Limits()
        ) as front,
    ):
        assert await front.client.call("through") == "done"
        async with trio.open_nursery() as nursery:
            # The one place of the client is taken, by a call that waits for nothing.
            nursery.start_soon(front.server.call, "wait", 3)
            await quiet()
            assert "does not wait for it" in await front.client.call("through")
        assert await front.client.call("through") == "done"


async def test_other_peers_are_waited_for(autojump_clock: Any) -> None:
    """R26: a handler waits for a place at a side that it does not serve."""
    limits = Limits(max_calls=1)
    async with open_ends(Service(), limits=limits) as behind:

        class Front:
            @rpc
            async def wait_there(self) -> None:
                await behind.client.call("wait")

        async with open_ends(Front()) as front:
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(front.client.call, "wait_there")
            assert trio.current_time() - start == 5


# --- the places of objects


class Account:
    def __init__(self) -> None:
        self.peak = self.running = 0

    @rpc
    async def slow(self) -> int:
        self.running += 1
        self.peak = max(self.peak, self.running)
        await trio.sleep(1)
        self.running -= 1
        return self.peak


class Bank:
    @rpc
    @asynccontextmanager
    async def account(self) -> AsyncIterator[Account]:
        yield Account()


async def test_callers_wait_for_an_object_place(autojump_clock: Any) -> None:
    """R26."""
    running = peak = 0

    async def slow(value: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await trio.sleep(1)
        running -= 1
        return 2 * value

    async with open_ends(Service(), limits=Limits(max_object_calls=3)) as ends:
        start = trio.current_time()
        found = await ends.client.proxy(Service).at_once(slow, 12)
        assert found == [2 * value for value in range(12)]
        assert trio.current_time() - start == 4
        assert peak == 3


async def test_each_root_has_places_of_its_own(autojump_clock: Any) -> None:
    """R26: a call that fills its places takes none from another."""

    async def slow(value: int) -> int:
        await trio.sleep(1)
        return 2 * value

    async with open_ends(Service(), limits=Limits(max_object_calls=2)) as ends:
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ends.client.proxy(Service).at_once, slow, 4)
        assert trio.current_time() - start == 2


async def test_objects_below_one_root_share_its_places(autojump_clock: Any) -> None:
    """R26: the chain counts where it began: what serves an object of a root does not wait."""
    refusals: list[str] = []

    class Deep:
        @rpc
        async def start(self, outer: Callable[[Double, int], Awaitable[int]]) -> list[int]:
            found: list[int] = []

            async def inner(value: int) -> int:
                await trio.sleep(1)
                return value

            async def one(value: int) -> None:
                found.append(await outer(inner, value))

            async with trio.open_nursery() as nursery:
                for value in range(3):
                    nursery.start_soon(one, value)
            return sorted(found)

    async def outer(inner: Double, value: int) -> int:
        await trio.sleep(0.1 * value)
        try:
            return await inner(value)
        except ResourceExhausted as error:
            refusals.append(error.message)
            return -1

    limits = Limits(max_object_calls=2)
    async with open_ends(Deep(), limits=limits, client_limits=Limits()) as ends:
        assert await ends.client.proxy(Deep).start(outer) == [-1, 0, 1]
    [refusal] = refusals
    assert refusal.startswith("the other side has as many calls as it takes, and a handler of its")


async def test_a_remote_objects_calls_wait_for_its_places(autojump_clock: Any) -> None:
    """R26."""

    async with open_ends(Bank(), limits=Limits(max_calls=1, max_object_calls=2)) as ends:
        async with ends.client.proxy(Bank).account() as account:
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(account.slow)
            assert trio.current_time() - start == 3
            assert await account.slow() == 2


async def test_a_callback_with_uploads_needs_places_for_both(autojump_clock: Any) -> None:
    """R19: it takes all of them, or none."""

    async def numbers() -> AsyncIterator[int]:
        yield 1

    class Uploads:
        refused = 0

        @rpc
        async def send(
            self,
            sink: Callable[[AsyncIterable[int], AsyncIterable[int]], Awaitable[int]],
            number: int,
        ) -> int:
            total = 0

            async def one() -> None:
                nonlocal total
                try:
                    found = await sink(numbers(), numbers())
                except ResourceExhausted:
                    found = 2
                    self.refused += 1
                total += found

            async with trio.open_nursery() as nursery:
                for _ in range(number):
                    nursery.start_soon(one)
            return total

        @rpc
        async def too_many(
            self,
            sink: Callable[
                [AsyncIterable[int], AsyncIterable[int], AsyncIterable[int], AsyncIterable[int]],
                Awaitable[int],
            ],
        ) -> str:
            try:
                await sink(numbers(), numbers(), numbers(), numbers())
            except ResourceExhausted as error:
                return error.message
            return ""

    async def total(*streams: AsyncIterable[int]) -> int:
        found = 0
        for stream in streams:
            async for each in stream:
                found += each
        return found

    service = Uploads()
    async with open_ends(service, limits=Limits(max_uploads=3)) as ends:
        api = ends.client.proxy(Uploads)
        assert await api.send(total, 1) == 2
        assert service.refused == 0
        assert await api.send(total, 20) == 40
        assert service.refused == 19
        await quiet()
        ends.assert_clean()
        assert "4 uploads with one call" in await api.too_many(total)


# --- while somebody waits


class Full:
    """A callback that takes its only place; others wait behind it."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.results: list[int] = []

    @rpc
    async def fill(self, slow: Double, number: int) -> None:
        async with trio.open_nursery() as nursery:
            for value in range(number):
                nursery.start_soon(self._one, slow, value)

    async def _one(self, slow: Double, value: int) -> None:
        try:
            self.results.append(await slow(value))
        except Exception as error:
            self.failures.append(error)


async def test_the_connection_is_lost_while_somebody_waits(autojump_clock: Any) -> None:
    """All of them hear of it, at once."""
    service = Full()

    async def slow(value: int) -> int:
        await trio.sleep_forever()
        return value

    limits = Limits(max_object_calls=1)
    async with open_ends(service, limits=limits, clean=False) as ends:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                with pytest.raises(ConnectionLost):
                    await ends.client.proxy(Full).fill(slow, 5)

            await quiet()
            assert len(ends.down.sent("call")) == 1
            start = trio.current_time()
            await trio.aclose_forcefully(ends.down)
        assert trio.current_time() == start
        await quiet()
    # A handler of a connection that is lost is asked to stop, and some have been cancelled.
    assert service.results == []
    assert all(isinstance(error, ConnectionLost) for error in service.failures)


async def test_callers_that_wait_when_the_connection_is_lost(autojump_clock: Any) -> None:
    """R26: no place is taken by who has not got one."""
    async with open_ends(Service(), limits=Limits(max_calls=1), clean=False) as ends:
        failures: list[BaseException] = []

        async def call() -> None:
            try:
                await ends.client.call("wait", 100)
            except ConnectionLost as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call)
            await quiet()
            await trio.aclose_forcefully(ends.up)
        assert len(failures) == 5
        assert len(set(map(id, failures))) == 5
        assert ends.client.caller.places.calls.statistics().tasks_waiting == 0


async def test_callers_that_wait_when_the_connection_is_closed(autojump_clock: Any) -> None:
    async with open_ends(Service(), limits=Limits(max_calls=1), clean=False) as ends:
        failures: list[ConnectionLost] = []

        async def call() -> None:
            try:
                await ends.client.call("wait", 100)
            except ConnectionLost as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call)
            await quiet()
            start = trio.current_time()
            await ends.client.aclose()
            assert trio.current_time() == start
        assert [error.message for error in failures] == ["the connection was closed here"] * 5


async def test_the_call_ends_while_somebody_waits_for_its_object(autojump_clock: Any) -> None:
    """R20: who gets the place then is told that there is nothing to call."""
    service = Full()
    connections: list[trio.Nursery] = []

    class Careless(Full):
        @rpc
        async def fill(self, slow: Double, number: int) -> None:
            """It returns before what it has started."""
            nursery = current_call().connection.nursery
            connections.append(nursery)
            for value in range(number):
                nursery.start_soon(service._one, slow, value)
            await trio.sleep(1)

    async def slow(value: int) -> int:
        await trio.sleep_forever()
        return value

    async with open_ends(Careless(), limits=Limits(max_object_calls=1)) as ends:
        await ends.client.proxy(Full).fill(slow, 4)
        await quiet()
        names = sorted(type(error).__name__ for error in service.failures)
        assert names == ["CallCancelled", "NotFound", "NotFound", "NotFound"]
        assert len(ends.down.sent("call")) == 1


async def cancelled_while_waiting(
    ends: Ends, call: Callable[[], Awaitable[object]], cut: Cut
) -> bool:
    done = False
    with cut.arm():
        await call()
        done = True
    await quiet()
    return done


async def test_a_sweep_over_waiting_for_a_place(autojump_clock: Any) -> None:
    """R26: at every step, all places are there again."""
    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:
        api = ends.client.proxy(Service)

        async def attempt(cut: Cut) -> bool:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(api.wait, 0)
                await trio.lowlevel.checkpoint()
                done = await cancelled_while_waiting(ends, lambda: api.apply(double, 1), cut)
            await quiet()
            ends.assert_clean()
            return done

        await sweep(attempt, at_least=4)


async def test_a_sweep_over_waiting_for_an_object_place(autojump_clock: Any) -> None:
    """R26."""

    class Sweeping:
        cut: Cut

        @rpc
        async def run(self, double: Double) -> bool:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(double, 1)
                await trio.lowlevel.checkpoint()
                with self.cut.arm():
                    await double(2)
                    return True
            return False

    service = Sweeping()
    async with open_ends(service, limits=Limits(max_object_calls=1)) as ends:

        async def attempt(cut: Cut) -> bool:
            service.cut = cut
            done = await ends.client.proxy(Sweeping).run(double)
            await quiet()
            ends.assert_clean()
            return done

        await sweep(attempt, at_least=2)


async def test_a_place_that_comes_with_a_lost_connection(autojump_clock: Any) -> None:
    """Who is given one in the same moment gives it back."""
    async with open_ends(Service(), limits=Limits(max_calls=1), clean=False) as ends:
        places = ends.client.caller.places

        async def call() -> None:
            with pytest.raises(ConnectionLost):
                await ends.client.call("wait", 100)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await quiet()
            nursery.start_soon(call)
            await quiet()
            places.calls.release()
            ends.client.lose(ConnectionLost("gone"))
        assert places.calls.value == 1


# --- a peer that does not wait


async def test_a_peer_that_does_not_wait(autojump_clock: Any) -> None:
    """R26: what is beyond is refused and started nowhere, and costs from the budget."""
    started: list[int] = []

    async def slow(value: int) -> int:
        started.append(value)
        await trio.sleep_forever()
        return value

    limits = Limits(max_object_calls=2, violation_budget=5, violation_refill=0.001)
    async with open_against(limits=limits) as (connection, peer):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                with pytest.raises(RemoteProtocolError, match="too many violations"):
                    await connection.call("m", slow)

            target = (await peer.hears("call"))["refs"][0][2]
            for value in range(2 + 5):
                id = 2 * value + 2
                await peer.says({"type": "call", "id": id, "target": target, "args": [value]})
                if value >= 2:
                    error = await peer.hears("error")
                    assert error["id"] == id
                    assert error["error"]["code"] == "RESOURCE_EXHAUSTED"
            assert started == [0, 1]
            await peer.says({"type": "call", "id": 100, "target": target, "args": [9]})
            goaway = await peer.hears("goaway")
            assert goaway["code"] == "PROTOCOL_ERROR"


async def test_a_peers_calls_of_two_roots(autojump_clock: Any) -> None:
    """R26: each root has its own places, and so has the service."""
    started: list[int] = []

    async def slow(value: int) -> int:
        started.append(value)
        await trio.sleep_forever()
        return value

    limits = Limits(max_object_calls=1, max_calls=1)
    async with open_against(limits=limits, serving=Service()) as (connection, peer):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(connection.call, "m", slow)
            calls = [await peer.hears("call"), await peer.hears("call")]
            one, two = (call["refs"][0][2] for call in calls)
            await peer.says(
                {"type": "call", "id": 2, "target": one, "args": [1]},
                {"type": "call", "id": 4, "target": two, "args": [2]},
                {"type": "call", "id": 6, "method": "wait"},
                {"type": "call", "id": 8, "target": one, "args": [3]},
            )
            error = await peer.hears("error")
            assert (error["id"], error["error"]["code"]) == (8, "RESOURCE_EXHAUSTED")
            assert (await peer.hears("result"))["id"] == 6
            # A final frame frees the place, and the next one runs.
            await peer.says({"type": "cancel", "id": 2})
            assert (await peer.hears("error"))["id"] == 2
            await peer.says({"type": "call", "id": 10, "target": one, "args": [4]})
            await quiet()
            assert sorted(started) == [1, 2, 4]
            for call in calls:
                await peer.says({"type": "result", "id": call["id"]})


async def test_an_object_that_is_nested_as_deep_as_there_are_places(autojump_clock: Any) -> None:
    """R26: the contexts that it is nested in hold them all, and would be held open for ever."""

    class Node:
        @rpc
        @asynccontextmanager
        async def child(self) -> AsyncIterator[Node]:
            yield Node()

        @rpc
        async def echo(self, value: int) -> int:
            return value

    async with open_ends(Node(), limits=Limits(max_object_calls=2)) as ends:
        api = ends.client.proxy(Node)
        async with api.child() as first, first.child() as second:
            assert await second.echo(1) == 1
            async with second.child() as third:
                with pytest.raises(ResourceExhausted, match="nested 2 deep"):
                    await third.echo(1)
            assert await second.echo(2) == 2
