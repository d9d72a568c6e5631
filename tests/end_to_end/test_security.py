"""Who gets in, and what can be reached and learned from outside; over real sockets."""

from __future__ import annotations

import functools
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import trio

from tests.addresses import KINDS, address
from tests.end_to_end.network import SHORT, raw_client, serving, until
from tests.protocol.wire import message
from tests.service import Service
from tests.transports.rawsocket import BINARY, CONTINUATION, TEXT, RawSocket, frame, request
from trio_streamrpc import (
    Call,
    Connection,
    Handshake,
    Limits,
    PermissionDenied,
    RemoteError,
    RpcError,
    Server,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    connect,
    current_call,
    rpc,
    serve,
)
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.protocol.codecs import Encoding

HELLO = {"type": "hello", "version": 1}
WEBSOCKETS = [kind for kind in KINDS if kind.startswith("ws")]
OTHERS = [kind for kind in KINDS if not kind.startswith("ws")]


@asynccontextmanager
async def beside_an_innocent(
    service: object, url: str = "ws://127.0.0.1:0", **options: Any
) -> AsyncIterator[tuple[Server, Connection]]:
    """A server, and a client that was let in before and is served throughout."""
    server_options = {key: value for key, value in options.items() if key != "client"}
    async with serving(service, url, **server_options) as server:
        async with connect(server.url, **options.get("client", {})) as connection:
            yield server, connection
            with trio.fail_after(5):
                assert await connection.call("add", 1, 2) == 3
            await until(lambda: len(server.connections) == 1)


# --- origins


async def status_for(url: str, *lines: str) -> int:
    """What a server answers a browser that sends these headers."""
    async with raw_client(url) as raw:
        await raw.send(request("/", "streamrpc.1.msgpack", *lines))
        head = await raw.hear_head()
        status = int(head.split()[1])
        if status != 101:
            assert "upgrade: websocket" not in head.lower()
            await raw.hear_the_end()
        return status


LISTED = ["https://example.com", "http://localhost:8080"]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([], 101),
        (["Origin: https://example.com"], 101),
        (["Origin: https://example.com:443"], 101),
        (["Origin: HTTPS://EXAMPLE.com"], 101),
        (["Origin: http://localhost:8080"], 101),
        (["Origin: null"], 403),
        (["Origin: https://example.com:8443"], 403),
        (["Origin: http://example.com"], 403),
        (["Origin: https://example.com.evil.example"], 403),
        (["Origin: https://evil-example.com"], 403),
        (["Origin: https://example.co"], 403),
        (["Origin: https://localhost"], 403),
        (["Origin: http://localhost"], 403),
        (["Origin:"], 403),
        (["Origin: \xff\xfe"], 403),
        (["Origin: https://example.com", "Origin: https://example.com"], 403),
        (["Origin: https://example.com", "Origin: https://evil.example"], 403),
    ],
)
async def test_origins_that_are_listed_and_others(lines: list[str], status: int) -> None:
    """Refused with 403 before the upgrade; who sends none is no browser."""
    async with beside_an_innocent(Service(), allowed_origins=LISTED) as (server, _):
        assert await status_for(server.url, *lines) == status


async def test_by_default_only_pages_of_the_same_host() -> None:
    async with beside_an_innocent(Service()) as (server, _):
        netloc = server.url.removeprefix("ws://")
        host, _, port = netloc.partition(":")
        asked = request().replace(b"Host: localhost", f"Host: {netloc}".encode())
        for origin, status in (
            (f"http://{netloc}", 101),
            (f"https://{netloc}", 101),
            (f"http://{host}", 403),
            (f"http://{host}:{int(port) + 1}", 403),
            (f"http://localhost:{port}", 403),
            (f"http://{netloc}0", 403),
            ("null", 403),
            ("http://evil.example", 403),
        ):
            async with raw_client(server.url) as raw:
                line = f"Origin: {origin}\r\n\r\n".encode()
                await raw.send(asked.removesuffix(b"\r\n") + line)
                assert int((await raw.hear_head()).split()[1]) == status, origin


async def test_a_client_that_is_no_browser_may_name_an_origin() -> None:
    """It is told what a browser is, and raises it as what it is."""
    async with serving(Service(), allowed_origins=LISTED) as server:
        async with connect(server.url, headers={"Origin": LISTED[0]}) as connection:
            assert await connection.call("add", 1, 2) == 3
        with pytest.raises(PermissionDenied, match="HTTP status 403: this origin is not allowed"):
            async with connect(server.url, headers={"Origin": "https://evil.example"}):
                pytest.fail("the block must not begin")


@pytest.mark.parametrize("kind", OTHERS)
async def test_origins_where_no_browser_connects(kind: str) -> None:
    with address(kind) as (url, options, _):
        with pytest.raises(ValueError, match="no browser connects"):
            await serve(Service(), url, allowed_origins=LISTED, **options)


@pytest.mark.parametrize("bad", [["*"], ["null"], ["example.com"], ["https://example.com/"]])
async def test_an_entry_that_is_no_origin(bad: list[str]) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        await serve(Service(), "ws://127.0.0.1:0", allowed_origins=bad)
    with pytest.raises(TypeError):
        await serve(Service(), "ws://127.0.0.1:0", allowed_origins=bad[0])


# --- authenticate


class Who:
    """It notes every piece of a user's code that runs."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    @rpc
    async def am_i(self) -> Any:
        self.ran.append("am_i")
        return current_call().identity

    @rpc
    async def add(self, a: int, b: int) -> int:
        return a + b


async def by_token(handshake: Handshake) -> str:
    token = handshake.metadata.get("token")
    if token != "secret":
        raise Unauthenticated("there is no such token")
    return "alice"


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_credential_over_every_transport(kind: str, encoding: Encoding) -> None:
    service = Who()
    with address(kind) as (url, server_options, options):
        options["encoding"] = encoding
        async with serving(service, url, authenticate=by_token, **server_options) as server:
            async with connect(server.url, metadata={"token": "secret"}, **options) as connection:
                assert await connection.call("am_i") == "alice"
                [there] = server.connections
                assert there.identity == "alice"
                for metadata in ({}, {"token": "wrong"}, {"token": b"secret"}, {"token": None}):
                    with pytest.raises(Unauthenticated) as caught:
                        async with connect(server.url, metadata=metadata, **options):
                            pytest.fail("the block must not begin")
                    assert caught.value.message == "there is no such token"
                assert await connection.call("am_i") == "alice"
                assert len(server.connections) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_what_authenticate_is_given(kind: str) -> None:
    handshakes: list[Handshake] = []

    async def authenticate(handshake: Handshake) -> None:
        handshakes.append(handshake)

    with address(kind) as (url, server_options, options):
        async with serving(Who(), url, authenticate=authenticate, **server_options) as server:
            target = server.url
            if kind in WEBSOCKETS:
                target += "/market?token=a%20b"
                options["headers"] = {"X-Token": "abc"}
            async with connect(target, metadata={"who": b"\x00"}, **options) as connection:
                [handshake] = handshakes
                [there] = server.connections
                assert handshake.remote == there.remote
                assert handshake.metadata == {"who": b"\x00"}
                assert handshake.encoding == "msgpack"
                assert handshake.certificate is None
                if kind in WEBSOCKETS:
                    assert handshake.path == "/market"
                    assert handshake.query == {"token": "a b"}
                    assert handshake.headers["x-token"] == "abc"
                    assert handshake.headers["host"] == server.url.partition("//")[2]
                else:
                    assert (handshake.path, handshake.query, handshake.headers) == ("", {}, {})
                assert connection.alive


async def test_authenticate_runs_before_any_user_code(caplog: pytest.LogCaptureFixture) -> None:
    """Interceptors and handlers wait for it, and so does the answer to a ping."""
    service = Who()
    decide = trio.Event()

    async def authenticate(handshake: Handshake) -> str:
        service.ran.append("authenticate")
        await decide.wait()
        service.ran.append("decided")
        return "alice"

    async def intercept(call: Call, proceed: Any) -> Any:
        service.ran.append("interceptor")
        return await proceed()

    async with serving(service, authenticate=authenticate, interceptors=[intercept]) as server:
        async with raw_client(server.url) as raw:
            await raw.shake_hands()
            call = {"type": "call", "id": 1, "method": "am_i"}
            await raw.says(HELLO, {"type": "ping", "token": 7}, call)
            await raw.says({**call, "id": 3})
            await until(lambda: service.ran)
            with trio.move_on_after(0.1):
                await raw.hear_frame()
                pytest.fail("it must not be answered")
            assert service.ran == ["authenticate"]
            assert server.connections == frozenset()
            decide.set()
            assert (await raw.hears())["type"] == "hello"
            assert (await raw.hears())["type"] == "pong"
            assert (await raw.hears())["value"] == "alice"
            assert (await raw.hears())["value"] == "alice"
    assert service.ran == ["authenticate", "decided", *["interceptor", "am_i"] * 2]


async def test_who_is_refused_reaches_nothing() -> None:
    """Not with what it has sent before it was refused, nor with what it sends after."""
    service = Who()

    async def authenticate(handshake: Handshake) -> None:
        raise PermissionDenied("go away")

    async with serving(service, authenticate=authenticate, limits=SHORT) as server:
        async with raw_client(server.url) as raw:
            await raw.shake_hands()
            call = {"type": "call", "id": 1, "method": "am_i"}
            await raw.says(HELLO, call)
            await raw.says({**call, "id": 3})
            assert await raw.hears() == {
                "type": "goaway",
                "code": "PERMISSION_DENIED",
                "message": "go away",
            }
            await raw.says({**call, "id": 5})
            [close] = await raw.hear_the_end()
            assert close.close_code == 1008
            assert close.payload[2:] == b"go away"
    assert service.ran == []


@pytest.mark.parametrize("kind", ["ws", "tcp"])
async def test_an_authenticate_that_fails(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """One client is refused, without a word of why; it is logged once, and others are served."""
    broken = False

    async def authenticate(handshake: Handshake) -> str:
        if broken:
            raise KeyError(f"the secret\n{handshake.metadata['who']}")
        return "alice"

    metadata = {"who": "\x1b[31m" + "x" * 1000}
    async with beside_an_innocent(Who(), f"{kind}://127.0.0.1:0", authenticate=authenticate) as (
        server,
        _,
    ):
        broken = True
        with pytest.raises(Unauthenticated) as caught:
            async with connect(server.url, metadata=metadata):
                pytest.fail("the block must not begin")
        assert caught.value.message == "authentication failed"
        assert caught.value.data is None
        broken = False
    [record] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    first = record.getMessage().partition("\n")[0]
    assert first.startswith("authenticate failed, and the client was refused: KeyError: ")
    assert len(first) < 300
    assert "\x1b" not in record.getMessage()
    assert "test_security.py" in record.getMessage()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_authenticate_that_hangs(kind: str) -> None:
    """Limits.handshake_timeout is for all of it; who was let in before is served meanwhile."""
    hanging = cancelled = False

    async def authenticate(handshake: Handshake) -> None:
        nonlocal cancelled
        if hanging:
            try:
                await trio.sleep_forever()
            finally:
                cancelled = True

    limits = Limits(handshake_timeout=0.5, close_timeout=1)
    with address(kind) as (url, server_options, options):
        async with beside_an_innocent(
            Who(), url, authenticate=authenticate, limits=limits, client=options, **server_options
        ) as (server, _):
            hanging = True
            with trio.fail_after(5):
                with pytest.raises(Unavailable, match=r"took longer than 0\.5 s"):
                    async with connect(server.url, **options):
                        pytest.fail("the block must not begin")
            assert cancelled


async def test_a_client_that_goes_away_meanwhile() -> None:
    """The decision is cancelled, and nothing is left of it."""
    begun, cancelled = trio.Event(), trio.Event()

    async def authenticate(handshake: Handshake) -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serving(Who(), authenticate=authenticate) as server:
        async with raw_client(server.url) as raw:
            await raw.shake_hands()
            await raw.says(HELLO)
            with trio.fail_after(5):
                await begun.wait()
        with trio.fail_after(5):
            await cancelled.wait()


async def test_a_drain_meanwhile() -> None:
    """R27: who is not in yet is told to go elsewhere, and the drain does not wait for it."""
    begun = trio.Event()

    async def authenticate(handshake: Handshake) -> None:
        begun.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            functools.partial(serve, Who(), "ws://127.0.0.1:0", authenticate=authenticate)
        )
        errors: list[RpcError] = []

        async def knock() -> None:
            try:
                async with connect(server.url):
                    pytest.fail("the block must not begin")
            except RpcError as error:
                errors.append(error)

        async with trio.open_nursery() as clients:
            clients.start_soon(knock)
            with trio.fail_after(5):
                await begun.wait()
                await server.drain()
        [error] = errors
        assert isinstance(error, Unavailable)
        assert error.message == "this server is going away"


async def test_serve_is_cancelled_meanwhile() -> None:
    begun, cancelled = trio.Event(), trio.Event()

    async def authenticate(handshake: Handshake) -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(Who(), authenticate=authenticate))
        raw = await stack.enter_async_context(raw_client(server.url))
        await raw.shake_hands()
        await raw.says(HELLO)
        with trio.fail_after(5):
            await begun.wait()
    assert cancelled.is_set()


async def test_an_interrupt_in_authenticate_ends_the_server() -> None:
    """KeyboardInterrupt is nobody's refusal."""

    async def authenticate(handshake: Handshake) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with serving(Who(), authenticate=authenticate) as server:
            with pytest.raises(RpcError):
                async with connect(server.url):
                    pytest.fail("the block must not begin")
            await trio.sleep_forever()


# --- the smaller budget before it


def ping_of(size: int) -> dict[str, Any]:
    """A ping whose message is as long as that."""
    ping = {"type": "ping", "token": "x" * (size - 6)}
    assert len(message("msgpack", ping)) == size
    return ping


@asynccontextmanager
async def undecided(limits: Limits) -> AsyncIterator[tuple[RawSocket, trio.Event]]:
    """A client that has said hello to a server that has not decided about it."""
    asked, decide = trio.Event(), trio.Event()

    async def authenticate(handshake: Handshake) -> str:
        asked.set()
        await decide.wait()
        return "alice"

    async with serving(Who(), authenticate=authenticate, limits=limits) as server:
        async with raw_client(server.url) as raw:
            await raw.shake_hands()
            await raw.says(HELLO)
            with trio.fail_after(5):
                await asked.wait()
                yield raw, decide


async def test_bytes_before_authentication() -> None:
    """Limits.max_early_bytes: at the limit it may be let in, and past it, it is cut off."""
    left = 4000 - len(message("msgpack", HELLO))
    limits = Limits(max_early_bytes=4000, close_timeout=1)
    async with undecided(limits) as (raw, decide):
        await raw.says(ping_of(left))
        decide.set()
        assert (await raw.hears())["type"] == "hello"
        assert (await raw.hears())["type"] == "pong"
    async with undecided(limits) as (raw, _):
        await raw.says(ping_of(left + 1))
        said = await raw.hears()
        assert (said["type"], said["code"]) == ("goaway", "PROTOCOL_ERROR")
        [close] = await raw.hear_the_end()
        assert close.close_code == 1009


async def test_bytes_without_a_message_before_authentication() -> None:
    """What is not whole is bounded by the same, and not by what a client that is known may send."""
    limits = Limits(max_early_bytes=10_000, close_timeout=1)
    async with undecided(limits) as (raw, decide):
        await raw.send(frame(BINARY, bytes(1000), fin=False))
        with pytest.raises(trio.BrokenResourceError):
            for _ in range(1000):
                await raw.send(frame(CONTINUATION, bytes(1000), fin=False))
                await trio.sleep(0.001)
    async with undecided(limits) as (raw, decide):
        decide.set()
        await raw.hears("hello")
        await raw.says({"type": "ping", "token": "x" * 100_000})
        assert (await raw.hears())["type"] == "pong"


async def test_calls_before_authentication() -> None:
    """Limits.max_early_frames, the same."""
    calls = [{"type": "call", "id": id, "method": "am_i"} for id in range(1, 9, 2)]
    limits = Limits(max_early_frames=3, close_timeout=1)
    async with undecided(limits) as (raw, decide):
        await raw.says(*calls[:3])
        decide.set()
        assert [(await raw.hears("result"))["value"] for _ in range(3)] == ["alice"] * 3
    async with undecided(limits) as (raw, _):
        await raw.says(*calls)
        said = await raw.hears()
        assert (said["type"], said["code"]) == ("goaway", "PROTOCOL_ERROR")
        [close] = await raw.hear_the_end()
        assert close.close_code == 1008


async def test_a_flood_before_authentication_is_not_read() -> None:
    """R25: a message behind the hello's, and no more; what is behind that waits in the sockets."""
    limits = Limits(max_early_bytes=20_000, close_timeout=1)
    async with undecided(limits) as (raw, decide):
        for id in (1, 3):
            await raw.says({"type": "call", "id": id, "method": "am_i"})
        await trio.sleep(0.05)
        decide.set()
        assert [(await raw.hears("result"))["id"] for _ in range(2)] == [1, 3]


# --- connection caps


async def full(url: str, options: dict[str, Any]) -> RpcError:
    with trio.fail_after(5):
        with pytest.raises(RpcError) as caught:
            async with connect(url, **options):
                pytest.fail("the block must not begin")
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
async def test_connections_in_all(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Limits.max_connections: as many are served, the next is refused, and a place comes back."""
    caplog.set_level(logging.INFO, "trio_streamrpc")
    limits = Limits(max_connections=3)
    with address(kind) as (url, server_options, options):
        async with serving(Who(), url, limits=limits, **server_options) as server:
            async with AsyncExitStack() as stack:
                connections = [
                    await stack.enter_async_context(connect(server.url, **options))
                    for _ in range(3)
                ]
                for _ in range(5):
                    error = await full(server.url, options)
                    assert isinstance(error, Unavailable)
                    if kind == "ws":
                        assert "HTTP status 503" in str(error)
                for each in connections:
                    assert await each.call("add", 1, 2) == 3
                assert len(server.connections) == 3
                await connections[0].aclose()
                await until(lambda: len(server.connections) == 2)
                await let_in(server.url, options)
                for each in connections[1:]:
                    assert await each.call("add", 1, 2) == 3
    assert set(caplog.messages) == {"a client was refused: there are 3 connections"}


async def let_in(url: str, options: dict[str, Any]) -> None:
    """A place is free as soon as the connection that had it has ended, which takes a moment."""
    with trio.fail_after(5):
        while True:
            try:
                async with connect(url, **options) as connection:
                    assert await connection.call("add", 1, 2) == 3
                    return
            except Unavailable:
                await trio.sleep(0.01)


@pytest.mark.parametrize("kind", [each for each in KINDS if each != "unix"])
async def test_connections_of_one_address(kind: str) -> None:
    """Limits.max_connections_per_peer: another address is served all the same."""
    limits = Limits(max_connections_per_peer=2)
    with address(kind) as (url, server_options, options):
        url = url.replace("127.0.0.1", "localhost")
        async with serving(Who(), url, limits=limits, **server_options) as server:
            port = server.url.rpartition(":")[2]
            here = f"{kind}://127.0.0.1:{port}"
            async with connect(here, **options), connect(here, **options) as connection:
                assert isinstance(await full(here, options), Unavailable)
                assert await connection.call("add", 1, 2) == 3
                if socket.has_ipv6 and len(await addresses_of("localhost")) > 1:
                    await let_in(f"{kind}://localhost:{port}", options)
            await let_in(here, options)


async def addresses_of(host: str) -> set[str]:
    found = await trio.socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    return {str(each[4][0]) for each in found}


async def test_connections_of_a_unix_socket_are_no_peers() -> None:
    limits = Limits(max_connections_per_peer=1)
    with address("unix") as (url, _, _):
        async with serving(Who(), url, limits=limits) as server:
            async with connect(server.url) as one, connect(server.url) as other:
                assert await one.call("add", 1, 2) == await other.call("add", 1, 2) == 3


async def test_connections_that_never_shake_hands_count() -> None:
    """From accept to the end; and who is turned away holds nothing, however many come."""
    limits = Limits(max_connections=3, handshake_timeout=60, close_timeout=1)
    async with serving(Who(), limits=limits) as server:
        async with AsyncExitStack() as stack:
            silent = [await stack.enter_async_context(raw_client(server.url)) for _ in range(3)]
            for _ in range(10):
                error = await full(server.url, {})
                assert "HTTP status 503" in str(error)
            await silent[0].stream.aclose()
            await let_in(server.url, {})


async def test_a_storm_of_clients_that_are_turned_away() -> None:
    """The accept loop goes on; who has a place is served throughout."""
    limits = Limits(max_connections=1)
    async with serving(Who(), limits=limits) as server:
        async with connect(server.url) as connection:
            async with trio.open_nursery() as nursery:

                async def knock() -> None:
                    async with raw_client(server.url) as raw:
                        with suppress(trio.BrokenResourceError):
                            await raw.stream.receive_some()

                for _ in range(300):
                    nursery.start_soon(knock)
                for number in range(50):
                    with trio.fail_after(5):
                        assert await connection.call("add", number, 1) == number + 1
            assert len(server.connections) == 1
        await let_in(server.url, {})


# --- what can be reached


class Base:
    @rpc
    async def inherited(self) -> str:
        return "marked"

    async def inherited_plain(self) -> str:
        raise AssertionError("not marked")


class Hidden(Base):
    """What is public in Python, and not exposed."""

    secret = "secret"

    @rpc
    async def a(self) -> str:
        return "a"

    async def plain(self) -> str:
        raise AssertionError("not marked")

    async def _private(self) -> str:
        raise AssertionError("not marked")

    @property
    def value(self) -> str:
        raise AssertionError("not marked")

    @staticmethod
    def static() -> str:
        raise AssertionError("not marked")


NAMES = [
    "nothing",
    "",
    ".",
    "..",
    ".a",
    "a.",
    "a..a",
    "a.a",
    "a.__globals__",
    "a.__func__.__globals__",
    "__class__",
    "__class__.__mro__",
    "__init__",
    "__dict__",
    "__getattribute__",
    "__reduce_ex__",
    "_private",
    "plain",
    "inherited_plain",
    "value",
    "static",
    "secret",
    "rpc",
    "self",
    "A",
    " a",
    "a ",
    "a\x00",
    "a\n",
    "\u0430",  # CYRILLIC SMALL LETTER A
    "\uff41",  # FULLWIDTH LATIN SMALL LETTER A
    "a\u200b",
    "a\u0301",
    "\u202ea",
    "a" * 256,
    "a" * 257,
    ".".join("a" * 128),
    ".".join("a" * 100_000),
    "a" * 500_000,
    "../a",
    "a()",
    "%61",
    "🙂",
]


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_names_that_are_not_exposed(encoding: Encoding) -> None:
    """UNIMPLEMENTED, and the same bytes back as for any unknown name."""
    answers: dict[str, bytes] = {}
    opcode = BINARY if encoding == "msgpack" else TEXT
    async with serving(Hidden()) as server:
        for name in NAMES:
            async with raw_client(server.url) as raw:
                await raw.greets(encoding)
                await raw.says({"type": "call", "id": 1, "method": name})
                heard = await raw.hear_frame()
                assert heard.opcode == opcode
                answers[name[:100]] = heard.payload
        async with connect(server.url, encoding=encoding) as connection:
            assert await connection.call("a") == "a"
            assert await connection.call("inherited") == "marked"
            for name in NAMES:
                with pytest.raises(Unimplemented):
                    await connection.call(name)
    [answer] = set(answers.values())
    assert b"UNIMPLEMENTED" in answer
    assert b"no such method" in answer


async def test_names_below_namespaces_and_objects() -> None:
    """The same there: what is nested is looked up in the same way."""

    class Nested:
        inner: Hidden

        def __init__(self) -> None:
            self.inner = Hidden()

    async with serving(Nested()) as server, connect(server.url) as connection:
        assert await connection.call("inner.a") == "a"
        for name in NAMES:
            for dotted in (f"inner.{name}", f"{name}.inner.a", f"inner.a.{name}"):
                with pytest.raises(Unimplemented):
                    await connection.call(dotted)
        for name in ("inner", "inner.inner.a", "inner.__class__.a"):
            with pytest.raises(Unimplemented):
                await connection.call(name)


# --- what can be learned


class Leaky:
    @rpc
    async def fail(self) -> None:
        error = SecretFailure("the secret 4711")
        error.add_note("the secret 4711")
        raise error from SecretFailure("the secret 4711")

    @rpc
    async def fail_in_a_group(self) -> None:
        raise ExceptionGroup("the secret 4711", [SecretFailure("the secret 4711")])

    @rpc
    async def fail_later(self) -> AsyncIterator[int]:
        yield 1
        raise SecretFailure("the secret 4711")

    @rpc
    async def fail_to_clean_up(self) -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            raise SecretFailure("the secret 4711")

    @rpc
    async def chosen(self) -> None:
        raise PermissionDenied("this is meant to be told")


class SecretFailure(Exception):
    """Its name, its message and its notes are not for the other side."""


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_masked_errors_are_nowhere_on_the_wire(
    encoding: Encoding, caplog: pytest.LogCaptureFixture
) -> None:
    """Every byte that comes back, through a relay that keeps them."""
    async with serving(Leaky(), mask_errors=True) as server:
        async with raw_client(server.url) as raw:
            stream = Recorded(raw.stream)
            raw.stream = stream
            await raw.greets(encoding)
            window = {"items": 1, "bytes": 1000}
            await raw.says({"type": "call", "id": 1, "method": "fail"})
            await raw.says({"type": "call", "id": 3, "method": "fail_in_a_group"})
            await raw.says({"type": "call", "id": 5, "method": "fail_later", "window": window})
            for _ in range(2):
                assert (await raw.hears("error"))["error"]["code"] == "INTERNAL"
            await raw.says({"type": "grant", "id": 5, "items": 5, "bytes": 5000})
            assert (await raw.hears("error"))["error"]["code"] == "INTERNAL"
            await raw.says(
                {"type": "call", "id": 7, "method": "fail_to_clean_up", "window": window}
            )
            await raw.hears("chunk")
            await raw.says({"type": "cancel", "id": 7, "mode": "close"})
            said = await raw.hears("error")
            assert (said["error"]["code"], said["cleanup"]) == ("INTERNAL", True)
            await raw.says({"type": "call", "id": 9, "method": "chosen"})
            assert (await raw.hears("error"))["error"]["message"] == "this is meant to be told"
    for secret in (b"4711", b"secret", b"Secret", b"group", b"Group", b"Traceback", b".py"):
        assert secret not in stream.heard
    assert caplog.text.count("the secret 4711") >= 4


class Recorded(trio.abc.Stream):
    """A stream that keeps what comes in."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.heard = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.stream.receive_some(max_bytes)
        self.heard += data
        return data

    async def aclose(self) -> None:
        await self.stream.aclose()


@pytest.mark.parametrize(
    "name",
    [
        "KeyboardInterrupt",
        "SystemExit",
        "trio.Cancelled",
        "builtins.OSError",
        "Listed",
        "os.system",
    ],
)
async def test_an_error_name_is_never_looked_up(name: str) -> None:
    """It is only shown: what is raised goes by the code, and by what the method has listed."""

    class Contract:
        @rpc(errors=(Listed,))
        async def listed(self) -> None: ...

        @rpc
        async def other(self) -> None: ...

    async def hostile(stream: trio.SocketStream) -> None:
        raw = RawSocket(stream, client=False)
        await raw.take_hand()
        await raw.hears("hello")
        await raw.says(HELLO)
        while True:
            call = await raw.hears("call")
            cause = {"code": "UNKNOWN", "name": name, "message": "m"}
            info = {**cause, "data": ["x"], "causes": [cause]}
            await raw.says({"type": "error", "id": call["id"], "error": info})

    async with open_background_nursery() as nursery:
        [listener] = await nursery.start(
            functools.partial(trio.serve_tcp, until_gone(hostile), 0, host="127.0.0.1")
        )
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with connect(url, limits=SHORT) as connection:
            contract = connection.proxy(Contract)
            for method in (contract.other, contract.listed):
                with pytest.raises(Exception) as caught:
                    await method()
                if name == "Listed" and method is contract.listed:
                    assert type(caught.value) is Listed
                    continue
                assert type(caught.value) is RemoteError
                assert caught.value.name == name
                assert [type(each) for each in caught.value.causes] == [RemoteError]
            assert Listed.made == (1 if name == "Listed" else 0)
    Listed.made = 0


class Listed(Exception):
    """The one that a method has listed; it counts how often it is made."""

    made = 0

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        Listed.made += 1


def until_gone(
    handle: Callable[[trio.SocketStream], Awaitable[None]],
) -> Callable[[trio.SocketStream], Awaitable[None]]:
    async def guarded(stream: trio.SocketStream) -> None:
        with suppress(EOFError, trio.BrokenResourceError):
            await handle(stream)

    return guarded
