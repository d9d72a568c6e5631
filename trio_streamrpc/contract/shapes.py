"""What msgspec knows of a type, and decoded builtins walked beside it."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Final, get_origin

import msgspec
from msgspec import inspect

from trio_streamrpc.contract.problems import UnknownField

__all__ = [
    "Survey",
    "check_fields",
    "check_finite",
    "is_known",
    "is_named_tuple",
    "is_record",
    "kind_of_value",
    "shape_of_value",
    "survey",
    "types_of",
]

FIELDS: Final = (
    inspect.DataclassType,
    inspect.TypedDictType,
    inspect.StructType,
    inspect.NamedTupleType,
)
ITEMS: Final = (
    inspect.ListType,
    inspect.SetType,
    inspect.FrozenSetType,
    inspect.VarTupleType,
)

#: Types whose values may be, or hide, a float: whose null in JSON may have been a NaN.
FLOATS: Final = (inspect.FloatType, inspect.AnyType, inspect.CustomType, inspect.RawType)


class Survey:
    """What is in a type, at any depth."""

    def __init__(self, info: inspect.Type) -> None:
        self.info = info
        self.infos: list[inspect.Type] = []
        """The type itself, and all that it is made of."""

        self.customs: list[type] = []
        """Types that are left to a hook."""

        self.is_floatless = True
        self.has_fields = False
        self.hides_fields = False
        """Whether msgspec would leave out a field: it skips an attrs class's private ones."""

        seen: set[int] = set()
        waiting = [info]
        while waiting:
            each = waiting.pop()
            if id(each) not in seen:  # a class may hold itself
                seen.add(id(each))
                self.infos.append(each)
                self._look_at(each)
                waiting.extend(parts_of(each))

    def _look_at(self, info: inspect.Type) -> None:
        if isinstance(info, FLOATS):
            self.is_floatless = False
        if isinstance(info, FIELDS):
            self.has_fields = True
        if isinstance(info, inspect.CustomType):
            self.customs.append(info.cls)
        if isinstance(info, inspect.DataclassType) and hasattr(info.cls, "__attrs_attrs__"):
            self.hides_fields |= any(each.name.startswith("_") for each in info.fields)


def survey(annotation: Any) -> Survey | None:
    """What msgspec says of a type; None if it does not take all of it."""
    try:
        msgspec.json.Decoder(annotation)
        return Survey(inspect.type_info(annotation))
    except Exception:  # a union that it cannot tell apart, an enum of floats, a broken class
        return None


def parts_of(info: inspect.Type) -> Iterable[inspect.Type]:
    """The types that a type is made of."""
    if isinstance(info, FIELDS):
        return [each.type for each in info.fields]
    if isinstance(info, ITEMS):
        return [info.item_type]
    if isinstance(info, inspect.TupleType):
        return info.item_types
    if isinstance(info, inspect.DictType):
        return [info.key_type, info.value_type]
    if isinstance(info, inspect.UnionType):
        return info.types
    return ()


def check_fields(info: inspect.Type, value: Any, path: str) -> None:
    """Raise :exc:`UnknownField` for the first field that the type does not have.

    ``value`` is what msgspec decoded without a type; that it fits the type was checked before.
    """
    if isinstance(info, inspect.UnionType):
        info = member_of(info, value)
    if isinstance(info, FIELDS):
        if isinstance(value, dict):
            check_object(info, value, path)
        else:
            check_array(info, value, path)
    elif isinstance(info, ITEMS):
        for index, each in enumerate(value):
            check_fields(info.item_type, each, f"{path}[{index}]")
    elif isinstance(info, inspect.TupleType):
        for index, (part, each) in enumerate(zip(info.item_types, value, strict=True)):
            check_fields(part, each, f"{path}[{index}]")
    elif isinstance(info, inspect.DictType):
        for each in value.values():
            check_fields(info.value_type, each, f"{path}[...]")


def check_object(info: Any, value: dict[str, Any], path: str) -> None:
    """A class whose values are objects."""
    known = {each.encode_name: each.type for each in info.fields}
    for name, each in value.items():
        if name in known:
            check_fields(known[name], each, f"{path}.{name}")
        elif name != getattr(info, "tag_field", None):
            raise UnknownField(str(name), path)


def check_array(info: Any, value: list[Any], path: str) -> None:
    """A class whose values are arrays: a named tuple, or a Struct that is array-like."""
    first = 0 if getattr(info, "tag_field", None) is None else 1
    if len(value) - first > len(info.fields):
        raise UnknownField(f"[{first + len(info.fields)}]", path)
    for index, (field, each) in enumerate(zip(info.fields, value[first:], strict=False), first):
        check_fields(field.type, each, f"{path}[{index}]")


def member_of(union: inspect.UnionType, value: Any) -> inspect.Type:
    """The member of a union that a value is of: of each kind msgspec allows one, save for Structs,
    which have tags."""
    for each in union.types:
        if isinstance(each, inspect.StructType):
            if is_tagged(each, value):
                return each
        elif isinstance(value, dict):
            if isinstance(each, inspect.DataclassType | inspect.TypedDictType | inspect.DictType):
                return each
        elif isinstance(value, list) and isinstance(
            each, (*ITEMS, inspect.TupleType, inspect.NamedTupleType)
        ):
            return each
    return inspect.AnyType()


def is_tagged(info: inspect.StructType, value: Any) -> bool:
    """Whether a value has this Struct's shape, and its tag if there is one."""
    if isinstance(value, dict) and not info.array_like:
        return info.tag_field is None or value.get(info.tag_field) == info.tag
    if isinstance(value, list) and info.array_like:
        return info.tag_field is None or value[:1] == [info.tag]
    return False


def check_finite(value: Any, path: str) -> None:
    """Raise :exc:`ValueError` for a float in builtins that JSON cannot hold."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"JSON has no {value!r} - at `{path}`; msgpack has")
        return
    parts: Iterator[tuple[str, Any]] = iter(())
    if isinstance(value, dict):
        parts = ((f"{path}.{key}", each) for key, each in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        parts = ((f"{path}[{index}]", each) for index, each in enumerate(value))
    for where, each in parts:
        check_finite(each, where)


def is_known(annotation: Any) -> bool:
    """Whether msgspec takes a type: it refuses unions that it could not tell apart."""
    try:
        msgspec.json.Decoder(annotation)
    except Exception:
        return False
    return True


def is_record(origin: Any) -> bool:
    """Whether it is an attrs class or a dataclass."""
    origin = get_origin(origin) or origin
    return hasattr(origin, "__attrs_attrs__") or dataclasses.is_dataclass(origin)


def types_of(named_tuple: Any) -> list[Any]:
    """The types of a named tuple's fields."""
    found = typing.get_type_hints(named_tuple, include_extras=True)
    return [found.get(each, Any) for each in named_tuple._fields]


def is_named_tuple(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, tuple) and hasattr(origin, "_fields")


def shape_of_value(value: Any) -> str:
    """What a decoded value is: "object", "array" or "scalar"."""
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list | tuple) else "scalar"


def kind_of_value(value: Any) -> str:
    """What a decoded value is, in msgspec's words."""
    if value is None:
        return "null"
    shape = shape_of_value(value)
    return type(value).__name__ if shape == "scalar" else shape
