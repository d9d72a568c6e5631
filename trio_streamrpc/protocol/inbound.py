"""What each kind of frame does when it arrives: a small function for each, and their table.

A function gives the frame if the runtime has to act on it, and None if all is done. It raises
:exc:`RemoteProtocolError` for what only a broken peer sends (R9); a frame that merely crossed one
of ours is none of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from trio_streamrpc.errors import Code
from trio_streamrpc.protocol import reactions
from trio_streamrpc.protocol.binary import Binary
from trio_streamrpc.protocol.credit import Growth, ReceiveWindow, SendCredit
from trio_streamrpc.protocol.exchanges import Exchange, Places
from trio_streamrpc.protocol.frames import (
    KINDS,
    VERSION,
    Call,
    Cancel,
    Chunk,
    End,
    Error,
    Frame,
    Goaway,
    Grant,
    Hello,
    Kind,
    Overflow,
    Part,
    Ping,
    Pong,
    Ref,
    Result,
)
from trio_streamrpc.protocol.ids import check_new, is_ours, move, move_if_open, was_used
from trio_streamrpc.protocol.peer_limits import max_refs
from trio_streamrpc.protocol.reactions import Breach
from trio_streamrpc.protocol.states import STATES, TABLE

if TYPE_CHECKING:
    from trio_streamrpc.protocol.assembly import Unfinished
    from trio_streamrpc.protocol.endpoint import Endpoint, Event

__all__ = ["HANDLERS", "check_first", "detach"]

CLOSED = STATES["CLOSED"]
CONSUMING = STATES["CONSUMING"]
ABANDONED = STATES["ABANDONED"]
#: How the other side's ids leave IDLE.
OPENED = {name: STATES[state] for name, state in TABLE["IDLE"]["RECEIVED"].items()}

#: The longest metadata that is taken, with a hello or a call, and the most features; these, and the
#: session, are that long together at most, in characters.
METADATA_BYTES = 16 * 1024
MAX_FEATURES = 64
FEATURES_LENGTH = 16 * 1024
#: Below this, a message is not worth a copy of what is kept of it.
SMALL_MESSAGE = 1024


def receive_hello(endpoint: Endpoint, frame: Hello) -> Event | None:
    if endpoint.peer_hello is not None:
        raise reactions.SECOND_HELLO.error()
    if frame.version != VERSION:
        raise reactions.UNKNOWN_VERSION.error(frame.version)
    length = sum(map(len, frame.features)) + len(frame.session or "")
    if (
        len(frame.metadata) > METADATA_BYTES
        or len(frame.features) > MAX_FEATURES
        or length > FEATURES_LENGTH
    ):
        # It is kept for as long as the connection lives, and comes before any credential.
        raise reactions.HELLO_TOO_LONG.error()
    frame.metadata = frame.metadata.copy()
    endpoint.peer_hello = frame
    if frame.limits is not None:
        endpoint.learn(frame.limits)
    return frame


def receive_call(endpoint: Endpoint, frame: Call) -> Event | None:
    check_new(endpoint, frame.id)
    if frame.parts:
        endpoint.assembly.check(frame)
    if frame.timeout is not None and math.isnan(frame.timeout):
        raise reactions.TIMEOUT_OF_NAN.error()
    uploads = _open_refs(endpoint, frame) if frame.refs else ()
    root = None
    if frame.target and not endpoint.outbox.is_unwritten(frame.target):
        root = endpoint.objects.get(frame.target)
    places = endpoint.places if root is None else _places_of(endpoint, root)
    refusal = _refusal(endpoint, frame, uploads, root, places)
    if refusal is not None:
        # R19: refs are opened even by a call that is refused, and cancelled by its callee.
        for upload in uploads:
            endpoint.cancel(upload.id, "abort")
        breach, detail = refusal
        endpoint.refuse(frame.id, breach.info(detail), retry=breach.retry)
        return None
    if frame.window is None:
        exchange = endpoint.open_exchange(frame.id, OPENED["call"], root)
    else:
        exchange = endpoint.open_exchange(frame.id, OPENED["call stream"], root)
        exchange.credit = SendCredit(frame.window.items, frame.window.bytes)
    exchange.uploads = uploads
    exchange.places = places
    exchange.priority = frame.priority
    places.running += 1
    if frame.parts:
        # R21: its place is taken, and its refs are open; it is handed on once it is complete.
        ids = tuple(upload.id for upload in uploads)
        endpoint.assembly.begin(frame, ids, now=endpoint.now)
        return None
    return frame


def _places_of(endpoint: Endpoint, root: Exchange) -> Places:
    """R26: the calls to objects that belong to one call of a service have places of their own."""
    if root.object_places is None:
        root.object_places = Places(endpoint.limits.max_object_calls)
    return root.object_places


def _refusal(
    endpoint: Endpoint,
    call: Call,
    uploads: tuple[Exchange, ...],
    root: Exchange | None,
    places: Places,
) -> tuple[Breach, str] | None:
    """Why a call is not taken, if it is not, and what there is to say about it; it is paid for."""
    breach, detail = _breach(endpoint, call, uploads, root, places)
    if breach is None:
        return None
    if breach.cost and endpoint.tells_limits:
        endpoint.violation(breach, detail)
    return breach, detail


def _breach(
    endpoint: Endpoint,
    call: Call,
    uploads: tuple[Exchange, ...],
    root: Exchange | None,
    places: Places,
) -> tuple[Breach | None, str]:
    if call.refs and len(call.refs) > max_refs(endpoint.limits):
        # R19: what a call that comes in parts would keep of them is counted nowhere else.
        return reactions.TOO_MANY_REFERENCES, ""
    if call.target and root is None:
        # R20: a call to something that has ended, or never was, is no more than that.
        return reactions.NO_SUCH_OBJECT, ""
    if len(call.metadata) > METADATA_BYTES:
        return reactions.METADATA_TOO_LONG, ""
    if endpoint.drain_from is not None and not call.target:
        return reactions.GOING_AWAY, ""
    if uploads and endpoint.uploads > endpoint.limits.max_uploads:
        return reactions.TOO_MANY_UPLOADS, ""
    if places.running >= places.limit:
        # R7a: what only waits for handlers of ours that will not stop is not the caller's fault.
        blameless = places.overrunning > 0
        return reactions.PLACES_OVERRUN if blameless else reactions.TOO_MANY_CALLS, ""
    too_much = endpoint.assembly.too_much(call.parts) if call.parts else None
    if too_much is not None:
        return reactions.ARGUMENTS_TOO_LONG, too_much
    return None, ""


def _open_refs(endpoint: Endpoint, call: Call) -> tuple[Exchange, ...]:
    """Open the uploads that a call brings (R5, R19); objects have no state of their own here."""
    limit = 2 * endpoint.limits.max_uploads
    uploads = []
    for ref in call.refs or ():
        check_new(endpoint, ref.id)
        if ref.type == "stream":
            if endpoint.uploads >= limit:
                raise reactions.TWICE_THE_UPLOADS.error(limit)
            endpoint.uploads += 1
            exchange = endpoint.open_exchange(ref.id, OPENED["ref"])
            limits = endpoint.limits
            exchange.window = ReceiveWindow(limits.window, Growth(limits.max_window))
            if endpoint.grants_first:
                endpoint.outbox.add_grant(ref.id, limits.window.items, limits.window.bytes)
            uploads.append(exchange)
    return tuple(uploads)


def receive_final(endpoint: Endpoint, frame: Result | Error | End) -> Event | None:
    if isinstance(frame, Result) and frame.parts:
        _begin_result(endpoint, frame)
        return None
    exchange = move(endpoint, frame.id, frame.kind)
    if frame.id in endpoint.assembly.unfinished and endpoint.assembly.end(frame.id).kept:
        raise reactions.FINAL_OVER_VALUE.error(KINDS[frame.kind], frame.id)
    if frame.id in endpoint.outbox.values:
        # R9: the call was answered before it had gone out whole.
        endpoint.drop_call_value(frame.id)
    if exchange.objects:
        endpoint.end_objects(exchange.id)
    if endpoint.stuck:
        endpoint.stuck.discard(exchange.id)
    del endpoint.exchanges[exchange.id]
    if not is_ours(endpoint, exchange.id):
        endpoint.uploads -= 1
    if isinstance(frame, Result) and not len(frame.value):
        frame.value = endpoint.codec.null
    return frame


def receive_chunk(endpoint: Endpoint, frame: Chunk) -> Event | None:
    exchange = move(endpoint, frame.id, Kind.CHUNK)
    if frame.refs:
        _open_item_ref(endpoint, frame.id, frame.refs)
    window = exchange.window
    assert window is not None
    leaving = exchange.state is not CONSUMING
    if frame.parts or endpoint.assembly.unfinished:
        endpoint.assembly.check(frame)
    if frame.parts:
        # R21: its whole credit is taken now, though its item comes later.
        wrong = window.receive([frame.parts], frame.size)
        _begin(endpoint, frame, keep=wrong is None and not leaving)
    else:
        wrong = window.receive([len(item) for item in frame.items], frame.size)
    if wrong is not None:
        # R16: dropped whole. A consumer that has left saw all it wanted to see.
        if leaving:
            if endpoint.grants:
                endpoint.violation(reactions.BEYOND_CREDIT_AFTER_CANCEL, wrong)
            return None
        if endpoint.grants:
            endpoint.violation(reactions.BEYOND_CREDIT, wrong)
            info = reactions.BEYOND_CREDIT.info(wrong)
        else:
            # It knows of no credit: it is no fault of its own.
            info = reactions.SLOW_CONSUMER.info(wrong)
        endpoint.cancel(frame.id, "abort", info)
        return Overflow(frame.id, info)
    if leaving or not frame.items:
        if not frame.items:
            endpoint.violation(reactions.EMPTY_CHUNK)
        return None
    if endpoint.waits_for_consumers and not window.open:
        endpoint.stuck.add(frame.id)
    more = window.grow(len(frame.items), endpoint.now, endpoint.round_trip.seconds)
    if more is not None:
        endpoint.outbox.add_grant(frame.id, *more)
    return None if frame.parts else frame


def _open_item_ref(endpoint: Endpoint, id: int, refs: list[Ref]) -> None:
    """R20: an item is one object at most, and only where this side has called for it."""
    if not is_ours(endpoint, id):
        raise reactions.REFERENCE_IN_UPLOAD.error(id)
    if len(refs) > 1:
        raise reactions.REFERENCES_IN_CHUNK.error(len(refs), id)
    check_new(endpoint, refs[0].id)
    if refs[0].type == "stream":
        raise reactions.STREAM_IN_ITEM.error(id)


def _begin_result(endpoint: Endpoint, frame: Result) -> None:
    """A result in parts is final with the last of them: until then its call is what it was."""
    exchange = endpoint.exchanges.get(frame.id)
    before = exchange.state if exchange is not None else CLOSED
    exchange = move(endpoint, frame.id, Kind.RESULT)
    exchange.state = before
    endpoint.assembly.check(frame)
    endpoint.drop_call_value(frame.id)
    _begin(endpoint, frame, keep=before is not ABANDONED)


def _begin(endpoint: Endpoint, frame: Result | Chunk, *, keep: bool) -> None:
    """R21: there is no refusing a result or an item, and no excuse for one that is too long."""
    too_much = endpoint.assembly.too_much(frame.parts) if keep else None
    if too_much is not None:
        raise reactions.VALUE_TOO_LONG.error(too_much)
    endpoint.assembly.begin(frame, keep=keep)


def receive_cancel(endpoint: Endpoint, frame: Cancel) -> Event | None:
    exchange = move_if_open(endpoint, frame.id, Kind.CANCEL)
    if exchange is None:
        _cut_short(endpoint, frame.id)
        return None
    if frame.id in endpoint.assembly.unfinished:
        # R21: nothing has been started for a call of which not all has come.
        info = endpoint.error_info(Code.CANCELLED, "the call was cancelled")
        endpoint.drop_call(frame.id, info)
        return None
    if exchange.credit is not None:
        # R9: what waits for a consumer that has gone need not be written.
        endpoint.outbox.drop_items(frame.id)
        for each in exchange.objects:
            endpoint.outbox.remove_opening(each)
        # R20: from now on its objects cannot be called.
        endpoint.end_objects(frame.id)
    return frame


def _cut_short(endpoint: Endpoint, id: int) -> None:
    """R6, R21: no more parts for one that has cancelled, though this side has said its last."""
    exchange = endpoint.exchanges.get(id)
    if exchange is None:
        return
    if exchange.credit is not None:
        endpoint.outbox.drop_items(id)
    elif endpoint.outbox.drop_value(id):
        endpoint.answer_cancelled(exchange)


def receive_grant(endpoint: Endpoint, frame: Grant) -> Event | None:
    exchange = move_if_open(endpoint, frame.id, Kind.GRANT)
    if exchange is None:
        return None
    assert exchange.credit is not None
    if not exchange.credit.grant(frame.items, frame.bytes):
        raise reactions.BAD_GRANT.error(frame.items, frame.bytes)
    return None if frame.id in endpoint.assembly.unfinished else frame


def receive_part(endpoint: Endpoint, frame: Part) -> Event | None:
    id = frame.id
    exchange = endpoint.exchanges.get(id)
    if not was_used(endpoint, id) or (exchange is None and is_ours(endpoint, id)):
        move(endpoint, id, Kind.PART)
    if not len(frame.data):
        endpoint.violation(reactions.EMPTY_PART)
    if exchange is None or exchange.state is CLOSED:
        # R9: of a call that was refused, or answered before it had come whole.
        return None
    if id not in endpoint.assembly.unfinished:
        raise reactions.PART_OF_NOTHING.error(id, exchange.state)
    data: memoryview | str = frame.data
    whole = data.encode() if isinstance(data, str) else data
    value = endpoint.assembly.add(id, whole, endpoint.now)
    return None if value is None else _complete(endpoint, value)


def _complete(endpoint: Endpoint, value: Unfinished) -> Event | None:
    """The frame that announced a value is handed on, with the value in its place (R21)."""
    frame, data = value.frame, value.data.take()
    frame.parts = 0
    if isinstance(frame, Call):
        assert not isinstance(data, Binary)  # it is an array
        try:
            frame.args, frame.kwargs = endpoint.codec.split(data)
        except ValueError as error:
            endpoint.assembly.forget(value)
            endpoint.answer_error(frame.id, reactions.PARTS_NO_ARGUMENTS.info(error))
            return None
        if frame.timeout is not None:
            frame.timeout = max(frame.timeout - (endpoint.now - value.began), 0.0)
        return frame
    if value.kept and not isinstance(data, Binary):
        try:
            endpoint.codec.check(data)
        except ValueError as error:
            raise reactions.PARTS_NO_VALUE.error(frame.id, error) from None
    payload: Any = data if isinstance(data, Binary) else Raw(data)
    if isinstance(frame, Chunk):
        frame.items = [payload]
        return frame if value.kept else None
    # R7: of a call that was cancelled here, it is the end that counts.
    frame.value = payload if value.kept else endpoint.codec.null
    endpoint.end_objects(frame.id)
    del endpoint.exchanges[frame.id]
    return frame


def receive_ping(endpoint: Endpoint, frame: Ping) -> Event | None:
    # A copy: the token is a view of its message, which may be much longer.
    token = frame.token.copy()
    endpoint.outbox.add_control(endpoint.family.pong(token), len(token))
    return None


def receive_pong(endpoint: Endpoint, frame: Pong) -> Event | None:
    if bytes(frame.token) == bytes(endpoint.codec.mark):
        endpoint.round_trip.end(endpoint.now)
    return frame


def receive_goaway(endpoint: Endpoint, frame: Goaway) -> Event | None:
    if frame.code is None:
        endpoint.peer_drains = True
    else:
        # R27: a connection error that the other side tells; there is nobody to answer.
        endpoint.failed = True
        endpoint.assembly.clear()
        endpoint.outbox.finish()
    return frame


HANDLERS: tuple[Callable[[Endpoint, Any], Event | None], ...] = (
    receive_hello,
    receive_call,
    receive_final,
    receive_final,
    receive_chunk,
    receive_final,
    receive_cancel,
    receive_grant,
    receive_part,
    receive_ping,
    receive_pong,
    receive_goaway,
)


def check_first(endpoint: Endpoint, frame: Frame) -> None:
    """R25: ``hello`` comes first; a ``goaway`` may stand in the accepting side's place."""
    if frame.kind == Kind.HELLO:
        return
    if frame.kind != Kind.GOAWAY or endpoint.side == "accepting":
        raise reactions.NOT_HELLO_FIRST.error(KINDS[frame.kind])


def detach(events: list[Event], length: int) -> None:
    """Copy items that would keep a much larger message in memory: what was granted is the bound.

    A Raw is a view of the message it came in, and lives as long as it waits to be taken.
    """
    if length <= SMALL_MESSAGE:
        return
    for event in events:
        if isinstance(event, Chunk) and event.size * 2 < length:
            event.items = [item.copy() for item in event.items]
