"""Every rule of docs/protocol.md is named by a test."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PROTOCOL = TESTS.parent / "docs" / "protocol.md"

_RULE = re.compile(r"\bR\d+a?\b")
_HEADING = re.compile(r"^### (R\d+a?)\. ", re.MULTILINE)


def named_in(text: str) -> set[str]:
    return set(_RULE.findall(text))


def defined_in(text: str) -> list[str]:
    return _HEADING.findall(text)


@pytest.fixture(scope="module")
def rules() -> set[str]:
    return set(defined_in(PROTOCOL.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def tested() -> set[str]:
    files = (file for file in TESTS.rglob("*.py") if file != Path(__file__))
    return named_in("\n".join(file.read_text(encoding="utf-8") for file in files))


def test_what_names_a_rule() -> None:
    assert named_in("# R7, R7a: and (R14)\nR28.") == {"R7", "R7a", "R14", "R28"}
    assert named_in("R7a") == {"R7a"}
    assert named_in("CR4 r5 R R7b R7ab _R9 R10_ 3R3") == set()
    headings = "### R1. One\nR2. no\n### R7a. Two\n### The frames\n## R3. no\n"
    assert defined_in(headings) == ["R1", "R7a"]


def test_the_document_defines_each_rule_once() -> None:
    expected = [f"R{number}" for number in range(1, 29)]
    expected.insert(expected.index("R7") + 1, "R7a")
    assert defined_in(PROTOCOL.read_text(encoding="utf-8")) == expected


def test_the_document_cites_no_rule_that_is_not_there(rules: set[str]) -> None:
    assert named_in(PROTOCOL.read_text(encoding="utf-8")) - rules == set()


def test_every_rule_has_a_test(rules: set[str], tested: set[str]) -> None:
    assert rules - tested == set()


def test_tests_name_no_rule_that_is_not_there(rules: set[str], tested: set[str]) -> None:
    assert tested - rules == set()
