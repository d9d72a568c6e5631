"""``trio-streamrpc ping``: how long a round trip takes, at the level of the protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence

import click

from trio_streamrpc.cli.connecting import Place, connecting_options, open_place
from trio_streamrpc.cli.failures import one_line, run
from trio_streamrpc.cli.patience import Patience
from trio_streamrpc.cli.stdout import Stdout

__all__ = ["ping"]

EPILOG = """\b
Examples:
  trio-streamrpc ping ws://127.0.0.1:8765
  trio-streamrpc ping ws://127.0.0.1:8765 -n 1000
"""


@click.command(epilog=EPILOG, short_help="Measure how long a round trip takes.")
@click.argument("url")
@click.option(
    "-n",
    "number",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="How many round trips.",
)
@click.option("--timeout", type=click.FloatRange(min=0), help="The time for all of it, in seconds.")
@connecting_options
def ping(
    url: str,
    number: int,
    timeout: float | None,
    header: tuple[str, ...],
    metadata: tuple[str, ...],
    token_env: str | None,
    shows_traceback: bool,
) -> None:
    """Measure round trips to the service at URL, one after the other.

    They are pings of the protocol: no method is called.
    """
    place = Place.of(url, header, metadata, token_env)
    run(shows_traceback, measure, place, number, Patience(timeout))


async def measure(place: Place, number: int, patience: Patience) -> None:
    """Print how long so many round trips take, or those for which there was time."""
    taken: list[float] = []
    async with patience.listening():
        async with open_place(place) as connection:
            with patience.stretch():
                while len(taken) < number:
                    taken.append(await connection.ping())
        if taken:
            await Stdout().write(summary(place.url, taken).encode())


def summary(url: str, seconds: Sequence[float]) -> str:
    """The shortest, the median and the 99th percentile of some round trips."""
    ordered = sorted(seconds)
    trips = "round trip" if len(ordered) == 1 else "round trips"
    figures = "   ".join(
        f"{name} {1000 * value:.3f} ms"
        for name, value in (
            ("min", ordered[0]),
            ("median", percentile(ordered, 50)),
            ("p99", percentile(ordered, 99)),
        )
    )
    return f"{len(ordered)} {trips} to {one_line(url)}\n{figures}\n"


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of them do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
