"""One method's arguments, results and errors on the wire; what is wrong with them first."""

# Contracts have empty bodies here.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import functools
import gc
import math
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import cattrs
import msgspec
import pytest

from trio_streamrpc.contract.arguments import MethodCodec
from trio_streamrpc.contract.decorators import rpc
from trio_streamrpc.contract.method import Method
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import Encoding, Payloads
from trio_streamrpc.contract.signatures import Kind, Parameter, Role
from trio_streamrpc.errors import InternalError, InvalidArgument
from trio_streamrpc.protocol.binary import BINARY_BYTES, Binary

if TYPE_CHECKING:
    from trio import TaskStatus
else:

    class TaskStatus:
        """Known by its name and its module alone."""

        __class_getitem__ = classmethod(lambda cls, item: __import__("trio").TaskStatus[item])


@attrs.define
class Tick:
    size: int
    price: float = 1.0


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


class NoSuchSymbol(Exception):
    pass


class Transaction:
    @rpc
    async def debit(self, amount: int) -> None: ...


class Market:
    @rpc(errors=(NoSuchSymbol,))
    async def price(self, symbol: str) -> float: ...

    @rpc
    async def buy(self, symbol: str, amount: int = 1, *, limit: float | None = None) -> str: ...

    @rpc
    async def book(self, ticks: list[Tick], *, at: int) -> Tick: ...

    @rpc
    async def move(self, x: int, y: int, /, z: int = 0) -> None: ...

    @rpc
    async def total(self, first: int, *rest: int, **named: float) -> int: ...

    @rpc
    async def nothing(self) -> None: ...

    @rpc(strict=True)
    async def exactly(self, tick: Tick) -> Tick: ...

    @rpc
    async def ticks(self, symbol: str) -> AsyncIterator[Tick]: ...

    @rpc
    async def ingest(
        self,
        ticks: AsyncIterable[Tick],
        progress: Callable[[float], Awaitable[None]] | None = None,
        *,
        label: str = "",
    ) -> int: ...

    @rpc
    async def all_of(self, *uploads: AsyncIterable[int], **callbacks: Callback) -> int: ...

    @rpc
    async def untyped(self, a, b=2): ...

    @rpc
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        yield Transaction()

    @rpc
    @asynccontextmanager
    async def lock(self) -> AsyncIterator[int]:
        yield 1

    @rpc
    async def work(self, n: int, *, task_status: TaskStatus[str]) -> None: ...


Callback = Callable[[int], Awaitable[None]]
TABLE = MethodTable.of_contract(Market)


@pytest.fixture(params=["msgpack", "json"])
def encoding(request: pytest.FixtureRequest) -> Encoding:
    found: Encoding = request.param
    return found


@pytest.fixture(params=[None, cattrs.Converter], ids=["bare", "converter"])
def payloads(request: pytest.FixtureRequest, encoding: Encoding) -> Payloads:
    return Payloads(encoding, request.param and request.param())


def encoded(
    codec: MethodCodec, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[bytes, bytes | None]:
    """The payloads of arguments that are all data."""
    packed, packed_names, references = codec.encode_arguments(args, kwargs)
    assert references == []
    return packed, packed_names


def wire(payloads: Payloads, name: str) -> MethodCodec:
    return TABLE[name].wire(payloads)


# Arguments that do not fit


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "expected"),
    [
        ("price", (), {}, "price() missing 1 required argument: 'symbol'"),
        ("price", ("a", "b"), {}, "price() takes 1 positional argument but 2 were given"),
        ("price", ("a",), {"symbol": "b"}, "price() got multiple values for argument 'symbol'"),
        ("price", ("a",), {"x": 1}, "price() got an unexpected keyword argument 'x'"),
        ("price", (), {"x": 1}, "price() got an unexpected keyword argument 'x'"),
        ("nothing", (1,), {}, "nothing() takes 0 positional arguments but 1 was given"),
        (
            "buy",
            ("a", 1, 2.0),
            {},
            "buy() takes from 1 to 2 positional arguments but 3 were given",
        ),
        ("buy", (), {"limit": 1.0}, "buy() missing 1 required argument: 'symbol'"),
        ("book", (), {}, "book() missing 2 required arguments: 'ticks' and 'at'"),
        ("book", ([],), {}, "book() missing 1 required argument: 'at'"),
        ("move", (), {}, "move() missing 2 required arguments: 'x' and 'y'"),
        (
            "move",
            (1,),
            {"y": 2},
            "move() got a positional-only argument passed as a keyword argument: 'y'",
        ),
        ("total", (), {"a": 1.0}, "total() missing 1 required argument: 'first'"),
        ("total", (1,), {"first": 2}, "total() got multiple values for argument 'first'"),
        ("work", (1,), {"task_status": 1}, "work() got an unexpected keyword argument 'task_stat"),
    ],
)
def test_arguments_that_do_not_fit_are_told_in_pythons_words(
    payloads: Payloads, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], expected: str
) -> None:
    """Before anything is sent; and by the callee, since not every caller is Python."""
    codec = wire(payloads, name)
    with pytest.raises(TypeError) as local:
        codec.encode_arguments(args, kwargs)
    assert expected in str(local.value)
    encode = payloads.encoder()
    with pytest.raises(InvalidArgument) as remote:
        codec.decode_arguments(encode(args), encode(kwargs))
    assert expected in remote.value.message


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "expected"),
    [
        ("price", [5], {}, "Expected `str`, got `int` - at `$.symbol`"),
        ("price", [], {"symbol": 5}, "Expected `str`, got `int` - at `$.symbol`"),
        ("buy", ["a", "5"], {}, "Expected `int`, got `str` - at `$.amount`"),
        ("buy", ["a"], {"limit": "5"}, "got `str` - at `$.limit`"),
        ("book", [[{"size": 1}] * 3 + [{"size": "x"}]], {"at": 1}, "at `$.ticks[3].size`"),
        ("book", [[{}]], {"at": 1}, "missing required field `size` - at `$.ticks[0]`"),
        ("total", [1, 2, "3"], {}, "Expected `int`, got `str` - at `$.rest[2]`"),
        ("total", [1], {"a": "3"}, "Expected `float`, got `str` - at `$.named['a']`"),
        ("exactly", [{"size": 1, "x": 2}], {}, "unknown field `x` - at `$.tick`"),
    ],
)
def test_values_that_do_not_fit_are_named(
    payloads: Payloads, name: str, args: list[Any], kwargs: dict[str, Any], expected: str
) -> None:
    encode = payloads.encoder()
    with pytest.raises(InvalidArgument) as caught:
        wire(payloads, name).decode_arguments(encode(args), encode(kwargs) if kwargs else None)
    assert expected in caught.value.message


def test_containers_that_are_none(payloads: Payloads) -> None:
    encode, codec = payloads.encoder(), wire(payloads, "buy")
    for args, kwargs, expected in (
        (encode({"symbol": 1}), None, "buy(): args: Expected `array`, got `object`"),
        (encode(5), None, "buy(): args: Expected `array`, got `int`"),
        (encode(["a"]), encode([1]), "buy(): kwargs: Expected `object`, got `array`"),
        (b"\xc1", None, "buy(): args: cannot be decoded: "),
        (encode(["a"]), b"", "buy(): kwargs: cannot be decoded: Input data was truncated"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            codec.decode_arguments(args, kwargs)
        assert expected in caught.value.message


def test_keys_that_are_no_names() -> None:
    payloads = Payloads("msgpack")
    with pytest.raises(InvalidArgument, match="Expected `str`, got `int` as a key"):
        wire(payloads, "buy").decode_arguments(None, payloads.encoder()({1: 2}))


def test_a_peers_keyword_is_escaped_and_cut(payloads: Payloads) -> None:
    encode = payloads.encoder()
    with pytest.raises(InvalidArgument) as caught:
        wire(payloads, "price").decode_arguments(encode([]), encode({"\n" + "x" * 5000: 1}))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


class Unknown:
    pass


def test_what_cannot_be_encoded_is_named(payloads: Payloads) -> None:
    for name, args, kwargs, expected in (
        ("untyped", (1, Unknown()), {}, "Market.untyped(): argument 'b', of type Unknown, cannot"),
        ("untyped", (Unknown(),), {}, "argument 'a', of type Unknown, cannot be encoded: Unknown "),
        ("untyped", (1,), {"b": Unknown()}, "argument 'b', of type Unknown, cannot be encoded"),
        ("total", (1, Unknown()), {}, "argument 'rest[1]', of type Unknown, cannot be encoded"),
        ("total", (1,), {"x": Unknown()}, "argument \"named['x']\", of type Unknown, cannot"),
    ):
        with pytest.raises(TypeError) as caught:
            wire(payloads, name).encode_arguments(args, kwargs)
        assert expected in str(caught.value)


def test_json_has_no_nan(payloads: Payloads) -> None:
    codec = wire(payloads, "buy")
    if payloads.encoding == "json":
        with pytest.raises(TypeError, match=r"argument 'limit', of type float, .*JSON has no nan"):
            codec.encode_arguments(("a",), {"limit": math.nan})
        with pytest.raises(TypeError, match=r"Market.price\(\): its result, of type float, cannot"):
            wire(payloads, "price").encode_result(math.inf)
    else:
        _, kwargs = codec.decode_arguments(*encoded(codec, ("a",), {"limit": math.nan}))
        assert math.isnan(kwargs["limit"])


# Arguments that fit


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("price", ["a"], {}),
        ("price", [], {"symbol": "a"}),
        ("buy", ["a"], {}),
        ("buy", ["a", 5], {}),
        ("buy", ["a", 5], {"limit": 2.5}),
        ("buy", ["a"], {"limit": None}),
        ("buy", [], {"amount": 5, "symbol": "a"}),
        ("book", [[Tick(1), Tick(2, 3.0)]], {"at": 5}),
        ("move", [1, 2], {"z": 3}),
        ("total", [1], {}),
        ("total", [1, 2, 3], {"a": 1.5, "b": 2.0}),
        ("total", [1], {"rest": 1.5, "named": 2.0}),
        ("nothing", [], {}),
        ("exactly", [Tick(1)], {}),
        ("untyped", [{"a": [1]}], {"b": None}),
        ("work", [5], {}),
        ("transaction", [], {}),
    ],
)
def test_arguments_there_and_back(
    payloads: Payloads, name: str, args: list[Any], kwargs: dict[str, Any]
) -> None:
    codec = wire(payloads, name)
    sent = encoded(codec, tuple(args), kwargs)
    assert all(each is None or type(each) is bytes for each in sent)
    assert (sent[1] is None) == (not kwargs)
    assert codec.decode_arguments(*sent) == (args, kwargs)
    raw = [None if each is None else msgspec.Raw(each) for each in sent]
    assert codec.decode_arguments(raw[0], raw[1]) == (args, kwargs)


def test_absent_arguments(payloads: Payloads) -> None:
    assert wire(payloads, "nothing").decode_arguments(None) == ([], {})
    with pytest.raises(InvalidArgument, match="missing 1 required argument"):
        wire(payloads, "price").decode_arguments(None)


def test_a_users_hook_is_asked_for_arguments(encoding: Encoding) -> None:
    converter = cattrs.Converter()
    converter.register_unstructure_hook(Money, lambda money: f"{money.cents}¢")
    converter.register_structure_hook(Money, lambda value, _: Money(int(value[:-1])))

    async def pay(amount: Money, *tips: Money) -> Money: ...

    codec = MethodTable.of({"pay": pay})["pay"].wire(Payloads(encoding, converter))
    sent = encoded(codec, (Money(1), Money(2)), {})
    assert Payloads(encoding).decoder(list[str])(sent[0]) == ["1¢", "2¢"]
    args, _ = codec.decode_arguments(*sent)
    assert [each.cents for each in args] == [1, 2]
    assert codec.decode_result(codec.encode_result(Money(5))).cents == 5


def test_a_type_that_nobody_knows_names_the_parameter(payloads: Payloads) -> None:
    async def pay(amount: Money) -> None: ...
    async def earn() -> list[Money]: ...
    async def collect(amounts: AsyncIterable[Money]) -> None: ...

    table = MethodTable.of({"pay": pay, "earn": earn, "collect": collect})
    with pytest.raises(TypeError, match=r"^pay\(\), parameter 'amount': Money is a type that nei"):
        table["pay"].wire(payloads)
    with pytest.raises(TypeError, match=r"^earn\(\), its result: Money is a type that neither"):
        table["earn"].wire(payloads)
    with pytest.raises(TypeError, match=r"^collect\(\), an item of 'amounts': Money is a type tha"):
        table["collect"].wire(payloads)


def test_an_object_whose_methods_are_not_marked(payloads: Payloads) -> None:
    @asynccontextmanager
    async def pay() -> AsyncIterator[Money]:
        yield Money(1)

    table = MethodTable.of({"pay": pay})
    with pytest.raises(
        TypeError, match=r"Money is a type .*; for an object .*, mark its methods w"
    ):
        table["pay"].wire(payloads)


def test_codecs_are_compiled_once(payloads: Payloads) -> None:
    assert wire(payloads, "price") is wire(payloads, "price")
    assert wire(payloads, "price") is not wire(Payloads("json"), "price")


def test_codecs_keep_no_service(payloads: Payloads) -> None:
    """They are shared by all objects of a class, and outlive each: a remote object, say."""

    class Account:
        @rpc
        async def balance(self) -> int:
            return 0

    account = Account()
    codec = MethodTable.of(account)["balance"].wire(payloads)
    gone = weakref.ref(account)
    del account
    gc.collect()
    assert gone() is None
    assert MethodTable.of(Account())["balance"].wire(payloads) is codec


def test_without_a_contract_anything_goes(payloads: Payloads) -> None:
    codec = Method.untyped("math.add").wire(payloads)
    sent = encoded(codec, (1, Tick(1)), {"x": [None]})
    assert codec.decode_arguments(*sent) == ([1, {"size": 1, "price": 1.0}], {"x": [None]})
    assert codec.decode_result(codec.encode_result({"a": 1})) == {"a": 1}
    assert codec.decode_error("KeyError", "x", None) is None
    stream = Method.untyped("ticks", Kind.SERVER_STREAM)
    assert (stream.name, stream.kind, stream.function) == ("ticks", Kind.SERVER_STREAM, None)
    with pytest.raises(TypeError, match=r"math.add\(\): argument 'args\[0\]', of type Unknown"):
        codec.encode_arguments((Unknown(),), {})


# What is no data


class Numbers:
    def __aiter__(self) -> AsyncIterator[int]:
        raise AssertionError("a codec does not iterate")


async def report(*done: float) -> None: ...


class Reporter:
    async def __call__(self, done: float) -> None: ...


def the(parameter: Parameter) -> str:
    return f"the {parameter.name}"


def test_references_are_null_in_their_places(payloads: Payloads) -> None:
    """And what they were is told beside them."""
    codec = wire(payloads, "ingest")
    ticks, progress = Numbers(), report
    cases: list[tuple[tuple[Any, ...], dict[str, Any], list[int | str]]] = [
        ((ticks,), {}, [0]),
        ((ticks, progress), {"label": "x"}, [0, 1]),
        ((), {"ticks": ticks, "progress": progress}, ["ticks", "progress"]),
        ((ticks, None), {}, [0]),
        ((ticks,), {"progress": None}, [0]),
    ]
    for args, kwargs, places in cases:
        packed, packed_names, references = codec.encode_arguments(args, kwargs)
        assert [place for place, _, _ in references] == places
        values = {"ticks": ticks, "progress": progress}
        assert all(value is values[parameter.name] for _, parameter, value in references)
        placeholders = {place: the for place, _, _ in references}
        got, named = codec.decode_arguments(packed, packed_names, placeholders)
        names = ["the ticks", "the progress"]
        assert got == [each and name for each, name in zip(args, names, strict=False)]
        assert {**named, "label": 0} == {
            **{name: each and f"the {name}" for name, each in kwargs.items()},
            "label": 0,
        }


def test_what_cannot_be_a_reference(payloads: Payloads) -> None:
    codec = wire(payloads, "ingest")
    with pytest.raises(TypeError, match="'ticks' is to be an async iterable, and is of type list"):
        codec.encode_arguments(([1, 2],), {})
    with pytest.raises(TypeError, match="'progress' is to be an async function, and is of type in"):
        codec.encode_arguments((Numbers(), 5), {})


def test_without_a_contract_a_stream_and_a_function_are_references(payloads: Payloads) -> None:
    codec = Method.untyped("anything").wire(payloads)
    numbers, reporter = Numbers(), Reporter()
    args = (1, numbers, report, functools.partial(report, 1), reporter)
    packed, packed_names, references = codec.encode_arguments(args, {"x": numbers, "y": "z"})
    assert [(place, parameter.role, value) for place, parameter, value in references] == [
        (1, Role.UPLOAD, numbers),
        (2, Role.CALLBACK, report),
        (3, Role.CALLBACK, args[3]),
        (4, Role.CALLBACK, reporter),
        ("x", Role.UPLOAD, numbers),
    ]
    placeholders = {place: the for place, _, _ in references}
    got, named = codec.decode_arguments(packed, packed_names, placeholders)
    assert got == [1, "the args", "the args", "the args", "the args"]
    assert named == {"x": "the kwargs", "y": "z"}


def test_items_of_an_upload(payloads: Payloads) -> None:
    codec = wire(payloads, "ingest")
    ticks = codec.parameters[0]
    encode, decode = codec.item_encoder(ticks), codec.item_decoder(ticks)
    assert decode(encode(Tick(3, 2.5))) == Tick(3, 2.5)
    # One that nothing is said about is decoded as it comes.
    anything = wire(payloads, "untyped").parameters[0]
    upload = replace(anything, role=Role.UPLOAD)
    codec = wire(payloads, "untyped")
    assert codec.item_decoder(upload)(codec.item_encoder(upload)(Tick(3))) == {
        "size": 3,
        "price": 1.0,
    }
    with pytest.raises(TypeError, match=r"ingest\(\): an item of 'ticks', of type object, cannot"):
        encode(object())


def test_an_item_that_cannot_be_decoded_is_named(payloads: Payloads) -> None:
    """By its number among those of the same upload; one that is asked for again counts once."""
    codec = wire(payloads, "ingest")
    decode, other = (codec.item_decoder(codec.parameters[0]) for _ in range(2))
    encode = payloads.encoder()
    good, bad = encode({"size": 1}), encode({"size": "one"})
    worse = encode({"price": 1.0})
    assert decode(good) == decode(good) == Tick(1)
    for _ in range(2):
        with pytest.raises(InvalidArgument, match=r"at `\$\.ticks\[2\]\.size`$"):
            decode(bad)
    assert decode(good) == Tick(1)
    with pytest.raises(InvalidArgument, match=r"`size` - at `\$\.ticks\[4\]`$"):
        decode(worse)
    with pytest.raises(InvalidArgument, match=r"at `\$\.ticks\[5\]\.size`$"):
        decode(encode({"size": "one"}))
    with pytest.raises(InvalidArgument, match=r"\$\.ticks\[0\]"):
        other(bad)


def test_items_of_a_strict_method(payloads: Payloads) -> None:
    """As its other arguments, they have no unknown fields."""

    @rpc(strict=True)
    async def strictly(ticks: AsyncIterable[Tick]) -> None: ...
    async def freely(ticks: AsyncIterable[Tick]) -> None: ...

    table = MethodTable.of({"strictly": strictly, "freely": freely})
    data = payloads.encoder()({"size": 1, "more": 2})
    codec = table["freely"].wire(payloads)
    assert codec.item_decoder(codec.parameters[0])(data) == Tick(1)
    codec = table["strictly"].wire(payloads)
    with pytest.raises(InvalidArgument, match=r"unknown field `more` - at `\$\.ticks\[0\]`"):
        codec.item_decoder(codec.parameters[0])(data)


def test_variadic_references(payloads: Payloads) -> None:
    codec = wire(payloads, "all_of")
    numbers = Numbers()
    args, kwargs, references = codec.encode_arguments((numbers, numbers), {"x": report})
    assert [place for place, _, _ in references] == [0, 1, "x"]
    got = codec.decode_arguments(args, kwargs, {0: the, 1: the, "x": the})
    assert got[0] == ["the " + codec.parameters[0].name] * 2
    assert got[1] == {"x": "the " + codec.parameters[1].name}


def test_wrong_and_missing_references(payloads: Payloads) -> None:
    encode = payloads.encoder()
    cases: tuple[tuple[str, list[Any], dict[int | str, Any], str], ...] = (
        (
            "ingest",
            [None],
            {},
            "ingest() takes a stream for 'ticks': its place holds null, and 'refs' says what it is",
        ),
        ("ingest", [[1, 2]], {}, "ingest() takes a stream for 'ticks'"),
        ("ingest", [None, 5], {0: the}, "ingest() takes a callback for 'progress'"),
        ("price", [None], {0: the}, "price() takes data for 'symbol', not a stream or a callback"),
        ("price", ["a"], {"x": the}, "price() has no argument at 'x'"),
        ("price", ["a"], {5: the}, "price() has no argument at 5"),
        ("price", ["a"], {-1: the}, "price() has no argument at -1"),
        ("price", ["a"], {"symbol": the}, "price() has no argument at 'symbol'"),
    )
    for name, args, placeholders, expected in cases:
        with pytest.raises(InvalidArgument) as caught:
            wire(payloads, name).decode_arguments(encode(args), None, placeholders)
        assert expected in caught.value.message


def test_what_a_context_yields(payloads: Payloads) -> None:
    """An object with methods is no data; anything else is."""
    assert TABLE["transaction"].yields_object
    assert not TABLE["lock"].yields_object
    codec = wire(payloads, "transaction")
    assert codec.decode_result(codec.encode_result(None)) is None
    assert wire(payloads, "lock").decode_result(wire(payloads, "lock").encode_result(5)) == 5
    assert wire(payloads, "work").decode_result(payloads.encoder()("started")) == "started"


# Results


def test_results_there_and_back(payloads: Payloads) -> None:
    for name, value in (
        ("price", 1.5),
        ("book", Tick(5)),
        ("ticks", Tick(6)),
        ("untyped", [1, None]),
        ("nothing", None),
    ):
        codec = wire(payloads, name)
        assert codec.decode_result(codec.encode_result(value)) == value


def test_a_result_of_another_type_is_the_other_sides_fault(payloads: Payloads) -> None:
    encode = payloads.encoder()
    for name, value, expected in (
        ("price", "1.5", "the result of Market.price() does not match float: Expected `float`, "),
        ("book", {"size": "x"}, "does not match Tick: Expected `int`, got `str` - at `$.size`"),
        ("ticks", {}, "an item of Market.ticks() does not match Tick: Object missing required "),
    ):
        with pytest.raises(InternalError) as caught:
            wire(payloads, name).decode_result(encode(value))
        assert expected in caught.value.message


def test_unknown_fields_in_results_are_ignored(payloads: Payloads) -> None:
    data = payloads.encoder()({"size": 1, "new": 2})
    assert wire(payloads, "exactly").decode_result(data) == Tick(1)


def test_a_result_that_cannot_be_encoded_is_named(payloads: Payloads) -> None:
    with pytest.raises(TypeError, match=r"Market.untyped\(\): its result, of type Unknown, cannot"):
        wire(payloads, "untyped").encode_result(Unknown())
    with pytest.raises(TypeError, match=r"Market.ticks\(\): an item, of type Unknown, cannot be"):
        wire(payloads, "ticks").encode_result(Unknown())


def test_listed_errors(payloads: Payloads) -> None:
    """R22: by the method's own list alone."""
    codec = wire(payloads, "price")
    encoded = codec.encode_error(NoSuchSymbol("ACME"))
    assert encoded is not None
    back = codec.decode_error(encoded[0], "ACME", encoded[1])
    assert type(back) is NoSuchSymbol
    assert back.args == ("ACME",)
    assert codec.encode_error(KeyError("x")) is None
    assert wire(payloads, "buy").encode_error(NoSuchSymbol("ACME")) is None
    assert wire(payloads, "buy").decode_error(*encoded[:1], "ACME", encoded[1]) is None


# Long byte strings


class Files:
    @rpc
    async def read(self) -> bytes: ...

    @rpc
    async def find(self) -> bytes | None: ...

    @rpc
    async def untyped(self): ...

    @rpc
    async def short(self) -> Annotated[bytes, msgspec.Meta(max_length=3)]: ...

    @rpc
    async def array(self) -> bytearray: ...

    @rpc
    async def text(self) -> str: ...

    @rpc
    async def write(self, blocks: AsyncIterable[bytes], lines: AsyncIterable[str]) -> None: ...


LONG = bytes(BINARY_BYTES)


def files(encoding: Encoding, name: str, converter: cattrs.Converter | None = None) -> MethodCodec:
    method = MethodTable.of_contract(Files).get(name)
    assert method is not None
    return method.wire(Payloads(encoding, converter))


@pytest.mark.parametrize("name", ["read", "find", "untyped"])
def test_a_long_byte_string_stands_for_itself(name: str) -> None:
    codec = files("msgpack", name)
    encoded = codec.encode_result(LONG)
    assert isinstance(encoded, Binary)
    assert encoded.body is LONG
    assert codec.decode_result(encoded) is LONG
    assert codec.decode_result(encoded.joined()) == LONG
    # One that may change is encoded as it is now, and one that is short costs nothing to copy.
    assert not isinstance(codec.encode_result(LONG[:-1]), Binary)
    changing = bytearray(LONG)
    assert not isinstance(codec.encode_result(changing), Binary)


def test_where_it_does_not() -> None:
    for codec in (
        files("json", "read"),
        files("msgpack", "read", cattrs.Converter()),
        files("msgpack", "array"),
    ):
        assert not isinstance(codec.encode_result(LONG), Binary)
        assert codec.decode_result(codec.encode_result(LONG)) == LONG


def test_one_that_is_not_wanted() -> None:
    """It is checked against its type as if it had come in one piece."""
    assert files("msgpack", "array").decode_result(Binary(LONG)) == bytearray(LONG)
    for name in ("text", "short"):
        with pytest.raises(InternalError, match="does not match"):
            files("msgpack", name).decode_result(Binary(LONG))


def test_long_byte_strings_as_items_of_an_upload() -> None:
    codec = files("msgpack", "write")
    blocks, lines = codec.parameters
    encoded = codec.item_encoder(blocks)(LONG)
    assert isinstance(encoded, Binary)
    assert encoded.body is LONG
    assert codec.item_decoder(blocks)(encoded) is LONG
    assert not isinstance(codec.item_encoder(blocks)(LONG[:-1]), Binary)
    decode = codec.item_decoder(lines)
    assert decode(b"\xa1x") == "x"
    for _ in range(2):  # it is counted once
        with pytest.raises(InvalidArgument, match=r"\$\.lines\[1\]"):
            decode(encoded)
