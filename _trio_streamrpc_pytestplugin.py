"""The pytest plugin of trio_streamrpc: ``streamrpc_pair`` and ``--streamrpc-seed``.

It stands outside of the package, and imports nothing of it before a test asks for it: pytest loads
plugins before anything else, and what is imported by then is measured by no coverage. (Hypothesis
has its plugin in such a place for the same reason.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

#: As in ``trio_streamrpc.testing.scheduling``, which is not to be imported here.
SEED_VARIABLE = "TRIO_STREAMRPC_SEED"
SIMULATION = "trio_streamrpc.testing.simulation"

# What the checks assert is shown as what tests assert is.
pytest.register_assert_rewrite(
    "trio_streamrpc.testing.conformance", "trio_streamrpc.testing.machines"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("streamrpc", "trio_streamrpc").addoption(
        "--streamrpc-seed",
        type=int,
        metavar="SEED",
        help="the seed of simulations and pairs that name none: what a failure has printed",
    )


def pytest_configure(config: pytest.Config) -> None:
    seed = config.getoption("--streamrpc-seed")
    if seed is None:
        return
    before = os.environ.get(SEED_VARIABLE)

    def restore() -> None:
        if before is None:
            os.environ.pop(SEED_VARIABLE, None)
        else:
            os.environ[SEED_VARIABLE] = before

    os.environ[SEED_VARIABLE] = str(seed)
    config.add_cleanup(restore)


def pytest_report_header(config: pytest.Config) -> str | None:
    seed = config.getoption("--streamrpc-seed")
    return None if seed is None else f"streamrpc: --streamrpc-seed={seed}"


@pytest.fixture
def streamrpc_pair() -> Callable[..., AbstractAsyncContextManager[Any]]:
    """``async with streamrpc_pair(Service()) as connection:``, with open_pair()'s arguments.

    Trio runs ready tasks in an order that follows from a seed, which a failing test tells;
    ``--streamrpc-seed`` has them run in that order again.
    """
    from trio_streamrpc.testing.simulation import open_seeded_pair

    return open_seeded_pair


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    simulation = sys.modules.get(SIMULATION)
    if simulation is not None:
        simulation.forget_runs()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failing test tells how its last simulation went, unless its exception has done so."""
    report = yield
    simulation = sys.modules.get(SIMULATION)
    run = None if simulation is None else simulation.last_run()
    if report.when == "call" and report.failed and run is not None:
        told = str(run)
        if told.splitlines()[0] not in report.longreprtext:
            report.sections.append(("streamrpc", told))
    return report
