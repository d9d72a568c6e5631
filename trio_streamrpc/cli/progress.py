"""``--progress``: how fast a stream goes, and how much of it waits here."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import trio
from rich.console import Console
from rich.text import Text

from trio_streamrpc.cli.arguments import Source
from trio_streamrpc.cli.demo_view import amount
from trio_streamrpc.runtime.streams import Stream

__all__ = ["Progress"]

#: How often it is drawn, in seconds.
INTERVAL = 0.1


class Progress:
    """A line on the standard error: items and bytes, each second and in all, and what is buffered.

    On a terminal it is drawn again and again in its place; elsewhere once, at the end.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._animated = self._console.is_terminal and not self._console.is_dumb_terminal
        self._shares = sys.stdout is not None and sys.stdout.isatty()
        self._lock = trio.Lock()
        self._drawn = False
        self._began = time.monotonic()
        #: When it was last drawn, and what had come by then.
        self._last = (self._began, 0, 0)
        self._count: Callable[[], tuple[int, int, str]] = lambda: (0, 0, "")

    def watch_stream(self, stream: Stream[Any]) -> None:
        """Show what comes in."""

        def count() -> tuple[int, int, str]:
            found = stream.statistics()
            window = "" if found.window is None else f" of {found.window.items}"
            return (
                found.items_received,
                found.bytes_received,
                f"   buffered {found.items_buffered}{window}",
            )

        self._count = count

    def watch_sources(self, sources: Sequence[Source]) -> None:
        """Show what is read."""
        self._count = lambda: (
            sum(each.items for each in sources),
            sum(each.bytes for each in sources),
            "",
        )

    def line(self, *, whole: bool = False) -> str:
        """The line for now; with ``whole`` the rates are those since the beginning."""
        now = time.monotonic()
        items, size, rest = self._count()
        since, items_then, size_then = (self._began, 0, 0) if whole else self._last
        self._last = (now, items, size)
        seconds = max(now - since, 1e-6)
        rates = (
            f"{(items - items_then) / seconds:,.0f} items/s"
            f"   {amount(round((size - size_then) / seconds))}/s"
        )
        return f"{items:,} items   {amount(size)}   {rates}{'' if whole else rest}"

    async def run(self) -> None:
        """Draw until this is cancelled."""
        if not self._animated:
            return
        while True:
            await trio.sleep(INTERVAL)
            async with self._lock:
                await self._show(self.line(), end="\r")
                self._drawn = True

    async def write(self, write: Callable[[bytes], Any], data: bytes) -> None:
        """Have something written to the standard output, which may be the same terminal."""
        if not self._animated or not self._shares:
            await write(data)
            return
        async with self._lock:
            if self._drawn:
                await self._show("", end="\r")
                self._drawn = False
            await write(data)

    async def finish(self) -> None:
        """Draw it once more, and leave it there."""
        async with self._lock:
            await self._show(self.line(whole=True), end="\n")

    async def _show(self, line: str, end: str) -> None:
        text = Text(line, no_wrap=True, overflow="ellipsis")
        if self._animated:
            width = max(self._console.width - 1, 1)
            text.truncate(width, pad=True)
        # A terminal may be stopped, and what reads a pipe be slow.
        await trio.to_thread.run_sync(
            lambda: self._console.print(text, end=end, soft_wrap=True), abandon_on_cancel=True
        )
