import tempfile
from collections.abc import AsyncIterator, Mapping

import trio

from trio_streamrpc import NotFound, connect, rpc, serve


class Logs:
    def __init__(self, files: Mapping[str, trio.Path]) -> None:
        self._files = files

    @rpc
    async def tail(self, name: str) -> AsyncIterator[str]:
        if name not in self._files:
            raise NotFound(f"there is no log named {name}")
        async with await self._files[name].open(encoding="utf-8") as file:
            line = ""
            while True:
                line += await file.readline()
                if line.endswith("\n"):
                    yield line.rstrip("\n")
                    line = ""
                else:
                    await trio.sleep(0.1)


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = trio.Path(directory, "web.log")
        await path.write_text("started\n", encoding="utf-8")
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve, Logs({"web": path}), "ws://127.0.0.1:0")
            async with connect(server.url) as connection:
                logs = connection.proxy(Logs)
                async with logs.tail("web") as lines:
                    print(await lines.receive())
                    async with await path.open("a", encoding="utf-8") as file:
                        await file.write("GET /\nGET /favicon.ico\n")
                    with trio.fail_after(5):
                        print(await lines.receive())
                        print(await lines.receive())
            nursery.cancel_scope.cancel()


trio.run(main)
