"""What is written by hand over a plain WebSocket, and what it looks like here."""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

import trio

from trio_streamrpc import NotFound, connect, rpc, serve

PRICES = {"ACME": 101.5}


# --- service
@dataclass
class Tick:
    symbol: str
    price: float


class Market:
    @rpc
    async def price(self, symbol: str) -> float:
        if symbol not in PRICES:
            raise NotFound(f"there is no {symbol}")
        return PRICES[symbol]

    @rpc
    async def ticks(self, symbol: str) -> AsyncIterator[Tick]:
        try:
            price = 100
            while True:
                yield Tick(symbol, price)
                price += 1
        finally:
            print("server: the feed is closed")

    @rpc
    async def chat(self, user: str, inbox: AsyncIterable[str]) -> AsyncIterator[str]:
        async for text in inbox:
            yield f"{user}: {text}"

    @rpc
    async def report(self) -> None:
        await trio.sleep(3600)


# --- end


async def use(market: Market) -> None:
    # --- unary
    print("price:", await market.price("ACME"))

    # --- stream
    async with market.ticks("ACME") as ticks:
        async for tick in ticks:
            print("tick:", tick.price)
            if tick.price == 102:
                break
    print("client: the block is left")

    # --- both
    async def lines() -> AsyncIterator[str]:
        yield "hello"

    async with market.chat("alice", lines()) as answers:
        print("chat:", await answers.receive())

    # --- deadline
    try:
        with trio.fail_after(0.1):
            await market.report()
    except trio.TooSlowError:
        print("deadline: too slow")

    # --- error
    try:
        await market.price("NONE")
    except NotFound as error:
        print("error:", error)

    # --- end


# --- main
async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, Market(), "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            await use(connection.proxy(Market))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
