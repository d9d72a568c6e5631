"""What a kkrpc API and its client look like here."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from trio_streamrpc import Call, Proceed, connect, rpc, serve
from trio_streamrpc.dialects import kkrpc, native

PRICES = {"ACME": 101.5}


@dataclass
class Tick:
    symbol: str
    price: float


# --- service
class NoSuchSymbol(Exception):
    def __init__(self, symbol: str) -> None:
        super().__init__(symbol)
        self.symbol = symbol


class Market:
    @rpc(errors=(NoSuchSymbol,))
    async def price(self, symbol: str) -> float:
        if symbol not in PRICES:
            raise NoSuchSymbol(symbol)
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
    async def ingest(self, ticks: AsyncIterable[Tick]) -> int:
        return len([tick async for tick in ticks])

    @rpc
    async def chat(self, inbox: AsyncIterable[str]) -> AsyncIterator[str]:
        async for text in inbox:
            yield f"heard: {text}"

    @rpc
    async def build(self, target: str, progress: Callable[[float], Awaitable[None]]) -> str:
        for part in (0.5, 1.0):
            await progress(part)
        return f"{target} is built"

    @rpc
    async def report(self) -> str:
        await trio.sleep(3600)
        return "all is well"


# --- metadata
async def who_asks(call: Call, proceed: Proceed) -> Any:
    print(f"server: {call.method} is asked by {call.metadata.get('user')}")
    return await proceed(call)


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
    async def lines() -> AsyncIterator[str]:
        yield "hello"

    async with market.chat(lines()) as answers:
        async for answer in answers:
            print("chat:", answer)

    # --- callback
    async def on_progress(part: float) -> None:
        print("progress:", part)

    print(await market.build("docs", on_progress))

    # --- deadline
    with trio.move_on_after(0.1) as scope:
        await market.report()
    print("deadline:", scope.cancelled_caught)

    # --- error
    try:
        await market.price("NONE")
    except NoSuchSymbol as error:
        print("error:", error.symbol)

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

        async def serve_all(task_status: trio.TaskStatus[Any]) -> None:
            await serve(
                Market(),
                "ws://127.0.0.1:0",
                dialects=(native, kkrpc),
                interceptors=[who_asks],
                task_status=task_status,
            )

        server = await nursery.start(serve_all)
        async with connect(server.url, metadata={"user": "alice"}) as connection:
            await use(connection.proxy(Market))
        # --- dialect
        async with connect(server.url, dialect=kkrpc) as connection:
            print("over kkrpc:", await connection.proxy(Market).price("ACME"))
        # --- end
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
