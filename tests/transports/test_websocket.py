"""websocket.py: handshakes of either side, and what trio-websocket is known to get wrong."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

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
from trio_streamrpc import (
    ConnectionLost,
    Limits,
    PermissionDenied,
    RemoteProtocolError,
    RpcError,
    Unauthenticated,
    Unavailable,
)
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.transports.counted import CountedStream
from trio_streamrpc.transports.fragments import AT_ONCE, MAX_FRAGMENTS
from trio_streamrpc.transports.origins import Origins
from trio_streamrpc.transports.websocket import (
    SUBPROTOCOLS,
    WebSocketTransport,
    _Guard,
    accept_websocket,
    connect_websocket,
    listen,
    turn_away,
)

# --- the accepting side, over a stream in memory


class Accepted:
    """What became of a stream that was given to ``accept_websocket``."""

    def __init__(self) -> None:
        self.transport: WebSocketTransport | None = None
        self.decided = trio.Event()
        self.over = trio.Event()


@asynccontextmanager
async def accepting(
    path: str = "/", limits: Limits | None = None, origins: Origins | None = None
) -> AsyncIterator[tuple[RawSocket, Accepted]]:
    """A raw client, and what the accepting side makes of it; that one is held open."""
    theirs, ours = memory_stream_pair()
    result = Accepted()

    async def accept() -> None:
        try:
            async with accept_websocket(
                ours, path=path, limits=limits or Limits(), origins=origins
            ) as transport:
                result.transport = transport
                result.decided.set()
                if transport is not None:
                    await trio.sleep_forever()
        finally:
            result.over.set()

    # On the clock of the tests: where nothing happens any more, it is up at once.
    with trio.fail_after(1000):
        async with open_background_nursery() as nursery:
            nursery.start_soon(accept)
            yield RawSocket(theirs), result


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    try:
        async for chunk in stream:
            data += chunk
    except trio.BrokenResourceError:
        pass
    return data


@pytest.mark.parametrize(("protocol", "encoding"), SUBPROTOCOLS.items())
async def test_the_encoding_is_the_subprotocol(
    protocol: str, encoding: str, autojump_clock: MockClock
) -> None:
    """R3."""
    async with accepting() as (client, accepted):
        await client.send(request("/", protocol, "X-Token: caf\xe9", "x-token: second"))
        head = await client.hear_head()
        assert head.startswith("HTTP/1.1 101 ")
        assert f"Sec-WebSocket-Protocol: {protocol}\r\n".lower() in head.lower()
        assert "sec-websocket-extensions" not in head.lower(), "compression stays off"
        await accepted.decided.wait()
        transport = accepted.transport
        assert transport is not None
        assert transport.encoding == encoding
        assert transport.headers["x-token"] == "second"
        assert transport.remote == "?"


async def test_the_first_subprotocol_that_is_known_is_taken(autojump_clock: MockClock) -> None:
    """R3: the client's order counts, and what is not known is passed over."""
    async with accepting() as (client, accepted):
        offered = "chat, streamrpc.2.json, streamrpc.1.json, streamrpc.1.msgpack"
        await client.send(request("/", offered))
        assert "streamrpc.1.json\r\n" in await client.hear_head()
        await accepted.decided.wait()
        assert accepted.transport is not None
        assert accepted.transport.encoding == "json"


@pytest.mark.parametrize("protocol", ["", "chat", "streamrpc.2.msgpack", "STREAMRPC.1.JSON"])
async def test_a_client_that_offers_no_known_subprotocol(
    protocol: str, autojump_clock: MockClock
) -> None:
    """R3: it is told which there are."""
    async with accepting() as (client, accepted):
        await client.send(request("/", protocol))
        answer = (await read_all(client.stream)).decode()
        assert answer.startswith("HTTP/1.1 400 ")
        assert "streamrpc.1.msgpack or streamrpc.1.json" in answer
        await accepted.over.wait()
        assert accepted.transport is None


@pytest.mark.parametrize(
    ("served", "asked", "found"),
    [
        ("/", "/", True),
        ("/", "/anything", True),
        ("", "/anything", True),
        ("/rpc", "/rpc", True),
        ("/rpc", "/rpc?token=1", True),
        ("/r%20pc", "/r%20pc", True),
        ("/r pc", "/r%20pc", True),
        ("/rpc", "/", False),
        ("/rpc", "/rpc/", False),
        ("/rpc", "/other", False),
        ("/rpc", "//[", False),
        ("/rpc", "//rpc", False),
        ("/rpc", "http://h/rpc", False),
        ("/rpc", "*", False),
        ("/rpc", "/%ff", False),
    ],
)
async def test_paths(served: str, asked: str, found: bool, autojump_clock: MockClock) -> None:
    async with accepting(served) as (client, accepted):
        await client.send(request(asked))
        head = await client.hear_head()
        assert head.split()[1] == ("101" if found else "404")
        await accepted.decided.wait()
        assert (accepted.transport is not None) is found


async def test_what_the_handshake_tells(autojump_clock: MockClock) -> None:
    """For whoever decides about the client: as it came; Host is among the headers."""
    async with accepting() as (client, accepted):
        await client.send(request("/a%2Fb?token=x%20y", "streamrpc.1.json", "Cookie: a=b"))
        await accepted.decided.wait()
        transport = accepted.transport
        assert transport is not None
        assert transport.target == "/a%2Fb?token=x%20y"
        assert transport.headers["host"] == "localhost"
        assert transport.headers["cookie"] == "a=b"
        assert transport.certificate() is None


async def test_names_of_headers(autojump_clock: MockClock) -> None:
    """Those that are usual are kept once; those that a client makes up are kept with it alone."""
    names = []
    for _ in range(2):
        async with accepting() as (client, accepted):
            lines = "Authorization: x", "X-Made-Up-By-Me: x"
            await client.send(request("/", "streamrpc.1.msgpack", *lines))
            await accepted.decided.wait()
            assert accepted.transport is not None
            names.append({name: name for name in accepted.transport.headers})
    for name in ("host", "authorization"):
        assert names[0][name] is names[1][name]
    # Python 3.12 keeps what is interned for ever.
    made_up = names[0]["x-made-up-by-me"]
    assert sys.intern("x-made-up-by-me") is not made_up


@pytest.mark.parametrize("piece", [1, 1000])
async def test_origins(piece: int, autojump_clock: MockClock) -> None:
    """403 before the upgrade, whichever path and subprotocol was asked for."""
    listed = Origins(["https://example.com"])
    same = "Origin: http://localhost", "origin: https://localhost:443"
    cases: list[tuple[Origins | None, tuple[str, ...], bool]] = [
        (None, (), True),
        (None, same[:1], True),
        (None, same[1:], True),
        (None, same, False),
        (None, ("Origin: http://evil.example",), False),
        (None, ("Origin:",), False),
        (None, ("Origin: \xff",), False),
        (listed, (), True),
        (listed, ("Origin: https://example.com",), True),
        (listed, ("Origin: https://example.com",) * 2, False),
        (listed, same[:1], False),
        (listed, ("Origin: null",), False),
    ]
    for origins, lines, allowed in cases:
        async with accepting("/served", origins=origins) as (client, accepted):
            asked = request("/served", "streamrpc.1.msgpack", *lines)
            if not allowed:
                asked = request("/", "chat", *lines)
            for start in range(0, len(asked), piece):
                await client.send(asked[start : start + piece])
            head = await client.hear_head()
            assert head.split()[1] == ("101" if allowed else "403"), lines
            await accepted.decided.wait()
            assert (accepted.transport is not None) is allowed


async def test_an_origin_that_is_refused_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A page is not told why, and whoever runs the server has to find out; escaped, and cut."""
    caplog.set_level(logging.INFO)
    async with accepting() as (client, accepted):
        line = "Origin: http://evil.example/\xff" + "x" * 1000
        await client.send(request("/", "streamrpc.1.msgpack", line))
        await accepted.decided.wait()
    [record] = caplog.records
    assert record.getMessage().startswith(
        "a client was refused: pages of 'http://evil.example/\\xffxxx"
    )
    assert record.getMessage().endswith("xxx' are not allowed at 'localhost'")
    assert len(record.getMessage()) < 200


async def test_several_hosts(autojump_clock: MockClock) -> None:
    """What would make one origin or another the same is no request at all."""
    lines = "Host: evil.example", "Origin: http://evil.example"
    async with accepting() as (client, accepted):
        await client.send(request("/", "streamrpc.1.msgpack", *lines))
        await accepted.decided.wait()
        assert accepted.transport is None
        assert b" 101 " not in await read_all(client.stream)


async def test_a_host_behind_the_head(autojump_clock: MockClock) -> None:
    """Where the head ends with line feeds alone, what comes behind it is none of it either."""
    async with accepting() as (client, accepted):
        await client.send(request().replace(b"\r\n", b"\n") + b"Host: evil.example\n")
        await accepted.decided.wait()
        assert accepted.transport is not None
        assert accepted.transport.headers["host"] == "localhost"


LONG = {
    "in a header": request("/", "streamrpc.1.msgpack", "X: " + " \t" * 7_500 + "\x00"),
    "over many lines": request("/", "streamrpc.1.msgpack", "X: " + "\r\n " * 5_000 + "\x00"),
    "behind a body": request("/", "streamrpc.1.msgpack", "Transfer-Encoding: chunked")
    + b"0\r\nX: "
    + b" " * 15_000
    + b"\x00\r\n\r\n",
}


@pytest.mark.parametrize("where", LONG)
@pytest.mark.parametrize("piece", [50, 100_000])
async def test_a_handshake_of_blanks(where: str, piece: int, autojump_clock: MockClock) -> None:
    """It is hung up on before anything is made of it, which would take seconds."""
    asked = LONG[where]
    async with accepting() as (client, accepted):
        with suppress(trio.BrokenResourceError):
            for start in range(0, len(asked), piece):
                await client.send(asked[start : start + piece])
        await accepted.decided.wait()
        assert accepted.transport is None
        answer = await read_all(client.stream)
        # What comes behind the head may come behind the answer to it.
        assert answer == b"" or (where == "behind a body" and b" 400 " in answer)


async def test_blanks_that_are_no_more_than_usual(autojump_clock: MockClock) -> None:
    """In a handshake there may be some; in messages, any number."""
    async with accepting() as (client, accepted):
        await client.send(request("/", "streamrpc.1.msgpack", "X: x" + " " * 59))
        assert (await client.hear_head()).split()[1] == "101"
        await accepted.decided.wait()
        assert accepted.transport is not None
        await client.send_frame(BINARY, b" " * 10_000)
        assert await accepted.transport.receive() == b" " * 10_000


BODIES = {
    "by its length": (("Content-Length: 4",), b"\x82\x00\x82\x00"),
    "in chunks": (("Transfer-Encoding: chunked",), b"4\r\n\x82\x00\x82\x00\r\n0\r\n\r\n"),
    "that is still to come": (("Content-Length: 4",), b""),
}


@pytest.mark.parametrize("kind", BODIES)
async def test_a_handshake_with_a_body(kind: str, autojump_clock: MockClock) -> None:
    """Nobody has one; who looks for frames would look for them in it."""
    lines, body = BODIES[kind]
    async with accepting() as (client, accepted):
        await client.send(request("/", "streamrpc.1.msgpack", *lines) + body)
        head = await client.hear_head()
        assert head.split()[1] == "400"
        await accepted.decided.wait()
        assert accepted.transport is None


async def test_a_handshake_with_a_body_of_nothing(autojump_clock: MockClock) -> None:
    async with accepting() as (client, accepted):
        await client.send(request("/", "streamrpc.1.msgpack", "Content-Length: 0"))
        assert (await client.hear_head()).split()[1] == "101"
        await accepted.decided.wait()
        assert accepted.transport is not None


async def test_a_limit_that_is_lower_for_a_while(autojump_clock: MockClock) -> None:
    """Twice that without a whole message, and the stream is broken off."""
    for limit, passes in ((20_000, True), (5_000, False)):
        async with accepting() as (client, accepted):
            await client.shake_hands()
            await accepted.decided.wait()
            transport = accepted.transport
            assert transport is not None
            transport.limit(limit)
            await client.send_frame(BINARY, b"x", fin=False)
            for _ in range(15):
                await client.send_frame(CONTINUATION, bytes(1000), fin=False)
                await wait_all_tasks_blocked()
            if passes:
                transport.limit(1_000_000)
                await client.send_frame(CONTINUATION, bytes(100_000))
                assert len(await transport.receive()) == 115_001
            else:
                with pytest.raises(RemoteProtocolError, match="without a whole message"):
                    await transport.receive()


async def test_turning_away() -> None:
    """503, which arrives though nothing was read before; and no longer than a moment."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, turn_away, [listener])
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        for _ in range(5):
            with pytest.raises(Unavailable, match="503: this server has as many connections as"):
                async with connect_websocket(url, encoding="json", limits=Limits()):
                    pytest.fail("the block must not begin")
        # One that does not go away is hung up on.
        address = url.removeprefix("ws://").split(":")
        async with await trio.open_tcp_stream(address[0], int(address[1])) as stream:
            with trio.fail_after(5):
                assert b"503" in await read_all(stream)
                with pytest.raises(trio.BrokenResourceError):
                    while True:
                        await stream.send_all(b"x")
                        await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_turning_away_who_has_gone_or_has_no_socket(autojump_clock: MockClock) -> None:
    """Nothing is raised, and the stream is closed."""
    theirs, ours = memory_stream_pair()
    await turn_away(ours)
    assert await theirs.receive_some() == b""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        stream = await trio.open_tcp_stream(*listener.socket.getsockname())
        accepted = await listener.accept()
        await stream.aclose()
        await accepted.send_all(b"x")
        with suppress(trio.BrokenResourceError):
            await accepted.receive_some()
        await turn_away(accepted)
        assert accepted.socket.fileno() == -1


NO_HANDSHAKES = {
    "plain HTTP": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST": request().replace(b"GET", b"POST"),
    "no key": request().replace(b"Sec-WebSocket-Key", b"X-Key"),
    "old version": request().replace(b"13", b"8"),
    "no host": request().replace(b"Host", b"X-Host"),
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
    "zeros": bytes(1000),
    "no ASCII in Host": request().replace(b"localhost", b"h\xff\xfe"),
    "no ASCII in the subprotocol": request().replace(b"streamrpc", b"stre\xffamrpc"),
    "no ASCII in Connection": request().replace(b"Connection: Upgrade", b"Connection: Upgr\xff"),
    "no ASCII in the extensions": request("/", "", "Sec-WebSocket-Extensions: \xff"),
    "no ASCII in the version": request().replace(b"13", b"1\xff"),
    "no ASCII in the path": request().replace(b"GET /", b"GET /\xff"),
    "no ASCII in a name": request("/", "chat", "\xff: 1"),
    "a very long line": b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n",
    "two requests": request("/", "chat") * 2,
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "frames at once": frame(BINARY, b"\x90") * 10,
}


@pytest.mark.parametrize("kind", NO_HANDSHAKES)
async def test_what_is_no_handshake(kind: str, autojump_clock: MockClock) -> None:
    """The stream is closed, at the latest in time; nothing is raised."""
    async with accepting(limits=Limits(handshake_timeout=3)) as (client, accepted):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_in_vain, client.stream, NO_HANDSHAKES[kind])
            answer = await read_all(client.stream)
            nursery.cancel_scope.cancel()
        assert b" 101 " not in answer
        await client.stream.aclose()
        await accepted.over.wait()
        assert trio.current_time() <= 4


async def send_in_vain(stream: trio.abc.SendStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)


async def test_a_handshake_that_does_not_come(autojump_clock: MockClock) -> None:
    """R25: it has so long, and then the stream is closed."""
    async with accepting(limits=Limits(handshake_timeout=3)) as (client, accepted):
        assert await read_all(client.stream) == b""
        assert trio.current_time() == pytest.approx(3)
        await accepted.over.wait()


async def test_a_handshake_that_trickles(autojump_clock: MockClock) -> None:
    """R25: each byte is no reason to wait longer."""
    async with accepting(limits=Limits(handshake_timeout=3)) as (client, accepted):
        with pytest.raises(trio.BrokenResourceError):
            for byte in request():
                await client.send(bytes([byte]))
                await trio.sleep(0.5)
        assert trio.current_time() <= 4
        await accepted.over.wait()


@pytest.mark.parametrize("count", [0, 1, 20, len(request()) - 1])
async def test_a_client_that_vanishes_in_the_handshake(
    count: int, autojump_clock: MockClock
) -> None:
    """It holds no task and no descriptor for any time."""
    async with accepting() as (client, accepted):
        await client.send(request()[:count]) if count else None
        await client.stream.aclose()
        await accepted.over.wait()
        assert trio.current_time() == 0


async def test_a_handshake_in_single_bytes(autojump_clock: MockClock) -> None:
    async with accepting() as (client, accepted):
        for byte in request():
            await client.send(bytes([byte]))
        assert (await client.hear_head()).startswith("HTTP/1.1 101 ")


# --- messages, by hand


@asynccontextmanager
async def shaken(
    protocol: str = "streamrpc.1.msgpack", limits: Limits | None = None
) -> AsyncIterator[tuple[RawSocket, WebSocketTransport]]:
    async with accepting(limits=limits) as (client, accepted):
        await client.shake_hands(protocol)
        await accepted.decided.wait()
        assert accepted.transport is not None
        yield client, accepted.transport


async def test_fragments_make_one_message(autojump_clock: MockClock) -> None:
    """With control frames between them."""
    async with shaken() as (client, transport):
        await client.send_frame(BINARY, b"a", fin=False)
        await client.send_frame(PING, b"1")
        await client.send_frame(CONTINUATION, b"", fin=False)
        await client.send_frame(CONTINUATION, b"b", fin=False)
        await client.send_frame(PONG, b"never asked for")
        await client.send_frame(CONTINUATION, b"c")
        assert await transport.receive() == b"abc"
        heard = await client.hear_frame()
        assert (heard.opcode, heard.payload) == (PONG, b"1")


async def test_bytes_are_noticed_before_there_is_a_message(autojump_clock: MockClock) -> None:
    """R24: a long message that takes its time is no silence."""
    async with shaken() as (client, transport):
        for _ in range(3):
            await trio.sleep(10)
            await client.send(frame(BINARY, b"abcdef")[:3] if _ == 0 else b"x")
            await wait_all_tasks_blocked()
            assert transport.last_heard == trio.current_time()


async def ended(transport: WebSocketTransport) -> RpcError:
    """What the transport raises once it has given all that there was."""
    with pytest.raises(RpcError) as caught:
        while True:
            await transport.receive()
    return caught.value


async def test_the_peers_goodbye(autojump_clock: MockClock) -> None:
    async with shaken() as (client, transport):
        await client.send_frame(CLOSE, (1000).to_bytes(2, "big") + b"bye")
        error = await ended(transport)
        assert isinstance(error, ConnectionLost)
        assert "code 1000: 'bye'" in str(error)
        [answer] = await client.hear_the_end()
        assert answer.close_code == 1000


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x0f\xa0" + b"x" * 123])
async def test_what_a_goodbye_says_is_kept_short(payload: bytes, autojump_clock: MockClock) -> None:
    async with shaken() as (client, transport):
        await client.send_frame(CLOSE, payload)
        error = await ended(transport)
        assert isinstance(error, ConnectionLost)
        assert len(str(error)) < 300
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "behind",
    [
        frame(PING, b"late"),
        frame(BINARY, b"late"),
        frame(BINARY, b"late") * 3,
        frame(CLOSE, b"\x03\xe8"),
        frame(PING) + frame(BINARY, b"x", fin=False),
        b"\xff" * 100,
    ],
)
async def test_what_comes_behind_a_close(behind: bytes, autojump_clock: MockClock) -> None:
    """Known to end a stock server for everybody: here it is nothing at all."""
    async with shaken() as (client, transport):
        await client.send(frame(CLOSE, b"\x03\xe8") + behind)
        assert isinstance(await ended(transport), ConnectionLost)
        await transport.aclose()
        assert trio.current_time() == 0
        await read_all(client.stream)


@pytest.mark.parametrize(
    "broken",
    [
        b"\xc2\x80" + bytes(4),  # a reserved bit
        b"\x83\x80" + bytes(4),  # a reserved opcode
        frame(BINARY, b"x", mask=False),
        frame(CONTINUATION, b"x"),
        frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"),
        frame(PING, b"x" * 126),
        frame(PING, b"x", fin=False),
        frame(CLOSE, b"x"),
        frame(CLOSE, b"\x00\x01"),
        frame(TEXT, b"\xff"),
        frame(TEXT, b"\xed\xa0\x80"),
    ],
)
async def test_what_is_no_websocket(broken: bytes, autojump_clock: MockClock) -> None:
    """trio-websocket hangs up without a word; here the connection is lost."""
    async with shaken() as (client, transport):
        await client.send(broken)
        error = await ended(transport)
        assert isinstance(error, ConnectionLost)
        assert len(str(error)) < 300
        with pytest.raises(ConnectionLost):
            await transport.send(b"x")
        assert await client.hear_the_end() == []
        assert trio.current_time() == 0


async def test_sending_while_the_peer_breaks_the_rules(autojump_clock: MockClock) -> None:
    """The writer may be the first to find the WebSocket in a state that takes no messages."""
    for _ in range(20):
        async with shaken() as (client, transport):
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    with pytest.raises(ConnectionLost):
                        while True:
                            await transport.send(b"x" * 1000)

                nursery.start_soon(send)
                nursery.start_soon(client.hear_the_end)
                await client.send(frame(BINARY, b"x", mask=False))


async def test_a_message_that_is_too_long(autojump_clock: MockClock) -> None:
    """R28: a bit too long is for the codec to judge; more is cut off, and the socket is closed."""
    limits = Limits(max_message_bytes=10_000)
    async with shaken(limits=limits) as (client, transport):
        await client.send_frame(BINARY, bytes(10_001))
        assert len(await transport.receive()) == 10_001
        await client.send_frame(BINARY, bytes(15_000))
        error = await ended(transport)
        assert isinstance(error, ConnectionLost)
        await transport.aclose()
        [closed] = await client.hear_the_end()
        assert closed.close_code == 1009
        assert trio.current_time() == 0, "the socket does not stay"


async def test_fragments_without_end(autojump_clock: MockClock) -> None:
    """R28: counted together."""
    limits = Limits(max_message_bytes=10_000)
    async with shaken(limits=limits) as (client, transport):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_the_end, transport)
            with pytest.raises(trio.BrokenResourceError):
                await client.send_frame(BINARY, b"x", fin=False)
                for _ in range(100):
                    await client.send_frame(CONTINUATION, b"x" * 1000, fin=False)
                    await wait_all_tasks_blocked()


async def expect_the_end(transport: WebSocketTransport) -> None:
    await ended(transport)
    await transport.aclose()


@pytest.mark.parametrize(
    "endless",
    [frame(CONTINUATION, fin=False) * 100, frame(PONG) * 100, frame(PONG, b"x" * 100) * 10],
)
async def test_bytes_that_never_make_a_message(endless: bytes, autojump_clock: MockClock) -> None:
    """R28: trio-websocket does not count empty fragments and pongs: they are bytes all the same."""
    limits = Limits(max_message_bytes=10_000)
    async with shaken(limits=limits) as (client, transport):
        await client.send_frame(BINARY, b"x", fin=False)
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    for _ in range(1000):
                        await client.send(endless)
                        await trio.lowlevel.checkpoint()

            nursery.start_soon(flood)
            with pytest.raises(RemoteProtocolError, match="without a whole message") as caught:
                await transport.receive()
            assert caught.value.close_code == 1009
            await transport.aclose()


async def test_fragments_of_one_message(autojump_clock: MockClock) -> None:
    """R28: so many, and one more; with the many bytes that would be allowed."""
    async with shaken() as (client, transport):
        first = frame(BINARY, b"x", fin=False)
        more = frame(CONTINUATION, b"x", fin=False)
        last = frame(CONTINUATION, b"x")

        async def send() -> None:
            for _ in range(2):
                await client.send(first + more * (MAX_FRAGMENTS - 1) + last)
            await client.send(first + more * MAX_FRAGMENTS + last)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for _ in range(2):
                assert len(await transport.receive()) == MAX_FRAGMENTS + 1
            with pytest.raises(RemoteProtocolError, match="without a whole message") as caught:
                await transport.receive()
            assert caught.value.close_code == 1009
            await transport.aclose()


async def test_a_flood_of_fragments_lets_others_run(autojump_clock: MockClock) -> None:
    """What comes in one piece is not worked on in one go."""
    async with shaken() as (client, transport):
        await client.send(frame(BINARY, b"x", fin=False))
        await wait_all_tasks_blocked()
        fragments = frame(CONTINUATION, b"", fin=False) * 3000
        await client.send(fragments + frame(CONTINUATION, b""))
        steps = 0
        async with trio.open_nursery() as nursery:

            async def count() -> None:
                nonlocal steps
                while True:
                    await trio.lowlevel.checkpoint()
                    steps += 1

            nursery.start_soon(count)
            assert await transport.receive() == b"x"
            nursery.cancel_scope.cancel()
        assert steps >= 3000 // AT_ONCE


async def test_whole_messages_are_no_flood(autojump_clock: MockClock) -> None:
    """Many times the limit in all, with pings between them."""
    limits = Limits(max_message_bytes=10_000)
    async with shaken(limits=limits) as (client, transport):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for _ in range(100):
                    await client.send(frame(BINARY, bytes(9_999)) + frame(PONG, b"x" * 100))

            nursery.start_soon(send)
            for _ in range(100):
                assert len(await transport.receive()) == 9_999


async def test_a_peer_that_pings_and_reads_nothing(autojump_clock: MockClock) -> None:
    """R24: WebSocket's own pings; nothing is read any more, and nothing piles up."""
    theirs, ours = trio.testing.lockstep_stream_pair()
    async with open_background_nursery() as nursery:
        received = 0

        async def accept() -> None:
            limits = Limits(close_timeout=1)
            async with accept_websocket(ours, path="/", limits=limits) as transport:
                assert transport is not None
                with trio.move_on_after(10):
                    await transport.receive()

        nursery.start_soon(accept)
        client = RawSocket(theirs)
        await client.shake_hands()
        with trio.move_on_after(5):
            while True:
                await client.send_frame(PING, b"x" * 100)
                received += 1
        assert received <= 2


async def test_closing_says_why(autojump_clock: MockClock) -> None:
    """With the code and the reason that were set, cut where a close frame ends."""
    async with shaken() as (client, transport):
        transport.close_code = 1008
        transport.close_reason = "é" * 100
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.aclose)
            heard = await client.hear_frame()
            assert heard.close_code == 1008
            assert heard.payload[2:].decode() == "é" * 60
            await client.send_frame(CLOSE, heard.payload)
            assert await client.hear_the_end() == []


async def test_closing_waits_for_the_other_sides_goodbye(autojump_clock: MockClock) -> None:
    """And not for longer than close_timeout."""
    async with shaken(limits=Limits(close_timeout=3)) as (client, transport):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.aclose)
            assert (await client.hear_frame()).opcode == CLOSE
            assert await client.hear_the_end() == []
            assert trio.current_time() == pytest.approx(3)


# --- the connecting side, with a server by hand on a real socket


@asynccontextmanager
async def serving(
    behave: Callable[[RawSocket], Awaitable[None]],
) -> AsyncIterator[str]:
    """A server by hand, which treats its only client like that; gives its URL."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def serve() -> None:
        async with await listener.accept() as stream:
            with suppress(trio.BrokenResourceError, EOFError):
                await behave(RawSocket(stream, client=False))

    with trio.fail_after(10):
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
            nursery.cancel_scope.cancel()


async def refused(
    behave: Callable[[RawSocket], Awaitable[None]], limits: Limits | None = None
) -> RpcError:
    """What the connecting side makes of such a server."""
    async with serving(behave) as url:
        with pytest.raises(RpcError) as caught:
            async with connect_websocket(
                url, encoding="json", limits=limits or Limits(handshake_timeout=5)
            ):
                pytest.fail("the block must not begin")
        assert url in str(caught.value)
        assert len(str(caught.value)) < 500
        return caught.value


def says(answer: bytes, *, more: bytes = b"", hold: bool = False) -> Any:
    """A server that answers the handshake like that, with ``more`` for as long as it can."""

    async def behave(server: RawSocket) -> None:
        await server.hear_head()
        await server.send(answer)
        while more:
            await server.send(more)
            await trio.lowlevel.checkpoint()
        if hold:
            await read_all(server.stream)

    return behave


def status(number: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {number} Because", *headers, "", ""]).encode()


REFUSALS = [
    (401, Unauthenticated),
    (403, PermissionDenied),
    (404, Unavailable),
    (500, Unavailable),
    (503, Unavailable),
]


@pytest.mark.parametrize(("number", "kind"), REFUSALS)
async def test_a_refusal_is_what_its_status_says(number: int, kind: type[RpcError]) -> None:
    """With a body of any kind, or none."""
    for answer, body in (
        (status(number, "Content-Length: 0"), ""),
        (status(number, "Content-Length: 6") + b"go off", "go off"),
        (status(number, "Transfer-Encoding: chunked") + b"2\r\ngo\r\n0\r\n\r\n", "go"),
        (status(number) + b"until the end of the stream", ""),
        (status(number, "Content-Length: 100") + b"cut", ""),
    ):
        error = await refused(says(answer))
        assert type(error) is kind
        assert f"HTTP status {number}" in str(error)
        assert body in str(error)


@pytest.mark.parametrize(("number", "kind"), REFUSALS[:2])
async def test_a_refusal_without_end(number: int, kind: type[RpcError]) -> None:
    """It is not read for ever, and neither is it forgotten why."""
    limits = Limits(max_message_bytes=100_000, handshake_timeout=60)
    error = await refused(says(status(number), more=b"x" * 10_000), limits)
    assert type(error) is kind


async def test_a_refusal_with_a_long_body_is_told_in_short() -> None:
    body = "é\n\x00".encode() * 10_000
    error = await refused(says(status(500, f"Content-Length: {len(body)}") + body))
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        bytes(10_000),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        status(101, "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: wrong"),
        status(101, "Upgrade: \xff", "Connection: \xff", "Sec-WebSocket-Protocol: \xff"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 " + b"9" * 100_000,
    ],
)
async def test_a_server_of_something_else(answer: bytes) -> None:
    assert type(await refused(says(answer))) is Unavailable


async def test_a_server_that_agrees_to_no_subprotocol() -> None:
    """R3."""

    async def behave(server: RawSocket) -> None:
        await server.take_hand(None)
        await server.hear_the_end()

    assert type(await refused(behave)) is Unavailable


async def test_a_server_that_agrees_to_another_subprotocol() -> None:
    """R3."""

    async def behave(server: RawSocket) -> None:
        await server.take_hand("streamrpc.1.msgpack")
        await server.hear_the_end()

    assert type(await refused(behave)) is Unavailable


async def test_a_server_that_is_silent() -> None:
    async def behave(server: RawSocket) -> None:
        await read_all(server.stream)

    error = await refused(behave, Limits(handshake_timeout=0.2))
    assert type(error) is Unavailable
    assert "did not answer within 0.2 s" in str(error)


async def test_a_server_that_trickles() -> None:
    async def behave(server: RawSocket) -> None:
        for byte in status(101, *["X-Padding: x"] * 1000):
            await server.send(bytes([byte]))
            await trio.sleep(0.01)

    error = await refused(behave, Limits(handshake_timeout=0.2))
    assert "did not answer within 0.2 s" in str(error)


async def test_nobody_listens() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(Unavailable, match="cannot connect to") as caught:
        async with connect_websocket(f"ws://127.0.0.1:{port}", encoding="json", limits=Limits()):
            pytest.fail("the block must not begin")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_what_the_connecting_side_asks_for() -> None:
    """The path, the headers and one subprotocol."""
    heads = []

    async def behave(server: RawSocket) -> None:
        heads.append(await server.hear_head())
        await server.send(status(403, "Content-Length: 0"))

    async with serving(behave) as url:
        with pytest.raises(PermissionDenied):
            async with connect_websocket(
                f"{url}/a b/é%20?q=ü x",
                encoding="json",
                limits=Limits(),
                headers={"Authorization": "Bearer x", "X-Name": "café"},
            ):
                pytest.fail("the block must not begin")
    lines = heads[0].split("\r\n")
    assert lines[0] == "GET /a%20b/%C3%A9%20?q=%C3%BC%20x HTTP/1.1"
    assert f"Host: {url.removeprefix('ws://')}" in lines
    assert "Authorization: Bearer x" in lines
    assert "X-Name: café" in lines
    assert "Sec-WebSocket-Protocol: streamrpc.1.json" in lines
    assert "extensions" not in heads[0].lower()


@pytest.mark.parametrize(
    "headers",
    [
        {"na me": "x"},
        {"": "x"},
        {"é": "x"},
        {"name": "a\r\nX-Evil: 1"},
        {"name": "a\nb"},
        {"name": "€"},
        {"name": " a"},
        {"name": "a "},
        {"name": "a\x00"},
        [("name", "\x7f")],
    ],
)
async def test_headers_that_cannot_be(headers: Any) -> None:
    """ValueError before anything is opened, and without the value, which may be a secret."""
    with pytest.raises(ValueError, match="cannot be an HTTP header"):
        async with connect_websocket(
            "ws://127.0.0.1:1", encoding="json", limits=Limits(), headers=headers
        ):
            pytest.fail("the block must not begin")


@pytest.mark.parametrize("value", ["", "a", "a b", "\t".join("ab"), "~!", "é"])
async def test_headers_that_can_be(value: str) -> None:
    async def behave(server: RawSocket) -> None:
        assert f"x-name: {value}\r\n" in (await server.hear_head())
        await server.send(status(403, "Content-Length: 0"))

    async with serving(behave) as url:
        with pytest.raises(PermissionDenied):
            async with connect_websocket(
                url, encoding="json", limits=Limits(), headers=[("x-name", value)]
            ):
                pytest.fail("the block must not begin")


async def test_cancelled_while_it_connects() -> None:
    """At every point: nothing but Cancelled, and no socket is left open."""

    async def behave(server: RawSocket) -> None:
        await read_all(server.stream)

    for ticks in range(12):
        async with serving(behave) as url:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_soon, scope, ticks)
                    async with connect_websocket(url, encoding="json", limits=Limits()):
                        pytest.fail("the block must not begin")
            assert scope.cancelled_caught


async def cancel_soon(scope: trio.CancelScope, ticks: int) -> None:
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    scope.cancel()


# --- listening


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is not there by itself")
async def test_a_name_with_several_addresses_has_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for any port, Trio takes another one for each address."""
    opened = trio.open_tcp_listeners

    async def open_both(port: int, *, host: str) -> list[trio.SocketListener]:
        hosts = ["127.0.0.1", "127.0.0.2"] if host == "both.invalid" else [host]
        return [each for name in hosts for each in await opened(port, host=name)]

    monkeypatch.setattr(trio, "open_tcp_listeners", open_both)
    listeners, url = await listen("ws://both.invalid:0/path?query")
    addresses = [each.socket.getsockname() for each in listeners]  # type: ignore[attr-defined]
    assert [host for host, _ in addresses] == ["127.0.0.1", "127.0.0.2"]
    assert len({port for _, port in addresses}) == 1
    assert url == f"ws://both.invalid:{addresses[0][1]}/path?query"

    async def open_none(port: int, *, host: str) -> list[trio.SocketListener]:
        if host == "127.0.0.2":
            raise OSError("taken")
        return await open_both(port, host=host)

    monkeypatch.setattr(trio, "open_tcp_listeners", open_none)
    with pytest.raises(OSError, match="taken"):
        await listen("ws://both.invalid:0")
    for listener in listeners:
        await listener.aclose()


async def test_ipv6_addresses_stand_in_brackets() -> None:
    try:
        listeners, url = await listen("ws://[::1]:0/p")
    except OSError:
        pytest.skip("there is no IPv6 here")
    assert url.startswith("ws://[::1]:")
    assert url.endswith("/p")
    for listener in listeners:
        await listener.aclose()


async def test_a_port_that_is_taken() -> None:
    listeners, url = await listen("ws://127.0.0.1:0")
    with pytest.raises(OSError, match="in use"):
        await listen(url)
    await listeners[0].aclose()


# --- the guard


async def test_a_reader_that_fails_later_breaks_its_byte_stream() -> None:
    """What trio-websocket raises after the handshake ends this stream, and goes no further."""
    near, far = memory_stream_pair()
    counted = CountedStream(near, 1000)
    fail = trio.Event()

    async def reader() -> None:
        await fail.wait()
        raise RuntimeError("a fault of the library below")

    async with trio.open_nursery() as nursery:
        guard = _Guard(nursery, counted)
        guard.start_soon(reader)
        with guard.handshake:
            pass
        fail.set()
        with trio.fail_after(5):
            assert await far.receive_some() == b""
        assert isinstance(guard.error, RuntimeError)
        with pytest.raises(trio.ClosedResourceError):
            await counted.send_all(b"more")
