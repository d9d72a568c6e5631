"""cattrs, made strict: what msgspec decoded to builtins becomes values of types cattrs knows.

cattrs by itself converts: ``int("5")``. Here it checks. The user's converter is asked, never
changed: what it says itself stands, and only where it has nothing but cattrs' defaults do the rules
below apply.

* Types made of scalars and containers are msgspec's, which is as strict as the rest of the library.
* A class wants an object, a list wants an array: cattrs would make a list of a string.
* The members of a union have to differ in their JSON kind: object, array or scalar; several classes
  are told apart by their fields, as cattrs does.
* JSON object keys are strings, whatever the annotation: they are turned into what it says.
"""

from __future__ import annotations

import collections.abc
import datetime as dt
import decimal
import enum
import functools
import operator
import types
import typing
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, NewType, Union, get_args, get_origin

import cattrs
import msgspec
from cattrs.cols import mapping_structure_factory

from trio_streamrpc.contract.problems import HookError, shown
from trio_streamrpc.contract.shapes import (
    is_known,
    is_named_tuple,
    is_record,
    kind_of_value,
    shape_of_value,
    types_of,
)

__all__ = ["Conversion", "Encoding"]

Encoding = Literal["msgpack", "json"]
Structure = Callable[[Any, Any], Any]

#: Where cattrs' own hooks come from; hooks that it generated have no module at all.
CATTRS_MODULES: Final = (None, "cattrs.converters", "cattrs.cols", "cattrs.enums")

SCALARS: Final = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        str,
        bytes,
        bytearray,
        dt.datetime,
        dt.date,
        dt.time,
        dt.timedelta,
        decimal.Decimal,
        uuid.UUID,
    }
)
ARRAYS: Final = frozenset(
    {
        list,
        tuple,
        set,
        frozenset,
        collections.deque,
        collections.abc.Sequence,
        collections.abc.MutableSequence,
        collections.abc.Set,
        collections.abc.MutableSet,
    }
)
OBJECTS: Final = frozenset({dict, collections.abc.Mapping, collections.abc.MutableMapping})

#: Marks the annotation of a key that arrived as a string.
JSON_KEY: Final = "a JSON object's key"

#: Builtins that msgspec asks its hook for only where they are keys.
NO_KEYS: Final = frozenset({type(None), bool, tuple, frozenset})

#: Exact builtins for subclasses of them, which msgspec does not encode by itself.
BUILTIN_OF: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (bytes, bytes.__bytes__ if hasattr(bytes, "__bytes__") else bytes),
)


class Conversion:
    """One converter for one encoding: builtins → values, checked; values → builtins."""

    def __init__(
        self, converter: cattrs.Converter | None, encoding: Encoding, *, strict: bool = False
    ) -> None:
        self.original = cattrs.Converter() if converter is None else converter
        self.encoding = encoding
        forbid = True if strict else None
        self.copy = self.original.copy(detailed_validation=True, forbid_extra_keys=forbid)
        self._decisions: dict[Any, Structure | Exception | None] = {}
        self._bypassed: set[Any] = set()
        # These four are registered by class in cattrs, which comes before any predicate.
        for scalar in (int, float, str, bytes):
            if not self.is_users(scalar):
                self.copy.register_structure_hook(scalar, self.scalar)
        self.copy.register_structure_hook_factory(self.overrides, self.chosen)

    def structure(self, annotation: Any) -> Callable[[Any], Any]:
        """What makes a value of this type from builtins.

        Raises :exc:`TypeError` if neither msgspec nor the converter knows how.
        """
        try:
            hook = self.copy.get_structure_hook(annotation)
        except cattrs.StructureHandlerNotFoundError as error:
            raise TypeError(
                f"{shown(error.type_)} is a type that neither msgspec nor the converter knows: "
                "register a structure hook for it"
            ) from error
        except TypeError:
            raise
        except Exception as error:  # a class whose annotations cannot be evaluated, for one
            raise TypeError(f"{shown(annotation)}: {error}") from error
        return lambda value: hook(value, annotation)

    def unstructure(self, value: Any, annotation: Any) -> Any:
        """The builtins, or what msgspec encodes by itself, for a value."""
        # The original's: it has fallbacks that a copy loses, and nothing here is to be overridden.
        return self.original.unstructure(value, unstructure_as=annotation)

    def dec_hook(self, annotation: Any, value: Any) -> Any:
        """msgspec's hook for types that it does not know."""
        try:
            return self.copy.structure(value, annotation)
        except Exception as error:
            raise HookError(error) from error

    def enc_hook(self, value: Any) -> Any:
        """msgspec's hook for values that it does not know."""
        if type(value) in NO_KEYS:
            # msgspec encodes these everywhere else, so that it is a key it asks for.
            raise TypeError(f"an object's key in JSON cannot be of type {shown(type(value))}")
        made = self.original.unstructure(value)
        if made is not value:
            return made
        for builtin, exact in BUILTIN_OF:
            if isinstance(value, builtin):
                return exact(value)
        raise TypeError(
            f"{shown(type(value))} is a type that neither msgspec nor the converter can encode"
        )

    # Which hook a type gets

    def overrides(self, annotation: Any) -> bool:
        """Whether a type gets another hook than cattrs would give it."""
        return annotation not in self._bypassed and self.decide(annotation) is not None

    def chosen(self, annotation: Any) -> Structure:
        """The hook for a type that :meth:`overrides` told cattrs to ask for."""
        hook = self.decide(annotation)
        if isinstance(hook, Exception):
            raise hook
        assert hook is not None
        return hook

    def decide(self, annotation: Any) -> Structure | Exception | None:
        """The hook for a type; None leaves it to cattrs, an exception says why there is none."""
        if annotation not in self._decisions:
            try:
                self._decisions[annotation] = self.find(annotation)
            except (TypeError, cattrs.StructureHandlerNotFoundError) as problem:
                # cattrs ignores what a predicate raises, so it is kept for chosen().
                self._decisions[annotation] = problem
        return self._decisions[annotation]

    def find(self, annotation: Any) -> Structure | None:
        if get_origin(annotation) is Annotated and annotation.__metadata__ == (JSON_KEY,):
            return self.key_hook(annotation.__origin__)
        if self.is_users(annotation):
            return self.lost_hook(annotation)
        if annotation is object:
            return as_it_is
        if self.is_plain(annotation):
            return self.scalar
        origin = get_origin(annotation) or annotation
        if origin in (Union, types.UnionType):
            return self.union_hook(annotation)
        if origin in OBJECTS:
            return self.mapping_hook(annotation)
        if is_named_tuple(origin):
            return self.named_tuple_hook(origin)
        shape = self.shape_of(annotation)
        if shape is None or (isinstance(origin, type) and issubclass(origin, enum.Enum)):
            return None
        if origin in ARRAYS:
            for each in get_args(annotation):
                if each is not Ellipsis:
                    self.member_hook(each)  # cattrs would only miss it when a value comes
        return shaped(shape, self.default_hook(annotation))

    def default_hook(self, annotation: Any) -> Structure:
        """cattrs' own hook for a type that would get another one here."""
        self._bypassed.add(annotation)
        try:
            return self.copy.get_structure_hook(annotation, cache_result=False)
        finally:
            self._bypassed.discard(annotation)

    def is_users(self, annotation: Any) -> bool:
        """Whether the user's converter has a hook of its own for a type."""
        try:
            hook = self.original.get_structure_hook(annotation, cache_result=False)
        except Exception:  # cattrs has no hook, or cannot make one: nor has the user
            return False
        return getattr(hook, "__module__", None) not in CATTRS_MODULES

    def lost_hook(self, annotation: Any) -> Structure | None:
        """A user's hook that a copied converter does not have: for unions, and as a fallback."""
        try:
            hook = self.default_hook(annotation)
        except cattrs.StructureHandlerNotFoundError:
            return self.original.get_structure_hook(annotation)
        if getattr(hook, "__module__", None) in CATTRS_MODULES:
            return self.original.get_structure_hook(annotation)
        return None

    def is_plain(self, annotation: Any) -> bool:
        """Whether msgspec alone decodes a type, with no hook of the user's anywhere in it."""
        if annotation is Any or annotation is None:
            return True
        if self.is_users(annotation):
            return False
        origin = get_origin(annotation) or annotation
        if isinstance(annotation, NewType):
            return self.is_plain(annotation.__supertype__)
        if origin is Annotated:
            return self.is_plain(annotation.__origin__)
        if origin in SCALARS or origin is Literal:
            return is_known(annotation)
        if isinstance(origin, type) and issubclass(origin, enum.Enum | msgspec.Struct):
            return is_known(annotation)
        if is_named_tuple(origin):
            return all(map(self.is_plain, types_of(origin))) and is_known(annotation)
        if origin in ARRAYS or origin in OBJECTS or origin in (Union, types.UnionType):
            parts = (each for each in get_args(annotation) if each is not Ellipsis)
            return all(map(self.is_plain, parts)) and is_known(annotation)
        return False

    def scalar(self, value: Any, annotation: Any) -> Any:
        """Have msgspec check and convert a value."""
        if isinstance(annotation, type) and annotation not in SCALARS:
            for builtin in (int, float, str, bytes):
                if issubclass(annotation, builtin) and not issubclass(annotation, enum.Enum):
                    return annotation(self.scalar(value, builtin))
        return msgspec.convert(
            value,
            annotation,
            # Bytes are bytes in msgpack and base64 in JSON; everything else is the same in both.
            builtin_types=(bytes,) if self.encoding == "msgpack" else None,
            str_keys=self.encoding == "json",
            dec_hook=self.dec_hook,
        )

    def key_hook(self, annotation: Any) -> Structure:
        """A hook for the keys of JSON objects."""
        mapping = dict[annotation, None]
        return lambda value, _: next(iter(self.scalar({value: None}, mapping)))

    def mapping_hook(self, annotation: Any) -> Structure:
        """A hook for a mapping whose keys or values are not plain."""
        key, value = get_args(annotation) or (Any, Any)
        if self.encoding == "json" and key is not Any and self.is_plain(key):
            key = Annotated[key, JSON_KEY]
        return shaped(
            "object",
            mapping_structure_factory(
                annotation, self.copy, structure_to=dict, key_type=key, val_type=value
            ),
        )

    def named_tuple_hook(self, annotation: Any) -> Structure:
        """A hook for a named tuple: cattrs does not resolve its annotations."""
        types = types_of(annotation)
        least = len(types) - len(annotation._field_defaults)
        for each in types:
            self.member_hook(each)

        def structure(value: Any, _: Any) -> Any:
            if not least <= len(value) <= len(types):
                raise ValueError(
                    f"Expected `array` of length {least} to {len(types)}, got {len(value)}"
                )
            given: Any = tuple.__class_getitem__(tuple(types[: len(value)]))
            return annotation(*self.copy.structure(value, given))

        return shaped("array", structure)

    def shape_of(self, annotation: Any) -> str | None:
        """What a type looks like on the wire: "object", "array", "scalar"; None if unknown."""
        origin = get_origin(annotation) or annotation
        if isinstance(origin, NewType):
            return self.shape_of(origin.__supertype__)
        if origin is Annotated:
            return self.shape_of(annotation.__origin__)
        if origin in OBJECTS or typing.is_typeddict(origin):
            return "object"
        if is_record(origin):
            as_tuple = self.original.unstruct_strat is cattrs.UnstructureStrategy.AS_TUPLE
            return "array" if as_tuple else "object"
        if origin in ARRAYS or is_named_tuple(origin):
            return "array"
        if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
            return "array" if origin.__struct_config__.array_like else "object"
        return "scalar" if self.is_plain(annotation) else None

    def union_hook(self, union: Any) -> Structure:
        """A hook for a union that is not plain: the value's kind says which member it is."""
        members = [each for each in get_args(union) if each is not type(None)]
        hooks: dict[str, Callable[[Any], Any]]
        if len(members) == 1:
            hook = self.member_hook(members[0])
            hooks = {"object": hook, "array": hook, "scalar": hook}
        else:
            groups: dict[str, list[Any]] = {}
            for each in members:
                shape = None if self.is_users(each) and not is_record(each) else self.shape_of(each)
                if shape is None:
                    raise TypeError(
                        f"{shown(union)}: on the wire {shown(each)} cannot be told from the "
                        "others: register a structure hook for the union"
                    )
                groups.setdefault(shape, []).append(each)
            hooks = {shape: self.group_hook(union, group) for shape, group in groups.items()}
        nullable = len(members) < len(get_args(union))

        def structure(value: Any, _: Any) -> Any:
            if value is None and nullable:
                return None
            found = hooks.get(shape_of_value(value))
            if found is None:
                raise ValueError(f"Expected `{shown(union)}`, got `{kind_of_value(value)}`")
            return found(value)

        return structure

    def group_hook(self, union: Any, group: list[Any]) -> Callable[[Any], Any]:
        """A hook for those members of a union that look alike."""
        if len(group) == 1:
            return self.member_hook(group[0])
        together: Any = functools.reduce(operator.or_, group)
        if self.is_plain(together):
            return self.member_hook(together)
        if not all(map(is_record, group)) or self.is_users(together):
            raise TypeError(
                f"{shown(union)}: on the wire {' and '.join(map(shown, group))} cannot be told "
                "apart: register a structure hook for the union"
            )
        hook = self.default_hook(together)  # cattrs tells classes apart by their fields
        return lambda value: hook(value, together)

    def member_hook(self, member: Any) -> Callable[[Any], Any]:
        """The hook of one type; looked up later where a class holds itself."""
        try:
            hook = self.copy.get_structure_hook(member)
        except RecursionError:
            hook = self.copy.structure
        return lambda value: hook(value, member)


def as_it_is(value: Any, annotation: Any) -> Any:
    """The hook for a type that says nothing."""
    return value


def shaped(shape: str, hook: Structure) -> Structure:
    """A hook that is only given objects, or only arrays."""

    def structure(value: Any, annotation: Any) -> Any:
        if shape_of_value(value) != shape:
            raise ValueError(f"Expected `{shape}`, got `{kind_of_value(value)}`")
        return hook(value, annotation)

    return structure
