"""What one side of a connection knows, and what it makes of the messages that arrive.

What arrives is handled in :mod:`.inbound`, a function for each kind of frame; here is the record of
every id that is open. What this side says stands in :mod:`.calling` and :mod:`.endpoint`.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Raw

from trio_streamrpc.errors import Code, LocalProtocolError, RemoteProtocolError, RpcError
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol import inbound, reactions
from trio_streamrpc.protocol.assembly import Assembly
from trio_streamrpc.protocol.codecs import Encoding, codec_for
from trio_streamrpc.protocol.credit import RoundTrip, ViolationBudget
from trio_streamrpc.protocol.exchanges import Exchange, Places
from trio_streamrpc.protocol.frames import (
    Announced,
    Call,
    End,
    Error,
    ErrorInfo,
    Frame,
    Hello,
    Overflow,
    Result,
    encodable,
)
from trio_streamrpc.protocol.outbox import Outbox
from trio_streamrpc.protocol.peer_limits import HELLO_BYTES, keep_to, make_hello
from trio_streamrpc.protocol.reactions import Breach
from trio_streamrpc.protocol.states import State

__all__ = ["Event", "Session", "Side"]

Side = Literal["connecting", "accepting"]
Event = Frame | Overflow

#: The longest error that is sent; what is longer is shortened (R21).
ERROR_BYTES = 16 * 1024


class Session:
    """One side of a connection: what it has heard, and what is open.

    ``side`` is "connecting" or "accepting"; the connecting side's ``hello`` waits to be written
    from the start, the accepting side's is made by :meth:`accept` (R25).
    """

    #: Whether the other side answers a ping, so that a silent one can be asked.
    pings = True
    #: Whether the other side knows this one's limits, so that exceeding them is its fault.
    tells_limits = True
    #: Whether the other side knows of credit.
    grants = True
    #: Whether the reader waits for whoever takes nothing of a stream whose credit is used up.
    waits_for_consumers = False
    #: Whether nothing of a stream comes before its first grant.
    grants_first = False
    #: Whether a stream is announced by the callee, to a caller who did not ask for one.
    announces = False
    #: Whether calls of callbacks are answered.
    answers_callbacks = True
    #: Whether there are words for contexts and tasks.
    holds = True
    #: Whether a call may have arguments by name.
    takes_names = True

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
        self.assembly = Assembly(self.limits, binary=not self.codec.is_text)
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
        self.watched: set[int] = set()
        #: What is done with writing since this was last emptied: such calls (R11), and uploads, by
        #: their final frames (R19).
        self.departed: list[int] = []
        #: Final frames of this side's calls that the other side does not send: known when what asks
        #: for them is written. Only other systems' wires have such calls.
        self.answered: list[Event] = []
        #: Streams whose credit is used up, where the other side knows of none: nothing
        #: more is to be received until some of it is taken.
        self.stuck: set[int] = set()
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
                self.violation(reactions.EMPTY_MESSAGE)
                return []
            return self._process(batch, len(message))
        except RemoteProtocolError as error:
            self.fail(error)
            raise

    def begin(self) -> list[Event]:
        """What is to be acted on before anything has come: nothing, where both sides say hello."""
        return []

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
        endpoint: Any = self  # that is what a session is a part of
        events: list[Event] = []
        handlers, uploads = inbound.HANDLERS, self.assembly.uploads
        for number, frame in enumerate(batch):
            if self.peer_hello is None:
                inbound.check_first(endpoint, frame)
            elif not self._accepted:
                self._held.extend(batch[number:])
                break
            event = handlers[frame.kind](endpoint, frame)
            if event is not None:
                if uploads:
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
    def held(self) -> int:
        """How many frames came early, before this side has accepted the other (R25)."""
        return len(self._held)

    def next_message(self) -> bytes | str | None:
        """What is to be written next, or None if nothing waits."""
        batch = self.outbox.take()
        return self.codec.encode(batch) if batch else None

    def unblocked(self) -> list[int]:
        """The streams that :meth:`may_send` held back for what waited here, and which may go on."""
        ids, self.outbox.unblocked = self.outbox.unblocked, []
        return ids

    def learn(self, announced: Announced) -> None:
        """What the other side accepts: the outbox keeps to it from now on (R26)."""
        self.peer = announced
        keep_to(self.outbox, announced)

    def violation(self, breach: Breach, detail: str = "") -> None:
        """A breach that is borne as long as there are not too many of them."""
        if not self.budget.spend(self.now, breach.cost):
            what = f"{breach.what}: {detail}" if detail else breach.what
            raise reactions.BUDGET_SPENT.error(what)

    def fail(self, error: RpcError) -> None:
        """A connection error: what waits is dropped, and ``goaway`` tells why (R27).

        It is the last thing that is written, whatever is said after it. In the place of
        :meth:`accept` it refuses the other side (R25): nothing of it was seen, so ``last_id`` is 0.
        """
        if self.failed:
            return
        self.failed = True
        self.assembly.clear()
        self.outbox.finish(
            self.family.goaway(self.highest_seen, error.code.value, encodable(error.message)[:200])
        )

    def close(self) -> None:
        """The transport is gone: nothing is received or written any more, and nothing kept."""
        if not self.failed:
            self.failed = True
            self.assembly.clear()
            self.outbox.finish()

    # --- the records

    def open_exchange(self, id: int, state: State, root: Exchange | None = None) -> Exchange:
        """A record for an id that the other side has opened."""
        exchange = self.exchanges[id] = Exchange(id, state, root)
        return exchange

    def drop_call_value(self, id: int) -> None:
        """Write no more of a call that goes out in parts: it is over, or to be (R9, R21)."""
        if self.outbox.drop_value(id):
            self._departs(id)

    def end_objects(self, id: int) -> None:
        """Nothing that was exported with that call can be called any more (R20)."""
        exchange = self.exchanges.get(id)
        if exchange is not None:
            for each in exchange.objects:
                self.objects.pop(each, None)

    def _export(self, owner: Exchange, id: int) -> None:
        self.objects[id] = owner.root
        owner.objects += (id,)

    def _sending(self, id: int, kind: int) -> Exchange:
        exchange = self.exchanges.get(id)
        if exchange is None or exchange.state.sent[kind] is None:
            state = "CLOSED" if exchange is None else exchange.state.name
            raise LocalProtocolError(f"cannot send frame {kind} on id {id}, which is {state}")
        return exchange

    def _written(self, frame: Call | Result | End | Error) -> None:
        """A frame was taken by the writer; after a final one the call's place is free (R26)."""
        if type(frame) is self.family.call:
            self._departs(frame.id)
            return
        exchange = self.exchanges.pop(frame.id)
        if exchange.places is None:
            self.departed.append(frame.id)
        elif not exchange.overrun:
            exchange.places.running -= 1

    def _departs(self, call: int) -> None:
        """Nothing more of that call is to be written: who waits for it is told (R11)."""
        if call in self.watched:
            self.watched.remove(call)
            self.departed.append(call)

    def shortened(self, info: ErrorInfo) -> tuple[ErrorInfo, int]:
        """The error as it can travel, and its length: errors do not travel in parts (R21)."""
        return self.codec.shortened(info, min(ERROR_BYTES, self.peer.max_message_bytes // 2))

    def error_info(self, code: Code, message: str) -> ErrorInfo:
        """An error of the protocol's own, without an exception behind it."""
        return ErrorInfo(code.value, "", message)

    def _say_hello(self) -> None:
        frame = make_hello(self.family, self.limits, self._metadata)
        self.outbox.add_control(frame, HELLO_BYTES + len(self._metadata or b""))
