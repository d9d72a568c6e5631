"""Values that travel in parts, over WebSocket (R21)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from tests.end_to_end.network import SHORT, relaying, serving, until
from tests.large_values import SHAPES, Service, text_of
from trio_streamrpc import ConnectionLost, Limits, connect

ENCODINGS = pytest.mark.parametrize("encoding", ["msgpack", "json"])


@ENCODINGS
@pytest.mark.parametrize("shape", SHAPES)
async def test_every_place(shape: str, encoding: Any) -> None:
    """Half a megabyte in each; with parts and messages as short as they may be, some thousands."""
    for size, limits in (
        (500_000, Limits()),
        (20_000, Limits(max_frame_bytes=300, max_message_bytes=1024)),
    ):
        service = Service(text_of(encoding, size))
        async with (
            serving(service, limits=limits) as server,
            connect(server.url, encoding=encoding, limits=limits) as connection,
        ):
            await SHAPES[shape](connection.proxy(Service), service)


async def test_small_calls_beside_a_hundred_megabytes() -> None:
    """They are answered while it is under way, and not after it."""
    size = 100_000_000
    service = Service()
    async with serving(service) as server, connect(server.url) as connection:
        api = connection.proxy(Service)
        partial: list[int] = []
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                while True:
                    assert await api.small(1) == 2
                    partial.append(connection.endpoint.partial_bytes)

            nursery.start_soon(call)
            assert len(await api.zeros(size)) == size
            nursery.cancel_scope.cancel()
    # At every tenth of it, there was one at least.
    assert {each * 10 // size for each in partial} == set(range(10))


@ENCODINGS
async def test_several_at_once_both_ways(encoding: Any) -> None:
    """More than there is room for: all of them arrive."""
    limits = Limits(max_value_bytes=1_000_000, max_partial_bytes=1_500_000)
    service = Service(text_of(encoding, 900_000))
    done: list[bool] = []
    async with (
        serving(service, limits=limits) as server,
        connect(server.url, encoding=encoding, limits=limits) as connection,
    ):
        api = connection.proxy(Service)

        async def echo() -> None:
            done.append(await api.echo(service.value) == service.value)

        async def items() -> None:
            async with api.items(2) as stream:
                found = [each async for each in stream]
            done.append(found == ["0", service.value, "1", service.value])

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(echo)
                    nursery.start_soon(items)
    assert done == [True] * 10


@ENCODINGS
async def test_cancelled_in_the_middle(encoding: Any) -> None:
    """Nothing is started of a call that has not come whole, and the connection goes on."""
    service = Service("x" * 5_000_000)
    async with serving(service) as server, connect(server.url, encoding=encoding) as connection:
        api = connection.proxy(Service)
        [there] = server.connections
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.take, service.value)
            await until(lambda: there.endpoint.partial_bytes > 0)
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.give)
            await until(lambda: connection.endpoint.partial_bytes > 0)
            nursery.cancel_scope.cancel()
        async with api.items() as stream:
            assert await stream.receive() == "0"
            await until(lambda: connection.endpoint.partial_bytes > 0)
        assert service.ended == ["items"]
        assert await api.small(1) == 2
        assert service.seen == []
        await until(lambda: there.endpoint.exchanges == {})
        for each in (there, connection):
            assert each.endpoint.partial_bytes == each.endpoint.outbox.room.used == 0


@ENCODINGS
@pytest.mark.parametrize("way", ["up", "down"])
async def test_cut_off_in_the_middle(way: str, encoding: Any) -> None:
    """Both sides hear of it, and nothing of the value is kept."""
    service = Service("x" * 5_000_000)

    async def values() -> AsyncIterator[str]:
        try:
            yield service.value
        finally:
            service.ended.append("values")

    async with (
        serving(service, limits=SHORT) as server,
        relaying(
            server.url,
            cut_up=1_000_000 if way == "up" else None,
            cut_down=1_000_000 if way == "down" else None,
        ) as relay,
    ):
        with trio.fail_after(5), pytest.raises(ConnectionLost):
            async with connect(relay.url, encoding=encoding, limits=SHORT) as connection:
                [there] = server.connections
                api = connection.proxy(Service)
                try:
                    await (api.collect(values()) if way == "up" else api.give())
                finally:
                    assert connection.endpoint.partial_bytes == 0
        await until(lambda: not server.connections)
        assert there.endpoint.partial_bytes == there.endpoint.outbox.room.used == 0
        assert sorted(service.ended) == (["collect", "values"] if way == "up" else [])
