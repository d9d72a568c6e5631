"""stdout.py: whole lines, to readers that are slow, leave, or were never there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TextIO

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_streamrpc.cli.stdout import Stdout, json_line

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")


@contextmanager
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """The reading end of a pipe that is the standard output; pytest sets its own before a test."""
    reads, writes = os.pipe()
    with open(reads, encoding="utf-8") as reader, open(writes, "w", encoding="utf-8") as writer:
        monkeypatch.setattr(sys, "stdout", writer)
        yield reader


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[TextIO]]:
    return lambda: piped(monkeypatch)


Pipe = Callable[[], AbstractContextManager[TextIO]]


def test_json_line() -> None:
    assert json_line({"é": [1, None]}) == '{"é":[1,null]}\n'.encode()
    assert json_line("\x7f\x80\x9f\xa0 ") == '"\\u007f\\u0080\\u009f\xa0 "\n'.encode()


async def read(reader: TextIO) -> bytes:
    return await trio.to_thread.run_sync(os.read, reader.fileno(), 10_000, abandon_on_cancel=True)


async def test_a_slow_reader(pipe: Pipe) -> None:
    """Others go on meanwhile, and all of it arrives."""
    data = b"".join(b"%d\n" % number for number in range(50_000))
    with pipe() as reader, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Stdout().write, data)
            await wait_all_tasks_blocked()
            found = b""
            while len(found) < len(data):
                found += await read(reader)
    assert found == data


@pytest.mark.parametrize("separator", [b"\n", b""])
async def test_a_write_that_is_cancelled(pipe: Pipe, separator: bytes) -> None:
    """No line is torn, and nothing more is written afterwards."""
    item = b"x" * 99 + separator
    found = b""
    with pipe() as reader:
        with trio.move_on_after(0.2) as scope:
            await Stdout().write(item * 10_000)
        assert scope.cancelled_caught
        # What the thread was about to write goes into the place that is made for it, and no more.
        with trio.move_on_after(0.5):
            while True:
                found += await read(reader)
    assert 0 < len(found) <= 65_536 + 4_096
    if separator:
        assert found.replace(item, b"") == b""


async def test_a_reader_that_has_left(pipe: Pipe) -> None:
    with pipe() as reader:
        stdout = Stdout()
        async with trio.open_nursery() as nursery:
            left = trio.Event()

            async def watch() -> None:
                await stdout.wait_unread()
                left.set()

            nursery.start_soon(watch)
            await stdout.write(b"something\n")
            await trio.sleep(0.05)
            assert not left.is_set()
            reader.close()
            with trio.fail_after(20):
                await left.wait()
            with pytest.raises(BrokenPipeError):
                await stdout.write(b"x")
            with pytest.raises(BrokenPipeError):
                stdout.write_now(b"x")


async def test_a_file_is_always_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        await Stdout().write(b"1\n")
        Stdout().write_now(b"2\n")
        with trio.move_on_after(0.05) as scope:
            await Stdout().wait_unread()
    assert scope.cancelled_caught
    assert (tmp_path / "out").read_bytes() == b"1\n2\n"


async def test_no_output_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    await Stdout().write(b"1\n")
    Stdout().write_now(b"2\n")
    with trio.move_on_after(0.05) as scope:
        await Stdout().wait_unread()
    assert scope.cancelled_caught
