"""Instructions for a call and for an item, counted by valgrind: what no busy machine changes.

    python -m benchmarks.instructions [--scale 0.1]

Both sides are in one process, over memory and over a pair of sockets, so that it does not matter
who waits for whom; their clock counts how often it is read. A run with no work is subtracted from
one with work; all is counted twice, and the two have to agree.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio

from benchmarks.environments import the_own_one, versions_of
from trio_streamrpc import Connection, open_connection, rpc
from trio_streamrpc.testing import open_pair

#: W2: callers at once, and calls in all. W3: items of one stream.
CALLERS = 64
UNITS = {"W2": 6_400, "W3": 20_000}
NAMES = {"W2": "a call", "W3": "an item"}

#: By how much each look at the clock moves it, in seconds: about what is done between two.
TICK = 2e-6

#: Two runs that differ by more than this part say nothing. An item takes the same within a
#: thousandth; calls of many callers travel together by chance, as Trio shuffles what is to run.
AGREEMENT = 0.03


class Counting(trio.abc.Clock):
    """A clock that goes on by itself whenever it is read.

    Under valgrind all is fifty times slower, and what the library does for a time would be cut as
    short. By this one it takes as long as it takes elsewhere, and is the same in each run.
    """

    def __init__(self) -> None:
        self._now = 1000.0

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        self._now += TICK
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return max(0.0, deadline - self._now)


class Service:
    @rpc
    async def add(self, number: int) -> int:
        return number + 1

    @rpc
    async def items(self, count: int) -> AsyncIterator[dict[str, object]]:
        for number in range(count):
            yield {"i": number, "s": "hello world"}


@asynccontextmanager
async def open_sockets(service: object) -> AsyncIterator[Connection]:
    """Both sides of a connection over a pair of sockets, as over TCP."""
    here, there = (
        trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in socket.socketpair()
    )

    async def serve_it() -> None:
        async with open_connection(there, "accepting", serving=service) as connection:
            await connection.wait_closed()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_it)
        async with open_connection(here) as connection:
            yield connection


TRANSPORTS: dict[str, Callable[[object], AbstractAsyncContextManager[Connection]]] = {
    "memory": open_pair,
    "sockets": open_sockets,
}


async def calls(service: Service, count: int) -> None:
    async def caller(first: int) -> None:
        for number in range(first, first + count // CALLERS):
            assert await service.add(number) == number + 1

    async with trio.open_nursery() as nursery:
        for number in range(CALLERS):
            nursery.start_soon(caller, number * count)


async def items(service: Service, count: int) -> None:
    taken = 0
    async with service.items(count) as stream:
        async for _ in stream:
            taken += 1
    assert taken == count


WORK = {"W2": calls, "W3": items}


async def work(transport: str, workload: str, count: int) -> None:
    """What is counted: some of it always, so that only the rest is a difference."""
    async with TRANSPORTS[transport](Service()) as connection:
        service = connection.proxy(Service)
        for each in (CALLERS, count):
            if each:
                await WORK[workload](service, each)


def counted(transport: str, workload: str, count: int) -> int:
    """The instructions of a process that does so much."""
    own = the_own_one()
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [
                *("valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/out"),
                *(own.interpreter, "-m", "benchmarks.instructions"),
                *("--work", transport, workload, str(count)),
            ],
            capture_output=True,
            check=False,
            cwd=Path(__file__).parent.parent,
            encoding="utf-8",
            env={**os.environ, **own.variables, "PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"it ended with {done.returncode}: {done.stderr[-1000:]}")
    return int(found[1])


def per_unit(amounts: Sequence[tuple[int, int]], count: int) -> list[float]:
    """Of each run: the instructions for a unit, where it has ``(without work, with it)``."""
    return [(after - before) / count for before, after in amounts]


def difference(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / min(values)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the usual work")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        transport, workload, count = given.work
        trio.run(work, transport, workload, int(count), clock=Counting())
        return 0
    if shutil.which("valgrind") is None:
        print("valgrind is not here: nothing is counted")
        return 0
    units = {name: max(CALLERS, int(each * given.scale)) for name, each in UNITS.items()}
    rows = [(transport, name) for transport in TRANSPORTS for name in WORK]
    runs = [(*row, count) for row in rows for count in (0, units[row[1]])] * 2
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        amounts = list(pool.map(lambda run: counted(*run), runs))
    versions = ", ".join(f"{name} {version}" for name, version in versions_of(None).items())
    print(f"Python {platform.python_version()}, {versions}, {platform.machine()}")
    print("| | over | instructions | the two runs differ by |\n| :-- | :-- | --: | --: |")
    agree = True
    for index, (transport, name) in enumerate(rows):
        pairs = [(amounts[at], amounts[at + 1]) for at in (2 * index, 2 * (index + len(rows)))]
        values = per_unit(pairs, units[name])
        agree = agree and difference(values) <= AGREEMENT
        mean = sum(values) / len(values)
        print(f"| {name}: {NAMES[name]} | {transport} | {mean:,.0f} | {difference(values):.2%} |")
    if not agree:
        print(f"the runs differ by more than {AGREEMENT:.0%}: these are no figures")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
