"""A service with every kind of method, and interceptors, for tests of what stands around calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_streamrpc import Call, NotFound, Window, current_call, rpc

__all__ = ["ONE", "Service", "noting", "plain", "unawaited", "wrapping"]

ONE = Window(1, 1000)


class Account:
    @rpc
    async def debit(self, amount: int) -> int:
        return amount

    @rpc
    async def entries(self, number: int) -> AsyncIterator[int]:
        for each in range(number):
            yield each


class Service:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.produced = 0

    @rpc
    async def echo(self, value: str, *more: int, flag: bool = False) -> str:
        return value

    @rpc
    async def metadata(self) -> dict[str, Any]:
        return dict(current_call().metadata)

    @rpc
    async def metadata_stream(self) -> AsyncIterator[dict[str, Any]]:
        yield dict(current_call().metadata)
        yield dict(current_call().metadata)

    @rpc
    async def fail(self, message: str = "broken") -> None:
        raise ValueError(message)

    @rpc
    async def wait(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.log.append("wait")

    @rpc
    async def count(self, stop: int = 1_000_000, pause: float = 1) -> AsyncIterator[int]:
        try:
            for number in range(stop):
                self.produced += 1
                yield number
        finally:
            if pause:
                await trio.sleep(pause)
            self.log.append("count")

    @rpc
    async def slow(self) -> AsyncIterator[int]:
        try:
            while True:
                yield 0
                await trio.sleep_forever()
        finally:
            self.log.append("slow")

    @rpc
    async def limited(self, seconds: float, then: int = 0) -> AsyncIterator[int]:
        """It holds a scope open across its yield."""
        with trio.move_on_after(seconds):
            while True:
                yield 1
        self.log.append("limited")
        for _ in range(then):
            yield 2

    @rpc
    async def watched(self) -> AsyncIterator[int]:
        """It holds a nursery open across its yield, in which something fails."""

        async def fail() -> None:
            await trio.sleep(1)
            raise NotFound("what was watched")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            while True:
                yield 1

    @rpc
    async def upload(self, numbers: Any) -> list[int]:
        return [number async for number in numbers]

    @rpc
    async def ask(self, question: Any) -> Any:
        return await question("why")

    @rpc
    @asynccontextmanager
    async def account(self, name: str) -> AsyncIterator[Account]:
        try:
            yield Account()
        finally:
            self.log.append(f"account {name}")

    @rpc
    async def work(
        self, steps: int, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started(steps)
        await trio.sleep(steps)
        self.log.append("work")


def plain(stream: Any) -> Any:
    """What a careless interceptor puts around a stream: it closes nothing."""

    async def items() -> AsyncIterator[Any]:
        async for item in stream:
            yield item

    return items()


async def wrapping(call: Call, proceed: Any) -> Any:
    given = await proceed()
    return plain(given) if hasattr(given, "__aiter__") else given


def noting(log: list[str], name: str) -> Callable[..., Any]:
    async def note(call: Call, proceed: Any) -> Any:
        log.append(f"{name}: {call.method}")
        try:
            return await proceed()
        finally:
            log.append(f"{name} left")

    return note


async def unawaited(call: Call, proceed: Any) -> Any:
    """One that has forgotten its await."""
    return proceed(call)
