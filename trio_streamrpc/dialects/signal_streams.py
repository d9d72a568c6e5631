"""signal-rpc's streams by ids on which both sides agree: who receives one may come before its first
item, or after.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import trio

from trio_streamrpc.errors import RpcError
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.frames import Error
from trio_streamrpc.runtime.failures import error_from
from trio_streamrpc.runtime.streams import RemoteStream
from trio_streamrpc.runtime.uploads import Upload

if TYPE_CHECKING:
    from trio_streamrpc.dialects.signal_rpc import SignalEndpoint, StreamMessage
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["Agreed", "SignalStream", "SignalStreams"]

StreamId = str | int

#: How many streams may have begun that nobody has asked for, and how many that nobody wants any
#: more are remembered.
EARLY_STREAMS = 64
LEFT_STREAMS = 1024
#: What may have come of the first, all together.
EARLY_BYTES = 256 * 1024


class Agreed:
    """The streams of the other side, by the ids that they have there and here."""

    def __init__(self, limits: Limits) -> None:
        self._ids: dict[StreamId, int] = {}
        self._stream_ids: dict[int, StreamId] = {}
        self._window = limits.window.items
        #: What has come of streams that nobody has asked for.
        self._early: dict[StreamId, list[StreamMessage]] = {}
        self._early_bytes = 0
        #: Streams that were left: what they still say is ignored. A dict, for its order.
        self._left: dict[StreamId, None] = {}
        #: What stands in the place of all that did not fit.
        self.overflow: StreamMessage | None = None

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
        early = self._early.pop(stream_id, [])
        self._early_bytes -= sum(len(each.payload) for each in early)
        return early

    def keep(self, record: StreamMessage) -> None:
        """Something of a stream that nobody has asked for."""
        if record.streamId in self._left:
            if record.type != "StreamData":
                del self._left[record.streamId]
            return
        kept = self._early.get(record.streamId)
        if kept is None:
            if len(self._early) >= EARLY_STREAMS:
                return
            kept = self._early[record.streamId] = []
        if kept and kept[-1].type != "StreamData":
            # Nothing follows its end.
            return
        size = len(record.payload)
        if record.type == "StreamData" and (
            len(kept) >= self._window or self._early_bytes + size > EARLY_BYTES
        ):
            record = self._too_much(record)
            size = len(record.payload)
        record.payload = record.payload.copy()
        kept.append(record)
        self._early_bytes += size

    def _too_much(self, record: StreamMessage) -> StreamMessage:
        if self.overflow is None:
            self.overflow = type(record)(
                "StreamError",
                record.streamId,
                error="it came before it was asked for, and too much",
            )
        return self.overflow

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
        early = self._early.pop(stream_id, [])
        self._early_bytes -= sum(len(each.payload) for each in early)
        if early and early[-1].type != "StreamData":
            return
        self._left[stream_id] = None
        if len(self._left) > LEFT_STREAMS:
            del self._left[next(iter(self._left))]


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
