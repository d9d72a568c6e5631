"""trio-websocket, and JSON by hand: the same as websockets_uvloop.py, on Trio."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import common
import special
import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    connect_websocket_url,
    serve_websocket,
)
from watching import Production

#: Trio chooses how much is read at once: with the default of 4 KiB, chunks are five times as slow.
#: A longer queue of received messages (``message_queue_size``) makes no difference.
OPTIONS = {"receive_buffer_size": None}
ID_BYTES = 4

encode = json.JSONEncoder(separators=(",", ":")).encode
decode = json.loads


class Connection:
    """The server's side of one connection."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self.websocket = websocket
        self.uploads: dict[int, tuple[trio.MemorySendChannel, trio.MemoryReceiveChannel]] = {}
        self.methods = {
            "add": self.add,
            "items": self.items,
            "chunks": self.chunks,
            "ingest": self.ingest,
            "produce": self.produce,
        }

    async def read(self) -> None:
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    message = decode(await self.websocket.get_message())
                    number = message["id"]
                    if "method" in message:
                        if message["method"] == "ingest":
                            self.uploads[number] = trio.open_memory_channel(math.inf)
                        method = self.methods[message["method"]]
                        nursery.start_soon(method, number, message["argument"])
                    elif "item" in message:
                        self.uploads[number][0].send_nowait(message["item"])
                    else:
                        self.uploads[number][0].close()
            except ConnectionClosed:
                nursery.cancel_scope.cancel()

    async def add(self, number: int, argument: int) -> None:
        await self.websocket.send_message(encode({"id": number, "result": argument + 1}))

    async def items(self, number: int, count: int) -> None:
        send = self.websocket.send_message
        for each in range(count):
            await send(encode({"id": number, "item": {"i": each, "s": common.TEXT}}))
        await send(encode({"id": number, "end": True}))

    async def chunks(self, number: int, count: int) -> None:
        prefix = number.to_bytes(ID_BYTES)
        for _ in range(count):
            await self.websocket.send_message(prefix + common.CHUNK)
        await self.websocket.send_message(encode({"id": number, "end": True}))

    async def produce(self, number: int, argument: list[str]) -> None:
        kind, board = argument
        prefix = number.to_bytes(ID_BYTES)
        with Production(board) as production:
            for data in production.of(kind):
                await self.websocket.send_message(prefix + data)
            await trio.sleep_forever()

    async def ingest(self, number: int, argument: None) -> None:
        count = total = 0
        async for item in self.uploads[number][1]:
            count += 1
            total += item["i"]
        del self.uploads[number]
        await self.websocket.send_message(encode({"id": number, "result": [count, total]}))


async def run_server(transport: str) -> None:
    async def handle(request) -> None:
        try:
            await Connection(await request.accept()).read()
        except* ConnectionClosed:
            pass  # by a client that has left a stream before its end

    async with trio.open_nursery() as nursery:
        serving = partial(serve_websocket, handle, "127.0.0.1", 0, None, **OPTIONS)
        server = await nursery.start(serving)
        common.announce(f"ws://127.0.0.1:{server.port}")


class Call:
    """A call that waits for its result."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.result = None

    async def wait(self):
        await self.answered.wait()
        return self.result


class Client(special.Client):
    def __init__(self, websocket: WebSocketConnection) -> None:
        self.websocket = websocket
        self.ids = itertools.count(1)
        self.calls: dict[int, Call] = {}
        self.streams: dict[int, trio.MemorySendChannel] = {}

    async def read(self) -> None:
        while True:
            message = await self.websocket.get_message()
            if isinstance(message, bytes):
                number = int.from_bytes(message[:ID_BYTES])
                self.streams[number].send_nowait(message[ID_BYTES:])
                continue
            message = decode(message)
            number = message["id"]
            if "result" in message:
                call = self.calls.pop(number)
                call.result = message["result"]
                call.answered.set()
            elif "item" in message:
                self.streams[number].send_nowait(message["item"])
            else:
                self.streams.pop(number).close()

    async def send(self, number: int, method: str, argument: object) -> None:
        text = encode({"id": number, "method": method, "argument": argument})
        await self.websocket.send_message(text)

    async def open_stream(self, method: str, argument: object) -> trio.MemoryReceiveChannel:
        number = next(self.ids)
        self.streams[number], receiver = trio.open_memory_channel(math.inf)
        await self.send(number, method, argument)
        return receiver

    async def add(self, number: int) -> int:
        identity = next(self.ids)
        call = self.calls[identity] = Call()
        await self.send(identity, "add", number)
        return await call.wait()

    async def take(self, count: int) -> tuple[int, int]:
        taken = total = 0
        async for item in await self.open_stream("items", count):
            taken += 1
            total += item["i"]
        return taken, total

    async def take_chunks(self, count: int) -> tuple[int, int]:
        taken = total = 0
        async for chunk in await self.open_stream("chunks", count):
            taken += 1
            total += len(chunk)
        return taken, total

    async def upload(self, count: int) -> tuple[int, int]:
        number = next(self.ids)
        call = self.calls[number] = Call()
        await self.send(number, "ingest", None)
        send = self.websocket.send_message
        for each in range(count):
            await send(encode({"id": number, "item": {"i": each, "s": common.TEXT}}))
        await send(encode({"id": number, "end": True}))
        return tuple(await call.wait())

    @asynccontextmanager
    async def produce(self, kind: str, board: str):
        # It has no end, and there is no message that asks for one.
        yield await self.open_stream("produce", [kind, board])


@asynccontextmanager
async def open_client(address: str) -> AsyncIterator[Client]:
    async with trio.open_nursery() as nursery:
        websocket = await connect_websocket_url(nursery, address, **OPTIONS)
        async with websocket:
            client = Client(websocket)
            nursery.start_soon(client.read)
            yield client
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    common.trio_main(run_server, open_client, special.BY_ANY_PEER)
