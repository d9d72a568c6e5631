"""What breaks between the two sides, at every moment: a result or a typed error, and no rest."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import pytest
import trio

from tests.addresses import address
from tests.end_to_end.innocent import EACH_TRANSPORT, Beside, memory_growing_by_at_most
from tests.end_to_end.network import SHORT, Relay, relaying, reset, serving, until
from tests.service import Service
from tests.transports.rawsocket import RawSocket
from trio_streamrpc import Connection, ConnectionLost, Limits, Server, Unavailable, connect, rpc

ENCODINGS = pytest.mark.parametrize("encoding", ["msgpack", "json"])
KINDS = pytest.mark.parametrize("kind", ["ws", "tcp", "tls"])


@ENCODINGS
async def test_a_reset_at_every_stage(encoding: Any) -> None:
    """By a server that is there by hand: in the handshakes, before and after an answer began."""
    protocol = f"streamrpc.1.{encoding}"

    async def serve_one(listener: trio.SocketListener, stage: int) -> None:
        stream = await listener.accept()
        raw = RawSocket(stream, client=False)
        if stage > 0:
            await raw.take_hand(protocol)
        if stage > 1:
            assert (await raw.hears())["type"] == "hello"
        if stage > 2:
            await raw.says({"type": "hello", "version": 1})
            assert (await raw.hears("call"))["id"] == 1
        if stage > 3:
            await raw.says({"type": "chunk", "id": 1, "items": [7], "size": 1})
            await raw.hears("grant")
        if stage > 4:
            await raw.send(b"\x82")  # half of the head of a frame
        reset(stream)

    for stage in range(6):
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        items = []
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(serve_one, listener, stage)
            url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
            with pytest.raises(Unavailable if stage < 1 else ConnectionLost) as caught:
                async with connect(url, encoding=encoding) as connection:
                    async with connection.stream("numbers") as stream:
                        async for item in stream:
                            items.append(item)
                            connection.caller.grant(1, 1, 1)
            assert caught.value.__cause__ is None
        assert items == ([7] if stage > 3 else [])


async def converse(connection: Connection) -> list[Any]:
    """A short conversation: a call, a whole stream, and one that is left."""
    results: list[Any] = [await connection.call("add", 1, 2)]
    async with connection.stream("count", 3) as stream:
        results.extend([item async for item in stream])
    async with connection.stream("few", 1) as stream:
        results.append(await stream.receive())
    return results


RESULTS = [3, 0, 1, 2, 0]


@ENCODINGS
@KINDS
@pytest.mark.parametrize("way", ["up", "down"])
async def test_cut_after_every_so_many_bytes(
    encoding: Any, kind: str, way: str, full: bool
) -> None:
    """A result or a typed error, and both sides are clean."""
    with address(kind) as (url, server_options, options):
        options["encoding"] = encoding
        service = Service()
        async with serving(service, url, limits=SHORT, **server_options) as server:
            step = 1 if full else 50
            await cut_after_every_so_many_bytes(service, server, options, way, step)


async def cut_after_every_so_many_bytes(
    service: Service, server: Server, options: Any, way: str, step: int
) -> None:
    async with relaying(server.url) as relay:
        async with connect(relay.url, **options) as connection:
            assert await converse(connection) == RESULTS
    total = relay.passed[way]
    assert total > 150
    outcomes = set()
    # How things fall into messages, and so the total, is not the same each time.
    for cut in [*range(0, total, step), total - 1, 2 * total]:
        which = {f"cut_{way}": cut}
        async with relaying(server.url, **which) as relay:
            try:
                with trio.fail_after(10):
                    async with connect(relay.url, limits=SHORT, **options) as connection:
                        assert await converse(connection) == RESULTS
                outcomes.add("done")
            except (ConnectionLost, Unavailable) as error:
                assert error.__cause__ is None  # noqa: PT017
                outcomes.add(type(error).__name__)
        await until(lambda: not (server.connections or service.running))
    assert outcomes == {"done", "ConnectionLost", "Unavailable"}


@ENCODINGS
@KINDS
async def test_single_bytes_make_no_difference(encoding: Any, kind: str) -> None:
    service = Service()
    with address(kind) as (url, server_options, options):
        async with serving(service, url, **server_options) as server:
            async with relaying(server.url, piece=1) as relay:
                async with connect(relay.url, encoding=encoding, **options) as connection:
                    assert await converse(connection) == RESULTS
            assert await settled(service) == ["count", "few"]


async def settled(service: Service) -> list[str]:
    await until(lambda: not service.running)
    return service.ended


# --- what stands still

IMPATIENT = Limits(ping_interval=0.3, ping_timeout=0.3, close_timeout=0.3, cleanup=0.5)


@EACH_TRANSPORT
@pytest.mark.parametrize("ways", [("up", "down"), ("up",), ("down",)], ids=["both", "up", "down"])
async def test_a_black_hole(ways: tuple[str, ...], beside: Beside) -> None:
    """R24: half-open, or open one way: noticed on both sides in ping_interval + ping_timeout."""
    async with beside(limits=IMPATIENT) as scene, relaying(scene.server.url) as relay:
        with trio.fail_after(10):
            caught = None
            start = trio.current_time()
            try:
                async with connect(
                    relay.url, encoding=scene.encoding, limits=IMPATIENT
                ) as connection:
                    async with connection.stream("few", 1) as stream:
                        await stream.receive()
                        assert scene.running == ["few"]
                        relay.close(*ways)
                        start = trio.current_time()
                        await stream.receive()
            except ConnectionLost as error:
                caught = error
            assert caught is not None
            # 0.6 s and what closing takes; the bound is far from both.
            assert trio.current_time() - start < 4
            await until(lambda: not scene.others)
            assert scene.service.ended == ["few"]


@EACH_TRANSPORT
async def test_deadlines_fire_over_a_black_hole(beside: Beside) -> None:
    """And leaving is bounded by close_timeout."""
    limits = Limits(close_timeout=0.2)
    async with beside(limits=IMPATIENT) as scene, relaying(scene.server.url) as relay:
        async with connect(relay.url, encoding=scene.encoding, limits=limits) as connection:
            await connection.call("add", 1, 2)
            relay.close()
            start = trio.current_time()
            with pytest.raises(trio.TooSlowError):
                with trio.fail_after(0.1):
                    await connection.call("add", 1, 2)
            assert trio.current_time() - start < 2
        assert trio.current_time() - start < 4


class Taking(Service):
    @rpc
    async def total(self, blobs: AsyncIterable[bytes]) -> int:
        return sum([len(blob) async for blob in blobs])


@pytest.mark.parametrize("kind", ["ws", "tcp"])
async def test_a_server_that_stops_reading(kind: str) -> None:
    """Deadlines fire, and aclose is bounded, though nothing can be written any more."""
    limits = Limits(close_timeout=0.2)
    async with serving(Taking(), f"{kind}://127.0.0.1:0", limits=SHORT) as server:
        async with relaying(server.url) as relay:

            async def blobs() -> AsyncIterator[bytes]:
                while True:
                    yield bytes(100_000)

            async with connect(relay.url, limits=limits) as connection:
                await connection.call("add", 1, 2)
                relay.close("up")
                start = trio.current_time()
                with memory_growing_by_at_most(12_000_000):
                    with trio.move_on_after(0.5) as scope:
                        await connection.call("total", blobs())
                    assert scope.cancelled_caught
                    with pytest.raises(trio.TooSlowError):
                        with trio.fail_after(0.1):
                            await connection.call("echo", bytes(100_000))
                await connection.aclose()
                assert trio.current_time() - start < 5


@EACH_TRANSPORT
async def test_a_client_that_stops_reading(beside: Beside) -> None:
    """R24: it is given up; until then nothing piles up for it, and others are served."""
    async with beside(limits=IMPATIENT) as scene, relaying(scene.server.url) as relay:
        with memory_growing_by_at_most(12_000_000):
            with pytest.raises(ConnectionLost):
                try:
                    async with connect(relay.url, encoding=scene.encoding) as connection:
                        async with connection.stream("forever", 10_000) as stream:
                            await stream.receive()
                            relay.close("down")
                            await until(lambda: not scene.others)
                            relay.open()
                            async for _ in stream:
                                pass
                except* ConnectionLost as group:
                    raise group.exceptions[0] from None
        assert scene.service.ended == ["forever"]


@EACH_TRANSPORT
async def test_a_stall_that_ends_in_time_is_none(beside: Beside) -> None:
    """Nothing is lost, and nobody is given up."""
    limits = Limits(ping_interval=0.2, ping_timeout=10)
    async with beside(limits=limits) as scene, relaying(scene.server.url) as relay:
        async with connect(relay.url, encoding=scene.encoding, limits=limits) as connection:
            for _ in range(3):
                relay.close()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(check, connection)
                    await trio.sleep(0.3)
                    relay.open()


async def check(connection: Connection) -> None:
    assert await converse(connection) == RESULTS


@EACH_TRANSPORT
async def test_a_reset_at_any_time(beside: Beside, full: bool) -> None:
    """Of both sides at once, while calls and streams go both ways."""
    async with beside(limits=SHORT) as scene:
        for number in range(200 if full else 8):
            async with relaying(scene.server.url) as relay:

                async def hang_up(relay: Relay = relay, number: int = number) -> None:
                    await trio.sleep(number % 20 * 0.001)
                    await until(relay.reset)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(hang_up)
                    try:
                        async with connect(relay.url, limits=SHORT) as connection:
                            while True:
                                assert await converse(connection) == RESULTS
                    except (ConnectionLost, Unavailable) as error:
                        assert error.__cause__ is None  # noqa: PT017
            await until(lambda: not scene.others)


# --- callers that come and go


@ENCODINGS
async def test_a_storm_of_cancellations(encoding: Any) -> None:
    """Callers come and go at every moment: no message is torn, and the connection works."""
    service = Service()
    async with serving(service) as server, connect(server.url, encoding=encoding) as connection:

        async def call(number: int) -> None:
            with trio.move_on_after(0.0005 * (number % 40)):
                await connection.call("echo", bytes(number * 37 % 50_000))

        async def consume(number: int) -> None:
            with trio.move_on_after(0.0005 * (number % 40)):
                async with connection.stream("forever", 10_000) as stream:
                    async for _ in stream:
                        pass

        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(call, number)
                    nursery.start_soon(consume, number)
            assert await connection.call("add", 1, 2) == 3
        await until(lambda: not (service.running or connection.statistics().calls_open))
