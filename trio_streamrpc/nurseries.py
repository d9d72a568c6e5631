"""A nursery for what serves a block: it outlives the block's cancellation, not the block itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType

import trio

__all__ = ["leaves", "open_background_nursery", "open_companion_nursery"]


@asynccontextmanager
async def open_background_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks are cancelled when the block ends, and by nothing else.

    A plain nursery passes a cancellation on to its tasks at once, so the writer that the block
    needs to say goodbye would be dead before the block hears of it. Here the block is cancelled
    first, ends in its own time, and only then are the tasks cancelled.

    The block's own exception comes out as it went in; one that a task could not handle cancels
    the block and comes out as itself. Neither is wrapped in a group for this nursery's sake.
    """
    async with open_companion_nursery() as outer:
        background: trio.Nursery = await outer.start(_hold_open, outer.cancel_scope)
        try:
            yield background
        finally:
            background.cancel_scope.cancel()


class open_companion_nursery:  # noqa: N801  # it is called like a function, as trio's are
    """A nursery for what runs beside a block: its tasks are cancelled when the block ends.

    They are cancelled with the block as well, like those of any nursery. The block's own exception
    comes out as it went in, and one that a task could not handle as itself: neither is wrapped in a
    group for this nursery's sake.
    """

    # No generator: one that is held open costs a good part of what an idle connection may take. As
    # Trio's own, it is not interrupted half-way in or out: the nursery would be left open.

    def __init__(self) -> None:
        self._manager = trio.open_nursery()
        self._nursery: trio.Nursery | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> trio.Nursery:
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        body: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()
        try:
            return await self._manager.__aexit__(kind, body, traceback)
        except BaseExceptionGroup as group:
            raised = _unwrapped(group, body)
        if raised is body:
            return False
        # Outside of the except block, so that the exception keeps the context it came with.
        try:
            raise raised
        finally:
            del raised, body


async def _hold_open(
    block: trio.CancelScope,
    task_status: trio.TaskStatus[trio.Nursery] = trio.TASK_STATUS_IGNORED,
) -> None:
    # One that is cancelled already would never be let go: started() says nothing to anyone then.
    await trio.lowlevel.checkpoint_if_cancelled()
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            task_status.started(nursery)
            try:
                await trio.sleep_forever()
            finally:
                # Where a task has failed, the block hears of it at once, and not when the last of
                # the others has ended: it may be the block that has to ask them to.
                block.cancel()


def _unwrapped(
    group: BaseExceptionGroup[BaseException], body: BaseException | None
) -> BaseException:
    """The one exception that the group stands for, as far as there is one."""
    everything = leaves(group)
    failures = [each for each in everything if not isinstance(each, trio.Cancelled)]
    # By its leaves: a group that passes through a nursery is split, and comes out as another one.
    if body is not None and not set(map(id, failures)) - set(map(id, leaves(body))):
        return body
    for each in failures:
        if isinstance(each, KeyboardInterrupt | SystemExit):
            return each
    if not failures:
        return everything[0]
    return failures[0] if len(failures) == 1 else group


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions of a group, at any depth, that are no groups; of any other, itself."""
    # No recursion: groups may be nested deeper than Python's stack.
    found, waiting = [], [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(reversed(each.exceptions))
        else:
            found.append(each)
    return found
