"""Two endpoints and a wire that loses nothing: whatever the two sides do, in any interleaving.

The machine plays both runtimes and both applications. What it keeps to is what a runtime keeps to:
it calls within ``max_calls``, sends when it may, answers each call once, and takes what arrived.
The rest is up to the endpoints, and no more than what R1 to R27 promise is asked of them.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Raw

from tests.protocol.wire import read
from trio_streamrpc.errors import Unavailable
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.credit import ReceiveWindow
from trio_streamrpc.protocol.endpoint import Endpoint, Event
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.protocol.frames import (
    Call,
    Cancel,
    Chunk,
    End,
    Error,
    ErrorInfo,
    Goaway,
    Grant,
    Hello,
    Pong,
    Result,
)
from trio_streamrpc.protocol.parts import Claim

MAX_CALLS = 4
#: The longest item: byte credit may fall below 0 by no more (R14).
MAX_ITEM = 60
#: What all unfinished values may come to, where there is little room for them: at least one.
MAX_PARTIAL = 200

SIDE = st.sampled_from([0, 1])
#: Which of several: taken modulo their number.
WHICH = st.integers(0, 11)
#: What is done with the wire of one side.
WIRE = st.tuples(SIDE, st.sampled_from(["write", "deliver", "all"]))


@dataclass
class Conversation:
    """One call, as both applications see it."""

    id: int
    caller: int
    exchange: Exchange
    window: Window | None
    #: What the producer sent, and what reached the consumer while it was still there.
    sent: list[bytes] = field(default_factory=list)
    arrived: list[bytes] = field(default_factory=list)
    taken: int = 0
    started: bool = False
    #: The final frame that the callee has said, and that the caller has seen.
    said: str | None = None
    seen: str | None = None
    #: The caller has asked for the end; the callee has heard of it.
    cancelled: bool = False
    asked: bool = False
    #: The call was taken back before it was written.
    withdrawn: bool = False
    #: What it was called and answered with, and with which priority.
    args: bytes = b""
    priority: int = 0
    answer: bytes = b""

    @property
    def callee(self) -> int:
        return 1 - self.caller

    @property
    def over(self) -> bool:
        return self.withdrawn or self.seen is not None

    @property
    def consumer(self) -> ReceiveWindow:
        assert self.exchange.window is not None
        return self.exchange.window


@dataclass
class CallToCome:
    """A call that will be made once there is room for its values."""

    args: bytes
    window: Window | None
    priority: int


class TwoEndpoints(RuleBasedStateMachine):
    @initialize(
        encoding=st.sampled_from(["msgpack", "json"]),
        message_bytes=st.sampled_from([1024, 1500, 1024 * 1024]),
        message_frames=st.sampled_from([1, 3, 4096]),
        frame_bytes=st.sampled_from([6, 20, 128 * 1024]),
        partial_bytes=st.sampled_from([MAX_PARTIAL, 1024 * 1024]),
    )
    def connect(
        self,
        encoding: Encoding,
        message_bytes: int,
        message_frames: int,
        frame_bytes: int,
        partial_bytes: int,
    ) -> None:
        limits = Limits(
            max_calls=MAX_CALLS,
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
        self.ends = (
            Endpoint("connecting", encoding=encoding, limits=limits),
            Endpoint("accepting", encoding=encoding, limits=limits),
        )
        #: Messages on their way from each side.
        self.wires: tuple[deque[bytes | str], deque[bytes | str]] = (deque(), deque())
        self.calls: dict[int, Conversation] = {}
        #: Calls that wait for room among the unfinished values: what they will be.
        self.claims: tuple[dict[Claim, CallToCome], ...] = ({}, {})
        #: The values that each side has begun to send: what is still to come of them.
        self.unfinished: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.closed_on_wire: tuple[set[int], set[int]] = (set(), set())
        self.left_on_wire: tuple[set[int], set[int]] = (set(), set())
        self.pings = [0, 0]
        self.count = 0
        self.deliver_all(0)
        assert self.ends[1].accept() == []
        self.deliver_all(1)

    def payload(self, size: int = 0) -> bytes:
        """A value that is told from every other."""
        self.count += 1
        text = f"{self.count}".ljust(size, "é" if size % 2 else ".")
        if self.encoding == "json":
            return json.dumps(text, ensure_ascii=False).encode()
        return msgspec.msgpack.encode(text)

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
        message = self.ends[side].next_message()
        if message is not None:
            self.wires[side].append(message)
            self.watch(side, message)
        self.make_those_with_room(side)

    def watch(self, side: int, message: bytes | str) -> None:
        """R6, R12: one final frame for each id, and nothing behind it; no grant after a cancel."""
        for frame in read(message):
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

    def watch_parts(self, side: int, frame: dict[str, Any]) -> bool:
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
                if self.calls[id].callee == side and self.calls[id].window is None:
                    self.closed_on_wire[side].add(id)
            return True
        if unfinished.pop(id, None) is not None:
            assert kind in {"cancel", "error", "end"}
            assert self.calls[id].cancelled, f"{frame} over an unfinished value"
        return False

    def deliver(self, side: int) -> None:
        """The oldest message of that side arrives."""
        if self.wires[side]:
            to = 1 - side
            for event in self.ends[to].receive(self.wires[side].popleft()):
                self.handle(to, event)
            self.make_those_with_room(to)

    def deliver_all(self, side: int) -> bool:
        """False if there was nothing."""
        self.write(side)
        found = bool(self.wires[side])
        while self.wires[side]:
            self.deliver(side)
            self.write(side)
        return found

    # --- what a runtime does with what arrives

    def handle(self, side: int, event: Event) -> None:
        match event:
            case Call():
                self.handle_call(side, event)
            case Result() | Error() | End():
                self.handle_final(side, event)
            case Chunk():
                call = self.calls[event.id]
                assert call.caller == side
                assert call.seen is None
                assert not call.cancelled, "R9: what crosses a cancel is dropped"
                call.arrived += [bytes(item) for item in event.items]
            case Cancel():
                call = self.calls[event.id]
                assert call.callee == side
                assert call.cancelled
                assert call.said is None
                call.asked = True
            case Grant():
                assert self.calls[event.id].callee == side
            case Goaway():
                for id in self.ends[side].withdraw():
                    self.calls[id].withdrawn = True
            case Pong():
                self.pings[side] -= 1
            case _:
                assert isinstance(event, Hello), event

    def handle_call(self, side: int, event: Call) -> None:
        call = self.calls[event.id]
        assert call.callee == side
        assert not call.started
        assert not call.withdrawn
        assert (event.window is None) == (call.window is None)
        assert bytes(event.args) == call.args, "R21: what arrives is what was sent"
        assert event.priority == call.priority
        call.started = True

    def handle_final(self, side: int, event: Result | Error | End) -> None:
        call = self.calls[event.id]
        assert call.caller == side
        assert not call.over, "R6: one final frame"
        if call.started:
            assert call.said is not None, "R7: not before the handler has finished"
        else:
            assert isinstance(event, Error)
            assert event.retry or call.cancelled, "R21, R27: refused by a drain, or cut short"
        call.seen = type(event).__name__.removeprefix("Json")
        if call.said == "Result" and isinstance(event, Error):
            assert call.cancelled
            assert event.error.code == "CANCELLED", "R6: a result that was cut short"
            call.said = "Error"
        assert call.said in (None, call.seen)
        if not call.cancelled:
            assert call.arrived == call.sent, "R6: nothing is lost in front of a final frame"
            if isinstance(event, Result):
                assert bytes(event.value) == call.answer, "R21"

    # --- what a caller does

    @rule(
        side=SIDE,
        window=st.sampled_from(
            [None, *[Window(items, bytes) for items in (1, 2, 5) for bytes in (1, 50, 200)]]
        ),
        size=st.integers(0, MAX_PARTIAL // 2 - 10),
        priority=st.sampled_from([0, 0, -1, 5]),
    )
    def call(self, side: int, window: Window | None, size: int, priority: int) -> None:
        end = self.ends[side]
        if not end.ready or end.peer_drains or len(self.mine(side)) == MAX_CALLS:
            return
        to_come = CallToCome(self.payload(size), window, priority)
        parts = end.parts_of("m", to_come.args)
        if not parts:
            self.make(side, to_come)
            return
        claim = end.claim(parts)
        if claim.granted:
            self.make(side, to_come, claim)
        else:
            self.claims[side][claim] = to_come

    def mine(self, side: int) -> list[Conversation | CallToCome]:
        """The calls of one side that take a place, or are about to."""
        calls = [call for call in self.calls.values() if call.caller == side and not call.over]
        return [*calls, *self.claims[side].values()]

    def make(self, side: int, to_come: CallToCome, claim: Claim | None = None) -> None:
        end = self.ends[side]
        try:
            exchange = end.call(
                "m", to_come.args, window=to_come.window, priority=to_come.priority, claim=claim
            )
        except Unavailable:
            assert end.peer_drains
            assert claim is not None
            end.give_up(claim)
            return
        assert all(exchange.id > id for id in self.calls if id % 2 == exchange.id % 2), "R5"
        self.calls[exchange.id] = Conversation(
            exchange.id, side, exchange, to_come.window, args=to_come.args,
            priority=to_come.priority,
        )  # fmt: skip

    def make_those_with_room(self, side: int) -> None:
        for claim in self.ends[side].granted():
            assert claim.granted
            self.make(side, self.claims[side].pop(claim), claim)

    @rule(side=SIDE)
    def lose_patience(self, side: int) -> None:
        """A caller that waited for room is cancelled."""
        if self.claims[side]:
            claim = next(iter(self.claims[side]))
            if not claim.granted:
                del self.claims[side][claim]
                self.ends[side].give_up(claim)
                self.make_those_with_room(side)

    def take(self, which: int, count: int) -> None:
        """R15: credit comes back as items are taken."""
        call = self.choose(
            which, lambda call: not call.cancelled and call.taken < len(call.arrived)
        )
        if call is not None:
            self.take_from(call, count)

    def take_from(self, call: Conversation, count: int) -> None:
        for item in call.arrived[call.taken : call.taken + count]:
            call.taken += 1
            due = call.consumer.take(1, len(item))
            if due is not None:
                self.ends[call.caller].grant(call.id, *due)

    @rule(which=WHICH, mode=st.sampled_from(["close", "abort"]), why=st.booleans())
    def cancel(self, which: int, mode: Literal["close", "abort"], why: bool) -> None:
        """R7, R8; a second one may follow the first."""
        if which % 2:
            # Half as often as the rest: there is to be something to cancel.
            return
        call = self.choose(which // 2, lambda call: not call.over)
        if call is None:
            return
        error = ErrorInfo("UNKNOWN", "E", "why") if why else None
        if self.ends[call.caller].cancel(call.id, mode, error):
            call.cancelled = call.cancelled or not call.over
        else:
            assert not call.started, "R12"
            call.withdrawn = True
        self.make_those_with_room(call.caller)

    # --- what a callee does

    @rule(
        side=SIDE,
        which=WHICH,
        sizes=st.lists(st.integers(0, MAX_ITEM // 2), max_size=5),
        count=st.integers(0, 4),
        how=st.lists(WIRE),
    )
    def use(
        self, side: int, which: int, sizes: list[int], count: int, how: list[tuple[int, str]]
    ) -> None:
        """Items go into one stream, and are taken out of one."""
        # All in one rule, for Hypothesis leaves out some of the rules each time.
        if not self.choose(which, lambda call: not call.over and not call.cancelled):
            self.call(side, Window(1 + which % 5, 1 + 10 * which), which, which % 3)
        self.send(which, sizes)
        self.wire(how)
        self.take(which, count)

    def send(self, which: int, sizes: list[int]) -> None:
        """R14."""
        call = self.choose(
            which, lambda call: call.started and self.ends[call.callee].may_send(call.id)
        )
        if call is None:
            return
        assert call.said is None
        assert not call.asked
        end = self.ends[call.callee]
        for size in sizes:
            if end.may_send(call.id):
                item = self.payload(size)
                end.send(call.id, item)
                call.sent.append(item)

    @rule(which=WHICH, fail=st.booleans())
    def finish(self, which: int, fail: bool) -> None:
        if which % 2:
            return
        call = self.choose(which // 2, lambda call: call.started and call.said is None)
        if call is not None:
            self.finish_call(call, fail)

    def finish_call(self, call: Conversation, fail: bool) -> None:
        end = self.ends[call.callee]
        if fail:
            call.said = "Error"
            end.answer_error(call.id, ErrorInfo("ABORTED", "E", "no " * 100))
        elif call.window is None:
            call.said = "Result"
            call.answer = self.payload(len(call.args) // 2)
            end.answer(call.id, call.answer)
        else:
            call.said = "End"
            end.end(call.id)

    # --- what both do

    @rule(side=SIDE)
    def ping(self, side: int) -> None:
        if self.ends[side].ready:
            self.ends[side].ping(Raw(self.payload()))
            self.pings[side] += 1

    @precondition(lambda self: self.count > 60)
    @rule(side=SIDE)
    def drain(self, side: int) -> None:
        """R27."""
        if self.ends[side].ready:
            self.ends[side].drain()

    def choose(self, which: int, suits: Any) -> Conversation | None:
        found = [call for call in self.calls.values() if suits(call)]
        return found[which % len(found)] if found else None

    # --- what always holds

    @invariant()
    def places_are_kept(self) -> None:
        """R26."""
        for end in getattr(self, "ends", ()):
            assert 0 <= end.places.running <= MAX_CALLS
            assert end.places.overrunning == end.uploads == 0
            assert not end.failed

    @invariant()
    def partial_values_are_kept(self) -> None:
        """R21."""
        for end in getattr(self, "ends", ()):
            limit = end.limits.max_partial_bytes
            assert 0 <= end.partial_bytes <= limit
            assert 0 <= end.outbox.room.used <= limit
            assert (end.partial_bytes == 0) or end.assembly.unfinished

    @invariant()
    def windows_are_kept(self) -> None:
        """R13 to R17."""
        for call in getattr(self, "calls", {}).values():
            if call.window is None:
                continue
            consumer = call.consumer
            assert call.arrived == call.sent[: len(call.arrived)], "an ordered prefix"
            assert 0 <= consumer.buffered_items <= call.window.items
            assert consumer.buffered_bytes < call.window.bytes + MAX_ITEM
            assert consumer.credit_items >= 0
            assert consumer.credit_bytes > -MAX_ITEM
            assert consumer.credit_items + consumer.buffered_items <= call.window.items
            if not call.cancelled:
                # R21: an item in parts has its place from its first frame.
                coming = call.id in self.ends[call.caller].assembly.unfinished
                assert consumer.buffered_items == len(call.arrived) - call.taken + coming
            assert len(call.sent) <= call.taken + call.window.items, "R14: the look-ahead"
            producer = self.ends[call.callee].exchanges.get(call.id)
            if producer is not None and producer.credit is not None:
                assert 0 <= producer.credit.items <= call.window.items
                assert -MAX_ITEM < producer.credit.bytes <= call.window.bytes

    def teardown(self) -> None:
        """Everything is finished and delivered: both sides are empty."""
        if not hasattr(self, "ends"):
            return
        quiet = False
        while not quiet:
            quiet = True
            for call in self.calls.values():
                if call.window is not None and not call.cancelled:
                    self.take_from(call, len(call.arrived))
                if call.started and call.said is None:
                    self.finish_call(call, fail=False)
            for side in (0, 1):
                quiet = not self.deliver_all(side) and quiet
                quiet = quiet and not self.claims[side]
        for call in self.calls.values():
            assert call.over
            assert call.withdrawn or (call.said or "Error") == call.seen
        assert self.pings == [0, 0]
        for end in self.ends:
            assert end.ready
            assert end.exchanges == {}
            assert end.places.running == 0
            assert end.partial_bytes == end.outbox.room.used == 0
            assert not end.assembly.unfinished
            assert not end.outbox
            assert end.outbox.control_bytes == 0
            assert end.next_message() is None
            # One breach would have been borne in silence: there was none.
            assert end.budget.spend(0.0)


TestTwoEndpoints = TwoEndpoints.TestCase
# Many steps find nothing to do: fewer would not get far.
TestTwoEndpoints.settings = settings(stateful_step_count=max(150, settings().stateful_step_count))
