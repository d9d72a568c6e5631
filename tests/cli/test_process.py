"""The commands as plain processes: exit codes, pipes that are closed early, and no tracebacks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Served

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and pipes as POSIX has them")

PROGRAM = [sys.executable, "-m", "trio_streamrpc"]
ROOT = Path(__file__).parents[2]


@contextmanager
def started(*args: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs; it is gone when the block ends."""
    process = subprocess.Popen(
        [*PROGRAM, *args],
        cwd=ROOT,
        encoding="utf-8",
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which ``rpc`` is the command."""
    script = f'rpc() {{ {sys.executable} -m trio_streamrpc "$@"; }}\nset -o pipefail\n{line}'
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        check=False,
        cwd=ROOT,
        encoding="utf-8",
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_stream_that_a_reader_has_seen_enough_of(served: Served) -> None:
    """R7: whoever leaves ends the producer, whose finally has run before the command ends."""
    done = shell(f"rpc call {served.url} ticks A | head -2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n1\n", "")
    assert served.market.ended == ["A"]


def test_a_reader_that_leaves_while_nothing_comes(served: Served) -> None:
    """The next item would never come, and the command ends all the same."""
    done = shell(f"rpc call {served.url} few 1 wait | head -1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert served.market.ended == ["few, then wait"]


@pytest.mark.parametrize("line", ["call URL price A | true", "methods URL --json | true"])
def test_a_reader_that_was_never_there(served: Served, line: str) -> None:
    done = shell(f"rpc {line.replace('URL', served.url)}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_output_that_is_closed(served: Served) -> None:
    done = shell(f"rpc call {served.url} few 3 >&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert served.market.ended == ["few, then end"]


def test_ctrl_c_ends_a_stream(served: Served) -> None:
    with started("call", served.url, "ticks", "A") as process:
        assert first_line(process) == "0\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (130, "")
        assert served.market.ended == ["A"]
    lines = out.splitlines()
    assert lines == [str(number) for number in range(1, len(lines) + 1)], "no line is torn"


def test_a_reader_that_stops_holds_up_the_producer(served: Served) -> None:
    """Backpressure: what is printed and not read stands still, all the way to the generator."""
    with started("call", served.url, "ticks", "A", "--window", "256") as process:
        assert first_line(process) == "0\n"
        produced = -1
        give_up = time.monotonic() + 30
        while produced != served.market.produced:
            assert time.monotonic() < give_up
            produced = served.market.produced
            time.sleep(0.3)
        # What a pipe holds, what Popen has read ahead of it, and a few windows.
        assert sum(len(f"{number}\n") for number in range(produced)) < 65_536 + 8_192 + 10_000
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert served.market.ended == ["A"]


def test_what_a_shell_script_sees(served: Served) -> None:
    """Each exit code, and one line on the standard error for each but 0."""
    url = served.url
    done = shell(
        f"""
        rpc call {url} price A > /dev/null; echo $?
        rpc call {url} refuse; echo $?
        rpc call {url} --no-such-option; echo $?
        rpc call ws://127.0.0.1:1 price A; echo $?
        rpc call {url} slow A --timeout 0.2; echo $?
        """
    )
    assert done.stdout.split() == ["0", "1", "2", "3", "4"]
    said = done.stderr.splitlines()
    beginnings = ("NotFound: there is none", "No such option", "Unavailable: ", "not done within")
    assert len(said) == len(beginnings)
    for line, beginning in zip(said, beginnings, strict=True):
        assert line.startswith(f"Error: {beginning}")


# --- serving


@contextmanager
def server(*args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that serves the market, and where."""
    with started("serve", "tests.cli.market:Market", *args) as process:
        line = first_line(process)
        assert line.startswith("tests.cli.market:Market is served at "), process.stderr
        yield process, line.split()[-1]


def test_serve_until_sigterm() -> None:
    with server("--url", "ws://127.0.0.1:0") as (process, url):
        with started("call", url, "few", "1", "wait") as client:
            assert first_line(client) == "0\n"
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            assert "SIGTERM: what runs has 20.0 s to finish" in process.stderr.readline()
            client.send_signal(signal.SIGINT)
            assert client.wait(60) == 130
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_serve_until_ctrl_c() -> None:
    with server("--url", "tcp://127.0.0.1:0") as (process, url):
        assert url.startswith("tcp://")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, "", "")


def test_an_upload_from_a_pipe_that_stays_open(served: Served) -> None:
    """Items arrive as they are typed, and the answers with them."""
    process = subprocess.Popen(
        [*PROGRAM, "call", served.url, "doubled", "@-"],
        encoding="utf-8",
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=1,
    )
    with process:
        assert process.stdin is not None
        for number in (1, 20, 300):
            process.stdin.write(f"{number}\n")
            assert first_line(process) == f"{2 * number}\n"
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_ctrl_c_while_nothing_is_typed(served: Served) -> None:
    """What waits for the standard input does not keep the process."""
    process = subprocess.Popen(
        [*PROGRAM, "call", served.url, "doubled", "@-"],
        encoding="utf-8",
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=1,
    )
    with process:
        assert process.stdin is not None
        process.stdin.write("1\n")
        assert first_line(process) == "2\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_shell_completion() -> None:
    """What bash would ask, and what it is told."""
    done = shell(
        f"""
        export PATH={Path(sys.executable).parent}:$PATH
        COMP_WORDS="trio-streamrpc m" COMP_CWORD=1 \\
            _TRIO_STREAMRPC_COMPLETE=bash_complete trio-streamrpc
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "plain,methods\n", "")
