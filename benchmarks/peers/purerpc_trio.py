"""purerpc: gRPC in pure Python, on Trio through anyio, with protobuf messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import common
import purerpc
import trio
from protobuf_messages import Chunk, Item, Number, Sum
from purerpc import Cardinality, RPCSignature

METHODS = {
    "Add": RPCSignature(Cardinality.UNARY_UNARY, Number, Number),
    "Items": RPCSignature(Cardinality.UNARY_STREAM, Number, Item),
    "Chunks": RPCSignature(Cardinality.UNARY_STREAM, Number, Chunk),
    "Ingest": RPCSignature(Cardinality.STREAM_UNARY, Item, Sum),
}


async def add(message: Number) -> Number:
    return Number(number=message.number + 1)


async def items(message: Number) -> AsyncIterator[Item]:
    for number in range(message.number):
        yield Item(i=number, s=common.TEXT)


async def chunks(message: Number) -> AsyncIterator[Chunk]:
    for _ in range(message.number):
        yield Chunk(data=common.CHUNK)


async def ingest(messages: AsyncIterator[Item]) -> Sum:
    count = total = 0
    async for item in messages:
        count += 1
        total += item.i
    return Sum(count=count, total=total)


async def run_server(transport: str) -> None:
    service = purerpc.Service("bench")
    for (name, signature), function in zip(
        METHODS.items(), (add, items, chunks, ingest), strict=True
    ):
        service.add_method(name, function, signature)
    server = purerpc.Server(0)  # on all interfaces: it has no word for one of them
    server.add_service(service)
    async with trio.open_nursery() as nursery:
        common.announce(await nursery.start(server.serve_async))


class Client(common.Client):
    def __init__(self, channel) -> None:
        client = purerpc.Client("bench", channel)
        self.call_add, self.call_items, self.call_chunks, self.call_ingest = (
            client.get_method_stub(name, signature) for name, signature in METHODS.items()
        )

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
async def open_client(address: str) -> AsyncIterator[Client]:
    async with purerpc.insecure_channel("127.0.0.1", int(address)) as channel:
        yield Client(channel)


if __name__ == "__main__":
    common.trio_main(run_server, open_client)
