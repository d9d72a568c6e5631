"""What base.py promises for every transport, over every one there is."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio

from tests.addresses import KINDS, address
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.endpoint import Side
from trio_streamrpc.testing.conformance.transports import TRANSPORT_CHECKS, Pair
from trio_streamrpc.transports import memory
from trio_streamrpc.transports.base import Transport
from trio_streamrpc.transports.bytestream import open_stream
from trio_streamrpc.transports.urls import scheme_of

Opener = Callable[[Encoding], AbstractAsyncContextManager[tuple[Transport, Transport]]]


@asynccontextmanager
async def open_memory(encoding: Encoding) -> AsyncIterator[tuple[Transport, Transport]]:
    yield memory.open_memory_transports(encoding=encoding)


@asynccontextmanager
async def open_pipes(encoding: Encoding) -> AsyncIterator[tuple[Transport, Transport]]:
    """Over a stream of bytes that has no URL: two pipes, as between a process and its child."""
    (reads_here, writes_there), (reads_there, writes_here) = os.pipe(), os.pipe()
    make = trio.lowlevel.FdStream
    ends = (
        trio.StapledStream(make(writes_here), make(reads_here)),
        trio.StapledStream(make(writes_there), make(reads_there)),
    )
    limits = Limits(close_timeout=1)

    async def open_end(
        side: Side, stream: trio.abc.Stream, task_status: trio.TaskStatus[Transport]
    ) -> None:
        async with open_stream(stream, side, encoding=encoding, limits=limits) as transport:
            task_status.started(transport)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        opened: list[Transport] = []

        async def start() -> None:
            opened.append(await nursery.start(open_end, "accepting", ends[1]))
            there.set()

        there = trio.Event()
        nursery.start_soon(start)
        here = await nursery.start(open_end, "connecting", ends[0])
        await there.wait()
        yield here, opened[0]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_socket(kind: str, encoding: Encoding) -> AsyncIterator[tuple[Transport, Transport]]:
    """Over a real socket."""
    with address(kind) as (url, server_options, options):
        async with open_at(url, server_options, options, encoding) as ends:
            yield ends


@asynccontextmanager
async def open_at(
    url: str, server_options: Any, options: Any, encoding: Encoding
) -> AsyncIterator[tuple[Transport, Transport]]:
    scheme = scheme_of(url)
    [listener], url = await scheme.listen(url, **server_options)
    limits = Limits(close_timeout=1)

    async def accept(task_status: trio.TaskStatus[Transport]) -> None:
        stream = await listener.accept()
        async with scheme.accept(stream, path="/", limits=limits) as transport:
            assert transport is not None
            task_status.started(transport)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        accepted: list[Transport] = []

        async def start() -> None:
            accepted.append(await nursery.start(accept))
            there.set()

        there = trio.Event()
        nursery.start_soon(start)
        async with scheme.connect(url, encoding=encoding, limits=limits, **options) as here:
            await there.wait()
            yield here, accepted[0]
        nursery.cancel_scope.cancel()
        await listener.aclose()


@pytest.fixture(params=["msgpack", "json"])
def encoding(request: pytest.FixtureRequest) -> Encoding:
    chosen: Encoding = request.param
    return chosen


OPENERS: dict[str, Opener] = {
    "memory": open_memory,
    "pipes": open_pipes,
    **{kind: functools.partial(open_socket, kind) for kind in KINDS},
}


@pytest.fixture(params=[*OPENERS.values()], ids=[*OPENERS])
async def pair(
    request: pytest.FixtureRequest, encoding: Encoding
) -> AsyncIterator[tuple[Transport, Transport]]:
    """The two ends; each test is done in ten seconds, or something waits that should not."""
    opener: Opener = request.param
    with trio.fail_after(10):
        async with opener(encoding) as ends:
            yield ends


@pytest.mark.parametrize("check", TRANSPORT_CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps(
    check: Callable[[Pair], Awaitable[None]], pair: Pair, encoding: Encoding
) -> None:
    """R1, R2, and what else base.py promises."""
    assert pair[0].encoding == encoding
    await check(pair)
