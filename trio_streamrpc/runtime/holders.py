"""Remote contexts and remote tasks on the side that serves them (R20).

Each gives one item, which may be an object whose methods the caller can then call, and lasts on
until its caller leaves or cancels it.
"""

from __future__ import annotations

from contextvars import copy_context
from functools import cached_property
from typing import TYPE_CHECKING, Any

import trio

from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.errors import CallCancelled, Code
from trio_streamrpc.protocol.frames import ErrorInfo
from trio_streamrpc.runtime.failures import error_from
from trio_streamrpc.runtime.handlers import Handler
from trio_streamrpc.runtime.objects import Export
from trio_streamrpc.runtime.parking import Parking

if TYPE_CHECKING:
    from trio_streamrpc.protocol.frames import Cancel

__all__ = ["ContextHandler", "TaskHandler"]


class Holder(Handler):
    """A handler that gives one item and lasts on; what it exported ends with it."""

    _export: Export | None = None
    #: Until when it may take to clean up, on Trio's clock, once it was asked to stop.
    _until: float | None = None

    def _give(self, value: Any) -> None:
        """Send the one item: data, or an object."""
        credit = self.exchange.credit
        assert credit is not None
        # R20: it is outside credit, whatever window its caller has given.
        credit.items = credit.bytes = 1
        if value is not None and self.method.gives_object(value):
            table = MethodTable.of(value)
            export = Export(
                self.endpoint.send_object(self.id),
                self.root,
                self.name,
                table.get,
                nursery=self.connection.nursery,
                context=copy_context(),
                is_callback=False,
            )
            self._export = export
            self.connection.callee.exports[export.id] = export
        else:
            self.endpoint.send(self.id, self.codec.encode_result(value))
        self.connection.wake_writer()

    async def _end_object(self) -> None:
        """End what runs on the object; it cannot be called any more (R20)."""
        self.endpoint.end_objects(self.id)
        export = self._export
        if export is None:
            return
        self.connection.callee.exports.pop(export.id, None)
        export.ask_all()
        if export.running:
            until = trio.current_time() + self.cleanup if self._until is None else self._until
            # It opens and closes between two steps of what is held open.
            with trio.CancelScope(deadline=until, shield=True):
                await export.wait_idle()

    def ask(self, cancel: Cancel | None = None) -> None:
        if not self.asked:
            self._until = trio.current_time() + self.cleanup
        super().ask(cancel)


class ContextHandler(Holder):
    """A context manager of this side's service, entered and left by its caller.

    It is entered, held open and left in one task, and between these no scope is opened: it may
    hold scopes and nurseries open across its ``yield``.
    """

    _entered = False
    #: Whether it is held open, so that its task is the runtime's.
    _holding = False
    #: Whether it is cancelled rather than left: before it was entered, or by a caller that waits
    #: for nothing.
    _cut = False
    #: What its caller left the block with, as it is thrown in here.
    _thrown: BaseException | None = None
    _passed_on = False
    #: Whether it has ended before its caller left it.
    _by_itself = False

    @cached_property
    def _parking(self) -> Parking:
        return Parking()

    async def serve(self) -> None:
        manager = await self._invoke()
        try:
            async with manager as value:
                self._entered = True
                if not self.asked:
                    self._give(value)
                del value
                await self._hold()
                await self._raise_what_was_thrown()
        except BaseException as error:
            if error is not self._thrown:
                raise
            self._passed_on = True

    async def _hold(self) -> None:
        """Wait until the caller leaves, or until a scope of the context's own is cancelled."""
        self._holding = True
        try:
            if not self.asked:
                await self._parking.park()
        except BaseException:
            self._by_itself = True
            raise
        finally:
            await self._end_object()
            self._holding = False
            if self.asked:
                self._limit()

    async def _raise_what_was_thrown(self) -> None:
        """Leave the block here as it was left there: with an error, cancelled, or in peace."""
        if self._cut:
            await trio.lowlevel.checkpoint()
            # A shield that the context holds open is no reason to leave as if all were well.
            self._thrown = CallCancelled("the context was cancelled")
        else:
            self._thrown = self._attached_error()
        if self._thrown is not None:
            raise self._thrown

    @property
    def _info(self) -> ErrorInfo | None:
        """The error that its caller left the block with."""
        cancel = self._cancel
        return cancel.error if cancel is not None and cancel.mode == "abort" else None

    def _attached_error(self) -> BaseException | None:
        info = self._info
        if info is None:
            return None
        listed = self.codec.decode_error(info.name, info.message, info.data)
        if listed is not None:
            return listed
        return error_from(info, decode=self.connection.payloads.decoder())

    def _stop(self) -> None:
        cancel = self._cancel
        left = cancel is not None and (cancel.mode == "close" or cancel.error is not None)
        self._cut = not (self._entered and left)
        if self._parking.occupied:
            self._parking.unpark()
        elif not self._holding:
            self._limit()

    def _limit(self) -> None:
        """It is on its way in or out: it gets its time to be out, or none (R7a, R8)."""
        if self._cut:
            self.scope.cancel()
        else:
            assert self._until is not None
            self.scope.deadline = self._until

    def _conclude(self) -> None:
        info = self._info
        if self._error is not None:
            self._answer_error(self._error)
        elif self._cut:
            self._answer_stopped()
        elif self.scope.cancelled_caught:
            self._answer_cleanup_timeout()
        elif self._passed_on or self._by_itself:
            # R20: whatever its caller leaves with is the caller's own. Where it has ended by
            # itself, it has not seen that, and has suppressed nothing.
            code = Code.CANCELLED.value if info is None else info.code
            name = "" if self._thrown is None else type(self._thrown).__name__
            message = "" if self._passed_on else "the context has ended by itself"
            own = ErrorInfo(code, name, message)
            self.endpoint.answer_error(self.id, own, cleanup=True, same=True)
        else:
            self.endpoint.end(self.id)

    def finish(self) -> None:
        super().finish()
        # Its traceback refers to this frame, which refers to it.
        self._thrown = None


class TaskHandler(Holder):
    """A task of this side's service, started by ``nursery.start`` on the other."""

    _started = False

    async def serve(self) -> None:
        status = next(each.name for each in self.method.parameters if each.is_task_status)
        try:
            await self._invoke(**{status: self})
        finally:
            await self._end_object()

    def started(self, value: Any = None) -> None:
        """What the method's ``task_status.started`` is: its caller's ``nursery.start`` returns."""
        if self._started:
            raise RuntimeError("called 'started' twice on the same task status")
        self._started = True
        if not self.asked:
            self._give(value)

    def _stop(self) -> None:
        if self._export is not None and self._export.running:
            # R20: what runs on its object has ended before it does.
            self.connection.nursery.start_soon(self._stop_in_order)
        else:
            self.scope.cancel()

    async def _stop_in_order(self) -> None:
        try:
            await self._end_object()
        finally:
            self.scope.cancel()

    def _conclude(self) -> None:
        if self._error is not None:
            self._answer_error(self._error)
        elif self.scope.cancelled_caught or self.asked_to_go:
            self._answer_stopped()
        else:
            self.endpoint.end(self.id)
