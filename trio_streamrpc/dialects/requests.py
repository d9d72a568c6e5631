"""The calls of the other side that have not ended, by the ids that they have here and there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Raw, Struct

from trio_streamrpc.contract.methods import MAX_NAME
from trio_streamrpc.errors import Code
from trio_streamrpc.protocol.frames import Call, ErrorInfo

if TYPE_CHECKING:
    from trio_streamrpc.contract.method import Method

__all__ = ["Asked", "Requests", "fill_access", "own_number", "refused", "shown"]

#: What reading or writing a property is called.
ACCESSES = ("get", "set")


class Asked(Struct):
    """A call of the other side's that has not ended."""

    wire_id: str
    #: What was asked for, as long as it takes to see which it was.
    name: str = ""
    op: str = "call"
    #: Its callbacks, by the ids that they have here.
    callbacks: list[int] = []
    #: Why it is refused, in words, if it is.
    refusal: str = ""
    #: Whether it was answered by a stream, which has not ended, and whether that was left.
    streams: bool = False
    left: bool = False
    #: The bytes of the message that it has come in, if it is a callback's.
    size: int = 0


def shown(name: str) -> str:
    """A name as it is kept, and told: as much of it as one may have that is served."""
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"


class Requests:
    """The open calls of the other side."""

    def __init__(self) -> None:
        #: What the calls of callbacks take that have not ended.
        self.callback_bytes = 0
        self._by_id: dict[int, Asked] = {}
        self._ids: dict[str, int] = {}
        #: The callbacks of the other side, by the ids that they have here.
        self.callbacks: dict[int, str] = {}

    def __contains__(self, wire_id: str) -> bool:
        return wire_id in self._ids

    def add(self, id: int, asked: Asked) -> None:
        self._by_id[id] = asked
        self.callback_bytes += asked.size
        if asked.wire_id:
            self._ids[asked.wire_id] = id

    def get(self, id: int) -> Asked | None:
        return self._by_id.get(id)

    def id_of(self, wire_id: str) -> int | None:
        return self._ids.get(wire_id)

    def add_callback(self, asked: Asked, id: int, wire_id: str) -> None:
        self.callbacks[id] = wire_id
        asked.callbacks.append(id)

    def drop_callbacks(self, asked: Asked | None) -> None:
        """Nobody is to call those that came with it."""
        if asked is not None:
            for each in asked.callbacks:
                self.callbacks.pop(each, None)
            asked.callbacks = []

    def end(self, id: int) -> Asked | None:
        """It has its final frame: nothing is kept of it, nor of what came with it."""
        asked = self._by_id.pop(id, None)
        if asked is not None:
            self.callback_bytes -= asked.size
            self._ids.pop(asked.wire_id, None)
            self.drop_callbacks(asked)
        return asked


def fill_access(table: Mapping[str, Method], call: Call, asked: Asked, value: Raw) -> None:
    """Make the call one that reads a property, or that writes it, if it is one."""
    method = table.get(call.method)
    if method is None or not method.is_property:
        asked.refusal = f"{asked.name} is no property"
    elif asked.op == "set" and not method.writable:
        asked.refusal = f"{asked.name} cannot be set"
    else:
        call.args = Raw(b"[" + value + b"]" if asked.op == "set" else b"[]")
        return
    call.method = ""


def refused(asked: Asked, info: ErrorInfo, unknown: str) -> str | None:
    """The words for a call that was not run for what it asks for; None for any other error.

    ``unknown`` is how the wire tells that there is no such method.
    """
    if asked.refusal:
        return asked.refusal
    if info.code == Code.UNIMPLEMENTED and not info.name:
        return unknown.format(asked.name)
    return None


def own_number(wire_id: str, prefix: str) -> int:
    """The id here of what this side has opened by that id there; 0 if it has not."""
    number = wire_id[len(prefix) :]
    if wire_id[: len(prefix)] != prefix or not 0 < len(number) < 17:
        return 0
    return int(number) if number.isascii() and number.isdigit() else 0
