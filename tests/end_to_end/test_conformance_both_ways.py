"""What uploads and streams both ways are to do: docs/conformance.md."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import cattrs
import pytest
import trio

from tests.end_to_end.network import until
from tests.end_to_end.openers import Opener, pattern
from tests.end_to_end.test_conformance import until_still
from trio_streamrpc import Limits, Stream, Window, current_call, rpc

SENT = [27_182, 8, 1_828, 45_904]
REPLIED = [31_415, 9, 2_653, 58_979]


class Picture:
    """What takes its time to be encoded."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data


class Service:
    def __init__(self) -> None:
        self.release = trio.Event()

    @rpc
    async def total(self, values: AsyncIterable[bytes]) -> int:
        return sum([len(value) async for value in values])

    @rpc
    async def reply(self, values: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        number = 0
        async for value in values:
            assert value == pattern(SENT[number])
            yield pattern(REPLIED[number])
            number += 1

    @rpc
    async def greet(self, names: Stream[str]) -> AsyncIterator[str]:
        yield "who is there?"
        yield f"hello {await names.receive()}"

    @rpc
    async def first(self, numbers: Stream[int]) -> int:
        return await numbers.receive()

    @rpc
    async def none_yet(self, values: AsyncIterable[bytes]) -> int:
        await self.release.wait()
        return sum([1 async for _ in values])

    @rpc
    async def metadata(self) -> dict[str, Any]:
        return dict(current_call().metadata)


class Pictures:
    def __init__(self) -> None:
        self.ended: list[str] = []

    @rpc
    async def pictures(self) -> AsyncIterator[Picture]:
        try:
            while True:
                yield Picture(b"x")
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            self.ended.append("pictures")

    @rpc
    async def number(self) -> int:
        return 5


async def test_an_upload_of_sizes(opened: Opener) -> None:
    """C3."""

    async def values() -> AsyncIterator[bytes]:
        for size in SENT:
            yield pattern(size)

    async with opened(Service()) as connection:
        assert await connection.proxy(Service).total(values()) == sum(SENT)


async def test_ping_pong(opened: Opener) -> None:
    """C5: each reply before the next is sent."""
    send, receive = trio.open_memory_channel[bytes](0)
    async with opened(Service()) as connection, send:
        async with connection.proxy(Service).reply(receive) as replies:
            for sent, replied in zip(SENT, REPLIED, strict=True):
                await send.send(pattern(sent))
                assert await replies.receive() == pattern(replied)
            await send.aclose()
            with pytest.raises(trio.EndOfChannel):
                await replies.receive()


async def test_the_server_speaks_first(opened: Opener) -> None:
    """C7."""
    asked = trio.Event()

    async def names() -> AsyncIterator[str]:
        await asked.wait()
        yield "me"

    async with opened(Service()) as connection:
        api = connection.proxy(Service)
        async with api.greet(names()) as said:  # type: ignore[arg-type]
            assert await said.receive() == "who is there?"
            asked.set()
            assert [each async for each in said] == ["hello me"]


async def test_the_server_has_heard_enough(opened: Opener) -> None:
    """C8: the result is kept, and the iterator is closed when the call has returned."""
    log = []

    async def numbers() -> AsyncIterator[int]:
        try:
            number = 7
            while True:
                yield number
                number += 1
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            log.append("closed")

    async with opened(Service()) as connection:
        api = connection.proxy(Service)
        for _ in range(5):
            assert await api.first(numbers()) == 7  # type: ignore[arg-type]
            assert log == ["closed"]
            log.clear()


async def test_metadata_of_bytes(opened: Opener, encoding: str) -> None:
    """C12: as bytes where the encoding has them."""
    data = bytes(range(256))
    async with opened(Service(), metadata={"data": data, "text": "é\x00😀"}) as connection:
        found = await connection.call("metadata")
    assert found["text"] == "é\x00😀"
    if encoding == "msgpack":
        assert found["data"] == data
    else:
        assert found["data"].startswith("AAECAwQF")


@pytest.mark.parametrize("count", [1, 3, 10])
async def test_cancelled_while_it_encodes(opened: Opener, count: int) -> None:
    """C14: in the middle of an encoding, which nothing can interrupt; nothing is torn."""
    encoded = 0
    scope = trio.CancelScope()
    converter = cattrs.Converter()

    def encode(picture: Picture) -> str:
        nonlocal encoded
        encoded += 1
        if encoded == count:
            scope.cancel()
        return picture.data.decode()

    converter.register_unstructure_hook(Picture, encode)
    converter.register_structure_hook(Picture, lambda value, _: Picture(value.encode()))
    service = Pictures()
    async with opened(service, converter=converter) as connection:
        with scope:
            async with connection.proxy(Pictures).pictures() as stream:
                async for picture in stream:
                    assert picture.data == b"x"
        assert scope.cancelled_caught
        await until(lambda: service.ended)
        assert await connection.call("number") == 5


@pytest.mark.parametrize(
    ("window", "ahead"),
    [(Window(5, 100_000), 5), (Window(1, 1), 1), (Window(1000, 301), 4)],
)
async def test_the_look_ahead_of_an_upload(
    opened: Opener, encoding: str, window: Window, ahead: int
) -> None:
    """C21: exactly the window that the other side has announced, in items and in bytes."""
    produced = 0
    # 98 characters of base64 and quotes, or 100 bytes with their header: four to 301.
    size = 72 if encoding == "json" else 98

    async def values() -> AsyncIterator[bytes]:
        nonlocal produced
        for _ in range(50):
            produced += 1
            yield bytes(size)

    service = Service()
    limits = Limits(window=window, max_window=window)
    async with opened(service, limits=limits) as connection, trio.open_nursery() as nursery:
        api = connection.proxy(Service)

        async def upload() -> None:
            assert await api.none_yet(values()) == 50

        nursery.start_soon(upload)
        await until_still(lambda: produced)
        assert produced == ahead
        assert await connection.call("metadata") == {}
        service.release.set()
