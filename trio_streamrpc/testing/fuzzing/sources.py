"""Values and services as Python says them, and the imports that this takes."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from msgspec import Struct

from trio_streamrpc.testing.strategies.calls import Callback, Upload

__all__ = ["Sources"]

#: The public homes of what is defined elsewhere.
PUBLIC: Final = {
    "trio_streamrpc.limits": "trio_streamrpc",
    "trio_streamrpc.testing.strategies.calls": "trio_streamrpc.testing",
}


class Sources:
    """Writes expressions, and remembers what they need."""

    def __init__(self) -> None:
        #: Modules that are imported whole.
        self.modules: set[str] = set()
        #: Names that are imported, and the modules that they are from.
        self.names: dict[str, str] = {}
        #: What is used and cannot be imported.
        self.nameless: list[str] = []

    def imports(self) -> list[str]:
        """The lines that all of it needs: first what is Python's own."""
        homes: dict[str, list[str]] = {}
        for name, home in self.names.items():
            homes.setdefault(home, []).append(name)
        lines = [(each, f"import {each}") for each in sorted(self.modules)]
        lines += [
            (home, f"from {home} import {', '.join(sorted(names))}")
            for home, names in sorted(homes.items())
        ]
        own = [line for home, line in lines if home.split(".")[0] in sys.stdlib_module_names]
        others = [line for _, line in lines if line not in own]
        return [*own, *[""] * bool(own and others), *others]

    # --- values

    def value(self, value: Any) -> str:
        """An expression that gives an equal value."""
        kind = type(value)
        if kind in (list, tuple, set, frozenset, dict):
            return self._container(value)
        if isinstance(value, enum.Enum):
            return self._member(value)
        if kind is float and not math.isfinite(value):
            return f'float("{value}")'
        if isinstance(value, Upload):
            return self._call(Upload, map(self.value, value.items), _more(value))
        if isinstance(value, Callback):
            return self._call(Callback, [self.value(value.answer)], _more(value))
        fields = _fields(value)
        if fields is not None:
            named = (f"{name}={self.value(each)}" for name, each in fields.items())
            return self._call(kind, named)
        return self._by_itself(value)

    def _container(self, value: Any) -> str:
        if isinstance(value, dict):
            items = (f"{self.value(key)}: {self.value(each)}" for key, each in value.items())
            return f"{{{', '.join(items)}}}"
        items = (self.value(each) for each in value)
        if isinstance(value, list):
            return f"[{', '.join(items)}]"
        if isinstance(value, tuple):
            return f"({', '.join(items)}{',' * (len(value) == 1)})"
        # In an order that is the same in each process.
        inner = f"{{{', '.join(sorted(items))}}}" if value else ""
        if isinstance(value, frozenset):
            return f"frozenset({inner})"
        return inner or "set()"

    def _call(self, kind: Any, arguments: Iterable[str], more: Iterable[str] = ()) -> str:
        return f"{self.name(kind)}({', '.join([*arguments, *more])})"

    def _by_itself(self, value: Any) -> str:
        """As it shows itself, where that is an expression of the usual kind."""
        text, kind = repr(value), type(value)
        if text.startswith(f"{kind.__module__}.{kind.__qualname__}("):
            # datetime has others of its own within, which say where they are from as well.
            self.modules.add(kind.__module__)
        elif text.startswith(f"{kind.__qualname__}(") and kind.__module__ != "builtins":
            self.name(kind)
        return text

    def name(self, kind: Any) -> str:
        """A class or a function by its name, which is imported."""
        path, home = str(kind.__qualname__), str(kind.__module__)
        if "<" in path:
            # It stands within a function: whoever pastes this has to put it there.
            name = str(kind.__name__)
            self._miss(name)
            return name
        self.names[path.partition(".")[0]] = PUBLIC.get(home, home)
        return path

    def _miss(self, name: str) -> None:
        if name not in self.nameless:
            self.nameless.append(name)

    def _member(self, value: enum.Enum) -> str:
        name = self.name(type(value))
        if value.name in type(value).__members__:
            return f"{name}.{value.name}"
        return f"{name}({self.value(value.value)})"  # some flags together

    # --- other objects

    def named(self, value: Any, otherwise: str) -> str:
        """A class, a function or an object by the name that its module has for it.

        ``otherwise``, if there is none; :attr:`nameless` has it then.
        """
        owner = value.func if isinstance(value, partial) else value
        if not (inspect.isclass(owner) or inspect.isroutine(owner)):
            owner = type(owner)
        if value is owner and "<" not in owner.__qualname__:
            return self.name(value)
        module = sys.modules.get(owner.__module__)
        for name, each in vars(module).items() if module is not None else ():
            if each is value:
                self.names[name] = owner.__module__
                return name
        self._miss(otherwise)
        return otherwise


def _more(passed: Upload | Callback) -> list[str]:
    pause = [f"pause={passed.pause}"] * (passed.pause != 0)
    return pause + ["fails=True"] * passed.fails


def _fields(value: Any) -> dict[str, Any] | None:
    """The arguments that would make it anew, of a value whose class is made of fields."""
    if dataclasses.is_dataclass(value):
        fields = [each for each in dataclasses.fields(value) if each.init]
        said = {each.name: getattr(value, each.name) for each in fields}
        defaults = {each.name: each.default for each in fields}
        return {name: each for name, each in said.items() if each != defaults[name]}
    if hasattr(value, "__attrs_attrs__"):
        attributes = [each for each in value.__attrs_attrs__ if each.init]
        return {each.alias: getattr(value, each.name) for each in attributes}
    if isinstance(value, Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if hasattr(value, "_fields"):
        return {name: getattr(value, name) for name in value._fields}
    return None
