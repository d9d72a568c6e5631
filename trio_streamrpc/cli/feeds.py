"""What is uploaded from a file, and how to begin again while it is not known whether it arrives.

Without a description nobody knows a method's kind before it is called, and a call of the wrong kind
is refused before anything of it runs. What was read from a pipe for such a call can be read no
second time, so it is kept until it is clear that the call was taken.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import trio

from trio_streamrpc.cli.arguments import Source
from trio_streamrpc.limits import Limits

__all__ = ["Feed"]

#: More than this, in bytes read, no other side has granted to a call that it refuses.
MAX_KEPT = Limits().max_window.bytes


class Feed:
    """The items of a source, for one call after the other, until :attr:`is_lost`.

    With ``keeps`` what one call was given, the next one is given as well.
    """

    def __init__(self, source: Source, nursery: trio.Nursery, *, keeps: bool) -> None:
        self._source = source
        self._nursery = nursery
        self._kept: list[Any] | None = [] if keeps else None
        #: Whether something has gone to a call and is not kept.
        self.is_lost = False
        self._error: Exception | None = None
        self._items: trio.MemoryReceiveChannel[Any] | None = None

    async def values(self) -> AsyncGenerator[Any, None]:
        """The items of one call."""
        if self._items is None:
            # Read beside the calls: one that is given up loses nothing of what is being read.
            send, self._items = trio.open_memory_channel[Any](0)
            self._nursery.start_soon(self._read, send)
        for each in self._kept or ():
            yield each
        async for each in self._items:
            self._keep(each)
            yield each
        if self._error is not None:
            raise self._error

    def _keep(self, item: Any) -> None:
        if self._kept is None:
            self.is_lost = True
        elif self._source.bytes > MAX_KEPT:
            self._kept, self.is_lost = None, True
        else:
            self._kept.append(item)

    async def _read(self, send: trio.MemorySendChannel[Any]) -> None:
        async with send:
            try:
                async with aclosing(self._source.values()) as values:
                    async for each in values:
                        await send.send(each)
            except Exception as error:
                # It is the call's, whose argument this is.
                self._error = error
