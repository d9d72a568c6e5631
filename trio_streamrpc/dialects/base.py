"""What a dialect is: another system's wire, spoken by the same runtime.

A :class:`Dialect` is what users name; for each connection it makes a
:class:`~trio_streamrpc.dialects.foreign.ForeignEndpoint`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from msgspec import Raw

from trio_streamrpc.dialects.foreign import UNBOUNDED, ForeignEndpoint
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol.endpoint import Endpoint, Side

if TYPE_CHECKING:
    from trio_streamrpc.contract.method import Method

__all__ = ["Dialect", "Native", "other", "speech"]

#: How many calls of callbacks may wait their turn, where who calls them cannot wait for a place.
WAITING_CALLBACKS = 4096


class Dialect(ABC):
    """Another system's wire: what ``serve(…, dialects=…)`` and ``connect(…, dialect=…)`` take."""

    #: What messages call it.
    name: ClassVar[str]
    #: The WebSocket subprotocol by which a client may choose it; most connect without any.
    subprotocol: ClassVar[str]

    def __repr__(self) -> str:
        return f"<dialect {self.name}>"

    @abstractmethod
    def knows(self, message: str) -> bool:
        """Whether a first message is of this wire; called with anything at all."""

    @abstractmethod
    def speak(
        self,
        side: Side,
        *,
        limits: Limits,
        metadata: Raw | None = None,
        table: Mapping[str, Method] | None = None,
    ) -> ForeignEndpoint:
        """An endpoint of one connection."""

    #: The window of its streams, in items.
    window: ClassVar[int] = 64

    def limits(self, limits: Limits) -> Limits:
        """These limits, as far as the wire can keep to them."""
        window = Window(self.window, UNBOUNDED)
        return replace(
            limits,
            window=window,
            max_window=window,
            max_object_calls=max(limits.max_object_calls, WAITING_CALLBACKS),
        )


class Native:
    """streamrpc/1 itself."""

    name = "native"

    def __repr__(self) -> str:
        return "<dialect native>"


def other(dialect: Dialect | Native | None) -> Dialect | None:
    """The other system's wire that it is; None for this protocol's own.

    Raises :exc:`TypeError` for what is no dialect.
    """
    if dialect is None or isinstance(dialect, Native):
        return None
    if not isinstance(dialect, Dialect):
        raise TypeError(f"{dialect!r} is no dialect: they stand in trio_streamrpc.dialects")
    return dialect


def speech(dialect: Dialect | None) -> Callable[..., Endpoint] | None:
    """What makes the endpoints of a connection that speaks it; None for this protocol's own."""
    return None if dialect is None else dialect.speak
