"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
NAME = "_trio_streamrpc_pytestplugin"
#: A source tree that was installed before there was a plugin does not know of it.
IS_INSTALLED = any(each.value == NAME for each in entry_points(group="pytest11"))

SERVICE = """
import random, sys
import pytest, trio
from trio_streamrpc import rpc
from trio_streamrpc.testing import Network, simulate

class Service:
    @rpc
    async def add(self, a: int, b: int) -> int:
        return a + b
"""


def run(tmp_path: Path, source: str, *args: str) -> str:
    (tmp_path / "test_it.py").write_text(source, encoding="utf-8")
    loads = [] if IS_INSTALLED else ["-p", NAME]
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", *loads, "-o", "trio_mode=true", "-q",
            "-p", "no:cacheprovider", *args, str(tmp_path),
        ],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_the_pair(tmp_path: Path) -> None:
    """And nothing of the library is imported before that is asked for."""
    source = f"import sys; EARLY = '{NAME}' in sys.modules, 'trio_streamrpc' in sys.modules\n"
    source += SERVICE + (
        "def test_modules():\n"
        "    assert EARLY == (True, False)\n"
        "async def test_add(streamrpc_pair):\n"
        "    async with streamrpc_pair(Service(), encoding='json') as connection:\n"
        "        assert connection.transport.encoding == 'json'\n"
        "        assert await connection.call('add', 1, 2) == 3\n"
    )
    assert "2 passed" in run(tmp_path, source)


def test_a_pair_that_fails_tells_its_seed(tmp_path: Path) -> None:
    source = SERVICE + (
        "async def test_order(streamrpc_pair):\n"
        "    async with streamrpc_pair(Service()) as connection:\n"
        "        assert not random.getrandbits(32)\n"
    )
    first = run(tmp_path, source)
    [seed] = set(re.findall(r"scheduled with --streamrpc-seed=(\d+)", first))
    [value] = set(re.findall(r"assert not (\d+)", first))
    again = run(tmp_path, source, f"--streamrpc-seed={seed}", "-v")
    assert f"streamrpc: --streamrpc-seed={seed}" in again
    assert set(re.findall(r"assert not (\d+)", again)) == {value}


FAILS = """
async def test_fails(autojump_clock):
    async with simulate(Service(), network=Network(latency=0.5, jitter=1)) as connection:
        await connection.call("add", 1, 2)
        assert trio.current_time() < 1

async def test_is_late(autojump_clock):
    with trio.fail_after(1):
        async with simulate(Service(), network=Network(latency=0.9)) as connection:
            pass

def test_is_something_else():
    assert False
"""


def test_a_simulation_that_fails_tells_how_it_went(tmp_path: Path) -> None:
    output = run(tmp_path, SERVICE + FAILS, "--streamrpc-seed=7")
    assert "3 failed" in output
    first, _, rest = output.partition("test_is_late")
    second, _, third = rest.partition("test_is_something_else")
    assert first.count("simulated with seed=7, Network(latency=0.5, jitter=1") == 1
    assert 'method="add"' in first
    assert "streamrpc" in second
    assert "simulated with seed=7, Network(latency=0.9" in second
    assert "simulated" not in third.partition("short test summary")[0]


def test_it_says_what_it_has(tmp_path: Path) -> None:
    assert "--streamrpc-seed=SEED" in run(tmp_path, "", "--help")
