"""What the other side may say, frame after frame, about an id that is in a given state.

The states and what may be received in them are those of ``protocol.states``; within them the
sequences keep to what was granted (R14 to R16) and send values in parts to their end (R21).
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from trio_streamrpc.limits import Window
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.states import STATES, TABLE
from trio_streamrpc.testing.plain_frames import PlainFrame, encode_payload
from trio_streamrpc.testing.strategies.frames import errors, payloads

__all__ = ["legal_sequences"]


@st.composite
def legal_sequences(
    draw: DrawFn,
    state: str = "IDLE",
    *,
    id: int = 1,
    encoding: Encoding = "msgpack",
    window: Window = Window(4, 1000),
    max_size: int = 8,
) -> list[PlainFrame]:
    """Frames that an endpoint has to take, in that order, on an id that is in that state.

    ``state`` is a row of the table in ``protocol.states``, as the *receiving* endpoint sees the id;
    from ``IDLE`` the first frame opens it. ``window`` is what a consuming endpoint has granted.
    They need not come to an end. Nothing is said by the endpoint in between: what it would say may
    make some of these wrong.

    Raises :exc:`ValueError` for a state that there is not.
    """
    if state not in STATES:
        raise ValueError(f"no such state: {state!r}")
    speaker = _Speaker(draw, state, id, encoding, window)
    for _ in range(draw(st.integers(1, max_size))):
        if not speaker.say():
            break
    return speaker.said


class _Speaker:
    """Says one frame after the other, and knows what it may say next."""

    def __init__(
        self, draw: DrawFn, state: str, id: int, encoding: Encoding, window: Window
    ) -> None:
        self.draw = draw
        self.state = state
        self.id = id
        self.encoding = encoding
        self.credit = [window.items, window.bytes]
        #: Parts that are still to come of a value.
        self.parts: list[Any] = []
        self.ends_with_parts = False
        self.said: list[PlainFrame] = []

    def say(self) -> bool:
        """Say one more frame; False if there is none that may follow."""
        if self.parts:
            self.add("part", data=self.parts.pop(0))
            if not self.parts and self.ends_with_parts:
                self.state = "CLOSED"
            return True
        kinds = [kind for kind in TABLE[self.state]["RECEIVED"] if self.may(kind)]
        if not kinds:
            return False
        kind = self.draw(st.sampled_from(kinds))
        after = TABLE[self.state]["RECEIVED"][kind]
        getattr(self, "say_" + kind.replace(" ", "_"))()
        if self.parts and kind == "result":
            self.ends_with_parts = True
        else:
            self.state = after
        return True

    def may(self, kind: str) -> bool:
        if kind == "part":
            return False  # they follow what announces them
        if kind == "chunk":
            return self.credit[0] > 0 and self.credit[1] > 0
        return True

    def add(self, kind: str, **fields: Any) -> None:
        self.said.append({"type": kind, "id": self.id, **fields})

    def payload(self) -> tuple[Any, bytes]:
        value = self.draw(payloads(max_leaves=3))
        return value, encode_payload(self.encoding, value)

    def cut(self, data: bytes) -> None:
        """The parts that a value travels in (R21)."""
        whole: Any = data.decode() if self.encoding == "json" else data
        size = self.draw(st.integers(1, max(len(whole), 1)))
        self.parts = [whole[at : at + size] for at in range(0, len(whole), size)]

    # --- the frames

    def say_call(self, **fields: Any) -> None:
        args = self.draw(st.lists(payloads(max_leaves=3), max_size=2))
        if self.draw(st.booleans()):
            self.add("call", method="m", args=args, **fields)
            return
        pair = encode_payload(self.encoding, [args, None])
        self.cut(pair)
        self.add("call", method="m", parts=len(pair), **fields)

    def say_call_stream(self) -> None:
        self.say_call(window={"items": self.draw(st.integers(0, 5)), "bytes": 100})

    def say_ref(self) -> None:
        """The id is an upload's: its call stands on one below it."""
        self.said.append(
            {
                "type": "call", "id": self.id - 2, "method": "m", "args": [None],
                "refs": [[0, "stream", self.id]],
            }
        )  # fmt: skip

    def say_result(self) -> None:
        value, data = self.payload()
        if self.draw(st.booleans()):
            self.add("result", value=value)
        else:
            self.cut(data)
            self.add("result", parts=len(data))

    def say_error(self) -> None:
        self.add("error", error=self.draw(errors()))

    def say_end(self) -> None:
        self.add("end")

    def say_chunk(self) -> None:
        if self.draw(st.integers(0, 3)) == 0:
            _, data = self.payload()
            self.cut(data)
            self.spend(len(data))
            self.add("chunk", items=[None], size=len(data), parts=len(data))
            return
        items, size = [], 0
        for _ in range(self.draw(st.integers(1, self.credit[0]))):
            value, data = self.payload()
            items.append(value)
            size += len(data)
            self.spend(len(data))
            if self.credit[1] <= 0:
                break
        self.add("chunk", items=items, size=size)

    def spend(self, size: int) -> None:
        self.credit[0] -= 1
        self.credit[1] -= size

    def say_cancel(self) -> None:
        fields: dict[str, Any] = {"mode": self.draw(st.sampled_from(["close", "abort"]))}
        if self.draw(st.booleans()):
            fields["error"] = self.draw(errors())
        self.add("cancel", **fields)

    def say_grant(self) -> None:
        items, size = self.draw(st.tuples(st.integers(0, 9), st.integers(0, 999)).filter(any))
        self.add("grant", items=items, bytes=size)
