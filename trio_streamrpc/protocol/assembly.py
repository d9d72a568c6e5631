"""Where values come together again that travel in parts (R21).

Memory grows with what has come, never with what was announced. What a peer may make this side hold
is bounded twice: one value by ``max_value_bytes``, all that are unfinished by
``max_partial_bytes``, and by their announced lengths, for that is what they will come to.
"""

from __future__ import annotations

from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol import reactions
from trio_streamrpc.protocol.binary import Gathering
from trio_streamrpc.protocol.frames import (
    KINDS,
    Call,
    Chunk,
    End,
    Error,
    Frame,
    Overflow,
    Result,
    is_absent,
)

__all__ = ["Assembly", "Unfinished"]


class Unfinished:
    """A value of which parts are still to come."""

    __slots__ = ("began", "data", "early", "frame", "heard", "kept", "left", "uploads")

    def __init__(self, frame: Call | Result | Chunk, *, kept: bool, binary: bool) -> None:
        #: The frame that announced it, and is handed on with the value in its place.
        self.frame = frame
        #: Bytes that are still to come.
        self.left = frame.parts
        #: What has come; nothing of it is kept for a consumer that has left.
        self.data = Gathering(frame.parts, binary=binary)
        self.kept = kept
        #: When the frame came, for a call: its timeout counts from then (R23).
        self.began = 0.0
        #: When something last came of it.
        self.heard = 0.0
        #: The uploads that came with a call, and what they brought before it was complete.
        self.uploads: tuple[int, ...] = ()
        self.early: list[Frame | Overflow] = []


class Assembly:
    """The unfinished values that one side receives."""

    __slots__ = ("_announced", "_binary", "_limits", "bytes", "unfinished", "uploads")

    def __init__(self, limits: Limits, *, binary: bool) -> None:
        self._limits = limits
        #: Whether a byte string travels as it is, so that it can be collected as such.
        self._binary = binary
        #: By the ids that they come on.
        self.unfinished: dict[int, Unfinished] = {}
        #: The uploads of calls that are unfinished, by the uploads' ids.
        self.uploads: dict[int, Unfinished] = {}
        #: What has come of all of them, and what they will come to.
        self.bytes = 0
        self._announced = 0

    @property
    def has_calls(self) -> bool:
        """Whether a call is among them."""
        return any(isinstance(each.frame, Call) for each in self.unfinished.values())

    def check(self, frame: Call | Result | Chunk) -> None:
        """Whether a frame that announces parts says nothing else, and begins no value in another.

        Also for chunks without parts, where a value is under way. Raises
        :exc:`RemoteProtocolError` if not.
        """
        name = KINDS[frame.kind]
        if frame.id in self.unfinished:
            raise reactions.VALUE_IN_VALUE.error(name, frame.id)
        if isinstance(frame, Call):
            values = [frame.args, frame.kwargs]
        else:
            values = [frame.value] if isinstance(frame, Result) else frame.items
        if not frame.parts:
            return
        if isinstance(frame, Chunk) and len(values) != 1:
            raise reactions.PARTED_ITEMS.error(len(values), frame.id)
        if not all(is_absent(value) for value in values):
            raise reactions.VALUE_AND_PARTS.error(name, frame.id)

    def too_much(self, size: int) -> str | None:
        """What is wrong with a value of that length, if it cannot be taken in."""
        if size > self._limits.max_value_bytes:
            return f"a value of {size} bytes, more than {self._limits.max_value_bytes}"
        if self._announced + size > self._limits.max_partial_bytes:
            return (
                f"a value of {size} bytes beside {self._announced} of others that are unfinished, "
                f"more than {self._limits.max_partial_bytes}"
            )
        return None

    def begin(
        self,
        frame: Call | Result | Chunk,
        uploads: tuple[int, ...] = (),
        *,
        keep: bool = True,
        now: float = 0.0,
    ) -> None:
        """The parts of that frame's value will come; without ``keep`` they are counted alone."""
        binary = self._binary and not isinstance(frame, Call)
        value = self.unfinished[frame.id] = Unfinished(frame, kept=keep, binary=binary)
        if keep:
            self._announced += frame.parts
        value.began = value.heard = now
        value.uploads = uploads
        for upload in uploads:
            self.uploads[upload] = value

    def add(self, id: int, data: memoryview | bytes, now: float = 0.0) -> Unfinished | None:
        """A part has come of the value on that id: the value, if it is complete.

        Raises :exc:`RemoteProtocolError` if that is more than was announced.
        """
        value = self.unfinished[id]
        if len(data) > value.left:
            raise reactions.PARTS_BEYOND.error(id)
        value.left -= len(data)
        value.heard = now
        if value.kept:
            value.data.add(data)
            self.bytes += len(data)
        if value.left:
            return None
        self._count_out(value)
        del self.unfinished[id]
        return value

    def drop(self, id: int) -> None:
        """This side has no use for that value any more: what comes of it is counted alone."""
        value = self.unfinished.get(id)
        if value is not None:
            self._count_out(value)
            value.kept = False
            value.data = Gathering(0, binary=False)

    def end(self, id: int) -> Unfinished:
        """Nothing more comes of the value on that id, though it is unfinished."""
        value = self.unfinished.pop(id)
        self._count_out(value)
        self.forget(value)
        return value

    def forget(self, value: Unfinished) -> None:
        """A call will not be handed on, nor what its uploads have brought."""
        for upload in value.uploads:
            del self.uploads[upload]

    def clear(self) -> None:
        """The connection has failed."""
        self.unfinished.clear()
        self.uploads.clear()
        self.bytes = self._announced = 0

    def _count_out(self, value: Unfinished) -> None:
        if value.kept:
            self.bytes -= value.frame.parts - value.left
            self._announced -= value.frame.parts

    # --- what comes before the call that it belongs to

    def in_order(self, event: Frame | Overflow) -> list[Frame | Overflow]:
        """What is to be handed on now: nothing of an upload before its call (R19)."""
        if isinstance(event, Call):
            early: list[Frame | Overflow] = []
            for ref in event.refs or ():
                value = self.uploads.pop(ref.id, None)
                if value is not None:
                    early = value.early
            return [event, *early]
        if isinstance(event, Chunk | End | Error | Overflow):
            value = self.uploads.get(event.id)
            if value is not None:
                if isinstance(event, Chunk):
                    # A copy: it would keep its whole message for as long as it waits.
                    event.items = [item.copy() for item in event.items]
                value.early.append(event)
                return []
        return [event]
