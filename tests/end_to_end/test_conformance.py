"""What a call and a stream are to do, over every transport: docs/conformance.md."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from tests.end_to_end.network import until
from tests.end_to_end.openers import Opener, pattern
from trio_streamrpc import (
    Code,
    Limits,
    NotFound,
    RemoteError,
    RpcError,
    Unimplemented,
    Window,
    current_call,
    rpc,
)


class Service:
    def __init__(self) -> None:
        self.ended: list[str] = []
        self.produced = 0
        self.at_once = 0
        self.most_at_once = 0
        self.running = trio.Event()

    @rpc
    async def nothing(self, value: None) -> None:
        assert value is None

    @rpc
    async def large(self, value: bytes) -> bytes:
        assert value == pattern(271_828)
        return pattern(314_159)

    @rpc
    async def blobs(self, sizes: list[int]) -> AsyncIterator[bytes]:
        for size in sizes:
            yield pattern(size)

    @rpc
    async def fails(self, code: str, message: str) -> None:
        raise RpcError(message, code=Code(code))

    @rpc
    async def fails_after(self, count: int, message: str) -> AsyncIterator[int]:
        for number in range(count):
            yield number
        raise NotFound(message)

    @rpc
    async def breaks(self, message: str) -> None:
        raise LookupError(message)

    @rpc
    async def metadata(self) -> dict[str, Any]:
        return dict(current_call().metadata)

    @rpc
    async def waits(self, how: str) -> AsyncIterator[bytes]:
        try:
            self.running.set()
            if how == "before":
                await trio.sleep_forever()
            yield b"first"
            if how == "sleeping":
                await trio.sleep_forever()
            while True:
                self.produced += 1
                yield b"x" * 100
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            self.ended.append(how)

    @rpc
    async def sleep(self) -> None:
        self.running.set()
        try:
            await trio.sleep_forever()
        finally:
            self.ended.append("sleep")

    @rpc
    async def mirror(self, number: int, value: bytes) -> list[Any]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await trio.lowlevel.checkpoint()
        self.at_once -= 1
        return [number, hashlib.sha256(value).hexdigest()]

    @rpc
    async def numbers(self, stop: int) -> AsyncIterator[int]:
        for number in range(stop):
            self.produced += 1
            yield number

    async def hidden(self) -> None:
        raise AssertionError("not exposed")


async def test_nothing_arrives_as_none(opened: Opener) -> None:
    """C1."""
    async with opened(Service()) as connection:
        assert await connection.proxy(Service).nothing(None) is None  # type: ignore[func-returns-value]
        assert await connection.call("nothing", None) is None


async def test_large_values(opened: Opener) -> None:
    """C2."""
    async with opened(Service()) as connection:
        value = await connection.proxy(Service).large(pattern(271_828))
        assert value == pattern(314_159)


async def test_a_stream_of_sizes(opened: Opener) -> None:
    """C4. In order, then the end."""
    sizes = [31_415, 9, 2_653, 58_979]
    async with opened(Service()) as connection:
        async with connection.proxy(Service).blobs(sizes) as stream:
            assert [item async for item in stream] == [pattern(size) for size in sizes]
            with pytest.raises(trio.EndOfChannel):
                await stream.receive()


async def test_an_empty_stream(opened: Opener) -> None:
    """C6."""
    async with opened(Service()) as connection:
        async with connection.proxy(Service).blobs([]) as stream:
            assert [item async for item in stream] == []


MESSAGES = ["", "plain", "tab\there", "line\nfeed\r\n", "é€😀", 'quotes " and \\', "\x00\x1f\x7f"]


@pytest.mark.parametrize("message", MESSAGES)
async def test_codes_and_messages_arrive_as_they_are(opened: Opener, message: str) -> None:
    """C9. R22: of calls and of streams."""
    async with opened(Service()) as connection:
        api = connection.proxy(Service)
        for code in ("NOT_FOUND", "ABORTED", "DATA_LOSS"):
            with pytest.raises(RpcError) as caught:
                await api.fails(code, message)
            assert (caught.value.code, caught.value.message) == (code, message)
        with pytest.raises(RemoteError) as broken:
            await api.breaks(message)
        # LookupError is no KeyError: its text is its argument.
        assert (broken.value.name, broken.value.message) == ("LookupError", message)


async def test_items_come_before_the_error(opened: Opener) -> None:
    """C10."""
    items = []
    async with opened(Service()) as connection:
        with pytest.raises(NotFound, match="gone"):
            async with connection.proxy(Service).fails_after(3, "gone") as stream:
                async for item in stream:
                    items.append(item)  # noqa: PERF401
    assert items == [0, 1, 2]


NO_METHODS = [
    "", "nothing.at.all", "hidden", "_private", "__class__", "__init__", "ended", "NOTHING",
    "nothing.__call__", "numbers.__globals__", "a" * 257, "a" * 100_000, "." * 50, "nothing ",
    "noth\u0456ng",
]  # fmt: skip


async def test_whatever_is_not_there_is_unimplemented(opened: Opener) -> None:
    """C11. R28: with the same answer for all, but for the name that was asked for."""
    async with opened(Service()) as connection:
        for name in NO_METHODS:
            with pytest.raises(Unimplemented) as caught:
                await connection.call(name)
            assert caught.value.message == f"no method {name!r} on the other side"
        with pytest.raises(Unimplemented):
            async with connection.stream("hidden") as stream:
                await stream.receive()


async def test_metadata_arrives_as_it_is(opened: Opener) -> None:
    """C12."""
    metadata = {"text": "é😀\n", "number": 2**53, "list": [1, None, True], "": ""}
    async with opened(Service(), metadata=metadata) as connection:
        assert await connection.call("metadata") == metadata


async def test_cancelled_before_it_starts(opened: Opener) -> None:
    """C13. Nothing is on the wire."""
    service = Service()
    async with opened(service) as connection:
        for start in (
            lambda: connection.call("sleep"),
            lambda: connection.stream("waits", "before").__aenter__(),
        ):
            with trio.CancelScope() as scope:
                scope.cancel()
                await start()
            assert scope.cancelled_caught
        assert connection.statistics().calls_open == 0
        assert await connection.call("nothing", None) is None
    assert not service.running.is_set()


@pytest.mark.parametrize("how", ["before", "first", "credit", "sleeping"])
@pytest.mark.parametrize("leave", ["break", "cancel", "error"])
async def test_leaving_a_stream(opened: Opener, how: str, leave: str) -> None:
    """C14. The handler's finally has run when the block has ended (R7)."""
    service = Service()
    async with opened(service) as connection:
        with trio.CancelScope() as scope:
            try:
                async with connection.proxy(Service).waits(how) as stream:
                    await service.running.wait()
                    if how != "before":
                        assert await stream.receive() == b"first"
                    if how == "credit":
                        await until(lambda: service.produced >= 63)
                    if leave == "error":
                        raise ZeroDivisionError
                    if leave == "cancel":
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
            except ZeroDivisionError:
                pass
        if leave == "cancel":
            # A caller that is cancelled does not wait (R7).
            await until(lambda: service.ended)
        assert service.ended == [how]
        assert await connection.call("nothing", None) is None


async def test_a_call_that_is_cancelled(opened: Opener) -> None:
    """C14."""
    service = Service()
    async with opened(service) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.call, "sleep")
            await service.running.wait()
            nursery.cancel_scope.cancel()
        await until(lambda: service.ended)
        assert await connection.call("nothing", None) is None


async def test_a_thousand_large_calls(opened: Opener) -> None:
    """C18. None is crossed."""
    async with opened(Service()) as connection:
        api = connection.proxy(Service)

        async def call(number: int) -> None:
            value = bytes([number % 256]) * (number * 10)
            assert await api.mirror(number, value) == [number, hashlib.sha256(value).hexdigest()]

        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(call, number)


async def test_one_place_and_ten_callers(opened: Opener) -> None:
    """C19. R26: all succeed, one after the other."""
    service = Service()
    async with opened(service, limits=Limits(max_calls=1)) as connection:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(connection.call, "mirror", number, b"")
    assert service.most_at_once == 1


@pytest.mark.parametrize(
    ("window", "ahead"),
    [(Window(5, 100_000), 5), (Window(1, 1), 1), (Window(1000, 301), None)],
)
async def test_the_look_ahead_is_the_window(
    opened: Opener, window: Window, ahead: int | None
) -> None:
    """C21. R14: exactly, in items and in bytes, while another stream and calls beside it go on."""
    service = Service()
    async with opened(service) as connection:
        async with connection.stream("waits", "credit", window=window) as stream:
            # One item is not counted: the first, which is other than the rest.
            await until_still(lambda: service.produced)
            if ahead is not None:
                assert service.produced == ahead - 1
            else:
                statistics = stream.statistics()
                # By bytes: the item that used up the last of them was let through whole.
                assert 301 <= statistics.bytes_received < 301 + 110 + 110
                assert statistics.items_received == service.produced + 1
            before = service.produced
            assert await connection.call("nothing", None) is None
            async with connection.stream("numbers", 500) as other:
                assert [item async for item in other] == list(range(500))
            assert service.produced == before + 500
    assert service.ended == ["credit"]


async def until_still(number: Callable[[], int]) -> None:
    """Until a number has stayed what it is for a while: what must not happen has no event."""
    last, same = number(), 0
    while same < 20:
        await trio.sleep(0.002)
        same = same + 1 if number() == last else 0
        last = number()
