"""This side serves: a task for each call that arrives, until its final frame is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_streamrpc.contract.methods import Kind as MethodKind
from trio_streamrpc.errors import Code, InvalidArgument
from trio_streamrpc.protocol.frames import Call as CallFrame
from trio_streamrpc.protocol.frames import Cancel, ErrorInfo, Grant
from trio_streamrpc.runtime.failures import LOGGER
from trio_streamrpc.runtime.handlers import Handler, StreamHandler, UnaryHandler

if TYPE_CHECKING:
    from trio_streamrpc.contract.methods import Method, MethodTable
    from trio_streamrpc.contract.payloads import Payloads
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["Callee"]

GONE = ErrorInfo(Code.UNAVAILABLE.value, "", "this side is going away")


class Callee:
    """The calls that run on this side of a connection."""

    def __init__(
        self, connection: Connection, table: MethodTable | None, payloads: Payloads, *, mask: bool
    ) -> None:
        self._connection = connection
        self._endpoint = connection.endpoint
        self._table = table
        self._payloads = payloads
        self._mask = mask
        self._handlers: dict[int, Handler] = {}
        self._idle: trio.Event | None = None
        #: Set once this side goes away: what is stopped now is UNAVAILABLE, not cancelled (R6).
        self.closing = False
        #: Pumps that let others run, though they could go on.
        self.pausing = 0

    @property
    def running(self) -> int:
        """Handlers that have not stopped."""
        return len(self._handlers)

    @property
    def mask(self) -> bool:
        return self._mask

    def on_call(self, frame: CallFrame) -> None:
        """A call has come: find its method and start its handler, or refuse it."""
        if self.closing:
            # It was in the last message that was read; nobody would ask its handler to stop.
            self._endpoint.answer_error(frame.id, GONE, retry=True)
            return
        method = self._table.get(frame.method) if self._table is not None else None
        if method is None:
            # The same words for every name, so that nothing can be learned from them.
            self._refuse(frame, Code.UNIMPLEMENTED, "no such method")
            return
        try:
            handler = self._handler(method, frame)
        except InvalidArgument as error:
            self._refuse(frame, error.code, error.message)
            return
        except Exception:
            # An annotation whose values nothing can encode: a fault of that method's, and of no
            # other's.
            LOGGER.exception("%s cannot be called", method.name)
            self._refuse(frame, Code.INTERNAL, f"{method.name} cannot be called")
            return
        self._handlers[frame.id] = handler
        self._connection.nursery.start_soon(self._run, handler, name=f"handler of {method.name}")

    def _handler(self, method: Method, frame: CallFrame) -> Handler:
        codec = method.wire(self._payloads)
        if method.kind is MethodKind.SERVER_STREAM:
            if frame.window is None:
                raise InvalidArgument(
                    f"{method.name} gives a stream: use connection.stream({method.name!r}, …) "
                    "or a typed proxy (on the wire: a call with a window)"
                )
            return StreamHandler(self._connection, method, codec, frame)
        if method.kind is not MethodKind.UNARY:
            raise InvalidArgument(f"{method.name} cannot be called over this version's connections")
        if frame.window is not None:
            raise InvalidArgument(
                f"{method.name} gives one result: use await connection.call({method.name!r}, …) "
                "or a typed proxy (on the wire: a call without a window)"
            )
        return UnaryHandler(self._connection, method, codec, frame)

    def _refuse(self, frame: CallFrame, code: Code, message: str) -> None:
        self._endpoint.answer_error(frame.id, ErrorInfo(code.value, "", message))

    async def _run(self, handler: Handler) -> None:
        try:
            await handler.run()
        finally:
            del self._handlers[handler.id]
            if self._idle is not None and not self._handlers:
                self._idle.set()
                self._idle = None
            self._connection.wake_writer()

    def on_cancel(self, frame: Cancel) -> None:
        handler = self._handlers.get(frame.id)
        if handler is not None:
            handler.ask()

    def on_grant(self, frame: Grant) -> None:
        handler = self._handlers.get(frame.id)
        if handler is not None:
            handler.on_credit()

    def on_room(self, id: int) -> None:
        """What waited to be written for that stream was taken: its producer may go on."""
        handler = self._handlers.get(id)
        if handler is not None:
            handler.on_credit()

    def ask_all(self) -> None:
        """Ask every handler to stop, since its connection ends."""
        self.closing = True
        for handler in list(self._handlers.values()):
            handler.ask()

    async def wait_idle(self) -> None:
        """Wait until every handler has stopped."""
        if self._handlers:
            if self._idle is None:
                self._idle = trio.Event()
            await self._idle.wait()

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
