"""The side that calls: places, deadlines, cancellation, and what becomes of an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.runtime.ends import Cut, Ends, open_ends, quiet, sweep
from tests.runtime.peer import open_against
from trio_streamrpc import (
    ConnectionLost,
    DeadlineExceeded,
    InternalError,
    Limits,
    RemoteError,
    ResourceExhausted,
    RpcError,
    Unavailable,
    Unimplemented,
    Window,
    current_call,
    rpc,
)


class Service:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.running = 0
        self.most = 0

    @rpc
    async def echo(self, value: Any) -> Any:
        return value

    @rpc
    async def work(self, seconds: float = 1) -> float:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.log.append("cancelled")
            raise
        finally:
            self.running -= 1
        return seconds

    @rpc
    async def ticks(self) -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1


async def call_in(nursery: trio.Nursery, ends: Ends, *args: Any) -> list[BaseException]:
    """A call in a task of its own; what it raises is put into the list."""
    raised: list[BaseException] = []

    async def call() -> None:
        try:
            await ends.client.call(*args)
        except RpcError as error:
            raised.append(error)

    nursery.start_soon(call)
    await quiet()
    return raised


# --- R26: places


@pytest.mark.parametrize("max_calls", [1, 3])
async def test_callers_wait_for_a_place(max_calls, autojump_clock):
    """R26: ten callers, and all of them succeed."""
    service = Service()
    results: list[int] = []

    async def call(number: int) -> None:
        results.append(await ends.client.call("echo", number))
        assert await ends.client.call("work", 1) == 1

    async with open_ends(service, limits=Limits(max_calls=max_calls)) as ends:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(call, number)
        assert sorted(results) == list(range(10))
        assert service.most == max_calls


async def test_streams_wait_for_a_place_too(autojump_clock):
    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:

        async def take() -> None:
            async with ends.client.stream("ticks", window=Window(2, 100)) as stream:
                assert await stream.receive() == 0
                await trio.sleep(1)

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(take)
        assert trio.current_time() - start == pytest.approx(5)


async def test_a_handler_does_not_wait_for_the_side_that_waits_for_it(autojump_clock):
    """R26: it fails locally, where waiting could be for ever."""

    class There:
        @rpc
        async def call_back(self, depth: int) -> int:
            if depth == 0:
                return 0
            back = current_call().connection
            return 1 + await back.call("call_back", depth - 1)  # type: ignore[no-any-return]

        @rpc
        async def stream_back(self) -> int:
            back = current_call().connection
            async with back.stream("ticks") as stream:
                return await stream.receive()  # type: ignore[no-any-return]

        @rpc
        async def ticks(self) -> AsyncIterator[int]:
            yield 1

        @rpc
        async def sleep(self) -> None:
            await trio.sleep(10)

    limits = Limits(max_calls=2)
    async with open_ends(There(), serving=There(), limits=limits) as ends:
        assert await ends.client.call("call_back", 3) == 3
        with pytest.raises(ResourceExhausted, match="as many calls as it takes"):
            await ends.client.call("call_back", 4)
        assert await ends.client.call("stream_back") == 1
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(ends.server.call, "sleep")
            await quiet()
            with pytest.raises(ResourceExhausted):
                await ends.client.call("stream_back")
            # Whoever is no handler of that side waits as ever.
            assert await ends.server.call("call_back", 0) == 0


async def test_ten_handlers_that_call_back_do_not_deadlock(autojump_clock):
    class There:
        @rpc
        async def there(self) -> str:
            try:
                await current_call().connection.call("back")
            except ResourceExhausted:
                return "refused"
            return "done"

    class Here:
        @rpc
        async def back(self) -> None:
            await trio.sleep(1)

    results: list[str] = []

    async def call() -> None:
        results.append(await ends.client.call("there"))

    async with open_ends(
        There(), serving=Here(), limits=Limits(max_calls=10), client_limits=Limits(max_calls=1)
    ) as ends:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(call)
        assert sorted(results) == ["done"] + ["refused"] * 9


async def test_a_call_beyond_the_other_sides_patience_is_its_error(autojump_clock):
    """R26: RESOURCE_EXHAUSTED from the wire is raised as it is."""
    async with open_against() as (connection, peer):

        async def answer() -> None:
            frame = await peer.hears("call")
            error = {"code": "RESOURCE_EXHAUSTED", "message": "too many"}
            await peer.says({"type": "error", "id": frame["id"], "error": error, "retry": True})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with pytest.raises(ResourceExhausted, match="too many") as caught:
                await connection.call("x")
        assert caught.value.retry


# --- what is not sent


async def test_cancelled_before_it_starts_nothing_is_sent(autojump_clock):
    """R12: no frame at all."""
    async with open_ends(Service()) as ends:
        frames = len(ends.up.frames)
        with trio.CancelScope() as scope:
            scope.cancel()
            await ends.client.call("echo", 1)
        assert scope.cancelled_caught
        await quiet()
        assert len(ends.up.frames) == frames


async def test_a_deadline_that_is_used_up_is_not_sent(autojump_clock):
    """R23: the scope that it is of speaks."""
    async with open_ends(Service()) as ends:
        frames = len(ends.up.frames)
        for deadline in (0.0, -1.0):
            with trio.CancelScope(deadline=trio.current_time() + deadline) as scope:
                await ends.client.call("echo", 1)
            assert scope.cancelled_caught
        await quiet()
        assert len(ends.up.frames) == frames


async def test_a_deadline_that_passed_unnoticed_is_not_sent(autojump_clock):
    """R23: the task was busy, and the scheduler has had no occasion to tell."""
    async with open_ends(Service()) as ends:
        frames = len(ends.up.frames)
        with trio.move_on_after(1) as scope:
            autojump_clock.jump(2)
            await ends.client.call("echo", 1)
        assert scope.cancelled_caught
        await quiet()
        assert len(ends.up.frames) == frames


async def test_cancelled_while_it_waits_for_a_place(autojump_clock):
    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "work", 5)
            await quiet()
            with trio.move_on_after(1) as scope:
                await ends.client.call("echo", 1)
            assert scope.cancelled_caught
        assert len(ends.up.sent("call")) == 1
        assert await ends.client.call("echo", 2) == 2


async def test_cancelled_before_it_is_written_both_are_taken_back(autojump_clock):
    """R12: neither the call nor its cancel is ever seen."""
    async with open_ends(Service(), limits=Limits(max_calls=3)) as ends:
        async with trio.open_nursery() as nursery:
            ends.up.hold()
            nursery.start_soon(ends.client.call, "echo", 1)
            await quiet()
            with trio.move_on_after(1) as scope:
                await ends.client.call("echo", 2)
            assert scope.cancelled_caught
            ends.up.let_go()
        assert [frame["args"] for frame in ends.up.sent("call")] == [[1]]
        assert ends.up.sent("cancel") == []


@pytest.mark.parametrize("name", ["\ud800", "a.\udfff", 5, None])
async def test_a_name_that_is_no_text(name, autojump_clock):
    """It is the caller's mistake, and costs the connection nothing, not even a place."""
    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:
        for _ in range(3):
            with pytest.raises((ValueError, TypeError)):
                await ends.client.call(name)
        for _ in range(3):
            with pytest.raises((ValueError, TypeError)):
                await ends.client.stream(name).receive()
        assert await ends.client.call("echo", 1) == 1


async def test_arguments_that_cannot_be_sent(autojump_clock):
    """They raise before anything is sent, and take no place."""
    limits = Limits(max_calls=1, max_value_bytes=1_000_000)
    async with open_ends(Service(), limits=limits) as ends:
        frames = len(ends.up.frames)
        for value in (object(), "\ud800", 2**70):
            with pytest.raises((TypeError, ValueError, OverflowError)):
                await ends.client.call("echo", value)
            with pytest.raises((TypeError, ValueError, OverflowError)):
                ends.client.stream("ticks", value)
        with pytest.raises(ResourceExhausted, match="the arguments would take"):
            await ends.client.call("echo", bytes(2_000_000))
        stream = ends.client.stream("ticks", bytes(2_000_000))
        with pytest.raises(ResourceExhausted):
            await stream.receive()
        await quiet()
        assert len(ends.up.frames) == frames
        assert await ends.client.call("echo", 1) == 1


# --- cancellation


async def test_a_call_is_a_checkpoint(autojump_clock):
    async with open_ends(Service()) as ends:
        with trio.testing.assert_checkpoints():
            await ends.client.call("echo", 1)


async def test_a_sweep_over_a_call(autojump_clock):
    """Cancelled at every step: only Cancelled, and the next call works."""

    async def attempt(cut: Cut) -> bool:
        result: Any = None
        with cut.arm() as scope:
            result = await ends.client.call("echo", 7)
        assert result in (None, 7)
        assert scope.cancelled_caught == (result is None)
        assert await ends.client.call("echo", 8) == 8
        return result is not None

    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:
        await sweep(attempt, at_least=2)


async def test_a_sweep_over_a_call_that_waits(autojump_clock):
    """For its place first, then for its answer."""

    async def attempt(cut: Cut) -> bool:
        result: Any = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "echo", 1)
            await trio.lowlevel.checkpoint()
            with cut.arm():
                result = await ends.client.call("echo", 7)
            assert result in (None, 7)
        assert await ends.client.call("echo", 8) == 8
        return result is not None

    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:
        await sweep(attempt, at_least=2)


async def test_an_answer_that_races_a_cancellation(autojump_clock):
    """R9: exactly one outcome, whichever comes first."""

    async with open_ends(Service()) as ends:
        for steps in range(20):
            await race(ends, steps)
        assert await ends.client.call("echo", 1) == 1


async def race(ends: Ends, steps: int) -> None:
    scope = trio.CancelScope()
    result = None

    async def call() -> None:
        nonlocal result
        with scope:
            result = await ends.client.call("echo", steps)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()
    assert (result == steps) != scope.cancelled_caught
    await quiet()
    ends.assert_clean()


async def test_the_place_of_a_cancelled_call_is_taken_until_its_final_frame(autojump_clock):
    """R7: id and slot."""

    class Slow:
        @rpc
        async def slow(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(3)

        @rpc
        async def echo(self, value: int) -> int:
            return value

    async with open_ends(Slow(), limits=Limits(max_calls=1)) as ends:
        with trio.move_on_after(1):
            await ends.client.call("slow")
        start = trio.current_time()
        assert await ends.client.call("echo", 1) == 1
        assert trio.current_time() - start == pytest.approx(3)


# --- R23


async def test_the_callers_own_scope_speaks_before_deadline_exceeded(autojump_clock):
    """R23: the other side's clock may be a little early."""

    class Early:
        @rpc
        async def early(self) -> None:
            raise DeadlineExceeded("there")

    async with open_ends(Early()) as ends:
        for left in (0.0001, 0.5, 1):
            start = trio.current_time()
            with pytest.raises(trio.TooSlowError):
                with trio.fail_after(left):
                    await ends.client.call("early")
            assert trio.current_time() - start == pytest.approx(left)
        # None is due: it is the handler's own business.
        start = trio.current_time()
        with pytest.raises(DeadlineExceeded, match="there"):
            with trio.fail_after(2):
                await ends.client.call("early")
        with pytest.raises(DeadlineExceeded, match="there"):
            await ends.client.call("early")
        assert trio.current_time() == start


async def test_a_scope_that_is_moved_meanwhile(autojump_clock):
    """R23: it is waited for, and not for ever."""

    class Early:
        @rpc
        async def early(self) -> None:
            raise DeadlineExceeded("there")

    async with open_ends(Early()) as ends:

        async def move(scope: trio.CancelScope) -> None:
            await quiet()
            scope.deadline = float("inf")

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.5) as scope:
                nursery.start_soon(move, scope)
                with pytest.raises(DeadlineExceeded):
                    await ends.client.call("early")
            assert not scope.cancelled_caught
        assert trio.current_time() - start <= 1.5


async def test_the_deadline_shrinks_from_hop_to_hop(autojump_clock):
    """R23: calls made by a handler inherit what is left, back and forth, or to a third side."""
    seen: list[float] = []

    class Hop:
        @rpc
        async def hop(self, more: int) -> None:
            seen.append(trio.current_effective_deadline() - trio.current_time())
            await trio.sleep(1)
            if more:
                await current_call().connection.call("hop", more - 1)

        @rpc
        async def through(self) -> None:
            async with open_ends(Hop()) as third:
                await third.client.call("hop", 0)

    async with open_ends(Hop(), serving=Hop()) as ends:
        with trio.fail_after(10):
            await ends.client.call("hop", 3)
        assert seen == pytest.approx([10, 9, 8, 7])
        seen.clear()
        with trio.fail_after(10):
            await ends.client.call("through")
        assert seen == pytest.approx([10])
        seen.clear()
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(2.5):
                await ends.client.call("hop", 3)
        assert seen == pytest.approx([2.5, 1.5, 0.5])
        await quiet()


async def test_result_and_deadline_race(autojump_clock):
    """R23: exactly one outcome."""
    async with open_ends(Service()) as ends:
        for _ in range(20):
            result = None
            with trio.move_on_after(1) as scope:
                result = await ends.client.call("work", 1)
            assert (result == 1) != scope.cancelled_caught
            await quiet()
            ends.assert_clean()


# --- answers


async def test_an_unknown_method_is_named_by_the_side_that_knows_it(autojump_clock):
    async with open_ends(Service()) as ends:
        with pytest.raises(Unimplemented, match=r"no method 'nothing\.here' on the other side"):
            await ends.client.call("nothing.here")
        assert ends.down.sent("error")[0]["error"] == {
            "code": "UNIMPLEMENTED",
            "message": "no such method",
        }


async def test_a_result_that_cannot_be_decoded(autojump_clock):
    """The fault is the other side's; the connection lives."""
    async with open_against() as (connection, peer):

        async def answer() -> None:
            for _ in range(2):
                frame = await peer.hears("call")
                # A map may not be the key of a map in Python.
                message = b"\x91\x93\x02" + bytes([frame["id"]]) + b"\x81\x81\x01\x02\x03"
                await peer.transport.send(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            for _ in range(2):
                with pytest.raises(InternalError):
                    await connection.call("x")


async def test_a_large_answer_and_many_of_them(autojump_clock):
    results: list[int] = []

    async def call(number: int) -> None:
        size = number * 997 % 40_000
        results.append(len(await ends.client.call("echo", bytes(size))) - size)

    async with open_ends(Service()) as ends:
        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(call, number)
        assert results == [0] * 300


# --- the end of the connection


async def test_calls_hear_of_a_lost_connection(autojump_clock):
    async with open_ends(Service(), limits=Limits(max_calls=1), clean=False) as ends:
        async with trio.open_nursery() as nursery:
            running = await call_in(nursery, ends, "work", 10)
            waiting = [await call_in(nursery, ends, "work", 10) for _ in range(3)]
            await trio.aclose_forcefully(ends.down)
            await quiet()
            for raised in (running, *waiting):
                assert [type(error) for error in raised] == [ConnectionLost]
        assert len({id(raised[0]) for raised in (running, *waiting)}) == 4
        with pytest.raises(ConnectionLost):
            await ends.client.call("echo", 1)
        with pytest.raises(ConnectionLost):
            await ends.client.stream("ticks").receive()


async def test_calls_hear_of_a_connection_that_is_closed_here(autojump_clock):
    """Written or not: nobody waits for ever."""
    async with open_ends(Service(), clean=False) as ends:
        async with trio.open_nursery() as nursery:
            written = await call_in(nursery, ends, "work", 100)
            ends.up.hold()
            on_its_way = await call_in(nursery, ends, "work", 100)
            not_written = await call_in(nursery, ends, "work", 100)
            nursery.start_soon(ends.client.aclose)
            await trio.sleep(1)
            ends.up.let_go()
            await trio.sleep(20)
            for raised in (written, on_its_way, not_written):
                assert [type(error) for error in raised] == [ConnectionLost]
        assert len(ends.up.sent("call")) == 2


async def test_calls_that_wait_when_the_other_side_drains(autojump_clock):
    """R27: what is not yet written fails with retry, what runs may finish."""
    service = Service()
    async with open_ends(service, limits=Limits(max_calls=1)) as ends:
        async with trio.open_nursery() as nursery:
            running = await call_in(nursery, ends, "work", 5)
            waiting = await call_in(nursery, ends, "work", 5)
            ends.server.endpoint.drain()
            ends.server.wake_writer()
            await trio.sleep(10)
            assert running == []
            (error,) = waiting
            assert isinstance(error, Unavailable)
            assert error.retry
        with pytest.raises(Unavailable) as caught:
            await ends.client.call("echo", 1)
        assert caught.value.retry


async def test_a_call_that_was_not_written_when_the_other_side_drains(autojump_clock):
    """R27: it is taken back, and its place is free."""
    async with open_ends(Service(), limits=Limits(max_calls=5)) as ends:
        ends.up.hold()
        async with trio.open_nursery() as nursery:
            first = await call_in(nursery, ends, "echo", 1)
            second = await call_in(nursery, ends, "echo", 2)
            ends.server.endpoint.drain()
            ends.server.wake_writer()
            await quiet()
            assert isinstance(second[0], Unavailable)
            assert first == []
            ends.up.let_go()
        assert [frame["args"] for frame in ends.up.sent("call")] == [[1]]


async def test_the_numbers_of_a_connection(autojump_clock):
    async with open_ends(Service()) as ends:
        assert ends.client.statistics().calls_open == 0
        async with ends.client.stream("ticks"):
            async with trio.open_nursery() as nursery:
                await call_in(nursery, ends, "work", 1)
                assert ends.client.statistics().calls_open == 2
                assert ends.server.statistics().handlers_running == 2
        assert ends.client.statistics().calls_open == 0


async def test_frames_for_what_this_side_never_called(autojump_clock):
    """R9: a final frame of an upload that this side consumed is nobody's here."""
    async with open_ends(Service()) as ends:
        ends.client.caller.on_final(ends.client.endpoint.family.end(99))
        ends.client.caller.abandon(99)
        assert await ends.client.call("echo", 1) == 1


async def test_errors_do_not_gather_each_others_tracebacks(autojump_clock):
    async with open_ends(Service(), clean=False) as ends:
        await trio.aclose_forcefully(ends.down)
        await quiet()
        errors = []
        for _ in range(3):
            with pytest.raises(ConnectionLost) as caught:
                await ends.client.call("echo", 1)
            errors.append(caught.value)
        assert len(set(map(id, errors))) == 3


async def test_remote_errors_are_remote_errors(autojump_clock):
    class Failing:
        @rpc
        async def fail(self) -> None:
            raise LookupError("it")

    async with open_ends(Failing()) as ends:
        with pytest.raises(RemoteError, match="LookupError: it") as caught:
            await ends.client.call("fail")
        assert caught.value.__context__ is None
