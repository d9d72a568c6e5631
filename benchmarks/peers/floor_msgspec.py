"""A floor: msgspec encodes the item of W3 as MessagePack and decodes it again; nothing is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import common
import msgspec
import trio


async def run_server(transport: str) -> None:
    common.announce("nowhere")
    await trio.sleep_forever()


class Client(common.Client):
    async def take(self, count: int) -> tuple[int, int]:
        encode = msgspec.msgpack.Encoder().encode
        decode = msgspec.msgpack.Decoder().decode
        taken = total = 0
        for number in range(count):
            item = decode(encode({"i": number, "s": common.TEXT}))
            taken += 1
            total += item["i"]
        return taken, total


@asynccontextmanager
async def open_client(address: str) -> AsyncIterator[Client]:
    yield Client()


if __name__ == "__main__":
    common.trio_main(run_server, open_client)
