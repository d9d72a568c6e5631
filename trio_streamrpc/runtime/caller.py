"""This side calls: what it has called, what it waits for, and the streams that it consumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import trio

from trio_streamrpc.errors import (
    CleanupTimeout,
    Code,
    ConnectionLost,
    NotFound,
    RpcError,
    Unavailable,
)
from trio_streamrpc.limits import Window
from trio_streamrpc.protocol.credit import Growth
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.protocol.frames import Chunk, End, Error, ErrorInfo, Overflow, Result
from trio_streamrpc.runtime.attachments import Attachments
from trio_streamrpc.runtime.calls import Call
from trio_streamrpc.runtime.contexts import Held, MakeProxy, RemoteContext, run_task
from trio_streamrpc.runtime.failures import error_from
from trio_streamrpc.runtime.intercepted import InterceptedContext, InterceptedStream
from trio_streamrpc.runtime.interceptors import Interceptor, intercept
from trio_streamrpc.runtime.objects import Root, Target
from trio_streamrpc.runtime.options import NO_OPTIONS, Options
from trio_streamrpc.runtime.places import Places
from trio_streamrpc.runtime.streams import Receiver, RemoteStream, Stream

if TYPE_CHECKING:
    from trio_streamrpc.contract.arguments import MethodCodec
    from trio_streamrpc.contract.methods import Method
    from trio_streamrpc.contract.payloads import Payloads
    from trio_streamrpc.runtime.connection import Connection
    from trio_streamrpc.runtime.uploads import Upload

__all__ = ["Caller", "Request"]

#: R23: how long a caller whose call ran out of time on the other side waits for its own scope.
DEADLINE_SLACK = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """A call that is about to be made."""

    name: str
    codec: MethodCodec
    args: bytes
    kwargs: bytes | None
    options: Options = NO_OPTIONS
    target: Target | None = None


def full_name(name: str, target: Target | None) -> str:
    """What interceptors and messages call a method: an object's follow the object's name."""
    return name if target is None else f"{target.name}.{name}"


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
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None


class Caller:
    """The calls that this side of a connection has made and that have not ended."""

    def __init__(self, connection: Connection, interceptors: Sequence[Interceptor]) -> None:
        self._connection = connection
        self._endpoint = connection.endpoint
        self._pending: dict[int, _Pending] = {}
        self._receivers: dict[int, Receiver] = {}
        self.places = Places(connection)
        #: Uploads of this side whose iterators are not yet closed.
        self.uploads: dict[int, Upload] = {}
        self._interceptors = interceptors
        self._idle: trio.Event | None = None
        self._token = trio.lowlevel.current_trio_token()

    @property
    def cancel_timeout(self) -> float:
        return self._connection.limits.cancel_timeout

    @property
    def open_calls(self) -> int:
        """Calls and streams whose final frame has not come."""
        streams = sum(each.place is not None for each in self._receivers.values())
        return len(self._pending) + streams

    @property
    def payloads(self) -> Payloads:
        return self._connection.payloads

    def greeted(self) -> None:
        """The other side has told how many calls it runs at once (R26)."""
        self.places.greeted()

    # --- unary calls

    async def call(
        self,
        name: str,
        codec: MethodCodec,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Options = NO_OPTIONS,
        target: Target | None = None,
        *,
        oneway: bool = False,
    ) -> Any:
        """Call a method and wait for its result; if ``oneway``, until the call is written (R11)."""
        if self._interceptors and name:

            async def proceed(call: Call) -> Any:
                changed = options.with_metadata(call.metadata)
                return await self._call(
                    name, codec, call.args, call.kwargs, changed, target, oneway
                )

            call = self.describe(name, args, kwargs, options, target)
            return await intercept(self._interceptors, call, proceed)
        return await self._call(name, codec, args, kwargs, options, target, oneway)

    async def _call(
        self,
        name: str,
        codec: MethodCodec,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Options,
        target: Target | None,
        oneway: bool,
    ) -> Any:
        packed, named, references = codec.encode_arguments(args, kwargs)
        request = Request(name, codec, packed, named, options, target)
        if oneway:
            await self._send_oneway(request)
            return None
        if not references:
            answer = await self._request(request)
        else:
            async with Attachments(self._connection, codec, references) as attached:
                answer = await self._request(request, attached)
                attached.end()
                await attached.wait_uploads()
                if attached.error is not None:
                    raise attached.error
        if isinstance(answer, Result):
            return codec.decode_result(answer.value)
        raise await self._failure(answer, codec, name)

    async def _request(
        self, request: Request, attached: Attachments | None = None
    ) -> Result | Error | RpcError:
        place, timeout = await self.places.take(request.target, attached.uploads if attached else 0)
        pending = _Pending(place)
        exchange = self._open(request, place, timeout=timeout, attached=attached)
        self._pending[exchange.id] = pending
        self._connection.wake_writer()
        return await self._answer(exchange.id, pending)

    async def _send_oneway(self, request: Request) -> None:
        place, _ = await self.places.take(request.target, 0)
        pending = _Pending(place, oneway=True)
        exchange = self._open(request, place)
        self._pending[exchange.id] = pending
        self._endpoint.watch(exchange.id)
        self._connection.wake_writer()

        def abort(raise_cancel: Any) -> trio.lowlevel.Abort:
            pending.task = None
            # What is not yet written is taken back (R12); what is, goes its way.
            if self._endpoint.take_back(exchange.id):
                self._withdrawn(exchange.id)
            return trio.lowlevel.Abort.SUCCEEDED

        pending.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)
        if isinstance(pending.answer, RpcError):
            raise pending.answer

    def describe(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Options,
        target: Target | None,
    ) -> Call:
        """A call of this side's, as its interceptors see it."""
        return Call(
            self._connection,
            full_name(name, target),
            options.metadata,
            trio.current_effective_deadline(),
            tuple(args),
            MappingProxyType(dict(kwargs)),
        )

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
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Options = NO_OPTIONS,
        target: Target | None = None,
    ) -> Stream[Any]:
        """A stream that starts when it is entered, or when its first item is asked for."""
        if self._interceptors:
            # What does not fit the method is told at once, as without interceptors.
            codec.encode_arguments(args, kwargs)

            async def make(stream: InterceptedStream[Any]) -> Any:
                async def proceed(call: Call) -> Any:
                    changed = options.with_metadata(call.metadata)
                    remote = self._stream(name, codec, call.args, call.kwargs, changed, target)
                    return await stream.adopt(remote)

                call = self.describe(name, args, kwargs, options, target)
                return await intercept(self._interceptors, call, proceed)

            return InterceptedStream(full_name(name, target), make)
        return self._stream(name, codec, args, kwargs, options, target)

    def _stream(
        self,
        name: str,
        codec: MethodCodec,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Options,
        target: Target | None,
    ) -> RemoteStream[Any]:
        packed, named, references = codec.encode_arguments(args, kwargs)
        request = Request(name, codec, packed, named, options, target)
        attached = Attachments(self._connection, codec, references) if references else None
        limits = self._connection.limits
        # A window that somebody chose stays as it is; another grows when the link needs it (R15).
        first = options.window or limits.window
        growth = Growth(limits.max_window) if options.window is None else None

        async def start() -> Receiver:
            # R17: a place for every item, for the largest window that this one may grow to.
            largest = limits.max_window if growth is not None else first
            receiver, _ = await self.open_receiver(
                request, first, growth, attached, capacity=largest.items
            )
            if growth is not None:
                self._endpoint.measure(trio.current_time())
            return receiver

        def rebuild(frame: Error) -> BaseException:
            return self.rebuild(frame, codec, name)

        return RemoteStream(self, start, codec.decode_result, rebuild, name, attached)

    # --- contexts and tasks

    def context(
        self,
        method: Method,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Options,
        target: Target | None,
        make_proxy: MakeProxy | None,
    ) -> AbstractAsyncContextManager[Any]:
        """A remote context, which is entered when the block begins."""
        name = full_name(method.name, target)
        if not self._interceptors:
            held, attached = self._hold(method, args, kwargs, options, target, make_proxy)
            return RemoteContext(held, self, name, attached)
        method.wire(self.payloads).encode_arguments(args, kwargs)

        async def proceed(call: Call) -> Any:
            changed = options.with_metadata(call.metadata)
            held, attached = self._hold(method, call.args, call.kwargs, changed, target, make_proxy)
            return RemoteContext(held, self, name, attached)

        async def make() -> Any:
            call = self.describe(method.name, args, kwargs, options, target)
            return await intercept(self._interceptors, call, proceed)

        return InterceptedContext(name, make)

    async def task(
        self,
        method: Method,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Options,
        target: Target | None,
        make_proxy: MakeProxy | None,
        task_status: trio.TaskStatus[Any],
    ) -> None:
        """Run a remote task to its end; its ``started`` is told to ``task_status``."""

        async def proceed(call: Call) -> Any:
            changed = options.with_metadata(call.metadata)
            held, attached = self._hold(method, call.args, call.kwargs, changed, target, make_proxy)
            await run_task(held, attached, task_status)

        if self._interceptors:
            call = self.describe(method.name, args, kwargs, options, target)
            await intercept(self._interceptors, call, proceed)
            return
        held, attached = self._hold(method, args, kwargs, options, target, make_proxy)
        await run_task(held, attached, task_status)

    def _hold(
        self,
        method: Method,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Options,
        target: Target | None,
        make_proxy: MakeProxy | None,
    ) -> tuple[Held, Attachments | None]:
        codec = method.wire(self.payloads)
        packed, named, references = codec.encode_arguments(args, kwargs)
        request = Request(method.name, codec, packed, named, options, target)
        attached = Attachments(self._connection, codec, references) if references else None
        name = full_name(method.name, target)
        return Held(self, method, request, name, make_proxy), attached

    async def open_receiver(
        self,
        request: Request,
        window: Window,
        growth: Growth | None,
        attached: Attachments | None,
        *,
        capacity: int,
    ) -> tuple[Receiver, Exchange]:
        """Make a call that is answered by items; gives where they arrive."""
        place, _ = await self.places.take(request.target, attached.uploads if attached else 0)
        exchange = self._open(request, place, window=window, growth=growth, attached=attached)
        assert exchange.window is not None
        receiver = Receiver(exchange.id, exchange.window, capacity, place)
        self._receivers[exchange.id] = receiver
        self._connection.wake_writer()
        return receiver, exchange

    def receive_upload(self, exchange: Exchange) -> Receiver:
        """Where the items of an upload of the other side arrive."""
        assert exchange.window is not None
        capacity = self._connection.limits.max_window.items
        receiver = self._receivers[exchange.id] = Receiver(exchange.id, exchange.window, capacity)
        self._endpoint.measure(trio.current_time())
        return receiver

    def grant(self, id: int, items: int, bytes: int) -> None:
        self._endpoint.grant(id, items, bytes, trio.current_time())
        self._connection.wake_writer()

    def leave(self, receiver: Receiver, error: ErrorInfo | None) -> None:
        """Ask the producer to finish, since its consumer leaves, perhaps with an error (R8)."""
        written = self._endpoint.cancel(receiver.id, "close" if error is None else "abort", error)
        if not written:
            self._withdrawn(receiver.id)
        self._connection.wake_writer()

    # --- uploads of this side

    def collect_departed(self) -> None:
        """What has been written: oneway calls, and the last frames of uploads."""
        for id in self._endpoint.departed():
            pending = self._pending.get(id)
            if pending is None:
                self.places.uploads.release()
            elif pending.task is not None:
                trio.lowlevel.reschedule(pending.task)
                pending.task = None

    def upload_ended(self, id: int) -> None:
        """Its iterator is closed, and its final frame said."""
        self.uploads.pop(id, None)

    async def abort(self, id: int) -> None:
        """End a call since what goes with it has failed; wait for it, but not for ever (R10)."""
        self.abandon(id)
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
        if not self._endpoint.cancel(id, "abort"):
            self._withdrawn(id)
        self._connection.wake_writer()

    def abandon_from_anywhere(self, id: int) -> None:
        """The same for a stream that was collected: in whatever thread, at whatever moment."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.abandon, id)

    def _withdrawn(self, id: int) -> None:
        """R12: the call was never written; no final frame will come of it."""
        self.collect_departed()
        pending = self._pending.pop(id, None)
        if pending is not None:
            self._release(pending.place)
        receiver = self._receivers.pop(id, None)
        if receiver is not None:
            receiver.finish(self._endpoint.family.end(id))
            self._release(receiver.place)

    def on_final(self, frame: Result | Error | End) -> None:
        """A final frame: the caller is woken, and the call's place is free (R26)."""
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
            self._fail(id, gone, release=True)
        self.collect_departed()

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

    async def wait_idle(self) -> None:
        """Wait until every call has had its final frame."""
        if self._pending or self._receivers:
            if self._idle is None:
                self._idle = trio.Event()
            await self._idle.wait()

    def _open(
        self,
        request: Request,
        place: trio.Semaphore,
        *,
        window: Window | None = None,
        growth: Growth | None = None,
        timeout: float | None = None,
        attached: Attachments | None = None,
    ) -> Exchange:
        target, options = request.target, request.options
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
                metadata=options.encoded(self.payloads) if options.metadata else None,
            )
        except BaseException:
            # Nothing was said: it is too long, or has a name that is no text, or it is too late.
            place.release()
            for _ in range(attached.uploads if attached is not None else 0):
                self.places.uploads.release()
            raise
        if attached is not None:
            attached.start(exchange, Root(exchange) if target is None else target.root)
        return exchange

    def _release(self, place: trio.Semaphore | None) -> None:
        if place is not None:
            place.release()
        self._check_idle()

    def _check_idle(self) -> None:
        if self._idle is not None and not self._pending and not self._receivers:
            self._idle.set()
            self._idle = None
