"""A listener that outlives a shortage: of file descriptors, or of memory for sockets."""

from __future__ import annotations

import errno
import logging
import math

import trio

__all__ = ["PatientListener"]

LOGGER = logging.getLogger("trio_streamrpc")

#: What is there again by and by: descriptors of this process, of the system; memory; buffers.
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}

#: How long it waits before it tries again, and how often at most it says so, in seconds.
PAUSE = 0.1
SAID_EVERY = 60.0


class PatientListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts from another listener, and waits where there is nothing to accept with.

    Who wants to connect waits meanwhile, in the queue of the operating system; those who are
    connected notice nothing. It is logged, once a minute at most. (Trio's own accept loop bears a
    shortage as well, with a traceback in the log ten times a second.)
    """

    def __init__(self, listener: trio.abc.Listener[trio.abc.Stream]) -> None:
        self._listener = listener
        self._said = -math.inf

    async def accept(self) -> trio.abc.Stream:
        """The next connection, however long there is no descriptor for it."""
        while True:
            try:
                return await self._listener.accept()
            except OSError as error:
                if error.errno not in SHORTAGES:
                    raise
                self._say(error)
            await trio.sleep(PAUSE)

    def _say(self, error: OSError) -> None:
        now = trio.current_time()
        if now >= self._said + SAID_EVERY:
            self._said = now
            LOGGER.error("nobody can be accepted: %s; it is tried again and again", error.strerror)

    async def aclose(self) -> None:
        """Close the listener; connections are none of its business."""
        await self._listener.aclose()
