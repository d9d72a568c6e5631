"""A plan as Python code: a test that fails as the plan has failed."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from trio_streamrpc.contract.signatures import Kind
from trio_streamrpc.testing.fuzzing.checking import LIMITS, PATIENCE
from trio_streamrpc.testing.fuzzing.failures import Failure, Fault
from trio_streamrpc.testing.fuzzing.plans import Plan
from trio_streamrpc.testing.fuzzing.running import Setting
from trio_streamrpc.testing.fuzzing.sources import Sources
from trio_streamrpc.testing.networks import Network
from trio_streamrpc.testing.strategies.calls import ServiceCall

__all__ = ["code_of"]


def code_of(setting: Setting, plan: Plan, failure: Failure) -> str:
    """A test to paste: its imports, and one async function for pytest-trio."""
    paste = _Paste(failure)
    body = [line for group in plan.groups for line in paste.group(group)]
    options = "".join(f", {each}" for each in [*paste.options(plan), *paste.settings(setting)])
    served = paste.sources.named(setting.service, "service")
    name = re.sub(r"\W+", "_", failure.method or "service")
    lines = [
        *(f"# {each} is to be what the fuzzer had." for each in paste.sources.nameless),
        f"async def test_{name}(autojump_clock):",
        f'    """{_sentence(failure)}"""',
        f"    async with {paste.use('check_service')}({served}{options}) as connection:",
        *_indented(body, 2),
    ]
    return "\n".join([*paste.imports(), "", "", *lines]) + "\n"


def _sentence(failure: Failure) -> str:
    text = ascii(str(failure))[1:-1].replace('"', "'").replace("\\", "/")
    return textwrap.shorten(text, 80, placeholder=" …")


def _indented(lines: Iterable[str], levels: int) -> list[str]:
    return [" " * 4 * levels + line for line in lines]


#: What the code may use beside the values of arguments, and where that is from.
HOMES = {
    "suppress": "contextlib",
    "InvalidArgument": "trio_streamrpc",
    "RpcError": "trio_streamrpc",
    "Left": "trio_streamrpc.testing",
    "Network": "trio_streamrpc.testing",
    "check_service": "trio_streamrpc.testing",
    "move_on_after_steps": "trio_streamrpc.testing",
    "open_task": "trio_streamrpc.testing",
    "take": "trio_streamrpc.testing",
}


class _Paste:
    """Writes the calls of one plan, and remembers what is imported for them."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        self.sources = Sources()

    def use(self, name: str) -> str:
        """A name that is imported: a module's, or one of those above."""
        if name in HOMES:
            self.sources.names[name] = HOMES[name]
        else:
            self.sources.modules.add(name)
        return name

    def imports(self) -> list[str]:
        return self.sources.imports()

    def options(self, plan: Plan) -> Iterable[str]:
        if plan.network != Network():
            yield f"network={self.network(plan.network)}"
        if plan.encoding != "msgpack":
            yield f"encoding={plan.encoding!r}"

    def settings(self, setting: Setting) -> Iterable[str]:
        if setting.limits != LIMITS:
            yield f"limits={self.sources.value(setting.limits)}"
        if setting.converter is not None:
            yield f"converter={self.sources.named(setting.converter, 'converter')}"
        if setting.patience != PATIENCE:
            yield f"patience={setting.patience!r}"

    def network(self, network: Network) -> str:
        default = Network()
        fields = ("latency", "jitter", "bandwidth", "cut", "stall")
        said = [
            f"{name}={value!r}"
            for name in fields
            if (value := getattr(network, name)) != getattr(default, name)
        ]
        return f"{self.use('Network')}({', '.join(said)})"

    def group(self, group: tuple[ServiceCall, ...]) -> list[str]:
        if len(group) == 1:
            return self.call(group[0])
        lines = [f"async with {self.use('trio')}.open_nursery() as nursery:"]
        for number, call in enumerate(group, 1):
            lines += [
                f"    async def call_{number}():",
                *_indented(self.call(call), 2),
                f"    nursery.start_soon(call_{number})",
            ]
        return lines

    def call(self, call: ServiceCall, target: str = "connection") -> list[str]:
        """One call, left as the plan says; what it raises itself is not what is looked for."""
        lines = self.in_full(call, target)
        if call.leave == "cancel" and call.steps is not None:
            scope = f"async with {self.use('move_on_after_steps')}({call.steps}):"
            lines = [scope, *_indented(lines, 1)]
        elif call.leave == "cancel":
            scope = f"with {self.use('trio')}.move_on_after({call.wait!r}):"
            lines = [scope, *_indented(lines, 1)]
        if call.wrong and self.failure.fault is Fault.UNCHECKED:
            expected = f"with {self.use('pytest')}.raises({self.use('InvalidArgument')}):"
            return [expected, *_indented(lines, 1)]
        raised = [self.use("RpcError"), *[self.use("Left") for _ in range(call.fails)]]
        return [f"with {self.use('suppress')}({', '.join(raised)}):", *_indented(lines, 1)]

    def in_full(self, call: ServiceCall, target: str) -> list[str]:
        named = (f"{name}={self.sources.value(value)}" for name, value in call.kwargs.items())
        own = [*map(self.sources.value, call.args), *named]
        if target != "connection":
            return [f"await {target}.{call.method}({', '.join(own)})"]
        arguments = ", ".join([repr(call.method), *own])
        if call.kind is Kind.UNARY:
            return [f"await connection.call({arguments})"]
        if call.kind is Kind.SERVER_STREAM:
            taken = [f"await {self.use('take')}(stream, {call.take})" for _ in range(call.take > 0)]
            opened = f"async with connection.stream({arguments}) as stream:"
            return [opened, *_indented([*taken, *self.stay(call)] or ["pass"], 1)]
        how = "connection.context("
        if call.kind is not Kind.CONTEXT:
            how = f"{self.use('open_task')}(connection, "
        inner = [line for each in call.inner for line in self.call(each, "given")]
        opened = f"async with {how}{arguments}){' as given' * (len(inner) > 0)}:"
        return [opened, *_indented([*inner, *self.stay(call)] or ["pass"], 1)]

    def stay(self, call: ServiceCall) -> list[str]:
        if call.leave == "cancel":
            return [f"await {self.use('trio')}.sleep_forever()"]
        waits = [f"await {self.use('trio')}.sleep({call.wait!r})" for _ in range(call.wait > 0)]
        return waits + [f"raise {self.use('Left')}" for _ in range(call.leave == "fail")]
