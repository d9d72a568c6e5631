"""Two sans-IO endpoints and the wire between them: a whole connection without Trio.

pair = EndpointPair()
call = pair.connecting.call("add", b"\\x92\\x01\\x02")
[event] = pair.flush(CONNECTING)              # what that means to the accepting side's runtime
pair.accepting.answer(call.id, b"\\x03")
[result] = pair.flush(ACCEPTING)
"""

from __future__ import annotations

from collections import deque
from typing import Final

from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.endpoint import Endpoint, Event
from trio_streamrpc.testing.plain_frames import PlainFrame, read_message

__all__ = ["ACCEPTING", "CONNECTING", "EndpointPair"]

#: The sides of a pair, as its methods take them; ``1 - side`` is the other one.
CONNECTING: Final = 0
ACCEPTING: Final = 1


class EndpointPair:
    """Two endpoints and what is on its way between them.

    Nothing moves by itself: :meth:`write` puts what waits at a side on the wire, :meth:`deliver`
    takes the oldest message off it, and ``wires`` may be looked at and changed in between (a
    message may be damaged, lost, or said twice). Time is what ``now`` is set to, in seconds.

    ``limits`` are those of both sides, unless the accepting side has ``accepting_limits`` of its
    own. Unless ``greeted`` is false, both have said hello.
    """

    def __init__(
        self,
        *,
        encoding: Encoding = "msgpack",
        limits: Limits | None = None,
        accepting_limits: Limits | None = None,
        greeted: bool = True,
    ) -> None:
        self.encoding = encoding
        self.ends = (
            Endpoint("connecting", encoding=encoding, limits=limits),
            Endpoint("accepting", encoding=encoding, limits=accepting_limits or limits),
        )
        #: Messages on their way from each side, the oldest first.
        self.wires: tuple[deque[bytes | str], deque[bytes | str]] = (deque(), deque())
        #: Every message that was written, and the side that wrote it, in order.
        self.written: list[tuple[int, bytes | str]] = []
        self.now = 0.0
        if greeted:
            self.greet()

    @property
    def connecting(self) -> Endpoint:
        """The side that opened the transport: its ids are odd (R5)."""
        return self.ends[CONNECTING]

    @property
    def accepting(self) -> Endpoint:
        """The side that took it: its ids are even."""
        return self.ends[ACCEPTING]

    def greet(self) -> None:
        """Both say hello, and the accepting side accepts (R25)."""
        self.flush(CONNECTING)
        self.accepting.accept()
        self.flush(ACCEPTING)

    def write(self, side: int) -> bytes | str | None:
        """Put the next message of a side on the wire; None if nothing waits there."""
        message = self.ends[side].next_message()
        if message is not None:
            self.wires[side].append(message)
            self.written.append((side, message))
        return message

    def deliver(self, side: int) -> list[Event]:
        """The oldest message *from* that side arrives: what it means to the other one's runtime.

        Raises :exc:`IndexError` if none is on its way, and
        :exc:`~trio_streamrpc.RemoteProtocolError` if the other side does not take it.
        """
        return self.ends[1 - side].receive(self.wires[side].popleft(), self.now)

    def flush(self, side: int) -> list[Event]:
        """All that waits at a side, or is on its way from it, arrives."""
        events: list[Event] = []
        while self.wires[side] or self.write(side) is not None:
            events += self.deliver(side)
        return events

    def settle(self) -> tuple[list[Event], list[Event]]:
        """All that either side has to say arrives, until neither has: the events of each side."""
        events: tuple[list[Event], list[Event]] = ([], [])
        moved = True
        while moved:
            moved = False
            for side in (CONNECTING, ACCEPTING):
                if self.wires[side] or self.ends[side].outbox:
                    events[1 - side].extend(self.flush(side))
                    moved = True
        return events

    def frames(self, side: int) -> list[PlainFrame]:
        """Every frame that a side has written so far, as plain dicts."""
        messages = [message for writer, message in self.written if writer == side]
        return [frame for message in messages for frame in read_message(message)]

    def assert_empty(self) -> None:
        """Nothing is open, unfinished or waiting on either side (R7, R19, R21, R26)."""
        for end in self.ends:
            assert not end.failed, f"the {end.side} side has failed"
            assert end.exchanges == {}, f"ids are open: {end.exchanges}"
            assert end.objects == {}, f"objects can be called: {end.objects}"
            assert end.places.running == end.places.overrunning == 0, "places of calls are taken"
            assert end.uploads == 0, f"{end.uploads} uploads are open"
            assert end.partial_bytes == end.outbox.room.used == 0, "values are unfinished"
            assert not end.assembly.unfinished, "values are unfinished"
            assert not end.assembly.uploads, "uploads wait for their calls"
            assert not end.watched, "calls are watched"
            assert not end.outbox, "frames wait to be written"
            assert end.outbox.control_bytes == 0, "control frames wait to be written"
            assert end.next_message() is None, "a message waits to be written"
        assert not any(self.wires), "messages are on their way"
