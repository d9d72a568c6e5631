"""The commands in a real terminal: what a person sees, and types."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from tests.cli.conftest import Served

pytestmark = pytest.mark.skipif(os.name != "posix", reason="it needs a pseudo-terminal")

ROOT = Path(__file__).parents[2]


@contextmanager
def terminal(*args: str) -> Iterator[pexpect.spawn[str]]:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "trio_streamrpc", *args],
        cwd=str(ROOT),
        dimensions=(24, 100),
        encoding="utf-8",
        env={**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1"},
        timeout=30,
    )
    try:
        yield child
    finally:
        child.close(force=True)


def ends(child: pexpect.spawn[str]) -> tuple[int | None, str]:
    """The exit code, and what was shown last, without what moves the cursor."""
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus, plain(child.before or "")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_ctrl_c_ends_a_stream(served: Served) -> None:
    with terminal("call", served.url, "few", "3", "wait") as child:
        child.expect("0\r\n1\r\n2\r\n")
        child.sendintr()
        code, rest = ends(child)
    assert (code, rest.strip()) == (130, "^C")
    assert served.market.ended == ["few, then wait"]


def test_values_are_typed_and_answered(served: Served) -> None:
    with terminal("call", served.url, "doubled", "@-") as child:
        for number in (1, 20):
            child.sendline(str(number))
            child.expect(f"{number}\r\n{2 * number}\r\n")
        child.sendeof()
        assert ends(child) == (0, "")


def test_progress_is_drawn_below_what_is_printed(served: Served) -> None:
    with terminal("call", served.url, "few", "3", "wait", "--progress") as child:
        child.expect("0\r\n1\r\n2\r\n")
        child.expect(r"3 items   3 bytes   [\d,]+ items/s   [\d.,]+ bytes/s   buffered 0 of 64")
        child.sendintr()
        code, rest = ends(child)
    assert code == 130
    assert "3 items   3 bytes" in rest.splitlines()[-1]


def test_a_table_of_methods(served: Served) -> None:
    with terminal("methods", served.url) as child:
        code, shown = ends(child)
    assert code == 0
    head, *_ = [line for line in shown.splitlines() if line.strip()]
    assert head.split() == ["Method", "Kind", "Takes", "Gives", "About"]
    assert "server stream" in re.sub(r"\s+", " ", shown)
    assert "Objects of Account:" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_serve_and_ctrl_c() -> None:
    with terminal("serve", "tests.cli.market:Market", "--url", "ws://127.0.0.1:0") as child:
        child.expect(r"tests\.cli\.market:Market is served at ws://127\.0\.0\.1:\d+\r\n")
        child.sendintr()
        code, rest = ends(child)
    assert (code, rest.strip()) == (130, "^C")
