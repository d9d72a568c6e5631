"""sockets.py: a close that loses nothing, and who is at the other end."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.addresses import address, client_context, server_context
from tests.end_to_end.network import serving
from tests.service import Service
from tests.transports.test_bytestream import framed
from trio_streamrpc import connect
from trio_streamrpc.errors import ConnectionLost, RpcError, Unavailable
from trio_streamrpc.limits import Limits
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.transports.base import Transport
from trio_streamrpc.transports.bytestream import ByteStreamTransport, accept_stream, open_stream
from trio_streamrpc.transports.sockets import (
    OrderlyStream,
    _agree_on_port,
    peer_address,
    peer_name,
)
from trio_streamrpc.transports.urls import scheme_of

LIMITS = Limits(close_timeout=5, handshake_timeout=2)


async def tcp_pair(*, buffers: int | None = None) -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a connection; ``buffers`` is how much may be on its way, about."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        if buffers is not None:
            listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        here = trio.socket.socket()
        if buffers is not None:
            here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        await here.connect(listener.socket.getsockname())
        there = await listener.accept()
    return trio.SocketStream(here), there


async def test_what_was_sent_before_the_close_arrives() -> None:
    """Though unread data waits at the end that closes, and the other reads late."""
    client, server = await tcp_pair(buffers=4096)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    server.setsockopt(socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, 1_000_000)
    await client.send_all(b"TSR1m")
    words = [bytes([number]) * 30_000 for number in range(10)]
    with trio.fail_after(10):
        async with open_background_nursery() as nursery:
            finished = trio.Event()

            async def serve() -> None:
                async with accept_stream(server, path="", limits=LIMITS) as transport:
                    assert transport is not None
                    await client.send_all(framed(b"unread"))
                    for each in words:
                        await transport.send(each)
                    await transport.aclose()
                finished.set()

            nursery.start_soon(serve)
            for _ in range(10):
                await trio.testing.wait_all_tasks_blocked()
            heard = b""
            while data := await client.receive_some():
                heard += data
            assert heard == b"TSR1m" + framed(*words)
            await client.aclose()
            await finished.wait()


async def close_by_force(resource: trio.abc.AsyncResource) -> None:
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(resource)


async def pair_at(nursery: trio.Nursery, kind: str) -> tuple[Transport, Transport]:
    """Both ends, open until the nursery is cancelled."""
    with address(kind) as (url, server_options, options):
        scheme = scheme_of(url)
        [listener], url = await scheme.listen(url, **server_options)

        async def accept(task_status: trio.TaskStatus[Transport]) -> None:
            async with scheme.accept(await listener.accept(), path="", limits=LIMITS) as transport:
                assert transport is not None
                task_status.started(transport)
                await trio.sleep_forever()

        async def connect(task_status: trio.TaskStatus[Transport]) -> None:
            async with scheme.connect(
                url, encoding="msgpack", limits=LIMITS, **options
            ) as transport:
                task_status.started(transport)
                await trio.sleep_forever()

        opened: dict[str, Transport] = {}

        async def start(name: str, run: Any) -> None:
            opened[name] = await nursery.start(run)

        async with listener, trio.open_nursery() as starting:
            starting.start_soon(start, "there", accept)
            starting.start_soon(start, "here", connect)
        return opened["here"], opened["there"]


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
async def test_last_words_while_the_other_side_sends(kind: str) -> None:
    """A side that has something against the other says it last: that arrives, however much the
    other has sent by then, and sends on."""
    with trio.fail_after(10):
        for _ in range(10):
            async with open_background_nursery() as nursery:
                here, there = await pair_at(nursery, kind)

                async def flood(here: Transport) -> None:
                    with pytest.raises(ConnectionLost):
                        while True:
                            await here.send(b"x" * 100_000)

                async def say(there: Transport) -> None:
                    for number in range(3):
                        await there.send(b"%d" % number)
                    await there.aclose()

                async with trio.open_nursery() as both:
                    both.start_soon(flood, here)
                    both.start_soon(say, there)
                    assert [await here.receive() for _ in range(3)] == [b"0", b"1", b"2"]
                    with pytest.raises(ConnectionLost):
                        await here.receive()
                    await close_by_force(here)


async def test_a_tls_stream_that_is_cut_off_is_no_end() -> None:
    """Without a close_notify, the end of the socket says nothing."""
    here, there = await tcp_pair()
    client = trio.SSLStream(OrderlyStream(here), client_context(), server_hostname="127.0.0.1")
    server = trio.SSLStream(there, server_context(), server_side=True)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def cut() -> None:
                async with accept_stream(server, path="", limits=LIMITS) as transport:
                    assert transport is not None
                    await transport.send(b"one")
                    await there.send_eof()

            nursery.start_soon(cut)
            async with open_stream(client, "connecting", encoding=None, limits=LIMITS) as transport:
                assert await transport.receive() == b"one"
                with pytest.raises(ConnectionLost, match="the connection broke"):
                    await transport.receive()
                await close_by_force(transport)


async def test_a_certificate_that_is_not_trusted() -> None:
    """Over a stream that was made elsewhere, the handshake is part of what is said first."""
    here, there = await tcp_pair()
    client = trio.SSLStream(here, ssl.create_default_context(), server_hostname="127.0.0.1")
    server = trio.SSLStream(there, server_context(), server_side=True)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def accept() -> None:
                async with accept_stream(server, path="", limits=LIMITS) as transport:
                    assert transport is None

            nursery.start_soon(accept)
            with pytest.raises(
                Unavailable, match=r"127\.0\.0\.1.*CERTIFICATE_VERIFY_FAILED"
            ) as caught:
                async with open_stream(client, "connecting", encoding=None, limits=LIMITS):
                    pytest.fail("the block must not begin")
            assert caught.value.__suppress_context__


async def test_a_server_that_hangs_up_on_tls() -> None:
    """That is no error of TLS, though there is no other word for it."""
    here, there = await tcp_pair()
    client = trio.SSLStream(here, client_context(), server_hostname="127.0.0.1")
    with trio.fail_after(10):
        await there.send_eof()
        with pytest.raises(
            Unavailable, match=r"no server of streamrpc.*: it closed the connection"
        ):
            async with open_stream(client, "connecting", encoding=None, limits=LIMITS):
                pytest.fail("the block must not begin")
        await there.aclose()


async def test_a_reset() -> None:
    """At either end, it is a lost connection."""
    for way in ("send", "receive"):
        here, there = await tcp_pair()
        stream = OrderlyStream(here)
        transport = ByteStreamTransport(stream, encoding="msgpack", remote="?", limits=LIMITS)
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await there.aclose()
        with pytest.raises(ConnectionLost):
            while True:
                if way == "send":
                    await transport.send(b"x" * 100_000)
                else:
                    await transport.receive()
        with trio.fail_after(1):
            await transport.aclose()


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 100_000, 5_000_000])
async def test_messages_that_do_not_fit_the_socket(size: int) -> None:
    """Cut by the system wherever it likes, in the middle of the header too."""
    here, there = await tcp_pair(buffers=4096)
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sender = ByteStreamTransport(OrderlyStream(here), encoding="msgpack", remote="?", limits=LIMITS)
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    heard = bytearray()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await sender.send(message)
                await sender.send(b"")
                await sender.aclose()

            nursery.start_soon(send)
            while data := await there.receive_some():
                heard += data
            await there.aclose()
    assert heard == framed(message, b"")


async def test_a_header_that_is_cut() -> None:
    """As by a system that takes a byte at a time."""
    sent = bytearray()

    class Meagre:
        def __init__(self, step: int) -> None:
            self.step = step

        async def sendmsg(self, buffers: Any) -> int:
            return await self.send(b"".join(buffers))

        async def send(self, data: Any) -> int:
            sent.extend(data[: self.step])
            return min(self.step, len(data))

    here, there = await tcp_pair()
    message = bytes(range(256)) * 40
    async with here, there:
        stream = OrderlyStream(here)
        for step in (1, 3, 4, 5, 1000):
            stream.socket = Meagre(step)  # type: ignore[assignment]
            sender = ByteStreamTransport(stream, encoding="msgpack", remote="?", limits=LIMITS)
            sent.clear()
            await sender.send(message)
            assert sent == framed(message)
            await sender.send(b"short")
            assert sent == framed(message, b"short")


async def test_a_stream_that_was_closed() -> None:
    here, there = memory_stream_pair()
    stream = OrderlyStream(here)
    await there.aclose()
    await stream.wait_send_all_might_not_block()
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")


async def test_a_stream_that_is_closed_twice(autojump_clock: MockClock) -> None:
    """The second close waits for the first; only one that is cancelled closes at once."""
    for cancelled in (False, True):
        here, there = memory_stream_pair()
        stream = OrderlyStream(here)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.aclose)
            await wait_all_tasks_blocked()
            with trio.move_on_after(1 if cancelled else 1000) as scope:
                nursery.start_soon(close_later, there, 2)
                start = trio.current_time()
                await stream.aclose()
            assert trio.current_time() - start == (1 if cancelled else 2)
            assert scope.cancelled_caught is cancelled


async def close_later(stream: trio.abc.Stream, seconds: float) -> None:
    await trio.sleep(seconds)
    await stream.aclose()


async def test_who_is_there() -> None:
    here, there = await tcp_pair()
    name = here.socket.getsockname()
    async with here, there:
        for stream in (
            there,
            OrderlyStream(there),
            trio.SSLStream(OrderlyStream(there), server_context(), server_side=True),
        ):
            assert peer_name(stream) == f"{name[0]}:{name[1]}"
            assert peer_address(stream) == "127.0.0.1"
        assert peer_name(memory_stream_pair()[0]) == "?"
        assert peer_address(memory_stream_pair()[0]) is None
    assert peer_name(there) == "?"
    assert peer_address(there) is None


async def test_names_are_as_in_urls() -> None:
    """At either end, though the numbers have colons."""
    [listener] = await trio.open_tcp_listeners(0, host="::1")
    async with listener:
        port = listener.socket.getsockname()[1]
        here = await trio.open_tcp_stream("::1", port)
        there = await listener.accept()
        async with here, there:
            assert peer_name(here) == f"[::1]:{port}"
            assert peer_name(there) == f"[::1]:{here.socket.getsockname()[1]}"
            assert peer_address(there) == "::1"


@pytest.mark.parametrize("scheme", ["ws", "tcp"])
async def test_the_name_of_a_server(scheme: str) -> None:
    async with serving(Service(), f"{scheme}://[::1]:0") as server, connect(server.url) as client:
        assert server.url == f"{scheme}://{client.remote}"
        [there] = server.connections
        assert there.remote.startswith("[::1]:")


async def test_errors_of_a_transport_are_of_two_kinds() -> None:
    """Whatever a stream raises below, with no trace of it."""

    class Broken(trio.abc.Stream):
        error: Exception

        async def send_all(self, data: Any) -> None:
            raise self.error

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            raise self.error

        async def wait_send_all_might_not_block(self) -> None:
            raise self.error

        async def aclose(self) -> None:
            raise self.error

    stream = Broken()
    for error in (
        trio.BrokenResourceError(),
        trio.ClosedResourceError(),
        trio.BusyResourceError(),
        OSError(),
    ):
        stream.error = error
        transport = ByteStreamTransport(stream, encoding="msgpack", remote="?", limits=LIMITS)
        raised: list[RpcError] = []
        with pytest.raises(ConnectionLost) as caught:
            await transport.receive()
        raised.append(caught.value)
        with pytest.raises(ConnectionLost) as caught:
            await transport.send(b"x")
        raised.append(caught.value)
        assert all(each.__suppress_context__ for each in raised)
        await ByteStreamTransport(stream, encoding="msgpack", remote="?", limits=LIMITS).aclose()
        await transport.aclose()
        with pytest.raises(ConnectionLost):
            await transport.receive()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_listeners_that_do_not_agree_on_a_port(cancelled: bool) -> None:
    """It is taken, or they are cancelled before they have it: all of them are closed."""
    listeners = [listener for _ in range(3) for listener in await open_tcp_listeners()]
    sockets = [each.socket for each in listeners]
    with trio.CancelScope() as scope:
        if cancelled:
            scope.cancel()
        with pytest.raises(trio.Cancelled if cancelled else OSError):
            await _agree_on_port(listeners)
    assert [each.fileno() for each in sockets] == [-1, -1, -1]


async def open_tcp_listeners() -> list[trio.SocketListener]:
    return await trio.open_tcp_listeners(0, host="127.0.0.1")
