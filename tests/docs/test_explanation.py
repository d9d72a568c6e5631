"""docs/explanation: examples print what stands below them, and what is said of the code is so."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.documents import ROOT, check_output
from trio_streamrpc import Limits, Window, errors

PAGES = sorted((ROOT / "docs" / "explanation").glob("*.md"))
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)

EXAMPLES = [
    pytest.param(example, output, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, (example, output) in enumerate(EXAMPLE.findall(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_example_has_its_output(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(EXAMPLE.findall(text)) == text.count("```python\n") > 0


@pytest.mark.parametrize(("example", "output"), EXAMPLES)
def test_what_it_prints(example: str, output: str, tmp_path: Path) -> None:
    check_output(example, output, tmp_path)


def text_of(page: str) -> str:
    return (ROOT / "docs" / "explanation" / f"{page}.md").read_text(encoding="utf-8")


def test_the_tree_of_errors_is_the_code_s() -> None:
    [tree] = re.findall(r"```text\n(RpcError .*?)\n```", text_of("errors"), re.DOTALL)
    assert errors.__doc__ is not None
    assert textwrap.indent(tree, "    ") in errors.__doc__
    named = set(re.findall(r"^[ │├└─]*(\w+)  ", tree, re.MULTILINE))
    known = {getattr(errors, name) for name in errors.__all__ if name != "ERRORS_BY_CODE"}
    assert named == {each.__name__ for each in known if issubclass(each, Exception)}


@pytest.mark.parametrize("name", ["cleanup", "cancel_timeout", "close_timeout"])
def test_the_budgets_are_the_defaults(name: str) -> None:
    [row] = re.findall(
        rf"^\|[^|]*`Limits\.{name}`[^|]*\| (\d+) s \|", text_of("cancellation"), re.MULTILINE
    )
    assert float(row) == getattr(Limits(), name)


def test_the_windows_are_the_defaults() -> None:
    text = text_of("backpressure")
    assert "`Limits.window` (64 items, 256 KiB)" in text
    assert Limits().window == Window(64, 256 * 1024)
    assert "`Limits.max_window` (65,536 items, 8 MiB)" in text
    assert Limits().max_window == Window(65_536, 8 * 2**20)


@pytest.mark.parametrize("page", ["cancellation", "deadlines"])
def test_how_soon_a_black_hole_is_noticed(page: str) -> None:
    limits = Limits()
    assert f"{limits.ping_interval + limits.ping_timeout:.0f} seconds" in text_of(page)


def test_a_day_is_how_long_a_consumer_may_take_nothing() -> None:
    assert "takes nothing for a day** (`Limits.stall_timeout`)" in text_of("backpressure")
    assert Limits().stall_timeout == 24 * 3600


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_rules_are_linked_where_they_stand(page: Path) -> None:
    """A rule's link leads to the heading of that rule."""
    protocol = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    headings = dict(re.findall(r"^### (R\d+a?)\. (.*)$", protocol, re.MULTILINE))
    for rule, anchor in re.findall(
        r"\[(R\d+a?)\]\(\.\./protocol\.md#([^)]*)\)", page.read_text(encoding="utf-8")
    ):
        slug = re.sub(r"[^a-z0-9 -]", "", f"{rule}. {headings[rule]}".lower()).replace(" ", "-")
        assert anchor == slug
