"""pings.py: round trips that somebody waits for; the other side is played by hand."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from tests.runtime.peer import open_against
from trio_streamrpc import Connection, ConnectionLost, Limits, rpc
from trio_streamrpc.testing import open_pair

ENCODINGS = pytest.mark.parametrize("encoding", ["msgpack", "json"])


class Service:
    @rpc
    async def add(self, a: int, b: int) -> int:
        return a + b


async def outcome(connection: Connection, found: list[Any]) -> None:
    try:
        found.append(await connection.ping())
    except ConnectionLost as error:
        found.append(str(error))


@ENCODINGS
async def test_a_round_trip(encoding: Any) -> None:
    """R24."""
    async with open_pair(Service(), encoding=encoding) as connection:
        with assert_checkpoints():
            assert 0 <= await connection.ping() < 5
        assert await connection.ping() >= 0


@ENCODINGS
async def test_each_has_its_own_time(encoding: Any, autojump_clock: MockClock) -> None:
    """R24: pongs are known by their tokens, whatever their order."""
    found: list[Any] = []
    async with (
        open_against(encoding=encoding) as (connection, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(outcome, connection, found)
        first = await peer.hears("ping")
        await trio.sleep(1)
        nursery.start_soon(outcome, connection, found)
        second = await peer.hears("ping")
        assert first["token"] != second["token"]
        await trio.sleep(1)
        await peer.says({"type": "pong", "token": second["token"]})
        await trio.sleep(1)
        await peer.says({"type": "pong", "token": first["token"]})
    assert found == [pytest.approx(1), pytest.approx(3)]


@ENCODINGS
async def test_pongs_that_nobody_waits_for(encoding: Any, autojump_clock: MockClock) -> None:
    async with open_against(encoding=encoding) as (connection, peer):
        await peer.says({"type": "pong", "token": 2})
        found: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome, connection, found)
            ping = await peer.hears("ping")
            await peer.says({"type": "pong", "token": None}, {"type": "pong", "token": "x" * 500})
            await wait_all_tasks_blocked()
            assert found == []
            await trio.sleep(2)
            await peer.says({"type": "pong", "token": ping["token"]})
        assert found == [pytest.approx(2)]
        await peer.says({"type": "pong", "token": ping["token"]})
        await wait_all_tasks_blocked()
        assert connection.alive


async def test_one_that_is_cancelled_leaves_nothing(autojump_clock: MockClock) -> None:
    async with open_against() as (connection, peer):
        with trio.move_on_after(1) as scope:
            await connection.ping()
        assert scope.cancelled_caught
        ping = await peer.hears("ping")
        found: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome, connection, found)
            await peer.says({"type": "pong", "token": ping["token"]})
            await wait_all_tasks_blocked()
            assert found == [], "that was the answer to another"
            again = await peer.hears("ping")
            await peer.says({"type": "pong", "token": again["token"]})
        assert len(found) == 1


async def test_a_connection_that_is_lost(autojump_clock: MockClock) -> None:
    found: list[Any] = []
    async with open_against() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(outcome, connection, found)
        await peer.hears("ping")
        await peer.transport.aclose()
        await connection.wait_closed()
        await wait_all_tasks_blocked()
        assert found == ["the other end was closed"]
        with pytest.raises(ConnectionLost):
            await connection.ping()


async def test_a_side_that_does_not_answer(autojump_clock: MockClock) -> None:
    """R24: it is the connection's own limit that ends it."""
    limits = Limits(ping_interval=20, ping_timeout=10)
    found: list[Any] = []
    async with open_against(limits=limits) as (connection, peer):
        await outcome(connection, found)
    assert len(found) == 1
    assert "nothing was heard" in found[0]


async def test_the_pings_that_windows_grow_by_are_others(autojump_clock: MockClock) -> None:
    """R15: a pong to one of them is not taken for the other."""
    async with open_against() as (connection, peer):
        mark = bytes(connection.endpoint.codec.mark)
        tokens = []
        for _ in range(3):
            found: list[Any] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outcome, connection, found)
                ping = await peer.hears("ping")
                tokens.append(connection.payloads.encoder()(ping["token"]))
                await peer.says({"type": "pong", "token": ping["token"]})
        assert mark not in tokens
