"""The README holds what it says: its example runs, its commands are the ones that are checked."""

import re
from pathlib import Path

from tests.documents import ROOT, blocks, check_output

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_readme_shows(tmp_path: Path) -> None:
    [example] = blocks(README, "python")
    [output] = blocks(README, "text")
    check_output(example, output, tmp_path)


def test_ci_runs_the_command_that_the_readme_gives() -> None:
    lines = "".join(blocks(README, "sh")).splitlines()
    [command] = [line for line in lines if line.endswith("nox -s tests")]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
    links += re.findall(r'(?:src|srcset)="([^"]+)"', README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
