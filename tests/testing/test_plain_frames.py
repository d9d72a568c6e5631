"""plain_frames.py: frames as dicts, in both encodings."""

from __future__ import annotations

import pytest

from tests.protocol.wire import BOTH
from trio_streamrpc.testing.plain_frames import encode_message, encode_payload, read_message

FRAMES = [
    {"type": "hello", "version": 1},
    {"type": "call", "id": 1, "method": "m", "args": [1, "é"], "priority": 3},
    {"type": "grant", "id": 1, "items": 2, "bytes": 10},
    {"type": "end", "id": 1},
]


@BOTH
def test_frames_come_back(encoding: str) -> None:
    assert read_message(encode_message(encoding, *FRAMES)) == FRAMES


def test_what_is_left_out_stands_for_itself() -> None:
    """R4: in msgpack a field has its place, whatever is left out in front of it."""
    message = encode_message("msgpack", {"type": "call", "id": 1, "priority": 3})
    assert read_message(message) == [{"type": "call", "id": 1, "priority": 3}]
    assert encode_message("json", {"type": "end", "id": 1}) == '[{"type":"end","id":1}]'


def test_a_field_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="no such field"):
        encode_message("msgpack", {"type": "end", "id": 1, "size": 2})


def test_payloads() -> None:
    assert encode_payload("msgpack", [1]) == b"\x91\x01"
    assert encode_payload("json", ["é"]) == '["é"]'.encode()
