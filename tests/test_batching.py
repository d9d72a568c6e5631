"""``batched``: what it keeps, what it closes, and how little it asks for."""

from __future__ import annotations

import contextvars
import gc
import itertools
import logging
import math
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, assert_type

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.ends import Cut, quiet, sweep
from trio_streamrpc import RpcError, Stream, batched, current_call, rpc
from trio_streamrpc.testing import open_pair


class Mine(Exception):
    pass


@dataclass
class Source:
    """A generator that gives a number after each of its pauses, watched."""

    pauses: Sequence[float]
    error: BaseException | None = None
    #: Raised, and awaited, by its cleanup.
    cleanup_error: BaseException | None = None
    cleanup: float = 0
    asked: int = 0
    log: list[str] = field(default_factory=list)

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            for number, pause in enumerate(self.pauses):
                self.asked += 1
                await trio.sleep(pause)
                yield number
            self.asked += 1
            if self.error is not None:
                raise self.error
            self.log.append("end")
        finally:
            try:
                if self.cleanup:
                    await trio.sleep(self.cleanup)
                self.log.append("closed")
            except trio.Cancelled:
                self.log.append("closed in a hurry")
                raise
            finally:
                if self.cleanup_error is not None:
                    raise self.cleanup_error


class Iterator:
    """The same source without the looks of a generator."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.inner: Any = source.items()

    def __aiter__(self) -> Iterator:
        return self

    async def __anext__(self) -> int:
        return await anext(self.inner)

    async def aclose(self) -> None:
        await self.inner.aclose()


class Service:
    def __init__(self, source: Source) -> None:
        self.source = source

    @rpc
    async def items(self) -> AsyncIterator[int]:
        async with aclosing(self.source.items()) as items:
            async for item in items:
                yield item

    @rpc
    async def in_a_block(self) -> AsyncIterator[list[int]]:
        async with batched(self.source.items(), max_items=2, max_delay=1) as batches:
            async for batch in batches:
                yield batch

    @rpc
    async def in_a_loop(self) -> AsyncIterator[list[int]]:
        async for batch in batched(self.source.items(), max_items=2, max_delay=1):
            yield batch

    @rpc
    def returned(self) -> AsyncIterator[list[int]]:
        return batched(self.source.items(), max_items=2, max_delay=1)

    @rpc
    def local(self) -> AsyncIterator[list[int]]:
        return batched(self.held(), max_items=2, max_delay=1)

    @rpc
    async def held(self) -> AsyncIterator[int]:
        """With a nursery open across its yield."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                for number in itertools.count():
                    yield number
            finally:
                await trio.sleep(1)
                self.source.log.append("closed")


@asynccontextmanager
async def open_source(kind: str, source: Source) -> AsyncIterator[AsyncIterable[int]]:
    """A source of each kind; a channel and a stream are fed by the same generator."""
    if kind == "generator":
        yield source.items()
    elif kind == "iterator":
        yield Iterator(source)
    elif kind == "local stream":
        yield Service(source).items()
    elif kind == "stream":
        async with open_pair(Service(source)) as connection:
            yield connection.proxy(Service).items()
    else:
        assert kind == "channel"
        sender, receiver = trio.open_memory_channel[int](0)

        async def send() -> None:
            async with sender, aclosing(source.items()) as items:
                async for item in items:
                    await sender.send(item)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            yield receiver
            nursery.cancel_scope.cancel()


KINDS = ["generator", "iterator", "local stream", "stream", "channel"]
#: Those that run in the consumer's process because they are asked to, and are closed by it.
OWN = ["generator", "iterator", "local stream"]


# --- what is wrong is said


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_items": 0}, ValueError, "max_items is at least 1, not 0"),
        ({"max_items": -1}, ValueError, "max_items is at least 1, not -1"),
        ({"max_items": 1.5}, TypeError, "max_items is a number of items, not 1.5"),
        ({"max_items": True}, TypeError, "max_items is a number of items, not True"),
        ({"max_items": 1, "max_delay": -0.1}, ValueError, "at least 0 seconds, not -0.1"),
        ({"max_items": 1, "max_delay": math.nan}, ValueError, "at least 0 seconds, not nan"),
        ({"max_items": 1, "max_delay": "1"}, TypeError, "seconds or None, not '1'"),
        ({"max_items": 1, "max_delay": True}, TypeError, "seconds or None, not True"),
    ],
)
def test_arguments_that_make_no_sense(arguments, error, message):
    receiver = Source([]).items()
    with pytest.raises(error, match=message):
        batched(receiver, **arguments)


def test_what_is_no_async_iterable():
    with pytest.raises(TypeError, match="takes an async iterable, and list has no __aiter__"):
        batched([1, 2], max_items=1)  # type: ignore[arg-type]


# --- the source fails


@pytest.mark.parametrize("kind", OWN)
async def test_an_error_comes_after_what_came_before_it_and_as_itself(kind, autojump_clock):
    source = Source([0, 0, 0], error=Mine())
    async with open_source(kind, source) as items:
        async with batched(items, max_items=2) as batches:
            assert [await anext(batches), await anext(batches)] == [[0, 1], [2]]
            for _ in range(2):
                with pytest.raises(Mine) as caught:
                    await anext(batches)
                assert caught.value is source.error
            assert source.log == ["closed"]


async def test_an_error_of_a_stream_comes_after_what_came_before_it(autojump_clock):
    source = Source([0, 0, 0], error=Mine())
    async with open_source("stream", source) as items:
        async with batched(items, max_items=2) as batches:
            assert [await anext(batches), await anext(batches)] == [[0, 1], [2]]
            for _ in range(2):
                with pytest.raises(Exception, match="Mine"):
                    await anext(batches)


async def test_what_a_stream_gives_after_an_error(autojump_clock):
    """An item that is not what was declared ends nothing."""

    class Given:
        @rpc
        async def numbers(self) -> AsyncIterator[int | str]:
            for item in (1, 2, "three", 4):
                yield item

    class Declared:
        @rpc
        async def numbers(self) -> AsyncIterator[int]:
            raise NotImplementedError
            yield 0

    async with open_pair(Given()) as connection:
        async with batched(connection.proxy(Declared).numbers(), max_items=9) as batches:
            assert await anext(batches) == [1, 2]
            with pytest.raises(RpcError, match="int"):
                await anext(batches)
            assert await anext(batches) == [4]
            with pytest.raises(StopAsyncIteration):
                await anext(batches)


async def test_a_channel_that_is_closed_by_another():
    taken: list[Any] = []
    sender, receiver = trio.open_memory_channel[int](1)
    sender.send_nowait(0)
    async with sender, batched(receiver, max_items=2) as batches:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_all, batches, taken)
            await quiet()
            receiver.close()
            await quiet()
            assert taken == [[0], "ClosedResourceError"]


@pytest.mark.parametrize("error", [trio.EndOfChannel(), KeyboardInterrupt(), SystemExit()])
async def test_no_error_is_taken_for_the_end(error):
    source = Source([0], error=error)
    async with batched(source.items(), max_items=2) as batches:
        assert await anext(batches) == [0]
        with pytest.raises(type(error)) as caught:
            await anext(batches)
        assert caught.value is error


async def test_a_group_of_the_sources_own_stays_one():
    group = ExceptionGroup("mine", [Mine(), Mine()])
    async with batched(Source([], error=group).items(), max_items=2) as batches:
        with pytest.raises(ExceptionGroup) as caught:
            await anext(batches)
    assert caught.value is group


async def test_an_error_that_was_not_asked_for_is_logged(caplog, autojump_clock):
    """It is no cleanup that failed: whoever leaves the block does not care."""
    async with batched(fail_later(), max_items=2, max_delay=1) as batches:
        assert await anext(batches) == [0]
        await trio.sleep(10)
        assert caplog.records == []
    (record,) = caplog.records
    assert record.name == "trio_streamrpc"
    assert isinstance(record.exc_info[1], Mine)


async def fail_later() -> AsyncIterator[int]:
    yield 0
    await trio.sleep(5)
    raise Mine


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_that_was_not_asked_for_is_raised(error, autojump_clock):
    async def items() -> AsyncIterator[int]:
        yield 0
        await trio.sleep(5)
        raise error

    with pytest.raises(error):
        async with batched(items(), max_items=2, max_delay=1) as batches:
            assert await anext(batches) == [0]
            await trio.sleep(10)


# --- the block is left


@pytest.mark.parametrize("kind", OWN)
async def test_leaving_the_block_closes_the_source_at_its_yield(kind, autojump_clock):
    """Nothing is cancelled, so that its finally may await."""
    source = Source([0] * 9, cleanup=10)
    async with open_source(kind, source) as items:
        async with batched(items, max_items=2) as batches:
            assert await anext(batches) == [0, 1]
            assert trio.current_time() == 0
        assert source.log == ["closed"]
        assert trio.current_time() == 10


@pytest.mark.parametrize("kind", OWN)
async def test_leaving_the_block_cancels_the_source_in_its_await(kind, autojump_clock):
    source = Source([0, 100], cleanup=10)
    async with open_source(kind, source) as items:
        async with batched(items, max_items=2, max_delay=1) as batches:
            assert await anext(batches) == [0]
        assert source.log == ["closed in a hurry"]
        assert trio.current_time() == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pauses", [[0.0] * 9, [0.0, 100.0]])
async def test_leaving_the_block_by_an_error(kind, pauses, autojump_clock):
    source = Source(pauses)
    async with open_source(kind, source) as items:
        error = Mine()
        with pytest.raises(Mine) as caught:
            async with batched(items, max_items=2, max_delay=1) as batches:
                await anext(batches)
                raise error
        assert caught.value is error
        if kind != "channel":
            assert source.log[-1] == "closed"
        else:
            with pytest.raises(trio.ClosedResourceError):
                items.receive_nowait()  # type: ignore[attr-defined]


async def test_what_cleanup_raises_comes_out_of_the_block(autojump_clock):
    for pauses in ([0.0] * 9, [0.0, 100.0]):
        source = Source(pauses, cleanup_error=Mine())
        with pytest.raises(Mine) as caught:
            async with batched(source.items(), max_items=2, max_delay=1) as batches:
                await anext(batches)
        assert caught.value is source.cleanup_error
        await batches.aclose()  # it is told once


async def test_what_cleanup_raises_in_a_cancelled_block(autojump_clock):
    source = Source([0, 100], cleanup_error=Mine())
    with trio.move_on_after(2):
        with pytest.raises(Mine):
            async with batched(source.items(), max_items=2, max_delay=1) as batches:
                await anext(batches)
                await trio.sleep_forever()
    assert source.log == ["closed"]


@pytest.mark.parametrize("kind", OWN)
async def test_a_cancelled_block_waits_for_the_source_in_a_hurry(kind, autojump_clock):
    source = Source([0] * 9, cleanup=10)
    async with open_source(kind, source) as items:
        with trio.move_on_after(2) as scope:
            async with batched(items, max_items=2) as batches:
                await anext(batches)
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert source.log == ["closed in a hurry"]
        assert trio.current_time() == 2


async def test_a_cancelled_block_waits_for_what_the_source_shields(autojump_clock):
    log = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 0
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)
            log.append("closed")

    with trio.move_on_after(2):
        async with batched(items(), max_items=2, max_delay=1) as batches:
            await anext(batches)
            await trio.sleep_forever()
    assert log == ["closed"]
    assert trio.current_time() == 12


async def test_a_close_that_is_cancelled_while_it_waits(autojump_clock):
    source = Source([0] * 9, cleanup=10)
    batches = batched(source.items(), max_items=2)
    await anext(batches)
    with trio.move_on_after(3) as scope:
        await batches.aclose()
    assert scope.cancelled_caught
    assert source.log == ["closed in a hurry"]
    assert trio.current_time() == 3


async def test_a_source_that_yields_while_it_is_cancelled(caplog, autojump_clock):
    log = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 0
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                yield 1
        finally:
            log.append("closed")

    async with batched(items(), max_items=2, max_delay=1) as batches:
        assert await anext(batches) == [0]
    assert log == ["closed"]


@pytest.mark.parametrize("kind", OWN)
async def test_a_block_without_a_receive_closes_the_source(kind):
    source = Source([0])
    async with open_source(kind, source) as items:
        async with batched(items, max_items=2) as batches:
            pass
        with pytest.raises(trio.ClosedResourceError):
            await anext(batches)
        assert source.asked == 0
        with pytest.raises(StopAsyncIteration):
            await anext(aiter(getattr(items, "iterator", items)))


async def test_what_an_iterator_raises_that_is_closed_before_its_first_item():
    class Failing(Iterator):
        async def aclose(self) -> None:
            raise Mine

    batches = batched(Failing(Source([])), max_items=2)
    with pytest.raises(Mine):
        await batches.aclose()
    await batches.aclose()


async def test_who_waits_hears_of_the_close_before_the_cleanup_has_run(autojump_clock):
    async def items() -> AsyncIterator[int]:
        try:
            yield await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)

    batches = batched(items(), max_items=2)
    async with trio.open_nursery() as nursery:

        async def take() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await anext(batches)
            assert trio.current_time() == 1

        nursery.start_soon(take)
        await trio.sleep(1)
        await batches.aclose()
        assert trio.current_time() == 11


async def take_all(batches: AsyncIterator[list[int]], taken: list[Any]) -> None:
    try:
        async for batch in batches:
            taken.append(batch)  # noqa: PERF401  # counts, however it ends
    except trio.ClosedResourceError as error:
        taken.append(type(error).__name__)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_delay", [0, 1, None])
async def test_closing_wakes_those_who_wait(kind, max_delay, autojump_clock):
    async with open_source(kind, Source([100])) as items:
        batches = batched(items, max_items=2, max_delay=max_delay)
        first: list[Any] = []
        second: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_all, batches, first)
            nursery.start_soon(take_all, batches, second)
            await trio.sleep(1)
            async with trio.open_nursery() as closers:
                closers.start_soon(batches.aclose)
                closers.start_soon(batches.aclose)
        assert first == second == ["ClosedResourceError"]
        with pytest.raises(trio.ClosedResourceError):
            await anext(batches)
        with pytest.raises(trio.ClosedResourceError):
            await batches.receive()


# --- nobody closes it


@pytest.mark.parametrize("pauses", [[0.0] * 9, [0.0, 100.0]])
async def test_a_loop_that_is_left_closes_its_source_when_it_is_collected(pauses, autojump_clock):
    source = Source(pauses)
    async for _ in batched(source.items(), max_items=2, max_delay=1):
        break
    gc.collect()
    await quiet()
    assert source.log == ["closed"]


async def test_what_cleanup_raises_when_nobody_is_left_is_logged(caplog):
    source = Source([0] * 9, cleanup_error=Mine())
    async for _ in batched(source.items(), max_items=2):
        break
    gc.collect()
    await quiet()
    (record,) = caplog.records
    assert record.name == "trio_streamrpc"
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is source.cleanup_error


async def test_an_error_that_nobody_is_left_to_hear_is_logged(caplog, autojump_clock):
    async for _ in batched(fail_later(), max_items=2, max_delay=1):
        await trio.sleep(10)
        assert caplog.records == []
        break
    gc.collect()
    await quiet()
    (record,) = caplog.records
    assert isinstance(record.exc_info[1], Mine)


async def test_an_error_that_was_heard_is_not_logged(caplog):
    with pytest.raises(Mine):
        async for _ in batched(Source([0], error=Mine()).items(), max_items=2):
            pass
    gc.collect()
    await quiet()
    assert caplog.records == []


@pytest.mark.parametrize("kind", ["in_a_block", "in_a_loop"])
async def test_a_generator_that_is_dropped_at_its_yield(kind):
    """Trio closes it in another task, which must not find a nursery open."""
    source = Source([0] * 9)

    @asynccontextmanager
    async def dropping() -> AsyncIterator[None]:
        held: list[Any] = [getattr(Service(source), kind)().iterator]
        assert await anext(held[0]) == [0, 1]
        with pytest.warns(ResourceWarning, match="was garbage collected before"):
            held.clear()
        yield

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        async with dropping():
            await quiet()
            assert source.log == ["closed"]
        nursery.cancel_scope.cancel()


async def test_collected_in_another_thread():
    source = Source([0] * 9)
    held: list[Any] = [batched(source.items(), max_items=2)]
    await anext(held[0])
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    await quiet()
    assert source.log == ["closed"]


@pytest.mark.parametrize("pauses", [[0.0] * 9, [0.0, 100.0]])
def test_the_end_of_the_run_closes_the_source(pauses, caplog):
    source = Source(pauses)
    held: list[Any] = []

    async def main() -> None:
        held.append(batched(source.items(), max_items=2, max_delay=1))
        await anext(held[0])

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert source.log == ["closed"]
    assert caplog.records == []


def test_collected_after_the_run():
    held: list[Any] = []

    async def main() -> None:
        held.append(batched(fail_later(), max_items=2, max_delay=1))
        await anext(held[0])
        await trio.sleep(10)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    held.clear()  # an error that is raised here would be a warning


def test_the_end_of_the_run_and_a_source_with_tasks_of_its_own(caplog):
    async def items() -> AsyncIterator[int]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)
            yield 0
            await trio.sleep_forever()

    async def main() -> None:
        async for batch in batched(items(), max_items=2, max_delay=1):
            assert batch == [0]
            return

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert caplog.records == []


def test_an_exit_that_nobody_is_left_to_hear_ends_the_run(autojump_clock):
    async def main() -> None:
        async for _ in batched(Source([0] * 9, cleanup_error=SystemExit()).items(), max_items=2):
            break
        gc.collect()
        await trio.sleep_forever()

    with pytest.raises(trio.TrioInternalError) as caught:
        trio.run(main)
    assert isinstance(caught.value.__cause__, BaseExceptionGroup)
    assert caught.value.__cause__.split(SystemExit)[0] is not None


async def test_a_generator_that_is_finished_after_the_run(autojump_clock):
    """When system tasks are over, a source that has not started can still be closed."""
    log: list[str] = []

    async def outer() -> AsyncIterator[int]:
        batches = batched(Source([0]).items(), max_items=2)
        try:
            yield 0
        finally:
            with trio.CancelScope(shield=True):
                try:
                    await anext(batches)
                except RuntimeError as error:
                    log.append(str(error))
                await batches.aclose()
            log.append("closed")

    def run() -> None:
        held: list[Any] = []

        async def main() -> None:
            held.append(outer())
            assert await anext(held[0]) == 0

        trio.run(main)

    await trio.to_thread.run_sync(run)
    assert log == ["Nursery is closed to new arrivals", "closed"]


# --- what a source holds open across its yield


async def test_a_deadline_of_the_source_strikes_at_its_yield(autojump_clock):
    log = []

    async def items() -> AsyncIterator[int]:
        with trio.move_on_after(5) as scope:
            yield 0
            yield 1
        log.append(scope.cancelled_caught)
        yield 2

    async with batched(items(), max_items=1) as batches:
        assert await anext(batches) == [0]
        await trio.sleep(10)
        assert log == [True]
        assert await anext(batches) == [2]
        with pytest.raises(StopAsyncIteration):
            await anext(batches)


async def test_a_deadline_of_the_source_may_be_its_end(autojump_clock):
    async def items() -> AsyncIterator[int]:
        with trio.move_on_after(5):
            yield 0

    async with batched(items(), max_items=1) as batches:
        assert await anext(batches) == [0]
        await trio.sleep(10)
        with pytest.raises(StopAsyncIteration):
            await anext(batches)


async def test_a_task_of_the_source_that_fails_while_it_stands(autojump_clock):
    async def fail() -> None:
        await trio.sleep(5)
        raise Mine

    async def items() -> AsyncIterator[int]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            yield 0

    async with batched(items(), max_items=1) as batches:
        assert await anext(batches) == [0]
        await trio.sleep(10)
        with pytest.raises(ExceptionGroup) as caught:
            await anext(batches)
    assert caught.group_contains(Mine)


async def test_a_local_stream_is_told_at_its_yield_too(autojump_clock):
    class Timed:
        @rpc
        async def items(self) -> AsyncIterator[int]:
            with trio.move_on_after(5):
                yield 0
            yield 1

    async with batched(Timed().items(), max_items=1) as batches:
        assert await anext(batches) == [0]
        await trio.sleep(10)
        assert [batch async for batch in batches] == [[1]]


async def stubborn() -> AsyncIterator[int]:
    """It yields whatever it is told."""
    with trio.move_on_after(5):
        while True:
            try:
                yield 0
            except trio.Cancelled:
                yield 1


async def test_a_source_that_yields_whatever_it_is_told_does_not_spin(autojump_clock):
    async with batched(stubborn(), max_items=3) as batches:
        assert await anext(batches) == [0, 0, 0]
        await trio.sleep(10)
        # One step of the source's for each cancellation, and one cancellation for each step.
        assert await anext(batches) == [1, 0, 0]
        await trio.sleep(10)
        assert await anext(batches) == [1, 0, 0]


def test_the_end_of_the_run_and_a_source_that_yields_whatever_it_is_told(caplog):
    held: list[Any] = []

    async def main() -> None:
        held.append(batched(stubborn(), max_items=3))
        await anext(held[0])
        await trio.sleep(10)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert caplog.records == []


async def test_a_source_with_a_deadline_for_each_item(autojump_clock):
    async def items() -> AsyncIterator[int]:
        for number in range(6):
            with trio.move_on_after(5):
                yield number

    taken = []
    before = trio.lowlevel.current_statistics().tasks_living
    async with batched(items(), max_items=1) as batches:
        async for batch in batches:
            taken += batch
            # Long enough for several deadlines: while its answer waits, it is not told again.
            await trio.sleep(20)
            assert trio.lowlevel.current_statistics().tasks_living <= before + 2
    assert taken == list(range(6))


async def test_a_source_that_yields_once_more_goes_on(autojump_clock):
    async def items() -> AsyncIterator[int]:
        with trio.move_on_after(5) as scope:
            try:
                yield 0
            finally:
                scope.shield = True
                scope.deadline = math.inf
        yield 1
        yield 2

    async with batched(items(), max_items=1) as batches:
        taken = [await anext(batches)]
        await trio.sleep(10)
        taken += [batch async for batch in batches]
    assert taken == [[0], [1], [2]]


async def test_an_iterator_that_nothing_can_be_thrown_into(autojump_clock):
    class Held(Iterator):
        scope: trio.CancelScope

        async def __anext__(self) -> int:
            if self.source.asked == 0:
                self.scope = trio.CancelScope(deadline=5)
                self.scope.__enter__()
            return await super().__anext__()

        async def aclose(self) -> None:
            self.scope.__exit__(None, None, None)
            await super().aclose()

    source = Source([0] * 9)
    async with batched(Held(source), max_items=2) as batches:
        assert await anext(batches) == [0, 1]
        await trio.sleep(10)
        assert source.log == ["closed"]
        with pytest.raises(trio.BrokenResourceError, match="cancelled"):
            await anext(batches)


# --- cancelled receives


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_delay", [0, 1, None])
async def test_a_cancelled_receive_loses_nothing(kind, max_delay, autojump_clock):
    source = Source([0.3] * 20)
    async with open_source(kind, source) as items:
        async with batched(items, max_items=3, max_delay=max_delay) as batches:
            taken: list[int] = []
            while len(taken) < 20:
                with trio.move_on_after(0.4):
                    taken += await batches.receive()
    assert taken == list(range(20))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_batch_goes_on_with_its_time_after_a_cancelled_receive(kind, autojump_clock):
    async with open_source(kind, Source([1, 1, 100])) as items:
        async with batched(items, max_items=5, max_delay=3) as batches:
            with trio.move_on_after(1.5):
                await batches.receive()
            assert trio.current_time() == 1.5
            # Its first item came at 1.
            assert await batches.receive() == [0, 1]
            assert trio.current_time() == 4


@asynccontextmanager
async def open_clock(clock: trio.testing.MockClock) -> AsyncIterator[None]:
    """Time that passes with the steps of the scheduler: what counts those leaves no pause."""

    async def tick() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            clock.jump(0.025)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_delay", [0, 0.1])
async def test_receive_cancelled_at_every_step(kind, max_delay, mock_clock):
    async def attempt(cut: Cut) -> bool:
        source = Source([0.1, 0, 0.1, 0, 0, 0.2, 0])
        taken: list[int] = []
        async with open_clock(mock_clock), open_source(kind, source) as items:
            async with batched(items, max_items=2, max_delay=max_delay) as batches:
                with cut.arm() as scope:
                    async for batch in batches:
                        taken += batch
                async for batch in batches:
                    taken += batch
        assert taken == list(range(7))
        return not scope.cancelled_caught

    await sweep(attempt, at_least=8)


@pytest.mark.parametrize("kind", OWN)
async def test_a_block_cancelled_at_every_step_has_closed_its_source(kind, mock_clock):
    def source_of() -> Source:
        return Source([0.1, 0, 0.1, 0, 0, 0.2, 0], cleanup=0.2)

    async def attempt(cut: Cut) -> bool:
        before = trio.lowlevel.current_statistics().tasks_living
        async with open_clock(mock_clock), open_source(kind, source := source_of()) as items:
            with cut.arm() as scope:
                async with batched(items, max_items=2, max_delay=0.1) as batches:
                    async for batch in batches:
                        if 3 in batch:
                            break
            assert source.asked == 0 or source.log in (["closed"], ["closed in a hurry"])
        # The one of the cut may have ended since.
        assert trio.lowlevel.current_statistics().tasks_living <= before + 1
        return not scope.cancelled_caught

    await sweep(attempt, at_least=8)


# --- when a batch ends


@dataclass
class Times:
    """When which batch came."""

    batches: list[tuple[float, list[int]]] = field(default_factory=list)

    async def take(self, batches: AsyncIterator[list[int]], pause: float = 0) -> None:
        async for batch in batches:
            self.batches.append((trio.current_time(), batch))
            await trio.sleep(pause)


async def times(kind: str, pauses: list[float], pause: float = 0, **arguments: Any) -> Any:
    taken = Times()
    async with open_source(kind, Source(pauses)) as items:
        await taken.take(batched(items, **arguments), pause)
    return taken.batches


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_but_the_number_and_the_end(kind, autojump_clock):
    assert await times(kind, [1] * 5, max_items=2) == [(2, [0, 1]), (4, [2, 3]), (5, [4])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_delay", [math.inf, 100])
async def test_the_end_does_not_wait_for_the_delay(kind, max_delay, autojump_clock):
    assert await times(kind, [1] * 3, max_items=9, max_delay=max_delay) == [(3, [0, 1, 2])]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_delay_counts_from_the_first_item(kind, autojump_clock):
    # At 5, 6, 7.5, 15 and 15.
    taken = await times(kind, [5, 1, 1.5, 7.5, 0], max_items=9, max_delay=2)
    assert taken == [(7, [0, 1]), (9.5, [2]), (15, [3, 4])]


@pytest.mark.parametrize("kind", KINDS)
async def test_without_delay_all_that_is_there_at_once(kind, autojump_clock):
    taken = await times(kind, [1, 0, 0, 1, 1, 0], max_items=9, max_delay=0)
    assert taken == [(1, [0, 1, 2]), (2, [3]), (3, [4, 5])]
    taken = await times(kind, [0] * 5, max_items=2, max_delay=0)
    assert [batch for _, batch in taken] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_at_all(kind, autojump_clock):
    assert await times(kind, [], max_items=2) == []
    async with open_source(kind, Source([])) as items:
        batches = batched(items, max_items=2)
        for _ in range(2):
            with pytest.raises(trio.EndOfChannel):
                await batches.receive()
        await batches.aclose()


async def test_what_ends_a_batch_without_delay_ends_with_it(autojump_clock):
    async def items() -> AsyncIterator[int]:
        for number in range(2000):
            await trio.lowlevel.checkpoint()
            yield number

    before = trio.lowlevel.current_statistics().tasks_living
    async with batched(items(), max_items=7, max_delay=0) as batches:
        async for _ in batches:
            assert trio.lowlevel.current_statistics().tasks_living <= before + 5


async def test_a_batch_that_is_asked_for_late_takes_what_is_there(autojump_clock):
    """The item that was waited for when the batch before was due came while nobody asked."""
    taken = await times("generator", [0, 2, 0, 0, 1, 9], pause=5, max_items=9, max_delay=1)
    assert taken == [(1, [0]), (6, [1, 2, 3]), (11, [4]), (20, [5])]


async def test_a_batch_that_is_asked_for_late_ends_all_the_same(autojump_clock):
    """A source that never waits, and takes its time."""

    async def items() -> AsyncIterator[int]:
        for number in range(8):
            if number == 1:
                await trio.sleep(2)
            elif number:
                autojump_clock.jump(1)
            yield number

    taken = Times()
    await taken.take(batched(items(), max_items=9, max_delay=1.5), pause=8)
    assert taken.batches[:2] == [(1.5, [0]), (11.5, [1, 2, 3])]
    assert [item for _, batch in taken.batches for item in batch] == list(range(8))


async def test_a_source_that_never_waits(autojump_clock):
    async def items() -> AsyncIterator[int]:
        for number in range(5):
            autojump_clock.jump(1)
            yield number

    taken = Times()
    await taken.take(batched(items(), max_items=9, max_delay=2))
    assert taken.batches == [(3, [0, 1, 2]), (5, [3, 4])]


# --- how much is asked for


async def test_the_source_rests_while_nobody_waits(autojump_clock):
    source = Source([0.5] * 100)
    async with batched(source.items(), max_items=3, max_delay=100) as batches:
        await trio.sleep(5)
        assert source.asked == 0
        for count in range(1, 4):
            assert len(await anext(batches)) == 3
            await trio.sleep(5)
            assert source.asked == 3 * count


async def test_one_item_more_than_came_is_asked_for(autojump_clock):
    source = Source([0.5] * 100)
    async with batched(source.items(), max_items=3, max_delay=0.7) as batches:
        assert await anext(batches) == [0, 1]
        await trio.sleep(5)
        assert source.asked == 3
        assert await anext(batches) == [2]
        with trio.move_on_after(0.1):
            await anext(batches)
        await trio.sleep(5)
        assert source.asked == 4


async def test_a_channel_is_not_asked_for_more(autojump_clock):
    sender, receiver = trio.open_memory_channel[int](0)
    async with batched(receiver.clone(), max_items=3, max_delay=1) as batches, receiver:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.send, 0)
            assert await anext(batches) == [0]
        with pytest.raises(trio.WouldBlock):
            sender.send_nowait(1)
    sender.close()


async def test_a_channel_and_a_stream_need_no_task(autojump_clock):
    for kind in ("channel", "stream"):
        async with open_source(kind, Source([0, 100])) as items:
            await quiet()
            if isinstance(items, Stream):
                await items.__aenter__()
            await quiet()
            before = trio.lowlevel.current_statistics().tasks_living
            async with batched(items, max_items=3, max_delay=1) as batches:
                assert await anext(batches) == [0]
                assert trio.lowlevel.current_statistics().tasks_living == before


# --- whoever receives


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_delay", [0, 1, None])
async def test_several_tasks_take_turns(kind, max_delay, autojump_clock):
    async with open_source(kind, Source([0.3] * 50)) as items:
        async with batched(items, max_items=4, max_delay=max_delay) as batches:
            taken: list[list[int]] = []
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(take_all, batches, taken)
    assert [item for batch in taken for item in batch] == list(range(50))


@pytest.mark.parametrize("kind", KINDS)
async def test_everything_is_a_checkpoint(kind, autojump_clock):
    async with open_source(kind, Source([0] * 4)) as items:
        batches = batched(items, max_items=2)
        taken = []
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                taken.append(await anext(batches))
        assert taken == [[0, 1], [2, 3]]
        for _ in range(2):
            with trio.testing.assert_checkpoints(), pytest.raises(StopAsyncIteration):
                await anext(batches)
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await batches.aclose()
        with trio.testing.assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await anext(batches)


@pytest.mark.parametrize("kind", OWN)
async def test_closing_before_the_first_item_is_a_checkpoint(kind):
    async with open_source(kind, Source([0] * 4)) as items:
        batches = batched(items, max_items=2)
        with trio.testing.assert_checkpoints():
            await batches.aclose()


async def test_the_source_sees_the_context_of_its_consumer():
    variable = contextvars.ContextVar("variable", default="nothing")

    async def items() -> AsyncIterator[str]:
        yield variable.get()
        variable.set("the source's")

    variable.set("the consumer's")
    assert [batch async for batch in batched(items(), max_items=9)] == [["the consumer's"]]
    assert variable.get() == "the consumer's"


async def test_the_source_can_be_interrupted_like_code_of_its_consumer():
    """System tasks are protected from KeyboardInterrupt."""

    async def items() -> AsyncIterator[bool]:
        yield trio.lowlevel.currently_ki_protected()

    protected = trio.lowlevel.currently_ki_protected()
    assert [batch async for batch in batched(items(), max_items=9)] == [[protected]]
    assert not protected


async def test_batches_of_batches(autojump_clock):
    inner = batched(Source([0] * 3 + [1] * 5).items(), max_items=2, max_delay=0)
    async with batched(inner, max_items=2, max_delay=2) as batches:
        taken = [batch async for batch in batches]
    assert taken == [[[0, 1], [2]], [[3], [4]], [[5], [6]], [[7]]]


async def test_what_a_type_checker_sees(autojump_clock):
    source = Source([0])
    batches = batched(source.items(), max_items=2)
    assert_type(batches, trio.abc.ReceiveChannel[list[int]])
    async with batches as entered:
        async for batch in entered:
            assert_type(batch, list[int])


# --- in a handler


FORMS: list[Callable[[Any], Any]] = [
    lambda api: api.in_a_block(),
    lambda api: api.returned(),
    lambda api: api.local(),
]


@pytest.mark.parametrize("form", FORMS, ids=["in a block", "returned", "of a local stream"])
async def test_leaving_a_call_waits_for_the_source(form, autojump_clock):
    """R7: the final frame of the call is the proof, at a yield and in an await alike."""
    for pauses in ([0.0] * 10_000, [0.0, 1000.0], [1000.0]):
        source = Source(pauses)
        async with open_pair(Service(source)) as connection:
            async with form(connection.proxy(Service)) as stream:
                with trio.move_on_after(5):
                    assert await anext(stream) in ([0, 1], [0])
                    await quiet()
            assert source.log == ["closed"]


async def test_leaving_a_call_whose_handler_has_no_block_closes_the_source(autojump_clock):
    """Not before the call ends: nobody waits for it."""
    source = Source([0] * 100)
    async with open_pair(Service(source)) as connection:
        async with connection.proxy(Service).in_a_loop() as stream:
            assert await anext(stream) == [0, 1]
        gc.collect()
        await quiet()
        assert source.log == ["closed"]


@pytest.mark.parametrize(
    "form",
    [*FORMS[:2], lambda api: api.in_a_loop()],
    ids=["in a block", "returned", "in a loop"],
)
async def test_a_call_that_is_read_to_its_end(form, autojump_clock):
    source = Source([0] * 5)
    async with open_pair(Service(source)) as connection:
        async with form(connection.proxy(Service)) as stream:
            assert [batch async for batch in stream] == [[0, 1], [2, 3], [4]]
            assert source.log == ["end", "closed"]


async def test_what_cleanup_raises_is_told_to_the_caller(autojump_clock):
    for form in FORMS[:2]:
        source = Source([0] * 100, cleanup_error=Mine("mine"))
        async with open_pair(Service(source)) as connection:
            with pytest.raises(Exception, match="mine"):
                async with form(connection.proxy(Service)) as stream:
                    assert await anext(stream) == [0, 1]


async def test_a_source_knows_the_call_that_it_runs_for(autojump_clock):
    class Named:
        async def names(self) -> AsyncIterator[str]:
            yield current_call().method

        @rpc
        def named(self) -> AsyncIterator[list[str]]:
            return batched(self.names(), max_items=2)

    async with open_pair(Named()) as connection:
        async with connection.proxy(Named).named() as stream:
            assert await anext(stream) == ["named"]


# --- any schedule


schedules = st.lists(st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 3.0]), max_size=30)


@given(
    kind=st.sampled_from(["generator", "iterator", "channel"]),
    pauses=schedules,
    max_items=st.integers(1, 7),
    max_delay=st.none() | st.sampled_from([0, 0.3, 0.5, 1.0, 2.0]),
    patience=st.none() | st.sampled_from([0.1, 0.4, 0.9]),
    busy=schedules,
)
def test_any_schedule(kind, pauses, max_items, max_delay, patience, busy):
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(follow, kind, pauses, max_items, max_delay, patience, busy, clock=clock)


async def follow(
    kind: str,
    pauses: list[float],
    max_items: int,
    max_delay: float | None,
    patience: float | None,
    busy: list[float],
) -> None:
    """Each item once, in order, none kept longer than it may be from one who waits for it."""
    source = Source(pauses)
    came: list[float] = []
    taken: list[int] = []

    async def noting(items: AsyncGenerator[int, None]) -> AsyncGenerator[int, None]:
        async with aclosing(items):
            async for item in items:
                came.append(trio.current_time())
                yield item

    def arrived(item: int, *, late: bool) -> float:
        """When it came: not before it was waited for, if it lay in a channel."""
        for start, end in waits if kind == "channel" else []:
            if end > came[item] or (end == came[item] and not late):
                return max(start, came[item])
        return came[item]

    waits: list[tuple[float, float]] = []
    resting = list(busy)
    inner = source.items()
    source.items = lambda: noting(inner)  # type: ignore[method-assign]  # what is noted is a source
    async with open_source(kind, source) as items:
        async with batched(items, max_items=max_items, max_delay=max_delay) as batches:
            while True:
                asked = trio.current_time()
                batch = None
                with trio.move_on_after(math.inf if patience is None else patience):
                    try:
                        batch = await batches.receive()
                    except trio.EndOfChannel:
                        break
                now = trio.current_time()
                waits.append((asked, now))
                if batch is not None:
                    assert 1 <= len(batch) <= max_items
                    if max_delay is not None:
                        assert now <= max(asked, arrived(batch[0], late=True) + max_delay)
                        # Nor is it cut short.
                        whole = len(batch) == max_items or len(taken + batch) == len(pauses)
                        assert whole or now >= arrived(batch[0], late=False) + max_delay
                    taken += batch
                await trio.sleep(resting.pop() if resting else 0)
    assert taken == list(range(len(pauses)))
