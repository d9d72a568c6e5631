"""A peer without I/O that serves what :class:`.PeerMachine` calls, made of one of our endpoints."""

from __future__ import annotations

from typing import Any

import msgspec

from trio_streamrpc.errors import Code, RemoteProtocolError
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.endpoint import Endpoint, Event
from trio_streamrpc.protocol.frames import Call, Cancel, Hello
from trio_streamrpc.testing.plain_frames import encode_payload

__all__ = ["ReferencePeer"]


class ReferencePeer:
    """The accepting side: ``echo``, ``count`` and ``wait``."""

    def __init__(self, encoding: Encoding = "msgpack", limits: Limits | None = None) -> None:
        self.encoding = encoding
        self.endpoint = Endpoint("accepting", encoding=encoding, limits=limits)
        #: The streams that run: the next item, and where it stops.
        self.counting: dict[int, list[int]] = {}
        #: The calls of ``wait`` that nobody has cancelled.
        self.waiting: set[int] = set()

    def receive(self, message: bytes | str) -> list[bytes | str]:
        """Take one message; gives what there is to say."""
        try:
            for event in self.endpoint.receive(message):
                self.act(event)
        except RemoteProtocolError:
            pass  # a goaway that says so waits to be written
        else:
            self.pump()
        return self.said()

    def said(self) -> list[bytes | str]:
        """Every message that waits to be written."""
        found = []
        while (message := self.endpoint.next_message()) is not None:
            found.append(message)
            # What was written has made room.
            self.pump()
        return found

    def act(self, event: Event) -> None:
        """What a runtime does with what arrives."""
        match event:
            case Hello():
                for each in self.endpoint.accept():
                    self.act(each)
            case Call():
                self.start(event)
            case Cancel():
                self.cancel(event.id)
            case _:
                pass

    def start(self, call: Call) -> None:
        args = self.value_of(call.args)
        if call.method == "echo":
            self.endpoint.answer(call.id, encode_payload(self.encoding, args[0]))
        elif call.method == "count":
            self.counting[call.id] = [0, args[0]]
        elif call.method == "wait":
            self.waiting.add(call.id)
        else:
            info = self.endpoint.error_info(Code.UNIMPLEMENTED, "no such method")
            self.endpoint.answer_error(call.id, info)

    def cancel(self, id: int) -> None:
        if self.counting.pop(id, None) is not None:
            self.endpoint.end(id)
        elif id in self.waiting:
            self.waiting.remove(id)
            info = self.endpoint.error_info(Code.CANCELLED, "the call was cancelled")
            self.endpoint.answer_error(id, info)

    def pump(self) -> None:
        """Every stream goes as far as its credit does (R14)."""
        for id, state in list(self.counting.items()):
            while state[0] < state[1] and self.endpoint.may_send(id):
                self.endpoint.send(id, encode_payload(self.encoding, state[0]))
                state[0] += 1
            if state[0] >= state[1]:
                self.endpoint.end(id)
                del self.counting[id]

    def value_of(self, raw: msgspec.Raw) -> Any:
        module: Any = msgspec.json if self.encoding == "json" else msgspec.msgpack
        return module.decode(raw)
