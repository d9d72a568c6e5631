"""Reflection: the namespace ``streamrpc``, by which a service says what it has.

It is served like any other namespace: interceptors see its calls, and may refuse them.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

from trio_streamrpc.contract.decorators import rpc
from trio_streamrpc.contract.description import describe
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import Payloads

__all__ = ["NAMESPACE", "with_reflection"]

#: The namespace that is added.
NAMESPACE: Final = "streamrpc"


class Reflection:
    """What a service says about itself."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads
        #: The table that is described, this namespace with it.
        self.table: MethodTable | None = None

    @cached_property
    def _description(self) -> dict[str, Any]:
        assert self.table is not None
        return describe(self.table, self._payloads)

    @rpc
    async def describe(self) -> dict[str, Any]:
        """Tell every method that is served, with its types.

        Each has its name, kind, docstring, parameters and options, and what it gives; types are
        there as they are written in Python, and as JSON Schema.
        """
        return self._description


def with_reflection(table: MethodTable, payloads: Payloads) -> MethodTable:
    """The same table with the namespace ``streamrpc``, which describes it.

    Raises :exc:`TypeError` if the service has something of that name itself.
    """
    if any(each.partition(".")[0] == NAMESPACE for each in table):
        raise TypeError(
            f"{table.label} has a {NAMESPACE!r} of its own, which is the namespace that "
            "reflection=True adds: give it another name, or serve it without reflection"
        )
    reflection = Reflection(payloads)
    own = MethodTable.of({NAMESPACE: reflection}).namespaces[NAMESPACE]
    whole = MethodTable(table.label, table.attributes, {**table.namespaces, NAMESPACE: own})
    reflection.table = whole
    return whole
