"""The wire, property by property: codecs, messages in pieces, endpoints that hear anything."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.wire import BOTH
from trio_streamrpc.errors import RemoteProtocolError
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.codecs import Encoding, codec_for
from trio_streamrpc.protocol.endpoint import Endpoint, Side
from trio_streamrpc.protocol.frames import Chunk
from trio_streamrpc.protocol.parts import Slices
from trio_streamrpc.protocol.turns import Turns
from trio_streamrpc.testing import EndpointPair, strategies
from trio_streamrpc.testing.conformance.codecs import plain
from trio_streamrpc.testing.plain_frames import (
    PlainFrame,
    encode_message,
    encode_payload,
    read_message,
)
from trio_streamrpc.testing.strategies.schedules import Schedule
from trio_streamrpc.transports.lengths import MessageBuffer

#: Of what takes long to draw.
FEWER = settings(max_examples=max(30, settings().max_examples // 3))
SIDES = st.sampled_from(["connecting", "accepting"])
#: Small, so that what is held can be told from what was sent.
LIMITS = Limits(
    max_message_bytes=20_000,
    max_value_bytes=30_000,
    max_partial_bytes=60_000,
    violation_budget=5,
    violation_refill=1e-9,
)


def codec(encoding: Encoding) -> Any:
    return codec_for(encoding, max_bytes=1024 * 1024, max_frames=4096)


@BOTH
@given(data=st.data())
def test_what_is_said_is_what_is_heard(encoding: Encoding, data: st.DataObject) -> None:
    """R2: a frame that was decoded and is encoded again says the same."""
    frames: list[PlainFrame] = data.draw(
        st.lists(strategies.frames(encoding=encoding), min_size=1, max_size=4)
    )
    heard = codec(encoding).decode(encode_message(encoding, *frames))
    again = codec(encoding).decode(codec(encoding).encode(heard))
    assert [plain(each) for each in again] == [plain(each) for each in heard]


@given(st.lists(strategies.frames(), min_size=1, max_size=4))
def test_both_encodings_say_the_same(frames: list[PlainFrame]) -> None:
    """R2: what differs is the length of an item, which is that of its encoding (R13)."""
    for frame in frames:
        frame.pop("size", None)
        if frame["type"] == "part":
            frame["data"] = "x"
        if frame["type"] == "chunk":
            frame["size"] = 0
    said = [read_message(encode_message(each, *frames)) for each in ("json", "msgpack")]
    assert said[0] == said[1]


@BOTH
@given(data=st.data())
def test_what_is_behind_an_unknown_field_is_understood(
    encoding: Encoding, data: st.DataObject
) -> None:
    """R4: trailing elements and unknown keys are for those who come later."""
    frame = data.draw(strategies.frames(encoding=encoding))
    message = encode_message(encoding, frame)
    if isinstance(message, str):
        longer: bytes | str = message[:-2] + ',"added":[{"x":1}]}]'
    else:
        [values] = msgspec.msgpack.decode(message)
        absent = {"hello": 6, "call": 12}.get(frame["type"], 7) - len(values)
        if absent > 1:
            return  # what follows would be taken for a field that was left out
        longer = msgspec.msgpack.encode([[*values, *[None] * absent, "added"]])
    expected = [plain(each) for each in codec(encoding).decode(message)]
    assert [plain(each) for each in codec(encoding).decode(longer)] == expected


@BOTH
@given(data=st.data())
def test_garbage_is_frames_or_an_error(encoding: Encoding, data: st.DataObject) -> None:
    """R28: and it costs no more than its length to tell."""
    message = data.draw(
        st.one_of(
            strategies.damaged(strategies.messages(encoding)),
            strategies.damaged(strategies.messages(encoding, strategies.hostile_frames(encoding))),
            st.text() if encoding == "json" else st.binary(),
        )
    )
    try:
        codec(encoding).decode(message)
    except RemoteProtocolError as error:
        told = error
    else:
        return
    assert told.close_code in {1002, 1003, 1007, 1009}
    assert len(told.message) < 400


def hear(endpoint: Endpoint, messages: list[bytes | str]) -> int:
    """An endpoint hears all of that until it has had enough; how much it said of it."""
    said = 0
    for message in messages:
        try:
            events = endpoint.receive(message)
        except RemoteProtocolError:
            assert endpoint.failed
            events = []
        for event in events:
            if event.kind == 0 and endpoint.side == "accepting" and not endpoint.ready:
                # What came early is looked at now.
                with suppress(RemoteProtocolError):
                    endpoint.accept()
        while (answer := endpoint.next_message()) is not None:
            said += len(answer)
            assert len(answer) <= 1024 * 1024
    return said


@BOTH
@FEWER
@given(side=SIDES, data=st.data())
def test_an_endpoint_hears_anything(encoding: Encoding, side: Side, data: st.DataObject) -> None:
    """R4, R9, R28: whatever is said to it, it goes on or says goaway, and then is silent."""
    endpoint = Endpoint(side, encoding=encoding, limits=LIMITS)
    frames = strategies.hostile_frames(encoding)
    messages = strategies.messages(encoding, frames)
    found = data.draw(st.lists(st.one_of(messages, strategies.damaged(messages)), max_size=4))
    hello = encode_message(encoding, {"type": "hello", "version": 1})
    hear(endpoint, [hello, *found] if data.draw(st.booleans()) else found)
    if endpoint.failed:
        assert endpoint.receive(hello) == []
        assert endpoint.next_message() is None
        assert endpoint.partial_bytes == 0
    assert endpoint.partial_bytes <= LIMITS.max_partial_bytes
    assert endpoint.uploads <= 2 * LIMITS.max_uploads
    assert endpoint.places.running <= LIMITS.max_calls


@BOTH
@given(data=st.data())
def test_a_message_counts_whole_or_not_at_all(encoding: Encoding, data: st.DataObject) -> None:
    """R4: of one that cannot be decoded, nothing has happened."""
    pair = EndpointPair(encoding=encoding)
    frames = data.draw(st.lists(strategies.frames("call", encoding=encoding), max_size=3))
    wrong = {"type": "end", "id": 0}
    before = pair.accepting.highest_seen, dict(pair.accepting.exchanges)
    with pytest.raises(RemoteProtocolError):
        pair.accepting.receive(encode_message(encoding, *frames, wrong))
    assert (pair.accepting.highest_seen, dict(pair.accepting.exchanges)) == before


@given(st.lists(st.binary(max_size=200), max_size=8), strategies.schedules())
def test_messages_arrive_whole_however_they_are_cut(
    messages: list[bytes], schedule: Schedule
) -> None:
    """R3: of a stream that is cut, those that came whole arrive, and nothing else."""
    data = b"".join(len(each).to_bytes(4, "big") + each for each in messages)
    buffer, found = MessageBuffer(1000), []
    for _, piece in schedule.pieces(data):
        buffer.feed(piece)
        while buffer.find():
            found.append(buffer.take())
    assert found == messages[: len(found)]
    if schedule.cut is None:
        assert found == messages
        assert not buffer


@BOTH
@given(value=strategies.payloads(), limit=st.integers(1, 40))
def test_a_value_in_parts_comes_together_again(encoding: Encoding, value: Any, limit: int) -> None:
    """R21: whatever the length of the parts; text is cut between characters."""
    data = encode_payload(encoding, value)
    slices, parts = Slices(data, text=encoding == "json"), []
    while slices.left:
        part = slices.cut(limit)
        parts.append(part.encode() if isinstance(part, str) else bytes(part))
        # A character takes up to four bytes, and is not cut.
        assert 0 < len(parts[-1]) <= max(limit, 4)
    assert b"".join(parts) == data


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([-3, 0, 0, 7])), max_size=60))
def test_nobody_is_left_out(entries: list[tuple[int, int]]) -> None:
    """R12: who waits gets a turn within eight rounds of all that stand there."""
    turns: Turns[tuple[int, int]] = Turns()
    waiting = list(dict.fromkeys(entries))
    for entry in waiting:
        turns.add(entry, entry[1])
    served: Counter[tuple[int, int]] = Counter()
    for _ in range(8 * len(waiting) * 4):
        entry = turns.take()
        served[entry] += 1
        turns.add(entry, entry[1])
    assert set(served) == set(waiting)
    highest = max((priority for _, priority in waiting), default=0)
    first = [served[entry] for entry in waiting if entry[1] == highest]
    assert max(first, default=0) - min(first, default=0) <= 1


@BOTH
@given(sizes=st.lists(st.integers(0, 50), max_size=30), window=strategies.windows())
def test_a_producer_stops_at_exactly_the_window(
    encoding: Encoding, sizes: list[int], window: Any
) -> None:
    """R13, R14: in items, and in bytes but for the last item."""
    pair = EndpointPair(encoding=encoding)
    call = pair.connecting.call("m", encode_payload(encoding, []), window=window)
    pair.settle()
    sent = []
    for size in sizes:
        if not pair.accepting.may_send(call.id):
            break
        item = encode_payload(encoding, "x" * size)
        pair.accepting.send(call.id, item)
        sent.append(len(item))
    assert len(sent) <= window.items
    assert sum(sent[:-1]) < window.bytes or not sent[:-1]
    if len(sent) < len(sizes):
        assert len(sent) == window.items or sum(sent) >= window.bytes
    here, _ = pair.settle()
    assert sum(len(event.items) for event in here if isinstance(event, Chunk)) == len(sent)


def test_what_garbage_costs_is_bounded() -> None:
    """R28: lengths that are announced, and nesting, take no memory."""
    messages: list[bytes | str] = [
        b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
        b"\x91\x92\x0c\xdb\xff\xff\xff\xff", b"\x91" * 1_000_000, b"\x81\xa1a" * 300_000,
        b"\x91\x94\x02\x01\xc0\xcf\x00\x1f\xff\xff\xff\xff\xff\xff",
    ]  # fmt: skip
    tracemalloc.start()
    try:
        for message in messages:
            endpoint = Endpoint("accepting")
            endpoint.receive(encode_message("msgpack", {"type": "hello", "version": 1}))
            endpoint.accept()
            with pytest.raises(RemoteProtocolError):
                endpoint.receive(message)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
