"""connection.py: the reader, the writer, keepalive, and every way in which it ends."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.protocol.wire import BOTH, message, read
from tests.runtime.ends import quiet
from tests.runtime.peer import HELLO, Peer, open_against
from tests.service import Service
from trio_streamrpc import (
    ConnectionLost,
    FlowControlError,
    InternalError,
    Limits,
    LocalProtocolError,
    PermissionDenied,
    RemoteError,
    RemoteProtocolError,
    RpcError,
    Stream,
    Unavailable,
    Window,
    open_connection,
)
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.runtime.connection import Connection
from trio_streamrpc.testing import open_pair
from trio_streamrpc.transports.base import Transport
from trio_streamrpc.transports.memory import MemoryTransport, open_memory_transports

#: Tasks wake in no fixed order, on purpose: what depends on it is tried so often.
TIMES = range(20)


# --- the handshake, R25


@BOTH
async def test_hello_comes_first_each_way(encoding: Encoding, autojump_clock: MockClock) -> None:
    """R25: and the accepting side's only after the other's."""
    here, there = open_memory_transports(encoding=encoding)
    peer = Peer(there)

    async def talk() -> None:
        await peer.says({**HELLO, "metadata": {"who": "me"}})
        hello = await peer.hears()
        assert hello["type"] == "hello"
        assert hello["limits"]["max_calls"] == 7
        await there.aclose()

    async with open_background_nursery() as nursery:
        nursery.start_soon(talk)
        async with open_connection(here, "accepting", limits=Limits(max_calls=7)) as connection:
            assert connection.metadata == {"who": "me"}
            assert connection.remote == "memory"
            assert connection.headers == {}
            assert connection.alive
            await connection.wait_closed()
            assert not connection.alive


@pytest.mark.parametrize("side", ["connecting", "accepting"])
async def test_no_hello_in_time(side: Any, autojump_clock: MockClock) -> None:
    """R25: a connection error, told to the other side and raised here, at that moment."""
    for _ in TIMES:
        here, there = open_memory_transports(capacity=10)
        peer = Peer(there)
        start = trio.current_time()
        with pytest.raises(RemoteProtocolError, match=r"no hello within 3 s") as caught:
            async with open_connection(here, side, limits=Limits(handshake_timeout=3)):
                pytest.fail("the block must not begin")
        assert trio.current_time() - start == pytest.approx(3)
        assert caught.value.close_code == 1008
        said = await peer.hears_the_end()
        assert said[-1]["type"] == "goaway"
        assert said[-1]["code"] == "PROTOCOL_ERROR"
        assert here.close_code == 1008


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([{"type": "ping", "token": 1}], "ping before hello"),
        ([{"type": "call", "id": 1, "method": "add"}], "call before hello"),
        ([{"type": "goaway", "code": "ABORTED"}], "goaway before hello"),
        ([{"type": "hello", "version": 2}], "unknown version 2"),
        ([HELLO, HELLO], "a second hello"),
        ([{**HELLO, "metadata": 5}], "metadata of hello"),
        ([HELLO, {"type": "end", "id": 1}], "end on id 1"),
    ],
)
@BOTH
async def test_a_handshake_that_is_none(
    encoding: Encoding, frames: list[dict[str, Any]], reason: str, autojump_clock: MockClock
) -> None:
    """R25, R27: the peer is told by a goaway with its code, whichever task runs first."""
    for _ in TIMES:
        here, there = open_memory_transports(encoding=encoding, capacity=10)
        peer = Peer(there)
        await peer.says(*frames)
        with pytest.raises(RemoteProtocolError, match=reason):
            async with open_connection(here, "accepting", serving=Service()) as connection:
                # A second hello comes after the first, and may find the block entered.
                await connection.wait_closed()
                connection.check_open()
        said = await peer.hears_the_end()
        assert said[-1]["type"] == "goaway"
        assert said[-1]["code"] == "PROTOCOL_ERROR"
        assert reason in said[-1]["message"]


async def test_a_goaway_in_place_of_hello(autojump_clock: MockClock) -> None:
    """R25: its code is what the connecting side raises."""
    here, there = open_memory_transports(capacity=10)
    await Peer(there).says({"type": "goaway", "code": "PERMISSION_DENIED", "message": "not you"})
    with pytest.raises(PermissionDenied, match="not you"):
        async with open_connection(here):
            pytest.fail("the block must not begin")


async def test_a_goaway_without_a_code_in_place_of_hello(autojump_clock: MockClock) -> None:
    """R25, R27: a drain before hello is no hello."""
    here, there = open_memory_transports(capacity=10)
    await Peer(there).says({"type": "goaway"})
    with pytest.raises(RpcError):
        async with open_connection(here):
            pytest.fail("the block must not begin")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("PROTOCOL_ERROR", LocalProtocolError),
        ("UNAVAILABLE", Unavailable),
        ("NO_SUCH_CODE", RemoteError),
    ],
)
async def test_a_goaway_with_a_code_ends_the_connection(
    code: str, kind: type[RpcError], autojump_clock: MockClock
) -> None:
    """R27: PROTOCOL_ERROR is about what this side did."""
    async with open_against() as (connection, peer):
        await peer.says({"type": "goaway", "code": code, "message": "x" * 100_000})
        await connection.wait_closed()
        with pytest.raises(kind) as caught:
            await connection.call("add", 1, 2)
        assert type(caught.value) is kind
        assert len(str(caught.value)) < 300


async def test_the_end_during_the_handshake(autojump_clock: MockClock) -> None:
    for side in ("connecting", "accepting"):
        here, there = open_memory_transports()
        await there.aclose()
        with pytest.raises(ConnectionLost):
            async with open_connection(here, side):
                pytest.fail("the block must not begin")


async def test_hello_in_pieces_of_time(autojump_clock: MockClock) -> None:
    """R24, R25: nothing is asked before the hellos are said, however short the interval is."""
    here, there = open_memory_transports(capacity=10)
    peer = Peer(there)

    async def greet() -> None:
        await trio.sleep(5)
        await peer.says(HELLO)
        assert (await peer.hears())["type"] == "hello"

    async with open_background_nursery() as nursery:
        nursery.start_soon(greet)
        limits = Limits(ping_interval=1, ping_timeout=1, handshake_timeout=10)
        async with open_connection(here, "accepting", limits=limits):
            assert trio.current_time() == pytest.approx(5)


async def test_metadata_that_cannot_be_encoded(autojump_clock: MockClock) -> None:
    """The other side does not wait for a hello that will never come."""
    here, there = open_memory_transports()
    with pytest.raises((TypeError, RpcError)):
        async with open_connection(here, metadata={"x": object()}):
            pytest.fail("the block must not begin")
    with pytest.raises(ConnectionLost):
        await there.receive()


# --- the transport dies


@BOTH
async def test_all_that_waits_hears_of_the_end(
    encoding: Encoding, autojump_clock: MockClock
) -> None:
    """Calls, streams and those who wait for a place; items that had arrived are delivered first."""
    failures: list[BaseException] = []
    items: list[Any] = []

    async with open_against(encoding=encoding) as (connection, peer):

        async def call() -> None:
            try:
                await connection.call("wait")
            except Exception as error:
                failures.append(error)

        async def consume() -> None:
            try:
                async with connection.stream("numbers") as stream:
                    async for item in stream:
                        items.append(item)  # noqa: PERF401
            except Exception as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(120):  # twenty more than the default of max_calls
                nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(consume)
            await trio.testing.wait_all_tasks_blocked()
            await peer.transport.aclose()

    assert len(failures) == 121
    assert {type(error) for error in failures} == {ConnectionLost}
    assert len({id(error) for error in failures}) == 121, "each its own, with its own traceback"
    assert items == []


def last_words(connection: Connection, peer: Peer, *frames: dict[str, Any]) -> None:
    """The peer says these frames, a message each, and closes, while this side is about to write.

    Nobody gets to run meanwhile: reader and writer find it out at the same time.
    """
    assert isinstance(peer.transport, MemoryTransport)
    for each in frames:
        peer.transport._sender.send_nowait(message(peer.transport.encoding, each))
    peer.transport._sender.close()
    peer.transport._receiver.close()
    connection.endpoint.ping(connection.endpoint.codec.null)
    connection.wake_writer()


@BOTH
async def test_items_that_had_arrived_come_before_the_end(
    encoding: Encoding, autojump_clock: MockClock
) -> None:
    """Even if the writer is the first to find the transport closed."""
    for _ in TIMES:
        items: list[Any] = []
        async with open_against(encoding=encoding) as (connection, peer):
            with pytest.raises(ConnectionLost):
                async with connection.stream("numbers") as stream:
                    id = (await peer.hears("call"))["id"]
                    chunk = {"type": "chunk", "id": id, "size": 1}
                    last_words(connection, peer, *[{**chunk, "items": [n]} for n in range(5)])
                    async for item in stream:
                        items.append(item)  # noqa: PERF401
        assert items == [0, 1, 2, 3, 4]


async def test_an_answer_that_had_arrived_counts(autojump_clock: MockClock) -> None:
    for _ in TIMES:
        async with open_against() as (connection, peer), trio.open_nursery() as nursery:

            async def call(connection: Connection = connection) -> None:
                assert await connection.call("add", 1, 2) == 3

            nursery.start_soon(call)
            id = (await peer.hears("call"))["id"]
            pong = {"type": "pong", "token": 1}
            last_words(connection, peer, pong, pong, {"type": "result", "id": id, "value": 3})


async def test_a_peer_that_takes_nothing_and_says_nothing(autojump_clock: MockClock) -> None:
    """Where the reader does not come to an end of its own, it is waited for a second, no more."""
    async with open_against() as (connection, peer):
        assert isinstance(peer.transport, MemoryTransport)
        peer.transport._receiver.close()
        start = trio.current_time()
        with pytest.raises(ConnectionLost):
            await connection.call("add", 1, 2)
        assert trio.current_time() - start == pytest.approx(1)


async def test_handlers_are_cancelled_by_the_end(autojump_clock: MockClock) -> None:
    service = Service()
    async with open_against("accepting", serving=service) as (connection, peer):
        window = {"items": 2, "bytes": 9}
        await peer.says(
            {"type": "call", "id": 1, "method": "wait"},
            {"type": "call", "id": 3, "method": "forever", "window": window},
            {
                "type": "call",
                "id": 5,
                "method": "few",
                "args": [1],
                "window": {"items": 2, "bytes": 9},
            },
        )
        await service.wait_running(3)
        await trio.testing.wait_all_tasks_blocked()
        assert connection.statistics().handlers_running == 3
        await peer.transport.aclose()
        await connection.wait_closed()
        await service.wait_ended(3)
    assert sorted(service.ended) == ["few", "forever", "wait"]


async def test_a_call_after_the_end(autojump_clock: MockClock) -> None:
    async with open_against() as (connection, peer):
        await peer.transport.aclose()
        await connection.wait_closed()
        with pytest.raises(ConnectionLost):
            await connection.call("add", 1, 2)
        with pytest.raises(ConnectionLost):
            async with connection.stream("count", 3):
                pytest.fail("the block must not begin")
    with pytest.raises(ConnectionLost):
        await connection.call("add", 1, 2)
    await connection.aclose()


class FaultyTransport(MemoryTransport):
    """One that breaks its promise and raises something of its own."""

    def __init__(self, inner: MemoryTransport) -> None:
        super().__init__(inner._sender, inner._receiver, inner.encoding)
        self.fault = ""

    async def send(self, message: bytes | str) -> None:
        if self.fault == "send":
            raise LookupError("a fault")
        await super().send(message)

    async def receive(self) -> bytes | str:
        received = await super().receive()
        if self.fault == "receive":
            raise LookupError("a fault")
        return received


@pytest.mark.parametrize("fault", ["send", "receive"])
async def test_a_fault_of_the_transport(
    fault: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends this connection with an error of ours, and is logged."""
    here, there = open_memory_transports(capacity=10)
    faulty = FaultyTransport(here)
    peer = Peer(there)
    async with open_background_nursery() as nursery:
        nursery.start_soon(peer.greets)
        async with open_connection(faulty) as connection:
            faulty.fault = fault
            if fault == "receive":
                await peer.says({"type": "ping", "token": 1})
            with pytest.raises(InternalError, match="LookupError"):
                await connection.call("add", 1, 2)
            await connection.wait_closed()
    with pytest.raises(ConnectionLost):
        await peer.hears_the_end()
        await there.receive()
    [record] = caplog.records
    assert record.getMessage() == "the connection with memory failed"


# --- the other side breaks the protocol (R27, R28)


@pytest.mark.parametrize(
    ("broken", "close_code", "code"),
    [
        (b"\xc1", 1007, "PROTOCOL_ERROR"),
        ("text", 1003, "PROTOCOL_ERROR"),
        (b"\x91" * 100_000, 1007, "PROTOCOL_ERROR"),
        (bytes(2000), 1009, "PROTOCOL_ERROR"),
        (message("msgpack", {"type": "end", "id": 99}), 1002, "PROTOCOL_ERROR"),
    ],
)
async def test_a_protocol_error(
    broken: bytes | str, close_code: int, code: str, autojump_clock: MockClock
) -> None:
    """R27, R28: goaway with the code, then the transport is closed with its number."""
    for _ in TIMES:
        service = Service()
        limits = Limits(max_message_bytes=150_000 if len(broken) > 2000 else 1999)
        async with open_against("accepting", serving=service, limits=limits) as (connection, peer):
            await peer.says({"type": "call", "id": 1, "method": "wait"})
            await service.wait_running()
            await peer.transport.send(broken)
            await connection.wait_closed()
            with pytest.raises(RemoteProtocolError):
                await connection.call("add")
        assert service.ended == ["wait"]
        said = await peer.hears_the_end()
        assert [frame["type"] for frame in said] == ["goaway"]
        assert said[0]["code"] == code
        assert len(said[0]["message"]) <= 200
        assert connection.transport.close_code == close_code


async def test_what_comes_behind_a_protocol_error_is_not_heard(autojump_clock: MockClock) -> None:
    service = Service()
    async with open_against("accepting", serving=service) as (connection, peer):
        await peer.transport.send(b"\xc1")
        await peer.says({"type": "call", "id": 1, "method": "wait"})
        await connection.wait_closed()
    assert service.running == service.ended == []


async def test_the_last_word_is_not_waited_for_longer_than_a_second(
    autojump_clock: MockClock,
) -> None:
    """A peer that reads nothing is not told, and costs a second."""
    service = Service()
    async with open_against("accepting", serving=service, capacity=0) as (connection, peer):
        start = trio.current_time()
        await peer.transport.send(b"\xc1")
        await connection.wait_closed()
    assert trio.current_time() - start <= 1.0


async def test_a_last_word_that_cannot_be_said_is_not_waited_for(autojump_clock: MockClock) -> None:
    """R27: the other side broke the protocol, and is not there to hear of it."""
    start = trio.current_time()
    with pytest.raises(RemoteProtocolError):
        async with open_against() as (connection, peer):
            await peer.says({"type": "end", "id": 99})
            await peer.transport.aclose()
            await connection.wait_closed()
            connection.check_open()
    assert trio.current_time() == start


async def test_there_is_no_last_word_once_writing_has_failed(autojump_clock: MockClock) -> None:
    """R27: the other side was found to break the protocol after it had stopped to listen."""

    class Deaf(MemoryTransport):
        async def send(self, message: bytes | str) -> None:
            if frames := [each["type"] for each in read(message) if each["type"] != "hello"]:
                raise ConnectionLost(f"nobody listens to {frames}")
            await super().send(message)

        sends_nowait = False

    here, there = open_memory_transports(capacity=10)
    deaf = Deaf(here._sender, here._receiver, "msgpack")
    peer = Peer(there)
    with pytest.raises(RemoteProtocolError):
        async with open_background_nursery() as nursery:
            nursery.start_soon(peer.greets)
            async with open_connection(deaf, "accepting", serving=Service()) as connection:
                await peer.says({"type": "call", "id": 1, "method": "add"})
                await quiet()
                start = trio.current_time()
                await peer.says({"type": "end", "id": 99})
                await connection.wait_closed()
                assert trio.current_time() == start
                with pytest.raises(ConnectionLost):
                    while True:
                        await there.receive()
                assert trio.current_time() == start
                connection.check_open()


async def test_nothing_of_the_peer_is_kept_at_length(autojump_clock: MockClock) -> None:
    """R27: the goaway's text, and what is raised from it, are short."""
    async with open_against() as (connection, peer):
        await peer.says({"type": "goaway", "code": "ABORTED", "message": "é" * 10_000})
        await connection.wait_closed()
        with pytest.raises(RpcError) as caught:
            connection.check_open()
        assert len(caught.value.message) < 300


# --- keepalive, R24

PATIENT = Limits(ping_interval=10, ping_timeout=7)


async def test_a_silent_peer_is_asked_and_then_given_up(autojump_clock: MockClock) -> None:
    """R24: at exactly these moments."""
    async with open_against(limits=PATIENT) as (connection, peer):
        start = trio.current_time()
        await peer.hears("ping")
        assert trio.current_time() - start == pytest.approx(10)
        await connection.wait_closed()
        assert trio.current_time() - start == pytest.approx(17)
        with pytest.raises(ConnectionLost, match="nothing was heard for 17 s"):
            connection.check_open()


async def test_a_peer_that_answers_is_kept(autojump_clock: MockClock) -> None:
    """R24: any message will do, and each puts off the next question."""
    async with open_against(limits=PATIENT) as (connection, peer):
        start = trio.current_time()
        for number in range(1, 4):
            ping = await peer.hears("ping")
            assert trio.current_time() - start == pytest.approx(10 * number)
            await peer.says({"type": "pong", "token": ping.get("token")})
        await trio.sleep(8)
        await peer.says({"type": "pong", "token": 1})
        await peer.hears("ping")
        assert trio.current_time() - start == pytest.approx(48)
        assert connection.alive


@pytest.mark.parametrize(("interval", "patience"), [(1.0, 20.0), (20.0, 1.0), (0.1, 0.7)])
async def test_the_peer_always_has_ping_timeout_to_answer(
    interval: float, patience: float, autojump_clock: MockClock
) -> None:
    """R24: one that answers each ping just in time is kept, whatever the two limits are."""
    limits = Limits(ping_interval=interval, ping_timeout=patience)
    async with open_against(limits=limits) as (connection, peer):
        for _ in range(10):
            before = trio.current_time()
            ping = await peer.hears("ping")
            assert trio.current_time() - before <= interval * 1.001
            await trio.sleep(patience * 0.99)
            assert connection.alive
            await peer.says({"type": "pong", "token": ping.get("token")})
            await trio.testing.wait_all_tasks_blocked()
            peer.heard.clear()


async def test_keepalive_does_not_spin_over_a_rounding_error(autojump_clock: MockClock) -> None:
    """R24: a sum of times that is rounded down is no reason to ask a million times."""
    for number in range(300):
        await trio.sleep(0.1 * number + 0.0003)
        limits = Limits(ping_interval=0.1 + number / 7, ping_timeout=0.3 + number / 11)
        async with open_against(limits=limits) as (connection, peer):
            with trio.fail_after(1000):
                await connection.wait_closed()
            heard = await peer.hears_the_end()
            assert len([frame for frame in heard if frame["type"] == "ping"]) <= 2


async def test_a_message_that_cannot_be_written(autojump_clock: MockClock) -> None:
    """R24: the peer speaks all the time, and reads nothing."""
    async with open_against(limits=PATIENT, capacity=0) as (connection, peer):
        start = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def chatter() -> None:
                while True:
                    await peer.says({"type": "pong", "token": 1})
                    await trio.sleep(1)

            async def call() -> None:
                with pytest.raises(ConnectionLost, match=r"could not be written in 7 s"):
                    await connection.call("add", 1, 2)
                nursery.cancel_scope.cancel()

            nursery.start_soon(chatter)
            nursery.start_soon(call)
        assert trio.current_time() - start == pytest.approx(7)


async def test_a_peer_that_asks_and_reads_nothing(autojump_clock: MockClock) -> None:
    """R24: it is not listened to any more once so much waits for it; then it is given up."""
    limits = Limits(max_waiting_control_bytes=10_000, ping_interval=10, ping_timeout=7)
    async with open_against("accepting", capacity=0, limits=limits) as (connection, peer):
        sent = 0
        with pytest.raises(ConnectionLost):
            while True:
                await peer.says(*[{"type": "ping", "token": "x" * 100}] * 10)
                sent += 1
                assert connection.endpoint.outbox.control_bytes < 20_000
        assert 3 < sent < 20
        assert connection.alive is False


async def test_a_peer_that_asks_much_and_reads_late_is_served(autojump_clock: MockClock) -> None:
    """R24: the reader goes on as soon as there is room again."""
    limits = Limits(max_waiting_control_bytes=10_000)
    async with open_against("accepting", serving=Service(), capacity=0, limits=limits) as (
        _,
        peer,
    ):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                for _number in range(100):
                    await peer.says(*[{"type": "ping", "token": "x" * 100}] * 10)
                await peer.says({"type": "call", "id": 1, "method": "add", "args": [1, 2]})

            nursery.start_soon(ask)
            await trio.sleep(3)
            pongs = 0
            while (frame := await peer.hears())["type"] == "pong":
                pongs += 1
            assert frame == {"type": "result", "id": 1, "value": 3}
            assert pongs == 1000


# --- the orderly end


@asynccontextmanager
async def both_ends(
    service: object, **options: Any
) -> AsyncIterator[tuple[Connection, Connection]]:
    """Two connections that talk to each other, each in a task of its own."""
    here, there = open_memory_transports()
    async with trio.open_nursery() as nursery:
        other: Connection = await nursery.start(accept, there, service)
        async with open_connection(here, **options) as connection:
            yield connection, other


async def accept(
    transport: Transport,
    service: object,
    task_status: trio.TaskStatus[Connection] = trio.TASK_STATUS_IGNORED,
) -> None:
    # The hello of the other side is needed first: so this is started before it is waited for.
    task_status.started(None)  # type: ignore[arg-type]
    async with open_connection(transport, "accepting", serving=service) as connection:
        await connection.wait_closed()


async def test_leaving_ends_what_runs_on_either_side(autojump_clock: MockClock) -> None:
    """Handlers of both sides have run their finally when the block is left."""
    theirs, ours = Service(), Service()
    errors: list[BaseException] = []

    async def caller(connection: Connection) -> None:
        try:
            await connection.call("wait")
        except Exception as error:
            errors.append(error)

    async def consumer(connection: Connection) -> None:
        try:
            async for _ in connection.stream("few", 3):
                pass
        except Exception as error:
            errors.append(error)

    class Both(Service):
        pass

    async with trio.open_nursery() as nursery:
        async with open_pair(theirs, serving=ours) as connection:
            nursery.start_soon(caller, connection)
            nursery.start_soon(consumer, connection)
            await theirs.wait_running(2)
            stream = connection.stream("forever")
            await stream.receive()
            await trio.testing.wait_all_tasks_blocked()
        assert sorted(theirs.ended) == ["few", "forever", "wait"]
        assert theirs.running == []
    assert len(errors) == 2, "a cut stream never looks complete (R6)"
    assert all(isinstance(error, RpcError) for error in errors)


async def test_leaving_ends_the_handlers_of_this_side(autojump_clock: MockClock) -> None:
    """R6: their callers hear UNAVAILABLE, and never a regular end."""
    service = Service()
    async with open_against(serving=service) as (connection, peer):
        window = {"items": 2, "bytes": 9}
        await peer.says(
            {"type": "call", "id": 2, "method": "wait"},
            {"type": "call", "id": 4, "method": "forever", "window": window},
            {"type": "call", "id": 6, "method": "few", "args": [1], "window": window},
        )
        await service.wait_running(3)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
    assert trio.current_time() == start
    assert sorted(service.ended) == ["few", "forever", "wait"]
    finals = {}
    for frame in await peer.hears_the_end():
        if frame["type"] in ("result", "error", "end"):
            finals[frame["id"]] = frame["type"], frame["error"]["code"]
    assert finals == dict.fromkeys((2, 4, 6), ("error", "UNAVAILABLE"))


async def test_a_call_that_comes_while_this_side_leaves(autojump_clock: MockClock) -> None:
    """R27: goaway, and what comes after it is refused and may be sent elsewhere."""
    service = Service()
    async with trio.open_nursery() as nursery:
        async with open_against(serving=service) as (connection, peer):
            await peer.says({"type": "call", "id": 2, "method": "linger", "args": [1.0]})
            await service.wait_running()

            async def late() -> None:
                assert (await peer.hears("goaway")) == {"type": "goaway", "last_id": 2}
                await peer.says({"type": "call", "id": 4, "method": "add", "args": [1, 2]})
                refused = await peer.hears("error")
                assert refused["id"] == 4
                assert refused["retry"] is True
                assert refused["error"]["code"] == "UNAVAILABLE"
                assert (await peer.hears("error"))["id"] == 2

            nursery.start_soon(late)


async def test_close_timeout_bounds_leaving(autojump_clock: MockClock) -> None:
    """A peer that never answers costs that long, and no more."""
    async with open_against(limits=Limits(close_timeout=3)) as (connection, peer):
        stream = connection.stream("forever")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume_one, stream)
            await peer.hears("call")
            nursery.cancel_scope.cancel()
        start = trio.current_time()
    assert trio.current_time() - start == pytest.approx(3)
    with pytest.raises(ConnectionLost):
        await peer.says(HELLO)


async def consume_one(stream: Stream[Any]) -> None:
    await stream.receive()


async def test_close_timeout_bounds_leaving_a_peer_that_reads_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_against(capacity=0, limits=Limits(close_timeout=3)) as (connection, _):
        start = trio.current_time()
    assert trio.current_time() - start == pytest.approx(3)


async def test_aclose_in_the_middle_of_the_block_and_twice(autojump_clock: MockClock) -> None:
    service = Service()
    async with open_pair(service) as connection:
        stream = connection.stream("forever")
        await stream.receive()
        await connection.aclose()
        assert service.ended == ["forever"]
        assert not connection.alive
        await connection.aclose()
        with pytest.raises(ConnectionLost, match="closed here"):
            await connection.call("add", 1, 2)
        with pytest.raises(ConnectionLost, match="closed here"):
            await connection.stream("count", 1).receive()


async def test_aclose_by_several_tasks_at_once(autojump_clock: MockClock) -> None:
    service = Service()
    async with open_pair(service, serving=Service()) as connection:
        stream = connection.stream("forever")
        await stream.receive()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(connection.aclose)
        assert service.ended == ["forever"]


async def test_aclose_by_a_handler_of_the_connection(autojump_clock: MockClock) -> None:
    """It is one of those who are asked to stop."""
    async with open_pair(Service()) as connection:
        with pytest.raises(Unavailable):
            await connection.call("close_connection")
        await connection.wait_closed()


async def test_aclose_by_a_handler_waits_for_the_others(autojump_clock: MockClock) -> None:
    """R6: it is an orderly end, whoever begins it: another handler cleans up, and says so."""
    service = Service()
    raised: list[Exception] = []

    async def linger(connection: Connection) -> None:
        with pytest.raises(Unavailable) as caught:
            await connection.call("linger", 2.0)
        raised.append(caught.value)

    async with open_pair(service) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(linger, connection)
        await service.wait_running()
        with pytest.raises(Unavailable):
            await connection.call("close_connection")
        await service.wait_ended()
    assert [type(error) for error in raised] == [Unavailable]


async def test_a_call_that_comes_while_a_cancelled_side_leaves(autojump_clock: MockClock) -> None:
    """R27: a handler that cleans up holds the connection open, and nothing new begins on it."""
    service = Service()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with open_against(serving=service) as (_, peer):
                await peer.says({"type": "call", "id": 2, "method": "linger", "args": [1.0]})
                await service.wait_running()

                async def late() -> None:
                    assert (await peer.hears("goaway")) == {"type": "goaway", "last_id": 2}
                    await peer.says({"type": "call", "id": 4, "method": "add", "args": [1, 2]})
                    refused = await peer.hears("error")
                    assert refused["id"] == 4
                    assert refused["retry"] is True
                    assert refused["error"]["code"] == "UNAVAILABLE"
                    assert (await peer.hears("error"))["id"] == 2
                    late_is_done.set()

                late_is_done = trio.Event()
                nursery.start_soon(late)
                scope.cancel()
                await trio.lowlevel.checkpoint()
        with trio.fail_after(5):
            await late_is_done.wait()


async def test_aclose_that_is_cancelled_closes_at_once(autojump_clock: MockClock) -> None:
    async with open_against() as (connection, peer):
        async with trio.open_nursery() as nursery:
            stream = connection.stream("forever")
            nursery.start_soon(swallow, stream.receive)
            await peer.hears("call")
            start = trio.current_time()
            with trio.move_on_after(1) as scope:
                await connection.aclose()
            assert scope.cancelled_caught
            assert trio.current_time() - start == pytest.approx(1)
            assert not connection.alive
            with pytest.raises(ConnectionLost):
                await peer.hears_the_end()
                await peer.transport.receive()


async def swallow(call: Any, *args: Any) -> None:
    with suppress(RpcError):
        await call(*args)


async def test_both_sides_leave_at_once(autojump_clock: MockClock) -> None:
    for _ in TIMES:
        ours, theirs = Service(), Service()
        here, there = open_memory_transports()
        met = 0

        async def run(transport: Transport, side: Any, service: Service) -> None:
            nonlocal met
            async with open_connection(transport, side, serving=service) as connection:
                stream = connection.stream("forever")
                await stream.receive()
                met += 1
                while met < 2:
                    await trio.lowlevel.checkpoint()

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, here, "connecting", ours)
            nursery.start_soon(run, there, "accepting", theirs)
        assert trio.current_time() == start
        assert ours.ended == theirs.ended == ["forever"]


async def test_calls_that_wait_for_a_place_while_this_side_leaves(
    autojump_clock: MockClock,
) -> None:
    """They are told that the connection is closed, and nothing of them is sent."""
    errors: list[BaseException] = []

    async def call(connection: Connection) -> None:
        try:
            await connection.call("wait")
        except RpcError as error:
            errors.append(error)

    service = Service()
    async with trio.open_nursery() as nursery:
        async with open_pair(service, limits=Limits(max_calls=1)) as connection:
            for _ in range(5):
                nursery.start_soon(call, connection)
            await service.wait_running()
            await trio.testing.wait_all_tasks_blocked()
    assert len(errors) == 5
    assert service.ended == ["wait"]


# --- a side that is cancelled


async def test_a_cancelled_block_asks_its_handlers_and_says_so(autojump_clock: MockClock) -> None:
    """R6: what they had to say is written before the transport goes."""
    service = Service()
    with trio.CancelScope() as scope:
        async with open_against(serving=service) as (connection, peer):
            window = {"items": 2, "bytes": 9}
            await peer.says(
                {"type": "call", "id": 2, "method": "linger", "args": [2.0]},
                {"type": "call", "id": 4, "method": "forever", "window": window},
            )
            await service.wait_running(2)
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() - start == pytest.approx(2)
    assert sorted(service.ended) == ["forever", "linger"]
    finals = {
        frame["id"]: frame["error"]["code"]
        for frame in await peer.hears_the_end()
        if frame["type"] == "error"
    }
    assert finals == {2: "UNAVAILABLE", 4: "UNAVAILABLE"}


async def test_a_handler_that_never_stops(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """R7a: the transport goes without it, the log names it, and the block waits for it alone."""
    service = Service()
    gone = []

    async def watch(peer: Peer) -> None:
        await peer.hears_the_end()
        gone.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with open_against(serving=service, limits=Limits(cleanup=3)) as (_, peer):
                nursery.start_soon(watch, peer)
                await peer.says({"type": "call", "id": 2, "method": "linger", "args": [100.0]})
                await service.wait_running()
                start = trio.current_time()
                scope.cancel()
        assert trio.current_time() - start == pytest.approx(100)
    assert gone[0] - start == pytest.approx(4)
    assert service.ended == ["linger"]
    assert "linger has not stopped" in caplog.text


async def test_a_cancelled_block_does_not_wait_for_the_other_side(
    autojump_clock: MockClock,
) -> None:
    with trio.move_on_after(1) as scope:
        async with open_against() as (connection, peer):
            await connection.call("wait")
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(1)


# --- exceptions of the block


def raised_in(context: BaseException | None, cause: BaseException | None) -> ValueError:
    error = ValueError("of the block")
    error.__context__ = context
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("how", ["pair", "connection"])
async def test_an_exception_of_the_block_comes_out_as_it_went_in(
    how: str, autojump_clock: MockClock
) -> None:
    context, cause = LookupError("before"), TypeError("why")
    for error in (
        raised_in(context, None),
        raised_in(context, cause),
        raised_in(None, None),
        ExceptionGroup("the block's own", [ValueError(1), TypeError(2)]),
        BaseExceptionGroup("with", [KeyboardInterrupt(), ValueError(2)]),
        ExceptionGroup("of one", [ValueError(1)]),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        ConnectionLost("the user's own"),
        StopAsyncIteration(1),
        StopIteration(1),
    ):
        before = error.__context__, error.__cause__, error.__suppress_context__
        service = Service()
        with pytest.raises(BaseException) as caught:
            if how == "pair":
                async with open_pair(service) as connection:
                    stream = connection.stream("forever")
                    await stream.receive()
                    raise error
            else:
                async with open_against(serving=service) as (connection, peer):
                    raise error
        if isinstance(error, BaseExceptionGroup):
            assert caught.value is error
            assert len(error.exceptions) in (1, 2)
        assert caught.value is error
        assert (error.__context__, error.__cause__, error.__suppress_context__) == before
        if how == "pair":
            assert service.ended == ["forever"]


async def test_an_exception_of_the_block_is_not_lost_to_a_cancellation(
    autojump_clock: MockClock,
) -> None:
    """The block fails, and while the connection is closed its time runs out."""
    for _ in TIMES:
        with pytest.raises(ValueError, match="of the block"):
            with trio.move_on_after(1):
                async with open_against() as (connection, peer):
                    stream = connection.stream("forever")
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(swallow, stream.receive)
                        await peer.hears("call")
                        nursery.cancel_scope.cancel()
                    raise ValueError("of the block")


async def test_a_group_of_the_block_that_was_cancelled_too(autojump_clock: MockClock) -> None:
    """Trio drops what was cancelled, and the rest comes out."""
    with pytest.raises(ExceptionGroup) as caught:
        with trio.CancelScope() as scope:
            async with open_pair(Service()) as connection:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection.call, "wait")
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
                    raise ValueError("of the block")
    assert caught.group_contains(ValueError, match="of the block", depth=1)


async def test_move_on_after_around_the_block(autojump_clock: MockClock) -> None:
    for where in ("block", "call", "stream"):
        service = Service()
        with trio.move_on_after(1) as scope:
            async with open_pair(service) as connection:
                if where == "block":
                    await trio.sleep_forever()
                elif where == "call":
                    await connection.call("wait")
                else:
                    async with connection.stream("few", 2) as stream:
                        async for _ in stream:
                            pass
        assert scope.cancelled_caught
        assert service.running == []


async def test_a_keyboard_interrupt_of_a_handler_comes_out(autojump_clock: MockClock) -> None:
    """Of whichever side, beside handlers that would wait for ever, and not in a group."""
    for _ in TIMES:
        service = Service()
        start = trio.current_time()
        with pytest.raises(KeyboardInterrupt):
            async with open_pair(service) as connection:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(swallow, connection.call, "wait")
                    nursery.start_soon(swallow, connection.stream("few", 1).receive)
                    await service.wait_running(2)
                    nursery.start_soon(swallow, connection.call, "interrupt")
                    await trio.sleep_forever()
        assert trio.current_time() - start < 2
        assert sorted(service.ended) == ["few", "wait"]


async def test_a_keyboard_interrupt_of_this_sides_handler_comes_out(
    autojump_clock: MockClock,
) -> None:
    for _ in TIMES:
        service = Service()
        start = trio.current_time()
        with pytest.raises(KeyboardInterrupt):
            async with open_against(serving=service) as (connection, peer):
                await peer.says({"type": "call", "id": 2, "method": "wait"})
                await service.wait_running()
                await peer.says({"type": "call", "id": 4, "method": "interrupt"})
                await trio.sleep_forever()
        assert trio.current_time() - start < 2
        assert service.ended == ["wait"]


async def test_an_interrupted_block_does_not_wait_for_a_peer_that_is_not_there(
    autojump_clock: MockClock,
) -> None:
    """Out within two seconds."""
    start = trio.current_time()
    with pytest.raises(KeyboardInterrupt):
        async with open_against(capacity=0) as (connection, _):
            raise KeyboardInterrupt
    assert trio.current_time() - start < 2


# --- the writer


class CountingTransport(MemoryTransport):
    """It notes every message, and one that was begun and not finished."""

    def __init__(self, inner: MemoryTransport) -> None:
        super().__init__(inner._sender, inner._receiver, inner.encoding)
        self.sent: list[bytes | str] = []
        self.torn = 0
        self.gate = trio.Event()
        self.gate.set()

    async def send(self, message: bytes | str) -> None:
        try:
            await self.gate.wait()
            await super().send(message)
        except BaseException:
            self.torn += 1
            raise
        self.sent.append(message)


async def test_nothing_cancels_a_message_in_the_middle(autojump_clock: MockClock) -> None:
    """Callers come and go by the hundred while a message is under way."""
    here, there = open_memory_transports(capacity=1000)
    transport = CountingTransport(here)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept, there, Service())
        async with open_connection(transport) as connection:
            for _ in range(10):
                transport.gate = trio.Event()
                with trio.move_on_after(1):
                    async with trio.open_nursery() as callers:
                        for _ in range(50):
                            callers.start_soon(connection.call, "wait")
                transport.gate.set()
            assert await connection.call("add", 1, 2) == 3
            assert transport.torn == 0


async def test_frames_that_wait_go_into_one_message(autojump_clock: MockClock) -> None:
    """R1: whatever waits when the writer gets to write."""
    here, there = open_memory_transports(capacity=1000)
    transport = CountingTransport(here)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept, there, Service())
        async with open_connection(transport) as connection:
            async with trio.open_nursery() as callers:
                for number in range(30):
                    callers.start_soon(connection.call, "add", number, 1)
            assert len(transport.sent) == 2, "the hello, and all the calls"


async def test_the_reader_does_not_wait_for_consumers(autojump_clock: MockClock) -> None:
    """R17: any number of streams that nobody takes from, and calls beside them are answered."""
    service = Service()
    async with open_pair(service) as connection:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(hold_open, connection)
            await service.wait_produced(20 * 64)
            await trio.testing.wait_all_tasks_blocked()
            assert service.produced == 20 * 64
            assert await connection.call("add", 1, 2) == 3
            nursery.cancel_scope.cancel()


async def hold_open(connection: Connection) -> None:
    async with connection.stream("forever"):
        await trio.sleep_forever()


async def test_a_drain_of_the_peer(autojump_clock: MockClock) -> None:
    """R27: what was written goes on; what comes later fails here and may be sent elsewhere."""
    async with open_against() as (connection, peer):
        async with trio.open_nursery() as nursery:

            async def early() -> None:
                assert await connection.call("early") == 1

            nursery.start_soon(early)
            id = (await peer.hears("call"))["id"]
            await peer.says({"type": "goaway", "last_id": id})
            await trio.testing.wait_all_tasks_blocked()
            assert connection.alive
            with pytest.raises(Unavailable) as caught:
                await connection.call("late")
            assert caught.value.retry
            await peer.says({"type": "result", "id": id, "value": 1})
        assert connection.alive


async def test_flush_with_nothing_to_write_or_nobody_to_write_to(
    autojump_clock: MockClock,
) -> None:
    async with open_against() as (connection, peer):
        await connection.flush()
        connection.endpoint.ping(connection.endpoint.codec.null)
        await connection.flush()
        assert (await peer.hears())["type"] == "ping"
        await peer.transport.aclose()
        await connection.wait_closed()
        connection.endpoint.ping(connection.endpoint.codec.null)
        await connection.flush()


async def test_flush_that_the_end_overtakes(autojump_clock: MockClock) -> None:
    async with open_against(capacity=0) as (connection, peer):
        async with trio.open_nursery() as nursery:
            connection.endpoint.ping(connection.endpoint.codec.null)
            nursery.start_soon(connection.flush)
            await trio.testing.wait_all_tasks_blocked()
            await peer.transport.aclose()


async def test_the_log_is_silent_about_ordinary_ends(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trio_streamrpc")
    async with open_pair(Service()) as connection:
        await connection.call("add", 1, 2)
    with trio.move_on_after(1):
        async with open_pair(Service()) as connection:
            await connection.call("wait")
    assert caplog.records == []
    assert math.isfinite(trio.current_time())


async def test_leaving_after_an_overflow_waits_as_well(autojump_clock: MockClock) -> None:
    """R7, R16: what went wrong is known, and that the other side has finished is not yet."""
    async with open_against() as (connection, peer), trio.open_nursery() as nursery:

        async def overflow() -> None:
            id = (await peer.hears("call"))["id"]
            await peer.says({"type": "chunk", "id": id, "items": [1, 2], "size": 2})
            assert (await peer.hears("cancel"))["error"]["code"] == "FLOW_CONTROL"
            await trio.sleep(3)
            await peer.says({"type": "end", "id": id})

        nursery.start_soon(overflow)
        start = trio.current_time()
        async with connection.stream("numbers", window=Window(1)) as stream:
            with pytest.raises(FlowControlError):
                await stream.receive()
        assert trio.current_time() - start == pytest.approx(3)
