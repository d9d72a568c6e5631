"""Callbacks and remote objects: what one side has exported, and the other side's hold on it (R20).

An :class:`Export` stands on the side where the object lives, a :class:`Target` on the side that
calls it. Both belong to one call, and end with it; the call to a service at the start of the chain
that they hang from is their :class:`Root`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio_streamrpc.contract.method import Method
    from trio_streamrpc.protocol.exchanges import Exchange
    from trio_streamrpc.runtime.handlers import Handler

__all__ = ["Export", "Root", "Target"]

Run = Callable[["Handler"], Awaitable[None]]


class Root:
    """The call to a service that callbacks and remote objects hang from in the end (R26)."""

    __slots__ = ("_places", "exchange")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._places: trio.Semaphore | None = None

    def places(self, limit: int) -> trio.Semaphore:
        """The places that the other side has for calls to these objects."""
        if self._places is None:
            self._places = trio.Semaphore(limit)
        return self._places


class Target:
    """An object of the other side, for as long as what it belongs to lasts."""

    __slots__ = ("depth", "ended", "id", "name", "root")

    def __init__(self, id: int, root: Root, name: str, depth: int = 0) -> None:
        self.id = id
        #: How many calls to objects of the same root are held open for it.
        self.depth = depth
        self.root = root
        #: What messages and interceptors call it.
        self.name = name
        #: Set by this side when what it belongs to has ended here.
        self.ended = False


class Export:
    """An object of this side that the other side may call.

    Its calls run in ``nursery``, each in a copy of ``context``.
    """

    __slots__ = (
        "_idle",
        "_last",
        "context",
        "find",
        "id",
        "in_order",
        "is_callback",
        "name",
        "nursery",
        "root",
        "running",
    )

    def __init__(
        self,
        id: int,
        root: Root,
        name: str,
        find: Callable[[str], Method | None],
        *,
        nursery: trio.Nursery,
        context: Context,
        is_callback: bool,
        in_order: bool = False,
    ) -> None:
        self.id = id
        self.root = root
        #: Whether its calls run one after another: nobody waits for one before the next is made.
        self.in_order = in_order
        self._last: trio.Event | None = None
        #: What messages and interceptors call it.
        self.name = name
        #: The method of that name; a callback's name is empty.
        self.find = find
        self.nursery = nursery
        self.context = context
        #: Whether its calls run in the task tree of the caller that has passed it.
        self.is_callback = is_callback
        self.running: set[Handler] = set()
        self._idle: trio.Event | None = None

    def name_of(self, method: Method) -> str:
        """What a method of the object is called: by its name, after the object's own."""
        return f"{self.name}.{method.name}" if method.name else self.name

    def start(self, handler: Handler, run: Callable[[Handler], Awaitable[None]], name: str) -> bool:
        """Start a call of this object; False if what it belongs to has ended here."""

        run = self._in_turn(run) if self.in_order else run

        def start() -> None:
            self.nursery.start_soon(run, handler, name=name)

        try:
            # What start_soon copies for a task is the context that it is called in.
            self.context.run(start)
        except RuntimeError:
            # The nursery is closed: its block ended before the export was taken back.
            return False
        self.running.add(handler)
        return True

    def _in_turn(self, run: Callable[[Handler], Awaitable[None]]) -> Run:
        """Run a call once the one before it has ended."""
        before, self._last = self._last, trio.Event()
        ended = self._last

        async def run_in_turn(handler: Handler) -> None:
            try:
                if before is not None:
                    await before.wait()
            finally:
                # Also where that was cancelled: how it ends is said by itself.
                try:
                    await run(handler)
                finally:
                    ended.set()

        return run_in_turn

    def stopped(self, handler: Handler) -> None:
        """That call has ended."""
        self.running.discard(handler)
        if self._idle is not None and not self.running:
            self._idle.set()

    def ask_all(self) -> None:
        """Ask all its calls to stop."""
        for handler in list(self.running):
            handler.ask()

    async def wait_idle(self) -> None:
        """Wait until all its calls have ended."""
        if self.running:
            if self._idle is None:
                self._idle = trio.Event()
            await self._idle.wait()
