"""headers.py: the head of a handshake."""

from __future__ import annotations

import pytest

from trio_streamrpc.transports.headers import decoded, encoded, has_body, host_in, values_of


def test_there_and_back() -> None:
    assert encoded({"X-A": "é b", "Empty": ""}) == [(b"X-A", b"\xe9 b"), (b"Empty", b"")]
    assert encoded([("a", "1"), ("a", "2")]) == [(b"a", b"1"), (b"a", b"2")]
    assert decoded([(b"X-A", b"\xe9"), (b"HOST", b"h"), (b"x-a", b"2")]) == {
        "x-a": "2",
        "host": "h",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"),
        ("a b", "x"),
        ("é", "x"),
        ("a", "x\r\nb: y"),
        ("a", " x"),
        ("a", "x "),
        ("a", "\u20ac"),
    ],
)
def test_what_cannot_be_a_header(name: str, value: str) -> None:
    """It is named, without the value, which may be a secret."""
    with pytest.raises(ValueError, match="cannot be an HTTP header") as caught:
        encoded([(name, value)])
    assert repr(name) in str(caught.value)


def test_values_of_a_header() -> None:
    headers = [(b"Origin", b"a"), (b"X", b"b"), (b"ORIGIN", b"c")]
    assert values_of(headers, b"origin") == ["a", "c"]
    assert values_of(headers, b"host") == []


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], False),
        ([(b"Content-Length", b"0")], False),
        ([(b"Content-Length", b"0"), (b"content-length", b"1")], True),
        ([(b"content-length", b"")], True),
        ([(b"Transfer-Encoding", b"")], True),
    ],
)
def test_a_body(headers: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert has_body(headers) is expected


@pytest.mark.parametrize(
    ("head", "host"),
    [
        (b"GET / HTTP/1.1\r\nHost: a:1 \r\n\r\n", "a:1"),
        (b"GET / HTTP/1.1\nHOST:\ta\n\nHost: b\n", "a"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", ""),
        (b"GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", ""),
        (b"", ""),
    ],
)
def test_the_host(head: bytes, host: str) -> None:
    """What comes behind the head is none of it; two hosts are none."""
    assert host_in(head) == host


@pytest.mark.parametrize("end", [b"b\r\n", b"\rb\r\n"])
def test_a_host_of_blanks(end: bytes) -> None:
    """A long line takes no longer than its length: where it did, this would not end."""
    blanks = b" \t" * 500_000
    host = host_in(b"GET / HTTP/1.1\r\nHost:" + blanks + b"a" + blanks + end + b"\r\n")
    assert host == ("a" + blanks.decode() + end.decode().removesuffix("\r\n"))
