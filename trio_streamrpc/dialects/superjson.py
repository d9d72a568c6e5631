"""What JSON does not say of JavaScript's values, and where in a value it stands.

superjson puts an object around each message: ``{"json": …, "meta": {"values": {path: [type]}}}``.
Plain values and dates are what is carried; a bigint is a number here, a map whose keys are strings
an object, and what is undefined is null.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

__all__ = ["PREFIX", "paths_of", "plain", "wrapped"]

#: How such a message is recognised.
PREFIX = '{"json":'
#: How deep an annotation is followed.
MAX_DEPTH = 16

#: … and how long a number is.
MAX_DIGITS = 20

Path = tuple[str, ...]

#: A part of a path, up to a dot that is not escaped; and what is escaped in it.
PART = re.compile(r"(?:^|\.)((?:[^.\\]|\\.)*)")
UNESCAPED = re.compile(r"\\(.)")


def plain(message: Mapping[str, Any]) -> Any:
    """What is in a message, with those values replaced that JSON has no like of."""
    value = message.get("json")
    meta = message.get("meta")
    if isinstance(meta, dict):
        _convert(value, meta.get("values"), _parts if meta.get("v") else _parts_before)
    return value


def _convert(value: Any, kinds: Any, parts_of: Callable[[str], list[str]]) -> None:
    """Replace in a value what these say of it, by paths; each may have more inside of it."""
    if not isinstance(kinds, dict):
        return
    for path, node in kinds.items():
        if isinstance(node, list) and node:
            _replace(value, parts_of(path), partial(_converted, node=node, parts_of=parts_of))


def _converted(value: Any, node: list[Any], parts_of: Callable[[str], list[str]]) -> Any:
    kind, *inside = node
    for each in inside:
        _convert(value, each, parts_of)
    convert = CONVERSIONS.get(kind) if isinstance(kind, str) else None
    return value if convert is None else convert(value)


def wrapped(record: dict[str, Any], dates: list[Path]) -> dict[str, Any]:
    """A message of that record, in which dates stand at these paths."""
    message: dict[str, Any] = {"json": record}
    if dates:
        values = {".".join(map(_escaped, path)): ["Date"] for path in dates}
        message["meta"] = {"values": values, "v": 1}
    return message


def _big(value: Any) -> Any:
    if not isinstance(value, str) or len(value) > MAX_DIGITS:
        return value
    number = int(value)
    return number if abs(number) < 2**63 else value


def _map(value: Any) -> Any:
    try:
        pairs = dict(value)
    except (TypeError, ValueError):
        return value
    return pairs if all(isinstance(key, str) for key in pairs) else value


CONVERSIONS: dict[str, Callable[[Any], Any]] = {"bigint": _big, "map": _map}


def _parts(path: str) -> list[str]:
    """The names in a path: dots in them are escaped, and so are backslashes."""
    return [UNESCAPED.sub(r"\1", part) for part in PART.findall(path)]


def _parts_before(path: str) -> list[str]:
    """The same of a superjson before its version 1, which escapes dots alone."""
    return [part.replace("\0", ".") for part in path.replace("\\.", "\0").split(".")]


def _escaped(part: str) -> str:
    return part.replace("\\", "\\\\").replace(".", "\\.")


def _replace(value: Any, parts: list[str], convert: Callable[[Any], Any]) -> None:
    *outer, last = parts
    try:
        for part in outer:
            value = value[int(part)] if isinstance(value, list) else value[part]
        key: Any = int(last) if isinstance(value, list) else last
        value[key] = convert(value[key])
    except (KeyError, IndexError, TypeError, ValueError):
        # It says something of a place that is not there.
        return


def paths_of(wanted: type, annotation: Any, value: Any) -> Iterator[Path]:
    """Where in a value, decoded from JSON, its annotation says that there is such a type."""
    return _paths(wanted, annotation, value, MAX_DEPTH)


def _paths(wanted: type, annotation: Any, value: Any, depth: int) -> Iterator[Path]:
    if annotation is wanted and isinstance(value, str):
        yield ()
    if annotation is None or value is None or depth == 0:
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        if not (isinstance(value, str) and str in arguments):
            for each in arguments:
                yield from _paths(wanted, each, value, depth - 1)
    elif isinstance(value, list) and arguments:
        for index, each in enumerate(value):
            item = arguments[min(index, len(arguments) - 1)]
            item = arguments[0] if item is Ellipsis else item
            yield from _below(wanted, str(index), item, each, depth)
    elif isinstance(value, dict):
        fields = _fields(annotation)
        others = arguments[1] if len(arguments) == 2 else None
        for key, each in value.items():
            yield from _below(wanted, key, fields.get(key, others), each, depth)


def _below(wanted: type, key: str, annotation: Any, value: Any, depth: int) -> Iterator[Path]:
    for path in _paths(wanted, annotation, value, depth - 1):
        yield (key, *path)


def _fields(annotation: Any) -> dict[str, Any]:
    structured = isinstance(annotation, type) and (
        dataclasses.is_dataclass(annotation)
        or issubclass(annotation, msgspec.Struct)
        or hasattr(annotation, "__attrs_attrs__")
        or hasattr(annotation, "__total__")
    )
    if not structured:
        return {}
    try:
        return typing.get_type_hints(annotation)
    except NameError:
        return {}
