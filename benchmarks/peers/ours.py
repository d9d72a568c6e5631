"""trio_streamrpc itself, over the transport that is named: what a user would write, no more."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

import attrs
import common
import trio

from trio_streamrpc import connect, rpc, serve


@attrs.frozen
class Reading:
    """W3t: a class with four fields in place of the dict."""

    i: int
    sensor: str
    value: float
    valid: bool


class Service:
    @rpc
    async def add(self, number: int) -> int:
        return number + 1

    @rpc
    async def items(self, count: int) -> AsyncIterator[dict]:
        for number in range(count):
            yield {"i": number, "s": common.TEXT}

    @rpc
    async def readings(self, count: int) -> AsyncIterator[Reading]:
        for number in range(count):
            yield Reading(number, common.TEXT, 0.5, True)

    @rpc
    async def chunks(self, count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield common.CHUNK

    @rpc
    async def ingest(self, items: AsyncIterable[dict]) -> tuple[int, int]:
        count = total = 0
        async for item in items:
            count += 1
            total += item["i"]
        return count, total


class Client(common.Client):
    def __init__(self, service: Service) -> None:
        self.service = service

    async def add(self, number: int) -> int:
        return await self.service.add(number)

    async def take(self, count: int) -> tuple[int, int]:
        taken = total = 0
        async with self.service.items(count) as stream:
            async for item in stream:
                taken += 1
                total += item["i"]
        return taken, total

    async def take_batches(self, count: int) -> tuple[int, int]:
        taken = total = 0
        async with self.service.items(count) as stream:
            async for batch in stream.batches():
                for item in batch:
                    taken += 1
                    total += item["i"]
        return taken, total

    async def take_readings(self, count: int) -> tuple[int, int]:
        taken = total = 0
        async with self.service.readings(count) as stream:
            async for reading in stream:
                taken += 1
                total += reading.i
        return taken, total

    async def take_chunks(self, count: int) -> tuple[int, int]:
        taken = total = 0
        async with self.service.chunks(count) as stream:
            async for chunk in stream:
                taken += 1
                total += len(chunk)
        return taken, total

    async def upload(self, count: int) -> tuple[int, int]:
        async def items() -> AsyncIterator[dict]:
            for number in range(count):
                yield {"i": number, "s": common.TEXT}

        return await self.service.ingest(items())


async def in_batches(client: Client, load: common.Load) -> common.Figures:
    """W3b."""
    return await common.items_per_second(load, client.take_batches)


async def typed(client: Client, load: common.Load) -> common.Figures:
    """W3t."""
    return await common.items_per_second(load, client.take_readings)


async def run_server(transport: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        url = f"unix://{directory}/socket" if transport == "unix" else f"{transport}://127.0.0.1:0"
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve, Service(), url)
            common.announce(server.url)


@asynccontextmanager
async def open_client(address: str) -> AsyncIterator[Client]:
    async with connect(address) as connection:
        yield Client(connection.proxy(Service))


if __name__ == "__main__":
    common.trio_main(run_server, open_client, {"W3b": in_batches, "W3t": typed})
