"""children.py: a service on the standard streams of another process, in either role."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from trio_streamrpc import ConnectionLost, Limits, Unavailable, connect_process
from trio_streamrpc.dialects import kkrpc, kkrpc_classic, native
from trio_streamrpc.dialects.base import Dialect

CHILD = """
import sys
import trio
from trio_streamrpc import connect_parent, current_call, rpc
from trio_streamrpc.dialects import kkrpc, kkrpc_classic

class Service:
    @rpc
    async def add(self, a: int, b: int) -> int:
        print("this is no message")
        return a + b

    @rpc
    async def ticks(self):
        try:
            for number in range(10**9):
                yield number
                await trio.sleep(0.001)
        finally:
            print("the ticks have ended", file=sys.stderr, flush=True)

    @rpc
    async def call_back(self, x: int) -> int:
        return await current_call().connection.call("double", x)

async def main():
    dialect = {"native": None, "kkrpc": kkrpc, "kkrpc_classic": kkrpc_classic}[sys.argv[1]]
    async with connect_parent(Service(), dialect=dialect) as connection:
        await connection.wait_closed()

trio.run(main)
"""

STUBBORN = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
while True:
    time.sleep(1)
"""


@pytest.fixture
def child(tmp_path: Path) -> Path:
    path = tmp_path / "child.py"
    path.write_text(textwrap.dedent(CHILD))
    return path


async def double(x: int) -> int:
    return 2 * x


@pytest.mark.parametrize("dialect", [native, kkrpc, kkrpc_classic], ids=lambda each: each.name)
async def test_both_roles(dialect: object, child: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Calls go both ways, what is printed is no message, and its errors pass through."""
    spoken = dialect if isinstance(dialect, Dialect) else None
    name: str = dialect.name  # type: ignore[attr-defined]
    with trio.fail_after(20):
        async with connect_process(
            [sys.executable, str(child), name], dialect=spoken, serving={"double": double}
        ) as connection:
            assert await connection.call("add", 1, 2) == 3
            assert await connection.call("call_back", 21) == 42
            async with connection.stream("ticks") as stream:
                assert [await stream.receive() for _ in range(3)] == [0, 1, 2]
            assert await connection.call("add", 3, 4) == 7
    said = capfd.readouterr().err
    assert "this is no message" in said
    assert "the ticks have ended" in said


CHATTY = """
import json, sys

print("a banner", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    for number in range(1000):
        print("log", number, asked["id"])
    print(json.dumps({"t": "r", "id": asked["id"], "v": 5}), flush=True)
"""


async def test_one_that_logs_to_its_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """As JavaScript's console does: what is no record goes where the standard error goes."""
    with trio.fail_after(20):
        async with connect_process([sys.executable, "-c", CHATTY], dialect=kkrpc) as connection:
            for _ in range(3):
                assert await connection.call("add", 2, 3) == 5
            assert connection.endpoint.budget.left == connection.limits.violation_budget
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("a banner\nlog 0 c-1\n")
    assert err.count("log ") == 3000


LEAVING = """
import sys, time

sys.stdin.read()
time.sleep(0.3)
print("all is put away", file=sys.stderr)
"""


@pytest.mark.parametrize("dialect", [kkrpc, kkrpc_classic], ids=repr)
async def test_one_that_has_something_to_put_away(
    dialect: Dialect, capfd: pytest.CaptureFixture[str]
) -> None:
    """The end of its input tells it that it is over; it is terminated if it does not end then."""
    with trio.fail_after(20):
        async with connect_process([sys.executable, "-c", LEAVING], dialect=dialect):
            pass
    assert capfd.readouterr().err == "all is put away\n"


async def test_one_that_ends(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with connect_process([sys.executable, "-c", ""], dialect=kkrpc) as connection:
            with pytest.raises(ConnectionLost):
                await connection.call("add", 1, 2)


async def test_one_that_does_not_end(tmp_path: Path) -> None:
    """It is terminated, and then killed."""
    pid_file = tmp_path / "pid"
    with trio.fail_after(20):
        async with connect_process(
            [sys.executable, "-c", STUBBORN, str(pid_file)],
            dialect=kkrpc,
            serving={"double": double},
            limits=Limits(close_timeout=0.5),
        ):
            while not pid_file.exists() or not pid_file.read_text():  # noqa: ASYNC110  # another's
                await trio.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


async def test_one_that_cannot_be_started() -> None:
    with pytest.raises(Unavailable, match="cannot be started"):
        async with connect_process(["/no/such/program"]):
            raise AssertionError


async def test_a_command_that_is_a_text() -> None:
    with pytest.raises(TypeError, match="a sequence"):
        async with connect_process("node child.js"):
            raise AssertionError


async def test_uploads(child: Path) -> None:
    async def numbers() -> AsyncIterator[int]:
        for each in range(100):
            yield each

    service = (
        "async def total(xs: 'AsyncIterable[int]') -> int:\n    return sum([x async for x in xs])"
    )
    program = (
        "import trio\nfrom collections.abc import AsyncIterable\n"
        "from trio_streamrpc import connect_parent\nfrom trio_streamrpc.dialects import kkrpc\n"
        f"{service}\n"
        "async def main():\n"
        "    async with connect_parent({'total': total}, dialect=kkrpc) as connection:\n"
        "        await connection.wait_closed()\n"
        "trio.run(main)\n"
    )
    with trio.fail_after(20):
        async with connect_process([sys.executable, "-c", program], dialect=kkrpc) as connection:
            assert await connection.call("total", numbers()) == 4950
