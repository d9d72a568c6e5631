"""Trio's scheduler, made to do the same each time.

Trio runs the tasks that are ready in an order that it draws anew each time, on purpose: nobody is
to rely on it. A simulation that is to be repeated has to repeat that order as well. There is no
public way to do so; what is used here is what Hypothesis and pytest-trio use, in this one place.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import trio
from trio.testing import MockClock

__all__ = ["SEED_VARIABLE", "choose_seed", "repeatable", "run_repeatably"]

T = TypeVar("T")

#: The environment variable with the seed of what names none: what ``--streamrpc-seed`` sets.
SEED_VARIABLE: Final = "TRIO_STREAMRPC_SEED"


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


def run_repeatably(function: Callable[..., Awaitable[T]], *args: Any, seed: int | None = None) -> T:
    """``trio.run`` on a clock that jumps whenever everybody waits, the same for the same seed.

    For tests that are no async functions, those of Hypothesis for instance. Without a ``seed``, it
    is the one of ``--streamrpc-seed``, or any.
    """
    clock = MockClock(autojump_threshold=0)
    with repeatable(choose_seed(seed)):
        return trio.run(function, *args, clock=clock)
