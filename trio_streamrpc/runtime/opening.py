"""The block that owns a connection, and the nursery that its tasks live in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, Unpack

from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.runtime.connection import Connection, Speak
from trio_streamrpc.runtime.keepalive import Keepalive
from trio_streamrpc.transports.base import close_by_force

if TYPE_CHECKING:
    from types import TracebackType

    import trio

    from trio_streamrpc.contract.methods import MethodTable
    from trio_streamrpc.contract.payloads import Payloads
    from trio_streamrpc.limits import Limits
    from trio_streamrpc.protocol.endpoint import Side
    from trio_streamrpc.runtime.handshake import Authenticate
    from trio_streamrpc.runtime.interceptors import Interceptor
    from trio_streamrpc.transports.base import Transport

__all__ = ["run_connection", "run_in"]


class Options(TypedDict):
    """What a :class:`Connection` is made with."""

    table: MethodTable | None
    payloads: Payloads
    limits: Limits
    metadata: NotRequired[Mapping[str, Any]]
    mask_errors: NotRequired[bool]
    interceptors: NotRequired[Sequence[Interceptor]]
    speak: NotRequired[Speak | None]
    authenticate: NotRequired[Authenticate | None]
    since: NotRequired[float | None]


@asynccontextmanager
async def run_connection(
    transport: Transport, side: Side, **options: Unpack[Options]
) -> AsyncIterator[Connection]:
    """Run a connection over a transport for as long as the block lasts.

    Its block begins when both sides have said hello. ``authenticate`` decides before that whether
    the side that connects is let in; the greeting is to be over in time, counted from ``since``.
    """
    if transport.nursery is not None:
        async with run_in(transport.nursery, transport, side, **options) as connection:
            yield connection
        return
    async with (
        open_background_nursery() as nursery,
        run_in(nursery, transport, side, **options) as connection,
    ):
        yield connection


class run_in:  # noqa: N801  # it is called like a function
    """As :func:`run_connection`, in that nursery, which has to last longer than the block.

    ``keepalive`` is what looks after the connection, if it has none of its own.
    """

    # No generator: one that is held open costs a good part of what an idle connection may take.

    __slots__ = ("_connection", "_keepalive", "_nursery", "_options", "_side", "_transport")

    def __init__(
        self,
        nursery: trio.Nursery,
        transport: Transport,
        side: Side,
        *,
        keepalive: Keepalive | None = None,
        **options: Unpack[Options],
    ) -> None:
        self._nursery = nursery
        self._transport = transport
        self._side: Side = side
        self._keepalive = keepalive
        self._options: Options | None = options
        self._connection: Connection | None = None

    async def __aenter__(self) -> Connection:
        options, self._options = self._options, None
        assert options is not None
        try:
            connection = Connection(self._transport, self._side, self._nursery, **options)
        except BaseException:
            # The other side shall not wait for a hello that will not come.
            await close_by_force(self._transport)
            raise
        self._connection = connection
        connection.start()
        try:
            await connection.greeting.wait()
        except BaseException as error:
            await connection.finish(error)
            raise
        if self._keepalive is None:
            self._keepalive = Keepalive()
            self._nursery.start_soon(self._keepalive.run, name="streamrpc keepalive")
        self._keepalive.watch(connection)
        return connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._connection is not None
        assert self._keepalive is not None
        try:
            await self._connection.finish(error)
        finally:
            self._keepalive.forget(self._connection)
