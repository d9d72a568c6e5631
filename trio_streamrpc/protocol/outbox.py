"""What waits to be written, and in which order (R1, R12).

Three kinds of place, emptied in this order: control frames; opening frames, which stay in the
order of their ids; and everything else, by turns between ids. Items of one stream that wait are
put together into one chunk, and frames that wait into one message; nothing ever waits to be put
together with what is not there yet (R1).

How much can wait is bounded from outside: items by the credit of their stream, answers by the
calls that run, grants by merging, and other control frames by ``control_bytes`` (R24).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import Raw

from trio_streamrpc.protocol.frames import (
    Call,
    Chunk,
    End,
    Error,
    Family,
    Frame,
    Grant,
    Result,
)

__all__ = ["Outbox"]

#: A message is filled up to about this many bytes (R1).
MESSAGE_BYTES = 64 * 1024
#: What one id may put into a message before it is another's turn.
TURN_BYTES = 16 * 1024
#: What a frame costs beside its payload, and an item beside its encoding: upper bounds, so that a
#: message is never longer than it was reckoned.
FRAME_BYTES = 112
ITEM_BYTES = 1
#: What may wait here for one stream. Credit alone is no bound on this side's memory: it is the
#: other side that grants it, and it may grant without reading.
QUEUE_BYTES = 256 * 1024
QUEUE_ITEMS = 4096


class _Queue:
    """What waits for one stream: items, then perhaps its final frame."""

    __slots__ = ("blocked", "bytes", "final", "final_size", "id", "items", "sizes", "waiting")

    def __init__(self, id: int) -> None:
        self.id = id
        self.items: list[Raw] = []
        self.sizes: list[int] = []
        self.bytes = 0
        #: Whether its producer was told to wait until some of this is written.
        self.blocked = False
        self.final: End | Error | None = None
        self.final_size = 0
        #: Whether this queue stands in line for its turn.
        self.waiting = False


class _Message:
    """What goes into one message: as much as fits, or one frame of any length (R1)."""

    __slots__ = ("frames", "limit", "room")

    def __init__(self, room: int, limit: int) -> None:
        self.frames: list[Frame] = []
        self.room = room
        self.limit = limit

    def fits(self, size: int) -> bool:
        """Whether a frame with so many bytes of payload may go in."""
        return not self.frames or (
            size + FRAME_BYTES <= self.room and len(self.frames) < self.limit
        )

    def add(self, frame: Frame, size: int = 0) -> bool:
        """Put it in, if it fits."""
        if not self.fits(size):
            return False
        self.frames.append(frame)
        self.room -= size + FRAME_BYTES
        return True


class Outbox:
    """The waiting frames of one connection.

    ``written`` is called with each call and each final frame as it is taken into a message: that is
    the moment at which the callee's place is free again (R26).
    """

    def __init__(
        self, family: Family, written: Callable[[Call | Result | End | Error], None]
    ) -> None:
        self._family = family
        self._written = written
        self._control: deque[tuple[Frame, int]] = deque()
        #: Bytes of control frames and refusals that wait, grants aside: those merge (R24).
        self.control_bytes = 0
        self._grants: dict[int, Grant] = {}
        # A dict, so that a call that is given up before it was written is taken out at once (R12).
        self._opening: dict[int, tuple[Call | Chunk, int]] = {}
        self._queues: dict[int, _Queue] = {}
        self._turns: deque[_Queue | tuple[Result | Error, int]] = deque()
        self._refusals: deque[tuple[Error, int]] = deque()
        #: What alone is still to be written, once the connection has failed.
        self._last: list[Frame] | None = None
        #: Streams whose producers may go on, since what waited for them was taken.
        self.unblocked: list[int] = []
        #: The most that goes into one message and one chunk; the other side's limits (R26, R28).
        self.message_bytes = MESSAGE_BYTES
        self.message_frames = 4096
        self.chunk_bytes = MESSAGE_BYTES

    def __bool__(self) -> bool:
        if self._last is not None:
            return bool(self._last)
        return bool(self._control or self._grants or self._opening or self._turns or self._refusals)

    def add_control(self, frame: Frame, size: int = 0) -> None:
        """A hello, ping, pong, cancel or goaway; ``size`` is its payload's."""
        self._control.append((frame, size))
        self.control_bytes += FRAME_BYTES + size

    def add_grant(self, id: int, items: int, bytes: int) -> None:
        """Credit for the producer of that stream, merged with what already waits for it (R24)."""
        waiting = self._grants.get(id)
        if waiting is None:
            self._grants[id] = self._family.grant(id, items, bytes)
        else:
            waiting.items += items
            waiting.bytes += bytes

    def drop_grant(self, id: int) -> None:
        """Forget the credit that waits for that stream: its consumer leaves."""
        self._grants.pop(id, None)

    def add_opening(self, id: int, frame: Call | Chunk, size: int) -> None:
        """A frame that opens that id, the first of its ids.

        Ids only ever go up, so the order of adding is that of the ids.
        """
        self._opening[id] = (frame, size)

    def remove_opening(self, id: int) -> bool:
        """Take back what opens that id; False if it is written already (R12)."""
        return self._opening.pop(id, None) is not None

    def unwritten_calls(self) -> list[int]:
        """The ids of calls of the service that were not yet written."""
        return [
            id
            for id, (frame, _) in self._opening.items()
            if isinstance(frame, Call) and not frame.target
        ]

    def add_answer(self, frame: Result | Error, size: int) -> None:
        """The final frame of a unary call."""
        self._turns.append((frame, size))

    def add_refusal(self, frame: Error, size: int) -> None:
        """The final frame of a call that was never started: bounded with the control frames."""
        self._refusals.append((frame, size))
        self.control_bytes += FRAME_BYTES + size

    def has_room(self, id: int) -> bool:
        """Whether that stream may put in another item; if not, ``unblocked`` will name it."""
        queue = self._queues.get(id)
        if queue is None or (queue.bytes < QUEUE_BYTES and len(queue.items) < QUEUE_ITEMS):
            return True
        queue.blocked = True
        return False

    def add_item(self, id: int, item: Raw, size: int) -> None:
        """An item of a stream, for which credit was spent."""
        queue = self._queues.get(id)
        if queue is None:
            queue = self._queues[id] = _Queue(id)
        queue.items.append(item)
        queue.sizes.append(size)
        queue.bytes += size
        if not queue.waiting:
            queue.waiting = True
            self._turns.append(queue)

    def add_final(self, frame: End | Error, size: int = 0) -> None:
        """The final frame of a stream, after its items."""
        queue = self._queues.get(frame.id)
        if queue is None:
            queue = self._queues[frame.id] = _Queue(frame.id)
        queue.final, queue.final_size = frame, size
        if not queue.waiting:
            queue.waiting = True
            self._turns.append(queue)

    def drop_items(self, id: int) -> None:
        """Forget the waiting items of a stream that its consumer has cancelled (R9)."""
        queue = self._queues.get(id)
        if queue is not None:
            queue.items, queue.sizes, queue.bytes = [], [], 0

    def remove_stream(self, id: int) -> None:
        """Forget all that waits for a stream whose call was taken back."""
        queue = self._queues.pop(id, None)
        if queue is not None and queue.waiting:
            self._turns.remove(queue)

    def finish(self, *last: Frame) -> None:
        """The connection has failed: nothing more is written but this (R27)."""
        self._last = list(last)

    def take(self) -> list[Frame]:
        """The frames of the next message; none if nothing waits."""
        if self._last is not None:
            last, self._last = self._last, []
            return last
        message = _Message(self.message_bytes, self.message_frames)
        more = self._take_first(message)
        while more and self._turns:
            turn = self._turns.popleft()
            if type(turn) is tuple:
                frame, size = turn
                more = message.add(frame, size)
                if more:
                    self._written(frame)
            else:
                more = self._take_turn(turn, message)  # type: ignore[arg-type]
            if not more:
                self._turns.appendleft(turn)
        return message.frames

    def _take_first(self, message: _Message) -> bool:
        """Control frames, then opening frames, then refusals; False if one of them did not fit."""
        while self._control:
            frame, size = self._control[0]
            if not message.add(frame, size):
                return False
            self._control.popleft()
            self.control_bytes -= FRAME_BYTES + size
        while self._grants:
            id = next(iter(self._grants))
            if not message.add(self._grants[id]):
                return False
            del self._grants[id]
        while self._opening:
            id = next(iter(self._opening))
            opening, size = self._opening[id]
            if not message.add(opening, size):
                return False
            del self._opening[id]
            if isinstance(opening, Call):
                self._written(opening)
        while self._refusals:
            refusal, size = self._refusals[0]
            if not message.add(refusal, size):
                return False
            self._refusals.popleft()
            self.control_bytes -= FRAME_BYTES + size
        return True

    def _take_turn(self, queue: _Queue, message: _Message) -> bool:
        """One stream's turn: a chunk of what waits, and its final frame if that was all.

        False if nothing of it fitted: what comes next has to begin a message of its own.
        """
        count = 0
        if queue.items:
            count, size = self._fitting(queue.sizes, message)
            if count == 0:
                return False
            chunk = self._family.chunk(queue.id, queue.items[:count], size)
            message.add(chunk, size + count * ITEM_BYTES)
            del queue.items[:count], queue.sizes[:count]
            queue.bytes -= size
            if queue.blocked:
                queue.blocked = False
                self.unblocked.append(queue.id)
        if queue.items:
            self._turns.append(queue)
        elif queue.final is None:
            queue.waiting = False
        elif message.add(queue.final, queue.final_size):
            del self._queues[queue.id]
            self._written(queue.final)
        elif count:
            self._turns.append(queue)
        else:
            return False
        return True

    def _fitting(self, sizes: list[int], message: _Message) -> tuple[int, int]:
        """How many of the first items go into one chunk, and their bytes; none if it has to wait.

        A turn is never cut short by the end of a message: where turns and messages keep step, it
        would be the same streams every time that get less.
        """
        if not message.fits(sizes[0] + ITEM_BYTES):
            return 0, 0
        room = message.room - FRAME_BYTES
        limit = min(self.chunk_bytes, TURN_BYTES - FRAME_BYTES if self._turns else room)
        if not message.frames:
            limit = min(limit, room)
        # One item goes by itself, however large (R14).
        count, total = 1, sizes[0]
        while count < len(sizes) and total + sizes[count] + (count + 1) * ITEM_BYTES <= limit:
            total += sizes[count]
            count += 1
        if message.frames and total + count * ITEM_BYTES > room:
            return 0, 0
        return count, total
