"""What breaks between the two sides, at every moment: a result or a typed error, and no rest."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import textwrap
from typing import Any

import pytest
import trio

from tests.addresses import address
from tests.end_to_end.network import SHORT, relaying, reset, serving, until
from tests.service import Service
from tests.transports.rawsocket import RawSocket
from trio_streamrpc import Connection, ConnectionLost, Limits, Server, Unavailable, connect

ENCODINGS = pytest.mark.parametrize("encoding", ["msgpack", "json"])
KINDS = pytest.mark.parametrize("kind", ["ws", "tcp", "tls"])

SERVER = """
    import trio
    from trio_streamrpc import rpc, serve

    class Service:
        @rpc
        async def wait(self) -> None:
            await trio.sleep_forever()

        @rpc
        async def forever(self) -> "AsyncIterator[int]":
            number = 0
            while True:
                yield number
                number += 1

    from collections.abc import AsyncIterator

    async def main():
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve, Service(), "ws://127.0.0.1:0")
            print(server.url, flush=True)

    trio.run(main)
"""


@ENCODINGS
async def test_the_server_is_killed(encoding: Any) -> None:
    """SIGKILL in mid-stream: ConnectionLost within a second, for all that waits."""
    command = [sys.executable, "-c", textwrap.dedent(SERVER)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    lost: list[BaseException] = []
    killed = math.inf
    try:
        assert process.stdout is not None
        with trio.fail_after(20):
            url = await line_of(process.stdout)
            async with connect(url, encoding=encoding) as connection:

                async def call() -> None:
                    try:
                        await connection.call("wait")
                    except Exception as error:
                        lost.append(error)

                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(call)
                    stream = connection.stream("forever")
                    with pytest.raises(ConnectionLost):
                        async for item in stream:
                            if item == 1000:
                                killed = trio.current_time()
                                process.kill()
                assert trio.current_time() - killed < 1
    finally:
        await end(process)
    assert [type(error) for error in lost] == [ConnectionLost] * 5


async def line_of(stream: trio.abc.ReceiveStream) -> str:
    data = b""
    while not data.endswith(b"\n"):
        received = await stream.receive_some(1)
        assert received, "the process has ended"
        data += received
    return data.decode().strip()


async def end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        process.kill()
        await process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()


@ENCODINGS
async def test_a_reset_at_every_stage(encoding: Any) -> None:
    """By a server that is there by hand: in the handshakes, before and after an answer began."""
    protocol = f"streamrpc.1.{encoding}"

    async def serve_one(listener: trio.SocketListener, stage: int) -> None:
        stream = await listener.accept()
        raw = RawSocket(stream, client=False)
        if stage > 0:
            await raw.take_hand(protocol)
        if stage > 1:
            assert (await raw.hears())["type"] == "hello"
        if stage > 2:
            await raw.says({"type": "hello", "version": 1})
            assert (await raw.hears("call"))["id"] == 1
        if stage > 3:
            await raw.says({"type": "chunk", "id": 1, "items": [7], "size": 1})
            await raw.hears("grant")
        if stage > 4:
            await raw.send(b"\x82")  # half of the head of a frame
        reset(stream)

    for stage in range(6):
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        items = []
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(serve_one, listener, stage)
            url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
            with pytest.raises(Unavailable if stage < 1 else ConnectionLost) as caught:
                async with connect(url, encoding=encoding) as connection:
                    async with connection.stream("numbers") as stream:
                        async for item in stream:
                            items.append(item)
                            connection.caller.grant(1, 1, 1)
            assert caught.value.__cause__ is None
        assert items == ([7] if stage > 3 else [])


async def converse(connection: Connection) -> list[Any]:
    """A short conversation: a call, a whole stream, and one that is left."""
    results: list[Any] = [await connection.call("add", 1, 2)]
    async with connection.stream("count", 3) as stream:
        results.extend([item async for item in stream])
    async with connection.stream("few", 1) as stream:
        results.append(await stream.receive())
    return results


RESULTS = [3, 0, 1, 2, 0]


@ENCODINGS
@KINDS
@pytest.mark.parametrize("way", ["up", "down"])
async def test_cut_after_every_so_many_bytes(encoding: Any, kind: str, way: str) -> None:
    """A result or a typed error, and both sides are clean."""
    with address(kind) as (url, server_options, options):
        options["encoding"] = encoding
        service = Service()
        async with serving(service, url, limits=SHORT, **server_options) as server:
            await cut_after_every_so_many_bytes(service, server, options, way)


async def cut_after_every_so_many_bytes(
    service: Service, server: Server, options: Any, way: str
) -> None:
    async with relaying(server.url) as relay:
        async with connect(relay.url, **options) as connection:
            assert await converse(connection) == RESULTS
    total = relay.passed[way]
    assert total > 150
    outcomes = set()
    # How things fall into messages, and so the total, is not the same each time.
    for cut in [*range(0, total, max(1, total // 40)), total - 1, 2 * total]:
        which = {f"cut_{way}": cut}
        async with relaying(server.url, **which) as relay:
            try:
                with trio.fail_after(10):
                    async with connect(relay.url, limits=SHORT, **options) as connection:
                        assert await converse(connection) == RESULTS
                outcomes.add("done")
            except (ConnectionLost, Unavailable) as error:
                assert error.__cause__ is None  # noqa: PT017
                outcomes.add(type(error).__name__)
        await until(lambda: not (server.connections or service.running))
    assert outcomes == {"done", "ConnectionLost", "Unavailable"}


@ENCODINGS
@KINDS
async def test_single_bytes_make_no_difference(encoding: Any, kind: str) -> None:
    service = Service()
    with address(kind) as (url, server_options, options):
        async with serving(service, url, **server_options) as server:
            async with relaying(server.url, piece=1) as relay:
                async with connect(relay.url, encoding=encoding, **options) as connection:
                    assert await converse(connection) == RESULTS
            assert await settled(service) == ["count", "few"]


async def settled(service: Service) -> list[str]:
    await until(lambda: not service.running)
    return service.ended


async def test_a_black_hole(caplog: pytest.LogCaptureFixture) -> None:
    """R24: noticed on both sides within ping_interval and ping_timeout."""
    limits = Limits(ping_interval=0.5, ping_timeout=0.5, close_timeout=0.5)
    service = Service()
    async with serving(service, limits=limits) as server, relaying(server.url) as relay:
        with trio.fail_after(10):
            with pytest.raises(ConnectionLost):
                async with connect(relay.url, limits=limits) as connection:
                    async with connection.stream("few", 1) as stream:
                        await stream.receive()
                        relay.close()
                        start = trio.current_time()
                        await stream.receive()
            assert trio.current_time() - start < 3
            await service.wait_ended()
            await until(lambda: not server.connections)
    assert caplog.records == []


async def test_deadlines_fire_over_a_black_hole() -> None:
    """And leaving is bounded by close_timeout."""
    limits = Limits(close_timeout=0.2)
    async with serving(Service()) as server, relaying(server.url) as relay:
        async with connect(relay.url, limits=limits) as connection:
            await connection.call("add", 1, 2)
            relay.close()
            start = trio.current_time()
            with pytest.raises(trio.TooSlowError):
                with trio.fail_after(0.1):
                    await connection.call("add", 1, 2)
            assert trio.current_time() - start < 1
        assert trio.current_time() - start < 2


INTERRUPTED = """
    import sys
    import trio
    from trio_streamrpc import connect, rpc, serve
    from trio_streamrpc.testing import open_pair
    from collections.abc import AsyncIterator

    class Service:
        @rpc
        async def wait(self) -> None:
            try:
                print("ready", flush=True)
                await trio.sleep_forever()
            finally:
                print("handler done", flush=True)

        @rpc
        async def forever(self) -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                print("generator done", flush=True)

    async def serving():
        try:
            async with trio.open_nursery() as nursery:
                server = await nursery.start(serve, Service(), "ws://127.0.0.1:0")
                async with connect(server.url) as connection:
                    stream = connection.stream("forever")
                    await stream.receive()
                    await connection.call("wait")
        finally:
            print("main done", flush=True)

    async def only_serving():
        class Status:
            def started(self, server):
                trio.lowlevel.spawn_system_task(run_client, server.url)

        async def run_client(url):
            async with connect(url) as connection:
                stream = connection.stream("forever")
                await stream.receive()
                try:
                    await connection.call("wait")
                except Exception as error:
                    print(type(error).__name__, flush=True)

        await serve(Service(), "ws://127.0.0.1:0", task_status=Status())

    async def pair():
        async with open_pair(Service()) as connection:
            stream = connection.stream("forever")
            await stream.receive()
            await connection.call("wait")

    try:
        trio.run(globals()[sys.argv[1]])
    except BaseException as error:
        if sys.argv[1] == "serving" and isinstance(error, BaseExceptionGroup):
            # That of the nursery above. The client may have seen its server go.
            [error] = error.split(KeyboardInterrupt)[0].exceptions
        print(type(error).__name__, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
@pytest.mark.parametrize("main", ["serving", "only_serving", "pair"])
async def test_control_c(main: str) -> None:
    """Out within two seconds, every finally has run, and in no group of this library's."""
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), main]
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    said: dict[str, bytes] = {}

    async def read(name: str, stream: trio.abc.ReceiveStream) -> None:
        said[name] = b"".join([bytes(data) async for data in stream])

    try:
        with trio.fail_after(20):
            assert process.stdout is not None
            assert process.stderr is not None
            assert await line_of(process.stdout) == "ready"
            start = trio.current_time()
            process.send_signal(signal.SIGINT)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, "out", process.stdout)
                nursery.start_soon(read, "err", process.stderr)
            assert trio.current_time() - start < 2
    finally:
        await end(process)
    lines = said["out"].decode().splitlines()
    assert said["err"] == b""
    assert {"handler done", "generator done"} <= set(lines)
    assert lines[-1] == "KeyboardInterrupt"


@ENCODINGS
async def test_a_storm_of_cancellations(encoding: Any) -> None:
    """Callers come and go at every moment: no message is torn, and the connection works."""
    service = Service()
    async with serving(service) as server, connect(server.url, encoding=encoding) as connection:

        async def call(number: int) -> None:
            with trio.move_on_after(0.0005 * (number % 40)):
                await connection.call("echo", bytes(number * 37 % 50_000))

        async def consume(number: int) -> None:
            with trio.move_on_after(0.0005 * (number % 40)):
                async with connection.stream("forever", 10_000) as stream:
                    async for _ in stream:
                        pass

        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(call, number)
                    nursery.start_soon(consume, number)
            assert await connection.call("add", 1, 2) == 3
        await until(lambda: not (service.running or connection.statistics().calls_open))
