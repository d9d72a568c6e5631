"""lines.py: a message to a line, however the bytes come."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from trio_streamrpc import ConnectionLost, Limits, RemoteProtocolError
from trio_streamrpc.transports.lines import LineTransport

LIMITS = Limits(max_message_bytes=1024)


def pair() -> tuple[LineTransport, trio.StapledStream[Any, Any]]:
    here, there = memory_stream_pair()
    return LineTransport(here, remote="memory", limits=LIMITS), there


async def test_there_and_back() -> None:
    here, there = memory_stream_pair()
    one = LineTransport(here, remote="memory", limits=LIMITS)
    other = LineTransport(there, remote="memory", limits=LIMITS)
    await one.send('{"é": 1}\n')
    await one.send('{\n"a":\r\n2}')
    assert await other.receive() == '{"é": 1}'
    assert await other.receive() == '{ "a":  2}'
    await one.aclose()
    with pytest.raises(ConnectionLost, match="the other side closed"):
        await other.receive()
    with pytest.raises(ConnectionLost):
        await one.send("{}")
    with pytest.raises(ConnectionLost, match="the transport was closed"):
        await one.receive()
    with pytest.raises(ConnectionLost):
        await other.send("{}")
        await other.send("{}")
    await other.aclose()


@given(
    lines=st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=5)),
    data=st.data(),
)
def test_cut_anywhere(lines: list[str], data: st.DataObject) -> None:
    """What arrives is the lines that are not empty, however they are cut."""
    whole = "".join(f"{each}\n" for each in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))

    async def main() -> list[str]:
        transport, there = pair()
        pieces = zip([0, *cuts], [*cuts, len(whole)], strict=True)
        for start, end in pieces:
            if start < end:
                await there.send_all(whole[start:end])
        await there.send_stream.aclose()
        found: list[str] = []
        while True:
            try:
                message = await transport.receive()
            except ConnectionLost:
                return found
            assert isinstance(message, str)
            found.append(message)

    expected = [each for each in lines if each.encode().strip()]
    assert trio.run(main) == expected


async def test_a_line_that_does_not_end() -> None:
    transport, there = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(there.send_all, b"x" * 10_000)
        with pytest.raises(RemoteProtocolError) as caught:
            await transport.receive()
    assert caught.value.close_code == 1009


async def test_the_limit() -> None:
    transport, there = pair()
    transport.limit(100)
    await there.send_all(b"x" * (100 + 4096) + b"\n")
    assert len(await transport.receive()) == 100 + 4096
    await there.send_all(b"x" * (101 + 4096) + b"\n")
    with pytest.raises(RemoteProtocolError):
        await transport.receive()


async def test_what_is_no_text() -> None:
    transport, there = pair()
    await there.send_all(b"\xff\n{}\n")
    with pytest.raises(RemoteProtocolError) as caught:
        await transport.receive()
    assert caught.value.close_code == 1007


async def test_the_end_in_a_line() -> None:
    transport, there = pair()
    await there.send_all(b'{"a"')
    await there.aclose()
    with pytest.raises(ConnectionLost, match="in the middle of a message"):
        await transport.receive()


async def test_put_back() -> None:
    transport, there = pair()
    await there.send_all(b"1\n2\n")
    first = await transport.receive()
    transport.put_back(first)
    assert [await transport.receive(), await transport.receive()] == ["1", "2"]


async def test_a_cancelled_receive_has_lost_nothing() -> None:
    transport, there = pair()
    await there.send_all(b'{"a"')
    with trio.move_on_after(0.01):
        await transport.receive()
    await there.send_all(b": 1}\n")
    assert await transport.receive() == '{"a": 1}'
