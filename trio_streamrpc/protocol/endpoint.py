"""One side of a connection, without I/O: messages in, frames that mean something out; verbs in,
messages out.

    events = endpoint.receive(message, now)      what the runtime has to act on, in order
    endpoint.call(…), .answer(…), .send(…) …     what this side wants to say
    endpoint.next_message()                      what is to be written, or None

What it knows and what arrives stands in :mod:`.session`, what it says as the side that calls in
:mod:`.calling`, and here what it says as the side that serves.
"""

from __future__ import annotations

from msgspec import Raw

from trio_streamrpc.errors import Code, LocalProtocolError
from trio_streamrpc.protocol.binary import Binary, Encoded, pieces_of
from trio_streamrpc.protocol.calling import REF_BYTES, Calling
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.protocol.frames import ErrorInfo, Kind, Ref
from trio_streamrpc.protocol.parts import Slices
from trio_streamrpc.protocol.peer_limits import check_value
from trio_streamrpc.protocol.session import Event, Side
from trio_streamrpc.protocol.states import STATES, State

__all__ = ["Endpoint", "Event", "Side"]

PRODUCING = STATES["PRODUCING"]


class Endpoint(Calling):
    """One side of a connection."""

    def answer(self, id: int, value: Encoded) -> None:
        """The result of a unary call. Raises :exc:`ResourceExhausted` if it is too long.

        One that goes in parts is over with the last of them; if its caller cancels before that,
        this side's answer is ``CANCELLED`` instead (R6).
        """
        exchange = self._sending(id, Kind.RESULT)
        size = len(value)
        if size <= self.outbox.whole_bytes:
            self._close(exchange, STATES["CLOSED"])
            raw = value.joined() if isinstance(value, Binary) else Raw(value)
            self.outbox.add_answer(self.family.result(id, raw), size, exchange.priority)
            return
        check_value(self.peer, "the result", size)
        self._close(exchange, STATES["CLOSED"])
        slices = Slices(*pieces_of(value), text=self.codec.is_text)
        self.outbox.add_result(self.family.result(id, parts=size), slices, exchange.priority)

    def answer_error(
        self, id: int, info: ErrorInfo, *, cleanup: bool = False, same: bool = False,
        retry: bool = False, overrun: bool = False,
    ) -> None:  # fmt: skip
        """The end of a call by an error, unary or stream.

        ``overrun``: the handler has not stopped; the call keeps its place until :meth:`stopped`
        says that it has (R7a). ``same``: it is the caller's own error, which a context has let
        pass (R20).
        """
        exchange = self._sending(id, Kind.ERROR)
        info, size = self.shortened(info)
        if overrun and exchange.places is not None:
            exchange.overrun = True
            exchange.places.overrunning += 1
        self._close(exchange, STATES["CLOSED"])
        frame = self.family.error(id, info, cleanup=cleanup, same=same, retry=retry)
        if exchange.credit is None:
            self.outbox.add_answer(frame, size, exchange.priority)
        else:
            self.outbox.add_final(frame, size, exchange.priority)

    def answer_cancelled(self, exchange: Exchange) -> None:
        """The end of a unary call that was cancelled before all of its result was written (R6)."""
        info, size = self.shortened(self.error_info(Code.CANCELLED, "the call was cancelled"))
        frame = self.family.error(exchange.id, info)
        self.outbox.add_answer(frame, size, exchange.priority)

    def drop_call(self, id: int, info: ErrorInfo) -> None:
        """The end of a call of which not all has come; what still comes is ignored (R9, R21)."""
        self.assembly.end(id)
        self.answer_error(id, info)

    def stopped(self, call: Exchange) -> None:
        """A handler that was said to have overrun its time has stopped at last (R7a)."""
        assert call.places is not None
        call.places.overrunning -= 1
        call.places.running -= 1

    def may_send(self, id: int) -> bool:
        """Whether an item may be sent on that stream now (R14)."""
        exchange = self.exchanges.get(id)
        if exchange is None or exchange.state is not PRODUCING:
            return False
        credit = exchange.credit
        assert credit is not None
        return credit.items > 0 and credit.bytes > 0 and self.outbox.has_room(id)

    def send(self, id: int, item: Encoded) -> None:
        """An item of a stream. Raises :exc:`ResourceExhausted` if it is too long."""
        exchange = self._sending(id, Kind.CHUNK)
        size = len(item)
        payload: Raw | Binary
        if size <= self.outbox.whole_bytes:
            payload = item.joined() if isinstance(item, Binary) else Raw(item)
        else:
            check_value(self.peer, "the item", size)
            payload = item if isinstance(item, Binary) else Raw(item)
        credit = exchange.credit
        if credit is None or not credit.open:
            raise LocalProtocolError(f"an item on id {id} without credit")
        credit.spend(size)
        self.outbox.add_item(id, payload, size, exchange.priority)

    def send_object(self, id: int) -> int:
        """The one item of a context or a task, if it is an object: gives the object's id (R20)."""
        exchange = self._sending(id, Kind.CHUNK)
        credit = exchange.credit
        if credit is None or not credit.open:
            raise LocalProtocolError(f"an item on id {id} without credit")
        item = self.codec.null
        credit.spend(len(item))
        ref = Ref(0, "object", self._next_id)
        self._next_id += 2
        self._export(exchange, ref.id)
        # R12: it opens an id, so it keeps to the order of ids.
        chunk = self.family.chunk(id, [item], len(item), [ref])
        self.outbox.add_opening(ref.id, chunk, REF_BYTES)
        return ref.id

    def announce(self, id: int) -> None:
        """A call is answered by a stream, and its handler has begun (``announces``)."""

    def end(self, id: int) -> None:
        """The end of a stream: its iterator is exhausted, or has stopped as asked (R6)."""
        exchange = self._sending(id, Kind.END)
        self._close(exchange, STATES["CLOSED"])
        self.outbox.add_final(self.family.end(id), 0, exchange.priority)

    def _close(self, exchange: Exchange, state: State) -> None:
        """A final frame of this side enters the outbox: nothing may follow it (R6)."""
        # R10: with a call end its uploads; R20: and what was exported with it.
        for upload in exchange.uploads:
            self.cancel(upload.id, "abort")
        if exchange.objects:
            self.end_objects(exchange.id)
        exchange.state = state

    def refuse(self, id: int, info: ErrorInfo, *, retry: bool = False) -> None:
        """The final frame of a call for which nothing is started, and which has no record."""
        info, size = self.shortened(info)
        self.outbox.add_refusal(self.family.error(id, info, retry=retry), size)

    def drain(self) -> None:
        """Take no more calls than those seen so far, and say so (R27)."""
        if self.drain_from is None and not self.failed:
            self.drain_from = self.highest_seen
            self.outbox.add_control(self.family.goaway(self.highest_seen))
