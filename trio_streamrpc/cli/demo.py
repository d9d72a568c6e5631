"""``trio-streamrpc demo``: what the library does, on real input, in about ten seconds."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import click
import trio

from trio_streamrpc import RpcError, connect, serve
from trio_streamrpc.cli.demo_acts import Stage, perform
from trio_streamrpc.cli.demo_figures import BRIEF, FULL, Figures, Schedule
from trio_streamrpc.cli.demo_service import DemoService
from trio_streamrpc.cli.demo_source import open_source
from trio_streamrpc.cli.demo_view import View, open_console
from trio_streamrpc.nurseries import open_background_nursery

__all__ = ["demo"]

EPILOG = """\b
Examples:
  trio-streamrpc demo
  trio-streamrpc demo --json | python3 -m json.tool
"""


@click.command(epilog=EPILOG, short_help="Show what the library does, in ten seconds.")
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    help="The file to transfer; without it, 100 MB of random bytes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def demo(path: Path | None, as_json: bool) -> None:
    """Show what the library does, on real input, in about ten seconds.

    A server and a client in this process talk over a WebSocket on the loopback device: calls, a
    live stream, a file, backpressure, two streams at once, and a stream that is left early. The
    exit code is 1 if something is not as it has to be.
    """
    view = View(None if as_json else open_console())
    try:
        outcome = trio.run(interruptible, path, view, BRIEF if as_json else FULL)
        if isinstance(outcome, int):
            sys.exit(128 + outcome)
        problems = outcome.problems()
        if as_json:
            click.echo(outcome.as_json())
            for problem in problems:
                click.echo(f"FAILED: {problem}", err=True)
    except BrokenPipeError:
        # Who read the output has seen enough: click ends the process without a word.
        raise
    except (OSError, RpcError) as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from error
    if problems:
        sys.exit(1)


async def interruptible(path: Path | None, view: View, schedule: Schedule) -> Figures | int:
    """The figures of a whole run, or the number of the signal that ended it early."""
    caught: list[int] = []

    async def watch() -> None:
        async for number in signals:
            caught.append(number)
            scope.cancel()

    # A cancellation, and no exception at any place: all that was opened is closed in order.
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        with trio.CancelScope() as scope:
            async with open_background_nursery() as nursery:
                nursery.start_soon(watch)
                return await show(path, view, schedule)
    return caught[0]


async def show(path: Path | None, view: View, schedule: Schedule) -> Figures:
    """Start the server, connect to it, and show everything."""
    start = time.perf_counter()
    async with open_source(path) as source, open_background_nursery() as nursery:
        service = DemoService(source)
        server = await nursery.start(serve, service, "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            view.line(f"A server and a client in one process, over {server.url}")
            api = connection.proxy(DemoService)
            figures = await perform(Stage(api, service, source, view, schedule))
    view.summary(figures, time.perf_counter() - start)
    return figures
