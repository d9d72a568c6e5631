"""As much as the wire allows, of what costs the server: it is bounded, and nobody else notices."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.lowlevel

from tests.end_to_end.innocent import (
    EACH_TRANSPORT,
    LIMITS,
    PATIENCE,
    Beside,
    Scene,
    Target,
    ends,
    is_told,
    memory_growing_by_at_most,
    serves_on,
)
from tests.end_to_end.network import reset, until
from tests.transports.rawpeer import RawPeer
from tests.transports.rawsocket import PING, RawSocket, frame
from trio_streamrpc import Limits, Window, rpc

pytestmark = EACH_TRANSPORT

MAX_CALLS = 4


class Gauge(Target):
    """How many handlers there are at once, from their start until their cleanup has run."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.most = 0
        self.started = 0

    def _begin(self) -> None:
        self.started += 1
        self.now += 1
        self.most = max(self.most, self.now)

    async def _clean_up(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.01)
        self.now -= 1

    @rpc
    async def slow(self) -> None:
        self._begin()
        try:
            await trio.sleep_forever()
        finally:
            await self._clean_up()

    @rpc
    async def slow_total(self, numbers: AsyncIterable[int]) -> int:
        self._begin()
        try:
            return sum([number async for number in numbers])
        finally:
            await self._clean_up()


def limits(**more: Any) -> Limits:
    return Limits(max_calls=MAX_CALLS, close_timeout=1, cleanup=1, **more)


async def hear_finals(raw: RawPeer, count: int) -> dict[int, str]:
    """The final frames of so many calls: their codes by their ids."""
    codes: dict[int, str] = {}
    while len(codes) < count:
        final = await raw.hears("error", "result")
        assert final["id"] not in codes, "a second final frame"
        codes[final["id"]] = final["error"]["code"]
    return codes


async def most_tasks(scene: Scene, done: trio.Event) -> int:
    """How many tasks there were at once, above what there were at first."""
    before = most = trio.lowlevel.current_statistics().tasks_living
    while not done.is_set():
        most = max(most, trio.lowlevel.current_statistics().tasks_living)
        await trio.lowlevel.checkpoint()
    return most - before


async def test_call_and_cancel_as_fast_as_the_wire_allows(beside: Beside, full: bool) -> None:
    """R26: what runs, and what still cleans up, never is more than max_calls."""
    count = 20_000 if full else 1000
    service = Gauge()
    async with beside(service, limits(violation_budget=10**9)) as scene, scene.greeted() as raw:

        async def storm() -> None:
            for first in range(0, count, 10):
                ids = range(2 * first + 1, 2 * first + 21, 2)
                calls = [{"type": "call", "id": id, "method": "slow"} for id in ids]
                cancels = [{"type": "cancel", "id": id} for id in ids]
                if first % 20:
                    # Some are cancelled before they could start, ...
                    await raw.says(*calls, *cancels)
                else:
                    # ... and some once they have.
                    await raw.says(*calls)
                    await trio.sleep(0.001)
                    await raw.says(*cancels)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(storm)
            codes = await hear_finals(raw, count)
        assert sorted(codes) == list(range(1, 2 * count, 2))
        assert set(codes.values()) == {"CANCELLED", "RESOURCE_EXHAUSTED"}
        assert 0 < service.most <= MAX_CALLS
        # What was refused was not started, and what was started had stopped.
        ran = [id for id, code in codes.items() if code == "CANCELLED"]
        assert MAX_CALLS < service.started <= len(ran)
        assert service.now == 0
        await serves_on(raw, 2 * count + 1)


async def test_call_and_cancel_is_not_borne_for_ever(beside: Beside) -> None:
    """R26: calls beyond max_calls are violations."""
    service = Gauge()
    async with beside(service, limits(violation_refill=0.1)) as scene, scene.greeted() as raw:
        with suppress(trio.BrokenResourceError):
            for first in range(1, 2001, 20):
                ids = range(first, first + 20, 2)
                await raw.says(*[{"type": "call", "id": id, "method": "slow"} for id in ids])
                await raw.says(*[{"type": "cancel", "id": id} for id in ids])
        is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1008)
        assert service.most <= MAX_CALLS


async def test_violations_in_the_place_of_cancels(beside: Beside, full: bool) -> None:
    """R16, R26: a handler whose upload breaks the rules keeps its place until it has cleaned up."""
    count = 5000 if full else 200
    service = Gauge()
    window = Window(2, 1000)
    many = limits(window=window, max_window=window, max_uploads=10_000, violation_budget=10**9)
    async with beside(service, many) as scene, scene.greeted() as raw:

        async def storm() -> None:
            for id in range(1, 4 * count, 4):
                upload = {"args": [None], "refs": [[0, "stream", id + 2]]}
                await raw.says(
                    {"type": "call", "id": id, "method": "slow_total", **upload},
                    {"type": "chunk", "id": id + 2, "items": [1, 2, 3], "size": 3},
                    {"type": "end", "id": id + 2},
                )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(storm)
            codes = await hear_finals(raw, count)
        assert set(codes.values()) == {"FLOW_CONTROL", "RESOURCE_EXHAUSTED"}
        assert 0 < service.most <= MAX_CALLS
        assert service.now == 0


async def test_no_task_is_started_for_calls_beyond_max_calls(beside: Beside) -> None:
    """R26."""
    count = 1000
    service = Gauge()
    async with beside(service, limits(violation_budget=10**9)) as scene, scene.greeted() as raw:
        done = trio.Event()
        most = -1

        async def watch() -> None:
            nonlocal most
            most = await most_tasks(scene, done)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.lowlevel.checkpoint()
            calls = [{"type": "call", "id": id, "method": "slow"} for id in range(1, 2 * count, 2)]
            await raw.says(*calls)
            codes = await hear_finals(raw, count - MAX_CALLS)
            # One begins after the other, and the refusals may be faster.
            await until(lambda: service.started == MAX_CALLS)
            done.set()
        assert set(codes.values()) == {"RESOURCE_EXHAUSTED"}
        assert service.started == service.now == MAX_CALLS
        # A task for each of them, and one that waits for work; the watcher itself.
        assert most <= MAX_CALLS + 3


@pytest.mark.parametrize("what", ["the protocol's", "the transport's"])
async def test_pings_of_a_peer_that_reads_nothing(what: str, beside: Beside) -> None:
    """R24: it is not read any more, memory stays flat, and then it is given up."""
    some = Limits(
        max_waiting_control_bytes=50_000, ping_interval=0.5, ping_timeout=0.5, close_timeout=0.5
    )
    async with beside(limits=some) as scene, scene.greeted() as raw:
        flood = raw.says_so(*[{"type": "ping", "token": "x" * 100}] * 100)
        if what == "the transport's" and isinstance(raw, RawSocket):
            flood = frame(PING, b"x" * 120) * 100
        sent = 0
        with memory_growing_by_at_most(4_000_000):
            with pytest.raises(trio.BrokenResourceError):
                with trio.fail_after(10):
                    while True:
                        await raw.send(flood)
                        sent += len(flood)
        assert sent > 50_000


async def test_a_million_frames_that_say_nothing(beside: Beside, full: bool) -> None:
    """R4: unknown kinds that are to be ignored, pongs, cancels and grants of what is over."""
    async with beside(limits=Limits(close_timeout=1)) as scene, scene.greeted() as raw:
        await serves_on(raw, 1)
        frames: list[dict[str, Any]] = [
            {"type": "pong"},
            {"type": "cancel", "id": 1},
            {"type": "grant", "id": 1, "items": 1},
            {"type": "pong", "token": 7},
        ]
        made = raw.says_so(*frames * 1000)
        with memory_growing_by_at_most(4_000_000):
            for _ in range(250 if full else 10):
                await raw.send(made)
            await serves_on(raw, 3)


async def test_empty_messages_without_end(beside: Beside) -> None:
    """R1: borne for a time."""
    async with beside(limits=Limits(violation_refill=0.1, close_timeout=1)) as scene:
        async with scene.greeted() as raw:
            empty = raw.says_so()
            await raw.send(empty * 200)
            await serves_on(raw, 1)
            await raw.send(empty * 3)
            is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1008)


async def test_calls_of_methods_that_there_are_not(beside: Beside, full: bool) -> None:
    """They cost nothing but their answers."""
    async with beside(limits=Limits(close_timeout=1)) as scene, scene.greeted() as raw:
        count = 100_000 if full else 2000
        with memory_growing_by_at_most(4_000_000):
            for first in range(0, count, 100):
                ids = range(2 * first + 1, 2 * first + 201, 2)
                await raw.says(*[{"type": "call", "id": id, "method": "__class__"} for id in ids])
                codes = await hear_finals(raw, 100)
                assert set(codes.values()) == {"UNIMPLEMENTED"}
        await serves_on(raw, 2 * count + 1)


@pytest.mark.parametrize("goes", ["in order", "at once", "by a reset"])
async def test_a_storm_of_clients_that_come_and_go(goes: str, beside: Beside, full: bool) -> None:
    """They have called by then what fails, what waits, and what is answered."""
    count = 1000 if full else 40
    logged = lambda record: record.getMessage() == "fail failed"  # noqa: E731
    async with beside(limits=LIMITS, logged=logged) as scene:

        async def client(number: int) -> None:
            async with scene.greeted() as raw:
                await raw.says(
                    {"type": "call", "id": 1, "method": "fail", "args": ["x"]},
                    {"type": "call", "id": 3, "method": "wait"},
                    {"type": "call", "id": 5, "method": "forever", "args": [1000]}
                    | {"window": {"items": 5, "bytes": 10_000}},
                    {"type": "call", "id": 7, "method": "add", "args": [number, 1]},
                )
                with trio.fail_after(PATIENCE):
                    assert (await raw.hears("result"))["value"] == number + 1
                if goes == "in order":
                    await raw.says({"type": "goaway"})
                    await raw.says({"type": "cancel", "id": 3}, {"type": "cancel", "id": 5})
                elif goes == "by a reset":
                    assert isinstance(raw.stream, trio.SocketStream)
                    reset(raw.stream)

        for _ in range(count // 40):
            async with trio.open_nursery() as nursery:
                for number in range(40):
                    nursery.start_soon(client, number)
        with trio.fail_after(PATIENCE):
            await scene.service.wait_ended(2 * count)
        assert scene.service.ended.count("wait") == count
        assert scene.service.ended.count("forever") == count


async def test_a_peer_that_reads_nothing_of_its_answers(beside: Beside) -> None:
    """R24: refusals pile up to max_waiting_control_bytes, and then it is not read any more."""
    some = Limits(
        max_waiting_control_bytes=50_000,
        violation_budget=10**9,
        ping_interval=0.5,
        ping_timeout=0.5,
        close_timeout=0.5,
    )
    async with beside(limits=some) as scene, scene.greeted() as raw:
        ids = iter(range(1, 2**53, 2))
        with memory_growing_by_at_most(8_000_000):
            with pytest.raises(trio.BrokenResourceError):
                with trio.fail_after(10):
                    while True:
                        await raw.says(
                            *[
                                {"type": "call", "id": next(ids), "method": "add", "args": ["x"]}
                                for _ in range(100)
                            ]
                        )


async def test_deadlines_of_every_kind(beside: Beside) -> None:
    """R23: what is over before it starts, what cannot be slept for, and what is no time at all."""
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        for id, timeout in ((1, 0), (3, -1), (5, -1e300), (7, 1e-320)):
            await raw.says({"type": "call", "id": id, "method": "wait", "timeout": timeout})
            with trio.fail_after(PATIENCE):
                assert (await raw.hears())["error"]["code"] == "DEADLINE_EXCEEDED"
        await raw.says({"type": "call", "id": 9, "method": "wait", "timeout": 1e300})
        await scene.service.wait_running(2)
        await serves_on(raw, 11)
        if scene.encoding == "msgpack":
            await raw.says({"type": "call", "id": 13, "method": "add", "timeout": math.nan})
            is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1002)
