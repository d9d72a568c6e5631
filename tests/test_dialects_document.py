"""docs/dialects.md holds what it says: each of its examples prints what stands below it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parent.parent / "docs" / "dialects.md"
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
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "utf8", script],
        capture_output=True,
        check=False,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout == output
