"""One side of a connection that speaks another system's wire.

A :class:`ForeignEndpoint` stands where this protocol's own endpoint stands. It reads messages of
its wire as frames, and writes frames as messages of its wire; ids, credit, limits, cancellation and
cleanup stay those of the core.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from msgspec import Raw

from trio_streamrpc.dialects.requests import Asked, Requests, own_number
from trio_streamrpc.errors import Code, InvalidArgument, RemoteProtocolError
from trio_streamrpc.limits import MAX_INTEGER, Limits, Window
from trio_streamrpc.protocol import reactions
from trio_streamrpc.protocol.calling import Access, Refs
from trio_streamrpc.protocol.credit import Growth
from trio_streamrpc.protocol.endpoint import Endpoint, Event, Side
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.protocol.frames import (
    VERSION,
    Announced,
    Call,
    Cancel,
    Chunk,
    End,
    Error,
    ErrorInfo,
    Frame,
    Kind,
    Result,
    WindowInfo,
)
from trio_streamrpc.protocol.parts import Claim
from trio_streamrpc.protocol.peer_limits import keep_to
from trio_streamrpc.protocol.states import STATES

if TYPE_CHECKING:
    from trio_streamrpc.contract.method import Method

__all__ = [
    "A_STREAM",
    "MAX_ID",
    "NOT_SPOKEN",
    "NO_STREAM",
    "UNBOUNDED",
    "UNDECODABLE",
    "ForeignEndpoint",
    "Malformed",
    "Opening",
    "Record",
]

#: Where a wire has no number of its own.
UNBOUNDED = MAX_INTEGER // 2
#: What calls of callbacks come to that wait for their turn: so many of the longest messages.
WAITING_MESSAGES = 4
#: The longest id of the other side's that is kept.
MAX_ID = 128

#: How a call is told that it was made as what its method is not.
A_STREAM = "it gives a stream: use connection.stream(…) or a typed proxy"
NO_STREAM = "it gives one result: use await connection.call(…) or a typed proxy"

#: What is told to a client that speaks something else.
NOT_SPOKEN = "the first message is of no dialect served here"

#: What becomes of arguments that are.
TOO_DEEP = "the arguments are nested too deeply"

CONSUMING = STATES["CONSUMING"]

#: What msgspec raises on text of any kind that is no message.
UNDECODABLE = (msgspec.MsgspecError, RecursionError, ValueError)


class Malformed(Exception):  # as the other errors are
    """A message that says nothing: it is ignored, and costs from the violation budget."""


class Record(Frame):
    """A message of the wire as it is, to be written among the control frames."""

    kind: ClassVar[int] = -1
    text: str


class Opening(Frame):
    """A call of the other side's is answered by a stream, and its handler has begun."""

    kind: ClassVar[int] = -2
    id: int


class ForeignEndpoint(Endpoint, ABC):
    """One side of a connection that speaks another system's wire.

    ``table`` is what this side serves: these wires do not tell what a call is to be answered with.
    """

    pings = False
    tells_limits = False
    announces = True
    holds = False
    takes_names = False

    #: The credit that the other side is taken to have given for what this side uploads.
    upload_credit: ClassVar[int] = UNBOUNDED

    def __init__(
        self,
        side: Side,
        *,
        limits: Limits,
        metadata: Raw | None = None,
        table: Mapping[str, Method] | None = None,
    ) -> None:
        super().__init__(side, encoding="json", limits=limits, metadata=metadata)
        self.table: Mapping[str, Method] = table if table is not None else {}
        self.peer = Announced(
            window=WindowInfo(self.upload_credit, UNBOUNDED),
            max_calls=UNBOUNDED,
            max_object_calls=UNBOUNDED,
            max_uploads=UNBOUNDED,
            max_message_bytes=UNBOUNDED,
            max_frame_bytes=UNBOUNDED,
            max_value_bytes=UNBOUNDED,
            max_partial_bytes=UNBOUNDED,
            # A message holds one record.
            max_message_frames=1,
        )
        keep_to(self.outbox, self.peer)
        # … and a record one item.
        self.outbox.chunk_bytes = 1
        #: The ids of the other side's calls here, as they are counted up (R5).
        self._next_peer_id = 2 if side == "connecting" else 1
        #: What the ids of this side begin with; what follows is the id that it has here.
        self.prefix = f"{side[0]}-"
        self.requests = Requests()
        #: The length of the message that is being read.
        self._length = 0
        #: Whether nothing has come yet by which it is known that the other side speaks this.
        self._unknown = side == "accepting"
        #: Final frames that the other side does not send (``answered``).
        self.unsent: list[Frame] = []
        #: What this side's calls are to do, if it is not to call.
        self.accesses: dict[int, Access] = {}
        #: What writes a frame of each kind that the wire has a message for.
        self._writers: dict[int, Callable[[Any], str | None]] = {
            Kind.CALL: self._write_call,
            Kind.RESULT: self._write_result,
            Kind.ERROR: self._write_error,
            Kind.CHUNK: self._write_chunk,
            Kind.END: self._write_end,
            Kind.CANCEL: self._write_cancel,
            Opening.kind: self._write_opening,
        }

    # --- what a wire says

    @abstractmethod
    def read(self, message: bytes | str) -> list[Frame]:
        """The frames of one message. Raises :exc:`Malformed` for what is none."""

    def write(self, frame: Any) -> str | None:
        """The message of one frame; None where the wire has none."""
        writer = self._writers.get(frame.kind)
        return writer(frame) if writer is not None else None

    @abstractmethod
    def _write_call(self, call: Call) -> str | None: ...

    @abstractmethod
    def _write_result(self, result: Result) -> str | None: ...

    @abstractmethod
    def _write_error(self, frame: Error) -> str | None: ...

    @abstractmethod
    def _write_chunk(self, chunk: Chunk) -> str | None: ...

    @abstractmethod
    def _write_end(self, frame: End) -> str | None: ...

    @abstractmethod
    def _write_cancel(self, cancel: Cancel) -> str | None: ...

    @abstractmethod
    def _write_opening(self, frame: Opening) -> str | None: ...

    @property
    def metadata(self) -> Raw | None:
        """What this side's calls are sent with."""
        return self._metadata

    def next_id(self) -> int:
        """The id of what the other side opens now."""
        id = self._next_peer_id
        self._next_peer_id += 2
        return id

    def reply(self, text: str) -> None:
        """Write that message; it counts like any other that a peer can ask for (R24)."""
        self.outbox.add_control(Record(text), len(text))

    def streams(self, name: str) -> bool:
        """Whether a method of this side's is answered by a stream."""
        method = self.table.get(name)
        return method is not None and method.kind.value == "server stream"

    # --- in the place of the core's own

    def begin(self) -> list[Event]:
        # The other side says no hello: it is taken as said.
        return self._process([self.family.hello(VERSION)], 0)

    def _say_hello(self) -> None:
        """This side says none either."""

    def receive(self, message: bytes | str, now: float = 0.0) -> list[Event]:
        if self.failed:
            return []
        self.now = now
        try:
            if len(message) > self.limits.max_message_bytes:
                raise reactions.MESSAGE_TOO_LONG.error(len(message), self.limits.max_message_bytes)
            unknown, self._unknown = self._unknown, False
            self._length = len(message)
            try:
                batch = self.read(message)
            except (Malformed, RecursionError) as problem:
                if unknown:
                    raise reactions.UNKNOWN_DIALECT.error(NOT_SPOKEN) from None
                self.violation(reactions.MALFORMED, str(problem))
                return []
            return self._process(batch, len(message))
        except RemoteProtocolError as error:
            self.fail(error)
            raise

    def next_message(self) -> bytes | str | None:
        while True:
            batch = self.outbox.take()
            if not batch:
                return None
            text = self._message(batch[0])
            if self.unsent:
                unsent, self.unsent = self.unsent, []
                self.answered += self._process(unsent, 0)
            if text is not None:
                return text

    def _message(self, frame: Frame) -> str | None:
        if isinstance(frame, Record):
            return frame.text
        try:
            return self.write(frame)
        except RecursionError:
            # They could just be encoded, and are looked through again here.
            assert isinstance(frame, Call)
            info = self.error_info(Code.INVALID_ARGUMENT, f"{frame.method}(): {TOO_DEEP}")
            self.unsent.append(self.family.error(frame.id, info))
            return None

    def call(
        self,
        method: str,
        args: bytes,
        kwargs: bytes | None = None,
        *,
        refs: Refs = (),
        target: int = 0,
        root: Exchange | None = None,
        window: Window | None = None,
        growth: Growth | None = None,
        timeout: float | None = None,
        metadata: bytes | None = None,
        priority: int = 0,
        claim: Claim | None = None,
        access: Access = "call",
    ) -> Exchange:
        if kwargs is not None and not self.takes_names:
            raise InvalidArgument(f"{method}(): this wire carries arguments by position only")
        if not self.takes_streams and any(kind == "stream" for _, kind in refs):
            raise InvalidArgument(f"{method}(): this wire carries no streams as arguments")
        if not self.takes_callbacks and any(kind == "object" for _, kind in refs):
            raise InvalidArgument(f"{method}(): this wire carries no callbacks")
        if window is not None:
            # Bytes are not counted there: a window's are as many as its items take.
            window = Window(window.items, UNBOUNDED)
        exchange = super().call(
            method, args, kwargs, refs=refs, target=target, root=root, window=window,
            growth=growth, metadata=metadata, priority=priority, claim=claim,
        )  # fmt: skip
        if access != "call":
            self.accesses[exchange.id] = access
        return exchange

    #: What a call may have among its arguments.
    takes_streams: ClassVar[bool] = True
    takes_callbacks: ClassVar[bool] = True

    def announce(self, id: int) -> None:
        self.outbox.add_control(Opening(id))

    def announced(self, id: int) -> None:
        """The other side has answered a call of this one's by a stream, which was expected."""
        exchange = self.exchanges[id]
        window = exchange.window
        assert window is not None
        if exchange.state is CONSUMING and self.grants_first:
            self.outbox.add_grant(id, window.credit_items, 0)

    def abandoned(self, id: int) -> bool:
        """Whether it is a call with one answer that is not waited for any more.

        There is no word that would end it there, so it is over here, and what it is answered with
        is late; but what it uploads tells its handler, which is waited for then (R10).
        """
        exchange = self.exchanges.get(id)
        if exchange is None or exchange.window is not None:
            return False
        if not any(each.id in self.exchanges for each in exchange.uploads):
            info = self.error_info(Code.CANCELLED, "the call was cancelled")
            self.unsent.append(self.family.error(id, info))
        return True

    def _forget(self, call: Exchange) -> None:
        self.accesses.pop(call.id, None)
        super()._forget(call)

    def refuse(self, id: int, info: ErrorInfo, *, retry: bool = False) -> None:
        super().refuse(id, info, retry=retry)
        self.requests.drop_callbacks(self.requests.get(id))

    def asked_callback(self) -> Asked | None:
        """The record of a call of a callback, which has just come; None if too much waits already.

        There is nobody to be told: it is dropped.
        """
        waiting = self.requests.callback_bytes
        if waiting and waiting + self._length > WAITING_MESSAGES * self.limits.max_message_bytes:
            return None
        return Asked("", op="callback", size=self._length)

    def own(self, wire_id: str) -> int:
        """The id here of what this side has opened by that id there; 0 if it has not."""
        return own_number(wire_id, self.prefix)

    def was_own(self, wire_id: str) -> bool:
        """Whether this side has ever used that id."""
        return 0 < self.own(wire_id) <= max(self.highest_used, self.highest_seen)

    def late(self, wire_id: str) -> list[Frame]:
        """What crossed the end of what it is for is ignored; what was made up costs."""
        if not self.was_own(wire_id):
            raise Malformed("an id that is not known")
        return []

    def gives_nothing(self, name: str) -> bool:
        """Whether a method gives nothing at all, which JavaScript tells from null."""
        method = self.table.get(name)
        return method is not None and method.result_type in (None, type(None))

    def fail(self, error: Any) -> None:
        super().fail(error)
        # There are no words for it: the transport tells it as it can.
        self.outbox.finish()
