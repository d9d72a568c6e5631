from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress

import trio

from trio_streamrpc import AlreadyExists, connect, rpc, serve


class Room:
    def __init__(self) -> None:
        self._members: dict[str, trio.MemorySendChannel[str]] = {}

    @rpc
    async def join(self, name: str, lines: AsyncIterable[str]) -> AsyncIterator[str]:
        if name in self._members:
            raise AlreadyExists(f"somebody is called {name}")
        send, receive = trio.open_memory_channel[str](100)
        self._members[name] = send
        try:
            self._tell_all(f"{name} is here")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, name, lines, send)
                async for line in receive:
                    yield line
        finally:
            del self._members[name]
            self._tell_all(f"{name} has left")

    async def _listen(
        self, name: str, lines: AsyncIterable[str], send: trio.MemorySendChannel[str]
    ) -> None:
        async for line in lines:
            self._tell_all(f"{name}: {line}")
        send.close()  # who says no more has left, and hears no more

    def _tell_all(self, line: str) -> None:
        for send in self._members.values():
            # Nobody waits for a member who reads slowly: it misses lines.
            with suppress(trio.WouldBlock, trio.ClosedResourceError):
                send.send_nowait(line)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, Room(), "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            room = connection.proxy(Room)
            ada_says, ada_lines = trio.open_memory_channel[str](0)
            bob_says, bob_lines = trio.open_memory_channel[str](0)

            async with room.join("ada", ada_lines) as ada:
                print("to ada:", await ada.receive())
                async with room.join("bob", bob_lines) as bob:
                    print("to bob:", await bob.receive())
                    await ada_says.send("hello")
                    print("to bob:", await bob.receive())
                    bob_says.close()
                    async for line in bob:
                        print("to bob:", line)
                for _ in range(3):
                    print("to ada:", await ada.receive())
        nursery.cancel_scope.cancel()


trio.run(main)
