"""The file that is transferred: a fixed part of a regular file, or a temporary one."""

import hashlib
import os
import tempfile
from pathlib import Path

import pytest
import trio

from trio_streamrpc.cli import demo_source
from trio_streamrpc.cli.demo_source import BadFile, open_random, open_source


async def test_a_file_has_a_name_a_size_and_a_digest(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(b"0123456789")
    async with open_source(path) as source:
        assert source.name == "'a file'"
        assert source.size == 10
        assert await source.read(0, 4) == b"0123"
        assert await source.read(8, 4) == b"89"
        assert await source.read(10, 4) == b""
        assert await source.sha256() == hashlib.sha256(b"0123456789").hexdigest()


async def test_what_is_appended_later_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before")
    async with open_source(path) as source:
        with path.open("ab") as log:
            log.write(b" and after")
        assert await source.read(0, 100) == b"before"
        assert await source.sha256() == hashlib.sha256(b"before").hexdigest()


async def test_a_digest_is_made_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_source, "STEP_BYTES", 3)
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    async with open_source(path) as source:
        assert await source.sha256() == hashlib.sha256(b"0123456789").hexdigest()


async def test_a_name_that_is_too_long() -> None:
    with pytest.raises(BadFile, match="File name too long"):
        async with open_source(Path("x" * 5000)):
            pass


async def test_random_bytes_are_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo_source, "STEP_BYTES", 300)
    async with open_random(1000) as source:
        assert source.size == 1000
        first = await source.read(0, 2000)
        assert len(first) == 1000
        assert len(set(first)) > 100
    assert os.listdir(tmp_path) == []


async def test_a_run_without_a_file_gets_random_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_source, "RANDOM_BYTES", 2_000_000)
    async with open_source(None) as source:
        assert source.name == "2 MB of random bytes"
        assert source.size == 2_000_000


async def test_making_random_bytes_can_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_random(1000):
            raise AssertionError("not reached")
    assert scope.cancelled_caught
    assert os.listdir(tmp_path) == []
