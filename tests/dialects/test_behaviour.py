"""How calls, streams and callbacks behave, whichever wire they came by: the core's own promises."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trio_streamrpc import (
    Call,
    CleanupTimeout,
    Connection,
    ConnectionLost,
    InternalError,
    InvalidArgument,
    Limits,
    NotFound,
    Proceed,
    RemoteError,
    ResourceExhausted,
    RpcError,
    Unavailable,
    Unimplemented,
    Window,
    current_call,
    open_connection,
    rpc,
    with_options,
)
from trio_streamrpc.dialects import Dialect, kkrpc, kkrpc_classic, signal
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.testing import open_pair
from trio_streamrpc.transports.memory import open_memory_transports

ALL = pytest.mark.parametrize("dialect", [kkrpc, kkrpc_classic, signal], ids=repr)
BOTH = pytest.mark.parametrize("dialect", [kkrpc, kkrpc_classic], ids=repr)


class Settings:
    def __init__(self) -> None:
        self._theme = "light"

    @property
    @rpc
    def theme(self) -> str:
        return self._theme

    @theme.setter
    def theme(self, value: str) -> None:
        if value == "none":
            raise NotFound("no such theme")
        self._theme = value


class Service:
    settings: Settings

    def __init__(self) -> None:
        self.settings = Settings()
        self.produced = 0
        self.ended: list[str] = []
        self.running = trio.Event()

    @rpc
    async def echo(self, value: Any) -> Any:
        return value

    @rpc
    async def add(self, a: int, b: int) -> int:
        return a + b

    @rpc
    async def between(self, low: int, high: int = 9, step: int = 2) -> list[int]:
        return [low, high, step]

    @rpc
    async def only_by_name(self, *, value: int) -> int:
        return value

    @rpc
    async def numbers(self) -> AsyncIterator[int]:
        try:
            while True:
                self.produced += 1
                yield self.produced - 1
        finally:
            self.ended.append("numbers")

    @rpc
    async def lingering(self, seconds: float) -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)
            self.ended.append("lingering")

    @rpc
    async def fails_to_clean_up(self) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise NotFound("what was to be cleaned up")

    @rpc
    async def few(self, count: int) -> AsyncIterator[int]:
        for each in range(count):
            yield each
        raise NotFound("there are no more", data={"count": count})

    @rpc
    async def sleep(self) -> None:
        self.running.set()
        try:
            await trio.sleep_forever()
        finally:
            self.ended.append("sleep")

    @rpc
    async def first_of(self, items: AsyncIterable[int], count: int = 1) -> list[int]:
        found: list[int] = []
        async for each in items:
            found.append(each)
            if len(found) == count:
                break
        return found

    @rpc
    async def both(self, items: AsyncIterable[int]) -> AsyncIterator[int]:
        async for each in items:
            yield each * 2

    @rpc
    async def call_back(self, count: int, callback: Callable[[int], Awaitable[None]]) -> int:
        for each in range(count):
            await callback(each)
        return count

    @rpc
    @asynccontextmanager
    async def context(self) -> AsyncIterator[int]:
        yield 1

    @rpc
    async def task(self, *, task_status: trio.TaskStatus[int]) -> None:
        task_status.started(1)

    @rpc
    async def metadata(self) -> dict[str, Any]:
        return dict(current_call().metadata)

    @rpc
    async def secret(self) -> None:
        raise ValueError("the password is 1234")


@asynccontextmanager
async def opened(dialect: Dialect, **options: Any) -> AsyncIterator[tuple[Service, Connection]]:
    service = Service()
    with trio.fail_after(500):
        async with open_pair(service, dialect=dialect, **options) as connection:
            yield service, connection
            await wait_all_tasks_blocked()
            assert connection.statistics().calls_open == 0
            assert not connection.endpoint.exchanges


# --- calls


@ALL
async def test_calls_beside_each_other(dialect: Dialect, autojump_clock: MockClock) -> None:
    async with opened(dialect) as (_, connection):
        results: dict[int, Any] = {}

        async def ask(number: int) -> None:
            results[number] = await connection.call("echo", [number])

        async with trio.open_nursery() as nursery:
            for each in range(90):
                nursery.start_soon(ask, each)
        assert results == {each: [each] for each in range(90)}


@ALL
async def test_a_typed_proxy(dialect: Dialect, autojump_clock: MockClock) -> None:
    async with opened(dialect) as (_, connection):
        service = connection.proxy(Service)
        assert await service.add(1, 2) == 3
        async with service.few(3) as numbers:
            assert [await numbers.receive() for _ in range(3)] == [0, 1, 2]


@ALL
async def test_values_that_do_not_fit(dialect: Dialect, autojump_clock: MockClock) -> None:
    async with opened(dialect) as (_, connection):
        for given in ((1, "2"), (1,), (1, 2, 3), (1.5, 2)):
            with pytest.raises(InvalidArgument):
                await connection.call("add", *given)
        with pytest.raises(Unimplemented):
            await connection.call("nothing")
        with pytest.raises(Unimplemented):
            await connection.call("settings.__class__")
        with pytest.raises(InvalidArgument, match="context"):
            await connection.call("context")


@BOTH
async def test_what_is_given_by_name(dialect: Dialect, autojump_clock: MockClock) -> None:
    async with opened(dialect) as (_, connection):
        with pytest.raises(InvalidArgument, match="by position only"):
            await connection.call("add", 1, b=2)


@ALL
async def test_what_is_given_by_name_to_a_typed_proxy(
    dialect: Dialect, autojump_clock: MockClock
) -> None:
    """Its places are known, so that it travels by position where there are no names."""
    async with opened(dialect) as (_, connection):
        service = connection.proxy(Service)
        assert await service.add(a=1, b=2) == 3
        assert await service.add(1, b=2) == 3
        async with service.few(count=2) as numbers:
            assert await numbers.receive() == 0
        assert await service.between(1, high=3) == [1, 3, 2]
        if dialect is not signal:
            # A default of the other side's is nothing that this one could put into its place.
            with pytest.raises(InvalidArgument, match="by position only"):
                await service.between(1, step=5)
            with pytest.raises(InvalidArgument, match="by position only"):
                await service.only_by_name(value=1)
        with pytest.raises(TypeError, match="multiple values"):
            await service.add(1, 2, a=1)  # type: ignore[misc]
        with pytest.raises(TypeError, match="missing"):
            await service.add(b=1)  # type: ignore[call-arg]


@ALL
async def test_what_no_wire_carries(dialect: Dialect, autojump_clock: MockClock) -> None:
    """It is told here, before anything is said, and as what it is."""
    here, there = open_memory_transports(encoding="json")
    with trio.fail_after(10):
        async with open_connection(here, dialect=dialect) as connection:
            service = connection.proxy(Service)
            for context in (connection.context("context"), service.context()):
                with pytest.raises(InvalidArgument, match="no contexts and no tasks"):
                    async with context:
                        raise AssertionError
            async with trio.open_nursery() as nursery:
                with pytest.raises(InvalidArgument, match="no contexts and no tasks"):
                    await nursery.start(service.task)
            with pytest.raises(InvalidArgument, match="no pings"):
                await connection.ping()
            assert not connection.endpoint.exchanges
        with pytest.raises(ConnectionLost):
            await there.receive()


@ALL
async def test_properties(dialect: Dialect, autojump_clock: MockClock) -> None:
    async with opened(dialect) as (service, connection):
        assert await connection.get("settings.theme") == "light"
        await connection.set("settings.theme", "dark")
        assert service.settings.theme == "dark"
        with pytest.raises(NotFound):
            await connection.set("settings.theme", "none")
        with pytest.raises(InvalidArgument):
            await connection.set("settings.theme", 5)
        with pytest.raises(RpcError):
            await connection.get("add")
        with pytest.raises(RpcError):
            await connection.set("nothing", 5)


async def test_properties_natively(autojump_clock: MockClock) -> None:
    service = Service()
    async with open_pair(service) as connection:
        async with assert_checkpoints_async():
            assert await connection.get("settings.theme") == "light"
        async with assert_checkpoints_async():
            await connection.set("settings.theme", "dark")
        assert service.settings.theme == "dark"


@asynccontextmanager
async def assert_checkpoints_async() -> AsyncIterator[None]:
    with assert_checkpoints():
        yield


async def test_metadata(autojump_clock: MockClock) -> None:
    """kkrpc 2 has a place for it."""
    async with opened(kkrpc, metadata={"a": 1, "b": 2}) as (_, connection):
        assert await connection.call("metadata") == {"a": 1, "b": 2}
        service = with_options(connection.proxy(Service), metadata={"b": 3})
        assert await service.metadata() == {"a": 1, "b": 3}


@ALL
async def test_masked_errors(dialect: Dialect, autojump_clock: MockClock) -> None:
    async with opened(dialect, mask_errors=True) as (_, connection):
        with pytest.raises(InternalError) as caught:
            await connection.call("secret")
    assert "1234" not in str(caught.value)
    assert "ValueError" not in caught.value.name


@ALL
async def test_errors_with_a_code_and_data(dialect: Dialect, autojump_clock: MockClock) -> None:
    async def fail(data: Any) -> None:
        raise NotFound("it is not there", data=data)

    with trio.fail_after(10):
        async with open_pair({"fail": fail}, dialect=dialect) as connection:
            for data in (None, {"a": 1}, [1, 2], "x", {"data": 5}, {"data": 5, "more": 6}):
                with pytest.raises(NotFound) as caught:
                    await connection.call("fail", data)
                assert caught.value.message == "it is not there"
                assert caught.value.data == data


@ALL
async def test_interceptors(dialect: Dialect, autojump_clock: MockClock) -> None:
    seen: list[str] = []

    async def note(call: Call, proceed: Proceed) -> Any:
        seen.append(call.method)
        return await proceed(call)

    async with opened(dialect, interceptors=[note], client_interceptors=[note]) as (_, connection):
        assert await connection.call("add", 1, 2) == 3
        async with connection.stream("few", 1) as numbers:
            assert await numbers.receive() == 0
    assert seen == ["add", "add", "few", "few"]


@ALL
async def test_the_other_way(dialect: Dialect, autojump_clock: MockClock) -> None:
    """The side that serves calls the other one, on the same connection."""

    async def double(x: int) -> int:
        return 2 * x

    async def ask_back(x: int) -> int:
        result: int = await current_call().connection.call("double", x)
        return result

    service = {"ask_back": ask_back}
    with trio.fail_after(10):
        async with open_pair(service, dialect=dialect, serving={"double": double}) as connection:
            assert await connection.call("ask_back", 21) == 42


@ALL
async def test_a_cancelled_call(dialect: Dialect, autojump_clock: MockClock) -> None:
    """There is no word for it: the caller goes on at once, and its answer is ignored."""

    async def wait(seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    with trio.fail_after(100):
        async with open_pair({"wait": wait}, dialect=dialect) as connection:
            with trio.move_on_after(1) as scope:
                await connection.call("wait", 5)
            assert scope.cancelled_caught
            assert await connection.call("wait", 1) == 1
            assert connection.statistics().handlers_running == 0
            await trio.sleep(10)
            assert not connection.endpoint.exchanges


# --- streams


async def test_the_look_ahead(autojump_clock: MockClock) -> None:
    """kkrpc 2: nothing before the first pull, then 32, and 16 more for each 16 that are taken."""
    async with opened(kkrpc) as (service, connection):
        async with connection.stream("numbers") as stream:
            await wait_all_tasks_blocked()
            assert service.produced == 32
            for taken in range(1, 100):
                await stream.receive()
                await wait_all_tasks_blocked()
                assert service.produced == 32 + taken // 16 * 16
        assert service.ended == ["numbers"]


async def test_a_window_that_was_chosen(autojump_clock: MockClock) -> None:
    async with opened(kkrpc) as (service, connection):
        async with connection.stream("numbers", window=Window(4)) as stream:
            await wait_all_tasks_blocked()
            assert service.produced == 4
            for _ in range(2):
                await stream.receive()
            await wait_all_tasks_blocked()
            assert service.produced == 6


@ALL
async def test_items_come_before_the_error(dialect: Dialect, autojump_clock: MockClock) -> None:
    async with opened(dialect) as (_, connection):
        async with connection.stream("few", 100) as stream:
            assert [await stream.receive() for _ in range(100)] == list(range(100))
            for _ in range(2):
                with pytest.raises(RpcError, match="there are no more"):
                    await stream.receive()


@pytest.mark.parametrize("how", ["break", "error", "cancel", "drop"])
async def test_leaving(how: str, autojump_clock: MockClock) -> None:
    """kkrpc 2: a block that is left in peace, or with an error, waits for the remote finally."""
    async with opened(kkrpc) as (service, connection):
        with trio.CancelScope() as scope:
            if how == "drop":
                async for _ in connection.stream("lingering", 2):
                    break
            else:
                try:
                    async with connection.stream("lingering", 2) as stream:
                        assert await stream.receive() == 1
                        if how == "error":
                            raise ZeroDivisionError
                        if how == "cancel":
                            scope.cancel()
                            await trio.lowlevel.checkpoint()
                except ZeroDivisionError:
                    pass
        if how in ("break", "error"):
            assert service.ended == ["lingering"]
        else:
            assert service.ended == []
            await trio.sleep(3)
            assert service.ended == ["lingering"]
            await wait_all_tasks_blocked()


@BOTH
async def test_the_handler_ends_in_any_case(dialect: Dialect, autojump_clock: MockClock) -> None:
    async with opened(dialect) as (service, connection):
        async with connection.stream("numbers") as stream:
            await stream.receive()
        await wait_all_tasks_blocked()
        assert service.ended == ["numbers"]


async def test_cleanup_that_fails(autojump_clock: MockClock) -> None:
    async with opened(kkrpc) as (_, connection):
        async with connection.stream("fails_to_clean_up") as stream:
            await stream.receive()


async def test_cleanup_that_hangs(autojump_clock: MockClock) -> None:
    """R7a: its budget, then it is told; and the caller's own patience."""
    async with opened(kkrpc) as (service, connection):
        async with connection.stream("lingering", 7) as stream:
            await stream.receive()
        await trio.sleep(10)
        assert service.ended == ["lingering"]
        with pytest.raises(CleanupTimeout):
            async with open_slow_pair() as slow, slow.stream("lingering") as stream:
                await stream.receive()


@asynccontextmanager
async def open_slow_pair() -> AsyncIterator[Connection]:
    """A peer that acknowledges nothing."""
    here, there = open_memory_transports(encoding="json", capacity=100)

    async def answer() -> None:
        asked = json.loads(await there.receive())
        mark = {"__kkrpc_next_stream__": "async-iterable", "id": "s"}
        await there.send(json.dumps({"t": "r", "id": asked["id"], "v": mark}))
        await there.send(json.dumps({"t": "sr", "id": "1", "sid": "s", "d": False, "v": 1}))

    async with open_background_nursery() as nursery:
        nursery.start_soon(answer)
        async with open_connection(here, dialect=kkrpc) as connection:
            yield connection


@ALL
async def test_a_cut_stream_never_looks_complete(
    dialect: Dialect, autojump_clock: MockClock
) -> None:
    """R6: neither where the server goes, nor where the connection breaks."""
    here, there = open_memory_transports(encoding="json", capacity=100)
    leaving = trio.Event()
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                async with open_connection(there, "accepting", dialect=dialect, serving=Service()):
                    await leaving.wait()

            nursery.start_soon(serve)
            async with open_connection(here, dialect=dialect) as connection:
                async with connection.stream("lingering", 0) as stream:
                    await stream.receive()
                    leaving.set()
                    with pytest.raises((Unavailable, RemoteError, ConnectionLost)):
                        await stream.receive()


@ALL
async def test_drain(dialect: Dialect, autojump_clock: MockClock) -> None:
    """What runs goes on to its end, and what is new is refused."""

    async def count(stop: int) -> AsyncIterator[int]:
        for each in range(stop):
            await trio.sleep(1)
            yield each

    async def retire() -> None:
        connection = current_call().connection
        connection.nursery.start_soon(connection.drain)

    service = {"count": count, "retire": retire}
    with trio.fail_after(100):
        async with open_pair(service, dialect=dialect) as connection:
            async with connection.stream("count", 5) as stream:
                assert await stream.receive() == 0
                await connection.call("retire")
                with pytest.raises(Unavailable):
                    await connection.call("retire")
                assert [each async for each in stream] == [1, 2, 3, 4]


# --- uploads and callbacks


async def test_an_upload_that_is_left(autojump_clock: MockClock) -> None:
    """Its iterator has been closed when the call has returned, and was asked for a window only."""
    closed = trio.Event()
    given = 0

    async def items() -> AsyncIterator[int]:
        nonlocal given
        try:
            while True:
                yield given
                given += 1
        finally:
            closed.set()

    async with opened(kkrpc) as (_, connection):
        assert await connection.call("first_of", items(), 3) == [0, 1, 2]
        assert closed.is_set()
        assert given <= 32


async def test_an_upload_that_nobody_takes(autojump_clock: MockClock) -> None:
    """A call that is refused closes what came with it."""

    async def items() -> AsyncIterator[int]:
        yield 1
        await trio.sleep_forever()

    async with opened(kkrpc) as (_, connection):
        with pytest.raises(Unimplemented):
            await connection.call("nothing", items())
        with pytest.raises(InvalidArgument):
            await connection.call("add", items(), 1)
        assert await connection.call("add", 1, 2) == 3


async def test_streams_both_ways(autojump_clock: MockClock) -> None:
    async def items() -> AsyncIterator[int]:
        for each in range(100):
            yield each

    async with opened(kkrpc) as (_, connection):
        async with connection.stream("both", items()) as stream:
            assert [each async for each in stream] == [2 * each for each in range(100)]


@BOTH
async def test_callbacks_run_in_their_order(dialect: Dialect, autojump_clock: MockClock) -> None:
    """Nobody waits for one before the next is called: they run one after another all the same."""
    seen: list[int] = []
    running = 0

    async def callback(value: int) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await trio.sleep(0.01 if value % 2 else 0)
        seen.append(value)
        running -= 1

    async with opened(dialect) as (_, connection):
        assert await connection.call("call_back", 300, callback) == 300
        assert seen == list(range(300))


@BOTH
async def test_a_callback_that_fails(dialect: Dialect, autojump_clock: MockClock) -> None:
    """There is nobody to be told: it is logged, and hurts nobody."""
    seen: list[int] = []

    async def callback(value: int) -> None:
        seen.append(value)
        if value == 1:
            raise ValueError("not this one")

    async with opened(dialect) as (_, connection):
        assert await connection.call("call_back", 3, callback) == 3
        assert seen == [0, 1, 2]


@BOTH
async def test_a_callback_that_waits(dialect: Dialect, autojump_clock: MockClock) -> None:
    """The caller that is cancelled meanwhile is gone at once, and its callbacks with it."""
    started: list[int] = []

    async def callback(value: int) -> None:
        started.append(value)
        await trio.sleep_forever()

    async with opened(dialect) as (_, connection):
        with trio.move_on_after(1) as scope:
            await connection.call("call_back", 3, callback)
        assert scope.cancelled_caught
        assert started == [0]
        assert await connection.call("add", 1, 2) == 3


# --- limits


async def test_callbacks_beyond_what_may_wait(autojump_clock: MockClock) -> None:
    """A flood of them is dropped, with nothing else."""
    started = trio.Event()
    seen = 0

    async def callback(value: int) -> None:
        nonlocal seen
        started.set()
        if value == 0:
            await trio.sleep(10)
        seen += 1

    async with opened(kkrpc) as (_, connection):
        assert await connection.call("call_back", 5000, callback) == 5000
        assert seen == 4096
        assert await connection.call("add", 1, 2) == 3


@ALL
async def test_silence(dialect: Dialect, autojump_clock: MockClock) -> None:
    """These wires have no pings: where the transport has none either, nobody is given up."""
    limits = Limits(ping_interval=1, ping_timeout=1)
    async with opened(dialect, limits=limits) as (_, connection):
        await trio.sleep(300)
        assert await connection.call("add", 1, 2) == 3


@ALL
async def test_a_peer_that_does_not_read(dialect: Dialect, autojump_clock: MockClock) -> None:
    """It is given up when a message could not be written for so long."""
    here, _ = open_memory_transports(encoding="json", capacity=1)
    limits = Limits(ping_interval=1, ping_timeout=5)
    with trio.fail_after(100):
        async with open_connection(here, dialect=dialect, limits=limits) as connection:
            lost = 0

            async def ask() -> None:
                nonlocal lost
                with pytest.raises(ConnectionLost, match="could not be written"):
                    await connection.call("add", 1, 2)
                lost += 1

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(ask)
            assert lost == 3


async def test_streams_beyond_the_credit(autojump_clock: MockClock) -> None:
    """R16: a peer that sends more than was pulled loses that stream."""
    here, there = open_memory_transports(encoding="json", capacity=200)
    with trio.fail_after(100):
        async with open_connection(here, dialect=kkrpc) as connection:
            async with connection.stream("numbers") as stream:
                asked = json.loads(await there.receive())
                mark = {"__kkrpc_next_stream__": "async-iterable", "id": "s"}
                await there.send(json.dumps({"t": "r", "id": asked["id"], "v": mark}))
                pull = json.loads(await there.receive())
                assert (pull["op"], pull["n"]) == ("pull", 32)
                for each in range(33):
                    record = {"t": "sr", "id": "x", "sid": "s", "d": False, "v": each}
                    await there.send(json.dumps(record))
                control = json.loads(await there.receive())
                assert control["op"] == "throw"
                assert control["v"]["code"] == "FLOW_CONTROL"
                await there.send(
                    json.dumps({"t": "sr", "id": control["id"], "sid": "s", "d": True})
                )
                assert [await stream.receive() for _ in range(32)] == list(range(32))
                with pytest.raises(RpcError) as caught:
                    await stream.receive()
    assert caught.value.code == "FLOW_CONTROL"


async def test_uploads_beyond_what_is_taken(autojump_clock: MockClock) -> None:
    async def items() -> AsyncIterator[int]:
        await trio.sleep(1)
        yield 1

    async with opened(kkrpc, limits=Limits(max_uploads=2)) as (_, connection):
        refused = 0

        async def upload() -> None:
            nonlocal refused
            try:
                await connection.call("first_of", items())
            except ResourceExhausted:
                refused += 1

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(upload)
        assert refused == 2
