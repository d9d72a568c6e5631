"""A peer that breaks the rules costs its own connection, and nobody else's."""

from __future__ import annotations

import gc
import logging
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from tests.end_to_end.network import SHORT, raw_client, reset, serving, until
from tests.protocol.wire import message
from tests.service import Service
from tests.transports.rawsocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawSocket,
    frame,
    request,
)
from trio_streamrpc import Connection, Limits, RemoteProtocolError, Server, connect
from trio_streamrpc.nurseries import open_background_nursery

LIMITS = Limits(
    max_message_bytes=20_000,
    max_waiting_control_bytes=20_000,
    handshake_timeout=1,
    close_timeout=1,
    cleanup=1,
)


@asynccontextmanager
async def beside_an_innocent(
    caplog: pytest.LogCaptureFixture, limits: Limits = LIMITS
) -> AsyncIterator[tuple[Server, Service]]:
    """A server, and a client that is served throughout."""
    caplog.set_level(logging.DEBUG, "trio_streamrpc")
    service = Service()
    async with serving(service, limits=limits) as server:
        async with connect(server.url, limits=limits) as connection:
            async with connection.stream("count", 1_000_000) as stream:
                answered = 0

                async def ask() -> None:
                    nonlocal answered
                    while True:
                        with trio.fail_after(5):
                            assert await connection.call("add", answered, 1) == answered + 1
                            assert await stream.receive() == answered
                        answered += 1

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask)
                    yield server, service
                    before = answered
                    await until(lambda: answered >= before + 10 and len(server.connections) <= 1)
                    nursery.cancel_scope.cancel()
    check_log(caplog)


def check_log(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of a peer's unescaped, or at length; and nothing that is a fault of ours."""
    for record in caplog.records:
        assert record.levelno < logging.WARNING, record.getMessage()
        assert record.exc_info is None
        assert len(record.getMessage()) <= 300
        assert record.getMessage().isprintable()
        assert record.getMessage().isascii()


async def abandoned(raw: RawSocket) -> list[Any]:
    """What a raw client hears until the server has closed the socket, which it has to."""
    heard = []
    with trio.fail_after(5):
        try:
            while True:
                heard.append(await raw.hear_frame())
                if heard[-1].opcode == CLOSE:
                    await raw.send_frame(CLOSE, heard[-1].payload)
        except (EOFError, trio.BrokenResourceError):
            return heard


HELLO = message("msgpack", {"type": "hello", "version": 1})
assert isinstance(HELLO, bytes)

BROKEN: dict[str, tuple[bytes, int | None]] = {
    "not decodable": (frame(BINARY, b"\xc1"), 1007),
    "text": (frame(TEXT, b"[]"), 1003),
    "one byte too long": (frame(BINARY, b"\x90" + bytes(20_000)), 1009),
    "much too long": (frame(BINARY, bytes(100_000)), 1009),
    "second hello": (frame(BINARY, HELLO), 1002),
    "unknown id": (frame(BINARY, message("msgpack", {"type": "end", "id": 9})), 1002),  # type: ignore[arg-type]
    "nested too deep": (frame(BINARY, b"\x91" * 19_000), 1007),
    "a length that lies": (frame(BINARY, b"\xdd\xff\xff\xff\xff"), 1007),
    "endless fragments": (
        frame(BINARY, b"x", fin=False) + frame(CONTINUATION, b"x" * 1000, fin=False) * 60,
        1009,
    ),
    "endless empty fragments": (
        frame(BINARY, b"x", fin=False) + frame(CONTINUATION, fin=False) * 30_000,
        None,
    ),
    "endless pongs": (frame(PONG) * 30_000, None),
    "no UTF-8": (frame(TEXT, b"\xff"), None),
    "no mask": (frame(BINARY, b"x", mask=False), None),
    "reserved bits": (b"\xf2\x80" + bytes(4), None),
    "a ping behind a close": (frame(CLOSE, b"\x03\xe8") + frame(PING), 1000),
    "messages behind a close": (frame(CLOSE, b"\x03\xe8") + frame(BINARY, HELLO) * 3, 1000),
    "garbage": (b"\xff" * 1000, None),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_client_that_breaks_the_rules(what: str, caplog: pytest.LogCaptureFixture) -> None:
    """R27, R28: its handlers are ended, it is told where WebSocket can tell, and hung up on."""
    data, close_code = BROKEN[what]
    async with beside_an_innocent(caplog) as (server, service):
        async with raw_client(server.url) as raw:
            await raw.greets()
            await raw.says({"type": "call", "id": 1, "method": "wait"})
            await service.wait_running(2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_in_vain, raw, data)
                heard = await abandoned(raw)
                nursery.cancel_scope.cancel()
            closes = [each.close_code for each in heard if each.opcode == CLOSE]
            assert closes == ([] if close_code is None else [close_code])
        await until(lambda: "wait" in service.ended)


async def send_in_vain(raw: RawSocket, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await raw.send(data)


async def test_a_connection_error_is_told_with_its_code(caplog: pytest.LogCaptureFixture) -> None:
    """R27: by a goaway, before WebSocket's own close."""
    async with beside_an_innocent(caplog) as (server, _):
        for _ in range(10):
            async with raw_client(server.url) as raw:
                await raw.greets("json")
                await raw.says({"type": "end", "id": 99})
                goaway = await raw.hears()
                assert goaway["type"] == "goaway"
                assert goaway["code"] == "PROTOCOL_ERROR"
                assert "end on id 99" in goaway["message"]
                closed = await raw.hear_frame()
                assert closed.close_code == 1002
                await raw.send_frame(CLOSE, closed.payload)
                assert await abandoned(raw) == []


HANDSHAKES: dict[str, bytes] = {
    "nothing": b"",
    "half": request()[:50],
    "plain HTTP": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "garbage": bytes(range(256)) * 10,
    "no ASCII": request("/", "\xff\xfe", "X-\xff: \xff"),
    "no ASCII in Host": request().replace(b"localhost", b"\xff"),
    "a path that is none": request("//["),
    "no subprotocol": request("/", ""),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
}


@pytest.mark.parametrize("end", ["wait", "close", "reset"])
async def test_clients_that_are_none(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """R25: all at once; those that wait are hung up on in time."""
    async with beside_an_innocent(caplog) as (server, _):

        async def bother(data: bytes) -> None:
            async with raw_client(server.url) as raw:
                if data:
                    await raw.send(data)
                if end == "wait":
                    with trio.fail_after(5):
                        try:
                            while await raw.stream.receive_some():
                                pass
                        except trio.BrokenResourceError:
                            pass
                elif end == "reset":
                    assert isinstance(raw.stream, trio.SocketStream)
                    reset(raw.stream)

        async with trio.open_nursery() as nursery:
            for data in HANDSHAKES.values():
                for _ in range(3):
                    nursery.start_soon(bother, data)


GREETINGS: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "a call": [{"type": "call", "id": 1, "method": "x\n\x1b[31m"}],
    "another version": [{"type": "hello", "version": 99}],
    "metadata that is none": [{"type": "hello", "version": 1, "metadata": "\n\x1b[31m" * 100}],
    "metadata with wrong keys": [{"type": "hello", "version": 1, "metadata": {1: "x"}}],
    "an unknown kind": [],
    "goodbye at once": [
        {"type": "hello", "version": 1},
        {"type": "goaway", "code": "ABORTED", "message": "\n\x1b[31m evil é " * 1000},
    ],
}


@pytest.mark.parametrize("what", GREETINGS)
async def test_greetings_that_are_none(what: str, caplog: pytest.LogCaptureFixture) -> None:
    """R25: and the log has nothing of them as it came."""
    async with beside_an_innocent(caplog) as (server, _):
        async with raw_client(server.url) as raw:
            await raw.shake_hands()
            if what == "an unknown kind":
                await raw.send_frame(BINARY, b"\x91\x92\x3f\xa9\n\x1b[31mevil")
            elif GREETINGS[what]:
                await raw.says(*GREETINGS[what])
            await abandoned(raw)


async def test_a_flood_of_pings_by_a_peer_that_reads_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R24: of either kind; it is not read any more, and memory does not grow."""
    limits = Limits(
        max_waiting_control_bytes=50_000, ping_interval=1, ping_timeout=1, close_timeout=1
    )
    ping = message("msgpack", *[{"type": "ping", "token": "x" * 100}] * 100)
    assert isinstance(ping, bytes)
    async with beside_an_innocent(caplog, limits) as (server, _):
        for flood in (frame(BINARY, ping), frame(PING, b"x" * 120) * 100):
            async with raw_client(server.url) as raw:
                await raw.greets()
                gc.collect()
                tracemalloc.start()
                sent = 0
                with pytest.raises(trio.BrokenResourceError):
                    with trio.fail_after(10):
                        while True:
                            await raw.send(flood)
                            sent += len(flood)
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                assert sent > 50_000
                assert peak < 5_000_000


async def test_handlers_that_fail_and_connections_that_leave(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A storm of clients that come, call what fails, and go without a word."""
    service = Service()
    async with serving(service, limits=LIMITS) as server:

        async def client(number: int) -> None:
            async with raw_client(server.url) as raw:
                await raw.greets()
                await raw.says(
                    {"type": "call", "id": 1, "method": "fail", "args": ["x"]},
                    {"type": "call", "id": 3, "method": "wait"},
                    {"type": "call", "id": 5, "method": "add", "args": [number, 1]},
                )
                while (await raw.hears("result"))["value"] != number + 1:
                    pass
                if number % 2:
                    assert isinstance(raw.stream, trio.SocketStream)
                    reset(raw.stream)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(client, number)
        await until(lambda: not (server.connections or service.running))
    assert service.ended == ["wait"] * 50
    assert {record.getMessage() for record in caplog.records} == {"fail failed"}


# --- the server is the hostile side


@asynccontextmanager
async def hostile(behave: Callable[[RawSocket], Awaitable[None]]) -> AsyncIterator[Connection]:
    """A connection to a server by hand."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def serve() -> None:
        async with await listener.accept() as stream:
            raw = RawSocket(stream, client=False)
            await raw.take_hand()
            await raw.hears("hello")
            await raw.says({"type": "hello", "version": 1})
            with suppress(EOFError, trio.BrokenResourceError):
                await behave(raw)

    async with listener, open_background_nursery() as nursery:
        nursery.start_soon(serve)
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with connect(url, encoding="json", limits=SHORT) as connection:
            yield connection


@pytest.mark.parametrize(
    "frames",
    [
        [{"type": "chunk", "id": 1, "items": [1], "size": 1}],
        [{"type": "result", "id": 1, "value": 1}, {"type": "result", "id": 1, "value": 2}],
        [{"type": "result", "id": 3, "value": 1}],
        [{"type": "call", "id": 1, "method": "add"}],
        [{"type": "hello", "version": 1}],
        [{"type": "grant", "id": 1, "items": 1, "bytes": 1}],
    ],
)
async def test_a_server_that_breaks_the_rules(frames: list[dict[str, Any]]) -> None:
    """R9, R27: the call that waits hears of it, and so does the server."""
    told = []

    async def behave(raw: RawSocket) -> None:
        assert (await raw.hears())["type"] == "call"
        await raw.says(*frames)
        told.append(await raw.hears("goaway"))
        await raw.hear_the_end()

    with trio.fail_after(10):
        with pytest.raises(RemoteProtocolError):
            async with hostile(behave) as connection:
                await connection.call("add", 1, 2)
                await connection.wait_closed()
                connection.check_open()
    assert [frame["code"] for frame in told] in ([], ["PROTOCOL_ERROR"])


async def test_closing_in_order_waits_for_the_servers_goodbye() -> None:
    """The socket is not closed over the server's head, with its last words still under way."""
    over = []

    async def behave(raw: RawSocket) -> None:
        await raw.hears("goaway")
        closed = await raw.hear_frame()
        assert closed.close_code == 1000
        for _ in range(20):
            # Nothing but the socket's being closed would wake this.
            with trio.move_on_after(0.01) as waited:
                over.append(await raw.stream.receive_some())
            assert waited.cancelled_caught
        await raw.send_frame(CLOSE, closed.payload)

    with trio.fail_after(10):
        async with hostile(behave):
            pass
    assert over == []
