"""The workloads: what each does, what its figure says, and how much of it is done.

A size is the amount that a peer does at once; it does as much again until the time is up, and
the figure is the amount for the time. It is the same for all peers: the full run's sizes are those
of the table, and the quick run's are small enough for the slowest of its peers.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WORKLOADS", "Effort", "Workload"]


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    unit: str
    """What the figure is given in."""
    full: int
    """The size in a full run; what is counted is said in ``title``."""
    quick: int
    smaller_is_better: bool = False
    in_quick: bool = False
    """Whether a quick run measures it where nothing is chosen."""
    beside: str | None = None
    """The workload whose figures of other peers it is compared with: the same work, done in a way
    of our own."""
    bound: float = 1.0
    """How many times the usual time it may take before it is said to hang."""


@dataclass(frozen=True)
class Effort:
    """How much is done of everything."""

    quick: bool = False
    scale: float = 1.0
    """A factor for all sizes and times; a test has a small one."""

    def size(self, workload: Workload) -> int:
        return max(1, int((workload.quick if self.quick else workload.full) * self.scale))

    @property
    def seconds(self) -> float:
        """For how long a workload is repeated, at least."""
        return (0.2 if self.quick else 1.0) * self.scale

    def bound(self, workload: Workload) -> float:
        """After how many seconds a workload is said to hang."""
        return (10.0 if self.quick else 60.0) * workload.bound


_ALL = (
    Workload(
        "W1",
        "calls, one after the other: the median time of one",
        "µs",
        full=5_000,
        quick=300,
        smaller_is_better=True,
        in_quick=True,
    ),
    Workload(
        "W2",
        "calls of 64 callers at once on one connection",
        "calls/s",
        full=12_800,
        quick=1_280,
        in_quick=True,
    ),
    Workload(
        "W3",
        "one stream of small items, taken one by one",
        "items/s",
        full=50_000,
        quick=5_000,
        in_quick=True,
    ),
    Workload(
        "W3b",
        "the same stream, taken in batches",
        "items/s",
        full=50_000,
        quick=5_000,
        beside="W3",
    ),
    Workload(
        "W3t",
        "the same stream, of objects of a class with four fields",
        "items/s",
        full=50_000,
        quick=5_000,
        beside="W3",
    ),
    Workload(
        "W4",
        "32 such streams at once on one connection",
        "items/s",
        full=64_000,
        quick=6_400,
        in_quick=True,
    ),
    Workload(
        "W5",
        "one stream of chunks of 64 KiB",
        "MB/s",
        full=2_000,
        quick=200,
        in_quick=True,
    ),
    Workload(
        "W6",
        "a slow consumer of chunks of 64 KiB: those made ahead of those taken",
        "chunks",
        full=1,
        quick=1,
        smaller_is_better=True,
    ),
    Workload(
        "W7",
        "leaving a stream early: until the busy producer has ended",
        "ms",
        full=50,
        quick=5,
        smaller_is_better=True,
    ),
    Workload(
        "W7i",
        "the same of a producer that waits for something else",
        "ms",
        full=50,
        quick=5,
        smaller_is_better=True,
    ),
    Workload(
        "W7c",
        "a call beside a producer that never awaits: p99",
        "ms",
        full=500,
        quick=50,
        smaller_is_better=True,
    ),
    Workload(
        "W8",
        "an upload of small items",
        "items/s",
        full=50_000,
        quick=5_000,
        in_quick=True,
    ),
    Workload(
        "W9",
        "idle connections: the server's memory for each",
        "KiB",
        full=10_000,
        quick=200,
        smaller_is_better=True,
        bound=5.0,
    ),
    Workload(
        "W10",
        "1,000 streams at once on one connection",
        "items/s",
        full=1_000,
        quick=100,
    ),
    Workload(
        "W11",
        "calls beside a value of 100 MB: p99",
        "µs",
        full=100_000_000,
        quick=10_000_000,
        smaller_is_better=True,
    ),
    Workload(
        "W12",
        "a stream over a link of 50 ms each way: its part of what no window bounds",
        "%",
        full=50,
        quick=5,
    ),
)

WORKLOADS = {workload.name: workload for workload in _ALL}
