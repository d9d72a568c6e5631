"""Every error of this library, and the codes that stand for them on the wire (R22).

The tree::

    RpcError                      .code, .message, .name, .data, .traceback, .causes, .retry
    ├── RemoteError               UNKNOWN: the handler raised something without a code of its own
    ├── ConnectionLost            UNAVAILABLE: the transport broke, or was closed
    ├── ProtocolError             PROTOCOL_ERROR: one side broke the protocol
    │   ├── LocalProtocolError    … this side did
    │   └── RemoteProtocolError   … the other side did
    ├── CleanupTimeout            DEADLINE_EXCEEDED: the remote side did not finish in time (R7)
    ├── CallCancelled             CANCELLED: the other side stopped the call
    ├── InvalidArgument           INVALID_ARGUMENT
    ├── DeadlineExceeded          DEADLINE_EXCEEDED
    ├── NotFound                  NOT_FOUND
    ├── AlreadyExists             ALREADY_EXISTS
    ├── PermissionDenied          PERMISSION_DENIED
    ├── ResourceExhausted         RESOURCE_EXHAUSTED
    ├── FailedPrecondition        FAILED_PRECONDITION
    ├── Aborted                   ABORTED
    ├── OutOfRange                OUT_OF_RANGE
    ├── Unimplemented             UNIMPLEMENTED
    ├── InternalError             INTERNAL
    ├── Unavailable               UNAVAILABLE
    ├── DataLoss                  DATA_LOSS
    ├── Unauthenticated           UNAUTHENTICATED
    └── FlowControlError          FLOW_CONTROL: more arrived than was granted (R16)

A code on the wire is looked up in :data:`ERRORS_BY_CODE` and nowhere else; a name on the wire is
only ever a string.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

__all__ = [
    "ERRORS_BY_CODE",
    "Aborted",
    "AlreadyExists",
    "CallCancelled",
    "CleanupTimeout",
    "Code",
    "ConnectionLost",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FlowControlError",
    "InternalError",
    "InvalidArgument",
    "LocalProtocolError",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ProtocolError",
    "RemoteError",
    "RemoteProtocolError",
    "ResourceExhausted",
    "RpcError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
]


class Code(StrEnum):
    """What went wrong, in gRPC's words; the last two are this protocol's own.

    Each is a string, and equal to its name.
    """

    #: The other side stopped the call before it had finished (:exc:`CallCancelled`).
    CANCELLED = "CANCELLED"
    #: The handler raised something without a code of its own (:exc:`RemoteError`).
    UNKNOWN = "UNKNOWN"
    #: The arguments do not fit the method (:exc:`InvalidArgument`).
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    #: Time was up on the other side (:exc:`DeadlineExceeded`, :exc:`CleanupTimeout`).
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    #: Something that was asked for is not there (:exc:`NotFound`).
    NOT_FOUND = "NOT_FOUND"
    #: Something that was to be made is there already (:exc:`AlreadyExists`).
    ALREADY_EXISTS = "ALREADY_EXISTS"
    #: The caller is known and may not do this (:exc:`PermissionDenied`).
    PERMISSION_DENIED = "PERMISSION_DENIED"
    #: A limit was reached (:exc:`ResourceExhausted`).
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    #: The system is not in the state that the call needs (:exc:`FailedPrecondition`).
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    #: The call was given up, for instance for a conflict with another (:exc:`Aborted`).
    ABORTED = "ABORTED"
    #: A value lies outside what is there (:exc:`OutOfRange`).
    OUT_OF_RANGE = "OUT_OF_RANGE"
    #: There is no such method (:exc:`Unimplemented`).
    UNIMPLEMENTED = "UNIMPLEMENTED"
    #: Something broke that should not have (:exc:`InternalError`).
    INTERNAL = "INTERNAL"
    #: The other side cannot be reached (:exc:`Unavailable`, :exc:`ConnectionLost`).
    UNAVAILABLE = "UNAVAILABLE"
    #: Data is lost or damaged (:exc:`DataLoss`).
    DATA_LOSS = "DATA_LOSS"
    #: The caller did not say who it is, or could not prove it (:exc:`Unauthenticated`).
    UNAUTHENTICATED = "UNAUTHENTICATED"
    #: One side broke the protocol (:exc:`ProtocolError`).
    PROTOCOL_ERROR = "PROTOCOL_ERROR"
    #: More was sent than was granted (:exc:`FlowControlError`).
    FLOW_CONTROL = "FLOW_CONTROL"


class RpcError(Exception):
    """Base of all errors of this library; a handler raises one to choose the code of its answer.

    ``message`` travels to the other side as it is, and so does ``data`` if the payload codecs can
    encode it; ``code`` is the class's unless it is given. A subclass chooses its code with a class
    attribute::

        class OutOfStock(RpcError):
            code = Code.FAILED_PRECONDITION

    On the other side it arrives as the class that this library has for its code, here
    :exc:`FailedPrecondition`; only what ``@rpc(errors=…)`` lists arrives as itself.
    """

    #: What went wrong: the class's own, or what ``code=`` has said.
    code: Code = Code.UNKNOWN

    #: What happened, in words.
    message: str
    #: What else the handler has told; plain values (dicts, lists, strings, numbers), or None.
    data: Any
    #: The exception's class as it was called where it was raised. Never looked up, only shown.
    name: str
    #: The remote traceback as text; None unless the other side sends it, which this library never
    #: does.
    traceback: str | None = None
    #: True where the call was surely not run, so that sending it again, here or elsewhere, is safe.
    retry: bool = False

    def __init__(self, message: str = "", *, code: Code | None = None, data: Any = None) -> None:
        super().__init__(message)
        # ``raise NotFound(key)``: whatever was given, what travels is text.
        self.message = str(message)
        self.name = type(self).__name__
        self.data = data
        #: For an exception group raised by the handler: an error for each of its parts.
        self.causes: Sequence[RpcError] = ()
        if code is not None:
            self.code = Code(code)

    def __str__(self) -> str:
        return self.message or self.code.value


class RemoteError(RpcError):
    """The handler raised an exception that chose no code; ``name`` is that exception's class."""

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name


class ConnectionLost(RpcError):
    """The transport broke or was closed; whether the call was run cannot be known."""

    code = Code.UNAVAILABLE


class ProtocolError(RpcError):
    """One side broke the protocol; the connection is closed after it."""

    code = Code.PROTOCOL_ERROR

    def __init__(self, message: str = "", *, close_code: int = 1002) -> None:
        super().__init__(message)
        #: How the transport tells it, in WebSocket's numbers: 1002 protocol, 1003 wrong kind of
        #: message, 1007 not decodable, 1008 policy, 1009 too big.
        self.close_code = close_code


class LocalProtocolError(ProtocolError):
    """This side tried what the protocol forbids; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The other side sent what the protocol forbids."""


class CleanupTimeout(RpcError):
    """A block was left, and the remote side had not finished within its time (R7, R7a)."""

    code = Code.DEADLINE_EXCEEDED


class CallCancelled(RpcError):
    """The other side stopped the call before it had finished."""

    code = Code.CANCELLED


class InvalidArgument(RpcError):
    """The arguments do not fit the method; the message names the path (``$.ticks[3].size``)."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(RpcError):
    """The call's deadline passed on the remote side (R23)."""

    code = Code.DEADLINE_EXCEEDED


class NotFound(RpcError):
    """Something that was asked for is not there."""

    code = Code.NOT_FOUND


class AlreadyExists(RpcError):
    """Something that was to be made is there already."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(RpcError):
    """The caller is known and may not do this."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(RpcError):
    """A limit was reached: calls at once, a size, a quota."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(RpcError):
    """The system is not in the state that the call needs."""

    code = Code.FAILED_PRECONDITION


class Aborted(RpcError):
    """The call was given up, for instance for a conflict with another."""

    code = Code.ABORTED


class OutOfRange(RpcError):
    """A value lies outside what is there."""

    code = Code.OUT_OF_RANGE


class Unimplemented(RpcError):
    """There is no such method."""

    code = Code.UNIMPLEMENTED


class InternalError(RpcError):
    """Something broke that should not have."""

    code = Code.INTERNAL


class Unavailable(RpcError):
    """The other side cannot be reached or is going away."""

    code = Code.UNAVAILABLE


class DataLoss(RpcError):
    """Data is lost or damaged."""

    code = Code.DATA_LOSS


class Unauthenticated(RpcError):
    """The caller did not say who it is, or could not prove it."""

    code = Code.UNAUTHENTICATED


class FlowControlError(RpcError):
    """The producer sent more than it was granted (R16)."""

    code = Code.FLOW_CONTROL


#: The class that an error with this code is raised as.
ERRORS_BY_CODE: dict[Code, type[RpcError]] = {
    Code.CANCELLED: CallCancelled,
    Code.UNKNOWN: RemoteError,
    Code.INVALID_ARGUMENT: InvalidArgument,
    Code.DEADLINE_EXCEEDED: DeadlineExceeded,
    Code.NOT_FOUND: NotFound,
    Code.ALREADY_EXISTS: AlreadyExists,
    Code.PERMISSION_DENIED: PermissionDenied,
    Code.RESOURCE_EXHAUSTED: ResourceExhausted,
    Code.FAILED_PRECONDITION: FailedPrecondition,
    Code.ABORTED: Aborted,
    Code.OUT_OF_RANGE: OutOfRange,
    Code.UNIMPLEMENTED: Unimplemented,
    Code.INTERNAL: InternalError,
    Code.UNAVAILABLE: Unavailable,
    Code.DATA_LOSS: DataLoss,
    Code.UNAUTHENTICATED: Unauthenticated,
    Code.PROTOCOL_ERROR: RemoteProtocolError,
    Code.FLOW_CONTROL: FlowControlError,
}
