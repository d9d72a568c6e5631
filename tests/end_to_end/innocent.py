"""A server under attack, and beside it an innocent client, which has to be served throughout."""

from __future__ import annotations

import gc
import logging
import tracemalloc
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from tests.end_to_end.network import address_of, serving, until
from tests.service import Service
from tests.transports.rawpeer import Ending, RawPeer
from tests.transports.rawsocket import RawSocket
from tests.transports.rawstream import RawStream
from trio_streamrpc import Connection, Limits, Server, connect, rpc
from trio_streamrpc.protocol.codecs import Encoding

__all__ = [
    "EACH_TRANSPORT",
    "LIMITS",
    "OVER_TCP",
    "OVER_WEBSOCKET",
    "PATIENCE",
    "RAW",
    "Beside",
    "Scene",
    "Target",
    "beside_an_innocent",
    "breaks_the_rules",
    "check_log",
    "each_in_its_encoding",
    "ends",
    "is_told",
    "memory_growing_by_at_most",
    "serves_on",
]

#: Small, so that what is too much is soon too much; and short, so that what is late is soon late.
LIMITS = Limits(
    max_message_bytes=20_000,
    max_waiting_control_bytes=20_000,
    handshake_timeout=1,
    close_timeout=1,
    cleanup=1,
)

#: How long the innocent waits for any one answer: long for a machine, and short for a promise.
PATIENCE = 15

RAW: dict[str, type[RawPeer]] = {"ws": RawSocket, "tcp": RawStream}

EACH_TRANSPORT = pytest.mark.parametrize("beside", ["ws-json", "tcp-msgpack"], indirect=True)
OVER_WEBSOCKET = pytest.mark.parametrize("beside", ["ws-msgpack"], indirect=True)
OVER_TCP = pytest.mark.parametrize("beside", ["tcp-msgpack"], indirect=True)


class Target(Service):
    """What hostile clients call besides."""

    @rpc
    async def total(self, numbers: AsyncIterable[int]) -> int:
        """The sum of an upload."""
        self._note("total")
        try:
            return sum([number async for number in numbers])
        finally:
            self._end("total")

    @rpc
    async def ignore(self, numbers: AsyncIterable[int]) -> None:
        """It never takes anything of an upload."""
        self._note("ignore")
        try:
            await trio.sleep_forever()
        finally:
            self._end("ignore")

    @rpc
    async def take(self, anything: Any) -> str:
        """What kind of thing it was given."""
        return type(anything).__name__


class Innocent:
    """A client that calls, and takes from a stream, again and again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.answers = 0
        self.ticks = 0

    async def call(self) -> None:
        while True:
            with trio.fail_after(PATIENCE):
                assert await self._connection.call("add", self.answers, 1) == self.answers + 1
            self.answers += 1
            await trio.sleep(0.001)

    async def listen(self) -> None:
        async with self._connection.stream("count", 10**9) as stream:
            while True:
                with trio.fail_after(PATIENCE):
                    assert await stream.receive() == self.ticks
                self.ticks += 1
                await trio.sleep(0.001)

    async def go_on(self) -> None:
        """Wait until it was served some more."""
        answers, ticks = self.answers + 3, self.ticks + 3
        await until(lambda: self.answers >= answers and self.ticks >= ticks)


@dataclass
class Scene:
    """What a hostile test has to do with."""

    server: Server
    service: Any
    innocent: Innocent
    #: The server's end of the innocent's connection.
    innocents: Connection
    kind: str
    encoding: Encoding

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[RawPeer]:
        """A client by hand that has said nothing."""
        async with await trio.open_tcp_stream(*address_of(self.server.url)) as stream:
            yield RAW[self.kind](stream)

    @asynccontextmanager
    async def greeted(self) -> AsyncIterator[RawPeer]:
        """A client by hand that is connected as any other is."""
        async with self.connected() as raw:
            with trio.fail_after(PATIENCE):
                await raw.greets(self.encoding)
            yield raw

    @property
    def running(self) -> list[str]:
        """The handlers that run for others than the innocent, and have not run their finally."""
        running = list(self.service.running)
        running.remove("count")
        return running

    @property
    def others(self) -> frozenset[Connection]:
        """The connections but for the innocent's."""
        return self.server.connections - {self.innocents}


@asynccontextmanager
async def beside_an_innocent(
    kind: str, encoding: Encoding, service: Any = None, limits: Limits = LIMITS, **options: Any
) -> AsyncIterator[Scene]:
    """A server, and a client that is served for as long as the block lasts, and after it."""
    service = Target() if service is None else service
    async with serving(service, f"{kind}://127.0.0.1:0", limits=limits, **options) as server:
        async with connect(server.url, encoding=encoding) as connection:
            innocent = Innocent(connection)
            [innocents] = server.connections
            scene = Scene(server, service, innocent, innocents, kind, encoding)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(innocent.call)
                nursery.start_soon(innocent.listen)
                await innocent.go_on()
                yield scene
                # The others are gone, and so is all that ran for them.
                await until(lambda: not scene.others and not scene.running)
                await innocent.go_on()
                nursery.cancel_scope.cancel()


class Beside:
    """Opens scenes over one kind of transport, in one encoding; given by the fixture of that name.

    Where a scene ends, the other connections are gone, their handlers have run their ``finally``,
    and nothing was logged that is a fault of the server's or shows a peer's words as they came. The
    fixture ``baseline`` then looks at tasks and file descriptors.
    """

    def __init__(
        self, kind: str, encoding: str, caplog: pytest.LogCaptureFixture, limit: float
    ) -> None:
        self.kind = kind
        self.encoding: Encoding = "json" if encoding == "json" else "msgpack"
        self._caplog = caplog
        self._limit = limit
        caplog.set_level(logging.DEBUG, "trio_streamrpc")

    @asynccontextmanager
    async def __call__(
        self,
        service: Any = None,
        limits: Limits = LIMITS,
        *,
        logged: Callable[[logging.LogRecord], bool] | None = None,
        **options: Any,
    ) -> AsyncIterator[Scene]:
        """A scene; ``logged`` tells which warnings and errors belong to it."""
        # A test that waits for what does not come shall fail, and not stand still.
        with trio.fail_after(self._limit):
            async with beside_an_innocent(
                self.kind, self.encoding, service, limits, **options
            ) as scene:
                yield scene
        check_log(self._caplog, logged)


def check_log(
    caplog: pytest.LogCaptureFixture, logged: Callable[[logging.LogRecord], bool] | None = None
) -> None:
    """Nothing of a peer's unescaped, or at length; and nothing that is a fault of ours."""
    for record in caplog.records:
        message = record.getMessage()
        if logged is None or not logged(record):
            assert record.levelno < logging.WARNING, message
            assert record.exc_info is None
        # 200 characters of the peer's, and our own words around them.
        assert len(message) <= 250
        assert message.isprintable()
        assert message.isascii()


@contextmanager
def memory_growing_by_at_most(most: int) -> Iterator[None]:
    """What Python has allocated in the block never was more than so many bytes above the start."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before <= most


async def ends(raw: RawPeer) -> Ending:
    """What a peer hears until it is hung up on, which it has to be."""
    with trio.fail_after(PATIENCE):
        return await raw.hears_the_end()


async def breaks_the_rules(
    scene: Scene, raw: RawPeer, message: bytes | str, close_code: int
) -> Ending:
    """It is told so by a goaway and by the transport, and what it runs is ended."""
    await raw.says(
        {"type": "call", "id": 101, "method": "wait"},
        {"type": "call", "id": 103, "method": "forever", "window": {"items": 1, "bytes": 1}},
    )
    await raw.hears("chunk")
    assert sorted(scene.running) == ["forever", "wait"]
    await raw.send_message(message)
    ending = await ends(raw)
    is_told(scene, ending, "PROTOCOL_ERROR", close_code)
    return ending


def is_told(scene: Scene, ending: Ending, code: str, close_code: int) -> None:
    """R27."""
    goaway = ending.goaway
    assert goaway is not None
    assert goaway["code"] == code
    assert len(goaway["message"]) <= 200
    assert goaway["message"].isprintable()
    # A byte stream has no place for it.
    assert ending.close_code == (close_code if scene.kind == "ws" else None)


def each_in_its_encoding(cases: dict[str, Any]) -> pytest.MarkDecorator:
    """Over each transport, the messages that there are of it in each encoding."""
    return pytest.mark.parametrize(
        ("beside", "made"),
        [
            pytest.param(f"{kind}-{encoding}", made, id=f"{kind}-{encoding}-{what}")
            for what, both in cases.items()
            for encoding, made in zip(("msgpack", "json"), both, strict=True)
            for kind in ("ws", "tcp")
            if made is not None
        ],
        indirect=["beside"],
    )


async def serves_on(raw: RawPeer, id: int = 1001) -> None:
    """The connection lives, and nothing else has been said."""
    with trio.fail_after(PATIENCE):
        await raw.says({"type": "call", "id": id, "method": "add", "args": [1, 2]})
        answer = await raw.hears()
        while answer["type"] == "ping":
            # It is how a server finds out how long the way is.
            answer = await raw.hears()
        assert answer == {"type": "result", "id": id, "value": 3}
