"""Finding out when and how a call has ended: not its answer is the end, but the last of what it is.

For interceptors that count, time or limit calls, on either side of a connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import trio

from trio_streamrpc.runtime.closing import close_iterator, has_ended
from trio_streamrpc.runtime.failures import has_cancelled
from trio_streamrpc.runtime.interceptors import Proceed
from trio_streamrpc.runtime.local import SingleBatches
from trio_streamrpc.runtime.streams import Stream, StreamStatistics

__all__ = ["Ended", "watch"]

#: Is told how a call has ended: what it raised, or None; and a stream's number of items, or None.
#: A stream or a context that was given up, or that nobody has taken, has raised a GeneratorExit.
Ended = Callable[[BaseException | None, int | None], None]


async def watch(proceed: Proceed, ended: Ended) -> Any:
    """Go on with a call; ``ended`` is called once, when the call has ended, however it does.

    A stream has ended when its last item was taken or it was closed, a context when it was left.
    """
    try:
        given = await proceed()
    except BaseException as error:
        ended(error, None)
        raise
    if isinstance(given, AsyncIterable):
        return _WatchedStream(given, ended)
    if hasattr(given, "__aenter__"):
        return _WatchedContext(given, ended)
    ended(None, None)
    return given


class _End:
    """Tells it once; where nobody else has, when it is collected."""

    def __init__(self, ended: Ended) -> None:
        self._ended: Ended | None = ended
        self._token = trio.lowlevel.current_trio_token()
        self.items: int | None = None

    def tell(self, error: BaseException | None) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(error, self.items)

    def __del__(self) -> None:
        # In whatever thread: what is told may be about tasks that wait.
        if self._ended is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._ended, GeneratorExit(), self.items)


class _WatchedStream(Stream[Any]):
    """A stream, on the side that calls, or an iterator, on the side that serves.

    In all else it is the stream: a step of it is a step of that, and nothing comes between.
    """

    def __init__(self, stream: AsyncIterable[Any], ended: Ended) -> None:
        self._iterator = aiter(stream)
        self._stream = stream if isinstance(stream, Stream) else None
        self._end = _End(ended)
        self._end.items = 0
        #: Whether a cancellation went through it, which may have been the end of it. Not itself:
        #: what it was raised through refers to this stream, which is to be collected when dropped.
        self._cancelled = False

    def __repr__(self) -> str:
        return repr(self._stream or self._iterator)

    async def __anext__(self) -> Any:
        try:
            return self._taken(await anext(self._iterator))
        except BaseException as error:
            self._raised(error)
            raise

    async def athrow(self, error: BaseException) -> Any:
        """Raise it at the ``yield`` of a generator; here if it is none, or has ended."""
        throw = getattr(self._iterator, "athrow", None)
        try:
            if throw is None or has_ended(self._iterator):
                raise error
            return self._taken(await throw(error))
        except BaseException as further:
            self._raised(further)
            raise

    async def receive(self) -> Any:
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise trio.EndOfChannel from None

    def batches(self) -> AsyncIterator[list[Any]]:
        if self._stream is None:
            return SingleBatches(self)
        return _WatchedBatches(self, self._stream.batches())

    def _taken(self, item: Any) -> Any:
        self._count(1)
        return item

    def _count(self, items: int) -> None:
        self._end.items = (self._end.items or 0) + items
        self._cancelled = False

    def _raised(self, error: BaseException) -> None:
        if isinstance(error, StopAsyncIteration):
            self._end.tell(None)
        elif isinstance(error, Exception) and not isinstance(error, trio.ClosedResourceError):
            self._end.tell(error)
        elif has_cancelled(error):
            self._cancelled = True

    async def __aenter__(self) -> Self:
        if self._stream is not None:
            await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._stream is not None:
                await self._stream.__aexit__(kind, error, traceback)
            elif not has_ended(self._iterator):
                await close_iterator(self._iterator, repr(self))
        except BaseException as failure:
            self._end.tell(failure)
            raise
        given_up = self._cancelled or (error is not None and has_cancelled(error))
        self._end.tell(GeneratorExit() if given_up else None)

    async def aclose(self) -> None:
        await self.__aexit__(None, None, None)

    def statistics(self) -> StreamStatistics:
        if self._stream is not None:
            return self._stream.statistics()
        return StreamStatistics(items_received=self._end.items or 0)


class _WatchedBatches(AsyncIterator[list[Any]]):
    def __init__(self, stream: _WatchedStream, batches: AsyncIterator[list[Any]]) -> None:
        self._stream = stream
        self._batches = batches

    async def __anext__(self) -> list[Any]:
        try:
            batch = await anext(self._batches)
        except BaseException as error:
            self._stream._raised(error)  # noqa: SLF001  # of this module
            raise
        self._stream._count(len(batch))  # noqa: SLF001
        return batch


class _WatchedContext:
    def __init__(self, context: Any, ended: Ended) -> None:
        self._context = context
        self._end = _End(ended)

    def __repr__(self) -> str:
        return repr(self._context)

    async def __aenter__(self) -> Any:
        try:
            return await self._context.__aenter__()
        except BaseException as error:
            self._end.tell(error)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            suppressed: bool | None = await self._context.__aexit__(kind, error, traceback)
        except BaseException as failure:
            self._end.tell(failure)
            raise
        self._end.tell(None if suppressed else error)
        return suppressed
