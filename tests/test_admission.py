"""admission.py: places for connections, and the decisions that are under way."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_streamrpc import Handshake, Limits, Unavailable
from trio_streamrpc.admission import MAX_TELLING, Admission

HANDSHAKE = Handshake(remote="?", encoding="json")


def test_places_in_all() -> None:
    """Limits.max_connections: as many, and not one more, wherever they come from."""
    admission = Admission(Limits(max_connections=3), None)
    for address in ("1.1.1.1", None, "2.2.2.2"):
        assert admission.enter(address) is None
    for address in ("3.3.3.3", None):
        assert admission.enter(address) == "there are 3 connections"
    admission.leave(None)
    assert admission.enter("3.3.3.3") is None
    assert admission.enter("3.3.3.3") == "there are 3 connections"


def test_places_of_an_address() -> None:
    """Limits.max_connections_per_peer: others are not concerned, nor those without an address."""
    admission = Admission(Limits(max_connections_per_peer=2), None)
    for _ in range(2):
        assert admission.enter("1.1.1.1") is None
        assert admission.enter("::1") is None
    assert admission.enter("1.1.1.1") == "there are 2 connections from 1.1.1.1"
    for _ in range(10):
        assert admission.enter(None) is None
    admission.leave("1.1.1.1")
    assert admission.enter("1.1.1.1") is None
    assert admission.enter("1.1.1.1") is not None


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::ffff:1.1.1.1", "1.1.1.1", True),
        ("::ffff:1.1.1.1", "::ffff:1.1.1.2", False),
        ("1.1.1.1", "1.1.1.2", False),
    ],
)
def test_addresses_of_one_host(first: str, second: str, same: bool) -> None:
    """In IPv6 a host has a whole network of them, and could take every place of a server."""
    admission = Admission(Limits(max_connections_per_peer=1), None)
    assert admission.enter(first) is None
    assert (admission.enter(second) is not None) == same
    admission.leave(first)
    assert admission.enter(first) is None


def test_nothing_is_kept_of_who_has_left() -> None:
    admission = Admission(Limits(), None)
    for number in range(1000):
        admission.enter(f"10.0.{number // 250}.{number % 250}")
        admission.leave(f"10.0.{number // 250}.{number % 250}")
    assert admission._by_peer == {}
    assert admission._taken == 0


async def test_few_are_told_at_once(autojump_clock: MockClock) -> None:
    """Past that they are hung up on: who is turned away shall not hold what it has not got."""
    admission = Admission(Limits(), None)
    told = []

    async def tell(stream: trio.abc.Stream) -> None:
        told.append(stream)
        await trio.sleep(1)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_TELLING):
            nursery.start_soon(admission.turn_away, memory_stream_pair()[0], tell)
        await wait_all_tasks_blocked()
        theirs, ours = memory_stream_pair()
        await admission.turn_away(ours, tell)
        assert trio.current_time() == 0
        assert await theirs.receive_some() == b""
        assert len(told) == MAX_TELLING
    await admission.turn_away(memory_stream_pair()[0], tell)
    assert len(told) == MAX_TELLING + 1


async def test_decisions() -> None:
    async def authenticate(handshake: Handshake) -> Any:
        return handshake.remote

    assert Admission(Limits(), None).authenticate is None
    admission = Admission(Limits(), authenticate)
    assert admission.authenticate is not None
    assert await admission.authenticate(HANDSHAKE) == "?"
    await admission.close()
    with pytest.raises(Unavailable, match="going away"):
        await admission.authenticate(HANDSHAKE)


async def test_closing_ends_decisions_that_are_under_way(autojump_clock: MockClock) -> None:
    cancelled = []

    async def authenticate(handshake: Handshake) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(handshake)
            raise

    admission = Admission(Limits(), authenticate)

    async def decide() -> None:
        assert admission.authenticate is not None
        with pytest.raises(Unavailable, match="this server is going away"):
            await admission.authenticate(HANDSHAKE)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(decide)
        await wait_all_tasks_blocked()
        await admission.close()
        assert len(cancelled) == 3
    await admission.close()
