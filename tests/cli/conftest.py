"""What the command line's tests share: servers in a thread, and commands in place."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from tests.cli.market import Market
from trio_streamrpc import serve
from trio_streamrpc.cli import main


@dataclass
class Run:
    """How a command has ended, and what it has printed."""

    code: object
    out: str
    err: str


#: Runs a command in place.
Invoke = Callable[..., Run]


@dataclass
class Served:
    """A service that is served by a thread of its own."""

    url: str
    market: Market
    stop: Callable[[], None] = field(repr=False, default=lambda: None)


@contextmanager
def serving(
    service: object = None, url: str = "ws://127.0.0.1:0", **options: Any
) -> Iterator[Served]:
    """Serve a market, or something else, from another thread for as long as the block lasts."""
    started = threading.Event()
    found: list[Any] = []
    market = Market()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            start = functools.partial(serve, service or market, url, **options)
            server = await nursery.start(start)
            found[:] = [server.url, trio.lowlevel.current_trio_token(), nursery.cancel_scope]
            started.set()

    def work() -> None:
        try:
            trio.run(run)
        finally:
            started.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert started.wait(20)
        url, token, scope = found

        def stop() -> None:
            token.run_sync_soon(scope.cancel)
            thread.join(20)

        yield Served(url, market, stop)
    finally:
        if thread.is_alive():
            stop()
    assert not thread.is_alive()


@pytest.fixture(scope="package")
def shared() -> Iterator[Served]:
    with serving(reflection=True) as served:
        yield served


@pytest.fixture(scope="package")
def shared_silent() -> Iterator[Served]:
    with serving() as served:
        yield served


def fresh(served: Served) -> Served:
    for each in (served.market.ended, served.market.runs):
        each.clear()
    served.market.started.clear()
    return served


@pytest.fixture
def served(shared: Served) -> Served:
    """A market that tells what it has."""
    return fresh(shared)


@pytest.fixture
def silent(shared_silent: Served) -> Served:
    """One that does not."""
    return fresh(shared_silent)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Invoke:
    """Runs a command in this process."""

    def invoke(*args: str) -> Run:
        monkeypatch.setattr(sys, "argv", ["trio-streamrpc", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        return Run(ended.value.code, *capfd.readouterr())

    return invoke
