"""What is known of a call: by its handler, by interceptors, and by calls made while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

if TYPE_CHECKING:
    from trio_streamrpc.protocol.exchanges import Exchange
    from trio_streamrpc.runtime.connection import Connection

__all__ = [
    "CURRENT_CALL",
    "EMPTY",
    "SERVING",
    "Call",
    "Serving",
    "current_call",
    "may_wait",
    "serves",
]

EMPTY: Mapping[str, Any] = MappingProxyType({})


class Call(Struct, frozen=True, eq=False):
    """One call, as its handler and its interceptors see it."""

    #: The connection that it came by, or goes out by; in a handler its ``proxy`` calls back.
    connection: Connection
    #: The method's dotted name; a remote object's methods follow the name of what yielded it.
    method: str
    #: What the caller sent along, over what its connection was opened with.
    metadata: Mapping[str, Any]
    #: When the caller gives up, on Trio's clock; ``math.inf`` if never (R23).
    deadline: float
    #: The arguments, for interceptors; a handler has its own, and these are empty.
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = EMPTY

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the connection's handshake, names in lower case."""
        return self.connection.headers

    @property
    def identity(self) -> Any:
        """Who the other side is; None if nobody has asked."""
        return self.connection.identity

    def replace(self, **changes: Any) -> Call:
        """The same call with other ``args``, ``kwargs`` or ``metadata``, for ``proceed``.

        Raises :exc:`TypeError` for anything else: the rest is not an interceptor's to choose.
        """
        unknown = changes.keys() - {"args", "kwargs", "metadata"}
        if unknown:
            raise TypeError(f"an interceptor cannot replace the {min(unknown)} of a call")
        if "args" in changes:
            changes["args"] = tuple(changes["args"])
        return structs.replace(self, **changes)


CURRENT_CALL: ContextVar[Call] = ContextVar("trio_streamrpc.current_call")


def current_call() -> Call:
    """The call that this task runs for. Raises :exc:`RuntimeError` outside of a handler."""
    try:
        return CURRENT_CALL.get()
    except LookupError:
        raise RuntimeError("current_call() is for handlers of calls, and none runs here") from None


class Serving(Struct, frozen=True, eq=False):
    """That this task serves a call, perhaps within what serves another.

    A callback runs within the call that it was passed to, which may itself run within a handler:
    what waits there for a place could wait for itself (R26).
    """

    connection: Connection
    #: The record of the call, if it is one to the service; None for a call of an object.
    root: Exchange | None
    outer: Serving | None


SERVING: ContextVar[Serving | None] = ContextVar("trio_streamrpc.serving", default=None)


def serves(connection: Connection) -> bool:
    """Whether this task serves a call of that connection."""
    return not may_wait(connection, None)


def may_wait(connection: Connection, root: Exchange | None) -> bool:
    """Whether this task may wait for a place at the other side of that connection (R26).

    ``root`` is the call that the object belongs to which is to be called; None for a place that
    all calls share. What serves the other side waits for the objects of the call that it serves,
    and for nothing else: calls of other objects may themselves wait for what this task serves.
    """
    serving = SERVING.get()
    while serving is not None:
        if serving.connection is connection and (root is None or serving.root is not root):
            return False
        serving = serving.outer
    return True
