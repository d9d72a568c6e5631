"""The other side of a connection, written by hand: frames as dicts over a memory transport.

A connection under test cannot tell it from a side that runs this library, and it may say what no
side that runs this library would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.protocol.wire import message, read
from trio_streamrpc import Connection, ConnectionLost, open_connection
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.endpoint import Side
from trio_streamrpc.transports.base import Transport
from trio_streamrpc.transports.memory import open_memory_transports

__all__ = ["Peer", "open_against"]

HELLO = {"type": "hello", "version": 1}


class Peer:
    """Says and hears frames; what was heard and not yet asked for waits in ``heard``."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.heard: list[dict[str, Any]] = []

    async def says(self, *frames: dict[str, Any]) -> None:
        """One message of these frames."""
        await self.transport.send(message(self.transport.encoding, *frames))

    async def hears(self, *kinds: str) -> dict[str, Any]:
        """The next frame of one of these kinds, or of any; what comes before it is dropped."""
        while True:
            while self.heard:
                frame = self.heard.pop(0)
                if not kinds or frame["type"] in kinds:
                    return frame
            self.heard = read(await self.transport.receive())

    async def hears_the_end(self) -> list[dict[str, Any]]:
        """All that is said until the transport is closed."""
        frames = []
        try:
            while True:
                frames.append(await self.hears())
        except ConnectionLost:
            return frames

    async def greets(self) -> None:
        await self.says(HELLO)
        assert (await self.hears())["type"] == "hello"


@asynccontextmanager
async def open_against(
    side: Side = "connecting",
    *,
    encoding: Encoding = "msgpack",
    capacity: int = 1000,
    **options: Any,
) -> AsyncIterator[tuple[Connection, Peer]]:
    """A connection, and by hand the peer that it has greeted."""
    here, there = open_memory_transports(encoding=encoding, capacity=capacity)
    peer = Peer(there)
    async with open_background_nursery() as nursery:
        nursery.start_soon(peer.greets)
        async with open_connection(here, side, **options) as connection:
            await trio.testing.wait_all_tasks_blocked()
            yield connection, peer
