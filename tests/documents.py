"""What the tests of documents need: their code blocks, and what a program of them prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "blocks", "check_output"]

ROOT = Path(__file__).parent.parent


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a Markdown document in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def check_output(example: str, output: str, directory: Path) -> None:
    """Run a program as a process of its own: it prints that, says nothing else, and ends with 0."""
    script = directory / "example.py"
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
    assert done.returncode == 0
