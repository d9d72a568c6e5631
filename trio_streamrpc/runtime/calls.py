"""What is known of a call: by its handler, by interceptors, and by calls made while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    #: What the caller sends along; where it is served, over what its connection was opened with.
    metadata: Mapping[str, Any]
    #: When the caller gives up, on Trio's clock; ``math.inf`` if never (R23).
    deadline: float
    #: The arguments by position, for interceptors; a handler has its own, and these are empty.
    args: tuple[Any, ...] = ()
    #: The arguments by name, for interceptors.
    kwargs: Mapping[str, Any] = EMPTY
    #: The names of the parameters that take ``args``, as far as this side knows them.
    parameters: tuple[str, ...] = ()

    @property
    def arguments(self) -> Mapping[int | str, Any]:
        """The arguments, for interceptors, by the names of the method's parameters.

        One that has no name here is under its index: what ``*args`` takes, and all that is given by
        position where this side has no contract. Defaults that were not given are not in it.
        """
        found: dict[int | str, Any] = {
            self.parameters[index] if index < len(self.parameters) else index: value
            for index, value in enumerate(self.args)
        }
        for name, value in self.kwargs.items():
            # ``**kwargs`` may hold the name of a positional-only parameter, which it is not.
            found.setdefault(name, value)
        return MappingProxyType(found)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the connection's handshake, names in lower case."""
        return self.connection.headers

    @property
    def identity(self) -> Any:
        """Who the other side is; None if nobody has asked."""
        return self.connection.identity

    def replace(
        self,
        *,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Call:
        """The same call with other arguments or other metadata, for ``proceed``.

        What is not given stays as it is, and the rest is not an interceptor's to choose.
        ``metadata`` takes the place of what was there: ``{**call.metadata, "token": token}`` adds
        to it. Raises :exc:`TypeError` for what cannot be these.
        """
        return structs.replace(
            self,
            args=self.args if args is None else tuple(args),
            kwargs=self.kwargs if kwargs is None else _frozen("kwargs", kwargs),
            metadata=self.metadata if metadata is None else _frozen("metadata", metadata),
        )


def _frozen(what: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"the {what} of a call is a mapping of names, not {given!r}")
    return MappingProxyType(dict(given))


CURRENT_CALL: ContextVar[Call] = ContextVar("trio_streamrpc.current_call")


def current_call() -> Call:
    """The call that this task runs for. Raises :exc:`RuntimeError` outside of a handler."""
    try:
        return CURRENT_CALL.get()
    except LookupError:
        raise RuntimeError("current_call() is for handlers of calls, and none runs here") from None


class Serving(Struct, eq=False):
    """That this task serves a call, perhaps within what serves another.

    A callback runs within the call that it was passed to, which may itself run within a handler:
    what waits there for a place could wait for itself (R26).
    """

    connection: Connection
    #: The record of the call, if it is one to the service; None for a call of an object.
    root: Exchange | None
    outer: Serving | None
    #: Set when the call is over: a task that it has left behind serves it no more.
    ended: bool = False


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
        if (
            serving.connection is connection
            and not serving.ended
            and (root is None or serving.root is not root)
        ):
            return False
        serving = serving.outer
    return True
