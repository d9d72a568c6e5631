"""The README holds what it says: its example runs, its commands are the ones that are checked."""

import re
import subprocess
import sys
from pathlib import Path

from tests.end_to_end import test_api
from trio_streamrpc.contract.methods import MethodTable

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_example_prints_what_the_readme_shows(tmp_path: Path) -> None:
    example, _ = blocks("python")
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


def test_the_shapes_of_call_are_those_that_are_tested() -> None:
    """Each method of the second example is there, as it is called over a WebSocket elsewhere."""
    _, shapes = blocks("python")
    names = dict(vars(test_api))
    exec(shapes, names)
    shown, tested = (MethodTable.of_contract(each) for each in (names["Market"], test_api.Market))
    assert len(shown) == 7
    for name, method in shown.items():
        assert method.kind is tested[name].kind
        assert method.result_type == tested[name].result_type
        assert [(each.name, each.annotation) for each in method.parameters] == [
            (each.name, each.annotation) for each in tested[name].parameters
        ]


def test_ci_runs_the_command_that_the_readme_gives() -> None:
    lines = "".join(blocks("sh")).splitlines()
    [command] = [line for line in lines if line.endswith("nox -s tests")]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
