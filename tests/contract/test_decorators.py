"""``@rpc``: what it takes, what it leaves, and what a local call gives."""

# Contracts have empty bodies here.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from trio_streamrpc.contract import decorators
from trio_streamrpc.contract.decorators import (
    RpcOptions,
    is_context_manager,
    mark_of,
    open_iterator,
    rpc,
    set_local_stream_factory,
)
from trio_streamrpc.limits import Window

if TYPE_CHECKING:
    from nowhere import Stream, Tick  # type: ignore[import-not-found]


class NoSuchSymbol(Exception):
    pass


class LocalStream:
    """Stands in for the runtime's Stream."""

    def __init__(self, iterator: AsyncIterator[Any]) -> None:
        self.iterator = iterator


@pytest.fixture(autouse=True)
def local_streams() -> Iterator[None]:
    before = decorators.local_stream
    set_local_stream_factory(LocalStream)
    yield
    set_local_stream_factory(before)


# Options


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": 5}, TypeError, "@rpc(name=…) must be a string, not 5"),
        ({"name": ""}, ValueError, "@rpc(name=…) must not be empty"),
        ({"name": "a.b"}, ValueError, "must not hold a dot, which separates namespaces: 'a.b'"),
        ({"name": "_a"}, ValueError, "must not start with an underscore: '_a' would be private"),
        ({"window": 5}, TypeError, "@rpc(window=…) must be a Window, not 5: Window(items=5)"),
        ({"cleanup": "5"}, TypeError, "@rpc(cleanup=…) must be a number, not '5'"),
        ({"cleanup": True}, TypeError, "@rpc(cleanup=…) must be a number, not True"),
        ({"cleanup": 0}, ValueError, "@rpc(cleanup=…) must be above 0, not 0"),
        ({"cleanup": -1.0}, ValueError, "@rpc(cleanup=…) must be above 0, not -1.0"),
        ({"cleanup": float("nan")}, ValueError, "@rpc(cleanup=…) must be above 0, not nan"),
        ({"errors": NoSuchSymbol}, TypeError, "must be a tuple of exception classes, not <class"),
        ({"errors": (5,)}, TypeError, "@rpc(errors=…) must hold exception classes, not 5"),
        ({"errors": (KeyError("x"),)}, TypeError, "must hold exception classes, not KeyError('x')"),
        ({"errors": (KeyboardInterrupt,)}, TypeError, "must hold exception classes"),
        (
            {"errors": (NoSuchSymbol, type("NoSuchSymbol", (Exception,), {}))},
            ValueError,
            "two classes named 'NoSuchSymbol'; on the wire they could not be told apart",
        ),
        ({"oneway": 1}, TypeError, "@rpc(oneway=…) must be a bool, not 1"),
        ({"strict": None}, TypeError, "@rpc(strict=…) must be a bool, not None"),
        ({"window": "5"}, TypeError, "@rpc(window=…) must be a Window, not '5'"),
        ({"nmae": "x"}, TypeError, "rpc() got an unexpected keyword argument 'nmae'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception], message: str) -> None:
    """Error names are unique per method, as R22 needs them."""
    with pytest.raises(error) as caught:
        rpc(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (NoSuchSymbol, "@rpc marks methods, not classes: NoSuchSymbol is a service if its methods"),
        (5, "@rpc marks functions, not 5"),
        (functools.partial(print), "other callables are exposed by a mapping"),
        (staticmethod(print), "@rpc stands below @staticmethod: write @staticmethod first"),
        (classmethod(print), "@rpc stands below @classmethod"),
        (property(print), "@rpc stands below @property"),
    ],
)
def test_what_cannot_be_marked(function: Any, message: str) -> None:
    for decorator in (rpc, rpc(name="x")):
        with pytest.raises(TypeError) as caught:
            decorator(function)
        assert message in str(caught.value)


def test_a_method_is_marked_once() -> None:
    @rpc
    async def price() -> None: ...

    with pytest.raises(TypeError, match="price has two @rpc marks"):
        rpc(price)


def test_a_method_and_options_are_not_given_together() -> None:
    with pytest.raises(TypeError, match="the method alone, or options alone"):
        rpc(test_a_method_is_marked_once, name="x")  # type: ignore[call-overload]


def test_options_are_kept() -> None:
    @rpc(
        name="quote",
        window=Window(3, 4),
        cleanup=5,
        errors=(NoSuchSymbol,),
        oneway=True,
        strict=True,
    )
    async def price() -> None: ...

    mark = mark_of(price)
    assert mark is not None
    assert mark.options == RpcOptions("quote", Window(3, 4), 5, (NoSuchSymbol,), True, True)


def test_an_override_keeps_what_it_does_not_set() -> None:
    contract = RpcOptions(name="x", cleanup=5.0, strict=True)
    assert RpcOptions().over(contract) == contract
    assert RpcOptions(name="y").over(contract) == RpcOptions(name="y", cleanup=5.0, strict=True)


# Unary methods


def test_a_unary_method_stays_itself() -> None:
    async def price(symbol: str) -> float: ...
    def count() -> int: ...
    async def untyped(a, b): ...

    for function in (price, count, untyped):
        assert rpc(function) is function
        mark = mark_of(function)
        assert mark is not None
        assert mark.function is function
        assert mark.exposed is function
        assert mark.options == RpcOptions()


def test_a_context_manager_stays_itself() -> None:
    @rpc
    @asynccontextmanager
    async def transaction() -> AsyncIterator[int]:
        yield 5

    assert is_context_manager(transaction)
    assert mark_of(transaction) is not None
    assert not is_context_manager(test_a_context_manager_stays_itself)
    assert not is_context_manager(5)


def test_what_has_no_mark() -> None:
    def spoofed() -> None: ...

    vars(spoofed)["__rpc__"] = "a mark"
    for attribute in (5, print, spoofed, NoSuchSymbol, staticmethod(spoofed), None):
        assert mark_of(attribute) is None


def test_marks_are_seen_through_static_and_class_methods() -> None:
    class Service:
        @staticmethod
        @rpc
        def static() -> None: ...

        @classmethod
        @rpc
        def of_class(cls) -> None: ...

        @rpc
        def method(self) -> None: ...

    for name in ("static", "of_class", "method"):
        assert mark_of(vars(Service)[name]) is not None
        assert mark_of(getattr(Service(), name)) is not None


# Stream methods


async def generator(n: int) -> AsyncIterator[int]:
    yield n


async def unannotated(n):
    yield n


async def contract(n: int) -> AsyncIterator[int]: ...
async def of_iterable(n: int) -> AsyncIterable[int]: ...
async def of_generator(n: int) -> AsyncGenerator[int, None]: ...
async def of_text(n: int) -> "AsyncIterator[int]": ...  # noqa: UP037
async def of_stream(n: int) -> Stream[int]: ...
async def of_unknown_item(n: int) -> AsyncIterator[Tick]: ...
async def of_dotted(n: int) -> streams.Stream[Tick]: ...  # type: ignore[name-defined]  # noqa: F821
def of_function(n: int) -> AsyncIterator[int]:
    return generator(n)


async def of_unknown(n: int) -> Tick: ...


of_quoted_twice = of_text


@pytest.mark.parametrize(
    "function",
    [
        generator,
        unannotated,
        contract,
        of_iterable,
        of_generator,
        of_text,
        of_stream,
        of_unknown_item,
        of_dotted,
        of_function,
    ],
)
def test_streams_are_known_by_their_annotations(function: Callable[..., Any]) -> None:
    """Evaluated where they can be, else by their text: names may come later."""
    wrapper = rpc(function)
    assert wrapper is not function
    assert wrapper.__name__ == function.__name__
    mark = mark_of(wrapper)
    assert mark is not None
    assert mark.function is function
    assert mark.exposed is wrapper
    assert mark_of(function) is None


def test_what_is_no_stream_by_its_text() -> None:
    assert rpc(of_unknown) is of_unknown


async def test_a_local_call_gives_a_local_stream() -> None:
    class Service:
        @rpc
        async def ticks(self, n: int) -> AsyncIterator[int]:
            for i in range(n):
                yield i

    stream: Any = Service().ticks(3)
    assert type(stream) is LocalStream
    assert [each async for each in stream.iterator] == [0, 1, 2]
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'n'"):
        Service().ticks()  # type: ignore[call-arg]


async def test_a_function_may_return_any_async_iterable() -> None:
    class Feed:
        def __aiter__(self) -> AsyncIterator[int]:
            return generator(7)

    def feed() -> AsyncIterable[int]:
        return Feed()

    stream: Any = rpc(feed)()
    assert [each async for each in stream.iterator] == [7]


def test_a_contract_has_nothing_to_call_locally() -> None:
    """And the coroutine that nobody awaits leaves no warning."""

    def nothing(n: int) -> AsyncIterator[int]: ...

    for function in (contract, nothing):
        with pytest.raises(NotImplementedError, match=r"is declared as a stream but has no body"):
            open_iterator(function, 5)


def test_without_the_runtime_there_are_no_local_streams() -> None:
    set_local_stream_factory(decorators.no_local_stream)
    with pytest.raises(RuntimeError, match="import trio_streamrpc first"):
        rpc(generator)(1)
