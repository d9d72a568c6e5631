"""What ``protocol.codecs`` promises for every encoding, as checks over any codec (R2, R4, R28).

Nothing is asked of the encoding but what a codec says of itself: its frame classes, a payload that
is null and one that is not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from msgspec import Raw, structs

from trio_streamrpc.errors import RemoteProtocolError
from trio_streamrpc.protocol.codecs import Codec
from trio_streamrpc.protocol.frames import (
    KINDS,
    Announced,
    ErrorInfo,
    Frame,
    Part,
    Ref,
    WindowInfo,
    is_absent,
)

__all__ = ["CODEC_CHECKS", "check_codec"]

#: The highest integer on the wire (R5, R15).
MOST: Final = 2**53 - 1
#: How many damaged messages are tried.
DAMAGED: Final = 3_000
#: How deep what is nested too deeply is nested.
DEPTH: Final = 100_000


def check_codec(codec: Codec) -> None:
    """Check that a codec keeps what :class:`~trio_streamrpc.protocol.codecs.Codec` promises.

    Its ``max_bytes`` is to be from 4 KiB to some MiB, and its ``max_frames`` from 32 to some
    thousands: messages of these lengths are made. The same is done each time.

    Raises :exc:`AssertionError` for the first promise that is not kept, or what the codec raised
    instead of :exc:`~trio_streamrpc.RemoteProtocolError`; a note says which check it was.
    """
    for check in CODEC_CHECKS:
        try:
            check(codec)
        except Exception as error:
            error.add_note(f"in {check.__name__}(): {check.__doc__}")
            raise


def samples(codec: Codec) -> list[Frame]:
    """Frames of every kind: as short as they can be, and with everything in them."""
    make, null, mark = codec.family, codec.null, codec.mark
    info = ErrorInfo("UNKNOWN", "E", 'é€😀\t"\\', mark, "trace", [ErrorInfo("ABORTED")])
    window, refs = WindowInfo(0, MOST), [Ref(0, "stream", 3), Ref("né", "object", MOST)]
    part: Any = "é" if codec.is_text else memoryview(b"\x00\xff")
    return [
        make.hello(1),
        make.hello(1, Announced(window=window, max_calls=MOST), ["a"], mark, "s"),
        make.call(1),
        make.call(MOST, MOST, "né.x", null, mark, refs, window, 0.5, mark, MOST, -128),
        make.result(1),
        make.result(MOST, mark, MOST),
        make.error(1, ErrorInfo("UNKNOWN")),
        make.error(1, info, cleanup=True, same=True, retry=True),
        make.chunk(1, [], 0),
        make.chunk(1, [null, mark, mark], 3, refs[:1], MOST),
        make.end(1),
        make.cancel(1, "close"),
        make.cancel(1, "abort", info),
        make.grant(1, MOST, 0),
        make.part(1, part),
        make.ping(),
        make.ping(mark),
        make.pong(mark),
        make.goaway(),
        make.goaway(MOST, "UNAVAILABLE", "é"),
    ]


def plain(frame: Frame) -> dict[str, Any]:
    """What a frame says, comparably: its payloads as bytes, absent ones as None."""
    found: dict[str, Any] = {"kind": frame.kind}
    for name, value in structs.asdict(frame).items():
        found[name] = _plain(value)
    if isinstance(frame, Part) and isinstance(found["data"], str):
        found["data"] = found["data"].encode()
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Raw):
        return None if is_absent(value) else bytes(value)
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if hasattr(value, "__struct_fields__"):
        return {name: _plain(each) for name, each in structs.asdict(value).items()}
    return value


def decoded(codec: Codec, message: bytes | str) -> list[Frame] | None:
    """The frames of a message, or None if it is refused as it should be."""
    try:
        return codec.decode(message) or []
    except RemoteProtocolError as error:
        assert error.close_code in (1002, 1003, 1007, 1009), f"closed with {error.close_code}"
        assert len(error.message) <= 400, "the peer's bytes make the message long"
        assert error.message.isascii(), "the peer's bytes are unescaped in the message"
        return None


def refuses(codec: Codec, message: bytes | str, what: str) -> None:
    """The message is a RemoteProtocolError."""
    assert decoded(codec, message) is None, f"{what} was taken"


# --- the checks


def frames_come_back(codec: Codec) -> None:
    """Every kind of frame, alone and in one message with all others (R1, R2)."""
    frames = samples(codec)
    assert {frame.kind for frame in frames} == set(range(len(KINDS)))
    for frame in frames:
        message = codec.encode([frame])
        assert isinstance(message, str if codec.is_text else bytes), (
            f"{type(message)} is no message"
        )
        found = codec.decode(message)
        assert found is not None, f"{frame} is lost"
        [back] = found
        assert type(back) is type(frame), f"{frame} came back as {back}"
        assert plain(back) == plain(frame), f"{frame} came back as {back}"
    together = codec.decode(codec.encode(frames))
    assert together is not None, "many frames are an empty message"
    assert [plain(each) for each in together] == [plain(each) for each in frames]


def the_empty_message_is_told_apart(codec: Codec) -> None:
    """It breaks a rule, and is no error of its encoding (R1)."""
    assert codec.decode(codec.encode([])) is None


def every_truncation_is_refused(codec: Codec) -> None:
    """And whatever stands behind a message (R28)."""
    message = codec.encode(samples(codec))
    for length in range(len(message)):
        refuses(codec, message[:length], f"a message cut after {length} of {len(message)}")
    refuses(codec, message + message, "a message behind a message")  # type: ignore[operator]


def the_other_kind_of_message_is_refused(codec: Codec) -> None:
    """Text where binary was agreed, and the reverse (R3)."""
    message = codec.encode([codec.family.end(1)])
    other: bytes | str = message.encode() if isinstance(message, str) else message.decode("latin-1")
    try:
        codec.decode(other)
    except RemoteProtocolError as error:
        assert error.close_code == 1003, f"closed with {error.close_code}"
    else:
        raise AssertionError("the other kind of message was taken")


def limits_are_exact(codec: Codec) -> None:
    """What is equal to a limit passes, and one more fails, in bytes and in frames (R28)."""
    end = codec.family.end(1)
    for count in (codec.max_frames, codec.max_frames + 1):
        message = codec.encode([end] * count)
        if length(message) <= codec.max_bytes:
            taken = decoded(codec, message)
            assert (taken is not None) == (count <= codec.max_frames), f"{count} frames"
    for excess in (0, 1):
        message = padded(codec, codec.max_bytes + excess)
        taken = decoded(codec, message)
        assert (taken is not None) == (excess == 0), f"{length(message)} bytes"


def padded(codec: Codec, size: int) -> bytes | str:
    """A message of exactly that many bytes: a goaway that says so much."""
    text = "x" * max(size - 64, 0)
    while (missing := size - length(codec.encode([codec.family.goaway(0, "A", text)]))) > 0:
        text += "x" * missing
    message = codec.encode([codec.family.goaway(0, "A", text[: len(text) + missing])])
    assert length(message) == size, "a text grows by one byte for each character"
    return message


def length(message: bytes | str) -> int:
    return len(message.encode() if isinstance(message, str) else message)


def values_out_of_range_are_refused(codec: Codec) -> None:
    """Ids, amounts and priorities that the protocol does not have (R5, R12, R15)."""
    make: Any = codec.family
    for frame in (
        make.end(0), make.end(-1), make.end(MOST + 1), make.end(True), make.end(1.5), make.end("1"),
        make.grant(1, -1, 0), make.grant(1, 0, MOST + 1), make.chunk(1, [], -1),
        make.call(1, priority=128), make.call(1, parts=-1), make.call(1, window=WindowInfo(-1, 0)),
        make.cancel(1, "later"), make.hello(-1), make.chunk(1, None, 0),
    ):  # fmt: skip
        refuses(codec, codec.encode([frame]), f"{frame}")


def damage_is_refused_or_read(codec: Codec) -> None:
    """Whatever the bytes: frames, or RemoteProtocolError, and nothing else (R28)."""
    source = random.Random(0)
    message = codec.encode(samples(codec))
    original = message.encode() if isinstance(message, str) else message
    for _ in range(DAMAGED):
        data = bytearray(original)
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(data))
            how = source.randrange(4)
            if how == 0:
                data[at] = source.randrange(256)
            elif how == 1:
                del data[at : at + source.randint(1, 9)]
            elif how == 2:
                data[at:at] = bytes(source.randbytes(source.randint(1, 9)))
            else:
                data[at:at] = data[source.randrange(len(data)) :][:20]
            if not data:
                break
        damaged = bytes(data)
        frames = decoded(
            codec, damaged.decode("utf-8", "surrogateescape") if codec.is_text else damaged
        )
        for frame in frames or ():
            assert isinstance(frame, Frame), f"{frame!r} is no frame"


def nesting_is_bounded(codec: Codec) -> None:
    """What is nested too deeply is refused before it is built (R28)."""
    for opening in (b"[", b'{"a":', b"\x91", b"\x81\xa1a"):
        data = opening * min(DEPTH, codec.max_bytes // len(opening))
        message = data.decode("latin-1") if codec.is_text else data
        refuses(codec, message, f"{opening!r}, nested {DEPTH} times,")


def lengths_are_true(codec: Codec) -> None:
    """length() counts bytes; shortened() keeps to its limit and to valid text (R21)."""
    for text in ("é€😀", '\t"\\', "x" * 1000):
        grown = length(codec.encode([codec.family.goaway(0, "A", text)]))
        short = length(codec.encode([codec.family.goaway(0, "A", "x")]))
        # A longer text may have a longer length in front of it.
        more = codec.length(text) - codec.length("x")
        assert abs(grown - short - more) <= 8, f"{text[:20]!r} takes {grown - short} bytes more"
    for info in (
        ErrorInfo("UNKNOWN", "E", "no"),
        ErrorInfo("UNKNOWN", "É" * 1000, "é\x00" * 10_000, codec.mark),
        ErrorInfo("UNKNOWN", "\ud800", "\udfff" * 10),
    ):
        told, size = codec.shortened(info, 1024)
        assert size <= 1024, f"{size} bytes where 1024 were the limit"
        assert size == codec.length(told), "its length is another one"
        found = codec.decode(codec.encode([codec.family.error(1, told)]))
        assert found is not None, "an error that was shortened is lost"
        assert plain(found[0])["error"]["code"] == "UNKNOWN"


def arguments_come_back_from_parts(codec: Codec) -> None:
    """pair() and split() are inverse; what is no pair, and no value, is a ValueError (R21)."""
    null, mark = bytes(codec.null), bytes(codec.mark)
    for args, kwargs in ((mark, None), (mark, mark), (null, mark)):
        slices, data = codec.pair(args, kwargs), bytearray()
        while slices.left:
            piece = slices.cut(3)
            data += piece.encode() if isinstance(piece, str) else piece
        first, second = codec.split(data)
        assert bytes(first) == args, "the arguments are others"
        assert (None if is_absent(second) else bytes(second)) == kwargs, "the named ones are others"
    codec.check(bytearray(mark))
    for wrong in (b"", null + null):
        for operation in (codec.check, codec.split):
            try:
                operation(bytearray(wrong))
            except ValueError:
                continue
            raise AssertionError(f"{operation.__name__}() has taken {wrong!r}")


#: Every check, in the order in which they are made.
CODEC_CHECKS: Final[tuple[Callable[[Codec], None], ...]] = (
    frames_come_back,
    the_empty_message_is_told_apart,
    every_truncation_is_refused,
    the_other_kind_of_message_is_refused,
    limits_are_exact,
    values_out_of_range_are_refused,
    damage_is_refused_or_read,
    nesting_is_bounded,
    lengths_are_true,
    arguments_come_back_from_parts,
)
