"""Callbacks: async functions of the caller's that the handler calls (R20)."""

# Contracts have empty bodies here.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import functools
import gc
import logging
import math
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import trio

from tests.runtime.ends import Cut, open_ends, quiet, sweep
from tests.runtime.peer import open_against
from trio_streamrpc import (
    CallCancelled,
    Code,
    ConnectionLost,
    InternalError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RemoteError,
    RpcError,
    current_call,
    rpc,
)

Progress = Callable[[float], Awaitable[None]]
Double = Callable[[int], Awaitable[int]]
PLACE: ContextVar[str] = ContextVar("place", default="nowhere")

BOTH = pytest.mark.parametrize("encoding", ["msgpack", "json"])


class Service:
    def __init__(self) -> None:
        self.kept: list[Callable[..., Awaitable[Any]]] = []
        self.seen: list[object] = []
        self.ended = trio.Event()

    @rpc
    async def twice(self, value: int, double: Double) -> int:
        return await double(await double(value))

    @rpc
    async def untyped(self, callback, *args):
        return await callback(*args)

    @rpc
    async def keep(self, callback: Callable[..., Awaitable[Any]]) -> None:
        self.kept.append(callback)

    @rpc
    async def optional(self, callback: Progress | None = None) -> bool:
        if callback is not None:
            await callback(0.5)
        return callback is not None

    @rpc
    async def named(self, *, first: Double, second: Double) -> list[int]:
        return [await first(1), await second(1)]

    @rpc
    async def all_of(self, *callbacks: Double, **named: Double) -> dict[str, int]:
        found = {str(index): await each(index) for index, each in enumerate(callbacks)}
        return found | {name: await each(10) for name, each in named.items()}

    @rpc
    async def at_once(self, number: int, double: Double) -> list[int]:
        found = []

        async def one(value: int) -> None:
            found.append(await double(value))

        async with trio.open_nursery() as nursery:
            for value in range(number):
                nursery.start_soon(one, value)
        return sorted(found)

    @rpc
    async def tolerant(self, callback: Callable[[], Awaitable[None]]) -> str:
        try:
            await callback()
        except Exception as error:
            self.seen.append(error)
            return type(error).__name__
        return "nothing"

    @rpc
    async def impatient(self, seconds: float, callback: Callable[[], Awaitable[None]]) -> bool:
        with trio.move_on_after(seconds) as scope:
            await callback()
        return scope.cancelled_caught

    @rpc
    async def beside(self, callback: Callable[[], Awaitable[None]]) -> str:
        """It calls and returns while the call runs."""
        current_call().connection.nursery.start_soon(self._background, callback)
        await trio.sleep(1)
        return "done"

    async def _background(self, callback: Callable[[], Awaitable[None]]) -> None:
        try:
            await callback()
        except RpcError as error:
            self.seen.append(error)
        self.ended.set()

    @rpc
    async def in_cleanup(self, callback: Double) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                try:
                    await callback(1)
                except Exception as error:
                    self.seen.append(error)
                self.ended.set()

    @rpc
    async def wrong_argument(self, callback: Callable[..., Awaitable[int]]) -> int:
        return await callback("no", 1)

    @rpc
    async def numbers(self, stop: int, double: Double) -> AsyncIterator[int]:
        for number in range(stop):
            yield await double(number)

    @rpc
    async def apply(self, inner: Callable[[Double, int], Awaitable[int]], value: int) -> int:
        """Its callback takes a callback, which runs here."""
        where = PLACE.get()

        async def here(value: int) -> int:
            assert PLACE.get() == where
            return value + 100

        PLACE.set("changed since")
        where = PLACE.get()
        return await inner(here, value)

    @rpc
    async def send(self, sink: Callable[[AsyncIterable[int]], Awaitable[int]]) -> int:
        """Its callback takes an upload, which is produced here."""

        async def numbers() -> AsyncIterator[int]:
            try:
                for number in range(300):
                    yield number
            finally:
                self.ended.set()

        return await sink(numbers())

    @rpc
    async def deadline(self, callback: Callable[[], Awaitable[None]]) -> None:
        with trio.fail_after(5):
            await callback()


async def double(value: int) -> int:
    return 2 * value


# --- what a callback may be


class Odd:
    """No payload."""

    def __init__(self, value: int) -> None:
        self.value = value


class Method:
    async def double(self, value: int) -> int:
        return 2 * value

    async def __call__(self, value: int) -> int:
        return 2 * value


async def times(factor: int, value: int) -> int:
    return factor * value


@BOTH
@pytest.mark.parametrize(
    "callback",
    [double, Method().double, Method(), functools.partial(times, 2), lambda value: double(value)],
    ids=["function", "bound", "object", "partial", "lambda"],
)
async def test_what_a_callback_may_be(callback: Any, encoding: Any, autojump_clock: Any) -> None:
    async with open_ends(Service(), encoding=encoding) as ends:
        assert await ends.client.proxy(Service).twice(3, callback) == 12


@pytest.mark.parametrize(
    "callback",
    [double, Method().double, Method(), functools.partial(times, 2)],
    ids=["function", "bound", "object", "partial"],
)
async def test_without_a_contract(callback: Any, autojump_clock: Any) -> None:
    """An async function is known by itself, on both sides."""
    async with open_ends(Service()) as ends:
        assert await ends.client.call("twice", 3, callback) == 12
        assert await ends.client.call("untyped", callback, 4) == 8
        assert await ends.client.api.named(first=callback, second=callback) == [2, 2]


async def test_what_is_no_callback(autojump_clock: Any) -> None:
    async with open_ends(Service()) as ends:
        api = ends.client.proxy(Service)
        with pytest.raises(TypeError, match="'double' is to be an async function, and is of type"):
            await api.twice(3, 5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="'double' is to be an async function"):
            await api.twice(3, None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="cannot be encoded"):
            await ends.client.call("twice", 3, lambda value: 5)
        assert ends.up.sent("call") == []
        with pytest.raises(InvalidArgument, match="takes a callback for 'double'"):
            await ends.client.call("twice", 3, 5)

        async def stream() -> AsyncIterator[int]:
            yield 1

        with pytest.raises(InvalidArgument, match="takes a callback for 'double', and was given"):
            await ends.client.call("twice", 3, stream())


async def test_places(autojump_clock: Any) -> None:
    """R19: by position and by name, several of them, some that are None, any number."""
    async with open_ends(Service()) as ends:
        api = ends.client.proxy(Service)

        async def treble(value: int) -> int:
            return 3 * value

        assert await api.named(second=treble, first=double) == [2, 3]
        [call] = ends.up.sent("call")
        assert sorted(call["refs"]) == [
            ["first", "object", call["id"] + 4],
            ["second", "object", call["id"] + 2],
        ]
        assert await api.all_of(double, treble, double, last=treble) == {
            "0": 0, "1": 3, "2": 4, "last": 30,
        }  # fmt: skip
        assert await api.all_of() == {}
        assert await api.optional() is False
        assert await api.optional(None) is False
        assert "refs" not in ends.up.sent("call")[-1]

        async def note(done: float) -> None:
            assert done == 0.5

        assert await api.optional(note) is True
        assert await api.optional(callback=note) is True


# --- where it runs


@BOTH
async def test_it_runs_in_the_callers_task_tree(encoding: Any, autojump_clock: Any) -> None:
    """R20: a child of the task that has made the call."""
    service = Service()
    found: list[trio.lowlevel.Task] = []

    async def look(value: int) -> int:
        found.append(trio.lowlevel.current_task())
        return value

    async with open_ends(service, encoding=encoding) as ends:
        assert await ends.client.proxy(Service).twice(1, look) == 1
    here = trio.lowlevel.current_task()
    for task in found:
        assert task.parent_nursery is not None
        assert task.parent_nursery.parent_task is here
        assert "twice" in task.name


async def test_it_runs_in_the_context_of_the_call(autojump_clock: Any) -> None:
    """R20: in a copy for each time: what one sets is seen by nobody else."""
    places: list[str] = []

    async def look(value: int) -> int:
        places.append(PLACE.get())
        PLACE.set("inside")
        await trio.lowlevel.checkpoint()
        return value

    async with open_ends(Service()) as ends:
        api = ends.client.proxy(Service)
        PLACE.set("at the call")
        await api.twice(1, look)
        assert PLACE.get() == "at the call"
        async with api.numbers(2, look) as stream:
            PLACE.set("later")
            assert [each async for each in stream] == [0, 1]
    assert places == ["at the call"] * 4
    with pytest.raises(RuntimeError, match="is for handlers"):
        current_call()


async def test_current_call_is_the_callers(autojump_clock: Any) -> None:
    """In a callback it tells what it tells around it, and not of the callback."""
    methods: list[str] = []

    class Here:
        @rpc
        async def outer(self) -> int:
            async def look(value: int) -> int:
                methods.append(current_call().method)
                return value

            there = current_call().connection.proxy(Service)
            return await there.twice(1, look)

    async def look(value: int) -> int:
        with pytest.raises(RuntimeError, match="is for handlers"):
            current_call()
        return value

    async with open_ends(Service(), serving=Here()) as ends:
        await ends.client.proxy(Service).twice(1, look)
        await ends.server.call("outer")
    assert methods == ["outer", "outer"]


async def test_cancelled_with_its_caller(autojump_clock: Any) -> None:
    """Its caller's cancellation is its own; the call returns when it has ended."""
    events: list[str] = []

    async def slow(value: int) -> int:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            events.append("callback")
        return value

    async with open_ends(Service()) as ends:
        start = trio.current_time()
        with trio.move_on_after(2) as scope:
            await ends.client.proxy(Service).twice(1, slow)
        assert scope.cancelled_caught
        assert events == ["callback"]
        assert trio.current_time() - start == 5
        assert await ends.client.proxy(Service).twice(1, double) == 4


# --- how it ends


@BOTH
async def test_a_callback_that_raises(encoding: Any, autojump_clock: Any) -> None:
    """It fails the handler's await; let pass, it fails the call."""
    service = Service()

    async def fail() -> None:
        raise ValueError("no such thing")

    async def refuse() -> None:
        raise PermissionDenied("not you")

    async def misuse(value: int) -> int:
        raise ValueError(value)

    async with open_ends(service, encoding=encoding) as ends:
        api = ends.client.proxy(Service)
        assert await api.tolerant(fail) == "RemoteError"
        assert await api.tolerant(refuse) == "PermissionDenied"
        first, second = service.seen
        assert isinstance(first, RemoteError)
        assert (first.name, first.message, first.code) == (
            "ValueError",
            "no such thing",
            Code.UNKNOWN,
        )
        assert isinstance(second, PermissionDenied)
        assert second.message == "not you"
        with pytest.raises(RemoteError) as caught:
            await api.twice(7, misuse)
        assert (caught.value.name, caught.value.message) == ("ValueError", "7")
        assert await api.twice(1, double) == 4


async def test_what_a_callback_raises_is_logged_where_it_is(
    autojump_clock: Any, caplog: Any
) -> None:
    async def fail() -> None:
        raise ValueError("no such thing")

    async with open_ends(Service()) as ends:
        await ends.client.proxy(Service).tolerant(fail)
    [record] = caplog.records
    assert record.name == "trio_streamrpc"
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "Service.tolerant(), 'callback' failed"
    assert isinstance(record.exc_info[1], ValueError)


async def test_masked_errors(autojump_clock: Any, caplog: Any) -> None:
    """What one side masks, it masks in callbacks too."""
    service = Service()

    async def fail() -> None:
        raise ValueError("secret")

    async with open_ends(service, mask_errors=True) as ends:
        assert await ends.client.proxy(Service).tolerant(fail) == "InternalError"
        [error] = service.seen
        assert isinstance(error, InternalError)
        assert "secret" not in str(error)
        [record] = caplog.records
        assert error.message.split()[-1] in record.getMessage()


async def test_a_group_from_a_callback(autojump_clock: Any) -> None:
    service = Service()

    async def fail() -> None:
        async with trio.open_nursery() as nursery:
            for text in ("a", "b"):
                nursery.start_soon(failing, text)

    async def failing(text: str) -> None:
        raise ValueError(text)

    async with open_ends(service) as ends:
        assert await ends.client.proxy(Service).tolerant(fail) == "RemoteError"
        [error] = service.seen
        assert isinstance(error, RemoteError)
        assert error.name == "ExceptionGroup"
        assert sorted(str(each.message) for each in error.causes) == ["a", "b"]


async def test_a_group_that_is_deeper_than_pythons_stack(autojump_clock: Any) -> None:
    async def fail() -> None:
        deep: Exception = ValueError("leaf")
        for _ in range(3000):
            deep = ExceptionGroup("deep", [deep])
        raise deep

    async with open_ends(Service()) as ends:
        assert await ends.client.proxy(Service).tolerant(fail) == "RemoteError"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("grouped", [False, True])
async def test_what_no_handler_may_swallow(kind: Any, grouped: bool, autojump_clock: Any) -> None:
    """It comes out of the call, as itself, and the connection lives."""
    service = Service()

    async def interrupt(value: int) -> int:
        if grouped:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise kind
        raise kind

    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)
        with pytest.raises(kind):
            await api.twice(1, interrupt)
        await quiet()
        ends.assert_clean()
        assert await api.twice(1, double) == 4
        with pytest.raises(kind):
            async with api.numbers(5, interrupt) as stream:
                await stream.receive()
        await quiet()
        ends.assert_clean()


async def test_an_error_in_the_cleanup_of_a_cancelled_callback(
    autojump_clock: Any, caplog: Any
) -> None:
    """The caller sees that it was cancelled, and the log has the rest."""

    async def slow(value: int) -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing)
            await trio.sleep_forever()
        return value

    async def failing() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in cleanup")

    async with open_ends(Service()) as ends:
        with trio.move_on_after(2) as scope:
            await ends.client.proxy(Service).twice(1, slow)
        assert scope.cancelled_caught
        await quiet()
        ends.assert_clean()
    assert [each.getMessage() for each in caplog.records] == ["Service.twice(), 'double' failed"]


async def test_it_ends_with_its_call(autojump_clock: Any) -> None:
    """R20: one that runs when its call ends is cancelled, and has ended when the call returns."""
    service = Service()
    events: list[str] = []

    async def slow() -> None:
        events.append("started")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            events.append("ended")

    async with open_ends(service) as ends:
        start = trio.current_time()
        assert await ends.client.proxy(Service).beside(slow) == "done"
        assert events == ["started", "ended"]
        assert trio.current_time() - start == 3
        await service.ended.wait()
        [error] = service.seen
        assert isinstance(error, CallCancelled)


@BOTH
async def test_kept_beyond_its_call(encoding: Any, autojump_clock: Any) -> None:
    """R20: it is not found, and nothing is sent."""
    service = Service()
    async with open_ends(service, encoding=encoding) as ends:
        await ends.client.proxy(Service).keep(double)
        sent = len(ends.down.frames)
        [callback] = service.kept
        with pytest.raises(NotFound, match="'callback' has ended"):
            await callback(1)
        assert len(ends.down.frames) == sent
        await quiet()
        ends.assert_clean()
    with pytest.raises(ConnectionLost):
        await callback(1)


async def test_called_after_the_caller_was_cancelled(autojump_clock: Any) -> None:
    """A handler's cleanup may call it, and is told that it is not there."""
    service = Service()
    called: list[int] = []

    async def note(value: int) -> int:
        called.append(value)
        return value

    async with open_ends(service) as ends:
        with trio.move_on_after(2):
            await ends.client.proxy(Service).in_cleanup(note)
        await service.ended.wait()
        [error] = service.seen
        assert isinstance(error, NotFound)
        assert called == []
        await quiet()
        ends.assert_clean()


async def test_cancelling_the_await_cancels_the_callback(autojump_clock: Any) -> None:
    ended: list[float] = []

    async def slow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with open_ends(Service()) as ends:
        start = trio.current_time()
        assert await ends.client.proxy(Service).impatient(3, slow) is True
        assert ended == [start + 3]


async def test_a_callback_that_does_not_stop(autojump_clock: Any, caplog: Any) -> None:
    """R7a: it is asked like any handler; the call waits for it all the same."""

    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

    async with open_ends(Service()) as ends:
        start = trio.current_time()
        assert await ends.client.proxy(Service).impatient(3, stubborn) is True
        assert trio.current_time() - start == 60
        assert [each.getMessage()[:52] for each in caplog.records] == [
            "Service.impatient(), 'callback' has not stopped 6.0 ",
            "Service.impatient(), 'callback' has stopped after al",
        ]


async def test_the_deadline_goes_along(autojump_clock: Any) -> None:
    """R23: a callback has what is left to the handler that calls it."""
    deadlines: list[float] = []

    async def look(value: int) -> int:
        deadlines.append(trio.current_effective_deadline() - trio.current_time())
        return value

    async def look_without_one() -> None:
        deadlines.append(trio.current_effective_deadline() - trio.current_time())

    async with open_ends(Service()) as ends:
        api = ends.client.proxy(Service)
        await api.deadline(look_without_one)
        await api.impatient(9, look_without_one)
        assert deadlines == [pytest.approx(5), pytest.approx(9)]
        await api.twice(1, look)
        assert deadlines[2:] == [math.inf, math.inf]
        calls = ends.down.sent("call")
        assert [call.get("timeout") for call in calls] == [5, 9, None, None]


async def test_a_callback_whose_time_is_up(autojump_clock: Any) -> None:
    """R23: whose scope it is, speaks."""
    ended: list[float] = []

    async def slow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with open_ends(Service()) as ends:
        api = ends.client.proxy(Service)
        start = trio.current_time()
        with pytest.raises(RemoteError) as caught:
            await api.deadline(slow)
        assert caught.value.name == "TooSlowError"
        assert ended == [start + 5]
    async with open_against(serving=None) as (connection, peer):

        async def call() -> None:
            await connection.call("m", slow)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            frame = await peer.hears("call")
            [[_, _, target]] = frame["refs"]
            await peer.says({"type": "call", "id": 2, "target": target, "timeout": 2.0})
            error = await peer.hears("error")
            assert (error["id"], error["error"]["code"]) == (2, "DEADLINE_EXCEEDED")
            await peer.says({"type": "result", "id": frame["id"]})


# --- types


@BOTH
async def test_arguments_are_checked(encoding: Any, autojump_clock: Any) -> None:
    """Against what the caller's contract says of its callback."""

    class Contract:
        @rpc
        async def wrong_argument(self, callback: Double) -> int: ...

    class Two:
        @rpc
        async def wrong_argument(self, callback: Callable[[int, int], Awaitable[int]]) -> int: ...

    async def two(value: int, other: int) -> int:
        return value + other

    async with open_ends(Service(), encoding=encoding) as ends:
        with pytest.raises(InvalidArgument, match="takes 1 positional argument but 2 were given"):
            await ends.client.proxy(Contract).wrong_argument(double)
        with pytest.raises(
            InvalidArgument, match=r"Expected `int`, got `str` - at `\$\.argument 1`"
        ):
            await ends.client.proxy(Two).wrong_argument(two)


@BOTH
async def test_what_does_not_fit_the_handlers_own_annotation(
    encoding: Any, autojump_clock: Any
) -> None:
    class Wrong:
        @rpc
        async def too_many(self, callback: Double) -> int:
            return await callback(1, 2)  # type: ignore[call-arg]

        @rpc
        async def by_name(self, callback: Double) -> int:
            return await callback(value=1)  # type: ignore[call-arg]

        @rpc
        async def no_data(self, callback: Callable[[object], Awaitable[int]]) -> int:
            return await callback({1: object()})

    async with open_ends(Wrong(), encoding=encoding) as ends:
        api = ends.client.proxy(Wrong)
        with pytest.raises(RemoteError, match="takes 1 positional argument but 2 were") as caught:
            await api.too_many(double)
        assert caught.value.name == "TypeError"
        with pytest.raises(RemoteError, match="unexpected keyword argument 'value'"):
            await api.by_name(double)
        with pytest.raises(RemoteError, match=r"'argument 1'.* cannot be encoded"):
            await api.no_data(double)  # type: ignore[arg-type]
        assert ends.down.sent("call") == []


@BOTH
async def test_results_are_checked(encoding: Any, autojump_clock: Any) -> None:
    """By the handler's side, against its own annotation: the fault is the caller's."""
    service = Service()

    async def text(value: int) -> str:
        return "no"

    async def nothing_at_all() -> object:
        return object()

    async with open_ends(service, encoding=encoding) as ends:
        with pytest.raises(InternalError, match=r"'double'\(\) does not match int"):
            await ends.client.call("twice", 1, text)
        assert await ends.client.call("tolerant", nothing_at_all) == "RemoteError"
        [error] = service.seen
        assert isinstance(error, RemoteError)
        assert "its result, of type object, cannot be encoded" in error.message


async def test_anything_may_be_passed_where_nothing_is_said(autojump_clock: Any) -> None:
    class Loose:
        @rpc
        async def bare(self, callback: Callable[..., Coroutine[Any, Any, list[int]]]) -> list[int]:
            return await callback(1, [2], three={"4": 5})

    async def collect(*args: Any, **kwargs: Any) -> list[Any]:
        assert (args, kwargs) == ((1, [2]), {"three": {"4": 5}})
        return [1, 2]

    async with open_ends(Loose()) as ends:
        assert await ends.client.proxy(Loose).bare(collect) == [1, 2]
        with pytest.raises(InternalError, match="does not match"):
            await ends.client.call("bare", functools.partial(wrong, 1))


async def wrong(*args: Any, **kwargs: Any) -> list[str]:
    return ["no"]


# --- many, nested, both ways


@BOTH
@pytest.mark.parametrize("number", [1, 64, 200])
async def test_many_at_once(number: int, encoding: Any, autojump_clock: Any) -> None:
    """R26: beyond max_object_calls they wait for their turn."""
    running = peak = 0

    async def slow(value: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await trio.sleep(1)
        running -= 1
        return 2 * value

    async with open_ends(Service(), encoding=encoding) as ends:
        found = await ends.client.proxy(Service).at_once(number, slow)
        assert found == [2 * value for value in range(number)]
        assert peak == min(number, 64)
        assert ends.server.endpoint.budget.spend(0.0)


async def test_in_a_stream(autojump_clock: Any) -> None:
    async with open_ends(Service()) as ends:
        api = ends.client.proxy(Service)
        async with api.numbers(200, double) as stream:
            assert [each async for each in stream] == [2 * number for number in range(200)]
        async with api.numbers(200, double) as stream:
            assert await stream.receive() == 0
        await quiet()
        ends.assert_clean()
        stream = api.numbers(5, double)
        with pytest.raises(RuntimeError, match="enter it with 'async with'"):
            await stream.receive()
        with pytest.raises(RuntimeError, match="enter it with 'async with'"):
            async for _ in api.numbers(5, double):
                pass
        async with stream:
            assert await stream.receive() == 0


async def test_in_a_stream_that_is_left_while_it_runs(autojump_clock: Any) -> None:
    """The block is left when the callback has ended."""
    events: list[str] = []

    async def slow(value: int) -> int:
        if value < 2:
            return value
        try:
            await trio.sleep_forever()
        finally:
            events.append("ended")
        return value

    async with open_ends(Service()) as ends:
        async with ends.client.proxy(Service).numbers(5, slow) as stream:
            assert await stream.receive() == 0
            await quiet()
        assert events == ["ended"]


async def test_a_callback_that_fails_in_a_stream(autojump_clock: Any) -> None:
    async def fail(value: int) -> int:
        if value == 2:
            raise ValueError("two")
        return value

    async with open_ends(Service()) as ends:
        seen = []
        with pytest.raises(RemoteError, match="two"):
            async with ends.client.proxy(Service).numbers(5, fail) as stream:
                async for each in stream:
                    seen.append(each)  # noqa: PERF401  # what came before the error counts
        assert seen == [0, 1]


@BOTH
async def test_a_callback_that_takes_a_callback(encoding: Any, autojump_clock: Any) -> None:
    """The second one runs on the side that passed it, in the context that it was passed in."""

    async def inner(callback: Double, value: int) -> int:
        return await callback(await callback(value))

    async with open_ends(Service(), encoding=encoding) as ends:
        assert await ends.client.proxy(Service).apply(inner, 5) == 205


async def test_an_inner_callback_ends_with_the_outer_one(autojump_clock: Any) -> None:
    kept: list[Double] = []

    async def inner(callback: Double, value: int) -> int:
        kept.append(callback)
        return value

    async with open_ends(Service()) as ends:
        assert await ends.client.proxy(Service).apply(inner, 5) == 5
        with pytest.raises(NotFound, match="has ended"):
            await kept[0](1)


@BOTH
async def test_a_callback_that_takes_a_stream(encoding: Any, autojump_clock: Any) -> None:
    service = Service()

    async def total(numbers: AsyncIterable[int]) -> int:
        return sum([each async for each in numbers])

    async def first(numbers: AsyncIterable[int]) -> int:
        async for each in numbers:
            return each
        return -1

    async with open_ends(service, encoding=encoding) as ends:
        api = ends.client.proxy(Service)
        assert await api.send(total) == sum(range(300))
        service.ended = trio.Event()
        assert await api.send(first) == 0
        assert service.ended.is_set()


async def test_in_both_directions(autojump_clock: Any) -> None:
    """Both sides serve, call, and pass callbacks, at the same time."""
    async with open_ends(Service(), serving=Service()) as ends:

        async def many(connection: Any) -> None:
            for number in range(10):
                assert await connection.proxy(Service).twice(number, double) == 4 * number

        async with trio.open_nursery() as nursery:
            for connection in (ends.client, ends.server) * 5:
                nursery.start_soon(many, connection)


async def test_a_callback_that_calls_the_service(autojump_clock: Any) -> None:
    async with open_ends(Service()) as ends:
        api = ends.client.proxy(Service)

        async def deep(value: int) -> int:
            return value if value <= 0 else 1 + await api.twice(value - 5, deep)

        assert await api.twice(10, deep) == await local_twice(10)


async def local_twice(value: int) -> int:
    async def deep(value: int) -> int:
        return value if value <= 0 else 1 + await local_twice(value - 5)

    return await deep(await deep(value))


async def test_a_gateway_passes_a_callback_on(autojump_clock: Any) -> None:
    """What a handler was given it may give to somebody else; cancelling goes through."""
    ended: list[str] = []

    async with open_ends(Service()) as behind:

        class Gateway:
            @rpc
            async def twice(self, value: int, double: Double) -> int:
                return await behind.client.proxy(Service).twice(value, double)

        async def slow(value: int) -> int:
            try:
                await trio.sleep_forever()
            finally:
                ended.append("callback")
            return value

        async with open_ends(Gateway()) as ends:
            assert await ends.client.proxy(Gateway).twice(3, double) == 12
            with trio.move_on_after(1):
                await ends.client.proxy(Gateway).twice(3, slow)
            await quiet()
            ends.assert_clean()
            behind.assert_clean()
    assert ended == ["callback"]


async def test_a_context_takes_callbacks(autojump_clock: Any) -> None:
    """They can be called for as long as it lasts, and not after it."""
    kept: list[Double] = []

    class Contexts:
        @rpc
        @asynccontextmanager
        async def doubled(self, double: Double) -> AsyncIterator[int]:
            kept.append(double)
            yield await double(1)
            assert await double(4) == 8

    async with open_ends(Contexts()) as ends:
        async with ends.client.proxy(Contexts).doubled(double) as value:
            assert value == 2
            assert await kept[0](3) == 6
        with pytest.raises(NotFound):
            await kept[0](3)


async def test_nothing_refers_to_a_callback_when_its_call_has_ended(autojump_clock: Any) -> None:
    class Held:
        async def __call__(self, value: int) -> int:
            return value

    service = Service()
    async with open_ends(service) as ends:
        held = Held()
        there = weakref.ref(held)
        await ends.client.proxy(Service).twice(1, held)
        await ends.client.proxy(Service).keep(held)
        del held
        gc.collect()
        assert there() is None


# --- the connection's end


async def test_the_connection_is_lost_while_a_callback_runs(autojump_clock: Any) -> None:
    """It is cancelled, and has ended when the call raises."""
    service = Service()
    ended: list[str] = []

    async def slow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            ended.append("callback")

    async with open_ends(service, clean=False) as ends:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cut() -> None:
                await trio.sleep(2)
                await trio.aclose_forcefully(ends.down)

            with pytest.raises(ConnectionLost):
                await ends.client.proxy(Service).tolerant(slow)
        assert ended == ["callback"]


async def test_a_callback_that_closes_its_connection(autojump_clock: Any) -> None:
    async with open_ends(Service(), clean=False) as ends:

        async def close() -> None:
            await ends.client.aclose()

        start = trio.current_time()
        with pytest.raises(ConnectionLost, match="closed here"):
            await ends.client.proxy(Service).tolerant(close)
        await ends.client.wait_closed()
        assert trio.current_time() - start < 1


async def test_a_connection_that_is_closed_while_a_callback_runs(autojump_clock: Any) -> None:
    ended = trio.Event()

    async def slow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with open_ends(Service(), clean=False) as ends:

        async def call() -> None:
            with pytest.raises(ConnectionLost, match="closed here"):
                await ends.client.proxy(Service).tolerant(slow)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await quiet()
            start = trio.current_time()
            await ends.client.aclose()
            assert ended.is_set()
            assert trio.current_time() - start < 1


async def test_callbacks_work_while_the_other_side_drains(autojump_clock: Any) -> None:
    """R27: what runs finishes, and needs its callbacks for that."""

    async def slow(value: int) -> int:
        await trio.sleep(2)
        return 2 * value

    async with open_ends(Service()) as ends:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                assert await ends.client.proxy(Service).twice(1, slow) == 4

            await trio.sleep(1)
            await ends.server.drain()
            assert ends.client.endpoint.peer_drains


async def test_an_inner_callback_while_the_other_side_drains(autojump_clock: Any) -> None:
    """R27: a call of an object is no new work, whichever side makes it."""

    async def slow(callback: Double, value: int) -> int:
        await trio.sleep(2)
        return await callback(value)

    async with open_ends(Service()) as ends:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                assert await ends.client.proxy(Service).apply(slow, 1) == 101

            await trio.sleep(1)
            await ends.server.drain()


async def test_an_inner_callback_not_yet_written_when_the_other_side_drains(
    autojump_clock: Any,
) -> None:
    """R27: only calls of the service are taken back."""

    result: list[int] = []

    async def call_it(callback: Double, value: int) -> int:
        ends.up.hold()
        # One message stands in the held wire, and what comes after it is not yet written.
        ends.client.endpoint.ping(ends.client.endpoint.codec.mark)
        ends.client.wake_writer()
        await quiet()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            result.append(await callback(value))
        return result[0]

    async def drain() -> None:
        await quiet()
        ends.server.endpoint.drain()
        ends.server.wake_writer()
        await quiet()
        ends.up.let_go()

    async with open_ends(Service()) as ends:
        assert await ends.client.proxy(Service).apply(call_it, 1) == 101


# --- cancellation at every step


@BOTH
async def test_a_sweep_over_a_call_with_callbacks(encoding: Any, autojump_clock: Any) -> None:
    service = Service()
    running = 0

    async def one(value: int) -> int:
        nonlocal running
        running += 1
        try:
            await trio.lowlevel.checkpoint()
        finally:
            running -= 1
        return 2 * value

    async with open_ends(service, encoding=encoding) as ends:
        api = ends.client.proxy(Service)

        async def attempt(cut: Cut) -> bool:
            done = False
            with cut.arm():
                assert await api.at_once(3, one) == [0, 2, 4]
                done = True
            assert running == 0
            await quiet()
            ends.assert_clean()
            return done

        await sweep(attempt, at_least=5)


async def test_a_sweep_over_nested_callbacks(autojump_clock: Any) -> None:
    async def inner(callback: Double, value: int) -> int:
        return await callback(value)

    async with open_ends(Service()) as ends:
        api = ends.client.proxy(Service)

        async def attempt(cut: Cut) -> bool:
            done = False
            with cut.arm():
                assert await api.apply(inner, 1) == 101
                done = True
            await quiet()
            ends.assert_clean()
            return done

        await sweep(attempt, at_least=5)


async def test_a_sweep_over_the_await_of_a_callback(autojump_clock: Any) -> None:
    """The handler's own await is cancelled, and the call goes on."""
    running = 0

    async def one(value: int) -> int:
        nonlocal running
        running += 1
        try:
            await trio.lowlevel.checkpoint()
        finally:
            running -= 1
        return value

    class Sweeping:
        cut: Cut

        @rpc
        async def cut_short(self, callback: Double) -> bool:
            with self.cut.arm():
                return await callback(1) == 1
            return False

    service = Sweeping()
    async with open_ends(service) as ends:

        async def attempt(cut: Cut) -> bool:
            service.cut = cut
            done = await ends.client.proxy(Sweeping).cut_short(one)
            await quiet()
            assert running == 0
            ends.assert_clean()
            return done

        await sweep(attempt, at_least=3)


# --- a peer that does what this library does not


@BOTH
async def test_a_peer_that_calls_what_has_ended(encoding: Any, autojump_clock: Any) -> None:
    """R20: NOT_FOUND, never a connection error; and so for what never was, or is no object."""
    async with open_against(encoding=encoding) as (connection, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.call, "m", double)
            frame = await peer.hears("call")
            [[place, kind, target]] = frame["refs"]
            assert (place, kind) == (0, "object")
            assert frame["args"] == [None]
            await peer.says({"type": "call", "id": 2, "target": target, "args": [4]})
            assert (await peer.hears("result"))["value"] == 8
            await peer.says({"type": "result", "id": frame["id"]})
        for number, object_id in enumerate((target, frame["id"], target + 2, 2, 4), 2):
            id = 2 * number
            await peer.says({"type": "call", "id": id, "target": object_id, "args": [4]})
            error = await peer.hears("error")
            assert (error["id"], error["error"]["code"]) == (id, "NOT_FOUND")
        assert connection.alive


async def test_a_peer_that_calls_in_the_message_that_ends_the_call(autojump_clock: Any) -> None:
    """What runs then is cancelled, and what comes then is not found."""
    ended: list[int] = []

    async def slow(value: int) -> int:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(value)
        return value

    async with open_against() as (connection, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.call, "m", slow)
            frame = await peer.hears("call")
            target = frame["refs"][0][2]
            await peer.says({"type": "call", "id": 2, "target": target, "args": [1]})
            await quiet()
            await peer.says(
                {"type": "call", "id": 4, "target": target, "args": [2]},
                {"type": "result", "id": frame["id"]},
                {"type": "call", "id": 6, "target": target, "args": [3]},
            )
        # The one in that message may have begun.
        assert 1 in ended
        assert 3 not in ended
        codes = {}
        for _ in range(3):
            error = await peer.hears("error")
            codes[error["id"]] = error["error"]["code"]
        assert codes == {2: "CANCELLED", 4: "CANCELLED", 6: "NOT_FOUND"}


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        ({"method": "x"}, "UNIMPLEMENTED", "no such method"),
        (
            {"window": {"items": 1, "bytes": 1}},
            "INVALID_ARGUMENT",
            "a callback gives one result: await it",
        ),
        ({"args": []}, "INVALID_ARGUMENT", "missing 1 required argument"),
        ({"args": ["no"]}, "INVALID_ARGUMENT", r"$.argument 1"),
        ({"args": [None], "refs": [[0, "object", 4]]}, "INVALID_ARGUMENT", "takes data for"),
        ({"args": [None], "refs": [[0, "stream", 4]]}, "INVALID_ARGUMENT", "takes data for"),
        ({"args": [1], "refs": [["a", "object", 4]]}, "INVALID_ARGUMENT", "no argument at 'a'"),
        ({"args": 5}, "INVALID_ARGUMENT", "args"),
    ],
    ids=str,
)
async def test_a_peer_that_calls_it_wrongly(
    call: Any, code: str, message: str, autojump_clock: Any
) -> None:
    async with open_against() as (connection, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.proxy(Service).twice, 1, double)
            frame = await peer.hears("call")
            target = frame["refs"][0][2]
            await peer.says({"type": "call", "id": 2, "target": target, **call})
            error = await peer.hears("error")
            assert (error["id"], error["error"]["code"]) == (2, code)
            assert message in error["error"]["message"]
            await peer.says({"type": "result", "id": frame["id"], "value": 1})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"args": [1, None]}, "takes a callback for 'double'"),
        ({"args": [1, None], "refs": [[1, "stream", 3]]}, "takes a callback for 'double'"),
        (
            {"args": [1, None], "refs": [[1, "object", 3], [1, "object", 5]]},
            "two references at 1",
        ),
        ({"args": [1, None], "refs": [[0, "object", 3], [1, "object", 5]]}, "takes data for 'val"),
        ({"args": [1, None], "refs": [[1, "object", 3], [2, "object", 5]]}, "no argument at 2"),
        ({"args": [1, None], "refs": [[1, "object", 3], [-1, "object", 5]]}, "no argument at -1"),
        ({"args": [1, None], "refs": [["double", "object", 3]]}, "no argument at 'double'"),
    ],
)
async def test_a_peer_with_wrong_references(call: Any, message: str, autojump_clock: Any) -> None:
    """R19: INVALID_ARGUMENT, and nothing of them stays behind."""
    async with open_against("accepting", serving=Service()) as (connection, peer):
        await peer.says({"type": "call", "id": 1, "method": "twice", **call})
        error = await peer.hears("error")
        assert error["error"]["code"] == "INVALID_ARGUMENT"
        assert message in error["error"]["message"]
        streams = [id for _, kind, id in call.get("refs", ()) if kind == "stream"]
        await peer.says(*({"type": "end", "id": id} for id in streams))
        await quiet()
        assert connection.endpoint.exchanges == {}
        assert connection.endpoint.uploads == 0


async def test_a_late_call_of_a_callback_while_a_connection_closes(autojump_clock: Any) -> None:
    """The call that it came with has ended already."""

    async def slow() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)

    async with open_against() as (connection, peer):

        async def call() -> None:
            with pytest.raises(ConnectionLost):
                await connection.call("m", slow)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            target = (await peer.hears("call"))["refs"][0][2]
            await peer.says({"type": "call", "id": 2, "target": target})
            await quiet()
            nursery.start_soon(connection.aclose)
            await quiet()
            await peer.says({"type": "call", "id": 4, "target": target})
            error = await peer.hears("error")
            assert (error["id"], error["error"]["code"]) == (4, "NOT_FOUND")


async def test_annotations_that_no_callback_can_have(autojump_clock: Any) -> None:
    """They are told when the table is built, however deep they stand."""

    class Nested:
        @rpc
        async def f(self, callback: Callable[[Callable[[int], int]], Awaitable[None]]) -> None: ...

    async with open_ends(Service()) as ends:
        with pytest.raises(TypeError, match=r"Nested\.f\(\).*annotate it as Callable"):
            ends.client.proxy(Nested)


async def test_types_that_nothing_can_encode(autojump_clock: Any, caplog: Any) -> None:
    """They are told before anything is sent, and on the other side end that call alone."""

    class There:
        @rpc
        async def f(self, callback: Callable[[Odd], Awaitable[None]]) -> None: ...

        @rpc
        async def g(self) -> int:
            return 1

    async with open_ends(There()) as ends:
        with pytest.raises(TypeError, match=r"'callback'.*Odd is a type that neither msgspec"):
            ends.client.proxy(There)
        with pytest.raises(InternalError, match="f cannot be called"):
            await ends.client.call("f", double)
        assert await ends.client.call("g") == 1
