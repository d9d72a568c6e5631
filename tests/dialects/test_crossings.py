"""What crosses on its way, what is asked for as what it is not, and what each wire says besides."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.dialects.recorded import Recorded
from trio_streamrpc import (
    Connection,
    ConnectionLost,
    InvalidArgument,
    RemoteError,
    Unavailable,
    open_connection,
)
from trio_streamrpc.dialects import Dialect, kkrpc, kkrpc_classic, signal
from trio_streamrpc.testing import open_pair
from trio_streamrpc.transports.memory import MemoryTransport, open_memory_transports

STREAM = {"__kkrpc_next_stream__": "async-iterable", "id": "s"}


class Peer:
    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport

    async def says(self, **record: Any) -> None:
        await self.transport.send(json.dumps(record))

    async def hears(self) -> Any:
        return json.loads(await self.transport.receive())

    def hears_nothing(self) -> bool:
        try:
            self.transport._receiver.receive_nowait()
        except trio.WouldBlock:
            return True
        return False


@asynccontextmanager
async def against(
    dialect: Dialect, side: Any = "connecting", service: object = None
) -> AsyncIterator[tuple[Connection, Peer]]:
    here, there = open_memory_transports(encoding="json", capacity=100)
    with trio.fail_after(60):
        async with open_connection(here, side, dialect=dialect, serving=service) as connection:
            yield connection, Peer(there)
            await wait_all_tasks_blocked()
            assert not connection.endpoint.exchanges


# --- kkrpc 2


@pytest.mark.parametrize("error", [False, True])
async def test_left_before_it_is_known(error: bool, autojump_clock: MockClock) -> None:
    """A stream cannot be left before its id has come; it is left then, and waited for."""
    async with against(kkrpc) as (connection, peer):
        left = trio.Event()

        async def leave() -> None:
            try:
                async with connection.stream("ticks"):
                    await trio.sleep(1)
                    if error:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass
            left.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            asked = await peer.hears()
            await trio.sleep(2)
            assert peer.hears_nothing()
            await peer.says(t="r", id=asked["id"], v=STREAM)
            control = await peer.hears()
            assert (control["t"], control["sid"]) == ("sq", "s")
            assert control["op"] == ("throw" if error else "return")
            await wait_all_tasks_blocked()
            assert not left.is_set()
            await peer.says(t="sr", id=control["id"], sid="s", d=True)
            await left.wait()


async def test_left_and_then_refused(autojump_clock: MockClock) -> None:
    async with against(kkrpc) as (connection, peer):
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                async with connection.stream("ticks"):
                    await trio.sleep(1)

            nursery.start_soon(leave)
            asked = await peer.hears()
            await trio.sleep(2)
            await peer.says(t="r", id=asked["id"], e={"n": "Error", "m": "no"})


async def test_the_end_crosses_the_return(autojump_clock: MockClock) -> None:
    """The acknowledgement that comes after it is nothing, and costs nothing."""
    async with against(kkrpc) as (connection, peer):
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                async with connection.stream("countdown", 1) as stream:
                    await stream.receive()

            nursery.start_soon(leave)
            asked = await peer.hears()
            await peer.says(t="r", id=asked["id"], v=STREAM)
            await peer.hears()
            await peer.says(t="sr", id="x", sid="s", d=False, v=1)
            control = await peer.hears()
            await peer.says(t="sr", id="y", sid="s", d=True)
            await peer.says(t="sr", id=control["id"], sid="s", d=True)
        assert connection.endpoint.budget.left == connection.limits.violation_budget


@pytest.mark.parametrize("ends", [False, True])
async def test_an_acknowledgement_that_is_not_done(ends: bool, autojump_clock: MockClock) -> None:
    """A JavaScript generator may yield in its ``finally``: it is its id that tells the answer."""
    async with against(kkrpc) as (connection, peer):
        left = trio.Event()
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                async with connection.stream("ticks") as stream:
                    await stream.receive()
                left.set()

            nursery.start_soon(leave)
            asked = await peer.hears()
            await peer.says(t="r", id=asked["id"], v=STREAM)
            await peer.hears()
            await peer.says(t="sr", id="x", sid="s", d=False, v=1)
            control = await peer.hears()
            assert control["op"] == "return"
            # One that was under way is none.
            await peer.says(t="sr", id="y", sid="s", d=False, v=2)
            await wait_all_tasks_blocked()
            assert not left.is_set()
            await peer.says(t="sr", id=control["id"], sid="s", d=ends, v="in its finally")
            with trio.fail_after(1):
                await left.wait()


async def test_a_generator_that_catches_what_is_thrown(autojump_clock: MockClock) -> None:
    """It goes on, and is asked to end once more."""
    async with against(kkrpc) as (connection, peer):
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                with pytest.raises(ZeroDivisionError):
                    async with connection.stream("ticks") as stream:
                        await stream.receive()
                        raise ZeroDivisionError

            nursery.start_soon(leave)
            asked = await peer.hears()
            await peer.says(t="r", id=asked["id"], v=STREAM)
            await peer.hears()
            await peer.says(t="sr", id="x", sid="s", d=False, v=1)
            thrown = await peer.hears()
            assert thrown["op"] == "throw"
            await peer.says(t="sr", id=thrown["id"], sid="s", d=False, v="caught")
            with trio.fail_after(1):
                control = await peer.hears()
            assert control["op"] == "return"
            await peer.says(t="sr", id=control["id"], sid="s", d=False, v="in its finally")


@pytest.mark.parametrize(
    "again",
    [{"v": 5}, {"e": {"n": "Error", "m": "no"}}, {"v": {**STREAM, "id": "t"}}],
    ids=["value", "error", "stream"],
)
async def test_a_second_answer(again: dict[str, Any], autojump_clock: MockClock) -> None:
    """Who has been answered hears no more; of the stream that answered it nothing changes."""
    async with against(kkrpc) as (connection, peer):
        async with connection.stream("ticks") as stream:
            asked = await peer.hears()
            await peer.says(t="r", id=asked["id"], v=STREAM)
            await peer.hears()
            await peer.says(t="r", id=asked["id"], **again)
            await peer.says(t="sr", id="x", sid="s", d=False, v=1)
            await peer.says(t="sr", id="x", sid="s", d=True)
            assert [each async for each in stream] == [1]


async def test_the_return_crosses_the_end(autojump_clock: MockClock) -> None:
    """Who waits for an acknowledgement gets one."""
    async with against(kkrpc, "accepting", Recorded()) as (connection, peer):
        await peer.says(t="q", id="1", op="call", p=["countdown"], a=[0])
        sid = (await peer.hears())["v"]["id"]
        await peer.says(t="sq", id="2", sid=sid, op="pull", n=32)
        assert (await peer.hears())["v"] == 0
        assert (await peer.hears())["d"] is True
        await peer.says(t="sq", id="3", sid=sid, op="pull", n=16)
        await peer.says(t="sq", id="4", sid=sid, op="return")
        assert await peer.hears() == {"t": "sr", "id": "4", "sid": sid, "d": True}
        assert connection.endpoint.budget.left == connection.limits.violation_budget


async def test_asked_to_end_and_again(autojump_clock: MockClock) -> None:
    """Each is acknowledged, when the one end has come."""
    async with against(kkrpc, "accepting", Recorded()) as (_, peer):
        await peer.says(t="q", id="1", op="call", p=["ticks"], a=[])
        sid = (await peer.hears())["v"]["id"]
        for number in range(6):
            await peer.says(t="sq", id=f"r{number}", sid=sid, op="return")
        heard = [await peer.hears() for _ in range(4)]
        assert sorted(each["id"] for each in heard) == ["r0", "r1", "r2", "r3"]
        await wait_all_tasks_blocked()


async def test_more_credit_at_a_time(autojump_clock: MockClock) -> None:
    """However much is given back at once, it is asked for as kkrpc's own consumers do."""
    async with against(kkrpc) as (connection, peer):
        async with connection.stream("countdown", 100) as stream:
            asked = await peer.hears()
            await peer.says(t="r", id=asked["id"], v=STREAM)
            assert (await peer.hears())["n"] == 32
            for each in range(32):
                await peer.says(t="sr", id="x", sid="s", d=False, v=each)
            await wait_all_tasks_blocked()
            async for batch in stream.batches():
                assert batch == list(range(32))
                break
            assert [(await peer.hears())["n"] for _ in range(2)] == [16, 16]
            await peer.says(t="sr", id="x", sid="s", d=True)
            assert [each async for each in stream] == []


async def test_a_stream_id_that_is_taken(autojump_clock: MockClock) -> None:
    async with against(kkrpc, "accepting", Recorded()) as (_, peer):
        for number in ("1", "2"):
            await peer.says(t="q", id=number, op="call", p=["sum"], a=[STREAM])
        assert (await peer.hears())["op"] == "pull"
        await wait_all_tasks_blocked()
        assert peer.hears_nothing()
        await peer.says(t="sr", id="x", sid="s", d=False, v=5)
        await peer.says(t="sr", id="x", sid="s", d=True)
        assert await peer.hears() == {"t": "r", "id": "1", "v": 5}


async def test_a_callback_after_its_call(autojump_clock: MockClock) -> None:
    async with against(kkrpc) as (connection, peer):
        seen: list[Any] = []

        async def callback(value: Any) -> None:
            seen.append(value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.call, "progress", callback)
            asked = await peer.hears()
            [argument] = asked["a"]
            await peer.says(t="cb", id=argument["id"], a=[1])
            await peer.says(t="r", id=asked["id"], v=None)
        await peer.says(t="cb", id=argument["id"], a=[2])
        await peer.says(t="cbr", ids=[argument["id"]])
        await wait_all_tasks_blocked()
        assert seen == [1]


# --- what nobody waits for any more


def answer(dialect: Dialect, asked: Any, value: Any) -> dict[str, Any]:
    """How a peer answers a call."""
    if dialect is kkrpc:
        return {"t": "r", "id": asked["id"], "v": value}
    if dialect is signal:
        return {**asked, "category": "response", "responseId": 1, "data": value}
    return {**asked, "type": "response", "args": {"result": value}}


@pytest.mark.parametrize("dialect", [kkrpc, kkrpc_classic, signal], ids=repr)
async def test_calls_that_are_never_answered(dialect: Dialect, autojump_clock: MockClock) -> None:
    """There is no word for their end: nothing is kept of one that was cancelled, or left."""
    async with against(dialect) as (connection, peer):
        asked = None
        for _ in range(3):
            with trio.move_on_after(1):
                await connection.call("wait")
            asked = await peer.hears()
            await wait_all_tasks_blocked()
            assert not connection.endpoint.exchanges
            assert connection.statistics().calls_open == 0
        # What comes all the same is ignored, and costs nothing.
        await peer.says(**answer(dialect, asked, 5))
        await wait_all_tasks_blocked()
        assert connection.endpoint.budget.left == connection.limits.violation_budget
    assert trio.current_time() == 3


@pytest.mark.parametrize("dialect", [kkrpc, kkrpc_classic, signal], ids=repr)
async def test_closing_waits_for_no_answer(dialect: Dialect, autojump_clock: MockClock) -> None:
    """A call that runs cannot be ended from here, so the end of the connection ends it."""

    async def ask() -> None:
        with pytest.raises(ConnectionLost):
            await connection.call("wait")

    here, there = open_memory_transports(encoding="json")
    async with trio.open_nursery() as nursery:
        async with open_connection(here, dialect=dialect) as connection:
            nursery.start_soon(ask)
            await there.receive()
        assert trio.current_time() == 0


async def test_a_call_whose_upload_fails_is_waited_for(autojump_clock: MockClock) -> None:
    """Its handler hears of that, and so its answer is the end of it (R10)."""

    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ZeroDivisionError

    async with against(kkrpc) as (connection, peer):
        ended = trio.Event()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ZeroDivisionError):
                    await connection.call("sum", broken())
                ended.set()

            nursery.start_soon(ask)
            asked = await peer.hears()
            [argument] = asked["a"]
            await peer.says(t="sq", id="1", sid=argument["v"]["id"], op="pull", n=32)
            assert (await peer.hears())["v"] == 1
            assert "e" in await peer.hears()
            await trio.sleep(1)
            assert not ended.is_set()
            await peer.says(t="r", id=asked["id"], e={"n": "Error", "m": "no items"})


async def test_a_late_stream(autojump_clock: MockClock) -> None:
    """Whoever has begun one for a call that nobody waits for is told so."""
    async with against(kkrpc) as (connection, peer):
        with trio.move_on_after(1):
            await connection.call("ticks")
        asked = await peer.hears()
        await peer.says(t="r", id=asked["id"], v=STREAM)
        control = await peer.hears()
        assert (control["op"], control["sid"]) == ("return", "s")
        await peer.says(t="sr", id=control["id"], sid="s", d=True)
        await wait_all_tasks_blocked()
        assert connection.endpoint.budget.left == connection.limits.violation_budget


@pytest.mark.parametrize("streams", [False, True])
async def test_a_late_classic_stream(streams: bool, autojump_clock: MockClock) -> None:
    async with against(kkrpc_classic) as (connection, peer):
        with trio.move_on_after(1):
            if streams:
                async with connection.stream("ticks") as stream:
                    await stream.receive()
            else:
                await connection.call("ticks")
        asked = await peer.hears()
        await wait_all_tasks_blocked()
        assert not connection.endpoint.exchanges
        await peer.says(**{**asked, "type": "response", "args": {"result": {"__stream": True}}})
        assert (await peer.hears())["type"] == "stream-cancel"
        await peer.says(**{**asked, "type": "stream-chunk", "args": {"value": 1}})
        await wait_all_tasks_blocked()
        assert connection.endpoint.budget.left == connection.limits.violation_budget


@pytest.mark.parametrize("dialect", [kkrpc_classic, signal], ids=repr)
async def test_leaving_waits_for_no_answer(dialect: Dialect, autojump_clock: MockClock) -> None:
    """Where leaving a stream is not acknowledged, nothing is waited for before it has begun."""
    async with against(dialect) as (connection, peer):
        async with connection.stream("ticks"):
            await peer.hears()
        assert trio.current_time() == 0
        await wait_all_tasks_blocked()
        assert not connection.endpoint.exchanges


# --- kkrpc 0.x


async def test_classic_left_before_it_is_known(autojump_clock: MockClock) -> None:
    async with against(kkrpc_classic) as (connection, peer):
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                async with connection.stream("ticks"):
                    await trio.sleep(1)

            nursery.start_soon(leave)
            asked = await peer.hears()
            await trio.sleep(2)
            assert peer.hears_nothing()
            await peer.says(**{**asked, "type": "response", "args": {"result": {"__stream": True}}})
            assert (await peer.hears())["type"] == "stream-cancel"
        await peer.says(**{**asked, "type": "stream-chunk", "args": {"value": 1}})
        await peer.says(**{**asked, "type": "stream-end", "args": {}})
        await wait_all_tasks_blocked()
        assert connection.endpoint.budget.left == connection.limits.violation_budget


async def test_classic_left_as_it_ends(autojump_clock: MockClock) -> None:
    """There is no credit: a short stream has mostly ended when its consumer says that it leaves."""
    async with against(kkrpc_classic, "accepting", Recorded()) as (connection, peer):
        for number in range(3):
            request = {"id": str(number), "type": "request", "method": "countdown", "args": [0]}
            await peer.says(**request)
            heard = [(await peer.hears())["type"] for _ in range(3)]
            assert heard == ["response", "stream-chunk", "stream-end"]
            await peer.says(id=str(number), type="stream-cancel", method="", args={})
        await wait_all_tasks_blocked()
        assert connection.endpoint.budget.left == connection.limits.violation_budget


@pytest.mark.parametrize(
    "again", [{"result": 5}, {"error": "no"}, {"result": {"__stream": True}}], ids=repr
)
async def test_classic_second_answer(again: Any, autojump_clock: MockClock) -> None:
    async with against(kkrpc_classic) as (connection, peer):
        async with connection.stream("ticks") as stream:
            asked = await peer.hears()
            for args in ({"result": {"__stream": True}}, again):
                await peer.says(**{**asked, "type": "response", "args": args})
            await peer.says(**{**asked, "type": "stream-chunk", "args": {"value": 1}})
            await peer.says(**{**asked, "type": "stream-end", "args": {}})
            assert [each async for each in stream] == [1]


@pytest.mark.parametrize("dialect", [kkrpc, kkrpc_classic], ids=repr)
async def test_asked_for_as_what_it_is_not(dialect: Dialect, autojump_clock: MockClock) -> None:
    """It says how it is to be called; a stream that was begun for nothing is ended."""
    service = Recorded()
    with trio.fail_after(60):
        async with open_pair(service, dialect=dialect) as connection:
            with pytest.raises(InvalidArgument, match="gives a stream"):
                await connection.call("ticks")
            with pytest.raises(InvalidArgument, match="gives one result"):
                async with connection.stream("add", 1, 2) as stream:
                    await stream.receive()
            if dialect is kkrpc_classic:
                await service.ticked.wait()
            await wait_all_tasks_blocked()
            assert connection.statistics().handlers_running == 0


async def test_destroyed(autojump_clock: MockClock) -> None:
    async with against(kkrpc_classic) as (connection, peer):
        await peer.transport.send("__DESTROY__\n")
        await connection.wait_closed()
        with pytest.raises(Unavailable, match="destroyed"):
            connection.check_open()


class Bytes:
    @staticmethod
    async def give(size: int) -> bytes:
        return bytes(range(size))

    @staticmethod
    async def length(data: bytes) -> int:
        return len(data)

    @staticmethod
    async def several(count: int) -> AsyncIterator[dict[str, bytes | None]]:
        for each in range(count):
            yield {"data": bytes(each), "nothing": None}


async def test_bytes(autojump_clock: MockClock) -> None:
    """In the json version, as kkrpc has them; they are base64 for whoever knows no type."""
    service = {"give": Bytes.give, "length": Bytes.length, "several": Bytes.several}
    async with against(kkrpc_classic, "accepting", service) as (_, peer):
        request = {"type": "request", "method": "give", "version": "json"}
        await peer.says(id="1", args=[3], **request)
        array = {"type": "Uint8Array", "data": [0, 1, 2]}
        assert (await peer.hears())["args"] == {"result": array}
        await peer.says(id="2", args=[array], **{**request, "method": "length"})
        assert (await peer.hears())["args"] == {"result": 3}
        wrong = {"type": "Uint8Array", "data": [1000]}
        await peer.says(id="3", args=[wrong], **{**request, "method": "length"})
        assert (await peer.hears())["args"]["error"]["code"] == "INVALID_ARGUMENT"
        await peer.says(id="4", args=[2], **{**request, "method": "several"})
        assert (await peer.hears())["args"] == {"result": {"__stream": True}}
        for data in ([], [0]):
            value = {"data": {"type": "Uint8Array", "data": data}, "nothing": None}
            assert (await peer.hears())["args"] == {"value": value}
        assert (await peer.hears())["type"] == "stream-end"


@pytest.mark.parametrize("data", [10**9, 10**15, True, None, "abc", {"0": 1}, [256], [-1], ["x"]])
async def test_what_is_no_array_of_bytes(data: Any, autojump_clock: MockClock) -> None:
    """It stays what it is: a number, say, is no length of anything."""

    async def echo(value: Any) -> Any:
        return value

    async with against(kkrpc_classic, "accepting", {"echo": echo}) as (_, peer):
        array = {"type": "Uint8Array", "data": data}
        tracemalloc.start()
        try:
            await peer.says(id="1", type="request", method="echo", args=[array], version="json")
            assert (await peer.hears())["args"] == {"result": array}
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1_000_000


async def test_each_is_answered_in_its_version(autojump_clock: MockClock) -> None:
    async with against(kkrpc_classic, "accepting", Recorded()) as (_, peer):
        record = {"id": "1", "type": "request", "method": "add", "args": [1, 2]}
        await peer.says(**record)
        assert (await peer.hears())["version"] == "json"
        await peer.says(json=record, meta={"values": {}})
        assert (await peer.hears())["json"]["version"] == "superjson"
        await peer.says(**record)
        assert (await peer.hears())["version"] == "json"


async def test_construct(autojump_clock: MockClock) -> None:
    async with against(kkrpc_classic, "accepting", Recorded()) as (_, peer):
        await peer.says(id="1", type="construct", method="Thing", args=[])
        assert "'construct' is not served here" in (await peer.hears())["args"]["error"]
        await peer.says(id="2", type="set", path=["counter"], value=8)
        assert (await peer.hears())["args"]["error"] == "counter cannot be set"


@pytest.mark.parametrize("error", [5, None, [], {}, "words", {"name": 5, "message": None}])
async def test_errors_of_any_form(error: Any, autojump_clock: MockClock) -> None:
    async with against(kkrpc_classic) as (connection, peer):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(RemoteError) as caught:
                    await connection.call("fail")
                assert caught.value.name == "Error"
                assert caught.value.message == ("words" if error == "words" else "")

            nursery.start_soon(ask)
            asked = await peer.hears()
            await peer.says(**{**asked, "type": "response", "args": {"error": error}})
