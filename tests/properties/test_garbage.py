"""Garbage gives frames or RemoteProtocolError, and nothing else (R4, R28)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.garbage import (
    CORPUS,
    check_input,
    corpus,
    make_input,
    messages,
    mutated,
)

#: How many inputs are mutated blindly, for each of so many seeds.
INPUTS = 20_000 if settings().max_examples > 100 else 1_000


@pytest.mark.parametrize("name", [each.name for each in sorted(CORPUS.iterdir())])
def test_what_is_kept(name: str) -> None:
    """Whole, cut at every place, and heard by the other side."""
    data = (CORPUS / name).read_bytes()
    for flags in range(8):
        check_input(bytes([flags]) + data[1:])
    for length in range(min(len(data), 300)):
        check_input(data[:length])


@pytest.mark.parametrize("seed", range(10))
def test_what_is_mutated(seed: int) -> None:
    source, inputs = random.Random(seed), corpus()
    for _ in range(INPUTS):
        check_input(mutated(source, inputs))


@given(st.integers(0, 7), st.lists(st.binary(max_size=300), max_size=4))
def test_inputs_hold_their_messages(flags: int, said: list[bytes]) -> None:
    data = make_input(flags, *said)
    assert data[0] == flags
    assert list(messages(data[1:])) == said
    check_input(data)
