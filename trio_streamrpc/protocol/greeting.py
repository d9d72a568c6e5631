"""What a hello tells of this side's limits, and what this side makes of the other's (R25, R26)."""

from __future__ import annotations

from msgspec import Raw

from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.frames import VERSION, Announced, Family, Hello, WindowInfo
from trio_streamrpc.protocol.outbox import FRAME_BYTES, MESSAGE_BYTES, Outbox

__all__ = ["HELLO_BYTES", "keep_to", "make_hello"]

#: The longest hello, its metadata aside.
HELLO_BYTES = 500


def make_hello(family: Family, limits: Limits, metadata: Raw | None) -> Hello:
    """The hello of a side with these limits."""
    announced = Announced(
        window=WindowInfo(limits.window.items, limits.window.bytes),
        max_calls=limits.max_calls,
        max_message_bytes=limits.max_message_bytes,
        max_message_frames=limits.max_message_frames,
        max_frame_bytes=limits.max_frame_bytes,
        max_value_bytes=limits.max_value_bytes,
        max_partial_bytes=limits.max_partial_bytes,
    )
    frame = family.hello(VERSION, announced)
    if metadata is not None:
        frame.metadata = metadata
    return frame


def keep_to(outbox: Outbox, announced: Announced) -> None:
    """What is written keeps to what the other side accepts, from now on (R26)."""
    outbox.message_bytes = min(MESSAGE_BYTES, announced.max_message_bytes)
    outbox.message_frames = announced.max_message_frames
    outbox.chunk_bytes = min(MESSAGE_BYTES, announced.max_frame_bytes)
    outbox.whole_bytes = min(
        announced.max_frame_bytes,
        announced.max_message_bytes - FRAME_BYTES,
        announced.max_value_bytes,
    )
    outbox.room.limit = announced.max_partial_bytes
