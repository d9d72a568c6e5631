"""The onion: what stands around a call, from the outermost interceptor to the call itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from trio_streamrpc.runtime.calls import Call

__all__ = ["Interceptor", "Proceed", "checked", "intercept"]


class Proceed(Protocol):
    """What an interceptor goes on with: the call as it is, or as it has changed it."""

    async def __call__(self, call: Call | None = None, /) -> Any: ...


Interceptor = Callable[[Call, Proceed], Awaitable[Any]]


async def intercept(
    interceptors: Sequence[Interceptor], call: Call, innermost: Callable[[Call], Awaitable[Any]]
) -> Any:
    """Run the first interceptor; its ``proceed`` runs the next one, and the last one's the call."""
    if not interceptors:
        return await innermost(call)
    first, *others = interceptors

    async def proceed(changed: Call | None = None, /) -> Any:
        if changed is not None and not isinstance(changed, Call):
            raise TypeError(f"proceed() takes the call, or nothing, and not {changed!r}")
        return await intercept(others, call if changed is None else changed, innermost)

    return await first(call, proceed)


def checked(interceptors: Sequence[Interceptor]) -> tuple[Interceptor, ...]:
    """The interceptors as they are kept. Raises :exc:`TypeError` for what cannot be one."""
    found = tuple(interceptors)
    for each in found:
        if not callable(each):
            raise TypeError(f"an interceptor is an async function, not {each!r}")
    return found
