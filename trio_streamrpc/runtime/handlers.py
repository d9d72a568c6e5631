"""One call on the side that serves it: how its handler runs, and how it ends.

Each handler has one scope, shielded from birth and entered before it starts: nothing ends it but
its connection asking (:meth:`Handler.ask`), and what is asked is given ``cleanup`` seconds. How a
generator is asked depends on where it stands; ``docs/architecture.md`` has the points.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import trio

from trio_streamrpc.errors import CleanupTimeout, Code
from trio_streamrpc.protocol.frames import Call as CallFrame
from trio_streamrpc.protocol.frames import ErrorInfo, is_absent
from trio_streamrpc.runtime.calls import CURRENT_CALL, Call
from trio_streamrpc.runtime.closing import close_iterator, has_ended
from trio_streamrpc.runtime.failures import LOGGER, describe, describe_listed, is_confined
from trio_streamrpc.runtime.local import LocalStream

if TYPE_CHECKING:
    from trio_streamrpc.contract.arguments import MethodCodec
    from trio_streamrpc.contract.methods import Method
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["Handler", "StreamHandler", "UnaryHandler"]

#: A producer that never awaits is made to, after so many items or so many seconds, whichever comes
#: first: a call beside it is answered meanwhile. Where several do, they share the seconds.
SLICE_ITEMS = 64
SLICE_SECONDS = 0.0005

_NOTHING: Any = object()


class Handler(ABC):
    """A call that runs here, from its task's start to its final frame."""

    def __init__(
        self, connection: Connection, method: Method, codec: MethodCodec, frame: CallFrame
    ) -> None:
        self.connection = connection
        self.endpoint = connection.endpoint
        self.method = method
        self.codec = codec
        self.id = frame.id
        cleanup = method.options.cleanup
        self.cleanup = connection.limits.cleanup if cleanup is None else cleanup
        # R23: the time that was left when the call was sent counts from its arrival.
        self.deadline = math.inf
        if frame.timeout is not None:
            self.deadline = trio.current_time() + frame.timeout
        self._frame: CallFrame | None = frame
        self.scope = trio.CancelScope(shield=True)
        self.asked = False
        #: Whether it was asked since this side goes away, rather than by its caller (R6).
        self.asked_to_go = False
        self._stopped: trio.Event | None = None
        self._overran = False
        self._error: BaseException | None = None
        #: Whether that arose while the handler was being closed (R22).
        self._in_cleanup = False

    # --- running

    async def run(self) -> None:
        """Run the handler, and say the final frame."""
        try:
            with self.scope:
                await trio.lowlevel.checkpoint_if_cancelled()
                await self._serve()
        except BaseException as error:
            if not is_confined(error):
                raise
            self._failed(error)
        if self._stopped is not None:
            self._stopped.set()
        if self.connection.alive and not self._overran:
            self._tell()
        elif self._error is not None:
            # Nobody hears of it any more, so at least the log has it.
            self._describe(self._error)
        if self._overran:
            self.endpoint.stopped(self.id)
            LOGGER.warning("%s has stopped after all", self.method.name)
        # Its traceback refers to this frame, which refers to it.
        self._error = None

    def _tell(self) -> None:
        try:
            self._conclude()
        except Exception:
            # Whatever is wrong with telling how it ended, it ends this call and no other.
            LOGGER.exception("how %s has ended could not be told", self.method.name)
            message = f"how {self.method.name} has ended could not be told"
            self.endpoint.answer_error(self.id, ErrorInfo(Code.INTERNAL.value, "", message))

    def _failed(self, error: BaseException) -> None:
        if error is not self._error:
            self._error, self._in_cleanup = error, self.asked

    def _call(self) -> Any:
        """What the method's function gives: a value, an awaitable, or an iterator.

        When this has returned, nothing of the runtime refers to the arguments: what they take in
        memory is the handler's to keep or not.
        """
        frame, self._frame = self._frame, None
        assert frame is not None
        metadata = self.connection.metadata_of(frame)
        CURRENT_CALL.set(Call(self.connection, self.method.name, metadata, self.deadline))
        args, kwargs = self.codec.decode_arguments(
            None if is_absent(frame.args) else frame.args,
            None if is_absent(frame.kwargs) else frame.kwargs,
        )
        function = self.method.function
        assert function is not None
        return function(*args, **kwargs)

    @abstractmethod
    async def _serve(self) -> None:
        """Do the work, inside of the scope."""

    @abstractmethod
    def _conclude(self) -> None:
        """Say the final frame."""

    def _answer_error(self, error: BaseException) -> None:
        self.endpoint.answer_error(self.id, self._describe(error), cleanup=self._in_cleanup)

    def _describe(self, error: BaseException) -> ErrorInfo:
        listed = self.codec.encode_error(error)
        if listed is not None:
            return describe_listed(error, *listed)
        return describe(
            error,
            method=self.method.name,
            mask=self.connection.callee.mask,
            encode=self.connection.payloads.encoder(),
        )

    def _answer_code(self, code: Code, message: str, name: str = "") -> None:
        self.endpoint.answer_error(
            self.id, ErrorInfo(code.value, name, message), cleanup=name != ""
        )

    # --- being asked to stop

    def ask(self) -> None:
        """Ask the handler to stop, once; it has ``cleanup`` seconds and one more (R7a)."""
        if self.asked:
            return
        self.asked = True
        self.asked_to_go = self.connection.callee.closing
        self._stopped = trio.Event()
        self._stop()
        self.connection.nursery.start_soon(self._watch, self._stopped)

    def _stop(self) -> None:
        self.scope.cancel()

    def on_credit(self) -> None:  # noqa: B027  # most handlers have no stream, and nothing to do
        """Its stream may have become sendable again."""

    async def _watch(self, stopped: trio.Event) -> None:
        with trio.move_on_after(self.cleanup + 1.0):
            await stopped.wait()
            return
        if stopped.is_set() or not self.connection.alive:
            return
        self._overran = True
        LOGGER.warning(
            "%s has not stopped %s s after it was asked to; it keeps its place",
            self.method.name,
            self.cleanup + 1.0,
        )
        message = f"{self.method.name} has not stopped within {self.cleanup} s"
        self.endpoint.answer_error(
            self.id,
            ErrorInfo(CleanupTimeout.code.value, CleanupTimeout.__name__, message),
            cleanup=True,
            overrun=True,
        )
        self.connection.wake_writer()


class UnaryHandler(Handler):
    """A call with one answer."""

    _value: bytes | None = None
    _late = False

    async def _serve(self) -> None:
        if self.deadline == math.inf:
            value = await self._invoke()
        else:
            if self.deadline <= trio.current_time():
                self._late = True
                return
            with trio.CancelScope(deadline=self.deadline) as limit:
                value = await self._invoke()
            if limit.cancelled_caught:
                self._late = True
                return
        self._value = self.codec.encode_result(value)

    async def _invoke(self) -> Any:
        value = self._call()
        return await value if inspect.isawaitable(value) else value

    def _conclude(self) -> None:
        if self._error is None and self._value is not None:
            try:
                self.endpoint.answer(self.id, self._value)
            except Exception as error:
                self._failed(error)
            else:
                return
        if self._error is not None:
            self._answer_error(self._error)
        elif self._late:
            self._answer_code(Code.DEADLINE_EXCEEDED, "the deadline has passed")
        elif self.asked_to_go:
            self._answer_code(Code.UNAVAILABLE, "this side is going away")
        else:
            self._answer_code(Code.CANCELLED, "the call was cancelled")


class StreamHandler(Handler):
    """A call answered by a stream: the pump from a generator to credit.

    No task, event or scope is made for an item; the generator is asked for its next item only
    while there is credit for it, so the look-ahead is the window, exactly (R14).
    """

    #: Whether the generator stands at a ``yield``, so that the pump's task is the runtime's.
    _standing = False
    _parked: trio.lowlevel.Task | None = None
    #: Whether the iterator ended by itself.
    _exhausted = False
    #: Whether it is being closed, within its budget.
    _closing = False

    async def _serve(self) -> None:
        iterator = self._call()
        if inspect.isawaitable(iterator):
            iterator = await iterator
        if isinstance(iterator, LocalStream):
            # Another stream method, called in place: it may hold scopes open like any generator.
            iterator = iterator.iterator
        iterator = aiter(iterator)
        try:
            await self._pump(iterator)
        except Exception as error:
            # This is what is told, even if closing is cut short.
            self._failed(error)
            raise
        finally:
            await self._close(iterator)

    async def _pump(self, iterator: AsyncIterator[Any]) -> None:
        endpoint, id, encode = self.endpoint, self.id, self.codec.encode_result
        waiting: Any = _NOTHING
        count, pause_at = 0, self._slice_end()
        while True:
            self._standing = True
            try:
                if not self.asked and not endpoint.may_send(id):
                    await self._wait_for_credit(shield=waiting is not _NOTHING)
                    count, pause_at = 0, self._slice_end()
                elif count >= SLICE_ITEMS or trio.current_time() >= pause_at:
                    await self._pause(shield=waiting is not _NOTHING)
                    count, pause_at = 0, self._slice_end()
            except BaseException as error:
                # The pump's own scope is not cancelled while the generator stands, so this comes
                # from a scope or nursery that the generator holds open across its yield.
                self._standing = False
                waiting = await self._throw(iterator, error)
                if self._exhausted:
                    return
                continue
            self._standing = False
            if self.asked:
                return
            if waiting is _NOTHING:
                try:
                    item = await anext(iterator)
                except StopAsyncIteration:
                    self._exhausted = True
                    return
                if self.asked:
                    return
            else:
                item, waiting = waiting, _NOTHING
            endpoint.send(id, encode(item))
            count += 1
            self.connection.wake_writer()

    def _slice_end(self) -> float:
        """When this pump has to let others run: what all pumps of a connection take is bounded."""
        return trio.current_time() + SLICE_SECONDS / (1 + self.connection.callee.pausing)

    async def _pause(self, *, shield: bool) -> None:
        """Let the other tasks run; ``shield`` as for credit."""
        callee = self.connection.callee
        callee.pausing += 1
        try:
            if shield:
                await trio.lowlevel.cancel_shielded_checkpoint()
            else:
                await trio.lowlevel.checkpoint()
        finally:
            callee.pausing -= 1

    async def _wait_for_credit(self, *, shield: bool) -> None:
        if shield:
            # The generator was told of its cancellation already, and yielded all the same: its
            # item waits for credit like any other. This scope ends before the next step.
            with trio.CancelScope(shield=True):
                await self._park()
        else:
            await self._park()

    async def _park(self) -> None:
        def abort(raise_cancel: Any) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._parked = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _unpark(self) -> None:
        if self._parked is not None:
            trio.lowlevel.reschedule(self._parked)
            self._parked = None

    def on_credit(self) -> None:
        if self._parked is not None and self.endpoint.may_send(self.id):
            self._unpark()

    def _stop(self) -> None:
        if self._standing:
            self._unpark()
        elif not self._closing:
            self.scope.cancel()

    async def _throw(self, iterator: AsyncIterator[Any], error: BaseException) -> Any:
        """Raise at the ``yield`` what was delivered while the runtime waited on its behalf."""
        throw = getattr(iterator, "athrow", None)
        if throw is None:
            raise error
        try:
            return await throw(error)
        except StopAsyncIteration:
            self._exhausted = True
            return _NOTHING

    async def _close(self, iterator: AsyncIterator[Any]) -> None:
        """Close what stands at a ``yield``, within its budget (R7, R8)."""
        if has_ended(iterator):
            return
        if not self.scope.cancel_called:
            self._closing = True
            self.scope.deadline = trio.current_time() + self.cleanup
        await close_iterator(iterator, self.method.name)

    def _conclude(self) -> None:
        if self._error is not None:
            self._answer_error(self._error)
        elif self._closing and self.scope.cancelled_caught:
            self._answer_code(
                CleanupTimeout.code,
                f"the cleanup of {self.method.name} was cut short after {self.cleanup} s",
                CleanupTimeout.__name__,
            )
        elif self.asked_to_go and not self._exhausted:
            # R6: a cut stream never looks complete.
            self._answer_code(Code.UNAVAILABLE, "this side is going away")
        else:
            self.endpoint.end(self.id)
