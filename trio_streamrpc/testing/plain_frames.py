"""Frames as plain dicts, ``{"type": "end", "id": 1}``, and the messages that hold them.

Written by hand from docs/protocol.md, and from nothing in the package: what is said and read here
is what the document says, whatever the code under test thinks. It is for readers too: a trace of
plain frames looks like the examples of the document, in either encoding.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

__all__ = ["FIELDS", "NUMBERS", "PlainFrame", "encode_message", "encode_payload", "read_message"]

#: One frame: its ``type``, and the fields that it has.
PlainFrame = dict[str, Any]

#: Section 1: the kinds in the order of their numbers, their fields in the order of msgpack.
FIELDS: dict[str, tuple[str, ...]] = {
    "hello": ("version", "limits", "features", "metadata", "session"),
    "call": (
        "id", "target", "method", "args", "kwargs", "refs", "window", "timeout", "metadata",
        "parts", "priority",
    ),
    "result": ("id", "value", "parts"),
    "error": ("id", "error", "cleanup", "same", "retry"),
    "chunk": ("id", "items", "size", "refs", "parts"),
    "end": ("id",),
    "cancel": ("id", "mode", "error"),
    "grant": ("id", "items", "bytes"),
    "part": ("id", "data"),
    "ping": ("token",),
    "pong": ("token",),
    "goaway": ("last_id", "code", "message"),
}  # fmt: skip
#: The number of each kind, in msgpack.
NUMBERS = {kind: number for number, kind in enumerate(FIELDS)}

#: What a field is that is left out.
ABSENT: dict[str, Any] = {
    "target": 0, "method": "", "parts": 0, "priority": 0,
    "cleanup": False, "same": False, "retry": False,
    "mode": "abort", "bytes": 0, "last_id": 0, "message": "", "features": [],
}  # fmt: skip


def _absent(kind: str, field: str) -> Any:
    return 0 if (kind, field) == ("grant", "items") else ABSENT.get(field)


def encode_message(encoding: str, *frames: PlainFrame) -> bytes | str:
    """A message of these frames.

    Values stand for themselves: there is no telling a payload from another field. Raises
    :exc:`ValueError` for a field that its kind of frame does not have.
    """
    if encoding == "json":
        return json.dumps(frames, ensure_ascii=False, separators=(",", ":"))
    return msgspec.msgpack.encode([_array(frame) for frame in frames])


def _array(frame: PlainFrame) -> list[Any]:
    kind = frame["type"]
    fields = FIELDS[kind]
    if not frame.keys() <= {"type", *fields}:
        raise ValueError(f"no such field: {frame}")
    last = max((fields.index(field) for field in frame if field != "type"), default=-1)
    return [
        NUMBERS[kind],
        *(frame.get(field, _absent(kind, field)) for field in fields[: last + 1]),
    ]


def read_message(message: bytes | str) -> list[PlainFrame]:
    """The frames of a message, without the fields that say no more than if they were left out.

    For messages that are whole and right; what is raised for others is whatever happens.
    """
    if isinstance(message, str):
        return [_spoken(each.pop("type"), each) for each in json.loads(message)]
    frames = []
    for number, *values in msgspec.msgpack.decode(message):
        kind = list(FIELDS)[number]
        frames.append(_spoken(kind, dict(zip(FIELDS[kind], values, strict=False))))
    return frames


def _spoken(kind: str, fields: dict[str, Any]) -> PlainFrame:
    return {"type": kind} | {
        field: value
        for field, value in fields.items()
        if value is not None and value != _absent(kind, field)
    }


def encode_payload(encoding: str, value: object) -> bytes:
    """A value as it stands in a message of that encoding."""
    if encoding == "json":
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return msgspec.msgpack.encode(value)
