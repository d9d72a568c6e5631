"""Calls of a service, as its annotations allow them, and what is done with what comes."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import cattrs
import trio
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from trio_streamrpc.contract import hints
from trio_streamrpc.contract.method import Method
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.signatures import Kind, Parameter, Role, read_callback
from trio_streamrpc.testing.strategies.values import edge_values, values, wrong_values

__all__ = ["Callback", "Left", "ServiceCall", "Upload", "service_calls"]

#: What a call ends with that is not left to come to its own end.
Leave = Literal["read", "leave", "fail", "cancel"]


class Left(Exception):
    """What fails on the side of who calls: a block that is left, an upload, a callback."""


class Upload:
    """An async iterable to pass as an argument: these items, and a pause before each.

    One that ``fails`` raises :exc:`Left` behind them.
    """

    def __init__(self, *items: Any, pause: float = 0.0, fails: bool = False) -> None:
        self.items = items
        self.pause = pause
        self.fails = fails

    def __repr__(self) -> str:
        return f"Upload({', '.join([*map(repr, self.items), *_more(self)])})"

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self.items:
            if self.pause:
                await trio.sleep(self.pause)
            yield item
        if self.fails:
            raise Left


class Callback:
    """An async function to pass as an argument: it answers this, after a pause.

    One that ``fails`` raises :exc:`Left` instead.
    """

    def __init__(self, answer: Any = None, *, pause: float = 0.0, fails: bool = False) -> None:
        self.answer = answer
        self.pause = pause
        self.fails = fails

    def __repr__(self) -> str:
        return f"Callback({', '.join([repr(self.answer), *_more(self)])})"

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        await trio.sleep(self.pause)
        if self.fails:
            raise Left
        return self.answer


def _more(passed: Upload | Callback) -> list[str]:
    pause = [f"pause={passed.pause}"] * (passed.pause != 0)
    return pause + ["fails=True"] * passed.fails


@dataclass(frozen=True)
class ServiceCall:
    """One call: what is called with what, and how long who calls stays."""

    method: str
    """The dotted name."""

    kind: Kind = Kind.UNARY
    """How it is called."""

    args: tuple[Any, ...] = ()
    """Its arguments by position: values, :class:`Upload` and :class:`Callback`."""

    kwargs: dict[str, Any] = field(default_factory=dict)
    """Its arguments by name."""

    take: int = 0
    """How many items of a stream are taken."""

    wait: float = 0.0
    """Seconds that pass before it is left, or, of a unary call, before it is cancelled."""

    steps: int | None = None
    """Instead of seconds, after how many steps of the scheduler who calls is cancelled."""

    leave: Leave = "read"
    """What is done then: ``read`` waits for the end (of a stream: reads all there is, up to
    ``take`` items); ``leave`` leaves the block in order, ``fail`` with an error; ``cancel``
    cancels who calls."""

    inner: tuple[ServiceCall, ...] = ()
    """Calls of the object that a context or a task gives, one after the other."""

    wrong: bool = False
    """Whether the arguments do not fit the method: ``INVALID_ARGUMENT`` is to be the answer."""

    @property
    def fails(self) -> bool:
        """Whether something on the side of who calls may fail, with :exc:`Left`."""
        passed = [*self.args, *self.kwargs.values()]
        some = any(isinstance(each, Upload | Callback) and each.fails for each in passed)
        return some or self.leave == "fail"


#: Seconds that a caller waits: none at all, and such that others coincide with them.
PAUSES: Final = st.sampled_from([0.0, 0.1, 1.0, 30.0])


#: Whether an upload or a callback fails: few do.
FAILS: Final = st.integers(0, 7).map(lambda each: each == 7)


#: How calls of each kind are left, the simplest first.
LEAVES: Final[dict[Kind, list[Leave]]] = {
    Kind.UNARY: ["read", "read", "cancel"],
    Kind.SERVER_STREAM: ["read", "read", "leave", "fail", "cancel"],
    Kind.CONTEXT: ["read", "leave", "fail", "cancel"],
    Kind.TASK: ["read", "cancel"],
}


def service_calls(
    contract: object,
    *,
    wrong: bool = True,
    converter: cattrs.Converter | None = None,
    methods: SearchStrategy[str] | None = None,
) -> SearchStrategy[ServiceCall]:
    """Calls of a service, or of a contract: the methods that it has, with arguments of their types.

    Most arguments lie anywhere in their types, some at the edges; where ``wrong``, some calls have
    one of another type, or one too many, and say so. ``methods`` chooses among the dotted names.
    ``converter`` is the one that the service is served with.

    Raises :exc:`TypeError` for what is no service.
    """
    if isinstance(contract, MethodTable):
        table = contract
    elif inspect.isclass(contract):
        table = MethodTable.of_contract(contract)
    else:
        table = MethodTable.of(contract)
    names = st.sampled_from(sorted(table)) if methods is None else methods
    calls = {name: _calls_of(table[name], wrong, converter) for name in table}
    return names.flatmap(calls.__getitem__)


def _calls_of(
    method: Method, wrong: bool, converter: cattrs.Converter | None
) -> SearchStrategy[ServiceCall]:
    # Made once, for what is made of types takes longer to make than to draw from.
    parameters = [each for each in method.parameters if each.role is not Role.TASK_STATUS]
    arguments = {each.name: argument(each, converter) for each in parameters}
    wrong_places = _wrong_places(parameters, converter) if wrong else st.none()
    inner = _calls_of_object(method, wrong, converter)
    return _calls(method, parameters, arguments, wrong_places, inner)


def _calls_of_object(
    method: Method, wrong: bool, converter: cattrs.Converter | None
) -> SearchStrategy[tuple[ServiceCall, ...]]:
    """Calls of what the method gives: of its methods with one answer, as Python can name them."""
    if not method.needs_object:
        return st.just(())
    table = MethodTable.of_contract(hints.without_none(method.result_type))
    calls = [
        _calls_of(each, wrong, converter)
        for name, each in table.items()
        if each.kind is Kind.UNARY
        and not each.is_property
        and all(part.isidentifier() for part in name.split("."))
    ]
    return st.lists(st.one_of(calls), max_size=3).map(tuple) if calls else st.just(())


@st.composite
def _calls(
    draw: DrawFn,
    method: Method,
    parameters: list[Parameter],
    arguments: dict[str, SearchStrategy[Any]],
    wrong_places: SearchStrategy[tuple[str | None, Any] | None],
    inner: SearchStrategy[tuple[ServiceCall, ...]],
) -> ServiceCall:
    out_of_place = draw(wrong_places) if draw(st.integers(0, 7)) == 7 else None
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    #: Whether one that has a default was left out: those behind it go by name.
    left_out = False
    for parameter in parameters:
        if out_of_place is not None and out_of_place[0] == parameter.name:
            _put(parameter, out_of_place[1], args, kwargs, by_name=False)
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            if not left_out:
                args += draw(st.lists(arguments[parameter.name], max_size=3))
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            names = st.sampled_from(["a_", "b_", "né"])
            kwargs |= draw(st.dictionaries(names, arguments[parameter.name], max_size=2))
        elif parameter.has_default and (
            (left_out and parameter.kind is inspect.Parameter.POSITIONAL_ONLY)
            or (out_of_place is None and draw(st.booleans()))
        ):
            left_out = True
        else:
            value = draw(arguments[parameter.name])
            _put(parameter, value, args, kwargs, by_name=left_out)
    if out_of_place is not None and out_of_place[0] is None:
        args += [None] * (sum(not each.is_variadic for each in parameters) + 1 - len(args))
    leave: Leave = "read"
    # Of a stream that is refused, somebody has to wait for the first item to hear of it.
    taken = 1
    if out_of_place is None:
        taken = draw(st.integers(0, 5))
        leave = draw(st.sampled_from(LEAVES[method.kind]))
    return ServiceCall(
        method.name,
        method.kind,
        tuple(args),
        kwargs,
        take=taken if method.kind is Kind.SERVER_STREAM else 0,
        wait=0.0 if leave == "read" else draw(PAUSES),
        steps=draw(st.none() | st.integers(0, 20)) if leave == "cancel" else None,
        leave=leave,
        inner=draw(inner) if out_of_place is None else (),
        wrong=out_of_place is not None,
    )


def _put(
    parameter: Parameter, value: Any, args: list[Any], kwargs: dict[str, Any], *, by_name: bool
) -> None:
    if by_name or parameter.kind is inspect.Parameter.KEYWORD_ONLY:
        kwargs[parameter.name] = value
    else:
        args.append(value)


def argument(parameter: Parameter, converter: cattrs.Converter | None) -> SearchStrategy[Any]:
    """What that parameter takes: a value, an upload, or a callback."""
    if parameter.role is Role.UPLOAD:
        items = st.lists(values(parameter.item_type, converter=converter), max_size=5)
        found: SearchStrategy[Any] = st.builds(
            lambda items, pause, fails: Upload(*items, pause=pause, fails=fails),
            items,
            PAUSES,
            FAILS,
        )
    elif parameter.role is Role.CALLBACK:
        _, result = read_callback(parameter.name, parameter.annotation)
        found = st.builds(Callback, values(result, converter=converter), fails=FAILS)
    else:
        hint = parameter.annotation
        anywhere = values(hint, converter=converter)
        return st.one_of(anywhere, anywhere, edge_values(hint, converter=converter))
    return st.none() | found if hints.is_optional(parameter.annotation) else found


def _wrong_places(
    parameters: list[Parameter], converter: cattrs.Converter | None
) -> SearchStrategy[tuple[str | None, Any] | None]:
    """A parameter and what it does not take; no parameter, for an argument too many."""
    found: list[SearchStrategy[Any]] = []
    for each in parameters:
        if each.role is Role.DATA and not each.is_variadic:
            wrong = wrong_values(each.annotation, converter=converter)
            if not wrong.is_empty:
                found.append(st.tuples(st.just(each.name), wrong))
    if not any(each.is_variadic for each in parameters):
        found.append(st.just((None, None)))
    return st.one_of(found) if found else st.none()
