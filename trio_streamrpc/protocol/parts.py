"""Values that travel in parts: how they are cut, and how many may be under way at once (R21).

This is the sending side, as pure data; :mod:`.outbox` decides when a part is written, and
:mod:`.assembly` is where the parts come together again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, final

from trio_streamrpc.errors import LocalProtocolError, ResourceExhausted
from trio_streamrpc.protocol.frames import Call, Chunk, Family, Result
from trio_streamrpc.protocol.message import FRAME_BYTES, Message

__all__ = ["MAX_PARTS", "Claim", "Room", "Slices", "Value"]

#: In how many parts a value is cut at most: a part is a thousand times dearer to write than a byte,
#: and it is the other side that says how long they are.
MAX_PARTS = 16_384


class Slices:
    """A value that is cut while it is written.

    It may be given in several pieces. No more of it is copied than one part at a time, and in
    msgpack not even that: parts are views of the pieces.
    """

    __slots__ = ("_pieces", "left", "text")

    def __init__(self, *pieces: bytes | memoryview, text: bool) -> None:
        self._pieces = deque(memoryview(piece) for piece in pieces if len(piece))
        self.text = text
        #: How many bytes have not been cut off yet.
        self.left = sum(map(len, pieces))

    def cut(self, limit: int) -> memoryview | str:
        """The next part, of at most that many bytes: at least 1, or one character.

        A part of a text is cut between characters; its bytes are those of its UTF-8.
        """
        found: list[memoryview] = []
        limit = max(limit, 1)
        while self._pieces and limit > 0:
            piece = self._pieces.popleft()
            if len(piece) > limit:
                end = self._place(piece, limit, alone=not found)
                if end < len(piece):
                    self._pieces.appendleft(piece[end:])
                piece = piece[:end]
                limit = 0
            limit -= len(piece)
            found.append(piece)
        part = found[0] if len(found) == 1 else memoryview(b"".join(found))
        self.left -= len(part)
        return str(part, "utf-8") if self.text else part

    def _place(self, piece: memoryview, limit: int, *, alone: bool) -> int:
        """Where to cut: at the limit, or in front of the character that stands across it.

        A character that is alone, and longer than the limit, is cut off whole.
        """
        if not self.text:
            return limit
        end = limit
        while end > 0 and piece[end] & 0xC0 == 0x80:
            end -= 1
        if end == 0 and alone:
            end = 1
            while end < len(piece) and piece[end] & 0xC0 == 0x80:
                end += 1
        return end


class Claim:
    """A place among the unfinished values, for one of that many bytes.

    ``owner`` is what waits for it in the outbox; None if that is a call that is not there yet.
    """

    __slots__ = ("granted", "owner", "size")

    def __init__(self, size: int, owner: object = None) -> None:
        self.size = size
        self.owner = owner
        self.granted = False


class Room:
    """What the other side takes of unfinished values, and who waits for a part of it (R21).

    Strictly in order: whoever comes later waits behind, even if it would fit. So large values are
    not kept out by small ones, nor calls by results, nor the other way round. ``granted`` is
    called with each claim that was waiting and has its place now.
    """

    __slots__ = ("_granted", "_line", "limit", "used")

    def __init__(self, limit: int, granted: Callable[[Claim], None]) -> None:
        self.limit = limit
        #: The bytes of all places that are taken.
        self.used = 0
        self._line: list[Claim] = []
        self._granted = granted

    def claim(self, size: int, owner: object = None) -> Claim:
        """A place, if there is room and nobody waits; else a place in the line."""
        claim = Claim(size, owner)
        if self._line or self.used + size > self.limit:
            self._line.append(claim)
        else:
            claim.granted = True
            self.used += size
        return claim

    def checked(self, claim: Claim | None, size: int) -> Claim:
        """The claim that a call of so many bytes in parts goes out on.

        Without one, :exc:`ResourceExhausted` is raised if none can be had at once.
        """
        if claim is None:
            claim = self.claim(size)
            if not claim.granted:
                self.give_up(claim)
                raise ResourceExhausted(
                    f"there is no room for {size} bytes among the values that are under way"
                )
        elif not claim.granted or claim.size != size:
            raise LocalProtocolError("a claim that is not granted, or was for another call")
        return claim

    def give_up(self, claim: Claim) -> None:
        """The value has gone out whole, or will never; a claim that was given up is left alone."""
        if claim.granted:
            claim.granted = False
            self.used -= claim.size
        elif claim in self._line:
            self._line.remove(claim)
        while self._line and self.used + self._line[0].size <= self.limit:
            first = self._line.pop(0)
            first.granted = True
            self.used += first.size
            self._granted(first)


@final
class Value:
    """A value that goes out in parts: a call's, a result, or an item of a stream.

    ``header`` is the frame that announces it; a call's goes out with the calls, and is not here.
    """

    __slots__ = ("claim", "factor", "final", "header", "id", "priority", "shortest", "slices")

    def __init__(
        self,
        id: int,
        slices: Slices,
        priority: int,
        *,
        claim: Claim | None = None,
        header: Result | Chunk | None = None,
    ) -> None:
        self.id = id
        #: What is still to be written; None if that is nothing any more.
        self.slices: Slices | None = slices
        # In JSON, a part is a string in a string: a character takes up to twice its bytes there.
        self.factor = 2 if slices.text else 1
        #: What a part may be as long as, however little the other side asks for at once.
        self.shortest = slices.left // MAX_PARTS + 1
        self.priority = priority
        self.claim = claim
        self.header = header
        #: The frame that is written with the last part: a result, or the call that has begun.
        self.final: Call | Result | None = header if isinstance(header, Result) else None

    def write(self, message: Message, family: Family, least: int, most: int) -> bool:
        """Put the frame that announces it into a message, and a part of it.

        A part takes between these numbers of bytes there, if there is so much left. False if not
        even the first of the two frames fits.
        """
        announced = self.header is not None
        if self.header is not None:
            if not message.add(self.header):
                return False
            self.header = None
        slices = self.slices
        assert slices is not None
        if not message.fits(min(least, slices.left * self.factor)):
            return announced
        left = slices.left
        data: Any = slices.cut(min(most, message.room - FRAME_BYTES) // self.factor)
        message.put(family.part(self.id, data), (left - slices.left) * self.factor)
        return True
