"""``trio-streamrpc call``: call any method, and print what it gives as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import trio

from trio_streamrpc.cli.arguments import Argument, read_arguments
from trio_streamrpc.cli.connecting import Place, connecting_options, open_place
from trio_streamrpc.cli.described import MethodInfo, find_method
from trio_streamrpc.cli.failures import Misuse, run
from trio_streamrpc.cli.feeds import Feed
from trio_streamrpc.cli.patience import Patience
from trio_streamrpc.cli.progress import Progress
from trio_streamrpc.cli.stdout import Stdout, json_line
from trio_streamrpc.errors import InvalidArgument
from trio_streamrpc.limits import Window
from trio_streamrpc.nurseries import open_companion_nursery
from trio_streamrpc.runtime.connection import Connection
from trio_streamrpc.runtime.options import NO_OPTIONS, Options
from trio_streamrpc.runtime.proxies import DynamicCall, DynamicProxy
from trio_streamrpc.runtime.streams import Stream

__all__ = ["call"]

EPILOG = """\b
An ARG is JSON, or a word that is taken as a string. @FILE streams the lines of a
file as JSON values to a parameter that takes a stream, @- those of the standard
input; another parameter gets the whole file as one value. With --raw they are bytes.

\b
Exit codes: 0 all is well, 1 the other side raised something, 2 the command was
called wrongly, 3 there is no connection, 4 the time was up.

\b
Examples:
  trio-streamrpc call ws://127.0.0.1:8765 price ACME
  trio-streamrpc call ws://127.0.0.1:8765 ticks --kw 'symbol="ACME"' | head -3
  seq 3 | trio-streamrpc call ws://127.0.0.1:8765 total @-
"""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be called, and how."""

    place: Place
    method: str
    arguments: list[Argument]
    window: int | None = None
    raw: bool = False
    progress: Progress | None = None


@click.command(epilog=EPILOG, short_help="Call a method and print what it gives.")
@click.argument("url")
@click.argument("method")
@click.argument("args", nargs=-1, metavar="[ARG]...")
@click.option("--kw", multiple=True, metavar="NAME=JSON", help="An argument by its name.")
@click.option("--timeout", type=click.FloatRange(min=0), help="The time for all of it, in seconds.")
@click.option(
    "--window", type=click.IntRange(min=1), help="How many items a stream may run ahead by."
)
@click.option("--raw", is_flag=True, help="Take files as bytes, and print bytes as they are.")
@click.option("--progress", is_flag=True, help="Show how fast it goes, on the standard error.")
@connecting_options
def call(
    url: str,
    method: str,
    args: tuple[str, ...],
    kw: tuple[str, ...],
    timeout: float | None,
    window: int | None,
    raw: bool,
    progress: bool,
    header: tuple[str, ...],
    metadata: tuple[str, ...],
    token_env: str | None,
    shows_traceback: bool,
) -> None:
    """Call METHOD of the service at URL, and print its result as JSON.

    Items of a stream are printed as they arrive, one a line. Ctrl-C ends it, and so does whoever
    reads the output by leaving: either way the method has finished, cleanup included, before the
    command ends.
    """
    order = Order(
        Place.of(url, header, metadata, token_env),
        method,
        read_arguments(args, kw, raw=raw),
        window,
        raw,
        Progress() if progress else None,
    )
    run(shows_traceback, perform, order, Patience(timeout))


async def perform(order: Order, patience: Patience) -> None:
    """Connect, call, print, and leave it all in order."""
    async with patience.listening():
        # JSON is what the arguments are written in, and what is printed.
        async with open_place(order.place, "msgpack" if order.raw else "json") as connection:
            await Caller(order, patience, connection).run()


class Caller:
    """Makes the call."""

    def __init__(self, order: Order, patience: Patience, connection: Connection) -> None:
        self._order = order
        self._patience = patience
        self._connection = connection
        self._stdout = Stdout()
        self._feeds: list[Feed] = []

    async def run(self) -> None:
        progress = self._order.progress
        async with open_companion_nursery() as nursery:
            if progress is not None:
                sources = [each.source for each in self._order.arguments if each.source]
                progress.watch_sources(sources)
                nursery.start_soon(progress.run)
            try:
                with self._patience.stretch():
                    await self._call(nursery)
            except BrokenPipeError:
                # Who reads the output has seen enough.
                pass
            finally:
                nursery.cancel_scope.cancel()
                if progress is not None:
                    with trio.move_on_after(1, shield=True):
                        await progress.finish()

    async def _call(self, nursery: trio.Nursery) -> None:
        method = await find_method(self._connection, self._order.method)
        args, kwargs = await self._bind(method, nursery)
        if method is None:
            await self._call_unknown(args, kwargs)
        elif method.kind == "unary":
            await self._print_result(self._begin(args, kwargs))
        elif method.kind == "server stream":
            await self._print_stream(self._begin(args, kwargs))
        else:
            raise Misuse(
                f"{method.name} is a {method.kind}, which lasts for a block: no command calls it"
            )

    async def _call_unknown(self, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Call a method of a kind that is not known.

        A call of another kind than the method's is refused before anything of it runs, in words
        that say what it is; so one of these two runs it, and the other does not.
        """
        try:
            await self._print_result(self._begin(args, kwargs))
            return
        except InvalidArgument as error:
            if "gives a stream" not in error.message or any(each.is_lost for each in self._feeds):
                raise
            first = error
        try:
            await self._print_stream(self._begin(args, kwargs))
        except InvalidArgument as error:
            # It was the method itself that spoke of streams.
            raise first if "gives one result" in error.message else error from None

    def _begin(self, args: list[Any], kwargs: dict[str, Any]) -> DynamicCall:
        """A call that is about to be made: awaited, or entered."""

        def ready(value: Any) -> Any:
            return value.values() if isinstance(value, Feed) else value

        order = self._order
        options = NO_OPTIONS
        if order.window is not None:
            options = Options(window=Window(items=order.window))
        proxy = DynamicProxy(self._connection, order.method, options)
        return proxy(*map(ready, args), **{name: ready(each) for name, each in kwargs.items()})

    # --- arguments

    async def _bind(
        self, method: MethodInfo | None, nursery: trio.Nursery
    ) -> tuple[list[Any], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        if method is not None:
            check_callbacks(method, self._order.arguments)
        for each in self._order.arguments:
            value = each.value
            if each.source is not None:
                parameter = None if method is None else each.parameter_of(method)
                if parameter is None or parameter.role == "stream" or parameter.type == "Any":
                    value = Feed(each.source, nursery, keeps=method is None)
                    self._feeds.append(value)
                else:
                    value = await each.source.whole()
            if isinstance(each.place, str):
                kwargs[each.place] = value
            else:
                args.append(value)
        return args, kwargs

    # --- what it gives

    async def _print_result(self, called: DynamicCall) -> None:
        await self._write([await called])

    async def _print_stream(self, called: DynamicCall) -> None:
        async with called as stream:
            if self._order.progress is not None:
                self._order.progress.watch_stream(stream)
            async with open_companion_nursery() as nursery:
                with self._patience.stretch():
                    nursery.start_soon(self._watch_reader)
                    await self._print_items(stream)

    async def _print_items(self, stream: Stream[Any]) -> None:
        try:
            async for batch in stream.batches():
                await self._write(batch)
        except BrokenPipeError:
            self._patience.ended = True

    async def _watch_reader(self) -> None:
        await self._stdout.wait_unread()
        self._patience.end()

    async def _write(self, values: Sequence[Any]) -> None:
        data = b"".join(map(self._encoded, values))
        progress = self._order.progress
        if progress is None:
            await self._stdout.write(data)
        else:
            await progress.write(self._stdout.write, data)

    def _encoded(self, value: Any) -> bytes:
        return value if self._order.raw and isinstance(value, bytes) else json_line(value)


def check_callbacks(method: MethodInfo, arguments: Sequence[Argument]) -> None:
    """Raise :exc:`Failure` for a method that needs a function of its caller's."""
    for each in method.parameters:
        if each.role == "callback" and each.required:
            raise Misuse(
                f"{method.name} takes a callback, {each.name!r}, which no command can give"
            )
