"""tcp://, tls:// and unix://: peers by hand, and who came to the wrong door."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from tests.addresses import address, client_context
from tests.end_to_end.network import SHORT, address_of, raw_client, reset, serving, until
from tests.protocol.wire import message, read
from tests.service import Service
from trio_streamrpc import (
    Connection,
    ConnectionLost,
    Limits,
    RemoteProtocolError,
    Unavailable,
    connect,
    open_connection,
)
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.transports.memory import open_memory_transports

LIMITS = Limits(max_message_bytes=20_000, handshake_timeout=1, close_timeout=1, cleanup=1)
TCP = "tcp://127.0.0.1:0"


def framed(data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return len(data).to_bytes(4, "big") + data


def said(encoding: str, *frames: dict[str, Any]) -> bytes:
    return framed(message(encoding, *frames))


def heard(encoding: str, data: bytes) -> list[dict[str, Any]]:
    """The frames in what was received behind the preface."""
    frames = []
    while data:
        length = int.from_bytes(data[:4], "big")
        body = data[4 : 4 + length]
        assert len(body) == length
        frames += read(body.decode() if encoding == "json" else body)
        data = data[4 + length :]
    return frames


async def rest_of(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    with trio.fail_after(5), suppress(trio.BrokenResourceError):
        while received := await stream.receive_some():
            data += received
    return data


HELLO = {"type": "hello", "version": 1}


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_a_conversation_by_hand(encoding: str) -> None:
    """R3: as docs/protocol.md describes it, all at once and in single bytes."""
    preface = b"TSR1" + encoding[:1].encode()
    calls = [{"type": "call", "id": 1, "method": "add", "args": [1, 2]}]
    async with serving(Service(), TCP) as server:
        for step in (1, 10_000):
            async with raw_client(server.url) as raw:
                for data in (preface, said(encoding, HELLO)):
                    for start in range(0, len(data), step):
                        await raw.send(data[start : start + step])
                with trio.fail_after(5):
                    assert await exactly(raw.stream, 5) == preface
                    [hello] = await hear(raw.stream, encoding)
                    assert hello["type"] == "hello"
                    await raw.send(said(encoding, *calls))
                    [result] = await hear(raw.stream, encoding)
                    assert (result["type"], result["id"], result["value"]) == ("result", 1, 3)


async def exactly(stream: trio.abc.ReceiveStream, number: int) -> bytes:
    data = b""
    while len(data) < number:
        data += await stream.receive_some(number - len(data))
    return data


async def hear(stream: trio.abc.ReceiveStream, encoding: str) -> list[dict[str, Any]]:
    """The frames of the next message."""
    length = int.from_bytes(await exactly(stream, 4), "big")
    return heard(encoding, framed(await exactly(stream, length)))


BROKEN: dict[str, tuple[bytes, str]] = {
    "not decodable": (framed(b"\xc1"), "cannot be decoded"),
    "one byte too long": (framed(b"\x90" + bytes(20_000)), "message of 20001 bytes"),
    "much too long": (framed(bytes(100_000)), "message of 100000 bytes"),
    "a length that lies": (b"\xff\xff\xff\xff", "message of 4294967295 bytes"),
    "second hello": (said("msgpack", HELLO), "hello"),
    "unknown id": (said("msgpack", {"type": "end", "id": 9}), "end on id 9"),
    "empty messages": (framed(b"") * 1000, ""),
    "WebSocket": (b"GET / HTTP/1.1\r\n", "message of 1195725856 bytes"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_client_that_breaks_the_rules(what: str, caplog: pytest.LogCaptureFixture) -> None:
    """R27, R28: its handlers are ended, it is told why, and hung up on."""
    data, why = BROKEN[what]
    service = Service()
    async with serving(service, TCP, limits=LIMITS) as server:
        async with connect(server.url) as innocent, raw_client(server.url) as raw:
            await raw.send(b"TSR1m" + said("msgpack", HELLO))
            await raw.send(said("msgpack", {"type": "call", "id": 1, "method": "wait"}))
            await service.wait_running()
            await raw.send(data)
            received = await rest_of(raw.stream)
            goaway = heard("msgpack", received[5:])[-1]
            assert goaway["type"] == "goaway"
            assert goaway["code"] is not None
            assert why in goaway["message"]
            await raw.stream.aclose()
            await until(lambda: "wait" in service.ended and len(server.connections) == 1)
            assert await innocent.call("add", 1, 2) == 3
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


async def test_text_that_is_no_utf8() -> None:
    async with serving(Service(), TCP, limits=LIMITS) as server:
        async with raw_client(server.url) as raw:
            await raw.send(b"TSR1j" + said("json", HELLO) + framed(b"\xff"))
            goaway = heard("json", (await rest_of(raw.stream))[5:])[-1]
            assert "not UTF-8" in goaway["message"]


async def test_a_server_that_breaks_the_rules() -> None:
    """The call that waits hears of it, and so does the server."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"TSR1m" + said("msgpack", HELLO))
        await stream.send_all(b"\xff\xff\xff\xff")
        told.append(heard("msgpack", (await rest_of(stream))[5:])[-1])

    told: list[dict[str, Any]] = []
    async with open_background_nursery() as nursery:
        listeners = await nursery.start(serve_at_any_port, serve)
        url = f"tcp://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        with trio.fail_after(5), pytest.raises(RemoteProtocolError) as caught:
            async with connect(url, limits=SHORT) as connection:
                await connection.call("add", 1, 2)
        assert caught.value.close_code in (1002, 1009)
        await until(lambda: told)
    assert told[0]["type"] == "goaway"


async def serve_at_any_port(
    serve: Any, task_status: trio.TaskStatus[list[trio.SocketListener]]
) -> None:
    await trio.serve_tcp(serve, 0, host="127.0.0.1", task_status=task_status)


NO_CLIENTS: dict[str, bytes] = {
    "nothing": b"",
    "half": b"TSR",
    "HTTP": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "another version": b"TSR2m",
}


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("end", ["wait", "close", "reset"])
async def test_clients_that_are_none(kind: str, end: str, caplog: pytest.LogCaptureFixture) -> None:
    """R3: hung up on at once or in time, without a word in the log."""
    with address(kind) as (url, server_options, options):
        async with serving(Service(), url, limits=LIMITS, **server_options) as server:

            async def bother(data: bytes) -> None:
                async with raw_client(server.url) as raw:
                    if data:
                        await raw.send(data)
                    if end == "wait":
                        assert not (await rest_of(raw.stream)).startswith(b"TSR1")
                    elif end == "reset":
                        assert isinstance(raw.stream, trio.SocketStream)
                        reset(raw.stream)

            async with connect(server.url, **options) as connection:
                async with trio.open_nursery() as nursery:
                    for data in NO_CLIENTS.values():
                        for _ in range(3):
                            nursery.start_soon(bother, data)
                assert await connection.call("add", 1, 2) == 3
    assert caplog.records == []


@pytest.mark.parametrize("served", ["ws", "wss", "tcp", "tls"])
@pytest.mark.parametrize("asked", ["ws", "wss", "tcp", "tls"])
async def test_the_wrong_door(served: str, asked: str, caplog: pytest.LogCaptureFixture) -> None:
    """Unavailable in time, on every pair that does not fit, and the server goes on."""
    with address(served) as (url, server_options, options):
        async with serving(Service(), url, limits=LIMITS, **server_options) as server:
            if asked != served:
                host, port = address_of(server.url)
                context = client_context() if asked in ("wss", "tls") else None
                with trio.fail_after(5), pytest.raises(Unavailable):
                    async with connect(
                        f"{asked}://{host}:{port}", ssl_context=context, limits=LIMITS
                    ):
                        pytest.fail("the block must not begin")
            async with connect(server.url, **options) as connection:
                assert await connection.call("add", 1, 2) == 3
    assert caplog.records == []


async def test_tls_proves_who_is_there() -> None:
    with address("tls") as (url, server_options, _):
        async with serving(Service(), url, **server_options) as server:
            with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
                async with connect(server.url):
                    pytest.fail("the block must not begin")


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
async def test_leaving_is_soon_over(kind: str) -> None:
    """Neither side waits for the other longer than it takes, and a drain ends all."""
    with address(kind) as (url, server_options, options):
        async with serving(Service(), url, **server_options) as server:
            with trio.fail_after(2):
                for _ in range(10):
                    async with connect(server.url, **options) as connection:
                        await connection.call("add", 1, 2)
                    await until(lambda: not server.connections)
                async with connect(server.url, **options) as connection:
                    await server.drain()
                    with pytest.raises((ConnectionLost, Unavailable)):
                        await connection.call("add", 1, 2)


# --- streams without a URL


@asynccontextmanager
async def over_pipes(encoding: Any, accepted: Any = None) -> AsyncIterator[Connection]:
    """As between a process and its child."""
    (reads_here, writes_there), (reads_there, writes_here) = os.pipe(), os.pipe()
    make = trio.lowlevel.FdStream
    here = trio.StapledStream(make(writes_here), make(reads_here))
    there = trio.StapledStream(make(writes_there), make(reads_there))

    async def accept() -> None:
        async with open_connection(
            there, "accepting", serving=Service(), encoding=accepted, limits=SHORT
        ) as connection:
            assert connection.transport.encoding == (encoding or "msgpack")
            await connection.wait_closed()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            async with open_connection(here, encoding=encoding, limits=SHORT) as connection:
                yield connection


@pytest.mark.parametrize("encoding", [None, "msgpack", "json"])
async def test_a_connection_over_pipes(encoding: Any) -> None:
    """R3: the connecting side chooses, and the other may insist."""
    for accepted in (None, encoding):
        async with over_pipes(encoding, accepted) as connection:
            assert connection.transport.encoding == (encoding or "msgpack")
            assert connection.remote == "?"
            assert await connection.call("add", 1, 2) == 3
            echo = connection.proxy(Service).echo
            assert await echo(bytes(300_000)) == bytes(300_000)
            async with connection.stream("forever") as stream:
                await stream.receive()


async def test_an_encoding_that_the_other_side_does_not_take() -> None:
    here, there = trio.testing.memory_stream_pair()
    with pytest.raises(RemoteProtocolError, match="asks for another encoding"):
        await here.send_all(b"TSR1j")
        async with open_connection(there, "accepting", encoding="msgpack", limits=SHORT):
            pytest.fail("the block must not begin")


@pytest.mark.parametrize("encoding", ["json", "xml"])
async def test_an_encoding_that_is_not_the_transports(encoding: Any) -> None:
    here, _ = open_memory_transports(encoding="msgpack")
    with pytest.raises(ValueError, match="encoding is"):
        async with open_connection(here, encoding=encoding):
            pytest.fail("the block must not begin")


@pytest.mark.parametrize(
    ("options", "kind"),
    [({"encoding": "xml"}, ValueError), ({"serving": object()}, TypeError)],
)
async def test_arguments_that_cannot_be(options: Any, kind: type[Exception]) -> None:
    """They are told before anything is said."""
    here, there = trio.testing.memory_stream_pair()
    with pytest.raises(kind):
        async with open_connection(here, **options):
            pytest.fail("the block must not begin")
    with trio.move_on_after(0) as silence:
        await there.receive_some()
    assert silence.cancelled_caught
