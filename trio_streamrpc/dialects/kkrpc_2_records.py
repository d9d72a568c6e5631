"""kkrpc 2's records: what is in them, and how they have streams and errors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from trio_streamrpc.dialects.failures import fields_of, info_of, text_in
from trio_streamrpc.dialects.foreign import MAX_ID, UNBOUNDED, Malformed
from trio_streamrpc.errors import Code
from trio_streamrpc.protocol.frames import ErrorInfo

__all__ = [
    "ARGUMENT",
    "NO_FUNCTION",
    "STREAM",
    "Record",
    "error_fields",
    "error_in",
    "fields_in",
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
ERROR_FIELDS = ("n", "m", "s")


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
_map = msgspec.json.Decoder(dict[str, Raw]).decode

#: How it is told that there is no such method.
NO_FUNCTION = " is not a function"


def fields_in(raw: Raw) -> dict[str, Raw]:
    """The fields of an object; none if it is something else."""
    try:
        return _map(raw)
    except msgspec.MsgspecError:
        return {}


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
    extra = {name: value for name, value in fields.items() if name not in ERROR_FIELDS}
    info = info_of(text_in(fields.get("n")), text_in(fields.get("m")), extra)
    if info.name == "Error" and info.message.endswith(NO_FUNCTION):
        info.code = Code.UNIMPLEMENTED.value
    return info


def error_fields(info: ErrorInfo) -> dict[str, Any]:
    return {
        "n": info.name or "Error",
        "m": info.message,
        **fields_of(info, ERROR_FIELDS),
    }


def stream_error(info: ErrorInfo) -> dict[str, Any]:
    """Inside a stream, an error is named in its message."""
    fields = error_fields(info)
    return {**fields, "n": "Error", "m": f"{fields['n']}: {fields['m']}"}
