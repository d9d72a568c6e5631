"""kkrpc 2: compact records, one JSON object to a message.

``pull`` is a ``grant``; ``return`` and ``throw`` are a ``cancel``, whose acknowledgement is the
stream's final frame, so that it is written when the handler's ``finally`` has run (R7).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from msgspec import UNSET, Raw

from trio_streamrpc.dialects.base import Dialect
from trio_streamrpc.dialects.failures import error_fields, fields_in, text_in
from trio_streamrpc.dialects.foreign import (
    A_STREAM,
    MAX_ID,
    NO_STREAM,
    UNDECODABLE,
    Malformed,
    Opening,
)
from trio_streamrpc.dialects.kkrpc import NULL, KkrpcWire
from trio_streamrpc.dialects.kkrpc_2_records import (
    ARGUMENT,
    ERROR_NAMES,
    NO_FUNCTION,
    STREAM,
    Record,
    error_in,
    read_record,
    stream_error,
    stream_in,
)
from trio_streamrpc.dialects.kkrpc_2_streams import Streams
from trio_streamrpc.dialects.requests import Asked, refused
from trio_streamrpc.errors import Code
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.endpoint import Side
from trio_streamrpc.protocol.frames import (
    Call,
    Cancel,
    Chunk,
    End,
    Error,
    ErrorInfo,
    Frame,
    Grant,
    Kind,
    Ref,
    is_absent,
)

if TYPE_CHECKING:
    from trio_streamrpc.contract.method import Method

__all__ = ["Kkrpc", "KkrpcEndpoint"]

#: A consumer's window, and what it asks for at a time once it has taken as much.
WINDOW = 32
REPLENISH = 16


_map = msgspec.json.Decoder(dict[str, Raw]).decode
_list = msgspec.json.Decoder(list[Raw]).decode
_encode = msgspec.json.Encoder().encode


class KkrpcEndpoint(KkrpcWire):
    """One side of a connection that speaks kkrpc 2."""

    grants_first = True
    upload_credit = 0

    def __init__(
        self,
        side: Side,
        *,
        limits: Limits,
        metadata: Raw | None = None,
        table: Mapping[str, Method] | None = None,
    ) -> None:
        super().__init__(side, limits=limits, metadata=metadata, table=table)
        self._streams = Streams(self.prefix)
        #: Cancels of streams that are not known yet by their ids.
        self._waiting_cancels: dict[int, Cancel] = {}
        self._readers = {
            "q": self._read_request,
            "r": self._read_response,
            "cb": self._read_callback,
            "cbr": self._read_release,
            "sq": self._read_control,
            "sr": self._read_item,
        }
        self._writers[Kind.GRANT] = self._write_grant

    # --- reading

    def read(self, message: bytes | str) -> list[Frame]:
        try:
            record = read_record(message)
        except UNDECODABLE as error:
            raise Malformed(str(error)[:100]) from None
        return self._readers[record.t](record)

    def _read_request(self, record: Record) -> list[Frame]:
        call = self._read_asked(
            record.id,
            ".".join(record.p),
            record.op,
            record.v or NULL,
            partial(self._read_arguments, record.a),
        )
        if not is_absent(meta := record.meta or NULL):
            call.metadata = meta
        return [call]

    def _read_arguments(self, given: list[Raw], call: Call, asked: Asked) -> None:
        values: list[Raw] = []
        refs: list[Ref] = []
        try:
            for place, raw in enumerate(given):
                value = raw
                if ARGUMENT in bytes(raw) or STREAM in bytes(raw):
                    value, ref = self._read_argument(raw, place, asked)
                    if ref is not None:
                        refs.append(ref)
                values.append(value)
        except (Malformed, RecursionError):
            # Nothing is kept of what came with it.
            for ref in refs:
                if ref.type == "stream":
                    self._streams.end_consumed(ref.id)
                else:
                    del self.requests.callbacks[ref.id]
            raise
        call.args = Raw(b"[" + b",".join(values) + b"]")
        if refs:
            call.refs = refs

    def _read_argument(self, raw: Raw, place: int, asked: Asked) -> tuple[Raw, Ref | None]:
        fields = fields_in(raw)
        kind = text_in(fields.get("__kkrpc_next_arg__"))
        value = raw
        if kind == "callback":
            return NULL, self._read_callback_argument(fields, place, asked)
        if kind == "value":
            value = fields.get("v", NULL)
        elif kind:
            raise Malformed(f"an argument that is a {kind[:20]!r}")
        sid = stream_in(value)
        if sid is None:
            return value, None
        if self._streams.consumed_id(sid) is not None:
            raise Malformed("a stream that is there already")
        id = self.next_id()
        self._streams.consume(id, sid)
        return NULL, Ref(place, "stream", id)

    def _read_callback_argument(self, fields: dict[str, Raw], place: int, asked: Asked) -> Ref:
        wire_id = text_in(fields.get("id"))
        if not 0 < len(wire_id) <= MAX_ID:
            raise Malformed("a callback without an id")
        id = self.next_id()
        self.requests.add_callback(asked, id, wire_id)
        return Ref(place, "object", id)

    def _read_response(self, record: Record) -> list[Frame]:
        id = self.own(record.id)
        value = record.v or NULL
        sid = stream_in(value)
        if sid is not None and self._streams.consumed_id(sid) is not None:
            sid = None
        if self.exchanges.get(id) is None:
            # Answered already, or waited for by nobody, if it was ever asked.
            if sid is not None and self.was_own(record.id):
                self.reply(self._streams.control(sid, "return"))
            return self.late(record.id)
        if id in self._streams.consumed:
            raise Malformed("a second answer to a call")
        was_stream = self.exchanges[id].window is not None
        if record.e is not UNSET:
            self._forget_waiting(id)
            return [self.family.error(id, error_in(record.e))]
        if sid is not None:
            return self._read_stream(id, sid, expected=was_stream)
        if was_stream:
            self._forget_waiting(id)
            info = ErrorInfo(Code.INVALID_ARGUMENT.value, "", NO_STREAM)
            return [self.family.error(id, info)]
        return [self.family.result(id, value)]

    def _read_stream(self, id: int, sid: str, *, expected: bool) -> list[Frame]:
        if not expected:
            self.reply(self._streams.control(sid, "return"))
            return [self.family.error(id, ErrorInfo(Code.INVALID_ARGUMENT.value, "", A_STREAM))]
        self._streams.consume(id, sid)
        self.announced(id)
        cancel = self._waiting_cancels.pop(id, None)
        if cancel is not None:
            self.outbox.add_control(cancel)
        return []

    def _forget_waiting(self, id: int) -> None:
        self._waiting_cancels.pop(id, None)
        self.accesses.pop(id, None)

    def _read_callback(self, record: Record) -> list[Frame]:
        return self._read_called(record.id, partial(self._read_arguments, record.a))

    def _read_release(self, record: Record) -> list[Frame]:
        # What was passed with a call is released when that ends.
        return []

    def _read_control(self, record: Record) -> list[Frame]:
        id = self.own(record.sid)
        produced = self._streams.produced.get(id)
        if record.op == "pull":
            if produced is None:
                return self.late(record.sid)
            return [self.family.grant(id, record.n, 0)]
        if record.op not in ("return", "throw"):
            raise Malformed("an unknown control of a stream")
        if produced is None:
            if not self.was_own(record.sid):
                raise Malformed("a control of no stream")
            # It crossed the end of its stream, and is waited for.
            self.reply(self._streams.acknowledgement(record.id, record.sid, d=True))
            return []
        if not produced.ask(record.id):
            raise Malformed("a stream that is asked to end, and again")
        if record.op == "return":
            return [self.family.cancel(id, "close")]
        return [self.family.cancel(id, "abort")]

    def _read_item(self, record: Record) -> list[Frame]:
        streams = self._streams
        id = streams.consumed_id(record.sid)
        if id is None:
            if record.d or record.e is not UNSET:
                # An acknowledgement that crossed the end.
                return []
            raise Malformed("an item of no stream")
        if record.e is not UNSET:
            streams.end_consumed(id)
            return [self.family.error(id, error_in(record.e))]
        consumed = streams.consumed[id]
        is_answer = consumed.is_answered_by(record.id)
        if record.d or (is_answer and consumed.left == "return"):
            streams.end_consumed(id)
            return [self.family.end(id)]
        if is_answer:
            # It has caught what was thrown in, and goes on.
            self.reply(streams.leave(consumed, "return"))
            return []
        value = record.v or NULL
        return [self.family.chunk(id, [value], len(value))]

    # --- writing

    def _write_call(self, call: Call) -> str:
        given = _list(call.args)
        refs = {ref.place: ref for ref in call.refs or ()}
        arguments = [self._argument(raw, refs.get(place)) for place, raw in enumerate(given)]
        if call.target:
            self.unsent.append(self.family.result(call.id, NULL))
            wire_id = self.requests.callbacks.get(call.target, "")
            return _encode({"t": "cb", "id": wire_id, "a": arguments}).decode()
        access = self.accesses.pop(call.id, "call")
        record: dict[str, Any] = {
            "t": "q",
            "id": f"{self.prefix}{call.id}",
            "op": access,
            "p": call.method.split("."),
        }
        if access == "call":
            record["a"] = arguments
        elif access == "set":
            record["v"] = given[0]
        meta = self._merged(call.metadata)
        if meta is not None:
            record["meta"] = meta
        return _encode(record).decode()

    def _merged(self, metadata: Raw) -> Any:
        """What a call is sent with, over what this side's calls are all sent with."""
        always = self.metadata
        if is_absent(metadata):
            return always
        return {**({} if always is None else _map(always)), **_map(metadata)}

    def _argument(self, raw: Raw, ref: Ref | None) -> dict[str, Any]:
        if ref is None:
            return {"__kkrpc_next_arg__": "value", "v": raw}
        wire_id = f"{self.prefix}{ref.id}"
        if ref.type == "object":
            return {"__kkrpc_next_arg__": "callback", "id": wire_id}
        return {"__kkrpc_next_arg__": "value", "v": self._streams.produce(ref.id)}

    def _answered(self, asked: Asked, value: Raw | None) -> str:
        record = {"t": "r", "id": asked.wire_id}
        return _encode(record if value is None else {**record, "v": value}).decode()

    def _write_error(self, frame: Error) -> str | None:
        asked = self.requests.end(frame.id)
        if frame.id in self._streams.produced:
            return self._final(frame.id, e=stream_error(frame.error))
        if asked is None or asked.op == "callback":
            return None
        words = refused(asked, frame.error, "{}" + NO_FUNCTION)
        error = (
            error_fields(frame.error, ERROR_NAMES) if words is None else {"n": "Error", "m": words}
        )
        return _encode({"t": "r", "id": asked.wire_id, "e": error}).decode()

    def _write_opening(self, frame: Opening) -> str | None:
        asked = self.requests.get(frame.id)
        if asked is None or frame.id not in self.exchanges:
            return None
        mark = self._streams.produce(frame.id)
        return _encode({"t": "r", "id": asked.wire_id, "v": mark}).decode()

    def _write_chunk(self, chunk: Chunk) -> str | None:
        return self._streams.item(chunk.id, chunk.items[0])

    def _write_end(self, frame: End) -> str | None:
        self.requests.end(frame.id)
        return self._final(frame.id, d=True)

    def _final(self, id: int, **how: Any) -> str | None:
        """The last record of a stream: who has asked for it is acknowledged by it."""
        words = self._streams.final(id, **how)
        for each in words[1:]:
            self.reply(each)
        return words[0] if words else None

    def _write_cancel(self, cancel: Cancel) -> str | None:
        consumed = self._streams.consumed.get(cancel.id)
        if consumed is None:
            if not self.abandoned(cancel.id) and cancel.id in self.exchanges:
                self._waiting_cancels[cancel.id] = cancel
            return None
        if consumed.left:
            return None
        if cancel.error is None:
            return self._streams.leave(consumed, "return")
        return self._streams.leave(consumed, "throw", v=error_fields(cancel.error, ERROR_NAMES))

    def _write_grant(self, grant: Grant) -> str | None:
        consumed = self._streams.consumed.get(grant.id)
        if consumed is None or grant.items == 0:
            return None
        # As much at a time as its own consumers ask for, once they have begun.
        window = self.exchanges[grant.id].window
        assert window is not None
        begun = window.taken_items > 0
        amount = min(grant.items, REPLENISH) if begun else grant.items
        if amount < grant.items:
            self.outbox.add_grant(grant.id, grant.items - amount, 0)
        return self._streams.control(consumed.sid, "pull", n=amount)


class Kkrpc(Dialect):
    """kkrpc 2, over WebSockets without a subprotocol or one record to a line."""

    name = "kkrpc"
    subprotocol = "kkrpc.2"
    window: ClassVar[int] = WINDOW

    def knows(self, message: str) -> bool:
        try:
            return read_record(message).t in ("q", "cb", "sq", "cbr")
        except UNDECODABLE:
            return False

    def speak(
        self,
        side: Side,
        *,
        limits: Limits,
        metadata: Raw | None = None,
        table: Mapping[str, Method] | None = None,
    ) -> KkrpcEndpoint:
        return KkrpcEndpoint(side, limits=limits, metadata=metadata, table=table)
