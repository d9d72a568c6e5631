"""Asking a silent side whether it is there, and giving up one that is not (R24)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_streamrpc.errors import ConnectionLost
from trio_streamrpc.runtime.stalls import end_stalled

if TYPE_CHECKING:
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["keep_alive"]


async def keep_alive(connection: Connection) -> None:
    """Watch a connection until it is lost, or until this is cancelled.

    It is given up when nothing has come for ``ping_timeout`` after a ping, or when one message
    could not be written for as long. A process that stood still itself asks before it judges.
    """
    endpoint = connection.endpoint
    interval, patience = connection.limits.ping_interval, connection.limits.ping_timeout
    await connection.greeted.wait()  # R25: nothing is said before hello
    asked: float | None = None
    while True:
        now, heard, writing = trio.current_time(), connection.last_heard, connection.writer.since
        if asked is not None and heard >= asked:
            asked = None
        if asked is None and now >= heard + interval:
            asked = now
            endpoint.ping(endpoint.codec.null)
            connection.wake_writer()
        # Compared with the sums that are slept until, or rounding would make this spin.
        if writing is not None and now >= writing + patience:
            connection.lose(ConnectionLost(f"a message could not be written in {patience} s"))
            return
        if asked is not None and now >= asked + patience:
            connection.lose(ConnectionLost(f"nothing was heard for {now - heard:.0f} s"))
            return
        due = heard + interval if asked is None else asked + patience
        if writing is not None:
            due = min(due, writing + patience)
        due = min(due, end_stalled(connection, now))
        # What begins while this sleeps is not due before either of the two.
        await trio.sleep_until(min(due, now + interval, now + patience))
