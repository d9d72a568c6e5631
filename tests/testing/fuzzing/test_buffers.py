"""buffers.py: what lies with a stream, and what is not counted."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
import trio

from trio_streamrpc.testing.fuzzing.buffers import held_by


class Buffer:
    def __init__(self, items: Iterable[int]) -> None:
        self.items = list(items)


def channel(size: float) -> Any:
    sender, receiver = trio.open_memory_channel[int](size)
    for number in range(10):
        sender.send_nowait(number)
    return receiver


async def generator(held: Any) -> AsyncIterator[int]:
    yield 1
    del held


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: list(range(10)), 10),
        (lambda: deque(range(10)), 10),
        (lambda: Buffer(range(10)), 10),
        (lambda: {"a": {"b": set(range(10))}}, 10),
        (lambda: channel(math.inf), 10),
        (lambda: generator(list(range(10))), 10),
        (lambda: channel(10), 0),
        (lambda: deque(range(10), maxlen=10), 0),
        (lambda: "x" * 10, 0),
        (lambda: held_by, 0),
    ],
)
async def test_what_is_counted(make: Any, expected: int) -> None:
    held = make()
    assert held_by(generator(held)) == expected


async def test_what_is_the_services_is_everybodys() -> None:
    service = Buffer(range(10))
    assert held_by(generator(service)) == 10
    assert held_by(generator(service), [service]) == 0


async def test_a_closure() -> None:
    items = list(range(10))

    async def use() -> AsyncIterator[int]:
        yield len(items)

    assert held_by(use()) == 10
    later: list[int]

    async def unset() -> AsyncIterator[int]:
        yield len(later)

    assert held_by(generator(unset)) == 0
    later = []
