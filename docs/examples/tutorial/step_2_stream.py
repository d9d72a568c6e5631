from collections.abc import AsyncIterator

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


async def client(market: Market) -> None:
    async with market.ticks("ACME") as ticks:
        async for price in ticks:
            print("tick:", price)
            if price > 102:
                break
    print("client: the block is left")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, Market(), "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            await client(connection.proxy(Market))
        nursery.cancel_scope.cancel()


trio.run(main)
