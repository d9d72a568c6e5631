"""A call that is answered by a stream: a generator of this side's, pumped to credit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import trio

from trio_streamrpc.protocol.frames import Call as CallFrame
from trio_streamrpc.runtime.closing import close_iterator, has_ended
from trio_streamrpc.runtime.handlers import Handler
from trio_streamrpc.runtime.interceptors import Interceptor, Unwinding
from trio_streamrpc.runtime.local import LocalStream
from trio_streamrpc.runtime.objects import Export
from trio_streamrpc.runtime.pumps import Pump

if TYPE_CHECKING:
    from trio_streamrpc.contract.arguments import MethodCodec
    from trio_streamrpc.contract.method import Method
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["StreamHandler"]


class StreamHandler(Handler):
    """A call answered by a stream: a generator, pumped to credit."""

    def __init__(
        self,
        connection: Connection,
        method: Method,
        codec: MethodCodec,
        frame: CallFrame,
        export: Export | None = None,
    ) -> None:
        super().__init__(connection, method, codec, frame, export)
        self._pump = Pump(connection, self.id, codec.encode_result)
        #: The method's iterator, and what interceptors have put around it, outwards.
        self._iterators: list[AsyncIterator[Any]] = []
        #: What is pumped, where an interceptor has put something around the method's.
        self._outermost: AsyncIterator[Any] | None = None
        self._is_wrapped = False
        #: Whether the generator is being closed, within its budget.
        self._closing = False

    async def serve(self) -> None:
        try:
            iterator = self._take(await self._invoke())
            if self._is_wrapped:
                self._outermost = iterator
                iterator = Unwinding(iterator, self._iterators, self.scope)
            if self.endpoint.announces:
                self.endpoint.announce(self.id)
                self.connection.wake_writer()
            await self._pump.run(iterator)
        except Exception as error:
            # This is what is told, even if closing is cut short.
            self.failed(error)
            raise
        finally:
            await self._close()

    async def _adopt(self, given: Any, by: Interceptor | None) -> Any:
        before = len(self._iterators)
        iterator = self._take(await super()._adopt(given, by))
        if by is not None and len(self._iterators) > before:
            self._is_wrapped = True
        return iterator

    def _take(self, given: Any) -> AsyncIterator[Any]:
        """Its iterator, which is closed when the call ends, whoever has it by then."""
        if isinstance(given, LocalStream):
            # Another stream method, called in place: it may hold scopes open like any generator.
            given = given.iterator
        iterator: AsyncIterator[Any] = aiter(given)
        if all(each is not iterator for each in self._iterators):
            self._iterators.append(iterator)
        return iterator

    @property
    def waits_since(self) -> float:
        return self._pump.waits_since

    def on_credit(self) -> None:
        self._pump.on_credit()

    def _stop(self) -> None:
        if not self._pump.ask() and not self._closing:
            self.scope.cancel()

    async def _close(self) -> None:
        """Close what stands at a ``yield``, within its budget (R7, R8): the outermost first."""
        iterators, self._iterators = self._iterators, []
        iterators.sort(key=lambda each: each is self._outermost)
        left = [each for each in reversed(iterators) if not has_ended(each)]
        self._outermost = None
        if not left:
            return
        if not self.scope.cancel_called:
            self._closing = True
            self.scope.deadline = trio.current_time() + self.cleanup
        await self._close_all(left)

    async def _close_all(self, iterators: list[Any]) -> None:
        outermost, *inner = iterators
        try:
            await close_iterator(outermost, self.name)
        finally:
            if inner:
                await self._close_all(inner)

    def _conclude(self) -> None:
        if self._error is not None:
            self._answer_error(self._error)
        elif self._closing and self.scope.cancelled_caught:
            self._answer_cleanup_timeout()
        elif self.asked and self._cancel is None and not self._pump.exhausted:
            # R6: a cut stream never looks complete.
            self._answer_stopped()
        else:
            self.endpoint.end(self.id)
