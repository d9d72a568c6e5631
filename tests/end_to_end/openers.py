"""A connection to a service in each way that there is: what the tests of conformance run over."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import cattrs

from tests.addresses import KINDS, address
from tests.end_to_end.network import serving
from trio_streamrpc import Connection, Limits, connect
from trio_streamrpc.dialects import Dialect, native
from trio_streamrpc.testing import open_pair

__all__ = ["OPENERS", "Opener", "over_a_socket", "over_memory", "pattern"]

Opener = Callable[..., AbstractAsyncContextManager[Connection]]


@asynccontextmanager
async def over_memory(
    service: object,
    encoding: Any,
    *,
    limits: Limits | None = None,
    metadata: Any = None,
    converter: cattrs.Converter | None = None,
    dialect: Dialect | None = None,
) -> AsyncIterator[Connection]:
    async with open_pair(
        service,
        encoding=encoding,
        limits=limits,
        metadata=metadata,
        converter=converter,
        dialect=dialect,
    ) as connection:
        yield connection


@asynccontextmanager
async def over_a_socket(
    kind: str,
    service: object,
    encoding: Any,
    *,
    limits: Limits | None = None,
    metadata: Any = None,
    converter: cattrs.Converter | None = None,
    dialect: Dialect | None = None,
) -> AsyncIterator[Connection]:
    both: dict[str, Any] = {"limits": limits, "converter": converter}
    served = (native,) if dialect is None else (dialect,)
    with address(kind) as (url, server_options, options):
        async with (
            serving(service, url, dialects=served, **both, **server_options) as server,
            connect(
                server.url,
                encoding=encoding,
                metadata=metadata,
                dialect=dialect,
                **both,
                **options,
            ) as connection,
        ):
            yield connection


OPENERS: dict[str, Any] = {"memory": over_memory} | {
    kind: functools.partial(over_a_socket, kind) for kind in KINDS
}


def pattern(size: int) -> bytes:
    """So many bytes, of which no two stretches are the same by accident."""
    return bytes(range(251)) * (size // 251) + bytes(range(size % 251))
