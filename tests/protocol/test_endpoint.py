"""endpoint.py: the verbs, what they write, and what they refuse."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.protocol.wire import BOTH, STREAM, WINDOW, Talk, deliver, pair, read
from trio_streamrpc.errors import (
    LocalProtocolError,
    RemoteProtocolError,
    ResourceExhausted,
    Unavailable,
)
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.credit import Growth
from trio_streamrpc.protocol.endpoint import Endpoint, Side
from trio_streamrpc.protocol.frames import (
    JSON,
    KINDS,
    Call,
    Chunk,
    End,
    Error,
    ErrorInfo,
    Frame,
    Kind,
    Result,
)

KB = 1024


# --- hello


def test_the_connecting_sides_hello() -> None:
    """R25, R26: it waits from the start, with the limits that the other side has to keep to."""
    limits = Limits(window=Window(3, 4000), max_calls=7, max_message_bytes=5000,
                    max_message_frames=60, max_frame_bytes=700, max_value_bytes=800,
                    max_partial_bytes=900)  # fmt: skip
    endpoint = Endpoint("connecting", encoding="json", limits=limits)
    assert endpoint.next_message() == (
        '[{"type":"hello","version":1,"limits":{"window":{"items":3,"bytes":4000},"max_calls":7,'
        '"max_message_bytes":5000,"max_message_frames":60,"max_frame_bytes":700,"max_value_bytes":800,'
        '"max_partial_bytes":900}}]'
    )
    assert endpoint.next_message() is None


@BOTH
def test_the_accepting_side_says_hello_when_it_accepts(encoding: Encoding) -> None:
    """R25."""
    talk = Talk("accepting", encoding, greeted=False)
    assert talk.says() == []
    with pytest.raises(LocalProtocolError, match="before a hello has come"):
        talk.endpoint.accept()
    talk.hears({"type": "hello", "version": 1})
    assert talk.says() == []
    assert not talk.endpoint.ready
    assert talk.endpoint.accept() == []
    assert [frame["type"] for frame in talk.says()] == ["hello"]
    assert talk.endpoint.ready
    with pytest.raises(LocalProtocolError, match="or twice"):
        talk.endpoint.accept()


@BOTH
def test_the_accepting_side_may_say_goaway_instead(encoding: Encoding) -> None:
    """R25: with last_id 0 and a code, which the connecting side raises."""
    ours = Endpoint("connecting", encoding=encoding)
    theirs = Endpoint("accepting", encoding=encoding)
    deliver(ours, theirs)
    theirs.fail(RemoteProtocolError("not with me"))
    [goaway] = deliver(theirs, ours)
    assert isinstance(goaway, Frame)
    assert KINDS[goaway.kind] == "goaway"
    assert (goaway.last_id, goaway.code) == (0, "PROTOCOL_ERROR")  # type: ignore[attr-defined]


@BOTH
def test_metadata_of_a_hello(encoding: Encoding) -> None:
    value = msgspec.json.encode({"token": "s"}) if encoding == "json" else b"\x81\xa5token\xa1s"
    endpoint = Endpoint("connecting", encoding=encoding, metadata=Raw(value))
    [hello] = read(endpoint.next_message())
    assert hello["metadata"] == {"token": "s"}


def test_both_sides_are_ready_after_their_hellos() -> None:
    ours, theirs = Endpoint("connecting"), Endpoint("accepting")
    assert not ours.ready
    deliver(ours, theirs)
    assert not theirs.ready
    theirs.accept()
    assert theirs.ready
    assert not ours.ready
    deliver(theirs, ours)
    assert ours.ready
    assert (ours.highest_used, theirs.highest_used) == (-1, 0)


@BOTH
def test_no_call_before_both_hellos(encoding: Encoding) -> None:
    """R25."""
    sides: list[Side] = ["connecting", "accepting"]
    for side in sides:
        talk = Talk(side, encoding, greeted=False)
        with pytest.raises(LocalProtocolError, match="before both sides have said hello"):
            talk.endpoint.call("m", talk.payload([]))
    talk = Talk("accepting", encoding, greeted=False)
    talk.hears({"type": "hello", "version": 1})
    with pytest.raises(LocalProtocolError, match="before both sides have said hello"):
        talk.endpoint.call("m", talk.payload([]))


def test_an_unknown_encoding() -> None:
    with pytest.raises(ValueError, match="bson"):
        Endpoint("connecting", encoding="bson")  # type: ignore[arg-type]


# --- the example of the document


def test_the_example_of_the_document() -> None:
    """R2, R7, R9, R15: section 8 of docs/protocol.md, byte for byte and both ways.

    The hellos are the document's, for those of an endpoint tell all of its limits.
    """
    caller = Endpoint("connecting", encoding="json")
    callee = Endpoint("accepting", encoding="json")
    caller.next_message()
    [_] = callee.receive('[{"type":"hello","version":1}]')
    callee.accept()
    callee.next_message()
    [_] = caller.receive('[{"type":"hello","version":1,"limits":{"max_calls":100}}]')

    exchange = caller.call("countdown", b"[5]", window=Window(2, 65536))
    sent = caller.next_message()
    assert sent == (
        '[{"type":"call","id":1,"method":"countdown","args":[5],'
        '"window":{"items":2,"bytes":65536}}]'
    )
    [call] = callee.receive(sent)
    assert isinstance(call, Call)
    assert (call.method, bytes(call.args)) == ("countdown", b"[5]")

    for item in (b"5", b"4"):
        assert callee.may_send(1)
        callee.send(1, item)
    assert not callee.may_send(1)
    sent = callee.next_message()
    assert sent == '[{"type":"chunk","id":1,"items":[5,4],"size":2}]'
    [chunk] = caller.receive(sent)
    assert isinstance(chunk, Chunk)

    assert exchange.window is not None
    due = exchange.window.take(1, 1)
    assert due == (1, 1)
    caller.grant(1, *due)
    sent = caller.next_message()
    assert sent == '[{"type":"grant","id":1,"items":1,"bytes":1}]'
    [_] = callee.receive(sent)
    assert callee.may_send(1)
    callee.send(1, b"3")

    assert caller.cancel(1, "close")
    cancel = caller.next_message()
    assert cancel == '[{"type":"cancel","id":1,"mode":"close"}]'

    # The chunk crosses the cancel.
    callee.end(1)
    sent = callee.next_message()
    assert sent == '[{"type":"chunk","id":1,"items":[3],"size":1},{"type":"end","id":1}]'
    assert callee.receive(cancel) == []
    [end] = caller.receive(sent)
    assert isinstance(end, End)
    assert caller.exchanges == callee.exchanges == {}
    assert callee.places.running == 0


# --- calls


@BOTH
def test_a_call(encoding: Encoding) -> None:
    talk = Talk("connecting", encoding)
    exchange = talk.endpoint.call(
        "a.b",
        talk.payload([1]),
        talk.payload({"k": 2}),
        timeout=1.5,
        metadata=talk.payload({"m": 3}),
    )
    assert talk.says() == [
        {
            "type": "call", "id": 1, "method": "a.b", "args": [1], "kwargs": {"k": 2},
            "timeout": 1.5, "metadata": {"m": 3},
        }
    ]  # fmt: skip
    assert (exchange.id, exchange.window, exchange.credit) == (1, None, None)
    assert talk.endpoint.highest_used == 1


@BOTH
def test_priorities(encoding: Encoding) -> None:
    """R12: the caller's wish, kept by both sides; of what waits, the higher goes first."""
    caller, callee = pair(encoding)
    args = b"[]" if encoding == "json" else b"\x90"
    value = b"5" if encoding == "json" else b"\x05"
    for priority, window in ((-128, None), (0, WINDOW), (127, None), (5, WINDOW), (-1, WINDOW)):
        exchange = caller.call("m", args, priority=priority, window=window)
        assert exchange.priority == priority
    priorities = {}
    for call in deliver(caller, callee):
        assert isinstance(call, Call)
        priorities[call.id] = call.priority
        assert callee.exchanges[call.id].priority == call.priority
    assert priorities == {1: -128, 3: 0, 5: 127, 7: 5, 9: -1}, "calls go in the order of their ids"
    callee.answer(1, value)
    callee.send(3, value)
    callee.answer(5, value)
    callee.send(7, value)
    callee.answer_error(9, ErrorInfo("ABORTED"))
    assert [frame["id"] for frame in read(callee.next_message())] == [5, 7, 3, 9, 1]
    for id in (3, 7):
        callee.end(id)
    assert [frame["id"] for frame in read(callee.next_message())] == [7, 3]


@BOTH
@pytest.mark.parametrize("priority", [-129, 128])
def test_a_priority_out_of_range(encoding: Encoding, priority: int) -> None:
    """R12: fails here, and not in the other side's decoder."""
    talk = Talk("connecting", encoding)
    with pytest.raises(ValueError, match=f"from -128 to 127, not {priority}"):
        talk.endpoint.call("m", talk.payload([]), priority=priority)
    assert talk.says() == []
    assert talk.endpoint.exchanges == {}
    assert talk.calls(priority=127).id == 1


@BOTH
@pytest.mark.parametrize(("side", "ids"), [("connecting", [1, 3, 5]), ("accepting", [2, 4, 6])])
def test_ids(encoding: Encoding, side: Any, ids: list[int]) -> None:
    """R5: odd or even by the side, and up."""
    talk = Talk(side, encoding)
    assert [talk.endpoint.call("m", talk.payload([])).id for _ in ids] == ids
    assert [frame["id"] for frame in talk.says()] == ids


@BOTH
def test_a_call_for_a_stream(encoding: Encoding) -> None:
    """R18: the window is the caller's own to keep."""
    talk = Talk("connecting", encoding)
    exchange = talk.endpoint.call("m", talk.payload([]), window=Window(3, 50))
    [call] = talk.says()
    assert call["window"] == {"items": 3, "bytes": 50}
    assert exchange.window is not None
    assert (exchange.window.credit_items, exchange.window.credit_bytes) == (3, 50)


@BOTH
def test_a_call_that_is_too_long(encoding: Encoding) -> None:
    """R21, R28: fails here, and has used no id: at the limit one passes."""
    talk = Talk("connecting", encoding, announced={"max_value_bytes": 2000})
    overhead = len(talk.payload("x" * 1000)) - 1000
    longest, empty = talk.payload("x" * (2000 - overhead)), talk.payload({})
    assert len(longest) == 2000
    for arguments in ((longest + b" ",), (longest, empty)):
        with pytest.raises(ResourceExhausted, match=r"the arguments would take 20\d\d bytes"):
            talk.endpoint.call("m", *arguments)
        with pytest.raises(ResourceExhausted, match="takes at most 2000"):
            talk.endpoint.parts_of("m", *arguments)
    assert talk.endpoint.exchanges == {}
    assert talk.says() == []
    assert talk.endpoint.parts_of("m", longest) == 0
    assert talk.endpoint.call("m", longest).id == 1
    assert [frame["type"] for frame in talk.says()] == ["call"]


@BOTH
def test_a_call_that_is_too_long_beside_its_arguments(encoding: Encoding) -> None:
    """R28: what has to be in the first frame, whatever travels in parts."""
    talk = Talk("connecting", encoding, announced={"max_message_bytes": 2000})
    args = talk.payload([])
    metadata = talk.payload("x" * 1500)
    room = 2000 - 112 - 64 - len(metadata) - (len(talk.payload("m" * 300)) - 300)
    with pytest.raises(ResourceExhausted, match="a call without its arguments would take 1889"):
        talk.endpoint.call("m" * (room + 1), args, metadata=metadata)
    with pytest.raises(ResourceExhausted, match="takes at most 1888"):
        talk.endpoint.parts_of("m" * (room + 1), args, other_bytes=len(metadata))
    assert talk.endpoint.exchanges == {}
    talk.endpoint.call("m" * room, args, metadata=metadata)
    assert [frame["type"] for frame in talk.says()] == ["call", "part"]


@BOTH
@pytest.mark.parametrize("limit", [1024, 100_000])
@pytest.mark.parametrize("method", ["m", "\x01" * 40, "😀" * 30])
def test_the_longest_call_fits(encoding: Encoding, limit: int, method: str) -> None:
    """R28: with everything that a call can say, at its longest."""
    talk = Talk("connecting", encoding, announced={"max_message_bytes": limit})
    size, empty = limit, talk.payload({})
    while talk.endpoint.parts_of(method, talk.payload("x" * size), empty, other_bytes=len(empty)):
        size -= 1
    talk.endpoint.call(
        method,
        talk.payload("x" * size),
        empty,
        window=Window(2**53 - 1, 2**53 - 1),
        timeout=1.2345678901234567e-300,
        metadata=empty,
        priority=-128,
    )
    whole = talk.endpoint.next_message()
    assert whole is not None
    assert limit - 250 < len(whole.encode() if isinstance(whole, str) else whole) <= limit


@BOTH
def test_chunks_keep_to_what_the_other_side_says(encoding: Encoding) -> None:
    """R26: max_frame_bytes and max_message_frames of its hello."""
    announced = {"max_frame_bytes": 3, "max_message_frames": 2}
    talk = Talk("accepting", encoding, announced=announced)
    talk.called(1, window={"items": 100, "bytes": 1000})
    for _ in range(5):
        talk.endpoint.send(1, talk.payload(5))
    counts = [[frame["size"] for frame in frames] for frames in talk.messages()]
    assert counts == [[1, 1], [1, 1], [1]], "two items and what parts them are more than three"


@BOTH
def test_a_method_name_that_is_no_text(encoding: Encoding) -> None:
    """Fails here, and not in the writer, which would take the connection with it."""
    talk = Talk("connecting", encoding)
    with pytest.raises(ValueError, match="surrogates"):
        talk.endpoint.call("m\ud800", talk.payload([]))
    assert talk.says() == []
    assert talk.endpoint.exchanges == {}
    assert talk.calls("m😀\n").id == 1


@BOTH
def test_no_call_to_a_side_that_goes_away(encoding: Encoding) -> None:
    """R27: safe to send elsewhere."""
    talk = Talk("connecting", encoding)
    talk.hears({"type": "goaway", "last_id": 0})
    with pytest.raises(Unavailable) as caught:
        talk.endpoint.call("m", talk.payload([]))
    assert caught.value.retry
    assert talk.says() == []


@BOTH
def test_no_call_after_a_connection_error(encoding: Encoding) -> None:
    talk = Talk("connecting", encoding)
    talk.endpoint.fail(RemoteProtocolError("no"))
    with pytest.raises(LocalProtocolError):
        talk.endpoint.call("m", talk.payload([]))


# --- answers


@BOTH
def test_an_answer(encoding: Encoding) -> None:
    """R6: one final frame; the second is refused here."""
    talk = Talk("accepting", encoding)
    talk.called(1)
    talk.endpoint.answer(1, talk.payload({"a": 1}))
    with pytest.raises(LocalProtocolError, match="id 1, which is CLOSED"):
        talk.endpoint.answer(1, talk.payload(None))
    with pytest.raises(LocalProtocolError):
        talk.endpoint.answer_error(1, ErrorInfo("X"))
    assert talk.says() == [{"type": "result", "id": 1, "value": {"a": 1}}]
    with pytest.raises(LocalProtocolError, match="id 1, which is CLOSED"):
        talk.endpoint.answer(1, talk.payload(None))
    assert talk.endpoint.exchanges == {}
    assert talk.endpoint.places.running == 0


@BOTH
def test_an_answer_that_is_too_long(encoding: Encoding) -> None:
    """R21: the call is still open, and can be answered with an error."""
    talk = Talk("accepting", encoding, announced={"max_value_bytes": 1888})
    talk.called(1)
    overhead = len(talk.payload("x" * 1000)) - 1000
    with pytest.raises(ResourceExhausted, match="the result would take 1889 bytes"):
        talk.endpoint.answer(1, talk.payload("x" * (1889 - overhead)))
    assert talk.state(1) == "ANSWERING"
    talk.endpoint.answer(1, talk.payload("x" * (1888 - overhead)))
    whole = talk.endpoint.next_message()
    assert whole is not None
    assert len(whole) <= 2000


@BOTH
@pytest.mark.parametrize("window", [None, STREAM])
def test_an_error(encoding: Encoding, window: Any) -> None:
    """R6, R22: unary or stream; after the items that were sent before it."""
    talk = Talk("accepting", encoding)
    talk.called(1, window=window)
    if window:
        talk.endpoint.send(1, talk.payload(5))
    info = ErrorInfo("UNKNOWN", "KeyError", "'a'", traceback="tb", causes=[ErrorInfo("ABORTED")])
    talk.endpoint.answer_error(1, info, cleanup=True, retry=True)
    assert talk.endpoint.places.running == 1
    *items, error = talk.says()
    assert [item["items"] for item in items] == ([[5]] if window else [])
    assert error == {
        "type": "error", "id": 1, "cleanup": True, "retry": True,
        "error": {
            "code": "UNKNOWN", "name": "KeyError", "message": "'a'", "traceback": "tb",
            "causes": [{"code": "ABORTED"}],
        },
    }  # fmt: skip
    assert talk.endpoint.places.running == 0


@BOTH
@pytest.mark.parametrize("limit", [1024, 1100, 4096, 1024 * KB])
@pytest.mark.parametrize("wide", ["a", "é", "😀", "\x01", '"', "\ud800"])
def test_errors_are_shortened(encoding: Encoding, limit: int, wide: str) -> None:
    """R22: what is too long for the other side loses its detail, and never its code."""
    talk = Talk("accepting", encoding, announced={"max_message_bytes": limit})
    for info in (
        ErrorInfo("FAILED_PRECONDITION", wide * 10_000, wide * 100_000),
        ErrorInfo("FAILED_PRECONDITION", "E", "m", traceback=wide * 100_000),
        ErrorInfo("FAILED_PRECONDITION", "E", "m", causes=[ErrorInfo("X", wide)] * 10_000),
    ):
        short, size = talk.endpoint.shortened(info)
        assert short.code == "FAILED_PRECONDITION"
        assert short.traceback is None
        assert short.causes == []
        assert info.name[:1] in (short.name[:1], "\ud800")
        assert size == talk.endpoint.codec.length(short) <= min(limit // 2, 16 * KB)


@BOTH
def test_an_error_that_fits_is_sent_as_it_is(encoding: Encoding) -> None:
    endpoint = Talk("accepting", encoding).endpoint
    info = ErrorInfo("ABORTED", "E", "m" * 16_000)
    assert endpoint.shortened(info)[0] is info


@BOTH
def test_errors_with_lone_surrogates(encoding: Encoding) -> None:
    """A file name in an exception's message: escaped, and not an exception in the writer."""
    talk = Talk("accepting", encoding)
    talk.called(1)
    talk.endpoint.answer_error(1, ErrorInfo("UNKNOWN", "E", "no file \udcff"))
    [error] = talk.says()
    assert error["error"] == {"code": "UNKNOWN", "name": "E", "message": "no file \\udcff"}
    talk.endpoint.fail(RemoteProtocolError("no \udcff"))
    [goaway] = talk.says()
    assert goaway["message"] == "no \\udcff"


@BOTH
def test_an_overrun_keeps_its_place(encoding: Encoding) -> None:
    """R7a: beyond its final frame, until the handler has stopped."""
    for stopped_first in (False, True):
        talk = Talk("accepting", encoding)
        talk.called(1, window=STREAM)
        call = talk.endpoint.exchanges[1]
        talk.hears({"type": "cancel", "id": 1})
        info = ErrorInfo("DEADLINE_EXCEEDED", "CleanupTimeout")
        talk.endpoint.answer_error(1, info, overrun=True)
        assert (talk.endpoint.places.running, talk.endpoint.places.overrunning) == (1, 1)
        if stopped_first:
            talk.endpoint.stopped(call)
            assert [frame["type"] for frame in talk.says()] == ["error"]
        else:
            assert [frame["type"] for frame in talk.says()] == ["error"]
            assert (talk.endpoint.places.running, talk.endpoint.places.overrunning) == (1, 1)
            talk.endpoint.stopped(call)
        assert (talk.endpoint.places.running, talk.endpoint.places.overrunning) == (0, 0)


# --- items


@BOTH
def test_items(encoding: Encoding) -> None:
    """R14: as far as the credit goes, and no further."""
    talk = Talk("accepting", encoding)
    talk.called(1, window={"items": 2, "bytes": 100})
    for value in (5, "x"):
        assert talk.endpoint.may_send(1)
        talk.endpoint.send(1, talk.payload(value))
    assert not talk.endpoint.may_send(1)
    with pytest.raises(LocalProtocolError, match="an item on id 1 without credit"):
        talk.endpoint.send(1, talk.payload(6))
    size = len(talk.payload("x")) + 1
    assert talk.says() == [{"type": "chunk", "id": 1, "items": [5, "x"], "size": size}]
    talk.hears({"type": "grant", "id": 1, "items": 1})
    assert talk.endpoint.may_send(1)
    talk.endpoint.end(1)
    assert not talk.endpoint.may_send(1), "after the end there is no more"
    assert talk.says() == [{"type": "end", "id": 1}]
    assert not talk.endpoint.may_send(1)


@BOTH
def test_a_large_item_is_sent_on_the_last_byte_of_credit(encoding: Encoding) -> None:
    """R14."""
    talk = Talk("accepting", encoding)
    talk.called(1, window={"items": 9, "bytes": 2})
    talk.endpoint.send(1, talk.payload(5))
    assert talk.endpoint.may_send(1)
    talk.endpoint.send(1, talk.payload("x" * 1000))
    assert not talk.endpoint.may_send(1)
    talk.hears({"type": "grant", "id": 1, "items": 0, "bytes": 1000})
    assert not talk.endpoint.may_send(1)
    talk.hears({"type": "grant", "id": 1, "items": 0, "bytes": 10})
    assert talk.endpoint.may_send(1)


@BOTH
def test_may_send_asks_for_what_cannot_be_sent(encoding: Encoding) -> None:
    """Only a stream that this side produces, and that nobody has cancelled."""
    talk = Talk("accepting", encoding)
    talk.called(1)
    own = talk.calls(window=WINDOW).id
    for id in (1, own, 99):
        assert not talk.endpoint.may_send(id)


@BOTH
def test_an_item_that_is_too_long(encoding: Encoding) -> None:
    """R21: the stream is still open, its credit untouched."""
    talk = Talk("accepting", encoding, announced={"max_value_bytes": 1888})
    talk.called(1, window={"items": 1, "bytes": 1})
    overhead = len(talk.payload("x" * 1000)) - 1000
    with pytest.raises(ResourceExhausted, match="the item would take 1889 bytes"):
        talk.endpoint.send(1, talk.payload("x" * (1889 - overhead)))
    assert talk.endpoint.may_send(1)
    talk.endpoint.send(1, talk.payload("x" * (1888 - overhead)))
    whole = talk.endpoint.next_message()
    assert whole is not None
    assert len(whole) <= 2000


@BOTH
def test_what_waits_for_one_stream_is_bounded(encoding: Encoding) -> None:
    """R17: a peer may grant without reading; this side's memory is not its to give."""
    talk = Talk("accepting", encoding)
    talk.called(1, window={"items": 2**53 - 1, "bytes": 2**53 - 1})
    item = talk.payload("x" * 10_000)
    count = 0
    while talk.endpoint.may_send(1):
        talk.endpoint.send(1, item)
        count += 1
    assert 256 * KB <= count * len(item) < 256 * KB + len(item)
    assert talk.endpoint.unblocked() == []
    talk.endpoint.next_message()
    assert talk.endpoint.unblocked() == [1]
    assert talk.endpoint.unblocked() == []
    assert talk.endpoint.may_send(1)


@BOTH
def test_a_stream_without_credit_is_not_said_to_be_unblocked(encoding: Encoding) -> None:
    talk = Talk("accepting", encoding)
    talk.called(1, window={"items": 1, "bytes": 1})
    talk.endpoint.send(1, talk.payload(5))
    assert not talk.endpoint.may_send(1)
    talk.says()
    assert talk.endpoint.unblocked() == []


# --- cancel and grant


@BOTH
@pytest.mark.parametrize("mode", ["close", "abort"])
def test_a_cancel(encoding: Encoding, mode: Any) -> None:
    """R7, R8: the id lives on until the final frame."""
    talk = Talk("connecting", encoding)
    id = talk.calls(window=WINDOW).id
    assert talk.endpoint.cancel(id, mode, ErrorInfo("UNKNOWN", "E", "why"))
    [cancel] = talk.says()
    assert cancel == {
        "type": "cancel", "id": id, "error": {"code": "UNKNOWN", "name": "E", "message": "why"},
        **({"mode": "close"} if mode == "close" else {}),
    }  # fmt: skip
    assert talk.state(id) == "LEAVING"
    assert [KINDS[event.kind] for event in talk.hears({"type": "end", "id": id})] == ["end"]
    assert talk.endpoint.cancel(id, mode), "closed already: left alone"
    assert talk.says() == []


@BOTH
def test_a_cancel_takes_back_a_call_that_was_not_written(encoding: Encoding) -> None:
    """R12: neither is written; its id is not used again (R5)."""
    talk = Talk("connecting", encoding)
    first = talk.endpoint.call("m", talk.payload([]))
    second = talk.endpoint.call("m", talk.payload([]), window=WINDOW)
    third = talk.endpoint.call("m", talk.payload([]))
    assert not talk.endpoint.cancel(second.id, "abort")
    assert talk.endpoint.cancel(second.id, "abort"), "it is closed now"
    assert [frame["id"] for frame in talk.says()] == [first.id, third.id]
    assert talk.endpoint.exchanges.keys() == {first.id, third.id}


@BOTH
def test_an_error_of_a_cancel_is_shortened(encoding: Encoding) -> None:
    """R22."""
    talk = Talk("connecting", encoding, announced={"max_message_bytes": 2000})
    id = talk.calls(window=WINDOW).id
    talk.endpoint.cancel(id, "abort", ErrorInfo("UNKNOWN", "E", "why " * 10_000))
    whole = talk.endpoint.next_message()
    assert whole is not None
    assert len(whole) < 1200


@BOTH
def test_a_grant(encoding: Encoding) -> None:
    """R15, R24: what waits of one id is merged."""
    talk = Talk("connecting", encoding)
    id = talk.calls(window=WINDOW).id
    talk.endpoint.grant(id, 1, 10)
    talk.endpoint.grant(id, 2, 0)
    assert talk.says() == [{"type": "grant", "id": id, "items": 3, "bytes": 10}]


@BOTH
def test_a_cancel_is_the_last_that_a_consumer_says(encoding: Encoding) -> None:
    """R12: grants that wait are not written behind it, and later ones are not taken."""
    talk = Talk("connecting", encoding)
    id = talk.calls(window=WINDOW).id
    talk.endpoint.grant(id, 1, 10)
    talk.endpoint.cancel(id, "close")
    talk.endpoint.grant(id, 1, 10)
    assert talk.says() == [{"type": "cancel", "id": id, "mode": "close"}]
    talk.hears({"type": "end", "id": id})
    talk.endpoint.grant(id, 1, 10)
    assert talk.says() == []


# --- uploads


@BOTH
@pytest.mark.parametrize("how", ["answer", "error", "stream error", "end"])
def test_uploads_are_cancelled_before_the_final_frame(encoding: Encoding, how: str) -> None:
    """R10: those still open; the caller answers each with its final frame."""
    talk = Talk("accepting", encoding)
    refs = [[0, "stream", 3], [1, "stream", 5], [2, "stream", 7]]
    talk.called(1, refs=refs, window=STREAM if how in {"stream error", "end"} else None)
    talk.hears({"type": "end", "id": 5})
    match how:
        case "answer":
            talk.endpoint.answer(1, talk.payload(None))
        case "end":
            talk.endpoint.end(1)
        case _:
            talk.endpoint.answer_error(1, ErrorInfo("ABORTED"))
    *cancels, final = talk.says()
    assert cancels == [{"type": "cancel", "id": 3}, {"type": "cancel", "id": 7}]
    assert final["id"] == 1
    assert talk.endpoint.exchanges.keys() == {3, 7}
    talk.hears({"type": "end", "id": 3}, {"type": "error", "id": 7, "error": {"code": "CANCELLED"}})
    assert talk.endpoint.exchanges == {}


@BOTH
def test_an_upload_is_granted_and_left_like_any_stream(encoding: Encoding) -> None:
    """R16."""
    talk = Talk("accepting", encoding, limits=Limits(window=Window(2, 100)))
    talk.called(1, refs=[[0, "stream", 3]])
    window = talk.endpoint.exchanges[3].window
    assert window is not None
    talk.hears({"type": "chunk", "id": 3, "items": [5, 6], "size": 2})
    assert window.take(1, 1) == (1, 1)
    talk.endpoint.grant(3, 1, 1)
    assert talk.says() == [{"type": "grant", "id": 3, "items": 1, "bytes": 1}]
    talk.endpoint.cancel(3, "close")
    assert talk.says() == [{"type": "cancel", "id": 3, "mode": "close"}]


# --- ping, drain, withdraw


@BOTH
def test_a_ping(encoding: Encoding) -> None:
    """R24: there and back."""
    ours, theirs = pair(encoding)
    token = msgspec.json.encode(7) if encoding == "json" else b"\x07"
    ours.ping(Raw(token))
    assert deliver(ours, theirs) == []
    [pong] = deliver(theirs, ours)
    assert isinstance(pong, JSON.pong if encoding == "json" else JSON.pong.__base__)  # type: ignore[arg-type]
    assert bytes(pong.token) == token  # type: ignore[union-attr]


@BOTH
def test_the_round_trip_is_measured(encoding: Encoding) -> None:
    """R15: the shortest counts at once, a longer one by and by, and keepalive's pings do not."""
    talk = Talk("connecting", encoding)

    def measures(sent: float, heard: float) -> None:
        talk.endpoint.measure(sent)
        talk.endpoint.measure(sent + 1)  # one at a time
        [ping] = talk.says()
        talk.hears({"type": "pong", "token": ping["token"]}, now=heard)

    assert talk.endpoint.round_trip.seconds is None
    talk.hears({"type": "pong", "token": None}, now=5.0)
    talk.hears({"type": "pong", "token": 1}, now=5.0)  # to a ping that was never sent
    talk.endpoint.ping(talk.endpoint.codec.null)
    talk.says()
    talk.hears({"type": "pong", "token": None}, now=6.0)
    assert talk.endpoint.round_trip.seconds is None
    measures(10.0, 10.5)
    assert talk.endpoint.round_trip.seconds == 0.5
    measures(20.0, 20.25)
    assert talk.endpoint.round_trip.seconds == 0.25
    measures(30.0, 31.25)
    assert talk.endpoint.round_trip.seconds == 0.375


@BOTH
def test_a_window_grows(encoding: Encoding) -> None:
    """R15: more is granted than was taken, once both ends have waited for the link."""
    talk = Talk("connecting", encoding)
    talk.endpoint.measure(0.0)
    talk.says()
    talk.hears({"type": "pong", "token": 1}, now=0.1)
    exchange = talk.calls(window=Window(4, 1000), growth=Growth(Window(6, 4000)))
    window = exchange.window
    assert window is not None
    talk.hears({"type": "chunk", "id": 1, "items": [1, 2, 3, 4], "size": 4}, now=1.0)
    assert window.take(1, 1) is None
    due = window.take(3, 3)
    assert due == (4, 4)
    talk.endpoint.grant(1, *due, 1.0)
    assert talk.says() == [{"type": "grant", "id": 1, "items": 4, "bytes": 4}]
    talk.hears({"type": "chunk", "id": 1, "items": [5], "size": 1}, now=1.1)
    assert talk.says() == [{"type": "grant", "id": 1, "items": 2, "bytes": 1000}]
    assert window.window == Window(6, 2000)


@BOTH
def test_a_drain(encoding: Encoding) -> None:
    """R27: said once, without a code; calls of this side go on."""
    talk = Talk("accepting", encoding)
    talk.called(1)
    talk.called(7)
    talk.endpoint.drain()
    talk.endpoint.drain()
    assert talk.endpoint.drain_from == 7
    assert talk.says() == [{"type": "goaway", "last_id": 7}]
    assert talk.calls().id == 2


@BOTH
def test_calls_that_were_not_written_are_withdrawn(encoding: Encoding) -> None:
    """R27: the others finish."""
    talk = Talk("connecting", encoding)
    written = talk.calls().id
    waiting = [talk.endpoint.call("m", talk.payload([])).id for _ in range(3)]
    assert talk.endpoint.withdraw() == waiting
    assert talk.endpoint.withdraw() == []
    assert talk.says() == []
    assert talk.endpoint.exchanges.keys() == {written}


@BOTH
def test_a_drain_leaves_calls_to_objects_alone(encoding: Encoding) -> None:
    """R27: they are part of what runs, whether they were made before or after."""
    talk = Talk("connecting", encoding)
    root = talk.calls(window=WINDOW)
    before = talk.endpoint.call("m", talk.payload([]), target=2, root=root).id
    talk.hears({"type": "goaway", "last_id": root.id})
    assert talk.endpoint.withdraw() == []
    after = talk.endpoint.call("m", talk.payload([]), target=2, root=root).id
    with pytest.raises(Unavailable):
        talk.endpoint.call("m", talk.payload([]))
    assert [each["id"] for each in talk.says()] == [before, after]


# --- order of what is said


@BOTH
def test_order_of_writing(encoding: Encoding) -> None:
    """R12: control, then opening frames by their ids, then refusals and the rest."""
    talk = Talk("accepting", encoding, limits=Limits(max_calls=2))
    own = talk.calls(window=WINDOW).id
    talk.called(1, window=STREAM)
    talk.called(3)
    talk.endpoint.send(1, talk.payload(5))
    talk.endpoint.answer(3, talk.payload(None))
    talk.called(5)
    talk.endpoint.call("m", talk.payload([]))
    talk.endpoint.call("m", talk.payload([]))
    talk.endpoint.grant(own, 1, 1)
    talk.hears({"type": "ping"})
    [frames] = talk.messages()
    assert [(frame["type"], frame.get("id")) for frame in frames] == [
        ("pong", None), ("grant", own), ("call", 4), ("call", 6), ("error", 5),
        ("chunk", 1), ("result", 3),
    ]  # fmt: skip


# --- two endpoints


@BOTH
def test_both_sides_may_call(encoding: Encoding) -> None:
    ours, theirs = pair(encoding)
    sides = ((ours, theirs), (theirs, ours))
    for caller, callee in sides:
        value = json.dumps([1]).encode() if encoding == "json" else b"\x91\x01"
        exchange = caller.call("m", value)
        [call] = deliver(caller, callee)
        assert isinstance(call, Call)
        callee.answer(call.id, bytes(call.args))
        [result] = deliver(callee, caller)
        assert isinstance(result, Result)
        assert (result.id, bytes(result.value)) == (exchange.id, value)
    assert ours.exchanges == theirs.exchanges == {}


@BOTH
@given(
    ours=st.integers(1024, 200_000), theirs=st.integers(1024, 200_000), size=st.integers(0, 5000)
)
def test_limits_of_both_sides_are_kept(
    encoding: Encoding, ours: int, theirs: int, size: int
) -> None:
    """R26, R28: what one side may say by the other's hello, the other takes."""
    caller, callee = pair(
        encoding,
        limits=Limits(max_message_bytes=ours),
        accepting=Limits(max_message_bytes=theirs, max_message_frames=3),
    )
    value = b'"' + b"x" * size + b'"' if encoding == "json" else msgspec.msgpack.encode("x" * size)
    for _ in range(5):
        caller.call("m", value, value)
    received = deliver(caller, callee)
    assert len(received) == 5
    for call in received:
        assert isinstance(call, Call)
        assert bytes(call.args) == bytes(call.kwargs) == value
        if call.id == 1:
            callee.answer_error(call.id, ErrorInfo("ABORTED", "E", "m" * size))
        else:
            callee.answer(call.id, value)
    answers = deliver(callee, caller)
    assert len(answers) == 5
    for answer in answers:
        assert isinstance(answer, Error if answer.kind == Kind.ERROR else Result)
        assert not isinstance(answer, Result) or bytes(answer.value) == value


@BOTH
def test_a_window_that_is_used_up_in_no_time_is_enlarged(encoding: Encoding) -> None:
    """R15: the grant that was due brings the larger window along."""
    talk = Talk("connecting", encoding)
    call = talk.calls(window=Window(8, 1000), growth=Growth(Window(64, 8000)))
    assert call.window is not None
    for now, granted in ((1.0, (4, 4)), (1.0005, (12, 1004))):
        talk.hears({"type": "chunk", "id": call.id, "items": [5] * 4, "size": 4}, now=now)
        due = call.window.take(4, 4)
        assert due == (4, 4)
        talk.endpoint.grant(call.id, *due, now)
        [grant] = talk.says()
        assert (grant["items"], grant["bytes"]) == granted
    assert call.window.window == Window(16, 2000)
