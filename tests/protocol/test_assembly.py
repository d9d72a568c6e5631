"""assembly.py, and values in parts as they arrive (R21)."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.wire import BOTH, STREAM, WINDOW, Talk, deliver, pair
from trio_streamrpc.errors import RemoteProtocolError
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.credit import Growth
from trio_streamrpc.protocol.endpoint import Event
from trio_streamrpc.protocol.frames import (
    KINDS,
    Call,
    Chunk,
    Frame,
    Overflow,
    Result,
)

KB = 1024
#: A chunk of one item, in either encoding.
FIVE: dict[str, Any] = {"items": [5], "size": 1}


def kinds(events: list[Event]) -> list[str]:
    return [KINDS[event.kind] if isinstance(event, Frame) else "overflow" for event in events]


def part(encoding: str, id: int, data: bytes) -> dict[str, Any]:
    return {"type": "part", "id": id, "data": data.decode() if encoding == "json" else data}


def parts(encoding: str, id: int, data: bytes, size: int = 7) -> list[dict[str, Any]]:
    return [part(encoding, id, data[at : at + size]) for at in range(0, len(data), size)]


def broken(talk: Talk, *frames: dict[str, Any], match: str) -> RemoteProtocolError:
    """The last of these frames is a connection error, and nothing of any value is left."""
    *first, last = frames
    if first:
        talk.hears(*first)
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        talk.hears(last)
    assert talk.endpoint.partial_bytes == 0
    assert talk.endpoint.assembly.unfinished == {}
    assert [frame["type"] for frame in talk.says()][-1:] == ["goaway"]
    return caught.value


# --- what arrives


@BOTH
@pytest.mark.parametrize("window", [None, STREAM])
def test_a_call(encoding: Encoding, window: Any) -> None:
    """R21: its place is taken from its first frame; it is handed on with its last part."""
    talk = Talk("accepting", encoding)
    data = talk.payload([[1, "ä"], {"k": 2}])
    head = {"method": "a.b", "window": window, "priority": 5, "timeout": 9.0, "parts": len(data)}
    assert talk.called(1, **head) == []
    assert talk.endpoint.places.running == 1
    *most, last = (
        [part(encoding, 1, data[at : at + 1]) for at in range(len(data))]
        if (encoding == "msgpack")
        else parts(encoding, 1, data, 4)
    )
    count = 0
    for each in most:
        assert talk.hears(each) == []
        count += len(each["data"].encode() if encoding == "json" else each["data"])
        assert talk.endpoint.partial_bytes == count
    [call] = talk.hears(last)
    assert isinstance(call, Call)
    assert (bytes(call.args), bytes(call.kwargs)) == (
        talk.payload([1, "ä"]),
        talk.payload({"k": 2}),
    )
    assert (call.method, call.priority, call.timeout, call.parts) == ("a.b", 5, 9.0, 0)
    assert talk.endpoint.partial_bytes == 0
    assert talk.state(1) == ("PRODUCING" if window else "ANSWERING")
    assert talk.says() == []
    assert talk.called(3) != []


@BOTH
@pytest.mark.parametrize(
    ("timeout", "left"), [(9.0, 6.5), (2.0, 0.0), (0.0, 0.0), (float("inf"), None), (None, None)]
)
def test_the_timeout_of_a_call_counts_from_its_first_frame(
    encoding: Encoding, timeout: float | None, left: float | None
) -> None:
    """R23: its parts are part of the time that it has."""
    if encoding == "json" and timeout is not None and left is None:
        timeout = None  # JSON has no infinity.
    talk = Talk("accepting", encoding)
    data = talk.payload([[1], None])
    call = {"type": "call", "id": 1, "method": "m", "parts": len(data), "timeout": timeout}
    talk.hears(call, now=100.0)
    *most, last = parts(encoding, 1, data, 2)
    talk.hears(*most, now=101.0)
    assert talk.endpoint.assembly.has_calls is True
    [event] = talk.hears(last, now=102.5)
    assert talk.endpoint.assembly.has_calls is False
    assert isinstance(event, Call)
    assert event.timeout == (timeout if left is None else left)


@BOTH
def test_a_result(encoding: Encoding) -> None:
    """R6, R21: it is final with its last part."""
    talk = Talk("connecting", encoding)
    id = talk.calls().id
    data = talk.payload({"a": "long"})
    assert talk.hears({"type": "result", "id": id, "parts": len(data)}) == []
    assert talk.state(id) == "AWAITING"
    *most, last = parts(encoding, id, data)
    assert talk.hears(*most) == []
    assert talk.endpoint.partial_bytes == 7 * len(most)
    assert talk.state(id) == "AWAITING"
    [result] = talk.hears(last)
    assert isinstance(result, Result)
    assert (result.id, bytes(result.value), result.parts) == (id, data, 0)
    assert talk.state(id) == "CLOSED"
    assert talk.endpoint.partial_bytes == 0


@BOTH
def test_an_item(encoding: Encoding) -> None:
    """R21: credit is taken when it begins; it comes to its consumer with its last part."""
    talk = Talk("connecting", encoding)
    exchange = talk.calls(window=WINDOW)
    data = talk.payload("x" * 30)
    size = len(data)
    head = {"type": "chunk", "id": 1, "items": [None], "size": size, "parts": size}
    assert talk.hears(head) == []
    assert exchange.window is not None
    assert exchange.window.credit_items == WINDOW.items - 1
    assert exchange.window.credit_bytes == WINDOW.bytes - size
    *most, last = parts(encoding, 1, data)
    assert talk.hears(*most) == []
    [chunk] = talk.hears(last)
    assert isinstance(chunk, Chunk)
    assert [bytes(item) for item in chunk.items] == [data]
    assert (chunk.size, chunk.parts) == (size, 0)
    assert len(chunk.items[0]) == size
    assert kinds(talk.hears({"type": "chunk", "id": 1, "items": [5], "size": 1})) == ["chunk"]
    assert kinds(talk.hears({"type": "end", "id": 1})) == ["end"]


@BOTH
def test_values_of_several_ids_arrive_together(encoding: Encoding) -> None:
    """R21: other ids' frames between the parts, also of other values."""
    talk = Talk("accepting", encoding)
    data = {id: talk.payload([["x" * id], None]) for id in (1, 3, 5)}
    streams = [parts(encoding, id, each, 2) for id, each in data.items()]
    for id, each in data.items():
        talk.called(id, parts=len(each))
    found = []
    for at in range(max(map(len, streams))):
        found += talk.hears(
            *(stream[at] for stream in streams if at < len(stream)), {"type": "ping"}
        )
    for call in found:
        assert isinstance(call, Call)
        assert bytes(call.args) == talk.payload(["x" * call.id])
    assert len(found) == 3


@BOTH
def test_what_is_assembled_stays_what_it_is(encoding: Encoding) -> None:
    """R2: values go into other messages as they are, and may be copied."""
    talk = Talk("connecting", encoding)
    talk.calls()
    data = talk.payload(["x" * 30])
    [result] = talk.hears(
        {"type": "result", "id": 1, "parts": len(data)}, *parts(encoding, 1, data)
    )
    assert isinstance(result, Result)
    encode = msgspec.json.encode if encoding == "json" else msgspec.msgpack.encode
    assert encode(result.value) == data
    assert bytes(result.value.copy()) == data


@BOTH
def test_memory_grows_with_what_has_come(encoding: Encoding) -> None:
    """R21: never with what was announced."""
    talk = Talk("accepting", encoding)
    tracemalloc.start()
    try:
        talk.called(1, parts=100_000 * KB)
        talk.hears(part(encoding, 1, b"x" * 10_000))
        assert tracemalloc.get_traced_memory()[1] < 1000 * KB
    finally:
        tracemalloc.stop()
    assert talk.endpoint.partial_bytes == 10_000


def test_bytes_of_text_are_counted() -> None:
    """R21: UTF-8 before escaping, whatever the string looks like on the wire."""
    talk = Talk("connecting", "json")
    talk.calls()
    data = '"é😀\\n"'
    size = len(data.encode())
    talk.hears({"type": "result", "id": 1, "parts": size})
    talk.endpoint.receive('[{"type":"part","id":1,"data":"\\"\\u00e9\\ud83d\\ude00"}]')
    assert talk.endpoint.partial_bytes == 7
    [result] = talk.endpoint.receive('[{"type":"part","id":1,"data":"\\\\n\\""}]')
    assert isinstance(result, Result)
    assert bytes(result.value) == data.encode()


@given(data=st.data(), size=st.integers(1, 400))
def test_any_cut_will_do(data: st.DataObject, size: int) -> None:
    talk = Talk("connecting", "msgpack")
    talk.calls()
    value = talk.payload("x" * size)
    talk.hears({"type": "result", "id": 1, "parts": len(value)})
    events: list[Event] = []
    rest = value
    while rest:
        count = data.draw(st.integers(1, len(rest)))
        events += talk.hears(part("msgpack", 1, rest[:count]))
        rest = rest[count:]
    [result] = events
    assert isinstance(result, Result)
    assert bytes(result.value) == value


# --- what is wrong


@BOTH
def test_more_parts_than_announced(encoding: Encoding) -> None:
    """R21."""
    for head in (
        {"type": "call", "id": 2, "parts": 5},
        {"type": "result", "id": 1, "parts": 5},
        {"type": "chunk", "id": 3, "items": [None], "size": 5, "parts": 5},
    ):
        talk = Talk("connecting", encoding)
        talk.calls()
        talk.calls(window=WINDOW)
        id: Any = head["id"]
        broken(
            talk, head, part(encoding, id, b"123"), part(encoding, id, b"123"), match="more parts"
        )


@BOTH
def test_a_part_of_no_value(encoding: Encoding) -> None:
    """R21: on an id that is open; and on one that nobody has used."""
    for id in (1, 3, 2, 4):
        talk = Talk("connecting", encoding)
        talk.calls()
        talk.calls(window=WINDOW)
        talk.called(2)
        talk.called(4, window=STREAM)
        broken(talk, part(encoding, id, b"1"), match=f"a part of no value on id {id}")
    for id in (5, 6):
        talk = Talk("connecting", encoding)
        talk.calls()
        broken(talk, part(encoding, id, b"1"), match=f"part on id {id}, which is IDLE")


@BOTH
def test_a_part_after_the_last(encoding: Encoding) -> None:
    """R6, R21: the value is complete, and a result final."""
    talk = Talk("connecting", encoding)
    talk.calls()
    first = {"type": "result", "id": 1, "parts": 1}
    broken(talk, first, part(encoding, 1, b"5"), part(encoding, 1, b"5"), match="id 1, .* CLOSED")
    talk = Talk("accepting", encoding)
    data = talk.payload([[], None])
    talk.called(1, parts=len(data))
    broken(talk, part(encoding, 1, data), part(encoding, 1, b"5"), match="a part of no value")


@BOTH
@pytest.mark.parametrize("final", ["end", "error"])
def test_a_final_frame_over_an_unfinished_item(encoding: Encoding, final: str) -> None:
    """R21: that no cancel has preceded."""
    talk = Talk("connecting", encoding)
    talk.calls(window=WINDOW)
    frame: dict[str, Any] = {"type": final, "id": 1}
    if final == "error":
        frame["error"] = {"code": "ABORTED"}
    head = {"type": "chunk", "id": 1, "items": [None], "size": 5, "parts": 5}
    broken(talk, head, part(encoding, 1, b"123"), frame, match="over an unfinished value on id 1")


@BOTH
@pytest.mark.parametrize("more", [{"value": 5}, {"parts": 5}, {"error": {"code": "ABORTED"}}])
def test_a_final_frame_over_an_unfinished_result(encoding: Encoding, more: Any) -> None:
    """R6, R21."""
    talk = Talk("connecting", encoding)
    talk.calls()
    final = {"type": "error" if "error" in more else "result", "id": 1, **more}
    head = {"type": "result", "id": 1, "parts": 5}
    broken(talk, head, part(encoding, 1, b"123"), final, match="unfinished|in the middle")


@BOTH
@pytest.mark.parametrize("more", [{}, {"parts": 1}])
def test_a_chunk_in_the_middle_of_an_item(encoding: Encoding, more: Any) -> None:
    """R21."""
    talk = Talk("connecting", encoding)
    talk.calls(window=WINDOW)
    head = {"type": "chunk", "id": 1, "items": [None], "size": 5, "parts": 5}
    other = {"type": "chunk", "id": 1, "items": [None if more else 5], "size": 1, **more}
    broken(talk, head, other, match="a chunk in the middle of a value on id 1")


@BOTH
def test_chunks_of_other_streams_may_come_between(encoding: Encoding) -> None:
    talk = Talk("connecting", encoding)
    talk.calls(window=WINDOW)
    talk.calls(window=WINDOW)
    talk.hears({"type": "chunk", "id": 1, "items": [None], "size": 5, "parts": 5})
    assert kinds(talk.hears({"type": "chunk", "id": 3, "items": [5], "size": 1})) == ["chunk"]


@BOTH
@pytest.mark.parametrize(
    "head",
    [
        {"type": "chunk", "id": 3, "items": [], "size": 5, "parts": 5},
        {"type": "chunk", "id": 3, "items": [None, None], "size": 5, "parts": 5},
        {"type": "chunk", "id": 3, "items": [5], "size": 5, "parts": 5},
        {"type": "result", "id": 1, "value": 5, "parts": 5},
        {"type": "call", "id": 2, "args": [], "parts": 5},
        {"type": "call", "id": 2, "kwargs": {}, "parts": 5},
    ],
)
def test_more_than_the_announcement_of_one_value(encoding: Encoding, head: Any) -> None:
    """R21: null stands in its place, and nothing beside it."""
    talk = Talk("connecting", encoding)
    talk.calls()
    talk.calls(window=WINDOW)
    broken(talk, head, match="items in parts|with a value and parts")


@BOTH
def test_parts_where_nothing_is_awaited(encoding: Encoding) -> None:
    """R9: a result for a stream, an item for a unary call, for nobody at all."""
    for head in (
        {"type": "result", "id": 3, "parts": 5},
        {"type": "result", "id": 7, "parts": 5},
        {"type": "chunk", "id": 1, "items": [None], "size": 5, "parts": 5},
    ):
        talk = Talk("connecting", encoding)
        talk.calls()
        talk.calls(window=WINDOW)
        broken(talk, head, match=f"on id {head['id']}, which is")


@BOTH
def test_arguments_that_are_no_pair(encoding: Encoding) -> None:
    """R21: refused, and the connection lives."""
    for data in (b"1", b"[1]", b"[1,2,3]", b'{"a":1}', b"[1,2", b"[1,2]]", b"nonsense"):
        talk = Talk("accepting", encoding)
        if encoding == "msgpack" and data.startswith((b"[", b"{")):
            try:
                data = msgspec.msgpack.encode(msgspec.json.decode(data))
            except msgspec.DecodeError:
                data = b"\x92\x01"
        assert talk.called(1, parts=len(data), refs=[[0, "stream", 3]], window=STREAM) == []
        assert talk.hears(*parts(encoding, 1, data, 2)) == []
        cancel, error = talk.says()
        assert cancel == {"type": "cancel", "id": 3}
        assert (error["id"], error["error"]["code"]) == (1, "INVALID_ARGUMENT")
        assert error["error"]["message"].startswith("the arguments: ")
        assert talk.endpoint.places.running == 0
        assert talk.endpoint.exchanges.keys() == {3}
        assert kinds(talk.hears({"type": "end", "id": 3})) == ["end"]
        assert not talk.endpoint.assembly.uploads


def test_arguments_that_are_nested_too_deeply() -> None:
    """R28: an error like any other, never an exception of another kind."""
    talk = Talk("accepting", "msgpack")
    data = b"\x92" + b"\x91" * 100_000 + b"\xc0\xc0"
    talk.called(1, parts=len(data))
    assert talk.hears(part("msgpack", 1, data)) == []
    [error] = talk.says()
    assert error["error"]["code"] == "INVALID_ARGUMENT"


@BOTH
@pytest.mark.parametrize("kind", ["result", "chunk"])
@pytest.mark.parametrize("data", [b"[1", b"1]", b"\x92\x01", b"\xc1", b"nonsense"])
def test_a_value_that_cannot_be_decoded(encoding: Encoding, kind: str, data: bytes) -> None:
    """R28: as in a message of its own."""
    if encoding == "json" and data[0] > 127:
        data = data.decode("latin-1").encode()
    if encoding == "msgpack" and data in (b"1]", b"[1"):
        data = b"\x01\x01"
    talk = Talk("connecting", encoding)
    talk.calls(window=WINDOW if kind == "chunk" else None)
    size = len(data)
    head: dict[str, Any] = {"type": kind, "id": 1, "parts": size}
    if kind == "chunk":
        head |= {"items": [None], "size": size}
    error = broken(talk, head, part(encoding, 1, data), match="a value in parts on id 1")
    assert error.close_code == 1007


# --- limits


LIMITS = Limits(max_value_bytes=100, max_partial_bytes=150)


@BOTH
def test_a_call_beyond_the_limits(encoding: Encoding) -> None:
    """R21: refused, its parts ignored (R9), its refs cancelled (R19)."""
    for before, size, match in (
        (0, 101, "a value of 101 bytes, more than 100"),
        (100, 51, "a value of 51 bytes beside 100 of others"),
    ):
        talk = Talk("accepting", encoding, limits=LIMITS)
        if before:
            talk.called(1, parts=before)
        assert talk.called(3, parts=size, refs=[[0, "stream", 5]]) == []
        running = talk.endpoint.places.running
        assert running == (before > 0)
        cancel, error = talk.says()
        assert cancel == {"type": "cancel", "id": 5}
        assert error["error"]["code"] == "RESOURCE_EXHAUSTED"
        assert match in error["error"]["message"]
        assert talk.hears(*[part(encoding, 3, b"x" * 40)] * 3) == []
        assert talk.endpoint.partial_bytes == 0
        talk.called(7, parts=50)
        assert talk.endpoint.places.running == running + 1, "at the limit"


@BOTH
def test_calls_beyond_the_limits_cost(encoding: Encoding) -> None:
    """R21: only a faulty peer sends them."""
    limits = Limits(max_value_bytes=100, max_partial_bytes=150, violation_budget=2)
    talk = Talk("accepting", encoding, limits=limits)
    talk.called(1, parts=101)
    talk.called(3, parts=101)
    with pytest.raises(RemoteProtocolError, match=r"too many violations.*value of 101") as caught:
        talk.called(5, parts=101)
    assert caught.value.close_code == 1008


@BOTH
@pytest.mark.parametrize("kind", ["result", "chunk"])
def test_results_and_items_beyond_the_limits(encoding: Encoding, kind: str) -> None:
    """R21: nobody can be told, and nobody has an excuse."""

    def head(id: int, size: int) -> dict[str, Any]:
        more = {"items": [None], "size": size} if kind == "chunk" else {}
        return {"type": kind, "id": id, "parts": size, **more}

    def talk() -> Talk:
        talk = Talk("connecting", encoding, limits=LIMITS)
        for _ in range(2):
            talk.calls(window=WINDOW if kind == "chunk" else None)
        return talk

    assert broken(talk(), head(1, 101), match="101 bytes, more than 100").close_code == 1009
    assert broken(talk(), head(1, 100), head(3, 51), match="51 bytes beside 100").close_code == 1009
    fits = talk()
    fits.hears(head(1, 100), part(encoding, 1, b"x"), head(3, 50))
    assert fits.endpoint.partial_bytes == 1


@BOTH
def test_room_is_free_with_the_last_part(encoding: Encoding) -> None:
    """R21."""
    talk = Talk("accepting", encoding, limits=LIMITS)
    data = talk.payload([["x" * 80], None])
    for id in (1, 3, 5, 7):
        talk.called(id, parts=len(data))
        assert kinds(talk.hears(*parts(encoding, id, data))) == ["call"]
    assert talk.says() == []


# --- cancelled


@BOTH
@pytest.mark.parametrize("window", [None, STREAM])
@pytest.mark.parametrize("mode", ["close", "abort"])
def test_a_call_is_cancelled_before_it_has_come(encoding: Encoding, window: Any, mode: str) -> None:
    """R21: the endpoint itself answers; nothing was started. What it held is free."""
    talk = Talk("accepting", encoding, limits=LIMITS)
    talk.called(1, parts=100, window=window, refs=[[0, "stream", 3]])
    talk.hears(part(encoding, 1, b"x" * 50))
    assert talk.endpoint.partial_bytes == 50
    assert talk.hears({"type": "cancel", "id": 1, "mode": mode}) == []
    assert talk.endpoint.partial_bytes == 0
    assert talk.endpoint.places.running == 1
    cancel, error = talk.says()
    assert cancel == {"type": "cancel", "id": 3}
    assert (error["type"], error["id"], error["error"]["code"]) == ("error", 1, "CANCELLED")
    assert talk.endpoint.places.running == 0
    talk.hears({"type": "end", "id": 3})
    assert talk.endpoint.exchanges == {}
    talk.called(5, parts=100)
    assert talk.endpoint.places.running == 1
    assert talk.says() == []


@BOTH
def test_parts_of_a_call_that_was_answered(encoding: Encoding) -> None:
    """R9: they crossed the answer, which may still wait here or be on its way."""
    talk = Talk("accepting", encoding, limits=Limits(max_calls=1, violation_budget=1))
    talk.called(1)
    talk.called(3, parts=10)
    assert talk.hears(part(encoding, 3, b"123")) == []
    talk.says()
    assert talk.hears(part(encoding, 3, b"123")) == []
    talk.endpoint.answer(1, talk.payload(5))
    assert talk.hears(part(encoding, 1, b"123")) == []
    assert talk.endpoint.partial_bytes == 0
    assert not talk.endpoint.failed


@BOTH
def test_empty_parts_cost(encoding: Encoding) -> None:
    """R21: they bring nothing, and could go on for ever."""
    for refused in (False, True):
        limits = Limits(max_calls=1, violation_budget=3 + refused)
        talk = Talk("accepting", encoding, limits=limits)
        talk.called(1, parts=5)
        if refused:
            talk.called(3, parts=5)
        id = 3 if refused else 1
        for _ in range(3):
            assert talk.hears(part(encoding, id, b"")) == []
        with pytest.raises(RemoteProtocolError, match="an empty part"):
            talk.hears(part(encoding, id, b""))
        assert talk.endpoint.partial_bytes == 0


@BOTH
def test_a_result_after_a_cancel(encoding: Encoding) -> None:
    """R7, R9: its parts are counted and not kept; with the last of them the call is over."""
    for cancelled_before in (0, 1, 2):
        talk = Talk("connecting", encoding)
        talk.calls()
        head = {"type": "result", "id": 1, "parts": 6}
        frames = [head, part(encoding, 1, b'"12'), part(encoding, 1, b'34"')]
        events: list[Event] = []
        for number, frame in enumerate(frames):
            if number == cancelled_before:
                talk.endpoint.cancel(1, "abort")
            events = talk.hears(frame)
            if number >= cancelled_before:
                assert talk.endpoint.partial_bytes == 0
        [result] = events
        assert isinstance(result, Result)
        assert bytes(result.value) == talk.payload(None)
        assert talk.endpoint.exchanges == {}


@BOTH
def test_parts_after_a_cancel_are_counted(encoding: Encoding) -> None:
    """R21: and are no excuse for more than was announced."""
    talk = Talk("connecting", encoding)
    talk.calls()
    talk.hears({"type": "result", "id": 1, "parts": 6})
    talk.endpoint.cancel(1, "abort")
    broken(talk, part(encoding, 1, b"1234"), part(encoding, 1, b"123"), match="more parts")


@BOTH
def test_an_item_after_a_cancel(encoding: Encoding) -> None:
    """R7, R9: nothing of it comes to anybody, whatever was there of it."""
    for cancelled_before in (0, 1, 2):
        talk = Talk("connecting", encoding)
        talk.calls(window=WINDOW)
        head = {"type": "chunk", "id": 1, "items": [None], "size": 6, "parts": 6}
        for number, frame in enumerate([head, *parts(encoding, 1, b'"1234"', 3)]):
            if number == cancelled_before:
                talk.endpoint.cancel(1, "close")
            assert talk.hears(frame) == []
            if number >= cancelled_before:
                assert talk.endpoint.partial_bytes == 0
        assert kinds(talk.hears({"type": "end", "id": 1})) == ["end"]


@BOTH
@pytest.mark.parametrize("mode", ["close", "abort"])
def test_a_final_frame_over_an_unfinished_value_after_a_cancel(
    encoding: Encoding, mode: Any
) -> None:
    """R21: valid, for after it there are no more parts."""
    talk = Talk("connecting", encoding)
    talk.calls(window=WINDOW)
    talk.calls()
    talk.hears(
        {"type": "chunk", "id": 1, "items": [None], "size": 6, "parts": 6},
        {"type": "result", "id": 3, "parts": 6},
        part(encoding, 1, b"123"),
        part(encoding, 3, b"123"),
    )
    for id in (1, 3):
        talk.endpoint.cancel(id, mode)
    assert talk.endpoint.partial_bytes == 0
    cancelled = {"type": "error", "id": 3, "error": {"code": "CANCELLED"}}
    assert kinds(talk.hears({"type": "end", "id": 1}, cancelled)) == ["end", "error"]
    assert talk.endpoint.exchanges == {}
    assert talk.endpoint.assembly.unfinished == {}


@BOTH
def test_what_is_dropped_takes_no_room(encoding: Encoding) -> None:
    """R21: this side has no use for it, and the other stops as it hears so."""
    talk = Talk("connecting", encoding, limits=LIMITS)
    for _ in range(3):
        talk.calls()
    talk.hears({"type": "result", "id": 1, "parts": 100})
    talk.endpoint.cancel(1, "abort")
    talk.endpoint.cancel(3, "abort")
    talk.hears({"type": "result", "id": 3, "parts": 100}, {"type": "result", "id": 5, "parts": 100})
    assert not talk.endpoint.failed


# --- beyond the credit


@BOTH
@pytest.mark.parametrize(
    ("window", "size"), [(Window(1, 1000), 6), (Window(4, 1), 6), (Window(4, 1000), 7)]
)
def test_an_item_beyond_the_credit(encoding: Encoding, window: Window, size: int) -> None:
    """R16: dropped whole, with all its parts; its consumer sees why."""
    talk = Talk("connecting", encoding)
    talk.calls(window=window)
    talk.hears({"type": "chunk", "id": 1, "items": [5], "size": 1})
    head = {"type": "chunk", "id": 1, "items": [None], "size": size, "parts": 6}
    [overflow] = talk.hears(head)
    assert isinstance(overflow, Overflow)
    assert overflow.id == 1
    [cancel] = talk.says()
    assert (cancel["type"], cancel["error"]["code"]) == ("cancel", "FLOW_CONTROL")
    assert talk.hears(*parts(encoding, 1, b'"1234"', 3)) == []
    assert talk.endpoint.partial_bytes == 0
    assert kinds(talk.hears({"type": "end", "id": 1})) == ["end"]


@BOTH
def test_an_item_beyond_the_credit_after_a_cancel(encoding: Encoding) -> None:
    """R16: it costs, and is dropped like any other."""
    talk = Talk("connecting", encoding, limits=Limits(violation_budget=1))
    talk.calls(window=Window(1, 1000))
    talk.endpoint.cancel(1, "close")
    for _ in range(2):
        head = {"type": "chunk", "id": 1, "items": [None], "size": 6, "parts": 6}
        assert talk.hears(head, *parts(encoding, 1, b'"1234"', 3)) == []
    with pytest.raises(RemoteProtocolError, match="too many violations"):
        talk.hears({"type": "chunk", "id": 1, "items": [5], "size": 1})


@BOTH
def test_a_window_grows_as_an_item_begins(encoding: Encoding) -> None:
    """R15: that is when the link has brought it."""
    talk = Talk("connecting", encoding)
    talk.endpoint.measure(0.0)
    talk.says()
    talk.hears({"type": "pong", "token": 1}, now=0.1)
    window = talk.calls(window=Window(1, 1000), growth=Growth(Window(6, 4000))).window
    assert window is not None
    talk.hears({"type": "chunk", "id": 1, "items": [1], "size": 1}, now=1.0)
    due = window.take(1, 1)
    assert due == (1, 1)
    talk.endpoint.grant(1, *due, 1.0)
    talk.says()
    data = talk.payload("123456")
    size = len(data)
    head = {"type": "chunk", "id": 1, "items": [None], "size": size, "parts": size}
    assert talk.hears(head, now=1.1) == []
    assert talk.says() == [{"type": "grant", "id": 1, "items": 1, "bytes": 1000}]
    assert kinds(talk.hears(*parts(encoding, 1, data), now=9.0)) == ["chunk"]
    assert talk.says() == []


# --- uploads, grants, drains


@BOTH
def test_uploads_of_an_unfinished_call_are_open(encoding: Encoding) -> None:
    """R19, R21: what they bring comes after the call, in its order."""
    talk = Talk("accepting", encoding)
    data = talk.payload([[None, None, None], None])
    refs = [[0, "stream", 3], [1, "stream", 5], [2, "object", 7]]
    own = talk.calls(window=WINDOW).id
    talk.called(1, parts=len(data), refs=refs)
    assert talk.endpoint.uploads == 2
    long = "x" * 2000
    size = len(talk.payload(long)) + 1
    first = {"type": "chunk", "id": 3, "items": [5, long], "size": size}
    assert talk.hears(first, {"type": "ping"}, {"type": "end", "id": 5}) == []
    others = [{"type": "grant", "id": 9, "items": 1}, {"type": "chunk", "id": own, **FIVE}]
    assert kinds(talk.called(9, window=STREAM)) == ["call"], "others are not held up"
    assert kinds(talk.hears(*others)) == ["grant", "chunk"]
    assert talk.hears({"type": "chunk", "id": 3, "items": [6], "size": 1}) == []
    *most, last = parts(encoding, 1, data, 3)
    assert talk.hears(*most) == []
    events = talk.hears(last, {"type": "end", "id": 3})
    assert kinds(events) == ["call", "chunk", "end", "chunk", "end"]
    assert [event.id for event in events] == [1, 3, 5, 3, 3]  # type: ignore[union-attr]
    assert isinstance(events[1], Chunk)
    assert [bytes(item) for item in events[1].items] == [talk.payload(5), talk.payload(long)]
    assert not talk.endpoint.assembly.uploads


@BOTH
def test_an_upload_that_overflows_before_its_call(encoding: Encoding) -> None:
    """R16, R19: heard of after the call as well."""
    talk = Talk("accepting", encoding, limits=Limits(window=Window(1, 100)))
    data = talk.payload([[None], None])
    talk.called(1, parts=len(data), refs=[[0, "stream", 3]])
    talk.hears(*[{"type": "chunk", "id": 3, "items": [5], "size": 1}] * 2)
    assert kinds(talk.hears(*parts(encoding, 1, data))) == ["call", "chunk", "overflow"]


@BOTH
def test_uploads_of_a_call_that_is_cancelled_before_it_has_come(encoding: Encoding) -> None:
    """R19: nobody hears of what they brought."""
    talk = Talk("accepting", encoding)
    talk.called(1, parts=100, refs=[[0, "stream", 3], [1, "stream", 5]])
    talk.hears({"type": "chunk", "id": 3, "items": [5], "size": 1}, {"type": "end", "id": 5})
    assert talk.hears({"type": "cancel", "id": 1}) == []
    assert [frame["type"] for frame in talk.says()] == ["cancel", "error"]
    assert talk.hears({"type": "chunk", "id": 3, "items": [6], "size": 1}) == []
    assert kinds(talk.hears({"type": "end", "id": 3})) == ["end"]
    assert talk.endpoint.exchanges == {}
    assert not talk.endpoint.assembly.uploads


@BOTH
def test_a_grant_for_an_unfinished_call(encoding: Encoding) -> None:
    """R15: it counts, though there is nobody yet to hear of it."""
    talk = Talk("accepting", encoding)
    data = talk.payload([[], None])
    talk.called(1, parts=len(data), window=STREAM)
    assert talk.hears({"type": "grant", "id": 1, "items": 2, "bytes": 5}) == []
    assert kinds(talk.hears(*parts(encoding, 1, data))) == ["call"]
    credit = talk.endpoint.exchanges[1].credit
    assert credit is not None
    assert (credit.items, credit.bytes) == (6, 1005)


@BOTH
def test_an_unfinished_call_outlives_a_drain(encoding: Encoding) -> None:
    """R27: it was seen before."""
    talk = Talk("accepting", encoding)
    data = talk.payload([[], None])
    talk.called(1, parts=len(data))
    talk.endpoint.drain()
    talk.called(3, parts=len(data))
    goaway, error = talk.says()
    assert goaway == {"type": "goaway", "last_id": 1}
    assert (error["id"], error["retry"]) == (3, True)
    assert talk.hears(*parts(encoding, 3, data)) == []
    assert kinds(talk.hears(*parts(encoding, 1, data))) == ["call"]


# --- the end


@BOTH
@pytest.mark.parametrize("how", ["fail", "goaway"])
def test_the_end_frees_what_was_there(encoding: Encoding, how: str) -> None:
    """R27."""
    talk = Talk("accepting", encoding)
    talk.called(1, parts=100, refs=[[0, "stream", 3]])
    talk.hears(part(encoding, 1, b"x" * 50), {"type": "end", "id": 3})
    assert talk.endpoint.partial_bytes == 50
    if how == "fail":
        talk.endpoint.fail(RemoteProtocolError("no"))
    else:
        talk.hears({"type": "goaway", "last_id": 0, "code": "PROTOCOL_ERROR"})
    assert talk.endpoint.partial_bytes == 0
    assert not talk.endpoint.assembly.unfinished
    assert not talk.endpoint.assembly.uploads


@BOTH
def test_there_and_back(encoding: Encoding) -> None:
    """R21: two endpoints, a value of megabytes in each place where there may be one."""
    ours, theirs = pair(encoding)
    value = b'"' + b"x" * 3_000_000 + b'"'
    if encoding == "msgpack":
        value = msgspec.msgpack.encode("x" * 3_000_000)
    ours.call("m", value, value)
    ours.call("m", value, window=Window(2, 1))
    first, second = deliver(ours, theirs)
    for call in (first, second):
        assert isinstance(call, Call)
        assert bytes(call.args) == value
    theirs.answer(1, value)
    theirs.send(3, value)
    theirs.end(3)
    found = deliver(theirs, ours)
    assert sorted(kinds(found)) == ["chunk", "end", "result"]
    for event in found:
        if isinstance(event, Result):
            assert bytes(event.value) == value
        elif isinstance(event, Chunk):
            assert [bytes(item) for item in event.items] == [value]
    assert ours.exchanges == theirs.exchanges == {}
    assert ours.partial_bytes == theirs.partial_bytes == 0
    assert ours.outbox.room.used == theirs.outbox.room.used == 0
