"""Streams that go with a call: how they are iterated, how they end, and what is left of them."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.runtime.ends import Cut, Steps, open_ends, quiet, sweep
from trio_streamrpc import (
    CallCancelled,
    CleanupTimeout,
    ConnectionLost,
    InvalidArgument,
    Limits,
    RemoteError,
    ResourceExhausted,
    Stream,
    Unavailable,
    Window,
    current_call,
    rpc,
)

#: A window that stays as it is, so that look-ahead can be counted.
FOUR = Limits(window=Window(4, 100_000), max_window=Window(4, 100_000), cancel_timeout=10)


class Mine(Exception):
    """What a user's own iterator raises."""


class Service:
    """Takes streams in every way; ``log`` tells how it ended, ``go`` lets it go on."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.taken: list[Any] = []
        self.kept: list[Any] = []
        self.go = trio.Event()

    @rpc
    async def total(self, numbers: AsyncIterable[int]) -> int:
        return sum([number async for number in numbers])

    @rpc
    async def collect(self, *streams: AsyncIterable[int], **named: AsyncIterable[int]) -> Any:
        """All items of each stream, one after another."""
        found = {str(place): stream for place, stream in enumerate(streams)} | named
        return {name: [item async for item in stream] for name, stream in found.items()}

    @rpc
    async def anything(self, value: Any, *, more: Any = None) -> Any:
        return [
            [item async for item in each] if isinstance(each, Stream) else each
            for each in (value, more)
        ]

    @rpc
    async def maybe(self, numbers: AsyncIterable[int] | None = None) -> int:
        return -1 if numbers is None else await self.total(numbers)

    @rpc
    async def first(self, numbers: AsyncIterable[int], count: int) -> list[int]:
        """So many of them; then it is done with the rest."""
        taken: list[int] = []
        async for number in numbers:
            taken.append(number)
            if len(taken) == count:
                break
        return taken

    @rpc
    async def hold(self, numbers: AsyncIterable[int]) -> str:
        """It takes nothing, and goes on when it may."""
        try:
            await self.go.wait()
        finally:
            self.log.append("held")
        return "held"

    @rpc
    async def take(self, numbers: AsyncIterable[int]) -> int:
        """It takes what there is."""
        try:
            async for number in numbers:
                self.taken.append(number)
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise
        return len(self.taken)

    @rpc
    async def leave(self, numbers: Stream[int], count: int) -> str:
        """It takes so many, closes the stream, and goes on."""
        for _ in range(count):
            self.taken.append(await numbers.receive())
        await numbers.aclose()
        self.log.append("closed")
        with pytest.raises(trio.ClosedResourceError):
            await numbers.receive()
        await self.go.wait()
        return "left"

    @rpc
    async def keep(self, numbers: Stream[int]) -> None:
        """It lets its stream outlive its call."""
        self.kept.append(numbers)
        await self.go.wait()

    @rpc
    async def fail(self, numbers: AsyncIterable[int], after: int = 0) -> None:
        if after:
            await self.first(numbers, after)
        raise ValueError("the handler's own")

    @rpc
    async def double(self, numbers: AsyncIterable[int]) -> AsyncIterator[int]:
        try:
            async for number in numbers:
                yield number * 2
        finally:
            self.log.append("finally")

    @rpc
    async def ticks(self, stop: int = 1_000_000) -> AsyncIterator[int]:
        try:
            for number in range(stop):
                yield number
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()
            self.log.append("ticks ended")


class Source:
    """A generator that is watched: what it was asked for, and how it ended."""

    def __init__(self, stop: int = 1_000_000, *, pause: float = 0, cleanup: float = 0) -> None:
        self.stop = stop
        self.asked = 0
        self.log: list[str] = []
        self._pause = pause
        self._cleanup = cleanup

    async def __aiter__(self) -> AsyncIterator[int]:
        self.log.append("started")
        try:
            for number in range(self.stop):
                self.asked += 1
                if self._pause:
                    await trio.sleep(self._pause)
                yield number
            self.log.append("exhausted")
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise
        finally:
            if self._cleanup:
                await trio.sleep(self._cleanup)
            self.log.append("ended")


class Plain:
    """An iterator with nothing but what an iterator must have."""

    def __init__(self, *items: int) -> None:
        self._items = iter(items)

    def __aiter__(self) -> Plain:
        return self

    async def __anext__(self) -> int:
        await trio.lowlevel.checkpoint()
        for item in self._items:
            return item
        raise StopAsyncIteration


async def numbers(*items: int) -> AsyncIterator[int]:
    for item in items:
        yield item


def channel(*items: int) -> trio.MemoryReceiveChannel[int]:
    sender, receiver = trio.open_memory_channel[int](len(items))
    with sender:
        for item in items:
            sender.send_nowait(item)
    return receiver


class Iterable:
    def __aiter__(self) -> AsyncIterator[int]:
        return numbers(1, 2, 3)


class Local:
    @rpc
    async def three(self) -> AsyncIterator[int]:
        for number in (1, 2, 3):
            yield number


SOURCES: dict[str, Callable[[], Any]] = {
    "generator": lambda: numbers(1, 2, 3),
    "channel": lambda: channel(1, 2, 3),
    "iterable": Iterable,
    "iterator": lambda: Plain(1, 2, 3),
    "local stream": lambda: Local().three(),
}


# --- what may be passed, and where


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_any_async_iterable(source, encoding, autojump_clock):
    """R19: typed, by name, and through the dynamic proxy."""
    make = SOURCES[source]
    async with open_ends(Service(), encoding=encoding) as ends:
        api = ends.client.proxy(Service)
        assert await api.total(make()) == 6
        assert await api.total(numbers=make()) == 6
        assert await ends.client.call("total", make()) == 6
        assert await ends.client.call("total", numbers=make()) == 6
        assert await ends.client.api.total(make()) == 6
        assert await api.maybe(make()) == 6
        assert await api.maybe(None) == await api.maybe() == -1
        async with api.double(make()) as stream:
            assert [item async for item in stream] == [2, 4, 6]
        async with ends.client.stream("double", make()) as stream:
            assert [item async for item in stream] == [2, 4, 6]
        async with ends.client.api.double(numbers=make()) as stream:
            assert [item async for item in stream] == [2, 4, 6]


async def test_several_with_one_call(autojump_clock):
    async with open_ends(Service()) as ends:
        expected = {"0": [1], "1": [2, 3], "a": [], "b": [4, 5, 6]}
        for collect in (ends.client.proxy(Service).collect, ends.client.api.collect):
            given = numbers(1), channel(2, 3)
            named: dict[str, Any] = {"a": numbers(), "b": Plain(4, 5, 6)}
            assert await collect(*given, **named) == expected


async def test_where_a_parameter_takes_anything(autojump_clock):
    """Data is data there, and an async iterable arrives as a Stream."""
    async with open_ends(Service()) as ends:
        for anything in (ends.client.proxy(Service).anything, ends.client.api.anything):
            assert await anything([1, 2], more={"a": 1}) == [[1, 2], {"a": 1}]
            assert await anything(numbers(1, 2)) == [[1, 2], None]
            assert await anything("x", more=channel(7)) == ["x", [7]]
            assert await anything(numbers(1), more=numbers(2)) == [[1], [2]]


async def test_what_is_no_async_iterable(autojump_clock):
    """It is refused before anything is sent."""
    async with open_ends(Service()) as ends:
        api = ends.client.proxy(Service)
        wrong: Any
        for wrong in ([1, 2], iter([1]), 5, "text", None, numbers, object()):
            with pytest.raises(TypeError, match=r"'numbers' is to be an async iterable"):
                await api.total(wrong)
            with pytest.raises(TypeError, match=r"'numbers' is to be an async iterable"):
                api.double(wrong)
        assert ends.up.sent("call") == []


async def test_another_stream_is_passed_on(autojump_clock):
    """From the same connection, and from another; entered or not."""
    service, other = Service(), Service()
    async with open_ends(other) as elsewhere, open_ends(service) as ends:
        for connection in (ends.client, elsewhere.client):
            assert await ends.client.call("total", connection.stream("ticks", 10)) == 45
            async with connection.stream("ticks", 10) as stream:
                assert await stream.receive() == 0
                assert await ends.client.call("total", stream) == 45
            assert await ends.client.call("first", connection.stream("ticks"), 3) == [0, 1, 2]
            # It has ended on the other side before the call has.
            assert (service if connection is ends.client else other).log[-1] == "ticks ended"
            assert await ends.client.call("total", connection.api.ticks(10)) == 45
    assert service.log.count("ticks ended") == other.log.count("ticks ended") == 4


async def test_it_runs_in_its_callers_task_tree(autojump_clock):
    """Its context variables and its scopes are the caller's, at the call."""
    variable = contextvars.ContextVar[str]("variable")
    seen: list[Any] = []

    async def source() -> AsyncIterator[int]:
        seen.append(variable.get())
        seen.append(trio.current_effective_deadline())
        with pytest.raises(RuntimeError, match="is for handlers"):
            current_call()
        yield 1

    async with open_ends(Service()) as ends:
        variable.set("the caller's")
        with trio.fail_after(7):
            deadline = trio.current_effective_deadline()
            assert await ends.client.call("total", source()) == 1
            async with ends.client.stream("double", source()) as stream:
                assert [item async for item in stream] == [2]
    assert seen == ["the caller's", deadline] * 2


async def test_nothing_is_started_before_the_call_is(autojump_clock):
    """A stream method is called, and not entered: its upload is as it was."""
    async with open_ends(Service()) as ends:
        source = Source()
        stream = ends.client.stream("double", source)
        await quiet()
        assert source.log == []
        for take in (stream.receive, stream.__anext__, stream.batches().__anext__):
            with pytest.raises(RuntimeError, match=r"takes a stream.*enter it with 'async with'"):
                await take()
        with pytest.raises(RuntimeError, match="enter it with 'async with'"):
            async for _ in ends.client.api.double(source):
                pass
        assert source.log == []
        assert ends.up.sent("call") == []
        async with stream:
            assert await stream.receive() == 0
        assert source.log == ["started", "GeneratorExit", "ended"]


# --- how far it runs ahead


@pytest.mark.parametrize("items", [1, 2, 4, 7])
async def test_the_look_ahead_is_the_window_of_the_callee(items, autojump_clock):
    """R14, R18: asked for so many items and no more, while nobody takes any."""
    window = Window(items, 100_000)
    limits = Limits(window=window, max_window=window)
    service = Service()
    async with open_ends(service, limits=limits, client_limits=Limits()) as ends:
        source = Source()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "hold", source)
            await quiet()
            assert source.asked == items
            await trio.sleep(100)
            assert source.asked == items
            service.go.set()
        assert source.log == ["started", "GeneratorExit", "ended"]


async def test_the_window_in_bytes(autojump_clock):
    """R14: asked for no more once the bytes are used up."""
    window = Window(100, 1000)
    asked = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield bytes(400)

    service = Service()
    async with open_ends(service, limits=Limits(window=window, max_window=window)) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "hold", source())
            await quiet()
            assert asked == 3
            service.go.set()


async def test_taking_asks_for_more(autojump_clock):
    """R15: in the handler it is a Stream, with all that one has."""
    seen: list[Any] = []
    step = trio.Event()

    class Taker:
        @rpc
        async def take(self, numbers: Stream[int]) -> None:
            nonlocal step
            async with numbers as same:
                assert same is numbers
                await trio.sleep(1)
                seen.append(numbers.statistics())
                assert await numbers.receive() == 0
                assert await anext(numbers.batches()) == [1, 2, 3]
                await step.wait()
                seen.append(numbers.statistics())
                with trio.move_on_after(5) as scope:
                    assert [await numbers.receive() for _ in range(5)] == [4, 5, 6, 7, 8]
                assert not scope.cancelled_caught
            with pytest.raises(trio.ClosedResourceError):
                await numbers.receive()

    async with open_ends(Taker(), limits=FOUR) as ends:
        source = Source()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "take", source)
            await trio.sleep(2)
            assert source.asked == 8
            step.set()
        assert source.log == ["started", "GeneratorExit", "ended"]
    first, second = seen
    assert first.items_received == first.items_buffered == first.peak_items_buffered == 4
    assert first.items_granted == 0
    assert first.window == FOUR.window
    assert second.items_received == 8
    assert second.items_buffered == 4


async def test_what_arrived_is_seen_before_the_first_is_taken(autojump_clock):
    """The handler need not have begun to take from it, to look at it."""
    seen = []

    class Looker:
        @rpc
        async def look(self, numbers: Stream[int]) -> None:
            await quiet()
            seen.append(numbers.statistics())

    async with open_ends(Looker(), limits=FOUR) as ends:
        await ends.client.call("look", Source())
    assert seen[0].items_received == seen[0].items_buffered == 4
    assert seen[0].window == FOUR.window


async def test_a_window_that_grows(autojump_clock):
    """R15: where nobody keeps it small, and all items arrive."""
    limits = Limits(window=Window(2, 1000), max_window=Window(64, 100_000))
    async with open_ends(Service(), limits=limits) as ends:
        assert await ends.client.call("total", Source(5000)) == sum(range(5000))


async def test_from_one_connection_to_the_next(autojump_clock):
    """A → B → C: while C takes nothing, A's producer stops after the windows between them."""
    last = Service()
    async with open_ends(last, limits=FOUR) as beyond:

        class Relay:
            @rpc
            async def up(self, numbers: AsyncIterable[int]) -> int:
                result: int = await beyond.client.call("take_slowly", numbers)
                return result

            @rpc
            async def hold(self, numbers: AsyncIterable[int]) -> str:
                result: str = await beyond.client.call("hold", numbers)
                return result

            @rpc
            async def total(self, numbers: AsyncIterable[int]) -> int:
                result: int = await beyond.client.call("total", numbers)
                return result

            @rpc
            async def first(self, numbers: AsyncIterable[int], count: int) -> list[int]:
                result: list[int] = await beyond.client.call("first", numbers, count)
                return result

        async with open_ends(Relay(), limits=FOUR) as ends:
            source = Source()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ends.client.call, "hold", source)
                await quiet()
                assert source.asked == 8
                await trio.sleep(100)
                assert source.asked == 8
                last.go.set()
            assert source.log == ["started", "GeneratorExit", "ended"]
            assert await ends.client.call("total", Source(100)) == sum(range(100))
            source = Source(cleanup=1)
            assert await ends.client.call("first", source, 3) == [0, 1, 2]
            assert source.log == ["started", "GeneratorExit", "ended"]


@pytest.mark.parametrize("whole", [True, False])
async def test_a_downstream_passed_on(whole, autojump_clock):
    """C → B → A: while A takes nothing, C's producer stops after the windows between them."""

    class Origin:
        def __init__(self) -> None:
            self.source = Source()

        @rpc
        def ticks(self) -> AsyncIterator[int]:
            return aiter(self.source)

    origin = Origin()
    async with open_ends(origin, limits=FOUR) as beyond:

        class Relay:
            @rpc
            async def ticks(self) -> AsyncIterator[int]:
                async with beyond.client.proxy(Origin).ticks() as ticks:
                    async for item in ticks:
                        yield item

            @rpc
            def passed(self) -> AsyncIterator[int]:
                return beyond.client.stream("ticks")

        window = None if whole else Window(2, 1000)
        async with open_ends(Relay(), limits=FOUR) as ends:
            async with ends.client.stream("ticks", window=window) as ticks:
                await quiet()
                assert origin.source.asked == (8 if whole else 6)
                for number in range(20):
                    assert await ticks.receive() == number
            origin.source = Source()
            async with ends.client.stream("passed", window=window) as ticks:
                await quiet()
                assert origin.source.asked == (8 if whole else 6)
                for number in range(20):
                    assert await ticks.receive() == number
            await quiet()
            beyond.assert_clean()


async def test_a_producer_that_never_awaits_lets_others_run(autojump_clock):
    """However much credit it has; and it costs no step of the scheduler for each item."""
    service = Service()
    async with open_ends(service, limits=Limits(window=Window(4096, 1_000_000))) as ends:
        async with trio.open_nursery() as nursery:
            with Steps() as steps:
                nursery.start_soon(ends.client.call, "hold", Source(4000))
                await quiet()
            service.go.set()
        assert 4000 / 256 < steps.count < 2000


# --- how it ends: exhausted, or closed


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("method", ["take", "first", "hold"])
async def test_it_is_closed_when_the_call_is_done(source, method, autojump_clock):
    """R10: whatever its handler has done with it."""
    service = Service()
    service.go.set()
    async with open_ends(service) as ends:
        given = SOURCES[source]()
        arguments = [2] if method == "first" else []
        await ends.client.call(method, given, *arguments)
        if isinstance(given, trio.MemoryReceiveChannel):
            with pytest.raises(trio.ClosedResourceError):
                given.receive_nowait()
        elif source in ("generator", "local stream"):
            generator = getattr(given, "iterator", given)
            assert generator.ag_frame is None


@pytest.mark.parametrize("cleanup", [0, 3])
async def test_its_finally_has_run_before_the_call_returns(cleanup, autojump_clock):
    """R10: closed at its yield, so what it awaits in its cleanup is not cancelled."""
    async with open_ends(Service(), limits=FOUR) as ends:
        source = Source(cleanup=cleanup)
        start = trio.current_time()
        assert await ends.client.call("first", source, 6) == list(range(6))
        assert source.log == ["started", "GeneratorExit", "ended"]
        assert trio.current_time() == start + cleanup


async def test_one_in_an_await_of_its_own_is_cancelled(autojump_clock):
    """As by any scope: only what it shields is awaited."""
    log: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            log.append("shielded")
            await trio.lowlevel.checkpoint()
            log.append("never")

    async with open_ends(Service()) as ends:
        start = trio.current_time()
        assert await ends.client.call("first", source(), 1) == [1]
        assert trio.current_time() == start + 3
    assert log == ["shielded"]


async def test_one_that_goes_on_when_it_is_closed(autojump_clock, caplog):
    """It is closed again a few times, and then dropped."""

    async def source(times: int) -> AsyncIterator[int]:
        while True:
            try:
                yield times
            except GeneratorExit:
                times -= 1
                if not times:
                    raise

    async with open_ends(Service(), limits=FOUR) as ends:
        assert await ends.client.call("first", source(6), 1) == [6]
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            # It would end at the next attempt.
            await ends.client.call("first", source(12), 1)
    assert "yielded while it was being closed" in caplog.text
    assert "would not be closed" in caplog.text


@pytest.mark.parametrize("count", [0, 1, 5])
async def test_a_handler_closes_it_early(count, autojump_clock):
    """R7: the caller's iterator is closed, and the call goes on."""
    service = Service()
    async with open_ends(service, limits=FOUR) as ends:
        source = Source(cleanup=1)
        async with trio.open_nursery() as nursery:
            results = []

            async def call() -> None:
                results.append(await ends.client.call("leave", source, count))

            nursery.start_soon(call)
            await trio.sleep(10)
            assert source.log == ["started", "GeneratorExit", "ended"]
            assert service.log == ["closed"]
            assert results == []
            assert ends.client.caller.uploads == {}
            assert ends.server.endpoint.uploads == 0
            service.go.set()
        assert results == ["left"]
    assert service.taken == list(range(count))


async def test_a_handler_closes_it_and_its_cleanup_is_waited_for(autojump_clock):
    """R7: closing in the handler returns when the caller's finally has run, within limits."""
    times = []

    class Closer:
        @rpc
        async def close(self, numbers: Stream[int]) -> None:
            start = trio.current_time()
            try:
                await numbers.aclose()
            finally:
                times.append(trio.current_time() - start)

    async with open_ends(Closer(), limits=FOUR) as ends:
        await ends.client.call("close", Source(cleanup=3))
        assert times == [3]
        with pytest.raises(CleanupTimeout):
            await ends.client.call("close", Source(cleanup=11))
        assert times == [3, 10]


async def test_a_stream_that_outlives_its_call(autojump_clock):
    """What had arrived, and then an error: it does not wait for ever."""
    service = Service()
    async with open_ends(service, limits=FOUR) as ends:
        source = Source()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "keep", source)
            await quiet()
            service.go.set()
        assert source.log[-1] == "ended"
        with pytest.raises(CallCancelled, match="the call that this stream came with has ended"):
            async for number in service.kept[0]:
                service.taken.append(number)
        assert service.taken == list(range(4))
        await service.kept[0].aclose()


async def test_a_task_that_waits_for_it_when_its_call_ends(autojump_clock):
    caught = []
    async with trio.open_nursery() as nursery:

        class Leaker:
            @rpc
            async def leak(self, numbers: Stream[int]) -> None:
                async def wait() -> None:
                    with pytest.raises(CallCancelled) as error:
                        await numbers.receive()
                    caught.append(error.value)

                nursery.start_soon(wait)
                await quiet()

        async with open_ends(Leaker()) as ends:
            await ends.client.call("leak", Source(pause=100))
    assert len(caught) == 1


# --- errors of the iterator


class Broken:
    """It cannot even be iterated."""

    def __aiter__(self) -> AsyncIterator[int]:
        raise Mine("no iterator")


class NoIterator:
    def __aiter__(self) -> Any:
        return 5


async def test_its_exception_comes_out_of_the_call_as_itself(autojump_clock):
    """R10: the same object; the other side is told, and the handler aborted."""
    mine = Mine("broken")

    async def source() -> AsyncIterator[int]:
        yield 1
        await trio.sleep(1)
        raise mine

    service = Service()
    async with open_ends(service) as ends:
        with pytest.raises(Mine) as caught:
            await ends.client.call("take", source())
        assert caught.value is mine
        assert mine.__context__ is mine.__cause__ is None
        assert not hasattr(mine, "__notes__")
        assert service.log == ["Cancelled"]
        assert service.taken == [1]
        with pytest.raises(Mine) as caught:
            await ends.client.call("hold", source())
        assert caught.value is mine
        assert service.log == ["Cancelled", "held"]
        (error, _) = ends.up.sent("error")
        assert error["error"]["name"] == "Mine"
        assert error["error"]["message"] == "broken"


async def test_what_the_handler_sees_of_it(autojump_clock):
    """Where it is shielded, the items and then the error, as from any remote side."""
    log: list[Any] = []

    class Careful:
        @rpc
        async def take(self, numbers: AsyncIterable[int]) -> str:
            with trio.CancelScope(shield=True):
                try:
                    async for number in numbers:
                        log.append(number)  # noqa: PERF401  # counts, however it ends
                except RemoteError as error:
                    log.append((error.name, error.message))
            try:
                await trio.sleep(1)
            finally:
                log.append("aborted")
            return "fine"

    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2
        await trio.sleep(1)
        raise Mine("broken")

    async with open_ends(Careful()) as ends:
        with pytest.raises(Mine) as caught:
            await ends.client.call("take", source())
        assert not hasattr(caught.value, "__notes__")
    assert log == [1, 2, ("Mine", "broken"), "aborted"]


async def test_one_that_cannot_be_iterated(autojump_clock):
    service = Service()
    async with open_ends(service) as ends:
        with pytest.raises(Mine, match="no iterator"):
            await ends.client.call("hold", Broken())
        with pytest.raises(TypeError, match="async iterator"):
            await ends.client.call("hold", NoIterator())
        with pytest.raises(Mine, match="no iterator"):
            async with ends.client.stream("double", Broken()) as stream:
                await stream.receive()


@pytest.mark.parametrize("what", ["item", "long", "type"])
async def test_an_item_that_cannot_be_sent(what, autojump_clock):
    """It is told to the caller, and closes the iterator."""
    log: list[str] = []
    item: Any = {"item": object(), "long": bytes(2_000_000), "type": {1, object()}}[what]

    async def source() -> AsyncIterator[Any]:
        try:
            yield 1
            yield item
        finally:
            await trio.sleep(1)
            log.append("closed")

    service = Service()
    async with open_ends(service, limits=Limits(max_value_bytes=1_000_000)) as ends:
        error = ResourceExhausted if what == "long" else TypeError
        words = "the item would take 2000" if what == "long" else r"take\(\): an item of 'numbers'"
        with pytest.raises(error, match=words):
            await ends.client.proxy(Service).take(source())
        assert log == ["closed"]
        with pytest.raises(error):
            async with ends.client.stream("double", source()) as stream:
                async for each in stream:
                    assert each == 2
        assert log == ["closed"] * 2


async def test_an_error_in_its_cleanup_after_the_server_has_finished(autojump_clock):
    """The call has a result, and the caller's own error is what matters."""
    mine = Mine("in the finally")

    async def source(pause: float) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep(pause)
            raise mine

    service = Service()
    async with open_ends(service, limits=FOUR) as ends:
        for pause in (0, 1, 30):
            with pytest.raises(Mine) as caught:
                await ends.client.call("first", source(pause), 2)
            assert caught.value is mine
        service.go.set()
        for pause in (0, 1):
            with pytest.raises(Mine) as caught:
                async with ends.client.stream("double", source(pause)) as stream:
                    await stream.receive()
            assert caught.value is mine


async def test_its_close_raises(autojump_clock):
    """Whatever kind of iterator it is, exhausted or not."""

    class Closing(Plain):
        async def aclose(self) -> None:
            raise Mine("closing")

    service = Service()
    async with open_ends(service) as ends:
        with pytest.raises(Mine, match="closing"):
            await ends.client.call("total", Closing(1, 2))
        with pytest.raises(Mine, match="closing"):
            await ends.client.call("first", Closing(1, 2), 1)


async def test_two_of_them_fail(autojump_clock):
    """The first one's error comes out; the other's is noted on it."""

    async def source(pause: float, message: str) -> AsyncIterator[int]:
        yield 1
        try:
            await trio.sleep(pause)
        finally:
            raise Mine(message)

    async with open_ends(Service()) as ends:
        with pytest.raises(Mine, match="first") as caught:
            await ends.client.call("collect", source(2, "second"), source(1, "first"))
        assert caught.value.__notes__ == ["trio_streamrpc: another upload: Mine: second"]
        async with ends.client.stream("double", numbers()) as stream:
            assert [item async for item in stream] == []


async def test_it_fails_while_the_handler_fails(autojump_clock, caplog):
    """Neither of the two is lost: its own error comes out, and the handler's is noted on it."""

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise Mine("in the finally")

    async with open_ends(Service(), limits=FOUR) as ends:
        with pytest.raises(Mine, match="in the finally") as caught:
            await ends.client.call("fail", source(), 2)
        (note,) = caught.value.__notes__
        assert note == "trio_streamrpc: RemoteError: ValueError: the handler's own"
        with pytest.raises(RemoteError, match="the handler's own"):
            await ends.client.call("fail", Source(), 2)


async def test_the_handler_fails(autojump_clock, caplog):
    """The iterator is closed, and then the handler's error comes out."""
    async with open_ends(Service(), limits=FOUR) as ends:
        for after in (0, 1, 9):
            source = Source(cleanup=1)
            with pytest.raises(RemoteError, match="the handler's own") as caught:
                await ends.client.call("fail", source, after)
            assert caught.value.__context__ is None
            assert source.log[-1] == "ended"


async def test_the_handler_does_not_stop_when_it_fails(autojump_clock, caplog):
    """R10: the call is aborted, and waited for as long as any; then its own error comes out."""
    go = trio.Event()

    class Stubborn:
        @rpc(cleanup=100)
        async def take(self, numbers: AsyncIterable[int]) -> None:
            with trio.CancelScope(shield=True):
                await go.wait()

    async def source() -> AsyncIterator[int]:
        yield 1
        await trio.sleep(1)
        raise Mine("broken")

    async with open_ends(Stubborn(), limits=FOUR) as ends:
        start = trio.current_time()
        with pytest.raises(Mine, match="broken"):
            await ends.client.call("take", source())
        assert trio.current_time() == start + 1 + 10
        go.set()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_in_an_iterator(error, autojump_clock):
    """It goes its way through the caller; the handler is cancelled, and told no more than that."""

    async def source() -> AsyncIterator[int]:
        yield 1
        await trio.sleep(1)
        raise error("now")

    service = Service()
    async with open_ends(service) as ends:
        with pytest.raises(error):
            await ends.client.call("hold", source())
        with pytest.raises(error):
            async with ends.client.stream("double", source()):
                await trio.sleep_forever()
        await quiet()
        assert service.log == ["held", "finally"]
        assert {frame["error"]["code"] for frame in ends.up.sent("error")} == {"CANCELLED"}


async def test_a_group_of_a_nursery_of_its_own(autojump_clock):
    """What the iterator raises is what comes out, be it a group."""

    async def fail() -> None:
        raise Mine("child")

    async def source() -> AsyncIterator[int]:
        async with trio.open_nursery() as nursery:
            yield 1
            nursery.start_soon(fail)
            while True:
                yield 2

    async with open_ends(Service(), limits=FOUR) as ends:
        for method in ("hold", "take"):
            with pytest.raises(ExceptionGroup) as caught:
                await ends.client.call(method, source())
            assert caught.group_contains(Mine, match="child", depth=1)


# --- in the block of a stream


async def test_items_come_before_its_error(autojump_clock):
    """R22: what had arrived, then the error itself from receive, each time."""
    mine = Mine("broken")

    async def source() -> AsyncIterator[int]:
        for number in range(3):
            yield number
        await trio.sleep(1)
        raise mine

    service = Service()
    async with open_ends(service) as ends:
        with pytest.raises(Mine) as caught:
            async with ends.client.stream("double", source()) as stream:
                await trio.sleep(2)
                assert [await stream.receive() for _ in range(3)] == [0, 2, 4]
                await stream.receive()
        assert caught.value is mine
        assert not hasattr(mine, "__notes__")
        async with ends.client.stream("double", source()) as stream:
            seen = []
            for _ in range(2):
                with pytest.raises(Mine) as caught:
                    async for item in stream:
                        seen.append(item)  # noqa: PERF401  # counts, however it ends
                assert caught.value is mine
            with pytest.raises(Mine):
                await anext(stream.batches())
        assert seen == [0, 2, 4]
    assert service.log == ["finally", "finally"]


async def test_nobody_takes_when_it_fails(autojump_clock):
    """Its error comes out of the block."""
    mine = Mine("broken")

    async def source() -> AsyncIterator[int]:
        yield 1
        await trio.sleep(1)
        raise mine

    service = Service()
    async with open_ends(service) as ends:
        with pytest.raises(Mine) as caught:
            async with ends.client.stream("double", source()):
                await trio.sleep(2)
        assert caught.value is mine
        assert not hasattr(mine, "__notes__")
        with pytest.raises(Mine) as caught:
            async with ends.client.stream("double", source()) as stream:
                await trio.sleep(2)
                await stream.aclose()
        assert caught.value is mine
    assert service.log == ["finally", "finally"]


async def test_the_block_has_an_error_of_its_own(autojump_clock):
    """It is what comes out; the upload's is noted on it."""

    async def source() -> AsyncIterator[int]:
        yield 1
        raise Mine("broken")

    async with open_ends(Service()) as ends:
        with pytest.raises(KeyError, match="block") as caught:
            async with ends.client.stream("double", source()):
                await trio.sleep(1)
                raise KeyError("block")
        assert caught.value.__notes__ == ["trio_streamrpc: Mine: broken"]
        source_of_block = Source(cleanup=1)
        with pytest.raises(KeyError, match="block") as caught:
            async with ends.client.stream("double", source_of_block):
                await quiet()
                raise KeyError("block")
        assert not hasattr(caught.value, "__notes__")
        assert source_of_block.log == ["started", "GeneratorExit", "ended"]


async def test_the_handlers_cleanup_fails_as_well(autojump_clock, caplog):
    """R22: the iterator's own error comes out, and what the cleanup raised is noted on it."""

    class Failing:
        @rpc
        async def double(self, numbers: AsyncIterable[int]) -> AsyncIterator[int]:
            try:
                yield 1
                await trio.sleep_forever()
            finally:
                raise ValueError("cleanup")

    async def source() -> AsyncIterator[int]:
        yield 1
        await trio.sleep(1)
        raise Mine("broken")

    async with open_ends(Failing()) as ends:
        with pytest.raises(Mine, match="broken") as caught:
            async with ends.client.stream("double", source()):
                await trio.sleep(2)
        assert caught.value.__notes__ == ["trio_streamrpc: RemoteError: ValueError: cleanup"]
        # And where the iterator does nothing wrong, its cleanup has run all the same.
        watched = Source(cleanup=1)
        with pytest.raises(RemoteError, match="cleanup"):
            async with ends.client.stream("double", watched) as stream:
                await stream.receive()
        assert watched.log == ["started", "GeneratorExit", "ended"]


async def test_the_response_ends_first(autojump_clock):
    """The block goes on, and the iterator is closed meanwhile."""

    class Short:
        @rpc
        async def short(self, numbers: AsyncIterable[int]) -> AsyncIterator[int]:
            async for number in numbers:
                yield number
                return

    async with open_ends(Short(), limits=FOUR) as ends:
        source = Source(cleanup=1)
        async with ends.client.stream("short", source) as stream:
            assert [item async for item in stream] == [0]
            await trio.sleep(5)
            assert source.log == ["started", "GeneratorExit", "ended"]
        source = Source(cleanup=1)
        async with ends.client.stream("short", source) as stream:
            assert [item async for item in stream] == [0]
        assert source.log == ["started", "GeneratorExit", "ended"]


async def test_the_upload_ends_first(autojump_clock):
    """And the response goes on."""

    class Long:
        @rpc
        async def long(self, numbers: AsyncIterable[int]) -> AsyncIterator[int]:
            total = sum([number async for number in numbers])
            for _ in range(10):
                await trio.sleep(1)
                yield total

    async with open_ends(Long(), limits=FOUR) as ends:
        source = Source(10)
        async with ends.client.stream("long", source) as stream:
            assert [item async for item in stream] == [45] * 10
        assert source.log == ["started", "exhausted", "ended"]


async def test_a_conversation(autojump_clock):
    """Each item is answered before the next one is made."""
    async with open_ends(Service()) as ends:
        sender, receiver = trio.open_memory_channel[int](0)
        async with ends.client.proxy(Service).double(receiver) as stream:
            for number in (1, 2, 3):
                await sender.send(number)
                assert await stream.receive() == number * 2
            await sender.aclose()
            with pytest.raises(trio.EndOfChannel):
                await stream.receive()


async def test_both_ways_stuck(autojump_clock):
    """R17: neither side takes anything, and other calls are answered."""
    service = Service()
    async with open_ends(service, limits=FOUR) as ends:
        source = Source()
        async with ends.client.stream("double", source) as stream:
            await quiet()
            # The response's window is full, one item is on its way, and the upload's is full.
            assert source.asked == 4 + 4
            assert await ends.client.call("total", numbers(1, 2)) == 3
            assert [await stream.receive() for _ in range(50)] == list(range(0, 100, 2))
        assert source.log == ["started", "GeneratorExit", "ended"]
    assert service.log == ["finally"]


# --- the caller is cancelled


async def test_the_caller_is_cancelled(autojump_clock):
    """Ordinary Trio cancellation for its iterator, and an abort for the handler."""
    service = Service()
    async with open_ends(service, limits=FOUR) as ends:
        for pause in (0, 100):
            source = Source(pause=pause)
            with trio.move_on_after(1) as scope:
                await ends.client.call("hold", source)
            assert scope.cancelled_caught
            assert source.log == ["started", "Cancelled", "ended"]
            await quiet()
            assert service.log.pop() == "held"
            source = Source(pause=pause)
            with trio.move_on_after(1) as scope:
                async with ends.client.stream("double", source):
                    await trio.sleep_forever()
            assert scope.cancelled_caught
            assert source.log == ["started", "Cancelled", "ended"]
            await quiet()
            assert service.log.pop() == "finally"
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(1):
                await ends.client.call("hold", Source(pause=100))
        await quiet()
        ends.assert_clean()
        assert {frame["error"]["code"] for frame in ends.up.sent("error")} == {"CANCELLED"}


async def test_an_error_in_its_cleanup_when_the_caller_is_cancelled(autojump_clock):
    """As in any task of Trio: the error goes on, and the cancellation gives way to it."""

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise Mine("cleanup")

    async with open_ends(Service(), limits=FOUR) as ends:
        for method in ("hold", "double"):
            with trio.move_on_after(1) as scope:
                with pytest.raises(Mine, match="cleanup"):
                    if method == "hold":
                        await ends.client.call("hold", source())
                    else:
                        async with ends.client.stream("double", source()):
                            await trio.sleep_forever()
            assert scope.cancel_called


async def test_an_iterator_that_goes_on_when_it_is_cancelled(autojump_clock):
    """It yields once more, for which there is no credit: that does not keep the caller."""
    log: list[str] = []

    async def source() -> AsyncIterator[int]:
        while True:
            try:
                yield 1
            except trio.Cancelled:
                log.append("cancelled")

    async with open_ends(Service(), limits=FOUR) as ends:
        with trio.move_on_after(1) as scope:
            await ends.client.call("hold", source())
        assert trio.current_time() == scope.deadline
    assert log == ["cancelled"]


@pytest.mark.parametrize("kind", ["unary", "stream", "proxied"])
async def test_cancelled_at_every_step(kind, autojump_clock):
    """The iterator has ended, the handler is cancelled, and nothing is left."""
    service = Service()
    limits = Limits(window=Window(2, 1000), max_window=Window(2, 1000), max_uploads=2)
    async with open_ends(service, limits=limits) as ends:

        async def use(sources: list[Source]) -> None:
            if kind == "unary":
                assert await ends.client.call("collect", *sources) == {
                    "0": [0, 1, 2, 3, 4],
                    "1": [0, 1, 2, 3, 4],
                }
            elif kind == "stream":
                async with ends.client.stream("double", sources[0]) as stream:
                    assert [item async for item in stream] == [0, 2, 4, 6, 8]
            else:
                stream = ends.client.stream("ticks", 5)
                assert await ends.client.call("total", stream) == 10

        async def attempt(cut: Cut) -> bool:
            sources = [Source(5), Source(5)]
            with cut.arm() as scope:
                await use(sources)
            for source in sources:
                assert len(source.log) in (0, 3)
            await quiet()
            ends.assert_clean()
            return not scope.cancelled_caught

        assert await sweep(attempt, at_least=8) > 8


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_failing_at_every_step(kind, autojump_clock):
    """Wherever the call stands when its iterator fails, that error comes out and nothing else."""
    service = Service()
    async with open_ends(service, limits=FOUR) as ends:
        for steps in range(40):

            async def source(steps: int = steps) -> AsyncIterator[int]:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                yield 1
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                raise Mine

            with pytest.raises(Mine):
                if kind == "unary":
                    await ends.client.call("collect", Source(), source(), Source(5))
                else:
                    async with ends.client.stream("double", source()) as stream:
                        async for item in stream:
                            assert item == 2
            await quiet()
            ends.assert_clean()


# --- the connection


@pytest.mark.parametrize("how", ["lost", "client closes", "server closes"])
@pytest.mark.parametrize("pause", [0, 100])
async def test_the_connection_ends_in_the_middle(how, pause, autojump_clock, caplog):
    """The iterator is closed, and the reason raised: by a call, and by who takes from a stream."""
    error = Unavailable if how == "server closes" else ConnectionLost
    service = Service()
    async with open_ends(service, limits=FOUR, clean=False) as ends:
        sources = [Source(pause=pause, cleanup=0 if pause else 1) for _ in range(3)]
        heard = []

        async def call(source: Source) -> None:
            with pytest.raises(error):
                await ends.client.call("hold", source)
            assert source.log == ["started", "Cancelled" if pause else "GeneratorExit", "ended"]
            heard.append("call")

        async def take(source: Source) -> None:
            with pytest.raises(error):
                async with ends.client.stream("double", source) as stream:
                    async for _ in stream:
                        await trio.sleep(0.1)
            heard.append("taking")

        async def wait(source: Source) -> None:
            try:
                async with ends.client.stream("double", source):
                    await trio.sleep(20)
            except ConnectionLost:
                # One that was closed in order has ended in order, for who takes nothing of it.
                assert how == "lost"
            else:
                assert how != "lost"
            heard.append("waiting")

        async with trio.open_nursery() as nursery:
            for task, source in zip((call, take, wait), sources, strict=True):
                nursery.start_soon(task, source)
            await trio.sleep(1)
            if how == "lost":
                await trio.aclose_forcefully(ends.up)
            else:
                await (ends.client if how == "client closes" else ends.server).aclose()
        assert sorted(heard) == ["call", "taking", "waiting"]
        assert all(source.log[-1] == "ended" for source in sources)
        assert ends.client.caller.uploads == {}
        await quiet()
        assert sorted(service.log) == ["finally", "finally", "held"]


async def test_a_drain_before_the_call_was_written(autojump_clock):
    """R27: the call fails with retry, whatever its iterator is doing just then."""
    async with open_ends(Service(), limits=FOUR) as ends:

        async def call(source: Source, method: str = "hold") -> None:
            with pytest.raises(Unavailable) as caught:
                await ends.client.call(method, source)
            assert caught.value.retry
            assert source.log[-1] == "ended"

        ends.up.hold()
        async with trio.open_nursery() as nursery:
            # The writer is busy with this one; it comes too late as well.
            nursery.start_soon(call, Source(1), "total")
            await quiet()
            sources = [Source(), Source(pause=1), Source(3)]
            for source in sources:
                nursery.start_soon(call, source)
            await quiet()
            nursery.start_soon(ends.server.drain)
            await trio.sleep(0.5)
            ends.up.let_go()
        assert [len(source.log) for source in sources] == [3, 3, 3]


async def test_cancelled_before_the_call_was_written(autojump_clock):
    """R12: nothing of it is written, and its places are free again."""
    async with open_ends(Service(), limits=FOUR) as ends:
        ends.up.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "total", numbers(1))
            await quiet()
            for source in (Source(), Source(pause=100), Source(3)):
                with trio.move_on_after(1) as scope:
                    await ends.client.call("hold", source)
                assert scope.cancelled_caught
                assert source.log[-1] == "ended"
                with trio.move_on_after(1) as scope:
                    async with ends.client.stream("double", source):
                        await trio.sleep_forever()
                assert scope.cancelled_caught
                assert source.log[-1] == "ended"
                async with ends.client.stream("double", source):
                    await quiet()
                assert source.log[-1] == "ended"
            ends.up.let_go()
        assert len(ends.up.sent("call")) == 1


async def test_it_fails_before_the_call_was_written(autojump_clock):
    """R12: its error comes out, and nothing is written."""

    async def source() -> AsyncIterator[int]:
        yield 1
        raise Mine("broken")

    async with open_ends(Service(), limits=FOUR) as ends:
        ends.up.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "total", numbers(1))
            await quiet()
            with pytest.raises(Mine):
                await ends.client.call("hold", source())
            with pytest.raises(Mine):
                await ends.client.call("collect", Source(), source(), Source(2))
            with pytest.raises(Mine):
                async with ends.client.stream("double", source()) as stream:
                    await stream.receive()
            ends.up.let_go()
        assert len(ends.up.sent("call")) == 1


# --- places


async def test_a_caller_waits_for_places(autojump_clock):
    """R19: all that a call needs at once; they are free when the last frame is written."""
    service = Service()
    async with open_ends(service, limits=Limits(max_uploads=3)) as ends:
        done: list[int] = []

        async def call(*sources: Any) -> None:
            await ends.client.call("collect", *sources)
            done.append(len(sources))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, Source(3, pause=1), Source(6, pause=1))
            await quiet()
            wide = [Source(0), Source(0), Source(0)]
            nursery.start_soon(call, *wide)
            await quiet()
            # It stands behind the one that wants more, and does not overtake it.
            nursery.start_soon(call, Source(0))
            await trio.sleep(4)
            assert done == []
            assert [source.log for source in wide] == [[], [], []]
            # A call without uploads waits for none of them.
            assert await ends.client.call("maybe") == -1
        assert sorted(done) == [1, 2, 3]
        refs = [len(call.get("refs", ())) for call in ends.up.sent("call")]
        assert refs == [2, 0, 3, 1]


async def test_more_than_there_are_places(autojump_clock):
    """R19: no waiting would ever help."""
    async with open_ends(Service(), limits=Limits(max_uploads=2)) as ends:
        sources = [Source(), Source(), Source()]
        with pytest.raises(ResourceExhausted, match=r"3 uploads.*at most 2"):
            await ends.client.call("collect", *sources)
        with pytest.raises(ResourceExhausted, match=r"3 uploads.*at most 2"):
            async with ends.client.stream("double", *sources):
                pass
        assert [source.log for source in sources] == [[], [], []]
        assert ends.up.sent("call") == []
        assert await ends.client.call("collect", Source(1), Source(2)) == {"0": [0], "1": [0, 1]}


async def test_a_handler_of_that_peer_does_not_wait(autojump_clock):
    """R26: it might wait for itself."""
    caught = []

    class There:
        @rpc
        async def relay(self) -> None:
            connection = current_call().connection
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.call, "total", Source(pause=1, stop=3))
                await quiet()
                with pytest.raises(ResourceExhausted, match="as many uploads") as error:
                    await connection.call("total", Source(1))
                caught.append(error.value)
                assert await connection.call("maybe") == -1

    limits = Limits(max_uploads=1)
    async with open_ends(There(), serving=Service(), client_limits=limits) as ends:
        await ends.client.call("relay")
    assert len(caught) == 1


async def test_a_wait_for_a_place_is_cancelled(autojump_clock):
    """Nothing was taken then."""
    service = Service()
    async with open_ends(service, limits=Limits(max_uploads=2)) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "hold", Source())
            await quiet()
            for _ in range(3):
                sources = [Source(), Source()]
                with trio.move_on_after(1) as scope:
                    await ends.client.call("collect", *sources)
                assert scope.cancelled_caught
                assert [source.log for source in sources] == [[], []]
            assert ends.client.caller.places.uploads.value == 1
            assert await ends.client.call("total", Source(3)) == 3
            service.go.set()


async def test_the_connection_is_lost_while_callers_wait(autojump_clock):
    async with open_ends(Service(), limits=Limits(max_uploads=1), clean=False) as ends:
        lost = []

        async def call() -> None:
            with pytest.raises(ConnectionLost):
                await ends.client.call("hold", Source())
            lost.append(1)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(call)
            await trio.sleep(1)
            await trio.aclose_forcefully(ends.up)
        assert lost == [1] * 4


async def test_a_call_that_is_too_long_takes_no_places(autojump_clock):
    async with open_ends(Service(), limits=Limits(max_value_bytes=1_000_000)) as ends:
        source = Source()
        for _ in range(3):
            with pytest.raises(ResourceExhausted, match="the arguments"):
                await ends.client.call("anything", source, more=bytes(2_000_000))
        assert source.log == []


async def test_a_oneway_call_is_no_upload(autojump_clock):
    """R11, R19: one that is answered before it is quite written frees nothing."""

    class Teller:
        @rpc(oneway=True)
        async def tell(self) -> None: ...

    async with open_ends(Teller()) as ends:
        send = ends.up.send

        async def send_slowly(message: bytes | str) -> None:
            await send(message)
            await trio.sleep(1)

        ends.up.send = send_slowly  # type: ignore[method-assign]  # as a transport may
        await ends.client.proxy(Teller).tell()
        await trio.sleep(3)
        assert ends.client.caller.places.uploads.value == 64


async def test_one_that_ends_early_makes_room(autojump_clock):
    """Its place is free when its last frame is written, and not when its call has ended."""
    service = Service()
    async with open_ends(service, limits=Limits(max_uploads=1)) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "leave", Source(), 0)
            await trio.sleep(1)
            assert service.log == ["closed"]
            assert await ends.client.call("total", Source(3)) == 3
            service.go.set()


# --- items that do not fit


async def test_an_item_that_cannot_be_decoded(autojump_clock):
    """INVALID_ARGUMENT with the path; the handler may go on to the next one."""
    seen: list[Any] = []

    class Strict:
        @rpc
        async def take(self, ticks: Stream[int], count: int) -> None:
            for _ in range(count):
                try:
                    seen.append(await ticks.receive())
                except InvalidArgument as error:
                    seen.append(error.message)
            if count == 0:
                async for _ in ticks:
                    pass

    async def source() -> AsyncIterator[Any]:
        for item in (0, "one", 2, "three", 4):
            yield item

    async with open_ends(Strict()) as ends:
        with pytest.raises(InvalidArgument, match=r"at `\$\.ticks\[1\]`"):
            await ends.client.call("take", source(), 0)
        await ends.client.call("take", source(), 5)
    assert [each for each in seen if isinstance(each, int)] == [0, 2, 4]
    assert "$.ticks[1]" in seen[1]
    assert "$.ticks[3]" in seen[3]


async def test_an_item_of_a_batch_that_cannot_be_decoded(autojump_clock):
    """It is asked for twice there, and counted once."""
    seen: list[Any] = []

    class Strict:
        @rpc
        async def take(self, ticks: Stream[int]) -> None:
            await quiet()
            batches = ticks.batches()
            for _ in range(4):
                try:
                    seen.append(await anext(batches))
                except InvalidArgument as error:
                    seen.append(error.message)

    async def source() -> AsyncIterator[Any]:
        for item in (0, 1, "two", "three", 4):
            yield item

    async with open_ends(Strict()) as ends:
        await ends.client.call("take", source())
    assert seen[0] == [0, 1]
    assert "$.ticks[2]" in seen[1]
    assert "$.ticks[3]" in seen[2]
    assert seen[3] == [4]


# --- scopes and nurseries that an iterator holds open


@pytest.mark.parametrize("method", ["hold", "take"])
async def test_a_scope_around_a_yield(method, autojump_clock):
    """It expires while the iterator waits for credit: as in an ordinary await."""
    log: list[str] = []

    async def source() -> AsyncIterator[int]:
        with trio.move_on_after(3) as scope:
            for number in range(5):
                yield number
                if method == "take":
                    await trio.sleep(1)
        log.append(f"{scope.cancelled_caught}")
        yield 100

    service = Service()
    async with open_ends(service, limits=FOUR) as ends:

        async def call() -> None:
            await ends.client.call(method, source())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.sleep(10)
            assert log == ["True"]
            service.go.set()
    if method == "take":
        assert service.taken == [0, 1, 2, 100]


async def test_a_scope_around_its_last_yield(autojump_clock):
    """It expires while the iterator waits for credit, and that was all."""
    log: list[str] = []

    async def source() -> AsyncIterator[int]:
        with trio.move_on_after(3):
            while True:
                yield 1
        log.append("ended")

    service = Service()
    async with open_ends(service, limits=FOUR) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "hold", source())
            await trio.sleep(10)
            assert log == ["ended"]
            assert ends.client.caller.uploads == {}
            service.go.set()
        assert [frame["type"] for frame in ends.up.sent("end", "error")] == ["end"]


async def test_a_nursery_around_a_yield_crashes(autojump_clock):
    """The iterator is told while it waits for credit, and may yield what comes of it."""

    async def fail() -> None:
        await trio.sleep(1)
        raise Mine("child")

    async def source() -> AsyncIterator[int]:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                while True:
                    yield 1
        except* Mine:
            pass
        yield 2

    class Late:
        @rpc
        async def late(self, numbers: AsyncIterable[int]) -> list[int]:
            await trio.sleep(2)
            return [number async for number in numbers]

    async with open_ends(Late(), limits=FOUR) as ends:
        assert await ends.client.call("late", source()) == [1, 1, 1, 1, 2]


async def test_a_nursery_around_a_yield_crashes_and_nobody_catches_it(autojump_clock):
    async def fail() -> None:
        await trio.sleep(1)
        raise Mine("child")

    async def source() -> AsyncIterator[int]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            while True:
                yield 1

    service = Service()
    async with open_ends(service, limits=FOUR) as ends:
        with pytest.raises(ExceptionGroup) as caught:
            await ends.client.call("hold", source())
        assert caught.group_contains(Mine, match="child", depth=1)
        with pytest.raises(ExceptionGroup) as caught:
            async with ends.client.stream("double", source()) as stream:
                await trio.sleep(2)
                await stream.aclose()
        assert caught.group_contains(Mine, match="child", depth=1)


async def test_a_nursery_around_a_yield_is_closed_in_order(autojump_clock):
    """R10: with the call, and with its children."""
    log: list[str] = []

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append("child")

    async def source() -> AsyncIterator[int]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            while True:
                yield 1

    async with open_ends(Service(), limits=FOUR) as ends:
        assert await ends.client.call("first", source(), 2) == [1, 1]
        assert log == ["child"]
        with trio.move_on_after(1):
            await ends.client.call("hold", source())
        assert log == ["child"] * 2


# --- a stream of this connection that goes on to the other side


async def test_a_stream_that_is_passed_on_and_closed_while_it_waits(autojump_clock):
    """R7: its producer has finished when the call returns, its cleanup included."""
    log: list[str] = []

    class Slow:
        @rpc
        async def ticks(self) -> AsyncIterator[int]:
            try:
                yield 1
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(2)
                log.append("ticks ended")

    service = Service()
    async with open_ends(Slow()) as elsewhere, open_ends(service) as ends:
        stream = elsewhere.client.stream("ticks")
        assert await ends.client.call("first", stream, 1) == [1]
        assert log == ["ticks ended"]
        await quiet()
        elsewhere.assert_clean()


async def test_a_stream_that_is_passed_on_fails(autojump_clock, caplog):
    """Its error comes out of the call, as it comes out of the stream."""

    class Failing:
        @rpc
        async def ticks(self) -> AsyncIterator[int]:
            yield 1
            await trio.sleep(1)
            raise ValueError("far away")

    service = Service()
    async with open_ends(Failing()) as elsewhere, open_ends(service) as ends:
        with pytest.raises(RemoteError, match="far away"):
            await ends.client.call("take", elsewhere.client.stream("ticks"))
        assert service.taken == [1]


# --- how it looks on the wire


async def test_the_frames_of_an_upload(autojump_clock):
    """R5, R6, R10, R19: its id, its place, and one final frame that says how it ended."""
    async with open_ends(Service(), limits=FOUR) as ends:
        await ends.client.call("total", numbers(1, 2))
        await ends.client.call("first", numbers=Source(), count=1)
        await quiet()
        exhausted, closed = ends.up.sent("call")
        assert exhausted["refs"] == [[0, "stream", 3]]
        assert exhausted["args"] == [None]
        assert closed["refs"] == [["numbers", "stream", 7]]
        assert closed["kwargs"] == {"numbers": None, "count": 1}
        # Both ended as they should: exhausted, or as an answer to the other side's cancel.
        assert ends.up.sent("end", "error") == [{"type": "end", "id": 3}, {"type": "end", "id": 7}]
        assert ends.down.sent("cancel") == [{"type": "cancel", "id": 7}]
        assert [frame["items"] for frame in ends.up.sent("chunk") if frame["id"] == 3] == [[1, 2]]


async def test_a_stream_that_its_handler_drops(autojump_clock):
    """R7: as for any stream that is collected, its producer is closed."""
    service = Service()

    class Dropper:
        @rpc
        async def drop(self, numbers: Stream[int]) -> None:
            assert await numbers.receive() == 0
            del numbers
            await service.go.wait()

    async with open_ends(Dropper(), limits=FOUR) as ends:
        source = Source()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "drop", source)
            await trio.sleep(1)
            assert source.log == ["started", "GeneratorExit", "ended"]
            service.go.set()
        assert len(ends.down.sent("cancel")) == 1


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_long_items(encoding, autojump_clock):
    """R21: they travel in parts, and each takes its whole credit when it starts."""
    asked = 0

    async def source() -> AsyncIterator[str]:
        nonlocal asked
        for number in range(10):
            asked += 1
            yield str(number) * 1_000_000

    class Taker:
        @rpc
        async def take(self, texts: AsyncIterable[str]) -> list[str]:
            await trio.sleep(1)
            seen.append(asked)
            return [f"{text[0]}{len(text)}" async for text in texts]

    seen: list[int] = []
    limits = Limits(window=Window(64, 3_000_000), max_window=Window(64, 3_000_000))
    async with open_ends(Taker(), encoding=encoding, limits=limits) as ends:
        taken = await ends.client.call("take", source())
    assert taken == [f"{number}1000000" for number in range(10)]
    assert seen == [3]
