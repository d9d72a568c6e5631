"""Exceptions ↔ errors on the wire (R22), and the log entry where one happened."""

from __future__ import annotations

import logging
import uuid

from trio_streamrpc.errors import ERRORS_BY_CODE, CleanupTimeout, Code, RemoteError, RpcError
from trio_streamrpc.protocol.frames import ErrorInfo

__all__ = ["LOGGER", "describe", "error_from", "only_exit"]

LOGGER = logging.getLogger("trio_streamrpc")


def describe(error: BaseException, *, method: str, mask: bool = False) -> ErrorInfo:
    """What the other side is told of an exception that a handler raised.

    Errors that chose a code are answers; anything else is logged here, once, with its traceback.
    With ``mask`` such an exception is told as no more than an id that stands in the log too.
    """
    if isinstance(error, RpcError) and not isinstance(error, RemoteError):
        return ErrorInfo(error.code.value, error.name, error.message)
    if mask:
        reference = uuid.uuid4().hex[:12]
        LOGGER.error("%s failed [%s]", method, reference, exc_info=error)
        return ErrorInfo(Code.INTERNAL.value, "", f"internal error, reference {reference}")
    LOGGER.error("%s failed", method, exc_info=error)
    return _told(error)


def _told(error: BaseException) -> ErrorInfo:
    try:
        message = str(error)
    except Exception:
        message = "(its message could not be made)"
    if isinstance(error, RpcError):
        return ErrorInfo(error.code.value, error.name, error.message)
    causes = []
    if isinstance(error, BaseExceptionGroup):
        causes = [_told(part) for part in error.exceptions[:20]]
    return ErrorInfo(Code.UNKNOWN.value, type(error).__name__, _encodable(message), causes=causes)


def _encodable(text: str) -> str:
    """The text without lone surrogates, which no encoding of the wire can carry."""
    return text.encode(errors="backslashreplace").decode()


def error_from(info: ErrorInfo, *, retry: bool = False) -> RpcError:
    """The exception that an error on the wire is raised as: by its code, never by its name."""
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
    error.causes = tuple(error_from(cause) for cause in info.causes)
    error.retry = retry
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
