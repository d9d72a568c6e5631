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

    __slots__ = ("blocked", "bytes", "final", "id", "items", "sizes", "waiting")

    def __init__(self, id: int) -> None:
        self.id = id
        self.items: list[Raw] = []
        self.sizes: list[int] = []
        self.bytes = 0
        #: Whether its producer was told to wait until some of this is written.
        self.blocked = False
        self.final: End | Error | None = None
        #: Whether this queue stands in line for its turn.
        self.waiting = False


class Outbox:
    """The waiting frames of one connection.

    ``written`` is called with each final frame as it is taken into a message: that is the moment
    at which the callee's place is free again (R26).
    """

    def __init__(self, family: Family, written: Callable[[Result | End | Error], None]) -> None:
        self._family = family
        self._written = written
        self._control: deque[tuple[Frame, int]] = deque()
        #: Bytes of control frames and refusals that wait, grants aside: those merge (R24).
        self.control_bytes = 0
        self._grants: dict[int, Grant] = {}
        # A dict, so that a call that is given up before it was written is taken out at once (R12).
        self._opening: dict[int, tuple[Call, int]] = {}
        self._queues: dict[int, _Queue] = {}
        self._turns: deque[_Queue | tuple[Result | Error, int]] = deque()
        self._refusals: deque[tuple[Error, int]] = deque()
        #: Streams whose producers may go on, since what waited for them was taken.
        self.unblocked: list[int] = []
        #: The most that goes into one message and one chunk; the other side's limits (R26, R28).
        self.message_bytes = MESSAGE_BYTES
        self.message_frames = 4096
        self.chunk_bytes = MESSAGE_BYTES

    def __bool__(self) -> bool:
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

    def add_call(self, call: Call, size: int) -> None:
        """An opening frame; ids only ever go up, so the order of adding is that of the ids."""
        self._opening[call.id] = (call, size)

    def remove_call(self, id: int) -> bool:
        """Take back a call that was not yet written; False if it is gone already (R12)."""
        return self._opening.pop(id, None) is not None

    def unwritten_calls(self) -> list[int]:
        """The ids of calls that were not yet written."""
        return list(self._opening)

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

    def add_final(self, frame: End | Error) -> None:
        """The final frame of a stream, after its items."""
        queue = self._queues.get(frame.id)
        if queue is None:
            queue = self._queues[frame.id] = _Queue(frame.id)
        queue.final = frame
        if not queue.waiting:
            queue.waiting = True
            self._turns.append(queue)

    def drop_items(self, id: int) -> None:
        """Forget the waiting items of a stream that its consumer has cancelled (R9)."""
        queue = self._queues.get(id)
        if queue is not None:
            queue.items, queue.sizes, queue.bytes = [], [], 0

    def take(self) -> list[Frame]:
        """The frames of the next message; none if nothing waits."""
        batch: list[Frame] = []
        room = self._take_first(batch)
        limit = self.message_frames
        while self._turns and room > 0 and len(batch) < limit:
            turn = self._turns.popleft()
            if type(turn) is tuple:
                frame, size = turn
                if size > room and batch:
                    self._turns.appendleft(turn)
                    break
                batch.append(frame)
                room -= size + FRAME_BYTES
                self._written(frame)
            else:
                used = self._take_turn(turn, batch, room)  # type: ignore[arg-type]
                if used == 0:
                    self._turns.appendleft(turn)
                    break
                room -= used
        return batch

    def _take_first(self, batch: list[Frame]) -> int:
        """Control frames, then refusals, then opening frames; gives the room that is left."""
        room = self.message_bytes
        limit = self.message_frames
        while self._control and room > 0 and len(batch) < limit:
            frame, size = self._control.popleft()
            self.control_bytes -= FRAME_BYTES + size
            batch.append(frame)
            room -= FRAME_BYTES + size
        while self._grants and room > 0 and len(batch) < limit:
            batch.append(self._grants.pop(next(iter(self._grants))))
            room -= FRAME_BYTES
        while self._opening and room > 0 and len(batch) < limit:
            id = next(iter(self._opening))
            call, size = self._opening[id]
            if size > room and batch:
                return 0
            del self._opening[id]
            batch.append(call)
            room -= FRAME_BYTES + size
        while self._refusals and room > 0 and len(batch) < limit:
            refusal, size = self._refusals.popleft()
            self.control_bytes -= FRAME_BYTES + size
            batch.append(refusal)
            room -= FRAME_BYTES + size
        return room

    def _take_turn(self, queue: _Queue, batch: list[Frame], room: int) -> int:
        """One stream's turn: a chunk of what waits, and its final frame if that was all.

        Gives how much room it took; 0 if what comes next is larger than the room and has to
        begin a message of its own.
        """
        used = 0
        if queue.items:
            count, size = self._fitting(queue.sizes, room, alone=not batch)
            if count == 0:
                return 0
            if count == len(queue.items):
                items, queue.items, queue.sizes = queue.items, [], []
            else:
                items = queue.items[:count]
                del queue.items[:count], queue.sizes[:count]
            queue.bytes -= size
            if queue.blocked:
                queue.blocked = False
                self.unblocked.append(queue.id)
            batch.append(self._family.chunk(queue.id, items, size))
            used = size + count * ITEM_BYTES + FRAME_BYTES
        if queue.items or (queue.final is not None and len(batch) >= self.message_frames):
            self._turns.append(queue)
        else:
            queue.waiting = False
            if queue.final is not None:
                del self._queues[queue.id]
                batch.append(queue.final)
                used += FRAME_BYTES
                self._written(queue.final)
        return used or FRAME_BYTES

    def _fitting(self, sizes: list[int], room: int, *, alone: bool) -> tuple[int, int]:
        """How many of the first items go into one chunk, and their bytes."""
        # One item goes by itself, however large, where the message is empty (R1).
        limit = min(room - FRAME_BYTES, self.chunk_bytes)
        if self._turns:
            limit = min(limit, TURN_BYTES)
        total = 0
        for count, size in enumerate(sizes):
            if total + size + count * ITEM_BYTES > limit and not (
                count == 0 and (alone or size + FRAME_BYTES <= room)
            ):
                return count, total
            total += size
        return len(sizes), total
