"""urls.py: which transport a URL means, and what is wrong with those that mean none."""

from __future__ import annotations

import functools
import ssl

import pytest
import trio

from trio_streamrpc import Limits, Unavailable, connect, serve
from trio_streamrpc.transports import bytestream, websocket
from trio_streamrpc.transports.urls import SCHEMES, Scheme, scheme_of


async def answer() -> int:
    return 42


@pytest.mark.parametrize("url", ["ws://h", "wss://h", "WS://h", "ws://[::1]:80/p?q", "ws:"])
def test_schemes(url: str) -> None:
    scheme = scheme_of(url)
    assert isinstance(scheme, Scheme)
    assert scheme is SCHEMES["ws"]
    assert scheme.connect is websocket.connect_websocket


@pytest.mark.parametrize("url", ["tcp://h:1", "tls://h:1", "unix:///s", "TCP://h:1"])
def test_schemes_of_byte_streams(url: str) -> None:
    assert scheme_of(url) is SCHEMES["tcp"]
    assert scheme_of(url).connect is bytestream.connect_stream


NO_SCHEMES = ["", "localhost", "localhost:80", "http://h", "https://h", "/path", "://h", "w s://h"]


@pytest.mark.parametrize("url", NO_SCHEMES)
def test_no_schemes(url: str) -> None:
    with pytest.raises(ValueError, match=r"is no URL that can be served.*ws://, wss://") as caught:
        scheme_of(url)
    assert repr(url) in str(caught.value)


WRONG = [
    *NO_SCHEMES,
    "ws://",
    "ws:",
    "ws:///path",
    "ws://:8765",
    "ws://h:port",
    "ws://h:-1",
    "ws://h:65536",
    "ws://[::1",
    "ws://user@",
    *(
        scheme + rest
        for scheme in ("tcp", "tls")
        for rest in (
            ":", "://", "://h", "://:1", "://h:", "://h:port", "://h:65536", "://[::1", "://h:1/",
            "://h:1/path", "://h:1?query", "://h:1#fragment", "://me@h:1", "://me:secret@h:1",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("url", WRONG)
async def test_urls_that_cannot_be(url: str) -> None:
    """ValueError from either side, before anything is opened."""
    with pytest.raises(ValueError, match=r"."):
        async with connect(url):
            pytest.fail("the block must not begin")
    with pytest.raises(ValueError, match=r"."):
        await serve({"answer": answer}, url)


@pytest.mark.parametrize("host", ["a..b", ".h", "h" * 64, "\u2024"])
@pytest.mark.parametrize("scheme", ["ws", "tcp"])
async def test_hosts_that_cannot_be(scheme: str, host: str) -> None:
    """ValueError from either side, which shows the URL."""
    url = f"{scheme}://{host}:1"
    for reach in (connect_once, functools.partial(serve, {"answer": answer})):
        with pytest.raises(ValueError, match="names a host that cannot be") as caught:
            await reach(url)
        assert repr(url) in str(caught.value)
        assert caught.value.__suppress_context__


async def connect_once(url: str) -> None:
    async with connect(url):
        pytest.fail("the block must not begin")


async def test_ssl_contexts_that_do_not_fit() -> None:
    context = ssl.create_default_context()
    for url in ("ws://127.0.0.1:1", "tcp://127.0.0.1:1", "unix:///no/socket"):
        with pytest.raises(ValueError, match="which is not encrypted"):
            async with connect(url, ssl_context=context):
                pytest.fail("the block must not begin")
        with pytest.raises(ValueError, match="needs no ssl_context"):
            await serve({"answer": answer}, url, ssl_context=context)
    for url in ("wss://127.0.0.1:0", "tls://127.0.0.1:0"):
        with pytest.raises(ValueError, match="needs an ssl_context"):
            await serve({"answer": answer}, url)


async def test_a_byte_stream_needs_a_port_and_no_headers() -> None:
    with pytest.raises(ValueError, match=r"names no port; a URL looks like tcp://h:8765"):
        async with connect("tcp://h"):
            pytest.fail("the block must not begin")
    for url in ("tcp://127.0.0.1:1", "tls://127.0.0.1:1", "unix:///no/socket"):
        for headers in ({"a": "b"}, [("a", "b")], iter([("a", "b")])):
            with pytest.raises(ValueError, match="headers were given for"):
                async with connect(url, headers=headers):
                    pytest.fail("the block must not begin")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://h.invalid", ("h.invalid", 80)),
        ("wss://h.invalid", ("h.invalid", 443)),
        ("ws://h.invalid:0", ("h.invalid", 0)),
        ("ws://h.invalid:8765/a/b?c=d", ("h.invalid", 8765)),
        ("wss://H.Invalid:8765", ("h.invalid", 8765)),
        ("ws://[::1]", ("::1", 80)),
        ("ws://[::1]:8765/", ("::1", 8765)),
        ("ws://me:secret@h.invalid/", ("h.invalid", 80)),
        ("tcp://h.invalid:8765", ("h.invalid", 8765)),
        ("tls://[::1]:8765", ("::1", 8765)),
    ],
)
async def test_addresses(
    url: str, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default ports are those of HTTP and HTTPS."""
    asked = []

    async def open_tcp_stream(host: str, port: int) -> trio.SocketStream:
        asked.append((host, port))
        raise OSError("refused")

    monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
    with pytest.raises(Unavailable, match=r"cannot connect to .*refused"):
        async with connect(url, limits=Limits(handshake_timeout=5)):
            pytest.fail("the block must not begin")
    assert asked == [address]
