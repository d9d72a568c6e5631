"""Every limit at the limit, where all is well, and one past it: a test for each, by its name.

A field of ``Limits`` has a ``test_<name>`` here, or its place in ``ELSEWHERE``; so has each limit
that is the same for everybody. A limit that has neither fails, and so does a row of docs/limits.md.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.protocol.wire import BOTH, Talk, message
from tests.runtime.ends import open_ends
from tests.runtime.peer import HELLO, Peer, open_against
from trio_streamrpc import (
    CallCancelled,
    CleanupTimeout,
    ConnectionLost,
    Limits,
    RemoteProtocolError,
    Window,
    open_connection,
    rpc,
)
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.credit import Growth, ReceiveWindow
from trio_streamrpc.transports.memory import open_memory_transports

TESTS = Path(__file__).parent

#: Shown at the limit and past it where they are at home.
ELSEWHERE = {
    "stall_timeout": "runtime/test_stalls.py::test_a_consumer_that_takes_nothing",
    "part_timeout": "runtime/test_stalls.py::test_a_call_of_which_no_more_comes",
    "max_connections": "end_to_end/test_security.py::test_connections_in_all",
    "max_connections_per_peer": "end_to_end/test_security.py::test_connections_of_one_address",
    "max_early_bytes": "runtime/test_greeting.py::test_early_bytes",
    "max_early_frames": "runtime/test_greeting.py::test_early_frames",
}

#: The rows of "Fixed" in docs/limits.md, and the tests that show them.
FIXED = {
    "a method's name": "runtime/test_callee.py::test_the_longest_name",
    "metadata of a call": "test_limits_table.py::test_metadata_of_a_call",
    "metadata of a `hello`": "test_limits_table.py::test_metadata_of_a_hello",
    "features of a `hello`": "test_limits_table.py::test_features_of_a_hello",
    "bytes since the last whole message": (
        "transports/test_websocket.py::test_bytes_that_never_make_a_message"
    ),
    "nesting": "test_limits_table.py::test_nesting",
    "ids, amounts": "test_limits_table.py::test_integers",
    "references in a call": "test_limits_table.py::test_references_in_a_call",
    "an error": "protocol/test_endpoint.py::test_errors_are_shortened",
    "early messages, before the `hello` is accepted": (
        "protocol/test_inbound.py::test_early_frames_are_held"
    ),
}


class Service:
    @rpc
    async def add(self, a: int, b: int) -> int:
        return a + b

    @rpc
    async def echo(self, value: str) -> str:
        return value

    @rpc
    async def linger(self, seconds: float) -> None:
        """It waits for ever, and takes so long to clean up."""
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)

    @rpc
    async def lingering(self, seconds: float) -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)


CALL: dict[str, Any] = {"type": "call", "method": "m"}


def codes(talk: Talk) -> dict[int, str]:
    """What calls and streams were refused with, by their ids."""
    said = talk.says()
    return {frame["id"]: frame["error"]["code"] for frame in said if "error" in frame}


def streams(count: int, first: int) -> list[list[Any]]:
    """References to so many uploads."""
    return [[place, "stream", first + 2 * place] for place in range(count)]


def breaks(talk: Talk, *frames: dict[str, Any]) -> int:
    """The frames are the end of the connection; gives how the transport is to be closed."""
    with pytest.raises(RemoteProtocolError) as caught:
        talk.hears(*frames)
    return caught.value.close_code


# --- what a peer may send


@BOTH
@pytest.mark.parametrize(
    ("chunks", "fits"),
    [
        ([[1, 1, 1]], True),
        ([[1, 1, 1, 1]], False),
        # One byte of credit is left for the next item, whatever its length; or none.
        ([["x" * 36], ["x" * 100]], True),
        ([["x" * 37], [1]], False),
    ],
)
def test_window(chunks: list[list[Any]], fits: bool, encoding: Encoding) -> None:
    """R14, R16: of an upload, whose window is this side's to choose."""
    talk = Talk("accepting", encoding, limits=Limits(window=Window(3, 39)))
    talk.hears({**CALL, "id": 1, "refs": streams(1, 3)})
    for items in chunks:
        size = sum(len(talk.payload(item)) for item in items)
        talk.hears({"type": "chunk", "id": 3, "items": items, "size": size})
    assert codes(talk) == ({} if fits else {3: "FLOW_CONTROL"})


def test_max_window() -> None:
    """R15: it doubles up to that, and no further."""
    limits = Limits(window=Window(4, 100), max_window=Window(9, 1000))
    window = ReceiveWindow(limits.window, Growth(limits.max_window))
    sizes = []
    for number in range(10):
        window.granted(0, 0, number * 0.0001)
        sizes.append((window.window.items, window.window.bytes))
    assert sizes[:4] == [(4, 100), (8, 200), (9, 400), (9, 800)]
    assert set(sizes[4:]) == {(9, 1000)}


async def test_max_calls(autojump_clock: MockClock) -> None:
    """R26, R7a: counted until the handler has really stopped, in its cleanup and beyond it."""
    limits = Limits(max_calls=2, cleanup=1)
    async with open_against("accepting", serving=Service(), limits=limits) as (connection, peer):
        for id in (1, 3):
            await peer.says({"type": "call", "id": id, "method": "linger", "args": [10]})

        async def is_taken(id: int) -> dict[str, Any]:
            await peer.says({"type": "call", "id": id, "method": "add", "args": [1, 2]})
            return await peer.hears("result", "error")

        assert (await is_taken(5))["error"]["code"] == "RESOURCE_EXHAUSTED"
        await peer.says({"type": "cancel", "id": 1})
        await trio.sleep(1)
        refused = await is_taken(7)
        assert (refused["id"], refused.get("retry", False)) == (7, False)
        overrun = await peer.hears("error")
        assert (overrun["id"], overrun["error"]["name"]) == (1, "CleanupTimeout")
        refused = await is_taken(9)
        assert (refused["id"], refused["retry"]) == (9, True)
        await trio.sleep(10)
        assert (await is_taken(11))["value"] == 3
        assert connection.callee.running == 1


@BOTH
def test_max_object_calls(encoding: Encoding) -> None:
    talk = Talk("connecting", encoding, limits=Limits(max_object_calls=2))
    talk.endpoint.call("m", talk.payload([None]), refs=[(0, "object")])
    talk.says()
    for id in (2, 4):
        assert len(talk.called(id, target=3)) == 1
    assert talk.called(6, target=3) == []
    assert codes(talk) == {6: "RESOURCE_EXHAUSTED"}


@BOTH
def test_max_uploads(encoding: Encoding) -> None:
    """R19: as many; one more is refused; up to twice as many are, and more is the end."""
    for count, outcome in ((2, {}), (3, "refused"), (4, "refused"), (5, "end")):
        talk = Talk("accepting", encoding, limits=Limits(max_uploads=2))
        call = {**CALL, "id": 1, "refs": streams(count, 3)}
        if outcome == "end":
            assert breaks(talk, call) == 1002
            continue
        talk.hears(call)
        assert (codes(talk).get(1) == "RESOURCE_EXHAUSTED") == (outcome == "refused")


@BOTH
def test_max_message_bytes(encoding: Encoding) -> None:
    def ping(size: int) -> dict[str, Any]:
        return {"type": "ping", "token": "x" * size}

    rest = len(message(encoding, ping(2000))) - 2000
    limits = Limits(max_message_bytes=3000)
    talk = Talk("accepting", encoding, limits=limits)
    talk.hears(ping(3000 - rest))
    assert [frame["type"] for frame in talk.says()] == ["pong"]
    assert breaks(talk, ping(3001 - rest)) == 1009


@BOTH
def test_max_message_frames(encoding: Encoding) -> None:
    talk = Talk("accepting", encoding, limits=Limits(max_message_frames=5))
    ping = {"type": "ping", "token": 1}
    talk.hears(*[ping] * 5)
    assert len(talk.says()) == 5
    assert breaks(talk, *[ping] * 6) == 1007


@BOTH
async def test_max_frame_bytes(encoding: Any, autojump_clock: MockClock) -> None:
    """R21: a value as long as that travels whole, one byte more in parts."""
    limits = Limits(max_frame_bytes=1000)
    async with open_ends(Service(), limits=limits, encoding=encoding) as ends:
        # Its quotes in JSON, a header of three bytes in msgpack.
        longest = {"json": 998, "msgpack": 997}[encoding]
        for size in (longest, longest + 1):
            assert await ends.client.call("echo", "x" * size) == "x" * size
            assert bool(ends.down.sent("part")) == (size > longest)


@BOTH
def test_max_value_bytes(encoding: Encoding) -> None:
    limits = Limits(max_value_bytes=100)
    talk = Talk("accepting", encoding, limits=limits)
    talk.hears({**CALL, "id": 1, "parts": 100})
    talk.hears({**CALL, "id": 3, "parts": 101})
    assert codes(talk) == {3: "RESOURCE_EXHAUSTED"}
    for size, fits in ((100, True), (101, False)):
        talk = Talk("connecting", encoding, limits=limits)
        result = {"type": "result", "id": talk.calls().id, "parts": size}
        if fits:
            talk.hears(result)
        else:
            assert breaks(talk, result) == 1009


@BOTH
def test_max_partial_bytes(encoding: Encoding) -> None:
    talk = Talk("accepting", encoding, limits=Limits(max_value_bytes=100, max_partial_bytes=150))
    talk.hears({**CALL, "id": 1, "parts": 100})
    talk.hears({**CALL, "id": 3, "parts": 51})
    assert codes(talk) == {3: "RESOURCE_EXHAUSTED"}
    talk.hears({**CALL, "id": 5, "parts": 50})
    assert codes(talk) == {}


async def test_max_waiting_control_bytes(autojump_clock: MockClock) -> None:
    """R24: it is read until so much waits; then no more, whatever comes."""
    limits = Limits(max_waiting_control_bytes=10_000, ping_timeout=1e6)
    async with open_against("accepting", capacity=0, limits=limits) as (connection, peer):
        outbox = connection.endpoint.outbox
        waiting = []

        async def ask() -> None:
            while True:
                await peer.says({"type": "ping", "token": "x" * 90})
                await wait_all_tasks_blocked()
                waiting.append(outbox.control_bytes)

        with trio.move_on_after(100):
            await ask()
        most = max(waiting)
        one = waiting[-1] - waiting[-2]
        assert 10_000 < most <= 10_000 + max(one, 200)
        assert sorted(waiting) == waiting
        # Two are on their way: the one that is being written, and the one that was not read.
        assert len(waiting) < 10_000 / 90 + 3


@BOTH
def test_violation_budget(encoding: Encoding) -> None:
    talk = Talk("accepting", encoding, limits=Limits(violation_budget=5))
    for _ in range(5):
        talk.endpoint.receive(message(encoding))
    assert breaks(talk) == 1008


@BOTH
def test_violation_refill(encoding: Encoding) -> None:
    limits = Limits(violation_budget=5, violation_refill=2)
    talk = Talk("accepting", encoding, limits=limits)
    for _ in range(5):
        talk.endpoint.receive(message(encoding), 10.0)
    talk.endpoint.receive(message(encoding), 10.5)
    with pytest.raises(RemoteProtocolError):
        talk.endpoint.receive(message(encoding), 10.99)


# --- how long it may take


@pytest.mark.parametrize("after", [2.9, 3.1])
async def test_handshake_timeout(after: float, autojump_clock: MockClock) -> None:
    here, there = open_memory_transports(capacity=10)
    peer = Peer(there)

    async def talk() -> None:
        await trio.sleep(after)
        with suppress(ConnectionLost):
            await peer.says(HELLO)

    async with open_background_nursery() as nursery:
        nursery.start_soon(talk)
        begun = False
        try:
            async with open_connection(here, "accepting", limits=Limits(handshake_timeout=3)):
                begun = True
        except RemoteProtocolError:
            assert trio.current_time() == pytest.approx(3)
        assert begun == (after < 3)
        await trio.sleep(1)


async def test_ping_interval(autojump_clock: MockClock) -> None:
    async with open_against(limits=Limits(ping_interval=7)) as (_, peer):
        start = trio.current_time()
        for wait in (0, 6.9):
            await trio.sleep(wait)
            await peer.says({"type": "pong", "token": 5})
        await peer.hears("ping")
        assert trio.current_time() - start == pytest.approx(6.9 + 7)


@pytest.mark.parametrize("after", [2.9, 3.1])
async def test_ping_timeout(after: float, autojump_clock: MockClock) -> None:
    limits = Limits(ping_interval=7, ping_timeout=3)
    async with open_against(limits=limits) as (connection, peer):
        await peer.hears("ping")
        await trio.sleep(after)
        if after < 3:
            await peer.says({"type": "pong"})
            await trio.sleep(1)
        assert connection.alive == (after < 3)


@pytest.mark.parametrize("takes", [1.9, 2.1])
async def test_close_timeout(takes: float, autojump_clock: MockClock) -> None:
    """What the other side's handlers need is waited for, up to that."""
    async with open_ends(Service(), client_limits=Limits(close_timeout=2), clean=False) as ends:
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises((ConnectionLost, CallCancelled)):
                    await ends.client.call("linger", takes)

            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            start = trio.current_time()
            await ends.client.aclose()
            assert trio.current_time() - start == pytest.approx(min(takes, 2))


@pytest.mark.parametrize("takes", [1.9, 2.1])
async def test_cancel_timeout(takes: float, autojump_clock: MockClock) -> None:
    """R7: leaving a block waits for the cleanup on the other side, up to that."""
    async with open_ends(Service(), client_limits=Limits(cancel_timeout=2), clean=False) as ends:
        start = trio.current_time()
        late = False
        try:
            async with ends.client.stream("lingering", takes) as stream:
                await stream.receive()
        except CleanupTimeout:
            late = True
        assert trio.current_time() - start == pytest.approx(min(takes, 2))
        assert late == (takes > 2)


@pytest.mark.parametrize("takes", [2.9, 3.1])
async def test_cleanup(takes: float, autojump_clock: MockClock) -> None:
    """R7a: so long, and a second more."""
    async with open_against("accepting", serving=Service(), limits=Limits(cleanup=2)) as (_, peer):
        await peer.says({"type": "call", "id": 1, "method": "linger", "args": [takes]})
        await wait_all_tasks_blocked()
        await peer.says({"type": "cancel", "id": 1})
        start = trio.current_time()
        error = (await peer.hears("error"))["error"]
        assert trio.current_time() - start == pytest.approx(min(takes, 3))
        assert (error.get("name") == "CleanupTimeout") == (takes > 3)
        await trio.sleep(1)


# --- what is the same for everybody


def filled(encoding: Encoding, size: int) -> dict[str, str]:
    """A map whose encoding is that long."""
    rest = len(message(encoding, {**CALL, "id": 1, "metadata": {"a": "x" * 1000}})) - len(
        message(encoding, {**CALL, "id": 1, "metadata": {"a": ""}})
    )
    # In msgpack the header of a text of 1,000 characters takes as much as that of a longer one.
    header = {"json": len('{"a":""}'), "msgpack": 1 + 2 + 3}[encoding]
    assert rest >= 1000
    return {"a": "x" * (size - header)}


@BOTH
def test_metadata_of_a_call(encoding: Encoding) -> None:
    talk = Talk("accepting", encoding)
    for id, size in ((1, 16 * 1024), (3, 16 * 1024 + 1)):
        talk.hears({**CALL, "id": id, "metadata": filled(encoding, size)})
    assert codes(talk) == {3: "INVALID_ARGUMENT"}


@BOTH
def test_metadata_of_a_hello(encoding: Encoding) -> None:
    for size in (16 * 1024, 16 * 1024 + 1):
        talk = Talk("accepting", encoding, greeted=False)
        hello = {**HELLO, "metadata": filled(encoding, size)}
        if size == 16 * 1024:
            talk.hears(hello)
        else:
            assert breaks(talk, hello) == 1009


@BOTH
def test_features_of_a_hello(encoding: Encoding) -> None:
    for count in (64, 65):
        talk = Talk("accepting", encoding, greeted=False)
        hello = {**HELLO, "features": ["x"] * count}
        if count == 64:
            talk.hears(hello)
        else:
            assert breaks(talk, hello) == 1009
    for length in (16_384, 16_385):
        talk = Talk("accepting", encoding, greeted=False)
        hello = {**HELLO, "features": ["x" * 384], "session": "x" * (length - 384)}
        if length == 16_384:
            talk.hears(hello)
        else:
            assert breaks(talk, hello) == 1009


@BOTH
def test_nesting(encoding: Encoding) -> None:
    """R28: what the decoder's recursion does not take is the end; what it takes is a value."""
    for depth, fits in ((100, True), (100_000, False)):
        talk = Talk("accepting", encoding)
        heard: bytes | str = (
            b"\x91\x95\x01\x01\x00\xa1m\x91" + b"\x91" * depth + b"\x90"
            if encoding == "msgpack"
            else f'[{{"type":"call","id":1,"method":"m","args":[{"[" * depth}{"]" * depth}]}}]'
        )
        if fits:
            assert len(talk.endpoint.receive(heard)) == 1
            continue
        with pytest.raises(RemoteProtocolError) as caught:
            talk.endpoint.receive(heard)
        assert caught.value.close_code == 1007


@BOTH
def test_integers(encoding: Encoding) -> None:
    """R5, R15: ids and amounts, and the sum of these."""
    talk = Talk("accepting", encoding)
    assert len(talk.called(2**53 - 1)) == 1
    assert breaks(talk, {**CALL, "id": 2**53 + 1}) == 1007
    for items in (2**53 - 2, 2**53 - 1, 2**53):
        talk = Talk("accepting", encoding)
        talk.called(1, window={"items": 1, "bytes": 1})
        grant = {"type": "grant", "id": 1, "items": items}
        if items == 2**53 - 2:
            talk.hears(grant)
        else:
            assert breaks(talk, grant) == (1002 if items < 2**53 else 1007)


@BOTH
def test_references_in_a_call(encoding: Encoding) -> None:
    """R19: streams and objects together."""
    limits = Limits(max_uploads=2, max_object_calls=3)
    talk = Talk("accepting", encoding, limits=limits)
    for count, id in ((5, 1), (6, 101)):
        refs = streams(2, id + 2) + [
            [place, "object", id + 2 + 2 * place] for place in range(2, count)
        ]
        talk.hears({**CALL, "id": id, "refs": refs})
        refused = codes(talk).get(id)
        assert refused == (None if count == 5 else "RESOURCE_EXHAUSTED")


# --- none is left out


def test_every_field_has_its_test() -> None:
    missing = {
        each.name
        for each in fields(Limits)
        if f"test_{each.name}" not in globals() and each.name not in ELSEWHERE
    }
    assert missing == set()


def test_every_fixed_limit_has_its_test() -> None:
    text = (TESTS.parent / "docs" / "limits.md").read_text(encoding="utf-8")
    fixed = text.partition("## Fixed")[2].partition("## What is not limited")[0]
    rows = re.findall(r"^\| (.+?) \|", fixed, re.MULTILINE)
    assert set(rows) - {"limit", "---"} == FIXED.keys()
    for place in (*FIXED.values(), *ELSEWHERE.values()):
        file, _, name = place.partition("::")
        assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8"), place
