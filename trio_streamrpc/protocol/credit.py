"""Flow control as pure numbers: what a producer may send, what a consumer must take (section 3).

A stream is a bounded memory channel that happens to span a network (R13). The producer's half is a
:class:`SendCredit`, the consumer's a :class:`ReceiveWindow`; neither knows frames, ids or time,
and every grant and chunk is an event that moves their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from trio_streamrpc.limits import MAX_INTEGER, Window

__all__ = ["Growth", "ReceiveWindow", "RoundTrip", "SendCredit", "ViolationBudget"]


class SendCredit:
    """What the producer of a stream may still send."""

    __slots__ = ("bytes", "items")

    def __init__(self, items: int, bytes: int) -> None:
        self.items = items
        self.bytes = bytes

    @property
    def open(self) -> bool:
        """Whether one more item may be sent, whatever its length (R14)."""
        return self.items > 0 and self.bytes > 0

    def spend(self, size: int) -> None:
        """One item of that many bytes goes out; bytes may fall below 0 by that one item (R14)."""
        self.items -= 1
        self.bytes -= size

    def grant(self, items: int, bytes: int) -> bool:
        """The consumer gave more. False, and nothing changed, if that is no valid grant (R15)."""
        if items == bytes == 0:
            return False
        if self.items + items >= MAX_INTEGER or self.bytes + bytes >= MAX_INTEGER:
            return False
        self.items += items
        self.bytes += bytes
        return True


class Growth:
    """When a window is too small: for its link, or for how fast it is used up.

    For its link, and not because its producer or its consumer is slow. One grant at a time is
    watched. Its first item cannot come sooner than a round trip after it was sent, and comes no
    later if the producer had been standing still for want of it. If it comes that soon, to a
    consumer that had taken all there was, both ends wait for the link, and the window doubles
    (R15). A slow producer takes longer than the round trip to get that far; a slow consumer still
    has something to take.

    For how fast it is used up: a consumer that takes half a window in less than ``PACE`` seconds
    has both sides busy with grants and short chunks more than with items. That is over long before
    the window is as large as a long link may need it.
    """

    __slots__ = ("_boundary", "_last", "_since", "limit", "pace_limit")

    #: How many round trips are still one, and how many seconds are none: tasks take their turns.
    ROUND_TRIPS = 2.0
    SLACK = 0.001
    #: Half a window is to last so many seconds.
    PACE = 0.001
    #: How far it grows for that, in items.
    PACE_ITEMS = 4096

    def __init__(self, limit: Window) -> None:
        self.limit = limit
        self.pace_limit = Window(min(limit.items, self.PACE_ITEMS), limit.bytes)
        self._boundary: tuple[int, int] | None = None
        self._since = 0.0
        #: When the last grant went out.
        self._last: float | None = None

    def granted(self, items: int, bytes: int, now: float) -> bool:
        """A grant goes out, over these totals of all that was granted before it.

        Whether the window is to grow, since the grant before it is so short a time ago. (No time at
        all is the time of a clock that stands still, and says nothing.)
        """
        if self._boundary is None:
            self._boundary, self._since = (items, bytes), now
        last, self._last = self._last, now
        return last is not None and 0 < now - last < self.PACE

    def is_due(
        self, items: int, bytes: int, *, starved: bool, now: float, round_trip: float | None
    ) -> bool:
        """Whether the window is to grow, now that so much has come in all."""
        if self._boundary is None or (items <= self._boundary[0] and bytes <= self._boundary[1]):
            return False
        self._boundary = None
        if not starved or round_trip is None:
            return False
        return now - self._since <= self.ROUND_TRIPS * round_trip + self.SLACK


class RoundTrip:
    """How long the link takes, there and back, in seconds of any clock."""

    __slots__ = ("_since", "seconds")

    def __init__(self) -> None:
        #: None until it was measured.
        self.seconds: float | None = None
        self._since: float | None = None

    def begin(self, now: float) -> bool:
        """A ping is about to go out; False if one is under way already."""
        if self._since is not None:
            return False
        self._since = now
        return True

    def end(self, now: float) -> None:
        """A ping has come back."""
        if self._since is None:
            return
        taken = now - self._since
        self._since = None
        # The shortest is nearest to the truth: whatever else happens only adds to it. A link that
        # has become slower is believed by and by.
        if self.seconds is None or taken <= self.seconds:
            self.seconds = taken
        else:
            self.seconds += (taken - self.seconds) / 8


class ReceiveWindow:
    """What the consumer of a stream has granted, has buffered, and owes as the next grant.

    With a ``growth`` the window is where it starts; without one it stays as it is.
    """

    __slots__ = (
        "_due_bytes",
        "_due_items",
        "_granted_bytes",
        "_granted_items",
        "credit_bytes",
        "credit_items",
        "growth",
        "peak_bytes",
        "peak_items",
        "received_bytes",
        "received_items",
        "taken_bytes",
        "taken_items",
        "window",
    )

    def __init__(self, window: Window, growth: Growth | None = None) -> None:
        self.window = window
        self.growth = growth
        #: Granted and not yet used by the producer; the bytes may be below 0 by one item (R14).
        self.credit_items = window.items
        self.credit_bytes = window.bytes
        self.received_items = 0
        self.received_bytes = 0
        #: Taken by the application.
        self.taken_items = 0
        self.taken_bytes = 0
        #: How much of that was given back as credit, and with how much the next grant is due.
        self._granted_items = 0
        self._granted_bytes = 0
        self._set_due()
        self.peak_items = 0
        self.peak_bytes = 0

    @property
    def open(self) -> bool:
        """Whether the producer may send one more item, whatever its length (R14)."""
        return self.credit_items > 0 and self.credit_bytes > 0

    @property
    def buffered_items(self) -> int:
        """Here, and not yet taken by the application."""
        return self.received_items - self.taken_items

    @property
    def buffered_bytes(self) -> int:
        """The bytes of these."""
        return self.received_bytes - self.taken_bytes

    def receive(self, sizes: Sequence[int], size: int) -> str | None:
        """A chunk of items of these lengths arrived; ``size`` is what it claims to be in all.

        Gives None if it lies within the credit, which it then takes, or what is wrong with it; the
        chunk is to be dropped whole then, and nothing has changed (R16).
        """
        count = len(sizes)
        if count > self.credit_items:
            return f"{count} items where {self.credit_items} were granted"
        if sum(sizes) != size:
            return f"a chunk of {sum(sizes)} bytes that says {size}"
        if count and self.credit_bytes - (size - sizes[-1]) <= 0:
            return f"{size} bytes where {self.credit_bytes} were granted"
        self.credit_items -= count
        self.credit_bytes -= size
        self.received_items += count
        self.received_bytes += size
        self.peak_items = max(self.peak_items, self.buffered_items)
        self.peak_bytes = max(self.peak_bytes, self.buffered_bytes)
        return None

    def take(self, count: int, size: int) -> tuple[int, int] | None:
        """The application took items: the grant that is due now, or None (R15).

        Credit comes back as items are taken, not as they arrive, and is sent once half of either
        window has been taken, so that grants cost a frame per half window and not one per item.
        """
        self.taken_items = items = self.taken_items + count
        self.taken_bytes = bytes = self.taken_bytes + size
        if items < self._due_items and bytes < self._due_bytes:
            return None
        due = (items - self._granted_items, bytes - self._granted_bytes)
        self.credit_items += due[0]
        self.credit_bytes += due[1]
        self._granted_items, self._granted_bytes = items, bytes
        self._set_due()
        return due

    def _set_due(self) -> None:
        """The next grant is due with half of the window, rounded up."""
        self._due_items = self._granted_items + (self.window.items + 1) // 2
        self._due_bytes = self._granted_bytes + (self.window.bytes + 1) // 2

    def granted(self, items: int, bytes: int, now: float) -> tuple[int, int] | None:
        """The grant that was due goes out at that time, in seconds of any clock.

        Gives the grant that enlarges the window, or None.
        """
        if self.growth is None or not self.growth.granted(
            self.received_items + self.credit_items - items,
            self.received_bytes + self.credit_bytes - bytes,
            now,
        ):
            return None
        return self._enlarge(self.growth.pace_limit)

    def grow(self, count: int, now: float, round_trip: float | None) -> tuple[int, int] | None:
        """A chunk of so many items was received: the grant that enlarges the window, or None."""
        if self.growth is None or not self.growth.is_due(
            self.received_items,
            self.received_bytes,
            starved=self.buffered_items == count,
            now=now,
            round_trip=round_trip,
        ):
            return None
        return self._enlarge(self.growth.limit)

    def _enlarge(self, limit: Window) -> tuple[int, int] | None:
        """Double the window, up to its limit: the grant that does it, or None."""
        old = self.window
        # It may be above the limit already: what was granted is not taken back (R15).
        self.window = Window(
            max(old.items, min(old.items * 2, limit.items)),
            max(old.bytes, min(old.bytes * 2, limit.bytes)),
        )
        self._set_due()
        more = (self.window.items - old.items, self.window.bytes - old.bytes)
        self.credit_items += more[0]
        self.credit_bytes += more[1]
        return more if more != (0, 0) else None


class ViolationBudget:
    """How many breaches of the rules are borne, refilled as time passes (end of section 6)."""

    __slots__ = ("_capacity", "_refill", "_since", "left")

    def __init__(self, capacity: int, refill: float) -> None:
        self._capacity = capacity
        self._refill = refill
        #: What may still be spent, as it was when something was last spent.
        self.left = float(capacity)
        self._since: float | None = None

    def spend(self, now: float, cost: int = 1) -> bool:
        """A breach at that time, in seconds of any clock; False if the budget does not last."""
        if self._since is not None:
            regained = max(0.0, now - self._since) * self._refill
            self.left = min(self._capacity, self.left + regained)
        self._since = now
        if self.left < cost:
            return False
        self.left -= cost
        return True
