"""The tutorial and the how-to pages: what they show is run, and prints what they show.

An example stands once, as a file in docs/examples/, from which the pages include it. What a program
prints stands beside it, in a file of the same name that ends with ``.txt``.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.addresses import free_port
from tests.documents import ROOT, run
from tests.testing.test_plugin import IS_INSTALLED, NAME

DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "how-to").glob("*.md"))]

#: Where the examples of these pages are; others have tests of their own.
FOLDERS = [EXAMPLES / "tutorial", EXAMPLES / "how_to", EXAMPLES / "deploy"]
FILES = sorted(
    each
    for folder in FOLDERS
    for each in folder.iterdir()
    if each.is_file() and not each.name.startswith(".")
)

SERVER, CLIENT = EXAMPLES / "tutorial/server.py", EXAMPLES / "tutorial/client.py"
URL = "ws://127.0.0.1:8765"
TESTS = [each for each in FILES if each.match("test_*.py")]
PROGRAMS = [each for each in FILES if each.suffix == ".py" and each.with_suffix(".txt") in FILES]
PROGRAMS.remove(CLIENT)
#: What runs those for a deployment.
DEPLOYED = [ROOT / "tests" / "end_to_end" / each for each in ("proxies.py", "test_proxies.py")]

FENCE = re.compile(
    r"^(?P<ticks>```+)(?P<kind>[^\n`]*)\n(?P<body>.*?)^(?P=ticks)$", re.MULTILINE | re.DOTALL
)
INCLUDED = re.compile(r"^\{literalinclude\} (\S+)$")
#: What is shown and not run: what installs something on the reader's machine.
NOT_RUN = re.compile(r"pip install |python3 -m venv |sudo ")


def fences(page: Path) -> list[tuple[str, str]]:
    """The blocks of a page: what they are, and what is in them."""
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [(each["kind"].strip(), each["body"]) for each in found]


def included(page: Path) -> list[Path]:
    """The files that a page shows, or parts of them."""
    matches = [INCLUDED.match(kind) for kind, _ in fences(page)]
    return [(page.parent / each[1]).resolve() for each in matches if each is not None]


def commands(page: Path) -> list[tuple[str, str]]:
    """The commands that a page shows, and what they print."""
    text = "".join(body for kind, body in fences(page) if kind == "console")
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)


def needed_by(example: Path) -> set[Path]:
    """The file, and those beside it that it imports."""
    found = {example}
    for node in ast.walk(ast.parse(example.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            other = example.with_name(f"{node.module}.py")
            if other.exists():
                found |= needed_by(other)
    return found


def is_run(example: Path) -> bool:
    """Whether a test below runs it, or what imports it; or one elsewhere does."""
    if EXAMPLES / "deploy" in example.parents:
        return any(f'"{example.name}"' in each.read_text(encoding="utf-8") for each in DEPLOYED)
    if example.suffix == ".txt":
        return is_run(example.with_suffix(".py"))
    run = [*PROGRAMS, *TESTS, SERVER, CLIENT]
    return any(example in needed_by(each) for each in run)


def copied(example: Path, place: Path) -> Path:
    """The example with what it needs, and nothing else, in a place of its own."""
    for each in needed_by(example):
        shutil.copy(each, place)
    return place / example.name


PYTHON = (sys.executable, "-X", "utf8", "-W", "error")


@pytest.mark.parametrize("example", FILES, ids=lambda path: path.name)
def test_an_example_is_shown_and_run(example: Path) -> None:
    assert any(example in included(page) for page in PAGES), "no page shows it"
    assert is_run(example), "no test runs it"
    lines = example.read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 90, "it is wider than a page"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_snippet_is_an_example(page: Path) -> None:
    """A page has no code of its own, which nothing would run."""
    for kind, body in fences(page):
        if kind == "sh":
            assert all(NOT_RUN.search(line) for line in body.splitlines()), body
        else:
            assert kind == "console" or kind.startswith("{"), kind
    for example in included(page):
        assert example in FILES
    if page.stem != "index":
        assert included(page)


@pytest.mark.parametrize("example", PROGRAMS, ids=lambda path: path.name)
def test_what_it_prints(example: Path, tmp_path: Path) -> None:
    done = run(*PYTHON, copied(example, tmp_path), place=tmp_path)
    assert done.stderr == ""
    assert done.stdout == example.with_suffix(".txt").read_text(encoding="utf-8")
    assert done.returncode == 0


def test_the_tests_pass(tmp_path: Path) -> None:
    for each in TESTS:
        copied(each, tmp_path)
    loads = [] if IS_INSTALLED else ["-p", NAME]
    options = ["-q", "-p", "no:cacheprovider", "-o", "trio_mode=true", "-W", "error"]
    done = run(*PYTHON, "-m", "pytest", *loads, *options, ".", place=tmp_path)
    assert done.returncode == 0, done.stdout
    functions = "".join(each.read_text(encoding="utf-8") for each in TESTS).count("def test_")
    assert f"{functions} passed" in done.stdout


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until something listens there."""
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return


@contextmanager
def server(place: Path) -> Iterator[str]:
    """The tutorial's server in a process of its own, at a port that is free; gives its URL."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    for each in (SERVER, CLIENT):
        script = copied(each, place)
        text = script.read_text(encoding="utf-8")
        assert text.count(URL) == 1
        script.write_text(text.replace(URL, url), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*PYTHON, SERVER.name], cwd=place, env=environment, stderr=subprocess.PIPE
    ) as process:
        try:
            wait_for(port, process)
            yield url
            # It ends in order, as the page says.
            process.send_signal(signal.SIGTERM)
            _, complaints = process.communicate(timeout=20)
            assert (process.returncode, complaints) == (0, b"")
        finally:
            process.kill()


FOR_A_SHELL = pytest.mark.skipif(os.name != "posix", reason="the commands are for a shell")


def said(command: str, place: Path) -> str:
    """What one of the command line's commands prints."""
    program = f"{sys.executable} -X utf8 -m trio_streamrpc"
    assert command.startswith("trio-streamrpc ")
    done = run("bash", "-c", command.replace("trio-streamrpc", program, 1), place=place)
    assert done.returncode == 0, done.stderr
    return done.stdout


@FOR_A_SHELL
def test_the_command_that_fuzzes(tmp_path: Path) -> None:
    copied(EXAMPLES / "how_to" / "clock.py", tmp_path)
    [(command, output)] = commands(DOCS / "how-to" / "fuzzing.md")
    assert output in said(command, tmp_path)


@FOR_A_SHELL
def test_two_processes_and_the_command_line(tmp_path: Path) -> None:
    shown = commands(DOCS / "tutorial.md")
    assert shown
    with server(tmp_path) as url:
        done = run(*PYTHON, CLIENT.name, place=tmp_path)
        assert done.stderr == ""
        assert done.stdout == CLIENT.with_suffix(".txt").read_text(encoding="utf-8")
        for command, output in shown:
            assert said(command.replace(URL, url), tmp_path) == output


def test_every_command_is_run() -> None:
    """By one of the two tests above."""
    assert [page.name for page in PAGES if commands(page)] == ["tutorial.md", "fuzzing.md"]
