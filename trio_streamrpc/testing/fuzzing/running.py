"""One plan, carried out: what came of it, and what is held against the service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

import cattrs
import trio

from trio_streamrpc.contract.method import Method
from trio_streamrpc.contract.signatures import Kind
from trio_streamrpc.errors import Code, ConnectionLost, RpcError
from trio_streamrpc.limits import Limits
from trio_streamrpc.nurseries import open_companion_nursery
from trio_streamrpc.runtime.connection import Connection
from trio_streamrpc.runtime.options import NO_OPTIONS
from trio_streamrpc.runtime.proxies import proxy_maker
from trio_streamrpc.runtime.remote import RemoteMethod
from trio_streamrpc.runtime.streams import Stream
from trio_streamrpc.testing.fuzzing.checking import ServiceMaker, check_service
from trio_streamrpc.testing.fuzzing.failures import Failure, Fault, ServiceFalsified
from trio_streamrpc.testing.fuzzing.plans import Plan
from trio_streamrpc.testing.scheduling import run_repeatably
from trio_streamrpc.testing.strategies.calls import Left, ServiceCall

__all__ = ["Setting", "move_on_after_steps", "open_task", "run_plan", "take"]

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What is the same for all plans of a service."""

    service: ServiceMaker
    limits: Limits
    converter: cattrs.Converter | None
    patience: float


async def take(stream: Stream[T], count: int, *, patience: float = 60.0) -> list[T]:
    """The next items of a stream, at most so many.

    Fewer if it ends before, or if they have not come after so many seconds.
    """
    items: list[T] = []
    with trio.move_on_after(patience), suppress(trio.EndOfChannel):
        while len(items) < count:
            items.append(await stream.receive())
    return items


@asynccontextmanager
async def move_on_after_steps(count: int) -> AsyncIterator[trio.CancelScope]:
    """A scope that is cancelled after so many steps of the scheduler, wherever its block is."""

    async def cancel() -> None:
        for _ in range(count):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with open_companion_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel)
            yield scope


def run_plan(setting: Setting, plan: Plan) -> tuple[Failure, ...]:
    """What is held against the service when it is called like this."""
    try:
        run_repeatably(_carry_out, setting, plan, seed=0)
    except ServiceFalsified as error:
        return error.failures
    except ConnectionLost:
        pass  # cut while it was opened
    return ()


async def _carry_out(setting: Setting, plan: Plan) -> None:
    unchecked: list[Failure] = []
    async with check_service(
        setting.service,
        network=plan.network,
        encoding=plan.encoding,
        limits=setting.limits,
        converter=setting.converter,
        patience=setting.patience,
    ) as connection:
        for group in plan.groups:
            if len(group) == 1:
                # As it is pasted: in the task that has opened the connection.
                await _make(connection, group[0], unchecked)
                continue
            async with trio.open_nursery() as nursery:
                for call in group:
                    nursery.start_soon(_make, connection, call, unchecked)
    if unchecked:
        raise ServiceFalsified(unchecked)


async def _make(target: Any, call: ServiceCall, unchecked: list[Failure], within: str = "") -> None:
    """Make one call, and check how it ends; whatever else it does, the watch sees.

    ``target`` is the connection, or an object that the method ``within`` has given.
    """
    method = f"{within}.{call.method}".lstrip(".")
    try:
        value = await _perform(target, call, unchecked)
    except (ConnectionLost, Left):
        return
    except RpcError as error:
        # A group, or a cut, may have been quicker than the answer.
        if call.wrong and error.code not in (Code.INVALID_ARGUMENT, Code.UNAVAILABLE):
            told = f"{error.code} {error}"
            unchecked.append(Failure(Fault.UNCHECKED, method, told[:200]))
        return
    if call.wrong:
        unchecked.append(Failure(Fault.UNCHECKED, method, f"it gave {value!r}"[:200]))


async def _perform(target: Any, call: ServiceCall, unchecked: list[Failure]) -> Any:
    if call.leave != "cancel":
        return await _in_full(target, call, unchecked)
    if call.steps is not None:
        async with move_on_after_steps(call.steps):
            return await _in_full(target, call, unchecked)
    with trio.move_on_after(call.wait):
        return await _in_full(target, call, unchecked)
    return None


async def _in_full(target: Any, call: ServiceCall, unchecked: list[Failure]) -> Any:
    args, kwargs = call.args, call.kwargs
    if not isinstance(target, Connection):
        # An object: its calls have one answer.
        return await attrgetter(call.method)(target)(*args, **kwargs)
    if call.kind is Kind.UNARY:
        return await target.call(call.method, *args, **kwargs)
    if call.kind is Kind.SERVER_STREAM:
        async with target.stream(call.method, *args, **kwargs) as stream:
            items = await take(stream, call.take) if call.take else []
            await _stay(call)
            return items
    opened: AbstractAsyncContextManager[Any]
    if call.kind is Kind.TASK:
        opened = open_task(target, call.method, *args, **kwargs)
    else:
        opened = target.context(call.method, *args, **kwargs)
    async with opened as given:
        for each in call.inner:
            await _make(given, each, unchecked, call.method)
        await _stay(call)
    return None


async def _stay(call: ServiceCall) -> None:
    if call.leave == "cancel":
        await trio.sleep_forever()
    # No checkpoint more than what is pasted has.
    if call.wait:
        await trio.sleep(call.wait)
    if call.leave == "fail":
        raise Left


@asynccontextmanager
async def open_task(
    connection: Connection, name: str, /, *args: Any, **kwargs: Any
) -> AsyncIterator[Any]:
    """A remote task by its dotted name, without a contract: what it has told when it started.

    It is cancelled when the block ends.
    """
    method = Method.untyped(name, Kind.TASK)
    make_proxy = proxy_maker(connection, method, NO_OPTIONS)

    async def run(task_status: trio.TaskStatus[Any]) -> None:
        await RemoteMethod(connection.caller, method).task(args, kwargs, make_proxy, task_status)

    async with open_companion_nursery() as nursery:
        yield await nursery.start(run)
