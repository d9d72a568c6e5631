"""This side calls: unary calls, and the streams that it consumes."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from trio_streamrpc.errors import (
    Code,
    ConnectionLost,
    ResourceExhausted,
    RpcError,
    Unavailable,
)
from trio_streamrpc.limits import Window
from trio_streamrpc.protocol.credit import Growth
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.protocol.frames import Chunk, End, Error, ErrorInfo, Overflow, Result
from trio_streamrpc.runtime.calls import CURRENT_CALL
from trio_streamrpc.runtime.failures import error_from, text_of
from trio_streamrpc.runtime.streams import Receiver, RemoteStream

if TYPE_CHECKING:
    from trio_streamrpc.contract.arguments import MethodCodec
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["Caller"]

#: R23: how long a caller whose call ran out of time on the other side waits for its own scope.
DEADLINE_SLACK = 1.0


class _Pending:
    """A unary call that waits for its answer: at most one task, woken exactly once."""

    __slots__ = ("answer", "task")

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task | None = None
        self.answer: Result | Error | RpcError | None = None

    def finish(self, answer: Result | Error | RpcError) -> None:
        if self.answer is not None:
            # Its caller has been told something already, and the final frame frees its place.
            return
        self.answer = answer
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None


class Caller:
    """The calls that this side of a connection has made and that have not ended."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._endpoint = connection.endpoint
        self._pending: dict[int, _Pending] = {}
        self._receivers: dict[int, Receiver] = {}
        self._places = trio.Semaphore(0)
        self._idle: trio.Event | None = None
        self._token = trio.lowlevel.current_trio_token()

    @property
    def cancel_timeout(self) -> float:
        return self._connection.limits.cancel_timeout

    @property
    def open_calls(self) -> int:
        """Calls and streams whose final frame has not come."""
        return len(self._pending) + len(self._receivers)

    def greeted(self) -> None:
        """The other side has told how many calls it runs at once (R26)."""
        self._places = trio.Semaphore(self._endpoint.peer.max_calls)

    # --- unary calls

    async def call(
        self, name: str, codec: MethodCodec, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a method and wait for its result."""
        encoded = codec.encode_arguments(args, kwargs)
        timeout = await self._admit()
        pending = _Pending()
        exchange = self._open(name, encoded, timeout=timeout)
        self._pending[exchange.id] = pending
        self._connection.wake_writer()
        answer = await self._answer(exchange.id, pending)
        if isinstance(answer, Result):
            return codec.decode_result(answer.value)
        raise await self._failure(answer, codec, name)

    async def _answer(self, id: int, pending: _Pending) -> Result | Error | RpcError:
        def abort(raise_cancel: Any) -> trio.lowlevel.Abort:
            pending.task = None
            self.abandon(id)
            return trio.lowlevel.Abort.SUCCEEDED

        pending.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)
        assert pending.answer is not None
        return pending.answer

    async def _failure(
        self, answer: Error | RpcError, codec: MethodCodec, name: str
    ) -> BaseException:
        if isinstance(answer, RpcError):
            return answer
        if answer.error.code == Code.DEADLINE_EXCEEDED:
            # R23: both sides watch the same deadline, and the caller's own scope is the one that
            # its user knows. If it is due, it speaks.
            left = trio.current_effective_deadline() - trio.current_time()
            if left <= DEADLINE_SLACK:
                await trio.sleep(max(0.0, left) + DEADLINE_SLACK)
        return self.rebuild(answer, codec, name)

    def rebuild(self, frame: Error, codec: MethodCodec, name: str) -> BaseException:
        """The exception that an error frame is raised as."""
        info = frame.error
        if info.code == Code.UNIMPLEMENTED and not info.name:
            # The answer is the same for every name that is not there; this side knows which it was.
            info = ErrorInfo(info.code, "", f"no method {name!r} on the other side")
        listed = codec.decode_error(info.name, info.message, info.data)
        if listed is not None:
            return listed
        decode = self._connection.payloads.decoder()
        return error_from(info, retry=frame.retry, decode=decode)

    # --- streams

    def stream(
        self,
        name: str,
        codec: MethodCodec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        window: Window | None = None,
    ) -> RemoteStream[Any]:
        """A stream that starts when it is entered, or when its first item is asked for."""
        encoded = codec.encode_arguments(args, kwargs)
        limits = self._connection.limits
        # A window that somebody chose stays as it is; another grows when the link needs it (R15).
        first = window or limits.window
        growth = Growth(limits.max_window) if window is None else None

        async def start() -> Receiver:
            await self._admit()
            exchange = self._open(name, encoded, window=first, growth=growth)
            assert exchange.window is not None
            # R17: a place for every item, for the largest window that this one may grow to.
            largest = limits.max_window if growth is not None else first
            receiver = Receiver(exchange.id, exchange.window, largest.items)
            if growth is not None:
                self._endpoint.measure(trio.current_time())
            self._receivers[exchange.id] = receiver
            self._connection.wake_writer()
            return receiver

        def rebuild(frame: Error) -> BaseException:
            return self.rebuild(frame, codec, name)

        return RemoteStream(self, start, codec.decode_result, rebuild, name)

    def grant(self, id: int, items: int, bytes: int) -> None:
        self._endpoint.grant(id, items, bytes, trio.current_time())
        self._connection.wake_writer()

    def leave(self, receiver: Receiver, reason: BaseException | None) -> None:
        """Ask the producer to finish, since its consumer leaves (R8)."""
        info = None
        if reason is not None:
            info = ErrorInfo(Code.CANCELLED.value, type(reason).__name__, text_of(reason))
        written = self._endpoint.cancel(receiver.id, "close" if reason is None else "abort", info)
        if not written:
            self._withdrawn(receiver.id)
        self._connection.wake_writer()

    # --- the end of a call, early or not

    def abandon(self, id: int) -> None:
        """Ask for the end of a call whose caller was cancelled, and wait for nothing (R7, R8)."""
        if id not in self._pending and id not in self._receivers:
            return
        if not self._endpoint.cancel(id, "abort"):
            self._withdrawn(id)
        self._connection.wake_writer()

    def abandon_from_anywhere(self, id: int) -> None:
        """The same for a stream that was collected: in whatever thread, at whatever moment."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.abandon, id)

    def _withdrawn(self, id: int) -> None:
        """R12: the call was never written; no final frame will come of it."""
        self._pending.pop(id, None)
        receiver = self._receivers.pop(id, None)
        if receiver is not None:
            receiver.finish(self._endpoint.family.end(id))
        self._release()

    def on_final(self, frame: Result | Error | End) -> None:
        """A final frame: the caller is woken, and the call's place is free (R26)."""
        pending = self._pending.pop(frame.id, None)
        if pending is not None:
            assert not isinstance(frame, End)
            pending.finish(frame)
        else:
            receiver = self._receivers.pop(frame.id, None)
            if receiver is None:
                # The final frame of an upload that this side consumed.
                return
            assert not isinstance(frame, Result)
            receiver.finish(frame)
        self._release()

    def on_chunk(self, frame: Chunk) -> None:
        receiver = self._receivers.get(frame.id)
        if receiver is not None:
            receiver.feed(frame)

    def on_overflow(self, event: Overflow) -> None:
        receiver = self._receivers.get(event.id)
        if receiver is not None:
            receiver.overflow(event.info)

    def on_drain(self) -> None:
        """R27: the other side goes away; what was not yet written never will be."""
        for id in self._endpoint.withdraw():
            gone = Unavailable("the other side is going away")
            gone.retry = True
            self._fail(id, gone)
            self._release()

    def lose(self, make_error: Callable[[], RpcError]) -> None:
        """The connection is gone: everything that waits for it hears so."""
        for id in [*self._pending, *self._receivers]:
            self._fail(id, make_error())
        for _ in range(self._places.statistics().tasks_waiting):
            self._places.release()
        self._check_idle()

    def _fail(self, id: int, error: RpcError) -> None:
        pending = self._pending.pop(id, None)
        if pending is not None:
            pending.finish(error)
        receiver = self._receivers.pop(id, None)
        if receiver is not None:
            receiver.lose(error)

    def abort_all(self) -> None:
        """Ask for the end of all that this side has called, since it leaves the connection."""
        gone = ConnectionLost("the connection was closed here")
        for receiver in self._receivers.values():
            # R6: its end answers this cancel, and is no end of the items for whoever takes them.
            receiver.failure = receiver.failure or gone
        for pending in self._pending.values():
            pending.finish(ConnectionLost(gone.message))
        for id in [*self._pending, *self._receivers]:
            if not self._endpoint.cancel(id, "abort"):
                self._fail(id, ConnectionLost(gone.message))
                self._release()

    async def wait_idle(self) -> None:
        """Wait until every call has had its final frame."""
        if self.open_calls:
            if self._idle is None:
                self._idle = trio.Event()
            await self._idle.wait()

    # --- places

    async def _admit(self) -> float | None:
        """Wait for a place among the calls that the other side runs at once (R26).

        Gives the time that is left for the call, in seconds, or None if there is no deadline.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        deadline = trio.current_effective_deadline()
        if deadline <= trio.current_time():
            # R23: a deadline that is used up is never sent; the scope that it is of speaks here.
            await trio.lowlevel.checkpoint()
        self._connection.check_open()
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            call = CURRENT_CALL.get(None)
            if call is not None and call.connection is self._connection:
                # R26: to wait here, while the other side may wait for us, could be for ever.
                raise ResourceExhausted(
                    "the other side runs as many calls as it takes, and a handler of its calls "
                    "does not wait for it"
                ) from None
            await self._places.acquire()
            try:
                self._connection.check_open()
            except RpcError:
                self._places.release()
                raise
        return None if deadline == math.inf else max(0.0, deadline - trio.current_time())

    def _open(
        self,
        name: str,
        encoded: tuple[bytes, bytes | None],
        *,
        window: Window | None = None,
        growth: Growth | None = None,
        timeout: float | None = None,
    ) -> Exchange:
        try:
            return self._endpoint.call(
                name, *encoded, window=window, growth=growth, timeout=timeout
            )
        except BaseException:
            # Nothing was said: it is too long, or has a name that is no text, or it is too late.
            self._places.release()
            raise

    def _release(self) -> None:
        self._places.release()
        self._check_idle()

    def _check_idle(self) -> None:
        if self._idle is not None and not self.open_calls:
            self._idle.set()
            self._idle = None
