"""The window at work: a stream whose consumer takes nothing at first, then slowly, then fast.

A client, a service and the network between them run on simulated time, so that each run gives the
same. What is drawn is what was seen in it: nothing is computed from what should happen.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from docs.pictures.style import Theme, digest
from trio_streamrpc import Window, rpc
from trio_streamrpc.testing import Network, run_repeatably, simulate, trace_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Moment", "Run", "draw", "run"]

WINDOW: Final = 32
#: Seconds that a message is on its way, and that the producer takes for an item.
LATENCY: Final = 0.03
MAKING: Final = 0.01
#: From when on the consumer takes items at all, and from when on it is fast; how long it takes for
#: an item.
SLOW_FROM: Final = 1.0
FAST_FROM: Final = 4.5
SLOW: Final = 0.08
FAST: Final = 0.004
ENDS: Final = 5.7
#: How often it is looked at what there is.
STEP: Final = 0.005


@dataclass(frozen=True)
class Moment:
    """What there was at one time, in seconds since the stream began."""

    time: float
    made: int
    taken: int
    buffered: int
    granted: int

    @property
    def ahead(self) -> int:
        """Made and not yet taken: on its way, or waiting at the consumer."""
        return self.made - self.taken


@dataclass
class Run:
    """What was seen."""

    moments: list[Moment] = field(default_factory=list)
    #: From when until when the producer stood at its ``yield``, where that took any time.
    stalls: list[tuple[float, float]] = field(default_factory=list)
    #: When a grant was sent, and of how many items.
    grants: list[tuple[float, int]] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """The same for the same data."""
        return digest(asdict(self))


class Feed:
    """It makes an item every so often, and says how long it had to stand still."""

    def __init__(self) -> None:
        self.made = 0
        self.stalls: list[tuple[float, float]] = []

    @rpc
    async def items(self) -> AsyncIterator[int]:
        for number in itertools.count():
            await trio.sleep(MAKING)
            self.made += 1
            since = trio.current_time()
            yield number
            if trio.current_time() > since:
                self.stalls.append((since, trio.current_time()))


def run() -> Run:
    """Run it."""
    return run_repeatably(_run, seed=1)


async def _run() -> Run:
    seen, feed, taken = Run(), Feed(), 0
    async with simulate(feed, network=Network(latency=LATENCY), seed=1) as connection:
        stream = connection.stream("items", window=Window(items=WINDOW))
        async with stream, trio.open_nursery() as nursery:
            began = trio.current_time()

            async def look() -> None:
                # Between the moments at which something happens.
                await trio.sleep(STEP / 3)
                while True:
                    there = stream.statistics()
                    time = round(trio.current_time() - began, 6)
                    moment = Moment(
                        time, feed.made, taken, there.items_buffered, there.items_granted
                    )
                    seen.moments.append(moment)
                    await trio.sleep(STEP)

            nursery.start_soon(look)
            await trio.sleep(SLOW_FROM)
            while (now := trio.current_time() - began) < ENDS:
                await stream.receive()
                taken += 1
                await trio.sleep(SLOW if now < FAST_FROM else FAST)
            nursery.cancel_scope.cancel()
        trace = trace_of(connection)
    offset = next(each.time for each in trace.said if each.frames[0]["type"] == "call")
    seen.stalls = [(round(a - began, 6), round(b - began, 6)) for a, b in feed.stalls]
    seen.grants = [
        (round(said.time - offset, 6), frame["items"])
        for said in trace.said
        for frame in said.frames
        if frame["type"] == "grant"
    ]
    return seen


def draw(seen: Run, theme: Theme) -> Figure:
    """Items above, what the producer does below."""
    figure = theme.figure(7.4, 3.9)
    items, producer = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [5, 1], "hspace": 0.12}
    )
    times = [each.time for each in seen.moments]
    items.axhline(WINDOW, color=theme.text, linewidth=1, linestyle=(0, (4, 3)))
    items.annotate(
        f"window: {WINDOW} items",
        (ENDS, WINDOW),
        xytext=(-2, -4),
        textcoords="offset points",
        ha="right",
        va="top",
    )
    ahead = [each.ahead for each in seen.moments]
    buffered = [each.buffered for each in seen.moments]
    items.plot(times, ahead, color=theme.accent, linewidth=1.6, label="made, and not yet taken")
    items.fill_between(
        times,
        buffered,
        color=theme.second,
        alpha=0.35,
        linewidth=0,
        label="waiting at the consumer",
    )
    _mark_grants(items, seen, theme)
    items.set_ylim(0, WINDOW + 9)
    items.set_yticks(range(0, WINDOW + 1, WINDOW // 4))
    items.set_ylabel("items")
    items.legend(loc="upper left", bbox_to_anchor=(0.0, 1.18), ncols=3, frameon=False)
    for time in (SLOW_FROM, FAST_FROM):
        items.axvline(time, color=theme.faint, linewidth=1)
        producer.axvline(time, color=theme.faint, linewidth=1)
    _name_phases(items)
    _strip(producer, seen, theme)
    producer.set_xlabel("seconds")
    producer.set_xlim(0, ENDS)
    theme.finish(items, producer)
    return figure


def _name_phases(axes: Axes) -> None:
    phases = {
        "the consumer\ntakes nothing": (0.0, SLOW_FROM),
        f"… takes an item every {SLOW * 1000:.0f} ms": (SLOW_FROM, FAST_FROM),
        f"… every {FAST * 1000:.0f} ms": (FAST_FROM, ENDS),
    }
    for text, (begins, ends) in phases.items():
        axes.annotate(text, ((begins + ends) / 2, WINDOW + 2), ha="center", va="bottom")


def _mark_grants(axes: Axes, seen: Run, theme: Theme) -> None:
    shown = [time for time, _ in seen.grants if time < ENDS]
    axes.plot(
        shown, [0] * len(shown), linestyle="none", marker="^", markersize=6, clip_on=False,
        color=theme.third, label="a grant is sent",
    )  # fmt: skip


def _strip(axes: Axes, seen: Run, theme: Theme) -> None:
    axes.axhspan(0, 1, color=theme.accent, alpha=0.55, linewidth=0)
    for begins, ends in seen.stalls:
        axes.axvspan(begins, min(ends, ENDS), color=theme.ground, linewidth=0)
        axes.axvspan(begins, min(ends, ENDS), color=theme.faint, alpha=0.5, linewidth=0)
    for begins, ends in seen.stalls:
        if ends - begins > 0.7:
            middle = (begins + ends) / 2
            axes.annotate("stands still", (middle, 0.5), ha="center", va="center")
    axes.set_yticks([])
    axes.set_ylim(0, 1)
    axes.set_ylabel("producer", rotation=0, ha="right", va="center")
