"""What a SignalR hub and its client look like here."""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from functools import partial

import trio

from trio_streamrpc import (
    Handshake,
    NotFound,
    Unauthenticated,
    connect,
    current_call,
    rpc,
    serve,
)

PRICES = {"ACME": 101.5}


@dataclass
class Tick:
    symbol: str
    price: float


# --- contract of the client
class Trader:
    @rpc
    async def agree(self, order: str) -> bool:
        return order != "everything"


# --- service
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
    async def ingest(self, ticks: AsyncIterable[Tick]) -> int:
        return len([tick async for tick in ticks])

    @rpc
    async def chat(self, inbox: AsyncIterable[str]) -> AsyncIterator[str]:
        user = current_call().identity
        async for text in inbox:
            yield f"{user}: {text}"

    @rpc
    async def sell(self, order: str) -> str:
        trader = current_call().connection.proxy(Trader)
        return "sold" if await trader.agree(order) else "kept"

    @rpc
    async def report(self) -> None:
        await trio.sleep(3600)


# --- groups
class Chats:
    """Everybody who listens has a memory channel; who says something sends to all of them."""

    def __init__(self) -> None:
        self.listeners: set[trio.MemorySendChannel[str]] = set()

    @rpc
    async def listen(self) -> AsyncIterator[str]:
        send, receive = trio.open_memory_channel[str](10)
        self.listeners.add(send)
        try:
            yield "you are in"
            async for text in receive:
                yield text
        finally:
            self.listeners.remove(send)

    @rpc
    async def say(self, text: str) -> int:
        """Say it to all; those who are ten behind miss it. Gives how many have heard it."""
        heard = 0
        for send in self.listeners:
            try:
                send.send_nowait(text)
            except trio.WouldBlock:
                continue
            heard += 1
        return heard


# --- hubs
class Site:
    """What two hubs at two paths would be: two namespaces of one service."""

    market: Market
    chats: Chats

    def __init__(self) -> None:
        self.market = Market()
        self.chats = Chats()


# --- authenticate
async def authenticate(handshake: Handshake) -> str:
    token = handshake.metadata.get("token")
    if token is None:
        raise Unauthenticated("who is there?")
    return str(token)


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
    print("half:", await market.sell("half of it"))

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


async def use_chats(chats: Chats) -> None:
    async with chats.listen() as first, chats.listen() as second:
        print("first:", await first.receive())
        print("second:", await second.receive())
        print("heard by:", await chats.say("good morning"))
        print("first:", await first.receive())
        print("second:", await second.receive())


# --- main
async def main() -> None:
    async with trio.open_nursery() as nursery:
        serving = partial(serve, authenticate=authenticate)
        server = await nursery.start(serving, Site(), "ws://127.0.0.1:0")
        token = {"token": "alice"}
        async with connect(server.url, metadata=token, serving=Trader()) as connection:
            site = connection.proxy(Site)
            await use(site.market)
            await use_chats(site.chats)
        nursery.cancel_scope.cancel()


# --- end
if __name__ == "__main__":
    trio.run(main)
