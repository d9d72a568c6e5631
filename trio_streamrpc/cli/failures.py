"""How a command fails: one line on the standard error, and an exit code that says what it was."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from typing import IO, Any

import click
import trio

from trio_streamrpc.errors import (
    ConnectionLost,
    DeadlineExceeded,
    RemoteError,
    RpcError,
    Unavailable,
)

__all__ = ["Failure", "Misuse", "NotConnected", "TimeUp", "message_of", "one_line", "run"]

#: The longest message that is shown, in characters.
MAX_MESSAGE = 2_000


class Failure(click.ClickException):
    """What went wrong, in one line: the other side raised something, or the command failed."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Error: {one_line(self.message)}", file=file, err=True)


class Misuse(Failure):
    """The command was called wrongly."""

    exit_code = 2


class NotConnected(Failure):
    """There is no connection, or no more."""

    exit_code = 3


class TimeUp(Failure):
    """The time was up."""

    exit_code = 4


def one_line(text: str) -> str:
    """A text that may come from anywhere, so that it stays one line and a terminal's state its own.

    A line break becomes a blank, what cannot be printed an escape.
    """
    joined = " ".join(text.split())[:MAX_MESSAGE]
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in joined)


def run(shows_traceback: bool, work: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Run a command's work in Trio; whatever it raises ends the command with one line.

    With ``shows_traceback`` what was raised is shown in full before that.
    """
    try:
        trio.run(work, *args)
    except BrokenPipeError:
        # Who reads the output has seen enough.
        return
    except Exception as error:
        failure = failure_of(error)
        if shows_traceback:
            show_traceback(error)
        if failure is error:
            raise
        raise failure from error


def failure_of(error: Exception) -> click.ClickException:
    """The line and the code for what a command's work has raised."""
    if isinstance(error, click.ClickException):
        return error
    if isinstance(error, RpcError):
        return kind_of(error)(message_of(error))
    return Failure(f"{type(error).__name__}: {error}")


def message_of(error: RpcError) -> str:
    """An error of the library's in one line: whose it is, and what it says."""
    if isinstance(error, RemoteError) or not error.message:
        return str(error)
    return f"{error.name}: {error.message}"


def kind_of(error: RpcError) -> type[Failure]:
    """What an error of the library's means for a command."""
    if isinstance(error, ConnectionLost) or (isinstance(error, Unavailable) and error.retry):
        return NotConnected
    return TimeUp if isinstance(error, DeadlineExceeded) else Failure


def show_traceback(error: BaseException) -> None:
    """Show where something was raised: here, and on the other side as far as that tells it."""
    click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    seen: BaseException | None = error
    while seen is not None:
        told = getattr(seen, "traceback", None)
        if told:
            lines = "\n".join(map(one_line_indented, str(told).splitlines()))
            click.echo(f"On the other side:\n{lines}", err=True)
        seen = seen.__cause__


def one_line_indented(line: str) -> str:
    """A line of a text, with its indentation."""
    rest = line.lstrip(" ")
    return " " * (len(line) - len(rest)) + one_line(rest)
