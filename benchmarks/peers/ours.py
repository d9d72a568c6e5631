"""trio_streamrpc itself, over the transport that is named: what a user would write, no more."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

import attrs
import common
import special
import trio
from watching import Board, Production

from trio_streamrpc import Limits, Window, connect, rpc, serve, with_options

#: W9 has thousands of clients at one address, and W10 a thousand calls at once on a connection,
#: more than a server takes by default: they have a server of their own, whose transport is called
#: so, and all else is measured by the defaults.
MANY = "many-"
MANY_LIMITS = Limits(max_calls=2_000, max_connections=100_000, max_connections_per_peer=100_000)

#: So many items that none comes to an end.
ENDLESS = 10**12

#: W12: a window that is never full, and for how long each stream is taken from, in seconds.
UNLIMITED = Window(items=10**9, bytes=10**12)
LINK_SECONDS = 5.0


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

    @rpc
    async def meet(self, board: str) -> None:
        with Board(board) as found:
            found.sign()

    @rpc
    async def produce(self, kind: str, board: str) -> AsyncIterator[bytes]:
        with Production(board) as production:
            for data in production.of(kind):
                yield data
            await trio.sleep_forever()

    @rpc
    async def large(self, size: int) -> bytes:
        return large_value(size)


@lru_cache(1)
def large_value(size: int) -> bytes:
    return b"x" * size


class Client(special.Client):
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

    async def meet(self, board: str) -> None:
        await self.service.meet(board)

    def produce(self, kind: str, board: str):
        return self.service.produce(kind, board)

    def endless(self):
        return self.service.items(ENDLESS)

    async def large(self, size: int) -> int:
        return len(await self.service.large(size))


async def in_batches(client: Client, load: common.Load) -> common.Figures:
    """W3b."""
    return await common.items_per_second(load, client.take_batches)


async def typed(client: Client, load: common.Load) -> common.Figures:
    """W3t."""
    return await common.items_per_second(load, client.take_readings)


async def idle(client: Client, load: common.Load) -> common.Figures:
    """W9, on a server of its own."""
    with own_server(load) as address:
        async with open_client(address) as own:
            return await special.idle_connections(own, replace(load, address=address), connect)


async def many_streams(client: Client, load: common.Load) -> common.Figures:
    """W10, on a server of its own."""
    with own_server(load) as address:
        async with open_client(address) as own:
            return await special.many_streams(own, load)


def own_server(load: common.Load):
    """A server that takes many, over the same transport: its URL."""
    transport = f"{MANY}{urlsplit(load.address).scheme}"
    return running([sys.executable, str(Path(__file__)), "serve", transport])


async def long_link(client: Client, load: common.Load) -> common.Figures:
    """W12: what a window that grows by itself lets through a link of so many ms each way, in
    percent of what one does that is never full; after the first half of the time, too."""
    seconds = LINK_SECONDS * load.seconds
    rates = {}
    with relay(load.address, load.size) as address:
        for window in (None, UNLIMITED):
            for name in ("items", "chunks"):
                # A connection of its own: what one has learnt is not for the next.
                async with connect(address) as connection:
                    service = with_options(connection.proxy(Service), window=window)
                    rates[name, window] = await rate_of(getattr(service, name)(ENDLESS), seconds)
    items, all_items = rates["items", None], rates["items", UNLIMITED]
    chunks, all_chunks = rates["chunks", None], rates["chunks", UNLIMITED]
    chunks_in_mb = common.CHUNK_BYTES / 1e6
    return {
        "value": 100 * items[0] / all_items[0],
        "late": 100 * items[1] / all_items[1],
        "chunks_percent": 100 * chunks[0] / all_chunks[0],
        "chunks_late": 100 * chunks[1] / all_chunks[1],
        "items_per_s": items[0],
        "of": all_items[0],
        "MB_per_s": chunks[0] * chunks_in_mb,
        "of_MB": all_chunks[0] * chunks_in_mb,
    }


async def rate_of(opened, seconds: float) -> tuple[float, float]:
    """How many items a second, from the opening on; and in the second half of the time."""
    count = half = 0
    started = perf_counter()
    middle = 0.0
    async with opened as stream:
        async for _ in stream:
            count += 1
            now = perf_counter()
            if not half and now - started >= seconds / 2:
                half, middle = count, now
            if now - started >= seconds:
                break
        ended = perf_counter()
    return count / (ended - started), (count - half) / (ended - middle)


@contextmanager
def relay(address: str, milliseconds: int):
    """The same server behind a link that takes its time: the URL."""
    parts = urlsplit(address)
    script = Path(__file__).with_name("relay.py")
    command = [sys.executable, str(script), parts.netloc or parts.path, str(milliseconds)]
    with running(command) as port:
        scheme = "tcp" if parts.scheme == "unix" else parts.scheme
        yield f"{scheme}://127.0.0.1:{port}"


@contextmanager
def running(command: list[str]):
    """A process that ends with the block: the first line that it says."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            line = process.stdout.readline().decode().strip()
            if not line:
                raise ChildProcessError(f"{Path(command[1]).name} said nothing")
            yield line
        finally:
            process.kill()


async def run_server(transport: str) -> None:
    limits = MANY_LIMITS if transport.startswith(MANY) else None
    transport = transport.removeprefix(MANY)
    with tempfile.TemporaryDirectory() as directory:
        url = f"unix://{directory}/socket" if transport == "unix" else f"{transport}://127.0.0.1:0"
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, limits=limits), Service(), url)
            common.announce(server.url)


@asynccontextmanager
async def open_client(address: str) -> AsyncIterator[Client]:
    async with connect(address) as connection:
        yield Client(connection.proxy(Service))


if __name__ == "__main__":
    workloads = {
        **special.WORKLOADS,
        "W3b": in_batches,
        "W3t": typed,
        "W9": idle,
        "W10": many_streams,
        "W12": long_link,
    }
    common.trio_main(run_server, open_client, workloads)
