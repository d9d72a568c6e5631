"""Who gets into a server: how many at once, and after whose decision."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Any

import trio

from trio_streamrpc.errors import Unavailable
from trio_streamrpc.limits import Limits
from trio_streamrpc.runtime.handshake import Authenticate, Handshake, ask

__all__ = ["Admission"]

#: How many clients at once are told why there is no place for them: they have none meanwhile
#: either, and more of them are hung up on without a word.
MAX_TELLING = 100


def peer_of(address: str) -> str:
    """Whom an IP address counts for: of IPv6, one host has as many as it likes of its /64."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return address
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(IPv6Network((int(ip), 64), strict=False))


class Admission:
    """The places of a server's connections, and the decisions about clients that are under way."""

    def __init__(self, limits: Limits, authenticate: Authenticate | None) -> None:
        self._limits = limits
        self._authenticate = authenticate
        self._taken = 0
        self._by_peer: dict[str, int] = {}
        self._telling = 0
        self._deciding: set[trio.CancelScope] = set()
        self._closed = False
        #: Set once it is closed and no decision is under way any more.
        self._settled = trio.Event()
        #: What decides about a client, if anybody does.
        self.authenticate = None if authenticate is None else self._decide

    def enter(self, address: str | None) -> str | None:
        """Take a place for a connection from there; or tell why there is none."""
        if self._taken >= self._limits.max_connections:
            return f"there are {self._taken} connections"
        if address is not None:
            peer = peer_of(address)
            number = self._by_peer.get(peer, 0)
            if number >= self._limits.max_connections_per_peer:
                return f"there are {number} connections from {peer}"
            self._by_peer[peer] = number + 1
        self._taken += 1
        return None

    def leave(self, address: str | None) -> None:
        """Give a place back."""
        self._taken -= 1
        if address is not None:
            peer = peer_of(address)
            self._by_peer[peer] -= 1
            if not self._by_peer[peer]:
                del self._by_peer[peer]

    async def turn_away(
        self, stream: trio.abc.Stream, tell: Callable[[trio.abc.Stream], Awaitable[None]]
    ) -> None:
        """Close a stream for which there is no place, and ``tell`` why where that is cheap."""
        if self._telling >= MAX_TELLING:
            await trio.aclose_forcefully(stream)
            return
        self._telling += 1
        try:
            await tell(stream)
        finally:
            self._telling -= 1

    async def _decide(self, handshake: Handshake) -> Any:
        assert self._authenticate is not None
        with trio.CancelScope() as scope:
            if not self._closed:
                self._deciding.add(scope)
                try:
                    return await ask(self._authenticate, handshake)
                finally:
                    self._deciding.discard(scope)
                    if self._closed and not self._deciding:
                        self._settled.set()
        raise Unavailable("this server is going away")

    async def close(self) -> None:
        """Let nobody in any more; decisions that are under way are cancelled, and have ended."""
        self._closed = True
        for scope in self._deciding:
            scope.cancel()
        if self._deciding:
            await self._settled.wait()
        else:
            await trio.lowlevel.checkpoint()
