"""signal-rpc's streams by ids on which both sides agree: who receives one may come before its first
item, or after.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import trio
from msgspec import Meta, Raw, Struct

from trio_streamrpc.dialects.foreign import MAX_ID
from trio_streamrpc.errors import RpcError
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.frames import Error
from trio_streamrpc.runtime.failures import error_from
from trio_streamrpc.runtime.streams import RemoteStream
from trio_streamrpc.runtime.uploads import Upload

if TYPE_CHECKING:
    from trio_streamrpc.dialects.signal_rpc import SignalEndpoint
    from trio_streamrpc.runtime.connection import Connection

__all__ = [
    "OVERFLOW",
    "Agreed",
    "Number",
    "SignalStream",
    "SignalStreams",
    "StreamId",
    "StreamMessage",
    "remember",
]

Number = Annotated[int, Meta(ge=-(2**53), le=2**53)]
StreamId = Annotated[str, Meta(max_length=MAX_ID)] | Number

STREAM_KINDS = ("StreamData", "StreamEnd", "StreamError")

#: How many streams may have begun that nobody has asked for, and what may have come of them, all
#: together.
EARLY_STREAMS = 64
EARLY_BYTES = 256 * 1024
#: How many are remembered that nobody wants any more, or that were dropped.
REMEMBERED = 1024


class StreamMessage(Struct):
    """What a stream says."""

    type: Literal[STREAM_KINDS]  # type: ignore[valid-type]
    streamId: StreamId  # noqa: N815  # as it is on the wire
    payload: Raw = Raw(b"null")
    error: Raw = Raw(b"null")


#: What stands in the place of all that did not fit.
OVERFLOW = StreamMessage(
    "StreamError", "", error=Raw(b'"it came before it was asked for, and too much"')
)


class Early(Struct):
    """What has come of a stream that nobody has asked for."""

    records: list[StreamMessage] = []
    bytes: int = 0
    #: Whether some of it was dropped, and whether its end has come.
    cut: bool = False
    ended: bool = False


class Agreed:
    """The streams of the other side, by the ids that they have there and here."""

    def __init__(self, limits: Limits) -> None:
        self._ids: dict[StreamId, int] = {}
        self._stream_ids: dict[int, StreamId] = {}
        self._window = limits.window.items
        #: What has come of streams that nobody has asked for.
        self._early: dict[StreamId, Early] = {}
        self._early_bytes = 0
        #: … and those that were one too many, and whether they have ended; and streams that were
        #: left: what they still say is ignored. Dicts, for their order.
        self._dropped: dict[StreamId, bool] = {}
        self._left: dict[StreamId, None] = {}

    def __contains__(self, stream_id: StreamId) -> bool:
        return stream_id in self._ids

    def has(self, id: int) -> bool:
        return id in self._stream_ids

    def id_of(self, stream_id: StreamId) -> int | None:
        return self._ids.get(stream_id)

    def expect(self, stream_id: StreamId, id: int) -> list[StreamMessage]:
        """That stream has that id here; gives what has come of it already."""
        self._ids[stream_id], self._stream_ids[id] = id, stream_id
        self._left.pop(stream_id, None)
        early = self._take(stream_id)
        if early is None or not early.cut:
            return [] if early is None else early.records
        if not early.ended:
            # It ends here, and what it still says is ignored.
            remember(self._left, stream_id, None)
        return [*early.records, OVERFLOW]

    def _take(self, stream_id: StreamId) -> Early | None:
        """What has come of a stream; it is not kept any more."""
        early = self._early.pop(stream_id, None)
        if early is not None:
            self._early_bytes -= early.bytes
            return early
        ended = self._dropped.pop(stream_id, None)
        return None if ended is None else Early(cut=True, ended=ended)

    def keep(self, record: StreamMessage) -> None:
        """Something of a stream that nobody has asked for."""
        stream_id, is_end = record.streamId, record.type != "StreamData"
        if stream_id in self._left:
            if is_end:
                del self._left[stream_id]
            return
        early = self._early.get(stream_id)
        if early is None:
            if stream_id in self._dropped or len(self._early) >= EARLY_STREAMS:
                remember(self._dropped, stream_id, is_end or self._dropped.get(stream_id, False))
                return
            early = self._early[stream_id] = Early()
        if not early.ended:
            # Nothing follows its end.
            early.ended = is_end
            self._keep(early, record)

    def _keep(self, early: Early, record: StreamMessage) -> None:
        # Of the whole message, no more than its kind says is kept.
        kept = StreamMessage(record.type, record.streamId)
        if record.type == "StreamData":
            kept.payload = record.payload.copy()
        elif record.type == "StreamError":
            kept.error = record.error.copy()
        size = 0 if record.type == "StreamEnd" else len(kept.payload) + len(kept.error)
        is_one_too_many = record.type == "StreamData" and len(early.records) >= self._window
        if early.cut or is_one_too_many or (size and self._early_bytes + size > EARLY_BYTES):
            early.cut = True
            return
        early.records.append(kept)
        early.bytes += size
        self._early_bytes += size

    def end(self, id: int) -> None:
        """It has ended."""
        del self._ids[self._stream_ids.pop(id)]

    def leave(self, id: int) -> None:
        """Nobody wants any more of it."""
        stream_id = self._stream_ids.pop(id, None)
        if stream_id is not None:
            del self._ids[stream_id]
            self.ignore(stream_id)

    def ignore(self, stream_id: StreamId) -> None:
        """What that stream says from now on is ignored."""
        early = self._take(stream_id)
        if early is None or not early.ended:
            remember(self._left, stream_id, None)


def remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    """Have that among what is known, which is bounded: the oldest is forgotten."""
    known[key] = value
    if len(known) > REMEMBERED:
        del known[next(iter(known))]


class SignalStream(RemoteStream[Any]):
    """A stream of the other side's, by an id on which both agree."""

    stream_id: StreamId = ""


class SignalStreams:
    """The streams of one connection that go by ids on which both sides agree.

    Made by ``signal.streams(connection)``; every one of a connection's is the same.
    """

    def __init__(self, connection: Connection, endpoint: SignalEndpoint) -> None:
        self._connection = connection
        self._endpoint = endpoint

    def new_stream_id(self) -> str:
        """An id that no other stream of this connection has."""
        return self._endpoint.new_stream_id()

    async def send_stream(
        self,
        iterable: AsyncIterable[Any],
        stream_id: StreamId | None = None,
        *,
        task_status: trio.TaskStatus[StreamId] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Send all that it gives, to its end; the iterable is closed then.

        Without a ``stream_id`` one is made up: ``id = await nursery.start(streams.send_stream,
        items)``. Raises what the iterable raises, which the other side is told; what
        :meth:`abort_stream` ends is no error here. Raises :exc:`ValueError` for an id that is being
        sent already.
        """
        connection = self._connection
        connection.check_open()
        if stream_id is None:
            stream_id = self.new_stream_id()
        failures: list[BaseException] = []
        id = self._endpoint.send_stream(stream_id)
        upload = Upload(
            connection,
            id,
            iterable,
            connection.payloads.encoder(),
            f"the stream {stream_id!r}",
            failures.append,
            None,
        )
        connection.caller.add_stream(upload)
        task_status.started(stream_id)
        await upload.run()
        if failures:
            raise failures[0]
        connection.check_open()

    def receive_stream(self, stream_id: StreamId | None = None) -> SignalStream:
        """The items of a stream, by an id that the other side has told, or that it will be told.

        Without a ``stream_id`` one is made up: it is the stream's ``stream_id``. What has come of
        it already is kept, a window of items at most; if more had come, the stream ends with
        :exc:`ResourceExhausted`. Leaving it ignores what still comes: this wire cannot ask for its
        end. Raises :exc:`ValueError` for an id that is being received already.
        """
        connection, endpoint = self._connection, self._endpoint
        connection.check_open()
        if stream_id is None:
            stream_id = self.new_stream_id()
        if stream_id in endpoint.agreed:
            raise ValueError(f"a stream {stream_id!r} is being received already")
        exchange, events = endpoint.receive_stream(stream_id)
        receiver = connection.caller.receive_upload(exchange)
        connection.act_on(events)
        stream = SignalStream(
            connection.caller,
            receiver,
            connection.payloads.decoder(),
            _rebuilt,
            f"the stream {stream_id!r}",
        )
        stream.stream_id = stream_id
        return stream

    def abort_stream(self, stream_id: StreamId) -> None:
        """End a stream that is being sent: the other side is told that it was aborted."""
        id = self._endpoint.id_sent(stream_id)
        upload = None if id is None else self._connection.caller.uploads.get(id)
        if upload is not None:
            upload.ask(cut=True)

    def close_receiving_stream(self, stream_id: StreamId) -> None:
        """Take no more of a stream, whether it was asked for or not: the rest is ignored."""
        id = self._endpoint.agreed.id_of(stream_id)
        if id is None:
            self._endpoint.agreed.ignore(stream_id)
        else:
            self._connection.caller.close_stream(id)


def _rebuilt(frame: Error) -> RpcError:
    return error_from(frame.error)
