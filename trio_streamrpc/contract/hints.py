"""What annotations say about a method: streams, callbacks, task statuses, contexts, and names.

Everything is recognised by the shape of the annotation, so that this layer imports no Trio: a
``Stream`` or a ``trio.TaskStatus`` is known by the name and the module of its class.
"""

from __future__ import annotations

import builtins
import collections.abc
import functools
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, Union, get_args, get_origin

__all__ = [
    "STREAM_NAMES",
    "UnresolvedName",
    "callback_types",
    "class_hints",
    "class_of",
    "context_item",
    "evaluate",
    "evaluate_in",
    "is_callback",
    "is_optional",
    "stream_item",
    "substitute",
    "task_item",
    "type_arguments",
    "without_none",
]

#: The last part of a stream's annotation, as it stands in the source.
STREAM_NAMES: Final = frozenset({"AsyncIterator", "AsyncIterable", "AsyncGenerator", "Stream"})

STREAM_ORIGINS: Final = (
    collections.abc.AsyncIterable,
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
)


class UnresolvedName(Exception):
    """An annotation could not be evaluated; the message says what went wrong."""


def evaluate(annotation: Any, function: Callable[..., Any], owner: type | None = None) -> Any:
    """Evaluate a string annotation of ``function``, forward references inside it included.

    Names are looked for where Python looks for them, in the function's module; and, if one is not
    found there, in the body of ``owner``, whose method names would otherwise hide builtins.

    Raises :exc:`UnresolvedName`.
    """
    raw = source_of(function)
    module = sys.modules.get(getattr(raw, "__module__", None) or "builtins", builtins)
    return evaluate_in(annotation, getattr(raw, "__globals__", vars(module)), owner)


def evaluate_in(annotation: Any, module: Mapping[str, Any], owner: type | None) -> Any:
    """Evaluate an annotation with the names of a module, then also of a class."""
    # Only get_type_hints evaluates forward references at any depth, and it wants an object.
    carrier = type("Carrier", (), {})
    carrier.__annotations__ = {"value": annotation}
    scope = dict(module)
    parameters = {each.__name__: each for each in getattr(owner, "__type_params__", ())}
    try:
        return typing.get_type_hints(carrier, scope, parameters, include_extras=True)["value"]
    except NameError as error:
        problem: Exception = error
    except Exception as error:
        raise UnresolvedName(f"{type(error).__name__}: {error}") from error
    if owner is not None:
        body: dict[str, Any] = {owner.__name__: owner}
        for each in reversed(owner.__mro__):
            body.update(vars(each))
        try:
            body.update(parameters)
            return typing.get_type_hints(carrier, scope, body, include_extras=True)["value"]
        except Exception:
            pass  # the first problem is the one that Python would have told
    raise UnresolvedName(str(problem)) from problem


def source_of(function: Any) -> Any:
    """The function whose module an annotation was written in, below what is wrapped around it."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, types.MethodType):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif isinstance(function, types.FunctionType | types.BuiltinFunctionType | type):
            return function
        else:
            function = type(function).__call__


def bare(annotation: Any) -> Any:
    """The annotation without ``Annotated``, ``Final`` and ``ClassVar`` around it."""
    while True:
        if get_origin(annotation) in (typing.Annotated, typing.Final, typing.ClassVar):
            annotation = get_args(annotation)[0]
        else:
            return annotation


def is_optional(annotation: Any) -> bool:
    """Whether ``None`` is one of the values."""
    annotation = bare(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return type(None) in get_args(annotation)
    return annotation is None or annotation is type(None) or annotation is Any


def without_none(annotation: Any) -> Any:
    """``T`` for ``T | None``, and every other annotation as it is."""
    annotation = bare(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        others = [each for each in get_args(annotation) if each is not type(None)]
        if len(others) == 1:
            return bare(others[0])
    return annotation


def stream_item(annotation: Any) -> tuple[Any] | None:
    """The item type of a stream annotation, in a tuple; None for what is no stream."""
    annotation = without_none(annotation)
    origin = get_origin(annotation) or annotation
    if origin in STREAM_ORIGINS or is_named(origin, "Stream", "trio_streamrpc"):
        return (first_argument(annotation),)
    return None


def context_item(annotation: Any) -> tuple[Any] | None:
    """What an async context manager annotation yields, in a tuple; None for anything else."""
    annotation = bare(annotation)
    origin = get_origin(annotation) or annotation
    names = ("AbstractAsyncContextManager", "_AsyncGeneratorContextManager")
    if any(is_named(origin, each, "contextlib") for each in names):
        return (first_argument(annotation),)
    return None


def task_item(annotation: Any) -> tuple[Any] | None:
    """The ``T`` of a ``trio.TaskStatus[T]``, in a tuple; None for anything else."""
    annotation = without_none(annotation)
    origin = get_origin(annotation) or annotation
    return (first_argument(annotation),) if is_named(origin, "TaskStatus", "trio") else None


def is_callback(annotation: Any) -> bool:
    """Whether it is ``Callable[…, Awaitable[…]]``.

    Raises :exc:`TypeError` for a callable that cannot be awaited: no such call can travel.
    """
    annotation = without_none(annotation)
    if (get_origin(annotation) or annotation) is not collections.abc.Callable:
        return False
    result = bare(get_args(annotation)[-1]) if get_args(annotation) else None
    origin = get_origin(result) or result
    if not isinstance(origin, type) or not issubclass(origin, collections.abc.Awaitable):
        raise TypeError(
            "a callback is an async function: annotate it as Callable[[…], Awaitable[…]]"
        )
    return True


def callback_types(annotation: Any) -> tuple[list[Any] | None, Any]:
    """What a ``Callable[[A, B], Awaitable[R]]`` takes and gives; None if it takes anything."""
    arguments = get_args(without_none(annotation))
    if not arguments:
        return None, Any
    *_, result = arguments
    taken = arguments[0] if isinstance(arguments[0], list) else None
    results = get_args(bare(result))
    # The last one: of a Coroutine[Any, Any, R] too it is what awaiting it gives.
    return taken, results[-1] if results else Any


def is_named(origin: Any, name: str, package: str) -> bool:
    """Whether it is a class of this name from this package, which need not be imported."""
    module = getattr(origin, "__module__", None) or ""
    return getattr(origin, "__name__", None) == name and module.split(".")[0] == package


def first_argument(annotation: Any) -> Any:
    """The first type argument, or Any."""
    arguments = get_args(annotation)
    return arguments[0] if arguments else Any


def class_of(annotation: Any) -> type | None:
    """The class that an annotation of an attribute names, without its type arguments."""
    annotation = without_none(annotation)
    origin = get_origin(annotation) or annotation
    return origin if isinstance(origin, type) else None


def class_hints(cls: type) -> dict[str, Any]:
    """The types of a class's fields; none where one of them cannot be evaluated."""
    try:
        found = typing.get_type_hints(cls, include_extras=True)
    except Exception:
        return {}
    return {name: substitute(each, {}) for name, each in found.items()}


def type_arguments(contract: Any) -> dict[type | None, dict[Any, Any]]:
    """What the type variables of a class and of each of its bases stand for.

    For ``class Users(Repository[User])``, and for ``Repository[User]`` itself, the variable of
    ``Repository`` is ``User``. They are kept apart by class: one ``T`` may serve several bases.
    """
    found: dict[type | None, dict[Any, Any]] = {}

    def visit(alias: Any, outer: Mapping[Any, Any]) -> None:
        origin = get_origin(alias) or alias
        parameters = getattr(origin, "__parameters__", ())
        arguments = (substitute(each, outer) for each in get_args(alias))
        own = found.setdefault(origin, dict(zip(parameters, arguments, strict=False)))
        said = {get_origin(each): each for each in getattr(origin, "__orig_bases__", ())}
        for base in origin.__bases__:
            visit(said.get(base, base), own)

    visit(contract, {})
    return found


def substitute(annotation: Any, arguments: Mapping[Any, Any]) -> Any:
    """Put types in the place of type variables; one that stands for nothing known becomes its
    bound, the union of its constraints, or Any."""
    if isinstance(annotation, TypeVar):
        if annotation in arguments:
            return arguments[annotation]
        if annotation.__constraints__:
            return Union[annotation.__constraints__]  # noqa: UP007  # of a tuple
        return Any if annotation.__bound__ is None else annotation.__bound__
    parameters = getattr(annotation, "__parameters__", ())
    if not parameters or isinstance(annotation, type):
        return annotation
    return annotation[tuple(substitute(each, arguments) for each in parameters)]
