"""An address of each kind that can be served, and the certificates for those that are encrypted."""

from __future__ import annotations

import contextlib
import functools
import random
import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trustme

from trio_streamrpc.transports.urls import SCHEMES

__all__ = ["AUTHORITY", "KINDS", "address", "client_context", "free_port", "server_context"]

AUTHORITY = trustme.CA()

#: The schemes of the transports over real sockets: every one that there is.
KINDS = list(SCHEMES)


def server_context(
    *names: str, authority: trustme.CA = AUTHORITY, **options: Any
) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*(names or ("127.0.0.1", "localhost")), **options).configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


@functools.cache
def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return server_context(), client_context()


@contextmanager
def address(kind: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """A URL of that kind to listen at, and the options of ``serve`` and of ``connect`` for it."""
    if kind == "unix":
        directory = tempfile.mkdtemp()
        try:
            yield f"unix://{directory}/socket", {}, {}
        finally:
            shutil.rmtree(directory)
    elif kind in ("tls", "wss"):
        server, client = _contexts()
        yield f"{kind}://127.0.0.1:0", {"ssl_context": server}, {"ssl_context": client}
    else:
        yield f"{kind}://127.0.0.1:0", {}, {}


def free_port() -> int:
    """A port to listen at, of those that no client's end of a connection is given."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("there is no free port")
