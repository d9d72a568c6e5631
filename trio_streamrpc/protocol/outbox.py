"""What waits to be written, and in which order (R1, R12).

Three kinds of place, emptied in this order: control frames; opening frames, which stay in the
order of their ids; and everything else, by turns between ids (:mod:`.turns`). Items of one stream
that wait are put together into one chunk, and frames that wait into one message; nothing ever
waits to be put together with what is not there yet (R1).

A value that is longer than what the other side takes in one frame goes out in parts, one or a few
at each of its turns (R21). One for which there is no room among the unfinished values stands in
no line, and others pass it, until there is.

How much can wait is bounded from outside: items by the credit of their stream, answers by the
calls that run, grants by merging, and other control frames by ``control_bytes`` (R24).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, final

from msgspec import Raw

from trio_streamrpc.protocol.binary import Binary, pieces_of
from trio_streamrpc.protocol.frames import (
    JSON,
    Call,
    Chunk,
    End,
    Error,
    Family,
    Frame,
    Grant,
    Result,
)
from trio_streamrpc.protocol.message import FRAME_BYTES, MESSAGE_BYTES, MESSAGE_CALLS, Message
from trio_streamrpc.protocol.parts import Claim, Room, Slices, Value
from trio_streamrpc.protocol.turns import Turns

__all__ = ["Outbox"]

_Frame = TypeVar("_Frame", bound=Frame)

#: What one id may put into a message before it is another's turn.
TURN_BYTES = 16 * 1024
#: What an item costs beside its encoding, as FRAME_BYTES does for a frame.
ITEM_BYTES = 1
#: What may wait here for one stream. Credit alone is no bound on this side's memory: it is the
#: other side that grants it, and it may grant without reading.
QUEUE_BYTES = 256 * 1024
QUEUE_ITEMS = 4096


@final
class _Queue:
    """What waits for one stream: items, then perhaps its final frame."""

    __slots__ = (
        "blocked", "bytes", "final", "final_size", "id", "items", "priority", "sizes", "value",
        "waiting",
    )  # fmt: skip

    def __init__(self, id: int, priority: int) -> None:
        self.id = id
        self.priority = priority
        #: A byte string that goes out in parts is not in one piece (R21).
        self.items: list[Any] = []
        self.sizes: list[int] = []
        self.bytes = 0
        #: Whether its producer was told to wait until some of this is written.
        self.blocked = False
        self.final: End | Error | None = None
        self.final_size = 0
        #: What goes out in parts of the first item, once its turn has come.
        self.value: Value | None = None
        #: Whether this queue stands in line for its turn, or for room.
        self.waiting = False


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
        self._control: list[tuple[Frame, int]] = []
        #: Bytes of control frames and refusals that wait, grants aside: those merge (R24).
        self.control_bytes = 0
        self._grants: dict[int, Grant] = {}
        # A dict, so that a call that is given up before it was written is taken out at once (R12).
        self._opening: dict[int, tuple[Call | Chunk, int]] = {}
        self._queues: dict[int, _Queue] = {}
        self._turns: Turns[_Queue | Value | tuple[Result | Error, int, int]] = Turns()
        #: Calls' values and results of which parts are still to be written, by their ids.
        self.values: dict[int, Value] = {}
        #: What the other side takes of unfinished values, all together.
        self.room = Room(2**53, self._found_room)
        #: Claims of calls that have waited for room, and have it now.
        self.granted: list[Claim] = []
        self._refusals: list[tuple[Error, int]] = []
        #: What alone is still to be written, once the connection has failed.
        self._last: list[Frame] | None = None
        #: Streams whose producers may go on, since what waited for them was taken.
        self.unblocked: list[int] = []
        #: The most that goes into one message and one chunk; the other side's limits (R26, R28).
        self.message_bytes = MESSAGE_BYTES
        self.message_frames = 4096
        self.chunk_bytes = MESSAGE_BYTES
        #: The longest value that goes whole.
        self.whole_bytes = 2**53
        self._text = family is JSON
        self._null = Raw(b"null" if self._text else b"\xc0")

    def __bool__(self) -> bool:
        if self._last is not None:
            return bool(self._last)
        return bool(
            self._control or self._grants or self._opening or self._turns.line or self._refusals
        )

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

    def add_opening(
        self, id: int, frame: Call | Chunk, size: int, value: Value | None = None
    ) -> None:
        """A frame that opens that id, the first of its ids.

        Ids only ever go up, so the order of adding is that of the ids. ``value`` is what follows a
        call in parts, for which there is room (R21).
        """
        self._opening[id] = (frame, size)
        if value is not None:
            self.values[id] = value

    def is_opening(self, id: int) -> bool:
        """Whether what opens that id is still to be written."""
        return id in self._opening

    def is_unwritten(self, id: int) -> bool:
        """Whether the other side cannot know that id of this side's: it was not yet written.

        Opening frames are written in the order of their ids, so that is so from the first of them
        on: for calls, and for what they bring with them (R5, R12).
        """
        return bool(self._opening) and id >= next(iter(self._opening))

    def remove_opening(self, id: int) -> bool:
        """Take back what opens that id; False if it is written already (R12)."""
        if self._opening.pop(id, None) is None:
            return False
        self.drop_value(id)
        return True

    def unwritten_calls(self) -> list[int]:
        """The ids of calls to the service that were not yet written."""
        return [
            id
            for id, (frame, _) in self._opening.items()
            if isinstance(frame, Call) and not frame.target
        ]

    def add_answer(self, frame: Result | Error, size: int, priority: int = 0) -> None:
        """The final frame of a unary call."""
        self._turns.add((frame, size, priority), priority)

    def add_result(self, frame: Result, value: Slices, priority: int) -> None:
        """A result that goes out in parts, as ``frame`` announces: final with the last (R21)."""
        self.values[frame.id] = each = Value(frame.id, value, priority, header=frame)
        self._turns.add(each, priority)

    def drop_value(self, id: int) -> bool:
        """Write no more parts of that call's value, or of that result; False if there are none."""
        value = self.values.pop(id, None)
        if value is None:
            return False
        value.slices = None
        if value.claim is not None:
            self.room.give_up(value.claim)
        return True

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

    def add_item(self, id: int, item: Raw | Binary, size: int, priority: int = 0) -> None:
        """An item of a stream, for which credit was spent."""
        queue = self._queues.get(id)
        if queue is None:
            queue = self._queues[id] = _Queue(id, priority)
        queue.items.append(item)
        queue.sizes.append(size)
        queue.bytes += size
        if not queue.waiting:
            queue.waiting = True
            self._turns.add(queue, queue.priority)

    def add_final(self, frame: End | Error, size: int = 0, priority: int = 0) -> None:
        """The final frame of a stream, after its items."""
        queue = self._queues.get(frame.id)
        if queue is None:
            queue = self._queues[frame.id] = _Queue(frame.id, priority)
        queue.final, queue.final_size = frame, size
        if not queue.waiting:
            queue.waiting = True
            self._turns.add(queue, queue.priority)

    def drop_items(self, id: int) -> None:
        """Forget the waiting items of a stream that its consumer has cancelled (R9).

        Of an item in parts nothing more is written: the final frame may follow at once (R21).
        """
        queue = self._queues.get(id)
        if queue is None:
            return
        queue.items, queue.sizes, queue.bytes = [], [], 0
        value, queue.value = queue.value, None
        if value is None:
            return
        assert value.claim is not None
        if not value.claim.granted:
            # It stood in line for room, and in no other.
            queue.waiting = False
            if queue.final is not None:
                self.add_final(queue.final, queue.final_size)
        self.room.give_up(value.claim)

    def remove_stream(self, id: int) -> None:
        """Forget all that waits for a stream whose call was taken back."""
        queue = self._queues.pop(id, None)
        if queue is not None:
            # It may stand in line, and has nothing to write when its turn comes.
            queue.items, queue.sizes, queue.final = [], [], None

    def finish(self, *last: Frame) -> None:
        """The connection has failed: nothing more is written but this (R27).

        What waits is forgotten: it may be large, and the connection be kept for long.
        """
        self._last = list(last)
        for id in list(self.values):
            self.drop_value(id)
        for id in list(self._queues):
            self.drop_items(id)
        self._queues.clear()
        self._opening.clear()
        self._turns = Turns()

    def take(self) -> list[Frame]:
        """The frames of the next message; none if nothing waits."""
        if self._last is not None:
            last, self._last = self._last, []
            return last
        message = Message(self.message_bytes, self.message_frames)
        more = self._take_first(message)
        turns = self._turns
        while more and turns.line:
            turn = turns.take()
            if type(turn) is _Queue:
                priority, more = turn.priority, self._take_turn(turn, message)
            elif type(turn) is Value:
                priority, more = turn.priority, self._take_value(turn, message)
            else:
                frame, size, priority = turn
                more = message.add_answer(frame, size)
                if more:
                    self._written(frame)
            if not more:
                turns.give_back(turn, priority)
        return message.frames

    def _take_first(self, message: Message) -> bool:
        """Control frames, then opening frames, then refusals; False if one of them did not fit."""
        if self._control and not self._take_bounded(self._control, message):
            return False
        # Those of many streams may come as fast as they are written, and so may calls: what comes
        # after them has its part of each message, too.
        share = self.message_bytes // 2
        while self._grants and share > 0:
            id = next(iter(self._grants))
            if not message.add(self._grants[id]):
                return False
            del self._grants[id]
            share -= FRAME_BYTES
        calls = MESSAGE_CALLS
        while self._opening and calls:
            id = next(iter(self._opening))
            opening, size = self._opening[id]
            if not message.add(opening, size):
                return False
            calls -= 1
            del self._opening[id]
            if isinstance(opening, Chunk):
                continue
            if opening.parts:
                # It is written when all of it is.
                value = self.values[id]
                value.final = opening
                self._turns.add(value, value.priority)
            else:
                self._written(opening)
        return not self._refusals or self._take_bounded(self._refusals, message)

    def _take_bounded(self, waiting: list[tuple[_Frame, int]], message: Message) -> bool:
        """What counts in ``control_bytes``; False if not all of it fitted."""
        taken = 0
        for frame, size in waiting:
            if not message.add(frame, size):
                break
            taken += 1
            self.control_bytes -= FRAME_BYTES + size
        del waiting[:taken]
        return not waiting

    def _take_turn(self, queue: _Queue, message: Message) -> bool:
        """One stream's turn: a chunk of what waits, and its final frame if that was all.

        False if nothing of it fitted: what comes next has to begin a message of its own.
        """
        count = 0
        if queue.items:
            if queue.sizes[0] > self.whole_bytes:
                return self._take_long_item(queue, message)
            count, size = self._fitting(queue, message)
            if count == 0:
                return False
            items = queue.items
            if count == len(items):
                queue.items, queue.sizes = [], []
            else:
                items = items[:count]
                del queue.items[:count], queue.sizes[:count]
            message.add(self._family.chunk(queue.id, items, size), size + count * ITEM_BYTES)
            queue.bytes -= size
            if queue.blocked:
                self._unblock(queue)
        if queue.items:
            self._turns.add(queue, queue.priority)
        elif queue.final is None:
            queue.waiting = False
        elif message.add(queue.final, queue.final_size):
            del self._queues[queue.id]
            self._written(queue.final)
        elif count:
            self._turns.add(queue, queue.priority)
        else:
            return False
        return True

    def _unblock(self, queue: _Queue) -> None:
        """Its producer may go on, if there is room for another item."""
        if queue.bytes < QUEUE_BYTES and len(queue.items) < QUEUE_ITEMS:
            queue.blocked = False
            self.unblocked.append(queue.id)

    def _take_value(self, value: Value, message: Message) -> bool:
        """One turn of a call's value, or of a result; False if nothing of it fitted."""
        if value.slices is None or not self._has_room(value, value):
            return True
        if not self._write_part(value, message):
            return False
        if value.slices.left:
            self._turns.add(value, value.priority)
            return True
        self.drop_value(value.id)
        assert value.final is not None
        self._written(value.final)
        return True

    def _take_long_item(self, queue: _Queue, message: Message) -> bool:
        """One turn of a stream whose first item goes out in parts; False if nothing fitted."""
        size = queue.sizes[0]
        value = queue.value
        if value is None:
            chunk = self._family.chunk(queue.id, [self._null], size, parts=size)
            slices = Slices(*pieces_of(queue.items[0]), text=self._text)
            value = queue.value = Value(queue.id, slices, queue.priority, header=chunk)
        if not self._has_room(value, queue):
            return True
        assert value.slices is not None
        left = value.slices.left
        if not self._write_part(value, message):
            return False
        queue.bytes -= left - value.slices.left
        if not value.slices.left:
            assert value.claim is not None
            self.room.give_up(value.claim)
            queue.value = None
            del queue.items[0], queue.sizes[0]
        if queue.blocked:
            self._unblock(queue)
        if queue.items or queue.final is not None:
            self._turns.add(queue, queue.priority)
        else:
            queue.waiting = False
        return True

    def _has_room(self, value: Value, owner: _Queue | Value) -> bool:
        """Whether it is among the unfinished values; if not, it has its turn once it may be."""
        if value.claim is None:
            assert value.header is not None
            value.claim = self.room.claim(value.header.parts, owner)
        return value.claim.granted

    def _found_room(self, claim: Claim) -> None:
        owner = claim.owner
        if isinstance(owner, _Queue | Value):
            self._turns.add(owner, owner.priority)
        else:
            self.granted.append(claim)

    def _write_part(self, value: Value, message: Message) -> bool:
        """The frame that announces a value, and a part; False if not even the first of them fits.

        A part is as long as a turn where others wait, and as what is left of the message where
        nobody does.
        """
        part = max(self.chunk_bytes, value.shortest) * value.factor
        most = min(part, self.message_bytes - FRAME_BYTES)
        turn = min(most, TURN_BYTES - FRAME_BYTES)
        return value.write(message, self._family, turn, turn if self._turns.line else most)

    def _fitting(self, queue: _Queue, message: Message) -> tuple[int, int]:
        """How many of the first items go into one chunk, and their bytes; none if it has to wait.

        A turn is never cut short by the end of a message: where turns and messages keep step, it
        would be the same streams every time that get less.
        """
        sizes = queue.sizes
        if not message.fits(sizes[0] + ITEM_BYTES):
            return 0, 0
        room = message.room - FRAME_BYTES
        limit = min(self.chunk_bytes, TURN_BYTES - FRAME_BYTES if self._turns.line else room)
        if not message.frames:
            limit = min(limit, room)
        count, total = len(sizes), queue.bytes
        if total + count * ITEM_BYTES <= min(limit, room):
            return count, total
        # One item goes by itself, however large (R14).
        count, total = 1, sizes[0]
        while count < len(sizes) and total + sizes[count] + (count + 1) * ITEM_BYTES <= limit:
            total += sizes[count]
            count += 1
        if message.frames and total + count * ITEM_BYTES > room:
            return 0, 0
        return count, total
