"""A network that is told how it behaves: how late, how fast, when it stands still and when it ends.

Whatever is random in it comes from a seed, and time is Trio's, so that under a
:class:`trio.testing.MockClock` the same things happen at the same moments each time.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import trio

from trio_streamrpc.errors import ConnectionLost
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.testing.traces import Trace
from trio_streamrpc.transports.base import Transport

__all__ = ["Network", "SimulatedTransport", "open_simulated_transports"]

#: How many bytes may be on their way in one direction before who sends has to wait: what buffers
#: of sockets hold. One message may be longer.
IN_FLIGHT: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Network:
    """How a simulated network behaves, the same in both directions.

    The default is perfect: everything arrives at once. Raises :exc:`ValueError` for what cannot be.
    """

    latency: float = 0.0
    """Seconds that a message is on its way, at least."""

    jitter: float = 0.0
    """Up to so many seconds more, drawn for each message. Messages stay in order: what is late
    keeps back what comes behind it."""

    bandwidth: float | None = None
    """Bytes per second in each direction; None for no bound."""

    cut: float | None = None
    """The second, counted from the start, at which the connection breaks. What is on its way then
    is lost, and both sides see :exc:`~trio_streamrpc.ConnectionLost`."""

    stall: float | tuple[float, float] | None = None
    """The second at which the network stands still, and for how many seconds: nothing arrives
    meanwhile, nothing is lost. A number alone is for ever: a black hole, which only keepalive
    notices (R24)."""

    def __post_init__(self) -> None:
        for name in ("latency", "jitter"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"Network.{name} must be 0 or more seconds")
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise ValueError("Network.bandwidth must be above 0 bytes per second")
        if self.cut is not None and not self.cut >= 0:
            raise ValueError("Network.cut must be 0 or more seconds")
        if not (self.stall_begins >= 0 and self.stall_ends >= self.stall_begins):
            raise ValueError("Network.stall must be a second, or one and for how long")

    @property
    def stall_begins(self) -> float:
        """The second at which it stands still; infinity for never."""
        if self.stall is None:
            return math.inf
        return self.stall[0] if isinstance(self.stall, tuple) else self.stall

    @property
    def stall_ends(self) -> float:
        """The second at which it goes on; infinity for never."""
        return sum(self.stall) if isinstance(self.stall, tuple) else math.inf


@dataclass
class _Link:
    """One direction: what is on its way, and when it will arrive."""

    network: Network
    #: When the network began, on Trio's clock.
    began: float
    source: random.Random
    queue: deque[tuple[float, bytes | str | None]] = field(default_factory=deque)
    in_flight: int = 0
    #: When the last byte so far is through the narrow place, and when the last message arrives.
    busy_until: float = -math.inf
    last_arrival: float = -math.inf
    #: When it is heard at the other end that nothing more comes.
    ends: float = math.inf
    #: Somebody waits for a message, or for room.
    changed: trio.Event = field(default_factory=trio.Event)

    @property
    def has_room(self) -> bool:
        return self.in_flight < IN_FLIGHT

    def put(self, message: bytes | str | None, now: float) -> None:
        """A message sets out; None says that nothing more will."""
        network, size = self.network, 0
        if message is not None:
            size = len(message.encode() if isinstance(message, str) else message)
        self.busy_until = max(self.busy_until, now)
        if network.bandwidth is not None:
            self.busy_until += size / network.bandwidth
        arrival = self.busy_until + network.latency + self.source.random() * network.jitter
        arrival = self._after_stall(max(arrival, self.last_arrival))
        self.last_arrival = arrival
        if message is None:
            self.ends = arrival
        self.in_flight += size
        self.queue.append((arrival, message))
        self.wake()

    def _after_stall(self, arrival: float) -> float:
        begins, ends = self.network.stall_begins, self.network.stall_ends
        return self.began + ends if begins <= arrival - self.began < ends else arrival

    def take(self) -> bytes | str | None:
        """The oldest message has arrived."""
        message = self.queue[0][1]
        if message is not None:
            # The end stays there, for whoever asks again.
            self.queue.popleft()
            self.in_flight -= len(message.encode() if isinstance(message, str) else message)
            self.wake()
        return message

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class SimulatedTransport(Transport):
    """One end of a simulated network; made by :func:`open_simulated_transports`."""

    sends_nowait = True

    def __init__(
        self,
        network: Network,
        outgoing: _Link,
        incoming: _Link,
        encoding: Encoding,
        trace: Trace,
        arrow: str,
    ) -> None:
        self.encoding = encoding
        self.remote = "simulation"
        #: What both ends have sent, in order.
        self.trace = trace
        self._outgoing = outgoing
        self._incoming = incoming
        self._arrow = arrow
        self._breaks = math.inf if network.cut is None else outgoing.began + network.cut
        self._closed = False

    def _check(self) -> None:
        if self._closed:
            raise ConnectionLost("the transport was closed")
        if trio.current_time() >= self._breaks:
            raise ConnectionLost("the network was cut")
        if trio.current_time() >= self._incoming.ends:
            raise ConnectionLost("the other end was closed")

    def send_nowait(self, message: bytes | str) -> bool:
        """Send one message; False where the network is cut, or full."""
        try:
            self._check()
        except ConnectionLost:
            return False
        if not self._outgoing.has_room:
            return False
        now = trio.current_time()
        self.trace.note(now, self._arrow, message)
        self._outgoing.put(message, now)
        return True

    async def send(self, message: bytes | str) -> None:
        """Send one message, once there is room on the way for it."""
        await trio.lowlevel.checkpoint()
        while True:
            self._check()
            if self.send_nowait(message):
                return
            with trio.move_on_at(min(self._breaks, self._incoming.ends)):
                await self._outgoing.changed.wait()

    async def receive(self) -> bytes | str:
        """The next message, at the time when it arrives."""
        await trio.lowlevel.checkpoint()
        link = self._incoming
        while True:
            if self._closed:
                raise ConnectionLost("the transport was closed")
            now = trio.current_time()
            arrival = link.queue[0][0] if link.queue else math.inf
            if arrival <= min(now, self._breaks):
                message = link.take()
                if message is None:
                    raise ConnectionLost("the other end was closed")
                return message
            if now >= self._breaks:
                raise ConnectionLost("the network was cut")
            with trio.move_on_at(min(arrival, self._breaks)):
                await link.changed.wait()

    async def aclose(self) -> None:
        """Close this end; the other hears of it as late as of a message."""
        if not self._closed:
            self._closed = True
            self._outgoing.put(None, trio.current_time())
            # Nothing is left to wait for here; who sends at the other end is to hear of it.
            self._incoming.wake()
            self._outgoing.wake()
        await trio.lowlevel.checkpoint()


def open_simulated_transports(
    network: Network | None = None, *, encoding: Encoding = "msgpack", seed: int = 0
) -> tuple[SimulatedTransport, SimulatedTransport]:
    """Two ends of a simulated network, the connecting side's first; to be called within Trio.

    They share a ``trace``. All that is random comes from ``seed``.
    """
    network = network or Network()
    began, trace = trio.current_time(), Trace(trio.current_time())
    # A source of each direction's own: what one side does must not move the other's delays.
    there = _Link(network, began, random.Random(f"{seed} there"))
    back = _Link(network, began, random.Random(f"{seed} back"))
    return (
        SimulatedTransport(network, there, back, encoding, trace, "→"),
        SimulatedTransport(network, back, there, encoding, trace, "←"),
    )
