"""Values of any length in every place that a value can have in a call (R21).

``SHAPES`` has a function for each place: it sends a value there through a proxy, and checks that
the other side has the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.protocol.wire import payload
from trio_streamrpc import rpc

__all__ = ["SHAPES", "Box", "Service", "text_of", "unfinished"]

Put = Callable[[str], Awaitable[str]]


class Box:
    """A remote object."""

    def __init__(self) -> None:
        self.value = ""

    @rpc
    async def put(self, value: str) -> None:
        self.value = value

    @rpc
    async def get(self) -> str:
        return self.value


class Service:
    """What it is sent is in ``seen``; what it gives is ``value``."""

    def __init__(self, value: str = "") -> None:
        self.value = value
        self.seen: list[object] = []
        #: The handlers that have begun, and those whose ``finally`` has run.
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._noted = trio.Event()

    async def wait_noted(self) -> None:
        await self._noted.wait()

    @rpc
    async def small(self, number: int) -> int:
        return number + 1

    @rpc
    async def take(self, value: str, other: str = "") -> None:
        self.seen += [value, other]

    @rpc
    async def echo(self, value: str) -> str:
        return value

    @rpc
    async def length(self, value: bytes) -> int:
        return len(value)

    @rpc
    async def zeros(self, size: int) -> bytes:
        return bytes(size)

    @rpc
    async def beside(self, value: str, values: AsyncIterable[str], put: Put) -> str:
        self.seen += [value, [each async for each in values], await put(value)]
        return value

    @rpc
    async def give(self) -> str:
        return self.value

    @rpc
    async def items(self, number: int = 3) -> AsyncIterator[str]:
        self.begun.append("items")
        try:
            for each in range(number):
                yield str(each)
                yield self.value
        finally:
            self.ended.append("items")

    @rpc
    async def collect(self, values: AsyncIterable[str]) -> None:
        self.begun.append("collect")
        try:
            async for value in values:
                self.seen.append(value)
        finally:
            self.ended.append("collect")

    @rpc
    @asynccontextmanager
    async def context(self, value: str) -> AsyncIterator[str]:
        self.begun.append("context")
        try:
            yield value
        finally:
            self.ended.append("context")

    @rpc
    @asynccontextmanager
    async def box(self) -> AsyncIterator[Box]:
        yield Box()

    @rpc
    async def task(self, value: str, task_status: trio.TaskStatus[str]) -> None:
        task_status.started(value)

    @rpc
    async def call_back(self, put: Put) -> None:
        self.begun.append("call_back")
        try:
            self.seen.append(await put(self.value))
        finally:
            self.ended.append("call_back")

    @rpc(oneway=True)
    async def note(self, value: str) -> None:
        self.seen.append(value)
        self._noted.set()


async def positional(api: Service, service: Service) -> None:
    await api.take(service.value)
    assert service.seen == [service.value, ""]


async def keyword(api: Service, service: Service) -> None:
    await api.take(value=service.value)
    await api.take("", other=service.value)
    assert service.seen == [service.value, "", "", service.value]


async def beside(api: Service, service: Service) -> None:
    """Arguments beside an upload and a callback, which are large as well."""
    value = service.value

    async def values() -> AsyncIterator[str]:
        yield value
        yield "small"
        yield value

    async def put(given: str) -> str:
        assert given == value
        return given

    assert await api.beside(value, values(), put) == value
    assert service.seen == [value, [value, "small", value], value]


async def result(api: Service, service: Service) -> None:
    assert await api.give() == service.value


async def items(api: Service, service: Service) -> None:
    value = service.value
    async with api.items() as stream:
        assert [each async for each in stream] == ["0", value, "1", value, "2", value]
    assert service.ended == ["items"]


async def batches(api: Service, service: Service) -> None:
    found: list[str] = []
    async with api.items() as stream:
        async for batch in stream.batches():
            found += batch
    assert found == ["0", service.value, "1", service.value, "2", service.value]


async def uploads(api: Service, service: Service) -> None:
    sent = [service.value, "small", service.value, service.value]

    async def values() -> AsyncIterator[str]:
        for each in sent:
            yield each

    await api.collect(values())
    assert service.seen == sent


async def context(api: Service, service: Service) -> None:
    async with api.context(service.value) as value:
        assert value == service.value
    assert service.ended == ["context"]


async def remote_object(api: Service, service: Service) -> None:
    async with api.box() as box:
        await box.put(service.value)
        assert await box.get() == service.value


async def task(api: Service, service: Service) -> None:
    async with trio.open_nursery() as nursery:
        assert await nursery.start(api.task, service.value) == service.value


async def callback(api: Service, service: Service) -> None:
    """Both its argument and its result."""

    async def put(given: str) -> str:
        assert given == service.value
        return given

    await api.call_back(put)
    assert service.seen == [service.value]


async def oneway(api: Service, service: Service) -> None:
    await api.note(service.value)
    await service.wait_noted()
    assert service.seen == [service.value]


SHAPES: dict[str, Callable[[Service, Service], Awaitable[None]]] = {
    each.__name__: each
    for each in (
        positional, keyword, beside, result, items, batches, uploads, context, remote_object, task,
        callback, oneway,
    )
}  # fmt: skip


def text_of(encoding: str, size: int) -> str:
    """A text whose encoding takes that many bytes; the empty one for 0.

    Its characters take one to four bytes each, and there are some that JSON escapes.
    """
    some = 'a"é\\€\n😀'
    text = some * max(0, (size - 10) // len(payload(encoding, some)))
    text += "x" * (size - len(payload(encoding, text)))
    # A longer text may have a longer header.
    text = text[: len(text) - max(0, len(payload(encoding, text)) - size)] if size else ""
    assert not size or len(payload(encoding, text)) == size
    return text


def unfinished(encoding: str, frames: list[dict[str, Any]]) -> tuple[int, int]:
    """The most values that are under way at once among these frames, and the most bytes of them.

    That is by their announced lengths, from the frame that announces one to its last part.
    """
    left: dict[int, tuple[int, int]] = {}
    count = size = 0
    for frame in frames:
        if "parts" in frame:
            left[frame["id"]] = (frame["parts"], frame["parts"])
        elif frame["type"] == "part":
            announced, rest = left.pop(frame["id"])
            data = frame["data"]
            rest -= len(data.encode() if isinstance(data, str) else data)
            if rest:
                left[frame["id"]] = (announced, rest)
        count = max(count, len(left))
        size = max(size, sum(announced for announced, _ in left.values()))
    assert left == {}
    return count, size
