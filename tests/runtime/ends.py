"""Both ends of a connection in one process, watched: what was said, and what is left of it.

A test that ends here without an error has also shown that nothing stays behind: no id is open on
either side, no place is taken, no task more is alive than before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import cattrs
import trio
import trio.testing

from tests.protocol.wire import read
from trio_streamrpc import Connection, Interceptor, Limits, Transport, open_connection
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.transports.memory import open_memory_transports

__all__ = ["Ends", "Steps", "Wire", "open_ends", "quiet", "sweep"]

#: No test takes longer, on its own clock: what waits for ever fails instead.
PATIENCE = 3600.0


class Wire(Transport):
    """One end of a transport: it keeps the frames that were sent, and can be held up."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.encoding = inner.encoding
        self.remote = inner.remote
        self.sends_nowait = inner.sends_nowait
        self.frames: list[dict[str, Any]] = []
        self.bytes = bytearray()
        #: How many messages that were.
        self.messages = 0
        self._free = trio.Event()
        self._free.set()

    def hold(self) -> None:
        """Let nothing through until :meth:`let_go`."""
        self._free = trio.Event()

    def let_go(self) -> None:
        self._free.set()

    def step(self) -> None:
        """Let through what waits, and hold up what comes next."""
        self._free.set()
        self.hold()

    def sent(self, *kinds: str) -> list[dict[str, Any]]:
        """The frames of these kinds that were sent so far."""
        return [frame for frame in self.frames if frame["type"] in kinds]

    def send_nowait(self, message: bytes | str) -> bool:
        if not self._free.is_set() or not self.inner.send_nowait(message):
            return False
        self._note(message)
        return True

    def _note(self, message: bytes | str) -> None:
        self.messages += 1
        self.frames += read(message)
        self.bytes += message.encode() if isinstance(message, str) else message

    async def send(self, message: bytes | str) -> None:
        self._note(message)
        await self._free.wait()
        await self.inner.send(message)

    async def receive(self) -> bytes | str:
        return await self.inner.receive()

    async def aclose(self) -> None:
        await self.inner.aclose()


@dataclass
class Ends:
    """A connection that calls, one that serves, and the wire between them."""

    client: Connection
    server: Connection
    #: What the client's side sends, and what the server's does.
    up: Wire
    down: Wire

    def assert_clean(self) -> None:
        """Nothing is open between them."""
        for each in (self.client, self.server):
            assert each.endpoint.exchanges == {}
            assert each.endpoint.places.running == each.endpoint.places.overrunning == 0
            assert each.callee.running == 0
            assert each.caller.open_calls == 0
            assert each.caller.places.calls.value == each.endpoint.peer.max_calls
            assert each.caller.places.calls.statistics().tasks_waiting == 0
            assert each.caller.places.uploads.value == each.endpoint.peer.max_uploads
            assert each.caller.uploads == {}
            assert each.caller.places.claims == {}
            assert each.callee.exports == {}
            assert each.endpoint.objects == {}
            assert each.endpoint.uploads == 0
            assert each.endpoint.partial_bytes == 0
            assert each.endpoint.assembly.unfinished == each.endpoint.assembly.uploads == {}
            assert each.endpoint.outbox.room.used == 0
            assert each.endpoint.outbox.values == {}


async def quiet() -> None:
    """Until every task waits for something."""
    await trio.testing.wait_all_tasks_blocked()


async def fail_in_the_end() -> None:
    # No scope with a deadline: that would be the deadline of every call of the test.
    await trio.sleep(PATIENCE)
    raise AssertionError(f"not done after {PATIENCE} s")


def living() -> int:
    return trio.lowlevel.current_statistics().tasks_living


@asynccontextmanager
async def open_ends(
    service: object,
    *,
    serving: object = None,
    limits: Limits | None = None,
    client_limits: Limits | None = None,
    encoding: Encoding = "msgpack",
    converter: cattrs.Converter | None = None,
    mask_errors: bool = False,
    interceptors: Sequence[Interceptor] = (),
    client_interceptors: Sequence[Interceptor] = (),
    clean: bool = True,
) -> AsyncIterator[Ends]:
    """As ``trio_streamrpc.testing.open_pair``, with both ends in hand.

    ``clean``: whether nothing may be open any more when the block is left without an error.
    """
    here, there = open_memory_transports(encoding=encoding)
    up, down = Wire(here), Wire(there)
    before = living()
    async with open_background_nursery() as nursery:
        nursery.start_soon(fail_in_the_end)
        served = trio.Event()

        async def serve_it() -> None:
            try:
                async with open_connection(
                    down,
                    "accepting",
                    serving=service,
                    limits=limits,
                    converter=converter,
                    mask_errors=mask_errors,
                    interceptors=interceptors,
                ) as connection:
                    servers.append(connection)
                    ready.set()
                    await connection.wait_closed()
            finally:
                served.set()

        servers: list[Connection] = []
        ready = trio.Event()
        nursery.start_soon(serve_it)
        try:
            async with open_connection(
                up,
                serving=serving,
                limits=client_limits or limits,
                converter=converter,
                mask_errors=mask_errors,
                interceptors=client_interceptors,
            ) as client:
                await ready.wait()
                await quiet()
                ends = Ends(client, servers[0], up, down)
                within = living()
                yield ends
                if clean:
                    await quiet()
                    ends.assert_clean()
                    assert living() == within
        finally:
            with trio.CancelScope(shield=True):
                await served.wait()
    await quiet()
    assert living() == before


@dataclass(eq=False)
class Steps(trio.abc.Instrument):
    """Counts the steps of the scheduler while it is in place: nothing may spin."""

    count: int = field(default=0)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1

    def __enter__(self) -> Self:
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *exc: object) -> None:
        trio.lowlevel.remove_instrument(self)


class Cut:
    """A cancellation that strikes so many steps of the scheduler after it was armed."""

    def __init__(self, step: int, nursery: trio.Nursery) -> None:
        self.step = step
        self._nursery = nursery

    def arm(self) -> trio.CancelScope:
        """A scope to be entered at once; it is cancelled when the time has come."""
        scope = trio.CancelScope()
        self._nursery.start_soon(self._strike, scope)
        return scope

    async def _strike(self, scope: trio.CancelScope) -> None:
        for _ in range(self.step):
            await trio.lowlevel.checkpoint()
        scope.cancel()


async def sweep(attempt: Callable[[Cut], Awaitable[bool]], *, at_least: int = 1) -> int:
    """Cancel an operation one scheduler step later each time, until it is done before that.

    ``attempt`` runs it in the scope of a cut, and tells whether it completed. Gives how often it
    was cut, which has to be ``at_least`` so often. What comes first in a step of the scheduler is
    random, so it has to complete a few times before that counts.
    """
    cuts = completed = 0
    while completed < 3:
        async with trio.open_nursery() as nursery:
            if await attempt(Cut(cuts + completed, nursery)):
                completed += 1
            else:
                cuts, completed = cuts + completed + 1, 0
            nursery.cancel_scope.cancel()
        assert cuts < 1000, "it never completes"
    assert cuts >= at_least
    return cuts
