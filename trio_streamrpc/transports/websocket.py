"""WebSocket, on trio-websocket: the only module that imports it.

What trio-websocket is trusted with is the handshake, frames, fragments and masks. What is held in
hand here, since it is known to go wrong there (seen with 0.12.2 and wsproto 1.3.2): each
connection's reader runs guarded, so that what it raises ends this connection and nothing else; the
byte stream is kept, so that it can be closed by force and its bytes counted; every handshake and
every close has a deadline; and the receive buffer is chosen here, since the default of 4 KiB costs
a factor of five.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

import trio
import trio_websocket

from trio_streamrpc.errors import (
    ConnectionLost,
    PermissionDenied,
    RpcError,
    Unauthenticated,
    Unavailable,
)
from trio_streamrpc.limits import Limits
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.protocol import reactions
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.transports.base import MESSAGE_SLACK, Transport, close_by_force
from trio_streamrpc.transports.counted import CountedStream
from trio_streamrpc.transports.headers import decoded, encoded, has_body, host_in, values_of
from trio_streamrpc.transports.origins import Origins
from trio_streamrpc.transports.sockets import (
    OrderlyStream,
    address_in,
    address_name,
    check_client_context,
    check_context,
    connect_tcp,
    listen_tcp,
    peer_certificate,
    peer_name,
    start_tls,
)

__all__ = [
    "SUBPROTOCOLS",
    "WebSocketTransport",
    "accept_websocket",
    "connect_websocket",
    "listen",
    "turn_away",
]

LOGGER = logging.getLogger("trio_streamrpc")

#: The default ports are those of HTTP and HTTPS.
DEFAULT_PORTS = {"ws": 80, "wss": 443}

#: R3: the encoding is negotiated as the subprotocol.
SUBPROTOCOLS: dict[str | None, Encoding] = {
    "streamrpc.1.msgpack": "msgpack",
    "streamrpc.1.json": "json",
}

#: What stands in a URL as it is; anything else is percent-encoded, as browsers do.
URL_CHARACTERS = "/!$%&'()*+,-.:;=?@_~"

#: The whole of what a client asks with is kept: more than trio-websocket takes.
REQUEST_BYTES = 64 * 1024

#: How long a client that is turned away may take to read why, in seconds.
FAREWELL = 1.0
#: What it reads.
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 50\r\n\r\nthis server has as many connections as it accepts\n"
)


class WebSocketTransport(Transport):
    """Messages as WebSocket messages: binary for msgpack, text for json (R2, R3)."""

    def __init__(
        self,
        socket: trio_websocket.WebSocketConnection,
        stream: CountedStream,
        *,
        encoding: Encoding,
        remote: str,
        headers: Mapping[str, str],
        close_timeout: float,
        target: str = "",
        subprotocol: str | None = None,
    ) -> None:
        self._socket = socket
        self._stream = stream
        # It stands on a handshake that is done.
        stream.settle()
        self._close_timeout = close_timeout
        self.encoding = encoding
        self.remote = remote
        self.headers = headers
        self.target = target
        self.subprotocol = subprotocol
        self._put_back: bytes | str | None = None

    def certificate(self) -> Mapping[str, Any] | None:
        return peer_certificate(self._stream.stream)

    def limit(self, max_message_bytes: int) -> None:
        self._stream.max_unfinished = 2 * max_message_bytes

    @property
    def last_heard(self) -> float:  # type: ignore[override]  # read-only here
        return self._stream.last_heard

    async def send(self, message: bytes | str) -> None:
        try:
            await self._socket.send_message(message)
        except trio_websocket.ConnectionClosed as closed:
            raise self._lost(closed) from None

    def ask(self) -> bool:
        if self.nursery is None:
            return False
        self.nursery.start_soon(self._ask, name="WebSocket ping")
        return True

    async def _ask(self) -> None:
        with trio.move_on_after(self._close_timeout):
            try:
                await self._socket.ping()
            except trio_websocket.ConnectionClosed:
                return  # the reader finds that, too

    def put_back(self, message: bytes | str) -> None:
        self._put_back = message

    async def receive(self) -> bytes | str:
        if self._put_back is not None:
            await trio.lowlevel.checkpoint()
            message, self._put_back = self._put_back, None
            return message
        try:
            message = await self._socket.get_message()
        except trio_websocket.ConnectionClosed as closed:
            if self._stream.exceeded:
                raise reactions.UNFINISHED_MESSAGE.error() from None
            raise self._lost(closed) from None
        self._stream.unfinished = 0
        return message

    async def aclose(self) -> None:
        try:
            with trio.move_on_after(self._close_timeout):
                # The longest reason that fits a close frame is 123 bytes.
                reason = self.close_reason.encode()[:120].decode(errors="ignore")
                await self._socket.aclose(self.close_code, reason or None)
        finally:
            await trio.aclose_forcefully(self._stream)

    def _lost(self, closed: trio_websocket.ConnectionClosed) -> ConnectionLost:
        reason = closed.reason
        if reason is None or reason.code == 1006:
            return ConnectionLost("the connection broke")
        text = f": {reason.reason!r}"[:200] if reason.reason else ""
        return ConnectionLost(f"the connection was closed with code {reason.code}{text}")


class _Guard:
    """Stands in for a nursery, and runs what trio-websocket starts so that it cannot do harm.

    An exception of its reader ends the handshake that waits for it, or breaks the byte stream.
    """

    def __init__(self, nursery: trio.Nursery, stream: CountedStream) -> None:
        self._nursery = nursery
        self._stream = stream
        self.handshake = trio.CancelScope()
        self.error: Exception | None = None

    def start_soon(self, run: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self._nursery.start_soon(self._run, run, *args)

    async def _run(self, run: Callable[..., Awaitable[Any]], *args: Any) -> None:
        try:
            await run(*args)
        except Exception as error:
            self.error = error
            await trio.aclose_forcefully(self._stream)
        # Also where it ends in peace before the handshake was done: nobody else would tell.
        self.handshake.cancel()


@asynccontextmanager
async def connect_websocket(
    url: str,
    *,
    encoding: Encoding,
    limits: Limits,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    ssl_context: ssl.SSLContext | None = None,
    bare: bool = False,
) -> AsyncIterator[WebSocketTransport]:
    """Connect to a ``ws://`` or ``wss://`` URL; the transport is closed when the block ends.

    ``bare``: without a subprotocol, as other systems do. Raises :exc:`Unavailable` if nobody
    answers, and what the HTTP status says if it is refused.
    """
    parts = urlsplit(url)
    host, port = address_in(parts, url, default_port=DEFAULT_PORTS[parts.scheme])
    check_client_context(url, ssl_context, encrypted=parts.scheme == "wss")
    resource = quote(parts.path or "/", safe=URL_CHARACTERS)
    if parts.query:
        resource += "?" + quote(parts.query, safe=URL_CHARACTERS)
    extra_headers = encoded(headers)
    async with open_background_nursery() as background:
        with trio.move_on_after(limits.handshake_timeout) as handshake:
            stream: trio.abc.Stream = await connect_tcp(url, host, port)
            if parts.scheme == "wss":
                stream = await start_tls(url, host, stream, ssl_context, https_compatible=True)
            counted = CountedStream(stream, 2 * limits.max_message_bytes)
            guard = _Guard(background, counted)
            socket = None
            try:
                with guard.handshake:
                    socket = await trio_websocket.wrap_client_stream(
                        cast(trio.Nursery, guard),
                        cast(trio.SocketStream, counted),
                        host=parts.netloc.rpartition("@")[2],
                        resource=resource,
                        subprotocols=[
                            name
                            for name, each in SUBPROTOCOLS.items()
                            if name is not None and each == encoding and not bare
                        ],
                        extra_headers=extra_headers,
                        max_message_size=limits.max_message_bytes + MESSAGE_SLACK,
                        receive_buffer_size=None,
                    )
            finally:
                if socket is None:
                    await trio.aclose_forcefully(counted)
            agreed = socket is not None and (bare or socket.subprotocol is not None)
            if guard.error is not None or socket is None or not agreed:
                await trio.aclose_forcefully(counted)
                raise _refused(url, guard.error, counted.head)
        if handshake.cancelled_caught:
            raise Unavailable(f"{url} did not answer within {limits.handshake_timeout} s")
        assert socket is not None
        transport = WebSocketTransport(
            socket,
            counted,
            encoding=encoding,
            remote=address_name(host, port),
            headers=decoded(socket.handshake_headers),
            close_timeout=limits.close_timeout,
        )
        transport.nursery = background
        try:
            yield transport
        finally:
            await close_by_force(transport)


@asynccontextmanager
async def accept_websocket(
    stream: trio.abc.Stream,
    *,
    path: str,
    limits: Limits,
    origins: Origins | None = None,
    nursery: trio.Nursery | None = None,
    subprotocols: Mapping[str | None, Encoding] = SUBPROTOCOLS,
) -> AsyncIterator[WebSocketTransport | None]:
    """Shake hands with a client on a stream just accepted; None if it is no client of ours.

    ``origins`` says which web pages are answered (by default those on the server's own host); a
    browser that comes from another is answered with 403. ``path`` is the one that is served;
    another is answered with 404, and a client that offers none of the ``subprotocols`` with 400;
    these are R3's by default, and None among them is a client that offers none at all. ``nursery``
    is where the transport's tasks live, which has to last longer than the block; it has
    one of its own if there is none.
    """
    origins = origins or Origins(encrypted=isinstance(stream, trio.SSLStream))
    counted = CountedStream(stream, 2 * limits.max_message_bytes, head_bytes=REQUEST_BYTES)
    remote = peer_name(stream)
    try:
        own = open_background_nursery() if nursery is None else nullcontext(nursery)
        async with own as background:
            guard = _Guard(background, counted)
            transport = None
            with trio.move_on_after(limits.handshake_timeout), guard.handshake:
                try:
                    transport = await _shake_hands(
                        guard, counted, path, origins, remote, limits, subprotocols
                    )
                except Exception:
                    # Of trio-websocket, or of what it stands on: a client that went away, or that
                    # sent more behind its handshake than it may. It was no client of ours.
                    transport = None
            if transport is not None:
                transport.nursery = background
            yield transport
    finally:
        await close_by_force(counted)


async def _shake_hands(
    guard: _Guard,
    stream: CountedStream,
    path: str,
    origins: Origins,
    remote: str,
    limits: Limits,
    subprotocols: Mapping[str | None, Encoding],
) -> WebSocketTransport | None:
    request = await trio_websocket.wrap_server_stream(
        cast(trio.Nursery, guard),
        stream,
        max_message_size=limits.max_message_bytes + MESSAGE_SLACK,
        receive_buffer_size=None,
    )
    # trio-websocket keeps this one header to itself.
    host = host_in(stream.head)
    stream.head, stream.head_bytes = b"", 0
    if has_body(request.headers):
        # Its frames would be looked for where the body is.
        await request.reject(400, body=b"a handshake has no body\n")
        return None
    asking = values_of(request.headers, b"origin")
    if not origins.allow(asking, host):
        # A browser tells its page nothing of it. Escaped and shortened: it is what a client sent.
        LOGGER.info(
            "a client was refused: pages of '%s' are not allowed at '%s'",
            ascii(", ".join(asking))[1:-1][:80],
            ascii(host)[1:-1][:80],
        )
        await request.reject(403, body=b"this origin is not allowed\n")
        return None
    if path not in ("", "/") and _path_of(request) != unquote(path):
        await request.reject(404, body=b"nothing is served at this path\n")
        return None
    proposed: Iterable[str | None] = request.proposed_subprotocols or (None,)
    offered = [each for each in proposed if each in subprotocols]
    if not offered:
        known = " or ".join(each or "none" for each in subprotocols)
        body = f"this server speaks the WebSocket subprotocols {known}\n"
        await request.reject(400, body=body.encode())
        return None
    socket = await request.accept(subprotocol=offered[0])
    return WebSocketTransport(
        socket,
        stream,
        encoding=subprotocols[offered[0]],
        remote=remote,
        headers=decoded([(b"host", host.encode("latin-1")), *request.headers]),
        close_timeout=limits.close_timeout,
        target=request.path,
        subprotocol=offered[0],
    )


async def turn_away(stream: trio.abc.Stream) -> None:
    """Close a stream just accepted, and tell the client why as far as that is cheap.

    That is 503 before anything was read; over TLS it would take a handshake, and nothing is said.
    """
    if not isinstance(stream, trio.SocketStream):
        await trio.aclose_forcefully(stream)
        return
    with trio.move_on_after(FAREWELL):
        try:
            await stream.send_all(FULL)
        except trio.BrokenResourceError:
            pass
        else:
            # What the client asks is read and dropped, or it would not get to see the answer.
            await OrderlyStream(stream).aclose()
    await trio.aclose_forcefully(stream)


async def listen(
    url: str, *, ssl_context: ssl.SSLContext | None = None
) -> tuple[list[trio.abc.Listener[trio.abc.Stream]], str]:
    """Listen at a ``ws://`` or ``wss://`` URL; gives the listeners and the URL with its real port.

    Raises :exc:`OSError` if the address cannot be had, as Trio does.
    """
    parts = urlsplit(url)
    host, port = address_in(parts, url, default_port=DEFAULT_PORTS[parts.scheme])
    check_context(url, ssl_context, encrypted=parts.scheme == "wss")
    listeners, real = await listen_tcp(parts, host, port)
    if ssl_context is None:
        return list(listeners), real
    return [
        trio.SSLListener(listener, ssl_context, https_compatible=True) for listener in listeners
    ], real


def _refused(url: str, error: Exception | None, head: bytes) -> RpcError:
    """Why a handshake has failed, as far as the server said so."""
    said = ""
    if isinstance(error, trio_websocket.ConnectionRejected):
        said = (error.body or b"").decode(errors="replace").strip()[:200]
    # Not from the exception: there is none for a body that does not end, or ends with the stream.
    found = re.match(rb"HTTP/1\.[01] (\d{3})", head)
    status = int(found[1]) if found is not None else 101
    if status == 101:
        if url.startswith("wss:") and not head:
            # It does not send what TLS has against a client.
            return Unavailable(
                f"{url} closed the connection without a word: it may want a certificate, or be full"
            )
        return Unavailable(f"{url} is no server of streamrpc: {error or 'it broke the handshake'}")
    kinds: dict[int, type[RpcError]] = {401: Unauthenticated, 403: PermissionDenied}
    message = f"{url} refused the connection with HTTP status {status}"
    return kinds.get(status, Unavailable)(f"{message}: {said}" if said else message)


def _path_of(request: trio_websocket.WebSocketRequest) -> str:
    # Not urlsplit(): what the other side sent may be no URL at all.
    return unquote(request.path.partition("?")[0])
