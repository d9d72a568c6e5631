"""What of the figures has to be so, and how they are printed."""

import json
from dataclasses import replace
from typing import Any

import pytest

from trio_streamrpc.cli.demo_figures import BRIEF, FULL, JSON_KEYS, Figures
from trio_streamrpc.cli.demo_service import ITEMS_WINDOW

GOOD = Figures(
    unary_us=200.5,
    metrics_items=30,
    file_bytes=1000,
    file_mb_per_s=10.0,
    file_sha256_ok=True,
    lookahead_items=16,
    window_items=16,
    flood_items=1000,
    beat_items=50,
    break_cleanup_ms=0.5,
    finally_ran=True,
)


def test_all_is_well() -> None:
    assert GOOD.problems() == []


def test_nothing_measured_is_not_well() -> None:
    assert Figures().problems() != []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file_sha256_ok": False}, "SHA-256"),
        ({"lookahead_items": 15}, "ran 15 items ahead of its consumer, and the window is 16"),
        ({"lookahead_items": 17}, "ran 17 items ahead of its consumer, and the window is 16"),
        ({"flood_items": 0}, "stood still"),
        ({"beat_items": 0}, "stood still"),
        ({"finally_ran": False}, "finally"),
    ],
)
def test_each_check_speaks_for_itself(change: dict[str, Any], said: str) -> None:
    [problem] = replace(GOOD, **change).problems()
    assert said in problem


def test_json_has_its_keys_in_order_and_no_others() -> None:
    assert json.loads(GOOD.as_json()) == {key: getattr(GOOD, key) for key in JSON_KEYS}
    assert list(json.loads(GOOD.as_json())) == list(JSON_KEYS)


@pytest.mark.parametrize("schedule", [BRIEF, FULL])
def test_the_slow_consumer_takes_enough_for_credit_to_come_back(schedule) -> None:
    # Whole halves of the window, so that the producer is ahead by all of it at the end too.
    assert schedule.slow_items % (ITEMS_WINDOW.items // 2) == 0
