"""Which dialect a client speaks: its subprotocol says so, or the first message does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from trio_streamrpc.dialects.base import Dialect, Native
from trio_streamrpc.dialects.foreign import NOT_SPOKEN
from trio_streamrpc.errors import RemoteProtocolError
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol import reactions
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.transports.base import Transport

__all__ = ["Dialects"]

#: The subprotocols of streamrpc itself (R3).
NATIVE: dict[str | None, Encoding] = {
    "streamrpc.1.msgpack": "msgpack",
    "streamrpc.1.json": "json",
}


class Dialects:
    """What a server speaks.

    Raises :exc:`TypeError` for what is no dialect, and :exc:`ValueError` for none at all, or for
    one that is there twice.
    """

    def __init__(self, spoken: Sequence[Any]) -> None:
        if isinstance(spoken, Dialect | Native):
            raise TypeError(f"dialects is a sequence of dialects: write ({spoken.name},)")
        for each in spoken:
            if not isinstance(each, Dialect | Native):
                raise TypeError(f"{each!r} is no dialect: they stand in trio_streamrpc.dialects")
        names = [each.name for each in spoken]
        if not names or len(names) != len(set(names)):
            raise ValueError("dialects must be at least one, and each of them once")
        self.native = any(isinstance(each, Native) for each in spoken)
        self.others: list[Dialect] = [each for each in spoken if isinstance(each, Dialect)]
        self._named: dict[str | None, Dialect] = {each.subprotocol: each for each in self.others}
        #: What a client may offer, and the encoding of each; None: nothing at all.
        self.subprotocols: dict[str | None, Encoding] = dict(NATIVE) if self.native else {}
        for name in self._named:
            self.subprotocols[name] = "json"
        if self.others:
            self.subprotocols[None] = "json"

    async def choose(self, transport: Transport, limits: Limits, since: float) -> Dialect | None:
        """The dialect of a client that has just connected; None for streamrpc's own.

        Where nothing but its first message can tell, that is waited for, until
        ``handshake_timeout`` after ``since``, and put back. Raises :exc:`RemoteProtocolError` if
        none does, or none in time; the transport was closed in order then.
        """
        if transport.subprotocol in NATIVE or not self.others:
            return None
        named = self._named.get(transport.subprotocol)
        if named is not None:
            return named
        if len(self.others) == 1:
            # It may be silent for as long as it likes.
            return self.others[0]
        try:
            return await self._hear(transport, limits, since)
        except RemoteProtocolError as error:
            transport.close_code, transport.close_reason = error.close_code, error.message[:100]
            await transport.aclose()
            raise

    async def _hear(self, transport: Transport, limits: Limits, since: float) -> Dialect:
        transport.limit(min(limits.max_early_bytes, limits.max_message_bytes))
        message: bytes | str | None = None
        with trio.move_on_at(since + limits.handshake_timeout):
            message = await transport.receive()
        if message is None:
            raise reactions.UNKNOWN_DIALECT.error(
                f"nothing was said within {limits.handshake_timeout} s"
            )
        transport.limit(limits.max_message_bytes)
        size = len(message.encode() if isinstance(message, str) else message)
        if size > limits.max_early_bytes:
            raise reactions.EARLY_BYTES.error(size, limits.max_early_bytes)
        if isinstance(message, str):
            for each in self.others:
                if each.knows(message):
                    transport.put_back(message)
                    return each
        raise reactions.UNKNOWN_DIALECT.error(NOT_SPOKEN)
