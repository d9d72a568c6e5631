"""limits.py: every default is finite and the document's, every value is checked."""

import ast
import inspect
import math
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from trio_streamrpc import limits
from trio_streamrpc.limits import Limits, Window

#: Section 7 of docs/protocol.md.
DEFAULTS = {
    "window": Window(64, 256 * 1024),
    "max_window": Window(65_536, 8 * 1024 * 1024),
    "max_calls": 100,
    "max_object_calls": 64,
    "max_uploads": 64,
    "max_message_bytes": 1024 * 1024,
    "max_message_frames": 4096,
    "max_frame_bytes": 128 * 1024,
    "max_value_bytes": 128 * 1024 * 1024,
    "max_partial_bytes": 256 * 1024 * 1024,
    "max_waiting_control_bytes": 1024 * 1024,
    "violation_budget": 200,
    "violation_refill": 20.0,
    "max_connections": 10_000,
    "max_connections_per_peer": 1_000,
    "max_early_bytes": 64 * 1024,
    "max_early_frames": 64,
    "handshake_timeout": 10.0,
    "ping_interval": 20.0,
    "ping_timeout": 20.0,
    "stall_timeout": 86_400.0,
    "part_timeout": 600.0,
    "close_timeout": 5.0,
    "cancel_timeout": 10.0,
    "cleanup": 5.0,
}
WINDOWS = [name for name, value in DEFAULTS.items() if isinstance(value, Window)]
INTEGERS = [name for name, value in DEFAULTS.items() if isinstance(value, int)]
SECONDS = [name for name, value in DEFAULTS.items() if isinstance(value, float)]

NO_INTEGERS: list[Any] = [True, 1.0, "1", None, 0, -1, 2**53, math.inf]
NO_SECONDS: list[Any] = [True, "1", None, 0, 0.0, -1.5, math.nan, -math.inf]


def test_defaults() -> None:
    assert {each.name: getattr(Limits(), each.name) for each in fields(Limits)} == DEFAULTS


def test_every_limit_has_its_docstring() -> None:
    [tree] = ast.parse(inspect.getsource(Limits)).body
    assert isinstance(tree, ast.ClassDef)
    for each, following in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(each, ast.AnnAssign):
            assert isinstance(following, ast.Expr), ast.unparse(each)
            assert isinstance(following.value, ast.Constant), ast.unparse(each)


def test_public_names() -> None:
    assert set(limits.__all__) == {"Limits", "Window", "checked_limits", "not_a_window"}


def test_limits_are_frozen_and_named() -> None:
    with pytest.raises(FrozenInstanceError):
        Limits().max_calls = 5  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Window().items = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(Window())  # type: ignore[call-arg]
    assert hash(Limits()) == hash(Limits())


@pytest.mark.parametrize("name", ["items", "bytes"])
def test_windows(name: str) -> None:
    """R13: a window counts items and bytes, at least one of each."""
    for good in (1, 2**53 - 1):
        assert getattr(Window(**{name: good}), name) == good
    for bad in NO_INTEGERS:
        with pytest.raises(ValueError, match=rf"Window\.{name} must be an integer of at least 1"):
            Window(**{name: bad})


@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name: str) -> None:
    # Whatever the one that is tried, the others have to agree with it.
    others: dict[str, Any] = {}
    if name in {"max_value_bytes", "max_partial_bytes"}:
        others = {"max_value_bytes": 1024, "max_partial_bytes": 2**53 - 1}
    good: Any
    for good in (1024, 2**53 - 1):
        assert getattr(Limits(**{**others, name: good}), name) == good
    for bad in NO_INTEGERS:
        with pytest.raises(ValueError, match=rf"Limits\.{name} must be an integer of at least 1"):
            Limits(**{name: bad})


@pytest.mark.parametrize("name", SECONDS)
def test_seconds(name: str) -> None:
    good: Any
    for good in (1, 0.001, math.inf):
        assert getattr(Limits(**{name: good}), name) == good
    for bad in NO_SECONDS:
        with pytest.raises(ValueError, match=rf"Limits\.{name} must be a number above 0"):
            Limits(**{name: bad})


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_windows(name: str) -> None:
    bad: Any
    for bad in ((64, 1024), None, 64):
        with pytest.raises(ValueError, match=rf"Limits\.{name} must be a Window"):
            Limits(**{name: bad})


@pytest.mark.parametrize("larger", [Window(11, 1), Window(1, 101)])
def test_the_first_window_is_within_the_largest(larger: Window) -> None:
    most = Window(10, 100)
    assert Limits(window=most, max_window=most).window is most
    with pytest.raises(ValueError, match="larger than max_window"):
        Limits(window=larger, max_window=most)


@pytest.mark.parametrize("name", ["max_message_bytes", "max_early_bytes"])
def test_a_hello_has_to_fit(name: str) -> None:
    assert getattr(Limits(**{name: 1024}), name) == 1024  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"{name} must be at least 1024"):
        Limits(**{name: 1023})  # type: ignore[arg-type]


def test_a_value_has_to_fit_among_the_unfinished() -> None:
    """R21: the longest value that is taken could never come otherwise."""
    for value, partial in ((1, 1), (1000, 1000), (1000, 1001)):
        Limits(max_value_bytes=value, max_partial_bytes=partial)
    with pytest.raises(ValueError, match="max_partial_bytes 999 is smaller than max_value_bytes"):
        Limits(max_value_bytes=1000, max_partial_bytes=999)
    with pytest.raises(ValueError, match="max_partial_bytes 1 is smaller than"):
        Limits(max_partial_bytes=1)
