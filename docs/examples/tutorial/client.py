import trio
from market import Market, NoSuchSymbol

from trio_streamrpc import connect


async def main() -> None:
    async with connect("ws://127.0.0.1:8765") as connection:
        market = connection.proxy(Market)
        print("price:", await market.price("ACME"))

        async with market.ticks("ACME") as ticks:
            async for tick in ticks:
                print(tick)
                if tick.price > 102:
                    break

        try:
            await market.price("NONE")
        except NoSuchSymbol as error:
            print("no such symbol:", error)


trio.run(main)
