"""Long byte strings, which nobody copies (R21)."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.runtime.ends import open_ends
from trio_streamrpc import RemoteError, Window, rpc, with_options
from trio_streamrpc.testing import open_pair

BOTH = pytest.mark.parametrize("encoding", ["msgpack", "json"])

SIZE = 3_000_000


class Files:
    def __init__(self, content: bytes = bytes(range(250)) * (SIZE // 250)) -> None:
        self.content = content
        self.written: list[bytes] = []

    @rpc
    async def read(self) -> bytes:
        return self.content

    @rpc
    async def blocks(self) -> AsyncIterator[bytes]:
        yield b"before"
        yield self.content
        yield b"after"

    @rpc
    async def write(self, blocks: AsyncIterable[bytes]) -> int:
        async for block in blocks:
            self.written.append(block)
        return len(self.written)

    @rpc
    @asynccontextmanager
    async def mapped(self) -> AsyncIterator[bytes]:
        yield self.content

    @rpc
    async def ask(self, callback: Any) -> int:
        return len(await callback())

    @rpc
    async def scratch(self) -> bytearray:
        return bytearray(self.content)


@BOTH
async def test_every_place(encoding: Any, autojump_clock: Any) -> None:
    service = Files()
    content = service.content
    async with open_pair(service, encoding=encoding) as connection:
        api = connection.proxy(Files)
        assert await api.read() == content
        assert await api.scratch() == content
        async with api.blocks() as stream:
            assert [block async for block in stream] == [b"before", content, b"after"]
        async with api.mapped() as mapped:
            assert mapped == content

        async def blocks() -> AsyncIterator[bytes]:
            yield content
            yield b"short"
            yield content

        assert await api.write(blocks()) == 3
        assert service.written == [content, b"short", content]
        if encoding == "msgpack":  # without a type, JSON has bytes as text

            async def answer() -> bytes:
                return content

            assert await connection.call("read") == content
            assert await api.ask(answer) == len(content)


async def test_its_bytes_count_in_the_window(autojump_clock: Any) -> None:
    """R13, R14: as long as its encoding, and one at a time gets through a window that is less."""
    service = Files()
    async with open_ends(service) as ends:
        api = with_options(ends.client.proxy(Files), window=Window(items=10, bytes=1000))
        async with api.blocks() as stream:
            assert await stream.receive() == b"before"
            await trio.sleep(1)
            assert stream.statistics().bytes_buffered == len(service.content) + 5
            assert await stream.receive() == service.content
            assert stream.statistics().bytes_buffered == 0
            assert await stream.receive() == b"after"


class Lying(Files):
    @rpc
    async def text(self) -> Any:
        return self.content


async def test_one_that_is_not_wanted(autojump_clock: Any) -> None:
    class Contract:
        @rpc
        async def text(self) -> str: ...  # type: ignore[empty-body]

    async with open_pair(Lying()) as connection:
        with pytest.raises(Exception, match="does not match str") as caught:
            await connection.proxy(Contract).text()
        assert not isinstance(caught.value, RemoteError)
        assert len(await connection.call("read")) == SIZE


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def test_the_peak(traced: None, autojump_clock: Any) -> None:
    """The value that is there already, and the one that arrives: both sides are in here."""
    service = Files(bytes(20_000_000))
    async with open_pair(service) as connection:
        api = connection.proxy(Files)
        for take in (api.read, lambda: taken(api)):
            await trio.lowlevel.checkpoint()
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            assert len(await take()) == len(service.content)
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < 1.3 * len(service.content)


async def taken(api: Files) -> bytes:
    async with api.blocks() as stream:
        await stream.receive()
        return await stream.receive()
