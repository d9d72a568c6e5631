"""This side serves: which calls that arrive are run, by what, and which are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from trio_streamrpc.contract.signatures import Kind as MethodKind
from trio_streamrpc.errors import Code, InvalidArgument
from trio_streamrpc.protocol import reactions
from trio_streamrpc.protocol.frames import Call as CallFrame
from trio_streamrpc.protocol.frames import Cancel, ErrorInfo, Grant
from trio_streamrpc.protocol.reactions import Breach
from trio_streamrpc.runtime.failures import LOGGER
from trio_streamrpc.runtime.handlers import CallbackHandler, Handler, UnaryHandler
from trio_streamrpc.runtime.holders import ContextHandler, TaskHandler
from trio_streamrpc.runtime.stream_handlers import StreamHandler
from trio_streamrpc.runtime.workers import Workers

if TYPE_CHECKING:
    from trio_streamrpc.contract.method import Method
    from trio_streamrpc.contract.methods import MethodTable
    from trio_streamrpc.contract.payloads import Payloads
    from trio_streamrpc.runtime.connection import Connection
    from trio_streamrpc.runtime.interceptors import Interceptor
    from trio_streamrpc.runtime.objects import Export

__all__ = ["Callee"]

#: What runs a method of each kind.
HANDLERS: dict[MethodKind, type[Handler]] = {
    MethodKind.UNARY: UnaryHandler,
    MethodKind.SERVER_STREAM: StreamHandler,
    MethodKind.CONTEXT: ContextHandler,
    MethodKind.TASK: TaskHandler,
}


class Callee:
    """The calls that run on this side of a connection."""

    def __init__(
        self,
        connection: Connection,
        table: MethodTable | None,
        payloads: Payloads,
        *,
        mask: bool,
        interceptors: Sequence[Interceptor],
    ) -> None:
        self._connection = connection
        self._endpoint = connection.endpoint
        self._table = table
        self._payloads = payloads
        self._mask = mask
        self.interceptors = interceptors
        #: What the other side may call besides the service, by its id (R20).
        self.exports: dict[int, Export] = {}
        self._handlers: dict[int, Handler] = {}
        self._workers = Workers(connection.nursery, self._ended)
        self._idle: trio.Event | None = None
        #: Set once this side goes away: what is stopped now is UNAVAILABLE, not cancelled (R6).
        self.closing = False

    @property
    def running(self) -> int:
        """Handlers that have not stopped."""
        return len(self._handlers)

    @property
    def handlers(self) -> list[Handler]:
        """Those that run now."""
        return list(self._handlers.values())

    @property
    def mask(self) -> bool:
        return self._mask

    def start(self) -> None:
        """Start what runs the calls."""
        if self._table is not None:
            self._workers.open()

    def on_call(self, frame: CallFrame) -> None:
        """A call has come: find its method and start its handler, or refuse it."""
        if self.closing:
            # It was in the last message that was read; nobody would ask its handler to stop.
            self._refuse(frame, reactions.GOING_AWAY)
            return
        export = None
        if frame.target:
            export = self.exports.get(frame.target)
            if export is None:
                self._refuse(frame, reactions.NO_SUCH_OBJECT)
                return
            method = export.find(frame.method)
        else:
            method = self._table.get(frame.method) if self._table is not None else None
        if method is None:
            # The same words for every name, so that nothing can be learned from them.
            self._refuse(frame, reactions.NO_SUCH_METHOD)
            return
        try:
            handler = self._handler(method, frame, export)
        except InvalidArgument as error:
            self._refuse(frame, reactions.MISFIT, error.message)
            return
        except Exception:
            # An annotation whose values nothing can encode: a fault of that method's, and of no
            # other's.
            LOGGER.exception("%s cannot be called", method.name)
            info = ErrorInfo(Code.INTERNAL.value, "", f"{method.name} cannot be called")
            self._endpoint.answer_error(frame.id, info)
            return
        self._handlers[frame.id] = handler
        if export is None and type(handler) is UnaryHandler:
            self._workers.run(handler)
        elif export is None:
            self._connection.nursery.start_soon(self._run, handler, name=handler.task_name)
        elif not export.start(handler, self._run, handler.task_name):
            del self._handlers[frame.id]
            handler.drop()
            self._refuse(frame, reactions.NO_SUCH_OBJECT)

    def _handler(self, method: Method, frame: CallFrame, export: Export | None) -> Handler:
        codec = method.wire(self._payloads)
        if (frame.window is None) != (method.kind is MethodKind.UNARY):
            raise InvalidArgument(how_to_call(method))
        if export is not None and export.is_callback:
            return CallbackHandler(self._connection, method, codec, frame, export)
        return HANDLERS[method.kind](self._connection, method, codec, frame, export)

    def _refuse(self, frame: CallFrame, breach: Breach, detail: str = "") -> None:
        self._endpoint.answer_error(frame.id, breach.info(detail), retry=breach.retry)

    async def _run(self, handler: Handler) -> None:
        try:
            await handler.run()
        finally:
            self._ended(handler)

    def _ended(self, handler: Handler) -> None:
        self._handlers.pop(handler.id, None)
        if handler.export is not None:
            handler.export.stopped(handler)
        self.check_idle()
        if self._handlers:
            self._connection.wake_writer()
        else:
            self._connection.writer.push()

    def on_cancel(self, frame: Cancel) -> None:
        handler = self._handlers.get(frame.id)
        if handler is not None:
            handler.ask(frame)
            return
        upload = self._connection.caller.uploads.get(frame.id)
        if upload is not None:
            upload.ask()

    def on_grant(self, frame: Grant) -> None:
        self.on_credit(frame.id)

    def on_credit(self, id: int) -> None:
        """A stream of this side was granted more, or what waited of it to be written was taken."""
        producer = self._handlers.get(id) or self._connection.caller.uploads.get(id)
        if producer is not None:
            producer.on_credit()

    def ask_all(self) -> None:
        """Ask every handler to stop, since its connection ends."""
        self.closing = True
        for handler in list(self._handlers.values()):
            handler.ask()

    async def wait_idle(self, *, arriving: bool = False) -> None:
        """Wait until every handler has stopped; if ``arriving``, those too whose calls have begun
        to arrive (R21)."""
        while self._handlers or (arriving and self._is_expecting):
            if self._idle is None:
                self._idle = trio.Event()
            await self._idle.wait()

    @property
    def _is_expecting(self) -> bool:
        return self._connection.alive and self._endpoint.assembly.has_calls

    def check_idle(self) -> None:
        """Who waits for the last handler looks again."""
        if self._idle is not None and not self._handlers:
            self._idle.set()
            self._idle = None

    def budget(self) -> float:
        """How long the handlers that run now may take to stop, in seconds."""
        return max((handler.cleanup for handler in self._handlers.values()), default=0.0) + 1.0

    def report_leftovers(self) -> None:
        """Log which handlers have outlived their connection and their time."""
        for handler in self._handlers.values():
            LOGGER.warning(
                "%s has not stopped %s s after its connection ended",
                handler.method.name,
                handler.cleanup + 1.0,
            )


def how_to_call(method: Method) -> str:
    """What is told to a caller who has taken a method for one of another kind (R18)."""
    if not method.name:
        return "a callback gives one result: await it (on the wire: a call without a window)"
    name = repr(method.name)
    if method.kind is MethodKind.UNARY:
        return (
            f"{method.name} gives one result: use await connection.call({name}, …) or a typed "
            "proxy (on the wire: a call without a window)"
        )
    if method.kind is MethodKind.SERVER_STREAM:
        return (
            f"{method.name} gives a stream: use connection.stream({name}, …) or a typed proxy "
            "(on the wire: a call with a window)"
        )
    if method.kind is MethodKind.CONTEXT:
        return (
            f"{method.name} is a context: use async with connection.context({name}, …) or a typed "
            "proxy (on the wire: a call with a window of one item)"
        )
    return (
        f"{method.name} is a task: use await nursery.start(…) with a typed proxy (on the wire: a "
        "call with a window of one item)"
    )
