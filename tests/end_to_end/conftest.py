"""After each test over real sockets nothing is left of it: no task, no file descriptor.

And the ways in which the tests of conformance open their connections.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.end_to_end.innocent import Beside
from tests.end_to_end.openers import OPENERS, Opener
from trio_streamrpc import Connection

FILES = "/proc/self/fd"


def descriptors() -> dict[str, str]:
    """What is open: number → what it is."""
    found = {}
    for number in os.listdir(FILES) if os.path.isdir(FILES) else ():
        with contextlib.suppress(OSError):  # the one that the listing itself took
            found[number] = os.readlink(f"{FILES}/{number}")
    return found


@pytest.fixture(autouse=True)
async def baseline() -> AsyncIterator[None]:
    """When the test is over, all is as it was before."""
    # Files that something else has forgotten are not this test's.
    gc.collect()
    before = descriptors()
    tasks = trio.lowlevel.current_statistics().tasks_living
    yield
    with trio.move_on_after(15):
        while len(descriptors()) > len(before) or tasks_living() > tasks:  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert tasks_living() <= tasks
    left = {number: name for number, name in descriptors().items() if number not in before}
    assert len(descriptors()) <= len(before), f"left open: {left}"


@pytest.fixture(params=["ws-msgpack", "ws-json", "tcp-msgpack", "tcp-json"])
def beside(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Beside:
    """For hostile cases: servers with an innocent client, which has to be served throughout."""
    kind, encoding = request.param.split("-")
    limit = 600 if request.config.getoption("--full") else 60
    return Beside(kind, encoding, caplog, limit)


def tasks_living() -> int:
    return trio.lowlevel.current_statistics().tasks_living


@pytest.fixture(params=["msgpack", "json"])
def encoding(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(params=[*OPENERS.values()], ids=[*OPENERS])
def opened(request: pytest.FixtureRequest, encoding: str) -> Opener:
    """Opens a connection to a service, in each way that there is."""

    @asynccontextmanager
    async def open_it(service: object, **options: Any) -> AsyncIterator[Connection]:
        with trio.fail_after(20):
            async with request.param(service, encoding, **options) as connection:
                yield connection

    return open_it
