"""The frames of streamrpc/1, one Struct per kind (the table in section 1 of the protocol).

A frame is an array in msgpack and an object in JSON. msgspec's array-like Structs are arrays in
both encodings, so each encoding has its own family: the JSON class derives from the msgpack one
and overrides nothing but the form, so that code which reads frames need not know which it has.

Payloads stay :class:`msgspec.Raw`, in the message's own encoding (R2). An absent payload is an
empty Raw in JSON and nil in msgpack; :func:`is_absent` knows both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Raw, Struct, field

__all__ = [
    "JSON",
    "KINDS",
    "MSGPACK",
    "Announced",
    "Call",
    "Cancel",
    "Chunk",
    "End",
    "Error",
    "ErrorInfo",
    "Family",
    "Frame",
    "Goaway",
    "Grant",
    "Hello",
    "Kind",
    "Overflow",
    "Part",
    "Ping",
    "Pong",
    "Ref",
    "Result",
    "WindowInfo",
    "encodable",
    "is_absent",
]

VERSION = 1

# R5, R15: every integer on the wire is one that a double holds exactly.
Id = Annotated[int, Meta(ge=1, lt=2**53)]
Amount = Annotated[int, Meta(ge=0, lt=2**53)]
Limit = Annotated[int, Meta(ge=1, lt=2**53)]
# What a hello and the error that ends a connection need: less could not be told anything.
MessageLimit = Annotated[int, Meta(ge=1024, lt=2**53)]

# R12: of several ids that have something to say, those with a higher one go first.
Priority = Annotated[int, Meta(ge=-128, le=127)]

_NIL = Raw(b"\xc0")
_NOTHING = Raw()


def is_absent(payload: Raw) -> bool:
    """Whether an optional payload was left out, or sent as null, in either encoding."""
    return len(payload) < 5 and (payload == _NIL or bytes(payload) in (b"", b"null"))


def encodable(text: str) -> str:
    """The text without lone surrogates, which no encoding of the wire can carry (R28)."""
    return text.encode(errors="backslashreplace").decode()


class Kind:
    """A frame's number, which is also its place in every table that has a row per kind."""

    HELLO = 0
    CALL = 1
    RESULT = 2
    ERROR = 3
    CHUNK = 4
    END = 5
    CANCEL = 6
    GRANT = 7
    PART = 8
    PING = 9
    PONG = 10
    GOAWAY = 11


#: The names of the kinds, by number: the ``type`` of the JSON encoding.
KINDS = (
    "hello", "call", "result", "error", "chunk", "end",
    "cancel", "grant", "part", "ping", "pong", "goaway",
)  # fmt: skip


class WindowInfo(Struct, frozen=True):
    """A window as it travels: a map in both encodings."""

    items: Amount
    bytes: Amount


class Announced(Struct, omit_defaults=True):
    """The limits that a ``hello`` tells; what is absent has its default (R26)."""

    window: WindowInfo = WindowInfo(64, 262_144)
    max_calls: Limit = 100
    max_object_calls: Limit = 64
    max_uploads: Limit = 64
    max_message_bytes: MessageLimit = 1_048_576
    max_message_frames: Limit = 4_096
    max_frame_bytes: Limit = 131_072
    max_value_bytes: Limit = 134_217_728
    max_partial_bytes: Limit = 268_435_456


class ErrorInfo(Struct, omit_defaults=True):
    """What an ``error``, or a ``cancel`` with a reason, says (R22)."""

    code: str
    name: str = ""
    message: str = ""
    data: Raw = _NOTHING
    traceback: str | None = None
    causes: list[ErrorInfo] = []


class Ref(Struct, array_like=True):
    """A place in a payload that holds a stream or an object instead of data (R19)."""

    place: int | str
    type: Literal["stream", "object"]
    id: Id


class Frame(Struct, array_like=True):
    """Base of all frames."""

    kind: ClassVar[int]


class Hello(Frame, tag=Kind.HELLO):
    kind: ClassVar[int] = Kind.HELLO
    version: Amount
    limits: Announced | None = None
    features: list[str] = []
    metadata: Raw = _NIL
    session: str | None = None


class Call(Frame, tag=Kind.CALL):
    kind: ClassVar[int] = Kind.CALL
    id: Id
    target: Amount = 0
    method: str = ""
    args: Raw = _NIL
    kwargs: Raw = _NIL
    refs: list[Ref] | None = None
    window: WindowInfo | None = None
    timeout: float | None = None
    metadata: Raw = _NIL
    parts: Amount = 0
    priority: Priority = 0


class Result(Frame, tag=Kind.RESULT):
    kind: ClassVar[int] = Kind.RESULT
    id: Id
    value: Raw = _NIL
    parts: Amount = 0


class Error(Frame, tag=Kind.ERROR):
    kind: ClassVar[int] = Kind.ERROR
    id: Id
    error: ErrorInfo
    cleanup: bool = False
    same: bool = False
    retry: bool = False


class Chunk(Frame, tag=Kind.CHUNK):
    kind: ClassVar[int] = Kind.CHUNK
    id: Id
    items: list[Raw]
    size: Amount
    refs: list[Ref] | None = None
    parts: Amount = 0


class End(Frame, tag=Kind.END):
    kind: ClassVar[int] = Kind.END
    id: Id


class Cancel(Frame, tag=Kind.CANCEL):
    kind: ClassVar[int] = Kind.CANCEL
    id: Id
    mode: Literal["close", "abort"] = "abort"
    error: ErrorInfo | None = None


class Grant(Frame, tag=Kind.GRANT):
    kind: ClassVar[int] = Kind.GRANT
    id: Id
    items: Amount = 0
    bytes: Amount = 0


class Part(Frame, tag=Kind.PART):
    kind: ClassVar[int] = Kind.PART
    id: Id
    # A view, of the value that is cut or of the message that has come: parts are not copied.
    data: memoryview


class Ping(Frame, tag=Kind.PING):
    kind: ClassVar[int] = Kind.PING
    token: Raw = _NIL


class Pong(Frame, tag=Kind.PONG):
    kind: ClassVar[int] = Kind.PONG
    token: Raw = _NIL


class Goaway(Frame, tag=Kind.GOAWAY):
    kind: ClassVar[int] = Kind.GOAWAY
    last_id: Amount = 0
    code: str | None = None
    message: str = ""


class Overflow(Struct):
    """Not a frame, but an event of this side: a chunk beyond the credit was dropped (R16).

    Its stream was told to stop, and fails once the items that fitted have been taken.
    """

    kind: ClassVar[int] = len(KINDS)
    id: int
    info: ErrorInfo


class JsonHello(Hello, array_like=False, tag_field="type", tag="hello", omit_defaults=True):
    metadata: Raw = _NOTHING


class JsonCall(Call, array_like=False, tag_field="type", tag="call", omit_defaults=True):
    args: Raw = _NOTHING
    kwargs: Raw = _NOTHING
    metadata: Raw = _NOTHING


class JsonResult(Result, array_like=False, tag_field="type", tag="result", omit_defaults=True):
    value: Raw = _NOTHING


class JsonError(Error, array_like=False, tag_field="type", tag="error", omit_defaults=True):
    pass


class JsonChunk(Chunk, array_like=False, tag_field="type", tag="chunk", omit_defaults=True):
    pass


class JsonEnd(End, array_like=False, tag_field="type", tag="end", omit_defaults=True):
    pass


class JsonCancel(Cancel, array_like=False, tag_field="type", tag="cancel", omit_defaults=True):
    # Made by a factory, it is never omitted: the mode is what a reader of the wire looks for first.
    mode: Literal["close", "abort"] = field(default_factory=lambda: "abort")


class JsonGrant(Grant, array_like=False, tag_field="type", tag="grant"):
    pass


class JsonPart(Part, array_like=False, tag_field="type", tag="part"):
    # R21: parts are strings here, and never base64.
    data: str  # type: ignore[assignment]  # the one field whose type depends on the encoding


class JsonPing(Ping, array_like=False, tag_field="type", tag="ping", omit_defaults=True):
    token: Raw = _NOTHING


class JsonPong(Pong, array_like=False, tag_field="type", tag="pong", omit_defaults=True):
    token: Raw = _NOTHING


class JsonGoaway(Goaway, array_like=False, tag_field="type", tag="goaway", omit_defaults=True):
    pass


@dataclass(frozen=True, slots=True)
class Family:
    """The frame classes of one encoding, by which the core makes its frames."""

    hello: type[Hello]
    call: type[Call]
    result: type[Result]
    error: type[Error]
    chunk: type[Chunk]
    end: type[End]
    cancel: type[Cancel]
    grant: type[Grant]
    part: type[Part]
    ping: type[Ping]
    pong: type[Pong]
    goaway: type[Goaway]

    def __iter__(self) -> Iterator[type[Frame]]:
        return (getattr(self, name) for name in KINDS)


MSGPACK = Family(Hello, Call, Result, Error, Chunk, End, Cancel, Grant, Part, Ping, Pong, Goaway)
JSON = Family(
    JsonHello, JsonCall, JsonResult, JsonError, JsonChunk, JsonEnd,
    JsonCancel, JsonGrant, JsonPart, JsonPing, JsonPong, JsonGoaway,
)  # fmt: skip
