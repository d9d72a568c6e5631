"""Oneway calls: the caller waits until they are written, and for no more (R11)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.runtime.ends import Cut, Ends, open_ends, quiet, sweep
from tests.runtime.peer import open_against
from trio_streamrpc import (
    ConnectionLost,
    Limits,
    NotFound,
    ResourceExhausted,
    Unavailable,
    current_call,
    rpc,
)
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.transports.base import Transport

BOTH = pytest.mark.parametrize("encoding", ["msgpack", "json"])


class Service:
    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.cancelled: list[object] = []
        self.deadlines: list[float] = []

    @rpc(oneway=True)
    async def note(self, value: object, seconds: float = 0) -> None:
        self.deadlines.append(current_call().deadline)
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.cancelled.append(value)
            raise
        self.notes.append(value)

    @rpc(oneway=True)
    async def fail(self, kind: str) -> None:
        if kind == "NotFound":
            raise NotFound("no such thing")
        raise ValueError("no such value")

    @rpc(oneway=True)
    async def typed(self, value: int) -> int:
        self.notes.append(value)
        return value

    @rpc
    async def waited(self) -> str:
        return "here"

    @rpc
    async def call_back(self) -> str:
        """It makes oneway calls of its own caller's side."""
        api = current_call().connection.proxy(Service)
        try:
            for number in range(3):
                await api.note(number, 1)
        except ResourceExhausted:
            return "no room"
        return "done"


class Lingering(Transport):
    """It delivers at once, and says so when it is let go."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.encoding = inner.encoding
        self.remote = inner.remote
        self.free = trio.Event()

    async def send(self, message: bytes | str) -> None:
        await self._inner.send(message)
        await self.free.wait()

    async def receive(self) -> bytes | str:
        return await self._inner.receive()

    async def aclose(self) -> None:
        await self._inner.aclose()


def linger(ends: Ends) -> Lingering:
    """What the client writes arrives before the client knows that it is written."""
    ends.up.inner = lingering = Lingering(ends.up.inner)
    return lingering


async def block_writer(ends: Ends) -> None:
    """Hold up the client's wire, with a message in it that is no call."""
    ends.up.hold()
    ends.client.endpoint.ping(ends.client.endpoint.codec.mark)
    ends.client.wake_writer()
    await quiet()


# --- the caller


@BOTH
async def test_it_returns_when_it_is_written(encoding: Any, autojump_clock: Any) -> None:
    service = Service()
    async with open_ends(service, encoding=encoding) as ends:
        start = trio.current_time()
        await ends.client.proxy(Service).note("a", 5)
        assert trio.current_time() == start
        assert len(ends.up.sent("call")) == 1
        assert service.notes == []
        await trio.sleep(6)
        assert service.notes == ["a"]
        assert [frame["type"] for frame in ends.down.sent("result", "error")] == ["result"]


async def test_it_does_not_return_before_it_is_written(autojump_clock: Any) -> None:
    """Neither while it waits for the writer, nor while the writer waits for the wire."""
    service = Service()
    returned: list[str] = []
    async with open_ends(service) as ends:

        async def call() -> None:
            await ends.client.proxy(Service).note("a")
            returned.append("a")

        ends.up.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(call)
            await trio.sleep(10)
            assert returned == []
            assert service.notes == []
            ends.up.let_go()
        assert returned == ["a", "a"]
        await quiet()
        assert service.notes == ["a", "a"]


async def test_it_carries_no_timeout(autojump_clock: Any) -> None:
    """R11: its caller's deadline is for writing it."""
    service = Service()
    async with open_ends(service) as ends:
        with trio.fail_after(2):
            await ends.client.proxy(Service).note("a", 5)
        [call] = ends.up.sent("call")
        assert call.keys() <= {"type", "id", "method", "args"}
        await trio.sleep(6)
        assert service.notes == ["a"]
        assert service.deadlines == [float("inf")]
        await block_writer(ends)
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(2):
                await ends.client.proxy(Service).note("b")
        ends.up.let_go()
        await quiet()
    assert service.notes == ["a"]


async def test_a_result_is_nobodys(autojump_clock: Any) -> None:
    service = Service()
    async with open_ends(service) as ends:
        assert await ends.client.proxy(Service).typed(5) is None
        await quiet()
        assert service.notes == [5]


async def test_called_without_a_contract_it_is_waited_for(autojump_clock: Any) -> None:
    """R11: it is the caller's choice."""
    service = Service()
    async with open_ends(service) as ends:
        await ends.client.call("note", "a", 5)
        assert service.notes == ["a"]


async def test_arguments_that_cannot_be_sent(autojump_clock: Any) -> None:
    """Nothing is sent, and the caller hears of it at once."""
    async with open_ends(Service(), limits=Limits(max_value_bytes=1_000_000)) as ends:
        api = ends.client.proxy(Service)
        with pytest.raises(TypeError, match="cannot be encoded"):
            await api.note(Service())
        with pytest.raises(TypeError, match="missing 1 required argument"):
            await api.note()  # type: ignore[call-arg]
        with pytest.raises(ResourceExhausted, match="the other side takes at most"):
            await api.note(bytes(2_000_000))
        assert ends.up.sent("call") == []


async def test_what_is_no_data_cannot_go_along(autojump_clock: Any) -> None:
    """R11: it carries no refs, whatever its parameters take."""

    async def callback() -> None: ...

    async def stream() -> AsyncIterator[int]:
        yield 1

    async with open_ends(Service()) as ends:
        api = ends.client.proxy(Service)
        for value in (callback, stream()):
            with pytest.raises(TypeError, match="is oneway and can take neither streams nor call"):
                await api.note(value)
        assert ends.up.sent("call") == []


def test_a_method_that_cannot_be_oneway() -> None:
    class Wrong:
        @rpc(oneway=True)
        async def f(self, callback: Callable[[], Awaitable[None]]) -> None: ...

    with pytest.raises(TypeError, match=r"Wrong\.f\(\) is oneway and can take neither"):
        MethodTable.of(Wrong())


# --- errors


async def test_errors_are_logged_where_they_happen(autojump_clock: Any, caplog: Any) -> None:
    """R11: nobody else hears of them, so that those are logged too that chose a code."""
    async with open_ends(Service()) as ends:
        api = ends.client.proxy(Service)
        await api.fail("ValueError")
        await api.fail("NotFound")
        await ends.client.call("waited")
        assert [frame["type"] for frame in ends.down.sent("error")] == ["error", "error"]
    found = sorted((record.levelno, record.getMessage()) for record in caplog.records)
    assert found == [
        (logging.WARNING, "fail, which is oneway, ended with NotFound: no such thing"),
        (logging.ERROR, "fail failed"),
    ]


async def test_what_the_other_side_refuses(autojump_clock: Any, caplog: Any) -> None:
    """The caller does not hear of it, and its place is free."""

    class Newer:
        @rpc(oneway=True)
        async def unknown(self) -> None: ...

        @rpc(oneway=True)
        async def typed(self, value: str) -> None: ...

    service = Service()
    async with open_ends(service, limits=Limits(max_calls=1)) as ends:
        api = ends.client.proxy(Newer)
        await api.unknown()
        await api.typed("no")
        assert await ends.client.call("waited") == "here"
        codes = [frame["error"]["code"] for frame in ends.down.sent("error")]
        assert codes == ["UNIMPLEMENTED", "INVALID_ARGUMENT"]
    assert service.notes == []
    [record] = caplog.records
    assert record.getMessage().startswith("typed, which is oneway, ended with InvalidArgument: ")


# --- its place


async def test_it_holds_its_place_until_its_final_frame(autojump_clock: Any) -> None:
    """R26: who calls next waits."""
    service = Service()
    async with open_ends(service, limits=Limits(max_calls=2)) as ends:
        api = ends.client.proxy(Service)
        start = trio.current_time()
        for number in range(6):
            await api.note(number, 2)
        assert trio.current_time() - start == 4
        assert ends.client.statistics().calls_open == 2
        assert await api.waited() == "here"
        assert trio.current_time() - start == 6
        assert sorted(service.notes) == list(range(6))


async def test_from_a_handler(autojump_clock: Any) -> None:
    """R26: it does not wait for the side that it serves."""
    here = Service()
    async with open_ends(Service(), serving=here, client_limits=Limits(max_calls=2)) as ends:
        assert await ends.client.call("call_back") == "no room"
        await trio.sleep(2)
        assert sorted(here.notes) == [0, 1]


async def test_the_answer_comes_before_it_is_known_to_be_written(autojump_clock: Any) -> None:
    """Its place is freed, and no other."""
    service = Service()
    async with open_ends(service) as ends:
        lingering = linger(ends)
        await ends.client.proxy(Service).note("a")
        await quiet()
        assert service.notes == ["a"]
        assert ends.client.statistics().calls_open == 0
        lingering.free.set()
        await quiet()
        ends.assert_clean()


# --- cancellation


async def test_cancelled_before_it_is_written(autojump_clock: Any) -> None:
    """R12: it is taken back, and nothing comes of it."""
    service = Service()
    async with open_ends(service) as ends:
        await block_writer(ends)
        with trio.move_on_after(1) as scope:
            await ends.client.proxy(Service).note("a")
        assert scope.cancelled_caught
        ends.assert_clean()
        ends.up.let_go()
        await quiet()
        assert ends.up.sent("call", "cancel") == []
    assert service.notes == []


async def test_cancelled_while_it_is_written(autojump_clock: Any) -> None:
    """It goes its way: there is no taking it back, and it is not cancelled."""
    service = Service()
    async with open_ends(service) as ends:
        ends.up.hold()
        with trio.move_on_after(1) as scope:
            await ends.client.proxy(Service).note("a", 1)
        assert scope.cancelled_caught
        ends.up.let_go()
        await trio.sleep(2)
        assert ends.up.sent("cancel") == []
    assert service.notes == ["a"]


async def test_cancelled_from_the_start(autojump_clock: Any) -> None:
    service = Service()
    async with open_ends(service) as ends:
        with trio.CancelScope() as scope:
            scope.cancel()
            await ends.client.proxy(Service).note("a")
        assert scope.cancelled_caught
        assert ends.up.sent("call") == []
    assert service.notes == []


async def test_a_sweep_over_a_oneway_call(autojump_clock: Any) -> None:
    """R11: at every step it is either run to its end, or never was."""
    service = Service()
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)

        async def attempt(cut: Cut) -> bool:
            before = len(service.notes), len(ends.up.sent("call"))
            done = False
            with cut.arm():
                await api.note("a")
                done = True
            await quiet()
            ends.assert_clean()
            ran = len(service.notes) - before[0]
            assert ran == len(ends.up.sent("call")) - before[1]
            assert ran or not done
            return done

        await sweep(attempt, at_least=2)
        assert service.cancelled == []
        assert ends.up.sent("cancel") == []


# --- the connection's end


@BOTH
async def test_leaving_the_connection_waits_for_it(encoding: Any, autojump_clock: Any) -> None:
    """R11: it runs to its end, however short the block is."""
    service = Service()
    start = trio.current_time()
    async with open_ends(service, encoding=encoding, clean=False) as ends:
        await ends.client.proxy(Service).note("a", 3)
    assert service.notes == ["a"]
    assert service.cancelled == []
    assert ends.up.sent("cancel") == []
    assert trio.current_time() - start == 3


async def test_leaving_the_connection_waits_no_longer_than_close_timeout(
    autojump_clock: Any,
) -> None:
    service = Service()
    start = trio.current_time()
    limits = Limits(close_timeout=2)
    async with open_ends(service, limits=limits, clean=False) as ends:
        await ends.client.proxy(Service).note("a", 30)
    assert service.notes == []
    assert service.cancelled == ["a"]
    assert trio.current_time() - start == 2


async def test_leaving_with_others_beside_it(autojump_clock: Any) -> None:
    """R11: what somebody waits for is cancelled, and it is not."""
    service = Service()
    async with open_ends(service, clean=False) as ends:

        async def wait() -> None:
            with pytest.raises(ConnectionLost, match="closed here"):
                await ends.client.call("note", "waited", 30)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await quiet()
            await ends.client.proxy(Service).note("a", 1)
            await ends.client.aclose()
    assert service.notes == ["a"]
    assert service.cancelled == ["waited"]


async def test_closing_while_it_is_not_yet_written(autojump_clock: Any) -> None:
    """It is written, and waited for."""
    service = Service()
    returned: list[str] = []
    async with open_ends(service, clean=False) as ends:
        await block_writer(ends)

        async def call() -> None:
            await ends.client.proxy(Service).note("a", 1)
            returned.append("a")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await quiet()
            nursery.start_soon(ends.client.aclose)
            await quiet()
            assert returned == []
            ends.up.let_go()
    assert returned == ["a"]
    assert service.notes == ["a"]


async def test_the_connection_is_lost_before_it_is_written(autojump_clock: Any) -> None:
    service = Service()
    async with open_ends(service, clean=False) as ends:
        await block_writer(ends)

        async def call() -> None:
            with pytest.raises(ConnectionLost):
                await ends.client.proxy(Service).note("a")

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
            await quiet()
            ends.client.lose(ConnectionLost("gone"))
        with pytest.raises(ConnectionLost):
            await ends.client.proxy(Service).note("b")
        assert ends.client.statistics().calls_open == 0
    assert service.notes == []


async def test_the_other_side_drains_before_it_is_written(autojump_clock: Any) -> None:
    """R27: it was not run, and is safe to send elsewhere."""
    service = Service()
    async with open_ends(service) as ends:
        await block_writer(ends)
        errors: list[Unavailable] = []

        async def call() -> None:
            with pytest.raises(Unavailable) as caught:
                await ends.client.proxy(Service).note("a")
            errors.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await quiet()
            await ends.server.drain()
        assert errors[0].retry
        ends.up.let_go()
        await quiet()
        ends.assert_clean()
    assert service.notes == []


async def test_one_that_runs_when_the_other_side_drains(autojump_clock: Any) -> None:
    """R27: it finishes, and the drain waits for it."""
    service = Service()
    async with open_ends(service) as ends:
        await ends.client.proxy(Service).note("a", 3)
        await quiet()
        await ends.server.drain()
        assert service.notes == ["a"]


# --- interceptors, and a peer


async def test_a_final_frame_of_any_kind(autojump_clock: Any) -> None:
    """R11: the call has one like any other, and the caller has gone long ago."""
    async with open_against() as (connection, peer):
        api = connection.proxy(Service)
        for answer in (
            {"type": "result", "value": {"whatever": 1}},
            {"type": "error", "error": {"code": "UNAVAILABLE"}, "retry": True},
            {"type": "error", "error": {"code": "DEADLINE_EXCEEDED"}},
        ):
            await api.note("a")
            call = await peer.hears("call")
            assert connection.statistics().calls_open == 1
            await peer.says({**answer, "id": call["id"]})
            await quiet()
            assert connection.statistics().calls_open == 0
