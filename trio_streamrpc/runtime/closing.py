"""Closing an async iterator that is left early, whatever it does about it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any

from trio_streamrpc.runtime.failures import LOGGER, only_exit

__all__ = ["close_iterator", "has_ended"]

#: How often a generator that yields while it is being closed is closed again before it is dropped.
CLOSE_ATTEMPTS = 10


def has_ended(iterator: AsyncIterator[Any]) -> bool:
    """Whether it is a generator that has nothing left to close; of other iterators nobody knows."""
    return inspect.isasyncgen(iterator) and iterator.ag_frame is None


async def close_iterator(iterator: AsyncIterator[Any], name: str) -> None:
    """Close it: when this returns, its cleanup has run. ``name`` is what the log calls it.

    Raises what the cleanup raised, and :exc:`RuntimeError` for a generator that would not end.
    """
    if not inspect.isasyncgen(iterator):
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
        return
    for attempt in range(CLOSE_ATTEMPTS):
        if attempt == 1:
            LOGGER.warning("%s yielded while it was being closed", name)
        try:
            # This is what aclose() does, except that it can be done again: after one aclose() that
            # a generator has met with a yield, nothing reaches it any more.
            await iterator.athrow(GeneratorExit())
        except StopAsyncIteration:
            pass
        except BaseException as error:
            rest = only_exit(error)
            if rest is error:
                raise
            if rest is not None:
                raise rest from None
        if has_ended(iterator):
            return
    LOGGER.error("%s would not be closed, and was dropped", name)
    # Raises RuntimeError; a generator that was closed like this is not closed again by Trio.
    await iterator.aclose()
