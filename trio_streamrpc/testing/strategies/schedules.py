"""When things happen: delays, splits, cuts and cancellations; and networks that have them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from trio_streamrpc.testing.networks import Network

__all__ = ["Schedule", "networks", "schedules"]


@dataclass(frozen=True)
class Schedule:
    """When what is sent arrives, in which pieces, and what is given up meanwhile.

    Each sequence is gone through again from the start when it is used up.
    """

    #: Seconds before each piece.
    delays: tuple[float, ...] = (0.0,)
    #: How many bytes a piece has.
    splits: tuple[int, ...] = (65_536,)
    #: After how many bytes nothing more comes; None for never.
    cut: int | None = None
    #: After how many seconds what is waited for is given up, one for each attempt.
    cancellations: tuple[float, ...] = ()

    def pieces(self, data: bytes) -> Iterator[tuple[float, bytes]]:
        """The data as it arrives: seconds to wait, and what comes then."""
        if self.cut is not None:
            data = data[: self.cut]
        number = at = 0
        while at < len(data):
            size = self.splits[number % len(self.splits)]
            yield self.delays[number % len(self.delays)], data[at : at + size]
            number, at = number + 1, at + size


def schedules(*, max_delay: float = 2.0, max_cut: int = 2_000) -> SearchStrategy[Schedule]:
    """Schedules; seconds are short, and of few values, so that things coincide."""
    seconds = st.sampled_from([0.0, 0.1, 0.5, 1.0]).map(lambda each: each * max_delay)
    return st.builds(
        Schedule,
        delays=st.lists(seconds, min_size=1, max_size=4).map(tuple),
        splits=st.lists(st.integers(1, 40) | st.just(65_536), min_size=1, max_size=4).map(tuple),
        cut=st.none() | st.integers(0, max_cut),
        cancellations=st.lists(seconds, max_size=3).map(tuple),
    )


def networks(*, breaks: bool = True, stalls: bool = True) -> SearchStrategy[Network]:
    """Networks, from a perfect one to a bad one; those that break only with ``breaks``.

    A stall ends before keepalive gives up (R24).
    """
    return st.builds(
        Network,
        latency=st.sampled_from([0.0, 0.001, 0.05, 0.5]),
        jitter=st.sampled_from([0.0, 0.01, 0.3]),
        bandwidth=st.none() | st.sampled_from([1_000.0, 50_000.0, 1e6]),
        cut=st.none() | st.floats(0.0, 5.0) if breaks else st.none(),
        stall=st.none() | st.tuples(st.floats(0.0, 3.0), st.floats(0.1, 5.0))
        if stalls
        else st.none(),
    )
