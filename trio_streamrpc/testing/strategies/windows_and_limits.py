"""Windows and limits: small ones, so that a short example gets to their edges."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from trio_streamrpc.limits import Limits, Window

__all__ = ["limits", "windows"]


def windows(*, max_items: int = 20, max_bytes: int = 400) -> SearchStrategy[Window]:
    """Windows of streams (R13), the smallest among them: one item, one byte."""
    return st.builds(
        Window,
        st.one_of(st.just(1), st.integers(1, max_items)),
        st.one_of(st.just(1), st.integers(1, max_bytes)),
    )


@st.composite
def limits(draw: DrawFn) -> Limits:
    """Limits that any two sides can talk with: few places, short values, long patience.

    With ``max_frame_bytes`` of a few bytes most values travel in parts (R21).
    """
    first = draw(windows())
    value_bytes = draw(st.sampled_from([2_000, 20_000, 1024 * 1024]))
    return Limits(
        window=first,
        max_window=Window(
            draw(st.integers(first.items, first.items * 4)),
            draw(st.integers(first.bytes, first.bytes * 4)),
        ),
        max_calls=draw(st.integers(1, 6)),
        max_object_calls=draw(st.integers(1, 4)),
        max_uploads=draw(st.integers(1, 4)),
        max_message_bytes=draw(st.sampled_from([1024, 1500, 1024 * 1024])),
        max_message_frames=draw(st.sampled_from([1, 3, 4096])),
        max_frame_bytes=draw(st.sampled_from([6, 20, 1000, 128 * 1024])),
        max_value_bytes=value_bytes,
        max_partial_bytes=draw(st.integers(1, 4)) * value_bytes,
        cancel_timeout=60.0,
    )
