"""What is to be served, by its name: ``package.module:Service``."""

from __future__ import annotations

import importlib
import sys

from trio_streamrpc.cli.failures import Misuse

__all__ = ["find", "load"]


def find(name: str) -> object:
    """What stands there, as it is.

    Modules are looked for from the current directory on, as ``python -m`` does. Raises
    :exc:`Misuse` for what is not there.
    """
    module_name, found, attribute = name.partition(":")
    if not found or not attribute or not module_name:
        raise Misuse(f"{name!r}: it is to be package.module:Service")
    if "" not in sys.path:
        sys.path.insert(0, "")
    value: object = imported(module_name)
    for each in attribute.split("."):
        try:
            value = getattr(value, each)
        except AttributeError as error:
            raise Misuse(f"{module_name} has no {attribute!r}") from error
    return value


def load(name: str) -> object:
    """The service of that name: an instance of a class, or anything else as it is.

    Raises :exc:`Misuse` for what is not there, or cannot be made.
    """
    value = find(name)
    if not isinstance(value, type):
        return value
    try:
        return value()
    except Exception as error:
        raise Misuse(
            f"{name.partition(':')[2]}() raised {type(error).__name__}: {error} (a service that "
            "needs arguments is made in its module, and named here)"
        ) from error


def imported(name: str) -> object:
    """The module of that name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise Misuse(f"there is no module {name!r}") from error
        problem: Exception = error
    except Exception as error:
        problem = error
    raise Misuse(f"importing {name!r} raised {type(problem).__name__}: {problem}") from problem
