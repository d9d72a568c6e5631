"""Whatever is called, the result is the same by every wire that can carry it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any

import trio
from hypothesis import assume, given
from hypothesis import strategies as st

from trio_streamrpc import Connection, NotFound, RpcError, rpc
from trio_streamrpc.dialects import Dialect, kkrpc, kkrpc_classic, signal
from trio_streamrpc.testing import open_pair

WIRES: list[Dialect | None] = [
    None,
    kkrpc,
    kkrpc_classic,
    kkrpc_classic(version="superjson"),
    signal,
]

# What is JSON for every side: integers that a double holds, no lone surrogates.
text = st.text(st.characters(codec="utf-8"), max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
    | st.sampled_from(
        ["__callback__x", "__DESTROY__", {"__stream": True, "x": 1}, {"type": "Uint8Array"}]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)


ERROR_FIELDS = {"code", "name", "message", "stack", "n", "m", "s"}


class Anything:
    @rpc
    async def echo(self, *args: Any) -> Any:
        return list(args)

    @rpc
    async def each(self, items: list[Any], error: str | None) -> AsyncIterator[Any]:
        for item in items:
            yield item
        if error is not None:
            raise NotFound(error)

    @rpc
    async def fail(self, message: str, data: Any) -> None:
        raise NotFound(message, data=data)

    @rpc
    async def gathered(self, items: AsyncIterable[Any]) -> list[Any]:
        return [each async for each in items]

    @rpc
    async def told(self, items: list[Any], tell: Callable[[Any], Awaitable[None]]) -> int:
        for each in items:
            await tell(each)
        return len(items)


def by_all(
    program: Callable[[Connection], Awaitable[Any]], wires: list[Dialect | None] = WIRES
) -> None:
    """The program ends as it does on this protocol's own wire."""

    async def main() -> None:
        results = []
        for wire in wires:
            async with open_pair(Anything(), dialect=wire, encoding="json") as connection:
                results.append(await program(connection))
        for wire, result in zip(wires, results, strict=True):
            assert result == results[0], wire

    trio.run(main)


@given(args=st.lists(values, max_size=3))
def test_calls(args: list[Any]) -> None:
    async def program(connection: Connection) -> Any:
        return await connection.call("echo", *args)

    by_all(program)


@given(items=st.lists(values, max_size=80), error=st.none() | text)
def test_streams(items: list[Any], error: str | None) -> None:
    async def program(connection: Connection) -> Any:
        seen = []
        try:
            async with connection.stream("each", items, error) as stream:
                async for item in stream:
                    seen.append(item)  # noqa: PERF401  # what came before the error counts
        except RpcError as failure:
            # Where the name stands in the message, it is known to.
            return seen, failure.message.removeprefix("NotFound: ")
        return seen, None

    by_all(program)


@given(message=text, data=values)
def test_errors(message: str, data: Any) -> None:
    # These have a meaning there.
    assume(not isinstance(data, dict) or not data.keys() & ERROR_FIELDS)

    async def program(connection: Connection) -> Any:
        try:
            return await connection.call("fail", message, data)
        except RpcError as failure:
            return failure.message, failure.code, failure.name, failure.data

    by_all(program)


@given(items=st.lists(values, max_size=80))
def test_uploads(items: list[Any]) -> None:
    async def given_out() -> AsyncIterator[Any]:
        for each in items:
            yield each

    async def program(connection: Connection) -> Any:
        return await connection.call("gathered", given_out())

    by_all(program, [None, kkrpc])


@given(items=st.lists(values, max_size=20))
def test_callbacks(items: list[Any]) -> None:
    async def program(connection: Connection) -> Any:
        seen = []

        async def tell(item: Any) -> None:
            seen.append(item)

        return await connection.call("told", items, tell), seen

    by_all(program, [None, kkrpc, kkrpc_classic, kkrpc_classic(version="superjson")])
