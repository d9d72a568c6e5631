"""A run with a bit of everything, for those that compare what was said in it."""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from hashlib import sha256

import trio

from trio_streamrpc import RpcError, rpc
from trio_streamrpc.testing import Network, run_repeatably, simulate, trace_of
from trio_streamrpc.testing.traces import Trace

NETWORK = Network(latency=0.05, jitter=0.1, bandwidth=20_000, stall=(1.0, 2.0))


class Market:
    @rpc
    async def price(self, symbol: str) -> float:
        await trio.sleep(random.random())
        return random.random()

    @rpc
    async def ticks(self, symbol: str) -> AsyncIterator[float]:
        try:
            while True:
                yield random.random()
                await trio.sleep(0.01)
        finally:
            await trio.sleep(0.2)

    @rpc
    async def ingest(self, ticks: AsyncIterable[float]) -> int:
        return len([tick async for tick in ticks])

    @rpc
    async def build(self, progress: Callable[[float], Awaitable[None]]) -> str:
        for number in range(3):
            await progress(number / 3)
        return "done"


async def use(market: Market, number: int) -> None:
    """One client's share of it."""

    async def ticks() -> AsyncIterator[float]:
        for each in range(number * 20):
            yield each

    async def progress(value: float) -> None:
        await trio.sleep(value)

    with suppress(RpcError):
        await market.price("ACME")
        with trio.move_on_after(number * 0.7):
            async with market.ticks("ACME") as stream:
                async for _ in stream:
                    if random.random() < 0.1:
                        break
        await market.ingest(ticks())
        await market.build(progress)


async def converse(seed: int, network: Network) -> Trace:
    async with simulate(Market(), network=network, seed=seed) as connection:
        market = connection.proxy(Market)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(use, market, number)
    return trace_of(connection)


def digest(seed: int, network: Network = NETWORK) -> str:
    """What was said, in short."""
    return sha256(bytes(run_repeatably(converse, seed, network))).hexdigest()


if __name__ == "__main__":
    sys.stdout.write(digest(int(sys.argv[1])))
