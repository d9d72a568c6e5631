"""Interceptors that are ready to use, for either side of a connection.

Each function here makes one, for ``serve(…, interceptors=[…])`` around the calls that are served,
or for ``connect(…, interceptors=[…])`` around those that are made::

    interceptors = [log_calls(), limit_concurrency({"report": 2}), limit_rate(50, burst=100)]
    await nursery.start(partial(serve, interceptors=interceptors), Market(), url)

The first in the list is the outermost: here every call is logged, and what it waited for a place
is part of its duration. What an interceptor counts is its own: one object counts all the calls
that go through it, so one that is given to ``serve`` counts those of all connections together. For
limits of their own, give two servers two objects.

A method's name is its dotted name: ``ticks``, ``history.query``; the methods of a remote object
follow the name of the context that yielded it: ``transaction.debit``. Callbacks go through no
interceptor.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import trio

from trio_streamrpc.errors import (
    Code,
    PermissionDenied,
    RemoteError,
    ResourceExhausted,
    RpcError,
)
from trio_streamrpc.runtime.calls import Call
from trio_streamrpc.runtime.failures import has_cancelled
from trio_streamrpc.runtime.interceptors import Interceptor, Proceed
from trio_streamrpc.runtime.watched import watch

__all__ = ["authorize", "limit_concurrency", "limit_rate", "log_calls"]

S = TypeVar("S")


def authorize(check: Callable[[Call], bool | Awaitable[bool]]) -> Interceptor:
    """An interceptor that asks about each call whether its caller may make it.

    ``check`` is a function, async or not, that is given the :class:`.Call`: who it is from
    (``call.identity``, which ``authenticate`` has found out), its ``method``, its ``arguments`` and
    its ``metadata``. True lets the call go on. With False it fails with :exc:`.PermissionDenied`,
    and nothing of it has run: no generator, no context and no task has been started::

        def may(call: Call) -> bool:
            return call.method != "settings.change" or call.identity.is_admin

        await nursery.start(partial(serve, interceptors=[authorize(may)]), Market(), url)

    An :exc:`.RpcError` that ``check`` raises is what the caller gets instead. Anything else than
    True and False is a :exc:`TypeError`: a ``return`` that was forgotten lets nobody through.

    It stands around calls of every kind, and around each call to a remote object, under the name
    that this has: who may open a ``transaction`` is asked again for ``transaction.debit``. What a
    stream or a context goes on to do after it was let through is not asked about any more. A
    method that does not exist is :exc:`.Unimplemented`, and ``check`` does not hear of it.

    Raises :exc:`TypeError` for what cannot be called.
    """
    if not callable(check):
        raise TypeError(f"authorize() takes a function, not {check!r}")

    async def authorize_call(call: Call, proceed: Proceed) -> Any:
        allowed: Any = check(call)
        if inspect.isawaitable(allowed):
            allowed = await allowed
        if not isinstance(allowed, bool):
            raise TypeError(
                f"the check of authorize() has to give True or False, not {type(allowed).__name__}"
            )
        if not allowed:
            raise PermissionDenied(f"{call.method}: permission denied")
        return await proceed()

    return authorize_call


def log_calls(
    logger: logging.Logger | None = None, *, level: int | str = logging.INFO
) -> Interceptor:
    """An interceptor that logs one line for each call, when it has ended.

    The line has the method's name, how the call has ended, how many seconds it took on Trio's
    clock, and for a stream the number of items that went through; arguments and results, which may
    be secret, are never in it::

        price ok in 0.012 s
        ticks ok in 8.300 s, 1500 items
        history.query NOT_FOUND (NotFound) in 0.002 s
        report cancelled in 30.000 s

    A stream has ended when its last item was taken or it was closed (left early is ``ok``), a
    context when it was left, a task when it has finished. An error is told as its code and its
    class.

    ``logger`` is ``logging.getLogger("trio_streamrpc.calls")`` by default, and ``level``, a number
    or a name of :mod:`logging`, ``logging.INFO``.

    Raises :exc:`TypeError` or :exc:`ValueError` for what is neither.
    """
    chosen = logging.getLogger("trio_streamrpc.calls") if logger is None else logger
    if not isinstance(chosen, logging.Logger | logging.LoggerAdapter):
        raise TypeError(f"log_calls() takes a logger, not {logger!r}")
    if not isinstance(level, int | str):
        raise TypeError(f"a level of logging is a number or a name, not {level!r}")
    number = level if isinstance(level, int) else logging.getLevelNamesMapping().get(level)
    if number is None:
        raise ValueError(f"there is no level of logging named {level!r}")

    async def log_call(call: Call, proceed: Proceed) -> Any:
        start = trio.current_time()

        def ended(error: BaseException | None, items: int | None) -> None:
            seconds = trio.current_time() - start
            if items is None:
                chosen.log(number, "%s %s in %.3f s", call.method, _outcome(error), seconds)
            else:
                chosen.log(
                    number,
                    "%s %s in %.3f s, %d items",
                    call.method,
                    _outcome(error),
                    seconds,
                    items,
                )

        return await watch(proceed, ended)

    return log_call


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, GeneratorExit) or has_cancelled(error):
        return "cancelled"
    code, name = Code.UNKNOWN, type(error).__name__
    if isinstance(error, RpcError):
        code = error.code
        if isinstance(error, RemoteError):
            # The other side has chosen it: no lines of its own.
            name = ascii(error.name)[1:-1][:100]
    return f"{code} ({name})"


def limit_concurrency(
    limit: int | Mapping[str, int], *, per_method: bool = True, refuse: bool = False
) -> Interceptor:
    """An interceptor that lets at most so many calls run at once.

    A call that finds no place waits for one, in order of arrival: while it waits it is cancelled
    like any other, and a deadline of its own passes. With ``refuse`` it fails at once with
    :exc:`.ResourceExhausted` instead. A stream, a context and a task keep their place until they
    have ended.

    ``limit`` is the number of places of each method. As a mapping it limits the methods that it
    names, and those beneath a name: ``"history"`` stands for ``history.query``, too, if no longer
    name does; ``""`` stands for all the rest. What it does not name is not limited. With
    ``per_method=False`` the methods that a limit stands for share its places::

        limit_concurrency(10)                                # of each method, 10 at once
        limit_concurrency(100, per_method=False)             # 100 at once in all
        limit_concurrency({"report": 2, "history": 5})       # 5 of history.query, 5 of history.all
        limit_concurrency({"history": 5}, per_method=False)  # 5 of these together

    A call that holds a place and waits, directly or not, for another call that needs one of the
    same places may wait for ever: mind methods that call each other, and contexts whose objects'
    methods (``transaction.debit``) share the context's places. A stream that is open keeps its
    place, so where the limit is 1, a call of the same method within its block waits for that block
    to end, and so for itself.

    Raises :exc:`TypeError` or :exc:`ValueError` for a limit that is no positive integer.
    """
    limits = limit if isinstance(limit, Mapping) else {"": limit}
    for name, each in limits.items():
        if not isinstance(name, str):
            raise TypeError(f"a limit is for the name of a method, not for {name!r}")
        _check_count("a limit", each)

    def rule_of(method: str) -> str | None:
        name = method
        while name and name not in limits:
            name = name.rpartition(".")[0]
        return name if name in limits else None

    groups = _Groups[trio.Semaphore]()

    async def limit_concurrent_calls(call: Call, proceed: Proceed) -> Any:
        rule = rule_of(call.method)
        if rule is None:
            return await proceed()
        group = call.method if per_method else rule
        places = groups.find(group, lambda: trio.Semaphore(limits[rule]))
        if refuse:
            try:
                places.acquire_nowait()
            except trio.WouldBlock:
                raise ResourceExhausted(f"too many calls of {call.method} at once") from None
        else:
            await places.acquire()

        def ended(error: BaseException | None, items: int | None) -> None:
            places.release()

        return await watch(proceed, ended)

    return limit_concurrent_calls


def limit_rate(
    rate: float, burst: int = 1, *, per_method: bool = True, refuse: bool = False
) -> Interceptor:
    """An interceptor that lets at most ``rate`` calls a second begin, after a burst of ``burst``.

    It is a token bucket on Trio's clock: it holds ``burst`` tokens at first and at most, and gets
    ``rate`` more each second; a call takes one. A call that finds none waits for its token, in
    order of arrival; cancelled while it waits, it has taken none. With ``refuse`` it fails at once
    with :exc:`.ResourceExhausted` instead. How long calls run does not matter.

    Each method has a bucket of its own; with ``per_method=False`` all share one::

        limit_rate(5)               # of each method 5 calls a second, evenly
        limit_rate(0.1, burst=3)    # one in ten seconds, and 3 at once if there were none before
        limit_rate(100, 100, per_method=False, refuse=True)

    Raises :exc:`TypeError` or :exc:`ValueError` for a rate that is no positive number, and for a
    burst that is no positive integer.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise TypeError(f"a rate is a number of calls a second, not {rate!r}")
    if not 0 < rate < math.inf:
        raise ValueError(f"a rate is a positive number of calls a second, not {rate}")
    _check_count("a burst", burst)

    groups = _Groups[_Bucket]()

    async def limit_call_rate(call: Call, proceed: Proceed) -> Any:
        bucket = groups.find(call.method if per_method else "", lambda: _Bucket(rate, burst))
        if refuse:
            if not bucket.take_nowait():
                raise ResourceExhausted(f"too many calls of {call.method} a second")
        else:
            await bucket.take()
        return await proceed()

    return limit_call_rate


def _check_count(what: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{what} is a number of calls, not {number!r}")
    if number < 1:
        raise ValueError(f"{what} is at least 1, not {number}")


class _Groups(Generic[S]):
    """What is kept for each group of methods, in each run of Trio: a clock belongs to one run."""

    def __init__(self) -> None:
        self._found: trio.lowlevel.RunVar[dict[str, S]] = trio.lowlevel.RunVar("interceptor")

    def find(self, group: str, make: Callable[[], S]) -> S:
        try:
            found = self._found.get()
        except LookupError:
            found = {}
            self._found.set(found)
        if group not in found:
            found[group] = make()
        return found[group]


class _Bucket:
    """Tokens, as one number: when the bucket would be full, if nothing more were taken."""

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._ahead = (burst - 1) / rate
        self._full = -math.inf
        # Trio's locks are fair: the first in the queue waits for the clock, the others for it.
        self._turn = trio.Lock()

    async def take(self) -> None:
        async with self._turn:
            await trio.sleep_until(self._full - self._ahead)
            self._take()

    def take_nowait(self) -> bool:
        there = self._full - self._ahead <= trio.current_time()
        if there:
            self._take()
        return there

    def _take(self) -> None:
        self._full = max(self._full, trio.current_time()) + self._interval
