"""frames.py: the table of section 1 of the protocol, once in each encoding."""

import ast
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw

import trio_streamrpc.protocol
from tests.protocol.wire import FIELDS, NUMBERS
from trio_streamrpc.protocol import frames
from trio_streamrpc.protocol.frames import JSON, KINDS, MSGPACK, Family, Kind, is_absent

FAMILIES = pytest.mark.parametrize("family", [MSGPACK, JSON], ids=["msgpack", "json"])


def test_kinds_are_those_of_the_document() -> None:
    assert dict(zip(KINDS, range(12), strict=True)) == NUMBERS
    numbers = {name.lower(): value for name, value in vars(Kind).items() if name.isupper()}
    assert numbers == NUMBERS


@FAMILIES
def test_fields_are_those_of_the_document_in_its_order(family: Family) -> None:
    """R2, R4: the order is the wire of msgpack, and only ever grows at its end."""
    assert {KINDS[each.kind]: each.__struct_fields__ for each in family} == FIELDS
    assert [getattr(family, kind) for kind in KINDS] == list(family)


def test_tags() -> None:
    """R2: an integer first in msgpack, the string ``type`` in JSON."""
    assert [each.__struct_config__.tag for each in MSGPACK] == list(range(12))
    assert [each.__struct_config__.tag for each in JSON] == list(FIELDS)
    assert {each.__struct_config__.tag_field for each in JSON} == {"type"}
    assert all(each.__struct_config__.array_like for each in MSGPACK)
    assert not any(each.__struct_config__.array_like for each in JSON)


@FAMILIES
def test_unknown_fields_are_not_forbidden(family: Family) -> None:
    """R4."""
    assert not any(each.__struct_config__.forbid_unknown_fields for each in family)


def test_a_json_frame_is_read_like_a_msgpack_one() -> None:
    for ours, theirs in zip(MSGPACK, JSON, strict=True):
        assert issubclass(theirs, ours)


def test_an_overflow_is_no_frame() -> None:
    """It has a number of its own, so that the runtime's table has a row for it."""
    assert frames.Overflow.kind == 12
    assert not issubclass(frames.Overflow, frames.Frame)


def test_what_is_absent() -> None:
    for absent in (b"", b"\xc0", b"null"):
        assert is_absent(Raw(absent))
    for present in (b"0", b"[]", b"\x90", b'"null"', b"nulls", b"false", b"\xc2"):
        assert not is_absent(Raw(present))


def test_limits_of_a_hello_that_says_nothing() -> None:
    """R26: what is absent has its default, section 7."""
    expected = {
        "window": {"items": 64, "bytes": 262_144},
        "max_calls": 100,
        "max_object_calls": 64,
        "max_uploads": 64,
        "max_message_bytes": 1_048_576,
        "max_message_frames": 4096,
        "max_frame_bytes": 131_072,
        "max_value_bytes": 134_217_728,
        "max_partial_bytes": 268_435_456,
    }
    decoded = msgspec.json.decode(b"{}", type=frames.Announced)
    assert {
        name: getattr(decoded, name) for name in decoded.__struct_fields__ if name != "window"
    } == {name: value for name, value in expected.items() if name != "window"}
    assert (decoded.window.items, decoded.window.bytes) == (64, 262_144)


def test_the_core_imports_neither_trio_nor_a_clock() -> None:
    """By the source of its modules, for importing the package imports all of it."""
    folder = Path(trio_streamrpc.protocol.__path__[0])
    found = set()
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, "imports are absolute"
                assert node.module is not None
                found.add(node.module)
    ours = {name for name in found if name.startswith("trio_streamrpc")}
    assert found - ours == {
        "__future__", "abc", "collections", "collections.abc", "dataclasses", "functools",
        "io",  # BytesIO, which is memory
        "math", "msgspec", "typing",
    }  # fmt: skip
    assert {name for name in ours if not name.startswith("trio_streamrpc.protocol")} == {
        "trio_streamrpc.errors",
        "trio_streamrpc.limits",
    }
