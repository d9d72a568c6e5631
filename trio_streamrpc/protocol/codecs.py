"""Message ↔ frames, in both encodings, bounded before anything is built (R2, R4, R28).

A message is decoded by one call. Only when that fails are its frames taken one by one, to tell an
unknown kind that is to be ignored from a message that is wrong (R4).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypeVar, Union

import msgspec
from msgspec import Meta, Raw, Struct

from trio_streamrpc.protocol import frames, reactions
from trio_streamrpc.protocol.frames import Family, Frame
from trio_streamrpc.protocol.parts import Slices

__all__ = ["Codec", "Encoding", "JsonCodec", "MsgpackCodec", "codec_for"]

Encoding = Literal["msgpack", "json"]
T = TypeVar("T")

# What msgspec raises on input of any kind: its own errors, RecursionError for what is nested too
# deeply, UnicodeError for bad text, ValueError for integers of thousands of digits (R28).
UNDECODABLE = (msgspec.MsgspecError, RecursionError, ValueError, OverflowError)


class _Header(Struct, array_like=True):
    kind: int


class _JsonHeader(Struct):
    type: str


class Codec(ABC):
    """One encoding of messages: bytes or text ↔ a list of frames."""

    encoding: Encoding
    #: The frame classes of this encoding.
    family: Family
    #: A payload that is null, and one that is not: what a ping carries whose pong is looked for.
    null: Raw
    mark: Raw
    #: Whether values are text: their parts are strings then (R21).
    is_text: bool

    def __init__(self, *, max_bytes: int, max_frames: int) -> None:
        self.max_bytes = max_bytes
        self.max_frames = max_frames

    @abstractmethod
    def encode(self, batch: Iterable[Frame]) -> bytes | str:
        """One message out of some frames."""

    @abstractmethod
    def decode(self, message: bytes | str) -> list[Frame] | None:
        """The frames of one message, without those of unknown kinds that are to be ignored (R4).

        None if the message is empty, which is not the same: it breaks a rule (R1). Raises
        :exc:`RemoteProtocolError` for what is no message: nothing of it has been processed then.
        """

    @abstractmethod
    def length(self, value: str | frames.ErrorInfo) -> int:
        """How many bytes that part of a frame takes; UnicodeError if it is no valid text."""

    def shortened(self, info: frames.ErrorInfo, limit: int) -> tuple[frames.ErrorInfo, int]:
        """The error, or what of it takes at most that many bytes, and how many it takes (R21)."""
        try:
            size = self.length(info)
        except UnicodeError:
            size = limit + 1
        if size > limit:
            # A character takes up to six bytes.
            info = frames.ErrorInfo(
                info.code,
                frames.encodable(info.name)[: min(100, limit // 48)],
                frames.encodable(info.message)[: limit // 8],
            )
            size = self.length(info)
        return info, size

    @abstractmethod
    def pair(self, args: bytes, kwargs: bytes | None) -> Slices:
        """What a call has in parts: an array of its two payloads (R21)."""

    @abstractmethod
    def split(self, value: bytearray) -> tuple[Raw, Raw]:
        """The two payloads again; ValueError for what is no such array."""

    @abstractmethod
    def check(self, value: bytearray) -> None:
        """ValueError for what is not one whole value of this encoding (R28)."""


class MsgpackCodec(Codec):
    """Binary messages, each a msgpack array of frames."""

    encoding: Encoding = "msgpack"
    family = frames.MSGPACK
    null = Raw(b"\xc0")
    mark = Raw(b"\x01")
    is_text = False

    def __init__(self, *, max_bytes: int, max_frames: int) -> None:
        super().__init__(max_bytes=max_bytes, max_frames=max_frames)
        self._encode = msgspec.msgpack.Encoder().encode
        self._decoders = _msgpack_decoders(max_frames)

    def encode(self, batch: Iterable[Frame]) -> bytes | str:
        return self._encode(batch)

    def decode(self, message: bytes | str) -> list[Frame] | None:
        if isinstance(message, str):
            raise reactions.WRONG_KIND_OF_MESSAGE.error("text", "binary")
        if len(message) > self.max_bytes:
            raise reactions.MESSAGE_TOO_LONG.error(len(message), self.max_bytes)
        whole, raws, header, one = self._decoders
        try:
            return whole(message) or None
        except UNDECODABLE:
            return _one_by_one(
                message, raws, one, lambda raw: header(raw).kind, lambda kind: kind < 64
            )

    def length(self, value: str | frames.ErrorInfo) -> int:
        return len(self._encode(value))

    def pair(self, args: bytes, kwargs: bytes | None) -> Slices:
        return Slices(b"\x92", args, b"\xc0" if kwargs is None else kwargs, text=False)

    def split(self, value: bytearray) -> tuple[Raw, Raw]:
        return _decoded(_msgpack_pair, value)

    def check(self, value: bytearray) -> None:
        _decoded(_msgpack_value, value)


class JsonCodec(Codec):
    """Text messages, each an array of frame objects or one bare frame object."""

    encoding: Encoding = "json"
    family = frames.JSON
    null = Raw(b"null")
    mark = Raw(b"1")
    is_text = True

    def __init__(self, *, max_bytes: int, max_frames: int) -> None:
        super().__init__(max_bytes=max_bytes, max_frames=max_frames)
        self._encode = msgspec.json.Encoder().encode
        self._decoders = _json_decoders(max_frames)

    def encode(self, batch: Iterable[Frame]) -> bytes | str:
        return self._encode(batch).decode()

    def decode(self, message: bytes | str) -> list[Frame] | None:
        if not isinstance(message, str):
            raise reactions.WRONG_KIND_OF_MESSAGE.error("binary", "text")
        # The limit counts bytes; characters are only ever fewer.
        if len(message) > self.max_bytes:
            raise reactions.MESSAGE_TOO_LONG.error(len(message), self.max_bytes)
        try:
            data = message.encode()
        except UnicodeEncodeError as error:
            raise reactions.NOT_UTF8.error(error.reason) from None
        if len(data) > self.max_bytes:
            raise reactions.MESSAGE_TOO_LONG.error(len(data), self.max_bytes)
        whole, raws, header, one = self._decoders
        if data[:1] != b"[" and data.lstrip(b" \t\r\n")[:1] == b"{":
            raws = _alone
            whole = _just(one)
        try:
            return whole(data) or None
        except UNDECODABLE:
            return _one_by_one(
                data, raws, one, lambda raw: header(raw).type, lambda name: name[:2] != "x-"
            )

    def length(self, value: str | frames.ErrorInfo) -> int:
        return len(self._encode(value))

    def pair(self, args: bytes, kwargs: bytes | None) -> Slices:
        return Slices(b"[", args, b",", b"null" if kwargs is None else kwargs, b"]", text=True)

    def split(self, value: bytearray) -> tuple[Raw, Raw]:
        return _decoded(_json_pair, value)

    def check(self, value: bytearray) -> None:
        _decoded(_json_value, value)


# What a value is made of is left as it is: no more is built than what is asked for.
_msgpack_pair = msgspec.msgpack.Decoder(tuple[Raw, Raw]).decode
_msgpack_value = msgspec.msgpack.Decoder(Raw).decode
_json_pair = msgspec.json.Decoder(tuple[Raw, Raw]).decode
_json_value = msgspec.json.Decoder(Raw).decode


def _decoded(decode: Callable[[bytearray], T], value: bytearray) -> T:
    try:
        return decode(value)
    except UNDECODABLE as error:
        raise ValueError(_shortly(error)) from None


@functools.cache
def codec_for(encoding: str, *, max_bytes: int, max_frames: int) -> Codec:
    """The codec of that name; ValueError if there is none. It keeps nothing of what it codes."""
    for each in (MsgpackCodec, JsonCodec):
        if each.encoding == encoding:
            return each(max_bytes=max_bytes, max_frames=max_frames)
    raise ValueError(f'encoding must be "msgpack" or "json", not {encoding!r}')


@functools.cache
def _msgpack_decoders(max_frames: int) -> tuple[Any, Any, Any, Any]:
    kinds: Any = Union[tuple(frames.MSGPACK)]  # noqa: UP007  # of a tuple
    length = Meta(max_length=max_frames)
    make = msgspec.msgpack.Decoder
    return (
        make(Annotated[list[kinds], length]).decode,
        make(Annotated[list[Raw], length]).decode,
        make(_Header).decode,
        make(kinds).decode,
    )


@functools.cache
def _json_decoders(max_frames: int) -> tuple[Any, Any, Any, Any]:
    kinds: Any = Union[tuple(frames.JSON)]  # noqa: UP007  # of a tuple
    length = Meta(max_length=max_frames)
    make = msgspec.json.Decoder
    return (
        make(Annotated[list[kinds], length]).decode,
        make(Annotated[list[Raw], length]).decode,
        make(_JsonHeader).decode,
        make(kinds).decode,
    )


def _alone(data: bytes) -> list[bytes]:
    return [data]


def _just(one: Any) -> Any:
    return lambda data: [one(data)]


def _one_by_one(data: bytes, raws: Any, one: Any, kind_of: Any, reserved: Any) -> list[Frame]:
    """Decode again what failed as a whole; R4: only unknown kinds above the reserved may fail."""
    found: list[Frame] = []
    try:
        for raw in raws(data):
            try:
                found.append(one(raw))
            except msgspec.ValidationError:
                kind = kind_of(raw)
                if kind in frames.KINDS or kind in range(len(frames.KINDS)):
                    raise
                if reserved(kind):
                    raise reactions.UNKNOWN_KIND.error(repr(str(kind)[:40])) from None
    except UNDECODABLE as error:
        raise reactions.UNDECODABLE.error(_shortly(error)) from None
    return found


def _shortly(error: BaseException) -> str:
    return ascii(str(error))[1:-1][:200]
