"""Values that travel in parts, as the users of a connection meet them (R21)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.large_values import SHAPES, Service, text_of
from tests.runtime.ends import open_ends
from trio_streamrpc import Limits

BOTH = pytest.mark.parametrize("encoding", ["msgpack", "json"])

#: Parts of at most 1000 bytes, up to four of them in a message.
SMALL = Limits(
    max_frame_bytes=1000,
    max_message_bytes=4096,
    max_value_bytes=20_000,
    max_partial_bytes=40_000,
)


# --- every place, every length


@BOTH
@pytest.mark.parametrize("shape", SHAPES)
async def test_lengths(shape: str, encoding: Any, autojump_clock: Any) -> None:
    """As long as a frame may be, one more, as long as a value may be."""
    # Of arguments it is what stands around them that counts as well.
    for size in (0, 980, 998, 999, 1000, 1001, 1002, 5000, 20_000 - 30):
        service = Service(text_of(encoding, size))
        async with open_ends(service, encoding=encoding, limits=SMALL) as ends:
            await SHAPES[shape](ends.client.proxy(Service), service)
        parts = ends.up.sent("part") + ends.down.sent("part")
        if size <= 980:
            assert parts == []
        if size > 1000:
            assert len(parts) > 1


@BOTH
@pytest.mark.parametrize("shape", SHAPES)
async def test_megabytes(shape: str, encoding: Any, autojump_clock: Any) -> None:
    """With the limits that a connection has by default."""
    service = Service(text_of(encoding, 2_000_000))
    async with open_ends(service, encoding=encoding) as ends:
        await SHAPES[shape](ends.client.proxy(Service), service)
    assert len(ends.up.sent("part") + ends.down.sent("part")) > 10
