"""Processes that can be killed and stopped, and print a line when they get somewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

__all__ = ["SERVER", "Spawned", "spawned"]

ROOT = Path(__file__).parents[2]

#: A server of ``tests.service.Service`` at a URL of that kind, with short limits.
SERVER = """
    import sys
    import trio
    from tests.service import Service
    from trio_streamrpc import Limits, serve

    async def main():
        async with trio.open_nursery() as nursery:
            limits = Limits(ping_interval=0.4, ping_timeout=0.4, close_timeout=0.4)
            run = lambda **o: serve(Service(), sys.argv[1] + "://127.0.0.1:0", limits=limits, **o)
            server = await nursery.start(run)
            print(server.url, flush=True)

    trio.run(main)
"""


class Spawned:
    """A process that runs Python; what it prints is read by the line."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._said = b""

    async def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        while b"\n" not in self._said:
            data = await self.process.stdout.receive_some()
            assert data, f"the process has ended after {self._said!r}"
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        return line.decode().strip()

    async def wait_for(self, line: str) -> None:
        """Read until it prints that line."""
        while await self.line() != line:
            pass

    async def rest(self) -> tuple[list[str], str]:
        """The lines that it prints to its end, and what it says to stderr."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        errors = b""

        async def read_errors(stream: trio.abc.ReceiveStream) -> None:
            nonlocal errors
            errors = b"".join([bytes(data) async for data in stream])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_errors, self.process.stderr)
            async for data in self.process.stdout:
                self._said += data
        await self.process.wait()
        return self._said.decode().splitlines(), errors.decode()

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        """It stands still; its sockets stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)


@asynccontextmanager
async def spawned(source: str, *arguments: str) -> AsyncIterator[Spawned]:
    """A process that runs this source; killed when the block ends, if it still runs."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield Spawned(process)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    await stream.aclose()
