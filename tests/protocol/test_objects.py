"""Objects: what one side exports and the other side calls, and the places of these calls."""

from __future__ import annotations

from typing import Any

import pytest

from tests.protocol.wire import BOTH, STREAM, WINDOW, Talk, deliver, pair
from trio_streamrpc.errors import (
    LocalProtocolError,
    RemoteProtocolError,
    ResourceExhausted,
    Unavailable,
)
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.protocol.frames import KINDS, ErrorInfo, Frame

OBJECT: tuple[int | str, Any] = (0, "object")
UPLOAD: tuple[int | str, Any] = (0, "stream")


def call(talk: Talk, *refs: tuple[int | str, Any], **options: Any) -> Exchange:
    """A call with these references; nothing is written."""
    args = talk.payload([None] * len(refs))
    return talk.endpoint.call("m", args, refs=refs, **options)


def departed(talk: Talk) -> list[int]:
    """What the writer has taken since this was last asked."""
    ids, talk.endpoint.departed = talk.endpoint.departed, []
    return ids


def codes(talk: Talk) -> dict[int, str]:
    """The errors that wait to be written: id → code."""
    return {frame["id"]: frame["error"]["code"] for frame in talk.says()}


# --- calls with references


@BOTH
@pytest.mark.parametrize("side", ["connecting", "accepting"])
def test_a_call_with_references(encoding: Encoding, side: Any) -> None:
    """R5, R19: their ids are above the call's and ascend; the next call's is above them."""
    talk = Talk(side, encoding)
    first = 1 if side == "connecting" else 2
    made = call(talk, (0, "object"), ("name", "stream"), (2, "object"), (3, "stream"))
    assert made.id == first
    assert made.objects == (first + 2, first + 6)
    assert [each.id for each in made.uploads] == [first + 4, first + 8]
    after = talk.endpoint.call("m", talk.payload([]))
    assert after.id == first + 10
    frame, _ = talk.says()
    assert frame["refs"] == [
        [0, "object", first + 2],
        ["name", "stream", first + 4],
        [2, "object", first + 6],
        [3, "stream", first + 8],
    ]
    assert frame["args"] == [None] * 4


@BOTH
def test_an_upload_begins_with_what_the_other_side_announced(encoding: Encoding) -> None:
    """R18."""
    talk = Talk("connecting", encoding, announced={"window": {"items": 2, "bytes": 3}})
    [upload] = call(talk, UPLOAD).uploads
    assert upload.credit is not None
    assert (upload.credit.items, upload.credit.bytes) == (2, 3)
    assert talk.endpoint.may_send(upload.id)
    talk.endpoint.send(upload.id, talk.payload(1))
    talk.endpoint.send(upload.id, talk.payload(2))
    assert not talk.endpoint.may_send(upload.id)
    assert [frame["type"] for frame in talk.says()] == ["call", "chunk"]


@BOTH
def test_references_count_for_the_length_of_a_call(encoding: Encoding) -> None:
    """R26: what would not fit into a message is refused, and has used no id."""
    talk = Talk("connecting", encoding, announced={"max_message_bytes": 2000})
    with pytest.raises(ResourceExhausted, match="a call without its arguments would take"):
        call(talk, *(("x" * 20, "object") for _ in range(50)))
    assert talk.endpoint.exchanges == {}
    assert talk.endpoint.objects == {}
    assert call(talk, OBJECT).id == 1
    assert len(talk.says()) == 1


@BOTH
@pytest.mark.parametrize("place", ["a", "ä" * 10, '"' * 20, "\n" * 20, 2**31])
def test_the_longest_call_with_references_fits(encoding: Encoding, place: Any) -> None:
    """A call that is taken is never too long for the other side, whatever its places are called."""
    limits = Limits(max_message_bytes=2000)
    ours, theirs = pair(encoding, accepting=limits)
    count = 0
    for number in range(1, 100):
        args = b"\x90" if encoding == "msgpack" else b"[]"
        try:
            ours.call("m", args, refs=[(place, "object")] * number)
        except ResourceExhausted:
            break
        deliver(ours, theirs)
        count += 1
    assert 5 < count < 99


@BOTH
def test_more_references_than_the_other_side_takes(encoding: Encoding) -> None:
    """R19: such a call fails here; nothing is said, and no id is used."""
    talk = Talk("connecting", encoding, announced={"max_uploads": 1, "max_object_calls": 2})
    args = talk.payload([None] * 4)
    refs = [(place, "object") for place in range(4)]
    with pytest.raises(ResourceExhausted, match="4 references; the other side takes at most 3"):
        talk.endpoint.call("m", args, refs=refs)  # type: ignore[arg-type]
    with pytest.raises(ResourceExhausted, match="4 references; the other side takes at most 3"):
        talk.endpoint.parts_of("m", args, refs=refs)  # type: ignore[arg-type]
    assert talk.says() == []
    assert talk.endpoint.exchanges == {}
    assert call(talk, *refs[:3]).id == 1


# --- who may call an object, and for how long


@BOTH
def test_an_object_is_called(encoding: Encoding) -> None:
    """R19, R20: by its id, and with a name that may be empty."""
    talk = Talk("connecting", encoding)
    [target] = call(talk, OBJECT).objects
    talk.says()
    [event] = talk.hears({"type": "call", "id": 2, "target": target, "args": [1]})
    assert isinstance(event, Frame)
    assert KINDS[event.kind] == "call"
    talk.endpoint.answer(2, talk.payload(5))
    assert talk.says() == [{"type": "result", "id": 2, "value": 5}]


@BOTH
def test_a_target_travels(encoding: Encoding) -> None:
    """R19: 0, for the service, need not."""
    talk = Talk("accepting", encoding)
    talk.called(1, refs=[[0, "object", 3]])
    root = talk.endpoint.exchanges[1]
    talk.endpoint.call("", talk.payload([]), target=3, root=root)
    talk.endpoint.call("m", talk.payload([]))
    first, second = talk.says()
    assert first == {"type": "call", "id": 2, "target": 3, "args": []}
    assert second == {"type": "call", "id": 4, "method": "m", "args": []}


@BOTH
@pytest.mark.parametrize(
    "how", ["final", "final in parts", "taken back", "withdrawn", "said to", "stream's final"]
)
def test_objects_end_with_their_call(encoding: Encoding, how: str) -> None:
    """R20: NOT_FOUND then, and never a connection error."""
    talk = Talk("connecting", encoding)
    window = WINDOW if how == "stream's final" else None
    made = call(talk, OBJECT, ("b", "object"), window=window)
    assert talk.endpoint.objects == dict.fromkeys(made.objects, made)
    if how not in {"taken back", "withdrawn"}:
        talk.says()
    match how:
        case "final":
            talk.hears({"type": "result", "id": 1})
        case "final in parts":
            data = talk.payload(5)
            part: Any = data if encoding == "msgpack" else data.decode()
            talk.hears({"type": "result", "id": 1, "parts": len(data)})
            assert talk.endpoint.objects != {}
            talk.hears({"type": "part", "id": 1, "data": part})
        case "stream's final":
            talk.hears({"type": "end", "id": 1})
        case "taken back":
            assert talk.endpoint.take_back(1)
        case "withdrawn":
            talk.hears({"type": "goaway", "last_id": 0})
            assert talk.endpoint.withdraw() == [1]
        case _:
            talk.endpoint.end_objects(1)
            talk.endpoint.end_objects(1)
    assert talk.endpoint.objects == {}
    assert talk.called(2, target=3) == talk.called(4, target=5) == []
    assert codes(talk) == {2: "NOT_FOUND", 4: "NOT_FOUND"}
    assert talk.endpoint.budget.spend(0.0)


@BOTH
def test_an_abandoned_call_keeps_its_objects_until_it_is_said(encoding: Encoding) -> None:
    """R7, R20: a cancel asks; what the other side may still call is for this side to say."""
    talk = Talk("connecting", encoding)
    call(talk, OBJECT)
    talk.says()
    assert talk.endpoint.cancel(1, "abort")
    assert talk.endpoint.objects.keys() == {3}
    talk.endpoint.end_objects(1)
    assert talk.called(2, target=3) == []
    talk.endpoint.end_objects(99)
    [cancel, error] = talk.says()
    assert (cancel["type"], error["error"]["code"]) == ("cancel", "NOT_FOUND")


@BOTH
@pytest.mark.parametrize("target", [1, 2, 4, 99, 2**53 - 1])
def test_what_is_no_object(encoding: Encoding, target: int) -> None:
    """R20: a call's own id, one of the other side's, one that never was."""
    talk = Talk("connecting", encoding)
    call(talk, OBJECT)
    talk.says()
    assert talk.called(2, target=target, args=[]) == []
    assert codes(talk) == {2: "NOT_FOUND"}
    assert talk.endpoint.places.running == 0


@BOTH
def test_objects_of_a_callees_call_end_with_its_final_frame(encoding: Encoding) -> None:
    """R20: a callback of a callback ends when the outer one answers."""
    talk = Talk("accepting", encoding)
    talk.called(1, refs=[[0, "object", 3]])
    root = talk.endpoint.exchanges[1]
    inner = call(talk, OBJECT, target=3, root=root)
    assert talk.endpoint.objects == {4: root}
    talk.says()
    assert len(talk.called(5, target=4)) == 1
    talk.hears({"type": "result", "id": inner.id})
    assert talk.endpoint.objects == {}
    talk.endpoint.answer(5, talk.payload(None))
    talk.endpoint.answer(1, talk.payload(None))
    assert [frame["id"] for frame in talk.says()] == [5, 1]
    assert talk.endpoint.exchanges == {}


# --- the item of a context


def opened_context(encoding: Encoding, **fields: Any) -> Talk:
    talk = Talk("accepting", encoding)
    talk.called(1, window={"items": 1, "bytes": 1}, **fields)
    return talk


@BOTH
def test_an_object_as_an_item(encoding: Encoding) -> None:
    """R20: null in its place; it lives as long as the call."""
    talk = opened_context(encoding)
    assert talk.endpoint.send_object(1) == 2
    [chunk] = talk.says()
    assert chunk == {
        "type": "chunk", "id": 1, "items": [None], "size": 4 if encoding == "json" else 1,
        "refs": [[0, "object", 2]],
    }  # fmt: skip
    root = talk.endpoint.exchanges[1]
    assert talk.endpoint.objects == {2: root}
    assert not talk.endpoint.may_send(1)
    assert len(talk.called(3, target=2)) == 1
    talk.endpoint.answer(3, talk.payload(1))
    talk.endpoint.end(1)
    assert talk.called(5, target=2) == []
    found = {(frame["type"], frame["id"]) for frame in talk.says()}
    assert found == {("result", 3), ("end", 1), ("error", 5)}
    assert talk.endpoint.objects == {}


@BOTH
def test_an_object_needs_credit(encoding: Encoding) -> None:
    talk = opened_context(encoding)
    talk.endpoint.send_object(1)
    with pytest.raises(LocalProtocolError, match="an item on id 1 without credit"):
        talk.endpoint.send_object(1)
    with pytest.raises(LocalProtocolError, match="an item on id 1 without credit"):
        talk.endpoint.send(1, talk.payload(1))
    talk.called(3)
    with pytest.raises(LocalProtocolError, match="cannot send frame 4 on id 3"):
        talk.endpoint.send_object(3)
    with pytest.raises(LocalProtocolError, match="cannot send frame 4 on id 99"):
        talk.endpoint.send_object(99)
    assert talk.endpoint.highest_used == 2


@BOTH
def test_an_object_keeps_to_the_order_of_ids(encoding: Encoding) -> None:
    """R5, R12: a chunk that opens an id is written with the calls, between them."""
    talk = opened_context(encoding)
    talk.endpoint.call("m", talk.payload([]))
    talk.endpoint.send_object(1)
    talk.endpoint.call("m", talk.payload([]))
    talk.endpoint.end(1)
    assert [(frame["type"], frame["id"]) for frame in talk.says()] == [
        ("call", 2),
        ("chunk", 1),
        ("call", 6),
        ("end", 1),
    ]


@BOTH
@pytest.mark.parametrize("written", [False, True])
def test_a_cancel_ends_a_contexts_objects(encoding: Encoding, written: bool) -> None:
    """R9, R20: from the cancel on; an item that was not yet written never will be."""
    talk = opened_context(encoding)
    talk.endpoint.send_object(1)
    if written:
        assert [frame["type"] for frame in talk.says()] == ["chunk"]
    talk.hears({"type": "cancel", "id": 1, "mode": "close"})
    assert talk.endpoint.objects == {}
    assert talk.called(3, target=2) == []
    talk.endpoint.end(1)
    assert [(frame["type"], frame["id"]) for frame in talk.says()] == [("error", 3), ("end", 1)]


@BOTH
def test_an_object_that_comes_as_an_item(encoding: Encoding) -> None:
    """R5: it opens an id of the other side's, even where nobody wants the item any more."""
    talk = Talk("connecting", encoding)
    talk.calls(window=Window(1, 1))
    chunk = {"type": "chunk", "id": 1, "items": [None], "size": 4 if encoding == "json" else 1}
    [event] = talk.hears({**chunk, "refs": [[0, "object", 2]]})
    assert event.refs is not None  # type: ignore[union-attr]
    assert talk.endpoint.highest_seen == 2
    talk.calls(window=Window(1, 1))
    talk.endpoint.cancel(3, "close")
    assert talk.hears({**chunk, "id": 3, "refs": [[0, "object", 4]]}) == []
    assert talk.endpoint.highest_seen == 4


@BOTH
@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ([0, "object", 3], "id 3 has this side's parity"),
        ([0, "object", 2], "id 2 does not go up: 2 was seen"),
        ([0, "stream", 4], "a stream in an item of id 1"),
    ],
)
def test_references_that_an_item_cannot_have(encoding: Encoding, ref: Any, message: str) -> None:
    """R5, R19."""
    talk = Talk("connecting", encoding)
    talk.calls(window=WINDOW)
    talk.called(2)
    with pytest.raises(RemoteProtocolError, match=message):
        talk.hears({"type": "chunk", "id": 1, "items": [None], "size": 1, "refs": [ref]})


@BOTH
def test_an_item_has_one_reference(encoding: Encoding) -> None:
    """R19, R20."""
    talk = Talk("connecting", encoding)
    talk.calls(window=WINDOW)
    chunk = {"type": "chunk", "id": 1, "items": [None], "size": 4 if encoding == "json" else 1}
    with pytest.raises(RemoteProtocolError, match="2 references in a chunk on id 1"):
        talk.hears({**chunk, "refs": [[0, "object", 2], [0, "object", 4]]})


@BOTH
@pytest.mark.parametrize("left", [False, True])
def test_an_upload_has_no_references(encoding: Encoding, left: bool) -> None:
    """R19, R20: an object is the item of a context, and of nothing that a caller produces."""
    talk = Talk("accepting", encoding)
    talk.called(1, refs=[[0, "stream", 3]])
    if left:
        talk.endpoint.cancel(3, "close")
    chunk = {"type": "chunk", "id": 3, "items": [None], "size": 4 if encoding == "json" else 1}
    assert len(talk.hears({**chunk, "refs": []})) == (0 if left else 1)
    with pytest.raises(RemoteProtocolError, match="a reference in an item of the upload 3"):
        talk.hears({**chunk, "refs": [[0, "object", 5]]})


# --- places


@BOTH
def test_calls_of_objects_have_places_of_their_own(encoding: Encoding) -> None:
    """R26: they do not count with those of the service."""
    talk = Talk("connecting", encoding, limits=Limits(max_calls=1, max_object_calls=2))
    call(talk, OBJECT, (1, "object"))
    talk.says()
    assert len(talk.called(2)) == 1
    assert len(talk.called(4, target=3)) == 1
    assert len(talk.called(6, target=5)) == 1
    assert talk.called(8, target=3) == talk.called(10, target=5) == talk.called(12) == []
    assert codes(talk) == {8: "RESOURCE_EXHAUSTED", 10: "RESOURCE_EXHAUSTED"} | {
        12: "RESOURCE_EXHAUSTED"
    }
    # The place is free when the writer takes the final frame.
    talk.endpoint.answer(4, talk.payload(None))
    assert talk.called(14, target=3) == []
    talk.says()
    assert len(talk.called(16, target=3)) == 1


@BOTH
def test_each_root_has_places(encoding: Encoding) -> None:
    """R26: one that is full is no other's trouble."""
    talk = Talk("connecting", encoding, limits=Limits(max_object_calls=1))
    call(talk, OBJECT)
    call(talk, OBJECT)
    talk.says()
    assert len(talk.called(2, target=3)) == 1
    assert talk.called(4, target=3) == []
    assert len(talk.called(6, target=7)) == 1
    assert talk.called(8, target=7) == []
    assert codes(talk).keys() == {4, 8}


@BOTH
def test_a_chain_counts_at_its_root(encoding: Encoding) -> None:
    """R26: the calls of a callback's callbacks count with those of the call where it began."""
    talk = Talk("accepting", encoding, limits=Limits(max_object_calls=1))
    talk.called(1, refs=[[0, "object", 3]])
    root = talk.endpoint.exchanges[1]
    assert root.root is root
    outer = call(talk, OBJECT, target=3, root=root)
    other = call(talk, OBJECT, target=3, root=root)
    assert outer.root is other.root is root
    talk.says()
    assert len(talk.called(5, target=outer.objects[0], refs=[[0, "object", 7]])) == 1
    deeper = talk.endpoint.exchanges[5]
    assert deeper.root is root
    assert talk.called(9, target=other.objects[0]) == []
    assert codes(talk) == {9: "RESOURCE_EXHAUSTED"}


@BOTH
def test_beyond_the_places_of_objects(encoding: Encoding) -> None:
    """R26: it costs from the violation budget, and an empty budget is a connection error."""
    limits = Limits(max_object_calls=1, violation_budget=3, violation_refill=0.001)
    talk = Talk("connecting", encoding, limits=limits)
    call(talk, OBJECT)
    talk.says()
    talk.called(2, target=3)
    for id in (4, 6, 8):
        talk.called(id, target=3)
    assert codes(talk) == dict.fromkeys((4, 6, 8), "RESOURCE_EXHAUSTED")
    with pytest.raises(RemoteProtocolError, match="too many violations"):
        talk.called(10, target=3)


@BOTH
def test_an_overrun_keeps_its_place(encoding: Encoding) -> None:
    """R7a: it is no fault of the caller's that it does not end, and costs nothing."""
    limits = Limits(max_object_calls=1, violation_budget=1, violation_refill=0.001)
    talk = Talk("connecting", encoding, limits=limits)
    call(talk, OBJECT)
    talk.says()
    talk.called(2, target=3)
    record = talk.endpoint.exchanges[2]
    talk.hears({"type": "cancel", "id": 2})
    talk.endpoint.answer_error(2, ErrorInfo("DEADLINE_EXCEEDED"), overrun=True)
    talk.says()
    for id in (4, 6, 8):
        talk.called(id, target=3)
    assert [frame["retry"] for frame in talk.says()] == [True] * 3
    talk.endpoint.stopped(record)
    assert len(talk.called(10, target=3)) == 1


@BOTH
def test_places_of_a_root_that_has_ended(encoding: Encoding) -> None:
    """R26: what still runs on its objects ends as it would, and frees what is left."""
    talk = Talk("connecting", encoding)
    call(talk, OBJECT)
    talk.says()
    talk.called(2, target=3)
    talk.hears({"type": "result", "id": 1})
    talk.endpoint.answer_error(2, ErrorInfo("CANCELLED"))
    talk.says()
    assert talk.endpoint.exchanges == {}


# --- a drain


@BOTH
def test_objects_while_the_other_side_drains(encoding: Encoding) -> None:
    """R27: no call of the service is made any more; those of objects belong to what runs."""
    talk = Talk("connecting", encoding)
    root = talk.calls(window=Window(1, 1))
    size = len(talk.payload(None))
    talk.hears(
        {"type": "chunk", "id": 1, "items": [None], "size": size, "refs": [[0, "object", 2]]},
        {"type": "goaway", "last_id": 1},
    )
    with pytest.raises(Unavailable):
        talk.endpoint.call("m", talk.payload([]))
    talk.endpoint.call("m", talk.payload([]), target=2, root=root)
    assert talk.endpoint.withdraw() == []
    [frame] = talk.says()
    assert (frame["type"], frame["target"]) == ("call", 2)


@BOTH
def test_what_is_withdrawn(encoding: Encoding) -> None:
    """R27: calls of the service that were not yet written, with all that they brought."""
    talk = opened_context(encoding, refs=[[0, "object", 3]])
    root = talk.endpoint.exchanges[1]
    talk.endpoint.send_object(1)
    kept = call(talk, OBJECT, target=3, root=root)
    gone = call(talk, OBJECT, (1, "stream"))
    talk.endpoint.send(gone.uploads[0].id, talk.payload(1))
    talk.hears({"type": "goaway", "last_id": 0})
    assert talk.endpoint.withdraw() == [gone.id]
    assert talk.endpoint.objects.keys() == {2, *kept.objects}
    assert departed(talk) == [gone.uploads[0].id]
    assert [(frame["type"], frame["id"]) for frame in talk.says()] == [("chunk", 1), ("call", 4)]


@BOTH
def test_a_draining_side_takes_calls_of_its_objects(encoding: Encoding) -> None:
    """R27."""
    talk = opened_context(encoding)
    talk.endpoint.send_object(1)
    talk.endpoint.drain()
    talk.says()
    assert len(talk.called(3, target=2)) == 1
    assert talk.called(5) == []
    [error] = talk.says()
    assert (error["id"], error["error"]["code"], error["retry"]) == (5, "UNAVAILABLE", True)


# --- what the writer has taken


@BOTH
def test_a_watched_call_is_told_of_once(encoding: Encoding) -> None:
    """R11: when the writer has taken it."""
    talk = Talk("connecting", encoding)
    first, second = (talk.endpoint.call("m", talk.payload([])) for _ in range(2))
    talk.endpoint.watch(second.id)
    assert departed(talk) == []
    talk.says()
    assert departed(talk) == [second.id]
    assert departed(talk) == []
    talk.hears({"type": "result", "id": first.id}, {"type": "result", "id": second.id})
    assert departed(talk) == []


@BOTH
def test_a_watched_call_that_is_taken_back(encoding: Encoding) -> None:
    """R12: it has not departed; one that is written is not taken back."""
    talk = Talk("connecting", encoding)
    made = talk.endpoint.call("m", talk.payload([]))
    talk.endpoint.watch(made.id)
    assert talk.endpoint.take_back(made.id)
    assert not talk.endpoint.take_back(made.id)
    assert talk.says() == []
    assert departed(talk) == []
    written = talk.calls()
    assert not talk.endpoint.take_back(written.id)
    assert talk.endpoint.exchanges.keys() == {written.id}


@BOTH
@pytest.mark.parametrize("how", ["cancel", "result", "result in parts", "error"])
def test_a_watched_call_of_which_not_all_is_written(encoding: Encoding, how: str) -> None:
    """R11, R21: nothing more of it will be, and that is told once."""
    talk = Talk("connecting", encoding, announced={"max_frame_bytes": 1000})
    made = talk.endpoint.call("m", talk.payload(["x" * 1_000_000]))
    talk.endpoint.watch(made.id)
    assert talk.endpoint.is_writing(made.id)
    talk.endpoint.next_message()
    assert talk.endpoint.is_writing(made.id)
    match how:
        case "cancel":
            assert talk.endpoint.cancel(made.id, "abort")
        case "result in parts":
            talk.hears({"type": "result", "id": made.id, "parts": 5})
        case "result":
            talk.hears({"type": "result", "id": made.id})
        case _:
            talk.hears({"type": "error", "id": made.id, "error": {"code": "ABORTED"}})
    assert [frame["type"] for frame in talk.says()] == (["cancel"] if how == "cancel" else [])
    assert departed(talk) == [made.id]
    assert not talk.endpoint.watched
    assert not talk.endpoint.is_writing(made.id)


@BOTH
@pytest.mark.parametrize("how", ["end", "error"])
def test_an_upload_is_over_when_its_final_frame_is_taken(encoding: Encoding, how: str) -> None:
    """R19: its place is free then."""
    talk = Talk("connecting", encoding)
    [upload] = call(talk, UPLOAD).uploads
    talk.endpoint.send(upload.id, talk.payload(1))
    if how == "end":
        talk.endpoint.end(upload.id)
    else:
        talk.endpoint.answer_error(upload.id, ErrorInfo("CANCELLED"))
    assert departed(talk) == []
    assert [frame["type"] for frame in talk.says()] == ["call", "chunk", how]
    assert departed(talk) == [upload.id]
    assert talk.endpoint.exchanges.keys() == {1}


@BOTH
def test_taking_back_takes_uploads_along(encoding: Encoding) -> None:
    """R12: what waits of them is never written, whether they have ended or not."""
    talk = Talk("connecting", encoding)
    made = call(talk, UPLOAD, (1, "stream"), (2, "stream"), (3, "object"))
    quiet, busy, ended = made.uploads
    talk.endpoint.send(busy.id, talk.payload(1))
    talk.endpoint.end(ended.id)
    assert not talk.endpoint.cancel(made.id, "abort")
    assert talk.says() == []
    assert talk.endpoint.exchanges == {}
    assert talk.endpoint.objects == {}
    assert departed(talk) == [quiet.id, busy.id, ended.id]


@BOTH
def test_uploads_that_are_cancelled_in_vain(encoding: Encoding) -> None:
    """R9, R10: a cancel that meets the final frame on its way does nothing."""
    talk = Talk("connecting", encoding)
    [upload] = call(talk, UPLOAD).uploads
    talk.endpoint.end(upload.id)
    talk.says()
    assert talk.hears({"type": "cancel", "id": upload.id}) == []
    [again] = call(talk, UPLOAD).uploads
    talk.says()
    assert len(talk.hears({"type": "cancel", "id": again.id})) == 1
    talk.endpoint.end(again.id)
    assert [frame["type"] for frame in talk.says()] == ["end"]


def test_an_accepted_stream_without_references() -> None:
    """The same verbs serve calls that have none."""
    talk = Talk("accepting", "json")
    talk.called(1, window=STREAM)
    talk.hears({"type": "cancel", "id": 1})
    assert talk.endpoint.exchanges[1].objects == ()
