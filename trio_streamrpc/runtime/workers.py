"""The tasks that calls with one answer run in.

A handler may wait for as long as it likes, so it needs a task. One that has its answer without
waiting for anything has cost no more than a function's call, beside which a task and a scope of its
own are dear. So a worker runs the calls that wait, one after the other, for as long as none of them
makes it wait; another worker is on its way meanwhile, and goes on in its place if one does.
Nothing is kept for later: when no call waits, no worker does.

Calls know nothing of those that their task has run before. A worker runs another one only if what
the last one has left behind is what it has found: no nursery or deadline that is still open, no
context variable changed, no cancellation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import Context, copy_context

import trio

from trio_streamrpc.runtime.failures import is_confined
from trio_streamrpc.runtime.handlers import Handler, UnaryHandler

__all__ = ["Workers"]

#: How long one worker runs calls, in seconds, before it leaves them to the next, so that others
#: run between them: the writer, that has their answers, among them.
SLICE_SECONDS = 0.0005


class Workers:
    """Runs the calls of one connection, in the order in which they come.

    ``ended`` is called with each handler that has run.
    """

    def __init__(self, nursery: trio.Nursery, ended: Callable[[Handler], None]) -> None:
        self._nursery = nursery
        self._ended = ended
        self._waiting: list[UnaryHandler] = []
        self._now = trio.lowlevel.current_clock().current_time
        #: Whether a worker was started that has not begun.
        self._is_coming = False

    def start(self, handler: UnaryHandler) -> None:
        """Have that call run; it has not begun when this returns."""
        self._waiting.append(handler)
        self._call_one()

    def _call_one(self) -> None:
        if self._waiting and not self._is_coming:
            self._is_coming = True
            self._nursery.start_soon(self._work, name="streamrpc worker")

    async def _work(self) -> None:
        self._is_coming = False
        if self._waiting:
            await self._run_calls(self._waiting.pop(0))

    async def _run_calls(self, handler: UnaryHandler) -> None:
        """Run that call and, as long as it and those after it leave no trace, those that wait."""
        try:
            with trio.CancelScope(shield=True) as scope:
                task, context = trio.lowlevel.current_task(), copy_context()
                until = self._now() + SLICE_SECONDS
                while True:
                    # If this one makes it wait, somebody is there for the next.
                    self._call_one()
                    if not handler.asked:
                        task.name, handler.scope = handler.task_name, scope
                        await handler.serve()
                        handler.leave()
                    if (
                        not self._waiting
                        or self._now() >= until
                        or not is_unchanged(task, scope, context)
                    ):
                        break
                    handler.finish()
                    self._ended(handler)
                    handler = self._waiting.pop(0)
        except BaseException as error:
            if not is_confined(error):
                self._ended(handler)
                raise
            handler.failed(error)
        handler.finish()
        self._ended(handler)


def is_unchanged(task: trio.lowlevel.Task, scope: trio.CancelScope, context: Context) -> bool:
    """Whether a call has left this task as it was when the worker began."""
    if scope.cancel_called or task.child_nurseries:
        return False
    # A generator that was not closed may hold a scope open.
    if trio.current_effective_deadline() != math.inf:
        return False
    now = copy_context()
    if not context:
        return not now
    return len(now) == len(context) and all(
        now.get(variable, now) is value for variable, value in context.items()
    )
