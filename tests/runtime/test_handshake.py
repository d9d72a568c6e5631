"""handshake.py: what ``authenticate`` is given."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from trio_streamrpc import Handshake
from trio_streamrpc.runtime.handshake import handshake_over
from trio_streamrpc.transports.memory import open_memory_transports


def told(target: str = "", **attributes: Any) -> Handshake:
    transport, _ = open_memory_transports(encoding="json")
    transport.target = target
    for name, value in attributes.items():
        setattr(transport, name, value)
    return handshake_over(transport, {"token": "secret"})


def test_what_there_is_over_memory() -> None:
    handshake = told()
    assert handshake.remote == "memory"
    assert handshake.encoding == "json"
    assert handshake.metadata == {"token": "secret"}
    assert handshake.headers == handshake.query == {}
    assert handshake.path == ""
    assert handshake.certificate is None


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", {}),
        ("/market", "/market", {}),
        ("/a%2Fb%20c", "/a/b c", {}),
        ("/?", "/", {}),
        ("/?token=abc&b=", "/", {"token": "abc", "b": ""}),
        ("/x?a=1&a=2", "/x", {"a": "2"}),
        ("/x?a=%26%3D+%C3%A9", "/x", {"a": "&= é"}),
        ("/x?a?b=c?", "/x", {"a?b": "c?"}),
        ("/x?flag", "/x", {"flag": ""}),
        ("//host/x?y=1", "//host/x", {"y": "1"}),
        ("http://[/x?y=1", "http://[/x", {"y": "1"}),
        ("/%ff?%ff=%ff", "/\ufffd", {"\ufffd": "\ufffd"}),
        ("*", "*", {}),
    ],
)
def test_path_and_query(target: str, path: str, query: dict[str, str]) -> None:
    """Decoded, whatever it is that a client has asked for."""
    handshake = told(target)
    assert (handshake.path, handshake.query) == (path, query)


def test_it_is_not_shown_what_may_be_secret() -> None:
    handshake = told("/market?token=secret", headers={"authorization": "Bearer secret"})
    assert handshake.query == {"token": "secret"}
    assert handshake.headers == {"authorization": "Bearer secret"}
    assert repr(handshake) == "Handshake(remote='memory', encoding='json', path='/market')"


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        told().path = "/admin"  # type: ignore[misc]
