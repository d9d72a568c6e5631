"""Calls and streams between two endpoints, whatever the two sides do, in any interleaving.

The machine plays both runtimes and both applications. What it keeps to is what a runtime keeps to:
it calls within ``max_calls``, sends when it may, answers each call once, and takes what arrived.
The rest is up to the endpoints, and no more than what R1 to R27 promise is asked of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from trio_streamrpc.errors import Unavailable
from trio_streamrpc.limits import Window
from trio_streamrpc.protocol.credit import ReceiveWindow
from trio_streamrpc.protocol.endpoint import Event
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
from trio_streamrpc.testing.machines.endpoints import (
    MAX_CALLS,
    MAX_ITEM,
    MAX_PARTIAL,
    SIDE,
    WHICH,
    WIRE,
    EndpointMachine,
)

__all__ = ["CallsAndStreams"]


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


class CallsAndStreams(EndpointMachine):
    """R1 to R27 for calls and streams: a machine to run, or to add rules and invariants to.

    ``TestCalls = CallsAndStreams.TestCase`` runs it; at its end, everything is finished and
    delivered, and both sides are empty.
    """

    def begin(self) -> None:
        self.calls: dict[int, Conversation] = {}
        #: Calls that wait for room among the unfinished values: what they will be.
        self.claims: tuple[dict[Claim, CallToCome], ...] = ({}, {})

    def is_answer(self, side: int, id: int) -> bool:
        return self.calls[id].callee == side and self.calls[id].window is None

    def is_cancelled(self, id: int) -> bool:
        return self.calls[id].cancelled

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

    def make_with_room(self, side: int, claim: Claim) -> None:
        self.make(side, self.claims[side].pop(claim), claim)

    @rule(side=SIDE)
    def lose_patience(self, side: int) -> None:
        """A caller that waited for room is cancelled."""
        if self.claims[side]:
            claim = next(iter(self.claims[side]))
            if not claim.granted:
                del self.claims[side][claim]
                self.ends[side].give_up(claim)
                self.after_step(side)

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
        self.after_step(call.caller)

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

    def choose(self, which: int, suits: Any) -> Conversation | None:
        found = [call for call in self.calls.values() if suits(call)]
        return found[which % len(found)] if found else None

    # --- what always holds

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
        self.check_empty()
