"""strategies/: each gives what it says, and the library agrees."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import typing
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from tests.protocol.wire import BOTH, Talk, message
from trio_streamrpc import Limits, Window, rpc
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import payloads_for
from trio_streamrpc.contract.signatures import Kind
from trio_streamrpc.errors import InvalidArgument, RemoteProtocolError
from trio_streamrpc.protocol.codecs import Encoding, codec_for
from trio_streamrpc.protocol.states import STATES
from trio_streamrpc.testing import strategies
from trio_streamrpc.testing.plain_frames import FIELDS, PlainFrame, encode_message
from trio_streamrpc.testing.strategies.calls import Callback, Left, ServiceCall, Upload
from trio_streamrpc.testing.strategies.schedules import Schedule
from trio_streamrpc.testing.strategies.values import fits

WINDOW = Window(4, 1000)
FEW = settings(
    max_examples=max(15, settings().max_examples // 10), suppress_health_check=list(HealthCheck)
)


#: For what is only to be there: it need not be the smallest.
ANY = settings(phases=[Phase.generate], suppress_health_check=list(HealthCheck))


def decode(encoding: Encoding, data: bytes | str) -> int | None:
    """How many frames a message has; None if it is refused."""
    codec = codec_for(encoding, max_bytes=10_000_000, max_frames=4096)
    try:
        return len(codec.decode(data) or ())
    except RemoteProtocolError:
        return None


@BOTH
@given(data=st.data())
def test_frames_can_be_decoded(encoding: Encoding, data: st.DataObject) -> None:
    """R2, R28: valid ones and hostile ones."""
    frame = data.draw(strategies.frames(encoding=encoding))
    assert decode(encoding, encode_message(encoding, frame)) == 1
    found = data.draw(strategies.messages(encoding, strategies.hostile_frames(encoding)))
    assert decode(encoding, found) != 0


@pytest.mark.parametrize("kind", FIELDS)
@FEW
@given(data=st.data())
def test_frames_of_a_kind(kind: str, data: st.DataObject) -> None:
    assert data.draw(strategies.frames(kind))["type"] == kind


def test_a_kind_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="no such kind"):
        strategies.frames("no")


@BOTH
@given(data=st.data())
def test_damage(encoding: Encoding, data: st.DataObject) -> None:
    """R28: frames or RemoteProtocolError."""
    found = data.draw(strategies.damaged(strategies.messages(encoding)))
    assert isinstance(found, str) == (encoding == "json")
    decode(encoding, found)


# --- sequences

#: How an endpoint gets an id into that state: which side it is, the id, and what is done.
SETUPS: dict[str, tuple[typing.Literal["connecting", "accepting"], int]] = {
    "IDLE": ("accepting", 3),
    "AWAITING": ("connecting", 1),
    "ABANDONED": ("connecting", 1),
    "ANSWERING": ("accepting", 1),
    "STOPPING": ("accepting", 1),
    "CONSUMING": ("connecting", 1),
    "LEAVING": ("connecting", 1),
    "PRODUCING": ("accepting", 1),
    "FINISHING": ("accepting", 1),
    "CLOSED": ("accepting", 1),
}


def talk_in(state: str, encoding: Encoding) -> Talk:
    side, _ = SETUPS[state]
    # A single breach would be the end of it.
    limits = Limits(window=WINDOW, violation_budget=1, violation_refill=1e-9)
    talk = Talk(side, encoding, limits=limits)
    assert talk.endpoint.budget.spend(0.0)
    if state in {"ANSWERING", "STOPPING", "CLOSED"}:
        talk.called(1)
    elif state in {"PRODUCING", "FINISHING"}:
        talk.called(1, window={"items": 1, "bytes": 1})
    elif side == "connecting":
        streams = state in {"CONSUMING", "LEAVING"}
        talk.calls(window=WINDOW if streams else None)
    if state in {"STOPPING", "FINISHING"}:
        talk.hears({"type": "cancel", "id": 1, "mode": "close"})
    elif state in {"ABANDONED", "LEAVING"}:
        talk.endpoint.cancel(1, "abort")
    elif state == "CLOSED":
        talk.endpoint.answer(1, talk.payload(1))
        talk.says()
    assert talk.state(1) == state or state == "IDLE"
    return talk


@BOTH
@pytest.mark.parametrize("state", STATES)
@FEW
@given(data=st.data())
def test_legal_sequences(state: str, encoding: Encoding, data: st.DataObject) -> None:
    """R5 to R9, R14 to R16, R21: none is refused, and none costs a breach."""
    talk = talk_in(state, encoding)
    found: list[PlainFrame] = data.draw(
        strategies.legal_sequences(state, id=SETUPS[state][1], encoding=encoding, window=WINDOW)
    )
    for frame in found:
        talk.endpoint.receive(message(encoding, frame))
    assert not talk.endpoint.failed


def test_a_state_that_there_is_not() -> None:
    @given(strategies.legal_sequences("NOWHERE"))
    def draw(found: list[PlainFrame]) -> None:
        pytest.fail("there is none")

    with pytest.raises(ValueError, match="no such state"):
        draw()


# --- values


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Tree:
    value: int
    children: list[Tree] = dataclasses.field(default_factory=list)


@attrs.define
class Point:
    x: float
    y: float


class Options(typing.TypedDict, total=False):
    depth: int


class Pair(typing.NamedTuple):
    key: str
    value: int = 0


class Record(msgspec.Struct):
    id: uuid.UUID
    colours: list[Colour]


HINTS: list[Any] = [
    None, bool, int, float, str, bytes, dt.datetime, dt.date, dt.time,
    dt.timedelta, decimal.Decimal, uuid.UUID, Any, object, Colour, Tree, Point, Options, Pair,
    Record, list, dict, list[int], dict[str, Point], tuple[int, str], tuple[int, ...], set[int],
    frozenset[str], int | None, str | list[int], typing.Literal["a", "b"], dict[int, bytes],
    typing.Annotated[int, msgspec.Meta(ge=3, le=9)],
    typing.Annotated[str, msgspec.Meta(min_length=2)],
]  # fmt: skip


@pytest.mark.parametrize("hint", HINTS, ids=str)
@FEW
@given(data=st.data())
def test_values_fit_and_wrong_ones_do_not(hint: Any, data: st.DataObject) -> None:
    assert fits(hint, data.draw(strategies.values(hint)))
    assert fits(hint, data.draw(strategies.edge_values(hint)))
    wrong = strategies.wrong_values(hint)
    if hint in (Any, object):
        assert wrong.is_empty
        return
    value = data.draw(wrong)
    for encoding in ("msgpack", "json"):
        payloads = payloads_for(encoding, None)
        with pytest.raises(InvalidArgument):
            payloads.decoder(hint)(payloads.encoder()(value))


def test_a_type_that_nothing_can_encode() -> None:
    with pytest.raises(TypeError):
        strategies.values(Callable[[], int])


# --- calls


class Shapes:
    @rpc
    async def unary(self, a: int, b: str = "x", *rest: int, key: bytes, **more: int) -> int:
        raise NotImplementedError

    @rpc
    async def stream(self, a: int | None) -> AsyncIterator[int]:
        yield 1

    @rpc
    async def takes(self, items: AsyncIterable[int], tell: Callable[[int], Awaitable[str]]) -> int:
        raise NotImplementedError

    @rpc
    async def anything(self, value) -> Any:
        raise NotImplementedError


@given(strategies.service_calls(Shapes), strategies.encodings())
def test_calls_of_a_service(call: ServiceCall, encoding: Encoding) -> None:
    """Each is one that the method takes, unless it says that it is wrong."""
    method = MethodTable.of_contract(Shapes)[call.method]
    assert call.kind is method.kind
    payloads = payloads_for(encoding, None)
    codec = method.wire(payloads)
    untyped = method.untyped(method.name).wire(payloads)
    args, kwargs, references = untyped.encode_arguments(call.args, call.kwargs)
    assert all(isinstance(value, Upload | Callback) for _, _, value in references)
    places = {place: (lambda parameter: parameter) for place, _, _ in references}
    if call.wrong:
        assert call.leave == "read"
        with pytest.raises(InvalidArgument):
            codec.decode_arguments(args, kwargs, places)
    else:
        codec.decode_arguments(args, kwargs, places)
        assert call.kind is Kind.SERVER_STREAM or call.take == 0


class Cursor(Protocol):
    """What there is to call of it, and what there is not: properties, and what has no answer."""

    @rpc
    async def move(self, by: int) -> int: ...

    @rpc
    def rows(self) -> AsyncIterator[int]: ...

    @property
    @rpc
    def place(self) -> int: ...

    @rpc(name="not-a-name")
    async def other(self) -> None: ...


class Cursors:
    @rpc
    def open(self, table: str) -> AbstractAsyncContextManager[Cursor]:
        raise NotImplementedError

    @rpc
    def maybe(self) -> AbstractAsyncContextManager[Cursor | None]:
        raise NotImplementedError


@given(strategies.service_calls(Cursors))
def test_calls_of_an_object(call: ServiceCall) -> None:
    """Of one that is surely given, and not where the call that gives it is refused."""
    assert {each.method for each in call.inner} <= {"move"}
    assert {each.kind for each in call.inner} <= {Kind.UNARY}
    assert not call.inner or (call.method == "open" and not call.wrong)


def test_there_are_calls_of_an_object() -> None:
    calls = strategies.service_calls(Cursors)
    assert len(find(calls, lambda call: len(call.inner) == 3, settings=ANY).inner) == 3
    found = find(calls, lambda call: any(each.wrong for each in call.inner), settings=ANY)
    assert found.method == "open"


def test_what_is_drawn_can_be_pasted() -> None:
    names = {"Upload": Upload, "Callback": Callback}
    assert repr(eval("Upload(1, 'x', pause=0.1)", names)) == "Upload(1, 'x', pause=0.1)"
    assert repr(eval("Callback([1])", names)) == "Callback([1])"
    assert repr(eval("Upload(fails=True)", names)) == "Upload(fails=True)"
    assert repr(eval("Callback(1, fails=True)", names)) == "Callback(1, fails=True)"


async def test_what_is_passed_may_fail() -> None:
    taken = aiter(Upload(1, 2, fails=True))
    assert [await anext(taken), await anext(taken)] == [1, 2]
    with pytest.raises(Left):
        await anext(taken)
    with pytest.raises(Left):
        await Callback(1, fails=True)()
    assert await Callback(1)() == 1


def test_calls_say_whether_they_may_fail() -> None:
    assert ServiceCall("m", leave="fail").fails
    assert ServiceCall("m", kwargs={"tell": Callback(fails=True)}).fails
    assert not ServiceCall("m", args=(Upload(), Callback(), 1)).fails
    calls = strategies.service_calls(Shapes)
    found = find(calls, lambda call: call.method == "takes" and call.fails, settings=ANY)
    assert any(each.fails for each in found.args)


# --- the rest


@given(strategies.schedules(), st.binary(max_size=300))
def test_schedules_cut_data_into_pieces(schedule: Schedule, data: bytes) -> None:
    pieces = list(schedule.pieces(data))
    assert b"".join(piece for _, piece in pieces) == data[: schedule.cut]
    assert all(piece and delay in schedule.delays for delay, piece in pieces)


@given(strategies.limits(), strategies.windows(), strategies.networks())
def test_limits_windows_and_networks(limits: Limits, window: Window, network: Any) -> None:
    """They say themselves what they cannot be."""
    assert limits.max_partial_bytes >= limits.max_value_bytes
    assert window.items >= 1
    assert network.stall_ends >= network.stall_begins
