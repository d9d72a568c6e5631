"""peer_limits.py: what a hello tells, and what it means for what is said (R26)."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw

from trio_streamrpc.errors import ResourceExhausted
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol.codecs import codec_for
from trio_streamrpc.protocol.frames import JSON, MSGPACK, Announced, Family
from trio_streamrpc.protocol.outbox import Outbox
from trio_streamrpc.protocol.peer_limits import (
    HELLO_BYTES,
    check_value,
    is_parted,
    keep_to,
    make_hello,
    parts_of,
)

FAMILIES = pytest.mark.parametrize("family", [MSGPACK, JSON], ids=["msgpack", "json"])


@FAMILIES
def test_a_hello_tells_the_limits(family: Family) -> None:
    """R25, R26."""
    limits = Limits(window=Window(3, 400), max_calls=5, max_value_bytes=600, max_partial_bytes=700)
    hello = make_hello(family, limits, None)
    assert isinstance(hello, family.hello)
    assert hello.limits is not None
    for name in hello.limits.__struct_fields__:
        if name not in {"window", "max_object_calls", "max_uploads"}:
            assert getattr(hello.limits, name) == getattr(limits, name)
    assert (hello.limits.window.items, hello.limits.window.bytes) == (3, 400)
    assert bytes(make_hello(family, limits, Raw(b"1")).metadata) == b"1"


@FAMILIES
def test_the_longest_hello(family: Family) -> None:
    """R28: it fits into what every side takes."""
    most = 2**53 - 1
    limits = Limits(
        window=Window(most, most), max_window=Window(most, most), max_calls=most,
        max_message_bytes=most, max_message_frames=most, max_frame_bytes=most,
        max_value_bytes=most, max_partial_bytes=most,
    )  # fmt: skip
    hello = [make_hello(family, limits, None)]
    assert len(msgspec.json.encode(hello)) <= HELLO_BYTES
    assert len(msgspec.msgpack.encode(hello)) <= HELLO_BYTES


def test_what_is_written_keeps_to_them() -> None:
    """R26, R28."""
    outbox = Outbox(JSON, lambda frame: None)
    keep_to(outbox, Announced())
    assert (outbox.message_bytes, outbox.message_frames) == (64 * 1024, 4096)
    assert (outbox.chunk_bytes, outbox.whole_bytes) == (64 * 1024, 128 * 1024)
    assert outbox.room.limit == 256 * 1024 * 1024
    keep_to(outbox, Announced(max_message_bytes=2000, max_message_frames=3, max_partial_bytes=5))
    assert (outbox.message_bytes, outbox.message_frames, outbox.room.limit) == (2000, 3, 5)
    assert outbox.whole_bytes == 1888
    keep_to(outbox, Announced(max_frame_bytes=700, max_value_bytes=600))
    assert (outbox.chunk_bytes, outbox.whole_bytes) == (700, 600)


@pytest.mark.parametrize(
    ("peer", "size", "values"),
    [
        (Announced(max_frame_bytes=100), 500, 100),
        (Announced(max_value_bytes=100), 500, 100),
        (Announced(max_message_bytes=2000), 1000, 888),
    ],
)
def test_what_travels_in_parts(peer: Announced, size: int, values: int) -> None:
    """R21: at the limit it goes whole, one byte beyond it does not."""
    assert not is_parted(peer, size, values)
    assert is_parted(peer, size, values + 1)


@pytest.mark.parametrize(("encoding", "more"), [("msgpack", 1), ("json", 3)])
def test_the_length_of_a_pair(encoding: str, more: int) -> None:
    """R21: an array of two, null where there are no keyword arguments."""
    codec = codec_for(encoding, max_bytes=1, max_frames=1)
    null = len(codec.null)
    assert parts_of(codec, Announced(), 100, b"12345", b"123") == 8 + more
    assert parts_of(codec, Announced(), 100, b"12345", None) == 5 + null + more
    with pytest.raises(ResourceExhausted, match="takes at most 1888"):
        parts_of(codec, Announced(max_message_bytes=2000), 1889, b"1", None)
    assert parts_of(codec, Announced(max_message_bytes=2000), 1888, b"1", b"1") == 2 + more


@pytest.mark.parametrize("peer", [Announced(max_value_bytes=100), Announced(max_partial_bytes=100)])
def test_a_value_that_is_too_long(peer: Announced) -> None:
    """R21: and one that would wait for ever."""
    check_value(peer, "the item", 100)
    with pytest.raises(ResourceExhausted, match=r"the item would take 101 bytes; .* at most 100"):
        check_value(peer, "the item", 101)
