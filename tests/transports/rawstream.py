"""A byte stream by hand: prefaces, and messages with their length in front (R3)."""

from __future__ import annotations

from tests.transports.rawpeer import RawPeer

__all__ = ["RawStream"]

PREFACES = {"msgpack": b"TSR1m", "json": b"TSR1j"}


class RawStream(RawPeer):
    """One end of a byte stream."""

    def made(self, message: bytes | str) -> bytes:
        data = message.encode() if isinstance(message, str) else message
        return len(data).to_bytes(4, "big") + data

    async def hear_message(self) -> bytes | str:
        data = await self._need(int.from_bytes(await self._need(4), "big"))
        return data.decode() if self.encoding == "json" else data

    async def shakes_hands(self, encoding: str = "msgpack") -> None:
        self.encoding = encoding
        await self.send(PREFACES[encoding])
        assert await self._need(5) == PREFACES[encoding]

    async def takes_hand(self) -> None:
        preface = await self._need(5)
        [self.encoding] = [each for each, known in PREFACES.items() if known == preface]
        await self.send(preface)
