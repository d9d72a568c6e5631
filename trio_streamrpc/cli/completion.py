"""``trio-streamrpc completion``: what a shell has to run to complete the commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]

NAME = "trio-streamrpc"

EPILOG = """\b
Examples:
  eval "$(trio-streamrpc completion bash)"
  trio-streamrpc completion fish > ~/.config/fish/completions/trio-streamrpc.fish
"""


@click.command(epilog=EPILOG, short_help="Print what a shell needs to complete commands.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which SHELL completes this program's commands and options."""
    found = get_completion_class(shell)
    assert found is not None
    made = found(context.find_root().command, {}, NAME, "_TRIO_STREAMRPC_COMPLETE")
    click.echo(made.source())
