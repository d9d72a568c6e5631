"""Messages that are text, one to a line: how JSON goes over byte streams elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import trio

from trio_streamrpc.errors import ConnectionLost
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol import reactions
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.transports.base import MESSAGE_SLACK, Transport

__all__ = ["LineTransport"]

#: What becomes of a stream below, whatever it is.
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, OSError)

RECEIVE_BYTES = 64 * 1024


class LineTransport(Transport):
    """One message to a line, over any stream; empty lines are nothing.

    Where there is a ``stray``, it gets the lines that are no JSON object, and so no message of
    anybody's.
    """

    encoding: Encoding = "json"

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        remote: str,
        limits: Limits,
        stray: Callable[[bytes], None] | None = None,
    ) -> None:
        self._stream = stream
        self._stray = stray
        self._close_timeout = limits.close_timeout
        self._max_bytes = limits.max_message_bytes
        self.remote = remote
        self._data = bytearray()
        #: How much of it is known to hold no end of a line.
        self._searched = 0
        self._put_back: bytes | str | None = None
        self._torn = False
        self._closed = False
        self._now = trio.lowlevel.current_clock().current_time
        self.last_heard = self._now()

    def limit(self, max_message_bytes: int) -> None:
        self._max_bytes = max_message_bytes

    def put_back(self, message: bytes | str) -> None:
        self._put_back = message

    async def send(self, message: bytes | str) -> None:
        assert isinstance(message, str)
        if self._torn or self._closed:
            await trio.lowlevel.checkpoint()
            raise self._lost()
        self._torn = True
        try:
            # JSON has no line ends of its own but between values.
            line = message.replace("\r", " ").rstrip("\n").replace("\n", " ")
            await self._stream.send_all(line.encode() + b"\n")
            self._torn = False
        except BROKEN:
            raise self._lost() from None

    async def receive(self) -> bytes | str:
        if self._put_back is not None:
            await trio.lowlevel.checkpoint()
            message, self._put_back = self._put_back, None
            return message
        while True:
            line = self._next_line()
            if line is None:
                await self._receive_more()
            elif self._stray is not None and not line.lstrip().startswith(b"{"):
                self._stray(line)
            elif line.strip():
                await trio.lowlevel.checkpoint()
                return self._text(line)

    def _next_line(self) -> bytes | None:
        end = self._data.find(b"\n", self._searched)
        length = len(self._data) if end < 0 else end
        if length > self._max_bytes + MESSAGE_SLACK:
            raise reactions.MESSAGE_TOO_LONG.error(length, self._max_bytes)
        if end < 0:
            self._searched = len(self._data)
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 1]
        self._searched = 0
        return line

    def _text(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise reactions.NOT_UTF8.error(error.reason) from None

    async def _receive_more(self) -> None:
        try:
            data = await self._stream.receive_some(RECEIVE_BYTES)
        except BROKEN:
            raise self._lost() from None
        if not data:
            raise ConnectionLost(
                "the connection broke in the middle of a message"
                if self._data
                else "the other side closed the connection"
            )
        self.last_heard = self._now()
        self._data += data

    async def aclose(self) -> None:
        self._closed = True
        try:
            with trio.move_on_after(self._close_timeout):
                await self._stream.aclose()
        except BROKEN:
            pass
        finally:
            await trio.aclose_forcefully(self._stream)

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(
            "the transport was closed" if self._closed else "the connection broke"
        )
