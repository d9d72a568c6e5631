"""interceptors.py: authorize, log_calls, limit_concurrency and limit_rate, on either side."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.runtime.ends import Cut, open_ends, quiet, sweep
from tests.runtime.onions import ONE, wrapping
from trio_streamrpc import (
    Call,
    Handshake,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    RpcError,
    Unauthenticated,
    Unimplemented,
    rpc,
)
from trio_streamrpc.interceptors import authorize, limit_concurrency, limit_rate, log_calls
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.testing import open_pair

SIDES = pytest.mark.parametrize("side", ["interceptors", "client_interceptors"])


class Thing:
    @rpc
    async def touch(self) -> None:
        await trio.sleep(1)


class History:
    @rpc
    async def query(self, seconds: float = 1) -> None:
        await trio.sleep(seconds)

    @rpc
    async def all(self) -> None:
        await trio.sleep(1)


class Service:
    """It notes how many of its methods run at once, and when they began."""

    def __init__(self) -> None:
        self.history = History()
        self.running = 0
        self.peak = 0
        self.began: list[float] = []
        self.tags: list[int] = []

    def _begin(self) -> None:
        self.began.append(trio.current_time())
        self.running += 1
        self.peak = max(self.peak, self.running)

    @rpc
    async def work(self, seconds: float = 1, tag: int = 0) -> float:
        self.tags.append(tag)
        self._begin()
        try:
            await trio.sleep(seconds)
            return seconds
        finally:
            self.running -= 1

    @rpc
    async def other(self) -> None:
        await self.work()

    @rpc
    async def fail(self, how: str) -> None:
        await trio.sleep(1)
        if how == "not found":
            raise NotFound("secret")
        raise ValueError("secret")

    @rpc
    async def ticks(self, number: int, pause: float = 1) -> AsyncIterator[int]:
        self._begin()
        try:
            for each in range(number):
                if pause:
                    await trio.sleep(pause)
                yield each
        finally:
            self.running -= 1

    @rpc
    async def torn(self) -> AsyncIterator[int]:
        yield 1
        raise NotFound("secret")

    @rpc
    @asynccontextmanager
    async def thing(self, fail: bool = False) -> AsyncIterator[Thing]:
        self._begin()
        try:
            if fail:
                raise NotFound("secret")
            yield Thing()
        finally:
            self.running -= 1

    @rpc
    async def task(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        self._begin()
        task_status.started(5)
        await trio.sleep(2)
        self.running -= 1


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO)

    def lines() -> list[str]:
        found = [each.message for each in caplog.records if each.name.endswith(".calls")]
        caplog.clear()
        return found

    return lines


def opened(side: str, service: object, interceptors: list[Any]) -> Any:
    """Both ends of a connection, with interceptors on one side."""
    if side == "interceptors":
        return open_ends(service, interceptors=interceptors)
    return open_ends(service, client_interceptors=interceptors)


async def refusing(call: Call, proceed: Any) -> Any:
    """An interceptor that changes its mind."""
    await proceed()
    raise PermissionDenied("after all")


# --- log_calls


@SIDES
async def test_one_line_for_each_call_when_it_has_ended(side, lines, autojump_clock):
    async with opened(side, Service(), [log_calls()]) as ends:
        await ends.client.call("work", 1.5)
        assert lines() == ["work ok in 1.500 s"]
        for how, outcome in (("not found", "NOT_FOUND (NotFound)"), ("x", "UNKNOWN (ValueError)")):
            with pytest.raises(RpcError):
                await ends.client.call("fail", how)
            assert lines() == [f"fail {outcome} in 1.000 s"]
        with trio.move_on_after(2):
            await ends.client.call("work", 5)
        await quiet()
        assert lines() == ["work cancelled in 2.000 s"]
        await ends.client.call("history.query")
        assert lines() == ["history.query ok in 1.000 s"]


@SIDES
async def test_a_line_for_a_stream_when_it_has_ended(side, lines, autojump_clock):
    async with opened(side, Service(), [log_calls()]) as ends:
        async with ends.client.stream("ticks", 3) as stream:
            assert await stream.receive() == 0
            assert lines() == []
            assert [item async for item in stream] == [1, 2]
            assert lines() == ["ticks ok in 3.000 s, 3 items"]
        async with ends.client.stream("torn") as stream:
            with pytest.raises(NotFound):
                assert [item async for item in stream] == []
        assert lines() == ["torn NOT_FOUND (NotFound) in 0.000 s, 1 items"]
        async with ends.client.stream("ticks", 2, 0, window=ONE) as stream:
            assert await stream.receive() == 0
        assert lines()[0].startswith("ticks ok in 0.000 s, ")
        with trio.move_on_after(3):
            async with ends.client.stream("ticks", 9, 2) as stream:
                async for _ in stream:
                    pass
        await quiet()
        assert lines() == ["ticks cancelled in 3.000 s, 1 items"]
        with pytest.raises(ZeroDivisionError):
            async with ends.client.stream("ticks", 9, 0, window=ONE) as stream:
                await stream.receive()
                raise ZeroDivisionError
        assert len(lines()) == 1


async def test_a_stream_that_is_logged_where_it_is_called_is_as_it_was(lines, autojump_clock):
    async with open_ends(Service(), client_interceptors=[log_calls(), log_calls()]) as ends:
        async with ends.client.stream("ticks", 4, 0) as stream:
            await quiet()
            batches = stream.batches()
            assert await anext(batches) == [0, 1, 2, 3]
            assert stream.statistics().items_received == 4
            assert [batch async for batch in batches] == []
        assert lines() == ["ticks ok in 0.000 s, 4 items"] * 2
        async with ends.client.stream("torn") as stream:
            with pytest.raises(NotFound):
                assert [batch async for batch in stream.batches()] == []
        assert lines() == ["torn NOT_FOUND (NotFound) in 0.000 s, 1 items"] * 2
        async with ends.client.stream("ticks", 3) as stream:
            found = []
            for _ in range(4):
                with trio.move_on_after(0.8):
                    found.append(await stream.receive())
            found += [item async for item in stream]
            assert found == [0, 1, 2]
            with pytest.raises(trio.EndOfChannel):
                await stream.receive()
        assert lines() == ["ticks ok in 3.000 s, 3 items"] * 2
        gc.collect()
        async for _ in ends.client.stream("ticks", 1000, 0, window=ONE):
            break
        await quiet()
        assert lines() == ["ticks cancelled in 0.000 s, 1 items"] * 2
        async with ends.client.stream("ticks", 3) as stream:
            with trio.move_on_after(0.5):
                await stream.receive()
        assert lines() == ["ticks cancelled in 0.500 s, 0 items"] * 2
    for interceptors in ([log_calls(), wrapping], [wrapping, log_calls()]):
        async with open_ends(Service(), client_interceptors=interceptors) as ends:
            async with ends.client.stream("ticks", 2, 0) as stream:
                assert repr(stream) == "<Stream of ticks>"
                assert [batch async for batch in stream.batches()] == [[0], [1]]
            assert lines() == ["ticks ok in 0.000 s, 2 items"]


@SIDES
async def test_a_line_for_a_context_when_it_was_left(side, lines, autojump_clock):
    async with opened(side, Service(), [log_calls()]) as ends:
        async with ends.client.proxy(Service).thing() as thing:
            await trio.sleep(1)
            assert lines() == []
            await thing.touch()
            assert lines() == ["thing.touch ok in 1.000 s"]
        assert lines() == ["thing ok in 2.000 s"]
        with pytest.raises(NotFound):
            async with ends.client.context("thing", True):
                pass
        assert lines() == ["thing NOT_FOUND (NotFound) in 0.000 s"]
        with trio.move_on_after(3):
            async with ends.client.context("thing"):
                await trio.sleep_forever()
        await quiet()
        assert lines() == ["thing cancelled in 3.000 s"]
        async with trio.open_nursery() as nursery:
            await nursery.start(ends.client.proxy(Service).task)
        assert lines() == ["task ok in 2.000 s"]


@SIDES
async def test_calls_that_an_outer_interceptor_has_given_up(side, lines, autojump_clock):
    async with opened(side, Service(), [refusing, log_calls()]) as ends:
        with pytest.raises(PermissionDenied):
            async with ends.client.stream("ticks", 3) as stream:
                await stream.receive()
        assert lines()[0].startswith("ticks ")
        with pytest.raises(PermissionDenied):
            async with ends.client.context("thing"):
                pass
        gc.collect()
        await quiet()
        assert lines() == ["thing cancelled in 0.000 s"]


async def test_nothing_secret_and_no_lines_of_the_other_sides(lines, autojump_clock):
    class Forged(Exception):
        pass

    Forged.__name__ = "Forged\nroot ok in 0.000 s" + "x" * 200

    async def forge(password: str) -> None:
        raise Forged(password)

    async with open_ends({"forge": forge}, client_interceptors=[log_calls()]) as ends:
        with pytest.raises(RpcError):
            await ends.client.call("forge", "secret")
    (line,) = lines()
    assert "\n" not in line
    assert "secret" not in line
    assert len(line) < 150


async def test_a_logger_and_a_level_of_ones_own(caplog, autojump_clock):
    caplog.set_level(logging.DEBUG)
    logger = logging.getLogger("tests.own")
    for level in (logging.DEBUG, "DEBUG"):
        caplog.clear()
        async with open_ends(Service(), interceptors=[log_calls(logger, level=level)]) as ends:
            await ends.client.call("work")
        assert [(each.name, each.levelname) for each in caplog.records] == [("tests.own", "DEBUG")]
    for wrong in (5, "name"):
        with pytest.raises(TypeError, match=r"log_calls\(\) takes a logger"):
            log_calls(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a level of logging"):
        log_calls(level=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no level of logging named 'LOUD'"):
        log_calls(level="LOUD")


# --- limit_concurrency


async def together(ends: Any, number: int) -> None:
    """Make so many calls at once, one after the other."""
    async with trio.open_nursery() as nursery:
        for index in range(number):
            nursery.start_soon(ends.client.call, "work", 1, index)
            await quiet()


@SIDES
async def test_at_most_so_many_at_once_in_order_of_arrival(side, autojump_clock):
    service = Service()
    async with opened(side, service, [limit_concurrency(2)]) as ends:
        start = trio.current_time()
        await together(ends, 7)
        assert trio.current_time() - start == pytest.approx(4)
        assert service.peak == 2
        assert set(service.tags[:2]) == {0, 1}
        assert set(service.tags[2:4]) == {2, 3}
        assert service.tags[6] == 6


@SIDES
async def test_places_of_each_method_or_of_all(side, autojump_clock):
    for per_method, peak in ((True, 2), (False, 1)):
        service = Service()
        limit = limit_concurrency(1, per_method=per_method)
        async with opened(side, service, [limit]) as ends:
            async with trio.open_nursery() as nursery:
                for method in ("work", "other", "work", "other"):
                    nursery.start_soon(ends.client.call, method)
        assert service.peak == peak


@pytest.mark.parametrize(
    ("limits", "per_method", "seconds"),
    [
        ({"history": 1}, True, 2),
        ({"history": 1}, False, 4),
        ({"history": 4, "history.query": 1}, False, 2),
        ({"history.query": 1}, True, 2),
        ({"histor": 1, "query": 1, "history.query.more": 1}, False, 1),
        ({"": 1}, True, 2),
        ({"": 1}, False, 4),
        ({"": 1, "history": 4}, False, 1),
        ({}, False, 1),
    ],
)
async def test_limits_of_methods_and_of_what_is_beneath(
    limits, per_method, seconds, autojump_clock
):
    limit = limit_concurrency(limits, per_method=per_method)
    async with open_ends(Service(), interceptors=[limit]) as ends:
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for method in ("history.query", "history.all") * 2:
                nursery.start_soon(ends.client.call, method)
        assert trio.current_time() - start == pytest.approx(seconds)


@SIDES
async def test_refusing_instead_of_waiting(side, autojump_clock):
    limit = limit_concurrency(1, refuse=True)
    async with opened(side, Service(), [limit]) as ends:
        async with ends.client.stream("ticks", 2) as stream:
            await stream.receive()
            with pytest.raises(ResourceExhausted, match="too many calls of ticks at once"):
                async with ends.client.stream("ticks", 1) as second:
                    await second.receive()
            assert [item async for item in stream] == [1]
            async with ends.client.stream("ticks", 1) as second:
                assert await second.receive() == 0
        await ends.client.call("work")


@SIDES
async def test_streams_contexts_and_tasks_keep_their_place_until_they_have_ended(
    side, autojump_clock
):
    service = Service()
    async with opened(side, service, [limit_concurrency(1)]) as ends:

        async def stream() -> None:
            async with ends.client.stream("ticks", 3) as stream:
                async for item in stream:
                    if item == 1:
                        break

        async def context() -> None:
            async with ends.client.proxy(Service).thing() as thing:
                await thing.touch()
                await trio.sleep(1)

        async def task() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(ends.client.proxy(Service).task)

        for each in (stream, context, task):
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(each)
            assert trio.current_time() - start == pytest.approx(6)
        assert service.peak == 1


@SIDES
async def test_one_object_counts_the_calls_of_all_connections(side, autojump_clock):
    service, limit = Service(), limit_concurrency(1)
    async with (
        opened(side, service, [limit]) as one,
        opened(side, service, [limit]) as another,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.client.call, "work")
            nursery.start_soon(another.client.call, "work")
    assert service.peak == 1


async def drain(ends: Any) -> None:
    async with ends.client.stream("ticks", 3, 0, window=ONE) as stream:
        async for _ in stream:
            pass


async def drop(ends: Any) -> None:
    async for _ in ends.client.stream("ticks", 3, 0, window=ONE):
        break


async def visit(ends: Any) -> None:
    async with ends.client.proxy(Service).thing():
        pass


async def ask(ends: Any) -> None:
    await ends.client.call("work", 0)


@SIDES
@pytest.mark.parametrize("outer", [[], [wrapping], [refusing]])
@pytest.mark.parametrize("act", [ask, drain, drop, visit])
async def test_a_place_is_never_lost(side, outer, act, autojump_clock):
    """Whatever ends a call, and in whatever step it is cancelled, alone or while another runs."""

    async def attempt() -> None:
        try:
            await act(ends)
        except PermissionDenied:
            assert outer == [refusing]

    async def cut_short(cut: Cut) -> bool:
        done = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt)
            with cut.arm():
                await attempt()
                done = True
        return done

    async with opened(side, Service(), [*outer, limit_concurrency(1)]) as ends:
        await sweep(cut_short, at_least=0)
        # What was refused was dropped by its interceptor.
        gc.collect()
        for _ in range(3):
            with trio.fail_after(10):
                await attempt()
            gc.collect()


@SIDES
async def test_a_deadline_passes_while_a_call_waits(side, autojump_clock):
    async with opened(side, Service(), [limit_concurrency(1)]) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "work", 10)
            await quiet()
            start = trio.current_time()
            with pytest.raises(trio.TooSlowError):
                with trio.fail_after(2):
                    await ends.client.call("work", 1)
            assert trio.current_time() - start == pytest.approx(2)


def test_a_limit_belongs_to_one_run_of_trio():
    limit, service = limit_concurrency(1), Service()

    async def abandoned() -> None:
        async with open_ends(service, interceptors=[limit]) as ends:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ends.client.call, "work", 10)
                await quiet()
                raise KeyError

    async def main() -> float:
        async with open_ends(service, interceptors=[limit]) as ends:
            with trio.fail_after(5):
                result: float = await ends.client.call("work", 1)
            return result

    for _ in range(2):
        with pytest.raises(BaseExceptionGroup):
            trio.run(abandoned, clock=trio.testing.MockClock(autojump_threshold=0))
        assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == 1


@pytest.mark.parametrize("wrong", [0, -1])
def test_limits_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="a limit is at least 1"):
        limit_concurrency(wrong)
    with pytest.raises(ValueError, match="a limit is at least 1"):
        limit_concurrency({"a": 1, "b": wrong})
    with pytest.raises(ValueError, match="a burst is at least 1"):
        limit_rate(1, wrong)
    with pytest.raises(ValueError, match="a rate is a positive number"):
        limit_rate(wrong)


@pytest.mark.parametrize("wrong", [True, None, "5", 1.5])
def test_limits_that_are_no_numbers(wrong):
    with pytest.raises(TypeError, match="a limit is a number of calls"):
        limit_concurrency(wrong)
    with pytest.raises(TypeError, match="a limit is a number of calls"):
        limit_concurrency({"a": wrong})
    with pytest.raises(TypeError, match="for the name of a method"):
        limit_concurrency({5: 1})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="a burst is a number of calls"):
        limit_rate(1, wrong)
    if wrong != 1.5:
        with pytest.raises(TypeError, match="a rate is a number of calls a second"):
            limit_rate(wrong)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_rates_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="a rate is a positive number"):
        limit_rate(wrong)


# --- limit_rate


@SIDES
async def test_so_many_a_second_after_a_burst(side, autojump_clock):
    service = Service()
    async with opened(side, service, [limit_rate(2, burst=3)]) as ends:
        start = trio.current_time()
        await together(ends, 7)
        assert service.tags == list(range(7))
        began = [each - start for each in service.began]
        assert began == pytest.approx([0, 0, 0, 0.5, 1, 1.5, 2])
        # It fills up again, and holds no more than the burst.
        await trio.sleep(100)
        service.began.clear()
        start = trio.current_time()
        await together(ends, 5)
        assert [each - start for each in service.began] == pytest.approx([0, 0, 0, 0.5, 1])


async def test_a_bucket_of_each_method_or_of_all(autojump_clock):
    for per_method, began in ((True, [0, 0, 1, 1]), (False, [0, 1, 2, 3])):
        service = Service()
        limit = limit_rate(1, per_method=per_method)
        async with open_ends(service, interceptors=[limit]) as ends:
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                for method in ("work", "other", "work", "other"):
                    nursery.start_soon(ends.client.call, method)
                    await quiet()
            assert [each - start for each in service.began] == pytest.approx(began)


@SIDES
async def test_refusing_what_comes_too_fast(side, autojump_clock):
    limit = limit_rate(0.5, burst=2, refuse=True)
    async with opened(side, Service(), [limit]) as ends:
        for _ in range(2):
            await ends.client.call("work", 0)
        for _ in range(2):
            with pytest.raises(ResourceExhausted, match="too many calls of work a second"):
                await ends.client.call("work", 0)
            await trio.sleep(0.9)
        await trio.sleep(0.2)
        await ends.client.call("work", 0)
        with pytest.raises(ResourceExhausted):
            await ends.client.call("work", 0)


@SIDES
async def test_who_is_cancelled_while_waiting_has_taken_nothing(side, autojump_clock):
    service = Service()
    async with opened(side, service, [limit_rate(1)]) as ends:
        start = trio.current_time()
        await ends.client.call("work", 0)

        async def give_up(seconds: float) -> None:
            with trio.move_on_after(seconds):
                await ends.client.call("work", 0)
                pytest.fail("it has not waited")

        async with trio.open_nursery() as nursery:
            for seconds in (0.5, 0.7, 0.2):
                nursery.start_soon(give_up, seconds)
                await quiet()
            nursery.start_soon(ends.client.call, "work", 0)
        assert [each - start for each in service.began] == pytest.approx([0, 1])


def test_a_bucket_belongs_to_one_run_of_trio():
    """Each run has a clock of its own."""
    limit = limit_rate(0.001)

    async def main() -> float:
        async with open_ends(Service(), interceptors=[limit]) as ends:
            start = trio.current_time()
            await ends.client.call("work", 1)
            return trio.current_time() - start

    for _ in range(2):
        clock = trio.testing.MockClock(autojump_threshold=0)
        clock.jump(1000)
        assert trio.run(main, clock=clock) == pytest.approx(1)


async def test_streams_count_once_when_they_begin(autojump_clock):
    service = Service()
    async with open_ends(service, interceptors=[limit_rate(1)]) as ends:
        start = trio.current_time()
        for _ in range(2):
            async with ends.client.stream("ticks", 100, 0) as stream:
                assert len([item async for item in stream]) == 100
        assert [each - start for each in service.began] == pytest.approx([0, 1])


# --- authorize


class Guarded:
    """A method of each shape; ``started`` has the names of those that ran."""

    def __init__(self) -> None:
        self.started: list[str] = []

    @rpc
    async def unary(self, value: int = 0) -> int:
        self.started.append("unary")
        return value

    @rpc
    async def stream(self) -> AsyncIterator[int]:
        self.started.append("stream")
        yield 1

    @rpc
    async def upload(self, values: AsyncIterable[int]) -> int:
        self.started.append("upload")
        return sum([value async for value in values])

    @rpc
    @asynccontextmanager
    async def context(self) -> AsyncIterator[Thing]:
        self.started.append("context")
        yield Thing()

    @rpc
    async def task(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        self.started.append("task")
        task_status.started(5)

    @property
    @rpc
    async def theme(self) -> str:
        self.started.append("theme")
        return "dark"


async def use(connection: Any, shape: str) -> Any:
    """Call the method of that shape, and use what it gives."""
    api = connection.proxy(Guarded)
    match shape:
        case "stream":
            async with api.stream() as stream:
                return [item async for item in stream]
        case "upload":

            async def values() -> AsyncIterator[int]:
                yield 1
                yield 2

            return await api.upload(values())
        case "context":
            async with api.context() as thing:
                return await thing.touch()
        case "task":
            async with open_background_nursery() as nursery:
                return await nursery.start(api.task)
        case "theme":
            return await connection.call("theme")
        case _:
            return await api.unary(3)


SHAPES = {"unary": 3, "stream": [1], "upload": 3, "context": None, "task": 5, "theme": "dark"}


@pytest.mark.parametrize("shape", SHAPES)
@SIDES
async def test_a_call_that_is_not_authorized(side, shape, autojump_clock):
    """It fails before anything of it has run, whatever its shape; and the others go on."""
    service = Guarded()
    allowed = False

    def check(call: Call) -> bool:
        assert call.method in (shape, "context.touch")
        return allowed

    async with opened(side, service, [authorize(check)]) as ends:
        with pytest.raises(PermissionDenied) as caught:
            await use(ends.client, shape)
        assert caught.value.message == f"{shape}: permission denied"
        assert service.started == []
        allowed = True
        assert await use(ends.client, shape) == SHAPES[shape]
        assert service.started == [shape]


async def test_each_call_to_an_object_is_authorized(autojump_clock):
    """Who may open a context may not therefore use what it gives."""

    async def check(call: Call) -> bool:
        await trio.sleep(1)
        return call.method != "context.touch"

    async with open_ends(Guarded(), interceptors=[authorize(check)]) as ends:
        async with ends.client.proxy(Guarded).context() as thing:
            with pytest.raises(PermissionDenied, match=r"context\.touch"):
                await thing.touch()


async def test_authorized_by_identity_and_arguments(autojump_clock):
    async def authenticate(handshake: Handshake) -> Any:
        return handshake.metadata["who"]

    def check(call: Call) -> bool:
        return call.identity == "admin" or bool(call.arguments["value"] < 10)

    for who, value, may in (("admin", 10, True), ("guest", 9, True), ("guest", 10, False)):
        async with open_pair(
            Guarded(),
            authenticate=authenticate,
            metadata={"who": who},
            interceptors=[authorize(check)],
        ) as connection:
            if may:
                assert await connection.call("unary", value) == value
            else:
                with pytest.raises(PermissionDenied):
                    await connection.call("unary", value)


async def test_what_a_check_raises(autojump_clock):
    def check(call: Call) -> bool:
        raise Unauthenticated("who are you?")

    async with open_ends(Guarded(), interceptors=[authorize(check)]) as ends:
        with pytest.raises(Unauthenticated, match="who are you"):
            await ends.client.call("unary")


@pytest.mark.parametrize("answer", [None, 1, "yes", [True]])
async def test_a_check_that_does_not_answer_lets_nobody_through(answer, autojump_clock, caplog):
    service = Guarded()

    async def check(call: Call) -> Any:
        return answer

    async with open_ends(service, interceptors=[authorize(check)]) as ends:
        with pytest.raises(RpcError, match="has to give True or False"):
            await ends.client.call("unary")
    assert service.started == []
    assert "has to give True or False" in caplog.text


async def test_nobody_is_asked_about_a_method_that_does_not_exist(autojump_clock):
    asked = []

    def check(call: Call) -> bool:
        asked.append(call.method)
        return False

    async with open_ends(Guarded(), interceptors=[authorize(check)]) as ends:
        with pytest.raises(Unimplemented):
            await ends.client.call("nothing")
    assert asked == []


def test_what_is_no_check() -> None:
    with pytest.raises(TypeError, match="takes a function"):
        authorize("admin")  # type: ignore[arg-type]
