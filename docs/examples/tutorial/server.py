from collections.abc import AsyncIterator

import trio
from market import Market, NoSuchSymbol, Tick

from trio_streamrpc import rpc, serve_forever

PRICES = {"ACME": 101.5, "GLOBEX": 23.0}


class LiveMarket(Market):
    @rpc
    async def price(self, symbol: str) -> float:
        if symbol not in PRICES:
            raise NoSuchSymbol(symbol)
        return PRICES[symbol]

    @rpc
    async def ticks(self, symbol: str) -> AsyncIterator[Tick]:
        price = await self.price(symbol)
        while True:
            yield Tick(symbol, price)
            price += 0.5
            await trio.sleep(0.01)


trio.run(serve_forever, LiveMarket(), "ws://127.0.0.1:8765")
