"""A place where one task waits until it is woken: on the hot path, where an event would be made
anew for each wait."""

from __future__ import annotations

from typing import Any

import trio

__all__ = ["Parking"]


class Parking:
    """At most one task waits here; a cancellation ends its wait like any other."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    @property
    def occupied(self) -> bool:
        """Whether a task waits here."""
        return self._task is not None

    async def park(self) -> None:
        """Wait until :meth:`unpark`."""
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, raise_cancel: Any) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def unpark(self) -> None:
        """Wake who waits here, if somebody does."""
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None
