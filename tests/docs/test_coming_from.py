"""docs/coming-from: the programs print what the pages say, and the pages show all of them."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import trio

from tests.dialects import nodes
from tests.documents import ROOT, printed_by
from trio_streamrpc import serve

DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples" / "coming_from"
PAGES = sorted((DOCS / "coming-from").glob("*.md"))
INCLUDE = re.compile(r"^```\{literalinclude\} (\S+)\n((?::.*\n)*)```$", re.MULTILINE)

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def output_on(page: Path) -> list[str]:
    [output] = re.findall(
        r"^```text\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return str(output).splitlines()


def includes_of(page: Path) -> list[tuple[Path, dict[str, str]]]:
    """The files that it shows parts of, with the options that choose them."""
    return [
        (
            (page.parent / name).resolve(),
            dict(re.findall(r"^:([\w-]+): ?(.*)$", options, re.MULTILINE)),
        )
        for name, options in INCLUDE.findall(page.read_text(encoding="utf-8"))
    ]


def markers_of(file: Path) -> set[str]:
    """The names of its parts."""
    return set(re.findall(r"--- (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)) - {"end"}


@by_page
def test_our_program_prints_what_the_page_says(page: Path) -> None:
    assert printed_by(EXAMPLES / f"from_{page.stem}.py").splitlines() == output_on(page)


def test_the_program_by_hand_prints_the_same_in_another_order() -> None:
    """It leaves its block before the feed is closed, and ours after it."""
    printed = printed_by(EXAMPLES / "theirs" / "websockets" / "by_hand.py").splitlines()
    expected = output_on(DOCS / "coming-from" / "websockets.md")
    assert sorted(printed) == sorted(each.replace(".0", "") for each in expected)
    assert printed.index("client: the block is left") < printed.index("server: the feed is closed")


@by_page
def test_each_part_that_is_shown_is_there(page: Path) -> None:
    for file, options in includes_of(page):
        text = file.read_text(encoding="utf-8")
        if "start-after" in options:
            text = text.split(options["start-after"].strip('"'), 1)[1]
        if "end-before" in options:
            text = text.split(options["end-before"].strip('"'), 1)[0]
        assert text.strip()


@by_page
def test_each_part_of_our_program_is_shown(page: Path) -> None:
    ours = EXAMPLES / f"from_{page.stem}.py"
    shown = {
        options["start-after"].strip('"').removeprefix("# ").removeprefix("--- ")
        for file, options in includes_of(page)
        if file == ours
    }
    assert markers_of(ours) == shown


def load(name: str) -> ModuleType:
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # its annotations are looked up there
    spec.loader.exec_module(module)
    return module


@nodes.needs_node
async def test_the_page_without_a_library_calls_our_program() -> None:
    nodes.install()
    market = load("from_websockets").Market()
    code = (
        "globalThis.WebSocket = require('ws').WebSocket; globalThis.url = process.argv[1];"
        f"(0, eval)({json.dumps((EXAMPLES / 'browser.js').read_text(encoding='utf-8'))});"
        "const said = console.log;"
        "console.log = (...words) => { said(...words); process.exit(0) };"
    )
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, market, "ws://127.0.0.1:0")
        with trio.fail_after(60):
            done = await trio.run_process(
                ["node", "-e", code, server.url],
                capture_stdout=True,
                env=nodes.environment(),
            )
        nursery.cancel_scope.cancel()
    assert done.stdout == b"price: 101.5\n"
