"""What a service is, described for others: its methods, and their types as JSON Schema.

A description is made of builtins alone, so that it travels in any encoding and is understood
without this library. A schema is msgspec's, complete in itself, and says what a value looks like in
JSON; a type whose looks are up to a converter is described by words, and not by a guess.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

import msgspec
from msgspec import inspect

from trio_streamrpc.contract import hints
from trio_streamrpc.contract.decorators import RpcOptions
from trio_streamrpc.contract.method import Method
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import Payloads
from trio_streamrpc.contract.problems import shown
from trio_streamrpc.contract.shapes import survey
from trio_streamrpc.contract.signatures import Kind, Parameter, Role

__all__ = ["describe"]

#: What a method gives is called so, by its kind.
GIVES: Final = {
    Kind.UNARY: "result",
    Kind.SERVER_STREAM: "items",
    Kind.CONTEXT: "yields",
    Kind.TASK: "starts",
}

#: The Python types that msgspec tells by a class of its own.
SCALARS: Final[Mapping[type[inspect.Type], type]] = {
    inspect.BoolType: bool,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.StrType: str,
    inspect.BytesType: bytes,
    inspect.ByteArrayType: bytearray,
    inspect.DateTimeType: dt.datetime,
    inspect.DateType: dt.date,
    inspect.TimeType: dt.time,
    inspect.TimeDeltaType: dt.timedelta,
    inspect.DecimalType: decimal.Decimal,
    inspect.UUIDType: uuid.UUID,
}


def describe(table: MethodTable, payloads: Payloads) -> dict[str, Any]:
    """The description of a service whose values these payloads encode.

    ``methods`` holds each method by its dotted name: ``name``, ``kind``, ``doc``, ``parameters``,
    ``options``, and what it gives: the ``result`` of a unary method, the ``items`` of a stream,
    what a context ``yields``, what a task ``starts`` with. ``objects`` holds the methods of the
    remote objects among that, by the names of their classes.

    A type is a ``type``, as it is written in Python, and a ``schema``, JSON Schema (2020-12); an
    object is a ``type``, the name of its class among the ``objects``, and whether it is
    ``optional``. A parameter has a ``role``: ``data`` of a type, a ``stream`` whose ``items`` are
    of one, or a ``callback`` that takes ``parameters`` and gives a ``result``.
    """
    return Describer(payloads).service(table)


class Describer:
    """Describes methods, and notes which objects they give."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads
        self._objects: dict[str, list[dict[str, Any]]] = {}
        #: The names of the classes that are described, or about to be.
        self._names: dict[type, str] = {}

    def service(self, table: MethodTable) -> dict[str, Any]:
        methods = self._methods(table)
        return {"methods": methods, "objects": self._objects}

    def _methods(self, table: MethodTable) -> list[dict[str, Any]]:
        return [self._method(each) for each in table.values()]

    def _method(self, method: Method) -> dict[str, Any]:
        gives = self._object(method) if method.yields_object else self._type(method.result_type)
        return {
            "name": method.name,
            "kind": method.kind.value,
            "doc": method.doc,
            # What no caller gives is none of its callers' business.
            "parameters": self._parameters(
                each for each in method.parameters if not each.is_task_status
            ),
            GIVES[method.kind]: gives,
            "options": options_of(method.options),
            "property": method.is_property,
            "writable": method.writable,
        }

    def _parameters(self, parameters: Iterable[Parameter]) -> list[dict[str, Any]]:
        return [
            {
                "name": each.name,
                "passed": each.kind.description,
                "required": not each.has_default and not each.is_variadic,
                "role": "stream" if each.role is Role.UPLOAD else each.role.value,
                **self._taken(each),
            }
            for each in parameters
        ]

    def _taken(self, parameter: Parameter) -> dict[str, Any]:
        """What a parameter takes, by its role."""
        if parameter.role is Role.DATA:
            return self._type(parameter.annotation)
        if parameter.role is Role.UPLOAD:
            return {"items": self._type(parameter.item_type)}
        callback = Method.of_callback(parameter, parameter.name)
        return {
            "parameters": self._parameters(callback.parameters),
            "result": self._type(callback.result_type),
        }

    # --- objects

    def _object(self, method: Method) -> dict[str, Any]:
        contract = hints.without_none(method.result_type)
        cls = hints.class_of(contract)
        assert cls is not None
        name = self._names.get(cls)
        if name is None:
            name = self._names[cls] = self._name_for(cls)
            try:
                table = MethodTable.of_contract(contract)
            except TypeError:
                # The class says what it holds with names that are not there at run time; its
                # objects, which are asked when there is one, work all the same.
                self._objects[name] = []
            else:
                self._objects[name] = self._methods(table)
        return {
            "type": shown(method.result_type),
            "object": name,
            "optional": not method.needs_object,
        }

    def _name_for(self, cls: type) -> str:
        taken = cls.__name__ in self._names.values()
        return f"{cls.__module__}.{cls.__qualname__}" if taken else cls.__name__

    # --- types

    def _type(self, annotation: Any) -> dict[str, Any]:
        written = "None" if annotation is type(None) else shown(annotation)
        return {"type": written, "schema": self._schema(annotation)}

    def _schema(self, annotation: Any) -> Any:
        if annotation is Any or annotation is object:
            return {}
        found = survey(annotation)
        if found is None or found.hides_fields or self._is_converted(annotation, found.infos):
            return unknown(shown(annotation))
        try:
            schema = msgspec.json.schema(annotation, schema_hook=custom)
            # What stands in it besides, a default or a user's addition, may be anything.
            return msgspec.json.decode(msgspec.json.encode(schema))
        except Exception:
            return unknown(shown(annotation))

    def _is_converted(self, annotation: Any, parts: Iterable[inspect.Type]) -> bool:
        """Whether the user's converter makes something in a type that msgspec would make too."""
        if self._payloads.converter is None:
            return False
        classes = {
            getattr(each, "cls", SCALARS.get(type(each)))
            for each in parts
            if not isinstance(each, inspect.CustomType)
        }
        return any(map(self._payloads.has_hook, (annotation, *classes - {None})))


def options_of(options: RpcOptions) -> dict[str, Any]:
    """What ``@rpc(…)`` was given, apart from the name."""
    return {
        "window": None if options.window is None else asdict(options.window),
        "cleanup": options.cleanup,
        "errors": [each.__name__ for each in options.errors],
        "oneway": options.oneway,
        "strict": options.strict,
    }


def custom(cls: type) -> dict[str, Any]:
    """The schema of a class that msgspec leaves to a converter."""
    return {"title": cls.__name__, **unknown(cls.__name__)}


def unknown(name: str) -> dict[str, Any]:
    """The schema of what only the service's converter knows: it allows anything, and says so."""
    return {
        "description": f"{name}: what it looks like is up to the service's converter, "
        "and no schema is known"
    }
