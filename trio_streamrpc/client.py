"""Connecting to a service, over a URL or over any transport."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import cattrs

from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import payloads_for
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.endpoint import Side
from trio_streamrpc.runtime.connection import Connection
from trio_streamrpc.runtime.interceptors import Interceptor, checked
from trio_streamrpc.runtime.opening import run_connection
from trio_streamrpc.transports.base import Transport
from trio_streamrpc.transports.urls import scheme_of

__all__ = ["connect", "open_connection"]


@asynccontextmanager
async def connect(
    url: str,
    *,
    encoding: Encoding = "msgpack",
    serving: object = None,
    limits: Limits | None = None,
    interceptors: Sequence[Interceptor] = (),
    metadata: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    ssl_context: ssl_module.SSLContext | None = None,
    converter: cattrs.Converter | None = None,
    mask_errors: bool = False,
) -> AsyncIterator[Connection]:
    """Connect to the service at a URL; the connection is closed when the block ends.

    The block begins when the other side has said hello. ``serving`` is a service that the other
    side may call back; ``metadata`` is what all calls are sent with, ``headers`` go with the
    handshake. ``interceptors`` stand around every call that is made here, the first outermost.
    Raises :exc:`Unavailable` if nobody answers at the URL or it is refused, and
    :exc:`ValueError` for a URL or an option that cannot be.

    Leaving the block ends what still runs on either side, and waits for the other side at most
    ``limits.close_timeout`` seconds. Handlers of ``serving`` that clean up for longer are waited
    for as long as they take: none is left behind.
    """
    limits = limits or Limits()
    # What is wrong with the arguments is told before anything is opened.
    payloads = payloads_for(encoding, converter)
    table = None if serving is None else MethodTable.of(serving)
    scheme = scheme_of(url)
    async with (
        scheme.connect(
            url, encoding=encoding, limits=limits, headers=headers, ssl_context=ssl_context
        ) as transport,
        run_connection(
            transport,
            "connecting",
            table=table,
            payloads=payloads,
            limits=limits,
            metadata=metadata or {},
            mask_errors=mask_errors,
            interceptors=checked(interceptors),
        ) as connection,
    ):
        yield connection


@asynccontextmanager
async def open_connection(
    transport: Transport,
    side: Side = "connecting",
    *,
    serving: object = None,
    limits: Limits | None = None,
    interceptors: Sequence[Interceptor] = (),
    metadata: Mapping[str, Any] | None = None,
    converter: cattrs.Converter | None = None,
    mask_errors: bool = False,
) -> AsyncIterator[Connection]:
    """Run a connection over a transport; one side of it connects, the other accepts.

    The arguments are those of :func:`connect`; ``interceptors`` stand around the calls that the
    connecting side makes, or around those that the accepting side serves. The transport is closed
    when the block ends.
    """
    async with run_connection(
        transport,
        side,
        table=None if serving is None else MethodTable.of(serving),
        payloads=payloads_for(transport.encoding, converter),
        limits=limits or Limits(),
        metadata=metadata or {},
        mask_errors=mask_errors,
        interceptors=checked(interceptors),
    ) as connection:
        yield connection
