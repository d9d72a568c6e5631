"""keepalive.py: one task for many connections; what it does for one is in test_connection.py."""

from __future__ import annotations

import gc
import math
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_streamrpc.errors import RpcError
from trio_streamrpc.limits import Limits
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.runtime.keepalive import Keepalive, _Watch


class Silent:
    """A connection whose other side says nothing, unless it answers pings after a while."""

    def __init__(self, interval: float, patience: float, answers: bool = False) -> None:
        self.limits = Limits(ping_interval=interval, ping_timeout=patience)
        self.last_heard = trio.current_time()
        self.answers = answers
        self.writer = SimpleNamespace(since=None)
        self.endpoint: Any = SimpleNamespace(
            pings=True,
            stuck=(),
            ping=self._ping,
            codec=SimpleNamespace(null=None),
            assembly=SimpleNamespace(unfinished={}),
        )
        self.callee = SimpleNamespace(handlers=())
        self.pings: list[float] = []
        self.lost: list[tuple[float, str]] = []

    @property
    def alive(self) -> bool:
        return not self.lost

    def _ping(self, token: object) -> None:
        self.pings.append(trio.current_time())
        if self.answers:
            self.last_heard = trio.current_time() + 0.25

    def wake_writer(self) -> None:
        pass

    def lose(self, error: RpcError) -> None:
        self.lost.append((trio.current_time(), error.message))


def watch(keepalive: Keepalive, connection: Any) -> None:
    keepalive.watch(connection)


async def test_each_has_its_own_time(autojump_clock: MockClock) -> None:
    """R24."""
    start = trio.current_time()
    keepalive = Keepalive()
    slow, quick, answering = Silent(10, 5), Silent(1, 2), Silent(4, 4, answers=True)
    async with open_background_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        await trio.lowlevel.checkpoint()
        for each in (slow, quick, answering):
            watch(keepalive, each)
        await trio.sleep(14)
        late = Silent(0.5, 0.5)
        watch(keepalive, late)
        await trio.sleep(86)
    assert [each - start for each in quick.pings] == [1]
    assert quick.lost == [(start + 3, "nothing was heard for 3 s")]
    assert [each - start for each in slow.pings] == [10]
    assert slow.lost == [(start + 15, "nothing was heard for 15 s")]
    assert late.lost == [(start + 15, "nothing was heard for 1 s")]
    assert len(answering.pings) == 23
    assert answering.lost == []


async def test_one_that_is_forgotten_is_not_kept(autojump_clock: MockClock) -> None:
    keepalive = Keepalive()
    connection = Silent(10, 10)
    other = Silent(30, 10)
    seen = weakref.ref(connection)
    async with open_background_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        watch(keepalive, other)
        watch(keepalive, connection)
        await trio.sleep(1)
        keepalive.forget(connection)  # type: ignore[arg-type]
        keepalive.forget(connection)  # type: ignore[arg-type]  # another time is no harm
        pings, lost = connection.pings, connection.lost
        del connection
        gc.collect()
        assert seen() is None
        await trio.sleep(35)
        assert pings == []
        assert lost == []
        assert len(other.pings) == 1


async def test_clients_that_come_and_go(autojump_clock: MockClock) -> None:
    """However many, and however late they would have been looked at: what stays is watched on."""
    keepalive = Keepalive()
    stays = Silent(3000, 10)
    start = trio.current_time()
    before = watches()
    async with open_background_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        watch(keepalive, stays)
        for _ in range(10):
            some: list[Any] = [Silent(math.inf, math.inf) for _ in range(1000)]
            for each in some:
                watch(keepalive, each)
            await trio.lowlevel.checkpoint()
            for each in some:
                keepalive.forget(each)
        assert watches() - before <= 2500
        assert trio.current_time() == start
        await trio.sleep(3011)
    assert [each - start for each in stays.pings] == [3000]
    assert len(stays.lost) == 1


class Faulty(Silent):
    """A connection at which it fails, some time or other, to be looked at."""

    remote = "faulty"
    fails = False

    @property
    def alive(self) -> bool:
        if self.fails:
            raise RuntimeError("a fault")
        return super().alive


async def test_a_fault_is_one_connections(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 3: the others are looked after as ever."""
    keepalive = Keepalive()
    at_once, later, other = Faulty(5, 5), Faulty(5, 5), Silent(10, 5, answers=True)
    at_once.fails = True
    async with open_background_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        for each in (at_once, later, other):
            watch(keepalive, each)
        assert len(at_once.lost) == 1
        later.fails = True
        await trio.sleep(35)
        assert len(later.lost) == 1
    assert later.lost[0][1] == "the connection failed: RuntimeError"
    assert len(other.pings) == 3
    assert len(caplog.records) == 2


async def test_a_process_that_stands_still_after_it_has_asked(mock_clock: MockClock) -> None:
    """What has come meanwhile is read before anybody is given up."""
    keepalive = Keepalive()
    many = [Silent(1, 1) for _ in range(20)]

    async def read(connection: Silent) -> None:
        # The answer is there when the process goes on, as is the deadline.
        await trio.sleep(1.5)
        connection.last_heard = trio.current_time()

    async with open_background_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        await wait_all_tasks_blocked()
        for each in many:
            watch(keepalive, each)
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        for each in many:
            assert len(each.pings) == 1
            nursery.start_soon(read, each)
        await wait_all_tasks_blocked()
        mock_clock.jump(100)
        await wait_all_tasks_blocked()
    assert [each.lost for each in many] == [[] for _ in many]


def watches() -> int:
    """How many there are, of whatever keepalive."""
    return sum(type(each) is _Watch for each in gc.get_objects())


async def test_a_message_that_cannot_be_written(autojump_clock: MockClock) -> None:
    """R24: however much is heard meanwhile."""
    keepalive = Keepalive()
    connection = Silent(10, 7, answers=True)
    start = trio.current_time()
    async with open_background_nursery() as nursery:
        nursery.start_soon(keepalive.run)
        watch(keepalive, connection)
        await trio.sleep(3)
        connection.writer.since = trio.current_time()
        connection.last_heard = trio.current_time()
        await trio.sleep(20)
    assert connection.lost == [(start + 10, "a message could not be written in 7 s")]
