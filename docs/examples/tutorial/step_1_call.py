import trio

from trio_streamrpc import NotFound, connect, rpc, serve

PRICES = {"ACME": 101.5, "GLOBEX": 23.0}


class Market:
    @rpc
    async def price(self, symbol: str) -> float:
        if symbol not in PRICES:
            raise NotFound(f"there is no {symbol}")
        return PRICES[symbol]


async def client(market: Market) -> None:
    print("price:", await market.price("ACME"))
    try:
        await market.price("NONE")
    except NotFound as error:
        print("not found:", error)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, Market(), "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            await client(connection.proxy(Market))
        nursery.cancel_scope.cancel()


trio.run(main)
