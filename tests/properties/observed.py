"""What both sides of :mod:`.test_references` see, and what R5 to R27 promise of it."""

from __future__ import annotations

from collections import Counter

from hypothesis.stateful import invariant

from tests.properties.conversations import Conversation, Exported, Plan, Upload
from trio_streamrpc.protocol.endpoint import Event
from trio_streamrpc.protocol.frames import (
    Call,
    Cancel,
    Chunk,
    End,
    Error,
    Goaway,
    Grant,
    Hello,
    Pong,
    Result,
)
from trio_streamrpc.protocol.parts import Claim
from trio_streamrpc.testing.machines.endpoints import MAX_ITEM, MAX_OBJECT_CALLS, EndpointMachine

__all__ = ["Observed"]


class Observed(EndpointMachine):
    """Calls with references, of which every event and every step is checked."""

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
        if id in self.calls:
            return self.calls[id].cancelled
        upload = self.uploads[id]
        # R19, R21: of a call that is not started, the endpoint has cancelled them by itself.
        return upload.left or not upload.call.started

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

    def check_departed(self) -> None:
        """R11, R19: of each upload, and of each call that was watched, once."""
        expected: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
        for upload in self.uploads.values():
            expected[upload.call.caller][upload.id] = 1
        for call in self.calls.values():
            if call.plan.watched and not call.withdrawn:
                expected[call.caller][call.id] = 1
        assert self.departed == expected
