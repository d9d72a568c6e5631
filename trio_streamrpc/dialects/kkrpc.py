"""What kkrpc 2 and kkrpc 0.x have in common: what may be asked for, and how it is answered.

There are calls, and properties to get and set; callbacks are called and not answered.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

from msgspec import Raw

from trio_streamrpc.dialects.foreign import UNBOUNDED, ForeignEndpoint, Malformed
from trio_streamrpc.dialects.requests import Asked, fill_access, shown
from trio_streamrpc.protocol.frames import Call, Frame, Result, WindowInfo

__all__ = ["NULL", "KkrpcWire"]

NULL = Raw(b"null")
TRUE = Raw(b"true")

#: What takes in the arguments of a call.
ReadArguments = Callable[[Call, Asked], None]


class KkrpcWire(ForeignEndpoint):
    """One side of a connection that speaks one of them."""

    answers_callbacks = False
    #: The credit that a stream of this side's has before any was given.
    first_credit: ClassVar[int] = 0

    def _read_asked(
        self, wire_id: str, name: str, op: str, value: Raw, arguments: ReadArguments
    ) -> Call:
        """A call of the other side's, or what reads or writes a property."""
        if not wire_id or wire_id in self.requests:
            raise Malformed("a request without an id, or with one that is taken")
        call = self.family.call(self.next_id(), 0, name)
        asked = Asked(wire_id, shown(name), op)
        if op == "call":
            arguments(call, asked)
            if self.streams(name):
                call.window = WindowInfo(self.first_credit, UNBOUNDED)
        elif op in ("get", "set"):
            fill_access(self.table, call, asked, value)
        else:
            asked.refusal = (
                f"{op[:20]!r} is not served here: there are calls, and properties to get and set"
            )
            call.method = ""
        self.requests.add(call.id, asked)
        return call

    def _read_called(self, wire_id: str, arguments: ReadArguments) -> list[Frame]:
        """A call of a callback of this side's, which nobody hears the end of."""
        target = self.own(wire_id)
        if target not in self.objects:
            # It has ended with its call.
            return self.late(wire_id)
        asked = self.asked_callback()
        if asked is None:
            return []
        call = self.family.call(self.next_id(), target)
        arguments(call, asked)
        self.requests.add(call.id, asked)
        return [call]

    def _write_result(self, result: Result) -> str | None:
        asked = self.requests.end(result.id)
        if asked is None or asked.op == "callback":
            return None
        if asked.op == "set":
            return self._answered(asked, TRUE)
        return self._answered(asked, None if self.gives_nothing(asked.name) else result.value)

    @abstractmethod
    def _answered(self, asked: Asked, value: Raw | None) -> str:
        """The answer to a call; None is what JavaScript calls undefined."""
