"""Services that do what few do, and do it right: nothing is to be held against them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NewType

import attrs
import msgspec
import trio

from trio_streamrpc import NotFound, Stream, rpc

__all__ = ["SERVICES"]


class Shields:
    """Cleanup that awaits, shielded and with a bound."""

    @rpc
    async def work(self, number: int) -> int:
        try:
            await trio.sleep(2)
            return number
        finally:
            with trio.move_on_after(1, shield=True):
                await trio.sleep(100)

    @rpc
    async def ticks(self) -> AsyncIterator[int]:
        try:
            for number in range(10):
                await trio.sleep(1)
                yield number
        finally:
            with trio.move_on_after(1, shield=True):
                await trio.sleep(0.3)

    @rpc
    async def closes(self, number: int) -> int:
        """As Trio's own do, it closes even when it is cancelled while it does so."""
        sender, receiver = trio.open_memory_channel[int](0)
        try:
            async with receiver:
                with trio.move_on_after(5):
                    await receiver.receive()
            return number
        finally:
            await sender.aclose()


class ScopesAcrossYields:
    @rpc
    async def ticks(self, number: int) -> AsyncIterator[int]:
        with trio.move_on_after(3):
            while True:
                yield number
                await trio.sleep(0.5)

    @rpc
    async def beside_a_task(self) -> AsyncIterator[int]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            for number in range(20):
                yield number
            nursery.cancel_scope.cancel()

    @rpc
    @asynccontextmanager
    async def held(self) -> AsyncIterator[str]:
        """The error of who leaves it comes out in a group of its nursery's."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            yield "held"
            nursery.cancel_scope.cancel()

    @rpc
    @asynccontextmanager
    async def for_a_while(self) -> AsyncIterator[str]:
        with trio.move_on_after(5):
            yield "soon over"

    @rpc
    @asynccontextmanager
    async def suppresses(self) -> AsyncIterator[None]:
        with suppress(Exception):
            yield


class Counter:
    def __init__(self) -> None:
        self.count = 0

    @rpc
    async def add(self, by: int = 1, /, *more: int, twice: bool = False, **named: str) -> str:
        self.count += by + sum(more)
        return str(self.count)

    @property
    @rpc
    def label(self) -> str:
        return getattr(self, "_label", "")

    @label.setter
    def label(self, text: str) -> None:
        self._label = text


class Table:
    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    @rpc
    async def put(self, key: str, value: bytes) -> None:
        self.rows[key] = value

    @rpc
    async def get(self, key: str) -> bytes:
        if key not in self.rows:
            raise NotFound(key)
        return self.rows[key]


class Nested:
    """Namespaces, objects, and options of single methods."""

    def __init__(self) -> None:
        self.counter = Counter()
        self.seen: list[str] = []

    @rpc(strict=False)
    async def loose(self, number: int) -> str:
        return str(number)

    @rpc(oneway=True)
    async def note(self, text: str) -> None:
        self.seen.append(text)
        await trio.sleep(0.2)

    @rpc
    @asynccontextmanager
    async def table(self) -> AsyncIterator[Table]:
        yield Table()

    @rpc
    async def serve(self, *, task_status: trio.TaskStatus[Table]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep(1)
            task_status.started(Table())


class Goes:
    """Streams that go both ways, and buffers that are bounded."""

    def __init__(self) -> None:
        self.samples: deque[int] = deque(maxlen=1000)

    @rpc
    async def total(self, numbers: Stream[int]) -> str:
        total = 0
        with suppress(trio.EndOfChannel):
            while True:
                total += await numbers.receive()
        return str(total)

    @rpc
    async def first(self, numbers: AsyncIterable[int]) -> int | None:
        async for number in numbers:
            return number
        return None

    @rpc
    async def chat(
        self, inbox: AsyncIterable[str], tell: Callable[[str], Awaitable[None]] | None = None
    ) -> AsyncIterator[str]:
        async for line in inbox:
            if tell is not None:
                await tell(line)
            yield line.upper()

    @rpc
    async def sampled(self) -> AsyncIterator[int]:
        """What is sampled meanwhile is the service's, and has room for so many."""
        sender, receiver = trio.open_memory_channel[int](100)
        newest: deque[int] = deque(maxlen=100)

        async def sample() -> None:
            for number in range(10_000):
                self.samples.append(number)
                newest.append(number)
                with suppress(trio.WouldBlock):
                    sender.send_nowait(number)
                await trio.sleep(0.5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sample)
            async for number in receiver:
                yield number

    @rpc
    async def silent(self) -> AsyncIterator[int]:
        await trio.sleep_forever()
        yield 1

    @rpc
    async def long_but_finite(self) -> int:
        for _ in range(3_000):
            await trio.lowlevel.checkpoint()
        return 1


class Cache:
    """Calls that wait for each other, and come to an end."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.limiter = trio.CapacityLimiter(2)
        self.changed = trio.Condition()
        self.version = 0
        self.values: dict[str, int] = {}

    @rpc
    async def get(self, key: str) -> int:
        async with self.limiter, self.lock:
            if key not in self.values:
                await trio.sleep(0.2)
                self.values[key] = len(self.values)
            return self.values[key]

    @rpc
    async def change(self) -> None:
        async with self.changed:
            self.version += 1
            self.changed.notify_all()

    @rpc
    async def versions(self) -> AsyncIterator[int]:
        seen = -1
        while True:
            async with self.changed:
                while self.version == seen:
                    await self.changed.wait()
                seen = self.version
            yield seen


class Queue:
    """A worker that lives as long as the service, and tasks that end soon after their calls."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.sender, self.receiver = trio.open_memory_channel[int](100)
        nursery.start_soon(self.work)

    async def work(self) -> None:
        async for _ in self.receiver:
            await trio.sleep(0.5)

    @rpc
    async def submit(self, number: int) -> None:
        await self.sender.send(number)

    @rpc
    async def later(self) -> None:
        self.nursery.start_soon(trio.sleep, 3)


@asynccontextmanager
async def queue() -> AsyncIterator[Queue]:
    async with trio.open_nursery() as nursery:
        yield Queue(nursery)
        nursery.cancel_scope.cancel()


class Outside:
    """What takes real time, and no simulated time: threads and files."""

    @rpc
    async def add(self, number: int) -> str:
        return str(number + await trio.to_thread.run_sync(sum, range(300_000)))

    @rpc
    async def source(self) -> str:
        return (await trio.Path(__file__).read_text(encoding="utf-8"))[:10]

    @rpc
    async def ticks(self) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await trio.to_thread.run_sync(sum, range(300_000))


@attrs.define
class Point:
    x: int
    labels: list[str] = attrs.field(factory=list)


class Line(msgspec.Struct, tag=True):
    ends: tuple[int, int]


class Dot(msgspec.Struct, tag=True):
    at: int


class Pair(NamedTuple):
    a: int
    b: str


@dataclass
class Tree:
    value: float
    children: list[Tree] = field(default_factory=list)


UserId = NewType("UserId", int)


class Types:
    @rpc
    async def point(self, point: Point, pair: Pair) -> tuple[Point, Pair]:
        return point, pair

    @rpc
    async def shape(self, shape: Line | Dot, user: UserId) -> Line | Dot:
        return shape

    @rpc
    async def tree(self, tree: Tree, extra: dict[str, Any] | None = None) -> Tree:
        return tree


SERVICES: list[Any] = [Shields, ScopesAcrossYields, Nested, Goes, Cache, queue, Outside, Types]
