"""WebSocket that is none: what the library underneath lets go wrong ends its connection alone."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio

from tests.end_to_end.innocent import (
    OVER_WEBSOCKET,
    PATIENCE,
    Beside,
    Scene,
    ends,
    memory_growing_by_at_most,
    serves_on,
)
from tests.protocol.wire import message
from tests.transports.rawpeer import Ending
from tests.transports.rawsocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawSocket,
    frame,
)
from trio_streamrpc import Limits

pytestmark = OVER_WEBSOCKET

HELLO = bytes(message("msgpack", {"type": "hello", "version": 1}))  # type: ignore[arg-type]


def close(code: int | bytes, reason: bytes = b"") -> bytes:
    payload = code if isinstance(code, bytes) else code.to_bytes(2, "big") + reason
    return frame(CLOSE, payload)


async def breaks_off(scene: Scene, raw: Any, data: bytes) -> Ending:
    """What it hears, until it is hung up on; what it runs is ended by then."""
    await raw.says({"type": "call", "id": 1, "method": "wait"})
    await scene.service.wait_running(2)

    async def send() -> None:
        with suppress(trio.BrokenResourceError):
            await raw.send(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        ending = await ends(raw)
        nursery.cancel_scope.cancel()
    with trio.fail_after(PATIENCE):
        await scene.service.wait_ended()
    return ending


#: What is not allowed in a frame. WebSocket hangs up without a word.
FRAMES: dict[str, bytes] = {
    "RSV1": b"\xc2\x80" + bytes(4),
    "RSV2": b"\xa2\x80" + bytes(4),
    "RSV3": b"\x92\x80" + bytes(4),
    **{f"opcode {opcode}": frame(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "no mask": frame(BINARY, b"x", mask=False),
    "a ping without a mask": frame(PING, b"x", mask=False),
    "a fragment of a ping": frame(PING, b"x", fin=False),
    "a ping of 126 bytes": frame(PING, bytes(126)),
    "a close of 126 bytes": frame(CLOSE, b"\x03\xe8" + b"x" * 124),
    "a continuation of nothing": frame(CONTINUATION, b"x"),
    "a message in another": frame(BINARY, b"x", fin=False) + frame(BINARY, b"x"),
    "a length in more bytes than it needs": b"\x82\xfe\x00\x01" + bytes(5),
    "a length in far more bytes than it needs": b"\x82\xff" + bytes(7) + b"\x01" + bytes(5),
    "a length above 2^63": b"\x82\xff" + b"\xff" * 8 + bytes(4),
    "text that is no UTF-8": frame(TEXT, b"\xff"),
    "text that ends in half a character": frame(TEXT, b"\xc3"),
    "half a character in each fragment": frame(TEXT, b"\xc3", fin=False)
    + frame(CONTINUATION, b"\xc3"),
    "a lone surrogate": frame(TEXT, b"\xed\xa0\x80"),
    "a close of one byte": close(b"\x03"),
    "a close whose reason is no UTF-8": close(1000, b"\xff"),
    **{
        f"a close with code {code}": close(code)
        for code in (0, 999, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "garbage": b"\xff" * 1000,
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("what", FRAMES)
async def test_a_frame_that_is_none(what: str, beside: Beside) -> None:
    """It is hung up on at once."""
    async with beside() as scene, scene.greeted() as raw:
        assert await breaks_off(scene, raw, FRAMES[what]) == Ending()


#: What a peer may close with; it is answered the same.
CLOSES: dict[str, tuple[bytes, int | None]] = {
    "no code": (close(b""), None),
    **{f"code {code}": (close(code), code) for code in (1000, 1001, 1011, 3000, 4999)},
    "a reason": (close(1000, "\n\x1b[31m\u202eevil".encode() * 8), 1000),
    "the longest reason": (close(1000, b"x" * 123), 1000),
}

BEHIND: dict[str, bytes] = {
    "nothing": b"",
    "a ping": frame(PING, b"x"),
    "a pong": frame(PONG),
    "messages": frame(BINARY, HELLO) * 3,
    "another close": close(1001),
    "a message too long": frame(BINARY, bytes(100_000)),
    "garbage": b"\xff" * 100,
}


@pytest.mark.parametrize("what", CLOSES)
async def test_a_close_in_order(what: str, beside: Beside) -> None:
    """And nothing of what it says is in the log as it came."""
    data, code = CLOSES[what]
    async with beside() as scene, scene.greeted() as raw:
        assert isinstance(raw, RawSocket)
        ending = await breaks_off(scene, raw, data)
        # One without a code is answered without one.
        assert ending == Ending(close_code=code or 0)


@pytest.mark.parametrize("what", BEHIND)
async def test_what_comes_behind_a_close(what: str, beside: Beside) -> None:
    """Known to end a stock server for everybody: here it is nothing at all."""
    async with beside() as scene, scene.greeted() as raw:
        ending = await breaks_off(scene, raw, close(1000) + BEHIND[what])
        # Unread bytes make a reset of the end, which may overtake the answer.
        assert ending in (Ending(), Ending(close_code=1000))


@pytest.mark.parametrize(
    "answer", ["never", "by its own close", "by a ping", "by messages without end"]
)
async def test_a_close_of_ours_that_is_not_answered(answer: str, beside: Beside) -> None:
    """R27: the peer broke the protocol, was told, and holds on to its socket: it has a second."""
    async with beside() as scene, scene.greeted() as raw:
        assert isinstance(raw, RawSocket)
        await raw.says({"type": "end", "id": 99})
        with trio.fail_after(PATIENCE):
            assert (await raw.hears())["type"] == "goaway"
            assert (await raw.hear_frame()).close_code == 1002
            if answer == "by its own close":
                await raw.send(close(4000))
            elif answer == "by a ping":
                # Known to raise in the library's reader, which may not send a pong any more.
                await raw.send_frame(PING, b"there?")
            elif answer == "by messages without end":
                with suppress(trio.BrokenResourceError):
                    while True:
                        await raw.send(frame(BINARY, HELLO) * 100)
            assert await raw.hear_the_end() == []


async def test_a_message_too_long_of_a_peer_that_stays(beside: Beside) -> None:
    """Known to leave the socket open: aclose does nothing after it. Here it is closed."""
    async with beside() as scene, scene.greeted() as raw:
        assert isinstance(raw, RawSocket)
        with suppress(trio.BrokenResourceError):
            await raw.send(frame(BINARY, bytes(30_000)))
        with trio.fail_after(PATIENCE):
            heard = await raw.hear_the_end()
        assert [each.close_code for each in heard] in ([], [1009])


# --- fragments

SMALL = Limits(max_message_bytes=1024, close_timeout=1, cleanup=1)

#: Each is more than twice that.
ENDLESS: dict[str, bytes] = {
    "of a thousand bytes": frame(CONTINUATION, b"x" * 1000, fin=False) * 10,
    "of one byte": frame(CONTINUATION, b"x", fin=False) * 800,
    "of nothing": frame(CONTINUATION, fin=False) * 800,
    "with pings between them": (frame(PING) + frame(CONTINUATION, b"x", fin=False)) * 400,
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_endless_fragments(what: str, beside: Beside) -> None:
    """R28: twice max_message_bytes since the last whole message, however little is in them."""
    data = frame(BINARY, b"x", fin=False) + ENDLESS[what]
    async with beside(limits=SMALL) as scene, scene.greeted() as raw:
        with memory_growing_by_at_most(500_000):
            ending = await breaks_off(scene, raw, data)
        # The limit on messages itself, which WebSocket has, or ours; a reset may overtake it.
        assert ending.frames == [] or ending.goaway is not None
        assert ending.close_code in (None, 1009)


async def test_endless_pongs_and_pings(beside: Beside) -> None:
    """R28: they make no message either."""
    for opcode in (PONG, PING):
        async with beside(limits=SMALL) as scene, scene.greeted() as raw:
            await breaks_off(scene, raw, frame(opcode) * 800)


async def test_a_message_in_fragments_of_any_size(beside: Beside) -> None:
    """Of one byte, and of none: it is a message all the same."""
    async with beside() as scene, scene.greeted() as raw:
        made = message("msgpack", {"type": "call", "id": 1, "method": "add", "args": [1, 2]})
        assert isinstance(made, bytes)
        data = frame(BINARY, fin=False)
        for byte in made:
            data += frame(CONTINUATION, bytes([byte]), fin=False) + frame(CONTINUATION, fin=False)
        await raw.send(data + frame(CONTINUATION))
        with trio.fail_after(PATIENCE):
            assert (await raw.hears())["value"] == 3


# --- what is allowed


async def test_pings_are_answered_while_a_consumer_is_stuck(beside: Beside) -> None:
    """R17: unread messages are known to keep the reader from seeing them; nothing is unread."""
    async with beside(limits=Limits(close_timeout=1)) as scene, scene.greeted() as raw:
        assert isinstance(raw, RawSocket)
        upload = {"args": [None], "refs": [[0, "stream", 3]]}
        await raw.says({"type": "call", "id": 1, "method": "ignore", **upload})
        for _ in range(64):
            await raw.says({"type": "chunk", "id": 3, "items": [7], "size": 1})
        await raw.send_frame(PING, b"there?")
        with trio.fail_after(PATIENCE):
            heard = await raw.hear_frame()
            while heard.opcode != PONG:
                heard = await raw.hear_frame()
        assert heard.payload == b"there?"
        await serves_on(raw, 5)


async def test_compression_is_not_agreed_to(beside: Beside) -> None:
    """Off: what is offered is passed over, and a frame that is compressed all the same is none."""
    async with beside() as scene, scene.connected() as raw:
        assert isinstance(raw, RawSocket)
        head = await raw.asks(
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        )
        assert head.startswith("HTTP/1.1 101 ")
        assert "extensions" not in head.lower()
        await raw.says({"type": "hello", "version": 1})
        assert (await raw.hears())["type"] == "hello"
        await serves_on(raw)
        await raw.send(b"\xc2\x83" + bytes(4) + b"\x02\x00\x00")
        assert await ends(raw) == Ending()
