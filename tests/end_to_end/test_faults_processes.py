"""Processes that are killed, stand still, or are interrupted: SIGKILL, SIGSTOP, SIGINT."""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from tests.end_to_end.innocent import EACH_TRANSPORT, Beside, memory_growing_by_at_most
from tests.end_to_end.network import until
from tests.end_to_end.processes import SERVER, spawned
from trio_streamrpc import ConnectionLost, Limits, connect

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")

BOTH_KINDS = pytest.mark.parametrize(("kind", "encoding"), [("ws", "json"), ("tcp", "msgpack")])

IMPATIENT = Limits(ping_interval=0.4, ping_timeout=0.4, close_timeout=0.4, cleanup=0.5)


async def numbers() -> AsyncIterator[bytes]:
    while True:
        yield b"x"


@BOTH_KINDS
async def test_the_server_is_killed(kind: str, encoding: Any) -> None:
    """SIGKILL in mid-stream: ConnectionLost within a second, for all that waits, and no group."""
    lost: list[BaseException] = []
    killed = math.inf
    with trio.fail_after(30):
        async with spawned(SERVER, kind) as server:
            async with connect(await server.line(), encoding=encoding) as connection:

                async def call(*arguments: Any) -> None:
                    try:
                        await connection.call(*arguments)
                    except Exception as error:
                        lost.append(error)

                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(call, "wait")
                    nursery.start_soon(call, "linger", 0.0)
                    stream = connection.stream("forever")
                    count = 0
                    with pytest.raises(ConnectionLost) as caught:
                        async for _ in stream:
                            count += 1
                            if count == 1000:
                                killed = trio.current_time()
                                server.kill()
                assert trio.current_time() - killed < 1
                assert caught.value.__cause__ is None
                # And from now on at once.
                with pytest.raises(ConnectionLost):
                    await connection.call("wait")
    assert [type(error) for error in lost] == [ConnectionLost] * 6


CLIENT = """
    import sys
    import trio
    from trio_streamrpc import Limits, connect

    async def main():
        limits = Limits(ping_interval=0.4, ping_timeout=0.4, close_timeout=0.4)
        async with connect(sys.argv[1], encoding=sys.argv[2], limits=limits) as connection:
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(connection.call, "wait")
                async with connection.stream("forever", 10_000) as stream:
                    async for item in stream:
                        print("item", flush=True)
                        if sys.argv[3] == "slowly":
                            await trio.sleep_forever()

    try:
        trio.run(main)
    except* Exception as group:
        for error in group.exceptions:
            print(type(error).__name__, flush=True)
"""


@EACH_TRANSPORT
@pytest.mark.parametrize("pace", ["fast", "slowly"])
async def test_a_client_is_killed(pace: str, beside: Beside) -> None:
    """SIGKILL: its handlers are ended at once, whatever they were doing."""
    async with beside() as scene:
        async with spawned(CLIENT, scene.server.url, scene.encoding, pace) as client:
            await client.wait_for("item")
            await scene.service.wait_running(7)
            client.kill()
            killed = trio.current_time()
            await scene.service.wait_ended(6)
            assert trio.current_time() - killed < 1
            await until(lambda: not scene.others)


@EACH_TRANSPORT
async def test_a_client_stands_still(beside: Beside) -> None:
    """SIGSTOP, half-open: R24, it is given up, and nothing has piled up for it until then."""
    async with beside(limits=IMPATIENT) as scene:
        async with spawned(CLIENT, scene.server.url, scene.encoding, "fast") as client:
            await client.wait_for("item")
            await scene.service.wait_running(7)
            client.stop()
            stopped = trio.current_time()
            with memory_growing_by_at_most(12_000_000):
                await scene.service.wait_ended(6)
                await until(lambda: not scene.others)
            # 0.8 s, and far from what would be no bound.
            assert trio.current_time() - stopped < 4
            # It finds out when it goes on, and is none the worse for it.
            client.go_on()
            while (line := await client.line()) == "item":
                pass
            assert line == "ConnectionLost"


@BOTH_KINDS
async def test_the_server_stands_still(kind: str, encoding: Any) -> None:
    """SIGSTOP: deadlines fire, and it is given up in ping_interval + ping_timeout."""
    with trio.fail_after(30):
        async with spawned(SERVER, kind) as server:
            url = await server.line()
            with pytest.raises(ConnectionLost):
                async with connect(url, encoding=encoding, limits=IMPATIENT) as connection:
                    async with connection.stream("few", 1) as stream:
                        await stream.receive()
                        server.stop()
                        stopped = trio.current_time()
                        with pytest.raises(trio.TooSlowError):
                            with trio.fail_after(0.1):
                                await connection.call("add", 1, 2)
                        await stream.receive()
            assert trio.current_time() - stopped < 4
            # A handshake with it has an end as well.
            with pytest.raises(Exception, match="did not answer within"):
                async with connect(url, limits=Limits(handshake_timeout=0.3)):
                    pass
            server.go_on()
            async with connect(url, encoding=encoding) as connection:
                assert await connection.call("add", 1, 2) == 3


INTERRUPTED = """
    import socket
    import sys
    import trio
    from collections.abc import AsyncIterable, AsyncIterator
    from contextlib import asynccontextmanager
    from trio_streamrpc import Limits, connect, rpc, serve
    from trio_streamrpc.testing import open_pair

    def say(text):
        print(text, flush=True)

    class Object:
        @rpc
        async def one(self) -> int:
            return 1

    class Service:
        @rpc
        async def wait(self) -> None:
            try:
                say("ready")
                await trio.sleep_forever()
            finally:
                say("handler done")

        @rpc
        async def clean(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                # The interrupt may come at any line, this one included.
                try:
                    with trio.CancelScope(shield=True):
                        say("ready")
                        await trio.sleep(0.5)
                finally:
                    say("handler done")

        @rpc
        async def forever(self) -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                say("generator done")

        @rpc
        async def total(self, numbers: AsyncIterable[int]) -> int:
            try:
                async for number in numbers:
                    if number == 1:
                        say("ready")
                return 0
            finally:
                say("handler done")

        @rpc
        @asynccontextmanager
        async def hold(self) -> AsyncIterator[Object]:
            try:
                yield Object()
            finally:
                say("handler done")

    URL = sys.argv[2] + "://127.0.0.1:0"

    async def beside(work):
        try:
            async with trio.open_nursery() as nursery:
                server = await nursery.start(serve, Service(), URL)
                async with connect(server.url) as connection:
                    stream = connection.stream("forever")
                    await stream.receive()
                    await work(connection)
        finally:
            say("main done")

    async def calling():
        await beside(lambda connection: connection.call("wait"))

    async def cleaning_up():
        async def work(connection):
            with trio.move_on_after(0.1):
                await connection.call("clean")
            await trio.sleep_forever()

        await beside(work)

    async def uploading():
        async def numbers():
            try:
                yield 1
                while True:
                    yield 2
                    await trio.sleep(0)
            finally:
                say("upload done")

        await beside(lambda connection: connection.call("total", numbers()))

    async def holding():
        async def work(connection):
            async with connection.proxy(Service).hold() as held:
                await held.one()
                say("ready")
                await trio.sleep_forever()

        await beside(work)

    async def busy():
        # In the middle of the library's own code, as often as not.
        async def work(connection):
            say("ready")
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(consume, connection)

        async def consume(connection):
            async with connection.stream("forever") as stream:
                async for _ in stream:
                    pass

        await beside(work)

    async def draining():
        class Status:
            def started(self, server):
                trio.lowlevel.spawn_system_task(run_client, server)

        async def run_client(server):
            async with connect(server.url) as connection:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call, connection)
                    await trio.sleep(0.1)
                    nursery.start_soon(server.drain)

        await serve(Service(), URL, task_status=Status())

    async def call(connection):
        try:
            await connection.call("wait")
        except Exception as error:
            say(type(error).__name__)

    async def only_serving():
        class Status:
            def started(self, server):
                trio.lowlevel.spawn_system_task(run_client, server.url)

        async def run_client(url):
            async with connect(url) as connection:
                stream = connection.stream("forever")
                await stream.receive()
                await call(connection)

        await serve(Service(), URL, task_status=Status())

    async def connecting():
        # Somebody who takes the connection, and says nothing.
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = URL.replace(":0", f":{listener.getsockname()[1]}")
            say("ready")
            async with connect(url):
                pass

    async def leaving():
        # The other side does not answer the close.
        async with open_pair(Service(), limits=Limits(close_timeout=5, cleanup=5)) as connection:
            with trio.move_on_after(0.1):
                await connection.call("clean")

    async def pair():
        async with open_pair(Service()) as connection:
            stream = connection.stream("forever")
            await stream.receive()
            await connection.call("wait")

    try:
        trio.run(globals()[sys.argv[1]])
    except BaseException as error:
        while isinstance(error, BaseExceptionGroup):
            # That of a nursery above. The client may have seen its server go.
            [error] = error.split(KeyboardInterrupt)[0].exceptions
        say(type(error).__name__)
"""

#: What is going on when Ctrl-C is pressed, and what has run before the process is gone.
PHASES: dict[str, set[str]] = {
    "calling": {"handler done", "generator done", "main done"},
    "cleaning_up": {"handler done", "generator done", "main done"},
    "uploading": {"handler done", "upload done", "generator done", "main done"},
    "holding": {"handler done", "generator done", "main done"},
    "busy": {"generator done", "main done"},
    "only_serving": {"handler done", "generator done"},
    "draining": {"handler done"},
    "connecting": set(),
    "leaving": {"handler done"},
    "pair": {"handler done", "generator done"},
}


@pytest.mark.parametrize("phase", PHASES)
async def test_control_c(phase: str) -> None:
    """Out within two seconds, every finally has run, and in no group of this library's."""
    with trio.fail_after(20):
        async with spawned(INTERRUPTED, phase, "tcp" if phase == "busy" else "ws") as process:
            await process.wait_for("ready")
            if phase in ("busy", "draining"):
                await trio.sleep(0.2)
            start = trio.current_time()
            process.interrupt()
            lines, errors = await process.rest()
            assert trio.current_time() - start < 2
    # An interrupt in the middle of Trio's own code may leave a warning of Python's.
    assert "Traceback" not in errors
    assert PHASES[phase] <= set(lines)
    assert lines[-1] == "KeyboardInterrupt"
