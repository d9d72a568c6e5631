"""server.py: serve(), the accept loop, and one guarded task for each connection."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.end_to_end.network import until
from tests.service import Service
from tests.transports.rawsocket import RawSocket
from trio_streamrpc import Limits, RemoteError, RpcError, connect, rpc, serve
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.server import Server
from trio_streamrpc.transports.urls import scheme_of


async def double(value: int) -> int:
    return 2 * value


async def test_serve() -> None:
    service = Service()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, service, "ws://127.0.0.1:0")
        assert isinstance(server, Server)
        port = int(server.url.removeprefix("ws://127.0.0.1:"))
        assert port > 0
        assert repr(server) == f"<Server at {server.url}>"
        assert server.connections == frozenset()
        async with connect(server.url) as connection:
            assert await connection.call("add", 1, 2) == 3
            [there] = server.connections
            assert there.remote.startswith("127.0.0.1:")
            async with connect(server.url):
                assert len(server.connections) == 2
            await until(lambda: len(server.connections) == 1)
        nursery.cancel_scope.cancel()
    assert server.connections == frozenset()
    with pytest.raises(OSError, match=r"."):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_a_mapping_is_served() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, {"math": {"double": double}}, "ws://127.0.0.1:0/")
        async with connect(server.url) as connection:
            assert await connection.api.math.double(21) == 42
        nursery.cancel_scope.cancel()


async def test_a_port_that_is_taken() -> None:
    """OSError, as Trio has it, and in no group."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, Service(), "ws://127.0.0.1:0")
        with pytest.raises(OSError, match="in use"):
            await serve(Service(), server.url)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("service", "url", "kind"),
    [
        (object(), "ws://127.0.0.1:0", TypeError),
        ({}, "ws://127.0.0.1:0", TypeError),
        (Service(), "http://127.0.0.1:0", ValueError),
        (Service(), "wss://127.0.0.1:0", ValueError),
    ],
)
async def test_what_cannot_be_served(service: Any, url: str, kind: type[Exception]) -> None:
    with trio.move_on_after(5):
        with pytest.raises(kind):
            await serve(service, url)
        return
    pytest.fail("it is served")


async def test_cancelled_at_every_point() -> None:
    """No listener is left open: the port can be had again at once."""
    [probe] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = probe.socket.getsockname()[1]
    await probe.aclose()
    for ticks in range(12):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel(scope: trio.CancelScope, ticks: int) -> None:
                    for _ in range(ticks):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel, scope, ticks)
                await serve(Service(), f"ws://127.0.0.1:{port}")
        assert scope.cancelled_caught
        [listener] = await trio.open_tcp_listeners(port, host="127.0.0.1")
        await listener.aclose()


async def serve_and_keep(
    service: object, raised: list[BaseException], task_status: trio.TaskStatus[Server]
) -> None:
    try:
        await serve(service, "ws://127.0.0.1:0", task_status=task_status)
    except BaseException as error:
        raised.append(error)


async def test_an_interrupt_comes_out_alone() -> None:
    for kind in (KeyboardInterrupt, SystemExit):

        class Interrupted:
            @rpc
            async def interrupt(self) -> None:
                raise kind  # noqa: B023

        raised: list[BaseException] = []

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_and_keep, Interrupted(), raised)
            async with connect(server.url) as connection:
                with pytest.raises(RpcError):
                    await connection.call("interrupt")
        assert [type(error) for error in raised] == [kind]


async def test_errors_can_be_masked(caplog: pytest.LogCaptureFixture) -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda **k: serve(Service(), "ws://127.0.0.1:0", mask_errors=True, **k)
        )
        async with connect(server.url) as connection:
            with pytest.raises(RpcError) as caught:
                await connection.call("fail", "a secret")
            assert "secret" not in str(caught.value)
            assert not isinstance(caught.value, RemoteError)
        nursery.cancel_scope.cancel()
    assert "a secret" in caplog.text


# --- one connection, over a stream in memory


def made(service: object, **options: Any) -> Server:
    url = "ws://h:1"
    limits = Limits(handshake_timeout=3, cleanup=1)
    return Server(MethodTable.of(service), scheme_of(url), url, limits, None, False)


async def test_handle(autojump_clock: MockClock) -> None:
    service = Service()
    server = made(service)
    theirs, ours = memory_stream_pair()
    async with open_background_nursery() as nursery:
        nursery.start_soon(server.handle, ours)
        client = RawSocket(theirs)
        await client.greets()
        [connection] = server.connections
        assert connection.remote == "?"
        await client.says({"type": "call", "id": 1, "method": "wait"})
        await service.wait_running()
        await theirs.aclose()
        await service.wait_ended()
        await trio.testing.wait_all_tasks_blocked()
        assert server.connections == frozenset()


@pytest.mark.parametrize("data", [b"", b"garbage\r\n\r\n"])
async def test_a_stream_that_is_no_client(
    data: bytes, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """R25: it is closed, in time, and the log is not filled with it."""
    theirs, ours = memory_stream_pair()
    if data:
        await theirs.send_all(data)
    await made(Service()).handle(ours)
    assert trio.current_time() <= 3
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"x")
    assert caplog.records == []


async def test_a_client_that_says_no_hello(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """R25: a note in the log."""
    caplog.set_level(logging.INFO, "trio_streamrpc")
    theirs, ours = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made(Service()).handle, ours)
        await RawSocket(theirs).shake_hands()
    assert caplog.messages == ["a client was refused: no hello within 3 s"]


async def test_a_fault_of_ours_ends_one_connection(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = made(Service())
    monkeypatch.setattr(server, "_payloads", {})
    theirs, ours = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, ours)
        await RawSocket(theirs).shake_hands()
    assert caplog.messages == ["a connection failed"]
