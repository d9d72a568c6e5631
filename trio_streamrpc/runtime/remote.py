"""A method of the other side, as this side calls it: as a function, a stream, a context or a task.

Here the arguments become payloads and references, and the interceptors stand around the call; what
is called, and what waits for answers, stands in :mod:`.caller`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import trio
from msgspec import Struct

from trio_streamrpc.contract.signatures import Kind
from trio_streamrpc.errors import Code
from trio_streamrpc.protocol.calling import Access
from trio_streamrpc.protocol.credit import Growth
from trio_streamrpc.protocol.frames import Error, ErrorInfo, Result
from trio_streamrpc.runtime.attachments import Attachments
from trio_streamrpc.runtime.calls import Call
from trio_streamrpc.runtime.contexts import Held, MakeProxy, RemoteContext, run_task
from trio_streamrpc.runtime.failures import error_from
from trio_streamrpc.runtime.intercepted import InterceptedContext, InterceptedStream, Layers
from trio_streamrpc.runtime.interceptors import Interceptor, Onion, check_fits, intercept
from trio_streamrpc.runtime.options import NO_OPTIONS, Options
from trio_streamrpc.runtime.receivers import Receiver
from trio_streamrpc.runtime.streams import RemoteStream, Stream

if TYPE_CHECKING:
    from trio_streamrpc.contract.arguments import MethodCodec
    from trio_streamrpc.contract.method import Method
    from trio_streamrpc.errors import RpcError
    from trio_streamrpc.runtime.caller import Caller
    from trio_streamrpc.runtime.objects import Target

__all__ = ["RemoteMethod", "Request"]

#: R23: how long a caller whose call ran out of time on the other side waits for its own scope.
DEADLINE_SLACK = 1.0

Args = Sequence[Any]
Kwargs = Mapping[str, Any]


class Request(Struct, eq=False):
    """A call that is about to be made; once it is, its arguments are no longer here."""

    name: str
    args: bytes
    kwargs: bytes | None
    metadata: bytes | None = None
    priority: int = 0
    target: Target | None = None
    attached: Attachments | None = None
    access: Access = "call"

    def is_long(self, limit: int) -> bool:
        """Whether it may be that the call takes more than so many bytes."""
        size = 1024 + 6 * len(self.name) + len(self.args)
        if self.kwargs is not None:
            size += len(self.kwargs)
        if self.metadata is not None:
            size += len(self.metadata)
        return size > limit


class RemoteMethod:
    """One method of the other side's service, or of an object of its."""

    __slots__ = ("_caller", "_codec", "_options", "_target", "method", "name")

    def __init__(
        self,
        caller: Caller,
        method: Method,
        options: Options = NO_OPTIONS,
        target: Target | None = None,
    ) -> None:
        self.method = method
        #: What messages and interceptors call it: an object's methods follow the object's name.
        self.name = method.name
        if target is not None:
            self.name = f"{target.name}.{method.name}" if method.name else target.name
        self._caller = caller
        self._codec: MethodCodec = method.wire(caller.payloads)
        self._options = options
        self._target = target

    # --- one answer

    def call(self, args: Args, kwargs: Kwargs) -> Coroutine[Any, Any, Any]:
        """Call it and wait for its result; if it is oneway, until the call is written (R11)."""
        if not self._is_intercepted:
            return self._call(args, kwargs, self._options)

        async def proceed(call: Call) -> Any:
            return await self._call(call.args, call.kwargs, self._changed(call))

        return self._intercept(args, kwargs, proceed)

    async def _call(self, args: Args, kwargs: Kwargs, options: Options) -> Any:
        request = self._request(args, kwargs, options)
        # They may be large, and the call take long.
        del args, kwargs
        attached = request.attached
        if self.method.options.oneway:
            if attached is not None:
                raise TypeError(
                    f"{self._codec.label}() is oneway and can take neither streams nor callbacks"
                )  # R11
            await self._caller.send(request)
            return None
        if attached is None:
            answer = await self._caller.ask(request)
        else:
            async with attached:
                answer = await self._caller.ask(request)
                await attached.settle()
                attached.end()
                await attached.wait_uploads()
                failure = None
                if isinstance(answer, Error) and answer.error.code != Code.CANCELLED:
                    failure = self.rebuild(answer)
                attached.check(failure)
        if isinstance(answer, Result):
            return self._codec.decode_result(answer.value)
        raise await self._failure(answer)

    async def tell(self, args: Args, kwargs: Kwargs) -> None:
        """Call a callback that the other side does not answer: wait until the call is written."""
        await self._caller.send(self._request(args, kwargs, self._options))

    async def access(self, access: Access, *args: Any) -> Any:
        """Read a property of the other side's, or write it."""
        request = self._request(args, {}, self._options)
        request.access = access
        answer = await self._caller.ask(request)
        if isinstance(answer, Result):
            return self._codec.decode_result(answer.value)
        raise await self._failure(answer)

    async def _failure(self, answer: Error | RpcError) -> BaseException:
        if not isinstance(answer, Error):
            return answer
        if answer.error.code == Code.DEADLINE_EXCEEDED:
            # R23: both sides watch the same deadline, and the caller's own scope is the one that
            # its user knows. If it is due, it speaks.
            left = trio.current_effective_deadline() - trio.current_time()
            if left <= DEADLINE_SLACK:
                await trio.sleep(max(0.0, left) + DEADLINE_SLACK)
        return self.rebuild(answer)

    def rebuild(self, frame: Error) -> BaseException:
        """The exception that an error frame is raised as."""
        info = frame.error
        if info.code == Code.UNIMPLEMENTED and not info.name:
            # The answer is the same for every name that is not there; this side knows which it was.
            info = ErrorInfo(info.code, "", f"no method {self.method.name!r} on the other side")
        listed = self._codec.decode_error(info.name, info.message, info.data)
        if listed is not None:
            return listed
        return error_from(info, retry=frame.retry, decode=self._caller.payloads.decoder())

    # --- a stream

    def stream(self, args: Args, kwargs: Kwargs) -> Stream[Any]:
        """A stream that starts when it is entered, or when its first item is asked for."""
        if not self._is_intercepted:
            return self._stream(args, kwargs, self._options)
        # What does not fit the method is told at once, as without interceptors.
        _, _, references = self._codec.encode_arguments(args, kwargs)

        async def make(layers: Layers) -> Any:
            async def proceed(call: Call) -> Any:
                return self._stream(call.args, call.kwargs, self._changed(call), layers.nursery)

            return await self._intercept(args, kwargs, proceed, layers.adopt)

        attaches = self._codec.is_open or not self._codec.is_plain
        return InterceptedStream(
            self.name, make, attaches=attaches, needs_block=len(references) > 0
        )

    def _stream(
        self, args: Args, kwargs: Kwargs, options: Options, nursery: trio.Nursery | None = None
    ) -> RemoteStream[Any]:
        request = self._request(args, kwargs, options, nursery)
        limits = self._caller.limits
        # A window that somebody chose stays as it is; another grows when the link needs it (R15).
        first = options.window or limits.window
        growth = Growth(limits.max_window) if options.window is None else None
        # R17: a place for every item, for the largest window that this one may grow to.
        capacity = limits.max_window.items if growth is not None else first.items

        async def start() -> Receiver:
            receiver, _ = await self._caller.open_receiver(request, first, growth, capacity)
            return receiver

        return RemoteStream(
            self._caller,
            start,
            self._codec.decode_result,
            self.rebuild,
            self.name,
            request.attached,
        )

    # --- a context or a task

    def context(
        self, args: Args, kwargs: Kwargs, make_proxy: MakeProxy | None
    ) -> AbstractAsyncContextManager[Any]:
        """A remote context, which is entered when the block begins."""
        if not self._is_intercepted:
            return RemoteContext(self._hold(args, kwargs, self._options, make_proxy))
        self._codec.encode_arguments(args, kwargs)

        async def proceed(call: Call) -> Any:
            held = self._hold(call.args, call.kwargs, self._changed(call), make_proxy)
            return RemoteContext(held)

        async def adopt(given: Any, by: Interceptor | None) -> Any:
            check_fits(Kind.CONTEXT, given, by, self.name)
            return given

        async def make() -> Any:
            return await self._intercept(args, kwargs, proceed, adopt)

        return InterceptedContext(self.name, make)

    async def task(
        self,
        args: Args,
        kwargs: Kwargs,
        make_proxy: MakeProxy | None,
        task_status: trio.TaskStatus[Any],
    ) -> None:
        """Run a remote task to its end; its ``started`` is told to ``task_status``."""
        if not self._is_intercepted:
            await run_task(self._hold(args, kwargs, self._options, make_proxy), task_status)
            return

        async def proceed(call: Call) -> Any:
            held = self._hold(call.args, call.kwargs, self._changed(call), make_proxy)
            await run_task(held, task_status)

        await self._intercept(args, kwargs, proceed)

    def _hold(
        self, args: Args, kwargs: Kwargs, options: Options, make_proxy: MakeProxy | None
    ) -> Held:
        return Held(self, self._caller, self._request(args, kwargs, options), make_proxy)

    @property
    def encode_error(self) -> Callable[[BaseException], tuple[str, bytes | None] | None]:
        """How an exception travels that is listed for the method; None for any other."""
        return self._codec.encode_error

    @property
    def decode_result(self) -> Callable[[Any], Any]:
        """What decodes a result, an item, or what a context yields."""
        return self._codec.decode_result

    # --- what they have in common

    @property
    def _is_intercepted(self) -> bool:
        # A callback is within the call that it was passed to, and has no name.
        return len(self._caller.interceptors) > 0 and self.method.name != ""

    async def _intercept(
        self,
        args: Args,
        kwargs: Kwargs,
        innermost: Callable[[Call], Awaitable[Any]],
        adopt: Callable[[Any, Interceptor | None], Awaitable[Any]] | None = None,
    ) -> Any:
        call = Call(
            self._caller.connection,
            self.name,
            self._options.metadata,
            trio.current_effective_deadline(),
            tuple(args),
            MappingProxyType(dict(kwargs)),
            self._codec.names,
        )
        return await intercept(Onion(self._caller.interceptors, innermost, adopt), call)

    def _changed(self, call: Call) -> Options:
        return self._options.with_metadata(call.metadata)

    def _request(
        self, args: Args, kwargs: Kwargs, options: Options, nursery: trio.Nursery | None = None
    ) -> Request:
        if kwargs and not self._caller.takes_names:
            args, kwargs = self._codec.by_position(args, kwargs)
        packed, named, references = self._codec.encode_arguments(args, kwargs)
        attached = None
        if references:
            attached = Attachments(self._caller.connection, self._codec, references, nursery)
        metadata = options.encoded(self._caller.payloads) if options.metadata else None
        return Request(
            self.method.name, packed, named, metadata, options.priority, self._target, attached
        )
