"""The API as its users see it: one service with every shape of call, over a WebSocket."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from trio_streamrpc import (
    Connection,
    NotFound,
    RemoteError,
    Stream,
    Window,
    batched,
    connect,
    current_call,
    rpc,
    serve,
    with_options,
)


@dataclass
class Tick:
    symbol: str
    price: float


class NoSuchSymbol(Exception):
    def __init__(self, symbol: str) -> None:
        super().__init__(symbol)


class Transaction:
    """What a transaction lets its caller do."""

    def __init__(self, accounts: dict[str, int]) -> None:
        self._accounts = accounts

    @rpc
    async def debit(self, who: str, amount: int) -> int:
        self._accounts[who] = self._accounts.get(who, 0) - amount
        return self._accounts[who]

    @rpc
    async def statement(self) -> AsyncIterator[tuple[str, int]]:
        for each in self._accounts.items():
            yield each


class History:
    @rpc
    async def query(self, symbol: str, *, limit: int = 2) -> list[Tick]:
        return [Tick(symbol, float(number)) for number in range(limit)]


class Settings:
    _theme = "dark"

    @property
    @rpc
    def theme(self) -> str:
        return self._theme

    @theme.setter
    def theme(self, value: str) -> None:
        self._theme = value


class Market:
    history: History
    settings: Settings

    def __init__(self) -> None:
        self.history = History()
        self.settings = Settings()
        self.accounts: dict[str, int] = {}
        self.events: list[str] = []
        self.logged = trio.Event()

    @rpc(errors=(NoSuchSymbol,))
    async def price(self, symbol: str) -> float:
        if symbol != "ACME":
            raise NoSuchSymbol(symbol)
        return 99.5

    @rpc(window=Window(items=8))
    async def ticks(self, symbol: str) -> AsyncIterator[Tick]:
        try:
            price = 95.0
            while True:
                yield Tick(symbol, price)
                price += 1
        finally:
            self.events.append("ticks closed")

    @rpc
    async def ingest(self, ticks: AsyncIterable[Tick]) -> int:
        count = 0
        async for _ in ticks:
            count += 1
        return count

    @rpc
    async def highest(self, ticks: Stream[Tick]) -> float:
        found = -math.inf
        async for batch in ticks.batches():
            found = max(found, *(tick.price for tick in batch), -math.inf)
        return found

    @rpc
    async def chat(self, inbox: AsyncIterable[str]) -> AsyncIterator[str]:
        async for message in inbox:
            yield f"you said {message}"

    @rpc
    async def build(self, target: str, progress: Callable[[float], Awaitable[None]]) -> str:
        await progress(0.5)
        await progress(1.0)
        return f"{target} built"

    @rpc
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        accounts = dict(self.accounts)
        try:
            yield Transaction(accounts)
        except BaseException:
            self.events.append("rolled back")
            raise
        self.accounts = accounts
        self.events.append("committed")

    @rpc
    async def watch(
        self, symbol: str, *, task_status: trio.TaskStatus[float] = trio.TASK_STATUS_IGNORED
    ) -> None:
        try:
            task_status.started(99.5)
            await trio.sleep_forever()
        finally:
            self.events.append(f"no longer watching {symbol}")

    @rpc(oneway=True)
    async def log(self, line: str) -> None:
        self.events.append(f"{current_call().metadata.get('user')}: {line}")
        self.logged.set()

    @rpc
    async def whoami(self) -> dict[str, Any]:
        call = current_call()
        return {"method": call.method, **call.metadata, "agent": call.headers.get("user-agent")}

    @rpc
    async def rows(self, count: int) -> AsyncIterator[list[int]]:
        async def numbers() -> AsyncIterator[int]:
            for number in range(count):
                yield number

        async with batched(numbers(), max_items=4) as batches:
            async for batch in batches:
                yield batch

    @rpc
    async def ask_back(self, question: str) -> str:
        return await current_call().connection.proxy(ClientSide).answer(question)


class ClientSide:
    @rpc
    async def answer(self, question: str) -> str:
        return f"{question} Yes."


@asynccontextmanager
async def market(service: Market, **options: Any) -> AsyncIterator[Connection]:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, service, "ws://127.0.0.1:0")
        async with connect(server.url, **options) as connection:
            yield connection
        nursery.cancel_scope.cancel()


@pytest.fixture
async def service() -> Market:
    return Market()


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_calls_and_streams(encoding: str, service: Market) -> None:
    async with market(service, encoding=encoding) as connection:
        api = connection.proxy(Market)
        assert await api.price("ACME") == 99.5
        with pytest.raises(NoSuchSymbol, match="OTHER"):
            await api.price("OTHER")
        async with api.ticks("ACME") as ticks:
            async for tick in ticks:
                if tick.price > 100:
                    break
        assert service.events == ["ticks closed"]
        assert tick == Tick("ACME", 101.0)
        assert await api.history.query("ACME", limit=1) == [Tick("ACME", 0.0)]


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_uploads(encoding: str, service: Market) -> None:
    async def some(count: int) -> AsyncIterator[Tick]:
        for number in range(count):
            yield Tick("ACME", float(number))

    async with market(service, encoding=encoding) as connection:
        api = connection.proxy(Market)
        assert await api.ingest(some(1000)) == 1000
        send, receive = trio.open_memory_channel[Tick](10)
        async with send:
            for number in range(3):
                send.send_nowait(Tick("ACME", float(number)))
        # For a type checker it takes a Stream, since its handler asks for batches.
        assert await connection.call("highest", receive) == 2.0
        # One stream into another: the ticks of the service, back to it.
        async with api.ticks("ACME") as ticks, trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[Tick](0)

            async def forward() -> None:
                async with send:
                    for _ in range(5):
                        await send.send(await ticks.receive())

            nursery.start_soon(forward)
            assert await api.ingest(receive) == 5


async def test_both_ways(service: Market) -> None:
    async with market(service) as connection:
        send, receive = trio.open_memory_channel[str](0)
        async with connection.proxy(Market).chat(receive) as replies:
            await send.send("hello")
            assert await replies.receive() == "you said hello"
            await send.send("bye")
            assert await replies.receive() == "you said bye"
            send.close()
            with pytest.raises(trio.EndOfChannel):
                await replies.receive()


async def test_a_callback(service: Market) -> None:
    seen: list[float] = []

    async def progress(done: float) -> None:
        seen.append(done)

    async with market(service) as connection:
        assert await connection.proxy(Market).build("docs", progress) == "docs built"
    assert seen == [0.5, 1.0]


async def test_a_remote_context(service: Market) -> None:
    async with market(service) as connection:
        api = connection.proxy(Market)
        async with api.transaction() as tx:
            assert await tx.debit("alice", 5) == -5
            async with tx.statement() as lines:
                assert [each async for each in lines] == [("alice", -5)]
        assert service.accounts == {"alice": -5}
        with pytest.raises(NotFound):
            await tx.debit("alice", 5)
        with pytest.raises(ZeroDivisionError):
            async with api.transaction() as tx:
                await tx.debit("alice", 100)
                raise ZeroDivisionError
        assert service.accounts == {"alice": -5}
    assert service.events == ["committed", "rolled back"]


async def test_a_remote_task(service: Market) -> None:
    async with market(service) as connection:
        async with trio.open_nursery() as nursery:
            price = await nursery.start(connection.proxy(Market).watch, "ACME")
            assert price == 99.5
            assert service.events == []
            nursery.cancel_scope.cancel()
    assert service.events == ["no longer watching ACME"]


async def test_options(service: Market) -> None:
    async with market(service, metadata={"app": "test"}) as connection:
        api = with_options(connection.proxy(Market), metadata={"user": "ada"}, priority=5)
        await api.log("hello")
        await service.logged.wait()
        assert service.events == ["ada: hello"]
        assert await api.whoami() == {
            "method": "whoami", "app": "test", "user": "ada", "agent": None
        }  # fmt: skip
        async with with_options(api, window=Window(items=3)).ticks("ACME") as ticks:
            assert ticks.statistics().window == Window(items=3)


async def test_batches(service: Market) -> None:
    async with market(service) as connection, connection.proxy(Market).rows(10) as rows:
        assert [each async for each in rows] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_without_a_contract(service: Market) -> None:
    async with market(service, serving=ClientSide()) as connection:
        assert await connection.call("price", "ACME") == 99.5
        assert await connection.api.history.query("ACME", limit=0) == []
        assert await connection.call("settings.theme") == "dark"
        await connection.call("settings.theme", "light")
        assert service.settings.theme == "light"
        with pytest.raises(AttributeError, match=r"use await connection\.call"):
            connection.proxy(Market).settings.theme  # noqa: B018
        async with connection.stream("ticks", "ACME") as ticks:
            assert (await ticks.receive())["price"] == 95.0
        async with connection.context("transaction") as tx:
            assert await tx.debit("alice", 1) == -1
        assert await connection.call("ask_back", "Really?") == "Really? Yes."
        with pytest.raises(RemoteError, match="NoSuchSymbol"):
            await connection.call("price", "OTHER")


async def test_called_locally_it_is_the_same() -> None:
    service = Market()
    async with service.ticks("ACME") as ticks:
        assert (await ticks.receive()).price == 95.0
    assert service.events == ["ticks closed"]
