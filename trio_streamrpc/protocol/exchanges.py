"""The record of an open id, and the places that calls take."""

from __future__ import annotations

from msgspec import Struct

from trio_streamrpc.protocol.credit import ReceiveWindow, SendCredit
from trio_streamrpc.protocol.states import State

__all__ = ["Exchange", "Places"]


class Places:
    """How many calls of the other side may run here at once, and how many do (R26)."""

    __slots__ = ("limit", "overrunning", "running")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: Calls that take a place, and how many of them have outlived their final frame (R7a).
        self.running = 0
        self.overrunning = 0


class Exchange(Struct, eq=False):
    """What this side knows of one open id."""

    id: int
    state: State
    #: The call at the start of the chain that this one belongs to; None if that is itself.
    chain: Exchange | None = None
    #: R12: what this side sends on this id goes before what has a lower one.
    priority: int = 0
    #: For what this side produces, and for what it consumes.
    credit: SendCredit | None = None
    window: ReceiveWindow | None = None
    #: Where it takes a place, and whether it keeps it beyond its final frame (R7a).
    places: Places | None = None
    overrun: bool = False
    #: The uploads that go with the call (R10).
    uploads: tuple[Exchange, ...] = ()
    #: The ids of what this side has exported with it: its callbacks, or a context's object.
    objects: tuple[int, ...] = ()
    #: The places of calls to objects at whose root this call stands.
    object_places: Places | None = None

    @property
    def root(self) -> Exchange:
        """The call to the service at the start of the chain that this call belongs to (R26)."""
        # Not kept as an attribute where it is the call itself: that would be a cycle.
        return self if self.chain is None else self.chain
