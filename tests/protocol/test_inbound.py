"""inbound.py: what each kind of frame does when it arrives."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.protocol.wire import BOTH, FIELDS, STREAM, Talk, message, payload
from trio_streamrpc.errors import Code, PermissionDenied, RemoteProtocolError
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.endpoint import Endpoint, Event, Side
from trio_streamrpc.protocol.frames import (
    KINDS,
    Call,
    Chunk,
    ErrorInfo,
    Frame,
    Grant,
    Overflow,
    Result,
    is_absent,
)
from trio_streamrpc.protocol.inbound import HANDLERS

HELLO: dict[str, Any] = {"type": "hello", "version": 1}
SIDES = pytest.mark.parametrize("side", ["connecting", "accepting"])


def kinds(events: list[Event]) -> list[str]:
    return [KINDS[event.kind] if isinstance(event, Frame) else "overflow" for event in events]


def refused(talk: Talk, *frames: dict[str, Any], match: str = ".") -> RemoteProtocolError:
    """The frames are a connection error: told, and the end of everything."""
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        talk.hears(*frames)
    assert talk.endpoint.failed
    [goaway] = talk.says()
    assert goaway["type"] == "goaway"
    assert goaway["code"] == "PROTOCOL_ERROR"
    assert goaway["message"] == caught.value.message[:200]
    assert talk.hears({"type": "ping"}) == []
    assert talk.says() == []
    return caught.value


def chunk(id: int, *items: Any, size: int | None = None) -> dict[str, Any]:
    """A chunk of small integers, one byte each."""
    return {"type": "chunk", "id": id, "items": list(items), "size": size or len(items)}


def test_every_kind_has_its_handler() -> None:
    assert len(HANDLERS) == len(KINDS)
    for kind, handler in zip(KINDS, HANDLERS, strict=True):
        assert handler.__name__ in {f"receive_{kind}", "receive_final"}


# --- hello


@BOTH
@SIDES
@pytest.mark.parametrize("kind", [kind for kind in FIELDS if kind != "hello"])
def test_hello_comes_first(encoding: Encoding, side: Side, kind: str) -> None:
    """R25: nothing else may; only the accepting side may send ``goaway`` in its place."""
    fields: dict[str, Any] = {"id": 2} if "id" in FIELDS[kind] else {}
    needed: dict[str, dict[str, Any]] = {
        "error": {"error": {"code": "X"}},
        "chunk": {"items": [], "size": 0},
        "part": {"data": "" if encoding == "json" else b""},
    }
    fields |= needed.get(kind, {})
    talk = Talk(side, encoding, greeted=False)
    talk.says()
    frame = {"type": kind, **fields}
    if side == "connecting" and kind == "goaway":
        assert kinds(talk.hears({**frame, "code": "UNAUTHENTICATED", "message": "who?"})) == [kind]
        assert not talk.endpoint.ready
    else:
        refused(talk, frame, match=f"{kind} before hello")


@BOTH
def test_what_is_ignored_may_come_before_hello(encoding: Encoding) -> None:
    """R4."""
    talk = Talk("connecting", encoding, greeted=False)
    unknown = '[{"type":"x-a"}]' if encoding == "json" else b"\x91\x91\x40"
    assert talk.endpoint.receive(unknown) == []
    assert kinds(talk.hears(HELLO)) == ["hello"]


@BOTH
@SIDES
def test_a_second_hello(encoding: Encoding, side: Side) -> None:
    """R25: later, or in the same message."""
    refused(Talk(side, encoding), HELLO, match="a second hello")
    fresh = Talk("connecting", encoding, greeted=False)
    fresh.says()
    refused(fresh, HELLO, HELLO, match="a second hello")


@BOTH
@SIDES
@pytest.mark.parametrize("version", [0, 2, 3, 2**53 - 1])
def test_an_unknown_version(encoding: Encoding, side: Side, version: int) -> None:
    """R25."""
    talk = Talk(side, encoding, greeted=False)
    talk.says()
    refused(talk, {**HELLO, "version": version}, match=f"unknown version {version} of")
    assert not talk.endpoint.ready


@BOTH
def test_a_hello_is_reported(encoding: Encoding) -> None:
    talk = Talk("connecting", encoding, greeted=False)
    [hello] = talk.hears({**HELLO, "features": ["f"], "metadata": {"a": 1}, "session": "s"})
    assert hello is talk.endpoint.peer_hello
    assert hello.features == ["f"]
    assert hello.session == "s"
    assert bytes(hello.metadata) == talk.payload({"a": 1})


@BOTH
def test_limits_of_the_other_side(encoding: Encoding) -> None:
    """R26: what it announces; the defaults for what it does not."""
    assert Talk("connecting", encoding).endpoint.peer.max_calls == 100
    talk = Talk("connecting", encoding, announced={"max_calls": 3, "max_message_bytes": 2000})
    assert talk.endpoint.peer.max_calls == 3
    assert talk.endpoint.peer.max_message_bytes == 2000
    assert talk.endpoint.peer.max_message_frames == 4096


@BOTH
def test_early_frames_are_held(encoding: Encoding) -> None:
    """R25: nothing is dispatched, nor answered, before this side has accepted the other."""
    talk = Talk("accepting", encoding, greeted=False)
    assert talk.endpoint.held == 0
    assert kinds(talk.hears(HELLO)) == ["hello"]
    assert talk.endpoint.held == 0
    assert talk.hears({"type": "ping"}, {"type": "call", "id": 1, "method": "m"}) == []
    assert talk.endpoint.held == 2
    assert talk.says() == []
    assert talk.endpoint.places.running == 0
    assert kinds(talk.endpoint.accept()) == ["call"]
    assert talk.endpoint.held == 0
    assert [frame["type"] for frame in talk.says()] == ["hello", "pong"]
    assert talk.endpoint.places.running == 1


@BOTH
def test_the_rest_of_the_message_is_held(encoding: Encoding) -> None:
    """R25: and what comes after it, in order."""
    talk = Talk("accepting", encoding, greeted=False)
    first = {"type": "call", "id": 1, "method": "m", "window": STREAM}
    assert kinds(talk.hears(HELLO, first)) == ["hello"]
    assert talk.endpoint.held == 1
    assert talk.hears({"type": "grant", "id": 1, "items": 1}, {"type": "cancel", "id": 1}) == []
    assert kinds(talk.endpoint.accept()) == ["call", "grant", "cancel"]


@BOTH
def test_a_refusal(encoding: Encoding) -> None:
    """R25: a goaway with its code in the place of a hello, and nothing that was held is done."""
    talk = Talk("accepting", encoding, greeted=False)
    talk.hears(HELLO, {"type": "call", "id": 1, "method": "m"})
    talk.endpoint.fail(PermissionDenied("not today"))
    assert talk.says() == [{"type": "goaway", "code": "PERMISSION_DENIED", "message": "not today"}]
    assert talk.endpoint.accept() == []
    assert talk.says() == []


@BOTH
@pytest.mark.parametrize("early", [HELLO, {"type": "end", "id": 2}, {"type": "call", "id": 2}])
def test_what_was_held_and_is_wrong(encoding: Encoding, early: dict[str, Any]) -> None:
    """R25: found as it is taken up, and then a connection error like any other."""
    talk = Talk("accepting", encoding, greeted=False)
    talk.hears(HELLO, {"type": "call", "id": 1}, early)
    with pytest.raises(RemoteProtocolError):
        talk.endpoint.accept()
    assert [frame["type"] for frame in talk.says()] == ["goaway"]
    assert talk.hears({"type": "ping"}) == []


@BOTH
def test_what_cannot_be_decoded_is_not_held(encoding: Encoding) -> None:
    talk = Talk("accepting", encoding, greeted=False)
    talk.hears(HELLO, {"type": "call", "id": 1})
    with pytest.raises(RemoteProtocolError):
        talk.endpoint.receive(b"\xc1" if encoding == "msgpack" else "x")
    assert talk.endpoint.accept() == [], "nothing of what was held is taken up after that"
    assert talk.endpoint.places.running == 0
    assert [frame["type"] for frame in talk.says()] == ["goaway"]


# --- calls and their ids


@BOTH
def test_a_call(encoding: Encoding) -> None:
    talk = Talk("accepting", encoding)
    [call] = talk.hears({
        "type": "call", "id": 1, "method": "a.b", "args": [1, "x"], "kwargs": {"k": None},
        "metadata": {"m": 1}, "timeout": 2,
    })  # fmt: skip
    assert isinstance(call, Call)
    assert (call.id, call.method, call.timeout, call.window) == (1, "a.b", 2.0, None)
    assert bytes(call.args) == talk.payload([1, "x"])
    assert bytes(call.kwargs) == talk.payload({"k": None})
    assert bytes(call.metadata) == talk.payload({"m": 1})
    [bare] = talk.hears({"type": "call", "id": 3})
    assert isinstance(bare, Call)
    assert is_absent(bare.args)
    assert is_absent(bare.kwargs)
    assert is_absent(bare.metadata)


@BOTH
def test_a_windowed_call_gives_its_credit(encoding: Encoding) -> None:
    """R18: a window of nothing is one that has to be granted first."""
    talk = Talk("accepting", encoding)
    talk.called(1, window={"items": 2, "bytes": 50})
    assert talk.endpoint.may_send(1)
    talk.called(3, window={"items": 0, "bytes": 0})
    assert not talk.endpoint.may_send(3)
    assert kinds(talk.hears({"type": "grant", "id": 3, "items": 1, "bytes": 1})) == ["grant"]
    assert talk.endpoint.may_send(3)


@BOTH
@SIDES
@pytest.mark.parametrize("step", [2, 4, 1000])
def test_ids_go_up(encoding: Encoding, side: Side, step: int) -> None:
    """R5: strictly, by any step; a new one closes those below it that were never used."""
    talk = Talk(side, encoding)
    first = 1 if side == "accepting" else 2
    talk.called(first)
    talk.called(first + step)
    assert talk.endpoint.highest_seen == first + step
    for id in (first, first + step, first + step - 2):
        again = Talk(side, encoding)
        again.called(first)
        if step > 2 or id != first + step - 2:
            again.called(first + step)
            refused(again, {"type": "call", "id": id}, match=f"id {id} does not go up")


@BOTH
@SIDES
@pytest.mark.parametrize("id", [1, 2, 7, 8, 2**53 - 2, 2**53 - 1])
def test_ids_have_the_other_sides_parity(encoding: Encoding, side: Side, id: int) -> None:
    """R5: odd from the connecting side, even from the accepting side."""
    talk = Talk(side, encoding)
    if (id % 2 == 1) == (side == "accepting"):
        assert kinds(talk.called(id)) == ["call"]
    else:
        refused(talk, {"type": "call", "id": id}, match="this side's parity")


@BOTH
def test_a_duplicate_of_an_open_id(encoding: Encoding) -> None:
    """R5: its handler is started once."""
    talk = Talk("accepting", encoding)
    call = {"type": "call", "id": 1, "method": "m"}
    refused(talk, call, call, match="does not go up")
    assert talk.endpoint.places.running == 1


def test_a_timeout_that_is_not_a_number() -> None:
    """R23: JSON cannot say it; infinity is no timeout."""
    refused(Talk("accepting", "msgpack"), {"type": "call", "id": 1, "timeout": math.nan})
    for value in (math.inf, 0.0, -1.0, 5.0):
        [call] = Talk("accepting", "msgpack").called(1, timeout=value)
        assert isinstance(call, Call)
        assert call.timeout == value


# --- refusals


@BOTH
def test_calls_beyond_max_calls(encoding: Encoding) -> None:
    """R26: refused, nothing is started, and it costs (section 7)."""
    talk = Talk("accepting", encoding, limits=Limits(max_calls=2, violation_budget=3))
    talk.called(1)
    talk.called(3, window=STREAM)
    for id in (5, 7, 9):
        assert talk.called(id) == []
        [error] = talk.says()
        assert (error["type"], error["id"]) == ("error", id)
        assert error["error"]["code"] == "RESOURCE_EXHAUSTED"
        assert "retry" not in error
        assert talk.endpoint.places.running == 2
    last = refused(talk, {"type": "call", "id": 11}, match="too many violations")
    assert last.close_code == 1008


@BOTH
def test_a_place_is_free_when_the_writer_takes_the_final_frame(encoding: Encoding) -> None:
    """R26: a peer that calls and cancels without reading finds no more places than there are."""
    talk = Talk("accepting", encoding, limits=Limits(max_calls=1))
    for id in (1, 5):
        talk.called(id)
        talk.hears({"type": "cancel", "id": id})
        talk.endpoint.answer_error(id, ErrorInfo("CANCELLED"))
        assert talk.endpoint.places.running == 1
        assert talk.called(id + 2) == []
        assert [frame["id"] for frame in talk.says()] == [id + 2, id]
        assert talk.endpoint.places.running == 0


@BOTH
def test_overrun_handlers_keep_their_places(encoding: Encoding) -> None:
    """R7a: refusals for want of them carry ``retry`` and cost nothing, until they have stopped."""
    talk = Talk("accepting", encoding, limits=Limits(max_calls=2, violation_budget=1))
    talk.called(1)
    talk.called(3)
    call = talk.endpoint.exchanges[3]
    talk.hears({"type": "cancel", "id": 3})
    talk.endpoint.answer_error(3, ErrorInfo("DEADLINE_EXCEEDED", "CleanupTimeout"), overrun=True)
    assert [frame["id"] for frame in talk.says()] == [3]
    assert (talk.endpoint.places.running, talk.endpoint.places.overrunning) == (2, 1)
    for id in range(5, 105, 2):
        assert talk.called(id) == []
        [error] = talk.says()
        assert error["error"]["code"] == "RESOURCE_EXHAUSTED"
        assert error["retry"] is True
    talk.endpoint.stopped(call)
    assert (talk.endpoint.places.running, talk.endpoint.places.overrunning) == (1, 0)
    assert kinds(talk.called(105)) == ["call"]
    talk.called(107)
    assert "retry" not in talk.says()[0]
    refused(talk, {"type": "call", "id": 109}, match="too many violations")


@BOTH
def test_a_drain_refuses_what_comes_after_it(encoding: Encoding) -> None:
    """R27: UNAVAILABLE with ``retry``, at no cost; what runs goes on."""
    talk = Talk("accepting", encoding, limits=Limits(violation_budget=1))
    talk.called(1)
    talk.endpoint.drain()
    assert talk.says() == [{"type": "goaway", "last_id": 1}]
    for id in (3, 5, 7):
        assert talk.called(id) == []
        [error] = talk.says()
        assert (error["id"], error["error"]["code"], error["retry"]) == (id, "UNAVAILABLE", True)
    talk.endpoint.answer(1, talk.payload(5))
    assert talk.says() == [{"type": "result", "id": 1, "value": 5}]


@BOTH
@pytest.mark.parametrize("draining", [False, True])
def test_a_call_to_what_has_ended(encoding: Encoding, draining: bool) -> None:
    """R27: it is NOT_FOUND and costs nothing; a drain is about calls with target 0 alone."""
    talk = Talk("accepting", encoding, limits=Limits(violation_budget=1, max_calls=1))
    talk.called(1)
    if draining:
        talk.endpoint.drain()
        talk.says()
    for id in (3, 5, 7):
        assert talk.called(id, target=4) == []
        [error] = talk.says()
        assert (error["id"], error["error"]["code"]) == (id, "NOT_FOUND")
        assert "retry" not in error


# --- references


@BOTH
def test_uploads_are_opened(encoding: Encoding) -> None:
    """R18, R19: with the window that this side's hello announced."""
    limits = Limits(window=Window(2, 100))
    talk = Talk("accepting", encoding, limits=limits)
    refs = [[0, "stream", 3], ["name", "object", 5], [1, "stream", 7]]
    assert kinds(talk.called(1, args=[None, None], refs=refs)) == ["call"]
    assert talk.endpoint.highest_seen == 7
    assert talk.endpoint.exchanges.keys() == {1, 3, 7}
    assert talk.endpoint.places.running == 1, "an upload takes no place in max_calls"
    assert kinds(talk.hears(chunk(3, 1, 2))) == ["chunk"]
    assert kinds(talk.hears(chunk(7, 1, 2, 3))) == ["overflow"]
    assert kinds(talk.hears({"type": "end", "id": 3})) == ["end"]
    assert talk.endpoint.exchanges.keys() == {1, 7}


@BOTH
@pytest.mark.parametrize(
    "ids", [[1], [3, 3], [5, 3], [4], [3, 4]], ids=["call's", "same", "down", "ours", "later ours"]
)
@pytest.mark.parametrize("kind", ["stream", "object"])
def test_ids_of_refs(encoding: Encoding, ids: list[int], kind: str) -> None:
    """R5: above the call's, ascending, of the same parity."""
    refs = [[place, kind, id] for place, id in enumerate(ids)]
    refused(Talk("accepting", encoding), {"type": "call", "id": 1, "refs": refs})


@BOTH
@pytest.mark.parametrize("why", ["max_calls", "drain", "target"])
def test_refs_of_a_refused_call(encoding: Encoding, why: str) -> None:
    """R19: opened all the same, and cancelled by the callee before its final frame (R10)."""
    talk = Talk("accepting", encoding, limits=Limits(max_calls=1))
    talk.called(1)
    if why == "drain":
        talk.endpoint.drain()
        talk.says()
    refs = [[0, "stream", 5], [1, "stream", 7]]
    assert talk.called(3, refs=refs, target=2 if why == "target" else 0) == []
    assert [(frame["type"], frame["id"]) for frame in talk.says()] == [
        ("cancel", 5), ("cancel", 7), ("error", 3),
    ]  # fmt: skip
    assert talk.hears(chunk(5, 1)) == [], "what was under way is dropped (R9)"
    assert kinds(talk.hears({"type": "end", "id": 5})) == ["end"]
    assert kinds(talk.hears({"type": "error", "id": 7, "error": {"code": "X"}})) == ["error"]
    assert talk.endpoint.exchanges.keys() == {1}
    refused(talk, {"type": "end", "id": 5}, match="CLOSED")


@BOTH
def test_uploads_beyond_max_uploads(encoding: Encoding) -> None:
    """R19: refused above 64 on a connection, which costs; above 128 a connection error."""
    talk = Talk("accepting", encoding, limits=Limits(violation_budget=1))
    first = [[place, "stream", 3 + 2 * place] for place in range(64)]
    assert kinds(talk.called(1, refs=first)) == ["call"]
    assert talk.called(131, refs=[[0, "stream", 133]]) == []
    assert [(frame["type"], frame["id"]) for frame in talk.says()] == [
        ("cancel", 133), ("error", 131),
    ]  # fmt: skip
    talk.hears({"type": "end", "id": 3}, {"type": "end", "id": 133})
    assert kinds(talk.called(201, refs=[[0, "stream", 203]])) == ["call"], "a place is free again"
    refused(talk, {"type": "call", "id": 205, "refs": [[0, "stream", 207]]}, match="violations")


@BOTH
@pytest.mark.parametrize("over", [False, True])
def test_uploads_of_one_call_are_bounded(encoding: Encoding, over: bool) -> None:
    """R19: no message opens more records than twice max_uploads."""
    talk = Talk("accepting", encoding)
    count = 129 if over else 128
    call = {
        "type": "call",
        "id": 1,
        "refs": [[place, "stream", 3 + 2 * place] for place in range(count)],
    }
    if over:
        refused(talk, call, match="uploads")
        assert len(talk.endpoint.exchanges) <= 129
    else:
        assert talk.hears(call) == []
        assert len(talk.says()) == 129


@BOTH
def test_objects_beside_too_many_uploads(encoding: Encoding) -> None:
    """R19: only calls that bring uploads are refused for those that there are."""
    talk = Talk("accepting", encoding, limits=Limits(max_uploads=1, violation_budget=1))
    assert kinds(talk.called(1, refs=[[0, "stream", 3]])) == ["call"]
    assert talk.called(5, refs=[[0, "stream", 7]]) == []
    assert [frame["id"] for frame in talk.says()] == [7, 5]
    assert talk.endpoint.uploads == 2
    assert kinds(talk.called(9, refs=[[0, "object", 11]])) == ["call"]
    assert talk.says() == []


@BOTH
@pytest.mark.parametrize("in_parts", [False, True])
def test_references_of_one_call_are_bounded(encoding: Encoding, in_parts: bool) -> None:
    """R19: by max_uploads and max_object_calls together; more is refused, which costs."""
    limits = Limits(max_uploads=2, max_object_calls=3, violation_budget=1)
    talk = Talk("accepting", encoding, limits=limits)
    more = {"parts": 100} if in_parts else {}
    refs: list[list[Any]] = [[place, "object", 3 + 2 * place] for place in range(5)]
    assert kinds(talk.called(1, refs=refs)) == ["call"]
    refs = [[place, "object", 103 + 2 * place] for place in range(6)]
    refs[5][1] = "stream"
    assert talk.called(101, refs=refs, **more) == []
    cancel, error = talk.says()
    assert (cancel["type"], cancel["id"]) == ("cancel", 113)
    assert (error["id"], error["error"]["code"]) == (101, "RESOURCE_EXHAUSTED")
    assert talk.endpoint.assembly.unfinished == talk.endpoint.assembly.uploads == {}
    assert talk.endpoint.exchanges.keys() == {1, 113}
    assert talk.endpoint.highest_seen == 113, "their ids are opened"
    refs = [[place, "object", 203 + 2 * place] for place in range(6)]
    refused(talk, {"type": "call", "id": 201, "refs": refs}, match="violations")


@BOTH
def test_references_beyond_the_bound_cost_whatever_is_called(encoding: Encoding) -> None:
    """R19, R20: a target that has ended is no excuse."""
    limits = Limits(max_uploads=1, max_object_calls=1, violation_budget=1)
    talk = Talk("accepting", encoding, limits=limits)
    for id in (1, 101):
        refs = [[place, "object", id + 2 + 2 * place] for place in range(3)]
        call = {"type": "call", "id": id, "target": 2, "refs": refs}
        if id == 1:
            assert talk.hears(call) == []
            assert [each["error"]["code"] for each in talk.says()] == ["RESOURCE_EXHAUSTED"]
        else:
            refused(talk, call, match="violations")


# --- finals


@BOTH
def test_a_result(encoding: Encoding) -> None:
    """A value that is left out is null, and not nothing."""
    talk = Talk("connecting", encoding)
    first, second = talk.calls().id, talk.calls().id
    [result] = talk.hears({"type": "result", "id": second, "value": {"a": 1}})
    assert isinstance(result, Result)
    assert bytes(result.value) == talk.payload({"a": 1})
    [empty] = talk.hears({"type": "result", "id": first})
    assert isinstance(empty, Result)
    assert bytes(empty.value) == talk.payload(None)
    assert talk.endpoint.exchanges == {}


@BOTH
@pytest.mark.parametrize("window", [None, Window(4, 1000)])
def test_nothing_follows_a_final_frame(encoding: Encoding, window: Window | None) -> None:
    """R6: not even in the same message; a second final frame neither."""
    final = "end" if window else "result"
    for second in (final, "error"):
        talk = Talk("connecting", encoding)
        id = talk.calls(window=window).id
        last = {"type": second, "id": id}
        if second == "error":
            last["error"] = {"code": "ABORTED"}
        refused(talk, {"type": final, "id": id}, last, match="which is CLOSED")
    if window:
        talk = Talk("connecting", encoding)
        id = talk.calls(window=window).id
        refused(talk, {"type": "end", "id": id}, chunk(id, 1), match="which is CLOSED")


# --- chunks


@BOTH
def test_a_chunk(encoding: Encoding) -> None:
    talk = Talk("connecting", encoding)
    exchange = talk.calls(window=Window(4, 1000))
    [event] = talk.hears(chunk(exchange.id, 1, 2))
    assert isinstance(event, Chunk)
    assert [bytes(item) for item in event.items] == [talk.payload(1), talk.payload(2)]
    assert exchange.window is not None
    assert (exchange.window.buffered_items, exchange.window.buffered_bytes) == (2, 2)


@BOTH
@pytest.mark.parametrize(
    ("items", "size", "why"),
    [
        ([1] * 5, 5, "5 items where 4 were granted"),
        ([1, 1], 3, "a chunk of 2 bytes that says 3"),
        ([1, 1], 1, "a chunk of 2 bytes that says 1"),
        (["x" * 9, "x" * 9, 1], None, "where 20 were granted"),
    ],
)
def test_a_chunk_beyond_the_credit(
    encoding: Encoding, items: list[Any], size: int | None, why: str
) -> None:
    """R16: dropped whole, its producer is told to stop; what fitted before is kept."""
    talk = Talk("connecting", encoding)
    exchange = talk.calls(window=Window(4, 21))
    if size is None:
        talk.hears(chunk(exchange.id, 1))
        size = sum(len(talk.payload(item)) for item in items)
    before = exchange.window
    assert before is not None
    received = before.received_items
    [event] = talk.hears({"type": "chunk", "id": exchange.id, "items": items, "size": size})
    assert isinstance(event, Overflow)
    assert (event.id, event.info.code) == (exchange.id, "FLOW_CONTROL")
    assert why in event.info.message
    [cancel] = talk.says()
    assert (cancel["type"], cancel["id"], cancel["error"]["code"]) == (
        "cancel", exchange.id, "FLOW_CONTROL",
    )  # fmt: skip
    assert talk.state(exchange.id) == "LEAVING"
    assert before.received_items == received
    assert talk.hears(chunk(exchange.id, 1)) == [], "nothing more is shown of it"
    assert kinds(talk.hears({"type": "end", "id": exchange.id})) == ["end"]


@BOTH
def test_chunks_beyond_the_credit_cost(encoding: Encoding) -> None:
    """R16, section 7: of a stream, and after a ``cancel`` beyond the credit that was left."""
    talk = Talk("connecting", encoding, limits=Limits(violation_budget=3))
    first = talk.calls(window=Window(2, 1000)).id
    assert kinds(talk.hears(chunk(first, 1, 2, 3))) == ["overflow"]
    talk.says()
    second = talk.calls(window=Window(2, 1000)).id
    talk.endpoint.cancel(second, "close")
    talk.says()
    assert talk.hears(chunk(second, 1, 2)) == [], "within the credit: it merely crossed (R9)"
    assert talk.hears(chunk(second, 1)) == []
    assert talk.hears(chunk(second, 1)) == []
    refused(talk, chunk(second, 1), match="credit that was left.*: 1 items where 0")


@BOTH
def test_an_empty_chunk_costs(encoding: Encoding) -> None:
    """It takes no credit, so that nothing else would bound it."""
    talk = Talk("connecting", encoding, limits=Limits(violation_budget=2))
    id = talk.calls(window=Window(2, 1000)).id
    assert talk.hears(chunk(id)) == []
    talk.endpoint.cancel(id, "close")
    assert talk.hears(chunk(id)) == []
    talk.says()
    refused(talk, chunk(id), match="an empty chunk")


@BOTH
def test_crossing_chunks_are_dropped(encoding: Encoding) -> None:
    """R9: after a ``cancel``, until the final frame; then no more."""
    talk = Talk("connecting", encoding)
    id = talk.calls(window=Window(4, 1000)).id
    talk.endpoint.cancel(id, "close")
    assert talk.hears(chunk(id, 1), chunk(id, 2)) == []
    assert kinds(talk.hears(chunk(id, 3), {"type": "end", "id": id})) == ["end"]
    talk.says()
    refused(talk, chunk(id, 1), match="which is CLOSED")


@BOTH
@pytest.mark.parametrize("padding", [0, 100_000])
def test_items_do_not_keep_a_large_message_alive(encoding: Encoding, padding: int) -> None:
    """R16: a Raw is a view of its message; what waits is bounded by what was granted."""
    talk = Talk("connecting", encoding)
    id = talk.calls(window=Window(1000, 100_000)).id
    large = message(
        encoding, {"type": "ping", "token": "x" * padding}, chunk(id, 1), chunk(id, 2, 3)
    )
    size = len(large)
    tracemalloc.start()
    try:
        events = []
        for _ in range(20):
            # A copy each time, as from a transport, that nobody else keeps.
            copy = large[:1] + large[1:]  # type: ignore[operator]
            events += talk.endpoint.receive(copy)
            del copy
            talk.says()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(events) == 40
    assert kept < 60_000, f"{kept} bytes for 60 items, of messages of {size}"
    items = [item for event in events for item in event.items]  # type: ignore[union-attr]
    assert [bytes(item) for item in items] == [talk.payload(value) for value in (1, 2, 3)] * 20


@BOTH
def test_pongs_do_not_keep_a_large_message_alive(encoding: Encoding) -> None:
    """R24: what waits is what ``control_bytes`` says, not the messages that it came in."""
    talk = Talk("accepting", encoding)
    # Frames of unknown kinds are ignored, however large (R4).
    if encoding == "json":
        large: bytes | str = '[{"type":"ping","token":1},{"type":"x-a","b":"%s"}]' % ("x" * 100_000)
    else:
        large = msgspec.msgpack.encode([[9, 1], [64, "x" * 100_000]])
    tracemalloc.start()
    try:
        for _ in range(20):
            talk.endpoint.receive(large[:1] + large[1:])  # type: ignore[operator]
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 60_000
    assert talk.endpoint.outbox.control_bytes < 20 * 200
    assert talk.says() == [{"type": "pong", "token": 1}] * 20


# --- cancel and grant


@BOTH
def test_a_cancel_is_reported(encoding: Encoding) -> None:
    """R8: with its mode and its error; a second one may follow."""
    talk = Talk("accepting", encoding)
    talk.called(1)
    [first] = talk.hears({"type": "cancel", "id": 1, "mode": "close"})
    error = {"code": "UNKNOWN", "name": "ValueError", "message": "no"}
    [second] = talk.hears({"type": "cancel", "id": 1, "mode": "abort", "error": error})
    assert (first.mode, first.error) == ("close", None)  # type: ignore[union-attr]
    assert second.mode == "abort"  # type: ignore[union-attr]
    assert second.error == ErrorInfo("UNKNOWN", "ValueError", "no")  # type: ignore[union-attr]


@BOTH
def test_a_cancel_drops_what_waits_for_its_consumer(encoding: Encoding) -> None:
    """R9: the items need not be written; the final frame must be (R7)."""
    talk = Talk("accepting", encoding)
    talk.called(1, window=STREAM)
    talk.endpoint.send(1, talk.payload(5))
    assert kinds(talk.hears({"type": "cancel", "id": 1})) == ["cancel"]
    assert not talk.endpoint.may_send(1), "though there is credit"
    talk.endpoint.end(1)
    assert talk.says() == [{"type": "end", "id": 1}]


@BOTH
@pytest.mark.parametrize("written", [False, True])
def test_crossing_cancels_and_grants_are_ignored(encoding: Encoding, written: bool) -> None:
    """R9: for an id whose final frame is on its way, even a wrong grant."""
    talk = Talk("accepting", encoding)
    talk.called(1, window=STREAM)
    talk.called(3)
    talk.endpoint.end(1)
    talk.endpoint.answer(3, talk.payload(None))
    if written:
        assert len(talk.says()) == 2
    frames: list[dict[str, Any]] = [
        {"type": "cancel", "id": 1}, {"type": "cancel", "id": 1},
        {"type": "grant", "id": 1, "items": 1, "bytes": 1}, {"type": "cancel", "id": 3},
    ]  # fmt: skip
    assert talk.hears(*frames) == []
    assert len(talk.says()) == (0 if written else 2)
    # An id that was skipped was closed by the one above it (R5).
    talk.called(9)
    assert talk.hears({"type": "cancel", "id": 7}) == []
    refused(talk, {"type": "cancel", "id": 11}, match="cancel on id 11, which is IDLE")


@BOTH
@pytest.mark.parametrize(
    ("items", "bytes"),
    [(0, 0), (2**53 - 4, 0), (0, 2**53 - 1000), (2**53 - 1, 2**53 - 1)],
)
def test_wrong_grants(encoding: Encoding, items: int, bytes: int) -> None:
    """R15: nothing at all, or sums of 2^53 and more."""
    talk = Talk("accepting", encoding)
    talk.called(1, window=STREAM)
    grant = {"type": "grant", "id": 1, "items": items, "bytes": bytes}
    refused(talk, grant, match=f"a grant of {items} items and {bytes} bytes")


@BOTH
def test_a_million_tiny_grants_are_no_more_than_numbers(encoding: Encoding) -> None:
    """R15: and the largest sum that is valid."""
    talk = Talk("accepting", encoding)
    talk.called(1, window={"items": 0, "bytes": 0})
    tiny = message(encoding, *[{"type": "grant", "id": 1, "items": 1, "bytes": 1}] * 1000)
    for _ in range(10):
        assert len(talk.endpoint.receive(tiny)) == 1000
    [grant] = talk.hears(
        {"type": "grant", "id": 1, "items": 2**53 - 10_001, "bytes": 2**53 - 10_001}
    )
    assert isinstance(grant, Grant)
    credit = talk.endpoint.exchanges[1].credit
    assert credit is not None
    assert (credit.items, credit.bytes) == (2**53 - 1, 2**53 - 1)
    assert talk.says() == []


# --- ping, pong, goaway


@BOTH
@pytest.mark.parametrize("token", [None, 5, "t", {"a": [1]}])
def test_a_ping_is_answered(encoding: Encoding, token: Any) -> None:
    """R24: with its token as it came."""
    talk = Talk("accepting", encoding)
    ping = {"type": "ping"} if token is None else {"type": "ping", "token": token}
    assert talk.hears(ping) == []
    assert talk.says() == [{**ping, "type": "pong"}]


@BOTH
def test_a_pong_is_reported(encoding: Encoding) -> None:
    [pong] = Talk("accepting", encoding).hears({"type": "pong", "token": 5})
    assert bytes(pong.token) == payload(encoding, 5)  # type: ignore[union-attr]


@BOTH
@pytest.mark.parametrize(
    "more",
    [
        {"metadata": {"a": "x" * 16_384}},
        {"features": ["f"] * 65},
        {"features": ["f" * 8_192, "f" * 8_193]},
        {"session": "s" * 16_385},
        {"features": ["f" * 8_192], "session": "s" * 8_193},
    ],
)
def test_a_hello_with_too_much_in_it(encoding: Encoding, more: dict[str, Any]) -> None:
    """R28: it is kept for as long as the connection lives, whoever says it."""
    talk = Talk("accepting", encoding, greeted=False)
    with pytest.raises(RemoteProtocolError, match="too much") as caught:
        talk.hears({"type": "hello", "version": 1, **more})
    assert caught.value.close_code == 1009


@BOTH
def test_a_call_with_too_much_metadata(encoding: Encoding) -> None:
    """It fails that call, and costs nothing."""
    talk = Talk("accepting", encoding)
    assert talk.called(1, metadata={"a": "x" * 16_384}) == []
    [refused] = talk.says()
    assert refused["error"]["code"] == "INVALID_ARGUMENT"
    [call] = talk.called(3, metadata={"a": "x" * 16_000})
    assert len(call.metadata) > 16_000  # type: ignore[union-attr]


@BOTH
def test_a_ping_flood_is_counted(encoding: Encoding) -> None:
    """R24: the runtime stops reading at ``max_waiting_control_bytes``."""
    talk = Talk("accepting", encoding)
    before = 0
    for _ in range(100):
        talk.hears({"type": "ping", "token": "x" * 100})
        assert talk.endpoint.outbox.control_bytes >= before + 100
        before = talk.endpoint.outbox.control_bytes
    talk.says()
    assert talk.endpoint.outbox.control_bytes == 0


@BOTH
def test_the_other_side_drains(encoding: Encoding) -> None:
    """R27: a ``goaway`` without a code; what runs goes on, both ways."""
    talk = Talk("connecting", encoding)
    id = talk.calls().id
    [goaway] = talk.hears({"type": "goaway", "last_id": 1})
    assert (goaway.last_id, goaway.code) == (1, None)  # type: ignore[union-attr]
    assert talk.endpoint.peer_drains
    assert not talk.endpoint.failed
    assert kinds(talk.called(2)) == ["call"]
    assert kinds(talk.hears({"type": "result", "id": id})) == ["result"]


@BOTH
@pytest.mark.parametrize("greeted", [True, False])
def test_the_other_side_has_failed(encoding: Encoding, greeted: bool) -> None:
    """R27, R25: after a ``goaway`` with a code nothing is received or said any more."""
    talk = Talk("connecting", encoding, greeted=greeted)
    if greeted:
        talk.calls()
    goaway = {"type": "goaway", "code": "UNAUTHENTICATED", "message": "who are you?"}
    [event] = talk.hears(goaway, {"type": "call", "id": 2})
    assert (event.code, event.message) == ("UNAUTHENTICATED", "who are you?")  # type: ignore[union-attr]
    assert talk.endpoint.failed
    assert not talk.endpoint.ready
    assert talk.hears({"type": "ping"}) == []
    talk.endpoint.ping(Raw(talk.payload(1)))
    talk.endpoint.fail(RemoteProtocolError("too late"))
    assert talk.says() == []


# --- empty messages, violations


@BOTH
def test_empty_messages_cost(encoding: Encoding) -> None:
    """R1: an array of one or more frames. The budget refills with time (section 7)."""
    talk = Talk("accepting", encoding, limits=Limits(violation_budget=2, violation_refill=10.0))
    assert talk.hears(now=100.0) == []
    assert talk.hears(now=100.0) == []
    assert talk.hears(now=100.15) == [], "1.5 are back"
    assert talk.hears(now=100.25) == []
    with pytest.raises(RemoteProtocolError, match="the last was an empty message") as caught:
        talk.hears(now=100.26)
    assert caught.value.close_code == 1008
    assert [frame["type"] for frame in talk.says()] == ["goaway"]


@BOTH
def test_messages_that_are_ignored_cost_nothing(encoding: Encoding) -> None:
    """R4: who says what this side does not know breaks no rule."""
    talk = Talk("accepting", encoding, limits=Limits(violation_budget=1))
    unknown = '[{"type":"x-a"}]' if encoding == "json" else b"\x91\x91\x40"
    for _ in range(10):
        assert talk.endpoint.receive(unknown) == []
    assert not talk.endpoint.failed


# --- connection errors


@BOTH
def test_nothing_of_a_wrong_message_is_reported(encoding: Encoding) -> None:
    """R4, R27: what waits to be written is dropped; ``goaway`` is the last that is written."""
    talk = Talk("accepting", encoding)
    talk.called(1, window=STREAM)
    talk.called(3)
    talk.endpoint.send(1, talk.payload(5))
    with pytest.raises(RemoteProtocolError):
        talk.hears({"type": "ping"}, {"type": "call", "id": 5}, {"type": "end", "id": 2})
    # Handlers do not stop at once, and say what they have to say.
    talk.endpoint.send(1, talk.payload(6))
    talk.endpoint.answer(3, talk.payload(None))
    talk.endpoint.end(1)
    talk.endpoint.ping(Raw(talk.payload(None)))
    talk.endpoint.drain()
    talk.endpoint.fail(RemoteProtocolError("once more"))
    assert talk.says() == [
        {
            "type": "goaway",
            "last_id": 5,
            "code": "PROTOCOL_ERROR",
            "message": "end on id 2, which is IDLE",
        }
    ]
    assert talk.hears({"type": "call", "id": 7}) == []
    assert talk.endpoint.receive(b"\xc1" if encoding == "msgpack" else "x") == []
    assert talk.says() == []


@BOTH
def test_a_frame_that_cannot_be_decoded_undoes_its_message(encoding: Encoding) -> None:
    """R4: if any frame of a message is invalid, none of it is processed."""
    talk = Talk("accepting", encoding)
    talk.called(1)
    refused(talk, {"type": "cancel", "id": 1}, {"type": "call", "id": 3}, {"type": "end", "id": 0})
    assert talk.state(1) == "ANSWERING"
    assert talk.endpoint.highest_seen == 1


@BOTH
@SIDES
@given(data=st.data())
def test_garbage(encoding: Encoding, side: Side, data: st.DataObject) -> None:
    """R28: frames or RemoteProtocolError, nothing else; then silence."""
    talk = Talk(side, encoding)
    talk.calls(window=Window(3, 100))
    talk.calls()
    talk.called(1 if side == "accepting" else 2, window=STREAM)
    for _ in range(data.draw(st.integers(1, 10))):
        try:
            talk.endpoint.receive(data.draw(_messages(encoding)))
        except RemoteProtocolError as error:
            problem = error.message
            assert len(problem) < 250
            assert problem.isprintable()
            [goaway] = talk.says()
            assert goaway["type"] == "goaway"
            assert talk.endpoint.receive(data.draw(_messages(encoding))) == []
            assert talk.says() == []
            return
        talk.says()


VALUES = st.none() | st.booleans() | st.integers(-1, 5) | st.text(max_size=2) | st.just([1])
#: Frames that are nearly right.
FRAMES = st.sampled_from(list(FIELDS)).flatmap(
    lambda kind: st.fixed_dictionaries(
        {"type": st.just(kind)},
        optional={
            field: {
                "id": st.integers(0, 8),
                "items": st.integers(0, 3) if kind == "grant" else st.lists(VALUES, max_size=3),
                "size": st.integers(0, 4),
                "error": st.just({"code": "X"}),
                "mode": st.sampled_from(["close", "abort"]),
                "window": st.just(STREAM),
                "refs": st.lists(st.tuples(VALUES, st.just("stream"), st.integers(1, 9))),
                "method": st.text(max_size=3),
            }.get(field, VALUES)
            for field in FIELDS[kind]
        },
    )
)


def _messages(encoding: Encoding) -> st.SearchStrategy[bytes | str]:
    nearly = st.lists(FRAMES, max_size=4).map(lambda frames: message(encoding, *frames))
    if encoding == "json":
        whole = st.text(st.characters(codec=None), max_size=100)
        values = VALUES.map(json.dumps)
        return st.one_of(nearly, nearly, whole, values, st.binary(max_size=5))
    return st.one_of(nearly, nearly, st.binary(max_size=100), st.text(max_size=5))


def test_codes_of_refusals_are_codes() -> None:
    """R22: what this side makes up itself is an error like any other."""
    info = Endpoint("accepting").error_info(Code.NOT_FOUND, "no such object")
    assert info == ErrorInfo("NOT_FOUND", "", "no such object")
