"""The service of the recordings, and the recordings themselves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from trio_streamrpc import RpcError, rpc

__all__ = ["Error", "Recorded", "conversation", "names"]

VECTORS = Path(__file__).parents[1] / "vectors"


class Error(Exception):
    """JavaScript's own."""


class BadThing(RpcError):
    def __init__(self) -> None:
        super().__init__("bad thing", data={"code": 42})
        self.name = "TypeError"


class Settings:
    def __init__(self, theme: str) -> None:
        self._theme = theme

    @property
    @rpc
    def theme(self) -> str:
        return self._theme

    @theme.setter
    def theme(self, value: str) -> None:
        self._theme = value


class Data:
    @rpc
    async def stream(self, n: int) -> AsyncIterator[str]:
        for each in range(n):
            yield f"item-{each}"


class Recorded:
    """What was served in the recordings; ``ticked`` is set by what ticks when it has ended."""

    data: Data
    settings: Settings

    def __init__(self, theme: str = "light") -> None:
        self.data = Data()
        self.settings = Settings(theme)
        self.ticked = trio.Event()

    @rpc
    async def add(self, a: float, b: float) -> Any:
        return a + b

    @rpc
    async def countdown(self, start: int) -> AsyncIterator[int]:
        for each in range(start, -1, -1):
            yield each

    @rpc
    async def failing(self) -> AsyncIterator[int]:
        yield 1
        yield 2
        raise Error("something went wrong")

    @rpc
    async def ticks(self) -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
                await trio.sleep(0.005)
        finally:
            self.ticked.set()

    @rpc
    async def sum(self, xs: AsyncIterable[int]) -> int:
        return sum([each async for each in xs])

    @rpc
    async def progress(self, cb: Callable[[float], Awaitable[None]]) -> str:
        for each in (0.25, 0.5, 1):
            await cb(each)
        return "done"

    @rpc
    async def fail(self) -> None:
        raise BadThing

    @property
    @rpc
    def counter(self) -> int:
        return 7

    @rpc
    async def none(self) -> None:
        pass

    @rpc
    async def nul(self) -> Any:
        return None

    @rpc
    async def echo(self, x: Any) -> Any:
        return x


def names(system: str) -> list[str]:
    """The conversations that were recorded of a system."""
    return sorted(each.stem for each in (VECTORS / system).glob("*.json"))


def conversation(system: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VECTORS / system / f"{name}.json").read_text())
    return found
