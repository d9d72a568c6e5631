"""How a handler runs, and how it ends: docs/architecture.md has the points."""

from __future__ import annotations

import contextvars
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing

from tests.runtime.ends import Steps, open_ends, quiet
from trio_streamrpc import (
    CallCancelled,
    CleanupTimeout,
    Code,
    ConnectionLost,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    Limits,
    NotFound,
    RemoteError,
    ResourceExhausted,
    RpcError,
    Unavailable,
    Window,
    current_call,
    rpc,
)

ONE = Window(1, 1000)


class Log(list[str]):
    """What happened, in order."""


def service(*functions: Callable[..., Any]) -> dict[str, Any]:
    return {function.__name__: function for function in functions}


# --- leaving a block


async def test_leaving_a_block_waits_for_the_remote_finally(autojump_clock):
    """R7: the final frame is the proof that the handler has finished, its awaits included."""
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        try:
            for number in range(1000):
                yield number
        finally:
            await trio.sleep(2)
            log.append("finally")

    async with open_ends(service(ticks)) as ends:
        start = trio.current_time()
        async with ends.client.stream("ticks") as stream:
            assert await stream.receive() == 0
            log.append("leaving")
        log.append("left")
        assert trio.current_time() - start == pytest.approx(2)
        assert log == ["leaving", "finally", "left"]
        assert ends.up.sent("cancel") == [{"type": "cancel", "id": 1, "mode": "close"}]
        # R6: "end" answers a cancel, too.
        assert ends.down.frames[-1] == {"type": "end", "id": 1}


async def test_leaving_by_an_exception_waits_as_well(autojump_clock):
    """R8: abort, with the error attached; the generator is closed as for close."""
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep(2)
            log.append("finally")

    async with open_ends(service(ticks)) as ends:
        with pytest.raises(ZeroDivisionError) as caught:
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
                raise ZeroDivisionError("mine \ud800")
        assert log == ["finally"]
        assert caught.value.__context__ is None
        (cancel,) = ends.up.sent("cancel")
        assert cancel.get("mode", "abort") == "abort"
        assert cancel["error"] == {
            "code": "CANCELLED",
            "name": "ZeroDivisionError",
            "message": "mine \\ud800",
        }


async def test_an_exception_whose_text_cannot_be_made_leaves_a_block_too(autojump_clock):
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    async def ticks() -> AsyncIterator[int]:
        while True:
            yield 1

    async with open_ends(service(ticks)) as ends:
        with pytest.raises(Mute):
            async with ends.client.stream("ticks"):
                raise Mute


async def test_a_cancelled_caller_does_not_wait(autojump_clock):
    """R7, R8: a cancelled caller asks with abort, and its block ends at once."""
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep(2)
            log.append("finally")

    async with open_ends(service(ticks)) as ends:
        start = trio.current_time()
        with trio.move_on_after(1):
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
                await trio.sleep_forever()
        assert trio.current_time() - start == pytest.approx(1)
        await quiet()
        assert log == []
        assert ends.up.sent("cancel") == [{"type": "cancel", "id": 1}]
        await trio.sleep(3)
        assert log == ["finally"]


async def test_a_caller_cancelled_among_other_failures_does_not_wait(autojump_clock):
    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep(2)

    async def fail() -> None:
        raise KeyError("k")

    async with open_ends(service(ticks)) as ends:
        start = trio.current_time()
        with pytest.raises(ExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                async with ends.client.stream("ticks"):
                    try:
                        async with trio.open_nursery() as inner:
                            inner.start_soon(trio.sleep_forever)
                            nursery.start_soon(fail)
                            await trio.sleep_forever()
                    finally:
                        assert trio.current_time() == start
        assert trio.current_time() == start
        assert caught.group_contains(KeyError)
        await trio.sleep(3)


@pytest.mark.parametrize("group", [True, False])
async def test_an_interrupted_block_does_not_wait_either(group, autojump_clock):
    """R7: who presses Ctrl-C does not wait for the other side's cleanup."""

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep(4)

    async with open_ends(service(ticks)) as ends:
        start = trio.current_time()
        with pytest.raises(BaseException) as caught:
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
                error: BaseException = KeyboardInterrupt()
                raise BaseExceptionGroup("g", [error]) if group else error
        assert isinstance(caught.value, BaseExceptionGroup if group else KeyboardInterrupt)
        assert trio.current_time() == start
        await trio.sleep(5)


async def test_cancelled_while_it_waits_close_becomes_abort(autojump_clock):
    """R8: whoever was leaving in peace and is cancelled asks again, and waits no longer."""

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep(3)

    async with open_ends(service(ticks)) as ends:
        start = trio.current_time()
        with trio.move_on_after(1) as scope:
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
        assert scope.cancelled_caught
        assert trio.current_time() - start == pytest.approx(1)
        await quiet()
        assert [frame.get("mode") for frame in ends.up.sent("cancel")] == ["close", None]
        await trio.sleep(3)


async def test_a_block_waits_at_most_cancel_timeout(autojump_clock):
    """R7: then it raises CleanupTimeout."""

    async def ticks() -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(20)

    limits = Limits(cleanup=60)
    async with open_ends(service(ticks), limits=limits) as ends:
        start = trio.current_time()
        with pytest.raises(CleanupTimeout, match=r"ticks had not finished 10\.0 s"):
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
        assert trio.current_time() - start == pytest.approx(10)
        # The id stays taken until the final frame (R7).
        assert 1 in ends.client.endpoint.exchanges
        await trio.sleep(30)


async def test_the_blocks_own_exception_comes_before_cleanup_timeout(autojump_clock):
    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep(20)

    async with open_ends(service(ticks), limits=Limits(cleanup=60)) as ends:
        with pytest.raises(KeyError) as caught:
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
                raise KeyError("mine")
        (note,) = caught.value.__notes__
        assert note.startswith("trio_streamrpc: CleanupTimeout: ticks had not finished")
        await trio.sleep(30)


# --- asked while it stands at a yield


@pytest.mark.parametrize("where", ["credit", "network", "own await"])
async def test_it_is_cancelled_alike_wherever_it_waits(where, autojump_clock):
    """R7, R8: for credit, for the network, in its own await."""
    log = Log()

    async def ticks() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            if where == "own await":
                await trio.sleep_forever()
            while True:
                yield bytes(10_000)
        finally:
            log.append("finally")
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            log.append("done")

    window = Window(4 if where == "credit" else 4000, 10_000_000)
    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks", window=window) as stream:
            assert await stream.receive() == b"first"
            if where == "network":
                ends.down.hold()
            await quiet()
            assert log == []
            ends.down.let_go()
        assert log == ["finally", "done"]


async def test_cleanup_at_a_yield_may_await_within_its_budget(autojump_clock):
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep(4.9)
            log.append("cleaned")

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks", window=ONE) as stream:
            await stream.receive()
        assert log == ["cleaned"]


async def test_cleanup_that_outlives_its_budget_is_cut_and_reported(autojump_clock):
    """R7, R22: the block raises it, since it was cleanup that was cut."""
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            try:
                await trio.sleep(5.1)
            except trio.Cancelled:
                log.append("cut")
                raise

    async with open_ends(service(ticks)) as ends:
        start = trio.current_time()
        with pytest.raises(CleanupTimeout, match=r"cleanup of ticks was cut short after 5\.0 s"):
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
        assert trio.current_time() - start == pytest.approx(5)
        assert log == ["cut"]
        (error,) = ends.down.sent("error")
        assert error["cleanup"] is True
        assert error["error"]["code"] == "DEADLINE_EXCEEDED"


async def test_the_budget_is_the_methods_own(autojump_clock):
    class Service:
        @rpc(cleanup=0.5)
        async def ticks(self) -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                await trio.sleep(1)

    async with open_ends(Service()) as ends:
        start = trio.current_time()
        with pytest.raises(CleanupTimeout, match=r"after 0\.5 s"):
            async with ends.client.proxy(Service).ticks():
                await quiet()
        assert trio.current_time() - start == pytest.approx(0.5)


async def test_the_blocks_own_exception_comes_before_a_remote_cleanup_timeout(autojump_clock):
    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep_forever()

    async with open_ends(service(ticks)) as ends:
        with pytest.raises(KeyError) as caught:
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
                raise KeyError("mine")
        (note,) = caught.value.__notes__
        assert note.startswith("trio_streamrpc: CleanupTimeout: the cleanup of ticks was cut")


async def test_what_cleanup_raises_comes_out_of_the_block(autojump_clock, caplog):
    """R22: cleanup errors are raised by the block that is left."""

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.sleep(1)
            raise ValueError("broken")

    async with open_ends(service(ticks)) as ends:
        with pytest.raises(RemoteError, match="ValueError: broken"):
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
        with pytest.raises(RemoteError, match="ValueError: broken") as caught:
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
                raise KeyError("mine")
        assert isinstance(caught.value.__context__, KeyError)
        with pytest.raises(RemoteError, match="ValueError: broken"):
            stream = ends.client.stream("ticks")
            await stream.receive()
            await stream.aclose()
    assert len(caplog.records) == 3


async def test_an_error_that_was_not_read_is_dropped(autojump_clock, caplog):
    """R22: what arose before the handler was asked is none of the block's business."""

    async def ticks() -> AsyncIterator[int]:
        yield 1
        raise ValueError("before")

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks") as stream:
            await stream.receive()
            await quiet()
        async with ends.client.stream("ticks") as stream:
            await quiet()
    assert len(caplog.records) == 2


async def test_a_generator_without_an_await_is_closed(autojump_clock):
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            log.append("finally")

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks") as stream:
            await stream.receive()
        assert log == ["finally"]


@pytest.mark.parametrize("times", [1, 3])
async def test_a_generator_that_yields_in_its_finally(times, autojump_clock, caplog):
    """What it yields is dropped, the rest of its cleanup runs."""
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            for number in range(times):
                try:
                    yield number
                finally:
                    await trio.sleep(1)
                    log.append(f"after {number}")
            log.append("done")

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks") as stream:
            await stream.receive()
        # GeneratorExit is raised at that yield: the loop does not go on.
        assert log == ["after 0"]
    (record,) = caplog.records
    assert "ticks yielded while it was being closed" in record.getMessage()


async def test_a_generator_that_yields_again_and_again_ends_in_time(autojump_clock, caplog):
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        left = 3
        while left:
            try:
                yield 1
            except GeneratorExit:
                left -= 1
                await trio.sleep(1)
        log.append("ended")

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks") as stream:
            await stream.receive()
        assert log == ["ended"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING


async def test_a_generator_that_yields_for_ever_is_dropped(autojump_clock, caplog):
    """It is closed a bounded number of times, and reported; nothing spins."""

    stubborn = True

    async def ticks() -> AsyncIterator[int]:
        while True:
            try:
                yield 1
            except GeneratorExit:
                if not stubborn:
                    raise

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks") as stream:
            await stream.receive()
            with Steps() as steps:
                with pytest.raises(RemoteError, match=r"RuntimeError: .*ignored GeneratorExit"):
                    await stream.aclose()
        assert steps.count < 100
    stubborn = False
    assert any("would not be closed" in record.getMessage() for record in caplog.records)


async def test_asked_twice_is_asked_once(autojump_clock):
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            log.append("finally")
            await trio.sleep(3)
            log.append("done")

    async with open_ends(service(ticks)) as ends:
        with trio.move_on_after(1):
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
        await trio.sleep(4)
        assert log == ["finally", "done"]


async def test_asked_while_it_is_closed_for_another_reason(autojump_clock, caplog):
    """A cleanup that runs already keeps its budget."""
    log = Log()

    async def ticks() -> AsyncIterator[Any]:
        try:
            yield 1
            yield object()
        finally:
            await trio.sleep(3)
            log.append("cleaned")

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks") as stream:
            assert await stream.receive() == 1
            await trio.sleep(1)
        assert log == ["cleaned"]


# --- asked in an await of its own


async def test_in_its_own_await_it_is_cancelled_as_by_trio(autojump_clock):
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep_forever()
        except trio.Cancelled:
            log.append("cancelled")
            with pytest.raises(trio.Cancelled):
                await trio.lowlevel.checkpoint()
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            log.append("cleaned")
            raise

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks") as stream:
            await stream.receive()
            await quiet()
        assert log == ["cancelled", "cleaned"]
        assert ends.down.frames[-1] == {"type": "end", "id": 1}


async def test_a_generator_that_swallows_its_cancellation_and_yields(autojump_clock):
    """It is closed at that yield; what it yields goes nowhere, and nothing was cut short."""
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        yield 1
        try:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                log.append("swallowed")
            while True:
                yield 2
        finally:
            log.append("closed")
            await trio.sleep(1)
            log.append("not reached")

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks") as stream:
            await stream.receive()
            await quiet()
        assert log == ["swallowed", "closed"]
        assert ends.down.frames[-1] == {"type": "end", "id": 1}


async def test_a_generator_that_swallows_its_cancellation_and_returns(autojump_clock):
    async def ticks() -> AsyncIterator[int]:
        yield 1
        with suppress(trio.Cancelled):
            await trio.sleep_forever()

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks") as stream:
            await stream.receive()
            await quiet()


async def test_a_generator_asked_before_its_first_item(autojump_clock):
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        try:
            await trio.sleep_forever()
            yield 1
        finally:
            log.append("finally")

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks"):
            await quiet()
        assert log == ["finally"]


class TwoByTwo:
    """Hands on what was received when it has two frames: as if they had come in one message."""

    def __init__(self, receive: Callable[..., list[Any]]) -> None:
        self._receive = receive
        self._held: list[Any] = []

    def __call__(self, message: Any, now: float) -> list[Any]:
        self._held += self._receive(message, now)
        if len(self._held) < 2:
            return []
        found, self._held = self._held, []
        return found


async def test_a_handler_asked_before_it_started_never_runs(autojump_clock):
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        log.append("ran")
        yield 1

    async def unary() -> None:
        log.append("ran")

    async with open_ends(service(ticks, unary)) as ends:
        two_by_two: Any = TwoByTwo(ends.server.endpoint.receive)
        ends.server.endpoint.receive = two_by_two  # type: ignore[method-assign]
        with trio.move_on_after(1):
            await ends.client.call("unary")
        with trio.move_on_after(1):
            async with ends.client.stream("ticks"):
                await trio.sleep_forever()
        await quiet()
        assert log == []
        (error,) = ends.down.sent("error")
        assert error["error"]["code"] == "CANCELLED"
        assert ends.down.frames[-1]["type"] == "end"


async def test_asked_at_the_moment_it_finishes(autojump_clock):
    """R9: cancel and the final frame cross, and nothing is wrong."""

    async def ticks(count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    async def unary() -> int:
        return 1

    async with open_ends(service(ticks, unary)) as ends:
        for steps in range(12):
            for count in (0, 1, 2):
                async with ends.client.stream("ticks", count):
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ends.client.call, "unary")
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
        assert await ends.client.call("unary") == 1


# --- R7a


@pytest.mark.parametrize("kind", ["stream", "unary"])
async def test_a_handler_that_will_not_stop_keeps_its_place(kind, autojump_clock, caplog):
    """R7a: told after cleanup and a second, and its place is taken until it really ends."""
    release = trio.Event()

    class Service:
        @rpc(cleanup=2)
        async def ticks(self) -> AsyncIterator[int]:
            yield 1
            with trio.CancelScope(shield=True):
                await release.wait()

        @rpc(cleanup=2)
        async def unary(self) -> int:
            with trio.CancelScope(shield=True):
                await release.wait()
            return 1

    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:
        start = trio.current_time()
        if kind == "stream":
            with pytest.raises(CleanupTimeout, match=r"ticks has not stopped within 2 s"):
                async with ends.client.stream("ticks") as stream:
                    await stream.receive()
            assert trio.current_time() - start == pytest.approx(3)
        else:
            with trio.move_on_after(1):
                await ends.client.call("unary")
            assert trio.current_time() - start == pytest.approx(1)
            await trio.sleep(4)
        (error,) = ends.down.sent("error")
        assert error["error"]["name"] == "CleanupTimeout"
        assert error["cleanup"] is True
        assert ends.server.endpoint.places.running == 1
        budget = ends.server.endpoint.budget
        for _ in range(300):
            with pytest.raises(ResourceExhausted) as caught:
                await ends.client.call("unary")
            assert caught.value.retry
        assert ends.server.endpoint.budget is budget
        assert ends.server.callee.running == 1
        release.set()
        await quiet()
        assert ends.server.callee.running == 0
        assert await ends.client.call("unary") == 1
        messages = [record.getMessage() for record in caplog.records]
        assert [message.partition(" ")[2] for message in messages] == [
            "has not stopped 3.0 s after it was asked to; it keeps its place",
            "has stopped after all",
        ]


async def test_a_generator_that_will_not_stop_and_yields_after_all(autojump_clock, caplog):
    """R7a: nothing follows its final frame, whatever it still does."""
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        try:
            yield 1
            with trio.CancelScope(shield=True):
                await trio.sleep(8)
            for number in range(100):
                yield number
            raise ValueError("not reached")
        finally:
            log.append("finally")

    async with open_ends(service(ticks)) as ends:
        with pytest.raises(CleanupTimeout):
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
        await trio.sleep(10)
        assert log == ["finally"]
        assert ends.down.frames[-1]["type"] == "error"


async def test_an_error_after_the_final_frame_is_logged(autojump_clock, caplog):
    """R7a: nobody hears of it any more, so at least the log has it."""

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(8)
            raise ValueError("too late")

    async with open_ends(service(ticks)) as ends:
        with pytest.raises(CleanupTimeout):
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
        await trio.sleep(10)
    assert any(
        record.exc_info and "too late" in str(record.exc_info[1]) for record in caplog.records
    )


async def test_a_handler_that_will_not_stop_does_not_keep_the_connection_open(
    autojump_clock, caplog
):
    """R7a: the transport may close without it."""
    release = trio.Event()

    async def ticks() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            with trio.CancelScope(shield=True):
                await release.wait()

    async with open_ends(service(ticks), clean=False) as ends:
        with pytest.raises(CleanupTimeout):
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
        start = trio.current_time()
        await ends.client.aclose()
        await ends.server.wait_closed()
        assert trio.current_time() - start < 11
        await trio.sleep(20)
        release.set()


# --- scopes and nurseries that are open across a yield


async def test_a_scope_that_expires_while_the_runtime_waits_for_credit(autojump_clock):
    """A yield under move_on_after is an ordinary await; the generator goes on after the scope."""
    log = Log()

    async def ticks() -> AsyncIterator[str]:
        with trio.move_on_after(2) as scope:
            try:
                yield "a"
                yield "b"
            except trio.Cancelled:
                log.append("cancelled")
                raise
        assert scope.cancelled_caught
        await trio.lowlevel.checkpoint()
        yield "after"
        log.append("done")

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks", window=ONE) as stream:
            await trio.sleep(3)
            assert log == ["cancelled"]
            assert [item async for item in stream] == ["a", "after"]
        assert log == ["cancelled", "done"]


async def test_fail_after_around_a_yield(autojump_clock):
    async def ticks() -> AsyncIterator[str]:
        with trio.fail_after(2):
            yield "a"
            yield "b"

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks", window=ONE) as stream:
            await trio.sleep(3)
            assert await stream.receive() == "a"
            with pytest.raises(RemoteError, match="TooSlowError"):
                await stream.receive()


async def test_a_scope_cancelled_by_another_task_while_the_runtime_makes_a_pause(autojump_clock):
    """A producer that never awaits stands at a yield when the runtime checkpoints for it."""
    scopes: list[trio.CancelScope] = []

    async def ticks() -> AsyncIterator[int]:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            number = 0
            while True:
                yield number
                number += 1
        yield -1

    async def stop() -> None:
        scopes[0].cancel()

    async with open_ends(service(ticks, stop)) as ends:
        stream = ends.client.stream("ticks", window=Window(100_000, 8_000_000))
        async with stream:
            assert await stream.receive() == 0
            await ends.client.call("stop")
            items = [item async for item in stream]
            assert items == [*range(1, len(items)), -1]


async def test_a_child_that_crashes_while_the_generator_stands_at_a_yield(autojump_clock):
    async def crash() -> None:
        await trio.sleep(1)
        raise ValueError("child")

    async def ticks() -> AsyncIterator[int]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            while True:
                yield 1

    async def caught() -> AsyncIterator[str]:
        try:
            async for _ in ticks():
                yield "item"
        except* ValueError:
            pass
        yield "caught"

    async with open_ends(service(ticks, caught)) as ends:
        async with ends.client.stream("ticks", window=ONE) as stream:
            await trio.sleep(2)
            assert await stream.receive() == 1
            with pytest.raises(RemoteError) as error:
                await stream.receive()
        assert [each.name for each in error.value.causes] == ["ValueError"]


async def test_a_generator_that_catches_its_cancellation_and_yields(autojump_clock):
    """What it yields then is not lost, and waits for credit like any other item (R14)."""

    async def ticks() -> AsyncIterator[str]:
        with trio.move_on_after(1) as scope:
            try:
                yield "a"
            except trio.Cancelled:
                yield "late"
                raise AssertionError from None  # cancelled at that yield, since the scope still is
        assert scope.cancelled_caught
        yield "after"

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks", window=ONE) as stream:
            await trio.sleep(2)
            assert stream.statistics().items_received == 1
            items = []
            async for item in stream:
                items.append(item)
                await trio.sleep(1)
            assert items == ["a", "late", "after"]


@pytest.mark.parametrize("window", [ONE, Window(7, 10_000), Window(10_000, 1_000_000)])
async def test_no_item_of_a_generator_that_ignores_a_cancelled_scope_is_lost(
    window, autojump_clock
):
    """Not even where the runtime pauses for a producer that never awaits (R14)."""

    async def ticks() -> AsyncIterator[int]:
        number = 0
        with trio.CancelScope() as scope:
            scope.cancel()
            while number < 1000:
                with suppress(trio.Cancelled):
                    yield number
                number += 1

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks", window=window) as stream:
            with Steps() as steps:
                assert [item async for item in stream] == list(range(1000))
            assert steps.count < 20_000


async def test_the_state_of_scopes_after_a_yield(autojump_clock):
    """Scopes nest, before and after whatever was thrown in."""
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        with trio.CancelScope() as outer:
            with trio.move_on_after(1) as inner:
                yield 1
                yield 2
            log.append(f"{inner.cancelled_caught} {outer.cancel_called}")
            with trio.move_on_after(1) as second:
                await trio.sleep_forever()
            log.append(f"{second.cancelled_caught}")
            assert trio.current_effective_deadline() == float("inf")
            yield 3
        outer.cancel()
        await trio.lowlevel.checkpoint()
        yield 4

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks", window=ONE) as stream:
            await trio.sleep(2)
            assert [item async for item in stream] == [1, 3, 4]
        assert log == ["True False", "True"]


@pytest.mark.parametrize("inside", ["scope", "nursery", "both"])
@pytest.mark.parametrize("at", ["credit", "own await"])
async def test_closed_with_scopes_and_nurseries_open(inside, at, autojump_clock):
    """A group that holds nothing but GeneratorExit is a clean end."""
    log = Log()

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append("child")

    async def ticks() -> AsyncIterator[int]:
        try:
            if inside == "scope":
                with trio.move_on_after(1000):
                    yield 1
                    if at == "own await":
                        await trio.sleep_forever()
                    yield 2
            elif inside == "nursery":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(child)
                    yield 1
                    if at == "own await":
                        await trio.sleep_forever()
                    yield 2
            else:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(child)
                    with trio.fail_after(1000):
                        async with trio.open_nursery() as nested:
                            nested.start_soon(child)
                            yield 1
                            if at == "own await":
                                await trio.sleep_forever()
                            yield 2
        finally:
            log.append("finally")

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks", window=ONE) as stream:
            await quiet()
            if at == "own await":
                await stream.receive()
                await quiet()
        assert ends.down.frames[-1] == {"type": "end", "id": 1}
    assert log[-1] == "finally"
    assert log.count("child") == {"scope": 0, "nursery": 1, "both": 2}[inside]


async def test_a_nursery_whose_child_fails_while_it_is_closed(autojump_clock, caplog):
    """R22: what is left of the group without its GeneratorExit is the cleanup's error."""

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in cleanup")

    async def ticks() -> AsyncIterator[int]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            while True:
                yield 1

    async with open_ends(service(ticks)) as ends:
        with pytest.raises(RemoteError) as caught:
            async with ends.client.stream("ticks") as stream:
                await stream.receive()
                await quiet()
        assert caught.value.name == "ExceptionGroup"
        assert [each.name for each in caught.value.causes] == ["ValueError"]


async def test_a_generator_keeps_its_context(autojump_clock):
    variable = contextvars.ContextVar("variable", default="outside")

    async def ticks() -> AsyncIterator[str]:
        variable.set("inside")
        try:
            yield variable.get()
            yield variable.get()
        finally:
            variable.set(variable.get() + "!")
            seen.append(variable.get())
            seen.append(current_call().method)

    seen: list[str] = []
    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks", window=ONE) as stream:
            assert await stream.receive() == "inside"
            assert await stream.receive() == "inside"
            await quiet()
        assert seen == ["inside!", "ticks"]
    assert variable.get() == "outside"


# --- iterators that are no generators


class Numbers:
    """An async iterator with an ``aclose``, and no generator."""

    def __init__(self, log: Log, *, wait: bool = False) -> None:
        self.log = log
        self.wait = wait

    def __aiter__(self) -> Numbers:
        return self

    async def __anext__(self) -> int:
        if self.wait:
            await trio.sleep_forever()
        return 1

    async def aclose(self) -> None:
        self.log.append("closed")
        await trio.lowlevel.checkpoint()


async def test_an_iterator_that_is_no_generator_is_closed_too(autojump_clock):
    """R8: at a yield or in its own await."""
    log = Log()

    async def standing() -> AsyncIterator[int]:
        return Numbers(log)

    async def waiting() -> AsyncIterator[int]:
        return Numbers(log, wait=True)

    async with open_ends(service(standing, waiting)) as ends:
        async with ends.client.stream("standing") as stream:
            assert await stream.receive() == 1
        assert log == ["closed"]
        async with ends.client.stream("waiting"):
            await quiet()
        assert log == ["closed", "closed"]


async def test_an_iterator_without_aclose(autojump_clock):
    class Plain:
        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> int:
            return 1

    async def ticks() -> AsyncIterator[int]:
        return Plain()

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks") as stream:
            assert await stream.receive() == 1


async def test_an_iterator_that_holds_a_scope_and_cannot_be_told(autojump_clock, caplog):
    """The yield is out of reach: the stream ends by an error, and no scope is corrupted."""
    log = Log()

    async def ticks() -> AsyncIterator[int]:
        try:
            with trio.move_on_after(1):
                yield 1
                yield 2
        finally:
            log.append("finally")

    class Wrapped:
        def __init__(self) -> None:
            self.inner = ticks()

        def __aiter__(self) -> Wrapped:
            return self

        async def __anext__(self) -> int:
            return await anext(self.inner)

        async def aclose(self) -> None:
            await self.inner.aclose()  # type: ignore[attr-defined]

    async def wrapped() -> AsyncIterator[int]:
        return Wrapped()

    async with open_ends(service(wrapped)) as ends:
        async with ends.client.stream("wrapped", window=ONE) as stream:
            await trio.sleep(2)
            assert await stream.receive() == 1
            with pytest.raises(RpcError):
                await stream.receive()
        assert log == ["finally"]


async def test_a_memory_channel_as_a_stream(autojump_clock):
    """It is closed with the stream, so that whoever fills it hears of the end."""
    send, receive = trio.open_memory_channel[int](0)

    async def ticks() -> AsyncIterator[int]:
        return receive

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks") as stream:
            await send.send(1)
            assert await stream.receive() == 1
            await quiet()
        with pytest.raises(trio.BrokenResourceError):
            await send.send(2)


async def test_a_stream_method_that_gives_another_of_this_service(autojump_clock):
    """What a local stream method returns is a stream like any other, scopes in it included."""
    log = Log()

    class Service:
        @rpc
        async def inner(self) -> AsyncIterator[int]:
            try:
                with trio.move_on_after(1):
                    yield 1
                    yield 2
                yield 3
            finally:
                await trio.sleep(1)
                log.append("finally")

        @rpc
        async def outer(self) -> AsyncIterator[int]:
            return self.inner()

    async with open_ends(Service()) as ends:
        async with ends.client.stream("outer", window=ONE) as stream:
            assert await stream.receive() == 1
        assert log == ["finally"]
        async with ends.client.stream("outer", window=ONE) as stream:
            await trio.sleep(2)
            assert [item async for item in stream] == [1, 3]


async def test_a_contract_without_a_body_is_an_error_of_that_call(autojump_clock, caplog):
    class Service:
        @rpc
        async def ticks(self) -> AsyncIterator[int]: ...  # type: ignore[empty-body]

    async with open_ends(Service()) as ends:
        async with ends.client.proxy(Service).ticks() as stream:
            with pytest.raises(RpcError):
                await stream.receive()


# --- unary calls


async def test_a_cancelled_caller_cancels_its_handler(autojump_clock):
    """R7, R8."""
    log = Log()

    async def slow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append("cancelled")

    async with open_ends(service(slow)) as ends:
        start = trio.current_time()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ends.client.call, "slow")
                await quiet()
                scope.cancel()
        assert trio.current_time() == start
        await quiet()
        assert log == ["cancelled"]
        (error,) = ends.down.sent("error")
        assert error["error"]["code"] == "CANCELLED"


async def test_a_handler_that_swallows_its_cancellation_and_returns(autojump_clock):
    async def stubborn() -> str:
        with suppress(trio.Cancelled):
            await trio.sleep_forever()
        return "done all the same"

    async with open_ends(service(stubborn)) as ends:
        with trio.move_on_after(1):
            await ends.client.call("stubborn")
        await quiet()
        (result,) = ends.down.sent("result")
        assert result["value"] == "done all the same"


async def test_a_handler_that_raises_when_it_is_cancelled(autojump_clock, caplog):
    async def angry() -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise ValueError("angry") from None

    async with open_ends(service(angry)) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "angry")
            await quiet()
            nursery.cancel_scope.cancel()
        await quiet()
        (error,) = ends.down.sent("error")
        assert error["cleanup"] is True
    assert len(caplog.records) == 1


async def test_sync_functions_are_handlers(autojump_clock):
    class Service:
        @rpc
        def add(self, left: int, right: int = 1) -> int:
            return left + right

        @rpc
        def later(self) -> Any:
            return trio.sleep(1)  # noqa: ASYNC105  # the runtime awaits it

    async with open_ends(Service()) as ends:
        assert await ends.client.call("add", 1) == 2
        assert await ends.client.call("add", 1, right=2) == 3
        assert await ends.client.call("later") is None


# --- R23


async def test_the_deadline_travels(autojump_clock):
    """R23: what is left when the call is sent; the handler sees it, and calls inherit it."""

    async def left() -> list[float]:
        return [
            current_call().deadline - trio.current_time(),
            trio.current_effective_deadline() - trio.current_time(),
        ]

    async with open_ends(service(left)) as ends:
        with trio.fail_after(5):
            await trio.sleep(1)
            assert await ends.client.call("left") == pytest.approx([4, 4])
        assert await ends.client.call("left") == [float("inf")] * 2
        (first, second) = ends.up.sent("call")
        assert first["timeout"] == pytest.approx(4)
        assert "timeout" not in second


async def test_a_short_deadline_and_a_sleeping_handler(autojump_clock):
    """R23: the user sees the scope's own error, and the handler is cancelled in time."""
    log = Log()

    async def slow() -> None:
        try:
            await trio.sleep(10)
        finally:
            log.append(f"{trio.current_time() - start:.3f}")

    async with open_ends(service(slow)) as ends:
        start = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(0.001):
                await ends.client.call("slow")
        assert trio.current_time() - start == pytest.approx(0.001)
        await quiet()
        assert log == ["0.001"]
        with trio.move_on_after(0.001) as scope:
            await ends.client.call("slow")
        assert scope.cancelled_caught


async def test_the_callee_enforces_the_deadline_by_itself(autojump_clock):
    """R23: even if no cancel comes; DEADLINE_EXCEEDED is what it answers."""
    log = Log()

    async def slow() -> None:
        try:
            await trio.sleep(10)
        finally:
            log.append("cancelled")

    async with open_ends(service(slow)) as ends:
        with trio.move_on_after(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ends.client.call, "slow")
                await quiet()
                ends.up.hold()
                await trio.sleep_forever()
        await quiet()
        assert log == ["cancelled"]
        ends.up.let_go()
        await quiet()
        (error,) = ends.down.sent("error")
        assert error["error"]["code"] == "DEADLINE_EXCEEDED"


async def test_a_deadline_that_is_used_up_on_the_way_is_not_dispatched(autojump_clock):
    """R23: the handler does not run at all."""
    log = Log()

    async def run() -> None:
        log.append("ran")

    async with open_ends(service(run)) as ends:
        frame = {"type": "call", "id": 1, "method": "run", "timeout": 0.0}
        call = ends.client.endpoint.call

        def at_once(*args: Any, **options: Any) -> Any:
            return call(*args, **{**options, "timeout": 0.0})

        ends.client.endpoint.call = at_once  # type: ignore[method-assign]
        with pytest.raises(DeadlineExceeded, match="the deadline has passed"):
            await ends.client.call("run")
        assert log == []
        assert ends.up.sent("call")[0]["timeout"] == frame["timeout"]


async def test_a_handler_that_swallows_its_deadline(autojump_clock):
    """R23: exactly one outcome, and the caller's own scope decides."""

    async def stubborn() -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return "after all"

    async with open_ends(service(stubborn)) as ends:
        with trio.move_on_after(1) as scope:
            await ends.client.call("stubborn")
        assert scope.cancelled_caught
        await quiet()
        assert len(ends.down.sent("result", "error")) == 1


async def test_a_stream_is_not_ended_by_a_deadline_on_the_wire(autojump_clock):
    """R23: streams are ended by abort alone."""

    async def ticks() -> AsyncIterator[float]:
        while True:
            yield current_call().deadline
            await trio.sleep(1)

    async with open_ends(service(ticks)) as ends:
        with trio.move_on_after(3.5):
            async with ends.client.stream("ticks") as stream:
                async for item in stream:
                    assert item == float("inf")
        assert "timeout" not in ends.up.sent("call")[0]
        await quiet()


# --- what a handler raises, what it gives


async def test_an_exception_in_a_handler_is_an_answer_and_nothing_else(autojump_clock, caplog):
    async def fail(kind: str) -> None:
        if kind == "exit":
            raise GeneratorExit
        if kind == "group":
            raise ExceptionGroup("parts", [ValueError("a"), KeyError("b")])
        raise ValueError("broken")

    async def ticks() -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    async with open_ends(service(fail, ticks)) as ends:
        async with ends.client.stream("ticks", window=ONE) as stream:
            assert await stream.receive() == 0
            for kind, name in [("value", "ValueError"), ("exit", "GeneratorExit")]:
                with pytest.raises(RemoteError) as caught:
                    await ends.client.call("fail", kind)
                assert caught.value.name == name
            with pytest.raises(RemoteError) as caught:
                await ends.client.call("fail", "group")
            assert caught.value.name == "ExceptionGroup"
            assert [(each.name, each.message) for each in caught.value.causes] == [
                ("ValueError", "a"),
                ("KeyError", "'b'"),
            ]
            assert await stream.receive() == 1
    assert len(caplog.records) == 3


async def test_a_cancellation_from_elsewhere_is_an_error_like_any_other(autojump_clock, caplog):
    """A Cancelled that was kept and raised where nothing is cancelled ends that call alone."""
    kept: list[BaseException] = []

    async def keep() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                kept.append(error)

    async def fail(group: bool) -> None:
        raise BaseExceptionGroup("g", [kept[0], ValueError()]) if group else kept[0]

    async with open_ends(service(keep, fail)) as ends:
        await ends.client.call("keep")
        for group in (False, True):
            with pytest.raises(RpcError):
                await ends.client.call("fail", group)
        await ends.client.call("keep")
    kept.clear()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("alone", [True, False])
async def test_an_interrupt_ends_everything(error, alone, autojump_clock):
    """Out of a handler, it comes out of the side that serves as it is, whatever else runs."""
    log = Log()

    async def interrupt() -> None:
        raise error("stop")

    async def sleep() -> None:
        try:
            await trio.sleep_forever()
        finally:
            log.append("slept")

    with pytest.raises(error, match="stop"):
        async with open_ends(service(interrupt, sleep), clean=False) as ends:
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                if not alone:
                    nursery.start_soon(ends.client.call, "sleep")
                    await quiet()
                await ends.client.call("interrupt")
    assert trio.current_time() - start < 2
    assert log == [] if alone else ["slept"]


async def test_an_unencodable_item_closes_the_generator(autojump_clock, caplog):
    log = Log()

    async def ticks() -> AsyncIterator[Any]:
        try:
            yield 1
            yield object()
        finally:
            await trio.sleep(1)
            log.append("closed")

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks") as stream:
            assert await stream.receive() == 1
            with pytest.raises(RemoteError, match="an item, of type object, cannot be encoded"):
                await stream.receive()
            assert log == ["closed"]
    assert len(caplog.records) == 1


async def test_an_unencodable_item_and_a_cleanup_that_hangs(autojump_clock, caplog):
    """The item's error is the one that is told: it is what came first."""

    async def ticks() -> AsyncIterator[Any]:
        try:
            yield object()
        finally:
            await trio.sleep_forever()

    async with open_ends(service(ticks)) as ends:
        async with ends.client.stream("ticks") as stream:
            with pytest.raises(RemoteError, match="cannot be encoded"):
                await stream.receive()


async def test_an_unencodable_result(autojump_clock, caplog):
    async def thing() -> Any:
        return object()

    async with open_ends(service(thing)) as ends:
        with pytest.raises(RemoteError, match=r"thing\(\): its result, of type object"):
            await ends.client.call("thing")
    assert len(caplog.records) == 1


async def test_what_is_too_long_is_an_error_of_that_call(autojump_clock):
    """R28: equal passes and one more fails; the generator is closed, and the connection lives."""
    log = Log()

    async def text(length: int) -> str:
        return "x" * length

    async def texts(*lengths: int) -> AsyncIterator[str]:
        try:
            for length in lengths:
                yield "x" * length
        finally:
            log.append("closed")

    limits = Limits(max_message_bytes=2_000, max_value_bytes=10_000)
    async with open_ends(service(text, texts), limits=limits) as ends:
        longest = 9_900
        with pytest.raises(ResourceExhausted, match="the result would take"):
            while True:
                assert len(await ends.client.call("text", longest + 1)) == longest + 1
                longest += 1
        assert 9_990 < longest < 10_000
        with pytest.raises(ResourceExhausted):
            await ends.client.call("text", longest + 1)
        async with ends.client.stream("texts", longest, longest + 1, 1) as stream:
            assert len(await stream.receive()) == longest
            with pytest.raises(ResourceExhausted, match="the item would take"):
                await stream.receive()
            assert log == ["closed"]


async def test_arguments_that_do_not_fit_never_reach_the_handler(autojump_clock):
    async def add(left: int, right: int) -> int:
        raise AssertionError

    async def ticks(count: int) -> AsyncIterator[int]:
        raise AssertionError
        yield 1

    async with open_ends(service(add, ticks)) as ends:
        with pytest.raises(InvalidArgument, match=r"\$\.right"):
            await ends.client.call("add", 1, "2")
        async with ends.client.stream("ticks", "x") as stream:
            with pytest.raises(InvalidArgument, match=r"\$\.count"):
                await stream.receive()


# --- R14


async def test_the_look_ahead_is_the_window_in_items(autojump_clock):
    """R14: the generator is asked for its next item only when that may be sent."""
    asked = [0]

    async def ticks() -> AsyncIterator[int]:
        while True:
            asked[0] += 1
            yield asked[0]

    async with open_ends(service(ticks)) as ends:
        for items in (1, 2, 3, 8, 200):
            asked[0] = 0
            async with ends.client.stream("ticks", window=Window(items, 100_000)) as stream:
                await quiet()
                assert asked[0] == items
                taken = 0
                while taken < 3 * items:
                    await stream.receive()
                    await quiet()
                    taken += 1
                    # R15: credit comes back once half of the window has been taken.
                    half = (items + 1) // 2
                    assert asked[0] == items + taken // half * half


async def test_the_look_ahead_is_the_window_in_bytes(autojump_clock):
    """R14: while byte credit is above 0, so a large item always gets through."""
    asked = [0]

    async def ticks(size: int) -> AsyncIterator[bytes]:
        while True:
            asked[0] += 1
            yield bytes(size)

    async with open_ends(service(ticks)) as ends:
        # 98 bytes are 100 in msgpack.
        for size, window, expected in [(98, 1000, 10), (98, 1001, 11), (98, 999, 10), (98, 1, 1)]:
            asked[0] = 0
            async with ends.client.stream("ticks", size, window=Window(500, window)) as stream:
                await quiet()
                assert asked[0] == expected
                assert stream.statistics().bytes_received == expected * 100
                assert stream.statistics().peak_items_buffered == expected
        async with ends.client.stream("ticks", 500_000, window=Window(500, 100)) as stream:
            for count in range(1, 4):
                asked[0] = count - 1
                assert len(await stream.receive()) == 500_000
                await quiet()


async def test_a_producer_that_never_awaits_starves_nobody(autojump_clock):
    """A call beside it is answered after a bounded number of its items."""
    asked = [0]

    async def flood() -> AsyncIterator[int]:
        while True:
            asked[0] += 1
            yield asked[0]

    async def ping() -> int:
        return asked[0]

    async with open_ends(service(flood, ping)) as ends:
        async with ends.client.stream("flood", window=Window(1_000_000, 8_000_000)) as stream:
            await stream.receive()
            for _ in range(10):
                before = asked[0]
                answered = await ends.client.call("ping")
                assert answered - before < 256 * 20
                assert asked[0] - before < 256 * 20


async def test_a_producer_whose_items_take_long_starves_nobody(autojump_clock):
    """By time, and not only by items: a call beside it waits for a few of them."""
    asked = [0]

    async def slow() -> AsyncIterator[int]:
        while True:
            asked[0] += 1
            autojump_clock.jump(0.001)  # a millisecond of work, without an await
            yield asked[0]

    async def ping() -> int:
        return asked[0]

    async with open_ends(service(slow, ping)) as ends:
        async with ends.client.stream("slow", window=Window(1_000_000, 8_000_000)) as stream:
            await stream.receive()
            for _ in range(10):
                before = asked[0]
                await ends.client.call("ping")
                assert asked[0] - before <= 10


async def test_producers_that_never_await_share_their_time(autojump_clock):
    """However many they are: together they take no more than one would."""
    asked = [0]

    async def busy() -> AsyncIterator[int]:
        while True:
            asked[0] += 1
            autojump_clock.jump(0.00005)
            yield asked[0]

    async def ping() -> float:
        return trio.current_time()

    async with open_ends(service(busy, ping)) as ends:
        async with AsyncExitStack() as stack:
            for _ in range(50):
                stream = ends.client.stream("busy", window=Window(1_000_000, 8_000_000))
                await stack.enter_async_context(stream)
            await quiet_steps(20)
            worst = 0.0
            for _ in range(5):
                begin = trio.current_time()
                await ends.client.call("ping")
                worst = max(worst, trio.current_time() - begin)
            # 50 pumps with half a millisecond each would take 25 ms for every step of a call.
            assert worst < 0.05


async def quiet_steps(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


# --- a side that goes away


async def test_a_stream_cut_by_the_side_that_closes_is_no_complete_stream(autojump_clock):
    """R6: UNAVAILABLE, and never an end."""
    log = Log()

    async def standing() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await trio.sleep(1)
            log.append("finally")

    async def waiting() -> AsyncIterator[int]:
        yield 1
        await trio.sleep_forever()

    async def unary() -> None:
        await trio.sleep_forever()

    async with open_ends(service(standing, waiting, unary), clean=False) as ends:
        async with (
            ends.client.stream("standing", window=ONE) as standing_stream,
            ends.client.stream("waiting") as waiting_stream,
            trio.open_nursery() as nursery,
        ):

            async def expect_unavailable() -> None:
                with pytest.raises(Unavailable):
                    await ends.client.call("unary")

            nursery.start_soon(expect_unavailable)
            await quiet()
            nursery.start_soon(ends.server.aclose)
            await trio.sleep(2)
            assert log == ["finally"]
            for stream in (standing_stream, waiting_stream):
                assert await stream.receive() == 1
                with pytest.raises(Unavailable, match="going away"):
                    await stream.receive()


async def test_a_generator_that_ends_by_itself_while_its_side_goes_away(autojump_clock):
    """R6: it was exhausted, so its end is an end."""

    async def ticks() -> AsyncIterator[int]:
        yield 1
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return

    async with open_ends(service(ticks), clean=False) as ends:
        async with ends.client.stream("ticks") as stream:
            assert await stream.receive() == 1
            await quiet()
            await ends.server.aclose()
            with pytest.raises(trio.EndOfChannel):
                await stream.receive()


async def test_codes_that_stop_a_call(autojump_clock):
    """R6: CANCELLED where the other side stopped it for its caller."""

    async def stop() -> None:
        raise CallCancelled("by itself")

    async with open_ends(service(stop)) as ends:
        with pytest.raises(CallCancelled, match="by itself") as caught:
            await ends.client.call("stop")
        assert caught.value.code is Code.CANCELLED


async def test_a_result_that_does_not_match_is_the_other_sides_fault(autojump_clock):
    class Server:
        @rpc
        async def number(self) -> str:
            return "five"

        @rpc
        async def numbers(self) -> AsyncIterator[Any]:
            yield 1
            yield "two"
            yield 3

    class Contract:
        @rpc
        async def number(self) -> int: ...  # type: ignore[empty-body]

        @rpc
        async def numbers(self) -> AsyncIterator[int]: ...  # type: ignore[empty-body]

    async with open_ends(Server()) as ends:
        api = ends.client.proxy(Contract)
        with pytest.raises(
            InternalError, match=r"the result of Contract.number\(\) does not match int"
        ):
            await api.number()
        async with api.numbers() as stream:
            assert await stream.receive() == 1
            with pytest.raises(InternalError, match=r"an item of Contract.numbers\(\)"):
                await stream.receive()
            assert await stream.receive() == 3
            with pytest.raises(trio.EndOfChannel):
                await stream.receive()


# --- what it keeps


async def test_arguments_are_the_handlers_to_keep_or_not(autojump_clock):
    """A handler that is done with a large argument is not made to hold on to it."""
    log = Log()

    async def unary(value: Tracked) -> None:
        reference = weakref.ref(value)
        del value
        await trio.sleep(1)
        log.append(str(reference()))

    async def ticks(value: Tracked) -> AsyncIterator[int]:
        reference = weakref.ref(value)
        del value
        yield 1
        log.append(str(reference()))

    async with open_ends(service(unary, ticks)) as ends:
        for left in (None, 5):
            with trio.CancelScope(deadline=trio.current_time() + (left or float("inf"))):
                await ends.client.call("unary", {"text": "x"})
        assert [item async for item in ends.client.stream("ticks", {"text": "x"})] == [1]
        assert log == ["None"] * 3


@dataclass
class Tracked:
    text: str


async def test_a_failed_handler_leaves_nothing_for_the_garbage_collector(autojump_clock):
    """Its exception is not kept alive by a cycle of the runtime's own."""

    class Local:
        pass

    references: list[weakref.ref[Local]] = []

    async def fail() -> None:
        local = Local()
        references.append(weakref.ref(local))
        raise NotFound("x")

    async with open_ends(service(fail)) as ends:
        gc.collect()
        gc.disable()
        try:
            with pytest.raises(NotFound):
                await ends.client.call("fail")
            await quiet()
            assert references[0]() is None
        finally:
            gc.enable()


async def test_a_handler_that_closes_its_own_connection(autojump_clock):
    """It does not wait for itself."""

    async def leave() -> None:
        await current_call().connection.aclose()

    async with open_ends(service(leave), clean=False) as ends:
        start = trio.current_time()
        with pytest.raises((Unavailable, ConnectionLost)):
            await ends.client.call("leave")
        await ends.server.wait_closed()
        assert trio.current_time() == start
