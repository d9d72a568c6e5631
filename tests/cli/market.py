"""The service of the command line's tests: it notes what has ended, for tests in other threads."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_streamrpc import DeadlineExceeded, InvalidArgument, NotFound, current_call, rpc


class Account:
    @rpc
    async def debit(self, amount: int) -> int:
        """Take it."""
        return amount


class Market:
    def __init__(self) -> None:
        #: What has run its ``finally``.
        self.ended: list[str] = []
        #: How often each method has run.
        self.runs: list[str] = []
        self.produced = 0
        self.started = threading.Event()

    @rpc
    async def price(self, symbol: str, *, at: float = 0.0) -> dict[str, Any]:
        """The price of a symbol.

        Now, or at a time.
        """
        return {"symbol": symbol, "at": at}

    @rpc
    async def echo(self, value: Any) -> Any:
        return value

    @rpc
    async def fail(self, message: str) -> None:
        raise ValueError(message)

    @rpc
    async def refuse(self) -> None:
        raise NotFound("there is none")

    @rpc
    async def late(self) -> None:
        raise DeadlineExceeded("it took too long")

    @rpc
    async def ticks(self, symbol: str) -> AsyncIterator[int]:
        """Numbers, without an end."""
        number = 0
        try:
            while True:
                self.produced = number
                yield number
                number += 1
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
            self.ended.append(symbol)

    @rpc
    async def few(self, count: int, then: str = "end") -> AsyncIterator[int]:
        """Some numbers, and then the end, an error, or nothing more."""
        self.runs.append("few")
        try:
            for number in range(count):
                yield number
            if then == "fail":
                raise ValueError("no more")
            if then == "wait":
                self.started.set()
                await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
            self.ended.append(f"few, then {then}")

    @rpc
    async def slow(self, name: str) -> None:
        self.started.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
            self.ended.append(name)

    @rpc
    async def total(self, numbers: AsyncIterable[int]) -> int:
        """The sum of them."""
        self.runs.append("total")
        return sum([number async for number in numbers])

    @rpc
    async def first(self, numbers: AsyncIterable[Any]) -> Any:
        """The first of them; the others are not taken."""
        async for number in numbers:
            return number
        return None

    @rpc
    async def doubled(self, numbers: AsyncIterable[int]) -> AsyncIterator[int]:
        self.runs.append("doubled")
        async for number in numbers:
            yield 2 * number

    @rpc
    async def size(self, data: bytes) -> int:
        return len(data)

    @rpc
    async def copy(self, blocks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for block in blocks:
            yield block

    @rpc
    async def data(self, size: int) -> bytes:
        return bytes(range(256)) * size

    @rpc
    async def misleading(self) -> None:
        self.runs.append("misleading")
        raise InvalidArgument("another service gives a stream")

    @rpc
    async def build(self, progress: Callable[[float], Awaitable[None]]) -> None: ...

    @rpc
    async def metadata(self) -> dict[str, Any]:
        call = current_call()
        return {"metadata": dict(call.metadata), "x": call.headers.get("x-test")}

    @rpc
    @asynccontextmanager
    async def account(self) -> AsyncIterator[Account]:
        yield Account()
