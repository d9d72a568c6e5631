"""What the other side has begun and does not go on with, though it is there (R14, R21).

A stream of this side whose consumer takes nothing and does not leave holds a handler and a place,
and so does a call in parts of which no more comes. What has nothing to say is not meant: a stream
that waits for its own producer may be silent for as long as it likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_streamrpc.protocol import reactions
from trio_streamrpc.protocol.frames import Call

if TYPE_CHECKING:
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["end_stalled"]


def end_stalled(connection: Connection, now: float) -> float:
    """End what has waited for too long; gives when to look again, on Trio's clock."""
    return min(_end_streams(connection, now), _end_calls(connection, now))


def _end_streams(connection: Connection, now: float) -> float:
    patience = connection.limits.stall_timeout
    # What begins to wait later is not due before.
    due = now + patience
    for handler in connection.callee.handlers:
        since = handler.waits_since
        if since + patience <= now:
            handler.give_up(reactions.NOTHING_TAKEN.info(patience))
        else:
            due = min(due, since + patience)
    return due


def _end_calls(connection: Connection, now: float) -> float:
    endpoint, patience = connection.endpoint, connection.limits.part_timeout
    due = now + patience
    for id, value in list(endpoint.assembly.unfinished.items()):
        if not isinstance(value.frame, Call):
            continue
        if value.heard + patience <= now:
            endpoint.drop_call(id, reactions.NO_PART.info(patience))
            connection.callee.check_idle()
            connection.wake_writer()
        else:
            due = min(due, value.heard + patience)
    return due
