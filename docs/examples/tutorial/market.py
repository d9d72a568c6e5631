from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from trio_streamrpc import rpc


@dataclass
class Tick:
    symbol: str
    price: float


class NoSuchSymbol(Exception):
    pass


class Market(Protocol):
    @rpc(errors=(NoSuchSymbol,))
    async def price(self, symbol: str) -> float: ...

    @rpc(errors=(NoSuchSymbol,))
    async def ticks(self, symbol: str) -> AsyncIterator[Tick]: ...
