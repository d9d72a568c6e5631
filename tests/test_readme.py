"""The README holds what it says: its example runs, its commands are the ones that are checked."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_example_prints_what_the_readme_shows(tmp_path: Path) -> None:
    [example] = blocks("python")
    [output] = blocks("text")
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
    assert done.returncode == 0


def test_ci_runs_the_command_that_the_readme_gives() -> None:
    lines = "".join(blocks("sh")).splitlines()
    [command] = [line for line in lines if line.endswith("nox -s tests")]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
    links += re.findall(r'(?:src|srcset)="([^"]+)"', README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
