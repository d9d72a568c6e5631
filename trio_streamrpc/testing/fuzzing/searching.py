"""The search: examples from Hypothesis until time or number is up, each failure made small."""

from __future__ import annotations

import gc
import inspect
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cattrs
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Flaky
from hypothesis.reporting import with_reporter

from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.limits import Limits
from trio_streamrpc.testing.fuzzing.checking import LIMITS, PATIENCE, ServiceMaker, open_service
from trio_streamrpc.testing.fuzzing.failures import Failure, Fault, ServiceFalsified
from trio_streamrpc.testing.fuzzing.pasting import code_of
from trio_streamrpc.testing.fuzzing.plans import Plan, alone, plans, smaller
from trio_streamrpc.testing.fuzzing.running import Setting, run_plan

__all__ = ["Found", "Report", "find_failures", "fuzz"]

#: What is tried where neither time nor number was said.
EXAMPLES = 500

#: How long examples take is the service's business. (Any: pyright takes its class for another.)
EVERY_CHECK: Any = list(HealthCheck)

#: A method that is found to do this is not called again: each time would take as long.
ENDLESS = (Fault.SPINS, Fault.HANGS)


@dataclass(frozen=True)
class Found:
    """A failure, and the smallest plan that leads to it."""

    failure: Failure
    plan: Plan
    code: str
    """A test that fails like this, to be pasted."""

    flaky: bool = False
    """Whether it did not fail each time: something in the service differs by itself."""


@dataclass
class Report:
    """What a search has found."""

    service: str
    seed: int
    found: list[Found] = field(default_factory=list)
    examples: int = 0
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return len(self.found) > 0

    def __str__(self) -> str:
        tried = f"{self.examples} examples in {self.seconds:.1f} s, seed {self.seed}"
        if not self.found:
            return f"{self.service}: nothing found in {tried}"
        parts = [f"{self.service}: falsified in {len(self.found)} ways ({tried})"]
        for number, each in enumerate(self.found, 1):
            flaky = "\n(not each time: something in it differs by itself)" * each.flaky
            raised = f"\n\n{each.failure.traceback.rstrip()}" * bool(each.failure.traceback)
            parts.append(f"{number}. {each.failure}{flaky}{raised}\n\n{_indented(each.code)}")
        return "\n\n".join(parts)


def fuzz(
    service: ServiceMaker,
    *,
    seconds: float | None = None,
    examples: int | None = None,
    methods: Sequence[str] = (),
    seed: int = 0,
    limits: Limits = LIMITS,
    converter: cattrs.Converter | None = None,
    patience: float = PATIENCE,
) -> Report:
    """Call a service in every way that its annotations allow, and some that they do not.

    ``service`` is its class, or a function that makes it or an async context manager around it, so
    that each example has a new one; one that is given itself is used for all of them. What the
    context manager raises when it is left is held against the service, too. ``methods``
    are the dotted names of those that are called, all of them by default. The search ends after so
    many ``seconds``, or after so many ``examples``; what is found is then made small, which takes
    some seconds more for each failure. The same ``seed`` tries the same examples, in a process that
    has imported the same modules: Hypothesis looks for values in them.

    Arguments are of the annotated types and at their edges, or of other types, which is to be
    ``INVALID_ARGUMENT``. Calls run at the same time, are cancelled at any moment, and are left in
    the middle; consumers stall; networks are late, stand still and break. Time is simulated.

    Gives the report if nothing was found, and raises :exc:`.ServiceFalsified` with it if something
    was; see :func:`.check_service` for what that is. Not to be called from within Trio.
    """
    report = find_failures(
        service, seconds=seconds, examples=examples, methods=methods, seed=seed, limits=limits,
        converter=converter, patience=patience,
    )  # fmt: skip
    if report:
        raise ServiceFalsified([each.failure for each in report.found], f"\n{report}")
    return report


def find_failures(
    service: ServiceMaker,
    *,
    seconds: float | None = None,
    examples: int | None = None,
    methods: Sequence[str] = (),
    seed: int = 0,
    limits: Limits = LIMITS,
    converter: cattrs.Converter | None = None,
    patience: float = PATIENCE,
) -> Report:
    """As :func:`fuzz`, and gives the report whatever is in it."""
    table = trio.run(_table_of, service)
    for name in methods:
        if name not in table:
            raise ValueError(f"{table.label} has no method {name!r}")
    search = _Search(
        Setting(service, limits, converter, patience),
        table,
        list(methods or table),
        Report(table.label, seed),
        most=(EXAMPLES if seconds is None else 10**9) if examples is None else examples,
        deadline=time.monotonic() + (math.inf if seconds is None else seconds),
    )
    with _quiet():
        search.run()
    return search.report


async def _table_of(service: ServiceMaker) -> MethodTable:
    async with open_service(service) as made:
        return MethodTable.of(made)


class _Falsified(Exception):
    """Raised for the failure that a round is about."""


class _Search:
    """Rounds of Hypothesis: one that finds something makes it small, and the next looks on."""

    def __init__(
        self,
        setting: Setting,
        table: MethodTable,
        methods: list[str],
        report: Report,
        *,
        most: int,
        deadline: float,
    ) -> None:
        self.setting = setting
        self.table = table
        #: Those that are still called.
        self.methods = methods
        self.report = report
        self.most = most
        self.deadline = deadline
        #: How many examples a round has at most: Hypothesis comes to its end when time is up, too.
        self.round = 10_000 if deadline == math.inf else 100
        #: The failures of earlier rounds.
        self.known: set[tuple[str, str, str]] = set()
        #: What this round is about, once it has found something; and the smallest plan so far.
        self.target: tuple[str, str, str] | None = None
        self.found: tuple[Failure, Plan] | None = None

    @property
    def is_over(self) -> bool:
        return self.report.examples >= self.most or time.monotonic() >= self.deadline

    def run(self) -> None:
        began = time.monotonic()
        number = 0
        while self.methods and not self.is_over:
            before = self.report.examples
            found, flaky = self.run_round(number)
            if found is not None:
                self.add(*found, flaky=flaky)
            elif self.report.examples == before:
                break  # Hypothesis has nothing left that it has not tried
            number += 1
        self.report.seconds = time.monotonic() - began

    def add(self, failure: Failure, plan: Plan, *, flaky: bool) -> None:
        self.known.add(failure.key)
        if not flaky:
            failure, plan = self.smallest(failure, plan)
        code = code_of(self.setting, plan, failure)
        self.report.found.append(Found(failure, plan, code, flaky))
        if failure.fault in ENDLESS and failure.method in self.methods:
            self.methods.remove(failure.method)

    def smallest(self, failure: Failure, plan: Plan) -> tuple[Failure, Plan]:
        """The same without the calls that it does without: Hypothesis leaves some in place."""
        candidates = deque([*alone(plan, failure.method), *smaller(plan)])
        while candidates:
            candidate = candidates.popleft()
            for each in run_plan(self.setting, candidate):
                if each.key == failure.key:
                    failure, plan = each, candidate
                    candidates = deque(smaller(plan))
                    break
        return failure, plan

    def run_round(self, number: int) -> tuple[tuple[Failure, Plan] | None, bool]:
        """Look until something new is found, and whether it was not found each time."""
        self.target = self.found = None

        @seeded(self.report.seed * 1_000_003 + number)
        @settings(
            max_examples=min(self.most - self.report.examples, self.round),
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=EVERY_CHECK,
            print_blob=False,
            report_multiple_bugs=False,
        )
        @given(plans(self.table, methods=self.methods, converter=self.setting.converter))
        def example(plan: Plan) -> None:
            self.try_plan(plan)

        try:
            with with_reporter(_say_nothing):
                example()
        except _Falsified:
            pass
        except Flaky:
            return self.found, True
        return self.found, False

    def try_plan(self, plan: Plan) -> None:
        if self.target is None:
            if self.is_over:
                return
            self.report.examples += 1
        for failure in run_plan(self.setting, plan):
            if self.target is None and failure.key not in self.known:
                self.target = failure.key
            if failure.key == self.target:
                self.found = failure, plan
                raise _Falsified(str(failure))


@contextmanager
def _quiet() -> Iterator[None]:
    """Python and Trio are silent about generators that will not be closed: the report tells."""
    log, hook = logging.getLogger("trio.async_generator_errors"), sys.unraisablehook
    was = log.disabled

    def tell(unraisable: sys.UnraisableHookArgs) -> None:
        if not inspect.isasyncgen(unraisable.object):
            hook(unraisable)

    log.disabled, sys.unraisablehook = True, tell
    try:
        yield
        # Those that nobody has a reference to any more are to be closed now.
        gc.collect()
    finally:
        log.disabled, sys.unraisablehook = was, hook


def _say_nothing(text: object) -> None:
    """What is to be said stands in the report."""


def _indented(code: str) -> str:
    return "\n".join("    " + line if line else "" for line in code.splitlines())
