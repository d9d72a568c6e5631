"""Values of a type hint: anywhere in it, at its edges, and of another type."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args, get_origin

import cattrs
import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from trio_streamrpc.contract.payloads import Payloads, payloads_for
from trio_streamrpc.testing.strategies.frames import TEXT, payloads

__all__ = ["edge_values", "fits", "values", "wrong_values"]

#: What both encodings carry.
LEAST, MOST = -(2**63), 2**63 - 1

AWARE: Final = st.datetimes(timezones=st.just(dt.UTC))

#: For each plain type what its values are, and which of them lie at its edges.
PLAIN: Final[dict[Any, tuple[SearchStrategy[Any], list[Any]]]] = {
    None: (st.none(), [None]),
    type(None): (st.none(), [None]),
    bool: (st.booleans(), [False, True]),
    int: (
        st.one_of(st.integers(-10, 10), st.integers(LEAST, MOST)),
        [0, 1, -1, 2**31, -(2**31) - 1, 2**53, MOST, LEAST],
    ),
    float: (
        st.floats(allow_nan=False, allow_infinity=False),
        [0.0, -0.0, 1.0, -1.0, 5e-324, 1e308, -1e308, 0.1],
    ),
    str: (TEXT, ["", " ", "0", "\x00", "é€😀", "\u202e", "x" * 1000, "'\"\\\n\t", "None"]),
    bytes: (st.binary(max_size=40), [b"", b"\x00", b"\xff" * 1000]),
    bytearray: (st.binary(max_size=40).map(bytearray), [bytearray(), bytearray(b"\xff" * 1000)]),
    dt.datetime: (
        AWARE,
        [
            dt.datetime(1, 1, 2, tzinfo=dt.UTC),
            dt.datetime(9999, 12, 30, tzinfo=dt.UTC),
            dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
        ],
    ),
    dt.date: (st.dates(), [dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    dt.time: (st.times(), [dt.time(), dt.time(23, 59, 59, 999_999)]),
    dt.timedelta: (
        st.timedeltas(dt.timedelta(-1000), dt.timedelta(1000)),
        [dt.timedelta(), dt.timedelta(days=-1), dt.timedelta(microseconds=1)],
    ),
    decimal.Decimal: (
        st.decimals(allow_nan=False, allow_infinity=False),
        [decimal.Decimal(0), decimal.Decimal("-0"), decimal.Decimal("1e-20"), decimal.Decimal(-1)],
    ),
    uuid.UUID: (st.uuids(), [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)]),
}

#: What is tried as a value of another type.
FOREIGN: Final[list[Any]] = [
    None, True, 0, -1, 2**63, 1.5, "", "0", "x" * 100, b"", b"\xff", [], [None], {}, {"": None},
    [[]], "1.5", {"a": 1}, [1, "x"],
]  # fmt: skip


def values(hint: Any, *, converter: cattrs.Converter | None = None) -> SearchStrategy[Any]:
    """Values that a parameter with this annotation takes, as both encodings carry them.

    Numbers, text, bytes, times, ``Decimal``, ``UUID``, enums, literals, unions, containers,
    dataclasses, attrs classes, ``TypedDict``, ``NamedTuple`` and msgspec Structs, at any depth; for
    what else there is, what :func:`hypothesis.strategies.from_type` knows of it
    (``register_type_strategy`` adds to that). Without an annotation: :func:`.payloads`.

    ``converter`` is the one that the service is served with. Raises :exc:`TypeError` for a type
    whose values nothing can encode.
    """
    return _fitting(_anywhere(hint), hint, converter)


def edge_values(hint: Any, *, converter: cattrs.Converter | None = None) -> SearchStrategy[Any]:
    """The same, at the edges of the type: empty, nothing, the least and the most."""
    return _fitting(_at_edges(hint), hint, converter)


def wrong_values(hint: Any, *, converter: cattrs.Converter | None = None) -> SearchStrategy[Any]:
    """Values that a parameter with this annotation does not take; nothing, if it takes all."""
    found = [each for each in FOREIGN if _is_wrong(hint, each, converter)]
    return st.sampled_from(found) if found else st.nothing()


def fits(hint: Any, value: Any, converter: cattrs.Converter | None = None) -> bool:
    """Whether a value of that type can be sent and is taken, in both encodings."""
    for each in _both(converter):
        try:
            each.decoder(hint)(each.encoder(hint)(value))
        except Exception:
            return False
    return True


def _fitting(
    found: SearchStrategy[Any], hint: Any, converter: cattrs.Converter | None
) -> SearchStrategy[Any]:
    if _is_simple(hint):
        return found
    for each in _both(converter):
        each.compiled(hint)
    return found.filter(lambda value: fits(hint, value, converter))


def _is_wrong(hint: Any, value: Any, converter: cattrs.Converter | None) -> bool:
    """Whether such a value can be sent, and is taken in neither encoding."""
    for each in _both(converter):
        data = each.encoder()(value)
        try:
            each.decoder(hint)(data)
        except Exception:
            continue
        return False
    return True


def _both(converter: cattrs.Converter | None) -> list[Payloads]:
    return [payloads_for("msgpack", converter), payloads_for("json", converter)]


def _is_simple(hint: Any) -> bool:
    """Whether all that is made for it surely fits, and need not be tried."""
    try:
        return hint is Any or hint is object or hint in PLAIN
    except TypeError:
        return False


# --- anywhere in a type


def _anywhere(hint: Any) -> SearchStrategy[Any]:
    if _is_simple(hint):
        return PLAIN[hint][0] if hint not in (Any, object) else payloads()
    return _composed(hint, _anywhere)


def _at_edges(hint: Any) -> SearchStrategy[Any]:
    if _is_simple(hint):
        if hint in (Any, object):
            return st.sampled_from([None, 0, "", [], {}])
        return st.sampled_from(PLAIN[hint][1])
    return _composed(hint, _at_edges)


def _composed(hint: Any, of: Callable[[Any], SearchStrategy[Any]]) -> SearchStrategy[Any]:
    """Values of what is made of other types, where those are made by ``of``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Annotated, typing.Final, typing.ClassVar):
        return _annotated(arguments[0], arguments[1:], of)
    if isinstance(hint, typing.NewType):
        return of(hint.__supertype__)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([of(each) for each in arguments])
    if origin is not None:
        return _container(hint, origin, arguments, of)
    if isinstance(hint, type):
        if issubclass(hint, enum.Enum):
            return st.sampled_from(list(hint))
        fields = _fields(hint)
        if fields is not None:
            return _record(hint, fields, of)
        if hint in _BARE:
            return _container(hint, hint, (Any,) * _BARE[hint], of)
    return _known(hint)


#: Containers that may stand without saying of what.
_BARE: Final[dict[Any, int]] = {list: 1, tuple: 0, set: 1, frozenset: 1, dict: 2}

_SEQUENCES: Final = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)


def _container(
    hint: Any, origin: Any, arguments: tuple[Any, ...], of: Callable[[Any], SearchStrategy[Any]]
) -> SearchStrategy[Any]:
    if origin in _SEQUENCES:
        return st.lists(of(arguments[0]), max_size=4)
    if origin in (set, collections.abc.Set, collections.abc.MutableSet):
        return st.sets(of(arguments[0]), max_size=4)
    if origin is frozenset:
        return st.frozensets(of(arguments[0]), max_size=4)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return st.lists(of(arguments[0]), max_size=4).map(tuple)
        if not arguments and hint is tuple:
            return st.lists(of(Any), max_size=4).map(tuple)
        return st.tuples(*[of(each) for each in arguments])
    if origin in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
        key = TEXT if arguments[0] in (Any, object) else of(arguments[0])
        return st.dictionaries(key, of(arguments[1]), max_size=4)
    fields = _fields(origin)
    if fields is not None:
        names = getattr(origin, "__parameters__", ())
        stands_for = dict(zip(names, arguments, strict=False))
        bound = {name: stands_for.get(each, each) for name, each in fields.items()}
        return st.builds(origin, **{name: of(each) for name, each in bound.items()})
    return _known(hint)


def _annotated(
    hint: Any, extra: tuple[Any, ...], of: Callable[[Any], SearchStrategy[Any]]
) -> SearchStrategy[Any]:
    """A type with bounds: where msgspec's ``Meta`` says them they are kept to from the start."""
    bounds: dict[str, Any] = {}
    for meta in extra:
        if isinstance(meta, msgspec.Meta):
            for name in ("ge", "gt", "le", "lt", "min_length", "max_length"):
                if getattr(meta, name) is not None:
                    bounds[name] = getattr(meta, name)
    if hint is int and bounds:
        low = max(LEAST, bounds.get("ge", LEAST), bounds.get("gt", LEAST - 1) + 1)
        high = min(MOST, bounds.get("le", MOST), bounds.get("lt", MOST + 1) - 1)
        if of is _at_edges:
            return st.sampled_from(sorted({low, min(low + 1, high), high}))
        return st.integers(low, high)
    if hint is str and bounds:
        return st.text(
            st.characters(exclude_categories=["Cs"]),
            min_size=bounds.get("min_length", 0),
            max_size=bounds.get("max_length"),
        )
    return of(hint)


def _fields(cls: Any) -> Mapping[str, Any] | None:
    """The fields of a class that is made of them, and their types; None for any other."""
    is_known = (
        dataclasses.is_dataclass(cls)
        or hasattr(cls, "__attrs_attrs__")
        or issubclass(cls, msgspec.Struct)
        or typing.is_typeddict(cls)
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
    )
    if not is_known:
        return None
    hints = typing.get_type_hints(cls, include_extras=True)
    if dataclasses.is_dataclass(cls):
        return {each.name: hints[each.name] for each in dataclasses.fields(cls) if each.init}
    if hasattr(cls, "__attrs_attrs__"):
        attributes = getattr(cls, "__attrs_attrs__", ())
        return {each.alias: hints.get(each.name, Any) for each in attributes if each.init}
    if issubclass(cls, msgspec.Struct):
        return {name: hints[name] for name in cls.__struct_fields__}
    return hints


#: Classes whose values are being made: one that holds itself is looked up here.
_MADE: Final[dict[Any, SearchStrategy[Any]]] = {}


def _record(
    cls: Any, fields: Mapping[str, Any], of: Callable[[Any], SearchStrategy[Any]]
) -> SearchStrategy[Any]:
    """Values of a class that is made of fields, which may hold others of its kind."""
    key = (cls, of)
    if key not in _MADE:
        # Put there before its fields are looked at, so that the way in comes to an end.
        _MADE[key] = st.deferred(lambda: _filled(cls, fields, of))
    return _MADE[key]


def _filled(
    cls: Any, fields: Mapping[str, Any], of: Callable[[Any], SearchStrategy[Any]]
) -> SearchStrategy[Any]:
    made = {name: of(each) for name, each in fields.items()}
    if not typing.is_typeddict(cls):
        return st.builds(cls, **made)
    required = {name: each for name, each in made.items() if name in cls.__required_keys__}
    optional = {name: each for name, each in made.items() if name not in required}
    return st.fixed_dictionaries(required, optional=optional)


def _known(hint: Any) -> SearchStrategy[Any]:
    """What Hypothesis knows of a type; it raises what it raises for one that it does not."""
    return st.from_type(hint)
