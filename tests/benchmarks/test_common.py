"""What peers measure with, and that a peer ends when its runner is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio

from benchmarks.environments import the_own_one
from benchmarks.peers import common
from benchmarks.registry import SCRIPTS


async def together(functions: Sequence[Callable[[], Awaitable[object]]]) -> None:
    async with trio.open_nursery() as nursery:
        for function in functions:
            nursery.start_soon(function)


async def within(seconds: float, function: Callable[[], Awaitable[object]]) -> bool:
    with trio.move_on_after(seconds) as scope:
        await function()
    return not scope.cancelled_caught


def load(workload: str, size: int, seconds: float = 0.0) -> common.Load:
    return common.Load(workload, size, seconds, together, "nowhere", trio.sleep, within)


class Client(common.Client):
    """It answers by itself; what it is asked stays in ``asked``."""

    def __init__(self, wrong: int = 0) -> None:
        self.wrong = wrong
        self.asked: list[int] = []

    async def add(self, number: int) -> int:
        await trio.lowlevel.checkpoint()
        self.asked.append(number)
        return number + 1 + self.wrong

    async def take(self, count: int) -> tuple[int, int]:
        self.asked.append(count)
        return count, sum(range(count)) + self.wrong

    async def take_chunks(self, count: int) -> tuple[int, int]:
        self.asked.append(count)
        return count, count * common.CHUNK_BYTES + self.wrong

    upload = take


@pytest.mark.parametrize(
    ("workload", "asked"),
    [
        ("W1", [0, *range(10)]),
        ("W3", [1, 10]),
        ("W4", [1] * 64),
        ("W5", [1, 10]),
        ("W8", [1, 10]),
    ],
)
async def test_a_workload_is_run_in_short_and_then_measured(
    workload: str, asked: list[int]
) -> None:
    client = Client()
    figures = await common.STANDARD[workload](client, load(workload, 10))
    assert client.asked == asked
    assert figures["value"] > 0


async def test_callers_at_once() -> None:
    client = Client()
    await common.STANDARD["W2"](client, load("W2", 640))
    numbers = [caller * 1_000_000 + each for caller in range(64) for each in range(10)]
    assert sorted(client.asked[64:]) == numbers


@pytest.mark.parametrize("workload", common.STANDARD)
async def test_a_wrong_answer_is_no_figure(workload: str) -> None:
    with pytest.raises((common.WrongAnswer, ExceptionGroup)) as raised:
        await common.STANDARD[workload](Client(wrong=1), load(workload, 1))
    error: BaseException = raised.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, common.WrongAnswer)


async def test_a_rate_is_the_amount_for_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("benchmarks.peers.common.perf_counter", lambda: now)

    async def unit(size: int) -> float:
        nonlocal now
        now += 0.25
        return size * 2

    # Four repetitions of 100 in a second, after one that is not counted.
    assert await common.per_second(load("W3", 50, 1.0), unit) == {"value": 400.0}
    assert now == 101.25


async def test_the_time_of_a_call_is_in_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("benchmarks.peers.common.perf_counter", lambda: now)

    async def call(number: int) -> None:
        nonlocal now
        now += number  # 0, 1, … 99 seconds

    figures = await common.latency(load("W1", 100), call)
    assert figures["value"] == 50e6
    assert figures["p99"] == 99e6
    assert figures["per_second"] == pytest.approx(100 / sum(range(100)))


def start(*arguments: str) -> subprocess.Popen[str]:
    own = the_own_one()
    return subprocess.Popen(
        [own.interpreter, str(SCRIPTS / "ours.py"), *arguments],
        env={**os.environ, **own.variables},
        encoding="utf-8",
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_a_peer_ends_with_its_stdin() -> None:
    with start("serve", "ws") as server:
        assert server.stdout is not None
        assert server.stdin is not None
        address = server.stdout.readline().strip()
        assert address.startswith("ws://127.0.0.1:")
        with start("measure", address, "0", "W8=10", "W1=1000000000") as client:
            assert client.stdout is not None
            line = json.loads(client.stdout.readline())
            assert line.keys() == {"workload", "value"}
            assert line["workload"] == "W8"
            out, said = client.communicate("")
            assert (client.returncode, out, said) == (0, "", "")
        out, said = server.communicate("")
    assert (server.returncode, out, said) == (0, "", "")


def test_a_peer_says_in_its_last_line_why_it_failed() -> None:
    with start("serve", "pigeon") as server:
        server.wait()
        out, said = server.communicate("")
    assert (server.returncode, out) == (1, "")
    assert said.splitlines()[-1].startswith("ValueError: 'pigeon://127.0.0.1:0' is no URL")


def test_the_peers_need_no_more_than_the_standard_library_in_common() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPTS / "common.py")],
        capture_output=True,
        check=False,
        encoding="utf-8",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
