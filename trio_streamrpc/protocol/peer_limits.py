"""What a hello tells of this side's limits, and what the other's mean for what is said (R26)."""

from __future__ import annotations

from msgspec import Raw

from trio_streamrpc.errors import ResourceExhausted
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.codecs import Codec
from trio_streamrpc.protocol.frames import VERSION, Announced, Family, Hello, WindowInfo
from trio_streamrpc.protocol.message import FRAME_BYTES, MESSAGE_BYTES
from trio_streamrpc.protocol.outbox import Outbox

__all__ = [
    "CALL_BYTES",
    "HELLO_BYTES",
    "check_value",
    "is_parted",
    "keep_to",
    "make_hello",
    "max_refs",
    "parts_of",
]

#: The longest hello, its metadata aside.
HELLO_BYTES = 500
#: What a call takes beside its payloads, above what any frame does.
CALL_BYTES = 64


def make_hello(family: Family, limits: Limits, metadata: Raw | None) -> Hello:
    """The hello of a side with these limits."""
    announced = Announced(
        window=WindowInfo(limits.window.items, limits.window.bytes),
        max_calls=limits.max_calls,
        max_object_calls=limits.max_object_calls,
        max_uploads=limits.max_uploads,
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
    outbox.whole_bytes = whole_bytes(announced)
    outbox.room.limit = announced.max_partial_bytes


def whole_bytes(peer: Announced) -> int:
    """The longest value that goes to that side in one frame (R21)."""
    return min(peer.max_frame_bytes, peer.max_message_bytes - FRAME_BYTES, peer.max_value_bytes)


def max_refs(limits: Limits | Announced) -> int:
    """How many references a side with these limits takes in one call (R19)."""
    return limits.max_uploads + limits.max_object_calls


def is_parted(peer: Announced, size: int, values: int) -> bool:
    """Whether a call's values travel in parts, of so many bytes, where all else takes ``size``."""
    return (
        values > peer.max_frame_bytes
        or size + values > peer.max_message_bytes - FRAME_BYTES
        or values > peer.max_value_bytes
    )


def parts_of(codec: Codec, peer: Announced, size: int, args: bytes, kwargs: bytes | None) -> int:
    """How many bytes a call's values take in parts.

    Raises :exc:`ResourceExhausted` if these are more than what the other side takes, or if what
    the call takes beside them, ``size``, does not fit into one frame.
    """
    limit = peer.max_message_bytes - FRAME_BYTES
    if size > limit:
        raise _too_long("a call without its arguments", size, limit)
    parts = codec.pair(args, kwargs).left
    check_value(peer, "the arguments", parts)
    return parts


def check_value(peer: Announced, what: str, size: int) -> None:
    """Raise :exc:`ResourceExhausted` for a value that is longer than what the other side takes."""
    # R21: one that is longer than all unfinished values together may be would wait for ever.
    limit = min(peer.max_value_bytes, peer.max_partial_bytes)
    if size > limit:
        raise _too_long(what, size, limit)


def _too_long(what: str, size: int, limit: int) -> ResourceExhausted:
    return ResourceExhausted(
        f"{what} would take {size} bytes; the other side takes at most {limit}"
    )
