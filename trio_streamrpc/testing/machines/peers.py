"""One of our endpoints against another implementation of the protocol.

The other side is an object with ``receive(message) -> list[message]``: it takes one message and
gives those that it has to say. It is the accepting side, and serves three methods:

``echo(value)``
    gives the value that it got;
``count(stop)``
    a stream of the integers from 0 to ``stop`` (which it does not reach);
``wait()``
    answers when it is cancelled, and not before.

The machine makes calls, takes items, cancels, pings and drains in any order, with frames that cross
one another, and is falsified by whatever the protocol does not allow.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import Raw

from trio_streamrpc.errors import Code
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.endpoint import Endpoint, Event
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.protocol.frames import (
    Call,
    Chunk,
    End,
    Error,
    Goaway,
    Hello,
    Overflow,
    Pong,
    Result,
)
from trio_streamrpc.testing.machines.reference import ReferencePeer
from trio_streamrpc.testing.plain_frames import PlainFrame, encode_payload, read_message
from trio_streamrpc.testing.strategies import payloads, windows

__all__ = ["Peer", "PeerMachine"]

WHICH: Final = st.integers(0, 11)
MAX_CALLS: Final = 4
#: How often a peer is asked again, at the end, before a call counts as unanswered.
PATIENCE: Final = 20


class Peer(Protocol):
    """The other side, whatever it is made of."""

    def receive(self, message: bytes | str) -> list[bytes | str]:
        """Take one message; gives those that are to be said now, in order."""
        ...


@dataclass
class Asked:
    """One call of ours."""

    exchange: Exchange
    method: str
    value: Any
    arrived: list[Any] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    taken: int = 0
    cancelled: bool = False
    final: Result | Error | End | None = None


class PeerMachine(RuleBasedStateMachine):
    """Fuzzes another implementation of the protocol: override :meth:`make_peer`.

    ::

        class OurServer(PeerMachine):
            encoding = "json"

            def make_peer(self):
                return OurServerWithoutSockets()

        TestOurServer = OurServer.TestCase

    More rules and invariants may be added; ``endpoint`` is our side.
    """

    encoding: Encoding = "msgpack"

    def make_peer(self) -> Peer:
        """A new peer, to which nothing was said; it is to talk in ``encoding``."""
        return ReferencePeer(self.encoding)

    @initialize(
        message_bytes=st.sampled_from([1024, 1024 * 1024]),
        frame_bytes=st.sampled_from([20, 128 * 1024]),
    )
    def connect(self, message_bytes: int, frame_bytes: int) -> None:
        limits = Limits(
            max_message_bytes=message_bytes,
            max_frame_bytes=frame_bytes,
            violation_budget=1,
            violation_refill=1e-9,
        )
        self.endpoint = Endpoint("connecting", encoding=self.encoding, limits=limits)
        # What is borne of others for a while is not borne here.
        self.endpoint.budget.spend(0.0)
        self.peer = self.make_peer()
        #: What the peer has said and was not heard yet.
        self.inbox: deque[bytes | str] = deque()
        #: Every frame that it has said.
        self.heard: list[PlainFrame] = []
        self.asked: dict[int, Asked] = {}
        self.tokens: list[bytes] = []
        self.write()
        self.hear(len(self.inbox))
        assert self.endpoint.ready, "R25: a hello is answered by a hello"

    # --- the wire

    def write(self) -> None:
        """All that waits here is said; what the peer answers is on its way."""
        while (message := self.endpoint.next_message()) is not None:
            for answer in self.peer.receive(message):
                expected = str if self.encoding == "json" else bytes
                assert isinstance(answer, expected), "R3: the other kind of message"
                self.inbox.append(answer)

    def hear(self, count: int) -> None:
        """So many messages of the peer arrive."""
        for _ in range(min(count, len(self.inbox))):
            message = self.inbox.popleft()
            events = self.endpoint.receive(message)
            frames = read_message(message)
            assert frames, "R1: a message has one frame or more"
            self.heard += frames
            for event in events:
                self.act(event)

    def act(self, event: Event) -> None:
        """What a runtime would do with it."""
        match event:
            case Chunk():
                asked = self.asked[event.id]
                for item in event.items:
                    asked.arrived.append(self.value_of(item))
                    asked.sizes.append(len(item))
            case Result() | Error() | End():
                asked = self.asked[event.id]
                assert asked.final is None, "R6: one final frame"
                asked.final = event
                self.check_final(asked)
            case Pong():
                assert bytes(event.token) in self.tokens, "a pong without a ping"
                self.tokens.remove(bytes(event.token))
            case Call():
                raise AssertionError("the peer calls a side that serves nothing")
            case Overflow():
                raise AssertionError(f"R16: {event.info.message}")
            case Goaway():
                assert event.code is None, f"the peer has given up: {event.message}"
            case _:
                assert isinstance(event, Hello), event

    def value_of(self, raw: Raw) -> Any:
        module: Any = msgspec.json if self.encoding == "json" else msgspec.msgpack
        return module.decode(raw)

    @rule(count=st.integers(1, 3))
    def deliver(self, count: int) -> None:
        """Some of what is on its way arrives; the rest crosses what is said next."""
        self.hear(count)

    @rule()
    def exchange(self) -> None:
        self.write()

    # --- what a caller does

    @rule(value=payloads(max_leaves=4), long=st.booleans())
    def echo(self, value: Any, long: bool) -> None:
        """R21: with a long value it goes, and comes back, in parts."""
        self.call("echo", [value, "x" * 2_000] if long else value)

    @rule(stop=st.integers(0, 12), window=windows(max_bytes=20))
    def count(self, stop: int, window: Window) -> None:
        self.call("count", stop, window)

    @rule()
    def wait(self) -> None:
        self.call("wait", None)

    @rule()
    def call_nothing(self) -> None:
        self.call("no_such_method", None)

    def call(self, method: str, value: Any, window: Window | None = None) -> None:
        waiting = sum(each.final is None for each in self.asked.values())
        if waiting >= min(MAX_CALLS, self.endpoint.peer.max_calls) or self.endpoint.peer_drains:
            return
        args = encode_payload(self.encoding, [] if method == "wait" else [value])
        parts = self.endpoint.parts_of(method, args)
        claim = self.endpoint.claim(parts) if parts else None
        if claim is not None and not claim.granted:
            self.endpoint.give_up(claim)
            return
        exchange = self.endpoint.call(method, args, window=window, claim=claim)
        self.asked[exchange.id] = Asked(exchange, method, value)

    @rule(which=WHICH, mode=st.sampled_from(["close", "abort"]))
    def cancel(self, which: int, mode: Literal["close", "abort"]) -> None:
        """R7, R8: also of what was not written yet, or is over by the time it arrives."""
        waiting = [each for each in self.asked.values() if each.final is None]
        if waiting:
            self.cancel_this(waiting[which % len(waiting)], mode)

    def cancel_this(self, asked: Asked, mode: Literal["close", "abort"]) -> None:
        if self.endpoint.cancel(asked.exchange.id, mode):
            asked.cancelled = True
        else:
            del self.asked[asked.exchange.id]

    @rule(which=WHICH, count=st.integers(1, 5))
    def take(self, which: int, count: int) -> None:
        """R15: credit goes back as items are taken."""
        streams = [each for each in self.asked.values() if each.taken < len(each.arrived)]
        if streams:
            self.take_from(streams[which % len(streams)], count)

    def take_from(self, asked: Asked, count: int) -> None:
        window = asked.exchange.window
        assert window is not None
        for size in asked.sizes[asked.taken : asked.taken + count]:
            asked.taken += 1
            due = window.take(1, size)
            if due is not None:
                self.endpoint.grant(asked.exchange.id, *due)

    @rule(token=st.integers(2, 100))
    def ping(self, token: int) -> None:
        """R24."""
        data = encode_payload(self.encoding, token)
        self.endpoint.ping(Raw(data))
        self.tokens.append(data)

    # --- what is to hold

    def check_final(self, asked: Asked) -> None:
        """What a call has ended with is what its method gives, or what a cancel allows."""
        final = asked.final
        code = final.error.code if isinstance(final, Error) else None
        if asked.cancelled and code == Code.CANCELLED:
            return
        if asked.method == "no_such_method":
            assert code == Code.UNIMPLEMENTED, f"an unknown method was answered by {final}"
        elif asked.method == "echo":
            assert isinstance(final, Result), f"echo({asked.value!r}) ended with {final}"
            if not asked.cancelled:
                assert self.value_of(final.value) == asked.value, "echo gave another value"
        elif asked.method == "count":
            assert isinstance(final, End), f"count({asked.value}) ended with {final}"
            if not asked.cancelled:
                assert asked.arrived == list(range(asked.value)), "R6: end, and items are missing"
        else:
            assert asked.cancelled, f"wait() was answered by {final}"

    @invariant()
    def items_are_a_prefix(self) -> None:
        """In order, each once."""
        for asked in getattr(self, "asked", {}).values():
            expected = list(range(len(asked.arrived)))
            assert asked.arrived == expected, f"items {asked.arrived}, not {expected}"

    def teardown(self) -> None:
        """All that was asked is answered, and nothing is left open."""
        if not hasattr(self, "asked"):
            return
        for asked in list(self.asked.values()):
            if asked.method == "wait" and asked.final is None and not asked.cancelled:
                self.cancel_this(asked, "abort")
        for _ in range(PATIENCE):
            for asked in self.asked.values():
                if asked.method == "count" and not asked.cancelled and asked.final is None:
                    self.take_from(asked, len(asked.arrived))
            self.write()
            self.hear(len(self.inbox))
        for id, asked in self.asked.items():
            assert asked.final is not None, f"R6: call {id} of {asked.method}() has no final frame"
        assert self.tokens == [], "R24: a ping without its pong"
        assert self.endpoint.exchanges == {}, "ids are left open"
