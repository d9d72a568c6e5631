"""The service of the demonstration, over memory."""

import hashlib
from pathlib import Path

import pytest

from trio_streamrpc import Aborted
from trio_streamrpc.cli.demo_service import CHUNK_BYTES, ITEMS_WINDOW, DemoService, LookAhead
from trio_streamrpc.cli.demo_source import Source, open_source
from trio_streamrpc.testing import open_pair


class Broken(Source):
    def __init__(self) -> None:
        self.name, self.size = "broken", 100

    def read_at(self, offset: int, size: int) -> bytes:
        raise OSError(5, "Input/output error")


def test_look_ahead_is_what_was_produced_and_not_taken() -> None:
    look_ahead = LookAhead()
    for _ in range(ITEMS_WINDOW.items - 1):
        look_ahead.produce()
    assert not look_ahead.full.is_set()
    look_ahead.produce()
    assert look_ahead.full.is_set()
    look_ahead.take()
    assert look_ahead.now == ITEMS_WINDOW.items - 1
    assert look_ahead.most == ITEMS_WINDOW.items


async def test_the_file_arrives_as_it_is(tmp_path: Path) -> None:
    content = bytes(range(251)) * (3 * CHUNK_BYTES // 251)
    path = tmp_path / "file"
    path.write_bytes(content)
    async with open_source(path) as source, open_pair(DemoService(source)) as connection:
        api = connection.proxy(DemoService)
        async with api.file() as file:
            chunks = [chunk async for chunk in file]
        assert await api.file_sha256() == hashlib.sha256(content).hexdigest()
    assert b"".join(chunks) == content
    assert len(chunks) == 3


async def test_a_file_that_cannot_be_read_any_more() -> None:
    async with open_pair(DemoService(Broken())) as connection:
        api = connection.proxy(DemoService)
        with pytest.raises(Aborted, match="could not be read: Input/output error"):
            await api.file_sha256()
        async with api.file() as file:
            with pytest.raises(Aborted, match="could not be read: Input/output error"):
                await file.receive()


async def test_samples_are_of_this_machine() -> None:
    async with open_pair(DemoService(Broken())) as connection:
        async with connection.proxy(DemoService).machine(0.01) as machine:
            sample = await machine.receive()
    assert 0 <= sample.cpu <= 100
    assert 0 < sample.memory <= 100
    assert 0 < sample.memory_used < sample.memory_total


async def test_leaving_the_feed_runs_its_finally() -> None:
    service = DemoService(Broken())
    async with open_pair(service) as connection:
        async with connection.proxy(DemoService).feed() as feed:
            assert [await feed.receive(), await feed.receive()] == [0, 1]
            assert service.cleanup.ended is None
        assert service.cleanup.began is not None
        assert service.cleanup.ended is not None
        assert service.cleanup.began <= service.cleanup.ended
