"""The wire as docs/protocol.md describes it, written once more and by hand.

Frames are plain dicts here, ``{"type": "end", "id": 1}``, whatever the encoding. What makes and
reads them is the kit's, which has it from the document, so that what a test sends and reads is what
that says, and not what the code under test happens to think.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.endpoint import Endpoint, Event, Side
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.testing.plain_frames import (
    FIELDS,
    NUMBERS,
    PlainFrame,
    encode_message,
    encode_payload,
    read_message,
)

__all__ = ["BOTH", "FIELDS", "NUMBERS", "Talk", "message", "pair", "payload", "read", "whole"]

BOTH = pytest.mark.parametrize("encoding", ["msgpack", "json"])

message = encode_message
payload = encode_payload


def read(message: bytes | str | None) -> list[PlainFrame]:
    """The frames of a message, without the fields that say no more than if they were left out."""
    assert message is not None, "nothing waits to be written"
    return read_message(message)


def whole(encoding: str, frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The frames of one id, values that came in parts in the places where they belong (R21)."""
    found: list[dict[str, Any]] = []
    left, text = 0, encoding == "json"
    parts: list[Any] = []
    for frame in frames:
        if frame["type"] != "part":
            assert not left, f"{frame} in the middle of a value"
            found.append(dict(frame))
            left, parts = found[-1].pop("parts", 0), []
            continue
        parts.append(frame["data"])
        left -= len(parts[-1].encode() if text else parts[-1])
        assert left >= 0
        if left == 0:
            value = json.loads("".join(parts)) if text else msgspec.msgpack.decode(b"".join(parts))
            if found[-1]["type"] == "call":
                found[-1]["args"], found[-1]["kwargs"] = value
            elif found[-1]["type"] == "result":
                found[-1]["value"] = value
            else:
                assert found[-1]["items"] == [None]
                found[-1]["items"] = [value]
    assert not left, "a value without its end"
    return found


class Talk:
    """One endpoint under test; its peer is whoever writes the test."""

    def __init__(
        self,
        side: Side,
        encoding: Encoding,
        *,
        limits: Limits | None = None,
        announced: dict[str, Any] | None = None,
        greeted: bool = True,
    ) -> None:
        self.encoding = encoding
        self.endpoint = Endpoint(side, encoding=encoding, limits=limits)
        if greeted:
            hello: dict[str, Any] = {"type": "hello", "version": 1}
            if announced is not None:
                hello["limits"] = announced
            self.hears(hello)
            if side == "accepting":
                self.endpoint.accept()
            assert [frame["type"] for frame in self.says()] == ["hello"]

    def payload(self, value: object) -> bytes:
        return payload(self.encoding, value)

    def hears(self, *frames: dict[str, Any], now: float = 0.0) -> list[Event]:
        """The endpoint receives one message of these frames."""
        return self.endpoint.receive(message(self.encoding, *frames), now)

    def says(self) -> list[dict[str, Any]]:
        """Every frame that waits to be written, all messages in one list."""
        return [frame for frames in self.messages() for frame in frames]

    def messages(self) -> list[list[dict[str, Any]]]:
        """Every message that waits to be written."""
        found = []
        while (each := self.endpoint.next_message()) is not None:
            found.append(read(each))
        return found

    def called(self, id: int, **fields: Any) -> list[Event]:
        """The endpoint is called."""
        return self.hears({"type": "call", "id": id, "method": "m", **fields})

    def calls(self, method: str = "m", **options: Any) -> Exchange:
        """The endpoint calls, and the call is written."""
        exchange = self.endpoint.call(method, self.payload([]), **options)
        assert [frame["type"] for frame in self.says()] == ["call"]
        return exchange

    def state(self, id: int) -> str:
        """The state of an id, as the endpoint sees it; one without a record is CLOSED or IDLE."""
        exchange = self.endpoint.exchanges.get(id)
        return "CLOSED" if exchange is None else repr(exchange.state)


def pair(
    encoding: Encoding, *, limits: Limits | None = None, accepting: Limits | None = None
) -> tuple[Endpoint, Endpoint]:
    """Two endpoints that have said hello to each other."""
    ours = Endpoint("connecting", encoding=encoding, limits=limits)
    theirs = Endpoint("accepting", encoding=encoding, limits=accepting)
    deliver(ours, theirs)
    theirs.accept()
    deliver(theirs, ours)
    return ours, theirs


def deliver(sender: Endpoint, receiver: Endpoint, now: float = 0.0) -> list[Event]:
    """All that waits to be written by one is received by the other."""
    events: list[Event] = []
    while (each := sender.next_message()) is not None:
        events += receiver.receive(each, now)
    return events


#: The window of a stream in tests that are not about windows.
WINDOW = Window(4, 1000)
STREAM = {"items": 4, "bytes": 1000}
