"""The peers: which script, in which environment, and what was set in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["PEERS", "SCRIPTS", "Contestant", "Peer", "contestants"]

#: Where the scripts of the peers are.
SCRIPTS = Path(__file__).parent / "peers"

#: What a peer measures unless it says otherwise.
STANDARD = ("W1", "W2", "W3", "W4", "W5", "W8")

#: What those measure that can be asked for a slow consumer and for one that leaves.
WITH_CONSUMERS = (*STANDARD, "W6", "W7", "W7i", "W7c")


@dataclass(frozen=True)
class Peer:
    name: str
    script: str
    environment: str | None
    """The file under ``requirements/``, without its ending; None for the interpreter that runs
    the benchmarks, which has the project."""
    settings: str
    """What was set, and why."""
    documentation: str
    """Where its own documentation says so."""
    transports: tuple[str, ...] = ()
    """Those it is measured over, if it has a choice."""
    workloads: tuple[str, ...] = STANDARD
    in_quick: bool = False
    """Whether a quick run measures it where nothing is chosen."""


@dataclass(frozen=True)
class Contestant:
    """A peer over one transport: what has a figure."""

    peer: Peer
    transport: str = ""

    @property
    def name(self) -> str:
        return f"{self.peer.name}_{self.transport}" if self.transport else self.peer.name


_ALL = (
    Peer(
        "ours",
        "ours.py",
        None,
        settings=(
            "nothing, except that the server of W9 and W10 has max_connections and "
            "max_connections_per_peer=100000, for as many clients at one address, and "
            "max_calls=2000, for a thousand streams at once on a connection"
        ),
        documentation="README.md",
        transports=("ws", "tcp", "unix"),
        workloads=(
            *("W1", "W2", "W3", "W3b", "W3t", "W4", "W5", "W6", "W7", "W7i", "W7c", "W8"),
            *("W9", "W10", "W11", "W12"),
        ),
        in_quick=True,
    ),
    Peer(
        "grpc_aio",
        "grpc_aio.py",
        "grpc_aio",
        settings=(
            "protobuf messages (upb); messages of any length; no compression, which is the "
            "default; no HTTP proxy; one channel, one stub for each method"
        ),
        documentation=(
            "https://grpc.io/docs/guides/performance/, "
            "https://grpc.github.io/grpc/python/grpc_asyncio.html, "
            "https://grpc.github.io/grpc/core/group__grpc__arg__keys.html"
        ),
        workloads=WITH_CONSUMERS,
        in_quick=True,
    ),
    Peer(
        "grpclib_asyncio",
        "grpclib_asyncio.py",
        "grpclib",
        settings=(
            "nothing: a window of 4 MiB, for a stream and for the connection, is the default; "
            "protobuf messages (upb); one channel; streaming calls by open(), which is the way "
            "that it advises for them"
        ),
        documentation=(
            "https://grpclib.readthedocs.io/en/latest/client.html, "
            "https://grpclib.readthedocs.io/en/latest/config.html"
        ),
    ),
    Peer(
        "websockets_uvloop",
        "websockets_uvloop.py",
        "websockets",
        settings=(
            "uvloop; no compression; messages of any length; a task for each call; the standard "
            "library's json; chunks as binary messages"
        ),
        documentation=(
            "https://websockets.readthedocs.io/en/stable/topics/compression.html, "
            "https://websockets.readthedocs.io/en/stable/topics/performance.html"
        ),
        workloads=WITH_CONSUMERS,
        in_quick=True,
    ),
    Peer(
        "rsocket_py",
        "rsocket_py.py",
        "rsocket",
        settings=(
            "aiohttp's transport, without compression, which is the default; the extra "
            '"optimized"; a credit of 256 items, renewed by halves: its documentation gives no '
            "number, and its default, no limit, has all of a stream in memory; publishers that "
            "send what they have credit for; the standard library's json, chunks as they are"
        ),
        documentation=(
            "https://github.com/rsocket/rsocket-py/blob/master/README.md (extras), "
            "https://rsocket.io/guides/rsocket-py/client (credit), "
            "https://rsocket.io/guides/rsocket-py/client/rsocket-websocket-client, "
            "https://rsocket.io/guides/rsocket-py/tutorial/messages (publishers)"
        ),
    ),
    Peer(
        "capnweb",
        "capnweb.mjs",
        "capnweb",
        settings=(
            "on Node, with the package ws, without compression and without bufferutil, which "
            "changes nothing here; ReadableStreams, whose flow control is its own affair; chunks "
            "as typed arrays, which its WebSocket transport sends as base64"
        ),
        documentation=(
            "https://github.com/cloudflare/capnweb/blob/main/README.md (HTTP server on Node.js; "
            "Streaming with flow control; Custom transports, on base64), "
            "https://github.com/websockets/ws/blob/master/README.md (compression, bufferutil)"
        ),
    ),
    Peer(
        "trio_websocket_json",
        "trio_websocket_json.py",
        "trio",
        settings=(
            "receive_buffer_size=None; a task for each call; the standard library's json; chunks "
            "as binary messages"
        ),
        documentation="https://trio-websocket.readthedocs.io/en/stable/api.html",
        workloads=WITH_CONSUMERS,
    ),
    Peer(
        "purerpc_trio",
        "purerpc_trio.py",
        "purerpc",
        settings=(
            "nothing, and there is nothing but the port to set: windows of 64 MiB are built in; "
            "protobuf messages (upb); one channel, one stub for each method"
        ),
        documentation=(
            "https://github.com/python-trio/purerpc/blob/master/README.md, "
            "https://github.com/python-trio/purerpc/blob/master/docs/immediate_mode.md"
        ),
    ),
    Peer(
        "floor_trio_tcp",
        "floor_trio_tcp.py",
        "trio",
        settings="nothing; Trio sets TCP_NODELAY by itself",
        documentation="https://trio.readthedocs.io/en/stable/reference-io.html",
        workloads=("W1", "W5"),
        in_quick=True,
    ),
    Peer(
        "floor_trio_websocket",
        "floor_trio_websocket.py",
        "trio",
        settings="receive_buffer_size=None",
        documentation="https://trio-websocket.readthedocs.io/en/stable/api.html",
        workloads=("W1", "W5", "W9"),
        in_quick=True,
    ),
    Peer(
        "floor_msgspec",
        "floor_msgspec.py",
        "trio",
        settings="one Encoder and one Decoder, MessagePack",
        documentation="https://jcristharif.com/msgspec/perf-tips.html",
        workloads=("W3",),
        in_quick=True,
    ),
)

PEERS = {peer.name: peer for peer in _ALL}


def contestants(names: list[str], transports: list[str]) -> list[Contestant]:
    """Those peers, each over those of its transports that are chosen."""
    found = []
    for name in names:
        peer = PEERS[name]
        found += [Contestant(peer, each) for each in peer.transports if each in transports]
        if not peer.transports:
            found.append(Contestant(peer))
    return found
