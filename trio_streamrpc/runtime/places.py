"""The places that calls take at the other side, and the waiting for them (R19, R26).

All that a call needs is waited for before it gets its id, since ids only ever go up.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TYPE_CHECKING

import trio

from trio_streamrpc.errors import ResourceExhausted, RpcError
from trio_streamrpc.runtime.calls import may_wait

if TYPE_CHECKING:
    from trio_streamrpc.protocol.exchanges import Exchange
    from trio_streamrpc.protocol.parts import Claim
    from trio_streamrpc.runtime.connection import Connection
    from trio_streamrpc.runtime.objects import Root, Target
    from trio_streamrpc.runtime.remote import Request

__all__ = ["Places", "Ticket"]


class Ticket:
    """What one call has taken: its final frame frees the place, each upload its own."""

    __slots__ = ("claim", "place", "root", "timeout", "uploads")

    def __init__(self, place: trio.Semaphore) -> None:
        self.place = place
        self.uploads = 0
        self.claim: Claim | None = None
        #: What its callbacks and its object hang from (R26).
        self.root: Root | None = None
        #: The seconds that are left for the call; None if it has no deadline.
        self.timeout: float | None = None


class Places:
    """What the other side of a connection has room for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._endpoint = connection.endpoint
        #: Around everybody who waits, to be cancelled when the connection is lost.
        self._waiting: set[trio.CancelScope] = set()
        #: Calls that wait for room for their arguments (R21).
        self.claims: dict[Claim, trio.Event] = {}

    # Made when they are asked for, after both sides have said hello: most connections of a server
    # never call.

    @cached_property
    def calls(self) -> trio.Semaphore:
        """The places for calls to the service."""
        return trio.Semaphore(self._endpoint.peer.max_calls)

    @cached_property
    def uploads(self) -> trio.Semaphore:
        return trio.Semaphore(self._endpoint.peer.max_uploads)

    @cached_property
    def _uploads_turn(self) -> trio.Lock:
        # A call takes the places for all its uploads at once: one that has some of them, and waits
        # for more, keeps others from theirs for no longer than those take that have them.
        return trio.Lock()

    def lose(self) -> None:
        """The connection is gone: nobody waits any longer."""
        for scope in self._waiting:
            scope.cancel()

    async def take(self, request: Request) -> Ticket:
        """Wait until that call may be made.

        Raises :exc:`ResourceExhausted` where waiting might never end, or could not, and what has
        ended the connection.
        """
        deadline = trio.current_effective_deadline()
        if deadline != math.inf and deadline <= trio.current_time():
            # Cancelled; or (R23) a deadline is used up, which is never sent: its scope speaks here.
            await trio.lowlevel.checkpoint()
        target, attached = request.target, request.attached
        self._connection.check_open(retry=target is None)
        place = self.calls if target is None else self._object_places(target)
        try:
            place.acquire_nowait()
        except trio.WouldBlock:
            self._check_waiting(None if target is None else target.root.exchange, "calls")
            await self._wait(place, retry=target is None)
        ticket = Ticket(place)
        try:
            if attached is not None and attached.uploads:
                await self._take_uploads(attached.uploads, retry=target is None)
                ticket.uploads = attached.uploads
            if request.is_long(self._endpoint.outbox.whole_bytes):
                await self._take_room(request, ticket)
        except BaseException:
            self.give_back(ticket)
            raise
        if deadline != math.inf:
            ticket.timeout = max(0.0, deadline - trio.current_time())
        return ticket

    def give_back(self, ticket: Ticket) -> None:
        """Nothing came of the call."""
        ticket.place.release()
        for _ in range(ticket.uploads):
            self.uploads.release()
        if ticket.claim is not None:
            self._endpoint.give_up(ticket.claim)
            self.on_granted()

    def _object_places(self, target: Target) -> trio.Semaphore:
        limit = self._endpoint.peer.max_object_calls
        if target.depth >= limit:
            # Each of the contexts that it is nested in holds one, and is held open for this call.
            raise ResourceExhausted(
                f"{target.name} is nested {target.depth} deep in others of its root; the other "
                f"side takes {limit} calls to objects at once"
            )
        return target.root.places(limit)

    async def _take_room(self, request: Request, ticket: Ticket) -> None:
        """R21: a place among the values that are under way in parts, if the call is one of them."""
        attached = request.attached
        size = self._endpoint.parts_of(
            request.name,
            request.args,
            request.kwargs,
            refs=() if attached is None else attached.refs,
            other_bytes=len(request.metadata or b""),
        )
        if not size:
            return
        ticket.claim = claim = self._endpoint.claim(size)
        if not claim.granted:
            # It is the writer that makes room, and it waits for no application.
            event = self.claims[claim] = trio.Event()
            try:
                await self._until_lost(event.wait)
            finally:
                del self.claims[claim]
            self._connection.check_open(retry=request.target is None)

    def on_granted(self) -> None:
        """There is room for calls that have waited for it."""
        for claim in self._endpoint.granted():
            if claim in self.claims:
                self.claims[claim].set()

    async def _take_uploads(self, count: int, *, retry: bool) -> None:
        limit = self._endpoint.peer.max_uploads
        if count > limit:
            raise ResourceExhausted(
                f"{count} uploads with one call; the other side takes at most {limit} at once"
            )
        taken = 0
        try:
            if self._uploads_turn.locked() or self.uploads.value < count:
                self._check_waiting(None, "uploads")
            async with self._uploads_turn:
                while taken < count:
                    await self._wait(self.uploads, retry=retry)
                    taken += 1
        except BaseException:
            for _ in range(taken):
                self.uploads.release()
            raise

    async def _wait(self, places: trio.Semaphore, *, retry: bool) -> None:
        self._connection.check_open(retry=retry)
        acquired = await self._until_lost(places.acquire)
        try:
            self._connection.check_open(retry=retry)
        except RpcError:
            if acquired:
                places.release()
            raise

    async def _until_lost(self, wait: Callable[[], Awaitable[None]]) -> bool:
        """Wait, but no longer than the connection lasts: whether it came to an end."""
        done = False
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                await wait()
                done = True
            finally:
                self._waiting.discard(scope)
        return done

    def _check_waiting(self, root: Exchange | None, what: str) -> None:
        """R26: to wait while the other side may wait for us could be for ever."""
        if not may_wait(self._connection, root):
            raise ResourceExhausted(
                f"the other side has as many {what} as it takes, and a handler of its calls "
                "does not wait for it"
            )
