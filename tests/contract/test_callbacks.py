"""Callbacks in annotations: what they take and give, and how they are called (R20)."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from typing import Annotated, Any, Concatenate, Generic, Optional, ParamSpec, TypeVar, Union

import msgspec
import pytest
import trio

from trio_streamrpc.contract import hints
from trio_streamrpc.contract.decorators import rpc
from trio_streamrpc.contract.method import Method, callback_method
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import Payloads, payloads_for
from trio_streamrpc.contract.signatures import Kind, Parameter, Role
from trio_streamrpc.errors import InternalError, InvalidArgument

P = ParamSpec("P")
T = TypeVar("T")
Progress = Callable[[float], Awaitable[None]]


class Tick(msgspec.Struct):
    size: int


class Odd:
    """Nothing can encode it."""

    def __init__(self, value: int) -> None:
        self.value = value


@pytest.fixture(params=["msgpack", "json"])
def payloads(request: pytest.FixtureRequest) -> Payloads:
    return payloads_for(request.param, None)


def parameter(annotation: Any, role: Role = Role.CALLBACK) -> Parameter:
    return Parameter("callback", annotation, role=role)


# --- what an annotation says


@pytest.mark.parametrize(
    ("annotation", "taken", "result"),
    [
        (Callable[[], Awaitable[int]], [], int),
        (Callable[[int, str], Awaitable[list[int]]], [int, str], list[int]),
        (Callable[..., Awaitable[int]], None, int),
        (Callable[[int], Awaitable[Any]], [int], Any),
        (Callable[[int], Awaitable], [int], Any),
        (Callable[[int], Coroutine[Any, str, bytes]], [int], bytes),
        (Callable[[int], Awaitable[None]] | None, [int], None),
        (Optional[Progress], [float], None),  # noqa: UP045
        (Union[None, Progress], [float], None),  # noqa: UP007
        (Annotated[Callable[[int], Awaitable[int]], "doc"], [int], int),
        (Annotated[Callable[[int], Annotated[Awaitable[int], "doc"]] | None, "doc"], [int], int),
        (Callable[P, Awaitable[int]], None, int),
        (Callable[Concatenate[int, P], Awaitable[int]], None, int),
        (Any, None, Any),
        (object, None, Any),
    ],
    ids=str,
)
def test_what_it_takes_and_gives(annotation: Any, taken: Any, result: Any) -> None:
    assert hints.callback_types(annotation) == (taken, result)


@pytest.mark.parametrize(
    "annotation",
    [Callable, Callable[[int], int], Callable[..., Any], Callable[[int], AsyncIterable[int]]],
    ids=str,
)
def test_what_cannot_be_awaited(annotation: Any) -> None:
    with pytest.raises(TypeError, match="a callback is an async function"):
        hints.is_callback(annotation)


class Generics(Generic[T]):
    @rpc
    async def each(self, callback: Callable[[T], Awaitable[list[T]]]) -> None: ...


class Numbers(Generics[int]):
    pass


def test_type_variables() -> None:
    [found] = MethodTable.of_contract(Numbers)["each"].parameters
    assert hints.callback_types(found.annotation) == ([int], list[int])
    [unbound] = MethodTable.of_contract(Generics)["each"].parameters
    assert hints.callback_types(unbound.annotation) == ([Any], list[Any])


ForLater = Callable[["Later"], Awaitable["Later"]]


class Forward:
    @rpc
    async def f(self, callback: ForLater) -> None: ...


class Later(msgspec.Struct):
    value: int


def test_names_that_are_there_later() -> None:
    [found] = MethodTable.of(Forward())["f"].parameters
    assert hints.callback_types(found.annotation) == ([Later], Later)


# --- how it is called


def test_the_method_of_a_callback() -> None:
    method = Method.of_callback(parameter(Callable[[int, Tick | None], Awaitable[str]]), "it")
    assert (method.name, method.kind, method.label) == ("", Kind.UNARY, "it")
    assert method.result_type is str
    assert method.function is None
    assert [(each.name, each.annotation, each.optional) for each in method.parameters] == [
        ("argument 1", int, False),
        ("argument 2", Tick | None, True),
    ]
    assert {each.kind for each in method.parameters} == {inspect.Parameter.POSITIONAL_ONLY}


def test_the_roles_of_what_it_takes() -> None:
    annotation = Callable[
        [int, Progress, AsyncIterable[int], Progress | None, Any], Awaitable[None]
    ]
    method = Method.of_callback(parameter(annotation), "it")
    assert [(each.role, each.optional) for each in method.parameters] == [
        (Role.DATA, False),
        (Role.CALLBACK, False),
        (Role.UPLOAD, False),
        (Role.CALLBACK, True),
        (Role.DATA, True),
    ]


@pytest.mark.parametrize(
    ("found", "result"),
    [
        (parameter(Any), Any),
        (parameter(object), Any),
        (parameter(Any, Role.DATA), Any),
        (parameter(object, Role.DATA), Any),
        (parameter(Callable[..., Awaitable[int]]), int),
    ],
    ids=str,
)
def test_a_callback_that_takes_anything(found: Parameter, result: Any) -> None:
    """Without a contract, or with one that leaves it open."""
    method = Method.of_callback(found, "it")
    assert method.result_type is result
    assert [each.kind for each in method.parameters] == [
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    ]


class Nested:
    @rpc
    async def deep(
        self, callback: Callable[[Callable[[Callable[[int], int]], Awaitable[int]]], Awaitable[int]]
    ) -> None: ...


class Statuses:
    @rpc
    async def f(self, callback: Callable[[trio.TaskStatus[int]], Awaitable[int]]) -> None: ...


def test_callbacks_that_nobody_could_call() -> None:
    """They are told when the table is built, however deep they stand."""
    with pytest.raises(TypeError, match=r"Nested\.deep\(\): parameter 'callback': a callback is"):
        MethodTable.of(Nested())
    with pytest.raises(TypeError, match="Nested"):
        MethodTable.of_contract(Nested)
    with pytest.raises(TypeError, match=r"Statuses\.f\(\): parameter 'callback': .*a task status"):
        MethodTable.of(Statuses())


# --- values


class Service:
    @rpc
    async def f(
        self, callback: Callable[[int, Tick], Awaitable[Tick]], other: Progress | None = None
    ) -> None: ...

    @rpc
    async def odd(self, callback: Callable[[Odd], Awaitable[None]]) -> None: ...

    @rpc
    async def odd_result(self, callback: Callable[[], Awaitable[Odd]]) -> None: ...

    @rpc
    async def anything(self, value: object, values: list[object]) -> object: ...


def test_the_codec_of_a_callback(payloads: Payloads) -> None:
    """It is made once for a parameter, and bound to a function it is the same."""
    codec = MethodTable.of(Service())["f"].wire(payloads)
    first, second = codec.parameters
    method = callback_method(codec, first)
    assert callback_method(codec, first) is method
    assert callback_method(codec, second) is not method
    assert method.label == "Service.f(), 'callback'"

    async def callback(number: int, tick: Tick) -> Tick:
        return tick

    bound = method.bind(callback)
    assert bound.function is callback
    assert bound.wire(payloads) is method.wire(payloads)


def test_values_of_a_callback(payloads: Payloads) -> None:
    codec = MethodTable.of(Service())["f"].wire(payloads)
    wire = callback_method(codec, codec.parameters[0]).wire(payloads)
    packed, named, references = wire.encode_arguments((1, Tick(2)), {})
    assert (named, references) == (None, [])
    assert wire.decode_arguments(packed) == ([1, Tick(2)], {})
    assert wire.decode_result(wire.encode_result(Tick(3))) == Tick(3)
    wrong, _, _ = wire.encode_arguments((1, {"size": "x"}), {})
    with pytest.raises(InvalidArgument, match=r"Expected `int`, got `str` - at `\$\.argument 2\.s"):
        wire.decode_arguments(wrong)
    with pytest.raises(InternalError, match=r"'callback'\(\) does not match Tick"):
        wire.decode_result(wire.encode_result(5))
    with pytest.raises(TypeError, match="missing 1 required argument: 'argument 2'"):
        wire.encode_arguments((1,), {})
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        wire.encode_arguments((1, 2, 3), {})
    with pytest.raises(TypeError, match="unexpected keyword argument 'tick'"):
        wire.encode_arguments((1,), {"tick": 2})


def test_values_that_nothing_can_encode(payloads: Payloads) -> None:
    """They are told with the method's own, before it is called."""
    table = MethodTable.of(Service())
    with pytest.raises(TypeError, match=r"Service\.odd\(\), 'callback'.*'argument 1'.*Odd is a"):
        table["odd"].wire(payloads)
    with pytest.raises(TypeError, match=r"odd_result\(\), 'callback'\(\), its result: Odd is a"):
        table["odd_result"].wire(payloads)


def test_object_says_as_little_as_any(payloads: Payloads) -> None:
    """At any depth."""
    codec = MethodTable.of(Service())["anything"].wire(payloads)
    args = ({"a": [1, None]}, [1, "b", [2]])
    packed, _, _ = codec.encode_arguments(args, {})
    assert codec.decode_arguments(packed) == (list(args), {})
    assert codec.decode_result(codec.encode_result({"x": 1})) == {"x": 1}
