"""Messages that were broken on the way, or by somebody who wants to see what happens."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["damaged"]

#: Bytes with a meaning: msgpack's long lengths and its unused one, what JSON is made of.
TELLING: Final = [
    b"\xc1", b"\xc6\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + bytes(7), b"\xcb\x7f\xf8" + bytes(6), b"\x90", b"\x91" * 50, b"\x81" * 50,
    b"\xff", b"\xed\xa0\x80", b"\x00", b"[", b"]", b"{", b"}", b",", b'"', b"\\u0000", b"\\ud800",
    b"1e999", b"-", b"9" * 400, b"[" * 50, b"null", b"NaN", b"\xef\xbb\xbf",
]  # fmt: skip


@st.composite
def damaged(
    draw: DrawFn, messages: SearchStrategy[bytes | str], *, max_damages: int = 4
) -> bytes | str:
    """One of these messages with some damage: bytes changed, lost, repeated, moved or put in.

    A text may come out as one that no encoding has: with lone surrogates in it.
    """
    message = draw(messages)
    is_text = isinstance(message, str)
    data = bytearray(message.encode() if isinstance(message, str) else message)
    for _ in range(draw(st.integers(1, max_damages))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 8))
        how = draw(
            st.sampled_from(["change", "flip", "lose", "repeat", "put in", "cut", "say", "move"])
        )
        if how == "change" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif how == "flip" and at < len(data):
            data[at] ^= 1 << length % 8
        elif how == "lose":
            del data[at : at + length]
        elif how == "repeat":
            data[at:at] = data[at : at + length] * draw(st.integers(1, 20))
        elif how == "put in":
            data[at:at] = draw(st.binary(max_size=8))
        elif how == "cut":
            del data[at:]
        elif how == "say":
            data[at:at] = draw(st.sampled_from(TELLING))
        elif how == "move":
            piece = data[at : at + length]
            del data[at : at + length]
            there = draw(st.integers(0, len(data)))
            data[there:there] = piece
    return bytes(data).decode("utf-8", "surrogateescape") if is_text else bytes(data)
