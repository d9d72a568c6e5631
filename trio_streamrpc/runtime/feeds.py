"""A source of items in a task of its own, and the batch that it fills.

What :func:`trio_streamrpc.batched`, and what an interceptor has put around a stream, need for an
iterator whose ``anext`` must not be cancelled.
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import trio

from trio_streamrpc.runtime.closing import close_iterator, has_ended
from trio_streamrpc.runtime.failures import LOGGER, is_confined

__all__ = ["Batch", "Feed"]

T = TypeVar("T")

#: What a source gives within so many steps of the scheduler, it gives without being waited for.
STEPS_AT_ONCE = 5


class Batch(Generic[T]):
    """The batch that is being built, and how long it is waited for."""

    def __init__(self, max_items: int, max_delay: float) -> None:
        self._max_items = max_items
        self._max_delay = max_delay
        self.items: list[T] = []
        #: When the first of them came.
        self._came = math.inf
        #: While it is waited for: the scope of that, and when nothing more is put into it.
        self._limit: trio.CancelScope | None = None
        self._ends = math.inf

    @property
    def full(self) -> bool:
        return len(self.items) >= self._max_items

    @property
    def complete(self) -> bool:
        """Whether it takes no more; there are sources that do not notice a cancelled scope."""
        return self.full or trio.current_time() >= self._ends

    def add(self, item: T) -> None:
        self.items.append(item)
        if len(self.items) == 1:
            self._came = trio.current_time()
            if self._limit is not None and not self.full:
                self._start_time(self._limit)

    def take(self) -> list[T]:
        items, self.items = self.items, []
        return items

    async def wait_for(self, work: Callable[[], Awaitable[object]]) -> None:
        """Wait for what adds the items, for as long as the first of them may wait."""
        self._ends = math.inf
        with trio.CancelScope() as limit:
            self._limit = limit
            try:
                if self.items:
                    self._start_time(limit)
                await work()
            finally:
                self._limit = None

    def _start_time(self, limit: trio.CancelScope) -> None:
        now = trio.current_time()
        due = self._came + self._max_delay
        if due > now:
            limit.deadline = self._ends = due
            return
        # What is there at once takes time as well if the source works for it.
        ends = now + self._max_delay
        self._ends = ends if ends > now else math.inf
        trio.lowlevel.spawn_system_task(self._end_at_a_pause, limit)

    async def _end_at_a_pause(self, limit: trio.CancelScope) -> None:
        count = 0
        while self._limit is limit and count != len(self.items):
            count = len(self.items)
            for _ in range(STEPS_AT_ONCE):
                await trio.lowlevel.checkpoint()
        limit.cancel()


class Feed(Generic[T]):
    """A source in a task of its own, from its first item to its closing.

    ``name`` is what messages and the log call it.
    """

    def __init__(
        self, source: AsyncIterator[T], batch: Batch[T], name: str = "the source of batched()"
    ) -> None:
        self._source = source
        self._name = name
        self.batch = batch
        #: Of the Trio run that it belongs to, once it has started.
        self.token: trio.lowlevel.TrioToken | None = None
        #: Whether all was said about how it ended.
        self.told = False
        self._scope = trio.CancelScope()
        #: Whether a batch is waited for.
        self._wanted = False
        #: Whether the source runs, rather than standing at a yield.
        self._asked = False
        self._closing = False
        self._abandoned = False
        self._error: BaseException | None = None
        #: Whether that arose while the source was being closed for its consumer.
        self._in_cleanup = False
        #: Set for the task; for who waits for a batch; when the source is closed.
        self._call = trio.Event()
        self._due = trio.Event()
        self._done = trio.Event()

    def __repr__(self) -> str:
        return f"<{self._name}: {self._source!r}>"

    # --- for the consumer

    async def fill(self) -> None:
        """Let the source run until the batch is due, or it has ended."""
        if self.batch.full or self._done.is_set():
            return
        if self.token is None:
            context = contextvars.copy_context()
            trio.lowlevel.spawn_system_task(self._run, name=repr(self), context=context)
            self.token = trio.lowlevel.current_trio_token()
        self._due = trio.Event()
        self._wanted = True
        self._call.set()
        try:
            await self.batch.wait_for(self._due.wait)
        finally:
            self._wanted = False

    def tell(self) -> BaseException | None:
        """How it ended: None if nothing went wrong."""
        self.told = True
        return self._error

    async def aclose(self) -> None:
        self._stop()
        try:
            if self.token is None and not self._done.is_set():
                await self._close_here()
            await self._done.wait()
        except BaseException:
            # Who closes it is in a hurry, and so is the source now. It is waited for without a
            # bound of our own, as a nursery waits for a task that it has cancelled.
            self._scope.cancel()
            with trio.CancelScope(shield=True):
                await self._done.wait()
            self._tell_the_rest()
            raise
        self._tell_the_rest()

    async def _close_here(self) -> None:
        """It has never run, so that nobody else will close it."""
        try:
            await close_iterator(self._source, repr(self))
        finally:
            self._done.set()

    def abandon(self) -> None:
        """The consumer is gone: nobody waits for what is left of it."""
        self._abandoned = True
        self._stop()
        if self._done.is_set():
            self._tell_the_rest()

    def abandon_from_anywhere(self) -> None:
        """The same where the consumer is collected: in whatever thread, and nobody waits."""
        if self.token is not None and not self.told:
            with suppress(trio.RunFinishedError):
                self.token.run_sync_soon(self.abandon)

    def _stop(self) -> None:
        self._closing = True
        self._call.set()
        self._due.set()
        if self._asked:
            self._scope.cancel()

    def _tell_the_rest(self) -> None:
        """Raise an error of its cleanup, and log one that nobody has asked for."""
        if self.told:
            return
        self.told = True
        if self._error is None:
            return
        if not is_confined(self._error) or (self._in_cleanup and not self._abandoned):
            raise self._error
        LOGGER.error("%r failed, and nobody has heard of it", self, exc_info=self._error)

    # --- its task

    async def _run(self) -> None:
        try:
            with self._scope:
                try:
                    await self._feed()
                finally:
                    if not has_ended(self._source):
                        await close_iterator(self._source, repr(self))
        except BaseException as error:
            self._failed(error)
        self._done.set()
        self._due.set()
        if self._abandoned:
            self._tell_the_rest()

    def _failed(self, error: BaseException) -> None:
        rest: BaseException | None = error
        if isinstance(error, trio.Cancelled):
            rest = None
        elif isinstance(error, BaseExceptionGroup):
            cancelled, others = error.split(trio.Cancelled)
            # A group without any stays the same object.
            rest = error if cancelled is None else others
        self._in_cleanup = self._closing
        self._error = rest or trio.BrokenResourceError(f"{self._name} was cancelled")
        # A cancellation is no news to those who do not ask for more.
        self.told = rest is None

    async def _feed(self) -> None:
        while True:
            try:
                await self._wait_until_wanted()
            except trio.Cancelled as error:
                # From a scope that the source holds open across its yield, or at the end of Trio's
                # run: it is raised at that yield.
                step = self._throw(error)
                answered = True
            else:
                if self._closing:
                    return
                step = anext(self._source)
                answered = False
            self._asked = True
            try:
                item = await _interruptibly(step)
            except StopAsyncIteration:
                return
            finally:
                self._asked = False
            if answered:
                await self._wait_with_an_answer()
            self.batch.add(item)
            if self._wanted and self.batch.complete:
                self._wanted = False
                self._due.set()

    async def _wait_with_an_answer(self) -> None:
        """What the source gave when it was cancelled waits until it is wanted, like any item."""
        over = trio.Event()
        trio.lowlevel.spawn_system_task(self._stop_with_the_run, over)
        # This scope ends before the source's next step.
        with trio.CancelScope(shield=True):
            await self._wait_until_wanted()
        over.set()

    async def _stop_with_the_run(self, over: trio.Event) -> None:
        """The task itself is shielded from the end of Trio's run meanwhile."""
        try:
            await over.wait()
        except trio.Cancelled:
            self._stop()
            raise

    async def _wait_until_wanted(self) -> None:
        while not (self._wanted or self._closing):
            self._call = trio.Event()
            await self._call.wait()

    def _throw(self, error: BaseException) -> Awaitable[T]:
        throw: Any = getattr(self._source, "athrow", None)
        if throw is None:
            raise error
        return throw(error)  # type: ignore[no-any-return]


@trio.lowlevel.disable_ki_protection
async def _interruptibly(step: Awaitable[T]) -> T:
    # System tasks are protected from KeyboardInterrupt; what its user wrote is not to be.
    return await step
