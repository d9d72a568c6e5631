"""What the Python peers have in common: a command line, and the workloads as clients see them.

A peer's script runs in an environment of its own, so that this file needs the standard library
alone; trio is imported by what runs on Trio.

    PEER.py serve [TRANSPORT]                              prints the address on its first line
    PEER.py measure ADDRESS SECONDS WORKLOAD=SIZE …        prints a line of JSON for each workload

Both end when their stdin is closed, so that nothing is left behind, whatever ended the runner.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

#: W2: callers at once. W4: streams at once. W5: the bytes of a chunk.
CALLERS = 64
STREAMS = 32
CHUNK_BYTES = 65_536
CHUNK = bytes(range(256)) * (CHUNK_BYTES // 256)

#: The item of W3, W4 and W8 is {"i": number, "s": TEXT}.
TEXT = "hello world"

#: The part of a workload that is run before it is measured.
WARM_UP = 0.1


class WrongAnswer(Exception):
    """What came is not what was asked for: no figure is made of it."""


class Client:
    """A connected client. A peer overrides what it measures; each method does the work by itself,
    as a user of that library would write it, so that nothing stands between it and the items."""

    async def add(self, number: int) -> int:
        """W1, W2: a call that gives ``number + 1``."""
        raise NotImplementedError

    async def take(self, count: int) -> tuple[int, int]:
        """W3, W4: a stream of that many items, taken one by one; how many came, and the sum of
        their ``"i"``."""
        raise NotImplementedError

    async def take_chunks(self, count: int) -> tuple[int, int]:
        """W5: a stream of that many chunks; how many came, and their bytes."""
        raise NotImplementedError

    async def upload(self, count: int) -> tuple[int, int]:
        """W8: send that many items; how many the server has seen, and the sum of their ``"i"``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Load:
    """How much of a workload is done."""

    workload: str
    size: int  # done at once, the same for all peers
    seconds: float  # it is repeated until as much time has passed
    together: Together  # runs async functions at once, and waits for them all
    address: str  # of the server, for a workload with connections of its own
    sleep: Callable[[float], Awaitable[object]]  # for so many seconds
    within: Within  # runs an async function for so many seconds; whether it came to its end


#: What was measured: "value" is the workload's figure, others may stand beside it.
Figures = dict[str, float]
Together = Callable[[Sequence[Callable[[], Awaitable[object]]]], Awaitable[object]]
Within = Callable[[float, Callable[[], Awaitable[object]]], Awaitable[bool]]
Workload = Callable[[Any, Load], Awaitable[Figures]]


def check(got: object, expected: object) -> None:
    if got != expected:
        raise WrongAnswer(f"{got!r} came, and {expected!r} was asked for")


def summed(count: int) -> tuple[int, int]:
    """What is counted and summed of a stream of that many items."""
    return count, count * (count - 1) // 2


async def per_second(load: Load, unit: Callable[[int], Awaitable[float]]) -> Figures:
    """How much is done in a second, where ``unit(size)`` does work and gives its amount."""
    await unit(max(1, int(load.size * WARM_UP)))
    gc.collect()
    done = 0.0
    started = perf_counter()
    while True:
        done += await unit(load.size)
        elapsed = perf_counter() - started
        if elapsed >= load.seconds:
            return {"value": done / elapsed}


async def items_per_second(
    load: Load, take: Callable[[int], Awaitable[tuple[int, int]]]
) -> Figures:
    """The same for ``take(count)``, which gives how many items there were and their sum."""

    async def unit(size: int) -> float:
        check(await take(size), summed(size))
        return size

    return await per_second(load, unit)


async def latency(load: Load, call: Callable[[int], Awaitable[object]]) -> Figures:
    """The time of a call, in µs, where one is made after the other: ``value`` is the median."""
    for number in range(max(1, int(load.size * WARM_UP))):
        await call(number)
    gc.collect()
    times: list[float] = []
    clock = perf_counter
    started = clock()
    while True:
        for number in range(load.size):
            before = clock()
            await call(number)
            times.append(clock() - before)
        elapsed = clock() - started
        if elapsed >= load.seconds:
            break
    count = len(times)
    times.sort()
    return {
        "value": times[count // 2] * 1e6,
        "p99": times[count * 99 // 100] * 1e6,
        "per_second": count / elapsed,
    }


async def calls_in_sequence(client: Client, load: Load) -> Figures:
    """W1."""

    async def call(number: int) -> None:
        if await client.add(number) != number + 1:
            raise WrongAnswer(f"add({number}) is not {number + 1}")

    return await latency(load, call)


async def calls_at_once(client: Client, load: Load) -> Figures:
    """W2."""

    async def unit(size: int) -> float:
        each = max(1, size // CALLERS)

        async def caller(first: int) -> None:
            for number in range(first, first + each):
                if await client.add(number) != number + 1:
                    raise WrongAnswer(f"add({number}) is not {number + 1}")

        await load.together(
            [partial(caller, number * 1_000_000) for number in range(CALLERS)],
        )
        return each * CALLERS

    return await per_second(load, unit)


async def one_stream(client: Client, load: Load) -> Figures:
    """W3."""
    return await items_per_second(load, client.take)


async def streams_at_once(client: Client, load: Load) -> Figures:
    """W4."""

    async def unit(size: int) -> float:
        each = max(1, size // STREAMS)

        async def consumer() -> None:
            check(await client.take(each), summed(each))

        await load.together([consumer] * STREAMS)
        return each * STREAMS

    return await per_second(load, unit)


async def chunks(client: Client, load: Load) -> Figures:
    """W5."""

    async def unit(size: int) -> float:
        check(await client.take_chunks(size), (size, size * CHUNK_BYTES))
        return size * CHUNK_BYTES / 1e6

    return await per_second(load, unit)


async def upload(client: Client, load: Load) -> Figures:
    """W8."""
    return await items_per_second(load, client.upload)


#: What a client's methods are measured by; a peer may have other workloads beside these.
STANDARD: dict[str, Workload] = {
    "W1": calls_in_sequence,
    "W2": calls_at_once,
    "W3": one_stream,
    "W4": streams_at_once,
    "W5": chunks,
    "W8": upload,
}


def announce(address: object) -> None:
    """Called by ``serve`` when clients may connect to that address."""
    print(address, flush=True)


def trio_main(
    serve: Callable[[str], Awaitable[object]],
    connect: Callable[[str], AbstractAsyncContextManager[Client]],
    workloads: dict[str, Workload] | None = None,
) -> None:
    """The command line of a peer on Trio.

    ``serve(transport)`` announces where it is and serves for ever; ``connect(address)`` gives a
    :class:`Client`; ``workloads`` are measured beside the standard ones.
    """
    import trio

    async def together(functions: Sequence[Callable[[], Awaitable[object]]]) -> None:
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)

    async def within(seconds: float, function: Callable[[], Awaitable[object]]) -> bool:
        with trio.move_on_after(seconds) as scope:
            await function()
        return not scope.cancelled_caught

    library = Library(trio.run, together, trio.sleep, within)
    _main(library, serve, connect, workloads or {})


def asyncio_main(
    serve: Callable[[str], Awaitable[object]],
    connect: Callable[[str], AbstractAsyncContextManager[Client]],
    workloads: dict[str, Workload] | None = None,
    *,
    run: Callable[[Any], Any] = asyncio.run,
) -> None:
    """The same on asyncio; ``run`` may be uvloop's."""

    async def together(functions: Sequence[Callable[[], Awaitable[object]]]) -> None:
        await asyncio.gather(*(function() for function in functions))

    def run_function(function: Callable[..., Awaitable[object]], *args: object) -> None:
        run(function(*args))

    async def within(seconds: float, function: Callable[[], Awaitable[object]]) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await function()
        except TimeoutError:
            return False
        return True

    library = Library(run_function, together, asyncio.sleep, within)
    _main(library, serve, connect, workloads or {})


@dataclass(frozen=True)
class Library:
    """What Trio and asyncio have, each in its own way."""

    run: Callable[..., object]
    together: Together
    sleep: Callable[[float], Awaitable[object]]
    within: Within


def _main(
    library: Library,
    serve: Callable[[str], Awaitable[object]],
    connect: Callable[[str], AbstractAsyncContextManager[Client]],
    workloads: dict[str, Workload],
) -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("transport", nargs="?", default="")
    measuring = commands.add_parser("measure")
    measuring.add_argument("address")
    measuring.add_argument("seconds", type=float)
    measuring.add_argument("sizes", nargs="+", metavar="WORKLOAD=SIZE")
    arguments = parser.parse_args()

    end_with_stdin()
    allow_descriptors()
    try:
        if arguments.command == "serve":
            library.run(serve, arguments.transport)
            return
        known = {**STANDARD, **workloads}
        loads = []
        for each in arguments.sizes:
            name, _, size = each.partition("=")
            load = Load(
                name,
                int(size),
                arguments.seconds,
                library.together,
                arguments.address,
                library.sleep,
                library.within,
            )
            loads.append(load)
        library.run(_measure, loads, known, connect)
    except Exception as error:
        traceback.print_exc()
        sys.exit(_in_a_line(error))  # the last line is what the runner tells


async def _measure(
    loads: Sequence[Load],
    known: dict[str, Workload],
    connect: Callable[[str], AbstractAsyncContextManager[Client]],
) -> None:
    for load in loads:
        # A connection of its own: a workload leaves nothing behind for the next.
        async with connect(load.address) as client:
            try:
                line: dict[str, object] = dict(await known[load.workload](client, load))
            except Exception as error:
                line = {"error": _in_a_line(error)}
            # What it takes to close the connection is not part of it.
            print(json.dumps({"workload": load.workload, **line}), flush=True)


def _in_a_line(error: BaseException) -> str:
    """What went wrong, also where a nursery has put it into groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def allow_descriptors() -> None:
    """As many open files and sockets as the system lets a process have."""
    try:
        import resource
    except ImportError:  # it is not there on Windows, which has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems allow less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def end_with_stdin() -> None:
    """From now on this process ends when its stdin is closed."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()


def _end_with_stdin() -> None:
    # The descriptor itself: a buffered read would hold a lock that the interpreter's end needs.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    # At once, whatever the program is doing: it holds nothing that would have to be saved.
    os._exit(0)
