"""counted.py: what comes in over the byte stream below a WebSocket."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from trio_streamrpc.transports.counted import BLANKS, HANDSHAKE_BYTES, CountedStream
from trio_streamrpc.transports.fragments import AT_ONCE


async def test_a_counted_stream(autojump_clock: MockClock) -> None:
    one, two = memory_stream_pair()
    counted = CountedStream(one, 100)
    await two.send_all(b"x" * 100)
    assert await counted.receive_some(30) == b"x" * 30
    assert counted.unfinished == 30
    assert counted.head == b"x" * 30
    assert await counted.receive_some() == b"x" * 70
    assert counted.head == b"x" * 94
    await counted.wait_send_all_might_not_block()
    await counted.send_all(b"y")
    assert await two.receive_some() == b"y"
    await trio.sleep(5)
    await two.send_all(b"z")
    await counted.receive_some()
    assert counted.last_heard == 5
    assert not counted.exceeded
    with pytest.raises(trio.BrokenResourceError):
        await counted.receive_some()
    assert counted.exceeded
    await counted.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await one.receive_some()


async def test_until_the_handshake_is_done() -> None:
    """Less is read at once, and what would keep h11 busy ends it, however it is cut."""
    one, two = memory_stream_pair()
    counted = CountedStream(one, 1 << 20)
    await two.send_all(b"x" * (HANDSHAKE_BYTES + 1))
    assert len(await counted.receive_some()) == HANDSHAKE_BYTES
    assert len(await counted.receive_some()) == 1
    await two.send_all(b" " * (BLANKS - 1))
    await counted.receive_some()
    await two.send_all(b"\t")
    with pytest.raises(trio.BrokenResourceError, match="too many blanks"):
        await counted.receive_some()


async def test_a_few_frames_at_a_time() -> None:
    """What was read at once, with a checkpoint before each part of it."""
    one, two = memory_stream_pair()
    counted = CountedStream(one, 1 << 20)
    await two.send_all(b"HTTP/1.1 101 \r\n\r\n")
    await counted.receive_some()
    counted.settle()
    ping = b"\x89\x00"
    await two.send_all(ping * (2 * AT_ONCE + 1))
    parts = []
    for _ in range(3):
        with trio.testing.assert_checkpoints():
            parts.append(await counted.receive_some())
    assert b"".join(parts) == ping * (2 * AT_ONCE + 1)
    assert len(parts[0]) < len(ping) * (AT_ONCE + 1)
