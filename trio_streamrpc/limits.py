"""What a side accepts and how long it waits: finite by default, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["Limits", "Window", "checked_limits", "not_a_window"]

#: Amounts on the wire stay below this (R5, R15): what a double holds exactly.
MAX_INTEGER = 2**53


@dataclass(frozen=True, slots=True)
class Window:
    """The capacity of a stream: how far its producer may run ahead of its consumer (R13).

    Whichever of the two is used up first stops the producer. One that is named, as an argument or
    an option, stays as it is; the window of a stream for which nobody has named one grows (R15).

    Raises :exc:`ValueError` if either is below 1 or is no integer.
    """

    items: int = 64
    """How many items may be on their way or wait here."""

    bytes: int = 262_144
    """How many bytes their encodings may have together. A single item that is longer still gets
    through, alone (R14)."""

    def __post_init__(self) -> None:
        for name in ("items", "bytes"):
            _check_integer(f"Window.{name}", getattr(self, name), minimum=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one side of a connection accepts from the other, and how long it waits.

    Sizes are in bytes, times in seconds. Raises :exc:`ValueError` for a value out of range.
    """

    window: Window = field(default_factory=Window)
    """A stream's first window, where the caller names none (R18): it grows when the link, or how
    fast it is used up, needs it (R15).

    Beyond: a chunk beyond the credit is dropped, its stream ends with FLOW_CONTROL, and it costs.

    Reason: enough for a stream of small items on a link of some milliseconds; little enough for
    thousands of streams that nobody reads.
    """

    max_window: Window = field(default_factory=lambda: Window(65_536, 8 * 1024 * 1024))
    """How far a window grows by itself (R15): the bound of one stream's memory, unless a larger
    ``Window`` is named.

    Beyond: it grows no further.

    Reason: 8 MiB fill a link of 1 Gbit/s with a round trip of 64 ms; 65,536 small items are less
    than that in memory, and 650,000 in a second over 100 ms.
    """

    max_calls: int = 100
    """Calls that the other side may have running here at once, each counted until its handler has
    really stopped; its callers wait for a place (R26, R7a).

    Beyond: RESOURCE_EXHAUSTED; nothing is started, and it costs.

    Reason: as many streams as HTTP/2 recommends for one connection.
    """

    max_object_calls: int = 64
    """Calls of the other side to callbacks and remote objects, at once, for each call to a service
    that they belong to (R26): they have places of their own, so that a call is never waited for by
    what it waits for.

    Beyond: RESOURCE_EXHAUSTED; nothing is started, and it costs.

    Reason: more than one call makes use of; each call may have as many.
    """

    max_uploads: int = 64
    """Streams that the other side may be sending here at once, as arguments (R19).

    Beyond: RESOURCE_EXHAUSTED for the call that brings them, and it costs; above twice as many, the
    end of the connection.

    Reason: each may fill a window of ``max_window``.
    """

    max_message_bytes: int = 1024 * 1024
    """The longest message that is taken (R28); a connection takes twice as many bytes, at most,
    since the last whole message.

    Beyond: the end of the connection, with 1009 on a WebSocket.

    Reason: a message is in memory whole before anything of it can be judged; this library makes
    them of 64 KiB.
    """

    max_message_frames: int = 4096
    """The most frames in one message (R28).

    Beyond: the end of the connection.

    Reason: a frame of a few bytes becomes an object of hundreds.
    """

    max_frame_bytes: int = 128 * 1024
    """The longest chunk that several items are put together in, and the longest value that
    travels whole: what is longer comes in parts, with other streams' frames between them (R21). It
    is what the other side is asked to keep to.

    Beyond: nothing; ``max_message_bytes`` is what holds.

    Reason: a call beside a large value waits for one frame of it, a millisecond at 1 Gbit/s.
    """

    max_value_bytes: int = 128 * 1024 * 1024
    """The longest value that is taken, in parts or whole: an argument list, a result, an item
    (R21).

    Beyond: RESOURCE_EXHAUSTED for a call, and it costs; a longer result or item is the end of the
    connection.

    Reason: a value is in memory whole; what is larger is better sent as a stream.
    """

    max_partial_bytes: int = 256 * 1024 * 1024
    """All values together of which parts are still to come, by their full lengths: the bound of
    what unfinished values may hold in memory (R21). At least ``max_value_bytes``.

    Beyond: as for ``max_value_bytes``.

    Reason: two of the longest values at once.
    """

    max_waiting_control_bytes: int = 1024 * 1024
    """Answers to control frames and refusals that may wait to be written before this side stops
    reading (R24): a peer that asks and never reads costs no more than this.

    Beyond: nothing is read from the other side until it reads.

    Reason: as much as one message, which may bring as many pings at once.
    """

    violation_budget: int = 200
    """Breaches that only a faulty peer can cause, before the connection is closed (R16, R26).

    Beyond: the end of the connection, with 1008 on a WebSocket.

    Reason: what crosses on the wire once in a while is borne, a flood is over in a moment.
    """

    violation_refill: float = 20.0
    """How many of them are forgiven per second.

    Beyond: the budget shrinks.

    Reason: each costs no more than a call that is refused.
    """

    max_connections: int = 10_000
    """Connections of one server at once, counted from accept to the end.

    Beyond: a WebSocket is answered with 503, any other connection is closed.

    Reason: each costs a file descriptor and a few tasks, and what all of them may hold together has
    to be finite.
    """

    max_connections_per_peer: int = 1_000
    """Connections of one IP address at once, in IPv6 of one network of 64 bits. Behind a proxy all
    have the proxy's address. Those of a Unix socket, where all are one machine's, count in
    ``max_connections`` alone.

    Beyond: as for ``max_connections``.

    Reason: one client cannot take all places.
    """

    max_early_bytes: int = 65_536
    """What is taken in from a client until ``authenticate`` has let it in, its ``hello`` included
    (R25). Without ``authenticate`` who says hello is in.

    Beyond: the end of the connection, with 1009 on a WebSocket.

    Reason: anyone at all can make a server hold that much.
    """

    max_early_frames: int = 64
    """Calls and other frames that may come behind a client's ``hello`` before ``authenticate`` has
    let it in (R25); they are held, and nothing is run for them before.

    Beyond: the end of the connection, with 1008 on a WebSocket.

    Reason: more than a client has to say before it knows that it is welcome.
    """

    handshake_timeout: float = 10.0
    """From the first byte until both sides have said ``hello``, with whatever ``authenticate``
    does in between (R25).

    Beyond: the end of the connection, with 1008 on a WebSocket.

    Reason: a few round trips on the worst of links, a TLS handshake among them; nobody has said who
    he is meanwhile.
    """

    ping_interval: float = 20.0
    """Silence after which the other side is asked whether it is there (R24).

    Beyond: a ping.

    Reason: routers forget connections that are silent for 30 seconds and more.
    """

    ping_timeout: float = 20.0
    """Silence after that question, or time to write one message, after which the other side is
    given up (R24).

    Beyond: ConnectionLost.

    Reason: longer than a mobile link stands still when it changes cells.
    """

    stall_timeout: float = 86_400.0
    """How long a stream of this side may wait for a consumer that takes nothing and does not leave,
    though it is there (R14). A stream that waits for its own producer is not meant: it may be idle
    for as long as it likes.

    Beyond: its handler is stopped, and it ends with DEADLINE_EXCEEDED.

    Reason: whoever takes half a window in a day still works; who does not holds a place, and what
    the handler has open, for nobody.
    """

    part_timeout: float = 600.0
    """How long a call that comes in parts may wait for the next part, while the other side is there
    (R21): of what is to come, nothing but the link holds it up.

    Beyond: it ends with DEADLINE_EXCEEDED, and what has come of it is dropped.

    Reason: a part is 64 KiB and takes its turn among all that is sent; a link that takes longer for
    it is of no use for a value that comes in parts.
    """

    close_timeout: float = 5.0
    """How long an orderly close may take before the transport is closed regardless.

    Beyond: the transport is closed.

    Reason: as long as ``cleanup``, which it waits for.
    """

    cancel_timeout: float = 10.0
    """How long leaving a block waits for the remote side to finish (R7).

    Beyond: CleanupTimeout for who leaves.

    Reason: ``cleanup``, one second more, and the way there and back.
    """

    cleanup: float = 5.0
    """How long a handler of this side may take to clean up once it was asked to stop (R7a);
    ``@rpc(cleanup=…)`` sets it for one method.

    Beyond: its caller is told CleanupTimeout, and it keeps its place until it stops.

    Reason: longer than a transaction takes to be rolled back, shorter than people wait.
    """

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.type == "int":
                _check_integer(f"Limits.{each.name}", value, minimum=1)
            elif each.type == "float":
                _check_seconds(f"Limits.{each.name}", value)
            elif not isinstance(value, Window):
                raise ValueError(f"Limits.{each.name} must be a Window, not {value!r}")
        if self.window.items > self.max_window.items or self.window.bytes > self.max_window.bytes:
            raise ValueError(
                f"Limits.window {self.window} is larger than max_window {self.max_window}"
            )
        if self.max_partial_bytes < self.max_value_bytes:
            raise ValueError(
                f"Limits.max_partial_bytes {self.max_partial_bytes} is smaller than "
                f"max_value_bytes {self.max_value_bytes}"
            )
        for name in ("max_message_bytes", "max_early_bytes"):
            if getattr(self, name) < 1024:
                raise ValueError(f"Limits.{name} must be at least 1024: a hello has to fit")


def checked_limits(limits: Any) -> Limits:
    """The limits that were given; the default ones for None.

    Raises :exc:`TypeError` for what is none, such as a dict of them.
    """
    if limits is None:
        return Limits()
    if isinstance(limits, Limits):
        return limits
    names = {each.name for each in fields(Limits)}
    hint = ""
    if isinstance(limits, Mapping) and limits and names.issuperset(limits):
        hint = f": Limits({', '.join(f'{name}={limits[name]!r}' for name in limits)})"
    raise TypeError(f"limits must be a Limits, not {limits!r}{hint}")


def not_a_window(given: object) -> str:
    """How messages call what is no :class:`Window`, with what it would be as one."""
    if type(given) is int and given > 0:
        return f"{given}: Window(items={given})"
    return repr(given)


def _check_integer(name: str, value: object, *, minimum: int) -> None:
    if type(value) is not int or not minimum <= value < MAX_INTEGER:
        raise ValueError(f"{name} must be an integer of at least {minimum}, not {value!r}")


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name} must be a number above 0, not {value!r}")
