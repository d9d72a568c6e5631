"""docs/dialects.md holds what it says: each of its examples prints what stands below it."""

import re
from pathlib import Path

import pytest

from tests.documents import ROOT, check_output

DOCUMENT = ROOT / "docs" / "dialects.md"
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```\n\n(?:[^`]*\n\n)?```text\n(.*?)^```$",
    DOCUMENT.read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


def test_each_has_its_output() -> None:
    assert len(EXAMPLES) == DOCUMENT.read_text(encoding="utf-8").count("```python") == 6


@pytest.mark.parametrize("number", range(6))
def test_what_it_prints(number: int, tmp_path: Path) -> None:
    example, output = EXAMPLES[number]
    check_output(example, output, tmp_path)
