"""The references of a call, said by peers that keep to no rule but the wire's."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import pytest
import trio

from tests.runtime.ends import quiet
from tests.runtime.peer import Peer, open_against
from trio_streamrpc import (
    CallCancelled,
    ConnectionLost,
    FlowControlError,
    Limits,
    RemoteError,
    RemoteProtocolError,
    Stream,
    Window,
    rpc,
)

FOUR = Limits(window=Window(4, 1000), max_window=Window(4, 1000), max_uploads=2)


class Service:
    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.go = trio.Event()

    @rpc
    async def take(self, numbers: AsyncIterable[int]) -> int:
        try:
            async for number in numbers:
                self.seen.append(number)
        except Exception as error:
            self.seen.append(error)
            raise
        return len(self.seen)

    @rpc
    async def two(self, first: AsyncIterable[int], second: AsyncIterable[int]) -> None: ...

    @rpc
    async def maybe(self, numbers: AsyncIterable[int] | None = None) -> bool:
        return numbers is None

    @rpc
    async def data(self, value: int) -> int:
        return value

    @rpc
    async def hold(self, numbers: Stream[int]) -> str:
        await self.go.wait()
        self.seen += [item async for item in numbers]
        return "held"


def call(id: int, method: str, *refs: list[Any], **fields: Any) -> dict[str, Any]:
    fields.setdefault("args", [None] * len(refs))
    return {"type": "call", "id": id, "method": method, "refs": list(refs), **fields}


# --- references that do not fit


@pytest.mark.parametrize(
    ("method", "fields", "refs", "words"),
    [
        ("take", {"args": [None]}, [], "takes a stream for 'numbers'"),
        ("take", {"args": [[1, 2]]}, [], "takes a stream for 'numbers'"),
        ("take", {"args": [None]}, [[0, "object", 3]], "takes a stream for 'numbers', and was"),
        ("take", {"args": [None]}, [[1, "stream", 3]], "no argument at 1"),
        ("take", {"args": [None]}, [[-1, "stream", 3]], "no argument at -1"),
        ("take", {"args": [None]}, [["numbers", "stream", 3]], "no argument at 'numbers'"),
        ("take", {"args": []}, [[0, "stream", 3]], "missing 1 required argument"),
        (
            "take",
            {"args": [None]},
            [[0, "stream", 3], [0, "stream", 5]],
            "two references at 0",
        ),
        ("two", {"args": [None, None]}, [[0, "stream", 3]], "takes a stream for 'second'"),
        ("two", {"args": [None, None]}, [[0, "stream", 3], [0, "object", 5]], "two references"),
        ("data", {"args": [None]}, [[0, "stream", 3]], "takes data for 'value'"),
        ("nothing", {"args": [None]}, [[0, "stream", 3]], "no such method"),
    ],
)
@pytest.mark.parametrize("early", [True, False])
async def test_references_that_do_not_fit(method, fields, refs, words, early, autojump_clock):
    """R19: INVALID_ARGUMENT, or no such method; the streams are opened, cancelled, and ended."""
    service = Service()
    async with open_against("accepting", serving=service, limits=FOUR) as (connection, peer):
        streams = [id for _, kind, id in refs if kind == "stream"]
        chunks = [{"type": "chunk", "id": id, "items": [1], "size": 1} for id in streams]
        # Items may come before the call is refused, or when it was.
        await peer.says(call(1, method, *refs, **fields), *(chunks if early else []))
        for id in streams:
            assert (await peer.hears("cancel", "error")) == {"type": "cancel", "id": id}
        error = await peer.hears()
        assert error["type"] == "error"
        expected = "UNIMPLEMENTED" if method == "nothing" else "INVALID_ARGUMENT"
        assert error["error"]["code"] == expected
        assert words in error["error"]["message"]
        if not early:
            await peer.says(*chunks)
        assert connection.endpoint.uploads == len(streams)
        await peer.says(*({"type": "end", "id": id} for id in streams))
        await quiet()
        assert connection.endpoint.uploads == 0
        assert connection.endpoint.exchanges == {}
        await peer.says({"type": "call", "id": 11, "method": "data", "args": [5]})
        assert (await peer.hears("result"))["value"] == 5
    assert service.seen == []


async def test_null_for_an_optional_one(autojump_clock):
    async with open_against("accepting", serving=Service()) as (_, peer):
        await peer.says({"type": "call", "id": 1, "method": "maybe", "args": [None]})
        assert (await peer.hears("result"))["value"] is True
        await peer.says({"type": "call", "id": 3, "method": "maybe"})
        assert (await peer.hears("result"))["value"] is True
        await peer.says(call(5, "maybe", [0, "stream", 7]))
        assert (await peer.hears("cancel"))["id"] == 7
        assert "value" in (await peer.hears("result"))


# --- producers that keep to no rule


async def test_beyond_the_credit(autojump_clock):
    """R16: the handler gets what fitted, then FLOW_CONTROL; the producer is told the same."""
    service = Service()
    async with open_against("accepting", serving=service, limits=FOUR) as (connection, peer):
        await peer.says(
            call(1, "hold", [0, "stream", 3]),
            {"type": "chunk", "id": 3, "items": [1, 2, 3], "size": 3},
            {"type": "chunk", "id": 3, "items": [4, 5], "size": 2},
        )
        cancel = await peer.hears("cancel")
        assert cancel["id"] == 3
        assert cancel["error"]["code"] == "FLOW_CONTROL"
        service.go.set()
        error = await peer.hears("error")
        assert error["error"]["code"] == "FLOW_CONTROL"
        await peer.says({"type": "error", "id": 3, "error": {"code": "CANCELLED"}})
        await quiet()
        assert connection.endpoint.exchanges == {}
    assert service.seen == []


async def test_what_fitted_is_taken_first(autojump_clock):
    service = Service()
    async with open_against("accepting", serving=service, limits=FOUR) as (_, peer):
        await peer.says(
            call(1, "take", [0, "stream", 3]),
            {"type": "chunk", "id": 3, "items": [1, 2, 3], "size": 3},
            {"type": "chunk", "id": 3, "items": [4, 5], "size": 2},
        )
        assert (await peer.hears("error"))["error"]["code"] == "FLOW_CONTROL"
        assert service.seen[:3] == [1, 2, 3]
        assert isinstance(service.seen[3], FlowControlError)
        await peer.says({"type": "end", "id": 3})


async def test_what_memory_an_upload_can_take(autojump_clock):
    """R13, R15: no more waits here than the window, however the producer cuts its chunks."""
    service = Service()
    async with open_against("accepting", serving=service, limits=FOUR) as (connection, peer):
        await peer.says(call(1, "hold", [0, "stream", 3]))
        for number in range(4):
            await peer.says({"type": "chunk", "id": 3, "items": [number], "size": 1})
        await quiet()
        window = connection.endpoint.exchanges[3].window
        assert window is not None
        assert (window.buffered_items, window.credit_items) == (4, 0)
        await peer.says({"type": "chunk", "id": 3, "items": [4], "size": 1})
        assert (await peer.hears("cancel"))["error"]["code"] == "FLOW_CONTROL"
        assert window.buffered_items == 4
        await peer.says({"type": "end", "id": 3})
        service.go.set()
        await peer.hears("error")


async def test_an_error_of_the_upload(autojump_clock):
    """R22: the items that came before it, then what the caller told."""
    service = Service()
    async with open_against("accepting", serving=service) as (_, peer):
        await peer.says(
            call(1, "take", [0, "stream", 3]),
            {"type": "chunk", "id": 3, "items": [1, 2], "size": 2},
            {"type": "error", "id": 3, "error": {"code": "UNKNOWN", "name": "X", "message": "no"}},
        )
        await peer.hears("error")
        assert service.seen[:2] == [1, 2]
        error = service.seen[2]
        assert isinstance(error, RemoteError)
        assert (error.name, error.message) == ("X", "no")


async def test_an_upload_that_is_cut(autojump_clock):
    """R6: a cut stream never looks complete."""
    service = Service()
    async with open_against("accepting", serving=service) as (_, peer):
        cut = {"code": "CANCELLED", "message": "cut"}
        await peer.says(call(1, "take", [0, "stream", 3]), {"type": "error", "id": 3, "error": cut})
        await peer.hears("error")
        assert isinstance(service.seen[0], CallCancelled)


async def test_a_producer_that_never_ends_its_upload(autojump_clock):
    """R10: its call ends all the same; what still comes is dropped."""
    service = Service()
    service.go.set()
    async with open_against("accepting", serving=service, limits=FOUR) as (connection, peer):
        await peer.says(call(3, "maybe", [0, "stream", 5]))
        assert (await peer.hears("cancel"))["id"] == 5
        assert (await peer.hears("result"))["id"] == 3
        for _ in range(4):
            await peer.says({"type": "chunk", "id": 5, "items": [1], "size": 1})
        await quiet()
        assert connection.alive
        assert connection.endpoint.uploads == 1
        assert connection.callee.running == 0


async def test_the_connection_is_lost(autojump_clock):
    """The handler takes what had arrived, and hears of it."""
    service = Service()
    async with open_against("accepting", serving=service) as (_, peer):
        await peer.says(
            call(1, "take", [0, "stream", 3]),
            {"type": "chunk", "id": 3, "items": [1, 2], "size": 2},
        )
        await quiet()
        await peer.transport.aclose()
        await quiet()
        assert service.seen[:2] == [1, 2]


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "chunk", "id": 9, "items": [1], "size": 1},
        {"type": "end", "id": 5},
        {"type": "result", "id": 3, "value": 1},
        call(7, "take", [0, "stream", 5]),
        call(7, "take", [0, "stream", 8]),
    ],
)
async def test_what_breaks_the_connection(frame, autojump_clock):
    """R5, R9: ids that were never opened, or are no upload's."""
    service = Service()
    async with open_against("accepting", serving=service) as (connection, peer):
        await peer.says(call(1, "hold", [0, "stream", 3]))
        await peer.says(frame)
        assert (await peer.hears("goaway"))["code"] == "PROTOCOL_ERROR"
        with pytest.raises(RemoteProtocolError):
            connection.check_open()


# --- callees that keep to no rule


async def numbers(log: list[str], pause: float = 0) -> AsyncIterator[int]:
    number = 0
    try:
        while True:
            if pause:
                await trio.sleep(pause)
            yield number
            number += 1
    finally:
        log.append("ended")


async def uploading(peer: Peer) -> int:
    """Hear a call with an upload; gives the upload's id."""
    heard = await peer.hears("call")
    ((_, kind, id),) = heard["refs"]
    assert kind == "stream"
    return int(id)


@pytest.mark.parametrize("pause", [0, 100])
async def test_a_callee_that_does_not_cancel_the_upload(pause, autojump_clock):
    """R6, R10: the call is over, so the caller cuts it: with an error, and not as if complete."""
    async with open_against() as (connection, peer):
        log: list[str] = []
        results = []

        async def use() -> None:
            results.append(await connection.call("m", numbers(log, pause)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            id = await uploading(peer)
            await peer.says({"type": "result", "id": 1, "value": 5})
            final = await peer.hears("error", "end")
            assert (final["id"], final["type"]) == (id, "error")
            assert final["error"]["code"] == "CANCELLED"
        assert results == [5]
        assert log == ["ended"]
        assert connection.caller.uploads == {}
        assert connection.caller.places.uploads.value == 64
        assert connection.endpoint.exchanges == {}


async def test_a_callee_that_grants_much_and_reads_nothing(autojump_clock):
    """R14: what waits here to be written is bounded all the same."""
    async with open_against(capacity=1) as (connection, peer):
        count = 0

        async def many() -> AsyncIterator[bytes]:
            nonlocal count
            while True:
                count += 1
                yield bytes(1000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.call, "m", many())
            id = await uploading(peer)
            await peer.says({"type": "grant", "id": id, "items": 2**40, "bytes": 2**40})
            await quiet()
            assert count * 1000 < 1_000_000
            nursery.cancel_scope.cancel()


async def test_a_callee_that_cancels_twice_and_grants_after_it(autojump_clock):
    """R9: none of it matters."""
    async with open_against() as (connection, peer):
        log: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.call, "m", numbers(log, 100))
            id = await uploading(peer)
            await peer.says(
                {"type": "cancel", "id": id, "mode": "close"},
                {"type": "cancel", "id": id, "mode": "abort"},
                {"type": "grant", "id": id, "items": 5, "bytes": 5},
            )
            assert await peer.hears("end", "error") == {"type": "end", "id": id}
            await peer.says(
                {"type": "cancel", "id": id},
                {"type": "grant", "id": id, "items": 5, "bytes": 5},
            )
            await quiet()
            assert log == ["ended"]
            assert connection.alive
            await peer.says({"type": "result", "id": 1, "value": 5})


async def test_a_callee_that_never_answers_the_abort(autojump_clock):
    """R10: the caller's own error comes out after cancel_timeout; the call keeps its place."""

    async def broken() -> AsyncIterator[int]:
        yield 1
        await trio.sleep(1)
        raise ValueError("mine")

    # It says nothing at all, and that is not what this is about.
    async with open_against(limits=Limits(ping_interval=1000)) as (connection, peer):
        start = trio.current_time()
        for kind in ("unary", "stream", "leaving"):
            with pytest.raises(ValueError, match="mine"):
                if kind == "unary":
                    await connection.call("m", broken())
                else:
                    async with connection.stream("m", broken()) as stream:
                        if kind == "stream":
                            await stream.receive()
                        await trio.sleep(2)
            assert trio.current_time() - start <= 1 + 2 * 10
            start = trio.current_time()
        assert connection.statistics().calls_open == 3
        assert connection.caller.uploads == {}
        for id in (1, 5, 9):
            await peer.says({"type": "error", "id": id, "error": {"code": "CANCELLED"}})
        await quiet()
        assert connection.statistics().calls_open == 0


async def test_the_connection_is_lost_while_uploading(autojump_clock):
    async with open_against() as (connection, peer):
        log: list[str] = []

        async def lose() -> None:
            await uploading(peer)
            await peer.transport.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            with pytest.raises(ConnectionLost):
                await connection.call("m", numbers(log))
        assert log == ["ended"]
