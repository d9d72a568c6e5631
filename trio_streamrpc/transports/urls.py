"""Which transport a URL means: a line for each scheme."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from trio_streamrpc.transports import websocket
from trio_streamrpc.transports.base import Transport

__all__ = ["Scheme", "scheme_of"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a transport does for ``connect`` and for ``serve``."""

    connect: Callable[..., AbstractAsyncContextManager[Transport]]
    listen: Callable[..., Any]
    accept: Callable[..., AbstractAsyncContextManager[Transport | None]]


_WEBSOCKET = Scheme(websocket.connect_websocket, websocket.listen, websocket.accept_websocket)

SCHEMES: dict[str, Scheme] = {
    "ws": _WEBSOCKET,
    "wss": _WEBSOCKET,
}


def scheme_of(url: str) -> Scheme:
    """The transport for that URL. Raises :exc:`ValueError` if there is none."""
    name = urlsplit(url).scheme
    if name not in SCHEMES:
        known = ", ".join(f"{each}://" for each in SCHEMES)
        raise ValueError(f"{url!r} is no URL that can be served or connected to ({known})")
    return SCHEMES[name]
