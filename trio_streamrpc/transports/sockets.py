"""TCP and TLS, as every transport that stands on them needs them: connect, listen, close."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import SplitResult

import trio

from trio_streamrpc.errors import Unavailable

__all__ = [
    "OrderlyListener",
    "OrderlyStream",
    "address_in",
    "address_name",
    "check_client_context",
    "check_context",
    "connect_tcp",
    "listen_tcp",
    "peer_address",
    "peer_certificate",
    "peer_name",
    "start_tls",
]

#: How much is read at once: what Trio reads by default, and the fastest that was measured.
RECEIVE_BYTES = 65536


class OrderlyStream(trio.abc.Stream):
    """A byte stream that closes in order: what was sent before arrives.

    A socket that is closed while something waits in it that was not read is reset, and a reset
    destroys what is still on its way to the other side. So the end is told first, and what comes
    is read and dropped until the other side has ended, too. Whoever closes puts a bound to that;
    if :meth:`aclose` is cancelled, the stream is closed at once.
    """

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        #: The socket, where the stream is one: what it does needs no other layer.
        self.socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._receive: Callable[[int], Awaitable[bytes | bytearray]] = (
            self.socket.recv if self.socket is not None else stream.receive_some
        )
        self._receiving = False
        self._closing = False
        #: Set when the last receive has ended that had begun before the close.
        self._released = trio.Event()
        self._closed = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As of any stream. One that waits when the stream is closed waits until it is."""
        if self._closing:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError("this stream was closed")
        self._receiving = True
        try:
            data = await self._receive(max_bytes or RECEIVE_BYTES)
            if self._closing:
                while data:
                    data = await self._receive(RECEIVE_BYTES)
                raise trio.ClosedResourceError("this stream was closed")
            return data
        except OSError as error:
            raise trio.BrokenResourceError(f"the socket broke: {error}") from error
        finally:
            self._receiving = False
            if self._closing:
                self._released.set()

    async def aclose(self) -> None:
        """Say that nothing more comes, wait until nothing more comes from there, and close.

        Another close beside this one lasts as long; one that is cancelled closes at once.
        """
        try:
            if self._closing:
                await self._closed.wait()
            else:
                self._closing = True
                await self.stream.send_eof()
                if self._receiving:
                    await self._released.wait()
                while await self.stream.receive_some(RECEIVE_BYTES):
                    pass
        except (trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError):
            pass
        finally:
            try:
                await trio.aclose_forcefully(self.stream)
            finally:
                self._closed.set()
        await trio.lowlevel.checkpoint()


class OrderlyListener(trio.abc.Listener[OrderlyStream]):
    """A listener whose streams close in order, for a TLS listener to stand on."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener

    async def accept(self) -> OrderlyStream:
        return OrderlyStream(await self._listener.accept())

    async def aclose(self) -> None:
        await self._listener.aclose()


def check_context(url: str, context: ssl.SSLContext | None, *, encrypted: bool) -> None:
    """ValueError or TypeError if that is not what a server at the URL needs."""
    if (context is not None) != encrypted:
        raise ValueError(f"{url!r} needs {'an' if encrypted else 'no'} ssl_context")
    if not isinstance(context, ssl.SSLContext | None):
        raise TypeError(f"ssl_context must be an ssl.SSLContext, not {context!r}")


def check_client_context(url: str, context: ssl.SSLContext | None, *, encrypted: bool) -> None:
    """ValueError if a client at the URL can do nothing with that."""
    if context is not None and not encrypted:
        raise ValueError(f"an ssl_context was given for {url!r}, which is not encrypted")


def address_in(parts: SplitResult, url: str, *, default_port: int | None) -> tuple[str, int]:
    """Host and port of a URL; ValueError for one that has none."""
    if parts.hostname is None:
        raise ValueError(f"{url!r} names no host; a URL looks like {parts.scheme}://127.0.0.1:8765")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}") from None
    if port is None:
        port = default_port
    if port is None:
        raise ValueError(
            f"{url!r} names no port; a URL looks like {parts.scheme}://{parts.hostname}:8765"
        )
    return parts.hostname, port


async def connect_tcp(url: str, host: str, port: int) -> trio.SocketStream:
    """A socket to that address; :exc:`Unavailable` if there is none to be had.

    Raises :exc:`ValueError` for a host that is no name, a label of it being empty for instance.
    """
    try:
        return await trio.open_tcp_stream(host, port)
    except UnicodeError as error:
        raise _no_host(url, error) from None
    except OSError as error:
        raise Unavailable(f"cannot connect to {url}: {error}") from None


def _no_host(url: str, error: UnicodeError) -> ValueError:
    return ValueError(f"{url!r} names a host that cannot be: {error}")


async def start_tls(
    url: str,
    host: str,
    stream: trio.abc.Stream,
    context: ssl.SSLContext | None,
    *,
    https_compatible: bool,
) -> trio.abc.Stream:
    """TLS over a stream to that host, which is closed if that fails with :exc:`Unavailable`."""
    context = context or ssl.create_default_context()
    secure = trio.SSLStream(
        stream, context, server_hostname=host, https_compatible=https_compatible
    )
    try:
        await secure.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(secure)
        raise Unavailable(f"cannot connect to {url}: {error.__cause__ or error}") from None
    except BaseException:
        await trio.aclose_forcefully(secure)
        raise
    return secure


async def listen_tcp(
    parts: SplitResult, host: str, port: int
) -> tuple[list[trio.SocketListener], str]:
    """Listeners at that address, and the URL with their real port; OSError as Trio has it.

    Raises :exc:`ValueError` for a host that is no name.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except UnicodeError as error:
        raise _no_host(parts.geturl(), error) from None
    port = await _agree_on_port(listeners)
    return listeners, parts._replace(netloc=address_name(host, port)).geturl()


async def _agree_on_port(listeners: list[trio.SocketListener]) -> int:
    """One port for all addresses of a name: asked for any, each has got another one."""
    port: int = listeners[0].socket.getsockname()[1]
    try:
        for number, listener in enumerate(listeners):
            address = listener.socket.getsockname()
            if address[1] != port:
                await listener.aclose()
                [listeners[number]] = await trio.open_tcp_listeners(port, host=address[0])
    except BaseException:
        for listener in listeners:
            # No await: where this is cancelled, the first one would be the last that is closed.
            listener.socket.close()
        raise
    return port


def address_name(host: str, port: int) -> str:
    """As it stands in a URL: ``127.0.0.1:41733``, ``[::1]:41733``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _below(stream: trio.abc.Stream) -> trio.abc.Stream:
    while isinstance(stream, trio.SSLStream | OrderlyStream):
        stream = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream.stream
    return stream


def peer_address(stream: trio.abc.Stream) -> str | None:
    """The IP address at the other end of a stream; None if it has none, or is gone already."""
    stream = _below(stream)
    if not isinstance(stream, trio.SocketStream):
        return None
    try:
        name = stream.socket.getpeername()
    except OSError:
        return None
    # A client at a Unix socket has a path for a name, or nothing.
    return str(name[0]) if isinstance(name, tuple) else None


def peer_certificate(stream: trio.abc.Stream) -> dict[str, Any] | None:
    """The certificate that the other end of a stream has shown, and that was verified."""
    if not isinstance(stream, trio.SSLStream):
        return None
    # An empty one stands for what was shown and not verified.
    found: dict[str, Any] | None = stream.getpeercert()
    return found or None


def peer_name(stream: trio.abc.Stream) -> str:
    """Who is at the other end, for people: ``127.0.0.1:41733``, a path, or ``?``."""
    stream = _below(stream)
    if not isinstance(stream, trio.SocketStream):
        return "?"
    try:
        # A client at a Unix socket has no name; what it has connected to has one.
        name = stream.socket.getpeername() or stream.socket.getsockname()
    except OSError:
        return "?"
    return address_name(name[0], name[1]) if isinstance(name, tuple) else str(name) or "?"
