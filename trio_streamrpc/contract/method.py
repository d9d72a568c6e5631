"""One method that can be called: what is known of it, and how that is read."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from trio_streamrpc.contract import hints
from trio_streamrpc.contract.arguments import MethodCodec
from trio_streamrpc.contract.decorators import RpcOptions, check_name, is_context_manager, mark_of
from trio_streamrpc.contract.definitions import Definition, definitions_of
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

__all__ = [
    "Method",
    "attribute_annotations",
    "callback_method",
    "has_methods",
    "is_marked",
    "make_method",
    "read_method",
]

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


@functools.lru_cache(maxsize=1024)
def is_marked(cls: type) -> bool:
    """Whether a class has ``@rpc`` methods, apart from its namespaces."""
    return bool(definitions_of(cls))


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
