"""How long a command goes on: until its work is done, its time is up, or somebody says enough.

A command's work is made of stretches, one within the other: connecting, calling, taking items. What
ends it early ends the innermost stretch, and what lies around it is left in order: a stream's
producer has finished before its block ends, and the connection is closed with a goodbye. Whoever
says it a second time does not want to wait for that.
"""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Self

import trio

from trio_streamrpc.cli.failures import TimeUp
from trio_streamrpc.nurseries import open_background_nursery

__all__ = ["Patience"]


class Patience:
    """The time that a command has, in seconds; None for as much as it takes."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._deadline = math.inf
        self._scopes: list[trio.CancelScope] = []
        #: The signal that has ended the work.
        self._signal: int | None = None
        self._late = False
        #: Whether the work is not to go on, for whatever reason.
        self.ended = False

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """The time in which a command works: Ctrl-C and SIGTERM end it in order.

        Afterwards it ends the process with 128 and the signal's number, if there was one; raises
        :exc:`Failure` if the time was up.
        """
        if self._seconds is not None:
            self._deadline = trio.current_time() + self._seconds
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._obey, signals)
                with self.stretch():
                    yield self
        if self._signal is not None:
            sys.exit(128 + self._signal)
        if self._late:
            raise TimeUp(f"not done within {self._seconds:g} s")

    @contextmanager
    def stretch(self) -> Iterator[None]:
        """A part of the work that may end early; what it lies in is then left in order."""
        if self._scopes:
            # From now on it is the inner one that ends in time.
            self._scopes[-1].deadline = math.inf
        scope = trio.CancelScope(deadline=math.inf if self.ended else self._deadline)
        self._scopes.append(scope)
        try:
            with scope:
                yield
        finally:
            self._scopes.remove(scope)
            if scope.cancelled_caught and not self.ended:
                self.ended = self._late = True

    def end(self) -> None:
        """There is nobody left to work for: end the innermost stretch."""
        self.ended = True
        self._scopes[-1].cancel()

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if self._signal is None:
                self._signal = number
                self.end()
            else:
                self._scopes[0].cancel()
