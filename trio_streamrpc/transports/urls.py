"""Which transport a URL means: a line for each scheme; and the one over a stream without a URL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import trio

from trio_streamrpc.transports import bytestream, websocket
from trio_streamrpc.transports.base import Transport
from trio_streamrpc.transports.bytestream import open_lines as open_lines
from trio_streamrpc.transports.bytestream import open_stream as open_stream
from trio_streamrpc.transports.origins import Origins
from trio_streamrpc.transports.sockets import peer_address as peer_address

__all__ = ["Scheme", "open_lines", "open_stream", "origins_for", "peer_address", "scheme_of"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a transport does for ``connect`` and for ``serve``."""

    connect: Callable[..., AbstractAsyncContextManager[Transport]]
    listen: Callable[..., Any]
    accept: Callable[..., AbstractAsyncContextManager[Transport | None]]
    #: What is done with a client for which there is no place.
    turn_away: Callable[[trio.abc.Stream], Awaitable[None]] = trio.aclose_forcefully
    #: Whether the two sides can agree on what they speak.
    negotiates: bool = False


_WEBSOCKET = Scheme(
    websocket.connect_websocket,
    websocket.listen,
    websocket.accept_websocket,
    websocket.turn_away,
    negotiates=True,
)
_BYTE_STREAM = Scheme(bytestream.connect_stream, bytestream.listen, bytestream.accept_stream)

SCHEMES: dict[str, Scheme] = {
    "ws": _WEBSOCKET,
    "wss": _WEBSOCKET,
    "tcp": _BYTE_STREAM,
    "tls": _BYTE_STREAM,
    "unix": _BYTE_STREAM,
}


def scheme_of(url: str) -> Scheme:
    """The transport for that URL.

    Raises :exc:`TypeError` for what is no string, and :exc:`ValueError` if there is none.
    """
    if not isinstance(url, str):
        raise TypeError(f"a URL is a string, not {url!r}")
    name = urlsplit(url).scheme
    if name not in SCHEMES:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise ValueError(f"{url!r} is no URL that can be served or connected to ({known})")
    return SCHEMES[name]


def origins_for(url: str, allowed: Sequence[str] | None) -> Origins | None:
    """Which web pages may connect to a server at that URL; None where none can.

    Raises :exc:`ValueError` for origins where no browser gets to, and for what is no origin.
    """
    scheme = urlsplit(url).scheme
    if scheme not in ("ws", "wss"):
        if allowed is not None:
            raise ValueError(f"allowed_origins was given for {url!r}, where no browser connects")
        return None
    return Origins(allowed, encrypted=scheme == "wss")
