"""What is held against a service."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import trio

import trio_streamrpc

__all__ = ["Failure", "Fault", "ServiceFalsified"]

#: Where the frames lie that are not the service's, and how many of its are shown.
LIBRARY: Final = (
    str(Path(trio_streamrpc.__file__).parent),
    str(Path(trio.__file__).parent),
    contextlib.__file__,
)
FRAMES: Final = 4


class Fault(StrEnum):
    """The ways in which a service is falsified; the value says it in words."""

    UNDECLARED = "raised an exception that it does not declare"
    UNFINISHED = "had not finished its cleanup in time after it was asked to stop"
    LEFT_BEHIND = "left a task behind"
    WRONG_RESULT = "gave a result that does not match its annotation"
    RUNS_AHEAD = "produces though nobody takes: it ignores backpressure"
    HANGS = "does not come to an end"
    SPINS = "keeps the scheduler busy without waiting for anything"
    BROKEN = "was not in order when it was closed"
    UNCHECKED = "has not refused arguments of the wrong type with INVALID_ARGUMENT"


@dataclass(frozen=True)
class Failure:
    """One of them, of one method."""

    #: Which of the ways it is.
    fault: Fault
    #: The method's dotted name; empty where it is not known which it was.
    method: str
    #: What was seen.
    message: str
    #: The exception's class, where there is one: two of them are two failures.
    exception: str = ""
    #: Where it was raised.
    traceback: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same failure, however it comes about."""
        return (self.fault.name, self.method, self.exception)

    def __str__(self) -> str:
        name = f"{self.method}()" if self.method else "the service"
        return f"{name} {self.fault.value}: {self.message}"

    @classmethod
    def of_exception(cls, fault: Fault, method: str, error: BaseException) -> Failure:
        """Of something that was raised."""
        kind = type(error).__name__
        try:
            shown = f"{kind}: {error}"
        except Exception:
            shown = f"{kind}, which cannot be shown"
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [each for each in frames if not each.filename.startswith(LIBRARY)]
        lines = traceback.format_list(theirs[-FRAMES:])
        told = "".join([*lines, shown[:500]])[-4000:] if lines else ""
        return cls(fault, method, shown[:500], kind, told)


class ServiceFalsified(AssertionError):
    """A service has done what no service must do; ``failures`` tells what."""

    def __init__(self, failures: Sequence[Failure], report: str = "") -> None:
        self.failures = tuple(failures)
        super().__init__(report or "\n".join(map(str, failures)))
