"""What a run of the demonstration looks like: drawn as it happens, or line by line in a pipe."""

from __future__ import annotations

import errno
import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from trio_streamrpc.cli.demo_figures import Figures

__all__ = ["Glyphs", "View", "amount", "open_console"]

#: How often a drawing that changes is drawn anew, in seconds.
FRAME_SECONDS = 0.05

LABEL_WIDTH = 9


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters that drawings are made of."""

    levels: str
    full: str
    empty: str
    square: str
    micro: str
    good: str
    bad: str
    line: box.Box

    @classmethod
    def of(cls, encoding: str) -> Glyphs:
        """Those that an encoding can express."""
        needed = RICH.levels + RICH.full + RICH.empty + RICH.square + RICH.micro + RICH.good
        try:
            (needed + RICH.bad).encode(encoding)
        except (LookupError, UnicodeEncodeError):
            return PLAIN
        return RICH


RICH = Glyphs(" ▁▂▃▄▅▆▇█", "━", "┄", "■", "µ", "✓", "✗", box.ROUNDED)
PLAIN = Glyphs(" .:-=+*#%@", "#", "-", "#", "u", "ok", "FAILED", box.ASCII2)


class PipeConsole(Console):
    """A console whose broken pipe is an exception like any other: its user decides what follows."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "the pipe is closed")


def open_console() -> Console | None:
    """A console on the standard output; None if that is closed."""
    stdout = sys.stdout
    if stdout is None:
        return None
    if isinstance(stdout, io.TextIOWrapper):
        # A file's name may hold what a terminal's encoding does not.
        stdout.reconfigure(errors="backslashreplace")
    if stdout.isatty():
        return PipeConsole(highlight=False, markup=False, emoji=False)
    # Whatever the environment says of colours, what reads from a pipe gets text.
    return PipeConsole(
        force_terminal=False, color_system=None, highlight=False, markup=False, emoji=False
    )


class View:
    """Shows a run on a console; without one it shows nothing.

    A run is a sequence of acts, and an act draws its rows again and again; on a terminal they
    change in place, elsewhere only the last of them are printed.
    """

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._animated = (
            console is not None and console.is_terminal and not console.is_dumb_terminal
        )
        self.glyphs = Glyphs.of("ascii" if console is None else console.encoding)
        #: How wide a drawing is, in characters.
        self.width = 10 if console is None else min(60, max(10, console.width - 40))
        self._acts = 0
        self._make: Callable[[], Iterable[Text]] = tuple
        self._live: Live | None = None
        self._drawn = 0.0

    # --- what is printed

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line that stays."""
        self._print(Text(text, style))

    def _print(self, *texts: Text) -> None:
        if self._console is not None:
            for text in texts:
                self._console.print(text, soft_wrap=True)

    @contextmanager
    def act(self, title: str) -> Iterator[None]:
        """The time in which one thing is shown; its last rows stay."""
        self._acts += 1
        self._print(Text.assemble("\n", (f"{self._acts}  {title}", "bold")))
        self._make, self._drawn = tuple, 0.0
        if not self._animated:
            yield
            self._print(*self._make())
            return
        # Drawn by the task whom it concerns, and not by a thread beside it.
        with Live(console=self._console, auto_refresh=False) as self._live:
            yield
            self._live.update(Group(*self._make()))

    def draw(self, make: Callable[[], Iterable[Text]]) -> None:
        """Show the rows that ``make`` gives in the place of the act's last ones.

        It costs next to nothing to say so for every item: the rows are made when they are due.
        """
        self._make = make
        if not self._animated:
            return
        now = time.monotonic()
        if now - self._drawn >= FRAME_SECONDS:
            assert self._live is not None
            self._live.update(Group(*make()), refresh=True)
            self._drawn = now

    # --- what rows are made of

    def row(self, label: str, drawing: str = "", value: str = "", style: str = "cyan") -> Text:
        """A row: what it is, a drawing of it, and its value."""
        text = Text("   ", no_wrap=True, overflow="ellipsis")
        text.append(label.ljust(LABEL_WIDTH), "dim")
        if drawing:
            text.append(drawing.ljust(self.width), style)
            text.append("  ")
        return text.append(value)

    def bar(self, fraction: float) -> str:
        """A bar that is full at 1."""
        filled = round(self.width * min(1.0, fraction))
        return self.glyphs.full * filled + self.glyphs.empty * (self.width - filled)

    def sparkline(self, values: Sequence[float], top: float) -> str:
        """The last values as columns of up to ``top``; what is not 0 can be seen."""
        levels = self.glyphs.levels
        highest = len(levels) - 1
        return "".join(
            levels[0 if value <= 0 else max(1, min(highest, round(value / top * highest)))]
            for value in values[-self.width :]
        )

    def mark(self, good: bool) -> str:
        """Whether something is as it has to be."""
        return self.glyphs.good if good else self.glyphs.bad

    # --- the end

    def summary(self, figures: Figures, seconds: float) -> None:
        """Print all the figures once more, and what is wrong with them."""
        if self._console is None:
            return
        lines = [
            Text.assemble(f"{name:<22}", (f"{value:>14}", "bold"), f"   {note}".rstrip())
            for name, value, note in self._summary_rows(figures)
        ]
        self.line()
        if self._animated:
            self._console.print(Panel.fit(Group(*lines), box=self.glyphs.line, border_style="dim"))
        else:
            self._print(*lines)
        problems = figures.problems()
        for problem in problems:
            self.line(f"FAILED: {problem}", "bold red")
        if not problems:
            self.line(f"All checks passed, in {seconds:.1f} s.", "green")

    def _summary_rows(self, figures: Figures) -> Iterator[tuple[str, str, str]]:
        same, ahead = figures.file_sha256_ok, figures.lookahead_items == figures.window_items
        yield "call, round trip", f"{figures.unary_us:.0f} {self.glyphs.micro}s", ""
        yield "machine, live", f"{figures.metrics_items} items", ""
        yield "file", amount(figures.file_bytes), f"SHA-256 {self.mark(same)}"
        yield "file, speed", f"{figures.file_mb_per_s:.1f} MB/s", ""
        yield (
            "look-ahead",
            f"{figures.lookahead_items} items",
            f"window {figures.window_items} {self.mark(ahead)}",
        )
        yield (
            "two at once",
            f"{figures.flood_items + figures.beat_items:,} items",
            f"{figures.flood_items:,} and {figures.beat_items:,}",
        )
        yield (
            "break to block's end",
            f"{figures.break_cleanup_ms:.2f} ms",
            f"finally had run {self.mark(figures.finally_ran)}",
        )


def amount(size: int) -> str:
    """A number of bytes, for people."""
    if size < 10_000:
        return f"{size:,} bytes"
    return f"{size / 1e6:,.1f} MB" if size >= 1_000_000 else f"{size / 1e3:.1f} kB"
