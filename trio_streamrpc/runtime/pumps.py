"""The pump: from an async iterator to credit, on whichever side a stream is produced.

A handler's generator is pumped on the side that serves, an upload's iterator on the side that
calls. No task, event or scope is made for an item; the iterator is asked for its next one only
while there is credit for it, so the look-ahead is the window, exactly (R14).
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import trio

from trio_streamrpc.runtime.parking import Parking

if TYPE_CHECKING:
    from trio_streamrpc.protocol.binary import Encoded
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["Pump"]

#: A producer that never awaits is made to, after so many items or so many seconds, whichever comes
#: first: a call beside it is answered meanwhile. Where several do, they share the seconds.
SLICE_ITEMS = 256
SLICE_SECONDS = 0.0005

_NOTHING: Any = object()


class Pump:
    """Takes items from an iterator and sends them, as far as credit goes.

    It opens no scope between two steps of the iterator: a generator may hold scopes and nurseries
    open across its ``yield``, and they must nest.
    """

    __slots__ = (
        "_connection",
        "_encode",
        "_endpoint",
        "_id",
        "_parking",
        "asked",
        "exhausted",
        "standing",
        "waits_since",
    )

    def __init__(self, connection: Connection, id: int, encode: Callable[[Any], Encoded]) -> None:
        self._connection = connection
        self._endpoint = connection.endpoint
        self._id = id
        self._encode = encode
        self._parking = Parking()
        #: Whether the iterator is to be asked for nothing more.
        self.asked = False
        #: Whether it stands at a ``yield``, so that the pump's task is the runtime's.
        self.standing = False
        #: Since when it waits for credit, on Trio's clock; infinity while it does not.
        self.waits_since = math.inf
        #: Whether it ended by itself.
        self.exhausted = False

    async def run(self, iterator: AsyncIterator[Any]) -> None:
        """Pump until the iterator is exhausted, or the pump is asked to stop.

        Raises what the iterator raises.
        """
        endpoint, id, encode = self._endpoint, self._id, self._encode
        waiting: Any = _NOTHING
        count, pause_at = 0, self._slice_end()
        while True:
            self.standing = True
            try:
                if not self.asked and not endpoint.may_send(id):
                    await self._wait_for_credit(shield=waiting is not _NOTHING)
                    count, pause_at = 0, self._slice_end()
                elif count >= SLICE_ITEMS or trio.current_time() >= pause_at:
                    await self._pause(shield=waiting is not _NOTHING)
                    count, pause_at = 0, self._slice_end()
            except BaseException as error:
                # A handler's own scope is not cancelled while its generator stands, so this comes
                # from a scope or nursery that the generator holds open across its yield; an
                # upload's may also come from its caller's.
                self.standing = False
                waiting = await self._throw(iterator, error)
                if self.exhausted:
                    return
                continue
            self.standing = False
            if self.asked:
                return
            if waiting is _NOTHING:
                try:
                    item = await anext(iterator)
                except StopAsyncIteration:
                    self.exhausted = True
                    return
                if self.asked:
                    return
            else:
                item, waiting = waiting, _NOTHING
            endpoint.send(id, encode(item))
            # It may be large, and the next one far off.
            del item
            count += 1
            self._connection.wake_writer()

    def ask(self) -> bool:
        """Ask for nothing more.

        True if the iterator stands at a ``yield``; if not, it runs, and only a cancellation can
        reach it.
        """
        self.asked = True
        self._parking.unpark()
        return self.standing

    def on_credit(self) -> None:
        """It may have become possible to send an item."""
        if self._parking.occupied and self._endpoint.may_send(self._id):
            self._parking.unpark()

    def _slice_end(self) -> float:
        """When this pump has to let others run: what all pumps of a connection take is bounded."""
        return trio.current_time() + SLICE_SECONDS / (1 + self._connection.pausing)

    async def _pause(self, *, shield: bool) -> None:
        """Let the other tasks run; ``shield`` as for credit."""
        self._connection.pausing += 1
        try:
            if shield:
                await trio.lowlevel.cancel_shielded_checkpoint()
            else:
                await trio.lowlevel.checkpoint()
        finally:
            self._connection.pausing -= 1

    async def _wait_for_credit(self, *, shield: bool) -> None:
        self.waits_since = trio.current_time()
        try:
            if shield:
                # The generator was told of its cancellation already, and yielded all the same: its
                # item waits for credit like any other. This scope ends before the next step.
                with trio.CancelScope(shield=True):
                    await self._parking.park()
            else:
                await self._parking.park()
        finally:
            self.waits_since = math.inf

    async def _throw(self, iterator: AsyncIterator[Any], error: BaseException) -> Any:
        """Raise at the ``yield`` what was delivered while the runtime waited on its behalf."""
        throw = getattr(iterator, "athrow", None)
        if throw is None:
            raise error
        try:
            return await throw(error)
        except StopAsyncIteration:
            self.exhausted = True
            return _NOTHING
