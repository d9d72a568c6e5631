"""states.py: every state, every frame, SENT or RECEIVED, the expectations listed by hand.

What is received is driven through :meth:`Endpoint.receive` with messages, what is sent through the
verbs. R5, R6, R7 and R9 are this table in prose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.protocol.wire import BOTH, FIELDS, STREAM, WINDOW, Talk
from trio_streamrpc.errors import LocalProtocolError, RemoteProtocolError
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.frames import KINDS, ErrorInfo
from trio_streamrpc.protocol.states import RECEIVED, SENT, STATES, TABLE

#: The kinds that stand on an id.
KINDS_WITH_ID = [kind for kind, fields in FIELDS.items() if "id" in fields]

MAY_RECEIVE: dict[str, dict[str, str]] = {
    "IDLE": {"call": "ANSWERING", "call stream": "PRODUCING", "ref": "CONSUMING"},
    "AWAITING": {"result": "CLOSED", "error": "CLOSED", "part": "AWAITING"},
    "ABANDONED": {"result": "CLOSED", "error": "CLOSED", "part": "ABANDONED"},
    "ANSWERING": {"cancel": "STOPPING", "part": "ANSWERING"},
    "STOPPING": {"cancel": "STOPPING", "part": "STOPPING"},
    "CONSUMING": {"chunk": "CONSUMING", "part": "CONSUMING", "end": "CLOSED", "error": "CLOSED"},
    "LEAVING": {"chunk": "LEAVING", "part": "LEAVING", "end": "CLOSED", "error": "CLOSED"},
    "PRODUCING": {"grant": "PRODUCING", "cancel": "FINISHING", "part": "PRODUCING"},
    "FINISHING": {"grant": "FINISHING", "cancel": "FINISHING", "part": "FINISHING"},
    "CLOSED": {"cancel": "CLOSED", "grant": "CLOSED", "part": "CLOSED"},
}
MAY_SEND: dict[str, dict[str, str]] = {
    "IDLE": {"call": "AWAITING", "call stream": "CONSUMING", "ref": "PRODUCING"},
    "AWAITING": {"cancel": "ABANDONED", "part": "AWAITING"},
    "ABANDONED": {"cancel": "ABANDONED"},
    "ANSWERING": {"result": "CLOSED", "error": "CLOSED", "part": "ANSWERING"},
    "STOPPING": {"result": "CLOSED", "error": "CLOSED"},
    "CONSUMING": {"grant": "CONSUMING", "cancel": "LEAVING", "part": "CONSUMING"},
    "LEAVING": {"cancel": "LEAVING"},
    "PRODUCING": {"chunk": "PRODUCING", "part": "PRODUCING", "end": "CLOSED", "error": "CLOSED"},
    "FINISHING": {"end": "CLOSED", "error": "CLOSED"},
    "CLOSED": {},
}


# --- an endpoint with an id in a given state


def idle(encoding: Encoding) -> tuple[Talk, int]:
    """An id of the other side that it may use next."""
    return Talk("accepting", encoding), 1


def idle_of_ours(encoding: Encoding) -> tuple[Talk, int]:
    return Talk("connecting", encoding), 1


def awaiting(encoding: Encoding) -> tuple[Talk, int]:
    talk = Talk("connecting", encoding)
    return talk, talk.calls().id


def abandoned(encoding: Encoding) -> tuple[Talk, int]:
    talk, id = awaiting(encoding)
    assert talk.endpoint.cancel(id, "close")
    talk.says()
    return talk, id


def answering(encoding: Encoding) -> tuple[Talk, int]:
    talk = Talk("accepting", encoding)
    talk.called(1)
    return talk, 1


def stopping(encoding: Encoding) -> tuple[Talk, int]:
    talk, id = answering(encoding)
    talk.hears({"type": "cancel", "id": id})
    return talk, id


def consuming(encoding: Encoding) -> tuple[Talk, int]:
    talk = Talk("connecting", encoding)
    return talk, talk.calls(window=WINDOW).id


def consuming_an_upload(encoding: Encoding) -> tuple[Talk, int]:
    talk = Talk("accepting", encoding)
    talk.called(1, args=[None], refs=[[0, "stream", 3]])
    return talk, 3


def leaving(encoding: Encoding) -> tuple[Talk, int]:
    talk, id = consuming(encoding)
    talk.endpoint.cancel(id, "abort")
    talk.says()
    return talk, id


def leaving_an_upload(encoding: Encoding) -> tuple[Talk, int]:
    talk, id = consuming_an_upload(encoding)
    talk.endpoint.cancel(id, "close")
    talk.says()
    return talk, id


def producing(encoding: Encoding) -> tuple[Talk, int]:
    talk = Talk("accepting", encoding)
    talk.called(1, window=STREAM)
    return talk, 1


def finishing(encoding: Encoding) -> tuple[Talk, int]:
    talk, id = producing(encoding)
    talk.hears({"type": "cancel", "id": id, "mode": "close"})
    return talk, id


def answered(encoding: Encoding) -> tuple[Talk, int]:
    """CLOSED for this side, whose final frame waits to be written."""
    talk, id = answering(encoding)
    talk.endpoint.answer(id, talk.payload(None))
    return talk, id


def ended(encoding: Encoding) -> tuple[Talk, int]:
    """CLOSED for both sides: the final frame is gone, and the record with it."""
    talk, id = producing(encoding)
    talk.endpoint.end(id)
    talk.says()
    return talk, id


def got_result(encoding: Encoding) -> tuple[Talk, int]:
    talk, id = awaiting(encoding)
    talk.hears({"type": "result", "id": id})
    return talk, id


def got_end(encoding: Encoding) -> tuple[Talk, int]:
    talk, id = leaving(encoding)
    talk.hears({"type": "end", "id": id})
    return talk, id


def never_used(encoding: Encoding) -> tuple[Talk, int]:
    """CLOSED by a higher one: there are no tombstones (R5)."""
    talk = Talk("accepting", encoding)
    talk.called(5)
    return talk, 3


WAYS: list[tuple[str, Callable[[Encoding], tuple[Talk, int]]]] = [
    ("IDLE", idle),
    ("AWAITING", awaiting),
    ("ABANDONED", abandoned),
    ("ANSWERING", answering),
    ("STOPPING", stopping),
    ("CONSUMING", consuming),
    ("CONSUMING", consuming_an_upload),
    ("LEAVING", leaving),
    ("LEAVING", leaving_an_upload),
    ("PRODUCING", producing),
    ("FINISHING", finishing),
    ("CLOSED", answered),
    ("CLOSED", ended),
    ("CLOSED", got_result),
    ("CLOSED", got_end),
    ("CLOSED", never_used),
]
IN_EVERY_STATE = pytest.mark.parametrize(
    ("state", "reach"), WAYS, ids=[f"{state}-{reach.__name__}" for state, reach in WAYS]
)


def frame(encoding: Encoding, kind: str, id: int) -> dict[str, Any]:
    """A frame that is right in itself."""
    needed: dict[str, dict[str, Any]] = {
        "chunk": {"items": [5], "size": 1},
        "error": {"error": {"code": "ABORTED"}},
        "grant": {"items": 1, "bytes": 1},
        "part": {"data": "a" if encoding == "json" else b"a"},
    }
    return {"type": kind, "id": id, **needed.get(kind, {})}


# --- the table


def test_the_table_is_what_is_listed_here() -> None:
    listed = {
        state: {"SENT": MAY_SEND[state], "RECEIVED": MAY_RECEIVE[state]} for state in MAY_SEND
    }
    assert listed == TABLE


def test_every_state_and_direction_is_there() -> None:
    assert {state for state, _ in WAYS} == TABLE.keys() == MAY_SEND.keys() == MAY_RECEIVE.keys()
    for row in TABLE.values():
        assert list(row) == [SENT, RECEIVED]
        assert {each for side in row.values() for each in side.values()} <= TABLE.keys()


def test_every_kind_with_an_id_has_its_place() -> None:
    listed = {kind for row in TABLE.values() for side in row.values() for kind in side}
    assert listed == {*KINDS_WITH_ID, "call stream", "ref"}


def test_one_final_frame() -> None:
    """R6, R7: a final frame closes, nothing else does, and only the producing side sends one."""
    finals = {"result", "error", "end"}
    for state, row in TABLE.items():
        for side in row.values():
            for kind, after in side.items():
                assert (after == "CLOSED") == (kind in finals or state == "CLOSED"), (state, kind)


def test_the_two_sides_mirror_each_other() -> None:
    """Where the sender moves, the receiver can follow."""
    mirror = {
        "IDLE": "IDLE", "AWAITING": "ANSWERING", "ABANDONED": "STOPPING",
        "CONSUMING": "PRODUCING", "LEAVING": "FINISHING", "CLOSED": "CLOSED",
    }  # fmt: skip
    mirror |= {theirs: ours for ours, theirs in mirror.items()}
    for state, row in TABLE.items():
        for kind, after in row[SENT].items():
            assert TABLE[mirror[state]][RECEIVED].get(kind) == mirror[after], (state, kind)


def test_rows_are_compiled() -> None:
    assert STATES.keys() == TABLE.keys()
    for name, state in STATES.items():
        assert repr(state) == name
        for number, kind in enumerate(KINDS):
            for compiled, listed in (
                (state.sent[number], MAY_SEND[name].get(kind)),
                (state.received[number], MAY_RECEIVE[name].get(kind)),
            ):
                assert compiled is (None if listed is None else STATES[listed])


# --- received


@BOTH
@IN_EVERY_STATE
@pytest.mark.parametrize("kind", [*KINDS_WITH_ID, "call stream"])
def test_received(encoding: Encoding, state: str, reach: Any, kind: str) -> None:
    talk, id = reach(encoding)
    sent = frame(encoding, kind.partition(" ")[0], id)
    if kind == "call stream":
        sent["window"] = STREAM
    after = MAY_RECEIVE[state].get(kind)
    if kind == "part" and (state != "CLOSED" or reach in (got_result, got_end)):
        # R9, R21: a part of no value; and nothing comes after the other side's own final frame.
        after = None
    if after is None:
        with pytest.raises(RemoteProtocolError, match=str(id)):
            talk.hears(sent)
        [goaway] = talk.says()
        assert (goaway["type"], goaway["code"]) == ("goaway", "PROTOCOL_ERROR")
        assert talk.hears(frame(encoding, "end", id)) == []
    else:
        talk.hears(sent)
        assert talk.state(id) == after
        assert not talk.endpoint.failed


@BOTH
@pytest.mark.parametrize("kind", KINDS_WITH_ID)
def test_received_on_an_id_of_ours_that_was_never_used(encoding: Encoding, kind: str) -> None:
    """R5, R9: nothing may come on it, and only we may open it."""
    for reach in (idle_of_ours, awaiting):
        talk, id = reach(encoding)
        with pytest.raises(RemoteProtocolError):
            talk.hears(frame(encoding, kind, id + 2))


@BOTH
@pytest.mark.parametrize("kind", [kind for kind in KINDS_WITH_ID if kind != "call"])
def test_received_above_the_highest_seen(encoding: Encoding, kind: str) -> None:
    """R5, R9: an id of theirs that was never opened."""
    talk, id = answering(encoding)
    with pytest.raises(RemoteProtocolError, match=r"which is IDLE|part"):
        talk.hears(frame(encoding, kind, id + 2))


# --- sent


VERBS: dict[str, Callable[[Talk, int], object]] = {
    "result": lambda talk, id: talk.endpoint.answer(id, talk.payload(5)),
    "error": lambda talk, id: talk.endpoint.answer_error(id, ErrorInfo("ABORTED")),
    "chunk": lambda talk, id: talk.endpoint.send(id, talk.payload(5)),
    "end": lambda talk, id: talk.endpoint.end(id),
    "cancel": lambda talk, id: talk.endpoint.cancel(id, "abort"),
    "grant": lambda talk, id: talk.endpoint.grant(id, 1, 1),
}
#: What comes too late through nobody's fault is left alone: the application cannot know what has
#: arrived meanwhile, and R9 is about just these.
TOO_LATE = {
    ("cancel", "CLOSED"),
    ("grant", "CLOSED"),
    ("grant", "LEAVING"),
}


def test_every_verb_is_tried() -> None:
    """``call`` opens, and has tests of its own; ``part`` is sent by no verb."""
    assert {*VERBS, "call", "part"} == set(KINDS_WITH_ID)


@BOTH
@IN_EVERY_STATE
@pytest.mark.parametrize("kind", VERBS)
def test_sent(encoding: Encoding, state: str, reach: Any, kind: str) -> None:
    talk, id = reach(encoding)
    if state != "CLOSED":
        talk.says()
    before = talk.state(id)
    after = MAY_SEND[state].get(kind)
    if after is not None:
        VERBS[kind](talk, id)
        assert talk.state(id) == after
        assert [each["type"] for each in talk.says() if each["id"] == id] == [kind]
    elif (kind, state) in TOO_LATE or (kind in {"cancel", "grant"} and before == "CLOSED"):
        VERBS[kind](talk, id)
        assert talk.state(id) == before
        assert kind not in {each["type"] for each in talk.says()}
    else:
        with pytest.raises(LocalProtocolError, match=str(id)):
            VERBS[kind](talk, id)
        assert talk.state(id) == before
        assert kind not in {each["type"] for each in talk.says()} - {"result"}
    assert not talk.endpoint.failed


@BOTH
def test_opening(encoding: Encoding) -> None:
    """R18: a call with a window is a stream, one without is unary."""
    talk = Talk("connecting", encoding)
    assert repr(talk.endpoint.call("m", talk.payload([])).state) == "AWAITING"
    assert repr(talk.endpoint.call("m", talk.payload([]), window=WINDOW).state) == "CONSUMING"
