"""This side calls: what it has called, what it waits for, and the streams that it consumes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from trio_streamrpc.errors import (
    CallCancelled,
    CleanupTimeout,
    ConnectionLost,
    InvalidArgument,
    NotFound,
    RpcError,
    Unavailable,
)
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol import reactions
from trio_streamrpc.protocol.credit import Growth
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.protocol.frames import Chunk, End, Error, ErrorInfo, Overflow, Result
from trio_streamrpc.runtime.interceptors import Interceptor
from trio_streamrpc.runtime.objects import Root
from trio_streamrpc.runtime.places import Places, Ticket
from trio_streamrpc.runtime.receivers import Receiver

if TYPE_CHECKING:
    from trio_streamrpc.contract.payloads import Payloads
    from trio_streamrpc.runtime.connection import Connection
    from trio_streamrpc.runtime.remote import Request
    from trio_streamrpc.runtime.uploads import Upload

__all__ = ["Caller"]

#: How many times more calls to callbacks may be under way to their end than may be overdue.
OVERDUE = 10


class _Pending:
    """A unary call that waits for its answer: at most one task, woken exactly once."""

    __slots__ = ("answer", "oneway", "place", "task")

    def __init__(self, place: trio.Semaphore, *, oneway: bool = False) -> None:
        #: What its final frame frees.
        self.place = place
        #: Whether its task waits for no more than that it is written (R11).
        self.oneway = oneway
        self.task: trio.lowlevel.Task | None = None
        self.answer: Result | Error | RpcError | None = None

    def finish(self, answer: Result | Error | RpcError) -> None:
        if self.answer is not None:
            # Its caller has been told something already, and the final frame frees its place.
            return
        self.answer = answer
        self.wake()

    def wake(self) -> None:
        """Let its task go on, if it waits."""
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None


class Caller:
    """The calls that this side of a connection has made and that have not ended."""

    def __init__(self, connection: Connection, interceptors: Sequence[Interceptor]) -> None:
        self.connection = connection
        self._endpoint = connection.endpoint
        self._pending: dict[int, _Pending] = {}
        self._receivers: dict[int, Receiver] = {}
        #: When calls to callbacks were cancelled here whose final frame has not come.
        self._abandoned: dict[int, float] = {}
        #: Oneway calls of which it is not known yet that they are written.
        self._unwritten: set[int] = set()
        self.places = Places(connection)
        #: Uploads of this side whose iterators are not yet closed.
        self.uploads: dict[int, Upload] = {}
        self.interceptors = interceptors
        self._idle: trio.Event | None = None
        self._token = trio.lowlevel.current_trio_token()

    @property
    def cancel_timeout(self) -> float:
        return self.connection.limits.cancel_timeout

    @property
    def open_calls(self) -> int:
        """Calls and streams whose final frame has not come."""
        streams = sum(each.place is not None for each in self._receivers.values())
        return len(self._pending) + streams

    @property
    def payloads(self) -> Payloads:
        return self.connection.payloads

    @property
    def limits(self) -> Limits:
        return self.connection.limits

    # --- making a call

    async def ask(self, request: Request) -> Result | Error | RpcError:
        """Make a unary call, and wait for what it is answered with."""
        ticket = await self.places.take(request)
        pending = _Pending(ticket.place)
        exchange = self._open(request, ticket, timeout=ticket.timeout)
        self._pending[exchange.id] = pending
        if len(self._pending) == 1:
            # Nobody is there whose call could travel with it.
            self.connection.writer.push()
        else:
            self.connection.wake_writer()

        def abort(raise_cancel: Any) -> trio.lowlevel.Abort:
            pending.task = None
            self.abandon(exchange.id)
            return trio.lowlevel.Abort.SUCCEEDED

        if pending.answer is None:
            pending.task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(abort)
        else:
            # The connection was lost in writing it.
            await trio.lowlevel.checkpoint()
        assert pending.answer is not None
        return pending.answer

    async def send(self, request: Request) -> None:
        """Make a unary call, and wait until it is written: it goes its way then (R11)."""
        ticket = await self.places.take(request)
        pending = _Pending(ticket.place, oneway=True)
        exchange = self._open(request, ticket)
        self._pending[exchange.id] = pending
        self._unwritten.add(exchange.id)
        self._endpoint.watch(exchange.id)
        self.connection.wake_writer()

        def abort(raise_cancel: Any) -> trio.lowlevel.Abort:
            pending.task = None
            if self._endpoint.is_writing(exchange.id):
                # R12, R21: of what is not yet written, or not all of it, nothing is started.
                self.abandon(exchange.id)
            return trio.lowlevel.Abort.SUCCEEDED

        pending.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)
        if isinstance(pending.answer, RpcError):
            raise pending.answer

    async def open_receiver(
        self, request: Request, window: Window, growth: Growth | None, capacity: int
    ) -> tuple[Receiver, Root]:
        """Make a call that is answered by items; gives where they arrive, and its root."""
        ticket = await self.places.take(request)
        exchange = self._open(request, ticket, window=window, growth=growth)
        assert exchange.window is not None
        receiver = Receiver(exchange.id, exchange.window, capacity, ticket.place)
        self._receivers[exchange.id] = receiver
        if growth is not None:
            self._endpoint.measure(trio.current_time())
        self.connection.wake_writer()
        return receiver, ticket.root or Root(exchange)

    def _open(
        self,
        request: Request,
        ticket: Ticket,
        *,
        window: Window | None = None,
        growth: Growth | None = None,
        timeout: float | None = None,
    ) -> Exchange:
        target, attached = request.target, request.attached
        try:
            if target is not None and target.ended:
                raise NotFound(f"{target.name} has ended")
            exchange = self._endpoint.call(
                request.name,
                request.args,
                request.kwargs,
                refs=attached.refs if attached is not None else (),
                target=0 if target is None else target.id,
                root=None if target is None else target.root.exchange,
                window=window,
                growth=growth,
                timeout=timeout,
                metadata=request.metadata,
                priority=request.priority,
                claim=ticket.claim,
                access=request.access,
            )
        except BaseException:
            # Nothing was said: it is too long, or has a name that is no text, or it is too late.
            self.places.give_back(ticket)
            raise
        # They may be large, and the call last long.
        request.args, request.kwargs = b"", None
        if target is not None:
            ticket.root = target.root
        if attached is not None:
            # R26: one root for all that hangs from the call, its callbacks and its object.
            ticket.root = ticket.root or Root(exchange)
            attached.start(exchange, ticket.root)
        return exchange

    @property
    def takes_names(self) -> bool:
        """Whether a call may have arguments by name."""
        return self._endpoint.takes_names

    @property
    def answers_callbacks(self) -> bool:
        """Whether the other side answers the calls of its callbacks."""
        return self._endpoint.answers_callbacks

    def check_holds(self, name: str) -> None:
        """Raise :exc:`InvalidArgument` where contexts and tasks have no words."""
        if not self._endpoint.holds:
            raise InvalidArgument(f"{name}(): this wire carries no contexts and no tasks")

    def receive_upload(self, exchange: Exchange) -> Receiver:
        """Where the items of an upload of the other side arrive."""
        assert exchange.window is not None
        capacity = self.connection.limits.max_window.items
        receiver = self._receivers[exchange.id] = Receiver(exchange.id, exchange.window, capacity)
        self._endpoint.measure(trio.current_time())
        return receiver

    def grant(self, id: int, items: int, bytes: int) -> None:
        self._endpoint.grant(id, items, bytes, trio.current_time())
        self.connection.wake_writer()
        if self._endpoint.waits_for_consumers:
            self.connection.on_taken()

    def leave(self, receiver: Receiver, error: ErrorInfo | None) -> None:
        """Ask the producer to finish, since its consumer leaves, perhaps with an error (R8)."""
        written = self._endpoint.cancel(receiver.id, "close" if error is None else "abort", error)
        if not written:
            self._withdrawn(receiver.id)
        self.connection.wake_writer()
        self.connection.on_taken()

    # --- uploads of this side

    def collect(self) -> None:
        """Act on what the writer has taken, or what was taken back: others may go on.

        Oneway calls are written, uploads have said their last frame, and there is room for values
        in parts.
        """
        if self._endpoint.outbox.granted:
            self.places.on_granted()
        departed, self._endpoint.departed = self._endpoint.departed, []
        for id in departed:
            if id not in self._unwritten:
                self.places.uploads.release()
                upload = self.uploads.get(id)
                if upload is not None:
                    # It has said nothing of its end: its call was taken back.
                    upload.ask(cut=True)
                continue
            self._unwritten.discard(id)
            # It may have been answered before the transport has said that it is written.
            pending = self._pending.get(id)
            if pending is not None:
                pending.wake()

    def add_stream(self, upload: Upload) -> None:
        """A stream of this side's that goes with no call; there is a place for it."""
        # Its final frame frees one, as any upload's does.
        self.places.uploads.acquire_nowait()
        self.uploads[upload.id] = upload

    def upload_ended(self, id: int) -> None:
        """Its iterator is closed, and its final frame said."""
        self.uploads.pop(id, None)

    async def give_up(self, id: int) -> None:
        """Wait for a call that was aborted since what goes with it has failed (R10).

        After ``cancel_timeout`` who waits for it is told that it has not ended.
        """
        await trio.sleep(self.cancel_timeout)
        late = CleanupTimeout(
            f"the call had not ended {self.cancel_timeout} s after it was aborted"
        )
        pending, receiver = self._pending.get(id), self._receivers.get(id)
        if pending is not None:
            pending.finish(late)
        if receiver is not None:
            receiver.stop(late)

    # --- the end of a call, early or not

    def abandon(self, id: int) -> None:
        """Ask for the end of a call whose caller was cancelled, and wait for nothing (R7, R8)."""
        if id not in self._pending and id not in self._receivers:
            return
        self._note_abandoned(id)
        if not self._endpoint.cancel(id, "abort"):
            self._withdrawn(id)
        self.connection.wake_writer()
        self.connection.on_taken()

    def close_stream(self, id: int) -> None:
        """Take no more of a stream that came with no call."""
        self._abandon_collected(id)

    def _note_abandoned(self, id: int) -> None:
        """R26: calls to callbacks have places for each root, but there is no end of roots.

        What is never answered is therefore counted for all of them: a side that lets this one call
        its callbacks, and never says how they have ended, is not borne for ever.
        """
        exchange = self._endpoint.exchanges.get(id)
        if exchange is None or exchange.root.places is None:
            # It hangs from a call of this side's own, which has a place.
            return
        now = trio.current_time()
        self._abandoned[id] = now
        limits = self.connection.limits
        most = limits.max_calls * limits.max_object_calls
        excess = len(self._abandoned) - most
        if excess <= 0:
            return
        # What is cleaned up may take its time. These are in the order in which they were cancelled.
        since = next(itertools.islice(self._abandoned.values(), excess - 1, None))
        if now - since > limits.cancel_timeout or excess > OVERDUE * most:
            self.connection.break_off(reactions.OVERDUE_CALLBACKS.error(len(self._abandoned)))

    def abandon_from_anywhere(self, id: int) -> None:
        """The same for a stream that was collected: in whatever thread, at whatever moment."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._abandon_collected, id)

    def _abandon_collected(self, id: int) -> None:
        receiver = self._receivers.get(id)
        if receiver is not None and receiver.is_wanted:
            self.abandon(id)

    def _withdrawn(self, id: int) -> None:
        """R12: the call was never written; no final frame will come of it."""
        self.collect()
        self._unwritten.discard(id)
        self._abandoned.pop(id, None)
        pending = self._pending.pop(id, None)
        if pending is not None:
            # Where its caller still waits, it is an upload of its own that has failed.
            pending.finish(CallCancelled("the call was taken back"))
            self._release(pending.place)
        receiver = self._receivers.pop(id, None)
        if receiver is not None:
            receiver.finish(self._endpoint.family.end(id))
            self._release(receiver.place)

    def on_final(self, frame: Result | Error | End) -> None:
        """A final frame: the caller is woken, and the call's place is free (R26)."""
        self._abandoned.pop(frame.id, None)
        pending = self._pending.pop(frame.id, None)
        if pending is not None:
            assert not isinstance(frame, End)
            pending.finish(frame)
            self._release(pending.place)
            return
        receiver = self._receivers.pop(frame.id, None)
        if receiver is not None:
            assert not isinstance(frame, Result)
            receiver.finish(frame)
            self._release(receiver.place)

    def on_chunk(self, frame: Chunk) -> None:
        receiver = self._receivers.get(frame.id)
        if receiver is None or receiver.failure is not None:
            return
        if frame.refs and not receiver.takes_objects:
            # R20: it is the item of a context, which was called as a stream.
            receiver.stop(
                InvalidArgument(
                    "it gives an object: it is a context, use async with connection.context(…) "
                    "or a typed proxy"
                )
            )
            self.abandon(frame.id)
            return
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
            self._unwritten.discard(id)
            self._fail(id, gone, release=True)
        self.collect()

    def lose(self, make_error: Callable[[], RpcError]) -> None:
        """The connection is gone: everything that waits for it hears so."""
        for id in [*self._pending, *self._receivers]:
            self._fail(id, make_error())
        self.places.lose()
        for upload in list(self.uploads.values()):
            upload.ask(cut=True)
        self._check_idle()

    def _fail(self, id: int, error: RpcError, *, release: bool = False) -> None:
        ended = self._pending.pop(id, None) or self._receivers.pop(id, None)
        if isinstance(ended, _Pending):
            ended.finish(error)
        elif ended is not None:
            ended.lose(error)
        if release and ended is not None:
            self._release(ended.place)

    def abort_all(self) -> None:
        """Ask for the end of all that this side has called, since it leaves the connection."""
        gone = ConnectionLost("the connection was closed here")
        for receiver in self._receivers.values():
            # R6: its end answers this cancel, and is no end of the items for whoever takes them.
            receiver.failure = receiver.failure or gone
        # R11: what nobody waits for is waited for here, and runs to its end.
        calls = [id for id, each in self._pending.items() if not each.oneway]
        for id in calls:
            self._pending[id].finish(ConnectionLost(gone.message))
        for id in [*calls, *self._receivers]:
            if not self._endpoint.cancel(id, "abort"):
                self._fail(id, ConnectionLost(gone.message), release=True)
        self.collect()
        self.connection.on_taken()

    async def wait_idle(self) -> None:
        """Wait until every call has had its final frame."""
        if self._pending or self._receivers:
            if self._idle is None:
                self._idle = trio.Event()
            await self._idle.wait()

    def _release(self, place: trio.Semaphore | None) -> None:
        if place is not None:
            place.release()
        self._check_idle()

    def _check_idle(self) -> None:
        if self._idle is not None and not self._pending and not self._receivers:
            self._idle.set()
            self._idle = None
