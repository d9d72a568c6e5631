"""The service of the demonstration, and what it notes down about itself while it is used.

Its client runs in the same process, so what happened on the server's side can be looked at where
it happened: how far a producer ran ahead, and when its ``finally`` had run.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import psutil
import trio

from trio_streamrpc import Aborted, Window, rpc
from trio_streamrpc.cli.demo_source import Source

__all__ = ["Cleanup", "DemoService", "LookAhead", "Sample"]

#: How far the producer of ``items`` may run ahead of its consumer.
ITEMS_WINDOW = Window(items=16)

#: How long that producer takes for an item, in seconds.
ITEM_SECONDS = 0.001

#: What one item of the file's stream holds, in bytes.
CHUNK_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """This machine at one moment."""

    #: In percent of all processors, since the sample before.
    cpu: float
    #: In percent of what there is.
    memory: float
    memory_used: int
    memory_total: int


@dataclass(slots=True)
class LookAhead:
    """How far a producer ran ahead: items that it produced less items that were taken from it."""

    produced: int = 0
    taken: int = 0
    #: The most that it ever was.
    most: int = 0
    #: Set once it was the whole window.
    full: trio.Event = field(default_factory=trio.Event)

    @property
    def now(self) -> int:
        """How far it is ahead."""
        return self.produced - self.taken

    def produce(self) -> None:
        """Another item is about to be yielded: only this can make the distance grow."""
        self.produced += 1
        self.most = max(self.most, self.now)
        if self.most >= ITEMS_WINDOW.items:
            self.full.set()

    def take(self) -> None:
        """Another item has reached its consumer."""
        self.taken += 1


@dataclass(slots=True)
class Cleanup:
    """When a producer's ``finally`` began and ended, on the clock of ``time.perf_counter``."""

    began: float | None = None
    ended: float | None = None


class DemoService:
    """What the demonstration calls; one for each run."""

    def __init__(self, source: Source) -> None:
        self._source = source
        #: Of the last ``items``.
        self.look_ahead = LookAhead()
        #: Of the last ``feed``.
        self.cleanup = Cleanup()

    @rpc
    async def add(self, a: int, b: int) -> int:
        """A call that takes no time of its own."""
        return a + b

    @rpc
    async def machine(self, interval: float) -> AsyncIterator[Sample]:
        """CPU and memory of this machine, every ``interval`` seconds, for ever."""
        psutil.cpu_percent()  # it counts from the call before, and this is the first
        due = trio.current_time()
        while True:
            due += interval
            await trio.sleep_until(due)
            memory = psutil.virtual_memory()
            yield Sample(psutil.cpu_percent(), memory.percent, memory.used, memory.total)

    @rpc(window=Window(items=8, bytes=8 * CHUNK_BYTES))
    async def file(self) -> AsyncIterator[bytes]:
        """The file, from its beginning to its end."""
        offset = 0
        try:
            while chunk := await self._source.read(offset, CHUNK_BYTES):
                yield chunk
                offset += len(chunk)
        except OSError as error:
            raise Aborted(f"the file could not be read: {error.strerror or error}") from error

    @rpc
    async def file_sha256(self) -> str:
        """The file's digest, from the file itself and not from what was sent of it."""
        try:
            return await self._source.sha256()
        except OSError as error:
            raise Aborted(f"the file could not be read: {error.strerror or error}") from error

    @rpc(window=ITEMS_WINDOW)
    async def items(self) -> AsyncIterator[int]:
        """An item each millisecond, for ever, whoever takes them."""
        look_ahead = self.look_ahead = LookAhead()
        due = trio.current_time()
        while True:
            # Against a schedule: what one sleep is late by, the next one makes up for.
            due = max(due + ITEM_SECONDS, trio.current_time())
            await trio.sleep_until(due)
            look_ahead.produce()
            yield look_ahead.produced

    @rpc
    async def flood(self) -> AsyncIterator[int]:
        """Items as fast as they are taken, for ever."""
        number = 0
        while True:
            yield number
            number += 1

    @rpc
    async def beat(self, interval: float) -> AsyncIterator[int]:
        """An item every ``interval`` seconds, for ever."""
        number, due = 0, trio.current_time()
        while True:
            yield number
            number += 1
            due += interval
            await trio.sleep_until(due)

    @rpc
    async def feed(self) -> AsyncIterator[int]:
        """Items for ever, and a ``finally`` that awaits something and notes when it ran."""
        cleanup = self.cleanup = Cleanup()
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            cleanup.began = time.perf_counter()
            await trio.lowlevel.checkpoint()
            cleanup.ended = time.perf_counter()
