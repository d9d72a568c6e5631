"""wires.py: two endpoints and the wire between them."""

from __future__ import annotations

import pytest

from tests.protocol.wire import BOTH, payload
from trio_streamrpc.errors import RemoteProtocolError
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.frames import Call, Chunk, End, Result
from trio_streamrpc.testing import EndpointPair
from trio_streamrpc.testing.wires import ACCEPTING, CONNECTING


@BOTH
def test_a_call_and_its_answer(encoding: Encoding) -> None:
    pair = EndpointPair(encoding=encoding)
    call = pair.connecting.call("m", payload(encoding, [1]))
    [event] = pair.flush(CONNECTING)
    assert isinstance(event, Call)
    assert event.id == call.id
    pair.accepting.answer(call.id, payload(encoding, 2))
    [answer] = pair.flush(ACCEPTING)
    assert isinstance(answer, Result)
    assert [frame["type"] for frame in pair.frames(CONNECTING)] == ["hello", "call"]
    assert pair.frames(ACCEPTING)[1:] == [{"type": "result", "id": 1, "value": 2}]
    pair.assert_empty()


@BOTH
def test_what_is_on_its_way_may_be_changed(encoding: Encoding) -> None:
    pair = EndpointPair(encoding=encoding)
    pair.connecting.call("m", payload(encoding, []))
    assert pair.write(CONNECTING) is not None
    assert pair.write(CONNECTING) is None
    message = pair.wires[CONNECTING].pop()
    pair.wires[CONNECTING].extend([message, message])
    assert len(pair.deliver(CONNECTING)) == 1
    with pytest.raises(RemoteProtocolError, match="does not go up"):
        pair.deliver(CONNECTING)
    with pytest.raises(IndexError):
        pair.deliver(CONNECTING)


def test_settling_takes_as_long_as_somebody_has_something_to_say() -> None:
    pair = EndpointPair(limits=Limits(window=Window(2, 1000), max_window=Window(2, 1000)))
    call = pair.connecting.call("m", b"\x90", window=Window(2, 1000))
    here, there = pair.settle()
    assert (len(here), len(there)) == (0, 1)
    pair.accepting.send(call.id, b"\x01")
    pair.accepting.end(call.id)
    here, there = pair.settle()
    assert [type(each) for each in here] == [Chunk, End]
    assert there == []
    assert pair.settle() == ([], [])
    pair.assert_empty()


def test_what_is_left_is_told() -> None:
    pair = EndpointPair()
    pair.connecting.call("m", b"\x90")
    with pytest.raises(AssertionError, match="ids are open"):
        pair.assert_empty()


def test_two_that_have_not_greeted() -> None:
    pair = EndpointPair(accepting_limits=Limits(max_calls=3), greeted=False)
    assert not pair.connecting.ready
    pair.greet()
    assert pair.connecting.ready
    assert pair.accepting.ready
    assert pair.connecting.peer.max_calls == 3
