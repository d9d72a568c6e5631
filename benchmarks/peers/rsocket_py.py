"""rsocket-py: RSocket over WebSocket, with aiohttp's transport and JSON by hand.

A receiver grants credit for items and renews half of it when half was taken. A publisher sends what
it has credit for at once: with the helper that makes one of a generator, which goes through two
queues and three switches for each item, its server needs nearly twice the time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice

import common
from aiohttp import web
from reactivestreams.publisher import DefaultPublisher, Publisher
from reactivestreams.subscriber import DefaultSubscriber, Subscriber
from reactivestreams.subscription import DefaultSubscription, Subscription
from rsocket.helpers import create_response
from rsocket.payload import Payload
from rsocket.request_handler import BaseRequestHandler
from rsocket.rsocket_client import RSocketClient
from rsocket.transports.aiohttp_websocket import websocket_client, websocket_handler_factory

#: What a receiver grants. Without a limit, which is the default, a sender holds all of a stream in
#: memory at once: that gains a sixth at most.
CREDIT = 256

dumps = json.JSONEncoder(separators=(",", ":")).encode
decode = json.loads


def encode(value: object) -> bytes:
    return dumps(value).encode()


def items(count: int) -> Iterator[tuple[Payload, bool]]:
    for number in range(count):
        item = {"i": number, "s": common.TEXT}
        yield Payload(encode(item)), number + 1 == count


def chunks(count: int) -> Iterator[tuple[Payload, bool]]:
    for number in range(count):
        yield Payload(common.CHUNK), number + 1 == count


class Published(DefaultPublisher, DefaultSubscription):
    """Sends payloads as far as it has credit for them."""

    def __init__(self, payloads: Iterator[tuple[Payload, bool]]) -> None:
        self.payloads = payloads

    def subscribe(self, subscriber: Subscriber) -> None:
        super().subscribe(subscriber)
        self.send = subscriber.on_next
        subscriber.on_subscribe(self)

    def request(self, n: int) -> None:
        for payload, is_last in islice(self.payloads, n):
            self.send(payload, is_last)


class Received(DefaultSubscriber):
    """The payloads of a stream, one by one; new credit whenever half of it was taken."""

    def __init__(self, to_grant: int) -> None:
        super().__init__()
        self.to_grant = to_grant
        self.is_complete = False
        self.queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    def on_subscribe(self, subscription: Subscription) -> None:
        super().on_subscribe(subscription)
        if self.to_grant:
            subscription.request(self.to_grant)

    def on_next(self, value: Payload, is_complete: bool = False) -> None:
        self.queue.put_nowait(value.data)
        if is_complete:
            self.on_complete()

    def on_complete(self) -> None:
        self.is_complete = True
        self.queue.put_nowait(None)

    def on_error(self, exception: Exception) -> None:
        self.queue.put_nowait(exception)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        taken = 0
        while (data := await self.queue.get()) is not None:
            if isinstance(data, Exception):
                raise data
            yield data
            taken += 1
            if taken == CREDIT // 2 and not self.is_complete:
                taken = 0
                self.subscription.request(CREDIT // 2)


class Ingest(DefaultPublisher, DefaultSubscription):
    """Answers with one payload when all of the upload was taken."""

    def __init__(self, received: Received) -> None:
        self.received = received

    def subscribe(self, subscriber: Subscriber) -> None:
        super().subscribe(subscriber)
        subscriber.on_subscribe(self)
        self.task = asyncio.create_task(self.take(subscriber))

    async def take(self, subscriber: Subscriber) -> None:
        count = total = 0
        async for data in self.received:
            count += 1
            total += decode(data)["i"]
        subscriber.on_next(Payload(encode([count, total])), is_complete=True)

    def cancel(self) -> None:
        self.task.cancel()


class Handler(BaseRequestHandler):
    async def request_response(self, payload: Payload) -> asyncio.Future:
        return create_response(encode(decode(payload.data) + 1))

    async def request_stream(self, payload: Payload) -> Publisher:
        method, count = decode(payload.data)
        return Published({"items": items, "chunks": chunks}[method](count))

    async def request_channel(self, payload: Payload) -> tuple[Publisher, Subscriber]:
        received = Received(to_grant=CREDIT)
        return Ingest(received), received


async def run_server(transport: str) -> None:
    app = web.Application()
    app.add_routes([web.get("/", websocket_handler_factory(handler_factory=Handler))])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _, port = runner.addresses[0]
    common.announce(f"http://127.0.0.1:{port}")
    await asyncio.Event().wait()


class Client(common.Client):
    def __init__(self, socket: RSocketClient) -> None:
        self.socket = socket

    def open_stream(self, method: str, count: int) -> Received:
        received = Received(to_grant=0)  # the request grants it
        stream = self.socket.request_stream(Payload(encode([method, count])))
        stream.initial_request_n(CREDIT).subscribe(received)
        return received

    async def add(self, number: int) -> int:
        answer = await self.socket.request_response(Payload(encode(number)))
        return decode(answer.data)

    async def take(self, count: int) -> tuple[int, int]:
        taken = total = 0
        async for data in self.open_stream("items", count):
            taken += 1
            total += decode(data)["i"]
        return taken, total

    async def take_chunks(self, count: int) -> tuple[int, int]:
        taken = total = 0
        async for chunk in self.open_stream("chunks", count):
            taken += 1
            total += len(chunk)
        return taken, total

    async def upload(self, count: int) -> tuple[int, int]:
        received = Received(to_grant=0)
        channel = self.socket.request_channel(Payload(), Published(items(count)))
        channel.initial_request_n(1).subscribe(received)
        async for data in received:
            answer = decode(data)
        return tuple(answer)


@asynccontextmanager
async def open_client(address: str) -> AsyncIterator[Client]:
    async with websocket_client(address) as socket:
        yield Client(socket)


if __name__ == "__main__":
    common.asyncio_main(run_server, open_client)
