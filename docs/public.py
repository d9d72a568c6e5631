"""What is public, as the code says it: for the reference, the page for machines, and their tests.

A module's names are those of its ``__all__``; a package's are what its ``__init__.py`` imports
under their own names (``from … import serve as serve``), and what it assigns. A class's members are
those that are documented, and a connection's those of its :class:`Face`.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from typing import Any

from trio_streamrpc import Connection
from trio_streamrpc.contract.decorators import is_context_manager
from trio_streamrpc.runtime.proxies import Face

__all__ = [
    "MODULES",
    "comment_of",
    "comment_on",
    "definition_of",
    "has_constructor",
    "members_of",
    "names_of",
    "opens_block",
    "public_names",
]

PACKAGE = "trio_streamrpc"

#: The modules that users import from. Where a name stands in several, it is that of the first.
MODULES = (
    "trio_streamrpc",
    "trio_streamrpc.interceptors",
    "trio_streamrpc.dialects",
    "trio_streamrpc.transports.base",
    "trio_streamrpc.testing",
    "trio_streamrpc.testing.strategies",
)

#: What Hypothesis leaves on the steps of a state machine, which are called by it alone.
STEPS = [f"hypothesis_stateful_{each}" for each in ("rule", "initialize_rule", "invariant")]


def names_of(module: str) -> list[str]:
    """The public names of a module, in the order of its source."""
    loaded = importlib.import_module(module)
    if hasattr(loaded, "__all__"):
        return list(loaded.__all__)
    found: list[str] = []
    for node in _statements(ast.parse(_source_of(module)).body):
        if isinstance(node, ast.ImportFrom):
            found += [each.name for each in node.names if each.name == each.asname]
        elif isinstance(node, ast.Assign):
            found += [each.id for each in node.targets if isinstance(each, ast.Name)]
    return [
        name
        for name in found
        if not name.startswith("_") and not inspect.ismodule(getattr(loaded, name))
    ]


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If):  # TYPE_CHECKING: what is imported when it is asked for
            yield from node.body


@functools.cache
def public_names() -> dict[str, Any]:
    """Everything that is public, by its full name."""
    found: dict[str, Any] = {}
    for module in MODULES:
        loaded = importlib.import_module(module)
        for name in names_of(module):
            value = getattr(loaded, name)
            if not any(value is each for each in found.values()):
                found[f"{module}.{name}"] = value
    return found


def members_of(cls: type) -> list[str]:
    """The members of a class that are for users: those that are documented, in order."""
    if issubclass(cls, Connection):
        cls = Face
    found: dict[str, None] = {}
    for owner in cls.__mro__:
        if owner.__module__.startswith(PACKAGE):
            for name, comment in _attributes_of(owner).items():
                if not name.startswith("_") and (comment or _is_documented(cls, name)):
                    found.setdefault(name)
    return list(found)


def comment_of(cls: type, name: str) -> str:
    """What the source says of an attribute: in ``#:`` before it, or in a string behind it."""
    for owner in cls.__mro__:
        if owner.__module__.startswith(PACKAGE) and _attributes_of(owner).get(name):
            return _attributes_of(owner)[name]
    return ""


def _is_documented(cls: type, name: str) -> bool:
    value = getattr(cls, name, None)
    if any(hasattr(value, each) for each in STEPS):
        return False
    is_described = inspect.isroutine(value) or isinstance(value, property)
    return is_described and bool(inspect.getdoc(value))


def comment_on(name: str) -> str:
    """What the source says of a public value that is no class and no function."""
    node, lines = definition_of(name)
    return _comment_before(node, lines)


def definition_of(name: str) -> tuple[ast.stmt, list[str]]:
    """The last statement that defines a public name, and the lines of the file that it is in."""
    module, _, short = name.rpartition(".")
    source = _source_of(module)
    found: list[ast.stmt] = []
    for node in _statements(ast.parse(source).body):
        if isinstance(node, ast.ImportFrom) and short in [each.asname for each in node.names]:
            return definition_of(f"{node.module}.{short}")
        if _assigned(node) == short:
            found.append(node)
    return found[-1], source.splitlines()


def _source_of(module: str) -> str:
    return inspect.getsource(importlib.import_module(module))


def _comment_before(node: ast.stmt, lines: list[str]) -> str:
    """The ``#:`` before a statement."""
    said: list[str] = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.strip().startswith("#:"):
            break
        said.insert(0, line.strip()[2:].removeprefix(" "))
    return "\n".join(said)


@functools.cache
def _attributes_of(cls: type) -> dict[str, str]:
    """What a class has in its source, in order, with what is said of it where it is assigned."""
    source = textwrap.dedent(inspect.getsource(cls))
    lines = source.splitlines()
    [tree] = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for body in [*(each.body for each in tree.body if _is_constructor(each)), tree.body]:
        for node, following in zip(body, [*body[1:], None], strict=True):
            name = _assigned(node)
            if name is None:
                continue
            found.setdefault(name, "")
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                found[name] = inspect.cleandoc(str(following.value.value))
                continue
            found[name] = _comment_before(node, lines) or found[name]
    return found


def _is_constructor(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "__init__"


def _assigned(node: ast.stmt) -> str | None:
    """What a statement defines: a class, a function, or a name by its value or its type."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    for each in targets:
        if isinstance(each, ast.Name):
            return each.id
        if isinstance(each, ast.Attribute):
            return each.attr
    return None


def has_constructor(cls: type) -> bool:
    """Whether users make objects of a class themselves: from nothing but what they can name."""
    if issubclass(cls, Enum) or inspect.isabstract(cls) or getattr(cls, "_is_protocol", False):
        return False
    known = {id(each) for each in public_names().values()}
    module = sys.modules[cls.__module__]
    try:
        parameters = inspect.signature(cls).parameters.values()
    except ValueError:
        return False  # that of a builtin: nothing of ours
    for each in parameters:
        for name in re.findall(r"[A-Za-z_]\w*", str(each.annotation)):
            value = vars(module).get(name) or _imported_for_types(cls.__module__).get(name)
            if (
                isinstance(value, type)
                and value.__module__.startswith(PACKAGE)
                and id(value) not in known
            ):
                return False
    return True


def opens_block(function: Any) -> bool:
    """Whether a function is called in an ``async with``."""
    return is_context_manager(function) or is_context_manager(
        getattr(function, "__wrapped__", None)  # for_block
    )


@functools.cache
def _imported_for_types(module: str) -> dict[str, Any]:
    """What a module imports for type checkers alone."""
    found: dict[str, Any] = {}
    for node in _statements(ast.parse(_source_of(module)).body):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE):
            source = importlib.import_module(node.module)
            found |= {each.name: getattr(source, each.name) for each in node.names}
    return found
