"""What one method looks like: its kind, its parameters and its types, read from its annotations.

A method may be written down several times: by the class that runs, and by the contracts that it
inherits from. What the first of them leaves out, the next ones say.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from trio_streamrpc.contract import decorators, hints
from trio_streamrpc.contract.problems import shown

__all__ = [
    "Kind",
    "Parameter",
    "Role",
    "Signature",
    "Source",
    "TypeArguments",
    "read_callback",
    "read_property",
    "read_signature",
]

#: For each class what its type variables stand for.
TypeArguments = Mapping[type | None, Mapping[Any, Any]]

EMPTY: Final = inspect.Parameter.empty


class Kind(Enum):
    """How a method is called and what it gives."""

    UNARY = "unary"
    """One answer."""

    SERVER_STREAM = "server stream"
    """A stream of items from the callee."""

    CONTEXT = "context"
    """A remote context manager (R20)."""

    TASK = "task"
    """A remote task: it has a ``task_status: trio.TaskStatus[T]`` parameter (R20)."""


class Role(Enum):
    """What a parameter takes."""

    DATA = "data"
    """A value, which is encoded."""

    UPLOAD = "upload"
    """A stream from the caller (R19)."""

    CALLBACK = "callback"
    """An async function of the caller's (R19)."""

    TASK_STATUS = "task status"
    """Where a task says that it has started; the callee's runtime fills it in, no caller does."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method, as its callers see it."""

    name: str
    annotation: Any = Any
    kind: inspect._ParameterKind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    has_default: bool = False
    role: Role = Role.DATA

    optional: bool = False
    """Whether null may stand for it without a reference (R19)."""

    @property
    def item_type(self) -> Any:
        """The item type of an UPLOAD, the ``T`` of a TASK_STATUS; else the annotation."""
        if self.role is Role.UPLOAD:
            found = hints.stream_item(self.annotation)
        elif self.role is Role.TASK_STATUS:
            found = hints.task_item(self.annotation)
        else:
            found = None
        return self.annotation if found is None else found[0]

    @property
    def is_task_status(self) -> bool:
        """Whether no caller gives it: it is where a task says that it has started."""
        return self.role is Role.TASK_STATUS

    @property
    def is_variadic(self) -> bool:
        """Whether it is ``*args`` or ``**kwargs``."""
        return self.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Source:
    """One place where a method is written down."""

    function: Callable[..., Any]
    owner: type | None = None
    """The class whose body it stands in."""

    takes_self: bool = False
    """Whether its first parameter is filled in by binding."""

    def parameters(self) -> list[inspect.Parameter]:
        """Its parameters, without ``self``."""
        try:
            found = list(inspect.signature(self.function).parameters.values())
        except ValueError:  # a builtin that does not tell its signature
            found = [
                inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
            ]
        positional = (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        )
        if self.takes_self and found and found[0].kind in positional:
            del found[0]
        return found

    def return_annotation(self) -> Any:
        """Its return annotation as it was written, or EMPTY."""
        try:
            return inspect.signature(self.function).return_annotation
        except ValueError:
            return EMPTY


@dataclass(frozen=True, slots=True)
class Signature:
    """What the annotations of a method say."""

    kind: Kind
    parameters: tuple[Parameter, ...]
    result_type: Any
    doc: str | None


@dataclass(frozen=True, slots=True)
class Reader:
    """Evaluates the annotations of one method; ``label`` names it in errors."""

    label: str
    arguments: TypeArguments

    def type_of(self, what: str, annotation: Any, source: Source) -> Any:
        """An annotation with its names and its type variables put in."""
        try:
            evaluated = hints.evaluate(annotation, source.function, source.owner)
        except hints.UnresolvedName as problem:
            text = annotation if isinstance(annotation, str) else repr(annotation)
            raise TypeError(
                f"{self.label}(): the annotation {text!r} of {what} cannot be evaluated "
                f"({problem}); the names in it have to be there at run time, "
                "not only under TYPE_CHECKING"
            ) from problem
        return hints.substitute(evaluated, self.arguments.get(source.owner, {}))

    def kind_of(self, source: Source) -> tuple[Kind, Any, bool] | None:
        """Kind, type and whether the type was written down; None where the source is silent."""
        function, raw = source.function, source.return_annotation()
        if inspect.isgeneratorfunction(function):
            raise TypeError(
                f"{self.label}() yields and is not async: write 'async def', and AsyncIterator[…] "
                "for what it gives"
            )
        told = raw is not EMPTY
        result = self.type_of("its result", raw, source) if told else Any
        item = hints.stream_item(result) or hints.context_item(result) or (Any,)
        if decorators.is_context_manager(function):
            return Kind.CONTEXT, item[0], told
        if hints.context_item(result):
            if inspect.iscoroutinefunction(function):
                raise TypeError(
                    f"{self.label}() is async and returns a context manager, which would have to "
                    "be awaited and entered: write 'def', or @asynccontextmanager"
                )
            return Kind.CONTEXT, item[0], told
        if hints.stream_item(result):
            return Kind.SERVER_STREAM, item[0], told
        if inspect.isasyncgenfunction(function):
            if result is not Any:
                raise TypeError(
                    f"{self.label}() yields, but its result is annotated as {shown(result)}: "
                    f"write AsyncIterator[{shown(result)}]"
                )
            return Kind.SERVER_STREAM, Any, False
        return (Kind.UNARY, result, told) if told else None

    def parameter(
        self, parameter: inspect.Parameter, index: int, sources: Sequence[Source]
    ) -> Parameter:
        """One parameter of the first source, with the annotation of the first that has one."""
        raw, source = parameter.annotation, sources[0]
        for each in sources[1:]:
            if raw is not EMPTY:
                break
            raw, source = annotation_at(each, parameter, index), each
        what = f"parameter {parameter.name!r}"
        annotation = Any if raw is EMPTY else self.type_of(what, raw, source)
        return Parameter(
            name=parameter.name,
            annotation=annotation,
            kind=parameter.kind,
            has_default=parameter.default is not EMPTY,
            role=self.role_of(what, annotation),
            optional=hints.is_optional(annotation) or parameter.default is None,
        )

    def role_of(self, what: str, annotation: Any) -> Role:
        """What a parameter with this annotation takes."""
        if hints.stream_item(annotation):
            return Role.UPLOAD
        if hints.task_item(annotation):
            return Role.TASK_STATUS
        try:
            if not hints.is_callback(annotation):
                return Role.DATA
        except TypeError as problem:
            raise TypeError(f"{self.label}(): {what}: {problem}") from None
        # What a callback takes may be callbacks, which are told to be wrong as early as it is.
        for each in hints.callback_types(annotation)[0] or ():
            if self.role_of(what, each) is Role.TASK_STATUS:
                raise TypeError(f"{self.label}(): {what}: a callback cannot take a task status")
        return Role.CALLBACK


def read_signature(label: str, sources: Sequence[Source], arguments: TypeArguments) -> Signature:
    """Read a method from the places where it is written down, the one that runs first.

    ``arguments`` says what the type variables of each class stand for. Raises :exc:`TypeError`
    that begins with ``label`` for annotations that cannot be evaluated or do not fit one another.
    """
    reader = Reader(label, arguments)
    kind, result = read_kind(reader, sources)
    raw = sources[0].parameters()
    if len(sources) > 1 and takes_anything(raw):
        # A wrapper that passes everything on: what may be passed is what the contract says.
        return replace(read_signature(label, sources[1:], arguments), doc=first_doc(sources))
    parameters = tuple(reader.parameter(each, index, sources) for index, each in enumerate(raw))
    statuses = [each for each in parameters if each.role is Role.TASK_STATUS]
    if statuses:
        check_task(label, kind, parameters, statuses)
        kind, result = Kind.TASK, statuses[0].item_type
    return Signature(kind, parameters, result, first_doc(sources))


def read_callback(label: str, annotation: Any) -> tuple[tuple[Parameter, ...] | None, Any]:
    """The parameters of a ``Callable[…, Awaitable[…]]``, and its result; None for ``...``."""
    taken, result = hints.callback_types(annotation)
    if taken is None:
        return None, result
    reader = Reader(label, {})
    return tuple(
        Parameter(
            name=f"argument {number}",
            annotation=each,
            kind=inspect.Parameter.POSITIONAL_ONLY,
            role=reader.role_of(f"argument {number}", each),
            optional=hints.is_optional(each),
        )
        for number, each in enumerate(taken, 1)
    ), result


def read_property(
    label: str,
    getters: Sequence[Source],
    setters: Sequence[Source],
    arguments: TypeArguments,
) -> Signature:
    """Read a property: a unary method of no argument, or, to write it, of one."""
    reader = Reader(label, arguments)
    kind, result = read_kind(reader, getters)
    if kind is not Kind.UNARY:
        raise TypeError(f"{label} is a property and cannot be a {kind.value}")
    value = Parameter("value", result, inspect.Parameter.POSITIONAL_ONLY, has_default=True)
    if setters:
        written = [each for each in setters[0].parameters() if each.annotation is not EMPTY]
        if written and result is Any:
            result = reader.type_of("its value", written[0].annotation, setters[0])
            value = replace(value, annotation=result)
        # Writing answers null, whatever reading gives.
        result = Any if result is Any else result | None
    return Signature(kind, (value,) if setters else (), result, first_doc(getters))


def read_kind(reader: Reader, sources: Sequence[Source]) -> tuple[Kind, Any]:
    """The kind that all sources agree on, and the type from the first that has one."""
    said = [found for each in sources if (found := reader.kind_of(each)) is not None]
    if not said:
        return Kind.UNARY, Any
    kind = said[0][0]
    for other, _, _ in said:
        if other is not kind:
            raise TypeError(
                f"{reader.label}() is a {kind.value} method, and its contract says that it is a "
                f"{other.value} method"
            )
    return kind, next((result for _, result, told in said if told), Any)


def check_task(
    label: str, kind: Kind, parameters: Sequence[Parameter], statuses: Sequence[Parameter]
) -> None:
    """Raise unless the one task status can be passed by name without moving other arguments."""
    if kind is not Kind.UNARY:
        raise TypeError(f"{label}() cannot be a {kind.value} and have a task status")
    if len(statuses) > 1:
        raise TypeError(f"{label}() has two task statuses")
    status = statuses[0]
    following = parameters[parameters.index(status) + 1 :]
    if (
        status.kind is inspect.Parameter.POSITIONAL_ONLY
        or status.is_variadic
        or (
            status.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            and any(
                each.kind
                in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
                for each in following
            )
        )
    ):
        raise TypeError(
            f"{label}(): the task status {status.name!r} is passed by name: put it last, "
            "or behind a '*'"
        )


def annotation_at(source: Source, parameter: inspect.Parameter, index: int) -> Any:
    """The annotation of the same parameter elsewhere: by name, else by place."""
    parameters = source.parameters()
    for each in parameters:
        if each.name == parameter.name:
            return each.annotation
    if index < len(parameters) and parameters[index].kind == parameter.kind:
        return parameters[index].annotation
    return EMPTY


def takes_anything(parameters: Sequence[inspect.Parameter]) -> bool:
    """Whether it is ``(*args, **kwargs)`` without annotations."""
    return [(each.kind, each.annotation) for each in parameters] == [
        (inspect.Parameter.VAR_POSITIONAL, EMPTY),
        (inspect.Parameter.VAR_KEYWORD, EMPTY),
    ]


def first_doc(sources: Sequence[Source]) -> str | None:
    """The docstring of the first source that has one."""
    return next((doc for each in sources if (doc := inspect.getdoc(each.function))), None)
