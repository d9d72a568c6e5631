"""blocks.py: connect() and its kin, where somebody has forgotten that they open a block."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
import trio

from tests.service import Service
from trio_streamrpc import (
    connect,
    connect_parent,
    connect_process,
    open_connection,
)
from trio_streamrpc.testing import open_pair
from trio_streamrpc.transports.memory import open_memory_transports

OPENING: list[Callable[[], Any]] = [
    partial(connect, "ws://127.0.0.1:1"),
    partial(connect_parent, Service()),
    partial(connect_process, ["/nowhere/at/all"]),
    lambda: open_connection(open_memory_transports()[0]),
    partial(open_pair, Service()),
]
openings = pytest.mark.parametrize("opening", OPENING)


@openings
async def test_await_in_the_place_of_async_with(opening: Callable[[], Any]) -> None:
    usage = r"^(\w+)\(…\) cannot be awaited; write: async with \1\(…\) as connection$"
    with pytest.raises(TypeError, match=usage):
        await opening()


@openings
async def test_with_in_the_place_of_async_with(opening: Callable[[], Any]) -> None:
    usage = r"^(\w+)\(…\) cannot be entered with a plain with; write: async with \1\(…\) as"
    with pytest.raises(TypeError, match=usage):
        with opening():
            pytest.fail("the block must not begin")


@openings
async def test_no_block_at_all(opening: Callable[[], Any]) -> None:
    usage = r"^(\w+)\(…\) has no 'proxy': the connection has; write: async with \1\(…\) as"
    with pytest.raises(AttributeError, match=usage):
        opening().proxy(Service)


async def test_it_is_a_context_manager_like_others() -> None:
    block = open_pair(Service())
    assert isinstance(block, AbstractAsyncContextManager)
    assert not hasattr(block, "proxy")
    assert not hasattr(block, "_private")
    assert repr(block) == "<open_pair(…), to be entered with async with>"
    async with block as connection:
        assert await connection.call("add", 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        async with open_pair(Service()):
            _ = 1 / 0
    with trio.move_on_after(0) as scope:
        async with open_pair(Service()):
            await trio.sleep_forever()
    assert scope.cancelled_caught


def test_its_signature_and_name_are_the_functions() -> None:
    assert connect.__name__ == "connect"
    assert next(iter(inspect.signature(connect).parameters)) == "url"
    with pytest.raises(TypeError, match=r"^connect\(\) got an unexpected keyword .*'timeout'"):
        connect("ws://127.0.0.1:1", timeout=3)  # type: ignore[call-arg]
