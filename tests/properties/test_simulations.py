"""Thousands of whole conversations over bad networks, each from a seed that repeats it.

Whatever happens to the connection and to its callers: every call has exactly one outcome, what was
delivered is an ordered prefix of what was produced, and in the end nothing is left.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import settings

from trio_streamrpc import Limits, RpcError, Window, rpc
from trio_streamrpc.testing import Network, run_repeatably, simulate, trace_of

#: Each test has so many seeds: in all, 10,000 where there is time.
SEEDS = 1_000 if settings().max_examples > 100 else 20
BLOCK = 10
LIMITS = Limits(
    window=Window(3, 200), max_window=Window(12, 800), max_calls=3, max_frame_bytes=60,
    max_uploads=2, cancel_timeout=30,
)  # fmt: skip


class Service:
    """What it has begun, what it has ended, and what it has produced and taken."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.taken: dict[int, list[int]] = {}

    @asynccontextmanager
    async def noted(self, number: int) -> AsyncIterator[None]:
        self.begun.append(number)
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(number % 3 / 10)
            self.ended.append(number)

    @rpc
    async def echo(self, number: int, pause: float, text: str) -> str:
        async with self.noted(number):
            await trio.sleep(pause)
            if pause == 0.7:
                raise ValueError(text)
            return text

    @rpc
    async def count(self, number: int, stop: int, pause: float) -> AsyncIterator[int]:
        async with self.noted(number):
            for each in range(stop):
                await trio.sleep(pause)
                yield each

    @rpc
    async def total(self, number: int, items: AsyncIterable[int], most: int) -> int:
        async with self.noted(number):
            taken = self.taken[number] = []
            async for item in items:
                taken.append(item)
                if len(taken) == most:
                    break
            return sum(taken)


class Client:
    """Makes calls, and notes how each has ended."""

    def __init__(self, source: random.Random, api: Service) -> None:
        self.source = source
        self.api = api
        self.outcomes: dict[int, list[str]] = {}

    async def call(self, number: int) -> None:
        outcomes = self.outcomes[number] = []
        source = self.source
        pause = source.choice([0, 0.05, 0.7, 3])
        patience = source.choice([0, 0.1, 1, 1000, 1000, 1000])
        make = source.choice([self.echo, self.count, self.total])
        with trio.CancelScope() as scope:
            # No deadline: that would travel with the call, and be the callee's to keep (R23).
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.lose_patience, scope, patience)
                try:
                    await make(number, pause)
                except RpcError as error:
                    outcomes.append(error.code)
                else:
                    outcomes.append("done")
                nursery.cancel_scope.cancel()
        if scope.cancelled_caught and not outcomes:
            outcomes.append("cancelled")

    async def lose_patience(self, scope: trio.CancelScope, seconds: float) -> None:
        await trio.sleep(seconds)
        scope.cancel()

    async def echo(self, number: int, pause: float) -> None:
        text = "x" * self.source.choice([0, 10, 500])
        assert await self.api.echo(number, pause, text) == text

    async def count(self, number: int, pause: float) -> None:
        stop, leave = self.source.randrange(30), self.source.choice([3, 1000])
        items: list[int] = []
        async with self.api.count(number, stop, pause) as stream:
            async for item in stream:
                items.append(item)
                assert items == list(range(len(items))), "an ordered prefix"
                if self.source.random() < 0.2:
                    await trio.sleep(0.3)
                if len(items) == leave:
                    return
        assert len(items) == stop, "an end that is none"

    async def total(self, number: int, pause: float) -> None:
        stop = self.source.randrange(20)
        most = self.source.choice([2, 1000])

        async def items() -> AsyncIterator[int]:
            for each in range(stop):
                await trio.sleep(pause / 5)
                yield each

        expected = sum(range(min(stop, most)))
        assert await self.api.total(number, items(), most) == expected


def network_of(source: random.Random) -> Network:
    """Half of them are cut, or stand still for a while."""
    return Network(
        latency=source.choice([0, 0.01, 0.2]),
        jitter=source.choice([0, 0.1]),
        bandwidth=source.choice([None, None, 2_000]),
        cut=source.choice([None, None, source.uniform(2, 8)]),
        stall=source.choice([None, None, (source.uniform(2, 5), source.uniform(0, 30))]),
    )


async def converse(seed: int) -> bytes:
    source = random.Random(seed)
    service = Service()
    before = trio.lowlevel.current_statistics().tasks_living
    async with simulate(
        service,
        network=network_of(source),
        seed=seed,
        limits=LIMITS,
        encoding=source.choice(["msgpack", "json"]),
    ) as connection:
        client = Client(source, connection.proxy(Service))
        async with trio.open_nursery() as nursery:
            for number in range(source.randint(1, 8)):
                nursery.start_soon(client.call, number)
                await trio.sleep(source.choice([0, 0, 0.1]))
        # Those that were cancelled have not waited for what they have called.
        await trio.sleep(60)
        assert not connection.alive or connection.endpoint.exchanges == {}
        assert connection.statistics().calls_open == 0
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert all(len(each) == 1 for each in client.outcomes.values()), client.outcomes
    assert sorted(service.begun) == sorted(service.ended)
    assert len(set(service.begun)) == len(service.begun), "no call is run twice"
    for taken in service.taken.values():
        assert taken == list(range(len(taken))), "an ordered prefix"
    return bytes(trace_of(connection))


@pytest.mark.parametrize("block", range(BLOCK))
def test_every_call_has_one_outcome(block: int) -> None:
    """R6, R7, R10, R12, R24, R26."""
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        run_repeatably(converse, seed, seed=seed)


def test_a_seed_repeats_a_conversation() -> None:
    for seed in range(SEEDS // 4):
        traces = {run_repeatably(converse, seed, seed=seed) for _ in range(2)}
        assert len(traces) == 1
