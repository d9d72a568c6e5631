"""Values that travel in parts, as the users of a connection meet them (R21)."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.large_values import SHAPES, Service, text_of, unfinished
from tests.protocol.wire import payload, whole
from tests.runtime.ends import Cut, Ends, Wire, open_ends, quiet, sweep
from tests.runtime.peer import open_against
from trio_streamrpc import ConnectionLost, Limits, ResourceExhausted, rpc
from trio_streamrpc.testing import open_pair

BOTH = pytest.mark.parametrize("encoding", ["msgpack", "json"])

#: What a oneway call is cancelled with is another thing.
WAITED_FOR = [each for each in SHAPES if each != "oneway"]

#: Parts of at most 1000 bytes, up to four of them in a message.
SMALL = Limits(
    max_frame_bytes=1000,
    max_message_bytes=4096,
    max_value_bytes=20_000,
    max_partial_bytes=40_000,
)


async def block(ends: Ends) -> None:
    """Hold up the client's wire, with a message in it that says nothing."""
    ends.up.hold()
    ends.client.endpoint.ping(ends.client.endpoint.codec.mark)
    ends.client.wake_writer()
    await quiet()


# --- every place, every length


@BOTH
@pytest.mark.parametrize("shape", SHAPES)
async def test_lengths(shape: str, encoding: Any, autojump_clock: Any) -> None:
    """As long as a frame may be, one more, as long as a value may be."""
    # Of arguments it is what stands around them that counts as well.
    for size in (0, 980, 998, 999, 1000, 1001, 1002, 5000, 20_000 - 30):
        service = Service(text_of(encoding, size))
        async with open_ends(service, encoding=encoding, limits=SMALL) as ends:
            await SHAPES[shape](ends.client.proxy(Service), service)
        parts = ends.up.sent("part") + ends.down.sent("part")
        if size <= 980:
            assert parts == []
        if size > 1000:
            assert len(parts) > 1


@BOTH
@pytest.mark.parametrize("shape", SHAPES)
async def test_megabytes(shape: str, encoding: Any, autojump_clock: Any) -> None:
    """With the limits that a connection has by default."""
    service = Service(text_of(encoding, 1_000_000))
    async with open_ends(service, encoding=encoding) as ends:
        await SHAPES[shape](ends.client.proxy(Service), service)
    assert len(ends.up.sent("part") + ends.down.sent("part")) > 10


# --- small calls beside large values


def ways(what: str, ends: Ends) -> Wire:
    """The way on which the large values of that shape go."""
    return ends.down if what in {"result", "items"} else ends.up


async def run_large(what: str, api: Service, value: str) -> None:
    async def values() -> AsyncIterator[str]:
        yield value
        yield value

    match what:
        case "positional":
            await api.take(value)
        case "uploads":
            await api.collect(values())
        case "result":
            assert await api.give() == value
        case _:
            async with api.items(2) as stream:
                assert [each async for each in stream] == ["0", value, "1", value]


LARGE = pytest.mark.parametrize("what", ["positional", "uploads", "result", "items"])


@LARGE
@BOTH
async def test_small_calls_pass(what: str, encoding: Any, autojump_clock: Any) -> None:
    """A small call is answered within a few messages of the large value beside it."""
    service = Service("é" * 100_000)
    limits = Limits(max_frame_bytes=1000, max_message_bytes=4096)
    delays: list[int] = []
    async with open_ends(service, encoding=encoding, limits=limits) as ends:
        api, wire = ends.client.proxy(Service), ways(what, ends)
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                while True:
                    before = wire.messages
                    assert await api.small(1) == 2
                    delays.append(wire.messages - before)

            nursery.start_soon(call)
            await run_large(what, api, service.value)
            nursery.cancel_scope.cancel()
        await quiet()
    assert wire.messages > 60
    assert len(delays) > 10
    assert max(delays) <= 6


@LARGE
@BOTH
async def test_a_small_call_is_not_behind(what: str, encoding: Any, autojump_clock: Any) -> None:
    """However much waits: there is one part before it, or one of each large value."""
    service = Service("é" * 100_000)
    limits = Limits(max_frame_bytes=1000, max_message_bytes=4096)
    async with open_ends(service, encoding=encoding, limits=limits) as ends:
        api, wire = ends.client.proxy(Service), ways(what, ends)
        async with trio.open_nursery() as nursery:
            wire.hold()
            for _ in range(3):
                nursery.start_soon(run_large, what, api, service.value)
            await quiet()
            count = len(wire.frames)
            nursery.start_soon(api.small, 1)
            await quiet()
            wire.let_go()
        kinds = [frame["type"] for frame in wire.frames[count:]]
        small = kinds.index("call") if wire is ends.up else kinds.index("result")
        assert kinds[:small].count("part") <= 3
        assert kinds.count("part") > 200


# --- limits


async def test_too_long_arguments(autojump_clock: Any) -> None:
    """R21: one byte more than the other side takes, and nothing is said."""
    for encoding in ("msgpack", "json"):
        service = Service()
        around = len(payload(encoding, [[""], None])) - len(payload(encoding, ""))
        async with open_ends(service, encoding=encoding, limits=SMALL) as ends:
            api = ends.client.proxy(Service)
            with pytest.raises(ResourceExhausted, match=r"would take 20001 bytes; .* most 20000"):
                await api.take(text_of(encoding, 20_001 - around))
            ends.assert_clean()
            assert ends.up.sent("call") == []
            value = text_of(encoding, 20_000 - around)
            await api.take(value)
        assert service.seen == [value, ""]


@BOTH
async def test_too_long_answers(encoding: Any, autojump_clock: Any) -> None:
    """The call ends with the error, the handler's ``finally`` has run, and the connection lives."""
    service = Service()
    expected = "would take 20001 bytes; the other side takes at most 20000"
    async with open_ends(service, encoding=encoding, limits=SMALL) as ends:
        api = ends.client.proxy(Service)
        service.value = text_of(encoding, 20_001)
        with pytest.raises(ResourceExhausted, match=f"the result {expected}"):
            await api.give()
        async with api.items() as stream:
            assert await stream.receive() == "0"
            with pytest.raises(ResourceExhausted, match=f"the item {expected}"):
                await stream.receive()
        assert service.ended == ["items"]
        service.value = text_of(encoding, 20_000)
        assert await api.give() == service.value
        async with api.items() as stream:
            assert [each async for each in stream][1] == service.value


@BOTH
async def test_too_long_in_callbacks_and_uploads(encoding: Any, autojump_clock: Any) -> None:
    service = Service("small")
    long = text_of(encoding, 20_001)

    async def put(value: str) -> str:
        return long

    async def values() -> AsyncIterator[str]:
        try:
            yield "small"
            await trio.sleep(1)
            yield long
        finally:
            service.ended.append("values")

    async with open_ends(service, encoding=encoding, limits=SMALL) as ends:
        api = ends.client.proxy(Service)
        with pytest.raises(ResourceExhausted, match="the result would take"):
            await api.call_back(put)
        with pytest.raises(ResourceExhausted, match="the item would take"):
            await api.collect(values())
        assert service.seen == ["small"]
        assert sorted(service.ended) == ["call_back", "collect", "values"]
        service.value = long
        with pytest.raises(ResourceExhausted, match="the arguments would take"):
            await api.call_back(put)
        assert await api.small(1) == 2


async def test_too_long_in_contexts_and_tasks(autojump_clock: Any) -> None:
    service = Service()
    limits = Limits(max_frame_bytes=1000, max_value_bytes=20_000)
    async with open_ends(service, limits=Limits(), client_limits=limits) as ends:
        api = ends.client.proxy(Service)
        with pytest.raises(ResourceExhausted, match="the item would take"):
            async with api.context(text_of("msgpack", 20_001)):
                raise AssertionError
        assert service.ended == ["context"]
        with pytest.raises(ResourceExhausted, match="the item would take"):
            await api.task(text_of("msgpack", 20_001), task_status=trio.TASK_STATUS_IGNORED)
        async with api.context(text_of("msgpack", 20_000)) as value:
            assert len(value.encode()) == 20_000 - 3


# --- room for values under way


@pytest.mark.parametrize("at_once", [1, 3])
@BOTH
async def test_calls_wait_for_room(encoding: Any, at_once: int, autojump_clock: Any) -> None:
    """R21: in the order in which they were made; what goes whole passes them."""
    service = Service()
    limits = Limits(max_frame_bytes=1000, max_value_bytes=20_000, max_partial_bytes=20_000)
    async with open_ends(service, encoding=encoding, limits=limits) as ends:
        api = ends.client.proxy(Service)
        values = [f"{number} {text_of(encoding, 18_000 // at_once)}" for number in range(10)]
        async with trio.open_nursery() as nursery:
            await block(ends)
            for value in values:
                nursery.start_soon(api.take, value)
                await quiet()
            assert len(ends.client.caller.places.claims) == 10 - at_once
            nursery.start_soon(api.small, 1)
            await quiet()
            ends.up.let_go()
        count, size = unfinished(encoding, ends.up.frames)
        assert count == at_once
        assert size <= 20_000
        methods = [frame["method"] for frame in ends.up.sent("call")]
        assert methods.index("small") == at_once
        assert sorted(service.seen[::2], key=str) == values
        if at_once == 1:
            assert service.seen[::2] == values


async def test_room_to_the_last_byte(autojump_clock: Any) -> None:
    for excess in (0, 1):
        limits = Limits(max_frame_bytes=1000, max_value_bytes=20_000, max_partial_bytes=20_000)
        async with open_ends(Service(), limits=limits) as ends:
            api = ends.client.proxy(Service)
            around = len(payload("msgpack", [[""], None])) - 1
            async with trio.open_nursery() as nursery:
                await block(ends)
                nursery.start_soon(api.take, text_of("msgpack", 5_000 - around))
                nursery.start_soon(api.take, text_of("msgpack", 15_000 - around + excess))
                await quiet()
                assert len(ends.client.caller.places.claims) == excess
                ends.up.let_go()


@BOTH
async def test_answers_wait_for_room(encoding: Any, autojump_clock: Any) -> None:
    """Results and items wait where they are written, each in its turn, and small ones pass."""
    service = Service(text_of(encoding, 9000))
    limits = Limits(max_frame_bytes=1000, max_value_bytes=20_000, max_partial_bytes=20_000)
    found: list[object] = []
    async with open_ends(service, encoding=encoding, limits=limits) as ends:
        api = ends.client.proxy(Service)

        async def result() -> None:
            found.append(await api.give())

        async def items() -> None:
            async with api.items(2) as stream:
                found.extend([each async for each in stream][1::2])

        async with trio.open_nursery() as nursery:
            ends.down.hold()
            nursery.start_soon(api.small, 0)
            await quiet()
            for each in (result, items, result, items, result):
                nursery.start_soon(each)
                await quiet()
            assert ends.server.endpoint.outbox.room.used == 0
            count = len(ends.down.frames)
            nursery.start_soon(api.small, 1)
            await quiet()
            ends.down.let_go()
        assert found == [service.value] * 7
        assert unfinished(encoding, ends.down.frames) == (2, 18_000)
        kinds = [frame["type"] for frame in ends.down.frames[count:]]
        small = next(
            number
            for number, frame in enumerate(ends.down.frames[count:])
            if frame["type"] == "result" and "parts" not in frame
        )
        assert kinds[:small].count("part") <= 10


async def test_both_directions_have_room_of_their_own(autojump_clock: Any) -> None:
    """A handler that answers with what it was sent waits for nothing of the other direction."""
    limits = Limits(max_frame_bytes=1000, max_value_bytes=20_000, max_partial_bytes=20_000)
    service = Service(text_of("msgpack", 19_000))
    results: list[str] = []
    async with open_ends(service, limits=limits) as ends:
        api = ends.client.proxy(Service)

        async def put(value: str) -> str:
            results.append(value)
            return value

        async def values() -> AsyncIterator[str]:
            yield service.value

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(api.beside, service.value, values(), put)
        assert results == [service.value] * 10


async def test_cancelled_while_it_waits_for_room(autojump_clock: Any) -> None:
    """It leaves nothing behind, and who waits behind it goes on."""
    service = Service()
    limits = Limits(max_frame_bytes=1000, max_value_bytes=20_000, max_partial_bytes=20_000)
    async with open_ends(service, limits=limits) as ends:
        api = ends.client.proxy(Service)
        async with trio.open_nursery() as nursery:
            await block(ends)
            nursery.start_soon(api.take, "1" * 15_000)
            await quiet()
            scope = trio.CancelScope()

            async def large() -> None:
                with scope:
                    await api.take("2" * 15_000)

            nursery.start_soon(large)
            await quiet()
            # There would be room for it, but nobody is overtaken.
            nursery.start_soon(api.take, "3" * 4_000)
            await quiet()
            assert len(ends.client.caller.places.claims) == 2
            scope.cancel()
            await quiet()
            assert ends.client.caller.places.claims == {}
            ends.up.let_go()
        assert sorted(service.seen[::2], key=str) == ["1" * 15_000, "3" * 4_000]


async def test_taken_back_before_it_is_written(autojump_clock: Any) -> None:
    """R12: its room is free at once, for whoever waits."""
    service = Service()
    limits = Limits(max_frame_bytes=1000, max_value_bytes=20_000, max_partial_bytes=20_000)
    async with open_ends(service, limits=limits) as ends:
        api = ends.client.proxy(Service)
        async with trio.open_nursery() as nursery:

            async def first(scope: trio.CancelScope) -> None:
                with scope:
                    await api.take("1" * 15_000)

            async def oneway(scope: trio.CancelScope) -> None:
                with scope:
                    await api.note("1" * 15_000)

            for each in (first, oneway):
                await block(ends)
                scope = trio.CancelScope()
                nursery.start_soon(each, scope)
                await quiet()
                nursery.start_soon(api.take, "2" * 15_000)
                await quiet()
                assert len(ends.client.caller.places.claims) == 1
                scope.cancel()
                await quiet()
                assert ends.client.caller.places.claims == {}
                ends.up.let_go()
                await quiet()
        assert service.seen[::2] == ["2" * 15_000] * 2
        assert ends.up.sent("cancel") == []


# --- cancelled at every moment

#: Parts of 300 bytes, two in a message.
CUT = Limits(
    max_frame_bytes=300, max_message_bytes=1024, max_value_bytes=4000, max_partial_bytes=4000
)


@pytest.mark.parametrize(
    ("encoding", "waiting"), [("msgpack", False), ("msgpack", True), ("json", False)]
)
@pytest.mark.parametrize("shape", WAITED_FOR)
async def test_a_sweep(shape: str, waiting: bool, encoding: Any, autojump_clock: Any) -> None:
    """The caller is cancelled: the handler's ``finally`` has run, and the connection goes on.

    ``waiting``: another large value is under way both ways, and there is no room for a second.
    """
    service = Service(text_of(encoding, 3000))
    async with open_ends(service, encoding=encoding, limits=CUT) as ends:
        api = ends.client.proxy(Service)

        async def attempt(cut: Cut) -> bool:
            service.seen.clear()
            service.begun.clear()
            service.ended.clear()
            done = False
            async with trio.open_nursery() as nursery:
                if waiting:
                    nursery.start_soon(api.echo, service.value)
                    await trio.lowlevel.checkpoint()
                with cut.arm():
                    await SHAPES[shape](api, service)
                    done = True
            await quiet()
            ends.assert_clean()
            assert service.ended == service.begun
            assert await api.small(1) == 2
            return done

        await sweep(attempt, at_least=10)
        assert ends.server.endpoint.budget.spend(0.0)


@BOTH
async def test_a_consumer_leaves_at_every_step(encoding: Any, autojump_clock: Any) -> None:
    """R7, R21: in the middle of an item too, the block ends once the generator's has."""
    service = Service(text_of(encoding, 3000))
    async with open_ends(service, encoding=encoding, limits=CUT) as ends:
        api = ends.client.proxy(Service)

        async def attempt(cut: Cut) -> bool:
            service.ended.clear()
            done = False
            async with api.items() as stream:
                with cut.arm():
                    async for _ in stream:
                        pass
                    done = True
            assert service.ended == ["items"]
            ends.assert_clean()
            assert await api.small(1) == 2
            return done

        await sweep(attempt, at_least=10)
        assert {frame["mode"] for frame in ends.up.sent("cancel")} == {"close"}
        assert ends.server.endpoint.budget.spend(0.0)


@BOTH
async def test_a_handler_leaves_an_upload_at_every_step(encoding: Any, autojump_clock: Any) -> None:
    """R10: in the middle of an item too."""
    closed: list[int] = []

    class Impatient:
        @rpc
        async def some(self, values: AsyncIterable[str], steps: int) -> int:
            count = 0
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def take() -> None:
                        nonlocal count
                        async for _ in values:
                            count += 1
                        scope.cancel()

                    nursery.start_soon(take)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            return count

    async def values() -> AsyncIterator[str]:
        try:
            for _ in range(3):
                yield text_of(encoding, 3000)
        finally:
            closed.append(1)

    found: set[int] = set()
    async with open_ends(Impatient(), encoding=encoding, limits=CUT) as ends:
        api = ends.client.proxy(Impatient)
        steps = 0
        while 3 not in found:
            found.add(await api.some(values(), steps))
            steps += 1
            assert len(closed) == steps
            await quiet()
            ends.assert_clean()
        assert found == {0, 1, 2, 3}
        assert ends.client.endpoint.budget.spend(0.0)


# --- oneway calls


@BOTH
async def test_a_oneway_call_in_parts(encoding: Any, autojump_clock: Any) -> None:
    """R11: its caller returns when all of it is written, and not before."""
    service = Service()
    value = text_of(encoding, 3000)
    async with open_ends(service, encoding=encoding, limits=CUT) as ends:
        parts = 0
        async with trio.open_nursery() as nursery:
            ends.up.step()

            async def call() -> None:
                await ends.client.proxy(Service).note(value)
                nursery.cancel_scope.cancel()

            nursery.start_soon(call)
            while True:
                await quiet()
                parts = len(ends.up.sent("part"))
                ends.up.step()
        assert parts > 10
        [call_frame] = whole(encoding, ends.up.sent("call", "part"))
        assert call_frame["args"] == [value]
        await quiet()
        assert service.seen == [value]


@BOTH
async def test_a_sweep_over_a_oneway_call(encoding: Any, autojump_clock: Any) -> None:
    """R11, R12: it runs if all of it was written, and else not at all."""
    service = Service()
    async with open_ends(service, encoding=encoding, limits=CUT) as ends:
        api = ends.client.proxy(Service)

        async def attempt(cut: Cut) -> bool:
            service.seen.clear()
            count = len(ends.up.frames)
            done = False
            with cut.arm():
                await api.note(text_of(encoding, 3000))
                done = True
            await quiet()
            ends.assert_clean()
            frames = ends.up.frames[count:]
            left = sum(each.get("parts", 0) for each in frames) - sum(
                len(data.encode() if isinstance(data, str) else data)
                for data in (each["data"] for each in frames if each["type"] == "part")
            )
            written = any(each["type"] == "call" for each in frames) and not left
            assert len(service.seen) == written
            assert service.seen or not done
            return done

        await sweep(attempt, at_least=10)


async def test_a_oneway_call_that_is_refused_in_the_middle(autojump_clock: Any) -> None:
    """R9: no more of it is written, and its caller goes on."""
    async with open_against() as (connection, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.proxy(Service).note, "x" * 3_000_000)
            call = await peer.hears("call")
            await peer.says({"type": "error", "id": call["id"], "error": {"code": "ABORTED"}})
        await quiet()
        assert connection.caller.open_calls == 0
        assert connection.endpoint.outbox.room.used == 0


# --- the connection's end


async def tell(outcomes: list[str], way: Callable[..., Awaitable[object]], *args: object) -> None:
    """Whether it is done, or the connection is lost before it is."""
    outcome = "done"
    try:
        await way(*args)
    except* ConnectionLost:  # one of the shapes has a nursery of its own
        outcome = "lost"
    outcomes.append(outcome)


@BOTH
@pytest.mark.parametrize("shape", WAITED_FOR)
async def test_a_disconnect_at_every_message(
    shape: str, encoding: Any, autojump_clock: Any
) -> None:
    """ConnectionLost for who waits, the handlers end, and what was there of values is freed."""
    service = Service(text_of(encoding, 3000))
    done = False
    number = 0
    while not done:
        service.seen.clear()
        service.begun.clear()
        service.ended.clear()
        async with open_ends(service, encoding=encoding, limits=CUT, clean=False) as ends:
            api = ends.client.proxy(Service)
            outcomes: list[str] = []
            async with trio.open_nursery() as nursery:
                # One of them has to wait for room.
                nursery.start_soon(tell, outcomes, SHAPES[shape], api, service)
                nursery.start_soon(tell, outcomes, api.echo, service.value)
                for _ in range(number):
                    await trio.lowlevel.checkpoint()
                await trio.aclose_forcefully(ends.down.inner)
            await quiet()
            assert sorted(service.begun) == sorted(service.ended)
            assert len(outcomes) == 2
            assert ends.client.caller.places.claims == {}
            for each in (ends.client, ends.server):
                assert each.endpoint.partial_bytes == 0
                assert each.endpoint.outbox.room.used == 0
            done = outcomes == ["done", "done"]
        number += 3
    assert number > 12


# --- memory

MEGABYTE = 1_000_000


class Memory:
    """What Python has allocated, over what it had at the beginning."""

    def __init__(self) -> None:
        gc.collect()
        self._before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()

    @property
    def more(self) -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._before

    @property
    def peak(self) -> int:
        return tracemalloc.get_traced_memory()[1] - self._before


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


class Holding:
    """Handlers that last on, and keep nothing of what they were sent."""

    @rpc
    async def call(self, value: str) -> None:
        del value
        await trio.sleep_forever()

    @rpc
    async def stream(self, value: str) -> AsyncIterator[int]:
        del value
        yield 1
        await trio.sleep_forever()

    @rpc
    async def stream_back(self, size: int) -> AsyncIterator[str]:
        yield "x" * size
        yield "small"
        await trio.sleep_forever()

    @rpc
    @asynccontextmanager
    async def context(self, value: str) -> AsyncIterator[None]:
        del value
        yield

    @rpc
    async def upload(self, values: AsyncIterable[str]) -> None:
        async for value in values:
            del value


SIZE = 4 * MEGABYTE


async def hold_call(api: Holding) -> None:
    await api.call("x" * SIZE)


async def hold_stream(api: Holding) -> None:
    async with api.stream("x" * SIZE) as stream:
        async for _ in stream:
            pass


async def hold_items(api: Holding) -> None:
    async with api.stream_back(SIZE) as stream:
        assert len(await stream.receive()) == SIZE
        assert len(await stream.receive()) == 5
        await trio.sleep_forever()


async def hold_context(api: Holding) -> None:
    async with api.context("x" * SIZE):
        await trio.sleep_forever()


async def hold_upload(api: Holding) -> None:
    async def values() -> AsyncIterator[str]:
        yield "x" * SIZE
        await trio.sleep_forever()

    await api.upload(values())


@BOTH
@pytest.mark.parametrize("hold", [hold_call, hold_stream, hold_items, hold_context, hold_upload])
async def test_nothing_stays_of_what_has_arrived(
    hold: Callable[[Holding], Awaitable[None]], encoding: Any, autojump_clock: Any, traced: None
) -> None:
    """While a call lasts neither side keeps what it was called with, nor what it has sent."""
    memory = Memory()
    async with open_pair(Holding(), encoding=encoding) as connection:
        api = connection.proxy(Holding)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, api)
            await trio.sleep(1)
            assert memory.peak > 2 * SIZE
            assert memory.more < SIZE / 4
            nursery.cancel_scope.cancel()
        assert memory.more < SIZE / 4


@pytest.mark.parametrize("shape", WAITED_FOR)
async def test_nothing_stays_of_what_was_cancelled(
    shape: str, autojump_clock: Any, traced: None
) -> None:
    """In the middle of it, or after it."""
    service = Service("x" * SIZE)
    memory = Memory()
    async with open_pair(service) as connection:
        api = connection.proxy(Service)
        for steps in (10, 40, 80):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(SHAPES[shape], api, service)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            await quiet()
            service.seen.clear()
            service.ended.clear()
            assert memory.more < SIZE / 4


@BOTH
async def test_the_peak(encoding: Any, autojump_clock: Any, traced: None) -> None:
    """A value, its encoding, what comes together again of it, and the value again."""
    size = 20 * MEGABYTE
    service = Service()
    async with open_pair(service, encoding=encoding) as connection:
        api = connection.proxy(Service)
        memory = Memory()
        await api.take("x" * size)
        assert memory.peak < 5 * size
        service.seen.clear()
        service.value = "x" * size
        memory = Memory()
        # The value itself is there already.
        await api.give()
        assert memory.peak < 4 * size
