"""docs/how-to/deploy.md: behind the real nginx and HAProxy, with the configurations shown there."""

from __future__ import annotations

import configparser
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.addresses import client_context, free_port
from tests.end_to_end.network import serving
from tests.end_to_end.proxies import DEPLOY, Proxy, behind, checked, listens, missing
from tests.service import Service
from trio_streamrpc import (
    Connection,
    ConnectionLost,
    Limits,
    PermissionDenied,
    RpcError,
    Server,
    Unavailable,
    connect,
)

SERVER = DEPLOY / "market_server.py"
UNIT = DEPLOY / "market.service"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Debian's packages are for Linux")


@pytest.fixture(params=["nginx", "haproxy"])
def name(request: pytest.FixtureRequest) -> str:
    """A proxy that is there, or can be fetched."""
    reason = missing(request.param)
    if reason is not None:
        pytest.skip(reason)
    chosen: str = request.param
    return chosen


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Connection]:
    async with connect(url, ssl_context=client_context(), **options) as connection:
        yield connection


@asynccontextmanager
async def proxied(
    name: str,
    place: Path,
    service: object,
    changes: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Proxy, Server]]:
    """A server of that service, and a proxy before it."""
    with trio.fail_after(30):
        async with serving(service, **options) as server:
            async with behind(name, server.url, place, changes) as proxy:
                yield proxy, server


async def test_the_configuration_is_taken_without_a_warning(name: str, tmp_path: Path) -> None:
    code, said = await checked(name, "ws://127.0.0.1:8765", tmp_path)
    assert code == 0, said
    assert not re.search("warn|alert|emerg", said, re.IGNORECASE), said


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_calls_streams_and_large_messages(
    name: str, encoding: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service()
    # As long as a message may be, by which no proxy is to be bothered.
    limits = Limits(max_frame_bytes=900_000)
    async with proxied(name, tmp_path, service, limits=limits) as (proxy, server):
        async with connected(proxy.url, encoding=encoding, limits=limits) as connection:
            assert await connection.call("add", 1, 2) == 3
            value = os.urandom(3_000_000)
            async with connection.stream("forever", 10_000) as stream:
                for _ in range(100):
                    await stream.receive()
            assert service.ended == ["forever"]  # R7: also with a proxy in between
            if encoding == "msgpack":
                assert await connection.call("echo", value) == value
            [there] = server.connections
            headers = {**there.headers}
            assert headers["host"] == proxy.url.removeprefix("wss://")
            assert headers["x-forwarded-for"] == "127.0.0.1"
            assert headers["x-forwarded-proto"] == "https"
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


async def test_what_a_client_says_of_its_address_does_not_count(name: str, tmp_path: Path) -> None:
    async with proxied(name, tmp_path, Service()) as (proxy, server):
        headers = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}
        async with connected(proxy.url, headers=headers):
            [there] = server.connections
            assert there.headers["x-forwarded-for"] == "127.0.0.1"
            assert there.headers["x-forwarded-proto"] == "https"


async def test_backpressure_passes(name: str, tmp_path: Path) -> None:
    """R14: the producer is ahead by the window, and not by what a proxy could hold as well."""
    service = Service()
    async with proxied(name, tmp_path, service) as (proxy, _):
        async with connected(proxy.url) as connection:
            async with connection.stream("forever", 100_000) as stream:
                await stream.receive()
                await trio.sleep(0.3)
                assert service.produced <= 5


async def test_a_silent_connection_is_kept_by_our_pings(name: str, tmp_path: Path) -> None:
    """R24: longer than the proxy waits. Without them it does not last, which is why they are."""
    service = Service()
    async with proxied(name, tmp_path, service, {"60s": "1s"}) as (proxy, _):
        async with (
            connected(proxy.url, limits=Limits(ping_interval=0.2)) as kept,
            connected(proxy.url) as lost,
        ):
            async with trio.open_nursery() as nursery:

                async def wait_for_the_end() -> None:
                    with pytest.raises(ConnectionLost):
                        await lost.call("wait")

                nursery.start_soon(wait_for_the_end)
                await service.wait_running()
                stream = kept.stream("forever")
                await stream.receive()
                await trio.sleep(1.5)
            assert service.ended == ["wait"]
            assert await kept.call("add", 1, 2) == 3
            await stream.aclose()
            assert service.ended == ["wait", "forever"]


async def test_a_proxy_that_is_stopped(name: str, tmp_path: Path) -> None:
    """The client is told, and the service is rid of what it had begun for it."""
    service = Service()
    async with proxied(name, tmp_path, service) as (proxy, _):
        async with connected(proxy.url) as connection:
            stream = connection.stream("forever")
            await stream.receive()
            await proxy.stop()
            with pytest.raises(ConnectionLost):
                while True:
                    await stream.receive()
        await service.wait_ended()
        assert service.running == []
        with pytest.raises(Unavailable):
            async with connected(proxy.url):
                pytest.fail("nobody is there")


async def test_a_proxy_that_is_reloaded(name: str, tmp_path: Path) -> None:
    """What is open goes on, for as long as the configuration says, and new clients get in."""
    service = Service()
    async with proxied(name, tmp_path, service, {" 1h": " 1s"}) as (proxy, server):
        async with connected(proxy.url) as connection:
            stream = connection.stream("forever")
            await stream.receive()
            proxy.reload()
            start = trio.current_time()
            await stream.receive()
            async with connected(proxy.url) as another:
                assert await another.call("add", 1, 2) == 3
            with pytest.raises(ConnectionLost):
                while True:
                    await stream.receive()
                    await trio.sleep(0.02)
            assert trio.current_time() - start > 0.8
        await service.wait_ended()
        async with connected(proxy.url) as connection:
            assert await connection.call("add", 1, 2) == 3
            assert len(server.connections) == 1


async def test_origins(name: str, tmp_path: Path) -> None:
    """They pass the proxy, and so does the host, with which they are compared in the next test."""
    allowed = ["https://www.example.com"]
    async with proxied(name, tmp_path, Service(), allowed_origins=allowed) as (proxy, _):
        async with connected(proxy.url, headers={"Origin": allowed[0]}) as connection:
            assert await connection.call("add", 1, 2) == 3
        with pytest.raises(PermissionDenied, match="this origin is not allowed"):
            async with connected(proxy.url, headers={"Origin": "https://evil.example"}):
                pytest.fail("the block must not begin")


async def test_origins_of_the_same_host(name: str, tmp_path: Path) -> None:
    async with proxied(name, tmp_path, Service()) as (proxy, _):
        own = proxy.url.replace("wss:", "https:")
        async with connected(proxy.url, headers={"Origin": own}) as connection:
            assert await connection.call("add", 1, 2) == 3
        with pytest.raises(PermissionDenied):
            async with connected(proxy.url, headers={"Origin": "https://127.0.0.1"}):
                pytest.fail("the block must not begin")


async def test_the_certificate_is_the_proxys(name: str, tmp_path: Path) -> None:
    async with proxied(name, tmp_path, Service()) as (proxy, _):
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            async with connect(proxy.url):
                pytest.fail("the block must not begin")


async def test_how_many_connections_one_client_has(name: str, tmp_path: Path) -> None:
    """It is the proxy that knows who they are, and refuses them with 503."""
    changes = {"nginx": {"clients 100": "clients 2"}, "haproxy": {"gt 100": "gt 2"}}
    async with proxied(name, tmp_path, Service(), changes[name]) as (proxy, _):
        async with connected(proxy.url) as first:
            async with connected(proxy.url):
                with pytest.raises(Unavailable, match="503"):
                    async with connected(proxy.url):
                        pytest.fail("the block must not begin")
            assert await first.call("add", 1, 2) == 3


@pytest.mark.parametrize("name", ["nginx"], indirect=True)  # HAProxy's check takes a place, too
async def test_to_the_service_all_clients_have_one_address(name: str, tmp_path: Path) -> None:
    limits = Limits(max_connections_per_peer=1)
    async with proxied(name, tmp_path, Service(), limits=limits) as (proxy, _):
        async with connected(proxy.url):
            with pytest.raises(Unavailable, match="503"):
                async with connected(proxy.url):
                    pytest.fail("the block must not begin")


async def test_one_of_two_servers_goes_away(name: str, tmp_path: Path) -> None:
    """R27: new clients get to the other one, and those that were there are told."""
    async with serving(Service()) as first, serving(Service()) as second:
        here, there = (urlsplit(each.url).netloc for each in (first, second))
        changes = {
            "nginx": {f"server {here};": f"server {here}; server {there};"},
            "haproxy": {f"server one {here}": f"server two {there} check\n    server one {here}"},
        }
        async with behind(name, first.url, tmp_path, changes[name]) as proxy:
            with trio.fail_after(20):
                async with connected(proxy.url), connected(proxy.url):
                    assert [len(each.connections) for each in (first, second)] == [1, 1]
                    await first.drain()
                    for _ in range(4):
                        async with connected(proxy.url) as new:
                            assert await new.call("add", 1, 2) == 3
                    assert len(second.connections) == 1


@asynccontextmanager
async def deployed(place: Path) -> AsyncIterator[tuple[trio.Process, str]]:
    """The server as it is shown, at another port."""
    port = free_port()
    text = SERVER.read_text(encoding="utf-8")
    assert text.count(":8765") == 1
    script = place / SERVER.name
    script.write_text(text.replace(":8765", f":{port}"), encoding="utf-8")
    process = await trio.lowlevel.open_process(
        [sys.executable, str(script)], stderr=subprocess.DEVNULL
    )
    try:
        with trio.fail_after(30):
            while not await listens(port):
                assert process.poll() is None
                await trio.sleep(0.02)
            yield process, f"ws://127.0.0.1:{port}"
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


async def test_a_server_that_is_told_to_end(name: str, tmp_path: Path) -> None:
    """R27, through a proxy: what runs finishes, nothing is begun, and then nobody is there."""
    async with deployed(tmp_path) as (process, url), behind(name, url, tmp_path) as proxy:
        reports: list[str] = []
        async with connected(proxy.url) as connection, trio.open_nursery() as nursery:

            async def report() -> None:
                reports.append(await connection.call("report", 0.5))

            assert await connection.call("my_address") == "127.0.0.1"
            async with connection.stream("ticks", "ACME") as ticks:
                assert await ticks.receive() == 101.5
                assert await connection.call("feeds") == 1
            assert await connection.call("feeds") == 0

            nursery.start_soon(report)
            await wait_all_tasks_blocked()
            assert await connection.call("feeds") == 0  # so that what was called before it runs
            process.send_signal(signal.SIGTERM)
            with pytest.raises(RpcError) as refused:
                while True:
                    await connection.call("feeds")
            assert isinstance(refused.value, Unavailable)
            assert refused.value.retry
        assert reports == ["all is well"]
        assert await process.wait() == 0
        with pytest.raises(Unavailable, match=r"50[23]"):
            async with connected(proxy.url):
                pytest.fail("the block must not begin")


async def test_the_unit_gives_it_the_time_that_it_takes() -> None:
    """serve_forever()'s 20 seconds, what cleanup may take after them, and not less of files."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text(encoding="utf-8"))
    service = unit["Service"]
    assert service["ExecStart"].endswith(f"/{SERVER.name}")
    assert int(service["TimeoutStopSec"]) > 20 + Limits().cleanup + 1
    assert int(service["LimitNOFILE"]) > Limits().max_connections
    assert "KillSignal" not in service  # SIGTERM, if nothing is said
