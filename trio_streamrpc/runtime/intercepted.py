"""What interceptors have made of a stream or a context that this side has called for."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

from trio_streamrpc.contract.signatures import Kind
from trio_streamrpc.nurseries import open_companion_nursery
from trio_streamrpc.runtime.failures import is_in_a_hurry
from trio_streamrpc.runtime.feeds import Batch, Feed
from trio_streamrpc.runtime.interceptors import Interceptor, check_fits
from trio_streamrpc.runtime.local import LocalStream, SingleBatches
from trio_streamrpc.runtime.streams import RemoteStream, Stream, StreamStatistics

__all__ = ["InterceptedContext", "InterceptedStream", "Layers"]

T = TypeVar("T")


class Layers:
    """One remote stream and what interceptors have put around it, from the inside outwards.

    All of it is closed with the stream, the outermost first: whatever an interceptor leaves open,
    the remote side has finished when the block ends.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.streams: list[Stream[Any]] = []
        self._called: list[RemoteStream[Any]] = []
        #: What the consumer takes from, once they have made it; they may call again after that.
        self.outermost: Stream[Any] | None = None
        #: Whether there is a block to start in: what is called is called at once then.
        self.entered = False
        #: Where uploads and callbacks run: it was opened around the interceptors, which may hold
        #: scopes of their own while they call.
        self.nursery: trio.Nursery | None = None

    async def adopt(self, given: Any, by: Interceptor | None) -> Stream[Any]:
        """Take in what the call or an interceptor has given; it is a Stream from then on."""
        check_fits(Kind.SERVER_STREAM, given, by, self._name)
        if any(given is each for each in self.streams):
            return given  # type: ignore[no-any-return]
        if isinstance(given, LocalStream):
            given = given.iterator
        if isinstance(given, RemoteStream):
            self._called = [each for each in self._called if not is_over(each)]
            self._called.append(given)
        if isinstance(given, RemoteStream) and self.entered:
            await given.__aenter__()
            given.entered_for_another = True
        stream = given if isinstance(given, Stream) else FedStream(aiter(given), self._name)
        # One that calls again and again would gather them.
        self.streams[:] = [each for each in self.streams if not is_over(each)]
        self.streams.append(stream)
        return stream

    async def close(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Leave all of them, with the error that their block is left with."""
        stack = AsyncExitStack()
        self.streams.sort(key=lambda each: each is self.outermost)
        for each in self.streams:
            stack.push_async_exit(each)
        self.streams.clear()
        await stack.__aexit__(kind, error, traceback)

    def end_attached(self) -> None:
        """The block is left: nothing more is uploaded, and nobody can call back."""
        for each in self._called:
            each.end_attached()

    def statistics(self) -> StreamStatistics:
        """What came over the wire: of the stream that was called last."""
        for each in reversed(self.streams):
            if isinstance(each, RemoteStream):
                return each.statistics()
        return StreamStatistics()


def is_over(stream: Stream[Any]) -> bool:
    return isinstance(stream, RemoteStream) and stream.is_over


class InterceptedStream(Stream[T]):
    """What interceptors have made of a remote stream; they run when it is entered, or first asked.

    ``make`` runs them. With ``attaches`` there may be uploads or callbacks among the arguments;
    with ``needs_block`` there are.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[Layers], Awaitable[Stream[T]]],
        *,
        attaches: bool,
        needs_block: bool,
    ) -> None:
        self._name = name
        self._make = make
        self._attaches = attaches
        self._needs_block = needs_block
        #: Taken to run the interceptors, and to close what they have made.
        self._turn = trio.Lock()
        self._layers = Layers(name)
        #: Around the interceptors, while they run.
        self._starting: trio.CancelScope | None = None
        #: How many wait for their turn to close it.
        self._leaving = 0
        #: What the interceptors have raised instead of giving a stream.
        self._error: Exception | None = None
        self._companions: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Stream of {self._name}>"

    async def _start(self) -> Stream[T]:
        if self._closed:
            # Who closes it may have the turn for long.
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError(f"{self!r} was closed")
        async with self._turn:
            if self._closed:
                raise trio.ClosedResourceError(f"{self!r} was closed")
            if self._error is not None:
                raise self._error
            if self._layers.outermost is None:
                if self._needs_block and not self._layers.entered:
                    raise RuntimeError(
                        f"{self!r} takes a stream or a callback, which runs while it is open: "
                        "enter it with 'async with'"
                    )
                self._layers.outermost = await self._intercepted()
            return self._layers.outermost

    async def _intercepted(self) -> Stream[T]:
        """Run the interceptors; raises ClosedResourceError if the stream is closed meanwhile."""
        made: Stream[T] | None = None
        try:
            with trio.CancelScope() as self._starting:
                made = await self._make(self._layers)
        except BaseException as error:
            if isinstance(error, Exception):
                self._error = error
            # What an interceptor gave to one that has failed is nobody's any more.
            await self._close_abandoned(error)
            raise
        finally:
            self._starting = None
        if made is None or self._closed:
            await self._close_abandoned(None)
            raise trio.ClosedResourceError(f"{self!r} was closed")
        return made

    async def _close_abandoned(self, error: BaseException | None) -> None:
        # Who waits to close it does so, and may have longer than a task that is cancelled.
        if not self._leaving:
            kind, traceback = (None, None) if error is None else (type(error), error.__traceback__)
            await self._layers.close(kind, error, traceback)

    async def __aenter__(self) -> Self:
        if self._closed:
            raise trio.ClosedResourceError(f"{self!r} was closed")
        if self._layers.entered or self._layers.outermost is not None:
            raise RuntimeError(f"{self!r} was started already: enter it before its first item")
        self._layers.entered = True
        if self._attaches:
            self._companions = open_companion_nursery()
            self._layers.nursery = await self._companions.__aenter__()
        try:
            await self._start()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        async with AsyncExitStack() as stack:
            if self._companions is not None:
                stack.push_async_exit(self._companions)
                # Whoever closes the streams, what runs in this block ends before its nursery.
                stack.callback(self._layers.end_attached)
            stack.push_async_exit(self._leave)
            await stack.pop_all().__aexit__(kind, error, traceback)

    async def aclose(self) -> None:
        await self._leave()
        await trio.lowlevel.checkpoint()

    async def _leave(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Stop the interceptors, wait until they have ended, and close what they have made."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
        waits = error is None or not is_in_a_hurry(error)
        has_turn = False
        self._leaving += 1
        try:
            if not self._turn.locked():
                self._turn.acquire_nowait()
                has_turn = True
            elif waits:
                await self._turn.acquire()
                has_turn = True
        finally:
            self._leaving -= 1
            try:
                # One that does not wait leaves it to those who do.
                if has_turn or not self._leaving:
                    await self._layers.close(kind, error, traceback)
            finally:
                if has_turn:
                    self._turn.release()

    async def receive(self) -> T:
        outer = self._layers.outermost
        if outer is None or self._closed:
            outer = await self._start()
        return await outer.receive()

    async def __anext__(self) -> T:
        # Not by way of receive(): it is one step less for each item.
        outer = self._layers.outermost
        if outer is None or self._closed:
            outer = await self._start()
        return await outer.__anext__()

    def batches(self) -> AsyncIterator[list[T]]:
        return _Batches(self._start)

    def statistics(self) -> StreamStatistics:
        return self._layers.statistics()

    def __del__(self) -> None:
        layers = getattr(self, "_layers", None)
        if layers is not None:
            # An interceptor's generator may refer to these by way of ``proceed``: without them
            # each is collected, and ends, at once.
            layers.streams.clear()
            layers.outermost = None


class FedStream(Stream[T]):
    """An interceptor's iterator in a task of its own: a receive that is cancelled loses nothing.

    It is asked for an item only while one is waited for. Like a handler's it may hold scopes and
    nurseries open across its ``yield``.
    """

    def __init__(self, iterator: AsyncIterator[T], name: str) -> None:
        self._batch = Batch[T](1, math.inf)
        self._feed = Feed(iterator, self._batch, f"an interceptor's stream of {name}")
        self._name = name
        self._turn = trio.Lock()
        self._received = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<Stream of {self._name}>"

    async def receive(self) -> T:
        async with self._turn:
            if not self._closed:
                await self._feed.fill()
            if self._closed:
                raise trio.ClosedResourceError(f"{self!r} was closed")
            for item in self._batch.take():
                self._received += 1
                return item
            error = self._feed.tell()
            try:
                raise error or trio.EndOfChannel
            finally:
                del error

    def batches(self) -> AsyncIterator[list[T]]:
        return SingleBatches(self)

    async def aclose(self) -> None:
        self._closed = True
        self._batch.take()
        await self._feed.aclose()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> StreamStatistics:
        return StreamStatistics(items_received=self._received)

    def __del__(self) -> None:
        feed = getattr(self, "_feed", None)
        if feed is not None:
            feed.abandon_from_anywhere()


class _Batches(AsyncIterator[list[T]]):
    def __init__(self, start: Callable[[], Awaitable[Stream[T]]]) -> None:
        self._start = start
        self._batches: AsyncIterator[list[T]] | None = None

    async def __anext__(self) -> list[T]:
        if self._batches is None:
            self._batches = (await self._start()).batches()
        return await anext(self._batches)


class InterceptedContext:
    """What interceptors have made of a remote context; they run when it is entered."""

    def __init__(self, name: str, make: Callable[[], Awaitable[Any]]) -> None:
        self._name = name
        self._make = make
        self._entered = False
        self._outer: Any = None

    def __repr__(self) -> str:
        return f"<remote context {self._name}>"

    async def __aenter__(self) -> Any:
        if self._entered:
            raise RuntimeError(f"{self!r} was entered already: call its method for another")
        self._entered = True
        self._outer = await self._make()
        return await self._outer.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        suppressed: bool | None = await self._outer.__aexit__(kind, error, traceback)
        return suppressed
