from collections.abc import AsyncIterator
from itertools import count
from typing import Protocol

import trio

from trio_streamrpc import Window, connect, rpc, serve


class Numbers(Protocol):
    @rpc(window=Window(items=4))
    async def numbers(self, first: int) -> AsyncIterator[int]: ...


class Backend(Numbers):
    def __init__(self) -> None:
        self.produced = 0

    @rpc
    async def numbers(self, first: int) -> AsyncIterator[int]:
        try:
            for number in count(first):
                self.produced += 1
                yield number
        finally:
            print("backend: the stream is closed")


class Gateway(Numbers):
    def __init__(self, backend: Numbers) -> None:
        self._backend = backend

    @rpc
    async def numbers(self, first: int) -> AsyncIterator[int]:
        async with self._backend.numbers(first) as numbers:
            async for number in numbers:
                yield number
        print("gateway: this is not reached, the stream has no end")


async def main() -> None:
    backend = Backend()
    async with trio.open_nursery() as nursery:
        behind = await nursery.start(serve, backend, "tcp://127.0.0.1:0")
        async with connect(behind.url) as inner:
            gateway = Gateway(inner.proxy(Numbers))
            before = await nursery.start(serve, gateway, "ws://127.0.0.1:0")

            async with connect(before.url) as connection:
                async with connection.proxy(Numbers).numbers(100) as numbers:
                    print("client:", await numbers.receive())
                    await trio.sleep(0.5)  # a slow consumer
                    print("produced meanwhile:", backend.produced)
                    print("client:", await numbers.receive())
                print("client: the block is left")
        nursery.cancel_scope.cancel()


trio.run(main)
