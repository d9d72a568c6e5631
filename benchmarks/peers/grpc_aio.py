"""grpc.aio: generic handlers and protobuf messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import common
import grpc.aio
import special
from protobuf_messages import Chunk, Item, Kind, Number, Sum
from watching import Production

#: No compression is the default. What is longer than 4 MiB is refused by default; a proxy that is
#: set for the machine is not for a connection to itself.
OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


async def add(request: Number, context: grpc.aio.ServicerContext) -> Number:
    return Number(number=request.number + 1)


async def items(request: Number, context: grpc.aio.ServicerContext) -> AsyncIterator[Item]:
    for number in range(request.number):
        yield Item(i=number, s=common.TEXT)


async def chunks(request: Number, context: grpc.aio.ServicerContext) -> AsyncIterator[Chunk]:
    for _ in range(request.number):
        yield Chunk(data=common.CHUNK)


async def ingest(requests: AsyncIterator[Item], context: grpc.aio.ServicerContext) -> Sum:
    count = total = 0
    async for item in requests:
        count += 1
        total += item.i
    return Sum(count=count, total=total)


async def produce(request: Kind, context: grpc.aio.ServicerContext) -> AsyncIterator[Chunk]:
    with Production(request.board) as production:
        for data in production.of(request.kind):
            yield Chunk(data=data)
        await asyncio.Event().wait()


async def run_server(transport: str) -> None:
    def of(kind, function, request, answer):
        return kind(
            function,
            request_deserializer=request.FromString,
            response_serializer=answer.SerializeToString,
        )

    server = grpc.aio.server(options=OPTIONS)
    handlers = {
        "Add": of(grpc.unary_unary_rpc_method_handler, add, Number, Number),
        "Items": of(grpc.unary_stream_rpc_method_handler, items, Number, Item),
        "Chunks": of(grpc.unary_stream_rpc_method_handler, chunks, Number, Chunk),
        "Produce": of(grpc.unary_stream_rpc_method_handler, produce, Kind, Chunk),
        "Ingest": of(grpc.stream_unary_rpc_method_handler, ingest, Item, Sum),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    common.announce(f"127.0.0.1:{port}")
    await server.wait_for_termination()


class Client(special.Client):
    def __init__(self, channel: grpc.aio.Channel) -> None:
        def of(kind, name, request, answer):
            return kind(
                f"/bench/{name}",
                request_serializer=request.SerializeToString,
                response_deserializer=answer.FromString,
            )

        self.call_add = of(channel.unary_unary, "Add", Number, Number)
        self.call_items = of(channel.unary_stream, "Items", Number, Item)
        self.call_chunks = of(channel.unary_stream, "Chunks", Number, Chunk)
        self.call_produce = of(channel.unary_stream, "Produce", Kind, Chunk)
        self.call_ingest = of(channel.stream_unary, "Ingest", Item, Sum)

    async def add(self, number: int) -> int:
        answer = await self.call_add(Number(number=number))
        return answer.number

    async def take(self, count: int) -> tuple[int, int]:
        taken = total = 0
        async for item in self.call_items(Number(number=count)):
            taken += 1
            total += item.i
        return taken, total

    async def take_chunks(self, count: int) -> tuple[int, int]:
        taken = total = 0
        async for chunk in self.call_chunks(Number(number=count)):
            taken += 1
            total += len(chunk.data)
        return taken, total

    async def upload(self, count: int) -> tuple[int, int]:
        async def items() -> AsyncIterator[Item]:
            for number in range(count):
                yield Item(i=number, s=common.TEXT)

        answer = await self.call_ingest(items())
        return answer.count, answer.total

    @asynccontextmanager
    async def produce(self, kind: str, board: str):
        yield self.call_produce(Kind(kind=kind, board=board))


@asynccontextmanager
async def open_client(address: str) -> AsyncIterator[Client]:
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        await channel.channel_ready()
        yield Client(channel)


if __name__ == "__main__":
    common.asyncio_main(run_server, open_client, special.BY_ANY_PEER)
