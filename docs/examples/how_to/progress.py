from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from trio_streamrpc import connect, rpc, serve


@dataclass
class Progress:
    done: int
    total: int


class Thumbnails:
    @rpc
    async def make(
        self, album: str, size: int, progress: Callable[[Progress], Awaitable[None]]
    ) -> str:
        total = 100
        for done in range(1, total + 1):
            await trio.sleep(0.001)  # one picture
            if done % 25 == 0:
                await progress(Progress(done, total))
        return f"{total} thumbnails of {album}"


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, Thumbnails(), "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            thumbnails = connection.proxy(Thumbnails)

            async def show(progress: Progress) -> None:
                print(f"{progress.done} of {progress.total}")

            with trio.fail_after(30):
                print(await thumbnails.make("holidays", 128, show))
        nursery.cancel_scope.cancel()


trio.run(main)
