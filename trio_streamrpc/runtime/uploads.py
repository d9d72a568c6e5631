"""An upload on the side that produces it: an argument's iterator, in its caller's own task tree."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import trio

from trio_streamrpc.errors import Code
from trio_streamrpc.protocol.frames import ErrorInfo
from trio_streamrpc.runtime.calls import SERVING, Serving
from trio_streamrpc.runtime.closing import close_iterator, has_ended
from trio_streamrpc.runtime.failures import has_cancelled, is_confined, tell
from trio_streamrpc.runtime.local import LocalStream
from trio_streamrpc.runtime.pumps import Pump

if TYPE_CHECKING:
    from trio_streamrpc.protocol.binary import Encoded
    from trio_streamrpc.protocol.exchanges import Exchange
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["Upload"]


class Upload:
    """Iterates over an argument, and sends its items as far as the other side has granted.

    ``failed`` is called with what the iterator raised: it is for the caller, as itself. ``root``
    is the record of its call, if that is one to the service.
    """

    def __init__(
        self,
        connection: Connection,
        id: int,
        source: AsyncIterable[Any],
        encode: Callable[[Any], Encoded],
        name: str,
        failed: Callable[[BaseException], None],
        root: Exchange | None,
    ) -> None:
        self.id = id
        self._root = root
        self._connection = connection
        self._source = source
        self._name = name
        self._failed = failed
        self._pump = Pump(connection, id, encode)
        self._scope = trio.CancelScope()
        self._closing = False
        #: Whether this side has stopped it, and not the one that it goes to.
        self._cut = False

    async def run(self) -> None:
        """Send the items, and the final frame."""
        # Its call waits for it: what it calls in turn must not wait for its call (R26).
        serving = Serving(self._connection, self._root, SERVING.get())
        SERVING.set(serving)
        try:
            await self._produce()
        except BaseException as error:
            # What the caller's own scopes have cancelled goes on its way.
            if not is_confined(error) or has_cancelled(error):
                self._fail(ErrorInfo(Code.CANCELLED.value, "", "the upload was cancelled"))
                raise
            self._fail(tell(error))
            self._failed(error)
        else:
            if self._cut and not self._pump.exhausted:
                # R6: a cut stream never looks complete.
                self._fail(ErrorInfo(Code.CANCELLED.value, "", "the upload was cancelled"))
            elif self._is_open:
                self._connection.endpoint.end(self.id)
        finally:
            serving.ended = True
            self._connection.caller.upload_ended(self.id)
            self._connection.wake_writer()

    def _fail(self, info: ErrorInfo) -> None:
        if self._is_open:
            self._connection.endpoint.answer_error(self.id, info)

    @property
    def _is_open(self) -> bool:
        """Whether there is something to end: its call may have been taken back, unwritten (R12)."""
        return self._connection.alive and self.id in self._connection.endpoint.exchanges

    async def _produce(self) -> None:
        source = self._source
        if isinstance(source, LocalStream):
            # What it iterates over may hold scopes open, and is pumped like any generator.
            source = source.iterator
        iterator = aiter(source)
        if hasattr(iterator, "athrow"):
            # It may hold scopes open across its yield, and they must nest in this one.
            with self._scope:
                try:
                    await self._pump.run(iterator)
                finally:
                    await self._close(iterator)
            return
        try:
            with self._scope:
                await self._pump.run(iterator)
        finally:
            # What is passed on is left in order, though nothing more was waited for: a stream's
            # producer has finished when its aclose returns (R7).
            await self._close(iterator)

    async def _close(self, iterator: AsyncIterator[Any]) -> None:
        self._closing = True
        if not has_ended(iterator):
            await close_iterator(iterator, self._name)

    def ask(self, *, cut: bool = False) -> None:
        """Ask for nothing more: the other side wants no more (R10), or its call is ``cut`` here."""
        if self._pump.asked:
            return
        self._cut = cut
        if not self._pump.ask() and not self._closing:
            self._scope.cancel()

    def on_credit(self) -> None:
        self._pump.on_credit()
