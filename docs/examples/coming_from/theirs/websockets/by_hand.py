"""Calls and streams over a plain WebSocket: trio-websocket, and JSON by hand."""

import itertools
import json
import math
from contextlib import asynccontextmanager

import trio
from trio_websocket import ConnectionClosed, open_websocket, serve_websocket

PRICES = {"ACME": 101.5}


# --- server
async def price(symbol):
    if symbol not in PRICES:
        raise LookupError(f"there is no {symbol}")
    return PRICES[symbol]


async def ticks(symbol):
    try:
        for number in itertools.count(100):
            yield {"symbol": symbol, "price": number}
            await trio.sleep(0.01)
    finally:
        print("server: the feed is closed")


async def report():
    await trio.sleep(3600)


async def chat(user, inbox):
    async for text in inbox:
        yield f"{user}: {text}"


METHODS = {"price": price, "ticks": ticks, "report": report, "chat": chat}


async def serve_client(request):
    websocket = await request.accept()
    scopes, inboxes = {}, {}
    async with trio.open_nursery() as nursery:
        try:
            while True:
                message = json.loads(await websocket.get_message())
                number = message["id"]
                if "method" in message:
                    if message["uploads"]:
                        inboxes[number], inbox = trio.open_memory_channel(math.inf)
                        message["args"].append(inbox)
                    nursery.start_soon(handle, websocket, message, scopes)
                elif "item" in message:
                    inboxes[number].send_nowait(message["item"])
                elif "end" in message:
                    inboxes.pop(number).close()
                elif number in scopes:
                    scopes[number].cancel()
        except ConnectionClosed:
            nursery.cancel_scope.cancel()


async def handle(websocket, message, scopes):
    number = message["id"]
    answer = {"id": number, "end": True}
    try:
        with trio.CancelScope() as scopes[number]:
            produced = METHODS[message["method"]](*message["args"])
            if hasattr(produced, "__aiter__"):
                async for item in produced:
                    await websocket.send_message(json.dumps({"id": number, "item": item}))
            else:
                answer = {"id": number, "result": await produced}
    except LookupError as error:
        answer = {"id": number, "error": str(error)}
    del scopes[number]
    await websocket.send_message(json.dumps(answer))


# --- client
class Client:
    def __init__(self, websocket):
        self.websocket = websocket
        self.numbers = itertools.count()
        self.answers = {}

    async def read(self):
        async for message in messages_of(self.websocket):
            if message["id"] in self.answers:
                self.answers[message["id"]].send_nowait(message)

    @asynccontextmanager
    async def ask(self, method, *args, upload=None):
        number = next(self.numbers)
        # Without a bound: a reader that waited for room would keep all others waiting.
        self.answers[number], answers = trio.open_memory_channel(math.inf)
        uploads = upload is not None
        await self.say(id=number, method=method, args=args, uploads=uploads)
        try:
            async with trio.open_nursery() as nursery:
                if uploads:
                    nursery.start_soon(self.send_all, number, upload)
                yield answers
                nursery.cancel_scope.cancel()
        finally:
            del self.answers[number]
            with trio.move_on_after(1, shield=True):
                await self.say(id=number)

    async def send_all(self, number, items):
        async for item in items:
            await self.say(id=number, item=item)
        await self.say(id=number, end=True)

    async def say(self, **message):
        await self.websocket.send_message(json.dumps(message))

    async def call(self, method, *args):
        async with self.ask(method, *args) as answers:
            answer = await answers.receive()
        if "error" in answer:
            raise LookupError(answer["error"])
        return answer["result"]


async def messages_of(websocket):
    while True:
        try:
            yield json.loads(await websocket.get_message())
        except ConnectionClosed:
            return


# --- end


async def use(client):
    # --- unary
    print("price:", await client.call("price", "ACME"))

    # --- stream
    async with client.ask("ticks", "ACME") as answers:
        async for answer in answers:
            print("tick:", answer["item"]["price"])
            if answer["item"]["price"] == 102:
                break
    print("client: the block is left")

    # --- both
    async def lines():
        yield "hello"

    async with client.ask("chat", "alice", upload=lines()) as answers:
        answer = await answers.receive()
        print("chat:", answer["item"])

    # --- deadline
    try:
        with trio.fail_after(0.1):
            await client.call("report")
    except trio.TooSlowError:
        print("deadline: too slow")

    # --- error
    try:
        await client.call("price", "NONE")
    except LookupError as error:
        print("error:", error)

    # --- end


async def main():
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, serve_client, "127.0.0.1", 0, None)
        async with open_websocket("127.0.0.1", server.port, "/", use_ssl=False) as websocket:
            client = Client(websocket)
            nursery.start_soon(client.read)
            await use(client)
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
