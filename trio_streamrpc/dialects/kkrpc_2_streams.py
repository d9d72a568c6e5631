"""kkrpc 2's streams, by the ids that they have there and here, and what is said of them.

A stream's id is chosen by the side that gives its items. ``return`` and ``throw`` are answered by a
record that has their own id.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from trio_streamrpc.dialects.kkrpc_2_records import stream_mark

__all__ = ["Consumed", "Produced", "Streams"]

#: How often a stream may be asked to end.
MAX_CONTROLS = 4

_encode = msgspec.json.Encoder().encode


class Produced(Struct):
    """A stream of this side's: of a call that it serves, or of an argument that it uploads."""

    sid: str
    #: The ids of the controls that wait to be acknowledged.
    controls: list[str]

    def ask(self, control: str) -> bool:
        """It is asked to end; False if it was too often."""
        if len(self.controls) >= MAX_CONTROLS:
            return False
        self.controls.append(control)
        return True


class Consumed(Struct):
    """A stream of the other side's."""

    sid: str
    #: How it was asked to end, and the id of that, by which it is acknowledged.
    left: Literal["", "return", "throw"] = ""
    control: str = ""

    def is_answered_by(self, control: str) -> bool:
        """Whether that is the id of what it was asked to end by."""
        return self.left != "" and self.control == control


class Streams:
    """The streams of one connection, of both sides."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        #: This side's, and the other's, by the ids that they have here.
        self.produced: dict[int, Produced] = {}
        self.consumed: dict[int, Consumed] = {}
        self._consumed_ids: dict[str, int] = {}
        self._last_record = 0

    # --- the other side's

    def consume(self, id: int, sid: str) -> None:
        """That stream is expected, and has that id here."""
        self.consumed[id] = Consumed(sid)
        self._consumed_ids[sid] = id

    def consumed_id(self, sid: str) -> int | None:
        return self._consumed_ids.get(sid)

    def end_consumed(self, id: int) -> None:
        """Nothing more will come of it."""
        del self._consumed_ids[self.consumed.pop(id).sid]

    def leave(self, consumed: Consumed, op: Literal["return", "throw"], **more: Any) -> str:
        """The words that ask a stream to end."""
        consumed.left, consumed.control = op, self._record_id()
        return self.control(consumed.sid, op, consumed.control, **more)

    def control(self, sid: str, op: str, id: str = "", **more: Any) -> str:
        record = {"t": "sq", "id": id or self._record_id(), "sid": sid, "op": op, **more}
        return _encode(record).decode()

    # --- this side's

    def produce(self, id: int) -> dict[str, str]:
        """That stream is told of: gives what stands for it."""
        sid = f"{self._prefix}{id}"
        self.produced[id] = Produced(sid, [])
        return stream_mark(sid)

    def item(self, id: int, value: Raw) -> str | None:
        """The words for an item; None if its stream was not told of."""
        produced = self.produced.get(id)
        if produced is None:
            return None
        record = {"t": "sr", "id": self._record_id(), "sid": produced.sid, "d": False, "v": value}
        return _encode(record).decode()

    def final(self, id: int, **how: Any) -> list[str]:
        """The last words of a stream, for each that waits for them; none if it was not told of."""
        produced = self.produced.pop(id, None)
        if produced is None:
            return []
        return [
            self.acknowledgement(each, produced.sid, **how)
            for each in produced.controls or [self._record_id()]
        ]

    def acknowledgement(self, control: str, sid: str, **how: Any) -> str:
        return _encode({"t": "sr", "id": control, "sid": sid, **how}).decode()

    def _record_id(self) -> str:
        self._last_record += 1
        return f"{self._prefix}r{self._last_record}"
