"""A stream's place in its connection: a bounded memory channel that the reader feeds."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from msgspec import Raw

from trio_streamrpc.errors import RpcError
from trio_streamrpc.protocol.credit import ReceiveWindow
from trio_streamrpc.protocol.frames import Chunk, End, Error, ErrorInfo, Ref
from trio_streamrpc.runtime.failures import error_from

__all__ = ["Receiver"]


class Receiver:
    """A stream's place in its connection: what has arrived, and how it ends."""

    __slots__ = (
        "_sender",
        "chunks",
        "failure",
        "final",
        "finished",
        "id",
        "place",
        "refs",
        "takes_objects",
        "window",
    )

    def __init__(
        self,
        id: int,
        window: ReceiveWindow,
        capacity: int,
        place: trio.Semaphore | None = None,
    ) -> None:
        self.id = id
        #: What its final frame frees: the place of its call. An upload has none.
        self.place = place
        #: The references of the last chunk: only a context's or a task's item has any (R20).
        self.refs: Sequence[Ref] = ()
        self.takes_objects = False
        self.window = window
        # R17: a chunk has an item at least, so there is a free place for all that is granted.
        self._sender, self.chunks = trio.open_memory_channel[list[Raw]](capacity)
        #: The final frame, once it has come: the proof that the producer has finished (R7).
        self.final: End | Error | None = None
        #: Why there will be no more items, if not for the final frame.
        self.failure: RpcError | None = None
        #: Set when nothing more will be heard of this id.
        self.finished = trio.Event()

    @property
    def is_wanted(self) -> bool:
        """Whether nobody has asked for its end, and it has not come."""
        return self.failure is None and not self.finished.is_set()

    def feed(self, frame: Chunk) -> None:
        if frame.refs:
            self.refs = frame.refs
        self._sender.send_nowait(frame.items)

    def finish(self, frame: End | Error) -> None:
        self.final = frame
        self._sender.close()
        self.finished.set()

    def overflow(self, info: ErrorInfo) -> None:
        """More came than was granted: the items that fitted are the last (R16)."""
        self.failure = error_from(info)
        self._sender.close()

    def stop(self, error: RpcError) -> None:
        """Nobody is to take any more of it, though its final frame is still to come."""
        if self.failure is None and self.final is None:
            self.failure = error
        self._sender.close()

    def lose(self, error: RpcError) -> None:
        """The connection is gone: the items that had arrived are the last."""
        if self.failure is None:
            self.failure = error
        self._sender.close()
        self.finished.set()
