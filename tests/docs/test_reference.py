"""The API reference has every public name, once, with all that is said of it."""

from __future__ import annotations

import dataclasses
import inspect
import pydoc
import re
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

import trio_streamrpc
from docs import inventories, public
from trio_streamrpc import Connection, Server

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
