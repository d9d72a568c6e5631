"""A stream method called in place: the same Stream, with no connection beneath it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

from trio_streamrpc.contract.decorators import set_local_stream_factory
from trio_streamrpc.runtime.streams import Stream, StreamStatistics

__all__ = ["LocalStream"]

T = TypeVar("T")


class LocalStream(Stream[T]):
    """The items of an async iterator that runs in the consumer's own task.

    There is no look-ahead: each item is asked for when it is taken, so a cancelled ``receive``
    is a cancellation of the iterator itself, as in any ``async for``.
    """

    def __init__(self, iterator: AsyncIterator[T]) -> None:
        self._iterator = iterator
        self._received = 0
        self._closed = False

    async def receive(self) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise trio.ClosedResourceError
        try:
            item = await anext(self._iterator)
        except StopAsyncIteration:
            raise trio.EndOfChannel from None
        await trio.lowlevel.cancel_shielded_checkpoint()
        self._received += 1
        return item

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def batches(self) -> AsyncIterator[list[T]]:
        return _Batches(self)

    async def aclose(self) -> None:
        self._closed = True
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> StreamStatistics:
        return StreamStatistics(items_received=self._received)


class _Batches(AsyncIterator[list[T]]):
    def __init__(self, stream: LocalStream[T]) -> None:
        self._stream = stream

    async def __anext__(self) -> list[T]:
        return [await anext(self._stream)]


def _open(iterator: AsyncIterator[Any]) -> LocalStream[Any]:
    return LocalStream(iterator)


set_local_stream_factory(_open)
