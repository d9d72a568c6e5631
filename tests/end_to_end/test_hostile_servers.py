"""The server is the hostile side: a client gets an error of its own, and gives nothing away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from tests.end_to_end.innocent import (
    EACH_TRANSPORT,
    OVER_WEBSOCKET,
    PATIENCE,
    RAW,
    Beside,
    memory_growing_by_at_most,
)
from tests.end_to_end.network import SHORT, until
from tests.transports.rawpeer import Ending, RawPeer
from tests.transports.rawsocket import CLOSE, PING, TEXT, RawSocket, frame
from trio_streamrpc import (
    Connection,
    ConnectionLost,
    FlowControlError,
    InternalError,
    Limits,
    LocalProtocolError,
    NotFound,
    RemoteError,
    RemoteProtocolError,
    RpcError,
    Unavailable,
    Window,
    connect,
    rpc,
)
from trio_streamrpc.nurseries import open_background_nursery

Behave = Callable[[RawPeer], Awaitable[None]]


class Hostile:
    """Connects to a server by hand, while the innocent is served by one that is honest."""

    def __init__(self, beside: Beside) -> None:
        self._beside = beside
        #: What the server heard at the end.
        self.ending: Ending | None = None

    @asynccontextmanager
    async def __call__(
        self, behave: Behave, *, limits: Limits = SHORT, **options: Any
    ) -> AsyncIterator[Connection]:
        """A connection to a server that greets, and then behaves like that."""
        raised = None
        async with self._beside() as scene:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            url = f"{scene.kind}://127.0.0.1:{listener.socket.getsockname()[1]}"
            async with listener, open_background_nursery() as nursery:
                nursery.start_soon(self._serve, listener, RAW[scene.kind], behave)
                options["encoding"] = scene.encoding
                try:
                    async with connect(url, limits=limits, **options) as connection:
                        yield connection
                except RpcError as error:
                    # It is the test's, and no reason for the scene to end.
                    raised = error
                await until(lambda: self.ending is not None)
        if raised is not None:
            raise raised

    async def _serve(
        self, listener: trio.SocketListener, kind: type[RawPeer], behave: Behave
    ) -> None:
        async with await listener.accept() as stream:
            raw = kind(stream, client=False)
            with suppress(EOFError, trio.BrokenResourceError):
                await raw.is_greeted()
                await behave(raw)
            self.ending = await raw.hears_the_end()


@pytest.fixture
def hostile(beside: Beside) -> Hostile:
    return Hostile(beside)


#: What a server says when it was called; and the code of WebSocket's close that tells it.
BREACHES: dict[str, tuple[list[dict[str, Any]], int]] = {
    "an item nobody asked for": ([{"type": "chunk", "id": 1, "items": [1], "size": 1}], 1002),
    "an item on an id that there is not": (
        [{"type": "chunk", "id": 7, "items": [1], "size": 1}],
        1002,
    ),
    "two results": ([{"type": "result", "id": 1, "value": 1}] * 2, 1002),
    "a result and an error": (
        [{"type": "result", "id": 1}, {"type": "error", "id": 1, "error": {"code": "UNKNOWN"}}],
        1002,
    ),
    "the result of another call": ([{"type": "result", "id": 3, "value": 1}], 1002),
    "the end of what is no stream": ([{"type": "end", "id": 1}], 1002),
    "a call with an id of the client's": ([{"type": "call", "id": 1, "method": "add"}], 1002),
    "a second hello": ([{"type": "hello", "version": 1}], 1002),
    "a grant for a call": ([{"type": "grant", "id": 1, "items": 1, "bytes": 1}], 1002),
    "a cancel of a call": ([{"type": "cancel", "id": 1}], 1002),
    "a result above what is taken": ([{"type": "result", "id": 1, "parts": 2**40}], 1009),
    "an error that is none": ([{"type": "error", "id": 1, "error": "x"}], 1007),
    "an upload that a result brings": (
        [{"type": "chunk", "id": 1, "items": [0], "size": 1, "refs": [[0, "stream", 2]]}],
        1002,
    ),
}


@EACH_TRANSPORT
@pytest.mark.parametrize("what", BREACHES)
async def test_a_server_that_breaks_the_rules(what: str, hostile: Hostile) -> None:
    """R9, R27: the call that waits hears of it, and so does the server."""
    frames, close_code = BREACHES[what]

    async def behave(raw: RawPeer) -> None:
        await raw.hears("call")
        await raw.says(*frames)

    with pytest.raises(RemoteProtocolError):
        async with hostile(behave) as connection:
            await connection.call("add", 1, 2)
            await connection.wait_closed()
            connection.check_open()
    assert hostile.ending is not None
    goaway = hostile.ending.goaway
    assert goaway is not None
    assert goaway["code"] == "PROTOCOL_ERROR"
    assert hostile.ending.close_code in (close_code, None)


@EACH_TRANSPORT
@pytest.mark.parametrize("much", ["items", "bytes"])
async def test_items_past_the_credit(much: str, hostile: Hostile) -> None:
    """R16: the stream fails after the items that fitted, and nothing else does."""
    items: list[Any] = [1, 2, 3] if much == "items" else ["x" * 200, 1]

    async def behave(raw: RawPeer) -> None:
        await raw.hears("call")
        await raw.says({"type": "chunk", "id": 1, "items": [7], "size": 1})
        for each in items:
            size = len(str(each)) + 2 * isinstance(each, str)
            await raw.says({"type": "chunk", "id": 1, "items": [each], "size": size})
        cancel = await raw.hears("cancel")
        assert cancel["error"]["code"] == "FLOW_CONTROL"
        await raw.says({"type": "end", "id": 1})
        call = await raw.hears("call")
        await raw.says({"type": "result", "id": call["id"], "value": 3})

    limits = Limits(window=Window(3, 100), max_window=Window(3, 100), close_timeout=1)
    async with hostile(behave, limits=limits) as connection:
        got = []
        stream = connection.stream("numbers")
        # Nothing is taken before all of it has come.
        async with stream:
            with pytest.raises(FlowControlError):
                await stream.receive()
                while True:
                    await trio.sleep(0.05)
                    got.append(await stream.receive())
        assert len(got) <= 2
        assert await connection.call("add", 1, 2) == 3


@EACH_TRANSPORT
async def test_items_without_end_after_a_cancel(hostile: Hostile) -> None:
    """R9: dropped, within the credit that was left, and then violations."""

    async def behave(raw: RawPeer) -> None:
        await raw.hears("call")
        await raw.says({"type": "chunk", "id": 1, "items": [1], "size": 1})
        await raw.hears("cancel")
        for _ in range(1000):
            await raw.says({"type": "chunk", "id": 1, "items": [1], "size": 1})

    limits = Limits(violation_refill=0.1, close_timeout=1, cancel_timeout=2)
    with pytest.raises(RemoteProtocolError, match="too many violations"):
        async with hostile(behave, limits=limits) as connection:
            async with connection.stream("numbers") as stream:
                assert await stream.receive() == 1
    assert hostile.ending is not None
    assert hostile.ending.goaway is not None


@EACH_TRANSPORT
async def test_a_result_that_never_ends(hostile: Hostile) -> None:
    """R21: it holds what has come of it; its caller's deadline fires, and ends it."""
    data: Any = "x" * 1000

    async def behave(raw: RawPeer) -> None:
        await raw.hears("call")
        await raw.says({"type": "result", "id": 1, "parts": 10_000_000})
        each = data.encode() if raw.encoding == "msgpack" else data
        with trio.move_on_after(0.2):
            while True:
                await raw.says({"type": "part", "id": 1, "data": each})
                await trio.sleep(0.01)
        await raw.hears("cancel")
        await raw.says({"type": "error", "id": 1, "error": {"code": "CANCELLED"}})
        call = await raw.hears("call")
        await raw.says({"type": "result", "id": call["id"], "value": 3})

    async with hostile(behave) as connection:
        with memory_growing_by_at_most(2_000_000):
            with trio.move_on_after(0.1) as scope:
                await connection.call("endless")
            assert scope.cancelled_caught
        assert await connection.call("add", 1, 2) == 3


#: A result, and what it raises where an int is due.
RESULTS: dict[str, Any] = {
    "text": "3",
    "half": 1.5,
    "nothing": None,
    "a bool": True,
    "much": list(range(1000)),
}


@EACH_TRANSPORT
@pytest.mark.parametrize("what", RESULTS)
async def test_a_result_of_the_wrong_type(what: str, hostile: Hostile) -> None:
    """It fails its call alone."""

    class Contract:
        @rpc
        async def add(self, a: int, b: int) -> int:
            raise NotImplementedError

    async def behave(raw: RawPeer) -> None:
        for value in (RESULTS[what], 3):
            call = await raw.hears("call")
            await raw.says({"type": "result", "id": call["id"], "value": value})

    async with hostile(behave) as connection:
        api = connection.proxy(Contract)
        with pytest.raises(InternalError):
            await api.add(1, 2)
        assert await api.add(1, 2) == 3


ERRORS: dict[str, tuple[dict[str, Any], type[RpcError]]] = {
    "a code that there is not": ({"code": "EVIL", "message": "x"}, RemoteError),
    "the name of a class": (
        {"code": "UNKNOWN", "name": "KeyboardInterrupt", "message": "x"},
        RemoteError,
    ),
    "the name of a module's": (
        {"code": "UNKNOWN", "name": "os.system", "data": ["x"]},
        RemoteError,
    ),
    "a code of ours": ({"code": "NOT_FOUND", "name": "SystemExit"}, NotFound),
    "a connection that is lost": ({"code": "UNAVAILABLE", "name": "ConnectionLost"}, Unavailable),
    "causes in causes": (
        {"code": "UNKNOWN", "causes": [{"code": "UNKNOWN", "causes": [{"code": "EVIL"}] * 100}]},
        RemoteError,
    ),
    "escapes": ({"code": "UNKNOWN", "name": "\x1b[31m", "message": "\n\u202e" * 100}, RemoteError),
}


@EACH_TRANSPORT
@pytest.mark.parametrize("what", ERRORS)
async def test_an_error_that_is_not_what_it_says(what: str, hostile: Hostile) -> None:
    """R22: its code is looked up where codes are, its name nowhere."""
    error, kind = ERRORS[what]

    async def behave(raw: RawPeer) -> None:
        call = await raw.hears("call")
        await raw.says({"type": "error", "id": call["id"], "error": error})
        call = await raw.hears("call")
        await raw.says({"type": "result", "id": call["id"], "value": 3})

    async with hostile(behave) as connection:
        with pytest.raises(RpcError) as caught:
            await connection.call("add", 1, 2)
        assert type(caught.value) is kind
        assert await connection.call("add", 1, 2) == 3


@EACH_TRANSPORT
async def test_calls_to_a_client_that_serves_nothing(hostile: Hostile) -> None:
    """Each is refused in the same words, and starts nothing."""
    answers: list[dict[str, Any]] = []

    async def behave(raw: RawPeer) -> None:
        await raw.hears("call")
        ids = range(2, 202, 2)
        await raw.says(*[{"type": "call", "id": id, "method": "aclose"} for id in ids])
        answers.extend([await raw.hears("error") for _ in ids])
        await raw.says({"type": "result", "id": 1, "value": 3})

    async with hostile(behave) as connection:
        assert await connection.call("add", 1, 2) == 3
    assert {answer["error"]["code"] for answer in answers} == {"UNIMPLEMENTED"}


@EACH_TRANSPORT
@pytest.mark.parametrize("code", ["ABORTED", "EVIL", "PROTOCOL_ERROR", "UNAUTHENTICATED"])
async def test_a_goodbye_with_a_code(code: str, hostile: Hostile) -> None:
    """R27: it is raised, and what it says is kept short."""

    async def behave(raw: RawPeer) -> None:
        await raw.hears("call")
        await raw.says({"type": "goaway", "code": code, "message": "\n\x1b[31m\u202e evil " * 500})

    with pytest.raises(RpcError) as caught:
        async with hostile(behave) as connection:
            await connection.call("add", 1, 2)
    assert len(str(caught.value)) <= 300
    assert isinstance(caught.value, LocalProtocolError) == (code == "PROTOCOL_ERROR")


@EACH_TRANSPORT
async def test_pings_of_a_server_that_reads_nothing(hostile: Hostile) -> None:
    """R24: the client does not read it any more, and gives it up."""

    async def behave(raw: RawPeer) -> None:
        flood = raw.says_so(*[{"type": "ping", "token": "x" * 100}] * 100)
        while True:
            await raw.send(flood)

    limits = Limits(
        max_waiting_control_bytes=20_000, ping_interval=0.5, ping_timeout=0.5, close_timeout=0.5
    )
    with memory_growing_by_at_most(6_000_000), pytest.raises(ConnectionLost):
        async with hostile(behave, limits=limits) as connection:
            await connection.call("wait")


# --- of WebSocket alone


@asynccontextmanager
async def answering(head: bytes, more: bytes, pause: float = 0) -> AsyncIterator[str]:
    """A server that answers a handshake like that, with more of it for as long as it can."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def serve() -> None:
        async with await listener.accept() as stream:
            raw = RawSocket(stream, client=False)
            with suppress(EOFError, trio.BrokenResourceError):
                await raw.hear_head()
                await raw.send(head)
                while more:
                    await raw.send(more)
                    await trio.sleep(pause)
                await raw.hear_the_end()

    async with listener, open_background_nursery() as nursery:
        nursery.start_soon(serve)
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"


REJECTION = b"HTTP/1.1 403 Forbidden\r\n"
CHUNKED = REJECTION + b"Transfer-Encoding: chunked\r\n\r\n"

ANSWERS: dict[str, tuple[bytes, bytes, float]] = {
    "an endless rejection body": (REJECTION + b"\r\n", b"x" * 100_000, 0),
    "an endless rejection body in chunks": (CHUNKED, b"5\r\nhello\r\n" * 1000, 0),
    "a rejection body that trickles": (CHUNKED, b"1\r\nx\r\n", 0.05),
    "a rejection body that is announced and does not come": (
        REJECTION + b"Content-Length: 1000000\r\n\r\n",
        b"",
        0,
    ),
    "endless headers": (b"HTTP/1.1 101 X\r\n", b"X-Evil: x\r\n" * 1000, 0),
    "headers that trickle": (b"HTTP/1.1 101 X\r\n", b"X: x\r\n", 0.05),
    "endless answers of 100": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 0),
    "no HTTP": (b"220 smtp.example.org ESMTP\r\n", b"", 0),
    "garbage": (bytes(range(256)), bytes(1000), 0),
    "no word": (b"", b"", 0),
    "bytes that are not ASCII in every header": (
        (
            b"HTTP/1.1 101 \xff\r\nUpgrade: \xff\r\nConnection: \xff\r\n"
            b"Sec-WebSocket-Accept: \xff\r\nSec-WebSocket-Protocol: \xff\r\nX: \xff\r\n\r\n"
        ),
        b"",
        0,
    ),
    "a rejection that is not ASCII": (
        b"HTTP/1.1 403 \xff\r\nX: \xff\r\nContent-Length: 4\r\n\r\n\xff\x1b[m",
        b"",
        0,
    ),
}


@OVER_WEBSOCKET
@pytest.mark.parametrize("what", ANSWERS)
async def test_an_answer_to_the_handshake_that_is_none(what: str, beside: Beside) -> None:
    """R25: the client gives up in time, with what it knows, and has read little of it."""
    limits = Limits(handshake_timeout=0.3, max_message_bytes=20_000)
    async with beside(), answering(*ANSWERS[what]) as url:
        with memory_growing_by_at_most(3_000_000), trio.fail_after(PATIENCE):
            with pytest.raises(RpcError) as caught:
                async with connect(url, limits=limits):
                    pass
        assert len(str(caught.value)) <= 400


@OVER_WEBSOCKET
async def test_closing_in_order_waits_for_the_servers_goodbye(hostile: Hostile) -> None:
    """The socket is not closed over the server's head, with its last words still under way."""
    over = []

    async def behave(raw: RawPeer) -> None:
        assert isinstance(raw, RawSocket)
        await raw.hears("goaway")
        closed = await raw.hear_frame()
        assert closed.close_code == 1000
        for _ in range(20):
            # Nothing but the socket's being closed would wake this.
            with trio.move_on_after(0.01) as waited:
                over.append(await raw.stream.receive_some())
            assert waited.cancelled_caught
        await raw.send_frame(CLOSE, closed.payload)

    async with hostile(behave):
        pass
    assert over == []


@OVER_WEBSOCKET
@pytest.mark.parametrize("what", ["a ping", "a message", "another close", "garbage"])
async def test_what_a_server_says_behind_its_close(what: str, hostile: Hostile) -> None:
    """Known to raise in the library's reader: the connection is over, and that is all."""
    behind = {
        "a ping": frame(PING, b"x", mask=False),
        "a message": frame(TEXT, b"[]", mask=False),
        "another close": frame(CLOSE, mask=False),
        "garbage": b"\xff" * 100,
    }

    async def behave(raw: RawPeer) -> None:
        assert isinstance(raw, RawSocket)
        await raw.hears("call")
        await raw.send_frame(CLOSE, b"\x03\xe8")
        heard = await raw.hear_frame()
        while heard.opcode != CLOSE:
            heard = await raw.hear_frame()
        await raw.send(behind[what])

    with pytest.raises(ConnectionLost, match="closed with code 1000"):
        async with hostile(behave) as connection:
            await connection.call("wait")


@OVER_WEBSOCKET
async def test_closing_in_order_has_a_bound(hostile: Hostile) -> None:
    """A server that never answers the close, or goes on and on, is left in close_timeout."""

    async def behave(raw: RawPeer) -> None:
        while True:
            await raw.says({"type": "pong"})
            await trio.sleep(0.001)

    async with hostile(behave, limits=Limits(close_timeout=0.3)):
        start = trio.current_time()
    assert trio.current_time() - start >= 0.3
