"""Generators of any shape, left at any moment: each ends in time, and takes nothing with it."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.ends import Ends, Steps, open_ends, quiet
from trio_streamrpc import Limits, RpcError, Window

SECONDS = st.sampled_from(["0", "0.3", "1", "5"])


def block(head: str, body: list[str]) -> str:
    return head + "\n" + textwrap.indent("\n".join(body) or "pass", "    ")


def try_block(body: list[str], clause: str, handler: list[str], raises: bool) -> str:
    return block("try:", body) + "\n" + block(clause, handler + ["raise"] * raises)


def nursery(child: str, seconds: str, body: list[str], cancels: bool) -> str:
    start = f"nursery.start_soon({child}, {seconds})"
    end = ["nursery.cancel_scope.cancel()"] * cancels
    return block("async with trio.open_nursery() as nursery:", [start, *body, *end])


def statements(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    bodies = st.lists(inner, max_size=3)
    clauses = st.sampled_from(
        ["except trio.Cancelled:", "except GeneratorExit:", "except Exception:"]
    )
    scope = st.builds("with trio.move_on_after({}):".format, SECONDS)
    shield = st.builds(
        "with trio.CancelScope(shield=True):\n    await trio.sleep({})".format, SECONDS
    )
    return st.one_of(
        st.builds(block, scope, bodies),
        st.builds(block, st.just("for _ in range(3):"), bodies),
        st.builds(try_block, bodies, clauses, bodies, st.booleans()),
        st.builds(try_block, bodies, st.just("finally:"), bodies, st.just(False)),
        st.builds(
            nursery, st.sampled_from(["trio.sleep", "crash"]), SECONDS, bodies, st.booleans()
        ),
        shield,
    )


YIELD = "count += 1\nyield count"
LEAVES = st.one_of(
    st.just(YIELD),
    st.builds("await trio.sleep({})".format, SECONDS),
    st.sampled_from([YIELD, "await trio.lowlevel.checkpoint()", "raise KeyError('mine')"]),
)
PROGRAMS = st.lists(st.recursive(LEAVES, statements, max_leaves=10), min_size=1, max_size=4)
VISITS = st.tuples(
    st.sampled_from(["leave", "error", "cancel", "read"]),
    st.sampled_from([1, 2, 64]),
    st.integers(0, 5),
    st.sampled_from([0, 0.2, 1.5]),
)


async def crash(seconds: float) -> None:
    await trio.sleep(seconds)
    raise ValueError("child")


class Mine(Exception):
    pass


class Service:
    """One method, whose generator is made from the text of a program."""

    def __init__(self, program: list[str]) -> None:
        body = block("try:", ["if False: yield", *program]) + "\n" + block("finally:", ["end()"])
        source = block("async def generator():", ["count = 0", body])
        names = {"trio": trio, "crash": crash, "end": self._end}
        exec(source, names)
        self._generator: Any = names["generator"]
        self.begun = self.ended = 0

    def _end(self) -> None:
        self.ended += 1

    async def ticks(self) -> AsyncIterator[int]:
        self.begun += 1
        iterator: AsyncIterator[int] = self._generator()
        return iterator

    async def echo(self, value: int) -> int:
        return value


async def visit(ends: Ends, how: str, window: int, count: int, pause: float) -> None:
    taken: list[int] = []
    scope = trio.CancelScope()
    if how == "cancel":
        scope.deadline = trio.current_time() + count / 2 + pause
    with suppress(Mine, RpcError, trio.EndOfChannel), scope:
        async with ends.client.stream("ticks", window=Window(window, 1000)) as stream:
            for _ in range(1000 if how == "read" else count):
                taken.append(await stream.receive())
                await trio.sleep(pause)
            if how == "error":
                raise Mine
            await trio.sleep(pause)
    assert taken == list(range(1, len(taken) + 1))


async def visit_all(program: list[str], visits: list[Any], cleanup: float) -> None:
    service = Service(program)
    methods = {"ticks": service.ticks, "echo": service.echo}
    limits = Limits(cleanup=cleanup, cancel_timeout=1000)
    with Steps() as steps:
        async with open_ends(methods, limits=limits) as ends:
            for number, each in enumerate(visits):
                await visit(ends, *each)
                assert await ends.client.call("echo", number) == number
            await trio.sleep(600)
            await quiet()
            ends.assert_clean()
    assert service.ended <= service.begun
    assert steps.count < 50_000


@given(PROGRAMS, st.lists(VISITS, min_size=1, max_size=3), st.sampled_from([0.5, 5.0]))
def test_generators_of_any_shape(program: list[str], visits: list[Any], cleanup: float) -> None:
    """R7, R7a, R8: whatever it does when it is closed, cancelled, or thrown at."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(visit_all, program, visits, cleanup, clock=clock)
