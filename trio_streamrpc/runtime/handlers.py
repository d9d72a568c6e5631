"""One call on the side that serves it: how its handler runs, and how it ends.

Each handler runs in one scope, shielded and entered before it starts: nothing ends it but its
connection asking (:meth:`Handler.ask`), and what is asked is given ``cleanup`` seconds. How a
generator is asked depends on where it stands; ``docs/architecture.md`` has the points.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from contextvars import Token
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import trio
from msgspec import structs

from trio_streamrpc.errors import CleanupTimeout, Code, RemoteError
from trio_streamrpc.nurseries import leaves
from trio_streamrpc.protocol.frames import Call as CallFrame
from trio_streamrpc.protocol.frames import Cancel, ErrorInfo, is_absent
from trio_streamrpc.runtime.calls import CURRENT_CALL, EMPTY, SERVING, Call, Serving
from trio_streamrpc.runtime.failures import (
    LOGGER,
    describe,
    describe_listed,
    is_answer,
    is_confined,
    text_of,
)
from trio_streamrpc.runtime.interceptors import Interceptor, Onion, check_fits, intercept
from trio_streamrpc.runtime.objects import Export, Root
from trio_streamrpc.runtime.references import References

if TYPE_CHECKING:
    from trio_streamrpc.contract.arguments import MethodCodec
    from trio_streamrpc.contract.method import Method
    from trio_streamrpc.protocol.binary import Encoded
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["CallbackHandler", "Handler", "UnaryHandler"]


class Handler(ABC):
    """A call that runs here, from its task's start to its final frame."""

    asked = False
    #: Whether it was asked since this side goes away, rather than by its caller (R6).
    asked_to_go = False
    _cancel: Cancel | None = None
    _serving: Serving | None = None
    #: What this task was doing before it served the call.
    _was_current: Token[Call]
    _was_serving: Token[Serving | None]
    _stopped: trio.Event | None = None
    _given_up: ErrorInfo | None = None
    _overran = False
    _error: BaseException | None = None
    #: Whether that arose while the handler was being closed (R22).
    _in_cleanup = False

    def __init__(
        self,
        connection: Connection,
        method: Method,
        codec: MethodCodec,
        frame: CallFrame,
        export: Export | None = None,
    ) -> None:
        self.connection = connection
        self.endpoint = connection.endpoint
        self.method = method
        #: What messages, interceptors and ``current_call()`` call the method.
        self.name = method.name if export is None else export.name_of(method)
        self.codec = codec
        self.id = frame.id
        #: The record of the call, which is needed when it is over.
        self.exchange = self.endpoint.exchanges[frame.id]
        #: The object that is called, if it is not the service.
        self.export = export
        self.references = References(self, frame.refs) if frame.refs else None
        cleanup = method.options.cleanup
        self.cleanup = connection.limits.cleanup if cleanup is None else cleanup
        # R23: the time that was left when the call was sent counts from its arrival.
        self.deadline = math.inf
        if frame.timeout is not None:
            self.deadline = trio.current_time() + frame.timeout
        self._frame: CallFrame | None = frame

    @cached_property
    def scope(self) -> trio.CancelScope:
        """What it runs in, and is cancelled by: its own, unless it runs in a worker's."""
        return trio.CancelScope(shield=self._is_shielded())

    @cached_property
    def root(self) -> Root:
        """The call to a service that its callbacks and objects hang from (R26)."""
        return Root(self.exchange) if self.export is None else self.export.root

    @property
    def task_name(self) -> str:
        """What a task is called that runs it."""
        return f"handler of {self.name}"

    # --- running

    async def run(self) -> None:
        """Run the handler in a task of its own, and say the final frame."""
        try:
            with self.scope:
                await trio.lowlevel.checkpoint_if_cancelled()
                await self.serve()
        except BaseException as error:
            if not is_confined(error):
                raise
            self.failed(error)
        self.finish()

    def drop(self) -> None:
        """It will not be started."""
        if self.references is not None:
            self.references.end()

    def _is_shielded(self) -> bool:
        """Whether nothing ends it but its connection asking."""
        return True

    def finish(self) -> None:
        """It has stopped: say the final frame."""
        if self.references is not None:
            self.references.end()
        if self._serving is not None:
            self._serving.ended = True
        if self._stopped is not None:
            self._stopped.set()
        if self.connection.alive and not self._overran:
            self._tell()
        elif self._error is not None:
            # Nobody hears of it any more, so at least the log has it.
            self._log(self._error)
        if self._overran:
            self.endpoint.stopped(self.exchange)
            LOGGER.warning("%s has stopped after all", self.name)
        # Its traceback refers to this frame, which refers to it.
        self._error = None

    def _log(self, error: BaseException) -> None:
        try:
            self._describe(error)
        except Exception:
            LOGGER.exception("how %s has ended could not be told", self.name)

    def _tell(self) -> None:
        try:
            self._conclude()
        except Exception:
            # Whatever is wrong with telling how it ended, it ends this call and no other.
            LOGGER.exception("how %s has ended could not be told", self.name)
            message = f"how {self.name} has ended could not be told"
            self.endpoint.answer_error(self.id, ErrorInfo(Code.INTERNAL.value, "", message))

    def failed(self, error: BaseException) -> None:
        """What it has raised is what it is answered with."""
        if error is not self._error:
            self._error, self._in_cleanup = error, self.asked

    async def _invoke(self, **more: Any) -> Any:
        """What the method gives: a value, an iterator, or a context manager.

        ``more`` are arguments that do not come from the caller. Once the function has been called,
        nothing of the runtime refers to the others: what they take in memory is the handler's to
        keep or not, where no interceptor does.
        """
        call, args, kwargs = self._enter()
        if self.connection.callee.interceptors and not self.is_callback:
            return await self._intercepted(call, args, kwargs, more)
        if more:
            kwargs.update(more)
        value = self.method.function(*args, **kwargs)  # type: ignore[misc]  # it is served
        del args, kwargs
        return await value if inspect.isawaitable(value) else value

    def _enter(self) -> tuple[Call, list[Any], dict[str, Any]]:
        """Make this task one that serves the call; gives the call and its arguments."""
        frame, self._frame = self._frame, None
        assert frame is not None
        metadata = self.connection.metadata_of(frame)
        call = Call(self.connection, self.name, metadata, self.deadline)
        if not self.is_callback:
            self._was_current = CURRENT_CALL.set(call)
        root = self.exchange if self.export is None else None
        self._serving = Serving(self.connection, root, SERVING.get())
        self._was_serving = SERVING.set(self._serving)
        args, kwargs = self.codec.decode_arguments(
            None if is_absent(frame.args) else frame.args,
            None if is_absent(frame.kwargs) else frame.kwargs,
            {} if self.references is None else self.references.placeholders(),
        )
        return call, args, kwargs

    async def _intercepted(
        self, call: Call, args: list[Any], kwargs: dict[str, Any], more: dict[str, Any]
    ) -> Any:
        function = self.method.function
        assert function is not None

        async def innermost(call: Call) -> Any:
            # What current_call() tells is what the interceptors have made of it.
            CURRENT_CALL.set(structs.replace(call, args=(), kwargs=EMPTY, parameters=()))
            value = function(*call.args, **call.kwargs, **more)
            return await value if inspect.isawaitable(value) else value

        call = structs.replace(
            call,
            args=tuple(args),
            kwargs=MappingProxyType(kwargs),
            parameters=self.codec.names,
        )
        onion = Onion(self.connection.callee.interceptors, innermost, self._adopt)
        return await intercept(onion, call)

    async def _adopt(self, given: Any, by: Interceptor | None) -> Any:
        """Take in what the method or an interceptor has given."""
        check_fits(self.method.kind, given, by, self.name)
        return given

    @property
    def is_callback(self) -> bool:
        """Whether it runs in the task tree of the caller that has passed it."""
        return self.export is not None and self.export.is_callback

    @abstractmethod
    async def serve(self) -> None:
        """Do the work, inside of the scope; raises what the handler raises."""

    @abstractmethod
    def _conclude(self) -> None:
        """Say the final frame."""

    def _answer_error(self, error: BaseException) -> None:
        self.endpoint.answer_error(self.id, self._describe(error), cleanup=self._in_cleanup)

    def _describe(self, error: BaseException) -> ErrorInfo:
        listed = self.codec.encode_error(error)
        told = listed is not None or is_answer(error) or isinstance(error, RemoteError)
        if self.method.options.oneway and told:
            # R11: nobody waits to hear of it.
            LOGGER.warning(
                "%s, which is oneway, ended with %s: %s",
                self.name,
                type(error).__name__,
                text_of(error),
            )
        if listed is not None:
            return describe_listed(error, *listed)
        return describe(
            error,
            method=self.name,
            mask=self.connection.callee.mask,
            encode=self.connection.payloads.encoder(),
        )

    def _answer_code(self, code: Code, message: str, name: str = "") -> None:
        self.endpoint.answer_error(
            self.id, ErrorInfo(code.value, name, message), cleanup=name != ""
        )

    def _answer_stopped(self) -> None:
        """What was stopped before it had anything to say (R6)."""
        if self._given_up is not None:
            self.endpoint.answer_error(self.id, self._given_up)
        elif self.asked_to_go:
            self._answer_code(Code.UNAVAILABLE, "this side is going away")
        elif self._cancel is None:
            self._answer_code(Code.CANCELLED, "what the call belonged to has ended")
        else:
            self._answer_code(Code.CANCELLED, "the call was cancelled")

    def _answer_cleanup_timeout(self) -> None:
        self._answer_code(
            CleanupTimeout.code,
            f"the cleanup of {self.name} was cut short after {self.cleanup} s",
            CleanupTimeout.__name__,
        )

    # --- being asked to stop

    def ask(self, cancel: Cancel | None = None) -> None:
        """Ask the handler to stop, once; it has ``cleanup`` seconds and one more (R7a).

        ``cancel`` is what its caller said; None if its connection ends.
        """
        if self.asked:
            return
        self.asked = True
        self._cancel = cancel
        self.asked_to_go = self.connection.callee.closing
        self._stopped = trio.Event()
        self._stop()
        self.connection.nursery.start_soon(self._watch, self._stopped)

    def _stop(self) -> None:
        self.scope.cancel()

    @property
    def waits_since(self) -> float:
        """Since when it waits for its caller to take something; infinity while it does not."""
        return math.inf

    def give_up(self, info: ErrorInfo) -> None:
        """Its caller does not go on: it is asked to stop, and this is what it ends with."""
        self._given_up = info
        self.ask()

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
            self.name,
            self.cleanup + 1.0,
        )
        message = f"{self.name} has not stopped within {self.cleanup} s"
        self.endpoint.answer_error(
            self.id,
            ErrorInfo(CleanupTimeout.code.value, CleanupTimeout.__name__, message),
            cleanup=True,
            overrun=True,
        )
        self.connection.wake_writer()


class UnaryHandler(Handler):
    """A call with one answer: it may have its task to itself, or share it with others."""

    _value: Encoded | None = None
    _late = False

    async def serve(self) -> None:
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

    def leave(self) -> None:
        """The task that has served this call goes on, and serves it no more."""
        if self._serving is not None:
            CURRENT_CALL.reset(self._was_current)
            SERVING.reset(self._was_serving)

    def _conclude(self) -> None:
        if self._error is None and self._value is not None:
            try:
                self.endpoint.answer(self.id, self._value)
            except Exception as error:
                self.failed(error)
            else:
                return
        if self._error is not None:
            self._answer_error(self._error)
        elif self._late:
            self._answer_code(Code.DEADLINE_EXCEEDED, "the deadline has passed")
        else:
            self._answer_stopped()


class CallbackHandler(UnaryHandler):
    """A call of a callback: it runs in the task tree of whoever has passed it.

    It is cancelled with its caller, as anything else there, and not only when its connection asks.
    What it raises is for the handler that has called it; what ends more than one call, and what has
    cancelled the caller, goes up the task tree.
    """

    async def run(self) -> None:
        try:
            with self.scope:
                await trio.lowlevel.checkpoint_if_cancelled()
                await self.serve()
        except BaseException as error:
            passed = self._divide(error)
            if passed is not None:
                self.finish()
                try:
                    raise passed
                finally:
                    del passed
        self.finish()

    def _divide(self, error: BaseException) -> BaseException | None:
        """Take from what it raised its answer; gives what goes up the task tree, if any."""
        if not has_passing(error):
            self.failed(error)
            return None
        if not isinstance(error, BaseExceptionGroup):
            return error
        passed, told = error.split(is_passing)
        if told is not None:
            self.failed(told)
        return passed

    def _is_shielded(self) -> bool:
        return False


def has_passing(error: BaseException) -> bool:
    """Whether something of a callback's exception is not for who has called it."""
    return any(map(is_passing, leaves(error)))


def is_passing(error: BaseException) -> bool:
    return not isinstance(error, Exception | GeneratorExit | BaseExceptionGroup)
