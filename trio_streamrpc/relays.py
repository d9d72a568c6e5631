"""Messages from one transport to another, and back."""

from __future__ import annotations

import trio

from trio_streamrpc.errors import ConnectionLost
from trio_streamrpc.transports.base import Transport, close_by_force

__all__ = ["relay"]

#: How long the last words of a transport that takes nothing more may take, in seconds.
LAST_WORDS = 1.0


async def relay(transport_a: Transport, transport_b: Transport) -> None:
    """Forward messages between two transports, both ways, until one of them ends.

    Neither side's messages are looked into, so whatever is spoken passes. One message of each
    direction is held at a time: a side that does not read holds the other back, as if it were
    connected to it. When one transport ends, what was received of it has been sent; both are closed
    when this returns, and when it is cancelled.

    Raises :exc:`ValueError` for transports of different encodings, and
    :exc:`RemoteProtocolError` for a message that a transport does not take.
    """
    if transport_a.encoding != transport_b.encoding:
        raise ValueError(
            f"messages of {transport_a.encoding!r} cannot be relayed as {transport_b.encoding!r}"
        )
    failures: list[Exception] = []
    try:
        async with trio.open_nursery() as nursery:

            async def forward(source: Transport, target: Transport) -> None:
                try:
                    while True:
                        message = await source.receive()
                        try:
                            await target.send(message)
                        except ConnectionLost:
                            # What it has said before that is still to be passed on.
                            nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS
                            return
                except ConnectionLost:
                    pass
                except Exception as error:
                    failures.append(error)
                nursery.cancel_scope.cancel()

            nursery.start_soon(forward, transport_a, transport_b)
            nursery.start_soon(forward, transport_b, transport_a)
        if failures:
            raise failures[0]
        # What was sent last is with the other side before the end is.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport_a.aclose)
            nursery.start_soon(transport_b.aclose)
    finally:
        await close_by_force(transport_a)
        await close_by_force(transport_b)
