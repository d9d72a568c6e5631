"""How much is tried: a part by default, all of it where there is time.

Hypothesis searches for long with ``HYPOTHESIS_PROFILE=long``, or ``--hypothesis-profile=long``,
which wins. What goes through every byte, or through a million frames, does so with ``--full``, and
nothing else is run then.
"""

import gc
import os
import signal
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# No deadline: how long an example takes says more about the machine than about the code.
_COMMON = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])

# The same examples each time: what is green stays green until something changes.
settings.register_profile("quick", _COMMON, derandomize=True, max_examples=100)
settings.register_profile("long", _COMMON, max_examples=5_000, stateful_step_count=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


# What a shell runs in the background ignores Ctrl-C, and so would what the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="only what otherwise is tried in part (every byte, a million frames), and in full",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        chosen = [item for item in items if "full" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


def pytest_collection_finish() -> None:
    """What is there now stays: garbage is looked for in what comes later.

    Without this a collection takes a sixth of a second, and tests of what is left behind make many.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, pytest.TestReport]:
    """What a test has logged can be sent from one process to another: lone surrogates cannot."""
    report: pytest.TestReport = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for all of it."""
    return bool(request.config.getoption("--full"))
