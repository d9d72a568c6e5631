"""docs/testing.md: each snippet runs, and what it shows is what there is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, blocks, run
from tests.testing.test_plugin import IS_INSTALLED, NAME
from trio_streamrpc import testing

TEXT = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with each snippet in the file that its first line names."""
    for snippet in blocks(TEXT, "python"):
        [name] = re.findall(r"\A# (\w+\.py)$", snippet, re.MULTILINE)
        (tmp_path / name).write_text(snippet, encoding="utf-8")
    return tmp_path


PYTHON = (sys.executable, "-X", "utf8")


def test_the_snippets_run(place: Path) -> None:
    files = len(list(place.iterdir()))
    assert files == len(blocks(TEXT, "python")) == 10
    loads = [] if IS_INSTALLED else ["-p", NAME]
    options = ["-q", "-p", "no:cacheprovider", "-o", "trio_mode=true"]
    done = run(*PYTHON, "-m", "pytest", *loads, *options, ".", place=place)
    assert done.returncode == 0, done.stdout
    assert "13 passed" in done.stdout


def test_the_command_runs(place: Path) -> None:
    [command] = [line for line in "".join(blocks(TEXT, "sh")).splitlines() if " fuzz " in line]
    program, *args = command.split()
    assert program == "trio-streamrpc"
    done = run(*PYTHON, "-m", "trio_streamrpc", *args, place=place)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Market: nothing found in ")


def test_the_trace_is_what_is_shown(place: Path) -> None:
    code = (
        "from market import Market\n"
        "from trio_streamrpc.testing import Network, run_repeatably, simulate\n"
        "async def main():\n"
        "    network = Network(latency=0.2, jitter=0.1, bandwidth=10000)\n"
        "    async with simulate(Market(), network=network, seed=7) as connection:\n"
        "        await connection.call('price', 'ACME')\n"
        "        raise ValueError\n"
        "run_repeatably(main)\n"
    )
    # When it is said depends on how long a hello is, which is no business of this document's.
    shown, told = (
        re.sub(r"\d\.\d{4}", "T", each)
        for each in (*blocks(TEXT, "text"), run(*PYTHON, "-c", code, place=place).stderr)
    )
    assert shown.strip() in told


def test_every_name_of_the_kit_is_told() -> None:
    """Those that a service's tests begin with, and those of the other parts."""
    told = set(re.findall(r"\w+", TEXT))
    own = {name for name in testing._HOMES if name[0].islower()}
    minor = {
        "find_failures", "last_run", "move_on_after_steps", "open_simulated_transports",
        "open_task", "take",
    }  # fmt: skip
    assert own - minor <= told


def test_every_fault_is_told() -> None:
    [table] = re.findall(r"\| \| \|\n\|---\|---\|\n((?:\|.*\|\n)+)", TEXT)
    assert len(table.splitlines()) == len(testing.Fault)
