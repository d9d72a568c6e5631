"""A soak: much of everything against one server process, and nothing may grow.

    python -m benchmarks.soak [--scale 0.01] [--transport tcp]

A million calls, ten thousand streams that are left early and a thousand reconnects, in rounds.
After each, both sides say what they have: memory, Trio tasks, file descriptors, objects that
Python's collector knows, open connections. Ends with 1 if any of it has grown since the warm-up.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import trio

from benchmarks.environments import the_own_one
from benchmarks.peers.common import allow_descriptors, end_with_stdin
from benchmarks.peers.watching import Watched
from benchmarks.processes import Process
from trio_streamrpc import Connection, NotFound, Server, connect, rpc, serve

#: What is done in all, in so many rounds; the first of them are the warm-up.
CALLS = 1_000_000
STREAMS = 10_000
RECONNECTS = 1_000
ROUNDS = 20
WARM_UP = 4

CALLERS = 64
LEAVERS = 32

#: How long the server may take to notice that clients are gone, in seconds.
PATIENCE = 10.0
PAUSE = 0.01

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class State:
    """What a process has at a time."""

    memory: int
    """Resident, in bytes."""
    tasks: int
    descriptors: int
    objects: int
    connections: int
    calls: int
    """That run on them, made and served."""

    @classmethod
    def of_this_process(cls, connections: Collection[Connection]) -> State:
        gc.collect()
        own = Watched()
        running = [each.statistics() for each in connections]
        return cls(
            own.resident(),
            trio.lowlevel.current_statistics().tasks_living,
            own.descriptors(),
            len(gc.get_objects()),
            len(connections),
            sum(each.calls_open + each.handlers_running for each in running),
        )


#: By how much each may grow: what can be counted not at all, what depends on the allocator and on
#: the collector a little.
ALLOWED = {
    "memory": 2 * MEBIBYTE,
    "tasks": 0,
    "descriptors": 0,
    "objects": 500,
    "connections": 0,
    "calls": 0,
}
EXACT = ("tasks", "descriptors", "connections", "calls")


@dataclass(frozen=True)
class Sample:
    """Both sides after a round."""

    seconds: float
    server: State
    client: State


class Service:
    def __init__(self) -> None:
        self.server: Server | None = None

    @rpc
    async def add(self, number: int) -> int:
        return number + 1

    @rpc
    async def refuse(self, number: int) -> int:
        raise NotFound(f"there is no {number}")

    @rpc
    async def wait(self) -> None:
        await trio.sleep_forever()

    @rpc
    async def busy(self) -> AsyncIterator[dict[str, int]]:
        number = 0
        while True:
            yield {"i": number}
            number += 1

    @rpc
    async def idle(self) -> AsyncIterator[dict[str, int]]:
        yield {"i": 0}
        await trio.sleep_forever()

    @rpc
    async def state(self) -> State:
        """What this side has once the connections that were closed are gone."""
        assert self.server is not None
        for _ in range(int(PATIENCE / PAUSE)):
            if len(self.server.connections) == 1:
                break
            await trio.sleep(PAUSE)
        await _settle()
        return State.of_this_process(self.server.connections)


async def _settle() -> None:
    """Wait until what was cancelled has ended: no task has come or gone for a while."""
    quiet = 0
    before = -1
    for _ in range(int(PATIENCE / PAUSE)):
        await trio.sleep(PAUSE)
        tasks = trio.lowlevel.current_statistics().tasks_living
        quiet = quiet + 1 if tasks == before else 0
        before = tasks
        if quiet == 3:
            break


async def run_server(url: str) -> None:
    service = Service()
    async with trio.open_nursery() as nursery:
        service.server = await nursery.start(serve, service, url)
        print(service.server.url, flush=True)


async def call(service: Service, count: int) -> None:
    """So many calls of one caller: most are answered, some refused, some given up."""
    for number in range(count):
        if number % 100 == 50:
            try:
                await service.refuse(number)
            except NotFound:
                continue
        elif number % 100 == 99:
            with trio.move_on_after(0):
                await service.wait()
        elif await service.add(number) != number + 1:
            raise AssertionError(f"add({number}) is not {number + 1}")


async def leave(service: Service, count: int) -> None:
    """So many streams, each left after its first items in one of the ways that there are."""
    for number in range(count):
        stream = service.idle() if number % 2 else service.busy()
        way = number // 2 % 3
        if way == 0:
            async with stream:
                async for _ in stream:
                    break
        elif way == 1:
            # Without a block: it is cancelled when it is collected.
            async for _ in stream:
                break
        else:
            with trio.CancelScope() as scope:
                async with stream:
                    async for _ in stream:
                        scope.cancel()
        del stream


async def reconnect(url: str, count: int) -> None:
    for _ in range(count):
        async with connect(url) as connection:
            service = connection.proxy(Service)
            await call(service, 2)
            await leave(service, 1)


async def one_round(connection: Connection, url: str, scale: float) -> None:
    service = connection.proxy(Service)
    calls, streams, reconnects = (
        max(1, round(each * scale / ROUNDS / at_once))
        for each, at_once in ((CALLS, CALLERS), (STREAMS, LEAVERS), (RECONNECTS, 1))
    )
    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(call, service, calls)
    async with trio.open_nursery() as nursery:
        for _ in range(LEAVERS):
            nursery.start_soon(leave, service, streams)
    await reconnect(url, reconnects)


async def soak(url: str, scale: float, samples: list[Sample]) -> None:
    """All rounds; each adds its sample, and its lines to the table."""
    started = time.perf_counter()
    async with connect(url) as connection:
        service = connection.proxy(Service)
        for _ in range(ROUNDS):
            await one_round(connection, url, scale)
            # The server's first: then what this side has sent and received is over.
            server = await service.state()
            await _settle()
            client = State.of_this_process([connection])
            samples.append(Sample(time.perf_counter() - started, server, client))
            print(line_of(samples[-1]), flush=True)


def heading() -> str:
    columns = [f"{side} {field.name}" for side in ("server", "client") for field in fields(State)]
    return f"| seconds | {' | '.join(columns)} |\n|{' --: |' * (len(columns) + 1)}"


def line_of(sample: Sample) -> str:
    """A row of the table; memory is in MiB."""
    cells = [f"{sample.seconds:.1f}"]
    for state in (sample.server, sample.client):
        figures = asdict(state)
        cells.append(f"{figures.pop('memory') / MEBIBYTE:.2f}")
        cells += [f"{each:,}" for each in figures.values()]
    return f"| {' | '.join(cells)} |"


def growth_of(samples: Sequence[Sample], *, only: Sequence[str]) -> list[str]:
    """What has grown by more than it may, in words: the least of the second half of the rounds
    after the warm-up, beside that of the first half. What is made and collected in turn falls back
    to its least; what grows does not."""
    after = samples[WARM_UP:]
    half = len(after) // 2
    found = []
    for side in ("server", "client"):
        for name in only:
            values = [getattr(getattr(sample, side), name) for sample in after]
            first, last = min(values[:half]), min(values[half:])
            if last - first > ALLOWED[name]:
                found.append(
                    f"{side} {name}: {first:,.0f} have become {last:,.0f}; "
                    f"{ALLOWED[name]:,} more are allowed"
                )
    return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the usual work")
    parser.add_argument("--transport", choices=("ws", "tcp", "unix"), default="ws")
    parser.add_argument("--exact", action="store_true", help="judge only what is counted exactly")
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    allow_descriptors()
    if given.serve:
        end_with_stdin()
        trio.run(run_server, given.serve)
        return 0
    own = the_own_one()
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        url = f"{given.transport}://127.0.0.1:0"
        if given.transport == "unix":
            url = f"unix://{directory}/socket"
        command = [own.interpreter, "-m", "benchmarks.soak", "--serve", url]
        variables = {**own.variables, "PYTHONPATH": str(Path(__file__).parent.parent)}
        samples: list[Sample] = []
        with Process(command, variables) as server:
            print(heading())
            trio.run(partial(soak, server.line(PATIENCE), given.scale, samples))
    grown = growth_of(samples, only=EXACT if given.exact else [*ALLOWED])
    for each in grown or ["nothing"]:
        print(f"it grows: {each}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
