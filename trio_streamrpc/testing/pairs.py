"""Both sides of a connection in one process, over memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import cattrs
import trio

from trio_streamrpc.blocks import for_block
from trio_streamrpc.client import open_connection
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import payloads_for
from trio_streamrpc.dialects.base import Dialect, Native, other
from trio_streamrpc.errors import RpcError
from trio_streamrpc.limits import Limits, checked_limits
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.runtime.connection import Connection
from trio_streamrpc.runtime.handshake import Authenticate, check_authenticate
from trio_streamrpc.runtime.interceptors import Interceptor, checked
from trio_streamrpc.runtime.options import check_metadata
from trio_streamrpc.transports.base import Transport
from trio_streamrpc.transports.memory import open_memory_transports

__all__ = ["open_between", "open_pair"]


@for_block
@asynccontextmanager
async def open_pair(
    service: object,
    *,
    encoding: Encoding = "msgpack",
    dialect: Dialect | Native | None = None,
    serving: object = None,
    interceptors: Sequence[Interceptor] = (),
    client_interceptors: Sequence[Interceptor] = (),
    authenticate: Authenticate | None = None,
    limits: Limits | None = None,
    client_limits: Limits | None = None,
    metadata: Mapping[str, Any] | None = None,
    converter: cattrs.Converter | None = None,
    mask_errors: bool = False,
) -> AsyncIterator[Connection]:
    """A connection to a service in this process, over memory and without a socket.

    ``async with open_pair(Market()) as connection``; when the block ends, both sides have.

    - ``service``, ``interceptors``, ``authenticate`` and ``mask_errors`` are the service's side's,
      as in :func:`~trio_streamrpc.serve`.
    - ``serving``, ``client_interceptors`` and ``metadata`` are the client's side's, where
      :func:`~trio_streamrpc.connect` has ``serving``, ``interceptors`` and ``metadata``.
    - ``limits`` are the service's side's, and the client's too unless it has ``client_limits`` of
      its own; ``Limits()`` by default.
    - ``encoding``, ``dialect`` and ``converter`` are the same on both sides.

    Raises :exc:`TypeError` or :exc:`ValueError` for arguments that cannot be, and what
    ``authenticate`` refuses the client with.
    """
    dialect = other(dialect)
    if dialect is not None:
        encoding = "json"
    async with open_between(
        *open_memory_transports(encoding=encoding),
        service,
        dialect=dialect,
        serving=serving,
        interceptors=interceptors,
        client_interceptors=client_interceptors,
        authenticate=authenticate,
        limits=limits,
        client_limits=client_limits,
        metadata=metadata,
        converter=converter,
        mask_errors=mask_errors,
    ) as connection:
        yield connection


@asynccontextmanager
async def open_between(
    here: Transport,
    there: Transport,
    service: object,
    *,
    dialect: Dialect | Native | None = None,
    serving: object,
    interceptors: Sequence[Interceptor],
    client_interceptors: Sequence[Interceptor],
    authenticate: Authenticate | None = None,
    limits: Limits | None,
    client_limits: Limits | None,
    metadata: Mapping[str, Any] | None,
    converter: cattrs.Converter | None,
    mask_errors: bool,
) -> AsyncIterator[Connection]:
    """The same over two ends of any transport; the service is at the second one."""
    # What is wrong with the arguments is told here, and not by both sides at once.
    MethodTable.of(service)
    check_metadata(metadata, payloads_for(here.encoding, converter))
    limits = checked_limits(limits)
    client_limits = limits if client_limits is None else checked_limits(client_limits)
    check_authenticate(authenticate)
    interceptors, client_interceptors = checked(interceptors), checked(client_interceptors)
    async with open_background_nursery() as nursery:
        served = trio.Event()

        async def run_service(transport: Transport) -> None:
            try:
                async with open_connection(
                    transport,
                    "accepting",
                    dialect=dialect,
                    serving=service,
                    limits=limits,
                    interceptors=interceptors,
                    authenticate=authenticate,
                    converter=converter,
                    mask_errors=mask_errors,
                ) as connection:
                    await connection.wait_closed()
            except RpcError:
                # The handshake failed; the client's side tells how.
                pass
            finally:
                served.set()

        nursery.start_soon(run_service, there)
        try:
            async with open_connection(
                here,
                dialect=dialect,
                serving=serving,
                limits=client_limits,
                interceptors=client_interceptors,
                metadata=metadata,
                converter=converter,
                mask_errors=mask_errors,
            ) as connection:
                yield connection
        finally:
            with trio.CancelScope(shield=True):
                # Where it has not come to a connection, the other side would wait for its hello.
                await trio.aclose_forcefully(here)
                await served.wait()
