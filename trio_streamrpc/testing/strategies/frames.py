"""One frame as a plain dict: valid, or valid in form and hostile in what it says."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from trio_streamrpc.errors import Code
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.testing.plain_frames import (
    FIELDS,
    PlainFrame,
    encode_message,
    encode_payload,
)

__all__ = ["encodings", "frames", "hostile_frames", "ids", "messages", "payloads"]

#: The highest integer on the wire (R5, R15).
MOST: Final = 2**53 - 1

#: What both encodings can carry: no lone surrogates.
TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def encodings() -> SearchStrategy[Encoding]:
    """``"msgpack"`` or ``"json"`` (R2)."""
    return st.sampled_from(["msgpack", "json"])


@functools.cache
def payloads(*, max_leaves: int = 8) -> SearchStrategy[Any]:
    """Values that mean the same in both encodings: what JSON has, with integers of 64 bits."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | TEXT
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
        max_leaves=max_leaves,
    )


def ids(*, parity: int | None = None) -> SearchStrategy[int]:
    """Ids (R5): mostly low ones; of the connecting side alone with ``parity`` 1, the other's 0."""
    low, high = st.integers(1, 40), st.integers(1, MOST)
    found = st.one_of(low, low, low, high)
    return found if parity is None else found.filter(lambda id: id % 2 == parity)


AMOUNTS: Final = st.one_of(st.integers(0, 100), st.integers(0, MOST))
WINDOWS: Final = st.fixed_dictionaries({"items": AMOUNTS, "bytes": AMOUNTS})
CODES: Final = st.sampled_from([each.value for each in Code])
REFS: Final = st.lists(
    st.tuples(st.integers(0, 5) | TEXT, st.sampled_from(["stream", "object"]), ids()).map(list),
    max_size=3,
)


@functools.cache
def errors(depth: int = 1) -> SearchStrategy[dict[str, Any]]:
    """What an ``error`` says (R22)."""
    optional: dict[str, SearchStrategy[Any]] = {
        "name": TEXT,
        "message": TEXT,
        "data": payloads(max_leaves=3),
        "traceback": TEXT,
    }
    if depth:
        optional["causes"] = st.lists(errors(depth - 1), max_size=2)
    return st.fixed_dictionaries({"code": CODES}, optional=optional)


#: For each kind of frame the fields that it always has, and those that it may have.
SHAPES: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "hello": (
        {"version": st.just(1)},
        {
            "limits": st.fixed_dictionaries(
                {}, optional={"window": WINDOWS, "max_calls": st.integers(1, MOST)}
            ),
            "features": st.lists(TEXT, max_size=3),
            "metadata": st.dictionaries(TEXT, payloads(max_leaves=2), max_size=3),
            "session": TEXT,
        },
    ),
    "call": (
        {"id": ids(), "method": TEXT, "args": st.lists(payloads(), max_size=3)},
        {
            "target": ids(),
            "kwargs": st.dictionaries(TEXT, payloads(), max_size=3),
            "refs": REFS,
            "window": WINDOWS,
            "timeout": st.floats(0, 1e6),
            "metadata": st.dictionaries(TEXT, payloads(max_leaves=2), max_size=3),
            "priority": st.integers(-128, 127),
        },
    ),
    "result": ({"id": ids()}, {"value": payloads()}),
    "error": (
        {"id": ids(), "error": errors()},
        {"cleanup": st.booleans(), "same": st.booleans(), "retry": st.booleans()},
    ),
    "chunk": ({"id": ids(), "items": st.lists(payloads(), max_size=4), "size": AMOUNTS}, {}),
    "end": ({"id": ids()}, {}),
    "cancel": (
        {"id": ids(), "mode": st.sampled_from(["close", "abort"])},
        {"error": errors()},
    ),
    "grant": ({"id": ids(), "items": AMOUNTS, "bytes": AMOUNTS}, {}),
    "part": ({"id": ids(), "data": TEXT}, {}),
    "ping": ({}, {"token": payloads(max_leaves=2)}),
    "pong": ({}, {"token": payloads(max_leaves=2)}),
    "goaway": ({}, {"last_id": AMOUNTS, "code": CODES, "message": TEXT}),
}


def frames(*kinds: str, encoding: Encoding = "json") -> SearchStrategy[PlainFrame]:
    """Frames of these kinds, or of any: each field is one that the protocol has.

    Whether such a frame may stand where it comes is another question: see
    :func:`.legal_sequences`. A chunk says its true size; ``encoding`` is what that is counted in.
    Raises :exc:`ValueError` for a kind that there is not.
    """
    for kind in kinds:
        if kind not in FIELDS:
            raise ValueError(f"no such kind of frame: {kind!r}")
    return st.one_of([_frames(kind, encoding) for kind in kinds or FIELDS])


@functools.cache
def _frames(kind: str, encoding: Encoding) -> SearchStrategy[PlainFrame]:
    required, optional = SHAPES[kind]
    found = st.fixed_dictionaries({"type": st.just(kind), **required}, optional=optional)
    return found.map(_finishes(kind, encoding))


def _finishes(kind: str, encoding: Encoding) -> Callable[[PlainFrame], PlainFrame]:
    def finish(frame: PlainFrame) -> PlainFrame:
        if kind == "chunk":
            frame["size"] = sum(len(encode_payload(encoding, each)) for each in frame["items"])
        if kind == "part" and encoding == "msgpack":
            frame["data"] = frame["data"].encode()
        return frame

    return finish


@st.composite
def hostile_frames(draw: DrawFn, encoding: Encoding = "json") -> PlainFrame:
    """Frames of the right form that no honest side says, or none says here.

    Amounts that are nothing, or overflow in sum; values announced that are too long; false sizes;
    more references than anybody takes; ids on the edges; things said twice, and out of turn.
    """
    frame = draw(frames(encoding=encoding))
    kind = draw(st.sampled_from(sorted(HOSTILE)))
    if draw(st.booleans()):
        frame = draw(frames(kind, encoding=encoding))
    if frame["type"] in HOSTILE:
        frame |= draw(st.one_of(HOSTILE[frame["type"]]))
    if "id" in frame:
        frame["id"] = draw(st.one_of(ids(), st.sampled_from([1, 2, 3, MOST - 1, MOST])))
    return frame


#: What is put into a frame of that kind, over what was there.
HOSTILE: Final[dict[str, list[SearchStrategy[dict[str, Any]]]]] = {
    "hello": [
        st.just({"version": 1, "limits": {"max_calls": 1, "max_message_bytes": 1024}}),
        st.builds(dict, version=st.integers(2, MOST)),
        st.just({"limits": {"window": {"items": 0, "bytes": 0}}}),
        st.just({"limits": {"max_message_frames": 1, "max_frame_bytes": 1}}),
    ],
    "call": [
        st.builds(dict, parts=st.sampled_from([1, 2**31, MOST]), args=st.none()),
        st.builds(dict, window=st.just({"items": MOST, "bytes": MOST})),
        st.just({"window": {"items": 0, "bytes": 0}}),
        st.builds(dict, method=st.sampled_from(["", "__class__", "_x", "a." * 200, "x" * 10_000])),
        st.builds(dict, timeout=st.sampled_from([0.0, -1.0, 1e300])),
        st.builds(
            dict,
            refs=st.integers(1, 300).map(lambda n: [[i, "stream", 3 + 2 * i] for i in range(n)]),
        ),
        st.builds(dict, refs=st.just([[0, "stream", 5], [0, "stream", 5]])),
        st.builds(dict, metadata=st.just({"k": "x" * 20_000})),
        st.builds(dict, target=st.integers(0, MOST)),
    ],
    "result": [st.builds(dict, parts=st.sampled_from([1, 2**40, MOST]), value=st.none())],
    "chunk": [
        st.builds(dict, size=st.integers(0, MOST)),
        st.just({"items": [], "size": 0}),
        st.builds(dict, items=st.integers(1, 300).map(lambda n: [0] * n), size=st.integers(0, 300)),
        st.builds(
            dict, items=st.just([None]), parts=st.integers(1, MOST), size=st.integers(0, MOST)
        ),
        st.builds(dict, refs=REFS),
    ],
    "cancel": [st.just({"mode": "abort", "error": {"code": "x" * 1000}})],
    "grant": [
        st.just({"items": 0, "bytes": 0}),
        st.just({"items": MOST, "bytes": MOST}),
        st.builds(dict, items=st.just(0), bytes=st.integers(0, 1)),
    ],
    "ping": [st.builds(dict, token=st.integers(0, 5000).map(lambda n: "x" * n))],
    "goaway": [st.just({"code": None}), st.just({"code": "no such code", "message": "é" * 1000})],
}


@st.composite
def messages(
    draw: DrawFn,
    encoding: Encoding = "msgpack",
    frames: SearchStrategy[PlainFrame] | None = None,
    *,
    max_size: int = 6,
) -> bytes | str:
    """Messages of some frames: those given, or any that are valid (R1)."""
    of = _frames_of(encoding) if frames is None else frames
    return encode_message(encoding, *draw(st.lists(of, min_size=1, max_size=max_size)))


def _frames_of(encoding: Encoding) -> SearchStrategy[PlainFrame]:
    # ``frames`` is a parameter where it is called.
    return frames(encoding=encoding)
