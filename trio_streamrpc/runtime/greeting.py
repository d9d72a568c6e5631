"""The hellos of both sides, and between them the decision whether the other one may come in (R25).

Without ``authenticate`` the accepting side says its hello as soon as it has heard the other's. With
it, the block that owns the connection waits for the decision, and the reader for both: it holds
what came with the hello and one message more, and then reads no further.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import trio

from trio_streamrpc.errors import RpcError, Unavailable
from trio_streamrpc.protocol import reactions
from trio_streamrpc.protocol.frames import Hello, is_absent
from trio_streamrpc.runtime.handshake import Authenticate, handshake_over, identify

if TYPE_CHECKING:
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["Greeting"]


class Greeting:
    """How a connection begins; it is over when ``connection.greeted`` is set.

    ``since`` is when it began, on Trio's clock: a transport may have had a handshake of its own
    before.
    """

    def __init__(
        self, connection: Connection, authenticate: Authenticate | None, since: float
    ) -> None:
        self._connection = connection
        self._authenticate = authenticate
        self._since = since
        #: Where the block waits for the other side's hello, if there is something to decide.
        self._heard = trio.Event() if authenticate is not None else None
        #: Around ``authenticate`` while it runs.
        self._deciding: trio.CancelScope | None = None

    def on_hello(self, frame: Hello) -> None:
        """The other side has said hello: it may be let in at once."""
        connection = self._connection
        if not is_absent(frame.metadata):
            try:
                connection.metadata = MappingProxyType(connection.mapping(frame.metadata))
            except RpcError as error:
                raise reactions.HELLO_METADATA.error(error.message) from None
        if self._heard is not None:
            self._heard.set()
        elif connection.endpoint.side == "accepting":
            connection.let_in()
        else:
            connection.greeted.set()

    async def take_in(self) -> None:
        """The reader's part, as long as it is open who the other side is.

        Raises :exc:`RemoteProtocolError` for a side that says more than one that is not known may.
        """
        if self._authenticate is None:
            return
        connection, limits = self._connection, self._connection.limits
        endpoint, transport = connection.endpoint, connection.transport
        transport.limit(min(limits.max_early_bytes, limits.max_message_bytes))
        taken = 0
        while not connection.greeted.is_set():
            knows_hello = endpoint.peer_hello is not None
            message = await transport.receive()
            if not connection.greeted.is_set():
                taken += len(message.encode() if isinstance(message, str) else message)
                if taken > limits.max_early_bytes:
                    raise reactions.EARLY_BYTES.error(taken, limits.max_early_bytes)
            connection.take_in(message)
            if endpoint.held > limits.max_early_frames:
                raise reactions.EARLY_FRAMES.error(endpoint.held, limits.max_early_frames)
            if endpoint.outbox:
                connection.wake_writer()
            if knows_hello:
                await connection.greeted.wait()

    async def wait(self) -> None:
        """Wait until both sides have said hello, and decide about the other one if that is asked.

        Raises what it was refused with, or what ended the connection.
        """
        connection, patience = self._connection, self._connection.limits.handshake_timeout
        with trio.move_on_at(self._since + patience):
            if self._heard is not None:
                await self._heard.wait()
                await self._decide()
            await connection.greeted.wait()
        if not connection.greeted.is_set():
            if self._heard is not None and self._heard.is_set():
                connection.break_off(Unavailable(f"authentication took longer than {patience} s"))
            else:
                connection.break_off(reactions.NO_HELLO.error(patience))
        connection.check_open()

    async def _decide(self) -> None:
        connection = self._connection
        if self._authenticate is None or not connection.alive:
            return
        self._deciding = trio.CancelScope()
        with self._deciding:
            try:
                handshake = handshake_over(connection.transport, connection.metadata)
                connection.identity = await identify(self._authenticate, handshake)
                if connection.alive:
                    connection.transport.limit(connection.limits.max_message_bytes)
                    connection.let_in()
            except RpcError as refusal:
                connection.break_off(refusal)
        connection.wake_writer()

    def end(self) -> None:
        """The connection is lost: nobody waits for anything here."""
        if self._heard is not None:
            self._heard.set()
        if self._deciding is not None:
            self._deciding.cancel()
