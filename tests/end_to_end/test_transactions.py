"""A database transaction as a remote context: committed or rolled back, whatever becomes of it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from tests.end_to_end.network import SHORT, Relay, relaying, serving
from trio_streamrpc import (
    Connection,
    ConnectionLost,
    Limits,
    NotFound,
    RemoteError,
    Server,
    Unavailable,
    connect,
    rpc,
)

T = TypeVar("T")
ENCODINGS = pytest.mark.parametrize("encoding", ["msgpack", "json"])


class Overdrawn(Exception):
    """An account has less than was to be taken from it."""


class Transaction:
    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    async def _run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return await in_thread(lambda: self._database.execute(statement, values).fetchall())

    @rpc
    async def balance(self, account: str) -> int:
        [(amount,)] = await self._run("SELECT amount FROM accounts WHERE name = ?", account)
        return int(amount)

    @rpc
    async def credit(self, account: str, amount: int) -> int:
        await self._run("UPDATE accounts SET amount = amount + ? WHERE name = ?", amount, account)
        return await self.balance(account)

    @rpc(errors=(Overdrawn,))
    async def debit(self, account: str, amount: int) -> int:
        if await self.balance(account) < amount:
            raise Overdrawn(account)
        return await self.credit(account, -amount)

    @rpc
    async def statement(self) -> AsyncIterator[tuple[str, int]]:
        for name, amount in await self._run("SELECT name, amount FROM accounts ORDER BY name"):
            yield name, amount

    @rpc
    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[Transaction]:
        await self._run("SAVEPOINT inner")
        try:
            yield Transaction(self._database)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._run("ROLLBACK TO inner")
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self._run("RELEASE inner")


async def in_thread(function: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(function)


class Bank:
    """One database, and one transaction at a time: the next one waits for its turn."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._turn = trio.Lock()
        self.log: list[str] = []

    @rpc(errors=(Overdrawn,))
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with self._turn:
            await in_thread(lambda: self._database.execute("BEGIN"))
            try:
                yield Transaction(self._database)
            except BaseException:
                with trio.CancelScope(shield=True):
                    await in_thread(self._database.rollback)
                self.log.append("rolled back")
                raise
            else:
                with trio.CancelScope(shield=True):
                    await in_thread(self._database.commit)
                self.log.append("committed")


@pytest.fixture
def bank(tmp_path: Path) -> Any:
    database = sqlite3.connect(
        tmp_path / "bank.sqlite", isolation_level=None, check_same_thread=False
    )
    database.execute("CREATE TABLE accounts (name TEXT PRIMARY KEY, amount INTEGER)")
    database.execute("INSERT INTO accounts VALUES ('alice', 100), ('bob', 100)")
    yield Bank(database)
    database.close()


@asynccontextmanager
async def clients(bank: Bank, count: int = 1, **options: Any) -> AsyncIterator[list[Connection]]:
    async with serving(bank, limits=SHORT) as server:
        opened: list[Connection] = []
        async with trio.open_nursery() as nursery:

            async def open_one(task_status: trio.TaskStatus[None]) -> None:
                async with connect(server.url, **options) as connection:
                    opened.append(connection)
                    task_status.started()
                    await trio.sleep_forever()

            for _ in range(count):
                await nursery.start(open_one)
            yield opened
            nursery.cancel_scope.cancel()


async def amounts(connection: Connection) -> dict[str, int]:
    """What a transaction of its own sees."""
    async with connection.proxy(Bank).transaction() as transaction:
        return dict([each async for each in transaction.statement()])


@ENCODINGS
async def test_leaving_commits(bank: Bank, encoding: Any) -> None:
    with trio.fail_after(20):
        async with clients(bank, encoding=encoding) as [client]:
            async with client.proxy(Bank).transaction() as transaction:
                assert await transaction.debit("alice", 30) == 70
                assert await transaction.credit("bob", 30) == 130
            assert bank.log == ["committed"]
            assert await amounts(client) == {"alice": 70, "bob": 130}
            with pytest.raises(NotFound):
                await transaction.debit("alice", 30)


async def test_an_error_rolls_back(bank: Bank) -> None:
    """The caller's own, and one of the transaction's that it does not catch."""
    mine = ValueError("mine")
    with trio.fail_after(20):
        async with clients(bank) as [client]:
            with pytest.raises(ValueError, match="mine") as caught:
                async with client.proxy(Bank).transaction() as transaction:
                    await transaction.debit("alice", 30)
                    raise mine
            assert caught.value is mine
            with pytest.raises(Overdrawn) as overdrawn:
                async with client.proxy(Bank).transaction() as transaction:
                    await transaction.credit("bob", 1000)
                    await transaction.debit("alice", 1000)
            assert overdrawn.value.args == ("alice",)
            assert bank.log == ["rolled back"] * 2
            assert await amounts(client) == {"alice": 100, "bob": 100}


async def test_a_cancel_rolls_back(bank: Bank) -> None:
    with trio.fail_after(20):
        async with clients(bank) as [client]:
            with trio.CancelScope() as scope:
                async with client.proxy(Bank).transaction() as transaction:
                    await transaction.debit("alice", 30)
                    scope.cancel()
                    await transaction.credit("bob", 30)
            assert scope.cancelled_caught
            # The next one waits for its turn, so it begins when that has ended.
            assert await amounts(client) == {"alice": 100, "bob": 100}
            assert bank.log == ["rolled back", "committed"]


async def test_a_savepoint(bank: Bank) -> None:
    """A context of a context's object: its errors are its own."""
    with trio.fail_after(20):
        async with clients(bank) as [client]:
            async with client.proxy(Bank).transaction() as transaction:
                await transaction.debit("alice", 10)
                with pytest.raises(ValueError, match="mine"):
                    async with transaction.savepoint() as savepoint:
                        assert await savepoint.debit("alice", 20) == 70
                        raise ValueError("mine")
                async with transaction.savepoint() as savepoint:
                    assert await savepoint.credit("bob", 10) == 110
            assert await amounts(client) == {"alice": 90, "bob": 110}


async def test_without_a_contract(bank: Bank) -> None:
    with trio.fail_after(20):
        async with clients(bank) as [client]:
            async with client.context("transaction") as transaction:
                assert await transaction.debit("alice", 30) == 70
            with pytest.raises(RemoteError, match="Overdrawn: alice"):
                async with client.context("transaction") as transaction:
                    await transaction.debit("alice", 71)
            assert await amounts(client) == {"alice": 70, "bob": 100}


async def test_two_clients_at_once(bank: Bank) -> None:
    """Each sees what the one before it has left."""
    with trio.fail_after(30):
        async with clients(bank, 2) as both:
            failed: list[str] = []

            async def transfer(client: Connection, source: str, sink: str) -> None:
                for number in range(10):
                    try:
                        async with client.proxy(Bank).transaction() as transaction:
                            await transaction.debit(source, 15)
                            if number % 3 == 2:
                                raise ValueError
                            await transaction.credit(sink, 15)
                    except (Overdrawn, ValueError) as error:
                        failed.append(type(error).__name__)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(transfer, both[0], "alice", "bob")
                nursery.start_soon(transfer, both[1], "bob", "alice")
            found = await amounts(both[0])
            assert sum(found.values()) == 200
            assert bank.log.count("rolled back") == len(failed) >= 6
            assert await amounts(both[1]) == found


CLIENT = """
    import sys, trio
    from trio_streamrpc import connect

    async def main():
        async with connect(sys.argv[1]) as connection:
            async with connection.context("transaction") as transaction:
                print(await transaction.debit("alice", 30), flush=True)
                await trio.sleep_forever()

    trio.run(main)
"""


async def test_a_client_that_is_killed(bank: Bank) -> None:
    """SIGKILL: nobody says goodbye."""
    with trio.fail_after(30):
        async with clients(bank) as [client], serving(bank, limits=SHORT) as server:
            command = [sys.executable, "-c", textwrap.dedent(CLIENT), server.url]
            process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
            try:
                assert process.stdout is not None
                async with process.stdout:
                    assert (await process.stdout.receive_some()).startswith(b"70")
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
            assert await amounts(client) == {"alice": 100, "bob": 100}
            assert bank.log == ["rolled back", "committed"]


@pytest.mark.parametrize("silent", [False, True], ids=["cut", "silent"])
async def test_a_client_whose_connection_breaks(bank: Bank, silent: bool) -> None:
    """Its socket is cut, or no byte comes any more and nobody says so (R24)."""
    limits = Limits(ping_interval=0.2, ping_timeout=0.2, close_timeout=0.5, cleanup=1)
    cut = trio.Event()

    async def relay_to(url: str, task_status: trio.TaskStatus[Relay]) -> None:
        async with relaying(url) as relay:
            task_status.started(relay)
            await cut.wait()

    with trio.fail_after(30):
        async with (
            clients(bank) as [client],
            serving(bank, limits=limits) as server,
            trio.open_nursery() as nursery,
        ):
            relay = await nursery.start(relay_to, server.url)
            with pytest.raises(ConnectionLost):
                async with connect(relay.url, limits=limits) as broken:
                    async with broken.proxy(Bank).transaction() as transaction:
                        await transaction.debit("alice", 30)
                        if silent:
                            relay.close()
                        else:
                            cut.set()
                        while True:
                            await transaction.credit("bob", 30)
            assert await amounts(client) == {"alice": 100, "bob": 100}
            assert bank.log == ["rolled back", "committed"]
            cut.set()


async def test_a_server_that_stops(bank: Bank) -> None:
    """Its transactions are rolled back, and it has waited for that."""
    stop, stopped = trio.Event(), trio.Event()

    async def serve_until(task_status: trio.TaskStatus[Server]) -> None:
        async with serving(bank, limits=SHORT) as server:
            task_status.started(server)
            await stop.wait()
        stopped.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_until)
            async with connect(server.url) as connection:
                with pytest.raises(Unavailable):
                    async with connection.proxy(Bank).transaction() as transaction:
                        await transaction.debit("alice", 30)
                        stop.set()
                        await stopped.wait()
                        assert bank.log == ["rolled back"]
        async with clients(bank) as [client]:
            assert await amounts(client) == {"alice": 100, "bob": 100}
