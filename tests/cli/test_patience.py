"""patience.py: what ends a command early ends its innermost part, and then the next."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_streamrpc.cli.failures import TimeUp
from trio_streamrpc.cli.patience import Patience


async def work(patience: Patience, left: list[str], meanwhile: Callable[[], None]) -> None:
    """Three parts within each other; the middle one takes its time to be left."""
    async with patience.listening():
        try:
            with patience.stretch():
                try:
                    with patience.stretch():
                        meanwhile()
                        await trio.sleep_forever()
                finally:
                    left.append("inner")
                meanwhile()
                await trio.sleep(0.2)
                left.append("middle, in order")
        finally:
            left.append("outer")
        left.append("all")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal(number: int) -> None:
    left: list[str] = []
    signals = iter([number])
    with pytest.raises(SystemExit) as ended:
        await work(Patience(None), left, lambda: signal.raise_signal(next(signals, 0) or 18))
    assert ended.value.code == 128 + number
    assert left == ["inner", "middle, in order", "outer", "all"]


async def test_a_second_signal_does_not_wait() -> None:
    left: list[str] = []
    with pytest.raises(SystemExit) as ended:
        await work(Patience(None), left, lambda: signal.raise_signal(signal.SIGINT))
    assert ended.value.code == 130
    assert left == ["inner", "outer"]


async def test_the_time_is_up() -> None:
    left: list[str] = []
    with pytest.raises(TimeUp, match=r"not done within 0\.1 s"):
        await work(Patience(0.1), left, lambda: None)
    assert left == ["inner", "middle, in order", "outer", "all"]


async def test_what_is_done_in_time_is_not_late() -> None:
    async with Patience(0.1).listening() as patience:
        with patience.stretch():
            pass
        # Leaving takes as long as it takes.
        await trio.sleep(0.2)


async def test_nobody_is_left_to_work_for() -> None:
    left: list[str] = []
    patience = Patience(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, patience, left, lambda: None)
        await wait_all_tasks_blocked()
        patience.end()
    assert left == ["inner", "middle, in order", "outer", "all"]


async def test_signals_are_handled_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with Patience(None).listening():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
