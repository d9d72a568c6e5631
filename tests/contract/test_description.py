"""What a service tells of itself: kinds, parameters, types as JSON Schema, what is not known."""

# Contracts have empty bodies here.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import enum
import json
import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import cattrs
import msgspec
import pytest
import trio

from trio_streamrpc.contract.decorators import rpc
from trio_streamrpc.contract.description import describe
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import Payloads
from trio_streamrpc.limits import Window

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]


@dataclass
class Tick:
    """One price."""

    symbol: str
    price: float = 0.0
    before: Tick | None = None


@dataclass
class Odd:
    value: float = math.nan


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


@dataclass
class Bill:
    total: Money
    paid: Money = field(default_factory=lambda: Money(0))


@dataclass
class Priced:
    """Its default is nothing that msgspec could write into a schema."""

    price: Money = Money(100)  # noqa: RUF009  # nobody changes it


@attrs.define
class Hidden:
    _secret: int


class Half(enum.Enum):
    HALF = 0.5


class NoSuchSymbol(Exception):
    pass


class Transaction:
    @rpc
    async def debit(self, name: str, amount: int) -> None:
        """Take it."""

    @rpc
    @asynccontextmanager
    async def nested(self) -> AsyncIterator[Transaction]:
        yield self


class Unreadable:
    part: Missing

    @rpc
    async def touch(self) -> None: ...


class Settings:
    def __init__(self) -> None:
        self._theme = "dark"

    @property
    @rpc
    def theme(self) -> str:
        return self._theme

    @theme.setter
    def theme(self, value: str) -> None:
        self._theme = value


class Market:
    def __init__(self) -> None:
        self.settings = Settings()

    @rpc(errors=(NoSuchSymbol,), cleanup=1.5, strict=True)
    async def price(self, symbol: str, *more: str, at: float = 0.0, **rest: int) -> Tick:
        """The price.

        Of a symbol.
        """
        return Tick(symbol)

    @rpc(window=Window(items=3, bytes=1_000))
    async def ticks(
        self, symbol: Annotated[str, msgspec.Meta(max_length=4)]
    ) -> AsyncIterator[Tick]:
        yield Tick(symbol)

    @rpc
    async def ingest(self, ticks: AsyncIterable[Tick], /) -> int: ...

    @rpc
    async def build(
        self, progress: Callable[[float, bytes], Awaitable[bool]] | None = None
    ) -> Any: ...

    @rpc
    async def watch(self, symbol: str, *, task_status: trio.TaskStatus[int]) -> None: ...

    @rpc
    @asynccontextmanager
    async def lock(self) -> AsyncIterator[int]:
        yield 1

    @rpc
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction | None]:
        yield None

    @rpc(oneway=True)
    async def note(self, what) -> None: ...


def described(service: object, converter: cattrs.Converter | None = None) -> dict[str, Any]:
    found = describe(MethodTable.of(service), Payloads("json", converter))
    for each in (Payloads("json"), Payloads("msgpack")):
        # Builtins, and nothing that one of the encodings lacks.
        assert each.decoder()(each.encoder()(found)) == found
    return found


@pytest.fixture(scope="module")
def market() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in described(Market())["methods"]}


def result_of(function: Any, converter: cattrs.Converter | None = None) -> dict[str, Any]:
    [method] = described({"it": function}, converter)["methods"]
    found: dict[str, Any] = method["result"]
    return found


def test_every_method_is_there(market) -> None:
    assert {name: each["kind"] for name, each in market.items()} == {
        "price": "unary",
        "ticks": "server stream",
        "ingest": "unary",
        "build": "unary",
        "watch": "task",
        "lock": "context",
        "transaction": "context",
        "note": "unary",
        "settings.theme": "unary",
    }


def test_a_method(market) -> None:
    price = market["price"]
    assert price["doc"] == "The price.\n\nOf a symbol."
    text = {"type": "str", "schema": {"type": "string"}}
    assert price["parameters"] == [
        {
            "name": "symbol",
            "passed": "positional or keyword",
            "required": True,
            "role": "data",
            **text,
        },
        {
            "name": "more",
            "passed": "variadic positional",
            "required": False,
            "role": "data",
            **text,
        },
        {
            "name": "at",
            "passed": "keyword-only",
            "required": False,
            "role": "data",
            "type": "float",
            "schema": {"type": "number"},
        },
        {
            "name": "rest",
            "passed": "variadic keyword",
            "required": False,
            "role": "data",
            "type": "int",
            "schema": {"type": "integer"},
        },
    ]
    assert price["options"] == {
        "window": None,
        "cleanup": 1.5,
        "errors": ["NoSuchSymbol"],
        "oneway": False,
        "strict": True,
    }
    assert (price["property"], price["writable"]) == (False, False)


def test_a_schema_is_complete_in_itself(market) -> None:
    assert market["price"]["result"] == {
        "type": "Tick",
        "schema": {
            "$ref": "#/$defs/Tick",
            "$defs": {
                "Tick": {
                    "title": "Tick",
                    "description": "One price.",
                    "type": "object",
                    "properties": {
                        "symbol": {"type": "string"},
                        "price": {"type": "number", "default": 0.0},
                        "before": {
                            "anyOf": [{"$ref": "#/$defs/Tick"}, {"type": "null"}],
                            "default": None,
                        },
                    },
                    "required": ["symbol"],
                }
            },
        },
    }


def test_a_stream(market) -> None:
    ticks = market["ticks"]
    assert ticks["items"]["type"] == "Tick"
    assert ticks["options"]["window"] == {"items": 3, "bytes": 1_000}
    assert ticks["parameters"][0]["schema"] == {"type": "string", "maxLength": 4}
    assert not ticks.keys() & {"result", "yields", "starts"}


def test_an_upload(market) -> None:
    [ticks] = market["ingest"]["parameters"]
    assert ticks["role"] == "stream"
    assert ticks["passed"] == "positional-only"
    assert ticks["items"]["schema"]["$ref"] == "#/$defs/Tick"


def test_a_callback(market) -> None:
    [progress] = market["build"]["parameters"]
    assert (progress["role"], progress["required"]) == ("callback", False)
    assert [each["schema"] for each in progress["parameters"]] == [
        {"type": "number"},
        {"type": "string", "contentEncoding": "base64"},
    ]
    assert progress["result"] == {"type": "bool", "schema": {"type": "boolean"}}


def test_a_task(market) -> None:
    watch = market["watch"]
    assert [each["name"] for each in watch["parameters"]] == ["symbol"], "no caller gives a status"
    assert watch["starts"]["type"] == "int"


def test_a_property(market) -> None:
    theme = market["settings.theme"]
    assert (theme["property"], theme["writable"]) == (True, True)


def test_what_has_no_annotation(market) -> None:
    note = market["note"]
    assert note["parameters"][0]["schema"] == {}
    assert note["options"]["oneway"] is True
    assert market["build"]["result"] == {"type": "Any", "schema": {}}


def test_a_context_gives_data_or_an_object(market) -> None:
    assert market["lock"]["yields"] == {"type": "int", "schema": {"type": "integer"}}
    assert market["transaction"]["yields"] == {
        "type": "tests.contract.test_description.Transaction | None",
        "object": "Transaction",
        "optional": True,
    }


def test_objects_once_each_though_they_give_themselves() -> None:
    objects = described(Market())["objects"]
    assert list(objects) == ["Transaction"]
    debit, nested = objects["Transaction"]
    assert (debit["name"], debit["doc"]) == ("debit", "Take it.")
    assert nested["yields"] == {"type": "Transaction", "object": "Transaction", "optional": False}


def test_objects_of_one_name() -> None:
    class Other:
        @rpc
        async def credit(self) -> None: ...

    Other.__name__ = "Transaction"

    class Service:
        @rpc
        @asynccontextmanager
        async def one(self) -> AsyncIterator[Transaction]:
            yield Transaction()

        @rpc
        @asynccontextmanager
        async def two(self) -> Any:
            yield Other()

    Service.two.__annotations__["return"] = AsyncIterator[Other]
    found = described(Service())
    objects = [found["objects"][each["yields"]["object"]] for each in found["methods"]]
    assert [[each["name"] for each in methods] for methods in objects] == [
        ["debit", "nested"],
        ["credit"],
    ]


def test_an_object_that_cannot_be_read_beforehand() -> None:
    class Service:
        @rpc
        @asynccontextmanager
        async def it(self) -> AsyncIterator[Unreadable]:
            yield Unreadable()

    found = described(Service())
    assert found["methods"][0]["yields"]["object"] == "Unreadable"
    assert found["objects"] == {"Unreadable": []}


# --- types


def test_a_class_that_a_converter_makes() -> None:
    async def bill() -> Bill: ...

    properties = result_of(bill)["schema"]["$defs"]["Bill"]["properties"]
    assert properties["total"] == {
        "title": "Money",
        "description": (
            "Money: what it looks like is up to the service's converter, and no schema is known"
        ),
    }


@pytest.mark.parametrize(
    "annotation",
    [
        Hidden,
        Priced,
        Half,
        list[Half],
        Tick | Bill,
        Annotated[int, msgspec.Meta(extra_json_schema={"what": object()})],
    ],
)
def test_what_msgspec_cannot_describe(annotation: Any) -> None:
    async def it() -> None: ...

    it.__annotations__["return"] = annotation
    found = result_of(it)
    assert list(found["schema"]) == ["description"]
    assert "no schema is known" in found["schema"]["description"]


def test_a_default_that_json_lacks() -> None:
    async def odd() -> Odd: ...

    schema = result_of(odd)["schema"]
    assert json.dumps(schema, allow_nan=False)
    assert schema["$defs"]["Odd"]["properties"]["value"] == {"type": "number", "default": None}


def test_nothing() -> None:
    async def it() -> None: ...

    assert result_of(it) == {"type": "None", "schema": {"type": "null"}}


def test_object_is_anything() -> None:
    async def it() -> object: ...

    assert result_of(it) == {"type": "object", "schema": {}}


def test_what_a_users_hook_makes_is_not_guessed() -> None:
    """With a converter, a class that msgspec knows may look like something else."""
    converter = cattrs.Converter()
    converter.register_structure_hook(Tick, lambda value, _: Tick(value))
    converter.register_unstructure_hook(Tick, lambda tick: tick.symbol)

    async def tick() -> list[Tick]: ...

    async def odd() -> Odd: ...

    assert list(result_of(tick, converter)["schema"]) == ["description"]
    assert "$ref" in result_of(odd, converter)["schema"]
    assert "$defs" in result_of(tick)["schema"]


def test_a_users_hook_for_a_scalar() -> None:
    converter = cattrs.Converter()
    converter.register_structure_hook(int, lambda value, _: int(value, 16))
    converter.register_unstructure_hook(int, hex)

    async def it() -> dict[str, int]: ...

    async def text() -> str: ...

    assert list(result_of(it, converter)["schema"]) == ["description"]
    assert result_of(text, converter)["schema"] == {"type": "string"}


def test_a_custom_type_and_a_users_converter() -> None:
    converter = cattrs.Converter()
    converter.register_structure_hook(Money, lambda value, _: Money(value))
    converter.register_unstructure_hook(Money, lambda money: money.cents)

    async def bill() -> list[Bill]: ...

    schema = result_of(bill, converter)["schema"]
    assert schema["$defs"]["Bill"]["properties"]["total"]["title"] == "Money"
