"""Interceptors over real sockets: on both sides at once, around every shape of call."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.end_to_end.network import serving
from trio_streamrpc import (
    Call,
    PermissionDenied,
    Proceed,
    ResourceExhausted,
    connect,
    current_call,
    rpc,
)
from trio_streamrpc.interceptors import limit_concurrency, limit_rate, log_calls

ENCODINGS = pytest.mark.parametrize("encoding", ["msgpack", "json"])


class Account:
    @rpc
    async def debit(self, amount: int) -> int:
        return amount


class Bank:
    def __init__(self) -> None:
        self.ended: list[str] = []

    @rpc
    async def user(self) -> str:
        return str(current_call().metadata["user"])

    @rpc
    async def ticks(self) -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            await trio.lowlevel.checkpoint()
            self.ended.append("ticks")

    @rpc
    async def chat(self, words: AsyncIterable[str]) -> AsyncIterator[str]:
        async for word in words:
            yield word.upper()

    @rpc
    async def build(self, report: Callable[[int], Awaitable[None]]) -> str:
        await report(50)
        return "built"

    @rpc
    @asynccontextmanager
    async def account(self, name: str) -> AsyncIterator[Account]:
        yield Account()
        self.ended.append(f"account {name}")

    @rpc
    async def watch(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started(5)


TOKENS = {"secret": "alice"}


async def authorize(call: Call, proceed: Proceed) -> Any:
    """On the side that serves: who is it?"""
    user = TOKENS.get(call.metadata.get("token", ""))
    if user is None:
        raise PermissionDenied(f"no token for {call.method}")
    if call.method == "account.debit" and call.arguments["amount"] > 100:
        raise PermissionDenied(f"{user} may not debit so much")
    return await proceed(call.replace(metadata={"user": user}))


async def with_token(call: Call, proceed: Proceed) -> Any:
    """On the side that calls: it is alice."""
    return await proceed(call.replace(metadata={**call.metadata, "token": "secret"}))


async def wrapping(call: Call, proceed: Proceed) -> Any:
    given = await proceed()
    if not isinstance(given, AsyncIterable):
        return given

    async def items() -> AsyncIterator[Any]:
        async for item in given:
            yield item

    return items()


async def words() -> AsyncIterator[str]:
    yield "a"
    yield "b"


@ENCODINGS
async def test_every_shape_of_call(encoding: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_streamrpc.calls")
    bank = Bank()
    theirs = [log_calls(), authorize, wrapping, limit_concurrency(2), limit_rate(1000, 1000)]
    ours = [wrapping, with_token, limit_concurrency(2)]
    async with serving(bank, interceptors=theirs) as server:
        async with connect(server.url, encoding=encoding, interceptors=ours) as connection:
            api = connection.proxy(Bank)
            assert await api.user() == "alice"
            async with api.ticks() as ticks:
                async for tick in ticks:
                    if tick == 200:
                        break
            assert bank.ended == ["ticks"]
            async with api.chat(words()) as chat:
                assert [word async for word in chat] == ["A", "B"]
            reports: list[int] = []

            async def report(done: int) -> None:
                reports.append(done)

            assert await api.build(report) == "built"
            assert reports == [50]
            async with api.account("alice") as account:
                assert await account.debit(100) == 100
                with pytest.raises(PermissionDenied, match="alice may not debit so much"):
                    await account.debit(101)
            assert bank.ended == ["ticks", "account alice"]
            async with trio.open_nursery() as nursery:
                assert await nursery.start(api.watch) == 5
    methods = [each.message.split()[0] for each in caplog.records]
    assert methods == [
        "user",
        "ticks",
        "chat",
        "build",
        "account.debit",
        "account.debit",
        "account",
        "watch",
    ]


@ENCODINGS
async def test_one_object_stands_around_the_calls_of_all_clients(encoding: Any) -> None:
    bank = Bank()
    limit = limit_concurrency({"ticks": 1}, refuse=True)
    async with serving(bank, interceptors=[limit]) as server:
        async with (
            connect(server.url, encoding=encoding) as one,
            connect(server.url, encoding=encoding) as another,
        ):
            async with one.stream("ticks") as ticks:
                assert await ticks.receive() == 0
                with pytest.raises(ResourceExhausted):
                    async with another.stream("ticks") as more:
                        await more.receive()
            async with another.stream("ticks") as more:
                assert await more.receive() == 0


async def test_nobody_gets_in_without_a_token() -> None:
    async with serving(Bank(), interceptors=[authorize]) as server:
        async with connect(server.url) as connection:
            with pytest.raises(PermissionDenied, match="no token for user"):
                await connection.call("user")
            with pytest.raises(PermissionDenied, match="no token for ticks"):
                async with connection.stream("ticks") as ticks:
                    await ticks.receive()
            with pytest.raises(PermissionDenied, match="no token for account"):
                async with connection.context("account", "alice"):
                    pass
        metadata = {"token": "secret"}
        async with connect(server.url, metadata=metadata) as connection:
            assert await connection.call("user") == "alice"
