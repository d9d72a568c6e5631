"""``trio-streamrpc methods``: what a service has, as it says itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trio_streamrpc.cli.connecting import Place, connecting_options, open_place
from trio_streamrpc.cli.demo_view import open_console
from trio_streamrpc.cli.described import DESCRIBE, Description, MethodInfo, ask_description
from trio_streamrpc.cli.failures import Failure, one_line, run
from trio_streamrpc.cli.patience import Patience
from trio_streamrpc.cli.stdout import Stdout, json_line
from trio_streamrpc.errors import Unimplemented
from trio_streamrpc.runtime.connection import Connection

__all__ = ["methods"]

EPILOG = """\b
Examples:
  trio-streamrpc methods ws://127.0.0.1:8765
  trio-streamrpc methods ws://127.0.0.1:8765 --json | python3 -m json.tool
"""

#: How wide a table in a pipe may get, in characters: nothing is to be wrapped there.
PIPE_WIDTH = 10_000


@click.command(epilog=EPILOG, short_help="Show what a service has.")
@click.argument("url")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON object.")
@connecting_options
def methods(
    url: str,
    as_json: bool,
    header: tuple[str, ...],
    metadata: tuple[str, ...],
    token_env: str | None,
    shows_traceback: bool,
) -> None:
    """Show the methods of the service at URL, with their kinds and types.

    The service tells them if it is served with reflection, as `trio-streamrpc serve` does. With
    --json types are there as JSON Schema as well.
    """
    place = Place.of(url, header, metadata, token_env)
    run(shows_traceback, show, place, as_json, Patience(None))


async def show(place: Place, as_json: bool, patience: Patience) -> None:
    """Print what the service at a place says of itself."""
    async with patience.listening():
        async with open_place(place, "json") as connection:
            with patience.stretch():
                found = await told(connection)
                await Stdout().write(json_line(found) if as_json else drawn(found))


async def told(connection: Connection) -> Any:
    """What a service says of itself."""
    try:
        return await ask_description(connection)
    except Unimplemented as error:
        raise Failure("the service does not tell what it has: serve(…, reflection=True)") from error


def drawn(found: Any) -> bytes:
    """A table of the methods, and one for each kind of object that they give."""
    try:
        description = msgspec.convert(found, Description)
    except msgspec.ValidationError as error:
        raise Failure(f"{DESCRIBE} gives no description: {error}") from error
    console = open_console()
    if console is None:
        return b""
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    with console.capture() as captured:
        console.print(table_of(console, description.methods))
        for name, methods in description.objects.items():
            console.print(Text(f"\nObjects of {one_line(name)}:"))
            console.print(table_of(console, methods))
    text = captured.get()
    if not console.is_terminal:
        text = re.sub(" +$", "", text, flags=re.MULTILINE)
    return text.encode(console.encoding, "backslashreplace")


def table_of(console: Console, methods: Iterable[MethodInfo]) -> Table:
    """The methods as a table."""
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for each in ("Method", "Kind", "Takes", "Gives", "About"):
        table.add_column(each, overflow="fold")
    for method in methods:
        cells = (method.name, method.kind, method.takes, method.gives, method.about)
        table.add_row(*(Text(one_line(each)) for each in cells))
    return table
