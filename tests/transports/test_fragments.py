"""fragments.py: frames are followed through bytes that come in any pieces."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transports.rawsocket import BINARY, CONTINUATION, PING, TEXT, frame
from trio_streamrpc.transports.fragments import AT_ONCE, FrameCounter

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"

#: Lengths on both sides of where the header gets longer.
LENGTHS = [0, 1, 125, 126, 127, 1000, 65_535, 65_536, 70_000]

sent_frames = st.lists(
    st.builds(
        lambda opcode, length, fin: frame(opcode, bytes(length), fin=fin, mask=False),
        st.sampled_from([BINARY, TEXT, CONTINUATION, PING]),
        st.sampled_from([0, 0, 1, 3, 125, 200]),
        st.booleans(),
    ),
    max_size=3 * AT_ONCE,
)


def handed_on(counter: FrameCounter, *reads: bytes) -> list[int]:
    """Where the pieces end, counted from the first byte on, in which these reads are handed on."""
    ends = []
    before = 0
    for data in reads:
        at = 0
        while at < len(data):
            end = counter.cut(data, at)
            assert end > at, "something is always handed on"
            at = end
            ends.append(before + at)
        before += len(data)
    return ends


@given(sent_frames, st.lists(st.integers(0, 2**30), max_size=20))
def test_a_few_frames_at_a_time(frames: list[bytes], cuts: list[int]) -> None:
    """However they come, all of it is handed on, in pieces of so many frames at most."""
    data = HEAD + b"".join(frames)
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    ends = handed_on(FrameCounter(), *(data[a:b] for a, b in pairwise(places)))
    assert ends[-1] == len(data)
    complete, at = [], len(HEAD)
    for each in frames:
        at += len(each)
        complete.append(at)
    for start, end in pairwise([0, *ends]):
        # One may have begun in the piece before.
        assert sum(start < place <= end for place in complete) <= AT_ONCE + 1
    # Nothing is cut for another reason.
    assert len(ends) <= len(places) - 1 + len(frames) // AT_ONCE + 1


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
@pytest.mark.parametrize("piece", [1, 2, 3, 1000])
def test_the_end_of_a_head(end: bytes, piece: int) -> None:
    """It is where the WebSocket library finds it, which takes line feeds alone as well."""
    data = b"GET / HTTP/1.1\r\nHost: h" + end + frame(BINARY, fin=False) + frame(CONTINUATION)
    counter = FrameCounter()
    most = 0
    for start in range(0, len(data), piece):
        read = data[start : start + piece]
        assert counter.cut(read) == len(read)
        most = max(most, counter.fragments)
    assert counter.fragments == 0
    assert most == 1 or piece == 1000
    frames = frame(CONTINUATION, b"x", fin=False) * (AT_ONCE + 1)
    assert counter.cut(frames) < len(frames)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("mask", [False, True])
def test_byte_by_byte(length: int, mask: bool) -> None:
    """The frame behind one of any length is found, wherever the bytes are cut."""
    first = frame(BINARY, os.urandom(length), fin=False, mask=mask)
    second = frame(CONTINUATION, b"x", fin=False, mask=mask)
    counter = FrameCounter()
    for byte in HEAD:
        assert counter.cut(bytes([byte])) == 1
    # Of a long payload not all bytes are worth a look.
    for at in range(min(20, len(first))):
        assert counter.cut(first[at : at + 1]) == 1
    rest = first[20:]
    assert counter.cut(rest) == len(rest)
    assert counter.fragments == 1
    for byte in second:
        assert counter.cut(bytes([byte])) == 1
    assert counter.fragments == 2
    assert counter.cut(frame(PING, mask=mask)) == len(frame(PING, mask=mask))
    assert counter.fragments == 2, "a control frame is none"
    last = frame(CONTINUATION, b"", mask=mask)
    assert counter.cut(last) == len(last)
    assert counter.fragments == 0
