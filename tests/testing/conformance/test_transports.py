"""conformance/transports.py: ways to make a pair, and transports with one fault each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from tests.protocol.wire import BOTH
from trio_streamrpc import ConnectionLost, Transport
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.testing import Network, check_transport, open_simulated_transports
from trio_streamrpc.testing.conformance import transports
from trio_streamrpc.testing.conformance.transports import Pair
from trio_streamrpc.transports.memory import MemoryTransport, open_memory_transports


@BOTH
async def test_a_pair_that_is_made_at_once(encoding: Encoding, autojump_clock: MockClock) -> None:
    await check_transport(lambda: open_memory_transports(encoding=encoding))


async def test_a_pair_that_is_waited_for(autojump_clock: MockClock) -> None:
    made: list[Pair] = []

    async def make() -> Pair:
        await trio.lowlevel.checkpoint()
        made.append(open_memory_transports())
        return made[-1]

    await check_transport(make)
    for ends in made:
        for end in ends:
            with pytest.raises(ConnectionLost):
                await end.receive()


async def test_a_pair_that_is_held_open(autojump_clock: MockClock) -> None:
    closed = 0

    @asynccontextmanager
    async def make() -> AsyncIterator[Pair]:
        nonlocal closed
        yield open_memory_transports()
        closed += 1

    await check_transport(make)
    assert closed == len(transports.TRANSPORT_CHECKS)


@BOTH
@pytest.mark.parametrize(
    "network",
    [Network(), Network(latency=0.01, jitter=0.01), Network(bandwidth=1e7, stall=(0.01, 0.1))],
)
async def test_a_simulated_network(
    network: Network, encoding: Encoding, autojump_clock: MockClock
) -> None:
    """It keeps what every transport promises, however late."""
    await check_transport(lambda: open_simulated_transports(network, encoding=encoding))


class Wrapped(Transport):
    """As the one that it wraps, but for the one thing that a subclass does wrong."""

    def __init__(self, inner: MemoryTransport) -> None:
        self.inner = inner
        self.remote = "wrapped"

    async def send(self, message: bytes | str) -> None:
        await self.inner.send(message)

    async def receive(self) -> bytes | str:
        return await self.inner.receive()

    async def aclose(self) -> None:
        await self.inner.aclose()


class LosesWhenCancelled(Wrapped):
    async def receive(self) -> bytes | str:
        message = await self.inner.receive()
        await trio.lowlevel.checkpoint()
        return message


class ShowsWhatIsBelow(Wrapped):
    async def receive(self) -> bytes | str:
        try:
            return await self.inner.receive()
        except ConnectionLost as error:
            raise trio.BrokenResourceError from error


class LosesWhatWasSent(Wrapped):
    async def aclose(self) -> None:
        self.inner._receiver.close()
        self.inner._sender._state.data.clear()
        await self.inner.aclose()


class IsNoCheckpoint(Wrapped):
    async def send(self, message: bytes | str) -> None:
        self.inner._sender.send_nowait(message)


class WaitsForEver(Wrapped):
    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            await self.inner.aclose()
        await trio.sleep_forever()


class SaysItIsNowhere(Wrapped):
    def __init__(self, inner: MemoryTransport) -> None:
        super().__init__(inner)
        self.remote = ""


@pytest.mark.parametrize(
    ("faulty", "check"),
    [
        (LosesWhenCancelled, "a_cancelled_receive_has_taken_nothing"),
        (ShowsWhatIsBelow, "what_was_sent_before_the_end_is_received"),
        (LosesWhatWasSent, "what_was_sent_before_the_end_is_received"),
        (IsNoCheckpoint, "operations_are_checkpoints"),
        (WaitsForEver, "operations_are_checkpoints"),
        (SaysItIsNowhere, "what_it_says_of_itself"),
    ],
)
async def test_a_fault_is_found_and_named(
    faulty: type[Wrapped], check: str, autojump_clock: MockClock
) -> None:
    def make() -> Pair:
        here, there = open_memory_transports(capacity=100)
        return faulty(here), faulty(there)

    with pytest.raises((AssertionError, trio.BrokenResourceError, ExceptionGroup)) as caught:
        await check_transport(make)
    told = [str(caught.value), *getattr(caught.value, "__notes__", ())]
    assert any(f"{check}()" in each for each in told)
