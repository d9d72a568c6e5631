"""The rule of reaction: what each breach of the protocol ends, what it costs, how it is told.

A broken envelope or lifecycle is a *connection error*: ``goaway`` with its code, and the transport
is closed. A bad payload or an exhausted quota fails *that call or stream*, and the connection
lives; what only a peer who breaks the rules can cause costs from the connection's *violation
budget* besides, and an empty budget is a connection error. Never anything else.

Whatever a peer can do wrong has its entry here. Where it is found, the entry is raised, answered
or spent by its name, so that no code, close code or cost stands anywhere else; the table in
``docs/protocol.md`` is made of these entries, in this order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trio_streamrpc.errors import Code, RemoteProtocolError
from trio_streamrpc.protocol.frames import ErrorInfo

__all__ = ["Breach"]

# How WebSocket tells it: RFC 6455, section 7.4.1.
PROTOCOL, WRONG_KIND, UNDECODABLE_DATA, POLICY, TOO_BIG = 1002, 1003, 1007, 1008, 1009


@dataclass(frozen=True, slots=True, eq=False)
class Breach:
    """One thing that a peer can do wrong."""

    #: In words, as the document has it, and the rule that it breaks.
    what: str
    rule: str
    #: What it ends. "nothing": what came is dropped.
    ends: Literal["connection", "call", "stream", "nothing"]
    #: How it is told: the error's code, and the words, with places for the details.
    code: Code | None = None
    says: str = ""
    #: How the transport is closed, where it ends the connection.
    close_code: int | None = None
    #: What it takes from the violation budget.
    cost: int = 0
    #: Whether the call was surely not run, and may be sent again.
    retry: bool = False

    def message(self, *details: object) -> str:
        """The words that tell it."""
        return (self.says or self.what).format(*details)

    def error(self, *details: object) -> RemoteProtocolError:
        """The connection error that it is."""
        assert self.close_code is not None
        return RemoteProtocolError(self.message(*details), close_code=self.close_code)

    def info(self, *details: object) -> ErrorInfo:
        """The error that its call or stream ends with."""
        assert self.code is not None
        return ErrorInfo(self.code.value, "", self.message(*details))


def _connection(rule: str, what: str, says: str = "", close_code: int = PROTOCOL) -> Breach:
    return Breach(what, rule, "connection", Code.PROTOCOL_ERROR, says, close_code)


def _call(
    rule: str, what: str, says: str, code: Code, *, cost: int = 0, retry: bool = False
) -> Breach:
    return Breach(what, rule, "call", code, says, cost=cost, retry=retry)


def _dropped(rule: str, what: str) -> Breach:
    return Breach(what, rule, "nothing", cost=1)


# --- messages

WRONG_KIND_OF_MESSAGE = _connection(
    "R2", "a text message where binary was agreed, or the reverse",
    "a {} message where {} was agreed", WRONG_KIND,
)  # fmt: skip
NOT_UTF8 = _connection(
    "R2", "a text message that is not UTF-8", "a message is not UTF-8: {}", UNDECODABLE_DATA
)
MESSAGE_TOO_LONG = _connection(
    "R28", "a message longer than `max_message_bytes`",
    "message of {} bytes or more is above the limit of {}", TOO_BIG,
)  # fmt: skip
UNFINISHED_MESSAGE = _connection(
    "R28", "twice `max_message_bytes`, or 4,096 fragments, and more since the last whole message",
    "too many bytes or fragments without a whole message", TOO_BIG,
)  # fmt: skip
UNDECODABLE = _connection(
    "R28",
    "a message that cannot be decoded: wrong fields, nested too deeply, more frames than "
    "`max_message_frames`",
    "message cannot be decoded: {}", UNDECODABLE_DATA,
)  # fmt: skip
UNKNOWN_KIND = _connection("R4", "a frame of an unknown kind below 64", "unknown kind of frame {}")
EMPTY_MESSAGE = _dropped("R1", "an empty message")

# --- the beginning

NO_GREETING = _connection(
    "R3", "a byte stream that does not begin with `TSR1` and an encoding, or not in time", "{}"
)
NOT_HELLO_FIRST = _connection("R25", "a first frame that is no `hello`", "{} before hello")
NO_HELLO = _connection(
    "R25", "no `hello` within `handshake_timeout`", "no hello within {} s", POLICY
)
SECOND_HELLO = _connection("R25", "a second `hello`", "a second hello")
UNKNOWN_VERSION = _connection("R25", "an unknown version", "unknown version {} of the protocol")
HELLO_TOO_LONG = _connection(
    "R25",
    "a `hello` with more than 16 KiB of metadata, more than 64 features, or more than 16,384 "
    "characters of features and session",
    "a hello with too much in it: more than 16 KiB of metadata, or too many features", TOO_BIG,
)  # fmt: skip
EARLY_BYTES = _connection(
    "R25",
    "more than `max_early_bytes` before `authenticate` has let the other side in, or before it is "
    "known what that speaks",
    "{} bytes from a side that is not known yet, which may send {}", TOO_BIG,
)  # fmt: skip
EARLY_FRAMES = _connection(
    "R25", "more than `max_early_frames` behind a `hello` before `authenticate` has let it in",
    "{} frames from a side that is not known yet, which may send {}", POLICY,
)  # fmt: skip
HELLO_METADATA = _connection(
    "R25", "a `hello` whose metadata is no map of names", "metadata of hello: {}"
)

# --- ids and lifecycles

WRONG_PARITY = _connection(
    "R5", "a new id with the parity of the side that it is sent to", "id {} has this side's parity"
)
ID_NOT_RISING = _connection(
    "R5", "a new id that does not go up", "id {} does not go up: {} was seen"
)
OUT_OF_PLACE = _connection(
    "R9", "a frame on an id that was never opened, after its final frame, or of the wrong kind for "
    "what the id is", "{} on id {}, which is {}",
)  # fmt: skip
TIMEOUT_OF_NAN = _connection("R23", "a timeout that is no number", "a timeout that is not a number")

# --- flow control

BAD_GRANT = _connection(
    "R15", "a grant of nothing, or to 2^53 and more in sum", "a grant of {} items and {} bytes"
)
BEYOND_CREDIT = Breach(
    "a chunk beyond the credit", "R16", "stream", Code.FLOW_CONTROL, "{}", cost=1
)
BEYOND_CREDIT_AFTER_CANCEL = _dropped(
    "R16", "a chunk beyond the credit that was left, after a `cancel`"
)
NOTHING_TAKEN = Breach(
    "a consumer that takes nothing for `stall_timeout`, and does not leave", "R14", "stream",
    Code.DEADLINE_EXCEEDED, "nothing was taken of this stream for {} s",
)  # fmt: skip
EMPTY_CHUNK = _dropped("R16", "an empty chunk")
SLOW_CONSUMER = Breach(
    "an item beyond the window, on another system's wire that has no credit", "R16", "stream",
    Code.RESOURCE_EXHAUSTED, "this stream is not taken as fast as it comes: {}",
)  # fmt: skip

# --- references

REFERENCE_IN_UPLOAD = _connection(
    "R19", "a reference in an item of an upload", "a reference in an item of the upload {}"
)
REFERENCES_IN_CHUNK = _connection(
    "R19", "more than one reference in a chunk", "{} references in a chunk on id {}"
)
STREAM_IN_ITEM = _connection(
    "R19", "a reference to a stream in a chunk", "a stream in an item of id {}"
)
TWICE_THE_UPLOADS = _connection(
    "R19", "more than twice `max_uploads` at once", "more than {} uploads at once"
)
TOO_MANY_UPLOADS = _call(
    "R19", "uploads beyond `max_uploads`", "too many uploads at once", Code.RESOURCE_EXHAUSTED,
    cost=1,
)  # fmt: skip
TOO_MANY_REFERENCES = _call(
    "R19", "a call with more references than `max_uploads` and `max_object_calls` together",
    "too many references in a call", Code.RESOURCE_EXHAUSTED, cost=1,
)  # fmt: skip
NO_SUCH_OBJECT = _call(
    "R20", "a call to an object that has ended, or never was", "no such object", Code.NOT_FOUND
)

# --- values in parts

VALUE_AND_PARTS = _connection(
    "R21", "a value, and parts of one, in one frame", "a {} with a value and parts of one on id {}"
)
PARTED_ITEMS = _connection(
    "R21", "a chunk in parts with another number of items than one", "{} items in parts on id {}"
)
VALUE_IN_VALUE = _connection(
    "R21", "a `chunk` or `result` in the middle of a value on the same id",
    "a {} in the middle of a value on id {}",
)  # fmt: skip
PART_OF_NOTHING = _connection(
    "R21", "a part of no value", "a part of no value on id {}, which is {}"
)
PARTS_BEYOND = _connection(
    "R21", "more parts than were announced", "more parts than were announced on id {}"
)
FINAL_OVER_VALUE = _connection(
    "R21", "a final frame over an unfinished value, without a `cancel`",
    "{} over an unfinished value on id {}",
)  # fmt: skip
PARTS_NO_VALUE = _connection(
    "R21", "a result or an item in parts that cannot be decoded", "a value in parts on id {}: {}",
    UNDECODABLE_DATA,
)  # fmt: skip
VALUE_TOO_LONG = _connection(
    "R21", "a result or an item beyond `max_value_bytes` or `max_partial_bytes`", "{}", TOO_BIG
)
ARGUMENTS_TOO_LONG = _call(
    "R21", "a call beyond `max_value_bytes` or `max_partial_bytes`", "{}", Code.RESOURCE_EXHAUSTED,
    cost=1,
)  # fmt: skip
NO_PART = _call(
    "R21", "a call in parts of which no more comes for `part_timeout`",
    "no part of the arguments has come for {} s", Code.DEADLINE_EXCEEDED,
)  # fmt: skip
PARTS_NO_ARGUMENTS = _call(
    "R21", "arguments in parts that cannot be decoded", "the arguments: {}", Code.INVALID_ARGUMENT
)
EMPTY_PART = _dropped("R21", "an empty part")

# --- calls

NO_SUCH_METHOD = _call(
    "R28", "a method that is not exposed, by whatever name", "no such method", Code.UNIMPLEMENTED
)
MISFIT = _call(
    "R18", "a window, arguments or references that do not fit the method", "{}",
    Code.INVALID_ARGUMENT,
)  # fmt: skip
METADATA_TOO_LONG = _call(
    "R28", "a call with more than 16 KiB of metadata", "the metadata is too long",
    Code.INVALID_ARGUMENT,
)  # fmt: skip
TOO_MANY_CALLS = _call(
    "R26", "a call beyond `max_calls` or `max_object_calls`", "too many calls at once",
    Code.RESOURCE_EXHAUSTED, cost=1,
)  # fmt: skip
PLACES_OVERRUN = _call(
    "R7a", "the same, while handlers here have overrun their time", "too many calls at once",
    Code.RESOURCE_EXHAUSTED, retry=True,
)  # fmt: skip
GOING_AWAY = _call(
    "R27", "a call during a drain", "this side is going away", Code.UNAVAILABLE, retry=True
)
OVERDUE_CALLBACKS = _connection(
    "R26", "calls to callbacks that were cancelled, and too many of them never end",
    "{} calls to callbacks were cancelled and never ended", POLICY,
)  # fmt: skip

# --- other systems' wires

MALFORMED = _dropped("R28", "a message of another system's wire that is none, or is not known")
UNKNOWN_DIALECT = _connection(
    "R3", "a first message that no dialect knows, or none in time", "{}", POLICY
)

# --- and in the end

BUDGET_SPENT = _connection(
    "R28", "an empty violation budget", "too many violations; the last was {}", POLICY
)
