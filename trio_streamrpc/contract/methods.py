"""The table of a service's methods: what can be called, by which name, and how.

Only what is marked with ``@rpc`` (or stands in a mapping by itself) is in the table. It is built
once; a call is a look-up of its dotted name. Nothing on the wire ever reaches ``getattr``.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, get_origin
from weakref import WeakKeyDictionary

from trio_streamrpc.contract import hints
from trio_streamrpc.contract.arguments import MethodCodec
from trio_streamrpc.contract.decorators import RpcOptions, check_name, is_context_manager, mark_of
from trio_streamrpc.contract.definitions import Definition, bound, definitions_of, raw, unwrapped
from trio_streamrpc.contract.signatures import (
    Kind,
    Parameter,
    Role,
    Signature,
    Source,
    TypeArguments,
    read_callback,
    read_property,
    read_signature,
)

if TYPE_CHECKING:
    from trio_streamrpc.contract.payloads import Payloads

__all__ = ["Kind", "Method", "MethodTable", "Parameter", "Role", "callback_method"]


#: What may be passed where no contract says anything.
ANY_ARGUMENTS: Final = (
    Parameter("args", kind=inspect.Parameter.VAR_POSITIONAL),
    Parameter("kwargs", kind=inspect.Parameter.VAR_KEYWORD),
)


@dataclass(frozen=True, eq=False)
class Method:
    """One method that can be called."""

    name: str
    """Its dotted name on the wire."""

    kind: Kind
    function: Callable[..., Any] | None
    """What runs, bound to its service; for a stream the function that gives the async iterator.
    None in a contract's table."""

    parameters: tuple[Parameter, ...]
    result_type: Any
    """The result's type; a stream's items', what a context yields, what a task's start gives."""

    options: RpcOptions = field(default_factory=RpcOptions)
    doc: str | None = None
    is_property: bool = False
    writable: bool = False
    label: str = ""
    """How messages call it: ``Market.price``."""

    yields_object: bool = False
    """Whether what a context yields has ``@rpc`` methods: a remote object (R20)."""

    needs_object: bool = False
    """Whether what it yields cannot be None instead."""

    _codecs: WeakKeyDictionary[Payloads, MethodCodec] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False
    )

    @classmethod
    def untyped(cls, name: str, kind: Kind = Kind.UNARY) -> Method:
        """A method that nothing is known of, for calls without a contract."""
        return cls(name, kind, None, ANY_ARGUMENTS, Any, label=name)

    @classmethod
    def of_callback(cls, parameter: Parameter, name: str) -> Method:
        """How a callback is called that this parameter takes (R20); messages call it ``name``.

        Raises :exc:`TypeError` for a callback that takes callbacks which cannot be awaited.
        """
        if parameter.role is not Role.CALLBACK or parameter.annotation is Any:
            return cls("", Kind.UNARY, None, ANY_ARGUMENTS, Any, label=name)
        parameters, result = read_callback(name, parameter.annotation)
        if parameters is None:
            parameters = ANY_ARGUMENTS
        return cls("", Kind.UNARY, None, parameters, result, label=name)

    def gives_object(self, value: object) -> bool:
        """Whether what a context or a task of it gives is an object, and no data."""
        if self.result_type is Any:
            return not isinstance(value, type) and has_methods(type(value))
        return self.yields_object

    def bind(self, function: Callable[..., Any]) -> Method:
        """The same method, run by that function; what was compiled for it is shared."""
        method = replace(self, function=function)
        object.__setattr__(method, "_codecs", self._codecs)
        return method

    def wire(self, payloads: Payloads) -> MethodCodec:
        """Its codec for these payloads, compiled at the first call.

        Raises :exc:`TypeError` for an annotation whose values nothing can encode.
        """
        codec = self._codecs.get(payloads)
        if codec is None:
            codec = MethodCodec(self, payloads)
            for each in codec.parameters:
                if each.role is Role.CALLBACK:
                    callback_method(codec, each).wire(payloads)
            self._codecs[payloads] = codec
        return codec


def callback_method(codec: MethodCodec, parameter: Parameter) -> Method:
    """How a callback is called that a parameter of that codec's method takes (R20)."""
    found = codec.callbacks.get(parameter.name)
    if found is None:
        name = f"{codec.label}(), {parameter.name!r}"
        found = codec.callbacks[parameter.name] = Method.of_callback(parameter, name)
    return found


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


def read_method(
    attribute: str,
    definitions: list[Definition],
    service: type,
    arguments: TypeArguments,
    prefix: str,
) -> Method:
    """A method from its definitions in the classes of a service or of a contract."""
    label = f"{service.__name__}.{attribute}"
    marks = [mark for each in definitions if (mark := mark_of(each.function)) is not None]
    options = marks[0].options
    for mark in marks[1:]:
        options = options.over(mark.options)
    name = options.name or attribute
    first = definitions[0].attribute
    if is_context_manager(first) and marks[0].exposed is not first and mark_of(first):
        raise TypeError(
            f"{label}(): @rpc stands above @asynccontextmanager: write @rpc first, then "
            "@asynccontextmanager"
        )
    try:
        check_name(name, "the name of an @rpc method")
    except ValueError as problem:
        raise TypeError(f"{label}: {problem}; give it another with @rpc(name=…)") from None
    if not isinstance(first, property | staticmethod | classmethod) and not callable(first):
        raise TypeError(f"{label} is to be a method, and is {first!r}")
    sources = [source for each in definitions if (source := each.source()) is not None]
    is_property = isinstance(first, property)
    if is_property:
        setters = [] if first.fset is None else [Source(first.fset, service, takes_self=True)]
        signature = read_property(label, sources, setters, arguments)
    else:
        signature = read_signature(label, sources, arguments)
    return make_method(
        prefix + name,
        signature,
        options,
        label=label,
        function=None,
        is_property=is_property,
        writable=is_property and first.fset is not None,
    )


def make_method(
    name: str,
    signature: Signature,
    options: RpcOptions,
    *,
    label: str,
    function: Callable[..., Any] | None,
    is_property: bool = False,
    writable: bool = False,
) -> Method:
    """Put a method together, if its options fit its kind."""
    if options.oneway and signature.kind is not Kind.UNARY:
        raise TypeError(f"{label}() is a {signature.kind.value} method and cannot be oneway")  # R11
    if options.oneway and any(each.role is not Role.DATA for each in signature.parameters):
        raise TypeError(f"{label}() is oneway and can take neither streams nor callbacks")  # R11
    if options.window is not None and signature.kind is not Kind.SERVER_STREAM:
        raise TypeError(f"{label}() is no stream and cannot have a window")  # R18
    return Method(
        name=name,
        kind=signature.kind,
        function=function,
        parameters=signature.parameters,
        result_type=signature.result_type,
        options=options,
        doc=signature.doc,
        yields_object=yields_object(signature),
        needs_object=yields_object(signature) and not hints.is_optional(signature.result_type),
        is_property=is_property,
        writable=writable,
        label=label,
    )


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


@functools.lru_cache(maxsize=1024)
def is_marked(cls: type) -> bool:
    """Whether a class has ``@rpc`` methods, apart from its namespaces."""
    return bool(definitions_of(cls))


def has_own_methods(value: object) -> bool:
    """Whether an object's class has ``@rpc`` methods, apart from its namespaces."""
    cls: Any = type(value)
    return is_marked(cls)


def attribute_annotations(cls: type, arguments: TypeArguments) -> dict[str, Any]:
    """The annotations of a class's public attributes; an UnresolvedName where one fails."""
    found: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        module = vars(sys.modules[owner.__module__]) if owner.__module__ in sys.modules else {}
        for name, annotation in inspect.get_annotations(owner).items():
            if name.startswith("_"):
                continue
            try:
                evaluated = hints.evaluate_in(annotation, module, owner)
            except hints.UnresolvedName as problem:
                found[name] = problem
            else:
                found[name] = hints.substitute(evaluated, arguments.get(owner, {}))
    return found


def has_methods(cls: Any, path: tuple[type, ...] = ()) -> bool:
    """Whether a class has ``@rpc`` methods, or namespaces that have."""
    if is_marked(cls):
        return True
    nested = map(hints.class_of, attribute_annotations(cls, {}).values())
    return any(
        each is not None and each not in (*path, cls) and has_methods(each, (*path, cls))
        for each in nested
    )


def yields_object(signature: Signature) -> bool:
    """Whether what a method yields is used by calling it."""
    cls = hints.class_of(signature.result_type)
    return signature.kind in (Kind.CONTEXT, Kind.TASK) and cls is not None and has_methods(cls)


def place(prefix: str) -> str:
    """Where something is in a service, for messages."""
    return f"the service at {prefix[:-1]!r}" if prefix else "the service"
