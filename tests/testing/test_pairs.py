"""pairs.py: a connection to a service in the same process."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.protocol.wire import BOTH
from tests.service import Service
from trio_streamrpc import (
    InvalidArgument,
    Limits,
    RemoteProtocolError,
    ResourceExhausted,
    RpcError,
    current_call,
    rpc,
)
from trio_streamrpc.protocol import inbound
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.testing import open_pair


@BOTH
async def test_calls_and_streams_both_ways(encoding: Encoding, autojump_clock: MockClock) -> None:
    async with open_pair(Service(), encoding=encoding, serving=Service()) as connection:
        assert connection.remote == "memory"
        assert await connection.proxy(Service).add(1, 2) == 3
        assert await connection.call("add_there", 3, 4) == 7
        async with connection.proxy(Service).count(3) as stream:
            assert [item async for item in stream] == [0, 1, 2]


async def test_when_the_block_ends_both_sides_have(autojump_clock: MockClock) -> None:
    """Even where the other side takes its time, and this one was cancelled."""
    service = Service()
    with trio.CancelScope() as scope:
        async with open_pair(service) as connection:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.call, "linger", 3.0)
                await service.wait_running()
                scope.cancel()
    assert service.ended == ["linger"]
    assert trio.current_time() == pytest.approx(3)


async def test_limits_of_either_side(autojump_clock: MockClock) -> None:
    big = "x" * 5000
    async with open_pair(Service(), limits=Limits(max_value_bytes=2000)) as connection:
        with pytest.raises(ResourceExhausted):
            await connection.call("fail", big)
        assert connection.limits.max_value_bytes == 2000
    async with open_pair(
        Service(), limits=Limits(max_calls=3), client_limits=Limits(max_calls=5)
    ) as connection:
        assert connection.endpoint.peer.max_calls == 3
        assert connection.limits.max_calls == 5


async def test_metadata_and_masked_errors(autojump_clock: MockClock) -> None:
    class Told:
        @rpc
        async def told(self) -> dict[str, Any]:
            return dict(current_call().metadata)

        @rpc
        async def secret(self) -> None:
            raise ValueError("a secret")

    async with open_pair(Told(), metadata={"k": [1]}, mask_errors=True) as connection:
        assert await connection.call("told") == {"k": [1]}
        with pytest.raises(RpcError) as caught:
            await connection.call("secret")
        assert "secret" not in str(caught.value)


class NoService:
    pass


@pytest.mark.parametrize(
    "options",
    [
        {"service": NoService()},
        {"serving": NoService()},
        {"metadata": {"x": object()}},
        {"encoding": "xml"},
    ],
)
async def test_arguments_that_cannot_be(options: dict[str, Any], autojump_clock: MockClock) -> None:
    """Told at once, as what they are, and nobody waits for a handshake."""
    with pytest.raises((TypeError, ValueError, InvalidArgument)):
        async with open_pair(options.pop("service", Service()), **options):
            pytest.fail("the block must not begin")
    assert trio.current_time() == 0


async def test_a_handshake_that_fails(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's side tells how; what the other side met is no second error."""

    monkeypatch.setattr(inbound, "VERSION", 2)
    with pytest.raises(RpcError) as caught:
        async with open_pair(Service()):
            pytest.fail("the block must not begin")
    assert not isinstance(caught.value, RemoteProtocolError)
    assert "unknown version 1" in str(caught.value)


async def test_nested_pairs_keep_their_exceptions_apart(autojump_clock: MockClock) -> None:
    error = ValueError("of the block")
    one, two = Service(), Service()
    with pytest.raises(ValueError, match="of the block") as caught:
        async with open_pair(one) as first, open_pair(two) as second:
            await first.stream("forever").receive()
            await second.stream("forever").receive()
            raise error
    assert caught.value is error
    assert one.ended == two.ended == ["forever"]
