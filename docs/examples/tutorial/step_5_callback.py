from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

import trio

from trio_streamrpc import NotFound, connect, rpc, serve

PRICES = {"ACME": 101.5, "GLOBEX": 23.0}


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


async def client(market: Market) -> None:
    async def show(done: float) -> None:
        print(f"progress: {done:.0%}")

    print("report:", await market.report(show))


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, Market(), "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            await client(connection.proxy(Market))
        nursery.cancel_scope.cancel()


trio.run(main)
