"""sources.py: what is written gives what it was written for."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import ipaddress
import math
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import attrs
import msgspec
import pytest

from trio_streamrpc import Limits, Window
from trio_streamrpc.testing.fuzzing.sources import Sources
from trio_streamrpc.testing.strategies.calls import Callback, Upload


class Colour(enum.Enum):
    RED = "red"


class Bits(enum.IntFlag):
    A = 1
    B = 2


@dataclass
class Item:
    name: str
    colours: tuple[Colour, ...] = ()
    parts: list[Item] = field(default_factory=list)


class Outer:
    @attrs.define
    class Inner:
        _x: int


class Line(msgspec.Struct):
    at: dt.datetime


class Pair(NamedTuple):
    a: float
    b: set[int]


def written(value: Any) -> tuple[str, Any]:
    """The expression for a value, and what that gives."""
    sources, names = Sources(), dict[str, Any]()
    text = sources.value(value)
    exec("\n".join(sources.imports()), names)
    return text, eval(text, names)


@pytest.mark.parametrize(
    "value",
    [
        None, True, -1, 1.5, -0.0, math.inf, "a'b\n", b"\x00", bytearray(b"x"),
        [1, (2,), (), {"a": [None]}], set(), {3, 1}, frozenset(), frozenset({"a"}), {},
        Colour.RED, Bits.A, Bits.A | Bits.B, {Colour.RED: [Colour.RED]},
        Item("a"), Item("a", (Colour.RED,), [Item("b")]), Outer.Inner(1), Pair(1.0, {1, 2}),
        Line(dt.datetime(2000, 1, 1, tzinfo=dt.UTC)), dt.timedelta(days=-1), dt.time(1),
        decimal.Decimal("1e-20"), uuid.UUID(int=0), ipaddress.IPv4Address("127.0.0.1"),
        Limits(window=Window(2, 100)),
    ],
    ids=repr,
)  # fmt: skip
def test_a_value(value: Any) -> None:
    text, given = written(value)
    assert given == value
    assert type(given) is type(value)
    assert "<" not in text


def test_nan() -> None:
    assert math.isnan(written(math.nan)[1])


def test_what_is_passed_on() -> None:
    text, given = written(Upload(Item("a"), pause=0.5))
    assert (given.items, given.pause) == ((Item("a"),), 0.5)
    text, given = written(Callback(Colour.RED, fails=True))
    assert text == "Callback(Colour.RED, fails=True)"
    assert given.answer is Colour.RED


def test_what_is_the_default_is_left_out() -> None:
    assert written(Item("a"))[0] == "Item(name='a', parts=[])"


def test_imports_stand_in_order() -> None:
    sources = Sources()
    sources.value([Item("a"), Colour.RED, dt.date(1, 1, 1), uuid.UUID(int=0)])
    assert sources.imports() == [
        "import datetime",
        "from uuid import UUID",
        "",
        f"from {__name__} import Colour, Item",
    ]


SERVICE = {"a": 1}
make = partial(Item, "a")


def test_what_has_a_name() -> None:
    for value, name in [(Item, "Item"), (Outer.Inner, "Outer.Inner"), (make, "make")]:
        sources = Sources()
        assert sources.named(value, "service") == name
        assert sources.nameless == []
        assert sources.imports() == [f"from {__name__} import {name.partition('.')[0]}"]


def test_what_has_none() -> None:
    for value in (lambda: 1, partial(Item, "b"), Item("a"), SERVICE):
        sources = Sources()
        assert sources.named(value, "service") == "service"
        assert sources.nameless == ["service"]
        assert sources.imports() == []


def test_a_class_within_a_function() -> None:
    @dataclass
    class Local:
        x: int

    sources = Sources()
    assert sources.value([Local(1), Local(2)]) == "[Local(x=1), Local(x=2)]"
    assert sources.nameless == ["Local"]
    assert sources.imports() == []
