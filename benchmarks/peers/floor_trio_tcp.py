"""A floor: Trio's TCP streams with nothing on them but bytes. W1 is a ping-pong of 32 bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import common
import trio

PING_BYTES = 32
NUMBER_BYTES = 8


async def receive_exactly(stream: trio.SocketStream, count: int) -> bytes:
    received = await stream.receive_some(count)
    while received and len(received) < count:
        received += await stream.receive_some(count - len(received))
    return bytes(received)


async def handle(stream: trio.SocketStream) -> None:
    """A ping is answered with its number and one; one that has a second number, with chunks."""
    while ping := await receive_exactly(stream, PING_BYTES):
        number = int.from_bytes(ping[:NUMBER_BYTES])
        count = int.from_bytes(ping[NUMBER_BYTES : 2 * NUMBER_BYTES])
        if count:
            for _ in range(count):
                await stream.send_all(common.CHUNK)
        else:
            await stream.send_all((number + 1).to_bytes(NUMBER_BYTES) + ping[NUMBER_BYTES:])


async def run_server(transport: str) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    common.announce(listener.socket.getsockname()[1])
    await trio.serve_listeners(handle, [listener])


class Client(common.Client):
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    async def add(self, number: int) -> int:
        await self.stream.send_all(number.to_bytes(NUMBER_BYTES) + bytes(PING_BYTES - NUMBER_BYTES))
        return int.from_bytes((await receive_exactly(self.stream, PING_BYTES))[:NUMBER_BYTES])

    async def take_chunks(self, count: int) -> tuple[int, int]:
        head = bytes(NUMBER_BYTES) + count.to_bytes(NUMBER_BYTES)
        await self.stream.send_all(head.ljust(PING_BYTES, b"\0"))
        total = 0
        while total < count * common.CHUNK_BYTES:
            received = await self.stream.receive_some()
            if not received:
                break
            total += len(received)
        return total // common.CHUNK_BYTES, total


@asynccontextmanager
async def open_client(address: str) -> AsyncIterator[Client]:
    async with await trio.open_tcp_stream("127.0.0.1", int(address)) as stream:
        yield Client(stream)


if __name__ == "__main__":
    common.trio_main(run_server, open_client)
