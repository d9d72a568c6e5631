"""The verbs of the side that calls, and that consumes what it has called for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Raw

from trio_streamrpc.errors import LocalProtocolError, ResourceExhausted, Unavailable
from trio_streamrpc.limits import Window
from trio_streamrpc.protocol.credit import Growth, ReceiveWindow, SendCredit
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.protocol.frames import Call, ErrorInfo, Kind, Ref, WindowInfo
from trio_streamrpc.protocol.parts import Claim, Value
from trio_streamrpc.protocol.peer_limits import CALL_BYTES, is_parted, max_refs, parts_of
from trio_streamrpc.protocol.session import Session
from trio_streamrpc.protocol.states import STATES

__all__ = ["Access", "Calling", "Refs"]

#: What a call does with what it names. On this protocol's own wire a property is called.
Access = Literal["call", "get", "set"]

#: Places in the arguments of a call, and what they hold instead of data (R19).
Refs = Sequence[tuple[int | str, Literal["stream", "object"]]]

TOO_LATE_FOR_GRANTS = (STATES["LEAVING"], STATES["CLOSED"])

#: What each reference of a call takes, at most: a place may be a name.
REF_BYTES = 32


class Calling(Session):
    """One side of a connection, as far as it calls the other."""

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
        """Open a call: unary, or with a window for its response stream (R18).

        The window grows if there is a ``growth``, and stays as it is if not. ``refs`` are the
        places that hold an upload or an object instead of data (R19); the record has ``uploads``
        and the ids of ``objects``, in that order. ``target`` is an object of the other side, and
        ``root`` the record of the call that it belongs to in the end. ``priority``, from -128 to
        127, is that of what both sides write for the call (R12). ``claim`` is the granted place of
        arguments that go in parts; without one they take it if there is room (R21).

        Raises :exc:`Unavailable` if the other side takes no more calls, and
        :exc:`ResourceExhausted` if the call is longer than what it takes or has more references
        (R19), or there is no room, and :exc:`ValueError` for a method name that is no valid text,
        or a priority out of range; none of them has said anything, and a claim is still the
        caller's.
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
        limit = max_refs(self.peer)
        if len(refs) > limit:
            raise ResourceExhausted(
                f"a call with {len(refs)} references; the other side takes at most {limit}"
            )
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
        Raises :exc:`ResourceExhausted` if the call is longer than what the other side takes or has
        more references, and :exc:`ValueError` as :meth:`call` does.
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

    def watch(self, id: int) -> None:
        """Have ``departed`` tell when that call is written, or is over before it was (R11)."""
        self.watched.add(id)

    def _open_ref(self, call: Exchange, ref: Ref) -> None:
        if ref.type == "object":
            self._export(call, ref.id)
            return
        upload = self.exchanges[ref.id] = Exchange(ref.id, STATES["PRODUCING"])
        # R18: how far an upload may run ahead is for the side that takes it to say.
        upload.credit = SendCredit(self.peer.window.items, self.peer.window.bytes)
        upload.priority = call.priority
        call.uploads += (upload,)

    def _check_ready(self) -> None:
        if not self.ready:
            raise LocalProtocolError("no call may be made before both sides have said hello")

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
        self.stuck.discard(id)
        self.assembly.drop(id)
        self.outbox.drop_grant(id)
        self.drop_call_value(id)
        size = 0
        if error is not None:
            error, size = self.shortened(error)
        self.outbox.add_control(self.family.cancel(id, mode, error), size)
        return True

    def is_writing(self, id: int) -> bool:
        """Whether some of that call is still to be taken by the writer."""
        return id in self.outbox.values or self.outbox.is_opening(id)

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
            self.take_back(id)
        return ids

    def _forget(self, call: Exchange) -> None:
        """R12: a call that was not yet written never was, and nor were its references."""
        self.end_objects(call.id)
        for upload in call.uploads:
            # Nothing of it is written before its call is, so its record is there.
            del self.exchanges[upload.id]
            self.outbox.remove_stream(upload.id)
            self.departed.append(upload.id)
        self.watched.discard(call.id)
        del self.exchanges[call.id]

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
        more = window.granted(items, bytes, now)
        self.stuck.discard(id)
        self.outbox.add_grant(id, items, bytes)
        if more is not None:
            self.outbox.add_grant(id, *more)

    def measure(self, now: float) -> None:
        """Find out how long a round trip takes, for windows that grow, unless that is under way."""
        if self.round_trip.begin(now):
            self.ping(self.codec.mark)

    def ping(self, token: Raw) -> None:
        """Ask whether the other side is there (R24)."""
        self.outbox.add_control(self.family.ping(token), len(token))
