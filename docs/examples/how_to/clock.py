from collections.abc import AsyncIterator

import trio

from trio_streamrpc import InvalidArgument, rpc


class Clock:
    def __init__(self) -> None:
        self.listeners = 0

    @rpc
    async def ticks(self, seconds: float) -> AsyncIterator[int]:
        if not 0.01 <= seconds <= 3600:
            raise InvalidArgument("between 100 times a second and once an hour")
        self.listeners += 1
        try:
            tick = 0
            while True:
                yield tick
                tick += 1
                await trio.sleep(seconds)
        finally:
            self.listeners -= 1
