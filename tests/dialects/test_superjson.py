"""superjson.py: dates go both ways, and what JSON has no like of arrives as the nearest thing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

import msgspec
import pytest
import trio

from tests.dialects.recorded import conversation
from trio_streamrpc import open_connection
from trio_streamrpc.dialects import kkrpc_classic
from trio_streamrpc.dialects.superjson import paths_of, plain, wrapped
from trio_streamrpc.transports.memory import open_memory_transports

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Rich:
    d: datetime
    u: None
    big: int
    m: list[Any]
    s: list[int]


async def test_rich_values() -> None:
    """The recording: the handler has a date, and the other side gets one back."""
    recorded = conversation("kkrpc-0.7-superjson", "rich_values")
    seen: list[Rich] = []

    async def echo(x: Rich) -> Rich:
        seen.append(x)
        return x

    here, there = open_memory_transports(encoding="json", capacity=10)
    with trio.fail_after(5):
        async with open_connection(
            here, "accepting", dialect=kkrpc_classic, serving={"echo": echo}
        ):
            await there.send(recorded["messages"][0]["text"])
            answer = json.loads(await there.receive())
    assert seen == [Rich(EPOCH, None, 10, [[1, "a"]], [1, 2])]
    assert answer["json"]["args"]["result"]["d"] == "1970-01-01T00:00:00Z"
    assert answer["meta"]["values"] == {"args.result.d": ["Date"]}


class Typed(TypedDict):
    at: datetime


class Record(msgspec.Struct):
    at: datetime
    name: str = ""


@pytest.mark.parametrize(
    ("annotation", "value", "paths"),
    [
        (datetime, EPOCH, [()]),
        (datetime | None, EPOCH, [()]),
        (datetime | None, None, []),
        (datetime | str, "x", []),
        (list[datetime], [EPOCH, EPOCH], [("0",), ("1",)]),
        (tuple[str, datetime], ["x", EPOCH], [("1",)]),
        (tuple[datetime, ...], [EPOCH, EPOCH], [("0",), ("1",)]),
        (dict[str, datetime], {"a.b": EPOCH}, [("a.b",)]),
        (Typed, {"at": EPOCH}, [("at",)]),
        (list[Record], [Record(EPOCH, "1970-01-01T00:00:00Z")], [("0", "at")]),
        (Any, "1970-01-01T00:00:00Z", []),
        (int, 1, []),
    ],
)
def test_where_dates_are(annotation: Any, value: Any, paths: list[tuple[str, ...]]) -> None:
    builtins = msgspec.json.decode(msgspec.json.encode(value))
    assert list(paths_of(datetime, annotation, builtins)) == paths


@pytest.mark.parametrize(
    ("name", "path"), [("a.b", "a\\.b"), ("a\\b", "a\\\\b"), ("a\\.b\\", "a\\\\\\.b\\\\")]
)
def test_names_that_are_escaped(name: str, path: str) -> None:
    """As superjson 2 has them, which says so by the version; what has none knows dots alone."""
    message = wrapped({name: "10"}, [(name,)])
    assert message["meta"] == {"values": {path: ["Date"]}, "v": 1}
    big = {"json": {name: "10"}, "meta": {"values": {path: ["bigint"]}, "v": 1}}
    assert plain(big) == {name: 10}


def test_names_as_they_were_escaped_before() -> None:
    message = {"json": {"a\\b.c": "10"}, "meta": {"values": {"a\\b\\.c": ["bigint"]}}}
    assert plain(message) == {"a\\b.c": 10}


@pytest.mark.parametrize(
    ("value", "values", "becomes"),
    [
        ({"n": "10"}, {"n": ["bigint"]}, {"n": 10}),
        ({"a.b": "10"}, {"a\\.b": ["bigint"]}, {"a.b": 10}),
        ({"m": [["a", 1]]}, {"m": ["map"]}, {"m": {"a": 1}}),
        ({"l": [None, "1"]}, {"l.1": ["bigint"]}, {"l": [None, 1]}),
        ({"n": "x"}, {"n": ["bigint"]}, {"n": "x"}),
        ({"m": 5}, {"m": ["map"]}, {"m": 5}),
        ({"n": "1"}, {"no.such.place": ["bigint"], "n.x": ["bigint"]}, {"n": "1"}),
        ({"n": "1"}, {"n": "bigint", "m": [], "k": [["x"]]}, {"n": "1"}),
        ({"n": "9" * 20}, {"n": ["bigint"]}, {"n": "9" * 20}),
        ({"n": "9" * 5000}, {"n": ["bigint"]}, {"n": "9" * 5000}),
        ({"d": "1970"}, {"d": ["Date"]}, {"d": "1970"}),
        ({"s": ["1", "x"]}, {"s": ["set", {"0": ["bigint"]}]}, {"s": [1, "x"]}),
        ({"m": [["a", "1"]]}, {"m": ["map", {"0.1": ["bigint"]}]}, {"m": {"a": 1}}),
        ({"n": "1"}, {"n": ["bigint", {"x": ["map"]}, 5]}, {"n": 1}),
    ],
)
def test_what_it_becomes(value: Any, values: Any, becomes: Any) -> None:
    assert plain({"json": value, "meta": {"values": values}}) == becomes


@pytest.mark.parametrize("meta", [None, 5, {}, {"values": []}])
def test_a_meta_that_is_none(meta: Any) -> None:
    assert plain({"json": [1], "meta": meta}) == [1]
