"""grpclib: gRPC in pure Python on asyncio, with protobuf messages."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import common
from grpclib.client import Channel, StreamUnaryMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream
from protobuf_messages import Chunk, Item, Number, Sum


class Service:
    """The base of such a class is what protoc's plugin writes; it has no more than the mapping."""

    async def add(self, stream: Stream) -> None:
        request = await stream.recv_message()
        await stream.send_message(Number(number=request.number + 1))

    async def items(self, stream: Stream) -> None:
        request = await stream.recv_message()
        for number in range(request.number):
            await stream.send_message(Item(i=number, s=common.TEXT))

    async def chunks(self, stream: Stream) -> None:
        request = await stream.recv_message()
        for _ in range(request.number):
            await stream.send_message(Chunk(data=common.CHUNK))

    async def ingest(self, stream: Stream) -> None:
        count = total = 0
        async for item in stream:
            count += 1
            total += item.i
        await stream.send_message(Sum(count=count, total=total))

    def __mapping__(self) -> dict[str, Handler]:
        return {
            "/bench/Add": Handler(self.add, Cardinality.UNARY_UNARY, Number, Number),
            "/bench/Items": Handler(self.items, Cardinality.UNARY_STREAM, Number, Item),
            "/bench/Chunks": Handler(self.chunks, Cardinality.UNARY_STREAM, Number, Chunk),
            "/bench/Ingest": Handler(self.ingest, Cardinality.STREAM_UNARY, Item, Sum),
        }


async def run_server(transport: str) -> None:
    server = Server([Service()])
    # asyncio sets TCP_NODELAY where the protocol is said, as it is when asyncio makes the socket.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        await server.start(sock=listener)
        common.announce(listener.getsockname()[1])
        await server.wait_closed()


class Client(common.Client):
    def __init__(self, channel: Channel) -> None:
        self.call_add = UnaryUnaryMethod(channel, "/bench/Add", Number, Number)
        self.call_items = UnaryStreamMethod(channel, "/bench/Items", Number, Item)
        self.call_chunks = UnaryStreamMethod(channel, "/bench/Chunks", Number, Chunk)
        self.call_ingest = StreamUnaryMethod(channel, "/bench/Ingest", Item, Sum)

    async def add(self, number: int) -> int:
        answer = await self.call_add(Number(number=number))
        return answer.number

    async def take(self, count: int) -> tuple[int, int]:
        taken = total = 0
        async with self.call_items.open() as stream:
            await stream.send_message(Number(number=count), end=True)
            async for item in stream:
                taken += 1
                total += item.i
        return taken, total

    async def take_chunks(self, count: int) -> tuple[int, int]:
        taken = total = 0
        async with self.call_chunks.open() as stream:
            await stream.send_message(Number(number=count), end=True)
            async for chunk in stream:
                taken += 1
                total += len(chunk.data)
        return taken, total

    async def upload(self, count: int) -> tuple[int, int]:
        async with self.call_ingest.open() as stream:
            for number in range(count):
                await stream.send_message(Item(i=number, s=common.TEXT))
            await stream.end()
            answer = await stream.recv_message()
        return answer.count, answer.total


@asynccontextmanager
async def open_client(address: str) -> AsyncIterator[Client]:
    async with Channel("127.0.0.1", int(address)) as channel:
        yield Client(channel)


if __name__ == "__main__":
    common.asyncio_main(run_server, open_client)
