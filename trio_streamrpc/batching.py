"""Fewer, larger items: the items of any async iterable, in lists.

Waiting for the next item of a batch must be given up when the batch is due, without losing that
item. There are two ways, and :func:`batched` chooses by what it is given:

- A memory channel, a :class:`Stream` or another ``batched()``: a receive of these that is cancelled
  has taken nothing. The consumer's own task waits, in a scope with a deadline.
- Anything else, a generator above all: a wait that is cancelled is the end of it, so another task
  asks it for items, and is left waiting when a batch is due. This is a system task of Trio, whose
  life is that of the object and not that of a nursery in the consumer's block: such a block often
  stands in a generator with a ``yield`` inside, and a nursery that is open across a ``yield``
  breaks Trio when that generator is dropped. Everything that concerns the source happens in that
  one task, in one scope: it may hold scopes and nurseries open across its ``yield``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import AsyncIterable
from typing import TypeVar

import trio

from trio_streamrpc.runtime.feeds import Batch, Feed
from trio_streamrpc.runtime.local import LocalStream
from trio_streamrpc.runtime.streams import Stream

__all__ = ["batched"]

T = TypeVar("T")


def batched(
    iterable: AsyncIterable[T], *, max_items: int, max_delay: float | None = None
) -> trio.abc.ReceiveChannel[list[T]]:
    """The items of an async iterable in lists of 1 to ``max_items``, in order, each item once.

    For producers that want fewer, larger items::

        @rpc
        async def rows(self) -> AsyncIterator[list[Row]]:
            async with batched(self.query(), max_items=100, max_delay=0.05) as batches:
                async for batch in batches:
                    yield batch

    A batch ends when it has ``max_items`` items, when ``max_delay`` seconds have passed since its
    first item came, and when the source ends; how long that item lay in a channel before counts
    for nothing. With ``None`` nothing but the number and the end count. A batch whose time is over
    before it is asked for (every batch, if ``max_delay`` is 0) takes what the source gives at once,
    that is, within a few steps of the scheduler.

    Give it a generator, a ``trio.MemoryReceiveChannel``, a :class:`Stream`, anything with
    ``__aiter__``; from then on the source is its to iterate and to close. What it returns is a
    ``trio.abc.ReceiveChannel``:

    - ``async with`` is the form to prefer: when the block ends, the source is closed and its
      ``finally`` has run, in every case; what that raised comes out as it is. The block may stand
      in a generator and have a ``yield`` inside. ``aclose()`` promises the same, and so does a
      method that returns ``batched(…)``: its call ends after the source.
    - ``async for batch in batched(…)`` alone works too. Read to its end or to an error, it has
      closed its source by then, unless that is a channel or a stream, which whoever opened it
      closes as ever. Left early it is closed when it is collected, soon but unawaited; what the
      source's cleanup raises then is logged.

    An error of the source is raised as itself, after a batch of the items that came before it. A
    receive that is cancelled loses nothing: the next one goes on with the same batch and its time.
    Several tasks may receive; they take turns. After ``aclose()``: ``trio.ClosedResourceError``.

    The source is asked for items only while a batch is being waited for, and never for more than
    one beyond those that came. The one that was asked for when a batch was due is the first of the
    next; a channel or stream is not even asked for that one.

    A source that is no channel or stream runs in a task of its own, with a copy of the context of
    the first receive. Closed in the middle of an ``await`` it is cancelled there; closed at a
    ``yield`` its ``finally`` may await, for as long as whoever closes it is not cancelled.

    Raises :exc:`TypeError` and :exc:`ValueError` for arguments that make no sense.
    """
    if not isinstance(iterable, AsyncIterable):
        kind = type(iterable).__name__
        raise TypeError(f"batched() takes an async iterable, and {kind} has no __aiter__")
    _check(max_items, max_delay)
    batch = Batch[T](max_items, math.inf if max_delay is None else max_delay)
    if isinstance(iterable, LocalStream):
        # A receive of this one that is cancelled ends it. As for a handler, what runs is its
        # iterator, which may hold scopes open like any generator.
        return _FedBatches(Feed(aiter(iterable.iterator), batch))
    if isinstance(iterable, trio.abc.ReceiveChannel) and _loses_nothing(iterable):
        return _ChannelBatches(iterable, batch)
    return _FedBatches(Feed(aiter(iterable), batch))


def _loses_nothing(channel: object) -> bool:
    """Whether its receive may be cancelled; nothing obliges every channel to that."""
    return isinstance(channel, trio.MemoryReceiveChannel | Stream | _Batches)


def _check(max_items: object, max_delay: object) -> None:
    if isinstance(max_items, bool) or not isinstance(max_items, int):
        raise TypeError(f"max_items is a number of items, not {max_items!r}")
    if max_items < 1:
        raise ValueError(f"max_items is at least 1, not {max_items}")
    if max_delay is None:
        return
    if isinstance(max_delay, bool) or not isinstance(max_delay, int | float):
        raise TypeError(f"max_delay is a number of seconds or None, not {max_delay!r}")
    if not max_delay >= 0:
        raise ValueError(f"max_delay is at least 0 seconds, not {max_delay}")


class _Batches(trio.abc.ReceiveChannel[list[T]]):
    """What a consumer holds."""

    def __init__(self, batch: Batch[T]) -> None:
        self._batch = batch
        self._turn = trio.Lock()
        self._closed = False

    async def receive(self) -> list[T]:
        batch = await self._next()
        if batch is None:
            raise trio.EndOfChannel
        return batch

    async def __anext__(self) -> list[T]:
        # Not by way of receive(): an EndOfChannel that the source let slip is an error, no end.
        batch = await self._next()
        if batch is None:
            raise StopAsyncIteration
        return batch

    async def _next(self) -> list[T] | None:
        """The next batch; None at the end."""
        async with self._turn:
            if not self._closed:
                await self._fill()
            if self._closed:
                raise trio.ClosedResourceError
            if self._batch.items:
                return self._batch.take()
            error = self._ending()
            if error is None:
                return None
            try:
                raise error
            finally:
                del error

    @abstractmethod
    async def _fill(self) -> None:
        """Wait until the batch is due; whatever ends the source is kept."""

    @abstractmethod
    def _ending(self) -> BaseException | None:
        """What ended the source: None if nothing went wrong."""


class _ChannelBatches(_Batches[T]):
    """Of a source that loses nothing when its receive is cancelled: no task is needed."""

    def __init__(self, source: trio.abc.ReceiveChannel[T], batch: Batch[T]) -> None:
        super().__init__(batch)
        self._source = source
        self._error: Exception | None = None

    async def _fill(self) -> None:
        if self._error is None:
            try:
                await self._batch.wait_for(self._receive)
            except Exception as error:
                self._error = error

    async def _receive(self) -> None:
        while not self._batch.complete:
            self._batch.add(await anext(self._source))

    def _ending(self) -> BaseException | None:
        # The channel itself knows what comes after it.
        error, self._error = self._error, None
        return None if isinstance(error, StopAsyncIteration) else error

    async def aclose(self) -> None:
        self._closed = True
        self._batch.take()
        await self._source.aclose()


class _FedBatches(_Batches[T]):
    """Of any other source: a :class:`Feed` asks it, and does not refer to this object."""

    def __init__(self, feed: Feed[T]) -> None:
        super().__init__(feed.batch)
        self._feed = feed

    async def _fill(self) -> None:
        await self._feed.fill()

    def _ending(self) -> BaseException | None:
        return self._feed.tell()

    async def aclose(self) -> None:
        self._closed = True
        self._batch.take()
        await self._feed.aclose()

    def __del__(self) -> None:
        feed = getattr(self, "_feed", None)
        if feed is not None:
            feed.abandon_from_anywhere()
