import logging
from collections.abc import AsyncIterator

import trio

from trio_streamrpc import Limits, current_call, rpc, serve_forever


class Market:
    def __init__(self) -> None:
        self._feeds = 0

    @rpc
    async def ticks(self, symbol: str) -> AsyncIterator[float]:
        self._feeds += 1
        try:
            price = 101.5
            while True:
                yield price
                price += 0.5
                await trio.sleep(0.01)
        finally:
            self._feeds -= 1

    @rpc
    async def feeds(self) -> int:
        return self._feeds

    @rpc
    async def report(self, seconds: float) -> str:
        await trio.sleep(seconds)
        return "all is well"

    @rpc
    async def my_address(self) -> str:
        # The proxy sets it, whatever the client says, and nobody else gets here.
        return current_call().headers["x-forwarded-for"]


async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    await serve_forever(
        Market(),
        "ws://127.0.0.1:8765",
        allowed_origins=["https://www.example.com"],
        # To this server all clients have one address, the proxy's.
        limits=Limits(max_connections_per_peer=10_000),
    )


trio.run(main)
