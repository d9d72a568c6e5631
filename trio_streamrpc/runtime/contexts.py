"""Remote contexts and remote tasks on the side that calls them (R20).

Both are streams of exactly one item: what the context yields, or what the task gives to
``started``. It is data, or an object whose methods can be called for as long as they last.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

import trio

from trio_streamrpc.errors import CleanupTimeout, InternalError
from trio_streamrpc.limits import Window
from trio_streamrpc.protocol.frames import Error, is_absent
from trio_streamrpc.runtime.failures import describe_listed, is_in_a_hurry, tell
from trio_streamrpc.runtime.objects import Root, Target

if TYPE_CHECKING:
    from trio_streamrpc.protocol.frames import ErrorInfo
    from trio_streamrpc.runtime.caller import Caller
    from trio_streamrpc.runtime.receivers import Receiver
    from trio_streamrpc.runtime.remote import RemoteMethod, Request

__all__ = ["Held", "MakeProxy", "RemoteContext", "run_task"]

#: R20: one item, of any length: credit has no part in it.
ONE_ITEM = Window(1, 1)

#: Makes the proxy of a remote object.
MakeProxy = Callable[[Target], Any]


class Held:
    """A call that is answered by one item and lasts on: what contexts and tasks have in common."""

    def __init__(
        self,
        remote: RemoteMethod,
        caller: Caller,
        request: Request,
        make_proxy: MakeProxy | None,
    ) -> None:
        self._remote = remote
        self.caller = caller
        self._request = request
        self.name = remote.name
        self.attached = request.attached
        self._make_proxy = make_proxy
        self._root: Root | None = None
        self._receiver: Receiver | None = None
        self._target: Target | None = None

    async def open(self) -> None:
        """Make the call."""
        self.caller.check_holds(self.name)
        self._receiver, self._root = await self.caller.open_receiver(
            self._request, ONE_ITEM, None, capacity=1
        )
        self._receiver.takes_objects = True

    async def value(self) -> Any:
        """Wait for the one item. Raises :exc:`trio.EndOfChannel` if the call ended without it."""
        receiver = self.receiver
        [raw] = await receiver.chunks.receive()
        if not receiver.refs:
            method = self._remote.method
            if method.yields_object and (method.needs_object or not is_absent(raw)):
                raise InternalError(f"{self.name} gave data where its contract says an object")
            return self._remote.decode_result(raw)
        if self._make_proxy is None:
            raise InternalError(f"{self.name} gave an object where its contract says data")
        assert self._root is not None
        outer = self._request.target
        depth = 0 if outer is None else outer.depth + 1
        self._target = Target(receiver.refs[0].id, self._root, self.name, depth)
        return self._make_proxy(self._target)

    @property
    def receiver(self) -> Receiver:
        assert self._receiver is not None
        return self._receiver

    def ending(self) -> BaseException | None:
        """What the call ended with, once it has; None for a regular end."""
        receiver = self.receiver
        if receiver.failure is not None:
            return receiver.failure
        if isinstance(receiver.final, Error):
            return self._remote.rebuild(receiver.final)
        return None

    def rebuild(self, frame: Error) -> BaseException:
        """The exception that an error frame is raised as."""
        return self._remote.rebuild(frame)

    def tell(self, error: BaseException) -> ErrorInfo:
        """An error of the caller's, as the other side is told of it."""
        listed = self._remote.encode_error(error)
        if listed is not None:
            return describe_listed(error, *listed)
        return tell(error, self.caller.payloads.encoder())

    def end(self) -> None:
        """Its object cannot be called any more."""
        if self._target is not None:
            self._target.ended = True

    async def wait_ended(self) -> None:
        """Wait until nothing more will come of the call."""
        with suppress(trio.EndOfChannel):
            while True:
                await self.receiver.chunks.receive()

    async def leave(self, error: BaseException | None) -> None:
        """Ask for its end, and wait for that, but not for ever (R7)."""
        self.end()
        receiver = self.receiver
        # Who is cancelled does not wait; one that is cancelled while it waits does so no longer.
        await trio.lowlevel.checkpoint()
        if not receiver.finished.is_set():
            self.caller.leave(receiver, None if error is None else self.tell(error))
            with trio.move_on_after(self.caller.cancel_timeout):
                await receiver.finished.wait()

    async def give_up(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave it behind with an error, which is raised whatever comes of it."""
        try:
            if (
                error is not None
                and not is_in_a_hurry(error)
                and self._receiver is not None
                and self._receiver.failure is None
            ):
                await self.leave(error)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Cancel it, and wait for nothing (R8)."""
        self.end()
        if self._receiver is not None and not self._receiver.finished.is_set():
            self.caller.abandon(self._receiver.id)


class RemoteContext:
    """A context manager that runs on the other side (R20).

    Leaving the block runs its exit there, and waits for it. Left with an error, the error is thrown
    into it there: whether it is suppressed is the remote context's decision.
    """

    def __init__(self, held: Held) -> None:
        self._held = held
        self._caller = held.caller
        self._name = held.name
        self._attached = held.attached
        self._stack = AsyncExitStack()
        self._entered = False

    def __repr__(self) -> str:
        return f"<remote context {self._name}>"

    async def __aenter__(self) -> Any:
        if self._entered:
            raise RuntimeError(f"{self!r} was entered already: call its method for another")
        self._entered = True
        if self._attached is not None:
            await self._stack.enter_async_context(self._attached)
        try:
            return await self._enter()
        except BaseException as error:
            self._stack.push_async_exit(self._held.give_up)
            await self._stack.__aexit__(type(error), error, error.__traceback__)
            raise

    async def _enter(self) -> Any:
        await self._held.open()
        try:
            return await self._held.value()
        except trio.EndOfChannel:
            pass  # how it is learned is no part of what happened
        if self._attached is not None:
            self._attached.check(None)
        raise self._held.ending() or RuntimeError(f"{self._name} ended without yielding")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._stack.push_async_exit(self._exit)
        return bool(await self._stack.__aexit__(kind, error, traceback))

    async def _exit(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        held = self._held
        if error is not None and is_in_a_hurry(error):
            held.abandon()
            return False
        try:
            await held.leave(error)
            if self._attached is not None:
                self._attached.end()
                await self._attached.wait_uploads()
        except BaseException:
            held.abandon()
            raise
        return self._outcome(error)

    def _outcome(self, error: BaseException | None) -> bool:
        """What came of it: True if the error is suppressed (R20)."""
        attached = self._attached
        if attached is not None and attached.error is not None and not attached.told:
            attached.told = True
            return self._add(error, attached.error)
        receiver = self._held.receiver
        if receiver.failure is not None:
            return self._add(error, receiver.failure)
        final = receiver.final
        if final is None:
            return self._add(
                error,
                CleanupTimeout(
                    f"{self._name} had not finished {self._caller.cancel_timeout} s after it was "
                    "left"
                ),
            )
        if not isinstance(final, Error):
            return error is not None
        if final.same and error is not None:
            return False
        failure = self._held.rebuild(final)
        if isinstance(failure, CleanupTimeout):
            return self._add(error, failure)
        raise failure

    def _add(self, error: BaseException | None, late: BaseException) -> bool:
        if error is None:
            raise late
        # The block's own exception is what its user has to see first; that the connection is lost
        # may be what it says already.
        if not isinstance(error, type(late)):
            error.add_note(f"trio_streamrpc: {type(late).__name__}: {late}")
        return False


async def run_task(held: Held, task_status: trio.TaskStatus[Any]) -> None:
    """Run a remote task to its end, as a task of a nursery here.

    Raises what the task ended with.
    """
    attached = held.attached
    async with AsyncExitStack() as stack:
        if attached is not None:
            await stack.enter_async_context(attached)
        stack.push_async_exit(held.give_up)
        await held.open()
        try:
            value = await held.value()
        except trio.EndOfChannel:
            # It has ended without having started anything: nursery.start says so itself.
            pass
        else:
            task_status.started(value)
            await held.wait_ended()
        held.end()
        if attached is not None:
            attached.end()
            await attached.wait_uploads()
            attached.check(None)
        error = held.ending()
        if error is not None:
            raise error
