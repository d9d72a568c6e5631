"""What stands between and around the two sides: servers, raw peers, and relays that cut."""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.transports.rawsocket import RawSocket
from trio_streamrpc import Limits, Server, serve
from trio_streamrpc.nurseries import open_background_nursery

__all__ = ["SHORT", "Relay", "raw_client", "relaying", "reset", "serving", "until"]

#: Short enough that a test of what is not there does not take long.
SHORT = Limits(handshake_timeout=1, close_timeout=1, cancel_timeout=2, cleanup=1)


@asynccontextmanager
async def serving(
    service: object, url: str = "ws://127.0.0.1:0", **options: Any
) -> AsyncIterator[Server]:
    """A server for as long as the block lasts."""
    async with open_background_nursery() as nursery:
        server: Server = await nursery.start(functools.partial(serve, service, url, **options))
        yield server


async def until(condition: Callable[[], object]) -> None:
    """Wait for what has no event, as often the other side of a socket has none."""
    with trio.fail_after(15):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.001)


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.partition("://")[2].partition("/")[0].rpartition(":")
    return host.strip("[]"), int(port)


@asynccontextmanager
async def raw_client(url: str) -> AsyncIterator[RawSocket]:
    """A client by hand; it has not shaken hands."""
    async with await trio.open_tcp_stream(*address_of(url)) as stream:
        yield RawSocket(stream)


def reset(stream: trio.SocketStream) -> None:
    """Close a socket so that the other side gets a reset instead of an end."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


class Relay:
    """Passes bytes on between a client and a server, up to a number of them, in such pieces."""

    def __init__(
        self, target: str, *, cut_up: int | None, cut_down: int | None, piece: int
    ) -> None:
        self._target = address_of(target)
        self._cuts = {"up": cut_up, "down": cut_down}
        self._piece = piece
        #: How many bytes went by each way.
        self.passed = {"up": 0, "down": 0}
        #: While it is not set, nothing passes that way: a black hole.
        self._open = {"up": trio.Event(), "down": trio.Event()}
        self.open()
        self._streams: set[trio.SocketStream] = set()
        self.url = ""

    def close(self, *ways: str) -> None:
        """From now on nothing passes that way, or either way, and nobody is told."""
        for way in ways or ("up", "down"):
            self._open[way] = trio.Event()

    def open(self) -> None:
        """What was held back passes, and all that comes after it."""
        for each in self._open.values():
            each.set()

    def reset(self) -> bool:
        """Both sides get a reset, now; False if there are none."""
        streams = list(self._streams)
        for each in streams:
            reset(each)
        return bool(streams)

    async def handle(self, client: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream(*self._target) as server:
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._streams |= {client, server}
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass, "up", client, server, nursery)
                    nursery.start_soon(self._pass, "down", server, client, nursery)
            finally:
                self._streams -= {client, server}

    async def _pass(
        self,
        way: str,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        nursery: trio.Nursery,
    ) -> None:
        cut = self._cuts[way]
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while cut is None or self.passed[way] < cut:
                room = 65536 if cut is None else cut - self.passed[way]
                data = await source.receive_some(room)
                await self._open[way].wait()
                if not data:
                    await sink.send_eof()
                    return
                for start in range(0, len(data), self._piece):
                    await sink.send_all(data[start : start + self._piece])
                self.passed[way] += len(data)
        # Cut, or broken: neither side gets another byte.
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def relaying(
    target: str, *, cut_up: int | None = None, cut_down: int | None = None, piece: int = 65536
) -> AsyncIterator[Relay]:
    """A relay to the server at that URL, with a URL of the same scheme."""
    relay = Relay(target, cut_up=cut_up, cut_down=cut_down, piece=piece)
    async with open_background_nursery() as nursery:
        listeners = await nursery.start(
            functools.partial(trio.serve_tcp, relay.handle, 0, host="127.0.0.1")
        )
        port = listeners[0].socket.getsockname()[1]
        relay.url = f"{target.partition(':')[0]}://127.0.0.1:{port}"
        yield relay
