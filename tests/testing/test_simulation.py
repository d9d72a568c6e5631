"""simulation.py: runs that can be repeated, and what a run that fails tells."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.service import Service
from tests.testing.simulated import NETWORK, converse, digest
from trio_streamrpc import ConnectionLost, Limits, rpc
from trio_streamrpc.testing import Network, last_run, open_pair, run_repeatably, simulate, trace_of
from trio_streamrpc.testing.scheduling import SEED_VARIABLE, choose_seed, repeatable
from trio_streamrpc.testing.traces import Trace

ROOT = Path(__file__).parent.parent.parent


def run_elsewhere(seed: int, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.testing.simulated", str(seed)],
        capture_output=True,
        check=True,
        cwd=ROOT,
        encoding="utf-8",
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_the_same_seed_says_the_same_bytes_in_another_process() -> None:
    expected = digest(7)
    assert [run_elsewhere(7, each) for each in ("0", "1", "4711")] == [expected] * 3


def test_the_same_seed_says_the_same_bytes_whatever_was_before() -> None:
    traces = []
    for noise in range(3):
        random.seed(noise)
        traces.append(bytes(run_repeatably(converse, 7, NETWORK, seed=noise)))
    assert traces[0] == traces[1] == traces[2]
    assert len(traces[0]) > 5000


def test_another_seed_says_others() -> None:
    assert len({digest(seed) for seed in range(4)}) == 4


def test_nothing_is_left_changed() -> None:
    scheduler = trio._core._run
    flag, state = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()
    before = random.getstate()
    with pytest.raises(ZeroDivisionError), repeatable(1):
        assert scheduler._ALLOW_DETERMINISTIC_SCHEDULING
        random.random()
        raise ZeroDivisionError
    assert flag == scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    assert state == scheduler._r.getstate()
    assert before == random.getstate()


def test_a_trio_that_cannot_be_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(trio._core._run, "_r")
    with pytest.raises(RuntimeError, match="cannot be made to schedule"), repeatable(1):
        pytest.fail("the block must not begin")


# --- the network


async def test_it_takes_as_long_as_the_network_takes(autojump_clock: MockClock) -> None:
    async with simulate(Service(), network=Network(latency=0.25)) as connection:
        began = trio.current_time()
        assert await connection.call("add", 1, 2) == 3
        assert trio.current_time() - began == pytest.approx(0.5)


async def test_jitter_lies_within_its_bounds(autojump_clock: MockClock) -> None:
    async with simulate(Service(), network=Network(latency=0.1, jitter=0.2), seed=3) as connection:
        taken = set()
        for _ in range(20):
            began = trio.current_time()
            await connection.call("add", 1, 2)
            taken.add(trio.current_time() - began)
    assert len(taken) > 10
    assert all(0.2 <= each <= 0.6 + 1e-9 for each in taken)


async def test_bandwidth(autojump_clock: MockClock) -> None:
    async with simulate(Service(), network=Network(bandwidth=10_000)) as connection:
        began = trio.current_time()
        await connection.call("echo", bytes(20_000))
        assert 4.0 < trio.current_time() - began < 4.5


async def test_a_cut(autojump_clock: MockClock) -> None:
    service = Service()
    async with simulate(service, network=Network(cut=2.0)) as connection:
        with pytest.raises(ConnectionLost):
            await connection.call("wait")
        assert trio.current_time() == pytest.approx(2.0)
        await service.wait_ended()
    assert service.ended == ["wait"]


async def test_a_cut_while_it_is_opened(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionLost):
        async with simulate(Service(), network=Network(latency=1, cut=1.5)):
            pytest.fail("the block must not begin")


async def test_a_stall_that_ends(autojump_clock: MockClock) -> None:
    async with simulate(Service(), network=Network(stall=(1.0, 3.0))) as connection:
        await trio.sleep(1.5)
        assert await connection.call("add", 1, 2) == 3
        assert trio.current_time() == pytest.approx(4.0)


async def test_a_black_hole_is_noticed(autojump_clock: MockClock) -> None:
    """R24."""
    limits = Limits(ping_interval=5, ping_timeout=5)
    async with simulate(Service(), network=Network(stall=1.0), limits=limits) as connection:
        with pytest.raises(ConnectionLost, match="nothing was heard"):
            await connection.call("wait")
        assert trio.current_time() <= 11.1


@pytest.mark.parametrize(
    "options",
    [{"latency": -1}, {"jitter": float("inf")}, {"bandwidth": 0}, {"cut": -1}, {"stall": (1, -1)}],
)
def test_networks_that_cannot_be(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Network"):
        Network(**options)


# --- what is told


async def test_a_run_that_fails_tells_how_to_repeat_it(autojump_clock: MockClock) -> None:
    with pytest.raises(ValueError, match="of the block") as caught:
        async with simulate(Service(), network=Network(latency=0.5), seed=7) as connection:
            await connection.call("add", 1, 2)
            raise ValueError("of the block")
    [note] = caught.value.__notes__
    assert "seed=7, Network(latency=0.5" in note
    assert "--streamrpc-seed=7" in note
    assert '1.0000 → call   id=1 method="add" args=[1,2]' in note
    assert "2.0000 ← result id=1 value=3" not in note
    assert "1.5000 ← result id=1 value=3" in note


async def test_a_run_that_is_cancelled_tells_nothing(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1):
        async with simulate(Service()) as connection:
            await connection.call("wait")
    run = last_run()
    assert run is not None
    assert "call" in str(run)


async def test_one_that_hangs_comes_to_an_end(autojump_clock: MockClock) -> None:
    service = Service()
    with pytest.raises(AssertionError, match="not done after 100 simulated seconds") as caught:
        async with simulate(service, patience=100) as connection:
            await connection.call("wait")
    assert service.ended == ["wait"]
    assert "call " in caught.value.__notes__[0]


async def test_without_a_seed_there_is_one(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SEED_VARIABLE, "4711")
    assert choose_seed(None) == 4711
    assert choose_seed(3) == 3
    async with simulate(Service()):
        pass
    run = last_run()
    assert run is not None
    assert run.seed == 4711
    monkeypatch.delenv(SEED_VARIABLE)
    assert choose_seed(None) != choose_seed(None)


class Outside:
    @rpc
    async def by_a_thread(self) -> int:
        return await trio.to_thread.run_sync(sum, range(300_000))

    @rpc
    async def by_a_socket(self) -> bytes:
        """Of somebody of whom Trio knows nothing."""
        here, there = socket.socketpair()

        def answer() -> None:
            there.send(str(sum(range(500_000))).encode())
            there.close()

        thread = threading.Thread(target=answer)
        with trio.socket.from_stdlib_socket(here) as own:
            thread.start()
            answered: bytes = await own.recv(100)
            thread.join()
            return answered


@pytest.mark.parametrize("method", ["by_a_thread", "by_a_socket"])
async def test_no_time_passes_while_others_work(method: str, autojump_clock: MockClock) -> None:
    async with simulate(Outside()) as connection:
        began = trio.current_time()
        with trio.move_on_after(1000):
            assert await connection.call(method)
        assert trio.current_time() == began
    # Afterwards, and while nobody does, it passes as before.
    await trio.sleep(1)
    assert trio.current_time() == began + 1


def test_time_is_waited_for_no_longer_than_there_is_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the first step of a run on, whether Trio's own tasks have taken theirs or not."""
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("nobody works"))

    async def use() -> None:
        async with simulate(Outside(), network=Network(latency=1)) as connection:
            for _ in range(3):
                await connection.ping()

    for seed in range(10):
        run_repeatably(use, seed=seed)


async def test_another_clock() -> None:
    with pytest.raises(RuntimeError, match="autojump_clock"):
        async with simulate(Service()):
            pytest.fail("the block must not begin")


async def test_the_trace_of_a_connection(autojump_clock: MockClock) -> None:
    class Numbers:
        @rpc
        async def count(self) -> AsyncIterator[int]:
            yield 1

    async with simulate(Numbers(), encoding="json") as connection:
        async with connection.stream("count") as stream:
            assert [item async for item in stream] == [1]
        trace = trace_of(connection)
    kinds = [frame["type"] for frame in trace.frames]
    assert kinds[:2] == ["hello", "hello"]
    assert {"call", "chunk", "end"} <= set(kinds)
    assert len(trace) == len(trace.said)
    assert str(trace).splitlines()[0].startswith("    0.0000 → hello  version=1")
    assert trace.tail(1).splitlines()[0].endswith(f"{len(trace) - 1} messages before these")
    assert trace.tail(10_000) == str(trace)
    async with open_pair(Numbers()) as other:
        with pytest.raises(TypeError, match="is not simulated"):
            trace_of(other)


def test_long_values_and_bytes_are_shown_in_short() -> None:
    trace = Trace()
    trace.note(1.0, "→", b"\x91\x93\x02\x01\xc4\x02\x00\xff")
    trace.note(2.0, "→", '[{"type":"result","id":1,"value":"' + "x" * 1000 + '"}]')
    first, second = str(trace).splitlines()
    assert first.endswith(r"value=b'\x00\xff'")
    assert len(second) < 120
