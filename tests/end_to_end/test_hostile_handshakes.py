"""Handshakes that are none, trickle, stall or vanish: in time they are hung up on (R25)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio

from tests.addresses import client_context, server_context
from tests.end_to_end.innocent import (
    EACH_TRANSPORT,
    OVER_TCP,
    OVER_WEBSOCKET,
    PATIENCE,
    Beside,
    Scene,
    memory_growing_by_at_most,
)
from tests.end_to_end.network import SHORT, address_of, reset, serving, until
from tests.service import Service
from tests.transports.rawpeer import RawPeer
from tests.transports.rawsocket import RawSocket, request
from tests.transports.rawstream import RawStream
from trio_streamrpc import Limits, connect

#: In all, however it goes about it.
LIMITS = Limits(handshake_timeout=0.3, close_timeout=0.5)

UPGRADE = request()
PROTOCOL = "streamrpc.1.json"


def without(line: bytes) -> bytes:
    return b"".join(each for each in UPGRADE.splitlines(True) if not each.startswith(line))


def changed(old: str, new: str) -> bytes:
    assert old.encode() in UPGRADE
    return UPGRADE.replace(old.encode(), new.encode("latin-1"))


#: What is no handshake, or a strange one: and what its answer begins with, if it gets one at all.
REFUSED = b"HTTP/1.1 4"
ACCEPTED = b"HTTP/1.1 101 "

REQUESTS: dict[str, tuple[bytes, bytes]] = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", REFUSED),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", REFUSED),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), REFUSED),
    "POST": (changed("GET /", "POST /"), REFUSED),
    "a body": (changed("Host:", "Content-Length: 9\r\nHost:") + b"\x82\x7f" * 5, REFUSED),
    "a body to come": (changed("Host:", "Content-Length: 9\r\nHost:"), REFUSED),
    "garbage": (bytes(range(256)) * 10, REFUSED),
    "zeros": (bytes(100_000), REFUSED),
    "lines without end": (b"\r\n" * 50_000, REFUSED),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), REFUSED),
    "the preface of a byte stream": (b"TSR1m", REFUSED),
    "no subprotocol": (request("/", ""), REFUSED),
    "another subprotocol": (request("/", "chat, streamrpc.2.json"), REFUSED),
    "a subprotocol that is no token": (request("/", "\x7f\xff"), REFUSED),
    "no key": (without(b"Sec-WebSocket-Key"), REFUSED),
    "a key that is none": (changed("dGhlIHNhbXBsZSBub25jZQ==", "short"), ACCEPTED),
    "no version": (without(b"Sec-WebSocket-Version"), REFUSED),
    "another version": (changed("Version: 13", "Version: 8"), REFUSED),
    "no upgrade": (without(b"Upgrade"), REFUSED),
    "an upgrade to something else": (changed("Upgrade: websocket", "Upgrade: h2c"), REFUSED),
    "no host": (without(b"Host"), REFUSED),
    "two hosts": (changed("Host:", "Host: other\r\nHost:"), REFUSED),
    "a path that is none": (request("//["), ACCEPTED),
    "a path of 100,000 characters": (request("/" + "x" * 100_000), REFUSED),
    "a header of 100,000 characters": (request("/", PROTOCOL, "X: " + "x" * 100_000), REFUSED),
    "10,000 headers": (request("/", PROTOCOL, *[f"X-{n}: x" for n in range(10_000)]), REFUSED),
    "10,000 headers of one name": (request("/", PROTOCOL, *["X: x"] * 10_000), REFUSED),
    "a header without a colon": (request("/", PROTOCOL, "nothing"), REFUSED),
    "a header over two lines": (request("/", PROTOCOL, "X: x\r\n  y"), ACCEPTED),
    "a line feed alone": (UPGRADE.replace(b"\r\n", b"\n"), ACCEPTED),
    "a NUL in a header": (request("/", PROTOCOL, "X: \x00"), REFUSED),
    **{
        f"bytes that are not ASCII in {name}": (changed(f"{name}: ", f"{name}: \xff\xfe"), answer)
        for name, answer in {
            "Host": REFUSED,
            "Upgrade": REFUSED,
            "Connection": REFUSED,
            "Sec-WebSocket-Key": ACCEPTED,
            "Sec-WebSocket-Version": REFUSED,
            "Sec-WebSocket-Protocol": REFUSED,
        }.items()
    },
    **{
        f"bytes that are not ASCII in {name}": (
            request("/", PROTOCOL, f"{name}: \xff\xfe"),
            answer,
        )
        for name, answer in {
            # Whether such an origin is welcome is another question.
            "Origin": b"HTTP/1.1 ",
            "Cookie": ACCEPTED,
            "Sec-WebSocket-Extensions": REFUSED,
            "Content-Length": REFUSED,
            "X-\xff": REFUSED,
        }.items()
    },
    "bytes that are not ASCII in the path": (request("/\xff\xfe"), REFUSED),
}


async def told(raw: RawPeer) -> bytes:
    """All that is said until the socket is closed."""
    said = b""
    with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError):
        while data := await raw.stream.receive_some():
            said += data
    return said


@OVER_WEBSOCKET
@pytest.mark.parametrize("what", REQUESTS)
async def test_a_request_that_is_no_handshake(what: str, beside: Beside) -> None:
    """It gets no connection; most are hung up on at once, and all of them in time."""
    data, answer = REQUESTS[what]
    async with beside(limits=LIMITS) as scene:
        async with scene.connected() as raw:
            with memory_growing_by_at_most(2_000_000), suppress(trio.BrokenResourceError):
                await raw.send(data)
            said = await told(raw)
            # Those that can be are accepted; a hello does not follow. Where something was sent that
            # was not read, a reset may overtake what was said.
            assert said.startswith(answer) or not said


#: Of a byte stream, whose first five bytes say what it is.
PREFACES: dict[str, bytes] = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "another version": b"TSR2m",
    "another encoding": b"TSR1x",
    "bytes that are not ASCII": b"TSR1\xff",
    "garbage": bytes(range(256)) * 1000,
}


@OVER_TCP
@pytest.mark.parametrize("what", PREFACES)
async def test_a_preface_that_is_none(what: str, beside: Beside) -> None:
    """R3: it is hung up on at once, and told nothing."""
    async with beside(limits=Limits(close_timeout=0.5)) as scene, scene.connected() as raw:
        with suppress(trio.BrokenResourceError):
            await raw.send(PREFACES[what])
        assert await told(raw) == b""


def handshake(scene: Scene) -> bytes:
    return UPGRADE if scene.kind == "ws" else b"TSR1m"


@EACH_TRANSPORT
async def test_handshakes_that_trickle(beside: Beside) -> None:
    """R25: many at once, and each byte is no reason to wait longer."""
    async with beside(limits=LIMITS) as scene:

        async def trickle() -> None:
            async with scene.connected() as raw:
                with suppress(trio.BrokenResourceError):
                    for byte in handshake(scene)[:-1]:
                        await raw.send(bytes([byte]))
                        await trio.sleep(0.1)
                assert await told(raw) == b""

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(trickle)


@EACH_TRANSPORT
@pytest.mark.parametrize("end", ["stall", "close", "reset"])
async def test_handshakes_that_stop_half_way(end: str, beside: Beside) -> None:
    """R25: in every place; who vanishes holds nothing for any time, and who stalls not for long."""
    async with beside(limits=LIMITS) as scene:
        whole = handshake(scene)

        async def stop(length: int) -> None:
            async with scene.connected() as raw:
                await raw.send(whole[:length])
                if end == "reset":
                    assert isinstance(raw.stream, trio.SocketStream)
                    reset(raw.stream)
                elif end == "stall":
                    await told(raw)

        async with trio.open_nursery() as nursery:
            for length in range(0, len(whole) + 1, 1 if scene.kind == "tcp" else 8):
                nursery.start_soon(stop, length)


@EACH_TRANSPORT
async def test_handshakes_and_no_hello(beside: Beside) -> None:
    """R25: the same time holds until hello has come, trickle as it may."""
    async with beside(limits=LIMITS) as scene, scene.connected() as raw:
        await raw.shakes_hands(scene.encoding)
        with suppress(trio.BrokenResourceError):
            for byte in raw.says_so({"type": "hello", "version": 1})[:-1]:
                await raw.send(bytes([byte]))
                await trio.sleep(0.1)
        await told(raw)


@pytest.mark.parametrize("kind", ["tls", "wss"])
@pytest.mark.parametrize("end", ["no notify", "reset", "garbage"])
async def test_a_tls_client_that_goes_without_notify(kind: str, end: str, caplog: Any) -> None:
    """The connection is lost, what it ran is ended, and there is nothing to log."""
    caplog.set_level("INFO", "trio_streamrpc")
    service = Service()
    options = {"ssl_context": server_context(), "limits": SHORT}
    async with serving(service, f"{kind}://127.0.0.1:0", **options) as server:
        async with connect(server.url, ssl_context=client_context()) as innocent:
            tcp = await trio.open_tcp_stream(*address_of(server.url))
            tls = trio.SSLStream(tcp, client_context(), server_hostname="127.0.0.1")
            raw = RawSocket(tls) if kind == "wss" else RawStream(tls)
            with trio.fail_after(PATIENCE):
                await raw.greets()
                await raw.says({"type": "call", "id": 1, "method": "wait"})
                await service.wait_running()
                if end == "reset":
                    reset(tcp)
                else:
                    if end == "garbage":
                        await tcp.send_all(b"\xff" * 100)
                    await tcp.aclose()
                await service.wait_ended()
                await until(lambda: len(server.connections) == 1)
                assert await innocent.call("add", 1, 2) == 3
    assert caplog.records == []
