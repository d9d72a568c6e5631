"""What went wrong with a value, told in one line with the path to it: ``$.ticks[3].size``.

Errors of msgspec, of cattrs and of a user's hooks all become :class:`Problem` here; what came from
the other side is escaped and cut, so that a peer cannot write pages, or control characters, into a
log.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import cattrs
import msgspec
from cattrs.errors import ForbiddenExtraKeysError

__all__ = ["HookError", "Problem", "UnknownField", "explain", "problems_of", "quoted", "shown"]

#: The most characters of a peer's data in a message.
MAX_CHARS: Final = 200

#: The most problems in a message.
MAX_PROBLEMS: Final = 5

#: Between a message and a path inside what a hook was given; escaping leaves none in either.
SEPARATOR: Final = "\x1f"

MSGSPEC_PATH: Final = re.compile(r"^(.*?)(?: - at `(?:(key)` in `)?(\$.*)`)?$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where."""

    message: str
    path: str = ""
    """Without the ``$`` of the root: ``[3].size``."""


class UnknownField(Exception):
    """A field that a strict method does not know, at ``path``."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.name = name
        self.path = path


class HookError(ValueError):
    """Carries what a hook raised through msgspec, which adds the path to a ValueError."""

    def __init__(self, error: Exception) -> None:
        first = problems_of(error)[0]
        super().__init__(f"{first.message}{SEPARATOR}{first.path}")


def explain(error: Exception, root: str = "$") -> str:
    """One message for whatever decoding raised; ``root`` is what the value is called."""
    found = problems_of(error)
    told = "; ".join(
        f"{each.message} - at `{cut(root + each.path)}`"
        if root + each.path != "$"
        else each.message
        for each in found[:MAX_PROBLEMS]
    )
    more = len(found) - MAX_PROBLEMS
    return f"{told}; and {more} more" if more > 0 else told


def problems_of(error: Exception) -> list[Problem]:
    """What is wrong, as far as the error says; at least one."""
    if isinstance(error, cattrs.BaseValidationError):
        return [of_cattrs(each) for each in cattrs.transform_error(error, "", format_exception)]
    if isinstance(error, UnknownField):
        return [Problem(f"Object contains unknown field {quoted(error.name)}", error.path)]
    return [of_text(one_line(error))]


def one_line(error: BaseException) -> str:
    """An error as a text, which may hold a path behind a separator."""
    if isinstance(error, msgspec.ValidationError):
        found = of_msgspec(str(error))
        return f"{found.message}{SEPARATOR}{found.path}"
    if isinstance(error, msgspec.DecodeError | UnicodeDecodeError):
        return f"cannot be decoded: {escaped(str(error))}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, cattrs.StructureHandlerNotFoundError):
        return f"no way to make {shown(error.type_)} of it"
    if isinstance(error, ForbiddenExtraKeysError):
        names = ", ".join(sorted(quoted(str(each)) for each in error.extra_fields))
        return f"Object contains unknown field {escaped(names)}"
    message = escaped(str(error))
    return (
        message
        if type(error) is ValueError and message
        else (f"{type(error).__name__}: {message}" if message else type(error).__name__)
    )


def format_exception(error: BaseException, annotation: Any) -> str:
    """One error of a cattrs group, for ``cattrs.transform_error``, which appends the path."""
    text = one_line(error)
    return text if SEPARATOR in text else text + SEPARATOR


def of_cattrs(text: str) -> Problem:
    """Take apart what ``transform_error`` put together: message, inner path, outer path."""
    message, _, rest = text.partition(SEPARATOR)
    inner, _, outer = rest.partition(" @ ")
    # cattrs tells of a missing field as of a KeyError in it.
    parent, _, field = outer.rpartition(".")
    if field and message == f"KeyError: {field!r}":
        return Problem(f"Object missing required field {quoted(field)}", escaped(parent))
    return Problem(message, escaped(outer) + inner)


def of_text(text: str) -> Problem:
    message, _, path = text.partition(SEPARATOR)
    return Problem(message, path)


def of_msgspec(text: str) -> Problem:
    """Take apart a ValidationError: its path stands at the end of its message."""
    message, is_key, path = MSGSPEC_PATH.match(text).groups()  # type: ignore[union-attr]
    message, _, inner = message.partition(SEPARATOR)
    if is_key:
        message += " as a key"
    return Problem(escaped(message), (path or "$")[1:] + inner)


def quoted(text: str) -> str:
    """A peer's text in quotation marks, escaped and cut."""
    return f"`{escaped(text)}`"


def escaped(text: str) -> str:
    """A text without control characters, surrogates or pages of it."""
    # Cut first: escaping a megabyte to keep 200 characters of it is a gift to an attacker.
    text = text[: MAX_CHARS + 1]
    return cut(
        "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
        )
    )


def cut(text: str) -> str:
    """The first 200 characters of a text, with a sign that there were more."""
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"


def shown(annotation: Any) -> str:
    """A type as its user wrote it."""
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "")
