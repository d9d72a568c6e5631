"""A floor: trio-websocket with nothing on it but messages. W1 is a ping-pong of 32 bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import common
import special
import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    open_websocket_url,
    serve_websocket,
)
from watching import Board

#: Trio chooses how much is read at once: with the default of 4 KiB, chunks are five times as slow.
OPTIONS = {"receive_buffer_size": None}
PING_BYTES = 32
NUMBER_BYTES = 8


async def handle(request) -> None:
    """A ping is answered with its number and one; one that has a second number, with chunks. A
    text is the path of a board, which is signed."""
    websocket = await request.accept()
    try:
        while True:
            ping = await websocket.get_message()
            if isinstance(ping, str):
                with Board(ping) as board:
                    board.sign()
                await websocket.send_message("signed")
                continue
            number = int.from_bytes(ping[:NUMBER_BYTES])
            count = int.from_bytes(ping[NUMBER_BYTES : 2 * NUMBER_BYTES])
            if count:
                for _ in range(count):
                    await websocket.send_message(common.CHUNK)
            else:
                pong = (number + 1).to_bytes(NUMBER_BYTES) + ping[NUMBER_BYTES:]
                await websocket.send_message(pong)
    except ConnectionClosed:
        pass


async def run_server(transport: str) -> None:
    async with trio.open_nursery() as nursery:
        serving = partial(serve_websocket, handle, "127.0.0.1", 0, None, **OPTIONS)
        server = await nursery.start(serving)
        common.announce(f"ws://127.0.0.1:{server.port}")


class Client(special.Client):
    def __init__(self, websocket: WebSocketConnection) -> None:
        self.websocket = websocket

    async def add(self, number: int) -> int:
        ping = number.to_bytes(NUMBER_BYTES) + bytes(PING_BYTES - NUMBER_BYTES)
        await self.websocket.send_message(ping)
        return int.from_bytes((await self.websocket.get_message())[:NUMBER_BYTES])

    async def take_chunks(self, count: int) -> tuple[int, int]:
        head = bytes(NUMBER_BYTES) + count.to_bytes(NUMBER_BYTES)
        await self.websocket.send_message(head.ljust(PING_BYTES, b"\0"))
        total = 0
        for _ in range(count):
            total += len(await self.websocket.get_message())
        return count, total

    async def meet(self, board: str) -> None:
        await self.websocket.send_message(board)
        await self.websocket.get_message()


async def idle(client: Client, load: common.Load) -> common.Figures:
    """W9."""
    return await special.idle_connections(client, load, partial(open_websocket_url, **OPTIONS))


@asynccontextmanager
async def open_client(address: str) -> AsyncIterator[Client]:
    async with open_websocket_url(address, **OPTIONS) as websocket:
        yield Client(websocket)


if __name__ == "__main__":
    common.trio_main(run_server, open_client, {"W9": idle})
