"""Where a class defines what ``@rpc`` marks, and what of it runs."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any

from trio_streamrpc.contract.decorators import mark_of
from trio_streamrpc.contract.signatures import Source

__all__ = ["Definition", "PropertyAccess", "bound", "definitions_of", "raw", "unwrapped"]


@dataclass(frozen=True, slots=True)
class Definition:
    """One class's definition of an attribute."""

    owner: type
    attribute: Any

    @property
    def function(self) -> Any:
        """What ``@rpc`` may have marked: below a property, a static or a class method."""
        if isinstance(self.attribute, property):
            return self.attribute.fget
        return self.attribute

    def source(self) -> Source | None:
        """Where its annotations are to be read; None for what is no function."""
        function = self.function
        if isinstance(function, staticmethod):
            return Source(raw(function), self.owner)
        if isinstance(function, classmethod | types.FunctionType):
            return Source(raw(function), self.owner, takes_self=True)
        return None


def definitions_of(service: type) -> dict[str, list[Definition]]:
    """The marked attributes of a class: every definition of each, as the MRO has them.

    An override without a mark is there as its contract's is, wherever the contract stands; one
    that is ``None`` takes the method back, as ``__hash__ = None`` does.
    """
    found: dict[str, list[Definition]] = {}
    for owner in service.__mro__:
        for name, attribute in vars(owner).items():
            found.setdefault(name, []).append(Definition(owner, attribute))
    return {
        name: all_of_it
        for name, all_of_it in found.items()
        if all_of_it[0].attribute is not None and any(mark_of(each.function) for each in all_of_it)
    }


def raw(function: Any) -> Any:
    """The function as it was written, below the wrapper that makes local streams.

    A decorator that stands above ``@rpc`` and copied its mark is not skipped.
    """
    below = getattr(function, "__func__", function)
    mark = mark_of(below)
    return mark.function if mark is not None and mark.exposed is below else below


def unwrapped(function: Any) -> Any:
    """As :func:`raw`, for a callable that is bound already, or needs no binding."""
    if isinstance(function, types.MethodType):
        return types.MethodType(raw(function), function.__self__)
    return raw(function)


def bound(name: str, definition: Definition, instance: object) -> Any:
    """The function that runs, with ``self`` filled in."""
    attribute = definition.attribute
    if isinstance(attribute, property):
        return PropertyAccess(attribute, instance)
    if name in getattr(instance, "__dict__", ()):
        return unwrapped(vars(instance)[name])
    if isinstance(attribute, staticmethod):
        return raw(attribute)
    if isinstance(attribute, classmethod):
        return types.MethodType(raw(attribute), type(instance))
    if isinstance(attribute, types.FunctionType):
        return types.MethodType(raw(attribute), instance)
    return getattr(instance, name)


class PropertyAccess:
    """Reads a property when it is called without an argument, and writes it with one."""

    def __init__(self, attribute: property, instance: object) -> None:
        self.attribute = attribute
        self.instance = instance

    def __call__(self, *value: Any) -> Any:
        if value:
            return self.attribute.__set__(self.instance, *value)
        return self.attribute.__get__(self.instance)
