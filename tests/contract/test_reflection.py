"""The namespace ``streamrpc``: a table that describes itself."""

from __future__ import annotations

from typing import Any

import pytest

from trio_streamrpc.contract.decorators import rpc
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import Payloads
from trio_streamrpc.contract.reflection import with_reflection


class History:
    @rpc
    async def query(self) -> int:
        return 1


class Market:
    def __init__(self) -> None:
        self.history = History()

    @rpc
    async def price(self, symbol: str) -> float:
        return 1.0


async def nothing() -> None:
    pass


async def test_the_table_with_reflection() -> None:
    table = MethodTable.of(Market())
    whole = with_reflection(table, Payloads("json"))
    assert set(whole) == {"price", "history.query", "streamrpc.describe"}
    assert set(table) == {"price", "history.query"}, "the service's own table stays as it is"
    describe = whole["streamrpc.describe"].function
    assert describe is not None
    found: dict[str, Any] = await describe()
    assert [each["name"] for each in found["methods"]] == [
        "price",
        "history.query",
        "streamrpc.describe",
    ]
    assert found["methods"][-1]["doc"].startswith("Tell every method that is served")
    assert await describe() is found, "it is made once"


@pytest.mark.parametrize(
    "service",
    [
        {"streamrpc": {"describe": nothing}},
        {"streamrpc": History()},
        {"streamrpc": nothing, "more": nothing},
    ],
)
def test_a_namespace_of_that_name(service: object) -> None:
    table = MethodTable.of(service)
    with pytest.raises(TypeError, match=r"has a 'streamrpc' of its own, .*without reflection"):
        with_reflection(table, Payloads("json"))


def test_a_method_that_is_called_so_on_the_wire() -> None:
    class Service:
        @rpc(name="streamrpc")
        async def it(self) -> None: ...

    with pytest.raises(TypeError, match=r"Service has a 'streamrpc' of its own"):
        with_reflection(MethodTable.of(Service()), Payloads("json"))


def test_a_name_that_only_begins_so() -> None:
    table = MethodTable.of({"streamrpc2": nothing})
    assert "streamrpc.describe" in with_reflection(table, Payloads("json"))
