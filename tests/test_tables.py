"""The tables in the documents are what the code says: ``nox -s tables`` writes them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from docs import tables
from trio_streamrpc import Limits
from trio_streamrpc.protocol import reactions


@pytest.mark.parametrize("document", tables.DOCUMENTS, ids=lambda path: path.name)
def test_tables_are_current(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert "<!-- table: " in text
    assert tables.rewritten(text) == text


def test_every_table_stands_somewhere() -> None:
    text = "".join(each.read_text(encoding="utf-8") for each in tables.DOCUMENTS)
    for name in tables.TABLES:
        assert text.count(f"<!-- table: {name} -->\n") == 1


def test_tables_are_whole() -> None:
    breaches = [each for each in vars(reactions).values() if isinstance(each, reactions.Breach)]
    assert len(tables.reactions_table().splitlines()) == len(breaches) + 2
    assert len(tables.limits_table().splitlines()) == len(fields(Limits)) + 2


@pytest.mark.parametrize("name", [each.name for each in fields(Limits)])
def test_every_limit_is_explained(name: str) -> None:
    """What it limits, what happens beyond it, and why its default is what it is."""
    said = tables.explained()[name]
    assert said.keys() == {"Meaning", "Beyond", "Reason"}
    assert all(said.values())


@pytest.mark.parametrize("name", [each.name for each in fields(Limits)])
def test_the_protocol_names_every_limit(name: str) -> None:
    text = (tables.DOCS / "protocol.md").read_text(encoding="utf-8")
    section = text.partition("## 7. Limits")[2].partition("### What an error ends")[0]
    assert name.replace("violation_refill", "refilled").replace("_budget", " budget") in section
