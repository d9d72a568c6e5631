"""The service of market.proto with grpc.aio, on 127.0.0.1:50051."""

import asyncio
import itertools

import grpc
import market_pb2
import market_pb2_grpc

PRICES = {"ACME": 101.5}


# --- service
class Market(market_pb2_grpc.MarketServicer):
    async def Price(self, request, context):
        if request.symbol not in PRICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {request.symbol}")
        return market_pb2.PriceReply(price=PRICES[request.symbol])

    async def Ticks(self, request, context):
        try:
            for price in itertools.count(100):
                yield market_pb2.Tick(symbol=request.symbol, price=price)
                await asyncio.sleep(0.01)
        finally:
            print("server: the feed is closed", flush=True)

    async def Ingest(self, request_iterator, context):
        count = 0
        async for _ in request_iterator:
            count += 1
        return market_pb2.IngestReply(count=count)

    async def Chat(self, request_iterator, context):
        user = dict(context.invocation_metadata())["user"]
        async for line in request_iterator:
            yield market_pb2.Line(text=f"{user}: {line.text}")

    async def Report(self, request, context):
        left = context.time_remaining()
        print("server: is there a deadline?", left is not None, flush=True)
        await asyncio.sleep(3600)
        return market_pb2.Line(text="all is well")


# --- main
async def main() -> None:
    server = grpc.aio.server()
    market_pb2_grpc.add_MarketServicer_to_server(Market(), server)
    server.add_insecure_port("127.0.0.1:50051")
    await server.start()
    await server.wait_for_termination()


# --- end
asyncio.run(main())
