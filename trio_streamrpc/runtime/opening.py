"""The block that owns a connection, and the nursery that its tasks live in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.runtime.calls import EMPTY
from trio_streamrpc.runtime.connection import Connection
from trio_streamrpc.transports.base import close_by_force

if TYPE_CHECKING:
    from trio_streamrpc.contract.methods import MethodTable
    from trio_streamrpc.contract.payloads import Payloads
    from trio_streamrpc.limits import Limits
    from trio_streamrpc.protocol.endpoint import Side
    from trio_streamrpc.runtime.handshake import Authenticate
    from trio_streamrpc.runtime.interceptors import Interceptor
    from trio_streamrpc.transports.base import Transport

__all__ = ["run_connection"]


@asynccontextmanager
async def run_connection(
    transport: Transport,
    side: Side,
    *,
    table: MethodTable | None,
    payloads: Payloads,
    limits: Limits,
    metadata: Mapping[str, Any] = EMPTY,
    mask_errors: bool = False,
    interceptors: Sequence[Interceptor] = (),
    authenticate: Authenticate | None = None,
    since: float | None = None,
) -> AsyncIterator[Connection]:
    """Run a connection over a transport for as long as the block lasts.

    Its block begins when both sides have said hello. ``authenticate`` decides before that whether
    the side that connects is let in; the greeting is to be over in time, counted from ``since``.
    """
    own = open_background_nursery() if transport.nursery is None else nullcontext(transport.nursery)
    async with own as nursery:
        try:
            connection = Connection(
                transport,
                side,
                nursery,
                table=table,
                payloads=payloads,
                limits=limits,
                metadata=metadata,
                mask_errors=mask_errors,
                interceptors=interceptors,
                authenticate=authenticate,
                since=since,
            )
        except BaseException:
            # The other side shall not wait for a hello that will not come.
            await close_by_force(transport)
            raise
        connection.start()
        try:
            await connection.greeting.wait()
            yield connection
        except BaseException as error:
            await connection.finish(error)
            raise
        else:
            await connection.finish(None)
