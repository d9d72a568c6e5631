"""One side of a connection, without I/O: messages in, frames that mean something out; verbs in,
messages out.

    events = endpoint.receive(message, now)      what the runtime has to act on, in order
    endpoint.call(…), .answer(…), .send(…) …     what this side wants to say
    endpoint.next_message()                      what is to be written, or None

What arrives is handled in :mod:`.inbound`, a function for each kind of frame; this file has the
verbs, and the record of every id that is open.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Raw

from trio_streamrpc.errors import (
    Code,
    LocalProtocolError,
    RemoteProtocolError,
    Unavailable,
)
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol import inbound
from trio_streamrpc.protocol.assembly import Assembly
from trio_streamrpc.protocol.codecs import Encoding, codec_for
from trio_streamrpc.protocol.credit import Growth, ReceiveWindow, RoundTrip, ViolationBudget
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.protocol.frames import (
    Announced,
    Call,
    End,
    Error,
    ErrorInfo,
    Frame,
    Hello,
    Kind,
    Overflow,
    Result,
    WindowInfo,
    encodable,
)
from trio_streamrpc.protocol.outbox import Outbox
from trio_streamrpc.protocol.parts import Claim, Slices, Value
from trio_streamrpc.protocol.peer_limits import (
    CALL_BYTES,
    HELLO_BYTES,
    check_value,
    is_parted,
    keep_to,
    make_hello,
    parts_of,
)
from trio_streamrpc.protocol.states import STATES, State

__all__ = ["Endpoint", "Event", "Side"]

Side = Literal["connecting", "accepting"]
Event = Frame | Overflow

PRODUCING = STATES["PRODUCING"]
TOO_LATE_FOR_GRANTS = (STATES["LEAVING"], STATES["CLOSED"])

#: The longest error that is sent; what is longer is shortened (R21).
ERROR_BYTES = 16 * 1024


class Endpoint:
    """One side of a connection.

    ``side`` is "connecting" or "accepting"; the connecting side's ``hello`` waits to be written
    from the start, the accepting side's is made by :meth:`accept` (R25).
    """

    def __init__(
        self,
        side: Side,
        *,
        encoding: Encoding = "msgpack",
        limits: Limits | None = None,
        metadata: Raw | None = None,
    ) -> None:
        self.side = side
        self.limits = limits or Limits()
        self.codec = codec_for(
            encoding,
            max_bytes=self.limits.max_message_bytes,
            max_frames=self.limits.max_message_frames,
        )
        self.family = self.codec.family
        self.outbox = Outbox(self.family, self._written)
        self.budget = ViolationBudget(self.limits.violation_budget, self.limits.violation_refill)
        #: What the other side's hello announced; the defaults until then.
        self.peer = Announced()
        keep_to(self.outbox, self.peer)
        self.peer_hello: Hello | None = None
        #: Every id that is open, of either side.
        self.exchanges: dict[int, Exchange] = {}
        #: Values that have come in part.
        self.assembly = Assembly(self.limits)
        self._next_id = 1 if side == "connecting" else 2
        #: The highest id seen of the other side; its parity is the other one (R5).
        self.highest_seen = 0
        #: Calls of the other side that take a place here, and how many of them have outlived
        #: their final frame (R7a, R26).
        self.running = 0
        self.overrunning = 0
        #: Uploads of the other side whose final frame has not come (R19).
        self.uploads = 0
        #: The highest id that a drain still runs; None while there is no drain (R27).
        self.drain_from: int | None = None
        self.peer_drains = False
        #: Set by a connection error of either side: nothing is received or said any more.
        self.failed = False
        self.now = 0.0
        #: How long a ping takes to come back.
        self.round_trip = RoundTrip()
        self._metadata = metadata
        self._accepted = side == "connecting"
        self._held: list[Frame] = []
        if side == "connecting":
            self._say_hello()

    # --- what arrives

    @property
    def highest_used(self) -> int:
        """The highest id that this side has used; 0 or below if none."""
        return self._next_id - 2

    @property
    def ready(self) -> bool:
        """Whether both hellos were said, so that calls may be made."""
        return self.peer_hello is not None and self._accepted and not self.failed

    def receive(self, message: bytes | str, now: float = 0.0) -> list[Event]:
        """Take in one message, at that time in seconds of any clock.

        Gives the frames that the runtime has to act on, in order; the others (pings, what is
        dropped) have done all that they do. Raises :exc:`RemoteProtocolError` if the other side
        broke the protocol: nothing of the message counts then, and a ``goaway`` that says so is
        the last thing that waits to be written (R4, R27).
        """
        if self.failed:
            return []
        self.now = now
        try:
            batch = self.codec.decode(message)
            if batch is None:
                self.violation("an empty message")
                return []
            return self._process(batch, len(message))
        except RemoteProtocolError as error:
            self.fail(error)
            raise

    def accept(self) -> list[Event]:
        """Say hello to a side that has said it: from now on its calls are taken (R25).

        Gives the frames of what it sent early, as :meth:`receive` does.
        """
        if self._accepted or self.peer_hello is None:
            raise LocalProtocolError("accept() before a hello has come, or twice")
        if self.failed:
            return []
        self._say_hello()
        self._accepted = True
        held, self._held = self._held, []
        try:
            return self._process(held, 0)
        except RemoteProtocolError as error:
            self.fail(error)
            raise

    def _process(self, batch: list[Frame], length: int) -> list[Event]:
        events: list[Event] = []
        for number, frame in enumerate(batch):
            if not self._accepted and self.peer_hello is not None:
                self._held.extend(batch[number:])
                break
            if self.peer_hello is None:
                inbound.check_first(self, frame)
            event = inbound.HANDLERS[frame.kind](self, frame)
            if event is not None:
                if self.assembly.uploads:
                    events += self.assembly.in_order(event)
                else:
                    events.append(event)
            if self.failed:
                break
        inbound.detach(events, length)
        return events

    @property
    def partial_bytes(self) -> int:
        """What has come of values that are not complete, in bytes (R21)."""
        return self.assembly.bytes

    @property
    def holding(self) -> bool:
        """Whether something came early, before this side has accepted the other (R25)."""
        return bool(self._held)

    def violation(self, what: str) -> None:
        """A breach that is borne as long as there are not too many of them."""
        if not self.budget.spend(self.now):
            raise RemoteProtocolError(f"too many violations; the last was {what}", close_code=1008)

    def fail(self, error: RemoteProtocolError) -> None:
        """A connection error: what waits is dropped, and ``goaway`` tells why (R27).

        It is the last thing that is written, whatever is said after it.
        """
        if self.failed:
            return
        self.failed = True
        self.assembly.clear()
        self.outbox.finish(
            self.family.goaway(self.highest_seen, error.code.value, encodable(error.message)[:200])
        )

    # --- what this side says

    def next_message(self) -> bytes | str | None:
        """What is to be written next, or None if nothing waits."""
        batch = self.outbox.take()
        return self.codec.encode(batch) if batch else None

    def unblocked(self) -> list[int]:
        """The streams that :meth:`may_send` held back for what waited here, and which may go on."""
        ids, self.outbox.unblocked = self.outbox.unblocked, []
        return ids

    def call(
        self,
        method: str,
        args: bytes,
        kwargs: bytes | None = None,
        *,
        window: Window | None = None,
        growth: Growth | None = None,
        timeout: float | None = None,
        metadata: bytes | None = None,
        priority: int = 0,
        claim: Claim | None = None,
    ) -> Exchange:
        """Open a call: unary, or with a window for its response stream (R18).

        The window grows if there is a ``growth``, and stays as it is if not. ``priority``, from
        -128 to 127, is that of what both sides write for the call (R12). ``claim`` is the granted
        place of arguments that go in parts; without one they take it if there is room (R21).

        Raises :exc:`Unavailable` if the other side takes no more calls, and
        :exc:`ResourceExhausted` if the call is longer than what it takes, or there is no room, and
        :exc:`ValueError` for a method name that is no valid text, or a priority out of range; none
        of them has said anything, and a claim is still the caller's.
        """
        self._check_ready()
        if self.peer_drains:
            gone = Unavailable("the other side is going away")
            gone.retry = True
            raise gone
        size = self.codec.length(method) + CALL_BYTES
        values = len(args)
        frame = self.family.call(id=self._next_id, method=method, args=Raw(args))
        if kwargs is not None:
            frame.kwargs = Raw(kwargs)
            values += len(kwargs)
        if metadata is not None:
            frame.metadata = Raw(metadata)
            size += len(metadata)
        if timeout is not None:
            frame.timeout = timeout
        if priority:
            if not -128 <= priority <= 127:
                raise ValueError(f"priority must be from -128 to 127, not {priority}")
            frame.priority = priority
        if window is None:
            exchange = Exchange(self._next_id, STATES["AWAITING"])
        else:
            frame.window = WindowInfo(window.items, window.bytes)
            exchange = Exchange(self._next_id, STATES["CONSUMING"])
            exchange.window = ReceiveWindow(window, growth)
        exchange.priority = priority
        if claim is None and (
            size + values <= self.outbox.whole_bytes or not is_parted(self.peer, size, values)
        ):
            self.outbox.add_call(frame, size + values)
        else:
            self._call_in_parts(frame, size, args, kwargs, claim)
        self._next_id += 2
        self.exchanges[exchange.id] = exchange
        return exchange

    def _call_in_parts(
        self, frame: Call, size: int, args: bytes, kwargs: bytes | None, claim: Claim | None
    ) -> None:
        parts = parts_of(self.codec, self.peer, size, args, kwargs)
        claim = self.outbox.room.checked(claim, parts)
        blank = self.family.call(id=frame.id)
        frame.args, frame.kwargs, frame.parts = blank.args, blank.kwargs, parts
        value = Value(frame.id, self.codec.pair(args, kwargs), frame.priority, claim=claim)
        self.outbox.add_call(frame, size, value)

    def parts_of(
        self, method: str, args: bytes, kwargs: bytes | None = None, *, other_bytes: int = 0
    ) -> int:
        """How many bytes of such a call travel in parts; 0 if it goes whole (R21).

        ``other_bytes`` is what its metadata takes, and all else that has no bound. What travels in
        parts needs a :meth:`claim`. Raises :exc:`ResourceExhausted` if the call is longer than what
        the other side takes, and :exc:`ValueError` as :meth:`call` does.
        """
        size = self.codec.length(method) + CALL_BYTES + other_bytes
        if not is_parted(self.peer, size, len(args) + len(kwargs or b"")):
            return 0
        return parts_of(self.codec, self.peer, size, args, kwargs)

    def claim(self, size: int) -> Claim:
        """A place among the unfinished values for the parts of a call (R21).

        It may not be granted at once; :meth:`granted` names it when it is. One that is not used
        in :meth:`call` has to be given up, or others wait for ever.
        """
        return self.outbox.room.claim(size)

    def give_up(self, claim: Claim) -> None:
        """A claim for a call that will not be made."""
        self.outbox.room.give_up(claim)

    def granted(self) -> list[Claim]:
        """The claims that had to wait, and were granted since this was last asked.

        Room is found as messages are taken, and as some are received.
        """
        claims, self.outbox.granted = self.outbox.granted, []
        return claims

    def answer(self, id: int, value: bytes) -> None:
        """The result of a unary call. Raises :exc:`ResourceExhausted` if it is too long.

        One that goes in parts is over with the last of them; if its caller cancels before that,
        this side's answer is ``CANCELLED`` instead (R6).
        """
        exchange = self._sending(id, Kind.RESULT)
        size = len(value)
        if size <= self.outbox.whole_bytes:
            self._close(exchange, STATES["CLOSED"])
            self.outbox.add_answer(self.family.result(id, Raw(value)), size, exchange.priority)
            return
        check_value(self.peer, "the result", size)
        self._close(exchange, STATES["CLOSED"])
        slices = Slices(value, text=self.codec.is_text)
        self.outbox.add_result(self.family.result(id, parts=size), slices, exchange.priority)

    def answer_error(
        self, id: int, info: ErrorInfo, *, cleanup: bool = False, retry: bool = False,
        overrun: bool = False,
    ) -> None:  # fmt: skip
        """The end of a call by an error, unary or stream.

        ``overrun``: the handler has not stopped; the call keeps its place until :meth:`stopped`
        says that it has (R7a).
        """
        exchange = self._sending(id, Kind.ERROR)
        info, size = self.shortened(info)
        if overrun and exchange.place:
            exchange.overrun = True
            self.overrunning += 1
        self._close(exchange, STATES["CLOSED"])
        frame = self.family.error(id, info, cleanup=cleanup, retry=retry)
        if exchange.credit is None:
            self.outbox.add_answer(frame, size, exchange.priority)
        else:
            self.outbox.add_final(frame, size, exchange.priority)

    def answer_cancelled(self, exchange: Exchange) -> None:
        """The end of a unary call that was cancelled before all of its result was written (R6)."""
        info, size = self.shortened(self.error_info(Code.CANCELLED, "the call was cancelled"))
        frame = self.family.error(exchange.id, info)
        self.outbox.add_answer(frame, size, exchange.priority)

    def stopped(self, id: int) -> None:
        """A handler that was said to have overrun its time has stopped at last (R7a)."""
        self.overrunning -= 1
        self.running -= 1

    def may_send(self, id: int) -> bool:
        """Whether an item may be sent on that stream now (R14)."""
        exchange = self.exchanges.get(id)
        if exchange is None or exchange.state is not PRODUCING:
            return False
        credit = exchange.credit
        assert credit is not None
        return credit.items > 0 and credit.bytes > 0 and self.outbox.has_room(id)

    def send(self, id: int, item: bytes) -> None:
        """An item of a stream. Raises :exc:`ResourceExhausted` if it is too long."""
        exchange = self._sending(id, Kind.CHUNK)
        size = len(item)
        if size > self.outbox.whole_bytes:
            check_value(self.peer, "the item", size)
        credit = exchange.credit
        if credit is None or not credit.open:
            raise LocalProtocolError(f"an item on id {id} without credit")
        credit.spend(size)
        self.outbox.add_item(id, Raw(item), size, exchange.priority)

    def end(self, id: int) -> None:
        """The end of a stream: its iterator is exhausted, or has stopped as asked (R6)."""
        exchange = self._sending(id, Kind.END)
        self._close(exchange, STATES["CLOSED"])
        self.outbox.add_final(self.family.end(id), 0, exchange.priority)

    def cancel(
        self, id: int, mode: Literal["close", "abort"], error: ErrorInfo | None = None
    ) -> bool:
        """Ask for the early end of what this side called or consumes (R7, R8).

        False if the call was not yet written: it is taken back, and nothing more will come of it
        (R12). An id that is closed already is left alone.
        """
        exchange = self.exchanges.get(id)
        if exchange is None or exchange.state is STATES["CLOSED"]:
            return True
        if self.outbox.remove_call(id):
            del self.exchanges[id]
            return False
        state = self._sending(id, Kind.CANCEL).state.sent[Kind.CANCEL]
        assert state is not None
        exchange.state = state
        self.assembly.drop(id)
        self.outbox.drop_grant(id)
        self.outbox.drop_value(id)
        size = 0
        if error is not None:
            error, size = self.shortened(error)
        self.outbox.add_control(self.family.cancel(id, mode, error), size)
        return True

    def grant(self, id: int, items: int, bytes: int, now: float = 0.0) -> None:
        """Give credit to the producer of a stream that this side consumes (R15).

        ``now`` is the time, on the clock that :meth:`receive` is told. An id that is closed
        already, or being left, is left alone.
        """
        exchange = self.exchanges.get(id)
        if exchange is None or exchange.state in TOO_LATE_FOR_GRANTS:
            return
        window = self._sending(id, Kind.GRANT).window
        assert window is not None
        window.granted(items, bytes, now)
        self.outbox.add_grant(id, items, bytes)

    def measure(self, now: float) -> None:
        """Find out how long a round trip takes, for windows that grow, unless that is under way."""
        if self.round_trip.begin(now):
            self.ping(self.codec.mark)

    def ping(self, token: Raw) -> None:
        """Ask whether the other side is there (R24)."""
        self.outbox.add_control(self.family.ping(token), len(token))

    def drain(self) -> None:
        """Take no more calls than those seen so far, and say so (R27)."""
        if self.drain_from is None and not self.failed:
            self.drain_from = self.highest_seen
            self.outbox.add_control(self.family.goaway(self.highest_seen))

    def withdraw(self) -> list[int]:
        """Take back every call that was not yet written, and give their ids (R27)."""
        ids = self.outbox.unwritten_calls()
        for id in ids:
            self.outbox.remove_call(id)
            del self.exchanges[id]
        return ids

    def refuse(self, id: int, info: ErrorInfo, *, retry: bool = False) -> None:
        """The final frame of a call for which nothing is started, and which has no record."""
        info, size = self.shortened(info)
        self.outbox.add_refusal(self.family.error(id, info, retry=retry), size)

    def shortened(self, info: ErrorInfo) -> tuple[ErrorInfo, int]:
        """The error as it can travel, and its length: errors do not travel in parts (R21)."""
        return self.codec.shortened(info, min(ERROR_BYTES, self.peer.max_message_bytes // 2))

    # --- the records

    def open_exchange(self, id: int, state: State) -> Exchange:
        """A record for an id that the other side has opened."""
        exchange = self.exchanges[id] = Exchange(id, state)
        return exchange

    def _sending(self, id: int, kind: int) -> Exchange:
        exchange = self.exchanges.get(id)
        if exchange is None or exchange.state.sent[kind] is None:
            state = "CLOSED" if exchange is None else exchange.state.name
            raise LocalProtocolError(f"cannot send frame {kind} on id {id}, which is {state}")
        return exchange

    def _close(self, exchange: Exchange, state: State) -> None:
        """A final frame of this side enters the outbox: nothing may follow it (R6)."""
        # R10: with a call end its uploads.
        for upload in exchange.uploads:
            self.cancel(upload, "abort")
        exchange.state = state

    def _written(self, frame: Result | End | Error) -> None:
        """A final frame was taken by the writer: its id is over, and its place free (R26)."""
        exchange = self.exchanges.pop(frame.id)
        if exchange.place and not exchange.overrun:
            self.running -= 1

    def _say_hello(self) -> None:
        frame = make_hello(self.family, self.limits, self._metadata)
        self.outbox.add_control(frame, HELLO_BYTES + len(self._metadata or b""))

    def learn(self, announced: Announced) -> None:
        """What the other side accepts: the outbox keeps to it from now on (R26)."""
        self.peer = announced
        keep_to(self.outbox, announced)

    def _check_ready(self) -> None:
        if not self.ready:
            raise LocalProtocolError("no call may be made before both sides have said hello")

    # R22: an error that this side makes up itself.
    def error_info(self, code: Code, message: str) -> ErrorInfo:
        """An error of the protocol's own, without an exception behind it."""
        return ErrorInfo(code.value, "", message)
