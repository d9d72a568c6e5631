"""Which ids a frame of the other side may stand on, and what it moves them to (R5, R9).

Each raises :exc:`RemoteProtocolError` for what only a broken peer sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_streamrpc.protocol import reactions
from trio_streamrpc.protocol.exchanges import Exchange
from trio_streamrpc.protocol.frames import KINDS
from trio_streamrpc.protocol.states import STATES

if TYPE_CHECKING:
    from trio_streamrpc.protocol.endpoint import Endpoint

__all__ = ["check_new", "is_ours", "move", "move_if_open", "was_used"]

CLOSED = STATES["CLOSED"]


def check_new(endpoint: Endpoint, id: int) -> None:
    """R5: the other side's parity, and above every id it has used."""
    if is_ours(endpoint, id):
        raise reactions.WRONG_PARITY.error(id)
    if id <= endpoint.highest_seen:
        raise reactions.ID_NOT_RISING.error(id, endpoint.highest_seen)
    endpoint.highest_seen = id


def move(endpoint: Endpoint, id: int, kind: int) -> Exchange:
    """Take a frame on an id that must be open for it."""
    exchange = endpoint.exchanges.get(id)
    if exchange is None or is_unwritten(endpoint, id):
        was = "CLOSED" if was_used(endpoint, id) else "IDLE"
        raise reactions.OUT_OF_PLACE.error(KINDS[kind], id, was)
    state = exchange.state.received[kind]
    if state is None:
        raise reactions.OUT_OF_PLACE.error(KINDS[kind], id, exchange.state)
    exchange.state = state
    return exchange


def move_if_open(endpoint: Endpoint, id: int, kind: int) -> Exchange | None:
    """The same for a frame that may have crossed the final one: None if it has (R9)."""
    if id not in endpoint.exchanges and was_used(endpoint, id):
        return None
    exchange = move(endpoint, id, kind)
    return None if exchange.state is CLOSED else exchange


def was_used(endpoint: Endpoint, id: int) -> bool:
    """R5: no tombstones; what is not open and not above the highest seen was closed."""
    if is_ours(endpoint, id):
        return id <= endpoint.highest_used and not endpoint.outbox.is_unwritten(id)
    return id <= endpoint.highest_seen


def is_unwritten(endpoint: Endpoint, id: int) -> bool:
    """R9: an id of ours that the other side can only have guessed was never opened."""
    return endpoint.outbox.is_unwritten(id) and is_ours(endpoint, id)


def is_ours(endpoint: Endpoint, id: int) -> bool:
    """R5: the connecting side's ids are odd."""
    return (id % 2 == 1) == (endpoint.side == "connecting")
