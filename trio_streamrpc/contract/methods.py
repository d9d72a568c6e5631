"""The table of a service's methods: what can be called, by which name, and how.

Only what is marked with ``@rpc`` (or stands in a mapping by itself) is in the table. It is built
once; a call is a look-up of its dotted name. Nothing on the wire ever reaches ``getattr``.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_origin

from trio_streamrpc.contract import hints
from trio_streamrpc.contract.decorators import RpcOptions, check_name, mark_of
from trio_streamrpc.contract.definitions import Definition, bound, definitions_of, raw, unwrapped
from trio_streamrpc.contract.method import (
    Method,
    attribute_annotations,
    has_methods,
    is_marked,
    make_method,
    read_method,
)
from trio_streamrpc.contract.signatures import Source, read_signature

__all__ = ["MethodTable"]


#: The longest name of a method, with its namespaces, in characters (R28).
MAX_NAME = 256


class MethodTable(Mapping[str, Method]):
    """The methods of a service or of a contract, by their dotted names.

    ``attributes`` and ``namespaces`` are the same once more, as a proxy shows them: the methods of
    this level by their names in Python, and a table for each nested namespace. The methods in a
    namespace's table have their full names, and are found there by the rest of it.
    """

    def __init__(
        self,
        label: str,
        attributes: Mapping[str, Method],
        namespaces: Mapping[str, MethodTable],
    ) -> None:
        self.label = label
        self.attributes: Mapping[str, Method] = types.MappingProxyType(dict(attributes))
        self.namespaces: Mapping[str, MethodTable] = types.MappingProxyType(dict(namespaces))
        self._methods: dict[str, Method] = {}
        for attribute, method in attributes.items():
            self._add(method.name.rpartition(".")[2], method, attribute)
        for attribute, table in namespaces.items():
            for rest, method in table.items():
                self._add(f"{attribute}.{rest}", method, attribute)

    def _add(self, name: str, method: Method, attribute: str) -> None:
        if len(method.name) > MAX_NAME:
            # R28: a longer one is refused unseen.
            raise TypeError(
                f"{method.label}: its name on the wire has {len(method.name)} characters, "
                f"more than {MAX_NAME}"
            )
        if name in self._methods:
            other = self._methods[name].label
            raise TypeError(
                f"{self.label} has two methods named {name!r}: {other} and {method.label}"
            )
        self._methods[name] = method

    def __getitem__(self, name: str) -> Method:
        return self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)

    def __repr__(self) -> str:
        return f"<MethodTable {self.label}: {', '.join(self)}>"

    @classmethod
    def of(cls, service: object) -> MethodTable:
        """The table of a service: an object with ``@rpc`` methods, or a mapping.

        The values of a mapping are such objects, mappings, or functions, which being in it exposes.
        Raises :exc:`TypeError` for what is no service, and for methods that cannot be served.
        """
        return service_table(service, "", ())

    @classmethod
    def of_contract(cls, contract: Any) -> MethodTable:
        """The table of a contract, for a proxy: a class, a Protocol, an ABC, or ``Generic[T]``.

        Its methods have no ``function``. Raises :exc:`TypeError` for what is no contract.
        """
        return contract_table(contract, "", ())


def service_table(service: object, prefix: str, path: tuple[object, ...]) -> MethodTable:
    """The table of one service and of what is nested in it; ``path`` is what it is nested in."""
    if isinstance(service, Mapping):
        return mapping_table(service, prefix, path)
    if isinstance(service, type):
        raise TypeError(
            f"{place(prefix)} is the class {service.__name__}: pass an instance of it, "
            f"{service.__name__}()"
        )
    cls: Any = type(service)
    attributes = {
        name: method.bind(bound(name, definition, service))
        for name, (method, definition) in class_methods(cls, prefix).items()
    }
    namespaces = {}
    for name, value in nested_services(service).items():
        # A child that knows its parent is no reason to go round for ever.
        if not any(value is each for each in (*path, service)):
            namespaces[name] = service_table(value, f"{prefix}{name}.", (*path, service))
    if not attributes and not namespaces:
        hint = "; a function is exposed by standing in a mapping" if callable(service) else ""
        raise TypeError(
            f"{place(prefix)}, {service!r}, has no @rpc method: did you forget to mark them{hint}?"
        )
    return MethodTable(cls.__name__, attributes, namespaces)


@functools.lru_cache(maxsize=1024)
def class_methods(cls: type, prefix: str) -> dict[str, tuple[Method, Definition]]:
    """The methods of a service's class and what runs: read once, for all its instances."""
    arguments = hints.type_arguments(cls)
    return {
        name: (read_method(name, definitions, cls, arguments, prefix), definitions[0])
        for name, definitions in definitions_of(cls).items()
    }


def mapping_table(service: Mapping[Any, Any], prefix: str, path: tuple[object, ...]) -> MethodTable:
    """The table of a mapping of names to services, mappings and functions."""
    if any(service is each for each in path):
        raise TypeError(f"{place(prefix)} holds itself")
    attributes: dict[str, Method] = {}
    namespaces: dict[str, MethodTable] = {}
    for name, value in service.items():
        try:
            check_name(name, f"a name in {place(prefix)}")
        except ValueError as problem:
            raise TypeError(str(problem)) from None
        is_service = isinstance(value, Mapping | type) or has_methods(type(value))
        if is_service or not callable(value):
            namespaces[name] = service_table(value, f"{prefix}{name}.", (*path, service))
        else:
            attributes[name] = function_method(prefix + name, value)
    if not attributes and not namespaces:
        raise TypeError(f"{place(prefix)} is an empty mapping: it has nothing to serve")
    return MethodTable(f"the mapping {prefix}".rstrip(" ."), attributes, namespaces)


def function_method(name: str, function: Callable[..., Any]) -> Method:
    """A method of a function in a mapping: being in it exposes it, a mark is not needed."""
    mark = mark_of(function)
    options = RpcOptions() if mark is None else mark.options
    written = raw(function)
    sources = [Source(written, takes_self=isinstance(function, types.MethodType))]
    if isinstance(function, types.MethodType):
        owner = function.__self__
        # A bound method of a service may be an override that leaves things to its contract.
        definitions = definitions_of(owner if isinstance(owner, type) else type(owner))
        inherited = (each.source() for each in definitions.get(written.__name__, ()))
        sources += [each for each in inherited if each and each.function is not written]
    signature = read_signature(name, sources, {})
    return make_method(name, signature, options, label=name, function=unwrapped(function))


def contract_table(contract: Any, prefix: str, path: tuple[type, ...]) -> MethodTable:
    """The table of one contract and of the namespaces that its annotations name."""
    cls = get_origin(contract) or contract
    if not isinstance(cls, type):
        raise TypeError(f"a contract is a class, not {contract!r}")
    arguments = hints.type_arguments(contract)
    attributes = {
        name: read_method(name, definitions, cls, arguments, prefix)
        for name, definitions in definitions_of(cls).items()
    }
    namespaces = {}
    for name, annotation in attribute_annotations(cls, arguments).items():
        if isinstance(annotation, hints.UnresolvedName):
            raise TypeError(
                f"{cls.__name__}.{name}: its annotation cannot be evaluated ({annotation}), so "
                "whether it is a namespace cannot be known; import it at run time, or make the "
                "attribute private"
            )
        nested = hints.class_of(annotation)
        if nested is not None and nested not in (*path, cls) and has_methods(nested):
            alias = hints.without_none(annotation)
            namespaces[name] = contract_table(alias, f"{prefix}{name}.", (*path, cls))
    if not attributes and not namespaces:
        raise TypeError(f"{cls.__name__} has no @rpc method: did you forget to mark them?")
    return MethodTable(cls.__name__, attributes, namespaces)


def nested_services(service: object) -> dict[str, object]:
    """What is nested in a service: public attributes whose class has ``@rpc`` methods."""
    cls: Any = type(service)
    values: dict[str, object] = {}
    for owner in reversed(cls.__mro__):
        values.update(vars(owner))
    for owner in cls.__mro__:
        slots = vars(owner).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            values[slot] = getattr(service, slot, None)
    values.update(getattr(service, "__dict__", {}))
    annotated = annotated_services(cls)
    for name, nested in annotated.items():
        if name not in values:
            raise TypeError(
                f"{cls.__name__}.{name} is annotated as {nested.__name__}, whose methods would be "
                f"called {name}.…, but {service!r} has no such attribute"
            )
    return {
        name: value
        for name, value in values.items()
        if not name.startswith("_")
        # What is not declared is only nested for methods of its own, not for what it holds.
        and (has_own_methods(value) or (name in annotated and has_methods(type(value))))
    }


# A remote object gets a table each time that its context is entered (R20): what its class says is
# read once, as its methods are.


@functools.lru_cache(maxsize=1024)
def annotated_services(cls: type) -> dict[str, type]:
    """The public attributes that a class annotates as services, and with which classes."""
    found = {}
    for name, annotation in attribute_annotations(cls, {}).items():
        nested = hints.class_of(annotation)
        if nested is not None and has_methods(nested):
            found[name] = nested
    return found


def has_own_methods(value: object) -> bool:
    """Whether an object's class has ``@rpc`` methods, apart from its namespaces."""
    cls: Any = type(value)
    return is_marked(cls)


def place(prefix: str) -> str:
    """Where something is in a service, for messages."""
    return f"the service at {prefix[:-1]!r}" if prefix else "the service"
