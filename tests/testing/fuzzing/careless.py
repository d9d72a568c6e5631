"""Services with bugs that are easily made, each with one, and what is to be held against it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import trio

from trio_streamrpc import rpc

__all__ = ["FAULTS"]


class Swallows:
    """A bare ``except`` in a loop takes whatever there is to end it."""

    @rpc
    async def poll(self, name: str) -> str:
        while True:
            try:
                await trio.sleep(1)
            except BaseException:
                continue


class SwallowsInAShield:
    @rpc
    async def poll(self, name: str) -> str:
        while True:
            try:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
            except BaseException:
                continue


class IgnoresItsEnd:
    """A generator that goes on when it is closed."""

    @rpc
    async def rows(self, table: str) -> AsyncIterator[int]:
        number = 0
        while True:
            try:
                yield number
                number += 1
            except BaseException:
                number = 0


class Subscriptions:
    """A task for each call in the application's nursery, where it stays."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery

    @rpc
    async def subscribe(self, topic: str) -> bool:
        self.nursery.start_soon(trio.sleep_forever)
        return True


@asynccontextmanager
async def subscriptions() -> AsyncIterator[Subscriptions]:
    async with trio.open_nursery() as nursery:
        yield Subscriptions(nursery)
        nursery.cancel_scope.cancel()


class Places:
    """A call that is cancelled keeps its place."""

    def __init__(self) -> None:
        self.free = trio.Semaphore(1)

    @rpc
    async def use(self, value: int) -> int:
        await self.free.acquire()
        await trio.sleep(0.5)
        self.free.release()
        return value


class Pool:
    """Two calls at once, and one of them has nothing to give."""

    def __init__(self) -> None:
        self.connection: str | None = "connection"

    @rpc
    async def query(self, text: str) -> str:
        taken, self.connection = self.connection, None
        await trio.sleep(0.1)
        self.connection = taken
        return taken  # type: ignore[return-value]


class Bank:
    """A transaction that is cancelled is not rolled back."""

    def __init__(self) -> None:
        self.is_busy = False

    @rpc
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[int]:
        if self.is_busy:
            raise RuntimeError("already in a transaction")
        self.is_busy = True
        try:
            yield 1
        except ValueError:
            self.is_busy = False
            raise
        self.is_busy = False


class Listeners:
    """Who has left is still told, and is not there any more."""

    def __init__(self) -> None:
        self.channels: list[trio.MemorySendChannel[int]] = []

    @rpc
    async def ticks(self) -> AsyncIterator[int]:
        sender, receiver = trio.open_memory_channel[int](10)
        self.channels.append(sender)
        async with receiver:
            async for tick in receiver:
                yield tick

    @rpc
    async def publish(self, tick: int) -> None:
        for each in self.channels:
            await each.send(tick)


class Picks:
    """A callback's answer is taken for granted."""

    @rpc
    async def choose(self, pick: Callable[[list[str]], Awaitable[int]]) -> str:
        names = ["a", "b"]
        return names[await pick(names)]


class Blames:
    """An upload that fails is the caller's business, and is made to look like the service's."""

    @rpc
    async def total(self, numbers: AsyncIterable[int]) -> str:
        try:
            return str(sum([number async for number in numbers]))
        except Exception as error:
            raise ValueError("no numbers") from error


class StaysBusy:
    """A callback that fails leaves it as it was meanwhile."""

    def __init__(self) -> None:
        self.is_busy = False

    @rpc
    async def build(self, tell: Callable[[float], Awaitable[None]]) -> str:
        if self.is_busy:
            raise RuntimeError("busy")
        self.is_busy = True
        await tell(0.5)
        self.is_busy = False
        return "done"


class NeverStarts:
    @rpc
    async def watch(self, name: str, *, task_status: trio.TaskStatus[str]) -> None:
        if name:
            task_status.started(name)
        await trio.sleep_forever()


class NeverEnters:
    @rpc
    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[str]:
        if not name:
            await trio.sleep_forever()
        yield name


class Session:
    def __init__(self) -> None:
        self.items: dict[str, int] = {}

    @rpc
    async def get(self, key: str) -> int:
        return self.items[key]


class Sessions:
    """The bug is in the object that a context gives."""

    @rpc
    @asynccontextmanager
    async def session(self, user: str) -> AsyncIterator[Session]:
        yield Session()


class Locked:
    @rpc
    async def wait(self, key: str) -> int:
        await trio.sleep_forever()
        return 1


class Started:
    """The bug is in the object that a task gives."""

    @rpc
    async def run(self, *, task_status: trio.TaskStatus[Locked]) -> None:
        task_status.started(Locked())
        await trio.sleep_forever()


class CutShort:
    """Its cleanup awaits, and is cut short where it is not shielded."""

    def __init__(self) -> None:
        self.open = 0

    @rpc
    async def work(self, number: int) -> int:
        self.open += 1
        try:
            await trio.sleep(2)
            return number
        finally:
            await trio.sleep(0.1)
            self.open -= 1


@asynccontextmanager
async def cut_short() -> AsyncIterator[CutShort]:
    service = CutShort()
    yield service
    assert service.open == 0, f"{service.open} are open"


class Worker:
    """What a call has set going fails later."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery

    @rpc
    async def submit(self, number: int) -> None:
        self.nursery.start_soon(self.divide, number)

    async def divide(self, number: int) -> None:
        await trio.sleep(1)
        self.last = 1 / number


@asynccontextmanager
async def worker() -> AsyncIterator[Worker]:
    async with trio.open_nursery() as nursery:
        yield Worker(nursery)
        nursery.cancel_scope.cancel()


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Tile:
    colour: Colour
    sizes: tuple[int, ...] = ()


class Painter:
    """Arguments that do not show themselves as what makes them."""

    @rpc
    async def paint(self, tile: Tile) -> str:
        return {Colour.RED: "#f00"}[tile.colour]


#: What makes each service, which of its methods is at fault (none where it shows only when the
#: service is left), and how it shows.
FAULTS: list[tuple[Any, str, str]] = [
    (Swallows, "poll", "HANGS"),
    (SwallowsInAShield, "poll", "HANGS"),
    (IgnoresItsEnd, "rows", "UNFINISHED"),
    (subscriptions, "subscribe", "LEFT_BEHIND"),
    (Places, "use", "HANGS"),
    (Pool, "query", "WRONG_RESULT"),
    (Bank, "transaction", "UNDECLARED"),
    (Listeners, "publish", "UNDECLARED"),
    (Picks, "choose", "UNDECLARED"),
    (Blames, "total", "UNDECLARED"),
    (StaysBusy, "build", "UNDECLARED"),
    (NeverStarts, "watch", "HANGS"),
    (NeverEnters, "hold", "HANGS"),
    (Sessions, "session.get", "UNDECLARED"),
    (Started, "run.wait", "HANGS"),
    (cut_short, "", "BROKEN"),
    (worker, "", "BROKEN"),
    (Painter, "paint", "UNDECLARED"),
]
