"""Interceptors around the calls that are made: what they make of streams and contexts."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from tests.runtime.ends import Cut, Ends, open_ends, quiet, sweep
from tests.runtime.onions import ONE, Service, noting, unawaited, wrapping
from trio_streamrpc import (
    Call,
    ConnectionLost,
    NotFound,
    PermissionDenied,
    RemoteError,
    ResourceExhausted,
    RpcError,
    Stream,
    StreamStatistics,
    Window,
    rpc,
)

WRAPPERS = pytest.mark.parametrize("interceptors", [[], [wrapping], [wrapping, wrapping]])


async def passing(call: Call, proceed: Any) -> Any:
    return await proceed()


def open_with(*interceptors: Any, service: Any = None) -> Any:
    return open_ends(Service() if service is None else service, client_interceptors=interceptors)


async def numbers(log: list[str], stop: int = 3) -> AsyncIterator[int]:
    try:
        for number in range(stop):
            yield number
    finally:
        log.append("upload closed")


# --- what does not fit


@pytest.mark.parametrize("given", [None, 5, [1, 2]])
async def test_what_is_no_stream_is_an_error_of_that_call(given, autojump_clock):
    async def answering(call: Call, proceed: Any) -> Any:
        await proceed()
        await quiet()
        return given

    service = Service()
    async with open_with(answering, service=service) as ends:
        stream = ends.client.stream("count")
        with pytest.raises(TypeError, match=r"answering has given .*: count is a stream"):
            async with stream:
                pytest.fail("it was entered")
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive()
        # It was called, and has ended.
        assert service.log == ["count"]
        stream = ends.client.stream("count")
        for _ in range(2):
            with pytest.raises(TypeError, match="answering has given"):
                await stream.receive()
        context = ends.client.context("account", "a")
        with pytest.raises(TypeError, match=r"answering has given .*: account is a context"):
            async with context:
                pytest.fail("it was entered")
        assert ends.up.sent("call")[1:] == []


async def test_arguments_that_do_not_fit_are_told_at_once(autojump_clock):
    log: list[str] = []
    async with open_with(noting(log, "a")) as ends:
        api: Any = ends.client.proxy(Service)
        with pytest.raises(TypeError, match="unexpected keyword"):
            api.count(start=5)
        with pytest.raises(TypeError, match="missing"):
            api.account()
    assert log == []


async def test_an_interceptor_that_is_no_async_function(autojump_clock):
    def forgetful(call: Call, proceed: Any) -> Any:
        return None

    async with open_with(forgetful) as ends:
        with pytest.raises(TypeError, match="forgetful is no async function"):
            await ends.client.call("echo", "x")
        with pytest.raises(TypeError, match="forgetful is no async function"):
            async with ends.client.stream("count"):
                pass


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("outer", [[], [passing], [unawaited]])
async def test_an_interceptor_that_does_not_await(outer, autojump_clock):
    """It is that call's error, which names the interceptor, and nothing was called."""
    said = r"the interceptor unawaited has given a coroutine.*: it has forgotten 'await'"
    async with open_with(*outer, unawaited) as ends:
        with pytest.raises(TypeError, match=said):
            await ends.client.call("echo", "a")
        with pytest.raises(TypeError, match=said):
            async with ends.client.stream("count"):
                pytest.fail("it was entered")
        with pytest.raises(TypeError, match=said):
            await ends.client.stream("count").receive()
        with pytest.raises(TypeError, match=said):
            async with ends.client.context("account", "a"):
                pytest.fail("it was entered")
        async with trio.open_nursery() as nursery:
            with pytest.raises(TypeError, match=said):
                await nursery.start(ends.client.proxy(Service).work, 5)
        gc.collect()
        assert ends.up.sent("call") == []


# --- what they see and change


async def test_what_an_interceptor_sees_and_adds(autojump_clock):
    calls: list[Call] = []

    async def adding(call: Call, proceed: Any) -> Any:
        calls.append(call)
        return await proceed(call.replace(metadata={**call.metadata, "token": "secret"}))

    async with open_with(adding) as ends:
        api = ends.client.proxy(Service)
        with trio.fail_after(7):
            deadline = trio.current_effective_deadline()
            assert await api.metadata() == {"token": "secret"}
            assert calls[0].deadline == deadline
        assert calls[0].connection is ends.client
        assert await ends.client.call("echo", "x", 5, flag=True) == "x"
        assert calls[1].arguments == {0: "x", 1: 5, "flag": True}
        assert await api.echo("x", 5, flag=True) == "x"
        assert calls[2].arguments == {"value": "x", 1: 5, "flag": True}
        async with api.metadata_stream() as stream:
            assert [item async for item in stream] == [{"token": "secret"}] * 2
        async with api.account("alice"):
            pass
        assert calls[4].arguments == {"name": "alice"}
        async with trio.open_nursery() as nursery:
            await nursery.start(api.work, 3)
        assert calls[5].arguments == {"steps": 3}
        assert all(each.get("metadata") for each in ends.up.sent("call"))


async def test_answering_refusing_mapping_and_retrying(autojump_clock):
    attempts: list[str] = []

    async def doing(call: Call, proceed: Any) -> Any:
        if call.method == "echo":
            return "from the cache"
        if call.method == "metadata":
            raise PermissionDenied("not from here")
        for _ in range(2):
            try:
                return await proceed(call.replace(args=["mapped"]))
            except RemoteError as error:
                attempts.append(str(error))
        raise NotFound("gave up")

    async with open_with(doing) as ends:
        assert await ends.client.call("echo", "x") == "from the cache"
        with pytest.raises(PermissionDenied):
            await ends.client.call("metadata")
        assert ends.up.sent("call") == []
        with pytest.raises(NotFound, match="gave up"):
            await ends.client.call("fail")
        assert attempts == ["ValueError: mapped"] * 2


class Local:
    @rpc
    async def numbers(self) -> AsyncIterator[int]:
        for number in range(3):
            await trio.sleep(1)
            yield number


async def test_a_stream_may_be_refused_or_answered(autojump_clock):
    log: list[str] = []

    async def doing(call: Call, proceed: Any) -> Any:
        if call.kwargs.get("stop") == 0:
            raise PermissionDenied("not from here")
        return numbers(log) if call.args else Local().numbers()

    async with open_with(doing) as ends:
        with pytest.raises(PermissionDenied):
            async with ends.client.stream("count", stop=0):
                pytest.fail("it was entered")
        stream = ends.client.stream("count", stop=0)
        for _ in range(2):
            with pytest.raises(PermissionDenied):
                await stream.receive()
        for arguments in ((), (5,)):
            async with ends.client.stream("count", *arguments) as stream:
                assert [item async for item in stream] == [0, 1, 2]
                assert stream.statistics() == StreamStatistics()
            # One that nobody has asked for anything is closed, too.
            async with ends.client.stream("count", *arguments):
                pass
        assert log == ["upload closed"]
        assert ends.up.sent("call") == []


async def test_interceptors_run_when_a_stream_is_entered_or_first_asked(autojump_clock):
    log: list[str] = []
    async with open_with(noting(log, "a")) as ends:
        stream = ends.client.stream("count", 3)
        await quiet()
        assert log == []
        assert stream.statistics() == StreamStatistics()
        assert [item async for item in stream] == [0, 1, 2]
        assert log == ["a: count", "a left"]
        with pytest.raises(RuntimeError, match="started already"):
            async with stream:
                pass
        async with ends.client.stream("count", 3) as stream:
            assert log[2:] == ["a: count", "a left"]
            with pytest.raises(RuntimeError, match="started already"):
                async with stream:
                    pass
        with pytest.raises(trio.ClosedResourceError):
            async with stream:
                pass
        context = ends.client.context("account", "a")
        async with context:
            with pytest.raises(RuntimeError, match="entered already"):
                async with context:
                    pass


# --- a stream is a stream, whatever stands around it


@WRAPPERS
async def test_entering_makes_the_call(interceptors, autojump_clock):
    service = Service()
    async with open_with(*interceptors, service=service) as ends:
        async with ends.client.stream("count", window=Window(8, 10_000)) as stream:
            await quiet()
            assert service.produced == 8
            assert [await stream.receive() for _ in range(3)] == [0, 1, 2]
            await quiet()
            assert service.produced == 8
            assert stream.statistics().items_received == 8
            assert stream.statistics().window == Window(8, 10_000)


@WRAPPERS
async def test_the_end_and_errors_again_and_again(interceptors, autojump_clock):
    async def fail() -> AsyncIterator[int]:
        yield 0
        raise ValueError("broken")

    service = {"fail": fail, "other": Service()}
    async with open_with(*interceptors, service=service) as ends:
        async with ends.client.stream("other.count", 2) as stream:
            assert [await stream.receive() for _ in range(2)] == [0, 1]
            for _ in range(3):
                with pytest.raises(trio.EndOfChannel):
                    await stream.receive()
            assert [item async for item in stream] == []
            assert [batch async for batch in stream.batches()] == []
        for _ in range(2):
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive()
        with pytest.raises(trio.ClosedResourceError):
            await anext(stream.batches())
        async with ends.client.stream("fail") as stream:
            assert await stream.receive() == 0
            for _ in range(3):
                with pytest.raises(RemoteError, match="ValueError: broken"):
                    await stream.receive()
        with pytest.raises(RemoteError, match="ValueError: broken"):
            async with ends.client.stream("fail") as stream:
                async for _ in stream:
                    pass


@WRAPPERS
async def test_batches(interceptors, autojump_clock):
    async with open_with(*interceptors) as ends:
        async with ends.client.stream("count", 10) as stream:
            batches = [batch async for batch in stream.batches()]
            assert [item for batch in batches for item in batch] == list(range(10))
            assert all(batches)
        found: list[int] = []
        async for batch in ends.client.stream("count", 10).batches():
            found += batch
        assert found == list(range(10))


@pytest.mark.parametrize("entered", [True, False])
@WRAPPERS
async def test_a_cancelled_receive_has_lost_nothing(interceptors, entered, autojump_clock):
    async def ticks() -> AsyncIterator[int]:
        for number in range(4):
            await trio.sleep(2)
            yield number

    async def take(stream: Stream[int]) -> list[int]:
        found: list[int] = []
        while len(found) < 4:
            with trio.move_on_after(0.7):
                found.append(await stream.receive())
        return found

    async with open_with(*interceptors, service={"ticks": ticks}) as ends:
        stream = ends.client.stream("ticks")
        if entered:
            async with stream:
                assert await take(stream) == [0, 1, 2, 3]
        else:
            assert await take(stream) == [0, 1, 2, 3]
            with pytest.raises(trio.EndOfChannel):
                await stream.receive()


async def test_interceptors_that_were_cancelled_run_again(autojump_clock):
    """A receive that is cancelled while they wait has called nothing."""
    log: list[str] = []

    async def waiting(call: Call, proceed: Any) -> Any:
        log.append("waiting")
        if len(log) < 3:
            await trio.sleep_forever()
        return await proceed()

    async with open_with(waiting) as ends:
        stream = ends.client.stream("count", 1)
        for _ in range(2):
            with trio.move_on_after(1):
                await stream.receive()
        assert ends.up.sent("call") == []
        assert await stream.receive() == 0
        with pytest.raises(trio.EndOfChannel):
            await stream.receive()


@WRAPPERS
async def test_several_tasks_take_from_one_stream(interceptors, autojump_clock):
    async with open_with(*interceptors) as ends:
        found: list[int] = []

        async def take(stream: Stream[int]) -> None:
            async for item in stream:
                found.append(item)
                await trio.lowlevel.checkpoint()

        async with ends.client.stream("count", 20) as stream:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(take, stream)
        assert sorted(found) == list(range(20))


@WRAPPERS
async def test_checkpoints(interceptors, autojump_clock):
    async with open_with(*interceptors) as ends:
        async with ends.client.stream("count", 2) as stream:
            await quiet()
            for _ in range(2):
                with trio.testing.assert_checkpoints():
                    await stream.receive()
            with trio.testing.assert_checkpoints():
                with pytest.raises(trio.EndOfChannel):
                    await stream.receive()
            with trio.testing.assert_checkpoints():
                await stream.aclose()
            with trio.testing.assert_checkpoints():
                await stream.aclose()
        stream = ends.client.stream("count", 2)
        with trio.testing.assert_checkpoints():
            await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive()


# --- leaving


@WRAPPERS
async def test_leaving_waits_for_the_remote_finally(interceptors, autojump_clock):
    """R7, R8: the other side is told how its stream was left, and has finished."""
    service = Service()
    async with open_with(*interceptors, service=service) as ends:
        start = trio.current_time()
        async with ends.client.stream("count") as stream:
            async for item in stream:
                if item == 3:
                    break
        assert service.log == ["count"]
        assert trio.current_time() - start == pytest.approx(1)
        with pytest.raises(ZeroDivisionError) as caught:
            async with ends.client.stream("count") as stream:
                await stream.receive()
                raise ZeroDivisionError("mine")
        assert caught.value.__context__ is None
        assert service.log == ["count"] * 2
        async with ends.client.stream("count"):
            await quiet()
        assert service.log == ["count"] * 3
        close, abort, unread = ends.up.sent("cancel")
        assert close["mode"] == unread["mode"] == "close"
        assert abort.get("mode", "abort") == "abort"
        assert abort["error"]["name"] == "ZeroDivisionError"


@WRAPPERS
async def test_leaving_while_it_is_waited_for(interceptors, autojump_clock):
    service = Service()
    async with open_with(*interceptors, service=service) as ends:
        async with ends.client.stream("slow") as stream:
            await stream.receive()
            with trio.move_on_after(1):
                await stream.receive()
        assert service.log == ["slow"]
        async with ends.client.stream("slow") as stream:
            await stream.receive()

            async def take() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.receive()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(take)
                await quiet()
                await stream.aclose()
                assert service.log == ["slow"] * 2


@WRAPPERS
async def test_a_cancelled_block_does_not_wait(interceptors, autojump_clock):
    """R8: the other side is asked with abort, and nothing is left behind here."""
    service = Service()
    async with open_with(*interceptors, service=service) as ends:
        start = trio.current_time()
        for wait_inside in (True, False):
            with trio.move_on_after(1):
                async with ends.client.stream("slow" if wait_inside else "count") as stream:
                    await stream.receive()
                    if wait_inside:
                        await stream.receive()
                    await trio.sleep_forever()
        assert trio.current_time() - start == pytest.approx(2)
        await trio.sleep(2)
        assert service.log == ["slow", "count"]
        assert [each.get("mode", "abort") for each in ends.up.sent("cancel")] == ["abort"] * 2


async def test_a_wrappers_finally_runs_before_the_block_ends(autojump_clock):
    log: list[str] = []

    async def noting_wrapper(call: Call, proceed: Any) -> Any:
        stream = await proceed()

        async def items() -> AsyncIterator[Any]:
            try:
                async for item in stream:
                    yield item
            finally:
                await trio.sleep(1)
                log.append("wrapper")

        return items()

    service = Service()
    async with open_with(noting_wrapper, noting_wrapper, service=service) as ends:
        async with ends.client.stream("count") as stream:
            await stream.receive()
        assert log == ["wrapper"] * 2
        assert service.log == ["count"]
        # One that was never asked has nothing to close.
        async with ends.client.stream("count") as stream:
            pass
        assert log == ["wrapper"] * 2


async def test_a_wrapper_may_enter_or_close_the_stream_itself(autojump_clock):
    async def entering(call: Call, proceed: Any) -> Any:
        inner = await proceed()

        async def items() -> AsyncIterator[Any]:
            async with inner as stream:
                async for item in stream:
                    yield item

        return items()

    async def closing(call: Call, proceed: Any) -> Any:
        inner = await proceed()

        async def items() -> AsyncIterator[Any]:
            async with aclosing(inner) as stream:
                async for item in stream:
                    yield item

        return items()

    for interceptors in ([entering], [closing], [entering, closing], [closing, entering]):
        service = Service()
        log: list[str] = []
        async with open_with(*interceptors, service=service) as ends:
            async with ends.client.stream("count") as stream:
                assert await stream.receive() == 0
            assert service.log == ["count"]
            assert len(ends.up.sent("cancel")) == 1
            async with ends.client.stream("count", 2) as stream:
                assert [item async for item in stream] == [0, 1]
            stream = ends.client.stream("count", 2)
            assert [item async for item in stream] == [0, 1]
            async with ends.client.stream("chat", numbers(log)) as stream:
                with pytest.raises(RpcError):
                    await stream.receive()


async def test_a_wrapper_that_fails(autojump_clock):
    async def failing(call: Call, proceed: Any) -> Any:
        stream = await proceed()

        async def items() -> AsyncIterator[Any]:
            async for item in stream:
                yield item
                raise KeyError("mine")

        return items()

    service = Service()
    async with open_with(failing, service=service) as ends:
        with pytest.raises(KeyError, match="mine"):
            async with ends.client.stream("count") as stream:
                async for _ in stream:
                    pass
        assert service.log == ["count"]


async def test_what_a_wrappers_cleanup_raises_comes_out_of_the_block(autojump_clock):
    async def failing(call: Call, proceed: Any) -> Any:
        stream = await proceed()

        async def items() -> AsyncIterator[Any]:
            try:
                async for item in stream:
                    yield item
            finally:
                raise KeyError("mine")

        return items()

    service = Service()
    async with open_with(failing, service=service) as ends:
        with pytest.raises(KeyError, match="mine"):
            async with ends.client.stream("count") as stream:
                await stream.receive()
        assert service.log == ["count"]


async def test_an_interceptor_that_fails_after_the_call_was_made(autojump_clock):
    async def failing(call: Call, proceed: Any) -> Any:
        stream = await proceed()
        assert await stream.receive() == 0
        raise PermissionDenied("after all")

    service = Service()
    async with open_with(failing, service=service) as ends:
        with pytest.raises(PermissionDenied):
            async with ends.client.stream("count"):
                pytest.fail("it was entered")
        assert service.log == ["count"]
        with pytest.raises(PermissionDenied):
            await ends.client.stream("count").receive()
        assert service.log == ["count"] * 2


async def test_a_wrapper_maps_errors_and_calls_again(autojump_clock):
    attempts = 0

    async def flaky() -> AsyncIterator[int]:
        nonlocal attempts
        attempts += 1
        yield attempts
        if attempts < 3:
            raise ResourceExhausted("later")

    async def retrying(call: Call, proceed: Any) -> Any:
        first = await proceed()

        async def items() -> AsyncIterator[Any]:
            stream = first
            while True:
                try:
                    async for item in stream:
                        yield item
                    return
                except ResourceExhausted:
                    stream = await proceed()

        return items()

    async with open_with(retrying, service={"flaky": flaky}) as ends:
        async with ends.client.stream("flaky") as stream:
            assert [item async for item in stream] == [1, 2, 3]
        attempts = 0
        found = [item async for item in ends.client.stream("flaky")]
        assert found == [1, 2, 3]
        attempts = 0
        async with ends.client.stream("flaky") as stream:
            assert [await stream.receive() for _ in range(2)] == [1, 2]


async def test_what_a_wrapper_calls_later_is_closed_after_it_and_not_gathered(autojump_clock):
    log: list[str] = []
    alive: list[weakref.ref[Any]] = []

    async def again(call: Call, proceed: Any) -> Any:
        async def items() -> AsyncIterator[Any]:
            try:
                while True:
                    stream = await proceed()
                    alive.append(weakref.ref(stream))
                    async for item in stream:
                        yield item
            finally:
                log.append("wrapper")

        return items()

    service = Service()
    service.log = log
    async with open_with(again, service=service) as ends:
        async with ends.client.stream("count", 2, 0) as stream:
            found = [await stream.receive() for _ in range(21)]
            assert found == [*[0, 1] * 10, 0]
            assert sum(each() is not None for each in alive) <= 3
            await quiet()
        assert log == ["count"] * 11 + ["wrapper"]
        log.clear()
        async with ends.client.stream("count", window=ONE) as stream:
            await stream.receive()
        assert log == ["wrapper", "count"]


@WRAPPERS
async def test_a_stream_that_is_dropped_is_cancelled(interceptors, autojump_clock):
    """Also where a wrapper stands around it: it is closed when the stream is collected."""
    service = Service()
    async with open_with(*interceptors, service=service) as ends:
        gc.disable()
        try:
            async for item in ends.client.stream("count"):
                if item == 3:
                    break
            await trio.sleep(2)
            assert service.log == ["count"]
        finally:
            gc.enable()
        assert ends.client.statistics().calls_open == 0


async def test_a_dropped_stream_whose_wrapper_may_call_again(autojump_clock):
    async def holding(call: Call, proceed: Any) -> Any:
        stream = await proceed()

        async def items() -> AsyncIterator[Any]:
            async for item in stream:
                yield item
            await proceed()

        return items()

    service = Service()
    async with open_with(holding, holding, service=service) as ends:
        gc.disable()
        try:
            async for _ in ends.client.stream("count"):
                break
            await trio.sleep(2)
            assert service.log == ["count"]
        finally:
            gc.enable()
        stream = ends.client.stream("count")
        del stream


@WRAPPERS
async def test_a_lost_connection(interceptors, autojump_clock):
    service = Service()
    async with open_ends(service, client_interceptors=interceptors, clean=False) as ends:
        with pytest.raises(ConnectionLost):
            async with ends.client.stream("slow") as stream:
                await stream.receive()
                await ends.up.aclose()
                await stream.receive()
        with pytest.raises(ConnectionLost):
            async with ends.client.stream("slow"):
                pytest.fail("it was entered")


# --- closed by another task while the interceptors still run


class Starting:
    """A task that starts a stream, and what became of it."""

    def __init__(self, stream: Stream[Any], how: str, log: list[str]) -> None:
        self.scope = trio.CancelScope()
        self.outcome: list[str] = []
        self._stream = stream
        self._how = how
        self._log = log

    async def run(self) -> None:
        try:
            with self.scope:
                if self._how == "enter":
                    async with self._stream:
                        self.outcome.append("entered")
                elif self._how == "receive":
                    self.outcome.append(f"received {await self._stream.receive()}")
                else:
                    self.outcome.append(f"received {await anext(self._stream.batches())}")
        except Exception as error:
            self.outcome.append(type(error).__name__)
        if self.scope.cancelled_caught:
            self.outcome.append("cancelled")
        self._log.append("told")


STARTS = pytest.mark.parametrize("how", ["enter", "receive", "batches"])


@STARTS
async def test_closing_stops_interceptors_that_wait(how, autojump_clock):
    """Nothing was called, neither then nor later; who has started it hears that it is closed."""
    go = trio.Event()

    async def waiting(call: Call, proceed: Any) -> Any:
        await go.wait()
        return await proceed()

    service = Service()
    async with open_with(passing, waiting, service=service) as ends:
        stream = ends.client.stream("count")
        starting, asking = Starting(stream, how, []), Starting(stream, "receive", [])
        async with trio.open_nursery() as nursery:
            for each in (starting, asking):
                nursery.start_soon(each.run)
                await quiet()
            with trio.testing.assert_checkpoints():
                await stream.aclose()
            go.set()
        assert starting.outcome == asking.outcome == ["ClosedResourceError"]
        for _ in range(2):
            with pytest.raises(trio.ClosedResourceError), trio.testing.assert_checkpoints():
                await stream.receive()
        assert ends.up.sent("call") == []


@STARTS
async def test_closing_waits_for_what_interceptors_have_called(how, autojump_clock):
    """R7, R8: all of it has finished when it returns, and not before the interceptor has."""
    log: list[str] = []

    async def calling(call: Call, proceed: Any) -> Any:
        first, second = await proceed(), await proceed()
        await first.receive()
        await second.receive()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            log.append("interceptor")

    service = Service()
    service.log = log
    async with open_with(calling, service=service) as ends:
        stream = ends.client.stream("count")
        starting = Starting(stream, how, log)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(starting.run)
            await quiet()
            await stream.aclose()
            assert log[0] == "interceptor"
            assert log.count("count") == 2
        assert starting.outcome == ["ClosedResourceError"]
        assert {each["mode"] for each in ends.up.sent("cancel")} == {"close"}


async def test_all_who_close_wait_for_the_end(autojump_clock):
    service = Service()

    async def calling(call: Call, proceed: Any) -> Any:
        await (await proceed()).receive()
        await trio.sleep_forever()

    async with open_with(calling, service=service) as ends:
        stream = ends.client.stream("count")
        starting = Starting(stream, "enter", [])

        async def close() -> None:
            await stream.aclose()
            assert service.log == ["count"]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(starting.run)
            await quiet()
            for _ in range(2):
                nursery.start_soon(close)
            await quiet()
            # Who asks for an item meanwhile does not wait for them.
            with trio.fail_after(0.5), pytest.raises(trio.ClosedResourceError):
                await stream.receive()
            assert service.log == []


@STARTS
async def test_an_interceptor_that_does_not_stop(how, autojump_clock):
    """What it gives after all is closed, and nobody gets it."""

    async def stubborn(call: Call, proceed: Any) -> Any:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
            return await proceed()

    service = Service()
    async with open_with(wrapping, stubborn, service=service) as ends:
        start = trio.current_time()
        stream = ends.client.stream("count")
        starting = Starting(stream, how, [])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(starting.run)
            await quiet()
            await stream.aclose()
            # R12: what was called is taken back before it is written, or has finished.
            assert trio.current_time() - start >= 2
            assert len(service.log) == len(ends.down.sent("end", "error"))
            assert ends.client.caller.open_calls == 0
        assert starting.outcome == ["ClosedResourceError"]


async def test_what_an_interceptor_raises_when_it_is_stopped(autojump_clock):
    async def failing(call: Call, proceed: Any) -> Any:
        await (await proceed()).receive()
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("mine")

    service = Service()
    for how in ("enter", "receive"):
        async with open_with(failing, service=service) as ends:
            stream = ends.client.stream("count")
            starting = Starting(stream, how, [])
            service.log.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(starting.run)
                await quiet()
                await stream.aclose()
                assert service.log == ["count"]
            assert starting.outcome == ["KeyError"]
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive()


@STARTS
@pytest.mark.parametrize("first", ["starting", "closing"])
async def test_a_cancellation_of_who_starts_passes_as_itself(how, first, autojump_clock):
    """Who closes the stream waits all the same for what was called."""

    async def calling(call: Call, proceed: Any) -> Any:
        await (await proceed()).receive()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)

    service = Service()
    async with open_with(calling, service=service) as ends:
        stream = ends.client.stream("count")
        starting = Starting(stream, how, [])

        async def close() -> None:
            await stream.aclose()
            assert service.log == ["count"]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(starting.run)
            await quiet()
            if first == "starting":
                starting.scope.cancel()
                await quiet()
            nursery.start_soon(close)
            await quiet()
            starting.scope.cancel()
        assert starting.outcome == ["cancelled"]


@STARTS
async def test_who_is_cancelled_while_closing_asks_and_does_not_wait(how, autojump_clock):
    async def calling(call: Call, proceed: Any) -> Any:
        await (await proceed()).receive()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
                await (await proceed()).receive()

    service = Service()
    async with open_with(calling, service=service) as ends:
        stream = ends.client.stream("count")
        starting = Starting(stream, how, [])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(starting.run)
            await quiet()
            start = trio.current_time()
            with trio.move_on_after(2) as scope:
                await stream.aclose()
            assert scope.cancelled_caught
            assert trio.current_time() - start == pytest.approx(2)
        # What it called after that is closed by who has started it.
        assert starting.outcome == ["ClosedResourceError"]
        assert service.log == ["count"] * 2


async def test_leaving_a_cancelled_block_stops_interceptors_that_wait(autojump_clock):
    """Who leaves it is not who starts it: nothing is left behind, and nobody is waited for."""
    service = Service()
    cleanup: list[str] = []

    async def calling(call: Call, proceed: Any) -> Any:
        await (await proceed()).receive()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            cleanup.append("interceptor")

    async with open_with(calling, service=service) as ends:
        stream = ends.client.stream("count")
        starting = Starting(stream, "receive", [])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(starting.run)
            await quiet()
            with trio.CancelScope() as scope:
                scope.cancel()
                try:
                    await trio.lowlevel.checkpoint()
                except trio.Cancelled as error:
                    await stream.__aexit__(type(error), error, error.__traceback__)
                    assert cleanup == []
                    raise
        assert cleanup == ["interceptor"]
        assert starting.outcome == ["ClosedResourceError"]
        await trio.sleep(2)
        assert service.log == ["count"]


async def test_closing_while_what_goes_with_the_call_runs(autojump_clock):
    log: list[str] = []

    async def waiting(call: Call, proceed: Any) -> Any:
        given = await proceed()
        await given.receive()
        await trio.sleep_forever()

    chat = Chat()
    async with open_with(waiting, service=chat.table()) as ends:
        stream = ends.client.stream("chat", numbers(log, 1000), window=ONE)
        starting = Starting(stream, "enter", [])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(starting.run)
            await quiet()
            await stream.aclose()
            assert chat.log == ["chat"]
        assert log == ["upload closed"]
        assert starting.outcome == ["ClosedResourceError"]


@STARTS
async def test_closing_at_every_step(how, autojump_clock):
    """Whatever the step, all that was called has ended when it returns, and nobody is left."""
    service = Service()
    async with open_with(wrapping, passing, wrapping, service=service) as ends:
        for step in range(40):
            service.log.clear()
            calls = len(ends.up.sent("call"))
            stream = ends.client.stream("count", pause=0)
            starting = Starting(stream, how, [])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(starting.run)
                for _ in range(step):
                    await trio.lowlevel.checkpoint()
                await stream.aclose()
                assert ends.client.caller.open_calls == 0
            assert len(starting.outcome) >= 1
            await quiet()
            assert len(ends.up.sent("call")) - calls <= 1


# --- uploads and callbacks


class Chat:
    def __init__(self) -> None:
        self.log: list[str] = []

    async def chat(self, numbers: Any) -> AsyncIterator[int]:
        try:
            async for number in numbers:
                yield number * 10
        finally:
            self.log.append("chat")

    async def asking(self, question: Any) -> AsyncIterator[Any]:
        while True:
            yield await question("why")

    def table(self) -> dict[str, Any]:
        return {"chat": self.chat, "asking": self.asking}


@pytest.mark.parametrize("interceptors", [[], [passing], [wrapping], [wrapping, wrapping]])
async def test_streams_with_uploads_and_callbacks(interceptors, autojump_clock):
    chat, log = Chat(), []  # type: ignore[var-annotated]

    async def answer(question: str) -> str:
        return question + "?"

    async with open_with(*interceptors, service=chat.table()) as ends:
        async with ends.client.stream("chat", numbers(log)) as stream:
            assert [item async for item in stream] == [0, 10, 20]
        assert log == ["upload closed"]
        async with ends.client.stream("chat", numbers(log, 1000), window=ONE) as stream:
            assert await stream.receive() == 0
        assert log == ["upload closed"] * 2
        assert chat.log == ["chat"] * 2
        async with ends.client.stream("asking", answer) as stream:
            assert await stream.receive() == "why?"
        with trio.move_on_after(1):
            async with ends.client.stream("chat", numbers(log, 1000)) as stream:
                await trio.sleep_forever()
        assert log == ["upload closed"] * 3
        await quiet()


@pytest.mark.parametrize("interceptors", [[], [passing], [wrapping]])
async def test_an_upload_that_fails(interceptors, autojump_clock):
    async def failing() -> AsyncIterator[int]:
        yield 1
        await trio.sleep(1)
        raise KeyError("mine")

    chat = Chat()
    async with open_with(*interceptors, service=chat.table()) as ends:
        with pytest.raises(KeyError, match="mine"):
            async with ends.client.stream("chat", failing()) as stream:
                async for _ in stream:
                    pass
        assert chat.log == ["chat"]


async def test_they_need_a_block_and_say_so_before_anything_runs(autojump_clock):
    log: list[str] = []
    async with open_with(noting(log, "a"), service=Chat().table()) as ends:
        stream = ends.client.stream("chat", numbers(log))
        with pytest.raises(RuntimeError, match="enter it with 'async with'"):
            await stream.receive()
        with pytest.raises(RuntimeError, match="enter it with 'async with'"):
            async for _ in stream.batches():
                pass
        assert log == []


async def test_an_interceptor_may_hold_scopes_while_it_calls(autojump_clock):
    """What goes with the call runs around them, so that scopes and nurseries nest."""
    log: list[str] = []

    async def limiting(call: Call, proceed: Any) -> Any:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 1)
                return await proceed()

    for interceptors in ([limiting], [limiting, wrapping], [wrapping, limiting]):
        async with open_with(*interceptors, service=Chat().table()) as ends:
            async with ends.client.stream("chat", numbers(log)) as stream:
                with trio.move_on_after(1):
                    assert await stream.receive() == 0
                assert await stream.receive() == 10


async def test_a_wrapper_may_hold_scopes_across_its_yield(autojump_clock):
    """They nest, whatever scopes the consumer holds at each step."""

    async def limiting(call: Call, proceed: Any) -> Any:
        stream = await proceed()

        async def items() -> AsyncIterator[Any]:
            with trio.move_on_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    async for item in stream:
                        yield item
            yield "over"

        return items()

    service = Service()
    async with open_with(limiting, service=service) as ends:
        async with ends.client.stream("slow") as stream:
            with trio.move_on_after(1):
                assert await stream.receive() == 0
            with trio.CancelScope():
                assert await stream.receive() == "over"
        async with ends.client.stream("count") as stream:
            with trio.move_on_after(1):
                assert await stream.receive() == 0
            await trio.sleep(10)
            assert await stream.receive() == "over"


async def test_an_upload_that_an_interceptor_puts_in(autojump_clock):
    log: list[str] = []

    async def adding(call: Call, proceed: Any) -> Any:
        return await proceed(call.replace(args=[numbers(log)]))

    async with open_with(adding, service=Chat().table()) as ends:
        async with ends.client.stream("chat", 5) as stream:
            assert [item async for item in stream] == [0, 10, 20]
        with pytest.raises(RuntimeError, match="enter it with 'async with'"):
            await ends.client.stream("chat", 5).receive()


# --- contexts and tasks


async def test_a_context_that_is_wrapped(autojump_clock):
    log: list[str] = []

    async def around(call: Call, proceed: Any) -> Any:
        context = await proceed(call.replace(args=("changed",)))

        @asynccontextmanager
        async def timed() -> AsyncIterator[Any]:
            log.append("entering")
            try:
                async with context as value:
                    yield value
            finally:
                log.append("left")

        return timed() if call.method == "account" else context

    service = Service()
    async with open_ends(service, client_interceptors=[noting([], "a")]) as ends:
        async with ends.client.context("account", "a") as account:
            assert await account.debit(5) == 5
        with pytest.raises(ZeroDivisionError):
            async with ends.client.context("account", "a"):
                raise ZeroDivisionError
    async with open_with(around, service=service) as ends:
        service.log.clear()
        context = ends.client.context("account", "a")
        assert repr(context) == "<remote context account>"
        async with context:
            assert log == ["entering"]
        assert service.log == ["account changed"]
        with pytest.raises(ZeroDivisionError):
            async with ends.client.context("account", "a"):
                raise ZeroDivisionError
        with trio.move_on_after(1):
            async with ends.client.context("account", "a"):
                await trio.sleep_forever()
        await quiet()
        assert log == ["entering", "left"] * 3
        assert service.log == ["account changed"] * 3


async def test_a_context_suppresses(autojump_clock):
    @asynccontextmanager
    async def suppressing() -> AsyncIterator[int]:
        with suppress(RpcError):
            yield 5

    async with open_with(passing, service={"suppressing": suppressing}) as ends:
        async with ends.client.context("suppressing") as value:
            assert value == 5
            raise ValueError("mine")


async def test_a_task_is_its_whole_run(autojump_clock):
    log: list[str] = []
    service = Service()
    async with open_with(noting(log, "a"), service=service) as ends:
        async with trio.open_nursery() as nursery:
            assert await nursery.start(ends.client.proxy(Service).work, 5) == 5
            assert log == ["a: work"]
        assert log == ["a: work", "a left"]


# --- in every step


@pytest.mark.parametrize("interceptors", [[passing], [wrapping], [wrapping, wrapping]])
async def test_cancelling_at_every_step(interceptors, autojump_clock):
    chat = Chat()
    async with open_with(*interceptors, service={**chat.table(), "other": Service()}) as ends:

        async def call(cut: Cut) -> bool:
            with cut.arm():
                assert await ends.client.call("other.echo", "x") == "x"
                return True
            return False

        await sweep(call)
        for method, arguments in (("other.count", (5, 0)), ("chat", ())):
            for entered in (True, False):
                if method == "chat" and not entered:
                    continue
                await sweep(streaming(ends, method, arguments, entered=entered), at_least=5)


def streaming(ends: Ends, method: str, arguments: tuple[Any, ...], *, entered: bool) -> Any:
    async def stream(cut: Cut) -> bool:
        uploads = [] if arguments else [numbers([], 5)]
        stream = ends.client.stream(method, *arguments, *uploads, window=ONE)
        factor = 1 if arguments else 10
        with cut.arm():
            if entered:
                async with stream:
                    found = [item async for item in stream]
            else:
                found = [item async for item in stream]
            assert found == [factor * number for number in range(5)]
            return True
        return False

    return stream


@WRAPPERS
async def test_a_receive_that_is_cancelled_at_every_step(interceptors, autojump_clock):
    """Whatever the step, the next receive goes on where it was."""
    service = Service()
    async with open_with(*interceptors, service=service) as ends:

        async def receive(cut: Cut) -> bool:
            cancelled = False
            async with ends.client.stream("count", 3, 0, window=ONE) as stream:
                found: list[int] = []
                with cut.arm() as scope:
                    while True:
                        found.append(await anext(stream, -1))
                        if found[-1] == -1:
                            break
                cancelled = scope.cancelled_caught
                found += [item async for item in stream]
                assert [item for item in found if item != -1] == [0, 1, 2]
            return not cancelled

        await sweep(receive, at_least=3)
