"""``trio-streamrpc fuzz``: call a service in every way that its annotations allow."""

from __future__ import annotations

import sys

import click

from trio_streamrpc.cli.loading import find

__all__ = ["fuzz"]

EPILOG = """\b
Examples:
  trio-streamrpc fuzz market:Market
  trio-streamrpc fuzz market:Market --examples 1000 --method price --method ticks
"""


@click.command(epilog=EPILOG, short_help="Look for what a service must not do.")
@click.argument("service", metavar="PACKAGE.MODULE:SERVICE")
@click.option("--seconds", type=float, help="How long to look; 10 if neither this nor --examples.")
@click.option("--examples", type=int, help="How many examples to try.")
@click.option("--method", "methods", multiple=True, help="Call this method; may be repeated.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed, the same.")
def fuzz(
    service: str,
    seconds: float | None,
    examples: int | None,
    methods: tuple[str, ...],
    seed: int,
) -> None:
    """Call a service in every way that its annotations allow, and some that they do not.

    SERVICE is a class, an object, or a function without arguments that makes one or gives an async
    context manager around one. Calls run at the same time, are cancelled, and are left in the
    middle, over networks that are late and break; time is simulated. What is found is made as small
    as it gets, and printed as a test. The exit code is 1 if something was found.
    """
    try:
        from trio_streamrpc.testing import find_failures
    except ModuleNotFoundError as error:
        raise click.UsageError(str(error)) from None
    if seconds is None and examples is None:
        seconds = 10.0
    try:
        report = find_failures(
            find(service), seconds=seconds, examples=examples, methods=methods, seed=seed
        )
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    click.echo(str(report))
    if report:
        sys.exit(1)
