"""What two sides have said to each other, and when: for readers, and for comparing two runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from trio_streamrpc.testing.plain_frames import PlainFrame, read_message

__all__ = ["Said", "Trace"]

#: How much of one value is shown.
SHOWN = 60


@dataclass(frozen=True)
class Said:
    """One message."""

    #: Seconds since the start.
    time: float
    #: ``→`` from the connecting side, ``←`` from the accepting one.
    arrow: str
    message: bytes | str

    @property
    def frames(self) -> list[PlainFrame]:
        """Its frames as plain dicts."""
        return read_message(self.message)

    def __str__(self) -> str:
        return "\n".join(f"{self.time:10.4f} {self.arrow} {_shown(frame)}" for frame in self.frames)


class Trace:
    """Every message of a connection, in the order in which they were sent.

    ``str(trace)`` shows its frames, a line for each; ``bytes(trace)`` is the same for two runs if,
    and only if, the same bytes were said at the same times.
    """

    def __init__(self, began: float = 0.0) -> None:
        self._began = began
        #: Each message, with its ``time``, ``arrow``, ``message`` and ``frames``.
        self.said: list[Said] = []

    def note(self, time: float, arrow: str, message: bytes | str) -> None:
        """A message was sent at that time, on Trio's clock."""
        self.said.append(Said(time - self._began, arrow, message))

    @property
    def frames(self) -> list[PlainFrame]:
        """All frames of both sides."""
        return [frame for each in self.said for frame in each.frames]

    def __len__(self) -> int:
        return len(self.said)

    def __str__(self) -> str:
        return "\n".join(map(str, self.said))

    def tail(self, count: int) -> str:
        """The last so many messages, with a line that tells how many were left out."""
        left_out = max(len(self.said) - count, 0)
        lines = [f"           … {left_out} messages before these"] * (left_out > 0)
        return "\n".join([*lines, *map(str, self.said[left_out:])])

    def __bytes__(self) -> bytes:
        found = bytearray()
        for each in self.said:
            data = each.message.encode() if isinstance(each.message, str) else each.message
            found += f"{each.time!r} {each.arrow} {len(data)}\n".encode() + data + b"\n"
        return bytes(found)


def _shown(frame: PlainFrame) -> str:
    fields = {name: value for name, value in frame.items() if name != "type"}
    return f"{frame['type']:6} " + " ".join(
        f"{name}={_value(value)}" for name, value in fields.items()
    )


def _value(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
