"""More than was granted, and grants that are none: one stream fails, or the connection."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.end_to_end.innocent import (
    EACH_TRANSPORT,
    Beside,
    breaks_the_rules,
    ends,
    is_told,
    memory_growing_by_at_most,
    serves_on,
)
from tests.protocol.wire import message
from trio_streamrpc import Limits, Window

pytestmark = EACH_TRANSPORT

LIMITS = Limits(
    window=Window(2, 100),
    max_window=Window(2, 100),
    max_uploads=4,
    close_timeout=1,
    cleanup=1,
)
UPLOAD: dict[str, Any] = {"args": [None], "refs": [[0, "stream", 3]]}


def chunk(*items: Any, encoding: str, id: int = 3, **more: Any) -> dict[str, Any]:
    """A chunk that tells its true size."""
    sizes = [len(message(encoding, {"type": "ping", "token": item})) for item in items]
    bare = len(message(encoding, {"type": "ping", "token": 0})) - 1
    size = sum(each - bare for each in sizes)
    return {"type": "chunk", "id": id, "items": list(items), "size": size, **more}


#: What is beyond a window of 2 items and 100 bytes: the items of each chunk.
BEYOND: dict[str, list[list[Any]]] = {
    "one item past": [[1, 2, 3]],
    "one item past, in chunks": [[1], [2], [3]],
    "one byte past": [["x" * 200], [1]],
    "one byte past, in one chunk": [["x" * 200, 1]],
    "exactly used up, and one more": [["x" * 98], [1]],
}


@pytest.mark.parametrize("what", BEYOND)
async def test_a_chunk_past_the_credit_of_a_stuck_consumer(what: str, beside: Beside) -> None:
    """R16, R17: it is dropped whole, its producer is told, and the connection lives."""
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        await raw.says({"type": "call", "id": 1, "method": "ignore", **UPLOAD})
        await scene.service.wait_running(2)
        *within, beyond = (chunk(*items, encoding=scene.encoding) for items in BEYOND[what])
        for each in within:
            await raw.says(each)
        await serves_on(raw, 11)
        await raw.says(beyond)
        cancel = await raw.hears("cancel")
        assert cancel["id"] == 3
        assert cancel["error"]["code"] == "FLOW_CONTROL"
        await raw.says({"type": "error", "id": 3, "error": {"code": "CANCELLED"}})
        await serves_on(raw, 13)
        # The handler is none the worse for it, and ends as any other.
        assert scene.running == ["ignore"]
        await raw.says({"type": "cancel", "id": 1})
        assert (await raw.hears("error"))["error"]["code"] == "CANCELLED"


@pytest.mark.parametrize("size", [0, 1, 1000])
async def test_a_size_that_is_visibly_false(size: int, beside: Beside) -> None:
    """R16: dropped whole; the consumer sees an error, and its call is over with it."""
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        await raw.says(
            {"type": "call", "id": 1, "method": "total", **UPLOAD},
            {"type": "chunk", "id": 3, "items": [70_000, 70_000], "size": size},
        )
        assert (await raw.hears("error"))["error"]["code"] == "FLOW_CONTROL"
        await raw.says({"type": "end", "id": 3})
        await serves_on(raw)


async def test_the_items_that_fitted_come_first(beside: Beside) -> None:
    """R16: and then the error; a consumer that takes what comes has got them."""
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        await raw.says(
            {"type": "call", "id": 1, "method": "total", **UPLOAD},
            chunk(1, 2, encoding=scene.encoding),
            chunk(3, 4, 5, encoding=scene.encoding),
        )
        assert (await raw.hears("error"))["error"]["code"] == "FLOW_CONTROL"
        await raw.says({"type": "end", "id": 3})
        await serves_on(raw)


async def test_chunks_past_the_credit_without_end(beside: Beside) -> None:
    """R16: they are borne for a time; nothing of them is kept."""
    limits = Limits(
        window=Window(2, 100), max_window=Window(2, 100), violation_refill=0.1, close_timeout=1
    )
    async with beside(limits=limits) as scene, scene.greeted() as raw:
        await raw.says({"type": "call", "id": 1, "method": "ignore", **UPLOAD})
        with memory_growing_by_at_most(2_000_000):
            for _ in range(199):
                await raw.says(chunk(*["x" * 1000] * 3, encoding=scene.encoding))
            assert (await raw.hears("cancel"))["error"]["code"] == "FLOW_CONTROL"
            await serves_on(raw, 5)
            for _ in range(3):
                await raw.says(chunk(*["x" * 1000] * 3, encoding=scene.encoding))
            is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1008)


GRANTS: dict[str, tuple[dict[str, Any], int]] = {
    "nothing": ({"items": 0, "bytes": 0}, 1002),
    "negative items": ({"items": -1, "bytes": 1}, 1007),
    "negative bytes": ({"items": 1, "bytes": -1}, 1007),
    "2^53 items": ({"items": 2**53}, 1007),
    "2^63 bytes": ({"items": 1, "bytes": 2**63}, 1007),
    "items that overflow in sum": ({"items": 2**53 - 1}, 1002),
    "bytes that overflow in sum": ({"bytes": 2**53 - 1}, 1002),
    "a float": ({"items": 1.5}, 1007),
    "a bool": ({"items": True}, 1007),
}


@pytest.mark.parametrize("what", GRANTS)
async def test_a_grant_that_is_none(what: str, beside: Beside) -> None:
    """R15."""
    amounts, close_code = GRANTS[what]
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        call = {"type": "call", "id": 1, "method": "few", "args": [1]}
        await raw.says(call | {"window": {"items": 9, "bytes": 90}})
        await raw.hears("chunk")
        await raw.says({"type": "grant", "id": 1, **amounts})
        is_told(scene, await ends(raw), "PROTOCOL_ERROR", close_code)


async def test_a_grant_for_a_call_with_one_answer(beside: Beside) -> None:
    """R9: it is no stream."""
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        made = message(scene.encoding, {"type": "grant", "id": 101, "items": 1})
        await breaks_the_rules(scene, raw, made, 1002)


async def test_a_million_tiny_grants(beside: Beside, full: bool) -> None:
    """R15: each is taken, none costs more than its time, and nobody is asked for more items."""
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        call = {"type": "call", "id": 1, "method": "forever", "window": {"items": 1, "bytes": 90}}
        await raw.says(call)
        await raw.hears("chunk")
        grants = raw.says_so(*[{"type": "grant", "id": 1, "bytes": 1}] * 1000)
        with memory_growing_by_at_most(2_000_000):
            for _ in range(1000 if full else 20):
                await raw.send(grants)
            await serves_on(raw, 3)
        assert scene.service.produced == 1


@pytest.mark.parametrize("amount", [1, 2**53 - 1000])
async def test_much_that_is_granted_and_not_read(amount: int, beside: Beside) -> None:
    """R24: what may be sent is not made before there is room for it; who reads nothing is lost."""
    limits = Limits(ping_interval=0.5, ping_timeout=0.5, close_timeout=0.5)
    async with beside(limits=limits) as scene, scene.greeted() as raw:
        window = {"items": amount, "bytes": amount}
        with memory_growing_by_at_most(30_000_000):
            for id in range(1, 101, 2):
                await raw.says(
                    {"type": "call", "id": id, "method": "forever", "args": [100_000]}
                    | {"window": window}
                )
            with trio.fail_after(10):
                while scene.others:  # noqa: ASYNC110
                    await trio.sleep(0.01)


# --- what comes with a call


async def test_a_flood_of_uploads(beside: Beside) -> None:
    """R19: up to twice the limit they are refused, and borne; above it is a connection error."""
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        refs = [[number, "stream", 3 + 2 * number] for number in range(8)]
        await raw.says(
            {"type": "call", "id": 1, "method": "take", "args": [None] * 8, "refs": refs}
        )
        error = await raw.hears("error")
        assert error["error"]["code"] == "RESOURCE_EXHAUSTED"
        made = message(
            scene.encoding,
            {"type": "call", "id": 201, "method": "total", "args": [None]}
            | {"refs": [[0, "stream", 203]]},
        )
        await breaks_the_rules(scene, raw, made, 1002)


async def test_a_call_with_10000_references(beside: Beside) -> None:
    """R19: none of them is kept."""
    async with beside(limits=Limits(close_timeout=1)) as scene, scene.greeted() as raw:
        for id in (1, 30_001):
            with memory_growing_by_at_most(6_000_000):
                refs = [[0, "object", id + 2 + 2 * number] for number in range(10_000)]
                await raw.says({"type": "call", "id": id, "method": "take", "refs": refs})
                assert (await raw.hears("error"))["error"]["code"] == "RESOURCE_EXHAUSTED"
        await serves_on(raw, 100_001)


WRONG_REFS: dict[str, list[list[Any]]] = {
    "in a place that there is not": [[7, "stream", 3]],
    "by a name that there is not": [["nobody", "stream", 3]],
    "in one place twice": [[0, "stream", 3], [0, "stream", 5]],
    "of the wrong kind": [[0, "object", 3]],
}


@pytest.mark.parametrize("what", WRONG_REFS)
async def test_references_that_are_wrong(what: str, beside: Beside) -> None:
    """R19: they fail their call."""
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        await raw.says(
            {"type": "call", "id": 1, "method": "total", "args": [None], "refs": WRONG_REFS[what]}
        )
        assert (await raw.hears("error"))["error"]["code"] == "INVALID_ARGUMENT"
        for _, kind, id in WRONG_REFS[what]:
            if kind == "stream":
                await raw.says({"type": "end", "id": id})
        await raw.says({"type": "ping"})
        assert (await raw.hears("pong"))["type"] == "pong"


@pytest.mark.parametrize(
    "refs",
    [
        [[0, "stream", 1]],
        [[0, "stream", 2]],
        [[0, "stream", 5], [1, "stream", 3]],
        [[0, "telescope", 3]],
        [[0, "stream", -3]],
        [[None, "stream", 3]],
    ],
    ids=["of the call itself", "of ours", "downward", "of no kind", "negative", "in no place"],
)
async def test_references_that_cannot_be(refs: list[list[Any]], beside: Beside) -> None:
    """R5, R19: a broken envelope."""
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        await raw.says({"type": "call", "id": 1, "method": "take", "args": [None], "refs": refs})
        ending = await ends(raw)
        assert ending.goaway is not None
        assert ending.goaway["code"] == "PROTOCOL_ERROR"
        assert scene.running == []


async def test_uploads_that_never_get_their_final_frame(beside: Beside) -> None:
    """R19: they count, though their calls have ended; no handler waits for them."""
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        for number in range(4):
            id = 1 + 4 * number
            call = {"type": "call", "id": id, "method": "total", "args": [None]}
            await raw.says(call | {"refs": [[0, "stream", id + 2]]})
            await raw.says({"type": "cancel", "id": id})
            assert (await raw.hears("error"))["error"]["code"] == "CANCELLED"
        assert scene.running == []
        # So many are refused, until even that is too much.
        for number in range(4, 8):
            id = 1 + 4 * number
            call = {"type": "call", "id": id, "method": "total", "args": [None]}
            await raw.says(call | {"refs": [[0, "stream", id + 2]]})
            assert (await raw.hears("error"))["error"]["code"] == "RESOURCE_EXHAUSTED"
        await raw.says({"type": "call", "id": 101, "method": "x", "refs": [[0, "stream", 103]]})
        is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1002)


# --- values that never come to their end


async def test_calls_in_parts_that_never_end(beside: Beside) -> None:
    """R21: they hold what has come of them, and no more than max_partial_bytes together."""
    limits = Limits(
        max_value_bytes=200_000, max_partial_bytes=500_000, close_timeout=1, violation_refill=0.1
    )
    data: Any = "x" * 50_000
    if beside.encoding == "msgpack":
        data = data.encode()
    async with beside(limits=limits) as scene, scene.greeted() as raw:
        with memory_growing_by_at_most(3_000_000):
            for number in range(50):
                id = 1 + 2 * number
                await raw.says({"type": "call", "id": id, "method": "take", "parts": 200_000})
                for _ in range(3):
                    await raw.says({"type": "part", "id": id, "data": data})
            [connection] = scene.others
            for _ in range(48):
                assert (await raw.hears("error"))["error"]["code"] == "RESOURCE_EXHAUSTED"
            assert connection.endpoint.partial_bytes == 300_000
            assert scene.running == []
            await serves_on(raw, 501)
            # A call with more than one value may have is refused as well.
            await raw.says({"type": "call", "id": 601, "method": "take", "parts": 200_001})
            assert (await raw.hears("error"))["error"]["code"] == "RESOURCE_EXHAUSTED"


async def test_a_value_in_a_hundred_thousand_parts_of_one_byte(beside: Beside, full: bool) -> None:
    """R21: they cost what they weigh."""
    length = 100_000 if full else 20_000
    async with beside(limits=Limits(close_timeout=1)) as scene, scene.greeted() as raw:
        data: Any = " " if scene.encoding == "json" else b"\xc0"
        parts = raw.says_so(*[{"type": "part", "id": 1, "data": data}] * 1000)
        with memory_growing_by_at_most(3_000_000):
            await raw.says({"type": "call", "id": 1, "method": "take", "parts": length + 1})
            for _ in range(length // 1000):
                await raw.send(parts)
            await raw.says({"type": "ping"})
            await raw.hears("pong")
        await raw.says({"type": "part", "id": 1, "data": data})
        assert (await raw.hears("error"))["error"]["code"] == "INVALID_ARGUMENT"
        await serves_on(raw)


async def test_parts_that_are_too_many(beside: Beside) -> None:
    """R21: more than was announced, and parts of nothing."""
    data: Any = "xx" if beside.encoding == "json" else b"xx"
    for frames in (
        [{"type": "call", "id": 1, "method": "take", "parts": 3}]
        + [{"type": "part", "id": 1, "data": data}] * 2,
        [{"type": "call", "id": 1, "method": "wait"}, {"type": "part", "id": 1, "data": data}],
        [{"type": "call", "id": 1, "method": "take", "args": [1], "parts": 3}],
        [{"type": "part", "id": 1, "data": data}],
    ):
        async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
            await raw.says(*frames)
            is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1002)


async def test_empty_parts_without_end(beside: Beside) -> None:
    """R21: borne for a time."""
    data: Any = "" if beside.encoding == "json" else b""
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        await raw.says({"type": "call", "id": 1, "method": "take", "parts": 3})
        await raw.says(*[{"type": "part", "id": 1, "data": data}] * 100)
        await serves_on(raw, 3)
        for _ in range(10):
            await raw.says(*[{"type": "part", "id": 1, "data": data}] * 100)
        is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1008)
