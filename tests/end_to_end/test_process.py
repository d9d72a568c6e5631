"""process.py: what SIGTERM does to a process that serves, at every moment of its work."""

from __future__ import annotations

import contextlib
import functools
import inspect
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from tests.end_to_end.network import until
from tests.service import Service
from trio_streamrpc import (
    CleanupTimeout,
    Connection,
    ConnectionLost,
    RpcError,
    Server,
    Unavailable,
    connect,
    serve,
    serve_forever,
)
from trio_streamrpc.process import ServeOptions

ENCODINGS = pytest.mark.parametrize("encoding", ["msgpack", "json"])
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to send")

SERVER = """
    import sys
    import trio
    from collections.abc import AsyncIterator
    from trio_streamrpc import Limits, rpc, serve_forever

    class Service:
        @rpc
        async def add(self, a: int, b: int) -> int:
            return a + b

        @rpc
        async def numbers(self, seconds: float) -> AsyncIterator[int]:
            try:
                yield 0
                await trio.sleep(seconds)
                yield 1
            finally:
                print("numbers done", flush=True)

        @rpc
        async def slow(self, seconds: float) -> str:
            try:
                await trio.sleep(seconds)
                return "finished"
            finally:
                print("slow done", flush=True)

        @rpc
        async def linger(self, seconds: float) -> None:
            try:
                await trio.sleep_forever()
            finally:
                print("asked", flush=True)
                with trio.CancelScope(shield=True):
                    await trio.sleep(seconds)
                print("linger done", flush=True)

    class Status:
        def started(self, server):
            print(server.url, flush=True)

    async def main():
        url, grace = sys.argv[1:]
        await serve_forever(
            Service(), url, grace=float(grace), limits=Limits(cleanup=1), task_status=Status()
        )
        print("returned", flush=True)

    trio.run(main)
"""


class Child:
    """A process that serves, and what it prints."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._unread = b""

    async def line(self) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self._unread:
            received = await self.process.stdout.receive_some()
            assert received, "the process has ended"
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ends(self) -> tuple[int, list[str], str]:
        """Wait for its end: the exit code, and the rest of what it has printed and complained."""
        said = {}

        async def read(name: str, stream: trio.abc.ReceiveStream) -> None:
            said[name] = b"".join([bytes(data) async for data in stream])

        assert self.process.stdout is not None
        assert self.process.stderr is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "out", self.process.stdout)
            nursery.start_soon(read, "err", self.process.stderr)
        code = await self.process.wait()
        return code, (self._unread + said["out"]).decode().splitlines(), said["err"].decode()


@contextlib.asynccontextmanager
async def child(grace: float, url: str = "ws://127.0.0.1:0") -> AsyncIterator[tuple[Child, str]]:
    """A process that serves, and where."""
    command = [sys.executable, "-c", textwrap.dedent(SERVER), url, str(grace)]
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        with trio.fail_after(20):
            found = Child(process)
            yield found, await found.line()
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                await stream.aclose()


async def outcome(call: Any, found: list[Any]) -> None:
    try:
        found.append(await call())
    except RpcError as error:
        found.append(error)


async def items_of(connection: Connection, seconds: float, items: list[int]) -> str:
    """Take a stream's items; says so if it came to an end."""
    async with connection.stream("numbers", seconds) as stream:
        async for item in stream:
            items.append(item)  # noqa: PERF401  # those before an error are wanted too
    return "complete"


async def wait_for_drain(connection: Connection) -> None:
    """Until the other side has said that it goes away."""
    await until(lambda: connection.endpoint.peer_drains)


@pytest.mark.parametrize("url", ["ws://127.0.0.1:0", "tcp://127.0.0.1:0"])
async def test_nothing_runs(url: str) -> None:
    """It ends at once, with 0; clients that are there are told in order."""
    async with child(20, url) as (process, where):
        async with connect(where) as connection:
            assert await connection.call("add", 1, 2) == 3
            process.terminate()
            with pytest.raises((Unavailable, ConnectionLost)):
                while True:
                    await connection.call("add", 1, 2)
            await connection.wait_closed()
            with pytest.raises(Unavailable):
                async with connect(where):
                    pytest.fail("nobody new is accepted")
        assert await process.ends() == (0, ["returned"], "")


@ENCODINGS
async def test_what_finishes_within_the_grace_period(encoding: Any) -> None:
    """R27: it is complete; what is called meanwhile was not run, and is safe to send elsewhere."""
    found: list[Any] = []
    items: list[int] = []
    async with child(20) as (process, url):
        async with connect(url, encoding=encoding) as connection, trio.open_nursery() as nursery:
            nursery.start_soon(outcome, lambda: connection.call("slow", 1.5), found)
            nursery.start_soon(outcome, lambda: items_of(connection, 1.5, items), found)
            assert await connection.call("add", 1, 2) == 3
            process.terminate()
            await wait_for_drain(connection)
            with pytest.raises(Unavailable) as refused:
                await connection.call("add", 1, 2)
            assert refused.value.retry
        assert sorted(found) == ["complete", "finished"]
        assert items == [0, 1]
        code, printed, complaints = await process.ends()
    assert (code, complaints) == (0, "")
    assert sorted(printed) == ["numbers done", "returned", "slow done"]


@ENCODINGS
@pytest.mark.parametrize("signals", [1, 2])
async def test_what_does_not_finish(encoding: Any, signals: int) -> None:
    """R6: UNAVAILABLE, never as if it were complete; a second signal ends the grace period."""
    found: list[Any] = []
    items: list[int] = []
    async with child(0.3 if signals == 1 else 1000) as (process, url):
        async with connect(url, encoding=encoding) as connection, trio.open_nursery() as nursery:
            nursery.start_soon(outcome, lambda: connection.call("slow", 1000), found)
            nursery.start_soon(outcome, lambda: items_of(connection, 1000, items), found)
            assert await connection.call("add", 1, 2) == 3
            process.terminate()
            await wait_for_drain(connection)
            if signals == 2:
                process.terminate()
        assert [type(each) for each in found] == [Unavailable, Unavailable]
        assert not any(each.retry for each in found)
        assert items == [0]
        code, printed, complaints = await process.ends()
    assert (code, complaints) == (0, "")
    assert sorted(printed) == ["numbers done", "returned", "slow done"]


async def test_cleanup_that_takes_its_time() -> None:
    """R7a: it has its time, is waited for beyond it, and the process still ends with 0."""
    async with child(0) as (process, url):
        async with connect(url) as connection, trio.open_nursery() as nursery:
            found: list[Any] = []
            nursery.start_soon(outcome, lambda: connection.call("linger", 2.5), found)
            assert await connection.call("add", 1, 2) == 3
            process.terminate()
        assert len(found) == 1
        # Whichever of the two ends of its time comes first.
        assert isinstance(found[0], CleanupTimeout | ConnectionLost)
        code, printed, complaints = await process.ends()
    assert code == 0
    assert printed == ["asked", "linger done", "returned"]
    assert "linger has not stopped" in complaints


async def test_a_signal_more_ends_the_process() -> None:
    """What does not come to an end is ended, as it would be without any of this."""
    async with child(0) as (process, url):
        async with connect(url) as connection, trio.open_nursery() as nursery:
            nursery.start_soon(outcome, lambda: connection.call("linger", 1000), [])
            assert await connection.call("add", 1, 2) == 3
            process.terminate()
            assert await process.line() == "asked"
            process.terminate()
            assert await process.ends() == (-signal.SIGTERM, [], "")


async def test_control_c() -> None:
    """Trio's, and at once: no grace period, and every finally has run."""
    async with child(1000) as (process, url):
        async with connect(url) as connection, trio.open_nursery() as nursery:
            found: list[Any] = []
            nursery.start_soon(outcome, lambda: connection.call("slow", 1000), found)
            nursery.start_soon(outcome, lambda: items_of(connection, 1000, []), found)
            assert await connection.call("add", 1, 2) == 3
            start = trio.current_time()
            process.process.send_signal(signal.SIGINT)
            code, printed, complaints = await process.ends()
            assert trio.current_time() - start < 2
    assert code != 0
    assert sorted(printed) == ["numbers done", "slow done"]
    assert complaints.splitlines()[-1] == "KeyboardInterrupt"
    assert all(isinstance(each, Unavailable | ConnectionLost) for each in found)


async def test_what_is_wrong_comes_out_as_it_is() -> None:
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="grace must be"):
            await serve_forever(Service(), "ws://127.0.0.1:0", grace=wrong)
    with pytest.raises(TypeError):
        await serve_forever(5, "ws://127.0.0.1:0")
    with pytest.raises(ValueError, match="URL"):
        await serve_forever(Service(), "nowhere")
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, Service(), "tcp://127.0.0.1:0")
        with pytest.raises(OSError, match="in use"):
            await serve_forever(Service(), server.url)
        nursery.cancel_scope.cancel()


async def test_the_end_that_is_not_a_signals() -> None:
    """It is cancelled, and drained by others, like ``serve``; signals are as they were."""
    before = signal.getsignal(signal.SIGTERM)
    async with trio.open_nursery() as nursery:
        start = functools.partial(nursery.start, serve_forever, Service())
        server = await start("ws://127.0.0.1:0")
        assert signal.getsignal(signal.SIGTERM) is not before
        async with connect(server.url) as connection:
            assert await connection.call("add", 1, 2) == 3
            await server.drain()
    assert signal.getsignal(signal.SIGTERM) is before
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_forever, Service(), "ws://127.0.0.1:0")
        nursery.cancel_scope.cancel()
    assert signal.getsignal(signal.SIGTERM) is before


async def test_signals_belong_to_the_main_thread() -> None:
    def elsewhere() -> None:
        trio.run(serve_forever, Service(), "ws://127.0.0.1:0")

    with pytest.raises(RuntimeError, match="main"):
        await trio.to_thread.run_sync(elsewhere)


async def test_serve_handles_no_signal() -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, Service(), "ws://127.0.0.1:0")
        assert {each: signal.getsignal(each) for each in before} == before
        nursery.cancel_scope.cancel()


async def test_it_has_the_options_of_serve() -> None:
    options = inspect.signature(serve).parameters.values()
    named = {each.name for each in options if each.kind is each.KEYWORD_ONLY}
    assert named - {"task_status"} == set(ServeOptions.__annotations__)
