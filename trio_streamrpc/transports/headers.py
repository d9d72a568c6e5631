"""The head of an HTTP request or answer: its headers, on their way in and out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import cast

from trio_streamrpc.transports.fragments import END_OF_HEAD

__all__ = ["decoded", "encoded", "has_body", "host_in", "values_of"]

#: Names of headers that many handshakes have: kept once for all connections. Those that a client
#: has made up are not interned, since what Python 3.12 interns it keeps for ever.
USUAL = {
    name: name
    for name in (
        "accept-encoding",
        "accept-language",
        "authorization",
        "cache-control",
        "cookie",
        "host",
        "origin",
        "pragma",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "upgrade",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
    )
}

#: What RFC 9110 (sections 5.1, 5.5) lets a name and a value be.
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
VALUE = re.compile(r"|[!-~\x80-\xff]|[!-~\x80-\xff][\t -~\x80-\xff]*[!-~\x80-\xff]")

#: How the line begins that names the host, in lower case.
HOST = b"host:"


def encoded(
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
) -> list[tuple[bytes, bytes]]:
    """As they are sent; raises :exc:`ValueError` for what cannot be a header."""
    # A name may stand there several times, where they are pairs.
    items = headers.items() if isinstance(headers, Mapping) else headers
    pairs = list(cast(Iterable[tuple[str, str]], items))
    for name, value in pairs:
        if not NAME.fullmatch(name) or not VALUE.fullmatch(value):
            # Without the value: it may be a secret.
            raise ValueError(f"{name!r}, or what it is set to, cannot be an HTTP header")
    return [(name.encode(), value.encode("latin-1")) for name, value in pairs]


def decoded(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """By their names in lower case; of several with one name, the last."""
    found = {}
    for raw, value in headers:
        name = raw.decode("latin-1").lower()
        found[USUAL.get(name, name)] = value.decode("latin-1")
    return found


def has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether something follows the head that is none of a WebSocket's frames."""
    lengths = values_of(headers, b"content-length")
    return any(each != "0" for each in lengths) or bool(values_of(headers, b"transfer-encoding"))


def values_of(headers: Iterable[tuple[bytes, bytes]], header: bytes) -> list[str]:
    """Each value of a header, whose name is given in lower case."""
    return [value.decode("latin-1") for name, value in headers if name.lower() == header]


def host_in(head: bytes) -> str:
    """What the ``Host`` line of a request says; nothing, if there is not exactly one."""
    # No pattern for the line: what one takes for it may grow with the square of its length.
    lines = END_OF_HEAD.split(head, maxsplit=1)[0].split(b"\n")
    found = [line[len(HOST) :] for line in lines if line[: len(HOST)].lower() == HOST]
    return found[0].strip(b" \t\r").decode("latin-1") if len(found) == 1 else ""
