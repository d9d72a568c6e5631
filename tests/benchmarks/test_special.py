"""The special workloads: what they say of a client that does as it should, and of one that does
not; and all of them once, with ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio

from benchmarks.peers import common, special
from benchmarks.peers.watching import Board, Production, Watched
from benchmarks.processes import Process
from benchmarks.registry import SCRIPTS
from trio_streamrpc import Limits

ROOT = Path(__file__).parent.parent.parent


async def together(functions: Sequence[Callable[[], Awaitable[object]]]) -> None:
    async with trio.open_nursery() as nursery:
        for function in functions:
            nursery.start_soon(function)


async def within(seconds: float, function: Callable[[], Awaitable[object]]) -> bool:
    with trio.move_on_after(seconds) as scope:
        await function()
    return not scope.cancelled_caught


def load(size: int, seconds: float = 0.01) -> common.Load:
    return common.Load("W", size, seconds, together, "nowhere", trio.sleep, within)


class Client(special.Client):
    """A producer runs as far ahead as its buffer lets it, and ends with its block unless it is
    ``deaf``; a ``mute`` one answers no call."""

    def __init__(self, ahead: int = 3, *, deaf: bool = False, mute: bool = False) -> None:
        self.ahead = ahead
        self.deaf = deaf
        self.mute = mute

    async def add(self, number: int) -> int:
        if self.mute:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return number + 1

    @asynccontextmanager
    async def produce(self, kind: str, board: str) -> AsyncIterator[AsyncIterator[object]]:
        sender, receiver = trio.open_memory_channel[bytes](self.ahead)

        async def producer() -> None:
            production = Production(board)
            try:
                with production, sender:
                    for data in production.of(kind):
                        await sender.send(data)
                    await trio.sleep_forever()
            finally:
                if self.deaf:
                    with Board(board) as found:
                        found.clear()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(producer)
            yield receiver
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def endless(self) -> AsyncIterator[AsyncIterator[object]]:
        async def items() -> AsyncGenerator[object, None]:
            while True:
                await trio.lowlevel.checkpoint()
                yield {}

        async with aclosing(items()) as found:
            yield found

    async def meet(self, board: str) -> None:
        with Board(board) as found:
            found.sign()

    async def large(self, size: int) -> int:
        await trio.sleep(0.001)
        return size


def test_a_board_is_seen_from_elsewhere() -> None:
    with Board.new() as board:
        with Production(board.path) as production:
            produced = production.of("busy")
            assert [next(produced) for _ in range(3)] == [b"hello world"] * 3
            assert (board.process, board.produced, board.ended) == (os.getpid(), 3, 0.0)
        assert board.ended > 0
        board.clear()
        assert (board.produced, board.ended) == (0, 0.0)
    assert not Path(board.path).exists()


def test_an_idle_producer_produces_once() -> None:
    with Board.new() as board, Production(board.path) as production:
        assert list(production.of("idle")) == [b"hello world"]
        assert board.produced == 1


def test_a_process_is_watched() -> None:
    own = Watched()
    assert 0 < own.resident() <= own.peak()
    own.forget_peak()
    assert own.peak() > 0
    assert own.processor_time() > 0
    before = own.descriptors()
    with Path(__file__).open("rb"):
        assert own.descriptors() == before + 1


async def test_what_is_made_ahead_is_told(autojump_clock: trio.testing.MockClock) -> None:
    # The buffer, and the one that waits at its door.
    figures = await special.slow_consumer(Client(ahead=3), load(1))
    assert figures["value"] == 4
    assert figures["taken"] >= 1


@pytest.mark.parametrize("workload", ["W7", "W7i"])
async def test_a_producer_that_ends_with_the_block(workload: str) -> None:
    figures = await special.WORKLOADS[workload](Client(), load(3))
    assert 0 <= figures["value"] <= figures["most"]


@pytest.mark.parametrize("workload", ["W7", "W7i"])
async def test_a_producer_that_never_ends(workload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(special, "NEVER", 0.01)
    with pytest.raises(special.Never, match=r"the producer has not ended within 0\.01 s"):
        await special.WORKLOADS[workload](Client(deaf=True), load(3))


@pytest.mark.parametrize("workload", ["W7c", "W10", "W11"])
async def test_calls_that_are_never_answered(
    workload: str, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises((special.Never, ExceptionGroup)) as raised:
        await special.WORKLOADS[workload](Client(mute=True), load(3))
    error: BaseException = raised.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert str(error) == "a call is not answered within 5 s"


@pytest.mark.parametrize("workload", ["W7c", "W10", "W11"])
async def test_calls_beside_something(workload: str) -> None:
    figures = await special.WORKLOADS[workload](Client(), load(3))
    assert figures["value"] > 0


async def test_streams_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = await special.many_streams(Client(), load(3))
    assert 0 < figures["fairness"] <= 1


def test_a_relay_hands_on_what_comes() -> None:
    async def main() -> bytes:
        async def echo(stream: trio.SocketStream) -> None:
            async for data in stream:
                await stream.send_all(data)
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, echo, 0)
            port = listeners[0].socket.getsockname()[1]
            command = [sys.executable, str(SCRIPTS / "relay.py"), f"127.0.0.1:{port}", "1"]
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert process.stdin is not None
            assert process.stdout is not None
            async with process.stdin, process.stdout:
                near = int(await process.stdout.receive_some())
                stream = await trio.open_tcp_stream("127.0.0.1", near)
                await stream.send_all(bytes(range(256)) * 4096)
                found = b""
                while len(found) < 256 * 4096:
                    found += await stream.receive_some()
                await stream.aclose()
            # It ends with its stdin.
            assert await process.wait() == 0
            nursery.cancel_scope.cancel()
        return found

    assert trio.run(main) == bytes(range(256)) * 4096


def test_all_of_them_with_ours(tmp_path: Path) -> None:
    only = "W6,W7,W7i,W7c,W9,W10,W11,W12"
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--peers", "ours", "--transport", "tcp"]
    done = subprocess.run(
        [*command, "--scale", "0.005", "--only", only, "--json", str(file)],
        capture_output=True,
        check=False,
        cwd=ROOT,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["failures"] == []
    assert len(found["rounds"]) == 3
    for figures in found["rounds"]:
        assert list(figures) == only.split(",")
        ours = {name: each["ours_tcp"] for name, each in figures.items()}
        # The window, 256 KiB, and no chunk more; what ends has ended when the block has.
        assert 0 <= ours["W6"]["value"] <= 4
        assert ours["W7"]["ended_before_left"] == 1
        assert ours["W7i"]["ended_before_left"] == 1
        assert ours["W9"]["connections"] == 50
        assert 0 <= ours["W10"]["fairness"] <= 1


def test_many_streams_of_ours_have_a_server_of_their_own() -> None:
    """The server that all else is measured with has the default limits: some would wait there
    for ever."""
    command = [sys.executable, str(SCRIPTS / "ours.py")]
    variables = {"PYTHONPATH": str(ROOT)}
    many = Limits().max_calls + 50
    with Process([*command, "serve", "tcp"], variables) as server:
        address = server.line(20)
        measuring = [*command, "measure", address, "0.01", f"W10={many}"]
        with Process(measuring, variables) as client:
            said = json.loads(client.line(40))
    assert "error" not in said
    assert said["value"] > 0
