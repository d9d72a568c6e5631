"""The file that the demonstration transfers: the user's, or a temporary one of random bytes."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import click
import trio

__all__ = ["BadFile", "Source", "open_random", "open_source"]

#: The size of the temporary file, in bytes.
RANDOM_BYTES = 100_000_000

#: How much is written or hashed before a cancellation is looked for.
STEP_BYTES = 4 * 1024 * 1024


class BadFile(click.ClickException):
    """A file that cannot be transferred: a mistake in the call, told in one line."""

    exit_code = 2


class Source:
    """An open file of a known size, read at any place from any thread.

    What is appended after it was opened is no part of it, so that a log file is a file too.
    """

    def __init__(self, file: BinaryIO, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._file = file
        # A seek and its read belong together, and reads come from several threads.
        self._lock = threading.Lock()

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset`` on; none at the end. It blocks."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(min(size, self.size - offset))

    async def read(self, offset: int, size: int) -> bytes:
        """The same, in a thread."""
        return await trio.to_thread.run_sync(self.read_at, offset, size)

    async def sha256(self) -> str:
        """The digest of the whole file in hexadecimal, read anew and hashed in a thread."""
        digest = hashlib.sha256()

        def step(offset: int) -> int:
            piece = self.read_at(offset, STEP_BYTES)
            digest.update(piece)
            return len(piece)

        offset = 0
        while length := await trio.to_thread.run_sync(step, offset):
            offset += length
        return digest.hexdigest()


@asynccontextmanager
async def open_source(path: Path | None) -> AsyncIterator[Source]:
    """The file at a path, or a temporary one of random bytes; raises :exc:`BadFile`."""
    if path is None:
        async with open_random(RANDOM_BYTES) as source:
            yield source
        return
    with await trio.to_thread.run_sync(open_readable, path) as file:
        yield Source(file, repr(path.name), os.fstat(file.fileno()).st_size)


def open_readable(path: Path) -> BinaryIO:
    """Open a regular file for reading; raises :exc:`BadFile` for anything else."""
    try:
        # Looked at first: to open a pipe would wait for somebody to write to it.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise BadFile(f"cannot read {str(path)!r}: it is a directory")
        if not stat.S_ISREG(mode):
            raise BadFile(f"cannot read {str(path)!r}: it is not a regular file")
        return path.open("rb")
    except OSError as error:
        raise BadFile(f"cannot read {str(path)!r}: {error.strerror or error}") from None


@asynccontextmanager
async def open_random(size: int) -> AsyncIterator[Source]:
    """A temporary file of random bytes; it is gone when the block ends, however it ends."""

    def write(length: int) -> None:
        file.write(os.urandom(length))

    # Without a name where the system can do that: not even a kill leaves it behind.
    with tempfile.TemporaryFile(prefix="trio-streamrpc-demo-") as file:
        for offset in range(0, size, STEP_BYTES):
            await trio.to_thread.run_sync(write, min(STEP_BYTES, size - offset))
        await trio.to_thread.run_sync(file.flush)
        yield Source(file, f"{size / 1e6:.0f} MB of random bytes", size)
