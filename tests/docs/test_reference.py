"""The API reference has every public name, once, with all that is said of it; its examples run."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import pydoc
import re
import zlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import trio_streamrpc
from docs import inventories, public
from tests.end_to_end import test_api
from trio_streamrpc import (
    Connection,
    PermissionDenied,
    Server,
    Unauthenticated,
    connect,
    rpc,
)
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.interceptors import authorize
from trio_streamrpc.testing import open_pair

ROOT = Path(public.__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"

NAMES = public.public_names()


def shown() -> list[str]:
    """The names on the pages, as ``docs/directives.py`` takes them in."""
    pages = [each.read_text(encoding="utf-8") for each in sorted(REFERENCE.glob("*.md"))]
    return re.findall(r"^\.\. public:: (\S+)$", "\n".join(pages), re.MULTILINE)


def test_every_public_name_is_in_the_reference() -> None:
    assert set(NAMES) - set(shown()) == set()


def test_the_reference_has_nothing_else_and_nothing_twice() -> None:
    found = shown()
    assert sorted(found) == sorted(set(found))
    assert set(found) - set(NAMES) == set()


def test_what_is_public() -> None:
    """What the package says, and its modules; not what they import for themselves."""
    names = set(NAMES)
    assert {"trio_streamrpc.serve", "trio_streamrpc.rpc", "trio_streamrpc.Interceptor"} <= names
    assert "trio_streamrpc.interceptors.authorize" in names
    assert "trio_streamrpc.dialects.kkrpc_classic" in names
    assert "trio_streamrpc.testing.strategies.frames" in names
    # One name for one thing, the shortest.
    assert "trio_streamrpc.transports.base.Transport" not in names
    assert "trio_streamrpc.testing.strategies" not in names
    assert "trio_streamrpc.dialects.Kkrpc" not in names
    public_in_package = {each for each in vars(trio_streamrpc) if not each.startswith("_")}
    modules = {
        each for each in public_in_package if inspect.ismodule(getattr(trio_streamrpc, each))
    }
    assert {each.rpartition(".")[2] for each in names if each.count(".") == 1} == (
        public_in_package - modules
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_documented(name: str) -> None:
    value = NAMES[name]
    if inspect.isclass(value) or inspect.isroutine(value):
        said = inspect.getdoc(value)
        assert said
        assert value.__doc__, "what is said is a base's"
    else:
        said = public.comment_on(name)
    assert re.match(r"\S.*[.:]\)?$", str(said).split("\n\n")[0], re.DOTALL), "no sentence"


def fields_of(cls: Any) -> list[str]:
    if dataclasses.is_dataclass(cls):
        return [each.name for each in dataclasses.fields(cls)]
    if issubclass(cls, msgspec.Struct):
        return list(cls.__struct_fields__)
    return list(getattr(cls, "__members__", ()))


@pytest.mark.parametrize(
    "cls", [each for each in NAMES.values() if inspect.isclass(each)], ids=lambda cls: cls.__name__
)
def test_every_field_is_documented(cls: Any) -> None:
    """And of Fault, whose values say it in words, the class."""
    undocumented = set(fields_of(cls)) - set(public.members_of(cls))
    assert {each for each in undocumented if not each.startswith("_")} == (
        set(cls.__members__) if cls.__name__ == "Fault" else set()
    )


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_it(name: str) -> None:
    assert name.rpartition(".")[2] in pydoc.plain(pydoc.render_doc(NAMES[name])) or (
        not inspect.isclass(NAMES[name]) and not inspect.isroutine(NAMES[name])
    )


def test_members_are_those_for_users() -> None:
    """Not what the runtime asks of a connection, though it has no underscore."""
    members = public.members_of(Connection)
    assert {"proxy", "call", "ping", "drain", "aclose", "identity", "remote"} <= set(members)
    assert set(members) & {"take_in", "act_on", "flush", "finish", "lose", "payloads"} == set()
    assert public.members_of(Server) == ["url", "connections", "drain", "wait_drained"]
    for each in members:
        assert inspect.getdoc(getattr(Connection, each, None)) or public.comment_of(
            Connection.__mro__[1], each
        )


def test_constructors_are_those_for_users() -> None:
    """Whoever has to name what is not public to make one is not to make one."""
    made = {name for name, each in NAMES.items() if inspect.isclass(each)} - {
        name
        for name, each in NAMES.items()
        if inspect.isclass(each) and public.has_constructor(each)
    }
    assert {"trio_streamrpc.Connection", "trio_streamrpc.Server", "trio_streamrpc.Stream"} <= made
    assert made & {"trio_streamrpc.Limits", "trio_streamrpc.NotFound"} == set()


@pytest.mark.parametrize("project", inventories.PROJECTS)
def test_inventories_are_what_sphinx_reads(project: str) -> None:
    *head, body = inventories.inventory(project).split(b"\n", 4)
    assert head[0] == b"# Sphinx inventory version 2"
    lines = zlib.decompress(body).decode().splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w.]+ py:\w+ 1 [\w./-]+\.html#[\w.-]+ [\w.]+", line)


def test_the_pytest_plugin_is_in_the_reference() -> None:
    plugin = (ROOT / "_trio_streamrpc_pytestplugin.py").read_text(encoding="utf-8")
    fixtures = re.findall(r"@pytest\.fixture\ndef (\w+)", plugin)
    options = re.findall(r'"(--[a-z-]+)"', plugin)
    assert fixtures
    assert options
    text = (REFERENCE / "testing.md").read_text(encoding="utf-8")
    assert [each for each in fixtures + options if f"`{each}" not in text] == []


# --- what the pages show


def blocks(page: str) -> list[str]:
    text = (REFERENCE / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


async def run(code: str, names: dict[str, Any]) -> None:
    """Run what stands in a page as if it stood in an async function."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    running = eval(compile(code, "page", "exec", flags=flags), names)
    if running is not None:
        await running


def test_the_shapes_of_call_are_those_that_are_tested() -> None:
    """Each method that is shown is there, as it is called over a WebSocket elsewhere."""
    names = dict(vars(test_api))
    exec(blocks("shapes.md")[0], names)
    shown, tested = (MethodTable.of_contract(each) for each in (names["Market"], test_api.Market))
    assert len(shown) == 7
    for name, method in shown.items():
        assert method.kind is tested[name].kind
        assert method.result_type == tested[name].result_type
        assert [(each.name, each.annotation) for each in method.parameters] == [
            (each.name, each.annotation) for each in tested[name].parameters
        ]


async def test_the_shapes_of_call_are_used_as_it_is_shown(
    autojump_clock: object, capsys: pytest.CaptureFixture[str]
) -> None:
    async def read_ticks() -> AsyncIterator[test_api.Tick]:
        for price in range(3):
            yield test_api.Tick("ACME", float(price))

    async def keyboard() -> AsyncIterator[str]:
        yield "hello"

    seen: list[float] = []

    async def show_progress(share: float) -> None:
        seen.append(share)

    service = test_api.Market()
    async with open_pair(service) as connection, trio.open_nursery() as nursery:
        names: dict[str, Any] = {
            "Market": test_api.Market,
            "connection": connection,
            "keyboard": keyboard,
            "nursery": nursery,
            "read_ticks": read_ticks,
            "show_progress": show_progress,
        }
        await run(blocks("shapes.md")[1], names)
        nursery.cancel_scope.cancel()
    assert (names["price"], names["count"]) == (99.5, 3)
    assert names["tick"].price == 101.0
    assert "ticks closed" in service.events
    assert capsys.readouterr().out == "you said hello\n"
    assert seen
    assert service.accounts == {"alice": -5}


class User:
    def __init__(self, *, is_admin: bool) -> None:
        self.is_admin = is_admin


class Users:
    """By their tokens."""

    async def find(self, token: str) -> User | None:
        known = {"first": User(is_admin=True), "second": User(is_admin=False)}
        return known.get(token)


class Settings:
    @rpc
    async def theme(self) -> str:
        return "dark"


async def test_who_may_call_is_decided_as_it_is_shown() -> None:
    gate = blocks("serving.md")[-1]
    async with trio.open_nursery() as nursery:
        names = {
            **vars(trio_streamrpc),
            "Market": lambda: {"settings": Settings()},
            "User": User,
            "authorize": authorize,
            "nursery": nursery,
            "partial": partial,
            "users": Users(),
        }
        await run(gate, names)
        url = names["server"].url
        async with connect(url, metadata={"token": "first"}) as connection:
            assert await connection.call("settings.theme") == "dark"
        async with connect(url, metadata={"token": "second"}) as connection:
            with pytest.raises(PermissionDenied):
                await connection.call("settings.theme")
        with pytest.raises(Unauthenticated, match=r"^there is no such token$"):
            async with connect(url):
                pytest.fail("the block must not begin")
        nursery.cancel_scope.cancel()
