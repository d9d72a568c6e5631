"""What a service and a client of grpc.aio look like here."""

import math
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

import trio

from trio_streamrpc import NotFound, connect, current_call, rpc, serve, with_options

PRICES = {"ACME": 101.5}


# --- contract
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
            price = 100.0
            while True:
                yield Tick(symbol, price)
                price += 1
        finally:
            print("server: the feed is closed")

    @rpc
    async def ingest(self, ticks: AsyncIterable[Tick]) -> int:
        return len([tick async for tick in ticks])

    @rpc
    async def chat(self, inbox: AsyncIterable[str]) -> AsyncIterator[str]:
        user = current_call().metadata["user"]
        async for text in inbox:
            yield f"{user}: {text}"

    @rpc
    async def report(self) -> str:
        print("server: is there a deadline?", current_call().deadline < math.inf)
        await trio.sleep(3600)
        return "all is well"

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

    # --- upload
    async def some_ticks() -> AsyncIterator[Tick]:
        for number in range(3):
            yield Tick("ACME", number)

    print("ingested:", await market.ingest(some_ticks()))

    # --- both
    say, inbox = trio.open_memory_channel[str](0)
    async with with_options(market, metadata={"user": "alice"}).chat(inbox) as answers:
        await say.send("hello")
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

    # --- cancel
    async with trio.open_nursery() as nursery:
        nursery.start_soon(market.report)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    print("cancelled")

    # --- end


# --- main
async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, Market(), "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            await use(connection.proxy(Market))
        nursery.cancel_scope.cancel()


# --- end
if __name__ == "__main__":
    trio.run(main)
