"""codecs.py: message ↔ frames; whatever comes, there are frames or RemoteProtocolError (R28)."""

from __future__ import annotations

import json
import string
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tests.protocol.wire import BOTH, FIELDS, NUMBERS, message, read
from trio_streamrpc.errors import RemoteProtocolError
from trio_streamrpc.protocol.codecs import Codec, Encoding, JsonCodec, MsgpackCodec, codec_for
from trio_streamrpc.protocol.frames import KINDS, Announced, ErrorInfo, Frame, Ref, WindowInfo

MAX_BYTES = 2 * 1024 * 1024


def codec(encoding: Encoding, *, max_bytes: int = MAX_BYTES, max_frames: int = 100) -> Codec:
    return codec_for(encoding, max_bytes=max_bytes, max_frames=max_frames)


def refused(encoding: Encoding, data: bytes | str, **limits: int) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        codec(encoding, **limits).decode(data)
    return caught.value


def decode(encoding: Encoding, data: bytes | str) -> list[Frame]:
    found = codec(encoding).decode(data)
    assert found is not None
    return found


# --- golden vectors: a frame of every kind, with every field that it can have

#: Payloads are written as values of the encoding, the rest as the arguments of its class.
GOLDEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "hello": (
        {
            "version": 1,
            "limits": Announced(WindowInfo(8, 300), max_calls=7),
            "features": ["f"],
            "metadata": {"k": 1},
            "session": "s",
        },
        (
            "96 00 01 82a677696e646f7782a56974656d7308a56279746573cd012c a96d61785f63616c6c7307"
            " 91a166 81a16b01 a173"
        ),
        (
            '{"type":"hello","version":1,"limits":{"window":{"items":8,"bytes":300},"max_calls":7},'
            '"features":["f"],"metadata":{"k":1},"session":"s"}'
        ),
    ),
    "call": (
        {
            "id": 2**53 - 1,
            "target": 4,
            "method": "a.b",
            "args": [None, None],
            "kwargs": {"x": 2},
            "refs": [Ref(0, "stream", 3), Ref("n", "object", 5)],
            "window": WindowInfo(2, 65536),
            "timeout": 1.5,
            "metadata": {},
            "parts": 9,
            "priority": -2,
        },
        (
            "9c 01 cf001fffffffffffff 04 a3612e62 92c0c0 81a17802 92 9300a673747265616d03"
            " 93a16ea66f626a65637405 82a56974656d7302a56279746573ce00010000"
            " cb3ff8000000000000 80 09 fe"
        ),
        (
            '{"type":"call","id":9007199254740991,"target":4,"method":"a.b","args":[null,null],'
            '"kwargs":{"x":2},"refs":[[0,"stream",3],["n","object",5]],'
            '"window":{"items":2,"bytes":65536},"timeout":1.5,"metadata":{},"parts":9,'
            '"priority":-2}'
        ),
    ),
    "result": (
        {"id": 1, "value": {"a": "é"}, "parts": 3},
        "94 02 01 81a161a2c3a9 03",
        '{"type":"result","id":1,"value":{"a":"é"},"parts":3}',
    ),
    "error": (
        {
            "id": 1,
            "error": ErrorInfo("UNKNOWN", "G", "m", Raw(b"7"), "tb", [ErrorInfo("ABORTED")]),
            "cleanup": True,
            "same": True,
            "retry": True,
        },
        # The 0x37 is the integer 55: a payload stands in the message as it is.
        (
            "96 03 01 86a4636f6465a7554e4b4e4f574ea46e616d65a147a76d657373616765a16da46461746137"
            "a974726163656261636ba27462a66361757365739181a4636f6465a741424f52544544 c3 c3 c3"
        ),
        (
            '{"type":"error","id":1,"error":{"code":"UNKNOWN","name":"G","message":"m","data":7,'
            '"traceback":"tb","causes":[{"code":"ABORTED"}]},"cleanup":true,"same":true,"retry":true}'
        ),
    ),
    "chunk": (
        {"id": 1, "items": [5, "é", None], "size": 6, "refs": [Ref(2, "object", 6)], "parts": 2},
        "96 04 01 93 05 a2c3a9 c0 06 919302a66f626a65637406 02",
        '{"type":"chunk","id":1,"items":[5,"é",null],"size":6,"refs":[[2,"object",6]],"parts":2}',
    ),
    "end": ({"id": 300}, "92 05 cd012c", '{"type":"end","id":300}'),
    "cancel": (
        {"id": 1, "mode": "close", "error": ErrorInfo("ABORTED", "E", "é")},
        "94 06 01 a5636c6f7365 83a4636f6465a741424f52544544a46e616d65a145a76d657373616765a2c3a9",
        (
            '{"type":"cancel","id":1,"mode":"close",'
            '"error":{"code":"ABORTED","name":"E","message":"é"}}'
        ),
    ),
    "grant": (
        {"id": 1, "items": 2, "bytes": 70000},
        "94 07 01 02 ce00011170",
        '{"type":"grant","id":1,"items":2,"bytes":70000}',
    ),
    "part": (
        {"id": 1, "data": b"abc"},
        "93 08 01 c403616263",
        '{"type":"part","id":1,"data":"abc"}',
    ),
    "ping": ({"token": [1]}, "92 09 9101", '{"type":"ping","token":[1]}'),
    "pong": ({"token": "t"}, "92 0a a174", '{"type":"pong","token":"t"}'),
    "goaway": (
        {"last_id": 7, "code": "UNAVAILABLE", "message": "bye"},
        "94 0b 07 ab554e415641494c41424c45 a3627965",
        '{"type":"goaway","last_id":7,"code":"UNAVAILABLE","message":"bye"}',
    ),
}

#: The shortest form of each frame: what is left out is left out.
SHORTEST: dict[str, tuple[dict[str, Any], str]] = {
    "hello": ({"version": 1}, '{"type":"hello","version":1}'),
    "call": ({"id": 1}, '{"type":"call","id":1}'),
    "result": ({"id": 1}, '{"type":"result","id":1}'),
    "error": ({"id": 1, "error": ErrorInfo("X")}, '{"type":"error","id":1,"error":{"code":"X"}}'),
    "chunk": ({"id": 1, "items": [], "size": 0}, '{"type":"chunk","id":1,"items":[],"size":0}'),
    "end": ({"id": 1}, '{"type":"end","id":1}'),
    "cancel": ({"id": 1}, '{"type":"cancel","id":1,"mode":"abort"}'),
    "grant": ({"id": 1}, '{"type":"grant","id":1,"items":0,"bytes":0}'),
    "part": ({"id": 1, "data": b""}, '{"type":"part","id":1,"data":""}'),
    "ping": ({}, '{"type":"ping"}'),
    "pong": ({}, '{"type":"pong"}'),
    "goaway": ({}, '{"type":"goaway"}'),
}  # fmt: skip

PAYLOADS = {"args", "kwargs", "metadata", "value", "token"}


def made(encoding: Encoding, kind: str, fields: dict[str, Any]) -> Frame:
    """The frame of that kind, payloads encoded."""
    encode = (msgspec.json if encoding == "json" else msgspec.msgpack).encode
    arguments = dict(fields)
    for name in arguments.keys() & PAYLOADS:
        arguments[name] = Raw(encode(arguments[name]))
    if kind == "chunk":
        arguments["items"] = [Raw(encode(item)) for item in arguments["items"]]
    if kind == "part" and encoding == "json":
        arguments["data"] = arguments["data"].decode()
    frame: Frame = getattr(codec(encoding).family, kind)(**arguments)
    return frame


def golden(encoding: Encoding, kind: str) -> bytes | str:
    """The committed message of one frame of that kind."""
    _, binary, text = GOLDEN[kind]
    return f"[{text}]" if encoding == "json" else b"\x91" + bytes.fromhex(binary)


def plain(value: Any) -> Any:
    """A frame as something that can be compared: Raw compares by identity."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, msgspec.Struct):
        fields = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        return (type(value).__name__, fields)
    return value


KIND = pytest.mark.parametrize("kind", FIELDS)


def test_every_kind_has_its_golden_vector() -> None:
    assert list(GOLDEN) == list(SHORTEST) == list(KINDS)
    for kind, (fields, _, _) in GOLDEN.items():
        assert tuple(fields) == FIELDS[kind], "a vector has every field"


@BOTH
@KIND
def test_golden_vectors(encoding: Encoding, kind: str) -> None:
    """R2: the bytes of every kind of frame, both ways."""
    frame = made(encoding, kind, GOLDEN[kind][0])
    assert codec(encoding).encode([frame]) == golden(encoding, kind)
    [decoded] = decode(encoding, golden(encoding, kind))
    assert plain(decoded) == plain(frame)


@KIND
def test_what_says_nothing_is_left_out_in_json(kind: str) -> None:
    fields, text = SHORTEST[kind]
    frame = made("json", kind, fields)
    assert codec("json").encode([frame]) == f"[{text}]"
    assert plain(decode("json", f"[{text}]")) == [plain(frame)]


@BOTH
@KIND
def test_round_trip_of_the_shortest_form(encoding: Encoding, kind: str) -> None:
    frame = made(encoding, kind, SHORTEST[kind][0])
    assert plain(decode(encoding, codec(encoding).encode([frame]))) == [plain(frame)]


@KIND
def test_optional_fields_may_be_missing_at_the_end_in_msgpack(kind: str) -> None:
    """An older peer knows fewer fields; what it must say stands first."""
    frame = made("msgpack", kind, SHORTEST[kind][0])
    shortest = message("msgpack", {"type": kind, **read(codec("msgpack").encode([frame]))[0]})
    assert plain(decode("msgpack", shortest)) == [plain(frame)]


@BOTH
def test_a_message_of_every_kind(encoding: Encoding) -> None:
    """R1: an array of frames, in order."""
    frames = [made(encoding, kind, GOLDEN[kind][0]) for kind in KINDS]
    assert plain(decode(encoding, codec(encoding).encode(frames))) == plain(frames)


@given(text=st.text(), data=st.binary(), number=st.integers(0, 2**53 - 1))
def test_round_trips_of_any_text_and_number(text: str, data: bytes, number: int) -> None:
    for encoding in ("json", "msgpack"):
        encode = (msgspec.json if encoding == "json" else msgspec.msgpack).encode
        family = codec(encoding).family
        frames = [
            family.call(id=number or 1, target=number, method=text, args=Raw(encode([data, text]))),
            family.goaway(number, text, text),
            family.error(number or 1, ErrorInfo(text, text, text, Raw(encode(text)), text)),
        ]
        assert plain(decode(encoding, codec(encoding).encode(frames))) == plain(frames)


# --- what is unknown


@BOTH
@KIND
def test_unknown_fields_are_ignored(encoding: Encoding, kind: str) -> None:
    """R4: trailing array elements, object keys."""
    frame = made(encoding, kind, GOLDEN[kind][0])
    known = golden(encoding, kind)
    more: bytes | str
    if isinstance(known, str):
        more = '[{"":[{}],"x":1e999,' + known[2:-2] + ',"y":{"z":[null]}}]'
    else:
        more = b"\x91" + bytes([known[1] + 2]) + known[2:] + b"\xc0\x81\xa1z\x90"
    assert plain(decode(encoding, more)) == [plain(frame)]


@pytest.mark.parametrize("name", ["x-", "x-trace", "x-é"])
def test_unknown_types_with_x_are_ignored(name: str) -> None:
    """R4."""
    unknown = f'{{"a":[1,{{}}],"type":"{name}","id":-1}}'
    assert decode("json", f"[{unknown}]") == []
    assert decode("json", unknown) == []
    assert decode("json", f" {unknown}\n") == []
    both = decode("json", f'[{unknown},{{"type":"end","id":1}},{unknown}]')
    assert [frame.kind for frame in both] == [NUMBERS["end"]]


@pytest.mark.parametrize("kind", [64, 65, 127, 128, 2**63])
def test_unknown_kinds_from_64_are_ignored(kind: int) -> None:
    """R4."""
    encode = msgspec.msgpack.encode
    assert decode("msgpack", encode([[kind]])) == []
    found = decode("msgpack", encode([[kind, {"a": []}], [5, 1], [kind]]))
    assert [frame.kind for frame in found] == [NUMBERS["end"]]


@pytest.mark.parametrize("name", ["", "x", "X-trace", "xx-", "Hello", "5", "hello ", "_"])
def test_other_unknown_types_are_refused(name: str) -> None:
    """R4."""
    for text in (f'[{{"type":"{name}"}}]', f'{{"type":"{name}"}}'):
        assert "unknown kind" in refused("json", text).message
    known = '{"type":"end","id":1}'
    refused("json", f'[{known},{{"type":"x-a"}},{{"type":"{name}"}}]')


@pytest.mark.parametrize("kind", [12, 13, 63, -1, -64])
def test_unknown_kinds_below_64_are_refused(kind: int) -> None:
    """R4."""
    assert "unknown kind" in refused("msgpack", msgspec.msgpack.encode([[kind]])).message
    refused("msgpack", msgspec.msgpack.encode([[5, 1], [64], [kind, 1]]))


@BOTH
def test_an_ignored_frame_does_not_hide_a_wrong_one(encoding: Encoding) -> None:
    """R4: frame by frame, what is known is still checked."""
    if encoding == "json":
        refused(encoding, '[{"type":"x-a"},{"type":"end","id":0}]')
        refused(encoding, '[{"type":"x-a"},{"type":"end","id":1},5]')
        refused(encoding, '[{"type":"x-a"},{"id":1}]')
        refused(encoding, '{"type":"x-a"}]')
    else:
        refused(encoding, msgspec.msgpack.encode([[64], [5, 0]]))
        refused(encoding, msgspec.msgpack.encode([[64], [5, 1], 5]))
        refused(encoding, msgspec.msgpack.encode([[64], []]))
        refused(encoding, msgspec.msgpack.encode([[64], ["end", 1]]))
        refused(encoding, msgspec.msgpack.encode([[64]]) + b"\xc0")


def test_what_is_ignored_is_well_formed_all_the_same() -> None:
    for text in ('[{"type":"x-a","b":}]', '[{"type":"x-a","b":nan}]', '[{"type":"x-a"},]'):
        refused("json", text)
    refused("msgpack", b"\x91\x92\x40\xc1")


@BOTH
def test_a_message_without_frames_is_told_from_one_without_known_frames(encoding: Encoding) -> None:
    """R1, R4: the first breaks a rule, the second does not."""
    empty = ["[]", " [ ] "] if encoding == "json" else [b"\x90", b"\xdc\0\0", b"\xdd\0\0\0\0"]
    for each in empty:
        assert codec(encoding).decode(each) is None
    ignored = '[{"type":"x-a"}]' if encoding == "json" else b"\x91\x91\x40"
    assert codec(encoding).decode(ignored) == []


def test_a_json_message_may_be_one_bare_frame() -> None:
    """R2."""
    for text in ('{"type":"end","id":1}', ' \r\n\t{"type":"end","id":1} '):
        [frame] = decode("json", text)
        assert frame.kind == NUMBERS["end"]
    refused("json", '{"type":"end","id":1}{"type":"end","id":1}')
    refused("json", '{"type":"end","id":1},{"type":"end","id":1}')
    refused("json", '{"type":"end","id":0}')
    refused("msgpack", b"\x92\x05\x01")


# --- what is wrong


@BOTH
@KIND
def test_every_truncation_is_refused(encoding: Encoding, kind: str) -> None:
    """R28: cut after every byte, or character."""
    whole = golden(encoding, kind)
    for end in range(len(whole)):
        assert refused(encoding, whole[:end]).close_code == 1007
    if encoding == "json":
        for end in range(len(whole) - 2):
            refused(encoding, whole[1 : 1 + end])


@BOTH
@KIND
def test_rubbish_behind_a_message_is_refused(encoding: Encoding, kind: str) -> None:
    whole = golden(encoding, kind)
    if isinstance(whole, str):
        for rest in ("]", "[]", "x", "\0", "\x1a", "null", ",", "\ufeff"):
            refused("json", whole + rest)
        assert len(decode("json", f" \n{whole}\t ")) == 1
    else:
        for byte in range(256):
            refused("msgpack", whole + bytes([byte]))


#: For each field, values of the wrong type or out of range; None stands for null.
IDS = [0, -1, 2**53, 2**64 - 1, 1.5, 1.0, True, "1", None, [1], {}]
AMOUNTS = [-1, 2**53, 1.5, True, "1", None, []]
LIMITS = [0, *AMOUNTS]
TEXTS: list[Any] = [5, None, ["a"], {}, True]
FLAGS = [0, 1, "true", None, []]
WINDOWS = [
    5, "w", [2, 3], {}, {"items": 1}, {"bytes": 1}, True,
    *({"items": bad, "bytes": 1} for bad in AMOUNTS),
    *({"items": 1, "bytes": bad} for bad in AMOUNTS),
]  # fmt: skip
REFS = [
    5, "r", {}, [5], [[]], [[0, "stream"]], [[0, "file", 1]], [[0, None, 1]], [None],
    [[1.5, "stream", 1]], [[None, "stream", 1]], [[True, "stream", 1]],
    *([[0, "stream", bad]] for bad in IDS),
]  # fmt: skip
INFOS = [
    5, "e", [], {}, {"code": 5}, {"code": None}, {"name": "x"}, {"code": "A", "name": None},
    {"code": "A", "message": 5}, {"code": "A", "traceback": 5}, {"code": "A", "causes": None},
    {"code": "A", "causes": [{}]}, {"code": "A", "causes": {}},
]  # fmt: skip
WRONG: dict[str, dict[str, list[Any]]] = {
    "hello": {
        "version": [1.5, True, "1", None, -1, 2**53],
        "limits": [
            5, "l", [], {"window": 5}, {"window": None},
            *({"window": bad} for bad in WINDOWS),
            *({name: bad} for name in (
                "max_calls", "max_object_calls", "max_uploads", "max_message_bytes",
                "max_message_frames", "max_frame_bytes", "max_value_bytes", "max_partial_bytes",
            ) for bad in LIMITS),
            # Less than a hello needs: nothing could be told to such a side.
            {"max_message_bytes": 1023},
        ],
        "features": [5, "f", None, [5], {}],
        "session": [5, [], True],
    },
    "call": {
        "id": IDS, "target": AMOUNTS, "method": TEXTS, "refs": REFS, "window": WINDOWS,
        "timeout": ["1", True, [], {}], "parts": AMOUNTS,
        "priority": [-129, 128, 1.5, True, "1", None, [], {}],
    },
    "result": {"id": IDS, "parts": AMOUNTS},
    "error": {
        "id": IDS, "error": [None, *INFOS], "cleanup": FLAGS, "same": FLAGS, "retry": FLAGS,
    },
    "chunk": {
        "id": IDS, "items": [5, "i", None, {}, True], "size": AMOUNTS, "refs": REFS,
        "parts": AMOUNTS,
    },
    "end": {"id": IDS},
    "cancel": {"id": IDS, "mode": ["", "Close", "kill", None, 0, True, []], "error": INFOS},
    "grant": {"id": IDS, "items": AMOUNTS, "bytes": AMOUNTS},
    "part": {"id": IDS, "data": [5, None, [], {}, True]},
    "ping": {},
    "pong": {},
    "goaway": {"last_id": AMOUNTS, "code": [5, [], True], "message": TEXTS},
}  # fmt: skip


@BOTH
@KIND
def test_wrong_types(encoding: Encoding, kind: str) -> None:
    """R5, R15, R28: for every field, nothing is taken for what it is not."""
    [right] = read(golden(encoding, kind))
    assert decode(encoding, message(encoding, {"type": kind, **right}))
    assert set(WRONG[kind]) == set(FIELDS[kind]) - PAYLOADS
    for field, values in WRONG[kind].items():
        for value in values:
            error = refused(encoding, message(encoding, {**right, "type": kind, field: value}))
            assert error.close_code == 1007, (field, value)


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("hello", "version"), ("call", "id"), ("result", "id"), ("error", "id"),
        ("error", "error"), ("chunk", "id"), ("chunk", "items"), ("chunk", "size"),
        ("end", "id"), ("cancel", "id"), ("grant", "id"), ("part", "id"), ("part", "data"),
    ],
)  # fmt: skip
def test_required_fields(kind: str, field: str) -> None:
    [right] = read(golden("json", kind))
    del right[field]
    refused("json", message("json", right))
    array = [NUMBERS[kind], *(right.get(name) for name in FIELDS[kind])]
    refused("msgpack", msgspec.msgpack.encode([array[: 1 + FIELDS[kind].index(field)]]))


@BOTH
def test_ids_at_their_bounds(encoding: Encoding) -> None:
    """R5: 1 to 2^53 - 1."""
    for id in (1, 2**53 - 1):
        assert decode(encoding, message(encoding, {"type": "end", "id": id}))
    for id in (0, -1, 2**53):
        refused(encoding, message(encoding, {"type": "end", "id": id}))


def test_json_numbers_that_are_no_ids() -> None:
    for text in ("1.0", "1e0", "01", "+1", "0x1", "1_0", "-0", "NaN", "Infinity", "1e999"):
        refused("json", f'[{{"type":"end","id":{text}}}]')
    refused("json", '[{"type":"call","id":1,"timeout":1e999}]')


@pytest.mark.parametrize("digits", [17, 20, 400, 4300, 5000])
def test_integers_of_any_length_are_refused_in_few_words(digits: int) -> None:
    """R28; and nothing of the peer's is shown at length."""
    for field in ("version", "id"):
        kind = "hello" if field == "version" else "end"
        error = refused("json", f'[{{"type":"{kind}","{field}":{"9" * digits}}}]')
        assert len(error.message) < 250


@BOTH
@pytest.mark.parametrize("depth", [10**4, 10**6])
def test_deep_nesting(encoding: Encoding, depth: int) -> None:
    """R28: in the envelope and in a payload, of a known frame and of one that is ignored."""
    for start in ("", '[{"type":"ping","token":', '[{"type":"x-a","b":'):
        if encoding == "json":
            refused(encoding, start + "[" * depth)
            refused(encoding, start + '{"a":' * (depth // 5))
            refused(encoding, start + "[" * (depth // 2) + "]" * (depth // 2))
    for head in (b"", b"\x91\x92\x09", b"\x91\x92\x40"):
        if encoding == "msgpack":
            refused(encoding, head + b"\x91" * depth)
            refused(encoding, head + b"\x81\x00" * (depth // 2))
            refused(encoding, head + b"\x91" * depth + b"\xc0")
    if encoding == "json":
        causes = '{"code":"A","causes":[' * 20_000
        refused(encoding, f'[{{"type":"error","id":1,"error":{causes}')


def test_bad_text_in_json() -> None:
    """R28: lone surrogates, as characters and as escapes; a BOM; control characters."""
    assert refused("json", '[{"type":"ping","token":"\ud800"}]').close_code == 1007
    assert refused("json", "\udfff").close_code == 1007
    for text in (r"\ud800", r"\udc00\ud800", r"\ud800x", r"\u12", r"\x", "\x1f", "\n"):
        refused("json", f'[{{"type":"call","id":1,"method":"{text}"}}]')
    refused("json", '\ufeff[{"type":"end","id":1}]')
    [emoji] = decode("json", '[{"type":"call","id":1,"method":"\\ud83d\\ude00"}]')
    assert emoji.method == "😀"  # type: ignore[attr-defined]


def test_bad_text_in_msgpack() -> None:
    """R28."""
    for bad in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"):
        text = bytes([0xA0 + len(bad)]) + bad
        refused("msgpack", b"\x91\x94\x01\x01\x00" + text)
        refused("msgpack", b"\x91\x93\x03\x01\x81\xa4code" + text)
        refused("msgpack", b"\x91\x96\x00\x01\xc0\x90\xc0" + text)


@pytest.mark.parametrize(
    "head", ["dd", "df", "db", "c6", "c9", "dc", "de", "da", "c5", "c8", "9f", "8f", "bf"]
)
def test_huge_declared_lengths(head: str) -> None:
    """R28: 2^32 - 1 elements, pairs, characters, bytes; nothing is made before they are there."""
    lengths = {"dd": 4, "df": 4, "db": 4, "c6": 4, "c9": 4, "dc": 2, "de": 2, "da": 2}
    claim = bytes.fromhex(head) + b"\xff" * lengths.get(head, 2 if head in {"c5", "c8"} else 0)
    for before in (
        "", "91", "9192", "919209", "91920901", "919240", "91940401", "91940001c0", "919300",
        "91930001", "9197010100a0c0c0", "91930301",
    ):  # fmt: skip
        for after in (b"", b"\x01", b"\x05" * 20):
            refused("msgpack", bytes.fromhex(before) + claim + after)


def test_every_opcode_where_it_does_not_belong() -> None:
    for opcode in range(256):
        for before in ("", "91", "9192", "919205", "91940401", "919300"):
            valid = {"": range(0x90, 0x91), "919205": range(1, 0x80)}.get(before, range(0))
            if opcode not in valid:
                refused("msgpack", bytes.fromhex(before) + bytes([opcode]))


@BOTH
def test_text_and_binary_are_not_mixed(encoding: Encoding) -> None:
    """R2: 1003, a message of the wrong kind."""
    other: Encoding = "json" if encoding == "msgpack" else "msgpack"
    assert refused(encoding, golden(other, "end")).close_code == 1003
    assert refused("json", b'[{"type":"end","id":1}]').close_code == 1003
    assert refused("msgpack", "").close_code == 1003


@BOTH
def test_what_is_no_array_of_frames(encoding: Encoding) -> None:
    values: list[Any] = [None, 1, "a", True, 1.5, {}, [None], [1], ["a"], [[]], [{}], [[[]]]]
    for value in values:
        encode = msgspec.msgpack.encode
        refused(encoding, json.dumps(value) if encoding == "json" else encode(value))


# --- limits


@BOTH
def test_message_bytes_at_the_limit_and_past_it(encoding: Encoding) -> None:
    """R28: bytes are counted, not characters."""
    whole = message(encoding, {"type": "ping", "token": "é😀" * 100})
    length = len(whole.encode() if isinstance(whole, str) else whole)
    assert len(codec(encoding, max_bytes=length).decode(whole) or ()) == 1
    for limit in (length - 1, len(whole) - 1, 1):
        assert refused(encoding, whole, max_bytes=limit).close_code == 1009


@BOTH
def test_the_length_is_looked_at_first(encoding: Encoding) -> None:
    """R28: nothing of a message that is too long is decoded."""
    rubbish = "x" * 1001 if encoding == "json" else b"x" * 1001
    assert refused(encoding, rubbish, max_bytes=1000).close_code == 1009


@BOTH
def test_frames_at_the_limit_and_past_it(encoding: Encoding) -> None:
    """R28: frames that are ignored count as well."""
    ends = [{"type": "end", "id": 1}] * 8
    assert len(codec(encoding, max_frames=8).decode(message(encoding, *ends)) or ()) == 8
    refused(encoding, message(encoding, *ends), max_frames=7)
    text = "[" + ",".join(['{"type":"x-a"}'] * 8) + "]"
    data = text if encoding == "json" else msgspec.msgpack.encode([[64]] * 8)
    assert codec(encoding, max_frames=8).decode(data) == []
    refused(encoding, data, max_frames=7)


# --- anything at all


@given(st.binary(max_size=200))
@example(b"\x91\x92\x05\x01")
def test_any_bytes(data: bytes) -> None:
    """R28: frames or RemoteProtocolError."""
    _harmless("msgpack", data)


@given(st.text(st.characters(codec=None), max_size=200))
def test_any_text(text: str) -> None:
    """R28."""
    _harmless("json", text)


@given(st.sampled_from(list(FIELDS)), st.data())
def test_valid_messages_with_bytes_changed(kind: str, data: st.DataObject) -> None:
    """R28: close to what is valid."""
    binary = bytearray(bytes(golden("msgpack", kind)))  # type: ignore[arg-type]
    for place in data.draw(st.lists(st.integers(0, len(binary) - 1), min_size=1, max_size=3)):
        binary[place] = data.draw(st.integers(0, 255))
    _harmless("msgpack", bytes(binary))
    text = list(str(golden("json", kind)))
    for place in data.draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=3)):
        text[place] = data.draw(st.sampled_from(string.printable + "é\0\ud800"))
    _harmless("json", "".join(text))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
)


@settings(max_examples=settings().max_examples // 2)
@given(st.lists(st.tuples(st.integers(-1, 70), st.lists(VALUES, max_size=5)), max_size=3))
def test_frames_of_any_values(frames: list[tuple[int, list[Any]]]) -> None:
    """R28."""
    _harmless("msgpack", msgspec.msgpack.encode([[kind, *values] for kind, values in frames]))
    objects = []
    for kind, values in frames:
        name = KINDS[kind] if 0 <= kind < 12 else "x-a"
        objects.append({"type": name, **dict(zip(FIELDS.get(name, "abc"), values, strict=False))})
    _harmless("json", msgspec.json.encode(objects).decode())


def _harmless(encoding: Encoding, data: bytes | str) -> None:
    problem = None
    try:
        found = codec(encoding).decode(data)
    except RemoteProtocolError as error:
        problem = error
    else:
        assert all(isinstance(frame, Frame) for frame in found or ())
    if problem is not None:
        # Nothing that could disturb a log: short, and no character of the peer's as it is.
        assert len(problem.message) < 250
        assert problem.message.isprintable()
        assert problem.close_code in {1002, 1003, 1007, 1009}


def test_messages_of_errors_are_printable() -> None:
    """What the peer sent is escaped where it is shown."""
    for text in ('{"type":"cancel","id":1,"mode":"\\n\\u202e\\u0000"}', '{"type":"\\n\\u202ey"}'):
        error = refused("json", text)
        assert error.message.isprintable()
        assert "\\n" in error.message
    assert len(refused("json", f'{{"type":"{"y" * 5000}"}}').message) < 100


# --- the rest


def test_codecs_by_name() -> None:
    assert isinstance(codec("msgpack"), MsgpackCodec)
    assert isinstance(codec("json"), JsonCodec)
    assert [codec(name).encoding for name in ("msgpack", "json")] == ["msgpack", "json"]
    with pytest.raises(ValueError, match='must be "msgpack" or "json", not \'bson\''):
        codec_for("bson", max_bytes=1, max_frames=1)


@BOTH
def test_null_is_the_encodings_own(encoding: Encoding) -> None:
    null = bytes(codec(encoding).null)
    assert null == (b"null" if encoding == "json" else b"\xc0")


@BOTH
@given(text=st.text())
def test_the_length_of_what_is_encoded(encoding: Encoding, text: str) -> None:
    module = msgspec.json if encoding == "json" else msgspec.msgpack
    info = ErrorInfo("A", text, text)
    assert codec(encoding).length(info) == len(module.encode(info))
    assert codec(encoding).length(text) == len(module.encode(text))


def test_items_have_the_length_of_their_encoding() -> None:
    """R13: without the array's separators, and without the space that JSON allows."""
    [chunk] = decode("json", '[{"type":"chunk","id":1,"items":[ 5 ,\n"é" , [ 1 ] ],"size":1}]')
    assert [bytes(item) for item in chunk.items] == [  # type: ignore[attr-defined]
        b"5",
        '"é"'.encode(),
        b"[ 1 ]",
    ]
