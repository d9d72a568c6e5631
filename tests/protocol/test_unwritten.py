"""What the other side says of an id that it cannot know yet: what opens it still waits here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.protocol.wire import BOTH, STREAM, WINDOW, Talk
from trio_streamrpc.errors import RemoteProtocolError
from trio_streamrpc.protocol.codecs import Encoding

ERROR: dict[str, Any] = {"code": "ABORTED"}
#: For any id; those that cross a final frame are listed too (R9).
FRAMES: dict[str, dict[str, Any]] = {
    "result": {"type": "result", "value": 5},
    "result in parts": {"type": "result", "parts": 5},
    "error": {"type": "error", "error": ERROR},
    "end": {"type": "end"},
    "chunk": {"type": "chunk", "items": [1], "size": 1},
    "part": {"type": "part", "data": "x"},
    "cancel": {"type": "cancel"},
    "grant": {"type": "grant", "items": 1},
}


def refused(talk: Talk, frame: dict[str, Any]) -> None:
    """The frame is a connection error, and all that is said after it is that."""
    with pytest.raises(RemoteProtocolError, match=f"on id {frame['id']}, which is IDLE"):
        talk.hears(frame)
    assert [each["type"] for each in talk.says()] == ["goaway"]
    assert talk.endpoint.outbox.room.used == 0


def frame(encoding: Encoding, name: str, id: int) -> dict[str, Any]:
    found = {**FRAMES[name], "id": id}
    if name == "part" and encoding == "msgpack":
        found["data"] = b"x"
    return found


@BOTH
@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("kind", ["unary", "stream", "in parts"])
def test_a_call(encoding: Encoding, name: str, kind: str) -> None:
    """R5, R9: it was never opened."""
    talk = Talk("connecting", encoding, announced={"max_frame_bytes": 1000})
    value = "x" * 10_000 if kind == "in parts" else ""
    talk.endpoint.call("m", talk.payload([value]), window=WINDOW if kind == "stream" else None)
    refused(talk, frame(encoding, name, 1))


@BOTH
@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("id", [3, 5])
def test_references_of_a_call(encoding: Encoding, name: str, id: int) -> None:
    """R5, R9, R19: its uploads and its objects are opened by it."""
    talk = Talk("connecting", encoding)
    talk.endpoint.call("m", talk.payload([None] * 2), refs=[(0, "stream"), (1, "object")])
    refused(talk, frame(encoding, name, id))


@BOTH
@pytest.mark.parametrize("name", FRAMES)
def test_an_upload_that_is_over(encoding: Encoding, name: str) -> None:
    """R9: nothing can cross a final frame that waits behind its call."""
    talk = Talk("connecting", encoding)
    talk.endpoint.call("m", talk.payload([None]), refs=[(0, "stream")])
    talk.endpoint.end(3)
    refused(talk, frame(encoding, name, 3))


@BOTH
@pytest.mark.parametrize("name", FRAMES)
def test_an_object_in_an_item(encoding: Encoding, name: str) -> None:
    """R5, R9, R20: it is opened by its chunk."""
    talk = Talk("accepting", encoding)
    talk.called(1, window={"items": 1, "bytes": 1})
    talk.endpoint.send_object(1)
    refused(talk, frame(encoding, name, 2))


@BOTH
@pytest.mark.parametrize("name", FRAMES)
def test_a_call_that_was_taken_back(encoding: Encoding, name: str) -> None:
    """R5, R12: no higher id was written either."""
    talk = Talk("connecting", encoding)
    talk.endpoint.call("m", talk.payload([]))
    talk.endpoint.call("m", talk.payload([]))
    assert talk.endpoint.take_back(3)
    refused(talk, frame(encoding, name, 3))


@BOTH
def test_an_object_is_not_called(encoding: Encoding) -> None:
    """R20: a call to what never was is NOT_FOUND; and the object is there once it is written."""
    talk = Talk("connecting", encoding)
    talk.endpoint.call("m", talk.payload([None]), refs=[(0, "object")])
    assert talk.called(2, target=3) == []
    assert talk.endpoint.places.running == 0
    call, error = talk.says()
    assert (call["type"], error["id"], error["error"]["code"]) == ("call", 2, "NOT_FOUND")
    assert len(talk.called(4, target=3)) == 1


@BOTH
def test_others_are_not_held_up(encoding: Encoding) -> None:
    """What is written already, and what the other side has opened, goes on beside it."""
    talk = Talk("connecting", encoding)
    made = talk.calls(refs=[(0, "stream")])
    talk.called(2, window=STREAM)
    talk.called(102)
    talk.endpoint.call("m", talk.payload([]))
    assert len(talk.hears({"type": "grant", "id": made.uploads[0].id, "items": 1})) == 1
    assert len(talk.hears({"type": "cancel", "id": 102})) == 1
    assert len(talk.hears({"type": "grant", "id": 2, "items": 1})) == 1
    assert len(talk.hears({"type": "result", "id": made.id})) == 1
    talk.hears({"type": "goaway", "last_id": 0})
    assert talk.endpoint.withdraw() == [5]
