"""kkrpc 0.x, "classic": a stream has the id of its request, and there is no credit.

What a consumer does not take holds the reader, and so the whole connection, unless the dialect is
told that a slow stream shall fail. A ``stream-cancel`` is not acknowledged: whoever leaves a stream
of the other side's cannot know when its cleanup has run.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Raw

from trio_streamrpc.dialects import superjson
from trio_streamrpc.dialects.base import Dialect
from trio_streamrpc.dialects.failures import error_fields, text_in
from trio_streamrpc.dialects.foreign import (
    A_STREAM,
    NO_STREAM,
    UNBOUNDED,
    UNDECODABLE,
    Malformed,
    Opening,
)
from trio_streamrpc.dialects.kkrpc import NULL, KkrpcWire
from trio_streamrpc.dialects.kkrpc_0_records import (
    ERROR_NAMES,
    NO_FUNCTION,
    REQUESTS,
    Answer,
    Record,
    error_in,
    read_answer,
    read_record,
    with_array,
    without_arrays,
)
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
    Ref,
)

if TYPE_CHECKING:
    from trio_streamrpc.contract.method import Method

__all__ = ["KkrpcClassic", "KkrpcClassicEndpoint"]

Version = Literal["json", "superjson"]
Slow = Literal["wait", "fail"]

CALLBACK = "__callback__"
#: What closes the connection.
DESTROY = "__DESTROY__"

STREAM_MARK = {"__stream": True}

_list = msgspec.json.Decoder(list[Raw]).decode
_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

#: Results in which there is nothing to be looked for.
PLAIN = (int, float, str, bool, None, Any)


class KkrpcClassicEndpoint(KkrpcWire):
    """One side of a connection that speaks kkrpc 0.x.

    The accepting side answers in the version of what it has last been sent.
    """

    grants = False
    takes_streams = False
    #: How far a stream runs ahead is bounded by what waits to be written.
    first_credit = UNBOUNDED

    def __init__(
        self,
        side: Side,
        *,
        limits: Limits,
        metadata: Raw | None = None,
        table: Mapping[str, Method] | None = None,
        version: Version,
        slow: Slow,
    ) -> None:
        super().__init__(side, limits=limits, metadata=metadata, table=table)
        self.waits_for_consumers = slow == "wait"
        self._version = version
        #: This side's calls that were answered by a stream.
        self._streaming: set[int] = set()
        self._numbers = itertools.count(1)
        self._readers = {
            **dict.fromkeys(REQUESTS, self._read_request),
            "response": self._read_response,
            "callback": self._read_callback,
            "stream-chunk": self._read_chunk,
            "stream-end": self._read_end,
            "stream-error": self._read_end,
            "stream-cancel": self._read_cancel,
        }

    # --- reading

    def read(self, message: bytes | str) -> list[Frame]:
        if isinstance(message, str) and message.strip() == DESTROY:
            self.failed = True
            return [self.family.goaway(0, Code.UNAVAILABLE.value, "it was destroyed")]
        try:
            record = self._decoded(message)
        except UNDECODABLE as error:
            raise Malformed(str(error)[:100]) from None
        return self._readers[record.type](record)

    def _decoded(self, message: bytes | str) -> Record:
        text = message.decode() if isinstance(message, bytes) else message
        if text.startswith(superjson.PREFIX):
            self._version = "superjson"
            text = _encode(superjson.plain(_any(text))).decode()
        elif self.side == "accepting":
            self._version = "json"
        if '"Uint8Array"' in text:
            text = _encode(without_arrays(_any(text))).decode()
        return read_record(text)

    def _read_request(self, record: Record) -> list[Frame]:
        is_call = record.type == "request"
        call = self._read_asked(
            record.id,
            record.method if is_call else ".".join(record.path or ()),
            "call" if is_call else record.type,
            record.value or NULL,
            partial(self._read_arguments, record),
        )
        return [call]

    def _read_arguments(self, record: Record, call: Call, asked: Asked) -> None:
        if not record.callbackIds:
            call.args = record.args if record.args != NULL else Raw(b"[]")
            return
        try:
            values = _list(record.args)
        except msgspec.MsgspecError as error:
            raise Malformed(str(error)[:100]) from None
        known = {f"{CALLBACK}{each}": each for each in record.callbackIds}
        refs = []
        for place, raw in enumerate(values):
            wire_id = known.get(text_in(raw))
            if wire_id is not None:
                id = self.next_id()
                self.requests.add_callback(asked, id, wire_id)
                refs.append(Ref(place, "object", id))
                values[place] = NULL
        call.args = Raw(b"[" + b",".join(values) + b"]")
        call.refs = refs or None

    def _read_response(self, record: Record) -> list[Frame]:
        id = self.own(record.id)
        exchange = self.exchanges.get(id)
        answer = self._answer(record)
        value = answer.result or NULL
        is_stream = b"__stream" in bytes(value) and _any(value) == STREAM_MARK
        if exchange is None:
            # Answered already, or waited for by nobody, if it was ever asked.
            if is_stream and self.was_own(record.id):
                self.reply(self._said(id, "stream-cancel"))
            return self.late(record.id)
        if id in self._streaming:
            raise Malformed("a second answer to a call")
        self.accesses.pop(id, None)
        if answer.error is not UNSET:
            return [self.family.error(id, error_in(answer.error))]
        if is_stream and exchange.window is not None:
            self._streaming.add(id)
            return []
        if is_stream:
            self.reply(self._said(id, "stream-cancel"))
            return [self.family.error(id, ErrorInfo(Code.INVALID_ARGUMENT.value, "", A_STREAM))]
        if exchange.window is not None:
            return [self.family.error(id, ErrorInfo(Code.INVALID_ARGUMENT.value, "", NO_STREAM))]
        return [self.family.result(id, value)]

    def _ended(self, id: int) -> list[Frame]:
        self._streaming.discard(id)
        return [self.family.end(id)]

    def _answer(self, record: Record) -> Answer:
        try:
            return read_answer(record.args)
        except msgspec.MsgspecError as error:
            raise Malformed(str(error)[:100]) from None

    def _read_callback(self, record: Record) -> list[Frame]:
        return self._read_called(record.method, partial(self._read_arguments, record))

    def _read_chunk(self, record: Record) -> list[Frame]:
        id = self.own(record.id)
        if id not in self._streaming:
            return self.late(record.id)
        value = self._answer(record).value or NULL
        return [self.family.chunk(id, [value], len(value))]

    def _read_end(self, record: Record) -> list[Frame]:
        id = self.own(record.id)
        if id not in self._streaming:
            return self.late(record.id)
        if record.type == "stream-end":
            return self._ended(id)
        error = self._answer(record).error or NULL
        self._streaming.discard(id)
        return [self.family.error(id, error_in(error))]

    def _read_cancel(self, record: Record) -> list[Frame]:
        id = self.requests.id_of(record.id)
        asked = None if id is None else self.requests.get(id)
        if id is None or asked is None:
            # It has crossed the end, mostly: a short stream is written at once.
            return []
        asked.left = True
        return [self.family.cancel(id, "close")]

    # --- writing

    def _record(self, wire_id: str, type: str, args: Any, dates: Any = (), **more: Any) -> str:
        record = {"id": wire_id, "method": "", "args": args, "type": type, **more}
        record["version"] = self._version
        message = record
        if self._version == "superjson":
            message = superjson.wrapped(record, list(dates))
        return _encode(message).decode() + "\n"

    def _said(self, id: int, type: str) -> str:
        return self._record(f"{self.prefix}{id}", type, {})

    def _write_call(self, call: Call) -> str:
        given: list[Any] = list(_list(call.args))
        ids = []
        for ref in call.refs or ():
            assert isinstance(ref.place, int)
            ids.append(f"{self.prefix}{ref.id}")
            given[ref.place] = CALLBACK + ids[-1]
        more = {"callbackIds": ids} if ids else {}
        if call.target:
            self.unsent.append(self.family.result(call.id, NULL))
            wire_id = self.requests.callbacks.get(call.target, "")
            number = f"{self.prefix}r{next(self._numbers)}"
            return self._record(number, "callback", given, method=wire_id, **more)
        wire_id = f"{self.prefix}{call.id}"
        access = self.accesses.pop(call.id, "call")
        path = call.method.split(".")
        if access == "get":
            return self._record(wire_id, "get", {}, path=path)
        if access == "set":
            return self._record(wire_id, "set", {}, path=path, value=given[0])
        return self._record(wire_id, "request", given, method=call.method, **more)

    def _answered(self, asked: Asked, value: Raw | None) -> str:
        if value is None:
            return self._record(asked.wire_id, "response", {})
        told, dates = self._value(asked.name, value, "result")
        return self._record(asked.wire_id, "response", {"result": told}, dates)

    def _value(self, name: str, raw: Raw, key: str) -> tuple[Any, list[superjson.Path]]:
        """A result or an item as this version has it: its bytes, or where its dates are."""
        method = self.table.get(name)
        wanted: type = bytes if self._version == "json" else datetime
        if method is None or method.result_type in PLAIN:
            return raw, []
        try:
            value = _any(raw)
        except RecursionError:
            # What is nested so deeply can be encoded, and no more.
            return raw, []
        paths = list(superjson.paths_of(wanted, method.result_type, value))
        if wanted is bytes:
            for path in paths:
                value = with_array(value, path)
            return value if paths else raw, []
        return raw, [("args", key, *path) for path in paths]

    def _write_error(self, frame: Error) -> str | None:
        asked = self.requests.end(frame.id)
        if asked is None or asked.op == "callback":
            return None
        words = refused(asked, frame.error, "Method {}" + NO_FUNCTION)
        error = error_fields(frame.error, ERROR_NAMES) if words is None else words
        if asked.left:
            return None
        type = "stream-error" if asked.streams else "response"
        return self._record(asked.wire_id, type, {"error": error})

    def _write_opening(self, frame: Opening) -> str | None:
        asked = self.requests.get(frame.id)
        if asked is None:
            return None
        asked.streams = True
        return self._record(asked.wire_id, "response", {"result": STREAM_MARK})

    def _write_chunk(self, chunk: Chunk) -> str | None:
        asked = self.requests.get(chunk.id)
        if asked is None:
            return None
        value, dates = self._value(asked.name, chunk.items[0], "value")
        return self._record(asked.wire_id, "stream-chunk", {"value": value}, dates)

    def _write_end(self, frame: End) -> str | None:
        asked = self.requests.end(frame.id)
        if asked is None or asked.left:
            # Whoever has left its loop listens no more.
            return None
        return self._record(asked.wire_id, "stream-end", {})

    def _write_cancel(self, cancel: Cancel) -> str | None:
        if self.abandoned(cancel.id) or cancel.id not in self.exchanges:
            return None
        # One that has not begun is ended when it does.
        has_begun = cancel.id in self._streaming
        self.unsent += self._ended(cancel.id)
        return self._said(cancel.id, "stream-cancel") if has_begun else None


class KkrpcClassic(Dialect):
    """kkrpc 0.x, over WebSockets without a subprotocol or one record to a line.

    ``version`` is what a connecting side speaks; either is understood, and answered in kind.
    ``slow`` says what becomes of a stream that is not taken as fast as it comes, which this wire
    has no word for: "wait" stops reading, so that everything else on the connection waits as well;
    "fail" ends that stream with ``RESOURCE_EXHAUSTED``. Call it to have it otherwise:
    ``kkrpc_classic(slow="fail")``.
    """

    name = "kkrpc_classic"
    subprotocol = "kkrpc.0"
    window: ClassVar[int] = 64

    def __init__(self, *, version: Version = "json", slow: Slow = "wait") -> None:
        if version not in ("json", "superjson"):
            raise ValueError(f'version must be "json" or "superjson", not {version!r}')
        if slow not in ("wait", "fail"):
            raise ValueError(f'slow must be "wait" or "fail", not {slow!r}')
        self.version: Version = version
        self.slow: Slow = slow

    def __call__(self, *, version: Version | None = None, slow: Slow | None = None) -> KkrpcClassic:
        """The same with other options."""
        return KkrpcClassic(version=version or self.version, slow=slow or self.slow)

    def knows(self, message: str) -> bool:
        if message.startswith(superjson.PREFIX):
            return True
        try:
            return read_record(message).type in (*REQUESTS, "callback", "stream-cancel")
        except UNDECODABLE:
            return False

    def speak(
        self,
        side: Side,
        *,
        limits: Limits,
        metadata: Raw | None = None,
        table: Mapping[str, Method] | None = None,
    ) -> KkrpcClassicEndpoint:
        return KkrpcClassicEndpoint(
            side,
            limits=limits,
            metadata=metadata,
            table=table,
            version=self.version,
            slow=self.slow,
        )
