"""``@rpc``: the mark that exposes a method, and streams as type checkers see them.

A mark changes nothing about how a unary method is called. A stream method, called locally, gives a
``Stream`` as a proxy does, so that the same code uses a service with and without a connection; how
such a stream is made is the runtime's matter, which says so with
:func:`set_local_stream_factory`.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, cast, final, overload

from trio_streamrpc.contract import hints
from trio_streamrpc.limits import Window, not_a_window

if TYPE_CHECKING:
    from trio_streamrpc.runtime.streams import Stream

__all__ = [
    "RpcMark",
    "RpcOptions",
    "is_context_manager",
    "mark_of",
    "open_iterator",
    "rpc",
    "set_local_stream_factory",
]

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

#: Makes the ``Stream`` of a local call from the async iterator that the raw function gave.
LocalStreamFactory = Callable[[AsyncIterator[Any]], Any]

#: The code of every function that ``asynccontextmanager`` returns: how one is recognised.
CONTEXT_MANAGER_CODE: Final = asynccontextmanager(lambda: None).__code__  # type: ignore[arg-type,return-value]

MARK: Final = "__rpc__"


@dataclass(frozen=True, slots=True)
class RpcOptions:
    """What ``@rpc(…)`` was given.

    Raises :exc:`TypeError` or :exc:`ValueError` that says which option is wrong, and why.
    """

    name: str | None = None
    """The method's name on the wire; without it, the function's."""

    window: Window | None = None
    """The first window of its response stream, where the caller names none."""

    cleanup: float | None = None
    """How many seconds a handler may take to clean up (R7a); ``Limits.cleanup`` without it."""

    errors: tuple[type[Exception], ...] = ()
    """Exceptions that arrive as themselves; their class names differ from one another."""

    oneway: bool = False
    """The caller does not wait for the answer (R11)."""

    strict: bool = False
    """Unknown fields are errors, at any depth."""

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, "@rpc(name=…)")
        if self.window is not None and not isinstance(self.window, Window):
            raise TypeError(f"@rpc(window=…) must be a Window, not {not_a_window(self.window)}")
        if self.cleanup is not None:
            if isinstance(self.cleanup, bool) or not isinstance(self.cleanup, int | float):
                raise TypeError(f"@rpc(cleanup=…) must be a number, not {self.cleanup!r}")
            if math.isnan(self.cleanup) or self.cleanup <= 0:
                raise ValueError(f"@rpc(cleanup=…) must be above 0, not {self.cleanup!r}")
        if not isinstance(self.errors, tuple):
            raise TypeError(
                f"@rpc(errors=…) must be a tuple of exception classes, not {self.errors!r}"
            )
        names: dict[str, type] = {}
        for each in cast("tuple[object, ...]", self.errors):
            if not isinstance(each, type) or not issubclass(each, Exception):
                raise TypeError(f"@rpc(errors=…) must hold exception classes, not {each!r}")
            if each.__name__ in names:
                # R22: the name is all that the wire carries, so it has to tell them apart.
                raise ValueError(
                    f"@rpc(errors=…) holds two classes named {each.__name__!r}; "
                    "on the wire they could not be told apart"
                )
            names[each.__name__] = each
        for flag in ("oneway", "strict"):
            if not isinstance(getattr(self, flag), bool):
                raise TypeError(f"@rpc({flag}=…) must be a bool, not {getattr(self, flag)!r}")

    def over(self, contract: RpcOptions) -> RpcOptions:
        """These options, and the contract's for those that an override did not set."""
        unset = {
            each.name: getattr(contract, each.name)
            for each in fields(self)
            if getattr(self, each.name) == each.default
        }
        return replace(self, **unset)


@dataclass(frozen=True, slots=True)
class RpcMark:
    """What ``@rpc`` leaves on a function, as ``__rpc__``."""

    options: RpcOptions
    function: Callable[..., Any]
    """The function as it was written; what ``@rpc`` returned for a stream method wraps it."""

    exposed: Callable[..., Any]
    """What ``@rpc`` returned: a decorator above it that copies attributes gives another object."""


def check_name(name: object, what: str) -> None:
    """Raise unless it can be one part of a dotted method name."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a string, not {name!r}")
    if not name:
        raise ValueError(f"{what} must not be empty")
    if "." in name:
        raise ValueError(f"{what} must not hold a dot, which separates namespaces: {name!r}")
    if name.startswith("_"):
        raise ValueError(f"{what} must not start with an underscore: {name!r} would be private")


@final
class Nothing:
    """No function returns this, save for those that return Any."""


# How a decorated method looks to a type checker: a stream method gives a Stream, every other one
# stays what it is. The first two are for results that are Any, which would fit a stream as well.
# mypy, where there is an Any anywhere in the function's types, weighs all overloads that fit, and
# makes a callable without types of them, which strict users may not call; the fifth makes that
# plain Any. pyright takes the first that fits.


class RpcDecorator(Protocol):
    """What ``@rpc(…)`` with options returns: it keeps types as ``@rpc`` does."""

    @overload
    def __call__(self, function: Callable[P, Nothing], /) -> Callable[P, Any]: ...

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, Nothing]], /
    ) -> Callable[P, Coroutine[Any, Any, Any]]: ...

    @overload
    def __call__(self, function: Callable[P, AsyncIterable[T]], /) -> Callable[P, Stream[T]]: ...

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, AsyncIterable[T]]], /
    ) -> Callable[P, Stream[T]]: ...

    @overload
    def __call__(
        self,
        function: Callable[..., AsyncIterable[Any] | Coroutine[Any, Any, AsyncIterable[Any]]],
        /,
    ) -> Any: ...

    @overload
    def __call__(self, function: F, /) -> F: ...


@overload
def rpc(function: Callable[P, Nothing], /) -> Callable[P, Any]: ...


@overload
def rpc(
    function: Callable[P, Coroutine[Any, Any, Nothing]], /
) -> Callable[P, Coroutine[Any, Any, Any]]: ...


@overload
def rpc(function: Callable[P, AsyncIterable[T]], /) -> Callable[P, Stream[T]]: ...


@overload
def rpc(
    function: Callable[P, Coroutine[Any, Any, AsyncIterable[T]]], /
) -> Callable[P, Stream[T]]: ...


@overload
def rpc(
    function: Callable[..., AsyncIterable[Any] | Coroutine[Any, Any, AsyncIterable[Any]]], /
) -> Any: ...


@overload
def rpc(function: F, /) -> F: ...


@overload
def rpc(
    *,
    name: str | None = None,
    window: Window | None = None,
    cleanup: float | None = None,
    errors: tuple[type[Exception], ...] = (),
    oneway: bool = False,
    strict: bool = False,
) -> RpcDecorator: ...


def rpc(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    window: Window | None = None,
    cleanup: float | None = None,
    errors: tuple[type[Exception], ...] = (),
    oneway: bool = False,
    strict: bool = False,
) -> Any:
    """Expose a method: only what is marked can be called from the other side.

    Use it alone or with options::

        @rpc
        async def price(self, symbol: str) -> float: ...

        @rpc(errors=(NoSuchSymbol,), cleanup=1.0)
        async def ticks(self, symbol: str) -> AsyncIterator[Tick]: ...

    What a method is, its annotations say: one that gives ``AsyncIterator[T]`` is a stream, and any
    other async function a call with one answer. A parameter that is an ``AsyncIterable[T]`` or a
    ``Stream[T]`` takes an upload, an async ``Callable`` a callback; one that is called
    ``task_status`` makes it a remote task, and ``@asynccontextmanager`` below a remote context.

    - ``name``: what it is called on the wire; the function's name by default. No dots, and no
      underscore in front.
    - ``window``: the :class:`Window` of its stream, where the caller names none; by default
      ``Limits.window`` of the caller, which grows.
    - ``cleanup``: how many seconds a handler may take to clean up once it was asked to stop (R7a);
      ``Limits.cleanup`` by default.
    - ``errors``: a tuple of exception classes that arrive as themselves, with their attributes; all
      of them are named differently. A caller with the same contract catches them.
    - ``oneway``: the caller waits until the call is written, and for no answer (R11). For methods
      with one answer that take neither streams nor callbacks.
    - ``strict``: fields that a type does not have are errors, at any depth; otherwise they are
      ignored, so that services can grow.

    It stands below ``@property``, ``@staticmethod`` and ``@classmethod``, and above
    ``@asynccontextmanager``.

    Raises :exc:`TypeError` or :exc:`ValueError` for what cannot be a method, or an option. What
    does not fit the method's annotations is a :exc:`TypeError` of :func:`serve`, or of
    :meth:`Connection.proxy`, which read them.
    """
    options = RpcOptions(name, window, cleanup, errors, oneway, strict)
    if function is None:
        return lambda function: mark(function, options)
    if options != RpcOptions():
        raise TypeError("@rpc takes the method alone, or options alone: @rpc(name=…)")
    return mark(function, options)


def mark(function: Any, options: RpcOptions) -> Any:
    """Put the mark on a function; a stream method gets it on a wrapper that gives a Stream."""
    if isinstance(function, type):
        raise TypeError(
            f"@rpc marks methods, not classes: {function.__name__} is a service "
            "if its methods are marked"
        )
    if isinstance(function, staticmethod | classmethod | property):
        above = type(function).__name__
        raise TypeError(f"@rpc stands below @{above}: write @{above} first, then @rpc")
    if not isinstance(function, types.FunctionType):
        raise TypeError(
            f"@rpc marks functions, not {function!r}; other callables are exposed by a mapping"
        )
    if MARK in vars(function):
        raise TypeError(f"{function.__qualname__} has two @rpc marks")
    if not (inspect.isasyncgenfunction(function) or says_stream(function)):
        setattr(function, MARK, RpcMark(options, function, function))
        return function

    @functools.wraps(function)
    def stream_method(*args: Any, **kwargs: Any) -> Any:
        return local_stream(open_iterator(function, *args, **kwargs))

    setattr(stream_method, MARK, RpcMark(options, function, stream_method))
    return stream_method


def mark_of(attribute: object) -> RpcMark | None:
    """The mark of a function, a bound method, or a static or class method; None without one."""
    if isinstance(attribute, staticmethod | classmethod | types.MethodType):
        attribute = attribute.__func__
    found = vars(attribute).get(MARK) if isinstance(attribute, types.FunctionType) else None
    return found if isinstance(found, RpcMark) else None


def is_context_manager(function: object) -> bool:
    """Whether a function is what ``asynccontextmanager`` returned."""
    return getattr(function, "__code__", None) is CONTEXT_MANAGER_CODE


def says_stream(function: Callable[..., Any]) -> bool:
    """Whether the return annotation is a stream's, as far as it can be known at decoration."""
    annotation = getattr(function, "__annotations__", {}).get("return")
    if is_context_manager(function) or annotation is None:
        return False
    try:
        return hints.stream_item(hints.evaluate(annotation, function)) is not None
    except hints.UnresolvedName:
        # A name from TYPE_CHECKING, or a class that comes later: the text says it. The table of
        # methods looks again when everything is defined.
        head = str(annotation).strip("'\" ").partition("[")[0]
        return head.strip().rpartition(".")[2] in hints.STREAM_NAMES


def open_iterator(function: Callable[..., Any], *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    """Call a stream method's raw function for its async iterator.

    Raises :exc:`NotImplementedError` if there is no iterator to be had: the body of a contract is
    a coroutine that nobody would ever have awaited.
    """
    produced = function(*args, **kwargs)
    if isinstance(produced, AsyncIterable):
        return aiter(produced)
    if inspect.iscoroutine(produced):
        produced.close()
    name = getattr(function, "__qualname__", repr(function))
    raise NotImplementedError(
        f"{name}() is declared as a stream but has no body that yields: it is a contract, "
        "to be called through a proxy or overridden by a service"
    )


def no_local_stream(iterator: AsyncIterator[Any]) -> Any:
    """Stand in until the runtime has said how a local stream is made."""
    raise RuntimeError("local streams need the runtime: import trio_streamrpc first")


local_stream: LocalStreamFactory = no_local_stream


def set_local_stream_factory(factory: LocalStreamFactory) -> None:
    """Say how a stream method, called locally, makes its ``Stream`` from the async iterator.

    The runtime calls this once, when it is imported.
    """
    global local_stream  # noqa: PLW0603  # a hook: set once, by the one layer that may
    local_stream = factory
