"""The standard streams of a child process, and those of this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio

from trio_streamrpc.errors import Unavailable
from trio_streamrpc.limits import Limits
from trio_streamrpc.transports.lines import LineTransport
from trio_streamrpc.transports.sockets import OrderlyStream

__all__ = ["lines_of_child", "open_child", "standard_streams"]


@asynccontextmanager
async def open_child(
    command: Sequence[str], *, grace: float, **options: Any
) -> AsyncIterator[trio.abc.HalfCloseableStream]:
    """Start a process; gives a stream of its standard input and output.

    When the block ends it is terminated, and killed if it has not ended ``grace`` seconds later.
    Raises :exc:`Unavailable` if it cannot be started.
    """
    try:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
        )
    except OSError as error:
        raise Unavailable(f"{command[0]!r} cannot be started: {error.strerror}") from None
    assert process.stdin is not None
    assert process.stdout is not None
    stream = trio.StapledStream(process.stdin, process.stdout)
    try:
        yield stream
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
            await _end(process, grace)


def lines_of_child(
    stream: trio.abc.HalfCloseableStream, *, remote: str, limits: Limits
) -> LineTransport:
    """Its messages, one to a line; what else it prints goes to this process's standard error."""
    orderly = OrderlyStream(stream)
    return LineTransport(orderly, remote=remote, limits=limits, stray=_pass_through)


def _pass_through(line: bytes) -> None:
    if sys.stderr is not None and line.strip():
        sys.stderr.write(f"{line.decode(errors='replace')}\n")


async def _end(process: trio.Process, grace: float) -> None:
    if process.poll() is None:
        process.terminate()
        with trio.move_on_after(grace):
            await process.wait()
        if process.poll() is None:
            process.kill()
    await process.wait()


@contextmanager
def standard_streams() -> Iterator[trio.abc.Stream]:
    """This process's standard input and output as one stream.

    While it is open, what is printed goes to the standard error, and nothing is to be read from
    ``sys.stdin``: what belongs to the other side is not mixed with it.
    """
    sys.stdout.flush()
    taken = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    blocking = [os.get_blocking(each) for each in taken]
    back = [os.dup(each) for each in taken]
    stream = trio.StapledStream(trio.lowlevel.FdStream(taken[1]), trio.lowlevel.FdStream(taken[0]))
    try:
        yield stream
    finally:
        sys.stdout.flush()
        for number, each in enumerate(back):
            os.set_blocking(each, blocking[number])
            os.dup2(each, number)
            os.close(each)
