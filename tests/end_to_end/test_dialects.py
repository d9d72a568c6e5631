"""Other systems' programs over real sockets: Node processes that speak their wires by hand."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.dialects import nodes
from tests.dialects.recorded import Recorded, conversation
from tests.dialects.test_recordings import PROGRAMS, outcome
from trio_streamrpc import connect, connect_process, rpc, serve
from trio_streamrpc.dialects import Dialect, kkrpc, kkrpc_classic, native, signal
from trio_streamrpc.dialects.base import Native

ALL: Sequence[Native | Dialect] = (native, kkrpc, kkrpc_classic, signal)


@pytest.fixture(scope="module")
def node() -> None:
    nodes.install()


class Served(Recorded):
    """… and what the programs of the Node clients ask besides."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    @rpc
    async def ticks(self) -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
                await trio.sleep(0.005)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.02)
            self.count += 1

    @rpc
    async def ended(self) -> int:
        return self.count


@asynccontextmanager
async def serving(service: object, **options: Any) -> AsyncIterator[str]:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                lambda task_status: serve(
                    service, "ws://127.0.0.1:0", task_status=task_status, **options
                )
            )
            yield server.url
            nursery.cancel_scope.cancel()


def value(each: Any) -> dict[str, Any]:
    return {"value": each}


def error(name: str, message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"name": name, "message": message, **fields}}


COMMON = {
    "unary": value(3),
    "error": error("TypeError", "bad thing", code=42),
    "nul": value(None),
    "values": value({"s": "é😀", "n": 1.5, "b": True, "a": [1, [2]], "o": {"x": None}}),
    "stream": value([5, 4, 3, 2, 1, 0]),
    "long_stream": value(1000),
    "nested_stream": value(["item-0", "item-1", "item-2"]),
}
KKRPC = {
    **COMMON,
    "none": value("undefined"),
    "get": value([7, "light"]),
    "set": value([True, "dark"]),
    "two_streams": value([[5, 4, 3, 2, 1, 0], [3, 2, 1, 0]]),
    "callback": value(["done", [0.25, 0.5, 1]]),
    "nonsense_is_ignored": value(7),
}


@nodes.needs_node
@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("dialects", [ALL, (kkrpc,)], ids=["all", "alone"])
async def test_kkrpc_calls(dialects: Any) -> None:
    async with serving(Served(), dialects=dialects) as url:
        outcomes = await nodes.ran("kkrpc.js", url)
    refused = "is not served here: there are calls, and properties to get and set"
    assert outcomes == {
        **KKRPC,
        "unknown_method": error("Error", "nothing is not a function"),
        "set_what_cannot_be": error("Error", "counter cannot be set"),
        "get_a_method": error("Error", "add is no property"),
        "stream_error": error("Error", "Error: something went wrong"),
        # The handler's finally has run before the loop was left.
        "break_early": value([[0, 1, 2], 1]),
        "throw_early": value(2),
        "upload": value(6),
        "long_upload": value(sum(range(500))),
        "upload_error": error("Error", "Error: client broke"),
        "new_is_refused": error("Error", f"'new' {refused}"),
        "ref_is_refused": error("Error", f"'ref' {refused}"),
        "a_hundred_calls": value(100),
    }


@nodes.needs_node
@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("dialects", [ALL, (kkrpc_classic,)], ids=["all", "alone"])
async def test_classic_calls(dialects: Any) -> None:
    async with serving(Served(), dialects=dialects) as url:
        outcomes = await nodes.ran("kkrpc_classic.js", url)
    refused = "is not served here: there are calls, and properties to get and set"
    assert outcomes == {
        **KKRPC,
        "unknown_method": error("Error", "Method nothing is not a function"),
        "stream_error": error("Error", "something went wrong"),
        "break_early": value([0, 1, 2]),
        "construct_is_refused": error("Error", f"'construct' {refused}"),
    }


class Expecting(Served):
    """It receives streams whose ids are told to it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._nursery = nursery
        self._received: dict[str, trio.MemoryReceiveChannel[list[Any]]] = {}

    @rpc
    async def expect(self, stream_id: str) -> None:
        from trio_streamrpc import current_call

        stream = signal.streams(current_call().connection).receive_stream(stream_id)
        sender, self._received[stream_id] = trio.open_memory_channel(1)

        async def receive() -> None:
            async with stream:
                await sender.send([each async for each in stream])

        self._nursery.start_soon(receive)

    @rpc
    async def received(self, stream_id: str) -> list[Any]:
        return await self._received.pop(stream_id).receive()


@nodes.needs_node
@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("dialects", [ALL, (signal,)], ids=["all", "alone"])
async def test_signal_calls(dialects: Any) -> None:
    async with trio.open_nursery() as nursery:
        async with serving(Expecting(nursery), dialects=dialects) as url:
            outcomes = await nodes.ran("signal.js", url)
    assert outcomes == {
        **COMMON,
        "plainest": value(3),
        "stream_error": error("Error", "Error: something went wrong"),
        "agreed": value([1, 2, 3]),
    }


@nodes.needs_node
@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("script", "dialect", "system"),
    [
        ("kkrpc.js", kkrpc, "kkrpc-2.1"),
        ("kkrpc_classic.js", kkrpc_classic, "kkrpc-0.7-json"),
        ("signal.js", signal, None),
    ],
    ids=["kkrpc", "classic", "signal"],
)
async def test_they_serve(script: str, dialect: Dialect, system: str | None) -> None:
    """Programs of this side end as those of the recordings have ended."""
    left_out: set[str] = set()
    if system is None:
        # What signal-rpc has no words for.
        left_out = {"get", "set", "callback", "upload", "upload_error", "unknown_method"}
    elif dialect is kkrpc_classic:
        left_out = {"upload", "upload_error"}
    with trio.fail_after(30):
        async with nodes.served(script) as url, connect(url, dialect=dialect) as connection:
            for name, program in PROGRAMS.items():
                if name not in left_out:
                    recorded = conversation(system or "kkrpc-0.7-json", name)["outcome"]
                    if name == "get":
                        recorded = value([7, "light"])
                    assert await outcome(program, connection) == recorded, name
            assert connection.statistics().calls_open == 0


@nodes.needs_node
@pytest.mark.usefixtures("node")
async def test_a_kkrpc_server_cleans_up_before_the_block_is_left() -> None:
    with trio.fail_after(30):
        async with nodes.served("kkrpc.js") as url, connect(url, dialect=kkrpc) as connection:
            async with connection.stream("ticks") as ticks:
                assert [await ticks.receive() for _ in range(3)] == [0, 1, 2]
            assert await connection.call("ended") == 1


@nodes.needs_node
@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("error", [False, True])
async def test_a_generator_that_does_not_want_to_be_closed(error: bool) -> None:
    """It is asked until it is, and nobody waits for more than that."""
    with trio.fail_after(30):
        async with nodes.served("kkrpc.js") as url, connect(url, dialect=kkrpc) as connection:
            with contextlib.suppress(ZeroDivisionError):
                async with connection.stream("stubborn") as stream:
                    assert await stream.receive() == 0
                    if error:
                        raise ZeroDivisionError
            assert await connection.call("ended") == 1


@nodes.needs_node
@pytest.mark.parametrize(
    ("script", "dialect", "names"),
    [
        (
            "kkrpc.js",
            kkrpc,
            ("unary", "error", "stream", "break_early", "callback", "upload", "get"),
        ),
        (
            "kkrpc_classic.js",
            kkrpc_classic,
            ("unary", "error", "stream", "break_early", "callback", "get"),
        ),
        ("signal.js", signal, ("unary", "error", "stream", "values")),
    ],
    ids=["kkrpc", "classic", "signal"],
)
async def test_a_node_child(script: str, dialect: Dialect, names: tuple[str, ...]) -> None:
    """The same messages over standard input and output, one to a line."""
    child = ["node", str(nodes.SCRIPTS / script), "child"]
    with trio.fail_after(30):
        async with connect_process(child, dialect=dialect) as connection:
            for name in names:
                recorded = conversation("kkrpc-2.1", name)["outcome"]
                assert await outcome(PROGRAMS[name], connection) == recorded, name


PARENT = """
"use strict";
const { spawn } = require("node:child_process");
const readline = require("node:readline");
const child = spawn(process.argv[2], process.argv.slice(3), { stdio: ["pipe", "pipe", "inherit"] });
const lines = readline.createInterface({ input: child.stdout });
lines.once("line", (line) => {
  console.log(JSON.parse(line).v);
  child.stdin.end();
});
child.stdin.write(JSON.stringify({ t: "q", id: "1", op: "call", p: ["add"], a: [1, 2] }) + "\\n");
"""

CHILD = """
import trio
from tests.dialects.recorded import Recorded
from trio_streamrpc import connect_parent
from trio_streamrpc.dialects import kkrpc

async def main():
    async with connect_parent(Recorded(), dialect=kkrpc) as connection:
        await connection.wait_closed()

trio.run(main)
"""


@nodes.needs_node
async def test_a_child_of_node() -> None:
    with trio.fail_after(30):
        done = await trio.run_process(
            ["node", "-e", PARENT, "x", sys.executable, "-c", CHILD],
            capture_stdout=True,
            cwd=nodes.ROOT,
        )
    assert done.stdout == b"3\n"


# --- one port


@pytest.mark.parametrize("dialect", [None, kkrpc, kkrpc_classic, signal], ids=repr)
async def test_one_port(dialect: Dialect | None) -> None:
    """Each finds its own, and native clients in both encodings."""
    async with serving(Recorded(), dialects=ALL) as url:
        for encoding in ("msgpack", "json"):
            async with connect(url, dialect=dialect, encoding=encoding) as connection:
                assert await connection.call("add", 1, 2) == 3
