"""Every operation on a dialect's connection, cancelled at its first step, its second, and so on.

Only Cancelled comes out, the next call works, and nothing is left, on either side.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests import test_cancellation as core
from tests.runtime.ends import Cut, Ends, quiet, sweep
from tests.test_cancellation import Run, Service, runner
from trio_streamrpc import Connection, open_connection
from trio_streamrpc.dialects import Dialect, kkrpc, kkrpc_classic, signal
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.transports.memory import open_memory_transports

Operation = Callable[[Ends, Run], Awaitable[None]]


async def send_a_stream(ends: Ends, run: Run) -> None:
    streams = signal.streams(ends.client)
    await run(lambda: streams.send_stream(core.some(1, 2, 3), "x"))
    # Both ends of it are over: its id is free again.
    await quiet()
    signal.streams(ends.server).close_receiving_stream("x")
    await streams.send_stream(core.some(1), "x")
    await quiet()
    signal.streams(ends.server).close_receiving_stream("x")


async def receive_a_stream(ends: Ends, run: Run) -> None:
    there, here = signal.streams(ends.server), signal.streams(ends.client)

    async def use() -> list[int]:
        async with here.receive_stream("x") as stream:
            return [item async for item in stream]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(there.send_stream, core.some(1, 2, 3), "x")
        assert await run(use) in ([[1, 2, 3]], [])
        await quiet()
        here.close_receiving_stream("x")


EVERYWHERE: dict[str, Operation] = {
    "call": core.call,
    "a typed call": core.call_of_a_proxy,
    "a large value": core.call_with_a_large_value,
    "oneway": core.call_oneway,
    "entering a stream": core.enter_a_stream,
    "receive": core.receive,
    "iterating": core.iterate,
    "batches": core.receive_batches,
    "closing a stream": core.close_a_stream,
    "leaving a stream": core.leave_a_stream,
    "batched": core.batch_a_stream,
    "get": core.get,
    "set": core.set_,
}
OPERATIONS: list[tuple[Dialect, str, Operation]] = [
    *((each, name, EVERYWHERE[name]) for each in (kkrpc, kkrpc_classic) for name in EVERYWHERE),
    *((signal, name, operation) for name, operation in EVERYWHERE.items()),
    (kkrpc, "a callback", core.call_with_a_callback),
    (kkrpc_classic, "a callback", core.call_with_a_callback),
    (kkrpc, "an upload", core.call_with_an_upload),
    (kkrpc, "an upload and a stream", core.a_whole_block),
    (signal, "sending a stream", send_a_stream),
    (signal, "receiving a stream", receive_a_stream),
]


@asynccontextmanager
async def open_ends(dialect: Dialect, service: object) -> AsyncIterator[Ends]:
    up, down = open_memory_transports(encoding="json")
    servers: list[Connection] = []
    async with open_background_nursery() as nursery:

        async def serve_it() -> None:
            async with open_connection(
                down, "accepting", dialect=dialect, serving=service
            ) as connection:
                servers.append(connection)
                await connection.wait_closed()

        nursery.start_soon(serve_it)
        async with open_connection(up, dialect=dialect) as client:
            await quiet()
            everything: Any = (client, servers[0], up, down)
            yield Ends(*everything)


def kept(connection: Connection) -> dict[str, Any]:
    """What an endpoint knows besides what every endpoint does, save what it remembers as over."""
    names = [
        "accesses", "_consumed", "_consumed_ids", "_produced", "_waiting_cancels", "_streaming",
        "_sent",
    ]  # fmt: skip
    found = {name: getattr(connection.endpoint, name, None) for name in names}
    requests: Any = connection.endpoint.requests  # type: ignore[attr-defined]
    found |= {"requests": requests._by_id, "callbacks": requests.callbacks}
    return {name: value for name, value in found.items() if value}


@pytest.mark.parametrize(
    ("dialect", "operation"),
    [
        pytest.param(dialect, each, id=f"{dialect.name}, {name}")
        for dialect, name, each in OPERATIONS
    ],
)
async def test_on_a_connection(dialect: Dialect, operation: Operation, autojump_clock: Any) -> None:
    service = Service()

    async def attempt(cut: Cut) -> bool:
        completed: list[Any] = []
        await operation(ends, runner(cut, completed))
        assert await ends.client.call("add", 1, 2) == 3
        await quiet()
        ends.assert_clean()
        for each in (ends.client, ends.server):
            assert kept(each) == {}
            assert each.endpoint.budget.left == each.limits.violation_budget
        assert service.running == 0
        return bool(completed)

    async with open_ends(dialect, service) as ends:
        await sweep(attempt, at_least=0)
