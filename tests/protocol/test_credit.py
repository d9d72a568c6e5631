"""credit.py: R13 to R16 as numbers."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_streamrpc.limits import MAX_INTEGER, Window
from trio_streamrpc.protocol.credit import Growth, ReceiveWindow, SendCredit, ViolationBudget

# --- the producer's half


def test_look_ahead_is_the_window_in_items() -> None:
    """R14: the generator is asked only while an item may be sent, so the window is exact."""
    credit = SendCredit(3, 1000)
    sent = 0
    while credit.open:
        credit.spend(1)
        sent += 1
    assert (sent, credit.items, credit.bytes) == (3, 0, 997)


def test_look_ahead_is_the_window_in_bytes() -> None:
    """R14: at 1 byte of credit there is one more item, at 0 none."""
    credit = SendCredit(100, 10)
    for left in (7, 4, 1, -2):
        assert credit.open
        credit.spend(3)
        assert credit.bytes == left
    assert not credit.open
    exact = SendCredit(100, 9)
    exact.spend(9)
    assert exact.bytes == 0
    assert not exact.open


def test_a_large_item_gets_through() -> None:
    """R14: byte credit falls below 0 by that one item, and grants have to make up for it."""
    credit = SendCredit(5, 1)
    assert credit.open
    credit.spend(10_000)
    assert (credit.items, credit.bytes) == (4, -9_999)
    assert credit.grant(1, 9_999)
    assert not credit.open
    assert credit.grant(0, 1)
    assert credit.open


def test_a_grant_of_either_kind_alone_may_open() -> None:
    """R15: amounts of 0 or more, not both 0."""
    credit = SendCredit(0, 0)
    assert not credit.open
    assert credit.grant(2, 0)
    assert not credit.open
    assert credit.grant(0, 5)
    assert credit.open


@pytest.mark.parametrize(
    ("items", "bytes", "valid"),
    [
        (0, 0, False),
        (MAX_INTEGER - 11, 0, True),
        (MAX_INTEGER - 10, 0, False),
        (0, MAX_INTEGER - 101, True),
        (0, MAX_INTEGER - 100, False),
        (MAX_INTEGER - 1, MAX_INTEGER - 1, False),
        (MAX_INTEGER - 11, MAX_INTEGER - 101, True),
        (1, MAX_INTEGER - 100, False),
    ],
)
def test_grants_overflow(items: int, bytes: int, valid: bool) -> None:
    """R15: sums stay below 2^53; what does not changes nothing."""
    credit = SendCredit(10, 100)
    assert credit.grant(items, bytes) is valid
    assert (credit.items, credit.bytes) == ((10 + items, 100 + bytes) if valid else (10, 100))


# --- the consumer's half


def received(window: ReceiveWindow, *sizes: int) -> str | None:
    return window.receive(sizes, sum(sizes))


def test_a_chunk_within_the_credit() -> None:
    window = ReceiveWindow(Window(4, 100))
    assert received(window, 10, 20) is None
    assert (window.credit_items, window.credit_bytes) == (2, 70)
    assert (window.buffered_items, window.buffered_bytes) == (2, 30)
    assert (window.received_items, window.received_bytes) == (2, 30)
    assert (window.peak_items, window.peak_bytes) == (2, 30)


@pytest.mark.parametrize(
    ("sizes", "size", "problem"),
    [
        ([1] * 4, 4, None),
        ([1] * 5, 5, "5 items where 4 were granted"),
        # Byte credit has to be above 0 before the last item, which itself may be of any length.
        ([99, 500], 599, None),
        ([100, 1], 101, "101 bytes where 100 were granted"),
        ([100], 100, None),
        ([101], 101, None),
        ([10**9], 10**9, None),
        ([50, 49, 1], 100, None),
        ([50, 50, 1], 101, "101 bytes where 100 were granted"),
        # A false size, either way.
        ([1, 1], 1, "a chunk of 2 bytes that says 1"),
        ([1, 1], 3, "a chunk of 2 bytes that says 3"),
        ([], 1, "a chunk of 0 bytes that says 1"),
        ([], 0, None),
    ],
)
def test_beyond_the_credit(sizes: list[int], size: int, problem: str | None) -> None:
    """R16: such a chunk takes nothing, for it is dropped whole."""
    window = ReceiveWindow(Window(4, 100))
    assert window.receive(sizes, size) == problem
    if problem is not None:
        assert (window.credit_items, window.credit_bytes) == (4, 100)
        assert (window.buffered_items, window.received_items, window.peak_bytes) == (0, 0, 0)


def test_byte_credit_that_is_used_up() -> None:
    """R16: one item below 0 is the most; after it not even the smallest."""
    window = ReceiveWindow(Window(10, 5))
    assert received(window, 100) is None
    assert window.credit_bytes == -95
    assert received(window, 1) == "1 bytes where -95 were granted"
    exact = ReceiveWindow(Window(10, 5))
    assert received(exact, 5) is None
    assert received(exact, 1) == "1 bytes where 0 were granted"


@pytest.mark.parametrize(("items", "due_at"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (64, 32)])
def test_grants_at_half_of_the_items(items: int, due_at: int) -> None:
    """R15: once half of the window has been taken, with the bytes of what was taken."""
    window = ReceiveWindow(Window(items, 10**6))
    assert received(window, *[3] * items) is None
    for taken in range(1, due_at):
        assert window.take(1, 3) is None
        assert (window.taken_items, window.taken_bytes) == (taken, 3 * taken)
        assert window.buffered_items == items - taken
    assert window.take(1, 3) == (due_at, 3 * due_at)
    assert (window.buffered_items, window.buffered_bytes) == (items - due_at, 3 * (items - due_at))
    assert window.credit_items == due_at
    assert window.credit_bytes == 10**6 - 3 * items + 3 * due_at


@pytest.mark.parametrize(("bytes", "due_at"), [(1, 1), (9, 2), (10, 2), (11, 2), (12, 2), (13, 3)])
def test_grants_at_half_of_the_bytes(bytes: int, due_at: int) -> None:
    """R15: of either window."""
    window = ReceiveWindow(Window(1000, bytes))
    for size in (3, 3, 3):
        if received(window, size) is not None:
            break
    for _ in range(1, due_at):
        assert window.take(1, 3) is None
    assert window.take(1, 3) == (due_at, 3 * due_at)


def test_several_items_taken_at_once() -> None:
    """R15: where sizes are not known one by one, a chunk's items come with its last."""
    window = ReceiveWindow(Window(64, 1000))
    assert received(window, *[10] * 40) is None
    assert window.take(10, 0) is None
    assert window.take(30, 400) == (40, 400)
    assert (window.buffered_items, window.buffered_bytes) == (0, 0)


def test_the_peak_is_what_was_buffered_at_most() -> None:
    window = ReceiveWindow(Window(10, 100))
    received(window, 5, 5, 5)
    window.take(3, 15)
    received(window, 6)
    assert (window.peak_items, window.peak_bytes) == (3, 15)
    received(window, 30)
    assert (window.peak_items, window.peak_bytes) == (3, 36)
    assert (window.received_items, window.received_bytes) == (5, 51)


@given(
    st.builds(Window, st.integers(1, 8), st.integers(1, 60)),
    st.lists(st.integers(1, 100), max_size=60),
    st.randoms(use_true_random=False),
)
def test_both_halves_agree(window: Window, sizes: list[int], random: object) -> None:
    """R13 to R16: what one may send the other takes; nothing stalls, the window is never passed."""
    choose = random.choice  # type: ignore[attr-defined]
    credit, consumer = SendCredit(window.items, window.bytes), ReceiveWindow(window)
    waiting, chunks, buffered = deque(sizes), deque[list[int]](), deque[int]()
    grants = deque[tuple[int, int]]()
    while waiting or chunks or buffered or grants:
        moves = []
        if waiting and credit.open:
            moves.append("send")
        moves += ["receive"] * bool(chunks) + ["take"] * bool(buffered) + ["grant"] * bool(grants)
        assert moves, "stalled: credit is lost"
        move = choose(moves)
        if move == "send":
            chunk: list[int] = []
            while waiting and credit.open and len(chunk) < choose([1, 2, 10]):
                chunk.append(waiting.popleft())
                credit.spend(chunk[-1])
            if chunk:
                chunks.append(chunk)
        elif move == "receive":
            chunk = chunks.popleft()
            assert consumer.receive(chunk, sum(chunk)) is None
            buffered.extend(chunk)
        elif move == "take":
            due = consumer.take(1, buffered.popleft())
            if due is not None:
                grants.append(due)
        else:
            assert credit.grant(*grants.popleft())
        assert 0 <= credit.items <= window.items
        assert -100 <= credit.bytes <= window.bytes
        assert consumer.buffered_items == len(buffered) <= window.items
        assert consumer.buffered_bytes == sum(buffered) < window.bytes + 100
        travelling = sum(len(chunk) for chunk in chunks) + sum(items for items, _ in grants)
        assert credit.items + travelling == consumer.credit_items
    assert consumer.received_items == len(sizes)


# --- windows that grow


def one_round(
    window: ReceiveWindow, *, sent: float, heard: float, round_trip: float | None, left: int = 0
) -> tuple[int, int] | None:
    """Fill the window, take all but some of it, grant at one time, and hear more at another."""
    count = window.credit_items
    assert window.receive([1] * count, count) is None
    assert window.grow(count, sent, round_trip) is None
    for _ in range(count - left):
        due = window.take(1, 1)
        if due is not None:
            window.granted(*due, sent)
    assert window.receive([1], 1) is None
    return window.grow(1, heard, round_trip)


def growing(limit: Window | None = None) -> ReceiveWindow:
    return ReceiveWindow(Window(8, 1000), Growth(limit or Window(64, 8000)))


def test_a_window_doubles_while_both_ends_wait_for_the_link() -> None:
    """R15: the producer had stood still for the grant, and the consumer had nothing left."""
    window = growing()
    assert one_round(window, sent=1.0, heard=1.1, round_trip=0.1) == (8, 1000)
    assert window.window == Window(16, 2000)
    # What is granted more is credit like any other.
    assert window.credit_items == 16 - 1


def test_a_window_stops_at_its_limit() -> None:
    window = growing(Window(12, 1000))
    assert one_round(window, sent=1.0, heard=1.1, round_trip=0.1) == (4, 0)
    window.take(1, 1)
    assert one_round(window, sent=2.0, heard=2.1, round_trip=0.1) is None
    assert window.window == Window(12, 1000)


@pytest.mark.parametrize(
    "round_of",
    [
        pytest.param({"heard": 1.21, "round_trip": 0.1}, id="slow producer"),
        pytest.param({"heard": 1.1, "round_trip": 0.1, "left": 1}, id="slow consumer"),
        pytest.param({"heard": 1.1, "round_trip": None}, id="nothing measured"),
    ],
)
def test_a_window_that_is_large_enough_stays(round_of: dict[str, Any]) -> None:
    window = growing()
    assert one_round(window, sent=1.0, **round_of) is None
    assert window.window == Window(8, 1000)


def test_a_fixed_window_stays() -> None:
    window = ReceiveWindow(Window(8, 1000))
    assert one_round(window, sent=1.0, heard=1.0, round_trip=1.0) is None
    assert window.window == Window(8, 1000)


def test_a_window_grows_for_want_of_bytes() -> None:
    window = ReceiveWindow(Window(100, 10), Growth(Window(1000, 100)))
    assert window.receive([5, 5], 10) is None
    assert window.grow(2, 1.0, 0.1) is None
    due = window.take(2, 10)
    assert due == (2, 10)
    window.granted(*due, 1.0)
    assert window.receive([5], 5) is None
    assert window.grow(1, 1.1, 0.1) == (100, 10)


def test_one_grant_is_watched_at_a_time() -> None:
    """The later of two grants does not start the clock again."""
    growth = Growth(Window())
    growth.granted(8, 1000, 1.0)
    growth.granted(12, 1500, 5.0)
    assert not growth.is_due(9, 0, starved=True, now=5.1, round_trip=0.1)


def taking(window: ReceiveWindow, *times: float) -> list[tuple[int, int] | None]:
    """What is granted to enlarge it, where half a window is taken at each of these times."""
    found = []
    for now in times:
        half = (window.window.items + 1) // 2
        assert received(window, *[1] * half) is None
        due = window.take(half, half)
        assert due is not None
        found.append(window.granted(*due, now))
    return found


def test_a_window_doubles_while_it_is_used_up_in_no_time() -> None:
    """R15: grants and short chunks would be more work than the items."""
    window = growing(Window(20, 8000))
    assert taking(window, 1.0, 1.0009) == [None, (8, 1000)]
    assert window.window == Window(16, 2000)
    assert window.credit_items == 16
    assert taking(window, 1.0015, 1.002) == [(4, 2000), (0, 4000)]
    assert taking(window, 1.0025) == [None], "it is as large as it may be"
    assert window.window == Window(20, 8000)


def test_how_fast_it_is_used_up_is_no_reason_for_a_window_of_a_long_link() -> None:
    """And one that is as large already is not taken back (R15)."""
    limit = Window(8 * Growth.PACE_ITEMS, 10**9)
    small, large = (
        ReceiveWindow(Window(items, 10**9), Growth(limit))
        for items in (Growth.PACE_ITEMS // 2, Growth.PACE_ITEMS * 2)
    )
    for window in (small, large):
        taking(window, 1.0, 1.0001, 1.0002, 1.0003)
    assert small.window.items == Growth.PACE_ITEMS
    assert large.window.items == 2 * Growth.PACE_ITEMS
    assert one_round(large, sent=2.0, heard=2.1, round_trip=0.1) == (2 * Growth.PACE_ITEMS, 0)


@pytest.mark.parametrize("pause", [0.0, 0.002, 0.5])
def test_a_window_that_lasts_stays(pause: float) -> None:
    """A clock that stands still says nothing of how long it lasts."""
    window = growing()
    assert taking(window, *[1.0 + number * pause for number in range(5)]) == [None] * 5
    assert window.window == Window(8, 1000)


def test_a_fixed_window_stays_however_fast_it_is_used_up() -> None:
    window = ReceiveWindow(Window(8, 1000))
    assert taking(window, 1.0, 1.0001, 1.0002) == [None] * 3


# --- violations


def test_the_budget_is_used_up() -> None:
    budget = ViolationBudget(3, 1.0)
    assert [budget.spend(5.0) for _ in range(5)] == [True, True, True, False, False]


def test_the_budget_is_refilled_as_time_passes() -> None:
    budget = ViolationBudget(2, 4.0)
    assert [budget.spend(100.0) for _ in range(3)] == [True, True, False]
    assert not budget.spend(100.2), "0.8 of one"
    assert budget.spend(100.25), "1.0 of one"
    assert not budget.spend(100.25)


def test_the_budget_never_holds_more_than_it_began_with() -> None:
    budget = ViolationBudget(2, 4.0)
    assert budget.spend(0.0)
    assert [budget.spend(1e9) for _ in range(3)] == [True, True, False]
    assert not budget.spend(math.nextafter(1e9, 0)), "a clock that goes back gives nothing"
