"""The six things that the demonstration shows, each measured on the way over a real socket."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import trio
from rich.text import Text

from trio_streamrpc import Stream
from trio_streamrpc.cli.demo_figures import Figures, Schedule
from trio_streamrpc.cli.demo_service import (
    ITEM_SECONDS,
    ITEMS_WINDOW,
    DemoService,
    LookAhead,
    Sample,
)
from trio_streamrpc.cli.demo_source import Source
from trio_streamrpc.cli.demo_view import View, amount
from trio_streamrpc.nurseries import open_background_nursery

__all__ = ["Stage", "perform"]

#: How much slower than its producer the slow consumer is.
SLOWNESS = 100

#: How long the slow consumer waits, at the most, for the producer to use up its window.
SETTLE_SECONDS = 2.0

#: The columns that show how two streams share a time, and the pace of the slower one.
COLUMNS = 20
BEAT_SECONDS = 0.01

#: The item after which the last act leaves its loop.
ENOUGH = 100


@dataclass(frozen=True, slots=True)
class Stage:
    """What every act needs."""

    #: The service as its client sees it, over the socket.
    api: DemoService
    #: The service itself, for what it notes down.
    service: DemoService
    source: Source
    view: View
    schedule: Schedule
    figures: Figures = field(default_factory=Figures)


async def perform(stage: Stage) -> Figures:
    """All acts, one after another; gives their figures."""
    for act in (call, watch, transfer, dawdle, share, leave):
        await act(stage)
    return stage.figures


async def call(stage: Stage) -> None:
    """A unary call, some hundred times."""
    api, view, figures = stage.api, stage.view, stage.figures
    times: list[float] = []

    def rows() -> Iterator[Text]:
        micro = view.glyphs.micro
        most = statistics.quantiles(times, n=20)[-1]
        yield view.row("median", value=f"{figures.unary_us:.0f} {micro}s for a round trip")
        yield view.row("95 %", value=f"{most:.0f} {micro}s or less, of {len(times)} calls")

    with view.act("A call and its answer"):
        for number in range(stage.schedule.calls):
            start = time.perf_counter()
            await api.add(number, 1)
            times.append((time.perf_counter() - start) * 1e6)
        figures.unary_us = round(statistics.median(times), 1)
        view.draw(rows)


async def watch(stage: Stage) -> None:
    """The stream of this machine's figures, drawn as it arrives."""
    schedule, view = stage.schedule, stage.view
    samples: list[Sample] = []

    def rows() -> Iterator[Text]:
        last = samples[-1]
        cpu = view.sparkline([each.cpu for each in samples], 100)
        memory = view.sparkline([each.memory for each in samples], 100)
        used = f"{last.memory_used / 1e9:.1f} of {last.memory_total / 1e9:.1f} GB"
        yield view.row("CPU", cpu, f"{last.cpu:5.1f} %")
        yield view.row("memory", memory, f"{last.memory:5.1f} %  {used}")
        yield view.row("items", value=str(len(samples)))

    with view.act("A live stream: CPU and memory of this machine"):
        end = trio.current_time() + schedule.metrics_seconds
        async with stage.api.machine(schedule.metrics_interval) as machine:
            async for sample in machine:
                samples.append(sample)
                view.draw(rows)
                if trio.current_time() >= end:
                    break
    stage.figures.metrics_items = len(samples)


async def transfer(stage: Stage) -> None:
    """A file as a stream of chunks, its digest made on both sides."""
    view, figures, size = stage.view, stage.figures, stage.source.size
    digest = hashlib.sha256()
    sent = ""

    def update(chunks: list[bytes]) -> None:
        for chunk in chunks:
            digest.update(chunk)

    def rows() -> Iterator[Text]:
        share = figures.file_bytes / size if size else 1.0
        arrived = f"{amount(figures.file_bytes)}  {figures.file_mb_per_s:.1f} MB/s"
        yield view.row("arrived", view.bar(share), arrived)
        if sent:
            verdict = "the same on both sides" if figures.file_sha256_ok else f"sent: {sent[:16]}"
            mark = view.mark(figures.file_sha256_ok)
            yield view.row("SHA-256", value=f"{digest.hexdigest()[:16]}... {verdict} {mark}")

    with view.act(f"A file: {stage.source.name}"):
        start = time.perf_counter()
        async with stage.api.file() as chunks:
            async for batch in chunks.batches():
                # In a thread, so that what arrives meanwhile is not kept waiting.
                await trio.to_thread.run_sync(update, batch)
                figures.file_bytes += sum(map(len, batch))
                seconds = time.perf_counter() - start
                figures.file_mb_per_s = round(figures.file_bytes / 1e6 / seconds, 1)
                view.draw(rows)
        sent = await stage.api.file_sha256()
        figures.file_sha256_ok = digest.hexdigest() == sent
        view.draw(rows)


async def dawdle(stage: Stage) -> None:
    """A consumer that is much slower than its producer, and how far that one runs ahead."""
    service, view, figures = stage.service, stage.view, stage.figures
    window = figures.window_items = ITEMS_WINDOW.items

    def rows() -> Iterator[Text]:
        seen = service.look_ahead
        squares = view.glyphs.square * seen.now
        yield view.row("ahead", squares, f"{seen.now} of a window of {window}")
        yield view.row("", value=f"{seen.produced} produced, {seen.taken} taken")
        # Whether it comes up to the window shows at the end.
        mark = view.mark(seen.most == window) if figures.lookahead_items else ""
        yield view.row("at most", value=f"{seen.most} items {mark}".rstrip())

    with view.act(f"A consumer {SLOWNESS} times slower than its producer"):
        async with stage.api.items() as items:
            for _ in range(stage.schedule.slow_items):
                await items.receive()
                service.look_ahead.take()
                view.draw(rows)
                await trio.sleep(ITEM_SECONDS * SLOWNESS)
                view.draw(rows)
            await settle(service.look_ahead)
            figures.lookahead_items = service.look_ahead.most
            view.draw(rows)


async def settle(look_ahead: LookAhead) -> None:
    """Wait until the producer stands still, however slow this machine is."""
    with trio.move_on_after(SETTLE_SECONDS):
        await look_ahead.full.wait()
    # If it would run on, past its window, it does so in this time.
    await trio.sleep(ITEM_SECONDS * SLOWNESS)


class Tally:
    """How many items came in each part of a time that two streams share."""

    def __init__(self, seconds: float) -> None:
        self.start = trio.current_time()
        self.end = self.start + seconds
        self.columns = {"flood": [0] * COLUMNS, "beat": [0] * COLUMNS}
        #: How often the next item was one of the other stream.
        self.turns = 0
        self._last = ""

    def count(self, name: str) -> bool:
        """Count an item; False if the time is over."""
        now = trio.current_time()
        if now >= self.end:
            return False
        column = int((now - self.start) / (self.end - self.start) * COLUMNS)
        self.columns[name][min(column, COLUMNS - 1)] += 1
        self.turns += self._last not in {"", name}
        self._last = name
        return True


async def share(stage: Stage) -> None:
    """Two streams on one connection, one of which takes all it can get."""
    view, figures, seconds = stage.view, stage.figures, stage.schedule.both_seconds

    def rows() -> Iterator[Text]:
        for name, columns in tally.columns.items():
            drawing = view.sparkline(columns, max(columns) or 1)
            yield view.row(name, drawing, f"{sum(columns):,} items")
        yield view.row("turns", value=f"{tally.turns} from one to the other, in {seconds} s")

    async def drain(name: str, items: Stream[int]) -> None:
        async with items:
            async for _ in items:
                if not tally.count(name):
                    break
                view.draw(rows)

    with view.act("Two streams at once, over one connection"):
        tally = Tally(seconds)
        async with open_background_nursery() as nursery:
            nursery.start_soon(drain, "flood", stage.api.flood())
            await drain("beat", stage.api.beat(BEAT_SECONDS))
        figures.flood_items, figures.beat_items = map(sum, tally.columns.values())


async def leave(stage: Stage) -> None:
    """A ``break``: the block ends once the producer's ``finally`` has run."""
    view, figures = stage.view, stage.figures
    with view.act("A break in the middle of a stream"):
        async with stage.api.feed() as feed:
            async for number in feed:
                if number == ENOUGH:
                    break
            left = time.perf_counter()
        ended = time.perf_counter()
        # What is true now was true when the block ended: nothing else has run in between.
        cleanup = stage.service.cleanup
        figures.finally_ran = cleanup.ended is not None
        figures.break_cleanup_ms = round((ended - left) * 1e3, 3)
        events = (
            (left, "client: the loop is left"),
            (cleanup.began, "server: the producer's finally begins"),
            (cleanup.ended, "server: it has run, with all that it awaits"),
            (ended, f"client: the block ends {view.mark(figures.finally_ran)}"),
        )
        view.draw(
            lambda: [
                view.row("never" if at is None else f"{(at - left) * 1e3:.2f} ms", value=what)
                for at, what in events
            ]
        )
