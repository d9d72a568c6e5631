"""Connections to child processes, and to the process that has started this one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import cattrs
import trio

from trio_streamrpc.blocks import for_block
from trio_streamrpc.client import open_connection
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import payloads_for
from trio_streamrpc.dialects.base import Dialect, Native, other
from trio_streamrpc.limits import Limits, checked_limits
from trio_streamrpc.runtime.connection import Connection
from trio_streamrpc.runtime.interceptors import Interceptor, checked
from trio_streamrpc.runtime.options import check_metadata
from trio_streamrpc.transports.base import Transport
from trio_streamrpc.transports.processes import lines_of_child, open_child, standard_streams

__all__ = ["connect_parent", "connect_process"]


@for_block
@asynccontextmanager
async def connect_process(
    command: Sequence[str],
    *,
    dialect: Dialect | Native | None = None,
    serving: object = None,
    limits: Limits | None = None,
    interceptors: Sequence[Interceptor] = (),
    metadata: Mapping[str, Any] | None = None,
    converter: cattrs.Converter | None = None,
    mask_errors: bool = False,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Connection]:
    """Start a process and connect to the service on its standard input and output.

    What it writes to its standard error goes where this process's goes. With a ``dialect`` there is
    a message to a line, and what it prints besides goes there as well. Without one this protocol's
    own is spoken, as :func:`connect_parent` does on the other side.

    When the block ends the connection is closed and the process terminated; it is killed if it has
    not ended ``limits.close_timeout`` seconds later.

    - ``command``: the program and its arguments, ``["node", "child.js"]``.
    - ``cwd``, ``env``: those of :class:`subprocess.Popen`.
    - The others are those of :func:`connect`.

    Raises :exc:`Unavailable` if it cannot be started or does not answer, and :exc:`TypeError` or
    :exc:`ValueError` for arguments that cannot be, before it is started.
    """
    limits = checked_limits(limits)
    if isinstance(command, str) or not command:
        raise TypeError("a command is a sequence: the program, and its arguments")
    # What is wrong with the arguments is told before anything is started.
    foreign = other(dialect)
    check_metadata(metadata, payloads_for("msgpack" if foreign is None else "json", converter))
    if serving is not None:
        MethodTable.of(serving)
    checked(interceptors)
    async with open_child(command, grace=limits.close_timeout, cwd=cwd, env=env) as stream:
        transport: trio.abc.Stream | Transport = stream
        if foreign is not None:
            transport = lines_of_child(stream, remote=str(command[0]), limits=limits)
        async with open_connection(
            transport,
            dialect=dialect,
            serving=serving,
            limits=limits,
            interceptors=interceptors,
            metadata=metadata,
            converter=converter,
            mask_errors=mask_errors,
        ) as connection:
            yield connection


@for_block
@asynccontextmanager
async def connect_parent(
    serving: object = None,
    *,
    dialect: Dialect | Native | None = None,
    limits: Limits | None = None,
    interceptors: Sequence[Interceptor] = (),
    converter: cattrs.Converter | None = None,
    mask_errors: bool = False,
) -> AsyncIterator[Connection]:
    """The other side of :func:`connect_process`: this process serves the one that has started it.

    It takes the standard input and output for as long as the block lasts, and what is printed goes
    to the standard error meanwhile. Wait with ``await connection.wait_closed()`` until the other
    side leaves.

    ``serving`` is the service; the arguments are those of :func:`open_connection` on its accepting
    side, and so are the errors that it raises.
    """
    with standard_streams() as stream:
        async with open_connection(
            stream,
            "accepting",
            dialect=dialect,
            serving=serving,
            limits=limits,
            interceptors=interceptors,
            converter=converter,
            mask_errors=mask_errors,
        ) as connection:
            yield connection
