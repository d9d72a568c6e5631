"""The group of all commands; each has a file of its own."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import click

from trio_streamrpc.cli.call import call
from trio_streamrpc.cli.completion import completion
from trio_streamrpc.cli.demo import demo
from trio_streamrpc.cli.fuzz import fuzz
from trio_streamrpc.cli.methods import methods
from trio_streamrpc.cli.ping import ping
from trio_streamrpc.cli.serve import serve

__all__ = ["commands"]


def print_version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    """Print the version that is installed, and stop."""
    if not asked or context.resilient_parsing:
        return
    try:
        found = version("trio-streamrpc")
    except PackageNotFoundError:
        found = "(a source tree that is not installed)"
    click.echo(f"trio-streamrpc {found}")
    context.exit()


@click.group(epilog="Start with: trio-streamrpc demo")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Show the version and exit.",
)
def commands() -> None:
    """Streaming RPC for Trio over WebSocket."""


commands.add_command(call)
commands.add_command(completion)
commands.add_command(demo)
commands.add_command(fuzz)
commands.add_command(methods)
commands.add_command(ping)
commands.add_command(serve)
