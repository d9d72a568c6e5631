"""The consumer's end of a stream: a bounded memory channel that gives credit back.

A :class:`Receiver` stands in the connection's table and is fed by the reader; the :class:`Stream`
that the application holds refers to it, and nothing refers to the stream: it is collected as soon
as the application drops it, and its producer cancelled (R7).
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import trio
from msgspec import Raw

from trio_streamrpc.errors import CleanupTimeout, Code, ConnectionLost
from trio_streamrpc.limits import Window
from trio_streamrpc.protocol.frames import Error, ErrorInfo
from trio_streamrpc.runtime.failures import is_in_a_hurry, text_of
from trio_streamrpc.runtime.receivers import Receiver

if TYPE_CHECKING:
    from trio_streamrpc.runtime.attachments import Attachments
    from trio_streamrpc.runtime.caller import Caller

__all__ = ["RemoteStream", "Stream", "StreamStatistics"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """A stream's numbers at one moment: what :meth:`Stream.statistics` gives.

    Bytes are those of the items' encodings.
    """

    #: How many items have arrived so far.
    items_received: int = 0
    #: … and how many bytes they had.
    bytes_received: int = 0
    #: How many of them wait here to be taken.
    items_buffered: int = 0
    #: … and how many bytes they have.
    bytes_buffered: int = 0
    #: How many items the producer may still send without another grant.
    items_granted: int = 0
    #: … and how many bytes.
    bytes_granted: int = 0
    #: The most items that have waited here at once.
    peak_items_buffered: int = 0
    #: The most bytes that have waited here at once.
    peak_bytes_buffered: int = 0
    #: Its window now: one that nobody has fixed grows when the link needs it. None before the call.
    window: Window | None = None


class Stream(trio.abc.ReceiveChannel[T_co], Generic[T_co]):
    """The items that a remote method yields, one after another.

    Enter it with ``async with`` and iterate: leaving the block cancels the producer, and returns
    once its ``finally`` has run, at most ``Limits.cancel_timeout`` seconds later. Iterating without
    a block works too; a ``break`` then cancels the producer when the stream is collected, and
    nobody waits for its cleanup.

    Nothing is sent before it is entered, or its first item asked for. A stream that takes an
    upload or a callback has to be entered: these run in the block. Asked for an item before, it
    raises :exc:`RuntimeError`; and so does a stream that is entered once it has begun. Leaving
    raises as :meth:`aclose` does.
    """

    @abstractmethod
    async def receive(self) -> T_co:
        """The next item. If this is cancelled, nothing was taken.

        Several tasks may receive; each item goes to one of them.

        Raises :exc:`trio.EndOfChannel` at the end, the stream's error after its last item (an
        :exc:`RpcError`), and :exc:`trio.ClosedResourceError` once it was closed here.
        """

    @abstractmethod
    def batches(self) -> AsyncIterator[list[T_co]]:
        """Iterate over all that has arrived each time: lists of at least one item.

        It raises as :meth:`receive` does, and stops at the end.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Leave the stream: the producer is closed, and has finished when this returns.

        Raises :exc:`CleanupTimeout` if it has not within ``Limits.cancel_timeout``, and what its
        cleanup raised. If this is cancelled, it asks and does not wait.
        """

    @abstractmethod
    def statistics(self) -> StreamStatistics:
        """How much came, waits here and was granted; before the call, nothing."""


class RemoteStream(Stream[T_co]):
    """A stream whose producer is on the other side of a connection."""

    def __init__(
        self,
        caller: Caller,
        start: Callable[[], Awaitable[Receiver]] | Receiver,
        decode: Callable[[Raw], Any],
        rebuild: Callable[[Error], BaseException],
        name: str,
        attached: Attachments | None = None,
    ) -> None:
        self._caller = caller
        #: The uploads and callbacks that go with the call, which run in the block.
        self._attached = attached
        self._stack: AsyncExitStack | None = None
        #: Whether somebody else has entered it on behalf of who enters it next.
        self.entered_for_another = False
        #: What makes the call. An upload has none: it has begun with the call that it came with.
        self._start = None if isinstance(start, Receiver) else start
        self._receiver = start if isinstance(start, Receiver) else None
        self._decode = decode
        self._rebuild = rebuild
        self._name = name
        self._items: deque[Raw] = deque()
        # Taken for starting the call and for waiting for the next chunk, never on the way of an
        # item that is here already: several tasks may take from one stream.
        self._turn = trio.Lock()
        #: Around the wait for a place, while there is one.
        self._starting: trio.CancelScope | None = None
        self._closed = False
        #: Whether the producer was asked to finish.
        self._asked = False
        #: Whether the application has seen how the stream ended.
        self._told = False

    def __repr__(self) -> str:
        return f"<Stream of {self._name}>"

    # --- starting

    def end_attached(self) -> None:
        """What goes with its call ends: the block is left that it runs in."""
        if self._attached is not None:
            self._attached.end()

    @property
    def needs_block(self) -> bool:
        """Whether it has to be entered: what goes with its call runs in the block."""
        return self._attached is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be closed: it has ended, and whoever took from it knows."""
        receiver = self._receiver
        ended = receiver is not None and receiver.finished.is_set()
        return ended and self._told and self._stack is None

    async def __aenter__(self) -> Self:
        if self._closed:
            raise trio.ClosedResourceError(f"{self!r} was closed")
        if self.entered_for_another:
            self.entered_for_another = False
            return self
        if self._receiver is not None and self._start is not None:
            raise RuntimeError(f"{self!r} was started already: enter it before its first item")
        if self._attached is not None:
            self._stack = AsyncExitStack()
            await self._stack.enter_async_context(self._attached)
        try:
            async with self._turn:
                await self._open()
        except BaseException as error:
            if self._stack is not None:
                await self._stack.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def _open(self) -> Receiver:
        if self._receiver is None and self._start is not None and not self._closed:
            if self._attached is not None and self._stack is None:
                raise RuntimeError(
                    f"{self!r} takes a stream or a callback, which runs while it is open: enter it "
                    "with 'async with'"
                )
            with trio.CancelScope() as self._starting:
                self._receiver = await self._start()
        if self._closed or self._receiver is None:
            # Closed by another task, perhaps while this one waited for a place.
            self._abandon()
            raise trio.ClosedResourceError(f"{self!r} was closed")
        return self._receiver

    # --- taking

    async def receive(self) -> T_co:
        await trio.lowlevel.checkpoint()
        while not self._items and not self._fetch_nowait():
            await self._fetch()
        return self._take()

    async def __anext__(self) -> T_co:
        await trio.lowlevel.checkpoint()
        try:
            while not self._items and not self._fetch_nowait():
                await self._fetch()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        return self._take()

    def batches(self) -> AsyncIterator[list[T_co]]:
        return _Batches(self)

    async def receive_batch(self) -> list[T_co]:
        """All that has arrived, and at least one item; otherwise as :meth:`receive`."""
        await trio.lowlevel.checkpoint()
        while not self._items and not self._fetch_nowait():
            await self._fetch()
        return self._take_all()

    def _fetch_nowait(self) -> bool:
        """Fetch the next chunk if it is here, and it is nobody else's turn; False if not."""
        receiver = self._receiver
        if receiver is None or self._closed or self._turn.locked():
            return False
        try:
            self._items.extend(receiver.chunks.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            return False
        return True

    async def _fetch(self) -> None:
        """Wait until there are items; raises what stands in their place."""
        if self._closed:
            raise trio.ClosedResourceError(f"{self!r} was closed")
        async with self._turn:
            if self._items:
                return
            receiver = await self._open()
            chunk: list[Raw] | None
            try:
                chunk = await receiver.chunks.receive()
            except trio.EndOfChannel:
                chunk = None  # how it is learned is no part of what happened
            if chunk is None:
                self._told = True
                raise self._ending(receiver) or trio.EndOfChannel
            self._items.extend(chunk)

    def _ending(self, receiver: Receiver) -> BaseException | None:
        """What is raised after the last item; None at a regular end."""
        if self._attached is not None and self._attached.error is not None:
            # What the user's own iterator raised, as itself (R10).
            self._attached.told = True
            return self._attached.error
        if receiver.failure is not None:
            # A new one each time: one that many tasks raise would gather all their tracebacks.
            return copy.copy(receiver.failure)
        if isinstance(receiver.final, Error):
            return self._rebuild(receiver.final)
        return None

    def _take(self) -> T_co:
        item = self._items.popleft()
        # As in _taken(), which would be a call more for each item.
        receiver = self._receiver
        assert receiver is not None
        due = receiver.window.take(1, len(item))
        if due is not None:
            self._caller.grant(receiver.id, *due)
        return self._decode(item)  # type: ignore[no-any-return]

    def _take_all(self) -> list[T_co]:
        receiver = self._receiver
        assert receiver is not None
        items = self._items
        try:
            while True:
                items.extend(receiver.chunks.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            pass
        batch: list[T_co] = []
        size = 0
        try:
            while items:
                size += len(items[0])
                batch.append(self._decode(items[0]))
                items.popleft()
        except Exception:
            # What came before it is no worse for it; it is raised next time.
            if batch:
                size -= len(items[0])
                return batch
            items.popleft()
            raise
        finally:
            self._taken(len(batch) or 1, size)
        return batch

    def _taken(self, count: int, size: int) -> None:
        receiver = self._receiver
        assert receiver is not None
        due = receiver.window.take(count, size)
        if due is not None:
            self._caller.grant(receiver.id, *due)

    # --- leaving

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stack is None:
            await self._exit(error)
            return
        stack, self._stack = self._stack, None
        stack.push_async_exit(self._exit_with)
        await stack.__aexit__(kind, error, traceback)

    async def _exit(self, error: BaseException | None) -> None:
        if error is None:
            await self.aclose()
        elif is_in_a_hurry(error):
            self._abandon()
        else:
            await self._leave(error)

    async def _exit_with(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        attached = self._attached
        assert attached is not None
        failure: Exception | None = None
        try:
            await self._exit(error)
        except Exception as raised:
            failure = raised  # what was uploaded is closed all the same
        attached.end()
        if error is None or not is_in_a_hurry(error):
            await attached.wait_uploads()
        if error is None:
            attached.check(failure)
        if failure is not None:
            raise failure

    async def aclose(self) -> None:
        await self._leave(None)

    async def _leave(self, reason: BaseException | None) -> None:
        receiver = self._receiver
        try:
            # A caller that is cancelled does not wait; one cancelled while it waits does so no
            # longer. Either way the other side is told (R8).
            await trio.lowlevel.checkpoint()
            self._shut()
            if receiver is None or (self._told and (self._asked or receiver.finished.is_set())):
                # It was never sent, or has ended as far as its user is concerned.
                return
            if not receiver.finished.is_set():
                if not self._asked:
                    self._asked = True
                    info = None
                    if reason is not None:
                        code = Code.CANCELLED.value
                        info = ErrorInfo(code, type(reason).__name__, text_of(reason))
                    self._caller.leave(receiver, info)
                with trio.move_on_after(self._caller.cancel_timeout):
                    await receiver.finished.wait()
        except BaseException:
            self._abandon()
            raise
        self._check_finished(receiver, reason)

    def _check_finished(self, receiver: Receiver, reason: BaseException | None) -> None:
        """R22: what cleanup raised comes out of the block; what was not read before does not."""
        if self._told:
            return
        self._told = True
        final = receiver.final
        error: BaseException
        if final is not None:
            if not isinstance(final, Error) or not final.cleanup:
                return
            error = self._rebuild(final)
            if not isinstance(error, CleanupTimeout):
                raise error
        elif receiver.finished.is_set():
            error = self._ending(receiver) or ConnectionLost("the connection was lost")
        else:
            error = CleanupTimeout(
                f"{self._name} had not finished {self._caller.cancel_timeout} s after it was left"
            )
        if reason is None:
            raise error
        # The block's own exception is what its user has to see first.
        reason.add_note(f"trio_streamrpc: {type(error).__name__}: {error}")

    def _abandon(self) -> None:
        self._shut()
        if self._receiver is not None and not self._receiver.finished.is_set():
            self._asked = True
            self._caller.abandon(self._receiver.id)

    def _shut(self) -> None:
        """Nothing can be taken any more, not even what is here; who waits for it hears so."""
        self._closed = True
        self._items.clear()
        if self._starting is not None:
            self._starting.cancel()
        if self._receiver is not None:
            self._receiver.chunks.close()

    def __del__(self) -> None:
        receiver = getattr(self, "_receiver", None)
        if receiver is not None and not self._asked and receiver.is_wanted:
            self._caller.abandon_from_anywhere(receiver.id)

    def statistics(self) -> StreamStatistics:
        if self._receiver is None:
            return StreamStatistics()
        window = self._receiver.window
        return StreamStatistics(
            items_received=window.received_items,
            bytes_received=window.received_bytes,
            items_buffered=window.buffered_items,
            bytes_buffered=window.buffered_bytes,
            items_granted=window.credit_items,
            bytes_granted=window.credit_bytes,
            peak_items_buffered=window.peak_items,
            peak_bytes_buffered=window.peak_bytes,
            window=window.window,
        )


class _Batches(AsyncIterator[list[T]]):
    # No async generator: one that is left by a break would have to be closed by its user.
    def __init__(self, stream: RemoteStream[T]) -> None:
        self._stream = stream

    async def __anext__(self) -> list[T]:
        try:
            return await self._stream.receive_batch()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
