"""Long byte strings, which are sent from where they are, and come together where they will stay.

To encode and to decode one is a copy each, and a copy of a hundred megabytes holds up everything
else for as long as it takes. In msgpack such a value is a header and then its bytes, so that
neither copy is needed: its parts are views of the bytes themselves (R21), and what is collected
behind the header is the value. JSON has no such form: there, bytes are base64.
"""

from __future__ import annotations

from io import BytesIO
from typing import final

from msgspec import Raw

__all__ = ["BINARY_BYTES", "Binary", "Encoded", "Gathering", "Payload", "pieces_of"]

#: From here on a byte string is not copied: below it, a copy takes a few microseconds.
BINARY_BYTES = 256 * 1024

#: What msgpack says in front of a byte string of that length: a mark and four bytes of its length.
MARK = b"\xc6"
HEADER_BYTES = 5


@final
class Binary:
    """A byte string as a payload: its encoding without a copy of it."""

    __slots__ = ("body", "header")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.header = MARK + len(body).to_bytes(HEADER_BYTES - len(MARK), "big")

    def __len__(self) -> int:
        return HEADER_BYTES + len(self.body)

    def copy(self) -> Binary:
        """Itself, as no message is kept for it: compare ``Raw.copy``."""
        return self

    def joined(self) -> Raw:
        """The encoding in one piece, which is a copy."""
        return Raw(self.header + self.body)


#: One value's encoding, as it is made here, and as it comes.
Encoded = bytes | Binary
Payload = Raw | Encoded


def pieces_of(payload: Payload) -> tuple[memoryview, ...]:
    """Views of the bytes of an encoding, in order."""
    if isinstance(payload, Binary):
        return memoryview(payload.header), memoryview(payload.body)
    return (memoryview(payload),)


class Gathering:
    """A value of that many bytes while its parts come: it holds what has come, and no more.

    With ``binary``, one that turns out to be a byte string comes together as that.
    """

    __slots__ = ("_body", "_data", "_size", "_undecided")

    def __init__(self, size: int, *, binary: bool) -> None:
        self._size = size
        self._data = bytearray()
        self._body: BytesIO | None = None
        #: Whether it may be a byte string, as far as is known.
        self._undecided = binary and size >= BINARY_BYTES

    def add(self, part: memoryview | bytes) -> None:
        """What comes next of it."""
        if self._body is not None:
            self._body.write(part)
            return
        data = self._data
        data += part
        if self._undecided and len(data) >= HEADER_BYTES:
            self._undecided = False
            length = int.from_bytes(data[len(MARK) : HEADER_BYTES], "big")
            if data.startswith(MARK) and length == self._size - HEADER_BYTES:
                self._body = BytesIO()
                self._body.write(memoryview(data)[HEADER_BYTES:])
                self._data = bytearray()

    def take(self) -> bytearray | Binary:
        """All of it, once it has come whole."""
        if self._body is not None:
            # No copy: it is what was written, with nobody else to write into it.
            return Binary(self._body.getvalue())
        return self._data
