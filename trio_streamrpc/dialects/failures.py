"""Errors as JavaScript has them: a name, a message, and whatever fields besides."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from trio_streamrpc.errors import Code
from trio_streamrpc.protocol.frames import ErrorInfo, is_absent

__all__ = ["Names", "error_fields", "fields_in", "info_in", "info_of", "text_in"]

_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode

#: The codes that another system may name, and that this library's errors then have.
CODES = {each.value for each in Code}

#: What a wire calls an error's name, message and stack.
Names = tuple[str, str, str]


def error_fields(info: ErrorInfo, names: Names) -> dict[str, Any]:
    """An error's fields: name, message, its code where it has chosen one, and its data's.

    Data that is no map, or an empty one, is the field ``data``. Of other data, what is called as
    one of the ``names`` is left out.
    """
    return {names[0]: info.name or "Error", names[1]: info.message, **_extra(info, names)}


def _extra(info: ErrorInfo, names: Names) -> dict[str, Any]:
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
    fields.update((name, value) for name, value in data.items() if name not in names)
    return fields


def info_in(fields: dict[str, Raw], names: Names) -> ErrorInfo:
    """An error of the other side's, by its fields."""
    extra = {name: value for name, value in fields.items() if name not in names}
    return info_of(text_in(fields.get(names[0])), text_in(fields.get(names[1])), extra)


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


def fields_in(raw: Raw) -> dict[str, Raw]:
    """The fields of an object; none if it is something else."""
    try:
        return _fields(raw)
    except msgspec.MsgspecError:
        return {}


def text_in(raw: Raw | None) -> str:
    """The string that it is, or nothing."""
    if raw is None or bytes(raw)[:1] != b'"':
        return ""
    found: str = msgspec.json.decode(raw)
    return found
