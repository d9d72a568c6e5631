"""Every public operation, cancelled at its first step, its second, and so on until it completes.

Only Cancelled comes out; the next call works, on the same connection unless that is what was
cancelled; nothing is left, neither ids nor places nor tasks; and what has gone over the wire is
whole messages. A public operation that is not in a table here fails the last test.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import trio_streamrpc
from tests.addresses import address
from tests.end_to_end.conftest import baseline  # noqa: F401  # a fixture, for each test here
from tests.end_to_end.network import serving, until
from tests.runtime.ends import Cut, Ends, open_ends, quiet, sweep
from trio_streamrpc import (
    Connection,
    ConnectionLost,
    Limits,
    Server,
    Stream,
    batched,
    connect,
    connect_parent,
    connect_process,
    open_connection,
    relay,
    rpc,
    serve,
    serve_forever,
)
from trio_streamrpc.dialects import kkrpc
from trio_streamrpc.testing import open_pair
from trio_streamrpc.transports.memory import open_memory_transports


class Account:
    @rpc
    async def debit(self, amount: int) -> int:
        return amount

    @rpc
    async def entries(self) -> AsyncIterator[int]:
        yield 1
        yield 2


class Service:
    """What runs is counted: in the end it has stopped."""

    def __init__(self) -> None:
        self.running = 0
        self.noted = 0
        self._theme = "light"

    @property
    @rpc
    def theme(self) -> str:
        return self._theme

    @theme.setter
    def theme(self, value: str) -> None:
        self._theme = value

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        self.running += 1
        try:
            yield
            await trio.lowlevel.checkpoint()
        finally:
            self.running -= 1

    @rpc
    async def add(self, a: int, b: int) -> int:
        async with self._counted():
            await trio.lowlevel.checkpoint()
            return a + b

    @rpc
    async def echo(self, value: bytes) -> bytes:
        return value

    @rpc(oneway=True)
    async def note(self) -> None:
        self.noted += 1

    @rpc
    async def count(self, stop: int) -> AsyncIterator[int]:
        async with self._counted():
            for number in range(stop):
                yield number

    @rpc
    async def total(self, numbers: AsyncIterable[int]) -> int:
        async with self._counted():
            return sum([number async for number in numbers])

    @rpc
    async def doubled(self, numbers: Stream[int]) -> AsyncIterator[int]:
        async with self._counted():
            async for number in numbers:
                yield 2 * number

    @rpc
    async def build(self, progress: Callable[[int], Awaitable[None]]) -> int:
        async with self._counted():
            for number in range(3):
                await progress(number)
            return 3

    @rpc
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Account]:
        async with self._counted():
            yield Account()

    @rpc
    async def watch(self, *, task_status: trio.TaskStatus[Account]) -> None:
        async with self._counted():
            task_status.started(Account())
            await trio.lowlevel.checkpoint()

    @rpc
    async def watch_for_ever(self, *, task_status: trio.TaskStatus[Account]) -> None:
        async with self._counted():
            task_status.started(Account())
            await trio.sleep_forever()


async def some(*numbers: int) -> AsyncIterator[int]:
    for number in numbers:
        await trio.lowlevel.checkpoint()
        yield number


async def progress(number: int) -> None:
    await trio.lowlevel.checkpoint()


#: Runs what is to be cancelled; gives its value, in a list, or nothing if it was cancelled.
Run = Callable[[Callable[[], Awaitable[Any]]], Awaitable[list[Any]]]


def api(ends: Ends) -> Service:
    return ends.client.proxy(Service)


# --- on a connection that goes on


async def call(ends: Ends, run: Run) -> None:
    assert await run(lambda: ends.client.call("add", 1, 2)) in ([3], [])


async def call_of_a_proxy(ends: Ends, run: Run) -> None:
    assert await run(lambda: api(ends).add(1, 2)) in ([3], [])


async def call_with_a_large_value(ends: Ends, run: Run) -> None:
    size = 300_000
    found = await run(lambda: api(ends).echo(bytes(size)))
    assert [len(each) for each in found] in ([size], [])


async def call_oneway(ends: Ends, run: Run) -> None:
    await run(lambda: api(ends).note())


async def call_with_an_upload(ends: Ends, run: Run) -> None:
    assert await run(lambda: api(ends).total(some(1, 2, 3))) in ([6], [])


async def call_with_a_callback(ends: Ends, run: Run) -> None:
    assert await run(lambda: api(ends).build(progress)) in ([3], [])


async def ping(ends: Ends, run: Run) -> None:
    await run(lambda: ends.client.ping())
    assert await ends.client.ping() >= 0


async def enter_a_stream(ends: Ends, run: Run) -> None:
    stream = ends.client.stream("count", 3)
    if await run(stream.__aenter__):
        assert [item async for item in stream] == [0, 1, 2]
    await stream.__aexit__(None, None, None)


async def receive(ends: Ends, run: Run) -> None:
    async with ends.client.stream("count", 3) as stream:
        got = await run(stream.receive)
        assert got + [item async for item in stream] == [0, 1, 2]


async def iterate(ends: Ends, run: Run) -> None:
    async with ends.client.stream("count", 3) as stream:
        got = await run(stream.__anext__)
        assert got + [item async for item in stream] == [0, 1, 2]


async def receive_batches(ends: Ends, run: Run) -> None:
    async with ends.client.stream("count", 3) as stream:
        batches = stream.batches()
        got = await run(lambda: anext(batches))
        rest = [item async for batch in batches for item in batch]
        assert [item for batch in got for item in batch] + rest == [0, 1, 2]


async def close_a_stream(ends: Ends, run: Run) -> None:
    stream = ends.client.stream("count", 1000)
    await stream.__aenter__()
    await stream.receive()
    await run(stream.aclose)
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive()


async def leave_a_stream(ends: Ends, run: Run) -> None:
    stream = ends.client.stream("count", 1000)
    await stream.__aenter__()
    await stream.receive()
    await run(lambda: stream.__aexit__(None, None, None))
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive()


async def a_whole_block(ends: Ends, run: Run) -> None:
    async def use() -> list[int]:
        async with api(ends).doubled(some(1, 2, 3)) as stream:  # type: ignore[arg-type]
            return [item async for item in stream]

    assert await run(use) in ([[2, 4, 6]], [])


async def enter_a_context(ends: Ends, run: Run) -> None:
    context = api(ends).transaction()
    if await run(context.__aenter__):
        await context.__aexit__(None, None, None)


async def call_in_a_context(ends: Ends, run: Run) -> None:
    async with api(ends).transaction() as account:
        assert await run(lambda: account.debit(5)) in ([5], [])
        assert await account.debit(6) == 6


async def stream_in_a_context(ends: Ends, run: Run) -> None:
    async with api(ends).transaction() as account:

        async def use() -> list[int]:
            async with account.entries() as stream:
                return [item async for item in stream]

        assert await run(use) in ([[1, 2]], [])
        assert await account.debit(6) == 6


async def leave_a_context(ends: Ends, run: Run) -> None:
    context = api(ends).transaction()
    await context.__aenter__()
    await run(lambda: context.__aexit__(None, None, None))


async def start_a_task(ends: Ends, run: Run) -> None:
    async with trio.open_nursery() as nursery:
        found = await run(lambda: nursery.start(api(ends).watch_for_ever))
        for account in found:
            assert await account.debit(5) == 5
        nursery.cancel_scope.cancel()


async def run_a_task(ends: Ends, run: Run) -> None:
    async def use() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(api(ends).watch)

    await run(use)


async def batch_a_stream(ends: Ends, run: Run) -> None:
    async def use() -> list[list[int]]:
        async with ends.client.stream("count", 5) as stream:
            return [batch async for batch in batched(stream, max_items=2)]

    assert await run(use) in ([[[0, 1], [2, 3], [4]]], [])


async def get(ends: Ends, run: Run) -> None:
    assert await run(lambda: ends.client.get("theme")) in ([], ["light"])


async def set_(ends: Ends, run: Run) -> None:
    assert await run(lambda: ends.client.set("theme", "light")) in ([], [None])


ON_A_CONNECTION: dict[str, Callable[[Ends, Run], Awaitable[None]]] = {
    "Connection.call": call,
    "Connection.proxy": call_of_a_proxy,
    "Connection.get": get,
    "Connection.set": set_,
    "a large value": call_with_a_large_value,
    "oneway": call_oneway,
    "an upload": call_with_an_upload,
    "a callback": call_with_a_callback,
    "Connection.ping": ping,
    "Stream.__aenter__": enter_a_stream,
    "Stream.receive": receive,
    "Stream.__anext__": iterate,
    "Stream.batches": receive_batches,
    "Stream.aclose": close_a_stream,
    "Stream.__aexit__": leave_a_stream,
    "an upload and a stream": a_whole_block,
    "entering a context": enter_a_context,
    "a call in a context": call_in_a_context,
    "a stream in a context": stream_in_a_context,
    "leaving a context": leave_a_context,
    "nursery.start": start_a_task,
    "a task": run_a_task,
    "batched": batch_a_stream,
}


def runner(cut: Cut, completed: list[Any]) -> Run:
    async def run(operation: Callable[[], Awaitable[Any]]) -> list[Any]:
        found: list[Any] = []
        with cut.arm():
            found.append(await operation())
        completed.extend(found)
        return found

    return run


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
@pytest.mark.parametrize("name", ON_A_CONNECTION)
async def test_on_a_connection(name: str, encoding: Any, autojump_clock: Any) -> None:
    service = Service()
    limits = Limits(max_calls=2, max_uploads=1, max_object_calls=1)

    async def attempt(cut: Cut) -> bool:
        completed: list[Any] = []
        await ON_A_CONNECTION[name](ends, runner(cut, completed))
        assert await ends.client.call("add", 1, 2) == 3
        await quiet()
        ends.assert_clean()
        assert service.running == 0
        return bool(completed)

    async with open_ends(service, limits=limits, encoding=encoding) as ends:
        # What has arrived already is taken in one step.
        least = 0 if name == "Stream.__aenter__" else 1
        assert await sweep(attempt, at_least=least) >= least


# --- of a connection, which ends with it


async def use(connection: Connection) -> None:
    assert await connection.call("add", 1, 2) == 3
    async with connection.stream("count", 3) as stream:
        assert await stream.receive() == 0


async def open_and_close(service: Service, run: Run) -> None:
    async def block() -> None:
        async with open_pair(service) as connection:
            await use(connection)

    await run(block)


async def open_over_a_transport(service: Service, run: Run) -> None:
    here, there = open_memory_transports()

    async def other() -> None:
        async with open_connection(there, "accepting", serving=service) as connection:
            await connection.wait_closed()

    async def block() -> None:
        async with open_connection(here) as connection:
            await use(connection)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(suppressing, other)
        await run(block)
        await trio.aclose_forcefully(here)


async def suppressing(other: Callable[[], Awaitable[None]]) -> None:
    # The handshake may be cut short on the other side.
    with contextlib.suppress(trio_streamrpc.RpcError):
        await other()


async def close_a_connection(service: Service, run: Run) -> None:
    async with open_pair(service) as connection:
        await use(connection)
        await run(connection.aclose)
        assert not connection.alive


async def wait_for_the_end(service: Service, run: Run) -> None:
    async with open_pair(service) as connection, trio.open_nursery() as nursery:

        async def close() -> None:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            await connection.aclose()

        nursery.start_soon(close)
        await run(connection.wait_closed)


async def drain_a_connection(service: Service, run: Run) -> None:
    """Whoever drains goes on to be called for what runs, and calls himself."""
    async with open_pair(service, serving=Service()) as connection:
        await use(connection)
        await run(connection.drain)
        await use(connection)


OF_A_CONNECTION: dict[str, Callable[[Service, Run], Awaitable[None]]] = {
    "open_pair": open_and_close,
    "open_connection": open_over_a_transport,
    "Connection.aclose": close_a_connection,
    "Connection.wait_closed": wait_for_the_end,
    "Connection.drain": drain_a_connection,
}


@pytest.mark.parametrize("name", OF_A_CONNECTION)
async def test_of_a_connection(name: str, autojump_clock: Any) -> None:
    service = Service()

    async def attempt(cut: Cut) -> bool:
        completed: list[Any] = []
        before = trio.lowlevel.current_statistics().tasks_living
        await OF_A_CONNECTION[name](service, runner(cut, completed))
        await quiet()
        assert trio.lowlevel.current_statistics().tasks_living <= before
        assert service.running == 0
        return bool(completed)

    await sweep(attempt, at_least=1)


# --- over sockets


async def connect_and_leave(server: Server, options: dict[str, Any], run: Run) -> None:
    async def block() -> None:
        async with connect(server.url, **options) as connection:
            await use(connection)

    await run(block)


@pytest.mark.parametrize("kind", ["tcp", "unix", "ws"])
async def test_connect(kind: str) -> None:
    """The server goes on, and has forgotten who has not come."""
    service = Service()
    with address(kind) as (url, server_options, options):
        async with serving(service, url, **server_options) as server:

            async def attempt(cut: Cut) -> bool:
                completed: list[Any] = []
                await connect_and_leave(server, options, runner(cut, completed))
                return bool(completed)

            await sweep(attempt, at_least=5)
            async with connect(server.url, **options) as connection:
                await use(connection)
                await until(lambda: len(server.connections) == 1 and not service.running)


async def serve_and_be_called(run: Run, how: Any, url: str, *, drained: bool = False) -> None:
    """A server is cancelled in whatever it does: listening, greeting, serving."""
    service = Service()
    status = Started()

    async def client() -> None:
        await status.event.wait()
        assert status.server is not None
        try:
            async with connect(status.server.url) as connection:
                async for _ in connection.stream("count", 10):
                    pass
                await connection.call("add", 1, 2)
            if drained:
                await status.server.drain()
        except trio_streamrpc.RpcError:
            pass
        ended.set()

    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)

        async def both() -> None:
            await how(service, url, task_status=status)

        await run(both)
        if status.server is not None:
            await ended.wait()
        nursery.cancel_scope.cancel()
    assert service.running == 0


class Started:
    """What a server tells when it has begun."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.server: Server | None = None

    def started(self, server: Any = None) -> None:
        self.server = server
        self.event.set()


@pytest.mark.parametrize("how", [serve, serve_forever])
async def test_serve(how: Any) -> None:
    """It completes by a drain; cancelled, it has stopped all that it ran."""

    async def attempt(cut: Cut) -> bool:
        completed: list[Any] = []
        run = runner(cut, completed)
        await serve_and_be_called(run, how, "tcp://127.0.0.1:0", drained=True)
        return bool(completed)

    await sweep(attempt, at_least=5)


@pytest.mark.parametrize("what", ["drain", "wait_drained"])
async def test_drain_a_server(what: str) -> None:
    """A drain that is cancelled can be begun again, and comes to its end."""

    async def attempt(cut: Cut) -> bool:
        completed: list[Any] = []
        service = Service()
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(serve, service, "tcp://127.0.0.1:0")
            async with connect(server.url) as connection:
                await use(connection)
                if what == "drain":
                    await runner(cut, completed)(server.drain)
                    await server.drain()
                else:
                    nursery.start_soon(server.drain)
                    await runner(cut, completed)(server.wait_drained)
        assert service.running == 0
        return bool(completed)

    await sweep(attempt, at_least=1)


# --- in place


async def test_a_local_stream(autojump_clock: Any) -> None:
    """A stream method called without a connection: cancelled like the generator that it is."""

    async def attempt(cut: Cut) -> bool:
        completed: list[Any] = []

        async def whole() -> list[int]:
            async with service.doubled(some(1, 2, 3)) as stream:  # type: ignore[arg-type]
                first = await stream.receive()
                rest = [item async for item in stream]
                await stream.aclose()
                return [first, *rest]

        assert await runner(cut, completed)(whole) in ([[2, 4, 6]], [])
        assert service.running == 0
        return bool(completed)

    service = Service()
    await sweep(attempt, at_least=3)


# --- what stands between transports, and child processes


async def test_relay(autojump_clock: Any) -> None:
    """Both transports are closed, wherever it is cancelled."""

    async def attempt(cut: Cut) -> bool:
        left, a = open_memory_transports()
        right, b = open_memory_transports()
        completed: list[Any] = []

        async def talk() -> None:
            with contextlib.suppress(ConnectionLost):
                for _ in range(3):
                    await left.send(b"x")
                    await right.receive()
            await left.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            await runner(cut, completed)(lambda: relay(a, b))
            for end in (left, right):
                with pytest.raises(ConnectionLost):
                    while True:
                        await end.receive()
        return bool(completed)

    await sweep(attempt)


async def test_child_processes() -> None:
    """No process is left, nor anything open to it: the fixture looks.

    How many steps a process takes is the system's to say, and they are many: the first are tried
    one by one, the others more and more of them at once.
    """

    async def attempt(cut: Cut) -> bool:
        completed: list[Any] = []

        async def block() -> None:
            async with connect_process(["cat"], dialect=kkrpc):
                await trio.lowlevel.checkpoint()

        await runner(cut, completed)(block)
        return bool(completed)

    step, done = 0, False
    while not done:
        async with trio.open_nursery() as nursery:
            done = await attempt(Cut(step, nursery))
            nursery.cancel_scope.cancel()
        step += max(1, step // 5)
    assert step > 3


async def test_standard_streams() -> None:
    """They are given back, wherever it is cancelled."""
    before = [os.fstat(each) for each in (0, 1)]

    async def attempt(cut: Cut) -> bool:
        completed: list[Any] = []

        async def block() -> None:
            async with connect_parent(Service(), dialect=kkrpc):
                await trio.lowlevel.checkpoint()

        await runner(cut, completed)(block)
        assert [os.fstat(each)[:3] for each in (0, 1)] == [each[:3] for each in before]
        return bool(completed)

    await sweep(attempt)


#: What the tests above run under other names, and what is not for users to await.
OTHERWISE = {
    "connect": test_connect,
    "connect_process": test_child_processes,
    "connect_parent": test_standard_streams,
    "relay": test_relay,
    "serve": test_serve,
    "serve_forever": test_serve,
    "Server.drain": test_drain_a_server,
    "Server.wait_drained": test_drain_a_server,
    "Connection.finish": test_of_a_connection,
    "Connection.flush": test_of_a_connection,
    "Connection.wait_greeted": test_of_a_connection,
    "LocalStream.__aenter__": test_a_local_stream,
    "LocalStream.__aexit__": test_a_local_stream,
    "LocalStream.__anext__": test_a_local_stream,
    "LocalStream.receive": test_a_local_stream,
    "LocalStream.aclose": test_a_local_stream,
}

#: tests/transports/test_conformance.py has them, over every transport that there is.
TRANSPORTS = {"Transport.send", "Transport.receive", "Transport.aclose"} | {
    "Transport.__aenter__",
    "Transport.__aexit__",
}


def is_async(value: object) -> bool:
    function = inspect.unwrap(value) if callable(value) else value
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def public_operations() -> set[str]:
    found = {"batched", "open_pair"}
    for name, value in vars(trio_streamrpc).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        if not inspect.isclass(value):
            if is_async(value):
                found.add(name)
        elif not issubclass(value, BaseException):
            members = {each for each in dir(value) if not each.startswith("_")}
            members |= {"__aenter__", "__aexit__", "__anext__"}
            found |= {f"{name}.{each}" for each in members if is_async(getattr(value, each, None))}
    return found


async def test_every_public_operation_is_swept() -> None:
    swept = ON_A_CONNECTION.keys() | OF_A_CONNECTION.keys() | OTHERWISE.keys() | TRANSPORTS
    assert public_operations() - swept == set()
