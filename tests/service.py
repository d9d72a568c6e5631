"""The service of tests that are about connections: it notes what was started and what has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from trio_streamrpc import current_call, rpc

__all__ = ["Service"]


class Service:
    """What runs is in ``running``; what has run its ``finally`` is in ``ended``, in that order."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.ended: list[str] = []
        self.produced = 0
        self._changed = trio.Event()

    def _note(self, name: str) -> None:
        self.running.append(name)
        self._wake()

    def _end(self, name: str) -> None:
        self.running.remove(name)
        self.ended.append(name)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_running(self, count: int = 1) -> None:
        """Wait until so many handlers run."""
        while len(self.running) < count:
            await self._changed.wait()

    async def wait_ended(self, count: int = 1) -> None:
        """Wait until so many handlers have ended."""
        while len(self.ended) < count:
            await self._changed.wait()

    async def wait_produced(self, count: int) -> None:
        """Wait until so many items were asked of ``forever``."""
        while self.produced < count:
            await self._changed.wait()

    @rpc
    async def add(self, a: int, b: int) -> int:
        return a + b

    @rpc
    async def echo(self, value: bytes) -> bytes:
        return value

    @rpc
    async def count(self, stop: int) -> AsyncIterator[int]:
        self._note("count")
        try:
            for number in range(stop):
                yield number
        finally:
            self._end("count")

    @rpc
    async def forever(self, size: int = 1) -> AsyncIterator[bytes]:
        """Items without end; ``produced`` is how many were asked for."""
        self._note("forever")
        try:
            while True:
                self.produced += 1
                self._wake()
                yield bytes(size)
        finally:
            self._end("forever")

    @rpc
    async def few(self, number: int) -> AsyncIterator[int]:
        """Some items, and then it waits for ever."""
        self._note("few")
        try:
            for each in range(number):
                yield each
            await trio.sleep_forever()
        finally:
            self._end("few")

    @rpc
    async def wait(self) -> None:
        """It waits for ever."""
        self._note("wait")
        try:
            await trio.sleep_forever()
        finally:
            self._end("wait")

    @rpc
    async def linger(self, seconds: float) -> None:
        """It waits for ever, and takes so long to clean up."""
        self._note("linger")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)
            self._end("linger")

    @rpc
    async def interrupt(self) -> None:
        raise KeyboardInterrupt

    @rpc
    async def fail(self, message: str) -> None:
        raise ValueError(message)

    @rpc
    async def close_connection(self) -> None:
        await current_call().connection.aclose()

    @rpc
    async def add_there(self, a: int, b: int) -> int:
        """It asks the caller's own side."""
        result: int = await current_call().connection.call("add", a, b)
        return result
