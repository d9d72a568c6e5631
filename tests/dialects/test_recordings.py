"""Every recording is played in both roles: what is said is what was said, but for ids."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.dialects.recorded import Error, Recorded, conversation, names
from tests.dialects.replay import by_stream, numbered, play
from trio_streamrpc import Connection, RpcError, open_connection
from trio_streamrpc.dialects import Dialect, kkrpc, kkrpc_classic
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.transports.memory import open_memory_transports

SYSTEMS: dict[str, Dialect] = {
    "kkrpc-2.1": kkrpc,
    "kkrpc-0.7-json": kkrpc_classic,
    "kkrpc-0.7-superjson": kkrpc_classic(version="superjson"),
}
#: Values that are no plain JSON are tested by themselves, in test_superjson.py.
CONVERSATIONS = [
    (system, name) for system in SYSTEMS for name in names(system) if name != "rich_values"
]
each_conversation = pytest.mark.parametrize(("system", "name"), CONVERSATIONS)


@each_conversation
async def test_as_the_server(system: str, name: str, autojump_clock: trio.abc.Clock) -> None:
    recorded = conversation(system, name)
    dark = recorded["outcome"].get("value") == [7, "dark"]
    here, there = open_memory_transports(encoding="json", capacity=1000)
    service = Recorded("dark" if dark else "light")
    with trio.fail_after(10):
        async with open_connection(
            here, "accepting", dialect=SYSTEMS[system], serving=service
        ) as connection:
            said: list[dict[str, Any]] = []
            await play(recorded["messages"], "client", there, said)
            await trio.testing.wait_all_tasks_blocked()
            assert told(name, said) == told(name, recorded["messages"])
            assert connection.statistics().handlers_running == 0
            assert not connection.endpoint.exchanges


@each_conversation
async def test_as_the_client(system: str, name: str, autojump_clock: trio.abc.Clock) -> None:
    recorded = conversation(system, name)
    here, there = open_memory_transports(encoding="json", capacity=1000)
    said: list[dict[str, Any]] = []

    with trio.fail_after(10):
        async with open_background_nursery() as nursery:
            async with open_connection(here, dialect=SYSTEMS[system]) as connection:
                nursery.start_soon(play, recorded["messages"], "server", there, said)
                assert await outcome(PROGRAMS[name], connection) == recorded["outcome"]
                await trio.testing.wait_all_tasks_blocked()
                assert told(name, said) == told(name, recorded["messages"])
                assert connection.statistics().calls_open == 0
                assert not connection.endpoint.exchanges


def told(name: str, messages: list[dict[str, Any]]) -> list[Any]:
    return by_stream(messages) if name == "two_streams" else numbered(messages)


async def outcome(
    program: Callable[[Connection], Awaitable[Any]], connection: Connection
) -> dict[str, Any]:
    try:
        return {"value": await program(connection)}
    except RpcError as error:
        return {
            "error": {"name": error.name, "message": error.message, **(error.data or {})},
        }
    except Error as error:
        return {"error": {"name": "Error", "message": f"Error: {error}"}}


async def collected(connection: Connection, method: str, *args: Any) -> list[Any]:
    async with connection.stream(method, *args) as stream:
        return [each async for each in stream]


async def unary(connection: Connection) -> Any:
    return await connection.call("add", 1, 2)


async def break_early(connection: Connection) -> Any:
    seen: list[Any] = []
    async with connection.stream("ticks") as stream:
        async for each in stream:
            seen.append(each)
            if len(seen) == 3:
                break
    return seen


async def callback(connection: Connection) -> Any:
    seen: list[Any] = []

    async def progress(value: float) -> None:
        seen.append(value)

    return [await connection.call("progress", progress), seen]


async def get(connection: Connection) -> Any:
    return [await connection.get("counter"), await connection.get("settings.theme")]


async def set_and_get(connection: Connection) -> Any:
    await connection.set("settings.theme", "dark")
    return await connection.get("settings.theme")


async def long_stream(connection: Connection) -> Any:
    return len(await collected(connection, "countdown", 99))


async def none_and_null(connection: Connection) -> Any:
    return [await connection.call("none"), await connection.call("nul")]


async def two_streams(connection: Connection) -> Any:
    results: dict[int, list[Any]] = {}

    async def collect(start: int) -> None:
        results[start] = await collected(connection, "countdown", start)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect, 5)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(collect, 3)
    return [results[5], results[3]]


async def upload(connection: Connection) -> Any:
    async def numbers() -> AsyncIterator[int]:
        for each in (1, 2, 3):
            yield each

    return await connection.call("sum", numbers())


async def upload_error(connection: Connection) -> Any:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        raise Error("client broke")

    return await connection.call("sum", numbers())


async def echo(connection: Connection) -> Any:
    value = {"s": "é😀", "n": 1.5, "b": True, "a": [1, [2]], "o": {"x": None}}
    return await connection.call("echo", value)


PROGRAMS: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "break_early": break_early,
    "callback": callback,
    "error": lambda connection: connection.call("fail"),
    "get": get,
    "long_stream": long_stream,
    "nested_stream": lambda connection: collected(connection, "data.stream", 3),
    "none_and_null": none_and_null,
    "set": set_and_get,
    "stream": lambda connection: collected(connection, "countdown", 5),
    "stream_error": lambda connection: collected(connection, "failing"),
    "two_streams": two_streams,
    "unary": unary,
    "unknown_method": lambda connection: connection.call("nothing"),
    "upload": upload,
    "upload_error": upload_error,
    "values": echo,
}
