"""The table of methods: what gets into it, as what, and what never does."""

# Contracts have empty bodies here.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import abc
import functools
import math
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Optional,
    Protocol,
    TypeVar,
)

import attrs
import pytest
import trio

from trio_streamrpc.contract.decorators import rpc
from trio_streamrpc.contract.method import Method
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.signatures import Kind, Parameter, Role
from trio_streamrpc.limits import Window

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]

T = TypeVar("T")
B = TypeVar("B", bound=int)
C = TypeVar("C", int, str)


class Stream(Generic[T]):
    """Stands in for the runtime's: known by its name and its module's package."""

    __module__ = "trio_streamrpc.runtime.streams"


class Tick:
    pass


class History:
    """What was."""

    @rpc
    async def query(self, since: int) -> list[int]:
        return [since]


class Market:
    history: History

    def __init__(self) -> None:
        self.history = History()

    @rpc
    async def price(self, symbol: str) -> float:
        """The price."""
        return float(len(symbol))

    @rpc
    async def ticks(self, symbol: str) -> AsyncIterator[Tick]:
        yield Tick()

    async def unmarked(self) -> None: ...


def names(service: object) -> list[str]:
    return sorted(MethodTable.of(service))


async def call(table: MethodTable, name: str, *args: Any) -> Any:
    function = table[name].function
    assert function is not None
    result = function(*args)
    return await result if isinstance(result, Awaitable) else result


# What is no service


class Empty:
    async def price(self) -> None: ...


@pytest.mark.parametrize(
    ("service", "message"),
    [
        (Market, "the service is the class Market: pass an instance of it, Market()"),
        (Empty(), "has no @rpc method: did you forget to mark them?"),
        (5, "the service, 5, has no @rpc method"),
        (None, "the service, None, has no @rpc method"),
        (lambda: None, "a function is exposed by standing in a mapping"),
        ({}, "the service is an empty mapping: it has nothing to serve"),
        ({"a": {}}, "the service at 'a' is an empty mapping"),
        ({"a": {"b": Market}}, "the service at 'a.b' is the class Market: pass an instance of it"),
        ({"a": Empty()}, "the service at 'a', <"),
        ({"a": 5}, "the service at 'a', 5, has no @rpc method"),
        ({5: Market()}, "a name in the service must be a string, not 5"),
        ({"": Market()}, "a name in the service must not be empty"),
        ({"a": {"b.c": Market()}}, "a name in the service at 'a' must not hold a dot"),
        ({"_a": Market()}, "a name in the service must not start with an underscore"),
    ],
)
def test_what_is_no_service(service: object, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        MethodTable.of(service)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        (Market(), "a contract is a class, not <"),
        (Empty, "Empty has no @rpc method: did you forget to mark them?"),
        (5, "a contract is a class, not 5"),
    ],
)
def test_what_is_no_contract(contract: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        MethodTable.of_contract(contract)
    assert message in str(caught.value)


def test_a_mapping_may_not_hold_itself() -> None:
    service: dict[str, Any] = {}
    service["a"] = {"b": service}
    with pytest.raises(TypeError, match=r"the service at 'a\.b' holds itself"):
        MethodTable.of(service)


# What does not fit


class Wrong:
    @rpc
    async def unresolved(self, a: int, b: Missing) -> None: ...

    @rpc
    async def unresolved_inside(self, a: list[Missing]) -> None: ...

    @rpc
    async def unresolved_result(self) -> Missing: ...

    @rpc
    async def not_a_type(self, a: "the symbol") -> None: ...  # type: ignore[valid-type]  # noqa: F722

    @rpc
    async def plain_callback(self, cb: Callable[[int], int]) -> None: ...

    @rpc
    async def bare_callback(self, cb: Callable) -> None: ...  # type: ignore[type-arg]

    @rpc
    async def yields(self) -> int:  # type: ignore[misc]
        yield 5

    @rpc
    def yields_in_sync(self) -> Iterator[int]:
        yield 5

    @rpc
    async def awaited_context(self) -> AbstractAsyncContextManager[int]: ...

    @rpc(oneway=True)
    async def oneway_stream(self) -> AsyncIterator[int]: ...

    @rpc(oneway=True)
    async def oneway_upload(self, items: AsyncIterable[int]) -> None: ...

    @rpc(window=Window())
    async def unary_window(self) -> int: ...

    @rpc
    async def _private(self) -> None: ...

    @rpc
    async def two_statuses(self, *, a: trio.TaskStatus[int], b: trio.TaskStatus[int]) -> None: ...

    @rpc
    async def early_status(self, task_status: trio.TaskStatus[int], a: int) -> None: ...

    @rpc
    async def positional_status(self, task_status: trio.TaskStatus[int], /) -> None: ...

    @rpc
    async def variadic_status(self, *task_status: trio.TaskStatus[int]) -> None: ...

    @rpc
    async def stream_status(self, *, task_status: trio.TaskStatus[int]) -> AsyncIterator[int]: ...

    @asynccontextmanager
    @rpc
    async def upside_down(self) -> AsyncIterator[int]:
        yield 1

    @property
    @rpc
    def stream_property(self) -> AsyncIterator[int]: ...


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "unresolved",
            (
                "Wrong.unresolved(): the annotation 'Missing' of parameter 'b' cannot be evaluated "
                "(name 'Missing' is not defined); the names in it have to be there at run time, "
                "not only under TYPE_CHECKING"
            ),
        ),
        ("unresolved_inside", "the annotation 'list[Missing]' of parameter 'a' cannot be"),
        ("unresolved_result", "Wrong.unresolved_result(): the annotation 'Missing' of its result"),
        ("not_a_type", "of parameter 'a' cannot be evaluated (SyntaxError: "),
        ("plain_callback", "parameter 'cb': a callback is an async function: annotate it as Call"),
        ("bare_callback", "parameter 'cb': a callback is an async function"),
        ("yields", "Wrong.yields() yields, but its result is annotated as int: write AsyncIter"),
        ("yields_in_sync", "Wrong.yields_in_sync() yields and is not async: write 'async def'"),
        ("awaited_context", "is async and returns a context manager, which would have to be awai"),
        ("oneway_stream", "Wrong.oneway_stream() is a server stream method and cannot be oneway"),
        ("oneway_upload", "is oneway and can take neither streams nor callbacks"),
        ("unary_window", "Wrong.unary_window() is no stream and cannot have a window"),
        ("_private", "Wrong._private: the name of an @rpc method must not start with an undersc"),
        ("two_statuses", "Wrong.two_statuses() has two task statuses"),
        ("early_status", "the task status 'task_status' is passed by name: put it last"),
        ("positional_status", "the task status 'task_status' is passed by name"),
        ("variadic_status", "the task status 'task_status' is passed by name"),
        ("stream_status", "Wrong.stream_status() cannot be a server stream and have a task stat"),
        ("upside_down", "Wrong.upside_down(): @rpc stands above @asynccontextmanager"),
        ("stream_property", "Wrong.stream_property is a property and cannot be a server stream"),
    ],
)
def test_methods_that_cannot_be_served(name: str, message: str) -> None:
    """On both sides, when the table is built: oneway and windows as R18 has them."""
    cls = type("Wrong", (), {name: vars(Wrong)[name]})
    for build in (lambda: MethodTable.of(cls()), lambda: MethodTable.of_contract(cls)):
        with pytest.raises(TypeError) as caught:
            build()
        assert message in str(caught.value)


def test_two_methods_of_one_name() -> None:
    class Service:
        @rpc(name="x")
        async def a(self) -> None: ...

        @rpc
        async def x(self) -> None: ...

    with pytest.raises(TypeError, match=r"Service has two methods named 'x': Service\.a and Serv"):
        MethodTable.of(Service())


def test_a_value_in_a_methods_place() -> None:
    class Contract:
        @rpc
        async def price(self) -> int: ...

    class Service(Contract):
        price = 5  # type: ignore[assignment]

    with pytest.raises(TypeError, match=r"Service\.price is to be a method, and is 5"):
        MethodTable.of(Service())


# Kinds, parameters, types


class Kinds:
    @rpc
    async def unary(self, a: int) -> str: ...

    @rpc
    def sync(self, a: int) -> str: ...

    @rpc
    async def untyped(self, a, *args, b=5, **kwargs): ...

    @rpc
    async def stream(self) -> AsyncIterator[int]: ...

    @rpc
    async def iterable(self) -> AsyncIterable[int]: ...

    @rpc
    async def generator(self) -> AsyncGenerator[int, None]:
        yield 5

    @rpc
    async def own_stream(self) -> Stream[int]: ...

    @rpc
    async def bare_stream(self) -> AsyncIterator: ...  # type: ignore[type-arg]

    @rpc
    async def untyped_stream(self):
        yield 5

    @rpc
    async def any_stream(self) -> Any:
        yield 5

    @rpc
    def returned_stream(self) -> AsyncIterator[int]: ...

    @rpc
    async def annotated_stream(self) -> Annotated[AsyncIterator[int], "doc"]: ...

    @rpc
    @asynccontextmanager
    async def context(self) -> AsyncIterator[int]:
        yield 5

    @rpc
    @asynccontextmanager
    async def untyped_context(self):
        yield 5

    @rpc
    def declared_context(self) -> AbstractAsyncContextManager[int]: ...

    @rpc
    async def task(self, a: int, task_status: trio.TaskStatus[int]) -> None: ...

    @rpc
    async def untyped_task(
        self,
        a: int = 1,
        task_status: trio.TaskStatus = trio.TASK_STATUS_IGNORED,
        **options: int,
    ) -> None: ...

    @rpc
    async def optional_task(self, *, task_status: trio.TaskStatus[int] | None = None): ...


@pytest.mark.parametrize(
    ("name", "kind", "result"),
    [
        ("unary", Kind.UNARY, str),
        ("sync", Kind.UNARY, str),
        ("untyped", Kind.UNARY, Any),
        ("stream", Kind.SERVER_STREAM, int),
        ("iterable", Kind.SERVER_STREAM, int),
        ("generator", Kind.SERVER_STREAM, int),
        ("own_stream", Kind.SERVER_STREAM, int),
        ("bare_stream", Kind.SERVER_STREAM, Any),
        ("untyped_stream", Kind.SERVER_STREAM, Any),
        ("any_stream", Kind.SERVER_STREAM, Any),
        ("returned_stream", Kind.SERVER_STREAM, int),
        ("annotated_stream", Kind.SERVER_STREAM, int),
        ("context", Kind.CONTEXT, int),
        ("untyped_context", Kind.CONTEXT, Any),
        ("declared_context", Kind.CONTEXT, int),
        ("task", Kind.TASK, int),
        ("untyped_task", Kind.TASK, Any),
        ("optional_task", Kind.TASK, int),
    ],
)
def test_kinds_come_from_annotations(name: str, kind: Kind, result: Any) -> None:
    """R18: a contract's empty body is no generator, so the body says nothing."""
    for table in (MethodTable.of(Kinds()), MethodTable.of_contract(Kinds)):
        assert (table[name].kind, table[name].result_type) == (kind, result)


Progress = Callable[[float], Awaitable[None]]


class Roles:
    @rpc
    async def f(
        self,
        data: int,
        upload: AsyncIterable[int],
        iterator: AsyncIterator[str],
        stream: Stream[bytes],
        bare: AsyncIterable,  # type: ignore[type-arg]
        callback: Callable[[float], Awaitable[None]],
        maybe_upload: AsyncIterable[int] | None,
        maybe_callback: Optional[Progress] = None,  # noqa: UP045
        maybe: int | None = None,
        anything=None,
        *uploads: AsyncIterable[int],
        named: Annotated[AsyncIterable[int], "doc"],
        default: AsyncIterable[int] = None,  # type: ignore[assignment]  # noqa: RUF013
        task_status: trio.TaskStatus[int],
        **callbacks: Progress,
    ) -> None: ...


def test_roles_of_parameters() -> None:
    parameters = {each.name: each for each in MethodTable.of(Roles())["f"].parameters}
    uploads = ("upload", "iterator", "stream", "bare", "maybe_upload", "uploads", "named")
    for name in (*uploads, "default"):
        assert parameters[name].role is Role.UPLOAD
    for name in ("callback", "maybe_callback", "callbacks"):
        assert parameters[name].role is Role.CALLBACK
    for name in ("data", "maybe", "anything"):
        assert parameters[name].role is Role.DATA
    assert parameters["task_status"].role is Role.TASK_STATUS
    assert [parameters[name].item_type for name in uploads] == [int, str, bytes, Any, int, int, int]
    assert parameters["task_status"].item_type is int
    assert parameters["data"].item_type is int
    optional = {name for name, each in parameters.items() if each.optional}
    assert optional == {"maybe_upload", "maybe_callback", "maybe", "anything", "default"}
    defaults = {name for name, each in parameters.items() if each.has_default}
    assert defaults == {"maybe_callback", "maybe", "anything", "default"}
    variadic = {name for name, each in parameters.items() if each.is_variadic}
    assert variadic == {"uploads", "callbacks"}


def test_parameters_are_seen_as_callers_see_them() -> None:
    method = MethodTable.of(Market())["price"]
    assert method.parameters == (Parameter("symbol", str),)
    assert method.doc == "The price."
    assert method.label == "Market.price"
    assert not method.is_property


# Type variables


class Repository(Generic[T]):
    @rpc
    async def get(self, id: int) -> T: ...

    @rpc
    async def all(self) -> AsyncIterator[T]: ...

    @rpc
    async def put(self, items: list[T], more: dict[str, T] | None = None) -> None: ...

    @rpc
    async def bound(self, a: B, b: C, c: Box[T]) -> None: ...


class Box(Generic[T]):
    pass


class Cached(Repository[T]):
    pass


class Users(Cached[Tick]):
    pass


def test_type_variables_are_what_the_class_says() -> None:
    for table in (
        MethodTable.of(Users()),
        MethodTable.of_contract(Users),
        MethodTable.of_contract(Repository[Tick]),
        MethodTable.of_contract(Cached[Tick]),
    ):
        assert table["get"].result_type is Tick
        assert table["all"].result_type is Tick
        assert table["put"].parameters[0].annotation == list[Tick]
        assert table["put"].parameters[1].annotation == dict[str, Tick] | None
        assert table["bound"].parameters[2].annotation == Box[Tick]


class Other2:
    pass


class Reader(Generic[T]):
    nested: Repository[T]

    @rpc
    async def read(self) -> T: ...


class Writer(Generic[T]):
    @rpc
    async def write(self, item: T) -> None: ...


class Both(Reader[int], Other2, Writer[str]):
    pass


def test_one_type_variable_serves_several_bases() -> None:
    table = MethodTable.of_contract(Both)
    assert table["read"].result_type is int
    assert table["write"].parameters[0].annotation is str
    assert table["nested.get"].result_type is int


def test_unknown_type_variables_are_their_bounds() -> None:
    table = MethodTable.of(Repository())
    assert table["get"].result_type is Any
    assert [each.annotation for each in table["bound"].parameters] == [int, int | str, Box[Any]]


def test_names_of_the_class_body_do_not_hide_builtins() -> None:
    class Service:
        class Item:
            pass

        @rpc
        async def list(self) -> list[int]: ...

        @rpc
        async def item(self) -> Item: ...

        @rpc
        async def me(self) -> Service: ...

    table = MethodTable.of_contract(Service)
    assert table["list"].result_type == list[int]
    assert table["item"].result_type is Service.Item
    assert table["me"].result_type is Service


# Overrides


class Contract(Protocol):
    @rpc(errors=(KeyError,), name="quote")
    async def price(self, symbol: str, at: int = 0) -> float:
        """As the contract says."""
        ...

    @rpc
    async def ticks(self, symbol: str) -> AsyncIterator[Tick]: ...


class Plain:
    async def price(self, symbol, at=1):
        return symbol


class Other:
    @rpc
    async def other(self) -> None: ...


class Direct(Contract):
    async def price(self, symbol, at=1):
        return symbol

    async def ticks(self, symbol):
        yield symbol


class Before(Plain, Other, Contract):
    @rpc
    async def ticks(self, symbol: str) -> AsyncIterator[Any]:
        yield symbol


class Deep(Direct):
    pass


class Deeper(Other, Deep, Plain):
    async def price(self, s, *more):
        return s


class Wrapped(Contract):
    def price(self, *args: Any, **kwargs: Any): ...


class Anything(Contract):
    def price(self, *args, **kwargs):
        return args[0]

    def ticks(self, *args, **kwargs): ...


class Remarked(Contract):
    @rpc(cleanup=3.0)
    async def price(self, symbol: str, at: int = 0) -> float:
        """As the service says."""
        return 1.5


@pytest.mark.parametrize("service", [Direct, Before, Deep, Deeper, Anything, Remarked])
async def test_an_override_stays_exposed_as_its_contract_says(service: Any) -> None:
    """Wherever in the MRO the mark and the annotations stand."""
    table = MethodTable.of(service())
    assert "price" not in table
    method = table["quote"]
    assert method.options.errors == (KeyError,)
    assert method.result_type is float
    assert method.parameters[0].annotation is str
    assert table["ticks"].kind is Kind.SERVER_STREAM
    expected = 1.5 if service is Remarked else "ACME"
    assert await call(table, "quote", "ACME") == expected
    assert method.doc == f"As the {'service' if service is Remarked else 'contract'} says."
    assert method.options.cleanup == (3.0 if service is Remarked else None)


def test_an_override_says_more_than_its_contract() -> None:
    assert MethodTable.of(Direct())["ticks"].result_type is Tick
    assert MethodTable.of(Before())["ticks"].result_type is Any
    assert [each.name for each in MethodTable.of(Anything())["quote"].parameters] == [
        "symbol",
        "at",
    ]
    wrapped = MethodTable.of(Wrapped())  # type: ignore[abstract]
    assert [each.name for each in wrapped["quote"].parameters] == [
        "args",
        "kwargs",
    ]
    more = MethodTable.of(Deeper())["quote"].parameters[1]
    assert (more.name, more.annotation) == ("more", Any)


def test_an_abstract_contract() -> None:
    class Abstract(abc.ABC):
        @rpc
        @abc.abstractmethod
        async def price(self) -> int: ...

    class Service(Abstract):
        async def price(self):
            return 5

    assert list(MethodTable.of_contract(Abstract)) == ["price"]
    assert MethodTable.of(Service())["price"].result_type is int


def test_a_subclass_may_take_a_method_back() -> None:
    class Less(Market):
        price = None  # type: ignore[assignment]

    assert names(Less()) == ["history.query", "ticks"]


def test_an_override_of_another_kind_is_refused() -> None:
    class AsUnary(Contract):
        async def ticks(self, symbol: str) -> int: ...  # type: ignore[override]

    class AsStream(Contract):
        async def price(self, symbol: str):  # type: ignore[override]
            yield symbol

    with pytest.raises(TypeError, match=r"AsUnary\.ticks\(\) is a unary method, and its contract"):
        MethodTable.of(AsUnary())  # type: ignore[abstract]
    with pytest.raises(TypeError, match=r"it is a unary method"):
        MethodTable.of(AsStream())  # type: ignore[abstract]


async def test_an_attribute_of_the_instance_is_what_runs() -> None:
    """As in Python: a test replaces a method on one instance."""
    market = Market()

    async def fixed(symbol: str) -> float:
        return 7.0

    market.price = fixed  # type: ignore[method-assign]
    market.ticks = Before().ticks  # type: ignore[method-assign]
    table = MethodTable.of(market)
    assert await call(table, "price", "ACME") == 7.0
    assert [each async for each in await call(table, "ticks", "ACME")] == ["ACME"]


async def test_a_callable_in_a_methods_place() -> None:
    """A mock, say: it has no annotations, and its contract has."""

    class Mock:
        def __call__(self, symbol: str) -> float:
            return 8.0

    class Mocked(Market):
        price = Mock()  # type: ignore[assignment]

    table = MethodTable.of(Mocked())
    assert await call(table, "price", "ACME") == 8.0
    assert table["price"].parameters == (Parameter("symbol", str),)


async def test_an_unmarked_method_is_never_reached() -> None:
    assert names(Market()) == ["history.query", "price", "ticks"]
    table = MethodTable.of(Market())
    for name in ("unmarked", "__init__", "history", "price.__call__", "", "history.__class__"):
        assert name not in table
        with pytest.raises(KeyError):
            table[name]


# What runs


async def test_functions_are_bound_and_raw() -> None:
    class Service:
        def __init__(self) -> None:
            self.n = 3

        @rpc
        async def add(self, n: int) -> int:
            return self.n + n

        @rpc
        async def ticks(self) -> AsyncIterator[int]:
            yield self.n

        @staticmethod
        @rpc
        def static(n: int) -> int:
            return n

        @classmethod
        @rpc
        def of_class(cls, n: int) -> str:
            return cls.__name__ * n

        @staticmethod
        @rpc
        async def static_stream(n: int) -> AsyncIterator[int]:
            yield n

    table = MethodTable.of(Service())
    assert await call(table, "add", 1) == 4
    assert await call(table, "static", 5) == 5
    assert await call(table, "of_class", 2) == "ServiceService"
    assert [each async for each in await call(table, "ticks")] == [3]
    assert [each async for each in await call(table, "static_stream", 8)] == [8]
    assert [each.name for each in table["static"].parameters] == ["n"]
    assert [each.name for each in table["of_class"].parameters] == ["n"]


async def test_a_decorator_above_the_mark_runs() -> None:
    def doubled(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*args: Any) -> Any:
            return 2 * await function(*args)

        return wrapper

    class Service:
        @doubled
        @rpc
        async def above(self, n: int) -> int:
            return n

        @rpc
        @doubled
        async def below(self, n: int) -> int:
            return n

    table = MethodTable.of(Service())
    assert await call(table, "above", 4) == 8
    assert await call(table, "below", 4) == 8
    assert table["above"].parameters == table["below"].parameters == (Parameter("n", int),)


def test_a_contracts_methods_have_no_function() -> None:
    table = MethodTable.of_contract(Market)
    assert sorted(table) == ["history.query", "price", "ticks"]
    assert all(each.function is None for each in table.values())


# Properties


class Settings:
    def __init__(self) -> None:
        self.value = "dark"

    @property
    @rpc
    def theme(self) -> str:
        """The theme."""
        return self.value

    @theme.setter
    def theme(self, value: str) -> None:
        self.value = value

    @property
    @rpc
    async def size(self) -> int:
        return 5

    @property
    @rpc
    def untyped(self): ...

    @untyped.setter
    def untyped(self, value: int) -> None: ...

    @property
    @rpc
    def silent(self): ...

    @silent.setter
    def silent(self, value) -> None: ...


async def test_properties_are_read_and_written() -> None:
    settings = Settings()
    table = MethodTable.of({"settings": settings})
    theme = table["settings.theme"]
    assert (theme.is_property, theme.writable, theme.doc) == (True, True, "The theme.")
    assert theme.result_type == str | None
    assert await call(table, "settings.theme") == "dark"
    assert await call(table, "settings.theme", "light") is None
    assert settings.value == "light"
    size = table["settings.size"]
    assert (size.is_property, size.writable, size.parameters) == (True, False, ())
    assert await call(table, "settings.size") == 5
    assert table["settings.untyped"].parameters[0].annotation is int
    assert table["settings.silent"].parameters[0].annotation is Any
    assert MethodTable.of_contract(Settings)["theme"].function is None


async def test_an_overridden_property() -> None:
    class Mine(Settings):
        @property  # type: ignore[misc]
        def theme(self):
            return "mine"

    table = MethodTable.of(Mine())
    assert not table["theme"].writable
    assert table["theme"].result_type is str
    assert await call(table, "theme") == "mine"


# Mappings


async def add(a: int, b: int) -> int:
    return a + b


async def count(n: int) -> AsyncIterator[int]:
    yield n


@asynccontextmanager
async def opened() -> AsyncIterator[int]:
    yield 1


class Callable_:  # noqa: N801
    def __call__(self, a: int) -> int:
        return a


async def test_functions_in_a_mapping_are_exposed_by_being_in_it() -> None:
    table = MethodTable.of(
        {
            "math": {"add": add, "sqrt": math.sqrt, "max": max, "count": count},
            "data": History(),
            "opened": opened,
            "sync": lambda a, b=5: a + b,
            "partial": functools.partial(add, 1),
            "object": Callable_(),
            "partial_method": functools.partial(Market().price, "ACME"),
            "method": Market().price,
            "marked": rpc(name="ignored", cleanup=2.0)(lambda: 1),
            "stream": Market().ticks,
        }
    )
    assert await call(table, "math.add", 1, 2) == 3
    assert await call(table, "math.sqrt", 4.0) == 2.0
    assert await call(table, "math.max", 4, 5) == 5
    assert [each.kind.name for each in table["math.max"].parameters] == [
        "VAR_POSITIONAL",
        "VAR_KEYWORD",
    ]
    assert table["math.count"].kind is Kind.SERVER_STREAM
    assert table["math.count"].result_type is int
    assert await call(table, "data.query", 3) == [3]
    assert table["opened"].kind is Kind.CONTEXT
    assert await call(table, "sync", 1) == 6
    assert await call(table, "partial", 2) == 3
    assert table["partial"].parameters == (Parameter("b", int),)
    assert await call(table, "object", 2) == 2
    assert table["partial_method"].result_type is float
    assert await call(table, "partial_method") == 4.0
    assert await call(table, "method", "abc") == 3.0
    assert table["method"].parameters == (Parameter("symbol", str),)
    assert await call(table, "marked") == 1
    assert table["marked"].options.cleanup == 2.0
    assert table["stream"].result_type is Tick
    assert isinstance(await call(table, "stream", "a"), AsyncGenerator)
    assert repr(MethodTable.of({"add": add})) == "<MethodTable the mapping: add>"
    assert table.namespaces["math"].label == "the mapping math"


async def test_a_bound_override_in_a_mapping_is_as_its_contract_says() -> None:
    table = MethodTable.of({"price": Direct().price, "made": Users.make})  # type: ignore[attr-defined]
    assert table["price"].result_type is float
    assert table["price"].parameters[0].annotation is str
    assert await call(table, "made", 2) == "Users2"


class Made:
    @classmethod
    def make(cls, n: int) -> str:
        return f"{cls.__name__}{n}"


Users.make = classmethod(Made.make.__func__)  # type: ignore[attr-defined]


# Namespaces


class Holder:
    """Has no methods: an attribute of this kind is not nested unless it is declared."""

    market: History

    def __init__(self) -> None:
        self.market = History()


class Declared:
    holder: Holder

    def __init__(self) -> None:
        self.holder = Holder()


class Api:
    history: Optional[History]  # noqa: UP045
    unset: History | None = None
    number: int = 5
    shared: ClassVar = History()
    names: ClassVar[dict[str, History]] = {}
    _private: History
    missing_elsewhere: Final[Missing] = None

    def __init__(self) -> None:
        self.history = History()
        self.market = Market()
        self._hidden = Market()
        self.other = Empty()
        self.holder = Holder()


@attrs.define
class Slotted:
    history: History
    n: int = 0


class OneSlot:
    __slots__ = "history"

    def __init__(self) -> None:
        self.history = History()


def test_namespaces_of_a_service() -> None:
    assert names(Api()) == [
        "history.query",
        "market.history.query",
        "market.price",
        "market.ticks",
        "shared.query",
    ]
    assert names(Declared()) == ["holder.market.query"]
    assert names(Slotted(History())) == ["history.query"]
    assert names(OneSlot()) == ["history.query"]


def test_namespaces_of_a_contract() -> None:
    table = MethodTable.of_contract(Market)
    assert list(table.namespaces) == ["history"]
    history = table.namespaces["history"]
    assert history.attributes["query"].name == "history.query"
    assert history["query"] is table["history.query"]
    assert len(history) == 1
    assert list(table.attributes) == ["price", "ticks"]


class Renamed:
    history: History

    @rpc(name="cost")
    async def price(self) -> int: ...


def test_a_renamed_method_has_both_names() -> None:
    table = MethodTable.of_contract(Renamed)
    assert table.attributes["price"] is table["cost"]
    assert "price" not in table


def test_a_namespace_that_is_not_there() -> None:
    with pytest.raises(TypeError, match=r"Renamed\.history is annotated as History, whose methods"):
        MethodTable.of(Renamed())


def test_a_contract_says_which_attribute_it_cannot_read() -> None:
    with pytest.raises(TypeError, match=r"Api\.missing_elsewhere: its annotation cannot be"):
        MethodTable.of_contract(Api)


class Tree:
    left: Tree
    pair: Pair

    @rpc
    async def value(self) -> int: ...


class Pair:
    tree: Tree
    repository: Repository[Tick]


class OnlyNamespaces:
    pair: Pair


def test_a_contract_that_holds_itself_ends() -> None:
    table = MethodTable.of_contract(Tree)
    assert "value" in table
    assert "pair.repository.get" in table
    assert "left.value" not in table
    assert "pair.tree.value" not in table
    assert table["pair.repository.get"].result_type is Tick
    assert "pair.tree.value" in MethodTable.of_contract(OnlyNamespaces)


class Node:
    parent: Node | None = None

    def __init__(self) -> None:
        self.children = History()

    @rpc
    async def value(self) -> int: ...


def test_a_child_that_knows_its_parent_ends() -> None:
    root, child = Node(), Node()
    root.child = child  # type: ignore[attr-defined]
    child.parent = root
    assert names(root) == ["child.children.query", "child.value", "children.query", "value"]
    assert names(child) == ["children.query", "parent.children.query", "parent.value", "value"]


def test_a_table_is_a_mapping() -> None:
    table = MethodTable.of(Market())
    assert len(table) == 3
    assert dict(table)["price"] is table["price"]
    assert table.get("x") is None
    assert isinstance(table["price"], Method)
    assert repr(table) == "<MethodTable Market: price, ticks, history.query>"
    with pytest.raises(TypeError):
        table.attributes["x"] = table["price"]  # type: ignore[index]
