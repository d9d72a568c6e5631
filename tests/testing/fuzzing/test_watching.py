"""watching.py: bugs as they are made are found, and what is only unusual is not held against it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import settings

from tests.testing.fuzzing.careless import FAULTS, IgnoresItsEnd
from tests.testing.fuzzing.pasted import run
from tests.testing.fuzzing.unusual import SERVICES
from trio_streamrpc import ConnectionLost, rpc
from trio_streamrpc.testing import (
    ServiceFalsified,
    check_service,
    find_failures,
    fuzz,
    run_repeatably,
    take,
)
from trio_streamrpc.testing.fuzzing.searching import Found

ROOT = Path(__file__).parent.parent.parent.parent
#: All of it where there is time.
EXAMPLES = 2_000 if settings().max_examples > 100 else 30


def name_of(each: Any) -> str:
    return getattr(each, "__name__", str(each))


@pytest.mark.parametrize(("service", "method", "fault"), FAULTS, ids=name_of)
def test_a_bug_is_found_and_its_test_fails(service: Any, method: str, fault: str) -> None:
    found: dict[tuple[str, str], Found] = {}
    # Mostly a few will do. Which they are depends on what else was imported: Hypothesis looks into
    # modules for values.
    for examples in (20, 500):
        report = find_failures(service, examples=examples)
        found = {(each.failure.method, each.failure.fault.name): each for each in report.found}
        if (method, fault) in found:
            break
    smallest = found[method, fault]
    assert len(smallest.plan.calls) <= 3
    with pytest.raises(ServiceFalsified) as caught:
        run(smallest)
        pytest.fail(f"it passes:\n{smallest.code}")
    assert smallest.failure.key in [each.key for each in caught.value.failures]


@pytest.mark.parametrize("service", SERVICES, ids=name_of)
def test_what_is_only_unusual_is_let_be(service: Any) -> None:
    assert not fuzz(service, examples=EXAMPLES)


def test_generators_that_do_not_end_are_told_in_the_report_alone() -> None:
    name = IgnoresItsEnd.__module__ + ":" + IgnoresItsEnd.__name__
    done = subprocess.run(
        [sys.executable, "-m", "trio_streamrpc", "fuzz", name, "--examples", "10"],
        capture_output=True,
        check=False,
        cwd=ROOT,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == ""


class Busy:
    """It takes whatever is thrown into it, and goes on."""

    @rpc
    async def spin(self) -> None:
        while True:
            try:
                await trio.lowlevel.checkpoint()
            except BaseException:
                continue


def test_what_takes_whatever_ends_it_is_ended() -> None:
    async def use() -> None:
        async with check_service(Busy) as connection:
            await connection.call("spin")

    with pytest.raises(ServiceFalsified, match=r"spin\(\) keeps the scheduler busy"):
        run_repeatably(use)


class Fails:
    def __init__(self) -> None:
        raise ValueError("no such database")


def test_a_service_that_cannot_be_made_is_no_finding() -> None:
    async def use() -> None:
        async with check_service(Fails):
            pytest.fail("the block must not begin")

    for attempt in (lambda: run_repeatably(use), lambda: fuzz(Fails)):
        with pytest.raises(ValueError, match="no such database"):
            attempt()


def test_what_the_block_raises_is_no_business_of_the_services() -> None:
    async def use() -> None:
        async with check_service(SERVICES[0]):
            raise ConnectionLost("of the block")

    with pytest.raises(ConnectionLost, match="of the block"):
        run_repeatably(use)


class Remembers:
    """What it keeps grows with what is taken."""

    @rpc
    async def count(self) -> AsyncIterator[int]:
        seen: list[int] = []
        while True:
            seen.append(len(seen))
            yield seen[-1]
            await trio.sleep(0.5)


def test_a_stream_that_is_read_beside_one_that_is_not() -> None:
    async def use() -> None:
        async with check_service(Remembers) as connection:
            async with connection.stream("count"), connection.stream("count") as read:
                assert len(await take(read, 60)) == 60

    run_repeatably(use)


async def test_another_clock() -> None:
    with pytest.raises(RuntimeError, match=r"check_service\(\) wants a clock that jumps"):
        async with check_service(Remembers):
            pytest.fail("the block must not begin")
