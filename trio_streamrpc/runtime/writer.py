"""What writes to a connection's transport: one message after the other, and nothing else does.

It is a task, which nothing cancels in the middle of a message. Where it stands idle, and the
transport takes a message without waiting, whoever has something to say may write it on the spot:
for one call after the other, the two switches of tasks that this saves are a good part of its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_streamrpc.errors import ConnectionLost, InternalError
from trio_streamrpc.runtime.failures import LOGGER
from trio_streamrpc.runtime.parking import Parking

if TYPE_CHECKING:
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["LAST_WORD", "Writer"]

#: How long a connection that is cancelled, or that fails, may take to say a last word.
LAST_WORD = 1.0


class Writer:
    """Takes messages from the outbox and gives them to the transport."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._endpoint = connection.endpoint
        self._transport = connection.transport
        self._now = trio.lowlevel.current_clock().current_time
        #: Where its task waits for something to write.
        self._parking = Parking()
        #: What was to be written on the spot, and was not, or not all of it.
        self._unsent: bytes | str | None = None
        #: When the message began that is being written now, on Trio's clock.
        self.since: float | None = None
        #: Whether the transport takes no more messages.
        self.broken = False
        self._flushed: trio.Event | None = None

    def wake(self) -> None:
        """Something may have been put into the outbox."""
        self._parking.unpark()

    @trio.lowlevel.enable_ki_protection
    def push(self) -> None:
        """Write what waits in the outbox, on the spot if that is possible.

        For those that have said all that they have to say: what others say with them would travel
        in messages of its own.
        """
        if not self._transport.sends_nowait or not self._parking.occupied:
            self.wake()
            return
        try:
            message = self._next()
            if message is None:
                return
            if self._transport.send_nowait(message):
                self._connection.on_written()
                if self._endpoint.outbox:
                    self.wake()
            else:
                self._unsent, self.since = message, self._now()
                self.wake()
        except Exception as error:
            # It is nothing that whoever has said something could do anything about.
            self._fail(error)

    def _next(self) -> bytes | str | None:
        message = self._endpoint.next_message()
        if self._endpoint.outbox.unblocked:
            for id in self._endpoint.unblocked():
                self._connection.callee.on_credit(id)
        if self._endpoint.answered:
            self._connection.on_answered()
        return message

    async def run(self) -> None:
        """Write until the connection is lost."""
        connection, endpoint, transport = self._connection, self._endpoint, self._transport
        try:
            while True:
                message, self._unsent = self._unsent, None
                if message is None and endpoint.outbox:
                    message = self._next()
                if message is None:
                    self.release()
                    await self._parking.park()
                    continue
                self.since = self._now()
                await transport.send(message)
                # It may be large, and the next one far off.
                message = None
                self.since = None
                connection.on_written()
        except ConnectionLost as error:
            self.since = None
            self.broken = True
            if not connection.alive:
                # Who waits to have said a last word waits in vain.
                self.release()
            # What had arrived by then is still to be read: it is the reader that finds the end.
            with trio.move_on_after(LAST_WORD):
                await connection.wait_closed()
            connection.lose(error)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """A fault of this library, or of a transport."""
        self.since = None
        self.broken = True
        LOGGER.error("the connection with %s failed", self._connection.remote, exc_info=error)
        self._connection.lose(InternalError(f"the connection failed: {type(error).__name__}"))

    @property
    def idle(self) -> bool:
        """Whether all that was said is with the transport."""
        return self.since is None and not self._endpoint.outbox

    async def flush(self) -> None:
        """Wait until the writer is idle, or for ever."""
        if not self.idle:
            self.wake()
            await self.next_flush()

    async def next_flush(self) -> None:
        """Wait until the writer has written all that there was, or is released."""
        if self._flushed is None:
            self._flushed = trio.Event()
        await self._flushed.wait()

    def release(self) -> None:
        """Who waits for the writer to be idle looks again."""
        if self._flushed is not None:
            self._flushed.set()
            self._flushed = None
