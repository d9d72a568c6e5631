"""Real Node processes that speak other systems' wires by hand (``tests/dialects/node``)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

__all__ = ["SCRIPTS", "needs_node", "ran", "served"]

SCRIPTS = Path(__file__).parent / "node"
ROOT = Path(__file__).parents[2]
#: Where what npm installs is kept from one run to the next.
MODULES = ROOT / ".node"

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None,
    reason="Node.js and npm are not installed",
)


def install() -> None:
    """Have ``ws`` there, the one package that the scripts need."""
    if (MODULES / "node_modules" / "ws").is_dir():
        return
    MODULES.mkdir(exist_ok=True)
    command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "ws@8"]
    subprocess.run(command, check=True, cwd=MODULES, capture_output=True, timeout=120)


def environment() -> dict[str, str]:
    return {**os.environ, "NODE_PATH": str(MODULES / "node_modules")}


async def ran(script: str, url: str) -> dict[str, Any]:
    """What the programs of a client ended with."""
    done = await trio.run_process(
        ["node", str(SCRIPTS / script), "client", url],
        capture_stdout=True,
        env=environment(),
    )
    outcomes: dict[str, Any] = json.loads(done.stdout)
    return outcomes


@asynccontextmanager
async def served(script: str) -> AsyncIterator[str]:
    """A server for as long as the block lasts; gives its URL."""
    process = await trio.lowlevel.open_process(
        ["node", str(SCRIPTS / script), "server"], stdout=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    try:
        async with process.stdout:
            port = b""
            while not port.endswith(b"\n"):
                port += await process.stdout.receive_some(16)
            yield f"ws://127.0.0.1:{int(port)}"
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
