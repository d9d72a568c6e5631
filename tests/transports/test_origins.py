"""origins.py: which web pages may connect."""

from __future__ import annotations

from typing import Any

import pytest

from trio_streamrpc.transports.origins import Origins

LISTED = ["https://example.com", "http://localhost:8080", "https://[2001:db8::1]:8443", "app://x"]


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "https://example.com:443",
        "HTTPS://Example.COM",
        "http://localhost:8080",
        "https://[2001:db8::1]:8443",
        "https://[2001:DB8:0::0:1]:8443",
        "app://x",
    ],
)
def test_listed(origin: str) -> None:
    """In whatever case of letters, with or without the port that is the scheme's own."""
    assert Origins(LISTED).allow([origin], "example.com")


#: What is no origin, or none that is listed.
FOREIGN = [
    "",
    "null",
    "Null",
    "*",
    "https://evil.example",
    "http://example.com",
    "wss://example.com",
    "https://example.com:8443",
    "https://example.com:80",
    "https://example.com:",
    "https://example.com:0443",
    "https://example.com:44३",
    "https://example.com:65979",
    "https://example.com.evil.example",
    "https://notexample.com",
    "https://sub.example.com",
    "https://example.co",
    "https://example.com.",
    "https://example.com/",
    "https://example.com/path",
    "https://example.com?query",
    "https://example.com#fragment",
    "https://user@example.com",
    "https://evil.example\\@example.com",
    "https://evil.example https://example.com",
    "https://example.com https://example.com",
    "https://example.com, https://example.com",
    "https://\uff45xample.com",
    "https://ex\u00e4mple.com",
    "https://example.com\x00",
    "https://example.com\n",
    " https://example.com",
    "https:/example.com",
    "https//example.com",
    "//example.com",
    "example.com",
    "https://",
    "https://[::1",
    "https://[evil.example]",
    "https://[1:2]",
    "http://localhost",
    "http://localhost:80800",
    "app://x:1",
    "x" * 10_000,
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_not_listed(origin: str) -> None:
    assert not Origins(LISTED).allow([origin], "example.com")
    assert not Origins([]).allow([origin], "example.com")


@pytest.mark.parametrize("allowed", [None, [], LISTED])
def test_no_browser(allowed: Any) -> None:
    assert Origins(allowed).allow([], "example.com")
    assert Origins(allowed).allow([], "")


@pytest.mark.parametrize("allowed", [None, LISTED])
def test_more_than_one(allowed: Any) -> None:
    """No browser says two, be they the same."""
    for second in ("https://example.com", "https://evil.example", ""):
        for origins in (["https://example.com", second], [second, "https://example.com"]):
            assert not Origins(allowed).allow(origins, "example.com")


SAME: list[tuple[str, str, bool]] = [
    # What is not encrypted may have been, as far as to a proxy: the port is the page's.
    ("http://example.com", "example.com", False),
    ("https://example.com", "example.com", False),
    ("https://example.com", "example.com", True),
    ("https://example.com", "example.com:443", True),
    ("https://example.com:443", "example.com", True),
    ("https://example.com:8443", "example.com:8443", True),
    ("http://example.com:80", "example.com", False),
    ("http://example.com", "example.com:80", False),
    ("http://localhost:8080", "localhost:8080", False),
    ("http://Localhost:8080", "LOCALHOST:8080", False),
    ("http://[::1]:8080", "[0:0::1]:8080", False),
    ("http://127.0.0.1:8080", "127.0.0.1:8080", False),
]


@pytest.mark.parametrize(("origin", "host", "encrypted"), SAME)
def test_the_same_host(origin: str, host: str, encrypted: bool) -> None:
    assert Origins(encrypted=encrypted).allow([origin], host)


OTHER: list[tuple[str, str, bool]] = [
    ("http://evil.example", "example.com", False),
    ("http://example.com.evil.example", "example.com", False),
    ("http://notexample.com", "example.com", False),
    ("http://example.com", "sub.example.com", False),
    ("http://example.com:8080", "example.com", False),
    ("http://example.com", "example.com:8080", False),
    ("http://localhost:8080", "localhost:8081", False),
    ("http://localhost:8080", "127.0.0.1:8080", False),
    # A page that was not encrypted may have been changed on its way.
    ("http://example.com", "example.com", True),
    ("http://example.com:8443", "example.com:8443", True),
    ("http://example.com:443", "example.com", True),
    ("app://example.com", "example.com", False),
    ("null", "null", False),
    ("null", "example.com", False),
    ("http://example.com", "", False),
    ("http://example.com", "example.com, example.com", False),
    ("http://example.com", "user@example.com", False),
    ("http://example.com", "example.com/", False),
    ("http://example.com", "http://example.com", False),
    ("", "", False),
]


@pytest.mark.parametrize(("origin", "host", "encrypted"), OTHER)
def test_another_host(origin: str, host: str, encrypted: bool) -> None:
    assert not Origins(encrypted=encrypted).allow([origin], host)


@pytest.mark.parametrize("origin", FOREIGN)
def test_what_comes_from_elsewhere(origin: str) -> None:
    for encrypted in (False, True):
        assert not Origins(encrypted=encrypted).allow([origin], "elsewhere.example")
        assert not Origins(encrypted=encrypted).allow([origin], "")


@pytest.mark.parametrize(
    "entry",
    [
        "*",
        "null",
        "",
        "example.com",
        "https://example.com/",
        "https://*.example.com",
        "https://user@example.com",
        "https://m\u00fcller.example",
        "https://example.com:65536",
        "https://[::g]",
        "https://[1:2]",
        None,
        5,
        b"https://example.com",
    ],
)
def test_an_entry_that_is_no_origin(entry: Any) -> None:
    with pytest.raises(ValueError, match=r"in allowed_origins is no origin; one looks like"):
        Origins(["https://example.com", entry])


@pytest.mark.parametrize("allowed", ["https://example.com", 5])
def test_what_is_no_sequence_of_origins(allowed: Any) -> None:
    with pytest.raises(TypeError, match="allowed_origins is a sequence"):
        Origins(allowed)
