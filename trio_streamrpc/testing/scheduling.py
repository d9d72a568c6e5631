"""Trio's scheduler, made to do the same each time.

Trio runs the tasks that are ready in an order that it draws anew each time, on purpose: nobody is
to rely on it. A simulation that is to be repeated has to repeat that order as well. There is no
public way to do so; what is used here is what Hypothesis and pytest-trio use, in this one place.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import trio
from trio.testing import MockClock

__all__ = [
    "SEED_VARIABLE", "check_clock", "choose_seed", "repeatable", "run_repeatably", "simulated_time",
]  # fmt: skip

T = TypeVar("T")

#: The environment variable with the seed of what names none: what ``--streamrpc-seed`` sets.
SEED_VARIABLE: Final = "TRIO_STREAMRPC_SEED"

#: How long, in real seconds, the clock stands still at most for threads, and for sockets and the
#: like; and for how long in one run.
THREADS: Final = 5.0
SOCKETS: Final = 0.1
IN_ALL: Final = 10.0
#: How often it is looked whether they are done, in real seconds.
TICK: Final = 0.001


def choose_seed(seed: int | None) -> int:
    """The seed that was named; else that of the environment; else any.

    Any is one of the ``random`` module's, so that within a test of Hypothesis, which seeds it, it
    is the same each time.
    """
    if seed is not None:
        return seed
    chosen = os.environ.get(SEED_VARIABLE)
    return random.getrandbits(32) if not chosen else int(chosen)


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """As long as the block lasts, ready tasks run in an order that follows from the seed.

    So does what the ``random`` module gives. Afterwards all is as it was before. Raises
    :exc:`RuntimeError` where this Trio cannot be made to.
    """
    scheduler: Any = getattr(trio._core, "_run", None)  # noqa: SLF001  # there is no public way
    source = getattr(scheduler, "_r", None)
    if source is None:
        raise RuntimeError(f"Trio {trio.__version__} cannot be made to schedule repeatably")
    flag = "_ALLOW_DETERMINISTIC_SCHEDULING"
    was, state, global_state = getattr(scheduler, flag), source.getstate(), random.getstate()
    # Without this the ready tasks are shuffled from an order that depends on addresses.
    setattr(scheduler, flag, True)
    source.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        setattr(scheduler, flag, was)
        source.setstate(state)
        random.setstate(global_state)


def check_clock(user: str) -> None:
    """Raise :exc:`RuntimeError` for a clock that does not jump; ``user`` is who wants one."""
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, MockClock) or clock.autojump_threshold == math.inf:
        raise RuntimeError(
            f"{user} wants a clock that jumps: trio.testing.MockClock(autojump_threshold=0), "
            "as pytest-trio's autojump_clock is"
        )


@contextmanager
def simulated_time() -> Iterator[None]:
    """As long as the block lasts, the clock stands still while a thread or a socket is waited for.

    Without this, whatever takes a moment of real time (a file, a database, a process) would take
    all the time that there is: the clock jumps whenever no task can go on.
    """
    clock: Any = trio.lowlevel.current_clock()
    threads = trio.to_thread.current_default_thread_limiter()
    before = clock._autojump  # noqa: SLF001
    # One of them is Trio's own, which may not have begun to wait.
    others = max(_waiting(), 1)
    waited = in_all = 0.0

    def jump() -> None:
        nonlocal waited, in_all
        patience = 0.0
        if threads.borrowed_tokens:
            patience = THREADS
        elif _waiting() > others:
            patience = SOCKETS
        if waited < patience and in_all < IN_ALL:
            began = time.perf_counter()
            time.sleep(TICK)
            passed = time.perf_counter() - began
            waited, in_all = waited + passed, in_all + passed
        else:
            waited = 0.0
            before()

    # There is no public way to be asked, nor another clock that trio asks.
    clock._autojump = jump  # noqa: SLF001
    try:
        yield
    finally:
        clock._autojump = before  # noqa: SLF001


def _waiting() -> int:
    """How many tasks wait for sockets, pipes and processes."""
    found = trio.lowlevel.current_statistics().io_statistics
    names = ("tasks_waiting", "tasks_waiting_read", "tasks_waiting_write")
    return sum(getattr(found, name, 0) for name in names)


def run_repeatably(function: Callable[..., Awaitable[T]], *args: Any, seed: int | None = None) -> T:
    """``trio.run`` on a clock that jumps whenever everybody waits, the same for the same seed.

    For tests that are no async functions, those of Hypothesis for instance. Without a ``seed``, it
    is the one of ``--streamrpc-seed``, or any.
    """
    clock = MockClock(autojump_threshold=0)
    with repeatable(choose_seed(seed)):
        return trio.run(function, *args, clock=clock)
