"""client.py: connect() and open_connection(), and what they do with their arguments."""

from __future__ import annotations

import functools
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.end_to_end.network import serving, until
from tests.service import Service
from trio_streamrpc import (
    Connection,
    ConnectionLost,
    Limits,
    RemoteProtocolError,
    RpcError,
    Unavailable,
    connect,
    connect_process,
    current_call,
    open_connection,
    rpc,
    serve,
)
from trio_streamrpc.testing import open_pair, simulate
from trio_streamrpc.transports.memory import open_memory_transports
from trio_streamrpc.transports.websocket import accept_websocket


class Told(Service):
    @rpc
    async def told(self) -> dict[str, Any]:
        call = current_call()
        return {"metadata": dict(call.metadata), "token": call.headers.get("x-token")}


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_connect(encoding: Any) -> None:
    """R3: in the encoding that was asked for."""
    async with serving(Told()) as server:
        async with connect(
            server.url,
            encoding=encoding,
            metadata={"who": "me"},
            headers={"X-Token": "secret"},
            serving=Service(),
        ) as connection:
            assert isinstance(connection, Connection)
            assert connection.transport.encoding == encoding
            assert server.url.endswith(connection.remote)
            assert "server" not in connection.headers
            assert await connection.call("told") == {
                "metadata": {"who": "me"},
                "token": "secret",
            }
            assert await connection.call("add_there", 1, 2) == 3
            statistics = connection.statistics()
            assert (statistics.calls_open, statistics.handlers_running) == (0, 0)


async def test_a_side_that_serves_nothing_has_no_methods() -> None:
    async with serving(Service()) as server, connect(server.url) as connection:
        with pytest.raises(RpcError):
            await connection.call("add_there", 1, 2)


async def test_limits_are_announced() -> None:
    """R26."""
    async with serving(Service(), limits=Limits(max_calls=3)) as server:
        async with connect(server.url, limits=Limits(max_calls=5)) as connection:
            assert connection.endpoint.peer.max_calls == 3
            [there] = server.connections
            assert there.endpoint.peer.max_calls == 5


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"encoding": "xml"}, ValueError),
        ({"serving": object()}, TypeError),
        ({"headers": {"a b": "c"}}, ValueError),
        ({"interceptors": 1}, TypeError),
    ],
)
async def test_arguments_that_cannot_be(options: Any, kind: type[Exception]) -> None:
    """They are told before anything is opened: nobody listens at that address."""
    with pytest.raises(kind):
        async with connect("ws://127.0.0.1:1", **options):
            pytest.fail("the block must not begin")


#: What is easily given, and what is said of it.
MISTAKES = [
    (
        {"limits": {"max_calls": 5}},
        r"^limits must be a Limits, not {'max_calls': 5}: Limits\(max_calls=5\)",
    ),
    ({"limits": {"max calls": 5}}, r"^limits must be a Limits, not {'max calls': 5}"),
    ({"limits": {}}, r"^limits must be a Limits, not {}"),
    ({"limits": 5}, r"^limits must be a Limits, not 5"),
    ({"metadata": ["token"]}, r"^metadata must be a mapping, not \['token'\]"),
    ({"metadata": "token"}, r"^metadata must be a mapping, not 'token'"),
    ({"metadata": [("token", "x")]}, r"^metadata must be a mapping, not \[\('token', 'x'\)\]"),
    ({"metadata": {1: 2}}, r"^the names in metadata must be strings"),
]


@pytest.mark.parametrize(("options", "said"), MISTAKES)
async def test_mistakes_are_told_before_anything_is_opened(
    options: Any, said: str, autojump_clock: MockClock
) -> None:
    here, _ = open_memory_transports()
    for opening in (
        connect("ws://127.0.0.1:1", **options),
        connect_process(["/nowhere/at/all"], **options),
        open_connection(here, **options),
        open_connection(memory_stream_pair()[0], **options),
        open_pair(Service(), **options),
        simulate(Service(), **options),
    ):
        with pytest.raises(TypeError, match=said):
            async with opening:
                pytest.fail("the block must not begin")


async def test_metadata_that_cannot_be_encoded(autojump_clock: MockClock) -> None:
    """It is told before anything is opened, where that is not what was given."""
    options: Any = {"metadata": {"x": object()}}
    here, there = open_memory_transports()
    for opening in (
        connect("ws://127.0.0.1:1", **options),
        connect_process(["/nowhere/at/all"], **options),
        open_connection(here, **options),
        open_pair(Service(), **options),
        simulate(Service(), **options),
    ):
        with pytest.raises(TypeError, match=r"^the metadata cannot be encoded: "):
            async with opening:
                pytest.fail("the block must not begin")
    with pytest.raises(ConnectionLost):
        await there.receive()


async def test_what_is_no_url() -> None:
    url: Any = Path("/somewhere")
    with pytest.raises(TypeError, match=r"^a URL is a string, not .*Path\('/somewhere'\)$"):
        async with connect(url):
            pytest.fail("the block must not begin")
    with pytest.raises(TypeError, match=r"^a URL is a string, not "):
        await serve(Service(), url)


async def test_nobody_is_there() -> None:
    with pytest.raises(Unavailable) as caught:
        async with connect("ws://127.0.0.1:1"):
            pytest.fail("the block must not begin")
    assert not isinstance(caught.value, ConnectionLost)


async def test_a_name_that_is_no_hosts() -> None:
    for url in ("ws://" + "a" * 70, "ws://a..b"):
        with pytest.raises((Unavailable, ValueError)):
            async with connect(url):
                pytest.fail("the block must not begin")


async def test_a_server_that_says_no_hello() -> None:
    """R25: within handshake_timeout, though it has shaken hands."""

    async def serve_silently(stream: trio.abc.Stream) -> None:
        async with accept_websocket(stream, path="/", limits=Limits()) as transport:
            assert transport is not None
            try:
                while True:
                    await transport.receive()
            except ConnectionLost:
                pass

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(
            functools.partial(trio.serve_tcp, serve_silently, 0, host="127.0.0.1")
        )
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        with pytest.raises(RemoteProtocolError, match=r"no hello within 1.5 s"):
            async with connect(url, limits=Limits(handshake_timeout=1.5)):
                pytest.fail("the block must not begin")
        nursery.cancel_scope.cancel()


async def test_open_connection(autojump_clock: MockClock) -> None:
    """Over any transport, one side connecting and one accepting."""
    here, there = open_memory_transports()

    async def accept() -> None:
        async with open_connection(there, "accepting", serving=Told()) as connection:
            await connection.wait_closed()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        async with open_connection(here, metadata={"k": 1}) as connection:
            assert (await connection.call("told"))["metadata"] == {"k": 1}
    with pytest.raises(ConnectionLost):
        await here.send(b"x")


async def test_cancelled_at_every_point() -> None:
    """Nothing but Cancelled comes out, and the server is done with the client."""
    async with serving(Service()) as server:
        done = 0
        for ticks in range(0, 60, 3):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def cancel(scope: trio.CancelScope, ticks: int) -> None:
                        for _ in range(ticks):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(cancel, scope, ticks)
                    async with connect(server.url) as connection:
                        while True:
                            assert await connection.call("add", 1, 2) == 3
                            done += 1
            assert scope.cancelled_caught
        assert done > 0
        await until(lambda: not server.connections)


@pytest.mark.parametrize("transport", [None, object(), socket, "tcp://127.0.0.1:1"])
async def test_what_is_no_transport(transport: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a Transport or a trio\.abc\.Stream"):
        async with open_connection(transport):
            pytest.fail("the block must not begin")


async def test_a_side_that_there_is_not(autojump_clock: MockClock) -> None:
    """It is told at once, and nothing is said or closed."""
    side: Any = "foo"
    theirs, ours = memory_stream_pair()
    for transport in (ours, open_memory_transports()[0]):
        with pytest.raises(ValueError, match="side must be"):
            async with open_connection(transport, side):
                pytest.fail("the block must not begin")
    await ours.send_all(b"x")
    assert await theirs.receive_some() == b"x"
