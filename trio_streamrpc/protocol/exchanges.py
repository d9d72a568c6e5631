"""The record of an open id."""

from __future__ import annotations

from trio_streamrpc.protocol.credit import ReceiveWindow, SendCredit
from trio_streamrpc.protocol.states import State

__all__ = ["Exchange"]


class Exchange:
    """What this side knows of one open id."""

    __slots__ = ("credit", "id", "overrun", "place", "priority", "state", "uploads", "window")

    def __init__(self, id: int, state: State) -> None:
        self.id = id
        self.state = state
        #: R12: what this side sends on this id goes before what has a lower one.
        self.priority = 0
        #: For what this side produces, and for what it consumes.
        self.credit: SendCredit | None = None
        self.window: ReceiveWindow | None = None
        #: Whether it takes a place in ``max_calls``, and keeps it beyond its final frame (R7a).
        self.place = False
        self.overrun = False
        #: The ids of the uploads that came with the call (R10).
        self.uploads: tuple[int, ...] = ()
