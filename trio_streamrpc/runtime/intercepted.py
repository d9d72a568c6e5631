"""What interceptors have made of a stream or a context that this side has called for."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

from trio_streamrpc.runtime.local import LocalStream
from trio_streamrpc.runtime.streams import RemoteStream, Stream, StreamStatistics

__all__ = ["InterceptedContext", "InterceptedStream"]

T = TypeVar("T")


class InterceptedStream(Stream[T]):
    """What interceptors have made of a remote stream; they run when it is entered, or first asked.

    If they let it through as it is, this is that stream. If they have put another iterator around
    it, that one is closed first and the remote stream is left after it, so that the remote side has
    finished when the block ends.
    """

    def __init__(self, name: str, make: Callable[[InterceptedStream[T]], Awaitable[Any]]) -> None:
        self._name = name
        self._make = make
        self._turn = trio.Lock()
        self._outer: Stream[T] | None = None
        #: What is closed with it, the last one first.
        self._stack = AsyncExitStack()
        self._entered = False
        self._closed = False

    def __repr__(self) -> str:
        return f"<Stream of {self._name}>"

    async def adopt(self, remote: RemoteStream[Any]) -> RemoteStream[Any]:
        """Make a remote stream, which an interceptor goes on with, part of this one."""
        if self._entered and remote.needs_block:
            await remote.__aenter__()
            remote.entered_for_another = True
        self._stack.push_async_exit(remote)
        return remote

    async def _start(self) -> Stream[T]:
        async with self._turn:
            if self._closed:
                raise trio.ClosedResourceError(f"{self!r} was closed")
            if self._outer is None:
                made = await self._make(self)
                if not isinstance(made, AsyncIterable):
                    raise TypeError(
                        f"an interceptor has made {made!r} of the stream {self._name}: it is to be "
                        "an async iterable"
                    )
                outer = made if isinstance(made, Stream) else LocalStream(aiter(made))
                if self._entered and not (isinstance(outer, RemoteStream) and outer.needs_block):
                    await outer.__aenter__()
                if not isinstance(outer, RemoteStream):
                    self._stack.push_async_exit(outer)
                self._outer = outer
            return self._outer

    async def __aenter__(self) -> Self:
        if self._closed:
            raise trio.ClosedResourceError(f"{self!r} was closed")
        if self._entered or self._outer is not None:
            raise RuntimeError(f"{self!r} was started already: enter it before its first item")
        self._entered = True
        try:
            await self._start()
        except BaseException as error:
            self._closed = True
            await self._stack.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        await self._stack.__aexit__(kind, error, traceback)

    async def aclose(self) -> None:
        self._closed = True
        await trio.lowlevel.checkpoint()
        await self._stack.aclose()

    async def receive(self) -> T:
        return await (await self._start()).receive()

    def batches(self) -> AsyncIterator[list[T]]:
        return _Batches(self._start)

    def statistics(self) -> StreamStatistics:
        return StreamStatistics() if self._outer is None else self._outer.statistics()


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
        self._inner: Any = None

    def __repr__(self) -> str:
        return f"<remote context {self._name}>"

    async def __aenter__(self) -> Any:
        made = await self._make()
        if not hasattr(made, "__aenter__"):
            raise TypeError(
                f"an interceptor has made {made!r} of the context {self._name}: it is to be an "
                "async context manager"
            )
        self._inner = made
        return await made.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        suppressed: bool | None = await self._inner.__aexit__(kind, error, traceback)
        return suppressed
