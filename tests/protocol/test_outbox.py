"""outbox.py: what is written when, and in which message (R1, R12, R24)."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tests.protocol.wire import BOTH, Talk, read, whole
from trio_streamrpc.errors import ResourceExhausted
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol.codecs import Encoding, JsonCodec
from trio_streamrpc.protocol.frames import (
    JSON,
    KINDS,
    Announced,
    Chunk,
    ErrorInfo,
    Frame,
)
from trio_streamrpc.protocol.outbox import Outbox
from trio_streamrpc.protocol.peer_limits import keep_to

KB = 1024


class Box(Outbox):
    """An outbox that remembers what it wrote."""

    def __init__(self, *, bytes: int = 64 * KB, frames: int = 4096, chunk: int = 64 * KB) -> None:
        self.finished: list[int] = []
        super().__init__(JSON, lambda frame: self.finished.append(frame.id))
        self.message_bytes, self.message_frames, self.chunk_bytes = bytes, frames, chunk

    def items(self, id: int, *sizes: int) -> None:
        for size in sizes:
            self.add_item(id, item(size), size)

    def calls(self, id: int, size: int = 2) -> None:
        self.add_opening(id, JSON.call(id, args=item(size)), size)

    def answers(self, id: int, size: int = 2) -> None:
        self.add_answer(JSON.result(id, item(size)), size)

    def refuses(self, id: int, size: int = 20) -> None:
        self.add_refusal(JSON.error(id, ErrorInfo("X" * size)), size)

    def pongs(self, size: int) -> None:
        self.add_control(JSON.pong(item(size)), size)

    def takes(self) -> list[str]:
        """The next message in short: "chunk 1 x3" for three items, "end 1", "pong"."""
        return [short(frame) for frame in self.take()]


def item(size: int) -> Raw:
    return Raw(b"1" * size)


def short(frame: Frame) -> str:
    name = KINDS[frame.kind]
    if isinstance(frame, Chunk):
        assert frame.size == sum(len(each) for each in frame.items)
        return f"chunk {frame.id} x{len(frame.items)}"
    return f"{name} {frame.id}" if hasattr(frame, "id") else name


def length(frames: list[Frame]) -> int:
    return len(JsonCodec(max_bytes=1, max_frames=1).encode(frames))


# --- what goes together


def test_nothing_waits() -> None:
    box = Box()
    assert not box
    assert box.take() == []


def test_waiting_frames_go_into_one_message() -> None:
    """R1: what is waiting when there is something to write, whatever its kind."""
    box = Box()
    box.answers(2)
    box.items(4, 1)
    box.pongs(2)
    assert box
    assert box.takes() == ["pong", "result 2", "chunk 4 x1"]
    assert not box
    assert box.takes() == []


def test_waiting_items_go_into_one_chunk() -> None:
    """R14: and what comes later goes into a later one: nothing is delayed (R1)."""
    box = Box()
    box.items(2, 1, 2, 3)
    [chunk] = box.take()
    assert isinstance(chunk, Chunk)
    assert (chunk.id, len(chunk.items), chunk.size, chunk.refs, chunk.parts) == (2, 3, 6, None, 0)
    box.items(2, 1)
    assert box.takes() == ["chunk 2 x1"]


def test_a_final_frame_joins_its_items() -> None:
    box = Box()
    box.items(2, 1, 1)
    box.add_final(JSON.end(2))
    assert box.takes() == ["chunk 2 x2", "end 2"]
    assert box.finished == [2]


def test_a_final_frame_may_stand_alone() -> None:
    box = Box()
    box.add_final(JSON.error(2, ErrorInfo("X")), 10)
    assert box.takes() == ["error 2"]
    assert box.finished == [2]
    assert not box


def test_written_is_called_as_a_final_frame_is_taken() -> None:
    """R26: not before, and not for a refusal, whose call never had a place."""
    box = Box()
    box.answers(2)
    box.refuses(4)
    box.add_final(JSON.end(6))
    assert box.finished == []
    box.take()
    assert box.finished == [2, 6]


# --- order


def test_order_of_writing() -> None:
    """R12: control frames, opening frames in the order of ids, then the rest."""
    box = Box()
    box.items(2, 1)
    box.answers(4)
    box.refuses(6)
    box.calls(1)
    box.calls(3)
    box.add_grant(8, 1, 1)
    box.add_control(JSON.cancel(10, "close"))
    box.pongs(1)
    assert box.takes() == [
        "cancel 10", "pong", "grant 8", "call 1", "call 3", "error 6", "chunk 2 x1", "result 4",
    ]  # fmt: skip


def test_control_frames_overtake_what_did_not_fit() -> None:
    """R12: between messages as well."""
    box = Box()
    box.items(2, *[30 * KB] * 3)
    assert box.takes() == ["chunk 2 x2"]
    box.pongs(1)
    assert box.takes() == ["pong", "chunk 2 x1"]


def test_nothing_overtakes_an_opening_frame_that_did_not_fit() -> None:
    """R12: of two calls the first is written first, even if only the second would fit."""
    box = Box()
    box.calls(1, 60 * KB)
    box.calls(3, 10 * KB)
    box.calls(5, 1)
    box.answers(2)
    assert box.takes() == ["call 1"]
    assert box.takes() == ["call 3", "call 5", "result 2"]


# --- splitting


def test_messages_are_split_at_64_kib() -> None:
    """R1: and no message is longer, as long as each frame fits."""
    box = Box()
    for id in range(2, 42, 2):
        box.answers(id, 10 * KB)
    lengths = []
    while box:
        frames = box.take()
        lengths.append(length(frames))
    assert max(lengths) <= 64 * KB
    assert lengths[0] > 54 * KB
    assert len(lengths) == 4
    assert box.finished == list(range(2, 42, 2))


def test_a_stream_alone_fills_its_messages() -> None:
    """R1: the turns of 16 KiB are for those who share."""
    box = Box()
    box.items(2, *[1000] * 100)
    assert box.takes() == ["chunk 2 x65"]
    assert box.takes() == ["chunk 2 x35"]


@pytest.mark.parametrize("size", [64 * KB - 112, 64 * KB - 111, 64 * KB, 300 * KB])
def test_one_larger_frame_goes_alone(size: int) -> None:
    """R1: a message is up to about 64 KiB or one larger frame."""
    for add in (Box.answers, Box.calls, Box.refuses, Box.items):
        box = Box()
        box.pongs(1)
        add(box, 2, size)
        assert box.takes() == ["pong"]
        box.answers(4)
        assert len(box.takes()) == 1
    box = Box()
    box.pongs(size)
    box.pongs(size)
    assert box.takes() == ["pong"]
    assert box.takes() == ["pong"]


def test_a_larger_item_goes_alone_with_its_final_frame_behind() -> None:
    box = Box()
    box.items(2, 100, 100 * KB, 100)
    box.add_final(JSON.error(2, ErrorInfo("X")), 16 * KB)
    assert box.takes() == ["chunk 2 x1"]
    assert box.takes() == ["chunk 2 x1"]
    assert box.takes() == ["chunk 2 x1", "error 2"]


def test_a_final_frame_that_does_not_fit_waits() -> None:
    """R1: the length of a stream's error counts like any other."""
    box = Box()
    box.items(2, 60 * KB)
    box.add_final(JSON.error(2, ErrorInfo("X", message="m" * 16 * KB)), 16 * KB)
    frames = box.take()
    assert [short(frame) for frame in frames] == ["chunk 2 x1"]
    assert length(frames) < 64 * KB
    assert box.finished == []
    assert box.takes() == ["error 2"]
    assert box.finished == [2]


@pytest.mark.parametrize("kind", ["control", "refusal", "call", "answer", "final"])
def test_no_frame_is_added_beyond_the_limit(kind: str) -> None:
    """R1, R28: each kind of frame, where the other side takes no more than 2000 bytes."""
    box = Box(bytes=2000)
    for id in range(2, 22, 2):
        match kind:
            case "control":
                box.pongs(700)
            case "refusal":
                box.refuses(id, 700)
            case "call":
                box.calls(id, 700)
            case "answer":
                box.answers(id, 700)
            case _:
                box.add_final(JSON.error(id, ErrorInfo("X" * 700)), 700)
    count = 0
    while box:
        frames = box.take()
        assert length(frames) <= 2000
        assert len(frames) == 2
        count += len(frames)
    assert count == 10


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_frames_of_a_message_are_counted(most: int) -> None:
    """R28: the other side's max_message_frames, whatever the kinds."""
    box = Box(frames=most)
    for id in (2, 4, 6):
        box.pongs(1)
        box.add_grant(id, 1, 1)
        box.calls(id - 1)
        box.refuses(id + 20)
        box.answers(id + 40)
        box.items(id + 60, 1)
        box.add_final(JSON.end(id + 60))
    found: list[str] = []
    while box:
        frames = box.takes()
        assert 1 <= len(frames) <= most
        found += frames
    assert len(found) == 21
    for id in (2, 4, 6):
        assert found.index(f"chunk {id + 60} x1") < found.index(f"end {id + 60}")


@pytest.mark.parametrize("kind", ["calls", "answers"])
def test_many_frames_are_several_messages(kind: str) -> None:
    """R1: the other side works on the first of them while this one writes the others."""
    box = Box()
    keep_to(box, Announced())
    for id in range(1, 200, 2):
        getattr(box, kind)(id)
    assert [len(box.take()) for _ in range(5)] == [32, 32, 32, 4, 0]


@pytest.mark.parametrize("kind", ["control", "refusal", "call", "answer", "chunk", "final"])
def test_a_message_is_filled_to_the_last_byte(kind: str) -> None:
    """R1: what fits exactly goes in, one byte more does not; frames are reckoned at 112 bytes."""

    def add(id: int, size: int) -> None:
        match kind:
            case "control":
                box.pongs(size)
            case "refusal":
                box.refuses(id, size)
            case "call":
                box.calls(id, size)
            case "answer":
                box.answers(id, size)
            case "chunk":
                # And its one item at a byte.
                box.items(id, size - 1)
            case _:
                box.add_final(JSON.error(id, ErrorInfo("X")), size)

    for size, count in ((888, 2), (889, 1)):
        box = Box(bytes=2000)
        add(2, 888)
        add(4, size)
        assert len(box.takes()) == count


def test_grants_are_counted_like_any_frame() -> None:
    """R1, R28."""
    box = Box(bytes=2000)
    for id in range(100):
        box.add_grant(2 * id + 2, 2**52, 2**52)
    while box:
        frames = box.take()
        assert len(frames) in (9, 100 % 9), "half of the message"
        assert length(frames) <= 1000


def test_calls_that_keep_coming_leave_room_for_a_stream() -> None:
    """R12: they go first, and there may be as many as are written."""
    box = Box()
    box.items(2, 10)
    for number in range(100):
        box.calls(2 * number + 1)
    assert box.takes() == [*(f"call {2 * number + 1}" for number in range(32)), "chunk 2 x1"]


def test_a_call_does_not_wait_for_the_grants_of_a_thousand_streams() -> None:
    """R12: they go first, and they may come as fast as they are written."""
    box = Box()
    for id in range(1000):
        box.add_grant(2 * id + 2, 1, 1)
    box.calls(1)
    box.answers(3)
    frames = box.takes()
    assert frames[-2:] == ["call 1", "result 3"]
    assert len(frames) > 200


def test_a_chunk_is_no_longer_than_the_other_side_says() -> None:
    """R26: max_frame_bytes; one item goes by itself, however long (R14)."""
    box = Box(chunk=100)
    box.items(2, 40, 40, 40, 200, 99, 1)
    assert box.takes() == ["chunk 2 x2", "chunk 2 x1", "chunk 2 x1", "chunk 2 x1", "chunk 2 x1"]


# --- turns


def test_ids_take_turns() -> None:
    """R12: a stream with much to say does not hold up one with little."""
    box = Box()
    box.items(2, *[1 * KB] * 300)
    box.items(4, *[1 * KB] * 3)
    box.answers(6)
    assert box.takes() == ["chunk 2 x15", "chunk 4 x3", "result 6", "chunk 2 x45"]


def test_turns_are_fair() -> None:
    """R12: of streams that always have something to say, each gets the same."""
    box = Box()
    written = dict.fromkeys(range(2, 22, 2), 0)
    for _ in range(100):
        for id in written:
            while box.has_room(id):
                box.items(id, 1 * KB)
        for frame in box.take():
            assert isinstance(frame, Chunk)
            written[frame.id] += frame.size
    assert max(written.values()) - min(written.values()) <= 64 * KB
    assert sum(written.values()) > 5000 * KB


def test_turns_within_short_messages() -> None:
    """R12, R28: where a whole message is shorter than a turn."""
    box = Box(bytes=2000)
    for id in (2, 4, 6):
        box.items(id, *[100] * 40)
    ids: list[int] = []
    while box:
        frames = box.take()
        assert 1500 < length(frames) <= 2000 or len(ids) > 5
        ids += [frame.id for frame in frames]  # type: ignore[attr-defined]
    assert ids[:6] == [2, 4, 6, 2, 4, 6]


def test_one_that_comes_again_stands_last() -> None:
    box = Box()
    for id in (2, 4, 6):
        box.items(id, 30 * KB)
    assert box.takes() == ["chunk 2 x1", "chunk 4 x1"]
    box.items(2, 1)
    assert box.takes() == ["chunk 6 x1", "chunk 2 x1"]


def test_the_next_in_line_stays_first_where_it_does_not_fit() -> None:
    """A large item is not overtaken for ever by small ones of others."""
    box = Box()
    box.items(2, 30 * KB)
    box.items(4, 50 * KB)
    box.items(6, 1)
    assert box.takes() == ["chunk 2 x1"]
    box.items(2, 1)
    assert box.takes() == ["chunk 4 x1", "chunk 6 x1", "chunk 2 x1"]


def test_an_item_longer_than_a_turn_still_goes() -> None:
    box = Box()
    box.items(2, 20 * KB, 20 * KB)
    box.items(4, 1)
    assert box.takes() == ["chunk 2 x1", "chunk 4 x1", "chunk 2 x1"]


# --- taking back, merging, counting


def test_a_call_that_was_not_written_is_taken_back() -> None:
    """R12."""
    box = Box()
    box.calls(1)
    box.calls(3)
    assert box.unwritten_calls() == [1, 3]
    assert box.remove_opening(1)
    assert not box.remove_opening(1)
    assert box.takes() == ["call 3"]
    assert not box.remove_opening(3)
    assert box.unwritten_calls() == []


def test_waiting_grants_of_one_id_merge() -> None:
    """R24: a consumer that is quicker than the writer costs one frame."""
    box = Box()
    for _ in range(1000):
        box.add_grant(2, 1, 5)
    box.add_grant(4, 7, 0)
    first, second = box.take()
    assert (first.id, first.items, first.bytes) == (2, 1000, 5000)  # type: ignore[attr-defined]
    assert (second.id, second.items, second.bytes) == (4, 7, 0)  # type: ignore[attr-defined]
    box.add_grant(2, 1, 5)
    [third] = box.take()
    assert (third.items, third.bytes) == (1, 5)  # type: ignore[attr-defined]


def test_a_grant_is_forgotten_with_its_stream() -> None:
    box = Box()
    box.add_grant(2, 1, 5)
    box.drop_grant(2)
    box.drop_grant(2)
    assert not box


def test_control_frames_and_refusals_are_counted() -> None:
    """R24: what a peer can cause without reading; grants merge, the rest has other bounds."""
    box = Box()
    assert box.control_bytes == 0
    box.pongs(100)
    one = box.control_bytes
    assert 100 < one < 300
    box.refuses(2, 100)
    assert box.control_bytes == 2 * one
    box.add_grant(2, 1, 1)
    box.calls(1)
    box.answers(4)
    box.items(6, 1)
    box.add_final(JSON.end(6))
    assert box.control_bytes == 2 * one
    box.take()
    assert box.control_bytes == 0


def test_items_of_a_cancelled_stream_are_dropped() -> None:
    """R9: its final frame is not."""
    box = Box()
    box.items(2, 1, 1)
    box.items(4, 1)
    box.drop_items(2)
    box.drop_items(8)
    assert box.takes() == ["chunk 4 x1"]
    box.add_final(JSON.end(2))
    assert box.takes() == ["end 2"]


def test_items_are_dropped_in_front_of_a_final_frame() -> None:
    box = Box()
    box.items(2, 1, 1)
    box.add_final(JSON.end(2))
    box.drop_items(2)
    assert box.takes() == ["end 2"]
    assert not box


@pytest.mark.parametrize("last", [[], [JSON.goaway(1, "PROTOCOL_ERROR")]], ids=["none", "goaway"])
def test_nothing_is_written_behind_the_last_frame(last: list[Frame]) -> None:
    """R27: neither what waited nor what comes after it."""
    box = Box()
    box.pongs(1)
    box.answers(2)
    box.finish(*last)
    assert bool(box) == bool(last)
    box.calls(1)
    box.items(4, 1)
    assert box.take() == last
    assert not box
    assert box.take() == []
    assert box.finished == []


# --- room


def test_a_stream_has_room_for_256_kib() -> None:
    """Credit alone is no bound: the other side grants it, and may grant without reading."""
    box = Box()
    count = 0
    while box.has_room(2):
        box.items(2, 10 * KB)
        count += 1
    assert count == 26
    assert box.has_room(4), "it is each stream's own"
    assert box.unblocked == []
    box.take()
    assert box.unblocked == [2]
    assert box.has_room(2)


def test_a_stream_has_room_for_4096_items() -> None:
    box = Box()
    count = 0
    while box.has_room(2):
        box.items(2, 1)
        count += 1
    assert count == 4096
    assert box.takes() == ["chunk 2 x4096"]
    assert box.unblocked == [2]
    box.items(2, 1)
    box.take()
    assert box.unblocked == [2], "once for each time that it was held back"


# --- for any limits


VERBS = [
    "call",
    "item",
    "item",
    "item",
    "end",
    "fail",
    "answer",
    "ping",
    "refuse",
    "grant",
    "cancel",
    "take",
]
STREAMS = range(1, 13, 2)
UNARY = range(13, 25, 2)


class Speaker:
    """A side that says all that there is to say, to one that takes only so much."""

    def __init__(self, encoding: Encoding, peer: dict[str, Any], wide: str) -> None:
        limits = Limits(max_calls=12, violation_budget=10**6)
        self.talk = Talk("accepting", encoding, limits=limits, announced=peer)
        self.endpoint = self.talk.endpoint
        self.peer, self.wide = peer, wide
        for id in STREAMS:
            self.talk.called(id, window={"items": 10**6, "bytes": 10**9}, priority=id % 4)
        for id in UNARY:
            self.talk.called(id)
        self.sent: dict[int, list[str]] = {id: [] for id in STREAMS}
        self.finals: dict[int, str] = {}
        self.answered: dict[int, str] = {}
        #: Of values in parts: the bytes that are still to come, and those of the whole.
        self.left: dict[Any, int] = {}
        self.partial: dict[Any, int] = {}
        self.calls: list[int] = []
        self.called: dict[int, str] = {}
        self.refused = UNARY[-1]
        self.count = 0
        self.written: list[dict[str, Any]] = []

    def value(self, size: int) -> str:
        self.count += 1
        return f"{self.count} ".ljust(size, "x")

    def item(self, which: int, size: int) -> None:
        for _ in range(1 + size % 7 if STREAMS[which] not in self.finals else 0):
            value = self.value(size)
            self.endpoint.send(STREAMS[which], self.talk.payload(value))
            self.sent[STREAMS[which]].append(value)

    def end(self, which: int, size: int) -> None:
        if STREAMS[which] not in self.finals:
            self.endpoint.end(STREAMS[which])
            self.finals[STREAMS[which]] = "end"

    def fail(self, which: int, size: int) -> None:
        if STREAMS[which] not in self.finals:
            info = ErrorInfo("ABORTED", self.wide * 500, self.wide * size)
            self.endpoint.answer_error(STREAMS[which], info)
            self.finals[STREAMS[which]] = "error"

    def answer(self, which: int, size: int) -> None:
        if UNARY[which] not in self.finals:
            value = self.value(size)
            self.endpoint.answer(UNARY[which], self.talk.payload(value))
            self.finals[UNARY[which]] = "result"
            self.answered[UNARY[which]] = value

    def call(self, which: int, size: int) -> None:
        method = ("m" if self.wide == "\ud800" else self.wide) * (size % 700)
        options: dict[str, Any] = {"timeout": 1.2345678901234567e-300}
        if which % 2:
            options = {"window": Window(2**53 - 1, 2**53 - 1)}
        value = self.value(size)
        args, empty = self.talk.payload(value), self.talk.payload({})
        priority = which - 2
        id = self.endpoint.call(
            method, args, empty, metadata=empty, priority=priority, **options
        ).id
        self.calls.append(id)
        self.called[id] = value

    def ping(self, which: int, size: int) -> None:
        token = "t" * min(size, self.peer["max_message_bytes"] - 200)
        self.talk.hears({"type": "ping", "token": token})

    def refuse(self, which: int, size: int) -> None:
        self.refused += 2
        self.talk.called(self.refused)

    def grant(self, which: int, size: int) -> None:
        for id in self.calls[which : which + 1]:
            if self.talk.state(id) == "CONSUMING":
                self.endpoint.grant(id, 2**52, 2**52)

    def cancel(self, which: int, size: int) -> None:
        for id in self.calls[which : which + 1]:
            self.endpoint.cancel(id, "abort", ErrorInfo("ABORTED", "", self.wide * size))
            self.calls.remove(id)

    def take(self, which: int = 0, size: int = 0) -> bool:
        """One message, which the other side has to take."""
        message = self.endpoint.next_message()
        if message is None:
            return False
        length = len(message.encode() if isinstance(message, str) else message)
        assert length <= self.peer["max_message_bytes"]
        frames = read(message)
        assert 1 <= len(frames) <= self.peer["max_message_frames"]
        assert length <= 64 * KB or len(frames) == 1
        for frame in frames:
            if frame["type"] == "chunk" and "parts" not in frame:
                assert frame["size"] <= self.peer["max_frame_bytes"]
            self.follow_parts(frame)
        self.written += frames
        return True

    def follow_parts(self, frame: dict[str, Any]) -> None:
        """R21: what was announced is what comes, and never too much at once."""
        id = frame.get("id")
        if frame["type"] == "part":
            assert 0 < len(frame["data"]) <= self.peer["max_frame_bytes"]
            self.left[id] -= len(frame["data"])
            if self.left[id] == 0:
                del self.left[id], self.partial[id]
        elif "parts" in frame:
            assert id not in self.left
            self.left[id] = self.partial[id] = frame["parts"]
            assert sum(self.partial.values()) <= self.peer["max_partial_bytes"]
        elif frame["type"] == "cancel":
            self.left.pop(id, None)
            self.partial.pop(id, None)
        elif frame["type"] != "grant":
            assert id not in self.left

    def check(self) -> None:
        """Nothing is lost, and nothing reordered within an id."""
        for id in STREAMS:
            items: list[Any] = []
            ends: list[dict[str, Any]] = []
            for frame in whole(self.talk.encoding, self.of(id)):
                assert not ends
                if frame["type"] == "chunk":
                    items += frame["items"]
                else:
                    ends.append(frame)
            assert items == self.sent[id]
            assert [end["type"] for end in ends] == [
                self.finals[each] for each in (id,) if each in self.finals
            ]
        for id in UNARY:
            finals = whole(self.talk.encoding, self.of(id))
            assert [frame["type"] for frame in finals] == [
                self.finals[each] for each in (id,) if each in self.finals
            ]
            assert [frame.get("value") for frame in finals] == [
                self.answered.get(each) for each in (id,) if each in self.finals
            ]
        assert self.left == self.partial == {}
        calls = [frame["id"] for frame in self.written if frame["type"] == "call"]
        for id in self.calls:
            frames = [frame for frame in self.of(id) if frame["type"] != "grant"]
            [call] = whole(self.talk.encoding, frames)
            assert self.called[id] == call["args"]
        assert calls == sorted(calls)
        assert set(self.calls) <= set(calls)

    def of(self, id: int) -> list[dict[str, Any]]:
        return [frame for frame in self.written if frame.get("id") == id]


@BOTH
@settings(max_examples=settings().max_examples // 2)
@given(
    peer=st.fixed_dictionaries(
        {
            "max_message_bytes": st.integers(1024, 5000) | st.integers(1024, 2**53 - 1),
            "max_message_frames": st.integers(1, 10) | st.integers(1, 2**53 - 1),
            "max_frame_bytes": st.integers(100, 5000) | st.integers(1000, 2**53 - 1),
            "max_partial_bytes": st.integers(5000, 200_000) | st.integers(5000, 2**53 - 1),
        }
    ),
    steps=st.lists(
        st.tuples(
            st.sampled_from(VERBS),
            st.integers(0, 5),
            st.integers(1, 3000) | st.integers(1, 120_000) | st.integers(-400, 0),
        ),
        # Hypothesis keeps near the lower end, and little happens in a few steps.
        min_size=40,
        max_size=80,
    ),
    wide=st.sampled_from(["a", "é", "😀", "\x01", "\ud800", '"']),
)
def test_messages_fit_the_other_side(
    encoding: Encoding, peer: dict[str, Any], steps: list[tuple[str, int, int]], wide: str
) -> None:
    """R1, R26, R28: never too long for any limits, whatever there is to say."""
    speaker = Speaker(encoding, peer, wide)
    for step, which, size in steps:
        if size <= 0:
            # What fits just so, or just not.
            size += min(peer["max_message_bytes"], 64 * KB)
        with contextlib.suppress(ResourceExhausted):
            getattr(speaker, step)(which, size)
    while speaker.take():
        pass
    speaker.check()
