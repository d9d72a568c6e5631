"""What a server says of itself, as the command line reads it: see ``contract/description.py``.

It comes from the other side, so that it is believed no further than its shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from trio_streamrpc.contract.reflection import NAMESPACE
from trio_streamrpc.errors import ConnectionLost, RpcError
from trio_streamrpc.runtime.connection import Connection

__all__ = ["Description", "MethodInfo", "ParameterInfo", "ask_description", "find_method"]

#: The method that tells it.
DESCRIBE = f"{NAMESPACE}.describe"


class TypeInfo(msgspec.Struct):
    """A type, and the object that it may stand for."""

    type: str
    object: str | None = None


class ParameterInfo(msgspec.Struct):
    """A parameter: data of a ``type``, a stream of ``items``, or a callback."""

    name: str
    passed: str = "positional or keyword"
    required: bool = True
    role: str = "data"
    type: str | None = None
    items: TypeInfo | None = None
    parameters: list[ParameterInfo] = []
    result: TypeInfo | None = None

    def __str__(self) -> str:
        stars = {"variadic positional": "*", "variadic keyword": "**"}.get(self.passed, "")
        return f"{stars}{self.name}: {self.what}{'' if self.required or stars else ' = …'}"

    @property
    def what(self) -> str:
        """What it takes."""
        if self.items is not None:
            return f"stream of {self.items.type}"
        if self.role == "callback":
            taken = ", ".join(each.what for each in self.parameters)
            gives = "Any" if self.result is None else self.result.type
            return f"callback({taken}) -> {gives}"
        return self.type or "Any"


class MethodInfo(msgspec.Struct):
    """A method, and what it gives."""

    name: str
    kind: str
    doc: str | None = None
    parameters: list[ParameterInfo] = []
    result: TypeInfo | None = None
    items: TypeInfo | None = None
    yields: TypeInfo | None = None
    starts: TypeInfo | None = None

    @property
    def gives(self) -> str:
        """The type of what it gives."""
        found = self.result or self.items or self.yields or self.starts
        return "Any" if found is None else found.type

    @property
    def takes(self) -> str:
        """Its parameters, as they are written in Python."""
        return ", ".join(parts_of(self.parameters))

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return (self.doc or "").strip().partition("\n")[0]


class Description(msgspec.Struct):
    """All methods, and those of the objects that contexts and tasks give."""

    methods: list[MethodInfo]
    objects: dict[str, list[MethodInfo]] = {}


def parts_of(parameters: Sequence[ParameterInfo]) -> Iterator[str]:
    """The parameters one by one, and the ``/`` and ``*`` between them."""
    before = ""
    for each in parameters:
        if before == "positional-only" != each.passed:
            yield "/"
        if each.passed == "keyword-only" and before not in ("keyword-only", "variadic positional"):
            yield "*"
        yield str(each)
        before = each.passed
    if before == "positional-only":
        yield "/"


async def ask_description(connection: Connection) -> Any:
    """What the server says of itself, as it says it; raises what the call raises."""
    return await connection.call(DESCRIBE)


async def find_method(connection: Connection, name: str) -> MethodInfo | None:
    """What the server says of one of its methods; None if it does not."""
    try:
        found = msgspec.convert(await ask_description(connection), Description)
    except ConnectionLost:
        raise
    except (RpcError, msgspec.ValidationError):
        # It has no reflection, does not let this client see it, or has another one.
        return None
    return next((each for each in found.methods if each.name == name), None)
