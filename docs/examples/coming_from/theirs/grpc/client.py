"""A client of market.proto with grpc.aio."""

import asyncio

import grpc
import market_pb2
import market_pb2_grpc


async def use(market: market_pb2_grpc.MarketStub) -> None:
    # --- unary
    reply = await market.Price(market_pb2.PriceRequest(symbol="ACME"))
    print("price:", reply.price)

    # --- stream
    call = market.Ticks(market_pb2.TicksRequest(symbol="ACME"))
    async for tick in call:
        print("tick:", tick.price)
        if tick.price == 102:
            break
    call.cancel()
    print("client: the loop is left")

    # --- upload
    async def some_ticks():
        for number in range(3):
            yield market_pb2.Tick(symbol="ACME", price=number)

    reply = await market.Ingest(some_ticks())
    print("ingested:", reply.count)

    # --- both
    chat = market.Chat(metadata=[("user", "alice")])
    await chat.write(market_pb2.Line(text="hello"))
    answer = await chat.read()
    print("chat:", answer.text)
    await chat.done_writing()

    # --- deadline
    try:
        await market.Report(market_pb2.Nothing(), timeout=0.1)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
        print("deadline: too slow")

    # --- error
    try:
        await market.Price(market_pb2.PriceRequest(symbol="NONE"))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        print("error:", error.details())

    # --- cancel
    call = market.Report(market_pb2.Nothing())
    await asyncio.sleep(0.1)
    call.cancel()
    print("cancelled")


# --- main
async def main() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:50051") as channel:
        await use(market_pb2_grpc.MarketStub(channel))


# --- end
asyncio.run(main())
