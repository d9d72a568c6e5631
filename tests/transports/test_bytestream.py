"""bytestream.py: prefaces, lengths, and messages that come in any pieces."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from tests.protocol.wire import BOTH
from trio_streamrpc.errors import ConnectionLost, RemoteProtocolError, Unavailable
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.endpoint import Side
from trio_streamrpc.transports.base import MESSAGE_SLACK
from trio_streamrpc.transports.bytestream import (
    ByteStreamTransport,
    accept_stream,
    open_stream,
)
from trio_streamrpc.transports.lengths import MessageBuffer

LIMITS = Limits(handshake_timeout=3, close_timeout=2, max_message_bytes=2000)


def framed(*messages: bytes) -> bytes:
    return b"".join(len(each).to_bytes(4, "big") + each for each in messages)


@asynccontextmanager
async def opened(
    encoding: Encoding = "msgpack", limits: Limits = LIMITS
) -> AsyncIterator[tuple[trio.StapledStream[Any, Any], ByteStreamTransport]]:
    """The bare end of a stream, and a transport over the other; the prefaces have been said."""
    theirs, ours = memory_stream_pair()
    preface = b"TSR1m" if encoding == "msgpack" else b"TSR1j"
    with trio.fail_after(1000):
        await theirs.send_all(preface)
        async with open_stream(ours, "connecting", encoding=encoding, limits=limits) as transport:
            assert await theirs.receive_some(5) == preface
            yield theirs, transport


async def test_a_limit_that_is_lower_for_a_while(autojump_clock: MockClock) -> None:
    """Known by its header, before any of a longer message is kept."""
    async with opened() as (theirs, transport):
        assert transport.certificate() is None
        transport.limit(1000)
        await theirs.send_all(framed(bytes(1000)))
        assert len(await transport.receive()) == 1000
        transport.limit(10_000)
        await theirs.send_all(framed(bytes(9000)))
        assert len(await transport.receive()) == 9000
        transport.limit(1000)
        await theirs.send_all((1000 + MESSAGE_SLACK + 1).to_bytes(4, "big"))
        with pytest.raises(RemoteProtocolError, match="above the limit of 1000"):
            await transport.receive()


# --- the buffer, by itself


@given(st.lists(st.binary(max_size=40), max_size=20), st.data())
def test_messages_in_any_pieces(messages: list[bytes], data: st.DataObject) -> None:
    """R3: they arrive whole, and what is kept is never more than what has arrived."""
    wire = framed(*messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)))))
    buffer = MessageBuffer(100)
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        buffer.feed(wire[start:end])
        while buffer.find():
            assert buffer
            found.append(buffer.take())
    assert found == messages
    assert not buffer
    assert all(type(each) is bytes for each in found)


def test_what_a_stream_gives_need_not_be_bytes() -> None:
    buffer = MessageBuffer(100)
    piece = bytearray(framed(b"one"))
    buffer.feed(piece)
    piece[:] = bytes(len(piece))
    assert buffer.find()
    assert buffer.take() == b"one"


@pytest.mark.parametrize("pieces", [1, 2, 4, 100])
def test_a_length_above_the_limit(pieces: int) -> None:
    """R28: it is known before any of the message is there, and stays known."""
    for length in (2000 + MESSAGE_SLACK + 1, 2**31, 2**32 - 1):
        wire = framed(b"one") + length.to_bytes(4, "big") + bytes(10)
        buffer = MessageBuffer(2000)
        found = []
        with pytest.raises(RemoteProtocolError, match="above the limit of 2000") as caught:
            for start in range(0, len(wire), pieces):
                buffer.feed(wire[start : start + pieces])
                while buffer.find():
                    found.append(buffer.take())
        assert found == [b"one"]
        assert caught.value.close_code == 1009
        with pytest.raises(RemoteProtocolError):
            buffer.find()


def test_a_length_just_above_the_limit_is_the_codecs() -> None:
    buffer = MessageBuffer(2000)
    buffer.feed(framed(bytes(2000 + MESSAGE_SLACK)))
    assert buffer.find()
    assert len(buffer.take()) == 2000 + MESSAGE_SLACK


def test_a_message_that_is_announced_costs_nothing() -> None:
    """Nor is more kept of one that has begun than what is there of it."""
    gc.collect()
    tracemalloc.start()
    buffers = []
    for _ in range(100):
        buffer = MessageBuffer(2**20)
        buffer.feed((2**20).to_bytes(4, "big") + b"x")
        assert not buffer.find()
        buffers.append(buffer)
    kept, _ = tracemalloc.get_traced_memory()
    for _ in range(1000):
        buffers[0].feed(b"x" * 10)
        assert not buffers[0].find()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100 * 1000
    assert grown - kept < 2 * 10_000


# --- receiving


@BOTH
async def test_in_single_bytes(encoding: Encoding, autojump_clock: MockClock) -> None:
    """R3: both ways."""
    messages = [b"", b"x", "é€😀".encode(), b"y" * 300]
    async with opened(encoding) as (theirs, transport):
        received = []

        async def receive() -> None:
            for _ in messages:
                received.append(await transport.receive())  # noqa: PERF401

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for number in framed(*messages):
                await theirs.send_all(bytes([number]))
                await wait_all_tasks_blocked()
        sent: list[Any] = [each.decode() if encoding == "json" else each for each in messages]
        assert received == sent
        for each in sent:
            await transport.send(each)
        wire = framed(*messages)
        answer = b""
        while len(answer) < len(wire):
            answer += await theirs.receive_some()
        assert answer == wire


async def test_cancelled_at_every_byte(autojump_clock: MockClock) -> None:
    """Nothing is taken, and nothing is lost."""
    messages = [b"one", b"", b"three" * 10]
    wire = framed(*messages)
    async with opened() as (theirs, transport):
        received: list[bytes | str] = []
        for number in wire:
            await theirs.send_all(bytes([number]))
            with trio.move_on_after(1):
                while True:
                    received.append(await transport.receive())
    assert received == messages


async def test_a_message_that_is_there_is_not_taken_by_who_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    async with opened() as (theirs, transport):
        await theirs.send_all(framed(b"one", b"two"))
        assert await transport.receive() == b"one"
        with trio.CancelScope() as scope:
            scope.cancel()
            await transport.receive()
        assert scope.cancelled_caught
        assert await transport.receive() == b"two"


async def test_cut_after_every_byte(autojump_clock: MockClock) -> None:
    """What was whole arrives; then the end, whenever it is asked for."""
    messages = [b"one", b"", b"three"]
    wire = framed(*messages)
    for cut in range(len(wire) + 1):
        whole = [
            each
            for number, each in enumerate(messages)
            if len(framed(*messages[: number + 1])) <= cut
        ]
        between = cut in {len(framed(*messages[:number])) for number in range(4)}
        async with opened() as (theirs, transport):
            await theirs.send_all(wire[:cut])
            await theirs.aclose()
            assert [await transport.receive() for _ in whole] == whole
            for _ in range(3):
                with pytest.raises(ConnectionLost) as caught:
                    await transport.receive()
                assert ("in the middle" in str(caught.value)) is not between
                assert caught.value.__cause__ is None


async def test_text_that_is_no_utf8(autojump_clock: MockClock) -> None:
    """R2, R28."""
    for text in (b"\xff", b"\xed\xa0\x80", b"[\xc3]", b"\xf8\x88\x80\x80\x80"):
        async with opened("json") as (theirs, transport):
            await theirs.send_all(framed(b"[]", text))
            assert await transport.receive() == "[]"
            with pytest.raises(RemoteProtocolError, match="not UTF-8") as caught:
                await transport.receive()
            assert caught.value.close_code == 1007
            assert caught.value.__suppress_context__


async def test_bytes_are_noticed_before_there_is_a_message(autojump_clock: MockClock) -> None:
    async with opened() as (theirs, transport), trio.open_nursery() as nursery:
        nursery.start_soon(transport.receive)
        for number in framed(b"x")[:4]:
            await trio.sleep(1)
            await theirs.send_all(bytes([number]))
            await wait_all_tasks_blocked()
            assert transport.last_heard == trio.current_time()
        nursery.cancel_scope.cancel()


# --- sending, and the end


async def test_a_message_that_was_cut_off_is_the_last(autojump_clock: MockClock) -> None:
    theirs, ours = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, b"TSR1m")
        nursery.start_soon(theirs.receive_some, 5)
        async with open_stream(ours, "connecting", encoding=None, limits=LIMITS) as transport:
            with trio.move_on_after(1) as scope:
                await transport.send(b"x" * 100)
            assert scope.cancelled_caught
            with pytest.raises(ConnectionLost):
                await transport.send(b"y")
            start = trio.current_time()
            # It cannot be closed in order any more, and nobody waits for that.
            await transport.aclose()
            assert trio.current_time() == start
            with pytest.raises(ConnectionLost):
                await transport.send(b"y")


async def test_the_end_is_told_before_it_is_waited_for(autojump_clock: MockClock) -> None:
    """What the other side sends meanwhile is dropped; its end is the end."""
    async with opened() as (theirs, transport), trio.open_nursery() as nursery:
        await transport.send(b"last")
        nursery.start_soon(transport.aclose)
        assert await theirs.receive_some() == framed(b"last")
        assert await theirs.receive_some() == b""
        await theirs.send_all(framed(b"late") * 10)
        await wait_all_tasks_blocked()
        start = trio.current_time()
        await theirs.send_all(framed(b"later"))
        nursery.start_soon(lost, transport.receive)
        nursery.start_soon(lost, transport.send, b"x")
        await trio.sleep(1)
        await theirs.aclose()
    assert trio.current_time() - start == 1


async def lost(operation: Callable[..., Awaitable[Any]], *args: Any) -> None:
    with pytest.raises(ConnectionLost, match="the transport was closed"):
        await operation(*args)


async def test_a_close_beside_a_receive_lasts_as_long(autojump_clock: MockClock) -> None:
    """Who waits for a message hears of the end when it is there, and not before."""
    async with opened() as (theirs, transport), trio.open_nursery() as nursery:
        nursery.start_soon(lost, transport.receive)
        await wait_all_tasks_blocked()
        nursery.start_soon(transport.aclose)
        await wait_all_tasks_blocked()
        await theirs.send_all(framed(b"late"))
        await trio.sleep(1)
        assert len(nursery.child_tasks) == 2
        await theirs.aclose()
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks


async def test_a_close_goes_on_when_the_receive_beside_it_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    async with opened() as (theirs, transport), trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            nursery.start_soon(transport.aclose)
            await transport.receive()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        await theirs.send_all(b"xyz")
        await theirs.aclose()


async def test_a_close_beside_a_close_lasts_as_long(autojump_clock: MockClock) -> None:
    """It takes nothing away from what was sent: both wait for the other side's end."""
    async with opened() as (theirs, transport), trio.open_nursery() as nursery:
        await transport.send(b"last")
        nursery.start_soon(transport.aclose)
        await wait_all_tasks_blocked()
        nursery.start_soon(transport.aclose)
        await wait_all_tasks_blocked()
        await theirs.send_all(framed(b"late"))
        await trio.sleep(1)
        assert len(nursery.child_tasks) == 2
        assert await theirs.receive_some() == framed(b"last")
        await theirs.aclose()
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks
        await transport.aclose()


async def test_a_close_that_is_cancelled_ends_the_other(autojump_clock: MockClock) -> None:
    async with opened() as (theirs, transport), trio.open_nursery() as nursery:
        nursery.start_soon(transport.aclose)
        with trio.move_on_after(1) as scope:
            await transport.aclose()
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks
        assert trio.current_time() == 1
        with pytest.raises(trio.BrokenResourceError):
            await theirs.send_all(b"x")


async def test_another_side_that_does_not_end(autojump_clock: MockClock) -> None:
    """It is waited for no longer than close_timeout, though it sends on and on."""
    async with opened() as (theirs, transport), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await theirs.send_all(b"x")
                    await trio.sleep(0.1)

        nursery.start_soon(send)
        await transport.aclose()
        assert trio.current_time() == pytest.approx(2)


# --- prefaces


async def test_the_connecting_side_speaks_first(autojump_clock: MockClock) -> None:
    """R3: and the other answers the same, and nothing else before."""
    for encoding, preface in (("msgpack", b"TSR1m"), ("json", b"TSR1j")):
        theirs, ours = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            transports: list[Any] = []

            async def accept(ours: trio.abc.Stream, transports: list[Any]) -> None:
                async with accept_stream(ours, path="", limits=LIMITS) as transport:
                    transports.append(transport)
                    assert transport is not None
                    transports.append(await transport.receive())

            nursery.start_soon(accept, ours, transports)
            with trio.move_on_after(1) as silence:
                await theirs.receive_some()
            assert silence.cancelled_caught
            for number in preface:
                assert not transports
                await theirs.send_all(bytes([number]))
                await wait_all_tasks_blocked()
            assert await theirs.receive_some() == preface
            await theirs.send_all(framed(b"[]"))
            await wait_all_tasks_blocked()
            transport, message = transports
            assert transport.encoding == encoding
            assert transport.remote == "?"
            assert message == ("[]" if encoding == "json" else b"[]")


async def test_a_message_right_behind_the_preface(autojump_clock: MockClock) -> None:
    theirs, ours = memory_stream_pair()
    await theirs.send_all(b"TSR1m" + framed(b"one", b"two")[:-1])
    async with accept_stream(ours, path="", limits=LIMITS) as transport:
        assert transport is not None
        assert await transport.receive() == b"one"
        await theirs.send_all(b"o")
        assert await transport.receive() == b"two"


NO_PREFACES = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "another version": b"TSR2m",
    "another encoding": b"TSR1x",
    "lower case": b"tsr1m",
    "a byte before": b" TSR1m",
    "the first byte": b"T",
    "nearly": b"TSR1",
    "nothing": b"",
}


@pytest.mark.parametrize("what", NO_PREFACES)
@pytest.mark.parametrize("end", ["wait", "close"])
async def test_what_is_no_client(what: str, end: str, autojump_clock: MockClock) -> None:
    """R3: it is hung up on as soon as that is clear, or in time; and answered nothing."""
    theirs, ours = memory_stream_pair()
    if NO_PREFACES[what]:
        await theirs.send_all(NO_PREFACES[what])
    if end == "close":
        await theirs.send_eof()
    async with accept_stream(ours, path="", limits=LIMITS) as transport:
        assert transport is None
    unclear = b"TSR1".startswith(NO_PREFACES[what][:5])
    assert trio.current_time() == pytest.approx(3 if unclear and end == "wait" else 0)
    assert await theirs.receive_some() == b""


@pytest.mark.parametrize("what", [*NO_PREFACES, "the other encoding"])
@pytest.mark.parametrize("end", ["wait", "close"])
async def test_what_is_no_server(what: str, end: str, autojump_clock: MockClock) -> None:
    """R3: Unavailable, which shows what it said."""
    theirs, ours = memory_stream_pair()
    said = NO_PREFACES.get(what, b"TSR1j")
    if said:
        await theirs.send_all(said)
    if end == "close":
        await theirs.send_eof()
    with pytest.raises(Unavailable) as caught:
        async with open_stream(ours, "connecting", encoding=None, limits=LIMITS):
            pytest.fail("the block must not begin")
    if b"TSR1".startswith(said) and end == "wait":
        assert str(caught.value) == "? did not answer within 3 s"
        assert trio.current_time() == pytest.approx(3)
    else:
        assert str(caught.value).startswith("? is no server of streamrpc")
        assert len(str(caught.value)) < 250
        assert trio.current_time() == 0
    assert caught.value.__cause__ is None
    # What this side has said is there, and that it has ended.
    assert await theirs.receive_some() == b"TSR1m"
    assert await theirs.receive_some() == b""


async def test_a_server_of_the_other_encoding(autojump_clock: MockClock) -> None:
    """R3: it hangs up without a word, and so might anybody: both are said."""
    theirs, ours = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(RemoteProtocolError, match="asks for another encoding"):
                async with open_stream(theirs, "accepting", encoding="json", limits=LIMITS):
                    pytest.fail("the block must not begin")

        nursery.start_soon(accept)
        with pytest.raises(Unavailable, match="no server of streamrpc, or takes another encoding"):
            async with open_stream(ours, "connecting", encoding="msgpack", limits=LIMITS):
                pytest.fail("the block must not begin")


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1", b"TSR1j", b"TS", b""])
async def test_a_stream_of_no_client(said: bytes, autojump_clock: MockClock) -> None:
    """R3: also where it wants another encoding than the one that was named."""
    theirs, ours = memory_stream_pair()
    if said:
        await theirs.send_all(said)
    with pytest.raises(RemoteProtocolError):
        async with open_stream(ours, "accepting", encoding="msgpack", limits=LIMITS):
            pytest.fail("the block must not begin")
    assert await theirs.receive_some() == b""


@pytest.mark.parametrize("side", ["connecting", "accepting"])
async def test_cancelled_before_the_prefaces(side: Side, autojump_clock: MockClock) -> None:
    """The stream is closed."""
    theirs, ours = memory_stream_pair()
    with trio.move_on_after(1) as scope:
        async with open_stream(ours, side, encoding=None, limits=LIMITS):
            pytest.fail("the block must not begin")
    assert scope.cancelled_caught
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"x")


@pytest.mark.parametrize("side", ["connecting", "accepting"])
async def test_a_stream_that_is_broken(side: Side, autojump_clock: MockClock) -> None:
    theirs, ours = memory_stream_pair()
    await theirs.aclose()
    with pytest.raises(Unavailable if side == "connecting" else RemoteProtocolError):
        async with open_stream(ours, side, encoding=None, limits=LIMITS):
            pytest.fail("the block must not begin")


async def test_an_encoding_that_there_is_not() -> None:
    _, ours = memory_stream_pair()
    with pytest.raises(ValueError, match="encoding must be"):
        async with open_stream(ours, "connecting", encoding="xml", limits=LIMITS):  # type: ignore[arg-type]
            pytest.fail("the block must not begin")
