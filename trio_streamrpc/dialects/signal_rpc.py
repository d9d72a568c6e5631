"""signal-rpc: requests and answers with numbers, and streams beside them by ids of their own.

``data`` is the application's own; ours is ``{"method": name, "args": […], "kwargs": {…}}`` or, from
its plainest peers, ``{"type": name, …arguments by name}``. There is no credit and no cancel.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
from msgspec import Raw, Struct

from trio_streamrpc.dialects.base import Dialect
from trio_streamrpc.dialects.failures import error_fields, fields_in, info_in, info_of, text_in
from trio_streamrpc.dialects.foreign import (
    NO_STREAM,
    UNBOUNDED,
    UNDECODABLE,
    ForeignEndpoint,
    Malformed,
    Opening,
)
from trio_streamrpc.dialects.requests import Asked, refused, shown
from trio_streamrpc.dialects.signal_streams import (
    OVERFLOW,
    Agreed,
    Number,
    SignalStreams,
    StreamId,
    StreamMessage,
    remember,
)
from trio_streamrpc.errors import Code, InvalidArgument
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.credit import ReceiveWindow, SendCredit
from trio_streamrpc.protocol.endpoint import Event, Side
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.protocol.frames import (
    Call,
    Cancel,
    Chunk,
    End,
    Error,
    ErrorInfo,
    Frame,
    Result,
    WindowInfo,
)
from trio_streamrpc.protocol.states import STATES

if TYPE_CHECKING:
    from trio_streamrpc.contract.method import Method
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["Signal", "SignalEndpoint"]

ERROR_NAMES = ("name", "message", "stack")


class Message(Struct):
    """A request or an answer."""

    category: Literal["request", "response"]
    requestId: Number  # noqa: N815  # as it is on the wire
    data: Raw = Raw(b"null")


class Head(Struct):
    """What tells the two apart."""

    category: str = ""


_head = msgspec.json.Decoder(Head).decode
_message = msgspec.json.Decoder(Message).decode
_stream = msgspec.json.Decoder(StreamMessage).decode
_id = msgspec.json.Decoder(StreamId).decode
_encode = msgspec.json.Encoder().encode

NULL = Raw(b"null")


class SignalEndpoint(ForeignEndpoint):
    """One side of a connection that speaks signal-rpc."""

    grants = False
    waits_for_consumers = True
    takes_names = True
    takes_streams = False
    takes_callbacks = False

    def __init__(
        self,
        side: Side,
        *,
        limits: Limits,
        metadata: Raw | None = None,
        table: Mapping[str, Method] | None = None,
    ) -> None:
        super().__init__(side, limits=limits, metadata=metadata, table=table)
        self._responses = itertools.count(1)
        #: Streams of both sides, by the ids that they have there.
        self.agreed = Agreed(limits)
        self._sent: dict[int, str | int] = {}
        #: This side's calls of streams that were left before they were answered. A dict, for its
        #: order.
        self._left: dict[int, None] = {}
        self._stream_ids = itertools.count(1)

    # --- reading

    def read(self, message: bytes | str) -> list[Frame]:
        try:
            if not _head(message).category:
                return self._read_stream(_stream(message))
            record = _message(message)
        except UNDECODABLE as error:
            raise Malformed(str(error)[:100]) from None
        if record.category == "request":
            return self._read_request(record)
        return self._read_response(record)

    def _read_request(self, record: Message) -> list[Frame]:
        wire_id = str(record.requestId)
        if wire_id in self.requests:
            raise Malformed("a request with a number that is taken")
        fields = fields_in(record.data)
        named = "method" not in fields
        name = text_in(fields.get("type" if named else "method"))
        if not name:
            raise Malformed("a request that names no method")
        call = self.family.call(self.next_id(), 0, name)
        if named:
            arguments = {key: value for key, value in fields.items() if key != "type"}
            call.args, call.kwargs = Raw(b"[]"), Raw(_encode(arguments))
        else:
            call.args = fields.get("args", Raw(b"[]"))
            call.kwargs = fields.get("kwargs", NULL)
        if self.streams(name):
            call.window = WindowInfo(UNBOUNDED, UNBOUNDED)
        self.requests.add(call.id, Asked(wire_id, shown(name)))
        return [call]

    def _read_response(self, record: Message) -> list[Frame]:
        id = record.requestId
        exchange = self.exchanges.get(id)
        if exchange is None or id % 2 != self._next_id % 2:
            if not 0 < id <= self.highest_used:
                raise Malformed("an answer to nothing")
            self._read_late(id, record)
            return []
        if self.agreed.has(id):
            raise Malformed("a second answer to a call")
        fields = fields_in(record.data)
        if set(fields) == {"error"}:
            return [self.family.error(id, error_in(fields["error"]))]
        if exchange.window is None:
            return [self.family.result(id, record.data)]
        stream_id = stream_id_in(fields.get("streamId"))
        if stream_id is None or stream_id in self.agreed:
            return [self.family.error(id, ErrorInfo(Code.INVALID_ARGUMENT.value, "", NO_STREAM))]
        return self._frames(id, self.agreed.expect(stream_id, id))

    def _read_late(self, id: int, record: Message) -> None:
        """The answer to a call that is over: of a stream that was left, it tells the id."""
        if id not in self._left:
            return
        del self._left[id]
        stream_id = stream_id_in(fields_in(record.data).get("streamId"))
        if stream_id is not None and stream_id not in self.agreed:
            self.agreed.ignore(stream_id)

    def _read_stream(self, record: StreamMessage) -> list[Frame]:
        id = self.agreed.id_of(record.streamId)
        if id is None:
            self.agreed.keep(record)
            return []
        return self._frames(id, [record])

    def _frames(self, id: int, records: list[Any]) -> list[Frame]:
        """What a stream has said, as frames."""
        frames: list[Frame] = []
        for record in records:
            if record.type == "StreamData":
                frames.append(self.family.chunk(id, [record.payload], len(record.payload)))
                continue
            self.agreed.end(id)
            if record.type == "StreamEnd":
                frames.append(self.family.end(id))
            else:
                info = error_in(record.error)
                if record is OVERFLOW:
                    info.code, info.name = Code.RESOURCE_EXHAUSTED.value, ""
                frames.append(self.family.error(id, info))
        return frames

    def _leave(self, id: int) -> list[Frame]:
        """Nobody listens to that stream any more: what it still says is ignored."""
        self.agreed.leave(id)
        return [self.family.end(id)]

    # --- streams by ids that both sides agree on

    def receive_stream(self, stream_id: str | int) -> tuple[Exchange, list[Event]]:
        """The record of a stream that is to come, and what has come of it already."""
        id = self.next_id()
        early = self.agreed.expect(stream_id, id)
        self.highest_seen = id
        exchange = self.open_exchange(id, STATES["CONSUMING"])
        exchange.window = ReceiveWindow(self.limits.window)
        self.uploads += 1
        return exchange, self._process(self._frames(id, early), 0)

    def new_stream_id(self) -> str:
        """An id that no other stream of this connection has."""
        return f"{self.prefix}s{next(self._stream_ids)}"

    def id_sent(self, stream_id: str | int) -> int | None:
        """The id here of a stream that this side sends."""
        return next((id for id, each in self._sent.items() if each == stream_id), None)

    def send_stream(self, stream_id: str | int) -> int:
        """Open a stream of this side's; gives the id that it has here."""
        if stream_id in self._sent.values():
            raise ValueError(f"a stream {stream_id!r} is being sent already")
        id = self._next_id
        self._next_id += 2
        exchange = self.exchanges[id] = Exchange(id, STATES["PRODUCING"])
        exchange.credit = SendCredit(UNBOUNDED, UNBOUNDED)
        self._sent[id] = stream_id
        return id

    # --- writing

    def _write_call(self, call: Call) -> str:
        self.accesses.pop(call.id, None)
        data: dict[str, Any] = {"method": call.method, "args": call.args}
        if len(call.kwargs):
            data["kwargs"] = call.kwargs
        return _encode({"category": "request", "requestId": call.id, "data": data}).decode()

    def _response(self, asked: Asked, data: Any) -> str:
        record = {
            "category": "response", "requestId": int(asked.wire_id),
            "responseId": next(self._responses), "data": data,
        }  # fmt: skip
        return _encode(record).decode()

    def _write_result(self, result: Result) -> str | None:
        asked = self.requests.end(result.id)
        return None if asked is None else self._response(asked, result.value)

    def _write_error(self, frame: Error) -> str | None:
        asked = self.requests.end(frame.id)
        stream_id = self._sent.pop(frame.id, None)
        if stream_id is not None:
            return self._said(stream_id, "StreamError", error=stream_error(frame.error))
        if asked is None:
            return None
        words = refused(asked, frame.error, "{} is not a function")
        error = error_fields(frame.error, ERROR_NAMES)
        if words is not None:
            error["message"] = words
        return self._response(asked, {"error": error})

    def _write_opening(self, frame: Opening) -> str | None:
        asked = self.requests.get(frame.id)
        if asked is None:
            return None
        self._sent[frame.id] = f"{self.prefix}{frame.id}"
        return self._response(asked, {"streamId": self._sent[frame.id]})

    def _write_chunk(self, chunk: Chunk) -> str | None:
        stream_id = self._sent.get(chunk.id)
        if stream_id is None:
            return None
        return self._said(stream_id, "StreamData", payload=chunk.items[0])

    def _write_end(self, frame: End) -> str | None:
        self.requests.end(frame.id)
        stream_id = self._sent.pop(frame.id, None)
        return None if stream_id is None else self._said(stream_id, "StreamEnd")

    def _write_cancel(self, cancel: Cancel) -> str | None:
        # There is no word for it.
        if self.abandoned(cancel.id) or cancel.id not in self.exchanges:
            return None
        if not self.agreed.has(cancel.id):
            remember(self._left, cancel.id, None)
        self.unsent += self._leave(cancel.id)
        return None

    def _said(self, stream_id: str | int, type: str, **more: Any) -> str:
        return _encode({"type": type, "streamId": stream_id, **more}).decode()


class Signal(Dialect):
    """signal-rpc, over WebSockets without a subprotocol or one message to a line."""

    name = "signal"
    subprotocol = "signal-rpc"
    window: ClassVar[int] = 64

    def knows(self, message: str) -> bool:
        for decode in (_message, _stream):
            try:
                decode(message)
            except UNDECODABLE:
                continue
            return True
        return False

    def speak(
        self,
        side: Side,
        *,
        limits: Limits,
        metadata: Raw | None = None,
        table: Mapping[str, Method] | None = None,
    ) -> SignalEndpoint:
        return SignalEndpoint(side, limits=limits, metadata=metadata, table=table)

    def streams(self, connection: Connection) -> SignalStreams:
        """The streams of a connection that go by ids on which both sides agree.

        Raises :exc:`InvalidArgument` for a connection that speaks something else.
        """
        endpoint = connection.endpoint
        if not isinstance(endpoint, SignalEndpoint):
            raise InvalidArgument("this connection does not speak signal-rpc")
        return SignalStreams(connection, endpoint)


def stream_id_in(raw: Raw | None) -> str | int | None:
    try:
        return None if raw is None else _id(raw)
    except msgspec.MsgspecError:
        return None


def error_in(raw: Raw) -> ErrorInfo:
    fields = fields_in(raw)
    if not fields:
        return info_of("Error", text_in(raw), {})
    return info_in(fields, ERROR_NAMES)


def stream_error(info: ErrorInfo) -> str:
    return f"{info.name or 'Error'}: {info.message}"
