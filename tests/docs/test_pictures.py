"""The pictures of the documents show what their scripts give: ``nox -s pictures`` draws them."""

from itertools import pairwise
from pathlib import Path

import pytest

from docs.pictures import throughput, window
from docs.pictures.style import PLACE, THEMES, digest_in

DOCS = Path(__file__).parent.parent.parent / "docs"

#: What is drawn, and which page shows it.
SHOWN = {"window": "explanation/backpressure.md", "throughput": "comparison.md"}


@pytest.fixture(scope="module")
def seen() -> window.Run:
    return window.run()


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_the_window_is_drawn_from_this_run(seen: window.Run, theme) -> None:
    assert digest_in(PLACE / f"window-{theme.name}.svg") == seen.digest


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_the_bars_are_drawn_from_the_table(theme) -> None:
    drawn = digest_in(PLACE / f"throughput-{theme.name}.svg")
    assert drawn == throughput.digest_of(throughput.figures())


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_shows_them_in_both_themes_and_says_what_is_seen(name: str) -> None:
    page = (DOCS / SHOWN[name]).read_text(encoding="utf-8")
    for theme in THEMES:
        figure = page.partition(f"pictures/{name}-{theme.name}.svg\n")[2].partition("```")[0]
        assert f":class: only-{theme.name}\n" in figure
        assert ":alt: " in figure


def test_the_producer_is_ahead_by_the_window_and_never_more(seen: window.Run) -> None:
    assert max(each.ahead for each in seen.moments) == window.WINDOW
    assert max(each.buffered for each in seen.moments) == window.WINDOW
    assert all(each.buffered <= each.ahead for each in seen.moments)


def test_who_takes_nothing_is_granted_nothing(seen: window.Run) -> None:
    early = [each for each in seen.moments if 0.5 < each.time < window.SLOW_FROM]
    assert {(each.made, each.granted) for each in early} == {(window.WINDOW, 0)}
    assert min(time for time, _ in seen.grants) > window.SLOW_FROM


def test_credit_comes_back_by_halves_of_the_window(seen: window.Run) -> None:
    assert {items for _, items in seen.grants} == {window.WINDOW // 2}
    # Between two grants, half of the window was taken.
    slowly = [time for time, _ in seen.grants if time < window.FAST_FROM]
    assert [round(later - time, 6) for time, later in pairwise(slowly)] == [
        pytest.approx(window.WINDOW // 2 * window.SLOW)
    ]


def test_a_producer_that_stands_still_waits_for_a_grant_and_the_way_there(seen: window.Run) -> None:
    times = [time for time, _ in seen.grants]
    for _, ends in seen.stalls:
        assert any(ends == pytest.approx(time + window.LATENCY) for time in times)


def test_a_slow_consumer_lets_it_stand_and_a_fast_one_does_not(seen: window.Run) -> None:
    slow = (window.SLOW_FROM, window.FAST_FROM)
    stood = sum(min(ends, slow[1]) - max(begins, slow[0]) for begins, ends in seen.stalls)
    assert stood > 0.85 * (slow[1] - slow[0])
    # From the first grant of the fast consumer on, never again.
    assert max(ends for _, ends in seen.stalls) < window.FAST_FROM + 0.1
    assert max(each.ahead for each in seen.moments if each.time > window.FAST_FROM + 0.2) < 8


def test_the_bars_have_all_peers() -> None:
    found = throughput.figures()
    assert set(found) == set(throughput.DRAWN)
    for by_name in found.values():
        assert [name for name in by_name if name.startswith("trio_streamrpc")] == [
            "trio_streamrpc, ws",
            "trio_streamrpc, tcp",
            "trio_streamrpc, unix",
        ]
        assert len(by_name) == 10
