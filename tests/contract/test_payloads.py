"""Typed values there and back, and everything that is none."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import pathlib
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    TypedDict,
    TypeVar,
)

import attrs
import cattrs
import msgspec
import pytest
from cattrs.gen import make_dict_structure_fn, override
from cattrs.strategies import configure_tagged_union
from hypothesis import given
from hypothesis import strategies as st

from trio_streamrpc.contract.payloads import Encoding, Payloads
from trio_streamrpc.errors import InvalidArgument

ENCODINGS: tuple[Encoding, ...] = ("msgpack", "json")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Share(enum.Enum):
    HALF = 0.5
    ALL = 1.0


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


@attrs.define
class Tick:
    size: int
    price: float = 1.0


@attrs.define
class Trade:
    ticks: list[Tick]
    when: dt.datetime | None = None


@attrs.define
class Secret:
    _key: str
    _salt: bytes = b""


@attrs.define
class Node:
    name: str
    next: Node | None = None
    children: list[Node] = attrs.field(factory=list)


class Options(TypedDict, total=False):
    depth: int
    names: list[str]


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Corner(NamedTuple):
    at: Point


class Struct(msgspec.Struct):
    a: int
    b: list[Point] = []


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    tricks: list[Point]


class Row(msgspec.Struct, tag="row", array_like=True):
    a: int
    b: Point


class Money:
    """A type that nobody knows without a hook."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    def __hash__(self) -> int:
        return hash(self.cents)


class Name(str):
    __slots__ = ()


class Count(int):
    pass


UserId = NewType("UserId", int)
T = TypeVar("T")


@attrs.define
class Box(Generic[T]):
    content: T


def money_converter() -> cattrs.Converter:
    converter = cattrs.Converter()

    def structure(value: Any, _: Any) -> Money:
        if not isinstance(value, str):
            raise TypeError(f"money is a string, not {value!r}")
        return Money(int(value))

    converter.register_structure_hook(Money, structure)
    converter.register_unstructure_hook(Money, lambda money: str(money.cents))
    return converter


@pytest.fixture(params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[None, money_converter], ids=["bare", "converter"])
def payloads(request: pytest.FixtureRequest, encoding: Any) -> Payloads:
    return Payloads(encoding, request.param and request.param())


def raw(payloads: Payloads, value: Any) -> bytes:
    """What a peer that knows nothing of types would send."""
    return payloads.encoder()(value)


def round_trip(payloads: Payloads, annotation: Any, value: Any) -> Any:
    data = payloads.encoder(annotation)(value)
    assert type(data) is bytes
    return payloads.decoder(annotation, strict=True)(data)


def problem(payloads: Payloads, annotation: Any, value: Any, *, strict: bool = False) -> str:
    with pytest.raises(InvalidArgument) as caught:
        payloads.decoder(annotation, strict=strict)(raw(payloads, value))
    return caught.value.message


def complaint(
    payloads: Payloads, annotation: Any, data: bytes, *, strict: bool = False
) -> str | None:
    """What a decoder says of some bytes; anything but InvalidArgument gets out."""
    try:
        payloads.decoder(annotation, strict=strict)(data)
    except InvalidArgument as error:
        return error.message
    return None


# What is refused


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, "5", "Expected `int`, got `str`"),
        (int, 1.5, "Expected `int`, got `float`"),
        (int, 1.0, "Expected `int`, got `float`"),
        (int, True, "Expected `int`, got `bool`"),
        (int, None, "Expected `int`, got "),
        (int, [], "Expected `int`, got `array`"),
        (str, 1, "Expected `str`, got `int`"),
        (bool, 1, "Expected `bool`, got `int`"),
        (bool, "true", "Expected `bool`, got `str`"),
        (float, "1.5", "Expected `float`, got `str`"),
        (float, True, "Expected `float`, got `bool`"),
        (None, 0, "Expected `null`, got `int`"),
        (UserId, "5", "Expected `int`, got `str`"),
        (Literal[1, 2], True, "Expected `int`, got `bool`"),
        (Literal["a"], "b", "Invalid enum value 'b'"),
        (Color, "green", "Invalid enum value 'green'"),
        (Level, 3, "Invalid enum value 3"),
        (Level, True, "Expected `int`, got `bool`"),
        (Decimal, "x", "Invalid decimal string"),
        (uuid.UUID, "x", "Invalid UUID"),
        (dt.datetime, "yesterday", "Invalid RFC3339 encoded datetime"),
        (dt.date, 5, "Expected `date`, got `int`"),
        (Annotated[int, msgspec.Meta(gt=3)], 3, "Expected `int` >= 4"),
        (list[int], "abc", "Expected `array`, got `str`"),
        (list[int], [1, "2"], "Expected `int`, got `str` - at `$[1]`"),
        (list[Tick], "abc", "Expected `array`, got `str`"),
        (set[str], [1], "Expected `str`, got `int` - at `$[0]`"),
        (tuple[int, str], [1], "Expected `array` of length 2"),
        (dict[str, int], {"a": "b"}, "Expected `int`, got `str` - at `$[...]`"),
        (dict[str, int], [1], "Expected `object`, got `array`"),
        (int | str, 1.5, "Expected `int | str`, got `float`"),
        (int | None, "x", "Expected `int | null`, got `str`"),
        (Options, {"depth": "x"}, "Expected `int`, got `str`"),
        (Pair, ["x"], "Expected `int`, got `str`"),
        (Struct, {"a": 1, "b": [{"x": "1"}]}, "Expected `int`, got `str` - at `$.b[0].x`"),
        (Tick, {"size": "5"}, "Expected `int`, got `str` - at `$.size`"),
        (Tick, {"price": 5.0}, "Object missing required field `size`"),
        (Tick, [1, 2.0], "Expected `object`, got `array`"),
        (Tick, "size", "Expected `object`, got `str`"),
        (Point, {"x": 1, "y": "2"}, "Expected `float`, got `str` - at `$.y`"),
        (
            Trade,
            {"ticks": [{"size": 1}] * 3 + [{"size": "x"}]},
            "Expected `int`, got `str` - at `$.ticks[3].size`",
        ),
        (Trade, {"ticks": [{}]}, "Object missing required field `size` - at `$.ticks[0]`"),
        (Trade, {"ticks": {"size": 1}}, "Expected `array`, got `object` - at `$.ticks`"),
        (Node, {"name": "a", "next": {"name": 5}}, "Expected `str`, got `int` - at `$.next.name`"),
        (Node, {"name": "a", "children": [7]}, "got `int` - at `$.children[0]`"),
        (Box[int], {"content": "x"}, "Expected `int`, got `str` - at `$.content`"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(
    payloads: Payloads, annotation: Any, value: Any, expected: str
) -> None:
    """The same in both encodings, with and without a converter."""
    assert expected in problem(payloads, annotation, value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (list[Money], "12"),
        (set[Money], "12"),
        (tuple[Money, ...], "12"),
        (deque[Money], {"1": 2}),
        (Sequence[Money], "12"),
    ],
)
def test_a_string_is_no_array(encoding: Any, annotation: Any, value: Any) -> None:
    """cattrs would take any iterable: a list of the string's characters."""
    payloads = Payloads(encoding, money_converter())
    assert "Expected `array`, got `" in problem(payloads, annotation, value)


@attrs.define
class Defaults:
    a: int = 1


@pytest.mark.parametrize("value", [[], "", 0, None, ["a"]])
def test_a_class_of_defaults_still_wants_an_object(payloads: Payloads, value: Any) -> None:
    assert "Expected `object`, got `" in problem(payloads, Defaults, value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xff" * 5,
        b"\xa5ab",
        b"\xa1\xff",
        b'"\xff"',
        b'"\\ud800"',
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"[" * 100_000,
        b"\x91" * 100_000,
        b"1" * 5_000,
        b"1e999",
        b"NaN",
        b"\x05\x05",
        b"[1] ]",
        b"\x81\x81\x01\x02\x03",
        b"\xd6\xff\xff\xff\xff\xff",
        b"\xc7\x0c\xff" + b"\xff" * 12,
    ],
)
@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        int,
        float,
        str,
        dt.datetime,
        list[Any],
        dict[str, Any],
        Trade,
        Tick | Point,
        Node,
        Money,
    ],
)
def test_garbage_is_invalid_and_nothing_else(encoding: Any, annotation: Any, data: bytes) -> None:
    payloads = Payloads(encoding, money_converter())
    for strict in (False, True):
        message = complaint(payloads, annotation, data, strict=strict)
        assert message is None or 0 < len(message) < 600
        assert message is None or message.isprintable()


@given(data=st.binary(max_size=60), annotation=st.sampled_from([Any, Trade, Node, int | None]))
def test_random_bytes_are_invalid_and_nothing_else(data: bytes, annotation: Any) -> None:
    for encoding in ENCODINGS:
        for converter in (None, cattrs.Converter()):
            message = complaint(Payloads(encoding, converter), annotation, data)
            assert message is None or message.isprintable()


def test_messages_hold_little_of_a_peers_data(payloads: Payloads) -> None:
    for annotation in (Color, Literal["a"], dt.datetime, Tick, int):
        for text in ("\x00\x1b[31m" * 50, "x" * 100_000, "\n - at `$.a`", "\x1f @ $.a"):
            for value in (text, {text: text, "size": text}, [{text: text}]):
                message = problem(payloads, annotation, value, strict=True)
                assert len(message) <= 450
                assert message.isprintable()


def test_a_message_tells_of_several_problems_but_not_of_all() -> None:
    payloads = Payloads("json", cattrs.Converter())
    message = problem(payloads, list[Tick], [{"size": "x"}] * 8)
    assert message.count("Expected `int`") == 5
    assert "at `$[4].size`; and 3 more" in message


# What msgspec does not know


def test_a_type_that_nobody_knows_is_told_at_once(encoding: Any) -> None:
    payloads = Payloads(encoding)
    for annotation in (Money, list[Money], complex, Box[Money]):
        with pytest.raises(TypeError, match=r"neither msgspec nor the converter knows"):
            payloads.decoder(annotation)
    with pytest.raises(TypeError, match="Money is a type that neither msgspec nor the conv"):
        payloads.encoder(Any)([Money(5)])


def test_a_type_that_nobody_knows_is_told_at_once_with_a_converter(encoding: Any) -> None:
    payloads = Payloads(encoding, cattrs.Converter())
    for annotation in (Money, set[Money], tuple[Money, ...], deque[Money], Money | None, Purse):
        with pytest.raises(TypeError, match=r"Money is a type that neither msgspec nor"):
            payloads.decoder(annotation)


def test_a_class_that_cannot_be_read_is_told_at_once(payloads: Payloads) -> None:
    @dataclasses.dataclass
    class Broken:
        value: NotThere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match="Broken: name 'NotThere' is not defined"):
        payloads.decoder(Broken)


def test_a_hook_that_asks_for_what_nobody_knows(encoding: Any) -> None:
    converter = cattrs.Converter()
    converter.register_structure_hook(Money, lambda value, _: converter.structure(value, complex))
    message = problem(Payloads(encoding, converter), list[Money], [5])
    assert message == "no way to make complex of it - at `$[0]`"


def test_a_hook_makes_it_known(encoding: Any) -> None:
    payloads = Payloads(encoding, money_converter())
    for annotation, value in (
        (Money, Money(5)),
        (list[Money], [Money(5), Money(6)]),
        (dict[str, Money], {"a": Money(5)}),
        (dict[int, Money], {7: Money(5)}),
        (dict[Money, int], {Money(5): 1}),
        (Money | None, None),
        (list[Money] | None, [Money(1)]),
        (Box[Money], Box(Money(5))),
        (tuple[Money, int], (Money(5), 6)),
    ):
        assert round_trip(payloads, annotation, value) == value


@pytest.mark.parametrize("error", [KeyError("k"), ValueError("v"), RuntimeError("r"), OSError()])
def test_whatever_a_hook_raises_is_invalid_with_its_path(encoding: Any, error: Exception) -> None:
    def fail(value: Any, _: Any) -> Money:
        raise error

    converter = cattrs.Converter()
    converter.register_structure_hook(Money, fail)
    message = problem(Payloads(encoding, converter), list[Box[Money]], [{"content": 5}])
    assert str(error) in message
    assert "at `$[0].content`" in message


def test_a_default_converter_knows_paths_and_subclasses(encoding: Any) -> None:
    """msgspec knows neither, and cattrs does."""
    payloads = Payloads(encoding)
    path = round_trip(payloads, pathlib.Path, pathlib.Path("a/b"))
    assert path == pathlib.Path("a/b")
    for value in (Name("n"), Count(3)):
        back = round_trip(payloads, type(value), value)
        assert (type(back), back) == (type(value), value)
        assert "Expected" in problem(payloads, list[type(value)], [1.5])  # type: ignore[misc]


# Unions


@attrs.define
class Circle:
    radius: int


@attrs.define
class Square:
    side: int
    name: str | None = None


CircleId = NewType("CircleId", Circle)


@pytest.mark.parametrize(
    ("annotation", "values"),
    [
        (Circle | Square, [Circle(1), Square(2, "s")]),
        (Circle | Square | None, [Circle(1), None]),
        (Circle | Square | int | str, [Circle(1), 5, "5", Square(6)]),
        (Circle | list[Square] | int, [Circle(1), [Square(2)], 3]),
        (list[Circle | Square], [[Circle(1), Square(2)]]),
        (dict[int, Circle | Square], [{5: Circle(1)}]),
        (Box[Circle | Square], [Box(Circle(1))]),
        (tuple[Circle | Square, int], [(Circle(1), 5)]),
        (Circle | Pair, [Circle(1), Pair(1)]),
        (Circle | Options, []),
        (Cat | Dog | int, [Cat(9), Dog([Point(1)]), 5]),
        (Row | Circle, [Row(1, Point(2)), Circle(3)]),
        (Circle | dt.datetime, [Circle(2), dt.datetime(2020, 1, 1)]),
        (Circle | dict[str, int], []),
        (int | float | None, [1, 1.5, None]),
        (CircleId | int, [Circle(1), 5]),
        (Annotated[Circle, "a"] | Annotated[list[Square], "b"], [Circle(1), [Square(1)]]),
    ],
)
def test_unions(payloads: Payloads, annotation: Any, values: list[Any]) -> None:
    """What msgspec refuses goes through cattrs; what cannot be told apart is refused by both."""
    if not values:
        with pytest.raises(TypeError, match=r"on the wire .* cannot be told apart: register a str"):
            payloads.decoder(annotation)
    for value in values:
        back = round_trip(payloads, annotation, value)
        assert (type(back), back) == (type(value), value)


def test_a_union_says_what_it_expects(payloads: Payloads) -> None:
    assert "Expected `" in problem(payloads, Circle | Square, 5)
    assert "got `int`" in problem(payloads, Circle | Square, 5)
    assert "got `null`" in problem(payloads, Circle | Square, None)
    assert "got `array`" in problem(payloads, Circle | Square | int, [])
    message = problem(payloads, list[Circle | Square], [{"radius": "x"}])
    assert message.endswith("Expected `int`, got `str` - at `$[0].radius`")
    assert "$.radius" in problem(payloads, Circle | Square, {"radius": None})


@pytest.mark.parametrize(
    "annotation",
    [
        Money | int,
        Money | Circle,
        str | bytes,
        Circle | str | dt.datetime,
        list[Circle] | tuple[Circle, ...],
        Circle | Money | None,
    ],
)
def test_members_that_look_alike_need_a_hook_for_the_union(encoding: Any, annotation: Any) -> None:
    converter = money_converter()
    with pytest.raises(TypeError, match=r"on the wire .* cannot be told (apart|from the others): "):
        Payloads(encoding, converter).decoder(annotation)
    converter.register_structure_hook(annotation, lambda value, _: ("hooked", value))
    assert Payloads(encoding, converter).decoder(annotation)(raw(Payloads(encoding), 5)) == (
        "hooked",
        5,
    )


def test_a_tagged_union_stays_what_its_strategy_made_it(encoding: Any) -> None:
    converter = cattrs.Converter()
    configure_tagged_union(Circle | Square, converter)
    payloads = Payloads(encoding, converter)
    assert Payloads(encoding).decoder(Any)(payloads.encoder(Circle | Square)(Circle(1))) == {
        "radius": 1,
        "_type": "Circle",
    }
    assert round_trip(payloads, list[Circle | Square], [Square(1)]) == [Square(1)]


# A user's converter


def test_every_hook_of_the_user_is_honoured(encoding: Any) -> None:
    converter = cattrs.Converter()
    converter.register_structure_hook(int, lambda value, _: int(value))
    converter.register_structure_hook(dt.date, lambda value, _: dt.date.fromordinal(value))
    converter.register_unstructure_hook(dt.date, dt.date.toordinal)
    converter.register_structure_hook(Color, lambda value, _: Color[value])
    converter.register_unstructure_hook(Color, lambda color: color.name)
    converter.register_structure_hook(
        Circle, make_dict_structure_fn(Circle, converter, radius=override(rename="r"))
    )
    converter.register_structure_hook_factory(
        lambda it: it is Point, lambda it: lambda value, _: Point(*value)
    )
    payloads = Payloads(encoding, converter)
    decoded = {
        int: ("5", 5),
        bool: ("x", 5),
        dt.date: (3, dt.date(1, 1, 3)),
        Color: ("RED", Color.RED),
        Circle: ({"r": "7"}, Circle(7)),
        Point: ([1, 2], Point(1, 2)),
        list[int]: (["5"], [5]),
        dict[str, Color]: ({"a": "BLUE"}, {"a": Color.BLUE}),
        Color | None: ("RED", Color.RED),
        Box[int]: ({"content": "6"}, Box(6)),
    }
    for annotation, (sent, expected) in decoded.items():
        if annotation is not bool:
            assert payloads.decoder(annotation)(raw(payloads, sent)) == expected
    assert round_trip(payloads, dt.date, dt.date(2020, 2, 2)) == dt.date(2020, 2, 2)
    assert round_trip(payloads, list[Color], [Color.RED]) == [Color.RED]


def test_the_users_converter_is_not_changed() -> None:
    converter = cattrs.Converter(detailed_validation=False, forbid_extra_keys=False)
    payloads = Payloads("json", converter)
    assert "$[0].size" in problem(payloads, list[Tick], [{"size": "5"}])
    assert converter.structure("5", int) == 5
    assert converter.structure({"size": "5", "x": 1}, Tick) == Tick(5)
    assert not converter.detailed_validation


def test_what_a_copied_converter_loses_is_kept(encoding: Any) -> None:
    def fallback(_: Any) -> Any:
        return lambda value, _: Money(value)

    converter = cattrs.Converter(
        structure_fallback_factory=fallback,
        unstructure_fallback_factory=lambda _: lambda money: money.cents,
    )
    assert round_trip(Payloads(encoding, converter), list[Money], [Money(4)]) == [Money(4)]


def test_classes_as_arrays(encoding: Any) -> None:
    converter = cattrs.Converter(unstruct_strat=cattrs.UnstructureStrategy.AS_TUPLE)
    payloads = Payloads(encoding, converter)
    assert raw(payloads, [[1, 2.0]]) == payloads.encoder(list[Tick])([Tick(1, 2.0)])
    assert round_trip(payloads, Tick, Tick(1, 2.0)) == Tick(1, 2.0)
    assert "Expected `array`, got `object`" in problem(payloads, Tick, {"size": 1})


def test_attrib_converters_run_where_the_user_prefers_them(encoding: Any) -> None:
    @attrs.define
    class Amount:
        value: int = attrs.field(converter=lambda value: int(value) * 2)

    payloads = Payloads(encoding, cattrs.Converter(prefer_attrib_converters=True))
    assert payloads.decoder(Amount)(raw(payloads, {"value": "5"})) == Amount(5)
    payloads = Payloads(encoding, cattrs.Converter())
    assert payloads.decoder(Amount)(raw(payloads, {"value": 5})) == Amount(5)
    assert "Expected `int`" in problem(payloads, Amount, {"value": "5"})


def test_named_tuples_of_hooked_types(encoding: Any) -> None:
    payloads = Payloads(encoding, money_converter())
    assert round_trip(payloads, Purse, Purse(Money(1))) == Purse(Money(1))
    assert round_trip(payloads, Purse, Purse(Money(1), Money(2))).right == Money(2)
    for sent in ([], ["1", "2", "3"]):
        assert "Expected `array` of length 1 to 2" in problem(payloads, Purse, sent)
    assert "money is a string, not 5 - at `$[1]`" in problem(payloads, Purse, ["1", 5])


class Purse(NamedTuple):
    left: Money
    right: Money = Money(0)


def test_structs_go_through_msgspec_and_their_custom_types_through_hooks(encoding: Any) -> None:
    payloads = Payloads(encoding, money_converter())
    assert round_trip(payloads, Wallet, Wallet(Money(3), [])) == Wallet(Money(3), [])
    assert "money is a string" in problem(payloads, Wallet, {"money": 5, "more": []})
    nested = problem(payloads, Wallet, {"money": "5", "more": [{"content": 6}]})
    assert "money is a string, not 6 - at `$.more[0].content`" in nested


class Wallet(msgspec.Struct):
    money: Money
    more: list[Box[Money]]


def test_what_cannot_be_a_converter() -> None:
    with pytest.raises(TypeError, match=r"must be a cattrs\.Converter, not 5"):
        Payloads("json", 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'msgpack' or 'json', not 'xml'"):
        Payloads("xml")  # type: ignore[arg-type]


def test_annotations_need_not_be_hashable(payloads: Payloads) -> None:
    annotation = Annotated[list[Annotated[int, {"un": "hashable"}]], ["too"]]
    assert round_trip(payloads, annotation, [1]) == [1]
    assert "$[0]" in problem(payloads, annotation, ["x"])


def test_decoders_are_compiled_once(payloads: Payloads) -> None:
    assert payloads.compiled(list[Tick]) is payloads.compiled(list[Tick])
    assert payloads.compiled(list[Tick]) is not payloads.compiled(list[Tick], strict=True)
    assert payloads.encoder(Tick) is payloads.encoder(Tick)


def test_the_hot_path_is_msgspecs_own(encoding: Any) -> None:
    payloads = Payloads(encoding)
    for annotation in (int, Tick, list[Trade], Any):
        assert payloads.is_native(annotation)
        assert type(payloads.compiled(annotation)).__name__ == "builtin_function_or_method"
    assert not payloads.is_native(Circle | Square)


# Unknown fields


@pytest.mark.parametrize(
    ("annotation", "value", "field", "where"),
    [
        (Tick, {"size": 1, "x": 2}, "x", "`"),
        (list[Tick], [{"size": 1}, {"size": 1, "x": 2}], "x", "$[1]"),
        (Trade, {"ticks": [{"size": 1, "\n": 2}]}, "\\n", "$.ticks[0]"),
        (dict[str, Tick], {"a": {"size": 1, "x": 2}}, "x", "$["),
        (tuple[int, Point], [1, {"x": 1, "z": 2}], "z", "$[1]"),
        (Tick | None, {"size": 1, "x": 2}, "x", "`"),
        (Tick | list[Tick], [{"size": 1, "x": 2}], "x", "$[0]"),
        (Options, {"depth": 1, "x": 2}, "x", "`"),
        (Node, {"name": "a", "next": {"name": "b", "x": 1}}, "x", "$.next"),
        (Struct, {"a": 1, "b": [{"x": 1, "z": 1}]}, "z", "$.b[0]"),
        (Cat | Dog, {"type": "Dog", "tricks": [{"x": 1, "z": 2}]}, "z", "$.tricks[0]"),
        (Cat | Dog, {"type": "Cat", "lives": 1, "x": 2}, "x", "`"),
        (Row, ["row", 1, {"x": 1, "z": 2}], "z", "$[2]"),
        (Row | int, ["row", 1, {"x": 1}, 5], "[3]", "`"),
        (Box[Point], {"content": {"x": 1, "z": 2}}, "z", "$.content"),
        (Tick, {"size": 1, "": 2}, "", "`"),
        (Corner, [{"x": 1, "z": 2}], "z", "$[0]"),
        (Circle | Square, {"radius": 1, "x": 2}, "x", "`"),
        (frozenset[int] | Tick, {"size": 1, "x": 2}, "x", "`"),
    ],
)
def test_strict_refuses_unknown_fields_at_any_depth(
    encoding: Any, annotation: Any, value: Any, field: str, where: str
) -> None:
    payloads = Payloads(encoding)
    message = problem(payloads, annotation, value, strict=True)
    assert f"Object contains unknown field `{field}`" in message
    assert where in message
    payloads.decoder(annotation)(raw(payloads, value))


def test_strict_refuses_unknown_fields_with_a_converter(encoding: Any) -> None:
    payloads = Payloads(encoding, cattrs.Converter())
    for annotation, value in (
        (Trade, {"ticks": [{"size": 1, "x": 2}]}),
        (Options, {"depth": 1, "x": 2}),
        (list[Point], [{"x": 1, "z": 3, "y": 4.0, "x2": 1}]),
    ):
        assert "unknown field" in problem(payloads, annotation, value, strict=True)
        payloads.decoder(annotation)(raw(payloads, value))


def test_strict_without_unknown_fields(payloads: Payloads) -> None:
    for annotation, value in (
        (Trade, Trade([Tick(1)])),
        (list[int], [1]),
        (dict[int, Point], {1: Point(2)}),
        (Cat | Dog | list[int] | int | None, Dog([])),
        (Cat | Dog | list[int] | int | None, [1]),
        (Cat | Dog | list[int] | int | None, None),
        (Row, Row(1, Point(1))),
        (Row | Struct, Struct(1)),
        (Pair, Pair(1, "x")),
        (tuple[Point, ...], (Point(1),)),
    ):
        assert round_trip(payloads, annotation, value) == value


# Values at the edges


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("annotation", "wrap"),
    [
        (float, lambda value: value),
        (Any, lambda value: value),
        (list[float], lambda value: [1.0, value]),
        (float | None, lambda value: value),
        (Tick, lambda value: Tick(1, value)),
        (dict[str, Any], lambda value: {"a": [None, {"b": value}]}),
        (Any, lambda value: (Tick(1, value), None)),
        (Struct, lambda value: Struct(1, [Point(1, value)])),
        (set[float], lambda value: {value}),
        (Any, lambda value: deque([value])),
        (Share | float, lambda value: value),
    ],
)
def test_no_float_becomes_another_value(
    payloads: Payloads, annotation: Any, wrap: Callable[[float], Any], value: float
) -> None:
    """JSON has no NaN: msgspec would write null."""
    if annotation == Share | float:
        annotation = Any
    encode = payloads.encoder(annotation)
    if payloads.encoding == "json":
        with pytest.raises(ValueError, match=r"JSON has no (nan|-?inf) - at `"):
            encode(wrap(value))
    else:
        back = payloads.decoder(annotation)(encode(wrap(value)))
        assert repr(value) in repr(back)


def test_null_is_still_null_in_json(payloads: Payloads) -> None:
    for value in (None, [None, 1.5], {"null": "null"}, {"a": [None]}):
        assert payloads.decoder(Any)(payloads.encoder(Any)(value)) == value


def test_large_integers(payloads: Payloads) -> None:
    for value in (2**63, 2**64 - 1, -(2**63)):
        for annotation in (int, Any):
            assert round_trip(payloads, annotation, value) == value
    for value in (2**64, -(2**63) - 1, 10**50):
        for annotation in (int, Any):
            try:
                data = payloads.encoder(annotation)(value)
            except (OverflowError, ValueError, TypeError):
                continue
            message = complaint(payloads, annotation, data)
            if message is None:
                assert payloads.decoder(annotation)(data) == value
            else:
                assert "out of range" in message


def test_int_is_fine_for_float(payloads: Payloads) -> None:
    decoded = payloads.decoder(float)(raw(payloads, 5))
    assert (type(decoded), decoded) == (float, 5.0)
    assert type(payloads.decoder(Tick)(raw(payloads, {"size": 1, "price": 2})).price) is float


def test_private_attributes_travel(payloads: Payloads) -> None:
    """msgspec leaves an attrs class's private fields out, silently."""
    for annotation, value in (
        (Secret, Secret("k", b"s")),
        (list[Secret], [Secret("k")]),
        (Box[Secret], Box(Secret("k"))),
    ):
        assert round_trip(payloads, annotation, value) == value


def test_enums_that_msgspec_refuses(payloads: Payloads) -> None:
    assert round_trip(payloads, Share, Share.HALF) is Share.HALF
    assert round_trip(payloads, dict[str, Share], {"a": Share.ALL}) == {"a": Share.ALL}
    assert "0.7" in problem(payloads, list[Share], [0.7])
    assert "$[0]" in problem(payloads, list[Share], [0.7])


def test_what_has_no_annotation_comes_as_it_is(payloads: Payloads) -> None:
    for annotation in (Any, object):
        assert payloads.decoder(annotation)(raw(payloads, {"a": [1, "5", None]})) == {
            "a": [1, "5", None]
        }
        assert round_trip(payloads, annotation, Tick(1)) == {"size": 1, "price": 1.0}


def test_decoders_take_raw(payloads: Payloads) -> None:
    decode = payloads.decoder(list[int])
    assert decode(msgspec.Raw(raw(payloads, [1, 2]))) == [1, 2]


def test_keys_that_json_turns_into_strings(payloads: Payloads) -> None:
    for annotation, value in (
        (dict[int, Tick], {1: Tick(2)}),
        (dict[dt.date, int], {dt.date(2020, 1, 1): 1}),
        (Mapping[uuid.UUID, Tick], {uuid.uuid4(): Tick(2)}),
        (dict[Level, list[Tick]], {Level.LOW: [Tick(1)]}),
        (dict[float, str], {1.5: "a"}),
        (dict[bytes, Tick], {b"\xff": Tick(1)}),
        (dict[str, Tick], {"1": Tick(1)}),
        (dict[Any, Tick], {"1": Tick(1)}),
    ):
        assert round_trip(payloads, annotation, value) == value
    message = problem(payloads, dict[int, Tick], {"x": {"size": 1}})
    assert "Expected `int`, got `str`" in message


def test_keys_that_json_cannot_have_are_refused_or_come_back() -> None:
    for encoding in ENCODINGS:
        payloads = Payloads(encoding)
        for annotation, value in (
            (dict[tuple[int, int], int], {(1, 2): 3}),
            (dict[frozenset[int], int], {frozenset([1]): 3}),
            (dict[bool, int], {True: 1}),
            (dict[int | None, int], {None: 1}),
        ):
            if encoding == "msgpack":
                assert round_trip(payloads, annotation, value) == value
            else:
                with pytest.raises(TypeError, match="an object's key in JSON cannot be of type"):
                    payloads.encoder(annotation)(value)


# Round trips of everything


SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers(-(2**63), 2**64 - 1)),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, st.text()),
    (bytes, st.binary()),
    (bool, st.booleans()),
    (None, st.none()),
    (Decimal, st.decimals(allow_nan=False)),
    (uuid.UUID, st.uuids()),
    (dt.datetime, st.datetimes()),
    (
        dt.datetime,
        st.datetimes(
            dt.datetime(2, 1, 1),
            dt.datetime(9998, 1, 1),
            timezones=st.integers(-700, 700).map(
                lambda minutes: dt.timezone(dt.timedelta(minutes=minutes))
            ),
        ),
    ),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas(dt.timedelta(-9999), dt.timedelta(9999))),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Share, st.sampled_from(Share)),
    (UserId, st.integers(0, 9)),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (Money, st.integers().map(Money)),
    (Point, st.builds(Point, st.integers(0, 9), st.floats(0, 1))),
    (Tick, st.builds(Tick, st.integers(0, 9), st.floats(0, 1))),
    (Secret, st.builds(Secret, st.text(), st.binary())),
    (Options, st.fixed_dictionaries({}, optional={"depth": st.integers(0, 9)})),
    (Pair, st.builds(Pair, st.integers(0, 9), st.text())),
    (Struct, st.builds(Struct, st.integers(0, 9), st.just([]))),
    (Circle | Square | int, st.sampled_from([Circle(1), Square(2), 5])),
]
KEYS = (int, str, bytes, uuid.UUID, dt.date, Level, Color)


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[Any, Any]:
    """An annotation and a value of it."""
    annotation: Any
    values: Any
    key: Any
    annotation, values = draw(st.sampled_from(SCALARS))
    for _ in range(draw(st.integers(0, 3))):
        shape = draw(st.sampled_from(["list", "tuple", "dict", "optional", "box", "pair"]))
        if shape == "list":
            annotation, values = list[annotation], st.lists(values, max_size=3)
        elif shape == "tuple":
            annotation, values = tuple[annotation, ...], st.lists(values, max_size=3).map(tuple)
        elif shape == "dict":
            key, keys = draw(st.sampled_from([each for each in SCALARS if each[0] in KEYS]))
            annotation, values = dict[key, annotation], st.dictionaries(keys, values, max_size=3)
        elif shape == "optional":
            annotation, values = Optional[annotation], st.none() | values  # noqa: UP045  # None | None
        elif shape == "box":
            annotation, values = Box[annotation], st.builds(Box, values)
        else:
            annotation, values = tuple[annotation, int], st.tuples(values, st.integers(0, 9))
    return annotation, draw(values)


@given(typed_values())
def test_round_trips_agree_in_both_encodings(case: tuple[Any, Any]) -> None:
    annotation, value = case
    for encoding in ENCODINGS:
        payloads = Payloads(encoding, money_converter())
        assert round_trip(payloads, annotation, value) == value


@given(typed_values().filter(lambda case: "Money" not in repr(case[0])))
def test_round_trips_agree_without_a_converter(case: tuple[Any, Any]) -> None:
    annotation, value = case
    for encoding in ENCODINGS:
        payloads = Payloads(encoding)
        assert round_trip(payloads, annotation, value) == value
