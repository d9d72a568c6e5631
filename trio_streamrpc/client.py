"""Connecting to a service, over a URL or over any transport."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import cattrs
import trio

from trio_streamrpc.blocks import for_block
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import payloads_for
from trio_streamrpc.dialects.base import Dialect, Native, other, speech
from trio_streamrpc.limits import Limits, checked_limits
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.endpoint import Side
from trio_streamrpc.runtime.connection import Connection
from trio_streamrpc.runtime.handshake import Authenticate, check_authenticate
from trio_streamrpc.runtime.interceptors import Interceptor, checked
from trio_streamrpc.runtime.opening import run_connection
from trio_streamrpc.runtime.options import check_metadata
from trio_streamrpc.transports.base import Transport
from trio_streamrpc.transports.urls import open_lines, open_stream, scheme_of

__all__ = ["connect", "open_connection"]


@for_block
@asynccontextmanager
async def connect(
    url: str,
    *,
    encoding: Encoding = "msgpack",
    dialect: Dialect | Native | None = None,
    serving: object = None,
    limits: Limits | None = None,
    interceptors: Sequence[Interceptor] = (),
    metadata: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    ssl_context: ssl_module.SSLContext | None = None,
    converter: cattrs.Converter | None = None,
    mask_errors: bool = False,
) -> AsyncIterator[Connection]:
    """Connect to the service at a URL: ``async with connect(url) as connection``.

    The block begins when the other side has said hello, where its wire has one. Leaving it ends
    what still runs on either side, and waits for the other side at most ``limits.close_timeout``
    seconds. Handlers of ``serving`` that clean up for longer are waited for as long as they take:
    none is left behind.

    - ``url``: ``ws://host:port/path``, ``wss://…``, ``tcp://host:port``, ``tls://host:port`` or
      ``unix:///path/of/the/socket``.
    - ``encoding``: how values travel, ``"msgpack"`` or ``"json"``.
    - ``dialect``: another system's wire, of those in :mod:`trio_streamrpc.dialects`, whose encoding
      is its own; by default this library's.
    - ``serving``: a service that the other side may call back; none by default.
    - ``limits``: what is accepted from the other side, and how long is waited; ``Limits()`` by
      default.
    - ``interceptors``: what stands around every call that is made here, the first outermost.
    - ``metadata``: a mapping of names to values that all calls are sent with, and that
      ``authenticate`` is shown on the other side.
    - ``headers``: what goes with the handshake of a WebSocket; other transports have none.
    - ``ssl_context``: for ``wss`` and ``tls``, which verify the server as
      ``ssl.create_default_context()`` does where none is given.
    - ``converter``: a ``cattrs`` converter for types that msgspec does not know.
    - ``mask_errors``: whether unexpected exceptions in handlers of ``serving`` are kept from the
      other side, as in :func:`serve`.

    Raises :exc:`Unavailable` if nobody answers at the URL or this side is refused (what
    ``authenticate`` has raised there comes as itself: :exc:`Unauthenticated`,
    :exc:`PermissionDenied`), and :exc:`TypeError` or :exc:`ValueError` for arguments that cannot
    be, before anything is opened.
    """
    limits = checked_limits(limits)
    bare = {}
    dialect = other(dialect)
    if dialect is not None:
        limits, encoding, bare = dialect.limits(limits), "json", {"bare": True}
    # What is wrong with the arguments is told before anything is opened.
    payloads = payloads_for(encoding, converter)
    check_metadata(metadata, payloads)
    table = None if serving is None else MethodTable.of(serving)
    interceptors = checked(interceptors)
    scheme = scheme_of(url)
    async with (
        scheme.connect(
            url, encoding=encoding, limits=limits, headers=headers, ssl_context=ssl_context, **bare
        ) as transport,
        run_connection(
            transport,
            "connecting",
            table=table,
            payloads=payloads,
            limits=limits,
            metadata=metadata or {},
            mask_errors=mask_errors,
            interceptors=interceptors,
            speak=speech(dialect),
        ) as connection,
    ):
        yield connection


@for_block
@asynccontextmanager
async def open_connection(
    transport: Transport | trio.abc.Stream,
    side: Side = "connecting",
    *,
    encoding: Encoding | None = None,
    dialect: Dialect | Native | None = None,
    serving: object = None,
    limits: Limits | None = None,
    interceptors: Sequence[Interceptor] = (),
    authenticate: Authenticate | None = None,
    metadata: Mapping[str, Any] | None = None,
    converter: cattrs.Converter | None = None,
    mask_errors: bool = False,
) -> AsyncIterator[Connection]:
    """Run a connection over a transport, or over any byte stream.

    One side of it connects, the other accepts. The transport, or the stream, is closed when the
    block ends. The arguments are those of :func:`connect`, and:

    - ``transport``: a :class:`Transport`, or a ``trio.abc.Stream``.
    - ``side``: ``"connecting"`` or ``"accepting"``.
    - ``encoding``: for a stream what the connecting side chooses, ``"msgpack"`` by default; an
      accepting side takes what the other has chosen, unless it names one. A transport has its own.
    - ``dialect``: over a stream it has a message to a line.
    - ``interceptors``: what stands around the calls that the connecting side makes, or around those
      that the accepting side serves.
    - ``authenticate``: for the accepting side, as in :func:`serve`; the block of one that refuses
      the other side raises what it was refused with.

    What was sent last arrives though the other side still sends, on sockets and on whatever else
    is a ``trio.abc.HalfCloseableStream``. An ``SSLStream`` over a ``SocketStream`` has no such end:
    its socket may be reset, and the last messages be lost with that; :func:`connect` and
    :func:`serve` have it for ``tls://``.

    Raises :exc:`TypeError` for what is neither a transport nor a stream, :exc:`ValueError` for
    another ``side``, or another ``encoding`` than the transport's, :exc:`Unavailable` if the other
    side of a stream is no server of streamrpc, and :exc:`RemoteProtocolError` if it is no client.
    """
    if not isinstance(transport, Transport | trio.abc.Stream):
        raise TypeError(f"{transport!r} must be a Transport or a trio.abc.Stream")
    if side not in ("connecting", "accepting"):
        raise ValueError(f'side must be "connecting" or "accepting", not {side!r}')
    check_authenticate(authenticate)
    if authenticate is not None and side == "connecting":
        raise ValueError("authenticate is for the accepting side")
    limits = checked_limits(limits)
    interceptors = checked(interceptors)
    opened: AbstractAsyncContextManager[Transport]
    dialect = other(dialect)
    if dialect is not None:
        limits, encoding = dialect.limits(limits), "json"
    if isinstance(transport, Transport):
        if encoding not in (None, transport.encoding):
            raise ValueError(f"encoding is {encoding!r}, the transport's {transport.encoding!r}")
        encoding = transport.encoding
        opened = nullcontext(transport)
    elif dialect is not None:
        opened = open_lines(transport, limits=limits)
    else:
        opened = open_stream(transport, side, encoding=encoding, limits=limits)
    # What is wrong with the arguments is told before anything is said.
    check_metadata(metadata)
    payloads_for(encoding or "msgpack", converter)
    table = None if serving is None else MethodTable.of(serving)
    async with (
        opened as ready,
        run_connection(
            ready,
            side,
            table=table,
            payloads=payloads_for(ready.encoding, converter),
            limits=limits,
            metadata=metadata or {},
            mask_errors=mask_errors,
            interceptors=interceptors,
            speak=speech(dialect),
            authenticate=authenticate,
        ) as connection,
    ):
        yield connection
