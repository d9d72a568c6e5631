"""kkrpc 2's records: what is in them, and how they have streams and errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from trio_streamrpc.dialects.failures import error_fields, fields_in, info_in, text_in
from trio_streamrpc.dialects.foreign import MAX_ID, UNBOUNDED, Malformed
from trio_streamrpc.errors import Code
from trio_streamrpc.protocol.frames import ErrorInfo

__all__ = [
    "ARGUMENT",
    "ERROR_NAMES",
    "NO_FUNCTION",
    "STREAM",
    "Record",
    "error_in",
    "read_record",
    "stream_error",
    "stream_in",
    "stream_mark",
]

Name = Annotated[str, Meta(max_length=MAX_ID)]
Amount = Annotated[int, Meta(ge=1, lt=UNBOUNDED)]

ARGUMENT = b"__kkrpc_next_arg__"
STREAM = b"__kkrpc_next_stream__"

#: What an error's fields are called that every error has.
ERROR_NAMES = ("n", "m", "s")


class Record(Struct):
    """A record of any kind: which of its fields are there, its kind says."""

    t: Literal["q", "r", "cb", "cbr", "sq", "sr"]
    id: Name = ""
    op: str = ""
    p: list[str] = []
    a: list[Raw] = []
    v: Raw | UnsetType = UNSET
    meta: Raw | UnsetType = UNSET
    sid: Name = ""
    n: Amount = 1
    d: bool = False
    e: dict[str, Raw] | UnsetType = UNSET


read_record = msgspec.json.Decoder(Record).decode

#: How it is told that there is no such method.
NO_FUNCTION = " is not a function"


def stream_in(raw: Raw) -> str | None:
    """The id of the stream that a value stands for; None if it stands for itself."""
    if STREAM not in bytes(raw):
        return None
    fields = fields_in(raw)
    if text_in(fields.get("__kkrpc_next_stream__")) != "async-iterable":
        return None
    sid = text_in(fields.get("id"))
    if not 0 < len(sid) <= MAX_ID:
        raise Malformed("a stream without an id")
    return sid


def stream_mark(sid: str) -> dict[str, str]:
    return {"__kkrpc_next_stream__": "async-iterable", "id": sid}


def error_in(fields: dict[str, Raw]) -> ErrorInfo:
    info = info_in(fields, ERROR_NAMES)
    if info.name == "Error" and info.message.endswith(NO_FUNCTION):
        info.code = Code.UNIMPLEMENTED.value
    return info


def stream_error(info: ErrorInfo) -> dict[str, Any]:
    """Inside a stream, an error is named in its message."""
    fields = error_fields(info, ERROR_NAMES)
    return {**fields, "n": "Error", "m": f"{fields['n']}: {fields['m']}"}
