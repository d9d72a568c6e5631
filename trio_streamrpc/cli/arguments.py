"""A call's arguments on the command line: JSON, words, and what is streamed from files.

A word that is no JSON is a string, so that ``call URL price ACME`` needs no quotes twice over. One
that begins like an object, an array or a string and is none is a mistake, and not a string.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
import trio

from trio_streamrpc.cli.described import MethodInfo, ParameterInfo
from trio_streamrpc.cli.failures import Misuse
from trio_streamrpc.limits import Limits

__all__ = ["Argument", "Source", "read_arguments"]

#: How much is read at a time, in bytes.
BLOCK = 65_536

#: The longest line of a file, in bytes: a longer value could not be sent.
MAX_LINE = Limits().max_value_bytes


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: its place, an index or a name, and what stands there."""

    place: int | str
    value: Any = None
    source: Source | None = None
    """Where its items, or all of it, come from; ``value`` is nothing then."""

    def parameter_of(self, method: MethodInfo) -> ParameterInfo | None:
        """The parameter that takes it; None if there is none."""
        if isinstance(self.place, str):
            named = [each for each in method.parameters if each.name == self.place]
            return named[0] if named else only(method.parameters, "variadic keyword")
        positional = [each for each in method.parameters if each.passed.startswith("positional")]
        if self.place < len(positional):
            return positional[self.place]
        return only(method.parameters, "variadic positional")


def only(parameters: Iterable[ParameterInfo], passed: str) -> ParameterInfo | None:
    return next((each for each in parameters if each.passed == passed), None)


class Source:
    """The standard input or a file: its lines as JSON values, or its bytes as they come.

    It is read as fast as somebody takes what it gives, and no faster.
    """

    def __init__(self, name: str, *, raw: bool) -> None:
        self.name = name
        self._raw = raw
        self._fd = opened(name)
        #: What it has given.
        self.items = 0
        self.bytes = 0

    async def values(self) -> AsyncGenerator[Any, None]:
        """Its values one by one; raises :exc:`Failure` for what is no JSON."""
        async with aclosing(self._blocks()) as blocks:
            async with aclosing(blocks if self._raw else self._lines(blocks)) as values:
                async for each in values:
                    self.items += 1
                    yield each

    async def whole(self) -> Any:
        """All of it as one value."""
        data = bytearray()
        async with aclosing(self._blocks()) as blocks:
            async for block in blocks:
                data += block
                self._check(len(data))
        return bytes(data) if self._raw else self._decode(bytes(data), "")

    async def _blocks(self) -> AsyncGenerator[bytes, None]:
        # In a thread, since it may wait for ever, which is left behind if nobody waits any more.
        while block := await trio.to_thread.run_sync(
            os.read, self._fd, BLOCK, abandon_on_cancel=True
        ):
            self.bytes += len(block)
            yield block

    async def _lines(self, blocks: AsyncIterator[bytes]) -> AsyncGenerator[Any, None]:
        number, rest = 0, b""
        async for block in blocks:
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                number += 1
                if line.strip():
                    yield self._decode(line, f":{number}")
            self._check(len(rest))
        if rest.strip():
            yield self._decode(rest, f":{number + 1}")

    def _check(self, size: int) -> None:
        if size > MAX_LINE:
            raise Misuse(f"{self.name}: a value of more than {MAX_LINE:,} bytes")

    def _decode(self, data: bytes, where: str) -> Any:
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Misuse(f"{self.name}{where}: this is no JSON: {error}") from error


def opened(name: str) -> int:
    """The open file of a name; ``-`` is the standard input."""
    if name == "-":
        if sys.stdin is None:
            raise Misuse("@-: there is no standard input")
        try:
            return sys.stdin.fileno()
        except OSError as error:
            raise Misuse(f"cannot read the standard input: {error}") from error
    try:
        fd = os.open(name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        if os.path.isdir(name):
            os.close(fd)
            raise IsADirectoryError(0, "it is a directory")
        return fd
    except OSError as error:
        raise Misuse(f"cannot read {name!r}: {error.strerror}") from error


def read_arguments(
    words: Sequence[str], named: Sequence[str], *, raw: bool = False
) -> list[Argument]:
    """The arguments that stand on the command line, and those of ``--kw``.

    Raises :exc:`Failure` for what cannot be one, or a file that cannot be read.
    """
    places: list[tuple[int | str, str]] = list(enumerate(words))
    for each in named:
        name, found, text = each.partition("=")
        if not found or not name:
            raise Misuse(f"--kw {each!r}: it is to be name=json")
        if any(place == name for place, _ in places):
            raise Misuse(f"--kw {name}: it is given twice")
        places.append((name, text))
    if [text for _, text in places].count("@-") > 1:
        raise Misuse("@- is given twice, and there is one standard input")
    return [
        Argument(place, source=Source(text[1:], raw=raw))
        if text.startswith("@")
        else Argument(place, value_of(text))
        for place, text in places
    ]


def value_of(text: str) -> Any:
    """The value that a word stands for."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        if text.lstrip()[:1] in ("{", "[", '"'):
            raise Misuse(f"{text!r} is no JSON: {error}") from error
        return text
