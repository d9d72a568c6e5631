from collections.abc import AsyncIterator
from itertools import count

import trio

from trio_streamrpc import Window, connect, rpc, serve


class Assistant:
    @rpc(window=Window(items=2))
    async def answer(self, question: str) -> AsyncIterator[str]:
        try:
            for number in count(1):
                await trio.sleep(0.01)  # the model thinks
                yield f"token-{number}"
        finally:
            print("server: the model has stopped")


async def show_answer(assistant: Assistant, question: str, stop: trio.Event) -> None:
    async with assistant.answer(question) as tokens:
        async with trio.open_nursery() as nursery:

            async def watch_for_stop() -> None:
                await stop.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch_for_stop)
            async for token in tokens:
                print(token)
                if token == "token-3":
                    stop.set()  # in a real program: what the button does
            nursery.cancel_scope.cancel()
    print("client: stopped")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, Assistant(), "ws://127.0.0.1:0")
        async with connect(server.url) as connection:
            assistant = connection.proxy(Assistant)
            await show_answer(assistant, "Why is the sky blue?", trio.Event())
        nursery.cancel_scope.cancel()


trio.run(main)
