"""fuzzing/: what is wrong with a service is found, made small, and told as a test that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import cattrs
import pytest
import trio
from hypothesis import settings

from tests.testing.fuzzing.pasted import run
from tests.testing.fuzzing.services import BUGS, Buggy, Busy, Correct, Stubborn
from trio_streamrpc import Limits, Window, rpc
from trio_streamrpc.testing import (
    Fault,
    ServiceFalsified,
    check_service,
    find_failures,
    fuzz,
    run_repeatably,
)
from trio_streamrpc.testing.fuzzing.searching import Report

#: All 2,000 examples where there is time.
EXAMPLES = 2_000 if settings().max_examples > 100 else 100


@pytest.fixture(scope="module")
def report() -> Report:
    return find_failures(Buggy, examples=200, seed=1)


@pytest.mark.parametrize(("method", "fault"), BUGS.items())
def test_each_bug_is_found_and_small(method: str, fault: str, report: Report) -> None:
    found = {(each.failure.method, each.failure.fault.name): each for each in report.found}
    assert (method, fault) in found
    calls = found[method, fault].plan.calls
    assert {call.method for call in calls} == {method}
    # Two that wait for each other are two; what happens by chance may take another beside it.
    assert len(calls) <= 3


def test_nothing_else_is_found(report: Report) -> None:
    assert {(each.failure.method, each.failure.fault.name) for each in report.found} == {
        *BUGS.items()
    }


def test_one_that_waits_for_nothing() -> None:
    [found] = find_failures(Busy, examples=10).found
    assert found.failure.fault is Fault.SPINS
    assert [call.args for call in found.plan.calls] == [(False,)]


def test_the_code_can_be_pasted(report: Report) -> None:
    assert len(report.found) >= len(BUGS)
    for found in report.found:
        with pytest.raises(ServiceFalsified) as caught:
            run(found)
            pytest.fail(f"it passes:\n{found.code}")
        assert found.failure.key in [each.key for each in caught.value.failures]


def test_the_report_tells_all_of_it(report: Report) -> None:
    text = str(report)
    assert text.startswith(f"Buggy: falsified in {len(report.found)} ways (")
    assert "ratio() raised an exception that it does not declare: ZeroDivisionError" in text
    assert "in ratio\n    return part / whole" in text
    assert "runtime/handlers.py" not in text
    assert "            await connection.call('ratio', 0, 0)" in text


def test_nothing_is_found_in_a_service_that_is_right() -> None:
    report = fuzz(Correct, examples=EXAMPLES)
    assert report.examples == EXAMPLES
    assert str(report).startswith(f"Correct: nothing found in {EXAMPLES} examples in ")


def test_what_was_found_is_raised() -> None:
    with pytest.raises(ServiceFalsified, match="falsified in 1 ways") as caught:
        fuzz(Buggy, examples=50, methods=["ratio"])
    [failure] = caught.value.failures
    assert failure.fault is Fault.UNDECLARED
    assert failure.exception == "ZeroDivisionError"


def test_the_same_seed_finds_the_same() -> None:
    reports = [find_failures(Buggy, examples=10, methods=["first"]) for _ in range(2)]
    assert [each.plan for each in reports[0].found] == [each.plan for each in reports[1].found]
    assert reports[0].examples == reports[1].examples


def test_time_is_kept_to() -> None:
    report = find_failures(Correct, seconds=1.0)
    assert report.examples > 0
    assert not report
    assert report.seconds < 30


@pytest.mark.parametrize(("method", "fault"), [("spin", Fault.SPINS), ("wait", Fault.HANGS)])
def test_what_cannot_be_ended_is_ended(method: str, fault: Fault) -> None:
    async def use() -> None:
        async with check_service(Stubborn) as connection:
            await connection.call(method)

    with pytest.raises(ServiceFalsified) as caught:
        run_repeatably(use)
    assert fault in {each.fault for each in caught.value.failures}


def test_a_method_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="no method 'no'"):
        fuzz(Buggy, methods=["no"])


class Counted:
    made = 0

    def __init__(self, *, open: bool) -> None:
        Counted.made += 1
        self.open = open

    @rpc
    async def is_open(self) -> bool:
        if not self.open:
            raise ValueError("it was closed")
        return True


def make() -> Counted:
    return Counted(open=True)


async def make_async() -> Counted:
    await trio.lowlevel.checkpoint()
    return Counted(open=True)


@asynccontextmanager
async def hold() -> AsyncIterator[Counted]:
    service = Counted(open=True)
    try:
        yield service
    finally:
        service.open = False


@pytest.mark.parametrize("service", [make, make_async, hold])
def test_each_example_has_a_new_service(service: Callable[[], Any]) -> None:
    Counted.made = 0
    report = fuzz(service, examples=10)
    # One more, to see what it has.
    assert Counted.made == report.examples + 1


def test_one_that_is_given_is_used_for_all() -> None:
    Counted.made = 0
    fuzz(Counted(open=True), examples=5)
    assert Counted.made == 1
    report = find_failures(Counted(open=False), examples=5)
    assert "# service is to be what the fuzzer had.\n" in str(report)
    assert "check_service(service) as connection" in str(report)
    with pytest.raises(ServiceFalsified):
        run(report.found[0], service=Counted(open=False))


def test_what_it_was_fuzzed_with_is_in_the_test() -> None:
    given = Limits(window=Window(2, 100))
    converter = cattrs.Converter()
    report = find_failures(
        partial(Counted, open=False), examples=5, limits=given, converter=converter, patience=100
    )
    for told in (
        "limits=Limits(window=Window(items=2, bytes=100)",
        "converter=converter, patience",
    ):
        assert told in str(report)
    with pytest.raises(ServiceFalsified):
        run(report.found[0], service=partial(Counted, open=False), converter=converter)


def test_a_mapping_is_a_service() -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    report = find_failures({"math": {"add": add}}, examples=30)
    # An int of 64 bits and another one may be more than 64 bits.
    assert {each.failure.fault for each in report.found} <= {Fault.WRONG_RESULT, Fault.UNDECLARED}
