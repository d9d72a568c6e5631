"""A transport between two tasks of one process, for tests and for services called in place."""

from __future__ import annotations

import trio

from trio_streamrpc.errors import ConnectionLost
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.transports.base import Transport

__all__ = ["MemoryTransport", "open_memory_transports"]

Message = bytes | str


class MemoryTransport(Transport):
    """One end of a pair; made by :func:`open_memory_transports`."""

    def __init__(
        self,
        sender: trio.MemorySendChannel[Message],
        receiver: trio.MemoryReceiveChannel[Message],
        encoding: Encoding,
    ) -> None:
        self._sender = sender
        self._receiver = receiver
        self.encoding = encoding
        self.remote = "memory"

    sends_nowait = True

    def send_nowait(self, message: Message) -> bool:
        try:
            self._sender.send_nowait(message)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def send(self, message: Message) -> None:
        try:
            await self._sender.send(message)
        except trio.BrokenResourceError:
            raise ConnectionLost("the other end was closed") from None
        except trio.ClosedResourceError:
            raise ConnectionLost("the transport was closed") from None

    async def receive(self) -> Message:
        try:
            return await self._receiver.receive()
        except trio.EndOfChannel:
            raise ConnectionLost("the other end was closed") from None
        except trio.ClosedResourceError:
            raise ConnectionLost("the transport was closed") from None

    async def aclose(self) -> None:
        self._sender.close()
        self._receiver.close()
        await trio.lowlevel.checkpoint()


def open_memory_transports(
    *, encoding: Encoding = "msgpack", capacity: int = 1
) -> tuple[MemoryTransport, MemoryTransport]:
    """Two ends of one transport; ``capacity`` is how many messages may be on their way each way."""
    there_sender, there_receiver = trio.open_memory_channel[Message](capacity)
    back_sender, back_receiver = trio.open_memory_channel[Message](capacity)
    return (
        MemoryTransport(there_sender, back_receiver, encoding),
        MemoryTransport(back_sender, there_receiver, encoding),
    )
