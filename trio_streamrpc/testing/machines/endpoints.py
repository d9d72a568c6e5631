"""Two endpoints and a wire that loses nothing, for machines that play both runtimes.

A subclass plays the two applications: its rules call, send, take and cancel through ``ends``, and
``handle`` hears what arrives. What any conversation has to keep to is watched here, on the wire and
in the endpoints, after every step.
"""

from __future__ import annotations

from collections import deque

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Raw

from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.endpoint import Endpoint, Event
from trio_streamrpc.protocol.parts import Claim
from trio_streamrpc.testing.plain_frames import PlainFrame, encode_payload, read_message
from trio_streamrpc.testing.strategies import encodings
from trio_streamrpc.testing.wires import ACCEPTING, CONNECTING, EndpointPair

__all__ = [
    "MAX_CALLS", "MAX_ITEM", "MAX_OBJECT_CALLS", "MAX_PARTIAL", "MAX_UPLOADS", "SIDE", "WHICH",
    "WIRE", "EndpointMachine",
]  # fmt: skip

MAX_CALLS = 4
MAX_OBJECT_CALLS = 2
MAX_UPLOADS = 3
#: The longest item: byte credit may fall below 0 by no more (R14).
MAX_ITEM = 60
#: What all unfinished values may come to, where there is little room for them: at least one.
MAX_PARTIAL = 200

SIDE = st.sampled_from([0, 1])
#: Which of several: taken modulo their number.
WHICH = st.integers(0, 11)
#: What is done with the wire of one side.
WIRE = st.tuples(SIDE, st.sampled_from(["write", "deliver", "all"]))


class EndpointMachine(RuleBasedStateMachine):
    """Two endpoints and what is on its way between them; what it is about is for a subclass."""

    #: How many values there are before either side may drain: little happens after that.
    drains_after = 60

    @initialize(
        encoding=encodings(),
        message_bytes=st.sampled_from([1024, 1500, 1024 * 1024]),
        message_frames=st.sampled_from([1, 3, 4096]),
        frame_bytes=st.sampled_from([6, 20, 128 * 1024]),
        partial_bytes=st.sampled_from([MAX_PARTIAL, 1024 * 1024]),
        window=st.sampled_from([Window(1, 1), Window(2, 50), Window(5, 200)]),
    )
    def connect(
        self,
        encoding: Encoding,
        message_bytes: int,
        message_frames: int,
        frame_bytes: int,
        partial_bytes: int,
        window: Window,
    ) -> None:
        self.limits = Limits(
            window=window,
            # What uploads may grow to.
            max_window=Window(8, 400),
            max_calls=MAX_CALLS,
            max_object_calls=MAX_OBJECT_CALLS,
            max_uploads=MAX_UPLOADS,
            max_message_bytes=message_bytes,
            max_message_frames=message_frames,
            # So that most values travel in parts, or none do.
            max_frame_bytes=frame_bytes,
            max_value_bytes=MAX_PARTIAL,
            max_partial_bytes=partial_bytes,
            violation_budget=1,
            violation_refill=1e-9,
        )
        self.encoding = encoding
        self.pair = EndpointPair(encoding=encoding, limits=self.limits, greeted=False)
        self.ends: tuple[Endpoint, Endpoint] = self.pair.ends
        #: Messages on their way from each side.
        self.wires: tuple[deque[bytes | str], deque[bytes | str]] = self.pair.wires
        #: The values that each side has begun to send: what is still to come of them.
        self.unfinished: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.closed_on_wire: tuple[set[int], set[int]] = (set(), set())
        self.left_on_wire: tuple[set[int], set[int]] = (set(), set())
        self.pings = [0, 0]
        self.count = 0
        self.begin()
        self.deliver_all(CONNECTING)
        assert self.pair.accepting.accept() == []
        self.deliver_all(ACCEPTING)

    # --- what a subclass says

    def begin(self) -> None:
        """The endpoints are there, and have said nothing."""
        raise NotImplementedError

    def handle(self, side: int, event: Event) -> None:
        """An event of that side."""
        raise NotImplementedError

    def make_with_room(self, side: int, claim: Claim) -> None:
        """There is room for the values of a call that waited for it."""
        raise NotImplementedError

    def is_answer(self, side: int, id: int) -> bool:
        """Whether a value that comes from that side on that id is the result of a call."""
        raise NotImplementedError

    def is_cancelled(self, id: int) -> bool:
        """Whether who made that call, or consumes that stream, has asked for its end."""
        raise NotImplementedError

    def after_step(self, side: int) -> None:
        """Something was written or received by that side, or taken back."""
        for claim in self.ends[side].granted():
            assert claim.granted
            self.make_with_room(side, claim)

    def payload(self, size: int = 0) -> bytes:
        """A value that is told from every other."""
        self.count += 1
        text = f"{self.count}".ljust(size, "é" if size % 2 else ".")
        return encode_payload(self.encoding, text)

    # --- the wire

    @rule(how=st.lists(WIRE, min_size=1))
    def wire(self, how: list[tuple[int, str]]) -> None:
        for side, what in how:
            match what:
                case "write":
                    self.write(side)
                case "deliver":
                    self.deliver(side)
                case _:
                    self.deliver_all(side)

    def write(self, side: int) -> None:
        message = self.pair.write(side)
        if message is not None:
            self.watch(side, message)
        self.after_step(side)

    def watch(self, side: int, message: bytes | str) -> None:
        """R6, R12: one final frame for each id, and nothing behind it; no grant after a cancel."""
        for frame in read_message(message):
            id, kind = frame.get("id"), frame["type"]
            assert kind != "goaway" or "code" not in frame
            if id is None:
                continue
            assert id not in self.closed_on_wire[side], f"{frame} after a final frame"
            if self.watch_parts(side, frame):
                continue
            if kind in {"result", "error", "end"}:
                self.closed_on_wire[side].add(id)
            elif kind == "cancel":
                self.left_on_wire[side].add(id)
            elif kind == "grant":
                assert id not in self.left_on_wire[side], f"{frame} after a cancel"

    def watch_parts(self, side: int, frame: PlainFrame) -> bool:
        """R21: a value is sent to its end, or was cancelled. Whether its id goes on."""
        id, kind, unfinished = frame["id"], frame["type"], self.unfinished[side]
        if "parts" in frame:
            assert id not in unfinished
            unfinished[id] = frame["parts"]
            return True
        if kind == "part":
            assert id not in self.left_on_wire[side], f"{frame} after a cancel"
            data = frame["data"]
            assert data
            unfinished[id] -= len(data.encode() if isinstance(data, str) else data)
            assert unfinished[id] >= 0
            if unfinished[id] == 0:
                del unfinished[id]
                if self.is_answer(side, id):
                    self.closed_on_wire[side].add(id)
            return True
        if unfinished.pop(id, None) is not None:
            assert kind in {"cancel", "error", "end"}
            assert self.is_cancelled(id), f"{frame} over an unfinished value"
        return False

    def deliver(self, side: int) -> None:
        """The oldest message of that side arrives."""
        if self.wires[side]:
            to = 1 - side
            for event in self.pair.deliver(side):
                self.handle(to, event)
            self.after_step(to)

    def deliver_all(self, side: int) -> bool:
        """False if there was nothing."""
        self.write(side)
        found = bool(self.wires[side])
        while self.wires[side]:
            self.deliver(side)
            self.write(side)
        return found

    # --- what any runtime does

    @rule(side=SIDE)
    def ping(self, side: int) -> None:
        if self.ends[side].ready:
            self.ends[side].ping(Raw(self.payload()))
            self.pings[side] += 1

    @precondition(lambda self: self.count > self.drains_after)
    @rule(side=SIDE)
    def drain(self, side: int) -> None:
        """R27."""
        if self.ends[side].ready:
            self.ends[side].drain()

    # --- what always holds

    @invariant()
    def places_are_kept(self) -> None:
        """R19, R26."""
        for end in getattr(self, "ends", ()):
            assert 0 <= end.places.running <= MAX_CALLS
            assert end.places.overrunning == 0
            assert 0 <= end.uploads <= MAX_UPLOADS
            assert not end.failed

    @invariant()
    def partial_values_are_kept(self) -> None:
        """R21."""
        for end in getattr(self, "ends", ()):
            limit = end.limits.max_partial_bytes
            assert 0 <= end.partial_bytes <= limit
            assert 0 <= end.outbox.room.used <= limit
            assert (end.partial_bytes == 0) or end.assembly.unfinished

    def check_empty(self) -> None:
        """Everything is finished and delivered: both sides have nothing left of it."""
        assert self.pings == [0, 0]
        self.pair.assert_empty()
        for end in self.ends:
            assert end.ready
            # One breach would have been borne in silence: there was none.
            assert end.budget.spend(0.0)
