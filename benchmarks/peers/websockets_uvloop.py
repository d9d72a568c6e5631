"""websockets on asyncio with uvloop, and JSON by hand.

What people write who need no library for it: one reader that looks up a future or a queue by the
id of a call, a message for each item, and no bound on what a stream sends ahead. A chunk is a
binary message that begins with its call's id.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import common
import special
import uvloop
from watching import Production
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

#: Compression costs time and saves nothing here; messages of any length. A longer queue of received
#: messages (``max_queue``) makes no difference for items, and chunks a third slower.
OPTIONS = {"compression": None, "max_size": None}
ID_BYTES = 4

encode = json.JSONEncoder(separators=(",", ":")).encode
decode = json.loads


class Connection:
    """The server's side of one connection."""

    def __init__(self, websocket: ServerConnection) -> None:
        self.websocket = websocket
        self.uploads: dict[int, asyncio.Queue] = {}
        self.tasks: set[asyncio.Task] = set()
        self.methods = {
            "add": self.add,
            "items": self.items,
            "chunks": self.chunks,
            "ingest": self.ingest,
            "produce": self.produce,
        }

    async def read(self) -> None:
        async for text in self.websocket:
            message = decode(text)
            number = message["id"]
            if "method" in message:
                method = self.methods[message["method"]]
                if method == self.ingest:
                    self.uploads[number] = asyncio.Queue()
                task = asyncio.create_task(method(number, message["argument"]))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            else:
                self.uploads[number].put_nowait(message.get("item"))

    async def add(self, number: int, argument: int) -> None:
        await self.websocket.send(encode({"id": number, "result": argument + 1}))

    async def items(self, number: int, count: int) -> None:
        send = self.websocket.send
        for each in range(count):
            await send(encode({"id": number, "item": {"i": each, "s": common.TEXT}}))
        await send(encode({"id": number, "end": True}))

    async def chunks(self, number: int, count: int) -> None:
        prefix = number.to_bytes(ID_BYTES)
        for _ in range(count):
            await self.websocket.send(prefix + common.CHUNK)
        await self.websocket.send(encode({"id": number, "end": True}))

    async def produce(self, number: int, argument: list[str]) -> None:
        kind, board = argument
        prefix = number.to_bytes(ID_BYTES)
        with Production(board) as production:
            for data in production.of(kind):
                await self.websocket.send(prefix + data)
            await asyncio.Event().wait()

    async def ingest(self, number: int, argument: None) -> None:
        queue = self.uploads[number]
        count = total = 0
        while (item := await queue.get()) is not None:
            count += 1
            total += item["i"]
        del self.uploads[number]
        await self.websocket.send(encode({"id": number, "result": [count, total]}))


async def run_server(transport: str) -> None:
    async def handle(websocket: ServerConnection) -> None:
        await Connection(websocket).read()

    async with serve(handle, "127.0.0.1", 0, **OPTIONS) as server:
        common.announce(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


class Client(special.Client):
    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.ids = itertools.count(1)
        self.results: dict[int, asyncio.Future] = {}
        self.streams: dict[int, asyncio.Queue] = {}

    async def read(self) -> None:
        async for message in self.websocket:
            if isinstance(message, bytes):
                number = int.from_bytes(message[:ID_BYTES])
                self.streams[number].put_nowait(message[ID_BYTES:])
                continue
            message = decode(message)
            number = message["id"]
            if "result" in message:
                self.results.pop(number).set_result(message["result"])
            elif "item" in message:
                self.streams[number].put_nowait(message["item"])
            else:
                self.streams.pop(number).put_nowait(None)

    async def call(self, method: str, argument: object) -> tuple[int, asyncio.Future]:
        number = next(self.ids)
        result = self.results[number] = asyncio.get_running_loop().create_future()
        await self.websocket.send(encode({"id": number, "method": method, "argument": argument}))
        return number, result

    async def open_stream(self, method: str, argument: object) -> asyncio.Queue:
        number = next(self.ids)
        queue = self.streams[number] = asyncio.Queue()
        await self.websocket.send(encode({"id": number, "method": method, "argument": argument}))
        return queue

    async def add(self, number: int) -> int:
        _, result = await self.call("add", number)
        return await result

    async def take(self, count: int) -> tuple[int, int]:
        taken = total = 0
        queue = await self.open_stream("items", count)
        while (item := await queue.get()) is not None:
            taken += 1
            total += item["i"]
        return taken, total

    async def take_chunks(self, count: int) -> tuple[int, int]:
        taken = total = 0
        queue = await self.open_stream("chunks", count)
        while (chunk := await queue.get()) is not None:
            taken += 1
            total += len(chunk)
        return taken, total

    async def upload(self, count: int) -> tuple[int, int]:
        number, result = await self.call("ingest", None)
        send = self.websocket.send
        for each in range(count):
            await send(encode({"id": number, "item": {"i": each, "s": common.TEXT}}))
        await send(encode({"id": number, "end": True}))
        return tuple(await result)

    @asynccontextmanager
    async def produce(self, kind: str, board: str):
        queue = await self.open_stream("produce", [kind, board])
        # It has no end, and there is no message that asks for one.
        yield items_of(queue)


async def items_of(queue: asyncio.Queue) -> AsyncIterator[bytes]:
    while True:
        yield await queue.get()


@asynccontextmanager
async def open_client(address: str) -> AsyncIterator[Client]:
    async with connect(address, proxy=None, **OPTIONS) as websocket:
        client = Client(websocket)
        reader = asyncio.create_task(client.read())
        try:
            yield client
            # It reads on meanwhile: streams that were left are still coming in.
            await websocket.close()
        finally:
            reader.cancel()


if __name__ == "__main__":
    common.asyncio_main(run_server, open_client, special.BY_ANY_PEER, run=uvloop.run)
