"""A service with a bug of each kind, and one with none."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import trio

from trio_streamrpc import InvalidArgument, NotFound, OutOfRange, rpc

__all__ = ["BUGS", "Buggy", "Busy", "Correct", "Item", "Stubborn"]

#: The bugs of the service below: which method, and what is to be held against it.
BUGS = {
    "ratio": "UNDECLARED",
    "first": "UNDECLARED",
    "label": "WRONG_RESULT",
    "numbers": "WRONG_RESULT",
    "start": "LEFT_BEHIND",
    "flush": "UNFINISHED",
    "watch": "UNFINISHED",
    "feed": "RUNS_AHEAD",
    "transfer": "HANGS",
}


@dataclass
class Item:
    name: str
    price: float


class Buggy:
    """Each method is nearly right."""

    def __init__(self) -> None:
        self.locks = {"a": trio.Lock(), "b": trio.Lock()}

    @rpc
    async def ratio(self, part: int, whole: int) -> float:
        return part / whole

    @rpc
    async def first(self, items: list[Item]) -> str:
        return items[0].name

    @rpc
    async def label(self, number: int) -> str:
        return "many" if number > 1_000_000 else number  # type: ignore[return-value]

    @rpc
    async def numbers(self, count: int) -> AsyncIterator[int]:
        for number in range(min(count, 5)):
            yield number if number < 3 else str(number)  # type: ignore[misc]

    @rpc
    async def start(self, wait: bool) -> None:
        if wait:
            trio.lowlevel.spawn_system_task(trio.sleep_forever)

    @rpc
    async def flush(self) -> None:
        try:
            await trio.sleep(5)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep_forever()
            raise

    @rpc
    async def watch(self, path: str) -> AsyncIterator[str]:
        try:
            while True:
                yield path
        finally:
            await trio.sleep(60)

    @rpc
    async def feed(self, symbol: str) -> AsyncIterator[int]:
        sender, receiver = trio.open_memory_channel[int](math.inf)

        async def produce() -> None:
            number = 0
            while True:
                sender.send_nowait(number)
                number += 1
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            async for number in receiver:
                yield number

    @rpc
    async def transfer(self, backwards: bool) -> None:
        """Two at once that go opposite ways wait for each other for ever."""
        one, other = ("b", "a") if backwards else ("a", "b")
        async with self.locks[one]:
            await trio.sleep(0.01)
            async with self.locks[other]:
                pass


class Correct:
    """Methods of every kind, with nothing to be held against them."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}

    @rpc
    async def put(self, key: str, item: Item) -> None:
        await trio.sleep(0.1)
        self.items[key] = item

    @rpc
    async def get(self, key: str) -> Item:
        if key not in self.items:
            raise NotFound(key)
        return self.items[key]

    @rpc(errors=(ZeroDivisionError,))
    async def ratio(self, part: int, whole: int) -> float:
        if abs(part) > 2**60:
            raise OutOfRange("too large")
        return part / whole

    @rpc
    async def count(self, stop: int, pause: float = 0.0) -> AsyncIterator[int]:
        if not 0 <= pause <= 1:
            raise InvalidArgument("the pause")
        try:
            for number in range(stop):
                await trio.sleep(pause)
                yield number
        finally:
            await trio.sleep(0.5)

    @rpc
    async def feed(self) -> AsyncIterator[int]:
        sender, receiver = trio.open_memory_channel[int](2)

        async def produce() -> None:
            number = 0
            while True:
                await sender.send(number)
                number += 1
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            async for number in receiver:
                yield number

    @rpc
    async def total(self, numbers: AsyncIterable[int]) -> str:
        return str(sum([number async for number in numbers]))

    @rpc
    async def build(self, tell: Callable[[float], Awaitable[None]]) -> str:
        for number in range(3):
            await tell(number / 3)
        return "done"

    @rpc
    @asynccontextmanager
    async def session(self, name: str) -> AsyncIterator[str]:
        try:
            yield name
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.2)

    @rpc
    async def job(self, steps: int, *, task_status: trio.TaskStatus[int]) -> None:
        task_status.started(steps)
        await trio.sleep(3)

    @rpc
    async def anything(self, value: Any) -> Any:
        return value


class Busy:
    """It waits for nothing."""

    @rpc
    async def poll(self, ready: bool) -> None:
        while not ready:
            await trio.lowlevel.checkpoint()


class Stubborn:
    """It cannot be ended in any way that Trio has."""

    @rpc
    async def spin(self) -> None:
        while True:
            with suppress(trio.Cancelled):
                await trio.lowlevel.checkpoint()

    @rpc
    async def wait(self) -> None:
        while True:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
