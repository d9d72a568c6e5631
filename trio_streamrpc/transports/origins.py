"""Which web pages may connect: what a browser's ``Origin`` header says, against what is allowed.

A browser tells with each handshake of a WebSocket from where the page comes that opens it, and
lets any page open one to anywhere; it is the server that has to look. What is no browser sends no
``Origin``, or whatever it likes: this protects a browser's user, and is no authentication.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["Origins"]

#: What is left out of an origin where it is the scheme's own.
DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_PORT = 65535

_HOST = r"(?P<host>[a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::(?P<port>0|[1-9][0-9]{0,4}))?"
_ORIGIN = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_HOST}", re.ASCII | re.IGNORECASE)
_AUTHORITY = re.compile(_HOST, re.ASCII | re.IGNORECASE)

#: Scheme, host and port: what makes two origins the same.
Origin = tuple[str, str, int | None]


class Origins:
    """Whom a server answers: the origins that were listed; where none were, those on its own host.

    Scheme and host are compared in whatever case of letters, and a port that is left out is its
    scheme's own. Raises :exc:`TypeError` for what is no sequence, and :exc:`ValueError` for an
    entry that is no origin.
    """

    def __init__(self, allowed: Sequence[str] | None = None, *, encrypted: bool = False) -> None:
        self._allowed = None if allowed is None else _parsed(allowed)
        # What is not encrypted here may have been on its way, up to a proxy. Where it is, whoever
        # stands in between may have made a page that is not, at whatever port.
        self._schemes = ("https",) if encrypted else ("http", "https")

    def allow(self, origins: Sequence[str], host: str) -> bool:
        """Whether to answer a handshake with these ``Origin`` headers, for that ``Host``."""
        if not origins:
            return True
        if len(origins) > 1:
            # No browser says two; what stands in between may have looked at the other one.
            return False
        origin = _parse(origins[0])
        if origin is None:
            return False
        if self._allowed is not None:
            return origin in self._allowed
        return self._is_same_host(origin, host)

    def _is_same_host(self, origin: Origin, host: str) -> bool:
        scheme, name, port = origin
        found = _AUTHORITY.fullmatch(host)
        if found is None or scheme not in self._schemes:
            return False
        # A port that is left out is the one that the browser's URL means.
        implied = DEFAULT_PORTS[scheme]
        named = implied if found["port"] is None else int(found["port"])
        return (name, port) == (_name(found["host"]), named)


def _parsed(allowed: Any) -> frozenset[Origin]:
    if isinstance(allowed, str) or not isinstance(allowed, Iterable):
        raise TypeError(f"allowed_origins is a sequence of origins, not {allowed!r}")
    found = set()
    for each in allowed:
        origin = _parse(each) if isinstance(each, str) else None
        if origin is None:
            raise ValueError(
                f"{each!r} in allowed_origins is no origin; one looks like https://example.com or "
                "http://localhost:8080, in ASCII, and has no path"
            )
        found.add(origin)
    return frozenset(found)


def _parse(text: str) -> Origin | None:
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme, name = found["scheme"].lower(), _name(found["host"])
    port = DEFAULT_PORTS.get(scheme) if found["port"] is None else int(found["port"])
    if name is None or (port is not None and port > MAX_PORT):
        return None
    return scheme, name, port


def _name(host: str) -> str | None:
    """A host, written as all that mean the same are; None for what is no IPv6 address."""
    if not host.startswith("["):
        return host.lower()
    try:
        return f"[{ipaddress.IPv6Address(host[1:-1])}]"
    except ValueError:
        return None
