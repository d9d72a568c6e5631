"""The standard output, as commands write it: whoever reads it may be slow, or leave.

What is written goes past Python's buffers, from a thread: a pipe that is full holds up its writer
and nothing else, so that a connection goes on meanwhile, and the stream that is printed waits.
"""

from __future__ import annotations

import os
import re
import select
import stat
import sys
import threading
from typing import Any

import msgspec
import trio

__all__ = ["Stdout", "json_line"]

#: How much a pipe takes as a whole, in bytes, wherever there is a limit to that.
ATOMIC = 4_096

#: What JSON leaves as it is and a terminal may obey: DEL, and the second set of control characters.
CONTROLS = re.compile(rb"\x7f|\xc2[\x80-\x9f]")


def json_line(value: Any) -> bytes:
    """A value as one line of JSON in UTF-8."""
    data = msgspec.json.encode(value)
    return CONTROLS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), data) + b"\n"


class Stdout:
    """The standard output; nothing happens to what is written if there is none."""

    def __init__(self) -> None:
        # Not the number 1: where it was closed, that is something else by now.
        self._fd = None if sys.stdout is None else sys.stdout.fileno()

    async def write(self, data: bytes) -> None:
        """Write all of it. Raises :exc:`BrokenPipeError` if nobody reads it any more.

        If this is cancelled, no line of up to 4 KiB is torn.
        """
        if self._fd is None:
            await trio.lowlevel.checkpoint()
            return
        stopped = threading.Event()
        try:
            await trio.to_thread.run_sync(
                write_all, self._fd, data, stopped, abandon_on_cancel=True
            )
        finally:
            # A thread that was left behind writes nothing more.
            stopped.set()

    def write_now(self, data: bytes) -> None:
        """Write all of it on the spot, where nothing has to go on meanwhile."""
        if self._fd is not None:
            write_all(self._fd, data, threading.Event())

    async def wait_unread(self) -> None:
        """Wait until nobody reads it any more; for ever where that cannot be known."""
        if self._fd is not None and is_pipe(self._fd) and hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self._fd, 0)  # what is asked for besides: that the other end is closed
            await trio.to_thread.run_sync(poll.poll, abandon_on_cancel=True)
        else:
            await trio.sleep_forever()


def is_pipe(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def write_all(fd: int, data: bytes, stopped: threading.Event) -> None:
    """Write all of it, however long that takes, or until it is to stop."""
    start = 0
    while start < len(data) and not stopped.is_set():
        # So much goes into a pipe at once, or not at all; of lines, whole ones.
        end = min(start + ATOMIC, len(data))
        if end < len(data):
            end = data.rfind(b"\n", start, end) + 1 or end
        start += os.write(fd, memoryview(data)[start:end])
