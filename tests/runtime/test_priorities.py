"""Priorities: what is written first where much waits, on both sides (R12)."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import pytest
import trio

from tests.runtime.ends import Ends, Wire, open_ends, quiet
from tests.runtime.peer import open_against
from trio_streamrpc import Limits, Window, rpc, with_options

BOTH = pytest.mark.parametrize("encoding", ["msgpack", "json"])

#: So many bytes of items are one turn.
TURN = 16 * 1024


class Service:
    def __init__(self) -> None:
        self.order: list[str] = []
        self.sums: dict[str, int] = {}

    @rpc
    async def echo(self, value: str, wait: float = 0) -> str:
        await trio.sleep(wait)
        return value

    @rpc
    async def numbers(self, name: str, stop: int, size: int = 1000) -> AsyncIterator[str]:
        for _ in range(stop):
            yield name * size

    @rpc
    async def collect(self, name: str, values: AsyncIterable[str]) -> None:
        async for value in values:
            assert value[0] == name
            self.sums[name] = self.sums.get(name, 0) + 1
        self.order.append(name)


async def hold(ends: Ends, wire: Wire) -> int:
    """Hold up that wire, with a message in it that says nothing; gives how many frames it had."""
    wire.hold()
    connection = ends.client if wire is ends.up else ends.server
    connection.endpoint.ping(connection.endpoint.codec.mark)
    connection.wake_writer()
    await quiet()
    return len(wire.frames)


def letters(frames: list[dict[str, Any]]) -> str:
    """The first letter of each value that is among these frames, in order; a part has its own."""
    found = ""
    for frame in frames:
        match frame["type"]:
            case "result":
                found += (frame.get("value") or "")[:1]
            case "chunk":
                found += "".join(item[:1] for item in frame["items"] if item)
            case "part":
                data = frame["data"]
                found += data[-2:-1] if isinstance(data, str) else chr(data[-1])
            case _:
                pass
    return found


def runs(text: str) -> list[str]:
    """The letters in order, each once for a row of the same."""
    return [each for number, each in enumerate(text) if not number or text[number - 1] != each]


# --- whose turn it is


@BOTH
async def test_results(encoding: Any, autojump_clock: Any) -> None:
    """The highest priority is first; among equals, who came first."""
    async with open_ends(Service(), encoding=encoding) as ends:
        api = ends.client.proxy(Service)
        async with trio.open_nursery() as nursery:
            # They are called in the order that nobody is to be answered in.
            for wait, (name, priority) in enumerate(
                [("a", -128), ("b", 0), ("c", 0), ("d", 127), ("e", 5)]
            ):
                one = with_options(api, priority=priority)
                nursery.start_soon(one.echo, name * 1000, wait)
            count = await hold(ends, ends.down)
            await trio.sleep(10)
            ends.down.let_go()
        assert letters(ends.down.frames[count:]) == "debca"


@BOTH
async def test_calls_keep_the_order_of_their_ids(encoding: Any, autojump_clock: Any) -> None:
    """R5, R12: a priority has no say in what opens an id."""
    async with open_ends(Service(), encoding=encoding) as ends:
        api = ends.client.proxy(Service)
        async with trio.open_nursery() as nursery:
            await hold(ends, ends.up)
            for priority in (0, 100, -5):
                nursery.start_soon(with_options(api, priority=priority).echo, "a")
                await quiet()
            ends.up.let_go()
        calls = ends.up.sent("call")
        assert [call.get("priority", 0) for call in calls] == [0, 100, -5]
        assert [call["id"] for call in calls] == [1, 3, 5]


@BOTH
async def test_streams(encoding: Any, autojump_clock: Any) -> None:
    """What waits of the one with the higher priority goes first, save for one turn in eight."""
    async with open_ends(Service(), encoding=encoding) as ends:
        api = with_options(ends.client.proxy(Service), window=Window(400, 1 << 20))
        count = await hold(ends, ends.down)

        async def take(name: str, priority: int) -> None:
            async with with_options(api, priority=priority).numbers(name, 200) as stream:
                assert [item[0] async for item in stream] == [name] * 200

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, "a", -1)
            await quiet()
            nursery.start_soon(take, "b", 1)
            await quiet()
            ends.down.let_go()
        order = letters(ends.down.frames[count:])
        assert order[0] == "b"
        in_front = order[: order.rindex("b")].count("a")
        # 200 items of 1000 bytes are 13 turns: at most two of the others are between them.
        assert 0 < in_front <= 2 * TURN // 1000
        assert sorted(order) == ["a"] * 200 + ["b"] * 200


@BOTH
async def test_streams_of_one_priority_take_turns(encoding: Any, autojump_clock: Any) -> None:
    async with open_ends(Service(), encoding=encoding) as ends:
        api = with_options(ends.client.proxy(Service), priority=7, window=Window(400, 1 << 20))
        count = await hold(ends, ends.down)

        async def take(name: str) -> None:
            async with api.numbers(name, 200) as stream:
                assert [item[0] async for item in stream] == [name] * 200

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(take, name)
                await quiet()
            ends.down.let_go()
        order = letters(ends.down.frames[count:])
        assert "".join(runs(order)).startswith("abcabcabc")


@BOTH
async def test_uploads(encoding: Any, autojump_clock: Any) -> None:
    """They have the priority of their call."""
    service = Service()
    # A smaller window would be used up before anybody is passed.
    limits = Limits(window=Window(400, 1 << 20))
    async with open_ends(service, encoding=encoding, limits=limits) as ends:
        api = ends.client.proxy(Service)
        count = await hold(ends, ends.up)

        async def values(name: str) -> AsyncIterator[str]:
            for _ in range(200):
                yield name * 1000

        async with trio.open_nursery() as nursery:
            for name, priority in (("a", -1), ("b", 1), ("c", 0)):
                one = with_options(api, priority=priority)
                nursery.start_soon(one.collect, name, values(name))
                await quiet()
            ends.up.let_go()
        order = letters(ends.up.frames[count:])
        assert order[0] == "b"
        assert order.rindex("b") < order.rindex("c") < order.rindex("a")
        # One turn in eight is for who waits behind, and these have 13 each.
        assert order[: order.rindex("b")].count("c") <= 2 * TURN // 1000
        assert service.sums == {"a": 200, "b": 200, "c": 200}


@BOTH
async def test_values_in_parts(encoding: Any, autojump_clock: Any) -> None:
    """R21: arguments and results in parts have the priority of their call."""
    limits = Limits(max_frame_bytes=1000)
    async with open_ends(Service(), encoding=encoding, limits=limits) as ends:
        api = ends.client.proxy(Service)
        for wire in (ends.up, ends.down):
            count = await hold(ends, wire)
            async with trio.open_nursery() as nursery:
                for name, priority in (("a", -1), ("b", 1)):
                    one = with_options(api, priority=priority)
                    nursery.start_soon(one.echo, name * 20_000)
                    await quiet()
                wire.let_go()
            *_, low, high = (call["id"] for call in ends.up.sent("call"))
            parts = [each["id"] for each in wire.frames[count:] if each["type"] == "part"]
            # 21 parts, and at every eighth turn one of the other value.
            assert parts.index(high) <= 1
            assert parts[: len(parts) - parts[::-1].index(high)].count(low) <= 4


# --- nobody starves


@BOTH
async def test_a_low_priority_goes_on(encoding: Any, autojump_clock: Any) -> None:
    """Beside one that always has data, it has at least one turn in eight."""
    async with open_ends(Service(), encoding=encoding) as ends:
        api = with_options(ends.client.proxy(Service), window=Window(1000, 1 << 20))
        order: list[str] = []

        async def take(name: str, priority: int, stop: int) -> None:
            async with with_options(api, priority=priority).numbers(name, stop, 4000) as stream:
                async for _ in stream:
                    pass
            order.append(name)

        async with trio.open_nursery() as nursery:
            count = await hold(ends, ends.down)
            nursery.start_soon(take, "a", -128, 100)
            nursery.start_soon(take, "b", 127, 2000)
            await quiet()
            ends.down.let_go()
        assert order == ["a", "b"]
        chunks = [
            each["items"][0][0] for each in ends.down.frames[count:] if each["type"] == "chunk"
        ]
        last = len(chunks) - chunks[::-1].index("a")
        between = "".join(chunks[:last]).split("a")
        assert max(map(len, between)) <= 7


@BOTH
async def test_answers_pass_a_stream_that_always_has_data(
    encoding: Any, autojump_clock: Any
) -> None:
    """Of the lowest priority too: a bounded number of turns is between it and the wire."""
    async with open_ends(Service(), encoding=encoding) as ends:
        api = with_options(ends.client.proxy(Service), window=Window(1000, 1 << 20))
        async with with_options(api, priority=127).numbers("b", 10_000, 4000) as stream:
            await stream.receive()
            async with trio.open_nursery() as nursery:

                async def take() -> None:
                    async for _ in stream:
                        pass

                nursery.start_soon(take)
                for _ in range(20):
                    before = ends.down.messages
                    assert await with_options(api, priority=-128).echo("a") == "a"
                    assert ends.down.messages - before <= 8
                nursery.cancel_scope.cancel()


# --- what is not ordered by it


async def test_control_frames_and_callbacks(autojump_clock: Any) -> None:
    """R12: a grant or a cancel of a call of the lowest priority waits for nobody."""
    async with open_against() as (connection, peer):
        api = with_options(connection.proxy(Service), window=Window(2))
        low = with_options(api, priority=-128)
        async with trio.open_nursery() as nursery:
            async with low.numbers("a", 10) as stream:
                call = await peer.hears("call")
                assert call["priority"] == -128
                nursery.start_soon(with_options(api, priority=127).echo, "b" * 1_000_000)
                await peer.says({"type": "chunk", "id": call["id"], "items": ["a"], "size": 2})
                await stream.receive()
                await quiet()
                kinds: list[str] = []
                while "grant" not in kinds:
                    kinds.append((await peer.hears())["type"])
                assert kinds.count("part") <= 5
                nursery.cancel_scope.cancel()
