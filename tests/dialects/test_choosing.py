"""choosing.py: the subprotocol chooses, or the first message does; what is of none gets nowhere."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio_websocket

from tests.dialects.recorded import Recorded, conversation
from trio_streamrpc import (
    ConnectionLost,
    Limits,
    PermissionDenied,
    RpcError,
    Unauthenticated,
    Unavailable,
    connect,
    current_call,
    open_connection,
    rpc,
    serve,
)
from trio_streamrpc.dialects import kkrpc, kkrpc_classic, native, signal
from trio_streamrpc.dialects.choosing import Dialects

ALL = (native, kkrpc, kkrpc_classic, signal)
FIRST = {
    "kkrpc": conversation("kkrpc-2.1", "unary")["messages"][0]["text"],
    "json": conversation("kkrpc-0.7-json", "unary")["messages"][0]["text"],
    "superjson": conversation("kkrpc-0.7-superjson", "unary")["messages"][0]["text"],
    "signal": json.dumps(
        {"category": "request", "requestId": 1, "data": {"method": "add", "args": [1, 2]}}
    ),
}


@asynccontextmanager
async def serving(
    service: object = None, url: str = "ws://127.0.0.1:0", **options: Any
) -> AsyncIterator[str]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                lambda task_status: serve(
                    service or Recorded(), url, task_status=task_status, **options
                )
            )
            yield server.url
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def websocket(
    url: str, *subprotocols: str
) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    """A client of another library; its socket is closed here, since it may forget to."""
    port = int(url.rpartition(":")[2])
    async with trio.open_nursery() as nursery:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            socket = await trio_websocket.wrap_client_stream(
                nursery, stream, f"127.0.0.1:{port}", "/", subprotocols=subprotocols
            )
            yield socket
            await socket.aclose()


@pytest.mark.parametrize("name", FIRST)
async def test_the_first_message_chooses(name: str) -> None:
    async with serving(dialects=ALL) as url, websocket(url) as socket:
        assert socket.subprotocol is None
        await socket.send_message(FIRST[name])
        assert "3" in await socket.get_message()


@pytest.mark.parametrize(
    ("subprotocol", "name"), [("kkrpc.2", "kkrpc"), ("kkrpc.0", "json"), ("signal-rpc", "signal")]
)
async def test_a_subprotocol_chooses(subprotocol: str, name: str) -> None:
    async with serving(dialects=ALL) as url, websocket(url, "other", subprotocol) as socket:
        assert socket.subprotocol == subprotocol
        await socket.send_message(FIRST[name])
        assert "3" in await socket.get_message()
        # It is that one, whatever it sounds like.
        await socket.send_message(FIRST["signal" if name == "kkrpc" else "kkrpc"])
        await socket.send_message(FIRST[name])
        assert "3" in await socket.get_message()


async def test_one_alone_may_be_silent() -> None:
    """Nothing has to be heard of a client that can speak one thing only; it may be called."""
    called: list[Any] = []
    limits = Limits(handshake_timeout=0.05)
    async with serving(dialects=(native, kkrpc), limits=limits) as url:
        async with websocket(url) as socket:
            await trio.sleep(0.2)
            await socket.send_message(FIRST["kkrpc"])
            called.append(await socket.get_message())
    assert '"v":3.0' in called[0]


@pytest.mark.parametrize(
    "message",
    [
        "hello",
        "{}",
        '[{"type":"hello","version":1}]',
        '{"t":"r","id":"1"}',
        '{"id":"1","type":"response","method":""}',
        "[" * 10_000,
        b"\x00",
    ],
    ids=["text", "empty", "hello", "an answer", "another answer", "deep", "binary"],
)
@pytest.mark.parametrize("dialects", [ALL, (kkrpc,), (kkrpc_classic,), (signal,)], ids=repr)
async def test_a_first_message_of_none(message: str | bytes, dialects: Any) -> None:
    """A connection error, told as WebSocket tells it; also where there is nothing to choose."""
    async with serving(dialects=dialects) as url, websocket(url) as socket:
        await socket.send_message(message)
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await socket.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1008
        assert caught.value.reason.reason == "the first message is of no dialect served here"


async def test_a_first_message_that_is_too_long() -> None:
    """What is not known yet may not say more than that; it is told so."""
    long = json.dumps({"t": "q", "id": "1", "op": "call", "p": ["add"], "a": ["x" * 70_000]})
    async with serving(dialects=ALL) as url, websocket(url) as socket:
        await socket.send_message(long)
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await socket.get_message()
    assert caught.value.reason is not None
    assert caught.value.reason.code == 1009
    assert caught.value.reason.reason is not None
    assert caught.value.reason.reason.startswith(f"{len(long)} bytes from a side that is not known")


@pytest.mark.parametrize("scheme", ["ws", "tcp"])
@pytest.mark.parametrize("served", [kkrpc, kkrpc_classic, signal], ids=repr)
@pytest.mark.parametrize("spoken", [kkrpc, kkrpc_classic, signal], ids=repr)
async def test_another_than_is_served(spoken: Any, served: Any, scheme: str) -> None:
    """It does not wait for an answer that will not come."""
    async with serving(url=f"{scheme}://127.0.0.1:0", dialects=(served,)) as url:
        async with connect(url, dialect=spoken) as connection:
            if spoken is served:
                assert await connection.call("add", 1, 2) == 3
                return
            told = "1008: 'the first message is of no dialect served here'"
            with pytest.raises(ConnectionLost, match=told if scheme == "ws" else "closed"):
                await connection.call("add", 1, 2)


async def test_no_first_message() -> None:
    limits = Limits(handshake_timeout=0.1)
    async with serving(dialects=ALL, limits=limits) as url, websocket(url) as socket:
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await socket.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1008


async def test_one_that_goes_away_before_it_speaks() -> None:
    async with serving(dialects=ALL) as url:
        async with websocket(url):
            pass
        async with connect(url) as connection:
            assert await connection.call("add", 1, 2) == 3


@pytest.mark.parametrize("dialects", [(native,), (kkrpc,)], ids=repr)
async def test_what_is_not_served(dialects: Any) -> None:
    """A client whose subprotocol is not served, or that has none where one is needed."""
    async with serving(dialects=dialects) as url:
        known = (
            "streamrpc.1.msgpack or streamrpc.1.json" if native in dialects else "kkrpc.2 or none"
        )
        with pytest.raises(Unavailable, match=f"400: .* the WebSocket subprotocols {known}$"):
            async with connect(url, dialect=kkrpc if dialects == (native,) else None):
                raise AssertionError


async def test_native_alone_is_what_is_served_by_default() -> None:
    async with serving() as url:
        with pytest.raises(Unavailable, match="400"):
            async with connect(url, dialect=kkrpc):
                raise AssertionError


@pytest.mark.parametrize("dialect", [kkrpc, kkrpc_classic, signal], ids=repr)
@pytest.mark.parametrize("scheme", ["tcp", "unix"])
async def test_byte_streams(scheme: str, dialect: Any, tmp_path: Any) -> None:
    url = "tcp://127.0.0.1:0" if scheme == "tcp" else f"unix://{tmp_path}/socket"
    async with serving(url=url, dialects=(dialect,)) as real:
        async with connect(real, dialect=dialect) as connection:
            assert await connection.call("add", 1, 2) == 3
            async with connection.stream("countdown", 200) as stream:
                assert [each async for each in stream] == list(range(200, -1, -1))


async def test_several_on_a_byte_stream() -> None:
    url = "tcp://127.0.0.1:0"
    async with serving(url=url, dialects=(kkrpc, kkrpc_classic, signal)) as real:
        for dialect in (kkrpc, kkrpc_classic, signal):
            async with connect(real, dialect=dialect) as connection:
                assert await connection.call("add", 1, 2) == 3


async def test_native_and_others_cannot_share_a_byte_stream() -> None:
    with pytest.raises(ValueError, match="either native or others"):
        await serve(Recorded(), "tcp://127.0.0.1:0", dialects=ALL)


@pytest.mark.parametrize("dialects", [(), (kkrpc, kkrpc), (kkrpc_classic, kkrpc_classic())])
def test_dialects_that_cannot_be(dialects: Any) -> None:
    with pytest.raises(ValueError, match="each of them once"):
        Dialects(dialects)


@pytest.mark.parametrize("dialects", [kkrpc, native, ("kkrpc",), (None,)])
def test_what_is_no_dialect(dialects: Any) -> None:
    with pytest.raises(TypeError, match="dialect"):
        Dialects(dialects)


# --- who is let in


class Whoami:
    @rpc
    async def whoami(self) -> str:
        call = current_call()
        return f"{call.identity}, {dict(call.metadata)}"


async def test_authenticate() -> None:
    """It decides before anything is run; there is no metadata, but there are headers."""
    decided: list[Any] = []

    async def authenticate(handshake: Any) -> str:
        decided.append((dict(handshake.metadata), handshake.path))
        if handshake.headers.get("authorization") != "Bearer good":
            raise Unauthenticated("no")
        await trio.sleep(0.05)
        return "alice"

    async with serving(Whoami(), dialects=ALL, authenticate=authenticate) as url:
        good = {"authorization": "Bearer good"}
        for dialect in (kkrpc, kkrpc_classic, signal):
            async with connect(url, dialect=dialect, headers=good) as connection:
                assert await connection.call("whoami") == "alice, {}"
            async with connect(url, dialect=dialect) as connection:
                with pytest.raises(RpcError):
                    await connection.call("whoami")
    assert decided == [({}, "/")] * 6


async def test_what_is_said_before_the_decision_is_bounded() -> None:
    async def authenticate(handshake: Any) -> str:
        await trio.sleep_forever()
        raise AssertionError

    limits = Limits(max_early_frames=3, handshake_timeout=0.5)
    options: dict[str, Any] = {"dialects": (kkrpc,), "authenticate": authenticate, "limits": limits}
    async with serving(Whoami(), **options) as url, websocket(url) as socket:
        for number in range(1000):
            record = {"t": "q", "id": str(number), "op": "call", "p": ["whoami"], "a": []}
            try:
                await socket.send_message(json.dumps(record))
            except trio_websocket.ConnectionClosed:
                break
        with pytest.raises(trio_websocket.ConnectionClosed):
            await socket.get_message()


async def test_origins() -> None:
    async with serving(dialects=ALL, allowed_origins=["https://example.com"]) as url:
        with pytest.raises(PermissionDenied):
            async with connect(url, dialect=kkrpc, headers={"origin": "https://evil.example"}):
                raise AssertionError
        async with connect(url, dialect=kkrpc, headers={"origin": "https://example.com"}) as good:
            assert await good.call("add", 1, 2) == 3


async def test_over_any_transport() -> None:
    """A stream is taken as lines, and a transport as it is."""
    here, there = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve_it() -> None:
            async with open_connection(
                there, "accepting", dialect=kkrpc, serving=Recorded()
            ) as connection:
                await connection.wait_closed()

        nursery.start_soon(serve_it)
        async with open_connection(here, dialect=kkrpc) as connection:
            assert await connection.call("add", 1, 2) == 3


async def test_what_is_named_may_be_native() -> None:
    async with serving() as url, connect(url, dialect=native) as connection:
        assert await connection.call("add", 1, 2) == 3
    with pytest.raises(TypeError, match="is no dialect"):
        async with connect(url, dialect="kkrpc"):  # type: ignore[arg-type]
            raise AssertionError
