"""How the other side is called: by name, by contract, and by writing it down as if it were here."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
import trio

from tests.runtime.ends import open_ends, quiet
from trio_streamrpc import Unimplemented, Window, rpc


class History:
    @rpc
    async def query(self, since: int, *, limit: int = 10) -> list[int]:
        """What was."""
        return list(range(since, since + limit))

    @rpc
    async def all(self) -> AsyncIterator[int]:
        for number in range(5):
            yield number


class Market:
    history: History

    def __init__(self) -> None:
        self.history = History()
        self.log: list[str] = []
        self._theme = "dark"

    @rpc
    async def price(self, symbol: str) -> float:
        """The price."""
        return float(len(symbol))

    @rpc(name="renamed")
    async def original(self) -> int:
        return 1

    @rpc(window=Window(3, 1000))
    async def ticks(self, symbol: str) -> AsyncIterator[str]:
        try:
            while True:
                yield symbol
        finally:
            self.log.append("finally")

    @property
    @rpc
    def theme(self) -> str:
        return self._theme

    @theme.setter
    def theme(self, value: str) -> None:
        self._theme = value

    @rpc
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[int]:
        yield 1


class AsProtocol(Protocol):
    @rpc
    async def price(self, symbol: str) -> float: ...

    @rpc
    async def ticks(self, symbol: str) -> AsyncIterator[str]: ...


class AsAbstract(ABC):
    @rpc
    @abstractmethod
    async def price(self, symbol: str) -> float: ...


async def test_a_typed_proxy(autojump_clock):
    service = Market()
    async with open_ends(service) as ends:
        market = ends.client.proxy(Market)
        assert await market.price("ACME") == 4.0
        assert await market.original() == 1
        async with market.ticks("X") as ticks:
            assert await ticks.receive() == "X"
            await quiet()
        assert service.log == ["finally"]
        assert ends.up.sent("call")[-1]["window"] == {"items": 3, "bytes": 1000}


async def test_contracts_of_all_kinds(autojump_clock):
    async with open_ends(Market()) as ends:
        assert await ends.client.proxy(AsProtocol).price("ACME") == 4.0
        assert await ends.client.proxy(AsAbstract).price("ACME") == 4.0
        async with ends.client.proxy(AsProtocol).ticks("X") as ticks:
            assert await ticks.receive() == "X"
        with pytest.raises(TypeError, match="has no @rpc method"):
            ends.client.proxy(dict)
        with pytest.raises(TypeError, match="a contract is a class"):
            ends.client.proxy(Market())  # type: ignore[arg-type]


async def test_namespaces(autojump_clock):
    async with open_ends(Market()) as ends:
        market = ends.client.proxy(Market)
        assert await market.history.query(3, limit=2) == [3, 4]
        assert [item async for item in market.history.all()] == [0, 1, 2, 3, 4]
        assert await ends.client.call("history.query", 1, limit=1) == [1]
        assert await ends.client.api.history.query(1, limit=1) == [1]


async def test_what_a_proxy_shows(autojump_clock):
    async with open_ends(Market()) as ends:
        market = ends.client.proxy(Market)
        assert repr(market) == "<proxy of Market>"
        assert market.price.__name__ == "Market.price"
        assert market.price.__doc__ == "The price."
        assert market.history.query.__doc__ == "What was."
        assert {"price", "original", "ticks", "history"} <= set(vars(market))
        with pytest.raises(AttributeError, match="Market has no @rpc method 'prise'"):
            market.prise  # type: ignore[attr-defined]  # noqa: B018
        with pytest.raises(AttributeError, match="holds nothing but its methods"):
            market.extra = 1  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match="holds nothing but its methods"):
            market.theme = "light"


async def test_an_await_that_was_forgotten(autojump_clock):
    """The warning, and who prints what should have been awaited, say which method it was."""
    async with open_ends(Market()) as ends:
        coroutine = ends.client.proxy(Market).price("ACME")
        assert repr(coroutine).startswith("<coroutine object Market.price at ")
        with pytest.warns(RuntimeWarning, match=r"coroutine 'Market\.price' was never awaited"):
            del coroutine


async def test_properties(autojump_clock):
    """Through a typed proxy one cannot await, so it says how it is read."""
    async with open_ends({"settings": Market()}) as ends:

        class Contract:
            settings: Market

        api = ends.client.proxy(Market)
        with pytest.raises(AttributeError, match=r"use await connection.call\('theme'\)"):
            api.theme  # noqa: B018
        assert await ends.client.call("settings.theme") == "dark"
        assert await ends.client.call("settings.theme", "light") is None
        assert await ends.client.call("settings.theme") == "light"


async def test_arguments_that_do_not_fit_are_told_before_anything_is_sent(autojump_clock):
    async with open_ends(Market()) as ends:
        market = ends.client.proxy(Market)
        with pytest.raises(TypeError, match="missing 1 required argument"):
            await market.price()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="missing 1 required argument"):
            market.ticks()  # type: ignore[call-arg]
        assert ends.up.sent("call") == []


async def test_a_dynamic_proxy(autojump_clock):
    service = Market()
    async with open_ends(service) as ends:
        api = ends.client.api
        assert await api.price("ACME") == 4.0
        assert [item async for item in api.history.all()] == [0, 1, 2, 3, 4]
        async with api.ticks("X") as ticks:
            assert await ticks.receive() == "X"
        assert service.log == ["finally"]
        with pytest.raises(ZeroDivisionError):
            async with api.ticks("X"):
                raise ZeroDivisionError
        async for _ in api.ticks("X"):
            break
        await quiet()
        assert len(service.log) in (2, 3)  # the second may not have begun
        assert repr(api) == "<remote service>"
        assert repr(api.history.query) == "<remote history.query>"
        call = api.price("ACME")
        assert repr(call) == "<call of price: await it, iterate over it, or enter it>"
        assert await call == 4.0
        with pytest.raises(AttributeError):
            api.__wrapped__  # noqa: B018
        with pytest.raises(Unimplemented, match=r"no method '_private\.x'"):
            await api._private.x()


async def test_a_dynamic_call_that_nobody_makes(autojump_clock):
    """As Python tells of a coroutine that was never awaited."""

    def forget(api: Any) -> None:
        api.price("ACME")
        gc.collect()

    service = Market()
    async with open_ends(service) as ends:
        said = r"^the call of price was never awaited, iterated over or entered$"
        with pytest.warns(RuntimeWarning, match=said):
            forget(ends.client.api)
        await quiet()
        assert ends.up.sent("call") == []


async def test_options_and_arguments_of_the_same_name(autojump_clock):
    """A method may have a parameter called as an option is: a dynamic call has no options."""

    class Windows:
        @rpc
        async def glass(self, window: int, method: str = "") -> list[Any]:
            return [window, method]

        @rpc
        async def panes(self, window: int) -> AsyncIterator[int]:
            for number in range(window):
                yield number

    async with open_ends(Windows()) as ends:
        assert await ends.client.api.glass(window=3, method="m") == [3, "m"]
        assert await ends.client.call("glass", window=3, method="m") == [3, "m"]
        assert [item async for item in ends.client.api.panes(window=3)] == [0, 1, 2]
        async with ends.client.api.panes(window=2) as panes:
            assert [item async for item in panes] == [0, 1]
        api = ends.client.proxy(Windows)
        assert [item async for item in api.panes(window=3)] == [0, 1, 2]
        assert [item async for item in ends.client.stream("panes", 1, window=Window(1, 1))] == [0]
        with pytest.raises(TypeError, match="must be a Window, not 3"):
            ends.client.stream("panes", window=3)  # type: ignore[arg-type]


async def test_calls_in_both_directions(autojump_clock):
    async with open_ends(Market(), serving=History()) as ends:
        assert await ends.server.proxy(History).query(1, limit=1) == [1]
        async with ends.server.proxy(History).all() as stream:
            assert await stream.receive() == 0
        results: list[Any] = []

        async def call(side: Any, name: str, *args: Any) -> None:
            results.append(await side.call(name, *args))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(call, ends.client, "price", "abc")
                nursery.start_soon(call, ends.server, "query", 1)
        assert len(results) == 40
        # R5: the ids of each side have its parity.
        assert all(frame["id"] % 2 == 1 for frame in ends.up.sent("call"))
        assert all(frame["id"] % 2 == 0 for frame in ends.down.sent("call"))
