"""Exceptions ↔ errors on the wire (R22), and the log entry where one happened."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any

import trio
from msgspec import Raw

from trio_streamrpc.errors import (
    ERRORS_BY_CODE,
    CleanupTimeout,
    Code,
    ConnectionLost,
    RemoteError,
    RpcError,
)
from trio_streamrpc.nurseries import leaves
from trio_streamrpc.protocol.frames import ErrorInfo, encodable

__all__ = [
    "LOGGER",
    "describe",
    "describe_listed",
    "error_from",
    "has_cancelled",
    "is_answer",
    "is_confined",
    "is_in_a_hurry",
    "only_exit",
    "tell",
    "text_of",
]

LOGGER = logging.getLogger("trio_streamrpc")

#: How much of a tree of exception groups is told: parts of a group, and groups within groups.
MAX_CAUSES = 20
MAX_DEPTH = 4

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes | Raw], Any]


def is_confined(error: BaseException) -> bool:
    """Whether it ends one call and nothing else: all but KeyboardInterrupt, SystemExit and such.

    A GeneratorExit or a Cancelled that gets so far has lost its way, and is an error like others.
    """
    kinds = (Exception, GeneratorExit, trio.Cancelled)
    return all(isinstance(each, kinds) for each in leaves(error))


def is_answer(error: BaseException) -> bool:
    """Whether whoever raised it has chosen what the caller is told.

    A group is no choice; but one of nothing but lost connections is what a handler with a nursery
    ends with when its client is gone.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(isinstance(each, ConnectionLost) for each in leaves(error))
    return isinstance(error, RpcError) and not isinstance(error, RemoteError)


def has_cancelled(error: BaseException) -> bool:
    """Whether it is a cancellation, alone or among other failures."""
    return any(isinstance(each, trio.Cancelled) for each in leaves(error))


def is_in_a_hurry(error: BaseException) -> bool:
    """Whether a block is left since its task was cancelled or interrupted, and waits for nobody.

    Alone or among other failures.
    """
    return any(isinstance(each, trio.Cancelled | KeyboardInterrupt) for each in leaves(error))


def describe(
    error: BaseException, *, method: str, mask: bool = False, encode: Encode | None = None
) -> ErrorInfo:
    """What the other side is told of an exception that a handler raised.

    Errors that chose a code are answers; anything else is logged here, once, with its traceback.
    With ``mask`` such an exception is told as no more than an id that stands in the log too.
    ``encode`` is for the ``data`` of an :exc:`RpcError`; what it cannot encode does not travel.
    """
    reference = uuid.uuid4().hex[:12] if mask else ""
    # What another side has raised, and a handler passes on, was logged there.
    if not is_answer(error) and (mask or not isinstance(error, RemoteError)):
        _log(error, f"{method} failed" + f" [{reference}]" * mask)
        if mask:
            return ErrorInfo(Code.INTERNAL.value, "", f"internal error, reference {reference}")
    return tell(error, encode)


def tell(error: BaseException, encode: Encode | None = None) -> ErrorInfo:
    """An exception as it travels; nothing is logged."""
    try:
        return _told(error, encode)
    except Exception:
        # It is a user's class, and may do anything when it is looked at.
        return ErrorInfo(Code.UNKNOWN.value, type(error).__name__, text_of(error))


def _log(error: BaseException, message: str) -> None:
    try:
        LOGGER.error("%s", message, exc_info=error)
    except Exception:
        # A traceback that cannot be made, of groups nested too deep for instance.
        LOGGER.error("%s: %s, whose traceback cannot be shown", message, type(error).__name__)  # noqa: TRY400  # that one is the trouble


def describe_listed(error: BaseException, name: str, data: bytes | None) -> ErrorInfo:
    """An exception of ``@rpc(errors=…)``: an answer like any other, and not logged."""
    code = _code_of(error) if isinstance(error, RpcError) else Code.UNKNOWN
    info = ErrorInfo(code.value, name, text_of(error))
    if data is not None:
        info.data = Raw(data)
    return info


def _told(error: BaseException, encode: Encode | None, depth: int = 0) -> ErrorInfo:
    if not isinstance(error, RpcError):
        info = ErrorInfo(Code.UNKNOWN.value, type(error).__name__, text_of(error))
        parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    else:
        # A user's subclass may have overwritten any of these, or never have set them.
        name, message = getattr(error, "name", None), getattr(error, "message", None)
        info = ErrorInfo(
            _code_of(error).value,
            encodable(name) if isinstance(name, str) else type(error).__name__,
            encodable(message) if isinstance(message, str) else text_of(error),
        )
        info.data = _encoded(getattr(error, "data", None), encode, info.data)
        parts = tuple(getattr(error, "causes", ()))
    if depth < MAX_DEPTH:
        info.causes = [_told(part, encode, depth + 1) for part in parts[:MAX_CAUSES]]
    return info


def _code_of(error: RpcError) -> Code:
    try:
        return Code(error.code)
    except ValueError:
        return Code.UNKNOWN


def _encoded(data: Any, encode: Encode | None, nothing: Raw) -> Raw:
    if data is None or encode is None:
        return nothing
    try:
        return Raw(encode(data))
    except Exception:
        return nothing


def text_of(error: BaseException) -> str:
    """What an exception says, whatever it does when it is asked."""
    try:
        return encodable(str(error))
    except Exception:
        return "(its message could not be made)"


def error_from(
    info: ErrorInfo, *, retry: bool = False, decode: Decode | None = None, depth: int = 0
) -> RpcError:
    """The exception that an error on the wire is raised as: by its code, never by its name.

    Causes of causes are followed as far as this side would tell them, however deep they come.
    """
    try:
        code = Code(info.code)
    except ValueError:
        code = Code.UNKNOWN
    kind = ERRORS_BY_CODE[code]
    if info.name == "CleanupTimeout" and code is CleanupTimeout.code:
        kind = CleanupTimeout
    error = kind(info.message)
    error.name = info.name or kind.__name__
    error.traceback = info.traceback
    if depth < MAX_DEPTH:
        error.causes = tuple(
            error_from(cause, decode=decode, depth=depth + 1) for cause in info.causes
        )
    error.retry = retry
    if decode is not None and len(info.data):
        try:
            error.data = decode(info.data)
        except RpcError:
            error.data = None
    return error


def only_exit(error: BaseException) -> BaseException | None:
    """What is left of an exception of a generator that was closed, without its GeneratorExit.

    A nursery that is open across a ``yield`` wraps the GeneratorExit in a group; a group that
    holds nothing else is a clean end.
    """
    if isinstance(error, GeneratorExit):
        return None
    if isinstance(error, BaseExceptionGroup):
        return error.split(GeneratorExit)[1]
    return error
