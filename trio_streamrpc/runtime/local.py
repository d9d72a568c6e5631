"""A stream method called in place: the same Stream, with no connection beneath it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

from trio_streamrpc.contract.decorators import set_local_stream_factory
from trio_streamrpc.runtime.closing import close_iterator, has_ended
from trio_streamrpc.runtime.streams import Stream, StreamStatistics

__all__ = ["LocalStream", "SingleBatches"]

T = TypeVar("T")


class LocalStream(Stream[T]):
    """The items of an async iterator that runs in the consumer's own task.

    There is no look-ahead: each item is asked for when it is taken, so a cancelled ``receive``
    is a cancellation of the iterator itself, as in any ``async for``. A generator has ended then,
    and what follows is :exc:`trio.BrokenResourceError`.
    """

    def __init__(self, iterator: AsyncIterator[T]) -> None:
        #: What runs here; a handler that gives a local stream is pumped from this.
        self.iterator = iterator
        # Several tasks may take from one stream; a generator runs in one of them at a time.
        self._turn = trio.Lock()
        self._received = 0
        self._started = False
        self._closed = False
        self._error: Exception | None = None

    async def receive(self) -> T:
        self._started = True
        await trio.lowlevel.checkpoint_if_cancelled()
        async with self._turn:
            if self._closed:
                raise trio.ClosedResourceError
            if self._error is not None:
                raise self._error
            item = await self._next()
        self._received += 1
        return item

    async def _next(self) -> T:
        try:
            return await anext(self.iterator)
        except StopAsyncIteration:
            raise trio.EndOfChannel from None
        except Exception as error:
            self._error = error
            raise
        except BaseException:
            if has_ended(self.iterator):
                self._error = trio.BrokenResourceError("its iterator was cancelled")
            raise

    async def __aenter__(self) -> Self:
        if self._closed:
            raise trio.ClosedResourceError
        if self._started:
            raise RuntimeError(f"{self!r} was started already: enter it before its first item")
        self._started = True
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
        return SingleBatches(self)

    async def aclose(self) -> None:
        """As :meth:`Stream.aclose`.

        Raises :exc:`trio.BusyResourceError` if the iterator runs in another task: only that task
        can stop it.
        """
        try:
            # No checkpoint before it: a block that was cancelled closes its iterator all the same.
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            if not self._closed:
                raise trio.BusyResourceError("another task waits for its next item") from None
            await self._turn.acquire()
        try:
            self._closed = True
            await close_iterator(self.iterator, repr(self))
        finally:
            self._turn.release()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> StreamStatistics:
        return StreamStatistics(items_received=self._received)


class SingleBatches(AsyncIterator[list[T]]):
    """The batches of a stream that has one item at a time."""

    def __init__(self, stream: Stream[T]) -> None:
        self._stream = stream

    async def __anext__(self) -> list[T]:
        return [await anext(self._stream)]


def _open(iterator: AsyncIterator[Any]) -> LocalStream[Any]:
    return LocalStream(iterator)


set_local_stream_factory(_open)
