"""One end of a connection by hand, over any byte stream: what is said need not be allowed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import trio

from tests.protocol.wire import message, read

__all__ = ["Ending", "RawPeer"]


@dataclass
class Ending:
    """What was heard until the byte stream had ended, in whatever way."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    #: Where the transport has one, and said it.
    close_code: int | None = None

    @property
    def goaway(self) -> dict[str, Any] | None:
        """The connection error that was told, which is the last thing that is said (R27)."""
        told = [frame for frame in self.frames if frame["type"] == "goaway" and "code" in frame]
        assert len(told) <= 1
        assert not told or self.frames[-1] is told[0]
        return told[0] if told else None


class RawPeer(ABC):
    """Bytes, messages, and frames of the protocol in them."""

    def __init__(self, stream: trio.abc.Stream, *, client: bool = True) -> None:
        self.stream = stream
        self.client = client
        self.encoding = "msgpack"
        self._buffer = b""
        self._waiting: list[dict[str, Any]] = []

    # --- bytes

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def _need(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError
            self._buffer += data
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    # --- messages

    @abstractmethod
    def made(self, message: bytes | str) -> bytes:
        """A message as it travels."""

    @abstractmethod
    async def hear_message(self) -> bytes | str:
        """The next message. EOFError at the end of the stream, or of what it carries."""

    async def send_message(self, message: bytes | str) -> None:
        await self.send(self.made(message))

    # --- frames of the protocol

    def says_so(self, *frames: dict[str, Any]) -> bytes:
        """A message of these frames, as it travels."""
        return self.made(message(self.encoding, *frames))

    async def says(self, *frames: dict[str, Any]) -> None:
        await self.send(self.says_so(*frames))

    async def hears(self, *kinds: str) -> dict[str, Any]:
        """The next frame of the protocol of one of these kinds, or of any."""
        while True:
            while self._waiting:
                found = self._waiting.pop(0)
                if not kinds or found["type"] in kinds:
                    return found
            self._waiting = read(await self.hear_message())

    async def hears_the_end(self) -> Ending:
        """All that is still said, by a peer that answers what its transport wants answered."""
        ending = Ending()
        try:
            while True:
                ending.frames.append(await self.hears())
        except (EOFError, trio.BrokenResourceError):
            return ending

    # --- both handshakes, of the transport and of the protocol

    @abstractmethod
    async def shakes_hands(self, encoding: str = "msgpack") -> None:
        """As a client, that of the transport."""

    @abstractmethod
    async def takes_hand(self) -> None:
        """As a server, that of the transport."""

    async def greets(self, encoding: str = "msgpack") -> None:
        """As a client."""
        await self.shakes_hands(encoding)
        await self.says({"type": "hello", "version": 1})
        assert (await self.hears())["type"] == "hello"

    async def is_greeted(self, **hello: Any) -> None:
        """As a server."""
        await self.takes_hand()
        assert (await self.hears())["type"] == "hello"
        await self.says({"type": "hello", "version": 1, **hello})
