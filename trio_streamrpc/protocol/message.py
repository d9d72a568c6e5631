"""One message while it is filled (R1)."""

from __future__ import annotations

from trio_streamrpc.protocol.frames import Frame

__all__ = ["FRAME_BYTES", "MESSAGE_BYTES", "MESSAGE_CALLS", "Message"]

#: A message is filled up to about this many bytes (R1).
MESSAGE_BYTES = 64 * 1024
#: The most calls of one message, and the most answers: the other side is to work on the first of
#: many while this one still writes the others.
MESSAGE_CALLS = 32
#: What a frame costs beside its payload: an upper bound, so that a message is never longer than it
#: was reckoned.
FRAME_BYTES = 112


class Message:
    """What goes into one message: as much as fits, or one frame of any length (R1)."""

    __slots__ = ("answers", "frames", "limit", "room")

    def __init__(self, room: int, limit: int) -> None:
        self.frames: list[Frame] = []
        self.room = room
        self.limit = limit
        #: How many answers may still go in.
        self.answers = MESSAGE_CALLS

    def fits(self, size: int) -> bool:
        """Whether a frame with so many bytes of payload may go in."""
        return not self.frames or (
            size + FRAME_BYTES <= self.room and len(self.frames) < self.limit
        )

    def add(self, frame: Frame, size: int = 0) -> bool:
        """Put it in, if it fits."""
        if not self.fits(size):
            return False
        self.put(frame, size)
        return True

    def add_answer(self, frame: Frame, size: int) -> bool:
        """Put in an answer, if it fits."""
        if not self.answers or not self.add(frame, size):
            return False
        self.answers -= 1
        return True

    def put(self, frame: Frame, size: int) -> None:
        """Put it in; it fits."""
        self.frames.append(frame)
        self.room -= size + FRAME_BYTES
