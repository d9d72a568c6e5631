"""The onion: what stands around a call, from the outermost interceptor to the call itself."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, NoReturn, Protocol

import trio
from msgspec import Struct

from trio_streamrpc.contract.signatures import Kind
from trio_streamrpc.runtime.calls import Call
from trio_streamrpc.runtime.closing import has_ended
from trio_streamrpc.runtime.failures import has_cancelled

__all__ = ["Interceptor", "Onion", "Proceed", "Unwinding", "check_fits", "checked", "intercept"]


class Proceed(Protocol):
    """What an interceptor goes on with: the call as it is, or as it has changed it.

    Its result is the call's: a value; for a stream an async iterable, for a context an async
    context manager, and for a task None when it has ended. It raises what the call raises.
    """

    async def __call__(self, call: Call | None = None, /) -> Any: ...


#: What stands around each call: ``Callable[[Call, Proceed], Awaitable[Any]]``, an async function
#: that goes on with the call, or does not::
#:
#:     async def timing(call: Call, proceed: Proceed) -> Any:
#:         start = trio.current_time()
#:         try:
#:             return await proceed()
#:         finally:
#:             print(call.method, trio.current_time() - start)
#:
#: It stands around the call, not around each item: ``proceed()`` gives a stream as soon as there is
#: one, and the interceptor returns it as it is, or another async iterable, mostly a generator that
#: iterates over it. Whatever it leaves open is closed when the call ends. For a context it is the
#: async context manager, and for a task the whole run.
Interceptor = Callable[[Call, Proceed], Awaitable[Any]]


class Onion(Struct, frozen=True, eq=False):
    """The interceptors of one call, and what they stand around."""

    interceptors: Sequence[Interceptor]
    innermost: Callable[[Call], Awaitable[Any]]
    #: Takes in what the call, or an interceptor, has given; gives what the next one outwards gets.
    adopt: Callable[[Any, Interceptor | None], Awaitable[Any]] | None = None


async def intercept(onion: Onion, call: Call, depth: int = 0) -> Any:
    """Run the interceptor of that depth: its ``proceed`` runs the next, the last one's the call.

    Raises :exc:`TypeError` for an interceptor that is no async function, and for one that has given
    an awaitable.
    """
    by: Interceptor | None = None
    if depth < len(onion.interceptors):
        by = onion.interceptors[depth]
        started = by(call, _Layer(onion, call, depth + 1))
        if not inspect.isawaitable(started):
            raise TypeError(
                f"the interceptor {name_of(by)} is no async function: called with a call and "
                f"proceed, it has returned a value of type {type(started).__name__}"
            )
        given = await started
        check_awaited(given, by, call.method)
    else:
        given = await onion.innermost(call)
    return given if onion.adopt is None else await onion.adopt(given, by)


class _Layer:
    """One interceptor's ``proceed``. No closure: one that calls itself would be a cycle."""

    __slots__ = ("_call", "_depth", "_onion")

    def __init__(self, onion: Onion, call: Call, depth: int) -> None:
        self._onion = onion
        self._call = call
        self._depth = depth

    async def __call__(self, changed: Call | None = None, /) -> Any:
        if changed is not None and not isinstance(changed, Call):
            raise TypeError(f"proceed() takes the call, or nothing, and not {changed!r}")
        return await intercept(self._onion, changed or self._call, self._depth)


def checked(interceptors: Sequence[Interceptor]) -> tuple[Interceptor, ...]:
    """The interceptors as they are kept. Raises :exc:`TypeError` for what cannot be one."""
    if not isinstance(interceptors, Iterable):
        raise TypeError(f"interceptors are a sequence of async functions, not {interceptors!r}")
    found = tuple(interceptors)
    each: Any
    for each in found:
        if not callable(each) or inspect.isasyncgenfunction(each):
            raise TypeError(f"an interceptor is an async function, not {each!r}")
    return found


def check_fits(kind: Kind, given: Any, by: Interceptor | None, name: str) -> None:
    """Raise :exc:`TypeError` for what cannot be the result of a method of that kind.

    ``by`` is the interceptor that has given it, and None if the method has.
    """
    if kind is Kind.SERVER_STREAM:
        fits, wanted = isinstance(given, AsyncIterable), "a stream, and so an async iterable"
    elif kind is Kind.CONTEXT:
        fits = hasattr(given, "__aenter__") and hasattr(given, "__aexit__")
        wanted = "a context, and so an async context manager"
    else:
        return
    if not fits:
        who = name if by is None else f"the interceptor {name_of(by)}"
        raise TypeError(f"{who} has given {type(given).__name__}: {name} is {wanted}")


def check_awaited(given: Any, by: Interceptor, name: str) -> None:
    """Raise :exc:`TypeError` for a result that waits to be awaited: no call has one like that.

    A stream or a context that can be awaited as well is one all the same.
    """
    if not inspect.isawaitable(given):
        return
    if isinstance(given, AsyncIterable) or hasattr(given, "__aenter__"):
        return
    what = f"an awaitable, {type(given).__name__},"
    if inspect.iscoroutine(given):
        what = "a coroutine"
        if inspect.getcoroutinestate(given) == inspect.CORO_CREATED:
            # So that Python does not warn of it besides.
            given.close()
    raise TypeError(
        f"the interceptor {name_of(by)} has given {what} as the result of {name}: it has forgotten "
        "'await', as in 'return await proceed()'"
    )


def name_of(interceptor: Interceptor) -> str:
    """How messages call it."""
    return getattr(interceptor, "__qualname__", None) or repr(interceptor)


class Unwinding(AsyncIterator[Any]):
    """Iterators of which each iterates over the one before it: a step is a step of the outermost.

    A cancellation that ends the outer ones goes on inwards, as if all were one function: it may
    come from a scope that an inner one holds open across its ``yield``, where it is to end. If the
    inner one ends with it, so does the whole; that it goes on is a :exc:`RuntimeError`, since
    nobody would see its items.
    """

    def __init__(
        self,
        outermost: AsyncIterator[Any],
        iterators: Sequence[AsyncIterator[Any]],
        scope: trio.CancelScope,
    ) -> None:
        self._outermost = outermost
        #: All of them; an interceptor may add to them while it runs.
        self._iterators = iterators
        #: Cancelled, it is all that is to end: then nothing is unwound here.
        self._scope = scope

    async def __anext__(self) -> Any:
        try:
            return await anext(self._outermost)
        except BaseException as error:
            await self._unwind(error)

    async def athrow(self, error: BaseException) -> Any:
        """Raise it at the ``yield`` of the outermost, and go on to the next one."""
        throw = getattr(self._outermost, "athrow", None)
        try:
            if throw is None:
                raise error
            return await throw(error)
        except BaseException as further:
            await self._unwind(further)

    async def _unwind(self, error: BaseException) -> NoReturn:
        for each in reversed(self._iterators):
            if self._scope.cancel_called or not has_cancelled(error):
                break
            throw = getattr(each, "athrow", None)
            if throw is None or each is self._outermost or has_ended(each):
                continue
            try:
                await throw(error)
            except BaseException as further:
                error = further
            else:
                raise RuntimeError(
                    "a stream went on after a cancellation of its own, which has ended what an "
                    "interceptor had put around it"
                ) from error
        raise error
