"""server.py: serve(), the accept loop, and one guarded task for each connection."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.end_to_end.network import until
from tests.service import Service
from tests.transports.rawsocket import RawSocket
from trio_streamrpc import (
    Call,
    ConnectionLost,
    Limits,
    Proceed,
    RemoteError,
    RpcError,
    Unavailable,
    Unimplemented,
    connect,
    rpc,
    serve,
)
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.server import Server, Serving
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


@pytest.mark.parametrize("limits", [{"max_calls": 5}, {}, 5])
async def test_limits_that_are_none(limits: Any) -> None:
    with pytest.raises(TypeError, match=r"^limits must be a Limits, not "):
        await serve(Service(), "ws://127.0.0.1:0", limits=limits)


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "unix://{}/s"])
async def test_what_is_wrong_is_told_before_anything_listens(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = listeners_that_open(monkeypatch)
    with pytest.raises(TypeError):
        await serve(Service(), url.format(tmp_path), converter=object())  # type: ignore[arg-type]
    assert not opened
    assert os.listdir(tmp_path) == []


async def test_an_accept_loop_that_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left that listens, nor its file."""

    async def fail(*args: Any, **options: Any) -> None:
        raise OSError("no loop")

    opened = listeners_that_open(monkeypatch)
    monkeypatch.setattr(trio, "serve_listeners", fail)
    for url in ("tcp://127.0.0.1:0", f"unix://{tmp_path}/s"):
        with pytest.raises(OSError, match="no loop"):
            await serve(Service(), url)
    assert len(opened) == 2
    assert all(each.socket.fileno() == -1 for each in opened)
    assert os.listdir(tmp_path) == []


async def test_an_ssl_context_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = listeners_that_open(monkeypatch)
    for url in ("tls://127.0.0.1:0", "wss://127.0.0.1:0"):
        with pytest.raises(TypeError, match="SSLContext"):
            await serve(Service(), url, ssl_context=object())  # type: ignore[arg-type]
    assert not opened


def listeners_that_open(monkeypatch: pytest.MonkeyPatch) -> list[trio.SocketListener]:
    """Every listener on a socket that is made from now on."""
    opened: list[trio.SocketListener] = []
    initialize = trio.SocketListener.__init__

    def remember(self: trio.SocketListener, socket: trio.socket.SocketType) -> None:
        initialize(self, socket)
        opened.append(self)

    monkeypatch.setattr(trio.SocketListener, "__init__", remember)
    return opened


async def test_a_port_that_is_taken() -> None:
    """OSError, as Trio has it, and in no group."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, Service(), "ws://127.0.0.1:0")
        with pytest.raises(OSError, match="in use") as caught:
            await serve(Service(), server.url)
        assert caught.value.__notes__ == [f"listening at {server.url}"]
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


def made(service: object, **options: Any) -> Serving:
    url = "ws://h:1"
    limits = Limits(handshake_timeout=3, cleanup=1)
    return Serving(MethodTable.of(service), scheme_of(url), url, limits, None, False, ())


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


class Work:
    """What takes until it is told to end."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.finish = trio.Event()
        self.finished = 0

    @rpc
    async def job(self) -> str:
        self.started.set()
        await self.finish.wait()
        self.finished += 1
        return "done"

    @rpc
    async def numbers(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
        self.finished += 1

    @rpc
    async def now(self) -> str:
        return "now"


async def test_a_drain_between_calls() -> None:
    """R27: nobody is cut, nobody new is taken, and serve() returns."""
    returned = trio.Event()

    async def serving(task_status: Any) -> None:
        await serve(Work(), "ws://127.0.0.1:0", task_status=task_status)
        returned.set()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serving)
        async with connect(server.url) as connection:
            assert await connection.call("now") == "now"
            await server.drain()
            assert server.connections == frozenset()
            with pytest.raises((Unavailable, ConnectionLost)):
                await connection.call("now")
        with trio.fail_after(5):
            await returned.wait()
        with pytest.raises(Unavailable, match="cannot connect"):
            async with connect(server.url):
                pass


async def test_a_drain_in_the_middle_of_a_call_and_a_stream() -> None:
    """R27: what runs goes on to its end; what is new may be sent elsewhere."""
    work = Work()
    answers: list[str] = []
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, work, "ws://127.0.0.1:0")
        async with connect(server.url) as connection:

            async def call() -> None:
                answers.append(await connection.call("job"))

            async with trio.open_nursery() as calls:
                calls.start_soon(call)
                await work.started.wait()
                async with connection.stream("numbers", 1000) as stream:
                    taken = [await stream.receive() for _ in range(10)]
                    calls.start_soon(server.drain)
                    await until(lambda: connection.endpoint.peer_drains)
                    with pytest.raises(Unavailable) as refused:
                        await connection.call("now")
                    assert refused.value.retry
                    taken += [item async for item in stream]
                assert taken == list(range(1000))
                work.finish.set()
    assert answers == ["done"]
    assert work.finished == 2


async def test_a_drain_that_is_bounded() -> None:
    """Given up and cancelled: the handlers are asked to stop, as without a drain."""
    work = Work()
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, work, "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            async with trio.open_nursery() as calls:

                async def call() -> None:
                    with pytest.raises((Unavailable, ConnectionLost)):
                        await connection.call("job")

                calls.start_soon(call)
                await work.started.wait()
                with trio.move_on_after(0.05) as patience:
                    await server.drain()
                assert patience.cancelled_caught
                nursery.cancel_scope.cancel()
    assert work.finished == 0


async def test_a_client_that_arrives_during_a_drain() -> None:
    """It was accepted before, and greets after: it is let go, and nothing is run for it."""
    work = Work()
    # The raw client does not answer the goodbye.
    serving = partial(serve, limits=Limits(close_timeout=0.1))
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serving, work, "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            async with trio.open_nursery() as calls:
                calls.start_soon(connection.call, "job")
                await work.started.wait()
                host, port = server.url.removeprefix("ws://").split(":")
                stream = await trio.open_tcp_stream(host, int(port))
                raw = RawSocket(stream)
                await raw.shake_hands()
                calls.start_soon(server.drain)
                await until(lambda: connection.endpoint.peer_drains)
                await raw.says({"type": "hello", "version": 1})
                assert (await raw.hears("hello"))["version"] == 1
                await raw.hear_the_end()
                await stream.aclose()
                work.finish.set()
    assert work.finished == 1


# --- reflection


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_a_service_that_tells_what_it_has(encoding: Any) -> None:
    """Interceptors see the call like any other."""
    seen: list[str] = []

    async def note(call: Call, proceed: Proceed) -> Any:
        seen.append(call.method)
        return await proceed(call)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(serve, Service(), "ws://127.0.0.1:0", reflection=True, interceptors=[note])
        )
        async with connect(server.url, encoding=encoding) as connection:
            found = await connection.call("streamrpc.describe")
            assert found == await connection.api.streamrpc.describe()
        nursery.cancel_scope.cancel()
    kinds = {each["name"]: each["kind"] for each in found["methods"]}
    assert kinds["add"] == "unary"
    assert kinds["count"] == "server stream"
    assert kinds["streamrpc.describe"] == "unary"
    assert seen == ["streamrpc.describe"] * 2


async def test_what_a_service_has_is_not_told_by_default() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, {"double": double}, "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            with pytest.raises(Unimplemented):
                await connection.call("streamrpc.describe")
        nursery.cancel_scope.cancel()


async def test_a_namespace_of_reflections_name() -> None:
    service = {"streamrpc": {"double": double}}
    with pytest.raises(TypeError, match="'streamrpc' of its own"):
        await serve(service, "ws://127.0.0.1:0", reflection=True)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, service, "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            assert await connection.call("streamrpc.double", 2) == 4
        nursery.cancel_scope.cancel()
