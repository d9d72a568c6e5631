"""What calls and streams are to do over kkrpc 2: docs/conformance.md, as far as it is carried.

Where it does, the core's own tests run over it; where it does something else, that is told here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.end_to_end import (
    test_conformance,
    test_conformance_both_ways,
    test_conformance_time,
    test_conformance_values,
)
from tests.end_to_end.network import until
from tests.end_to_end.openers import Opener, over_a_socket, over_memory
from tests.end_to_end.test_conformance import Service, until_still
from trio_streamrpc import (
    Connection,
    ConnectionLost,
    Limits,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
    Window,
)
from trio_streamrpc.dialects import kkrpc

HERE = Path(__file__)
#: What there are no words for.
NOT_CARRIED = {
    "C16": "deadlines do not travel",
}


@pytest.fixture(params=["memory", "ws", "tcp"])
def opened(request: pytest.FixtureRequest) -> Opener:
    """Opens a connection that speaks kkrpc 2: its records as messages, and as lines."""
    opener: Any = over_memory
    if request.param != "memory":
        opener = partial(over_a_socket, request.param)

    @asynccontextmanager
    async def open_it(service: object, **options: Any) -> AsyncIterator[Connection]:
        with trio.fail_after(20):
            async with opener(service, "json", dialect=kkrpc, **options) as connection:
                yield connection

    return open_it


# --- as anywhere


@pytest.mark.parametrize(
    "test",
    [
        pytest.param(test_conformance.test_nothing_arrives_as_none, id="C1"),
        pytest.param(test_conformance.test_large_values, id="C2"),
        pytest.param(test_conformance_both_ways.test_an_upload_of_sizes, id="C3"),
        pytest.param(test_conformance.test_a_stream_of_sizes, id="C4"),
        pytest.param(test_conformance_both_ways.test_ping_pong, id="C5"),
        pytest.param(test_conformance.test_an_empty_stream, id="C6"),
        pytest.param(test_conformance_both_ways.test_the_server_speaks_first, id="C7"),
        pytest.param(test_conformance_both_ways.test_the_server_has_heard_enough, id="C8"),
        pytest.param(test_conformance.test_items_come_before_the_error, id="C10"),
        pytest.param(test_conformance.test_metadata_arrives_as_it_is, id="C12"),
        pytest.param(test_conformance.test_cancelled_before_it_starts, id="C13"),
        pytest.param(test_conformance_time.test_a_result_and_a_deadline, id="C17"),
        pytest.param(test_conformance_values.test_the_length_of_a_name, id="C22, names"),
        pytest.param(test_conformance_values.test_the_smallest_window, id="C22, windows"),
        pytest.param(test_conformance_values.test_values_arrive_as_they_are, id="C23"),
        pytest.param(test_conformance_values.test_what_is_beyond_is_told, id="C23, beyond"),
    ],
)
async def test_as_on_the_own_wire(test: Any, opened: Opener) -> None:
    """C1, C2, C3, C4, C5, C6, C7, C8, C10, C12, C13, C17, C23."""
    await test(opened)


@pytest.mark.parametrize("message", test_conformance.MESSAGES)
async def test_codes_and_messages(opened: Opener, message: str) -> None:
    """C9: of calls and of streams; in these the error's name stands in its message."""
    await test_conformance.test_codes_and_messages_arrive_as_they_are(opened, message)
    async with opened(Service()) as connection:
        async with connection.stream("fails_after", 0, message) as stream:
            with pytest.raises(NotFound) as caught:
                await stream.receive()
        assert caught.value.message == f"NotFound: {message}"


@pytest.mark.parametrize("leave", ["break", "cancel", "error"])
@pytest.mark.parametrize("how", ["before", "first", "sleeping"])
async def test_leaving_a_stream(opened: Opener, how: str, leave: str) -> None:
    """C14: the handler's finally has run when the block has ended."""
    await test_conformance.test_leaving_a_stream(opened, how, leave)


@pytest.mark.parametrize("leave", ["break", "cancel", "error"])
async def test_leaving_a_stream_that_waits_for_credit(opened: Opener, leave: str) -> None:
    """C14: its window is another, and nothing else."""
    service = Service()
    async with opened(service) as connection:
        with trio.CancelScope() as scope:
            try:
                async with connection.stream("waits", "credit") as stream:
                    assert await stream.receive() is not None
                    await until(lambda: service.produced >= 31)
                    if leave == "error":
                        raise ZeroDivisionError
                    if leave == "cancel":
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
            except ZeroDivisionError:
                pass
        if leave == "cancel":
            await until(lambda: service.ended)
        assert service.ended == ["credit"]


@pytest.mark.parametrize("count", [1, 3, 10])
async def test_cancelled_while_it_encodes(opened: Opener, count: int) -> None:
    """C14: nothing is torn."""
    await test_conformance_both_ways.test_cancelled_while_it_encodes(opened, count)


@pytest.mark.parametrize(("window", "ahead"), [(Window(5, 100_000), 5), (Window(1, 1), 1)])
async def test_the_look_ahead(opened: Opener, window: Window, ahead: int) -> None:
    """C21: exactly the window, in items; bytes are not counted there."""
    await test_conformance.test_the_look_ahead_is_the_window(opened, window, ahead)


async def test_the_look_ahead_of_an_upload(opened: Opener) -> None:
    """C21: the other side asks for a window of 32, and no more is asked for than it takes."""
    produced = 0

    async def values() -> AsyncIterator[bytes]:
        nonlocal produced
        for _ in range(50):
            produced += 1
            yield b"x"

    service = test_conformance_both_ways.Service()
    async with opened(service) as connection, trio.open_nursery() as nursery:

        async def upload() -> None:
            assert await connection.call("none_yet", values()) == 50

        nursery.start_soon(upload)
        await until_still(lambda: produced)
        assert produced == 32
        assert await connection.call("metadata") == {}
        service.release.set()


# --- what is otherwise


async def test_whatever_is_not_there(opened: Opener) -> None:
    """C11: the same answer for all, in the words of kkrpc."""
    async with opened(Service()) as connection:
        for name in test_conformance.NO_METHODS:
            with pytest.raises(Unimplemented) as caught:
                await connection.call(name)
            told = name if len(name) <= 256 else f"{name[:256]}…"
            assert caught.value.message == f"{told} is not a function"
        with pytest.raises(Unimplemented):
            async with connection.stream("hidden") as stream:
                await stream.receive()


async def test_a_call_that_is_cancelled(opened: Opener) -> None:
    """C14: there is no word for it, so that its handler goes on; its caller does, too."""
    service = test_conformance_time.Service()
    async with opened(service) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.call, "sleep", 0.05)
            await until(lambda: service.started)
            nursery.cancel_scope.cancel()
        assert service.ended == []
        assert await connection.call("sleep", 0) == "slept"
        await until(lambda: len(service.ended) == 2)


async def test_a_short_deadline(opened: Opener) -> None:
    """C15: of a stream. The handler is cancelled at once, wherever the deadline finds it."""
    service = Service()
    async with opened(service) as connection:
        for number in range(1, 6):
            with trio.move_on_after(0.001 * number) as scope:
                async with connection.stream("waits", "sleeping") as stream:
                    while True:
                        await stream.receive()
            assert scope.cancelled_caught
        if service.running.is_set():
            await until(lambda: service.ended)
        assert await connection.call("nothing", None) is None


async def test_a_thousand_large_calls(opened: Opener) -> None:
    """C18: none is crossed. More than the other side runs at once fail, so it has to run them."""
    async with opened(Service(), limits=Limits(max_calls=1000)) as connection:

        async def call(number: int) -> None:
            value = bytes([number % 256]) * (number * 10)
            digest = hashlib.sha256(value).hexdigest()
            api = connection.proxy(Service)
            assert await api.mirror(number, value) == [number, digest]

        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(call, number)


async def test_one_place_and_ten_callers(opened: Opener) -> None:
    """C19: nobody knows to wait, so that all but those who find the place are told."""
    service = test_conformance_time.Service()
    outcomes: list[str] = []
    async with opened(service, limits=Limits(max_calls=1)) as connection:

        async def call() -> None:
            try:
                outcomes.append(await connection.call("sleep", 0.1))
            except ResourceExhausted:
                outcomes.append("refused")

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(call)
        assert sorted(outcomes) == ["refused"] * 9 + ["slept"]
        assert await connection.call("sleep", 0) == "slept"


async def test_a_drain_between_calls(opened: Opener) -> None:
    """C20: what is new is refused; that it was not run cannot be told."""
    service = test_conformance_time.Service()
    async with opened(service) as connection:
        await connection.call("hold")
        assert service.connection is not None
        await service.connection.drain()
        with pytest.raises(Unavailable) as refused:
            await connection.call("sleep", 0)
        assert not refused.value.retry
        assert service.started == 0


async def test_a_drain_in_the_middle_of_a_stream(opened: Opener) -> None:
    """C20: the stream goes on to its end, and the drain waits for it."""
    service = test_conformance_time.Service()
    async with opened(service) as connection, trio.open_nursery() as nursery:
        await connection.call("hold")
        draining = service.connection
        assert draining is not None
        drained = trio.Event()

        async def drain() -> None:
            await draining.drain()
            drained.set()

        async with connection.stream("numbers", 1000) as stream:
            assert await stream.receive() == 0
            nursery.start_soon(drain)
            await until(lambda: draining.endpoint.drain_from is not None)
            with pytest.raises(Unavailable):
                await connection.call("sleep", 0)
            assert not drained.is_set()
            assert [number async for number in stream] == list(range(1, 1000))
        await drained.wait()


async def test_the_length_of_a_message(opened: Opener) -> None:
    """C22: of a call, as the other side takes it. One that is longer is the connection's end."""

    async def length(value: str) -> int:
        return len(value)

    limits = Limits(max_message_bytes=2000)
    async with opened({"length": length}, limits=limits) as connection:
        frame = len(json.dumps(QUESTION, separators=(",", ":")))
        for each in (1, 1990 - frame, 2000 - frame):
            assert await connection.call("length", "x" * each) == each
    async with opened({"length": length}, limits=limits) as connection:
        with pytest.raises(ConnectionLost):
            await connection.call("length", "x" * 4500)


QUESTION = {
    "t": "q", "id": "c-1", "op": "call", "p": ["length"],
    "a": [{"__kkrpc_next_arg__": "value", "v": ""}],
}  # fmt: skip


async def test_the_number_of_uploads(opened: Opener) -> None:
    """C22: of one call, and of several at once, which do not wait for each other."""
    release = trio.Event()

    async def two(a: AsyncIterable[int], b: AsyncIterable[int]) -> int:
        return sum([each async for each in a]) + sum([each async for each in b])

    async def three(a: AsyncIterable[int], b: AsyncIterable[int], c: AsyncIterable[int]) -> int:
        raise AssertionError

    async def numbers() -> AsyncIterator[int]:
        yield 1
        await release.wait()
        yield 2

    async with opened({"two": two, "three": three}, limits=Limits(max_uploads=2)) as connection:
        with pytest.raises(ResourceExhausted):
            await connection.call("three", numbers(), numbers(), numbers())
        async with trio.open_nursery() as nursery:

            async def first() -> None:
                assert await connection.call("two", numbers(), numbers()) == 6

            nursery.start_soon(first)
            await until(lambda: connection.statistics().calls_open == 1)
            with pytest.raises(ResourceExhausted):
                await connection.call("two", numbers(), numbers())
            release.set()
        assert await connection.call("two", numbers(), numbers()) == 6


async def test_the_number_of_calls(opened: Opener) -> None:
    """C22: equal passes, one more fails, and its place is there again afterwards."""
    service = test_conformance_time.Service()
    async with opened(service, limits=Limits(max_calls=3)) as connection:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(connection.call, "sleep", 0.2)
            await until(lambda: service.started == 3)
            with pytest.raises(ResourceExhausted):
                await connection.call("sleep", 0)
        assert await connection.call("sleep", 0) == "slept"


# --- none is left out


def named_here() -> set[str]:
    """The lines that docstrings name."""
    text = HERE.read_text(encoding="utf-8")
    told = re.findall(r'^    """(C.*?)[.:]', text, re.MULTILINE)
    return {each for line in told for each in re.findall(r"C\d+", line)}


async def test_every_line_has_its_test() -> None:
    text = (HERE.parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")
    lines = set(re.findall(r"^- (C\d+)\. ", text, re.MULTILINE))
    assert named_here() | set(NOT_CARRIED) == lines
    assert named_here() & set(NOT_CARRIED) == set()
