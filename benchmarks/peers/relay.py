"""A link that takes its time: a process that hands on each byte so many milliseconds later.

    relay.py TARGET MILLISECONDS     prints the port of 127.0.0.1 where it listens

TARGET is ``host:port`` or the path of a Unix socket. It reads as fast as it can and has as much
under way as came in that time, so that nothing but the delay is added. It ends with its stdin.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque


class End(asyncio.Protocol):
    """One end of the link; what comes in leaves through the other."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: End | None = None
        self.transport: asyncio.Transport | None = None
        #: What came, and when it is due; None at its end.
        self.under_way: deque[tuple[float, bytes | None]] = deque()
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.send_on(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.send_on(None)

    def send_on(self, data: bytes | None) -> None:
        due = self.loop.time() + self.delay
        if not self.under_way:
            self.loop.call_at(due, self.arrive)
        self.under_way.append((due, data))

    def arrive(self) -> None:
        while self.under_way and self.under_way[0][0] <= self.loop.time():
            _, data = self.under_way.popleft()
            if self.other is not None and self.other.transport is not None:
                if data is None:
                    self.other.transport.close()
                else:
                    self.other.transport.write(data)
        if self.under_way:
            self.loop.call_at(self.under_way[0][0], self.arrive)


class Near(End):
    """The end of a client: what it says is kept until the far end is there."""

    def __init__(self, delay: float, target: str) -> None:
        super().__init__(delay)
        self.target = target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self.connecting = self.loop.create_task(self.connect())

    async def connect(self) -> None:
        far = End(self.delay)
        far.other, self.other = self, far
        assert self.transport is not None
        try:
            if self.target.startswith("/"):
                await self.loop.create_unix_connection(lambda: far, self.target)
            else:
                host, _, port = self.target.rpartition(":")
                await self.loop.create_connection(lambda: far, host, int(port))
        except OSError:
            self.transport.close()
        else:
            self.transport.resume_reading()


async def main(target: str, milliseconds: str) -> None:
    delay = float(milliseconds) / 1000
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Near(delay, target), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_stdin, daemon=True).start()
    asyncio.run(main(*sys.argv[1:]))
