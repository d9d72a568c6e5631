"""relays.py between real sockets: neither side knows that there is something between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.end_to_end.network import serving, until
from tests.end_to_end.test_conformance import Service
from trio_streamrpc import ConnectionLost, Limits, Transport, connect, relay
from trio_streamrpc.dialects import Dialect, kkrpc, kkrpc_classic, native
from trio_streamrpc.transports.urls import scheme_of

LIMITS = Limits()


@asynccontextmanager
async def relayed(
    front: str, back: str, bare: dict[str, Any], ended: trio.Event
) -> AsyncIterator[str]:
    """A relay for one client of that scheme after the other, to the server at ``back``."""
    scheme = scheme_of(front)
    subprotocols = {None: "json"} if bare else {"streamrpc.1.json": "json"}
    listeners, url = await scheme.listen(front)

    async def pass_on(stream: trio.abc.Stream) -> None:
        options: dict[str, Any] = {"limits": LIMITS, "subprotocols": subprotocols}
        async with scheme.accept(stream, path="", nursery=None, origins=None, **options) as here:
            assert isinstance(here, Transport)
            connecting = scheme_of(back).connect(back, encoding="json", limits=LIMITS, **bare)
            async with connecting as there:
                await relay(here, there)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, pass_on, listeners)
        yield url
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("dialect", [None, kkrpc, kkrpc_classic], ids=repr)
@pytest.mark.parametrize("back", ["ws", "tcp"])
@pytest.mark.parametrize("front", ["ws", "tcp"])
async def test_between_sockets(front: str, back: str, dialect: Dialect | None) -> None:
    service, ended = Service(), trio.Event()
    bare = {} if dialect is None else {"bare": True}
    dialects = (dialect or native,)
    with trio.fail_after(20):
        async with (
            serving(service, f"{back}://127.0.0.1:0", dialects=dialects) as server,
            relayed(f"{front}://127.0.0.1:0", server.url, bare, ended) as url,
        ):
            async with connect(url, dialect=dialect, encoding="json") as connection:
                assert await connection.call("nothing", None) is None
                async with connection.stream("waits", "first") as stream:
                    assert await stream.receive() is not None
                await until(lambda: service.ended)
                async with connection.stream("numbers", 1000) as stream:
                    assert [each async for each in stream] == list(range(1000))
            await ended.wait()
            await until(lambda: not server.connections)


async def test_a_server_that_goes(tmp_path: Any) -> None:
    """The end of the one side is the end of the other."""
    ended = trio.Event()
    with trio.fail_after(20):
        async with serving(Service(), "ws://127.0.0.1:0", dialects=(kkrpc,)) as server:
            async with relayed("ws://127.0.0.1:0", server.url, {"bare": True}, ended) as url:
                async with connect(url, dialect=kkrpc) as connection:
                    assert await connection.call("nothing", None) is None
                    await server.drain()
                    await ended.wait()
                    with pytest.raises(ConnectionLost):
                        await connection.call("nothing", None)
