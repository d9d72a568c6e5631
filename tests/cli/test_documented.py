"""docs/cli.md and every ``--help``: their examples are the same ones, and they work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from tests.cli.conftest import Invoke
from trio_streamrpc.cli.commands import commands

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the examples are for bash")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")

#: The commands on the page, and what they print.
SHOWN = [
    (command, output)
    for command, output in re.findall(r"^```console\n\$ (.*)\n((?:.*\n)*?)```$", PAGE, re.MULTILINE)
]
EXAMPLE = re.compile(r"^  (\S.*)$", re.MULTILINE)

#: Commands that take their time: their examples are run by tests of their own.
ELSEWHERE = {"demo", "fuzz"}

#: What was measured differs each time.
NUMBER = re.compile(r"\d+(\.\d+)?(?= ms)")


def examples_of(name: str) -> list[str]:
    """The examples in a command's help."""
    epilog = commands.commands[name].epilog
    assert epilog is not None
    return EXAMPLE.findall(epilog.partition("Example")[2])


def test_every_command_is_on_the_page() -> None:
    for name in commands.commands:
        assert f"\n## {name}\n" in PAGE


@pytest.mark.parametrize("name", [*commands.commands])
def test_help_has_examples_that_are_on_the_page(name: str, invoke: Invoke) -> None:
    """Those on the page are run below."""
    examples = examples_of(name)
    assert examples
    run = invoke(name, "--help")
    assert (run.code, run.err) == (0, "")
    for each in examples:
        assert f"  {each}\n" in run.out
        assert f"\n$ {each}\n" in PAGE or (name in ELSEWHERE and f"\n{each}\n" in PAGE)


def test_the_options_on_the_page_are_there() -> None:
    options = {
        option
        for command in commands.commands.values()
        for each in command.params
        for option in (*each.opts, *each.secondary_opts)
    } | {"--help", "--version"}
    named = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert named - options == set()
    here = {each for each in options if each.startswith("--")}
    assert here - named - {"--help", "--version", "--file", "--reflection"} == set()


@dataclass
class Desk:
    """A directory with the service of the page, and a shell in it."""

    directory: Path
    #: What stands on the page, and what stands for it here.
    addresses: dict[str, str] = field(default_factory=dict)

    def script(self, line: str) -> list[str]:
        for shown, real in self.addresses.items():
            line = line.replace(shown, real)
        return ["bash", "-c", f"set -o pipefail\n{line}"]

    @property
    def environment(self) -> dict[str, str]:
        # The program is the one under test, and it reads what stands in the directory.
        path = f"{self.directory}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "HOME": str(self.directory), "TOKEN": "secret"}

    def runs(self, line: str) -> str:
        done = subprocess.run(
            self.script(line),
            capture_output=True,
            check=False,
            cwd=self.directory,
            encoding="utf-8",
            env=self.environment,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        for shown, real in self.addresses.items():
            done.stdout = done.stdout.replace(real, shown)
        return done.stdout

    @contextmanager
    def serves(self, line: str) -> Iterator[str]:
        """Run a line that serves, at any free port; it ends with 0 at SIGTERM."""
        line = re.sub(r":87\d\d", ":0", line)
        if "--url" not in line:
            scheme = "wss" if "--tls" in line else "ws"
            line += f" --url {scheme}://127.0.0.1:0"
        process = subprocess.Popen(
            self.script(f"exec {line}"),
            cwd=self.directory,
            encoding="utf-8",
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            yield process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
            assert (process.returncode, out) == (0, "")
        finally:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("desk")
    [service] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (directory / "market.py").write_text(service, encoding="utf-8")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    (directory / "cert.pem").write_bytes(b"".join(b.bytes() for b in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    (directory / ".config" / "fish" / "completions").mkdir(parents=True)
    program = directory / "trio-streamrpc"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m trio_streamrpc "$@"\n')
    program.chmod(0o755)
    found = Desk(directory)
    command, output = SHOWN[0]
    with found.serves(command) as line:
        address = line.split("//")[1].strip()
        assert line.replace(address, "127.0.0.1:8765") == output
        found.addresses["127.0.0.1:8765"] = address
        yield found


@pytest.mark.parametrize(
    ("command", "output"),
    [each for each in SHOWN if " serve " not in each[0]],
    ids=[each[0] for each in SHOWN if " serve " not in each[0]],
)
def test_what_is_shown_is_what_happens(desk: Desk, command: str, output: str) -> None:
    if command.endswith("json.tool"):
        # It is long, and what stands in it is tested elsewhere.
        assert '"streamrpc.describe"' in desk.runs(command)
    elif "> " in command:
        desk.runs(command)
        [path] = desk.directory.glob(".config/fish/completions/*")
        assert "trio-streamrpc" in path.read_text(encoding="utf-8")
    else:
        assert NUMBER.sub("0", desk.runs(command)) == NUMBER.sub("0", output)


def test_what_fuzz_says_of_the_service_of_the_page(desk: Desk) -> None:
    said = desk.runs("trio-streamrpc fuzz market:Market --examples 20 --seed 1 --method price")
    assert said.startswith("Market: nothing found in 20 examples in ")


def test_a_server_that_wants_a_token(desk: Desk) -> None:
    [(command, output)] = [each for each in SHOWN if "--token-env" in each[0]]
    with desk.serves(command) as line:
        assert re.sub(r":\d+\n", ":8766\n", line) == output
        url = line.split()[-1]
        assert desk.runs(f"trio-streamrpc call {url} price A --token-env TOKEN") == "101.5\n"
        said = desk.runs(f"trio-streamrpc ping {url} 2>&1 || echo $?")
        assert said == "Error: Unauthenticated: a valid bearer token is needed\n3\n"


def test_a_server_with_a_certificate(desk: Desk) -> None:
    [(command, output)] = [each for each in SHOWN if "--tls-cert" in each[0]]
    with desk.serves(command) as line:
        assert re.sub(r":\d+\n", ":8765\n", line) == output
        url = line.split()[-1]
        called = f"SSL_CERT_FILE=ca.pem trio-streamrpc call {url} price A"
        assert desk.runs(called) == "101.5\n"
