"""Which transport a URL means: a line for each scheme; and the one over a stream without a URL."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from trio_streamrpc.transports import bytestream, websocket
from trio_streamrpc.transports.base import Transport
from trio_streamrpc.transports.bytestream import open_stream as open_stream

__all__ = ["Scheme", "open_stream", "scheme_of"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a transport does for ``connect`` and for ``serve``."""

    connect: Callable[..., AbstractAsyncContextManager[Transport]]
    listen: Callable[..., Any]
    accept: Callable[..., AbstractAsyncContextManager[Transport | None]]


_WEBSOCKET = Scheme(websocket.connect_websocket, websocket.listen, websocket.accept_websocket)
_BYTE_STREAM = Scheme(bytestream.connect_stream, bytestream.listen, bytestream.accept_stream)

SCHEMES: dict[str, Scheme] = {
    "ws": _WEBSOCKET,
    "wss": _WEBSOCKET,
    "tcp": _BYTE_STREAM,
    "tls": _BYTE_STREAM,
    "unix": _BYTE_STREAM,
}


def scheme_of(url: str) -> Scheme:
    """The transport for that URL. Raises :exc:`ValueError` if there is none."""
    name = urlsplit(url).scheme
    if name not in SCHEMES:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise ValueError(f"{url!r} is no URL that can be served or connected to ({known})")
    return SCHEMES[name]
