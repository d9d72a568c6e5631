"""The onion, around the calls that are served: what interceptors see, give, change and leave."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.runtime.ends import Cut, open_ends, quiet, sweep
from tests.runtime.onions import ONE, Service, noting, plain, unawaited, wrapping
from tests.runtime.peer import open_against
from trio_streamrpc import (
    Call,
    Code,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RemoteError,
    RpcError,
    Unavailable,
    Window,
    current_call,
)
from trio_streamrpc.runtime.interceptors import Onion, checked, intercept
from trio_streamrpc.testing import open_pair

# --- what does not fit


@pytest.mark.parametrize("given", [None, 5, [1, 2], "text"])
async def test_what_is_no_stream_is_an_error_of_that_call(given, autojump_clock, caplog):
    async def answering(call: Call, proceed: Any) -> Any:
        return given

    async with open_ends(Service(), interceptors=[answering]) as ends:
        with pytest.raises(RemoteError, match=r"answering has given .*: count is a stream"):
            async with ends.client.stream("count") as stream:
                await stream.receive()
        with pytest.raises(RemoteError, match=r"answering has given .*: account is a context"):
            async with ends.client.context("account", "a"):
                pass
        assert await ends.client.call("echo", "a") == given
    assert [each.message for each in caplog.records] == ["count failed", "account failed"]


async def test_an_interceptor_that_is_no_async_function(autojump_clock, caplog):
    def forgetful(call: Call, proceed: Any) -> Any:
        return None

    async with open_ends(Service(), interceptors=[forgetful]) as ends:
        for _ in range(2):
            with pytest.raises(RemoteError, match=r"forgetful is no async function.*NoneType"):
                await ends.client.call("echo", "a")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("outer", [[], [wrapping], [unawaited]])
async def test_an_interceptor_that_does_not_await(outer, autojump_clock, caplog):
    """It is that call's error, which names the interceptor, and nothing was called."""
    service = Service()
    said = r"TypeError: the interceptor unawaited has given a coroutine.*: it has forgotten 'await'"
    async with open_ends(service, interceptors=[*outer, unawaited]) as ends:
        with pytest.raises(RemoteError, match=said) as caught:
            await ends.client.call("echo", "a")
        assert caught.value.code is Code.UNKNOWN
        with pytest.raises(RemoteError, match=said):
            async with ends.client.stream("count") as stream:
                await stream.receive()
        with pytest.raises(RemoteError, match=said):
            async with ends.client.context("account", "a"):
                pytest.fail("it was entered")
        async with trio.open_nursery() as nursery:
            with pytest.raises(RemoteError, match=said):
                await nursery.start(ends.client.proxy(Service).work, 5)
    gc.collect()
    assert service.log == []
    assert [each.message for each in caplog.records] == [
        f"{method} failed" for method in ("echo", "count", "account", "work")
    ]


async def test_an_awaitable_that_is_no_coroutine(autojump_clock):
    class Later:
        def __await__(self) -> Any:
            yield

    async def answering(call: Call, proceed: Any) -> Any:
        return Later()

    async with open_ends(Service(), interceptors=[answering]) as ends:
        with pytest.raises(RemoteError, match=r"answering has given an awaitable, Later"):
            await ends.client.call("echo", "a")


async def test_a_context_that_may_be_awaited_as_well(autojump_clock):
    class Opening:
        def __init__(self, context: Any) -> None:
            self.context = context

        def __await__(self) -> Any:
            return self.context.__aenter__().__await__()

        async def __aenter__(self) -> Any:
            return await self.context.__aenter__()

        async def __aexit__(self, *error: object) -> Any:
            return await self.context.__aexit__(*error)

    async def opening(call: Call, proceed: Any) -> Any:
        return Opening(await proceed())

    service = Service()
    for side in ("interceptors", "client_interceptors"):
        async with open_ends(service, **{side: [opening]}) as ends:  # type: ignore[arg-type]
            async with ends.client.context("account", "a"):
                pass
    assert service.log == ["account a"] * 2


async def test_what_cannot_be_an_interceptor_is_told_when_it_is_given():
    async def generator(call: Call, proceed: Any) -> AsyncIterator[Any]:
        yield await proceed()

    async def function(call: Call, proceed: Any) -> Any: ...

    for wrong in ([None], [5], [generator], [function, "text"]):
        with pytest.raises(TypeError, match="an interceptor is an async function, not"):
            checked(wrong)  # type: ignore[arg-type]
    for wrong in (function, 5, None):  # type: ignore[assignment]
        with pytest.raises(TypeError, match="interceptors are a sequence of async functions"):
            checked(wrong)  # type: ignore[arg-type]
    assert checked([function]) == (function,)
    for side in ("interceptors", "client_interceptors"):
        with pytest.raises(TypeError, match="an interceptor is an async function"):
            async with open_pair(Service(), **{side: [generator]}):  # type: ignore[arg-type]
                pass


async def test_what_is_no_call_cannot_be_gone_on_with(autojump_clock):
    async def wrong(call: Call, proceed: Any) -> Any:
        return await proceed(call.args)

    async with open_ends(Service(), interceptors=[wrong]) as ends:
        with pytest.raises(RemoteError, match=r"proceed\(\) takes the call, or nothing"):
            await ends.client.call("echo", "a")


async def test_arguments_that_do_not_fit_any_more(autojump_clock, caplog):
    async def wrong(call: Call, proceed: Any) -> Any:
        return await proceed(call.replace(args=(1, 2, 3), kwargs={"other": 5}))

    async with open_ends(Service(), interceptors=[wrong]) as ends:
        with pytest.raises(RemoteError, match="unexpected keyword argument 'other'"):
            await ends.client.call("metadata")
    assert len(caplog.records) == 1


async def test_an_unexpected_exception_is_that_calls_error_and_logged_once(autojump_clock, caplog):
    async def broken(call: Call, proceed: Any) -> Any:
        await proceed()
        raise ZeroDivisionError("mine")

    async def outer(call: Call, proceed: Any) -> Any:
        return await proceed()

    async with open_ends(Service(), interceptors=[outer, broken]) as ends:
        with pytest.raises(RemoteError, match="ZeroDivisionError: mine"):
            await ends.client.call("echo", "a")
        assert [each.message for each in caplog.records] == ["echo failed"]
        caplog.clear()
        with pytest.raises(RemoteError, match="ZeroDivisionError: mine"):
            async with ends.client.stream("count") as stream:
                await stream.receive()
        assert [each.message for each in caplog.records] == ["count failed"]


async def test_what_the_caller_sent_wrong_reaches_no_interceptor(autojump_clock):
    log: list[str] = []
    async with open_ends(Service(), interceptors=[noting(log, "a")]) as ends:
        with pytest.raises(InvalidArgument):
            await ends.client.call("echo")
        with pytest.raises(RpcError, match="no method 'absent'"):
            await ends.client.call("absent")
    assert log == []


# --- what they see and change


async def test_the_first_is_the_outermost(autojump_clock):
    log: list[str] = []
    async with open_ends(Service(), interceptors=[noting(log, "a"), noting(log, "b")]) as ends:
        assert await ends.client.call("echo", "x") == "x"
    assert log == ["a: echo", "b: echo", "b left", "a left"]


async def test_what_an_interceptor_sees_of_a_call(autojump_clock):
    calls: list[Call] = []

    async def seeing(call: Call, proceed: Any) -> Any:
        calls.append(call)
        assert current_call().method == call.method
        return await proceed()

    async with open_ends(Service(), interceptors=[seeing]) as ends:
        start = trio.current_time()
        with trio.fail_after(7):
            await ends.client.call("echo", "x", 5, 6, flag=True)
        await ends.client.call("echo", "y")
        (first, second) = calls
        assert first.connection is ends.server
        assert first.method == "echo"
        assert first.args == ("x", 5, 6)
        assert first.kwargs == {"flag": True}
        assert first.arguments == {"value": "x", 1: 5, 2: 6, "flag": True}
        assert first.parameters == ("value",)
        assert first.metadata == {}
        assert first.identity is None
        assert first.headers == ends.server.headers
        assert first.deadline == pytest.approx(start + 7)
        assert second.deadline == math.inf
        assert second.arguments == {"value": "y"}
        with pytest.raises(TypeError):
            first.kwargs["flag"] = False  # type: ignore[index]


async def test_the_arguments_of_a_handler_are_its_own(autojump_clock):
    async def shown() -> list[Any]:
        call = current_call()
        return [call.args, dict(call.kwargs), dict(call.arguments), call.parameters]

    async with open_ends({"shown": shown}, interceptors=[wrapping]) as ends:
        assert await ends.client.call("shown") == [[], {}, {}, []]


async def test_other_arguments_and_metadata(autojump_clock):
    async def changing(call: Call, proceed: Any) -> Any:
        metadata = {**call.metadata, "role": "guest"}
        if call.method == "echo":
            return await proceed(call.replace(args=["changed"]))
        return await proceed(call.replace(metadata=metadata))

    async def seeing(call: Call, proceed: Any) -> Any:
        assert call.metadata == {"role": "guest"} or call.args == ("changed",)
        return await proceed(call)

    async with open_ends(Service(), interceptors=[changing, seeing]) as ends:
        assert await ends.client.call("echo", "x", 5) == "changed"
        assert await ends.client.call("metadata") == {"role": "guest"}
        async with ends.client.stream("metadata_stream") as stream:
            assert [item async for item in stream] == [{"role": "guest"}] * 2


async def test_answering_refusing_and_mapping_errors(autojump_clock, caplog):
    async def guarding(call: Call, proceed: Any) -> Any:
        if call.method == "echo":
            return "from the cache"
        if call.method == "metadata":
            raise PermissionDenied("not for you")
        try:
            return await proceed()
        except ValueError as error:
            raise NotFound(f"mapped: {error}") from None

    service = Service()
    async with open_ends(service, interceptors=[guarding]) as ends:
        assert await ends.client.call("echo", "x") == "from the cache"
        with pytest.raises(PermissionDenied, match="not for you"):
            await ends.client.call("metadata")
        with pytest.raises(NotFound, match="mapped: broken"):
            await ends.client.call("fail")
    assert caplog.records == []


async def test_proceeding_twice(autojump_clock):
    attempts = 0

    async def flaky() -> int:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise Unavailable("not yet")
        return attempts

    async def retrying(call: Call, proceed: Any) -> Any:
        while True:
            try:
                return await proceed()
            except Unavailable:
                await trio.sleep(1)

    async with open_ends({"flaky": flaky}, interceptors=[retrying]) as ends:
        assert await ends.client.call("flaky") == 3
    assert trio.current_time() >= 2


async def test_the_deadline_covers_interceptors(autojump_clock):
    """R23: and what they wait for."""
    log: list[str] = []

    async def slow(call: Call, proceed: Any) -> Any:
        try:
            await trio.sleep(10)
        finally:
            log.append(f"at {trio.current_time() - start:.0f}")
        return await proceed()

    async with open_ends(Service(), interceptors=[slow]) as ends:
        start = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(3):
                await ends.client.call("echo", "x")
        await quiet()
        assert log == ["at 3"]


async def test_the_deadline_alone_ends_a_waiting_interceptor(autojump_clock):
    async def waiting(call: Call, proceed: Any) -> Any:
        await trio.sleep_forever()

    async with open_against("accepting", serving=Service(), interceptors=[waiting]) as (_, peer):
        await peer.says({"type": "call", "id": 1, "method": "metadata", "timeout": 2.0})
        answer = await peer.hears("error")
        assert answer["error"]["code"] == DeadlineExceeded.code


async def test_callbacks_are_not_intercepted_and_methods_of_objects_are(autojump_clock):
    log: list[str] = []

    async def answer(question: str) -> str:
        return question + "?"

    async with open_ends(
        Service(),
        interceptors=[noting(log, "there")],
        client_interceptors=[noting(log, "here")],
    ) as ends:
        assert await ends.client.call("ask", answer) == "why?"
        assert log == ["here: ask", "there: ask", "there left", "here left"]
        log.clear()
        api = ends.client.proxy(Service)
        async with api.account("a") as account:
            log.clear()
            assert await account.debit(5) == 5
            assert log == [
                "here: account.debit",
                "there: account.debit",
                "there left",
                "here left",
            ]
            log.clear()
            async with account.entries(3) as entries:
                assert [entry async for entry in entries] == [0, 1, 2]
            assert "there: account.entries" in log


async def test_a_context(autojump_clock):
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

        return timed() if call.method == "account" else await proceed()

    service = Service()
    async with open_ends(service, interceptors=[around]) as ends:
        async with ends.client.context("account", "a"):
            assert log == ["entering"]
        assert log == ["entering", "left"]
        assert service.log == ["account changed"]
        with pytest.raises(ZeroDivisionError):
            async with ends.client.context("account", "a"):
                raise ZeroDivisionError
        assert log[2:] == ["entering", "left"]


async def test_a_task_is_its_whole_run(autojump_clock):
    log: list[str] = []
    service = Service()
    async with open_ends(service, interceptors=[noting(log, "a")]) as ends:
        api = ends.client.proxy(Service)
        async with trio.open_nursery() as nursery:
            assert await nursery.start(api.work, 5) == 5
            assert log == ["a: work"]
        assert log == ["a: work", "a left"]
        assert service.log == ["work"]


async def test_a_task_that_an_interceptor_does_not_run(autojump_clock):
    async def answering(call: Call, proceed: Any) -> Any:
        return 5

    async with open_ends(Service(), interceptors=[answering]) as ends:
        api = ends.client.proxy(Service)
        async with trio.open_nursery() as nursery:
            with pytest.raises(RuntimeError, match="started"):
                await nursery.start(api.work, 5)


async def test_an_upload_that_an_interceptor_has_wrapped(autojump_clock):
    async def doubled(numbers: Any) -> AsyncIterator[int]:
        async for number in numbers:
            yield number * 2

    async def doubling(call: Call, proceed: Any) -> Any:
        return await proceed(call.replace(args=[doubled(call.arguments["numbers"])]))

    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async with open_ends(Service(), interceptors=[doubling]) as ends:
        assert await ends.client.call("upload", numbers()) == [0, 2, 4]


# --- streams


async def test_a_stream_as_it_is_wrapped_or_replaced(autojump_clock):
    async def choosing(call: Call, proceed: Any) -> Any:
        stream = await proceed()
        if call.arguments["stop"] == 1:
            return stream
        if call.arguments["stop"] == 2:
            return plain(plain(stream))

        class Others:
            def __aiter__(self) -> AsyncIterator[int]:
                return plain(Others.items())  # type: ignore[no-any-return]

            @staticmethod
            async def items() -> AsyncIterator[int]:
                yield 7

        return Others()

    service = Service()
    async with open_ends(service, interceptors=[choosing]) as ends:
        for stop, items in ((1, [0]), (2, [0, 1]), (3, [7])):
            async with ends.client.stream("count", stop) as stream:
                assert [item async for item in stream] == items
        assert service.log == ["count"] * 2


async def test_the_look_ahead_is_the_window_exactly(autojump_clock):
    """R14: a wrapper asks for nothing that was not asked of it."""
    for interceptors in ([], [wrapping], [wrapping, wrapping]):
        service = Service()
        async with open_ends(service, interceptors=interceptors) as ends:
            async with ends.client.stream("count", window=Window(8, 10_000)) as stream:
                await quiet()
                assert service.produced == 8
                for number in range(3):
                    assert await stream.receive() == number
                await quiet()
                assert service.produced == 8
                for number in range(3, 8):
                    assert await stream.receive() == number
                await quiet()
                assert service.produced == 16


@pytest.mark.parametrize("interceptors", [[], [wrapping], [wrapping, wrapping]])
async def test_leaving_waits_for_the_finally_of_a_wrapped_stream(interceptors, autojump_clock):
    """R7: also where a wrapper never closes what it iterates over, and that awaits in cleanup."""
    service = Service()
    async with open_ends(service, interceptors=interceptors) as ends:
        start = trio.current_time()
        async with ends.client.stream("count", window=ONE) as stream:
            async for item in stream:
                if item == 3:
                    break
        assert service.log == ["count"]
        assert trio.current_time() - start == pytest.approx(1)
        with pytest.raises(ZeroDivisionError):
            async with ends.client.stream("count") as stream:
                await stream.receive()
                raise ZeroDivisionError
        assert service.log == ["count"] * 2
        async with ends.client.stream("slow") as stream:
            await stream.receive()
            await quiet()
        assert service.log == ["count"] * 2 + ["slow"]
        with trio.move_on_after(5):
            async with ends.client.stream("count") as stream:
                await stream.receive()
                await trio.sleep_forever()
        await trio.sleep(2)
        assert service.log[3:] == ["count"]


@pytest.mark.parametrize("when", ["before", "peeked", "within", "closing"])
async def test_a_stream_is_closed_whose_interceptor_fails(when, autojump_clock, caplog):
    async def failing(call: Call, proceed: Any) -> Any:
        stream = await proceed()
        if when == "peeked":
            assert await anext(aiter(stream)) == 0
        if when in ("before", "peeked"):
            raise PermissionDenied("after all")

        async def items() -> AsyncIterator[Any]:
            try:
                async for item in stream:
                    yield item
                    if when == "within":
                        raise PermissionDenied("after all")
            finally:
                if when == "closing":
                    raise PermissionDenied("after all")

        return items()

    service = Service()
    async with open_ends(service, interceptors=[failing]) as ends:
        with pytest.raises(PermissionDenied, match="after all"):
            async with ends.client.stream("count", window=ONE) as stream:
                assert await stream.receive() == 0
                if when != "closing":
                    await stream.receive()
        assert service.log == ([] if when == "before" else ["count"])
    assert caplog.records == []


async def test_every_stream_that_was_made_is_closed(autojump_clock):
    async def twice(call: Call, proceed: Any) -> Any:
        first, second = await proceed(), await proceed()
        assert await anext(aiter(first)) == 0
        return plain(second)

    service = Service()
    async with open_ends(service, interceptors=[twice]) as ends:
        async with ends.client.stream("count") as stream:
            assert await stream.receive() == 0
        assert service.log == ["count"] * 2


async def test_what_an_inner_interceptor_has_made_is_closed_too(autojump_clock):
    log: list[str] = []

    class Items:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __aiter__(self) -> Items:
            return self

        async def __anext__(self) -> Any:
            return await anext(self.stream)

        async def aclose(self) -> None:
            log.append("closed")

    async def inner(call: Call, proceed: Any) -> Any:
        return Items(await proceed())

    async def refusing(call: Call, proceed: Any) -> Any:
        await proceed()
        raise PermissionDenied("after all")

    async with open_ends(Service(), interceptors=[wrapping, inner]) as ends:
        async with ends.client.stream("count") as stream:
            assert await stream.receive() == 0
    assert log == ["closed"]
    log.clear()
    async with open_ends(Service(), interceptors=[refusing, inner]) as ends:
        with pytest.raises(PermissionDenied):
            async with ends.client.stream("count") as stream:
                await stream.receive()
    assert log == ["closed"]


async def test_a_stream_method_called_in_place_is_wrapped_like_any_other(autojump_clock):
    service = Service()

    def inner() -> Any:
        return service.count(5)

    inner.__annotations__["return"] = AsyncIterator[int]
    async with open_ends({"inner": inner}, interceptors=[wrapping]) as ends:
        async with ends.client.stream("inner", window=ONE) as stream:
            assert await stream.receive() == 0
        assert service.log == ["count"]


async def test_a_stream_is_cut_short_by_its_interceptor(autojump_clock):
    async def first(call: Call, proceed: Any) -> Any:
        stream = await proceed()

        async def items() -> AsyncIterator[Any]:
            yield await anext(aiter(stream))

        return items()

    service = Service()
    async with open_ends(service, interceptors=[first]) as ends:
        async with ends.client.stream("count") as stream:
            assert [item async for item in stream] == [0]
            assert service.log == ["count"]


async def test_an_interceptor_that_waits_is_cancelled_with_its_call(autojump_clock):
    log: list[str] = []

    async def waiting(call: Call, proceed: Any) -> Any:
        try:
            await trio.sleep_forever()
        finally:
            log.append(call.method)

    async with open_ends(Service(), interceptors=[waiting]) as ends:
        for method in ("echo", "wait"):
            with trio.move_on_after(1):
                await ends.client.call(method, *(["x"] if method == "echo" else []))
        async with ends.client.stream("count"):
            await quiet()
        with trio.move_on_after(1):
            async with ends.client.context("account", "a"):
                pass
        await quiet()
        assert log == ["echo", "wait", "count", "account"]


async def test_a_wrapper_that_waits_is_cancelled_and_what_it_wraps_has_ended(autojump_clock):
    log: list[str] = []

    async def pausing(call: Call, proceed: Any) -> Any:
        stream = await proceed()

        async def items() -> AsyncIterator[Any]:
            try:
                async for item in stream:
                    yield item
                    await trio.sleep_forever()
            finally:
                log.append("wrapper")

        return items()

    async def count() -> AsyncIterator[int]:
        try:
            while True:
                yield 0
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            log.append("count")

    async with open_ends({"count": count}, interceptors=[pausing]) as ends:
        async with ends.client.stream("count") as stream:
            await stream.receive()
            await quiet()
        assert log == ["wrapper", "count"]


async def test_a_wrapper_that_calls_again(autojump_clock):
    """What it gets is closed after it, and a cancellation goes on into it."""
    log: list[str] = []

    async def again(call: Call, proceed: Any) -> Any:
        async def items() -> AsyncIterator[Any]:
            try:
                for _ in range(2):
                    async for item in await proceed():
                        yield item
            finally:
                log.append("wrapper")

        return items()

    service = Service()
    service.log = log
    async with open_ends(service, interceptors=[again]) as ends:
        async with ends.client.stream("count", 2) as stream:
            assert [item async for item in stream] == [0, 1, 0, 1]
        assert log == ["count", "count", "wrapper"]
        log.clear()
        async with ends.client.stream("count", 2, window=ONE) as stream:
            assert [await stream.receive() for _ in range(3)] == [0, 1, 0]
            await quiet()
        assert log == ["count", "wrapper", "count"]
        log.clear()
        async with ends.client.stream("limited", 3, window=ONE) as stream:
            await trio.sleep(5)
            assert [item async for item in stream] == [1]
        assert log == ["wrapper", "limited"]


# --- scopes that a wrapped generator holds open


@pytest.mark.parametrize("interceptors", [[], [wrapping], [wrapping, wrapping]])
async def test_a_scope_of_the_method_ends_its_stream(interceptors, autojump_clock):
    """A yield under move_on_after is like an ordinary await, whatever stands around it."""
    service = Service()
    async with open_ends(service, interceptors=interceptors) as ends:
        async with ends.client.stream("limited", 3, window=ONE) as stream:
            await trio.sleep(5)
            assert [item async for item in stream] == [1]
        assert service.log == ["limited"]
        with pytest.raises(RpcError) as caught:
            async with ends.client.stream("watched", window=ONE) as stream:
                await trio.sleep(5)
                async for _ in stream:
                    pass
        assert [type(cause) for cause in caught.value.causes] == [NotFound]


async def test_a_scope_of_the_method_that_ends_while_its_wrapper_waits(autojump_clock):
    async def pausing(call: Call, proceed: Any) -> Any:
        stream = await proceed()

        async def items() -> AsyncIterator[Any]:
            async for item in stream:
                yield item
                await trio.sleep(10)

        return items()

    service = Service()
    async with open_ends(service, interceptors=[pausing]) as ends:
        async with ends.client.stream("limited", 3) as stream:
            assert [item async for item in stream] == [1]
        assert service.log == ["limited"]


async def test_a_scope_of_a_wrapper_ends_the_stream(autojump_clock):
    async def limiting(call: Call, proceed: Any) -> Any:
        stream = await proceed()

        async def items() -> AsyncIterator[Any]:
            with trio.move_on_after(3):
                async for item in stream:
                    yield item
            yield "over"

        return items()

    service = Service()
    async with open_ends(service, interceptors=[limiting]) as ends:
        async with ends.client.stream("count", window=ONE) as stream:
            await trio.sleep(5)
            assert [item async for item in stream] == [0, "over"]
        async with ends.client.stream("slow") as stream:
            assert [item async for item in stream] == [0, "over"]
        assert service.log == ["count", "slow"]


async def test_a_stream_that_goes_on_after_its_scope_is_not_cut_in_silence(autojump_clock, caplog):
    """R6: its wrapper has ended with the scope, so nobody would see the rest."""
    service = Service()
    async with open_ends(service, interceptors=[wrapping]) as ends:
        with pytest.raises(RemoteError, match="went on after a cancellation of its own"):
            async with ends.client.stream("limited", 3, then=5, window=ONE) as stream:
                await trio.sleep(5)
                async for _ in stream:
                    pass


async def test_an_iterator_without_athrow_in_between(autojump_clock):
    class Items:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __aiter__(self) -> Items:
            return self

        async def __anext__(self) -> Any:
            return await anext(self.stream)

    async def inner(call: Call, proceed: Any) -> Any:
        return Items(await proceed())

    for interceptors in ([inner], [wrapping, inner], [inner, wrapping]):
        service = Service()
        async with open_ends(service, interceptors=interceptors) as ends:
            async with ends.client.stream("limited", 3, window=ONE) as stream:
                await trio.sleep(5)
                assert [item async for item in stream] == [1]
            assert service.log == ["limited"]


# --- in every step


@pytest.mark.parametrize("interceptors", [[wrapping], [wrapping, wrapping]])
async def test_cancelling_at_every_step(interceptors, autojump_clock):
    service = Service()
    async with open_ends(service, interceptors=interceptors) as ends:

        async def call(cut: Cut) -> bool:
            with cut.arm():
                assert await ends.client.call("echo", "x") == "x"
                return True
            return False

        async def stream(cut: Cut) -> bool:
            with cut.arm():
                async with ends.client.stream("count", 5, 0, window=ONE) as stream:
                    assert [item async for item in stream] == [0, 1, 2, 3, 4]
                return True
            return False

        async def context(cut: Cut) -> bool:
            with cut.arm():
                async with ends.client.proxy(Service).account("a") as account:
                    assert await account.debit(3) == 3
                return True
            return False

        await sweep(call)
        await sweep(stream, at_least=5)
        await sweep(context, at_least=3)


# --- the onion by itself


async def test_nothing_is_asked_of_an_onion_without_interceptors():
    async def innermost(call: Call) -> str:
        return call.method

    call = Call(None, "m", {}, math.inf)  # type: ignore[arg-type]
    assert await intercept(Onion((), innermost), call) == "m"


def test_what_may_be_replaced():
    call = Call(None, "m", {"a": 1}, math.inf, (1, 2), {"b": 2}, ("x", "y"))  # type: ignore[arg-type]
    changed = call.replace(args=[3], kwargs={"c": 4}, metadata={"d": 5})
    assert changed.args == (3,)
    assert (changed.kwargs, changed.metadata) == ({"c": 4}, {"d": 5})
    assert changed.arguments == {"x": 3, "c": 4}
    assert call.arguments == {"x": 1, "y": 2, "b": 2}
    for wrong in ("method", "connection", "deadline", "parameters"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{wrong}'"):
            call.replace(**{wrong: None})
    assert call.replace().arguments == call.arguments
    for each in ("kwargs", "metadata"):
        for given in (5, [1], {5: 1}):
            with pytest.raises(TypeError, match=f"the {each} of a call is a mapping of names"):
                call.replace(**{each: given})  # type: ignore[arg-type]


def test_a_positional_argument_hides_a_named_one_of_its_name():
    """``def f(user, /, **more)``: who asks for the user is told the user."""
    call = Call(None, "m", {}, math.inf, ("alice",), {"user": "root"}, ("user",))  # type: ignore[arg-type]
    assert call.arguments == {"user": "alice"}
    assert call.kwargs == {"user": "root"}


async def test_codes_of_unexpected_errors(autojump_clock, caplog):
    async def broken(call: Call, proceed: Any) -> Any:
        raise KeyError("secret")

    caplog.set_level(logging.ERROR)
    async with open_ends(Service(), interceptors=[broken], mask_errors=True) as ends:
        with pytest.raises(RpcError) as caught:
            await ends.client.call("echo", "x")
        assert caught.value.code is Code.INTERNAL
        assert "secret" not in caught.value.message
    assert len(caplog.records) == 1
