"""A client, a service and the network between them in one run, repeatable byte for byte."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import cattrs
import trio

from trio_streamrpc.contract.payloads import payloads_for
from trio_streamrpc.limits import Limits
from trio_streamrpc.nurseries import leaves, open_background_nursery
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.runtime.connection import Connection
from trio_streamrpc.runtime.interceptors import Interceptor
from trio_streamrpc.testing.networks import (
    Network,
    SimulatedTransport,
    open_simulated_transports,
)
from trio_streamrpc.testing.pairs import open_between, open_pair
from trio_streamrpc.testing.scheduling import (
    SEED_VARIABLE,
    check_clock,
    choose_seed,
    repeatable,
    simulated_time,
)
from trio_streamrpc.testing.traces import Trace

__all__ = [
    "Run", "forget_runs", "last_run", "open_seeded_pair", "remember_run", "simulate", "trace_of",
]  # fmt: skip

#: How many messages of a failing run are shown.
SHOWN: Final = 40


@dataclass(frozen=True)
class Run:
    """One simulation: what it takes to repeat it, and what was said."""

    seed: int
    network: Network
    trace: Trace

    def __str__(self) -> str:
        said = self.trace.tail(SHOWN) or "           nothing was said"
        return (
            f"simulated with seed={self.seed}, {self.network}\n"
            f"(again: pass that seed, or pytest --streamrpc-seed={self.seed}, or "
            f"{SEED_VARIABLE}={self.seed})\n{said}"
        )


#: The simulation that was begun last.
_RUNS: Final[deque[Run]] = deque(maxlen=1)


def last_run() -> Run | None:
    """The simulation that was begun last in this process."""
    return _RUNS[-1] if _RUNS else None


def remember_run(run: Run) -> None:
    """It has begun."""
    _RUNS.append(run)


def forget_runs() -> None:
    """None was begun: what comes next is another test's."""
    _RUNS.clear()


@asynccontextmanager
async def simulate(
    service: object,
    *,
    network: Network | None = None,
    seed: int | None = None,
    patience: float = 3600.0,
    encoding: Encoding = "msgpack",
    serving: object = None,
    interceptors: Sequence[Interceptor] = (),
    client_interceptors: Sequence[Interceptor] = (),
    limits: Limits | None = None,
    client_limits: Limits | None = None,
    metadata: Mapping[str, Any] | None = None,
    converter: cattrs.Converter | None = None,
) -> AsyncIterator[Connection]:
    """A connection to a service over a simulated network, in a run that follows from its seed.

    It wants a clock that jumps whenever everybody waits, ``trio.testing.MockClock(
    autojump_threshold=0)``: pytest-trio's ``autojump_clock``, or :func:`.run_repeatably`. Time is
    simulated then, and an hour takes as long as what happens in it. It stands still while a thread,
    a file or a socket is waited for, up to some real seconds. The same seed gives the same messages
    at the same times, as long as the service and the block do nothing that differs by itself
    (threads, sockets, the real time, ``uuid4``, an order of sets); the ``random`` module is seeded,
    too. Without a ``seed`` it is the one of ``--streamrpc-seed``, or any.

    What the block ends with has a note with the seed and the last messages, with which it can be
    run again. A block that takes more than ``patience`` simulated seconds ends with an
    :exc:`AssertionError`. The other arguments are those of :func:`.open_pair`. :func:`trace_of` the
    connection is all that was said.

    Raises :exc:`RuntimeError` for another clock, and what the network does to a connection that is
    only being opened: :exc:`~trio_streamrpc.ConnectionLost`.
    """
    payloads_for(encoding, converter)
    check_clock("simulate()")
    seed = choose_seed(seed)
    here, there = open_simulated_transports(network, encoding=encoding, seed=seed)
    run = Run(seed, network or Network(), here.trace)
    remember_run(run)
    try:
        with repeatable(seed), simulated_time():
            async with (
                _patience(patience),
                open_between(
                    here,
                    there,
                    service,
                    serving=serving,
                    interceptors=interceptors,
                    client_interceptors=client_interceptors,
                    limits=limits,
                    client_limits=client_limits,
                    metadata=metadata,
                    converter=converter,
                    mask_errors=False,
                ) as connection,
            ):
                yield connection
    except BaseException as error:
        if not all(isinstance(each, trio.Cancelled | GeneratorExit) for each in leaves(error)):
            error.add_note(str(run))
        raise


@asynccontextmanager
async def _patience(seconds: float) -> AsyncIterator[None]:
    """The block has so many seconds, and fails then.

    It is no scope: its deadline would be that of every call in it (R23).
    """

    async def lose() -> None:
        await trio.sleep(seconds)
        raise AssertionError(f"not done after {seconds} simulated seconds")

    async with open_background_nursery() as nursery:
        nursery.start_soon(lose, name="patience of a simulation")
        yield


@asynccontextmanager
async def open_seeded_pair(
    service: object, *, seed: int | None = None, **options: Any
) -> AsyncIterator[Connection]:
    """As :func:`.open_pair`, and ready tasks run in an order that follows from a seed.

    Without a ``seed`` it is the one of ``--streamrpc-seed``, or any; what the block ends with tells
    which. It is what pytest's fixture ``streamrpc_pair`` gives.
    """
    seed = choose_seed(seed)
    try:
        with repeatable(seed):
            async with open_pair(service, **options) as connection:
                yield connection
    except Exception as error:
        error.add_note(f"scheduled with --streamrpc-seed={seed}")
        raise


def trace_of(connection: Connection) -> Trace:
    """All that was said over a simulated connection.

    Raises :exc:`TypeError` for one over anything else.
    """
    if not isinstance(connection.transport, SimulatedTransport):
        raise TypeError(f"{connection!r} is not simulated")
    return connection.transport.trace
