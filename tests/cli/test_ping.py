"""ping.py: round trips, and what is told of them."""

from __future__ import annotations

import re

import pytest
import trio

from tests.cli.conftest import Invoke, Served
from trio_streamrpc import Connection
from trio_streamrpc.cli.ping import percentile, summary


def test_ping(silent: Served, invoke: Invoke) -> None:
    run = invoke("ping", silent.url, "-n", "3")
    assert (run.code, run.err) == (0, "")
    head, figures = run.out.splitlines()
    assert head == f"3 round trips to {silent.url}"
    found = re.fullmatch(r"min ([\d.]+) ms   median ([\d.]+) ms   p99 ([\d.]+) ms", figures)
    assert found is not None
    least, median, most = map(float, found.groups())
    assert 0 < least <= median <= most < 10_000


@pytest.mark.parametrize(
    ("args", "code"), [(["-n", "0"], 2), (["-n", "x"], 2), (["--token-env", "NO_SUCH"], 2)]
)
def test_what_cannot_be(silent: Served, invoke: Invoke, args: list[str], code: int) -> None:
    run = invoke("ping", silent.url, *args)
    assert (run.code, run.out) == (code, "")
    assert run.err.count("\n") == 1


def test_nobody_is_there(invoke: Invoke) -> None:
    run = invoke("ping", "tcp://127.0.0.1:1")
    assert (run.code, run.out) == (3, "")


def test_the_time_is_up(silent: Served, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured until then is told."""
    ping, times = Connection.ping, iter([True, True])

    async def slow(self: Connection) -> float:
        if not next(times, False):
            await trio.sleep_forever()
        return await ping(self)

    monkeypatch.setattr(Connection, "ping", slow)
    run = invoke("ping", silent.url, "--timeout", "0.3")
    assert (run.code, run.err) == (4, "Error: not done within 0.3 s\n")
    assert run.out.startswith("2 round trips to ")
    run = invoke("ping", silent.url, "--timeout", "0.3")
    assert (run.code, run.out) == (4, "")


def test_figures() -> None:
    assert summary("ws://x\n", [0.002]).startswith("1 round trip to ws://x\nmin 2.000 ms   ")
    values = [float(each) for each in range(1, 201)]
    assert (percentile(values, 50), percentile(values, 99)) == (100, 198)
    assert percentile([1.0, 2.0, 3.0], 50) == 2
    assert percentile([5.0], 99) == 5
