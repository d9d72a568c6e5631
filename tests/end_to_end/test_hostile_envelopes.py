"""Messages that are none: a connection error with its code, for who has sent them alone (R28)."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest
import trio

from tests.end_to_end.innocent import (
    PATIENCE,
    Beside,
    breaks_the_rules,
    each_in_its_encoding,
    ends,
    is_told,
    memory_growing_by_at_most,
    serves_on,
)
from tests.protocol.wire import message
from tests.transports.rawpeer import Ending
from tests.transports.rawsocket import TEXT, RawSocket, frame
from trio_streamrpc import Limits

#: A call in msgpack, up to its method and up to its arguments.
UP_TO_METHOD = b"\x91\x95\x01\x01\x00"
UP_TO_ARGS = UP_TO_METHOD + b"\xa4take"

#: What is wrong → a message in each encoding (None where it cannot be wrong in that way).
UNDECODABLE: dict[str, tuple[bytes | None, str | bytes | None]] = {
    "not of this encoding": (b"\xc1", "?"),
    "no array of frames": (b"\xc0", "null"),
    "a frame that is none": (b"\x91\x01", "[1]"),
    "a frame of no kind": (b"\x91\x90", "[{}]"),
    "a field of the wrong type": (b"\x91\x92\x05\xa1x", '[{"type":"end","id":"x"}]'),
    "a field that is missing": (b"\x91\x91\x05", '[{"type":"end"}]'),
    "nothing": (b"", ""),
    "garbage": (bytes(range(256)), "".join(map(chr, range(256)))),
    "invalid UTF-8 in a name": (UP_TO_METHOD + b"\xa1\xff\x90", None),
    "lone surrogates in a name": (
        UP_TO_METHOD + b"\xa3\xed\xa0\x80\x90",
        '[{"type":"call","id":1,"method":"\\ud800"}]',
    ),
    "lone surrogates in a payload": (
        None,
        '[{"type":"call","id":1,"method":"take","args":["\\udc00"]}]',
    ),
    "a BOM": (b"\xef\xbb\xbf\x90", "\ufeff[]"),
    "trailing bytes": (b"\x91\x92\x05\x01\x00", '[{"type":"end","id":1}]x'),
    "1e999 in the envelope": (None, '[{"type":"call","id":1,"method":"x","timeout":1e999}]'),
    "NaN in the envelope": (None, '[{"type":"call","id":1,"method":"x","timeout":NaN}]'),
    "a 5,000-digit integer in the envelope": (
        None,
        '[{"type":"end","id":' + "9" * 5000 + "}]",
    ),
    "two types": (None, '[{"type":"call","type":"end","id":1,"method":"x"}]'),
    "a length of 2^32-1 for the message": (b"\xdd\xff\xff\xff\xff", None),
    "a length of 2^32-1 for a frame": (b"\x91\xdd\xff\xff\xff\xff", None),
    "a length of 2^32-1 for a name": (UP_TO_METHOD + b"\xdb\xff\xff\xff\xff", None),
    "a length of 2^32-1 for an array": (UP_TO_ARGS + b"\xdd\xff\xff\xff\xff", None),
    "a length of 2^32-1 for a map": (UP_TO_ARGS + b"\xdf\xff\xff\xff\xff", None),
    "a length of 2^32-1 for bytes": (UP_TO_ARGS + b"\xc6\xff\xff\xff\xff", None),
    "a length of 2^32-1 for an ext": (UP_TO_ARGS + b"\xc9\xff\xff\xff\xff\x01", None),
    "more frames than there may be": (
        b"\xdc\x10\x01" + b"\x91\x09" * 4097,
        "[" + ",".join(['{"type":"x-"}'] * 4097) + "]",
    ),
}


@each_in_its_encoding(UNDECODABLE)
async def test_what_cannot_be_decoded(made: bytes | str, beside: Beside) -> None:
    """R28."""
    async with beside(limits=Limits(close_timeout=1)) as scene, scene.greeted() as raw:
        ending = await breaks_the_rules(scene, raw, made, 1007)
        assert ending.goaway is not None
        assert ending.goaway["message"].startswith("message cannot be decoded: ")


@pytest.mark.parametrize("kind", ["unknown", "x-unknown"])
async def test_an_unknown_kind(kind: str, beside: Beside) -> None:
    """R4: one that is reserved is a connection error, any other is ignored."""
    number = 63 if kind == "unknown" else 64
    made: bytes | str = b"\x91\x92" + bytes([number]) + b"\xaa\n\x1b[31mevil"
    if beside.encoding == "json":
        made = '[{"type":"' + kind + '","\\n\\u001b[31m":"evil"}]'
    async with beside() as scene, scene.greeted() as raw:
        if kind == "unknown":
            ending = await breaks_the_rules(scene, raw, made, 1002)
            assert ending.goaway is not None
            assert ending.goaway["message"].startswith("unknown kind of frame ")
        else:
            await raw.send_message(made)
            await serves_on(raw)


async def test_text_that_is_no_utf8(beside: Beside) -> None:
    """R28: where WebSocket finds it, it hangs up without a word; our own layers say why."""
    async with beside() as scene, scene.greeted() as raw:
        broken = b'[{"type":"call","id":1,"method":"\xff"}]'
        if isinstance(raw, RawSocket):
            await raw.send(frame(TEXT, broken))
            assert await ends(raw) == Ending()
        elif scene.encoding == "json":
            await raw.send(len(broken).to_bytes(4, "big") + broken)
            is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1007)


@pytest.mark.parametrize("beside", ["ws-msgpack", "ws-json"], indirect=True)
async def test_text_where_binary_was_agreed_and_the_reverse(beside: Beside) -> None:
    """R2, R3. A byte stream has but one kind of message."""
    async with beside() as scene, scene.greeted() as raw:
        made: bytes | str = "[]" if scene.encoding == "msgpack" else b"\x90"
        await breaks_the_rules(scene, raw, made, 1003)


async def test_the_longest_message_and_one_byte_more(beside: Beside) -> None:
    """R28."""
    limit = 20_000
    async with beside(limits=Limits(max_message_bytes=limit, close_timeout=1)) as scene:
        async with scene.greeted() as raw:
            await raw.send_message(padded(scene.encoding, limit))
            await raw.says({"type": "ping", "token": 1})
            assert (await raw.hears())["token"] == 1
        async with scene.greeted() as raw:
            await breaks_the_rules(scene, raw, padded(scene.encoding, limit + 1), 1009)


async def test_a_message_that_is_much_too_long(beside: Beside) -> None:
    """R28: it is broken off; WebSocket says so alone, and takes nothing from us to be said."""
    async with beside(limits=Limits(max_message_bytes=20_000, close_timeout=1)) as scene:
        async with scene.greeted() as raw:
            with memory_growing_by_at_most(1_500_000), suppress(trio.BrokenResourceError):
                await raw.send_message(padded(scene.encoding, 400_000))
            ending = await ends(raw)
        if scene.kind == "ws":
            # A reset may overtake it, since not all was read.
            assert ending in (Ending(), Ending(close_code=1009))
        else:
            is_told(scene, ending, "PROTOCOL_ERROR", 1009)


@pytest.mark.parametrize("beside", ["ws-json", "tcp-json"], indirect=True)
async def test_a_limit_counts_bytes_and_not_characters(beside: Beside) -> None:
    """R28: 9,000 characters of three bytes are more than 20,000 bytes."""
    for count in (6_000, 9_000):
        async with beside() as scene, scene.greeted() as raw:
            await raw.send_message('[{"type":"x-ray","of":"' + "\u20ac" * count + '"}]')
            if count == 6_000:
                await serves_on(raw)
                continue
            is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1009)


def padded(encoding: str, length: int) -> bytes | str:
    """A ping of an unknown kind that is to be ignored, and so many bytes long (R4)."""
    if encoding == "json":
        head, tail = '[{"type":"x-ray","of":"', '"}]'
        return head + "\u00e9" + "x" * (length - len(head) - len(tail) - 2) + tail
    return b"\x91\x92\x40\xc6" + (length - 8).to_bytes(4, "big") + bytes(length - 8)


@pytest.mark.parametrize("beside", ["tcp-msgpack", "tcp-json"], indirect=True)
async def test_a_length_in_front_that_cannot_be(beside: Beside) -> None:
    """R3, R28: it is known to be too long before any of it has come, and nothing is held for it."""
    async with beside() as scene, scene.greeted() as raw:
        with memory_growing_by_at_most(1_000_000):
            await raw.send(b"\xff\xff\xff\xff")
            is_told(scene, await ends(raw), "PROTOCOL_ERROR", 1009)


DEPTH = 10**6


@pytest.mark.parametrize("where", ["envelope", "payload"])
async def test_nesting_without_end(where: str, beside: Beside) -> None:
    """R28: one decode sees both: a connection error."""
    made: bytes | str
    if beside.encoding == "msgpack":
        made = (UP_TO_ARGS if where == "payload" else b"") + b"\x91" * DEPTH
    else:
        head = '[{"type":"call","id":1,"method":"take","args":' if where == "payload" else ""
        made = head + "[" * DEPTH
    async with beside(limits=Limits(close_timeout=1)) as scene, scene.greeted() as raw:
        await breaks_the_rules(scene, raw, made, 1007)


async def test_nesting_without_end_in_parts(beside: Beside) -> None:
    """R21, R28: a payload that no decode of a message sees fails its own call."""
    text = beside.encoding == "json"
    value = ("[" if text else b"\x91") * 10_000
    async with beside() as scene, scene.greeted() as raw:
        await raw.says({"type": "call", "id": 1, "method": "take", "parts": len(value)})
        await raw.says({"type": "part", "id": 1, "data": value})
        assert (await raw.hears("error"))["error"]["code"] == "INVALID_ARGUMENT"
        await raw.says({"type": "ping"})
        await raw.hears("pong")


VALID = [
    {"type": "call", "id": 1, "method": "add", "args": [1, 2], "metadata": {"k": "v"}},
    {"type": "ping", "token": 7},
]


async def test_every_truncation_of_a_valid_message(beside: Beside, full: bool) -> None:
    """R4, R28: nothing of it is processed."""
    whole = message(beside.encoding, *VALID)
    step = 1 if full else 7
    async with beside() as scene:
        for length in range(0, len(whole), step):
            async with scene.greeted() as raw:
                await raw.send_message(whole[:length])
                ending = await ends(raw)
                is_told(scene, ending, "PROTOCOL_ERROR", 1007)
                assert ending.frames == [ending.goaway]
        async with scene.greeted() as raw:
            await raw.send_message(whole)
            assert (await raw.hears("result"))["value"] == 3


async def test_garbled_messages(beside: Beside, full: bool) -> None:
    """Whatever becomes of one byte of a valid message, it is answered, or it is told why not."""
    random = Random(beside.encoding)
    whole = message(beside.encoding, *VALID)
    async with beside() as scene:
        for _ in range(2000 if full else 40):
            made = bytearray(whole if isinstance(whole, bytes) else whole.encode())
            made[random.randrange(len(made))] = random.randrange(256)
            async with scene.greeted() as raw:
                text = made.decode(errors="replace")
                await raw.send_message(text if raw.encoding == "json" else bytes(made))
                await raw.says({"type": "ping", "token": 8})
                with trio.fail_after(PATIENCE):
                    try:
                        while (await raw.hears("pong")).get("token") != 8:
                            pass
                    except (EOFError, trio.BrokenResourceError):
                        pass


# --- what fails its call alone

#: What is wrong with arguments → them in each encoding, and what comes of it.
BAD_PAYLOADS: dict[str, tuple[bytes | None, str | None]] = {
    "1e999": (None, "[1e999]"),
    "a 5,000-digit integer": (None, "[" + "9" * 5000 + "]"),
    "invalid UTF-8": (b"\x91\xa1\xff", None),
    "lone surrogates": (b"\x91\xa3\xed\xa0\x80", None),
    "a timestamp that cannot be": (b"\x91\xd7\xff" + b"\xff" * 8, None),
    "a map in a key": (b"\x91\x81\x80\x01", None),
    "no array": (b"\x07", "7"),
    "too many": (b"\x92\x01\x02", "[1,2]"),
}


@each_in_its_encoding(BAD_PAYLOADS)
async def test_a_bad_payload_fails_its_call_alone(made: bytes | str, beside: Beside) -> None:
    """The rule of reaction: the connection lives."""
    async with beside() as scene, scene.greeted() as raw:
        if isinstance(made, bytes):
            await raw.send_message(UP_TO_ARGS + made)
        else:
            await raw.send_message('[{"type":"call","id":1,"method":"take","args":' + made + "}]")
        with trio.fail_after(PATIENCE):
            error = await raw.hears()
        assert error["type"] == "error"
        assert error["error"]["code"] == "INVALID_ARGUMENT"
        assert len(error["error"]["message"]) <= 300
        assert error["error"]["message"].isascii()
        await serves_on(raw)


#: What may be strange, and is no mistake.
STRANGE_PAYLOADS: dict[str, tuple[bytes | None, str | None]] = {
    "nested deeply": (b"\x91" * 400 + b"\xc0", "[" * 400 + "]" * 400),
    "an ext": (b"\x91\xd4\x05\x00", None),
    "an array in a key": (b"\x91\x81\x90\x01", None),
    "a key that comes twice": (b"\x91\x82\xa1a\x01\xa1a\x02", '[{"a":1,"a":2}]'),
}


@each_in_its_encoding(STRANGE_PAYLOADS)
async def test_a_strange_payload_is_taken_as_it_comes(made: bytes | str, beside: Beside) -> None:
    async with beside() as scene, scene.greeted() as raw:
        if isinstance(made, bytes):
            await raw.send_message(UP_TO_ARGS + made)
        else:
            await raw.send_message('[{"type":"call","id":1,"method":"take","args":' + made + "}]")
        with trio.fail_after(PATIENCE):
            assert (await raw.hears())["type"] == "result"
        await serves_on(raw)


@pytest.mark.parametrize("beside", ["ws-json", "tcp-json"], indirect=True)
async def test_duplicate_keys_in_the_envelope(beside: Beside) -> None:
    """R4: the last one counts, as most readers of JSON have it; one call is run, and once."""
    async with beside() as scene, scene.greeted() as raw:
        twice = '[{"type":"call","id":1,"id":3,"method":"wait","method":"few","args":[9],"args":[1]'
        await raw.send_message(twice + ',"window":{"items":1,"bytes":1}}]')
        with trio.fail_after(PATIENCE):
            assert await raw.hears() == {"type": "chunk", "id": 3, "items": [0], "size": 1}
        assert scene.running == ["few"]
        # Never opened, and never to be: a higher one was seen (R5).
        await raw.says({"type": "cancel", "id": 1})
        await serves_on(raw)
