"""Frames that are out of place: at the start, on ids that cannot be, after the end."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import trio

from tests.end_to_end.innocent import (
    EACH_TRANSPORT,
    LIMITS,
    PATIENCE,
    Beside,
    breaks_the_rules,
    ends,
    is_told,
    serves_on,
)
from tests.protocol.wire import message
from trio_streamrpc import Limits

#: Frames are the same in either encoding, once they are decoded.
pytestmark = EACH_TRANSPORT

HELLO = {"type": "hello", "version": 1}

#: One frame of each kind that may come, on an id that may be.
FRAMES: dict[str, dict[str, Any]] = {
    "call": {"type": "call", "id": 1, "method": "add", "args": [1, 2]},
    "result": {"type": "result", "id": 1, "value": 1},
    "error": {"type": "error", "id": 1, "error": {"code": "UNKNOWN"}},
    "chunk": {"type": "chunk", "id": 1, "items": [1], "size": 1},
    "end": {"type": "end", "id": 1},
    "cancel": {"type": "cancel", "id": 1},
    "grant": {"type": "grant", "id": 1, "items": 1},
    "part": {"type": "part", "id": 1, "data": "x"},
    "ping": {"type": "ping"},
    "pong": {"type": "pong"},
    "goaway": {"type": "goaway"},
    "unknown": {"type": "x-ray"},
}


def in_encoding(frame: dict[str, Any], encoding: str) -> dict[str, Any]:
    """Parts are bytes in msgpack."""
    if "data" in frame and encoding == "msgpack":
        return frame | {"data": frame["data"].encode()}
    return frame


# --- the start

STARTS: dict[str, list[dict[str, Any]]] = {
    **{f"{kind} before hello": [frame] for kind, frame in FRAMES.items() if kind != "unknown"},
    "an unknown version": [{"type": "hello", "version": 2}],
    "version 0": [{"type": "hello", "version": 0}],
    "a second hello behind the first": [HELLO, HELLO],
    "limits that cannot be": [{**HELLO, "limits": {"max_calls": 0}}],
    "limits that are negative": [{**HELLO, "limits": {"max_message_bytes": -1}}],
    "a limit above 2^53": [{**HELLO, "limits": {"max_calls": 2**53}}],
    "metadata that is none": [{**HELLO, "metadata": "\n\x1b[31m\u202e" * 100}],
    "metadata of 10,000 keys": [{**HELLO, "metadata": {f"k{n}": n for n in range(10_000)}}],
    "100,000 features": [{**HELLO, "features": ["x"] * 100_000}],
}

#: What is not a matter of the protocol, but of what can be decoded, or is too big.
START_CODES = {
    "limits that cannot be": 1007,
    "limits that are negative": 1007,
    "a limit above 2^53": 1007,
    "metadata of 10,000 keys": 1009,
    "100,000 features": 1009,
}


@pytest.mark.parametrize("what", STARTS)
async def test_a_start_that_is_none(what: str, beside: Beside) -> None:
    """R25: hello comes first, and once, and is one."""
    async with beside(limits=Limits(close_timeout=1)) as scene, scene.connected() as raw:
        await raw.shakes_hands(scene.encoding)
        await raw.says(*(in_encoding(frame, scene.encoding) for frame in STARTS[what]))
        ending = await ends(raw)
        is_told(scene, ending, "PROTOCOL_ERROR", START_CODES.get(what, 1002))
        heard = [frame["type"] for frame in ending.frames]
        # R4: nothing of a message counts of which a part is wrong.
        assert heard == ["goaway"]


async def test_an_unknown_kind_before_hello_is_ignored(beside: Beside) -> None:
    """R4: hello is still to come."""
    async with beside() as scene, scene.connected() as raw:
        await raw.shakes_hands(scene.encoding)
        unknown = b"\x91\x92\x40\x01" if scene.encoding == "msgpack" else '[{"type":"x-ray"}]'
        await raw.send_message(unknown)
        await raw.says(HELLO)
        assert (await raw.hears())["type"] == "hello"


async def test_nothing_of_a_start_is_in_the_log_as_it_came(
    beside: Beside, caplog: pytest.LogCaptureFixture
) -> None:
    """What is told to people is escaped and short; the fixture looks at the log."""
    evil = "\u00e9\u202e\n\x1b[31m" * 200
    frames: list[dict[str, Any]] = [
        {"type": evil, "id": 1},
        {**HELLO, "limits": {evil: 1, "max_calls": evil}},
        {**HELLO, "metadata": [evil]},
        {"type": "goaway", "code": evil, "message": evil},
    ]
    for each in frames:
        async with beside() as scene, scene.connected() as raw:
            await raw.shakes_hands(scene.encoding)
            if each["type"] != evil:
                await raw.says(each)
            elif scene.encoding == "json":
                await raw.send_message(json.dumps([each]))
            else:
                await raw.send_message(msgspec.msgpack.encode([[evil, 1]]))
            assert (await ends(raw)).goaway is not None
    refused = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
    assert len(refused) == len(frames)


@pytest.mark.parametrize("said", ["nothing", "half of a hello"])
async def test_a_hello_that_does_not_come_in_time(said: str, beside: Beside) -> None:
    """R25."""
    limits = Limits(handshake_timeout=0.3, close_timeout=1)
    async with beside(limits=limits) as scene, scene.connected() as raw:
        await raw.shakes_hands(scene.encoding)
        if said != "nothing":
            await raw.send(raw.says_so(HELLO)[:-1])
        is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1008)


async def test_a_second_hello(beside: Beside) -> None:
    """R25: in the middle of much else."""
    async with beside() as scene, scene.greeted() as raw:
        await breaks_the_rules(scene, raw, message(scene.encoding, HELLO), 1002)


# --- ids

IDS: dict[str, tuple[Any, int]] = {
    "0": (0, 1007),
    "negative": (-1, 1007),
    "2^53": (2**53, 1007),
    "2^64 - 1": (2**64 - 1, 1007),
    "below -2^63": (-(2**63), 1007),
    "a float": (105.5, 1007),
    "a float that is whole": (105.0, 1007),
    "a bool": (True, 1007),
    "a string": ("105", 1007),
    "null": (None, 1007),
    "the other parity": (106, 1002),
    "one that goes backward": (99, 1002),
    "one that is open": (101, 1002),
    "one that was never used, below others": (102 + 1 - 4, 1002),
}


@pytest.mark.parametrize("what", IDS)
async def test_an_id_that_cannot_be_opened(what: str, beside: Beside) -> None:
    """R5: and what the call before it has started runs once."""
    id, close_code = IDS[what]
    async with beside() as scene, scene.greeted() as raw:
        made = message(scene.encoding, {"type": "call", "id": id, "method": "wait"})
        await breaks_the_rules(scene, raw, made, close_code)
        # It was opened by what stands before, and what stands behind has started nothing.
        assert scene.service.ended.count("wait") == 1
        assert scene.service.ended.count("forever") == 1


async def test_a_handler_runs_once_for_an_id_that_is_opened_twice(beside: Beside) -> None:
    """R5: both in one message: none of it is processed but what stands before."""
    call = {"type": "call", "id": 1, "method": "wait"}
    async with beside() as scene, scene.greeted() as raw:
        await raw.says(call)
        await scene.service.wait_running(2)
        await raw.says(call)
        is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1002)
        assert scene.service.ended == ["wait"]


@pytest.mark.parametrize("kind", ["result", "error", "chunk", "end", "cancel", "grant", "part"])
@pytest.mark.parametrize("id", [105, 2], ids=["of its own", "of ours"])
async def test_a_frame_on_an_id_that_was_never_opened(kind: str, id: int, beside: Beside) -> None:
    """R9."""
    async with beside() as scene, scene.greeted() as raw:
        frame = in_encoding({**FRAMES[kind], "id": id}, scene.encoding)
        await breaks_the_rules(scene, raw, message(scene.encoding, frame), 1002)


# --- the end of an id

#: What a call has whose first argument is the upload 3.
UPLOAD: dict[str, Any] = {"args": [None], "refs": [[0, "stream", 3]]}


@pytest.mark.parametrize("kind", ["result", "error", "chunk", "end"])
async def test_what_only_its_callee_says_on_a_call(kind: str, beside: Beside) -> None:
    """R9: while it runs, and after its final frame."""
    for after in (False, True):
        async with beside() as scene, scene.greeted() as raw:
            id = 101
            if after:
                await serves_on(raw, 51)
                id = 51
            frame = {**FRAMES[kind], "id": id}
            if after:
                await raw.says(frame)
                is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1002)
            else:
                await breaks_the_rules(scene, raw, message(scene.encoding, frame), 1002)


@pytest.mark.parametrize("kind", ["cancel", "grant", "part"])
async def test_what_may_cross_the_final_frame_is_ignored(kind: str, beside: Beside) -> None:
    """R9."""
    async with beside() as scene, scene.greeted() as raw:
        await serves_on(raw, 1)
        await raw.says(in_encoding({**FRAMES[kind], "id": 1}, scene.encoding))
        await serves_on(raw, 3)


@pytest.mark.parametrize("kind", ["chunk", "end", "error", "part"])
async def test_what_follows_the_end_of_an_upload(kind: str, beside: Beside) -> None:
    """R6, R9: nothing does."""
    async with beside() as scene, scene.greeted() as raw:
        await raw.says(
            {"type": "call", "id": 1, "method": "total", **UPLOAD},
            {"type": "chunk", "id": 3, "items": [1], "size": 1},
            {"type": "end", "id": 3},
        )
        assert (await raw.hears("result"))["value"] == 1
        await raw.says(in_encoding({**FRAMES[kind], "id": 3}, scene.encoding))
        if kind == "part":
            # R9: as of a value whose consumer has gone.
            await serves_on(raw, 5)
            return
        is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1002)


async def test_a_final_frame_in_the_middle_of_a_value(beside: Beside) -> None:
    """R21: it is valid only after a cancel."""
    async with beside() as scene, scene.greeted() as raw:
        await raw.says(
            {"type": "call", "id": 1, "method": "ignore", **UPLOAD},
            {"type": "chunk", "id": 3, "items": [None], "size": 9, "parts": 9},
            {"type": "end", "id": 3},
        )
        is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1002)


# --- names and metadata


async def test_a_method_name_of_a_megabyte(beside: Beside) -> None:
    """R28: it is as unknown as any other, and the same is said of it."""
    async with beside(limits=Limits(close_timeout=1)) as scene, scene.greeted() as raw:
        answers = []
        for id, name in ((1, "x" * 1_000_000), (3, "x"), (5, "\x00\n\x1b[31m\u202e")):
            await raw.says({"type": "call", "id": id, "method": name})
            with trio.fail_after(PATIENCE):
                answer = await raw.hears()
            assert answer.pop("id") == id
            answers.append(answer)
        assert answers[0]["error"]["code"] == "UNIMPLEMENTED"
        assert answers == [answers[0]] * 3
        await serves_on(raw)


async def test_metadata_of_10000_keys(beside: Beside) -> None:
    """It is refused by its length, and not read."""
    async with beside(limits=Limits(close_timeout=1)) as scene, scene.greeted() as raw:
        metadata = {f"key {number}": "value" for number in range(10_000)}
        call = {"type": "call", "id": 1, "method": "add", "args": [1, 2]}
        await raw.says({**call, "metadata": metadata})
        with trio.fail_after(PATIENCE):
            assert (await raw.hears())["error"]["code"] == "INVALID_ARGUMENT"
        await serves_on(raw)


async def test_metadata_that_is_none(beside: Beside) -> None:
    """It fails its call alone."""
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        for id, metadata in ((1, "x"), (3, [1]), (5, {"": {}})):
            call = {"type": "call", "id": id, "method": "add", "args": [1, 2]}
            await raw.says({**call, "metadata": metadata})
            with trio.fail_after(PATIENCE):
                answer = await raw.hears()
            assert answer["type"] == ("result" if id == 5 else "error")
            assert id == 5 or answer["error"]["code"] == "INVALID_ARGUMENT"
        await serves_on(raw)


@pytest.mark.parametrize("code", [None, "ABORTED", "PROTOCOL_ERROR", "\n\x1b[31m\u202e" * 100])
async def test_a_goodbye_with_words_of_its_own(code: str | None, beside: Beside) -> None:
    """R27: what runs is ended, and nothing of the words is in the log as it came."""
    goodbye = {"type": "goaway", "message": "\n\x1b[31m evil \u202e " * 500}
    async with beside(limits=LIMITS) as scene, scene.greeted() as raw:
        await raw.says({"type": "call", "id": 1, "method": "wait"})
        await scene.service.wait_running(2)
        await raw.says(goodbye if code is None else {**goodbye, "code": code})
        if code is None:
            # It only says that it takes no more calls.
            await serves_on(raw)
            return
        ending = await ends(raw)
        assert ending.goaway is None
        await scene.service.wait_ended()
