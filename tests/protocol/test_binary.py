"""binary.py: long byte strings without copies."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.wire import deliver, pair
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol.binary import BINARY_BYTES, Binary, Gathering, pieces_of
from trio_streamrpc.protocol.frames import Chunk, Result

LONG = bytes(range(256)) * (BINARY_BYTES // 256)


def test_its_pieces_are_its_encoding() -> None:
    binary = Binary(LONG)
    encoded = msgspec.msgpack.encode(LONG)
    assert b"".join(pieces_of(binary)) == bytes(binary.joined()) == encoded
    assert len(binary) == len(encoded)
    assert binary.copy() is binary
    assert pieces_of(binary)[1].obj is LONG
    assert b"".join(pieces_of(encoded)) == encoded
    assert b"".join(pieces_of(msgspec.Raw(encoded))) == encoded


def gathered(data: bytes, cuts: list[int], *, binary: bool = True) -> bytearray | Binary:
    gathering = Gathering(len(data), binary=binary)
    places = sorted({0, *(cut % len(data) for cut in cuts), len(data)})
    for start, end in itertools.pairwise(places):
        gathering.add(memoryview(data)[start:end])
    return gathering.take()


@given(st.lists(st.integers(0, 8) | st.integers(0, 2**30), max_size=10))
def test_it_comes_together_however_it_is_cut(cuts: list[int]) -> None:
    found = gathered(bytes(Binary(LONG).joined()), cuts)
    assert isinstance(found, Binary)
    assert found.body == LONG


@pytest.mark.parametrize(
    "data",
    [
        # A byte below the least length; a text; a header that says another length than was
        # announced, by one more or less.
        msgspec.msgpack.encode(LONG[: BINARY_BYTES - 6]),
        msgspec.msgpack.encode("x" * BINARY_BYTES),
        b"\xc6" + (len(LONG) + 1).to_bytes(4, "big") + LONG,
        b"\xc6" + (len(LONG) - 1).to_bytes(4, "big") + LONG,
        b"\xc6\0\0",
    ],
    ids=["short", "text", "longer", "shorter", "torn"],
)
def test_anything_else_comes_as_it_is(data: bytes) -> None:
    assert gathered(data, [1, 3, 7]) == bytearray(data)


def test_what_may_be_none_comes_as_it_is() -> None:
    data = bytes(Binary(LONG).joined())
    assert gathered(data, [1, 3, 7], binary=False) == bytearray(data)


def test_nothing_is_copied() -> None:
    size = 16 * 1024 * 1024
    source = bytes(size)
    tracemalloc.start()
    try:
        gathering = Gathering(size + 5, binary=True)
        for piece in pieces_of(Binary(source)):
            for at in range(0, len(piece), 65536):
                gathering.add(piece[at : at + 65536])
        found = gathering.take()
        assert isinstance(found, Binary)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.body == source
    # What comes together is made a little larger than it is as yet, again and again.
    assert size < peak < 1.2 * size


# --- between two endpoints


@pytest.mark.parametrize("size", [BINARY_BYTES - 6, BINARY_BYTES - 5, BINARY_BYTES, 10**6])
@pytest.mark.parametrize("max_frame_bytes", [128 * 1024, 2 * 1024 * 1024])
def test_results_and_items(size: int, max_frame_bytes: int) -> None:
    """However they are sent, in parts or whole, the same arrives (R21)."""
    limits = Limits(max_frame_bytes=max_frame_bytes, max_message_bytes=4 * 1024 * 1024)
    data = bytes(size)
    for sent in (Binary(data), msgspec.msgpack.encode(data)):
        client, server = pair("msgpack", limits=limits, accepting=limits)
        call = client.call("large", b"\x90")
        stream = client.call("many", b"\x90", window=Window())
        deliver(client, server)
        server.answer(call.id, sent)
        server.send(stream.id, sent)
        server.end(stream.id)
        found: list[Any] = []
        for event in deliver(server, client):
            found += [event.value] if isinstance(event, Result) else []
            found += event.items if isinstance(event, Chunk) else []
        for each in found:
            raw = each.joined() if isinstance(each, Binary) else each
            assert msgspec.msgpack.decode(raw) == data
            assert len(each) == len(sent)
        assert len(found) == 2
