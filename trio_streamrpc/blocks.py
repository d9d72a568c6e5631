"""What is opened for a block, and says so where it is used in another way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

__all__ = ["for_block"]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def for_block(
    function: Callable[P, AbstractAsyncContextManager[T]],
) -> Callable[P, AbstractAsyncContextManager[T]]:
    """Stand above ``@asynccontextmanager`` of a function that gives a connection.

    What is opened there lasts as long as a block: one who awaits it, enters it with ``with``, or
    calls something through it is told how it is written.
    """

    @functools.wraps(function)
    def open_block(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
        return _Block(function.__name__, function(*args, **kwargs))

    return open_block


class _Block(AbstractAsyncContextManager[T_co]):
    def __init__(self, name: str, opened: AbstractAsyncContextManager[T_co]) -> None:
        self._name = name
        self._opened = opened

    async def __aenter__(self) -> T_co:
        return await self._opened.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._opened.__aexit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<{self._name}(…), to be entered with async with>"

    # Type checkers tell these without them, and would not with them.
    if not TYPE_CHECKING:

        def __await__(self) -> NoReturn:
            raise TypeError(self._usage("cannot be awaited"))

        def __enter__(self) -> NoReturn:
            raise TypeError(self._usage("cannot be entered with a plain with"))

        def __exit__(self, *error: object) -> NoReturn:
            raise NotImplementedError  # __enter__ has raised

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)  # what Python itself looks up
            raise AttributeError(self._usage(f"has no {name!r}: the connection has"), name=name)

    def _usage(self, problem: str) -> str:
        return f"{self._name}(…) {problem}; write: async with {self._name}(…) as connection"
