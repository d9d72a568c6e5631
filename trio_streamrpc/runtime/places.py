"""The places that calls take at the other side, and the waiting for them (R19, R26).

All that a call needs is waited for before it gets its id, since ids only ever go up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from trio_streamrpc.errors import ResourceExhausted, RpcError
from trio_streamrpc.runtime.calls import may_wait

if TYPE_CHECKING:
    from trio_streamrpc.protocol.exchanges import Exchange
    from trio_streamrpc.runtime.connection import Connection
    from trio_streamrpc.runtime.objects import Target

__all__ = ["Places"]


class Places:
    """What the other side of a connection has room for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.calls = trio.Semaphore(0)
        self.uploads = trio.Semaphore(0)
        # A call takes the places for all its uploads at once: one that has some of them, and waits
        # for more, keeps others from theirs for no longer than those take that have them.
        self._uploads_turn = trio.Lock()
        #: Around everybody who waits, to be cancelled when the connection is lost.
        self._waiting: set[trio.CancelScope] = set()

    def greeted(self) -> None:
        """The other side has told what it has room for."""
        limits = self._connection.endpoint.peer
        self.calls = trio.Semaphore(limits.max_calls)
        self.uploads = trio.Semaphore(limits.max_uploads)

    def lose(self) -> None:
        """The connection is gone: nobody waits any longer."""
        for scope in self._waiting:
            scope.cancel()

    async def take(
        self, target: Target | None, uploads: int
    ) -> tuple[trio.Semaphore, float | None]:
        """Wait until a call with so many uploads may be made.

        Gives the place that its final frame frees, and the seconds that are left for the call,
        or None if it has no deadline. The places of its uploads are freed one by one.

        Raises :exc:`ResourceExhausted` where waiting might never end, or could not, and what has
        ended the connection.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        deadline = trio.current_effective_deadline()
        if deadline <= trio.current_time():
            # R23: a deadline that is used up is never sent; the scope that it is of speaks here.
            await trio.lowlevel.checkpoint()
        self._connection.check_open()
        limits = self._connection.endpoint.peer
        place = self.calls if target is None else target.root.places(limits.max_object_calls)
        if uploads > limits.max_uploads:
            raise ResourceExhausted(
                f"{uploads} uploads with one call; the other side takes at most "
                f"{limits.max_uploads} at once"
            )
        try:
            place.acquire_nowait()
        except trio.WouldBlock:
            self._check_waiting(None if target is None else target.root.exchange, "calls")
            await self._wait(place)
        if uploads:
            try:
                await self._take_uploads(uploads)
            except BaseException:
                place.release()
                raise
        return place, None if deadline == math.inf else max(0.0, deadline - trio.current_time())

    async def _take_uploads(self, count: int) -> None:
        taken = 0
        try:
            if self._uploads_turn.locked() or self.uploads.value < count:
                self._check_waiting(None, "uploads")
            async with self._uploads_turn:
                while taken < count:
                    await self._wait(self.uploads)
                    taken += 1
        except BaseException:
            for _ in range(taken):
                self.uploads.release()
            raise

    async def _wait(self, places: trio.Semaphore) -> None:
        self._connection.check_open()
        acquired = False
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                await places.acquire()
                acquired = True
            finally:
                self._waiting.discard(scope)
        try:
            self._connection.check_open()
        except RpcError:
            if acquired:
                places.release()
            raise

    def _check_waiting(self, root: Exchange | None, what: str) -> None:
        """R26: to wait while the other side may wait for us could be for ever."""
        if not may_wait(self._connection, root):
            raise ResourceExhausted(
                f"the other side has as many {what} as it takes, and a handler of its calls "
                "does not wait for it"
            )
