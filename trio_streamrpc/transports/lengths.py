"""Messages with their length in front, cut out of the bytes that arrive (R3).

What is read is kept as it came, and cut up in place: a message is copied once, and never has more
memory than what of it has arrived.
"""

from __future__ import annotations

from trio_streamrpc.protocol import reactions
from trio_streamrpc.transports.base import MESSAGE_SLACK

__all__ = ["HEADER_BYTES", "MessageBuffer"]

#: The length in front of a message, in bytes.
HEADER_BYTES = 4

#: Pieces shorter than this are put together as they come.
SMALL_BYTES = 4096


class MessageBuffer:
    """What has arrived and was not taken yet, and the messages in it."""

    def __init__(self, max_message_bytes: int) -> None:
        self.max_message_bytes = max_message_bytes
        #: What came last, how much of it is used up, and where the message there ends.
        self._data = b""
        self._start = 0
        self._end = 0
        #: A message that comes in pieces: its header, what is still to come (below 0: not known
        #: yet), and what there is of it.
        self._header = b""
        self._missing = -1
        self._pieces: list[bytes | bytearray | memoryview] = []

    def __bool__(self) -> bool:
        return bool(self._header) or self._start < len(self._data)

    def feed(self, data: bytes | bytearray) -> None:
        """Put in what has arrived; there must be no whole message as yet."""
        self._data = bytes(data)
        self._start = 0

    def find(self) -> bool:
        """Whether there is a whole message; else what there is of one is kept.

        Raises :exc:`RemoteProtocolError` for one that is too long, as soon as its length is known.
        """
        if self._header:
            return self._gather()
        data, start = self._data, self._start
        body = start + HEADER_BYTES
        if body <= len(data):
            end = body + self._length(data[start:body])
            if end <= len(data):
                self._end = end
                return True
        if start < len(data):
            self._gather()
        return False

    def _gather(self) -> bool:
        """Add what has arrived to the message that comes in pieces; whether it is whole now."""
        if len(self._header) < HEADER_BYTES:
            self._header += self._use(HEADER_BYTES - len(self._header))
            if len(self._header) < HEADER_BYTES:
                return False
        if self._missing < 0:
            self._missing = self._length(self._header)
        piece = self._use(self._missing)
        self._missing -= len(piece)
        if len(piece) >= SMALL_BYTES:
            self._pieces.append(piece)
        elif piece:
            # Pieces of a few bytes would each cost many times that.
            last = self._pieces[-1] if self._pieces else b""
            if isinstance(last, bytearray):
                last += piece
            else:
                self._pieces.append(bytearray(piece))
        return self._missing == 0

    def _use(self, number: int) -> bytes | memoryview:
        """At most so many bytes of what has arrived last, which are used up then."""
        data, start = self._data, self._start
        end = min(start + number, len(data))
        if end == len(data):
            self._data = b""
            self._start = 0
            return memoryview(data)[start:] if start else data
        self._start = end
        return memoryview(data)[start:end]

    def take(self) -> bytes:
        """The message that was found."""
        if self._header:
            message = b"".join(self._pieces)
            self._header = b""
            self._missing = -1
            self._pieces = []
            return message
        data, end = self._data, self._end
        message = data[self._start + HEADER_BYTES : end]
        if end == len(data):
            # Nothing is kept until more comes, which may be far off.
            self._data = b""
            end = 0
        self._start = end
        return message

    def _length(self, header: bytes | bytearray) -> int:
        length = int.from_bytes(header, "big")
        if length > self.max_message_bytes + MESSAGE_SLACK:
            raise reactions.MESSAGE_TOO_LONG.error(length, self.max_message_bytes)
        return length
