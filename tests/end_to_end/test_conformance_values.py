"""What values are to arrive as, and where there is an end to them: docs/conformance.md."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
import trio

from tests.end_to_end.openers import Opener
from trio_streamrpc import Limits, ResourceExhausted, RpcError, Unimplemented, Window, rpc

TESTS = Path(__file__).parent


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Level(IntEnum):
    LOW = 1
    HIGH = 2**40


@dataclass
class Tick:
    at: datetime
    price: Decimal
    sizes: list[int]
    note: str | None = None


class Point(NamedTuple):
    x: float
    y: float


class Box(TypedDict, total=False):
    name: str
    inside: list[UUID]


class Node(msgspec.Struct):
    value: int
    next: Node | None = None


ID = UUID("12345678-1234-5678-1234-567812345678")
AT = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)

#: Values that both encodings carry, with the annotation that they are declared with.
VALUES: list[tuple[Any, Any]] = [
    (None, None),
    *((bool, value) for value in (True, False)),
    *((int, value) for value in (0, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1)),
    *((float, value) for value in (0.0, -0.0, 0.1, 1e308, 5e-324, -1.5, 2.0**60)),
    *((str, value) for value in ("", "plain", "é😀\u2028", "\x00\x1f\x7f", 'a"b\\c\r\n\t')),
    *((bytes, value) for value in (b"", b"\x00\xff", bytes(range(256)), bytes(5000))),
    (datetime, AT),
    (datetime, datetime(1, 1, 1, tzinfo=UTC)),
    (datetime, datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=-7, minutes=-30)))),
    (datetime, datetime(2024, 1, 1, 12)),  # without a zone it stays without one
    (date, date(9999, 12, 31)),
    (time, time(23, 59, 59, 1)),
    (timedelta, timedelta(days=-1, microseconds=1)),
    *((Decimal, Decimal(text)) for text in ("0", "1.10", "-12345678901234567890.0123456789")),
    (UUID, ID),
    (Colour, Colour.GREEN),
    (Level, Level.HIGH),
    (Tick, Tick(AT, Decimal("1.10"), [1, 2], None)),
    (Point, Point(1.5, -0.0)),
    (Box, {"name": "é", "inside": [ID]}),
    (Node, Node(1, Node(2))),
    (dict[int, str], {0: "", 2**63 - 1: "a", -(2**63): "b"}),
    (dict[UUID, list[int]], {ID: [1]}),
    (dict[date, Decimal], {date(2024, 1, 1): Decimal("1.10")}),
    (dict[Colour, bytes], {Colour.RED: b"\xff"}),
    (dict[str, dict[str, float | None]], {"a": {"b": None, "c": 1.5}}),
    (set[int], {1, 2, 3}),
    (frozenset[str], frozenset({"a", "b"})),
    (tuple[int, str, bytes], (1, "a", b"\xff")),
    (tuple[int, ...], (1, 2, 3)),
    (list[tuple[datetime, UUID]], [(AT, ID)]),
    (int | str | None, "5"),
    (int | str | None, 5),
    (Any, {"a": [1, 1.5, None, True, "é", 2**53 + 1]}),
]

#: Beyond that: the value, or a clear error.
BEYOND: list[tuple[Any, Any]] = [
    (float, math.nan),
    (float, math.inf),
    (float, -math.inf),
    (int, 2**64),
    (int, -(2**63) - 1),
    (int, 10**400),
    (Decimal, Decimal("NaN")),
    (str, "lone \ud800"),
    (list[float], [1.0, math.nan]),
    (dict[str, int], {"a": 2**64}),
    (dict[float, int], {math.nan: 1}),
    (Any, {"a": math.nan, "b": 2**70}),
]


def echo_of(annotation: Any) -> Any:
    """A function that gives back what it is given, annotated like that."""

    async def echo(value):
        return value

    echo.__annotations__ = {"value": annotation, "return": annotation}
    return echo


def is_same(one: Any, other: Any) -> bool:
    """Of the same type, and equal to the sign of a zero; a moment is the same in any zone."""
    if type(one) is not type(other):
        return False
    if isinstance(one, datetime) or not isinstance(one, float | Point):
        return bool(one == other)
    return repr(one) == repr(other)


async def test_values_arrive_as_they_are(opened: Opener) -> None:
    """C23: in both encodings, and so the same in both."""
    service = {f"echo{number}": echo_of(kind) for number, (kind, _) in enumerate(VALUES)}
    async with opened(service) as connection:
        for number, (kind, value) in enumerate(VALUES):
            found = await typed(connection, f"echo{number}", kind, value)
            assert is_same(found, value), (kind, value, found)


async def typed(connection: Any, name: str, kind: Any, value: Any) -> Any:
    """Call it through a contract with that annotation."""

    async def declared(self, value):
        raise AssertionError

    declared.__annotations__ = {"value": kind, "return": kind}
    declared.__name__ = declared.__qualname__ = name
    contract = type("Contract", (), {name: rpc(declared)})
    return await getattr(connection.proxy(contract), name)(value)


async def test_what_is_beyond_is_told(opened: Opener) -> None:
    """C23: never another value, and the connection lives."""
    service = {f"echo{number}": echo_of(kind) for number, (kind, _) in enumerate(BEYOND)}
    async with opened(service | {"plain": echo_of(int)}) as connection:
        for number, (kind, value) in enumerate(BEYOND):
            try:
                found = await typed(connection, f"echo{number}", kind, value)
            except (RpcError, ValueError, TypeError, OverflowError) as error:
                assert str(error), (kind, value)  # noqa: PT017
            else:
                assert repr(found) == repr(value), (kind, value, found)
            assert await connection.call("plain", 5) == 5


# --- C22: equal passes, one more fails


async def test_the_length_of_a_value(opened: Opener) -> None:
    """C22: of an argument list, a result and an item."""

    async def echo(value: str) -> str:
        return value

    async def make(length: int) -> str:
        return "x" * length

    async def items(length: int) -> AsyncIterator[str]:
        yield "x" * length

    limits = Limits(max_value_bytes=2000, max_frame_bytes=1000)
    service = {"echo": echo, "make": make, "items": items}
    async with opened(service, limits=limits) as connection:
        longest = 1990
        for length in range(longest, 2010):
            text = "x" * length
            try:
                assert await connection.call("make", length) == text
            except ResourceExhausted:
                break
            longest = length
        # Two quotes in JSON, a header of three bytes in msgpack.
        assert longest in (1997, 1998)
        async with connection.stream("items", longest) as stream:
            assert await stream.receive() == "x" * longest
        with pytest.raises(ResourceExhausted):
            async with connection.stream("items", longest + 1) as stream:
                await stream.receive()
        # Beside it stand the brackets of the list, and the absent keywords.
        assert await connection.call("echo", "x" * (longest - 20)) == "x" * (longest - 20)
        with pytest.raises(ResourceExhausted):
            await connection.call("echo", "x" * longest)


async def test_the_number_of_uploads(opened: Opener) -> None:
    """C22: of one call; those of several wait for each other."""

    async def two(a: AsyncIterable[int], b: AsyncIterable[int]) -> int:
        return sum([each async for each in a]) + sum([each async for each in b])

    async def three(a: AsyncIterable[int], b: AsyncIterable[int], c: AsyncIterable[int]) -> int:
        raise AssertionError

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    async with opened({"two": two, "three": three}, limits=Limits(max_uploads=2)) as connection:
        for _ in range(3):
            assert await connection.call("two", numbers(), numbers()) == 6
        with pytest.raises(ResourceExhausted):
            await connection.call("three", numbers(), numbers(), numbers())
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(connection.call, "two", numbers(), numbers())


async def test_the_length_of_a_name(opened: Opener) -> None:
    """C22."""
    name = "n" * 256
    async with opened({name: echo_of(int)}) as connection:
        assert await connection.call(name, 5) == 5
        with pytest.raises(Unimplemented):
            await connection.call(name + "n", 5)


async def test_the_smallest_window(opened: Opener) -> None:
    """C22: one item of whatever length gets through."""

    async def items() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(1000)

    async with opened({"items": items}) as connection:
        async with connection.stream("items", window=Window(1, 1)) as stream:
            assert len([item async for item in stream]) == 5


# --- none is left out


async def test_every_line_has_its_test() -> None:
    text = (TESTS.parent.parent / "docs" / "conformance.md").read_text(encoding="utf-8")
    lines = re.findall(r"^- (C\d+)\. ", text, re.MULTILINE)
    assert lines == [f"C{number}" for number in range(1, 24)]
    tests = "".join(each.read_text(encoding="utf-8") for each in TESTS.glob("test_conformance*.py"))
    named = set(re.findall(r'"""(C\d+)[.:]', tests))
    assert set(lines) - named == set()
    assert named <= set(lines)
