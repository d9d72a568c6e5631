from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from trio_streamrpc import NotFound, connect, rpc, serve

PRICES = {"ACME": 101.5, "GLOBEX": 23.0}


class Order:
    def __init__(self) -> None:
        self.shares: dict[str, int] = {}

    @rpc
    async def buy(self, symbol: str, shares: int) -> None:
        self.shares[symbol] = shares


class Market:
    @rpc
    async def price(self, symbol: str) -> float:
        if symbol not in PRICES:
            raise NotFound(f"there is no {symbol}")
        return PRICES[symbol]

    @rpc
    async def ticks(self, symbol: str) -> AsyncIterator[float]:
        price = await self.price(symbol)
        try:
            while True:
                yield price
                price += 0.5
                await trio.sleep(0.01)
        finally:
            print("server: the feed is closed")

    @rpc
    async def forecast(self, symbol: str) -> float:
        price = await self.price(symbol)
        try:
            await trio.sleep(60)
            return price * 2
        finally:
            print("server: the forecast has stopped")

    @rpc
    async def average(self, prices: AsyncIterable[float]) -> float:
        total, count = 0.0, 0
        async for price in prices:
            total += price
            count += 1
        return total / count

    @rpc
    async def report(self, progress: Callable[[float], Awaitable[None]]) -> str:
        for quarter in range(1, 5):
            await trio.sleep(0.01)
            await progress(quarter / 4)
        return f"{len(PRICES)} symbols are traded"

    @rpc
    @asynccontextmanager
    async def order(self) -> AsyncIterator[Order]:
        order = Order()
        try:
            yield order
        except BaseException:
            print("server: nothing is bought")
            raise
        print("server: bought", order.shares)


async def client(market: Market) -> None:
    async with market.order() as order:
        await order.buy("ACME", 10)
        await order.buy("GLOBEX", 5)

    try:
        async with market.order() as order:
            await order.buy("ACME", 1000)
            raise ValueError("that is too much")
    except ValueError as error:
        print("client:", error)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, Market(), "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            await client(connection.proxy(Market))
        nursery.cancel_scope.cancel()


trio.run(main)
