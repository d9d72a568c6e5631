"""``trio-streamrpc fuzz``: as a user starts it, and what is said of wrong arguments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from trio_streamrpc.cli.commands import commands

ROOT = Path(__file__).parent.parent.parent
SERVICES = "tests.testing.fuzzing.services"


def run(*args: str) -> tuple[int, str]:
    done = CliRunner().invoke(commands, ["fuzz", *args])
    return done.exit_code, done.output


def test_what_is_found_is_printed_and_is_the_exit_code() -> None:
    done = subprocess.run(
        [
            sys.executable, "-X", "utf8", "-m", "trio_streamrpc", "fuzz", f"{SERVICES}:Buggy",
            "--method", "ratio", "--examples", "30",
        ],
        capture_output=True,
        check=False,
        cwd=ROOT,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 1
    assert done.stdout.startswith("Buggy: falsified in 1 ways (")
    assert "await connection.call('ratio', 0, 0)" in done.stdout
    assert f"from {SERVICES} import Buggy" in done.stdout


def test_nothing_found() -> None:
    code, output = run(f"{SERVICES}:Correct", "--seconds", "0.5", "--method", "get")
    assert code == 0
    assert output.startswith("Correct: nothing found in ")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["no"], "'no': it is to be package.module:Service"),
        (["no.such:Service"], "there is no module 'no.such'"),
        ([f"{SERVICES}:No"], f"{SERVICES} has no 'No'"),
        ([f"{SERVICES}:Item"], "Item"),
        ([f"{SERVICES}:Buggy", "--method", "no"], "has no method 'no'"),
    ],
)
def test_arguments_that_cannot_be(args: list[str], told: str) -> None:
    code, output = run(*args)
    assert code == 2
    assert told in output


def test_without_the_extra() -> None:
    blocked = "import sys; sys.modules['hypothesis'] = None; from trio_streamrpc.cli import main; "
    done = subprocess.run(
        [sys.executable, "-c", f"{blocked}sys.argv[1:] = ['fuzz', 'a.b:C']; main()"],
        capture_output=True,
        check=False,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode == 2
    assert "pip install 'trio-streamrpc[testing]'" in done.stderr
