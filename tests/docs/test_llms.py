"""docs/llms.txt is what the code and the documents say: ``nox -s tables`` writes it."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import fields

import click
import pytest

from docs import llms, public
from trio_streamrpc import Limits
from trio_streamrpc.cli.commands import commands

TEXT = llms.PAGE.read_text(encoding="utf-8")


def test_the_page_is_current() -> None:
    assert llms.made() == TEXT


def test_every_place_of_the_template_is_filled() -> None:
    assert "{{" not in TEXT
    assert len(re.findall(r"\{\{\w+\}\}", (llms.DOCS / "llms.template").read_text("utf-8"))) == 10


def test_it_is_short_enough_to_be_read_at_once() -> None:
    assert len(TEXT.encode()) <= 60_000


@pytest.mark.parametrize("name", public.public_names())
def test_it_has_every_public_name(name: str) -> None:
    module, _, short = name.rpartition(".")
    assert f"\n### {module}\n" in TEXT
    assert re.search(rf"^(- |\| )`[^`]*\b{short}\b", TEXT, re.MULTILINE)


def test_it_has_every_command_and_every_limit() -> None:
    for name, command in commands.commands.items():
        assert f"\ntrio-streamrpc {name} " in TEXT
        for each in command.params:
            if isinstance(each, click.Option):
                assert f"\n  {each.opts[0]}" in TEXT
    for limit in fields(Limits):
        assert f"\n| `{limit.name}` | " in TEXT


def test_its_examples_are_python() -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert len(examples) == 4
    for each in examples:
        compile(each, "llms.txt", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_what_a_docstring_becomes() -> None:
    assert llms.plain("As :meth:`Stream.aclose`, :exc:`~a.b.NotFound` and ``x``::") == (
        "As `Stream.aclose`, `NotFound` and `x`:"
    )
    assert llms.plain(":func:`.fuzz`") == "`fuzz`"
    assert llms.without_links("[a](b.md#c) and [d](https://e.f)") == "a and [d](https://e.f)"


def test_what_a_signature_becomes() -> None:
    source = """
        async def call(self, method: str, /, *, window: Window | None = None) -> Any: ...
        def damaged(draw: DrawFn, size: int = 4) -> bytes: ...
        async def connect(url: str) -> AsyncIterator[Connection]: ...
    """
    call, damaged, connect = ast.parse(textwrap.dedent(source)).body
    assert llms.signature(".call", call) == (
        "await .call(method: str, /, *, window: Window | None=None) -> Any"
    )
    assert llms.signature("damaged", damaged) == "damaged(size: int=4) -> SearchStrategy[bytes]"
    assert llms.signature("connect", connect, opens_block=True) == (
        "async with connect(url: str) -> Connection"
    )
