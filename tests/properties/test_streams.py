"""Several streams at once, consumed as it comes: ordered, each item once, and nothing left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.ends import Ends, open_ends, quiet
from trio_streamrpc import Limits, Stream, Window, rpc


class Service:
    """Counts what it began and what it ended."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []

    @rpc
    async def count(
        self, number: int, stop: int, size: int, pause: int, cleanup: int
    ) -> AsyncIterator[tuple[int, int, bytes]]:
        self.begun.append(number)
        try:
            for item in range(stop):
                if pause and item % pause == 0:
                    await trio.sleep(0.3)
                yield number, item, bytes(size * (item % 3))
        finally:
            if cleanup:
                with trio.CancelScope(shield=True):
                    await trio.sleep(cleanup)
            self.ended.append(number)


Step = tuple[str, int]


@dataclass(frozen=True)
class Plan:
    """What one consumer does with one stream."""

    window: Window
    stop: int
    size: int
    pause: int
    cleanup: int
    entered: bool
    steps: list[Step]
    #: How it ends: read to the end, left, left by an error, cancelled, or dropped.
    end: str


windows = st.builds(Window, st.integers(1, 20), st.integers(1, 400))
steps = st.tuples(
    st.sampled_from(["take", "batch", "wait", "tick", "give up", "beside"]), st.integers(0, 9)
)
plans = st.builds(
    Plan,
    window=windows,
    stop=st.integers(0, 60),
    size=st.integers(0, 150),
    pause=st.integers(0, 5),
    cleanup=st.integers(0, 2),
    entered=st.booleans(),
    steps=st.lists(steps, max_size=12),
    end=st.sampled_from(["read", "leave", "error", "cancel", "drop", "close"]),
)


class Mine(Exception):
    pass


async def consume(stream: Stream[Any], plan: Plan, taken: list[Any]) -> None:
    batches = stream.batches()
    for what, amount in plan.steps:
        if what in ("wait", "tick"):
            await trio.sleep(amount / 4 if what == "wait" else 0)
        else:
            await take(stream, batches, what, amount, taken)
    await come_to_the_end(stream, plan, taken)


async def take(
    stream: Stream[Any], batches: AsyncIterator[Any], what: str, amount: int, taken: list[Any]
) -> None:
    if what == "take":
        for _ in range(amount):
            taken.append(await stream.receive())  # noqa: PERF401  # counts, however it ends
    elif what == "batch":
        batch = await anext(batches)
        assert batch
        taken += batch
    elif what == "give up":
        with trio.move_on_after(amount / 10):
            taken.append(await stream.receive())
    else:
        await two_at_once(stream, taken)


async def come_to_the_end(stream: Stream[Any], plan: Plan, taken: list[Any]) -> None:
    if plan.end == "read":
        async for item in stream:
            taken.append(item)  # noqa: PERF401  # counts, however it ends
    elif plan.end == "error":
        raise Mine
    elif plan.end == "cancel":
        await trio.sleep_forever()
    elif plan.end == "close":
        await stream.aclose()


async def two_at_once(stream: Stream[Any], taken: list[Any]) -> None:
    ended = False

    async def take() -> None:
        nonlocal ended
        try:
            taken.append(await stream.receive())
        except trio.EndOfChannel:
            ended = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        nursery.start_soon(take)
    if ended:
        raise trio.EndOfChannel


async def follow(ends: Ends, number: int, plan: Plan, taken: list[Any]) -> None:
    arguments = (number, plan.stop, plan.size, plan.pause, plan.cleanup)
    stream = ends.client.stream("count", *arguments, window=plan.window)
    try:
        with trio.CancelScope() as scope:
            if plan.end == "cancel":
                scope.deadline = trio.current_time() + 1 + number / 7
            if plan.entered:
                async with stream:
                    await consume(stream, plan, taken)
            else:
                await consume(stream, plan, taken)
    except Mine:
        pass
    except (trio.EndOfChannel, StopAsyncIteration):
        assert len(taken) == plan.stop
    if plan.entered:
        numbers = stream.statistics()
        assert numbers.peak_items_buffered <= plan.window.items
        assert numbers.peak_bytes_buffered < plan.window.bytes + 2 * plan.size + 100
    if plan.end == "read" and plan.entered:
        assert len(taken) == plan.stop


@given(st.lists(plans, min_size=1, max_size=5), st.integers(1, 6))
def test_streams_of_any_schedule(plans: list[Plan], max_calls: int) -> None:
    """R7, R14, R15: what is taken is a prefix of what was sent, in order, each item once."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(follow_all, plans, max_calls, clock=clock)


async def follow_all(plans: list[Plan], max_calls: int) -> None:
    service = Service()
    taken: list[list[Any]] = [[] for _ in plans]
    async with open_ends(service, limits=Limits(max_calls=max_calls, cancel_timeout=60)) as ends:
        async with trio.open_nursery() as nursery:
            for number, plan in enumerate(plans):
                nursery.start_soon(follow, ends, number, plan, taken[number])
        await trio.sleep(10)
        await quiet()
        ends.assert_clean()
    for number, (plan, items) in enumerate(zip(plans, taken, strict=True)):
        # Two tasks may have taken two neighbours, and have put them down in either order.
        expected = [[number, item, bytes(plan.size * (item % 3))] for item in range(len(items))]
        assert sorted(items) == expected
        if not any(what == "beside" for what, _ in plan.steps):
            assert items == expected
    assert sorted(service.begun) == sorted(service.ended)
    assert len(set(service.begun)) == len(service.begun)
