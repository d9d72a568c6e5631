"""described.py and methods.py: what a server says of itself, as people read it."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import Invoke, Served, serving
from trio_streamrpc.cli import methods
from trio_streamrpc.cli.described import Description, MethodInfo
from trio_streamrpc.cli.failures import Failure
from trio_streamrpc.contract.description import describe
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import Payloads


def info_of(function: Callable[..., Any]) -> MethodInfo:
    found = describe(MethodTable.of({"it": function}), Payloads("json"))
    return msgspec.convert(found, Description).methods[0]


def test_parameters_as_they_are_written() -> None:
    async def plain(a: int, b: str = "x") -> None: ...

    async def apart(a, /, b, *, c: int = 1, d: bool) -> None: ...

    async def many(*a: int, c: int, **d: str) -> None: ...

    async def only_by_place(a: int, /) -> None: ...

    async def others(
        items: AsyncIterable[int], notify: Callable[[float, str], Awaitable[bool]]
    ) -> None: ...

    assert info_of(plain).takes == "a: int, b: str = …"
    assert info_of(apart).takes == "a: Any, /, b: Any, *, c: int = …, d: bool"
    assert info_of(many).takes == "*a: int, c: int, **d: str"
    assert info_of(only_by_place).takes == "a: int, /"
    assert info_of(others).takes == "items: stream of int, notify: callback(float, str) -> bool"


def test_what_says_little() -> None:
    bare = msgspec.convert(
        {"name": "it", "kind": "unary", "parameters": [{"name": "a"}]}, MethodInfo
    )
    assert (bare.takes, bare.gives, bare.about) == ("a: Any", "Any", "")
    callback = {"name": "it", "kind": "x", "parameters": [{"name": "a", "role": "callback"}]}
    assert msgspec.convert(callback, MethodInfo).takes == "a: callback() -> Any"


def test_a_table_in_a_pipe(served: Served, invoke: Invoke) -> None:
    run = invoke("methods", served.url)
    assert (run.code, run.err) == (0, "")
    assert " \n" not in run.out
    lines = [line.split() for line in run.out.splitlines()]
    assert lines[0] == ["Method", "Kind", "Takes", "Gives", "About"]
    price = next(line for line in lines if line[:1] == ["price"])
    assert " ".join(price) == (
        "price unary symbol: str, *, at: float = … dict[str, Any] The price of a symbol."
    )
    assert ["Objects", "of", "Account:"] in lines
    assert ["debit", "unary", "amount:", "int", "int", "Take", "it."] in lines


def test_json(served: Served, invoke: Invoke) -> None:
    run = invoke("methods", served.url, "--json")
    assert (run.code, run.err) == (0, "")
    found = json.loads(run.out)
    assert {"price", "streamrpc.describe"} <= {each["name"] for each in found["methods"]}


def test_a_service_that_does_not_tell(silent: Served, invoke: Invoke) -> None:
    run = invoke("methods", silent.url)
    assert (run.code, run.out) == (1, "")
    assert run.err == ("Error: the service does not tell what it has: serve(…, reflection=True)\n")


def test_one_that_tells_something_else(invoke: Invoke) -> None:
    """It is believed no further than its shape; calls go on without it."""

    async def describe() -> Any:
        return {"methods": 5}

    async def it() -> int:
        return 5

    with serving({"streamrpc": {"describe": describe}, "it": it}) as served:
        run = invoke("methods", served.url)
        assert (run.code, run.out) == (1, "")
        assert run.err.startswith("Error: streamrpc.describe gives no description: ")
        run = invoke("call", served.url, "it")
        assert (run.code, run.out, run.err) == (0, "5\n", "")


def test_what_a_terminal_might_obey(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "\x1b[31mred\nline"
    found = {
        "methods": [{"name": evil, "kind": "unary", "doc": evil}],
        "objects": {evil: [{"name": "x", "kind": evil}]},
    }
    shown = methods.drawn(found).decode()
    assert "\x1b[31m" not in shown
    assert "\\x1b[31mred line" in shown


def test_no_output_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert methods.drawn({"methods": []}) == b""
    with pytest.raises(Failure):
        methods.drawn([])


def test_an_output_that_lacks_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    found = {"methods": [{"name": "größe", "kind": "unary"}]}
    assert b"gr\\xf6\\xdfe" in methods.drawn(found)
