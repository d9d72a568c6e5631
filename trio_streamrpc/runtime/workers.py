"""The tasks that calls with one answer run in.

A handler may wait for as long as it likes, so it needs a task, and a scope of its own. For one that
has its answer without waiting for anything both are dear: more than all else that the call costs.
So a worker runs the calls that wait, one after the other, in one task and one scope. If one of them
makes it wait, both are that call's alone, and another worker goes on in its place. Where no call
waits, there is one worker for those that will come.

Calls see nothing of those that their task has run before, but that it is the same task: a lock
that a call has taken and not given back is held by the next one. One that waited is the last in its
scope; one that leaves something open in its task, or a context variable changed, is the last in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import Context, copy_context

import trio

from trio_streamrpc.runtime.failures import is_confined
from trio_streamrpc.runtime.handlers import Handler, UnaryHandler
from trio_streamrpc.runtime.parking import Parking

__all__ = ["Workers"]

#: How long one worker runs calls, in seconds, before it leaves them to the next, so that others
#: run between them: the writer, that has their answers, among them.
SLICE_SECONDS = 0.0005

#: Stands in a task's ``custom_sleep_data``, which Trio clears when it wakes the task: as long as it
#: is there, the task has not waited.
NOT_WAITED = object()

#: The private attribute of a task that tells its innermost scope.
INNERMOST = "_cancel_status"


class Workers:
    """Runs the calls of one connection, in the order in which they come.

    ``ended`` is called with each handler that has run.
    """

    def __init__(self, nursery: trio.Nursery, ended: Callable[[Handler], None]) -> None:
        self._nursery = nursery
        self._ended = ended
        self._waiting: list[UnaryHandler] = []
        self._now = trio.lowlevel.current_clock().current_time
        #: Where the worker waits that stays.
        self._parking = Parking()
        #: Whether a worker was woken, or started, that has not begun.
        self._is_coming = False

    def open(self) -> None:
        """Start the first worker."""
        self._is_coming = True
        self._nursery.start_soon(self._work, name="streamrpc worker")

    def run(self, handler: UnaryHandler) -> None:
        """Have that call run; it has not begun when this returns."""
        self._waiting.append(handler)
        self._call_one()

    def _call_one(self) -> None:
        """See to it that somebody comes for the calls that wait."""
        if not self._waiting or self._is_coming:
            return
        if self._parking.occupied:
            self._is_coming = True
            self._parking.unpark()
        else:
            self.open()

    async def _work(self) -> None:
        task, context = trio.lowlevel.current_task(), copy_context()
        self._is_coming = False
        status = innermost(task)
        while await self._run_calls(task, context):
            if innermost(task) is not status or not is_same(context):
                if not self._is_coming and not self._parking.occupied:
                    context.run(self.open)  # what is started there sees what was set before
                return

    async def _run_calls(self, task: trio.lowlevel.Task, context: Context) -> bool:
        """Run calls in one scope; whether this worker goes on, in another."""
        handler: UnaryHandler | None = None
        try:
            with trio.CancelScope() as scope:
                status = innermost(task)
                # It begins with the first call, so that each worker runs one at least, however long
                # the process stands still: nobody else comes for it.
                until = math.inf
                while True:
                    if not self._waiting or self._now() >= until:
                        if self._parking.occupied or self._is_coming:
                            return False
                        # With no call in it, it ends with its connection.
                        scope.shield = False
                        await self._parking.park()
                        self._is_coming = False
                        until = math.inf
                        continue
                    scope.shield = True
                    handler = self._waiting.pop(0)
                    if until == math.inf:
                        until = self._now() + SLICE_SECONDS
                    # If this one makes it wait, somebody is there for the next.
                    self._call_one()
                    if not handler.asked:
                        task.name, handler.scope = handler.task_name, scope
                        task.custom_sleep_data = NOT_WAITED
                        await handler.serve()
                        handler.leave()
                        if (
                            task.custom_sleep_data is not NOT_WAITED
                            or innermost(task) is not status
                            or not is_same(context)
                        ):
                            break
                    handler.finish()
                    self._ended(handler)
                    handler = None
        except BaseException as error:
            if handler is None:
                raise
            if not is_confined(error):
                self._ended(handler)
                raise
            handler.failed(error)
        assert handler is not None
        try:
            handler.finish()
        finally:
            self._ended(handler)
        return True


def innermost(task: trio.lowlevel.Task) -> object:
    """What stands for the innermost scope of a task.

    A generator that was not closed may hold one open, in which no other call is to run. There is no
    public way to see it; where there is no private one either, no two calls run in one scope.
    """
    return getattr(task, INNERMOST, None) or object()


def is_same(context: Context) -> bool:
    """Whether the context variables are as they were then."""
    now = copy_context()
    if not context:
        return not now
    return len(now) == len(context) and all(
        now.get(variable, now) is value for variable, value in context.items()
    )
