"""What a type checker makes of contracts and of calls through a proxy.

mypy and pyright both read this file (``test_types.py``); nothing of it runs. A line that ends with
``# error`` must be an error for both, ``# mypy: error`` and ``# pyright: error`` for one of them,
and no other line may be.
"""

# pyright: strict
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar, assert_type

import trio

from trio_streamrpc.contract.decorators import rpc
from trio_streamrpc.interceptors import limit_concurrency, limit_rate, log_calls
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.process import serve_forever
from trio_streamrpc.runtime.calls import Call
from trio_streamrpc.runtime.interceptors import Interceptor, Proceed
from trio_streamrpc.runtime.proxies import DynamicProxy, with_options
from trio_streamrpc.runtime.streams import Stream

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Tick:
    size: int = 0


class NoSuchSymbol(Exception):
    pass


class Transaction(Protocol):
    @rpc
    async def debit(self, account: str, amount: int) -> None: ...


class Ledger(Protocol):
    @rpc
    async def entries(self) -> AsyncIterator[Tick]: ...

    @rpc
    @asynccontextmanager
    async def transaction(self, name: str) -> AsyncGenerator[Transaction, None]:
        raise NotImplementedError
        yield

    @rpc
    async def audit(
        self, depth: int, task_status: trio.TaskStatus[Transaction] = trio.TASK_STATUS_IGNORED
    ) -> None: ...


class History(Protocol):
    @rpc
    async def query(self, since: int) -> list[Tick]: ...


class Market(Protocol):
    """A contract: no bodies."""

    history: History

    @rpc
    async def price(self, symbol: str, at: int = 0) -> float: ...

    @rpc
    def sync(self, symbol: str) -> float: ...

    @rpc(name="quote", errors=(NoSuchSymbol,), cleanup=1.0, strict=True)
    async def renamed(self, symbol: str) -> Tick: ...

    @rpc
    async def ticks(self, symbol: str, *, depth: int = 1) -> AsyncIterator[Tick]: ...

    @rpc
    async def iterable(self) -> AsyncIterable[Tick]: ...

    @rpc
    async def generator(self) -> AsyncGenerator[Tick, None]: ...

    @rpc(window=Window(8, 1024))
    async def windowed(self, symbol: str) -> AsyncIterator[Tick]: ...

    @rpc
    def returned(self, symbol: str) -> AsyncIterator[Tick]: ...

    @rpc
    async def ingest(self, ticks: AsyncIterable[Tick]) -> int: ...

    @rpc
    async def chat(self, inbox: AsyncIterable[str]) -> AsyncIterator[str]: ...

    @rpc
    async def build(self, target: str, progress: Callable[[float], Awaitable[None]]) -> str: ...

    @rpc(oneway=True)
    async def notify(self, symbol: str) -> None: ...

    @rpc
    def declared(self) -> AbstractAsyncContextManager[Transaction]: ...

    @rpc
    def ledger(self, name: str | None = None) -> AbstractAsyncContextManager[Ledger]: ...

    @rpc(errors=(NoSuchSymbol,), cleanup=1.0)
    def optional(self) -> AbstractAsyncContextManager[Ledger | None]: ...

    @property
    @rpc
    def theme(self) -> str: ...


class Service:
    """An implementation: bodies."""

    @rpc
    async def price(self, symbol: str) -> float:
        return float(len(symbol))

    @rpc
    async def ticks(self, symbol: str) -> AsyncIterator[Tick]:
        yield Tick()

    @rpc()
    async def generator(self) -> AsyncGenerator[Tick, None]:
        yield Tick()

    @rpc
    @asynccontextmanager
    async def transaction(self, account: str) -> AsyncGenerator[Tick, None]:
        yield Tick()

    @staticmethod
    @rpc
    async def static(n: int) -> AsyncIterator[int]:
        yield n

    @classmethod
    @rpc
    async def of_class(cls, n: int) -> str:
        return cls.__name__ * n

    @rpc
    async def anything(self, n: int) -> Any:
        return n

    @rpc
    async def optional(self) -> Tick | None:
        return None


class Repository(Protocol[T_co]):
    @rpc
    async def get(self, id: int) -> T_co: ...

    @rpc
    async def all(self) -> AsyncIterator[T_co]: ...


class Loose(Protocol):
    """Any in a method's types: pyright is exact, and mypy takes a stream of them for Any."""

    @rpc
    async def result(self, n: int) -> Any: ...

    @rpc
    def sync(self, n: int) -> Any: ...

    @rpc
    async def argument(self, options: dict[str, Any]) -> int: ...

    @rpc
    async def stream(self, n: int) -> AsyncIterator[dict[str, Any]]: ...

    @rpc(strict=True)
    async def stream_of(self, options: dict[str, Any]) -> AsyncIterator[Tick]: ...


class Abstract(ABC):
    """A contract whose methods have to be overridden."""

    @rpc
    @abstractmethod
    async def price(self, symbol: str) -> float: ...

    @rpc
    @abstractmethod
    async def ticks(self, symbol: str) -> AsyncIterator[Tick]: ...


class Implementation(Abstract):
    async def price(self, symbol: str) -> float:
        return 1.0

    @rpc
    async def ticks(self, symbol: str) -> AsyncIterator[Tick]:
        yield Tick()


class WithoutMark(Abstract):
    """A mark makes a stream of a method for a type checker, so an override of one needs it too."""

    async def price(self, symbol: int) -> float:  # error
        return 1.0

    async def ticks(self, symbol: str) -> AsyncIterator[Tick]:  # error
        yield Tick()


class Box(Generic[T]):
    @rpc
    async def items(self, item: T) -> AsyncIterator[T]:
        yield item


def proxy(contract: Callable[..., T]) -> T:
    """As ``Connection.proxy`` is declared: Protocols and abstract classes have to go through."""
    raise NotImplementedError


async def calls_through_a_contract() -> None:
    market = proxy(Market)
    assert_type(market, Market)
    assert_type(await market.price("ACME"), float)
    assert_type(await market.price("ACME", at=5), float)
    assert_type(market.sync("ACME"), float)
    assert_type(await market.renamed("ACME"), Tick)
    assert_type(market.ticks("ACME"), Stream[Tick])
    assert_type(market.ticks("ACME", depth=5), Stream[Tick])
    assert_type(market.iterable(), Stream[Tick])
    assert_type(market.generator(), Stream[Tick])
    assert_type(market.windowed("ACME"), Stream[Tick])
    assert_type(market.returned("ACME"), Stream[Tick])
    assert_type(await market.history.query(3), list[Tick])
    assert_type(market.theme, str)
    async with market.ticks("ACME") as ticks:
        assert_type(ticks, Stream[Tick])
        assert_type(await ticks.receive(), Tick)
        async for tick in ticks:
            assert_type(tick, Tick)
        async for batch in ticks.batches():
            assert_type(batch, list[Tick])
    async for tick in market.ticks("ACME"):
        assert_type(tick.size, int)
    async with market.declared() as transaction:
        await transaction.debit("alice", 5)


async def contexts(market: Market) -> None:
    assert_type(market.ledger("main"), AbstractAsyncContextManager[Ledger])
    async with market.ledger() as ledger:
        assert_type(ledger, Ledger)
        assert_type(ledger.entries(), Stream[Tick])
        async with ledger.transaction("one") as transaction:
            assert_type(transaction, Transaction)
            assert_type(await transaction.debit("alice", 5), None)
            await transaction.debit("alice", "5")  # error
        ledger.transaction()  # error
        await ledger.absent()  # error
    async with market.optional() as found:
        assert_type(found, Ledger | None)
        found.entries()  # error
    market.ledger(5)  # error
    await market.ledger()  # error
    with market.ledger():  # error
        pass


async def tasks(ledger: Ledger, nursery: trio.Nursery) -> None:
    # What start() gives is Any, as of every function: Trio's types say no more.
    transaction: Transaction = await nursery.start(ledger.audit, 5)
    assert_type(await transaction.debit("alice", 5), None)
    nursery.start_soon(ledger.audit, 5)
    nursery.start_soon(ledger.audit, "5")  # error
    await ledger.audit(5)
    await ledger.audit("5")  # error
    await nursery.start(ledger.entries)  # error


async def calls_of_an_abstract_class() -> None:
    api = proxy(Abstract)
    assert_type(await api.price("ACME"), float)
    assert_type(api.ticks("ACME"), Stream[Tick])
    assert_type(Implementation().ticks("ACME"), Stream[Tick])
    Abstract()  # error


async def calls_with_any(loose: Loose) -> None:
    assert_type(await loose.result(5), Any)
    assert_type(loose.sync(5), Any)
    assert_type(await loose.argument({}), int)
    await loose.argument(5)  # error
    async with loose.stream(5) as items:
        async for item in items:
            assert_type(item["x"], Any)
    assert_type(loose.stream(5), Stream[dict[str, Any]])  # mypy: error
    assert_type(loose.stream_of({}), Stream[Tick])  # mypy: error
    loose.stream("5")  # pyright: error
    await loose.result("5")  # pyright: error


async def uploads_and_callbacks(market: Market, words: AsyncIterator[str]) -> None:
    assert_type(await market.ingest(market.ticks("ACME")), int)
    assert_type(market.chat(words), Stream[str])

    async def progress(done: float) -> None: ...

    assert_type(await market.build("all", progress), str)
    await market.build("all", print)  # error
    await market.ingest(words)  # error


async def callbacks_are_async_functions(market: Market) -> None:
    class Display:
        async def show(self, done: float) -> None: ...

        async def __call__(self, done: float) -> None: ...

    async def text(done: str) -> None: ...

    def sync(done: float) -> None: ...

    await market.build("all", Display().show)
    await market.build("all", Display())
    await market.build("all", text)  # error
    await market.build("all", sync)  # error
    await market.build("all", None)  # error


async def calls_with_options(market: Market, api: DynamicProxy) -> None:
    assert_type(with_options(market, metadata={"a": 1}), Market)
    assert_type(with_options(market.history, window=Window(8, 1024)), History)
    assert_type(with_options(api, priority=5), DynamicProxy)
    assert_type(await with_options(market, metadata={}, priority=-5).price("ACME"), float)
    async with market.declared() as transaction:
        assert_type(with_options(transaction, metadata={}), Transaction)
    with_options(market, timeout=5)  # error
    with_options(market, metadata=5)  # error
    with_options(market, window=5)  # error
    with_options(market, priority="high")  # error
    with_options(market, {})  # error


async def oneway_calls(market: Market) -> None:
    assert_type(await market.notify("ACME"), None)
    await market.notify(5)  # error


async def calls_of_a_service() -> None:
    service = proxy(Service)
    assert_type(service, Service)
    assert_type(await service.price("ACME"), float)
    assert_type(service.ticks("ACME"), Stream[Tick])
    assert_type(service.generator(), Stream[Tick])
    async with service.transaction("alice") as tick:
        assert_type(tick, Tick)
    assert_type(service.static(5), Stream[int])
    assert_type(Service.static(5), Stream[int])
    assert_type(await service.of_class(5), str)
    assert_type(await service.optional(), Tick | None)
    assert_type(await service.anything(5), Any)
    assert_type(Service().ticks("ACME"), Stream[Tick])


async def generic_contracts(repository: Repository[Tick], box: Box[str]) -> None:
    assert_type(await repository.get(5), Tick)
    assert_type(repository.all(), Stream[Tick])
    assert_type(box.items("a"), Stream[str])
    box.items(5)  # error


async def mistakes(market: Market) -> None:
    await market.price()  # error
    await market.price(5)  # error
    await market.price("ACME", 5, 6)  # error
    await market.price("ACME", when=5)  # error
    await market.ticks("ACME")  # error
    market.ticks(5)  # error
    market.ticks("ACME", 5)  # error
    market.windowed("ACME", 5)  # error
    market.absent("ACME")  # error
    number: int = await market.price("ACME")  # error
    async with market.price("ACME"):  # error
        pass
    async for tick in market.ticks("ACME"):
        text: str = tick  # error
        del text
    del number


async def mistakes_with_a_service(service: Service) -> None:
    service.transaction()  # error
    service.static("5")  # error
    await service.of_class("5")  # error


async def timing(call: Call, proceed: Proceed) -> Any:
    assert_type(call.method, str)
    assert_type(call.arguments, Mapping[int | str, Any])
    assert_type(call.replace(args=[5], metadata={"token": "x"}), Call)
    await proceed()
    await proceed(call.replace(kwargs={"at": 5}))
    await proceed(5)  # error
    await proceed(call, call)  # error
    call.replace(args=5)  # error
    call.replace(method="other")  # error
    call.method = "other"  # error
    return await proceed(call)


async def any_proceed(call: Call, proceed: Callable[..., Awaitable[Any]]) -> list[int]:
    return [await proceed()]


class Counting:
    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        return await proceed()


def not_async(call: Call, proceed: Proceed) -> int:
    return 5


async def of_one(call: Call) -> Any: ...


def interceptors() -> None:
    ready = [log_calls(), limit_concurrency(5), limit_rate(5)]
    assert_type(ready, list[Interceptor])
    found: Sequence[Interceptor] = [timing, any_proceed, Counting(), *ready]
    found = [not_async]  # error
    found = [of_one]  # error
    found = [Counting]  # error
    del found
    log_calls(level="DEBUG")
    limit_concurrency({"history": 5}, per_method=False, refuse=True)
    limit_rate(0.5, burst=2, refuse=True)
    log_calls("name")  # error
    limit_concurrency("5")  # error
    limit_concurrency({"history": "5"})  # error
    limit_rate(5, 0.5)  # error


async def processes(service: Service) -> None:
    await serve_forever(service, "ws://127.0.0.1:0")
    await serve_forever(service, "ws://127.0.0.1:0", grace=5, limits=Limits(), mask_errors=True)
    await serve_forever(service, "ws://127.0.0.1:0", grace="5")  # error
    await serve_forever(service, "ws://127.0.0.1:0", limits=5)  # error
    await serve_forever(service, "ws://127.0.0.1:0", unknown=True)  # error


rpc(name=5)  # error
rpc(errors=(5,))  # error
rpc(window=5)  # error
rpc(unknown=True)  # error
