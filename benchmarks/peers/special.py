"""The special workloads, as clients see them: consumers that are slow or leave, much of something,
long lines.

A peer that has one of them gives the methods of :class:`Client` that it needs. What never happens
is not waited for: after :data:`NEVER` seconds, that is what is said of it.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from benchmarks.peers import common
    from benchmarks.peers.watching import Board, Watched
else:
    import common
    from watching import Board, Watched

__all__ = ["BY_ANY_PEER", "WORKLOADS", "Client", "Never", "idle_connections"]

MEBIBYTE = 1024 * 1024

#: How long something is waited for until it is said never to happen, in seconds.
NEVER = 5.0

#: W6: how long the consumer takes for an item, and for how long it does so, in seconds.
SLOW = 0.005
SLOW_SECONDS = 3.0

#: W9: how long connections are idle, in seconds; a ping goes over each of ours in that time. Those
#: that are opened at once. What each may need of descriptors besides, and of ports.
IDLE_SECONDS = 20.0
AT_ONCE = 50
SPARE = 200

#: W10, W11: for how long they are measured, in seconds, and the time between two calls.
BESIDE_SECONDS = 4.0
PAUSE = 0.002

#: Calls that are made alone before those beside something else.
ALONE = 300


class Never(Exception):
    """What was to happen has not within the bound."""


class Client(common.Client):
    """What a peer overrides if it has these workloads. A ``board`` is the path of a
    :class:`Board`, where the handler notes what it does."""

    async def meet(self, board: str) -> None:
        """W9 to W11: have the server sign that board."""
        raise NotImplementedError

    def produce(self, kind: str, board: str) -> AbstractAsyncContextManager[AsyncIterator[object]]:
        """W6, W7: a stream of ``Production(board).of(kind)``. The block is what a user leaves
        after a ``break``; a peer that has no such block does nothing at its end."""
        raise NotImplementedError

    def endless(self) -> AbstractAsyncContextManager[AsyncIterator[object]]:
        """W10: a stream like that of W4, without an end."""
        raise NotImplementedError

    async def large(self, size: int) -> int:
        """W11: a call whose result is so many bytes; how many came."""
        raise NotImplementedError


async def slow_consumer(client: Client, load: common.Load) -> common.Figures:
    """W6: how many chunks are made ahead of those taken, at most."""
    ahead = taken = 0
    with Board.new() as board:
        async with client.produce("chunks", board.path) as items:
            memory: dict[str, Growth] = {}
            started = perf_counter()
            async for _ in items:
                if not taken:
                    memory = {"server": Growth(board.process), "client": Growth()}
                taken += 1
                await load.sleep(SLOW)
                ahead = max(ahead, board.produced - taken)
                if perf_counter() - started >= SLOW_SECONDS * load.seconds:
                    break
            grown = {f"{name}_MiB": each.mebibytes() for name, each in memory.items()}
        return {"value": ahead, "taken": taken, **grown}


class Growth:
    """How much more memory a process has at its peak than it has now."""

    def __init__(self, process: int | None = None) -> None:
        gc.collect()
        self._process = Watched(process)
        self._before = self._process.resident()
        self._process.forget_peak()

    def bytes(self) -> int:
        return max(0, self._process.peak() - self._before)

    def mebibytes(self) -> float:
        return self.bytes() / MEBIBYTE


async def early_break(client: Client, load: common.Load) -> common.Figures:
    """W7: the time from leaving the loop until the ``finally`` of a busy producer, in ms."""
    return await _leave(client, load, "busy")


async def early_break_idle(client: Client, load: common.Load) -> common.Figures:
    """W7i: the same of a producer that waits for something else."""
    return await _leave(client, load, "idle")


async def _leave(client: Client, load: common.Load, kind: str) -> common.Figures:
    until_ended: list[float] = []
    until_left: list[float] = []
    before_left = 0
    with Board.new() as board:
        for _ in range(load.size):
            board.clear()
            left_loop, left_block = 0.0, 0.0

            async def take_one() -> None:
                nonlocal left_loop, left_block
                async with client.produce(kind, board.path) as items:
                    async for _ in items:
                        break
                    left_loop = perf_counter()
                left_block = perf_counter()

            if not await load.within(NEVER, take_one):
                raise Never(f"the block is not left within {NEVER:g} s")
            before_left += board.ended > 0
            await _until(load, lambda: board.ended > 0, "the producer has not ended")
            until_ended.append((board.ended - left_loop) * 1e3)
            until_left.append((left_block - left_loop) * 1e3)
    until_ended.sort()
    until_left.sort()
    return {
        # A clock's last digit is not to make it negative.
        "value": max(0.0, until_ended[len(until_ended) // 2]),
        "most": until_ended[-1],
        "left": until_left[len(until_left) // 2],
        "ended_before_left": before_left,
    }


async def _until(load: common.Load, happened: Callable[[], bool], what: str) -> None:
    started = perf_counter()
    while not happened():
        if perf_counter() - started > NEVER:
            raise Never(f"{what} within {NEVER:g} s")
        await load.sleep(0.001)


async def beside_busy(client: Client, load: common.Load) -> common.Figures:
    """W7c: the p99 of a call beside a producer that never awaits, in ms."""
    alone = await _calls(client, load, lambda number: number < ALONE * load.seconds)
    times: list[float] = []
    over = False

    async def consumer() -> None:
        with Board.new() as board:
            async with client.produce("busy", board.path) as items:
                async for _ in items:
                    if over:
                        break

    async def caller() -> None:
        nonlocal over, times
        try:
            await load.sleep(0.1 * load.seconds)
            times = await _calls(client, load, lambda number: number < load.size)
        finally:
            over = True

    await load.together([consumer, caller])
    return {
        "value": _part(times, 99) * 1e3,
        "p50": _part(times, 50) * 1e3,
        "alone_p99": _part(alone, 99) * 1e3,
    }


async def _calls(client: Client, load: common.Load, going_on: Callable[[int], bool]) -> list[float]:
    """Calls one after the other, with a pause; the time of each in seconds, in order."""
    times = []
    number = 0
    while number == 0 or going_on(number):
        before = perf_counter()

        async def call() -> None:
            common.check(await client.add(number), number + 1)  # noqa: B023

        if not await load.within(NEVER, call):
            raise Never(f"a call is not answered within {NEVER:g} s")
        times.append(perf_counter() - before)
        number += 1
        await load.sleep(PAUSE)
    times.sort()
    return times


def _part(times: list[float], hundredth: int) -> float:
    return times[len(times) * hundredth // 100]


async def many_streams(client: Client, load: common.Load) -> common.Figures:
    """W10: items/s of many streams at once, how alike they are, and calls beside them."""
    alone = await _calls(client, load, lambda number: number < ALONE * load.seconds)
    counts = [0] * load.size
    over = False

    async def consumer(index: int) -> None:
        async with client.endless() as items:
            async for _ in items:
                counts[index] += 1
                if over:
                    break

    figures: common.Figures = {}

    async def caller() -> None:
        nonlocal over
        try:
            await _until(load, lambda: min(counts) > 0, "not all streams have begun")
            gc.collect()
            before = counts.copy()
            started = perf_counter()
            until = started + BESIDE_SECONDS * load.seconds
            times = await _calls(client, load, lambda number: perf_counter() < until)
            elapsed = perf_counter() - started
            taken = [after - mine for after, mine in zip(counts, before, strict=True)]
            figures["value"] = sum(taken) / elapsed
            figures["fairness"] = min(taken) / max(1, *taken)
            figures["call_p99_us"] = _part(times, 99) * 1e6
            figures["alone_p99_us"] = _part(alone, 99) * 1e6
            figures["calls"] = len(times)
        finally:
            over = True

    await load.together([*(partial(consumer, index) for index in range(load.size)), caller])
    return figures


async def large_value(client: Client, load: common.Load) -> common.Figures:
    """W11: the p99 of calls while a large value is under way, in µs."""
    alone = await _calls(client, load, lambda number: number < ALONE * load.seconds)
    transfers: list[float] = []
    over = False
    with Board.new() as board:
        await client.meet(board.path)
        server, own = Growth(board.process), Growth()
        # The server makes the value now, and keeps it: that is its share of the memory.
        common.check(await client.large(load.size), load.size)

        async def fetch() -> None:
            nonlocal over
            try:
                until = perf_counter() + BESIDE_SECONDS * load.seconds
                while perf_counter() < until:
                    before = perf_counter()
                    common.check(await client.large(load.size), load.size)
                    transfers.append(perf_counter() - before)
            finally:
                over = True

        times: list[float] = []

        async def caller() -> None:
            nonlocal times
            times = await _calls(client, load, lambda number: not over)

        await load.together([fetch, caller])
        memory = {"server": server.bytes() / load.size, "client": own.bytes() / load.size}
    return {
        "value": _part(times, 99) * 1e6,
        "most": times[-1] * 1e6,
        "alone_p99": _part(alone, 99) * 1e6,
        "calls": len(times),
        "MB_per_s": load.size * len(transfers) / sum(transfers) / 1e6,
        "server_times_value": memory["server"],
        "client_times_value": memory["client"],
    }


async def idle_connections(
    client: Client,
    load: common.Load,
    connect: Callable[[str], AbstractAsyncContextManager[object]],
) -> common.Figures:
    """W9, on Trio: the server's memory for each connection in KiB, and its time while idle."""
    import trio

    count = min(load.size, _possible())

    async def hold(task_status: trio.TaskStatus[None]) -> None:
        async with connect(load.address):
            task_status.started()
            await trio.sleep_forever()

    async def settle() -> None:
        gc.collect()
        await trio.sleep(load.seconds)

    with Board.new() as board:
        await client.meet(board.path)
        server = Watched(board.process)
        async with trio.open_nursery() as nursery:
            await settle()
            before = server.resident()
            started = perf_counter()
            for first in range(0, count, AT_ONCE):
                async with trio.open_nursery() as opening:
                    for _ in range(min(AT_ONCE, count - first)):
                        opening.start_soon(nursery.start, hold)
            opened = perf_counter() - started
            await settle()
            grown = server.resident() - before
            used, started = server.processor_time(), perf_counter()
            await trio.sleep(IDLE_SECONDS * load.seconds)
            busy = (server.processor_time() - used) / (perf_counter() - started)
            nursery.cancel_scope.cancel()
    return {
        "value": max(0, grown) / count / 1024,
        "connections": count,
        "idle_CPU_percent": busy * 100,
        "opened_per_s": count / opened,
    }


def _possible() -> int:
    """How many connections this process can have to one address: for lack of descriptors or of
    ports there may be fewer than are asked for."""
    import resource

    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            first, last = map(int, file.read().split())
    except OSError:
        first, last = 49_152, 65_535
    return max(1, min(descriptors, last - first) - SPARE)


#: Those that a peer without a remote `finally` and without bounds can be asked for too.
BY_ANY_PEER: dict[str, common.Workload] = {
    "W6": slow_consumer,
    "W7": early_break,
    "W7i": early_break_idle,
    "W7c": beside_busy,
}

WORKLOADS: dict[str, common.Workload] = {
    **BY_ANY_PEER,
    "W10": many_streams,
    "W11": large_value,
}
