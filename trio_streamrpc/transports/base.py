"""What every transport promises to the connection above it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import trio

from trio_streamrpc.protocol.codecs import Encoding

__all__ = ["MESSAGE_SLACK", "Transport", "close_by_force"]

#: A message that is just too long shall get as far as the codec, which answers as the protocol
#: says; what is longer than its limit by more than this is cut off by the transport. (Some count
#: characters, too, where the codec counts bytes.)
MESSAGE_SLACK = 4096


class Transport(trio.abc.AsyncResource):
    """Delivers whole messages: ordered, reliable, or not at all (R1).

    A transport is one class with :meth:`send`, :meth:`receive` and ``aclose``. One task sends and
    one task receives; they may be different tasks. Whatever breaks below it is raised as
    :exc:`~trio_streamrpc.ConnectionLost`, and input that is no message of its kind as
    :exc:`~trio_streamrpc.RemoteProtocolError`; nothing else, and no group.

    The rest has defaults that are right for a transport that has nothing of it to tell or to do.
    """

    #: What its messages are: "msgpack" (bytes) or "json" (str) (R2).
    encoding: Encoding = "msgpack"
    #: The other end, for people: ``"127.0.0.1:41733"``.
    remote: str = "?"
    #: The handshake's headers where there was one, names in lower case.
    headers: Mapping[str, str] = {}
    #: What a client has asked for, where it has asked for anything: path and query, as they came.
    target: str = ""
    #: What both sides have agreed to speak, where that was negotiated by a name.
    subprotocol: str | None = None
    #: When bytes last came in, on Trio's clock, if it can tell sooner than a whole message would.
    last_heard: float = float("-inf")
    #: Why it is to be closed, in WebSocket's numbers; set before ``aclose``, for those who can say.
    close_code: int = 1000
    #: … and in words, of 100 characters at most.
    close_reason: str = ""

    #: The nursery that its own tasks live in, if it has one: it lasts as long as the transport, and
    #: the connection's tasks may live there too.
    nursery: trio.Nursery | None = None
    #: Whether :meth:`send_nowait` may ever succeed.
    sends_nowait: bool = False

    def send_nowait(self, message: bytes | str) -> bool:
        """Send one message without waiting; not while another is being sent.

        False if that cannot be done, or not for all of it: then :meth:`send` has to be called with
        the same message, before any other, and sends what is left of it. It raises nothing: what
        has broken is for :meth:`send` and :meth:`receive` to tell.
        """
        return False

    def certificate(self) -> Mapping[str, Any] | None:
        """The other end's certificate, verified, as :meth:`ssl.SSLSocket.getpeercert` gives it.

        None if it has shown none, or the transport knows of none.
        """
        return None

    def limit(self, max_message_bytes: int) -> None:
        """From now on, hold no more of a message that has not come whole than that allows."""

    def ask(self) -> bool:
        """Ask the other end whether it is there, below the messages; False if that cannot be done.

        Its answer shows in :attr:`last_heard`.
        """
        return False

    def put_back(self, message: bytes | str) -> None:
        """Give a message back that was received first, to whoever receives next.

        A transport need not know how to, unless dialects are chosen over it.
        """
        raise NotImplementedError

    @abstractmethod
    async def send(self, message: bytes | str) -> None:
        """Send one message. If this is cancelled, the transport is of no use any more.

        Raises :exc:`~trio_streamrpc.ConnectionLost` if it cannot be sent.
        """

    @abstractmethod
    async def receive(self) -> bytes | str:
        """The next message. If this is cancelled, nothing was taken.

        Raises :exc:`~trio_streamrpc.ConnectionLost` when there will be none, for whatever reason.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Say goodbye as the transport does, and close. If this is cancelled, close at once."""


async def close_by_force(resource: trio.abc.AsyncResource) -> None:
    """Close it at once, where a block ends in whatever way.

    Shielded, or a cancellation would take the place of what the block has raised.
    """
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(resource)
