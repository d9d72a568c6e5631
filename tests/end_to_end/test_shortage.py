"""Out of file descriptors: who is there is served, and who comes is served when there are some."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from tests.addresses import KINDS, address
from tests.end_to_end.network import address_of, serving, until
from tests.service import Service
from trio_streamrpc import Connection, Unavailable, connect

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it counts descriptors in /proc")


def highest() -> int:
    return max(int(number) for number in os.listdir("/proc/self/fd"))


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """None above those that are open now, and none of these is free."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = []
    top = highest() + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                fillers.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in fillers:
            os.close(each)


def knocking(url: str) -> socket.socket:
    """A client's socket, which is there before there is a shortage."""
    unix = url.startswith("unix:")
    found = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    found.setblocking(False)
    return found


def knock(each: socket.socket, url: str) -> None:
    if url.startswith("unix:"):
        each.connect(url.removeprefix("unix://"))
        return
    with pytest.raises(BlockingIOError):
        each.connect(address_of(url))


@pytest.mark.parametrize("kind", KINDS)
async def test_out_of_file_descriptors(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    with address(kind) as (url, server_options, options):
        async with (
            serving(service, url, **server_options) as server,
            connect(server.url, **options) as connection,
        ):
            waiting = [knocking(server.url) for _ in range(3)]
            try:
                with no_descriptor_left():
                    for each in waiting:
                        knock(each, server.url)
                    await until(lambda: caplog.records)
                    await is_served(connection)
                    assert len(server.connections) == 1
                start = trio.current_time()
                for each in waiting:
                    each.close()
                async with connect(server.url, **options) as later:
                    assert await later.call("add", 1, 2) == 3
                assert trio.current_time() - start < 5
            finally:
                for each in waiting:
                    each.close()
            said = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
            assert said == [
                "nobody can be accepted: Too many open files; it is tried again and again"
            ]


async def is_served(connection: Connection) -> None:
    """Calls, and a stream, for longer than the accept loop waits."""
    async with connection.stream("forever", 100) as stream:
        for _ in range(20):
            assert await connection.call("add", 1, 2) == 3
            await stream.receive()
            await trio.sleep(0.02)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_without_a_descriptor(kind: str) -> None:
    """It is told as any other reason that nobody answers, and the next attempt succeeds."""
    with address(kind) as (url, server_options, options):
        async with serving(Service(), url, **server_options) as server:
            with no_descriptor_left(), pytest.raises(Unavailable, match="cannot connect to"):
                async with connect(server.url, **options):
                    pytest.fail("the block must not begin")
            async with connect(server.url, **options) as connection:
                assert await connection.call("add", 1, 2) == 3
