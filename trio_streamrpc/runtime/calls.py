"""What a handler can know of the call it runs for."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["CURRENT_CALL", "Call", "current_call"]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call, as its handler sees it."""

    #: The connection that it came by; its ``proxy`` calls back.
    connection: Connection
    #: The method's dotted name.
    method: str
    #: What the caller sent along; what its connection was opened with, where it sent nothing.
    metadata: Mapping[str, Any]
    #: When the caller gives up, on Trio's clock; ``math.inf`` if never (R23).
    deadline: float

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the connection's handshake, names in lower case."""
        return self.connection.headers


CURRENT_CALL: ContextVar[Call] = ContextVar("trio_streamrpc.current_call")


def current_call() -> Call:
    """The call that this task runs for. Raises :exc:`RuntimeError` outside of a handler."""
    try:
        return CURRENT_CALL.get()
    except LookupError:
        raise RuntimeError("current_call() is for handlers of calls, and none runs here") from None
