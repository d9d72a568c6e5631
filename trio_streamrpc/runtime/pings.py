"""Round trips at the protocol's level: pings that somebody waits for (R24)."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import trio
from msgspec import Raw

from trio_streamrpc.protocol.frames import Pong

if TYPE_CHECKING:
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["Pings"]


class Pings:
    """The pings of one connection that have not come back."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # From 2 on: 1 is the mark of the pings that windows grow by.
        self._numbers = count(2)
        #: Who waits for which token; what has come back is no longer here.
        self._waiting: dict[bytes, trio.Event] = {}

    async def ask(self) -> float:
        """Send a ping and wait for its pong; gives how long that took, in seconds."""
        connection = self._connection
        token = connection.payloads.encoder()(next(self._numbers))
        came = self._waiting[token] = trio.Event()
        start = trio.current_time()
        try:
            connection.endpoint.ping(Raw(token))
            connection.wake_writer()
            await came.wait()
        finally:
            lost = self._waiting.pop(token, None) is not None
        if lost:
            connection.check_open()
        return trio.current_time() - start

    def on_pong(self, frame: Pong) -> None:
        """A pong has come; one that nobody waits for is none of anybody's business."""
        came = self._waiting.pop(bytes(frame.token), None)
        if came is not None:
            came.set()

    def lose(self) -> None:
        """None will come any more."""
        for each in self._waiting.values():
            each.set()
