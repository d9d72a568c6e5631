"""Calls with references, as both applications see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from trio_streamrpc.protocol.calling import Refs
from trio_streamrpc.protocol.credit import ReceiveWindow
from trio_streamrpc.protocol.exchanges import Exchange

__all__ = ["Conversation", "Exported", "Plan", "Upload"]


@dataclass(eq=False)
class Plan:
    """What a call is to be, once there is room for its values."""

    side: int
    args: bytes
    #: The object that it calls; None for the service.
    target: Exported | None
    brings: Sequence[Literal["stream", "object"]]
    is_context: bool
    priority: int
    watched: bool

    @property
    def refs(self) -> Refs:
        return list(enumerate(self.brings))

    @property
    def root(self) -> Conversation | None:
        """The call to a service at the start of the chain that it belongs to (R26)."""
        return None if self.target is None else self.target.owner.root


@dataclass(eq=False)
class Conversation:
    """One call."""

    id: int
    plan: Plan
    #: What its caller knows of it, and its callee from when it is started.
    exchange: Exchange
    served: Exchange | None = None
    uploads: list[Upload] = field(default_factory=list)
    objects: list[Exported] = field(default_factory=list)
    #: What a context has given.
    given: Exported | None = None
    started: bool = False
    #: The final frame that the callee has said, and that the caller has seen.
    said: str | None = None
    seen: str | None = None
    same: bool = False
    answer: bytes = b""
    #: The caller has asked for the end; the callee has heard of it.
    cancelled: bool = False
    asked: bool = False
    #: The call was taken back before it was written.
    withdrawn: bool = False

    @property
    def caller(self) -> int:
        return self.plan.side

    @property
    def callee(self) -> int:
        return 1 - self.plan.side

    @property
    def over(self) -> bool:
        return self.withdrawn or self.seen is not None

    @property
    def is_running(self) -> bool:
        return self.started and self.said is None

    @property
    def root(self) -> Conversation:
        return self.plan.root or self

    @property
    def records(self) -> list[Exchange]:
        return [self.exchange] if self.served is None else [self.exchange, self.served]

    def record(self, side: int) -> Exchange:
        """What that side knows of it."""
        record = self.exchange if side == self.caller else self.served
        assert record is not None
        return record

    @property
    def brought(self) -> list[tuple[int | str, str, int]]:
        """The references as they travel: places, kinds and ids."""
        ids = {
            "stream": iter([each.id for each in self.uploads]),
            "object": iter([each.id for each in self.objects]),
        }
        return [(place, kind, next(ids[kind])) for place, kind in self.plan.refs]


@dataclass(eq=False)
class Upload:
    """One upload of a call."""

    id: int
    call: Conversation
    #: What its producer knows of it, and how its consumer counts, once its call is started.
    exchange: Exchange
    consumer: ReceiveWindow | None = None
    #: What the producer sent, and what reached the consumer while it was still there.
    sent: list[bytes] = field(default_factory=list)
    arrived: list[bytes] = field(default_factory=list)
    taken: int = 0
    #: The final frame that the producer has said, and that the consumer has seen.
    said: str | None = None
    seen: str | None = None
    #: The consumer wants no more; the producer has heard of it.
    left: bool = False
    asked: bool = False

    @property
    def is_over(self) -> bool:
        """Whether its producer has no more to say."""
        return self.call.withdrawn or self.said is not None


@dataclass(eq=False)
class Exported:
    """An object of one side: a callback of a call, or what a context has given (R20)."""

    id: int
    owner: Conversation
    side: int
    #: Whether the other side has heard of it.
    known: bool = False
    #: Whether its side has ended it before its owner was over.
    ended: bool = False

    @property
    def alive(self) -> bool:
        """Whether it can be called."""
        if self.ended:
            return False
        if self.side == self.owner.caller:
            return not self.owner.over
        return self.owner.said is None and not self.owner.asked
