"""Asking silent sides whether they are there, and giving up those that are not (R24).

One task does it for many connections: for one that is idle, a task of its own is a good part of
what it takes in memory.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

import trio

from trio_streamrpc.errors import ConnectionLost, InternalError
from trio_streamrpc.runtime.failures import LOGGER
from trio_streamrpc.runtime.parking import Parking
from trio_streamrpc.runtime.stalls import end_stalled

if TYPE_CHECKING:
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["Keepalive"]

#: How many watches of connections that are gone may wait for their time, beyond as many as are
#: watched.
SPARE = 1000


class Keepalive:
    """Watches connections.

    One is given up when nothing has come for ``ping_timeout`` after a ping, or when one message
    could not be written for as long. A process that stood still itself asks before it judges.
    """

    def __init__(self) -> None:
        self._watches: dict[Connection, _Watch] = {}
        #: When each is to be looked at, the first in front; the number keeps watches from being
        #: compared. One that is watched no more is dropped when its time comes, or when there are
        #: too many of them.
        self._due: list[tuple[float, int, _Watch]] = []
        self._numbers = count()
        self._parking = Parking()
        #: Until when its task sleeps.
        self._until = float("inf")

    def watch(self, connection: Connection) -> None:
        """Look after a connection on which both sides have said hello (R25)."""
        watch = self._watches[connection] = _Watch(connection)
        self._look(watch)

    def forget(self, connection: Connection) -> None:
        """Look after it no more; nothing is kept of it."""
        watch = self._watches.pop(connection, None)
        if watch is not None:
            watch.connection = None
        if len(self._due) > 2 * len(self._watches) + SPARE:
            self._due[:] = [each for each in self._due if each[2].connection is not None]
            heapq.heapify(self._due)

    def _look(self, watch: _Watch) -> None:
        """Look at a connection, and plan when to look again."""
        try:
            due = watch.check()
        except Exception as error:
            # A fault of this library, or of a transport: that connection's end, and no other's.
            connection = watch.connection
            assert connection is not None
            LOGGER.exception("the connection with %s failed", connection.remote)
            connection.lose(InternalError(f"the connection failed: {type(error).__name__}"))
            return
        if due is None:
            return
        heapq.heappush(self._due, (due, next(self._numbers), watch))
        if due < self._until:
            self._parking.unpark()

    async def run(self) -> None:
        """Watch until this is cancelled."""
        due = self._due
        while True:
            now = trio.current_time()
            while due and (due[0][0] <= now or due[0][2].connection is None):
                _, _, watch = heapq.heappop(due)
                self._look(watch)
            self._until = due[0][0] if due else float("inf")
            with trio.move_on_at(self._until):
                await self._parking.park()
            # What has come by now is read before anybody is judged: a process that stood still
            # finds answers and deadlines at once, in whatever order.
            await trio.lowlevel.checkpoint()


class _Watch:
    """What is known of one connection."""

    __slots__ = ("asked", "connection")

    def __init__(self, connection: Connection) -> None:
        self.connection: Connection | None = connection
        #: When it was asked whether it is there, if it has said nothing since.
        self.asked: float | None = None

    def check(self) -> float | None:
        """Ask or give it up, if it is time; gives when to look again, None if never."""
        connection = self.connection
        if connection is None or not connection.alive:
            return None
        limits = connection.limits
        interval, patience = limits.ping_interval, limits.ping_timeout
        now, heard, writing = trio.current_time(), connection.last_heard, connection.writer.since
        if self.asked is not None and heard >= self.asked:
            self.asked = None
        if connection.endpoint.stuck:
            # It is this side that does not listen: what the other says is not heard meanwhile.
            self.asked = None
        elif self.asked is None and now >= heard + interval and _ask(connection):
            self.asked = now
        # Compared with the sums that are slept until, or rounding would make this spin.
        if writing is not None and now >= writing + patience:
            connection.lose(ConnectionLost(f"a message could not be written in {patience} s"))
            return None
        if self.asked is not None and now >= self.asked + patience:
            connection.lose(ConnectionLost(f"nothing was heard for {now - heard:.0f} s"))
            return None
        due = heard + interval if self.asked is None else self.asked + patience
        if due <= now:
            # It could not be asked.
            due = now + interval
        if writing is not None:
            due = min(due, writing + patience)
        due = min(due, end_stalled(connection, now))
        # What begins until then is not due before either of the two.
        return min(due, now + interval, now + patience)


def _ask(connection: Connection) -> bool:
    """Ask a side that is silent whether it is there; False if there are no words for it."""
    if not connection.endpoint.pings:
        return connection.transport.ask()
    connection.endpoint.ping(connection.endpoint.codec.null)
    connection.wake_writer()
    return True
