"""What the demonstration measures, and what of it has to be so."""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["BRIEF", "FULL", "Figures", "Schedule"]

#: What ``--json`` prints, and the order that it does so in.
JSON_KEYS = (
    "unary_us",
    "metrics_items",
    "file_bytes",
    "file_mb_per_s",
    "file_sha256_ok",
    "lookahead_items",
    "window_items",
    "break_cleanup_ms",
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How much of everything is done; times are in seconds."""

    calls: int = 500
    metrics_seconds: float = 3.0
    metrics_interval: float = 0.1
    #: Items that the slow consumer takes, one each 100 ms; credit comes back for half a window.
    slow_items: int = 24
    both_seconds: float = 1.0


#: For somebody who watches.
FULL = Schedule()

#: For ``--json``: the same, and no longer than it takes to measure it.
BRIEF = Schedule(metrics_seconds=1.5, slow_items=8, both_seconds=0.5)


@dataclass(slots=True)
class Figures:
    """The figures of one run, filled in as they are measured."""

    unary_us: float = 0.0
    """The median round trip of a call, in microseconds."""

    metrics_items: int = 0
    """Samples of this machine that arrived."""

    file_bytes: int = 0
    """What arrived of the file."""

    file_mb_per_s: float = 0.0
    """How fast it did, in 10^6 bytes per second, with the hashing of what arrived."""

    file_sha256_ok: bool = False
    """Whether the digest of what arrived is that of the file."""

    lookahead_items: int = 0
    """How far the producer was ahead of its slow consumer, at most."""

    window_items: int = 0
    """How far it may be."""

    flood_items: int = 0
    """What arrived of the first of two streams…"""

    beat_items: int = 0
    """…and in the same time of the second."""

    break_cleanup_ms: float = 0.0
    """From leaving the loop to the end of its block, in milliseconds."""

    finally_ran: bool = False
    """Whether the producer's ``finally`` had run then."""

    def problems(self) -> list[str]:
        """What is not as it has to be, a line for each; empty if all is well."""
        found = []
        if not self.file_sha256_ok:
            found.append("the SHA-256 of what arrived is not that of the file")
        if self.lookahead_items != self.window_items:
            found.append(
                f"the producer ran {self.lookahead_items} items ahead of its consumer, "
                f"and the window is {self.window_items}"
            )
        if not (self.flood_items and self.beat_items):
            found.append("one of two streams at once stood still")
        if not self.finally_ran:
            found.append("the block ended before the producer's finally had run")
        return found

    def as_json(self) -> str:
        """The figures as one JSON object."""
        return json.dumps({key: getattr(self, key) for key in JSON_KEYS}, indent=2)
