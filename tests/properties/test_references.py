"""Calls that bring uploads and objects, and contexts that give them, in any interleaving.

The machine plays both runtimes and both applications, as :mod:`.test_endpoints` does for calls and
streams without references. It keeps to ``max_calls``, ``max_object_calls`` and ``max_uploads``,
sends when it may, and says one final frame of each id.
"""

from __future__ import annotations

from typing import Any, Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.properties.conversations import Conversation, Exported, Plan, Upload
from tests.properties.observed import Observed
from trio_streamrpc.errors import Unavailable
from trio_streamrpc.limits import Window
from trio_streamrpc.protocol.frames import ErrorInfo
from trio_streamrpc.protocol.parts import Claim
from trio_streamrpc.testing.machines.endpoints import (
    MAX_CALLS,
    MAX_ITEM,
    MAX_OBJECT_CALLS,
    MAX_PARTIAL,
    MAX_UPLOADS,
    SIDE,
    WHICH,
    WIRE,
)

#: Of a context: its one item is outside of it (R20).
ONE_ITEM = Window(1, 1)
MODE = st.sampled_from(["close", "abort"])
#: What a call brings, in the order of its arguments.
BRINGS = st.lists(st.sampled_from(["stream", "object"]), max_size=4)
SIZE = st.integers(0, MAX_PARTIAL // 2 - 10)
SIZES = st.lists(st.integers(0, MAX_ITEM // 2), max_size=5)


class References(Observed):
    drains_after = 30

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
        # The newest first; half of the objects that are called may have ended meanwhile.
        known = [
            each
            for each in reversed(self.objects.values())
            if each.known and each.side != side and (which % 2 or each.alive)
        ]
        # R27: in a drain it is objects alone.
        calls_object = known and (which % 3 or self.ends[side].peer_drains)
        target = known[which // 3 % len(known)] if calls_object else None
        self.begin_call(
            Plan(side, self.payload(size), target, brings, is_context, priority, watched)
        )

    def begin_call(self, plan: Plan) -> None:
        side, target = plan.side, plan.target
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

    def make_with_room(self, side: int, claim: Claim) -> None:
        self.make(self.claims[side].pop(claim), claim)

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
        # Half of them only in the middle of a value: there is to be something to cancel.
        half_written = {*self.unfinished[0], *self.unfinished[1]}
        call = self.choose(
            self.calls,
            which // 2,
            lambda call: not call.over and (which % 2 == 0 or call.id in half_written),
        )
        if call is not None:
            self.cancel_call(call, mode, ErrorInfo("UNKNOWN", "E", "why") if why else None)

    @rule(side=SIDE, which=WHICH, brings=BRINGS, size=SIZE, count=st.integers(0, 4), mode=MODE)
    def change_mind(
        self, side: int, which: int, brings: list[Literal["stream", "object"]], size: int,
        count: int, mode: Literal["close", "abort"],
    ) -> None:  # fmt: skip
        """A call is cancelled while it is written, in parts or whole (R11, R12, R21)."""
        before = len(self.calls)
        self.call(side, which, brings, which % 2 == 0, size, 0, True)
        self.send(which, [size % MAX_ITEM // 2])
        for _ in range(count):
            self.write(side)
            self.deliver(side)
        call = list(self.calls.values())[-1] if len(self.calls) > before else None
        if call is not None and not call.over:
            self.cancel_call(call, mode, None)

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

    @rule(side=SIDE, which=WHICH, brings=BRINGS, how=st.lists(WIRE), size=SIZE)
    def enter(
        self, side: int, which: int, brings: list[Literal["stream", "object"]],
        how: list[tuple[int, str]], size: int,
    ) -> None:  # fmt: skip
        """A context gives an object, which is called (R20)."""
        call = self.choose(
            self.calls,
            which,
            lambda call: (
                call.is_running and call.plan.is_context and not call.asked and call.given is None
            ),
        )
        if call is None:
            self.call(side, which, [], True, 0, 0, False)
        else:
            id = self.ends[call.callee].send_object(call.id)
            call.given = self.objects[id] = Exported(id, call, call.callee)
        self.wire(how)
        given = self.choose(
            self.objects, which, lambda each: each.known and each.owner.plan.is_context
        )
        if given is not None:
            is_context = which % 4 == 0
            args = self.payload(size)
            self.begin_call(Plan(1 - given.side, args, given, brings, is_context, 0, False))

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

    # --- what either does

    @rule(side=SIDE)
    def measure(self, side: int) -> None:
        """From now on the windows of uploads may grow (R15)."""
        if self.ends[side].ready:
            self.ends[side].measure(0.0)

    def choose(self, among: dict[int, Any], which: int, suits: Any) -> Any:
        found = [each for each in among.values() if suits(each)]
        return found[which % len(found)] if found else None

    # --- the end

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


TestReferences = References.TestCase
# Many steps find nothing to do: fewer would not get far.
TestReferences.settings = settings(
    max_examples=settings().max_examples // 2,
    stateful_step_count=max(150, settings().stateful_step_count),
)
