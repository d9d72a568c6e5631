"""The life of an id: one table, (state, SENT | RECEIVED, frame) → state.

Each side runs the same machine over the frames that it sends and receives, and need not ask which
role it plays: the state says it. An id begins IDLE, is opened by a ``call`` (or, for an upload, by
a reference in one), and is CLOSED by the one final frame of the side that produces for it (R6)::

      the caller of a unary call              its callee
      AWAITING ──cancel──► ABANDONED          ANSWERING ──cancel──► STOPPING
          └─────result, error─────┴► CLOSED ◄────────result, error────┘

      the consumer of a stream                its producer
      CONSUMING ──cancel──► LEAVING           PRODUCING ──cancel──► FINISHING
          └──────end, error──────┴► CLOSED ◄───────end, error─────────┘

A ``cancel`` asks; only the final frame ends (R7). From the moment that a side has sent ``cancel``
until the final frame arrives, what the other side sent before it knew is allowed and dropped (R9).
A second ``cancel`` may follow the first: a caller that was leaving in peace was cancelled.

Three kinds of crossing are left on a CLOSED id (R9): ``cancel`` and ``grant`` for one whose final
frame is on its way, and a ``part`` of a call that was answered before it had arrived whole. An id
that is not known and not above the highest seen is CLOSED: there are no tombstones (R5).

A ``result`` whose value travels in parts closes its id with the last of them; until then the id is
what it was (R6, R21). Which parts may come is not for this table to say: :mod:`.assembly` knows
what is unfinished.

A pair that is not listed is an error: of the other side if RECEIVED, of this side if SENT.
"""

from __future__ import annotations

from typing import Final, Literal

from trio_streamrpc.protocol.frames import KINDS

__all__ = ["RECEIVED", "SENT", "STATES", "TABLE", "State"]

Direction = Literal["SENT", "RECEIVED"]
SENT: Final = "SENT"
RECEIVED: Final = "RECEIVED"

TABLE: dict[str, dict[Direction, dict[str, str]]] = {
    # "call" opens a unary call, "call stream" one with a window, "ref" an upload (R5, R18, R19).
    "IDLE": {
        SENT: {"call": "AWAITING", "call stream": "CONSUMING", "ref": "PRODUCING"},
        RECEIVED: {"call": "ANSWERING", "call stream": "PRODUCING", "ref": "CONSUMING"},
    },
    "AWAITING": {
        SENT: {"cancel": "ABANDONED", "part": "AWAITING"},
        RECEIVED: {"result": "CLOSED", "error": "CLOSED", "part": "AWAITING"},
    },
    "ABANDONED": {
        SENT: {"cancel": "ABANDONED"},
        RECEIVED: {"result": "CLOSED", "error": "CLOSED", "part": "ABANDONED"},
    },
    "ANSWERING": {
        SENT: {"result": "CLOSED", "error": "CLOSED", "part": "ANSWERING"},
        RECEIVED: {"cancel": "STOPPING", "part": "ANSWERING"},
    },
    "STOPPING": {
        SENT: {"result": "CLOSED", "error": "CLOSED"},
        RECEIVED: {"cancel": "STOPPING", "part": "STOPPING"},
    },
    "CONSUMING": {
        SENT: {"grant": "CONSUMING", "cancel": "LEAVING", "part": "CONSUMING"},
        RECEIVED: {
            "chunk": "CONSUMING",
            "part": "CONSUMING",
            "end": "CLOSED",
            "error": "CLOSED",
        },
    },
    "LEAVING": {
        SENT: {"cancel": "LEAVING"},
        RECEIVED: {"chunk": "LEAVING", "part": "LEAVING", "end": "CLOSED", "error": "CLOSED"},
    },
    "PRODUCING": {
        SENT: {
            "chunk": "PRODUCING",
            "part": "PRODUCING",
            "end": "CLOSED",
            "error": "CLOSED",
        },
        RECEIVED: {"grant": "PRODUCING", "cancel": "FINISHING", "part": "PRODUCING"},
    },
    "FINISHING": {
        SENT: {"end": "CLOSED", "error": "CLOSED"},
        RECEIVED: {"grant": "FINISHING", "cancel": "FINISHING", "part": "FINISHING"},
    },
    "CLOSED": {
        SENT: {},
        RECEIVED: {"cancel": "CLOSED", "grant": "CLOSED", "part": "CLOSED"},
    },
}


class State:
    """A row of the table, compiled: what may be sent and received, by the frame's number."""

    __slots__ = ("name", "received", "sent")

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent: list[State | None] = [None] * len(KINDS)
        self.received: list[State | None] = [None] * len(KINDS)

    def __repr__(self) -> str:
        return self.name


def _compile() -> dict[str, State]:
    states = {name: State(name) for name in TABLE}
    for name, row in TABLE.items():
        for number, kind in enumerate(KINDS):
            if kind in row[SENT]:
                states[name].sent[number] = states[row[SENT][kind]]
            if kind in row[RECEIVED]:
                states[name].received[number] = states[row[RECEIVED][kind]]
    return states


#: The rows, compiled. How an id leaves IDLE depends on more than the kind of the frame, and is
#: decided where ids are opened.
STATES = _compile()
