"""The record of an open id, and the places that calls take."""

from __future__ import annotations

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


class Exchange:
    """What this side knows of one open id."""

    __slots__ = (
        "_root",
        "credit",
        "id",
        "object_places",
        "objects",
        "overrun",
        "places",
        "priority",
        "state",
        "uploads",
        "window",
    )

    def __init__(self, id: int, state: State, root: Exchange | None = None) -> None:
        self.id = id
        self.state = state
        self._root = root
        #: R12: what this side sends on this id goes before what has a lower one.
        self.priority = 0
        #: For what this side produces, and for what it consumes.
        self.credit: SendCredit | None = None
        self.window: ReceiveWindow | None = None
        #: Where it takes a place, and whether it keeps it beyond its final frame (R7a).
        self.places: Places | None = None
        self.overrun = False
        #: The uploads that go with the call (R10).
        self.uploads: tuple[Exchange, ...] = ()
        #: The ids of what this side has exported with it: its callbacks, or a context's object.
        self.objects: tuple[int, ...] = ()
        #: The places of calls to objects at whose root this call stands.
        self.object_places: Places | None = None

    @property
    def root(self) -> Exchange:
        """The call to the service at the start of the chain that this call belongs to (R26)."""
        # Not kept as an attribute where it is the call itself: that would be a cycle.
        return self if self._root is None else self._root
