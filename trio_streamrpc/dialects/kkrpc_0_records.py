"""kkrpc 0.x's records: what is in them, and how they have errors and bytes."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from trio_streamrpc.dialects.failures import fields_in, info_in, info_of, text_in
from trio_streamrpc.dialects.foreign import MAX_ID
from trio_streamrpc.dialects.superjson import Path
from trio_streamrpc.errors import Code
from trio_streamrpc.protocol.frames import ErrorInfo

__all__ = [
    "ERROR_NAMES",
    "NO_FUNCTION",
    "REQUESTS",
    "Answer",
    "Record",
    "error_in",
    "read_answer",
    "read_record",
    "with_array",
    "without_arrays",
]

Name = Annotated[str, Meta(max_length=MAX_ID)]
REQUESTS = ("request", "get", "set", "construct")
KINDS = (
    *REQUESTS, "response", "callback", "stream-chunk", "stream-end", "stream-error",
    "stream-cancel",
)  # fmt: skip

ERROR_NAMES = ("name", "message", "stack")


class Record(Struct):
    """A record of any kind: which of its fields are there, its kind says."""

    id: Name
    type: Literal[KINDS]  # type: ignore[valid-type]
    method: str = ""
    args: Raw = Raw(b"null")
    callbackIds: list[Name] | None = None  # noqa: N815  # as it is on the wire
    path: list[str] | None = None
    value: Raw | UnsetType = UNSET


class Answer(Struct):
    """What stands in the ``args`` of what is answered, or of what a stream sends."""

    result: Raw | UnsetType = UNSET
    value: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


read_record = msgspec.json.Decoder(Record).decode
read_answer = msgspec.json.Decoder(Answer).decode

#: How it is told that there is no such method.
NO_FUNCTION = " is not a function"


def error_in(raw: Raw) -> ErrorInfo:
    """An error as it came: a text, or an object."""
    if bytes(raw)[:1] == b'"':
        info = info_of("Error", text_in(raw), {})
        if info.message.endswith(NO_FUNCTION):
            info.code = Code.UNIMPLEMENTED.value
        return info
    return info_in(fields_in(raw), ERROR_NAMES)


def without_arrays(value: Any) -> Any:
    """Arrays of bytes as base64, which is how JSON has them here."""
    if isinstance(value, list):
        return [without_arrays(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"type", "data"} and value["type"] == "Uint8Array":
        data = value["data"]
        # Of a number, bytes() would make so many.
        if not isinstance(data, list):
            return value
        try:
            return base64.b64encode(bytes(data)).decode()
        except (TypeError, ValueError):
            return value
    return {key: without_arrays(each) for key, each in value.items()}


def with_array(value: Any, path: Path) -> Any:
    """The other way round, at one place."""
    if not path:
        return {"type": "Uint8Array", "data": list(base64.b64decode(value))}
    key: Any = int(path[0]) if isinstance(value, list) else path[0]
    value[key] = with_array(value[key], path[1:])
    return value
