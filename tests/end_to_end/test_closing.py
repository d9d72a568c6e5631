"""How connections end over real sockets: in order, cancelled, and while much is under way."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.end_to_end.network import raw_client, relaying, serving
from tests.service import Service
from trio_streamrpc import (
    Code,
    Connection,
    ConnectionLost,
    Limits,
    RpcError,
    Unavailable,
    Window,
    connect,
    serve,
)

ENCODINGS = pytest.mark.parametrize("encoding", ["msgpack", "json"])


async def caught(call: Any, errors: list[BaseException]) -> None:
    try:
        await call()
    except Exception as error:
        errors.append(error)


async def drained(connection: Connection) -> None:
    """Take a stream's items for as long as there are any."""
    async for _ in connection.stream("forever"):
        pass


@ENCODINGS
async def test_leaving_while_much_runs(encoding: Any) -> None:
    """Handlers of both sides have finished when the block ends; nobody saw a regular end."""
    theirs, ours = Service(), Service()
    errors: list[BaseException] = []
    async with serving(theirs) as server, trio.open_nursery() as nursery:
        async with connect(server.url, encoding=encoding, serving=ours) as connection:
            nursery.start_soon(caught, lambda: connection.call("wait"), errors)
            nursery.start_soon(caught, lambda: drained(connection), errors)
            [there] = server.connections
            nursery.start_soon(caught, lambda: there.call("wait"), errors)
            nursery.start_soon(caught, lambda: drained(there), errors)
            await theirs.wait_running(2)
            await ours.wait_running(2)
            await theirs.wait_produced(200)
        assert sorted(theirs.ended) == sorted(ours.ended) == ["forever", "wait"]
    assert len(errors) == 4
    assert all(isinstance(error, RpcError) for error in errors), errors
    assert {error.code for error in errors if isinstance(error, RpcError)} <= {
        Code.UNAVAILABLE,
        Code.CANCELLED,
    }


@ENCODINGS
async def test_both_ways_at_once(encoding: Any) -> None:
    """A handler that asks its caller's own side."""
    async with serving(Service()) as server:
        async with connect(server.url, encoding=encoding, serving=Service()) as connection:
            assert await connection.call("add_there", 1, 2) == 3
            [there] = server.connections
            assert await there.call("add_there", 3, 4) == 7


@ENCODINGS
async def test_a_server_that_is_cancelled(encoding: Any) -> None:
    """R6: its handlers have stopped when it returns; what was cut says so."""
    service = Service()
    errors: list[BaseException] = []
    async with trio.open_nursery() as nursery:
        stop = trio.CancelScope()
        over = trio.Event()

        async def run(task_status: trio.TaskStatus[Any]) -> None:
            with stop:
                await serve(service, "ws://127.0.0.1:0", task_status=task_status)
            assert service.running == []
            over.set()

        server = await nursery.start(run)
        async with connect(server.url, encoding=encoding) as connection:
            nursery.start_soon(caught, lambda: connection.call("wait"), errors)
            nursery.start_soon(caught, lambda: connection.call("linger", 0.1), errors)
            nursery.start_soon(caught, lambda: drained(connection), errors)
            await service.wait_running(3)
            stop.cancel()
            with trio.fail_after(5):
                await over.wait()
                await connection.wait_closed()
    assert sorted(service.ended) == ["forever", "linger", "wait"]
    assert [type(error) for error in errors] == [Unavailable] * 3


async def test_a_server_that_is_cancelled_and_a_handler_that_takes_too_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R7a: others are not kept waiting for it, and its client is not either."""
    service = Service()
    errors: list[BaseException] = []
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        async with serving(service, limits=Limits(cleanup=0.1)) as server:
            connection = await nursery.start(hold, server.url)
            nursery.start_soon(caught, lambda: connection.call("linger", 2.0), errors)
            await service.wait_running()
        assert service.ended == ["linger"]
        assert trio.current_time() - start >= 2
        nursery.cancel_scope.cancel()
    assert len(errors) == 1
    assert "linger has not stopped" in caplog.text


async def hold(url: str, task_status: trio.TaskStatus[Connection]) -> None:
    async with connect(url) as connection:
        task_status.started(connection)
        await trio.sleep_forever()


async def test_close_timeout() -> None:
    """R7a: a handler of the other side that does not stop costs that long, and no more."""
    service = Service()
    async with serving(service, limits=Limits(cleanup=1)) as server:
        async with trio.open_nursery() as nursery:
            async with connect(server.url, limits=Limits(close_timeout=0.2)) as connection:
                nursery.start_soon(caught, lambda: connection.call("linger", 2.0), [])
                await service.wait_running()
                start = trio.current_time()
            assert 0.2 <= trio.current_time() - start < 1.8


async def test_a_thousand_connections_that_come_and_go() -> None:
    service = Service()
    async with serving(service) as server:

        async def come_and_go(number: int) -> None:
            for _ in range(10):
                encoding: Any = ["json", "msgpack"][number % 2]
                async with connect(server.url, encoding=encoding) as each:
                    assert await each.call("add", number, 1) == number + 1

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(come_and_go, number)


@ENCODINGS
async def test_a_stuck_consumer_is_nobody_elses_trouble(encoding: Any) -> None:
    """R14, R17: its producer stops at the window; other streams, calls and clients go on."""
    service = Service()
    async with serving(service) as server:
        async with connect(server.url, encoding=encoding) as connection:
            window = Window(items=7, bytes=1_000_000)
            async with connection.stream("forever", 10_000, window=window) as stuck:
                await service.wait_produced(7)
                async with connect(server.url, encoding=encoding) as other:
                    async with other.stream("count", 300) as numbers:
                        assert [item async for item in numbers] == list(range(300))
                async with connection.stream("count", 300) as numbers:
                    assert [item async for item in numbers] == list(range(300))
                for _ in range(50):
                    assert await connection.call("add", 1, 2) == 3
                assert service.produced == 7
                assert stuck.statistics().items_buffered <= 7
        assert service.ended == ["count", "count", "forever"]


async def test_an_exception_of_the_block() -> None:
    """It comes out as it went in."""
    error = ExceptionGroup("the block's own", [ValueError(1), TypeError(2)])
    error.__context__ = context = LookupError()
    async with serving(Service()) as server:
        with pytest.raises(ExceptionGroup) as raised:
            async with connect(server.url) as connection:
                stream = connection.stream("forever")
                await stream.receive()
                raise error
    assert raised.value is error
    assert error.__context__ is context
    assert error.__cause__ is None


async def test_an_exception_of_the_block_that_is_cancelled_while_it_closes() -> None:
    """It is not lost, whatever the time runs out in."""
    async with serving(Service()) as server, relaying(server.url) as relay:
        with pytest.raises(ValueError, match="of the block"):
            with trio.CancelScope() as scope:
                async with connect(relay.url) as connection:
                    await connection.call("add", 1, 2)
                    relay.close()
                    scope.deadline = trio.current_time() + 0.1
                    raise ValueError("of the block")


async def test_move_on_after_around_connect() -> None:
    service = Service()
    async with serving(service) as server, trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def run_out_of_time() -> None:
                await service.wait_running()
                scope.deadline = trio.current_time()

            nursery.start_soon(run_out_of_time)
            async with connect(server.url) as connection:
                await connection.call("wait")
        assert scope.cancelled_caught
        with trio.fail_after(5):
            await service.wait_ended()


async def test_a_keyboard_interrupt_of_a_handler_of_the_server() -> None:
    """Out of ``serve``, and not in a group of its own; never lost to what it sets off."""
    for _ in range(20):
        service = Service()
        with pytest.raises(BaseExceptionGroup) as raised:
            async with trio.open_nursery() as nursery:
                server = await nursery.start(serve, service, "ws://127.0.0.1:0")
                async with connect(server.url) as connection:
                    stream = connection.stream("forever")
                    await stream.receive()
                    await connection.call("interrupt")
        kinds = [type(error) for error in raised.value.exceptions]
        assert KeyboardInterrupt in kinds
        assert set(kinds) <= {KeyboardInterrupt, ConnectionLost}
        assert service.ended == ["forever"]


async def test_refusals_by_the_server() -> None:
    async with serving(Service(), "ws://127.0.0.1:0/rpc") as server:
        assert server.url.endswith("/rpc")
        async with connect(server.url + "?token=1") as connection:
            assert await connection.call("add", 1, 2) == 3
        for url in (server.url + "/more", server.url.removesuffix("/rpc")):
            with pytest.raises(Unavailable, match=r"HTTP status 404: nothing is served at"):
                async with connect(url):
                    pytest.fail("the block must not begin")
        async with raw_client(server.url) as raw:
            await raw.send(b"GET /rpc HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await raw.hear_head()).startswith("HTTP/1.1 400 ")
