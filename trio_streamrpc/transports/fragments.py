"""How many of a WebSocket's frames are handed on at once, and how many make one message.

The WebSocket library takes whatever has been read to pieces in one go, at tens of microseconds for
a frame: a quarter of a megabyte of fragments of one byte would hold up everybody else for seconds.
Here only the frames' headers are looked at (RFC 6455, section 5.2).
"""

from __future__ import annotations

import re

__all__ = ["AT_ONCE", "END_OF_HEAD", "MAX_FRAGMENTS", "FrameCounter"]

#: The most frames that are handed on before others may run: some milliseconds' work.
AT_ONCE = 64

#: The most frames of which none completes its message. A message of 1 MiB in so many has 256 bytes
#: in each.
MAX_FRAGMENTS = 4096

#: The empty line that ends the head of a handshake, as h11 finds it: line feeds alone are enough.
#: With another one, a peer would choose where frames are looked for.
END_OF_HEAD = re.compile(rb"\n\r?\n")

#: The bits of a frame's first two bytes: its last fragment; control frames; a mask; the length.
FIN, CONTROL, MASK, LENGTH = 0x80, 0x08, 0x80, 0x7F


class FrameCounter:
    """Follows the bytes that come in over a WebSocket, from the head of its handshake on."""

    __slots__ = ("_head", "_header", "_left", "exceeded", "fragments")

    def __init__(self) -> None:
        #: The last bytes of the handshake's head, as long as it is not over.
        self._head: bytes | None = b""
        #: The beginning of a frame's header of which not all has come.
        self._header = b""
        #: What is still to come of a frame's payload.
        self._left = 0
        #: The frames since the last message was whole.
        self.fragments = 0
        #: Whether there were too many of them.
        self.exceeded = False

    def cut(self, data: bytes | bytearray, start: int = 0) -> int:
        """Up to where the bytes from ``start`` on may be handed on at once.

        They are to be handed on, and what is behind them is to be asked for again.
        """
        at, end = start, len(data)
        if self._head is not None:
            at = self._skip_head(data, start)
        for _ in range(AT_ONCE):
            taken = min(self._left, end - at)
            self._left -= taken
            at += taken
            if at == end:
                break
            at = self._read_header(data, at)
        return at

    def _skip_head(self, data: bytes | bytearray, start: int) -> int:
        assert self._head is not None
        head = self._head + data[start:]
        found = END_OF_HEAD.search(head)
        if found is None:
            self._head = head[-2:]
            return len(data)
        at = start + found.end() - len(self._head)
        self._head = None
        return at

    def _read_header(self, data: bytes | bytearray, at: int) -> int:
        """Read the header that begins, or goes on, there; gives where what came of it ends."""
        header = self._header + data[at : at + 14 - len(self._header)]
        length, size = 0, 2
        if len(header) >= 2:
            length = header[1] & LENGTH
            if length > 125:
                extended = 2 if length == 126 else 8
                length = int.from_bytes(header[2 : 2 + extended], "big")
                size += extended
            if header[1] & MASK:
                size += 4
        if len(header) < size:
            self._header = header
            return len(data)
        at += size - len(self._header)
        self._header = b""
        self._left = length
        if not header[0] & CONTROL:
            self.fragments = 0 if header[0] & FIN else self.fragments + 1
            if self.fragments > MAX_FRAGMENTS:
                self.exceeded = True
        return at
