"""Calls that bring uploads and objects, and contexts that give them, in any interleaving.

The machine plays both runtimes and both applications, as :mod:`.test_endpoints` does for calls and
streams without references. It keeps to ``max_calls``, ``max_object_calls`` and ``max_uploads``,
sends when it may, and says one final frame of each id.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from tests.properties.conversations import Conversation, Exported, Plan, Upload
from tests.properties.wires import (
    MAX_CALLS,
    MAX_ITEM,
    MAX_OBJECT_CALLS,
    MAX_PARTIAL,
    MAX_UPLOADS,
    SIDE,
    WHICH,
    WIRE,
    Wires,
)
from trio_streamrpc.errors import Unavailable
from trio_streamrpc.limits import Window
from trio_streamrpc.protocol.endpoint import Event
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

#: Of a context: its one item is outside of it (R20).
ONE_ITEM = Window(1, 1)
MODE = st.sampled_from(["close", "abort"])
#: What a call brings, in the order of its arguments.
BRINGS = st.lists(st.sampled_from(["stream", "object"]), max_size=4)
SIZE = st.integers(0, MAX_PARTIAL // 2 - 10)
SIZES = st.lists(st.integers(0, MAX_ITEM // 2), max_size=5)


class References(Wires):
    def begin(self) -> None:
        self.calls: dict[int, Conversation] = {}
        self.uploads: dict[int, Upload] = {}
        self.objects: dict[int, Exported] = {}
        #: Calls that wait for room among the unfinished values: what they will be.
        self.claims: tuple[dict[Claim, Plan], ...] = ({}, {})
        #: How often each side was told that an id has departed.
        self.departed: tuple[Counter[int], Counter[int]] = (Counter(), Counter())

    def is_answer(self, side: int, id: int) -> bool:
        return id in self.calls and self.calls[id].callee == side

    def is_cancelled(self, id: int) -> bool:
        return self.calls[id].cancelled if id in self.calls else self.uploads[id].left

    def make_with_room(self, side: int, claim: Claim) -> None:
        self.make(self.claims[side].pop(claim), claim)

    def after_step(self, side: int) -> None:
        self.departed[side].update(self.ends[side].departed)
        self.ends[side].departed = []
        super().after_step(side)

    # --- what a runtime does with what arrives

    def handle(self, side: int, event: Event) -> None:
        match event:
            case Call():
                self.handle_call(side, event)
            case End() | Error() if event.id in self.uploads:
                self.handle_end_of_upload(side, event)
            case Result() | Error() | End():
                self.handle_final(side, event)
            case Chunk():
                self.handle_chunk(side, event)
            case Cancel():
                self.handle_cancel(side, event)
            case Grant():
                assert self.uploads[event.id].call.caller == side
            case Goaway():
                for id in self.ends[side].withdraw():
                    self.calls[id].withdrawn = True
            case Pong():
                # What measures the round trip is the endpoint's own.
                self.pings[side] -= bytes(event.token) != bytes(self.ends[side].codec.mark)
            case _:
                assert isinstance(event, Hello), event

    def handle_call(self, side: int, event: Call) -> None:
        call = self.calls[event.id]
        assert call.callee == side
        assert not call.started
        assert not call.withdrawn
        assert bytes(event.args) == call.plan.args, "R21: what arrives is what was sent"
        assert event.target == (call.plan.target.id if call.plan.target else 0)
        assert event.priority == call.plan.priority
        brought = [(each.place, each.type, each.id) for each in event.refs or ()]
        assert brought == call.brought
        call.started = True
        call.served = self.ends[side].exchanges[event.id]
        assert [each.id for each in call.served.uploads] == [each.id for each in call.uploads]
        for upload, exchange in zip(call.uploads, call.served.uploads, strict=True):
            upload.consumer = exchange.window
        for each in call.objects:
            each.known = True

    def handle_final(self, side: int, event: Result | Error | End) -> None:
        call = self.calls[event.id]
        assert call.caller == side
        assert not call.over, "R6: one final frame"
        if call.started:
            assert call.said is not None, "R7: not before the handler has finished"
        else:
            self.check_refusal(call, event)
        call.seen = type(event).__name__.removeprefix("Json")
        if call.said == "Result" and isinstance(event, Error):
            assert call.cancelled
            assert event.error.code == "CANCELLED", "R6: a result that was cut short"
            call.said = "Error"
        assert call.said in (None, call.seen)
        for upload in call.uploads:
            assert upload.said or upload.asked, "R10: they are cancelled in front of it"
        if isinstance(event, Error):
            assert event.same == call.same, "R20"
        if not call.cancelled:
            assert call.given is None or call.given.known, "R12: the object came in front of it"
            if isinstance(event, Result):
                assert bytes(event.value) == call.answer, "R21"

    def check_refusal(self, call: Conversation, event: Event) -> None:
        """Why nothing was started: a drain, an object that has ended, or a call cut short."""
        assert isinstance(event, Error)
        target = call.plan.target
        if event.error.code == "NOT_FOUND":
            assert target is not None
            assert target.id not in self.ends[call.callee].objects, "R20"
        elif event.retry:
            assert target is None, "R27: objects are called as before"
            assert self.ends[call.callee].drain_from is not None
        else:
            assert call.cancelled, "R21"

    def handle_end_of_upload(self, side: int, event: End | Error) -> None:
        upload = self.uploads[event.id]
        assert upload.call.callee == side
        assert upload.seen is None, "R6: one final frame"
        upload.seen = type(event).__name__.removeprefix("Json")
        assert upload.seen == upload.said
        if upload.consumer is not None and not upload.left:
            assert upload.arrived == upload.sent, "R6: nothing is lost in front of a final frame"

    def handle_chunk(self, side: int, event: Chunk) -> None:
        upload = self.uploads.get(event.id)
        if upload is not None:
            assert upload.call.callee == side
            assert upload.call.started, "R21: nothing of an upload before its call"
            assert not upload.left, "R9: what crosses a cancel is dropped"
            assert upload.seen is None
            upload.arrived += [bytes(item) for item in event.items]
            return
        call = self.calls[event.id]
        assert call.caller == side
        assert call.seen is None
        assert not call.cancelled, "R9"
        assert call.given is not None
        assert event.refs is not None
        assert [each.id for each in event.refs] == [call.given.id]
        call.given.known = True

    def handle_cancel(self, side: int, event: Cancel) -> None:
        upload = self.uploads.get(event.id)
        if upload is not None:
            assert upload.call.caller == side
            assert upload.said is None
            assert upload.left or upload.consumer is None
            upload.asked = True
            return
        call = self.calls[event.id]
        assert call.callee == side
        assert call.cancelled
        assert call.said is None
        call.asked = True

    # --- what a caller does

    @rule(
        side=SIDE,
        which=WHICH,
        brings=BRINGS,
        is_context=st.booleans(),
        size=SIZE,
        priority=st.sampled_from([0, 0, -1, 5]),
        watched=st.booleans(),
    )
    def call(
        self, side: int, which: int, brings: list[Literal["stream", "object"]], is_context: bool,
        size: int, priority: int, watched: bool,
    ) -> None:  # fmt: skip
        """A call to the service or, of all that is known to that side, to an object (R20)."""
        # Half of the objects that are called may have ended meanwhile.
        known = [
            each
            for each in self.objects.values()
            if each.known and each.side != side and (which % 2 or each.alive)
        ]
        target = known[which // 3 % len(known)] if known and which % 3 else None
        plan = Plan(side, self.payload(size), target, brings, is_context, priority, watched)
        end = self.ends[side]
        if not end.ready or not self.has_places(plan) or (end.peer_drains and target is None):
            return
        parts = end.parts_of("m", plan.args, refs=plan.refs)
        if not parts:
            self.make(plan)
            return
        claim = end.claim(parts)
        if claim.granted:
            self.make(plan, claim)
        else:
            self.claims[side][claim] = plan

    def has_places(self, plan: Plan) -> bool:
        """R19, R26: what is under way, and about to be, leaves room for it."""
        side = plan.side
        calls = [each for each in self.calls.values() if each.caller == side and not each.over]
        plans = [*(each.plan for each in calls), *self.claims[side].values()]
        uploads = sum(
            upload.call.caller == side and not self.departed[side][upload.id]
            for upload in self.uploads.values()
        )
        uploads += sum(each.brings.count("stream") for each in self.claims[side].values())
        if uploads + plan.brings.count("stream") > MAX_UPLOADS:
            return False
        limit = MAX_CALLS if plan.root is None else MAX_OBJECT_CALLS
        return sum(each.root is plan.root for each in plans) < limit

    def make(self, plan: Plan, claim: Claim | None = None) -> None:
        side, target = plan.side, plan.target
        end = self.ends[side]
        try:
            exchange = end.call(
                "m",
                plan.args,
                refs=plan.refs,
                target=0 if target is None else target.id,
                root=None if plan.root is None else plan.root.record(side),
                window=ONE_ITEM if plan.is_context else None,
                priority=plan.priority,
                claim=claim,
            )
        except Unavailable:
            assert end.peer_drains
            assert target is None
            assert claim is not None
            end.give_up(claim)
            return
        if plan.watched:
            end.watch(exchange.id)
        call = self.calls[exchange.id] = Conversation(exchange.id, plan, exchange)
        call.uploads = [Upload(each.id, call, each) for each in exchange.uploads]
        call.objects = [Exported(id, call, side) for id in exchange.objects]
        self.uploads.update({each.id: each for each in call.uploads})
        self.objects.update({each.id: each for each in call.objects})
        assert [id for _, _, id in call.brought] == sorted(id for _, _, id in call.brought), "R5"

    @rule(side=SIDE)
    def lose_patience(self, side: int) -> None:
        """A caller that waited for room is cancelled."""
        for claim in list(self.claims[side])[:1]:
            if not claim.granted:
                del self.claims[side][claim]
                self.ends[side].give_up(claim)
                self.after_step(side)

    @rule(which=WHICH, mode=MODE, why=st.booleans())
    def cancel(self, which: int, mode: Literal["close", "abort"], why: bool) -> None:
        """R7, R8; a second one may follow the first."""
        if which % 2:
            # Half as often as the rest: there is to be something to cancel.
            return
        call = self.choose(self.calls, which // 2, lambda call: not call.over)
        if call is not None:
            self.cancel_call(call, mode, ErrorInfo("UNKNOWN", "E", "why") if why else None)

    def cancel_call(
        self, call: Conversation, mode: Literal["close", "abort"], error: ErrorInfo | None
    ) -> None:
        if self.ends[call.caller].cancel(call.id, mode, error):
            call.cancelled = True
        else:
            assert not call.started, "R12"
            call.withdrawn = True
        self.after_step(call.caller)

    @rule(side=SIDE, which=WHICH, sizes=SIZES, count=st.integers(0, 4), how=st.lists(WIRE))
    def use(
        self, side: int, which: int, sizes: list[int], count: int, how: list[tuple[int, str]]
    ) -> None:
        """Items go into one upload, and are taken out of one."""
        # All in one rule, for Hypothesis leaves out some of the rules each time.
        if not self.choose(self.uploads, which, lambda upload: not upload.is_over):
            brings: list[Literal["stream", "object"]] = ["object", "stream"]
            self.call(side, which, brings, which % 5 == 0, which, which % 3, which % 2 == 0)
        self.send(which, sizes)
        self.wire(how)
        self.take(which, count)

    def send(self, which: int, sizes: list[int]) -> None:
        """R14."""
        upload = self.choose(
            self.uploads, which, lambda upload: self.ends[upload.call.caller].may_send(upload.id)
        )
        if upload is None:
            return
        assert not upload.is_over
        assert not upload.asked
        end = self.ends[upload.call.caller]
        for size in sizes:
            if end.may_send(upload.id):
                item = self.payload(size)
                end.send(upload.id, item)
                upload.sent.append(item)

    @rule(which=WHICH, how=st.sampled_from(["end", "fail", "fail and abort"]))
    def end_upload(self, which: int, how: str) -> None:
        """R10: its iterator is exhausted, or has failed."""
        upload = self.choose(self.uploads, which, lambda upload: not upload.is_over)
        if upload is None:
            return
        self.end_this(upload, fail=how != "end")
        if how == "fail and abort" and not upload.call.over:
            self.cancel_call(upload.call, "abort", None)

    def end_this(self, upload: Upload, *, fail: bool) -> None:
        end = self.ends[upload.call.caller]
        if fail:
            upload.said = "Error"
            end.answer_error(upload.id, ErrorInfo("ABORTED", "E", "no " * 50))
        else:
            upload.said = "End"
            end.end(upload.id)

    # --- what a callee does

    def take(self, which: int, count: int) -> None:
        """R15: credit comes back as items are taken."""
        upload = self.choose(
            self.uploads, which, lambda each: not each.left and each.taken < len(each.arrived)
        )
        if upload is not None:
            self.take_from(upload, count)

    def take_from(self, upload: Upload, count: int) -> None:
        for item in upload.arrived[upload.taken : upload.taken + count]:
            assert upload.consumer is not None
            upload.taken += 1
            due = upload.consumer.take(1, len(item))
            if due is not None:
                self.ends[upload.call.callee].grant(upload.id, *due)

    @rule(which=WHICH, mode=MODE, why=st.booleans())
    def leave_upload(self, which: int, mode: Literal["close", "abort"], why: bool) -> None:
        """R10: its handler wants no more of it."""
        upload = self.choose(
            self.uploads, which, lambda each: each.call.is_running and each.seen is None
        )
        if upload is not None:
            error = ErrorInfo("UNKNOWN", "E", "why") if why else None
            assert self.ends[upload.call.callee].cancel(upload.id, mode, error)
            upload.left = True

    @rule(which=WHICH, how=st.lists(WIRE))
    def enter(self, which: int, how: list[tuple[int, str]]) -> None:
        """A context gives an object (R20)."""
        call = self.choose(
            self.calls,
            which,
            lambda call: (
                call.is_running and call.plan.is_context and not call.asked and call.given is None
            ),
        )
        if call is not None:
            id = self.ends[call.callee].send_object(call.id)
            call.given = self.objects[id] = Exported(id, call, call.callee)
        self.wire(how)

    @rule(which=WHICH)
    def end_objects(self, which: int) -> None:
        """What a running context gave ends before it, and callbacks in front of their caller."""
        if which % 4:
            return
        each = self.choose(self.objects, which, lambda each: each.alive)
        if each is not None:
            self.ends[each.side].end_objects(each.owner.id)
            for other in [*each.owner.objects, each.owner.given]:
                if other is not None and other.side == each.side:
                    other.ended = True

    @rule(which=WHICH, how=st.sampled_from(["well", "well", "fail", "same"]))
    def finish(self, which: int, how: str) -> None:
        if which % 2:
            return
        call = self.choose(self.calls, which // 2, lambda call: call.is_running)
        if call is not None:
            self.finish_call(call, how)

    def finish_call(self, call: Conversation, how: str) -> None:
        end = self.ends[call.callee]
        for upload in call.uploads:
            # R10: the endpoint sees to it.
            upload.left = upload.left or upload.seen is None
        if how != "well":
            call.said = "Error"
            call.same = how == "same" and call.plan.is_context
            end.answer_error(call.id, ErrorInfo("ABORTED", "E", "no " * 50), same=call.same)
        elif call.plan.is_context:
            call.said = "End"
            end.end(call.id)
        else:
            call.said = "Result"
            call.answer = self.payload(len(call.plan.args) // 2)
            end.answer(call.id, call.answer)

    # --- what both do

    @rule(side=SIDE)
    def measure(self, side: int) -> None:
        """From now on the windows of uploads may grow (R15)."""
        if self.ends[side].ready:
            self.ends[side].measure(0.0)

    def choose(self, among: dict[int, Any], which: int, suits: Any) -> Any:
        found = [each for each in among.values() if suits(each)]
        return found[which % len(found)] if found else None

    # --- what always holds

    @invariant()
    def windows_are_kept(self) -> None:
        """R13 to R18."""
        for upload in getattr(self, "uploads", {}).values():
            assert upload.arrived == upload.sent[: len(upload.arrived)], "an ordered prefix"
            credit, consumer = upload.exchange.credit, upload.consumer
            window = self.limits.window if consumer is None else consumer.window
            assert len(upload.sent) <= upload.taken + window.items, "R14: the look-ahead"
            assert 0 <= credit.items <= window.items
            assert -MAX_ITEM < credit.bytes <= window.bytes
            if consumer is not None:
                assert consumer.credit_items >= 0
                assert consumer.credit_items + consumer.buffered_items <= window.items
                assert consumer.credit_bytes > -MAX_ITEM
                assert consumer.buffered_bytes < window.bytes + MAX_ITEM

    @invariant()
    def objects_are_kept(self) -> None:
        """R20: an object can be called for as long as what it belongs to lasts."""
        for each in getattr(self, "objects", {}).values():
            assert (each.id in self.ends[each.side].objects) == each.alive

    @invariant()
    def places_of_objects_are_kept(self) -> None:
        """R26."""
        for call in getattr(self, "calls", {}).values():
            for record in call.records:
                if record.object_places is not None:
                    assert 0 <= record.object_places.running <= MAX_OBJECT_CALLS
                    assert record.object_places.overrunning == 0

    def teardown(self) -> None:
        """Everything is finished and delivered: both sides are empty."""
        if not hasattr(self, "ends"):
            return
        quiet = False
        while not quiet:
            quiet = True
            for upload in self.uploads.values():
                if not upload.is_over:
                    self.end_this(upload, fail=False)
                if not upload.left:
                    self.take_from(upload, len(upload.arrived))
            for call in self.calls.values():
                if call.is_running:
                    self.finish_call(call, "well")
            for side in (0, 1):
                quiet = not self.deliver_all(side) and quiet
                quiet = quiet and not self.claims[side]
        for call in self.calls.values():
            assert call.over
            assert call.withdrawn or (call.said or "Error") == call.seen
            for record in call.records:
                assert record.object_places is None or record.object_places.running == 0
        self.check_departed()
        self.check_empty()

    def check_departed(self) -> None:
        """R11, R19: of each upload, and of each call that was watched, once."""
        expected: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
        for upload in self.uploads.values():
            expected[upload.call.caller][upload.id] = 1
        for call in self.calls.values():
            if call.plan.watched and not call.withdrawn:
                expected[call.caller][call.id] = 1
        assert self.departed == expected


TestReferences = References.TestCase
# Many steps find nothing to do: fewer would not get far.
TestReferences.settings = settings(stateful_step_count=max(150, settings().stateful_step_count))
