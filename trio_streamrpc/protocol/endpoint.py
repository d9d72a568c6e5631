"""One side of a connection, without I/O: messages in, frames that mean something out; verbs in,
messages out.

    events = endpoint.receive(message, now)      what the runtime has to act on, in order
    endpoint.call(…), .answer(…), .send(…) …     what this side wants to say
    endpoint.next_message()                      what is to be written, or None

What arrives is handled in :mod:`.inbound`, a function for each kind of frame; this file has the
verbs, and the record of every id that is open.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from trio_streamrpc.protocol.credit import (
    Growth,
    ReceiveWindow,
    RoundTrip,
    SendCredit,
    ViolationBudget,
)
from trio_streamrpc.protocol.exchanges import Exchange, Places
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
    Ref,
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
#: Places in the arguments of a call, and what they hold instead of data (R19).
Refs = Sequence[tuple[int | str, Literal["stream", "object"]]]

PRODUCING = STATES["PRODUCING"]
TOO_LATE_FOR_GRANTS = (STATES["LEAVING"], STATES["CLOSED"])

#: The longest error that is sent; what is longer is shortened (R21).
ERROR_BYTES = 16 * 1024
#: What each reference of a call takes, at most: a place may be a name.
REF_BYTES = 32


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
        #: The calls of the other side to this side's service (R26).
        self.places = Places(self.limits.max_calls)
        #: What this side has exported and the other side may call: an object's id, and the call to
        #: a service that it belongs to in the end (R20, R26).
        self.objects: dict[int, Exchange] = {}
        #: Uploads of the other side whose final frame has not come (R19).
        self.uploads = 0
        #: Calls whose writing somebody waits for.
        self._watched: set[int] = set()
        #: What the writer has taken since this was last emptied: such calls (R11), and uploads, by
        #: their final frames (R19).
        self.departed: list[int] = []
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
        refs: Refs = (),
        target: int = 0,
        root: Exchange | None = None,
        window: Window | None = None,
        growth: Growth | None = None,
        timeout: float | None = None,
        metadata: bytes | None = None,
        priority: int = 0,
        claim: Claim | None = None,
    ) -> Exchange:
        """Open a call: unary, or with a window for its response stream (R18).

        The window grows if there is a ``growth``, and stays as it is if not. ``refs`` are the
        places that hold an upload or an object instead of data (R19); the record has ``uploads``
        and the ids of ``objects``, in that order. ``target`` is an object of the other side, and
        ``root`` the record of the call that it belongs to in the end. ``priority``, from -128 to
        127, is that of what both sides write for the call (R12). ``claim`` is the granted place of
        arguments that go in parts; without one they take it if there is room (R21).

        Raises :exc:`Unavailable` if the other side takes no more calls, and
        :exc:`ResourceExhausted` if the call is longer than what it takes, or there is no room, and
        :exc:`ValueError` for a method name that is no valid text, or a priority out of range; none
        of them has said anything, and a claim is still the caller's.
        """
        self._check_ready()
        if self.peer_drains and not target:
            # R27: what runs goes on, and what is called of its objects is part of it.
            gone = Unavailable("the other side is going away")
            gone.retry = True
            raise gone
        size = self.codec.length(method) + CALL_BYTES
        values = len(args)
        frame = self.family.call(id=self._next_id, target=target, method=method, args=Raw(args))
        if refs:
            frame.refs = [
                Ref(place, kind, self._next_id + 2 * number)
                for number, (place, kind) in enumerate(refs, 1)
            ]
            size += self._refs_bytes(refs)
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
            exchange = Exchange(self._next_id, STATES["AWAITING"], root)
        else:
            frame.window = WindowInfo(window.items, window.bytes)
            exchange = Exchange(self._next_id, STATES["CONSUMING"], root)
            exchange.window = ReceiveWindow(window, growth)
        exchange.priority = priority
        if claim is None and (
            size + values <= self.outbox.whole_bytes or not is_parted(self.peer, size, values)
        ):
            self.outbox.add_opening(exchange.id, frame, size + values)
        else:
            self._call_in_parts(frame, size, args, kwargs, claim)
        self._next_id += 2 + 2 * len(refs)
        self.exchanges[exchange.id] = exchange
        for ref in frame.refs or ():
            self._open_ref(exchange, ref)
        return exchange

    def _refs_bytes(self, refs: Refs) -> int:
        return sum(REF_BYTES + self.codec.length(str(place)) for place, _ in refs)

    def _call_in_parts(
        self, frame: Call, size: int, args: bytes, kwargs: bytes | None, claim: Claim | None
    ) -> None:
        parts = parts_of(self.codec, self.peer, size, args, kwargs)
        claim = self.outbox.room.checked(claim, parts)
        blank = self.family.call(id=frame.id)
        frame.args, frame.kwargs, frame.parts = blank.args, blank.kwargs, parts
        value = Value(frame.id, self.codec.pair(args, kwargs), frame.priority, claim=claim)
        self.outbox.add_opening(frame.id, frame, size, value)

    def parts_of(
        self,
        method: str,
        args: bytes,
        kwargs: bytes | None = None,
        *,
        refs: Refs = (),
        other_bytes: int = 0,
    ) -> int:
        """How many bytes of such a call travel in parts; 0 if it goes whole (R21).

        ``other_bytes`` is what its metadata takes. What travels in parts needs a :meth:`claim`.
        Raises :exc:`ResourceExhausted` if the call is longer than what the other side takes, and
        :exc:`ValueError` as :meth:`call` does.
        """
        size = self.codec.length(method) + CALL_BYTES + other_bytes
        if refs:
            size += self._refs_bytes(refs)
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

    def _open_ref(self, call: Exchange, ref: Ref) -> None:
        if ref.type == "object":
            self._export(call, ref.id)
            return
        upload = self.exchanges[ref.id] = Exchange(ref.id, STATES["PRODUCING"])
        # R18: how far an upload may run ahead is for the side that takes it to say.
        upload.credit = SendCredit(self.peer.window.items, self.peer.window.bytes)
        upload.priority = call.priority
        call.uploads += (upload,)

    def _export(self, owner: Exchange, id: int) -> None:
        self.objects[id] = owner.root
        owner.objects += (id,)

    def end_objects(self, id: int) -> None:
        """Nothing that was exported with that call can be called any more (R20)."""
        exchange = self.exchanges.get(id)
        if exchange is not None:
            for each in exchange.objects:
                self.objects.pop(each, None)

    def watch(self, id: int) -> None:
        """Have ``departed`` tell when that call is written (R11)."""
        self._watched.add(id)

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
        if self.take_back(id):
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

    def take_back(self, id: int) -> bool:
        """Take back a call if it was not yet written (R12)."""
        exchange = self.exchanges.get(id)
        if exchange is None or not self.outbox.remove_opening(id):
            return False
        self._forget(exchange)
        return True

    def withdraw(self) -> list[int]:
        """Take back the calls to the service that are not yet written, and give their ids (R27)."""
        ids = self.outbox.unwritten_calls()
        for id in ids:
            self.outbox.remove_opening(id)
            self._forget(self.exchanges[id])
        return ids

    def _forget(self, call: Exchange) -> None:
        """R12: a call that was not yet written never was, and nor were its references."""
        self.end_objects(call.id)
        for upload in call.uploads:
            # Nothing of it is written before its call is, so its record is there.
            del self.exchanges[upload.id]
            self.outbox.remove_stream(upload.id)
            self.departed.append(upload.id)
        self._watched.discard(call.id)
        del self.exchanges[call.id]

    def refuse(self, id: int, info: ErrorInfo, *, retry: bool = False) -> None:
        """The final frame of a call for which nothing is started, and which has no record."""
        info, size = self.shortened(info)
        self.outbox.add_refusal(self.family.error(id, info, retry=retry), size)

    def shortened(self, info: ErrorInfo) -> tuple[ErrorInfo, int]:
        """The error as it can travel, and its length: errors do not travel in parts (R21)."""
        return self.codec.shortened(info, min(ERROR_BYTES, self.peer.max_message_bytes // 2))

    # --- the records

    def open_exchange(self, id: int, state: State, root: Exchange | None = None) -> Exchange:
        """A record for an id that the other side has opened."""
        exchange = self.exchanges[id] = Exchange(id, state, root)
        return exchange

    def _sending(self, id: int, kind: int) -> Exchange:
        exchange = self.exchanges.get(id)
        if exchange is None or exchange.state.sent[kind] is None:
            state = "CLOSED" if exchange is None else exchange.state.name
            raise LocalProtocolError(f"cannot send frame {kind} on id {id}, which is {state}")
        return exchange

    def _close(self, exchange: Exchange, state: State) -> None:
        """A final frame of this side enters the outbox: nothing may follow it (R6)."""
        # R10: with a call end its uploads; R20: and what was exported with it.
        for upload in exchange.uploads:
            self.cancel(upload.id, "abort")
        self.end_objects(exchange.id)
        exchange.state = state

    def _written(self, frame: Call | Result | End | Error) -> None:
        """A frame was taken by the writer; after a final one the call's place is free (R26)."""
        if type(frame) is self.family.call:
            if frame.id in self._watched:
                self._watched.remove(frame.id)
                self.departed.append(frame.id)
            return
        exchange = self.exchanges.pop(frame.id)
        if exchange.places is None:
            self.departed.append(frame.id)
        elif not exchange.overrun:
            exchange.places.running -= 1

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
