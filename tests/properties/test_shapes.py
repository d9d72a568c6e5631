"""Every shape of call at once, each left in any way at any moment: nothing of it is left behind.

A plan is a tree of steps. Those that hold something open (a stream, a context, a task) run others
within it; steps beside one another run at the same time, on one connection with few places. What
comes out is not foretold but judged: each result is right or an error that the plan allows, what
was begun has ended on both sides, and the connection is as it was before.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.ends import Ends, Steps, open_ends, quiet
from trio_streamrpc import (
    CallCancelled,
    Limits,
    RemoteError,
    ResourceExhausted,
    RpcError,
    Stream,
    current_call,
    rpc,
)
from trio_streamrpc.protocol.codecs import Encoding


class Mine(Exception):
    """What a block of the caller's ends with."""


@dataclass(frozen=True)
class Plan:
    """One step: what is called, what is done within it, how and when it is left."""

    kind: str
    #: How many items are asked for, or how often a callback is called.
    count: int
    #: Seconds that pass between them, on either side.
    pause: float
    #: How it is left: in order, with an error, or cancelled after ``after`` seconds.
    leave: str
    after: float
    within: tuple[Plan, ...]


class Noted:
    """Notes what has begun and what has ended."""

    def __init__(self) -> None:
        self.begun = self.ended = 0

    @asynccontextmanager
    async def noted(self) -> AsyncIterator[None]:
        self.begun += 1
        try:
            yield
        finally:
            self.ended += 1


class Thing(Noted):
    """The object of a context or a task."""

    @rpc
    async def echo(self, value: int) -> int:
        async with self.noted():
            await trio.sleep(0.1)
            return value

    @rpc
    async def count(self, stop: int, pause: float) -> AsyncIterator[int]:
        async with self.noted():
            for number in range(stop):
                yield number
                await trio.sleep(pause)

    @rpc
    async def total(self, numbers: AsyncIterable[int]) -> int:
        async with self.noted():
            total = 0
            async for number in numbers:
                total += number
            return total

    @rpc
    async def first(self, numbers: Stream[int], pause: float) -> int:
        async with self.noted():
            await trio.sleep(pause)
            return await numbers.receive()

    @rpc
    async def double(self, numbers: AsyncIterable[int]) -> AsyncIterator[int]:
        async with self.noted():
            async for number in numbers:
                yield 2 * number

    @rpc
    async def repeat(self, count: int, back: Callable[[int], Awaitable[int]]) -> list[int]:
        async with self.noted():
            return [await back(number) for number in range(count)]

    @rpc
    async def ask(self, value: int) -> int:
        async with self.noted():
            return int(await current_call().connection.call("echo", value))

    @rpc
    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Thing]:
        async with self.noted():
            thing = self.child()
            yield thing

    @rpc
    async def work(self, *, task_status: trio.TaskStatus[Thing]) -> None:
        async with self.noted():
            task_status.started(self.child())
            await trio.sleep(3)

    @rpc(oneway=True)
    async def tell(self, value: int) -> None:
        async with self.noted():
            await trio.sleep(0.2)

    def child(self) -> Thing:
        found = Thing()
        found.noted = self.noted  # type: ignore[method-assign]  # all of them note in one place
        return found


class Echo:
    @rpc
    async def echo(self, value: int) -> int:
        await trio.sleep(0.1)
        return value


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


class Run:
    """A plan that is carried out against a service."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        #: Iterators of the caller's.
        self.uploads = Noted()

    async def all_of(self, plans: tuple[Plan, ...], api: Any) -> None:
        async with trio.open_nursery() as nursery:
            for plan in plans:
                nursery.start_soon(self.one, plan, api)

    async def one(self, plan: Plan, api: Any) -> None:
        scope = trio.CancelScope()
        if plan.leave == "cancel":
            scope.deadline = trio.current_time() + plan.after
        try:
            with scope:
                await getattr(self, plan.kind)(plan, api)
        except Exception as error:
            # A task's error comes out of the nursery that it runs in.
            for each in leaves(error):
                if isinstance(each, Mine):
                    assert plan.leave == "error"
                else:
                    # What it hung from has ended, or there was no place that it could wait for.
                    assert isinstance(each, RpcError), each
                    assert each.code in ("NOT_FOUND", "CANCELLED", "RESOURCE_EXHAUSTED"), each
        assert not scope.cancelled_caught or plan.leave == "cancel"

    async def within(self, plan: Plan, api: Any) -> None:
        await self.all_of(plan.within, api)
        if plan.leave == "error":
            raise Mine

    async def numbers(self, plan: Plan) -> AsyncIterator[int]:
        async with self.uploads.noted():
            for number in range(plan.count):
                yield number
                await trio.sleep(plan.pause)
            if plan.leave == "error":
                raise Mine

    async def echo(self, plan: Plan, api: Any) -> None:
        assert await api.echo(plan.count) == plan.count

    async def count(self, plan: Plan, api: Any) -> None:
        taken = []
        async with api.count(plan.count, plan.pause) as numbers:
            async for number in numbers:
                taken.append(number)
                await self.within(plan, api)
        assert taken == list(range(plan.count))

    async def total(self, plan: Plan, api: Any) -> None:
        assert await api.total(self.numbers(plan)) == sum(range(plan.count))
        assert plan.leave != "error"

    async def first(self, plan: Plan, api: Any) -> None:
        if plan.count:
            assert await api.first(self.numbers(plan), plan.pause) == 0
            return
        # Asked for an item where there is none: it is the handler that fails, or the upload first.
        with pytest.raises((RemoteError, Mine, CallCancelled, ResourceExhausted)):
            await api.first(self.numbers(plan), plan.pause)

    async def double(self, plan: Plan, api: Any) -> None:
        async with api.double(self.numbers(plan)) as doubled:
            taken = [number async for number in doubled]
        assert taken == [2 * number for number in range(plan.count)]

    async def repeat(self, plan: Plan, api: Any) -> None:
        async def back(value: int) -> int:
            async with self.uploads.noted():
                await trio.sleep(plan.pause)
                await self.all_of(plan.within, api)
                return -value

        assert await api.repeat(plan.count, back) == [-number for number in range(plan.count)]

    async def ask(self, plan: Plan, api: Any) -> None:
        assert await api.ask(plan.count) == plan.count

    async def hold(self, plan: Plan, api: Any) -> None:
        async with api.hold() as thing:
            await trio.sleep(plan.pause)
            await self.within(plan, thing)

    async def work(self, plan: Plan, api: Any) -> None:
        async with trio.open_nursery() as nursery:
            thing = await nursery.start(api.work)
            await self.within(plan, thing)
            nursery.cancel_scope.cancel()

    async def tell(self, plan: Plan, api: Any) -> None:
        await api.tell(plan.count)


HOLDING = ["count", "repeat", "hold", "work"]
OTHERS = ["echo", "total", "first", "double", "ask", "tell"]
TIMES = st.sampled_from([0.0, 0.05, 0.1, 0.15, 0.5])


def plans(within: st.SearchStrategy[Plan]) -> st.SearchStrategy[Plan]:
    return st.builds(
        Plan,
        kind=st.sampled_from(HOLDING),
        count=st.integers(0, 3),
        pause=TIMES,
        leave=st.sampled_from(["in order", "in order", "error", "cancel"]),
        after=TIMES,
        within=st.lists(within, max_size=3).map(tuple),
    )


LEAVES = st.builds(
    Plan,
    kind=st.sampled_from(OTHERS),
    count=st.integers(0, 100),
    pause=TIMES,
    leave=st.sampled_from(["in order", "in order", "error", "cancel"]),
    after=TIMES,
    within=st.just(()),
)
PLANS = st.lists(st.recursive(LEAVES, plans, max_leaves=8), min_size=1, max_size=4).map(tuple)


async def carry_out(plan: tuple[Plan, ...], encoding: Encoding, limits: Limits) -> None:
    service = Thing()
    with Steps() as steps:
        async with open_ends(service, serving=Echo(), encoding=encoding, limits=limits) as ends:
            run = Run(ends)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_give_up, scope)
                    await run.all_of(plan, ends.client.proxy(Thing))
                    nursery.cancel_scope.cancel()
            assert not scope.cancelled_caught, "stuck"
            await trio.sleep(60)
            await quiet()
            ends.assert_clean()
    assert service.begun == service.ended
    assert run.uploads.begun == run.uploads.ended
    assert steps.count < 200_000


async def _give_up(scope: trio.CancelScope) -> None:
    # No deadline: it would be that of every call.
    await trio.sleep(1000)
    scope.cancel()


LIMITS = st.builds(
    Limits,
    # Blocks within blocks hold places, and would wait for one another if there were but a few:
    # for objects that is seen where there is only one.
    max_object_calls=st.sampled_from([1, 1000]),
    max_calls=st.just(1000),
    max_uploads=st.sampled_from([1, 64]),
    cancel_timeout=st.just(500.0),
)


@given(PLANS, st.sampled_from(["msgpack", "json"]), LIMITS)
def test_every_shape_at_once(plan: tuple[Plan, ...], encoding: Encoding, limits: Limits) -> None:
    """R7, R10, R12, R19, R20, R26: however calls are mixed, each ends, and leaves nothing."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(carry_out, plan, encoding, limits, clock=clock)
