"""turns.py: who is written next (R12)."""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from trio_streamrpc.protocol.turns import Turns


def in_order(turns: Turns[str], count: int) -> list[str]:
    return [turns.take() for _ in range(count)]


def test_one_priority_is_one_line() -> None:
    turns: Turns[str] = Turns()
    assert not turns.line
    for name in "abc":
        turns.add(name)
    assert turns.line
    assert in_order(turns, 3) == ["a", "b", "c"]
    assert not turns.line
    for name in "de":
        turns.add(name, 5)
    assert in_order(turns, 2) == ["d", "e"], "whichever it is"
    assert not turns.line


def test_higher_priorities_go_first() -> None:
    """R12: whatever came first."""
    turns: Turns[str] = Turns()
    for name, priority in (
        ("a", 0), ("b", 1), ("c", -1), ("d", 127), ("e", 1), ("f", -128), ("g", -1),
    ):  # fmt: skip
        turns.add(name, priority)
    assert in_order(turns, 7) == ["d", "b", "e", "a", "c", "g", "f"]
    assert not turns.line


def test_seven_of_eight_turns_are_the_highest_priority_s() -> None:
    """R12: the eighth goes to the next lower one, and so round."""
    turns: Turns[str] = Turns()
    for name, priority in (("high", 7), ("middle", 0), ("low", -7)):
        turns.add(name, priority)
    order = []
    for _ in range(64):
        name = turns.take()
        order.append(name)
        turns.add(name, {"high": 7, "middle": 0, "low": -7}[name])
    assert Counter(order) == {"high": 56, "middle": 4, "low": 4}
    assert [name for name in order if name != "high"] == ["middle", "low"] * 4
    for start in range(0, 64, 8):
        assert order[start : start + 8].count("high") == 7


def test_what_could_not_use_its_turn_has_the_next() -> None:
    """R12: a frame that needs a message of its own would else never go, or lose its place."""
    for priority in (0, -1, 3):
        turns: Turns[str] = Turns()
        turns.add("high", 1)
        turns.add("low", priority)
        turns.add("last", priority)
        while (name := turns.take()) != "low":
            turns.add(name, 1)
        turns.give_back("low", priority)
        turns.add("new", 9)
        assert turns.take() == "low"
        first, *rest = in_order(turns, 3)
        assert first == "new"
        assert sorted(rest) == ["high", "last"]
        assert not turns.line


def test_the_only_one_is_given_back() -> None:
    turns: Turns[str] = Turns()
    turns.add("a")
    turns.add("b")
    turns.give_back(turns.take(), 0)
    assert in_order(turns, 2) == ["a", "b"]
    turns.add("c")
    turns.add("d", 1)
    assert turns.take() == "d", "it was taken, and is owed nothing any more"


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from([-128, -3, -1, 0, 0, 0, 1, 2, 127]))
        | st.just("take")
        | st.just("give back"),
        max_size=200,
    )
)
def test_nobody_is_lost_or_doubled(steps: list[tuple[int, int] | str]) -> None:
    """Within a priority, the order is that of coming."""
    turns: Turns[tuple[int, int, int]] = Turns()
    waiting: dict[int, deque[tuple[int, int, int]]] = {}
    for number, step in enumerate(steps):
        if not isinstance(step, str):
            entry = (number, *step)
            turns.add(entry, entry[2])
            waiting.setdefault(entry[2], deque()).append(entry)
        elif any(waiting.values()):
            assert turns.line
            entry = turns.take()
            if step == "take":
                assert waiting[entry[2]].popleft() == entry
            else:
                assert waiting[entry[2]][0] == entry
                turns.give_back(entry, entry[2])
        assert bool(turns.line) == any(waiting.values())
    while turns.line:
        entry = turns.take()
        assert waiting[entry[2]].popleft() == entry
    assert not any(waiting.values())


@given(
    others=st.lists(st.integers(-4, 4), min_size=1, max_size=6),
    priority=st.integers(-4, 4),
    ahead=st.integers(0, 3),
    away=st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=40),
)
def test_everybody_waits_a_bounded_number_of_turns(
    others: list[int], priority: int, ahead: int, away: list[list[int]]
) -> None:
    """R12: whatever those of higher priorities have to say, and whenever they fall silent."""
    turns: Turns[str] = Turns()
    present = dict.fromkeys(range(len(others)), True)
    for number, each in enumerate(others):
        turns.add(f"other {number}", each)
    for number in range(ahead):
        turns.add(f"ahead {number}", priority)
    turns.add("patient", priority)
    count = 0
    while (name := turns.take()) != "patient":
        count += 1
        # Nobody stands in front of it that did not when it came.
        bound = 8 * (len(set(others)) + 1) * (ahead + len(others) + 1)
        assert count <= bound, f"{count} turns without one for it"
        if name.startswith("other"):
            number = int(name.removeprefix("other "))
            silent = away[count % len(away)]
            if number in silent:
                present[number] = False
            else:
                turns.add(name, others[number])
        for number, here in present.items():
            if not here and number not in away[count % len(away)]:
                present[number] = True
                turns.add(f"other {number}", others[number])
