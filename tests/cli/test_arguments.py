"""arguments.py and feeds.py: what is read from files, how fast, and how often."""

from __future__ import annotations

import io
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_streamrpc.cli import arguments, feeds
from trio_streamrpc.cli.arguments import Source, read_arguments
from trio_streamrpc.cli.described import MethodInfo, ParameterInfo
from trio_streamrpc.cli.failures import Misuse
from trio_streamrpc.cli.feeds import Feed
from trio_streamrpc.nurseries import open_companion_nursery


@pytest.fixture
def numbers(tmp_path: Path) -> str:
    path = tmp_path / "numbers"
    path.write_bytes(b"".join(b"%d\n" % number for number in range(100)))
    return str(path)


async def items_of(source: Source | Feed) -> list[Any]:
    return [each async for each in source.values()]


async def test_lines_that_blocks_cut(numbers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 2, 7, 1_000):
        monkeypatch.setattr(arguments, "BLOCK", size)
        source = Source(numbers, raw=False)
        assert await items_of(source) == list(range(100))
        assert (source.items, source.bytes) == (100, 290)


async def test_bytes_as_they_come(numbers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "BLOCK", 100)
    assert [len(each) for each in await items_of(Source(numbers, raw=True))] == [100, 100, 90]


async def test_a_value_that_could_not_be_sent(
    numbers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line without an end is not read for ever."""
    monkeypatch.setattr(arguments, "MAX_LINE", 200)
    monkeypatch.setattr(arguments, "BLOCK", 100)
    assert len(await items_of(Source(numbers, raw=False))) == 100
    with pytest.raises(Misuse, match="a value of more than 200 bytes"):
        await Source(numbers, raw=True).whole()
    await trio.Path(numbers).write_bytes(b" " * 1_000)
    with pytest.raises(Misuse, match="a value of more than 200 bytes"):
        await items_of(Source(numbers, raw=False))


async def test_no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(Misuse, match="there is no standard input"):
        read_arguments(["@-"], [])


def test_which_parameter_takes_an_argument() -> None:
    one, two = ParameterInfo("one"), ParameterInfo("two", passed="keyword-only")
    args = ParameterInfo("args", passed="variadic positional")
    kwargs = ParameterInfo("kwargs", passed="variadic keyword")
    few = MethodInfo("few", "unary", parameters=[one, two])
    many = MethodInfo("many", "unary", parameters=[one, args, two, kwargs])
    given = read_arguments(["1", "2"], ["two=3", "three=4"])
    assert [each.parameter_of(few) for each in given] == [one, None, two, None]
    assert [each.parameter_of(many) for each in given] == [one, args, two, kwargs]


# --- feeds


async def test_one_call_after_the_other(numbers: str) -> None:
    """What was given to a call that was refused, the next one is given as well."""
    async with open_companion_nursery() as nursery:
        feed = Feed(Source(numbers, raw=False), nursery, keeps=True)
        async with aclosing(feed.values()) as values:
            assert [await anext(values) for _ in range(3)] == [0, 1, 2]
        assert not feed.is_lost
        assert await items_of(feed) == list(range(100))


async def test_a_call_that_is_given_up_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes meanwhile is not lost."""
    send, receive = trio.open_memory_channel[int](10)

    class Slow(Source):
        def __init__(self) -> None:
            self.bytes = 0

        async def values(self) -> AsyncGenerator[Any, None]:
            async for each in receive:
                yield each

    async with open_companion_nursery() as nursery:
        feed = Feed(Slow(), nursery, keeps=True)
        with trio.move_on_after(0.05):
            await items_of(feed)
        send.send_nowait(1)
        await wait_all_tasks_blocked()
        send.send_nowait(2)
        send.close()
        assert await items_of(feed) == [1, 2]


async def test_what_is_kept_is_bounded(numbers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MAX_KEPT", 20)
    monkeypatch.setattr(arguments, "BLOCK", 10)
    async with open_companion_nursery() as nursery:
        feed = Feed(Source(numbers, raw=False), nursery, keeps=True)
        async with aclosing(feed.values()) as values:
            for number in range(20):
                assert await anext(values) == number
        assert feed.is_lost


async def test_nothing_is_kept_for_a_call_that_is_known(numbers: str) -> None:
    async with open_companion_nursery() as nursery:
        feed = Feed(Source(numbers, raw=False), nursery, keeps=False)
        assert await items_of(feed) == list(range(100))
        assert feed.is_lost


async def test_it_reads_no_further_than_it_is_asked(
    numbers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backpressure: one value ahead, and no more."""
    monkeypatch.setattr(arguments, "BLOCK", 10)
    async with open_companion_nursery() as nursery:
        source = Source(numbers, raw=False)
        feed = Feed(source, nursery, keeps=False)
        async with aclosing(feed.values()) as values:
            await anext(values)
            await wait_all_tasks_blocked()
            assert source.items == 2


async def test_what_is_wrong_with_a_file_is_its_calls(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_text("1\nx\n", encoding="utf-8")
    async with open_companion_nursery() as nursery:
        feed = Feed(Source(str(path), raw=False), nursery, keeps=True)
        values = feed.values()
        assert await anext(values) == 1
        with pytest.raises(Misuse, match=r"bad:2: this is no JSON"):
            await anext(values)


def test_an_input_without_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n"))
    with pytest.raises(Misuse, match="cannot read the standard input"):
        read_arguments(["@-"], [])
