"""Runs what the fuzzer gives to paste."""

from __future__ import annotations

import inspect
from typing import Any

import trio
from trio.testing import MockClock

from trio_streamrpc.testing.fuzzing.searching import Found


def run(found: Found, **names: Any) -> None:
    """Run the test that was made; ``names`` are what it does not import."""
    exec(compile(found.code, "pasted", "exec"), names)
    [test] = [
        each
        for name, each in names.items()
        if name.startswith("test_") and inspect.isfunction(each)
    ]
    trio.run(test, None, clock=MockClock(autojump_threshold=0))
