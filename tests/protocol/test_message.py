"""message.py: what goes into one message (R1)."""

from __future__ import annotations

from trio_streamrpc.protocol.frames import JSON
from trio_streamrpc.protocol.message import FRAME_BYTES, Message

FRAME = JSON.end(1)


def test_the_first_frame_always_fits() -> None:
    """R1: one larger frame goes alone."""
    message = Message(room=100, limit=1)
    assert message.fits(10_000)
    assert message.add(FRAME, 10_000)
    assert message.frames == [FRAME]
    assert not message.fits(0)


def test_bytes_are_counted() -> None:
    message = Message(room=2 * FRAME_BYTES + 10, limit=5)
    message.put(FRAME, 4)
    assert message.room == FRAME_BYTES + 6
    assert not message.add(FRAME, 7)
    assert message.add(FRAME, 6)
    assert message.room == 0


def test_frames_are_counted() -> None:
    """R28: the other side's max_message_frames."""
    message = Message(room=10_000, limit=2)
    assert [message.add(FRAME) for _ in range(3)] == [True, True, False]
    assert len(message.frames) == 2
