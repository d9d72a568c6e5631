"""What a call is made with besides its arguments: ``with_options``, metadata, windows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.runtime.ends import open_ends, quiet
from tests.runtime.peer import open_against
from trio_streamrpc import (
    InvalidArgument,
    Limits,
    Window,
    current_call,
    rpc,
    with_options,
)
from trio_streamrpc.runtime.options import NO_OPTIONS, Options
from trio_streamrpc.testing import open_pair

BOTH = pytest.mark.parametrize("encoding", ["msgpack", "json"])


class Account:
    @rpc
    async def look(self) -> dict[str, Any]:
        return dict(current_call().metadata)


class Nested:
    @rpc
    async def look(self) -> dict[str, Any]:
        return dict(current_call().metadata)


class Service:
    nested: Nested

    def __init__(self) -> None:
        self.nested = Nested()
        self.notes: list[dict[str, Any]] = []

    @rpc
    async def look(self) -> dict[str, Any]:
        return dict(current_call().metadata)

    @rpc
    async def stream(self, number: int = 100) -> AsyncIterator[dict[str, Any]]:
        for _ in range(number):
            yield dict(current_call().metadata)

    @rpc(window=Window(3, 1000))
    async def windowed(self, number: int = 100) -> AsyncIterator[int]:
        for each in range(number):
            yield each

    @rpc(oneway=True)
    async def note(self) -> None:
        self.notes.append(dict(current_call().metadata))

    @rpc
    @asynccontextmanager
    async def account(self) -> AsyncIterator[Account]:
        self.notes.append(dict(current_call().metadata))
        yield Account()

    @rpc
    async def task(self, task_status: trio.TaskStatus[dict[str, Any]]) -> None:
        task_status.started(dict(current_call().metadata))

    @rpc
    async def back(self, callback: Callable[[], Awaitable[None]]) -> None:
        await callback()

    @property
    @rpc
    def theme(self) -> str:
        return "dark"


# --- metadata


@BOTH
async def test_metadata_reaches_every_kind_of_call(encoding: Any, autojump_clock: Any) -> None:
    service = Service()
    sent = {"trace": "abc", "depth": [1, {"two": 2.5}], "none": None}
    async with open_ends(service, encoding=encoding) as ends:
        api = with_options(ends.client.proxy(Service), metadata=sent)
        assert await api.look() == sent
        assert await api.nested.look() == sent
        async with api.stream(2) as stream:
            assert [each async for each in stream] == [sent, sent]
        await api.note()
        async with api.account() as account:
            assert await account.look() == sent
            more = with_options(account, metadata={"more": True})
            assert await more.look() == {**sent, "more": True}
            assert await account.look() == sent
        async with trio.open_nursery() as nursery:
            assert await nursery.start(api.task) == sent
        assert service.notes == [sent, sent]


@BOTH
async def test_over_the_connections(encoding: Any, autojump_clock: Any) -> None:
    """What a call is sent with lies over what its connection was opened with."""
    said = {"who": "me", "trace": "none"}
    async with open_pair(Service(), encoding=encoding, metadata=said) as connection:
        api = connection.proxy(Service)
        assert await api.look() == said
        assert await with_options(api, metadata={"trace": "1"}).look() == {
            "who": "me",
            "trace": "1",
        }
        assert await api.look() == said


async def test_options_add_up(autojump_clock: Any) -> None:
    """The last word counts; what was given before is left as it is."""
    async with open_ends(Service()) as ends:
        api = ends.client.proxy(Service)
        first = with_options(api, metadata={"a": 1, "b": 1})
        second = with_options(first, metadata={"b": 2, "c": 2})
        third = with_options(second, window=Window(2, 1000), priority=5)
        assert await api.look() == {}
        assert await first.look() == {"a": 1, "b": 1}
        assert await second.look() == await third.look() == {"a": 1, "b": 2, "c": 2}
        assert await with_options(third.nested, metadata={"a": 9}).look() == {
            "a": 9,
            "b": 2,
            "c": 2,
        }
        assert repr(third) == repr(api)
        with pytest.raises(AttributeError, match="has no @rpc method 'absent'"):
            third.absent  # type: ignore[attr-defined]  # noqa: B018
        with pytest.raises(AttributeError, match=r"use await connection\.call\('theme'\)"):
            third.theme  # noqa: B018


async def test_what_is_given_may_change_afterwards(autojump_clock: Any) -> None:
    """It counts as it was when it was given."""
    async with open_ends(Service()) as ends:
        sent = {"a": 1}
        api = with_options(ends.client.proxy(Service), metadata=sent)
        sent["a"] = 2
        assert await api.look() == {"a": 1}


async def test_a_dynamic_proxy(autojump_clock: Any) -> None:
    service = Service()
    async with open_ends(service) as ends:
        api = with_options(ends.client.api, metadata={"a": 1})
        assert await api.look() == {"a": 1}
        assert await api.nested.look() == {"a": 1}
        assert await with_options(api.nested, metadata={"b": 2}).look() == {"a": 1, "b": 2}
        async with api.stream(1) as stream:
            assert await stream.receive() == {"a": 1}
        async for item in api.stream(1):
            assert item == {"a": 1}
        assert await ends.client.api.look() == {}
        async with ends.client.context("account") as account:
            assert await with_options(account, metadata={"c": 3}).look() == {"c": 3}
            assert await account.look() == {}


async def test_nothing_is_sent_where_nothing_is_said(autojump_clock: Any) -> None:
    async with open_ends(Service()) as ends:
        await ends.client.proxy(Service).look()
        await with_options(ends.client.proxy(Service), metadata={}).look()
        assert all("metadata" not in call for call in ends.up.sent("call"))


@BOTH
async def test_metadata_that_is_too_long(encoding: Any, autojump_clock: Any) -> None:
    """16 KiB are taken; the call is refused, and the connection lives."""
    async with open_ends(Service(), encoding=encoding) as ends:
        api = ends.client.proxy(Service)
        with pytest.raises(InvalidArgument, match="the metadata is too long"):
            await with_options(api, metadata={"a": "x" * 16_385}).look()
        with pytest.raises(InvalidArgument, match="the metadata is too long"):
            async with with_options(api, metadata={"a": "x" * 16_385}).stream() as stream:
                await stream.receive()
        assert len(await with_options(api, metadata={"a": "x" * 16_000}).look()) == 1


class Odd:
    """Nothing encodes it."""


@pytest.mark.parametrize(
    "metadata",
    [{"a": Odd()}, {"a": {"b": [Odd()]}}, {"a": "\ud800"}, {"a": 2**100}],
    ids=["object", "object within", "surrogate", "large number"],
)
async def test_metadata_that_cannot_be_encoded(metadata: Any, autojump_clock: Any) -> None:
    """Nothing is sent, and no place stays taken."""

    async def callback() -> None: ...

    async with open_ends(Service(), limits=Limits(max_calls=1)) as ends:
        api = with_options(ends.client.proxy(Service), metadata=metadata)
        with pytest.raises(TypeError, match="the metadata of a call cannot be encoded"):
            await api.look()
        with pytest.raises(TypeError, match="the metadata of a call cannot be encoded"):
            async with api.stream():
                pass
        with pytest.raises(TypeError, match="the metadata of a call cannot be encoded"):
            await api.note()
        with pytest.raises(TypeError, match="the metadata of a call cannot be encoded"):
            async with api.account():
                pass
        with pytest.raises(TypeError, match="the metadata of a call cannot be encoded"):
            await api.back(callback)
        assert ends.up.sent("call") == []
        ends.assert_clean()


async def test_a_peers_metadata_that_is_none(autojump_clock: Any) -> None:
    """What is no mapping is the caller's mistake."""
    async with open_against("accepting", serving=Service()) as (connection, peer):
        await peer.says({"type": "call", "id": 1, "method": "look", "metadata": [1]})
        error = await peer.hears("error")
        assert error["error"]["code"] == "INVALID_ARGUMENT"
        assert connection.alive


async def test_a_callback_has_none(autojump_clock: Any) -> None:
    """Options are for the calls of a proxy."""

    async def callback() -> None: ...

    async with open_ends(Service()) as ends:
        api = with_options(ends.client.proxy(Service), metadata={"a": 1})
        await api.back(callback)
        assert "metadata" in ends.up.sent("call")[0]
        assert "metadata" not in ends.down.sent("call")[0]


# --- windows


async def test_a_window_applies_to_streams(autojump_clock: Any) -> None:
    """R13, R15: it is what the call says, and does not grow."""
    async with open_ends(Service()) as ends:
        api = with_options(ends.client.proxy(Service), window=Window(5, 3000))
        async with api.stream() as stream:
            await quiet()
            assert stream.statistics().window == Window(5, 3000)
            assert stream.statistics().items_buffered == 5
            assert [each async for each in stream] == [{}] * 100
            assert stream.statistics().window == Window(5, 3000)
            assert stream.statistics().peak_items_buffered == 5
        await api.look()
        stream_call, unary_call = ends.up.sent("call")
        assert stream_call["window"] == {"items": 5, "bytes": 3000} or stream_call["window"] == [
            5,
            3000,
        ]
        assert "window" not in unary_call


async def test_a_window_goes_over_the_methods_own(autojump_clock: Any) -> None:
    async with open_ends(Service()) as ends:
        api = ends.client.proxy(Service)
        async with api.windowed() as stream:
            assert stream.statistics().window == Window(3, 1000)
        async with with_options(api, window=Window(7, 700)).windowed() as stream:
            assert stream.statistics().window == Window(7, 700)
        async with with_options(api, metadata={"a": 1}).windowed() as stream:
            assert stream.statistics().window == Window(3, 1000)
        async with with_options(ends.client.api, window=Window(8, 800)).windowed() as stream:
            assert stream.statistics().window == Window(8, 800)


async def test_a_window_larger_than_any_that_grows(autojump_clock: Any) -> None:
    """R17: there is a place for each item of it all the same."""
    limits = Limits(window=Window(2, 1000), max_window=Window(4, 1000))
    async with open_ends(Service(), limits=limits) as ends:
        api = with_options(ends.client.proxy(Service), window=Window(50, 100_000))
        async with api.stream() as stream:
            await quiet()
            assert stream.statistics().items_buffered == 50


async def test_it_has_no_meaning_for_contexts(autojump_clock: Any) -> None:
    """R20: one item, outside of credit."""
    async with open_ends(Service()) as ends:
        api = with_options(ends.client.proxy(Service), window=Window(5, 3000))
        async with api.account() as account:
            assert await account.look() == {}


# --- what cannot be an option


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metadata": 5}, TypeError, "metadata must be a mapping, not 5"),
        ({"metadata": [("a", 1)]}, TypeError, "metadata must be a mapping"),
        ({"metadata": {1: 2}}, TypeError, "the names in metadata must be strings"),
        ({"window": 5}, TypeError, r"must be a Window, not 5: Window\(items=5\)$"),
        ({"window": (5, 5)}, TypeError, "must be a Window"),
        ({"priority": "high"}, TypeError, "a priority must be an integer, not 'high'"),
        ({"priority": True}, TypeError, "a priority must be an integer, not True"),
        ({"priority": 1.0}, TypeError, "a priority must be an integer"),
        ({"priority": 128}, ValueError, "between -128 and 127, not at 128"),
        ({"priority": -129}, ValueError, "between -128 and 127, not at -129"),
        ({"timeout": 5}, TypeError, "unexpected keyword argument 'timeout'"),
    ],
)
async def test_what_cannot_be_an_option(
    options: Any, error: Any, message: str, autojump_clock: Any
) -> None:
    """They are told at once; there is no timeout."""
    async with open_ends(Service()) as ends:
        for api in (ends.client.proxy(Service), ends.client.api):
            with pytest.raises(error, match=message):
                with_options(api, **options)


@pytest.mark.parametrize("priority", [-128, -1, 0, 1, 127])
async def test_priorities(priority: int, autojump_clock: Any) -> None:
    async with open_ends(Service()) as ends:
        assert await with_options(ends.client.proxy(Service), priority=priority).look() == {}


async def test_what_is_no_proxy(autojump_clock: Any) -> None:
    async with open_ends(Service()) as ends:
        for wrong in (Service(), ends.client, ends.client.proxy(Service).look, None):
            with pytest.raises(TypeError, match="takes a proxy, not"):
                with_options(wrong, metadata={})


def test_options_that_say_nothing() -> None:
    assert Options() == NO_OPTIONS
    assert NO_OPTIONS.with_metadata(NO_OPTIONS.metadata) is NO_OPTIONS
    assert NO_OPTIONS.or_window(None) is NO_OPTIONS
    assert NO_OPTIONS.or_window(Window(1, 1)).window == Window(1, 1)


# --- deadlines over hops


async def test_deadlines_over_hops(autojump_clock: Any) -> None:
    """R23: a handler's own calls have what is left to it, and so have callbacks, hop by hop."""
    left: list[float] = []

    class Last:
        @rpc
        async def look(self, callback: Callable[[], Awaitable[None]]) -> None:
            left.append(current_call().deadline - trio.current_time())
            await trio.sleep(1)
            await callback()

    async with open_ends(Last()) as last:

        class Middle:
            @rpc
            async def look(self, callback: Callable[[], Awaitable[None]]) -> None:
                left.append(current_call().deadline - trio.current_time())
                await trio.sleep(1)
                await last.client.proxy(Last).look(callback)

        async with open_ends(Middle()) as first:

            async def callback() -> None:
                left.append(trio.current_effective_deadline() - trio.current_time())

            with trio.fail_after(10):
                await first.client.proxy(Middle).look(callback)
        assert left == [pytest.approx(10), pytest.approx(9), pytest.approx(8)]
        timeouts = [
            call.get("timeout")
            for wire in (first.up, last.up, last.down, first.down)
            for call in wire.sent("call")
        ]
        assert timeouts == [pytest.approx(each) for each in (10, 9, 8, 8)]


async def test_a_deadline_on_the_way(autojump_clock: Any) -> None:
    """R23: it ends all hops; the one whose scope it is sees its own exception."""
    ended: list[str] = []

    class Last:
        @rpc
        async def wait(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append("last")

    async with open_ends(Last()) as last:

        class Middle:
            @rpc
            async def wait(self) -> None:
                try:
                    await last.client.call("wait")
                finally:
                    ended.append("middle")

        async with open_ends(Middle()) as first:
            start = trio.current_time()
            with pytest.raises(trio.TooSlowError):
                with trio.fail_after(3):
                    await first.client.call("wait")
            assert trio.current_time() - start == 3
            await quiet()
            assert sorted(ended) == ["last", "middle"]
