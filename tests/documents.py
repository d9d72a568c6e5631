"""What the tests of documents need: their code blocks, and what a program of them prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "blocks", "check_output", "printed_by", "run"]

ROOT = Path(__file__).parent.parent


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a Markdown document in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def printed_by(script: Path) -> str:
    """Run a program as a process of its own: it says nothing else, and ends with 0."""
    done = subprocess.run(
        [sys.executable, "-X", "utf8", script],
        capture_output=True,
        check=False,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def check_output(example: str, output: str, directory: Path) -> None:
    """Run a program that a document shows: it prints what stands there."""
    script = directory / "example.py"
    script.write_text(example, encoding="utf-8")
    assert printed_by(script) == output


def run(*command: str | Path, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory whose modules it finds, and the project's."""
    return subprocess.run(
        command,
        capture_output=True,
        check=False,
        cwd=place,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(place), str(ROOT)])},
        stdin=subprocess.DEVNULL,
        timeout=180,
    )
