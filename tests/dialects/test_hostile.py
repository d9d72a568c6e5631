"""What a hostile peer says on another system's wire: one error or none, and nothing is kept."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.dialects.recorded import Recorded, conversation, names
from tests.service import Service
from trio_streamrpc import (
    ConnectionLost,
    Limits,
    RemoteProtocolError,
    RpcError,
    Unimplemented,
    Window,
    open_connection,
)
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.dialects import Dialect, kkrpc, kkrpc_classic, signal
from trio_streamrpc.dialects.foreign import ForeignEndpoint
from trio_streamrpc.protocol.endpoint import Side
from trio_streamrpc.protocol.frames import Call
from trio_streamrpc.testing import open_pair
from trio_streamrpc.transports.memory import open_memory_transports

DIALECTS: dict[str, Dialect] = {each.name: each for each in (kkrpc, kkrpc_classic, signal)}
each_dialect = pytest.mark.parametrize("name", DIALECTS)
TABLE = MethodTable.of(Recorded())
#: A first message: by that a client is known to speak the dialect.
OF_NO_CONSEQUENCE = {
    "kkrpc": '{"t":"cbr","ids":[]}',
    "kkrpc_classic": '{"id":"","type":"stream-cancel"}',
    "signal": '{"type":"StreamEnd","streamId":"0"}',
}


def endpoint(name: str, side: Side = "accepting", **limits: Any) -> ForeignEndpoint:
    dialect = DIALECTS[name]
    made = dialect.speak(side, limits=dialect.limits(Limits(**limits)), table=TABLE)
    made.begin()
    if side == "accepting":
        made.accept()
        assert made.receive(OF_NO_CONSEQUENCE[name]) == []
    return made


NONSENSE = [
    "",
    "x",
    "null",
    "[]",
    "{}",
    "5",
    '"t"',
    '{"t":5}',
    '{"t":"later"}',
    '{"t":"q"}',
    '{"t":"q","id":5}',
    '{"t":"q","id":"' + "x" * 129 + '","op":"call","p":["add"]}',
    '{"t":"q","id":"1","op":"call","p":5}',
    '{"t":"q","id":"1","op":"call","p":["add"],"a":[{"__kkrpc_next_arg__":"object"}]}',
    '{"t":"q","id":"1","op":"call","p":["add"],"a":[{"__kkrpc_next_arg__":"callback"}]}',
    '{"t":"q","id":"1","op":"call","p":["sum"],"a":[{"__kkrpc_next_stream__":"async-iterable"}]}',
    '{"t":"r","id":"nothing"}',
    '{"t":"r","id":"a-99"}',
    '{"t":"cb","id":"a-2"}',
    '{"t":"cb","id":"a-99999999999999999999"}',
    '{"t":"sq","sid":"a-5","op":"pull","n":1}',
    '{"t":"sq","sid":"a-5","op":"pull","n":0}',
    '{"t":"sq","sid":"a-5","op":"pull","n":-1}',
    '{"t":"sq","sid":"a-5","op":"pull","n":1e999}',
    '{"t":"sq","sid":"a-5","op":"return"}',
    '{"t":"sq","sid":"a-5","op":"later"}',
    '{"t":"sr","sid":"x","v":1}',
    "\ud800",
    "[" * 100_000,
    '{"t":"q","id":"1","v":' + "[" * 100_000,
    '{"id":"1","type":"later"}',
    '{"id":"1","type":"stream-chunk"}',
    '{"id":"","type":"request"}',
    '{"id":"1","type":"stream-cancel"}',
    '{"id":"1","type":"callback","method":"a-2"}',
    '{"id":"1","type":"request","method":"add","args":5,"callbackIds":["x"]}',
    '{"json":5}',
    '{"json":{"id":"1","type":"later"},"meta":{"values":{"id":["bigint"]}}}',
    '{"json":',
    '{"category":"later","requestId":1}',
    '{"category":"request","requestId":"1"}',
    '{"category":"request","requestId":1.5}',
    '{"category":"request","requestId":1}',
    '{"category":"request","requestId":1,"data":{"method":5}}',
    '{"category":"response","requestId":1}',
    '{"category":"response","requestId":99}',
    '{"category":"response","requestId":-1}',
    '{"type":"StreamData"}',
    '{"type":"StreamData","streamId":[]}',
    '{"type":"StreamData","streamId":"' + "x" * 129 + '"}',
    '{"type":"StreamLater","streamId":"x"}',
    b"\x00\xff",
    b"",
]


@each_dialect
@pytest.mark.parametrize("side", ["accepting", "connecting"])
@pytest.mark.parametrize("message", NONSENSE, ids=lambda each: repr(each)[:40])
def test_nonsense_is_ignored(name: str, side: Side, message: str | bytes) -> None:
    """None of these is a call of this wire, and none ends the connection."""
    talk = endpoint(name, side)
    before = talk.budget.left
    assert [each for each in talk.receive(message) if each.kind == 1] == []
    assert not talk.failed
    assert before - talk.budget.left in {0, 1}
    assert talk.receive(message) == []


@each_dialect
def test_malformed_messages_cost(name: str) -> None:
    """They are ignored one by one, but not for ever."""
    talk = endpoint(name, violation_budget=5)
    for _ in range(5):
        assert talk.receive("{}") == []
    with pytest.raises(RemoteProtocolError) as caught:
        talk.receive("{}")
    assert caught.value.close_code == 1008
    assert talk.next_message() is None


def test_nothing_is_kept_of_a_request_that_is_none() -> None:
    talk = endpoint("kkrpc")
    stream = '{"__kkrpc_next_stream__":"async-iterable","id":"s"}'
    callback = '{"__kkrpc_next_arg__":"callback","id":"c"}'
    wrong = '{"__kkrpc_next_arg__":"later"}'
    start = '{"t":"q","id":"1","op":"call","p":["sum"],"a":['
    assert talk.receive(f"{start}{stream},{callback},{wrong}]}}") == []
    assert talk.requests.callbacks == {}
    [call] = talk.receive(f"{start}{stream}]}}")
    assert isinstance(call, Call)
    assert [ref.type for ref in call.refs or ()] == ["stream"]


@each_dialect
def test_a_message_that_is_too_long(name: str) -> None:
    talk = endpoint(name, max_message_bytes=1024)
    with pytest.raises(RemoteProtocolError) as caught:
        talk.receive(" " * 1025)
    assert caught.value.close_code == 1009
    assert talk.receive("{}") == []


def recorded() -> list[str]:
    texts = []
    for system in ("kkrpc-2.1", "kkrpc-0.7-json", "kkrpc-0.7-superjson"):
        for each in names(system):
            texts += [message["text"] for message in conversation(system, each)["messages"][:12]]
    return texts


RECORDED = recorded()
SIGNAL = [
    '{"category":"request","requestId":1,"data":{"method":"countdown","args":[3]}}',
    '{"category":"request","requestId":2,"data":{"type":"add","a":1,"b":2}}',
    '{"category":"response","requestId":1,"responseId":1,"data":{"streamId":5}}',
    '{"type":"StreamData","streamId":5,"payload":1}',
    '{"type":"StreamEnd","streamId":5}',
    '{"type":"StreamError","streamId":5,"error":"x"}',
]

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("a-2")
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "sid", "t", "v", "e", "a", "type", "__stream", "args"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@st.composite
def mangled(draw: st.DrawFn) -> str:
    """A recorded message in which something is another, or missing; or cut short."""
    text = draw(st.sampled_from([*RECORDED, *SIGNAL]))
    how = draw(st.integers(0, 3))
    if how == 0:
        return text
    if how == 1:
        return text[: draw(st.integers(0, len(text)))]
    record = json.loads(text)
    place = record["json"] if how == 3 and "json" in record else record
    key = draw(st.sampled_from(sorted(place)))
    if draw(st.booleans()):
        del place[key]
    else:
        place[key] = draw(values)
    return json.dumps(record)


@each_dialect
@pytest.mark.parametrize("side", ["accepting", "connecting"])
@given(messages=st.lists(mangled(), max_size=12))
def test_whatever_is_said(name: str, side: Side, messages: list[str]) -> None:
    """Nothing but RemoteProtocolError comes out, and what is answered can be written."""
    talk = endpoint(name, side)
    if side == "connecting":
        talk.call("add", b"[1,2]")
        talk.call("ticks", b"[]", window=Window(4, 100))
    try:
        for message in messages:
            for event in talk.receive(message):
                if event.kind == 1:  # a call, which is answered as its handler would be
                    answer(talk, event)
            while talk.next_message() is not None:
                pass
    except RemoteProtocolError:
        assert talk.failed


def answer(talk: ForeignEndpoint, call: Any) -> None:
    if call.window is None:
        talk.answer(call.id, b"5")
        return
    talk.announce(call.id)
    if talk.may_send(call.id):
        talk.send(call.id, b"1")


WAIT = {
    "kkrpc": '{"t":"q","id":"1","op":"call","p":["wait"],"a":[]}',
    "kkrpc_classic": '{"id":"1","method":"wait","args":[],"type":"request","version":"json"}',
    "signal": '{"category":"request","requestId":1,"data":{"method":"wait"}}',
}


@each_dialect
async def test_over_a_connection(name: str, autojump_clock: MockClock) -> None:
    """A server says it once, by closing; its handlers have ended then."""
    service = Service()
    here, there = open_memory_transports(encoding="json", capacity=10_000)
    with trio.fail_after(60):
        async with open_connection(
            here, "accepting", dialect=DIALECTS[name], serving=service
        ) as connection:
            await there.send(WAIT[name])
            await service.wait_running()
            with pytest.raises(ConnectionLost):
                for _ in range(300):
                    await there.send("nonsense")
                    await trio.testing.wait_all_tasks_blocked()
            await connection.wait_closed()
        assert service.ended == ["wait"]
        with pytest.raises(ConnectionLost):
            await there.receive()


@pytest.mark.parametrize("number", [99, 101])
async def test_more_calls_than_may_run(number: int, autojump_clock: MockClock) -> None:
    """A peer that knows no limits is told when they are reached, and does not pay for it."""
    service = Service()
    here, there = open_memory_transports(encoding="json", capacity=1000)
    with trio.fail_after(60):
        async with open_connection(here, "accepting", dialect=kkrpc, serving=service) as connection:
            for each in range(number):
                record = {"t": "q", "id": str(each), "op": "call", "p": ["wait"], "a": []}
                await there.send(json.dumps(record))
            await trio.testing.wait_all_tasks_blocked()
            assert len(service.running) == min(number, 100)
            if number > 100:
                refused = json.loads(await there.receive())
                assert refused["e"]["code"] == "RESOURCE_EXHAUSTED"
            assert connection.endpoint.budget.left == connection.limits.violation_budget


def request(name: str, number: int, method: str, *, callbacks: int = 0) -> str:
    ids = [f"{number}-{each}" for each in range(callbacks)]
    record: dict[str, Any]
    if name == "kkrpc":
        wrapped = [{"__kkrpc_next_arg__": "callback", "id": each} for each in ids]
        record = {"t": "q", "id": str(number), "op": "call", "p": [method], "a": wrapped}
    elif name == "kkrpc_classic":
        marked = [f"__callback__{each}" for each in ids]
        record = {"id": str(number), "type": "request", "method": method, "args": marked}
        record["callbackIds"] = ids
    else:
        data = {"method": method, "args": []}
        record = {"category": "request", "requestId": number, "data": data}
    return json.dumps(record)


@pytest.mark.parametrize(
    ("name", "method", "callbacks"),
    [
        *((name, "x" * 100_000, 0) for name in DIALECTS),
        ("kkrpc", "progress", 200),
        ("kkrpc_classic", "progress", 200),
    ],
    ids=lambda each: str(each)[:20],
)
def test_nothing_is_kept_of_what_is_refused(name: str, method: str, callbacks: int) -> None:
    """What waits to be said of it is counted, and that is all that there is (R24)."""
    talk = endpoint(name, max_calls=1)
    talk.receive(request(name, 1, "ticks"))
    flood = [request(name, number, method, callbacks=callbacks) for number in range(2, 102)]
    tracemalloc.start()
    try:
        for each in flood:
            assert talk.receive(each) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 200_000
    # Each is refused in words that are no longer than it takes to see which it was.
    for _ in flood:
        message = talk.next_message()
        assert message is not None
        assert len(message) < 1000


STREAM = '{"__kkrpc_next_stream__":"async-iterable","id":"s"}'
ARGUMENT = '{"__kkrpc_next_arg__":"value","v":%s}'
DEEP = {
    "kkrpc": [
        f'{{"t":"q","id":"1","op":"call","p":["echo"],"a":[{ARGUMENT}]}}',
        f'{{"t":"q","id":"1","op":"call","p":["sum"],"a":[{STREAM},{ARGUMENT}]}}',
        '{"t":"sr","id":"1","sid":"s","e":{"n":"Error","x":%s}}',
    ],
    "kkrpc_classic": [
        '{"id":"1","type":"request","method":"echo","args":[%s]}',
        '{"id":"1","type":"request","method":"echo","args":[{"type":"Uint8Array","data":%s}]}',
        '{"json":{"id":"1","type":"request","method":"echo","args":[%s]}}',
        '{"json":{"id":"1","type":"get"},"meta":{"values":{"args":%s}}}',
    ],
    "signal": [
        '{"category":"request","requestId":1,"data":{"method":"echo","args":[%s]}}',
        '{"category":"request","requestId":1,"data":{"type":"echo","x":%s}}',
        '{"type":"StreamError","streamId":1,"error":%s}',
    ],
}


@pytest.mark.parametrize("opens", ["[", '{"a":'])
@pytest.mark.parametrize(("name", "form"), [(name, each) for name in DEEP for each in DEEP[name]])
def test_whatever_is_nested(name: str, form: str, opens: str) -> None:
    """Wherever the stack ends of what decodes it: it is taken, or it is no message."""
    closes = "]" if opens == "[" else "}"
    for depth in range(850, 1000):
        talk = endpoint(name)
        talk.receive(form % (opens * depth + "1" + closes * depth))
        assert not talk.failed
        # Nothing is kept of the one half of what was not taken.
        while talk.next_message() is not None:
            pass
        assert talk.receive(form % "1") is not None
        assert not talk.failed


@each_dialect
async def test_values_that_are_nested(name: str, autojump_clock: MockClock) -> None:
    """It ends that call, if it is too much for either side, and no other."""

    async def echo(value: list[Any]) -> list[Any]:
        return value

    async def echo_anything(value: Any) -> Any:
        return value

    async def fail(value: Any) -> None:
        raise RpcError("no", data=value)

    service = {"echo": echo, "echo_anything": echo_anything, "fail": fail}
    with trio.fail_after(10_000):
        async with open_pair(service, dialect=DIALECTS[name]) as connection:
            assert await connection.call("echo", [1]) == [1]
            for depth in range(850, 1000):
                value: Any = 1
                for _ in range(depth):
                    value = [value]
                for method in service:
                    with trio.move_on_after(1), contextlib.suppress(RpcError, TypeError):
                        await connection.call(method, value)
                assert await connection.call("echo", [1]) == [1]


@each_dialect
async def test_a_name_that_is_too_long(name: str, autojump_clock: MockClock) -> None:
    """There is none such, and its first characters say which was meant."""
    with trio.fail_after(10):
        async with open_pair(Recorded(), dialect=DIALECTS[name]) as connection:
            with pytest.raises(Unimplemented) as caught:
                await connection.call("x" * 100_000)
            assert str(caught.value).count("x") < 300


@pytest.mark.parametrize("name", ["kkrpc", "kkrpc_classic"])
async def test_callbacks_that_are_long(name: str, autojump_clock: MockClock) -> None:
    """Those that wait for their turn are bounded in bytes, and what is beyond is dropped."""
    seen: list[int] = []

    async def callback(value: str) -> None:
        await trio.sleep(1)
        seen.append(len(value))

    async def call_back(count: int, callback: Callable[[str], Awaitable[None]]) -> int:
        for _ in range(count):
            await callback("x" * 100_000)
        return count

    service = {"call_back": call_back}
    with trio.fail_after(1000):
        async with open_pair(service, dialect=DIALECTS[name]) as connection:
            assert await connection.call("call_back", 200, callback) == 200
            # The one that runs is among them.
            assert len(seen) == 41
            # It is over with those that have waited.
            assert await connection.call("call_back", 10, callback) == 10
            assert len(seen) == 51


async def test_a_peer_that_asks_and_does_not_read(autojump_clock: MockClock) -> None:
    """R24: acknowledgements that it may ask for without end are counted, and it is held."""
    here, there = open_memory_transports(encoding="json", capacity=1)
    with trio.fail_after(1000):
        async with open_connection(
            here,
            "accepting",
            dialect=kkrpc,
            serving=Recorded(),
            limits=Limits(max_waiting_control_bytes=10_000),
        ):
            await there.send('{"t":"q","id":"1","op":"call","p":["countdown"],"a":[1]}')
            sid = json.loads(await there.receive())["v"]["id"]
            await there.send(json.dumps({"t": "sq", "id": "x", "sid": sid, "op": "return"}))
            assert json.loads(await there.receive())["id"] == "x"
            sent = 0
            with trio.move_on_after(10):
                while True:
                    record = {"t": "sq", "id": "y" * 100, "sid": sid, "op": "return"}
                    await there.send(json.dumps(record))
                    sent += 1
            assert sent < 200
