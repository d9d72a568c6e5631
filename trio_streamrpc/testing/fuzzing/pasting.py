"""A plan as Python code: a test that fails as the plan has failed."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable

from trio_streamrpc.contract.signatures import Kind
from trio_streamrpc.testing.fuzzing.checking import ServiceMaker
from trio_streamrpc.testing.fuzzing.failures import Failure, Fault
from trio_streamrpc.testing.fuzzing.plans import Plan
from trio_streamrpc.testing.networks import Network
from trio_streamrpc.testing.strategies.calls import ServiceCall

__all__ = ["code_of"]


def code_of(service: ServiceMaker, plan: Plan, failure: Failure) -> str:
    """A test to paste: its imports, and one async function for pytest-trio."""
    body = [line for group in plan.groups for line in _group(group, failure)]
    options = "".join(f", {each}" for each in _options(plan))
    name = re.sub(r"\W+", "_", failure.method or "service")
    lines = [
        f"async def test_{name}(autojump_clock):",
        f'    """{_sentence(failure)}"""',
        f"    async with check_service({_name(service)}{options}) as connection:",
        *_indented(body, 2),
    ]
    text = "\n".join(lines)
    used = "\n".join([lines[0], *lines[2:]])
    return f"{_imports(service, used)}\n\n\n{text}\n"


def _sentence(failure: Failure) -> str:
    text = ascii(str(failure))[1:-1].replace('"', "'").replace("\\", "/")
    return textwrap.shorten(text, 80, placeholder=" …")


def _options(plan: Plan) -> Iterable[str]:
    if plan.network != Network():
        yield f"network={_network(plan.network)}"
    if plan.encoding != "msgpack":
        yield f"encoding={plan.encoding!r}"


def _network(network: Network) -> str:
    default = Network()
    fields = ("latency", "jitter", "bandwidth", "cut", "stall")
    said = [
        f"{name}={value!r}"
        for name in fields
        if (value := getattr(network, name)) != getattr(default, name)
    ]
    return f"Network({', '.join(said)})"


def _group(group: tuple[ServiceCall, ...], failure: Failure) -> list[str]:
    if len(group) == 1:
        return _call(group[0], failure)
    lines = ["async with trio.open_nursery() as nursery:"]
    for number, call in enumerate(group, 1):
        lines += [
            f"    async def call_{number}():",
            *_indented(_call(call, failure), 2),
            f"    nursery.start_soon(call_{number})",
        ]
    return lines


def _call(call: ServiceCall, failure: Failure) -> list[str]:
    """One call, left as the plan says; what it raises itself is not what is looked for."""
    lines = _in_full(call)
    if call.leave == "cancel" and call.steps is not None:
        lines = [f"async with move_on_after_steps({call.steps}):", *_indented(lines, 1)]
    elif call.leave == "cancel":
        lines = [f"with trio.move_on_after({call.wait!r}):", *_indented(lines, 1)]
    if call.wrong and failure.fault is Fault.UNCHECKED:
        return ["with pytest.raises(InvalidArgument):", *_indented(lines, 1)]
    raised = ["RpcError"] + ["Left"] * (call.leave == "fail")
    return [f"with suppress({', '.join(raised)}):", *_indented(lines, 1)]


def _in_full(call: ServiceCall) -> list[str]:
    arguments = ", ".join(
        [
            repr(call.method),
            *map(repr, call.args),
            *(f"{name}={value!r}" for name, value in call.kwargs.items()),
        ]
    )
    if call.kind is Kind.UNARY:
        return [f"await connection.call({arguments})"]
    if call.kind is Kind.SERVER_STREAM:
        taken = [f"await take(stream, {call.take})"] * (call.take > 0)
        opened = f"async with connection.stream({arguments}) as stream:"
        return [opened, *_indented([*taken, *_stay(call)] or ["pass"], 1)]
    how = "connection.context(" if call.kind is Kind.CONTEXT else "open_task(connection, "
    return [f"async with {how}{arguments}):", *_indented(_stay(call) or ["pass"], 1)]


def _stay(call: ServiceCall) -> list[str]:
    if call.leave == "cancel":
        return ["await trio.sleep_forever()"]
    waits = [f"await trio.sleep({call.wait!r})"] * (call.wait > 0)
    return waits + ["raise Left"] * (call.leave == "fail")


def _indented(lines: Iterable[str], levels: int) -> list[str]:
    return [" " * 4 * levels + line for line in lines]


def _name(service: ServiceMaker) -> str:
    if inspect.isclass(service) or inspect.isroutine(service):
        return service.__qualname__
    return f"{type(service).__qualname__}()"


#: What the code may use, and where that is from.
HOMES = {
    "suppress": "contextlib",
    "InvalidArgument": "trio_streamrpc",
    "RpcError": "trio_streamrpc",
    "Callback": "trio_streamrpc.testing",
    "Left": "trio_streamrpc.testing",
    "Network": "trio_streamrpc.testing",
    "Upload": "trio_streamrpc.testing",
    "check_service": "trio_streamrpc.testing",
    "move_on_after_steps": "trio_streamrpc.testing",
    "open_task": "trio_streamrpc.testing",
    "take": "trio_streamrpc.testing",
}
#: Modules whose names stand in the representations of values.
MODULES = ("datetime", "uuid", "decimal", "pytest", "trio")


def _imports(service: ServiceMaker, text: str) -> str:
    used = set(re.findall(r"[A-Za-z_]+", text))
    lines = [f"import {each}" for each in MODULES if f"{each}." in text]
    lines += [f"from {name.lower()} import {name}" for name in ("Decimal",) if name in used]
    lines += ["from uuid import UUID"] * ("UUID" in used)
    for home in ("contextlib", "trio_streamrpc", "trio_streamrpc.testing"):
        names = [name for name, where in HOMES.items() if where == home and name in used]
        lines += [f"from {home} import {', '.join(names)}"] * bool(names)
    owner = service if inspect.isclass(service) or inspect.isroutine(service) else type(service)
    outermost = owner.__qualname__.partition(".")[0]
    return "\n".join([*lines, f"from {owner.__module__} import {outermost}"])
