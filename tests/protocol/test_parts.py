"""parts.py, and values in parts as the outbox writes them (R21)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.wire import BOTH, STREAM, WINDOW, Talk, read, whole
from trio_streamrpc.errors import LocalProtocolError, RemoteProtocolError, ResourceExhausted
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.frames import ErrorInfo
from trio_streamrpc.protocol.parts import MAX_PARTS, Claim, Room, Slices

KB = 1024
#: So that a value of more than 1000 bytes travels in parts of at most 1000.
SMALL = {"max_frame_bytes": 1000}


def types(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["type"] for frame in frames]


def text(encoding: str, size: int, fill: str = "x") -> str:
    """A string whose encoding has that many bytes."""
    overhead = 2 if encoding == "json" else len(msgspec.msgpack.encode("x" * size)) - size
    value = fill * ((size - overhead) // len(fill.encode()))
    return value + "x" * (size - overhead - len(value.encode()))


# --- how a value is cut


@given(
    pieces=st.lists(st.text("aé😀", max_size=12), max_size=5),
    limits=st.lists(st.integers(-1, 9), min_size=1, max_size=20),
    as_text=st.booleans(),
)
def test_a_value_is_cut_and_nothing_is_lost(
    pieces: list[str], limits: list[int], as_text: bool
) -> None:
    """R21: text between characters; never an empty part, never one beyond the limit."""
    slices = Slices(*(piece.encode() for piece in pieces), text=as_text)
    value = "".join(pieces).encode()
    found = b""
    count = 0
    while slices.left:
        limit = limits[count % len(limits)]
        left = slices.left
        part = slices.cut(limit)
        data = part.encode() if isinstance(part, str) else bytes(part)
        assert isinstance(part, str) == as_text
        assert left - slices.left == len(data) > 0
        assert len(data) <= max(limit, 1) or (as_text and len(part) == 1)
        found += data
        count += 1
    assert found == value


def test_parts_are_views_of_the_value() -> None:
    """A value of 100 MB is not copied."""
    value = bytes(100)
    slices = Slices(value, text=False)
    part = slices.cut(60)
    assert isinstance(part, memoryview)
    assert part.obj is value
    rest = slices.cut(60)
    assert isinstance(rest, memoryview)
    assert rest.obj is value
    assert len(rest) == 40


# --- who has room


class Line:
    """A room, and the claims that it has granted late."""

    def __init__(self, limit: int) -> None:
        self.granted: list[Claim] = []
        self.room = Room(limit, self.granted.append)


def test_room_up_to_the_limit() -> None:
    """R21: all unfinished values together."""
    line = Line(100)
    first, second = line.room.claim(60), line.room.claim(40)
    third = line.room.claim(1)
    assert first.granted
    assert second.granted
    assert not third.granted
    line.room.give_up(second)
    assert third.granted
    assert line.granted == [third]
    assert line.room.used == 61
    line.room.give_up(second)
    assert line.room.used == 61, "what was given up is left alone"


def test_nobody_is_overtaken() -> None:
    """R21: a large value is not kept out by small ones for which there would be room."""
    line = Line(100)
    first = line.room.claim(60)
    large, small = line.room.claim(100), line.room.claim(1)
    assert not large.granted
    assert not small.granted
    line.room.give_up(first)
    assert line.granted == [large]
    line.room.give_up(large)
    assert line.granted == [large, small]


def test_one_that_waits_may_give_up() -> None:
    line = Line(100)
    first = line.room.claim(60)
    large, small = line.room.claim(100), line.room.claim(40)
    line.room.give_up(large)
    assert line.granted == [small]
    assert line.room.used == 100
    line.room.give_up(first)
    line.room.give_up(small)
    assert line.room.used == 0


# --- what travels in parts


@BOTH
def test_a_result_in_parts(encoding: Encoding) -> None:
    """R21: only what is longer than max_frame_bytes; announced, and then sent in parts of it."""
    talk = Talk("accepting", encoding, announced=SMALL)
    talk.called(1)
    talk.endpoint.answer(1, talk.payload(text(encoding, 1000)))
    assert types(talk.says()) == ["result"]
    talk.called(3)
    value = text(encoding, 2500)
    talk.endpoint.answer(3, talk.payload(value))
    assert talk.endpoint.places.running == 1
    frames = talk.says()
    assert frames[0] == {"type": "result", "id": 3, "parts": 2500}
    assert types(frames[1:]) == ["part"] * 3
    assert [len(frame["data"]) for frame in frames[1:]] == [1000, 1000, 500]
    assert whole(encoding, frames) == [{"type": "result", "id": 3, "value": value}]
    assert talk.endpoint.places.running == 0
    assert talk.endpoint.exchanges == {}


@BOTH
def test_an_item_in_parts(encoding: Encoding) -> None:
    """R21: alone in its chunk, which says its whole size; others stay in front and behind."""
    talk = Talk("accepting", encoding, announced=SMALL)
    talk.called(1, window={"items": 9, "bytes": 10_000})
    values = [1, text(encoding, 1000), text(encoding, 1001), 2, 3]
    for value in values:
        talk.endpoint.send(1, talk.payload(value))
    talk.endpoint.end(1)
    frames = talk.says()
    assert {"type": "chunk", "id": 1, "items": [None], "size": 1001, "parts": 1001} in frames
    found = whole(encoding, frames)
    assert types(found) == ["chunk", "chunk", "chunk", "chunk", "end"]
    assert [item for chunk in found[:-1] for item in chunk["items"]] == values
    assert talk.endpoint.exchanges == {}


@BOTH
def test_an_item_in_parts_takes_its_whole_credit(encoding: Encoding) -> None:
    """R14, R21: as it is sent."""
    talk = Talk("accepting", encoding, announced=SMALL)
    talk.called(1, window={"items": 2, "bytes": 1})
    talk.endpoint.send(1, talk.payload(text(encoding, 5000)))
    credit = talk.endpoint.exchanges[1].credit
    assert credit is not None
    assert (credit.items, credit.bytes) == (1, -4999)
    assert not talk.endpoint.may_send(1)


@BOTH
@pytest.mark.parametrize("kwargs", [None, {"k": "é" * 20}])
def test_a_call_in_parts(encoding: Encoding, kwargs: Any) -> None:
    """R21: an array of its two payloads; the rest of it is in the first frame."""
    talk = Talk("connecting", encoding, announced=SMALL)
    args = [text(encoding, 3000)]
    raw = (talk.payload(args), None if kwargs is None else talk.payload(kwargs))
    size = talk.endpoint.parts_of("m", *raw)
    assert size == len(talk.payload([args, kwargs]))
    metadata = talk.payload({"a": 1})
    talk.endpoint.call("m", *raw, window=WINDOW, metadata=metadata, priority=3)
    frames = talk.says()
    head = {"type": "call", "id": 1, "method": "m", "window": STREAM, "metadata": {"a": 1}}
    assert frames[0] == {**head, "parts": size, "priority": 3}
    assert whole(encoding, frames) == [{**head, "args": args, "kwargs": kwargs, "priority": 3}]


@BOTH
def test_a_call_whose_values_fit_but_not_its_frame(encoding: Encoding) -> None:
    """R21: it goes in parts rather than not at all."""
    talk = Talk("connecting", encoding, announced={"max_message_bytes": 2000})
    args = talk.payload(text(encoding, 1000))
    assert talk.endpoint.parts_of("m", args) == 0
    room = 1888 - 64 - 1000 - len(talk.payload("m"))
    assert talk.endpoint.parts_of("m", args, other_bytes=room) == 0
    assert talk.endpoint.parts_of("m", args, other_bytes=room + 1) > 1000
    metadata = talk.payload(text(encoding, room + 1))
    talk.endpoint.call("m", args, metadata=metadata)
    for frames in talk.messages():
        assert types(frames) in (["call"], ["part"])
    assert talk.endpoint.outbox.room.used == 0


def test_parts_of_text_are_cut_between_characters() -> None:
    """R21: strings in JSON, whose bytes are those of UTF-8 before escaping."""
    talk = Talk("accepting", "json", announced={"max_frame_bytes": 7})
    value = 'é😀"\\\n' * 20
    talk.called(1)
    talk.endpoint.answer(1, talk.payload(value))
    frames = talk.says()
    assert frames[0]["parts"] == len(json.dumps(value, ensure_ascii=False).encode())
    assert all(0 < len(frame["data"].encode()) <= 7 for frame in frames[1:])
    assert whole("json", frames) == [{"type": "result", "id": 1, "value": value}]


@BOTH
def test_a_value_has_so_many_parts_at_most(encoding: Encoding) -> None:
    """R21: with a byte in each, one value would take a minute to write."""
    talk = Talk("accepting", encoding, announced={"max_frame_bytes": 1})
    talk.called(1)
    value = text(encoding, 3 * MAX_PARTS + 2)
    talk.endpoint.answer(1, talk.payload(value))
    frames = talk.says()
    assert MAX_PARTS / 2 < len(frames[1:]) <= MAX_PARTS
    assert whole(encoding, frames) == [{"type": "result", "id": 1, "value": value}]
    talk.called(3)
    talk.endpoint.answer(3, talk.payload(text(encoding, 100)))
    assert len(talk.says()[1:]) == 100


@pytest.mark.parametrize("fill", ["x", "é", "😀", '"', "\\", "\n", "\x01", "\x7f"])
@BOTH
def test_parts_fit_whatever_is_escaped(encoding: Encoding, fill: str) -> None:
    """R28: a part in JSON is a string in a string."""
    talk = Talk("accepting", encoding, announced={"max_message_bytes": 2000})
    talk.called(1)
    value = fill * 10_000
    talk.endpoint.answer(1, talk.payload(value))
    found = []
    while (message := talk.endpoint.next_message()) is not None:
        assert len(message.encode() if isinstance(message, str) else message) <= 2000
        found += read(message)
    assert whole(encoding, found) == [{"type": "result", "id": 1, "value": value}]


@BOTH
def test_references_count_for_what_goes_whole(encoding: Encoding) -> None:
    """R19, R21: a call that fits without them may go in parts with them."""
    talk = Talk("connecting", encoding, announced={"max_message_bytes": 2000})
    args = talk.payload(["x" * 1600])
    refs: list[tuple[int | str, Any]] = [("name", "stream")] * 10
    assert talk.endpoint.parts_of("m", args) == 0
    assert talk.endpoint.parts_of("m", args, refs=refs) > len(args)
    with pytest.raises(ResourceExhausted, match="a call without its arguments"):
        talk.endpoint.parts_of("m", args, refs=refs * 10)


@BOTH
def test_a_value_that_nothing_can_take(encoding: Encoding) -> None:
    """R21: one beyond all unfinished values together would wait for ever."""
    announced = {**SMALL, "max_value_bytes": 9000, "max_partial_bytes": 5000}
    talk = Talk("accepting", encoding, announced=announced)
    talk.called(1)
    talk.called(3, window=STREAM)
    value = talk.payload(text(encoding, 5001))
    for refused in (
        lambda: talk.endpoint.answer(1, value),
        lambda: talk.endpoint.send(3, value),
        lambda: talk.endpoint.call("m", value),
    ):
        with pytest.raises(ResourceExhausted, match="takes at most 5000"):
            refused()
    talk.endpoint.answer(1, talk.payload(text(encoding, 5000)))
    assert types(talk.says())[0] == "result"


# --- turns


@BOTH
def test_others_go_between_the_parts(encoding: Encoding) -> None:
    """R12, R21: a value of 10 MB does not hold up a small one by more than a few parts."""
    talk = Talk("accepting", encoding)
    talk.called(1)
    talk.called(3, window=STREAM)
    talk.endpoint.answer(1, talk.payload(text(encoding, 10_000 * KB)))
    assert types(read(talk.endpoint.next_message())) == ["result", "part"]
    talk.endpoint.send(3, talk.payload(5))
    talk.endpoint.call("m", talk.payload([]))
    assert types(read(talk.endpoint.next_message()))[:3] == ["call", "part", "chunk"]


@BOTH
def test_a_part_fills_the_message_if_nobody_waits(encoding: Encoding) -> None:
    """R1, R21: else it is as long as a turn."""
    talk = Talk("accepting", encoding)
    escaped = 2 if encoding == "json" else 1
    for id in (1, 3):
        talk.called(id)
    talk.endpoint.answer(1, talk.payload(text(encoding, 1000 * KB)))
    first = read(talk.endpoint.next_message())
    assert [len(frame["data"]) for frame in first[1:]] == [(64 * KB - 224) // escaped]
    talk.endpoint.answer(3, talk.payload(text(encoding, 1000 * KB)))
    shared = read(talk.endpoint.next_message())
    parts = [(frame["id"], len(frame["data"])) for frame in shared if frame["type"] == "part"]
    turn = (16 * KB - 112) // escaped
    assert parts == [(1, turn), (3, turn), (1, turn)]
    alone = read(talk.endpoint.next_message())
    assert {frame["id"] for frame in alone} == {1, 3}


@BOTH
def test_values_of_the_same_priority_share(encoding: Encoding) -> None:
    """R12: by turns, and seven of eight are those of a higher one."""
    for priorities, least, most in (((0, 0), 0.45, 0.55), ((1, 0), 0.85, 0.9)):
        talk = Talk("accepting", encoding)
        for id, priority in zip((1, 3), priorities, strict=True):
            talk.called(id, priority=priority)
            talk.endpoint.answer(id, talk.payload(text(encoding, 8000 * KB)))
        written = {1: 0, 3: 0}
        for _ in range(60):
            for frame in read(talk.endpoint.next_message()):
                written[frame["id"]] += len(frame.get("data", ""))
        assert least < written[1] / sum(written.values()) < most


@BOTH
def test_one_large_item_waits_and_a_second_one_not(encoding: Encoding) -> None:
    """R17: what waits for one stream is bounded, by one item of any length."""
    talk = Talk("accepting", encoding)
    talk.called(1, window={"items": 100, "bytes": 2**50})
    large = talk.payload(text(encoding, 1000 * KB))
    assert talk.endpoint.may_send(1)
    talk.endpoint.send(1, large)
    assert not talk.endpoint.may_send(1)
    written = 0
    while not talk.endpoint.unblocked():
        written += sum(len(frame.get("data", "")) for frame in read(talk.endpoint.next_message()))
    assert 744 * KB < written < 1000 * KB, "as soon as what is left is no more than any other"
    assert talk.endpoint.may_send(1)
    talk.endpoint.send(1, large)
    assert not talk.endpoint.may_send(1)


# --- room among the unfinished values


NARROW = {**SMALL, "max_value_bytes": 5000, "max_partial_bytes": 5000}


@BOTH
def test_answers_wait_for_room(encoding: Encoding) -> None:
    """R21: in the outbox, where others pass them."""
    talk = Talk("accepting", encoding, announced=NARROW)
    for id in (1, 3, 5, 7):
        talk.called(id, window={"items": 9, "bytes": 100_000} if id == 5 else None)
    talk.endpoint.answer(1, talk.payload(text(encoding, 4000)))
    talk.endpoint.answer(3, talk.payload(text(encoding, 4000)))
    talk.endpoint.send(5, talk.payload(text(encoding, 1001)))
    talk.endpoint.send(5, talk.payload(6))
    talk.endpoint.answer(7, talk.payload(7))
    frames = talk.says()
    left = 0
    order: list[Any] = []
    for frame in frames:
        if "parts" in frame:
            assert left == 0, "one at a time"
            left = frame["parts"]
            order.append(frame["id"])
        elif frame["type"] == "part":
            assert frame["id"] in order[-2:]
            left -= len(frame["data"])
        else:
            order.append((frame["type"], frame["id"]))
    assert order == [1, ("result", 7), 3, 5, ("chunk", 5)]
    assert talk.endpoint.exchanges.keys() == {5}
    assert talk.endpoint.outbox.room.used == 0
    assert not talk.endpoint.outbox


@BOTH
def test_calls_wait_for_room_before_they_are_made(encoding: Encoding) -> None:
    """R5, R21: their ids go up in order, so that nothing can pass them any more."""
    talk = Talk("connecting", encoding, announced=NARROW)
    args = talk.payload(text(encoding, 3000))
    size = talk.endpoint.parts_of("m", args)
    first = talk.endpoint.claim(size)
    assert first.granted
    second, third = talk.endpoint.claim(size), talk.endpoint.claim(size)
    assert not second.granted
    with pytest.raises(ResourceExhausted, match="there is no room for"):
        talk.endpoint.call("m", args)
    with pytest.raises(LocalProtocolError, match="a claim that is not granted"):
        talk.endpoint.call("m", args, claim=second)
    with pytest.raises(LocalProtocolError, match="or was for another call"):
        talk.endpoint.call("m", args, args[:1500], claim=first)
    assert talk.endpoint.exchanges == {}
    assert talk.endpoint.call("m", args, claim=first).id == 1
    assert talk.endpoint.granted() == []
    talk.endpoint.give_up(second)
    talk.says()
    assert talk.endpoint.granted() == [third]
    assert talk.endpoint.granted() == []
    assert third.granted
    talk.endpoint.call("m", args, claim=third)
    assert types(talk.says()) == ["call", "part", "part", "part", "part"]
    assert talk.endpoint.outbox.room.used == 0


@BOTH
def test_a_claim_for_a_call_that_goes_whole(encoding: Encoding) -> None:
    talk = Talk("connecting", encoding)
    with pytest.raises(LocalProtocolError, match="was for another call"):
        talk.endpoint.call("m", talk.payload([]), claim=talk.endpoint.claim(1000))
    assert talk.endpoint.exchanges == {}


@BOTH
def test_calls_and_answers_wait_in_one_line(encoding: Encoding) -> None:
    """R21: neither starves the other."""
    talk = Talk("accepting", encoding, announced={**NARROW, "max_message_frames": 2})
    for id in (1, 3):
        talk.called(id)
    value = talk.payload(text(encoding, 3000))
    talk.endpoint.answer(1, value)
    talk.endpoint.next_message()
    claim = talk.endpoint.claim(talk.endpoint.parts_of("m", value))
    talk.endpoint.answer(3, value)
    order = types(talk.says())
    assert "result" not in order, "it stands behind the call"
    assert talk.endpoint.granted() == [claim]
    assert not talk.endpoint.outbox
    talk.endpoint.call("m", value, claim=claim)
    order = types(talk.says())
    assert order.index("call") < order.index("result")
    assert talk.endpoint.exchanges.keys() == {2}


# --- what is not finished


@BOTH
@pytest.mark.parametrize("messages", [0, 1, 2])
def test_a_cancel_cuts_a_result_short(encoding: Encoding, messages: int) -> None:
    """R6, R21: no more parts; the endpoint itself answers that it was cancelled."""
    talk = Talk("accepting", encoding)
    talk.called(1)
    talk.endpoint.answer(1, talk.payload(text(encoding, 1000 * KB)))
    for _ in range(messages):
        talk.endpoint.next_message()
    assert talk.hears({"type": "cancel", "id": 1}) == []
    assert talk.endpoint.places.running == 1
    [error] = talk.says()
    assert (error["type"], error["id"], error["error"]["code"]) == ("error", 1, "CANCELLED")
    assert talk.endpoint.places.running == 0
    assert talk.endpoint.outbox.room.used == 0
    assert talk.hears({"type": "cancel", "id": 1}) == []
    assert talk.says() == []


@BOTH
def test_a_cancel_of_a_result_that_waits_for_room(encoding: Encoding) -> None:
    talk = Talk("accepting", encoding, announced=NARROW)
    claim = talk.endpoint.claim(5000)
    talk.called(1)
    talk.endpoint.answer(1, talk.payload(text(encoding, 1001)))
    assert talk.says() == []
    talk.hears({"type": "cancel", "id": 1})
    assert types(talk.says()) == ["error"]
    talk.endpoint.give_up(claim)
    assert talk.says() == []
    assert talk.endpoint.outbox.room.used == 0


@BOTH
def test_a_cancel_after_the_last_part(encoding: Encoding) -> None:
    """R9: it crossed."""
    talk = Talk("accepting", encoding, announced=SMALL)
    talk.called(1)
    talk.endpoint.answer(1, talk.payload(text(encoding, 1001)))
    assert types(talk.says()) == ["result", "part", "part"]
    assert talk.hears({"type": "cancel", "id": 1}) == []
    assert talk.says() == []


@BOTH
def test_a_cancel_of_a_result_that_goes_whole(encoding: Encoding) -> None:
    """R9: its final frame is said, and waits no longer than others."""
    talk = Talk("accepting", encoding, announced=SMALL)
    talk.called(1)
    talk.endpoint.answer(1, talk.payload(5))
    assert talk.hears({"type": "cancel", "id": 1}) == []
    assert types(talk.says()) == ["result"]


@BOTH
@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("messages", [0, 1, 2])
def test_a_cancel_cuts_an_item_short(encoding: Encoding, messages: int, ended: bool) -> None:
    """R21: after ``cancel`` no more parts, and the final frame may follow at once."""
    talk = Talk("accepting", encoding)
    talk.called(1, window={"items": 9, "bytes": 100})
    talk.endpoint.send(1, talk.payload(5))
    talk.endpoint.send(1, talk.payload(text(encoding, 1000 * KB)))
    if ended:
        talk.endpoint.end(1)
    for _ in range(messages):
        talk.endpoint.next_message()
    talk.hears({"type": "cancel", "id": 1, "mode": "close"})
    if not ended:
        assert talk.says() == []
        talk.endpoint.end(1)
    assert talk.says() == [{"type": "end", "id": 1}]
    assert talk.endpoint.outbox.room.used == 0
    assert talk.endpoint.exchanges == {}


@BOTH
@pytest.mark.parametrize("ended", [False, True])
def test_a_cancel_of_an_item_that_waits_for_room(encoding: Encoding, ended: bool) -> None:
    """R21: its stream stands in the line of turns again, for its final frame."""
    talk = Talk("accepting", encoding, announced=NARROW)
    claim = talk.endpoint.claim(5000)
    talk.called(1, window={"items": 9, "bytes": 100})
    talk.endpoint.send(1, talk.payload(text(encoding, 1001)))
    assert talk.says() == []
    if ended:
        talk.endpoint.answer_error(1, ErrorInfo("ABORTED"))
        assert talk.says() == [], "it is behind the item"
    talk.hears({"type": "cancel", "id": 1})
    if not ended:
        assert talk.says() == []
        talk.endpoint.answer_error(1, ErrorInfo("ABORTED"))
    assert types(talk.says()) == ["error"]
    talk.endpoint.give_up(claim)
    assert talk.says() == []
    assert talk.endpoint.outbox.room.used == 0
    assert talk.endpoint.exchanges == {}


@BOTH
def test_a_call_in_parts_is_cancelled(encoding: Encoding) -> None:
    """R21: once its first frame was written: no more parts, and the cancel goes out."""
    talk = Talk("connecting", encoding)
    id = talk.endpoint.call("m", talk.payload(text(encoding, 1000 * KB))).id
    assert types(read(talk.endpoint.next_message())) == ["call", "part"]
    assert talk.endpoint.cancel(id, "abort")
    assert talk.says() == [{"type": "cancel", "id": id}]
    assert talk.endpoint.outbox.room.used == 0
    assert talk.state(id) == "ABANDONED"


@BOTH
def test_a_call_in_parts_is_taken_back(encoding: Encoding) -> None:
    """R12, R27: as a whole, if nothing of it was written."""
    for take_back in (
        lambda talk: not talk.endpoint.cancel(1, "abort"),
        lambda talk: talk.endpoint.withdraw() == [1],
    ):
        talk = Talk("connecting", encoding)
        talk.endpoint.call("m", talk.payload(text(encoding, 1000 * KB)))
        assert take_back(talk)
        assert talk.says() == []
        assert talk.endpoint.outbox.room.used == 0
        assert talk.endpoint.exchanges == {}


@BOTH
@pytest.mark.parametrize("final", ["result", "result in parts", "error"])
def test_a_call_is_answered_before_it_has_gone_out(encoding: Encoding, final: str) -> None:
    """R9, R21: its caller sends no more."""
    talk = Talk("connecting", encoding)
    talk.endpoint.call("m", talk.payload(text(encoding, 1000 * KB)))
    talk.endpoint.next_message()
    frames: dict[str, dict[str, Any]] = {
        "result": {"value": 5},
        "result in parts": {"parts": 5},
        "error": {"error": {"code": "ABORTED"}},
    }
    talk.hears({"type": final.partition(" ")[0], "id": 1, **frames[final]})
    assert talk.says() == []
    assert talk.endpoint.outbox.room.used == 0


@BOTH
@pytest.mark.parametrize("how", ["close", "fail", "goaway"])
def test_nothing_is_kept_at_the_end(encoding: Encoding, how: str) -> None:
    """Neither what is under way, nor what waits for room, for its turn, or to be opened."""
    talk = Talk("connecting", encoding, announced={**SMALL, "max_partial_bytes": 150 * KB})
    endpoint = talk.endpoint
    value = talk.payload(text(encoding, 100 * KB))
    for id in (2, 4, 6):
        talk.called(id, window=None if id == 2 else {"items": 4, "bytes": 1000 * KB})
    endpoint.answer(2, value)
    endpoint.send(4, value)
    endpoint.send(6, talk.payload("small"))
    endpoint.next_message()
    claim = endpoint.claim(len(value))
    endpoint.call("m", talk.payload(["small"]))
    assert endpoint.outbox.room.used == 100 * KB
    match how:
        case "close":
            endpoint.close()
            endpoint.close()
        case "fail":
            endpoint.fail(RemoteProtocolError("broken"))
            endpoint.close()
        case _:
            talk.hears({"type": "goaway", "last_id": 0, "code": "PROTOCOL_ERROR"})
    assert types(talk.says()) == (["goaway"] if how == "fail" else [])
    assert claim.granted
    endpoint.give_up(claim)
    assert endpoint.outbox.room.used == 0
    assert endpoint.outbox.values == {}
    assert not endpoint.outbox
    assert talk.hears({"type": "ping", "token": 1}) == []
    assert not endpoint.ready
