"""WebSocket by hand, over any byte stream: what is said need not be what WebSocket allows."""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass

import trio

from tests.transports.rawpeer import Ending, RawPeer

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "RawSocket",
    "frame",
    "request",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def request(path: str = "/", protocol: str = "streamrpc.1.msgpack", *more: str) -> bytes:
    """A client's handshake; ``more`` are lines of headers."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *([f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []),
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bool = True) -> bytes:
    """A frame; clients mask, servers do not."""
    length = len(payload)
    head = bytes([fin << 7 | opcode])
    bit = 128 if mask else 0
    if length < 126:
        head += bytes([bit | length])
    elif length < 65536:
        head += bytes([bit | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + length.to_bytes(8, "big")
    # A mask of zeros masks nothing.
    return head + (bytes(4) if mask else b"") + payload


@dataclass
class Heard:
    """One frame."""

    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2], "big")


class RawSocket(RawPeer):
    """One end of a byte stream that speaks WebSocket."""

    #: The close frame that was heard.
    closed: Heard | None = None

    # --- frames

    async def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        await self.send(frame(opcode, payload, fin=fin, mask=self.client))

    async def hear_head(self) -> str:
        """The lines of an HTTP message, until the empty one."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await self._need(1)
        return head.decode("latin-1")

    async def hear_frame(self) -> Heard:
        """The next frame. EOFError at the end of the stream."""
        first, second = await self._need(2)
        length = second & 127
        if length > 125:
            length = int.from_bytes(await self._need(2 if length == 126 else 8), "big")
        mask = await self._need(4) if second & 128 else bytes(4)
        payload = await self._need(length)
        if any(mask):
            repeated = mask * (length // 4 + 1)
            payload = bytes(a ^ b for a, b in zip(payload, repeated, strict=False))
        return Heard(first & 15, payload)

    async def hear_the_end(self) -> list[Heard]:
        """All frames until the stream ends, however it does."""
        frames = []
        try:
            while True:
                frames.append(await self.hear_frame())
        except (EOFError, trio.BrokenResourceError):
            return frames

    # --- messages

    def made(self, message: bytes | str) -> bytes:
        if isinstance(message, str):
            return frame(TEXT, message.encode(), mask=self.client)
        return frame(BINARY, message, mask=self.client)

    async def hear_message(self) -> bytes | str:
        while True:
            heard = await self.hear_frame()
            if heard.opcode == BINARY:
                return heard.payload
            if heard.opcode == TEXT:
                return heard.payload.decode()
            if heard.opcode == CLOSE:
                self.closed = heard
                raise EOFError(f"closed with {heard.close_code}")

    async def hears_the_end(self) -> Ending:
        ending = await super().hears_the_end()
        if self.closed is not None:
            ending.close_code = self.closed.close_code
            with suppress(trio.BrokenResourceError):
                await self.send_frame(CLOSE, self.closed.payload)
            assert await self.hear_the_end() == []
        return ending

    # --- handshakes

    async def shakes_hands(self, encoding: str = "msgpack") -> None:
        await self.shake_hands(f"streamrpc.1.{encoding}")

    async def takes_hand(self) -> None:
        await self.take_hand()

    async def shake_hands(self, protocol: str = "streamrpc.1.msgpack", path: str = "/") -> None:
        """As a client."""
        head = await self.asks(protocol=protocol, path=path)
        assert head.startswith("HTTP/1.1 101 "), head

    async def asks(
        self, *headers: str, protocol: str = "streamrpc.1.msgpack", path: str = "/"
    ) -> str:
        """As a client: the head of what the server answers."""
        self.encoding = protocol.rpartition(".")[2]
        await self.send(request(path, protocol, *headers))
        return await self.hear_head()

    async def take_hand(self, protocol: str | None = "") -> None:
        """As a server."""
        head = await self.hear_head()
        found = re.search(r"(?i)sec-websocket-key: (\S+)", head)
        offered = re.search(r"(?i)sec-websocket-protocol: (\S+)", head)
        assert found is not None
        assert offered is not None
        digest = hashlib.sha1(f"{found[1]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}",
        ]
        if protocol is not None:
            lines.append(f"Sec-WebSocket-Protocol: {protocol or offered[1]}")
        self.encoding = offered[1].rpartition(".")[2]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode())
