"""Calls that share a task: none of them knows of it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import trio
import trio.testing

from tests.runtime.ends import Ends, open_ends, quiet
from trio_streamrpc import ConnectionLost, RemoteError, RpcError, current_call, rpc

USER: ContextVar[str] = ContextVar("user")


#: What a generator may hold open that is not closed.
SCOPES = {
    "deadline": lambda: trio.move_on_after(60),
    "plain": trio.CancelScope,
    "shield": lambda: trio.CancelScope(shield=True),
}


class Service:
    """Its calls say what they have found; ``log`` is what has run, in order."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.tasks: list[trio.lowlevel.Task] = []
        self.gate = trio.Event()
        self.generators: list[Any] = []
        self.clock: trio.testing.MockClock | None = None

    @rpc
    async def note(self, number: int) -> int:
        self.log.append(number)
        self.tasks.append(trio.lowlevel.current_task())
        return number

    @rpc
    async def wait(self, number: int) -> int:
        self.log.append(number)
        self.tasks.append(trio.lowlevel.current_task())
        await self.gate.wait()
        return number

    @rpc
    async def sign_in(self, name: str) -> str | None:
        """Who was here before; it does not sign out."""
        before = USER.get(None)
        USER.set(name)
        return before

    @rpc
    async def fail(self) -> None:
        raise LookupError("no")

    @rpc
    async def who(self) -> str:
        return current_call().method

    @rpc
    async def is_unlimited(self) -> bool:
        return trio.current_effective_deadline() == math.inf

    @rpc
    async def leave_open(self, what: str) -> None:
        """Take one item of a generator, and do not close it."""
        generator = self._open(what)
        self.generators.append(generator)
        await anext(generator)

    async def _open(self, what: str) -> AsyncIterator[None]:
        with SCOPES[what]():
            yield

    @rpc
    async def slow(self, number: int) -> int:
        """It takes its time, and lets nobody else run."""
        assert self.clock is not None
        self.clock.jump(0.001)
        self.log.append(number)
        return number


@asynccontextmanager
async def open_service() -> AsyncIterator[tuple[Ends, Service]]:
    service = Service()
    async with open_ends(service) as ends:
        yield ends, service


async def call_all(ends: Ends, *calls: tuple[Any, ...]) -> list[Any]:
    """Make these calls so that they arrive in one message; gives what came of each."""
    results: list[Any] = [None] * len(calls)

    async def one(index: int, method: str, *args: Any) -> None:
        try:
            results[index] = await ends.client.call(method, *args)
        except RemoteError as error:
            results[index] = error

    async with trio.open_nursery() as nursery:
        ends.up.hold()
        # The first is on its way alone; the others gather behind it.
        nursery.start_soon(ends.client.call, "note", -1)
        await quiet()
        for index, (method, *args) in enumerate(calls):
            nursery.start_soon(one, index, method, *args)
            await quiet()
        ends.up.let_go()
    return results


async def test_they_run_in_the_order_in_which_they_came(autojump_clock):
    async with open_service() as (ends, service):
        assert await call_all(ends, *[("note", each) for each in range(20)]) == list(range(20))
        assert service.log == [-1, *range(20)]


async def test_calls_that_wait_for_nothing_share_a_task(autojump_clock):
    async with open_service() as (ends, service):
        await call_all(ends, *[("note", each) for each in range(20)])
        assert len(set(service.tasks[1:])) == 1


async def test_one_that_waits_holds_up_no_other(autojump_clock):
    async with open_service() as (ends, service):
        async with trio.open_nursery() as nursery:
            ends.up.hold()
            for each in range(10):
                nursery.start_soon(ends.client.call, "wait", each)
                await quiet()
            ends.up.let_go()
            await quiet()
            assert service.log == list(range(10))
            assert len(set(service.tasks)) == 10
            assert await ends.client.call("note", 99) == 99
            service.gate.set()


async def test_one_that_waits_is_cancelled_alone(autojump_clock):
    async with open_service() as (ends, service):
        ended = []

        async def waiting(number: int, scope: trio.CancelScope) -> None:
            with scope:
                ended.append(await ends.client.call("wait", number))

        scopes = [trio.CancelScope() for _ in range(4)]
        async with trio.open_nursery() as nursery:
            ends.up.hold()
            for number, scope in enumerate(scopes):
                nursery.start_soon(waiting, number, scope)
            await quiet()
            ends.up.let_go()
            await quiet()
            scopes[1].cancel()
            scopes[2].cancel()
            await quiet()
            assert ends.server.callee.running == 2
            assert await ends.client.call("note", 7) == 7
            service.gate.set()
        assert sorted(ended) == [0, 3]


async def test_one_that_is_cancelled_before_it_runs_never_does(autojump_clock):
    service = Service()
    async with open_ends(service) as ends:
        handlers = ends.server.callee
        # Both frames are in one message: the reader sees the cancel before any task has run.
        first = ends.client.endpoint.call("note", ends.client.payloads.encoder()([1]))
        second = ends.client.endpoint.call("note", ends.client.payloads.encoder()([2]))
        message = ends.client.endpoint.next_message()
        ends.client.endpoint.cancel(first.id, "abort")
        cancel = ends.client.endpoint.next_message()
        assert message is not None
        assert cancel is not None
        ends.server.take_in(message)
        ends.server.take_in(cancel)
        assert handlers.running == 2
        await quiet()
        assert handlers.running == 0
        assert service.log == [2]
        assert [frame["type"] for frame in ends.down.sent("error", "result")] == ["error", "result"]
        assert second.id not in ends.client.endpoint.exchanges


async def test_what_one_sets_the_next_does_not_see(autojump_clock):
    """A context variable may say who somebody is."""
    async with open_service() as (ends, _):
        assert await call_all(ends, ("sign_in", "ada"), ("sign_in", "bob"), ("sign_in", "eve")) == [
            None,
            None,
            None,
        ]


async def test_what_was_set_before_is_seen_by_all(autojump_clock):
    USER.set("server")
    async with open_service() as (ends, _):
        calls = [("sign_in", "ada"), ("note", 1), ("note", 2), ("sign_in", "bob")]
        assert await call_all(ends, *calls) == ["server", 1, 2, "server"]


async def test_each_is_its_own_current_call(autojump_clock):
    async with open_service() as (ends, service):
        calls = [("who",), ("note", 1), ("who",)]
        assert await call_all(ends, *calls) == ["who", 1, "who"]


async def test_one_that_fails_fails_alone(autojump_clock):
    async with open_service() as (ends, _):
        results = await call_all(ends, ("note", 1), ("fail",), ("note", 2), ("fail",), ("note", 3))
        assert [results[0], results[2], results[4]] == [1, 2, 3]
        assert [str(results[1]), str(results[3])] == ["LookupError: no"] * 2


@pytest.mark.parametrize("what", SCOPES)
async def test_a_scope_that_is_left_open_is_nobody_elses(autojump_clock, what):
    """A generator with a scope in it that is not closed: the call fails that has done so."""
    async with open_service() as (ends, service):
        calls = [("note", 1), ("leave_open", what), ("is_unlimited",), ("note", 2)]
        results = await call_all(ends, *calls)
        assert results[0] == 1
        assert "Cancel scope stack corrupted" in str(results[1])
        assert results[2:] == [True, 2]
        with pytest.raises(RemoteError, match="corrupted"):
            await ends.client.call("leave_open", what)
        assert await ends.client.call("is_unlimited") is True
        for generator in service.generators:
            await generator.aclose()


async def test_one_worker_is_there_and_others_come_and_go(autojump_clock):
    async with open_service() as (ends, service):
        await ends.client.call("note", 0)
        await ends.client.call("note", 1)
        assert service.tasks[0] is service.tasks[1]
        await ends.client.call("sign_in", "ada")
        await ends.client.call("note", 2)
        assert service.tasks[2] is not service.tasks[1], "the other has seen ada"
        assert await ends.client.call("sign_in", "bob") is None
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(ends.client.call, "wait", number)
            await quiet()
            assert len(set(service.tasks[-3:])) == 3
            service.gate.set()


async def test_where_scopes_cannot_be_seen_none_is_shared(autojump_clock, monkeypatch):
    monkeypatch.setattr("trio_streamrpc.runtime.workers.INNERMOST", "no_such_attribute")
    async with open_service() as (ends, service):
        assert await call_all(ends, *[("note", each) for each in range(5)]) == list(range(5))
        assert len(set(service.tasks)) == 6


async def test_answers_are_written_while_others_run(autojump_clock):
    """Each takes a millisecond: the first is answered before the last has run."""
    async with open_service() as (ends, service):
        service.clock = autojump_clock
        seen = []

        async def first() -> None:
            await ends.client.call("slow", 0)
            seen.append(len(service.log))

        async with trio.open_nursery() as nursery:
            ends.up.hold()
            nursery.start_soon(ends.client.call, "slow", -1)
            await quiet()
            nursery.start_soon(first)
            await quiet()
            for number in range(1, 12):
                nursery.start_soon(ends.client.call, "slow", number)
                await quiet()
            ends.up.let_go()
        assert seen[0] < len(service.log) == 13
        assert service.log == list(range(-1, 12))


async def test_a_call_is_run_by_a_worker_that_comes_late(autojump_clock, monkeypatch):
    """Its time is over before it has begun, as on a machine that is busy: nobody else would come.

    Each of them is run all the same, in order, and others run between them.
    """
    monkeypatch.setattr("trio_streamrpc.runtime.workers.SLICE_SECONDS", 0)
    service = Service()
    async with open_ends(service) as ends:
        with trio.fail_after(5):
            for number in range(3):
                assert await ends.client.call("note", number) == number
            async with trio.open_nursery() as nursery:
                for number in range(3, 8):
                    nursery.start_soon(ends.client.call, "note", number)
        assert sorted(service.log) == list(range(8))


async def test_a_lost_connection_ends_them_all(autojump_clock):
    service = Service()
    async with open_ends(service, clean=False) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_all_lost, ends)
            await quiet()
            assert ends.server.callee.running == 5
            await trio.aclose_forcefully(ends.down)
            await ends.server.wait_closed()
            await quiet()
            assert ends.server.callee.running == 0


async def call_all_lost(ends: Ends) -> None:
    async def one(number: int) -> None:
        with pytest.raises(ConnectionLost):
            await ends.client.call("wait", number)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(one, number)


class Odd(RpcError):
    """An error that cannot even say what it is."""

    def __getattribute__(self, name: str) -> Any:
        if name == "code":
            raise ZeroDivisionError(name)
        return super().__getattribute__(name)


class Clumsy:
    @rpc(errors=(Odd,))
    async def bad(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Odd("odd")


async def test_an_error_that_cannot_be_told_ends_no_more_than_its_call(autojump_clock, caplog):
    """Nobody is there to be told, and the log cannot be told either."""
    async with open_ends(Clumsy(), clean=False) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lost_call, ends, "bad")
            await quiet()
            await trio.aclose_forcefully(ends.down)
            await ends.server.wait_closed()
            await quiet()
        assert ends.server.callee.running == 0
    assert "how bad has ended could not be told" in caplog.text


async def lost_call(ends: Ends, method: str) -> None:
    with pytest.raises(ConnectionLost):
        await ends.client.call(method)
