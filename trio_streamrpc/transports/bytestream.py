"""Messages over a stream of bytes: TCP, TLS, Unix sockets, or whatever Trio has (R3).

Each side first says five bytes, the connecting side first; then each message has its length in
front.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import trio

from trio_streamrpc.errors import ConnectionLost, RpcError, Unavailable
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol import reactions
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.endpoint import Side
from trio_streamrpc.transports.base import Transport, close_by_force
from trio_streamrpc.transports.lengths import HEADER_BYTES, MessageBuffer
from trio_streamrpc.transports.lines import LineTransport
from trio_streamrpc.transports.origins import Origins
from trio_streamrpc.transports.sockets import (
    OrderlyListener,
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
from trio_streamrpc.transports.unix import connect_unix, listen_unix, path_in

__all__ = [
    "ByteStreamTransport",
    "accept_stream",
    "connect_stream",
    "listen",
    "open_lines",
    "open_stream",
]

#: R3: what each side says first.
PREFACES: dict[Encoding, bytes] = {"msgpack": b"TSR1m", "json": b"TSR1j"}
PREFACE_BYTES = 5

#: A message of so many bytes is sent beside its header, and not copied behind it.
LARGE_BYTES = 8192

#: What becomes of a stream below, whatever it is.
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, OSError)


class ByteStreamTransport(Transport):
    """Messages with their length in front, over a stream on which both sides' prefaces were said.

    ``begun`` is what was received behind the preface.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        encoding: Encoding,
        remote: str,
        limits: Limits,
        begun: bytes = b"",
    ) -> None:
        self._stream = stream
        self._socket = stream.socket if isinstance(stream, OrderlyStream) else None
        self._close_timeout = limits.close_timeout
        self._buffer = MessageBuffer(limits.max_message_bytes)
        self._buffer.feed(begun)
        self.encoding = encoding
        self.remote = remote
        self._now = trio.lowlevel.current_clock().current_time
        self.last_heard = self._now()
        self.sends_nowait = self._socket is not None and os.name == "posix"
        #: How much of the next message was sent already.
        self._begun = 0
        #: Whether a message is being sent, and who waits for its end.
        self._sending = False
        self._sent = trio.Event()
        #: Whether a message was not sent to its end: there can be no other.
        self._torn = False
        self._closing = False
        self._closed = trio.Event()

    def certificate(self) -> Mapping[str, Any] | None:
        return peer_certificate(self._stream)

    def limit(self, max_message_bytes: int) -> None:
        self._buffer.max_message_bytes = max_message_bytes

    def send_nowait(self, message: bytes | str) -> bool:
        if self._socket is None or self._closing or self._torn:
            return False
        header, data = _framed(message)
        whole = header + data
        try:
            self._begun = os.write(self._socket.fileno(), whole)
        except OSError:
            # Full, or broken: send() waits, or tells.
            return False
        # The rest of it may never come.
        self._torn = self._begun < len(whole)
        if not self._torn:
            self._begun = 0
        return not self._torn

    async def send(self, message: bytes | str) -> None:
        begun, self._begun = self._begun, 0
        if self._closing or (self._torn and not begun):
            await trio.lowlevel.checkpoint()
            raise self._lost()
        header, data = _framed(message)
        self._sending = True
        self._torn = True
        try:
            if begun:
                await self._stream.send_all((header + data)[begun:])
            elif self._socket is not None:
                await _send_on_socket(self._socket, header, data)
            else:
                await self._stream.send_all(header + data)
            self._torn = False
        except BROKEN:
            raise self._lost() from None
        finally:
            self._sending = False
            if self._closing:
                self._sent.set()

    async def receive(self) -> bytes | str:
        if self._closing:
            await self._closed.wait()
            raise self._lost()
        buffer = self._buffer
        if buffer.find():
            await trio.lowlevel.checkpoint()
        else:
            await self._receive_more()
        message = buffer.take()
        if self.encoding == "msgpack":
            return message
        try:
            return message.decode()
        except UnicodeDecodeError as error:
            raise reactions.NOT_UTF8.error(error.reason) from None

    async def _receive_more(self) -> None:
        """Read until there is a whole message; if this is cancelled, what was read is kept."""
        buffer, stream = self._buffer, self._stream
        while True:
            try:
                data = await stream.receive_some()
            except BROKEN:
                raise self._lost() from None
            if not data:
                raise ConnectionLost(
                    "the connection broke in the middle of a message"
                    if buffer
                    else "the other side closed the connection"
                )
            self.last_heard = self._now()
            buffer.feed(data)
            if buffer.find():
                return

    async def aclose(self) -> None:
        """Close the stream; what was sent before arrives, if the other side takes it in time.

        A byte stream has no place for ``close_code``. What the other side still sends is dropped.
        Another close beside this one lasts as long; one that is cancelled closes at once.
        """
        try:
            if self._closing:
                await self._closed.wait()
            else:
                self._closing = True
                with trio.move_on_after(self._close_timeout):
                    if self._sending:
                        await self._sent.wait()
                    if not self._torn:
                        await self._stream.aclose()
        except BROKEN:
            pass
        finally:
            try:
                with suppress(*BROKEN):
                    await trio.aclose_forcefully(self._stream)
            finally:
                self._closed.set()
        await trio.lowlevel.checkpoint()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(
            "the transport was closed" if self._closing else "the connection broke"
        )


def _framed(message: bytes | str) -> tuple[bytes, bytes]:
    """A message's header, and what follows it."""
    data = message.encode() if isinstance(message, str) else message
    return len(data).to_bytes(HEADER_BYTES, "big"), data


async def _send_on_socket(
    socket: trio.socket.SocketType, header: bytes, data: bytes | bytearray
) -> None:
    if len(data) < LARGE_BYTES or not hasattr(socket, "sendmsg"):
        data = header + data
        sent = await socket.send(data)
    else:
        sent = await socket.sendmsg((header, data)) - HEADER_BYTES
        if sent < 0:
            data = header[sent:] + data
            sent = 0
    if sent < len(data):
        with memoryview(data) as view:
            while sent < len(view):
                with view[sent:] as rest:
                    sent += await socket.send(rest)


# --- both sides' prefaces


def _orderly(stream: trio.abc.Stream) -> trio.abc.Stream:
    return OrderlyStream(stream) if isinstance(stream, trio.abc.HalfCloseableStream) else stream


async def _receive_preface(stream: trio.abc.Stream) -> tuple[Encoding | None, bytes]:
    """The encoding that was asked for, and what came behind; None, and what came instead."""
    data = b""
    while len(data) < PREFACE_BYTES and any(each.startswith(data) for each in PREFACES.values()):
        more = await stream.receive_some()
        if not more:
            break
        data += more
    for encoding, preface in PREFACES.items():
        if data.startswith(preface):
            return encoding, data[PREFACE_BYTES:]
    return None, data


async def _greet(
    stream: trio.abc.Stream, encoding: Encoding, *, name: str, remote: str, limits: Limits
) -> ByteStreamTransport:
    """The connecting side: it speaks first, and is answered the same."""
    answered: Encoding | None = None
    begun = b""
    try:
        await stream.send_all(PREFACES[encoding])
        answered, begun = await _receive_preface(stream)
    except BROKEN as error:
        # Its end, in whatever way, is an answer; but not what TLS has against it.
        cause = error.__cause__
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            raise Unavailable(f"cannot connect to {name}: {cause}") from None
    if answered != encoding:
        if begun:
            said = f": it answered {begun[:40]!r}"
        else:
            # A server that takes no such encoding says nothing either, nor one that is full.
            wants = ", or wants a certificate" if isinstance(stream, trio.SSLStream) else ""
            said = f", or takes another encoding{wants}, or is full: it closed the connection"
        raise Unavailable(f"{name} is no server of streamrpc{said}")
    return ByteStreamTransport(stream, encoding=encoding, remote=remote, limits=limits, begun=begun)


async def _answer(
    stream: trio.abc.Stream, encoding: Encoding | None, *, limits: Limits
) -> ByteStreamTransport | None:
    """The accepting side: None if the other is no client, or wants an encoding other than that."""
    try:
        if isinstance(stream, trio.SSLStream):
            await stream.do_handshake()
        asked, begun = await _receive_preface(stream)
        if asked is None or encoding not in (None, asked):
            return None
        await stream.send_all(PREFACES[asked])
    except BROKEN:
        return None
    return ByteStreamTransport(
        stream, encoding=asked, remote=peer_name(stream), limits=limits, begun=begun
    )


# --- what connect(), serve() and open_connection() do


@asynccontextmanager
async def connect_stream(
    url: str,
    *,
    encoding: Encoding,
    limits: Limits,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    ssl_context: ssl.SSLContext | None = None,
    bare: bool = False,
) -> AsyncIterator[ByteStreamTransport | LineTransport]:
    """Connect to a ``tcp://``, ``tls://`` or ``unix://`` URL; closed when the block ends.

    ``bare``: with a message to a line, as other systems do. Raises :exc:`Unavailable` if nobody
    answers, or somebody else, and :exc:`ValueError` for ``headers``, which a byte stream has no
    place for.
    """
    scheme, address = _address(url)
    if tuple(headers):
        raise ValueError(f"headers were given for {url!r}, which has none")
    check_client_context(url, ssl_context, encrypted=scheme == "tls")
    stream: trio.abc.Stream | None = None
    transport: ByteStreamTransport | LineTransport | None = None
    try:
        with trio.move_on_after(limits.handshake_timeout):
            if isinstance(address, str):
                stream = OrderlyStream(await connect_unix(url, address))
                remote = address
            else:
                host, port = address
                stream = OrderlyStream(await connect_tcp(url, host, port))
                remote = address_name(host, port)
                if scheme == "tls":
                    stream = await start_tls(url, host, stream, ssl_context, https_compatible=False)
            if bare:
                transport = LineTransport(stream, remote=remote, limits=limits)
            else:
                transport = await _greet(stream, encoding, name=url, remote=remote, limits=limits)
        if transport is None:
            raise Unavailable(f"{url} did not answer within {limits.handshake_timeout} s")
        yield transport
    finally:
        if stream is not None:
            await close_by_force(stream)


@asynccontextmanager
async def accept_stream(
    stream: trio.abc.Stream,
    *,
    path: str,
    limits: Limits,
    origins: Origins | None = None,
    nursery: trio.Nursery | None = None,
    subprotocols: Mapping[str | None, Encoding] = {},
) -> AsyncIterator[ByteStreamTransport | LineTransport | None]:
    """Hear what a client says first on a stream just accepted; None if it is no client of ours.

    ``path`` and ``origins`` are what other transports look at: on a byte stream there is one
    service, and no browser has one. Nothing is negotiated there: where None is among the
    ``subprotocols``, all clients speak another system's words, with a message to a line.
    ``nursery`` is where the connection's tasks may live, which lasts longer than the block.
    """
    stream = _orderly(stream)
    transport: ByteStreamTransport | LineTransport | None = None
    try:
        if None in subprotocols:
            transport = LineTransport(stream, remote=peer_name(stream), limits=limits)
        else:
            with trio.move_on_after(limits.handshake_timeout):
                transport = await _answer(stream, None, limits=limits)
        if transport is not None:
            transport.nursery = nursery
        yield transport
    finally:
        await close_by_force(stream)


@asynccontextmanager
async def open_lines(stream: trio.abc.Stream, *, limits: Limits) -> AsyncIterator[LineTransport]:
    """A transport with a message to a line; the stream is closed when the block ends."""
    stream = _orderly(stream)
    try:
        yield LineTransport(stream, remote=peer_name(stream), limits=limits)
    finally:
        await close_by_force(stream)


@asynccontextmanager
async def open_stream(
    stream: trio.abc.Stream, side: Side, *, encoding: Encoding | None, limits: Limits
) -> AsyncIterator[ByteStreamTransport]:
    """A transport over any stream of Trio's; the stream is closed when the block ends.

    The connecting side chooses the encoding, msgpack by default; an accepting side that names one
    takes no other. Raises :exc:`Unavailable` if the other side is no server of streamrpc, and
    :exc:`RemoteProtocolError` if it is no client.
    """
    if encoding is not None and encoding not in PREFACES:
        raise ValueError(f'encoding must be "msgpack" or "json", not {encoding!r}')
    stream = _orderly(stream)
    transport: ByteStreamTransport | None = None
    name = peer_name(stream)
    try:
        with trio.move_on_after(limits.handshake_timeout) as handshake:
            if side == "connecting":
                transport = await _greet(
                    stream, encoding or "msgpack", name=name, remote=name, limits=limits
                )
            else:
                transport = await _answer(stream, encoding, limits=limits)
        if transport is None:
            raise _refused(side, name, limits, late=handshake.cancelled_caught)
        yield transport
    finally:
        await close_by_force(stream)


def _refused(side: Side, name: str, limits: Limits, *, late: bool) -> RpcError:
    if side == "connecting":
        return Unavailable(f"{name} did not answer within {limits.handshake_timeout} s")
    if late:
        said = f"nothing was said within {limits.handshake_timeout} s"
    else:
        said = f"{name} is no client of streamrpc, or asks for another encoding"
    return reactions.NO_GREETING.error(said)


async def listen(
    url: str, *, ssl_context: ssl.SSLContext | None = None
) -> tuple[list[trio.abc.Listener[Any]], str]:
    """Listen at a ``tcp://``, ``tls://`` or ``unix://`` URL; gives the listeners and the real URL.

    Raises :exc:`OSError` if the address cannot be had, as Trio does.
    """
    scheme, address = _address(url)
    check_context(url, ssl_context, encrypted=scheme == "tls")
    if isinstance(address, str):
        return [await listen_unix(url, address)], url
    listeners, real = await listen_tcp(urlsplit(url), *address)
    if ssl_context is None:
        return list(listeners), real
    return [
        trio.SSLListener(OrderlyListener(each), ssl_context, https_compatible=False)
        for each in listeners
    ], real


def _address(url: str) -> tuple[str, str | tuple[str, int]]:
    """The scheme, and a path or host and port."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.scheme, path_in(url)
    address = address_in(parts, url, default_port=None)
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{url!r} has more than a host and a port")
    return parts.scheme, address
