"""reactions.py: every entry is what happens, and nothing of it stands anywhere else."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trio_streamrpc
from tests.protocol.wire import BOTH, STREAM, WINDOW, Talk, message
from trio_streamrpc.errors import Code, RemoteProtocolError
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol import reactions
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.protocol.reactions import Breach

PACKAGE = Path(trio_streamrpc.__file__).parent
TESTS = Path(__file__).parent.parent

BREACHES = {name: value for name, value in vars(reactions).items() if isinstance(value, Breach)}

HELLO: dict[str, Any] = {"type": "hello", "version": 1}
LIMITS = Limits(
    max_calls=2,
    max_object_calls=2,
    max_uploads=2,
    max_message_bytes=32 * 1024,
    max_message_frames=100,
    max_value_bytes=1000,
    max_partial_bytes=1500,
)

#: A conversation up to the breach: the talk, and the message that is one.
Case = Callable[[Encoding], tuple[Talk, bytes | str]]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    def note(function: Case) -> Case:
        assert name not in CASES
        CASES[name] = function
        return function

    return note


def simple(
    name: str,
    *frames: dict[str, Any],
    before: tuple[dict[str, Any], ...] = (),
    greeted: bool = True,
) -> None:
    """An accepting side hears some frames, a message each, and then those that are the breach."""

    def converse(encoding: Encoding) -> tuple[Talk, bytes | str]:
        talk = Talk("accepting", encoding, limits=LIMITS, greeted=greeted)
        for each in before:
            talk.hears(in_encoding(encoding, each))
        talk.says()
        return talk, message(encoding, *(in_encoding(encoding, each) for each in frames))

    CASES[name] = converse


def in_encoding(encoding: Encoding, frame: dict[str, Any]) -> dict[str, Any]:
    """Parts are text in json, and bytes in msgpack."""
    if frame["type"] == "part" and encoding == "msgpack":
        return {**frame, "data": frame["data"].encode()}
    return frame


def calling(name: str, *frames: dict[str, Any], first: tuple[dict[str, Any], ...] = ()) -> None:
    """A connecting side has called for a stream (id 1) and for a result (id 3)."""

    def converse(encoding: Encoding) -> tuple[Talk, bytes | str]:
        talk = Talk("connecting", encoding, limits=LIMITS)
        talk.calls(window=WINDOW)
        talk.calls()
        for each in first:
            talk.hears(in_encoding(encoding, each))
        return talk, message(encoding, *(in_encoding(encoding, each) for each in frames))

    CASES[name] = converse


CALL: dict[str, Any] = {"type": "call", "id": 1, "method": "m"}
UPLOAD: dict[str, Any] = {**CALL, "refs": [[0, "stream", 3]]}
ITEM: dict[str, Any] = {"type": "chunk", "items": [5], "size": 1}
LONG = "x" * 17_000

simple("SECOND_HELLO", HELLO)
simple("NOT_HELLO_FIRST", CALL, greeted=False)
simple("UNKNOWN_VERSION", {"type": "hello", "version": 2}, greeted=False)
simple("HELLO_TOO_LONG", {**HELLO, "metadata": {"a": LONG}}, greeted=False)
simple("WRONG_PARITY", {**CALL, "id": 2})
simple("ID_NOT_RISING", {**CALL, "id": 3}, before=({**CALL, "id": 5},))
simple("OUT_OF_PLACE", {"type": "end", "id": 1})
simple("BAD_GRANT", {"type": "grant", "id": 1}, before=({**CALL, "window": STREAM},))
simple("REFERENCE_IN_UPLOAD", {**ITEM, "id": 3, "refs": [[0, "object", 5]]}, before=(UPLOAD,))
simple("TWICE_THE_UPLOADS", {**CALL, "refs": [[n, "stream", 3 + 2 * n] for n in range(5)]})
simple("TOO_MANY_UPLOADS", {**CALL, "refs": [[n, "stream", 3 + 2 * n] for n in range(3)]})
simple("TOO_MANY_REFERENCES", {**CALL, "refs": [[n, "object", 3 + 2 * n] for n in range(5)]})
simple("NO_SUCH_OBJECT", {**CALL, "target": 4})
simple("PART_OF_NOTHING", {"type": "part", "id": 1, "data": "1"}, before=(CALL,))
simple("PARTS_BEYOND", {"type": "part", "id": 1, "data": "123"}, before=({**CALL, "parts": 2},))
simple("ARGUMENTS_TOO_LONG", {**CALL, "parts": 1001})
simple("PARTS_NO_ARGUMENTS", {"type": "part", "id": 1, "data": "1"}, before=({**CALL, "parts": 1},))
simple("EMPTY_PART", {"type": "part", "id": 1, "data": ""}, before=({**CALL, "parts": 1},))
simple("METADATA_TOO_LONG", {**CALL, "metadata": {"a": LONG}})
simple("TOO_MANY_CALLS", {**CALL, "id": 5}, before=(CALL, {**CALL, "id": 3}))
simple("EMPTY_CHUNK", {"type": "chunk", "id": 3, "items": [], "size": 0}, before=(UPLOAD,))
calling("BEYOND_CREDIT", {"type": "chunk", "id": 1, "items": [1] * 5, "size": 5})
calling("REFERENCES_IN_CHUNK", {**ITEM, "id": 1, "refs": [[0, "object", 2], [0, "object", 4]]})
calling("STREAM_IN_ITEM", {**ITEM, "id": 1, "refs": [[0, "stream", 2]]})
calling("VALUE_AND_PARTS", {"type": "result", "id": 3, "value": 5, "parts": 5})
calling("PARTED_ITEMS", {"type": "chunk", "id": 1, "items": [None] * 2, "size": 5, "parts": 5})
PARTED: dict[str, Any] = {"type": "chunk", "id": 1, "items": [None], "size": 2, "parts": 2}
calling("VALUE_IN_VALUE", {**ITEM, "id": 1}, first=(PARTED,))
calling("FINAL_OVER_VALUE", {"type": "end", "id": 1}, first=(PARTED,))
calling("PARTS_NO_VALUE", {"type": "part", "id": 1, "data": "}}"}, first=(PARTED,))
calling("VALUE_TOO_LONG", {"type": "result", "id": 3, "parts": 1001})


@case("BEYOND_CREDIT_AFTER_CANCEL")
def _(encoding: Encoding) -> tuple[Talk, bytes | str]:
    talk = Talk("connecting", encoding)
    talk.endpoint.cancel(talk.calls(window=WINDOW).id, "close")
    talk.says()
    return talk, message(encoding, {"type": "chunk", "id": 1, "items": [1] * 5, "size": 5})


@case("WRONG_KIND_OF_MESSAGE")
def _(encoding: Encoding) -> tuple[Talk, bytes | str]:
    return Talk("accepting", encoding), b"[]" if encoding == "json" else "[]"


@case("NOT_UTF8")
def _(encoding: Encoding) -> tuple[Talk, bytes | str]:
    return Talk("accepting", "json"), "\ud800"


@case("MESSAGE_TOO_LONG")
def _(encoding: Encoding) -> tuple[Talk, bytes | str]:
    talk = Talk("accepting", encoding, limits=LIMITS)
    return talk, message(encoding, {"type": "ping", "token": "x" * LIMITS.max_message_bytes})


@case("UNDECODABLE")
def _(encoding: Encoding) -> tuple[Talk, bytes | str]:
    pings = [{"type": "ping", "token": 1}] * (LIMITS.max_message_frames + 1)
    return Talk("accepting", encoding, limits=LIMITS), message(encoding, *pings)


@case("UNKNOWN_KIND")
def _(encoding: Encoding) -> tuple[Talk, bytes | str]:
    return Talk("accepting", encoding), '[{"type":"no"}]' if encoding == "json" else b"\x91\x91\x0c"


@case("EMPTY_MESSAGE")
def _(encoding: Encoding) -> tuple[Talk, bytes | str]:
    return Talk("accepting", encoding), message(encoding)


@case("TIMEOUT_OF_NAN")
def _(encoding: Encoding) -> tuple[Talk, bytes | str]:
    # JSON has no such number.
    return Talk("accepting", "msgpack"), message("msgpack", {**CALL, "timeout": float("nan")})


@case("GOING_AWAY")
def _(encoding: Encoding) -> tuple[Talk, bytes | str]:
    talk = Talk("accepting", encoding)
    talk.endpoint.drain()
    talk.says()
    return talk, message(encoding, CALL)


@case("PLACES_OVERRUN")
def _(encoding: Encoding) -> tuple[Talk, bytes | str]:
    talk = Talk("accepting", encoding, limits=Limits(max_calls=1))
    talk.called(1)
    talk.endpoint.answer_error(1, reactions.TOO_MANY_CALLS.info(), overrun=True)
    talk.says()
    return talk, message(encoding, {**CALL, "id": 3})


@case("BUDGET_SPENT")
def _(encoding: Encoding) -> tuple[Talk, bytes | str]:
    talk = Talk("accepting", encoding, limits=Limits(violation_budget=3))
    for _ in range(3):
        talk.endpoint.receive(message(encoding))
    return talk, message(encoding)


#: What takes more than frames to come about, and the tests that show it.
ELSEWHERE = {
    "UNFINISHED_MESSAGE": "transports/test_websocket.py::test_bytes_that_never_make_a_message",
    "NO_GREETING": "transports/test_bytestream.py::test_a_stream_of_no_client",
    "EARLY_BYTES": "runtime/test_greeting.py::test_early_bytes",
    "EARLY_FRAMES": "runtime/test_greeting.py::test_early_frames",
    "NO_HELLO": "runtime/test_connection.py::test_no_hello_in_time",
    "HELLO_METADATA": "runtime/test_connection.py::test_a_handshake_that_is_none",
    "SLOW_CONSUMER": "dialects/test_slow.py::test_a_slow_stream_fails",
    "MALFORMED": "dialects/test_hostile.py::test_malformed_messages_cost",
    "UNKNOWN_DIALECT": "dialects/test_choosing.py::test_a_first_message_of_none",
    "OVERDUE_CALLBACKS": "runtime/test_abuse.py::test_callbacks_that_are_never_answered",
    "NOTHING_TAKEN": "runtime/test_stalls.py::test_a_consumer_that_takes_nothing",
    "NO_PART": "runtime/test_stalls.py::test_a_call_of_which_no_more_comes",
    "NO_SUCH_METHOD": "runtime/test_callee.py::test_what_is_not_exposed_is_not_there",
    "MISFIT": "runtime/test_callee.py::test_the_wrong_kind_of_call_says_how_it_is_called",
}


@BOTH
@pytest.mark.parametrize("name", [name for name in BREACHES if name not in ELSEWHERE])
def test_what_happens(name: str, encoding: Encoding) -> None:
    """R28: what its entry says, and no more."""
    breach = BREACHES[name]
    talk, heard = CASES[name](encoding)
    before = talk.endpoint.budget.left
    if breach.ends == "connection":
        with pytest.raises(RemoteProtocolError) as caught:
            talk.endpoint.receive(heard)
        assert caught.value.code is breach.code is Code.PROTOCOL_ERROR
        assert caught.value.close_code == breach.close_code
        fixed = (breach.says or breach.what).partition("{")[0]
        assert caught.value.message.startswith(fixed)
        assert talk.says()[-1]["type"] == "goaway"
        assert talk.endpoint.failed
        return
    talk.endpoint.receive(heard)
    assert not talk.endpoint.failed
    assert before - talk.endpoint.budget.left == breach.cost
    said = [frame for frame in talk.says() if frame["type"] in {"error", "cancel"}]
    if breach.ends == "nothing":
        assert said == []
        return
    assert breach.code is not None
    told = [frame for frame in said if frame.get("error", {}).get("code") == breach.code.value]
    assert len(told) == 1
    assert told[0]["type"] == ("error" if breach.ends == "call" else "cancel")
    assert told[0].get("retry", False) is breach.retry


def test_every_breach_is_shown() -> None:
    assert CASES.keys() | ELSEWHERE.keys() == BREACHES.keys()
    assert not CASES.keys() & ELSEWHERE.keys()
    for place in ELSEWHERE.values():
        file, _, name = place.partition("::")
        assert f"def {name}(" in (TESTS / file).read_text(encoding="utf-8"), place


@pytest.mark.parametrize("name", BREACHES)
def test_entries_are_sound(name: str) -> None:
    breach = BREACHES[name]
    assert breach.rule in (TESTS.parent / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert (breach.close_code is not None) == (breach.ends == "connection")
    assert breach.close_code in {None, 1002, 1003, 1007, 1008, 1009}
    assert (breach.code is None) == (breach.ends == "nothing")
    assert breach.cost in {0, 1}
    assert not breach.cost or breach.ends != "connection"
    assert not (breach.cost and breach.retry), "who pays for it shall not try again"


def test_every_entry_is_used() -> None:
    used = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in BREACHES:
                used.add(node.attr)
    assert used == BREACHES.keys()


def test_no_reaction_stands_anywhere_else() -> None:
    """No close code, cost or connection error but by the name of an entry."""
    for file in PACKAGE.rglob("*.py"):
        if file.name == "reactions.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            where = f"{file.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Raise):
                assert "RemoteProtocolError(" not in ast.unparse(node), where
            if isinstance(node, ast.keyword) and node.arg == "close_code":
                assert not isinstance(node.value, ast.Constant), where
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".violation"):
                assert ast.unparse(node.args[0]).split(".")[-1] in {*BREACHES, "breach"}, where
