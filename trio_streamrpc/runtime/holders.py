"""Remote contexts and remote tasks on the side that serves them (R20).

Each gives one item, which may be an object whose methods the caller can then call, and lasts on
until its caller leaves or cancels it.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import trio

from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.protocol.frames import ErrorInfo
from trio_streamrpc.runtime.failures import error_from
from trio_streamrpc.runtime.handlers import Handler
from trio_streamrpc.runtime.objects import Export

if TYPE_CHECKING:
    from trio_streamrpc.protocol.frames import Cancel

__all__ = ["ContextHandler", "TaskHandler"]


class Holder(Handler):
    """A handler that gives one item and lasts on; what it exported ends with it."""

    _exports: tuple[Export, ...] = ()
    #: Until when it may take to clean up, on Trio's clock, once it was asked to stop.
    _until: float | None = None

    def _give(self, value: Any) -> None:
        """Send the one item: data, or an object."""
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
            self._exports = (export,)
            self.connection.callee.exports[export.id] = export
        else:
            self.endpoint.send(self.id, self.codec.encode_result(value))
        self.connection.wake_writer()

    async def _end_objects(self) -> None:
        """End what runs on the object; it cannot be called any more (R20)."""
        self.endpoint.end_objects(self.id)
        until = trio.current_time() + self.cleanup if self._until is None else self._until
        for export in self._exports:
            self.connection.callee.exports.pop(export.id, None)
            export.ask_all()
            if export.running:
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

    _parked: trio.lowlevel.Task | None = None
    #: Whether it is held open, so that its task is the runtime's.
    _holding = False
    _leaving = False
    #: What the caller left its block with, as it is thrown in here.
    _thrown: BaseException | None = None
    _passed_on = False

    async def _serve(self) -> None:
        manager = await self._invoke()
        try:
            async with manager as value:
                self._give(value)
                del value
                await self._hold()
                self._prepare_to_leave()
                if self._thrown is not None:
                    raise self._thrown
                if self.scope.cancel_called:
                    await trio.lowlevel.checkpoint()
        except BaseException as error:
            if error is not self._thrown:
                raise
            self._passed_on = True

    async def _hold(self) -> None:
        """Wait until the caller leaves, or until a scope of the context's own is cancelled."""
        self._holding = True
        try:
            if not self.asked:
                await self._park()
        finally:
            self._holding = False
            await self._end_objects()

    async def _park(self) -> None:
        def abort(raise_cancel: Any) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._parked = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _prepare_to_leave(self) -> None:
        cancel = self._cancel
        if cancel is None or (cancel.mode == "abort" and cancel.error is None):
            self.scope.cancel()
            return
        self._leaving = True
        assert self._until is not None
        self.scope.deadline = self._until
        if cancel.mode == "abort" and cancel.error is not None:
            self._thrown = self._rebuild(cancel.error)

    def _rebuild(self, info: ErrorInfo) -> BaseException:
        listed = self.codec.decode_error(info.name, info.message, info.data)
        if listed is not None:
            return listed
        return error_from(info, decode=self.connection.payloads.decoder())

    def _stop(self) -> None:
        if self._parked is not None:
            trio.lowlevel.reschedule(self._parked)
            self._parked = None
        elif not self._holding and not self._leaving:
            self.scope.cancel()

    def _conclude(self) -> None:
        if self._error is not None:
            self._answer_error(self._error)
        elif self._leaving and self.scope.cancelled_caught:
            self._answer_cleanup_timeout()
        elif self.scope.cancelled_caught or self.asked_to_go:
            self._answer_stopped()
        elif self._passed_on:
            assert self._thrown is not None
            info = ErrorInfo(self._cancel_error().code, type(self._thrown).__name__)
            self.endpoint.answer_error(self.id, info, cleanup=True, same=True)
        else:
            self.endpoint.end(self.id)

    def _cancel_error(self) -> ErrorInfo:
        assert self._cancel is not None
        assert self._cancel.error is not None
        return self._cancel.error


class TaskHandler(Holder):
    """A task of this side's service, started by ``nursery.start`` on the other."""

    _started = False

    async def _serve(self) -> None:
        status = next(each.name for each in self.method.parameters if each.is_task_status)
        try:
            await self._invoke(**{status: self})
        finally:
            await self._end_objects()

    def started(self, value: Any = None) -> None:
        """What the method's ``task_status.started`` is: its caller's ``nursery.start`` returns."""
        if self._started:
            raise RuntimeError("called 'started' twice on the same task status")
        self._started = True
        if not self.asked:
            self._give(value)

    def _conclude(self) -> None:
        if self._error is not None:
            self._answer_error(self._error)
        elif self.scope.cancelled_caught or self.asked_to_go:
            self._answer_stopped()
        else:
            self.endpoint.end(self.id)
