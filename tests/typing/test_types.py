"""The type checkers find the errors that ``examples.py`` marks, and no others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).with_name("examples.py")
ROOT = EXAMPLES.parents[2]
MARK = re.compile(r"# (?:(?P<checker>mypy|pyright): )?error$")


def marked(checker: str, text: str) -> set[int]:
    """The lines that are to be errors for one type checker."""
    marks = ((number, MARK.search(line)) for number, line in enumerate(text.splitlines(), 1))
    return {number for number, mark in marks if mark and mark["checker"] in (None, checker)}


def run(*arguments: str) -> str:
    """The output of a type checker, which may well find errors."""
    return subprocess.run(
        [sys.executable, "-m", *arguments, str(EXAMPLES.relative_to(ROOT))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
    ).stdout


def errors_of_mypy() -> dict[int, str]:
    """Line numbers and messages."""
    output = run("mypy", "--strict", "--no-pretty", "--no-color-output", "--hide-error-context")
    found = re.findall(r"^\S*examples\.py:(\d+): error: (.*)$", output, re.MULTILINE)
    assert found, output
    return {int(number): message for number, message in found}


def errors_of_pyright() -> dict[int, str]:
    """Line numbers and messages."""
    output = run("pyright", "--outputjson", "--pythonpath", sys.executable)
    report = json.loads(output[output.index("{") :])
    return {
        each["range"]["start"]["line"] + 1: each["message"]
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    }


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_errors_are_where_the_examples_say(checker: str) -> None:
    """Every ``assert_type`` of the examples holds, since a wrong one is an error."""
    expected = marked(checker, EXAMPLES.read_text(encoding="utf-8"))
    errors = errors_of_mypy() if checker == "mypy" else errors_of_pyright()
    unexpected = {line: message for line, message in errors.items() if line not in expected}
    assert unexpected == {}
    assert expected - errors.keys() == set(), "marked as errors, and are none"


def test_what_marks_an_error() -> None:
    text = "a\nb  # error\nc  # mypy: error\nd  # pyright: error\n# error, as such\n"
    assert marked("mypy", text) == {2, 3}
    assert marked("pyright", text) == {2, 4}
