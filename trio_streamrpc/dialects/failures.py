"""Errors as JavaScript has them: a name, a message, and whatever fields besides."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from trio_streamrpc.errors import Code
from trio_streamrpc.protocol.frames import ErrorInfo, is_absent

__all__ = ["fields_of", "info_of"]

_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode

#: The codes that another system may name, and that this library's errors then have.
CODES = {each.value for each in Code}


def fields_of(info: ErrorInfo, reserved: tuple[str, ...]) -> dict[str, Any]:
    """The extra fields of an error: its data's, and its code where it has chosen one.

    Data that is no map, or an empty one, is the field ``data``. ``reserved`` are the names that the
    wire has itself.
    """
    fields: dict[str, Any] = {}
    if info.code != Code.UNKNOWN:
        fields["code"] = info.code
    if is_absent(info.data):
        return fields
    try:
        data = _fields(info.data)
    except (msgspec.MsgspecError, RecursionError):
        data = {"data": info.data}
    else:
        if not data or set(data) == {"data"}:
            data = {"data": info.data}
    fields.update((name, value) for name, value in data.items() if name not in reserved)
    return fields


def info_of(name: object, message: object, fields: dict[str, Raw]) -> ErrorInfo:
    """An error of the other side's, with the extra fields that it has."""
    code = Code.UNKNOWN.value
    said = text_in(fields.get("code"))
    if said in CODES:
        code = said
        fields = {key: value for key, value in fields.items() if key != "code"}
    info = ErrorInfo(
        code,
        name if isinstance(name, str) and name else "Error",
        message if isinstance(message, str) else "",
    )
    if set(fields) == {"data"}:
        info.data = fields["data"].copy()
    elif fields:
        info.data = Raw(_encode(fields))
    return info


def text_in(raw: Raw | None) -> str:
    """The string that it is, or nothing."""
    if raw is None or bytes(raw)[:1] != b'"':
        return ""
    found: str = msgspec.json.decode(raw)
    return found
