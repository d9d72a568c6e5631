"""The byte stream below a WebSocket: what comes in is counted, and bounded between messages."""

from __future__ import annotations

import re

import trio

from trio_streamrpc.transports.fragments import FrameCounter

__all__ = ["CountedStream"]

#: How much is read at once, at most: several messages where they are long. Trio's own 64 KiB would
#: be two reads for a message that is a little longer than that.
RECEIVE_BYTES = 256 * 1024

#: How much of a handshake is read at once, at most: that it is too long (16 KiB, in h11) is found
#: only between two reads.
HANDSHAKE_BYTES = 16 * 1024

#: What no handshake has, and what h11 takes seconds for: a header with so many blanks, which may be
#: spread over lines, takes it a time that grows with the square of their number.
BLANKS = 64
_BLANKS = re.compile(rb"[ \t\r\n]{%d}" % BLANKS)

#: What a server answers a handshake with begins with its status, within so many bytes.
HEAD_BYTES = 64


class CountedStream(trio.abc.Stream):
    """A byte stream that knows when it last heard something, and how much since a whole message.

    Endless fragments make no message, and neither do control frames: more than twice the longest
    message without a whole one, or too many fragments of it, and the stream is broken off. What is
    read at once is handed on a few frames at a time.

    Until the handshake is done (:meth:`settle`), less is read at once, and it is broken off as well
    if what comes would keep h11 busy.
    """

    def __init__(
        self, stream: trio.abc.Stream, max_unfinished: int, *, head_bytes: int = HEAD_BYTES
    ) -> None:
        self.stream = stream
        self.max_unfinished = max_unfinished
        self.unfinished = 0
        self.exceeded = False
        self._frames = FrameCounter()
        #: What was read and is not handed on yet, from that place on.
        self._rest: bytes | bytearray = b""
        self._at = 0
        #: How much is read at once.
        self.receive_bytes = HANDSHAKE_BYTES
        #: The last bytes of the handshake, as long as it is not done.
        self._tail: bytes | None = b""
        #: The first bytes that came in, and how many of them are kept at most.
        self.head = b""
        self.head_bytes = head_bytes
        self._now = trio.lowlevel.current_clock().current_time
        self.last_heard = self._now()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.unfinished > self.max_unfinished:
            raise self._exceed()
        data, start = self._rest, self._at
        if data:
            await trio.lowlevel.checkpoint()
        else:
            data = await self.stream.receive_some(
                max_bytes or min(self.receive_bytes, self.max_unfinished)
            )
            self.unfinished += len(data)
            if len(self.head) < self.head_bytes:
                self.head += data[: self.head_bytes]
            self.last_heard = self._now()
            if self._tail is not None:
                tail = self._tail + data
                if _BLANKS.search(tail):
                    raise trio.BrokenResourceError("too many blanks in a handshake")
                self._tail = tail[1 - BLANKS :]
        end = self._frames.cut(data, start)
        if self._frames.exceeded:
            raise self._exceed()
        if end == len(data):
            self._rest, self._at = b"", 0
            return data[start:] if start else data
        self._rest, self._at = data, end
        return data[start:end]

    def settle(self) -> None:
        """The handshake is done: what comes now is messages."""
        self.receive_bytes = RECEIVE_BYTES
        self._tail = None

    def _exceed(self) -> trio.BrokenResourceError:
        self.exceeded = True
        return trio.BrokenResourceError("too many bytes or fragments without a whole message")

    async def aclose(self) -> None:
        await self.stream.aclose()
